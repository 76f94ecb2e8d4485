"""Vectors with names in files that other programs read: .npy, .npz, .csv, .jsonl and .parquet, by ending.

An index is for searching; these files are for taking vectors elsewhere and back. Facts travel as JSON.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.files import Content, atomic_write_all, sidecar
from pipelines.match.shard import finite_rows, name_line
from pipelines.match.shard_files import npy_header

__all__ = ["VECTOR_ENDINGS", "Vectors", "read_vectors", "write_vectors"]

VECTOR_ENDINGS = (".npy", ".npz", ".csv", ".jsonl", ".parquet")
NAMES_SUFFIX = "names.json"

_ROWS = 4096  # rows turned into text or Parquet at once
_MAX_NAMES = 1 << 30  # bytes that the names of an .npz may take: NumPy gives each name the room of the longest


@dataclass(frozen=True)
class Vectors:
    """Rows that a file held.

    Args:
        names: N names.
        vectors: (N, D) float32.
        facts: N mappings, empty where the file has none.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    facts: tuple[dict[str, Any], ...]


def write_vectors(
    path: str | os.PathLike[str],
    names: Sequence[str],
    vectors: ArrayLike,
    facts: Sequence[Mapping[str, Any]] | None = None,
) -> pathlib.Path:
    """Write names, vectors and facts into one file, completely or not at all; an earlier file is replaced.

    What the endings hold: `.npy` the array (N, D), with names and facts beside it in FILE.names.json; `.npz` the
    arrays vectors, names and facts (JSON); `.csv` the columns name, facts (JSON, where there are any), v0, v1 ...;
    `.jsonl` one object a row: name, facts, vector; `.parquet` the columns name, facts (JSON), vector (a list of fixed
    size). Text holds nine digits, which give the same float32 back.

    Args:
        path: the file; its ending chooses the format.
        names: N names.
        vectors: (N, D) numbers, stored as float32.
        facts: N mappings of plain values.

    Raises:
        ConfigError: another ending.
        InputError: counts that differ, a value that is not finite, or a name that the format cannot hold.
        RunError: the disk is full or not writable; the earlier file is intact.

    Complexity: O(N D) time; text and Parquet are made 4,096 rows at a time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = write_vectors(f"{folder}/a.csv", ["one", "two"], [[0.5, 0.1], [1, 0]])
        ...     print(file.read_text(), read_vectors(file).vectors.tolist()[1])
        name,v0,v1
        one,0.5,0.100000001
        two,1,0
         [1.0, 0.0]
    """
    target = pathlib.Path(path).expanduser()
    array = np.asarray(vectors)
    if array.ndim != 2 or not array.shape[1]:
        raise InputError("vectors must be rows", where="vectors", found=array.shape, expected="(N, D)")
    rows = finite_rows(array, (len(names), array.shape[1]), names, "vectors")
    facts = [{}] * len(names) if facts is None else facts
    if len(facts) != len(names):
        raise InputError("as many facts as names are needed", where="facts", found=len(facts), expected=len(names))
    # Facts go through the check of an index, so that whatever a file takes an index takes too.
    plain = [json.loads(name_line(name, fact)) for name, fact in zip(names, facts, strict=True)]
    texts = [json.dumps({k: v for k, v in one.items() if k != "name"}, ensure_ascii=False) for one in plain]
    contents = _writers()[_ending(target)](target, list(names), rows, texts)
    atomic_write_all(contents)
    return target


def read_vectors(path: str | os.PathLike[str]) -> Vectors:
    """What `write_vectors` wrote, or a file of the same form from elsewhere.

    Raises:
        ConfigError: another ending.
        InputError: no such file, damaged or of another form (the row is named), Python objects inside, names that do
            not fit, a value that is not finite.

    Complexity: O(N D); headers are compared with the length of the file before anything is allocated.

    Example:
        >>> read_vectors("nowhere.npy")
        Traceback (most recent call last):
        pipelines.data.errors.InputError: nowhere.npy: no such file. Cure: check the path.
    """
    from pipelines.match import vectors_reading as reading

    source = pathlib.Path(path).expanduser()
    readers: dict[str, Callable[[pathlib.Path], tuple[list[str], Any, list[str]]]] = {
        ".npy": reading.read_npy,
        ".npz": reading.read_npz,
        ".csv": reading.read_csv,
        ".jsonl": reading.read_jsonl,
        ".parquet": reading.read_parquet,
    }
    read = readers[_ending(source)]
    if not source.is_file():
        raise InputError("no such file", where=source, cure="check the path")
    names, array, texts = read(source)
    facts = reading.facts_of(texts, source)
    if array.ndim != 2 or len(names) != len(array) or len(facts) != len(array):
        found = f"{array.shape} with {len(names):,} names and {len(facts):,} facts"
        raise InputError("names, facts and vectors do not fit", where=source, found=found, expected="(N, D) and N each")
    return Vectors(tuple(names), finite_rows(array, array.shape, names, str(source)), tuple(facts))


