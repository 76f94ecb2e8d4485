"""What stands between sktime's containers and a model: a regular grid of rows, and sizes that fit a short series."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipelines.data.datasets.forecasting import (
    CovariateScaler,
    Prepared,
    PreparedSeries,
    Segments,
    Standardizer,
    calendar_features,
)
from pipelines.data.formats.table_freq import canonical, grid, next_stamps, recognise
from pipelines.errors import ConfigError, InputError

__all__ = ["Plan", "Rows", "Scaling", "filled", "join", "matching", "plan", "prepared", "read"]

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """One series on a regular grid.

    Args:
        index: (T,) whole numbers, periods or stamps, a step apart.
        step: step of time as a pandas alias; None for whole numbers.
        y: (T, C) float64, NaN where nothing was measured. x: (T, K) float64, NaN likewise.
        names: of the C columns. covariates: of the K columns.

    Example:
        >>> rows = read(pd.DataFrame({"y": [1.0, 2.0, 4.0]}, index=[0, 1, 3]), None, notes := [])
        >>> rows.y.ravel().tolist(), list(rows.ahead(2)), notes
        ([1.0, 2.0, nan, 4.0], [4, 5], ['1 missing steps inserted'])
    """

    index: pd.Index
    step: str | None
    y: Floats
    x: Floats
    names: tuple[Any, ...]
    covariates: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.index)

    def until(self, place: Any) -> Rows:
        """The rows up to a place of the index, itself included."""
        stop = int(self.index.searchsorted(place, side="right"))
        if stop == len(self):
            return self
        return dataclasses.replace(self, index=self.index[:stop], y=self.y[:stop], x=self.x[:stop])

    def ahead(self, count: int) -> pd.Index:
        """The (count,) places after the last row."""
        last = self.index[-1]
        if isinstance(self.index, pd.PeriodIndex):
            return pd.period_range(last, periods=count + 1, freq=self.index.freq)[1:]
        if isinstance(self.index, pd.DatetimeIndex) and self.step is not None:
            return next_stamps(last, self.step, count)
        return pd.RangeIndex(last + 1, last + 1 + count)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes that a series has the rows for: context, horizon, and rows to train and to validate."""

    context: int
    horizon: int
    train: int
    val: int


