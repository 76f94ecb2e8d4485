"""Level of speech frames in decibels, and the floor of noise below them; nothing heavy before the first block."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FRAMES", "MUTE", "Floor", "Levels"]

FRAMES = 100  # a second
MUTE = -90.0  # dB: below the last bit of 16, nothing was recorded; such frames say nothing about the noise
_SMOOTHED = 7  # frames whose mean energy the noise floor is the minimum of
_PART, _PARTS = 50, 20  # the floor is the minimum of twenty parts of half a second


class Levels:
    """Level of every frame in dB (a full-scale sine is 0): its energy above 100 Hz, lows weighted down.

    Args:
        rate: samples a second.

    Complexity: O(log rate) a sample; holds less than three frames.

    Example:
        >>> import numpy as np
        >>> levels = Levels(8000)
        >>> found = levels.push(np.sin(np.arange(8000) * 2.0).astype(np.float32)) + levels.flush()
        >>> len(found), round(found[50])
        (100, 0)
    """

    def __init__(self, rate: int) -> None:
        import numpy as np

        self.hop = max(round(rate / FRAMES), 1)
        self._length = 3 * self.hop  # the frame and its neighbours, under a Hann window
        self._window = np.hanning(self._length + 2)[1:-1].astype(np.float32)
        frequency = np.arange(self._length // 2 + 1) * rate / self._length
        # Rumble and wind lie low and wander: without the slope they would look like speech.
        weight = np.where(frequency > 100.0, frequency**2 / (frequency**2 + 300.0**2), 0.0)
        self._weight = weight * 4.0 / (self._length * float((self._window.astype(np.float64) ** 2).sum()))
        self.reset()

    def reset(self) -> None:
        """Begin another recording."""
        import numpy as np

        self._rest = np.zeros(self.hop, np.float32)  # the first frame has no neighbour before it

    def push(self, samples: NDArray[np.float32]) -> list[float]:
        """The levels of the frames that are complete with their right neighbour."""
        import numpy as np

        joined = np.concatenate([self._rest, samples])
        count = max((len(joined) - self._length) // self.hop + 1, 0)
        self._rest = joined[count * self.hop :]
        if not count:
            return []
        frames = np.lib.stride_tricks.sliding_window_view(joined, self._length)[:: self.hop][:count]
        spectrum = np.fft.rfft(frames * self._window)
        energy = ((spectrum.real**2 + spectrum.imag**2) * self._weight).sum(-1)
        return (10.0 * np.log10(np.maximum(energy, 1e-12))).tolist()

    def flush(self) -> list[float]:
        """The levels of the last frames."""
        import numpy as np

        left = len(self._rest) - self.hop  # samples of frames that have no level yet
        if left <= 0:
            return []
        need = math.ceil(left / self.hop) * self.hop + 2 * self.hop
        return self.push(np.zeros(need - len(self._rest), np.float32))


class Floor:
    """The noise floor in dB: the smallest mean energy of a few frames in the last seconds; mute frames are passed.

    Attributes:
        value: the floor; minus infinity before the first frame.
        heard: frames that were not mute.

    Source: R. Martin, Noise power spectral density estimation based on optimal smoothing and minimum statistics,
        IEEE Trans. Speech and Audio Processing 9 (2001), with the whole band as one.

    Example:
        >>> floor = Floor()
        >>> for level in [-40.0] * 20 + [-10.0] * 300:
        ...     floor.add(level)
        >>> round(floor.value)
        -40
    """

    def __init__(self) -> None:
        self.heard = 0
        self.value = -math.inf
        self._recent: deque[float] = deque(maxlen=_SMOOTHED)
        self._parts: deque[float] = deque(maxlen=_PARTS)

    def add(self, level: float) -> None:
        """Take the level of the next frame."""
        if level < MUTE:
            self._recent.clear()
            return
        self._recent.append(10.0 ** (level / 10.0))
        mean = 10.0 * math.log10(sum(self._recent) / len(self._recent))
        if len(self._recent) < _SMOOTHED and self.heard >= _SMOOTHED:
            mean = max(mean, self.value)  # the edge of a mute stretch is no quiet place
        if self.heard % _PART == 0:
            self._parts.append(mean)
        self.heard += 1
        self._parts[-1] = min(self._parts[-1], mean)
        self.value = min(self._parts)
