"""What the text formats of labelled series share: lines of a file, numbers of a line, ends without values."""

from __future__ import annotations

import pathlib
import re

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.table_bytes import read_bytes
from pipelines.data.formats.table_read import check_file

_LIMIT = float(np.finfo(np.float32).max)


def read_lines(path: pathlib.Path, expected: str) -> tuple[list[str], list[str]]:
    """Lines of a plain or compressed text file, and what was noticed.

    Args:
        path: the file; .gz, .bz2, .xz and .zip are opened.
        expected: what the file should be, for messages.

    Raises:
        InputError: missing, empty or damaged files, and files that are not text.
    """
    check_file(path)
    content, note = read_bytes(path)
    notes = [note] if note else []
    if not content.strip():
        raise InputError("the file is empty", where=path.name, expected=expected)
    text = _decode(content, path.name, expected, notes)
    # Not splitlines(): it also breaks at characters that are letters or spaces in a line.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), notes


def _decode(content: bytes, name: str, expected: str, notes: list[str]) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "latin-1")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        control = re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text)
        if control:
            line = text.count("\n", 0, control.start()) + 1
            raise InputError(
                "not a text file",
                where=name,
                found=f"the control character {control.group()!r} in line {line}",
                expected=expected,
                cure="check what kind of file this is, or copy it again",
            )
        if encoding == "latin-1":
            notes.append("not UTF-8: read as Latin-1")
        return text
    raise InputError("not a text file", where=name, found="damaged UTF-16", expected=expected)


def to_numbers(cells: list[str], where: str) -> NDArray[np.float64]:
    """(T,) values of the cells of one line; '?' and NaN are NaN.

    Args:
        cells: texts as they stand between the separators.
        where: file and line, for messages.

    Raises:
        InputError: a cell that is no finite number that fits float32; its place is named.

    Example:
        >>> to_numbers(["1", " 2.5", "?"], "a.ts, line 9").tolist()
        [1.0, 2.5, nan]
    """
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        values = np.array([np.nan if cell.strip() == "?" else _number(cell) for cell in cells])
    bad = np.flatnonzero(~np.isnan(values) & ~(np.abs(values) <= _LIMIT))
    if not len(bad):
        # Python reads 1_000 as a number; in data it is a slip.
        bad = [i for i, cell in enumerate(cells) if "_" in cell]
    if len(bad):
        first = int(bad[0])
        raise InputError(
            f"value {first + 1} of {len(cells)} is no number",
            where=where,
            found=repr(cells[first].strip()[:60]),
            expected="a finite number, or ? where nothing was measured",
            cure="mend the line; a file that was cut off in copying may end like this",
        )
    return values


def _number(cell: str) -> float:
    """The number, or infinity where there is none: infinite values are refused in any case."""
    try:
        return float(cell)
    except ValueError:
        return np.inf


def without_end(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(V, T) without the steps after the last one in which any variable was measured; nothing left means (V, 0).

    Formats of rectangular tables have no other way to say that a series is shorter than the longest.

    Example:
        >>> without_end(np.array([[1.0, np.nan, 3.0, np.nan]])).shape
        (1, 3)
    """
    seen = np.flatnonzero(~np.isnan(values).all(axis=0))
    return values[:, : int(seen[-1]) + 1 if len(seen) else 0]
