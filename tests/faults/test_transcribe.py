"""Speech recognition on bad input: one clear message, the right exit code, nothing invented, nothing half written."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import shlex
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from pipelines import Transcriber
from pipelines.cli import main
from pipelines.data.errors import UserError
from pipelines.data.formats.audio import read_audio, write_wav
from pipelines.errors import InputError, WeightsError
from pipelines.training.options import TrainOptions
from pipelines.transcribe.options import ArchOptions, DecodeOptions, SoundOptions
from pipelines.transcribe.reading import corpus_of

RATE = 8000


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Command = Callable[[str], Done]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(shlex.split(line))
        return Done(code, out.getvalue(), err.getvalue())

    return run


def digits(count: int) -> list[Any]:
    by_id = {one.id: one for one in corpus_of("phrases").utterances}
    return [by_id[f"digits/{number}"] for number in range(count)]


@pytest.fixture(scope="module")
def model() -> Transcriber:
    """A model that has hardly learned anything: what matters here is that it answers, or does not."""
    t = Transcriber(
        arch=ArchOptions(dim=16, layers=1, decoder_layers=1, channels=(4, 4)),
        sound=SoundOptions(RATE, 40),
        decode=DecodeOptions(method="greedy"),
        train=TrainOptions(epochs=2, patience=0),
        valid=0.3,
    )
    return t.fit([(str(one.source), one.text) for one in digits(6)])


@pytest.fixture(scope="module")
def folder(model: Transcriber, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return model.save(tmp_path_factory.mktemp("kept") / "model")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return read_audio(digits(4)[3].source, rate=RATE).samples


def listing(folder: pathlib.Path) -> dict[str, int]:
    return {str(path): path.stat().st_size if path.is_file() else -1 for path in sorted(folder.rglob("*"))}


# Files that are no recordings: name, what is in them, words of the message -------------------------------------------

HEADER = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)


def float_wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """A WAV file of 32-bit floats, as other tools write them."""
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, rate, 4 * rate, 4, 32)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt \x10\x00\x00\x00"
        + form
        + (b"data" + struct.pack("<I", len(data)) + data)
    )


WRONG: dict[str, tuple[bytes, str]] = {
    "empty.wav": (b"", "empty"),
    "text.wav": (b"these are the minutes of our meeting\n" * 50, "text"),
    "header.wav": (HEADER, "data"),
    "nothing.wav": (HEADER + b"data\x00\x00\x00\x00", "no sound in it"),
    "nan.wav": (float_wav(np.full(4000, np.nan)), "NaN"),
    "cut.wav": (HEADER + b"data" + struct.pack("<I", 16_000) + bytes(range(256)) * 10, "accept"),
    "noise.mp3": (bytes(np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)), "noise.mp3"),
    "cut.flac": (b"fLaC\x00\x00\x00\x22", "cut.flac"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_no_recording_is_refused_in_one_line(
    command: Command, folder: pathlib.Path, tmp_path: pathlib.Path, name: str
) -> None:
    content, words = WRONG[name]
    (tmp_path / name).write_bytes(content)
    before = listing(tmp_path)
    done = command(f"transcribe predict {name} --checkpoint {folder} -o out.srt --json --quiet")
    assert (done.code, done.out) == (2, ""), done
    assert name in done.err
    assert words.lower() in done.err.lower()
    assert done.err.count("pipelines: ") == 1
    assert len(done.err.splitlines()) == 1, done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    assert listing(tmp_path) == before, "a refused command wrote something"


def test_in_a_folder_only_the_wrong_ones_are_left_out(
    command: Command, folder: pathlib.Path, tmp_path: pathlib.Path, speech: np.ndarray
) -> None:
    (tmp_path / "in").mkdir()
    for name, (content, _) in WRONG.items():
        (tmp_path / "in" / name).write_bytes(content)
    write_wav(tmp_path / "in" / "good.wav", speech, RATE)
    done = command(f"transcribe predict in --checkpoint {folder} -o out/ --json --quiet")
    assert done.code == 1
    said = json.loads(done.out)
    assert sorted(said["failures"]) == sorted(WRONG)
    assert [entry["source"] for entry in said["transcripts"]] == ["good.wav"]
    assert {path.name for path in pathlib.Path("out").rglob("*.txt")} == {"good.txt"}


def test_a_folder_without_recordings_is_refused(command: Command, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("nothing to hear")
    done = command(f"transcribe predict in --checkpoint {folder} -o out/ --quiet")
    assert done.code == 2
    assert "in" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "bad.wav").write_text("a text")
    done = command(f"transcribe predict in --checkpoint {folder} -o out/ --quiet")
    assert done.code == 2
    assert "no recording of this folder can be read" in done.err
    assert "bad.wav" in done.err
    assert not (tmp_path / "out").exists()


def test_files_that_do_not_exist(command: Command, folder: pathlib.Path) -> None:
    for line in (
        f"transcribe predict nowhere.wav --checkpoint {folder} -o out.txt",
        f"transcribe evaluate --data nowhere.csv --checkpoint {folder} -o out",
        "transcribe fit --data nowhere.csv -o out",
        "transcribe predict nowhere.wav --checkpoint nowhere -o out.txt",
    ):
        done = command(f"{line} --quiet")
        assert (done.code, done.out) == (2, ""), (line, done)
        assert "nowhere" in done.err
        assert "Traceback" not in done.err
    assert list(pathlib.Path().iterdir()) == []


# Recordings that are strange, but recordings -------------------------------------------------------------------------


def heard(model: Transcriber, samples: Any, rate: int) -> Any:
    item = model.predict((samples, rate)).items[0]
    assert item.text.split() == [word.text for word in item.words]
    assert all(0 <= word.start < word.end <= item.seconds + 1e-6 for word in item.words)
    return item


def test_ten_milliseconds(model: Transcriber, speech: np.ndarray) -> None:
    item = heard(model, speech[3000:3080], RATE)
    assert (item.text, item.seconds) == ("", 0.01)
    assert heard(model, speech[3000:3001], RATE).text == ""


def test_silence_has_no_text_and_says_so(model: Transcriber) -> None:
    item = heard(model, np.zeros(3 * RATE, np.int16), RATE)
    assert item.segments == ()
    assert any("silence" in note for note in item.notes)


def test_clipped_speech_is_read_and_said(model: Transcriber, speech: np.ndarray) -> None:
    item = heard(model, np.clip(speech * 60, -1, 1), RATE)
    assert any("clip" in note for note in item.notes), item.notes


def test_192_kilohertz_and_8_bit(model: Transcriber, speech: np.ndarray, tmp_path: pathlib.Path) -> None:
    import soundfile

    plain = heard(model, speech, RATE)
    soundfile.write(tmp_path / "fast.wav", np.repeat(speech, 24), 192_000)
    soundfile.write(tmp_path / "coarse.wav", speech, RATE, subtype="PCM_U8")
    fast, coarse = (model.predict(tmp_path / f"{name}.wav").items[0] for name in ("fast", "coarse"))
    assert fast.seconds == pytest.approx(plain.seconds, abs=0.01)
    assert any("192" in note for note in fast.notes), fast.notes
    assert coarse.seconds == pytest.approx(plain.seconds)
    assert read_audio(tmp_path / "coarse.wav").facts.bits == 8
    assert np.abs(read_audio(tmp_path / "coarse.wav").samples - speech).max() <= 1 / 128


def test_a_recording_cut_short_is_read_where_that_is_asked_for(
    model: Transcriber, speech: np.ndarray, tmp_path: pathlib.Path
) -> None:
    write_wav(tmp_path / "cut.wav", speech, RATE)
    content = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=r"cut\.wav"):
        model.predict(tmp_path / "cut.wav")
    model.apply({"accept_truncated": True}, where="test")
    try:
        item = model.predict(tmp_path / "cut.wav").items[0]
    finally:
        model.apply({"accept_truncated": False}, where="test")
    assert item.seconds < len(speech) / RATE * 0.7
    assert any("cut short" in note for note in item.notes), item.notes


def test_a_recording_longer_than_the_limit_is_refused(model: Transcriber) -> None:
    model.apply({"limit_hours": 0.001}, where="test")
    try:
        with pytest.raises(InputError, match=r"hour|long"):
            model.predict((np.zeros(10 * RATE, np.float32), RATE))
    finally:
        model.apply({"limit_hours": 24.0}, where="test")


@pytest.mark.parametrize(
    "inputs",
    [
        (np.array([0.0, np.nan, 0.1] * 500, np.float32), RATE),
        (np.array([0.0, np.inf, 0.1] * 500, np.float32), RATE),
        (np.zeros(0, np.float32), RATE),
        (np.zeros(800, np.float32), 0),
        (np.zeros((2, 2, 800), np.float32), RATE),
        (np.zeros(800, complex), RATE),
        [],
        42,
        None,
    ],
    ids=["NaN", "infinite", "no samples", "no rate", "three axes", "complex", "no recordings", "a number", "none"],
)
def test_samples_that_are_none_are_refused(model: Transcriber, inputs: Any) -> None:
    with pytest.raises(UserError):
        model.predict(inputs)


def test_music_is_read_without_a_crash(model: Transcriber) -> None:
    time = np.arange(20 * RATE) / RATE
    tones = sum(np.sin(2 * np.pi * 220 * ratio * time) for ratio in (1, 1.25, 1.5))
    beat = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 2 * time))
    heard(model, (0.2 * tones * beat).astype(np.float32), RATE)


# Lists ---------------------------------------------------------------------------------------------------------------


def write_list(path: pathlib.Path, rows: list[tuple[str, str, str]]) -> pathlib.Path:
    path.write_text("\n".join(["path\ttext\tsplit", *("\t".join(row) for row in rows)]) + "\n")
    return path


def test_a_line_that_points_nowhere_is_named_and_the_rest_is_done(
    command: Command, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    by_id = {one.id: one for one in corpus_of("phrases").utterances}
    rows = [(str(by_id[f"digits/{n}"].source), by_id[f"digits/{n}"].text or "", "test") for n in ("8", "9")]
    rows.insert(1, ("nowhere.wav", "ten", "test"))
    write_list(tmp_path / "list.tsv", rows)
    done = command(f"transcribe evaluate --data list.tsv --checkpoint {folder} --json --quiet -o out")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["utterances"] == 2
    assert any("list.tsv:3" in note and "nowhere.wav" in note for note in said["notes"])


def test_a_list_without_a_good_line_is_refused(command: Command, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    write_list(tmp_path / "list.tsv", [("a.wav", "one", "test"), ("b.wav", "two", "test")])
    done = command(f"transcribe evaluate --data list.tsv --checkpoint {folder} --quiet -o out")
    assert done.code == 2
    assert "list.tsv" in done.err
    assert not (tmp_path / "out").exists()


def test_without_a_test_part_everything_new_is_measured(model: Transcriber) -> None:
    by_id = {one.id: one for one in corpus_of("phrases").utterances}
    data = [(str(by_id[f"digits/{n}"].source), by_id[f"digits/{n}"].text) for n in ("8", "9", "10")]
    assert model.evaluate(data).counts["utterances"] == 3


def test_a_list_of_the_test_part_alone_teaches_nothing(command: Command, tmp_path: pathlib.Path) -> None:
    write_list(tmp_path / "list.tsv", [(str(one.source), one.text, "test") for one in digits(3)])
    done = command("transcribe fit --data list.tsv -o out --quiet")
    assert done.code == 2
    assert "nothing to learn from" in done.err
    assert not (tmp_path / "out").exists()


def test_texts_with_other_characters_are_refused_before_training(command: Command, tmp_path: pathlib.Path) -> None:
    rows = [(str(one.source), one.text, "train") for one in digits(4)]
    rows[2] = (rows[2][0], "50 £", "train")
    write_list(tmp_path / "list.tsv", rows)
    done = command("transcribe fit --data list.tsv --units.alphabet ' abcdefghijklmnopqrstuvwxyz' -o out --quiet")
    assert done.code == 2
    for part in ("'£' 1", "'5' 1", "--units.unknown drop"):
        assert part in done.err
    assert not (tmp_path / "out").exists()


# Weights -------------------------------------------------------------------------------------------------------------


def test_weights_of_another_domain_are_refused(command: Command, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    from pipelines import Classifier

    kit = Classifier.check_kit()
    Classifier(**kit["params"]).fit(kit["data"]).save(tmp_path / "other")
    with pytest.raises(WeightsError, match="belong to another pipeline"):
        Transcriber.load(tmp_path / "other")
    done = command(f"transcribe predict {digits(1)[0].source} --checkpoint other -o out.txt")
    assert done.code == 2
    assert "classify" in done.err
    assert not (tmp_path / "out.txt").exists()


def test_an_official_file_is_refused(command: Command, tmp_path: pathlib.Path) -> None:
    (tmp_path / "samba.pt").write_bytes(b"weights")
    done = command(f"transcribe predict {digits(1)[0].source} --checkpoint samba.pt -o out.txt")
    assert done.code == 2
    assert "no weights of Samba-ASR were released" in done.err


def test_damaged_weights_are_refused(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    content = bytearray((tmp_path / "copy" / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError):
        Transcriber.load(tmp_path / "copy")


def test_a_model_of_another_shape_is_refused(folder: pathlib.Path) -> None:
    for change in ({"causal": True}, {"arch": ArchOptions(dim=24)}, {"sound": SoundOptions(11_025, 40)}):
        with pytest.raises(UserError, match="another"):
            Transcriber.load(folder, **change)


def test_what_exists_is_not_overwritten(command: Command, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "out.srt").write_text("mine")
    done = command(f"transcribe predict {digits(1)[0].source} --checkpoint {folder} -o out.srt")
    assert done.code == 2
    assert (tmp_path / "out.srt").read_text() == "mine"


def test_an_unknown_ending_is_refused_before_any_work(
    command: Command, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = command(f"transcribe predict {digits(1)[0].source} --checkpoint {folder} -o out.docx")
    assert done.code == 2
    assert ".srt" in done.err
    assert list(tmp_path.iterdir()) == []
