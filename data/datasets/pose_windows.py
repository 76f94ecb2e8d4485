"""Windows of frames, padding by edge frames, and frame rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip
from pipelines.data.errors import InputError

__all__ = [
    "PoseWindows",
    "WindowBatch",
    "centre_windows",
    "frame_step",
    "mixed_rates",
    "pad_edges",
    "resample",
    "window_frames",
]


def window_frames(frames: int, length: int, stride: int = 1, latency: int | None = None) -> NDArray[np.int64]:
    """Which frames each window holds, so that every stride-th frame is once the frame that its window is about.

    Frames before the first and after the last are the first and the last again, as the field does.

    Args:
        frames: T of the clip, 1 or more.
        length: of a window.
        stride: from one window to the next.
        latency: how many frames after its own a window sees; None: half of the others (the own frame is the centre).
            0 is strictly causal.

    Returns:
        (windows, length) numbers of frames.

    Raises:
        InputError: no frames, an even length without a latency, a latency that is not within the window.

    Complexity: O(windows x length).

    Source: the sheet, section 6: both ends padded by (length - 1) / 2 copies, so that every frame is a centre frame.

    Example:
        >>> window_frames(3, 3).tolist(), window_frames(1, 3).tolist(), window_frames(3, 3, latency=0).tolist()
        ([[0, 0, 1], [0, 1, 2], [1, 2, 2]], [[0, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 1, 2]])
    """
    if frames < 1:
        raise InputError("a clip without frames", where="windows", found=frames, expected="1 frame or more")
    if length < 1 or stride < 1:
        raise InputError("no such windows", where="windows", found=f"{length}, stride {stride}", expected="1 or more")
    if latency is None and length % 2 == 0:
        raise InputError("an even window has no centre", where="windows", found=length, expected="an odd length")
    after = (length - 1) // 2 if latency is None else latency
    if not 0 <= after < length:
        raise InputError("no such latency", where="latency", found=after, expected=f"0 to {length - 1} frames")
    first = np.arange(0, frames, stride)[:, None] + after - length + 1
    return np.clip(first + np.arange(length), 0, frames - 1)


def centre_windows(values: NDArray[Any], length: int, stride: int = 1, latency: int | None = None) -> NDArray[Any]:
    """The windows of values (T, ...) as (windows, length, ...); see :func:`window_frames`.

    Example:
        >>> centre_windows(np.arange(4), 3).tolist()
        [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    """
    return values[window_frames(len(values), length, stride, latency)]


def pad_edges(values: NDArray[Any], before: int, after: int) -> NDArray[Any]:
    """Values (T, ...) with the first repeated before and the last after them: (before + T + after, ...).

    Raises:
        InputError: no frames, negative counts.

    Example:
        >>> pad_edges(np.array([5, 7]), 2, 1).tolist()
        [5, 5, 5, 7, 7]
    """
    if not len(values) or before < 0 or after < 0:
        found = f"{len(values)} frames, {before} before, {after} after"
        raise InputError("no such padding", where="padding", found=found, expected="1 frame or more, 0 copies or more")
    return values[np.clip(np.arange(-before, len(values) + after), 0, len(values) - 1)]


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Some windows.

    Args:
        points: (N, length, J, D) float32.
        valid: (N, length, J).
        clips: (N,) the clip of each window.
        frames: (N,) the frame that each window is about.
    """

    points: NDArray[np.float32]
    valid: NDArray[np.bool_]
    clips: NDArray[np.int64]
    frames: NDArray[np.int64]


class PoseWindows:
    """All windows of some clips: the clips in their order, the windows of each in theirs; nothing is copied before.

    Args:
        clips: of one skeleton, unit, frame and one number of coordinates.
        length: frames of a window.
        stride: from one window to the next.
        latency: see :func:`window_frames`.

    Attributes:
        places: (windows, 2) clip and frame of each window.
        notes: how many windows there are and how many hold copies of edge frames.

    Raises:
        InputError: no clips, a clip without frames, clips that do not go together.

    Complexity: O(windows) memory.

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> windows = PoseWindows([Clip.of("a", np.zeros((10, 17, 3)), skeleton("h36m17"))], 9)
        >>> len(windows), windows[:4].points.shape, windows.notes
        (10, (4, 9, 17, 3), ('10 windows of 9 frames; 8 of them hold copies of edge frames',))
    """

    def __init__(self, clips: Sequence[Clip], length: int, stride: int = 1, latency: int | None = None) -> None:
        if not clips:
            raise InputError("no clips", where="windows", found=0, expected="1 or more")
        kinds = {(clip.skeleton.joints, clip.unit, clip.frame, clip.dims): clip.name for clip in clips}
        if len(kinds) > 1:
            found = "; ".join(f"{name}: {len(k[0])} joints, {k[3]}-D, {k[1]}, {k[2]}" for k, name in kinds.items())
            raise InputError("clips that do not go together", where="windows", found=found, cure="convert them first")
        self.clips, self.length, self.stride = tuple(clips), length, stride
        self._after = (length - 1) // 2 if latency is None else latency
        places: list[NDArray[np.int64]] = []
        padded = 0
        for number, clip in enumerate(self.clips):
            if not clip.frames:
                raise InputError("a clip without frames", where=clip.name, found=0, expected="1 frame or more")
            rows = window_frames(clip.frames, length, stride, latency)
            own = np.arange(0, clip.frames, stride)
            places.append(np.stack([np.full(len(own), number), own], 1))
            # A window without copies holds as many different frames as it is long.
            padded += int((rows[:, -1] - rows[:, 0] < length - 1).sum())
        self.places: NDArray[np.int64] = np.concatenate(places)
        text = f"{len(self.places)} windows of {length} frames"
        self.notes: tuple[str, ...] = (text + (f"; {padded} of them hold copies of edge frames" if padded else ""),)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int | slice) -> WindowBatch:
        """One window or several, always as a batch."""
        rows = np.arange(len(self))[index]
        return self.take(np.atleast_1d(rows))

    def __iter__(self) -> Iterator[WindowBatch]:
        """The windows one by one."""
        return self.batches(1)

    def take(self, rows: NDArray[np.integer]) -> WindowBatch:
        """The windows of some rows, in their order."""
        clip_of, own = self.places[rows].T
        joints, dims = self.clips[0].points.shape[1:]
        points = np.empty((len(rows), self.length, joints, dims), np.float32)
        valid = np.empty((len(rows), self.length, joints), bool)
        steps = np.arange(self.length) + self._after - self.length + 1
        for number in np.unique(clip_of):
            mine = clip_of == number
            clip = self.clips[number]
            frames = np.clip(own[mine, None] + steps, 0, clip.frames - 1)
            points[mine], valid[mine] = clip.points[frames], clip.valid[frames]
        return WindowBatch(points, valid, clip_of, own)

    def batches(self, size: int, order: NDArray[np.integer] | None = None) -> Iterator[WindowBatch]:
        """All windows in batches, in their order or in another one."""
        rows = np.arange(len(self)) if order is None else np.asarray(order)
        for start in range(0, len(rows), size):
            yield self.take(rows[start : start + size])


