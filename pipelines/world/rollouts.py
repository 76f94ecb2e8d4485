"""One episode's rollout: what was seen, what was predicted, what came, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["RolloutEpisode", "by_horizon", "error_of", "pixels_of", "pieces"]

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]
_PIECE = 2_000_000  # values that are looked at, or written, at once
_SLACK = 1e-4  # rounding outside [0, 1] that is no fault of anybody


def pixels_of(values: NDArray[Any]) -> Pixels:
    """Values in [0, 1] as uint8, rounded; uint8 as it is.

    Example:
        >>> pixels_of(np.array([0.0, 0.5, 1.0], np.float32)).tolist()
        [0, 128, 255]
    """
    if values.dtype == np.uint8:
        return values
    return np.clip(np.asarray(values, np.float32) * 255 + 0.5, 0, 255).astype(np.uint8)


def error_of(prediction: NDArray[Any], truth: NDArray[Any]) -> Values:
    """|prediction - truth|, mean over channels: (..., H, W, C) each in [0, 1] -> (..., H, W).

    Example:
        >>> error_of(np.full((1, 1, 3), 0.5), np.array([[[0.5, 0.0, 0.25]]])).round(2).tolist()
        [[0.25]]
    """
    return np.abs(np.asarray(prediction, np.float32) - np.asarray(truth, np.float32)).mean(-1)


@dataclass(frozen=True, eq=False)
class RolloutEpisode:
    """A rollout of h frames after K frames of context; frames are read piece by piece and may be memory maps.

    Frames are (T, H, W, C) with C of 1 or 3: arrays of uint8 or of floats in [0, 1], or anything with `shape` and
    `read(start, stop)` that gives uint8, such as the frames of an `Episode`.

    Raises:
        InputError: sizes that do not fit each other, no frame to show, or values that are no numbers in [0, 1].

    Complexity: O(h H W C) to check floats, a piece in memory.

    Example:
        >>> black, white = np.zeros((2, 4, 6, 1), np.uint8), np.ones((3, 4, 6, 1), np.float32)
        >>> one = RolloutEpisode("clip", black, white, fps=10.0)
        >>> str(one), one.pixels(0, 1).dtype.name, float(one.values(2, 3).max())
        ('clip: 3 frames after 2 of context at 10 Hz (0.3 s), 6 x 4 px', 'uint8', 1.0)
    """

    name: str
    """Name of the episode."""
    context: Any
    """(K, H, W, C), the frames that were seen."""
    prediction: Any
    """(h, H, W, C), the frames after them as the model has them."""
    truth: Any = None
    """(n, H, W, C), the frames that came; n <= h, fewer where the episode ends first; None where they are unknown."""
    actions: NDArray[np.float32] | None = None
    """(K - 1 + h, A) or one more, which is not used: actions[t] leads from frame t to t + 1, counted from the context's
    first frame."""
    fps: float | None = None
    """Frames a second, Hz; None where it is not known."""
    start: int = 0
    """Number of the context's first frame within the episode, from 0."""
    action_names: tuple[str, ...] = ()
    """Names of the A columns of actions; empty where they have none."""
    notes: tuple[str, ...] = ()
    """What was done to the frames, counted, in sentences."""

    def __post_init__(self) -> None:
        shapes = {"context": _shape(self.context, self.name, "context")}
        shapes["prediction"] = _shape(self.prediction, self.name, "prediction")
        if self.truth is not None:
            shapes["truth"] = _shape(self.truth, self.name, "truth")
        if len({shape[1:] for shape in shapes.values()}) > 1:
            raise InputError("frames of several sizes", where=self.name, found=shapes, expected="one (H, W, C)")
        if self.known > self.horizon:
            raise InputError("more truth than prediction", where=self.name, found=f"{self.known} and {self.horizon}")
        self._check_actions()
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError("no such frame rate", where=self.name, found=self.fps, expected="more than 0 Hz")
        for what in ("context", "prediction", "truth"):
            _check_values(getattr(self, what), f"{self.name}, {what}")

    def _check_actions(self) -> None:
        if self.actions is None:
            if self.action_names:
                raise InputError("names of actions without actions", where=self.name, found=self.action_names)
            return
        used = self.seen - 1 + self.horizon
        if self.actions.ndim != 2 or len(self.actions) not in (used, used + 1):
            expected = f"({used}, A): {self.seen} frames of context and {self.horizon} after them"
            raise InputError("actions of another length", where=self.name, found=self.actions.shape, expected=expected)
        if self.action_names and len(self.action_names) != self.actions.shape[1]:
            found = f"{len(self.action_names)} names, {self.actions.shape[1]} columns"
            raise InputError("names do not fit the actions", where=self.name, found=found)

    @property
    def seen(self) -> int:
        """K, frames of context."""
        return int(self.context.shape[0])

    @property
    def horizon(self) -> int:
        """h, predicted frames."""
        return int(self.prediction.shape[0])

    @property
    def known(self) -> int:
        """Predicted frames whose truth is known; 0 where it is not."""
        return 0 if self.truth is None else int(self.truth.shape[0])

    @property
    def frame(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.prediction.shape[1:]
        return int(height), int(width), int(channels)

    def values(self, start: int, stop: int, what: str = "prediction") -> Values:
        """Frames start to stop (excluded) of the prediction, truth or context as float32 in [0, 1]."""
        return _values(_read(getattr(self, what), start, stop))

    def pixels(self, start: int, stop: int, what: str = "prediction") -> Pixels:
        """Frames start to stop (excluded) of the prediction, truth or context as uint8."""
        return pixels_of(_read(getattr(self, what), start, stop))

    def read(self, what: str, start: int, stop: int) -> NDArray[Any]:
        """Frames start to stop (excluded) as they are held, uint8 or floats."""
        return _read(getattr(self, what), start, stop)

    def seconds(self, step: int) -> float | None:
        """Time of the predicted frame number `step` (from 1) after the last frame seen, in s."""
        return None if self.fps is None else step / self.fps

    def action(self, row: int) -> str:
        """The action of a row in words: its name where it is one-hot with names, else its numbers.

        Example:
            >>> frames, moves = np.zeros((2, 1, 1, 1), np.uint8), np.eye(2, dtype=np.float32)[[1, 0, 1]]
            >>> RolloutEpisode("e", frames, frames, actions=moves, action_names=("left", "right")).action(0)
            'right'
        """
        if self.actions is None or not 0 <= row < len(self.actions):
            return ""
        numbers = self.actions[row].tolist()
        if self.action_names and sorted(numbers) == [0.0] * (len(numbers) - 1) + [1.0]:
            return self.action_names[numbers.index(1.0)]
        names = self.action_names or ("",) * len(numbers)
        told = [f"{name} {number:.3g}".strip() for name, number in zip(names, numbers, strict=True)]
        return ", ".join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else "")

    def __str__(self) -> str:
        height, width, _ = self.frame
        time = self.seconds(self.horizon)
        told = "frame rate not known" if time is None else f"at {self.fps:.4g} Hz ({time:.3g} s)"
        frames = f"{self.horizon:,} frame{'s' if self.horizon != 1 else ''} after {self.seen:,} of context"
        return f"{self.name}: {frames}{' ' if time is not None else ', '}{told}, {width} x {height} px"


