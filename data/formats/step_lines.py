"""Steps of a series that arrives line by line: tables (comma, semicolon, tab, spaces) and JSON lines."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_roles import nearest

__all__ = ["ID_NAMES", "MISSING", "Lines", "Step", "is_value", "read_steps", "split_cells", "text_lines"]

#: Columns that name the series of a step, unless the model has a variable of that name.
ID_NAMES = ("id", "series", "series_id", "unique_id", "case_id")
#: Cells that say that there is no value, in small letters.
MISSING = frozenset({"", "?", "na", "nan", "null", "none", "n/a"})
_LARGEST = 3.4028235e38  # of float32
_LONGEST = 1 << 20  # bytes of a line: a file without line ends must not be read whole
_SHOWN = 8


class Lines(Protocol):
    """An open file, or standard input: text or bytes, a line at a time."""

    def readline(self, size: int = -1, /) -> Any:
        """The next line with its end, nothing at the end of the file, at most so many characters."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step: V values (NaN where nothing was measured), the series that it names, whether one must begin here."""

    values: list[float]
    series: str | None
    begins: bool


def read_steps(
    file: Lines,
    variables: Sequence[str],
    *,
    source: str,
    id: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[Step]:
    r"""Steps of a file as they come; a line is read when the one before it has been dealt with.

    The first line tells what the lines are: JSON (a list, or an object by name of variable), or values between commas,
    semicolons, tabs or spaces, with or without a header. By a header, columns may stand in any order and there may be
    others. An empty line begins a new series, and so does another value in the column that names the series.

    Args:
        file: open, text or bytes.
        variables: V names, the order of the values.
        source: name of the file, for messages.
        id: column that names the series; recognised by its usual names when not given.
        say: hears, once, of columns that are not used.

    Raises:
        InputError: a line that is no step, with its number, what was found and what is expected; no step at all.

    Complexity: O(V) time and memory a line.

    Example:
        >>> import io
        >>> lines = io.StringIO("b,a,id\n1,2,first\n3,,first\n\n5,6,second\n")
        >>> [(step.values, step.series, step.begins) for step in read_steps(lines, ["a", "b"], source="steps.csv")]
        [([2.0, 1.0], 'first', True), ([nan, 3.0], 'first', False), ([6.0, 5.0], 'second', True)]
    """
    layout: _Table | _Json | None = None
    begins, none = True, True
    for number, line in text_lines(file, source):
        where = f"{source}, line {number}"
        if not line.strip() and not (isinstance(layout, _Table) and layout.separator == "\t" and "\t" in line):
            begins = True  # but a line of nothing but tabs is a step without a value
            continue
        if layout is None:
            layout = (
                _Json(variables, id, say) if line.lstrip()[0] in "{[" else _Table.of(line, variables, id, where, say)
            )
            if isinstance(layout, _Table) and layout.header:
                continue
        values, series = layout.step(line, where)
        yield Step(values, series, begins)
        begins = none = False
    if none:
        raise InputError(
            "no steps", where=source, found="nothing but a header" if layout else "nothing", expected=_one(variables)
        )


def text_lines(file: Lines, source: str) -> Iterator[tuple[int, str]]:
    r"""Lines of a file as they come: (number from 1, line without its end), none longer than a MiB.

    Raises:
        InputError: a line that is too long or no text.

    Example:
        >>> import io
        >>> list(text_lines(io.BytesIO(b"1,2\r\n3,4"), "steps.csv"))
        [(1, '1,2'), (2, '3,4')]
    """
    number = 0
    while line := file.readline(_LONGEST + 1):
        number += 1
        where = f"{source}, line {number}"
        if len(line) > _LONGEST:
            raise InputError(
                "a line without an end", where=where, found=f"over {_LONGEST:,} bytes", expected="one step"
            )
        try:
            text = line if isinstance(line, str) else line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            found = f"byte {error.object[error.start]:#04x} at place {error.start + 1}"
            raise InputError("the line is no text", where=where, found=found, expected="UTF-8") from None
        yield number, text.rstrip("\r\n")


def _one(variables: Sequence[str]) -> str:
    shown = ", ".join(variables[:_SHOWN]) + (" ..." if len(variables) > _SHOWN else "")
    return f"one step a line: {len(variables)} {'number' if len(variables) == 1 else 'numbers'} ({shown})"


class _Table:
    """Lines of values between separators: where each variable stands, and where the name of the series."""

    def __init__(
        self,
        separator: str | None,
        variables: Sequence[str],
        places: list[int],
        id: int | None,
        width: int,
        header: bool,
    ) -> None:
        self.separator, self.variables, self.places = separator, variables, places
        self.id, self.width, self.header = id, width, header

    @classmethod
    def of(
        cls, line: str, variables: Sequence[str], id: str | None, where: str, say: Callable[[str], None] | None
    ) -> _Table:
        """What the first line says: names of columns, or a first step."""
        separator = next((mark for mark in "\t;," if mark in line), None)
        cells = split_cells(line, separator, where)
        if not set(variables) <= set(cells) and all(is_value(cell) for cell in cells):
            if id is not None:
                found, cure = f"numbers: {line[:60]!r}", "add a header, or drop --columns.id"
                raise InputError(f"no header, so no column '{id}'", where=where, found=found, cure=cure)
            return cls(separator, variables, list(range(len(variables))), None, len(variables), False)
        absent = [name for name in variables if name not in cells]
        if absent:
            raise InputError(
                "neither numbers nor a header with the variables of the model",
                where=where,
                found=_quoted(cells),
                expected=f"{_one(variables)}, or these names first; missing: {', '.join(absent[:_SHOWN])}",
                cure=nearest(absent[0], [cell for cell in cells if cell]) or "name the columns like the variables",
            )
        twice = next((name for name in variables if cells.count(name) > 1), None)
        if twice is not None:
            raise InputError("two columns have one name", where=where, found=twice, cure="rename one of them")
        named = _id_of(cells, variables, id, where)
        _say_unused([cell for cell in cells if cell not in variables and cell != named], named, say)
        place = None if named is None else cells.index(named)
        return cls(separator, variables, [cells.index(name) for name in variables], place, len(cells), True)

    def step(self, line: str, where: str) -> tuple[list[float], str | None]:
        """The values in the order of the variables, and the name of the series."""
        cells = split_cells(line, self.separator, where)
        if len(cells) != self.width:
            what = "cells as in the header" if self.header else "numbers"
            raise InputError(
                "another number of values than expected",
                where=where,
                found=f"{len(cells)} in {line[:60]!r}",
                expected=f"{self.width} {what}" if self.header else _one(self.variables),
                cure=_cure(where) or "mend the line",
            )
        values = [_number(cells[place], name, where) for place, name in zip(self.places, self.variables, strict=True)]
        series = None if self.id is None else cells[self.id]
        if series == "":
            raise InputError("no name of the series", where=where, found=line[:60], expected="a name in every line")
        return values, series


class _Json:
    """Lines of JSON: lists of V values, or objects by name of variable."""

    def __init__(self, variables: Sequence[str], id: str | None, say: Callable[[str], None] | None) -> None:
        self.variables, self.id, self.say = variables, id, say
        self._told = False

    def step(self, line: str, where: str) -> tuple[list[float], str | None]:
        """The values in the order of the variables, and the name of the series."""
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                "not a line of JSON",
                where=where,
                found=f"{line[:60]!r} ({str(error)[:60]})",
                expected=_one(self.variables),
            ) from None
        if isinstance(content, list):
            if len(content) != len(self.variables):
                found = f"a list of {len(content)}"
                raise InputError("another number of values", where=where, found=found, expected=_one(self.variables))
            cells, series = content, None
        elif isinstance(content, dict):
            cells, series = self._by_name(content, where)
        else:
            raise InputError(
                "neither a list nor an object", where=where, found=line[:60], expected=_one(self.variables)
            )
        return [_json_number(cell, name, where) for cell, name in zip(cells, self.variables, strict=True)], series

    def _by_name(self, content: dict[str, Any], where: str) -> tuple[list[Any], str | None]:
        absent = [name for name in self.variables if name not in content]
        if absent:
            raise InputError(
                "a variable is not in the object",
                where=where,
                found=_quoted(list(content)),
                expected=f"also {', '.join(absent[:_SHOWN])}; null where it was not measured",
                cure=nearest(absent[0], list(content)),
            )
        named = _id_of(list(content), self.variables, self.id, where)
        if not self._told:
            self._told = True
            _say_unused([name for name in content if name not in self.variables and name != named], named, self.say)
        series = None if named is None else content[named]
        if series is not None and not isinstance(series, str | int):
            raise InputError(
                "not a name of a series", where=where, found=repr(series)[:60], expected="a text or a number"
            )
        return [content[name] for name in self.variables], None if series is None else str(series)


