"""Formats of sound, told apart by their first bytes, and what other files are instead."""

from __future__ import annotations

import dataclasses

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_mpeg import aac_begins, mpeg_begins
from pipelines.data.formats.audio_source import SoundFileSource
from pipelines.data.formats.heads import BRANDS, FOREIGN

__all__ = ["AUDIO_ENDINGS", "Kind", "kind_of"]

_LOOKED_AT = 1 << 16


@dataclasses.dataclass(frozen=True)
class Kind:
    """A container.

    Attributes:
        name: as notes and facts call it.
        endings: of file names.
        demuxer: what PyAV calls it; None where libsndfile alone reads it.
        by_libsndfile: libsndfile is tried first.
    """

    name: str
    endings: tuple[str, ...]
    demuxer: str | None = None
    by_libsndfile: bool = False


_KINDS = (
    Kind("WAV", (".wav", ".wave", ".bwf", ".rf64"), "wav", True),
    Kind("W64", (".w64",), "w64", True),
    Kind("AIFF", (".aiff", ".aif", ".aifc"), "aiff", True),
    Kind("AU", (".au", ".snd"), "au", True),
    Kind("CAF", (".caf",), "caf", True),
    Kind("FLAC", (".flac",), None, True),
    Kind("OGG", (".ogg", ".oga", ".opus", ".spx", ".ogv"), "ogg", True),
    Kind("NIST SPHERE", (".sph", ".nist", ".wv1", ".wv2", ".wav"), None, True),
    Kind("VOC", (".voc",), "voc", True),
    Kind("MP3", (".mp3", ".mp2", ".mpga"), "mp3"),
    Kind("AAC", (".aac", ".adts"), "aac"),
    Kind("MP4", (".m4a", ".m4b", ".m4r", ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2"), "mov"),
    Kind("Matroska", (".webm", ".mkv", ".mka"), "matroska"),
    Kind("ASF", (".wma", ".wmv", ".asf"), "asf"),
    Kind("AMR", (".amr", ".awb"), "amr"),
    Kind("AVI", (".avi",), "avi"),
    Kind("FLV", (".flv",), "flv"),
    Kind("MPEG-TS", (".ts", ".mts", ".m2ts"), "mpegts"),
    Kind("MPEG", (".mpg", ".mpeg", ".vob"), "mpeg"),
    Kind("WavPack", (".wv",), "wv"),
    Kind("Monkey's Audio", (".ape",), "ape"),
    Kind("True Audio", (".tta",), "tta"),
    Kind("AC-3", (".ac3",), "ac3"),
)
_BY_NAME = {kind.name: kind for kind in _KINDS}
#: Endings of files that are looked for in folders; ".ts" is more often a program or a table than a film.
AUDIO_ENDINGS = tuple(sorted({ending for kind in _KINDS for ending in kind.endings} - {".ts"}))

_STARTS = (
    (b"riff\x2e\x91\xcf\x11", "W64"),
    (b".snd", "AU"),
    (b"caff", "CAF"),
    (b"fLaC", "FLAC"),
    (b"OggS", "OGG"),
    (b"NIST_1A", "NIST SPHERE"),
    (b"Creative Voice File", "VOC"),
    (b"\x1aE\xdf\xa3", "Matroska"),
    (b"0&\xb2u\x8ef\xcf\x11", "ASF"),
    (b"#!AMR", "AMR"),
    (b"FLV\x01", "FLV"),
    (b"\0\0\x01\xba", "MPEG"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"TTA1", "True Audio"),
    (b"\x0bw", "AC-3"),
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_FOREIGN = (
    *FOREIGN,
    (b"GIF8", "a GIF image"),
    (b"SQLite", "a database"),
    (b"MThd", "MIDI: notes to play, no sound"),
    (b"ajkg", "Shorten-packed sound"),
    (b"DSD ", "DSD sound"),
)
_EXPECTED = "sound: wav, flac, ogg, opus, mp3, m4a, aac, aiff, webm, mp4 and others"
_RAW_ENDINGS = (".raw", ".pcm", ".sln", ".sln16", ".s16", ".s16le", ".s8", ".u8", ".s24", ".s32", ".f32")


def kind_of(source: SoundFileSource) -> Kind:
    """The container that a file is, by its content.

    Raises:
        InputError: text, an image, an archive, samples without a header, or bytes that nothing is known of.

    Complexity: O(1).

    Example:
        >>> import io
        >>> kind_of(SoundFileSource("a.mp3", io.BytesIO(b"fLaC" + bytes(60)), 64)).name
        'FLAC'
    """
    name = _name_of(source, 0)
    head = source.head(_LOOKED_AT)
    if name is None and head[:3] == b"ID3" and len(head) >= 10:
        after = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        name = _name_of(source, after) or "MP3"
    if name is None and mpeg_begins(head, whole=source.size <= len(head)) is not None:
        name = "MP3"
    if name is not None:
        return _BY_NAME[name]
    raise _unknown(source, head)


def _name_of(source: SoundFileSource, start: int) -> str | None:
    head = source.head(1024, start)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return {b"WAVE": "WAV", b"AVI ": "AVI"}.get(head[8:12])
    if head[:4] == b"FORM":
        return "AIFF" if head[8:12] in (b"AIFF", b"AIFC") else None
    if head[4:8] in _BOXES and head[8:12] not in BRANDS:
        return "MP4"
    if any(len(head) > 2 * step + at and all(head[at + k * step] == 0x47 for k in range(3)) for at, step in _PACKETS):
        return "MPEG-TS"
    if aac_begins(head, source.size - start):
        return "AAC"
    return next((name for mark, name in _STARTS if head.startswith(mark)), None)


_PACKETS = ((0, 188), (4, 192))  # where the marks of a transport stream stand, and how far apart


def _unknown(source: SoundFileSource, head: bytes) -> InputError:
    foreign = next((name for mark, name in _FOREIGN if head.startswith(mark)), None)
    if head[:4] == b"RIFF":
        foreign = "a WebP image" if head[8:12] == b"WEBP" else f"RIFF of another kind ({head[8:12]!r})"
    if head[4:8] == b"ftyp":
        foreign = BRANDS.get(head[8:12], foreign)
    if foreign is not None:
        cure = "unpack it first" if "archive" in foreign or "zip" in foreign else "check what kind of file this is"
        return InputError("not sound", where=source.name, found=foreign, expected=_EXPECTED, cure=cure)
    if source.ending in _RAW_ENDINGS:
        return InputError(
            "samples without a header: nothing says their rate and encoding",
            where=source.name,
            found=f"{source.size:,} bytes",
            expected=_EXPECTED,
            cure=f"pipe it and name both: pipelines transcribe stream - < {source.name}",
        )
    if not any(head):
        found = f"nothing but zeros in the first {len(head):,} of {source.size:,} bytes"
        cure = "copy the file again; it may have been cut while it was written"
        return InputError("not sound", where=source.name, found=found, expected=_EXPECTED, cure=cure)
    start = head[:64]
    if all(byte >= 32 or byte in (9, 10, 13) for byte in start) and b"\x7f" not in start:
        found = f"text that begins with {start[:24]!r}"
    else:
        found = f"unknown bytes {head[:8].hex(' ')}"
    cure = "check what kind of file this is"
    return InputError("not sound", where=source.name, found=found, expected=_EXPECTED, cure=cure)
