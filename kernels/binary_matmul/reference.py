"""Binary products as BiViT (arXiv:2211.07091, section 3) defines its layers.

    x_b = sign(x)        W_b = s sign(W - mean_row(W))        out = x_b W_b^T
    d sign(u) / du  :=  1 where |u| < 1, else 0               s = mean_row |W|, a constant, unless it is a parameter

The sign of zero is +1, so that a sign is one bit. In float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["binary_matmul"]


def binary_matmul(x: Tensor, weight: Tensor, scale: Tensor | None = None, *, centre: bool = True) -> Tensor:
    """x (..., K), weight (N, K), scale (N,) -> (..., N)."""
    wide = weight.double()
    factor = wide.abs().mean(1).detach() if scale is None else scale.double()
    if centre:
        wide = wide - wide.mean(1, keepdim=True)
    return (_sign(x.double()) @ (factor[:, None] * _sign(wide)).T).to(x.dtype)


def _sign(u: Tensor) -> Tensor:
    """+1 or -1, with the gradient of a straight line between -1 and 1."""
    value = torch.where(u.detach() < 0, -1.0, 1.0).to(u.dtype)
    return value + torch.where(u.detach().abs() < 1, u - u.detach(), 0.0)
