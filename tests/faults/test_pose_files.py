"""Bad files of joints: one message each, with the place and the cure; damaged ones never end in a traceback."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import pickle
import random
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.data.datasets.pose_open import PoseReading, open_poses
from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError
from pipelines.data.formats.pose_write import write_poses

READING = PoseReading(skeleton=None, size=(640, 480))


def body(joints: int = 17, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(100, 400, (joints, 2)).round(3)


def flat(joints: int = 17) -> list[float]:
    return np.concatenate([body(joints), np.full((joints, 1), 0.9)], axis=1).ravel().tolist()


IMAGE = {"id": 1, "width": 640, "height": 480, "file_name": "walk/1.jpg"}
MARKS = [{"x": 0.5, "y": 0.4, "visibility": 0.9}] * 33

#: Content of a JSON file, and words of the message.
CONTENTS: dict[str, tuple[Any, str]] = {
    "null": (None, "no joints of a known layout.*None"),
    "number": (3, "no joints of a known layout"),
    "no frames": ([], "no frames.*0 empty entries"),
    "empty frames": ([[], None, {}], "no frames.*3 empty entries"),
    "another object": ({"a": 1}, r"no joints of a known layout.*an object with a.*COCO.*MediaPipe"),
    "texts": ([["a", "b"]], "not numbers"),
    "ragged": ([[[1, 2], [3]]], "not numbers.*different lengths"),
    "huge number": ([[[1e400, 10**400]]], "not numbers|no joint"),
    "booleans": ([[[True, False]]], "not numbers"),
    "images that are none": ({"images": 3, "annotations": []}, "not of a layout that is read"),
    "no images": ({"images": [], "annotations": []}, "no images"),
    "nobody": ({"images": [IMAGE], "annotations": []}, "no person.*1 frames without any"),
    "unknown image": ({"images": [IMAGE], "annotations": [{"image_id": 9, "keypoints": flat()}]}, "not listed.*9"),
    "two ids": ({"images": [IMAGE, IMAGE], "annotations": []}, "two images of one id"),
    "two sizes": (
        {"images": [IMAGE, {**IMAGE, "id": 2, "width": 320, "file_name": "walk/2.jpg"}], "annotations": []},
        "frames of different sizes.*320 x 480 and 640 x 480",
    ),
    "no triples": ({"images": [IMAGE], "annotations": [{"image_id": 1, "keypoints": [1, 2, 2, 4]}]}, "not x, y, v"),
    "16 joints": ([{"image_id": 1, "keypoints": flat(16)}], r"no skeleton has so many.*16 joints"),
    "different joints": (
        [{"image_id": 1, "keypoints": flat(17)}, {"image_id": 2, "keypoints": flat(18)}],
        "persons with different joints.*17 joints of 2.*18 of 2",
    ),
    "no number": ([{"image_id": "first", "keypoints": flat()}], "no number of a frame.*first"),
    "crowd": ([{"image_id": 1, "keypoints": flat()}] * 501, "too many persons in a frame.*501"),
    "far frames": ([{"image_id": one, "keypoints": flat()} for one in (1, 10**15)], "more gaps than frames"),
    "people that are none": ({"people": "two"}, "no frame of OpenPose"),
    "a person that is none": ({"people": [3]}, "not of a layout that is read"),
    "15 joints": ({"people": [{"pose_keypoints_2d": flat(15)}]}, "other joints.*15 joints.*25 or 18"),
    "cut person": ({"people": [{"pose_keypoints_2d": flat(25)[:-1]}]}, "not x, y and confidence.*74"),
    "frames that fall": (
        {"instance_info": [{"frame_id": one, "instances": []} for one in (2, 1)]}, "do not rise.*frame_id 1",
    ),
    "scores": (
        {"instance_info": [{"frame_id": 0, "instances": [{"keypoints": body().tolist(), "keypoint_scores": [1]}]}]},
        "not a score for each joint",
    ),
    "names": (
        {"meta_info": {"keypoint_id2name": {"0": "nose"}},
         "instance_info": [{"frame_id": 0, "instances": [{"keypoints": body().tolist()}]}]},
        "not a name for each joint.*1.*17",
    ),
    "no landmarks": ({"frames": [{"hands": []}]}, "no landmarks.*hands"),
    "21 landmarks": ({"frames": [{"landmarks": MARKS[:21]}]}, r"no skeleton has so many.*21 joints"),
    "no x": ({"frames": [{"landmarks": [{"y": 0.1}] * 33}]}, "not of a layout that is read.*'x'"),
    "no tracks": ({"tracks": []}, "no person"),
    "valid": ({"points": body()[None].tolist(), "valid": [[1]]}, "valid does not fit"),
    "unit": ({"points": body()[None].tolist(), "unit": "inch", "skeleton": "coco17"}, "no such unit.*inch.*px"),
    "parents": (
        {"points": body(2)[None].tolist(), "joints": ["a", "b"], "parents": [1, 0], "unit": "px"},
        "no such joint",
    ),
    "fps": ({"points": body()[None].tolist(), "fps": -3, "skeleton": "coco17"}, "no frame rate.*-3"),
    "size": ({"points": body()[None].tolist(), "size": [640], "skeleton": "coco17"}, "no size of an image"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENTS)
def test_one_message_for_json(tmp_path: pathlib.Path, case: str) -> None:
    content, words = CONTENTS[case]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"(?s){words}") as caught:
        open_poses(tmp_path / "a.json", READING)
    assert str(caught.value).startswith(("a", "walk"))
    assert "Expected:" in str(caught.value) or "Cure:" in str(caught.value) or case == "parents"


TABLES: dict[str, tuple[str, str]] = {
    "empty": ("", "no columns of joints|no rows"),
    "head alone": ("frame,joint,x,y\n", "no rows"),
    "no columns": ("a,b\n1,2\n", "no columns of joints.*a, b.*NAME_x"),
    "no frames": ("joint,x,y\nnose,1,2\n", "no column of frames"),
    "a text": ("frame,joint,x,y\n0,nose,1,left\n", r"line 2, y: not a number.*'left'"),
    "half a frame": ("frame,joint,x,y\n0.5,nose,1,2\n", "line 2: no number of a frame.*'0.5'"),
    "twice": ("frame,joint,x,y\n0,nose,1,2\n0,nose,1,2\n", "line 3: a joint twice.*nose in frame 0"),
    "cells": ("frame,joint,x,y\n0,nose,1\n", "line 2: another number of cells.*3.*4"),
    "two columns": ("frame,frame_id,joint,x,y\n", "two columns for frame"),
    "z of one": ("a_x,a_y,a_z,b_x,b_y\n1,2,3,4,5\n", "joints without a column z.*b"),
    "numbers of joints": ("frame,joint,x,y\n0,0,1,2\n0,7,1,2\n", "numbers of joints with gaps"),
    "unknown joints": ("frame,joint,x,y\n0,tail,100,200\n", "joints of no known skeleton.*1 joints: tail.*mapping"),
    "bytes": ("frame,joint\0,x,y\n", "not a text table.*control character"),
    "far frames": ("frame,joint,x,y\n0,a,1,2\n99999999999,a,1,2\n", "more gaps than frames"),
}


@pytest.mark.parametrize("case", TABLES)
def test_one_message_for_tables(tmp_path: pathlib.Path, case: str) -> None:
    content, words = TABLES[case]
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=f"(?s){words}"):
        open_poses(tmp_path / "a.csv", READING)


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_arrays_that_promise_what_they_do_not_hold(tmp_path: pathlib.Path) -> None:
    absurd = header((1 << 40, 17, 2))
    (tmp_path / "a.npy").write_bytes(absurd)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("walk.npy", absurd)
    tracemalloc.start()
    try:
        for name in ("a.npy", "a.npz"):
            with pytest.raises(InputError, match=r"an array that is cut.*1099511627776, 17, 2"):
                open_poses(tmp_path / name, READING)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


class Bomb:
    """Would write a file when it is unpickled."""

    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (pathlib.Path.touch, (self.mark,))


def test_pickles_are_never_opened(tmp_path: pathlib.Path) -> None:
    mark = tmp_path / "mark"
    np.savez(tmp_path / "a.npz", positions_2d=np.array([Bomb(mark)], object))
    np.save(tmp_path / "a.npy", np.array([Bomb(mark)], object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb(mark)))
    for name, words in (("a.npz", "pickled"), ("a.npy", "pickled"), ("b.npy", "not a readable NPY")):
        with pytest.raises(InputError, match=words):
            open_poses(tmp_path / name, READING)
    assert not mark.exists()
    with pytest.raises(InputError, match=r"positions_2d.*as plain arrays.*pose_h36m"):
        open_poses(tmp_path / "a.npz", READING)


def test_paths_and_options(tmp_path: pathlib.Path) -> None:
    for name in ("a.json", "a.npz", "a.npy", "a.csv", "a.bvh", "a.xyz", "none"):
        with pytest.raises(InputError, match=r"no such file"):
            open_poses(tmp_path / name)
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(InputError, match=r"no file of joints by its ending.*\.xyz.*\.json, \.npz"):
        open_poses(tmp_path / "a.xyz")
    (tmp_path / "a.json").write_text(" ")
    with pytest.raises(InputError, match="the file is empty"):
        open_poses(tmp_path / "a.json")
    for source, words in (
        (None, "nothing that is read"),
        ([], "nothing|not the joints"),
        ("", "nothing that is read.*empty path"),
    ):
        with pytest.raises(InputError, match=words):
            open_poses(source)
    for wrong in ({"fps": 0}, {"fps": float("nan")}, {"size": (0, 5)}, {"unit": "inch"}, {"up": "x"}, {"score": 1.0}):
        with pytest.raises(InputError, match="no such"):
            PoseReading(**wrong)  # type: ignore[arg-type]


def test_deep_and_long_json_ends_soon(tmp_path: pathlib.Path) -> None:
    start = time.perf_counter()
    for content in ("[" * 200_000, "[" * 900 + "]" * 900, '{"a":' * 100_000, "[" + "9" * 100_000 + "]"):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(InputError):
            open_poses(tmp_path / "a.json", READING)
    assert time.perf_counter() - start < 5


# Fuzz: 100 each; every outcome is a message of ours or clips whose shapes fit.


def coco_file() -> bytes:
    images = [{**IMAGE, "id": t, "file_name": f"walk/{t}.jpg"} for t in range(3)]
    bodies = [{"id": t, "image_id": t, "category_id": 1, "track_id": 1, "keypoints": flat()} for t in range(3)]
    kinds = [{"id": 1, "name": "person", "keypoints": list(skeleton("coco17").joints)}]
    return json.dumps({"images": images, "annotations": bodies, "categories": kinds}).encode()


def openpose_file() -> bytes:
    person = {"person_id": [-1], "pose_keypoints_2d": flat(25), "face_keypoints_2d": []}
    return json.dumps({"version": 1.3, "people": [person, person]}).encode()


def mmpose_file() -> bytes:
    instance = {"keypoints": body().tolist(), "keypoint_scores": [0.9] * 17, "bbox": [[1, 2, 3, 4]]}
    names = {str(place): name for place, name in enumerate(skeleton("coco17").joints)}
    frames = [{"frame_id": t, "instances": [instance]} for t in range(3)]
    return json.dumps({"meta_info": {"keypoint_id2name": names}, "instance_info": frames}).encode()


def mediapipe_file() -> bytes:
    return json.dumps({"fps": 30, "frames": [{"frame": t, "landmarks": MARKS} for t in range(3)]}).encode()


def own_file(ending: str) -> Callable[[], bytes]:
    def write() -> bytes:
        import tempfile

        clips = [
            Clip.of("walk", np.stack([body(seed=t) for t in range(3)]), skeleton("coco17"), fps=25, unit="px",
                    frame="image", person=person)
            for person in (0, 1)
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            write_poses(pathlib.Path(folder, f"a.{ending}"), clips)
            return pathlib.Path(folder, f"a.{ending}").read_bytes()

    return write


def array_file() -> bytes:
    file = io.BytesIO()
    np.save(file, np.stack([body(25, t) for t in range(3)]))
    return file.getvalue()


def wide_file() -> bytes:
    names = skeleton("coco17").joints
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(["frame", *(f"{name}_{axis}" for name in names for axis in "xy")])
    table.writerows([t, *body(seed=t).ravel().tolist()] for t in range(3))
    return file.getvalue().encode()


FILES: dict[str, Callable[[], bytes]] = {
    "coco.json": coco_file,
    "openpose.json": openpose_file,
    "mmpose.json": mmpose_file,
    "mediapipe.json": mediapipe_file,
    "own.json": own_file("json"),
    "own.npz": own_file("npz"),
    "own.csv": own_file("csv"),
    "wide.csv": wide_file,
    "array.npy": array_file,
}


def cut(rng: random.Random, content: bytearray) -> None:
    del content[rng.randrange(len(content)) :]


def flip(rng: random.Random, content: bytearray) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def head(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.randrange(1, 6)):
        content[rng.randrange(min(300, len(content)))] = rng.randrange(256)


@pytest.mark.parametrize("damage", [cut, flip, head], ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", FILES)
def test_damaged_files_end_in_messages(
    tmp_path: pathlib.Path, name: str, damage: Callable[[random.Random, bytearray], None]
) -> None:
    content, rng, refused = FILES[name](), random.Random(7), 0
    path = tmp_path / name
    path.write_bytes(content)
    assert open_poses(path, READING), "whole files are read"
    for _ in range(100):
        damaged = bytearray(content)
        damage(rng, damaged)
        path.write_bytes(damaged)
        start = time.perf_counter()
        try:
            clips = open_poses(path, READING)
        except InputError:
            refused += 1
        else:
            assert all(np.isfinite(clip.points).all() and clip.valid.any() for clip in clips)
        assert time.perf_counter() - start < 5
    assert refused == 100 or damage is not cut or name.endswith(".csv")
    assert refused > 0


def mutated(rng: random.Random, value: Any) -> Any:
    """The content of a JSON file with one value, somewhere, of another kind."""
    strange: list[Any] = [None, True, -1, 1e308, "", "x", [], {}, [[]], {"x": 1}, 10**30, float("nan"), [1, "a"]]
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [mutated(rng, one) if number == place else one for number, one in enumerate(value)]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        return {name: mutated(rng, one) if name == key else one for name, one in value.items()}
    return rng.choice(strange)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_values_of_other_kinds_end_in_messages(tmp_path: pathlib.Path, name: str) -> None:
    content, rng, refused = json.loads(FILES[name]()), random.Random(3), 0
    for _ in range(200):
        (tmp_path / name).write_text(json.dumps(mutated(rng, content)))
        try:
            open_poses(tmp_path / name, READING)
        except InputError:
            refused += 1
    assert 20 < refused < 200
