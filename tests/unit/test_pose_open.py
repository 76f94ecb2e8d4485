"""Persons in one file, files of this library, folders, and other sources of joints."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipelines.data.datasets.pose_open import PoseReading, open_poses
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.pose_people import Detections, Seen, people, timeline
from pipelines.data.formats.pose_write import write_poses

SIZE = (640, 480)


def walker(name: str = "coco17", frames: int = 6, at: tuple[float, float] = (300.0, 260.0)) -> np.ndarray:
    """(T, J, 2) px of joints within 100 px that move to the right together."""
    shape = np.random.default_rng(1).uniform(-100, 100, (len(skeleton(name)), 2))
    return shape + np.array(at) + np.arange(frames)[:, None, None] * np.array([3.0, 0.5])


def saved(path: pathlib.Path, content: Any) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def triples(points: np.ndarray, third: float = 0.9) -> list[float]:
    return np.concatenate([points, np.full((len(points), 1), third)], axis=1).ravel().tolist()


def one(clips: Sequence[Clip]) -> Clip:
    assert len(clips) == 1
    return clips[0]


def said(clip: Clip, words: str) -> None:
    assert any(words in note for note in clip.notes), clip.notes


# Persons


def two(frames: int = 8) -> tuple[np.ndarray, np.ndarray]:
    return walker(frames=frames, at=(150, 260)), walker(frames=frames, at=(450, 260))


def test_two_persons_are_matched_although_their_order_changes(tmp_path: pathlib.Path) -> None:
    left, right = two()
    rows = []
    for t in range(8):
        pair = [left[t], right[t]] if t % 2 else [right[t], left[t]]
        pair = pair if t != 3 else pair[:1]  # the right one is not seen in frame 3
        rows += [{"image_id": t, "keypoints": triples(p)} for p in pair]
    path = saved(tmp_path / "a.json", rows)
    clips = open_poses(path, PoseReading(size=SIZE))
    assert [clip.person for clip in clips] == [0, 1]
    np.testing.assert_allclose(clips[0].points, left, atol=1e-3)
    there = np.arange(8) != 3
    np.testing.assert_allclose(clips[1].points[there], right[there], atol=1e-3)
    assert not clips[1].valid[3].any()
    said(clips[0], "2 persons: 0 (8 frames), 1 (7 frames)")
    said(clips[0], "nearest mean distance")
    chosen = one(open_poses(path, PoseReading(person=1)))
    np.testing.assert_array_equal(chosen.points, clips[1].points)
    with pytest.raises(InputError, match=r"no person 7.*persons 0 \(8 frames\), 1 \(7 frames\)"):
        open_poses(path, PoseReading(person=7))


def test_numbers_of_a_tracker_count_more_than_nearness(tmp_path: pathlib.Path) -> None:
    left, right = two()
    rows = []
    for t in range(8):
        a, b = (left[t], right[t]) if t < 4 else (right[t], left[t])
        rows += [
            {"image_id": t, "keypoints": triples(a), "idx": 12},
            {"image_id": t, "keypoints": triples(b), "idx": 5},
        ]
    clips = open_poses(saved(tmp_path / "a.json", rows))
    assert [clip.person for clip in clips] == [5, 12]
    np.testing.assert_allclose(clips[1].points, np.concatenate([left[:4], right[4:]]), atol=1e-3)
    said(clips[0], "told apart by the numbers of the tracker")
    rows[1]["idx"] = 12
    with pytest.raises(InputError, match=r"two persons with one number.*number 12 twice in frame 0"):
        open_poses(saved(tmp_path / "a.json", rows))
    del rows[1]["idx"]
    said(open_poses(saved(tmp_path / "a.json", rows))[0], "tracker were not used")


def test_ghosts_are_left_out_and_said_but_can_be_asked_for() -> None:
    left, right = two(60)
    seen = [Seen(t, left[t]) for t in range(60)] + [Seen(20, right[20]), Seen(21, right[21])]
    raws = people(Detections("a", range(60), seen), PoseReading())
    assert [raw.person for raw in raws] == [0]
    assert any("1 persons left out, seen in less than a twentieth" in note for note in raws[0].notes)
    raw = people(Detections("a", range(60), seen), PoseReading(person=1))[0]
    assert np.flatnonzero(np.isfinite(raw.points).all((1, 2))).tolist() == [20, 21]


def test_one_after_another_is_told() -> None:
    left, right = two()
    seen = [Seen(t, left[t] if t < 4 else right[t] + 400) for t in range(8)]
    raw = people(Detections("a", range(8), seen), PoseReading())[0]
    assert any("jumps by more than her size 1 times" in note for note in raw.notes)


def test_timelines() -> None:
    assert timeline([7], "a").count == 1
    time = timeline([0, 5, 10, 20], "a")
    assert (time.step, time.count, time.missing) == (5, 5, 1)
    assert any("every 5th number" in note for note in time.notes())
    with pytest.raises(InputError, match=r"more gaps than frames.*2 frames, numbered from 0 to 5000000000"):
        timeline([0, 5_000_000_000], "a")


# Writing, and files of this library


@pytest.mark.parametrize("ending", ["npz", "json", "csv"])
@pytest.mark.parametrize("flat", [True, False])
def test_round_trip(tmp_path: pathlib.Path, ending: str, flat: bool) -> None:
    points = walker()
    sure = np.linspace(0.1, 1, 6 * 17).reshape(6, 17).astype(np.float32)
    clips = []
    for person in (0, 4):
        own = points if flat else np.concatenate([points / 200, np.full((6, 17, 1), 0.1 * person)], axis=2)
        own[1, 2 + person] = np.nan
        rest: dict[str, Any] = {"unit": "px", "frame": "image", "size": SIZE, "confidence": sure}
        rest = rest if flat else {"unit": "m", "frame": "camera"}
        tree = skeleton("coco17")
        clips.append(Clip.of("walk", own, tree, fps=29.97, person=person, subject="S9", action="Walking 1", **rest))
    write_poses(tmp_path / f"a.{ending}", clips)
    again = open_poses(tmp_path / f"a.{ending}")
    assert len(again) == 2
    for before, after in zip(clips, again, strict=True):
        np.testing.assert_array_equal(after.points, before.points)
        np.testing.assert_array_equal(after.valid, before.valid)
        for field in ("name", "person", "skeleton", "fps", "unit", "frame", "size", "subject", "action"):
            assert getattr(after, field) == getattr(before, field), field
        if flat:
            assert after.confidence is not None
            np.testing.assert_array_equal(after.confidence[after.valid], sure[after.valid])
    assert one(open_poses(tmp_path / f"a.{ending}", PoseReading(person=4))).person == 4


def test_writing_refuses_and_keeps_the_old_file(tmp_path: pathlib.Path) -> None:
    clip = Clip.of("a", walker(), skeleton("coco17"), unit="px", frame="image")
    with pytest.raises(InputError, match=r"no kind of file for joints.*\.npz, \.json, \.csv"):
        write_poses(tmp_path / "a.txt", [clip])
    with pytest.raises(InputError, match=r"no clips to write"):
        write_poses(tmp_path / "a.npz", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written"):
        write_poses(tmp_path / "file" / "a.npz", [clip])
    write_poses(tmp_path / "a.csv", [clip])
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(InputError, match=r"2-D and 3-D clips for one table"):
        write_poses(tmp_path / "a.csv", [clip, Clip.of("b", np.ones((2, 17, 3)), skeleton("coco17"))])
    assert (tmp_path / "a.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "file"]


@pytest.mark.parametrize("ending", ["npz", "json", "csv"])
@pytest.mark.parametrize("count", [1, 2])
def test_result_files_are_read(tmp_path: pathlib.Path, ending: str, count: int) -> None:
    from pipelines.pose.result_files import write_tracks
    from pipelines.pose.tracks import Track

    points = np.random.default_rng(3).normal(size=(6, 17, 3)).astype(np.float32)
    points -= points[:, :1]
    path = np.linspace(0, 1, 18).reshape(6, 3).astype(np.float32)
    valid = np.ones((6, 17), bool)
    valid[2, 5] = False
    tree = skeleton("h36m17")
    sigma = np.full((6, 17), 20.0)
    tracks = [Track("walk", points, valid, tree, 50.0, trajectory=path, sigma=sigma, person=p) for p in range(count)]
    write_tracks(tmp_path / f"poses.{ending}", tracks, lambda: {"model": "convformer"})
    clips = open_poses(tmp_path / f"poses.{ending}")
    assert [clip.person for clip in clips] == list(range(count))
    for clip in clips:
        assert (clip.name, clip.skeleton, clip.unit, clip.frame, clip.fps) == ("walk", tree, "m", "camera", 50.0)
        np.testing.assert_array_equal(clip.valid, valid)
        np.testing.assert_allclose(clip.points[valid], (points + path[:, None])[valid], atol=1e-6)
        said(clip, "trajectory of the root added")


# Folders and other sources


def test_folders_hold_anything_and_say_what_was_not_read(tmp_path: pathlib.Path) -> None:
    points = walker()
    np.savez(tmp_path / "a.npz", walk=points, fps=50, skeleton="coco17", size=SIZE)
    np.save(tmp_path / "b.npy", walker("body25"))
    (tmp_path / "notes.txt").write_text("not a motion")
    (tmp_path / "film.mp4").write_bytes(b"")
    for t in range(2):
        saved(tmp_path / "op" / f"{t}.json", {"people": [{"pose_keypoints_2d": triples(walker("body25")[t])}]})
    clips = open_poses(tmp_path)
    assert [clip.name for clip in clips] == ["walk", "b", "op"]
    said(clips[0], "not read: 1 .mp4, 1 .txt")
    said(clips[1], "2 of 3 clips do not tell their frame rate")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file of joints in the folder.*nothing"):
        open_poses(tmp_path / "empty")


def test_different_frame_rates_in_one_folder(tmp_path: pathlib.Path) -> None:
    for name, fps in (("slow", 25), ("fast", 50)):
        arrays: dict[str, Any] = {name: walker(), "fps": fps, "skeleton": "coco17"}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    with pytest.raises(InputError, match=r"different frame rates.*50 Hz \(fast\) and 25 Hz \(slow\)"):
        open_poses(tmp_path)
    assert [clip.fps for clip in open_poses(tmp_path, mixed=True)] == [50, 25]
    assert [clip.fps for clip in open_poses(tmp_path, PoseReading(fps=30))] == [30, 30]


def test_motion_capture_by_its_ending(tmp_path: pathlib.Path) -> None:
    names = "Hips LeftUpLeg LeftLeg LeftFoot RightUpLeg RightLeg RightFoot Spine1 Head LeftArm LeftForeArm LeftHand "
    names += "RightArm RightForeArm RightHand"
    parts = [
        f"JOINT {name} {{ OFFSET 1 {place} 2 CHANNELS 1 Xrotation }}" for place, name in enumerate(names.split()[1:])
    ]
    parts[7] = (
        "JOINT Head { OFFSET 0 60 0 CHANNELS 1 Xrotation JOINT HeadTop_End { OFFSET 0 20 0 CHANNELS 1 Xrotation } }"
    )
    text = "HIERARCHY ROOT Hips { OFFSET 0 0 0 CHANNELS 3 Xposition Yposition Zposition " + " ".join(parts)
    text += " } MOTION Frames: 2 Frame Time: 0.04 " + " ".join(["0"] * 36)
    (tmp_path / "a.bvh").write_text(text)
    clip = one(open_poses(tmp_path, PoseReading(unit="cm")))
    assert (clip.skeleton.name, clip.unit, clip.frame, clip.fps, clip.frames) == ("h36m17", "m", "world", 25, 2)
    with pytest.raises(InputError, match=r"motion capture is 3-D.*px"):
        open_poses(tmp_path, PoseReading(unit="px"))


def test_lists_mappings_and_clips() -> None:
    points = walker()
    reading = PoseReading("coco17")
    assert [clip.name for clip in open_poses({"a": points, "b": points.tolist()}, reading)] == ["a", "b"]
    assert [clip.name for clip in open_poses([points, points], reading)] == ["array 0", "array 1"]
    single = one(open_poses(points[0], reading))
    assert single.frames == 1
    said(single, "one frame")
    clip = Clip.of("a", points, skeleton("coco17"), unit="px", frame="image", fps=30)
    assert open_poses([clip, clip])[1].points is clip.points


def test_human36m_by_its_names(tmp_path: pathlib.Path) -> None:
    arrays: dict[str, Any] = {"S9/Walking 1/0": np.full((4, 17, 2), 300.0)}
    np.savez(tmp_path / "a.npz", **arrays)
    clip = one(open_poses(tmp_path / "a.npz"))
    assert (clip.subject, clip.skeleton.name, clip.fps, clip.size) == ("S9", "h36m17", 50.0, (1000, 1002))
