"""The `.ts` format of the UEA and UCR archives: a header that promises, and a body that is held to it."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_text import read_lines, to_numbers
from pipelines.data.formats.labelled_types import LabelledSeries

__all__ = ["is_classification", "read_ts"]

_EXPECTED = "a .ts file: lines @name value, then @data, then one example a line"
_FLAGS = ("timestamps", "missing", "univariate", "equallength")
_COUNTS = ("dimensions", "serieslength")
_SPELLED = {"dimension": "dimensions"}  # aeon writes it without the s
_CURE = "mend the header or the line; archives have both kinds of mistakes"


@dataclasses.dataclass
class _Header:
    """What the lines before @data say; None where they say nothing."""

    name: str
    flags: dict[str, bool]
    counts: dict[str, int]
    classes: tuple[str, ...] | None
    start: int  # index of the first line of the body
    notes: list[str]


def read_ts(path: pathlib.Path) -> LabelledSeries:
    """One `.ts` file, also .gz, .bz2, .xz or .zip.

    Values that the file gives as `?` or NaN are NaN; series keep the length that they have in the file.

    Args:
        path: the file.

    Returns:
        One (V, T) series a line of the body, named by its place from 0 on, and labels if the file has them.

    Raises:
        InputError: files with time stamps or regression targets; every contradiction between header and body (its
            line is named); variables of different length in one example; damaged, empty and binary files.

    Complexity: O(characters).

    Example:
        >>> import tempfile
        >>> text = "@univariate false\\n@classLabel true up down\\n@data\\n1,2,3:4,5,?:up\\n7,8:9,10:down"
        >>> with tempfile.TemporaryDirectory() as base:
        ...     path = pathlib.Path(base, "a.ts")
        ...     _ = path.write_text(text)
        ...     read = read_ts(path)
        >>> read.lengths.tolist(), read.labels, read.missing
        ([3, 2], ('up', 'down'), 1)
    """
    lines, notes = read_lines(path, _EXPECTED)
    header = _header(lines, path.name)
    series: list[NDArray[np.float64]] = []
    labels: list[str] = []
    for number in range(header.start, len(lines)):
        line = lines[number].strip()
        if not line or line.startswith(("#", "%")):
            continue
        where = f"{path.name}, line {number + 1}"
        if header.classes is not None:
            line = _take_label(line, header.classes, labels, where)
        one = _example(line, where)
        _check(one, header, series, where)
        series.append(one)
    if not series:
        raise InputError("no examples after @data", where=path.name, found=0, expected="one example a line")
    given = labels if header.classes is not None else None
    if given is None:
        notes.append("the file has no class labels")
    return LabelledSeries.of(series, labels=given, source=path.name, notes=notes + header.notes)


def is_classification(path: pathlib.Path) -> bool:
    """Whether a `.ts` file says in its header that it has class labels; reads no further than the header."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.lower().split()
            if words and words[0] == "@classlabel":
                return words[1:2] == ["true"]
            if words and words[0] == "@data":
                return False
    return False


def _header(lines: list[str], name: str) -> _Header:
    header = _Header(name, {}, {}, None, 0, [])
    seen: dict[str, list[str]] = {}
    for number, raw in enumerate(lines):
        words = raw.split()
        if not words or words[0].startswith(("#", "%")):
            continue
        where = f"{name}, line {number + 1}"
        if not words[0].startswith("@"):
            raise InputError("data before @data", where=where, found=raw.strip()[:40], expected=_EXPECTED)
        tag = words[0][1:].lower()
        tag = _SPELLED.get(tag, tag)
        if tag == "data":
            header.start = number + 1
            return _finished(header, seen)
        if seen.setdefault(tag, words[1:]) != words[1:] and tag in (*_FLAGS, *_COUNTS, "classlabel", "targetlabel"):
            found, expected = " ".join(words)[:60], " ".join(seen[tag])[:60]
            raise InputError("a header line twice, with another value", where=where, found=found, expected=expected)
        _take_tag(header, tag, words, where)
    raise InputError("no line @data", where=name, expected=_EXPECTED, cure="check that the file was copied whole")


def _take_tag(header: _Header, tag: str, words: list[str], where: str) -> None:
    if tag in _FLAGS:
        header.flags[tag] = _flag(words, where)
        if tag == "timestamps" and header.flags[tag]:
            raise InputError(
                "the file has time stamps for each value, which are not read",
                where=where,
                found=" ".join(words),
                expected="@timeStamps false",
                cure="write the series at equal steps without stamps, or as a long table (CSV) with a column time",
            )
    elif tag in _COUNTS:
        if len(words) != 2 or not words[1].isascii() or not words[1].isdigit() or int(words[1]) < 1:
            raise InputError(f"{words[0]} needs a whole number", where=where, found=" ".join(words[1:])[:60])
        header.counts[tag] = int(words[1])
    elif tag == "classlabel":
        if _flag(words, where):
            header.classes = tuple(words[2:])
            if not header.classes:
                raise InputError(
                    "no list of classes",
                    where=where,
                    expected="@classLabel true and the names of the classes",
                    cure="list them",
                )
    elif tag == "targetlabel":
        if _flag(words, where):
            raise InputError(
                "a set for regression: its targets are numbers, not classes",
                where=where,
                found=" ".join(words),
                expected="@classLabel true and the names of the classes",
                cure="take a set for classification",
            )
    elif tag != "problemname":
        header.notes.append(f"header line {words[0]} not used")


