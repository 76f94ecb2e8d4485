"""Arguments that the selective scan is tested, inspected and measured with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "INSPECTED", "INTERPRETED", "arguments_of"]


def arguments_of(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    groups: int = 0,
    without: tuple[str, ...] = (),
    state: bool = True,
    spread: float = 1.0,
    parameters: torch.dtype | None = None,
) -> tuple[Tensor | None, ...]:
    """Random operands for (B, D, L, N), with decay rates -1 to -N as Mamba starts them; some left out on request."""
    rows, channels, length, states = shape

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    matrix = (rows, groups, states, length) if groups else (rows, states, length)
    made = {
        "u": normal(rows, channels, length),
        "delta": spread * normal(rows, channels, length) - 2,
        "A": -torch.arange(1.0, states + 1, dtype=torch.float64) * torch.exp(0.1 * normal(channels, states)),
        "B": normal(*matrix),
        "C": normal(*matrix),
        "D": normal(channels),
        "z": normal(rows, channels, length),
        "delta_bias": 0.5 * normal(channels),
        "initial_state": normal(rows, channels, states),
    }
    kept = {"A": parameters, "D": parameters, "delta_bias": parameters}
    left_out = {*without} if state else {*without, "initial_state"}
    return tuple(None if name in left_out else t.to(kept.get(name) or dtype) for name, t in made.items())


def _case(name: str, shape: tuple[int, int, int, int], options: dict[str, Any] | None = None, **how: Any) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        return arguments_of(shape, dtype, generator, **how)

    return Case(name, build, {"delta_softplus": True, "return_last_state": True} | (options or {}))


def _strided(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    made = arguments_of((2, 3, 11, 4), dtype, generator, groups=3)
    return tuple(None if tensor is None else non_contiguous(tensor) for tensor in made)


def _plain(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    """Step sizes given as they are, so positive."""
    u, delta, *rest = arguments_of((2, 4, 19, 3), dtype, generator, without=("D", "z", "delta_bias"), state=False)
    return u, None if delta is None else delta.abs() * 0.2, *rest


def _float32_parameters(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    wide = torch.promote_types(dtype, torch.float32)
    return arguments_of((2, 4, 20, 8), dtype, generator, parameters=wide, state=False)


CASES = {
    "selective_scan": (
        _case("usual", (2, 6, 24, 16)),
        _case("one step of one channel", (1, 1, 1, 1)),
        _case("past one chunk, ragged", (2, 3, 131, 5)),
        Case("bare", _plain),
        _case("two groups", (2, 6, 17, 9), groups=2),
        _case("without a gate", (1, 5, 33, 2), {"return_last_state": False}, without=("z", "initial_state")),
        Case("parameters in float32", _float32_parameters, {"delta_softplus": True}),
        Case("not contiguous", _strided, {"delta_softplus": True}),
        _case("fast decay", (1, 4, 150, 32), spread=4.0),
    )
}
INTERPRETED = {
    "selective_scan": (
        _case("usual", (2, 2, 24, 7)),
        _case("one step", (2, 6, 1, 3)),
        _case("past one chunk, ragged", (1, 2, 131, 5)),
        Case("bare", _plain),
        _case("two groups", (1, 4, 17, 9), groups=2),
        Case("not contiguous", _strided, {"delta_softplus": True}),
    )
}
INSPECTED = {"selective_scan": (_case("B2 D256 L1000 N16", (2, 256, 1000, 16)),)}
BAD = {
    "selective_scan": (
        Bad("two dimensions", {"u": lambda u: u[0]}, r"u: found shape \(6, 24\), expected 3 dimensions \(B, D, L\)"),
        Bad("whole numbers", {"u": lambda u: u.long()}, "u: found torch.int64, expected a floating-point"),
        Bad("no steps", {"u": lambda u: u[..., :0]}, r"u: found shape \(2, 6, 0\), expected .* no empty dimension"),
        Bad("steps of another length", {"delta": lambda d: d[..., :5]}, r"delta: found .* \(2, 6, 24\)"),
        Bad("rates of other channels", {"A": lambda A: A[:4]}, r"A: found shape \(4, 16\), expected \(6, 16\)"),
        Bad("matrices of other states", {"B": lambda B: B[:, :7]}, r"B: found shape \(2, 7, 24\), expected"),
        Bad("matrices of two dimensions", {"C": lambda C: C[0]}, r"C: found shape .* expected \(B, N, L\) or"),
        Bad("groups that do not divide", {"B": lambda B: B.unsqueeze(1).repeat(1, 4, 1, 1)}, "B: found 4 groups"),
        Bad("a gate of another batch", {"z": lambda z: z[:1]}, "z: found shape"),
        Bad("direct weights per state", {"D": lambda D: D[:3]}, r"D: found shape \(3,\), expected \(6,\)"),
        Bad("a scalar bias", {"delta_bias": 0.5}, "delta_bias: found float, expected a tensor"),
        Bad("a state without channels", {"initial_state": lambda h: h[:, 0]}, "initial_state: found shape"),
        Bad("dtypes mixed", {"delta": lambda d: d.double()}, "delta: found torch.float64, expected torch.float32"),
        Bad("devices mixed", {"A": lambda A: A.to("meta")}, "A: found on meta, expected on cpu"),
    )
}
