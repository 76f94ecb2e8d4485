"""Films that FFmpeg reads, by PyAV: decoded one frame at a time, damage counted, sizes checked before memory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import heapq
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_source import SoundFileSource
from pipelines.data.formats.video_header import avi_seconds, declared_size
from pipelines.data.formats.video_kind import VideoKind, check_file, check_index, kind_of_video, missing_bytes
from pipelines.data.formats.video_pixels import Turn, on_black, turn_of, turned
from pipelines.data.formats.video_types import Pixels, Shot, VideoFacts

__all__ = ["FilmSource", "probe", "stamps_vary"]

_ENCRYPTED = frozenset({"encv", "drmi"})
_MOST_FAILURES = 8  # of the container in a row; a damaged packet of the decoder is none of them
_HD_ROWS = 720
_WIDE_RANGE = {16: "PQ", 18: "HLG"}
_UNSPECIFIED, _BT709 = 2, 1  # ITU-T H.273, table 4: matrix coefficients
_PLAIN: Turn = (False, False, False)


class FilmSource:
    """One pass over the first film of a file; `shots` may be called once.

    Args:
        path: the file.
        limit: most pixels of a frame.

    Raises:
        InputError: no film in it, sound alone, encrypted, an unknown codec, too many pixels, damaged.

    Complexity: O(1) memory; FFmpeg keeps an index of 24 bytes a frame for MP4 and AVI.
    """

    def __init__(self, path: pathlib.Path, limit: int) -> None:
        check_file(path)
        self._path, self._limit = path, limit
        self._file: BinaryIO = path.open("rb")
        try:
            source = SoundFileSource(path.name, self._file, path.stat().st_size)
            self.kind = kind_of_video(source)
            check_index(source, self.kind)
            self._missing = missing_bytes(source, self.kind)
            head = source.head(4096)
            size = declared_size(head, self.kind.name)
            if size is not None and min(size) > 0:
                _check_size(*size, limit, path.name)
            self._avi_seconds = avi_seconds(head) if self.kind.name == "AVI" else None
            self._container = _opened(self._file, self.kind, path.name, limit)
        except BaseException:
            self._file.close()
            raise
        try:
            self.notes: list[str] = []
            self.stream = _film(self._container, path.name, self.notes)
            context = self.stream.codec_context
            _check_size(context.width, context.height, limit, path.name)
            context.thread_count = 1  # frames in flight of many threads would cost memory, and say nothing sooner
            context.options = {"max_pixels": str(limit)}
            base = self.stream.time_base
            self.tick = float(base) if base else 0.0
        except BaseException:
            self.close()
            raise
        self.sound = bool(self._container.streams.audio)
        self.tally = _Tally()
        self._angle: int | None = None
        self._matrix: bytes | None = None

    @property
    def rate(self) -> float | None:
        """Frames a second on average by the header; None where it does not say."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate else None

    @property
    def seconds(self) -> float | None:
        """How long the film is by the header."""
        if not self.kind.says_length:
            return None
        if self._avi_seconds is not None:
            return self._avi_seconds
        if self.stream.duration is not None and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        alone = len(self._container.streams) == 1
        return self._container.duration / 1e6 if self._container.duration and alone else None

    @property
    def frames(self) -> int | None:
        """How many frames there are by the header, where it counts nothing else."""
        return self.stream.frames or None if self.kind.counts else None

    def shots(self) -> Iterator[Shot]:
        """Frames in order of display."""
        tally = self.tally
        for frame in self._frames():
            size = (frame.height, frame.width)
            _check_size(frame.width, frame.height, self._limit, self._path.name)
            tally.see(frame)
            turn = self._turn(frame)
            stamp = frame.pts if frame.pts is not None else frame.dts
            base = frame.time_base or self.stream.time_base
            timed = stamp is not None and base
            lasts = float(frame.duration * base) if frame.duration and base else None
            load = functools.partial(_pixels, frame, turn, tally)
            yield Shot(float(stamp * base) if timed else None, lasts, size[::-1] if turn[0] else size, load)

    def _turn(self, frame: Any) -> Turn:
        # A frame whose side data were looked at lives until cyclic garbage is collected, megabytes each: so only the
        # first is asked for its whole matrix, and others where their angle is another.
        if frame.rotation != self._angle:
            self._angle, self._matrix = frame.rotation, display_matrix(frame)
        found = (_PLAIN, 0, False) if self._matrix is None else turn_of(self._matrix)
        if found is None:
            self.tally.slanted += 1
            return _PLAIN
        turn, degrees, mirrored = found
        if turn != _PLAIN:
            self.tally.turned += 1
            self.tally.turn = f"{degrees} degrees counter-clockwise" + (", mirrored" if mirrored else "")
        return turn

    def _frames(self) -> Iterator[Any]:
        """Decoded frames; what cannot be decoded is counted and passed over."""
        failures = 0
        packets = self._container.demux(self.stream)
        while failures < _MOST_FAILURES:
            try:
                packet = next(packets, None)
            except _errors() as error:
                failures += 1
                self.tally.fail(error)
                packets = self._container.demux(self.stream)
                continue
            if packet is None:
                break
            failures = 0
            self.tally.packets += packet.size > 0
            yield from self._decoded(packet)
        if failures >= _MOST_FAILURES:  # what the decoder still holds
            yield from self._decoded(None)

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return self.stream.codec_context.decode(packet)
        except EOFError:  # asked again after its end
            return []
        except (*_errors(), MemoryError) as error:
            self.tally.fail(error)
            return []

    def remarks(self, seconds: float | None) -> list[str]:
        """What is to be said of the pass; `seconds`: how long it lasted, None unless it reached the end."""
        found = self.notes + self.tally.remarks(self.stream.codec_context)
        if self._missing is not None:
            found.append(f"cut short: {self._missing[0]:,} of {self._missing[1]:,} bytes by its headers")
        if seconds is None:
            return found
        promised, period = self.seconds, 1 / self.rate if self.rate else 0.04
        if promised is not None and seconds < promised - max(2 * period, 0.1):
            found.append(f"the end is missing: {seconds:.2f} s of {promised:.2f} s by the header could be decoded")
        if self.frames is not None and self.tally.decoded < self.frames:
            missing = self.frames - self.tally.decoded
            found.append(f"{missing:,} of {self.frames:,} frames by the header could not be decoded: left out")
        return found

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()


