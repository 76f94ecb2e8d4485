"""Image files read and written: bits, alpha, orientation, profiles, pieces; against Pillow and tifffile."""

from __future__ import annotations

import io
import itertools
import os
import pathlib
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from pipelines.data.errors import InputError
from pipelines.data.formats.image import open_image, read_image
from pipelines.data.formats.image_exif import read_exif, turned
from pipelines.data.formats.image_types import ImageMeta, Picture
from pipelines.data.formats.image_write import ImageWriter, write_image

RNG = np.random.default_rng(0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    """Smooth ramps with a little noise, so that every filter of PNG is worth choosing."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    ramp = (3 * y + 5 * x)[..., None] + np.zeros(shape[2:] or (1,))
    values = (ramp + RNG.integers(0, 9, ramp.shape)).astype(dtype)
    if dtype == np.uint16:
        values = values * np.uint16(251) + RNG.integers(0, 251, ramp.shape).astype(np.uint16)
    return values.reshape(shape)


def _png(
    width: int, height: int, depth: int, kind: int, lines: bytes, *chunks: tuple[bytes, bytes], lace: int = 0
) -> bytes:
    """A PNG out of unfiltered or filtered lines, built here from the standard."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, lace)
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", head), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        made += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return made


# ---------------------------------------------------------------- PNG


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (31, 17), (8, 300)])
def test_png_reads_as_pillow_reads(mode: str, size: tuple[int, int], tmp_path: pathlib.Path) -> None:
    width, height = size
    path = tmp_path / "a.png"
    if mode == "I;16":
        image = Image.fromarray(_noise(height, width, dtype=np.uint16))
    else:
        image = Image.fromarray(_noise(height, width, 4), "RGBA").convert("RGB" if mode == "P" else mode)
        image = image.quantize(17) if mode == "P" else image
    image.save(path)
    expected = np.asarray(image.convert({"P": "RGB", "1": "L"}.get(mode, mode)) if mode != "I;16" else image)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.stored, expected.reshape(height, width, -1))
    assert bool(picture.notes) == (mode in ("P", "1"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_stay(channels: int, tmp_path: pathlib.Path) -> None:
    array = _noise(23, 19, channels, dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, Picture(array))
        stored = read_image(tmp_path / name).stored
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, array)
    # tifffile agrees on what stands in the TIFF.
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif").reshape(array.shape), array)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    (tmp_path / "b.png").write_bytes(_png(19, 23, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], lines))
    np.testing.assert_array_equal(read_image(tmp_path / "b.png").stored, array)


def _filtered(row: np.ndarray, above: np.ndarray, step: int, kind: int) -> bytes:
    """PNG's five filters, a byte at a time."""
    made = bytearray([kind])
    for i, value in enumerate(row.tolist()):
        left, up = (int(row[i - step]) if i >= step else 0), int(above[i])
        corner = int(above[i - step]) if i >= step else 0
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda v: abs(guess - v))
        made.append((value - (0, left, up, (left + up) // 2, nearest)[kind]) % 256)
    return bytes(made)


@pytest.mark.parametrize(("depth", "kind", "samples"), [(8, 0, 1), (8, 2, 3), (16, 2, 3), (16, 6, 4), (8, 4, 2)])
def test_every_filter_is_undone(depth: int, kind: int, samples: int, tmp_path: pathlib.Path) -> None:
    dtype = np.uint16 if depth == 16 else np.uint8
    array = _noise(25, 7, samples, dtype=dtype)
    rows = array.astype(">u2").view(np.uint8).reshape(25, -1) if depth == 16 else array.reshape(25, -1)
    step = samples * depth // 8
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    lines = b"".join(_filtered(rows[i], above[i], step, i % 5) for i in range(25))
    (tmp_path / "a.png").write_bytes(_png(7, 25, depth, kind, lines))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").stored, array)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_grey_and_palette(depth: int, tmp_path: pathlib.Path) -> None:
    indices = RNG.integers(0, 2**depth, (5, 11), dtype=np.uint8)
    bits = np.unpackbits(indices[..., None], axis=2)[..., 8 - depth :].reshape(5, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    path = tmp_path / "a.png"
    path.write_bytes(_png(11, 5, depth, 0, lines))
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels[..., 0], indices * (255 // (2**depth - 1)))
    assert picture.notes == (f"{depth}-bit grey widened to 8 bits",)
    path.write_bytes(_png(11, 5, depth, 0, lines, (b"tRNS", b"\0\1")))
    alpha = read_image(path).alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha, np.where(indices == 1, 0, 255))
    colours = RNG.integers(0, 256, (2**depth, 3), dtype=np.uint8)
    path.write_bytes(_png(11, 5, depth, 3, lines, (b"PLTE", colours.tobytes()), (b"tRNS", b"\x07")))
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, colours[indices])
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, np.where(indices == 0, 7, 255))
    assert picture.notes == (f"palette of {2**depth} colours read as RGB with alpha",)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 9), (16, 16)])
