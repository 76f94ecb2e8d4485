"""Comma, semicolon and tab separated text: separator, encoding and decimal sign are recognised and said."""

from __future__ import annotations

import csv
import io
import pathlib
import re

import numpy as np
import pandas as pd

from pipelines.data.errors import InputError
from pipelines.data.formats.decoding import decoded
from pipelines.data.formats.table_bytes import read_bytes
from pipelines.data.formats.table_read import Raw
from pipelines.data.formats.table_time import TIME_NAMES

ID_NAMES = ("unique_id", "series_id", "item_id")
_NA = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A", "-nan", "-NaN", "?")
_MAX_COLUMNS = 20_000
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+(?:[eE][+-]?\d+)?\s*")
_THOUSANDS = re.compile(
    r"\s*[+-]?\d{1,3}(?:(?:,\d{3}){2,}(?:\.\d+)?|,\d{3}\.\d+|(?:\.\d{3}){2,}(?:,\d+)?|\.\d{3},\d+)\s*"
)


def read_text(path: pathlib.Path, text_columns: tuple[str, ...], time_column: str | None) -> Raw:
    """One separated table from a file.

    Raises:
        InputError: not text, ragged rows (the line is named), thousands separators, damaged archives.
    """
    content, note = read_bytes(path)
    return from_bytes(content, path.name, [note] if note else [], text_columns, time_column)


def from_bytes(
    content: bytes, name: str, notes: list[str], text_columns: tuple[str, ...], time_column: str | None
) -> Raw:
    """The same from the bytes of a file."""
    text = decoded(content, name, notes, problem="not a text table", expected="CSV, TSV or Parquet")
    # Not splitlines(): it also breaks at characters that are letters or spaces in a cell.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    start = next((i for i, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise InputError("the file is empty", where=name, expected="a header line and rows")
    separator = _separator(lines[start : start + 50], name)
    header = _header(lines[start:], separator, name)
    numbers = _check_widths(lines, start, separator, len(header), name, quoted='"' in text)
    body = "\n".join(lines[start:])
    words = {
        name for name in header if name in (*text_columns, time_column) or name.lower() in (*ID_NAMES, *TIME_NAMES)
    }
    sample = _sample(lines[start + 1 :], separator)
    decimal = _decimal(sample, separator, header, words, name, notes)
    frame = _parse(body, separator, decimal, header, words, name)
    raw = Raw(frame, name, notes, _line_numbers(frame, numbers, start))
    return _drop_unnamed(_drop_empty_rows(raw))


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return line.split(separator)


def _separator(lines: list[str], name: str) -> str:
    """The sign that cuts the first lines into the same number of pieces; more pieces win."""
    filled = [line for line in lines if line.strip()]
    best, width = ",", 1
    for candidate in (";", "\t", ","):
        counts = [len(_split(line, candidate)) for line in filled[:20]]
        if len(set(counts)) == 1 and counts[0] > width:
            best, width = candidate, counts[0]
    if width > 1:
        return best
    counts = {candidate: len(_split(filled[0], candidate)) for candidate in (";", "\t", ",")}
    best = max(counts, key=lambda sign: counts[sign])
    if counts[best] == 1:
        raise InputError(
            "one column only",
            where=name,
            found=filled[0][:60],
            expected="a time column and values, separated by , ; or tab",
            cure="check the separator; values without time stamps cannot be used",
        )
    return best


