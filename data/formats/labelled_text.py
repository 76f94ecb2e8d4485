"""What the text formats of labelled series share: lines of a file, numbers of a line, ends without values."""

from __future__ import annotations

import pathlib

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.decoding import decoded
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
    text = decoded(content, path.name, notes, problem="not a text file", expected=expected)
    # Not splitlines(): it also breaks at characters that are letters or spaces in a line.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), notes


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
