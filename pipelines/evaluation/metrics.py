"""Errors of point and interval forecasts, summed in float64 so that any split into batches gives the same figure.

Shapes: B windows, H steps of the horizon, C channels (target columns). Nothing here imports torch; CPU tensors are
accepted wherever an array is, through NumPy's array protocol.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError, RunError

Floats = NDArray[np.float64]

__all__ = [
    "ErrorSums",
    "Mase",
    "MaseSums",
    "coverage",
    "crps_from_quantiles",
    "crps_weights",
    "interval_score",
    "pearson",
    "pinball",
    "seasonal_scale",
    "window_errors",
]


def _checked(pred: ArrayLike, truth: ArrayLike, observed: ArrayLike | None) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return errors (zero where unobserved), their sizes and the mask; refuse shapes that would broadcast."""
    forecast, target = np.asarray(pred, np.float64), np.asarray(truth, np.float64)
    if forecast.shape != target.shape:
        raise InputError("forecast and truth differ in shape", found=forecast.shape, expected=target.shape)
    seen = np.isfinite(target) if observed is None else np.asarray(observed, bool)
    if seen.shape != target.shape:
        raise InputError("the observed mask does not fit the truth", found=seen.shape, expected=target.shape)
    if observed is not None and not np.isfinite(target[seen]).all():
        raise InputError(
            "the truth holds NaN or infinity at places marked as observed",
            found=f"{int((~np.isfinite(target[seen])).sum())} values",
            cure="mark them as unobserved",
        )
    if not np.isfinite(forecast[seen]).all():
        bad = int((~np.isfinite(forecast[seen])).sum())
        raise RunError(f"the forecast holds {bad} NaN or infinite values of {int(seen.sum())}: no error can be formed")
    errors = np.where(seen, forecast, 0.0) - np.where(seen, target, 0.0)
    return errors, np.abs(errors), seen


def _ratio(total: Any, count: Any) -> Any:
    """Divide, giving NaN (never a warning or an infinity) where nothing was counted."""
    total, count = np.asarray(total, np.float64), np.asarray(count, np.float64)
    return np.divide(total, count, out=np.full(np.broadcast_shapes(total.shape, count.shape), np.nan), where=count > 0)


class ErrorSums:
    """Squared and absolute error sums per step and channel, with the number of observed values behind each.

    Memory is O(H C) whatever the number of windows; an update costs O(B H C). Sums are float64.

    Args:
        horizon: number of forecast steps H.
        channels: number of target columns C.

    Raises:
        InputError: shapes that do not fit, or a truth that is NaN where it is marked as observed.
        RunError: a forecast that is NaN or infinite.

    Example:
        >>> import numpy as np
        >>> sums = ErrorSums(horizon=2, channels=1)
        >>> sums.update(np.zeros((1, 2, 1)), np.array([[[1.0], [3.0]]]))
        >>> sums.mse(), sums.mae()
        (5.0, 2.0)
        >>> sums.by_horizon()["mae"].tolist()
        [1.0, 3.0]
    """

    def __init__(self, horizon: int, channels: int) -> None:
        if horizon < 1 or channels < 1:
            raise InputError("nothing to count", found=(horizon, channels), expected="horizon >= 1 and channels >= 1")
        self.squared: Floats = np.zeros((horizon, channels))
        self.absolute: Floats = np.zeros((horizon, channels))
        self.count: NDArray[np.int64] = np.zeros((horizon, channels), np.int64)
        self.windows = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(H, C)."""
        horizon, channels = self.squared.shape
        return horizon, channels

    def update(self, pred: ArrayLike, truth: ArrayLike, observed: ArrayLike | None = None) -> None:
        """Add B windows: pred, truth (B, H, C), observed (B, H, C) bool; without a mask, a NaN truth is unobserved."""
        errors, absolute, seen = _checked(pred, truth, observed)
        if errors.shape[1:] != self.shape:
            raise InputError("the windows do not fit these sums", found=errors.shape, expected=("B", *self.shape))
        self.squared += np.square(errors).sum(axis=0)
        self.absolute += absolute.sum(axis=0)
        self.count += seen.sum(axis=0)
        self.windows += len(errors)

    def merge(self, other: ErrorSums) -> ErrorSums:
        """Add the sums of another part of the same evaluation (a batch, a series, a process) and return self."""
        if other.shape != self.shape:
            raise InputError("sums of different shape", found=other.shape, expected=self.shape)
        self.squared += other.squared
        self.absolute += other.absolute
        self.count += other.count
        self.windows += other.windows
        return self

    def mse(self) -> float:
        """Mean squared error over all observed values (NaN if there are none)."""
        return float(_ratio(self.squared.sum(), self.count.sum()))

    def mae(self) -> float:
        """Mean absolute error over all observed values (NaN if there are none)."""
        return float(_ratio(self.absolute.sum(), self.count.sum()))

    def by_horizon(self) -> dict[str, Floats]:
        """Errors per step: `mse`, `mae` and `count`, each (H,)."""
        return self._along(1)

    def by_channel(self) -> dict[str, Floats]:
        """Errors per target column: `mse`, `mae` and `count`, each (C,)."""
        return self._along(0)

    def _along(self, axis: int) -> dict[str, Floats]:
        count = self.count.sum(axis=axis)
        return {
            "mse": _ratio(self.squared.sum(axis=axis), count),
            "mae": _ratio(self.absolute.sum(axis=axis), count),
            "count": count.astype(np.float64),
        }


def window_errors(pred: ArrayLike, truth: ArrayLike, observed: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return the mean squared and mean absolute error of each window, both (B,): the input of the bootstrap.

    A window without one observed value is NaN. Cost O(B H C).

    Example:
        >>> import numpy as np
        >>> window_errors(np.zeros((1, 2, 1)), np.array([[[1.0], [3.0]]]))[0].tolist()
        [5.0]
    """
    errors, absolute, seen = _checked(pred, truth, observed)
    axes = tuple(range(1, errors.ndim))
    count = seen.sum(axis=axes)
    return _ratio(np.square(errors).sum(axis=axes), count), _ratio(absolute.sum(axis=axes), count)


