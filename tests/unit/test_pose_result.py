"""Lifted poses in files: they come back as they went in, say their units, and are written whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.base import Provenance
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.formats.bvh import read_bvh
from pipelines.errors import ConfigError, InputError, RunError
from pipelines.evaluation.report import Report
from pipelines.pose.result import Poses
from pipelines.pose.tracks import Track

H36M = skeleton("h36m17")
COCO = skeleton("coco17")
STAND = np.array(
    [[0, 0, 0], [0.13, 0, 0], [0.13, 0.45, 0], [0.13, 0.9, 0], [-0.13, 0, 0], [-0.13, 0.45, 0], [-0.13, 0.9, 0],
     [0, -0.25, 0], [0, -0.5, 0], [0, -0.6, -0.05], [0, -0.7, 0], [-0.16, -0.5, 0], [-0.16, -0.2, 0], [-0.16, 0.05, 0],
     [0.16, -0.5, 0], [0.16, -0.2, 0], [0.16, 0.05, 0]]
)  # fmt: skip


def swinging(frames: int = 12, seed: int = 0, **changes: object) -> Track:
    """A body that turns and swings its arms, bones of constant lengths, with every optional part."""
    rng = np.random.default_rng(seed)
    points = np.tile(STAND, (frames, 1, 1))
    for joints, start in (((12, 13), 11), ((15, 16), 14), ((2, 3), 1)):
        angle = 0.6 * np.sin(np.arange(frames) / 3 + start)
        cos, sin = np.cos(angle), np.sin(angle)
        for joint in joints:
            offset = STAND[joint] - STAND[start]
            points[:, joint, 1] = STAND[start, 1] + cos * offset[1] - sin * offset[2]
            points[:, joint, 2] = STAND[start, 2] + sin * offset[1] + cos * offset[2]
    valid = np.ones((frames, 17), bool)
    flat = Clip.of(
        "walk", rng.uniform(0, 1000, (frames, 17, 2)), COCO, unit="px", frame="image", size=(1000, 800), fps=25.0
    )
    parts: dict[str, object] = {
        "trajectory": np.linspace([0, 0, 4], [1, 0, 5], frames),
        "sigma": rng.uniform(5, 60, (frames, 17)),
        "inputs": flat,
    }
    return Track("walk", points.astype(np.float32), valid, H36M, **({"fps": 25.0} | parts | changes))  # type: ignore[arg-type]


def poses(*tracks: Track, **changes: object) -> Poses:
    now = Provenance.now(data="walk.json", model="convformer", seed=3, weights="shipped")
    return Poses("convformer", now, list(tracks) or [swinging()], **changes)  # type: ignore[arg-type]


def holed(track: Track) -> Track:
    valid = np.random.default_rng(5).random(track.valid.shape) < 0.7
    return dataclasses.replace(track, valid=valid)


def test_npz_comes_back_as_it_was_without_pickles(tmp_path: Path) -> None:
    track = holed(swinging())
    with np.load(poses(track, told=("a note",)).save(tmp_path / "a.npz"), allow_pickle=False) as file:
        np.testing.assert_array_equal(file["points"], track.points)
        np.testing.assert_array_equal(file["valid"], track.valid)
        np.testing.assert_array_equal(file["trajectory"], track.trajectory)
        np.testing.assert_array_equal(file["sigma_mm"], track.sigma)
        assert track.inputs is not None
        np.testing.assert_array_equal(file["input_points"], track.inputs.points)
        assert file["points"].dtype == np.float32
        assert file["valid"].dtype == bool
        said = {name: str(file[name]) for name in ("unit", "frame", "skeleton", "input_unit", "relative_to")}
        assert said == {
            "unit": "m", "frame": "camera", "skeleton": "h36m17", "input_unit": "px", "relative_to": H36M.joints[0]
        }  # fmt: skip
        assert tuple(file["joints"]) == H36M.joints
        assert tuple(file["parents"]) == H36M.parents
        assert float(file["fps"]) == 25.0
        assert file["input_size"].tolist() == [1000, 800]
        told = json.loads(str(file["provenance"]))
        assert (told["model"], told["seed"], told["notes"]) == ("convformer", 3, ["a note"])


def test_several_persons_stand_in_one_npz_under_their_numbers(tmp_path: Path) -> None:
    one, two = swinging(), swinging(5, person=1, fps=None)
    with np.load(poses(one, two).save(tmp_path / "a.npz"), allow_pickle=False) as file:
        np.testing.assert_array_equal(file["0/points"], one.points)
        np.testing.assert_array_equal(file["1/points"], two.points)
        assert int(file["1/person"]) == 1
        assert np.isnan(file["1/fps"])
        assert "points" not in file


def test_json_has_the_same_numbers_and_names(tmp_path: Path) -> None:
    truth = np.full((12, 17, 3), 0.5, np.float32)
    truth[3] = np.nan
    track = holed(swinging(truth=truth))
    held = json.loads(poses(track, swinging(1)).save(tmp_path / "a.json").read_text())
    first, second = held["tracks"]
    np.testing.assert_array_equal(np.array(first["points"], np.float32), track.points)
    np.testing.assert_array_equal(np.array(first["valid"], bool), track.valid)
    np.testing.assert_array_equal(np.array(first["sigma_mm"], np.float32), track.sigma)
    np.testing.assert_array_equal(np.array(first["trajectory"], np.float32), track.trajectory)
    assert first["truth"][3][0] == [None, None, None]
    assert (first["unit"], first["frame"], first["fps"], first["skeleton"]) == ("m", "camera", 25.0, "h36m17")
    assert first["axes"] == "x right, y down, z away from the camera"
    assert first["joints"] == list(H36M.joints)
    assert first["input_size"] == [1000, 800]
    assert held["model"] == "convformer"
    assert len(second["points"]) == 1


def test_csv_has_a_row_for_every_joint_with_units(tmp_path: Path) -> None:
    track = holed(swinging(3))
    path = poses(track, swinging(1, trajectory=None, sigma=None)).save(tmp_path / "a.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 17
    for number, row in enumerate(rows[: 3 * 17]):
        frame, joint = divmod(number, 17)
        assert (int(row["frame"]), row["joint"]) == (frame, H36M.joints[joint])
        if not track.valid[frame, joint]:
            assert {row[name] for name in ("x", "y", "z", "sigma_mm")} == {""}
            continue
        place = np.array([row["x"], row["y"], row["z"]], np.float64).astype(np.float32)
        np.testing.assert_array_equal(place, track.points[frame, joint])
        assert float(row["time_s"]) == pytest.approx(frame / 25)
    assert {(row["unit"], row["axes"]) for row in rows} == {("m", "camera")}
    assert rows[0]["root_z"] == "4"
    assert rows[-1]["root_z"] == rows[-1]["sigma_mm"] == ""


def test_bvh_has_the_joints_where_they_were(tmp_path: Path) -> None:
    track = swinging()
    answer = poses(track)
    (again,) = read_bvh(answer.save(tmp_path / "a.bvh"), units="cm")
    assert track.trajectory is not None
    placed = track.points + track.trajectory[:, None]
    # World axes may be turned about the vertical by the format; distances and heights may not change.
    names = list(again.skeleton.joints)
    chosen = [names.index(joint) for joint in H36M.joints]
    got = again.points[:, chosen]
    between = [np.linalg.norm(p[:, :, None] - p[:, None], axis=-1) for p in (got, placed)]
    assert np.abs(between[0] - between[1]).max() < 1e-3
    rises = [h - h[:1, :1] for h in (got[..., 2], -placed[..., 1])]
    assert np.abs(rises[0] - rises[1]).max() < 1e-3
    travelled = [np.linalg.norm(p[-1, 0] - p[0, 0]) for p in (got, placed)]
    assert travelled[0] == pytest.approx(travelled[1], abs=1e-3)
    assert again.fps == pytest.approx(25)
    assert any("camera" in note for note in answer.notes)


def test_bvh_of_several_persons_is_one_file_each(tmp_path: Path) -> None:
    answer = poses(swinging(3, trajectory=None), swinging(3, person=2, fps=None))
    first = answer.save(tmp_path / "a.bvh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-walk-person2.bvh", "a-walk.bvh"]
    assert first == tmp_path / "a-walk.bvh"
    assert "a-walk-person2.bvh: the frame rate is not known: written as 25 Hz" in answer.notes
    assert any(note.startswith("a-walk.bvh: the root stays in one place") for note in answer.notes)


def test_a_name_without_ending_is_a_folder_with_film(tmp_path: Path) -> None:
    answer = poses(swinging(3), film=".gif")
    assert answer.save(tmp_path / "poses") == tmp_path / "poses"
    assert sorted(path.name for path in (tmp_path / "poses").iterdir()) == ["poses.gif", "poses.npz"]
    assert "poses.gif: 900 x 522 px, 3 pictures, 25 a second" in answer.notes
    poses(swinging(3), film="").save(tmp_path / "bare")
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["poses.npz"]


def test_names_of_clips_cannot_leave_the_folder(tmp_path: Path) -> None:
    tracks = [dataclasses.replace(swinging(2), name=name) for name in ("../../evil", "..", "a\x00b", "a\\b", "x" * 400)]
    poses(*tracks).save(tmp_path / "in" / "a.bvh")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    written = sorted(path.name for path in (tmp_path / "in").iterdir())
    assert written == ["a-a-b.bvh", "a-b.bvh", "a-clip.bvh", "a-evil.bvh", f"a-{'x' * 80}.bvh"]


@pytest.mark.parametrize("name", ["a.txt", "a.xlsx", "a.png"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.npz, \.json, \.csv, \.bvh, \.gif, \.mp4"):
        poses().save(tmp_path / name)
    with pytest.raises(ConfigError, match="no poses to write"):
        Poses("m", Provenance.now(data="", model="m", seed=0), []).save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [".npz", ".json", ".csv", ".bvh", ".gif", ".mp4"])
def test_a_failure_on_the_way_leaves_the_old_file(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = tmp_path / f"a{kind}"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="full"):
        poses(swinging(2)).save(path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_what_is_printed_and_reported() -> None:
    bad = {"b.json": "b.json: no person. Found: 0."}
    answer = poses(swinging(notes=("2 joints are missing",)), swinging(4, person=1), failed=bad, facts={"clips": 2})
    told = answer.to_dict()
    assert json.loads(json.dumps(told))["frames"] == 16
    first = told["persons"][0]
    assert (first["name"], first["frames"], first["unit"], first["seconds"]) == ("walk", 12, "m", 0.48)
    assert 5 < first["sigma_mm"] < 60
    assert first["distance_m"] == pytest.approx(4.5, abs=0.2)
    assert answer.notes == ("walk: 2 joints are missing", "left out: b.json: no person. Found: 0.")
    assert str(answer).splitlines() == [
        f"convformer: 2 persons, 16 frames, in metres relative to {H36M.joints[0]}, camera frame",
        "walk: 12 frames at 25 Hz (0.5 s), 17 joints of h36m17",
        "walk, person 1: 4 frames at 25 Hz (0.2 s), 17 joints of h36m17",
        "1 could not be lifted",
    ]
    report = Report("Poses")
    answer.fill_report(report)
    page = report.render()
    assert page.count("<img") == 6  # two strips, and of each person the expected error by joint and over time
    assert "expected error (mm)" in page


def test_no_person_is_an_answer_too() -> None:
    empty = Poses("convformer", Provenance.now(data="", model="m", seed=0), [], failed={"a": "a: empty."})
    empty.plot()
    empty.fill_report(Report("Poses"))
    assert str(empty) == "convformer: 0 persons, 0 frames\n1 could not be lifted"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"points": np.zeros((12, 16, 3))}, "points do not fit"),
        ({"points": np.full((12, 17, 3), np.nan)}, "points that are not finite"),
        ({"sigma": np.zeros((12, 3))}, "sigma do not fit"),
        ({"trajectory": np.full((12, 3), np.inf)}, "trajectory that are not finite"),
        ({"valid": np.zeros((0, 17), bool)}, "at least one frame"),
        ({"valid": np.zeros((12, 5), bool)}, "17 joints of h36m17"),
        ({"fps": 0.0}, "no such frame or rate"),
        ({"frame": "room"}, "no such frame or rate"),
    ],
)
def test_tracks_that_do_not_fit_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        dataclasses.replace(swinging(), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not the input of these poses"):
        dataclasses.replace(swinging(5), inputs=swinging(4).inputs)


def test_missing_joints_are_nothing_but_zero() -> None:
    valid = np.ones((12, 17), bool)
    valid[:, 4] = False
    points = swinging().points.copy()
    points[:, 4] = np.nan
    track = dataclasses.replace(swinging(), points=points, valid=valid)
    assert not track.points[:, 4].any()
    assert not track.placed()[:, 4].any()
    assert track.missing == 12
    assert track.clip().valid.tolist() == valid.tolist()
    single = Skeleton("dot", ("dot",), (-1,), 0)
    assert Track("a", np.zeros((1, 1, 3), np.float32), np.ones((1, 1), bool), single).seconds is None
