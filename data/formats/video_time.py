"""When a frame is on screen: time stamps made to run forward, and frames chosen at even times."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from pipelines.data.formats.video_types import Shot

__all__ = ["Choice", "Clock", "evenly", "every"]

#: A frame may stay this long; longer gaps of the stamps are closed, because one flipped bit may claim years.
MOST_GAP = 10.0
_MOST_PERIODS = 20
_STEP_BACK = 1.0  # s: what runs back further is another clock, what runs back less is disorder
_USUAL = 25.0
_SANE = (1e-3, 1000.0)
_SLACK = 1e-3


class Clock:
    """Seconds since the first frame from the stamps of a file, which may be missing, stand still, or jump.

    Args:
        rate: frames a second by the header; None where it does not say.
        by_number: the rate counts instead of the stamps.
        tick: s, how exact the stamps are.

    Example:
        >>> clock = Clock(10.0)
        >>> [round(clock.place(stamp), 3) for stamp in (5.0, 5.1, None, 5.3, 9000.0, 9000.1, 1.0)]
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        >>> clock.remarks()
        ['1 frame without a time stamp: placed 0.1 s after the one before',
         'the time stamps jump 2 times (first at 0.40 s): the gaps were closed']
    """

    def __init__(self, rate: float | None, *, by_number: bool = False, tick: float = 0.0) -> None:
        self.known = rate is not None and _SANE[0] <= rate <= _SANE[1]
        self.period = 1.0 / rate if rate is not None and self.known else 1.0 / _USUAL
        self._by_number, self._tick = by_number, tick
        self._origin: float | None = None
        self._number = 0
        self.now = 0.0
        self.missing, self.standing, self.back = 0, 0, 0
        self.jumps, self.first_jump = 0, 0.0
        self._last_gap = 0.0
        self.shortest, self.longest = float("inf"), 0.0

    @property
    def most(self) -> float:
        """s that a frame may stay."""
        return max(MOST_GAP, _MOST_PERIODS * self.period)

    def place(self, stamp: float | None) -> float:
        """Seconds of the next frame, never before those of the frame before."""
        first = self._number == 0
        self._number += 1
        if self._by_number:
            self.now = (self._number - 1) * self.period
            self._gap(first, self.period)
            return self.now
        if stamp is None:
            self.missing += 1
            self.now += 0.0 if first else self.period
            self._gap(first, self.period)
            return self.now
        if self._origin is None:  # also after frames without a stamp at the beginning
            self._origin = stamp - (self.now if first else self.now + self.period)
        time = stamp - self._origin
        if time < self.now - _STEP_BACK or time > self.now + self.most:
            self.jumps += 1
            time = self.now + self.period
            self.first_jump = time if self.jumps == 1 else self.first_jump
            self._origin = stamp - time
        elif not first and time <= self.now:
            self.standing += time == self.now
            self.back += time < self.now
            time = self.now
        else:
            self._gap(first, time - self.now)
        self.now = time
        return time

    def _gap(self, first: bool, gap: float) -> None:
        if not first:
            self.shortest, self.longest = min(self.shortest, gap), max(self.longest, gap)
            self._last_gap = gap

    @property
    def mean(self) -> float:
        """s between frames on average, so far."""
        return self.now / max(1, self._number - 1)

    @property
    def variable(self) -> bool:
        """Whether the time between frames varies by more than the stamps are rounded."""
        return self.longest > 0 and self.longest - self.shortest > 2.001 * min(self._tick, _SLACK) + 1e-6

    def stays(self, lasts: float | None) -> float:
        """s that the last frame stays on screen: its own duration where that makes sense."""
        if lasts is not None and 0 < lasts <= self.most and not self._by_number:
            return lasts
        return self.period if self.known else self._last_gap or self.period

    def remarks(self) -> list[str]:
        """What had to be mended."""
        found: list[str] = []
        if self.missing:
            every_one = self.missing == self._number
            guess = "" if self.known else f", {_USUAL:g} a second being a guess"
            what = "no time stamps at all" if every_one else f"{_count(self.missing)} without a time stamp"
            how = "frames are" if every_one else "placed"
            found.append(f"{what}: {how} {self.period:.4g} s after the one before{guess}")
        if self.standing or self.back:
            parts = [f"{self.standing:,} at the time of the one before"] if self.standing else []
            parts += [f"{self.back:,} before it"] if self.back else []
            found.append(f"time stamps out of order: {' and '.join(parts)}; they count as shown at once")
        if self.jumps:
            times = "once" if self.jumps == 1 else f"{self.jumps:,} times"
            closed = "the gap was" if self.jumps == 1 else "the gaps were"
            at = "" if self.jumps == 1 else "first "
            found.append(f"the time stamps jump {times} ({at}at {self.first_jump:.2f} s): {closed} closed")
        return found


@dataclasses.dataclass
class Choice:
    """What a choice of frames did.

    Attributes:
        taken: frames given out, repeated ones with them.
        repeated: of them, those that were on screen already at the time before.
        left_out: frames on screen in the range asked for, but at none of the even times.
        before: frames before the range.
        whole: the end of the film was reached.
        end: s, when the last frame seen leaves the screen.
    """

    taken: int = 0
    repeated: int = 0
    left_out: int = 0
    before: int = 0
    whole: bool = False
    end: float = 0.0


def every(
    shots: Iterator[Shot], clock: Clock, start: float, stop: float | None, done: Choice
) -> Iterator[tuple[float, Shot]]:
    """Each frame once, at its own time, of those with start <= time < stop.

    Complexity: O(frames up to stop) time, O(1) memory.
    """
    last = None
    for shot in shots:
        time = clock.place(shot.stamp)
        if stop is not None and time >= stop - 1e-9:
            return
        last = shot
        if time < start - 1e-9:
            done.before += 1
            continue
        done.taken += 1
        yield time, shot
    if last is not None:
        done.end = clock.now + clock.stays(last.lasts)
    done.whole = True


def evenly(
    shots: Iterator[Shot], clock: Clock, fps: float, start: float, stop: float | None, done: Choice, tick: float
) -> Iterator[tuple[float, Shot]]:
    """The frame on screen at start + k / fps, for every k before stop and the end of the film.

    A frame is on screen from its time stamp to the next one's; stamps count as reached half a tick early, so that
    stamps rounded to milliseconds do not make frames double and vanish by turns.

    Complexity: O(frames up to stop) time, O(1) memory.
    """
    slack = min(tick / 2, _SLACK / 2) + 1e-6
    held: tuple[float, Shot] | None = None
    for shot in shots:
        time = clock.place(shot.stamp)
        if held is not None:
            yield from _shown(held, time, slack, fps, start, stop, done)
        if stop is not None and start + done.taken / fps >= stop - 1e-9:
            return
        held = (time, shot)
    if held is not None:
        done.end = held[0] + clock.stays(held[1].lasts)
        yield from _shown(held, done.end, slack, fps, start, stop, done)
    done.whole = True


def _shown(
    held: tuple[float, Shot], until: float, slack: float, fps: float, start: float, stop: float | None, done: Choice
) -> Iterator[tuple[float, Shot]]:
    shown = 0
    while True:
        time = start + done.taken / fps
        if time >= until - slack or (stop is not None and time >= stop - 1e-9):
            break
        done.taken += 1
        done.repeated += shown > 0
        shown += 1
        yield time, held[1]
    if until <= start + slack:
        done.before += 1
    elif not shown and (stop is None or held[0] < stop):
        done.left_out += 1


def _count(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames:,} frames"
