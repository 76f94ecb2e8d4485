"""Delay aggregation and correlation on the CPU: parity first, then ratios measured in turn in one process.

    python tests/performance/bench_delay_aggregate.py [--repeats 5] [--threads N] [--clock wall|cpu] [--json]

Peers: ``eager`` (what runs), ``reference`` (one sample and lag at a time), ``released`` (the algorithm that the authors
released, see ``bench`` beside the operation; forward, and forward with backward), and ``numba``, compiled loops that
were tried as a ``cpu`` back end and must beat eager twofold to become one: vector instructions written out, the sums of
64 channels kept in registers over all lags. On a busy machine ``--threads 1 --clock cpu`` is the fair comparison: other
people's work then does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable

import numba
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from torch import Tensor

from core_attention.kernels import delay_aggregate, delay_correlation
from core_attention.kernels._numba import ranges, run
from core_attention.kernels.delay_aggregate.bench import released_evaluation, released_training, step

SHAPES = ((32, 96, 3), (32, 96, 1), (8, 720, 3), (8, 720, 1))  # B, T, factor of int(factor ln T) lags
HEADS, WIDTH = 8, 64

ROWS = 16  # time steps that a thread takes at a time
LANES, VECTORS = 8, 8
CHANNELS = LANES * VECTORS  # a stretch of channels whose sums stay in registers
INT32, INT64, VECTOR = ir.IntType(32), ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
Peers = dict[str, Callable[[], object]]


@intrinsic
def _weighted_rows(typing, out, source, offsets, weights, count):
    """64 floats at ``out`` = sum over i of weights[i] times those at ``source + offsets[i]``, summed in registers."""

    def code(context, builder, signature, arguments):
        out, source, offsets, weights, count = arguments
        with _over(builder, count, [ir.Constant(VECTOR, [0.0] * LANES)] * VECTORS) as (i, sums):
            weight = builder.load(builder.gep(builder.inttoptr(weights, ir.FloatType().as_pointer()), [i]))
            spread = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), weight, ir.Constant(INT32, 0))
            spread = builder.shuffle_vector(
                spread, ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES)
            )
            rows = _row(builder, source, offsets, i)
            sums[:] = [_fma(builder, row, spread, total) for row, total in zip(rows, sums, strict=True)]
        for j, total in enumerate(sums):
            builder.store(total, _vector(builder, out, ir.Constant(INT64, j)), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), code


@intrinsic
def _add_products(typing, sums, left, source, offsets, count):
    """sums[i] (8 floats) += the products of 64 floats at ``left`` with those at ``source + offsets[i]``."""

    def code(context, builder, signature, arguments):
        sums, left, source, offsets, count = arguments
        query = [builder.load(_vector(builder, left, ir.Constant(INT64, j)), align=4) for j in range(VECTORS)]
        with _over(builder, count, []) as (i, _):
            rows, place = _row(builder, source, offsets, i), _vector(builder, sums, i)
            halves = [builder.load(place, align=4), ir.Constant(VECTOR, [0.0] * LANES)]
            for j, (row, mine) in enumerate(zip(rows, query, strict=True)):
                halves[j % 2] = _fma(builder, row, mine, halves[j % 2])
            builder.store(builder.fadd(*halves), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), code


@contextlib.contextmanager
def _over(builder, count, carried):
    """A loop over i in [0, count), count >= 1; yields i and a list of vectors that the body replaces."""
    before, body, after = builder.block, builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    i, held = builder.phi(INT64), [builder.phi(VECTOR) for _ in carried]
    current = list(held)
    yield i, current
    following = builder.add(i, ir.Constant(INT64, 1))
    for phi, first, then in zip((i, *held), (ir.Constant(INT64, 0), *carried), (following, *current), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, body)
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)


def _vector(builder, address, i):
    return builder.gep(builder.inttoptr(address, VECTOR.as_pointer()), [i])


def _row(builder, source, offsets, i):
    """The 64 floats at ``source + offsets[i]`` bytes, as vectors."""
    offset = builder.load(builder.gep(builder.inttoptr(offsets, INT64.as_pointer()), [i]))
    place = builder.add(source, offset)
    return [builder.load(_vector(builder, place, ir.Constant(INT64, j)), align=4) for j in range(VECTORS)]


def _fma(builder, x, y, z):
    return builder.fadd(builder.fmul(x, y, flags=["contract"]), z, flags=["contract"])


@numba.njit(nogil=True, error_model="numpy")
def _numba_aggregate(values, lags, weights, out, offsets, part, low, high):
    """``low`` to ``high`` count blocks of ROWS time steps of all samples; lags in [0, T)."""
    T, C = values.shape[1:]
    blocks, mine = (T + ROWS - 1) // ROWS, offsets[part]
    for item in range(low, high):
        b, start = item // blocks, item % blocks * ROWS
        base, weight = b * T * C * 4, weights[b].ctypes.data
        for i in range(len(mine)):
            mine[i] = (start + lags[b, i]) % T * C * 4
        for t in range(start, min(T, start + ROWS)):
            for c in range(0, C, CHANNELS):
                at = base + (t * C + c) * 4
                _weighted_rows(
                    out.ctypes.data + at, values.ctypes.data + base + c * 4, mine.ctypes.data, weight, len(mine)
                )
            for i in range(len(mine)):
                following = mine[i] + C * 4
                mine[i] = 0 if following == T * C * 4 else following


@numba.njit(nogil=True, error_model="numpy")
def _numba_correlation(q, k, lags, sums, offsets, part, low, high):
    """Blocks as above; sums (blocks, K, LANES) gets every block's products apart."""
    T, C = q.shape[1:]
    blocks, mine = (T + ROWS - 1) // ROWS, offsets[part]
    for item in range(low, high):
        b, start = item // blocks, item % blocks * ROWS
        base, place = b * T * C * 4, sums[item].ctypes.data
        sums[item] = 0
        for i in range(len(mine)):
            mine[i] = (start - lags[b, i] + T) % T * C * 4
        for t in range(start, min(T, start + ROWS)):
            for c in range(0, C, CHANNELS):
                at = base + (t * C + c) * 4
                _add_products(place, q.ctypes.data + at, k.ctypes.data + base + c * 4, mine.ctypes.data, len(mine))
            for i in range(len(mine)):
                following = mine[i] + C * 4
                mine[i] = 0 if following == T * C * 4 else following


