"""Rolling-origin backtests: forecast from several past origins as one would have then, and compare with what came."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from pipelines.base import Provenance, Result, save_figure
from pipelines.errors import ConfigError, InputError
from pipelines.forecast.engine import Fitted, baselines
from pipelines.forecast.options import MODELS
from pipelines.forecast.predict import hidden, predict
from pipelines.forecast.result import Forecast
from pipelines.values import to_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.formats.table_types import SeriesTable
    from pipelines.evaluation.report import Report
    from pipelines.forecast.pipeline import Forecaster


@dataclasses.dataclass
class Backtest(Result):
    """Forecasts from several origins beside the truth.

    ``frame`` has the columns ``unique_id``, ``variable``, ``origin`` (last row that was known), ``ds``, ``y`` (empty
    where nothing was measured), ``MODEL``, ``MODEL-lo-90``, ``MODEL-hi-90`` and one a baseline, in the input's units.
    ``metrics`` and ``baselines`` are in units of each variable's training deviation.
    """

    frame: pd.DataFrame
    model: str
    interval: float
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    by_origin: list[dict[str, Any]]
    last: Forecast
    provenance: Provenance
    notes: tuple[str, ...] = ()

    default_name: ClassVar[str] = "backtest.csv"

    def save(self, path: str | Path) -> Path:
        """Write all forecasts as CSV or Parquet, or the figures as JSON, by the ending of the name."""
        from pipelines.files import atomic_write

        target = Path(path)
        writers: dict[str, Any] = {
            ".csv": lambda: self.frame.to_csv(index=False),
            ".parquet": lambda: self.frame.to_parquet(index=False),
            ".json": lambda: to_json(self.to_dict(), indent=1) + "\n",
        }
        if target.suffix not in writers:
            raise ConfigError("cannot write this kind of file", where=target, expected=".csv, .parquet or .json")
        atomic_write(target, writers[target.suffix]())
        return target

    def to_dict(self) -> dict[str, Any]:
        """Metrics at the top level, one entry an origin."""
        return {
            "model": self.model,
            "protocol": f"rolling origin, {len(self.by_origin)} origins",
            **self.metrics,
            "baselines": self.baselines,
            "origins": self.by_origin,
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """The forecast from the last origin beside the truth."""
        figure = self.last.plot()
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add the metrics, each origin's, and the picture of the last one."""
        report.add_metrics_table({self.model: self.metrics, **self.baselines}, section="All origins", best="mse")
        each = {entry["origin"]: {k: v for k, v in entry.items() if k != "origin"} for entry in self.by_origin}
        report.add_metrics_table(each, section="By origin")
        alt = f"Forecast by {self.model} from the last origin and the truth"
        report.add_figure(self.plot(), alt, section="The last origin")

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        others = "; ".join(f"{name} mse {row['mse']:.4f}" for name, row in self.baselines.items())
        return f"{self.model}, {len(self.by_origin)} origins: {shown} (baselines: {others})"


def backtest(f: Forecaster, table: SeriesTable, *, origins: int, step: int | None, refit: bool) -> Backtest:
    """Forecast from ``origins`` past rows, ``step`` apart, the last one a horizon before the end.

    Raises:
        ConfigError: fewer than one origin or row, or a model that was fitted on rows after the first origin.
        InputError: too few rows before the first origin.
    """
    stride = f.horizon if step is None else step
    if origins < 1 or stride < 1:
        raise ConfigError("must be at least 1", where="origins and step", found=f"{origins} and {stride}")
    back = [f.horizon + stride * k for k in reversed(range(origins))]
    shortest = min(len(one) for one in table.series)
    if shortest - back[0] <= f.context + f.horizon:
        raise InputError(
            "too few rows before the first origin",
            where=table.source,
            found=f"{shortest - back[0]} rows",
            expected=f"more than {f.context + f.horizon} (context and horizon)",
            cure="fewer --origins, a smaller --step or a shorter --context",
        )
    worker = _fitted_before(f, table, back[0])
    parts, last = [], None
    for number, rows in enumerate(back):
        if refit and number:
            worker = _fitted_before(f.clone(), table, rows)
        last = predict(worker, _cut(table, rows), f.horizon)
        parts.append(_compare(worker, table, last, rows))
        f.run.say(f"origin {number + 1} of {origins}: {parts[-1]['origin'].iloc[0]}")
    if last is None:
        raise ConfigError("nothing to forecast", where="origins")
    return _result(worker, table, pd.concat(parts, ignore_index=True), last, refit)


