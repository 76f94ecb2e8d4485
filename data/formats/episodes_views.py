"""Frames seen through something: a part of them, another size, another colour, another rate; worked out on reading."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_types import Frames, check_range
from pipelines.data.errors import InputError
from pipelines.data.formats.video_pixels import resized

__all__ = ["ColouredFrames", "CutFrames", "PickedFrames", "SizedFrames", "resize_note"]

Shape = tuple[int, int, int, int]
#: Weights of red, green and blue in grey (ITU-R BT.601), as image libraries have them.
LUMA = (0.299, 0.587, 0.114)
_PIECE_BYTES = 1 << 24


class CutFrames:
    """Frames `start` to `stop` (excluded) of other frames.

    Raises:
        InputError: a range outside.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> frames = ArrayFrames(np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1))
        >>> CutFrames.of(CutFrames.of(frames, 1, 6), 2, 4).read(0, 2).ravel().tolist()
        [3, 4]
    """

    def __init__(self, base: Frames, start: int, stop: int) -> None:
        """Keep the frames and the range; `of` also unwraps parts of parts."""
        check_range(start, stop, base.shape[0])
        self.base, self.start, self.stop = base, start, stop

    @classmethod
    def of(cls, frames: Frames, start: int, stop: int) -> CutFrames:
        """A part of frames, which may be a part themselves."""
        check_range(start, stop, frames.shape[0])
        if isinstance(frames, CutFrames):
            return cls(frames.base, frames.start + start, frames.start + stop)
        return cls(frames, start, stop)

    @property
    def shape(self) -> Shape:
        """(T, H, W, C)."""
        _, height, width, channels = self.base.shape
        return self.stop - self.start, height, width, channels

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop (excluded) of the part."""
        check_range(start, stop, self.shape[0])
        return self.base.read(self.start + start, self.start + stop)


class PickedFrames:
    """Frames of other frames by their numbers, which do not fall: fewer, or some again.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> frames = ArrayFrames(np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1))
        >>> PickedFrames(frames, np.array([0, 3, 3, 5])).read(1, 4).ravel().tolist()
        [3, 3, 5]
    """

    def __init__(self, base: Frames, numbers: NDArray[np.int64]) -> None:
        """Keep the frames and the numbers."""
        if len(numbers) and (numbers[0] < 0 or numbers[-1] >= base.shape[0] or (np.diff(numbers) < 0).any()):
            found, expected = f"{numbers[0]} to {numbers[-1]}", f"rising, 0 to {base.shape[0] - 1}"
            raise InputError("no such frames", where="frames", found=found, expected=expected)
        self.base, self.numbers = base, numbers

    @property
    def shape(self) -> Shape:
        """(T, H, W, C)."""
        _, height, width, channels = self.base.shape
        return len(self.numbers), height, width, channels

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop (excluded); frames between the picked ones are not read where they are far apart."""
        check_range(start, stop, self.shape[0])
        wanted = self.numbers[start:stop]
        out = np.empty((stop - start, *self.shape[1:]), np.uint8)
        at = 0
        while at < len(wanted):
            end = at + 1
            while end < len(wanted) and wanted[end] - wanted[end - 1] <= 1:
                end += 1
            run = wanted[at:end]
            out[at:end] = self.base.read(int(run[0]), int(run[-1]) + 1)[run - run[0]]
            at = end
        return out


class SizedFrames:
    """Frames at another size: an axis that shrinks by the mean of areas, one that grows linearly, as films are.

    Where the ratio of the sizes is no whole number, an old pixel counts for the new one that its centre lies in.
    Numbers are rounded after each axis.

    Complexity: O(H W) a frame; a read holds 16 MB of the old frames at once.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> frames = ArrayFrames(np.array([[[0, 10, 100, 110]]], np.uint8)[..., None])
        >>> SizedFrames(frames, (1, 2)).read(0, 1).ravel().tolist()
        [5, 105]
    """

    def __init__(self, base: Frames, size: tuple[int, int]) -> None:
        """Keep the frames and the size (height, width)."""
        self.base, self.size = base, size

    @property
    def shape(self) -> Shape:
        """(T, height, width, C)."""
        return self.base.shape[0], *self.size, self.base.shape[3]

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop (excluded) at the new size."""
        check_range(start, stop, self.shape[0])
        out = np.empty((stop - start, *self.shape[1:]), np.uint8)
        grey = self.shape[3] == 1
        step = max(1, _PIECE_BYTES // max(1, math.prod(self.base.shape[1:])))
        for first in range(start, stop, step):
            piece = self.base.read(first, min(first + step, stop))
            for place, frame in enumerate(piece, first - start):
                small = resized(frame[..., 0] if grey else frame, self.size)
                out[place] = small[..., None] if grey else small
        return out


def resize_note(old: tuple[int, int], new: tuple[int, int]) -> str:
    """What is said where frames are brought to another size (height, width).

    Example:
        >>> resize_note((48, 64), (64, 64))
        '48 x 64 px brought to 64 x 64 by averaging areas (enlarged linearly), sides not in proportion'
    """
    larger = " (enlarged linearly)" if new[0] > old[0] or new[1] > old[1] else ""
    uneven = "" if abs(old[0] * new[1] - old[1] * new[0]) <= max(*old, *new) else ", sides not in proportion"
    return f"{old[0]} x {old[1]} px brought to {new[0]} x {new[1]} by averaging areas{larger}{uneven}"


class ColouredFrames:
    """Frames in another number of colours: grey three times as RGB, or RGB as its luma (BT.601) rounded.

    Source: ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> red = ArrayFrames(np.array([255, 0, 0], np.uint8).reshape(1, 1, 1, 3))
        >>> grey = ColouredFrames(red, 1)
        >>> grey.read(0, 1).ravel().tolist(), ColouredFrames(grey, 3).read(0, 1).ravel().tolist()
        ([76], [76, 76, 76])
    """

    def __init__(self, base: Frames, channels: int) -> None:
        """Keep the frames and the number of channels, 1 or 3."""
        self.base, self.channels = base, channels

    @property
    def shape(self) -> Shape:
        """(T, H, W, channels)."""
        return *self.base.shape[:3], self.channels

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop (excluded) in the new colours."""
        frames = self.base.read(start, stop)
        if frames.shape[3] == self.channels:
            return frames
        if self.channels == 3:
            return np.repeat(frames, 3, axis=3)
        grey = frames.astype(np.float32) @ np.array(LUMA, np.float32)
        return np.rint(grey).clip(0, 255).astype(np.uint8)[..., None]
