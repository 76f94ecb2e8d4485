"""From a table to what a forecasting model trains on: splits, scaling from the training rows, windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipelines.data.datasets.calendar import calendar_features, calendar_names
from pipelines.data.datasets.scaling import CovariateScaler, Standardizer, StaticEncoder
from pipelines.data.datasets.splits import PROTOCOLS, Segments, segments, window_count
from pipelines.data.datasets.windows import ForecastWindows, PreparedSeries
from pipelines.data.errors import InputError
from pipelines.data.formats.table_freq import next_stamps, season_length
from pipelines.data.formats.table_types import SeriesTable, TimeSeries

__all__ = [
    "PROTOCOLS",
    "CovariateScaler",
    "ForecastWindows",
    "Prepared",
    "PreparedSeries",
    "Segments",
    "Standardizer",
    "StaticEncoder",
    "calendar_features",
    "calendar_names",
    "prepare",
    "season_length",
    "segments",
    "window_count",
]

Scaling = Literal["global", "series"]
_COLUMNS = ("targets", "known", "past", "static")


@dataclass
class Prepared:
    """Series ready for a model, with the statistics that brought them there.

    Args:
        series: prepared series; with `future` their marks reach that many steps beyond the last row.
        segments: the rows of each split a series, or None without a protocol.
        context, horizon: rows that a window sees and forecasts.
        freq: step of time.
        targets, known, past, static: names of the columns.
        calendar: number of calendar columns in front of the marks.
        scalers: the targets' scaler of each series (one object for all with scaling "global").
        notes: what was noticed.
    """

    series: list[PreparedSeries]
    segments: list[Segments] | None
    context: int
    horizon: int
    freq: str
    targets: tuple[str, ...]
    known: tuple[str, ...]
    past: tuple[str, ...]
    static: tuple[str, ...]
    calendar: int
    scalers: list[Standardizer]
    notes: list[str]
    _state: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Widths for a model: targets C, past P, marks F, and how many of the marks are calendar."""
        marks = self.series[0].marks.shape[1]
        return {"targets": len(self.targets), "past": len(self.past), "marks": marks, "calendar": self.calendar}

    @property
    def season(self) -> int:
        """Steps in the natural season of the frequency."""
        return season_length(self.freq)

    def windows(
        self, split: Literal["train", "val", "test", "all"], stride: int = 1, horizon: int | None = None
    ) -> ForecastWindows:
        """The windows of a split.

        Args:
            split: train, val or test of the protocol, or all rows.
            stride: rows between windows.
            horizon: another number of rows to forecast than the one prepared for.

        Raises:
            InputError: a split without a protocol, or not one window.
        """
        if split == "all":
            ranges = [(0, len(one)) for one in self.series]
        elif self.segments is None:
            raise InputError(
                "no split without a protocol", where="windows", found=split, cure="prepare(..., protocol=...)"
            )
        else:
            ranges = [getattr(part, split) for part in self.segments]
        return ForecastWindows(self.series, ranges, self.context, horizon or self.horizon, stride)

    def latest(self, horizon: int | None = None) -> dict[str, Tensor]:
        """One batch with the last context of every series, for forecasts of what comes next.

        Returns:
            x (B, L, C), x_mark (B, L, F), y_mark (B, H, F), past (B, L, P), series (B,) and
            origin (B,), where B is the number of series.

        Raises:
            InputError: fewer rows than the context, or marks that don't reach the horizon.
        """
        steps, length = horizon or self.horizon, self.context
        for one in self.series:
            if len(one) < length:
                raise InputError(
                    f"series '{one.id}' is shorter than the context",
                    found=f"{len(one)} rows",
                    expected=f"at least {length}",
                    cure="give more rows, or use a model with a shorter context",
                )
            if len(one.marks) < len(one) + steps:
                raise InputError(
                    f"the marks of series '{one.id}' end {len(one.marks) - len(one)} steps after its last row",
                    expected=f"{steps} steps",
                    cure=f"prepare(..., future={steps})",
                )
        return {
            "x": torch.stack([one.target[-length:] for one in self.series]),
            "x_mark": torch.stack([one.marks[len(one) - length : len(one)] for one in self.series]),
            "y_mark": torch.stack([one.marks[len(one) : len(one) + steps] for one in self.series]),
            "past": torch.stack([one.past[-length:] for one in self.series]),
            "series": torch.arange(len(self.series)),
            "origin": torch.tensor([len(one) for one in self.series]),
        }

    def inverse(self, values: Tensor | np.ndarray, series: Sequence[int] | np.ndarray | Tensor | int) -> np.ndarray:
        """Scaled values (B, ..., C) in the units of the table, float64.

        Args:
            values: scaled values.
            series: (B,) number of the series of each entry, or one number for all.
        """
        which = np.broadcast_to(np.asarray(series), (len(values),))
        mean = np.stack([scaler.mean for scaler in self.scalers])[which]
        scale = np.stack([scaler.scale for scaler in self.scalers])[which]
        array = torch.as_tensor(values).detach().cpu().double().numpy()
        middle = (len(which), *([1] * (array.ndim - 2)), mean.shape[1])
        return array * scale.reshape(middle) + mean.reshape(middle)

    def spread(self, series: Sequence[int] | np.ndarray | Tensor | int) -> np.ndarray:
        """(B, C) what one scaled unit is in the units of the table."""
        return np.stack([scaler.scale for scaler in self.scalers])[np.atleast_1d(np.asarray(series))]

    def state(self) -> dict[str, Any]:
        """All statistics as plain lists, for config.json and `prepare(..., fitted=...)`."""
        return self._state


