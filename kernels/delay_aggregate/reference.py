"""Delay aggregation and correlation as the equations of Autoformer (arXiv:2106.13008, section 3.2) say them.

    aggregate(v)[t]  = sum_i  w_i  v[(t + lag_i) mod T]                          equation 6, time-delay aggregation
    correlation[i]   = 1/(H D)  sum_t  <q[t], k[(t - lag_i) mod T]>              equation 5, per chosen delay

One sample and one lag at a time, in float64: slow, and right.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["delay_aggregate", "delay_correlation"]


def delay_aggregate(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of circular shifts. values (B, T, H, D), lags and weights (B, K) -> (B, T, H, D); O(B K T H D)."""
    samples = []
    for value, lag, weight in zip(values.double(), lags.tolist(), weights.double(), strict=True):
        total = torch.zeros_like(value)
        for i, delay in enumerate(lag):
            total = total + weight[i] * torch.roll(value, -delay, dims=0)  # row t holds value[(t + delay) mod T]
        samples.append(total)
    return torch.stack(samples).to(values.dtype)


def delay_correlation(q: Tensor, k: Tensor, lags: Tensor, scale: float | None = None) -> Tensor:
    """Product of q with k delayed, times scale, by default 1/(H D). q, k (B, T, H, D), lags (B, K) -> (B, K)."""
    scale = 1 / (q.shape[2] * q.shape[3]) if scale is None else scale
    samples = []
    for query, key, lag in zip(q.double(), k.double(), lags.tolist(), strict=True):
        entries = [
            (query * torch.roll(key, delay, dims=0)).sum() for delay in lag
        ]  # row t holds key[(t - delay) mod T]
        samples.append(torch.stack(entries) * scale)
    return torch.stack(samples).to(q.dtype)
