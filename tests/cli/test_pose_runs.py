"""``pipelines pose`` as people use it: keypoint files and motion capture in; poses, films, figures and reports out."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from pipelines import PoseLifter
from pipelines.data.formats.pose_write import write_poses
from pipelines.pose.material import motion_of, view_of

SMALL = "--frames 3 --arch.dim 8 --arch.spatial_layers 1 --arch.temporal_layers 1 --arch.kernels [3] --arch.heads 2"


@pytest.fixture
def keypoints(tmp_path: pathlib.Path) -> pathlib.Path:
    """Thirty frames of a walk as one camera sees them, as a file of joints."""
    lifter = PoseLifter()
    walk = next(clip for clip in motion_of(lifter, "demo")[0] if clip.action == "walk")
    seen = view_of(lifter, walk, 0).joints
    path = tmp_path / "keypoints.json"
    write_poses(path, [seen.but(points=seen.points[:30], valid=seen.valid[:30])])
    return path


def test_predict_writes_poses_and_films(
    command: Any, keypoints: pathlib.Path, lifter_folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = command(f"pose predict {keypoints} --checkpoint {lifter_folder} --json --quiet -o out/")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["frames"] == 30
    assert len(said["persons"]) == 1
    written = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written >= {".npz", ".mp4", ".html", ".yaml"}
    found = next((tmp_path / "out").rglob("poses.npz"))
    with np.load(found) as kept:
        assert kept["points"].shape == (30, 17, 3)
        assert str(kept["unit"]) == "m"
    for name in ("poses.csv", "poses.bvh", "film.gif"):
        done = command(f"pose predict {keypoints} --checkpoint {lifter_folder} --quiet -o {name}")
        assert done.code == 0, done.err
        assert (tmp_path / name).stat().st_size > 1000


def test_fit_and_evaluate(command: Any, tmp_path: pathlib.Path) -> None:
    line = f"pose fit --data motions {SMALL} --motion.windows 64 --train.epochs 1 --views.cameras 1"
    done = command(f"{line} --split.by action --split.test walk --split.valid 0 --quiet -o model")
    assert done.code == 0, done.err
    done = command("pose evaluate --data motions --checkpoint model --views.cameras 1 --json --quiet -o e.json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert {"mpjpe", "p_mpjpe", "mpjve", "frames"} <= said.keys()
    assert set(said["baselines"]) == {"linear", "mean"}
    assert said["clips"] == 1
    noisy = command(
        "pose evaluate --data motions --checkpoint model --views.cameras 1 --views.noise_px 5 --json --quiet -o n.json"
    )
    assert "5 px of noise" in json.loads(noisy.out)["protocol"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pose predict gone.json", "gone.json"),
        ("pose predict motion.npz", "poses in space where joints of images are needed"),
        ("pose predict five.npy --read.size [100,100]", "five"),
        ("pose predict empty.json", "empty.json"),
        ("pose predict keypoints.json -o film.pdf", "cannot write this kind of file"),
        ("pose predict keypoints.json --arch.dim 64", "another arch"),
        ("pose fit --data motions --frames 4", "an odd number"),
        ("pose fit --data motions --attention nonsense", "no mechanism"),
        ("pose fit --data motions --split.test wlak --split.by action", "no such action"),
        ("pose fit --data keypoints.json", "joints of images where motion in space is needed"),
        ("pose evaluate --data motions --views.noise_px -1", "views.noise_px: out of range"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(
    command: Any, keypoints: pathlib.Path, lifter_folder: pathlib.Path, tmp_path: pathlib.Path, line: str, words: str
) -> None:
    np.save(tmp_path / "five.npy", np.random.default_rng(0).uniform(1, 90, (4, 5, 2)))
    (tmp_path / "empty.json").write_text("{}")
    write_poses(tmp_path / "motion.npz", motion_of(PoseLifter(), "demo")[0][:1])
    before = sorted(tmp_path.rglob("*"))
    model = "" if " fit " in line else f" --checkpoint {lifter_folder}"
    done = command(line + model)
    assert done.code == 2, done.err
    assert words.lower() in done.err.lower(), done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_convert_in_one_line(command: Any, keypoints: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = command(f"pose convert {keypoints} --to coco17 -o coco.csv --json --quiet")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["frames"] == 30
    assert (said["clips"][0]["skeleton"], said["clips"][0]["unit"]) == ("coco17", "px")
    assert any("left out: hip, spine, thorax, head" in note for note in said["notes"])
    assert {"coco.csv", "coco.csv.report.html", "coco.csv.config.yaml"} <= {path.name for path in tmp_path.iterdir()}
    # Bones of motion that was resampled change their lengths, which BVH cannot hold: two clips that are at their rate.
    motion = [clip for clip in motion_of(PoseLifter(), "demo")[0] if clip.action in ("walk", "run")]
    for clip in motion:
        write_poses(tmp_path / f"{clip.action}.json", [clip])
    words = " ".join(f"{clip.action}.json" for clip in motion)
    done = command(f"pose convert {words} --form bvh -o out/")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "out" / "joints").iterdir()} == {f"{one.action}.bvh" for one in motion}
    assert "bones of constant length" in done.out
    back = command(f"pose convert out/joints/{motion[0].action}.bvh --to h36m17 -o back.npz --json --quiet")
    assert back.code == 0, back.err
    with np.load(tmp_path / "back.npz") as held:
        assert np.abs(held["points"] - motion[0].points).max() < 0.02
    assert command(f"pose convert {words} -o both.bvh --quiet").code == 0
    assert {path.name for path in tmp_path.glob("both-*.bvh")} == {"both-walk.bvh", "both-run.bvh"}
    again = command(f"pose convert {words} -o both.bvh --quiet --overwrite")
    assert again.code == 0, again.err
    (tmp_path / "both.bvh.report.html").unlink()
    for name in ("config.yaml", "png"):
        (tmp_path / f"both.bvh.{name}").unlink()
    again = command(f"pose convert {words} -o both.bvh --quiet")
    assert again.code == 2
    assert "there already" in again.err
    help_text = command("pose convert --help")
    assert "--to" in help_text.out
    assert "--form" in help_text.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pose convert gone.json -o a.npz", "gone.json"),
        ("pose convert keypoints.json --to smpl24 -o a.npz", "no way to smpl24"),
        ("pose convert keypoints.json --to cocoo -o a.npz", "no such skeleton"),
        ("pose convert keypoints.json -o a.bvh", "BVH holds 3-D motion"),
        ("pose convert keypoints.json -o a.c3d", "cannot write this kind of file"),
        ("pose convert keypoints.json -o keypoints.json", "already there"),
        ("pose convert keypoints.json --form xls -o out/", "form"),
    ],
)
def test_conversions_that_cannot_be(
    command: Any, keypoints: pathlib.Path, tmp_path: pathlib.Path, line: str, words: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = command(line)
    assert done.code == 2, done.err
    assert words.lower() in done.err.lower(), done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_alone_leaves_no_folder_of_a_run(command: Any, keypoints: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = command(f"pose convert {keypoints} --quiet -o joints.csv")
    assert done.code == 0, done.err
    assert not (tmp_path / "runs").exists()
