"""Stretches of speech in a stream of sound: voice activity by energy over a tracked noise floor, in constant memory.

A frame of 10 ms is speech while the energy of the band above 100 Hz stands well above the noise floor, which follows
the smallest energy of the last seconds (minimum statistics, Martin 2001). What is found does not depend on how the
stream is cut into blocks. Nothing heavy is imported before the first block: the command line reads the options here.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING

from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.levels import FRAMES, MUTE, Floor, Levels
from pipelines.transcribe.stitching import stitch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Piece", "SegmentOptions", "Segmenter", "check_segments", "stitch"]

_RISING = 3  # frames above the upper threshold that begin a piece
_BACK = 20  # frames that a piece reaches back at most, to where the level first rose above the lower threshold
_LEARNED = 80  # frames heard before the first decision
_STEADY_FRAMES, _STEADY_SPREAD = 60, 6.0  # longer pieces whose level varies less (dB) are noise that was switched on
_PUSHED = 1000  # frames worked on at once, however long a block is


@dataclasses.dataclass(frozen=True)
class SegmentOptions:
    """How speech is told from pauses, and where long speech is cut."""

    on_db: float = 8.0
    """Speech begins where the level rises so many decibels above the noise floor."""
    off_db: float = 4.5
    """It goes on while the level is so many decibels above it."""
    floor_db: float = -60.0
    """Nothing below this level begins a stretch of speech, in decibels below a full-scale sine."""
    least_pause: float = 0.3
    """Seconds without speech that end a stretch."""
    pad: float = 0.15
    """Seconds kept before and after the speech."""
    longest: float = 20.0
    """Longer stretches are cut at the quietest place of their last third, in seconds."""
    overlap: float = 1.0
    """Seconds before such a cut that the next stretch begins with, so that words at the cut are heard whole."""
    shortest: float = 0.08
    """Shorter sounds are no speech, in seconds."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of speech with its padding.

    Attributes:
        start: seconds from the beginning of the recording.
        samples: (m,) float32.
        forced: it was cut for its length; the next piece begins before this one ends.
    """

    start: float
    samples: NDArray[np.float32]
    forced: bool


def check_segments(options: SegmentOptions) -> None:
    """Refuse options that contradict each other.

    Raises:
        ConfigError: one of them is out of its range.

    Example:
        >>> check_segments(SegmentOptions(overlap=9.0))
        Traceback (most recent call last):
        pipelines.errors.ConfigError: segment.overlap: out of range. Found: 9.0. Expected: 0 to 5 seconds, a quarter...
    """
    o = options
    quarter = f"0 to {o.longest / 4:g} seconds, a quarter of longest"
    rules = (
        ("on_db", o.on_db, 0.0 < o.on_db <= 60.0, "0 to 60 dB"),
        ("off_db", o.off_db, 0.0 < o.off_db <= o.on_db, f"0 to on_db, {o.on_db:g} dB"),
        ("floor_db", o.floor_db, MUTE < o.floor_db < 0.0, f"{MUTE:g} to 0 dB"),
        ("least_pause", o.least_pause, 0.02 <= o.least_pause <= 10.0, "0.02 to 10 seconds"),
        ("longest", o.longest, 1.0 <= o.longest <= 3600.0, "1 to 3600 seconds"),
        ("pad", o.pad, 0.0 <= o.pad <= o.longest / 4, quarter),
        ("overlap", o.overlap, 0.0 <= o.overlap <= o.longest / 4, quarter),
        ("shortest", o.shortest, 0.0 <= o.shortest < o.longest / 4, quarter),
    )  # fmt: skip
    for name, value, fits, expected in rules:
        if not fits:  # a NaN fits nowhere
            raise ConfigError("out of range", where=f"segment.{name}", found=value, expected=expected)


class Segmenter:
    """Finds pieces of speech in sound that comes block by block; holds at most the longest piece and a block.

    Args:
        rate: samples a second.
        options: see :class:`SegmentOptions`.

    Attributes:
        steady_seconds: sound above the floor that was passed over because its level stayed the same: a hum or a fan
            that was switched on.

    Raises:
        ConfigError: options out of range, or a rate below 1,000 Hz.

    Complexity: O(1) memory and O(log window) work a sample.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(0, 0.001, 40_000).astype(np.float32)
        >>> noise[16_000:24_000] += np.sin(np.arange(8_000) * 0.3) * np.hanning(8_000) * 0.3
        >>> segmenter = Segmenter(16_000)
        >>> [(round(p.start, 1), round(len(p.samples) / 16_000, 1)) for p in segmenter.push(noise) + segmenter.flush()]
        [(0.9, 0.8)]
    """

    def __init__(self, rate: int, options: SegmentOptions | None = None) -> None:
        self.options = options or SegmentOptions()
        check_segments(self.options)
        if rate < 1000:
            raise ConfigError("too low for speech", where="rate", found=rate, expected="at least 1,000 Hz")
        self.rate = rate
        self._levels = Levels(rate)
        self.hop = self._levels.hop
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.steady_seconds = 0.0
        self._levels.reset()
        self._held: deque[tuple[int, NDArray[np.float32]]] = deque()  # (first sample's number, samples)
        self._total = 0
        self._floor = Floor()
        self._waiting: list[float] | None = []  # levels heard before the first decision
        self._frame = 0  # the next frame to decide on
        self._rise: int | None = None  # where the level rose above the lower threshold
        self._run = 0  # frames above the upper threshold in a row
        self._speaking = False
        self._onset = self._last = self._begin = self._ended = 0
        self._inside: list[float] = []  # levels of the frames of the present piece

    def push(self, block: NDArray[np.float32]) -> list[Piece]:
        """Take the next samples and give the pieces that have ended.

        Args:
            block: (n,) of any length.

        Raises:
            InputError: another shape, or values that are not finite.
        """
        import numpy as np

        samples = np.array(block, np.float32)  # a copy: the caller may use its buffer again
        if samples.ndim != 1 or not np.isfinite(samples).all():
            found = "NaN or infinite samples" if samples.ndim == 1 else f"shape {samples.shape}"
            raise InputError("cannot be cut into pieces", where="block", found=found, expected="finite samples (n,)")
        pieces: list[Piece] = []
        step = _PUSHED * self.hop
        for begin in range(0, len(samples), step):
            part = samples[begin : begin + step]
            self._held.append((self._total, part))
            self._total += len(part)
            pieces += self._decide(self._levels.push(part), last=False)
            self._forget()
        return pieces

    def flush(self) -> list[Piece]:
        """Give the piece that the end of the sound has ended; the next block begins another recording."""
        pieces = self._decide(self._levels.flush(), last=True)
        if self._speaking:
            pieces += self._close(self._total)
        steady = self.steady_seconds
        self._begin_anew()
        self.steady_seconds = steady
        return pieces

    @property
    def position(self) -> float:
        """Seconds of sound that were pushed."""
        return self._total / self.rate

    def _decide(self, levels: list[float], *, last: bool) -> list[Piece]:
        """Go through the new frames; the first are held back until the floor is known."""
        pieces: list[Piece] = []
        for level in levels:
            self._floor.add(level)
            if self._waiting is None:
                pieces += self._step(level)
            elif not self._floor.heard:  # silence from the start needs no floor
                self._frame += 1
            else:
                self._waiting.append(level)
                if self._floor.heard >= _LEARNED or len(self._waiting) >= 4 * _LEARNED:
                    pieces += self._catch_up()
        return pieces + self._catch_up() if last else pieces

    def _catch_up(self) -> list[Piece]:
        waiting, self._waiting = self._waiting or [], None
        return [piece for level in waiting for piece in self._step(level)]

    def _step(self, level: float) -> list[Piece]:
        """Decide on one frame."""
        o = self.options
        floor = self._floor.value
        above = level >= max(floor + o.off_db, o.floor_db - (o.on_db - o.off_db))
        frame, self._frame = self._frame, self._frame + 1
        if not self._speaking:
            self._rise = (frame if self._rise is None else self._rise) if above else None
            self._run = self._run + 1 if level >= max(floor + o.on_db, o.floor_db) else 0
            if self._run >= _RISING:
                self._open(frame)
            elif self._rise is not None:
                self._inside.append(level)
                del self._inside[:-_BACK]
            else:
                self._inside.clear()
        if not self._speaking:
            return []
        self._inside.append(level)
        if above:
            self._last = frame
        elif frame - self._last >= round(o.least_pause * FRAMES):
            return self._close((frame + 1) * self.hop)
        if (frame + 1) * self.hop - self._begin >= o.longest * self.rate:
            return self._cut(frame)
        return []

    def _open(self, frame: int) -> None:
        rise = frame - _RISING + 1 if self._rise is None else min(self._rise, frame - _RISING + 1)
        self._onset = max(rise, frame - _BACK)
        self._inside = self._inside[len(self._inside) - (frame - self._onset) :]
        self._begin = max(self._onset * self.hop - self._pad, self._ended, 0)
        self._last, self._speaking = frame, True

    @property
    def _pad(self) -> int:
        return round(self.options.pad * self.rate)

    def _close(self, known: int) -> list[Piece]:
        """End the present piece; `known` samples can be part of it."""
        end = min((self._last + 1) * self.hop + self._pad, known)
        frames = self._last - self._onset + 1
        levels = self._inside[:frames]
        self._speaking, self._run, self._rise = False, 0, None
        self._inside = []
        if frames < self.options.shortest * FRAMES:
            return []
        if _steady(levels):
            self.steady_seconds += frames * self.hop / self.rate
            return []
        begin, self._ended = self._begin, end
        return [Piece(begin / self.rate, self._taken(begin, end), forced=False)]

    def _cut(self, frame: int) -> list[Piece]:
        """Cut the present piece for its length, at the quietest place of its last third."""
        import numpy as np

        o = self.options
        first = frame + 1 - min(len(self._inside), int(o.longest * FRAMES / 3))
        smooth = np.convolve(10.0 ** (np.array(self._inside[first - frame - 1 :]) / 10.0), np.ones(5), "same")
        place = first + int(smooth[2:-2].argmin()) + 2
        cut = place * self.hop + self.hop // 2
        begin, levels = self._begin, self._inside[: place - self._onset]
        self._begin = max(cut - round(o.overlap * self.rate), 0)
        self._inside = self._inside[place - self._onset :]
        self._onset = place
        if self._last < place:  # nothing has been said since: what comes next is a piece of its own
            self._speaking, self._run, self._rise, self._inside = False, 0, None, []
            self._ended = cut
        if _steady(levels):
            self.steady_seconds += (cut - begin) / self.rate
            return []
        return [Piece(begin / self.rate, self._taken(begin, cut), forced=self._speaking)]

    def _taken(self, begin: int, end: int) -> NDArray[np.float32]:
        import numpy as np

        parts = [part[max(begin - at, 0) : max(end - at, 0)] for at, part in self._held if at + len(part) > begin]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _forget(self) -> None:
        """Drop the samples that no piece can need any more."""
        if self._speaking:
            needed = self._begin
        else:
            needed = (self._frame - _BACK - _RISING) * self.hop - self._pad
        while self._held and self._held[0][0] + len(self._held[0][1]) <= needed:
            self._held.popleft()


def _steady(levels: list[float]) -> bool:
    if len(levels) < _STEADY_FRAMES:
        return False
    ordered = sorted(levels)
    return ordered[int(0.95 * len(ordered))] - ordered[int(0.05 * len(ordered))] < _STEADY_SPREAD
