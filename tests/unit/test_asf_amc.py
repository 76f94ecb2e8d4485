"""ASF and AMC: forward kinematics against SciPy, and the legs of CMU motions against their BVH files."""

from __future__ import annotations

import io
import os
import pathlib
import tarfile

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipelines.data.datasets.pose_mocap import open_mocap
from pipelines.data.errors import InputError
from pipelines.data.formats.asf_amc import read_amc, read_asf
from pipelines.data.formats.bvh import read_bvh
from pipelines.data.formats.bvh_text import parse_bvh

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA") or ROOT.parent / "shared" / "data")

ASF = """# made for a test
:version 1.10
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
  two bones
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 1 2 3
   orientation 10 20 30
:bonedata
  begin
     id 1
     name thigh
     direction 0 -3 0
     length 15
     axis 40 50 60 XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
     id 2
     name shin
     direction 1 -1 0
     length 8
     axis -20 15 75 ZXY
    dof rz rx
  end
:hierarchy
  begin
    root thigh
    thigh shin
  end
"""
AMC = """:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 11 22 33
thigh 12 23 34
shin 45 56
2
root 0 0 0 0 0 0
shin 0 0
thigh 0 0 0
"""


def files(folder: pathlib.Path, asf: str = ASF, amc: str = AMC) -> pathlib.Path:
    (folder / "05.asf").write_text(asf)
    (folder / "05_01.amc").write_text(amc)
    return folder / "05_01.amc"


def test_forward_kinematics_is_that_of_scipy(tmp_path: pathlib.Path) -> None:
    clip = read_amc(files(tmp_path), up="z", units=1.0, fps=120)[0]
    fixed = Rotation.from_euler  # lower case: about fixed axes, the first one first
    axes = [fixed("xyz", [10, 20, 30], degrees=True), fixed("xyz", [40, 50, 60], degrees=True)]
    axes.append(fixed("zxy", [-20, 15, 75], degrees=True))
    own = [fixed("xyz", [11, 22, 33], degrees=True), fixed("xyz", [12, 23, 34], degrees=True)]
    own.append(fixed("zx", [45, 56], degrees=True))
    turn, place = Rotation.identity(), np.array([2.0, 4.0, 6.0])
    expected = [place]
    for number, reach in ((0, None), (1, [0, -15, 0]), (2, np.array([1, -1, 0]) * 8 / np.sqrt(2))):
        turn = turn * axes[number] * own[number] * axes[number].inv()
        if reach is not None:
            place = place + turn.apply(reach)
            expected.append(place)
    assert clip.skeleton.joints == ("root", "thigh", "shin")
    assert clip.fps == 120
    np.testing.assert_allclose(clip.points[0], expected, atol=1e-5)
    straight = [[1, 2, 3], [1, -13, 3], [1 + 8 / np.sqrt(2), -13 - 8 / np.sqrt(2), 3]]
    np.testing.assert_allclose(clip.points[1], straight, atol=1e-5)


def test_units_of_the_file_rate_and_radians(tmp_path: pathlib.Path) -> None:
    clip = read_amc(files(tmp_path))[0]
    assert clip.fps is None
    assert any("no frame rate" in note for note in clip.notes)
    scale = 0.0254 / 0.45
    assert f"({scale:.6g} m), as the file says" in clip.notes[0]
    np.testing.assert_allclose(clip.points[1, 0], np.array([1, -3, 2]) * scale, atol=1e-6)
    words = [["root", "1", "2", "3", "11", "22", "33"], ["thigh", "12", "23", "34"], ["shin", "45", "56"]]
    rows = [" ".join([w[0], *w[1 : len(w) - 3 if w[0] != "shin" else 1]]) for w in words]
    angles = [[repr(float(np.deg2rad(float(a)))) for a in w[-3 if w[0] != "shin" else -2 :]] for w in words]
    text = ":RADIANS\n1\n" + "\n".join(f"{row} {' '.join(angle)}" for row, angle in zip(rows, angles, strict=True))
    again = read_amc(files(tmp_path, amc=text))[0]
    np.testing.assert_allclose(again.points[0], clip.points[0], atol=1e-6)