def test_interlaced_png(size: tuple[int, int], tmp_path: pathlib.Path) -> None:
    height, width = size
    array = _noise(height, width, 3, dtype=np.uint16)
    order = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [array[a::b, c::d] for a, c, b, d in order]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts if part.size for row in part)
    (tmp_path / "a.png").write_bytes(_png(width, height, 16, 2, lines, lace=1))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, array)


def test_png_that_we_write_is_read_by_pillow(tmp_path: pathlib.Path) -> None:
    for channels in (1, 2, 3, 4):
        array = _noise(300, 41, channels)
        meta = ImageMeta(icc=SRGB, dpi=(300, 150), colour=(("gAMA", struct.pack(">I", 45455)),))
        write_image(tmp_path / "a.png", Picture(array, meta=meta))
        with Image.open(tmp_path / "a.png") as image:
            image.load()
            np.testing.assert_array_equal(np.asarray(image).reshape(array.shape), array)
            assert image.info["icc_profile"] == SRGB
            assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)
            assert image.info["gamma"] == 0.45455
        back = read_image(tmp_path / "a.png").meta
        assert back.icc == SRGB
        assert back.dpi == pytest.approx((300, 150), abs=0.02)
        assert back.colour == meta.colour


# ---------------------------------------------------------------- pieces


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 40),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    ending=st.sampled_from(["png", "tif"]),
    cuts=st.lists(st.integers(0, 70), max_size=6),
)
def test_pieces_in_and_out_equal_the_whole(
    tmp_path: pathlib.Path, height: int, width: int, channels: int, dtype: Any, ending: str, cuts: list[int]
) -> None:
    array = np.random.default_rng(height).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)
    edges = sorted({0, height, *(cut for cut in cuts if cut < height)})
    path = tmp_path / f"a.{ending}"
    with ImageWriter(path, height, width, channels, dtype) as writer:
        for start, stop in itertools.pairwise(edges):
            buffer = array[start:stop].copy()
            writer.write(buffer)
            buffer[...] = 0  # the writer may not lean on an array that is used again
    with open_image(path) as image:
        assert (image.height, image.width, image.channels, image.dtype) == (*array.shape, np.dtype(dtype))
        for start, stop in itertools.pairwise(edges):
            np.testing.assert_array_equal(image.rows(start, stop), array[start:stop])
        for start in cuts:  # backwards and by jumps
            if start < height:
                np.testing.assert_array_equal(image.rows(start, height), array[start:])


