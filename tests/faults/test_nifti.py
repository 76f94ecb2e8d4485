"""Bad scans: one message each, with the place and the cure; damaged files never end in an unexplained traceback."""

from __future__ import annotations

import errno
import gzip
import os
import pathlib
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from pipelines.data.errors import InputError
from pipelines.data.formats import nifti_volumes
from pipelines.data.formats.nifti import open_scan, open_volume, read_mask, write_map

SHAPE = (6, 5, 4, 10)
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])
FRAME = 6 * 5 * 4 * 2


def data(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Numbers that hardly compress."""
    return np.random.default_rng(5).integers(-30000, 30000, shape, np.int16)


def raw(values: np.ndarray | None = None, **fields: Any) -> bytes:
    """The bytes of a plain NIfTI-1 file, TR 2 s."""
    image = Nifti1Image(data() if values is None else values, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.0
    for key, value in fields.items():
        image.header[key] = value
    return image.to_bytes()


def patched(*changes: tuple[int, str, tuple[Any, ...]]) -> bytes:
    """The plain file with numbers of its header overwritten: (byte, layout, values)."""
    content = bytearray(raw())
    for offset, layout, values in changes:
        struct.pack_into(layout, content, offset, *values)
    return bytes(content)


HEADERS: dict[str, tuple[bytes, str]] = {
    "negative length": (patched((44, "<h", (-5,))), "impossible sizes.*-5"),
    "no length": (patched((46, "<h", (0,))), "impossible sizes"),
    "no axes": (patched((40, "<h", (0,))), "impossible sizes"),
    "eight axes": (patched((40, "<h", (8,))), "impossible sizes"),
    "two axes": (patched((40, "<h", (2,))), "not a volume"),
    "absurd volume": (patched((42, "<4h", (32767,) * 4)), "absurd size.*35,181,150,961,663 voxels"),
    "absurd time": (patched((48, "<h", (32767,))), r"before its last volume.*10 whole volumes of 32,767"),
    "five axes": (patched((40, "<6h", (5, 6, 5, 4, 2, 5))), "more than four axes.*one 4-D file"),
    "a vector axis": (patched((40, "<6h", (5, 6, 5, 4, 1, 10))), "more than four axes.*move time to the fourth"),
    "type that is none": (patched((70, "<h", (77,))), "type that is not read.*no type of NIfTI"),
    "complex": (patched((70, "<2h", (32, 64))), "complex numbers.*magnitude"),
    "colours": (patched((70, "<2h", (128, 24))), "RGB colours"),
    "bits": (patched((72, "<h", (32,))), "contradicts itself.*bitpix 32.*bitpix 16"),
    "nowhere": (patched((108, "<f", (np.nan,))), "vox_offset nan"),
    "before the file": (patched((108, "<f", (-16.0,))), "vox_offset -16"),
    "behind the file": (patched((108, "<f", (1e9,))), "0 whole volumes of 10"),
    "intercept": (patched((112, "<2f", (2.0, np.inf))), "cannot be scaled.*inf"),
    "zero affine": (patched((280, "<12f", (0.0,) * 12)), "zero or singular"),
    "singular affine": (patched((280, "<12f", (1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0))), "zero or singular"),
    "NaN affine": (patched((280, "<f", (np.nan,))), "affine is not finite"),
    "no rotation": (patched((252, "<2h", (1, 0)), (256, "<3f", (0.9, 0.9, 0.9))), "no rotation"),
    "no voxel size": (patched((252, "<2h", (1, 0)), (80, "<f", (0.0,))), "voxels have no size"),
    "NaN voxel size": (patched((252, "<2h", (0, 0)), (80, "<f", (np.nan,))), "voxels have no size"),
    "NaN TR": (patched((92, "<f", (np.nan,))), "impossible repetition time.*nan.*--tr"),
    "negative TR": (patched((92, "<f", (-2.0,))), "impossible repetition time"),
    "ms called s": (patched((92, "<f", (2000.0,))), "impossible repetition time.*2000 s"),
    "s called ms": (patched((123, "B", (2 | 16,))), "impossible repetition time.*2 ms"),
    "no time": (patched((123, "B", (2 | 32,))), "no time.*Hz"),
    "unclear time": (patched((92, "<f", (2500.0,)), (123, "B", (2,))), "not clear.*2500 without a unit"),
    "ANALYZE": (patched((344, "4s", (b"",))), "ANALYZE 7.5.*which side is left"),
    "magic": (patched((344, "4s", (b"n+x",))), "ANALYZE 7.5.*or a damaged"),
    "pair alone": (patched((344, "4s", (b"ni1",))), "header without its voxels"),
    "header size": (patched((0, "<i", (349,))), "not a NIfTI file.*5d 01 00 00"),
    "CIFTI": (patched((68, "<h", (3002,))), "grayordinates.*CIFTI.*desc-preproc_bold"),
    "cut header": (raw()[:200], "ends within its header"),
    "cut": (raw()[: 352 + 7 * FRAME + 3], "7 whole volumes of 10"),
    "empty": (b"", "is empty"),
    "web page": (b"<!DOCTYPE html><html>" + bytes(600), "web page or a pointer"),
    "bzip2": (b"BZh9" + bytes(600), "bzip2.*bunzip2"),
    "one volume": (raw(data(SHAPE[:3])), "one volume, not a scan.*concat_imgs"),
    "T of one": (raw(data((6, 5, 4, 1))), "one volume, not a scan"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", HEADERS)
def test_one_message_each(tmp_path: pathlib.Path, case: str, packed: bool) -> None:
    content, words = HEADERS[case]
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    if packed and case in ("absurd time", "behind the file"):
        words = f"far too short for its header|{words}"
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=f"(?s){words}") as caught:
            open_scan(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20, "nothing is allocated by a header's word"
    finally:
        tracemalloc.stop()
    assert "a.nii" in str(caught.value)
    assert "Cure:" in str(caught.value) or case == "empty"


def test_names_of_other_kinds(tmp_path: pathlib.Path) -> None:
    for name, words in (
        ("a.func.gii", "GIFTI.*volumetric"),
        ("a.dtseries.nii", "CIFTI"),
        ("a.mgz", "mri_convert"),
    ):
        (tmp_path / name).write_bytes(raw())
        with pytest.raises(InputError, match=words):
            open_scan(tmp_path / name)
    (tmp_path / "b.nii").write_bytes(b'<?xml version="1.0"?><GIFTI>')
    with pytest.raises(InputError, match="GIFTI"):
        open_scan(tmp_path / "b.nii")


def test_paths(tmp_path: pathlib.Path) -> None:
    (tmp_path / "here.nii").write_bytes(raw())
    with pytest.raises(InputError, match=r"no such file.*the folder holds here.nii"):
        open_scan(tmp_path / "there.nii")
    with pytest.raises(InputError, match="is a folder"):
        open_scan(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        open_scan("/dev/zero")
    (tmp_path / "half.img").write_bytes(raw())
    with pytest.raises(InputError, match=r"half of a pair.*half.hdr"):
        open_scan(tmp_path / "half.img")
    with pytest.raises(InputError, match="no such file"):
        open_scan("bad\0name.nii")


def test_a_file_that_changes_while_it_is_open(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(raw())
    scan = open_scan(path)
    with pytest.raises(InputError, match=r"no such volumes.*\[8, 11\)"):
        scan.frames(8, 11)
    path.write_bytes(raw()[:-100])
    with pytest.raises(InputError, match="changed while it was open"):
        scan.frames(0, 1)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read any more"):
        scan.frames(0, 1)


# Compressed streams.


def test_a_cut_stream_tells_what_is_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.nii.gz"
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)  # stored blocks: a cut falls where one expects it
    whole = stored.compress(raw()) + stored.flush()
    path.write_bytes(whole[: 15 + 352 + 6 * FRAME + 20])
    with pytest.raises(InputError, match=r"is cut short.*6 whole volumes of 10.*download the file again"):
        open_scan(path)
    path.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=r"is cut short.*all volumes, but not as they were written"):
        open_scan(path)
    path.write_bytes(gzip.compress(raw()[:-FRAME]))
    with pytest.raises(InputError, match=r"before its last volume.*9 whole volumes of 10"):
        open_scan(path)


def test_a_flipped_bit_is_seen_by_the_checksum(tmp_path: pathlib.Path) -> None:
    """In stored blocks every stream stays readable; only the trailer tells that a voxel is wrong."""
    path = tmp_path / "a.nii.gz"
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)
    content = bytearray(stored.compress(raw()) + stored.flush())
    content[15 + 352 + 5 * FRAME] ^= 4
    path.write_bytes(content)
    nibabel.load(path).get_fdata()  # goes through: nibabel stops before the trailer
    with pytest.raises(InputError, match="checksum does not fit"):
        open_scan(path)


def test_bombs_and_limits(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.nii.gz"
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(engine.compress(raw()))
        for _ in range(256):
            file.write(engine.compress(bytes(1 << 20)))
        file.write(engine.flush())
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(InputError, match="unpacks to far more than its header says"):
        open_scan(path)
    assert time.perf_counter() - start < 2
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
    for name, content in (("b.nii.gz", gzip.compress(raw())), ("b.nii", raw())):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"larger than allowed.*limit_gb"):
            open_scan(tmp_path / name, limit_gb=1e-6)


def test_no_room_for_the_unpacked_voxels(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti_volumes, "IN_MEMORY", 0)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw()))
    with pytest.raises(InputError, match=r"cannot be unpacked into .*nowhere.*no such folder.*cache="):
        open_scan(path, cache=tmp_path / "nowhere")

    real = os.statvfs

    class Full:
        f_bavail, f_frsize = 1, 512

    monkeypatch.setattr(os, "statvfs", lambda folder: Full())
    with pytest.raises(InputError, match=r"No space left.*512 bytes free.*2.3 KiB free and the right"):
        open_scan(path)
    monkeypatch.setattr(os, "statvfs", real)

    class Filling:
        """A file on a disk that fills up while it is written."""

        def write(self, content: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(nifti_volumes.tempfile, "TemporaryFile", lambda dir: Filling())
    with pytest.raises(InputError, match=r"cannot be unpacked into .*No space left"):
        open_scan(path)


def test_more_scans_than_the_usual_number_of_open_files(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = len(os.listdir("/proc/self/fd")) + 20 if os.path.isdir("/proc/self/fd") else 60
    if hard < low + 60 and hard != resource.RLIM_INFINITY:
        pytest.skip("the system allows too few open files")
    monkeypatch.setattr(nifti_volumes, "IN_MEMORY", 0)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        scans = [open_scan(path) for _ in range(50)]
        assert all(scan.frames(9, 10).any() for scan in scans)
        for scan in scans:
            scan.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Fuzz: 100 each; every outcome is a message or the true values.


def _outcome(path: pathlib.Path) -> np.ndarray | None:
    """All values, or None after a message of ours; anything else fails the test."""
    start = time.perf_counter()
    found, message = None, ""
    try:
        with open_scan(path, limit_gb=0.1) as scan:
            found = scan.frames(0, scan.shape[3])
    except InputError as error:
        message = str(error)
    assert time.perf_counter() - start < 5
    assert found is not None or message.startswith(path.name)
    return found


def _fuzz(path: pathlib.Path, content: bytes, damage: Callable[[random.Random, bytearray], None]) -> list[Any]:
    rng = random.Random(11)
    outcomes = []
    for _ in range(100):
        damaged = bytearray(content)
        damage(rng, damaged)
        path.write_bytes(damaged)
        outcomes.append(_outcome(path))
    return outcomes


def _cut(rng: random.Random, content: bytearray) -> None:
    del content[rng.randrange(len(content)) :]


def _flip(rng: random.Random, content: bytearray) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _flip_header(rng: random.Random, content: bytearray) -> None:
    content[rng.randrange(352)] ^= 1 << rng.randrange(8)


def _header(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.randrange(1, 6)):
        content[rng.randrange(352)] = rng.randrange(256)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_cut_files_are_refused(tmp_path: pathlib.Path, name: str) -> None:
    content = gzip.compress(raw()) if name.endswith(".gz") else raw()
    assert all(outcome is None for outcome in _fuzz(tmp_path / name, content, _cut))


def test_flipped_bits_of_compressed_files_never_change_a_value(tmp_path: pathlib.Path) -> None:
    true = open_scan(data()).frames(0, 10)[::-1]  # stored LAS
    outcomes = _fuzz(tmp_path / "a.nii.gz", gzip.compress(raw()), _flip)
    assert sum(outcome is None for outcome in outcomes) > 90  # some bits of gzip's own header mean nothing
    assert all(np.array_equal(outcome, true) for outcome in outcomes if outcome is not None)


@pytest.mark.parametrize("damage", [_flip, _flip_header, _header])
def test_damage_of_plain_files_ends_in_messages(
    tmp_path: pathlib.Path, damage: Callable[[random.Random, bytearray], None]
) -> None:
    outcomes = _fuzz(tmp_path / "a.nii", raw(), damage)
    refused = sum(outcome is None for outcome in outcomes)
    assert refused < 95 if damage is _header else refused < 50
    assert refused > 5 or damage is _flip


def test_damaged_headers_in_whole_streams(tmp_path: pathlib.Path) -> None:
    rng = random.Random(12)
    for _ in range(100):
        content = bytearray(raw())
        _header(rng, content)
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content, 1))
        _outcome(tmp_path / "a.nii.gz")


# Masks, sidecars, arrays, maps.


def test_masks_of_another_grid_and_no_masks(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(raw())
    scan = open_scan(path)
    good = np.ones(SHAPE[:3], np.float32)
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.01
    holed = good.copy()
    holed[0, 0, 0] = np.nan
    for mask, where, words in (
        (good[1:], AFFINE, "another grid than that of a.nii.*5 x 5 x 4 voxels.*6 x 5 x 4 voxels"),
        (good, shifted, "another grid than that of a.nii"),
        (good * 0, AFFINE, "mask is empty"),
        (good * 0.5, AFFINE, "no mask.*120 of 120 voxels such as 0.5.*threshold"),
        (holed, AFFINE, "no mask.*1 of 120 voxels such as nan"),
        (data(), AFFINE, "several volumes"),
    ):
        nibabel.save(Nifti1Image(mask, where), tmp_path / "mask.nii.gz")
        with pytest.raises(InputError, match=words):
            read_mask(tmp_path / "mask.nii.gz", scan)
    with pytest.raises(InputError, match="several volumes"):
        open_volume(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[1]", "no JSON object.*list"),
        (b'{"RepetitionTime": "2"}', "no number of seconds"),
        (b'{"RepetitionTime": true}', "no number of seconds"),
        (b'{"RepetitionTime": NaN}', "no number of seconds"),
        (b'{"RepetitionTime": 1' + b"0" * 400 + b"}", "no number of seconds"),
        (b'{"RepetitionTime": 2000}', "impossible repetition time.*not milliseconds"),
    ],
)
def test_sidecars(tmp_path: pathlib.Path, text: bytes, words: str) -> None:
    (tmp_path / "a.nii").write_bytes(raw())
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(InputError, match=words):
        open_scan(tmp_path / "a.nii")


def test_arrays_and_images_that_are_no_scans(tmp_path: pathlib.Path) -> None:
    for source, words in (
        (np.zeros((3, 3)), "no scan.*time last"),
        (np.zeros((3, 3, 0, 3)), "no scan"),
        (np.zeros((3, 3, 3, 3), complex), "real numbers"),
        (np.array([["a"]]), "no scan"),
        (Nifti1Image(data(), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])), "singular"),
        (Nifti1Image(data(SHAPE[:3]), AFFINE), "one volume, not a scan"),
        (nibabel.gifti.GiftiImage(), "GIFTI"),
    ):
        with pytest.raises(InputError, match=words):
            open_scan(source)
    with pytest.raises(InputError, match=r"impossible repetition time.*not milliseconds"):
        open_scan(data(), tr=2000.0)


def test_maps_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    scan = open_scan(data())
    good = np.ones(SHAPE[:3])
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.nii.gz").mkdir()
    for name, values, text, words in (
        ("a.nii.gz", good[:-1], "", "another grid"),
        ("a.nii.gz", good[..., None, None], "", "another grid"),
        ("a.nii.gz", good.astype(complex), "", "no numbers"),
        ("a.img", good, "", "no name of a map"),
        ("a.nii.gz", good, "é" * 40, "description is too long.*80 bytes"),
        ("file/a.nii.gz", good, "", "cannot be written"),
        ("folder.nii.gz", good, "", "cannot be written"),
    ):
        with pytest.raises(InputError, match=words):
            write_map(tmp_path / name, values, scan, description=text)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.nii.gz"]
    if os.getuid():
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(InputError, match=r"cannot be written.*may write to"):
                write_map(tmp_path / "a.nii.gz", good, scan)
        finally:
            tmp_path.chmod(0o700)