def _cut(table: SeriesTable, rows: int) -> SeriesTable:
    return dataclasses.replace(table, series=tuple(hidden(one, len(one) - rows) for one in table.series))


def _fitted_before(f: Forecaster, table: SeriesTable, rows: int) -> Forecaster:
    """A forecaster that knows nothing of the last rows: fitted on those before, or checked to have been."""
    known = _cut(table, rows)
    if not f.is_fitted:
        twin = f.clone(protocol=f.protocol if f.protocol.startswith("ratio:") else "ratio:0.8,0.1,0.1")
        twin.run = f.run.part(f"{rows}-rows-before-the-end")
        return twin.fit(known)
    state: Fitted = f.state
    for one in known.series:
        end = state.train_end.get(one.id)
        if end is not None and pd.Timestamp(end) > one.time[-1]:
            raise ConfigError(
                "the model was fitted on rows after the first origin",
                where=f"series '{one.id}'",
                found=f"fitted up to {end}",
                expected=f"at most {one.time[-1].isoformat()}",
                cure="fewer --origins, or no --checkpoint so that a model is fitted before the first origin",
            )
    return f


def _compare(f: Forecaster, table: SeriesTable, forecast: Forecast, rows: int) -> pd.DataFrame:
    """One origin's forecasts beside the truth and the baselines, with the scale of each variable."""
    ready = f.state.prepared(f, _cut(table, rows), protocol=None, future=f.horizon)
    inputs = [ready.latest(f.horizon)[part] for part in ("x", "x_mark", "y_mark", "past")]
    numbers = np.arange(len(ready.series))
    rules = {name: ready.inverse(rule(*inputs), numbers) for name, rule in baselines(f, ready).items()}
    percent, out = f"{100 * f.interval:g}", []
    for number, part in enumerate(forecast.series):
        index, c = divmod(number, len(table.targets))
        one = table.series[index]
        start = len(one) - rows
        window = slice(start, start + f.horizon)
        truth = np.where(one.observed[window, c], one.target[window, c], np.nan)
        lo, hi = part.bands[f.interval]
        part.truth = pd.Series(truth, index=part.mean.index)
        columns = {
            "unique_id": part.name,
            "variable": part.variable,
            "origin": one.time[start - 1].isoformat(),
            "ds": part.mean.index,
            "y": truth,
            f.model: part.mean.to_numpy(),
            f"{f.model}-lo-{percent}": lo,
            f"{f.model}-hi-{percent}": hi,
            **{name: values[index, :, c] for name, values in rules.items()},
            "_scale": ready.spread(index)[0, c],
        }
        out.append(pd.DataFrame(columns))
    return pd.concat(out, ignore_index=True)


def _errors(frame: pd.DataFrame, column: str) -> dict[str, float]:
    error = ((frame[column] - frame["y"]) / frame["_scale"]).dropna()
    return {"mse": float((error**2).mean()), "mae": float(error.abs().mean())}


def _covered(frame: pd.DataFrame, model: str, percent: str) -> float:
    seen = frame[frame["y"].notna()]
    return float(seen["y"].between(seen[f"{model}-lo-{percent}"], seen[f"{model}-hi-{percent}"]).mean())


def _result(f: Forecaster, table: SeriesTable, frame: pd.DataFrame, last: Forecast, refit: bool) -> Backtest:
    percent = f"{100 * f.interval:g}"
    own = _errors(frame, f.model) | {f"coverage_{percent}": _covered(frame, f.model, percent)}
    rules = {
        n: _errors(frame, n) for n, info in MODELS.items() if info.baseline and n in frame.columns and n != f.model
    }
    each = [
        {"origin": str(origin), **_errors(part, f.model), f"coverage_{percent}": _covered(part, f.model, percent)}
        for origin, part in frame.groupby("origin", sort=False)
    ]
    fitted = "fitted anew before every origin" if refit else "fitted once, before the first origin"
    return Backtest(
        frame=frame.drop(columns="_scale"),
        model=f.model,
        interval=f.interval,
        metrics=own,
        baselines=rules,
        by_origin=each,
        last=last,
        provenance=f.provenance(table.source),
        notes=tuple(dict.fromkeys((*table.notes, f"the model was {fitted}", *last.notes))),
    )
