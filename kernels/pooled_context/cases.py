"""Arguments that core-context attention and segment maxima are tested, inspected and measured with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "GPU_DTYPES", "INSPECTED", "INTERPRETED", "attention_operands"]

GPU_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def attention_operands(
    shape: tuple[int, int, int, int, int, int], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v for (B, T, H, G, D, E)."""
    B, T, H, G, D, E = shape
    sizes = ((B, T, H, D), (B, T, G, D), (B, T, G, E))
    q, k, v = (torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes)
    return q, k, v


def _context(name: str, shape: tuple[int, int, int, int, int, int], masked: str = "", **options: Any) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        q, k, v = attention_operands(shape, dtype, generator)
        if masked == "strides":
            return non_contiguous(q), non_contiguous(k), non_contiguous(v), None
        if not masked:
            return q, k, v, None
        mask = torch.rand(shape[:2], generator=generator) > 0.3
        mask[0] = masked != "sample"  # a sample of which nothing is valid
        mask[-1, : 2 * options.get("group", 1)] = False  # whole groups, and queries that see nothing
        return q, k, v, mask

    return Case(name, build, options)


def _segments(name: str, shape: tuple[int, int, int], kinds: int, masked: bool = False) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        segments = torch.randint(0, min(kinds, shape[1]), shape[:2], generator=generator)
        return x, segments, (torch.rand(shape[:2], generator=generator) > 0.4) if masked else None

    return Case(name, build)


CASES = {
    "pooled_context": (
        _context("usual", (2, 40, 2, 2, 8, 8), group=4, window=8),
        _context("one token", (1, 1, 1, 1, 1, 1), group=4, window=8),
        _context("ragged, window no multiple of the group", (1, 61, 4, 2, 5, 3), group=7, window=11),
        _context("all within the window", (2, 9, 2, 1, 4, 4)),
        _context("masked keys and groups", (2, 37, 2, 1, 4, 6), "keys", group=3, window=5),
        _context("a sample without keys", (2, 20, 2, 2, 4, 4), "sample", group=4, window=4, scale=0.3),
        _context("not contiguous", (1, 25, 2, 1, 4, 4), "strides", group=5, window=5),
        _context("two blocks of queries", (1, 300, 1, 1, 4, 4), group=16, window=32),
    ),
    "segment_max": (
        _segments("usual", (2, 12, 5), 4),
        _segments("one token", (1, 1, 1), 1),
        _segments("a segment a token", (2, 7, 3), 7),
        _segments("masked", (3, 17, 6), 3, masked=True),
    ),
}
INTERPRETED = {
    "pooled_context": (
        _context("usual", (2, 40, 2, 2, 8, 8), group=4, window=8),
        _context("one token", (1, 1, 1, 1, 1, 1), group=4, window=8),
        _context("ragged, window no multiple of the group", (1, 61, 4, 2, 5, 3), group=7, window=11),
        _context("masked keys and groups", (2, 37, 2, 1, 4, 6), "keys", group=3, window=5),
        _context("a sample without keys", (2, 20, 2, 2, 4, 4), "sample", group=4, window=4, scale=0.3),
    ),
    "segment_max": CASES["segment_max"],
}
INSPECTED = {
    "pooled_context": (_context("B1 T4096 H8 D64", (1, 4096, 8, 8, 64, 64), group=16, window=256),),
    "segment_max": (_segments("B2 T512 C256", (2, 512, 256), 64, masked=True),),
}
BAD = {
    "pooled_context": (
        Bad("three dimensions", {"q": lambda q: q[0]}, r"q: found shape \(40, 2, 8\), expected 4 dimensions"),
        Bad("no tokens", {"q": lambda q: q[:, :0]}, "q: found .* no empty dimension"),
        Bad(
            "keys of another length",
            {"k": lambda k: k[:, :9]},
            r"k: found shape \(2, 9, 2, 8\), expected \(2, 40, 2, 8",
        ),
        Bad("values of other heads", {"v": lambda v: v[:, :, :1]}, "v: found shape"),
        Bad("whole numbers", {"k": lambda k: k.long()}, "k: found torch.int64, expected a floating-point"),
        Bad("dtypes mixed", {"v": lambda v: v.double()}, "v: found torch.float64, expected torch.float32"),
        Bad("devices mixed", {"k": lambda k: k.to("meta")}, "k: found on meta, expected on cpu"),
        Bad("a mask of numbers", {"key_mask": torch.ones(2, 40)}, "key_mask: found torch.float32, expected torch.bool"),
        Bad("a mask a query", {"key_mask": torch.ones(2, 3).bool()}, r"key_mask: found shape \(2, 3\), expected"),
        Bad("no group", {"group": 0}, "group: found 0, expected a whole number"),
        Bad("half a window", {"window": 2.5}, "window: found 2.5, expected a whole number"),
    ),
    "segment_max": (
        Bad("two dimensions", {"x": lambda x: x[0]}, r"x: found shape \(12, 5\), expected 3 dimensions"),
        Bad("numbers of another length", {"segments": lambda s: s[:, :3]}, "segments: found shape"),
        Bad("numbers not whole", {"segments": lambda s: s.float()}, "segments: found torch.float32, expected int64"),
        Bad("numbers too large", {"segments": lambda s: s + 11}, "segments: found numbers .* expected 0 to 11"),
        Bad("a mask of numbers", {"mask": torch.ones(2, 12)}, "mask: found torch.float32, expected torch.bool"),
        Bad("devices mixed", {"segments": lambda s: s.to("meta")}, "segments: found on meta, expected on cpu"),
    ),
}
