"""More motion out of little: other bones, other speeds, mirror images, and random windows to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_skeletons import flip, flip_clip
from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.datasets.pose_windows import WindowBatch, resample
from pipelines.data.errors import InputError

__all__ = [
    "Augmentation",
    "augment_motion",
    "augment_windows",
    "change_speed",
    "draw_bones",
    "draw_windows",
    "scale_bones",
]


@dataclass(frozen=True)
class Augmentation:
    """How far motion is changed; all factors are drawn evenly.

    Args:
        height: all bones together become up to this share longer or shorter.
        bones: besides, each bone, or pair of a left and a right bone, up to this share.
        speed: lowest and highest factor of the speed.
        mirror: share of mirror images.

    Raises:
        InputError: shares outside 0 to 1, speeds that are not positive.

    Example:
        >>> Augmentation(speed=(1.0, 1.0)).mirror
        0.5
    """

    height: float = 0.1
    bones: float = 0.1
    speed: tuple[float, float] = (0.75, 1.33)
    mirror: float = 0.5

    def __post_init__(self) -> None:
        good = 0 <= self.height < 1 and 0 <= self.bones < 1 and 0 <= self.mirror <= 1
        if not (good and 0 < self.speed[0] <= self.speed[1] < np.inf):
            expected = "shares from 0 to 1, speeds above 0"
            raise InputError("no such augmentation", where="augment", found=self, expected=expected)


def scale_bones(
    points: NDArray[np.floating],
    tree: Skeleton,
    factors: NDArray[np.floating],
    valid: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """The same movement of a body with other bones: directions of bones and the path of the root stay.

    Args:
        points: (..., J, D); a joint that is missing is not moved, and bones that end in one keep their length.
        tree: the skeleton.
        factors: broadcast to (..., J): of the bone that ends at each joint; that of a joint without parent is not used.
        valid: (..., J) or None: all there.

    Returns:
        (..., J, D). Feet may then slide or leave the floor: the root's path is not scaled.

    Complexity: O(points).

    Example:
        >>> leg = Skeleton("leg", ("hip", "knee", "ankle"), (-1, 0, 1), 0)
        >>> scale_bones(np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, -1]]), leg, np.array([1, 2, 3.0])).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, -2.0], [0.0, 3.0, -2.0]]
    """
    numbers = np.asarray(points, np.float64)
    scale = np.broadcast_to(np.asarray(factors, np.float64), numbers.shape[:-1])
    shift = np.zeros_like(numbers)
    for joint in tree.order:
        parent = tree.parents[joint]
        if parent < 0:
            continue
        longer = (scale[..., joint, None] - 1) * (numbers[..., joint, :] - numbers[..., parent, :])
        if valid is not None:
            longer = np.where((valid[..., joint] & valid[..., parent])[..., None], longer, 0.0)
        shift[..., joint, :] = shift[..., parent, :] + longer
    return numbers + (shift if valid is None else np.where(valid[..., None], shift, 0.0))


def draw_bones(
    generator: np.random.Generator, tree: Skeleton, count: int, level: Augmentation | None = None
) -> NDArray[np.float64]:
    """Factors (count, J) for :func:`scale_bones`: one person a row, left and right alike.

    Example:
        >>> tree = Skeleton("eyes", ("nose", "left", "right"), (-1, 0, 0), 0, (1,), (2,))
        >>> drawn = draw_bones(np.random.default_rng(0), tree, 5)
        >>> drawn.shape, bool((drawn[:, 1] == drawn[:, 2]).all()), bool(np.ptp(drawn[:, 1]) > 0)
        ((5, 3), True, True)
    """
    level = level or Augmentation()
    whole = generator.uniform(1 - level.height, 1 + level.height, (count, 1))
    each = generator.uniform(1 - level.bones, 1 + level.bones, (count, len(tree)))
    each[:, list(tree.right)] = each[:, list(tree.left)]
    return whole * each


def change_speed(clip: Clip, factor: float) -> Clip:
    """The movement `factor` times as fast at the same frame rate, linear between neighbouring frames.

    Raises:
        InputError: a factor that is not positive.

    Complexity: O(T J).

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> points = np.arange(9.0)[:, None, None] * np.ones((9, 17, 3))
        >>> fast = change_speed(Clip.of("a", points, skeleton("h36m17"), fps=30), 2.0)
        >>> fast.points[:, 0, 0].tolist(), fast.fps, fast.notes
        ([0.0, 2.0, 4.0, 6.0, 8.0], 30, ('2 times as fast: 9 frames to 5',))
    """
    if not 0 < factor < np.inf:
        raise InputError("no such speed", where="speed", found=factor, expected="more than 0")
    if factor == 1:
        return clip
    rate = clip.fps or 30.0  # any rate serves: only the ratio counts
    done = resample(clip.but(fps=rate * factor), rate)
    note = f"{factor:.3g} times as fast: {clip.frames} frames to {done.frames}"
    return done.but(note, fps=clip.fps, notes=clip.notes)


def augment_motion(clip: Clip, generator: np.random.Generator, level: Augmentation | None = None) -> Clip:
    """A clip with other bones, at another speed, perhaps mirrored; what was done is in the notes.

    Args:
        clip: 3-D.
        generator: decides everything.
        level: how far.

    Raises:
        InputError: a clip that is not 3-D.

    Complexity: O(T J).

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> clip = Clip.of("a", np.random.default_rng(0).normal(size=(20, 17, 3)), skeleton("h36m17"), fps=30)
        >>> other = augment_motion(clip, np.random.default_rng(1))
        >>> other.fps, len(other.notes)
        (30, 3)
    """
    level = level or Augmentation()
    _deep(clip.dims, clip.name)
    factors = draw_bones(generator, clip.skeleton, 1, level)[0]
    speed, mirrored = generator.uniform(*level.speed), generator.random() < level.mirror
    points = scale_bones(clip.points, clip.skeleton, factors, clip.valid)
    note = f"bones {factors.min():.3f} to {factors.max():.3f} times as long"
    out = change_speed(clip.but(note, points=points), float(speed))
    return flip_clip(out) if mirrored else out


def augment_windows(
    points: NDArray[np.floating],
    tree: Skeleton,
    generator: np.random.Generator,
    level: Augmentation | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Many windows at once, each with its own bones and perhaps mirrored; speeds belong to :func:`draw_windows`.

    Args:
        points: (N, T, J, 3).
        tree: the skeleton.
        generator: decides everything.
        level: how far.
        valid: (N, T, J) or None: all there.

    Returns:
        points (N, T, J, 3) and valid (N, T, J).

    Raises:
        InputError: other shapes.

    Complexity: O(points).

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> points, valid = augment_windows(np.ones((5, 9, 17, 3)), skeleton("h36m17"), np.random.default_rng(0))
        >>> points.shape, sorted(set(points[:, 0, 0, 0].tolist()))
        ((5, 9, 17, 3), [-1.0, 1.0])
    """
    level = level or Augmentation()
    if points.ndim != 4 or points.shape[2] != len(tree):
        expected = f"(N, T, {len(tree)} joints, 3)"
        raise InputError("not windows", where="augment", found=points.shape, expected=expected)
    _deep(points.shape[3], "augment")
    there = np.ones(points.shape[:3], bool) if valid is None else valid
    out = scale_bones(points, tree, draw_bones(generator, tree, len(points), level)[:, None], valid)
    mirrored = generator.random(len(points)) < level.mirror
    out[mirrored] = flip(out[mirrored], tree)
    there = np.where(mirrored[:, None, None], there[..., list(tree.mirror)], there)
    return out.astype(np.float32), there


