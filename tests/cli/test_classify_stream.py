"""``pipelines classify stream``: the answer of the whole series step by step, from files, sets and standard input."""

from __future__ import annotations

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipelines import Classifier
from pipelines.classify.options import ArchOptions
from pipelines.cli.streaming import Latency
from pipelines.data.formats.labelled import read_labelled
from pipelines.data.formats.labelled_types import LabelledSeries
from pipelines.training.options import TrainOptions

QUICK = TrainOptions(epochs=1, max_steps=8)
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}


@pytest.fixture(scope="session")
def motions() -> LabelledSeries:
    """Six series of real motion, six variables, a few values not measured, ids and lengths of their own."""
    data = read_labelled("BasicMotions")
    chosen = data.subset(range(40, 80, 7))
    series = [one[:, : 100 - 7 * n].copy() for n, one in enumerate(chosen.series)]
    for n, one in enumerate(series):
        one[n, 5:9] = np.nan
    series[3][:, 4] = np.nan  # a step of which nothing was measured
    return LabelledSeries.of(series, labels=chosen.labels, variables=tuple("abcdef"), ids=[f"m{n}" for n in range(6)])


@pytest.fixture(scope="session")
def fitted(motions: LabelledSeries) -> Classifier:
    """A small causal lmuformer that knows of values that were not measured."""
    return Classifier(model="lmuformer", arch=ArchOptions(d_model=8), train=QUICK, device="cpu").fit(motions)


