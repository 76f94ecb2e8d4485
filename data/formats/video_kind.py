"""Containers of films, told apart by their first bytes, and what other files are instead."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import struct

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_headers import has_index, promised_size
from pipelines.data.formats.audio_source import SoundFileSource
from pipelines.data.formats.heads import BRANDS, FOREIGN

__all__ = ["VIDEO_ENDINGS", "VideoKind", "check_file", "check_index", "kind_of_video", "missing_bytes", "sniffed"]


@dataclasses.dataclass(frozen=True)
class VideoKind:
    """A container.

    Attributes:
        name: as notes and facts call it.
        endings: of file names.
        demuxer: what PyAV calls it. It is always named: FFmpeg then never takes a file for a list of other files.
        counts: whether its header counts frames, and nothing else.
        says_length: whether its header says how long the film is, so that a missing end shows.
    """

    name: str
    endings: tuple[str, ...]
    demuxer: str
    counts: bool = False
    says_length: bool = False


_KINDS = (
    VideoKind("MP4", (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2"), "mov", counts=True, says_length=True),
    VideoKind("Matroska", (".mkv", ".webm"), "matroska", says_length=True),
    VideoKind("AVI", (".avi",), "avi", says_length=True),
    VideoKind("MPEG-TS", (".ts", ".mts", ".m2ts"), "mpegts"),
    VideoKind("MPEG", (".mpg", ".mpeg", ".vob"), "mpeg"),
    VideoKind("MPEG stream", (".m1v", ".m2v"), "mpegvideo"),
    VideoKind("ASF", (".wmv", ".asf"), "asf", says_length=True),
    VideoKind("FLV", (".flv", ".f4v"), "flv"),
    VideoKind("OGG", (".ogv",), "ogg"),
    VideoKind("GIF", (".gif",), "gif"),
    VideoKind("APNG", (".apng",), "apng"),
    VideoKind("Y4M", (".y4m",), "yuv4mpegpipe"),
    VideoKind("IVF", (".ivf",), "ivf"),
    VideoKind("H.264 stream", (".h264", ".264", ".avc"), "h264"),
    VideoKind("HEVC stream", (".h265", ".265", ".hevc"), "hevc"),
)
_BY_NAME = {kind.name: kind for kind in _KINDS}
#: Endings of files that are looked for in folders; ".ts" is more often a program or a table than a film.
VIDEO_ENDINGS = tuple(sorted({ending for kind in _KINDS for ending in kind.endings} - {".ts"}))

_STARTS = (
    (b"\x1aE\xdf\xa3", "Matroska"),
    (b"0&\xb2u\x8ef\xcf\x11", "ASF"),
    (b"FLV\x01", "FLV"),
    (b"OggS", "OGG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"YUV4MPEG2 ", "Y4M"),
    (b"DKIF", "IVF"),
    (b"\0\0\x01\xba", "MPEG"),
    (b"\0\0\x01\xb3", "MPEG stream"),
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_PACKETS = ((0, 188), (4, 192))  # where the marks of a transport stream stand, and how far apart
_H264, _HEVC = (7, 9), (32, 33, 35)  # kinds of units that such streams begin with
_FOREIGN = (
    *FOREIGN,
    (b"ID3", "sound (MP3)"),
    (b"fLaC", "sound (FLAC)"),
    (b"RIFF", "RIFF without a film"),
    (b"FORM", "sound (AIFF)"),
    (b"#EXTM3U", "a list of other files"),
    (b"ffconcat", "a list of other files"),
)
_SOUND_BRANDS = (b"M4A ", b"M4B ", b"M4P ")
_EXPECTED = "a film: mp4, mov, avi, mkv, webm, mpg, ts, wmv, flv, ogv, gif, y4m and others, or a folder of images"


def sniffed(head: bytes) -> VideoKind | None:
    """The container that begins so; None where it is none that is known.

    Args:
        head: the first bytes; a thousand are enough.

    Complexity: O(1).

    Example:
        >>> sniffed(b"GIF89a" + bytes(20)).name, sniffed(b"time,value")
        ('GIF', None)
    """
    if head[:4] == b"RIFF":
        return _BY_NAME["AVI"] if head[8:12] == b"AVI " else None
    if head[4:8] in _BOXES:
        still = head[8:12] in BRANDS and head[4:8] == b"ftyp"
        return None if still else _BY_NAME["MP4"]
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _BY_NAME["APNG"] if b"acTL" in head else None
    name = next((name for mark, name in _STARTS if head.startswith(mark)), None)
    if name is None:
        name = _bare_stream(head)
    if name is None and any(
        len(head) > 2 * step + at and all(head[at + k * step] == 0x47 for k in range(3)) for at, step in _PACKETS
    ):
        name = "MPEG-TS"
    return None if name is None else _BY_NAME[name]


def _bare_stream(head: bytes) -> str | None:
    start = next((len(mark) for mark in (b"\0\0\0\x01", b"\0\0\x01") if head.startswith(mark)), None)
    if start is None or len(head) <= start + 1:
        return None
    first, second = head[start], head[start + 1]
    if first < 0x80 and first & 0x1F in _H264 and first & 0x60 in (0x60, 0x20, 0):
        return "H.264 stream"
    return "HEVC stream" if first & 0x81 == 0 and first >> 1 in _HEVC and second & 7 else None


def kind_of_video(source: SoundFileSource) -> VideoKind:
    """The container that a file is, by its content.

    Raises:
        InputError: sound, text, a still image, an archive, zeros, or bytes that nothing is known of.

    Complexity: O(1).

    Example:
        >>> import io
        >>> kind_of_video(SoundFileSource("a.mp4", io.BytesIO(b"RIFF....AVI LIST"), 16)).name
        'AVI'
    """
    head = source.head(4096)
    kind = sniffed(head)
    if kind is not None:
        if kind.name == "MP4" and head[4:8] == b"ftyp" and head[8:12] in _SOUND_BRANDS:
            raise _not_a_film(source.name, "sound (MPEG-4 audio)")
        return kind
    foreign = next((name for mark, name in _FOREIGN if head.startswith(mark)), None)
    if head[:4] == b"RIFF":
        foreign = {b"WAVE": "sound (WAV)", b"WEBP": "a WebP image"}.get(head[8:12], foreign)
    if head[4:8] == b"ftyp":
        foreign = BRANDS.get(head[8:12], foreign)
    if foreign is None and not any(head):
        found = f"nothing but zeros in the first {len(head):,} of {source.size:,} bytes"
        cure = "copy the file again; it may have been cut while it was written"
        raise InputError("not a film", where=source.name, found=found, expected=_EXPECTED, cure=cure)
    if foreign is None and all(byte >= 32 or byte in (9, 10, 13) for byte in head[:64]) and 0x7F not in head[:64]:
        foreign = f"text that begins with {head[:24]!r}"
    raise _not_a_film(source.name, foreign or f"unknown bytes {head[:8].hex(' ')}")


def _not_a_film(name: str, found: str) -> InputError:
    cure = "check what kind of file this is"
    if "archive" in found or "zip" in found:
        cure = "unpack it first"
    elif "image" in found:
        cure = "put numbered images into a folder and name the folder"
    return InputError("not a film", where=name, found=found, expected=_EXPECTED, cure=cure)


def check_file(path: pathlib.Path) -> None:
    """Refuse what is no readable file with content.

    Raises:
        InputError: no such file, a folder, a pipe or device, no permission, empty.

    Complexity: O(1).

    Example:
        >>> check_file(pathlib.Path("no/film.mp4"))
        Traceback (most recent call last):
        pipelines.data.errors.InputError: no/film.mp4: no such file. ...
    """
    try:
        if not path.exists():
            near = sorted(p.name for p in path.parent.glob("*"))[:8] if path.parent.is_dir() else []
            cure = f"the folder holds {', '.join(near)}" if near else "check the path"
            raise InputError("no such file", where=path, cure=cure)
        if path.is_dir():
            raise InputError("is a folder", where=path, expected="a film")
        if not path.is_file():
            raise InputError("is not a regular file", where=path, expected="a file on disk", cure="save it first")
        if not os.access(path, os.R_OK):
            raise InputError("may not be read", where=path, expected="a readable file", cure="change its permissions")
        if path.stat().st_size == 0:
            cure = "copy or record it again"
            raise InputError("the file is empty", where=path.name, found="0 bytes", expected="a film", cure=cure)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError("cannot be opened", where=path, found=getattr(error, "strerror", None) or error) from None


def check_index(source: SoundFileSource, kind: VideoKind) -> None:
    """Refuse an MP4 without its index, or whose index counts more frames than the file has bytes.

    FFmpeg makes room for every frame that an index counts before it reads one of them.

    Raises:
        InputError: either of them.

    Complexity: O(boxes).

    Source: ISO/IEC 14496-12, sections 4.2 and 8.7.3.
    """
    if kind.name != "MP4":
        return
    if not has_index(source):
        found, cure = "no index (moov), which is written last", "record or copy it again; no frame is found without it"
        raise InputError("the file was cut or never finished", where=source.name, found=found, cure=cure)
    most = max(_counts(source), default=0)
    if most > source.size:
        found = f"an index of {most:,} frames in {source.size:,} bytes"
        cure = "copy the file again"
        raise InputError("the index is damaged", where=source.name, found=found, cure=cure)


_NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_MOST_BOXES = 20_000


def _counts(source: SoundFileSource) -> list[int]:
    """Frames that the tables of sizes (stsz) count, one number a table."""
    found: list[int] = []
    ends = [(0, source.size)]
    for _ in range(_MOST_BOXES):
        place, end = ends.pop() if ends else (0, 0)
        head = source.head(20, place) if place < min(end, source.size) else b""
        if len(head) < 8:
            if not ends:
                break
            continue
        size, name = struct.unpack_from(">I4s", head)
        begin = 8
        if size == 1 and len(head) >= 16:
            (size,), begin = struct.unpack_from(">Q", head, 8), 16
        size = end - place if size == 0 else size
        if size < begin:
            continue
        ends.append((place + size, end))
        if name in _NESTED:
            ends.append((place + begin, min(end, place + size)))
        elif name == b"stsz" and len(head) == 20:
            found.append(struct.unpack_from(">I", head, 16)[0])
    return found


def missing_bytes(source: SoundFileSource, kind: VideoKind) -> tuple[int, int] | None:
    """(bytes there are, bytes there should be by the headers) of a file that was cut; None for a whole one.

    Complexity: O(boxes).
    """
    try:
        promised = promised_size(source, kind.name)
    except struct.error:
        return None
    return (source.size, promised) if promised is not None and promised > source.size else None
