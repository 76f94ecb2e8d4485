"""Which column is what: time, series, target, known, past, static; and values as numbers."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.data.errors import InputError
from pipelines.data.formats.table_options import ColumnOptions
from pipelines.data.formats.table_read import Raw
from pipelines.data.formats.table_time import TIME_NAMES, looks_like_time

ID_NAMES = ("unique_id", "series_id", "item_id")
_TARGET_NAMES = ("y", "value", "target")
_WORDS = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Roles:
    """Names of the columns of each part; `id` is None for a wide table."""

    time: str
    id: str | None
    target: tuple[str, ...]
    known: tuple[str, ...]
    past: tuple[str, ...]
    static: tuple[str, ...]

    @property
    def numeric(self) -> tuple[str, ...]:
        """Columns with a value a step."""
        return (*self.target, *self.known, *self.past)


def find_roles(raw: Raw, columns: ColumnOptions) -> Roles:
    """Roles from the options, then from names, then from contents.

    Raises:
        InputError: an option that names no column (did you mean), two roles for one column, no time, no target.
    """
    names = list(raw.frame.columns)
    _check_names(raw, columns, names)
    time = columns.time or raw.time or _find_time(raw, names)
    ids = columns.id or raw.id or _match(names, ID_NAMES)
    taken = {time, ids, *columns.target, *columns.known, *columns.past, *columns.static, *columns.drop}
    rest = tuple(name for name in names if name not in taken)
    target = columns.target or _find_target(raw, names, rest, long=ids is not None)
    past = columns.past + tuple(name for name in rest if name not in target)
    return Roles(time, ids, target, columns.known, past, columns.static)


def _check_names(raw: Raw, columns: ColumnOptions, names: list[str]) -> None:
    asked: dict[str, str] = {}
    single = {"time": columns.time, "id": columns.id}
    many = {
        "target": columns.target,
        "known": columns.known,
        "past": columns.past,
        "static": columns.static,
        "drop": columns.drop,
    }
    wanted = [(role, name) for role, name in single.items() if name is not None]
    wanted += [(role, name) for role, group in many.items() for name in group]
    for role, name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.5)
            raise InputError(
                f"no column '{name}'",
                where=f"{raw.name}, columns.{role}",
                found=", ".join(names[:20]),
                cure=f"did you mean '{near[0]}'?" if near else "choose one of the columns",
            )
        if name in asked:
            raise InputError(
                f"column '{name}' has two roles",
                where="columns",
                found=f"{asked[name]} and {role}",
                cure="name it once",
            )
        asked[name] = role


def _match(names: list[str], wanted: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), None)


def _find_time(raw: Raw, names: list[str]) -> str:
    found = _match(names, TIME_NAMES)
    if found is not None:
        return found
    if looks_like_time(raw.frame[names[0]]):
        return names[0]
    raise InputError(
        "no time column",
        where=raw.name,
        found=", ".join(names[:20]),
        expected=f"a column {', '.join(TIME_NAMES[:5])} ...",
        cure="name it with --columns.time",
    )


def _find_target(raw: Raw, names: list[str], rest: tuple[str, ...], *, long: bool) -> tuple[str, ...]:
    # Prophet's and Nixtla's layout has one target called y; without it and without series' names every column is one.
    prophet = not long and not raw.indexed and "ds" in names and "y" in rest
    if (long and not raw.indexed) or prophet:
        named = _match(list(rest), _TARGET_NAMES)
        if named is not None:
            return (named,)
        numeric = tuple(name for name in rest if pd.api.types.is_numeric_dtype(raw.frame[name].dtype))
        if len(numeric) == 1:
            return numeric
        raise InputError(
            "no target column",
            where=raw.name,
            found=", ".join(rest) or "no other columns",
            expected="a column y",
            cure="name it with --columns.target",
        )
    if not rest:
        raise InputError("no target column", where=raw.name, found=", ".join(names), expected="columns with values")
    return rest


def to_numbers(raw: Raw, names: tuple[str, ...]) -> np.ndarray:
    """(N, columns) float64 of the named columns; empty cells are NaN, true and false 1 and 0.

    Raises:
        InputError: text (column, row and value are named), infinite values (column and row).
    """
    values = np.empty((len(raw.frame), len(names)))
    for place, name in enumerate(names):
        values[:, place] = _numbers(raw, name)
    infinite = np.isinf(values)
    if infinite.any():
        row, place = (int(axis[0]) for axis in np.nonzero(infinite))
        raise InputError(
            f"{int(infinite.sum())} infinite values, the first in column '{names[place]}', {raw.place(row)}",
            where=raw.name,
            found=values[row, place],
            expected="finite numbers",
            cure="mend them or leave the cells empty",
        )
    return values


def _numbers(raw: Raw, name: str) -> np.ndarray:
    column = raw.frame[name]
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        return column.to_numpy(dtype="float64", na_value=np.nan)
    present = column.notna().to_numpy()
    numbers = pd.Series(pd.to_numeric(column.astype(object), errors="coerce"))
    words = column.astype(str).str.strip().str.lower().map(_WORDS)
    values = numbers.astype("float64").where(numbers.notna(), words).to_numpy(dtype="float64", na_value=np.nan)
    bad = present & np.isnan(values)
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or column.dtype.kind in "mc":
        bad = present
    if bad.any():
        raise _text(raw, name, bad)
    return values


def _text(raw: Raw, name: str, bad: np.ndarray) -> InputError:
    at = int(bad.argmax())
    count = int(bad.sum())
    many = f"{count} texts" if count > 1 else "text"
    return InputError(
        f"{many} in the value column '{name}', the first in {raw.place(at)}",
        where=raw.name,
        found=repr(str(raw.frame[name].iloc[at])[:60]),
        expected="a number or an empty cell",
        cure=f"mend the cell, or leave the column out with --columns.drop {name}; if it says something about a whole "
        f"series: --columns.static {name}, if it names the series: --columns.id {name}",
    )


def static_values(raw: Raw, roles: Roles, rows: np.ndarray, series: str) -> dict[str, str | float]:
    """The one value of each static column within a series.

    Raises:
        InputError: a static column that changes within a series, or is empty.
    """
    values: dict[str, str | float] = {}
    for name in roles.static:
        column = raw.frame[name].iloc[rows].dropna()
        distinct = column.unique()
        if len(distinct) != 1:
            found = ", ".join(map(str, distinct[:3])) or "nothing"
            raise InputError(
                f"the static column '{name}' must have one value for series '{series}'",
                where=raw.name,
                found=found,
                expected="one value",
                cure=f"make it --columns.known {name}, --columns.past {name} or --columns.drop {name}",
            )
        values[name] = distinct[0] if isinstance(distinct[0], str) else float(distinct[0])
    return values
