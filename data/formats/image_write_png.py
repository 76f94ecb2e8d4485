"""Writing PNG row by row: filters chosen a row at a time, compressed as rows come, 8 and 16 bits."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.formats.image_png import SIGNATURE
from pipelines.data.formats.image_types import ImageMeta

__all__ = ["PngSink"]

_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
_PIECE = 1 << 20  # bytes of an IDAT chunk, about


class PngSink:
    """Takes rows from top to bottom and writes a PNG.

    Args:
        file: open for writing; only written forward.
        height, width, channels: of the image; 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        meta: profile, EXIF, resolution and colour chunks to write.
        level: zlib's effort, 0 to 9.

    Complexity: O(rows W) a call; one block of rows in memory.

    Source: PNG, third edition (W3C 2025), sections 5, 9 and 11.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> sink = PngSink(file, 2, 3, 1, np.dtype(np.uint8), ImageMeta())
        >>> sink.write(np.zeros((2, 3, 1), np.uint8))
        >>> sink.finish()
        >>> file.getvalue()[:4], file.getvalue()[-8:-4]
        (b'\\x89PNG', b'IEND')
    """

    def __init__(
        self,
        file: BinaryIO,
        height: int,
        width: int,
        channels: int,
        dtype: np.dtype,
        meta: ImageMeta,
        *,
        level: int = 4,
    ) -> None:
        self._file, self._step = file, channels * dtype.itemsize
        self._zlib = zlib.compressobj(level, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
        self._packed = bytearray()
        self._above = np.zeros(width * self._step, np.uint8)
        file.write(SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, _KINDS[channels], 0, 0, 0))
        for name, content in meta.colour:
            self._chunk(name.encode(), content)
        if meta.icc:
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(meta.icc))
        if meta.dpi:
            across, down = (min(round(value / 0.0254), 2**31 - 1) for value in meta.dpi)
            self._chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
        if meta.exif:
            self._chunk(b"eXIf", meta.exif)

    def write(self, rows: np.ndarray) -> None:
        """Rows (n, W, channels) that follow the ones before."""
        data = rows if rows.dtype == np.uint8 else rows.astype(">u2").view(np.uint8)
        data = np.ascontiguousarray(data).reshape(len(rows), -1)
        # About as many rows at a time as keep the differences below in the processor's cache.
        for start in range(0, len(data), max(1, _PIECE // data.shape[1])):
            block = data[start : start + max(1, _PIECE // data.shape[1])]
            self._packed += self._zlib.compress(_filtered(block, self._above, self._step))
            self._above = block[-1].copy()
            if len(self._packed) >= _PIECE:
                self._chunk(b"IDAT", bytes(self._packed))
                self._packed.clear()

    def finish(self) -> None:
        """After the last row: what the compressor still holds, and the end mark."""
        self._packed += self._zlib.flush()
        self._chunk(b"IDAT", bytes(self._packed))
        self._chunk(b"IEND", b"")

    def _chunk(self, name: bytes, content: bytes) -> None:
        self._file.write(struct.pack(">I", len(content)) + name + content)
        self._file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(name))))


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """Each row with the filter of the smallest differences: none, to the pixel before (1) or to the row above (2)."""
    up = rows.copy()
    up[0] -= above
    up[1:] -= rows[:-1]
    sub = rows.copy()
    sub[:, step:] -= rows[:, :-step]
    candidates = (rows, sub, up)
    # Differences count as signed: 255 is -1.
    sizes = [np.abs(candidate.view(np.int8).astype(np.int16)).sum(axis=1) for candidate in candidates]
    chosen = np.argmin(sizes, axis=0)
    made = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    made[:, 0] = chosen
    for kind, candidate in enumerate(candidates):
        made[chosen == kind, 1:] = candidate[chosen == kind]
    return made.tobytes()