def split_cells(line: str, separator: str | None, where: str) -> list[str]:
    """The cells of one line of a table, quoted or not; None separates by white space.

    Raises:
        InputError: quotes that do not close.

    Example:
        >>> split_cells('1, "a,b"', ",", "line 1")
        ['1', 'a,b']
    """
    if '"' not in line:
        return [cell.strip() for cell in (line.split() if separator is None else line.split(separator))]
    try:
        return [
            cell.strip()
            for cell in next(csv.reader([line], delimiter=separator or " ", skipinitialspace=True, strict=True))
        ]
    except (csv.Error, StopIteration) as error:
        raise InputError("the line cannot be split", where=where, found=f"{line[:60]!r} ({error})") from None


def is_value(cell: str) -> bool:
    """Whether a cell is a number, or says that there is none.

    Example:
        >>> is_value("1e3"), is_value("n/a"), is_value("hip_x")
        (True, True, False)
    """
    if cell.lower() in MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, name: str, where: str) -> float:
    if cell.lower() in MISSING:
        return math.nan
    try:
        value = math.inf if "_" in cell else float(cell)  # Python reads 1_000 as a number; in data it is a slip
    except ValueError:
        value = math.inf
    if not abs(value) <= _LARGEST:
        raise _no_number(repr(cell[:60]), name, where)
    return value


