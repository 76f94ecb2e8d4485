"""What was shown in a run: events.tsv of BIDS, read strictly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pipelines.data.datasets.brain_tables import TextTable, missing, read_text_table
from pipelines.data.datasets.brain_types import Events
from pipelines.data.errors import InputError

__all__ = ["events_or_none", "make_events", "read_events"]

_MAX_BYTES = 64 << 20


def read_events(path: Path, column: str = "trial_type") -> Events:
    """The events of a run, sorted by onset.

    Args:
        path: a table with the columns `onset` (s), `duration` (s, or n/a) and the one that names what was shown.
        column: that one's name.

    Returns:
        The events; its `notes` count rows that name nothing (left out), onsets before the scan and a table that was
        not in order.

    Raises:
        InputError: a column that is not there, an onset that is no number, a duration that is none or negative, no
            row.

    Complexity: O(E log E).

    Source: BIDS specification 1.10, "Events".

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     path = Path(base, "a_events.tsv")
        ...     _ = path.write_text("onset\\tduration\\ttrial_type\\n12.5\\t22.5\\tface\\n")
        ...     read_events(path).onset.tolist()
        [12.5]
    """
    events = events_or_none(path, column)
    if events is None:
        columns = ", ".join(read_text_table(path, limit=_MAX_BYTES).columns)
        raise _no_column(path, column, columns)
    return events


def events_or_none(path: Path, column: str) -> Events | None:
    """As :func:`read_events`; None where the table has no such column, which BIDS leaves optional.

    Raises:
        InputError: as there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     path = Path(base, "a_events.tsv")
        ...     _ = path.write_text("onset\\tduration\\n12.5\\t22.5\\n")
        ...     events_or_none(path, "trial_type") is None
        True
    """
    table = read_text_table(path, limit=_MAX_BYTES)
    if table.column(column) is None:
        return None
    onsets = _numbers(table, path, "onset")
    durations = _numbers(table, path, "duration")
    place = _place(table, path, column)
    rows = [(onset, length, row[place]) for onset, length, row in zip(onsets, durations, table.rows, strict=True)]
    named = [(onset, length, kind) for onset, length, kind in rows if not missing(kind)]
    if not named:
        found = f"{len(rows)} rows" + (f", none with a {column}" if rows else "")
        raise InputError("no event in the table", where=path, found=found, cure="remove the table, or name the column")
    notes = list(table.notes)
    if len(named) < len(rows):
        notes.append(f"{path.name}: {len(rows) - len(named):,} events without {column} left out")
    onset, length, kind = zip(*named, strict=True)
    return make_events(onset, length, kind, name=path.name, notes=tuple(notes))


def make_events(
    onset: tuple[float, ...],
    duration: tuple[float, ...],
    kind: tuple[str, ...],
    *,
    name: str = "the events",
    notes: tuple[str, ...] = (),
) -> Events:
    """Events from lists, sorted and checked.

    Args:
        onset: E times in s after the start of the first volume.
        duration: E lengths in s; NaN where unknown.
        kind: E names.
        name: what messages call them.
        notes: what was counted before.

    Raises:
        InputError: lists of different length, an onset that is not finite, a negative or infinite duration.

    Complexity: O(E log E).

    Example:
        >>> make_events((36.0, 12.0), (24.0, 24.0), ("house", "face")).notes
        ('the events: not in the order of their onsets; sorted',)
    """
    if not len(onset) == len(duration) == len(kind):
        found = f"{len(onset)} onsets, {len(duration)} durations, {len(kind)} names"
        raise InputError("lists of different length", where=name, found=found)
    start, length = np.asarray(onset, np.float64), np.asarray(duration, np.float64)
    bad = np.flatnonzero(~np.isfinite(start) | np.isinf(length) | (length < 0))
    if len(bad):
        found = f"event {bad[0] + 1}: onset {start[bad[0]]:g}, duration {length[bad[0]]:g}; {len(bad)} such events"
        raise InputError("an event without a place in time", where=name, found=found, expected="s, 0 or longer")
    order = np.argsort(start, kind="stable")
    said = list(notes)
    if (order != np.arange(len(order))).any():
        said.append(f"{name}: not in the order of their onsets; sorted")
    early = int((start < 0).sum())
    if early:
        said.append(f"{name}: {early:,} events begin before the first volume")
    return Events(start[order], length[order], tuple(str(kind[place]) for place in order), tuple(said), name)


def _no_column(path: Path, column: str, columns: str) -> InputError:
    return InputError(f"no column {column!r}", where=path, found=columns, cure="name the column: --study.column NAME")


def _place(table: TextTable, path: Path, column: str) -> int:
    place = table.column(column)
    if place is None:
        raise _no_column(path, column, ", ".join(table.columns))
    return place


def _numbers(table: TextTable, path: Path, column: str) -> list[float]:
    place = _place(table, path, column)
    values: list[float] = []
    for line, row in zip(table.lines, table.rows, strict=True):
        cell = row[place]
        if column == "duration" and missing(cell):
            values.append(math.nan)
            continue
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (column == "duration" and value < 0):
            expected = "s, 0 or longer, or n/a" if column == "duration" else "s after the first volume's start"
            raise InputError(
                f"not a time in the column {column}", where=path, found=f"{cell!r} in line {line}", expected=expected
            )
        values.append(value)
    return values
