"""BVH: forward kinematics against rotations of SciPy, units, odd files, and the way back through the writer."""

from __future__ import annotations

import os
import pathlib
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipelines.data.datasets.pose_deepmimic import motion_clips
from pipelines.data.datasets.pose_mocap import open_mocap
from pipelines.data.datasets.pose_skeletons import bone_lengths, skeleton, swapped_sides, up_axis
from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.bvh import read_bvh
from pipelines.data.formats.bvh_write import bvh_text, write_bvh

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA") or ROOT.parent / "shared" / "data") / "embeddable" / "pose3d"
LEG = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT knee
  {
    OFFSET 0 -50 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 -45 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.02
0 95 0 0 0 0 0 0 0
0 95 0 90 0 0 0 -90 0
"""


def given(name: str) -> pathlib.Path:
    path = DATA / name
    if not path.exists():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    return path


def random_tree(seed: int) -> tuple[str, np.ndarray]:
    """A BVH text with channels in random order and its positions, joint by joint with SciPy's rotations."""
    random = np.random.default_rng(seed)
    frames, joints = 3, 7
    parents = [-1] + [int(random.integers(joint)) for joint in range(1, joints)]
    # Depth first, as the format nests: a joint's parent is on the path to the joint before it.
    path = [0]
    for joint in range(1, joints):
        parents[joint] = path[int(random.integers(len(path)))]
        path = [*path[: path.index(parents[joint]) + 1], joint]
    offsets = random.normal(0, 20, (joints, 3)).round(4)
    orders = ["".join(random.permutation(list("XYZ"))[: random.integers(1, 4)]) for _ in range(joints)]
    moves = [joint == 0 or random.random() < 0.3 for joint in range(joints)]
    lines, values, turns, places = ["HIERARCHY"], [], [], []
    depths: list[int] = []
    for joint in range(joints):
        depth = 0 if joint == 0 else depths[parents[joint]] + 1
        depths.append(depth)
        if joint:
            lines += ["}"] * (depths[joint - 1] - depth + 1)
        channels = [f"{axis}position" for axis in ("XYZ" if moves[joint] else "")]
        channels += [f"{axis}rotation" for axis in orders[joint]]
        lines += [f"{'JOINT' if joint else 'ROOT'} j{joint}", "{", "OFFSET " + " ".join(map(str, offsets[joint]))]
        lines.append(f"CHANNELS {len(channels)} {' '.join(channels)}")
        moved = random.normal(0, 20, (frames, 3)).round(4) if moves[joint] else np.zeros((frames, 0))
        angles = random.uniform(-180, 180, (frames, len(orders[joint]))).round(4)
        values.append(np.concatenate([moved, angles], 1))
        own = Rotation.from_euler(orders[joint], angles, degrees=True)
        local = moved if moves[joint] else np.tile(offsets[joint], (frames, 1))
        if joint:
            local = turns[parents[joint]].apply(local) + places[parents[joint]]
            own = turns[parents[joint]] * own
        places.append(local)
        turns.append(own)
    lines += ["}"] * (depths[-1] + 1)
    rows = [" ".join(map(str, row)) for row in np.concatenate(values, 1)]
    text = "\n".join([*lines, "MOTION", f"Frames: {frames}", "Frame Time: 0.01", *rows])
    return text, np.stack(places, 1)


@pytest.mark.parametrize("seed", range(8))
def test_forward_kinematics_is_that_of_scipy(seed: int) -> None:
    text, expected = random_tree(seed)
    clip = read_bvh(text.encode(), units=0.01, up="z")[0]
    np.testing.assert_allclose(clip.points, expected * 0.01, atol=2e-6)
    turned = read_bvh(text.encode(), units="cm")[0]
    np.testing.assert_allclose(turned.points, (expected * 0.01)[..., [0, 2, 1]] * [1, -1, 1], atol=2e-6)


def test_units_frames_and_ends() -> None:
    clip = read_bvh(LEG.encode(), units="cm", ends=True, name="leg.bvh")[0]
    assert (clip.name, clip.fps, clip.unit, clip.frame) == ("leg", 50.0, "m", "world")
    assert clip.skeleton.joints == ("hip", "knee", "knee_end")
    np.testing.assert_allclose(clip.points[0], [[0, 0, 0.95], [0, 0, 0.45], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(clip.points[1, 1], [0.5, 0, 0.95], atol=1e-6)
    assert any("y up turned to z up" in note for note in clip.notes)
    guessed = read_bvh(LEG.encode())[0]
    assert "taken as cm" in guessed.notes[0]
    np.testing.assert_array_equal(guessed.points, clip.points[:, :2])


def test_a_unit_that_cannot_be_told_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"unit of length cannot be told.*9\.5 units.*give units: m, cm"):
        read_bvh(LEG.replace("-50", "-5").replace("-45", "-4.5").encode())


def test_odd_but_honest_files() -> None:
    text = LEG.replace("ROOT hip\n{", "root Left Hip{").replace("JOINT knee", "joint Left Hip").replace("\n", "\r\n")
    clip = read_bvh(b"\xef\xbb\xbf" + text.encode(), units="cm")[0]
    assert clip.skeleton.joints == ("Left Hip", "Left Hip#2")
    assert any("got a number" in note for note in clip.notes)
    first, rest = LEG.split("MOTION")
    two = first + first.removeprefix("HIERARCHY") + "MOTION\nFrames: 1\nFrame Time: 0.1\n" + "1 " * 18
    clips = read_bvh(two.encode(), units="cm")
    assert [one.person for one in clips] == [0, 1]
    assert clips[1].skeleton.joints == ("hip#2", "knee#2")
    assert rest


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("HIERARCHY", "HIERARCHI", "not a BVH file"),
        ("MOTION", "MOVES", "no motion"),
        ("Frames: 2", "Frames: 0", "no frames"),
        ("Frames: 2", "Frames: 3", "the motion is cut.*Found: 2 frames.*Expected: 3 frames of 9 numbers"),
        ("Frames: 2", "Frames: 999999999", "the motion is cut"),
        ("Frames: 2", "Frames: 1", "more numbers than frames"),
        ("0.02", "0,02", "no frame time.*decimal point"),
        ("0.02", "0", "no frame time"),
        ("90 0 0 0 -90", "90 nan 0 0 -90", "frame 2, number 5"),
        ("90 0 0 0 -90", "90 1_0 0 0 -90", "not a finite number"),
        ("90 0 0 0 -90", "90 1e30 0 0 -90", "reasonable size"),
        ("CHANNELS 3 Zrotation", "CHANNELS 3 Wrotation", "no such channel"),
        ("CHANNELS 3 Zrotation", "CHANNELS 3 Xrotation", "or one twice"),
        ("CHANNELS 3 Z", "CHANNELS 77 Z", "no number of channels"),
        ("OFFSET 0 -50 0", "OFFSET 0 -50", "OFFSET needs three numbers.*in knee"),
        ("    OFFSET 0 -50 0\n", "", "a joint without OFFSET.*knee"),
        ("  }\n}\nMOTION", "  }\nMOTION", "the hierarchy is cut"),
        ("JOINT knee", "ROOT knee", "ROOT where none may stand"),
        ("0 95 0 90", "0 95000000 0 90", "farther than anybody goes"),
    ],
)
def test_bad_files_get_one_message(old: str, new: str, words: str) -> None:
    assert old in LEG
    with pytest.raises(InputError, match=words) as caught:
        read_bvh(LEG.replace(old, new, 1).encode(), units="cm", name="leg.bvh")
    assert str(caught.value).startswith("leg.bvh")


