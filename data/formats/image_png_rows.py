"""Pixels of PNG, row by row in bounded memory: inflated in pieces, checksums verified, filters undone, 16 bits kept."""

from __future__ import annotations

import functools
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.formats.image_exif import read_exif
from pipelines.data.formats.image_png import PngHeader, PngIndex, read_index
from pipelines.data.formats.image_types import ImageMeta, ImageRows, damaged

__all__ = ["PngRows"]

_PIECE = 1 << 18  # bytes read, and about as many rows inflated, at a time
#: Where each pass of Adam7 begins (row, column) and how far apart its pixels lie.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


class PngRows(ImageRows):
    """An open PNG of any kind; without interlacing only the rows asked for are in memory.

    Args:
        path: the file.
        limit: most pixels.

    Raises:
        InputError: damaged, cut short, or too many pixels; damage within the pixels shows when they are read.

    Complexity: O(rows W) for rows in order; going back starts again from the top.

    Source: PNG, third edition (W3C 2025), sections 7 to 10.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.arange(12, dtype=np.uint8).reshape(4, 3)).save(f"{folder}/a.png")
        ...     with PngRows(f"{folder}/a.png", 100) as image:
        ...         image.height, image.width, image.channels, image.rows(2, 3).tolist()
        (4, 3, 1, [[[6], [7], [8]]])
    """

    def __init__(self, path: str | os.PathLike[str], limit: int) -> None:
        path = pathlib.Path(path)
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115, closed by close()
        try:
            self._index = read_index(self._file, path, limit)
            self._convert, channels, notes = _conversion(self._index, path)
            meta, orientation = _meta(self._index, notes)
        except BaseException:
            self._file.close()
            raise
        header = self._index.header
        dtype = np.uint16 if header.depth == 16 else np.uint8
        super().__init__(path, header.height, header.width, channels, dtype, meta, orientation)
        self._whole: np.ndarray | None = None
        self._next = 0
        self._stream: Iterator[np.ndarray] | None = None
        self._left: np.ndarray | None = None

    def close(self) -> None:
        """Close the file."""
        self._stream = self._left = self._whole = None
        self._file.close()

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if self._index.header.interlaced:
            if self._whole is None:
                self._whole = _interlaced(self._file, self._index, self.path)
            return self._convert(self._whole[start:stop])
        if self._stream is None or start < self._next:
            self._stream = _blocks(_Inflated(self._file, self._index, self.path), self._index.header)
            self._next, self._left = 0, None
        made = np.empty((stop - start, self.width, self.channels), self.dtype)
        while self._next < stop:
            block = next(self._stream) if self._left is None else self._left
            wanted = block[: stop - self._next]
            first = max(start - self._next, 0)
            if first < len(wanted):
                at = self._next + first - start
                made[at : at + len(wanted) - first] = self._convert(wanted[first:])
            self._left = block[len(wanted) :] if len(wanted) < len(block) else None
            self._next += len(wanted)
        return made


