"""An index of documents under bad input: one clear message, nothing half written, nothing lost."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipelines.errors import ConfigError, InputError, RunError, UserError, WeightsError
from pipelines.match.index import Index
from pipelines.match.shard_files import npy_header, read_sealed, sealed
from pipelines.match.shards import ShardWriter

CONFIG = {"identity": "ab" * 32, "model": "smith"}
ROWS, DIM = 11, 8


def vectors(count: int = ROWS, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)


def names(count: int = ROWS) -> list[str]:
    return [f"doc-{i}.rst" for i in range(count)]


def write(folder: pathlib.Path, **options: Any) -> pathlib.Path:
    with ShardWriter(folder, DIM, shard_rows=4, config=CONFIG, **options) as writer:
        writer.add(names(), vectors())
    return folder


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return write(tmp_path / "index")


def use(folder: pathlib.Path, *, verify: bool = False) -> None:
    index = Index.open(folder, verify=verify)
    index.search(vectors(2), 3)
    assert all(list(index.names()))


def change(path: pathlib.Path, place: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[place : place + len(value) or None] = value
    path.write_bytes(content)


# Opening ----------------------------------------------------------------------------------------------------------


def test_an_index_of_other_weights_is_refused_with_the_cure(folder: pathlib.Path) -> None:
    with pytest.raises(
        WeightsError, match=r"other weights.*Found: abababababab.*Expected: cdcdcdcd.*encode the"
    ) as told:
        Index.open(folder, identity="cd" * 32)
    assert str(folder) in str(told.value)
    Index.open(folder, identity="ab" * 32)


@pytest.mark.parametrize(("version", "cure"), [(2, "pip install --upgrade"), (0, "encode the documents again")])
def test_another_format_version(folder: pathlib.Path, version: int, cure: str) -> None:
    content = read_sealed(folder / "config.json")
    (folder / "config.json").write_text(sealed({**content, "format_version": version}))
    with pytest.raises(WeightsError, match=f"another format version.*Found: {version}.*Expected: 1.*{cure}"):
        use(folder)


def test_a_changed_configuration(folder: pathlib.Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32))
    with pytest.raises(InputError, match="changed after it was written"):
        Index.open(folder, identity="cd" * 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "not the configuration"),
        ('{"domain": "match"}', "Found: match"),
        ("", "JSON"),
    ],
)
def test_a_configuration_of_something_else(folder: pathlib.Path, text: str, message: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        use(folder)


def test_no_index_at_all(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"not a folder of an index.*Expected: config.json.*match encode"):
        Index.open(tmp_path)
    with pytest.raises(InputError, match="not a folder of an index"):
        Index.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["vectors-00001.npy", "names-00001.jsonl"])
def test_files_that_are_missing_or_cut(folder: pathlib.Path, name: str) -> None:
    path = folder / name
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(InputError, match=f"{name}.*cut or changed.*Found: {size - 1:,} bytes.*Expected: {size:,}"):
        use(folder)
    path.unlink()
    with pytest.raises(InputError, match=f"{name}.*missing"):
        use(folder)


@pytest.mark.parametrize("name", ["vectors-00001.npy", "names-00001.jsonl"])
def test_one_flipped_bit_is_found_when_asked_for(folder: pathlib.Path, name: str) -> None:
    path = folder / name
    place = 130 if name.startswith("vectors") else 12
    change(path, place, bytes([path.read_bytes()[place] ^ 1]))
    use(folder)  # what no checksum was asked of is read as it is
    with pytest.raises(InputError, match=f"{name}.*damaged or changed"):
        use(folder, verify=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("engine", ["matrix", "faiss"])
def test_a_row_that_is_not_finite_is_named(folder: pathlib.Path, value: float, engine: Any) -> None:
    if engine == "faiss":
        pytest.importorskip("faiss")
    change(folder / "vectors-00001.npy", 128 + 4 * (2 * DIM + 3), struct.pack("<f", value))
    with pytest.raises(InputError, match=r"not finite.*Found: row 6 \(doc-6.rst\)"):
        Index.open(folder).search(vectors(2), 3, engine=engine)


def with_header(folder: pathlib.Path, header: bytes) -> None:
    change(folder / "vectors-00000.npy", 0, header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (npy_header((10**12, DIM), "<f4"), "contradicts the size"),
        (npy_header((-4, -DIM), "<f4"), "contradicts the size"),
        (npy_header((4, DIM), "|O"), "never unpickled"),
        (npy_header((2, DIM), "<f8"), "another array than the index had"),
        (npy_header((DIM, 4), "<f4"), "another array than the index had"),
        (npy_header((4, DIM), "<U1"), "no numbers"),
        (b"\x93NUMPX", "not a readable NPY"),
        (b"\x93NUMPY\x09", "not a readable NPY"),
        (npy_header((4, DIM), "<f4").replace(b"False", b"True "), "another array than the index had"),
    ],
)
def test_headers_that_lie(folder: pathlib.Path, header: bytes, message: str) -> None:
    with_header(folder, header)
    with pytest.raises(InputError, match=message):
        use(folder)


def test_a_configuration_that_names_other_files(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    content = read_sealed(folder / "config.json")
    files = content["shards"][0]["files"]
    files["../secret"] = files.pop("names-00000.jsonl")
    (folder / "config.json").write_text(sealed(content))
    with pytest.raises(InputError, match="other files than an index has"):
        use(folder)


def test_names_that_do_not_fit_the_rows(folder: pathlib.Path) -> None:
    path = folder / "names-00000.jsonl"
    change(path, path.stat().st_size - 1, b" ")
    with pytest.raises(InputError, match="3 lines for 4 rows"):
        use(folder)
    change(path, path.stat().st_size - 1, b"\n")
    change(path, 0, b"[")
    with pytest.raises(InputError, match="names of the index are damaged"):
        use(folder)


# Asking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queries", "k", "engine", "error", "message"),
    [
        (vectors(2), 0, "auto", ConfigError, "at least one row"),
        (vectors(2), 1, "fast", ConfigError, "Expected: auto, matrix, faiss"),
        (vectors(2, 9), 1, "auto", InputError, r"Found: \(2, 9\).*Expected: \(Q, 8\)"),
        (vectors(2)[0], 1, "auto", InputError, r"Found: \(8,\)"),
        (np.full((2, DIM), np.nan), 1, "auto", InputError, "2 of 2 rows, first query 0"),
        (np.full((2, DIM), "a"), 1, "auto", InputError, "no numbers"),
        (np.full((2, DIM), 1e300), 1, "auto", InputError, "not finite"),
    ],
)
def test_bad_queries(folder: pathlib.Path, queries: Any, k: int, engine: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Index.open(folder).search(queries, k, engine=engine)


def test_rows_and_blocks_that_are_not_there(folder: pathlib.Path) -> None:
    index = Index.open(folder)
    for ask in (index.name, index.facts, lambda row: index.vectors([row])):
        for row in (-1, ROWS):
            with pytest.raises(InputError, match="no such row"):
                ask(row)
    with pytest.raises(ConfigError, match="no vectors of blocks"):
        index.blocks(0)


def test_faiss_that_is_not_installed(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"faiss is not installed.*pip install"):
        Index.open(folder).search(vectors(1), 1, engine="faiss")
    assert Index.open(folder).search(vectors(1), 1).engine == "matrix"


# Writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], vectors(2)), r"another shape.*\(2, 8\).*Expected: \(1, 8\)"),
        ((["a", "b"], np.where(np.eye(2, DIM) > 0, np.nan, vectors(2))), "2 of 2 rows, first a"),
        ((["a"], [[1e300] * DIM]), "not finite"),
        (([7], vectors(1)), "a name must be text"),
        ((["a"], vectors(1), [{"name": "b"}]), "cannot be called name"),
        ((["a"], vectors(1), [{"share": float("nan")}]), "cannot be written as JSON"),
        ((["a"], vectors(1), [{"share": object()}]), "cannot be written as JSON"),
        ((["a"], vectors(1), []), "as many facts"),
        ((["a"], vectors(1), [{}], [vectors(1)]), "vectors of blocks do not fit"),
    ],
)
def test_bad_rows_are_refused_and_cost_nothing(tmp_path: pathlib.Path, arguments: Any, message: str) -> None:
    with ShardWriter(tmp_path / "index", DIM, config=CONFIG) as writer:
        writer.add(["good"], vectors(1))
        with pytest.raises(InputError, match=message):
            writer.add(*arguments)
    assert list(Index.open(tmp_path / "index", verify=True).names()) == ["good"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "at least 1"),
        ({"shard_rows": 0}, "at least 1"),
        ({"config": {}}, "which weights made it"),
        ({"config": {"identity": "a", "x": float("nan")}}, "cannot be saved as JSON"),
        ({"config": {"identity": "a", "x": object()}}, "cannot be saved as JSON"),
    ],
)
def test_bad_settings_of_a_writer(tmp_path: pathlib.Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShardWriter(tmp_path / "index", **{"dim": DIM, "config": CONFIG, **options})
    assert not list(tmp_path.iterdir())


def test_an_empty_corpus_is_an_error_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="no documents to index"), ShardWriter(tmp_path / "i", DIM, config=CONFIG):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_replaced_unasked(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="--overwrite"):
        write(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ZeroDivisionError), ShardWriter(folder, DIM, config=CONFIG, overwrite=True):
        raise ZeroDivisionError
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with ShardWriter(folder, 3, config=CONFIG, overwrite=True) as writer:
        writer.add(["a"], vectors(1, 3))
    assert (len(Index.open(folder)), Index.open(folder).dim) == (1, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_only_an_index_is_ever_replaced(tmp_path: pathlib.Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("the only copy")
    with pytest.raises(ConfigError, match=r"something else.*chapter.tex"):
        write(tmp_path / "thesis", overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="a file stands"):
        write(tmp_path / "file", overwrite=True)
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="something else is in the way"):
        write(tmp_path / "new", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "the only copy"
    assert (tmp_path / "new.partial" / "mine.txt").exists()


def test_a_folder_that_does_not_allow_writing(tmp_path: pathlib.Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.geteuid() == 0:
        locked = pathlib.Path("/proc/self")  # root may write anywhere but there
    if not locked.exists():
        pytest.skip("no folder that root cannot write into")
    with pytest.raises(ConfigError, match=r"does not allow writing.*-o"):
        write(locked / "index")


def test_a_folder_that_may_not_be_looked_into(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o000)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(RunError, match="Permission denied"):
            write(tmp_path / "index")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        tmp_path.chmod(0o700)


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Files may not grow beyond this size: what a full disk does, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_what_was_finished(tmp_path: pathlib.Path) -> None:
    rows, wide = vectors(40, 512), [f"doc-{i}" for i in range(40)]
    writer = ShardWriter(tmp_path / "index", 512, shard_rows=16, config=CONFIG)
    writer.add(wide[:20], rows[:20])
    with file_limit(20_000), pytest.raises(RunError, match=r"full.*free some space"), writer:
        writer.add(wide[20:], rows[20:])
    assert not (tmp_path / "index").exists()
    with ShardWriter.resume(tmp_path / "index", config=CONFIG) as again:
        assert again.rows == 16
        rest = [i for i in range(40) if not again.already(wide[i])]
        again.add([wide[i] for i in rest], rows[rest])
    index = Index.open(tmp_path / "index", verify=True)
    assert list(index.names()) == wide
    assert index.vectors().tolist() == rows.tolist()


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(small_disk: pathlib.Path) -> None:
    writer = ShardWriter(small_disk / "index", 512, shard_rows=8, config=CONFIG)
    with pytest.raises(RunError, match="No space left"), writer:
        writer.add(names(100), vectors(100, 512))
    assert [path.name for path in small_disk.iterdir()] == ["index.partial"]
    again = ShardWriter.resume(small_disk / "index")
    assert again.rows == 16
    again.keep()


def test_two_processes_do_not_write_the_same_index(tmp_path: pathlib.Path) -> None:
    code = f"from pipelines.match.shards import ShardWriter\nShardWriter({str(tmp_path / 'i')!r}, 8, config={CONFIG})"
    first = ShardWriter(tmp_path / "i", DIM, shard_rows=4, config=CONFIG)
    first.add(names(), vectors())
    for line in (code, code.replace("ShardWriter(", "ShardWriter.resume(").replace(", 8, ", ", ")):
        done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=False)
        assert "ConfigError" in done.stderr
        assert "another process is writing" in done.stderr
    first.finish()
    assert len(Index.open(tmp_path / "i", verify=True)) == ROWS


def test_resuming_what_is_not_there_or_not_the_same(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="no unfinished index"):
        ShardWriter.resume(tmp_path / "index")
    writer = ShardWriter(tmp_path / "index", DIM, shard_rows=4, config=CONFIG)
    writer.add(names(), vectors())
    writer.keep()
    with pytest.raises(WeightsError, match=r"begun with other weights.*Found: abab.*Expected: cdcd"):
        ShardWriter.resume(tmp_path / "index", config={**CONFIG, "identity": "cd" * 32})
    with pytest.raises(WeightsError, match=r"other options.*'model': 'smith'.*'model': 'minilm'"):
        ShardWriter.resume(tmp_path / "index", config={**CONFIG, "model": "minilm"})
    change(tmp_path / "index.partial" / "vectors-00000.npy", 200, b"\0\0\0")
    with pytest.raises(InputError, match=r"vectors-00000.npy: a file of the index was damaged"):
        ShardWriter.resume(tmp_path / "index", config=CONFIG)


# Fuzzing ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["config.json", "vectors-00000.npy", "names-00000.jsonl", "blocks-00000.npy"])
@pytest.mark.parametrize("verify", [False, True])
def test_fuzzed_indexes(tmp_path: pathlib.Path, name: str, verify: bool) -> None:
    folder = tmp_path / "index"
    with ShardWriter(folder, DIM, config=CONFIG, block_dim=2) as writer:
        writer.add(names(), vectors(), blocks=[np.ones((3, 2))] * ROWS)
    path = folder / name
    whole, draw, refused = path.read_bytes(), random.Random(8), 0
    for _ in range(100):
        content = damaged(whole, draw)
        path.write_bytes(content)
        try:
            use(folder, verify=verify)
            assert Index.open(folder).blocks(3).shape == (3, 2)
        except UserError:
            refused += 1
        else:
            if verify and name != "config.json":
                assert content == whole
    assert refused >= 40
