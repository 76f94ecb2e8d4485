"""Arguments that the polyline-path mask is tested, inspected and measured with."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "GPU_DTYPES", "INSPECTED", "INTERPRETED", "arguments_of"]

GPU_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def arguments_of(
    shape: tuple[int, int, int, int, int, int], dtype: torch.dtype, generator: torch.Generator, *, least: float = 0.3
) -> tuple[Tensor, ...]:
    """Operands for (B, rows, columns, H, D, Dv), decays between ``least`` and 1."""
    *places, D, Dv = shape

    def randn(size: int) -> Tensor:
        return torch.randn((*places, size), generator=generator, dtype=torch.float64)

    q, k, v = randn(D) * D**-0.5, randn(D), randn(Dv)
    decays = (least + (1 - least) * torch.rand(places, generator=generator, dtype=torch.float64) for _ in range(2))
    return tuple(tensor.to(dtype) for tensor in (q, k, v, *decays))


def _case(name: str, shape: tuple[int, int, int, int, int, int]) -> Case:
    return Case(name, lambda dtype, generator: arguments_of(shape, dtype, generator))


def _strided(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(non_contiguous(tensor) for tensor in arguments_of((2, 3, 4, 3, 3, 2), dtype, generator))


def _edges(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Some decays of exactly one, others of nearly nothing."""
    q, k, v, across, down = arguments_of((2, 5, 6, 2, 3, 3), dtype, generator)
    across[:, 1], down[:, :, 2] = 1.0, 1.0
    across[:, :, 3], down[:, 3] = 1e-3, 1e-3
    return q, k, v, across, down


def _few_edges(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, ...]:
    q, k, v, across, down = arguments_of((2, 2, 5, 2, 3, 3), dtype, generator)
    across[:, 0], across[:, :, 3], down[:, 1] = 1.0, 1e-3, 1e-3
    return q, k, v, across, down


def _few_strided(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(non_contiguous(tensor) for tensor in arguments_of((2, 3, 4, 2, 3, 2), dtype, generator))


CASES = {
    "polyline_mask": (
        _case("usual", (2, 7, 9, 2, 4, 6)),
        _case("one place", (3, 1, 1, 2, 4, 3)),
        _case("one row", (2, 1, 11, 2, 3, 5)),
        _case("one column", (1, 13, 1, 1, 5, 1)),
        _case("a square", (1, 8, 8, 3, 8, 8)),
        Case("ones and nearly nothing", _edges),
        Case("not contiguous", _strided),
    )
}
INTERPRETED = {
    "polyline_mask": (
        _case("usual", (1, 3, 7, 2, 4, 6)),
        _case("one column", (1, 3, 1, 1, 5, 1)),
        _case("more columns than a tile", (1, 2, 33, 1, 3, 2)),
        _case("more channels than a tile", (2, 2, 3, 1, 17, 33)),
        Case("ones and nearly nothing", _few_edges),
        Case("not contiguous", _few_strided),
    )
}
INSPECTED = {
    "polyline_mask": (
        _case("56 x 56, D 32", (1, 56, 56, 1, 32, 32)),
        _case("14 x 14, D 64", (1, 14, 14, 2, 64, 64)),
    )
}
BAD = {
    "polyline_mask": (
        Bad("four dimensions", {"q": lambda q: q[0]}, r"q: found shape \(7, 9, 2, 4\), expected 5 dimensions"),
        Bad("whole numbers", {"q": lambda q: q.long()}, "q: found torch.int64, expected a floating-point"),
        Bad("no rows", {"q": lambda q: q[:, :0]}, "q: found .* no empty dimension"),
        Bad("fewer keys", {"k": lambda k: k[:, :5]}, r"k: found shape \(2, 5, 9, 2, 4\), expected \(2, 7, 9, 2, 4\)"),
        Bad("fewer values", {"v": lambda v: v[:, :5]}, r"v: found shape \(2, 5, 9, 2, 6\), expected"),
        Bad("one decay for all heads", {"decay_h": lambda d: d[..., :1]}, r"decay_h: found shape \(2, 7, 9, 1\)"),
        Bad("a decay without heads", {"decay_v": lambda d: d[..., 0]}, "decay_v: found .* expected 4 dimensions"),
        Bad("dtypes mixed", {"k": lambda k: k.double()}, "k: found torch.float64, expected torch.float32"),
        Bad("decays of another dtype", {"decay_h": lambda d: d.double()}, "decay_h: found torch.float64"),
        Bad("devices mixed", {"v": lambda v: v.to("meta")}, "v: found on meta, expected on cpu"),
    )
}
