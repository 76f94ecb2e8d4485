"""Linear, NLinear and DLinear of arXiv 2205.13504, with the released code's state-dict names.

One linear map from the window's L rows to the horizon's H rows, shared by all series or one per series (`individual`).
Individual weights are one (M, H, L) parameter and one batched product; `state_dict` writes them, and reads them, one
series at a time (`Linear.0.weight`, `Linear.1.weight`, ...) as the released code does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core_attention.layers import SeriesDecomposition
from pipelines.errors import WeightsError
from pipelines.official import agree, check_shapes

__all__ = ["DLinear", "Linear", "NLinear", "SeriesLinear", "from_official", "window_counts"]


class SeriesLinear(nn.Module):
    """One linear map per series: x (B, M, L) -> (B, M, H) with weight (M, H, L) and bias (M, H).

    Args:
        series: M, number of series.
        in_features: L.
        out_features: H.

    Each map starts as `torch.nn.Linear` does, uniform within 1 / sqrt(L). Time and memory O(B M L H).

    Example:
        >>> layer = SeriesLinear(2, 4, 3)
        >>> layer(torch.zeros(5, 2, 4)).shape, sorted(layer.state_dict())
        (torch.Size([5, 2, 3]), ['0.bias', '0.weight', '1.bias', '1.weight'])
    """

    def __init__(self, series: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(in_features)
        self.series = series
        self.weight = nn.Parameter(torch.empty(series, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(series, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map each series by its own weights."""
        product = torch.baddbmm(self.bias[:, None, :], x.transpose(0, 1), self.weight.transpose(1, 2))
        return product.transpose(0, 1)

    def _save_to_state_dict(self, destination: MutableMapping[str, Any], prefix: str, keep_vars: bool) -> None:
        for index, (weight, bias) in enumerate(zip(self.weight.unbind(0), self.bias.unbind(0), strict=True)):
            destination[f"{prefix}{index}.weight"] = weight if keep_vars else weight.detach()
            destination[f"{prefix}{index}.bias"] = bias if keep_vars else bias.detach()

    def _load_from_state_dict(
        self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Join the pieces before the usual loading; a missing or misshapen piece is left for it to report."""
        for name in ("weight", "bias"):
            keys = [f"{prefix}{index}.{name}" for index in range(self.series)]
            pieces = [state_dict[key] for key in keys if key in state_dict]
            if len(pieces) == self.series and len({piece.shape for piece in pieces}) == 1:
                for key in keys:
                    del state_dict[key]
                state_dict[f"{prefix}{name}"] = torch.stack(pieces)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _time_map(seq_len: int, pred_len: int, enc_in: int, individual: bool) -> nn.Linear | SeriesLinear:
    return SeriesLinear(enc_in, seq_len, pred_len) if individual else nn.Linear(seq_len, pred_len)


class Linear(nn.Module):
    """One linear map over time, y = W x + b (arXiv 2205.13504, section 4); x (B, L, M) -> (B, H, M).

    Args:
        seq_len: L, rows of a window.
        pred_len: H, rows to forecast.
        enc_in: M, number of series; needed when `individual`.
        individual: one map per series.

    Parameters H (L + 1), times M when individual. Time O(B M L H).

    Example:
        >>> sum(p.numel() for p in Linear(336, 96).parameters())
        32352
    """

    def __init__(self, seq_len: int, pred_len: int, enc_in: int = 1, individual: bool = False) -> None:
        super().__init__()
        self.seq_len, self.pred_len, self.enc_in, self.individual = seq_len, pred_len, enc_in, individual
        self.Linear = _time_map(seq_len, pred_len, enc_in, individual)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast (B, H, M) from a window (B, L, M)."""
        return self.Linear(x.transpose(1, 2)).transpose(1, 2)


class NLinear(Linear):
    """The map of the window less its last value, which is added again: y = W (x - x_L) + b + x_L.

    Shifting the window by a constant shifts the forecast by it. Arguments and cost as `Linear`.

    Example:
        >>> model, x = NLinear(8, 2), torch.randn(1, 8, 1)
        >>> torch.allclose(model(x + 5.0), model(x) + 5.0, atol=1e-5)
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Forecast (B, H, M) from a window (B, L, M)."""
        last = x[:, -1:, :].detach()
        return super().forward(x - last) + last


def window_counts(length: int, window: int) -> Tensor:
    """N (L, L): how often row j is counted in the window around row i, the end rows repeated beyond the ends.

    N x / window is the moving average of x; the counts are whole, so exact in every dtype.

    Example:
        >>> window_counts(3, 3).int().tolist()
        [[2, 1, 0], [1, 1, 1], [0, 1, 2]]
    """
    half = (window - 1) // 2
    rows = torch.arange(length)[:, None]
    columns = (rows + torch.arange(-half, half + 1)).clamp(0, length - 1)
    return torch.zeros(length, length).scatter_add_(1, columns, torch.ones(columns.shape))


class DLinear(nn.Module):
    """One map for the trend and one for the rest: y = W_s (x - K x) + b_s + W_t K x + b_t.

    K is the moving average over `moving_avg` rows. With shared weights the two maps are joined into
    W_s + (W_t - W_s) K before they meet the data, which is the same function and makes the moving average free.

    Args:
        seq_len: L, rows of a window.
        pred_len: H, rows to forecast.
        enc_in: M, number of series; needed when `individual`.
        individual: one pair of maps per series.
        moving_avg: rows of the moving average, odd.

    x (B, L, M) -> (B, H, M). Parameters 2 H (L + 1), times M when individual. Time O(H L^2 + B M L H) shared.
    Source: arXiv 2205.13504, section 4.

    Example:
        >>> sum(p.numel() for p in DLinear(336, 96).parameters())
        64704
    """

    counts: Tensor | None

    def __init__(
        self, seq_len: int, pred_len: int, enc_in: int = 1, individual: bool = False, moving_avg: int = 25
    ) -> None:
        super().__init__()
        self.seq_len, self.pred_len, self.enc_in, self.individual = seq_len, pred_len, enc_in, individual
        self.decomposition = SeriesDecomposition(moving_avg)
        self.Linear_Seasonal = _time_map(seq_len, pred_len, enc_in, individual)
        self.Linear_Trend = _time_map(seq_len, pred_len, enc_in, individual)
        counts = None if individual else window_counts(seq_len, moving_avg)
        self.register_buffer("counts", counts, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast (B, H, M) from a window (B, L, M)."""
        if self.counts is None:
            seasonal, trend = self.decomposition(x)
            y = self.Linear_Seasonal(seasonal.transpose(1, 2)) + self.Linear_Trend(trend.transpose(1, 2))
            return y.transpose(1, 2)
        seasonal_weight, trend_weight = self.Linear_Seasonal.weight, self.Linear_Trend.weight
        between = trend_weight - seasonal_weight
        weight = torch.addmm(seasonal_weight, between, self.counts, alpha=1.0 / self.decomposition.window)
        return F.linear(x.transpose(1, 2), weight, self.Linear_Seasonal.bias + self.Linear_Trend.bias).transpose(1, 2)


_CLASSES: dict[str, type[Linear] | type[DLinear]] = {"linear": Linear, "nlinear": NLinear, "dlinear": DLinear}
_FIRST_MAP = {"linear": "Linear", "nlinear": "Linear", "dlinear": "Linear_Seasonal"}


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    name: str,
    seq_len: int | None = None,
    label_len: int | None = None,
    pred_len: int | None = None,
    enc_in: int | None = None,
    individual: bool | int | None = None,
    moving_avg: int = 25,
) -> Linear | DLinear:
    """The Linear, NLinear or DLinear of a released state dict, in eval mode; x (B, L, M) -> (B, H, M).

    Sizes are read off the tensors, and what is given is held against them.

    Args:
        state_dict: tensors by the released names.
        name: "linear", "nlinear" (same names and shapes, another forward) or "dlinear".
        seq_len: L. label_len: set by the released command line, not read by these models. pred_len: H.
        enc_in: M. individual: one map per series.
        moving_avg: DLinear's moving average, which the released code fixes at 25 rows.

    Raises:
        WeightsError: tensors missing, unexpected or of other shapes, or an argument that they contradict.

    Example:
        >>> from_official(DLinear(30, 2, enc_in=3, individual=True).state_dict(), name="dlinear", enc_in=3).individual
        True
    """
    del label_len
    first = _FIRST_MAP[name]
    single = f"{first}.0.weight" in state_dict
    weight = state_dict.get(f"{first}.0.weight" if single else f"{first}.weight")
    if weight is None or weight.ndim != 2:
        raise WeightsError(
            f"not a state dict of {name}",
            found=", ".join(list(state_dict)[:4]) or "no tensor",
            expected=f"{first}.weight or {first}.0.weight, of two dimensions",
        )
    agree("seq_len", seq_len, weight.shape[1])
    agree("pred_len", pred_len, weight.shape[0])
    agree("individual", None if individual is None else bool(individual), single)
    if single:
        series = sum(key.startswith(f"{first}.") and key.endswith(".weight") for key in state_dict)
        enc_in = agree("enc_in", enc_in, series)
    options = {"moving_avg": moving_avg} if name == "dlinear" else {}
    model = _CLASSES[name](weight.shape[1], weight.shape[0], enc_in or 1, single, **options)
    model.load_state_dict(check_shapes(model, state_dict, name=name))
    return model.eval()