def _json_number(cell: Any, name: str, where: str) -> float:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return math.nan
    # Whole numbers of any size are JSON; they are compared before they are turned into a float.
    if isinstance(cell, bool) or not isinstance(cell, int | float) or not abs(cell) <= _LARGEST:
        raise _no_number(repr(cell)[:60], name, where)
    return float(cell)


def _no_number(found: str, name: str, where: str) -> InputError:
    return InputError(
        f"the value of '{name}' is no number",
        where=where,
        found=found,
        expected="a finite number, or nothing (NaN, null) where nothing was measured",
        cure="mend the line",
    )


def _id_of(names: list[str], variables: Sequence[str], id: str | None, where: str) -> str | None:
    """The column that names the series, or None."""
    if id is not None:
        if id not in names:
            cure = nearest(id, names) or "choose one of the columns"
            raise InputError(f"no column '{id}'", where=where, found=_quoted(names), cure=cure)
        return id
    found = [name for name in names if name.lower() in ID_NAMES and name not in variables]
    if len(found) > 1:
        cure = "name it with columns.id"
        raise InputError("more than one column could name the series", where=where, found=", ".join(found), cure=cure)
    return found[0] if found else None


def _say_unused(names: list[str], id: str | None, say: Callable[[str], None] | None) -> None:
    if say is None:
        return
    if id is not None:
        say(f"a new series begins where '{id}' changes")
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        plural = "column is" if len(names) == 1 else "columns are"
        say(f"{len(names)} {plural} not used: {', '.join(names[:_SHOWN])}{more}")


def _quoted(cells: Sequence[str]) -> str:
    return (", ".join(cells[:_SHOWN]) + (" ..." if len(cells) > _SHOWN else ""))[:120]


def _cure(where: str) -> str | None:
    """UCR's own files end like a table of steps, and hold one series a line."""
    if ".tsv, line" in where:
        return "a .tsv is read one step a line; save a labelled set of the UCR archive as .ts or .npz"
    return None
