"""Explicit Euler steps of diffusion as FluidWorld (arXiv:2603.21315) writes them, in float64.

    u <- u + gate * sum_k  coefficients[k, c] * lap_k(u) + source                        ``steps`` times
    lap_k(u)[y, x] = u[y - d, x] + u[y + d, x] + u[y, x - d] + u[y, x + d] - 4 u[y, x],  d = dilations[k]

Beyond the border u is 0 ("zeros"), its nearest value ("replicate"), its mirror image ("reflect") or its other side
("circular").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["stencil"]


def stencil(
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None = None,
    gate: Tensor | None = None,
    dilations: Sequence[int] = (1,),
    steps: int = 1,
    boundary: str = "replicate",
) -> Tensor:
    """One step and one dilation at a time. u (B, C, H, W), coefficients (K, C), source, gate as u or None -> as u."""
    state = u.double()
    for _ in range(steps):
        change = torch.zeros_like(state)
        for coefficient, dilation in zip(coefficients.double(), dilations, strict=True):
            change = change + coefficient.view(-1, 1, 1) * _laplacian(state, dilation, boundary)
        if gate is not None:
            change = gate.double() * change
        if source is not None:
            change = change + source.double()
        state = state + change
    return state.to(u.dtype)


def _laplacian(u: Tensor, d: int, boundary: str) -> Tensor:
    H, W = u.shape[2:]
    mode = "constant" if boundary == "zeros" else boundary
    padded = F.pad(u, (d, d, d, d), mode=mode)
    up, down = padded[:, :, :H, d : d + W], padded[:, :, 2 * d :, d : d + W]
    left, right = padded[:, :, d : d + H, :W], padded[:, :, d : d + H, 2 * d :]
    return up + down + left + right - 4 * u
