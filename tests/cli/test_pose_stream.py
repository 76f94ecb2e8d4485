"""``pipelines pose stream``: files, pipes and keypoint files to lines of JSON or an NPZ file, told as frames come."""

from __future__ import annotations

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pipelines import PoseLifter, load
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.formats.pose_write import write_poses
from pipelines.pose.material import motion_of, view_of

ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
HOW = "--read.skeleton h36m17 --read.size [1000,1000] --read.fps 30"


@pytest.fixture(scope="module")
def seen() -> Clip:
    """Twelve frames of a walk as one camera sees it."""
    lifter = PoseLifter()
    walk = next(clip for clip in motion_of(lifter, "demo")[0] if clip.action == "walk")
    joints = view_of(lifter, walk, 0).joints
    return joints.but(points=joints.points[:12], valid=joints.valid[:12])


@pytest.fixture(scope="module")
def expected(lifter_folder: pathlib.Path, seen: Clip) -> np.ndarray:
    """What `predict` makes of them."""
    lifter = load(lifter_folder, threads=1)
    assert isinstance(lifter, PoseLifter)
    return lifter.predict(seen).tracks[0].points


@pytest.fixture(scope="module")
def rows(seen: Clip) -> str:
    """A frame a line."""
    return "".join(json.dumps(frame.astype(float).tolist()) + "\n" for frame in seen.points)


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def points_of(events: list[dict[str, Any]]) -> np.ndarray:
    return np.array([event["points"] for event in events if event["kind"] == "pose"])


