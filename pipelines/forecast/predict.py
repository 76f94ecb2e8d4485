"""From the end of a table to a forecast in its own units, with intervals."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipelines.data.datasets.forecasting import Prepared
from pipelines.errors import ConfigError, InputError
from pipelines.forecast.engine import roll
from pipelines.forecast.intervals import FutureRadii, future_radii
from pipelines.forecast.result import Forecast, SeriesForecast

if TYPE_CHECKING:
    from pipelines.data.formats.table_types import SeriesTable, TimeSeries
    from pipelines.forecast.pipeline import Forecaster


def predict(f: Forecaster, table: SeriesTable, horizon: int) -> Forecast:
    """Forecast every series of a table.

    Args:
        f: a fitted forecaster.
        table: at least ``context`` rows a series; known-future columns reach ``horizon`` rows beyond.
        horizon: rows ahead.

    Raises:
        InputError: too few rows, other columns, a known future that ends early.
    """
    fitted = f.state
    if horizon < 1:
        raise ConfigError("must be at least 1 row", where="horizon", found=horizon)
    _check_rows(f, table)
    ready = fitted.prepared(f, table, protocol=None, future=horizon)
    if fitted.module is None:
        raise ConfigError("there is no model", where="predict")
    batch = ready.latest(horizon)
    scaled = roll(fitted.module, batch, horizon).numpy().astype(np.float64)
    radii = [future_radii(f, fitted, ready, index, horizon) for index in range(len(table.series))]
    notes = [*table.notes, *ready.notes, *_interval_notes(radii)]
    trained = fitted.module.horizon
    if horizon > trained:
        carried = " with past columns carried forward" if table.past else ""
        notes.append(f"the model forecasts {trained} rows: beyond, up to {horizon}, it read its own forecasts{carried}")
    series = [
        part
        for index, one in enumerate(table.series)
        for part in _series(f, table, one, ready, index, scaled[index], radii[index])
    ]
    stamp = f.provenance(table.source)
    return Forecast(series, f.model, f.interval, stamp, tuple(dict.fromkeys(notes)), facts(table))


def _check_rows(f: Forecaster, table: SeriesTable) -> None:
    for one in table.series:
        if len(one) < f.context:
            raise InputError(
                f"series '{one.id}' is shorter than the context",
                where=table.source,
                found=f"{len(one)} rows",
                expected=f"at least {f.context}",
                cure="give more rows, or fit a model with a shorter --context",
            )


def facts(table: SeriesTable) -> dict[str, Any]:
    """What a table is, for a report: source, size, range, step, columns by role, and how much was measured."""
    cells = sum(one.observed.size for one in table.series)
    filled = cells - sum(int(one.observed.sum()) for one in table.series)
    columns = {role: getattr(table, role) for role in ("targets", "known", "past", "static")}
    return {
        "source": table.source,
        "series": len(table.series),
        "rows": table.rows,
        "from": min(one.time[0] for one in table.series).isoformat(),
        "to": max(one.time[-1] for one in table.series).isoformat(),
        "step": table.freq,
        **{role: ", ".join(map(str, names)) for role, names in columns.items() if names},
        "target values filled": f"{filled:,} of {cells:,}",
    }


def predict_known(f: Forecaster, table: SeriesTable, horizon: int) -> Forecast:
    """Hide the last rows of a table, forecast them, and keep them as the truth to compare with."""
    shortest = min(len(one) for one in table.series)
    if shortest <= horizon + f.context:
        raise ConfigError("too few rows to hide some", where=table.source, found=shortest)
    series = [hidden(one, len(one) - horizon) for one in table.series]
    result = predict(f, dataclasses.replace(table, series=tuple(series)), horizon)
    truths = [one.target[-horizon:, c] for one in table.series for c in range(len(table.targets))]
    for part, truth in zip(result.series, truths, strict=True):
        part.truth = pd.Series(truth, index=part.mean.index)
    result.notes = (*result.notes, f"the last {horizon} rows were hidden from the forecast and are drawn as the truth")
    return result


def hidden(one: TimeSeries, origin: int) -> TimeSeries:
    """A series up to a row, with the known columns of the rows after it as its known future."""
    return dataclasses.replace(
        one,
        time=one.time[:origin],
        target=one.target[:origin],
        observed=one.observed[:origin],
        past=one.past[:origin],
        future_time=one.time[origin:].append(one.future_time),
    )


def _series(
    f: Forecaster,
    table: SeriesTable,
    one: TimeSeries,
    ready: Prepared,
    index: int,
    scaled: np.ndarray,
    radii: FutureRadii,
) -> list[SeriesForecast]:
    """One entry a variable, in the units of the table."""
    mean = ready.inverse(scaled[None], index)[0]
    spread = ready.spread(index)[0]
    stamps = table.future_index(index, len(mean))
    out = []
    for c, name in enumerate(table.targets):
        bands = {
            level: (mean[:, c] - radius[:, c] * spread[c], mean[:, c] + radius[:, c] * spread[c])
            for level, radius in radii.by_level.items()
        }
        history = pd.Series(one.target[:, c], index=one.time, name=name)
        label = name if table.wide else one.id
        out.append(SeriesForecast(label, name, history, pd.Series(mean[:, c], index=stamps, name=name), bands))
    return out


def _interval_notes(radii: list[FutureRadii]) -> list[Any]:
    """Notes on the intervals, only the first few when there are many series."""
    shown = [radius.note for radius in radii[:3]]
    return shown if len(radii) <= 3 else [*shown, f"... and so for {len(radii) - 3} more series"]
