"""The selective scan in vectorised torch: a step is one fused multiply-add over all channels and states at once.

Sixty-four steps at a time are laid out time first, so that a step's operands are contiguous and the exponentials are
one call; the state at the start of every such chunk is kept for the backward pass, which recomputes the rest. The
gradient is the same recurrence run backwards (g = dL/dh):

    g_t = C_t dy_t + a_{t+1} g_{t+1}        d(delta_t A) = g_t a_t h_{t-1}        d(delta_t u_t B_t) = g_t

The closed form with two cumulative sums is not used: it overflows once the decays sum to about 80 in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CHUNK", "portable_selective_scan", "selective_scan", "selective_scan_backward", "step_sizes"]

CHUNK = 64  # steps between saved states, in every back end
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

    Time O(B D L N), memory O(B D (L + 64 N)); without ``saving`` the third result is empty.
    """
    steps = step_sizes(delta, delta_bias, delta_softplus)
    dtype = steps.dtype
    values, rates = u.to(dtype), A.to(dtype)
    h = _start(initial_state, u, A, dtype)
    y, saved = torch.empty_like(values), []
    for start in range(0, u.shape[2], CHUNK):
        if saving:
            saved.append(h)
        _, states = _states(steps, values, rates, B, h, start)
        y[:, :, start : start + CHUNK] = _read(states, C, start).permute(1, 2, 0)
        h = states[-1].clone()
    y = y if D is None else torch.addcmul(y, values, D.to(dtype).unsqueeze(-1))
    y = y if z is None else y * F.silu(z.to(dtype))
    return y.to(u.dtype), h, torch.stack(saved) if saved else h.new_empty(0)


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
    values, rates = u.to(dtype), A.to(dtype)
    dy = grad.to(dtype)
    found: dict[str, Tensor] = {}
    if z is not None:
        gate = z.to(dtype)
        open_ = torch.sigmoid(gate)
        ungated = dy * (open_ * (1 + gate * (1 - open_)))  # times y below: the gradient of z
        found["z"] = torch.empty_like(ungated)
        dy = dy * gate * open_
    direct = None if D is None else D.to(dtype).unsqueeze(-1)
    d_u = torch.zeros_like(values) if direct is None else dy * direct
    d_steps, d_rates = torch.empty_like(values), torch.zeros_like(rates)
    d_B, d_C = torch.empty_like(B, dtype=dtype), torch.empty_like(C, dtype=dtype)
    g = grad_state.to(dtype)  # the part of dL/dh that comes from later chunks
    for number in reversed(range(saved.shape[0])):
        start = number * CHUNK
        here = slice(start, start + CHUNK)
        a, states = _states(steps, values, rates, B, saved[number], start)
        now_dy = dy[:, :, here].permute(2, 0, 1)
        if z is not None:
            y = _read(states, C, start)
            y = y if direct is None else torch.addcmul(y, values[:, :, here].permute(2, 0, 1), direct.squeeze(-1))
            found["z"][:, :, here] = y.permute(1, 2, 0) * ungated[:, :, here]
        d_C[..., here] = _over_channels(states, now_dy, C.shape[1])
        grads = _reversed(a, now_dy, C, g, start)
        g = a[0] * grads[0]
        d_B[..., here] = _over_channels(grads, (steps * values)[:, :, here].permute(2, 0, 1), B.shape[1])
        entered = _read(grads, B, start).permute(1, 2, 0)  # sum over n of g B
        d_u[:, :, here] += entered * steps[:, :, here]
        before = torch.cat([saved[number].unsqueeze(0), states[:-1]])
        through = grads.mul_(a).mul_(before)
        d_steps[:, :, here] = torch.einsum("lbdn,dn->bdl", through, rates) + entered * values[:, :, here]
        # Elementwise and summed pairwise: a matrix product's sums would round more than plain torch does.
        d_rates += through.mul_(steps[:, :, here].permute(2, 0, 1).unsqueeze(-1)).sum((0, 1))
    if delta_softplus:
        d_steps = d_steps * torch.sigmoid(delta.to(dtype) if delta_bias is None else _shifted(delta, delta_bias, dtype))
    found |= {"u": d_u, "delta": d_steps, "A": d_rates, "B": d_B, "C": d_C, "initial_state": g}
    if D is not None:
        found["D"] = (dy * values).sum((0, 2))
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
    if initial_state is None:
        return torch.zeros(u.shape[0], u.shape[1], A.shape[1], dtype=dtype, device=u.device)
    return initial_state.to(dtype, copy=True).contiguous()


def _shifted(delta: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    return delta.to(dtype) + bias.to(dtype).unsqueeze(-1)


def _time_first(matrices: Tensor, start: int, dtype: torch.dtype) -> Tensor:
    """A chunk of (B, G, N, L) as (steps, B, G, 1, N)."""
    return matrices[..., start : start + CHUNK].to(dtype).permute(3, 0, 1, 2).unsqueeze(3)


def _states(steps: Tensor, values: Tensor, rates: Tensor, B: Tensor, h: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Decays and states of a chunk, both (steps, B, D, N), from the state before it."""
    now = steps[:, :, start : start + CHUNK].permute(2, 0, 1)
    a = torch.mul(now.unsqueeze(-1), rates).exp_()
    entering = (now * values[:, :, start : start + CHUNK].permute(2, 0, 1)).unsqueeze(-1)
    groups = B.shape[1]
    states = (entering.unflatten(2, (groups, -1)) * _time_first(B, start, rates.dtype)).flatten(2, 3)
    for t in range(states.shape[0]):
        h = torch.addcmul(states[t], a[t], h, out=states[t])
    return a, states


def _reversed(a: Tensor, dy: Tensor, C: Tensor, g: Tensor, start: int) -> Tensor:
    """dL/dh of a chunk, (steps, B, D, N); g is what the chunk after it hands back."""
    groups = C.shape[1]
    grads = (dy.unsqueeze(-1).unflatten(2, (groups, -1)) * _time_first(C, start, a.dtype)).flatten(2, 3)
    grads[-1] += g
    for t in range(grads.shape[0] - 2, -1, -1):
        torch.addcmul(grads[t], a[t + 1], grads[t + 1], out=grads[t])
    return grads


def _read(states: Tensor, matrices: Tensor, start: int) -> Tensor:
    """Sum over n of states times matrices: (steps, B, D)."""
    grouped = states.unflatten(2, (matrices.shape[1], -1))
    return torch.matmul(grouped, _time_first(matrices, start, states.dtype).transpose(3, 4)).squeeze(-1).flatten(2, 3)


def _over_channels(states: Tensor, weights: Tensor, groups: int) -> Tensor:
    """Sum over the channels of a group of weights (steps, B, D) times states: (B, G, N, steps)."""
    row = weights.unflatten(2, (groups, -1)).unsqueeze(3)  # (steps, B, G, 1, D / G)
    return torch.matmul(row, states.unflatten(2, (groups, -1))).squeeze(3).permute(1, 2, 3, 0)