def test_a_cut_file_is_kept_only_on_request() -> None:
    cut = LEG[: LEG.rindex("-90")]
    with pytest.raises(InputError, match="Found: 1 frames and 7 numbers"):
        read_bvh(cut.encode(), units="cm")
    clip = read_bvh(cut.encode(), units="cm", accept_truncated=True)[0]
    assert clip.frames == 1
    assert "holds 1 frames and 7 numbers: 1 were kept" in clip.notes[0]


def test_both_given_files_stand_upright_and_become_h36m() -> None:
    for name, frames, joints, family in (
        ("test_freebvh.bvh", 69, 55, "Mixamo"),
        ("test_mocapbank.bvh", 455, 19, "Biovision"),
    ):
        path = given(name)
        clip = read_bvh(path)[0]
        assert clip.points.shape == (frames, joints, 3)
        assert clip.fps == 30.0
        assert 1.2 < clip.points[..., 2].max() < 2.0
        assert clip.points[..., 2].min() > -0.1
        brought = open_mocap(path)[0]
        assert brought.skeleton == skeleton("h36m17")
        assert brought.valid.all()
        assert (up_axis(brought), swapped_sides(brought)) == ("z", False)
        assert any(family in note for note in brought.notes)
        lengths = bone_lengths(brought.points, brought.skeleton).mean(0)
        names = [brought.skeleton.joints[joint] for _, joint in brought.skeleton.bones]
        by_name = dict(zip(names, lengths, strict=True))
        for left in (one for one in names if one.startswith("left")):
            assert by_name[left] == pytest.approx(by_name[left.replace("left", "right")], rel=0.06)
        assert 0.3 < by_name["left_knee"] < 0.5
        assert 0.2 < by_name["right_elbow"] < 0.35


def moving(seed: int = 0, frames: int = 12) -> Clip:
    """Seventeen joints whose bones change their lengths and directions at random."""
    random = np.random.default_rng(seed)
    return Clip.of("noise", random.normal(0, 0.5, (frames, 17, 3)), skeleton("h36m17"), fps=30.0)


