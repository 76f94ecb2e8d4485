"""Where words begin and end, from the spikes of CTC and the loudness of the sound.

Times are seconds; W words, F frames of loudness.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

__all__ = ["Loudness", "Spikes", "edges"]

Floats = NDArray[np.float64]
_HOP = 0.01  # of the loudness, seconds
_BANDS = (100.0, 500.0, 1500.0, 3000.0)  # Hz, where they begin
_CLICK = 3  # frames: shorter than any sound of speech
_LEAD, _TAIL = 0.08, 0.12  # how far a word reaches beyond its spikes where nothing better is known
_REACH = 0.6  # how far before the first spike of all, and after the last one, sound can belong to the word
_PAUSE = 0.05  # a shorter quiet stretch is a closure inside a word
_AROUND = 1.0  # how far around a gap noise and speech are measured
_LEAST_RANGE = 12.0  # dB between noise and speech: below it nothing is called quiet
_OUTER_PAUSE = 0.12  # what ends the first and the last word: longer than the closure of a consonant


@dataclasses.dataclass(frozen=True)
class Spikes:
    """First and last spike of each word.

    Attributes:
        times: (W, 2), strictly rising from word to word.
        frame_seconds: length of a CTC frame.
    """

    times: Floats
    frame_seconds: float


@dataclasses.dataclass(frozen=True)
class Loudness:
    """Loudness of a sound in four bands, every 10 ms: a fricative is heard in other bands than a vowel or a hum.

    Attributes:
        level: (F, 4) dB; frame i is heard around (i + 0.5) x 10 ms.
    """

    level: Floats

    @classmethod
    def of(cls, samples: NDArray[np.floating], rate: int) -> Loudness:
        """Measure a sound: power of its bands in windows of 25 ms, smoothed over three of them.

        Args:
            samples: (n,) in [-1, 1].
            rate: Hz.

        Complexity: O(n log rate) time; memory for a few thousand windows beside the result.

        Example:
            >>> sound = np.zeros(16000)
            >>> sound[8000:] = np.sin(np.arange(8000))  # 2546 Hz
            >>> level = Loudness.of(sound, 16000).level
            >>> level.shape, bool((level[20] < -90).all()), int(level[80].argmax())
            ((100, 4), True, 2)
        """
        width = max(8, round(0.025 * rate))
        count = max(1, int(len(samples) / rate / _HOP))
        starts = np.round((np.arange(count) + 0.5) * _HOP * rate).astype(int)
        padded = np.pad(samples.astype(np.float64), (width // 2, width))
        window = np.hanning(width) / np.sqrt(width)
        band = np.digitize(np.fft.rfftfreq(width, 1 / rate), _BANDS) - 1
        power = np.zeros((count, len(_BANDS)))
        for block in np.array_split(np.arange(count), -(-count // 4096)):
            spectrum = np.abs(np.fft.rfft(padded[starts[block, None] + np.arange(width)] * window)) ** 2
            for number in range(len(_BANDS)):
                power[block, number] = spectrum[:, band == number].sum(1) / width
        smooth = np.pad(power, ((1, 1), (0, 0)), mode="edge")
        return cls(10 * np.log10(np.maximum((smooth[:-2] + smooth[1:-1] + smooth[2:]) / 3, 1e-10)))

    def quiet(self, low: float, high: float) -> tuple[int, NDArray[np.bool_]]:
        """Which frames between two times are as quiet as the noise around, in all bands; and the first one's number.

        Noise is the 5th and speech the 95th percentile of a band from a second before to a second after. Bands in
        which speech hardly rises above the noise have no say; where that is all of them, nothing is called quiet.
        """
        first, last = self._frames(low, high)
        before, after = self._frames(low - _AROUND, high + _AROUND)
        around = self.level[before:after]
        speech = np.percentile(around, 95, axis=0)
        loudest = speech.max()
        noise = np.maximum(np.percentile(around, 5, axis=0), loudest - 60)
        heard = speech - noise >= _LEAST_RANGE
        loud = ((self.level[first:last] > noise + np.maximum(7.0, 0.25 * (loudest - noise))) & heard).any(1)
        for a, b in _runs(loud):
            loud[a:b] = b - a >= _CLICK or a == 0 or b == len(loud)
        return first, ~loud & bool(heard.any())

    def quietest(self, low: float, high: float) -> float:
        """The time between two others at which the sound is quietest; the middle of a stretch that is equally quiet."""
        first, last = self._frames(low, high)
        level = 10 * np.log10((10 ** (self.level[first:last] / 10)).sum(1))
        lowest = np.flatnonzero(level <= level.min() + 0.5)
        return float(np.clip((first + lowest[len(lowest) // 2] + 0.5) * _HOP, low, high))

    def _frames(self, low: float, high: float) -> tuple[int, int]:
        """At least one frame, all inside the sound."""
        first = int(np.clip(round(low / _HOP), 0, len(self.level) - 1))
        return first, int(np.clip(round(high / _HOP), first + 1, len(self.level)))


def edges(spikes: Spikes, seconds: float, loudness: Loudness | None = None) -> Floats:
    """Begin and end of each word.

    Args:
        spikes: of W words.
        seconds: how long the recording is.
        loudness: of the recording; without it the edges come from the spikes alone.

    Returns:
        (W, 2) rising, not overlapping, between 0 and `seconds`; each word longer than nothing where its spikes lie
        inside the recording.

    Complexity: O(W + F).

    Example:
        >>> edges(Spikes(np.array([[0.5, 0.7], [0.8, 0.8]]), 0.04), 2.0).round(2).tolist()
        [[0.42, 0.75], [0.75, 0.92]]
    """
    count = len(spikes.times)
    places = np.zeros((count, 2))
    first, last = spikes.times[0, 0], spikes.times[-1, 1]
    for i in range(count - 1):
        gap = spikes.times[i, 1], spikes.times[i + 1, 0]
        places[i, 1], places[i + 1, 0] = _between(spikes, i, loudness) if loudness else _plain(*gap)
    places[0, 0] = _outer(first, -1, loudness, spikes) if loudness else first - _LEAD
    places[-1, 1] = _outer(last, 1, loudness, spikes) if loudness else last + _TAIL
    return np.maximum.accumulate(np.clip(places, 0.0, seconds).ravel()).reshape(count, 2)


def _plain(left: float, right: float) -> tuple[float, float]:
    middle = (left + right) / 2
    return min(left + _TAIL, middle), max(right - _LEAD, middle)


def _between(spikes: Spikes, i: int, loudness: Loudness) -> tuple[float, float]:
    """End of word i and begin of the next one."""
    left, right = spikes.times[i, 1], spikes.times[i + 1, 0]
    earliest, latest = _slack(spikes, i)[1], _slack(spikes, i + 1)[0]
    first, quiet = loudness.quiet(earliest, latest)
    runs = [(first * _HOP + a * _HOP, first * _HOP + b * _HOP) for a, b in _runs(quiet)]
    # A pause reaches between the spikes; of several, those much shorter than the longest are closures of consonants.
    runs = [(a, b) for a, b in runs if b - a >= _PAUSE and a < right and b > left]
    if not runs:
        place = loudness.quietest(left, right)
        return place, place
    longest = max(b - a for a, b in runs)
    runs = [(a, b) for a, b in runs if b - a >= longest / 2]
    return max(runs[0][0], earliest), min(runs[-1][1], latest)


def _slack(spikes: Spikes, i: int) -> tuple[float, float]:
    """How late word i may begin and how early it may end: spikes come a little before or after their sounds."""
    first, last = spikes.times[i]
    if last - first < spikes.frame_seconds / 2:
        return first - spikes.frame_seconds / 4, last + spikes.frame_seconds / 4
    return first + 0.45 * (last - first), first + 0.55 * (last - first)


def _outer(spike: float, direction: int, loudness: Loudness, spikes: Spikes) -> float:
    """Begin of the first word (direction -1) or end of the last one (1): the nearest long quiet stretch outside."""
    word = 0 if direction < 0 else len(spikes.times) - 1
    inner = _slack(spikes, word)[0 if direction < 0 else 1]
    low, high = sorted((inner, spike + direction * _REACH))
    first, quiet = loudness.quiet(low, high)
    if direction < 0:
        quiet = quiet[::-1]
    length = round(_OUTER_PAUSE / _HOP)
    # A quiet stretch that the end of the recording cuts short counts too.
    at_end = (first == 0) if direction < 0 else first + len(quiet) == len(loudness.level)
    for a, b in _runs(quiet):
        if b - a >= length or (b == len(quiet) and at_end):
            return (first + len(quiet) - a) * _HOP if direction < 0 else (first + a) * _HOP
    return spike + direction * (_LEAD if direction < 0 else _TAIL)


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of every stretch of True."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edge[::2].tolist(), edge[1::2].tolist(), strict=True))
