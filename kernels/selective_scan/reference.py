"""The selective scan as Mamba's equations say it (arXiv:2312.00752, equations 2a and 2b, section 3.2).

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t          A by zero-order hold, B by the Euler form
    y_t = C_t h_t + D u_t                                   then gated: y_t silu(z_t)

One step at a time, in float64: slow, and right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["selective_scan"]


def selective_scan(
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
    """u, delta, z (B, D, L), A (D, N), B and C (B, [G,] N, L), D and delta_bias (D,) -> (B, D, L) [and (B, D, N)]."""
    step = delta.double() if delta_bias is None else delta.double() + delta_bias.double().unsqueeze(-1)
    if delta_softplus:
        step = torch.logaddexp(step, torch.zeros_like(step))  # ln(1 + e^x), for every x
    wide, rates = u.double(), A.double()
    inward, outward = _per_channel(B.double(), u.shape[1]), _per_channel(C.double(), u.shape[1])
    h = torch.zeros(*u.shape[:2], A.shape[1], dtype=torch.float64, device=u.device)
    h = h if initial_state is None else initial_state.double()
    outputs = []
    for t in range(u.shape[2]):
        now = step[:, :, t, None]
        h = torch.exp(now * rates) * h + now * inward[..., t] * wide[:, :, t, None]
        outputs.append((outward[..., t] * h).sum(-1))
    y = torch.stack(outputs, dim=-1)
    y = y if D is None else y + D.double().unsqueeze(-1) * wide
    y = y if z is None else y * z.double() * torch.sigmoid(z.double())
    kept = torch.float64 if u.dtype == torch.float64 else torch.float32
    return (y.to(u.dtype), h.to(kept)) if return_last_state else y.to(u.dtype)


def _per_channel(matrices: Tensor, channels: int) -> Tensor:
    """(B, [G,] N, L) to (B, D, N, L)."""
    grouped = matrices.unsqueeze(1) if matrices.dim() == 3 else matrices
    return grouped.repeat_interleave(channels // grouped.shape[1], dim=1)
