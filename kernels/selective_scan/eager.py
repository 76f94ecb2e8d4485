"""The selective scan in vectorised torch: a step is one fused multiply-add over all channels and states at once.

Sixteen steps at a time are laid out as (steps, B, N, D): a step's operands are contiguous, what is broadcast over
states or channels is broadcast along whole rows, and the exponentials are one call on what still fits a cache. The
state of every sixty-fourth step is kept for the backward pass, which recomputes the rest. The gradient is the same
recurrence run backwards (g = dL/dh):

    g_t = C_t dy_t + a_{t+1} g_{t+1}        d(delta_t A) = g_t a_t h_{t-1}        d(delta_t u_t B_t) = g_t

The closed form with two cumulative sums is not used: it overflows once the decays sum to about 80 in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CHUNK", "portable_selective_scan", "selective_scan", "selective_scan_backward", "step_sizes"]

CHUNK = 64  # steps between saved states, in every back end
_BLOCK = 16  # steps computed at a time; divides CHUNK
_EXACT = 40.0  # above it softplus(x) = x in float64 too; torch's default of 20 is exact in float32 only
Parts = tuple[Tensor, ...]


def step_sizes(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    """delta + bias (B, D, L), perhaps through softplus, at least in float32."""
    wide = delta.to(torch.promote_types(delta.dtype, torch.float32))
    wide = wide if bias is None else wide + bias.to(wide.dtype).unsqueeze(-1)
    return F.softplus(wide, threshold=_EXACT) if softplus else wide


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    saving: bool,
) -> Parts:
    """Scan with B and C (B, G, N, L); returns out (B, D, L), last state (B, D, N), saved states (chunks, B, D, N).

    Time O(B D L N), memory O(B D (L + 16 N)); without ``saving`` the third result is empty.
    """
    steps = step_sizes(delta, delta_bias, delta_softplus)
    dtype = steps.dtype
    values, rates = u.to(dtype), A.to(dtype).t().contiguous()
    h = _start(initial_state, u, A, dtype)
    y, saved = torch.empty_like(values), []
    for start in range(0, u.shape[2], _BLOCK):
        if saving and start % CHUNK == 0:
            saved.append(h.mT)
        here = slice(start, start + _BLOCK)
        now = _time_first(steps[..., here])
        _, states = _states(now, _time_first(values[..., here]), rates, B[..., here], h)
        y[..., here] = _read(states, C[..., here]).permute(1, 2, 0)
        h = states[-1].clone()
    y = y if D is None else torch.addcmul(y, values, D.to(dtype).unsqueeze(-1))
    y = y if z is None else y * F.silu(z.to(dtype))
    return y.to(u.dtype), h.mT.contiguous(), torch.stack(saved) if saved else h.new_empty(0)


def selective_scan_backward(
    grad: Tensor,
    grad_state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    saved: Tensor,
    delta_softplus: bool,
) -> dict[str, Tensor]:
    """Gradients of all operands by name, in at least float32. Time O(B D L N), memory O(B D (L + 64 N))."""
    steps = step_sizes(delta, delta_bias, delta_softplus)
    dtype = steps.dtype
    values, rates = u.to(dtype), A.to(dtype).t().contiguous()
    dy = grad.to(dtype)
    found: dict[str, Tensor] = {}
    if z is not None:
        gate = z.to(dtype)
        open_ = torch.sigmoid(gate)
        ungated = dy * (open_ * (1 + gate * (1 - open_)))  # times y below: the gradient of z
        found["z"] = torch.empty_like(ungated)
        dy = dy * gate * open_
    d_u, d_steps, d_rates = torch.empty_like(values), torch.empty_like(values), torch.zeros_like(rates)
    d_B, d_C = torch.empty_like(B, dtype=dtype), torch.empty_like(C, dtype=dtype)
    g = grad_state.to(dtype).mT.contiguous()  # the part of dL/dh that comes from later steps
    for here, before, a, states in _blocks_reversed(saved, steps, values, rates, B):
        now, value, now_dy = (_time_first(x[..., here]) for x in (steps, values, dy))
        if z is not None:
            found["z"][..., here] = _read(states, C[..., here]).permute(1, 2, 0)
        d_C[..., here] = _over_channels(states, now_dy, C.shape[1])
        grads = _reversed(a, now_dy, C[..., here], g)
        g = a[0] * grads[0]
        d_B[..., here] = _over_channels(grads, now * value, B.shape[1])
        entered = _read(grads, B[..., here])  # sum over n of g B
        d_u[..., here] = (entered * now).permute(1, 2, 0)
        through = grads.mul_(a)
        through[0] *= before
        through[1:] *= states[:-1]
        d_steps[..., here] = torch.addcmul((through * rates).sum(2), entered, value).permute(1, 2, 0)
        # Elementwise and summed pairwise: a matrix product's sums would round more than plain torch does.
        d_rates += through.mul_(now.unsqueeze(2)).sum((0, 1))
    if D is not None:
        direct = D.to(dtype).unsqueeze(-1)
        d_u.addcmul_(dy, direct)
        found["D"] = (dy * values).sum((0, 2))
    if z is not None:
        y = found["z"] if D is None else found["z"].addcmul_(values, direct)
        found["z"] = y.mul_(ungated)
    if delta_softplus:
        d_steps = d_steps * torch.sigmoid(delta.to(dtype) if delta_bias is None else _shifted(delta, delta_bias, dtype))
    found |= {"u": d_u, "delta": d_steps, "A": d_rates.t(), "B": d_B, "C": d_C, "initial_state": g.mT}
    if delta_bias is not None:
        found["delta_bias"] = d_steps.sum((0, 2))
    return found


def portable_selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_last_state: bool = False,
) -> Any:
    """The same by doubling: after round i each step holds the sum over the 2^i steps before it. Plain operators only.

    Differentiable by autograd. Time and memory O(B D L N log L); the number of operators grows with log L alone.
    """
    steps = step_sizes(delta, delta_bias, delta_softplus)
    dtype, channels = steps.dtype, u.shape[1]
    values = u.to(dtype)
    decay = torch.exp(steps.unsqueeze(-1) * A.to(dtype).unsqueeze(1))  # (B, D, L, N)
    states = (steps * values).unsqueeze(-1) * _spread(B, channels, dtype)
    if initial_state is not None:
        first = states[:, :, :1] + decay[:, :, :1] * initial_state.to(dtype).unsqueeze(2)
        states = torch.cat([first, states[:, :, 1:]], dim=2)
    shift = 1
    while shift < u.shape[2]:
        carried = states[:, :, shift:] + decay[:, :, shift:] * states[:, :, :-shift]
        states = torch.cat([states[:, :, :shift], carried], dim=2)
        decay = torch.cat([decay[:, :, :shift], decay[:, :, shift:] * decay[:, :, :-shift]], dim=2)
        shift *= 2
    y = (states * _spread(C, channels, dtype)).sum(-1)
    y = y if D is None else y + values * D.to(dtype).unsqueeze(-1)
    y = y if z is None else y * F.silu(z.to(dtype))
    return (y.to(u.dtype), states[:, :, -1]) if return_last_state else y.to(u.dtype)


def _spread(matrices: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """(B, [G,] N, L) to (B, D, L, N)."""
    grouped = matrices.unsqueeze(1) if matrices.dim() == 3 else matrices
    per_group = channels // grouped.shape[1]
    wide = grouped.to(dtype).transpose(2, 3)
    return wide if grouped.shape[1] == 1 else wide.repeat_interleave(per_group, dim=1)


def _start(initial_state: Tensor | None, u: Tensor, A: Tensor, dtype: torch.dtype) -> Tensor:
    """The state before the first step, (B, N, D)."""
    if initial_state is None:
        return torch.zeros(u.shape[0], A.shape[1], u.shape[1], dtype=dtype, device=u.device)
    return initial_state.to(dtype).mT.clone(memory_format=torch.contiguous_format)


def _shifted(delta: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    return delta.to(dtype) + bias.to(dtype).unsqueeze(-1)


def _time_first(x: Tensor) -> Tensor:
    """Some steps (B, D, steps) as (steps, B, D), contiguous."""
    return x.permute(2, 0, 1).contiguous()


def _spread_over(x: Tensor, matrices: Tensor) -> Tensor:
    """Of channels x (steps, B, D) and matrices (B, G, N, steps) the product (steps, B, N, D)."""
    rows = matrices.to(x.dtype).permute(3, 0, 2, 1).unsqueeze(-1)  # (steps, B, N, G, 1)
    return (x.unflatten(2, (matrices.shape[1], -1)).unsqueeze(2) * rows).flatten(3)


def _states(now: Tensor, value: Tensor, rates: Tensor, B: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states of some steps, both (steps, B, N, D), from the state before them."""
    a = (now.unsqueeze(2) * rates).exp_()
    states = _spread_over(now * value, B)
    for decay, state in zip(a.unbind(0), states.unbind(0), strict=True):
        h = torch.addcmul(state, decay, h, out=state)
    return a, states


