"""Arguments that binary products are tested, inspected and measured with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "GPU_DTYPES", "INSPECTED", "SURROGATE", "arguments_of"]

GPU_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SURROGATE = {"binary_matmul": ("x", "weight")}  # straight-through: no difference quotient confirms these gradients


def arguments_of(
    shape: tuple[int, ...], N: int, dtype: torch.dtype, generator: torch.Generator, *, scaled: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Random operands: x of the shape, weights of N rows, and a scale a row if asked for."""
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(N, shape[-1], generator=generator, dtype=torch.float64).to(dtype)
    scale = torch.rand(N, generator=generator, dtype=torch.float64).add(0.5).to(dtype)
    return x, weight, scale if scaled else None


def _case(
    name: str, shape: tuple[int, ...], N: int, *, scaled: bool = True, strided: bool = False, **more: Any
) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        x, weight, scale = arguments_of(shape, N, dtype, generator, scaled=scaled)
        return (non_contiguous(x), non_contiguous(weight), scale) if strided else (x, weight, scale)

    return Case(name, build, more)


CASES = {
    "binary_matmul": (
        _case("usual", (2, 20, 72), 24),
        _case("one row, one feature, one output", (1, 1), 1, centre=False),
        _case("a word and a bit", (3, 65), 5),
        _case("just a word", (2, 3, 64), 9),
        _case("scale from the weights", (2, 7, 30), 11, scaled=False),
        _case("not centred", (2, 2, 5, 33), 6, centre=False),
        _case("wider than a tile", (70, 150), 600),
        _case("not contiguous", (2, 9, 70), 12, strided=True),
    )
}
INTERPRETED = {"binary_matmul": (*CASES["binary_matmul"][:6], _case("wider than a tile", (40, 70), 75))}
INSPECTED = {
    "binary_matmul": (
        _case("M1568 K768 N3072", (8, 196, 768), 3072),
        _case("M51 K105 N77", (51, 105), 77, scaled=False, centre=False),
    )
}
BAD = {
    "binary_matmul": (
        Bad("one dimension", {"x": lambda x: x[0, 0]}, r"x: found shape \(72,\), expected \(..., K\)"),
        Bad("whole numbers", {"x": lambda x: x.long()}, "x: found torch.int64, expected a floating-point"),
        Bad("nothing inside", {"x": lambda x: x[:, :0]}, "x: found shape .* none empty"),
        Bad("weights of one row", {"weight": lambda w: w[0]}, r"weight: found shape \(72,\), expected 2 dimensions"),
        Bad("other width", {"weight": lambda w: w[:, :71]}, r"weight: found shape \(24, 71\), expected \(N, 72\)"),
        Bad("no outputs", {"weight": lambda w: w[:0]}, "weight: .*no empty dimension"),
        Bad("dtypes mixed", {"weight": lambda w: w.double()}, "weight: found torch.float64, expected torch.float32"),
        Bad("weights elsewhere", {"weight": lambda w: w.to("meta")}, "weight: found on meta, expected on cpu"),
        Bad("a scale too few", {"scale": lambda s: s[1:]}, r"scale: found shape \(23,\), expected \(24,\)"),
        Bad("whole scale", {"scale": lambda s: s.long()}, "scale: found torch.int64, expected a floating-point"),
        Bad("scale elsewhere", {"scale": lambda s: s.to("meta")}, "scale: found on meta, expected on cpu"),
    )
}
