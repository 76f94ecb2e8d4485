"""The pieces that Autoformer is made of (arXiv 2106.13008), under the released code's parameter names.

1x1 convolutions are matrix products on (B, L, C) whose parameters keep the shapes (out, in, 1); the circular
convolutions over three rows are one matrix product, on whichever side has fewer channels.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_attention.layers import SeriesDecomposition
from core_attention.norms import SeasonalLayerNorm
from core_attention.positions import sinusoidal

__all__ = [
    "CalendarTables",
    "CircularConv",
    "DataEmbedding",
    "Decoder",
    "DecoderLayer",
    "Embed",
    "Encoder",
    "EncoderLayer",
    "PointwiseConv",
]

Embed = Literal["timeF", "fixed", "learned"]

# Entries of the calendar tables, by the column of the marks that indexes them (embed "fixed" and "learned").
_TABLES = {"month": 13, "day": 32, "weekday": 7, "hour": 24, "minute": 4}


class PointwiseConv(nn.Module):
    """A 1x1 convolution without bias as a product over the last dimension: (B, L, in) -> (B, L, out).

    The weight has a convolution's shape (out, in, 1) and starts as `torch.nn.Conv1d` does.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Conv1d(inputs, outputs, 1, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Multiply each row by the weight."""
        return F.linear(x, self.weight.squeeze(-1))


class CircularConv(nn.Module):
    """A convolution over three rows that wraps around, no bias: (B, L, in) -> (B, L, out), weight (out, in, 3).

    y[t] = W_0 x[t-1] + W_1 x[t] + W_2 x[t+1], indices modulo L. The rows that are shifted are those with fewer
    channels: the inputs before one product, or the outputs after it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Conv1d(inputs, outputs, 3, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve over time."""
        outputs, inputs, _ = self.weight.shape
        if inputs <= outputs:
            rows = torch.stack([x.roll(1, dims=1), x, x.roll(-1, dims=1)], dim=-1)
            return F.linear(rows.flatten(-2), self.weight.flatten(1))
        before, here, after = F.linear(x, self.weight.permute(2, 0, 1).flatten(0, 1)).split(outputs, dim=-1)
        return before.roll(1, dims=1) + here + after.roll(-1, dims=1)


class TokenEmbedding(nn.Module):
    """Values to rows by a circular convolution, He-initialised for a leaky ReLU as in the released code."""

    def __init__(self, channels: int, d_model: int) -> None:
        super().__init__()
        self.tokenConv = CircularConv(channels, d_model)
        nn.init.kaiming_normal_(self.tokenConv.weight, mode="fan_in", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, L, M) as (B, L, d_model)."""
        return self.tokenConv(x)


class TimeFeatures(nn.Module):
    """Time features (and any other marks) to rows by one linear map without bias."""

    def __init__(self, marks: int, d_model: int) -> None:
        super().__init__()
        self.embed = nn.Linear(marks, d_model, bias=False)

    def forward(self, marks: Tensor) -> Tensor:
        """Embed (B, L, F) as (B, L, d_model)."""
        return self.embed(marks)


class FixedTable(nn.Module):
    """A table of sinusoids that is not trained; `emb.weight` in the state dict."""

    def __init__(self, entries: int, d_model: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(entries, d_model)
        self.emb.weight = nn.Parameter(sinusoidal(entries, d_model), requires_grad=False)

    def forward(self, index: Tensor) -> Tensor:
        """Look up (B, L) as (B, L, d_model)."""
        return self.emb(index)


class CalendarTables(nn.Module):
    """Sum of one table entry per calendar field; marks (B, L, 4 or 5) hold month, day, weekday, hour, quarter hour."""

    def __init__(self, d_model: int, *, fixed: bool, minutes: bool) -> None:
        super().__init__()
        self.fields = [name for name in _TABLES if name != "minute" or minutes]
        table: Callable[[int, int], nn.Module] = FixedTable if fixed else nn.Embedding
        for name in self.fields:
            self.add_module(f"{name}_embed", table(_TABLES[name], d_model))

    def forward(self, marks: Tensor) -> Tensor:
        """Embed whole numbers (B, L, 4 or 5) as (B, L, d_model)."""
        index = marks.long()
        rows = [self.get_submodule(f"{name}_embed")(index[..., i]) for i, name in enumerate(self.fields)]
        return torch.stack(rows).sum(0)


class DataEmbedding(nn.Module):
    """Values plus marks, with dropout: (B, L, M), (B, L, F) -> (B, L, d_model)."""

    def __init__(self, channels: int, d_model: int, marks: int, embed: Embed, dropout: float) -> None:
        super().__init__()
        self.value_embedding = TokenEmbedding(channels, d_model)
        self.temporal_embedding: nn.Module | None = None
        if embed != "timeF":
            self.temporal_embedding = CalendarTables(d_model, fixed=embed == "fixed", minutes=marks == 5)
        elif marks:
            self.temporal_embedding = TimeFeatures(marks, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, marks: Tensor) -> Tensor:
        """Embed a window."""
        rows = self.value_embedding(x)
        if self.temporal_embedding is not None:
            rows = rows + self.temporal_embedding(marks)
        return self.dropout(rows)

    def _load_from_state_dict(
        self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Pass over the released code's positional table, which nothing reads."""
        state_dict.pop(f"{prefix}position_embedding.pe", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class FeedForward(nn.Module):
    """conv2(act(conv1(x))) with dropout after both; keeps no parameters of its own, so that names stay the layer's."""

    def __init__(self, activation: str, dropout: float) -> None:
        super().__init__()
        self.activation = F.relu if activation == "relu" else F.gelu
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, conv1: PointwiseConv, conv2: PointwiseConv) -> Tensor:
        """Map (B, L, d_model) to the same shape."""
        return self.dropout(conv2(self.dropout(self.activation(conv1(x)))))


