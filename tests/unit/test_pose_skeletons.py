"""Skeletons against the published joint orders, mirrors, conversions, and what the anatomy tells."""

from __future__ import annotations

import os
import pathlib
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.pose_conversion import TABLES, convert, recognise
from pipelines.data.datasets.pose_skeletons import (
    SKELETONS,
    bone_lengths,
    by_count,
    find_joint,
    flip,
    flip_clip,
    side_jumps,
    skeleton,
    swapped_sides,
    up_axis,
    upside_down,
)
from pipelines.data.datasets.pose_types import Camera, Clip, Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.bvh import read_bvh

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA") or ROOT.parent / "shared" / "data")
BODY = skeleton("h36m17")


def standing(bend: float = 0.15, frames: int = 4) -> np.ndarray:
    """A person on h36m17, m, world with z up, who looks along +x (left is +y) with bent knees."""
    joints = np.zeros((17, 3))
    for side, y in ((slice(1, 4), -0.1), (slice(4, 7), 0.1)):
        joints[side] = [(0, y, 0), (bend, y, -0.4), (0, y, -0.8)]
    joints[7:11, 2] = 0.25, 0.5, 0.62, 0.72
    for side, y in ((slice(11, 14), 0.2), (slice(14, 17), -0.2)):
        joints[side] = [(0, y, 0.5), (-0.05, y, 0.2), (0.05, y, 0.0)]
    return np.repeat(joints[None], frames, 0) + np.array([0.3, -0.2, 0.9])


def random_clip(name: str, seed: int, frames: int = 5, missing: float = 0.0, dims: int = 3) -> Clip:
    rng = np.random.default_rng(seed)
    tree = skeleton(name)
    valid = rng.random((frames, len(tree))) >= missing
    sure = rng.random((frames, len(tree)))
    points = rng.normal(size=(frames, len(tree), dims))
    return Clip.of(name, points, tree, valid, confidence=sure, fps=25.0)


def test_the_field_s_numbers_of_h36m17() -> None:
    assert BODY.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
    assert sorted(BODY.left) == [4, 5, 6, 11, 12, 13]
    assert sorted(BODY.right) == [1, 2, 3, 14, 15, 16]
    assert BODY.root == 0


def test_h36m32_reduces_to_17_by_the_published_list() -> None:
    big = skeleton("h36m32")
    removed = {4, 5, 9, 10, 11, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31}
    kept = [joint for joint in range(32) if joint not in removed]
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 32, 3)).astype(np.float32)
    small = convert(Clip.of("a", points, big), "h36m17")
    assert (small.points == points[:, kept]).all()
    assert sorted(big.left) == [6, 7, 8, 9, 10, *range(16, 24)]
    assert sorted(big.right) == [1, 2, 3, 4, 5, *range(24, 32)]
    # Parents after the removal: up the old tree to the next kept joint; then the two shoulders to the thorax.
    place = {old: new for new, old in enumerate(kept)}
    parents = []
    for old in kept:
        up = big.parents[old]
        while up >= 0 and up not in place:
            up = big.parents[up]
        parents.append(place.get(up, -1))
    parents[11] = parents[14] = 8
    assert tuple(parents) == BODY.parents