def resample(clip: Clip, fps: float) -> Clip:
    """The clip at another frame rate, linear between the two nearest frames; from its first frame on.

    A joint is there in a new frame where it is in both neighbours. There is no low-pass filter: movements faster than
    half the new rate fold back, which human movement at 25 Hz or more hardly has.

    Args:
        clip: whose frame rate is known.
        fps: wanted, Hz.

    Returns:
        The clip itself at its own rate; else floor((T - 1) fps / clip.fps) + 1 frames. Rates whose ratio is within
        1e-4 of a whole number are taken to have that ratio: frame times in files are rounded.

    Raises:
        InputError: an unknown frame rate, one that is not positive, a clip that would have over ten million frames.

    Complexity: O(T J D).

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> points = np.arange(9.0)[:, None, None] * np.ones((9, 17, 3))
        >>> slow = resample(Clip.of("a", points, skeleton("h36m17"), fps=120), 30)
        >>> slow.points[:, 0, 0].tolist(), slow.notes
        ([0.0, 4.0, 8.0], ('120 to 30 Hz: every 4th of 9 frames, 3 remain',))
    """
    if clip.fps is None:
        raise InputError("the frame rate is not known", where=clip.name, found="none", cure="give the frame rate (fps)")
    if not (0 < fps < np.inf and 1e-6 < fps / clip.fps < 1e6):
        expected = f"more than 0 Hz, within a million times {clip.fps:g} Hz"
        raise InputError("no such frame rate", where="fps", found=fps, expected=expected)
    if fps == clip.fps or not clip.frames:
        return clip if fps == clip.fps else clip.but(fps=float(fps))
    step = frame_step(clip.fps / fps)
    count = int(np.floor((clip.frames - 1) / step + 1e-6)) + 1
    if count > 10_000_000:
        raise InputError("too many frames", where=clip.name, found=count, expected="10,000,000 at most")
    at = np.minimum(np.arange(count) * step, clip.frames - 1)
    near = np.round(at)
    at = np.where(np.abs(at - near) < 1e-6, near, at)  # whole frames are taken, not mixed
    low = np.floor(at).astype(np.int64)
    high, share = np.minimum(low + (at > low), clip.frames - 1), np.asarray(at - low, np.float64)
    there = clip.valid[low] & clip.valid[high]
    points = _between(clip.points, low, high, share)
    sure = None if clip.confidence is None else _between(clip.confidence, low, high, share)
    if step == 1:
        how = f"the same {count} frames"
    elif (share == 0).all() and step > 1:
        how = f"every {_ordinal(round(step))} of {clip.frames} frames, {count} remain"
    else:
        how = f"linear between neighbours, {clip.frames} frames to {count}"
    lost = int((~there).sum())
    how += f", {lost} of {there.size} joints missing" if lost else ""
    note = f"{clip.fps:g} to {fps:g} Hz: {how}"
    points = np.where(there[..., None], points, np.float32(0))
    return clip.but(note, points=points, valid=there, confidence=sure, fps=float(fps))