@pytest.mark.parametrize(
    "options",
    [
        {"rowsperstrip": 7},
        {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
        {"tile": (16, 32), "compression": "zlib"},
        {"tile": (16, 32), "compression": "zlib", "predictor": True, "byteorder": ">"},
        {"planarconfig": "separate", "rowsperstrip": 5, "compression": "zlib"},
        {"byteorder": ">", "bigtiff": True},
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_other_writers(options: dict[str, Any], dtype: Any, tmp_path: pathlib.Path) -> None:
    array = _noise(53, 61, 3, dtype=dtype)
    data = np.moveaxis(array, 2, 0) if "planarconfig" in options else array
    if "byteorder" in options:
        data = data.astype(data.dtype.newbyteorder(">"))
    options = {key: value for key, value in options.items() if key != "byteorder"}
    tifffile.imwrite(
        tmp_path / "a.tif", data, photometric="rgb", byteorder=">" if data.dtype.byteorder == ">" else "<", **options
    )
    with open_image(tmp_path / "a.tif") as image:
        for start, stop in ((0, 3), (3, 30), (30, 53), (16, 17)):
            np.testing.assert_array_equal(image.rows(start, stop), array[start:stop])


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "group4"])
def test_tiff_of_libtiff(compression: str, tmp_path: pathlib.Path) -> None:
    image = Image.fromarray(_noise(90, 70, 3))
    image = image.convert("1") if compression == "group4" else image
    image.save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as stored:
        expected = np.asarray(stored.convert("L") if compression == "group4" else stored)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, expected.reshape(90, 70, -1))


def test_tiff_kinds_are_converted_and_said(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.tif"
    grey = _noise(20, 30)
    tifffile.imwrite(path, grey, photometric="miniswhite")
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels[..., 0], 255 - grey)
    assert picture.notes == ("grey stored from white to black: inverted",)
    four = _noise(20, 30, 4)
    four[..., 3] = 128
    tifffile.imwrite(path, four, photometric="rgb", extrasamples=["assocalpha"])
    picture = read_image(path)
    expected = np.minimum(np.rint(four[..., :3].astype(float) * 255 / 128), 255)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.notes == ("colours stored times alpha: divided by it",)
    tifffile.imwrite(path, four, photometric="rgb", extrasamples=["unspecified"])
    picture = read_image(path)
    assert picture.alpha is None
    assert picture.notes == ("1 further channel of the TIFF left out",)
    table = RNG.integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(path, grey, photometric="palette", colormap=table)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, np.rint(table.T[grey] / 257))
    assert picture.notes == ("palette of 256 colours read as RGB",)
    two = np.stack([grey, 255 - grey], 2)
    colours = [(320, 3, 768, table.ravel().tolist(), True)]
    tifffile.imwrite(path, two, photometric="minisblack", planarconfig="contig", extratags=colours)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[262].overwrite(3)  # tifffile itself writes no palette with a further channel
    picture = read_image(path)
    np.testing.assert_array_equal(picture.stored, np.rint(table.T[grey] / 257))
    assert picture.notes[0] == "1 further channel of the TIFF left out"


# ---------------------------------------------------------------- other formats and what goes with the pixels


