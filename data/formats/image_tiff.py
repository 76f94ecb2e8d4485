"""TIFF and BigTIFF of 1, 8 and 16 bits: strips and tiles are unpacked as rows are asked for."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.image_exif import orientation_of
from pipelines.data.formats.image_lzw import unpack_lzw, unpack_packbits
from pipelines.data.formats.image_types import ImageMeta, ImageRows, check_pixels, damaged

__all__ = ["TiffRows", "needs_pillow"]

_PLAIN, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
_OURS = (_PLAIN, _LZW, *_DEFLATE, _PACKBITS)
_WHITE, _BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_ICC, _EXIF, _GEO = 34675, 34665, (33550, 33922, 34264, 34735)
_CURE = "save it as an 8-bit or 16-bit grey or RGB TIFF or PNG"

Convert = Callable[[np.ndarray], np.ndarray]


class TiffRows(ImageRows):
    """An open TIFF; plain strips are read row by row, packed ones and tiles are unpacked one row of them at a time.

    Args:
        path: the file.
        limit: most pixels.

    Raises:
        InputError: damaged, cut short, too many pixels, or of a kind that is not read.

    Complexity: O(rows W) and the rest of the strips or tiles that the rows lie in.

    Source: TIFF 6.0 (Adobe 1992); structure through tifffile.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int) -> None:
        path = pathlib.Path(path)
        self._layout, frames = _layout(path, limit)
        layout = self._layout
        self._convert, channels, notes = _conversion(layout, path)
        dtype = np.uint16 if layout.bits == 16 else np.uint8
        meta = ImageMeta("TIFF", layout.icc, None, layout.dpi, frames, (), (*layout.notes, *notes))
        super().__init__(path, layout.height, layout.width, channels, dtype, meta, layout.orientation)
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115, closed by close()
        self._kept: tuple[int, np.ndarray] | None = None

    def close(self) -> None:
        """Close the file."""
        self._kept = None
        self._file.close()

    def _rows(self, start: int, stop: int) -> np.ndarray:
        layout = self._layout
        made = np.empty((stop - start, self.width, self.channels), self.dtype)
        at = start
        while at < stop:
            number = at // layout.rows
            top = number * layout.rows
            end = min(stop, top + layout.rows)
            made[at - start : end - start] = self._convert(self._band(number, at - top, end - top))
            at = end
        return made

    def _band(self, number: int, first: int, last: int) -> np.ndarray:
        """Rows [first, last) of the strip, or row of tiles, with this number: (rows, W, samples) as stored."""
        layout = self._layout
        if layout.packing == _PLAIN and not layout.tiled and layout.planes == 1:
            offset, stride = layout.places[number][0] + first * layout.stride, layout.stride
            data = self._read(offset, (last - first) * stride)
            return layout.samples_of(data, last - first, layout.width, self.path)
        if self._kept is None or self._kept[0] != number:
            self._kept = number, self._whole_band(number)
        return self._kept[1][first:last]

    def _whole_band(self, number: int) -> np.ndarray:
        layout = self._layout
        height = layout.rows if layout.tiled else min(layout.rows, layout.height - number * layout.rows)
        across = math.ceil(layout.width / layout.columns)
        planes = []
        for plane in range(layout.planes):
            first = plane * (len(layout.places) // layout.planes) + number * across
            parts = [self._segment(first + part, height) for part in range(across)]
            planes.append(np.concatenate(parts, axis=1)[:, : layout.width])
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _segment(self, number: int, height: int) -> np.ndarray:
        layout = self._layout
        offset, length = layout.places[number]
        size = height * layout.stride
        data = self._read(offset, length)
        try:
            data = _unpacked(data, layout.packing, size)
        except zlib.error as error:
            raise damaged(self.path, f"part {number} of the TIFF is damaged", str(error)) from None
        if len(data) < size:
            found, expected = f"{len(data):,} bytes", f"{size:,}"
            raise damaged(self.path, f"part {number} of the TIFF holds too few pixels", found, expected)
        samples = layout.samples_of(data[:size], height, layout.columns, self.path)
        # The predictor stores differences to the pixel before, which wrap around as the sums do.
        return np.cumsum(samples, axis=1, dtype=samples.dtype) if layout.predictor == 2 else samples

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) < length:
            raise damaged(self.path, "the TIFF ends too early", f"{len(data):,} bytes at {offset:,}", f"{length:,}")
        return data


