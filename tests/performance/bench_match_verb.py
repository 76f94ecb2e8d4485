"""`pipelines match encode` from end to end: documents and tokens a second, peak memory, and memory over their number.

    python tests/performance/bench_match_verb.py [--sizes small paper] [--documents 250 1000] [--threads 1] [--json]

The embedded documents are encoded by a model of each size with random weights and a vocabulary of 8,192 pieces learned
from them. Then some of them, drawn once, are encoded again and again under other names: the peak may not grow with
their number. Each run is a fresh process, timed around the command inside it (reading, cutting, encoding, writing the
index and the report); memory is the highest resident size of that process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench_match_search import memory

if TYPE_CHECKING:
    from pipelines.data.formats.document_types import Document

GROWTH = 1.1  # the peak over most documents may be so many times that over fewest
WORDS = 8192


def embedded() -> Sequence[Document]:
    """The embedded documents."""
    from pipelines import Matcher
    from pipelines.match.reading import read_material

    return read_material(Matcher(), "demo").documents


def write_documents(folder: pathlib.Path, documents: Sequence[Document], count: int) -> pathlib.Path:
    """Files of so many documents, the given ones over and over."""
    for number in range(count):
        one = documents[number % len(documents)]
        path = folder / f"{number // len(documents):03d}" / f"{pathlib.PurePath(one.name).with_suffix('.txt')}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one.text, encoding="utf-8")
    return folder


def write_model(folder: pathlib.Path, size: str, documents: Sequence[Document]) -> pathlib.Path:
    """A saved matcher with random weights."""
    import torch

    from pipelines import Matcher
    from pipelines.match.calibration import Calibration
    from pipelines.match.engine import Fitted, build
    from pipelines.match.vocabulary import WordPiece

    torch.manual_seed(0)
    m = Matcher(size=size)
    vocabulary = WordPiece.train([one.text for one in documents], WORDS)
    nothing = torch.zeros(0, dtype=torch.long)
    module = build(m, vocabulary).eval()
    unknown = Calibration(1.0, 0.0, 1, 2, ("random weights",))
    m._state = Fitted(m.model, module, vocabulary, "own", {}, nothing, nothing, unknown)
    m._fitted = True
    m.save(folder)
    return folder


def measure(folder: pathlib.Path, checkpoint: pathlib.Path, target: pathlib.Path, threads: int) -> dict[str, float]:
    """Run the command in this process: counts, seconds, megabytes."""
    from pipelines.cli import main as run

    words = ["match", "encode", str(folder), "--checkpoint", str(checkpoint), "--output", str(target)]
    words += ["--threads", str(threads), "--json", "true", "--quiet", "true"]
    said = io.StringIO()
    clock, work = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(said):
        code = run(words)
    clock, work = time.perf_counter() - clock, time.process_time() - work
    if code:
        raise RuntimeError(f"the command ended with {code}: {said.getvalue()[-400:]}")
    told = json.loads(said.getvalue())
    counts = {name: float(told[name]) for name in ("documents", "tokens", "blocks")}
    return {**counts, "clock_s": clock, "processor_s": work, **memory()}


def in_child(folder: pathlib.Path, checkpoint: pathlib.Path, threads: int) -> dict[str, float]:
    """`measure` in a process of its own with so many threads; a machine's load is told beside it."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as target:
        command = [sys.executable, __file__, "--folder", str(folder), "--checkpoint", str(checkpoint)]
        command += ["--target", f"{target}/run", "--threads", str(threads)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if answer.returncode:
        raise RuntimeError(f"the child ended with {answer.returncode}: {answer.stderr.strip()[-400:]}")
    return json.loads(answer.stdout.splitlines()[-1]) | {"load": os.getloadavg()[0]}


def verb_lines(
    sizes: Sequence[str] = ("small", "paper"), numbers: Sequence[int] = (250, 1000), threads: int = 1
) -> dict[str, dict[str, float]]:
    """Figures by name: all embedded documents with each size, then so many documents with the first size."""
    import numpy as np

    documents = embedded()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as base:
        place = pathlib.Path(base)
        every = write_documents(place / "all", documents, len(documents))
        models = {size: write_model(place / size, size, documents) for size in sizes}
        for size, model in models.items():
            found[f"{size}, {len(documents)} documents"] = in_child(every, model, threads)
        if numbers:
            drawn = np.random.default_rng(4).permutation(len(documents))[: min(numbers)]
            few = [documents[i] for i in sorted(drawn)]
            for number in sorted(numbers):
                folder = write_documents(place / f"{number}", few, number)
                label = f"{sizes[0]}, {min(numbers)} documents x {number / min(numbers):g}"
                found[label] = in_child(folder, models[sizes[0]], threads)
    return found


def growth(lines: dict[str, dict[str, float]]) -> float:
    """Peak over the most documents over that over the fewest, of the lines of repeated documents."""
    peaks = {took["documents"]: took["peak_MB"] for name, took in lines.items() if " x " in name}
    return peaks[max(peaks)] / peaks[min(peaks)] if peaks else float("nan")


def show(name: str, took: dict[str, float]) -> str:
    """A line of text."""
    by_clock, by_work = (took["tokens"] / took[unit] for unit in ("clock_s", "processor_s"))
    return (
        f"verb, {name}: {took['documents'] / took['clock_s']:.1f} documents/s, {by_clock:,.0f} tokens/s by the clock, "
        f"{took['documents'] / took['processor_s']:.1f} and {by_work:,.0f} by the processor ({took['clock_s']:.1f} s, "
        f"{took['blocks']:,.0f} blocks); peak {took['peak_MB']:.0f} MB; load {took['load']:.1f}"
    )


def main() -> int:
    """Measure and print; 1 where memory grows with the number of documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("small", "paper"), default=["small", "paper"])
    parser.add_argument("--documents", type=int, nargs="*", default=[250, 1000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    for name in ("--folder", "--checkpoint", "--target"):
        parser.add_argument(name, type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        took = measure(options.folder, options.checkpoint, options.target, options.threads)
        sys.stdout.write(json.dumps(took) + "\n")
        return 0
    found = verb_lines(options.sizes, options.documents, options.threads)
    if options.json:
        sys.stdout.write(json.dumps({"lines": found, "growth": growth(found)}) + "\n")
    else:
        sys.stdout.write("\n".join(show(name, took) for name, took in found.items()) + "\n")
        sys.stdout.write(f"peak over most documents over that over fewest: {growth(found):.2f} (goal {GROWTH})\n")
    return int(growth(found) > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
