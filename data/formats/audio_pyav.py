"""Recordings that FFmpeg reads, by PyAV: MP3, MP4, AAC, WebM, films and others, with the checks that it leaves out."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_faults import cut_short, damaged_sound, no_samples
from pipelines.data.formats.audio_headers import has_index, promised_size
from pipelines.data.formats.audio_kind import Kind
from pipelines.data.formats.audio_mpeg import MpegScan, scan_mpeg
from pipelines.data.formats.audio_ogg import scan_ogg
from pipelines.data.formats.audio_source import PartOfFile, SoundFileSource
from pipelines.data.formats.audio_types import AudioFacts, AudioOptions, Floats, RawAudio

__all__ = ["ContainerAudio"]

_SCALES = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0, "s64": 9223372036854775808.0}
#: Containers whose header says how long the sound is; of the others FFmpeg guesses it from the bit rate.
_SAYS_LENGTH = frozenset({"MP4", "Matroska", "WAV", "AIFF", "CAF", "W64", "AU", "WavPack", "True Audio", "ASF"})
_ENCRYPTED = frozenset({"drms", "enca", "drmi", "p608"})
#: Recordings of broadcasts begin anywhere: what cannot be decoded before the first sound belongs to what went before.
_BEGINS_ANYWHERE = frozenset({"MPEG-TS", "MPEG"})
_TOLERANCE = 0.25  # seconds: what encoders put before and after
_GAP = 0.05
_LEAD_IN = 0.5


class ContainerAudio(RawAudio):
    """An open file that FFmpeg decodes: its first stream of sound.

    The container is named to FFmpeg, which therefore never takes a file for a list of other files or addresses.

    Args:
        source: the file; closed with this object.
        kind: what it is.
        options: what is accepted.

    Raises:
        InputError: no stream of sound, an encryption, damage, or an end that comes too early.
    """

    def __init__(self, source: SoundFileSource, kind: Kind, options: AudioOptions) -> None:
        self._source, self._kind, self._accept = source, kind, options.accept_truncated
        notes: list[str] = []
        scan = _checked_mp3(source, options, notes) if kind.name == "MP3" else None
        _check_size(source, kind, options, notes)
        self._file: Any = source.file
        if scan is not None:  # what is before or behind the frames is no sound, whatever FFmpeg would make of it
            part = PartOfFile(source.file, scan.end - scan.begin, begin=scan.begin)
            self._file = io.BufferedReader(part, 1 << 16)
        self._container = _opened(source, self._file, kind)
        try:
            self._stream = _stream(self._container, source.name, notes)
            self._lead, self._delivered, self._clock = 0, 0, None
            self._gaps, self._gap = 0, 0.0
            self._held: list[Floats] = []
            self._rate, self._channels = 0, 0
            self._failed: str | None = None
            self._start: float | None = None
            self._blocks = self._decoded()
            first = next(self._blocks, None)
            if first is None:
                raise no_samples(source.name) if self._failed is None else damaged_sound(source.name, self._failed)
            self._held.append(first)
            seconds = self._promised() if scan is None else scan.declared or scan.seconds
            encoding = _encoding(self._stream)
            super().__init__(
                source.name, AudioFacts(self._rate, self._channels, seconds, kind.name, encoding, _bits(encoding))
            )
            self.notes += notes
            self._check_start()
        except BaseException:
            self._container.close()
            raise
        self._expected = seconds if scan is None else None

    def _promised(self) -> float | None:
        if self._kind.name not in _SAYS_LENGTH:
            return None
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        alone = len(self._container.streams) == 1
        return self._container.duration / 1e6 if self._container.duration and alone else None

    def _check_start(self) -> None:
        others = len(self._container.streams) > 1
        if others and self._start is not None and self._start > _GAP:
            self.notes.append(f"the sound begins {self._start:.2f} s into the file: times count from its first sample")

    def _decoded(self) -> Iterator[Floats]:
        """Blocks (n, channels); an error that nothing follows means that the end is missing."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except MemoryError:
                raise damaged_sound(self._source.name, "sizes that cannot be", self._seconds()) from None
            except _errors() as error:
                if self._rate or self._kind.name not in _BEGINS_ANYWHERE:
                    if self._failed is not None:
                        raise damaged_sound(self._source.name, self._failed, self._seconds()) from None
                    self._failed = getattr(error, "strerror", None) or str(error)
                continue
            if packet is None:
                return
            for frame in frames:
                if self._failed is not None:
                    raise damaged_sound(self._source.name, self._failed, self._seconds())
                yield self._block(frame)

    def _block(self, frame: Any) -> Floats:
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if self._rate and (rate, channels) != (self._rate, self._channels):
            found = f"{rate} Hz, {channels} channels"
            expected = f"{self._rate} Hz, {self._channels} channels as before"
            where = f"{self._source.name}, {self._seconds():.2f} s"
            cure = "split the file there"
            raise InputError("the sound changes its form", where=where, found=found, expected=expected, cure=cure)
        self._rate, self._channels = rate, channels
        self._watch_time(frame)
        values = frame.to_ndarray()
        kind = frame.format.name
        stored = values.T if kind.endswith("p") else values.reshape(-1, channels)
        scale = _SCALES.get(kind.removesuffix("p"))
        block = stored.astype(np.float32)
        if scale is not None:
            block = (block - 128 if kind.startswith("u8") else block) / np.float32(scale)
        return np.ascontiguousarray(block)

    def _watch_time(self, frame: Any) -> None:
        """Time stamps that jump: packets are missing, and what follows comes too early."""
        if frame.pts is None or frame.time_base is None:
            self._clock = None
            return
        time = float(frame.pts * frame.time_base)
        if self._start is None:
            self._start = time
        if self._clock is not None and time - self._clock > _GAP:
            self._gaps += 1
            self._gap += time - self._clock
        self._clock = time + frame.samples / frame.sample_rate

    def read(self, frames: int) -> Floats:
        """The next samples (n, channels)."""
        count = sum(len(block) for block in self._held)
        while count < frames:
            block = next(self._blocks, None)
            if block is None:
                break
            self._held.append(block)
            count += len(block)
        if not count:
            self._check_end()
            return np.zeros((0, self._channels), np.float32)
        whole = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        self._held = [whole[frames:]] if count > frames else []
        self._delivered += min(count, frames)
        return whole[:frames]

    def _seconds(self) -> float:
        return (self._delivered + sum(len(block) for block in self._held)) / max(1, self._rate)

    def _check_end(self) -> None:
        found = f"{self._seconds():,.2f} s"
        if self._gaps:
            kind = "gap" if self._gaps == 1 else "gaps"
            self.notes.append(f"{self._gaps} {kind} of {self._gap:.2f} s in all in the time stamps, left closed")
        heard = self._seconds() + self._gap
        if self._expected is not None and heard < self._expected - _TOLERANCE:
            expected = f"{self._expected:,.2f} s as the header says"
            self.notes.append(cut_short(self.name, found, expected, self._accept))
        elif self._failed is not None:
            if not self._accept:
                raise damaged_sound(self.name, self._failed, self._seconds())
            self.notes.append(f"cut short: behind {found} something follows that cannot be decoded ({self._failed})")

    def seek(self, frame: int) -> int:
        """Go to somewhat before a frame where time stamps count samples (MP4), else stay at the beginning."""
        exact = self._stream.time_base is not None and 1 / self._stream.time_base == self._rate
        second = frame / self._rate - _LEAD_IN
        if self._kind.name != "MP4" or not exact or self._start is None or second <= 0 or self._channels == 0:
            return 0
        begin = self._start
        try:
            self._container.seek(math.floor((begin + second) * self._rate), stream=self._stream)
            self._blocks, self._held, self._start, self._clock = self._decoded(), [], None, None
            next(self._blocks, None)  # the first block lacks what overlaps it from before
            block = next(self._blocks, None)
            if block is None or self._clock is None:
                raise ValueError("nothing there")
        except _errors():
            return self._again()
        self._delivered = round((self._clock - begin) * self._rate) - len(block)
        self._held = [block]
        return self._delivered

    def _again(self) -> int:
        """Open once more, at the beginning."""
        self._container.close()
        self._container = _opened(self._source, self._file, self._kind)
        self._stream = _stream(self._container, self._source.name, [])
        self._blocks, self._held, self._clock, self._failed = self._decoded(), [], None, None
        self._delivered = 0
        return 0

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._source.close()


