"""Conformal prediction intervals whose coverage is measured: split, and adaptive with the delay of a long horizon.

Shapes: N windows in time order, H steps of the horizon, C channels, K interval levels. A score is the absolute error
of a forecast (NaN where the truth is unobserved); an interval is forecast plus or minus a radius.

The truth of step h (0-based) of window t is known only when window t + ceil((h + 1) / stride) is issued, where windows
lie `stride` rows apart. The adaptive method uses nothing earlier than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.evaluation.metrics import crps_weights

Floats = NDArray[np.float64]

DEFAULT_LEVELS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
TAIL = 4.0

__all__ = [
    "DEFAULT_LEVELS",
    "AdaptiveConformal",
    "ConformalRun",
    "SplitConformal",
    "absolute_scores",
    "quantile_grid",
    "truth_delay",
]


def absolute_scores(pred: ArrayLike, truth: ArrayLike, observed: ArrayLike | None = None) -> Floats:
    """Return |truth - pred| in float64, NaN where the truth is unobserved; (N, H, C) for both and for the mask.

    Example:
        >>> absolute_scores([[[1.0]]], [[[3.5]]]).tolist()
        [[[2.5]]]
    """
    forecast, target = np.asarray(pred, np.float64), np.asarray(truth, np.float64)
    if forecast.shape != target.shape or forecast.ndim != 3:
        raise InputError(
            "forecasts and truth must have one shape (windows, horizon, channels)",
            found=(forecast.shape, target.shape),
        )
    scores = np.abs(target - forecast)
    if observed is not None:
        scores[~np.asarray(observed, bool)] = np.nan
    return scores


def truth_delay(horizon: int, stride: int = 1) -> NDArray[np.int64]:
    """Return for each step how many windows later its truth is known, (H,): ceil((h + 1) / stride).

    Example:
        >>> truth_delay(horizon=5, stride=2).tolist()
        [1, 1, 2, 2, 3]
    """
    if horizon < 1 or stride < 1:
        raise InputError("horizon and stride are counted in rows", found=(horizon, stride), expected="1 or more")
    return -(-np.arange(1, horizon + 1) // stride)


def quantile_grid(levels: Sequence[float] = DEFAULT_LEVELS) -> Floats:
    """Return the quantile levels that the ends of the intervals and the point forecast stand for, (2 K + 1,).

    Example:
        >>> quantile_grid([0.5]).tolist()
        [0.25, 0.5, 0.75]
    """
    grid = _levels(levels)
    return np.concatenate([(1 - grid[::-1]) / 2, [0.5], (1 + grid) / 2])


def _levels(levels: Sequence[float]) -> Floats:
    grid = np.asarray(levels, np.float64)
    if grid.ndim != 1 or not len(grid) or grid[0] <= 0 or grid[-1] >= 1 or (np.diff(grid) <= 0).any():
        raise InputError("interval levels must rise strictly inside (0, 1)", found=grid.tolist(), expected="0.5 0.9")
    return grid


class ScoreTable:
    """Sorted scores per step and channel, and their quantiles at levels that may lie outside (0, 1).

    A level q of n scores is the score of rank ceil((n + 1) q) (Vovk's finite-sample correction). Ranks below 1 give
    radius 0. Beyond rank n there is no score: the radius goes on growing linearly, by the factor
    1 + TAIL (q - n / (n + 1)) on the largest score, so that an adaptive level above 1 still widens the interval.

    Args:
        scores: (N, H, C), NaN where unobserved.
        keep: at most so many evenly ranked scores are kept per step and channel (rounded up, so never narrower).
    """

    def __init__(self, scores: ArrayLike, keep: int | None = None) -> None:
        raw = np.asarray(scores, np.float64)
        if raw.ndim != 3 or not raw.size:
            raise InputError("scores must be (windows, horizon, channels)", found=raw.shape)
        if (raw < 0).any() or np.isinf(raw).any():
            raise InputError("scores are finite absolute errors", found="a negative or infinite score")
        rows = np.sort(np.ascontiguousarray(raw.transpose(1, 2, 0)), axis=-1)  # NaN last; one (step, channel) together
        self.count: NDArray[np.int64] = np.isfinite(rows).sum(axis=-1)
        if keep is not None and rows.shape[-1] > keep:
            ranks = np.ceil(np.arange(1, keep + 1) / keep * self.count[..., None]).astype(np.int64)
            rows = np.take_along_axis(rows, np.maximum(ranks - 1, 0), axis=-1)
            self.count = np.minimum(self.count, keep)
        self.rows = rows
        self._set_index()

    def _set_index(self) -> None:
        horizon, channels, width = self.rows.shape
        self._flat = self.rows.reshape(-1)
        self._start = (np.arange(horizon * channels) * width).reshape(horizon, channels)
        self._last = np.maximum(self.count - 1, 0)
        self._full = self.count / (self.count + 1)
        self._empty = self.count == 0

    @property
    def shape(self) -> tuple[int, int]:
        """(H, C)."""
        return self.rows.shape[0], self.rows.shape[1]

    def quantile(self, level: Floats) -> Floats:
        """Return the radius at each level (K, H, C) -> (K, H, C); NaN where no score was observed."""
        rank = np.ceil(level * (self.count + 1) - 1e-9)
        index = np.clip(rank.astype(np.int64) - 1, 0, self._last)
        radius = self._flat[self._start + index]
        radius = radius * (1.0 + TAIL * np.maximum(level - self._full, 0.0))
        radius[rank < 1] = 0.0
        if self._empty.any():
            radius[:, self._empty] = np.nan
        return radius


@dataclass(frozen=True)
class ConformalRun:
    """What intervals covered over N windows in time order, and how wide they were.

    Attributes:
        levels: (K,) nominal levels.
        coverage: (K,) share of observed values inside, over windows, steps and channels.
        mean_width: (K,) mean of hi - lo over the same values, in the unit of the scores.
        crps: mean continuous ranked probability score over the quantiles of `quantile_grid(levels)`.
        coverage_by_horizon: (K, H).  coverage_by_channel: (K, C).
        radius_last: (K, H, C) radius for the next window.
        windows: N.  count: (H, C) observed values behind each figure.
    """

    levels: Floats
    coverage: Floats
    mean_width: Floats
    crps: float
    coverage_by_horizon: Floats
    coverage_by_channel: Floats
    radius_last: Floats
    windows: int
    count: NDArray[np.int64]

    def at(self, level: float) -> dict[str, float]:
        """Return coverage and mean width at one of the levels."""
        index = _index(self.levels, level)
        return {"coverage": float(self.coverage[index]), "mean_width": float(self.mean_width[index])}


def _index(levels: Floats, level: float) -> int:
    index = int(np.abs(levels - level).argmin())
    if abs(levels[index] - level) > 1e-9:
        raise InputError("this level was not asked for", found=level, expected=f"one of {levels.tolist()}")
    return index


class _Tally:
    """Running sums of a run: hits, widths and CRPS; nothing of size K N H C is ever kept."""

    def __init__(self, levels: Floats, shape: tuple[int, int]) -> None:
        self.levels = levels
        weights = crps_weights(quantile_grid(levels.tolist()))
        self.outer, self.middle = weights[len(levels) + 1 :], float(weights[len(levels)])
        self.hits = np.zeros((len(levels), *shape), np.int64)
        self.width = np.zeros(len(levels))
        self.score = 0.0
        self.count = np.zeros(shape, np.int64)
        self.windows = 0

    def add(self, radius: Floats, scores: Floats, seen: NDArray[np.bool_], inside: NDArray[np.bool_]) -> None:
        """Add one window: radius, inside (K, H, C); scores, seen (H, C) with scores zero where unseen.

        The two pinball losses of an interval of level p add up to (1 - p) r + max(s - r, 0).
        """
        self.hits += inside & seen
        radius = np.where(seen, radius, 0.0)
        widths = radius.sum(axis=(1, 2))
        beyond = np.maximum(scores - radius, 0.0).sum(axis=(1, 2))
        self.width += 2.0 * widths
        self.score += 2.0 * float(self.outer @ ((1.0 - self.levels) * widths + beyond)) + self.middle * scores.sum()
        self.count += seen
        self.windows += 1

    def result(self, radius_last: Floats) -> ConformalRun:
        total = max(int(self.count.sum()), 1)

        def share(axis: int | tuple[int, int]) -> Floats:
            counted = self.count.sum(axis=tuple(a - 1 for a in axis) if isinstance(axis, tuple) else axis - 1)
            return np.where(counted > 0, self.hits.sum(axis=axis) / np.maximum(counted, 1), np.nan)

        return ConformalRun(
            levels=self.levels,
            coverage=share((1, 2)),
            mean_width=self.width / total,
            crps=self.score / total,
            coverage_by_horizon=share(2),
            coverage_by_channel=share(1),
            radius_last=radius_last,
            windows=self.windows,
            count=self.count,
        )


class SplitConformal:
    """Split conformal prediction: one radius per level, step and channel from calibration scores, never updated.

    Covers at least its level where calibration and test windows are exchangeable. Time series seldom are: the reports
    show what it covered.

    Args:
        levels: interval levels, rising, inside (0, 1).

    Source: Lei et al. (2018), algorithm 2; rank ceil((n + 1) level) of n scores.

    Example:
        >>> import numpy as np
        >>> scores = np.arange(1.0, 100.0).reshape(99, 1, 1)
        >>> SplitConformal([0.9]).fit(scores).radius().ravel().tolist()
        [90.0]
    """

    def __init__(self, levels: Sequence[float] = DEFAULT_LEVELS) -> None:
        self.levels = _levels(levels)
        self._radius: Floats | None = None

    def fit(self, calibration: ArrayLike) -> Self:
        """Take the radii from calibration scores (N, H, C); cost O(N log N H C)."""
        table = ScoreTable(calibration)
        wanted = np.broadcast_to(self.levels[:, None, None], (len(self.levels), *table.shape))
        self._radius = table.quantile(wanted)
        return self

    def radius(self, level: float | None = None) -> Floats:
        """Return the radius for the next window, (K, H, C), or (H, C) of one level."""
        if self._radius is None:
            raise InputError("no calibration scores yet", cure="call fit(scores) first")
        return self._radius if level is None else self._radius[_index(self.levels, level)]

    def run(
        self, calibration: ArrayLike, forecasts: ArrayLike, truth: ArrayLike, observed: ArrayLike | None = None
    ) -> ConformalRun:
        """Fit on calibration scores and measure over forecasts (N, H, C) against the truth."""
        scores = absolute_scores(forecasts, truth, observed)
        radius = self.fit(calibration).radius()
        tally = _Tally(self.levels, (scores.shape[1], scores.shape[2]))
        for window in scores:
            seen = np.isfinite(window)
            clean = np.where(seen, window, 0.0)
            tally.add(radius, clean, seen, clean <= radius)
        return tally.result(radius)


class AdaptiveConformal:
    """Adaptive conformal inference per level, step and channel, updated only when the truth of a step arrives.

    For each nominal level p, step and channel a working level q is kept, and after each truth that arrives
    q <- q + rate (miss - (1 - p)): equation 2 of the paper, written for the covered level instead of alpha.

    Args:
        levels: interval levels, rising, inside (0, 1).
        rate: step size of the update.
        stride: rows between consecutive windows.
        window: so many of the latest scores (calibration, then arrived ones) are kept; None keeps calibration only.
        refresh: windows between two sortings of the kept scores.

    Source: Gibbs and Candès (2021), equation 2.
    """

    def __init__(
        self,
        levels: Sequence[float] = DEFAULT_LEVELS,
        *,
        rate: float = 0.02,
        stride: int = 1,
        window: int | None = None,
        refresh: int = 24,
    ) -> None:
        self.levels = _levels(levels)
        self.rate, self.stride, self.window, self.refresh = rate, stride, window, refresh
        self.table: ScoreTable | None = None

    def start(self, calibration: ArrayLike) -> Self:
        scores = np.asarray(calibration, np.float64)
        self.table = ScoreTable(scores if self.window is None else scores[-self.window :])
        self.working = np.repeat(np.repeat(self.levels[:, None, None], self.table.shape[0], 1), self.table.shape[1], 2)
        self.recent = None
        if self.window:
            kept = scores[-self.window :]
            self.recent = np.full((self.window, *scores.shape[1:]), np.nan)
            self.recent[: len(kept)] = kept
        self.issued = min(len(scores), self.window or 0)
        return self

    def radius(self, level=None) -> Floats:
        assert self.table
        radius = np.maximum.accumulate(self.table.quantile(self.working), axis=0)
        return radius

    def update(self, rank, scores) -> None:
        known = rank >= 0
        miss = rank[None] > np.arange(len(self.levels))[:, None, None]
        change = np.asarray(self.rate)[..., None] * (miss - (1 - self.levels)[:, None, None])
        self.working += np.where(known, change, 0)
        if self.recent is not None:
            self.recent[self.issued % len(self.recent)] = scores
            self.issued += 1
            if self.issued % self.refresh == 0:
                self.table = ScoreTable(self.recent)

    def run(self, calibration, forecasts, truth, observed=None) -> ConformalRun:
        scores = absolute_scores(forecasts, truth, observed)
        n, horizon, channels = scores.shape
        delay = truth_delay(horizon, self.stride)
        steps = np.arange(horizon)
        self.start(calibration)
        tally = _Tally(self.levels, (horizon, channels))
        ranks = np.full(scores.shape, -1, np.int8)
        for t in range(n):
            source = t - delay
            ok = source >= 0
            r = np.where(ok[:, None], ranks[source, steps], -1)
            s = np.where(ok[:, None], scores[source, steps], np.nan)
            self.update(r, s)
            radius = self.radius()
            seen = np.isfinite(scores[t])
            clean = np.where(seen, scores[t], 0)
            inside = clean <= radius
            ranks[t] = np.where(seen, (~inside).sum(axis=0), -1)
            tally.add(radius, clean, seen, inside)
        return tally.result(self.radius())
