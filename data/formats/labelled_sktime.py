"""Containers in memory: sktime's panels, aeon's lists, NumPy arrays, each with labels beside it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_roles import Roles, label_text
from pipelines.data.formats.labelled_table import read_frame
from pipelines.data.formats.labelled_types import LabelledSeries

__all__ = ["read_container"]

_EXPECTED = (
    "a path, NumPy (n, variables, time) or (n, time), a list of (variables, time) arrays, a long table, "
    "or an sktime panel (nested_univ, pd-multiindex, df-list, numpy3D, numpyflat); with labels as (X, y)"
)


def read_container(source: Any, roles: Roles) -> LabelledSeries:
    """Series of an object in memory.

    Args:
        source: X, or (X, y) with one label a series. X is a NumPy array (n, V, T) or (n, T), a list of (V, T) arrays
            as in aeon, of which one-dimensional ones have one variable, an sktime panel, which sktime itself checks
            and converts, or a long table (`labelled_table.read_frame`).
        roles: columns of a long table.

    Raises:
        InputError: another kind of object, a panel that sktime refuses, variables of different length in one series,
            labels that are empty, of another number, or in another order than the series.

    Example:
        >>> read = read_container((np.zeros((2, 3, 5)), ["up", "down"]), Roles())
        >>> len(read), read.series[0].shape, read.labels
        (2, (3, 5), ('up', 'down'))
    """
    given, y = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    if isinstance(given, pd.DataFrame) and _is_table(given, roles):
        if y is not None:
            cure = "give X alone, with the labels as a column"
            raise InputError("a long table has its labels in a column", where="(X, y)", found="y beside it", cure=cure)
        return read_frame(_flat(given), roles)
    if roles.given:
        found = ", ".join(roles.given)
        cure = "leave these out; give labels as (X, y)"
        raise InputError("only tables and NPZ have named columns", where="read_labelled", found=found, cure=cure)
    series, variables, ids, name = _panel(given)
    notes = [] if y is not None else ["no labels were given"]
    labels = None if y is None else _labels(y, ids, len(series))
    return LabelledSeries.of(series, labels=labels, source=name, variables=variables, ids=ids, notes=notes)


def _is_table(frame: pd.DataFrame, roles: Roles) -> bool:
    if isinstance(frame.index, pd.MultiIndex):
        texts = any(not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes)
        return frame.index.nlevels == 2 and (bool(roles.given) or texts)
    return not _is_nested(frame)


def _is_nested(frame: pd.DataFrame) -> bool:
    return bool(frame.size) and any(isinstance(cell, pd.Series | np.ndarray) for cell in frame.iloc[0])


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """A panel with columns for label or group as a long table: the levels of its index become columns."""
    if not isinstance(frame.index, pd.MultiIndex):
        return frame
    usual = ("id", "time")
    return frame.reset_index(names=[level or name for level, name in zip(frame.index.names, usual, strict=True)])


def _panel(given: Any) -> tuple[list[NDArray], list[str] | None, list[str] | None, str]:
    """Series, names of variables and of series, and what to call the source."""
    if isinstance(given, np.ndarray) and given.dtype != object:
        return _array(given), None, None, "NumPy array"
    if isinstance(given, pd.DataFrame):
        kind = "nested_univ" if _is_nested(given) else "pd-multiindex"
        return _through_sktime(given, kind)
    if isinstance(given, list | tuple | np.ndarray) and len(given):
        if all(isinstance(one, pd.DataFrame) for one in given):
            return _through_sktime(list(given), "df-list")
        if all(isinstance(one, np.ndarray) for one in given):
            return [_one(one, place) for place, one in enumerate(given)], None, None, "list of arrays"
    kind = f"{type(given).__module__}.{type(given).__name__}"
    if isinstance(given, Sequence) and len(given):
        kind += f" of {type(given[0]).__name__}"
    raise InputError("no series that can be read", where="read_labelled", found=kind, expected=_EXPECTED)


def _array(values: NDArray) -> list[NDArray]:
    """sktime's numpy3D and numpyflat are plain arrays: no need to import sktime for seconds."""
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiub":
        found = f"shape {values.shape}, dtype {values.dtype}"
        raise InputError("another kind of array", where="NumPy array", found=found, expected=_EXPECTED)
    return list(values if values.ndim == 3 else values[:, None])


def _one(values: NDArray, place: int) -> NDArray:
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiub":
        found = f"shape {values.shape}, dtype {values.dtype}"
        expected = "(variables, time), or (time,) for one variable"
        raise InputError("another kind of array", where=f"series {place} of the list", found=found, expected=expected)
    return np.atleast_2d(values)


def _through_sktime(given: Any, kind: str) -> tuple[list[NDArray], list[str], list[str] | None, str]:
    from sktime.datatypes import check_is_mtype, convert_to

    name = f"sktime {kind}"
    ids = _ids(given, kind)
    if kind == "nested_univ":
        _check_ragged(given, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sktime's own deprecations of what it calls itself
        try:
            valid, message = check_is_mtype(given, kind, "Panel", return_metadata=True)[:2]
            frames = convert_to(given, "df-list", as_scitype="Panel") if valid else []
        except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            valid, message, frames = False, str(error), []
    if not valid:
        found = " ".join(str(message).split())[:200]
        raise InputError("not a panel by sktime's rules", where=name, found=found, expected=_EXPECTED)
    names = [str(column) for column in frames[0].columns]
    for place, frame in enumerate(frames):
        if [str(column) for column in frame.columns] != names:
            found = ", ".join(map(str, frame.columns))
            raise InputError(
                f"series {place} has other columns than the first", where=name, found=found, expected=", ".join(names)
            )
    return [frame.to_numpy(dtype=np.float64, na_value=np.nan).T for frame in frames], names, ids, name


def _ids(given: Any, kind: str) -> list[str] | None:
    """Names of the series where the container has an index of them."""
    if kind == "df-list":
        return None
    index = given.index
    level = index.get_level_values(0).unique() if isinstance(index, pd.MultiIndex) else index
    return [str(name) for name in level]


def _check_ragged(frame: pd.DataFrame, name: str) -> None:
    """sktime fills variables of different length with NaN; which steps belong together is then a guess."""
    for row, cells in enumerate(frame.itertuples(index=False)):
        lengths = [len(cell) if isinstance(cell, pd.Series | np.ndarray) else 0 for cell in cells]
        if len(set(lengths)) > 1:
            raise InputError(
                "the variables of one example have different lengths",
                where=f"{name}, series '{frame.index[row]}'",
                found=", ".join(map(str, lengths[:12])),
                expected="as many values for every variable of an example",
                cure="give the values that are missing as NaN",
            )


def _labels(y: Any, ids: list[str] | None, count: int) -> list[str]:
    if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
        y = y.iloc[:, 0]
    if isinstance(y, pd.Series) and ids is not None:
        names = [str(name) for name in y.index]
        if names != ids and sorted(names) == sorted(ids):
            cure = "y = y.loc[the order of X]"
            raise InputError("y stands in another order than X", where="(X, y)", found="other index", cure=cure)
    values = y.tolist() if isinstance(y, np.ndarray | pd.Series | pd.Index) else y
    if not isinstance(values, list | tuple) or any(isinstance(value, list | tuple) for value in values):
        expected = "a list, array or Series with one label a series"
        raise InputError("y is no list of labels", where="(X, y)", found=type(y).__name__, expected=expected)
    if len(values) != count:
        found = f"{len(values)} labels, {count} series"
        raise InputError("X and y have different lengths", where="(X, y)", found=found, expected="a label a series")
    return [label_text(value, f"label {place}") for place, value in enumerate(values)]