@dataclasses.dataclass
class _Tally:
    """What was met in a pass."""

    decoded: int = 0
    packets: int = 0
    corrupt: int = 0
    first_corrupt: int = 0
    failed: int = 0
    first_failed: int = 0
    reason: str = ""
    interlaced: int = 0
    turned: int = 0
    turn: str = ""
    slanted: int = 0
    transparent: int = 0
    deep: int = 0
    bits: int = 8
    hd_guess: int = 0
    wide: str = ""

    def see(self, frame: Any) -> None:
        self.decoded += 1
        if frame.is_corrupt:
            self.first_corrupt = self.first_corrupt or self.decoded
            self.corrupt += 1
        self.interlaced += bool(frame.interlaced_frame)
        bits = max((part.bits for part in frame.format.components), default=8)
        if bits > 8 and not frame.format.has_palette:
            self.deep += 1
            self.bits = bits
        self.wide = _WIDE_RANGE.get(int(frame.color_trc), self.wide)

    def fail(self, error: BaseException) -> None:
        self.failed += 1
        if not self.reason:
            self.first_failed = self.decoded
            self.reason = getattr(error, "strerror", None) or str(error)

    def remarks(self, context: Any) -> list[str]:
        found: list[str] = []
        if self.corrupt:
            found.append(
                f"{_many(self.corrupt, 'frame')} damaged and mended by the decoder "
                f"(first: number {self.first_corrupt}): kept"
            )
        if self.failed:
            found.append(
                f"{_many(self.failed, 'packet')} could not be decoded "
                f"(first after {self.first_failed:,} frames: {self.reason}): left out"
            )
        if self.turned:
            found.append(f"turned by {self.turn}, as its header asks")
        if self.slanted:
            found.append("the header asks for a turn that is no multiple of 90 degrees: left as stored")
        if self.interlaced:
            found.append(f"interlaced: {_many(self.interlaced, 'frame')} of two half-pictures each, left as they are")
        if self.transparent:
            found.append(f"{_many(self.transparent, 'frame')} with transparent pixels: put on black")
        if self.deep:
            found.append(f"{self.bits} bits a colour ({context.pix_fmt}): brought to 8")
        if self.wide:
            found.append(f"high dynamic range ({self.wide}): brightness not mapped to that of a usual screen")
        if self.hd_guess:
            found.append("the file does not name its colours: read as BT.709, usual from 720 rows on")
        return found


