"""Time and memory of mechanisms by length: measured in turn, as a ratio to softmax, with the fitted exponent."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from core_attention.contract import TokenMixer

PEER = "softmax"


def bench(names: Sequence[str], lengths: Sequence[int], *, dim: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Measure a forward pass of each mechanism at each length, in eval mode.

    Args:
        names: mechanisms; empty means all that mix a sequence.
        lengths: rows, two or more.
        dim: channels.
        batch: sequences at a time.
        repeats: measurements of each; the mechanisms take turns, the median counts.

    Returns:
        One row a mechanism and length: milliseconds, ratio to softmax, exponent of time in length, largest tensor.

    Raises:
        MechanismError: no such mechanism.
    """
    import torch

    import core_attention
    from core_attention.checks import check_mechanism

    wanted = list(names) or core_attention.names(kind="mixer", grid=1)
    for name in wanted:
        check_mechanism(name)  # no speed figure without a green conformance suite in the same run
    times: dict[tuple[str, int], list[float]] = {}
    memory: dict[tuple[str, int], int] = {}
    for length in lengths:
        mixers = {name: _mixer(name, dim, length) for name in dict.fromkeys([PEER, *wanted])}
        x = torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for name, mixer in mixers.items():
                mixer(x)
                memory[name, length] = _largest_tensor(mixer, x)
            for _ in range(repeats):
                for name, mixer in mixers.items():
                    start = time.perf_counter()
                    mixer(x)
                    times.setdefault((name, length), []).append(time.perf_counter() - start)
    return _rows(wanted, lengths, times, memory)


def _largest_tensor(mixer: TokenMixer, x: Tensor) -> int:
    """Elements of the largest tensor that a forward pass makes."""
    from core_attention._check_inputs import LargestTensor

    with LargestTensor() as seen:
        mixer(x)
    return seen.elements


def _mixer(name: str, dim: int, length: int) -> TokenMixer:
    import core_attention

    options = {"length": length} if core_attention.spec(name).fixed_length else {}
    return core_attention.build(name, dim, 8 if dim % 8 == 0 else 1, **options).eval()


def _rows(
    names: Sequence[str],
    lengths: Sequence[int],
    times: dict[tuple[str, int], list[float]],
    memory: dict[tuple[str, int], int],
) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        medians = {length: statistics.median(times[name, length]) for length in lengths}
        first, last = lengths[0], lengths[-1]
        exponent = math.log(medians[last] / medians[first]) / math.log(last / first) if last != first else math.nan
        for length in lengths:
            peer = statistics.median(times[PEER, length])
            rows.append(
                {
                    "mechanism": name,
                    "length": length,
                    "ms": round(1000 * medians[length], 3),
                    f"time / {PEER}": round(medians[length] / peer, 2),
                    "time exponent": round(exponent, 2),
                    "largest tensor": memory[name, length],
                }
            )
    return rows