def _errors() -> tuple[type[Exception], ...]:
    """What PyAV raises for files; some of FFmpeg's errors are none of Python's."""
    import av

    return (av.FFmpegError, ValueError, OSError, RuntimeError, ArithmeticError, EOFError)


def _opened(source: SoundFileSource, file: Any, kind: Kind) -> Any:
    import av
    import av.logging

    av.logging.set_level(None)  # FFmpeg's own words go to standard error otherwise
    file.seek(0)
    try:
        return av.open(file, mode="r", format=kind.demuxer, metadata_errors="replace")
    except (*_errors(), MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise damaged_sound(source.name, f"the {kind.name} cannot be opened ({reason})") from None


def _stream(container: Any, name: str, notes: list[str]) -> Any:
    sound = list(container.streams.audio)
    films = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not sound:
        others = ", ".join(sorted({stream.type or "data" for stream in container.streams})) or "no streams"
        cure = "name a file with sound"
        raise InputError("there is no sound in it", where=name, found=others, expected="a stream of sound", cure=cure)
    stream = sound[0]
    context = stream.codec_context
    if context is None:
        found = "an unknown encoding"
        raise InputError("the sound cannot be decoded", where=name, found=found, cure="export it as WAV or FLAC")
    tag = ""
    with contextlib.suppress(ValueError):  # a tag of bytes that are no letters
        tag = context.codec_tag
    if tag in _ENCRYPTED:
        raise InputError("the sound is encrypted", where=name, found=f"tag {tag}", cure="use a copy without protection")
    if films:
        notes.append("the sound of a film was read")
    if len(sound) > 1:
        notes.append(f"the first of {len(sound)} streams of sound was read")
    return stream


def _is_cover(stream: Any) -> bool:
    """A picture of a record's sleeve counts as a film to FFmpeg."""
    import av.stream

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _encoding(stream: Any) -> str:
    codec = stream.codec_context.codec
    return getattr(codec, "canonical_name", None) or codec.name


def _bits(encoding: str) -> int | None:
    if not encoding.startswith("pcm_"):
        return None
    digits = "".join(letter for letter in encoding[5:] if letter.isdigit())
    return int(digits) if digits else 8


def _checked_mp3(source: SoundFileSource, options: AudioOptions, notes: list[str]) -> MpegScan:
    scan = scan_mpeg(source)
    if scan is None or scan.seconds == 0:
        raise damaged_sound(source.name, "no frames of MP3 that follow each other")
    if scan.damaged:
        raise damaged_sound(source.name, f"{scan.damaged:,} bytes that are no frame of MP3", scan.damage)
    if scan.before:
        notes.append(f"{scan.before:,} bytes at the beginning are no MP3: passed over")
    if scan.after:
        notes.append(f"{scan.after:,} bytes at the end are no MP3: left out")
    lacking = scan.declared is not None and scan.declared - scan.seconds > 0.06
    if scan.cut or lacking:
        expected = f"{scan.declared:,.2f} s as the header says" if lacking else "a whole last frame"
        notes.append(cut_short(source.name, f"{scan.seconds:,.2f} s", expected, options.accept_truncated))
    return scan


def _check_size(source: SoundFileSource, kind: Kind, options: AudioOptions, notes: list[str]) -> None:
    if kind.name == "OGG":
        scan = scan_ogg(source)
        if scan.cut:
            notes.append(
                cut_short(source.name, f"{scan.cut:,} bytes of a page", "a last page", options.accept_truncated)
            )
        return
    size = promised_size(source, kind.name)
    if kind.name == "MP4" and not has_index(source):
        cure = "record or copy it again; without its index the sound cannot be found"
        found = "no index (moov), which is written last"
        raise InputError("the file was cut or never finished", where=source.name, found=found, cure=cure)
    if size is not None and size > source.size:
        expected = f"{size:,} bytes as its headers say"
        notes.append(cut_short(source.name, f"{source.size:,} bytes", expected, options.accept_truncated))
