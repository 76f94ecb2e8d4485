"""``pipelines transcribe stream``: files, raw samples and WAV on standard input to lines of JSON, told at once."""

from __future__ import annotations

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import Transcriber
from pipelines.data.formats.audio import read_audio, write_wav
from pipelines.transcribe.reading import corpus_of

RATE = 8000
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
RAW = "--rate 8000 --encoding s16le"


def saved(folder: pathlib.Path, *, causal: bool) -> pathlib.Path:
    """A tiny model whose random head writes letters and spaces without end."""
    found = [one for one in corpus_of("phrases").utterances if len(one.text or "") > 3][:12]
    t = Transcriber(
        arch={"dim": 16, "layers": 1, "decoder_layers": 0},  # type: ignore[arg-type]
        causal=causal,
        sound={"rate": RATE, "mels": 40},  # type: ignore[arg-type]
        train={"epochs": 1, "patience": 0},  # type: ignore[arg-type]
        decode={"method": "greedy"},  # type: ignore[arg-type]
        valid=0.3,
        device="cpu",
    ).fit([(str(one.source), one.text) for one in found])
    with torch.no_grad():
        t.state.module.head.weight.normal_(0, 1.5, generator=torch.Generator().manual_seed(3))
        t.state.module.head.bias.zero_()[t.state.units.encode(" ")[0]] = 6.0
    return t.save(folder / "model")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A causal model."""
    return saved(tmp_path_factory.mktemp("live"), causal=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A model that needs whole stretches."""
    return saved(tmp_path_factory.mktemp("whole"), causal=False)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Three real phrases with pauses of 0.8 s."""
    found = [one for one in corpus_of("phrases").utterances if len(one.text or "") > 3][:3]
    quiet = np.random.default_rng(0).normal(0, 1e-4, 6400).astype(np.float32)
    parts = [part for one in found for part in (read_audio(one.source, rate=RATE).samples, quiet)]
    return np.concatenate([np.zeros(RATE, np.float32), *parts])


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def finals(text: str) -> list[dict[str, Any]]:
    return [event for event in lines_of(text) if event["kind"] == "final"]


def raw(sound: np.ndarray) -> bytes:
    return (sound * 32767).astype("<i2").tobytes()


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_file_gives_the_words_of_predict(
    command: Any, live: pathlib.Path, sound: np.ndarray, tmp_path: pathlib.Path
) -> None:
    write_wav(tmp_path / "a.wav", sound, RATE)
    done = command(f"transcribe stream a.wav --checkpoint {live} --segment.longest 5")
    assert done.code == 0, done.err
    read = read_audio(tmp_path / "a.wav").samples
    t = Transcriber.load(live, segment={"longest": 5.0})  # so that it is heard in stretches offline too
    offline = [word.text for item in t.predict((read, RATE)).items for word in item.words]
    events = finals(done.out)
    assert [word["text"] for event in events for word in event["words"]] == offline
    assert len(events) >= 3
    assert list(events[0]) == ["kind", "start", "end", "text", "words"]
    assert list(events[0]["words"][0]) == ["text", "start", "end", "confidence"]
    assert any(event["kind"] == "partial" for event in lines_of(done.out))
    closing = done.err.splitlines()[-1]
    assert closing.startswith(f"{len(sound) / RATE:.1f} s of sound, {len(events)} answers; from the end of speech")
    assert "95th percentile" in closing
    assert closing.endswith("s of work a second of sound")


def test_raw_samples_and_a_wav_on_standard_input(
    command: Any, live: pathlib.Path, sound: np.ndarray, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wav(tmp_path / "a.wav", sound, RATE)
    expected = command(f"transcribe stream a.wav --checkpoint {live} --quiet")
    assert (expected.code, expected.err) == (0, "")
    content = (tmp_path / "a.wav").read_bytes()
    give(monkeypatch, content)
    done = command(f"transcribe stream - --checkpoint {live} --rate 44100 --channels 2")
    assert done.code == 0, done.err
    assert done.out == expected.out
    assert "note: standard input: a WAV header: 8000 Hz, s16le, 1 channel" in done.err
    give(monkeypatch, content[44:])
    done = command(f"transcribe stream - --checkpoint {live} {RAW} --quiet")
    assert (done.code, done.out, done.err) == (0, expected.out, "")


def test_partials_can_be_left_out(
    command: Any, live: pathlib.Path, whole: pathlib.Path, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, raw(sound))
    done = command(f"transcribe stream - {RAW} --checkpoint {live} --partials false")
    assert len(lines_of(done.out)) == len(finals(done.out)) > 2
    assert "partial" not in done.err
    give(monkeypatch, raw(sound))
    done = command(f"transcribe stream - {RAW} --checkpoint {whole}")
    assert len(lines_of(done.out)) == len(finals(done.out)) > 2
    assert "note: this model hears a stretch of speech as a whole: no partial texts" in done.err


def test_several_recordings_are_told_apart(
    command: Any, whole: pathlib.Path, sound: np.ndarray, tmp_path: pathlib.Path
) -> None:
    write_wav(tmp_path / "a.wav", sound, RATE)
    write_wav(tmp_path / "b.wav", np.stack([sound, sound], 1), RATE)
    done = command(f"transcribe stream a.wav b.wav --checkpoint {whole}")
    events = lines_of(done.out)
    one, two = ([event for event in events if event["input"] == name] for name in ("a.wav", "b.wav"))
    assert [{**event, "input": ""} for event in one] == [{**event, "input": ""} for event in two]
    assert len(one) > 2
    assert "note: b.wav: 2 channels mixed to one: their mean" in done.err
    assert f"{2 * len(sound) / RATE:.1f} s of sound, {len(events)} answers" in done.err


def test_a_file_at_its_own_pace(command: Any, whole: pathlib.Path, sound: np.ndarray, tmp_path: pathlib.Path) -> None:
    write_wav(tmp_path / "a.wav", sound[: 2 * RATE], RATE)
    began = time.monotonic()
    done = command(f"transcribe stream a.wav --checkpoint {whole} --realtime true")
    assert done.code == 0, done.err
    assert time.monotonic() - began > 1.9
    assert len(finals(done.out)) == 1


def test_an_output_file_and_silence(command: Any, whole: pathlib.Path, sound: np.ndarray) -> None:
    write_wav(pathlib.Path("a.wav"), sound, RATE)
    done = command(f"transcribe stream a.wav --checkpoint {whole} -o out/a.jsonl")
    assert (done.code, done.out) == (0, "")
    assert [path.name for path in pathlib.Path("out").iterdir()] == ["a.jsonl"]
    assert len(finals(pathlib.Path("out/a.jsonl").read_text())) > 2
    write_wav(pathlib.Path("silence.wav"), np.zeros(2 * RATE, np.float32), RATE)
    done = command(f"transcribe stream silence.wav --checkpoint {whole}")
    assert (done.code, done.out) == (0, "")
    assert "silence: no sample above" in done.err
    assert "2.0 s of sound, 0 answers; 0." in done.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("nosuch.wav --checkpoint {model}", ("nosuch.wav", "no such file")),
        (". --checkpoint {model}", ("is a folder",)),
        ("empty.wav --checkpoint {model}", ("empty.wav", "the file is empty")),
        ("text.wav --checkpoint {model}", ("text.wav",)),
        ("a.wav --checkpoint nosuch", ("nosuch",)),
        ("a.wav --size large", ("--checkpoint", "pipelines transcribe fit --causal true --data CORPUS -o model/")),
        ("a.wav --checkpoint {model} -o a.csv", ("--output a.csv", "FILE.jsonl")),
        ("a.wav --checkpoint {model} --every 2", ("--every",)),
        ("- --checkpoint {model} --encoding s12", ("encoding", "s12", "s16le")),
        ("- --checkpoint {model} --rate 3", ("3 Hz",)),
        ("- --checkpoint {model} --channels 0", ("0 channels",)),
        ("- --checkpoint {model}", ("there is no sound in it",)),
        ("", ("inputs",)),
    ],
)
def test_uses_that_make_no_sense(
    refused: Any,
    whole: pathlib.Path,
    tmp_path: pathlib.Path,
    words: str,
    parts: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(RATE, np.float32), RATE)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not sound at all, whatever its name says")
    give(monkeypatch, b"")
    refused(f"transcribe stream {words.format(model=whole)}", *parts)


def test_the_weights_that_ship_are_taken(
    command: Any, live: pathlib.Path, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adopt(self: Transcriber) -> bool:
        if not self.is_fitted:
            self._state, self._fitted = Transcriber.load(live).state, True
        return True

    monkeypatch.setattr(Transcriber, "adopt_shipped", adopt)
    give(monkeypatch, raw(sound))
    done = command(f"transcribe stream - {RAW} --decode.method greedy")
    assert done.code == 0, done.err
    assert "no --checkpoint: the weights that ship are used" in done.err
    assert len(finals(done.out)) > 2


@pytest.mark.parametrize("words", ["", "-o a.jsonl"])
def test_ctrl_c_tells_what_was_said_until_then(
    command: Any, live: pathlib.Path, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    class Stopped(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            part = super().read(size)
            if not part:
                raise KeyboardInterrupt
            return part

    speaking = sound[: round(1.8 * RATE)]  # in the middle of the first phrase
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Stopped(raw(speaking))))
    done = command(f"transcribe stream - {RAW} --checkpoint {live} {words}")
    assert done.code == 130
    out = pathlib.Path("a.jsonl.partial").read_text() if words else done.out
    assert [event["kind"] for event in lines_of(out)].count("final") == 1
    assert lines_of(out)[-1]["kind"] == "final"
    assert lines_of(out)[-1]["end"] == pytest.approx(1.8, abs=0.2)
    assert "1.8 s of sound, 1 answers" in done.err
    kept = "are in a.jsonl.partial" if words else "were printed"
    assert f"pipelines: interrupted; the answers until then {kept}" in done.err


# As a process -------------------------------------------------------------------------------------------------------


def start(model: pathlib.Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "pipelines", "transcribe", "stream", "-", "--checkpoint", str(model), *RAW.split()]
    return subprocess.Popen(
        line, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )


def test_an_answer_comes_while_the_pipe_is_open(live: pathlib.Path, sound: np.ndarray) -> None:
    with start(live) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        lines = io.BufferedReader(process.stdout)  # type: ignore[type-var]
        first = round(3.2 * RATE)  # the first phrase and most of the pause after it
        process.stdin.write(raw(sound[:first]))
        kinds = []
        while not kinds or kinds[-1] != "final":
            kinds.append(json.loads(lines.readline())["kind"])  # would wait for ever if answers were held back
        assert kinds.count("partial") > 1
        process.stdin.write(raw(sound[first : first + 3 * RATE]))
        process.send_signal(signal.SIGTERM)
        rest, errors = lines.read().decode(), process.stderr.read().decode()
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert all(event["start"] > 2 for event in lines_of(rest))


def test_a_reader_that_goes_away_is_no_error(live: pathlib.Path, sound: np.ndarray) -> None:
    with start(live) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(raw(sound[: 3 * RATE]))
        assert process.stdout.read(1) == b"{"
        process.stdout.close()
        try:
            process.stdin.write(raw(sound[3 * RATE :]))
            process.stdin.close()
        except BrokenPipeError:
            pass
        errors = process.stderr.read().decode()
    assert process.returncode == 0
    assert errors == ""


def test_the_verb_is_listed(command: Any) -> None:
    helped = command("transcribe stream --help").out
    for option in ("--checkpoint", "--partials", "--realtime", "--rate", "--encoding", "--channels", "--output", "mic"):
        assert option in helped
    assert "--every" not in helped
    assert "live sound in" in command("transcribe --help").out
