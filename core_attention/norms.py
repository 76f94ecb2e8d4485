"""Normalisation layers that torch itself does not have."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import RMSNorm

__all__ = ["RMSNorm", "SeasonalLayerNorm"]


class SeasonalLayerNorm(nn.Module):
    """Layer normalisation minus its own mean over time, for the seasonal part of a series.

    Without it the norm would give the seasonal part a level, which belongs to the trend. O(T C).
    Source: Autoformer (arXiv 2106.13008), released code, the norm at the end of the encoder and of the decoder;
    the parameters keep its names ``layernorm.weight`` and ``layernorm.bias``.

    Args:
        dim: channels C.

    Example:
        >>> import torch
        >>> y = SeasonalLayerNorm(8)(torch.randn(2, 50, 8) + 3)
        >>> bool(y.mean(dim=1).abs().max() < 1e-5)
        True
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, T, C) to the same shape."""
        normed = self.layernorm(x)
        return normed - normed.mean(dim=1, keepdim=True)