class Mase(NamedTuple):
    """Mean absolute scaled error: the value, one per (series, channel), and how many had no scale and were left out."""

    value: float
    by_channel: Floats
    excluded: int


def seasonal_scale(train: ArrayLike, season: int = 1, observed: ArrayLike | None = None) -> Floats:
    """Return the in-sample mean absolute error of the seasonal naive forecast per channel, (C,): MASE's denominator.

    Args:
        train: training rows (T, C), in the same scale as the errors it will divide.
        season: season length in rows; 1 is the plain naive forecast.
        observed: (T, C) bool; a difference counts where both of its ends are observed. Default: where train is not NaN.

    Returns:
        (C,); 0 for a channel that repeats itself exactly, NaN for one without a single difference.

    Raises:
        InputError: season < 1 or not fewer than T rows.

    Source: Hyndman and Koehler (2006), section 2.4; season as in the M4 competition.

    Example:
        >>> seasonal_scale([[0.0], [2.0], [1.0]], season=1).tolist()
        [1.5]
    """
    rows = np.asarray(train, np.float64)
    if season < 1 or season >= len(rows):
        raise InputError(
            "the season does not fit the training rows", found=season, expected=f"1 to {len(rows) - 1} rows"
        )
    seen = np.isfinite(rows) if observed is None else np.asarray(observed, bool)
    both = seen[season:] & seen[:-season]
    steps = np.abs(np.where(seen, rows, 0.0)[season:] - np.where(seen, rows, 0.0)[:-season])
    return _ratio(np.where(both, steps, 0.0).sum(axis=0), both.sum(axis=0))


class MaseSums:
    """Absolute errors per (series, channel), each divided by its own seasonal naive error at the end.

    Args:
        scales: (S, C) from `seasonal_scale`, one row a series; zero or NaN: that channel is excluded and counted.

    Example:
        >>> import numpy as np
        >>> sums = MaseSums(np.array([[2.0, 0.0]]))
        >>> sums.update(np.zeros((1, 1, 2)), np.ones((1, 1, 2)), series=[0])
        >>> result = sums.result()
        >>> result.value, result.excluded
        (0.5, 1)
    """

    def __init__(self, scales: ArrayLike) -> None:
        self.scales: Floats = np.atleast_2d(np.asarray(scales, np.float64))
        self.absolute: Floats = np.zeros_like(self.scales)
        self.count: NDArray[np.int64] = np.zeros(self.scales.shape, np.int64)

    def update(
        self, pred: ArrayLike, truth: ArrayLike, observed: ArrayLike | None = None, *, series: ArrayLike
    ) -> None:
        """Add B windows (B, H, C); series (B,) says to which row of the scales each belongs."""
        _, absolute, seen = _checked(pred, truth, observed)
        rows = np.asarray(series, np.int64)
        np.add.at(self.absolute, rows, absolute.sum(axis=1))
        np.add.at(self.count, rows, seen.sum(axis=1))

    def result(self) -> Mase:
        """Return the mean over all (series, channel) pairs that have a scale and an observed value."""
        usable = (self.scales > 0) & (self.count > 0)
        means = _ratio(self.absolute, self.count)
        scaled = np.divide(means, self.scales, out=np.full_like(means, np.nan), where=usable)
        value = float(scaled[usable].mean()) if usable.any() else float("nan")
        return Mase(value, scaled, int((~usable).sum()))


