"""Read a table of time series: wide or long, from a file, pandas or sktime."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipelines.data.errors import InputError
from pipelines.data.formats import table_clean as clean
from pipelines.data.formats.table_clean import Missing, OnDuplicate
from pipelines.data.formats.table_freq import canonical
from pipelines.data.formats.table_options import ColumnOptions
from pipelines.data.formats.table_read import Raw, read_raw
from pipelines.data.formats.table_roles import Roles, find_roles, static_values, to_numbers
from pipelines.data.formats.table_time import to_time
from pipelines.data.formats.table_types import SeriesTable, TimeSeries

__all__ = ["ColumnOptions", "SeriesTable", "TimeSeries", "read_table"]

ONE_SERIES = "series"


def read_table(
    source: Any,
    *,
    columns: ColumnOptions | None = None,
    freq: str | None = None,
    resample: str | None = None,
    on_duplicate: OnDuplicate = "error",
    missing: Missing = "ffill",
    constant: Literal["error", "keep"] = "error",
) -> SeriesTable:
    """Read time series and bring them onto a regular grid, saying in `notes` what was done.

    Two layouts are recognised: long (`unique_id, ds, y` and further columns) and wide (`date` and a column a variable).

    Args:
        source: path (CSV, TSV, also .gz, .bz2, .xz, .zip; Parquet), pandas DataFrame or Series, or an sktime container.
        columns: roles of the columns; what is not said is recognised.
        freq: step of time, recognised by default.
        resample: average onto this step first (for irregular stamps).
        on_duplicate: what to do with repeated stamps.
        missing: empty cells and missing steps take the last value before them (ffill: uses the past only), are
            interpolated (looks ahead), or are an error.
        constant: whether a target that never changes is an error.

    Returns:
        Series with targets (T, C), `observed` telling measured from filled values, past (T, P) and known (T + K, F).

    Raises:
        InputError: what cannot be read, with file, row, column and the cure.

    Complexity: O(rows x columns) and one sort a series.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"date": ["2024-01-01", "2024-01-02", "2024-01-04"], "load": [3.0, 5.0, 4.0]})
        >>> table = read_table(frame)
        >>> table.freq, table.rows, table.series[0].target[:, 0].tolist()
        ('D', 4, [3.0, 5.0, 5.0, 4.0])
        >>> table.notes[0]
        '1 missing steps inserted, the longest gap has 1'
    """
    columns = columns or ColumnOptions()
    _check_choices(on_duplicate, missing, constant)
    text_columns = tuple(name for name in (columns.id, *columns.static, *columns.drop) if name)
    raw = read_raw(source, text_columns, columns.time)
    _mend_static(raw, columns)
    roles = find_roles(raw, columns)
    time = to_time(raw, roles.time, columns.timezone, columns.date_format)
    values = to_numbers(raw, roles.numeric)
    tally = clean.Tally()
    series = [
        clean.in_order(raw, one, tally, "mean" if resample else on_duplicate)
        for one in _split(raw, roles, time, values)
    ]
    if resample:
        tally.duplicates = 0
        step = canonical(resample, where="resample")
        series = [clean.resampled(raw, one, step, tally) for one in series]
    else:
        step = canonical(freq) if freq else clean.common_freq(raw, series)
    regular = [clean.regular(raw, one, step, tally) for one in series]
    done = tuple(_finish(raw, one, roles, missing, tally) for one in regular)
    notes = raw.notes + tally.notes(missing, on_duplicate, resample, sum(len(one) for one in done))
    notes += _constants(raw, done, roles, constant)
    return SeriesTable(
        done, roles.target, roles.known, roles.past, roles.static, step, raw.name, tuple(notes), roles.id is None
    )


def _check_choices(on_duplicate: str, missing: str, constant: str) -> None:
    choices = {
        "on_duplicate": (on_duplicate, ("error", "first", "last", "mean")),
        "missing": (missing, ("ffill", "interpolate", "error")),
        "constant": (constant, ("error", "keep")),
    }
    for name, (given, allowed) in choices.items():
        if given not in allowed:
            raise InputError("unknown choice", where=name, found=repr(given), expected=", ".join(allowed))


def _mend_static(raw: Raw, columns: ColumnOptions) -> None:
    """Static columns were read as words: those that are numbers throughout become numbers."""
    for name in columns.static:
        if name in raw.frame.columns and not pd.api.types.is_numeric_dtype(raw.frame[name].dtype):
            numbers = pd.Series(pd.to_numeric(raw.frame[name].astype(object), errors="coerce"))
            if bool((numbers.notna() | raw.frame[name].isna()).all()):
                raw.frame[name] = numbers.astype("float64")


def _split(raw: Raw, roles: Roles, time: pd.DatetimeIndex, values: np.ndarray) -> list[clean.Rows]:
    if roles.id is None:
        return [clean.Rows(ONE_SERIES, time, values, np.arange(len(time)))]
    ids = raw.frame[roles.id]
    if ids.isna().any():
        at = int(ids.isna().to_numpy().argmax())
        raise InputError(
            f"{int(ids.isna().sum())} rows do not name their series, the first is {raw.place(at)}",
            where=raw.name,
            expected=f"a name in column '{roles.id}'",
            cure="fill it in or remove the rows",
        )
    codes, names = pd.factorize(ids.astype(str))
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
    parts = [order[a:b] for a, b in pairwise(bounds)]
    return [clean.Rows(str(name), time[rows], values[rows], rows) for name, rows in zip(names, parts, strict=True)]


def _finish(raw: Raw, one: clean.Rows, roles: Roles, missing: Missing, tally: clean.Tally) -> TimeSeries:
    end = clean.split_future(raw, one, roles, tally)
    whole = clean.filled(raw, one, roles.numeric, end, missing, tally)
    targets, known = len(roles.target), len(roles.target) + len(roles.known)
    return TimeSeries(
        id=one.id,
        time=one.time[:end],
        target=np.ascontiguousarray(whole[:, :targets]),
        observed=~np.isnan(one.values[:end, :targets]),
        past=np.ascontiguousarray(whole[:, known:]),
        known=np.concatenate([whole[:, targets:known], one.values[end:, targets:known]]),
        future_time=one.time[end:],
        static=static_values(raw, roles, np.unique(one.rows), one.id),
    )


def _constants(raw: Raw, series: tuple[TimeSeries, ...], roles: Roles, constant: str) -> list[str]:
    """Columns that never change: a target stops the reading, others are said."""
    notes = []
    for one in series:
        flat = np.ptp(one.target, axis=0) == 0 if len(one) > 1 else np.zeros(one.target.shape[1], bool)
        for name in np.asarray(roles.target)[flat]:
            if constant == "error":
                drop = f"--columns.drop {name}" if roles.id is None else f"leave series '{one.id}' out"
                raise InputError(
                    f"the target '{name}' of series '{one.id}' never changes",
                    where=raw.name,
                    found=f"{one.target[0, roles.target.index(name)]:g} in all {len(one):,} steps",
                    expected="a series that varies",
                    cure=drop,
                )
            notes.append(f"the target '{name}' of series '{one.id}' never changes")
    if series:
        for part, names in (("past", roles.past), ("known", roles.known)):
            ranges = [np.ptp(getattr(one, part), axis=0) == 0 for one in series if len(one)]
            for name, still in zip(names, np.all(ranges, axis=0), strict=True):
                if still:
                    notes.append(f"the {part} column '{name}' never changes and so says nothing")
    return notes
