"""The protocol of forecasting: every test window is counted, beside the baselines, with intervals that are measured.

Figures are in scaled units (statistics of the training rows) as the field reports them; MASE has no unit.
"""

from __future__ import annotations

import dataclasses
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.base import Evaluation
from pipelines.data.datasets.forecasting import Prepared, window_count
from pipelines.errors import ConfigError
from pipelines.evaluation.bootstrap import block_bootstrap
from pipelines.evaluation.conformal import AdaptiveConformal, ConformalRun, SplitConformal
from pipelines.evaluation.metrics import ErrorSums, MaseSums, seasonal_scale, window_errors
from pipelines.forecast.engine import Fitted, baselines, batches, roll
from pipelines.forecast.intervals import MOST_WINDOWS, levels_with, one_series, scores_of
from pipelines.forecast.models.adapter import ForecastModule
from pipelines.forecast.predict import facts

if TYPE_CHECKING:
    from pipelines.data.formats.table_types import SeriesTable
    from pipelines.forecast.pipeline import Forecaster

Floats = NDArray[np.float64]
#: Forecasts of all test windows above this size go to a temporary file instead of memory.
IN_MEMORY = 2**30
#: Bytes of float64 that one round of the conformal methods may hold.
ROUND = 256 * 2**20


@dataclasses.dataclass
class Tally:
    """Sums of one model over the test windows."""

    sums: ErrorSums
    mase: MaseSums
    squared: list[Floats]
    absolute: list[Floats]

    @classmethod
    def empty(cls, horizon: int, channels: int, scales: Floats) -> Tally:
        """No window counted yet."""
        return cls(ErrorSums(horizon, channels), MaseSums(scales), [], [])

    def add(self, pred: np.ndarray, batch: dict[str, torch.Tensor]) -> None:
        """Count a batch of windows."""
        truth, observed = batch["y"].numpy(), batch["observed"].numpy()
        self.sums.update(pred, truth, observed)
        self.mase.update(pred, truth, observed, series=batch["series"].numpy())
        squared, absolute = window_errors(pred, truth, observed)
        self.squared.append(squared)
        self.absolute.append(absolute)

    def metrics(self) -> dict[str, float]:
        """Headline figures."""
        return {"mse": self.sums.mse(), "mae": self.sums.mae(), "mase": self.mase.result().value}


def evaluate(f: Forecaster, table: SeriesTable) -> Evaluation:
    """Forecast every test window of every series and count every measured value.

    Args:
        f: a fitted forecaster.
        table: what was read.

    Raises:
        InputError: too few rows for the protocol, or other columns than the model's.
    """
    fitted = f.state
    ready = fitted.prepared(f, table, protocol=f.protocol)
    if fitted.module is None:
        raise ConfigError("there is no model", where="evaluate")
    models = {f.model: fitted.module, **baselines(f, ready)}
    tallies, pred = _forecast_all(f, ready, models)
    runs = _intervals(f, fitted, ready, pred)
    return _summary(f, table, ready, tallies, runs)


