"""Arguments that the depthwise convolution is tested, inspected and measured with."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "INSPECTED", "INTERPRETED", "arguments_of"]


def arguments_of(
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    biased: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Random x (B, C, H, W), weight (C, 1, *size) that keeps the scale of x, and bias (C,) or None."""

    def randn(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    C = shape[1]
    weight = randn(C, 1, *size) / (size[0] * size[1]) ** 0.5
    return randn(*shape).to(dtype), weight.to(dtype), randn(C).to(dtype) if biased else None


def _case(
    name: str, shape: tuple[int, int, int, int], size: tuple[int, int], *, biased: bool = True, strided: bool = False
) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        x, weight, bias = arguments_of(shape, size, dtype, generator, biased=biased)
        return (non_contiguous(x), non_contiguous(weight), bias) if strided else (x, weight, bias)

    return Case(name, build)


_USUAL = _case("usual", (2, 3, 12, 14), (7, 7))
_ODD = _case("odd sizes", (2, 5, 13, 19), (9, 9))
_TALL = _case("tall kernel, no bias", (1, 2, 18, 11), (11, 7), biased=False)
_WIDE = _case("wide kernel", (2, 2, 9, 21), (1, 13))
_BEYOND = _case("kernel beyond the image", (2, 2, 4, 5), (15, 9))
_PIXEL = _case("one pixel", (2, 2, 1, 1), (9, 9))
_BANDS = _case("several bands", (1, 2, 70, 66), (9, 9))
_STRIDED = _case("not contiguous", (2, 3, 10, 9), (7, 7), strided=True)

CASES = {"large_kernel": (_USUAL, _ODD, _TALL, _WIDE, _BEYOND, _PIXEL, _BANDS, _STRIDED)}
INTERPRETED = {
    "large_kernel": (
        _case("small", (2, 2, 7, 9), (5, 3)),
        _case("several tiles", (1, 1, 17, 67), (3, 3), biased=False),
        _case("kernel beyond the image", (1, 1, 2, 3), (7, 5)),
        _case("one pixel, not contiguous", (2, 1, 1, 1), (3, 3), strided=True),
    )
}
INSPECTED = {
    "large_kernel": (
        _case("B1 C48 256x256 9x9", (1, 48, 256, 256), (9, 9)),
        _case("B2 C7 51x33 13x7", (2, 7, 51, 33), (13, 7), biased=False),
    )
}
BAD = {
    "large_kernel": (
        Bad("three dimensions", {"x": lambda x: x[0]}, r"x: found shape \(3, 12, 14\), expected 4 dimensions"),
        Bad("whole numbers", {"x": lambda x: x.long()}, "x: found torch.int64, expected a floating-point"),
        Bad("no rows", {"x": lambda x: x[:, :, :0]}, "no empty dimension"),
        Bad("weight without its one", {"weight": lambda w: w[:, 0]}, "weight: found shape .* expected 4 dimensions"),
        Bad("a channel too few", {"weight": lambda w: w[:2]}, r"weight: found shape \(2, 1, 7, 7\), expected \(3, 1"),
        Bad("not depthwise", {"weight": lambda w: w.expand(3, 3, 7, 7)}, "a kernel a channel"),
        Bad("an even kernel", {"weight": lambda w: w[..., :6]}, "found a 7x6 kernel, expected odd sizes"),
        Bad("a huge kernel", {"weight": lambda w: w.new_zeros(3, 1, 33, 7)}, "found a 33x7 kernel, .* from 1 to 31"),
        Bad("bias too long", {"bias": lambda b: b.new_zeros(4)}, r"bias: found shape \(4,\), expected \(3,\)"),
        Bad("dtypes mixed", {"weight": lambda w: w.double()}, "weight: found torch.float64, expected torch.float32"),
        Bad("bias of another dtype", {"bias": lambda b: b.double()}, "bias: found torch.float64, expected"),
        Bad("weight elsewhere", {"weight": lambda w: w.to("meta")}, "weight: found on meta, expected on cpu"),
        Bad("bias elsewhere", {"bias": lambda b: b.to("meta")}, "bias: found on meta, expected on cpu"),
    )
}
