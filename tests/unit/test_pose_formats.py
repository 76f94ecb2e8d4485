"""Joints of detectors in every layout: the same person comes back, and what was decided on the way is said."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from pipelines.data.datasets.pose_open import PoseReading, open_poses
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.pose_joints import matched

SIZE = (640, 480)
#: A person who faces the camera, y down: the own left is at the right of the picture. In units of the trunk.
BODY = {
    "nose": (0, -1.5), "eye": (0.1, -1.6), "ear": (0.2, -1.5), "mouth": (0.05, -1.4), "shoulder": (0.35, -1.1),
    "elbow": (0.5, -0.6), "wrist": (0.55, -0.1), "hand": (0.57, 0), "pinky": (0.56, 0), "index": (0.58, 0),
    "thumb": (0.54, 0), "hip": (0.2, 0), "knee": (0.22, 0.8), "ankle": (0.22, 1.6), "heel": (0.2, 1.65),
    "foot": (0.25, 1.7), "toe": (0.25, 1.7), "spine": (0, -0.6), "neck": (0, -1.2), "head": (0, -1.8),
    "thorax": (0, -1.1), "pelvis": (0, 0), "mid": (0, 0), "root": (0, 0),
}  # fmt: skip


def walker(name: str = "coco17", frames: int = 6, at: tuple[float, float] = (300.0, 260.0)) -> np.ndarray:
    """(T, J, 2) px of a person who moves to the right, with a little of the joint's number in it to tell them apart."""
    tree = skeleton(name)
    points = np.zeros((frames, len(tree), 2))
    for place, joint in enumerate(tree.joints):
        side = 1 if joint.startswith("left") else -1 if joint.startswith("right") else 0
        part = joint.removeprefix("left_").removeprefix("right_")
        if side == 0 and part == "hip":
            part = "mid"
        x, y = next(BODY[one] for one in (part, *reversed(part.split("_"))) if one in BODY)
        points[:, place] = np.array([x * (side or 1), y]) * 90 + 0.01 * place
    return points + np.array(at) + np.arange(frames)[:, None, None] * np.array([3.0, 0.5])


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


# Every layout gives the same person


def coco(folder: pathlib.Path, points: np.ndarray) -> pathlib.Path:
    count = len(points)
    order = [3, 0, 5, 1, 4, 2][:count]  # images in no order: file names have it
    images = [{"id": 70 + t, "width": 640, "height": 480, "file_name": f"walk/{t + 1:06d}.jpg"} for t in order]
    bodies = [{"id": t, "image_id": 70 + t, "category_id": 1, "keypoints": triples(points[t], 2)} for t in range(count)]
    kinds = [{"id": 1, "name": "person", "keypoints": list(skeleton("coco17").joints)}]
    return saved(folder / "a.json", {"images": images, "annotations": bodies, "categories": kinds})


def alphapose(folder: pathlib.Path, points: np.ndarray) -> pathlib.Path:
    rows = [{"image_id": f"{t}.jpg", "category_id": 1, "keypoints": triples(p), "idx": 1} for t, p in enumerate(points)]
    return saved(folder / "a.json", rows)


def mmpose(folder: pathlib.Path, points: np.ndarray) -> pathlib.Path:
    frames = [
        {"frame_id": t + 1, "instances": [{"keypoints": p.tolist(), "keypoint_scores": [0.9] * len(p)}]}
        for t, p in enumerate(points)
    ]
    meta = {"keypoint_id2name": {str(place): name for place, name in enumerate(skeleton("coco17").joints)}}
    return saved(folder / "a.json", {"meta_info": meta, "instance_info": frames})


def inferencer(folder: pathlib.Path, points: np.ndarray) -> pathlib.Path:
    frames = [{"frame_id": t, "instances": [{"keypoints": p.tolist()}]} for t, p in enumerate(points)]
    return saved(folder / "a.json", frames)


def long_table(folder: pathlib.Path, points: np.ndarray) -> pathlib.Path:
    names = skeleton("coco17").joints
    cells = [(t, j, *points[t, j].tolist()) for t in range(len(points)) for j in range(17)]
    rows = [f"{t};{names[j]};{x!r};{y!r};0.9" for t, j, x, y in cells]
    (folder / "a.csv").write_text("\n".join(["Frame;Joint;X;Y;Confidence", *rows]))
    return folder / "a.csv"