def _pixels(frame: Any, turn: Turn, tally: _Tally) -> Pixels:
    """RGB, upright. What a file does not say about its colours is as usual: BT.601, from 720 rows on BT.709."""
    form = frame.format
    alpha = any(part.is_alpha for part in form.components) or form.has_palette
    # Threads of the scaler would be made anew for each frame, and hang a forked process at its end.
    options: dict[str, Any] = {"format": "rgba" if alpha else "rgb24", "threads": 1}
    if int(frame.colorspace) == _UNSPECIFIED and frame.height >= _HD_ROWS and not (form.is_rgb or form.has_palette):
        options["src_colorspace"] = _BT709
        tally.hd_guess += 1
    pixels = frame.reformat(**options).to_ndarray()
    if alpha:
        pixels, transparent = on_black(pixels)
        tally.transparent += transparent
    return np.ascontiguousarray(turned(pixels, turn))


def display_matrix(frame: Any) -> bytes | None:
    """The matrix that a frame is to be shown by; None for none."""
    for part in frame.side_data:
        if part.type.name == "DISPLAYMATRIX":
            return bytes(part)
    return None


def probe(path: pathlib.Path, limit: int) -> tuple[VideoFacts, list[str]]:
    """What a film is, from its header and its first frame.

    Raises:
        InputError: as `FilmSource`; no frame that can be decoded.

    Complexity: O(one frame); the index of an MP4 is read as a whole.
    """
    source = FilmSource(path, limit)
    with contextlib.closing(source):
        shot = next(source.shots(), None)
        if shot is None:
            tally = source.tally
            found = (
                f"{_many(tally.packets, 'packet')}, none of which could be decoded" if tally.packets else "no frames"
            )
            found += f" ({tally.reason})" if tally.reason else ""
            cure = "record or copy it again"
            raise InputError("there is no frame in the film", where=path.name, found=found, cure=cure)
        return _facts(source, shot), list(source.notes)


def _facts(source: FilmSource, shot: Shot) -> VideoFacts:
    context, stream = source.stream.codec_context, source.stream
    form = context.format
    parts = _parts(context)
    aspect = stream.sample_aspect_ratio
    found = turn_of(source._matrix) if source._matrix is not None else None
    return VideoFacts(
        height=shot.size[0],
        width=shot.size[1],
        fps=source.rate,
        seconds=source.seconds,
        frames=source.frames,
        container=source.kind.name,
        codec=getattr(context.codec, "canonical_name", None) or context.name,
        pixels=context.pix_fmt or "unknown",
        bits=max((part.bits for part in parts), default=8),
        alpha=any(part.is_alpha for part in parts),
        grey=len(parts) == 1 and form is not None and not form.is_rgb and not form.has_palette,
        rotation=found[1] if found is not None else 0,
        aspect=float(aspect) if aspect else 1.0,
        sound=source.sound,
    )