def give(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


def test_lines_of_a_file_and_of_a_pipe(
    command: Any,
    lifter_folder: pathlib.Path,
    rows: str,
    expected: np.ndarray,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a.jsonl").write_text(rows)
    done = command(f"pose stream a.jsonl --checkpoint {lifter_folder} {HOW}")
    assert done.code == 0, done.err
    events = events_of(done.out)
    assert [event["kind"] for event in events] == ["start", *["pose"] * 12, "end"]
    assert np.abs(points_of(events) - expected).max() < 1e-5
    assert (events[0]["delay_frames"], events[0]["delay_ms"]) == (1, 33.3)
    assert {"compute_ms", "latency_ms"} <= events[0].keys() & events[-1].keys()
    assert "note: a.jsonl: 17 joints: taken for h36m17, as was said" in done.err
    assert "12 frames, 12 poses; work a pose: median" in done.err.splitlines()[-1]
    give(monkeypatch, rows)
    piped = command(f"pose stream - --checkpoint {lifter_folder} {HOW} --quiet")
    assert (piped.code, piped.err) == (0, "")
    assert np.array_equal(points_of(events_of(piped.out)), points_of(events))


def test_a_table_by_a_smaller_delay_as_npz(
    command: Any, lifter_folder: pathlib.Path, seen: Clip, expected: np.ndarray, tmp_path: pathlib.Path
) -> None:
    head = ",".join(f"{name}_{axis}" for name in skeleton("h36m17").joints for axis in "xy")
    table = "\n".join([head, *(",".join(str(one) for one in frame.ravel()) for frame in seen.points)])
    (tmp_path / "a.csv").write_text(table)
    write_poses(tmp_path / "k.json", [seen])
    line = f"pose stream a.csv k.json --checkpoint {lifter_folder} {HOW} --quiet"
    done = command(f"{line} -o out/a.npz")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.npz"]
    with np.load(tmp_path / "out" / "a.npz") as held:
        for number in (0, 1):
            assert np.abs(held[f"{number}/points"] - expected).max() < 1e-5
            assert str(held[f"{number}/unit"]) == "m"
    done = command(f"{line} -o out/b.jsonl --delay 0")
    assert done.code == 0, done.err
    sooner = events_of((tmp_path / "out" / "b.jsonl").read_text())
    assert {event["input"] for event in sooner} == {"a.csv", "k.json"}
    assert sooner[0]["delay_ms"] == 0
    assert any("the newest frame stands for the 1 last" in note for note in sooner[-1]["notes"])
    assert np.abs(points_of(sooner[:14]) - expected)[:-1].max() > 1e-4


@pytest.mark.parametrize(
    ("words", "content", "parts"),
    [
        ("nosuch.jsonl", "", ("nosuch.jsonl", "no such file")),
        ("a.jsonl --delay 2", "", ("delay", "0 to 1 frames")),
        ("a.jsonl --delay half", "", ("--delay", "half")),
        ("a.jsonl -o a.csv", "", ("--output a.csv", "FILE.jsonl", "FILE.npz")),
        ("a.jsonl -o k.npz", "", ("k.npz",)),
        ("a.jsonl --every 2", "", ("--every",)),
        ("-", "", ("standard input", "no frames")),
        ("-", "[[1, 2]]\n", ("line 1", "another number of joints", "17 joints of h36m17")),
        ("-", "[" + "[5, 6]," * 24 + "[5, 6]]\n", ("line 1", "25 joints", "body25")),
        ("-", "hello\n", ("line 1", "no head with columns of joints")),
        ("", "", ("inputs",)),
    ],
)
def test_uses_that_make_no_sense(
    refused: Any,
    lifter_folder: pathlib.Path,
    rows: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    content: str,
    parts: tuple[str, ...],
) -> None:
    (tmp_path / "a.jsonl").write_text(rows)
    (tmp_path / "k.npz").touch()
    give(monkeypatch, content)
    refused(f"pose stream {words} --checkpoint {lifter_folder} {HOW}", *parts)


def test_a_bad_line_comes_after_the_answers_before_it(
    command: Any, lifter_folder: pathlib.Path, rows: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "a.jsonl").write_text(rows + "[[3, 4], [5, 6]]\n" + rows)
    done = command(f"pose stream a.jsonl --checkpoint {lifter_folder} {HOW} -o b.npz")
    assert done.code == 2
    assert "pipelines: a.jsonl, line 13: another number of joints" in done.err
    assert "note: the answers until then are in b.npz.partial" in done.err
    assert not (tmp_path / "b.npz").exists()
    assert len(points_of(events_of((tmp_path / "b.npz.partial").read_text()))) == 12
    again = command(f"pose stream a.jsonl --checkpoint {lifter_folder} {HOW} -o b.npz")
    assert "answers of an interrupted stream are there" in again.err


def test_ctrl_c_answers_the_frames_that_wait(
    command: Any, lifter_folder: pathlib.Path, rows: str, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            if not line:
                raise KeyboardInterrupt
            return line

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Stopped(rows.encode())))
    done = command(f"pose stream - --checkpoint {lifter_folder} {HOW}")
    assert done.code == 130
    assert np.abs(points_of(events_of(done.out)) - expected).max() < 1e-5
    assert events_of(done.out)[-1]["kind"] == "end"
    assert "pipelines: interrupted; the answers until then were printed" in done.err


def test_the_verb_is_listed(command: Any) -> None:
    helped = command("pose stream --help").out
    for option in ("--checkpoint", "--delay", "--follow", "--realtime", "--output", "--read.fps", "--read.skeleton"):
        assert option in helped
    assert "--every" not in helped
    assert "a frame of joints a line" in " ".join(helped.split())
    assert "microphone" not in helped
    assert "Lift joints while they arrive" in command("pose --help").out


# As a process ---------------------------------------------------------------------------------------------------------


def start(model: pathlib.Path, *words: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "pipelines", "pose", "stream", *words, "--checkpoint", str(model), *HOW.split()]
    return subprocess.Popen(
        line, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )


def test_an_answer_comes_while_the_file_grows(lifter_folder: pathlib.Path, rows: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = rows.splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:30])
    with start(lifter_folder, str(path), "--follow") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = io.BufferedReader(process.stdout)  # type: ignore[type-var]
        kinds = [json.loads(told.readline())["kind"] for _ in range(3)]  # would wait for ever if they were held back
        assert kinds == ["start", "pose", "pose"]
        with path.open("a") as file:
            file.write(lines[3][30:])
        assert json.loads(told.readline())["frame"] == 2
        process.send_signal(signal.SIGINT)
        rest, errors = told.read().decode(), process.stderr.read().decode()
    assert process.returncode == 130
    assert [event["kind"] for event in events_of(rest)] == ["pose", "end"]
    assert "interrupted" in errors
    assert "Traceback" not in errors


def test_a_reader_that_goes_away_is_no_error(lifter_folder: pathlib.Path, rows: str) -> None:
    with start(lifter_folder, "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(rows.encode())
        assert process.stdout.read(1) == b"{"
        process.stdout.close()
        try:
            process.stdin.write(rows.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass
        errors = process.stderr.read().decode()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "rror" not in errors
