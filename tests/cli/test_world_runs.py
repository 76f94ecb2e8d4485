"""``pipelines world`` as people use it: films and environments in; rollouts, figures, plans and reports out."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

SMALL = "--read.size [16,16] --arch.dim 16 --arch.layers 1 --arch.steps 2 --objective.free [1,2] --objective.windows 8"


@pytest.fixture
def film(tmp_path: pathlib.Path) -> pathlib.Path:
    """Twenty-four frames of a square that moves, as a film."""
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for step in range(24):
            picture = np.full((64, 64, 3), 60, np.uint8)
            picture[20:36, 2 * step : 2 * step + 12] = (200, 120, 40)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path


def test_predict_writes_films_and_arrays(
    command: Any, film: pathlib.Path, world_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = command(f"world predict {film} --checkpoint {world_folder} --read.size [16,16] --horizon 5 --json -o out/")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["frames"] == 5
    assert len(said["horizons"]["mse"]["fluidworld"]) == 5
    written = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written >= {".npz", ".gif", ".html", ".yaml"}
    for name in ("rollout.gif", "rollout.mp4", "rollout.npz", "rollout.png"):
        done = command(
            f"world predict {film} --checkpoint {world_folder} --read.size [16,16] --horizon 5 --quiet -o {name}"
        )
        assert done.code == 0, done.err
        assert (tmp_path / name).stat().st_size > 500


def test_the_end_of_a_film_can_be_gone_beyond(
    command: Any, film: pathlib.Path, world_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    line = f"world predict {film} --checkpoint {world_folder} --read.size [16,16] --horizon 4 --start 24 --json"
    done = command(f"{line} -o beyond.npz")
    assert done.code == 0, done.err
    assert any("no truth is known" in note for note in json.loads(done.out)["notes"])


@pytest.mark.parametrize("model", ["fluidworld", "transformer", "convlstm"])
def test_fit_and_evaluate(command: Any, film: pathlib.Path, tmp_path: pathlib.Path, model: str) -> None:
    small = {
        "fluidworld": SMALL,
        "transformer": SMALL.replace("--arch.steps 2", "--arch.heads 2"),
        "convlstm": SMALL.replace("--arch.layers 1 --arch.steps 2", "--arch.hidden 8"),
    }[model]
    line = f"world fit --data {film} --model {model} {small} --split.share 0.5 --horizon 5 --train.epochs 1"
    done = command(f"{line} --train.batch_size 4 --quiet -o model")
    assert done.code == 0, done.err
    done = command(
        f"world evaluate --data {film} --checkpoint model --read.size [16,16] --horizon 5 --json --quiet -o e.json"
    )
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert {"mse", "psnr", "ssim", "windows"} <= said.keys()
    assert set(said["baselines"]) == {"copy_last", "mean_frame"}
    # Twelve frames were not learned from: six windows of two frames seen and five predicted.
    assert said["windows"] == 6
    assert len(said["horizons"]["mse"]) == 5
    assert any("measured from frame 12 on" in note for note in said["notes"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("world predict gone.mp4", "gone.mp4"),
        ("world predict clip.mp4 --horizon 0", "horizon: out of range"),
        ("world predict clip.mp4 --start 500", "start"),
        ("world predict clip.mp4 --read.size [30,30]", "not the frames that the model was made for"),
        ("world predict empty.mp4", "empty.mp4"),
        ("world predict words.mp4", "words.mp4"),
        ("world play clip.mp4 --action [1]", "knows no actions"),
        ("world fit --data clip.mp4 --attention nonsense", "no mechanism"),
        ("world fit --data clip.mp4 --model fluidwrld", "did you mean fluidworld"),
        ("world fit --data clip.mp4 --objective.free [500]", "no episode is as long as a window"),
        ("world fit --data clip.mp4 --objective.base first", "base"),
        ("world fit --data NoSuchWorld-v0", "NoSuchWorld-v0"),
        ("world plan --data NoSuchWorld-v0", "NoSuchWorld-v0"),
    ],
)
def test_bad_input_is_one_line(
    command: Any, film: pathlib.Path, world_folder: pathlib.Path, tmp_path: pathlib.Path, line: str, words: str
) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "words.mp4").write_text("these are words, no film\n" * 40)
    if " predict " in line or " play " in line:
        line += f" --checkpoint {world_folder}" + ("" if "read.size" in line else " --read.size [16,16]")
    before = {path.name for path in tmp_path.iterdir()}
    done = command(f"{line} --quiet")
    assert done.code in (1, 2), done.out
    assert "Traceback" not in done.err
    assert words in done.err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_plan_is_a_file_with_its_companions(command: Any, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("gymnasium")
    line = "world plan --data CartPole-v1 --planning.episodes 1 --planning.steps 3 --planning.recorded 4 --json"
    done = command(f"{line} --threads 1 -o plan.json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["returns"] == [3.0]
    assert said["random_episodes"] == 100
    assert {path.name for path in tmp_path.iterdir()} >= {"plan.json", "plan.json.report.html", "plan.json.config.yaml"}
    assert not (tmp_path / "runs").exists()