@pytest.mark.parametrize(("ending", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("bmp", "BMP"), ("gif", "GIF")])
def test_whole_formats(ending: str, kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(_noise(33, 47, 3)).save(path)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.meta.format == kind
    with open_image(path) as image:
        np.testing.assert_array_equal(image.rows(5, 9), expected[5:9])


def test_jpeg_and_webp_are_written_with_their_data(tmp_path: pathlib.Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "Camera"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    array = np.clip(_noise(40, 30, 3).astype(int), 20, 200).astype(np.uint8)
    for ending in ("jpg", "webp"):
        path = tmp_path / f"a.{ending}"
        notes = write_image(path, Picture(array, meta=ImageMeta(icc=SRGB, exif=block, dpi=(300, 300))), quality=98)
        assert notes == (() if ending == "jpg" else ("resolution left out: WEBP has no place for it",))
        back = read_image(path)
        assert back.meta.icc == SRGB
        assert back.meta.exif is not None
        assert b"Camera" in back.meta.exif
        assert np.abs(back.pixels.astype(int) - array).mean() < 8
        assert back.meta.dpi == ((300, 300) if ending == "jpg" else None)
    write_image(tmp_path / "b.webp", Picture(array, alpha=np.full((40, 30), 9, np.uint8)))
    alpha = read_image(tmp_path / "b.webp").alpha
    assert alpha is not None
    assert (alpha == 9).all()


def _exif(orientation: int, thumbnail: bool = False) -> bytes:
    """EXIF with orientation, width and, if wanted, a second folder as previews have it; big-endian."""
    entries = struct.pack(">HHIHH", 0x0100, 3, 1, 47, 0) + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    block = b"MM\0*" + struct.pack(">IH", 8, 2) + entries + struct.pack(">I", 38 if thumbnail else 0)
    return block + (struct.pack(">HI", 0, 0) if thumbnail else b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "tiff"])
def test_orientation_is_applied_once(orientation: int, ending: str, tmp_path: pathlib.Path) -> None:
    array = _noise(21, 47, 3)
    path = tmp_path / f"a.{ending}"
    if ending == "tif":
        tifffile.imwrite(path, array, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    elif ending == "tiff":  # one that Pillow decodes
        Image.fromarray(array).save(path, compression="jpeg", tiffinfo={274: orientation})
    else:
        Image.fromarray(array).save(path, exif=b"Exif\0\0" + _exif(orientation))
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert (picture.height, picture.width) == ((47, 21) if orientation > 4 else (21, 47))
    assert len(picture.notes) == (orientation > 1)
    write_image(tmp_path / "b.png", picture)
    with Image.open(tmp_path / "b.png") as again:
        assert again.getexif().get(0x0112, 1) == 1
        if ending in ("png", "jpg", "webp"):
            assert again.getexif()[0x0100] == picture.width
    np.testing.assert_array_equal(read_image(tmp_path / "b.png").pixels, expected)


def test_exif_preview_and_damage() -> None:
    kept, orientation, notes = read_exif(_exif(6, thumbnail=True))
    assert orientation == 6
    assert kept is not None
    assert notes[0] == "EXIF preview left out: it shows the picture as it was"
    assert read_exif(kept)[1:] == (1, ())
    assert read_exif(_exif(9))[1:] == (1, ("EXIF orientation 9 does not exist: not turned",))
    for cut in range(1, len(_exif(6))):
        assert read_exif(_exif(6)[:cut])[1:] == (1, ("EXIF is damaged: left out, orientation unknown",))
    square = np.arange(6).reshape(2, 3)
    assert [turned(square, o).shape for o in range(1, 9)] == [(2, 3)] * 4 + [(3, 2)] * 4


def test_cmyk_with_and_without_profile(tmp_path: pathlib.Path) -> None:
    image = Image.new("CMYK", (9, 7), (0, 255, 0, 0))
    image.save(tmp_path / "a.jpg", quality=100)
    picture = read_image(tmp_path / "a.jpg")
    assert np.abs(picture.pixels.astype(int) - [255, 0, 255]).max() <= 3
    assert picture.notes == ("CMYK read as RGB",)
    image.save(tmp_path / "b.jpg", quality=100, icc_profile=b"not a profile")
    picture = read_image(tmp_path / "b.jpg")
    assert picture.meta.icc is None
    assert picture.notes == ("CMYK read as RGB, its colour profile is damaged: left out",)


def test_names_frames_and_what_is_left_out(tmp_path: pathlib.Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", format="JPEG")
    assert read_image(tmp_path / "a.png").notes == ("the name says .png, the content is JPEG",)
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(3)]
    for name in ("a.gif", "a.webp", "b.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        what = "pages" if name == "a.tif" else "frames"
        with pytest.raises(InputError, match=rf"{name}: the file holds 3 {what}.*Cure: ask for the first frame only"):
            read_image(tmp_path / name)
        picture = read_image(tmp_path / name, first_frame=True)
        assert picture.pixels.shape == (8, 8, 3)
        assert picture.notes[-1] == f"the first of 3 {what} was read"
    text = _png(1, 1, 8, 0, b"\0\7", (b"tEXt", b"Title\0x"), (b"tIME", bytes(7))) + b"tail"
    (tmp_path / "c.png").write_bytes(text)
    assert read_image(tmp_path / "c.png").notes == (
        "2 text chunks left out",
        "4 bytes after the end of the PNG passed over",
    )
    first = io.BytesIO()
    frames[0].save(first, "MPO", save_all=True, append_images=frames[1:2])
    (tmp_path / "d.jpg").write_bytes(first.getvalue())
    assert read_image(tmp_path / "d.jpg").notes == ("1 further picture inside the JPEG left out",)


# ---------------------------------------------------------------- writing


def _write_two_rows(path: pathlib.Path, divisor: int) -> None:
    with ImageWriter(path, 4, 4, 3) as writer:
        writer.write(np.zeros((2 // divisor, 4, 3), np.uint8))


def test_a_file_appears_complete_or_not_at_all(tmp_path: pathlib.Path) -> None:
    for name in ("a.png", "a.tif", "a.jpg", "a.webp"):
        path = tmp_path / name
        path.write_bytes(b"old")
        with pytest.raises(ZeroDivisionError):
            _write_two_rows(path, 0)
        with pytest.raises(InputError, match=rf"{name}: rows are missing. Found: 2 rows. Expected: 4"):
            _write_two_rows(path, 1)
        assert path.read_bytes() == b"old"
        with ImageWriter(path, 4, 4, 3) as writer:
            writer.write(np.zeros((4, 4, 3), np.uint8))
            assert path.read_bytes() == b"old"
        assert read_image(path).pixels.shape == (4, 4, 3)
        assert len(os.listdir(tmp_path)) == 1
        path.unlink()


def test_writing_into_an_open_file(tmp_path: pathlib.Path) -> None:
    array = _noise(30, 20, 3)
    for ending in ("png", "tif", "webp"):
        file = io.BytesIO()
        with ImageWriter(f"a.{ending}", 30, 20, 3, file=file) as writer:
            writer.write(array)
        (tmp_path / f"a.{ending}").write_bytes(file.getvalue())
        assert read_image(tmp_path / f"a.{ending}").pixels.shape == array.shape


def test_bigtiff_is_chosen_in_time_and_read_back(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.data.formats import image_write_tiff

    array = _noise(40, 30, 3, dtype=np.uint16)
    monkeypatch.setattr(image_write_tiff, "_CLASSIC", 100)
    monkeypatch.setattr(image_write_tiff, "_STRIP", 1000)
    write_image(tmp_path / "a.tif", Picture(array, meta=ImageMeta(icc=SRGB, dpi=(72, 72))))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), array)
        assert bytes(file.pages[0].tags[34675].value) == SRGB
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, array)
    assert picture.meta.dpi == (72, 72)


def test_what_cannot_be_written_is_refused_early(tmp_path: pathlib.Path) -> None:
    refusals: list[tuple[str, tuple[int, int, int], Any, str]] = [
        ("a.gif", (4, 4, 3), np.uint8, r"not written in this format. Found: .gif"),
        ("a.webp", (20_000, 4, 3), np.uint8, r"WEBP holds no image of this size.*16,383.*Cure: write .png or .tif"),
        ("a.jpg", (4, 70_000, 3), np.uint8, r"JPEG holds no image of this size.*65,500"),
        ("a.jpg", (4, 4, 4), np.uint8, "JPEG holds no alpha channel.*Cure: write .png, .webp or .tif"),
        ("a.png", (4, 4, 5), np.uint8, "not an image"),
        ("a.png", (4, 4, 3), np.float32, "not an image"),
    ]
    for name, shape, dtype, message in refusals:
        with pytest.raises(InputError, match=message):
            ImageWriter(tmp_path / name, *shape, dtype)
    with pytest.raises(InputError, match="no such quality"):
        ImageWriter(tmp_path / "a.jpg", 4, 4, 3, quality=0)
    with ImageWriter(tmp_path / "a.png", 4, 4, 3) as writer:
        with pytest.raises(InputError, match="rows that do not fit"):
            writer.write(np.zeros((1, 5, 3), np.uint8))
        with pytest.raises(InputError, match="more rows than the image has"):
            writer.write(np.zeros((5, 4, 3), np.uint8))
        writer.write(np.zeros((4, 4, 3), np.uint8))
    assert write_image(tmp_path / "a.webp", Picture(np.zeros((4, 4, 1), np.uint8))) == (
        "grey written as RGB: WEBP has no grey",
    )