@pytest.fixture(scope="session")
def model(fitted: Classifier, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return fitted.save(tmp_path_factory.mktemp("stream") / "model")


@pytest.fixture(scope="session")
def whole(fitted: Classifier, motions: LabelledSeries) -> np.ndarray:
    """The probabilities of each whole series."""
    return fitted.predict(motions).probabilities


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def shares(answer: dict[str, Any]) -> list[float]:
    return list(answer["probabilities"].values())


def cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def as_csv(data: LabelledSeries, order: str, *, extra: bool = False) -> Iterator[str]:
    """The series below each other, columns in an order of its own, with an id."""
    yield ",".join(["id", *order, *(["label"] if extra else [])])
    for n, one in enumerate(data.series):
        for row in one.T:
            cells = [cell(row[data.variables.index(name)]) for name in order]
            yield ",".join([data.ids[n], *cells, *([(data.labels or ())[n]] if extra else [])])


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Text for standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


# Equality with the whole --------------------------------------------------------------------------------------------


def test_a_table_in_any_order_gives_the_answers_of_the_whole(
    command: Any, model: pathlib.Path, motions: LabelledSeries, whole: np.ndarray
) -> None:
    pathlib.Path("steps.csv").write_text("\n".join(as_csv(motions, "fedcba", extra=True)) + "\n")
    done = command(f"classify stream steps.csv --checkpoint {model}")
    assert done.code == 0, done.err
    answers = lines_of(done.out)
    assert len(answers) == motions.lengths.sum()
    for n, name in enumerate(motions.ids):
        own = [one for one in answers if one["series"] == name]
        assert [one["step"] for one in own] == list(range(1, motions.lengths[n] + 1))
        np.testing.assert_allclose(shares(own[-1]), whole[n], atol=1e-5)
        assert own[-1]["label"] == motions.classes[int(whole[n].argmax())]
        assert own[-1]["probability"] == max(shares(own[-1]))
    assert list(answers[0]) == ["series", "step", "label", "probability", "probabilities"]
    assert list(answers[0]["probabilities"]) == list(motions.classes)
    notes, closing = done.err.splitlines()[:-1], done.err.splitlines()[-1]
    assert notes == [
        "note: steps.csv: a new series begins where 'id' changes",
        "note: steps.csv: 1 column is not used: label",
    ]
    assert closing.startswith("6 series, 495 steps, 495 answers; latency a step: median ")
    assert closing.endswith(" ms")


def test_standard_input_without_a_header(
    command: Any, model: pathlib.Path, motions: LabelledSeries, whole: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = ["\n".join(",".join(map(cell, row)) for row in one.T) for one in motions.series]
    give(monkeypatch, "\n\n".join(blocks))
    done = command(f"classify stream - --checkpoint {model} --every 1000 --quiet")
    assert (done.code, done.err) == (0, "")
    answers = lines_of(done.out)
    assert [one["series"] for one in answers] == [1, 2, 3, 4, 5, 6], "numbers where there are no names"
    assert [one["step"] for one in answers] == motions.lengths.tolist(), "the last of each series is always told"
    np.testing.assert_allclose([shares(one) for one in answers], whole, atol=1e-5)


def test_lines_of_json(command: Any, model: pathlib.Path, motions: LabelledSeries, whole: np.ndarray) -> None:
    with open("steps.jsonl", "w") as file:
        for n, one in enumerate(motions.series):
            for row in one.T:
                cells = [None if np.isnan(value) else float(value) for value in row]
                named = dict(zip(motions.variables, cells, strict=True))
                file.write(json.dumps({"id": n, **named} if n % 2 else named) + "\n")
    done = command(f"classify stream steps.jsonl --checkpoint {model} --every 30")
    assert done.code == 0, done.err
    answers = lines_of(done.out)
    ends = {one["series"]: one for one in answers}
    assert list(ends) == [1, "1", 3, "3", 5, "5"]
    np.testing.assert_allclose([shares(one) for one in ends.values()], whole, atol=1e-5)
    own = [one["step"] for one in answers if one["series"] == "1"]
    assert own == [30, 60, 90, 93]


def test_a_labelled_set_is_streamed_series_by_series(
    command: Any, fitted: Classifier, model: pathlib.Path, motions: LabelledSeries
) -> None:
    steps, series = np.concatenate([one.T for one in motions.series]), motions.lengths
    np.savez("six.npz", X=steps, lengths=series, y=motions.labels, split=["train"] * 2 + ["test"] * 4, id=motions.ids)
    done = command(f"classify stream six.npz --checkpoint {model} --every 1000")
    assert done.code == 0, done.err
    answers = lines_of(done.out)
    assert [one["series"] for one in answers] == ["m2", "m3", "m4", "m5"], "the official test part, as predict has it"
    batch = fitted.predict("six.npz").probabilities
    np.testing.assert_allclose([shares(one) for one in answers], batch, atol=1e-5)
    assert "note: six.npz: the 4 of 6 series of the official test part are labelled" in done.err


def test_several_inputs_are_told_apart(command: Any, model: pathlib.Path) -> None:
    pathlib.Path("one.csv").write_text("1,2,3,4,5,6\n")
    pathlib.Path("two.txt").write_text("1 2 3 4 5 6\n")
    done = command(f"classify stream one.csv two.txt --checkpoint {model}")
    one, two = lines_of(done.out)
    assert (one["input"], one["series"], two["input"], two["series"]) == ("one.csv", 1, "two.txt", 2)
    assert shares(one) == shares(two), "the second begins anew"


def test_a_series_that_comes_back_is_said(command: Any, model: pathlib.Path) -> None:
    rows = [f"{name},1,2,3,4,5,6" for name in "xyxyz"]
    pathlib.Path("mixed.csv").write_text("\n".join(["id,a,b,c,d,e,f", *rows]))
    done = command(f"classify stream mixed.csv --checkpoint {model}")
    assert [(one["series"], one["step"]) for one in lines_of(done.out)] == [(name, 1) for name in "xyxyz"]
    assert done.err.count("comes back after others") == 1


# Output -------------------------------------------------------------------------------------------------------------


def test_an_output_file_has_its_name_when_it_is_whole(command: Any, model: pathlib.Path) -> None:
    pathlib.Path("s.csv").write_text("1,2,3,4,5,6\n" * 3)
    done = command(f"classify stream s.csv --checkpoint {model} -o out/answers.jsonl")
    assert (done.code, done.out) == (0, "")
    assert [path.name for path in pathlib.Path("out").iterdir()] == ["answers.jsonl"]
    assert len(lines_of(pathlib.Path("out/answers.jsonl").read_text())) == 3
    again = command(f"classify stream s.csv --checkpoint {model} -o out/answers.jsonl")
    assert again.code == 2
    assert "never overwritten" in again.err
    assert command(f"classify stream s.csv --checkpoint {model} -o out/answers.jsonl --overwrite").code == 0


def test_a_bad_line_ends_the_stream_and_keeps_what_was_told(command: Any, model: pathlib.Path) -> None:
    pathlib.Path("s.csv").write_text("1,2,3,4,5,6\n1,2,3,4,5,6\n1,2,3\n")
    done = command(f"classify stream s.csv --checkpoint {model}")
    assert done.code == 2
    assert len(lines_of(done.out)) == 2
    assert "pipelines: s.csv, line 3: another number of values" in done.err
    assert "6 numbers (a, b, c, d, e, f)" in done.err
    done = command(f"classify stream s.csv --checkpoint {model} -o a.jsonl")
    assert (done.code, done.out) == (2, "")
    assert "the answers until then are in a.jsonl.partial" in done.err
    assert len(lines_of(pathlib.Path("a.jsonl.partial").read_text())) == 2
    assert not pathlib.Path("a.jsonl").exists()
    pathlib.Path("s.csv").write_text("1,2,3,4,5,6\n")
    assert "interrupted stream" in command(f"classify stream s.csv --checkpoint {model} -o a.jsonl").err
    assert command(f"classify stream s.csv --checkpoint {model} -o a.jsonl --overwrite --quiet").code == 0
    assert sorted(path.name for path in pathlib.Path().iterdir()) == ["a.jsonl", "s.csv"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("s.csv", ("--checkpoint", "pipelines classify fit --model lmuformer --data LABELLED --output model/")),
        ("nosuch.csv --checkpoint {model}", ("nosuch.csv", "no such file")),
        ("nosuch --checkpoint {model}", ("nosuch", "no such file, folder or set")),
        ("ItalyPowerDemand --checkpoint {model}", ("other variables than the model", "Expected: 6")),
        ("s.csv --checkpoint nosuch", ("nosuch",)),
        ("s.csv --checkpoint {model} --every 0", ("--every", "at least 1")),
        ("s.csv --checkpoint {model} -o a.csv", ("--output a.csv", "FILE.jsonl")),
        ("s.csv --checkpoint {model} --columns.id who", ("no header, so no column 'who'",)),
        ("s.csv --checkpoint {model} --json", ("--json",)),
        ("empty.csv --checkpoint {model}", ("empty.csv",)),
        ("", ("inputs",)),
    ],
)
def test_uses_that_make_no_sense(
    refused: Any, model: pathlib.Path, tmp_path: pathlib.Path, words: str, parts: tuple[str, ...]
) -> None:
    (tmp_path / "s.csv").write_text("1,2,3,4,5,6\n")
    (tmp_path / "empty.csv").touch()
    refused(f"classify stream {words.format(model=model)}", *parts)


def test_a_model_that_needs_the_whole_series(refused: Any, motions: LabelledSeries, tmp_path: pathlib.Path) -> None:
    small = ArchOptions(d_model=8, n_heads=2, d_ff=8, layers=1)
    Classifier(model="transformer", arch=small, train=QUICK).fit(motions).save(tmp_path / "other")
    (tmp_path / "s.csv").write_text("1,2,3,4,5,6\n")
    refused("classify stream s.csv --checkpoint other", "transformer needs the whole series", "--model lmuformer")


def test_ctrl_c_tells_what_was_done(command: Any, model: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            if not line:
                raise KeyboardInterrupt
            return line

    for words, kept in (("", "were printed"), ("-o a.jsonl", "are in a.jsonl.partial")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Stopped(b"1,2,3,4,5,6\n" * 4)))
        done = command(f"classify stream - --checkpoint {model} {words}")
        assert done.code == 130
        assert "1 series, 4 steps, 4 answers" in done.err
        assert f"pipelines: interrupted; the answers until then {kept}" in done.err
    assert len(lines_of(pathlib.Path("a.jsonl.partial").read_text())) == 4


# As a process -------------------------------------------------------------------------------------------------------


def start(model: pathlib.Path, *words: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "pipelines", "classify", "stream", "-", "--checkpoint", str(model), *words]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, env=ENV, text=True, **pipes)


