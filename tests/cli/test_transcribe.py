"""``pipelines transcribe`` from end to end: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pipelines import Transcriber
from pipelines.data.formats.audio import read_audio, write_wav
from pipelines.training.options import TrainOptions
from pipelines.transcribe.options import ArchOptions, DecodeOptions, SoundOptions
from pipelines.transcribe.reading import corpus_of

SMALL = (
    "--arch.dim 16 --arch.layers 1 --arch.decoder_layers 1 --arch.channels [4,4] --sound.rate 8000 --sound.mels 40"
    " --decode.method greedy --valid 0.3 --train.epochs 1 --train.max_steps 2 --batch_seconds 5 --threads 1"
)


def digits(count: int) -> list[Any]:
    by_id = {one.id: one for one in corpus_of("phrases").utterances}
    return [by_id[f"digits/{number}"] for number in range(count)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a model that has seen two digits and was judged on two others."""
    t = Transcriber(
        arch=ArchOptions(dim=16, layers=1, decoder_layers=1, channels=(4, 4)),
        sound=SoundOptions(8000, 40),
        decode=DecodeOptions(method="greedy"),
        train=TrainOptions(epochs=1, patience=0),
        valid=0.5,
        threads=1,
    )
    return t.fit([(str(one.source), one.text) for one in digits(4)]).save(tmp_path_factory.mktemp("kept") / "model")


@pytest.fixture
def table(tmp_path: pathlib.Path) -> pathlib.Path:
    """A list of eight recordings, the last two of them for testing."""
    lines = ["path,text,split"]
    for number, one in enumerate(digits(8)):
        write_wav(tmp_path / f"{number}.wav", read_audio(one.source).samples, 8000)
        lines.append(f"{number}.wav,{one.text},{'test' if number > 5 else 'train'}")
    path = tmp_path / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_list_is_learned_from_kept_and_used(command: Callable[[str], Any], table: pathlib.Path) -> None:
    done = command(f"transcribe fit --data {table} {SMALL} --json -o model")
    assert done.code == 0, done.err
    said = json.loads(done.out.splitlines()[-1])
    assert said["utterances"] == 2
    assert {"wer", "cer", "normaliser"} <= said.keys()
    assert {"config.json", "model.safetensors", "evaluation.json", "report.html"} <= {
        path.name for path in pathlib.Path("model").iterdir()
    }
    done = command("transcribe predict 1.wav --checkpoint model -o out.srt --quiet")
    assert done.code == 0, done.err
    assert pathlib.Path("out.srt").is_file()
    assert pathlib.Path("out.srt.report.html").is_file()
    again = command(f"transcribe evaluate --data {table} --checkpoint model --json --quiet -o run")
    assert again.code == 0, again.err
    assert json.loads(again.out)["wer"] == said["wer"]


