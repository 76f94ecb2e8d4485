"""What reading a table gives: regular series without gaps, and a record of everything that was done to get there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.data.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True, eq=False)
class TimeSeries:
    """One series on a regular grid of T steps, with K further steps whose known columns are filled.

    Args:
        id: name of the series.
        time: (T,) stamps, with a zone where the table has one.
        target: (T, C) float64, finite: gaps are filled.
        observed: (T, C) bool, True where the value was measured and not filled.
        past: (T, P) float64, finite.
        known: (T + K, F) float64, finite.
        future_time: (K,) stamps after the last target.
        static: one number or word for each static column.
    """

    id: str
    time: pd.DatetimeIndex
    target: np.ndarray
    observed: np.ndarray
    past: np.ndarray
    known: np.ndarray
    future_time: pd.DatetimeIndex
    static: Mapping[str, str | float]

    def __len__(self) -> int:
        return len(self.time)

    def slice(self, start: int, stop: int) -> TimeSeries:
        """Rows start to stop; the known future stays only when the slice reaches the end."""
        start, stop, _ = slice(start, stop).indices(len(self))
        to_end = stop == len(self)
        return replace(
            self,
            time=self.time[start:stop],
            target=self.target[start:stop],
            observed=self.observed[start:stop],
            past=self.past[start:stop],
            known=self.known[start:] if to_end else self.known[start:stop],
            future_time=self.future_time if to_end else self.future_time[:0],
        )


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """Several series with the same columns and the same step, and what was noticed while reading them.

    Args:
        series: the series, in the order of their first row.
        targets, known, past, static: names of the columns of each part.
        freq: step as a pandas alias, such as h, 15min, D, B, W-MON, MS.
        source: file or kind of object that was read.
        notes: what was filled, sorted, converted or left out, with counts.
        wide: True for one series a file with a column a variable, False for a long table.
    """

    series: tuple[TimeSeries, ...]
    targets: tuple[str, ...]
    known: tuple[str, ...]
    past: tuple[str, ...]
    static: tuple[str, ...]
    freq: str
    source: str
    notes: tuple[str, ...]
    wide: bool

    @property
    def rows(self) -> int:
        """Steps of all series together, without the known future."""
        return sum(len(one) for one in self.series)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the series in order."""
        return tuple(one.id for one in self.series)

    def head(self, rows: int) -> SeriesTable:
        """The first rows of every series."""
        return self.slice(0, rows)

    def slice(self, start: int, stop: int | None = None) -> SeriesTable:
        """Rows start to stop of every series, with Python's rules for negative numbers."""
        cut = tuple(one.slice(start, len(one) if stop is None else stop) for one in self.series)
        return replace(self, series=cut)

    def select(self, ids: tuple[str, ...]) -> SeriesTable:
        """Only the named series, in the order given.

        Raises:
            InputError: a name that the table doesn't have.
        """
        by_id = {one.id: one for one in self.series}
        unknown = [name for name in ids if name not in by_id]
        if unknown:
            raise InputError(
                "no such series", where=self.source, found=unknown[0], expected=", ".join(list(by_id)[:10])
            )
        return replace(self, series=tuple(by_id[name] for name in ids))

    def future_index(self, series: int | TimeSeries, horizon: int) -> pd.DatetimeIndex:
        """The (horizon,) stamps after a series' last row, in its zone.

        Args:
            series: the series or its position.
            horizon: number of steps.
        """
        from pipelines.data.formats.table_freq import next_stamps

        one = self.series[series] if isinstance(series, int) else series
        return next_stamps(one.time[-1], self.freq, horizon)