def wide_table(folder: pathlib.Path, points: np.ndarray) -> pathlib.Path:
    """Names as other tools write them, in another order, with the seconds of the frames."""
    names = ["".join(word.title() for word in joint.split("_")) for joint in skeleton("coco17").joints]
    order = list(range(16, -1, -1))
    head = ",".join(["time_s", *(f"{names[j]}_{axis}" for j in order for axis in "xy")])
    rows = [
        ",".join([f"{t / 50}", *(f"{value:.17g}" for j in order for value in points[t, j])]) for t in range(len(points))
    ]
    (folder / "a.csv").write_text("\n".join([head, *rows]))
    return folder / "a.csv"


def plain_npz(folder: pathlib.Path, points: np.ndarray) -> pathlib.Path:
    np.savez(folder / "a.npz", walk=points, fps=50, skeleton="coco17", size=SIZE, unit="px")
    return folder / "a.npz"


@pytest.mark.parametrize(
    "write", [coco, alphapose, mmpose, inferencer, long_table, wide_table, plain_npz], ids=lambda one: one.__name__
)
def test_every_layout_gives_the_same_person(
    tmp_path: pathlib.Path, write: Callable[[pathlib.Path, np.ndarray], pathlib.Path]
) -> None:
    points = walker()
    clip = one(open_poses(write(tmp_path, points), PoseReading(size=SIZE)))
    assert (clip.skeleton.name, clip.unit, clip.frame, clip.size) == ("coco17", "px", "image", SIZE)
    assert clip.valid.all()
    np.testing.assert_allclose(clip.points, points, atol=1e-4)
    if write in (alphapose, mmpose, long_table):
        assert clip.confidence is not None
        assert np.allclose(clip.confidence, 0.9)
    if write in (wide_table, plain_npz):
        assert clip.fps == 50
    if write is wide_table:
        said(clip, "put into the order of coco17")


@pytest.mark.parametrize("name", ["body25", "coco18"])
def test_openpose_folder_with_a_gap_and_two_videos(tmp_path: pathlib.Path, name: str) -> None:
    points = walker(name)
    points[2, 4] = 0
    for video in ("b", "a"):
        for t in (0, 1, 2, 4, 5):
            flat = triples(points[t])
            if t == 2:
                flat[4 * 3 + 2] = 0.0
            people = [{"person_id": [-1], "pose_keypoints_2d": flat, "face_keypoints_2d": []}]
            people = [] if t == 5 else people
            saved(tmp_path / f"{video}_{t + 10:012d}_keypoints.json", {"version": 1.3, "people": people})
    clips = open_poses(tmp_path)
    assert [clip.name for clip in clips] == ["a", "b"]
    clip = clips[0]
    assert clip.skeleton.name == name
    assert clip.valid.sum(1).tolist() == [len(clip.skeleton)] * 2 + [len(clip.skeleton) - 1, 0, len(clip.skeleton), 0]
    np.testing.assert_allclose(clip.points[4], points[4], atol=1e-4)
    for words in ("frames 10 to 15 of the file are counted from 0", "1 of 6 frames are not in the file",
                  "1 of 5 files without a person", "confidence of 0 or less"):  # fmt: skip
        said(clip, words)


def test_one_file_of_openpose_and_numbers_that_collide(tmp_path: pathlib.Path) -> None:
    frame = {"people": [{"pose_keypoints": triples(walker("body25")[0])}]}
    assert one(open_poses(saved(tmp_path / "x" / "only.json", frame))).frames == 1
    for name in ("1.json", "01.json"):
        saved(tmp_path / "y" / name, frame)
    with pytest.raises(InputError, match=r"two files of frame 1.*01\.json and 1\.json|1\.json and 01\.json"):
        open_poses(tmp_path / "y")
    saved(tmp_path / "z" / "walk_1.json", frame)
    saved(tmp_path / "z" / "about.json", frame)
    with pytest.raises(InputError, match=r"about\.json: no number of a frame"):
        open_poses(tmp_path / "z")


def marks(points: np.ndarray) -> list[dict[str, float]]:
    return [{"x": x / 640, "y": y / 480, "z": 0.1, "visibility": 0.8} for x, y in points.tolist()]