@pytest.mark.parametrize("ending", ["txt", "srt", "vtt", "tsv", "json"])
def test_one_recording_goes_into_every_kind_of_file(
    command: Callable[[str], Any], table: pathlib.Path, kept: pathlib.Path, ending: str
) -> None:
    done = command(f"transcribe predict 3.wav --checkpoint {kept} -o out.{ending} --json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert [entry["source"] for entry in said["transcripts"]] == ["3.wav"]
    words = said["transcripts"][0]["text"].split()
    content = pathlib.Path(f"out.{ending}").read_text()
    if ending == "json":
        assert json.loads(content)["transcripts"] == said["transcripts"]
    else:
        assert all(word in content for word in words)
    assert f"out.{ending}" in said["files"]


def test_several_recordings_go_into_a_folder(
    command: Callable[[str], Any], table: pathlib.Path, kept: pathlib.Path
) -> None:
    done = command(f"transcribe predict 0.wav 1.wav --checkpoint {kept} -o out/ --json --quiet")
    assert done.code == 0, done.err
    answers = json.loads(done.out)["answers"]
    assert [answer["input"] for answer in answers] == ["0.wav", "1.wav"]
    assert [path.name[-5:] for path in sorted(pathlib.Path("out").glob("*.txt"))] == ["0.txt", "1.txt"]
    refused = command(f"transcribe predict 0.wav 1.wav --checkpoint {kept} -o out.srt --quiet")
    assert refused.code == 2
    assert "folder" in refused.err


def test_a_folder_with_a_bad_file_is_read_but_for_it(
    command: Callable[[str], Any], table: pathlib.Path, kept: pathlib.Path
) -> None:
    pathlib.Path("in").mkdir()
    pathlib.Path("0.wav").rename("in/0.wav")
    pathlib.Path("in/bad.wav").write_text("a text")
    done = command(f"transcribe predict in --checkpoint {kept} -o out/ --formats txt,srt --json --quiet")
    assert done.code == 1, "something was left out"
    said = json.loads(done.out)
    assert list(said["failures"]) == ["bad.wav"]
    names = {path.name for path in pathlib.Path("out").rglob("*")}
    assert {"0.txt", "0.srt"} <= names
    assert not any(name.startswith("bad") for name in names)
    assert "Traceback" not in done.err


def test_evaluation_is_one_line_of_json(command: Callable[[str], Any], table: pathlib.Path, kept: pathlib.Path) -> None:
    done = command(f"transcribe evaluate --data {table} --checkpoint {kept} --json --quiet -o run")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    said = json.loads(done.out)
    assert (said["utterances"], said["words"], said["normaliser"]) == (2, 2, "english-1")
    assert said["protocol"].endswith("normaliser english-1")
    assert said["wer"] >= 0
    assert "no text" in said["baselines"]
    assert "Texts that differ most" in pathlib.Path("run/report.html").read_text()


def test_a_known_text_is_aligned(command: Callable[[str], Any], table: pathlib.Path, kept: pathlib.Path) -> None:
    done = command(f'transcribe align 1.wav --text "One!" --checkpoint {kept} -o out.tsv --json')
    assert done.code == 0, done.err
    words = json.loads(done.out)["transcripts"][0]["words"]
    assert [word["text"] for word in words] == ["one"]
    assert 0 <= words[0]["start"] < words[0]["end"]
    assert "one" in pathlib.Path("out.tsv").read_text()
    missing = command(f"transcribe align 1.wav --checkpoint {kept} -o again.tsv")
    assert missing.code == 2
    assert "text" in missing.err
    assert not pathlib.Path("again.tsv").exists()


def test_the_demonstration(command: Callable[[str], Any]) -> None:
    done = command("transcribe demo --json --quiet -o run")
    assert done.code == 0, done.err
    assert json.loads(done.out)["utterances"] == 58


def test_the_configuration_is_printed(command: Callable[[str], Any], table: pathlib.Path) -> None:
    shown = command(f"transcribe fit --data {table} {SMALL} --augment.join 0.25 --segment.longest 9 --print_config")
    assert shown.code == 0, shown.err
    pathlib.Path("run.yaml").write_text(shown.out)
    again = command("transcribe fit --config run.yaml --print_config")
    assert again.out == shown.out
    for words in ("join: 0.25", "longest: 9", "max_steps: 2", "method: greedy"):
        assert words in again.out


def test_a_run_is_resumed_where_it_stopped(command: Callable[[str], Any], table: pathlib.Path) -> None:
    rest = SMALL.replace("--train.epochs 1 --train.max_steps 2", "--train.epochs 3 --train.checkpoint_steps 1")
    kill = (
        "import os, signal, sys\n"
        "from pipelines.transcribe import training, engine\n"
        "real = training.joint_loss\n"
        "count = [0]\n"
        "def dying(weight):\n"
        "    plain = real(weight)\n"
        "    def loss(model, batch):\n"
        "        count[0] += model.training\n"
        "        if count[0] == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
        "        return plain(model, batch)\n"
        "    return loss\n"
        "engine.joint_loss = dying\n"
        "from pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = f"transcribe fit --data {table} {rest} --quiet -o part".split()
    killed = subprocess.run([sys.executable, "-c", kill, *words], capture_output=True, text=True, check=False)
    assert killed.returncode == 143, killed.stderr
    assert "Continue with: pipelines transcribe fit" in killed.stderr
    assert not pathlib.Path("part/model.safetensors").exists()
    done = command("transcribe fit --resume part --json --quiet")
    assert done.code == 0, done.err
    assert json.loads(pathlib.Path("part/config.json").read_text())["training"]["steps"] == 3
