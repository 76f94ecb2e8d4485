"""Bad images: one message each, with the cure; damaged files never end in a traceback or fill the memory."""

from __future__ import annotations

import io
import os
import pathlib
import random
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.data.errors import InputError
from pipelines.data.formats.image import open_image, read_image
from pipelines.data.formats.image_types import ImageMeta, Picture
from pipelines.data.formats.image_write import write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
FORMATS = ("png", "png16", "jpg", "webp", "tif", "lzw", "bmp", "gif")


def _content(kind: str) -> bytes:
    """A small sound image of each format."""
    file = io.BytesIO()
    if kind in ("png16", "tif"):
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "a.tif" if kind == "tif" else "a.png")
            pixels = PIXELS if kind == "tif" else PIXELS.astype(np.uint16) * 257
            write_image(path, Picture(pixels, meta=ImageMeta(icc=b"profile" * 9, dpi=(72, 72))))
            return path.read_bytes()
    options = {"lzw": {"compression": "tiff_lzw"}, "jpg": {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}}
    Image.fromarray(PIXELS).save(file, {"jpg": "JPEG", "lzw": "TIFF"}.get(kind, kind), **options.get(kind, {}))
    return file.getvalue()


SOUND = {kind: _content(kind) for kind in FORMATS}
ENDINGS = {"png16": "png", "lzw": "tif"}


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, depth: int = 8, kind: int = 0, packed: bytes = b"", *, after: bytes = b"") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + after + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


