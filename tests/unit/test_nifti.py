"""Scans are read as nibabel reads them, bit for bit, and maps come back onto the grid that they were made for."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import struct
import subprocess
import sys
from typing import Any, Literal

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Image
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats import nifti_volumes
from pipelines.data.formats.nifti import Scan, open_scan, open_volume, read_mask, sidecar, write_map

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA") or ROOT.parent / "shared" / "data")
SHAPE = (5, 6, 7, 4)
#: Voxel axes along world axes, with signs: as scanners and programs store them.
DIRECTIONS = {
    "RAS": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "LAS": [[-1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "LPS": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "PIR": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
    "SLA": [[0, -1, 0], [0, 0, 1], [1, 0, 0]],
}


def affine(directions: str = "RAS", angle: float = 0.0) -> NDArray[np.float64]:
    """An affine of 2 x 3 x 4 mm voxels; turned about the world's x axis by an angle in degrees."""
    turn = np.radians(angle)
    about = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    out = np.eye(4)
    out[:3, :3] = about @ np.array(DIRECTIONS[directions]) * [2.0, 3.0, 4.0]
    out[:3, 3] = [-12.5, 7.25, 30.0]
    return out


def numbers(dtype: str = "int16", shape: tuple[int, ...] = SHAPE, seed: int = 0) -> NDArray[Any]:
    """Numbers over the range of a type."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(scale=1e3, size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def save(path: pathlib.Path, data: NDArray[Any], where: NDArray[np.float64] | None = None, **fields: Any) -> Any:
    """A NIfTI-1 file by nibabel, with fields of the header set; returns nibabel's reading of it."""
    image = Nifti1Image(data, affine() if where is None else where)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.0
    for key, value in fields.items():
        image.header[key] = value
    nibabel.save(image, path)
    return nibabel.load(path)


def patch(path: pathlib.Path, offset: int, layout: str, *values: Any) -> None:
    """Overwrite numbers of a plain file's header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(content)


def canonical(image: Any) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """nibabel's values and affine in the closest RAS+ order."""
    turned = nibabel.as_closest_canonical(image)
    return turned.get_fdata(dtype=np.float64).astype(np.float32), turned.affine


