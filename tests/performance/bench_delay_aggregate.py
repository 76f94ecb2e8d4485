"""Delay aggregation and correlation on the CPU: parity first, then ratios measured in turn in one process.

    python tests/performance/bench_delay_aggregate.py [--repeats 5] [--threads N] [--clock wall|cpu] [--json]

Peers: ``eager`` (what runs), ``reference`` (one sample and lag at a time), ``released`` (the algorithm that the authors
released, transcribed from its description: rolls of the whole batch in training, a gather from the doubled
sequence per lag in evaluation; forward, and forward with backward), and ``numba``, a compiled loop that was tried as a
``cpu`` back end: it must beat eager twofold to become one. On a busy machine ``--threads 1 --clock cpu`` is the fair
comparison: other people's work then does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable

import numba
import numpy as np
import torch
from torch import Tensor

from core_attention.kernels import delay_aggregate, delay_correlation

SHAPES = ((32, 96, 3), (32, 96, 1), (8, 720, 3), (8, 720, 1))  # B, T, factor of int(factor ln T) lags
HEADS, WIDTH = 8, 64
Peers = dict[str, Callable[[], object]]


def released_training(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    """Lags shared by the batch; values (B, H, D, T)."""
    total = torch.zeros_like(values)
    for i in range(lags.shape[1]):
        total = total + torch.roll(values, -int(lags[0, i]), -1) * weights[:, i, None, None, None]
    return total


def released_evaluation(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    """Lags of each sample; values (B, H, D, T), doubled in time and gathered once a lag."""
    B, H, D, T = values.shape
    steps = torch.arange(T).view(1, 1, 1, T).repeat(B, H, D, 1)
    doubled = values.repeat(1, 1, 1, 2)
    total = torch.zeros_like(values)
    for i in range(lags.shape[1]):
        index = steps + lags[:, i].view(B, 1, 1, 1).repeat(1, H, D, T)
        total = total + torch.gather(doubled, -1, index) * weights[:, i, None, None, None]
    return total


@numba.njit(parallel=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
def _numba_aggregate(values, lags, weights, out):
    B, T, C = values.shape
    K = lags.shape[1]
    for row in numba.prange(B * T):
        b, t = row // T, row % T
        target = out[b, t]
        target[:] = 0
        i = 0
        while i < K - 3:  # four lags a pass over the row: a quarter of the loads and stores of the target
            t0, t1, t2, t3 = t + lags[b, i], t + lags[b, i + 1], t + lags[b, i + 2], t + lags[b, i + 3]
            v0, v1 = values[b, t0 - T * (t0 >= T)], values[b, t1 - T * (t1 >= T)]
            v2, v3 = values[b, t2 - T * (t2 >= T)], values[b, t3 - T * (t3 >= T)]
            w0, w1, w2, w3 = weights[b, i], weights[b, i + 1], weights[b, i + 2], weights[b, i + 3]
            for c in range(C):
                target[c] += w0 * v0[c] + w1 * v1[c] + w2 * v2[c] + w3 * v3[c]
            i += 4
        while i < K:
            t0 = t + lags[b, i]
            v0, w0 = values[b, t0 - T * (t0 >= T)], weights[b, i]
            for c in range(C):
                target[c] += w0 * v0[c]
            i += 1


@numba.njit(parallel=True, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")
def _numba_correlation(q, k, lags, out):
    B, T, C = q.shape
    K = lags.shape[1]
    for pair in numba.prange(B * K):
        b, i = pair // K, pair % K
        total = q[0, 0, 0] * 0
        for t in range(T):
            row = t - lags[b, i]
            left, right = q[b, t], k[b, row + T * (row < 0)]
            for c in range(C):
                total += left[c] * right[c]
        out[b, i] = total / C


def numba_aggregate(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    B, T, H, D = values.shape
    out = np.empty((B, T, H * D), dtype=np.float32)
    _numba_aggregate(values.view(B, T, H * D).numpy(), lags.numpy(), weights.numpy(), out)
    return torch.from_numpy(out).view(B, T, H, D)


def numba_correlation(q: Tensor, k: Tensor, lags: Tensor) -> Tensor:
    B, T, H, D = q.shape
    out = np.empty(tuple(lags.shape), dtype=np.float32)
    _numba_correlation(q.view(B, T, H * D).numpy(), k.view(B, T, H * D).numpy(), lags.numpy(), out)
    return torch.from_numpy(out)


def medians(peers: Peers, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each peer, measured in turn so that a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(repeats):
        for name, call in peers.items():
            call()  # untimed: else a peer pays for the pages that its predecessor gave back to the system
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def _step(function: Callable[..., Tensor], *tensors: Tensor) -> Callable[[], object]:
    """Forward and backward into every floating argument."""
    leaves = [t.detach().requires_grad_() if t.is_floating_point() else t for t in tensors]
    wanted = [t for t in leaves if t.requires_grad]

    def run() -> object:
        output = function(*leaves)
        return output, torch.autograd.grad(output, wanted, torch.ones_like(output))

    return run


def _agree(mine: object, theirs: object) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def measure(
    B: int, T: int, factor: int, repeats: int, clock: Callable[[], float], pair_only: bool
) -> dict[str, object]:
    """Ratios of one shape, each against eager, after parity of everything that is timed."""
    generator = torch.Generator().manual_seed(2021)
    K = int(factor * math.log(T))
    values, query = (torch.randn(B, T, HEADS, WIDTH, generator=generator) for _ in range(2))
    own = torch.stack([torch.randperm(T, generator=generator)[:K] for _ in range(B)])
    shared = own[:1].expand(B, -1).contiguous()
    weights = torch.softmax(torch.randn(B, K, generator=generator), dim=-1)
    turned = values.permute(0, 2, 3, 1).contiguous()  # the released code's layout, given to it for nothing

    aggregate: Peers = {
        "eager": lambda: delay_aggregate(values, own, weights, backend="eager"),
        "numba": lambda: numba_aggregate(values, own, weights),
        "reference": lambda: delay_aggregate(values, own, weights, backend="reference"),
        "released": lambda: released_evaluation(turned, own, weights).permute(0, 3, 1, 2),
    }
    correlation: Peers = {
        "eager": lambda: delay_correlation(query, values, own, backend="eager"),
        "numba": lambda: numba_correlation(query, values, own),
        "reference": lambda: delay_correlation(query, values, own, backend="reference"),
    }
    for peers in (aggregate, correlation):
        for call in peers.values():
            _agree(call(), peers["eager"]())
    step: Peers = {
        "eager": _step(lambda v, w: delay_aggregate(v, shared, w), values, weights),
        "released": _step(lambda v, w: released_training(v, shared, w), turned, weights),
    }
    (mine, (d_mine, w_mine)), (theirs, (d_theirs, w_theirs)) = step["eager"](), step["released"]()  # type: ignore[misc]
    _agree((mine, d_mine), tuple(t.permute(0, 3, 1, 2) for t in (theirs, d_theirs)))
    torch.testing.assert_close(w_mine, w_theirs, rtol=1e-4, atol=1e-4 * T)  # sums of T x 512 products
    found: dict[str, object] = {"B": B, "T": T, "K": K}
    for name, peers in (("aggregate", aggregate), ("correlation", correlation)):
        # The contest for a back end apart from peers that allocate hundreds of megabytes between the two.
        pair = medians({key: peers[key] for key in ("eager", "numba")}, 5 * repeats, clock)
        found[f"{name}, numba alone"] = round(pair["numba"] / pair["eager"], 2)
    if pair_only:
        return found
    for name, peers in (("aggregate", aggregate), ("correlation", correlation), ("aggregate step", step)):
        seconds = medians(peers, repeats, clock)
        found[name] = {peer: round(value / seconds["eager"], 2) for peer, value in seconds.items() if peer != "eager"}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: time of this process alone")
    parser.add_argument("--pair-only", action="store_true", help="only eager against numba")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    results = [measure(*shape, options.repeats, clock, options.pair_only) for shape in SHAPES]
    if options.json:
        print(json.dumps({"threads": options.threads, "clock": options.clock, "time_over_eager": results}))
        return 0
    how = f"{options.clock} clock, median of {options.repeats}, {options.threads} threads"
    print(f"time of a peer over time of eager ({how}), parity checked")
    for result in results:
        print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
