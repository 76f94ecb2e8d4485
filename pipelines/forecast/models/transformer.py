"""A forecasting Transformer whose mixer is any sequence mechanism of `core_attention` (ours, no paper's)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from core_attention.layers import FeedForward
from core_attention.positions import sinusoidal
from pipelines.forecast.models.mixers import sequence_mixer

__all__ = ["MixerBlock", "MixerTransformer"]

Normalise = Literal["last", "window", "none"]

_LEAST_DEVIATION = 1e-2  # in units of the training rows' deviation: a flat window is not blown up


class MixerBlock(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x)); (B, T, d_model) to the same shape."""

    def __init__(self, mixer: nn.Module, d_model: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.mixer = mixer
        self.feed_forward = FeedForward(d_model, d_ff, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Mix rows, then channels."""
        x = x + self.dropout(self.mixer(self.norm1(x)).y)
        return x + self.feed_forward(self.norm2(x))


class MixerTransformer(nn.Module):
    """An encoder over L context rows and H horizon rows; the horizon rows are read out as the forecast.

    A context row is embedded from its targets, past covariates and marks; a horizon row from its marks and a learned
    placeholder. All rows get sinusoidal positions and pass the same pre-norm blocks of a mixer and a feed-forward part.

    Args:
        context: L. horizon: H. targets: C. past: P. marks: F.
        attention: any mechanism that mixes sequences (`core_attention.names(kind="mixer", grid=1)`).
        d_model: width. n_heads: heads. e_layers: blocks. d_ff: feed-forward width.
        dropout: probability of dropping an activation in training.
        normalise: what is taken off a window and added to the forecast again: its last row ("last"), its mean and
            deviation ("window"), or nothing ("none").

    Raises:
        ConfigError: no such mechanism, or one that does not mix sequences.

    Time O((L + H) d_model (d_model + d_ff)) plus the mechanism's own.

    Example:
        >>> model = MixerTransformer(24, 6, targets=2, marks=4)
        >>> marks = torch.zeros(3, 30, 4)
        >>> model(torch.randn(3, 24, 2), marks[:, :24], marks[:, 24:], torch.zeros(3, 24, 0)).shape
        torch.Size([3, 6, 2])
    """

    def __init__(
        self,
        context: int,
        horizon: int,
        targets: int,
        past: int = 0,
        marks: int = 0,
        *,
        attention: str = "softmax",
        d_model: int = 64,
        n_heads: int = 4,
        e_layers: int = 2,
        d_ff: int = 128,
        dropout: float = 0.1,
        normalise: Normalise = "last",
    ) -> None:
        super().__init__()
        self.context, self.horizon, self.d_model, self.normalise = context, horizon, d_model, normalise
        self.values = nn.Linear(targets + past, d_model)
        self.marks = nn.Linear(marks, d_model, bias=False) if marks else None
        self.placeholder = nn.Parameter(torch.randn(d_model) * 0.02)
        self.dropout = nn.Dropout(dropout)
        length = context + horizon
        self.blocks = nn.ModuleList(
            MixerBlock(sequence_mixer(attention, d_model, n_heads, length=length), d_model, d_ff, dropout)
            for _ in range(e_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, targets)

    def forward(self, x: Tensor, x_mark: Tensor, y_mark: Tensor, past: Tensor) -> Tensor:
        """Forecast (B, H, C).

        Args:
            x: targets (B, L, C).
            x_mark: marks of the window (B, L, F).
            y_mark: marks of the horizon (B, H, F).
            past: past covariates (B, L, P).
        """
        level, scale = self._level(x)
        rows = self._embed((x - level) / scale, x_mark, y_mark, past)
        for block in self.blocks:
            rows = block(rows)
        return self.head(self.norm(rows[:, self.context :])) * scale + level

    def _level(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is taken off and divided by, each (B, 1, C)."""
        if self.normalise == "window":
            return x.mean(1, keepdim=True), x.std(1, keepdim=True, unbiased=False).clamp_min(_LEAST_DEVIATION)
        last = x[:, -1:]
        return (last if self.normalise == "last" else torch.zeros_like(last)), torch.ones_like(last)

    def _embed(self, x: Tensor, x_mark: Tensor, y_mark: Tensor, past: Tensor) -> Tensor:
        known = self.values(torch.cat([x, past], dim=2))
        ahead = self.placeholder.expand(x.shape[0], self.horizon, -1)
        rows = torch.cat([known, ahead], dim=1)
        if self.marks is not None:
            rows = rows + self.marks(torch.cat([x_mark, y_mark], dim=1))
        places = sinusoidal(self.context + self.horizon, self.d_model).to(rows)
        return self.dropout(rows + places)