def agree(scan: Scan, image: Any) -> None:
    """A scan has exactly nibabel's values and affine."""
    values, where = canonical(image)
    assert scan.shape == values.shape
    np.testing.assert_array_equal(scan.frames(0, scan.shape[3]), values)
    np.testing.assert_array_equal(scan.affine, where)
    for start, stop in ((0, 1), (1, 3), (scan.shape[3] - 1, scan.shape[3])):
        np.testing.assert_array_equal(scan.frames(start, stop), values[..., start:stop])


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("angle", [0.0, 20.0])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".img", ".hdr"])
def test_every_orientation_and_container(tmp_path: pathlib.Path, directions: str, angle: float, ending: str) -> None:
    where = affine(directions, angle)
    path = tmp_path / f"a{ending}"
    if ending in (".img", ".hdr"):
        nibabel.save(Nifti1Pair(numbers(), where), tmp_path / "a.img")
    else:
        save(path, numbers(), where)
    with open_scan(path, tr=2.0) as scan:
        agree(scan, nibabel.load(path))
        assert "".join(scan.stored.axcodes) == "".join(nibabel.aff2axcodes(where))
        assert scan.stored.shape == SHAPE
        assert any("oblique by up to 20.0" in note for note in scan.notes) == (angle > 0)
        assert any("permuted or flipped" in note for note in scan.notes) == (directions != "RAS")
        assert sorted(scan.zooms) == pytest.approx([2, 3, 4], abs=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("scale", [None, (0.37, -12.5)])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
def test_types_scales_orders_versions(
    tmp_path: pathlib.Path, dtype: str, scale: tuple[float, float] | None, order: Literal["<", ">"], version: int
) -> None:
    kind = Nifti1Image if version == 1 else Nifti2Image
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    image = kind(numbers(dtype), affine("LPS"), header)
    path = tmp_path / "a.nii"
    nibabel.save(image, path)
    if scale is not None:
        patch(path, 112 if version == 1 else 176, f"{order}2{'f' if version == 1 else 'd'}", *scale)
    scan = open_scan(path, tr=1.0)
    agree(scan, nibabel.load(path))
    assert scan.stored.dtype == dtype
    assert scan.frames(0, 1).dtype == np.float32


def test_64_bit_integers(tmp_path: pathlib.Path) -> None:
    data = numbers("int64") >> 20
    nibabel.save(Nifti1Image(data, affine(), dtype="int64"), tmp_path / "a.nii")
    np.testing.assert_array_equal(open_scan(tmp_path / "a.nii", tr=1).frames(0, 4), data.astype(np.float32))


def test_values_that_are_not_numbers_are_passed_on(tmp_path: pathlib.Path) -> None:
    data = numbers("float64")
    data[0, 0, 0], data[1, 0, 0] = [np.nan, np.inf, -np.inf, 1e300], 5.0
    save(tmp_path / "a.nii", data)
    found = open_scan(tmp_path / "a.nii").frames(0, 4)
    np.testing.assert_array_equal(found[0, 0, 0], np.array([np.nan, np.inf, -np.inf, np.inf], np.float32))


@pytest.mark.parametrize("name", ["embeddable/fmri/**/*.nii.gz", "benchmark/fmri/*.nii.gz"])
def test_real_scans_are_nibabels(name: str) -> None:
    files = [file for file in sorted(DATA.glob(name)) if "run0" not in str(file) or "run001" in str(file)]
    if not files:
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    for file in files:
        image = nibabel.load(file)
        if len(image.shape) == 4:
            with open_scan(file) as scan:
                agree(scan, image)
        else:
            values, where = canonical(image)
            found = open_volume(file)
            np.testing.assert_array_equal(found[0], values)
            np.testing.assert_array_equal(found[1], where)


def test_what_the_real_headers_say() -> None:
    folder = DATA / "embeddable" / "fmri"
    if not folder.is_dir():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    slices = open_scan(folder / "pymvpa2" / "bold.nii.gz")
    assert (slices.shape, slices.tr) == ((40, 20, 1, 1452), 2.5)
    assert slices.zooms == pytest.approx((3.1, 3.75, 3.75))
    assert read_mask(folder / "pymvpa2" / "mask.nii.gz", slices).sum() == 530
    oblique = open_scan(folder / "fmri1.nii.gz")
    assert (oblique.shape, oblique.tr, oblique.stored.axcodes) == ((10, 18, 10, 40), 1.35, ("L", "S", "P"))
    assert any("352 bytes after the last volume" in note for note in oblique.notes)


def test_sform_wins_over_another_qform(tmp_path: pathlib.Path) -> None:
    image = Nifti1Image(numbers(), affine("LPS"))
    image.set_qform(affine("LAS"), 1)
    image.set_sform(affine("LPS"), 1)
    nibabel.save(image, tmp_path / "a.nii")
    scan = open_scan(tmp_path / "a.nii", tr=1)
    agree(scan, nibabel.load(tmp_path / "a.nii"))
    # Five steps of 3 mm along y, once forward and once backward.
    assert any("disagree by up to 30 " in note and "sform was used" in note for note in scan.notes)


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("angle", [0.0, 33.0, 180.0])
def test_qform_alone(tmp_path: pathlib.Path, directions: str, angle: float) -> None:
    image = Nifti1Image(numbers(), affine(directions, angle))
    image.set_qform(affine(directions, angle), 1)
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "a.nii")
    scan = open_scan(tmp_path / "a.nii", tr=1)
    values, where = canonical(nibabel.load(tmp_path / "a.nii"))
    np.testing.assert_array_equal(scan.frames(0, 4), values)
    np.testing.assert_allclose(scan.affine, where, atol=1e-5)
    np.testing.assert_allclose(scan.stored.affine, affine(directions, angle), atol=1e-5)
    assert (scan.stored.qform_code, scan.stored.sform_code) == (1, 0)


