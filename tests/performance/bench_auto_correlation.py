"""Auto-correlation against a plain transcription of the released algorithm; parity first, then alternated medians.

Run: python tests/performance/bench_auto_correlation.py [--repeats 7] [--threads 2] [--clock wall|cpu]
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from core_attention.mechanisms.auto_correlation import AutoCorrelation, auto_correlation

_spec = importlib.util.spec_from_file_location("peers", pathlib.Path(__file__).with_name("peers.py"))
assert _spec is not None
assert _spec.loader is not None
peers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(peers)

DIM, HEADS = 512, 8
SHAPES = ((32, 96), (8, 720))
TARGETS = {"eval": 5.0, "training": 3.0}


def _alternated(
    ours: Callable[[], object], peer: Callable[[], object], repeats: int, clock: Callable[[], float]
) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, kept in zip((ours, peer), times, strict=True):
            start = clock()
            run()
            kept.append(clock() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _step(call: Callable[[], Tensor], leaves: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(call(), leaves, upstream)


def _parity(name: str, ours: tuple[Tensor, ...], peer: tuple[Tensor, ...]) -> None:
    for i, (a, b) in enumerate(zip(ours, peer, strict=True)):
        gap = float((a.detach() - b.detach()).abs().max()) / max(1.0, float(b.detach().abs().max()))
        if not gap <= 1e-5:
            sys.exit(f"{name}: tensor {i} differs by {gap:.1e}, no timing without parity")


def _no_worse(name: str, ours: tuple[Tensor, ...], peer: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> None:
    """Gradients of weights, sums over all B L tokens: ours may be at most twice as far from float64 as the peer's."""
    for i, (a, b, e) in enumerate(zip(ours, peer, exact, strict=True)):
        mine, theirs = (float((found.double() - e).abs().max()) for found in (a, b))
        if not mine <= 2 * theirs + 1e-5:
            sys.exit(f"{name}: gradient {i} is off by {mine:.1e}, the peer's by {theirs:.1e}, no timing without parity")


def _inputs(batch: int, length: int) -> Tensor:
    # A daily wave with noise, so that no two lags tie within rounding: the peer would then choose others than we do.
    generator = torch.Generator().manual_seed(0)
    wave = torch.sin(torch.arange(length) * (2 * torch.pi / 24)).view(1, length, 1)
    return wave + 0.3 * torch.randn(batch, length, DIM, generator=generator)


Pair = tuple[Callable[[], tuple[Tensor, ...]], Callable[[], tuple[Tensor, ...]]]


def _mixing_pair(q: Tensor, k: Tensor, v: Tensor, factor: float, upstream: Tensor | None) -> Pair:
    """The mixing alone, q, k and v given: ours and the peer's, with gradients of all three where there is upstream."""
    plain = peers.plain_auto_correlation
    if upstream is None:
        return lambda: (auto_correlation(q, k, v, factor, shared=False),), lambda: (plain(q, k, v, factor, False),)
    leaves = [part.requires_grad_() for part in (q, k, v)]
    return (
        lambda: _step(lambda: auto_correlation(q, k, v, factor, shared=True), leaves, upstream.view_as(q)),
        lambda: _step(lambda: plain(q, k, v, factor, True), leaves, upstream.view_as(q)),
    )


def _layer_pair(layer: AutoCorrelation, plain: nn.Module, x: Tensor, upstream: Tensor | None) -> Pair:
    """The whole layer with its four projections, with gradients of all weights where there is upstream."""
    if upstream is None:
        return lambda: (layer(x).y,), lambda: (plain(x),)
    return (
        lambda: _step(lambda: layer(x).y, [*layer.parameters()], upstream),
        lambda: _step(lambda: plain(x), [*plain.parameters()], upstream),
    )


def measure(batch: int, length: int, factor: float, repeats: int, clock: Callable[[], float]) -> None:
    """Print the four ratios of one shape."""
    x = _inputs(batch, length)
    torch.manual_seed(0)
    layer, plain = AutoCorrelation(DIM, HEADS, factor=factor), peers.PlainAutoCorrelationLayer(DIM, HEADS, factor)
    plain.load_state_dict(layer.state_dict())
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for mode, upstream in (("eval", None), ("training", gradient)):
        layer.train(upstream is not None)
        plain.train(upstream is not None)
        with torch.no_grad():
            q, k, v = (part.clone() for part in layer.project(x))
        with torch.set_grad_enabled(upstream is not None):
            name = f"B={batch} L={length} factor={factor:g} {mode:8}"
            mixing, whole = _mixing_pair(q, k, v, factor, upstream), _layer_pair(layer, plain, x, upstream)
            _parity(f"{name} mixing", mixing[0](), mixing[1]())
            _parity(f"{name} layer", (layer(x).y,), (plain(x),))
            if upstream is not None:
                wide = _layer_pair(layer, copy.deepcopy(plain).double(), x.double(), upstream.double())[1]
                _no_worse(f"{name} layer", whole[0](), whole[1](), wide())
            for what, pair in (("mixing q, k, v", mixing), ("whole layer", whole)):
                mine, theirs = _alternated(*pair, repeats, clock)
                target = f"  target {TARGETS[mode]:g}x" if pair is mixing else ""
                print(
                    f"{name} {what:14} {theirs / mine:5.2f}x ({mine * 1e3:.1f} against {theirs * 1e3:.1f} ms){target}"
                )


def main() -> None:
    """Measure every shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread's own time, fit for a busy machine"
    )
    options = parser.parse_args()
    torch.set_num_threads(1 if options.clock == "cpu" else options.threads)
    clock = time.thread_time if options.clock == "cpu" else time.perf_counter
    for batch, length in SHAPES:
        for factor in (3.0, 1.0):
            measure(batch, length, factor, options.repeats, clock)


if __name__ == "__main__":
    main()
