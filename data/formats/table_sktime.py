"""pandas and sktime containers (pd.Series, pd.DataFrame, pd-multiindex, pd_multiindex_hier) as plain columns."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pipelines.data.errors import InputError
from pipelines.data.formats.table_read import Raw


def from_pandas(source: pd.DataFrame | pd.Series, time_column: str | None = None) -> Raw:
    """Columns of a frame whose time is a column, or of an sktime container whose time is the index.

    Levels of a MultiIndex above the time become one name, joined by '/'.

    Raises:
        InputError: an index that is no time and no column that is.
    """
    if isinstance(source, pd.Series):
        frame = source.to_frame(name="y" if source.name is None else source.name)
    else:
        frame = source
    name = f"pandas {type(source).__name__}"
    if isinstance(frame.columns, pd.MultiIndex):
        raise InputError("columns with several levels", where=name, cure="join the levels to one name")
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        return _hierarchical(frame, index, name)
    if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        return _one_series(frame, index, name)
    if isinstance(source, pd.Series) or (time_column is None and not _has_text_or_time(frame)):
        raise InputError(
            "the index is no time",
            where=name,
            found=f"{type(index).__name__} and no column of dates",
            expected="a DatetimeIndex, a PeriodIndex or a column of dates",
            cure="give it one: frame.index = pandas.date_range(start, periods=len(frame), freq='h')",
        )
    return Raw(frame.reset_index(drop=True), name)


def _has_text_or_time(frame: pd.DataFrame) -> bool:
    return any(not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes)


def _free_name(wanted: Any, fallback: str, taken: list[str]) -> str:
    name = str(wanted) if wanted is not None else fallback
    while name in taken:
        name += "_"
    return name


def _stamps(index: pd.Index) -> pd.DatetimeIndex:
    return index.to_timestamp() if isinstance(index, pd.PeriodIndex) else pd.DatetimeIndex(index)


def _one_series(frame: pd.DataFrame, index: pd.DatetimeIndex | pd.PeriodIndex, name: str) -> Raw:
    columns = [str(column) for column in frame.columns]
    time = _free_name(index.name, "time", columns)
    out = frame.reset_index(drop=True)
    out.insert(0, time, _stamps(index))
    notes = [f"periods of {index.freqstr} stand at their start"] if isinstance(index, pd.PeriodIndex) else []
    return Raw(out, name, notes, time=time, indexed=True)


def _hierarchical(frame: pd.DataFrame, index: pd.MultiIndex, name: str) -> Raw:
    last = index.levels[-1]
    if not isinstance(last, pd.DatetimeIndex | pd.PeriodIndex):
        raise InputError(
            "the last level of the index is no time",
            where=name,
            found=type(last).__name__,
            expected="a DatetimeIndex or a PeriodIndex",
            cure="give the last level dates",
        )
    columns = [str(column) for column in frame.columns]
    time = _free_name(index.names[-1], "time", columns)
    ids = _free_name(None, "unique_id", [*columns, time])
    upper = [index.get_level_values(level).astype(str) for level in range(index.nlevels - 1)]
    out = frame.reset_index(drop=True)
    out.insert(0, time, _stamps(index.get_level_values(-1)))
    out.insert(0, ids, ["/".join(parts) for parts in zip(*upper, strict=True)])
    return Raw(out, name, time=time, id=ids, indexed=True)
