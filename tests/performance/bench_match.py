"""SMITH against one encoder over the whole text, its cost over length, search, and the command from end to end.

    python tests/performance/bench_match.py [--parts encode step blocks search verb] [--repeats 7] [--threads 1]

Parity comes first, else nothing is timed: filling of blocks against a plain rule, ``encode`` of SMITH and of its peers
against their equations written out, and against its own pieces. Then, on random weights of the paper's sizes (4 + 3
layers, 256 channels):

- encode: 64 full blocks of 32 tokens against full-attention encoders of 4 and of 7 such layers on the same 2,048
  tokens joined; and embedded documents, as many blocks as hold 2,048 tokens beside their padding and marks, against the
  same peers on these tokens joined. As SMITH does, peers called "first token" leave out the other rows of their last
  layer;
- step: forward, loss, backward and AdamW of one pair of such documents, with the paper's dropout and without;
- blocks: 2,048 to 65,536 tokens, the exponent by least squares, and peak memory of a fresh process for each length;
- search and verb: bench_match_search.py and bench_match_verb.py.

Contestants run in turn; times are medians, by the clock and by the processor. Goals are held against the processor's
time, which on one thread can be trusted where other programs run; the load is told.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import bench_match_search
import bench_match_verb
from bench_match_search import memory

PARTS = ("encode", "step", "blocks", "search", "verb")
BLOCKS, LENGTH, WORDS, TOLERANCE = 64, 32, 8192, 1e-5
LENGTHS = tuple(2048 * 2**i for i in range(6))
GOALS = {"4 layers": 2.0, "7 layers": 3.3, "exponent": 1.1}
_MARK = pathlib.Path("/proc/self/clear_refs")
Times = dict[str, dict[str, float]]


def contestants(tokens: int, dropout: float = 0.0) -> dict[str, Any]:
    """SMITH of the paper's sizes, and encoders of 4 and 7 layers over so many tokens."""
    import torch
    from peer_smith import FullEncoder

    from pipelines.match.models.smith import Smith, SmithConfig

    torch.manual_seed(0)
    found = {"smith": Smith(SmithConfig(WORDS, dropout=dropout))}
    found |= {f"{layers} layers": FullEncoder(layers, tokens, WORDS, dropout) for layers in (4, 7)}
    return {name: model.eval() for name, model in found.items()}


def drawn(*shape: int) -> Any:
    """Ids without padding."""
    import torch

    return torch.randint(5, WORDS, shape, generator=torch.Generator().manual_seed(4))


def parity() -> dict[str, float]:
    """Blocks that differ from a plain filling; largest differences of vectors of length one, on short documents."""
    import torch
    from peer_smith import plain_smith, plain_vectors

    models = contestants(96)
    smith, ids = models["smith"], drawn(2, 5, LENGTH)
    ids[0, 3:], ids[1, 2, 20:], ids[1, 0, 9:] = 0, 0, 0
    joined = drawn(2, 96)
    with torch.inference_mode():
        whole = smith.encode(ids)
        found = {"smith": _gap(whole, plain_smith(smith, ids))}
        for name in ("4 layers", "7 layers"):
            plain = plain_vectors(models[name].net, joined)
            found[name] = max(_gap(models[name].encode(joined, first), plain) for first in (False, True))
        for row, count in enumerate((3, 5)):
            pieces = torch.cat([smith.sentences(block[None, : int((block != 0).sum())]) for block in ids[row, :count]])
            vector = smith.document_vectors(pieces[None], torch.ones(1, count, dtype=torch.bool))
            found["pieces"] = max(found.get("pieces", 0.0), _gap(whole[row], vector[0]))
    return found | {"blocks that differ": float(_differing_blocks())}


def _gap(found: Any, expected: Any) -> float:
    return float((found - expected).abs().max())


