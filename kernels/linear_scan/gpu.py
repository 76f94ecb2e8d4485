"""Host code of the Triton kernels, forward and backward; sums in float32 (float64 for float64 operands).

Half-width tiles are multiplied as TF32, which holds bfloat16 and float16 exactly and rounds what is computed on the way
no more than float16 would; float32 tiles on the ordinary units, without that rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher
from core_attention.kernels.linear_scan._decays import TINY, log_sums, through_log, within_chunks
from core_attention.kernels.linear_scan._programs import beyond_kernel, mix_kernel, passing_kernel, states_kernel

__all__ = ["linear_scan", "linear_scan_backward"]

_WARPS, _MIX_WARPS = 4, 8  # with four warps a variant of the mixing kernel in full float32 spilled
# Tiles by operands: tokens of a chunk, columns contracted at a time, columns of a result. Full float32 products run on
# the ordinary units, unrolled: larger ones spill. Those of the tensor cores keep their fragments in registers.
_FULL_TILES, _HALF_TILES = (32, 16, 32), (64, 32, 32)
_PLAIN, _DIVIDE, _X_COLUMN, _A_COLUMN = 0, 1, 2, 3


class _Plan(NamedTuple):
    """What every launch of one call shares."""

    B: int
    T: int
    H: int
    D: int
    V: int
    N: int
    C: int
    causal: bool
    normalise: bool
    half: bool
    wide: torch.dtype
    decays: dict[str, Tensor]

    @property
    def options(self) -> dict[str, Any]:
        """How the kernels multiply and add up."""
        accumulator = tl.float64 if self.wide == torch.float64 else tl.float32
        precision = "tf32" if self.half else "ieee"
        return {"C": self.C, "ACC": accumulator, "PRECISION": precision, "num_warps": _WARPS, "num_stages": 1}

    def tile(self, width: int, *, contracted: bool = False) -> int:
        """Columns of a tile that covers ``width`` of them."""
        _, inner, outer = _HALF_TILES if self.half else _FULL_TILES
        return min(inner if contracted else outer, max(16, triton.next_power_of_2(width)))


def _plan(q: Tensor, v: Tensor, decay: Tensor | None, normalise: bool, causal: bool) -> _Plan:
    (B, T, H, D), wide = q.shape, torch.promote_types(q.dtype, torch.float32)
    half = q.dtype.itemsize == 2
    C = (_HALF_TILES if half else _FULL_TILES)[0]
    none = q.new_empty(1, dtype=wide)
    decays: dict[str, Tensor] = {name: none for name in ("high", "low", "head", "tail", "total")}  # noqa: C420
    if decay is not None:
        sums = log_sums(decay.expand(B, T, H), C)
        high = sums.to(wide)
        made = {"high": high, "low": sums - high, "head": sums.exp(), "tail": (sums[:, :, -1:] - sums).exp()}
        decays = {name: x.flatten(1, 2)[:, :T].to(wide).contiguous() for name, x in made.items()}
        decays["total"] = sums[:, :, -1].exp().to(wide).contiguous()
    return _Plan(B, T, H, D, v.shape[-1], triton.cdiv(T, C), C, causal, normalise, half, wide, decays)


def _carry(
    p: _Plan, x: Tensor, y: Tensor, extra: Tensor | None, first: Tensor | None, *, back: bool = False
) -> tuple[Tensor, Tensor]:
    """The states before (going back: their gradients after) every chunk, and the one that remains (B, H, D, E).

    x (B, T, H, D), y (B, T, H, V), extra (B, T, H) or None for ones -> (B, H, N, D, E): one of no chunks if not causal.
    """
    decaying, E = p.decays["high"].dim() > 1, p.V + p.normalise
    shape = (p.B, p.H, p.D, E)
    first = x.new_zeros(shape, dtype=p.wide) if first is None else first.contiguous()
    last = x.new_empty(shape, dtype=p.wide)
    states = x.new_empty((p.B, p.H, p.N if p.causal else 0, p.D, E), dtype=p.wide)
    bd, bv = p.tile(p.D), p.tile(p.V)
    launcher(states_kernel)[(p.B * p.H, triton.cdiv(p.D, bd), triton.cdiv(p.V, bv))](
        x, y, p.decays["high"] if extra is None else extra, p.decays["head" if back else "tail"], p.decays["total"],
        first, states if p.causal else last, last, p.T, p.H, p.D, p.V, p.N,
        BD=bd, BV=bv, BACK=back, DECAY=decaying, KEEP=p.causal, EXTRA=int(p.normalise), ONES=extra is None, **p.options,
    )  # fmt: skip
    return states, last


def _mix(
    p: _Plan,
    x: Tensor,
    a: Tensor,
    y: Tensor,
    states: Tensor,
    out: Tensor,
    *,
    upper: bool = False,
    turned: bool = False,
    mode: int = _PLAIN,
    extra: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Launch ``mix_kernel``; ``turned`` reads the states transposed. Returns the denominators of mode 1."""
    X, Y, E = x.shape[-1], y.shape[-1], p.V + p.normalise
    bx, by = p.tile(X, contracted=True), p.tile(Y)
    denominator = x.new_empty((p.B, p.T, p.H) if mode == _DIVIDE else (1,), dtype=p.wide)
    decaying = p.decays["high"].dim() > 1
    launcher(mix_kernel)[(p.N, p.B * p.H, triton.cdiv(Y, by))](
        x, a, y, p.decays["high"] if extra is None else extra, p.decays["high"], p.decays["low"],
        p.decays["tail" if upper else "head"], states, out, denominator, p.T, p.H, X, Y, p.N,
        *((1, E) if turned else (E, 1)), p.D * E, eps, TINY,
        BX=bx, BY=by, UPPER=upper, CAUSAL=p.causal, DECAY=decaying, MODE=mode,
        **p.options | {"num_warps": _WARPS if p.half else _MIX_WARPS},
    )  # fmt: skip
    return denominator


