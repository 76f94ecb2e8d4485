"""Figures of predicted frames on the scale [0, 1]: of arrays as functions, of many windows in :mod:`.tally`.

Shapes: N frames, C channels, H rows, W columns, R rings of frequency. Frames are (..., C, H, W), uint8 (divided by 255)
or floats on [0, 1]; everything is summed in float64. Functions with `frame` in their name give one number a frame, so
that sums over any grouping of frames are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

__all__ = [
    "FIGURES",
    "LARGER_IS_BETTER",
    "PSNR_CAP",
    "UNITS",
    "checked_pair",
    "chunks",
    "frame_gradient",
    "frame_mse",
    "frame_ssim",
    "gradient_error",
    "mse",
    "psnr",
    "psnr_of",
    "ssim",
    "ssim_window",
    "to_unit",
]

Floats = NDArray[np.float64]

#: Figures in the order in which they are shown; the two spectral ratios are best at 1, `log_spectral` at 0.
FIGURES = ("mse", "psnr", "ssim", "gradient", "spectral_energy", "spectral_share", "log_spectral")
LARGER_IS_BETTER = frozenset({"psnr", "ssim"})
UNITS = {"psnr": "dB", "log_spectral": "dB"}
#: dB; an error of 0 has no PSNR, and one below 1e-10 no meaning beside the rounding of float32.
PSNR_CAP = 100.0
_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_CHUNK = 1 << 19  # values: what several arrays of float64 of that size still hold in the cache


def to_unit(frames: ArrayLike, where: str = "frames", *, bounded: bool = False) -> np.ndarray:
    """Frames as floats on [0, 1]: uint8 is divided by 255 (float32), floats stay as they are.

    Args:
        frames: any shape, uint8 or floating.
        where: for messages.
        bounded: whether values outside [0, 1] are refused.

    Raises:
        InputError: another dtype, values that are not finite, or outside [0, 1] where that is refused.

    Complexity: O(size).

    Example:
        >>> to_unit(np.array([0, 255], np.uint8)).tolist()
        [0.0, 1.0]
    """
    values = np.asarray(frames)
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255.0)
    _check_floats(values, where, bounded)
    return values


def checked_pair(predicted: ArrayLike, truth: ArrayLike, where: str = "frames") -> tuple[np.ndarray, np.ndarray]:
    """Two stacks of frames as (N, C, H, W) each, in their own dtype, uint8 or floats.

    Args:
        predicted, truth: (..., C, H, W) of one shape; a truth in floats lies in [0, 1], a prediction may leave it.
        where: for messages.

    Raises:
        InputError: shapes that differ or hold no pixel, another dtype, values that are not finite, a truth on another
            scale.

    Complexity: O(size).

    Example:
        >>> checked_pair(np.zeros((2, 5, 1, 4, 4)), np.zeros((2, 5, 1, 4, 4)))[0].shape
        (10, 1, 4, 4)
    """
    said, true = np.asarray(predicted), np.asarray(truth)
    if said.shape != true.shape or said.ndim < 3 or not said.size:
        found = f"{said.shape} and {true.shape}"
        raise InputError("frames that cannot be compared", where=where, found=found, expected="(..., C, H, W) twice")
    for name, values, bounded in (("predicted", said, False), ("true", true, True)):
        if values.dtype != np.uint8:
            _check_floats(values, f"{where}, {name}", bounded)
    return said.reshape(-1, *said.shape[-3:]), true.reshape(-1, *true.shape[-3:])


def mse(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Mean squared error over all values.

    Args:
        predicted, truth: (..., C, H, W).

    Raises:
        InputError: as `checked_pair`.

    Complexity: O(size).

    Example:
        >>> mse(np.full((1, 1, 2, 2), 0.5), np.zeros((1, 1, 2, 2)))
        0.25
    """
    return float(frame_mse(*checked_pair(predicted, truth)).mean())


