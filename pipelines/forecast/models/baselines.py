"""Forecasting rules without parameters, reported beside every trained model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError

__all__ = ["Drift", "RepeatLast", "SeasonalNaive"]


class RepeatLast(nn.Module):
    """Repeats the last value of each window: x (B, L, M) -> (B, H, M) (the "Repeat" rows of arXiv 2205.13504).

    Args:
        pred_len: H, rows to forecast.

    Example:
        >>> RepeatLast(2)(torch.tensor([[[1.0], [3.0]]])).flatten().tolist()
        [3.0, 3.0]
    """

    def __init__(self, pred_len: int) -> None:
        super().__init__()
        self.pred_len = pred_len

    def forward(self, x: Tensor) -> Tensor:
        """Forecast (B, H, M) from a window (B, L, M)."""
        return x[:, -1:, :].expand(-1, self.pred_len, -1).clone()


class SeasonalNaive(nn.Module):
    """Repeats the last season of each window: y[h] = x[L - s + (h mod s)]; x (B, L, M) -> (B, H, M).

    Args:
        seq_len: L, rows of a window.
        pred_len: H, rows to forecast.
        season: s, rows of a season (24 for hours in a day).

    Raises:
        ConfigError: the season is longer than the window.

    Example:
        >>> SeasonalNaive(3, 3, season=2)(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten().tolist()
        [2.0, 3.0, 2.0]
    """

    rows: Tensor

    def __init__(self, seq_len: int, pred_len: int, season: int) -> None:
        super().__init__()
        if not 1 <= season <= seq_len:
            raise ConfigError(
                "a season does not fit in the context",
                where="season",
                found=f"a season of {season} rows, a context of {seq_len}",
                expected="1 <= season <= context",
                cure="lengthen --context",
            )
        self.season = season
        rows = seq_len - season + torch.arange(pred_len) % season
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast (B, H, M) from a window (B, L, M)."""
        return x.index_select(1, self.rows)


class Drift(nn.Module):
    """Continues the line through the first and last value: x[L-1] + h (x[L-1] - x[0]) / (L - 1), h = 1..H.

    A window of one row has no slope and is repeated.

    Args:
        seq_len: L, rows of a window.
        pred_len: H, rows to forecast.

    Example:
        >>> Drift(3, 2)(torch.tensor([[[1.0], [0.0], [3.0]]])).flatten().tolist()
        [4.0, 5.0]
    """

    steps: Tensor

    def __init__(self, seq_len: int, pred_len: int) -> None:
        super().__init__()
        steps = torch.arange(1, pred_len + 1, dtype=torch.float64) / max(seq_len - 1, 1)
        self.register_buffer("steps", steps.to(torch.get_default_dtype())[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast (B, H, M) from a window (B, L, M)."""
        first, last = x[:, :1, :], x[:, -1:, :]
        return last + self.steps.to(x.dtype) * (last - first)