@pytest.mark.parametrize(
    "layout",
    [
        lambda p: [marks(one) for one in p],
        lambda p: [[[m["x"], m["y"], m["z"], m["visibility"]] for m in marks(one)] for one in p],
        lambda p: {"fps": 50, "frames": [{"frame": t, "pose_landmarks": [marks(one)]} for t, one in enumerate(p)]},
        lambda p: [{"timestamp_ms": 20 * t, "landmarks": marks(one), "world_landmarks": []} for t, one in enumerate(p)],
        lambda p: [{"poseLandmarks": {"landmark": marks(one)}} for one in p],
    ],
)
def test_mediapipe(tmp_path: pathlib.Path, layout: Callable[[np.ndarray], Any]) -> None:
    points = walker("mediapipe33")
    content = layout(points)
    path = saved(tmp_path / "a.json", content)
    clip = one(open_poses(path, PoseReading(size=SIZE)))
    assert (clip.skeleton.name, clip.unit) == ("mediapipe33", "px")
    np.testing.assert_allclose(clip.points, points, atol=1e-3)
    assert clip.confidence is not None
    assert np.allclose(clip.confidence, 0.8)
    said(clip, "fraction coordinates turned into px of an image of 640 x 480")
    if isinstance(content, dict) or "timestamp_ms" in content[0]:
        assert clip.fps == 50
    with pytest.raises(InputError, match=r"shape of the image is not known.*--read\.size"):
        open_poses(path)


def test_nobody_in_some_frames_of_mediapipe(tmp_path: pathlib.Path) -> None:
    points = walker("mediapipe33", 3)
    content = [marks(points[0]), None, {"pose_landmarks": []}, [], marks(points[2])]
    clip = one(open_poses(saved(tmp_path / "a.json", content), PoseReading(size=SIZE)))
    assert clip.valid.all(1).tolist() == [True, False, False, False, True]
    said(clip, "not seen in 3 of 5 frames")


# Whose joints


def test_counts_that_several_or_no_skeletons_have() -> None:
    points = walker()
    with pytest.raises(InputError, match=r"several skeletons.*17 joints.*h36m17, coco17, mpi17.*--read\.skeleton"):
        open_poses(points)
    clip = one(open_poses(points, PoseReading(skeleton="COCO-17")))
    said(clip, "taken for coco17, as was said")
    with pytest.raises(InputError, match=r"no skeleton has so many.*16 joints.*h36m17 \(17\).*halpe26 \(26\)"):
        open_poses(points[:, :16])
    with pytest.raises(InputError, match=r"another number of joints.*17 joints.*25 joints of body25.*h36m17 or coco17"):
        open_poses(points, PoseReading(skeleton="body25"))
    whole_body = np.concatenate([points, np.full((6, 116, 2), 300.0)], axis=1)
    clip = one(open_poses(whole_body))
    assert clip.skeleton.name == "coco17"
    said(clip, "116 points of face, hands and feet left out")


def test_names_of_other_tools() -> None:
    tree = skeleton("h36m17")
    theirs = ["root", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine", "thorax",
              "neck_base", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow",
              "right_wrist"]  # fmt: skip
    assert matched(theirs, tree) == list(range(17))
    assert matched(theirs, skeleton("coco17")) is None
    openpose = ["Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "MidHip", "RHip",
                "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar", "LBigToe", "LSmallToe",
                "LHeel", "RBigToe", "RSmallToe", "RHeel"]  # fmt: skip
    assert matched(openpose, skeleton("body25")) == list(range(25))
    assert matched(["MOUTH_RIGHT", "MOUTH_LEFT"], skeleton("mediapipe33")) is not None
    for name in ("cmu31", "smpl24", "mpi17", "halpe26", "h36m32"):
        assert matched(skeleton(name).joints, skeleton(name)) == list(range(len(skeleton(name))))


def test_some_joints_of_a_skeleton_and_joints_of_another(tmp_path: pathlib.Path) -> None:
    points = walker()
    names = skeleton("coco17").joints[5:]
    rows = [f"{t},{name},{points[t, j + 5, 0]},{points[t, j + 5, 1]}" for t in range(6) for j, name in enumerate(names)]
    (tmp_path / "a.csv").write_text("\n".join(["frame,joint,x,y", *rows]))
    with pytest.raises(InputError, match=r"joints of no known skeleton.*12 joints: left_shoulder.*mapping"):
        open_poses(tmp_path / "a.csv")
    clip = one(open_poses(tmp_path / "a.csv", PoseReading(skeleton="coco17")))
    assert clip.valid.sum() == 6 * 12
    np.testing.assert_allclose(clip.points[:, 5:], points[:, 5:], atol=1e-4)
    said(clip, "does not have are missing: nose, left_eye, right_eye, left_ear, right_ear")
    with pytest.raises(InputError, match=r"another skeleton than was said.*names of coco17.*h36m17"):
        open_poses(mmpose(tmp_path, points), PoseReading(skeleton="h36m17"))