def _reversed(a: Tensor, dy: Tensor, C: Tensor, g: Tensor) -> Tensor:
    """dL/dh of some steps, (steps, B, N, D); g is what the steps after them hand back."""
    grads = _spread_over(dy, C)
    grads[-1] += g
    for t in range(grads.shape[0] - 2, -1, -1):
        torch.addcmul(grads[t], a[t + 1], grads[t + 1], out=grads[t])
    return grads


class _Block(NamedTuple):
    """Some steps: which, the state before them (B, N, D), and their decays and states (steps, B, N, D)."""

    here: slice
    before: Tensor
    a: Tensor
    states: Tensor


def _blocks_reversed(saved: Tensor, steps: Tensor, values: Tensor, rates: Tensor, B: Tensor) -> Iterator[_Block]:
    """Blocks of steps from the last to the first, computed anew from the saved states."""
    for number in reversed(range(saved.shape[0])):
        first, end = number * CHUNK, min((number + 1) * CHUNK, steps.shape[2])
        h, blocks = saved[number].mT.contiguous(), []
        for start in range(first, end, _BLOCK):
            here = slice(start, min(start + _BLOCK, end))
            made = _states(_time_first(steps[..., here]), _time_first(values[..., here]), rates, B[..., here], h)
            blocks.append(_Block(here, h, *made))
            h = made[1][-1]
        yield from reversed(blocks)


def _read(states: Tensor, matrices: Tensor) -> Tensor:
    """Sum over n of states times matrices (B, G, N, steps): (steps, B, D)."""
    rows = matrices.to(states.dtype).permute(3, 0, 1, 2).unsqueeze(3)  # (steps, B, G, 1, N)
    grouped = states.unflatten(3, (matrices.shape[1], -1)).transpose(2, 3)
    return torch.matmul(rows, grouped).flatten(2)


def _over_channels(states: Tensor, weights: Tensor, groups: int) -> Tensor:
    """Sum over the channels of a group of weights (steps, B, D) times states: (B, G, N, steps)."""
    grouped = states.unflatten(3, (groups, -1)).transpose(2, 3)
    column = weights.unflatten(2, (groups, -1)).unsqueeze(-1)  # (steps, B, G, D / G, 1)
    return torch.matmul(grouped, column).squeeze(-1).permute(1, 2, 3, 0)
