"""Auto-correlation against a plain transcription of the released algorithm; parity first, then alternated medians.

Run: python tests/performance/bench_auto_correlation.py [--repeats 7] [--threads 2]
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from core_attention.mechanisms.auto_correlation import AutoCorrelation, auto_correlation

_spec = importlib.util.spec_from_file_location("peers", pathlib.Path(__file__).with_name("peers.py"))
assert _spec is not None
assert _spec.loader is not None
peers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(peers)

DIM, HEADS = 512, 8
SHAPES = ((32, 96), (8, 720))
TARGETS = {"eval": 5.0, "training": 3.0}


def _alternated(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, kept in zip((ours, peer), times, strict=True):
            start = time.perf_counter()
            run()
            kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _step(call: Callable[[], Tensor], leaves: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(call(), leaves, upstream)


def _parity(name: str, ours: tuple[Tensor, ...], peer: tuple[Tensor, ...], tolerance: float) -> None:
    for i, (a, b) in enumerate(zip(ours, peer, strict=True)):
        gap = float((a - b).abs().max()) / max(1.0, float(b.abs().max()))
        if not gap <= tolerance:
            sys.exit(f"{name}: tensor {i} differs by {gap:.1e}, no timing without parity")


def _inputs(batch: int, length: int) -> Tensor:
    # A daily wave with noise, so that no two lags tie within rounding: the peer would then choose others than we do.
    generator = torch.Generator().manual_seed(0)
    wave = torch.sin(torch.arange(length) * (2 * torch.pi / 24)).view(1, length, 1)
    return wave + 0.3 * torch.randn(batch, length, DIM, generator=generator)


def measure(batch: int, length: int, factor: float, repeats: int) -> None:
    """Print the four ratios of one shape."""
    x = _inputs(batch, length)
    torch.manual_seed(0)
    layer, plain = AutoCorrelation(DIM, HEADS, factor=factor), peers.PlainAutoCorrelationLayer(DIM, HEADS, factor)
    plain.load_state_dict(layer.state_dict())
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for mode in ("eval", "training"):
        training = mode == "training"
        layer.train(training)
        plain.train(training)
        with torch.no_grad():
            q, k, v = (part.clone() for part in layer.project(x))
        if training:
            leaves = [part.requires_grad_() for part in (q, k, v)]
            pairs = {
                "mixing q, k, v": (
                    lambda: _step(lambda: auto_correlation(q, k, v, factor, shared=True), leaves, upstream.view_as(q)),
                    lambda: _step(
                        lambda: peers.plain_auto_correlation(q, k, v, factor, True), leaves, upstream.view_as(q)
                    ),
                ),
                "whole layer": (
                    lambda: _step(lambda: layer(x).y, list(layer.parameters()), upstream),
                    lambda: _step(lambda: plain(x), list(plain.parameters()), upstream),
                ),
            }
        else:
            pairs = {
                "mixing q, k, v": (
                    lambda: (auto_correlation(q, k, v, factor, shared=False),),
                    lambda: (peers.plain_auto_correlation(q, k, v, factor, False),),
                ),
                "whole layer": (lambda: (layer(x).y,), lambda: (plain(x),)),
            }
        with torch.set_grad_enabled(training):
            for what, (ours, peer) in pairs.items():
                name = f"B={batch} L={length} factor={factor:g} {mode:8} {what:14}"
                # Gradients of the layer's weights are sums over all B L tokens, and their rounding adds up likewise.
                _parity(name, ours(), peer(), 1e-4 if training and what == "whole layer" else 1e-5)
                mine, theirs = _alternated(ours, peer, repeats)
                target = f"  target {TARGETS[mode]:g}x" if what == "mixing q, k, v" else ""
                print(f"{name}  {theirs / mine:5.2f}x  ({mine * 1e3:.1f} ms against {theirs * 1e3:.1f} ms){target}")


def main() -> None:
    """Measure every shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for batch, length in SHAPES:
        for factor in (3.0, 1.0):
            measure(batch, length, factor, options.repeats)


if __name__ == "__main__":
    main()
