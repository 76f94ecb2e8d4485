"""Named peers of the benchmarks: published algorithms written out plainly from their equations, nothing optimised."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def plain_auto_correlation(q: Tensor, k: Tensor, v: Tensor, factor: float, training: bool) -> Tensor:
    """Auto-correlation as Autoformer (arXiv 2106.13008, equations 5 to 7) was released, a shift at a time.

    Every head and channel is correlated and transformed back; a lag is one roll of the values in training (lags shared
    by the batch) and one gather from the doubled values in evaluation (lags of each sample).

    Args:
        q, k, v: (B, L, H, D).
        factor: int(factor ln L) lags are kept.
        training: which of the two.

    Returns:
        (B, L, H, D).
    """
    batch, length, heads, channels = q.shape
    q, k, v = (tensor.permute(0, 2, 3, 1).contiguous() for tensor in (q, k, v))
    spectrum = torch.fft.rfft(q, dim=-1) * torch.fft.rfft(k, dim=-1).conj()
    correlation = torch.fft.irfft(spectrum, n=length, dim=-1)
    mean = correlation.mean(dim=1).mean(dim=1)
    count = int(factor * math.log(length))
    total = torch.zeros_like(v)
    if training:
        lags = mean.mean(dim=0).topk(count).indices
        weights = torch.stack([mean[:, lag] for lag in lags], dim=-1).softmax(dim=-1)
        for i in range(count):
            share = weights[:, i].view(batch, 1, 1, 1).repeat(1, heads, channels, length)
            total = total + torch.roll(v, -int(lags[i]), dims=-1) * share
    else:
        best, lags = mean.topk(count, dim=-1)
        weights = best.softmax(dim=-1)
        doubled = v.repeat(1, 1, 1, 2)
        places = torch.arange(length, device=v.device).view(1, 1, 1, length).repeat(batch, heads, channels, 1)
        for i in range(count):
            index = places + lags[:, i].view(batch, 1, 1, 1).repeat(1, heads, channels, length)
            share = weights[:, i].view(batch, 1, 1, 1).repeat(1, heads, channels, length)
            total = total + doubled.gather(-1, index) * share
    return total.permute(0, 3, 1, 2).contiguous()


class PlainAutoCorrelationLayer(nn.Module):
    """``plain_auto_correlation`` between four linear projections, C to C."""

    def __init__(self, dim: int, num_heads: int, factor: float) -> None:
        super().__init__()
        self.num_heads, self.factor = num_heads, factor
        self.query_projection, self.key_projection = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value_projection, self.out_projection = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix x (B, L, C) to the same shape."""
        batch, length, _ = x.shape
        shape = (batch, length, self.num_heads, -1)
        projections = (self.query_projection, self.key_projection, self.value_projection)
        q, k, v = (projection(x).view(shape) for projection in projections)
        mixed = plain_auto_correlation(q, k, v, self.factor, self.training)
        return self.out_projection(mixed.view(batch, length, -1))
