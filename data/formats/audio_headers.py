"""How many bytes of sound a header promises, and how many there are: decoders read what is there without a word."""

from __future__ import annotations

import dataclasses
import struct

from pipelines.data.formats.audio_source import SoundFileSource

__all__ = ["SoundBytes", "has_index", "promised_size", "sound_bytes"]

#: Sizes that programs write where they do not know it: they sent the file down a pipe.
_OPEN_ENDED = 0x7FFF0000
_MOST_CHUNKS = 4096


@dataclasses.dataclass(frozen=True)
class SoundBytes:
    """Where the sound of an uncompressed file lies.

    Attributes:
        start: byte of the first sample.
        promised: bytes by the header; None where whoever wrote it did not know.
        available: bytes from the start to the end of the file.
        at: place of the four bytes that say how many; 0 where they are not patched.
        rate: by the header, Hz; None where that is not read here.
        leftover: bytes behind the sound that are no chunk.
        doubts: what contradicts itself in the header.
    """

    start: int
    promised: int | None
    available: int
    at: int = 0
    rate: int | None = None
    leftover: int = 0
    doubts: tuple[str, ...] = ()


def sound_bytes(source: SoundFileSource, kind: str) -> SoundBytes | None:
    """Find the sound in a file of chunks.

    Args:
        source: the file.
        kind: WAV, W64, AIFF, AU, CAF or NIST SPHERE; others have no such place.

    Returns:
        None where there is none, or it is not found.

    Complexity: O(chunks).

    Source: the formats' own descriptions: RIFF MCI 1.0 and EBU Tech 3306, AIFF 1.3, Sony Wave64, CAF, NIST SPHERE.

    Example:
        >>> import io
        >>> wav = b"RIFF" + bytes(4) + b"WAVEdata" + struct.pack("<I", 100) + bytes(60)
        >>> found = sound_bytes(SoundFileSource("a.wav", io.BytesIO(wav), len(wav)), "WAV")
        >>> found.start, found.promised, found.available
        (20, 100, 60)
    """
    found = {"WAV": _riff, "W64": _w64, "AIFF": _aiff, "AU": _au, "CAF": _caf, "NIST SPHERE": _sphere}.get(kind)
    try:
        return None if found is None else found(source)
    except (struct.error, ValueError):
        return None


def _riff(source: SoundFileSource) -> SoundBytes | None:
    head = source.head(12)
    order = ">" if head[:4] == b"RIFX" else "<"
    place, rate, long, doubts = 12, None, None, ()
    for _ in range(_MOST_CHUNKS):
        chunk = source.head(8, place)
        if len(chunk) < 8:
            return None
        name, (size,) = chunk[:4], struct.unpack(order + "I", chunk[4:])
        if name == b"ds64":
            (long,) = struct.unpack("<Q", source.head(8, place + 16))
        elif name == b"fmt ":
            rate, doubts = _layout(source.head(16, place + 8), order)
        elif name == b"data":
            size = size if long is None or size != 0xFFFFFFFF else long
            found = _data(source, place, size, rate, order, head[:4])
            return dataclasses.replace(found, doubts=doubts)
        place += 8 + size + size % 2
    return None


