"""Actions in a table beside a film: a row a frame, or rows with numbers of frames or with times."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.decoding import decoded
from pipelines.data.formats.document_bytes import stored_bytes
from pipelines.data.formats.episodes_roles import Column

__all__ = ["ActionTable", "read_actions"]

_LIMIT_MB = 512.0
_FRAME = ("frame", "frame_id", "frame_index", "frame_number", "index", "step", "t")
_TIME = ("time", "time_s", "seconds", "sec", "timestamp", "t_s", "pts_time")
_MOST_COLUMNS = 4096
_LAYOUT = "a header of names, then a row of actions a frame; perhaps a column frame or time_s"


@dataclass(frozen=True, eq=False)
class ActionTable:
    """The actions of a table as it has them.

    Args:
        name: of the file.
        columns: (R,) numbers or texts each.
        frames: (R,) numbers of frames, or None.
        times: (R,) s, or None.
        notes: what was decided.
    """

    name: str
    columns: tuple[Column, ...]
    frames: NDArray[np.int64] | None
    times: NDArray[np.float64] | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows R."""
        return len(self.columns[0].values)

    def aligned(
        self, count: int, times: NDArray[np.float64] | None, notes: list[str], *, as_stored: bool = True
    ) -> tuple[Column, ...]:
        """The actions of `count` frames, in their order.

        Args:
            count: T.
            times: (T,) s since the first frame; needed by a table of times.
            notes: gets how rows were given to frames, counted.
            as_stored: whether the frames are all those of the film; else their numbers are others.

        Returns:
            Columns of T or T - 1 actions.

        Raises:
            InputError: rows and frames of other counts (both are named); frames without an action or with two; times
                that fall, or that begin after the first frame; numbers of frames where only some were taken.

        Complexity: O(R log R + T).

        Example:
            >>> move = Column("move", np.array(["left", "right", "left"]))
            >>> table = ActionTable("a.csv", (move,), None, np.array([0.0, 0.5, 0.9]), ())
            >>> notes = []
            >>> table.aligned(4, np.array([0.0, 0.4, 0.8, 1.2]), notes)[0].values.tolist(), notes
            (['left', 'left', 'right'], ['a.csv: the action in force at each frame (3 rows, 1 of them at no frame)'])
        """
        if self.times is not None:
            return self._taken(self._by_time(count, times, notes))
        if not as_stored:
            raise InputError(
                "actions by number of frame need all frames of the film",
                where=self.name,
                found="frames taken at another rate",
                cure="leave out the frame rate (fps), or give times of actions (a column time_s)",
            )
        if self.frames is not None:
            return self._taken(self._by_frame(count, notes))
        if len(self) not in (count, count - 1):
            raise self._other_length(f"{len(self):,} rows of actions", count)
        return self.columns

    def _taken(self, rows: NDArray[np.int64]) -> tuple[Column, ...]:
        return tuple(Column(column.name, column.values[rows]) for column in self.columns)

    def _other_length(self, found: str, count: int) -> InputError:
        return InputError(
            "actions of another length than the film",
            where=self.name,
            found=f"{found} for {count:,} frames",
            expected=f"{count - 1:,} (one between neighbours) or {count:,}",
            cure="give the actions of this film, or a column frame or time_s",
        )

    def _by_frame(self, count: int, notes: list[str]) -> NDArray[np.int64]:
        """The row of each frame by the numbers in the table, which count from 0 or from 1."""
        frames = np.zeros(0, np.int64) if self.frames is None else self.frames
        known, first, many = np.unique(frames, return_index=True, return_counts=True)
        if (many > 1).any():
            found = f"frame {int(known[many > 1][0])} {int(many.max())} times"
            raise InputError("two actions for one frame", where=self.name, found=found, expected="one")
        low, high = int(known[0]), int(known[-1])
        base = 1 if low == 1 and high >= count - 1 else 0
        if low < base or high - base > count - 1:
            raise self._other_length(f"actions of frames {low:,} to {high:,}", count)
        wanted = np.arange(base, max(high, base + count - 2) + 1)
        missing = np.setdiff1d(wanted, known)
        if len(missing):
            found = f"{len(missing):,} of {count - 1:,} frames without an action, the first is {int(missing[0])}"
            raise InputError("frames without an action", where=self.name, found=found, expected="one each")
        if base:
            notes.append(f"{self.name}: frames are numbered from 1")
        if (np.diff(frames) < 0).any():
            notes.append(f"{self.name}: rows brought into the order of frames")
        return first[np.searchsorted(known, wanted)]

    def _by_time(self, count: int, times: NDArray[np.float64] | None, notes: list[str]) -> NDArray[np.int64]:
        """The row in force at each frame but the last: the last one that is not later."""
        own = np.zeros(0) if self.times is None else self.times
        if times is None or len(times) != count:
            cure = "say the frame rate (fps), or give numbers of frames (a column frame)"
            raise InputError("times of actions, and frames without times", where=self.name, cure=cure)
        if (np.diff(own) < 0).any():
            place = int(np.argmax(np.diff(own) < 0)) + 1
            found = f"{own[place]:g} s after {own[place - 1]:g} s"
            raise InputError("times of actions fall", where=self.name, found=found, expected="rising times")
        slack = 1e-3  # s: times are written with three decimals
        rows = np.searchsorted(own, times[: count - 1] + slack, side="right") - 1
        if count > 1 and rows[0] < 0:
            found, expected = f"{own[0]:g} s", f"{times[0]:g} s or before, the time of the first frame"
            raise InputError("the first action comes too late", where=self.name, found=found, expected=expected)
        step = float(np.median(np.diff(times))) if count > 1 else 0.0
        if count > 1 and own[-1] < times[count - 2] - max(10 * step, float(np.diff(own).max(initial=0.0)) * 2):
            raise self._other_length(f"actions up to {own[-1]:g} s of {times[-1]:g} s", count)
        lost = len(self) - len(np.unique(rows))
        notes.append(
            f"{self.name}: the action in force at each frame ({len(self):,} rows, {lost:,} of them at no frame)"
        )
        return rows.astype(np.int64)


