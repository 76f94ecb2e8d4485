"""Damaged and hostile files of motion capture: one message each, no crash, no hang, no room made for absurd sizes."""

from __future__ import annotations

import io
import json
import pathlib
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from pipelines.data.datasets.pose_deepmimic import motion_clips, read_deepmimic
from pipelines.data.datasets.pose_h36m import read_cameras, read_h36m
from pipelines.data.datasets.pose_mocap import open_mocap, read_mapping
from pipelines.data.errors import InputError
from pipelines.data.formats.asf_amc import read_amc
from pipelines.data.formats.bvh import read_bvh
from pipelines.data.formats.bvh_write import bvh_text
from pipelines.data.formats.c3d import read_c3d

ASF = """:units length 0.45 angle deg
:root order TX TY TZ RX RY RZ axis XYZ position 0 0 0 orientation 0 0 0
:bonedata
begin id 1 name leg direction 0 -1 0 length 15 axis 0 0 20 XYZ dof rx ry rz end
begin id 2 name foot direction 0 0 1 length 3 axis 0 0 0 XYZ dof rx end
:hierarchy begin root leg leg foot end
"""
AMC = ":FULLY-SPECIFIED\n:DEGREES\n" + "".join(f"{n}\nroot 1 2 3 4 5 6\nleg 1 2 {n}\nfoot 7\n" for n in range(1, 9))
STILL = [0.5, 0, 0.85, 0, *[1.0, 0, 0, 0] * 4, 0, *[1.0, 0, 0, 0] * 2, 0, *[1.0, 0, 0, 0], 0, *[1.0, 0, 0, 0] * 2, 0]
CAMERA = {"orientation": [1, 0, 0, 0], "translation": [0, 0, 1], "focal_length": [9, 9], "center": [5, 5]}


def c3d() -> bytes:
    """Two points over six frames, floats."""
    import struct

    def named(group: int, name: str, body: bytes) -> bytes:
        return struct.pack("bb", len(name), group) + name.encode() + struct.pack("<h", 2 + len(body)) + body

    labels = struct.pack("bB2B", -1, 2, 4, 2) + b"LHIPRHIP" + b"\0"
    units = struct.pack("bB1B", -1, 1, 2) + b"mm" + b"\0"
    parameters = bytes([1, 80, 1, 84]) + named(-1, "POINT", b"\0") + named(1, "LABELS", labels)
    parameters += named(1, "UNITS", units) + b"\0\0"
    head = struct.pack("<2B5HfHHf", 2, 80, 2, 0, 1, 6, 0, -1.0, 3, 0, 50.0)
    rows = np.random.default_rng(0).normal(0, 400, (6, 2, 4)).astype("<f4")
    rows[..., 3] = 0
    return head.ljust(512, b"\0") + parameters.ljust(512, b"\0") + rows.tobytes()


def npz() -> bytes:
    held = io.BytesIO()
    np.savez(held, **{"S9/Walking 1": np.ones((4, 32, 3), np.float32), "S9/Walking 1/2": np.ones((4, 17, 2))})
    return held.getvalue()


def amc(path: pathlib.Path) -> object:
    path.with_name("a.asf").write_text(ASF)
    return read_amc(path.rename(path.with_name("a.amc")))


def asf(path: pathlib.Path) -> object:
    path.with_name("b.amc").write_text(AMC)
    return read_amc(path.with_name("b.amc"), path)


FORMATS: dict[str, tuple[Callable[[], bytes], Callable[[pathlib.Path], object]]] = {
    "bvh": (lambda: bvh_text(motion_clips()[11])[0].encode(), read_bvh),
    "bvh accepted": (lambda: bvh_text(motion_clips()[11])[0].encode(), lambda p: read_bvh(p, accept_truncated=True)),
    "asf": (ASF.encode, asf),
    "amc": (AMC.encode, amc),
    "c3d": (c3d, read_c3d),
    "c3d accepted": (c3d, lambda path: read_c3d(path, accept_truncated=True)),
    "deepmimic": (lambda: json.dumps({"Loop": "wrap", "Frames": [STILL] * 3}).encode(), read_deepmimic),
    "mapping": (lambda: json.dumps({"hip": "Hips", "head": ["Head", "Neck"]}).encode(), read_mapping),
    "mapping csv": (lambda: b"joint,source\nhip,Hips\nhead,Head\nhead,Neck\n", read_mapping),
    "h36m": (npz, read_h36m),
    "cameras": (lambda: json.dumps({"S9": [CAMERA] * 4}).encode(), read_cameras),
}


def damage(content: bytes, random: np.random.Generator, kind: int) -> bytes:
    """Cut anywhere, flip up to ten bytes anywhere, or overwrite a stretch of the first 600 bytes."""
    if kind == 0:
        return content[: int(random.integers(len(content)))]
    changed = bytearray(content)
    if kind == 1:
        for place in random.integers(len(changed), size=int(random.integers(1, 11))):
            changed[place] ^= int(random.integers(1, 256))
    else:
        start = int(random.integers(min(600, len(changed))))
        stretch = random.integers(0, 256, int(random.integers(1, 17)), np.uint8).tobytes()
        changed[start : start + len(stretch)] = stretch
    return bytes(changed)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_get_one_message(tmp_path: pathlib.Path, name: str) -> None:
    make, read = FORMATS[name]
    content, random = make(), np.random.default_rng(len(name))
    path = tmp_path / "whole"
    path.write_bytes(content)
    assert read(path)
    messages: list[str] = []
    for number in range(300):
        path = tmp_path / f"damaged-{number}"
        path.write_bytes(damage(content, random, number % 3))
        begun = time.monotonic()
        try:
            read(path)
        except InputError as error:
            messages.append(str(error))
        assert time.monotonic() - begun < 5
        for left in tmp_path.iterdir():
            left.unlink()
    assert len(messages) > 30
    assert min(map(len, messages)) > 20


def test_sizes_are_checked_before_room_is_made(tmp_path: pathlib.Path) -> None:
    content = bytearray(c3d())
    content[2:4] = b"\xff\xff"  # points
    content[6:10] = b"\x01\x00\xff\xff"  # frames
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="cut"):
            read_c3d(bytes(content))
        text = bvh_text(motion_clips()[11])[0].replace("Frames: 25", "Frames: 999999999")
        with pytest.raises(InputError, match="cut"):
            read_bvh(text.encode())
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "deep.bvh",
            b"HIERARCHY ROOT a { OFFSET 0 0 0 " + b"JOINT b { OFFSET 0 1 0 " * 5000 + b"MOTION Frames: 1",
            "many joints",
        ),
        ("deep.json", b"[" * 100_000, "not readable JSON"),
        ("deep.txt", b'{"Frames": ' + b"[" * 100_000, "not a motion of DeepMimic"),
        ("empty.bvh", b"", "not a BVH file"),
        ("zeros.bvh", bytes(5000), "not a BVH file"),
        ("zeros.c3d", bytes(5000), "not a C3D file"),
        ("image.c3d", b"\x89PNG\r\n" + bytes(5000), "not a C3D file"),
    ],
)
def test_absurd_files(tmp_path: pathlib.Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    begun = time.monotonic()
    with pytest.raises(InputError, match=words):
        read_mapping(tmp_path / name) if name.endswith(".json") else open_mocap(tmp_path / name)
    assert time.monotonic() - begun < 5


def test_folders_and_names_that_lead_nowhere(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.bvh").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_bvh(tmp_path / "a.bvh")
    with pytest.raises(InputError, match="no such file"):
        read_c3d(tmp_path / "b.c3d")
