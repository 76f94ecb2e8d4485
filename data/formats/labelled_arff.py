"""ARFF as the UEA and UCR archives ship it: an attribute a time step, or one relational attribute, then the class."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_text import read_lines, to_numbers, without_end
from pipelines.data.formats.labelled_types import LabelledSeries

__all__ = ["read_arff"]

_EXPECTED = "an ARFF file: @relation, @attribute lines, @data, then one example a line"
_NUMERIC = ("numeric", "real", "integer")
_ATTRIBUTE = re.compile(r"""@attribute\s+('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s{]+)\s*(.+)$""", re.IGNORECASE)
_TOKEN = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]*?)\s*(,|$)""")


@dataclasses.dataclass
class _Header:
    steps: int  # numeric attributes: time steps of the longest series
    relational: bool
    classes: tuple[str, ...]
    start: int


def read_arff(path: pathlib.Path) -> LabelledSeries:
    r"""One `.arff` file, also .gz, .bz2, .xz or .zip, univariate or with one relational attribute.

    `?` and NaN are NaN. ARFF gives all series as many steps as the longest: steps at the end in which no variable has
    a value do not belong to the series, and are counted in the notes.

    Args:
        path: the file.

    Returns:
        One (V, T) series a line of the body, named by its place from 0 on, and its label.

    Raises:
        InputError: no nominal class at the end, text attributes, sparse rows, other numbers of values than
            attributes, a label that the header does not list (the line is named); damaged, empty, binary files.

    Complexity: O(characters).

    Example:
        >>> import tempfile
        >>> text = "@relation r\n@attribute a relational\n@attribute t0 numeric\n@attribute t1 numeric\n@end a\n"
        >>> text += "@attribute class {up,down}\n@data\n'1,2\\n3,4',up\n'5,?\\n6,?',down"
        >>> with tempfile.TemporaryDirectory() as base:
        ...     path = pathlib.Path(base, "a.arff")
        ...     _ = path.write_text(text)
        ...     read = read_arff(path)
        >>> [one.shape for one in read.series], read.labels
        ([(2, 2), (2, 1)], ('up', 'down'))
    """
    lines, notes = read_lines(path, _EXPECTED)
    header = _header(lines, path.name)
    series: list[NDArray[np.float64]] = []
    labels: list[str] = []
    shorter = 0
    for number in range(header.start, len(lines)):
        line = lines[number].strip()
        if not line or line.startswith("%"):
            continue
        where = f"{path.name}, line {number + 1}"
        values = _relational(line, header, labels, where) if header.relational else _plain(line, header, labels, where)
        if series and len(values) != len(series[0]):
            raise InputError(
                "another number of variables",
                where=where,
                found=len(values),
                expected=f"{len(series[0])} as in the first example",
                cure="mend the line",
            )
        one = without_end(values)
        if not one.shape[1]:
            raise InputError("an example without a single value", where=where, cure="leave the line out")
        shorter += one.shape[1] < values.shape[1]
        series.append(one)
    if not series:
        raise InputError("no examples after @data", where=path.name, found=0, expected="one example a line")
    if shorter:
        notes.append(f"{shorter} series end before step {header.steps}: the steps after their last value left out")
    return LabelledSeries.of(series, labels=labels, source=path.name, notes=notes)


def _header(lines: list[str], name: str) -> _Header:
    steps, relational, inside = 0, False, False
    classes: tuple[str, ...] = ()
    for number, raw in enumerate(lines):
        line = raw.strip()
        if not line or line.startswith("%"):
            continue
        where, keyword = f"{name}, line {number + 1}", line.split()[0].lower()
        if keyword == "@data":
            if not classes or not steps:
                raise _no_class(name, "numeric attributes only" if steps else "no attributes")
            return _Header(steps, relational, classes, number + 1)
        if keyword == "@end":
            inside = False
        elif keyword == "@attribute":
            kind = _kind(line, where)
            if classes:
                raise _no_class(where, f"{line[:40]} after the class")
            if kind.startswith("{"):
                classes = _nominal(kind, where)
            elif kind.lower() == "relational" and not steps and not relational:
                relational = inside = True
            elif kind.lower().split()[0] in _NUMERIC and (inside or not relational):
                steps += 1
            else:
                raise InputError(
                    "an attribute of a kind that is not read",
                    where=where,
                    found=line[:60],
                    expected="numeric attributes, or one relational attribute of them, then the nominal class",
                    cure="leave the attribute out",
                )
        elif keyword != "@relation":
            raise InputError("not a line of an ARFF header", where=where, found=line[:40], expected=_EXPECTED)
    raise InputError("no line @data", where=name, expected=_EXPECTED, cure="check that the file was copied whole")


def _no_class(where: str, found: str) -> InputError:
    return InputError(
        "the last attribute is no class",
        where=where,
        found=found,
        expected="@attribute NAME {CLASS,CLASS,...} as the last attribute",
        cure="put the class last; sets for regression are not read",
    )


def _kind(line: str, where: str) -> str:
    match = _ATTRIBUTE.match(line)
    if match is None:
        raise InputError("an attribute without name or kind", where=where, found=line[:60], expected=_EXPECTED)
    return match.group(2).strip()


def _nominal(kind: str, where: str) -> tuple[str, ...]:
    inner, brace, _ = kind[1:].rpartition("}")
    names = tuple(_cells(inner, where)) if brace else ()
    if not names or "" in names:
        expected = "{CLASS,CLASS,...}"
        raise InputError("not a list of classes", where=where, found=kind[:60], expected=expected)
    return names


def _cells(text: str, where: str) -> list[str]:
    """Cells between commas, without quotes; a comma inside quotes is part of the cell."""
    if "'" not in text and '"' not in text:
        return [cell.strip() for cell in text.split(",")]
    cells: list[str] = []
    place = 0
    while True:
        match = _TOKEN.match(text, place)
        if match is None:
            cure = "close the quote and put a comma after it"
            raise InputError("a quote that is not closed", where=where, found=text[place : place + 40], cure=cure)
        cells.append(_unquoted(match.group(1)))
        if match.group(2) != ",":
            return cells
        place = match.end()


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", cell[1:-1])
    return cell


def _plain(line: str, header: _Header, labels: list[str], where: str) -> NDArray[np.float64]:
    """(1, T) from `1,2,3,class`."""
    if line.startswith("{"):
        cure = "write all values of the example"
        raise InputError("sparse rows are not read", where=where, found=line[:40], cure=cure)
    cells = _cells(line, where)
    _check_count(len(cells) - 1, header, where)
    _take_label(cells[-1], header, labels, where)
    return to_numbers(cells[:-1], where)[None]


def _relational(line: str, header: _Header, labels: list[str], where: str) -> NDArray[np.float64]:
    r"""(V, T) from `'1,2\n3,4',class`, where \n are the two characters, not the end of a line."""
    quote = line[0]
    end = line.find(quote, 1) if quote in "'\"" else -1
    rest = line[end + 1 :].lstrip() if end > 0 else ""
    if end < 0 or not rest.startswith(","):
        raise InputError(
            "not an example of a relational attribute",
            where=where,
            found=line[:40],
            expected=r"'1,2,3\n4,5,6',CLASS",
            cure="mend the line; a file that was cut off in copying may end like this",
        )
    label = _cells(rest[1:], where)
    if len(label) != 1:
        raise InputError("values after the class", where=where, found=rest[:60], expected="one class at the end")
    _take_label(label[0], header, labels, where)
    rows = [part for part in line[1:end].split(r"\n") if part.strip()]
    cells = [row.split(",") for row in rows]
    for row in cells:
        _check_count(len(row), header, where)
    if not rows:
        raise InputError("an example without a single value", where=where, cure="leave the line out")
    return np.stack([to_numbers(row, where) for row in cells])


def _check_count(found: int, header: _Header, where: str) -> None:
    if found != header.steps:
        raise InputError(
            "another number of values than attributes",
            where=where,
            found=f"{found} values",
            expected=f"{header.steps}",
            cure="mend the line: a value that was not measured is written as ?",
        )


def _take_label(label: str, header: _Header, labels: list[str], where: str) -> None:
    if label not in header.classes:
        listed = ", ".join(header.classes[:12]) + (" ..." if len(header.classes) > 12 else "")
        cure = "mend the label, or add it to the class attribute of the header"
        raise InputError(
            "the label is not in the list of the header",
            where=where,
            found=repr(label[:60]),
            expected=f"one of {listed}",
            cure=cure,
        )
    labels.append(label)