def linear_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None = None,
    initial_state: Tensor | None = None,
    *,
    normalise: bool = False,
    causal: bool = True,
    eps: float = 0.0,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """q, k (B, T, H, D), v (B, T, H, Dv) -> (B, T, H, Dv), and the last state.

    Memory beyond the results O(B H T/C D E) for a state a chunk of C tokens, 64 or for full floats 32.
    """
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    p = _plan(q, v, decay, normalise, causal)
    states, last = _carry(p, k, v, None, initial_state)
    out = torch.empty_like(v)
    _mix(p, q, k, v, states if causal else last, out, mode=_DIVIDE if normalise else _PLAIN, eps=eps)
    return (out, last) if return_last_state else out


def linear_scan_backward(
    grad: Tensor,
    grad_state: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial_state: Tensor | None,
    to_decay: bool,
    *,
    normalise: bool,
    causal: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of q, k, v, decay (None unless asked for) and initial_state; keeps two states a chunk."""
    q, k, v, g = q.contiguous(), k.contiguous(), v.contiguous(), grad.contiguous()
    p = _plan(q, v, decay, normalise, causal)
    states, last = _carry(p, k, v, None, initial_state)
    before, extra = states if causal else last, None
    if normalise:
        out = torch.empty_like(v, dtype=p.wide)
        below = _mix(p, q, k, v, before, out, mode=_DIVIDE, eps=eps)
        present = below.abs() > TINY
        g = (g.to(p.wide) * torch.where(present, 1 / torch.where(present, below, 1.0), 0.0).unsqueeze(-1)).contiguous()
        extra = -(g * out).sum(-1)
    kept, first = _carry(p, q, g, extra, grad_state, back=True)
    after = kept if causal else first
    d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _mix(p, g, v, k, before, d_q, turned=True, mode=_X_COLUMN if normalise else _PLAIN, extra=extra)
    _mix(p, v, g, q, after, d_k, upper=True, turned=True, mode=_A_COLUMN if normalise else _PLAIN, extra=extra)
    _mix(p, k, q, g, after, d_v, upper=True)
    d_decay = (
        through_log(_crossed(p, q, k, v, g, extra, before, after), decay) if to_decay and decay is not None else None
    )
    return d_q, d_k, d_v, d_decay, first


def _crossed(
    p: _Plan, q: Tensor, k: Tensor, v: Tensor, g: Tensor, extra: Tensor | None, before: Tensor, after: Tensor
) -> Tensor:
    """The gradient of the decays' logarithms, (B, T, H)."""
    shape = (p.B, p.T, p.H)
    inside, rows, columns = (q.new_empty(shape, dtype=p.wide) for _ in range(3))
    bd, bv = p.tile(p.D, contracted=True), p.tile(p.V, contracted=True)
    grid, decays = (p.N, p.B * p.H), p.decays
    extra = decays["high"] if extra is None else extra
    options = {"BD": bd, "BV": bv, "EXTRA": int(p.normalise), **p.options}
    launcher(passing_kernel)[grid](
        q, k, v, g, extra, decays["high"], decays["low"], inside, p.T, p.H, p.D, p.V, **options
    )  # fmt: skip
    launcher(beyond_kernel)[grid](
        q, k, v, g, extra, decays["head"], decays["tail"], before, after, rows, columns, p.T, p.H, p.D, p.V, p.N,
        **options,
    )  # fmt: skip
    across = (before * after).sum((-1, -2)).permute(0, 2, 1) * p.decays["total"]
    padding = (0, 0, 0, -p.T % p.C)
    parts = [torch.nn.functional.pad(x, padding).unflatten(1, (p.N, p.C)) for x in (inside, rows, columns)]
    return within_chunks(parts[0], parts[1], parts[2], across.unsqueeze(2), 2).flatten(1, 2)[:, : p.T]