def _differing_blocks() -> int:
    from pipelines.match.blocks import fill_blocks
    from pipelines.match.sentences import split_sentences
    from pipelines.match.vocabulary import WordPiece

    text = "\n\n".join(one.text for one in bench_match_verb.embedded()[:3])
    words = WordPiece.train([text], 1000)
    expected: list[list[int]] = [[]]
    for first, last in split_sentences(text):
        ids = words.encode([text[first:last]])[0][0]
        if len(expected[-1]) + min(len(ids), LENGTH - 3) > LENGTH - 3:
            expected.append([])
        expected[-1] += ids[: LENGTH - 3]
    plain = [[words.CLS, *ids, words.SEP, words.SEP] + [0] * (LENGTH - 3 - len(ids)) for ids in expected]
    found = fill_blocks(text, words, length=LENGTH, on_long="truncate").ids.tolist()
    return sum(a != b for a, b in zip(found, plain, strict=False)) + abs(len(found) - len(plain))


def in_turn(calls: dict[str, Callable[[], Any]], repeats: int) -> Times:
    """Median seconds of each by clock and processor, measured in turn after one untimed round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            clock, work = time.perf_counter(), time.process_time()
            call()
            clock, work = time.perf_counter() - clock, time.process_time() - work
            if turn:
                taken[name].append((clock, work))
    return {
        name: {"clock_s": statistics.median(c for c, _ in took), "processor_s": statistics.median(p for _, p in took)}
        for name, took in taken.items()
    }


def against(times: Times) -> dict[str, Any]:
    """The times, and the peers' over SMITH's."""
    peers = [name for name in times if name != "smith"]
    units = {"ratios": "processor_s", "ratios_by_clock": "clock_s"}
    ratios = {label: {p: times[p][unit] / times["smith"][unit] for p in peers} for label, unit in units.items()}
    return {"times": times, **ratios, "load": os.getloadavg()[0]}


def encoding(repeats: int) -> dict[str, Any]:
    """Vectors of one document of 64 full blocks, and of real documents."""
    import torch

    models, ids = contestants(BLOCKS * LENGTH), drawn(1, BLOCKS, LENGTH)
    smith, peers = models.pop("smith"), models
    with torch.inference_mode():
        found = {"64 full blocks": _encoded(smith, peers, [(ids, ids.flatten(1))], repeats)}
        found["real documents"] = _encoded(smith, peers, real_documents(), repeats)
    return found


def _encoded(smith: Any, peers: dict[str, Any], documents: Sequence[tuple[Any, Any]], repeats: int) -> dict[str, Any]:
    calls: dict[str, Callable[[], Any]] = {"smith": lambda: [smith.encode(blocks) for blocks, _ in documents]}
    for name, model in peers.items():
        for label, first in (("", False), (", first token", True)):
            calls[name + label] = lambda model=model, first=first: [model.encode(x, first) for _, x in documents]
    sizes = {"documents": len(documents), "blocks": sum(blocks.shape[1] for blocks, _ in documents) / len(documents)}
    return against(in_turn(calls, repeats)) | sizes


def real_documents(count: int = 3) -> list[tuple[Any, Any]]:
    """Embedded documents: [CLS], 2,046 tokens, [SEP] joined (1, 2048), and the blocks (1, B, 32) that hold them."""
    import numpy as np
    import torch

    from pipelines.match.blocks import fill_blocks
    from pipelines.match.vocabulary import WordPiece

    size = BLOCKS * LENGTH
    documents = [one.text for one in bench_match_verb.embedded() if len(one.text) > 8 * size][::40][:count]
    words, found = WordPiece.train(documents, WORDS), []
    for text in documents:
        ids = fill_blocks(text, words, length=LENGTH).ids.astype(np.int64)
        held = np.cumsum((ids != words.PAD).sum(1) - 3)
        ids = ids[: int(np.searchsorted(held, size - 2)) + 1]
        inner = ids[(ids != words.PAD) & (ids != words.CLS) & (ids != words.SEP)][: size - 2]
        joined = np.array([[words.CLS, *inner, words.SEP]])
        if joined.shape[1] < size:
            raise RuntimeError("a document of too few tokens")
        found.append((torch.from_numpy(ids[None]), torch.from_numpy(joined)))
    return found


def stepping(repeats: int, dropout: float) -> dict[str, Any]:
    """A training step on one pair of documents of 64 full blocks."""
    import torch

    from pipelines.match.models.smith import matching_loss

    left, right = drawn(2, 1, BLOCKS, LENGTH)
    calls: dict[str, Callable[[], Any]] = {}
    for name, model in contestants(BLOCKS * LENGTH, dropout).items():
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-5, weight_decay=0.01)
        pair = (left, right) if name == "smith" else (left.flatten(1), right.flatten(1))

        def run(model: Any = model, optimizer: Any = optimizer, pair: Any = pair) -> None:
            optimizer.zero_grad()
            matching_loss(model(*pair), torch.ones(1)).backward()
            optimizer.step()

        calls[name] = run
    return against(in_turn(calls, repeats))


def over_length(lengths: Sequence[int], repeats: int, threads: int) -> dict[str, Any]:
    """Seconds and peak memory of ``encode`` by tokens, and the exponent of the cost."""
    import torch

    smith = contestants(LENGTH)["smith"]
    inputs = {f"{tokens}": drawn(1, tokens // LENGTH, LENGTH) for tokens in lengths}
    with torch.inference_mode():
        times = in_turn({name: (lambda ids=ids: smith.encode(ids)) for name, ids in inputs.items()}, repeats)
    for name, took in times.items():
        took |= in_child(int(name), threads)
    exponents = {unit: exponent([(float(n), took[unit]) for n, took in times.items()]) for unit in times[min(times)]}
    kept = {"exponent": exponents["processor_s"], "exponent_by_clock": exponents["clock_s"]}
    return {"lengths": times, **kept, "load": os.getloadavg()[0]}


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Slope of the line of least squares through the logarithms."""
    x, y = ([math.log(pair[i]) for pair in points] for i in (0, 1))
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def in_child(tokens: int, threads: int) -> dict[str, float]:
    """Megabytes of a process that encodes one document of so many tokens."""
    command = [sys.executable, __file__, "--peak", str(tokens), "--threads", str(threads)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"the child ended with {answer.returncode}: {answer.stderr.strip()[-400:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def peak(tokens: int) -> dict[str, float]:
    """Encode one document in this process, after one of a single block: megabytes before, and the highest."""
    import torch

    smith = contestants(LENGTH)["smith"]
    with torch.inference_mode():
        smith.encode(drawn(1, 1, LENGTH))
        _MARK.write_text("5")  # the highest resident size so far counts from here
        before = memory()["peak_MB"]
        smith.encode(drawn(1, tokens // LENGTH, LENGTH))
    return {"before_MB": before, "peak_MB": memory()["peak_MB"]}


def show(part: str, found: Any) -> str:
    """Lines of text of a part."""
    if part in ("encode", "step"):
        return "\n".join(_show_ratios(f"{part}, {name}", one) for name, one in found.items())
    if part == "blocks":
        lines = [
            f"{int(name):7,d} tokens: {took['clock_s']:.3f} s by clock, {took['processor_s']:.3f} by processor; "
            f"peak {took['peak_MB']:.0f} MB, {took['before_MB']:.0f} before"
            for name, took in found["lengths"].items()
        ]
        lines.append(
            f"exponent {found['exponent']:.3f}, by the clock {found['exponent_by_clock']:.3f} (goal at most "
            f"{GOALS['exponent']}); load {found['load']:.1f}"
        )
        return "\n".join(lines)
    if part == "verb":
        lines = [bench_match_verb.show(name, took) for name, took in found.items()]
        end = f"peak over most documents over that over fewest: {bench_match_verb.growth(found):.2f}"
        return "\n".join([*lines, f"{end} (goal at most {bench_match_verb.GROWTH})"])
    return "\n".join(
        f"search, {name}: first {1e3 * took['first_s']:.1f} ms, warm {1e3 * took['warm_s']:.1f} ms (worst "
        f"{1e3 * took['warm_worst_s']:.1f}); peak {took['peak_MB']:.0f} MB, own {took['own_MB']:.0f}, mapped "
        f"{took['mapped_MB']:.0f}"
        for name, took in found.items()
    )


def _show_ratios(label: str, found: dict[str, Any]) -> str:
    times = ", ".join(
        f"{name} {1e3 * took['processor_s']:.0f} ({1e3 * took['clock_s']:.0f})" for name, took in found["times"].items()
    )
    ratios = ", ".join(
        f"{found['ratios'][name]:.2f}x ({found['ratios_by_clock'][name]:.2f}x) of {name}" for name in found["ratios"]
    )
    if "documents" in found:
        label += f" ({found['documents']} of 2,048 joined tokens, {found['blocks']:.0f} blocks)"
    return f"{label}: milliseconds of the processor (clock): {times}; ratios {ratios}; load {found['load']:.1f}"


def missed(found: dict[str, Any]) -> list[str]:
    """Goals that were not reached."""
    lost = []
    if "encode" in found:
        ratios = found["encode"]["64 full blocks"]["ratios"]
        lost += [
            f"{ratios[name]:.2f}x of {name}, goal {GOALS[name]}" for name in ratios if ratios[name] < GOALS.get(name, 0)
        ]
    if "blocks" in found and found["blocks"]["exponent"] > GOALS["exponent"]:
        lost.append(f"exponent {found['blocks']['exponent']:.3f}, goal {GOALS['exponent']}")
    for name, took in found.get("search", {}).items():
        if "queries" not in name and took["warm_s"] > bench_match_search.GOAL:
            lost.append(f"search, {name}: {1e3 * took['warm_s']:.0f} ms, goal {1e3 * bench_match_search.GOAL:.0f}")
    if "verb" in found and bench_match_verb.growth(found["verb"]) > bench_match_verb.GROWTH:
        lost.append(f"memory grows {bench_match_verb.growth(found['verb']):.2f} times, goal {bench_match_verb.GROWTH}")
    return lost


def main() -> int:
    """Run the parts and print them; 1 without parity or where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    if options.peak:
        sys.stdout.write(json.dumps(peak(options.peak)) + "\n")
        return 0
    found: dict[str, Any] = {"threads": options.threads, "parity": parity()}
    if max(found["parity"].values()) > TOLERANCE:
        sys.stderr.write(f"no parity, nothing timed: {found['parity']}\n")
        return 1
    if not options.json:
        sys.stdout.write(f"parity: {', '.join(f'{name} {gap:.1e}' for name, gap in found['parity'].items())}\n")
    measures: dict[str, Callable[[], Any]] = {
        "encode": lambda: encoding(options.repeats),
        "step": lambda: {f"dropout {p}": stepping(max(3, options.repeats // 2), p) for p in (0.1, 0.0)},
        "blocks": lambda: over_length(LENGTHS, max(3, options.repeats // 3), options.threads),
        "search": lambda: bench_match_search.search_lines(threads=options.threads),
        "verb": lambda: bench_match_verb.verb_lines(threads=options.threads),
    }
    for part in (name for name in PARTS if name in options.parts):
        found[part] = measures[part]()
        if not options.json:
            sys.stdout.write(show(part, found[part]) + "\n")
            sys.stdout.flush()
    lost = missed(found)
    if options.json:
        sys.stdout.write(json.dumps(found | {"missed": lost}) + "\n")
    else:
        sys.stdout.write("".join(f"missed: {goal}\n" for goal in lost) or "all goals reached\n")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