def numba_aggregate(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    B, T, H, D = values.shape
    out, parts = torch.empty(B, T, H * D), ranges(B * -(-T // ROWS))
    offsets = torch.empty(len(parts), lags.shape[1], dtype=torch.int64)
    rows = values.view(B, T, H * D).numpy()
    run(_numba_aggregate, parts, rows, lags.numpy(), weights.numpy(), out.numpy(), offsets.numpy())
    return out.view(B, T, H, D)


def numba_correlation(q: Tensor, k: Tensor, lags: Tensor) -> Tensor:
    B, T, H, D = q.shape
    blocks = -(-T // ROWS)
    parts = ranges(B * blocks)
    sums = torch.empty(B * blocks, lags.shape[1], LANES)
    offsets = torch.empty(len(parts), lags.shape[1], dtype=torch.int64)
    left, right = q.view(B, T, H * D).numpy(), k.view(B, T, H * D).numpy()
    run(_numba_correlation, parts, left, right, lags.numpy(), sums.numpy(), offsets.numpy())
    return sums.view(B, blocks, -1, LANES).sum((1, 3)) / (H * D)


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
    steps: Peers = {
        "eager": step(delay_aggregate, values, shared, weights),
        "released": step(released_training, turned, shared, weights),
    }
    mine, d_mine, w_mine = steps["eager"]()  # type: ignore[misc]
    theirs, d_theirs, w_theirs = steps["released"]()  # type: ignore[misc]
    _agree((mine, d_mine), tuple(t.permute(0, 3, 1, 2) for t in (theirs, d_theirs)))
    torch.testing.assert_close(w_mine, w_theirs, rtol=1e-4, atol=1e-4 * T)  # sums of T x 512 products
    found: dict[str, object] = {"B": B, "T": T, "K": K}
    for name, peers in (("aggregate", aggregate), ("correlation", correlation)):
        # The contest for a back end apart from peers that allocate hundreds of megabytes between the two.
        pair = medians({key: peers[key] for key in ("eager", "numba")}, 5 * repeats, clock)
        found[f"{name}, numba alone"] = round(pair["numba"] / pair["eager"], 2)
    if pair_only:
        return found
    for name, peers in (("aggregate", aggregate), ("correlation", correlation), ("aggregate step", steps)):
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
