"""Vectorised torch: runs on any device, keeps nothing of size (B, K, T, H, D).

Both functions are one fused gather over rows: row (b, t) of the result is a bag of K rows of the operand, so
``embedding_bag`` reads every source row once per lag and never writes an intermediate. A numba kernel written for the
same loop was measured at 1.0 to 1.6 times this speed (``tests/performance/bench_delay_aggregate.py`` repeats it), below
the factor of two that a compiled back end must earn, so there is no ``cpu.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["delay_aggregate", "delay_correlation", "portable_delay_aggregate", "portable_delay_correlation"]

_FUSED_DEVICES = ("cpu", "cuda")


def delay_aggregate(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of circular shifts. values (B, T, H, D), lags and weights (B, K) -> (B, T, H, D).

    Time O(B K T H D); memory beyond the result O(B T K) for row numbers and weights.
    """
    if values.device.type not in _FUSED_DEVICES:
        return portable_delay_aggregate(values, lags, weights)
    B, T, H, D = values.shape
    per_row = weights.unsqueeze(1).expand(B, T, weights.shape[1]).reshape(B * T, -1)
    summed = F.embedding_bag(_rows(lags, T), values.reshape(B * T, H * D), mode="sum", per_sample_weights=per_row)
    return summed.view(B, T, H, D)


def delay_correlation(q: Tensor, k: Tensor, lags: Tensor) -> Tensor:
    """Mean product of q with k delayed. q and k (B, T, H, D), lags (B, K) -> (B, K).

    It is the gradient of a bag's weights with q as the incoming gradient, an operator that torch has, computed without
    products in memory. Time O(B K T H D); memory O(B T K).
    """
    if q.device.type not in _FUSED_DEVICES:
        return portable_delay_correlation(q, k, lags)
    B, T, H, D = q.shape
    K = lags.shape[1]
    bags = torch.arange(B * T, device=q.device)
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        q.reshape(B * T, H * D),
        k.reshape(B * T, H * D),
        _rows(-lags, T).reshape(-1),
        bags * K,
        bags.repeat_interleave(K),
        0,  # mode "sum"
    )
    return (products.view(B, T, K).sum(1, dtype=_sum_dtype(q.dtype)) / (H * D)).to(q.dtype)


def portable_delay_aggregate(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    """The same from the plainest operators, one lag at a time: for exporters and for devices without fused bags.

    Differentiable by autograd. Time O(B K T H D), memory O(B T H D) at a time.
    """
    B, T, H, D = values.shape
    flat = values.reshape(B * T, H * D)
    rows = _rows(lags, T)
    total = torch.zeros_like(flat)
    for i in range(lags.shape[1]):
        weight = weights[:, i].reshape(B, 1).expand(B, T).reshape(B * T, 1)
        total = total + weight * flat.index_select(0, rows[:, i])
    return total.reshape(B, T, H, D)


def portable_delay_correlation(q: Tensor, k: Tensor, lags: Tensor) -> Tensor:
    """The same from the plainest operators, one lag at a time. Time O(B K T H D), memory O(B T H D) at a time."""
    B, T, H, D = q.shape
    query, key = q.reshape(B * T, H * D), k.reshape(B * T, H * D)
    rows = _rows(-lags, T)
    entries = [
        (query * key.index_select(0, rows[:, i])).reshape(B, T * H * D).sum(1) / (H * D) for i in range(lags.shape[1])
    ]
    return torch.stack(entries, dim=1)


def _rows(lags: Tensor, T: int) -> Tensor:
    """(B T, K): the row of the flattened operand that lag i brings to (b, t), for lags (B, K) of any sign."""
    B, K = lags.shape
    device = lags.device
    step = torch.arange(T, device=device).view(1, T, 1) + torch.remainder(lags, T).view(B, 1, K)
    step = torch.where(step >= T, step - T, step)  # one wrap at most; a remainder of every entry costs five times this
    return (step + torch.arange(B, device=device).view(B, 1, 1) * T).reshape(B * T, K)


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums over time of half-width numbers are kept in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
