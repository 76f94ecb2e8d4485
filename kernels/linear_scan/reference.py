"""Linear attention as its recurrence says it (LinFusion, arXiv:2409.02097, section 3; Mamba-2's decay).

    S_t = a_t S_{t-1} + k_t^T [v_t, 1]          a state of Dv columns and, where a normaliser is asked for, one of ones
    o_t = q_t S_t                               causal;  q_t S_T otherwise
    out_t = o_t[:Dv] / (o_t[Dv] + eps)          normalised; zeros where the denominator is zero

One token at a time, in float64: slow, and right.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["linear_scan"]

_TINY = 2.0**-126  # the smallest normal float32: denominators below it count as zero on every back end


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
    """q, k (B, T, H, D), v (B, T, H, Dv) -> (B, T, H, Dv), and the last state; O(B T H D Dv)."""
    dtype, (B, T, H, D) = q.dtype, q.shape
    q, k, v = q.double(), k.double(), v.double()
    if normalise:
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    state = q.new_zeros(B, H, D, v.shape[-1]) if initial_state is None else initial_state.double()
    if causal:
        kept = torch.ones_like(q[..., 0]) if decay is None else decay.double().expand(B, T, H)
        rows = []
        for t in range(T):
            state = kept[:, t, :, None, None] * state + k[:, t, :, :, None] * v[:, t, :, None, :]
            rows.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
        out = torch.stack(rows, dim=1)
    else:
        state = state + torch.einsum("bthd,bthe->bhde", k, v)
        out = torch.einsum("bthd,bhde->bthe", q, state)
    if normalise:
        denominator = out[..., -1:] + eps
        present = denominator.abs() > _TINY
        out = torch.where(present, out[..., :-1] / torch.where(present, denominator, 1.0), 0.0)
    out = out.to(dtype)
    return (out, state.to(torch.promote_types(dtype, torch.float32))) if return_last_state else out
