"""What any world model must beat: the last frame again, the training mean frame, a line through the last two frames.

Shapes: B windows, K context frames, h steps of the rollout, frames of C channels, H rows, W columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.datasets.world_types import Frames
from pipelines.errors import InputError
from pipelines.world.metrics import to_unit

__all__ = ["Baseline", "CopyLast", "LinearExtrapolation", "MeanFrame"]

_CHUNK = 1 << 24  # values of frames that are read at a time


class Baseline(Protocol):
    """What predicts frames from context frames without having learned.

    Example:
        >>> [kind.name for kind in (CopyLast, MeanFrame, LinearExtrapolation)]
        ['copy_last', 'mean_frame', 'linear']
    """

    name: ClassVar[str]

    def rollout(self, context: ArrayLike, horizon: int) -> NDArray[np.float32]:
        """(B, K, C, H, W) -> (B, horizon, C, H, W) on [0, 1]."""
        ...


@dataclasses.dataclass(frozen=True)
class CopyLast:
    """The last context frame again and again.

    Example:
        >>> context = np.array([0, 255], np.uint8).reshape(1, 2, 1, 1, 1)
        >>> CopyLast().rollout(context, 3).ravel().tolist()
        [1.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "copy_last"

    def rollout(self, context: ArrayLike, horizon: int) -> NDArray[np.float32]:
        """Repeat the last frame.

        Args:
            context: (B, K, C, H, W), uint8 or floats on [0, 1].
            horizon: steps h.

        Returns:
            (B, h, C, H, W), one frame a window in memory, read only.

        Raises:
            InputError: another shape or dtype, values that are not finite, a horizon below 1.

        Complexity: O(B C H W).
        """
        last = _context(context, horizon)[:, -1:]
        return np.broadcast_to(last, (len(last), horizon, *last.shape[2:]))


@dataclasses.dataclass(frozen=True)
class LinearExtrapolation:
    """Every pixel goes on as from the last frame but one to the last, clipped to [0, 1].

    Example:
        >>> context = np.array([0.25, 0.5]).reshape(1, 2, 1, 1, 1)
        >>> LinearExtrapolation().rollout(context, 3).ravel().tolist()
        [0.75, 1.0, 1.0]
    """

    name: ClassVar[str] = "linear"

    def rollout(self, context: ArrayLike, horizon: int) -> NDArray[np.float32]:
        """Extrapolate; arguments, errors as `CopyLast.rollout`, and two context frames or more.

        Complexity: O(B h C H W).
        """
        frames = _context(context, horizon)
        if frames.shape[1] < 2:
            raise InputError("a line needs two frames", where="context", found=1, expected="2 frames or more")
        step = (frames[:, -1:] - frames[:, -2:-1]).astype(np.float32)
        ahead = np.arange(1, horizon + 1, dtype=np.float32).reshape(1, -1, 1, 1, 1)
        return np.clip(frames[:, -1:] + ahead * step, 0.0, 1.0).astype(np.float32, copy=False)


@dataclasses.dataclass(frozen=True, eq=False)
class MeanFrame:
    """One frame for every step: the mean of the training frames, whatever the context.

    Args:
        frame: (C, H, W) on [0, 1].
        count: frames that the mean rests on.

    Example:
        >>> films = [np.zeros((3, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 204, np.uint8)]
        >>> mean = MeanFrame.fit(films)
        >>> mean.count, mean.rollout(np.zeros((5, 2, 1, 2, 2), np.uint8), 4).shape, float(mean.frame[0, 0, 0])
        (4, (5, 4, 1, 2, 2), 0.2)
    """

    frame: NDArray[np.float64]
    count: int = 0
    name: ClassVar[str] = "mean_frame"

    @classmethod
    def fit(cls, films: Iterable[Frames | NDArray[np.uint8]]) -> MeanFrame:
        """Sum up the training frames, a chunk at a time.

        Args:
            films: frames of each training episode, (T, H, W, C) uint8, such as `episode.frames`, or an array.

        Raises:
            InputError: no frame, films of two sizes, another dtype.

        Complexity: O(frames H W C) time, memory of one chunk and one frame. The sums of 8-bit values are exact.
        """
        total, count = None, 0
        for number, film in enumerate(films):
            where = f"film {number} of the mean frame"
            shape = tuple(film.shape)
            if len(shape) != 4 or (total is not None and shape[1:] != total.shape):
                expected = "(T, H, W, C)" if total is None else ("T", *total.shape)
                raise InputError("not the frames of one size", where=where, found=shape, expected=expected)
            if total is None:
                total = np.zeros(shape[1:], np.float64)
            step = max(1, _CHUNK // max(1, total.size))
            for start in range(0, shape[0], step):
                stop = min(start + step, shape[0])
                frames = film[start:stop] if isinstance(film, np.ndarray) else film.read(start, stop)
                if frames.dtype != np.uint8:
                    raise InputError("not frames of a file", where=where, found=frames.dtype, expected="uint8")
                total += frames.sum(axis=0, dtype=np.float64)
            count += shape[0]
        if total is None or not count:
            raise InputError("no mean of no frame", where="films", expected="one training frame or more")
        return cls(np.ascontiguousarray(total.transpose(2, 0, 1)) / (255.0 * count), count)

    def rollout(self, context: ArrayLike, horizon: int) -> NDArray[np.float32]:
        """The mean frame h times; arguments, errors as `CopyLast.rollout`, and frames of the size of the mean.

        Returns:
            (B, h, C, H, W), one frame in memory, read only.

        Complexity: O(C H W).
        """
        frames = _context(context, horizon)
        if frames.shape[2:] != self.frame.shape:
            raise InputError("frames of another size", where="context", found=frames.shape[2:],
                             expected=self.frame.shape)  # fmt: skip
        return np.broadcast_to(self.frame.astype(np.float32), (len(frames), horizon, *self.frame.shape))


def _context(context: ArrayLike, horizon: int) -> NDArray[np.float32]:
    frames = np.asarray(context)
    if frames.ndim != 5 or not frames.size:
        raise InputError("not context frames", where="context", found=frames.shape, expected="(B, K, C, H, W)")
    if horizon < 1:
        raise InputError("a rollout of no step", where="horizon", found=horizon, expected="1 or more")
    return to_unit(frames, "context", bounded=True).astype(np.float32, copy=False)