def frame_step(ratio: float) -> float:
    """Old frames a new one; files round frame times (0.0083333 s), so a ratio within 1e-4 of a whole is it.

    Example:
        >>> frame_step(119.999 / 30), frame_step(24.9999 / 50), frame_step(25 / 30) == 25 / 30
        (4.0, 0.5, True)
    """
    for whole, value in ((round(ratio), ratio), (round(1 / ratio), 1 / ratio)):
        if whole and abs(value / whole - 1) < 1e-4:
            return float(whole) if value == ratio else 1 / whole
    return ratio


def _between(
    values: NDArray[np.float32], low: NDArray[np.int64], high: NDArray[np.int64], share: NDArray[np.float64]
) -> NDArray[np.float32]:
    weight = share.reshape(-1, *[1] * (values.ndim - 1))
    return ((1 - weight) * values[low] + weight * values[high]).astype(np.float32)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def mixed_rates(clips: Sequence[Clip]) -> str | None:
    """One sentence if the clips have several frame rates, with how many clips have each; None if they have one.

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> one, two = (Clip.of("a", np.zeros((1, 17, 3)), skeleton("h36m17"), fps=rate) for rate in (30, 50))
        >>> mixed_rates([one, two, two]), mixed_rates([one])
        ('several frame rates: 30 Hz (1 clip), 50 Hz (2 clips)', None)
    """
    rates: dict[float | None, int] = {}
    for clip in clips:
        rates[clip.fps] = rates.get(clip.fps, 0) + 1
    if len(rates) < 2:
        return None
    ordered = sorted(rates.items(), key=lambda one: (one[0] is None, one[0] or 0.0))
    parts = [
        f"{'unknown' if rate is None else f'{rate:g} Hz'} ({count} clip{'s' if count > 1 else ''})"
        for rate, count in ordered
    ]
    return f"several frame rates: {', '.join(parts)}"
