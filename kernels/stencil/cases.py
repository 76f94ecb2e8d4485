"""Arguments that the diffusion steps are tested, inspected and measured with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "INSPECTED", "INTERPRETED", "arguments_of"]


def arguments_of(
    shape: tuple[int, int, int, int],
    dilations: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    source: bool = True,
    gate: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Random u (B, C, H, W), stable coefficients (dilations, C), a small source and a gate in (0, 1), or None."""

    def randn(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    coefficients = 0.2 / dilations * torch.sigmoid(randn(dilations, shape[1]))
    pushed, opened = 0.1 * randn(*shape), torch.sigmoid(randn(*shape))
    return (
        randn(*shape).to(dtype),
        coefficients.to(dtype),
        pushed.to(dtype) if source else None,
        opened.to(dtype) if gate else None,
    )


def _case(
    name: str,
    shape: tuple[int, int, int, int],
    dilations: tuple[int, ...] = (1,),
    steps: int = 1,
    boundary: str = "replicate",
    *,
    strided: bool = False,
    **present: bool,
) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Any, ...]:
        made = arguments_of(shape, len(dilations), dtype, generator, **present)
        return tuple(None if t is None else non_contiguous(t) if strided else t for t in made)

    return Case(name, build, {"dilations": dilations, "steps": steps, "boundary": boundary})


_USUAL = _case("usual", (2, 3, 12, 13), (1, 4), 3)
_REFLECT = _case("reflect", (1, 2, 9, 11), (2, 3, 8), 4, "reflect", source=False)
_CIRCULAR = _case("circular", (2, 2, 7, 9), (1, 7), 3, "circular", gate=False)
_ZEROS = _case("zeros", (2, 2, 8, 17), (1, 16), 4, "zeros", source=False, gate=False)
_BEYOND = _case("arms beyond the border", (1, 2, 5, 3), (1, 4, 16), 2)
_ROW = _case("one row", (1, 2, 1, 19), (1, 3), 5, gate=False)
_PIXEL = _case("one pixel", (2, 1, 1, 1), (1,), 2, "zeros")
_BARE = _case("diffusion alone, eight steps", (1, 2, 24, 33), (1,), 8, source=False, gate=False)
_STRIDED = _case("not contiguous", (2, 2, 6, 7), (1, 2), 2, strided=True)

CASES = {"stencil": (_USUAL, _REFLECT, _CIRCULAR, _ZEROS, _BEYOND, _ROW, _PIXEL, _BARE, _STRIDED)}
INTERPRETED = {
    "stencil": (
        _case("small", (1, 1, 4, 5), (1, 3), 2),
        _case("reflect", (1, 1, 5, 6), (1, 4), 2, "reflect", source=False, gate=False),
        _case("circular", (1, 1, 4, 5), (3,), 1, "circular", gate=False),
        _case("zeros", (1, 1, 3, 9), (8,), 3, "zeros", source=False),
        _case("arms beyond the border, several tiles", (1, 1, 2, 520), (4,), 1, source=False, gate=False),
    )
}
INSPECTED = {
    "stencil": (
        _case("B1 C64 256x256, 8 steps", (1, 64, 256, 256), (1,), 2, source=False, gate=False),
        _case("B16 C128 16x16, three scales", (16, 128, 16, 16), (1, 4, 16), 2),
        _case("reflect", (1, 2, 33, 51), (1, 2), 2, "reflect"),
    )
}
BAD = {
    "stencil": (
        Bad("three dimensions", {"u": lambda u: u[0]}, r"u: found shape \(3, 12, 13\), expected 4 dimensions"),
        Bad("whole numbers", {"u": lambda u: u.long()}, "u: found torch.int64, expected a floating-point"),
        Bad("no rows", {"u": lambda u: u[:, :, :0]}, "no empty dimension"),
        Bad("a scale too few", {"coefficients": lambda c: c[:1]}, r"coefficients: found shape \(1, 3\), expected \(2"),
        Bad("whole coefficients", {"coefficients": lambda c: c.long()}, "coefficients: found torch.int64"),
        Bad("no dilations", {"dilations": ()}, r"dilations: found \(\), expected"),
        Bad("a dilation of nothing", {"dilations": (1, 0)}, "expected a tuple of whole numbers of at least 1"),
        Bad("no steps", {"steps": 0}, "steps: found 0, expected a whole number of at least 1"),
        Bad("half a step", {"steps": 0.5}, "steps: found 0.5"),
        Bad("an unknown boundary", {"boundary": "edge"}, "boundary: found 'edge', expected one of zeros, reflect"),
        Bad("reflect too far", {"boundary": "reflect", "dilations": (1, 12)}, "expected at most 11 for .*reflect"),
        Bad("circular too far", {"boundary": "circular", "dilations": (1, 13)}, "expected at most 12 for .*circular"),
        Bad("source of one sample", {"source": lambda s: s[:1]}, "source: found shape .* expand"),
        Bad("gate of one sample", {"gate": lambda g: g[:1]}, "gate: found shape .* expand"),
        Bad("dtypes mixed", {"coefficients": lambda c: c.double()}, "coefficients: found torch.float64, expected"),
        Bad("gate of another dtype", {"gate": lambda g: g.double()}, "gate: found torch.float64, expected"),
        Bad("source elsewhere", {"source": lambda s: s.to("meta")}, "source: found on meta, expected on cpu"),
    )
}
