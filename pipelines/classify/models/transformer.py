"""A classifying Transformer over the steps of a series whose mixer is any sequence mechanism (ours, no paper's)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core_attention.positions import sinusoidal
from pipelines.classify.models.vsformer import Branch, MixerLayer, class_mixer

__all__ = ["SeriesTransformer"]


class SeriesTransformer(nn.Module):
    """Steps as tokens, pre-norm layers of a mixer and a feed-forward part, the mean over valid steps, a linear head.

    Args:
        channels: numbers a step. classes: C. length: steps of the longest training series, for mechanisms that need it.
        attention: any mechanism that mixes sequences.
        d_model: width. n_heads: heads. layers: layers. d_ff: feed-forward width.
        dropout: probability of dropping an activation in training.

    Raises:
        ConfigError: a mechanism that does not exist or does not mix sequences.

    Example:
        >>> model = SeriesTransformer(3, 2, length=10)
        >>> model(torch.randn(4, 10, 3), torch.ones(4, 10, dtype=torch.bool)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        length: int,
        attention: str = "softmax",
        d_model: int = 64,
        n_heads: int = 4,
        layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.embedding = nn.Linear(channels, d_model)
        self.dropout = nn.Dropout(dropout)
        mixers = [class_mixer(attention, d_model, n_heads, length=length) for _ in range(layers)]
        self.branch = Branch([MixerLayer(mixer, d_model, d_ff, dropout) for mixer in mixers], d_model)
        self.head = nn.Linear(d_model, classes)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, C) of steps x (B, T, channels); mask (B, T), True = recorded."""
        rows = self.embedding(x) + sinusoidal(x.shape[1], self.d_model).to(x)
        prior = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)  # for prior_enhanced: all steps alike
        return self.head(self.dropout(self.branch(self.dropout(rows), mask, prior)))
