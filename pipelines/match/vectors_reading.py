"""Reading files of vectors that may be damaged or come from elsewhere; `pipelines.match.vectors_io` is the public side.

Each reader gives names, an array (N, D) and the facts as JSON texts, not yet compared with one another.
"""

from __future__ import annotations

import csv
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError
from pipelines.files import sidecar
from pipelines.match.shard_files import npy_layout, read_npy_header

__all__ = ["facts_of", "read_csv", "read_jsonl", "read_npy", "read_npz", "read_parquet"]

Found = tuple[list[str], NDArray[Any], list[str]]

_AGAIN = "write or copy the file again"
_MAX_LOADED = 8 << 30  # bytes that a packed file may unpack to
_CELL = 1 << 24  # characters of a CSV cell; the limit of the csv module is too low for long facts


def read_npy(path: pathlib.Path) -> Found:
    """A .npy file, with the names beside it; without them rows are called 0, 1 ..."""
    shape, dtype, _ = read_npy_header(path)
    if len(shape) != 2 or dtype.kind != "f":
        raise InputError("holds no vectors", where=path, found=f"{shape} of {dtype}", expected="(N, D) of float32")
    array = np.load(path, allow_pickle=False)
    beside = sidecar(path, "names.json")
    if not beside.is_file():
        return [str(number) for number in range(len(array))], array, ["{}"] * len(array)
    content = _json(beside.read_bytes(), beside, "")
    names = _texts(content.get("names") if isinstance(content, dict) else None, beside)
    facts = content.get("facts", [{}] * len(names))
    if not isinstance(facts, list):
        raise InputError("facts must be a list", where=beside, found=type(facts).__name__)
    return names, array, [json.dumps(one) for one in facts]


def read_npz(path: pathlib.Path) -> Found:
    """An .npz file with vectors, and perhaps names and facts."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("vectors", "names", "facts") if key in file.files}
            others = list(file.files)
    except InputError:
        raise
    except Exception as error:  # zip, zlib and NumPy's header parser each raise their own
        raise _unreadable(path, "NPZ", error) from error
    if "vectors" not in arrays:
        raise InputError("no vectors inside", where=path, found=", ".join(others) or "nothing", expected="vectors")
    array = np.atleast_1d(arrays["vectors"])
    names = arrays.get("names", np.asarray([str(number) for number in range(len(array))], str))
    facts = arrays.get("facts", np.full(len(array), "{}"))
    if names.dtype.kind != "U" or facts.dtype.kind != "U" or names.ndim != 1 or facts.ndim != 1:
        raise InputError("names and facts must be lists of text", where=path, found=f"{names.dtype}, {facts.dtype}")
    return names.tolist(), array, facts.tolist()


def _check_members(archive: zipfile.ZipFile, path: pathlib.Path) -> None:
    """Sizes of all members and the headers of ours, before NumPy allocates what they claim."""
    size = sum(member.file_size for member in archive.infolist())
    if size > _MAX_LOADED:
        found = f"{size:,} bytes unpacked"
        raise InputError("too large to be loaded", where=path, found=found, expected=f"at most {_MAX_LOADED:,}")
    for member in archive.infolist():
        if member.filename in ("vectors.npy", "names.npy", "facts.npy"):
            with archive.open(member) as file:
                npy_layout(file, member.file_size, f"{path} {member.filename}", text=member.filename != "vectors.npy")


def read_csv(path: pathlib.Path) -> Found:
    """A .csv file with a column name, perhaps facts, and numbers in all others."""
    limit = csv.field_size_limit(_CELL)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _csv_rows(csv.reader(file, strict=True), path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise _unreadable(path, "CSV", error) from error
    finally:
        csv.field_size_limit(limit)


def _csv_rows(lines: Iterator[list[str]], path: pathlib.Path) -> Found:
    head = next(lines, [])
    if "name" not in head or len(set(head)) != len(head):
        expected = "different columns with name among them"
        raise InputError(
            "not a table of vectors", where=path, found=", ".join(head[:6]) or "nothing", expected=expected
        )
    name, facts = head.index("name"), head.index("facts") if "facts" in head else None
    numbers = [place for place in range(len(head)) if place not in (name, facts)]
    names, texts, rows = [], [], []
    for number, cells in enumerate(lines, 2):
        if len(cells) != len(head):
            expected = f"{len(head)} cells"
            raise InputError(
                "a row of another length", where=f"{path} row {number}", found=len(cells), expected=expected
            )
        try:
            rows.append(np.array([float(cells[place]) for place in numbers], np.float64))
        except ValueError as error:
            raise InputError("not a number", where=f"{path} row {number}", found=str(error)) from error
        names.append(cells[name])
        texts.append("{}" if facts is None else cells[facts])
    return names, _stacked(rows, len(numbers)), texts


def read_jsonl(path: pathlib.Path) -> Found:
    """A .jsonl file: objects with name and vector, perhaps facts."""
    names, texts, rows = [], [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f" line {number}"
            content = _json(line, path, where)
            vector = content.get("vector") if isinstance(content, dict) else None
            if not isinstance(vector, list) or not all(type(value) in (int, float) for value in vector):
                raise InputError("holds no vector", where=f"{path}{where}", expected="name and vector (numbers)")
            if rows and len(vector) != len(rows[0]):
                found, expected = len(vector), len(rows[0])
                raise InputError("a vector of another length", where=f"{path}{where}", found=found, expected=expected)
            names += _texts([content.get("name")], f"{path}{where}")
            texts.append(json.dumps(content.get("facts", {})))
            try:
                rows.append(np.array(vector, np.float64))
            except OverflowError as error:
                raise InputError("a number that is too large", where=f"{path}{where}", found=str(error)) from error
    return names, _stacked(rows, len(rows[0]) if rows else 0), texts


def read_parquet(path: pathlib.Path) -> Found:
    """A .parquet file with name and vector (lists of equal length), perhaps facts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            if size > _MAX_LOADED:
                raise InputError("too large to be loaded", where=path, found=f"{size:,} bytes unpacked")
            columns = file.schema_arrow.names
            missing = [name for name in ("name", "vector") if name not in columns]
            if missing:
                raise InputError("not a table of vectors", where=path, found=columns, expected="name, vector")
            table = file.read([name for name in ("name", "facts", "vector") if name in columns])
            table.validate(full=True)
            names = table["name"].to_pylist()
            facts = table["facts"].to_pylist() if "facts" in table.column_names else ["{}"] * len(names)
            array = _lists(table["vector"].combine_chunks(), path)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise _unreadable(path, "Parquet", error) from error
    return _texts(names, path), array, _texts(facts, path)


