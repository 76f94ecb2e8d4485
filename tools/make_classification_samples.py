"""Carve the embedded classification sample from its source file: `make_classification_samples.py SOURCES [OUT]`.

SOURCES holds seglearn_watch.npz, the data of seglearn 1.2.5 as arrays, see data/samples/classification/SOURCE.md. The
same source gives the same bytes with the same zlib, and the sum printed at the end is the one in data/catalog.py.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pathlib
import sys

import numpy as np
from numpy.typing import NDArray

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "samples" / "classification"
# 50 Hz is 5.4 MB, means of two are 2.7 MB, of three 1.8 MB; exercises that take seconds keep their shape at 12.5 Hz.
STEPS = 4
LIMIT = 1_600_000


def coarser(values: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """Means of so many time steps each: (T, V) to (T // steps, V); the rest at the end, shorter than that, goes."""
    rows = len(values) // steps
    whole = values[: rows * steps].astype(np.float64)
    return whole.reshape(rows, steps, -1).mean(axis=1).astype(np.float32)


def watch(sources: pathlib.Path) -> tuple[dict[str, NDArray], int]:
    """Shoulder exercises under a watch, with names of classes instead of numbers, and the time steps left out."""
    with np.load(sources / "seglearn_watch.npz", allow_pickle=False) as file:
        source = {key: file[key] for key in file.files}
    series = np.split(source["X"], np.cumsum(source["lengths"])[:-1])
    done = [coarser(one, STEPS) for one in series]
    arrays = {
        "X": np.concatenate(done),
        "lengths": np.array([len(one) for one in done], np.int64),
        "y": source["y_labels"][source["y"]],
        "subject": source["subject"],
        "variables": source["X_labels"],
    }
    return arrays, int((source["lengths"] % STEPS).sum())


def main() -> None:
    """Write the file and print its series, its size and its sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=OUT)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    arrays, rest = watch(given.sources)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    content = packed.getvalue()
    if len(content) > LIMIT:
        raise SystemExit(f"{len(content):,} bytes, allowed are {LIMIT:,}")
    (given.out / "watch.npz").write_bytes(content)
    lengths, total = arrays["lengths"], hashlib.sha256(content).hexdigest()
    sys.stdout.write(
        f"watch {len(lengths)} series of {lengths.min()} to {lengths.max()} steps, {lengths.sum()} in all, "
        f"{rest} steps of the source left out, {len(content)} bytes {total}\n"
    )


if __name__ == "__main__":
    main()
