"""Files of vectors under bad input: one clear message, nothing unpickled, nothing half written."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import resource
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pipelines.errors import ConfigError, InputError, RunError, UserError
from pipelines.match.shard_files import npy_header
from pipelines.match.vectors_io import VECTOR_ENDINGS, read_vectors, write_vectors

ROWS, DIM = 11, 8


def vectors(count: int = ROWS, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)


def names(count: int = ROWS) -> list[str]:
    return [f"doc-{i}.rst" for i in range(count)]


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Files may not grow beyond this size: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Evil:
    """Unpickling it would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("ran", "w"))


def jsonl(*lines: str) -> Callable[[pathlib.Path], object]:
    return lambda path: path.write_text("\n".join(lines))


def bytes_of(text: bytes) -> Callable[[pathlib.Path], object]:
    return lambda path: path.write_bytes(text)


def zip_with(header: bytes) -> Callable[[pathlib.Path], object]:
    def write(path: pathlib.Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("vectors.npy", header + b"\0" * 64)

    return write


def parquet(**columns: Any) -> Callable[[pathlib.Path], object]:
    def write(path: pathlib.Path) -> None:
        import pandas as pd

        pd.DataFrame(columns).to_parquet(path)

    return write


@pytest.mark.parametrize(
    ("ending", "make", "message"),
    [
        (".npy", lambda path: np.save(path, np.array([[Evil()]], object), allow_pickle=True), "never unpickled"),
        (".npy", bytes_of(npy_header((10**12, 8), "<f4") + b"\0" * 64), "contradicts the size"),
        (".npy", lambda path: np.save(path, np.zeros(3)), "holds no vectors"),
        (".npy", lambda path: np.save(path, np.full((3, 2), np.nan)), "not finite.*3 of 3 rows"),
        (".npy", bytes_of(b""), "not a readable NPY"),
        (".npz", lambda path: np.savez(path, vectors=np.array([[Evil()]], object)), "never unpickled"),
        (".npz", zip_with(npy_header((10**12, 8), "<f4")), "contradicts the size"),
        (".npz", lambda path: np.savez(path, other=np.zeros(3)), "no vectors inside. Found: other"),
        (".npz", lambda path: np.savez(path, vectors=np.zeros((3, 2)), names=np.zeros(3)), "lists of text"),
        (".npz", lambda path: np.savez(path, vectors=np.zeros((3, 2)), names=np.array(["a"])), "do not fit"),
        (".npz", bytes_of(b"PK\x03\x04"), "not a readable NPZ"),
        (".csv", bytes_of(b""), "not a table of vectors"),
        (".csv", bytes_of(b"name,v0\na,1\nb\n"), "row 3: a row of another length"),
        (".csv", bytes_of(b"name,v0\na,one\n"), "row 2: not a number"),
        (".csv", bytes_of(b"name,v0\na,nan\n"), "not finite"),
        (".csv", bytes_of(b"name,v0\n\xff,1\n"), "not a readable CSV"),
        (".csv", bytes_of(b"name,facts,v0\na,{,1\n"), "facts of row 1: not readable JSON"),
        (".csv", bytes_of(b"name,facts,v0\na,3,1\n"), "facts must be an object"),
        (".jsonl", jsonl('{"name": "a", "vector": [1]}', "{"), "line 2: not readable JSON"),
        (".jsonl", jsonl('{"name": "a", "vector": [1]}', '{"name": "a", "vector": [1, 2]}'), "line 2: a vector of an"),
        (".jsonl", jsonl('{"name": 3, "vector": [1]}'), "names must be text"),
        (".jsonl", jsonl('{"name": "a", "vector": ["1"]}'), "holds no vector"),
        (".jsonl", jsonl('{"name": "a", "vector": [1' + "0" * 400 + "]}"), "too large"),
        (".jsonl", jsonl('{"name": "a", "vector": [NaN]}'), "not finite"),
        (".parquet", bytes_of(b"PAR1"), "not a readable Parquet"),
        (".parquet", parquet(name=["a"], v=[1.0]), "not a table of vectors"),
        (".parquet", parquet(name=["a", "b"], vector=[[1.0], [1.0, 2.0]]), "different lengths"),
        (".parquet", parquet(name=["a"], vector=[["x"]]), "lists of numbers"),
        (".parquet", parquet(name=["a", None], vector=[[1.0], [1.0]]), "names must be text"),
        (".parquet", parquet(name=["a", "b"], vector=[[1.0], None]), "different lengths, or none"),
    ],
)
def test_bad_files_of_vectors(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ending: str, make: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"bad{ending}"
    make(path)
    with pytest.raises(InputError, match=message) as told:
        read_vectors(path)
    assert f"bad{ending}" in str(told.value)
    assert not (tmp_path / "ran").exists()


def test_other_endings_and_names_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected: .npy, .npz, .csv"):
        write_vectors(tmp_path / "a.txt", names(), vectors())
    with pytest.raises(InputError, match="another shape"):
        write_vectors(tmp_path / "a.npy", names(3), vectors())
    odd = [os.fsdecode(b"caf\xe9"), "b"]
    for ending in (".csv", ".parquet"):
        with pytest.raises(InputError, match="no Unicode"):
            write_vectors(tmp_path / f"a{ending}", odd, vectors(2))
    with pytest.raises(InputError, match=r"too long for an .npz"):
        write_vectors(tmp_path / "a.npz", ["x" * 20_000, *map(str, range(14_000))], np.zeros((14_001, 1)))
    with pytest.raises(InputError, match="null character"):
        write_vectors(tmp_path / "a.npz", ["a\0", "b"], vectors(2))
    assert not list(tmp_path.iterdir())
    for ending in (".npy", ".npz", ".jsonl"):
        assert list(read_vectors(write_vectors(tmp_path / f"a{ending}", odd, vectors(2))).names) == odd
    (tmp_path / "a.npy.names.json").write_text(json.dumps({"names": ["one"]}))
    with pytest.raises(InputError, match="do not fit"):
        read_vectors(tmp_path / "a.npy")


def test_an_earlier_file_survives_a_full_disk(tmp_path: pathlib.Path) -> None:
    for ending in VECTOR_ENDINGS:
        path = write_vectors(tmp_path / f"a{ending}", names(), vectors())
        before = path.read_bytes()
        with file_limit(4096), pytest.raises(RunError, match="full"):
            write_vectors(path, names(100), np.random.default_rng(1).standard_normal((100, 64)))
        assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == len(VECTOR_ENDINGS) + 1  # the names beside the .npy


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Cut, flipped in up to four bits, with a damaged head, or with a stretch written twice."""
    kind, out = draw.randrange(4), bytearray(content)
    if kind == 0:
        return bytes(out[: draw.randrange(len(out))])
    if kind == 1:
        for _ in range(draw.randrange(1, 5)):
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    if kind == 2:
        for _ in range(draw.randrange(1, 9)):
            out[draw.randrange(min(128, len(out)))] = draw.randrange(256)
    if kind == 3:
        start = draw.randrange(len(out))
        out[start:start] = out[start : start + draw.randrange(1, 64)]
    return bytes(out)


@pytest.mark.parametrize("ending", VECTOR_ENDINGS)
def test_fuzzed_files_of_vectors(tmp_path: pathlib.Path, ending: str) -> None:
    path = write_vectors(tmp_path / f"a{ending}", names(), vectors(), [{"tokens": 3}] * ROWS)
    whole, draw, refused = path.read_bytes(), random.Random(7), 0
    for _ in range(100):
        path.write_bytes(damaged(whole, draw))
        start = time.perf_counter()
        try:
            found = read_vectors(path)
            assert np.isfinite(found.vectors).all()
        except UserError:
            refused += 1
        assert time.perf_counter() - start < 5
    assert refused >= 30


def test_a_folder_that_does_not_allow_writing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        write_vectors(tmp_path / "file" / "a.npy", names(), vectors())
