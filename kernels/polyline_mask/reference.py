"""The polyline-path mask from its definition (PPMA, arXiv:2506.15940), N x N numbers and all.

    L[i, j, k, l] = alpha[i, j:l] beta[i:k, l]      along the query's row, then the key's column
    M = L + L^T                                     L^T[i, j, k, l] = L[k, l, i, j]
    out = (M * (q k^T)) v

a[i:j] is the product of a over (min(i, j), max(i, j)]. In float64: slow, and right.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mask", "polyline_mask"]


def _products(decay: Tensor) -> Tensor:
    """(..., n) -> (..., n, n): entry (j, l) is the product over (min(j, l), max(j, l)]."""
    n = decay.shape[-1]
    onward = []
    for j in range(n):
        after = torch.cat([torch.ones_like(decay[..., :1]), decay[..., j + 1 :].cumprod(-1)], dim=-1)
        onward.append(torch.nn.functional.pad(after, (j, 0)))  # entry l >= j: the product over (j, l]
    upper = torch.stack(onward, dim=-2)
    return upper + upper.triu(1).mT


def mask(decay_h: Tensor, decay_v: Tensor) -> Tensor:
    """M of decays (B, rows, columns, H) -> (B, H, rows, columns, rows, columns), by query place and key place."""
    alpha = _products(decay_h.double().permute(0, 3, 1, 2))  # B, H, i, j, l
    beta = _products(decay_v.double().permute(0, 3, 2, 1))  # B, H, l, i, k
    path = torch.einsum("bhijl,bhlik->bhijkl", alpha, beta)
    return path + path.permute(0, 1, 4, 5, 2, 3)


def polyline_mask(q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor) -> Tensor:
    """q, k (B, rows, columns, H, D), v (..., Dv), decays (B, rows, columns, H) -> (B, rows, columns, H, Dv)."""
    scores = torch.einsum("bijhd,bklhd->bhijkl", q.double(), k.double())
    out = torch.einsum("bhijkl,bklhe->bijhe", mask(decay_h, decay_v) * scores, v.double())
    return out.to(q.dtype)