def _flag(words: list[str], where: str) -> bool:
    value = words[1].lower() if len(words) > 1 else ""
    if value not in ("true", "false"):
        raise InputError(f"{words[0]} needs true or false", where=where, found=value or "nothing")
    return value == "true"


def _finished(header: _Header, seen: dict[str, list[str]]) -> _Header:
    if not seen.keys() & {"classlabel", "targetlabel"}:
        raise InputError(
            "the header does not say whether there are labels",
            where=header.name,
            expected="@classLabel false, or @classLabel true and the names of the classes",
            cure="add the line",
        )
    flags, counts = header.flags, header.counts
    if flags.get("univariate") and counts.get("dimensions", 1) != 1:
        raise InputError(
            "the header contradicts itself",
            where=header.name,
            found=f"@univariate true and @dimensions {counts['dimensions']}",
            expected="@univariate false for more than one dimension",
            cure="mend one of the two lines",
        )
    return header


def _take_label(line: str, classes: tuple[str, ...], labels: list[str], where: str) -> str:
    """The line without its last part, which goes to the labels."""
    values, colon, label = line.rpartition(":")
    label = label.strip()
    if not colon or label not in classes:
        near = next((name for name in classes if name.lower() == label.lower()), None)
        listed = ", ".join(classes[:12]) + (" ..." if len(classes) > 12 else "")
        raise InputError(
            "the label is not in the list of the header" if colon else "no class label at the end of the line",
            where=where,
            found=repr(label[:60]) if colon else f"no ':' in {line[:40]!r}",
            expected=f"one of {listed}",
            cure=f"did you mean '{near}'?" if near else "mend the label, or add it to the line @classLabel",
        )
    labels.append(label)
    return values


def _example(line: str, where: str) -> NDArray[np.float64]:
    """(V, T) from `1,2,3:4,5,6`."""
    parts = line.split(":")
    if "(" in line:
        cure = "write the series at equal steps without stamps"
        raise InputError("values with time stamps are not read", where=where, found=line[:40], cure=cure)
    steps = [part.count(",") + 1 if part.strip() else 0 for part in parts]
    other = next((i for i, count in enumerate(steps) if count != steps[0] or not count), None)
    if other is not None:
        raise InputError(
            "the variables of one example have different lengths" if steps[other] else "a variable without values",
            where=where,
            found=f"variable {other + 1} has {steps[other]} values, variable 1 has {steps[0]}",
            expected="as many values for every variable of an example",
            cure="give the values that are missing at the end as ?",
        )
    return to_numbers(",".join(parts).split(","), where).reshape(len(parts), steps[0])


def _check(one: NDArray[np.float64], header: _Header, before: list[NDArray[np.float64]], where: str) -> None:
    variables, steps = one.shape
    said, source = header.counts.get("dimensions"), "@dimensions"
    if said is None and header.flags.get("univariate"):
        said, source = 1, "@univariate true:"
    if said is None and before:
        said, source = before[0].shape[0], "as in the first example,"
    if said is not None and variables != said:
        raise _contradiction("another number of dimensions", where, f"{variables} dimensions", f"{source} {said}")
    if header.flags.get("univariate") is False and variables == 1:
        found = "1 dimension (if the label is missing, it was read as one)" if header.classes is None else "1 dimension"
        raise _contradiction("only one dimension", where, found, "several, because of @univariate false")
    equal = header.flags.get("equallength")
    length = header.counts.get("serieslength") if equal is not False else None
    if length is not None and steps != length:
        raise _contradiction("another length", where, f"{steps} time steps", f"@seriesLength {length}")
    if equal and before and steps != before[0].shape[1]:
        expected = f"{before[0].shape[1]} as in the first example, because of @equalLength true"
        raise _contradiction("another length", where, f"{steps} time steps", expected)
    if header.flags.get("missing") is False and np.isnan(one).any():
        variable, step = (int(axis[0]) for axis in np.nonzero(np.isnan(one)))
        found = f"no value in dimension {variable + 1}, time step {step + 1}"
        raise _contradiction("a missing value", where, found, "a value in each place, because of @missing false")


def _contradiction(problem: str, where: str, found: str, expected: str) -> InputError:
    return InputError(f"{problem}: not what the header says", where=where, found=found, expected=expected, cure=_CURE)
