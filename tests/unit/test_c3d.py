"""C3D: numbers of three kinds of machines, persons, gaps, cut files, and ezc3d's files where it is installed."""

from __future__ import annotations

import pathlib
import struct

import numpy as np
import pytest

from pipelines.data.datasets.pose_mocap import open_mocap
from pipelines.data.errors import InputError
from pipelines.data.formats.c3d import parse_c3d, read_c3d

INTEL, DEC, MIPS = 84, 85, 86
LABELS = ["Ann:LHIP", "Ann:RHIP", "Bob:LHIP"]


def real(number: float, kind: int) -> bytes:
    """A float32 of a machine; that of DEC is built from its sign, exponent and fraction."""
    if kind != DEC:
        return struct.pack(">f" if kind == MIPS else "<f", number)
    if number == 0:
        return b"\0\0\0\0"
    fraction, exponent = np.frexp(abs(number))
    bits = int(number < 0) << 31 | int(exponent + 128) << 23 | (int(fraction * 2**24) & 0x7FFFFF)
    return struct.pack("<HH", bits >> 16, bits & 0xFFFF)


def parameter(group: int, name: str, kind: int, size: int, dims: list[int], raw: bytes) -> bytes:
    order = ">" if kind == MIPS else "<"
    body = struct.pack("bB", size, len(dims)) + bytes(dims) + raw + b"\0"
    head = struct.pack("bb", len(name), group) + name.encode()
    return head + struct.pack(f"{order}h", 2 + len(body)) + body


def build(
    points: np.ndarray,
    residual: np.ndarray,
    *,
    kind: int = INTEL,
    scale: float = -1.0,
    analog: int = 0,
    trial: int | None = None,
    units: str = "mm",
    labels: list[str] = LABELS,
) -> bytes:
    """A C3D file of points (T, N, 3), written from the format's description."""
    frames, count, _ = points.shape
    order = ">" if kind == MIPS else "<"
    width = max(map(len, labels))
    text = "".join(label.ljust(width) for label in labels).encode()
    group = struct.pack("bb", 5, -1) + b"POINT" + struct.pack(f"{order}h", 3) + b"\0"
    parameters = bytes([1, 80, 1, kind]) + group
    parameters += parameter(1, "LABELS", kind, -1, [width, len(labels)], text)
    parameters += parameter(1, "UNITS", kind, -1, [len(units)], units.encode())
    for name, size, raw in (
        ("USED", 2, struct.pack(f"{order}H", count)),
        ("FRAMES", 2, struct.pack(f"{order}H", frames)),
        ("DATA_START", 2, struct.pack(f"{order}H", 3)),
        ("SCALE", 4, real(scale, kind)),
        ("RATE", 4, real(100.0, kind)),
    ):
        parameters += parameter(1, name, kind, size, [], raw)
    if trial is not None:
        parameters += struct.pack("bb", 5, -2) + b"TRIAL" + struct.pack(f"{order}h", 3) + b"\0"
        for name, value in (("ACTUAL_START_FIELD", 1), ("ACTUAL_END_FIELD", trial)):
            words = struct.pack(f"{order}HH", value & 0xFFFF, value >> 16)
            parameters += parameter(2, name, kind, 2, [2], words)
    parameters += b"\0\0"
    last = frames if trial is None else 7
    head = bytes([2, 80]) + struct.pack(f"{order}5H", count, analog, 1, last, 0) + real(scale, kind)
    head += struct.pack(f"{order}HH", 3, 1) + real(100.0, kind)
    rows = b""
    for frame in range(frames):
        for point in range(count):
            numbers = [*points[frame, point], residual[frame, point]]
            if scale < 0:
                rows += b"".join(real(float(number), kind) for number in numbers)
            else:
                whole = [round(float(number) / scale) for number in numbers[:3]] + [int(numbers[3])]
                rows += struct.pack(f"{order}4h", *whole)
        rows += (real(9.0, kind) if scale < 0 else struct.pack(f"{order}h", 9)) * analog
    return head.ljust(512, b"\0") + parameters.ljust(512, b"\0") + rows