class _Inflated:
    """The compressed stream of all IDAT chunks as bytes, a given number at a time."""

    def __init__(self, file: BinaryIO, index: PngIndex, path: pathlib.Path) -> None:
        self._path = path
        self._packed = self._pieces(file, index)
        self._zlib = zlib.decompressobj()

    def take(self, count: int) -> bytearray:
        """Exactly so many bytes."""
        made = bytearray()
        while len(made) < count:
            # What was already read comes first: bytes may wait inside the decompressor too.
            more = self._decompressed(self._zlib.unconsumed_tail, count - len(made))
            if not more:
                packed = b"" if self._zlib.eof else next(self._packed, b"")
                if not packed:
                    raise damaged(self._path, "the PNG holds fewer rows than its header says")
                more = self._decompressed(packed, count - len(made))
            made += more
        return made

    def finish(self) -> None:
        """Go on to the end, so that the last checksums are compared; what lies behind the last row is no picture."""
        self._decompressed(self._zlib.unconsumed_tail, _PIECE)
        for packed in self._packed:
            if not self._zlib.eof:
                self._decompressed(self._zlib.unconsumed_tail + packed, _PIECE)

    def _decompressed(self, packed: bytes, most: int) -> bytes:
        try:
            return self._zlib.decompress(packed, most)
        except zlib.error as error:
            raise damaged(self._path, "the pixels of the PNG are damaged", str(error)) from None

    def _pieces(self, file: BinaryIO, index: PngIndex) -> Iterator[bytes]:
        for place, length in index.pieces:
            check = zlib.crc32(b"IDAT")
            for start in range(0, length, _PIECE):
                file.seek(place + start)  # the same file may be read elsewhere between two pieces
                data = file.read(min(_PIECE, length - start))
                check = zlib.crc32(data, check)
                yield data
            file.seek(place + length)
            if int.from_bytes(file.read(4), "big") != check:
                raise damaged(self._path, "the pixels of the PNG are damaged: a checksum is wrong")