def prepare(
    table: SeriesTable,
    *,
    context: int,
    horizon: int,
    protocol: str | None = "ratio:0.7,0.1,0.2",
    fitted: Mapping[str, Any] | None = None,
    future: int = 0,
    future_known: Literal["error", "last"] = "error",
    scaling: Scaling = "global",
) -> Prepared:
    """Split, scale and mark a table; statistics come from the training rows' measured values only.

    Args:
        table: what `read_table` gave.
        context, horizon: rows that a window sees and forecasts.
        protocol: how to split (see `segments`), or None: no split, statistics from all rows.
        fitted: the `state()` of an earlier preparation, applied instead of new statistics.
        future: steps after the last row whose marks are needed.
        future_known: what to do when the known columns end earlier: stop, or repeat their last row (said in notes).
        scaling: one scale for all series, or one a series (for panels of very different sizes).

    Raises:
        InputError: too few rows, other columns or another step than the fitted ones, a known future that is too short.

    Complexity: O(rows x columns).

    Example:
        >>> import numpy as np, pandas as pd
        >>> from pipelines.data.formats.table import read_table
        >>> frame = pd.DataFrame({"y": np.arange(100.0)}, index=pd.date_range("2024-01-01", periods=100, freq="h"))
        >>> ready = prepare(read_table(frame), context=12, horizon=4)
        >>> {split: len(ready.windows(split)) for split in ("train", "val", "test")}
        {'train': 55, 'val': 7, 'test': 17}
    """
    cuts = None
    if protocol is not None:
        cuts = [segments(len(one), protocol, context, horizon, name=_where(table, one)) for one in table.series]
    notes: list[str] = []
    train = (
        [one.slice(0, cut.train[1]) for one, cut in zip(table.series, cuts, strict=True)]
        if cuts
        else list(table.series)
    )
    if fitted is None:
        state = _fit(table, train, scaling)
        notes += _still_notes(table, train)
    else:
        state = dict(fitted)
        _check_same(table, state)
    scalers = _target_scalers(table, train, state, notes)
    past, known = CovariateScaler.from_state(state["past_scale"]), CovariateScaler.from_state(state["known_scale"])
    encoder = StaticEncoder.from_state(state["static_levels"])
    series = []
    for one, scaler in zip(table.series, scalers, strict=True):
        notes += [
            f"series '{one.id}': '{one.static[name]}' in the static column '{name}' is new"
            for name in encoder.unknown(one.static)
        ]
        marks, time = _marks(table, one, known, encoder, future, future_known, notes)
        series.append(
            PreparedSeries(
                one.id,
                _tensor(scaler.transform(one.target)),
                torch.from_numpy(one.observed.copy()),
                _tensor(past.transform(one.past)),
                marks,
                time,
            )
        )
    return Prepared(
        series,
        cuts,
        context,
        horizon,
        table.freq,
        table.targets,
        table.known,
        table.past,
        table.static,
        len(calendar_names(table.freq)),
        scalers,
        notes,
        state,
    )


