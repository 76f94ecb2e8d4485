"""Arguments that window attention is tested, inspected and measured with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "INSPECTED", "INTERPRETED"]


def _randn(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _case(
    name: str,
    batch: tuple[int, int, int],
    grid: tuple[int, ...],
    window: tuple[int, ...],
    shift: tuple[int, ...] | None = None,
    *,
    masked: float | None = None,
    biased: bool = False,
    strided: bool = False,
    scale: float | None = None,
) -> Case:
    """A case of B, H, D and a layout; ``masked`` is the share of tokens that are no keys."""

    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        (B, H, D), T = batch, math.prod(grid)
        W = math.prod(min(size, length) for size, length in zip(window, grid, strict=True))
        qkv = _randn((B, T, 3, H, D), dtype, generator)
        bias = _randn((H, W, W), dtype, generator) if biased else None
        mask = None if masked is None else torch.rand((B, T), generator=generator) >= masked
        if strided:
            qkv, bias = non_contiguous(qkv), None if bias is None else non_contiguous(bias)
        return qkv, mask, bias

    options: dict[str, Any] = {"grid": grid, "window": window, "shift": shift}
    return Case(name, build, options if scale is None else options | {"scale": scale})


CASES = {
    "window_nd": (
        _case("usual", (2, 2, 8), (6, 5), (3, 2), (1, 1), masked=0.2, biased=True),
        _case("one token", (1, 1, 4), (1,), (7,)),
        _case("a line in windows", (2, 2, 5), (13,), (4,)),
        _case("a line in shifted windows", (2, 1, 8), (13,), (5,), (3,)),
        _case("padding longer than a piece", (1, 2, 4), (9, 5), (4, 4), (2, 3), biased=True),
        _case("volumes", (2, 1, 6), (4, 5, 3), (2, 2, 2), (1, 1, 1)),
        _case("four axes", (1, 2, 4), (3, 4, 2, 5), (2, 2, 2, 2), (1, 1, 1, 1)),
        _case("windows longer than their axes", (2, 2, 3), (3, 8), (4, 4), (2, 2), biased=True),
        _case("windows without a key", (2, 2, 4), (12,), (3,), (1,), masked=0.9),
        _case("everything hidden", (1, 1, 4), (4, 4), (2, 2), (1, 1), masked=1.0, biased=True),
        _case("a scale of its own", (1, 2, 4), (8,), (4,), (2,), scale=0.1),
        _case("windows longer than a tile", (1, 1, 20), (150,), (101,), (50,), masked=0.3),
        _case("not contiguous", (2, 2, 6), (4, 6), (2, 3), (1, 0), masked=0.1, biased=True, strided=True),
    )
}
# In the interpreter a program takes a hundredth of a second: few boxes, but 256 numbers in most results.
INTERPRETED = {
    "window_nd": (
        _case("usual", (1, 2, 8), (5, 6), (4, 3), (1, 1), masked=0.2, biased=True),
        _case("one token", (1, 1, 4), (1,), (7,)),
        _case("four axes", (1, 1, 16), (3, 3, 2, 3), (2, 2, 2, 2), (1, 0, 1, 1)),
        _case("everything hidden", (1, 1, 4), (5,), (4,), (2,), masked=1.0, biased=True),
        _case("windows longer than a tile", (1, 1, 20), (150,), (101,), (50,), masked=0.3, biased=True),
        _case("a wide head", (1, 1, 100), (9, 5), (4, 4), (2, 3), masked=0.2),
        _case("not contiguous", (2, 1, 8), (8, 5), (4, 5), (1, 0), biased=True, strided=True),
    )
}
INSPECTED = {
    "window_nd": (
        _case("SwiFT block", (1, 8, 12), (16, 16, 16, 8), (4, 4, 4, 4), (2, 2, 2, 2)),
        _case("Swin block", (2, 3, 32), (56, 56), (7, 7), (3, 3), biased=True),
        _case("wide heads", (1, 2, 64), (16, 16), (8, 8), (4, 4), masked=0.1, biased=True),
        _case("widest heads", (1, 2, 128), (16, 16), (16, 16)),
    )
}
BAD = {
    "window_nd": (
        Bad("three missing", {"qkv": lambda x: x[:, :, 0]}, r"qkv: found shape \(2, 30, 2, 8\), expected 5 dimensions"),
        Bad("two of three", {"qkv": lambda x: x[:, :, :2]}, r"qkv: found .*expected \(B, T, 3, H, D\)"),
        Bad("whole numbers", {"qkv": lambda x: x.long()}, "qkv: found torch.int64, expected a floating-point"),
        Bad("nothing inside", {"qkv": lambda x: x[:0]}, "no empty dimension"),
        Bad("a grid of another size", {"grid": (6, 6)}, "qkv: found 30 tokens, expected 36"),
        Bad("five axes", {"grid": (30, 1, 1, 1, 1)}, "grid: found 5 axes, expected 1 to 4"),
        Bad("no axes", {"grid": ()}, "grid: found 0 axes"),
        Bad("a number for a grid", {"grid": 30}, "grid: found int, expected a tuple"),
        Bad("an empty axis", {"grid": (0, 5)}, r"grid: found \(0, 5\), expected whole numbers, 1 or more"),
        Bad("half a window", {"window": (1.5, 2)}, r"window: found \(1.5, 2\), expected whole"),
        Bad("windows of another rank", {"window": (3,)}, "window: found 1 numbers, expected 2"),
        Bad("a shift of a window", {"shift": (3, 1)}, r"shift: found \(3, 1\), expected less than the window"),
        Bad("a shift backwards", {"shift": (-1, 0)}, "shift: found .*, 0 or more"),
        Bad("a mask of numbers", {"mask": lambda m: m.float()}, "mask: found torch.float32, expected torch.bool"),
        Bad("a mask too short", {"mask": lambda m: m[:, :-1]}, r"mask: found shape \(2, 29\), expected \(2, 30\)"),
        Bad("a mask elsewhere", {"mask": lambda m: m.to("meta")}, "mask: found on meta, expected on cpu"),
        Bad("a bias of one head", {"bias": lambda b: b[:1]}, r"bias: found shape \(1, 6, 6\), expected \(2, 6, 6\)"),
        Bad("dtypes mixed", {"bias": lambda b: b.double()}, "bias: found torch.float64, expected torch.float32"),
        Bad("a bias elsewhere", {"bias": lambda b: b.to("meta")}, "bias: found on meta, expected on cpu"),
    )
}