def stamps_vary(path: pathlib.Path, limit: int) -> bool:
    """Whether the time between frames varies, from the time stamps of the packets; nothing is decoded.

    Complexity: O(bytes of the file) time, O(1) memory: stamps are sorted within a window as long as reordering goes.
    """
    source = FilmSource(path, limit)
    waiting: list[int] = []
    last, shortest, longest = None, float("inf"), 0
    with contextlib.closing(source), contextlib.suppress(*_errors()):
        for packet in source._container.demux(source.stream):
            if packet.size > 0 and (packet.pts if packet.pts is not None else packet.dts) is not None:
                heapq.heappush(waiting, packet.pts if packet.pts is not None else packet.dts)
            while waiting and (len(waiting) > 32 or packet.size == 0):
                stamp = heapq.heappop(waiting)
                if last is not None:
                    shortest, longest = min(shortest, stamp - last), max(longest, stamp - last)
                last = stamp
    return longest > 0 and (longest - shortest) * source.tick > 2.001 * min(source.tick, 1e-3) + 1e-6


def _opened(file: BinaryIO, kind: VideoKind, name: str, limit: int) -> Any:
    import av
    import av.logging

    av.logging.set_level(None)  # FFmpeg's own words go to standard error otherwise
    file.seek(0)
    options = {"max_pixels": str(limit)}
    try:
        return av.open(file, mode="r", format=kind.demuxer, options=options, metadata_errors="replace")
    except (*_errors(), MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        cure = "record or copy it again"
        raise InputError(f"the {kind.name} cannot be opened", where=name, found=reason, cure=cure) from None


def _film(container: Any, name: str, notes: list[str]) -> Any:
    """The film to read: the first stream of pictures that is no cover."""
    films = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not films:
        kinds = sorted({stream.type or "data" for stream in container.streams}) or ["no streams"]
        cover = "sound with a cover picture" if container.streams.video else ", ".join(kinds)
        what = "only sound" if kinds == ["audio"] else cover
        raise InputError("there is no film in it", where=name, found=what, expected="a film", cure="name a film")
    stream = films[0]
    if len(films) > 1:
        notes.append(f"the first of {len(films)} films in the file was read")
    context = stream.codec_context
    tag = ""
    if context is not None:
        with contextlib.suppress(ValueError):  # a tag of bytes that are no letters
            tag = context.codec_tag
    if tag in _ENCRYPTED:
        raise InputError("the film is encrypted", where=name, found=f"tag {tag}", cure="use a copy without protection")
    if context is None:
        cure = "export it as H.264 in MP4"
        raise InputError("the film cannot be decoded", where=name, found="an unknown codec", cure=cure)
    if stream.metadata.get("alpha_mode") == "1" and not any(part.is_alpha for part in _parts(context)):
        notes.append("the file has a transparency that its decoder leaves out")
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        notes.append(f"pixels are not square ({aspect.numerator}:{aspect.denominator}): left as stored")
    return stream


def _parts(context: Any) -> tuple[Any, ...]:
    form = context.format
    return () if form is None else form.components


def _check_size(width: int, height: int, limit: int, name: str) -> None:
    if width <= 0 or height <= 0:
        # A size above the limit is one that FFmpeg was told not to take.
        expected = f"1 to {limit:,} pixels a frame"
        cure = "record or copy it again; scale it down if it is larger"
        raise InputError("no size of frames could be read", where=name, expected=expected, cure=cure)
    if width * height > limit:
        found, expected = f"{width:,}x{height:,} pixels a frame", f"at most {limit:,} pixels"
        raise InputError("frames that are too large", where=name, found=found, expected=expected, cure="scale it down")


def _is_cover(stream: Any) -> bool:
    """A picture of a record's sleeve counts as a film to FFmpeg."""
    import av.stream

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _errors() -> tuple[type[Exception], ...]:
    """What PyAV raises for files; some of FFmpeg's errors are none of Python's."""
    import av

    return (av.FFmpegError, ValueError, OSError, RuntimeError, ArithmeticError)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
