"""Power spectra of frames: whether fine detail is there as in the truth, blurred away, or noise.

Shapes: N frames (C, H, W) on [0, 1], R rings of radial frequency; frequencies are shares of Nyquist (half a cycle per
pixel).
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.world.metrics import chunks

__all__ = ["ROUNDING_POWER", "Spectrum", "energy_ratio", "log_spectral_distance", "share_ratio", "spectrum"]

Floats = NDArray[np.float64]

#: Variance of rounding to 8 bits, (1 / 255)^2 / 12: what is fainter cannot be seen in a frame of a video.
ROUNDING_POWER = 1.0 / (12.0 * 255.0**2)
_NOTHING = 1e-12  # energy per pixel under which a truth has nothing to be compared with


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """Power spectra of N frames, the mean over channels.

    Args:
        rings: (N, R) mean power of the frequencies in each ring; white noise of variance s^2 has s^2 in every
            ring but the first, from which the mean takes its part.
        high: (N,) energy per pixel above a quarter of the Nyquist frequency, the corners beyond it included.
        total: (N,) energy per pixel of all frequencies but 0: about the variance of the frame.
        frequencies: (R,) middle of each ring, 1 = Nyquist (half a cycle per pixel).

    Example:
        >>> spectrum(np.zeros((2, 3, 8, 8))).rings.shape
        (2, 4)
    """

    rings: Floats
    high: Floats
    total: Floats
    frequencies: Floats


def spectrum(frames: np.ndarray) -> Spectrum:
    """Power spectra over rings of radial frequency.

    Each channel loses its (weighted) mean and is multiplied by a Hann window, since frames are not periodic. Ring k of
    R = floor(min(H, W) / 2) holds the frequencies within half a ring of k / R of Nyquist; the corners of the plane lie
    in no ring.

    Args:
        frames: (N, C, H, W) uint8 or floats.

    Raises:
        InputError: frames without a ring (one pixel wide or high).

    Complexity: O(N C H W log(H W)).

    Source: the periodogram of Welch 1967 with one window of the size of the frame.

    Example:
        >>> stripes = np.tile(np.cos(np.pi * np.arange(16)), (1, 1, 16, 1)) / 2 + 0.5
        >>> int(spectrum(stripes).rings.argmax()) + 1
        8
    """
    if frames.ndim != 4 or min(frames.shape[-2:]) < 2:
        found, expected = frames.shape, "(N, C, H, W) of 2 x 2 pixels or more"
        raise InputError("frames without a spectrum", where="frames", found=found, expected=expected)
    plane = _plane(*frames.shape[-2:])
    parts = [_powers(chunk, plane) for chunk in chunks(frames)]
    rings, high, total = (np.concatenate(values) for values in zip(*parts, strict=True))
    count = len(plane.members) - 1
    return Spectrum(rings, high, total, np.arange(1, count + 1) / count)


def energy_ratio(high: float, true_high: float) -> float:
    """Energy above a quarter of Nyquist relative to the truth's: below 1 blurred, above 1 noisy; NaN without any.

    Args:
        high, true_high: mean energy per pixel of predicted and of true frames.

    Example:
        >>> energy_ratio(0.01, 0.04)
        0.25
    """
    return high / true_high if true_high > _NOTHING else math.nan


def share_ratio(high: float, total: float, true_high: float, true_total: float) -> float:
    """Share of the energy that lies above a quarter of Nyquist, relative to the truth's share.

    Unlike `energy_ratio` it does not change where the contrast of a whole frame fades. A prediction without any energy
    has a share of 0; a truth without any gives NaN.

    Example:
        >>> share_ratio(0.01, 0.1, 0.04, 0.2)
        0.5
    """
    if not (true_high > _NOTHING and true_total > _NOTHING):
        return math.nan
    return (high / total if total > _NOTHING else 0.0) / (true_high / true_total)


def log_spectral_distance(rings: ArrayLike, true_rings: ArrayLike) -> float:
    """Root mean square over rings of the difference of powers in dB; nothing counts below `ROUNDING_POWER`.

    Args:
        rings, true_rings: (R,) mean powers of predicted and of true frames.

    Raises:
        InputError: shapes that differ.

    Complexity: O(R).

    Source: Gray and Markel 1976, the root-mean-square log spectral measure.

    Example:
        >>> round(log_spectral_distance([0.1, 0.1], [0.01, 0.1]), 3)  # 10 dB in one of two rings
        7.071
    """
    said, true = np.asarray(rings, np.float64), np.asarray(true_rings, np.float64)
    if said.shape != true.shape or said.ndim != 1 or not said.size:
        raise InputError("spectra that cannot be compared", found=f"{said.shape} and {true.shape}", expected="(R,)")
    gap = 10.0 * (np.log10(np.maximum(said, ROUNDING_POWER)) - np.log10(np.maximum(true, ROUNDING_POWER)))
    return float(np.sqrt(np.mean(gap * gap)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Plane:
    """Where the frequencies of a real transform of H x W pixels lie."""

    window: Floats  # (H, W)
    order: NDArray[np.int64]  # of all (H (W // 2 + 1)) frequencies, ring by ring; ring 0 holds 0, the last the corners
    starts: NDArray[np.int64]  # of the rings 0 .. R and the corners within the order
    members: Floats  # (R + 1,) how many frequencies each ring stands for, the mirrored half included
    weights: Floats  # (H (W // 2 + 1),) 2 where the mirrored half has the same frequency again, in that order
    high: Floats  # the same, 0 up to a quarter of Nyquist


@functools.lru_cache(maxsize=16)
def _plane(height: int, width: int) -> _Plane:
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    radius = 2.0 * np.hypot(rows, columns).ravel()  # 1 = Nyquist
    twice = np.full(columns.shape[1], 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    weights = np.tile(twice, height)
    rings = min(height, width) // 2
    ring = np.minimum(np.floor(radius * rings + 0.5).astype(np.int64), rings + 1)
    ring[(ring == 0) & (radius > 0)] = 1  # the longer side has frequencies below half a ring
    order = np.argsort(ring, kind="stable")
    members = np.bincount(ring, weights, rings + 2).astype(np.float64)
    starts = np.searchsorted(ring[order], np.arange(rings + 2))
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    above = np.where(radius > 0.25, weights, 0.0)
    return _Plane(window, order, starts, members[: rings + 1], weights[order], above[order])


def _powers(frames: Floats, plane: _Plane) -> tuple[Floats, Floats, Floats]:
    """Ring powers (N, R), energy above a quarter of Nyquist (N,) and of all but 0 (N,)."""
    from scipy.fft import rfft2

    window = plane.window
    middle = (frames * window).sum((-2, -1), keepdims=True) / window.sum()
    waves: NDArray[np.complex128] = np.asarray(rfft2((frames - middle) * window))
    power = (waves.real**2 + waves.imag**2).mean(axis=1).reshape(len(frames), -1)[:, plane.order]
    power *= plane.weights / np.square(window).sum()
    kept = plane.starts < power.shape[1]  # a frame of 2 x 2 has no corners
    sums = np.add.reduceat(power, plane.starts[kept], axis=1)
    rings = sums[:, 1 : len(plane.members)] / plane.members[1:]
    high = np.where(plane.high > 0, power, 0.0).sum(axis=1)
    pixels = window.size
    return rings, high / pixels, sums[:, 1:].sum(axis=1) / pixels
