"""Arguments that codebook assignment is tested, inspected and measured with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "GPU_DTYPES", "INSPECTED", "SURROGATE", "arguments_of"]

GPU_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Straight-through, or none by choice: no difference quotient confirms these gradients.
SURROGATE = {"nearest_code": ("x", "codes")}


def arguments_of(
    shape: tuple[int, ...],
    K: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    per_head: bool = False,
    kept: float | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Random tokens and codes; ``kept`` is the share of tokens that count, None for no mask."""
    heads = shape[2:3] if per_head else ()
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    codes = torch.randn(*heads, K, shape[-1], generator=generator, dtype=torch.float64).to(dtype)
    mask = None if kept is None else torch.rand(shape[:2], generator=generator) < kept
    return x, codes, mask


def _case(name: str, shape: tuple[int, ...], K: int, *, strided: bool = False, **more: Any) -> Case:
    made = {key: more.pop(key) for key in ("per_head", "kept") if key in more}

    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        x, codes, mask = arguments_of(shape, K, dtype, generator, **made)
        return (non_contiguous(x), non_contiguous(codes), mask) if strided else (x, codes, mask)

    return Case(name, build, {"train_codes": True} | more)


_CASES = (
    _case("usual", (2, 20, 4, 8), 12, per_head=True, kept=0.8),
    _case("one token, one code", (1, 1, 3), 1),
    _case("one codebook for all heads", (2, 9, 3, 5), 7),
    _case("no heads", (2, 33, 16), 40),
    _case("wider than a tile", (1, 70, 2, 70), 130, per_head=True),
    _case("codes that follow averages", (2, 7, 6), 5, train_codes=False),
    _case("cosine", (2, 17, 2, 9), 20, per_head=True, metric="cosine"),
    _case("product", (3, 11, 12), 19, metric="product", kept=0.5),
    _case("not contiguous", (2, 13, 2, 6), 9, per_head=True, kept=0.7, strided=True),
    _case("all left out", (2, 5, 6), 4, kept=0.0),
)
CASES = {"nearest_code": _CASES}
INSPECTED = {
    "nearest_code": (
        _case("B4 T4096 H8 D64 K512", (4, 4096, 8, 64), 512, per_head=True, kept=0.9),
        _case("B2 T51 D105 K77", (2, 51, 105), 77, metric="cosine"),
    )
}
BAD = {
    "nearest_code": (
        Bad("two dimensions", {"x": lambda x: x[0, 0]}, r"x: found shape \(4, 8\), expected 3 dimensions"),
        Bad("whole tokens", {"x": lambda x: x.long()}, "x: found torch.int64, expected a floating-point"),
        Bad("no tokens", {"x": lambda x: x[:, :0]}, "x: .*no empty dimension"),
        Bad("no codes", {"codes": lambda c: c[:, :0]}, "codes: .*no empty dimension"),
        Bad("codes without heads for no one", {"codes": lambda c: c[0, 0]}, r"codes: found shape \(8,\), expected 2"),
        Bad("heads that x lacks", {"x": lambda x: x[:, :, 0]}, r"codes: found .* expected \(K, D\), as x"),
        Bad("a head too few", {"codes": lambda c: c[:3]}, r"codes: found shape \(3, 12, 8\), expected \(4, 12, 8\)"),
        Bad("other width", {"codes": lambda c: c[..., :5]}, r"codes: found shape .* expected \(4, 12, 8\)"),
        Bad("dtypes mixed", {"codes": lambda c: c.double()}, "codes: found torch.float64, expected torch.float32"),
        Bad("codes elsewhere", {"codes": lambda c: c.to("meta")}, "codes: found on meta, expected on cpu"),
        Bad("mask of another shape", {"mask": lambda m: m[:, :3]}, r"mask: found shape \(2, 3\), expected \(2, 20\)"),
        Bad("mask of numbers", {"mask": lambda m: m.float()}, "mask: found torch.float32, expected torch.bool"),
        Bad("mask elsewhere", {"mask": lambda m: m.to("meta")}, "mask: found on meta, expected on cpu"),
        Bad("unknown metric", {"metric": "taxicab"}, "metric: found 'taxicab', expected one of euclidean"),
    )
}