def test_an_answer_comes_before_the_next_line_is_sent(model: pathlib.Path) -> None:
    with start(model) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for step in (1, 2, 3):
            process.stdin.write("1,2,3,,5,6\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["step"] == step  # would wait for ever if lines were held back
        process.send_signal(signal.SIGTERM)
        errors = process.stderr.read()
    assert process.returncode == 143
    assert "1 series, 3 steps" in errors  # the signal may come before the third answer has been counted
    assert "Traceback" not in errors


def test_a_reader_that_goes_away_is_no_error(model: pathlib.Path) -> None:
    with start(model) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("1,2,3,4,5,6\n" * 2000)
        process.stdin.close()
        assert json.loads(process.stdout.readline())["step"] == 1
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert errors == ""


class Endless(io.RawIOBase):
    """Lines that are made when they are asked for, and the memory of the process at two of them."""

    def __init__(self, count: int) -> None:
        self.count, self.number, self.memory = count, 0, list[int]()

    def readline(self, size: int | None = -1, /) -> bytes:
        import psutil

        self.number += 1
        if self.number in (self.count // 4, self.count):
            self.memory.append(psutil.Process().memory_info().rss)
        return b"1,2,3,,5,6\n" if self.number <= self.count else b""


class Nowhere(io.StringIO):
    """Counts lines and keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0

    def write(self, text: str, /) -> int:
        self.lines += text.count("\n")
        return len(text)


def test_memory_does_not_grow(model: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.cli import main

    lines, out = Endless(12_000), Nowhere()
    monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": lines})())
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["classify", "stream", "-", "--checkpoint", str(model), "--quiet"]) == 0
    assert out.lines == 12_000
    assert lines.memory[1] - lines.memory[0] < 1 << 19, "less than 60 bytes a step"


# Parts --------------------------------------------------------------------------------------------------------------


def test_latencies_are_right_within_a_percent() -> None:
    drawn = np.random.default_rng(0).lognormal(-7, 1, 5000)
    latency = Latency()
    for one in drawn:
        latency.add(float(one))
    for share in (0.05, 0.5, 0.95, 1.0):
        assert latency.quantile(share) == pytest.approx(np.quantile(drawn, share), rel=0.011)
    assert Latency().quantile(0.5) == 0.0
    latency.add(1e9)
    latency.add(0.0)
    assert sum(latency.counts) == latency.total == 5002


def test_the_verb_is_listed(command: Any) -> None:
    assert "stream" in command("classify --help").out
    assert "constant memory" in command("classify --help").out
    assert "stream" not in command("forecast --help").out
    helped = command("classify stream --help").out
    for option in ("--checkpoint", "--every", "--output", "--overwrite", "--columns.id", "standard input"):
        assert option in helped
    assert "--seeds" not in helped
