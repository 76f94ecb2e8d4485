"""Scores of forecasts (absolute errors) and their finite-sample quantiles per step and channel.

Shapes: N windows in time order, H steps, C channels, K interval levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

Floats = NDArray[np.float64]

DEFAULT_LEVELS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

__all__ = [
    "DEFAULT_LEVELS",
    "Floats",
    "ScoreTable",
    "absolute_scores",
    "checked_levels",
    "quantile_grid",
    "truth_delay",
]


def absolute_scores(pred: ArrayLike, truth: ArrayLike, observed: ArrayLike | None = None) -> Floats:
    """Return |truth - pred| in float64, NaN where the truth is unobserved; pred, truth and observed are (N, H, C).

    Raises:
        InputError: shapes that differ, or an error that is NaN or infinite where the truth is observed.

    Example:
        >>> absolute_scores([[[1.0]]], [[[3.5]]]).tolist()
        [[[2.5]]]
    """
    forecast, target = np.asarray(pred, np.float64), np.asarray(truth, np.float64)
    seen = np.isfinite(target) if observed is None else np.asarray(observed, bool)
    if forecast.ndim != 3 or not (forecast.shape == target.shape == seen.shape):
        raise InputError(
            "forecasts, truth and mask must have one shape (windows, horizon, channels)",
            found=f"{forecast.shape}, {target.shape}, {seen.shape}",
        )
    scores = np.abs(np.where(seen, target, 0.0) - np.where(seen, forecast, 0.0))
    if not np.isfinite(scores).all():
        raise InputError(
            "forecast or truth is NaN or infinite where the truth is marked as observed",
            found=f"{int((~np.isfinite(scores)).sum())} values",
            cure="mark missing truth as unobserved",
        )
    scores[~seen] = np.nan
    return scores


def truth_delay(horizon: int, stride: int = 1) -> NDArray[np.int64]:
    """Return for each step how many windows later its truth is known, (H,): ceil((h + 1) / stride), h from 0.

    Args:
        horizon: steps H.
        stride: rows between consecutive windows.

    Example:
        >>> truth_delay(horizon=5, stride=2).tolist()
        [1, 1, 2, 2, 3]
    """
    if horizon < 1 or stride < 1:
        raise InputError("horizon and stride are counted in rows", found=(horizon, stride), expected="1 or more")
    return -(-np.arange(1, horizon + 1) // stride)


def checked_levels(levels: Sequence[float] | Floats) -> Floats:
    """Return interval levels as an array (K,), or say what is wrong with them."""
    grid = np.asarray(levels, np.float64)
    if grid.ndim != 1 or not len(grid) or not (grid[0] > 0 and grid[-1] < 1 and (np.diff(grid) > 0).all()):
        raise InputError(
            "interval levels must rise strictly inside (0, 1)", found=grid.tolist(), expected="such as 0.5, 0.9"
        )
    return grid


def quantile_grid(levels: Sequence[float] | Floats = DEFAULT_LEVELS) -> Floats:
    """Return the quantile levels that interval ends and point forecast stand for, (2 K + 1,).

    Example:
        >>> quantile_grid([0.5]).tolist()
        [0.25, 0.5, 0.75]
    """
    grid = checked_levels(levels)
    return np.concatenate([(1 - grid[::-1]) / 2, [0.5], (1 + grid) / 2])


class ScoreTable:
    """Sorted scores per step and channel, and their quantiles at working levels that may lie outside (0, 1).

    Level q of n scores is the score of rank ceil((n + 1) q) (the finite-sample correction of split conformal
    prediction). A rank below 1 gives radius 0. No score has a rank above n: there the radius goes on from the largest
    score, by q - n / (n + 1) times that largest score, so that a working level above 1 widens the interval further.
    Where even the largest score is 0 (a channel that never moved), the channel's largest stands in, else the overall.

    Sorting costs O(N log N H C), a look-up O(K H C).

    Args:
        scores: (N, H, C), not negative, NaN where unobserved.

    Raises:
        InputError: scores of another shape, negative or infinite.

    Example:
        >>> import numpy as np
        >>> table = ScoreTable(np.arange(1.0, 10.0).reshape(9, 1, 1))
        >>> table.quantile(np.array([0.5, 1.1]).reshape(2, 1, 1)).ravel().round(3).tolist()
        [5.0, 10.8]
    """

    def __init__(self, scores: ArrayLike) -> None:
        raw = np.asarray(scores)
        if raw.ndim != 3 or not raw.size:
            raise InputError("scores must be (windows, horizon, channels), at least one of each", found=raw.shape)
        rows = np.sort(np.ascontiguousarray(raw.transpose(1, 2, 0)), axis=-1)  # one (step, channel) together, NaN last
        if (rows[..., 0] < 0).any() or np.isinf(rows).any():
            raise InputError("scores are finite absolute errors", found="a negative or infinite score")
        horizon, channels, width = rows.shape
        self.count: NDArray[np.int64] = np.isfinite(rows).sum(axis=-1)
        self._flat = rows.reshape(-1)
        self._start = (np.arange(horizon * channels) * width).reshape(horizon, channels)
        self._last = np.maximum(self.count - 1, 0)
        self._full = self.count / (self.count + 1)
        self._empty = self.count == 0
        self._tail = self._tail_unit()

    def _tail_unit(self) -> Floats:
        """(H, C): by how much the radius grows for each unit of level beyond the largest score."""
        largest = np.where(self._empty, 0.0, self._flat[self._start + self._last]).astype(np.float64)
        of_channel = np.broadcast_to(largest.max(axis=0, keepdims=True), largest.shape)
        return np.where(largest > 0, largest, np.where(of_channel > 0, of_channel, largest.max()))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, C)."""
        return self.count.shape[0], self.count.shape[1]

    def quantile(self, level: Floats) -> Floats:
        """Return the radius at each working level, (K, H, C) -> (K, H, C); NaN where not one score was observed."""
        rank = np.ceil(level * (self.count + 1) - 1e-9)  # 0.9 * 10 is 9.000000000000002 on some grids
        radius = self._flat[self._start + np.clip(rank.astype(np.int64) - 1, 0, self._last)].astype(np.float64)
        radius += self._tail * np.maximum(level - self._full, 0.0)
        radius[rank < 1] = 0.0
        if self._empty.any():
            radius[:, self._empty] = np.nan
        return radius