Writer = Callable[[pathlib.Path, list[str], NDArray[np.float32], list[str]], dict[str | os.PathLike[str], Content]]


def _writers() -> dict[str, Writer]:
    return {".npy": _npy, ".npz": _npz, ".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def _ending(path: pathlib.Path) -> str:
    ending = path.suffix.lower()
    if ending not in VECTOR_ENDINGS:
        expected = ", ".join(VECTOR_ENDINGS)
        raise ConfigError("vectors have no such format", where=path, found=ending or "no ending", expected=expected)
    return ending


def _npy(
    path: pathlib.Path, names: list[str], rows: NDArray[np.float32], facts: list[str]
) -> dict[str | os.PathLike[str], Content]:
    listed = {"names": names, "facts": [json.loads(text) for text in facts]}
    beside = json.dumps(listed, ensure_ascii=True, indent=1) + "\n"  # ASCII: a name may be no Unicode

    def write(file: BinaryIO) -> None:
        # Not np.save: on a full disk it raises an error that does not say so.
        file.write(npy_header(rows.shape, "<f4"))
        file.write(rows.data.cast("B") if rows.size else b"")

    return {path: write, sidecar(path, NAMES_SUFFIX): beside}


def _npz(
    path: pathlib.Path, names: list[str], rows: NDArray[np.float32], facts: list[str]
) -> dict[str | os.PathLike[str], Content]:
    for what, texts in (("name", names), ("facts", facts)):
        longest = max(texts, key=len, default="")
        if 4 * len(longest) * len(texts) > _MAX_NAMES:
            found = f"{len(texts):,} rows, the longest {what} of {len(longest):,} characters"
            cure = "write .parquet or .jsonl"
            raise InputError("texts too long for an .npz", where=path, found=found, cure=cure)
        ended = [text for text in texts if text.endswith("\0")]
        if ended:
            problem = "a name that ends with a null character loses it in an .npz"
            raise InputError(problem, where=path, found=repr(ended[0]), cure="write .parquet or .jsonl")

    def write(file: BinaryIO) -> None:
        np.savez(file, vectors=rows, names=np.asarray(names, str), facts=np.asarray(facts, str))

    return {path: write}


def _csv(
    path: pathlib.Path, names: list[str], rows: NDArray[np.float32], facts: list[str]
) -> dict[str | os.PathLike[str], Content]:
    with_facts = any(text != "{}" for text in facts)

    def write(file: BinaryIO) -> None:
        _encodable(names, path)
        head = ["name", *(["facts"] if with_facts else []), *(f"v{i}" for i in range(rows.shape[1]))]
        file.write((",".join(head) + "\n").encode())
        form = ",%.9g" * rows.shape[1] + "\n"
        for low in range(0, len(names), _ROWS):
            lines = [
                _cell(name) + ("," + _cell(fact) if with_facts else "") + form % tuple(row)
                for name, fact, row in zip(names[low:], facts[low:], rows[low : low + _ROWS].tolist(), strict=False)
            ]
            file.write("".join(lines).encode())

    return {path: write}


def _cell(text: str) -> str:
    """A cell of a CSV file, in quotes where it has to be (the csv module forgets it for line ends in Python 3.11)."""
    bare = text and text == text.strip() and not any(mark in text for mark in ',"\r\n')
    return text if bare else '"' + text.replace('"', '""') + '"'


def _jsonl(
    path: pathlib.Path, names: list[str], rows: NDArray[np.float32], facts: list[str]
) -> dict[str | os.PathLike[str], Content]:
    form = "[" + ", ".join(["%.9g"] * rows.shape[1]) + "]"

    def write(file: BinaryIO) -> None:
        for low in range(0, len(names), _ROWS):
            for name, fact, row in zip(names[low:], facts[low:], rows[low : low + _ROWS].tolist(), strict=False):
                shown = json.dumps(name), json.dumps(json.loads(fact)), form % tuple(row)
                file.write('{{"name": {}, "facts": {}, "vector": {}}}\n'.format(*shown).encode())

    return {path: write}


def _parquet(
    path: pathlib.Path, names: list[str], rows: NDArray[np.float32], facts: list[str]
) -> dict[str | os.PathLike[str], Content]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float32(), rows.shape[1])
    schema = pa.schema([("name", pa.string()), ("facts", pa.string()), ("vector", kind)])

    def write(file: BinaryIO) -> None:
        _encodable(names, path)
        with pq.ParquetWriter(file, schema) as writer:
            for low in range(0, len(names), _ROWS):
                some = slice(low, low + _ROWS)
                flat = pa.array(rows[some].reshape(-1), pa.float32())
                lists = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
                columns = [pa.array(names[some], pa.string()), pa.array(facts[some], pa.string()), lists]
                writer.write_batch(pa.record_batch(columns, schema=schema))

    return {path: write}


def _encodable(names: list[str], path: pathlib.Path) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            cure = "write .npy, .npz or .jsonl, or rename the file"
            raise InputError("a name that is no Unicode", where=path, found=ascii(name), cure=cure) from error
