"""The structure of PNG: header, chunks and checksums, and what they say beside the pixels."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import struct
import zlib
from typing import BinaryIO

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.image_types import check_pixels, damaged

__all__ = ["SIGNATURE", "PngHeader", "PngIndex", "read_index"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_KEPT = (b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"acTL")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"tIME")
_MOST_BYTES = 1 << 26  # of a chunk that is read at once: no profile or EXIF is longer


@dataclasses.dataclass(frozen=True)
class PngHeader:
    """The header chunk.

    Args:
        width, height: pixels.
        depth: bits a sample: 1, 2, 4, 8 or 16.
        kind: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        interlaced: rows come in Adam7's seven passes.
    """

    width: int
    height: int
    depth: int
    kind: int
    interlaced: bool

    @property
    def samples(self) -> int:
        """Samples a pixel, as stored."""
        return _SAMPLES[self.kind]

    @property
    def step(self) -> int:
        """Bytes between a byte and the one that filters compare it with: a pixel, at least 1."""
        return max(1, self.samples * self.depth // 8)

    def stride(self, width: int) -> int:
        """Bytes of a row of so many pixels, without the byte of its filter.

        Example:
            >>> PngHeader(9, 1, 1, 0, False).stride(9)
            2
        """
        return (width * self.samples * self.depth + 7) // 8


@dataclasses.dataclass(frozen=True)
class PngIndex:
    """Header, where the pixels stand, and the other chunks that count.

    Args:
        header: the header chunk.
        pieces: (place, length) of the data of each IDAT chunk.
        chunks: contents by name; the first where one stands twice.
        texts: chunks of text and time, which are not read.
        rest: bytes after the end mark.
    """

    header: PngHeader
    pieces: tuple[tuple[int, int], ...]
    chunks: dict[str, bytes]
    texts: int
    rest: int

    @property
    def frames(self) -> int:
        """Pictures of an animated PNG, else 1."""
        control = self.chunks.get("acTL", b"")
        return struct.unpack(">I", control[:4])[0] if len(control) == 8 else 1

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels an inch, where the file says pixels a metre."""
        data = self.chunks.get("pHYs", b"")
        if len(data) != 9 or data[8] != 1:
            return None
        across, down = struct.unpack(">II", data[:8])
        return (across * 0.0254, down * 0.0254) if across and down else None

    def palette(self, path: pathlib.Path) -> np.ndarray:
        """(n, 3) colours, or (n, 4) where some of them are transparent.

        Raises:
            InputError: no palette, or one of an impossible length.
        """
        data = self.chunks.get("PLTE", b"")
        if not data or len(data) % 3 or len(data) > 768:
            raise damaged(path, "the palette is missing or has an impossible length", f"{len(data)} bytes")
        colours = np.frombuffer(data, np.uint8).reshape(-1, 3)
        if "tRNS" not in self.chunks:
            return colours
        alpha = np.full((len(colours), 1), 255, np.uint8)
        given = np.frombuffer(self.chunks["tRNS"][: len(colours)], np.uint8)
        alpha[: len(given), 0] = given
        return np.concatenate([colours, alpha], axis=1)

    def profile(self) -> tuple[bytes | None, tuple[str, ...]]:
        """The colour profile, unpacked, and a note where it cannot be."""
        data = self.chunks.get("iCCP")
        if data is None:
            return None, ()
        name, _, packed = data.partition(b"\0")
        stream = zlib.decompressobj()
        try:
            profile = stream.decompress(packed[1:], _MOST_BYTES)
        except zlib.error:
            profile = b""
        if not stream.eof or not name:
            return None, ("the colour profile is damaged: left out",)
        return profile, ()


def read_index(file: BinaryIO, path: pathlib.Path, limit: int) -> PngIndex:
    """Go through a PNG's chunks to its end mark; checksums of all but the pixels are checked here.

    Args:
        file: open for reading, at any place.
        path: for messages.
        limit: most pixels.

    Raises:
        InputError: damaged, cut short, or too many pixels.

    Complexity: O(chunks); pixels are passed over, not read.

    Source: PNG, third edition (W3C 2025), sections 5 and 11.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(len(SIGNATURE))
    header: PngHeader | None = None
    pieces: list[tuple[int, int]] = []
    chunks: dict[str, bytes] = {}
    texts, ended_pixels = 0, False
    while True:
        name, length = _next_chunk(file, path, size)
        if (header is None) != (name == b"IHDR"):
            raise damaged(path, "the header of the PNG is not its first chunk and the only one", ascii(name))
        if name == b"IEND":
            break
        if name == b"IDAT":
            if ended_pixels:
                raise damaged(path, "the pixels of the PNG are torn apart by other chunks")
            pieces.append((file.tell(), length))
            file.seek(length + 4, os.SEEK_CUR)
            continue
        ended_pixels = bool(pieces)
        texts += name in _TEXTS
        if name == b"IHDR":
            header = _header(_content(file, path, name, length), path, limit)
        elif name in _KEPT:
            chunks.setdefault(name.decode(), _content(file, path, name, length))
        elif not name[0] & 32:
            raise damaged(path, "a chunk of the PNG that must be understood is not known", ascii(name))
        else:
            file.seek(length + 4, os.SEEK_CUR)
    if header is None or not pieces:
        raise damaged(path, "the PNG holds no pixels")
    _content(file, path, name, length)
    return PngIndex(header, tuple(pieces), chunks, texts, size - file.tell())


def _next_chunk(file: BinaryIO, path: pathlib.Path, size: int) -> tuple[bytes, int]:
    head = file.read(8)
    if len(head) < 8:
        raise damaged(path, "the PNG ends too early", f"{size:,} bytes without an end mark")
    length, name = struct.unpack(">I4s", head)
    if not name.isalpha():
        raise damaged(path, "a chunk of the PNG has no name", f"{name!a} at byte {file.tell() - 4:,}")
    if file.tell() + length + 4 > size:
        expected = f"{file.tell() + length + 4:,} bytes at least"
        raise damaged(path, "the PNG ends too early", f"{size:,} bytes", expected)
    return name, length


def _content(file: BinaryIO, path: pathlib.Path, name: bytes, length: int) -> bytes:
    if length > _MOST_BYTES:
        raise damaged(path, f"the chunk {name.decode()} is too long", f"{length:,} bytes", f"{_MOST_BYTES:,} at most")
    data = file.read(length)
    (check,) = struct.unpack(">I", file.read(4))
    if zlib.crc32(data, zlib.crc32(name)) != check:
        raise damaged(path, f"the chunk {name.decode()} of the PNG is damaged: its checksum is wrong")
    return data


def _header(data: bytes, path: pathlib.Path, limit: int) -> PngHeader:
    if len(data) != 13:
        raise damaged(path, "the header of the PNG has another length", f"{len(data)} bytes", "13")
    width, height, depth, kind, packing, filtering, interlace = struct.unpack(">IIBBBBB", data)
    if depth not in _DEPTHS.get(kind, ()) or packing or filtering or interlace > 1:
        raise InputError(
            "the PNG is of a kind that does not exist",
            where=path.name,
            found=f"{depth} bits, colour type {kind}, methods {packing}, {filtering}, {interlace}",
        )
    check_pixels(path, height, width, limit)
    return PngHeader(width, height, depth, kind, bool(interlace))