def read_actions(path: pathlib.Path) -> ActionTable:
    """Read a table of actions, separated by commas, semicolons or tabs, with a header.

    Columns called frame (index, step, t) or time_s (time, seconds, timestamp) tell which frame a row belongs to; all
    others are actions: numbers, or texts, which are kinds.

    Raises:
        InputError: no header, no column of actions, rows with other numbers of cells, an empty cell, numbers and
            texts in one column, numbers that are not finite.

    Complexity: O(cells).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.csv")
        ...     _ = path.write_text("frame,push,key\\n0,0.5,up\\n1,-1,down\\n")
        ...     table = read_actions(path)
        >>> [column.name for column in table.columns], table.frames.tolist(), table.columns[0].values.tolist()
        (['push', 'key'], [0, 1], [0.5, -1.0])
    """
    notes: list[str] = []
    expected = "a text table"
    text = decoded(stored_bytes(path, _LIMIT_MB), path.name, notes, problem="not a text table", expected=expected)
    rows = _rows(text, path.name)
    line, head = next(rows, (1, []))
    head = [cell.strip() for cell in head]
    if not head:
        raise InputError("the file is empty", where=path.name, expected=_LAYOUT)
    if len(head) > _MOST_COLUMNS:
        raise InputError("too many columns", where=path.name, found=len(head), expected=f"at most {_MOST_COLUMNS}")
    if all(_is_number(cell) for cell in head):
        found = ", ".join(head)[:60]
        cure = "add a line with the names of the actions"
        raise InputError(
            "the first line holds numbers, not names", where=path.name, found=found, expected=_LAYOUT, cure=cure
        )
    twice = sorted({name for name in head if head.count(name) > 1})
    if twice or "" in head:
        problem = "two columns have the same name" if twice else "a column without a name"
        raise InputError(problem, where=path.name, found=repr(twice[0]) if twice else ", ".join(head)[:60])
    cells: list[list[str]] = [[] for _ in head]
    lines: list[int] = []
    for line, row in rows:
        if len(row) != len(head):
            where = f"{path.name}, line {line}"
            raise InputError("another number of cells", where=where, found=len(row), expected=len(head))
        lines.append(line)
        for own, cell in zip(cells, row, strict=True):
            own.append(cell.strip())
    if not lines:
        raise InputError("no rows", where=path.name, found=f"a header in line {line}", expected=_LAYOUT)
    return _table(path.name, head, cells, lines, notes)


def _table(
    name: str, head: Sequence[str], cells: Sequence[Sequence[str]], lines: Sequence[int], notes: list[str]
) -> ActionTable:
    frames: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    columns: list[Column] = []
    for title, own in zip(head, cells, strict=True):
        word = title.lower().replace(" ", "_")
        values = _values(name, title, own, lines)
        if word in _FRAME and frames is None and values.dtype.kind == "i":
            frames = values.astype(np.int64)
        elif (word in _TIME or word == "t") and times is None and values.dtype.kind in "if":
            times = values.astype(np.float64)
        elif word in (*_FRAME, *_TIME):
            notes.append(f"{name}: the column {title} is not used")
        else:
            columns.append(Column(title, values))
    if not columns:
        raise InputError("no column of actions", where=name, found=", ".join(head)[:80], expected=_LAYOUT)
    if frames is not None and times is not None:
        notes.append(f"{name}: rows by time; the numbers of frames are not used")
        frames = None
    return ActionTable(name, tuple(columns), frames, times, tuple(notes))


def _values(
    name: str, title: str, cells: Sequence[str], lines: Sequence[int]
) -> NDArray[np.int64 | np.float64 | np.str_]:
    """A column as whole numbers, numbers or texts."""
    empty = next((line for line, cell in zip(lines, cells, strict=True) if not cell), None)
    if empty is not None:
        where = f"{name}, line {empty}, {title}"
        raise InputError(
            "an empty cell", where=where, expected="an action", cure="write 0 or a word where nothing was done"
        )
    numbers = [_is_number(cell) for cell in cells]
    if not any(numbers):
        return np.array(cells)
    if not all(numbers):
        place = numbers.index(False)
        where, found = f"{name}, line {lines[place]}, {title}", repr(cells[place][:40])
        raise InputError("numbers and texts in one column", where=where, found=found, expected="one of both")
    values = np.array([float(cell) for cell in cells])
    if not np.isfinite(values).all():
        where = f"{name}, line {lines[int(np.argmin(np.isfinite(values)))]}, {title}"
        raise InputError("a number that is not finite", where=where, expected="finite numbers")
    whole = all(cell.lstrip("+-").isdigit() and len(cell) < 17 for cell in cells)
    return np.array([int(cell) for cell in cells], np.int64) if whole else values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that has any."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    mark = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=mark)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        where = f"{name}, line {reader.line_num}"
        raise InputError("not readable CSV", where=where, found=str(error)[:80], expected=_LAYOUT) from error
