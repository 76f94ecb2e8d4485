"""Frames of MPEG audio (MP3 and its elders) and of AAC streams: where they lie, and where damage is between them."""

from __future__ import annotations

import dataclasses
import struct

from pipelines.data.formats.audio_source import SoundFileSource, remembered

__all__ = ["MpegFrame", "MpegScan", "aac_begins", "mpeg_begins", "mpeg_frame", "scan_mpeg"]

# Kilobits a second by index: MPEG-1 layers I, II, III, then MPEG-2 layer I, then its layers II and III.
_RATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = (44100, 48000, 32000)
_IN_A_ROW = 4


@dataclasses.dataclass(frozen=True)
class MpegFrame:
    """What four bytes of a header say: what must be the same in every frame, its bytes, samples and rate in Hz."""

    kind: int
    length: int
    samples: int
    rate: int


@dataclasses.dataclass(frozen=True)
class MpegScan:
    """What a walk from frame to frame found.

    Attributes:
        seconds: that whole frames last.
        declared: seconds by the header of a variable bit rate; None where there is none.
        before, after: bytes without a frame at the beginning and at the end.
        damaged: bytes between frames that are none.
        damage: second at which the first of them lie.
        cut: the last frame ends behind the end of the file.
        begin, end: bytes of the first frame, and behind the last whole one.
    """

    seconds: float
    declared: float | None
    before: int
    after: int
    damaged: int
    damage: float
    cut: bool
    begin: int
    end: int


