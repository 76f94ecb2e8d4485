"""Arguments that the linear scan is tested, inspected and measured with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._testing import Bad, Case, non_contiguous

__all__ = ["BAD", "CASES", "INSPECTED", "INTERPRETED", "arguments_of"]


def arguments_of(
    shape: tuple[int, int, int, int, int],
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    decay: str = "",
    state: bool = False,
    normalise: bool = False,
) -> tuple[Tensor | None, ...]:
    """Operands for (B, T, H, D, Dv): positive features with a normaliser; decays "token" or "head", or none."""
    B, T, H, D, Dv = shape

    def randn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    q, k = randn(B, T, H, D) * D**-0.5, randn(B, T, H, D)
    if normalise:
        q, k = F.elu(q) + 1, F.elu(k) + 1
    kept = {"": None, "token": torch.sigmoid(2 + 2 * randn(B, T, H)), "head": torch.sigmoid(2 + randn(H))}[decay]
    first = randn(B, H, D, Dv + normalise) if state else None
    if first is not None and normalise:
        first = torch.cat([first[..., :-1], first[..., -1:].abs()], dim=-1)
    made = (q, k, randn(B, T, H, Dv), kept, first)
    return tuple(None if tensor is None else tensor.to(dtype) for tensor in made)


def _case(
    name: str, shape: tuple[int, int, int, int, int], *, decay: str = "", state: bool = False, **options: Any
) -> Case:
    def build(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
        normalise = options.get("normalise", False)
        return arguments_of(shape, dtype, generator, decay=decay, state=state, normalise=normalise)

    return Case(name, build, options)


def _strided(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    made = arguments_of((2, 21, 2, 6, 5), dtype, generator, decay="token", state=True)
    return tuple(None if tensor is None else non_contiguous(tensor) for tensor in made)


def _strided_few(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    made = arguments_of((2, 13, 2, 6, 5), dtype, generator)
    return tuple(None if tensor is None else non_contiguous(tensor) for tensor in made)


def _empty_keys(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    """The first keys, and all of one head, are zero rows: nothing to normalise by."""
    q, k, *rest = arguments_of((2, 70, 2, 5, 4), dtype, generator, normalise=True)
    if k is not None:
        k[:, :66], k[:, :, 1] = 0, 0
    return q, k, *rest


def _forgetful(dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor | None, ...]:
    """Decays of nearly nothing beside decays of one."""
    q, k, v, decay, state = arguments_of((1, 150, 2, 12, 12), dtype, generator, decay="token", state=True)
    if decay is not None:
        decay[:, ::7], decay[:, 3::5] = 1e-4, 1.0
    return q, k, v, decay, state


_STATE: dict[str, Any] = {"state": True, "return_last_state": True}
_USUAL = _case("usual", (2, 70, 2, 8, 8), decay="token", normalise=True, **_STATE)
_RAGGED = _case("three chunks and a bit", (1, 203, 1, 20, 17), decay="token", return_last_state=True)
_PLAIN = _case("no decay", (2, 131, 3, 5, 7))
_WHOLE = _case("not causal", (2, 77, 2, 9, 5), causal=False, normalise=True, eps=1e-2, **_STATE)
_EMPTY_KEYS = Case("keys of zeros", _empty_keys, {"normalise": True})

CASES = {
    "linear_scan": (
        _USUAL,
        _case("one token", (3, 1, 2, 4, 3), decay="token", **_STATE),
        _PLAIN,
        _RAGGED,
        _case("a decay a head", (2, 66, 3, 8, 8), decay="head", state=True),
        _WHOLE,
        _case("not causal, not normalised", (1, 130, 2, 4, 4), causal=False),
        _EMPTY_KEYS,
        Case("keys of zeros, not causal", _empty_keys, {"normalise": True, "causal": False}),
        Case("forgetful", _forgetful, {"return_last_state": True}),
        Case("not contiguous", _strided),
    )
}
INTERPRETED = {  # a few hundred numbers in the smallest gradient, so that one draw of a case suffices
    "linear_scan": (
        _USUAL,
        _case("no decay", (1, 67, 1, 5, 7)),
        _WHOLE,
        _case("wider than a tile", (1, 66, 1, 36, 35), decay="token"),
        _case("not causal, not normalised", (1, 67, 1, 4, 4), causal=False),
        _EMPTY_KEYS,
        Case("forgetful", _forgetful, {"return_last_state": True}),
        Case("not contiguous", _strided_few),
    )
}
INSPECTED = {
    "linear_scan": (
        _case("T1024 D64 with everything", (1, 1024, 1, 64, 64), decay="token", normalise=True, **_STATE),
        _case("T192 D128 without decay", (1, 192, 2, 128, 128)),
    )
}
BAD = {
    "linear_scan": (
        Bad("three dimensions", {"q": lambda q: q[0]}, r"q: found shape \(70, 2, 8\), expected 4 dimensions"),
        Bad("whole numbers", {"q": lambda q: q.long()}, "q: found torch.int64, expected a floating-point"),
        Bad("no tokens", {"q": lambda q: q[:, :0]}, "q: found .* no empty dimension"),
        Bad("fewer keys", {"k": lambda k: k[:, :5]}, r"k: found shape \(2, 5, 2, 8\), expected \(2, 70, 2, 8\)"),
        Bad("fewer values", {"v": lambda v: v[:, :5]}, r"v: found shape \(2, 5, 2, 8\), expected \(2, 70, 2, 8\)"),
        Bad("dtypes mixed", {"k": lambda k: k.double()}, "k: found torch.float64, expected torch.float32"),
        Bad("devices mixed", {"v": lambda v: v.to("meta")}, "v: found on meta, expected on cpu"),
        Bad("a decay too few", {"decay": lambda d: d[:, 1:]}, r"decay: found shape \(2, 69, 2\), expected \(H,\)"),
        Bad("decay without order", {"causal": False}, "decay: found a tensor, expected None"),
        Bad("whole decays", {"decay": lambda d: d.long()}, "decay: found torch.int64"),
        Bad(
            "a state without its normaliser",
            {"initial_state": lambda s: s[..., 1:]},
            r"initial_state: found shape \(2, 2, 8, 8\), expected \(2, 2, 8, 9\)",
        ),
        Bad("a negative eps", {"eps": -1.0}, "eps: found -1.0, expected at least 0"),
        Bad("a double state", {"initial_state": lambda s: s.double()}, "initial_state: found torch.float64"),
    )
}