def _where(table: SeriesTable, one: TimeSeries) -> str:
    return table.source if len(table.series) == 1 else f"{table.source}, series '{one.id}'"


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _fit(table: SeriesTable, train: list[TimeSeries], scaling: Scaling) -> dict[str, Any]:
    rows = [len(one) for one in train]
    shared = Standardizer().fit([one.target for one in train], [one.observed for one in train], table.targets)
    state: dict[str, Any] = {name: list(getattr(table, name)) for name in _COLUMNS}
    state |= {"freq": table.freq, "scaling": scaling, "target_scale": shared.state()}
    if scaling == "series":
        state["series_scale"] = {one.id: _own_scale(table, one).state() for one in train}
    state["past_scale"] = CovariateScaler().fit([one.past for one in train]).state()
    state["known_scale"] = CovariateScaler().fit([one.known[:n] for one, n in zip(train, rows, strict=True)]).state()
    state["static_levels"] = StaticEncoder(table.static).fit([one.static for one in train]).state()
    return state


def _own_scale(table: SeriesTable, one: TimeSeries) -> Standardizer:
    return Standardizer().fit([one.target], [one.observed], table.targets)


def _still_notes(table: SeriesTable, train: list[TimeSeries]) -> list[str]:
    """Targets that never change in the training rows keep their scale: their forecasts are in plain units."""
    notes = []
    for one in train:
        still = [name for name, spread in zip(table.targets, np.ptp(one.target, axis=0), strict=True) if spread == 0]
        if still:
            notes.append(
                f"series '{one.id}': {', '.join(still[:5])} never changes in the training rows and is not scaled"
            )
    return notes


def _check_same(table: SeriesTable, state: Mapping[str, Any]) -> None:
    """A stored state fits a table with the same columns in the same order and the same step."""
    for part in _COLUMNS:
        given, wanted = list(getattr(table, part)), list(state[part])
        if given != wanted:
            missing = [name for name in wanted if name not in given]
            extra = [name for name in given if name not in wanted]
            parts = [f"missing: {', '.join(missing[:8])}"] * bool(missing) + [
                f"not expected: {', '.join(extra[:8])}"
            ] * bool(extra)
            raise InputError(
                f"the table's {part} columns are not those of the model",
                where=table.source,
                found="; ".join(parts) or "another order",
                expected=", ".join(wanted[:20]) or "none",
                cure="set --columns.target, --columns.known, --columns.past and --columns.drop as in training",
            )
    if table.freq != state["freq"]:
        raise InputError(
            "the table's step of time is not that of the model",
            where=table.source,
            found=table.freq,
            expected=state["freq"],
            cure=f"--resample {state['freq']}, or train a model for {table.freq}",
        )


def _target_scalers(
    table: SeriesTable, train: list[TimeSeries], state: Mapping[str, Any], notes: list[str]
) -> list[Standardizer]:
    if state["scaling"] == "global":
        shared = Standardizer.from_state(state["target_scale"])
        return [shared] * len(table.series)
    stored = state["series_scale"]
    new = [one.id for one in train if one.id not in stored]
    if new:
        notes.append(f"{len(new)} series that the model has not seen are scaled by their own rows, such as '{new[0]}'")
    return [Standardizer.from_state(stored[one.id]) if one.id in stored else _own_scale(table, one) for one in train]


def _marks(
    table: SeriesTable,
    one: TimeSeries,
    scaler: Standardizer,
    encoder: StaticEncoder,
    future: int,
    future_known: Literal["error", "last"],
    notes: list[str],
) -> tuple[Tensor, Any]:
    steps = max(future, len(one.future_time))
    time = one.time.append(next_stamps(one.time[-1], table.freq, steps)) if steps else one.time
    known = one.known
    short = len(time) - len(known) if table.known else 0
    if short > 0 and future_known == "error":
        raise InputError(
            f"the known columns end {len(one.future_time)} steps after the last target",
            where=_where(table, one),
            found=f"values up to {one.future_time[-1] if len(one.future_time) else one.time[-1]}",
            expected=f"{', '.join(table.known[:5])} for {future} more steps, up to {time[-1]}",
            cure="append rows with the known columns filled and the targets empty, or make them --columns.past",
        )
    if short > 0:
        notes.append(f"series '{one.id}': known columns end early, their last row was repeated for {short} steps")
        known = np.concatenate([known, np.repeat(known[-1:], short, axis=0)])
    scaled = scaler.transform(known) if table.known else np.empty((len(time), 0))
    static = np.broadcast_to(encoder.encode(one.static), (len(time), encoder.width))
    return _tensor(np.concatenate([calendar_features(time, table.freq), scaled, static], axis=1)), time
