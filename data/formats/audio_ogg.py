"""Pages of Ogg files: checksums that decoders skip over in silence, what streams there are, and where a file is cut."""

from __future__ import annotations

import dataclasses
import struct
import zlib

from pipelines.data.formats.audio_source import SoundFileSource, remembered

__all__ = ["OggScan", "OggStream", "scan_ogg"]

_MARK = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_CODECS = (
    (b"\x01vorbis", "vorbis"),
    (b"OpusHead", "opus"),
    (b"\x7fFLAC", "flac"),
    (b"fLaC", "flac"),
    (b"Speex   ", "speex"),
    (b"\x80theora", "theora"),
)
_SOUND = ("vorbis", "opus", "flac", "speex")


@dataclasses.dataclass
class OggStream:
    """One stream of pages.

    Attributes:
        codec: vorbis, opus, flac, speex, theora, or "unknown".
        granules: position of the last page that has one: samples, for sound.
        pages: how many.
        ended: its last page is there.
        missing: pages that are not there by their numbers.
    """

    codec: str
    granules: int = 0
    pages: int = 0
    ended: bool = False
    missing: int = 0
    following: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether it is a stream of sound."""
        return self.codec in _SOUND


@dataclasses.dataclass(frozen=True)
class OggScan:
    """What a walk from page to page found.

    Attributes:
        streams: that begin together at the beginning of the file.
        later: streams that begin behind the end of others: chained files.
        intact: bytes up to the end of the last whole page.
        damaged: bytes that are no intact page.
        damage: byte at which the first of them lie.
        cut: bytes of a page at the end that is not whole.
    """

    streams: tuple[OggStream, ...]
    later: int
    intact: int
    damaged: int
    damage: int
    cut: int


@remembered
def scan_ogg(source: SoundFileSource) -> OggScan:
    """Read every page of a file and check its checksum and number.

    Complexity: O(size) time, constant memory.

    Source: RFC 3533, section 6.
    """
    streams: dict[int, OggStream] = {}
    place = intact = damaged = later = cut = 0
    damage = -1
    begun = False  # pages with sound have come: what begins later is chained
    while place < source.size:
        page = _page(source, place)
        if isinstance(page, int):
            if page == 0:  # it may be whole, and the file ends within it
                cut = source.size - place
                break
            damage = place if damage < 0 else damage
            following = _search(source, place + 1)
            damaged += following - place
            place = following
            continue
        flags, granule, serial, number, size, first = page
        if flags & 2:
            later += begun
            codec = next((name for mark, name in _CODECS if first.startswith(mark)), "unknown")
            if not begun:
                streams[serial] = OggStream(codec)
        else:
            begun = True
        if serial in streams:
            _count(streams[serial], flags, granule, number)
        place = intact = place + size
    return OggScan(tuple(streams.values()), later, intact, damaged, damage, cut)


def _count(stream: OggStream, flags: int, granule: int, number: int) -> None:
    if stream.pages and number > stream.following:
        stream.missing += number - stream.following
    stream.following = number + 1
    stream.pages += 1
    stream.granules = max(stream.granules, granule)
    stream.ended = stream.ended or bool(flags & 4)


def _page(source: SoundFileSource, place: int) -> tuple[int, int, int, int, int, bytes] | int:
    """Flags, position, stream, number, size and first bytes; 1 where there is no intact page, 0 where it is cut."""
    head = source.head(_HEADER.size + 255, place)
    if head[:4] != _MARK[: len(head)]:
        return 1
    if len(head) < _HEADER.size:
        return 0
    _, version, flags, granule, serial, number, checksum, segments = _HEADER.unpack_from(head)
    if version != 0 or flags > 7:
        return 1
    table = head[_HEADER.size : _HEADER.size + segments]
    size = _HEADER.size + segments + sum(table)
    if len(table) < segments or place + size > source.size:
        # A page says that it goes on behind the end; where another page follows, its size is what is damaged.
        return 1 if _search(source, place + 1) < source.size else 0
    page = source.head(size, place)
    if _checksum(page[:22] + bytes(4) + page[26:]) != checksum:
        return 1
    return flags, granule, serial, number, size, page[_HEADER.size + segments :][:16]


def _search(source: SoundFileSource, place: int) -> int:
    """Where the next mark of a page is; the size of the file where there is none."""
    while place < source.size:
        block = source.head(1 << 16, place)
        at = block.find(_MARK)
        if at >= 0:
            return place + at
        place += max(1, len(block) - 3)
    return source.size


def _checksum(page: bytes) -> int:
    """Ogg's CRC-32 counts bits from the other end than zlib's, starts at 0 and is not inverted."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