def test_a_mapping_file_for_strange_joints(tmp_path: pathlib.Path) -> None:
    points = walker()[:, [0, 11, 12]]
    mapping = saved(tmp_path / "map.json", {"hip": ["L_Pelvis", "R_Pelvis"], "neck": "Snout"})
    rows = [
        f"{t},{name},{points[t, j, 0]},{points[t, j, 1]}"
        for t in range(6)
        for j, name in enumerate(("Snout", "L_Pelvis", "R_Pelvis"))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["frame,joint,x,y", *rows]))
    clip = one(open_poses(tmp_path / "a.csv", PoseReading(mapping=str(mapping), size=SIZE)))
    assert clip.skeleton.name == "h36m17"
    np.testing.assert_allclose(clip.points[:, 0], points[:, 1:].mean(1), atol=1e-3)
    numbers = saved(tmp_path / "b.json", {"hip": ["1", "2"], "neck": "0"})
    again = one(open_poses(points, PoseReading(mapping=str(numbers), size=SIZE)))
    np.testing.assert_array_equal(again.points, clip.points)


# Units and axes


def test_pixels_fractions_and_normalised() -> None:
    points = walker()
    known = PoseReading(skeleton="coco17", size=SIZE)
    normalised = points / 640 * 2 - [1, 480 / 640]
    clip = one(open_poses(normalised, known))
    assert clip.unit == "normalised"
    said(clip, "taken for normalised")
    fractions = points / SIZE
    for array, reading in ((fractions, known), (fractions * 2 - 1, PoseReading("coco17", size=SIZE, unit="signed"))):
        clip = one(open_poses(array, reading))
        assert clip.unit == "px"
        np.testing.assert_allclose(clip.points, points, atol=1e-3)
    with pytest.raises(InputError, match=r"cannot be told apart.*from 0\.\d+ to.*--read\.unit.*--read\.size"):
        open_poses(fractions, PoseReading("coco17"))
    with pytest.raises(InputError, match=r"cannot be told apart"):
        open_poses(points / 100, known)
    with pytest.raises(InputError, match=r"not fraction.*say unit px"):
        open_poses(points, PoseReading("coco17", size=SIZE, unit="fraction"))
    with pytest.raises(InputError, match=r"most joints lie outside of the image.*an image of 64 x 48"):
        open_poses(points, PoseReading("coco17", size=(64, 48)))
    with pytest.raises(InputError, match=r"a unit that does not fit.*2 coordinates a joint in mm"):
        open_poses(points, PoseReading("coco17", unit="mm"))


def test_files_that_contradict_the_caller(tmp_path: pathlib.Path) -> None:
    path = plain_npz(tmp_path, walker())
    with pytest.raises(InputError, match=r"another image than was said.*640 x 480.*1920 x 1080"):
        open_poses(path, PoseReading(size=(1920, 1080)))
    with pytest.raises(InputError, match=r"another unit than was said.*px.*normalised"):
        open_poses(path, PoseReading(unit="normalised"))
    with pytest.raises(InputError, match=r"another skeleton than was said"):
        open_poses(path, PoseReading(skeleton="h36m17"))
    clip = one(open_poses(path, PoseReading(fps=25)))
    assert clip.fps == 25
    said(clip, "25 Hz as was said; the file says 50 Hz")


def test_y_up_is_told_and_turned_when_asked() -> None:
    points = walker()
    up = points.copy()
    up[..., 1] = 480 - up[..., 1]
    clip = one(open_poses(up, PoseReading("coco17", size=SIZE)))
    said(clip, "stands on the head")
    clip = one(open_poses(up, PoseReading("coco17", size=SIZE, up="y")))
    np.testing.assert_allclose(clip.points, points, atol=1e-3)
    assert not any("head" in note for note in clip.notes)
    with pytest.raises(InputError, match=r"y up needs the height"):
        open_poses(up, PoseReading("coco17", up="y"))


