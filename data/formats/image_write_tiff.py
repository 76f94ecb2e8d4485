"""Writing TIFF strip by strip; BigTIFF where 4 GB might not do."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

from pipelines.data.formats.image_types import ImageMeta

__all__ = ["TiffSink"]

_SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 3, 4, 5, 7, 16
_STRIP = 1 << 20  # bytes of a strip before it is packed, about
_CLASSIC = (1 << 32) - (1 << 26)  # more than this might not fit 32-bit places, with fields and poor packing


class TiffSink:
    """Takes rows from top to bottom and writes a TIFF of deflated strips with horizontal differences.

    Args:
        file: open for writing, and able to seek: the fields come last.
        height, width, channels: of the image; 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        meta: profile and resolution to write.
        level: zlib's effort, 0 to 9.

    Complexity: O(rows W) a call; one strip in memory, and 16 bytes a strip.

    Source: TIFF 6.0 (Adobe 1992), BigTIFF (AWare Systems 2007).

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> sink = TiffSink(file, 2, 3, 1, np.dtype(np.uint8), ImageMeta())
        >>> sink.write(np.zeros((2, 3, 1), np.uint8))
        >>> sink.finish()
        >>> file.getvalue()[:4]
        b'II*\\x00'
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
        self._file, self._shape, self._dtype, self._meta, self._level = (
            file,
            (height, width, channels),
            dtype,
            meta,
            level,
        )
        stride = width * channels * dtype.itemsize
        self._rows = max(1, min(height, _STRIP // stride))
        self._big = height * stride + len(meta.icc or b"") > _CLASSIC
        self._waiting: list[np.ndarray] = []
        self._places: list[tuple[int, int]] = []
        self._start = file.tell()
        # The place of the fields follows in finish().
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self._big else struct.pack("<2sHI", b"II", 42, 0))

    def write(self, rows: np.ndarray) -> None:
        """Rows (n, W, channels) that follow the ones before."""
        if sum(len(part) for part in self._waiting) + len(rows) < self._rows:
            self._waiting.append(rows.copy())  # the caller may use its array again
            return
        joined = np.concatenate([*self._waiting, rows])
        whole = len(joined) - len(joined) % self._rows
        for start in range(0, whole, self._rows):
            self._strip(joined[start : start + self._rows])
        self._waiting = [joined[whole:].copy()]

    def finish(self) -> None:
        """After the last row: the last strip and the fields."""
        if sum(len(part) for part in self._waiting):
            self._strip(np.concatenate(self._waiting))
        self._fields(self._entries())

    def _strip(self, rows: np.ndarray) -> None:
        differences = rows.astype(self._dtype.newbyteorder("<"))
        differences[:, 1:] -= rows[:, :-1]
        packed = zlib.compress(differences.tobytes(), self._level)
        self._places.append((self._file.tell() - self._start, len(packed)))
        self._file.write(packed)

    def _entries(self) -> list[tuple[int, int, int, bytes]]:
        """Fields as (tag, type, count, content) in ascending order of their tags."""
        height, width, channels = self._shape
        place = (_LONG8, "Q") if self._big else (_LONG, "I")
        bits = 8 * self._dtype.itemsize
        offsets, counts = zip(*self._places, strict=True)

        def many(tag: int, kind: int, letter: str, *values: int) -> tuple[int, int, int, bytes]:
            return tag, kind, len(values), struct.pack(f"<{len(values)}{letter}", *values)

        entries = [
            many(256, _LONG, "I", width),
            many(257, _LONG, "I", height),
            many(258, _SHORT, "H", *[bits] * channels),
            many(259, _SHORT, "H", 8),
            many(262, _SHORT, "H", 2 if channels > 2 else 1),
            many(273, *place, *offsets),
            many(274, _SHORT, "H", 1),
            many(277, _SHORT, "H", channels),
            many(278, _LONG, "I", self._rows),
            many(279, *place, *counts),
        ]
        if self._meta.dpi:
            for tag, value in zip((282, 283), self._meta.dpi, strict=True):
                entries.append((tag, _RATIONAL, 1, struct.pack("<II", min(round(value * 1000), 2**32 - 1), 1000)))
        entries.append(many(284, _SHORT, "H", 1))
        if self._meta.dpi:
            entries.append(many(296, _SHORT, "H", 2))
        entries.append(many(317, _SHORT, "H", 2))
        if channels in (2, 4):
            entries.append(many(338, _SHORT, "H", 2))  # alpha that the colours are not multiplied with
        if self._meta.icc:
            entries.append((34675, _UNDEFINED, len(self._meta.icc), self._meta.icc))
        return entries

    def _fields(self, entries: list[tuple[int, int, int, bytes]]) -> None:
        """Contents too long for their entry first, then the entries, then their place into the header."""
        room, entry, count, place = (8, "<HHQ", "<Q", "<Q") if self._big else (4, "<HHI", "<H", "<I")
        lines = []
        for tag, kind, values, content in entries:
            if len(content) > room:
                self._align()
                at = self._file.tell() - self._start
                self._file.write(content)
                content = struct.pack(place, at)
            lines.append(struct.pack(entry, tag, kind, values) + content.ljust(room, b"\0"))
        self._align()
        at = self._file.tell() - self._start
        self._file.write(struct.pack(count, len(lines)) + b"".join(lines) + bytes(room))
        end = self._file.tell()
        self._file.seek(self._start + (8 if self._big else 4))
        self._file.write(struct.pack(place, at))
        self._file.seek(end)

    def _align(self) -> None:
        if (self._file.tell() - self._start) % 2:
            self._file.write(b"\0")
