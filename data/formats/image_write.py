"""Writing image files row by row, completely or not at all, with what belongs to them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import stat
from typing import Any, BinaryIO, Protocol

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.image_exif import with_size
from pipelines.data.formats.image_types import ImageMeta, Picture
from pipelines.data.formats.image_write_png import PngSink
from pipelines.data.formats.image_write_tiff import TiffSink

__all__ = ["WRITABLE", "ImageWriter", "write_image"]

#: Formats that are written, by the ending of the name.
WRITABLE = {
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
}
_LONGEST = {"PNG": 2**31 - 1, "TIFF": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}


class _Sink(Protocol):
    def write(self, rows: np.ndarray) -> None: ...
    def finish(self) -> None: ...


class ImageWriter:
    """Takes the rows of an image from top to bottom and writes a file when the last one has come.

    Use it in a `with` statement. The file appears under its name when it is complete and on the disk; after an error,
    or when rows are missing, nothing is left and an older file is as it was.

    Args:
        path: the ending decides the format: .png, .tif, .tiff (row by row), .jpg, .jpeg, .webp (kept in memory).
        height, width, channels: of the image; 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        meta: profile, EXIF (its sizes are set to these, its orientation is 1), resolution.
        quality: of JPEG and WebP, 1 to 100; JPEG is written with full colour resolution.
        file: where to write instead, open for reading and writing; it is neither closed nor renamed, for callers
            that take care of this themselves.

    Attributes:
        notes: what the format cannot hold and was therefore changed.

    Raises:
        InputError: an ending, a size or channels that cannot be written, or rows that do not fit.
        OSError: the disk is full, or the folder does not allow writing.

    Complexity: O(H W) time; memory of about a megabyte for PNG and TIFF, of the image for JPEG and WebP.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ImageWriter(f"{folder}/a.png", 4, 3, 1, np.uint16) as writer:
        ...         writer.write(np.zeros((1, 3, 1), np.uint16))
        ...         writer.write(np.ones((3, 3, 1), np.uint16))
        ...     os.listdir(folder)
        ['a.png']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        height: int,
        width: int,
        channels: int,
        dtype: Any = np.uint8,
        meta: ImageMeta | None = None,
        *,
        quality: int = 95,
        file: BinaryIO | None = None,
    ) -> None:
        self.path = pathlib.Path(os.fspath(path))
        self.shape, self.dtype = (height, width, channels), np.dtype(dtype)
        self._kind = _checked(self.path, self.shape, self.dtype, quality)
        meta = meta or ImageMeta()
        self._meta, self.notes = _fitting(meta, self._kind, height, width, self.dtype, channels < 3)
        self._quality, self._given = quality, file
        self._file: BinaryIO | None = None
        self._temporary: pathlib.Path | None = None
        self._sink: _Sink | None = None
        self._done = 0

    def __enter__(self) -> ImageWriter:
        self._file = self._given
        if self._file is None:
            target = pathlib.Path(os.path.realpath(self.path))
            target.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = target.with_name(f".{target.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.partial")
            self._file = open(self._temporary, "xb")
        try:
            self._sink = self._opened(self._file)
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, rows: np.ndarray) -> None:
        """Rows (n, W, channels) of the image's dtype that follow the ones before.

        Raises:
            InputError: another shape or dtype, or more rows than the image has.
            OSError: the disk is full.
        """
        if self._sink is None:
            raise InputError("the writer is not open", where=self.path.name, cure="use it in a with statement")
        if rows.ndim != 3 or rows.shape[1:] != self.shape[1:] or rows.dtype != self.dtype:
            found, expected = f"{rows.dtype} {rows.shape}", f"{self.dtype} (n, {self.shape[1]}, {self.shape[2]})"
            raise InputError("rows that do not fit the image", where=self.path.name, found=found, expected=expected)
        if self._done + len(rows) > self.shape[0]:
            found = f"{self._done + len(rows)}"
            raise InputError("more rows than the image has", where=self.path.name, found=found, expected=self.shape[0])
        if len(rows):
            self._sink.write(rows)
            self._done += len(rows)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            if self._done < self.shape[0]:
                found = f"{self._done} rows"
                raise InputError("rows are missing", where=self.path.name, found=found, expected=self.shape[0])
            if self._sink is not None:
                self._sink.finish()
            self._keep()
        except BaseException:
            self._discard()
            raise

    def _opened(self, file: BinaryIO) -> _Sink:
        if self._kind == "PNG":
            return PngSink(file, *self.shape, self.dtype, self._meta)
        if self._kind == "TIFF":
            return TiffSink(file, *self.shape, self.dtype, self._meta)
        return _PillowSink(file, self._kind, self.shape, self.dtype, self._meta, self._quality)

    def _keep(self) -> None:
        if self._file is None or self._temporary is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        target = pathlib.Path(os.path.realpath(self.path))
        if target.exists():
            self._temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        self._temporary.replace(target)
        self._temporary = None

    def _discard(self) -> None:
        self._sink = None
        if self._temporary is None:
            return
        with contextlib.suppress(OSError):  # a full disk fails once more here; the first error is the one to show
            if self._file is not None:
                self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()


