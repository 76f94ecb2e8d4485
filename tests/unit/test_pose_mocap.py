"""Mapping files, DeepMimic's motions, the embedded clips, the CMU protocol and the layout of Human3.6M."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import types
import xml.etree.ElementTree as ElementTree
import zipfile

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipelines.data.datasets.pose_cmu import MOTIONS, read_cmu
from pipelines.data.datasets.pose_deepmimic import ACTIONS, motion_clips, read_deepmimic
from pipelines.data.datasets.pose_h36m import action_name, read_cameras, read_h36m, with_cameras
from pipelines.data.datasets.pose_mocap import family, map_joints, open_mocap, read_mapping
from pipelines.data.datasets.pose_skeletons import bone_lengths, skeleton, swapped_sides, up_axis
from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA") or ROOT.parent / "shared" / "data")
MOTIONS_FOLDER = DATA / "embeddable" / "pose3d" / "pybullet_motions"
ARCHIVE = DATA / "benchmark" / "pose3d" / "cmu_bvh_87clips.tar.xz"
STRANGE = (
    "HIERARCHY ROOT Pelvis { OFFSET 0 0 0 CHANNELS 3 Xposition Yposition Zposition "
    "JOINT Skull { OFFSET 0 70 0 CHANNELS 1 Xrotation End Site { OFFSET 0 20 0 } } "
    "JOINT LFoot { OFFSET 10 -90 0 CHANNELS 1 Xrotation } } MOTION Frames: 1 Frame Time: 0.1 0 90 0 0 0"
)


def need(path: pathlib.Path) -> pathlib.Path:
    if not path.exists():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    return path


# Mapping files


def test_an_unknown_hierarchy_asks_for_a_mapping_and_takes_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.bvh").write_text(STRANGE)
    with pytest.raises(
        InputError, match=r"a: joints of no known hierarchy. Found: 3 joints: Pelvis, Skull, LFoot"
    ) as caught:
        open_mocap(tmp_path / "a.bvh")
    assert "right_wrist" in str(caught.value)
    (tmp_path / "map.json").write_text(json.dumps({"hip": "Pelvis", "neck": "Skull", "head": ["Skull", "Skull_end"]}))
    clip = open_mocap(tmp_path / "a.bvh", mapping=tmp_path / "map.json")[0]
    there = {
        name: clip.points[0, joint].tolist() for joint, name in enumerate(clip.skeleton.joints) if clip.valid[0, joint]
    }
    assert list(there) == ["hip", "neck", "head"]
    np.testing.assert_allclose(list(there.values()), [[0, 0, 0.9], [0, 0, 1.6], [0, 0, 1.7]], atol=1e-6)
    assert any("missing, since nothing tells them" in note for note in clip.notes)
    own = open_mocap(tmp_path / "a.bvh", target=None)[0]
    assert own.skeleton.joints == ("Pelvis", "Skull", "LFoot")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '{"hip": "Pelvis", "hip": "Skull"}', "stands twice.*hip"),
        ("a.json", '{"hips": "Pelvis"}', "not joints of h36m17.*hips"),
        ("a.json", '{"hip": 3}', "no names of joints"),
        ("a.json", '{"hip": []}', "no names of joints"),
        ("a.json", '["hip"]', "no mapping"),
        ("a.json", '{"hip": "Pelvis"', "not readable JSON"),
        ("a.json", '{"hip": "Belly"}', "a joint that hip is mapped to.*'Belly', which is none"),
        ("a.json", '{"head": "Skull"}', "without the root"),
        ("a.json", "{}", "no joints"),
        ("a.csv", "bone,name\nhip,Pelvis\n", "no mapping.*columns joint and source"),
        ("a.csv", "joint,source\nhip\n", "a row that is no pair"),
        ("a.csv", "joint,source\nhip,\n", "a row that is no pair"),
        ("a.csv", "", "no mapping"),
    ],
)
def test_bad_mappings_get_one_message(tmp_path: pathlib.Path, name: str, text: str, words: str) -> None:
    (tmp_path / "a.bvh").write_text(STRANGE)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        open_mocap(tmp_path / "a.bvh", mapping=tmp_path / name)


def test_names_may_leave_out_what_stands_before_the_colon() -> None:
    tree = Skeleton("two", ("x:hip", "y:hip", "x:head"), (-1, -1, 0), 0)
    clip = Clip.of("a", np.arange(9.0).reshape(1, 3, 3), tree)
    with pytest.raises(InputError, match=r"'hip', which stands for several"):
        map_joints(clip, {"hip": "hip"}, skeleton("h36m17"))
    mapped = map_joints(clip, {"hip": ("x:hip", "y:hip"), "head": "head"}, skeleton("h36m17"))
    assert mapped.points[0, [0, 10]].tolist() == [[1.5, 2.5, 3.5], [6, 7, 8]]
    assert family(tree) is None


def test_other_endings_and_files_that_are_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no motion capture by its ending.*\.fbx.*\.bvh, \.amc, \.c3d"):
        open_mocap(tmp_path / "a.fbx")
    for name in ("a.bvh", "a.amc", "a.c3d", "a.txt"):
        with pytest.raises(InputError, match=r"no such file"):
            open_mocap(tmp_path / name)
    with pytest.raises(InputError, match=r"no such file"):
        read_mapping(tmp_path / "a.json")


# DeepMimic


def test_joints_are_those_of_the_model_file() -> None:
    """Each joint by the rotations of SciPy along the tree of the URDF, which is four times as large."""
    robot = ElementTree.fromstring(
        need(MOTIONS_FOLDER / "humanoid.urdf").read_text().partition("</robot>")[0] + "</robot>"
    )
    tree = {}
    for joint in robot.iter("joint"):
        offset = [float(number) for number in joint.find("origin").attrib["xyz"].split()]
        tree[joint.attrib["name"]] = (joint.find("parent").attrib["link"], np.array(offset) / 4, joint.attrib["type"])
    order = ["chest", "neck"]
    order += [f"right_{part}" for part in ("hip", "knee", "ankle", "shoulder", "elbow")]
    order += [f"left_{part}" for part in ("hip", "knee", "ankle", "shoulder", "elbow")]
    for action in ("walk", "cartwheel"):
        path = MOTIONS_FOLDER / f"humanoid3d_{action}.txt"
        clip = read_deepmimic(path)[0]
        frames = np.array(json.loads(path.read_text())["Frames"])
        assert (clip.frames, clip.fps, clip.action) == (len(frames), 30.0 if action == "walk" else 60.0, action)
        for frame in (0, len(frames) // 2):
            row = frames[frame]
            turns = {"root": Rotation.from_quat(row[[5, 6, 7, 4]])}
            places = {"root": row[1:4]}
            at = 8
            for name in [*order, "right_wrist", "left_wrist"]:
                parent, offset, kind = tree[name]
                places[name] = places[parent] + turns[parent].apply(offset)
                if kind == "fixed":
                    continue
                size = 4 if kind == "spherical" else 1
                numbers = row[at : at + size]
                turned = (
                    Rotation.from_quat(numbers[[1, 2, 3, 0]]) if size == 4 else Rotation.from_rotvec([0, 0, numbers[0]])
                )
                turns[name] = turns[parent] * turned
                at += size
            assert at == 44
            expected = np.array([places[name] for name in clip.skeleton.joints])[:, [0, 2, 1]] * [1, -1, 1]
            np.testing.assert_allclose(clip.points[frame], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1].pop(), "frame 2 of 43 numbers"),
        (lambda rows: rows[0].__setitem__(9, "0.1"), "frame 1 of 44 numbers"),
        (lambda rows: rows[0].__setitem__(9, float("nan")), "numbers that are no motion.*frame 1"),
        (lambda rows: rows[0].__setitem__(4, 3.0), "no rotation"),
        (lambda rows: [row.__setitem__(0, 0.0) for row in rows], "no durations"),
        (lambda rows: rows.clear(), "no frames"),
    ],
)
def test_bad_motions_get_one_message(tmp_path: pathlib.Path, change: types.FunctionType, words: str) -> None:
    still = [0.5, 0, 0.85, 0]
    for size in (4, 4, 4, 4, 1, 4, 4, 1, 4, 1, 4, 4, 1):
        still += [1.0, 0, 0, 0] if size == 4 else [0]
    rows = [list(still) for _ in range(3)]
    (tmp_path / "a.txt").write_text(json.dumps({"Frames": rows}))
    assert read_deepmimic(tmp_path / "a.txt")[0].frames == 3
    change(rows)
    (tmp_path / "a.txt").write_text(json.dumps({"Frames": rows}))
    with pytest.raises(InputError, match=words):
        read_deepmimic(tmp_path / "a.txt")


def test_embedded_clips_are_one_person_who_moves_upright() -> None:
    clips = motion_clips()
    assert [clip.action for clip in clips] == list(ACTIONS)
    assert sum(clip.frames for clip in clips) == 1620
    assert sum((clip.frames - 1) / (clip.fps or 0) for clip in clips) == pytest.approx(33.6, abs=0.1)
    for clip in clips:
        assert clip.valid.all()
        assert (clip.unit, clip.frame, clip.skeleton.name) == ("m", "world", "h36m17")
        assert swapped_sides(clip) is False
    everything = np.concatenate([clip.points for clip in clips])
    lengths = bone_lengths(everything, skeleton("h36m17"))
    np.testing.assert_allclose(lengths.std(0), 0, atol=6e-4)
    upright = {clip.action: up_axis(clip) for clip in clips}
    assert {upright[action] for action in ("walk", "run", "dance_a", "jump", "punch", "kick")} == {"z"}
    assert everything[..., 2].min() > -0.1
    assert 1.6 < everything[..., 2].max() < 2.0


def test_embedded_clips_are_made_byte_for_byte() -> None:
    need(MOTIONS_FOLDER)
    spec = importlib.util.spec_from_file_location("make_pose_samples", ROOT / "tools" / "make_pose_samples.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    embedded = (ROOT / "data" / "samples" / "pose" / "motions.npz").read_bytes()
    made = tool.archive(MOTIONS_FOLDER)
    if hashlib.sha256(made).digest() != hashlib.sha256(embedded).digest():  # another zlib packs otherwise
        one, two = motion_clips(made), motion_clips(embedded)
        assert all(np.array_equal(a.points, b.points) for a, b in zip(one, two, strict=True))
    for clip, action in zip(motion_clips(embedded), ACTIONS, strict=True):
        exact = read_deepmimic(MOTIONS_FOLDER / f"humanoid3d_{action}.txt", "h36m17")[0]
        np.testing.assert_allclose(clip.points, exact.points, atol=0.5 / 1024 + 1e-6)
        assert clip.fps == exact.fps


# CMU


def test_the_protocol_of_87_clips() -> None:
    study = read_cmu(need(ARCHIVE))
    assert study.notes[0] == "87 files, 43,262 frames at 120 Hz"
    assert study.notes[1] == (
        "3 copies left out: Walking/BVH/02_01.bvh (of 02/02_01.bvh), 02/02_01_ignoreFirstFrame.bvh (of 02/02_01.bvh "
        "without its first frame), Walking/BVH/02_02.bvh (of 02/02_02.bvh)"
    )
    parts = (study.train, study.walks, study.motions)
    assert [len(part) for part in parts] == [43, 31, 10]
    assert [sum(clip.frames for clip in part) for part in parts] == [4544, 2831, 3208]
    assert "dropped: Walking/BVH/07_12.bvh (1)" in study.notes[3]
    assert {clip.subject for clip in study.walks} == {"07", "08", "16"}
    assert {clip.name: clip.action for clip in study.motions} == MOTIONS
    assert not {clip.subject for clip in study.train} & {"02", "07", "08", "16"}
    for clip in study.clips:
        assert (clip.fps, clip.skeleton.name, up_axis(clip), swapped_sides(clip)) == (30.0, "h36m17", "z", False)
        assert clip.valid.all()
        steps = np.linalg.norm(np.diff(clip.points[:, 0], axis=0), axis=-1)
        assert steps.max() < 0.3  # the rest pose or an empty frame at the origin would be a jump
    legs = np.concatenate([bone_lengths(clip.points, clip.skeleton) for clip in study.clips])
    assert 0.33 < legs[:, 1].min() < legs[:, 1].max() < 0.5
    assert legs[:, 7].max() < 0.3


def test_copies_are_found_by_content_not_by_name(tmp_path: pathlib.Path) -> None:
    head = "HIERARCHY ROOT Hips { OFFSET 0 0 0 CHANNELS 1 Xrotation "
    head += "JOINT a { OFFSET 0 20 0 CHANNELS 1 Xrotation } } MOTION "
    rest = "Frame Time: .0083333 "
    for name, numbers in (
        ("01_01", "1 2 3 4 5 6 7 8 9 10"),
        ("01_02", "3 4 5 6 7 8 9 10"),
        ("02_01", "1.0 2.0 3 4 5 6 7 8 9 10"),
        ("02_02", "3 4 5 6 7 8 9 11"),
    ):
        text = f"{head}Frames: {len(numbers.split()) // 2} {rest}{numbers}"
        (tmp_path / f"{name}.bvh").write_text(text)
    study = read_cmu(tmp_path, fps=60, skeleton="")
    assert [clip.name for clip in study.clips] == ["01_01", "02_02"]
    assert (
        "2 copies left out: 01_02.bvh (of 01_01.bvh without its first frame), 02_01.bvh (of 01_01.bvh)" in study.notes
    )
    assert [clip.frames for clip in study.clips] == [2, 2]
    for words, change in (
        ("cannot be left out evenly", {"fps": 50.0}),
        ("no .bvh file of subjects 77", {"subjects": ("77",)}),
    ):
        with pytest.raises(InputError, match=words):
            read_cmu(tmp_path, **change)
    (tmp_path / "x.bvh").write_text("HIERARCHY")
    with pytest.raises(InputError, match=r"no subject in the name"):
        read_cmu(tmp_path)


# Human3.6M


def test_thirty_two_joints_become_seventeen(tmp_path: pathlib.Path) -> None:
    random = np.random.default_rng(0)
    full = random.normal(0, 1, (4, 32, 3)).astype(np.float32)
    arrays = {"S9/Walking 1": full, "S11/Directions": full, "S11/Directions 1": full[:, :17], "S1/Eating": full + 1}
    np.savez(tmp_path / "a.npz", **arrays)
    clips = read_h36m(tmp_path / "a.npz", subjects=("S9", "S11"))
    assert [clip.name for clip in clips] == ["S9/Walking 1", "S11/Directions 1"]
    removed = [4, 5, 9, 10, 11, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31]
    np.testing.assert_array_equal(clips[0].points, np.delete(full, removed, axis=1))
    np.testing.assert_array_equal(clips[1].points, full[:, :17])
    assert len(read_h36m(tmp_path / "a.npz", keep_corrupt=True)) == 4
    assert [action_name(clip.action) for clip in clips] == ["Walking", "Directions"]


def test_two_dimensional_arrays_know_their_camera(tmp_path: pathlib.Path) -> None:
    seen = np.full((3, 17, 2), 500.0)
    np.savez_compressed(tmp_path / "a.npz", **{"S9/Photo 1/1": seen, "S9/Photo 1/60457274": seen})
    clips = read_h36m(tmp_path / "a.npz")
    assert [(clip.unit, clip.frame, clip.size) for clip in clips] == [
        ("px", "image", (1000, 1000)),
        ("px", "image", (1000, 1002)),
    ]
    np.savez(tmp_path / "b.npz", **{"S9/Photo 1/7": seen})
    with pytest.raises(InputError, match=r"no such camera.*'7'"):
        read_h36m(tmp_path / "b.npz")


def test_files_that_are_refused(tmp_path: pathlib.Path) -> None:
    pickled = np.array({"S1": {"Walking": np.zeros((2, 32, 3))}}, dtype=object)
    np.savez(tmp_path / "pickled.npz", positions_3d=pickled)
    with pytest.raises(InputError, match=r"pickled.npz: pickled Python objects.*could run any code.*pose_h36m"):
        read_h36m(tmp_path / "pickled.npz")
    for name, array, words in (
        ("S9/Walking 1", np.zeros((4, 16, 3)), "another shape"),
        ("S9/Walking 1", np.zeros((0, 17, 3)), "another shape"),
        ("S9/Walking 1", np.full((4, 17, 3), 1500.0), "not metres.*divide mm by 1000"),
        ("positions", np.zeros((4, 17, 3)), "an array of another name"),
        ("S9/Walking 1", np.array(["a"]), "not an array of numbers"),
    ):
        np.savez(tmp_path / "a.npz", **{name: array})
        with pytest.raises(InputError, match=words):
            read_h36m(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000, 17, 3), }"
        archive.writestr("S9/Walking 1.npy", header.ljust(127) + b"\n" + b"0" * 64)
    with pytest.raises(InputError, match=r"not an array of numbers, or cut"):
        read_h36m(tmp_path / "huge.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(InputError, match=r"not a readable NPZ"):
        read_h36m(tmp_path / "text.npz")
    with pytest.raises(InputError, match=r"no such file"):
        read_h36m(tmp_path / "none.npz")


def test_cameras_stand_where_the_file_says(tmp_path: pathlib.Path) -> None:
    turn = Rotation.from_euler("xyz", [100, 20, -30], degrees=True)
    x, y, z, w = turn.as_quat().tolist()
    camera = {"orientation": [w, x, y, z], "translation": [1500, -2500, 1400], "focal_length": [1145, 1144]}
    camera |= {
        "center": [512, 515],
        "radial_distortion": [-0.2, 0.24, -0.002],
        "tangential_distortion": [-9e-4, -1.6e-3],
    }
    (tmp_path / "cameras.json").write_text(json.dumps({"S9": {"55011271": camera}, "S1": [camera, {}, camera]}))
    cameras = read_cameras(tmp_path / "cameras.json")
    assert list(cameras["S1"]) == ["54138969", "58860488"]
    one = cameras["S9"]["55011271"]
    assert one.distortion == (-0.2, 0.24, -9e-4, -1.6e-3, -0.002)
    np.testing.assert_allclose(one.position, [1.5, -2.5, 1.4], atol=1e-12)
    point = np.array([0.3, 0.2, 0.9])
    np.testing.assert_allclose(one.rotation @ point + one.translation, turn.inv().apply(point - [1.5, -2.5, 1.4]))
    clip = Clip.of("S9/Walking 1", np.ones((2, 17, 3)), skeleton("h36m17"), subject="S9")
    assert [seen.name for seen in with_cameras([clip], cameras)] == ["S9/Walking 1/55011271"]
    with pytest.raises(InputError, match=r"a subject without cameras.*S7"):
        with_cameras([dataclasses.replace(clip, subject="S7")], cameras)
    for text, words in (
        ("[", "not readable JSON"),
        ("[1]", "cameras of another layout"),
        (json.dumps({"S9": {"55011271": {**camera, "orientation": [1, 1, 0, 0]}}}), "whose length is not 1"),
        (json.dumps({"S9": {"55011271": {**camera, "center": [5]}}}), "cameras of another layout"),
        (json.dumps({"S9": {"5": camera}}), "no such camera"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=words):
            read_cameras(tmp_path / "bad.json")