def test_motions_come_back_within_a_millimetre(tmp_path: pathlib.Path) -> None:
    for clip in motion_clips()[::4]:
        said = write_bvh(tmp_path / "a.bvh", clip)
        rigid = read_bvh(tmp_path / "a.bvh")[0]
        assert rigid.skeleton == clip.skeleton
        assert rigid.fps == pytest.approx(clip.fps)
        off = np.linalg.norm(rigid.points - clip.points, axis=-1).max()
        assert off < 2e-3  # the sample is rounded to 1/1024 m, so its bones are not quite of constant length
        stated = float(re.findall(r"at most ([\d.]+) mm", " ".join(said))[0])
        assert stated == pytest.approx(off * 1000, abs=0.02)
        write_bvh(tmp_path / "b.bvh", rigid)
        again = read_bvh(tmp_path / "b.bvh")[0]
        np.testing.assert_allclose(again.points, rigid.points, atol=5e-6)


def test_bones_that_change_their_length_need_stretch(tmp_path: pathlib.Path) -> None:
    clip = moving()
    notes = write_bvh(tmp_path / "a.bvh", clip)
    rigid = read_bvh(tmp_path / "a.bvh", units="cm")[0]
    off = np.linalg.norm(rigid.points - clip.points, axis=-1) * 1000
    assert off.max() > 100
    assert f"at most {off.max():.2f} mm" in " ".join(notes)
    # Constant lengths, but every bone points where it did.
    for parent, joint in clip.skeleton.bones:
        one, two = (points[:, joint] - points[:, parent] for points in (clip.points, rigid.points))
        cosine = (one * two).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(two, axis=-1)
        assert cosine.min() > 1 - 1e-6
    assert not any("mm" in note for note in write_bvh(tmp_path / "b.bvh", clip, stretch=True))
    exact = read_bvh(tmp_path / "b.bvh", units="cm")[0]
    assert exact.skeleton == clip.skeleton
    np.testing.assert_allclose(exact.points, clip.points, atol=2e-6)


def test_writer_turns_bones_half_around_and_knows_the_camera_frame() -> None:
    bone = Skeleton("bone", ("a", "b", "c"), (-1, 0, 1), 0)
    points = np.zeros((3, 3, 3))
    points[:, 1], points[:, 2] = [0, 0, 1], [0, 0, 2]
    points[1, 1], points[1, 2] = [0, 0, -1], [0, 0, -2]  # opposite
    points[2, 2] = [0, 0, 0]
    clip = Clip.of("x", points, bone, fps=10.0, frame="camera")
    text, notes = bvh_text(clip)
    assert "(x, -y, -z)" in notes[0]
    again = read_bvh(text.encode(), units="cm", up="y")[0]
    np.testing.assert_allclose(again.points, points[..., [0, 2, 1]] * [1, 1, -1], atol=1e-6)


def test_writer_fills_gaps_and_refuses_what_bvh_cannot_hold(tmp_path: pathlib.Path) -> None:
    clip = moving()
    holes = np.array(clip.points)
    holes[4, 3] = np.nan
    gappy = Clip.of("gap", holes, clip.skeleton, fps=30.0)
    notes = write_bvh(tmp_path / "a.bvh", gappy, stretch=True)
    assert "1 missing joints were interpolated" in notes[0]
    filled = read_bvh(tmp_path / "a.bvh", units="cm")[0].points[4, 3]
    np.testing.assert_allclose(filled, (clip.points[3, 3] + clip.points[5, 3]) / 2, atol=1e-5)
    holes[:, 3] = np.nan
    before = (tmp_path / "a.bvh").read_bytes()
    chain = Skeleton("x", tuple(map(str, range(400))), tuple(range(-1, 399)), 0)
    for bad, words in (
        (Clip.of("never", holes, clip.skeleton, fps=30.0), "missing in every frame.*right_ankle"),
        (clip.but(fps=None), "no frame rate"),
        (Clip.of("chain", np.zeros((1, 400, 3)), chain, fps=1.0), "too many joints"),
        (Clip.of("flat", clip.points[..., :2], clip.skeleton, fps=30.0, unit="px", frame="image"), "3-D motion"),
        (Clip.of("loose", clip.points[:, :2], Skeleton("x", ("a", "b"), (-1, -1), 0), fps=1.0), "not one tree"),
    ):
        with pytest.raises(InputError, match=words):
            write_bvh(tmp_path / "a.bvh", bad)
    assert (tmp_path / "a.bvh").read_bytes() == before
    with pytest.raises(InputError, match="no name of a BVH file"):
        write_bvh(tmp_path / "a.txt", clip)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bvh"]