def _header(lines: list[str], separator: str, name: str) -> list[str]:
    line = lines[0]
    try:
        header = [" ".join(cell.split()) for cell in next(csv.reader(lines, delimiter=separator))]
    except csv.Error as error:
        raise InputError("not a readable header", where=name, found=str(error), expected="names of columns") from error
    if len(header) > _MAX_COLUMNS:
        raise InputError("too many columns", where=name, found=len(header), expected=f"at most {_MAX_COLUMNS}")
    named = [cell for cell in header if cell]
    if len(named) > 1 and all(re.fullmatch(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?", cell) for cell in named[1:]):
        raise InputError(
            "the first line holds numbers, not names",
            where=name,
            found=line[:60],
            expected="a header such as date,OT",
            cure="add a line with the names of the columns",
        )
    twice = sorted({cell for cell in named if named.count(cell) > 1})
    if twice:
        raise InputError("two columns have the same name", where=name, found=repr(twice[0]), cure="rename one of them")
    return [cell or f"Unnamed: {i}" for i, cell in enumerate(header)]


def _check_widths(
    lines: list[str], start: int, separator: str, width: int, name: str, *, quoted: bool
) -> list[int] | None:
    """Refuse rows with too few or too many cells (pandas pads them); give each row's line where quotes span lines."""
    if not quoted:
        signs = width - 1
        for number in range(start + 1, len(lines)):
            found = lines[number].count(separator)
            if found != signs and lines[number].strip():
                raise _ragged(name, number + 1, found + 1, width)
        return None
    numbers: list[int] = []
    reader = csv.reader(lines[start:], delimiter=separator)
    before = start
    try:
        for cells in reader:
            if cells and len(cells) != width:
                raise _ragged(name, before + 1, len(cells), width)
            numbers.append(before + 1)
            before = start + reader.line_num
    except csv.Error as error:
        raise InputError("not a readable table", where=name, found=f"{error} in line {before + 1}") from error
    return numbers[1:]


def _ragged(name: str, line: int, found: int, width: int) -> InputError:
    return InputError(
        f"line {line} has another number of cells than the header",
        where=name,
        found=found,
        expected=width,
        cure="mend the line; a file that was cut off in copying ends like this",
    )


def _sample(lines: list[str], separator: str) -> list[str]:
    """Up to 500 lines in which a comma could stand inside a number."""
    inside = '"' if separator == "," else ","
    found: list[str] = []
    for line in lines:
        if inside in line:
            found.append(line)
            if len(found) == 500:
                break
    return found + lines[:50] if found else found


def _decimal(lines: list[str], separator: str, header: list[str], words: set[str], name: str, notes: list[str]) -> str:
    """Whether numbers have a decimal comma; thousands separators are refused, for 1,234 could be either."""
    places = [i for i, column in enumerate(header) if column not in words]
    commas = points = 0
    for line in lines:
        cells = _split(line, separator)
        for i in places:
            cell = cells[i] if i < len(cells) else ""
            if _THOUSANDS.fullmatch(cell):
                raise InputError(
                    f"numbers with thousands separators in column '{header[i]}'",
                    where=name,
                    found=repr(cell),
                    expected="1234.5 or 1234,5",
                    cure="write the numbers without thousands separators",
                )
            commas += bool(_DECIMAL_COMMA.fullmatch(cell))
            points += "." in cell and bool(re.fullmatch(r"\s*[+-]?\d*\.\d+\s*", cell))
    if not commas:
        return "."
    if points:
        raise InputError(
            "numbers with decimal points and decimal commas",
            where=name,
            expected="one decimal sign throughout",
            cure="write all numbers with a point",
        )
    notes.append("numbers read with a decimal comma")
    return ","


def _parse(body: str, separator: str, decimal: str, header: list[str], words: set[str], name: str) -> pd.DataFrame:
    """pandas' fast parser; identifiers keep their letters and zeros, and 'NA' may be a name."""
    missing = {column: list(_NA) if column not in words or column.lower() in TIME_NAMES else [""] for column in header}
    try:
        return pd.read_csv(
            io.StringIO(body),
            sep=separator,
            decimal=decimal,
            names=header,
            header=0,
            index_col=False,
            skip_blank_lines=False,
            keep_default_na=False,
            na_values=missing,
            float_precision="round_trip",
            low_memory=False,
            dtype=dict.fromkeys(words, "str"),
            skipinitialspace=True,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        raise InputError(
            "not a readable table",
            where=name,
            found=str(error).splitlines()[0][:120],
            expected="rows as long as the header",
        ) from error


def _line_numbers(frame: pd.DataFrame, numbers: list[int] | None, start: int) -> np.ndarray:
    if numbers is not None and len(numbers) == len(frame):
        return np.asarray(numbers)
    return np.arange(start + 2, start + 2 + len(frame))


def _drop_empty_rows(raw: Raw) -> Raw:
    empty = raw.frame.isna().all(axis=1).to_numpy()
    if empty.any():
        # Lines without a single character are layout, not measurements.
        raw.keep(~empty)
        raw.notes.append(f"{int(empty.sum())} empty lines left out")
    return raw


def _drop_unnamed(raw: Raw) -> Raw:
    """Columns without a name: empty ones (a separator at the line's end) and row numbers go, others are an error."""
    for name in [column for column in raw.frame.columns if re.fullmatch(r"Unnamed: \d+", column)]:
        column = raw.frame[name]
        if column.isna().all():
            reason = "an empty column without a name"
        elif pd.api.types.is_numeric_dtype(column.dtype) and bool((column.diff().iloc[1:] == 1).all()):
            reason = "a column of row numbers without a name"
        else:
            raise InputError(
                f"column {int(name.split()[1]) + 1} has values but no name",
                where=raw.name,
                found=str(column.dropna().iloc[0])[:40],
                expected="a name in the header",
                cure="name it; for several columns of that kind check the separator",
            )
        raw.frame = raw.frame.drop(columns=name)
        raw.notes.append(f"{reason} left out")
    return raw