def pieces(count: int, values: int) -> Iterator[tuple[int, int]]:
    """Ranges of frames that are looked at one after the other, so that memory does not grow with their number.

    Args:
        count: of all frames.
        values: of one frame.

    Example:
        >>> list(pieces(5, 1_000_000))
        [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, _PIECE // max(1, values))
    for start in range(0, count, step):
        yield start, min(count, start + step)


def by_horizon(episodes: Sequence[RolloutEpisode]) -> dict[str, dict[str, list[float]]]:
    """MSE and PSNR of the prediction and of copying the last frame seen, at each horizon whose truth is known.

    The squared error of a horizon is the mean over the pixels of all episodes that reach it, and the PSNR is of that
    mean, in dB of the range [0, 1], at most 100 (an error of 0 has no other).

    Returns:
        metric -> {"prediction" and "copy_last": one figure a horizon}; empty where no truth is known.

    Complexity: O(pixels), a piece in memory.

    Example:
        >>> black, half = np.zeros((1, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 0.5, np.float32)
        >>> by_horizon([RolloutEpisode("a", black, half, truth=black)])["mse"]
        {'prediction': [0.25], 'copy_last': [0.0]}
    """
    from pipelines.world.metrics import psnr_of

    longest = max((one.known for one in episodes), default=0)
    sums, counts = np.zeros((2, longest)), np.zeros(longest)
    for one in episodes:
        last = one.values(one.seen - 1, one.seen, "context")
        size = math.prod(one.frame)
        for start, stop in pieces(one.known, size):
            truth = one.values(start, stop, "truth")
            for row, guess in enumerate((one.values(start, stop), last)):
                squares = np.square(guess - truth, dtype=np.float64)
                sums[row, start:stop] += squares.reshape(stop - start, -1).sum(1)
        counts[: one.known] += size
    if not longest:
        return {}
    mse = {"prediction": sums[0] / counts, "copy_last": sums[1] / counts}
    return {
        "mse": {name: values.tolist() for name, values in mse.items()},
        "psnr": {name: [psnr_of(value) for value in values.tolist()] for name, values in mse.items()},
    }


def _shape(frames: Any, name: str, what: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in getattr(frames, "shape", ()))
    if len(shape) != 4 or 0 in shape or shape[-1] not in (1, 3):
        expected = "(T, H, W, C), T of 1 or more, C of 1 or 3"
        raise InputError(f"{what} without frames to show", where=name, found=shape, expected=expected)
    return shape


def _read(frames: Any, start: int, stop: int) -> NDArray[Any]:
    if hasattr(frames, "read"):
        return frames.read(start, stop)
    return np.asarray(frames[start:stop])


def _values(frames: NDArray[Any]) -> Values:
    values = frames.astype(np.float32, copy=False)
    return values / np.float32(255) if frames.dtype == np.uint8 else values


def _check_values(frames: Any, where: str) -> None:
    if frames is None or hasattr(frames, "read") or frames.dtype == np.uint8:
        return
    if frames.dtype.kind != "f":
        raise InputError("no frames", where=where, found=frames.dtype, expected="uint8, or floats in [0, 1]")
    for start, stop in pieces(len(frames), math.prod(frames.shape[1:])):
        piece = np.asarray(frames[start:stop], np.float32)
        low, high = float(piece.min()), float(piece.max())
        # NaN compares as false with everything.
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            found = "values that are not finite" if not math.isfinite(low + high) else f"{low:.4g} to {high:.4g}"
            raise InputError("values outside [0, 1]", where=f"{where}, frame {start} and later", found=found)