def psnr(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Peak signal-to-noise ratio in dB of the mean squared error over all values together, at most `PSNR_CAP`.

    Args, errors and complexity as `mse`.

    Example:
        >>> psnr(np.full((1, 1, 2, 2), 0.1), np.zeros((1, 1, 2, 2))), psnr(np.zeros((1, 1, 2)), np.zeros((1, 1, 2)))
        (20.0, 100.0)
    """
    return psnr_of(mse(predicted, truth))


def psnr_of(error: float) -> float:
    """PSNR in dB of a mean squared error on the scale [0, 1], at most `PSNR_CAP` (an error of 0 has no other).

    Example:
        >>> psnr_of(0.001), psnr_of(0.0)
        (30.0, 100.0)
    """
    if math.isnan(error):
        return math.nan
    return PSNR_CAP if error <= 10 ** (-PSNR_CAP / 10) else -10.0 * math.log10(error)


def ssim(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Structural similarity, the mean over channels and frames; see `frame_ssim`.

    Args, errors as `mse`.

    Example:
        >>> frames = np.random.default_rng(0).random((2, 3, 16, 16))
        >>> round(ssim(frames, frames), 12), ssim(1 - frames, frames) < 0
        (1.0, True)
    """
    return float(frame_ssim(*checked_pair(predicted, truth)).mean())


def gradient_error(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Error of the edges, the mean over frames; see `frame_gradient`.

    Args, errors as `mse`.

    Example:
        >>> edge = np.zeros((1, 1, 2, 3)); edge[..., 1:] = 1
        >>> gradient_error(np.zeros_like(edge), edge)
        0.5
    """
    return float(frame_gradient(*checked_pair(predicted, truth)).mean())


def frame_mse(predicted: np.ndarray, truth: np.ndarray) -> Floats:
    """Mean squared error of each frame, (N, C, H, W) twice -> (N,), as `checked_pair` returns them.

    Example:
        >>> frame_mse(np.ones((2, 1, 4, 4)), np.stack([np.zeros((1, 4, 4)), np.ones((1, 4, 4))])).tolist()
        [1.0, 0.0]
    """

    def of(said: Floats, true: Floats) -> Floats:
        return np.square(said - true).reshape(len(said), -1).mean(axis=1)

    return _by_frame(of, predicted, truth)


def frame_gradient(predicted: np.ndarray, truth: np.ndarray) -> Floats:
    """Mean absolute error of differences between neighbours, along rows plus along columns, (N, C, H, W) twice -> (N,).

    A direction with one pixel only has no differences and adds nothing.

    Complexity: O(N C H W).

    Source: the gradient loss of FluidWorld (arXiv 2603.21315), on evaluation frames.

    Example:
        >>> frame_gradient(np.zeros((1, 1, 2, 2)), np.array([[[[0.0, 1.0], [0.0, 1.0]]]])).tolist()
        [1.0]
    """

    def of(said: Floats, true: Floats) -> Floats:
        error = said - true
        steps = [np.abs(np.diff(error, axis=axis)).reshape(len(error), -1) for axis in (-1, -2)]
        return np.sum([step.mean(axis=1) for step in steps if step.shape[1]] or [np.zeros(len(error))], axis=0)

    return _by_frame(of, predicted, truth)


def ssim_window(height: int, width: int) -> int:
    """Side of the window that must lie inside the frame: 11, or the largest odd one that fits into a smaller frame.

    Example:
        >>> ssim_window(64, 64), ssim_window(8, 20)
        (11, 7)
    """
    side = min(2 * _RADIUS + 1, height, width)
    return side if side % 2 else side - 1


def frame_ssim(predicted: np.ndarray, truth: np.ndarray) -> Floats:
    """Structural similarity of each frame, the mean over channels, (N, C, H, W) twice -> (N,) in [-1, 1].

    Gaussian weights of deviation 1.5 on 11 x 11 pixels, population covariances, peak 1; averaged over the places whose
    window (`ssim_window`) lies inside the frame. In a frame smaller than 11 pixels the weights meet mirrored pixels,
    as in scikit-image with `gaussian_weights` and that `win_size`.

    Complexity: O(N C H W), four separable filters of 11 taps.

    Source: Wang et al. 2004, equation 13, K1 = 0.01, K2 = 0.03.

    Example:
        >>> frames = np.random.default_rng(0).random((1, 1, 16, 16))
        >>> frame_ssim(frames, frames).round(12).tolist()
        [1.0]
    """

    def of(said: Floats, true: Floats) -> Floats:
        mean_x, mean_y = _windowed(said), _windowed(true)
        product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        covariance = _windowed(said * true) - product
        variances = _windowed(said * said + true * true) - squares
        likeness = (2 * product + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))
        return likeness.reshape(len(said), -1).mean(axis=1)

    return _by_frame(of, predicted, truth)


def _check_floats(values: np.ndarray, where: str, bounded: bool) -> None:
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError("not frames", where=where, found=values.dtype, expected="uint8, or floats on [0, 1]")
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())  # NaN and infinity come through both
    if not (math.isfinite(low) and math.isfinite(high)):
        count = int((~np.isfinite(values)).sum())
        found = f"{count:,} of {values.size:,} values"
        raise InputError("frames hold values that are not finite", where=where, found=found)
    if bounded and (low < 0 or high > 1):
        cure = "divide by 255, or give uint8"
        found = f"{low:g} to {high:g}"
        raise InputError("frames on another scale", where=where, found=found, expected="floats on [0, 1]", cure=cure)


def chunks(frames: np.ndarray) -> Iterator[Floats]:
    """Frames (N, C, H, W), uint8 or floats, in float64 on [0, 1], a few at a time.

    Example:
        >>> [chunk.shape for chunk in chunks(np.zeros((3, 1, 512, 512), np.uint8))]
        [(2, 1, 512, 512), (1, 1, 512, 512)]
    """
    step = max(1, _CHUNK // max(1, math.prod(frames.shape[1:])))
    for start in range(0, len(frames), step):
        yield _double(frames[start : start + step])


def _double(frames: np.ndarray) -> Floats:
    return frames / 255.0 if frames.dtype == np.uint8 else frames.astype(np.float64)


def _by_frame(of: Callable[[Floats, Floats], Floats], predicted: np.ndarray, truth: np.ndarray) -> Floats:
    pairs = zip(chunks(predicted), chunks(truth), strict=True)
    return np.concatenate([of(said, true) for said, true in pairs] or [np.zeros(0)])


def _windowed(frames: Floats) -> Floats:
    """Gaussian means at the places whose window lies inside the frame."""
    from scipy.ndimage import correlate1d

    weights = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    edge = ssim_window(*frames.shape[-2:]) // 2
    rows = slice(edge, frames.shape[-2] - edge)
    columns = slice(edge, frames.shape[-1] - edge)
    along = correlate1d(frames, weights, axis=-2, mode="reflect")[..., rows, :]
    return correlate1d(along, weights, axis=-1, mode="reflect")[..., columns]
