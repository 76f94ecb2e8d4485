"""Softmax attention as its equations say it, one sample and one head at a time, in float64.

    s[t, j] = scale * temperature[t] * <q[t], k[j]> + bias[t, j]         over the keys j that query t may see
    out[t]  = sum_j exp(s[t, j]) v[j] / (exp(sink) + sum_j exp(s[t, j]))

The temperature is that of selective self-attention (arXiv:2411.12892), which multiplies rows of scores. The sink is the
extra key with zero value of arXiv:2502.06415 (attention bias), whose score is a learned number of the head. A query
that sees no key gets zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels.flash_softmax._band import band_of, visible_band

__all__ = ["flash_softmax"]


def flash_softmax(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | tuple[int, int] | None = None,
    key_mask: Tensor | None = None,
    bias: Tensor | None = None,
    query_temperature: Tensor | None = None,
    sink: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """q (B, T, H, D), k (B, S, G, D), v (B, S, G, Dv) -> (B, T, H, Dv); time and memory O(B H T S)."""
    B, T, H, D = q.shape
    S, G = k.shape[1], k.shape[2]
    scale = D**-0.5 if scale is None else scale
    by_place = visible_band(T, S, *band_of(causal, window), q.device)
    added = None if bias is None else bias.double().expand(B, H, T, S)
    samples = []
    for b in range(B):
        visible = by_place if key_mask is None else by_place & key_mask[b]
        heads = []
        for h in range(H):
            g = h // (H // G)
            scores = scale * (q[b, :, h].double() @ k[b, :, g].double().T)
            if query_temperature is not None:
                scores = scores * query_temperature[b, :, h, None].double()
            if added is not None:
                scores = scores + added[b, h]
            heads.append(_mean(scores, visible, v[b, :, g].double(), None if sink is None else sink[h].double()))
        samples.append(torch.stack(heads, dim=1))
    return torch.stack(samples).to(q.dtype)


def _mean(scores: Tensor, visible: Tensor, values: Tensor, sink: Tensor | None) -> Tensor:
    """Weighted mean of the values: scores (T, S), visible (T, S), values (S, Dv) -> (T, Dv)."""
    scores = scores.masked_fill(~visible, -torch.inf)
    highest = scores.detach().amax(dim=1, keepdim=True)
    if sink is not None:
        highest = torch.maximum(highest, sink.detach())
    highest = highest.masked_fill(highest == -torch.inf, 0.0)  # nothing to see: any finite number does
    weights = torch.exp(scores - highest)
    total = weights.sum(dim=1, keepdim=True)
    if sink is not None:
        total = total + torch.exp(sink - highest)
    return (weights @ values) / total.masked_fill(total == 0, 1.0)