def test_no_position_is_said(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.nii"
    save(path, numbers())
    patch(path, 252, "<2h", 0, 0)
    scan = open_scan(path)
    agree(scan, nibabel.load(path))
    assert any("which side is left are unknown" in note for note in scan.notes)


@pytest.mark.parametrize(("code", "factor", "word"), [(1, 1000.0, "metres"), (3, 0.001, "micrometres")])
def test_other_units_of_length(tmp_path: pathlib.Path, code: int, factor: float, word: str) -> None:
    path = tmp_path / "a.nii"
    save(path, numbers())
    patch(path, 123, "B", code | 8)
    scan = open_scan(path)
    np.testing.assert_allclose(scan.zooms, np.array([2, 3, 4]) * factor, rtol=1e-6)
    assert any(f"from {word} to mm" in note for note in scan.notes)
    np.testing.assert_array_equal(
        nibabel.load(write_map(tmp_path / "m.nii", np.ones(SHAPE[:3]), scan)).affine, affine()
    )


def test_odd_headers_are_read_and_said(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.nii"
    save(path, numbers())
    patch(path, 112, "<2f", np.nan, 3.0)  # no scale
    patch(path, 252, "<2h", -7, 2)  # a qform code that is none
    patch(path, 40, "<8h", 5, *SHAPE, 1, 1, 1)
    path.write_bytes(path.read_bytes() + b"tail")
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.frames(0, 4), numbers().astype(np.float32))
    said = " | ".join(scan.notes)
    for part in ("scl_slope is nan", "qform_code -7", "1 axes of length one", "4 bytes after the last volume"):
        assert part in said


@pytest.mark.parametrize(
    ("value", "unit", "expected", "word"),
    [
        (0.72, 8, 0.72, ""),
        (720.0, 16, 0.72, "from 720 ms to 0.72 s"),
        (2.5e6, 24, 2.5, "us to 2.5 s"),
        (2.0, 0, 2.0, "unit of time is not set"),
        (0.0, 8, None, "has no repetition time"),
    ],
)
def test_repetition_time(tmp_path: pathlib.Path, value: float, unit: int, expected: float | None, word: str) -> None:
    path = tmp_path / "a.nii"
    save(path, numbers())
    patch(path, 92, "<f", value)
    patch(path, 123, "B", 2 | unit)
    scan = open_scan(path)
    assert scan.tr == expected
    assert word in " | ".join(scan.notes)
    assert open_scan(path, tr=3.0).tr == 3.0
    assert any("as given; the header says" in note for note in open_scan(path, tr=3.0).notes) == (value != 0)


def test_sidecar(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "sub-1_bold.nii.gz"
    save(path, numbers())
    assert sidecar(path) == {}
    beside = tmp_path / "sub-1_bold.json"
    beside.write_text(json.dumps({"RepetitionTime": 2.0004, "TaskName": "rest"}))
    assert sidecar(path)["TaskName"] == "rest"
    assert open_scan(path).tr == 2.0
    beside.write_text(json.dumps({"RepetitionTime": 2.2}))
    with pytest.raises(InputError, match=r"2 s in the header, 2.2 s in the sidecar.*--tr"):
        open_scan(path)
    assert open_scan(path, tr=2.2).tr == 2.2
    assert open_scan(path, sidecar_tr=2.0).tr == 2.0
    with pytest.raises(InputError, match="disagree"):
        open_scan(path, sidecar_tr=1.5)


def test_sidecar_tells_what_the_header_leaves_open(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.nii"
    save(path, numbers())
    patch(path, 123, "B", 2)
    patch(path, 92, "<f", 800.0)
    with pytest.raises(InputError, match="not clear"):
        open_scan(path)
    (tmp_path / "a.json").write_text('{"RepetitionTime": 0.8}')
    assert open_scan(path).tr == 0.8
    patch(path, 92, "<f", 0.0)
    assert open_scan(path).tr == 0.8


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every compressed scan goes to the disk."""
    monkeypatch.setattr(nifti_volumes, "IN_MEMORY", 0)


def test_unpacked_once_into_a_file_without_a_name(tmp_path: pathlib.Path, on_disk: None) -> None:
    image = save(tmp_path / "a.nii.gz", numbers())
    values = canonical(image)[0]
    cache = tmp_path / "cache"
    cache.mkdir()
    scan = open_scan(tmp_path / "a.nii.gz", cache=cache)
    assert isinstance(scan.volumes, nifti_volumes.SpooledVolumes)
    assert list(cache.iterdir()) == []
    (tmp_path / "a.nii.gz").unlink()  # it is never unpacked again
    np.testing.assert_array_equal(scan.frames(2, 4), values[..., 2:])
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(scan.frames(1, 2), values[..., 1:2]) else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(scan.frames(0, 1), values[..., :1])
    scan.close()
    with pytest.raises(InputError, match="closed"):
        scan.frames(0, 1)


def test_members_padding_and_garbage(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.nii"
    save(path, numbers())
    raw = path.read_bytes()
    parts = [raw[:100], raw[100:353], b"", raw[353:]]
    whole = b"".join(gzip.compress(part) for part in parts)
    packed = tmp_path / "b.nii.gz"
    for extra, words in ((b"", ""), (b"\0" * 700, ""), (b"junk", "4 bytes after the end of the compressed stream")):
        packed.write_bytes(whole + extra)
        scan = open_scan(packed)
        np.testing.assert_array_equal(scan.frames(0, 4), numbers().astype(np.float32))
        assert words in " | ".join(scan.notes)


def test_names_that_do_not_fit_the_content(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a.nii", numbers())
    save(tmp_path / "b.nii.gz", numbers())
    (tmp_path / "a.nii").rename(tmp_path / "plain.nii.gz")
    (tmp_path / "b.nii.gz").rename(tmp_path / "packed.nii")
    for name, word in (("plain.nii.gz", "is not compressed"), ("packed.nii", "is compressed")):
        scan = open_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.frames(0, 4), numbers().astype(np.float32))
        assert any(word in note for note in scan.notes)


def test_memory_of_all_compressed_scans_together_is_bounded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.nii.gz", numbers())
    size = numbers().nbytes
    monkeypatch.setattr(nifti_volumes, "ALL_IN_MEMORY", nifti_volumes._Share.taken + 2 * size)
    scans = [open_scan(tmp_path / "a.nii.gz") for _ in range(3)]
    kinds = [type(scan.volumes).__name__ for scan in scans]
    assert kinds == ["MemoryVolumes", "MemoryVolumes", "SpooledVolumes"]
    scans[0].close()
    assert type(open_scan(tmp_path / "a.nii.gz").volumes).__name__ == "MemoryVolumes"


_PEAK = """
import sys
from pipelines.data.formats import nifti, nifti_volumes
nifti_volumes.IN_MEMORY = 1 << 20
total = 0.0
with nifti.open_scan(sys.argv[1]) as scan:
    for start in range(0, scan.shape[3], 20):
        total += float(scan.frames(start, start + 20).mean())
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]), total)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("packed", [False, True])
def test_memory_does_not_grow_with_the_number_of_volumes(tmp_path: pathlib.Path, packed: bool) -> None:
    peaks = []
    for count in (200, 1000):
        path = tmp_path / f"{count}.nii"
        ramp = np.broadcast_to(np.arange(count, dtype=np.int16), (32, 32, 32, count))
        save(path, np.asarray(ramp))
        if packed:
            path.with_suffix(".nii.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
            path = path.with_suffix(".nii.gz")
        run = [sys.executable, "-c", _PEAK, str(path)]
        out = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout.split()
        assert float(out[1]) == sum(np.arange(count).reshape(-1, 20).mean(1))
        peaks.append(int(out[0]))
    assert peaks[1] - peaks[0] < 4096, f"KiB at 200 and 1000 volumes (of 64 KiB each): {peaks}"


def test_volumes_and_masks(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a.nii.gz", numbers(), affine("PIR"))
    scan = open_scan(tmp_path / "a.nii.gz")
    mask = (numbers("uint8", SHAPE[:3], 3) > 100).astype(np.uint8)
    # The same grid stored another way round.
    image = nibabel.as_closest_canonical(Nifti1Image(mask, affine("PIR")))
    nibabel.save(image, tmp_path / "mask.nii.gz")
    found = read_mask(tmp_path / "mask.nii.gz", scan)
    np.testing.assert_array_equal(found, image.get_fdata() > 0)
    np.testing.assert_array_equal(read_mask(found, scan), found)
    values, where = open_volume(tmp_path / "mask.nii.gz", like=scan)
    assert values.dtype == np.float32
    np.testing.assert_allclose(where, scan.affine)
    save(tmp_path / "one.nii", numbers(shape=(5, 6, 7, 1)))
    assert open_volume(tmp_path / "one.nii")[0].shape == (5, 6, 7)
    assert open_scan(tmp_path / "one.nii", allow_single=True).shape == (5, 6, 7, 1)
    assert open_scan(tmp_path / "mask.nii.gz", allow_single=True).frames(0, 1).shape == (*values.shape, 1)


def test_images_of_nibabel(tmp_path: pathlib.Path, on_disk: None) -> None:
    image = save(tmp_path / "a.nii.gz", numbers(), affine("SLA"))
    scan = open_scan(image)
    agree(scan, image)
    assert (scan.name, scan.tr) == ("a.nii.gz", 2.0)
    assert isinstance(scan.volumes, nifti_volumes.SpooledVolumes), "voxels of a compressed file are unpacked once"
    image.get_fdata()[...] = 0  # what was cached is not what the file holds, and the file is what is read
    assert scan.frames(0, 1).any()

    memory = Nifti1Image(numbers("float32"), affine("LPS", 10))
    memory.header.set_xyzt_units("mm", "msec")
    memory.header.set_zooms((2, 3, 4, 1500))
    scan = open_scan(memory)
    agree(scan, memory)
    assert (scan.name, scan.tr) == ("image", 1.5)
    moved = Nifti1Image(image.dataobj, affine("RAS"), image.header)
    moved.set_filename(str(tmp_path / "a.nii.gz"))
    agree(open_scan(moved), moved)


def test_arrays(tmp_path: pathlib.Path) -> None:
    data = numbers("float64")
    scan = open_scan(data, tr=2.0, name="mine")
    np.testing.assert_array_equal(scan.frames(1, 3), data[..., 1:3].astype(np.float32))
    assert (scan.zooms, scan.stored.axcodes) == ((1.0, 1.0, 1.0), ("R", "A", "S"))
    assert "position in the head is unknown" in scan.notes[0]
    image = nibabel.load(write_map(tmp_path / "m.nii.gz", data[..., 0], scan))
    np.testing.assert_array_equal(image.affine, np.eye(4))


def test_maps_lie_on_the_scan(tmp_path: pathlib.Path) -> None:
    """A voxel marked at a place in mm is found at that place by nibabel and nilearn, in the scan's own file order."""
    from nilearn.image import load_img

    for directions in DIRECTIONS:
        for angle in (0.0, 25.0):
            image = save(tmp_path / "a.nii.gz", numbers(), affine(directions, angle))
            scan = open_scan(tmp_path / "a.nii.gz")
            values = np.zeros(scan.shape[:3])
            values[1, 3, 2] = 7.5
            world = scan.affine @ [1, 3, 2, 1]
            path = write_map(tmp_path / "map.nii.gz", values, scan, description="attribution")
            for written in (nibabel.load(path), load_img(path)):
                np.testing.assert_array_equal(written.affine, image.affine)
                assert written.shape == SHAPE[:3]
                assert written.get_data_dtype() == np.float32
                stored = np.linalg.inv(written.affine) @ world
                assert written.get_fdata()[tuple(np.rint(stored[:3]).astype(int))] == 7.5
                assert written.get_fdata().sum() == 7.5
            header = nibabel.load(path).header
            assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 0)
            assert header.get_xyzt_units()[0] == "mm"
            assert header.get_zooms() == image.header.get_zooms()[:3]
            assert header["descrip"].item() == b"attribution"
            np.testing.assert_array_equal(open_volume(path, like=scan)[0], values)


@pytest.mark.parametrize("version", [1, 2])
def test_maps_of_a_qform_alone_and_of_no_position(tmp_path: pathlib.Path, version: int) -> None:
    kind = Nifti1Image if version == 1 else Nifti2Image
    image = kind(numbers(), affine("LPS", 40))
    image.set_qform(affine("LPS", 40), 1)
    for codes in ((1, 0), (0, 0)):
        image.set_sform(None, 0)
        image.header["qform_code"] = codes[0]
        path = tmp_path / f"a{codes[0]}.nii"
        nibabel.save(image, path)
        patch(path, 252 if version == 1 else 344, "<2h" if version == 1 else "<2i", *codes)
        scan = open_scan(path, tr=1)
        values = numbers("float32", (*scan.shape[:3], 3))
        written = nibabel.load(write_map(tmp_path / "map.nii.gz", values, scan))
        np.testing.assert_array_equal(written.affine, nibabel.load(path).affine)
        np.testing.assert_array_equal(canonical(written)[0], values)
        assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == codes


def test_maps_are_the_same_bytes_and_replace_whole_files(tmp_path: pathlib.Path) -> None:
    scan = open_scan(numbers())
    values = numbers("float32", SHAPE[:3])
    first = write_map(tmp_path / "new" / "a.nii.gz", values, scan).read_bytes()
    assert write_map(tmp_path / "new" / "a.nii.gz", values, scan).read_bytes() == first
    with pytest.raises(InputError, match="another grid"):
        write_map(tmp_path / "new" / "a.nii.gz", values[1:], scan)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "new" / "a.nii.gz").read_bytes() == first