def plan(rows: int, context: int, horizon: int, validation: float) -> Plan:
    """Sizes for a series; where it is too short for those asked for, smaller ones.

    The horizon takes at most a quarter of the rows; the last rows validate, a horizon at least. Where those left do
    not hold one context and horizon, the context takes half of what the horizon leaves. Nothing validates where not
    one row would be left to train on.

    Args:
        rows: T. context, horizon: rows asked for. validation: share of the rows that validates, 0 <= share < 1.

    Raises:
        ConfigError: a size that cannot be.
        InputError: fewer than two rows.

    Example:
        >>> plan(1000, 336, 96, 0.2)
        Plan(context=336, horizon=96, train=800, val=200)
        >>> plan(24, 336, 3, 0.2)
        Plan(context=8, horizon=3, train=19, val=5)
    """
    for name, value in (("context", context), ("horizon", horizon)):
        if value < 1:
            raise ConfigError("must be at least 1 row", where=name, found=value, expected="1 or more")
    if not 0.0 <= validation < 1.0:
        raise ConfigError("not a share of the rows", where="validation", found=validation, expected="0 <= share < 1")
    if rows < 2:
        raise InputError("too few rows to learn from", where="y", found=rows, expected="2 or more")
    steps = min(horizon, max(1, rows // 4))
    val = max(steps, round(validation * rows)) if validation > 0 else 0
    if rows - val < steps + 1:
        val = 0
    train = rows - val
    length = context if train >= context + steps else max(1, min(context, (train - steps) // 2))
    return Plan(length, steps, train, val)


def read(y: pd.DataFrame, x: pd.DataFrame | None, notes: list[str], step: str | None = None) -> Rows:
    """Bring sktime's frames onto a regular grid; what was missing stays NaN and is counted in the notes.

    Args:
        y: (T, C) targets. x: covariates that cover the rows of y; others of its rows are not read.
        notes: what was noticed is added here.
        step: step of the stamps where it is known already.

    Raises:
        InputError: infinite values, or stamps that fit no regular grid.
    """
    step = _step(y.index) if step is None else step
    index = _grid(y.index, step)
    if len(index) > len(y):
        notes.append(f"{len(index) - len(y)} missing steps inserted")
    return Rows(
        index,
        step,
        _floats(y.reindex(index), "y"),
        np.empty((len(index), 0)) if x is None else _floats(x.reindex(index), "X"),
        tuple(y.columns),
        () if x is None else tuple(x.columns),
    )


def join(old: Rows, y: pd.DataFrame, x: pd.DataFrame | None, notes: list[str]) -> Rows:
    """Rows with newer ones after them; where both have a row, the newer counts."""
    y_all = _newer(pd.DataFrame(old.y, index=old.index, columns=list(old.names)), y)
    x_all = None
    if old.covariates:
        x_old = pd.DataFrame(old.x, index=old.index, columns=list(old.covariates))
        x_all = _newer(x_old, matching(x, old.covariates, "update"))
    return read(y_all, x_all, notes, old.step)


def matching(x: pd.DataFrame | None, covariates: tuple[Any, ...], where: str) -> pd.DataFrame:
    """The covariates of X that the model was fitted with.

    Raises:
        InputError: no X, or one without some of them.
    """
    missing = list(covariates) if x is None else [name for name in covariates if name not in x.columns]
    if x is None or missing:
        raise InputError(
            "the covariates of fit are missing",
            where=f"X of {where}",
            found="no X" if x is None else f"without {', '.join(map(str, missing[:8]))}",
            expected=", ".join(map(str, covariates[:8])),
            cure="give the columns that fit had, or fit without X",
        )
    return x[list(covariates)]


def _newer(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([old[~old.index.isin(new.index)], new]).sort_index()


def _step(index: pd.Index) -> str | None:
    if isinstance(index, pd.PeriodIndex):
        return canonical(index.freqstr)
    if not isinstance(index, pd.DatetimeIndex):
        return None
    step = index.freqstr if index.freq is not None else recognise(index)
    if step is None:
        raise InputError(
            "the stamps fit no regular grid",
            where="y",
            found=f"{len(index)} stamps from {index[0]} to {index[-1]}",
            expected="one step of time, gaps allowed",
            cure="y = y.asfreq('D') or another step, or y.resample('D').mean()",
        )
    return canonical(step)


def _grid(index: pd.Index, step: str | None) -> pd.Index:
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(index[0], index[-1], freq=index.freq)
    if isinstance(index, pd.DatetimeIndex) and step is not None:
        return index if index.freq is not None else grid(index[0], index[-1], step)
    return pd.RangeIndex(index[0], index[-1] + 1)


def _floats(frame: pd.DataFrame, where: str) -> Floats:
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        row, column = (int(part[0]) for part in np.nonzero(np.isinf(values)))
        raise InputError(
            "infinite values",
            where=f"{where}, column '{frame.columns[column]}'",
            found=f"{values[row, column]} at {frame.index[row]}",
            expected="numbers, or NaN where there is none",
        )
    return values


def filled(values: Floats, names: tuple[Any, ...], where: str, notes: list[str]) -> Floats:
    """Empty cells take the last value before them, those before a column's first value take that; all are counted.

    Raises:
        InputError: a column without a single value.
    """
    frame = pd.DataFrame(values)
    empty = int(frame.isna().to_numpy().sum())
    if not empty:
        return values
    whole = frame.ffill()
    leading = int(whole.isna().to_numpy().sum())
    whole = whole.bfill().to_numpy()
    if np.isnan(whole).any():
        name = names[int(np.isnan(whole).any(axis=0).argmax())]
        raise InputError("a column without a single value", where=where, found=str(name), cure="leave it out")
    notes.append(f"{where}: {empty - leading} empty values filled with the last value before them")
    if leading:
        notes.append(f"{where}: {leading} empty values before a column's first one filled with it")
    return whole


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """Statistics of the training rows, and whether rows have a calendar."""

    target: Standardizer
    known: CovariateScaler
    calendar: bool

    @classmethod
    def of(cls, rows: Rows, train: int) -> Scaling:
        """Statistics over the first `train` rows; targets count where measured, covariates as they are filled."""
        names = tuple(str(name) for name in rows.names)
        seen = ~np.isnan(rows.y[:train])
        target = Standardizer().fit([rows.y[:train]], [seen], names)
        known = CovariateScaler()
        if rows.covariates:
            known = known.fit([filled(rows.x, rows.covariates, "X", [])[:train]])
        return cls(target, known, rows.step is not None)


def prepared(
    rows: Rows, scaling: Scaling, sizes: Plan, notes: list[str], ahead: Floats | None = None, future: int = 0
) -> Prepared:
    """Rows in a model's scale, with marks that reach `future` steps beyond the last row.

    Args:
        rows: T rows. scaling: of the training rows. sizes: of the model.
        notes: what was filled is added here.
        ahead: (future, K) covariates of the steps ahead.
        future: steps ahead.
    """
    target = scaling.target.transform(filled(rows.y, rows.names, "y", notes))
    known = filled(rows.x, rows.covariates, "X", notes)
    if ahead is not None:
        known = np.concatenate([known, ahead])
    elif future:
        known = np.concatenate([known, np.empty((future, 0))])
    index = rows.index.append(rows.ahead(future)) if future else rows.index
    time = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
    parts = [scaling.known.transform(known) if rows.covariates else known]
    calendar = 0
    if scaling.calendar and rows.step is not None and isinstance(time, pd.DatetimeIndex):
        parts.insert(0, calendar_features(time, rows.step))
        calendar = parts[0].shape[1]
    series = PreparedSeries(
        id="y",
        target=_tensor(target),
        observed=torch.from_numpy(~np.isnan(rows.y)),
        past=torch.zeros(len(rows), 0),
        marks=_tensor(np.concatenate(parts, axis=1)),
        time=time,  # pyright: ignore[reportArgumentType] - whole numbers serve as well, nothing here reads them
    )
    held = max(0, sizes.train - sizes.context)
    cut = Segments((0, sizes.train), (held, sizes.train + sizes.val), (len(rows), len(rows)))
    return Prepared(
        [series],
        [cut],
        sizes.context,
        sizes.horizon,
        rows.step or "",
        tuple(str(name) for name in rows.names),
        tuple(str(name) for name in rows.covariates),
        (),
        (),
        calendar,
        [scaling.target],
        notes,
    )


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
