"""Arguments that decoding attention is tested, inspected and measured with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "INSPECTED", "INTERPRETED", "arguments_of"]

Sizes = tuple[int, int, int, int, int, int]  # B, T, H, G, S, D


def arguments_of(sizes: Sizes, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Random q (B, T, H, D), k and v (B, S, G, D)."""
    B, T, H, G, S, D = sizes

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return randn(B, T, H, D), randn(B, S, G, D), randn(B, S, G, D)


def _case(
    name: str,
    sizes: Sizes,
    lengths: Sequence[int] | None = None,
    *,
    layout: Callable[[Tensor], Tensor] | None = None,
    whole: torch.dtype = torch.int64,
    **options: Any,
) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        made = arguments_of(sizes, dtype, generator)
        if layout is not None:
            made = tuple(layout(tensor) for tensor in made)
        return *made, None if lengths is None else torch.tensor(lengths, dtype=whole)

    return Case(name, build, options)


def _within_a_cache(tensor: Tensor) -> Tensor:
    """A slice of a longer cache whose other steps are NaN; rows stay contiguous."""
    B, S, G, D = tensor.shape
    cache = torch.full((B, S + 5, G, D), torch.nan, dtype=tensor.dtype)
    cache[:, 2 : S + 2] = tensor
    return cache[:, 2 : S + 2]


_USUAL = _case("usual", (2, 1, 4, 4, 150, 16), [150, 77])
_SPECULATIVE = _case("speculative", (2, 5, 6, 2, 140, 8), [140, 3], causal=True)
_NOTHING_SEEN = _case("a sample without keys", (3, 2, 2, 1, 70, 8), [70, 0, 1])

CASES = {
    "split_decode": (
        _USUAL,
        _case("one row, one key", (1, 1, 1, 1, 1, 1)),
        _case("all lengths zero", (2, 1, 2, 2, 9, 4), [0, 0]),
        _case("odd sizes", (3, 3, 3, 1, 131, 5), [131, 64, 129], whole=torch.int32),
        _case("no lengths", (1, 1, 2, 2, 257, 64)),
        _case("causal without lengths", (2, 4, 2, 2, 33, 8), causal=True),
        _case("more queries than keys, causal", (2, 6, 2, 1, 4, 8), [4, 2], causal=True),
        _case("given scale", (1, 2, 4, 2, 100, 16), scale=0.7),
        _case("many rows a head", (1, 8, 4, 2, 90, 16), [80]),
        _case("wide heads", (1, 1, 2, 1, 65, 80)),
        _SPECULATIVE,
        _NOTHING_SEEN,
        _case("within a cache", (2, 1, 4, 2, 90, 8), layout=_within_a_cache),
        _case("not contiguous", (2, 2, 4, 2, 90, 12), [90, 70], layout=non_contiguous),
    )
}

INTERPRETED = {  # at least 256 numbers in every result, so that one draw tells
    "split_decode": (
        _case("usual", (2, 2, 4, 2, 80, 16), [80, 77]),
        _case("speculative", (2, 4, 4, 2, 70, 8), [70, 3], causal=True),
        _case("a sample without keys", (3, 3, 4, 1, 70, 8), [70, 0, 1]),
        _case("all lengths zero", (2, 1, 2, 2, 9, 4), [0, 0]),
        _case("more rows than a tile", (1, 17, 2, 1, 35, 8), [30]),
        _case("within a cache", (2, 4, 4, 1, 40, 8), layout=_within_a_cache),
    )
}

INSPECTED = {
    "split_decode": (
        _case("B4 T1 H8 D64 S4096", (4, 1, 8, 8, 4096, 64), [4096, 1000, 0, 17]),
        _case("B1 T8 H16 G2 D64 S2000", (1, 8, 16, 2, 2000, 64), causal=True),
    )
}

BAD = {
    "split_decode": (
        Bad("three dimensions", {"q": lambda q: q[0]}, r"q: found shape \(1, 4, 16\), expected 4 dimensions"),
        Bad("whole queries", {"q": lambda q: q.long()}, "q: found torch.int64, expected a floating-point"),
        Bad("no queries", {"q": lambda q: q[:, :0]}, "q: .* no empty dimension"),
        Bad("no keys", {"k": lambda k: k[:, :0], "v": lambda v: v[:, :0]}, "k: .* no empty dimension"),
        Bad("another batch", {"k": lambda k: k[:1]}, r"k: found shape \(1, 150, 4, 16\), expected .* B = 2 .*expand"),
        Bad("another width", {"k": lambda k: k[..., :8]}, r"k: found shape .* D = 16"),
        Bad("heads that divide nothing", {"k": lambda k: k[:, :, :3]}, "k: found 3 heads, expected a divisor of q's 4"),
        Bad("fewer values", {"v": lambda v: v[:, :9]}, r"v: found shape \(2, 9, 4, 16\), expected \(2, 150, 4, 16\)"),
        Bad("flat values", {"v": lambda v: v.flatten(2)}, r"v: found shape \(2, 150, 64\), expected 4 dimensions"),
        Bad("key dtypes mixed", {"k": lambda k: k.double()}, "k: found torch.float64, expected torch.float32"),
        Bad("value dtypes mixed", {"v": lambda v: v.bfloat16()}, "v: found torch.bfloat16, expected torch.float32"),
        Bad("devices mixed", {"q": lambda q: q.to("meta")}, "k: found on cpu, expected on meta"),
        Bad("lengths elsewhere", {"lengths": lambda n: n.to("meta")}, "lengths: found on meta, expected on cpu"),
        Bad("lengths not whole", {"lengths": lambda n: n.float()}, "lengths: found torch.float32, expected int64"),
        Bad("a length too few", {"lengths": lambda n: n[:1]}, r"lengths: found shape \(1,\), expected \(2,\)"),
        Bad("a length too long", {"lengths": lambda n: n + 1}, "lengths: found 78 to 151, expected 0 to 150"),
        Bad("a negative length", {"lengths": lambda n: n - 78}, "lengths: found -1 to 72, expected 0 to 150"),
    )
}