def _forecast_all(
    f: Forecaster, ready: Prepared, models: dict[str, ForecastModule]
) -> tuple[dict[str, Tally], np.ndarray]:
    """Run all models over the test windows; keep the sums of each and the forecasts of the first."""
    windows = ready.windows("test")
    scales = _seasonal_scales(ready)
    tallies = {name: Tally.empty(f.horizon, len(ready.targets), scales) for name in models}
    shape = (len(windows), f.horizon, len(ready.targets))
    kept = _array(shape)
    done, progress = 0, f.run.progress
    parts = batches(windows)
    total = -(-len(windows) // 256)
    for batch in parts if progress is None else progress.track(parts, total, "test windows"):
        for name, module in models.items():
            pred = roll(module, batch, f.horizon).numpy()
            tallies[name].add(pred, batch)
            if name == f.model:
                kept[done : done + len(pred)] = pred
        done += len(batch["y"])
    return tallies, kept


def _array(shape: tuple[int, ...]) -> np.ndarray:
    """Room for forecasts; above a gigabyte it lies in an unnamed temporary file, so that memory stays constant."""
    if 4 * int(np.prod(shape)) <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def _seasonal_scales(ready: Prepared) -> Floats:
    """(S, C) in-sample error of the seasonal naive rule on each series' training rows, in scaled units."""
    rows = []
    for one, cut in zip(ready.series, ready.segments or [], strict=True):
        stop = cut.train[1]
        season = ready.season if ready.season < stop else 1
        rows.append(seasonal_scale(one.target[:stop].numpy(), season, one.observed[:stop].numpy()))
    return np.stack(rows)


@dataclasses.dataclass
class IntervalFigures:
    """Adaptive and plain split intervals over all series together."""

    adaptive: list[ConformalRun]
    split: list[ConformalRun]

    def pooled(self, kind: str, level: float) -> dict[str, float]:
        """Coverage, mean width and CRPS over windows, steps and series, weighted by measured values."""
        runs: list[ConformalRun] = getattr(self, kind)
        counts = np.array([run.count.sum() for run in runs], float)
        weights = counts / counts.sum()
        at = [run.at(level) for run in runs]
        return {
            "coverage": float(sum(w * a["coverage"] for w, a in zip(weights, at, strict=True))),
            "width": float(sum(w * a["mean_width"] for w, a in zip(weights, at, strict=True))),
            "crps": float(sum(w * run.crps for w, run in zip(weights, runs, strict=True))),
        }

    def coverage_by_horizon(self, kind: str, level: float) -> list[float]:
        """(H,) coverage of a level by step."""
        runs: list[ConformalRun] = getattr(self, kind)
        index = int(np.abs(runs[0].levels - level).argmin())
        counts = np.stack([run.count.sum(axis=1) for run in runs]).astype(float)
        shares = np.stack([run.coverage_by_horizon[index] for run in runs])
        return (np.nansum(counts * shares, axis=0) / counts.sum(axis=0)).tolist()


def _intervals(f: Forecaster, fitted: Fitted, ready: Prepared, pred: np.ndarray) -> IntervalFigures:
    """Run both conformal methods over the test windows of each series, a group of channels at a time."""
    levels, figures, done = levels_with(f.interval), IntervalFigures([], []), 0
    for index, cut in enumerate(ready.segments or []):
        count = window_count(cut.test, f.context, f.horizon)
        mine = pred[done : done + count]
        done += count
        val = one_series(ready, index, cut.val, f.horizon, MOST_WINDOWS)
        if val is None or not count:
            continue
        calibration = scores_of(fitted, val).absolute
        truth, observed = _truth(ready, index, cut.test[0] + f.context, count, f.horizon)
        group = max(1, ROUND // (8 * count * f.horizon))
        for first in range(0, mine.shape[2], group):
            part = slice(first, first + group)
            data = (calibration[..., part], mine[..., part], truth[..., part], observed[..., part])
            figures.adaptive.append(AdaptiveConformal(levels).run(*data))
            figures.split.append(SplitConformal(levels).run(*data))
    return figures


def _truth(ready: Prepared, index: int, first: int, count: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Views (count, H, C) of the rows that the windows forecast, without a copy."""
    one = ready.series[index]
    rows = slice(first, first + count + horizon - 1)
    view = lambda t: t[rows].unfold(0, horizon, 1).transpose(1, 2).numpy()  # noqa: E731
    return view(one.target), view(one.observed)


def _summary(
    f: Forecaster, table: SeriesTable, ready: Prepared, tallies: dict[str, Tally], runs: IntervalFigures
) -> Evaluation:
    own = tallies[f.model]
    percent = f"{100 * f.interval:g}"
    adaptive, split = runs.pooled("adaptive", f.interval), runs.pooled("split", f.interval)
    metrics = own.metrics() | {
        "crps": adaptive["crps"],
        f"coverage_{percent}": adaptive["coverage"],
        f"width_{percent}": adaptive["width"],
    }
    squared, absolute = np.concatenate(own.squared), np.concatenate(own.absolute)
    observed = int(own.sums.count.sum())
    notes = [*table.notes, *ready.notes]
    missing = own.sums.windows * f.horizon * len(ready.targets) - observed
    if missing:
        notes.append(f"{missing:,} values of the test windows were filled, not measured: they are not scored")
    excluded = own.mase.result().excluded
    if excluded:
        notes.append(f"MASE leaves out {excluded} series or columns whose seasonal naive error is zero in training")
    by_horizon = own.sums.by_horizon()
    return Evaluation(
        model=f.model,
        protocol=_protocol(f, ready),
        data=table.source,
        metrics=metrics,
        counts={"windows": own.sums.windows, "values": observed, "series": len(table.series)},
        intervals={name: _interval(errors, f) for name, errors in (("mse", squared), ("mae", absolute))},
        baselines={name: tally.metrics() for name, tally in tallies.items() if name != f.model},
        horizons={name: by_horizon[name].tolist() for name in ("mse", "mae")}
        | {f"coverage_{percent}": runs.coverage_by_horizon("adaptive", f.interval)},
        details=_details(f, ready, own, split),
        notes=tuple(dict.fromkeys(notes)),
        provenance=f.provenance(table.source),
        facts=facts(table),
        figures=_figures(f, tallies, runs),
    )


def _interval(errors: Floats, f: Forecaster) -> tuple[float, float]:
    """95 % interval of a mean over overlapping windows, by blocks as long as the horizon."""
    result = block_bootstrap(errors, block=f.horizon, seed=f.seed)
    return result.lo, result.hi


def _protocol(f: Forecaster, ready: Prepared) -> str:
    return (
        f"{f.protocol}, context {f.context}, horizon {f.horizon}, step {ready.freq}, every test window, "
        f"scaled by the training rows"
    )


def _details(f: Forecaster, ready: Prepared, own: Tally, split: dict[str, float]) -> dict[str, Any]:
    by_channel = own.sums.by_channel()
    training = f.state.training
    return {
        "split_conformal": split,
        "by_target": {
            name: {"mse": float(by_channel["mse"][c]), "mae": float(by_channel["mae"][c])}
            for c, name in enumerate(ready.targets)
        },
        "seconds_to_fit": training.get("seconds"),
        "epochs": training.get("epochs"),
        "seed": f.seed,
        "drop_last": False,
        "scaler": ready.state().get("target_scale"),
    }


def _figures(f: Forecaster, tallies: dict[str, Tally], runs: IntervalFigures) -> list[tuple[str, str, Any]]:
    from pipelines.evaluation import plots

    errors = {name: tally.sums.by_horizon()["mse"] for name, tally in tallies.items()}
    coverage = {
        f"{kind} conformal": (
            runs.adaptive[0].levels,
            [runs.pooled(kind, float(p))["coverage"] for p in runs.adaptive[0].levels],
        )
        for kind in ("adaptive", "split")
    }
    figures: list[tuple[str, str, Any]] = [
        (
            "Error by step",
            "Mean squared error of the model and the baselines at each step of the horizon",
            lambda: plots.horizon_figure(errors, title=f"{f.model}: error by step"),
        ),
        (
            "Coverage",
            "Share of measured values inside the intervals against their nominal level",
            lambda: plots.coverage_figure(coverage, title="Coverage of the intervals"),
        ),
    ]
    history = f.state.training.get("history")
    if history:
        losses = {"train": [e["train_loss"] for e in history], "validation": [e["val_loss"] for e in history]}
        best = f.state.training.get("best_epoch")
        title = "Loss by epoch"
        draw = lambda: plots.training_figure(losses, best=best, title=title)  # noqa: E731
        figures.append(("Training", "Training and validation loss by epoch", draw))
    return figures
