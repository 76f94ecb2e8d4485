"""What intervals covered over many windows, and how wide they were: counted window by window, never stored.

Shapes: N windows in time order, H steps, C channels, K interval levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError
from pipelines.evaluation.metrics import crps_weights
from pipelines.evaluation.scores import Floats, quantile_grid

__all__ = ["ConformalRun", "Tally", "level_index", "merge_runs"]


def level_index(levels: Floats, level: float) -> int:
    """Return where a level stands in the grid.

    Raises:
        InputError: the level is not in the grid.
    """
    index = int(np.abs(levels - level).argmin())
    if abs(levels[index] - level) > 1e-9:
        raise InputError("this level was not measured", found=level, expected=f"one of {levels.tolist()}")
    return index


class Tally:
    """Running sums of hits, widths and CRPS over windows; memory O(K H C), a window costs O(K H C).

    Args:
        levels: (K,) nominal levels.
        shape: (H, C).
    """

    def __init__(self, levels: Floats, shape: tuple[int, int]) -> None:
        self.levels = levels
        weights = crps_weights(quantile_grid(levels))
        self._outer, self._middle = weights[len(levels) + 1 :], float(weights[len(levels)])
        self.hits: NDArray[np.int64] = np.zeros((len(levels), *shape), np.int64)
        self.width: Floats = np.zeros(len(levels))
        self.crps = 0.0
        self.count: NDArray[np.int64] = np.zeros(shape, np.int64)
        self.windows = 0
        self.skipped = 0

    def add(self, radius: Floats, scores: Floats) -> NDArray[np.int8]:
        """Count one window: radius (K, H, C) nested in K, scores (H, C) with NaN where unobserved.

        The two pinball losses of an interval of level p and radius r add up to (1 - p) r + max(s - r, 0) for a score s,
        and the one of the point forecast is s / 2.

        Returns:
            (H, C) number of levels whose interval missed (0 .. K), -1 where unobserved: as intervals are nested, this
            one figure says for every level whether it missed.
        """
        known = np.isfinite(scores)
        seen = known & np.isfinite(radius[0])
        self.skipped += int(known.sum() - seen.sum())
        size = np.where(seen, scores, 0.0)
        reach = np.where(seen, radius, 0.0)
        inside = (size <= reach) & seen
        widths = reach.sum(axis=(1, 2))
        beyond = np.maximum(size - reach, 0.0).sum(axis=(1, 2))
        self.hits += inside
        self.width += 2.0 * widths
        self.crps += float(2.0 * self._outer @ ((1.0 - self.levels) * widths + beyond) + self._middle * size.sum())
        self.count += seen
        self.windows += 1
        return np.where(seen, len(self.levels) - inside.sum(axis=0), -1).astype(np.int8)

    def merge(self, other: Tally) -> Tally:
        """Add the windows of another tally of the same levels, steps and channels and return self."""
        if not np.array_equal(self.levels, other.levels) or self.count.shape != other.count.shape:
            raise InputError("runs over different levels, horizons or channels cannot be merged")
        self.hits += other.hits
        self.width += other.width
        self.crps += other.crps
        self.count += other.count
        self.windows += other.windows
        self.skipped += other.skipped
        return self


@dataclass(frozen=True)
class ConformalRun:
    """Coverage and width of intervals over N windows in time order.

    Attributes:
        levels: (K,) nominal levels.
        coverage: (K,) share of observed values inside, over windows, steps and channels.
        mean_width: (K,) mean of hi - lo over the same values, in the unit of the scores.
        crps: mean continuous ranked probability score over the quantiles `quantile_grid(levels)`, same unit.
        coverage_by_horizon: (K, H).
        coverage_by_channel: (K, C).
        radius_last: (K, H, C), the radius for the window after the last.
        windows: N.
        count: (H, C) observed values behind the figures; NaN figures where it is 0.
        skipped: observed values left out because their step and channel had no score yet, so no radius.
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
    skipped: int
    tally: Tally = field(repr=False, compare=False)

    @classmethod
    def of(cls, tally: Tally, radius_last: Floats) -> ConformalRun:
        """Turn sums into shares and means."""
        total = float(tally.count.sum())

        def share(hits: NDArray[np.int64], count: NDArray[np.int64] | float) -> Floats:
            return np.where(np.asarray(count) > 0, hits / np.maximum(count, 1), np.nan)

        return cls(
            levels=tally.levels,
            coverage=share(tally.hits.sum(axis=(1, 2)), total),
            mean_width=tally.width / total if total else np.full(len(tally.levels), np.nan),
            crps=tally.crps / total if total else float("nan"),
            coverage_by_horizon=share(tally.hits.sum(axis=2), tally.count.sum(axis=1)),
            coverage_by_channel=share(tally.hits.sum(axis=1), tally.count.sum(axis=0)),
            radius_last=radius_last,
            windows=tally.windows,
            count=tally.count,
            skipped=tally.skipped,
            tally=tally,
        )

    def at(self, level: float) -> dict[str, float]:
        """Return `coverage`, `mean_width`, and the range over steps and channels at one of the levels."""
        index = level_index(self.levels, level)
        steps, channels = self.coverage_by_horizon[index], self.coverage_by_channel[index]
        return {
            "level": float(self.levels[index]),
            "coverage": float(self.coverage[index]),
            "mean_width": float(self.mean_width[index]),
            "coverage_step_min": float(np.nanmin(steps)),
            "coverage_step_max": float(np.nanmax(steps)),
            "coverage_channel_min": float(np.nanmin(channels)),
            "coverage_channel_max": float(np.nanmax(channels)),
        }


def merge_runs(runs: Sequence[ConformalRun]) -> ConformalRun:
    """Count several runs (one a series) as one; its `radius_last` is the widest of theirs at each place.

    Raises:
        InputError: no run, or runs over different levels, horizons or channels.
    """
    if not runs:
        raise InputError("no run to merge", expected="at least one")
    total = Tally(runs[0].levels, (runs[0].count.shape[0], runs[0].count.shape[1]))
    for run in runs:
        total.merge(run.tally)
    widest = np.stack([run.radius_last for run in runs])
    return ConformalRun.of(total, np.fmax.reduce(widest, axis=0))
