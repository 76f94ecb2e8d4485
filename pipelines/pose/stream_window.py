"""The window of frames around one that lies some frames back, while frames come one by one; in constant memory."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError

__all__ = ["FrameWindow"]


class FrameWindow:
    """The windows that `centre_windows` gives of a whole clip, as soon as they are known.

    The window of frame t holds the frames t - half to t + half, as far as they have come: at a delay below half the
    newest frame stands for those that are still to come. Before the first frame stands the first, as in a clip.

    Args:
        length: of a window, odd.
        delay: frames that come after a frame before its window is given; 0 to (length - 1) / 2.

    Raises:
        ConfigError: another delay.

    Complexity: O(length) memory and work a frame.

    Example:
        >>> window = FrameWindow(3, 1)
        >>> for frame in np.arange(3.0):
        ...     window.push(frame)
        ...     if window.ready:
        ...         print(window.oldest().tolist(), window.answered())
        [0.0, 0.0, 1.0] 1
        [0.0, 1.0, 2.0] 2
        >>> window.waiting, window.oldest().tolist()
        (1, [1.0, 2.0, 2.0])
    """

    def __init__(self, length: int, delay: int) -> None:
        half = length // 2
        if isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay <= half:
            raise ConfigError("no such delay", where="delay", found=delay,
                              expected=f"0 to {half} frames: half of the model's window of {length}")  # fmt: skip
        self.half, self.delay = half, delay
        # One more than a window needs: a frame whose answer was interrupted is still there.
        self._frames: deque[NDArray[np.float32]] = deque(maxlen=half + delay + 2)
        self._came = self._answered = 0

    def push(self, frame: NDArray[np.float32]) -> None:
        """Take the next frame."""
        self._frames.append(np.asarray(frame))
        self._came += 1

    @property
    def waiting(self) -> int:
        """Frames that have no answer yet."""
        return self._came - self._answered

    @property
    def ready(self) -> bool:
        """Whether the oldest of them has waited long enough."""
        return self.waiting > self.delay

    def oldest(self) -> NDArray[np.float32]:
        """The window of the oldest frame that has no answer yet, as far as frames have come."""
        place = len(self._frames) - self.waiting
        rows = np.clip(np.arange(place - self.half, place + self.half + 1), 0, len(self._frames) - 1)
        return np.stack([self._frames[row] for row in rows])

    def answered(self) -> int:
        """That frame has its answer; how many have one."""
        self._answered += 1
        return self._answered
