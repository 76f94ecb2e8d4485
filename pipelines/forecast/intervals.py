"""Intervals of forecasts: scores of held-out windows, and the conformal methods run over them in time order."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.datasets.forecasting import ForecastWindows, Prepared
from pipelines.data.datasets.splits import window_count
from pipelines.errors import ConfigError
from pipelines.evaluation.conformal import DEFAULT_LEVELS, AdaptiveConformal, SplitConformal, truth_delay
from pipelines.forecast.engine import Fitted, batches, roll

if TYPE_CHECKING:
    from pipelines.forecast.pipeline import Forecaster

Floats = NDArray[np.float64]

#: Held-out windows that calibrate a forecast at most; more are thinned out evenly, which is said.
MOST_WINDOWS = 1000
#: Bytes that the errors of one series may take.
MOST_BYTES = 512 * 2**20
#: Fewer held-out windows than this say too little by themselves: the radii stored with the weights are used.
LEAST_WINDOWS = 20


def levels_with(interval: float) -> list[float]:
    """The levels whose intervals are computed: a grid for the CRPS, and the one asked for."""
    return sorted({*DEFAULT_LEVELS, interval})


@dataclasses.dataclass
class Scores:
    """Forecasts of held-out windows of one series against the truth, in scaled units.

    Args:
        pred, truth: (N, H, C); observed: (N, H, C) bool. stride: rows between windows.
    """

    pred: Floats
    truth: Floats
    observed: NDArray[np.bool_]
    stride: int

    @property
    def absolute(self) -> Floats:
        """(N, H, C) absolute errors, NaN where nothing was measured."""
        return np.where(self.observed, np.abs(self.truth - self.pred), np.nan)


def scores_of(fitted: Fitted, windows: ForecastWindows) -> Scores:
    """Forecast windows of one series and keep the errors."""
    if fitted.module is None:
        raise ConfigError("the model has not met a table yet", where="intervals")
    parts = [(roll(fitted.module, b, windows.horizon).numpy(), b) for b in batches(windows)]
    pred = np.concatenate([p for p, _ in parts]).astype(np.float64)
    truth = np.concatenate([b["y"].numpy() for _, b in parts]).astype(np.float64)
    observed = np.concatenate([b["observed"].numpy() for _, b in parts])
    return Scores(pred, truth, observed, windows.stride)


def one_series(ready: Prepared, index: int, rows: tuple[int, int], horizon: int, most: int) -> ForecastWindows | None:
    """Windows of one series inside a row range, thinned to at most ``most``; None where not one fits."""
    total = window_count(rows, ready.context, horizon)
    window_bytes = 4 * 8 * horizon * len(ready.targets)
    most = max(LEAST_WINDOWS, min(most, MOST_BYTES // window_bytes))
    if total < 1:
        return None
    return ForecastWindows([ready.series[index]], [rows], ready.context, horizon, stride=-(-total // most))


def validation_radii(f: Forecaster, fitted: Fitted, ready: Prepared) -> tuple[list[float], Floats]:
    """Plain split-conformal radii (K, H, C) from the validation windows of all series, stored with the weights."""
    levels = levels_with(f.interval)
    most = max(LEAST_WINDOWS, MOST_WINDOWS // len(ready.series))
    found = [
        scores_of(fitted, windows).absolute
        for index, cut in enumerate(ready.segments or [])
        if (windows := one_series(ready, index, cut.val, ready.horizon, most)) is not None
    ]
    return levels, SplitConformal(levels).fit(np.concatenate(found)).radius()


@dataclasses.dataclass
class FutureRadii:
    """Radii for the forecast after the last row of one series: level -> (H, C), and where they come from."""

    by_level: dict[float, Floats]
    note: str


def future_radii(f: Forecaster, fitted: Fitted, ready: Prepared, index: int, horizon: int) -> FutureRadii:
    """Intervals for the next rows of one series.

    The rows that the model was not fitted on are forecast again, window by window; the first half of these windows
    calibrates, as far as its truth was known when the second half began, and over the second half the level is adapted
    as each truth arrives. Where there are too few, the radii of the validation windows, stored with the weights, serve.
    """
    levels = levels_with(f.interval)
    start = _first_held_out(fitted, ready, index)
    rows = (max(0, start - ready.context), len(ready.series[index]))
    windows = one_series(ready, index, rows, horizon, MOST_WINDOWS)
    name = "" if len(ready.series) == 1 else f" of '{ready.series[index].id}'"
    if windows is None or len(windows) < LEAST_WINDOWS:
        return _stored(fitted, levels, horizon, name, 0 if windows is None else len(windows))
    scores = scores_of(fitted, windows)
    half = len(windows) // 2
    known = np.arange(half)[:, None] + truth_delay(horizon, windows.stride) <= half  # (N / 2, H)
    calibration = np.where(known[..., None], scores.absolute[:half], np.nan)
    adaptive = AdaptiveConformal(levels, stride=windows.stride)
    run = adaptive.run(calibration, scores.pred[half:], scores.truth[half:], scores.observed[half:])
    # Steps whose truth never arrived within the run: by now it is all known, so the plain radii of all windows serve.
    radii = np.where(np.isnan(run.radius_last), SplitConformal(levels).fit(scores.absolute).radius(), run.radius_last)
    thinned = f", every {windows.stride} rows" if windows.stride > 1 else ""
    covered = run.at(f.interval)["coverage"]
    note = (
        f"intervals{name}: adaptive conformal over {len(windows)} held-out windows{thinned}; "
        f"the {100 * f.interval:g} % interval covered {100 * covered:.1f} % of the second half"
    )
    return FutureRadii({level: radii[k] for k, level in enumerate(levels)}, note)


def _first_held_out(fitted: Fitted, ready: Prepared, index: int) -> int:
    """The first row of a series that the model was not fitted on (0 for a series it never saw)."""
    one = ready.series[index]
    end = fitted.train_end.get(one.id)
    if end is None:
        return 0
    stamp = pd.Timestamp(end)
    time = one.time[: len(one)]
    if (stamp.tzinfo is None) != (time.tz is None):
        return 0  # another clock, another table
    return int(time.searchsorted(stamp, side="right"))


def _stored(fitted: Fitted, levels: list[float], horizon: int, name: str, windows: int) -> FutureRadii:
    if fitted.radii is None:
        raise ConfigError(
            f"too few rows to know the errors of this model{name}",
            where="interval",
            found=f"{windows} held-out windows",
            expected=f"at least {LEAST_WINDOWS}",
            cure="give more history",
        )
    radii = fitted.radii.numpy()
    stored = radii.shape[1]
    # Beyond the trained horizon errors of a model that reads its own forecasts grow; a random walk's grow as the root.
    steps = np.arange(horizon)
    growth = np.sqrt(np.maximum(1.0, (steps + 1) / stored))[:, None]
    index = np.minimum(steps, stored - 1)
    chosen = {level: radii[_nearest(fitted.levels, level)][index] * growth for level in levels}
    beyond = f", widened by the square root of time beyond step {stored}" if horizon > stored else ""
    return FutureRadii(
        chosen, f"intervals{name}: {windows} held-out windows are too few, those of the validation rows serve{beyond}"
    )


def _nearest(levels: list[float], wanted: float) -> int:
    """The stored level that is wanted or the next higher one: wider rather than narrower."""
    return next((k for k, level in enumerate(levels) if level >= wanted - 1e-9), len(levels) - 1)
