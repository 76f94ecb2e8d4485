"""Image files of people: PNG, JPEG, WebP, TIFF, BMP and GIF, told apart by content, 16 bits kept, turned upright."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.image_exif import turned
from pipelines.data.formats.image_pillow import pillow_rows
from pipelines.data.formats.image_png import SIGNATURE
from pipelines.data.formats.image_png_rows import PngRows
from pipelines.data.formats.image_tiff import TiffRows, needs_pillow
from pipelines.data.formats.image_types import MAX_PIXELS, ArrayRows, ImageMeta, ImageRows, Picture

__all__ = ["ENDINGS", "MAX_PIXELS", "ImageMeta", "ImageRows", "Picture", "image_kind", "open_image", "read_image"]

#: Endings of file names by format.
ENDINGS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
}
_STARTS = {
    SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}
_FOREIGN = {
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"v/1\x01": "OpenEXR",
    b"SIMPLE  ": "a FITS file",
    b"<svg": "SVG",
    b"<?xml": "XML",
}
_EXPECTED = "PNG, JPEG, WebP, TIFF, BMP or GIF"


def read_image(path: str | os.PathLike[str], *, limit: int = MAX_PIXELS, first_frame: bool = False) -> Picture:
    """Read a whole image, upright, in the bits it is stored with.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP or GIF, whatever its name says.
        limit: most pixels.
        first_frame: of an animation or a file of several pages, take the first instead of refusing it.

    Returns:
        Pixels (H, W, C) uint8 or uint16, alpha apart, and what goes with them; notes say what was converted.

    Raises:
        InputError: no such file, a folder, empty, not an image, damaged, cut short, animated, or too many pixels.

    Complexity: O(H W) time and memory.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(f"{folder}/a.tif")
        ...     picture = read_image(f"{folder}/a.tif")
        >>> picture.pixels.shape, picture.pixels[0, 0].tolist(), picture.notes
        ((6, 8, 3), [255, 0, 0], ('CMYK read as RGB',))
    """
    with open_image(path, limit=limit, first_frame=first_frame) as image:
        stored = image.rows(0, image.height)
        if not image.has_alpha:
            return Picture(np.ascontiguousarray(stored), None, image.meta)
        return Picture(np.ascontiguousarray(stored[..., :-1]), stored[..., -1].copy(), image.meta)


def open_image(path: str | os.PathLike[str], *, limit: int = MAX_PIXELS, first_frame: bool = False) -> ImageRows:
    """Open an image to read its rows piece by piece; use it in a `with` statement.

    PNG without interlacing and TIFF need memory for the rows asked for (TIFF: for the strip or row of tiles they lie
    in); JPEG, WebP, BMP, GIF, interlaced PNG and pictures that must be turned are decoded as a whole.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP or GIF, whatever its name says.
        limit: most pixels.
        first_frame: of an animation or a file of several pages, take the first instead of refusing it.

    Returns:
        An object with `height`, `width`, `channels` (alpha last, where there is one), `dtype`, `meta` and `rows`.

    Raises:
        InputError: as `read_image`; damage within the pixels shows when their rows are read.

    Complexity: O(1) to O(H W), as above.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGBA", (500, 400)).save(f"{folder}/a.png")
        ...     with open_image(f"{folder}/a.png") as image:
        ...         image.height, image.channels, image.has_alpha, image.rows(10, 12).shape
        (400, 4, True, (2, 500, 4))
    """
    path = pathlib.Path(os.fspath(path))
    kind = image_kind(path)
    image = _opened(path, kind, limit)
    try:
        if path.suffix.lower() not in ENDINGS[kind]:
            image.meta = image.meta.noted(f"the name says {path.suffix or 'nothing'}, the content is {kind}")
        if image.meta.frames > 1:
            image.meta = _one_frame(path, image.meta, first_frame)
        if image.orientation == 1:
            return image
        upright = turned(image.rows(0, image.height), image.orientation)
        image.close()
        meta = image.meta
        if image.orientation > 4 and meta.dpi is not None:
            meta = dataclasses.replace(meta, dpi=meta.dpi[::-1])
        return ArrayRows(path, upright, meta)
    except BaseException:
        image.close()
        raise


def image_kind(path: str | os.PathLike[str]) -> str:
    """The format of an image file by its first bytes.

    Returns:
        PNG, JPEG, WEBP, TIFF, BMP or GIF.

    Raises:
        InputError: no such file, a folder, empty, or not an image that is read.

    Complexity: O(1).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.png")
        ...     _ = path.write_text("Dear all, ...")
        ...     image_kind(path)
        Traceback (most recent call last):
        pipelines.data.errors.InputError: a.png: not an image. ...
    """
    path = pathlib.Path(path)
    _check_file(path)
    with open(path, "rb") as file:
        head = file.read(32)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    foreign = next((name for start, name in _FOREIGN.items() if head.startswith(start)), None)
    if head[4:8] == b"ftyp":
        foreign = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}.get(head[8:12], "a film")
    if foreign is not None:
        raise InputError("this kind of file is not read", where=path.name, found=foreign, expected=_EXPECTED)
    text = all(byte >= 32 or byte in (9, 10, 13) for byte in head)
    found = f"text that begins with {head[:20]!r}" if text else f"unknown bytes {head[:8].hex(' ')}"
    raise InputError(
        "not an image", where=path.name, found=found, expected=_EXPECTED, cure="check what kind of file this is"
    )


def _opened(path: pathlib.Path, kind: str, limit: int) -> ImageRows:
    if kind == "PNG":
        return PngRows(path, limit)
    if kind == "TIFF" and not needs_pillow(path, limit):
        return TiffRows(path, limit)
    return pillow_rows(path, kind, limit)


def _one_frame(path: pathlib.Path, meta: ImageMeta, first_frame: bool) -> ImageMeta:
    what = "pages" if meta.format == "TIFF" else "frames"
    if not first_frame:
        raise InputError(
            f"the file holds {meta.frames} {what}",
            where=path.name,
            expected="one picture",
            cure="ask for the first frame only, or save each as a file of its own",
        )
    return meta.noted(f"the first of {meta.frames} {what} was read")


def _check_file(path: pathlib.Path) -> None:
    if path.is_dir():
        raise InputError("is a folder", where=path, expected="an image file")
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*"))[:8] if path.parent.is_dir() else []
        cure = f"the folder holds {', '.join(near)}" if near else "check the path"
        raise InputError("no such file", where=path, cure=cure)
    if not path.is_file():
        raise InputError("is not a regular file", where=path, expected="a file on disk", cure="save it to a file first")
    if not os.access(path, os.R_OK):
        raise InputError("may not be read", where=path, expected="a readable file", cure="change its permissions")
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=path.name, expected=_EXPECTED)
