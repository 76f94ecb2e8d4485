"""Joints of every format into every other one: numbers stay, what is lost is said, what cannot be is refused."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from pipelines import PoseLifter
from pipelines.data.datasets.pose_deepmimic import motion_clips
from pipelines.data.datasets.pose_open import open_poses
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.formats.bvh import read_bvh
from pipelines.data.formats.bvh_write import write_bvh
from pipelines.data.formats.pose_write import write_poses
from pipelines.errors import ConfigError, InputError
from pipelines.pose.converting import Converted
from pipelines.pose.plots import strip_figure


@pytest.fixture(scope="module")
def walk() -> Clip:
    clip = next(one for one in motion_clips() if one.action == "walk")
    return clip.but(points=clip.points[:20], valid=clip.valid[:20], notes=())


def flat(name: str = "coco17", person: int = 0) -> Clip:
    generator = np.random.default_rng(person)
    tree = skeleton(name)
    valid = np.ones((6, len(tree)), bool)
    valid[2, 5] = False
    points = np.where(valid[..., None], generator.uniform(100, 400, (6, len(tree), 2)), 0.0)
    return Clip("video", points.astype(np.float32), valid, tree, 25.0, "px", "image", size=(640, 480), person=person)


# Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [".npz", ".json", ".csv"])
@pytest.mark.parametrize("target", [".npz", ".json", ".csv"])
def test_flat_joints_of_several_persons_stay_as_they_are(tmp_path: pathlib.Path, source: str, target: str) -> None:
    given = [flat(person=0), flat(person=3)]
    write_poses(tmp_path / f"a{source}", given)
    made = PoseLifter().convert(str(tmp_path / f"a{source}"))
    made.save(tmp_path / f"b{target}")
    again = open_poses(tmp_path / f"b{target}")
    assert [clip.person for clip in again] == [0, 3]
    for one, two in zip(given, again, strict=True):
        assert np.allclose(one.points, two.points, rtol=1e-6)
        assert np.array_equal(one.valid, two.valid)
        assert (two.skeleton.name, two.fps, two.unit, two.frame, two.size) == ("coco17", 25, "px", "image", (640, 480))


@pytest.mark.parametrize("target", [".npz", ".json", ".csv", ".bvh"])
def test_motion_goes_through_every_format(tmp_path: pathlib.Path, walk: Clip, target: str) -> None:
    write_bvh(tmp_path / "walk.bvh", walk)
    there = read_bvh(tmp_path / "walk.bvh", units="cm")[0]
    made = PoseLifter().convert(tmp_path / "walk.bvh")
    assert made.save(tmp_path / f"b{target}") == tmp_path / f"b{target}"
    again = open_poses(tmp_path / f"b{target}")[0]
    assert (again.dims, again.unit, again.frame, again.frames) == (3, "m", "world", 20)
    assert again.fps == pytest.approx(walk.fps, rel=1e-4)
    place = [there.skeleton.index(joint) for joint in again.skeleton.joints]
    assert np.abs(again.points - there.points[:, place]).max() < 1e-3
    assert any("y up turned to z up" in note for note in made.notes)


def test_a_hierarchy_is_kept_where_no_skeleton_is_asked_for(tmp_path: pathlib.Path, walk: Clip) -> None:
    tree = skeleton("deepmimic15")
    points = np.random.default_rng(0).normal((0, 0, 1), 0.3, (4, 15, 3))
    write_bvh(tmp_path / "odd.bvh", Clip.of("odd", points, tree, fps=30))
    made = PoseLifter(read={"unit": "cm"}).convert(tmp_path / "odd.bvh")  # type: ignore[arg-type]
    assert sorted(made.clips[0].skeleton.joints) == sorted(tree.joints)
    with pytest.raises(InputError, match="mapping"):
        PoseLifter(read={"unit": "cm"}).convert(tmp_path / "odd.bvh", to="h36m17")  # type: ignore[arg-type]


# Skeletons ------------------------------------------------------------------------------------------------------------


def test_another_skeleton_and_what_becomes_of_the_joints(tmp_path: pathlib.Path) -> None:
    clip = flat("body25")
    made = PoseLifter().convert(clip, to="COCO-17")
    found = made.clips[0]
    for name in found.skeleton.joints:
        one, two = clip.skeleton.index(name), found.skeleton.index(name)
        assert np.array_equal(clip.points[:, one], found.points[:, two])
        assert np.array_equal(clip.valid[:, one], found.valid[:, two])
    assert any("left out: neck, mid_hip" in note for note in made.notes)
    house = PoseLifter().convert(flat("coco17"), to="h36m17")
    assert any("exact for distant cameras only" in note for note in house.notes)
    hips = flat("coco17").points[:, [11, 12]].mean(1)
    assert np.allclose(house.clips[0].points[:, 0], hips)
    assert any("missing" in note for note in house.notes)
    same = PoseLifter().convert(clip, to="body25")
    assert same.clips[0] is clip


def test_what_no_table_leads_to_is_refused(walk: Clip, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no way to smpl24.*body25"):
        PoseLifter().convert(walk, to="smpl24")
    with pytest.raises(InputError, match=r"no such skeleton.*coco17 \(17 joints\)"):
        PoseLifter().convert(walk, to="coco99")
    with pytest.raises(ConfigError, match=r"form: there is no such kind of file.*npz, json, csv, bvh"):
        PoseLifter().convert(walk, form="c3d")  # type: ignore[arg-type]


# Files and folders ----------------------------------------------------------------------------------------------------


def test_several_inputs_into_a_folder(tmp_path: pathlib.Path, walk: Clip) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write_poses(tmp_path / name / "a.json", [flat(person=0), flat(person=1)])
    write_poses(tmp_path / "walk.npz", [walk])
    inputs = [str(tmp_path / name) for name in ("x/a.json", "y/a.json", "walk.npz")]
    made = PoseLifter().convert(inputs, form="csv")
    assert made.save(tmp_path / "out") == tmp_path / "out"
    names = ["2-a.csv", "a.csv", "walk.csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert [len(open_poses(tmp_path / "out" / name)) for name in names] == [2, 2, 1]
    for ending in ("csv", "npz"):
        with pytest.raises(InputError, match=r"joints of several kinds for one file.*2-D in px, 3-D in m"):
            made.save(tmp_path / f"all.{ending}")
        assert not (tmp_path / f"all.{ending}").exists()
    made = PoseLifter().convert(inputs[:2])
    made.save(tmp_path / "all.csv")
    assert [clip.name for clip in open_poses(tmp_path / "all.csv")] == ["video", "video", "video (2)", "video (2)"]
    assert any("a further clip called video is called video (2)" in note for note in made.notes)


def test_a_folder_of_motion_capture_is_read_file_by_file(tmp_path: pathlib.Path, walk: Clip) -> None:
    (tmp_path / "in" / "b").mkdir(parents=True)
    write_bvh(tmp_path / "in" / "one.bvh", walk)
    write_bvh(tmp_path / "in" / "b" / "two.bvh", walk)
    (tmp_path / "in" / "bad.bvh").write_text("HIERARCHY\nROOT")
    made = PoseLifter().convert(tmp_path / "in", to="h36m17", form="bvh")
    assert set(made.failures) == {"bad"}
    made.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b-two.bvh", "one.bvh"]
    (tmp_path / "videos").mkdir()
    write_poses(tmp_path / "videos" / "c.json", [flat(person=0), flat(person=1)])
    found = PoseLifter().convert(tmp_path / "videos")
    assert {name: len(clips) for name, clips in found.groups.items()} == {"video": 2}
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file of joints in the folder"):
        PoseLifter().convert(tmp_path / "empty")


def test_a_format_that_cannot_hold_it_writes_nothing(tmp_path: pathlib.Path, walk: Clip) -> None:
    for clip, words in (
        (flat(), "BVH holds 3-D motion"),
        (walk.but(fps=None), "BVH needs the frame rate.*--read.fps"),
        (walk.but(valid=np.where(np.arange(17) == 10, False, walk.valid)), "missing in every frame.*head"),
    ):
        with pytest.raises(InputError, match=words):
            PoseLifter().convert([walk, clip]).save(tmp_path / "a.bvh")
    with pytest.raises(ConfigError, match=r"cannot write this kind of file.*\.fbx"):
        PoseLifter().convert(walk).save(tmp_path / "a.fbx")
    assert list(tmp_path.iterdir()) == []
    PoseLifter().convert([walk, walk.but(person=1)]).save(tmp_path / "b.bvh")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_read_is_named_and_does_not_stop_the_rest(tmp_path: pathlib.Path) -> None:
    write_poses(tmp_path / "a.json", [flat()])
    (tmp_path / "b.json").write_text("{}")
    made = PoseLifter().convert([str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert list(made.groups) == ["a"]
    assert "b.json" in made.failures["b"]
    assert any(note.startswith("left out: b.json") for note in made.notes)
    with pytest.raises(InputError, match=r"b\.json"):
        PoseLifter().convert(tmp_path / "b.json")
    with pytest.raises(InputError, match="no such file"):
        PoseLifter().convert(tmp_path / "gone.json")


def test_damaged_files_end_in_one_message(tmp_path: pathlib.Path, walk: Clip) -> None:
    write_bvh(tmp_path / "walk.bvh", walk.but(points=walk.points[:4], valid=walk.valid[:4]))
    write_poses(tmp_path / "video.npz", [flat()])
    generator = np.random.default_rng(7)
    for name in ("walk.bvh", "video.npz"):
        whole = (tmp_path / name).read_bytes()
        path = tmp_path / f"bad{pathlib.Path(name).suffix}"
        for _ in range(50):
            harmed = bytearray(whole[: int(generator.integers(1, len(whole)))])
            for place in generator.integers(0, len(harmed), 3):
                harmed[place] = int(generator.integers(0, 256))
            path.write_bytes(harmed)
            with contextlib.suppress(InputError):  # nothing else may come
                PoseLifter().convert(path, to="coco17").to_dict()


# The answer -----------------------------------------------------------------------------------------------------------


def test_what_the_answer_tells(tmp_path: pathlib.Path, walk: Clip) -> None:
    made = PoseLifter().convert([walk, flat()])
    assert isinstance(made, Converted)
    told = made.to_dict()
    assert json.loads(json.dumps(told))["frames"] == 26
    assert [clip["dims"] for clip in told["clips"]] == [3, 2]
    assert told["clips"][1]["missing_joints"] == 1
    assert "17 joints of coco17, 1 of 102 missing, 2-D in px, image axes" in str(made)
    made.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
    assert len(made.plot().axes) == len(strip_figure_axes(walk))
    PoseLifter().convert(flat()).plot(tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 5000


def strip_figure_axes(clip: Clip) -> list[object]:
    from pipelines.pose.tracks import Track

    return list(strip_figure(Track("a", clip.points, clip.valid, clip.skeleton, clip.fps, "world")).axes)


def test_no_torch_is_loaded(tmp_path: pathlib.Path) -> None:
    write_poses(tmp_path / "a.json", [flat()])
    code = (
        "import sys; from pipelines.cli import main; "
        f"code = main(['pose', 'convert', {str(tmp_path / 'a.json')!r}, '--to', 'h36m17', '--quiet', '-o', 'b.csv']); "
        "assert code == 0 and 'torch' not in sys.modules, [code, 'torch' in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.csv").is_file()