def test_exchanged_sides_are_told() -> None:
    points = walker()
    with_scores = np.concatenate([points, np.full((6, 17, 1), 0.9)], axis=2)
    reading = PoseReading("coco17", size=SIZE)
    clip = one(open_poses(with_scores, reading))
    said(clip, "was taken for its confidence")
    assert clip.dims == 2
    assert not any("left and right" in note for note in clip.notes)
    mirror = list(skeleton("coco17").mirror)
    said(one(open_poses(with_scores[:, mirror], reading)), "left and right seem to be exchanged")
    jumping = with_scores.copy()
    jumping[3] = jumping[3, mirror]
    said(one(open_poses(jumping, reading)), "change places from one frame to the next 2 times")


@pytest.mark.parametrize(("unit", "factor"), [("m", 1.0), ("cm", 100.0), ("mm", 1000.0)])
@pytest.mark.parametrize("up", ["-y", "y", "z"])
def test_units_and_axes_in_space(unit: str, factor: float, up: str) -> None:
    flat = (walker("h36m17") - [300, 260]) / 180  # y down, about 1.8 m
    deep = np.concatenate([flat, np.full((6, 17, 1), 0.25)], axis=2)
    x, y, z = np.moveaxis(deep, -1, 0)
    given = {"-y": deep, "y": np.stack([x, -y, -z], -1), "z": np.stack([x, z, -y], -1)}[up]
    clip = one(open_poses(given * factor, PoseReading("h36m17")))
    expected = deep if up == "-y" else np.stack([x, z, -y], -1)
    assert (clip.unit, clip.frame) == ("m", "camera" if up == "-y" else "world")
    np.testing.assert_allclose(clip.points, expected, atol=1e-5)
    assert unit == "m" or any(f"{unit} turned into m" in note for note in clip.notes)


def test_lengths_and_axes_that_cannot_be_told() -> None:
    flat = (walker("h36m17") - [300, 260]) / 180
    deep = np.concatenate([flat, np.full((6, 17, 1), 0.25)], axis=2)
    with pytest.raises(InputError, match=r"unit of 3-D joints cannot be told.*--read\.unit"):
        open_poses(deep * 10, PoseReading("h36m17"))
    with pytest.raises(InputError, match=r"axis that points up cannot be told.*stand along.*x.*--read\.up"):
        open_poses(deep[..., [1, 0, 2]], PoseReading("h36m17"))


# Missing joints


def test_missing_joints_are_counted() -> None:
    points = walker()
    points[0, 3] = np.nan
    points[1, 4, 0] = np.inf
    points[2, 5] = 0
    clip = one(open_poses(points, PoseReading("coco17", size=SIZE)))
    assert sorted(map(tuple, np.argwhere(~clip.valid).tolist())) == [(0, 3), (1, 4), (2, 5)]
    assert not clip.points[~clip.valid].any()
    said(clip, "1 joints at exactly (0, 0) px were taken for missing ones")
    said(clip, "3 of 102 joints are missing")
    with pytest.raises(InputError, match=r"no joint of a person|every joint missing"):
        open_poses(np.full((4, 17, 2), np.nan), PoseReading("coco17"))
    with pytest.raises(InputError, match=r"no frames.*0 frames of 17 joints"):
        open_poses(np.zeros((0, 17, 2)), PoseReading("coco17"))


def test_joints_that_the_detector_is_not_sure_of(tmp_path: pathlib.Path) -> None:
    rows = [{"image_id": t, "keypoints": triples(p, 0.1 * (t + 1))} for t, p in enumerate(walker())]
    clip = one(open_poses(saved(tmp_path / "a.json", rows), PoseReading(score=0.35)))
    assert clip.valid.all(1).tolist() == [False, False, False, True, True, True]
    said(clip, "51 joints with a confidence of 0.35 or less are missing")


def test_coco_visibilities(tmp_path: pathlib.Path) -> None:
    points = walker()[0]
    third = np.full(17, 2.0)
    third[0], third[1] = 0, 1
    values = np.concatenate([points, third[:, None]], 1).ravel().tolist()
    image = {"id": 1, "width": 640, "height": 480, "file_name": "1.jpg"}
    crowd = {"image_id": 1, "keypoints": values, "iscrowd": 1}
    content = {"images": [image], "annotations": [{"image_id": 1, "keypoints": values}, crowd]}
    clip = one(open_poses(saved(tmp_path / "a.json", content)))
    assert clip.confidence is None
    assert clip.valid[0].tolist() == [False, *[True] * 16]
    said(clip, "1 joints labelled though hidden (v = 1) were kept")
    said(clip, "1 annotations without joints, or of crowds")
