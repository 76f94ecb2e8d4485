"""Time and memory of searching an index of vectors on the disk: one query, by matrix product and by faiss.

    python tests/performance/bench_match_search.py [--rows 100000] [--dim 256] [--threads 1] [--json]

The vectors are random and of length one. Each engine is measured by a fresh process: the first query with the files
dropped from the system's cache ("disk"), the first query of a process whose files are cached ("first"), and the median
of twenty later ones ("warm"); goal: at most 50 ms for one query. faiss holds a copy of all rows, whose making is timed
apart. Memory is the highest resident size, what of it was there before the index was opened, and how much of the
present size is the process's own (the rest are pages of the mapped files, which the system may drop).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

GOAL = 0.050  # seconds of one query
_STATUS = pathlib.Path("/proc/self/status")


def build(folder: pathlib.Path, rows: int, dim: int, seed: int = 4) -> pathlib.Path:
    """Write an index of random vectors of length one."""
    import numpy as np

    from pipelines.match.shards import ShardWriter

    draw = np.random.default_rng(seed)
    with ShardWriter(folder, dim, config={"identity": "random"}) as writer:
        for low in range(0, rows, 10_000):
            part = draw.standard_normal((min(10_000, rows - low), dim), np.float32)
            part /= np.linalg.norm(part, axis=1, keepdims=True)
            names = [f"document-{low + i}.rst" for i in range(len(part))]
            writer.add(names, part, [{"tokens": 512, "blocks": 16, "title": f"Document {name}"} for name in names])
    return folder


def memory() -> dict[str, float]:
    """Megabytes of this process by what the kernel calls them, where it tells."""
    if not _STATUS.is_file():
        return {}
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    names = {"peak_MB": "VmHWM", "own_MB": "RssAnon", "mapped_MB": "RssFile"}
    return {name: int(lines[field].split()[0]) * 1024 / 1e6 for name, field in names.items() if field in lines}


def forget(folder: pathlib.Path) -> None:
    """Ask the system to drop the files from its cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: pathlib.Path, engine: str, *, queries: int = 1, k: int = 10, repeats: int = 20) -> dict[str, float]:
    """Search in this process: seconds of the first and the median later search, and megabytes.

    Args:
        folder: of the index.
        engine: "matrix" or "faiss".
        queries: of one search.
        k: rows asked for.
        repeats: later searches.
    """
    import numpy as np

    from pipelines.match.index import Index

    before = memory()
    start = time.perf_counter()
    index = Index.open(folder)
    opened = time.perf_counter() - start
    asked = np.random.default_rng(5).standard_normal((repeats + 1, queries, index.dim), np.float32)
    asked /= np.linalg.norm(asked, axis=2, keepdims=True)
    found = {"open_s": opened}
    if engine == "faiss":
        start = time.perf_counter()
        index._faiss()
        found["build_s"] = time.perf_counter() - start
    took = []
    for batch in asked:
        start = time.perf_counter()
        rows = index.search(batch, k, engine=engine).rows  # type: ignore[arg-type]
        shown = [index.name(int(row)) for row in rows[0]]
        took.append(time.perf_counter() - start)
        if len(shown) != k:
            raise RuntimeError("too few answers")
    found |= {"first_s": took[0], "warm_s": statistics.median(took[1:]), "warm_worst_s": max(took[1:])}
    return found | memory() | {"before_MB": before.get("peak_MB", float("nan"))}


def in_child(folder: pathlib.Path, engine: str, threads: int, queries: int = 1) -> dict[str, float]:
    """`measure` in a process of its own with so many threads."""
    command = [sys.executable, __file__, "--folder", str(folder), "--engine", engine, "--queries", str(queries)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if answer.returncode:
        raise RuntimeError(f"the child ended with {answer.returncode}: {answer.stderr.strip()[-400:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def search_lines(rows: int = 100_000, dim: int = 256, threads: int = 1) -> dict[str, dict[str, float]]:
    """Figures of every engine by name, each of a fresh index in a temporary folder."""
    engines = ["matrix", *(["faiss"] if importlib.util.find_spec("faiss") else [])]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as base:
        folder = build(pathlib.Path(base) / "index", rows, dim)
        for engine in engines:
            if hasattr(os, "posix_fadvise"):
                forget(folder)
                found[f"{engine}, files not cached"] = in_child(folder, engine, threads)
            found[engine] = in_child(folder, engine, threads)
            found[f"{engine}, 64 queries"] = in_child(folder, engine, threads, 64)
    return found


def main() -> int:
    """Measure and print; 1 where a later query by either engine takes longer than the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--engine", default="matrix", help=argparse.SUPPRESS)
    parser.add_argument("--queries", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        took = measure(options.folder, options.engine, queries=options.queries)
        sys.stdout.write(json.dumps(took) + "\n")
        return 0
    found = search_lines(options.rows, options.dim, options.threads)
    if options.json:
        sys.stdout.write(json.dumps({"rows": options.rows, "dim": options.dim, "lines": found}) + "\n")
    for name, took in {} if options.json else found.items():
        built = f"build {1e3 * took['build_s']:.0f} ms, " if "build_s" in took else ""
        sys.stdout.write(
            f"{name}: {built}first {1e3 * took['first_s']:.1f} ms, warm {1e3 * took['warm_s']:.1f} ms (worst "
            f"{1e3 * took['warm_worst_s']:.1f}); peak {took['peak_MB']:.0f} MB, {took['before_MB']:.0f} before, own "
            f"{took['own_MB']:.0f}, mapped {took['mapped_MB']:.0f}\n"
        )
    return int(any(took["warm_s"] > GOAL for name, took in found.items() if "queries" not in name))


if __name__ == "__main__":
    sys.exit(main())
