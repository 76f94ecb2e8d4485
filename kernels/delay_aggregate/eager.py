"""Vectorised torch: runs on any device, keeps nothing of size (B, K, T, H, D).

Both functions are one fused gather over rows: row (b, t) of the result is a bag of K rows of the operand, so
``embedding_bag`` reads every source row once per lag and never writes an intermediate.

There is no ``cpu.py``: compiled loops were measured to take 0.56 to 0.72 (aggregate) and 0.48 to 0.62 (correlation) of
eager's time (one thread, its own CPU time, d_model 512, T = 96 and 720, vector instructions written out with the sums
in registers), and the house asks for half: both sides wait for the sequence to come from the caches.
`bench_delay_aggregate.py --pair-only` repeats it.
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


def delay_correlation(q: Tensor, k: Tensor, lags: Tensor, scale: float | None = None) -> Tensor:
    """Product of q with k delayed, times scale, by default 1/(H D). q and k (B, T, H, D), lags (B, K) -> (B, K).

    It is the gradient of a bag's weights with q as the incoming gradient, an operator that torch has, computed without
    products in memory; it rounds every step's product, so half-width operands are widened first. Time O(B K T H D);
    memory O(B T K), and for half-width operands a copy of both.
    """
    if q.device.type not in _FUSED_DEVICES:
        return portable_delay_correlation(q, k, lags, scale)
    B, T, H, D = q.shape
    K = lags.shape[1]
    dtype, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)
    q, k = q.to(wide), k.to(wide)
    bags = torch.arange(B * T, device=q.device)
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        q.reshape(B * T, H * D),
        k.reshape(B * T, H * D),
        _rows(-lags, T).reshape(-1),
        bags * K,
        bags.repeat_interleave(K),
        0,  # mode "sum"
    )
    return (products.view(B, T, K).sum(1) * (1 / (H * D) if scale is None else scale)).to(dtype)


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


def portable_delay_correlation(q: Tensor, k: Tensor, lags: Tensor, scale: float | None = None) -> Tensor:
    """The same from the plainest operators, one lag at a time. Time O(B K T H D), memory O(B T H D) at a time."""
    B, T, H, D = q.shape
    query, key = q.reshape(B * T, H * D), k.reshape(B * T, H * D)
    rows = _rows(-lags, T)
    scale = 1 / (H * D) if scale is None else scale
    entries = [
        (query * key.index_select(0, rows[:, i])).reshape(B, T * H * D).sum(1) * scale for i in range(lags.shape[1])
    ]
    return torch.stack(entries, dim=1)


def _rows(lags: Tensor, T: int) -> Tensor:
    """(B T, K): the row of the flattened operand that lag i brings to (b, t), for lags (B, K) of any sign."""
    B, K = lags.shape
    device = lags.device
    step = torch.arange(T, device=device).view(1, T, 1) + torch.remainder(lags, T).view(B, 1, K)
    step = torch.where(step >= T, step - T, step)  # one wrap at most; a remainder of every entry costs five times this
    return (step + torch.arange(B, device=device).view(B, 1, 1) * T).reshape(B * T, K)