def test_humaneva_and_smpl_trees() -> None:
    eva = skeleton("humaneva15")
    assert eva.parents == (-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1)
    assert (sorted(eva.left), sorted(eva.right)) == ([2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13])
    smpl = skeleton("smpl24")
    assert smpl.parents == (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
    assert [skeleton("coco17").joints[joint] for joint in (0, 5, 11, 16)] == [
        "nose",
        "left_shoulder",
        "left_hip",
        "right_ankle",
    ]
    assert [skeleton("body25").joints[joint] for joint in (1, 8, 19, 24)] == [
        "neck",
        "mid_hip",
        "left_big_toe",
        "right_heel",
    ]
    assert (skeleton("mpi17").root, skeleton("body25").root, skeleton("halpe26").root) == (14, 8, 19)


@pytest.mark.parametrize("name", SKELETONS)
def test_sides_are_mirror_joints_in_mirror_trees(name: str) -> None:
    tree = SKELETONS[name]
    digits = int("".join(one for one in name if one.isdigit())[-2:])
    assert len(tree) == digits
    assert name in by_count(digits)
    mirror = tree.mirror
    assert [mirror[mirror[joint]] for joint in range(len(tree))] == list(range(len(tree)))
    for joint, parent in enumerate(tree.parents):
        assert parent < 0 or tree.parents[mirror[joint]] == mirror[parent], "the mirror of a bone is a bone"
    named = [joint for joint in tree.joints if joint.lower().startswith(("left", "right", "lh", "rh", "lt", "rt"))]
    assert len(named) == 2 * len(tree.left), "every joint with a side in its name is in a pair"
    assert len(tree.bones) == len(tree) - 1
    seen: set[int] = set()
    for joint in tree.order:
        assert tree.parents[joint] < 0 or tree.parents[joint] in seen
        seen.add(joint)


def test_names_are_forgiving_and_unknown_ones_are_told() -> None:
    assert skeleton("H36M-17") is skeleton("h36m_17")
    with pytest.raises(InputError, match=r"h36m17 \(17 joints\).*body25 \(25 joints\)"):
        skeleton("kinect20")
    assert find_joint(skeleton("cmu31"), "ankle", "right") == 9
    mixamo = Skeleton("m", ("mixamorig:Hips", "mixamorig:RightUpLeg"), (-1, 0), 0)
    assert (find_joint(mixamo, "hip", "right"), find_joint(mixamo, "hip")) == (1, None)


@pytest.mark.parametrize(
    ("joints", "parents", "root", "left", "right", "words"),
    [
        (("a", "a"), (-1, 0), 0, (), (), "different names"),
        ((), (), 0, (), (), "different names"),
        (("a", "b"), (-1,), 0, (), (), "parent for each"),
        (("a", "b"), (-1, 2), 0, (), (), "no such joint"),
        (("a", "b"), (1, -1), 0, (), (), "no such joint"),
        (("a", "b", "c"), (-1, 2, 1), 0, (), (), "circle"),
        (("a", "b", "c"), (-1, 0, 0), 0, (1,), (), "not pairs"),
        (("a", "b", "c"), (-1, 0, 0), 0, (1,), (1,), "not pairs"),
        (("a", "b", "c"), (-1, 0, 0), 0, (1,), (3,), "no such joint"),
    ],
)
def test_bad_skeletons_are_refused(joints, parents, root, left, right, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        Skeleton("bad", joints, parents, root, left, right)


def test_clips_count_what_is_missing_and_refuse_what_does_not_fit() -> None:
    points = standing()
    points[1, 3, 0], points[2, 5, 1], points[3, 6, 2] = np.nan, np.inf, 1e39
    clip = Clip.of("a", points, BODY, fps=30)
    assert int((~clip.valid).sum()) == 3
    assert not clip.points[~clip.valid].any()
    assert clip.notes == ("3 of 68 joints are missing",)
    assert (clip.frames, clip.seconds, len(clip), clip.dims) == (4, 4 / 30, 4, 3)
    with pytest.raises(InputError, match="not finite"):
        Clip("a", np.where(np.abs(points) < 9, points, np.nan), np.ones((4, 17), bool), BODY)
    with pytest.raises(InputError, match="17 joints of h36m17"):
        Clip.of("a", np.zeros((4, 16, 3)), BODY)
    with pytest.raises(InputError, match="not the joints"):
        Clip.of("a", np.zeros((17, 3)), BODY)
    with pytest.raises(InputError, match="frame rate"):
        Clip.of("a", standing(), BODY, fps=0)
    with pytest.raises(InputError, match="unit or frame"):
        Clip.of("a", standing(), BODY, unit="mm")
    with pytest.raises(InputError, match="valid does not fit"):
        Clip.of("a", standing(), BODY, np.ones((3, 17), bool))
    hidden = Clip("a", np.ones((1, 17, 3), np.float32), np.zeros((1, 17), bool), BODY)
    assert not hidden.points.any(), "numbers of a missing joint are 0"
    again = pickle.loads(pickle.dumps(clip))
    assert (again.points == clip.points).all()


@pytest.mark.parametrize("name", SKELETONS)
def test_flipping_twice_is_the_identity_and_bones_keep_their_lengths(name: str) -> None:
    clip = random_clip(name, 1, missing=0.2)
    tree = clip.skeleton
    once = flip_clip(clip)
    twice = flip_clip(once)
    assert (twice.points == clip.points).all()
    assert (twice.valid == clip.valid).all()
    assert twice.confidence is not None
    assert clip.confidence is not None
    assert (twice.confidence == clip.confidence).all()
    mirrored = bone_lengths(once.points, tree, once.valid)
    straight = bone_lengths(clip.points, tree, clip.valid)
    ends = [joint for _, joint in tree.bones]
    order = [ends.index(tree.mirror[joint]) for joint in ends]
    np.testing.assert_array_equal(mirrored, straight[:, order])
    assert not once.points[~once.valid].any()


def test_flip_of_pixels_agrees_with_flip_of_normalised_points() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 640, (5, 17, 2))
    out = flip(pixels, BODY, width=640)
    normal = flip(pixels / 640 * 2 - [1, 480 / 640], BODY)
    np.testing.assert_allclose(out / 640 * 2 - [1, 480 / 640], normal, atol=1e-12)
    clip = Clip.of("a", pixels, BODY, unit="px", frame="image")
    with pytest.raises(InputError, match="width of the image"):
        flip_clip(clip)
    camera = Camera((640, 480), (500.0, 500.0), (320.0, 240.0))
    seen = flip_clip(clip.but(size=(640, 480), camera=camera))
    assert seen.camera is None
    assert "camera left out" in seen.notes[0]
    np.testing.assert_allclose(seen.points, out, atol=1e-4)
    with pytest.raises(InputError, match="17 joints"):
        flip(np.zeros((3, 16, 2)), BODY)


def test_bone_lengths_by_hand_and_missing_ends() -> None:
    clip = Clip.of("a", standing(bend=0.3), BODY)
    lengths = dict(
        zip([BODY.joints[joint] for _, joint in BODY.bones], bone_lengths(clip.points, BODY)[0], strict=True)
    )
    assert lengths["right_knee"] == pytest.approx(0.5, abs=1e-6)
    assert lengths["spine"] == pytest.approx(0.25, abs=1e-6)
    valid = clip.valid.copy()
    valid[0, 2] = False
    lost = np.isnan(bone_lengths(clip.points, BODY, valid))
    assert lost.sum() == 2, "the bones above and below the knee"


# ---------------------------------------------------------------- conversion


def test_coco_to_h36m_by_hand() -> None:
    clip = random_clip("coco17", 3, dims=2)
    points = {name: clip.points[:, place].astype(np.float64) for place, name in enumerate(clip.skeleton.joints)}
    out = convert(clip, "H36M-17")
    got = {name: out.points[:, place] for place, name in enumerate(out.skeleton.joints)}
    hips, chest = points["left_hip"] + points["right_hip"], points["left_shoulder"] + points["right_shoulder"]
    ears = points["left_ear"] + points["right_ear"]
    for name in BODY.joints:
        if name.startswith(("left", "right")):
            np.testing.assert_allclose(got[name], points[name], atol=1e-6)
    np.testing.assert_allclose(got["hip"], hips / 2, atol=1e-6)
    np.testing.assert_allclose(got["thorax"], chest / 2, atol=1e-6)
    np.testing.assert_allclose(got["spine"], (hips + chest) / 4, atol=1e-6)
    np.testing.assert_allclose(got["neck"], points["nose"], atol=1e-6)
    np.testing.assert_allclose(got["head"], chest / 2 + 1.6 * (ears - chest) / 2, atol=1e-6)
    assert clip.confidence is not None
    assert out.confidence is not None
    np.testing.assert_array_equal(out.confidence[:, 0], clip.confidence[:, 11:13].min(1))
    assert "12 joints taken over" in out.notes[-1]
    assert "hip (mean of left_hip, right_hip)" in out.notes[-1]
    assert "left out: left_eye, right_eye" in out.notes[-1]


def test_missing_stays_missing_and_spare_rules_are_counted() -> None:
    clip = random_clip("coco17", 4, frames=4)
    valid = clip.valid.copy()
    valid[0, 11] = False  # a hip
    valid[1, 3] = False  # one ear
    valid[2, [3, 4]] = False  # both ears
    valid[3, [0, 3, 4]] = False  # both ears and the nose
    out = convert(clip.but(valid=valid), "h36m17")
    gone = [[BODY.joints[joint] for joint in np.flatnonzero(~row)] for row in out.valid]
    assert gone == [["hip", "left_hip", "spine"], [], [], ["neck", "head"]]
    assert not out.points[~out.valid].any()
    assert "head made by a spare rule in 2 of 4 frames" in out.notes
    assert "5 of 68 joints missing after the conversion" in out.notes
    chest = clip.points[:, 5:7].mean(1)
    np.testing.assert_allclose(out.points[1, 10], chest[1] + 1.6 * (clip.points[1, 4] - chest[1]), atol=1e-5)


def test_h36m_to_coco_says_what_nothing_tells() -> None:
    out = convert(random_clip("h36m17", 5), "coco17")
    assert not out.valid[:, 1:5].any()
    assert out.valid[:, [0, *range(5, 17)]].all()
    assert "missing, since nothing tells them: left_eye, right_eye, left_ear, right_ear" in out.notes[-1]
    assert "left out: hip, spine, thorax, head" in out.notes[-1]


@pytest.mark.parametrize("name", ["mpi17", "h36m17"])
def test_lossless_ways_there_and_back(name: str) -> None:
    clip = random_clip(name, 6, missing=0.1)
    other = "h36m17" if name == "mpi17" else "mpi17"
    back = convert(convert(clip, other), name)
    assert (back.points == clip.points).all()
    assert (back.valid == clip.valid).all()


@pytest.mark.parametrize("pair", TABLES)
def test_every_table_is_affine_complete_and_keeps_sides(pair: tuple[str, str]) -> None:
    source, target = (SKELETONS[name] for name in pair)
    for joint, recipes in TABLES[pair].items():
        assert joint in target.joints
        for recipe in recipes:
            assert set(recipe) <= set(source.joints)
            assert sum(recipe.values()) == pytest.approx(1.0), "moved bodies give moved joints"
    if pair[1] == "h36m17":
        assert set(TABLES[pair]) == set(target.joints)
    clip = random_clip(pair[0], 7)
    there = convert(clip, pair[1])
    other = convert(flip_clip(clip), pair[1])
    np.testing.assert_allclose(flip_clip(there).points, other.points, atol=1e-5, err_msg="mirror, then convert")
    moved = convert(clip.but(points=clip.points * 2 + 1), pair[1])
    np.testing.assert_allclose(moved.points[there.valid], there.points[there.valid] * 2 + 1, atol=1e-5)


def test_ways_over_h36m17_and_refusals() -> None:
    out = convert(random_clip("cmu31", 8), "mpi17")
    assert (out.skeleton.name, len(out.notes)) == ("mpi17", 2)
    same = random_clip("coco17", 9)
    assert convert(same, "coco17") is same
    assert recognise(Skeleton("mine", BODY.joints, BODY.parents, 0)) == "h36m17"
    with pytest.raises(InputError, match=r"no way to smpl24.*17 joints.*mapping"):
        convert(same, "smpl24")
    dog = Skeleton("dog", ("root", "tail"), (-1, 0), 0)
    with pytest.raises(InputError, match=r"unknown skeleton.*root, tail.*mapping file"):
        convert(Clip.of("rex", np.zeros((1, 2, 3)), dog), "h36m17")


def test_a_mapping_given_by_hand() -> None:
    dog = Skeleton("dog", ("root", "l", "r", "nose"), (-1, 0, 0, 0), 0)
    clip = Clip.of("rex", np.arange(12.0).reshape(1, 4, 3), dog)
    out = convert(clip, "h36m17", {"hip": ["l", "r"], "head": "nose"})
    np.testing.assert_allclose(out.points[0, 0], [4.5, 5.5, 6.5])
    assert int(out.valid.sum()) == 2
    for mapping, words in (
        ({"hip": "tail"}, "no such joint"),
        ({"paw": "l"}, "no such joint"),
        ({"head": "nose"}, "without the root"),
        ({"hip": []}, "without joints"),
    ):
        with pytest.raises(InputError, match=words):
            convert(clip, "h36m17", mapping)


# ---------------------------------------------------------------- what the anatomy tells


def turned(yaw: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


@settings(max_examples=25, deadline=None)
@given(st.floats(-3.1, 3.1), st.sampled_from(["world", "camera"]), st.floats(0.05, 0.3))
def test_sides_and_up_are_told_in_any_direction(yaw: float, frame: str, bend: float) -> None:
    points = standing(bend) @ turned(yaw).T
    if frame == "camera":
        points = points[..., [1, 2, 0]] * [-1, -1, 1]  # x right, y down, z forward: a rotation
    clip = Clip.of("a", points, BODY, frame=frame)
    assert swapped_sides(clip) is False
    assert upside_down(clip) is False
    assert up_axis(clip) == ("z" if frame == "world" else "-y")
    exchanged = clip.but(points=clip.points[:, list(BODY.mirror)])
    assert swapped_sides(exchanged) is True
    assert swapped_sides(flip_clip(clip)) is False, "a true mirror image is a possible person"
    wrong = clip.but(points=clip.points * np.array([1, -1, 1] if frame == "camera" else [1, 1, -1]))
    assert upside_down(wrong) is True
    assert swapped_sides(wrong) is True, "y up taken for y down is a reflection"


def test_what_cannot_be_told_is_none() -> None:
    straight = standing(bend=0.0)
    assert swapped_sides(Clip.of("a", straight, BODY)) is None
    flat = Clip.of("a", standing()[..., :2], BODY, unit="normalised", frame="image")
    assert swapped_sides(flat) is None
    lying = standing()[..., [2, 1, 0]]
    assert upside_down(Clip.of("a", lying, BODY)) is None
    nothing = Clip.of("a", np.full((2, 17, 3), np.nan), BODY)
    assert (swapped_sides(nothing), upside_down(nothing), up_axis(nothing), side_jumps(nothing)) == (
        None,
        None,
        None,
        0,
    )
    assert up_axis(Clip.of("a", np.zeros((1, 2, 3)), Skeleton("dog", ("root", "tail"), (-1, 0), 0))) is None


def face(frames: int = 6) -> Clip:
    """Somebody on coco17 who looks into the camera: the left shoulder is at the right of the picture."""
    points = np.zeros((frames, 17, 2))
    points[:, 0] = 0, -0.7
    for joint, x, y in ((1, 0.05, -0.75), (3, 0.1, -0.72), (5, 0.2, -0.5), (11, 0.15, 0.0), (13, 0.15, 0.4)):
        points[:, joint], points[:, joint + 1] = (x, y), (-x, y)
    return Clip.of(
        "a", points, skeleton("coco17"), unit="normalised", frame="image", confidence=np.full((frames, 17), 0.9)
    )


def test_sides_in_pictures_need_a_face() -> None:
    clip = face()
    assert swapped_sides(clip) is False
    exchanged = clip.but(points=clip.points[:, list(clip.skeleton.mirror)])
    assert swapped_sides(exchanged) is True
    assert swapped_sides(clip.but(points=clip.points * np.float32(-1))) is False, "upside down, sides are right"
    assert upside_down(clip.but(points=clip.points * np.float32(-1))) is True
    assert swapped_sides(clip.but(confidence=np.full((6, 17), 0.3))) is None
    assert swapped_sides(clip.but(confidence=None)) is None
    narrow = clip.points.copy()
    narrow[..., 0] *= np.float32(0.05)
    assert swapped_sides(clip.but(points=narrow)) is None, "seen from the side"


def test_jumps_of_sides_are_counted() -> None:
    clip = face(10)
    assert side_jumps(clip) == 0
    points = clip.points.copy()
    points[4:6] = points[4:6][:, list(clip.skeleton.mirror)]
    assert side_jumps(clip.but(points=points)) == 2
    still = clip.points + np.random.default_rng(0).normal(0, 0.01, clip.points.shape).astype(np.float32)
    assert side_jumps(clip.but(points=still)) == 0


def test_the_anatomy_of_recorded_people() -> None:
    archive = DATA / "benchmark" / "pose3d" / "cmu_bvh_87clips.tar.xz"
    if not archive.exists():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    seen = 0
    with tarfile.open(archive, "r|xz") as tar:  # a stream: stops after the first clips
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".bvh") else None
            if file is None:
                continue
            (clip,) = read_bvh(file.read(), units="cmu", name=member.name)
            body = convert(clip.but(points=clip.points[1::8], valid=clip.valid[1::8]), "h36m17")
            assert (swapped_sides(body), upside_down(body), up_axis(body), side_jumps(body)) == (False, False, "z", 0)
            assert swapped_sides(body.but(points=body.points[:, list(BODY.mirror)])) is True
            lengths = bone_lengths(body.points, BODY)
            assert lengths.std(0).max() < 0.01, "bones are rigid, also those between made joints, m"
            assert 0.8 < lengths[:, 1:3].sum(1).mean() < 1.0, "a leg, m: near those of h36m17"
            seen += 1
            if seen == 3:
                break
    assert seen == 3