def _blocks(stream: _Inflated, header: PngHeader) -> Iterator[np.ndarray]:
    """Blocks of rows (rows, W, samples) from top to bottom, about 256 kB each."""
    stride = header.stride(header.width)
    above = np.zeros(stride, np.uint8)
    for start in range(0, header.height, max(1, _PIECE // stride)):
        count = min(max(1, _PIECE // stride), header.height - start)
        raw = np.frombuffer(stream.take(count * (stride + 1)), np.uint8).reshape(count, stride + 1)
        _undo(raw, above, header.step, stream._path)
        above = raw[-1, 1:].copy()
        if start + count == header.height:
            stream.finish()
        yield _samples(raw[:, 1:], header, header.width)


def _interlaced(file: BinaryIO, index: PngIndex, path: pathlib.Path) -> np.ndarray:
    """All samples (H, W, samples) of an interlaced PNG."""
    header, stream = index.header, _Inflated(file, index, path)
    dtype = np.uint16 if header.depth == 16 else np.uint8
    whole = np.empty((header.height, header.width, header.samples), dtype)
    for top, left, down, across in _PASSES:
        part = whole[top::down, left::across]
        if part.size:
            stride = header.stride(part.shape[1])
            raw = np.frombuffer(stream.take(len(part) * (stride + 1)), np.uint8).reshape(-1, stride + 1)
            _undo(raw, np.zeros(stride, np.uint8), header.step, path)
            part[...] = _samples(raw[:, 1:], header, part.shape[1])
    stream.finish()
    return whole


def _samples(rows: NDArray[np.uint8], header: PngHeader, width: int) -> np.ndarray:
    """Bytes of rows (n, stride) as samples (n, W, samples), small ones one a byte, as stored."""
    if header.depth == 16:
        return np.ascontiguousarray(rows).view(">u2").astype(np.uint16).reshape(len(rows), width, header.samples)
    if header.depth < 8:
        bits = np.unpackbits(rows, axis=1)[:, : width * header.depth].reshape(len(rows), width, header.depth)
        weights = (1 << np.arange(header.depth - 1, -1, -1)).astype(np.uint8)
        return (bits * weights).sum(axis=2, dtype=np.uint8)[..., None]
    return rows.reshape(len(rows), width, header.samples)


def _conversion(index: PngIndex, path: pathlib.Path) -> tuple[Callable[[np.ndarray], np.ndarray], int, tuple[str, ...]]:
    """From stored samples to grey or RGB with or without alpha, how many channels that makes, and what to note."""
    header, key = index.header, index.chunks.get("tRNS")
    if header.kind == 3:
        table = index.palette(path)
        note = f"palette of {len(table)} colours read as RGB{' with alpha' if table.shape[1] == 4 else ''}"
        return lambda samples: _looked_up(samples, table, path), table.shape[1], (note,)
    factor = 255 // ((1 << header.depth) - 1) if header.depth < 8 else 1
    notes = (f"{header.depth}-bit grey widened to 8 bits",) if factor > 1 else ()
    if key is None or header.kind in (4, 6):
        return lambda samples: samples * np.uint8(factor) if factor > 1 else samples, header.samples, notes
    if len(key) != 2 * header.samples:
        raise damaged(path, "the transparent colour of the PNG has another length", f"{len(key)} bytes")
    colour = np.frombuffer(key, ">u2").astype(np.uint16)
    most = np.uint16(65535) if header.depth == 16 else np.uint8(255)

    def keyed(samples: np.ndarray) -> np.ndarray:
        alpha = np.where((samples == colour).all(axis=2, keepdims=True), 0, most).astype(samples.dtype)
        return np.concatenate([samples * np.uint8(factor) if factor > 1 else samples, alpha], axis=2)

    return keyed, header.samples + 1, (*notes, "one transparent colour read as alpha")


def _looked_up(samples: np.ndarray, table: np.ndarray, path: pathlib.Path) -> np.ndarray:
    highest = int(samples.max(initial=0))
    if highest >= len(table):
        raise damaged(path, "a pixel names a colour that the palette does not have", highest, f"below {len(table)}")
    return table[samples[..., 0]]


def _meta(index: PngIndex, notes: tuple[str, ...]) -> tuple[ImageMeta, int]:
    exif, orientation, of_exif = read_exif(index.chunks.get("eXIf"))
    icc, of_icc = index.profile()
    if index.texts:
        notes = (*notes, f"{index.texts} text {'chunk' if index.texts == 1 else 'chunks'} left out")
    if index.rest:
        notes = (*notes, f"{index.rest:,} bytes after the end of the PNG passed over")
    colour = tuple((name, index.chunks[name]) for name in ("gAMA", "cHRM", "sRGB", "cICP") if name in index.chunks)
    notes = (*notes, *of_exif, *of_icc)
    return ImageMeta("PNG", icc, exif, index.dpi, index.frames, colour, notes), orientation


def _undo(raw: NDArray[np.uint8], above: NDArray[np.uint8], step: int, path: pathlib.Path) -> None:
    """Undo the filters of rows (n, 1 + stride) in place; `above` is the row before the first."""
    wrong = np.flatnonzero(raw[:, 0] > 4)
    if len(wrong):
        raise damaged(path, "the pixels of the PNG are damaged", f"filter {raw[wrong[0], 0]}", "0 .. 4")
    _compiled_undo()(raw, above, step)


@functools.cache
def _compiled_undo() -> Callable[..., None]:
    import numba

    try:
        return numba.njit(_undo_loop, cache=True, nogil=True)
    except RuntimeError:
        # No folder where numba could keep the machine code: compile in every process instead.
        return numba.njit(_undo_loop, nogil=True)


def _undo_loop(raw: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> None:
    """PNG section 9: 1 adds the byte a pixel before, 2 the byte above, 3 their mean, 4 the nearest to their plane."""
    for i in range(raw.shape[0]):
        row = raw[i, 1:]
        before = raw[i - 1, 1:] if i else above
        kind = raw[i, 0]
        if kind == 1:
            for j in range(step, len(row)):
                row[j] += row[j - step]
        elif kind == 2:
            for j in range(len(row)):
                row[j] += before[j]
        elif kind == 3:
            for j in range(len(row)):
                left = row[j - step] if j >= step else np.uint8(0)
                row[j] += np.uint8((int(left) + int(before[j])) // 2)
        elif kind == 4:
            for j in range(len(row)):
                left = int(row[j - step]) if j >= step else 0
                corner = int(before[j - step]) if j >= step else 0
                up = int(before[j])
                to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
                if to_left <= to_up and to_left <= to_corner:
                    row[j] += np.uint8(left)
                elif to_up <= to_corner:
                    row[j] += np.uint8(up)
                else:
                    row[j] += np.uint8(corner)
