"""Rows of lists: JSON lines, tables and Parquet, one after the other; a bad line is named and the rest is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.datasets.document_archives import DAMAGED, opened, peek
from pipelines.data.datasets.document_folders import PACKED
from pipelines.data.datasets.document_stream import DocumentStream, Item
from pipelines.data.errors import InputError

__all__ = ["NAMES", "TEXTS", "Row", "cells", "frame_items", "list_items", "list_kind", "pick", "rows"]

#: Names that a column or key with the text may have; the first that is there counts.
TEXTS = ("text", "content", "contents", "body", "document", "article", "abstract", "passage", "raw_text")
#: Names that a column or key with the document's name may have.
NAMES = ("id", "name", "_id", "docid", "doc_id", "document_id", "url", "path", "file", "title")
_KINDS = {".jsonl": "JSON lines", ".ndjson": "JSON lines", ".tsv": "tab", ".csv": "comma", ".parquet": "Parquet"}
_ROWS = 256  # of a Parquet file at once

#: (place, values by lower-case column; or what is wrong with the line)
Row = tuple[str, Mapping[str, Any] | str]


def list_kind(path: Path) -> str | None:
    """How a file of rows is written, by its ending (before .gz, .bz2, .xz) or Parquet's mark; None for other files.

    Example:
        >>> list_kind(Path("a.jsonl.xz")), list_kind(Path("a.md"))
        ('JSON lines', None)
    """
    name = path.name.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    return _KINDS.get(Path(name).suffix)


def rows(path: Path, limit: int, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a list; keys and columns in lower case.

    Args:
        path: JSON lines, CSV, TSV with a header, or Parquet; perhaps compressed by gzip, bzip2 or xz.
        limit: most bytes of a line.
        columns: of Parquet, those that are needed.

    Raises:
        InputError: a table without a header, damaged Parquet.

    Complexity: O(bytes); one line in memory.
    """
    kind = list_kind(path)
    if kind == "Parquet" or peek(path)[:4] == b"PAR1":
        yield from _parquet(path, columns)
    elif kind == "JSON lines":
        for place, line in _lines(path, limit):
            yield place, _json(line)
    else:
        table = cells(path, limit)
        header = next((row for _, row in table if not isinstance(row, str) and any(row)), None)
        names = [cell.strip().lower() for cell in header or ()]
        if not names or len(set(names)) < len(names) or not all(names):
            expected = "a first line with the names of the columns, each once"
            raise InputError(
                "no header", where=path, found=", ".join(names)[:200] or "an empty file", expected=expected
            )
        for place, row in table:
            if isinstance(row, str):
                yield place, row
            elif len(row) != len(names):
                yield place, f"{len(row)} cells where the header has {len(names)}"
            else:
                yield place, dict(zip(names, row, strict=True))


def cells(path: Path, limit: int) -> Iterator[tuple[str, list[str] | str]]:
    """The cells of each line of a CSV or TSV, header or not, or what is wrong with the line.

    TSV knows no quotation marks; CSV does, its separator is the comma or the semicolon, whichever the first line has
    more of.
    """
    comma = list_kind(path) == "comma"
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    if not comma:
        for place, line in _lines(path, limit):
            yield place, line if isinstance(line, _Problem) else line.rstrip("\r\n").split("\t")
        return
    head = peek(path).decode("utf-8", "replace").split("\n", 1)[0]
    numbered = _lines(path, limit, blank=True)
    place, problem = "", ""

    def good() -> Iterator[str]:
        nonlocal place, problem
        for where, line in numbered:
            place = where
            if isinstance(line, _Problem):
                problem = line
                continue
            yield line

    reader = csv.reader(good(), delimiter=";" if head.count(";") > head.count(",") else ",")
    while True:
        problem = ""
        try:
            row = next(reader)
        except StopIteration:
            if problem:
                yield place, problem
            return
        except csv.Error as error:
            yield place, f"no row of a table: {error}"
            continue
        if problem:
            yield place, f"{problem}, and the row that it stands in is left out"
        elif any(cell.strip() for cell in row):
            yield place, row


class _Problem(str):
    """What is wrong with a line, in place of it."""

    __slots__ = ()


def _lines(path: Path, limit: int, *, blank: bool = False) -> Iterator[tuple[str, str]]:
    """(file:line, text or a problem); damage of the file ends the lines with a problem."""
    number = 0
    try:
        with opened(path) as file:
            while raw := file.readline(limit + 1):
                number += 1
                place = f"{path.name}:{number}"
                if len(raw) > limit:
                    yield place, _Problem(f"the line is longer than {limit:,} bytes")
                    while raw and not raw.endswith(b"\n"):
                        raw = file.readline(limit + 1)
                    continue
                if not raw.strip() and not blank:
                    continue
                try:
                    yield place, raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    yield place, _Problem(f"the line is no UTF-8 at byte {error.start}")
    except DAMAGED as error:
        yield f"{path.name}:{number + 1}", _Problem(f"the file is damaged or cut here: {error}")


def _json(line: str) -> Mapping[str, Any] | str:
    if isinstance(line, _Problem):
        return line
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    return {str(key).lower(): value for key, value in row.items()} if isinstance(row, dict) else "no JSON object"


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = None
            if columns is not None:
                wanted = [name for name in file.schema_arrow.names if name.lower() in columns]
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", {str(key).lower(): value for key, value in row.items()}
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError("damaged, or no Parquet", where=path, found=error, cure="fetch the file again") from error


def pick(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of the names that the row has and that is not empty.

    Example:
        >>> pick({"title": "b", "id": None}, NAMES)
        'b'
    """
    return next((row[name] for name in names if row.get(name) is not None and row[name] != ""), None)


def list_items(path: Path, stream: DocumentStream) -> Iterator[Item]:
    """The documents of a list: a text in one of :data:`TEXTS`, a name in one of :data:`NAMES`."""
    yield from _items(rows(path, stream.limit, (*TEXTS, *NAMES)), stream, path)


def frame_items(frame: Any, stream: DocumentStream) -> Iterator[Item]:
    """The documents of a pandas data frame; its index names rows without a name."""
    names = [str(name).lower() for name in frame.columns]
    numbered = zip(frame.index, frame.itertuples(index=False, name=None), strict=True)
    found = ((f"row {index}", _without_gaps(dict(zip(names, values, strict=True)))) for index, values in numbered)
    yield from _items(found, stream, "data frame")


def _without_gaps(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: None if isinstance(value, float) and value != value else value for name, value in row.items()}


def _items(found: Iterable[Row], stream: DocumentStream, source: object) -> Iterator[Item]:
    good = 0
    for place, row in found:
        if isinstance(row, str):
            stream.fail(place, row)
            continue
        if not good and not set(TEXTS) & set(row):
            expected = f"one of {', '.join(TEXTS)}"
            raise InputError("no column with a text", where=source, found=", ".join(map(str, row)), expected=expected)
        good += 1
        text, name, title = pick(row, TEXTS), pick(row, NAMES), row.get("title")
        shown = str(name) if isinstance(name, str | int) and not isinstance(name, bool) else place
        if not isinstance(text, str):
            stream.fail(place, "no text" if text is None else f"the text is no text but {type(text).__name__}")
            continue
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            stream.fail(place, f"the text has half a character (a lone surrogate) at {error.start}")
            continue
        yield Item(shown, data, "text", title if isinstance(title, str) else "")