def _layout(content: bytes, order: str) -> tuple[int, tuple[str, ...]]:
    """The rate, and what contradicts it: of plain samples, all the numbers follow from three of them."""
    tag, channels, rate, speed, width, bits = struct.unpack(order + "HHIIHH", content)
    if tag not in (1, 3) or (speed == rate * width and width == channels * ((bits + 7) // 8)):
        return rate, ()
    numbers = f"{channels} x {bits} bits at {rate} Hz, but {width} bytes a sample and {speed:,} a second"
    return rate, (f"the header contradicts itself ({numbers}): the rate or the channels may be wrong",)


def _data(source: SoundFileSource, place: int, size: int, rate: int | None, order: str, mark: bytes) -> SoundBytes:
    start = place + 8
    available = source.size - start
    behind = start + size + size % 2
    chunks = size <= available and _only_chunks(source, behind, order)
    piped = size >= _OPEN_ENDED and size > available and mark in (b"RIFF", b"RIFX")
    if piped or (size == 0 and available > 0 and not chunks):
        return SoundBytes(start, None, available, place + 4, rate)
    leftover = source.size - behind if size < available and not chunks else 0
    return SoundBytes(start, size, available, 0, rate, max(0, leftover))


def _only_chunks(source: SoundFileSource, place: int, order: str) -> bool:
    """Whether a file goes on with chunks to its end; what is too short for one does not count."""
    for _ in range(_MOST_CHUNKS):
        chunk = source.head(8, place)
        if len(chunk) < 8:
            return True
        if not all(32 <= byte < 127 for byte in chunk[:4]):
            return False
        (size,) = struct.unpack(order + "I", chunk[4:])
        place += 8 + size + size % 2
        if place > source.size + 1:
            return False
    return False


def _w64(source: SoundFileSource) -> SoundBytes | None:
    place = 40
    for _ in range(_MOST_CHUNKS):
        chunk = source.head(24, place)
        (size,) = struct.unpack("<Q", chunk[16:])
        if chunk[:4] == b"data":
            return SoundBytes(place + 24, size - 24, source.size - place - 24)
        place += max(24, (size + 7) // 8 * 8)
    return None


def _aiff(source: SoundFileSource) -> SoundBytes | None:
    place = 12
    for _ in range(_MOST_CHUNKS):
        name, size = struct.unpack(">4sI", source.head(8, place))
        if name == b"SSND":
            return SoundBytes(place + 16, size - 8, source.size - place - 16)
        place += 8 + size + size % 2
    return None


def _au(source: SoundFileSource) -> SoundBytes:
    start, size = struct.unpack(">II", source.head(8, 4))
    return SoundBytes(start, None if size == 0xFFFFFFFF else size, source.size - start)


def _caf(source: SoundFileSource) -> SoundBytes | None:
    place = 8
    for _ in range(_MOST_CHUNKS):
        name, size = struct.unpack(">4sq", source.head(12, place))
        if name == b"data":
            # The first four bytes count edits.
            return SoundBytes(place + 16, None if size < 0 else size - 4, source.size - place - 16)
        place += 12 + max(0, size)
    return None


def _sphere(source: SoundFileSource) -> SoundBytes | None:
    lines = source.head(1024).split(b"\n")
    start, fields = int(lines[1]), {}
    for line in lines[2:]:
        parts = line.split(None, 2)
        if len(parts) == 3 and parts[1] == b"-i":
            fields[parts[0]] = int(parts[2])
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if not all(name in fields for name in names):
        return None
    size = fields[names[0]] * fields[names[1]] * fields[names[2]]
    return SoundBytes(start, size, source.size - start)


def promised_size(source: SoundFileSource, kind: str) -> int | None:
    """Bytes that an MP4, a Matroska or an AVI must have by its own headers; None where they leave it open.

    Complexity: O(boxes).

    Source: ISO/IEC 14496-12, section 4.2; RFC 8794, sections 4 and 6.

    Example:
        >>> import io
        >>> mp4 = struct.pack(">I4s", 16, b"ftyp") + bytes(8) + struct.pack(">I4s", 500, b"mdat") + bytes(80)
        >>> promised_size(SoundFileSource("a.m4a", io.BytesIO(mp4), len(mp4)), "MP4")
        516
    """
    if kind == "AVI":
        return 8 + struct.unpack("<I", source.head(4, 4))[0]
    if kind == "Matroska":
        return _segment_end(source)
    return max((end for _, end in _boxes(source)), default=None) if kind == "MP4" else None


def has_index(source: SoundFileSource) -> bool:
    """Whether an MP4 has its index (moov), which recorders write last."""
    return any(name == b"moov" for name, _ in _boxes(source))


def _boxes(source: SoundFileSource) -> list[tuple[bytes, int]]:
    """Names and ends of the outer boxes, as far as they are any."""
    found: list[tuple[bytes, int]] = []
    place = 0
    while place + 8 <= source.size and len(found) < _MOST_CHUNKS:
        head = source.head(16, place)
        size, name = struct.unpack_from(">I4s", head)
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
        if size == 0:
            size = source.size - place  # to the end of the file
        if size < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in name):
            break
        place += size
        found.append((name, place))
    return found


def _segment_end(source: SoundFileSource) -> int | None:
    place = 4
    length, size = _number(source.head(8, place))
    place += length + (size or 0)
    if source.head(4, place) != b"\x18S\x80g":
        return None
    length, size = _number(source.head(8, place + 4))
    return None if size is None else place + 4 + length + size


def _number(head: bytes) -> tuple[int, int | None]:
    """Length and value of a number that tells its own length; None for "unknown"."""
    if not head or not head[0]:
        return 1, 0
    length = 9 - head[0].bit_length()
    value = int.from_bytes(head[:length], "big") & ((1 << 7 * length) - 1)
    return length, None if value == (1 << 7 * length) - 1 else value
