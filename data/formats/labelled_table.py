"""Long tables: one row a time step, columns that name the series, its label and its group, the rest are variables."""

from __future__ import annotations

import pathlib
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_cells import cell_numbers
from pipelines.data.formats.labelled_roles import Roles, label_text, nearest
from pipelines.data.formats.labelled_types import LabelledSeries
from pipelines.data.formats.table_read import Raw, read_raw

__all__ = ["read_frame", "read_long"]

_NAMES = {
    "id": ("id", "series", "series_id", "unique_id", "case_id"),
    "labels": ("label", "class", "target", "y"),
    "time": ("time", "timestamp", "t", "step"),
    "group": ("subject", "group", "participant"),
}


def read_long(path: pathlib.Path, roles: Roles) -> LabelledSeries:
    """A long table from a CSV (also .gz, .bz2, .xz, .zip) or Parquet file; see `read_frame`."""
    # Names of series and labels stay as they are written: 007 is no number, NA may be a name.
    words = [name for role in ("id", "labels", "group") for name in _candidates(role, getattr(roles, role))]
    spelled = tuple(form for name in words for form in (name, name.capitalize(), name.upper(), name.title()))
    return _build(read_raw(path, spelled, roles.time), roles)


def read_frame(frame: pd.DataFrame, roles: Roles) -> LabelledSeries:
    """A long table with one row a time step.

    Args:
        frame: a column that names the series, and optionally columns of its label, of the time, by which rows are put
            in order within a series, and of its group; all other columns are variables, so they hold numbers.
        roles: names of these columns; what is not given is recognised by the usual names, and said in the notes.

    Returns:
        (V, T) series in the order in which their names first appear; empty cells are NaN.

    Raises:
        InputError: no column that names the series; a label or group that changes within a series; text in a variable
            (column and row are named); repeated or missing times.

    Complexity: O(rows x columns) and one sort a series.

    Example:
        >>> frame = pd.DataFrame({"id": [1, 1, 2], "step": [1, 0, 0], "label": ["a", "a", "b"], "x": [3.0, 4.0, 5.0]})
        >>> read = read_frame(frame, Roles())
        >>> [one.tolist() for one in read.series], read.labels
        ([[[4.0, 3.0]], [[5.0]]], ('a', 'b'))
    """
    if not len(frame):
        raise InputError("the table has no rows", where="pandas DataFrame", expected="one row a time step")
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError("two columns have the same name", where="pandas DataFrame", found=twice[0], cure="rename one")
    return _build(Raw(frame.reset_index(drop=True).set_axis(names, axis=1), "pandas DataFrame"), roles)


def _build(raw: Raw, roles: Roles) -> LabelledSeries:
    notes = list(raw.notes)
    found = {role: _find(raw, role, getattr(roles, role), notes) for role in _NAMES}
    _check_roles(raw, found)
    variables = [name for name in raw.frame.columns if name not in found.values()]
    if not variables:
        raise InputError("no variables", where=raw.name, found=", ".join(raw.frame.columns), expected="more columns")
    usual = [name for name in variables if any(name.lower() in names for names in _NAMES.values())]
    if usual:
        # A second code of the class among the variables would give the answer away.
        notes.append(f"read as variables, whatever their names say: {', '.join(usual)}")
    ids, parts = _split(raw, found["id"] or "")
    if found["time"]:
        parts = _in_order(raw, found["time"], ids, parts, notes)
    labels = _constant(raw, found["labels"], "labels", ids, parts)
    groups = _constant(raw, found["group"], "group", ids, parts)
    if labels is None:
        notes.append("no column of labels was found")
    values = np.stack([cell_numbers(raw, name, labelled=labels is not None) for name in variables])
    return LabelledSeries.of(
        [values[:, rows] for rows in parts],
        labels=labels,
        source=raw.name,
        variables=variables,
        ids=ids,
        groups=groups,
        notes=notes,
    )


def _candidates(role: str, named: str | None) -> tuple[str, ...]:
    return _NAMES[role] if named is None else (named,)


def _find(raw: Raw, role: str, named: str | None, notes: list[str]) -> str | None:
    names = list(raw.frame.columns)
    if named is not None:
        if named not in names:
            raise InputError(
                f"no column '{named}'",
                where=f"{raw.name}, {role}",
                found=", ".join(names[:20]),
                cure=nearest(named, names) or "choose one of the columns",
            )
        return named
    found = [name for name in names if name.lower() in _NAMES[role]]
    axes = {name.lower() for name in names}
    # Beside x the column y is a coordinate, and beside a column called label it is one as well.
    weak = [name for name in found if name.lower() == "y"]
    if len(found) > 1 or "x" in axes:
        found = [name for name in found if name not in weak]
    if len(found) > 1:
        raise InputError(
            f"more than one column could be the {role.removesuffix('s')}",
            where=raw.name,
            found=", ".join(found),
            expected="one",
            cure=f"name it with {role}=, and leave columns out that are no variables",
        )
    if found:
        notes.append(f"column '{found[0]}' taken as {role}")
        return found[0]
    if role == "id":
        raise InputError(
            "no column names the series",
            where=raw.name,
            found=", ".join(names[:20]),
            expected=f"one row a time step and a column {', '.join(_NAMES['id'])}",
            cure="name it with id=; a table with one series a row is read as .ts, or as an array (n, variables, time)",
        )
    return None