def _lists(column: Any, path: pathlib.Path) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise InputError("vectors must be lists of numbers", where=path, found=kind, expected="list of float32")
    sizes = pc.call_function("list_value_length", [column]).to_pylist()
    if None in sizes or len(set(sizes)) > 1:
        raise InputError(
            "vectors of different lengths, or none", where=path, found=sorted({str(size) for size in sizes})
        )
    flat = column.flatten()
    if flat.null_count:
        raise InputError("vectors with gaps", where=path, found=f"{flat.null_count:,} missing values")
    return flat.to_numpy(zero_copy_only=False).reshape(len(sizes), -1 if sizes else 0)


def facts_of(texts: list[str], path: pathlib.Path) -> list[dict[str, Any]]:
    """Facts from their JSON texts."""
    facts = []
    for number, text in enumerate(texts):
        content = _json(text, path, f" facts of row {number + 1}")
        if not isinstance(content, dict):
            found = type(content).__name__
            raise InputError("facts must be an object", where=f"{path} row {number + 1}", found=found)
        facts.append(content)
    return facts


def _stacked(rows: list[NDArray[Any]], width: int) -> NDArray[Any]:
    return np.stack(rows) if rows else np.empty((0, width), np.float32)


def _json(text: str | bytes, path: pathlib.Path, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("not readable JSON", where=f"{path}{place}", found=str(error)[:140], cure=_AGAIN) from error


def _texts(values: Any, where: object) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError("names must be text", where=where, found=type(values).__name__, expected="a list of texts")
    return values


def _unreadable(path: pathlib.Path, what: str, error: Exception) -> InputError:
    text = " ".join(str(error).split())[:140] or type(error).__name__
    return InputError(f"not a readable {what} file", where=path, found=text, cure=_AGAIN)
