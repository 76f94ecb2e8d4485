"""The `.tsv` format of the UCR archive: one univariate series a line, its label first, tabs between."""

from __future__ import annotations

import pathlib

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_text import read_lines, to_numbers, without_end
from pipelines.data.formats.labelled_types import LabelledSeries

__all__ = ["read_tsv"]

_EXPECTED = "a label, then the values of one series, separated by tabs"


def read_tsv(path: pathlib.Path) -> LabelledSeries:
    r"""One UCR `.tsv` file, also .gz, .bz2, .xz or .zip.

    NaN after the last value of a line only fills the table: the series is shorter, and the notes count how many are.

    Args:
        path: the file.

    Returns:
        One (1, T) series a line, named by its place from 0 on, and its label.

    Raises:
        InputError: no tabs, a first line with names, no label, text between the values (the line is named); damaged,
            empty, binary files.

    Complexity: O(characters).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     path = pathlib.Path(base, "a.tsv")
        ...     _ = path.write_text("1\t0.5\t0.6\n2\t0.7\tNaN")
        ...     read = read_tsv(path)
        >>> read.labels, read.lengths.tolist(), read.notes
        (('1', '2'), [2, 1], ('1 series end before the last column: the NaN after their last value left out',))
    """
    lines, notes = read_lines(path, _EXPECTED)
    series: list[NDArray[np.float64]] = []
    labels: list[str] = []
    shorter = 0
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        where = f"{path.name}, line {number + 1}"
        label, *cells = line.rstrip(" ").removesuffix("\t").split("\t")
        if not cells or not label.strip():
            found = "no label" if cells else f"no tab in {line[:40]!r}"
            cure = "long tables are read from .csv or Parquet"
            raise InputError("not a line of a UCR file", where=where, found=found, expected=_EXPECTED, cure=cure)
        if not series:
            _refuse_names(cells, where)
        values = to_numbers(cells, where)[None]
        one = without_end(values)
        if not one.shape[1]:
            raise InputError("a series without a single value", where=where, cure="leave the line out")
        shorter += one.shape[1] < values.shape[1]
        series.append(one)
        labels.append(label.strip())
    if shorter:
        notes.append(f"{shorter} series end before the last column: the NaN after their last value left out")
    return LabelledSeries.of(series, labels=labels, source=path.name, notes=notes)


def _refuse_names(cells: list[str], where: str) -> None:
    """A first line without a single number is the header of another kind of table."""
    if any(_is_number(cell) for cell in cells):
        return
    raise InputError(
        "the first line holds names, not values",
        where=where,
        found=", ".join(cells[:4])[:60],
        expected=_EXPECTED,
        cure="save a table with one row a time step as .csv, with columns id and label",
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace("?", "nan"))
    except ValueError:
        return False
    return True