def write_image(path: str | os.PathLike[str], picture: Picture, *, quality: int = 95) -> tuple[str, ...]:
    """Write a whole image.

    Args:
        path: as for `ImageWriter`.
        picture: pixels, alpha and what goes with them.
        quality: of JPEG and WebP.

    Returns:
        Notes: what the format cannot hold and was therefore changed.

    Raises:
        InputError, OSError: as `ImageWriter`.

    Complexity: O(H W).

    Example:
        >>> import tempfile
        >>> picture = Picture(np.zeros((4, 3, 1), np.uint16))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/a.jpg", picture)
        ('16-bit values written as 8 bits: JPEG holds no more',)
    """
    stored = picture.stored
    height, width, channels = stored.shape
    with ImageWriter(path, height, width, channels, stored.dtype, picture.meta, quality=quality) as writer:
        writer.write(stored)
    return writer.notes


class _PillowSink:
    """Collects the rows of formats that are written as a whole."""

    def __init__(
        self,
        file: BinaryIO,
        kind: str,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        meta: ImageMeta,
        quality: int,
    ) -> None:
        self._file, self._kind, self._meta, self._quality = file, kind, meta, quality
        from PIL import Image

        height, width, channels = shape
        self._image = Image.new(("L", "LA", "RGB", "RGBA")[channels - 1], (width, height))
        self._narrow = dtype != np.uint8
        self._done = 0

    def write(self, rows: np.ndarray) -> None:
        from PIL import Image

        narrow = np.floor(rows / 257.0 + 0.5).astype(np.uint8) if self._narrow else rows
        self._image.paste(Image.fromarray(narrow[..., 0] if narrow.shape[2] == 1 else narrow), (0, self._done))
        self._done += len(rows)

    def finish(self) -> None:
        options: dict[str, Any] = {"quality": self._quality}
        if self._kind == "JPEG":
            options["subsampling"] = 0
            if self._meta.dpi:
                options["dpi"] = tuple(min(max(round(value), 1), 65_535) for value in self._meta.dpi)
        if self._meta.icc:
            options["icc_profile"] = self._meta.icc
        if self._meta.exif:
            options["exif"] = b"Exif\0\0" + self._meta.exif
        self._image.save(self._file, self._kind, **options)


def _checked(path: pathlib.Path, shape: tuple[int, int, int], dtype: np.dtype, quality: int) -> str:
    """The format, when the image can be written in it."""
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        found, expected = path.suffix or "no ending", ", ".join(WRITABLE)
        raise InputError("images are not written in this format", where=path.name, found=found, expected=expected)
    height, width, channels = shape
    if min(shape) < 1 or channels > 4 or dtype not in (np.uint8, np.uint16):
        found = f"{dtype} {shape}"
        raise InputError("not an image", where=path.name, found=found, expected="uint8 or uint16, 1 to 4 channels")
    if max(height, width) > _LONGEST[kind]:
        raise InputError(
            f"{kind} holds no image of this size",
            where=path.name,
            found=f"{width:,} x {height:,}",
            expected=f"{_LONGEST[kind]:,} pixels a side at most",
            cure="write .png or .tif",
        )
    if kind == "JPEG" and channels in (2, 4):
        raise InputError("JPEG holds no alpha channel", where=path.name, cure="write .png, .webp or .tif")
    if not 1 <= quality <= 100:
        raise InputError("no such quality", where="quality", found=quality, expected="1 to 100")
    return kind


def _fitting(
    meta: ImageMeta, kind: str, height: int, width: int, dtype: np.dtype, grey: bool
) -> tuple[ImageMeta, tuple[str, ...]]:
    """What of the meta data the format holds, and what it does not."""
    exif, notes = with_size(meta.exif, height, width), []
    if grey and kind == "WEBP":
        notes.append("grey written as RGB: WEBP has no grey")
    if dtype != np.uint8 and kind in ("JPEG", "WEBP"):
        notes.append(f"16-bit values written as 8 bits: {kind} holds no more")
    if exif and kind == "TIFF":
        exif = None
        notes.append("EXIF left out: it is not written to TIFF")
    if exif and kind == "JPEG" and len(exif) > 65_527:
        exif = None
        notes.append("EXIF left out: it is longer than JPEG allows")
    if meta.dpi and kind == "WEBP":
        notes.append("resolution left out: WEBP has no place for it")
    if meta.colour and kind != "PNG":
        notes.append(f"PNG's colour chunks left out: {', '.join(name for name, _ in meta.colour)}")
    return ImageMeta(kind, meta.icc, exif, meta.dpi, 1, meta.colour), tuple(notes)
