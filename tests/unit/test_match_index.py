"""Vectors of documents on disk and the search in them: exact, the same by every engine, in constant memory."""

from __future__ import annotations

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest

from pipelines.errors import ConfigError
from pipelines.match import nearest
from pipelines.match.index import Index
from pipelines.match.shards import ShardWriter
from pipelines.match.vectors_io import VECTOR_ENDINGS, read_vectors, write_vectors

CONFIG = {"identity": "5f" * 32, "model": "smith", "options": {"block": 32}}
ENGINES = ("matrix", "faiss")
ODD_NAMES = ["plain.txt", 'comma, "quotes"', "two\nlines\r\n", " spaces ", "münchen/日本.rst", "", "=1+1", "a\u2028b"]


def vectors(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def oracle(rows: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every score correctly rounded from its exact sum (math.fsum of exact products), then a stable sort."""
    exact = [[math.fsum(float(a) * float(b) for a, b in zip(q, x, strict=True)) for x in rows] for q in queries]
    scores = np.array(exact).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


def written(folder: pathlib.Path, rows: np.ndarray, shard_rows: int = 7, **options: Any) -> pathlib.Path:
    with ShardWriter(folder, rows.shape[1], shard_rows=shard_rows, config=CONFIG, **options) as writer:
        for low in range(0, len(rows), 5):
            part = rows[low : low + 5]
            names = [f"doc-{low + i}" for i in range(len(part))]
            writer.add(names, part, [{"tokens": low + i, "title": f"Ünder {i}"} for i in range(len(part))])
    return folder


def needs(engine: str) -> None:
    if engine == "faiss":
        pytest.importorskip("faiss")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["random", "duplicates", "collapsed"])
def test_search_equals_exact_sums(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, engine: Any, kind: str
) -> None:
    needs(engine)
    rows, queries = vectors(120), vectors(5, seed=1)
    if kind == "duplicates":  # in other shards, chunks and places, and more of them than k
        rows = np.concatenate([rows[:20]] * 6)
    if kind == "collapsed":  # scores that differ by less than float32 sums are wrong by
        rows = (rows[:1] + 1e-7 * rows).astype(np.float32)
    index = Index.open(written(tmp_path / "index", rows))
    expected, order = oracle(rows, queries, 9)
    for scores_at_once in (1 << 21, 40):
        monkeypatch.setattr(nearest, "_SCORES", scores_at_once)
        scores, found = index.search(queries, 9, engine=engine)
        assert found.tolist() == order.tolist()
        assert scores.tolist() == expected.tolist()
        assert (scores.dtype, found.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("k", [1, 3, 64, 300])
def test_engines_and_batches_agree(tmp_path: pathlib.Path, k: int) -> None:
    pytest.importorskip("faiss")
    rows, queries = vectors(300, 32), vectors(40, 32, seed=1)
    index = Index.open(written(tmp_path / "index", rows, 101))
    matrix, faiss = (index.search(queries, k, engine=engine) for engine in ("matrix", "faiss"))
    assert matrix.rows.tolist() == faiss.rows.tolist()
    assert matrix.scores.tolist() == faiss.scores.tolist()
    alone = [index.search(query[None], k).rows[0].tolist() for query in queries]
    assert alone == matrix.rows.tolist()
    order = np.argsort(-(queries.astype(np.float64) @ rows.T.astype(np.float64)), axis=1)[:, :k]
    assert order.tolist() == matrix.rows.tolist()


def test_auto_takes_faiss_only_where_it_is_in_memory_already() -> None:
    pytest.importorskip("faiss")
    index = Index.of([str(i) for i in range(50)], vectors(50))
    assert index.search(vectors(1), 3).engine == "matrix"
    assert index.search(vectors(1), 3, engine="faiss").engine == "faiss"
    assert index.search(vectors(1), 3).engine == "faiss"
    assert index.search(vectors(16), 3).engine == "matrix"


def test_large_norms_and_zero_vectors() -> None:
    rows = np.concatenate([vectors(30) * 1e6, np.zeros((3, 16), np.float32), vectors(30, seed=3) * 1e-6])
    queries = np.concatenate([vectors(3, seed=2), np.zeros((1, 16), np.float32)])
    scores, found = Index.of([str(i) for i in range(63)], rows).search(queries, 20)
    expected, order = oracle(rows, queries, 20)
    assert found.tolist() == order.tolist()
    assert scores.tolist() == expected.tolist()
    assert found[3].tolist() == list(range(20)), "all scores are zero: rows in their order"


def test_fewer_rows_than_asked_for_are_said() -> None:
    hits = Index.of(["a", "b"], vectors(2)).search(vectors(1), 5)
    assert hits.rows.shape == hits.scores.shape == (1, 2)
    assert hits.notes == ("5 documents asked for, the index has 2: all are returned",)
    assert Index.of(["a", "b"], vectors(2)).search(vectors(1), 2).notes == ()
    assert Index.of([], np.empty((0, 16), np.float32)).search(vectors(1), 2).rows.shape == (1, 0)
    assert Index.of(["a"], vectors(1)).search(np.empty((0, 16)), 2).rows.shape == (0, 1)


def test_an_index_gives_back_what_was_written(tmp_path: pathlib.Path) -> None:
    rows = vectors(23)
    folder = written(tmp_path / "index", rows)
    index = Index.open(folder, identity=CONFIG["identity"], verify=True)  # type: ignore[arg-type]
    assert len(index) == 23
    assert index.dim == 16
    assert index.config == CONFIG
    assert index.identity == "5f" * 32
    assert list(index.names()) == [f"doc-{i}" for i in range(23)]
    assert index.name(13) == "doc-13"
    assert index.facts(13) == {"tokens": 13, "title": "Ünder 3"}
    assert index.vectors().tolist() == rows.tolist()
    assert index.vectors([22, 0, 7]).tolist() == rows[[22, 0, 7]].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]
    shapes = [np.load(folder / f"vectors-0000{i}.npy", mmap_mode="r").shape for i in range(4)]
    assert shapes == [(7, 16), (7, 16), (7, 16), (2, 16)]
    assert all(isinstance(part, np.memmap) for part in index._parts)


def test_vectors_of_blocks(tmp_path: pathlib.Path) -> None:
    rows, draw = vectors(10, 4), np.random.default_rng(3)
    blocks = [draw.standard_normal((count, 3)).astype(np.float32) for count in (2, 0, 5, 1, 1, 0, 0, 3, 4, 1)]
    with ShardWriter(tmp_path / "index", 4, shard_rows=4, config=CONFIG, block_dim=3) as writer:
        writer.add([str(i) for i in range(6)], rows[:6], blocks=blocks[:6])
        writer.add([str(i) for i in range(6, 10)], rows[6:], blocks=blocks[6:])
    index = Index.open(tmp_path / "index", verify=True)
    held = Index.of([str(i) for i in range(10)], rows, blocks=blocks)
    for row in range(10):
        assert index.blocks(row).tolist() == held.blocks(row).tolist() == blocks[row].tolist()
    with ShardWriter(tmp_path / "none", 4, config=CONFIG, block_dim=3) as writer:
        writer.add(["a"], rows[:1], blocks=[np.empty((0, 3), np.float32)])
    assert Index.open(tmp_path / "none", verify=True).blocks(0).shape == (0, 3)


def test_names_that_are_not_unicode_or_odd(tmp_path: pathlib.Path) -> None:
    names = [*ODD_NAMES, os.fsdecode(b"caf\xe9.txt"), "plain.txt"]
    with ShardWriter(tmp_path / "index", 4, config=CONFIG) as writer:
        writer.add(names, vectors(len(names), 4), [{"weight": np.float32(0.5)}] * len(names))
    index = Index.open(tmp_path / "index")
    assert list(index.names()) == names
    assert index.facts(3) == {"weight": 0.5}


def resumed(folder: pathlib.Path, rows: np.ndarray, names: list[str]) -> Index:
    with ShardWriter.resume(folder, config=CONFIG) as writer:
        for name, row in zip(names, rows, strict=True):
            if not writer.already(name):
                writer.add([name], row[None])
    return Index.open(folder, verify=True)


def test_resuming_after_an_error_loses_nothing(tmp_path: pathlib.Path) -> None:
    rows = vectors(20)
    names = [f"doc-{i % 15}" for i in range(20)]  # five names come twice
    writer = ShardWriter(tmp_path / "index", 16, shard_rows=6, config=CONFIG)
    writer.add(names[:17], rows[:17])
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    assert not (tmp_path / "index").exists()
    again = ShardWriter.resume(tmp_path / "index")
    assert again.rows == 17, "the shorter last shard was closed"
    again.keep()
    index = resumed(tmp_path / "index", rows, names)
    assert list(index.names()) == names
    assert index.vectors().tolist() == rows.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


def test_an_error_before_any_row_leaves_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "index", 16, config=CONFIG):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
import numpy as np
from pipelines.match.shards import ShardWriter
rows = np.load(sys.argv[2])
with ShardWriter(sys.argv[1], 16, shard_rows=6, config={config}) as writer:
    for i, row in enumerate(rows):
        if i == 15:
            os.kill(os.getpid(), signal.SIGKILL)
        writer.add([f"doc-{{i}}"], row[None])
"""


def test_resuming_after_a_kill(tmp_path: pathlib.Path) -> None:
    rows = vectors(20)
    np.save(tmp_path / "rows.npy", rows)
    code = KILLED.format(config=CONFIG)
    command = [sys.executable, "-c", code, str(tmp_path / "index"), str(tmp_path / "rows.npy")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "index").exists()
    assert (tmp_path / "index.partial" / "vectors-00002.npy").exists(), "the shard that was cut off"
    again = ShardWriter.resume(tmp_path / "index")
    assert again.rows == 12
    assert not (tmp_path / "index.partial" / "vectors-00002.npy").exists()
    again.keep()
    index = resumed(tmp_path / "index", rows, [f"doc-{i}" for i in range(20)])
    assert list(index.names()) == [f"doc-{i}" for i in range(20)]
    assert index.vectors().tolist() == rows.tolist()


def test_a_fresh_start_over_a_kill_needs_to_be_asked_for(tmp_path: pathlib.Path) -> None:
    writer = ShardWriter(tmp_path / "index", 16, shard_rows=2, config=CONFIG)
    writer.add(["a", "b", "c"], vectors(3))
    writer.keep()
    with pytest.raises(ConfigError, match=r"2 finished shards.*--resume"):
        ShardWriter(tmp_path / "index", 16, config=CONFIG)
    written(tmp_path / "index", vectors(3), overwrite=True)
    assert len(Index.open(tmp_path / "index")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


def peak(work: Any) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_index(tmp_path: pathlib.Path) -> None:
    def write(folder: str, batches: int) -> None:
        with ShardWriter(tmp_path / folder, 128, shard_rows=2000, config=CONFIG) as writer:
            for batch in range(batches):
                writer.add([f"{batch}-{i}" for i in range(500)], vectors(500, 128, batch))

    write("warm", 1)
    short, long = peak(lambda: write("short", 4)), peak(lambda: write("long", 40))
    assert long < 1.3 * short
    few, many = (Index.open(tmp_path / name) for name in ("short", "long"))
    query = vectors(4, 128, seed=9)
    few.search(query, 5)
    short, long = peak(lambda: few.search(query, 5)), peak(lambda: many.search(query, 5))
    assert long < 1.3 * short
    assert long < 0.1 * len(many) * 128 * 4, "far from a copy of the vectors"


@pytest.mark.parametrize("ending", VECTOR_ENDINGS)
@pytest.mark.parametrize("with_facts", [True, False])
def test_files_of_vectors_give_back_every_bit(tmp_path: pathlib.Path, ending: str, with_facts: bool) -> None:
    rows = np.concatenate([vectors(6), np.float32(1e-38) * vectors(1), np.float32(3e38) * vectors(1)])
    facts = [{"tokens": i, "title": 'a, b\n"c"', "share": 0.1, "none": None} for i in range(8)] if with_facts else None
    path = write_vectors(tmp_path / f"out{ending}", ODD_NAMES, rows, facts)
    found = read_vectors(path)
    assert found.names == tuple(ODD_NAMES)
    assert found.vectors.dtype == np.float32
    assert found.vectors.tobytes() == rows.tobytes()
    assert list(found.facts) == (facts or [{}] * 8)


def test_files_of_vectors_open_in_other_programs(tmp_path: pathlib.Path) -> None:
    import pandas as pd

    rows = vectors(5, 3)
    names = [f"n{i}" for i in range(5)]
    table = pd.read_csv(write_vectors(tmp_path / "a.csv", names, rows), float_precision="round_trip")
    assert table.name.tolist() == names
    assert table[["v0", "v1", "v2"]].to_numpy(np.float32).tobytes() == rows.tobytes()
    table = pd.read_parquet(write_vectors(tmp_path / "a.parquet", names, rows))
    assert np.stack(table.vector.tolist()).tobytes() == rows.tobytes()
    assert np.load(write_vectors(tmp_path / "a.npz", names, rows))["names"].tolist() == names
    assert np.load(write_vectors(tmp_path / "a.npy", names, rows)).tobytes() == rows.tobytes()
    lines = write_vectors(tmp_path / "a.jsonl", names, rows).read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == names
    np.save(tmp_path / "foreign.npy", rows.astype(np.float64))
    assert read_vectors(tmp_path / "foreign.npy").names == ("0", "1", "2", "3", "4")