def test_the_skeleton_is_found_by_name(tmp_path: pathlib.Path) -> None:
    motion = files(tmp_path)
    (tmp_path / "06.asf").write_text("not this one")
    assert read_amc(motion)[0].frames == 2
    (tmp_path / "05.asf").rename(tmp_path / "07.asf")
    with pytest.raises(InputError, match=r"which skeleton.*06\.asf, 07\.asf"):
        read_amc(motion)
    assert read_amc(motion, tmp_path / "07.asf")[0].frames == 2
    with pytest.raises(InputError, match="no known hierarchy"):
        open_mocap(motion, asf=tmp_path / "07.asf")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (":hierarchy", ":hierarchies", "not an ASF skeleton"),
        ("thigh shin", "thigh foot", "a bone that is not described.*foot"),
        ("    thigh shin\n", "", "bones outside of the hierarchy.*shin"),
        ("name shin", "name thigh", "no name of a bone"),
        ("length 8", "length eight", "not a number"),
        ("dof rz rx", "dof rz rz", "a freedom that cannot be.*shin"),
        ("dof rz rx", "dof rz rq", "a freedom that cannot be"),
        ("ZXY", "ZZY", "no order of axes"),
        ("  end\n:hierarchy", ":hierarchy", "the skeleton is cut"),
        ("length 0.45", "length 0", "no unit of length"),
    ],
)
def test_bad_skeletons_get_one_message(tmp_path: pathlib.Path, old: str, new: str, words: str) -> None:
    assert old in ASF
    with pytest.raises(InputError, match=words) as caught:
        read_amc(files(tmp_path, ASF.replace(old, new, 1)))
    assert str(caught.value).startswith("05.asf")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("1\nroot 1", "root 1", "no motion"),
        ("shin 45 56\n2", "shin 45\n2", "not a bone|cut|frames that"),
        ("shin 45 56\n", "", "frame 1 has no shin"),
        ("thigh 0 0 0\n", "thigh 0 0", "the motion is cut.*frame 2"),
        ("thigh 12", "arm 12", "not a bone of the skeleton.*'arm' in frame 1"),
        ("2\nroot", "5\nroot", "frames that do not follow"),
        ("45 56", "45 inf", "not a number of reasonable size"),
    ],
)
def test_bad_motions_get_one_message(tmp_path: pathlib.Path, old: str, new: str, words: str) -> None:
    assert old in AMC
    with pytest.raises(InputError, match=words) as caught:
        read_amc(files(tmp_path, amc=AMC.replace(old, new, 1)))
    assert str(caught.value).startswith("05_01.amc")


def test_legs_of_cmu_are_those_of_their_bvh(tmp_path: pathlib.Path) -> None:
    """Both formats hold one recording; an ASF knee turns about one axis, which only the right rule finds."""
    archive = DATA / "benchmark" / "pose3d" / "cmu_bvh_87clips.tar.xz"
    if not archive.exists():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    with tarfile.open(archive) as tar:
        member = next(one for one in tar if one.name.endswith("02/02_01.bvh"))
        content = tar.extractfile(member).read()  # type: ignore[union-attr]
    file = parse_bvh(content, "02_01.bvh")
    names = file.hierarchy.names
    columns = np.cumsum([0, *map(len, file.hierarchy.channels)])

    def angles(joint: str) -> np.ndarray:
        return file.values[1::20, columns[names.index(joint) + 1] - 3 : columns[names.index(joint) + 1]]

    bones = ":bonedata\n"
    for bone, after, tilt, free in (
        ("lhipjoint", "LeftUpLeg", 0, ""),
        ("lfemur", "LeftLeg", 20, "dof rx ry rz"),
        ("ltibia", "LeftFoot", 20, "dof rx"),
    ):
        offset = file.hierarchy.offsets[names.index(after)]
        way, length = " ".join(map(repr, map(float, offset))), float(np.linalg.norm(offset))
        bones += f"begin\nid 1\nname {bone}\ndirection {way}\nlength {length}\naxis 0 0 {tilt} XYZ\n{free}\nend\n"
    head = ASF[: ASF.index(":bonedata")].replace("1 2 3", "0 0 0").replace("10 20 30", "0 0 0")
    tail = ":hierarchy\nbegin\nroot lhipjoint\nlhipjoint lfemur\nlfemur ltibia\nend\n"
    tilt = Rotation.from_euler("z", 20, degrees=True)
    own = {
        joint: (tilt.inv() * Rotation.from_euler("ZYX", angles(joint), degrees=True) * tilt).as_euler(
            "xyz", degrees=True
        )
        for joint in ("LeftUpLeg", "LeftLeg")
    }
    assert np.abs(own["LeftLeg"][:, 1:]).max() < 0.01 < np.abs(own["LeftLeg"][:, 0]).max()
    root = Rotation.from_euler("ZYX", angles("Hips"), degrees=True).as_euler("xyz", degrees=True)
    place = file.values[1::20, :3]
    motion = io.StringIO()
    for frame in range(len(place)):
        rows = (place[frame], root[frame], own["LeftUpLeg"][frame], own["LeftLeg"][frame, :1])
        words = [" ".join(map(repr, map(float, row))) for row in rows]
        motion.write(f"{frame + 1}\nroot {words[0]} {words[1]}\nlfemur {words[2]}\nltibia {words[3]}\n")
    clip = read_amc(files(tmp_path, head + bones + tail, ":DEGREES\n" + motion.getvalue()), units="cmu")[0]
    expected = read_bvh(content, name="02_01.bvh")[0]
    for joint, bone in (("Hips", "root"), ("LeftUpLeg", "lhipjoint"), ("LeftLeg", "lfemur"), ("LeftFoot", "ltibia")):
        there = expected.points[1::20, expected.skeleton.index(joint)]
        np.testing.assert_allclose(clip.points[:, clip.skeleton.index(bone)], there, atol=2e-4)


def test_read_asf_alone(tmp_path: pathlib.Path) -> None:
    files(tmp_path)
    bones = read_asf(tmp_path / "05.asf")
    assert bones.names == ("root", "thigh", "shin")
    assert bones.parents == (-1, 0, 1)
    assert bones.freedoms == (("tx", "ty", "tz", "rx", "ry", "rz"), ("rx", "ry", "rz"), ("rz", "rx"))
    assert bones.length == 0.45
    assert not bones.radians
    np.testing.assert_allclose(np.linalg.norm(bones.offsets[1:], axis=1), [15, 8])