def _check_roles(raw: Raw, found: dict[str, str | None]) -> None:
    seen: dict[str, str] = {}
    for role, name in found.items():
        if name in seen:
            roles = f"{seen[name]} and {role}"
            raise InputError(f"column '{name}' has two roles", where=raw.name, found=roles, cure="name it once")
        if name is not None:
            seen[name] = role


def _split(raw: Raw, column: str) -> tuple[list[str], list[NDArray[np.intp]]]:
    """Names of the series as they first appear, and the rows of each in their order."""
    codes, _ = pd.factorize(raw.frame[column], use_na_sentinel=True)
    if (codes < 0).any():
        first = int((codes < 0).argmax())
        raise InputError(
            f"{int((codes < 0).sum())} rows do not name their series, the first is {raw.place(first)}",
            where=raw.name,
            expected=f"a name in column '{column}'",
            cure="fill it in or remove the rows",
        )
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(int(codes.max()) + 2))
    parts = [order[a:b] for a, b in pairwise(bounds)]
    where = f"{raw.name}, column '{column}'"
    return [label_text(raw.frame[column].iloc[rows[0]], where) for rows in parts], parts


def _in_order(
    raw: Raw, column: str, ids: list[str], parts: list[NDArray[np.intp]], notes: list[str]
) -> list[NDArray[np.intp]]:
    times = _times(raw, column)
    moved = uneven = 0
    done = []
    for name, rows in zip(ids, parts, strict=True):
        order = np.argsort(times[rows], kind="stable")
        sorted_rows, steps = rows[order], np.diff(times[rows][order])
        if (steps == 0).any():
            row = int(sorted_rows[int((steps == 0).argmax()) + 1])
            raise InputError(
                f"series '{name}' has one time twice",
                where=raw.name,
                found=f"{raw.frame[column].iloc[row]} in {raw.place(row)}",
                expected="each time once within a series",
                cure="leave one of the rows out, or name the right column with id=",
            )
        moved += bool((np.diff(order) < 0).any())
        uneven += bool(len(steps) and steps.max() > 1.01 * steps.min())
        done.append(sorted_rows)
    if moved:
        notes.append(f"rows of {moved} series put in the order of '{column}'")
    if uneven:
        notes.append(f"{uneven} series have unequal steps of '{column}': only the order of their rows is used")
    return done


def _times(raw: Raw, column: str) -> NDArray[np.float64]:
    """Times as numbers, whose differences are steps."""
    given = raw.frame[column]
    if pd.api.types.is_datetime64_any_dtype(given.dtype):
        numbers, empty = given.astype("int64").to_numpy(np.float64), given.isna().to_numpy()
    else:
        parsed = pd.Series(pd.to_numeric(given.astype(object), errors="coerce")).astype("float64")
        if parsed.isna().all():
            stamps = pd.Series(pd.to_datetime(given.astype(object), errors="coerce", format="ISO8601", utc=True))
            numbers, empty = stamps.astype("int64").to_numpy(np.float64), stamps.isna().to_numpy()
        else:
            numbers, empty = parsed.to_numpy(), ~np.isfinite(parsed.to_numpy())
    if empty.any():
        row = int(empty.argmax())
        raise InputError(
            f"{int(empty.sum())} rows without a time, the first is {raw.place(row)}",
            where=f"{raw.name}, column '{column}'",
            found=repr(str(given.iloc[row])[:40]),
            expected="numbers, or stamps like 2024-03-01 12:30:00",
            cure="mend the cells, or name another column with time=",
        )
    return numbers


def _constant(
    raw: Raw, column: str | None, role: str, ids: list[str], parts: list[NDArray[np.intp]]
) -> list[str] | None:
    """The one value that each series has in a column."""
    if column is None:
        return None
    codes, _ = pd.factorize(raw.frame[column], use_na_sentinel=True)
    texts = []
    for name, rows in zip(ids, parts, strict=True):
        other = np.flatnonzero(codes[rows] != codes[rows[0]])
        if len(other):
            first, second = (raw.frame[column].iloc[int(row)] for row in (rows[0], rows[other[0]]))
            raise InputError(
                f"the {role.removesuffix('s')} changes within series '{name}'",
                where=f"{raw.name}, column '{column}'",
                found=f"{first}, then {second} in {raw.place(int(rows[other[0]]))}",
                expected="one value in all rows of a series",
                cure=f"mend it, or name the right columns with id= and {role}=",
            )
        where = f"{raw.name}, column '{column}', series '{name}'"
        texts.append(label_text(raw.frame[column].iloc[int(rows[0])], where))
    return texts
