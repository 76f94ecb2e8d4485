"""Detector-like faults on projected joints: shaking, stray and missing joints, sides that change places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Skeleton
from pipelines.data.errors import InputError

__all__ = ["Degraded", "NoiseLevel", "degrade"]


@dataclass(frozen=True)
class NoiseLevel:
    """How bad the detector is.

    Args:
        noise_px: standard deviation of the error of x and of y, px.
        memory: share of a joint's error that stays from one frame to the next, 0 to below 1; detectors err alike in
            frames that look alike.
        jitter: share of joints that stray: their error is `stray` times as large.
        stray: see `jitter`.
        missing: share of joints that are lost, in runs of `run` frames on average.
        run: frames.
        swaps: share of frames in which left and right are exchanged, in runs as well.

    Raises:
        InputError: shares outside 0 to 1, a negative error.

    Example:
        >>> NoiseLevel(noise_px=5.0, missing=0.05).run
        5.0
    """

    noise_px: float = 5.0
    memory: float = 0.0
    jitter: float = 0.0
    stray: float = 6.0
    missing: float = 0.0
    run: float = 5.0
    swaps: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.memory, self.jitter, self.missing, self.swaps)
        good = all(0 <= one < 1 for one in shares) and self.noise_px >= 0 and self.stray >= 0 and self.run >= 1
        if not (good and np.isfinite([self.noise_px, self.stray, self.run]).all()):
            expected = "shares from 0 to below 1, errors of 0 or more, runs of 1 frame or more"
            raise InputError("no such noise", where="noise", found=self, expected=expected)


@dataclass(frozen=True, eq=False)
class Degraded:
    """Joints after the faults.

    Args:
        points: (..., T, J, 2) px; 0 where missing.
        valid: (..., T, J).
        confidence: (..., T, J) 0 to 1; falls with the error of the joint, as that of a detector does on average.
        missing, strayed, swapped: how many joints were lost, how many strayed, how many frames have exchanged sides.
    """

    points: NDArray[np.float32]
    valid: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    missing: int
    strayed: int
    swapped: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done, counted."""
        said = (
            f"made worse: {self.missing} joints lost, {self.strayed} strayed, sides exchanged in {self.swapped} frames"
        )
        return (said,)


def degrade(
    points2d: NDArray[np.floating],
    valid: NDArray[np.bool_] | None,
    generator: np.random.Generator,
    level: NoiseLevel | None = None,
    tree: Skeleton | None = None,
) -> Degraded:
    """Joints as a detector might have found them.

    Args:
        points2d: (..., T, J, 2) px.
        valid: (..., T, J) or None: all there.
        generator: decides everything.
        level: how bad; None: 5 px of noise.
        tree: which joints are left and right; only for `swaps`.

    Raises:
        InputError: other shapes, swaps without a skeleton.

    Complexity: O(points).

    Source: own model. Error: a first-order autoregression of fixed variance; runs: a Markov chain of two states with
    the wanted share; confidence: exp(-error / (4 noise_px)), blurred by a tenth.

    Example:
        >>> seen = degrade(np.full((200, 17, 2), 500.0), None, np.random.default_rng(0), NoiseLevel(5.0, missing=0.1))
        >>> 0.05 < seen.missing / 3400 < 0.15, bool((seen.points[~seen.valid] == 0).all())
        (True, True)
    """
    level = level or NoiseLevel()
    if points2d.ndim < 3 or points2d.shape[-1] != 2:
        raise InputError("not pixels", where="noise", found=points2d.shape, expected="(..., frames, joints, 2)")
    there = np.ones(points2d.shape[:-1], bool) if valid is None else np.array(valid, bool)
    if there.shape != points2d.shape[:-1]:
        raise InputError("valid does not fit", where="noise", found=there.shape, expected=points2d.shape[:-1])
    points = np.where(there[..., None], points2d, 0.0).astype(np.float64)
    swapped = np.zeros(points2d.shape[:-2], bool)
    if level.swaps:
        if tree is None or len(tree) != points2d.shape[-2] or not tree.left:
            raise InputError("no sides to exchange", where="noise", expected="a skeleton with left and right joints")
        swapped = _runs(points2d.shape[:-2], -1, level.swaps, level.run, generator)
        mirror = list(tree.mirror)
        points = np.where(swapped[..., None, None], points[..., mirror, :], points)
        there = np.where(swapped[..., None], there[..., mirror], there)
    error = _shaking(points.shape, level.memory, generator) * level.noise_px
    strayed = (generator.random(there.shape) < level.jitter) & there
    error *= np.where(strayed, level.stray, 1.0)[..., None]
    lost = _runs(there.shape, -2, level.missing, level.run, generator) & there
    there = there & ~lost
    size = np.linalg.norm(error, axis=-1)
    sure = np.exp(-size / (4 * level.noise_px)) if level.noise_px else np.ones(there.shape)
    sure = np.clip(sure + generator.normal(0, 0.1, there.shape) * (level.noise_px > 0), 0.0, 1.0)
    found = np.where(there[..., None], points + error, 0.0).astype(np.float32)
    counts = int(lost.sum()), int((strayed & there).sum()), int(swapped.sum())
    return Degraded(found, there, np.where(there, sure, 0.0).astype(np.float32), *counts)


def _shaking(shape: tuple[int, ...], memory: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Normal errors (..., T, J, 2) of variance 1 of which a share stays from frame to frame."""
    error = generator.normal(size=shape)
    if memory:
        fresh = np.sqrt(1 - memory**2)
        for frame in range(1, shape[-3]):
            error[..., frame, :, :] = memory * error[..., frame - 1, :, :] + fresh * error[..., frame, :, :]
    return error


def _runs(
    shape: tuple[int, ...], axis: int, share: float, run: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """True for a share of the places, in runs along an axis; the first frame already has the share."""
    if not share:
        return np.zeros(shape, bool)
    draws = np.moveaxis(generator.random(shape), axis, 0)
    out = np.zeros(draws.shape, bool)
    # The chain leaves with 1 / run; with the entry below its stationary share is the wanted one. A share so large that
    # the entry would pass 1 has longer runs instead.
    leave = min(1 / run, (1 - share) / share)
    enter = leave * share / (1 - share)
    out[0] = draws[0] < share
    for frame in range(1, len(out)):
        out[frame] = np.where(out[frame - 1], draws[frame] >= leave, draws[frame] < enter)
    return np.moveaxis(out, 0, axis)