FLIPPED = bytearray(SOUND["png"])
FLIPPED[len(FLIPPED) // 2] ^= 4

CASES: dict[str, tuple[str, bytes, str]] = {
    "zero size": ("a.png", b"", r"a.png: the file is empty"),
    "text": (
        "a.png",
        b"Dear all, see below.\n",
        r"not an image. Found: text that begins with b'Dear all.*Expected: PNG",
    ),
    "binary": ("a.jpg", b"\x00\x01\x02\x03" * 99, r"not an image. Found: unknown bytes 00 01 02 03"),
    "PDF": ("a.jpg", b"%PDF-1.4 ....", "this kind of file is not read. Found: a PDF document"),
    "HEIC": ("a.jpg", b"\0\0\0\x18ftypheic" + bytes(30), "this kind of file is not read. Found: HEIC"),
    "cut png": ("a.png", SOUND["png"][:-40], r"a.png: the PNG ends too early.*Cure: copy or export the file again"),
    "cut jpeg": ("a.jpg", SOUND["jpg"][:-400], r"a.jpg: the JPEG is damaged or cut short"),
    "cut webp": ("a.webp", SOUND["webp"][:-400], "the WEBP is damaged or cut short"),
    "cut tiff": ("a.tif", SOUND["tif"][:-400], "the TIFF is damaged|the TIFF ends too early"),
    "cut bmp": ("a.bmp", SOUND["bmp"][:-400], "the BMP is damaged or cut short"),
    "cut gif": ("a.gif", SOUND["gif"][:-400], "the GIF is damaged or cut short"),
    "flipped bit": ("a.png", bytes(FLIPPED), "the pixels of the PNG are damaged"),
    "bomb": (
        "a.png",
        _png(30_000, 30_000, 8, 2, zlib.compress(bytes(9))),
        r"more pixels than allowed. Found: 30,000 x 30,000 = 900 megapixels. Expected: 500 .*Cure: raise the limit",
    ),
    "no width": ("a.png", _png(0, 7), "the image has no pixels. Found: 0 x 7"),
    "few rows": ("a.png", _png(4, 4, packed=zlib.compress(bytes(15))), "holds fewer rows than its header says"),
    "no zlib": ("a.png", _png(4, 4, packed=b"not packed at all"), "the pixels of the PNG are damaged"),
    "filter 9": ("a.png", _png(2, 2, packed=zlib.compress(b"\x09\1\1" * 2)), r"damaged. Found: filter 9. Expected: 0"),
    "depth 3": ("a.png", _png(2, 2, 3), "of a kind that does not exist. Found: 3 bits"),
    "no palette": ("a.png", _png(2, 2, 8, 3, zlib.compress(bytes(6))), "the palette is missing"),
    "beyond the palette": (
        "a.png",
        _png(2, 1, 8, 3, zlib.compress(b"\0\0\5"), after=_chunk(b"PLTE", bytes(6))),
        "a colour that the palette does not have. Found: 5. Expected: below 2",
    ),
    "critical chunk": ("a.png", _png(2, 2, after=_chunk(b"ABCD", b"")), "must be understood is not known"),
    "chunk without a name": ("a.png", _png(2, 2, after=_chunk(b"\0\0\0\0", b"")), "a chunk of the PNG has no name"),
    "wrong checksum": ("a.png", _png(2, 2, after=_chunk(b"gAMA", b"1234")[:-1] + b"?"), "gAMA of the PNG is damaged"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_image(name: str, tmp_path: pathlib.Path) -> None:
    file, content, message = CASES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / file)
    assert str(caught.value).startswith(file)


def test_no_file_a_folder_and_a_device(tmp_path: pathlib.Path) -> None:
    (tmp_path / "near.png").write_bytes(SOUND["png"])
    with pytest.raises(InputError, match=r"no such file.*near\.png"):
        read_image(tmp_path / "far.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(InputError, match="is not a regular file"):
        read_image(os.devnull)


def test_limits_hold_for_every_format(tmp_path: pathlib.Path) -> None:
    for kind, content in SOUND.items():
        path = tmp_path / f"a.{ENDINGS.get(kind, kind)}"
        path.write_bytes(content)
        with pytest.raises(InputError, match="more pixels than allowed"):
            read_image(path, limit=1999)
        assert read_image(path, limit=2000).pixels.shape == (40, 50, 3)


def test_long_and_thin_is_fine(tmp_path: pathlib.Path) -> None:
    long = np.arange(1_000_000, dtype=np.uint32).astype(np.uint8).reshape(10, 100_000, 1)
    for array in (long, long.reshape(100_000, 10, 1)):
        for name in ("a.png", "a.tif"):
            write_image(tmp_path / name, Picture(array))
            np.testing.assert_array_equal(read_image(tmp_path / name).pixels, array)


def test_a_hidden_bomb_fills_no_memory(tmp_path: pathlib.Path) -> None:
    """4 x 4 pixels whose compressed stream would grow to 400 MB; profiles and unasked rows alike."""
    packed = zlib.compress(bytes(400_000_000), 9)
    path = tmp_path / "a.png"
    tracemalloc.start()
    try:
        path.write_bytes(_png(4, 4, packed=packed))
        assert read_image(path).pixels.shape == (4, 4, 1)
        path.write_bytes(_png(4, 4, packed=zlib.compress(bytes(20)), after=_chunk(b"iCCP", b"x\0\0" + packed)))
        picture = read_image(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert picture.meta.icc is None
    assert picture.notes == ("the colour profile is damaged: left out",)
    assert peak < 150_000_000


def test_other_values_than_8_and_16_bits_say_what_to_do(tmp_path: pathlib.Path) -> None:
    import tifffile

    for dtype, word in (
        (np.float32, "32-bit floating-point"),
        (np.int16, "16-bit signed"),
        (np.uint32, "32-bit unsigned"),
    ):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), dtype))
        with pytest.raises(InputError, match=f"not read. Found: {word} values. Cure: save it as an 8-bit or 16-bit"):
            read_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 7), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"several channels without colours. Found: 7 channels"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_full_disk_leaves_the_old_file_and_no_other(name: str, tmp_path: pathlib.Path) -> None:
    """The limit of a file's size stands in for a full disk: the same call fails in the same way."""
    import resource

    noise = np.random.default_rng(1).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    (tmp_path / name).write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_image(tmp_path / name, Picture(noise))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / name).read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def test_rows_outside_the_image_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.png").write_bytes(SOUND["png"])
    with open_image(tmp_path / "a.png") as image:
        for start, stop in ((-1, 4), (3, 3), (39, 41), (5, 4)):
            with pytest.raises(InputError, match="no such rows"):
                image.rows(start, stop)


def _damage(content: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, or with bytes of the header changed."""
    data = bytearray(content)
    way = rng.randrange(3)
    if way == 0:
        return bytes(data[: rng.randrange(1, len(data))])
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(data)) if way == 1 else rng.randrange(min(len(data), 400))
        data[place] = data[place] ^ (1 << rng.randrange(8)) if way == 1 else rng.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_end_in_a_message_or_an_image(kind: str, tmp_path: pathlib.Path) -> None:
    rng = random.Random(kind)
    path = tmp_path / f"a.{ENDINGS.get(kind, kind)}"
    refused = 0
    tracemalloc.start()
    try:
        for _ in range(100):
            path.write_bytes(_damage(SOUND[kind], rng))
            start = time.perf_counter()
            try:
                picture = read_image(path, limit=10_000_000)
                assert picture.pixels.dtype in (np.uint8, np.uint16)
            except InputError:
                refused += 1
            assert time.perf_counter() - start < 5
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused > 20
    assert peak < 1_000_000_000