class EncoderLayer(nn.Module):
    """Mix, split off the trend, feed forward, split off the trend (section 3.1, equation 3)."""

    def __init__(
        self, attention: nn.Module, d_model: int, d_ff: int, moving_avg: int, dropout: float, activation: str
    ) -> None:
        super().__init__()
        self.attention = attention
        self.conv1 = PointwiseConv(d_model, d_ff)
        self.conv2 = PointwiseConv(d_ff, d_model)
        self.decomposition = SeriesDecomposition(moving_avg)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(activation, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, d_model) to the same shape."""
        x, _ = self.decomposition(x + self.dropout(self.attention(x).y))
        x, _ = self.decomposition(x + self.feed_forward(x, self.conv1, self.conv2))
        return x


class DecoderLayer(nn.Module):
    """As the encoder's, with mixing over the encoder's rows between, and the trends collected (equation 4)."""

    def __init__(
        self,
        self_attention: nn.Module,
        cross_attention: nn.Module,
        d_model: int,
        c_out: int,
        d_ff: int,
        moving_avg: int,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.conv1 = PointwiseConv(d_model, d_ff)
        self.conv2 = PointwiseConv(d_ff, d_model)
        self.projection = CircularConv(d_model, c_out)
        self.decomposition = SeriesDecomposition(moving_avg)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = FeedForward(activation, dropout)

    def forward(self, x: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Seasonal rows (B, T, d_model) and the trend that the layer split off, (B, T, c_out)."""
        x, trend1 = self.decomposition(x + self.dropout(self.self_attention(x).y))
        x, trend2 = self.decomposition(x + self.dropout(self.cross_attention(x, context=encoded).y))
        x, trend3 = self.decomposition(x + self.feed_forward(x, self.conv1, self.conv2))
        return x, self.projection(trend1 + trend2 + trend3)


class Encoder(nn.Module):
    """The encoder's layers and the norm after them."""

    def __init__(self, layers: list[EncoderLayer], d_model: int) -> None:
        super().__init__()
        self.attn_layers = nn.ModuleList(layers)
        self.norm = SeasonalLayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, d_model) to the same shape."""
        for layer in self.attn_layers:
            x = layer(x)
        return self.norm(x)


class Decoder(nn.Module):
    """The decoder's layers, the norm after them and the projection to series."""

    def __init__(self, layers: list[DecoderLayer], d_model: int, c_out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = SeasonalLayerNorm(d_model)
        self.projection = nn.Linear(d_model, c_out)

    def forward(self, x: Tensor, encoded: Tensor, trend: Tensor, rows: int) -> Tensor:
        """Season plus trend of the last `rows` rows: (B, rows, c_out)."""
        for layer in self.layers:
            x, more = layer(x, encoded)
            trend = trend + more
        # The norm needs every row (it takes off their mean); the projection only those that are given out.
        return self.projection(self.norm(x)[:, -rows:]) + trend[:, -rows:]