def draw_windows(
    clips: Sequence[Clip],
    length: int,
    count: int,
    generator: np.random.Generator,
    speed: tuple[float, float] = (1.0, 1.0),
    latency: int | None = None,
) -> WindowBatch:
    """Random windows for training: every frame of all clips is equally likely to be the one that a window is about.

    Args:
        clips: of one skeleton and frame rate.
        length: frames of a window.
        count: N.
        generator: decides everything.
        speed: lowest and highest factor; a window at speed s takes frames s apart, linear between neighbours.
        latency: frames that a window sees after its own; None: the own frame is the centre.

    Returns:
        N windows; beyond the ends the edge frames are repeated, as in prediction.

    Raises:
        InputError: no clips or frames, speeds that are not positive, an even length without a latency.

    Complexity: O(N length J).

    Example:
        >>> from pipelines.data.datasets.pose_skeletons import skeleton
        >>> points = np.arange(9.0)[:, None, None] * np.ones((9, 17, 3))
        >>> clip = Clip.of("a", points, skeleton("h36m17"))
        >>> batch = draw_windows([clip], 3, 4, np.random.default_rng(0), speed=(2.0, 2.0))
        >>> bool((np.abs(batch.points[:, 1, 0, 0] - batch.frames) == 0).all()), batch.points.shape
        (True, (4, 3, 17, 3))
    """
    sizes = np.array([clip.frames for clip in clips], np.int64)
    if not sizes.sum() or count < 1 or length < 1:
        found = f"{len(clips)} clips, {int(sizes.sum())} frames, {count} windows of {length}"
        raise InputError("no such windows", where="windows", found=found, expected="1 or more of each")
    if latency is None and length % 2 == 0:
        raise InputError("an even window has no centre", where="windows", found=length, expected="an odd length")
    if not 0 < speed[0] <= speed[1] < np.inf:
        raise InputError("no such speed", where="speed", found=speed, expected="low, high above 0")
    after = (length - 1) // 2 if latency is None else latency
    ends = np.cumsum(sizes)
    pick = generator.integers(0, ends[-1], count)
    factor = generator.uniform(*speed, count)
    clip_of = np.searchsorted(ends, pick, side="right")
    own = pick - (ends - sizes)[clip_of]
    steps = np.arange(length) + after - length + 1
    joints, dims = clips[0].points.shape[1:]
    points, valid = np.empty((count, length, joints, dims), np.float32), np.empty((count, length, joints), bool)
    for number in np.unique(clip_of):
        mine, clip = clip_of == number, clips[number]
        at = np.clip(own[mine, None] + factor[mine, None] * steps, 0, clip.frames - 1)
        points[mine], valid[mine] = _at(clip, at)
    return WindowBatch(points, valid, clip_of, own)


def _at(clip: Clip, times: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    low = np.floor(times).astype(np.int64)
    high = np.ceil(times).astype(np.int64)
    share = (times - low)[..., None, None]
    there = clip.valid[low] & clip.valid[high]
    mixed = (1 - share) * clip.points[low] + share * clip.points[high]
    return np.where(there[..., None], mixed, 0.0), there


def _deep(dims: int, where: str) -> None:
    if dims != 3:
        raise InputError("only 3-D motion has bones to change", where=where, found=f"{dims}-D", expected="3-D")