class _Layout:
    """What the fields of the first picture say, as plain numbers."""

    def __init__(self, page: Any, path: pathlib.Path, order: str) -> None:
        bits = page.bitspersample
        self.bits: int = bits if isinstance(bits, int) else max(bits)
        self.even = isinstance(bits, int) or len(set(bits)) == 1
        self.kind = int(page.sampleformat)
        self.height, self.width = int(page.imagelength), int(page.imagewidth)
        self.samples = int(page.samplesperpixel)
        self.photometric, self.packing = int(page.photometric), int(page.compression)
        self.predictor, self.order = int(page.predictor), order
        self.filled_from_right = int(page.fillorder) == 2
        self.tiled = bool(page.is_tiled)
        self.rows = int(page.tilelength if self.tiled else min(page.rowsperstrip, self.height))
        self.columns = int(page.tilewidth if self.tiled else self.width)
        self.planes = self.samples if int(page.planarconfig) == 2 else 1
        self.extra = tuple(int(kind) for kind in page.extrasamples)
        self.places = tuple(
            (int(offset), int(count)) for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        )
        tags = page.tags
        self.orientation, of_turning = orientation_of(int(tags[274].value) if 274 in tags else 1)
        self.icc = bytes(tags[_ICC].value) if _ICC in tags else None
        self.colours = np.asarray(tags[320].value, np.uint16) if 320 in tags else None
        self.dpi = _dpi(tags)
        self.notes = of_turning + tuple(
            f"{name} of the TIFF left out"
            for name, numbers in (("EXIF", (_EXIF,)), ("georeference", _GEO))
            if any(number in tags for number in numbers)
        )

    @property
    def stride(self) -> int:
        """Bytes of a row of a strip or tile."""
        return (self.columns * (self.samples // self.planes) * self.bits + 7) // 8

    def samples_of(self, data: bytes, height: int, width: int, path: pathlib.Path) -> np.ndarray:
        """Unpacked bytes as (height, width, samples)."""
        samples = self.samples // self.planes
        if self.bits == 1:
            rows = np.frombuffer(data, np.uint8).reshape(height, -1)
            return np.unpackbits(rows, axis=1)[:, : width * samples].reshape(height, width, samples)
        dtype = np.dtype(np.uint8 if self.bits == 8 else f"{self.order}u2")
        return np.frombuffer(data, dtype).reshape(height, width, samples).astype(dtype.newbyteorder("="), copy=False)


def needs_pillow(path: str | os.PathLike[str], limit: int) -> bool:
    """Whether a TIFF is one of 8 bits whose packing or colours Pillow decodes: JPEG, CCITT, CMYK and others.

    Raises:
        InputError: as `TiffRows`.

    Complexity: O(fields).
    """
    layout, _ = _layout(pathlib.Path(path), limit)
    foreign = layout.packing not in _OURS or layout.photometric in (_CMYK, _YCBCR) or layout.filled_from_right
    return foreign and layout.bits in (1, 8) and layout.kind == 1


def _layout(path: pathlib.Path, limit: int) -> tuple[_Layout, int]:
    """The first picture's layout, checked against the file, and how many pictures there are."""
    import tifffile

    with _silent():
        try:
            with tifffile.TiffFile(path) as file:
                pages = list(file.pages)
                full = sum(not int(getattr(page, "subfiletype", 0)) & 5 for page in pages)  # no previews, no masks
                layout = _Layout(pages[0], path, file.byteorder)
        except Exception as error:  # tifffile raises whatever its parsing stumbles over
            raise damaged(path, "the TIFF is damaged", f"{type(error).__name__}: {error}"[:200]) from None
    check_pixels(path, layout.height, layout.width, limit)
    if min(layout.samples, layout.rows, layout.columns, layout.bits) < 1 or layout.samples > 64:
        raise damaged(path, "the TIFF's fields make no sense", f"{layout.samples} samples of {layout.bits} bits")
    count = math.ceil(layout.height / layout.rows) * math.ceil(layout.width / layout.columns) * layout.planes
    if len(layout.places) != count:
        raise damaged(path, "the TIFF lacks pixels", f"{len(layout.places)} strips or tiles", count)
    end, size = max(offset + length for offset, length in layout.places), path.stat().st_size
    if end > size:
        raise damaged(path, "the TIFF ends too early", f"{size:,} bytes", f"{end:,} at least")
    if layout.rows * layout.columns > 4 * limit:
        raise damaged(path, "a tile of the TIFF is larger than the image may be", f"{layout.columns} x {layout.rows}")
    return layout, max(full, 1)


def _conversion(layout: _Layout, path: pathlib.Path) -> tuple[Convert, int, tuple[str, ...]]:
    """From stored samples to grey or RGB with or without alpha, how many channels that makes, and what to note."""
    colours, extra = _colours(layout, path)
    notes: list[str] = []
    steps: list[Convert] = []
    alpha = int(extra[:1] in ((1,), (2,)))
    kept, left, channels = colours + alpha, len(extra) - alpha, colours + alpha
    if left:
        notes.append(f"{left} further {'channel' if left == 1 else 'channels'} of the TIFF left out")
        steps.append(lambda samples: samples[..., :kept])
    most = {1: 1, 8: 255, 16: 65535}[layout.bits]
    if layout.photometric == _WHITE:
        notes.append("grey stored from white to black: inverted")
        steps.append(
            lambda samples: np.concatenate([most - samples[..., :1], samples[..., 1:]], 2, dtype=samples.dtype)
        )
    if layout.photometric == _PALETTE:
        table = _colour_table(layout, path)
        notes.append(f"palette of {len(table)} colours read as RGB")
        steps.append(lambda samples: np.concatenate([table[samples[..., 0]], samples[..., 1:]], axis=2))
        channels += 2
    elif layout.bits == 1:
        notes.append("1-bit grey widened to 8 bits")
        steps.append(lambda samples: samples * np.uint8(255))
    if extra[:1] == (1,):
        notes.append("colours stored times alpha: divided by it")
        steps.append(_unmultiplied)
    return (lambda samples: _chained(steps, samples)), channels, tuple(notes)


def _colours(layout: _Layout, path: pathlib.Path) -> tuple[int, tuple[int, ...]]:
    """Samples that are colours, and what the others are: 0 unstated, 1 alpha that colours are multiplied with, 2 alpha.

    Raises:
        InputError: values, colours or packings that are not read.
    """
    if layout.bits not in (1, 8, 16) or not layout.even or layout.kind != 1:
        kinds = {1: "unsigned", 2: "signed", 3: "floating-point"}
        found = f"{layout.bits}-bit {kinds.get(layout.kind, 'other')} values"
        raise InputError("a TIFF of this kind is not read", where=path.name, found=found, cure=_CURE)
    colours = {_WHITE: 1, _BLACK: 1, _RGB: 3, _PALETTE: 1}.get(layout.photometric, 0)
    readable = layout.packing in _OURS and layout.predictor in (1, 2) and not layout.filled_from_right
    if not colours or not readable or layout.samples < colours:
        found = f"compression {layout.packing}, colours {layout.photometric}, {layout.samples} samples"
        raise InputError("a TIFF of this kind is not read", where=path.name, found=found, cure=_CURE)
    extra = (*layout.extra, *[0] * layout.samples)[: layout.samples - colours]
    if colours == 1 and len(extra) > 1:
        found = f"{layout.samples} channels"
        raise InputError("a TIFF of several channels without colours", where=path.name, found=found, cure=_CURE)
    return colours, extra


def _chained(steps: list[Convert], samples: np.ndarray) -> np.ndarray:
    for step in steps:
        samples = step(samples)
    return samples


def _colour_table(layout: _Layout, path: pathlib.Path) -> np.ndarray:
    if layout.colours is None or layout.colours.size != 3 * 2**layout.bits or layout.bits > 8:
        raise damaged(path, "the palette of the TIFF is missing or has an impossible length")
    table = layout.colours.reshape(3, -1).T.astype(np.float64)
    # Some programs fill the 16-bit palette with 8-bit values.
    return np.rint(table / (257 if table.max() > 255 else 1)).astype(np.uint8)


def _unmultiplied(samples: np.ndarray) -> np.ndarray:
    alpha, most = samples[..., -1:], np.iinfo(samples.dtype).max
    colours = np.rint(samples[..., :-1] * (most / np.maximum(alpha, 1).astype(np.float64)))
    return np.concatenate([np.minimum(colours, most).astype(samples.dtype), alpha], axis=2)


def _unpacked(data: bytes, packing: int, size: int) -> bytes:
    if packing == _LZW:
        return unpack_lzw(data, size)
    if packing in _DEFLATE:
        return zlib.decompressobj().decompress(data, size)
    return unpack_packbits(data, size) if packing == _PACKBITS else data


def _dpi(tags: Any) -> tuple[float, float] | None:
    try:
        (a, b), (c, d) = tags[282].value, tags[283].value
        factor = {2: 1.0, 3: 2.54}[int(tags[296].value) if 296 in tags else 2]
        return (a / b * factor, c / d * factor) if a and c else None
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """tifffile logs what it finds wrong; what matters of it is said by our own errors and notes."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