def body(frames: int = 5, points: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return random.uniform(-900, 900, (frames, points, 3)).astype(np.float32), np.zeros((frames, points))


@pytest.mark.parametrize("kind", [INTEL, DEC, MIPS])
@pytest.mark.parametrize("scale", [-1.0, 0.05])
@pytest.mark.parametrize("analog", [0, 4])
def test_numbers_of_all_machines(kind: int, scale: float, analog: int) -> None:
    points, residual = body()
    residual[2, 1] = -1
    content = build(points, residual, kind=kind, scale=scale, analog=analog)
    file = parse_c3d(content, "a.c3d")
    assert file.labels == tuple(LABELS)
    assert (file.rate, file.unit) == (100.0, "mm")
    assert np.argwhere(~file.valid).tolist() == [[2, 1]]
    expected = np.where(file.valid[..., None], points, 0)
    np.testing.assert_allclose(file.points, expected, atol=1e-4 if scale < 0 else scale / 2 + 1e-4)


def test_persons_by_the_subject_of_their_labels() -> None:
    points, residual = body()
    points[3, 2] = 0
    points[4, 0] = np.nan
    clips = read_c3d(build(points, residual), name="two.c3d")
    assert [(clip.subject, clip.person, clip.skeleton.joints) for clip in clips] == [
        ("Ann", 0, ("LHIP", "RHIP")),
        ("Bob", 1, ("LHIP",)),
    ]
    assert clips[0].skeleton.mirror == (1, 0)
    np.testing.assert_allclose(clips[0].points[:4], points[:4, :2] / 1000, atol=1e-6)
    assert np.argwhere(~clips[0].valid).tolist() == [[4, 0]]
    assert np.argwhere(~clips[1].valid).tolist() == [[3, 0]]
    assert any("1 points at exactly 0, 0, 0" in note for note in clips[0].notes)


def test_units_and_the_upward_axis() -> None:
    points, residual = body()
    one = [points[:, [0]] for _ in range(2)]
    assert one[0].shape == (5, 1, 3)
    metres = read_c3d(build(points, residual, units="in"), units="cm")[0]
    np.testing.assert_allclose(metres.points, points[:, :2] / 100, atol=1e-5)
    turned = read_c3d(build(points, residual), up="y")[0]
    np.testing.assert_allclose(turned.points, points[:, :2][..., [0, 2, 1]] / 1000 * [1, -1, 1], atol=1e-6)
    with pytest.raises(InputError, match="unit of length cannot be told"):
        read_c3d(build(points * 1000, residual, units="furlong"))
    with pytest.raises(InputError, match="no such unit"):
        read_c3d(build(points, residual), units="furlong")


def test_long_recordings_count_their_frames_in_two_words() -> None:
    points, residual = body(frames=9)
    assert parse_c3d(build(points, residual, trial=9), "a").points.shape[0] == 9
    with pytest.raises(InputError, match=r"the points are cut.*9 frames.*70,000 frames"):
        parse_c3d(build(points, residual, trial=70_000), "a")


def test_a_cut_file_is_kept_only_on_request() -> None:
    points, residual = body()
    content = build(points, residual)
    with pytest.raises(
        InputError, match=r"run.c3d: the points are cut. Found: 4 frames. Expected: 5 frames of 3 points"
    ):
        read_c3d(content[:-1], name="run.c3d")
    clip = read_c3d(content[:-1], accept_truncated=True)[0]
    assert clip.frames == 4
    assert "holds 4" in clip.notes[0]
    for end in (0, 1, 100, 511, 600, 1023, 1024, 1030):
        with pytest.raises(InputError, match=r"C3D|parameters|cut"):
            read_c3d(content[:end], name="run.c3d", accept_truncated=True)


def test_labels_that_are_missing_or_stand_twice() -> None:
    points, residual = body()
    file = parse_c3d(build(points, residual, labels=["A", "A"]), "a")
    assert file.labels == ("A", "A#2", "point 3")
    assert "2 points without a label of their own were numbered" in file.notes


def test_a_mapping_makes_joints_of_markers(tmp_path: pathlib.Path) -> None:
    points, residual = body(points=3)
    (tmp_path / "a.c3d").write_bytes(build(points, residual, labels=["P:LASI", "P:RASI", "P:HEAD"]))
    with pytest.raises(InputError, match=r"joints of no known hierarchy.*LASI, RASI, HEAD.*mapping file"):
        open_mocap(tmp_path / "a.c3d")
    (tmp_path / "map.csv").write_text("joint,source\nhip,LASI\nhip,RASI\nhead,HEAD\n")
    clip = open_mocap(tmp_path / "a.c3d", mapping=tmp_path / "map.csv")[0]
    assert clip.skeleton.name == "h36m17"
    assert clip.valid.sum(1).tolist() == [2] * 5
    np.testing.assert_allclose(clip.points[:, 0], points[:, :2].mean(1) / 1000, atol=1e-6)


def test_files_of_ezc3d(tmp_path: pathlib.Path) -> None:
    ezc3d = pytest.importorskip("ezc3d")
    points, _ = body()
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["UNITS"]["value"] = ["mm"]
    file["parameters"]["POINT"]["LABELS"]["value"] = LABELS
    file["parameters"]["POINT"]["RATE"]["value"] = [100]
    there = np.ones((4, 3, 5))
    there[:3] = points.transpose(2, 1, 0)
    there[:3, 1, 2] = np.nan
    file["data"]["points"] = there
    file.write(str(tmp_path / "a.c3d"))
    ours = parse_c3d((tmp_path / "a.c3d").read_bytes(), "a")
    assert ours.labels == tuple(LABELS)
    assert np.argwhere(~ours.valid).tolist() == [[2, 1]]
    np.testing.assert_allclose(ours.points, np.where(ours.valid[..., None], points, 0), atol=1e-4)
    (tmp_path / "b.c3d").write_bytes(build(*body()))
    theirs = ezc3d.c3d(str(tmp_path / "b.c3d"))["data"]["points"][:3].transpose(2, 1, 0)
    np.testing.assert_allclose(theirs, points, atol=1e-4)