def mpeg_frame(head: bytes) -> MpegFrame | None:
    """Read a frame's header of four bytes; None where they are none.

    Source: ISO/IEC 11172-3, section 2.4.1.3, and 13818-3; version 2.5 as decoders have it.

    Example:
        >>> mpeg_frame(bytes.fromhex("fffb9064")).length
        417
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, hertz = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return None
    first = 1 if version == 3 else 2
    kilobits = _RATES[first, layer][rate]
    frequency = _HERTZ[hertz] >> {3: 0, 2: 1, 0: 2}[version]
    padded = head[2] >> 1 & 1
    if layer == 1:
        length, samples = (12_000 * kilobits // frequency + padded) * 4, 384
    else:
        samples = 576 if layer == 3 and first == 2 else 1152
        length = samples // 8 * 1000 * kilobits // frequency + padded
    return MpegFrame(head[1] & 0x1E | hertz << 8, length, samples, frequency)


def mpeg_begins(head: bytes, *, whole: bool) -> int | None:
    """Where the first of several frames in a row begins; None where there are none.

    Args:
        head: the first bytes of a file.
        whole: they are all of the file, so that fewer frames that reach its end will do.

    Example:
        >>> frame = bytes.fromhex("fffb9064") + bytes(413)
        >>> mpeg_begins(b"xy" + 9 * frame, whole=False), mpeg_begins(b"xy" + frame, whole=False)
        (2, None)
    """
    place = head.find(b"\xff")
    while 0 <= place < len(head) - 4:
        if _row(head, place, whole):
            return place
        place = head.find(b"\xff", place + 1)
    return None


def _row(head: bytes, place: int, whole: bool) -> bool:
    first = mpeg_frame(head[place : place + 4])
    frame, count, at = first, 0, place
    while first is not None and frame is not None and frame.kind == first.kind:
        count += 1
        at += frame.length
        if count == _IN_A_ROW:
            return True
        if whole and (at == len(head) or head[at : at + 3] == b"TAG" or head[at : at + 8] == b"APETAGEX"):
            return place == 0 or count > 1
        frame = mpeg_frame(head[at : at + 4])
    return False


def aac_begins(head: bytes, size: int) -> bool:
    """Whether bytes begin with frames of an AAC stream with ADTS headers.

    Source: ISO/IEC 13818-7, section 6.2.

    Example:
        >>> aac_begins(bytes.fromhex("fff15080012000") + bytes(2) + bytes.fromhex("fff15080012000") + bytes(2), 18)
        True
    """
    place, count = 0, 0
    while count < 3 and place + 7 <= len(head):
        if head[place] != 0xFF or head[place + 1] & 0xF6 != 0xF0 or head[place + 2] >> 2 & 15 > 12:
            return False
        length = (head[place + 3] & 3) << 11 | head[place + 4] << 3 | head[place + 5] >> 5
        if length < 7:
            return False
        place, count = place + length, count + 1
    return count == 3 or (count > 0 and (place == size or place > len(head)))


@remembered
def scan_mpeg(source: SoundFileSource) -> MpegScan | None:
    """Walk over all frames of a file; None where there is not a single one.

    Tags at the beginning and the end are passed over, and so are tags between parts that were joined.

    Complexity: O(size) time, constant memory; some 0.5 s for two hours.
    """
    return _Walk(source).go()


class _Walk:
    def __init__(self, source: SoundFileSource) -> None:
        self.source, self.end = source, _without_tags(source)
        self.samples = self.damaged = self.before = self.after = self.first = self.last = 0
        self.damage = -1.0
        self.rate, self.kind = 1, -1
        self.declared: float | None = None

    def go(self) -> MpegScan | None:
        place, cut = 0, False
        read, seek = self.source.file.read, self.source.file.seek
        while place < self.end:
            seek(place)
            head = read(10)
            frame = mpeg_frame(head)
            if frame is not None and (self.kind in (-1, frame.kind)) and (self.kind >= 0 or self._followed(place)):
                if place + frame.length > self.end:
                    cut = True
                    break
                self._take(frame, place)
                place = self.last = place + frame.length
            elif head[:3] == b"ID3" and len(head) == 10:
                place += 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            else:
                place = self._search(place)
        if self.kind < 0:
            return None
        seconds = self.samples / self.rate
        counts = self.before, self.after, self.damaged
        return MpegScan(seconds, self.declared, *counts, max(0.0, self.damage), cut, self.first, self.last)

    def _take(self, frame: MpegFrame, place: int) -> None:
        if self.kind < 0:
            self.kind, self.rate, self.first = frame.kind, frame.rate, place
            self.source.file.seek(place)
            count = _declared_frames(self.source.file.read(min(frame.length, 200)), frame)
            if count is not None:
                self.declared = count * frame.samples / frame.rate
                return  # this frame holds the count, no sound
        self.samples += frame.samples

    def _followed(self, place: int) -> bool:
        head = self.source.head(1 << 14, place)
        return _row(head, 0, place + len(head) >= self.source.size)

    def _search(self, place: int) -> int:
        """The next place where two frames follow each other; the bytes up to it are counted."""
        start = place
        while place < self.end:
            head = self.source.head(1 << 16, place)
            at = head.find(b"\xff", 1 if place == start else 0)
            while at >= 0 and at + 4 <= len(head):
                if self._sound(place + at):
                    self._count(place + at - start)
                    return place + at
                at = head.find(b"\xff", at + 1)
            place += max(1, len(head) - 3)
        if self.kind >= 0:
            self.after += self.end - start
        return self.end

    def _sound(self, place: int) -> bool:
        frame = mpeg_frame(self.source.head(4, place))
        if frame is None or (self.kind >= 0 and frame.kind != self.kind):
            return False
        if self.kind < 0:
            return self._followed(place)
        following = mpeg_frame(self.source.head(4, place + frame.length))
        return place + frame.length == self.end or (following is not None and following.kind == frame.kind)

    def _count(self, skipped: int) -> None:
        if self.kind < 0:
            self.before += skipped
            return
        if self.damage < 0:
            self.damage = self.samples / self.rate
        self.damaged += skipped


def _without_tags(source: SoundFileSource) -> int:
    """Where the frames end: before ID3v1 and APE tags."""
    end = source.size
    if end > 128 and source.head(3, end - 128) == b"TAG":
        end -= 128
    if end > 32:
        footer = source.head(32, end - 32)
        if footer[:8] == b"APETAGEX":
            size, _, flags = struct.unpack_from("<III", footer, 12)
            end = max(0, end - size - (32 if flags >> 31 else 0))
    return end


def _declared_frames(head: bytes, frame: MpegFrame) -> int | None:
    """How many frames follow, by a first frame that holds this instead of sound (Xing, Info, VBRI)."""
    for mark in (b"Xing", b"Info"):
        at = head.find(mark, 4, 60)
        if at >= 0 and len(head) >= at + 12:
            flags, count = struct.unpack_from(">II", head, at + 4)
            return count if flags & 1 else None
    if head[36:40] == b"VBRI" and len(head) >= 54:
        return struct.unpack_from(">I", head, 50)[0]
    return None
