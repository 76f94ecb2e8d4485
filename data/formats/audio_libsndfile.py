"""Recordings that libsndfile reads: WAV and its kin, FLAC, Ogg Vorbis and Opus, with the checks that it leaves out."""

from __future__ import annotations

import math
import os
import re
from typing import Any

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_faults import cut_short, damaged_sound, no_samples
from pipelines.data.formats.audio_headers import SoundBytes, sound_bytes
from pipelines.data.formats.audio_kind import Kind
from pipelines.data.formats.audio_ogg import scan_ogg
from pipelines.data.formats.audio_source import PartOfFile, SoundFileSource
from pipelines.data.formats.audio_types import AudioFacts, AudioOptions, Floats, RawAudio, check_rate

__all__ = ["LibsndfileAudio", "Unreadable"]

_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
_BITS |= {"ALAW": 8, "ULAW": 8}
#: libsndfile says this of a length that it does not know.
_UNKNOWN = 1 << 60
#: What lossy decoders hear before a place must have gone by until they say exactly what they would have said.
_LEAD_IN = 0.5


_PIECE = 512


class Unreadable(Exception):
    """libsndfile knows the container and not what is in it; another reader may."""


class LibsndfileAudio(RawAudio):
    """An open file that libsndfile decodes.

    Args:
        source: the file; closed with this object.
        kind: what it is.
        options: what is accepted.

    Raises:
        Unreadable: the encoding is none of libsndfile's.
        InputError: a header that cannot be, no samples, damage, or an end that comes too early.
    """

    def __init__(self, source: SoundFileSource, kind: Kind, options: AudioOptions) -> None:
        self._source, self._accept = source, options.accept_truncated
        notes: list[str] = []
        found = sound_bytes(source, kind.name)
        file = _ogg_file(source, options, notes) if kind.name == "OGG" else None
        if found is not None:
            if found.rate is not None:
                check_rate(found.rate, source.name)
            notes += found.doubts
            if found.available <= 0 or found.promised == 0:
                raise no_samples(source.name)
            if found.promised is None:
                notes.append("its header does not say how long it is, as of a file sent down a pipe: read to its end")
                if found.at:
                    # libsndfile reads to the end where the size is the largest there is, and nothing where it is 0.
                    file = PartOfFile(source.file, source.size, (found.at, b"\xff\xff\xff\xff"))
        self._sound = sound = _opened(source, file)
        try:
            super().__init__(source.name, _facts(sound, kind))
            self.notes += notes
            self._frames = sound.frames if sound.frames < _UNKNOWN else None
            if self._frames == 0:
                raise no_samples(source.name)
            if found is not None:
                self._check_length(found)
        except BaseException:
            sound.close()
            raise
        self._place = 0
        self._lossy = kind.name == "OGG"
        # libsndfile gives nothing of the read in which a FLAC breaks off: short ones lose less.
        self._piece = _PIECE if kind.name == "FLAC" and self._accept else None
        self._broken = False

    def _check_length(self, found: SoundBytes) -> None:
        rate, frames = self.facts.rate, self._frames or 0
        if found.promised is not None and found.promised > found.available:
            share = found.promised / found.available
            expected = f"{frames * share / rate:,.2f} s as the header says"
            self.notes.append(cut_short(self.name, f"{frames / rate:,.2f} s", expected, self._accept))
        if found.leftover:
            self.notes.append(f"{found.leftover:,} bytes behind the end that the header gives are not read")
        width = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
        size = width.get(self.facts.encoding, 0) * self.facts.channels
        used = found.available if found.promised is None else min(found.promised, found.available)
        if size and used % size:
            bytes_are = "1 byte at the end is" if used % size == 1 else f"{used % size} bytes at the end are"
            self.notes.append(f"{bytes_are} no whole sample of all channels: left out")

    def read(self, frames: int) -> Floats:
        """The next samples (n, channels)."""
        if self._piece is None:
            block = self._some(frames)
        else:
            parts = [np.zeros((0, self.facts.channels), np.float32)]
            while sum(map(len, parts)) < frames and len(part := self._some(self._piece)):
                parts.append(part)
            block = np.concatenate(parts)
        if len(block) == 0 and not self._broken and self._frames is not None and self._place < self._frames:
            self._break("")
        return block

    def _some(self, frames: int) -> Floats:
        import soundfile

        if self._broken:
            return np.zeros((0, self.facts.channels), np.float32)
        try:
            block = self._sound.read(frames, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError, ValueError, OSError) as error:
            if self._piece is None or not self._place:
                raise damaged_sound(self.name, _reason(error), self._place / self.facts.rate) from None
            self._break(f" ({_reason(error)} there)")
            return np.zeros((0, self.facts.channels), np.float32)
        self._place += len(block)
        return np.asarray(block, np.float32)

    def _break(self, reason: str) -> None:
        """The end is too early: say so once, where that is accepted."""
        self._broken = True
        found = f"{self._place / self.facts.rate:,.2f} s{reason}"
        expected = "more" if self._frames is None else f"{self._frames / self.facts.rate:,.2f} s as the header says"
        self.notes.append(cut_short(self.name, found, expected, self._accept))

    def seek(self, frame: int) -> int:
        """Go to a frame; with lossy encodings somewhat before it."""
        import soundfile

        lead = math.ceil(_LEAD_IN * self.facts.rate) if self._lossy else 0
        target = max(0, min(frame, self._frames or 0) - lead)
        try:
            self._place = self._sound.seek(target)
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            raise damaged_sound(self.name, _reason(error), target / self.facts.rate) from None
        return self._place

    def close(self) -> None:
        """Close the file."""
        self._sound.close()
        self._source.close()