def pinball(quantile: ArrayLike, truth: ArrayLike, level: ArrayLike) -> Floats:
    """Return the pinball loss max(level (y - q), (level - 1) (y - q)), elementwise with broadcasting.

    Source: Koenker and Bassett (1978).

    Example:
        >>> float(pinball(0.0, 2.0, 0.75)), float(pinball(2.0, 0.0, 0.75))
        (1.5, 0.5)
    """
    gap = np.asarray(truth, np.float64) - np.asarray(quantile, np.float64)
    tau = np.asarray(level, np.float64)
    return np.maximum(tau * gap, (tau - 1.0) * gap)


def crps_weights(levels: ArrayLike) -> Floats:
    """Return the share of (0, 1) that each quantile level stands for, (Q,): cells end midway between neighbours.

    Levels (i - 1/2) / Q give equal weights, so that the weighted mean is the plain mean; an uneven grid (with 0.025
    and 0.975 in it) does not count its dense end twice.

    Raises:
        InputError: levels that do not rise strictly inside (0, 1).

    Example:
        >>> crps_weights([0.25, 0.75]).tolist()
        [0.5, 0.5]
    """
    grid = np.asarray(levels, np.float64)
    if grid.ndim != 1 or not len(grid) or grid[0] <= 0 or grid[-1] >= 1 or (np.diff(grid) <= 0).any():
        raise InputError("quantile levels must rise strictly inside (0, 1)", found=grid.tolist())
    return np.diff(np.concatenate([[0.0], (grid[1:] + grid[:-1]) / 2, [1.0]]))


def crps_from_quantiles(quantiles: ArrayLike, levels: ArrayLike, truth: ArrayLike) -> Floats:
    """Return the continuous ranked probability score, approximated as twice the mean pinball loss over the levels.

    Args:
        quantiles: (..., Q) forecast quantiles in the unit of the truth.
        levels: (Q,) rising inside (0, 1).
        truth: (...).

    Returns:
        (...), in the unit of the truth; lower is better. With one level 0.5 it is the absolute error.

    Source: Gneiting and Raftery (2007), section 4.2; the quantile form as in Laio and Tamea (2007), equation 5.

    Example:
        >>> float(crps_from_quantiles([3.0], [0.5], 1.0))
        2.0
    """
    losses = pinball(quantiles, np.asarray(truth, np.float64)[..., None], levels)
    return 2.0 * (losses * crps_weights(levels)).sum(axis=-1)


def interval_score(lo: ArrayLike, hi: ArrayLike, truth: ArrayLike, level: float) -> Floats:
    """Return width + 2 / (1 - level) times the distance of the truth outside the interval, elementwise.

    Source: Gneiting and Raftery (2007), equation 43.

    Example:
        >>> float(interval_score(0.0, 1.0, 2.0, level=0.75))  # width 1, outside by 1, factor 8
        9.0
    """
    low, high, target = (np.asarray(part, np.float64) for part in (lo, hi, truth))
    outside = np.maximum(low - target, 0.0) + np.maximum(target - high, 0.0)
    return high - low + outside * (2.0 / (1.0 - float(level)))


def coverage(lo: ArrayLike, hi: ArrayLike, truth: ArrayLike, observed: ArrayLike | None = None) -> float:
    """Return the share of observed values inside [lo, hi], ends included; NaN where nothing is observed.

    Example:
        >>> coverage([0.0, 0.0], [1.0, 1.0], [0.5, 3.0])
        0.5
    """
    target = np.asarray(truth, np.float64)
    seen = np.isfinite(target) if observed is None else np.asarray(observed, bool)
    inside = (np.asarray(lo, np.float64) <= target) & (target <= np.asarray(hi, np.float64))
    return float(_ratio((inside & seen).sum(), seen.sum()))


def pearson(pred: ArrayLike, truth: ArrayLike, observed: ArrayLike | None = None) -> Floats:
    """Return Pearson's correlation of forecast and truth per channel, (C,), over all windows and steps.

    Args:
        pred, truth: (..., C); observed: same shape, bool.

    Returns:
        (C,) in [-1, 1]; NaN for a channel that is constant or has fewer than two observed values.

    Example:
        >>> pearson([[0.0], [1.0], [2.0]], [[1.0], [3.0], [5.0]]).round(6).tolist()
        [1.0]
    """
    _, _, seen = _checked(pred, truth, observed)
    axes = tuple(range(seen.ndim - 1))
    count = seen.sum(axis=axes)
    centred = []
    for part in (pred, truth):
        values = np.where(seen, np.asarray(part, np.float64), 0.0)
        centred.append(np.where(seen, values - _ratio(values.sum(axis=axes), count), 0.0))
    spread = np.sqrt(np.square(centred[0]).sum(axis=axes) * np.square(centred[1]).sum(axis=axes))
    return np.clip(_ratio((centred[0] * centred[1]).sum(axis=axes), np.where(count > 1, spread, 0.0)), -1.0, 1.0)
