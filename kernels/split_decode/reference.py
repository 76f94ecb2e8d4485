"""The equation itself: every query's softmax over the keys it may see, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["split_decode"]


def split_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """o[b, t, h] = sum_j softmax_j(scale q[b, t, h] . k[b, j, g]) v[b, j, g] over the visible j, with g = h G // H."""
    B, T, H, D = q.shape
    S, G = k.shape[1:3]
    query, key, value = q.double(), k.double(), v.double()
    scale = D**-0.5 if scale is None else scale
    group = torch.arange(H, device=q.device) * G // H  # the key head of every query head
    samples = []
    for b in range(B):
        length = S if lengths is None else min(int(lengths[b]), S)
        steps = []
        for t in range(T):
            visible = max(0, length - T + t + 1) if causal else length
            if visible == 0:
                steps.append(query[b, t] * 0)
                continue
            keys, values = key[b, :visible, group], value[b, :visible, group]  # (visible, H, D)
            weights = torch.softmax(torch.einsum("hd,shd->hs", query[b, t], keys) * scale, dim=-1)
            steps.append(torch.einsum("hs,shd->hd", weights, values))
        samples.append(torch.stack(steps))
    return torch.stack(samples).to(q.dtype)