def _opened(source: SoundFileSource, file: Any) -> Any:
    import soundfile

    try:
        if file is None:
            source.file.seek(0)
            file = _descriptor(source)
        return soundfile.SoundFile(file, closefd=False)
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError, OSError) as error:
        reason = _reason(error)
        if "unsupported encoding" in reason or "not yet implemented" in reason or "Unknown" in reason:
            raise Unreadable(reason) from None
        raise damaged_sound(source.name, f"the header cannot be read ({reason})") from None


def _descriptor(source: SoundFileSource) -> Any:
    """The number of our own file on the disk, which is read several times as fast as a Python object."""
    try:
        number = source.file.fileno() if source.owned else None
    except (OSError, AttributeError):
        number = None
    if number is None:  # a file of the caller's would end up elsewhere than its buffer says
        return PartOfFile(source.file, source.size)
    os.lseek(number, 0, os.SEEK_SET)  # a seek of the buffered file may move within the buffer only
    return number


def _facts(sound: Any, kind: Kind) -> AudioFacts:
    known = 0 < sound.frames < _UNKNOWN and sound.samplerate > 0
    seconds = sound.frames / sound.samplerate if known else None
    bits = _BITS.get(sound.subtype)
    return AudioFacts(sound.samplerate, sound.channels, seconds, kind.name, sound.subtype, bits)


def _reason(error: Exception) -> str:
    """libsndfile's words without the name of a Python object or the number of a file."""
    text = re.sub(r"^Error opening .*?: ", "", str(error)).strip().rstrip(".")
    return text.removeprefix("Error : ") or type(error).__name__


def _ogg_file(source: SoundFileSource, options: AudioOptions, notes: list[str]) -> PartOfFile | None:
    """Check all pages; of a file that is cut, show only the whole ones."""
    scan = scan_ogg(source)
    missing = sum(stream.missing for stream in scan.streams)
    ended = all(stream.ended for stream in scan.streams)
    behind = ended and scan.damaged and scan.damage >= scan.intact
    if (scan.damaged and not behind) or missing:
        what = f"{scan.damaged:,} bytes from byte {scan.damage:,} on are no intact page of Ogg"
        raise damaged_sound(source.name, what if scan.damaged else f"{missing} pages of Ogg are missing")
    sound = [stream for stream in scan.streams if stream.is_sound]
    if not sound:
        others = ", ".join(stream.codec for stream in scan.streams) or "no stream"
        raise InputError("there is no sound in it", where=source.name, found=others, expected="Vorbis, Opus or FLAC")
    if len(scan.streams) > 1 or sound[0].codec == "speex":
        raise Unreadable("several streams, or Speex")
    if scan.later:
        notes.append(f"the file is a chain of {scan.later + 1} recordings: the first was read, the others not")
    if scan.cut or not sound[0].ended:
        found = f"{scan.cut:,} bytes of a page that is not whole" if scan.cut else "no page that ends the stream"
        notes.append(cut_short(source.name, found, "a last page", options.accept_truncated))
    if behind:
        notes.append(f"{source.size - scan.intact:,} bytes behind the last page are no Ogg: left out")
    return PartOfFile(source.file, scan.intact) if scan.intact < source.size else None
