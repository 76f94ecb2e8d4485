"""PSNR and SSIM of restored images by the rule of the super-resolution benchmarks, on luma and on all channels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["PROTOCOL", "Averages", "luma", "measure", "psnr", "ssim", "to_8bit"]

#: The rule behind every figure, as result lines print it.
PROTOCOL = (
    "Y of BT.601 (16 to 235, not rounded; grey as equal channels) of 8-bit values, border of SCALE pixels cut, "
    "PSNR with peak 255, SSIM with an 11 x 11 Gaussian window of 1.5 pixels inside the image, mean over images"
)

Floats = NDArray[np.float64]
_PEAK = 255.0
_RADIUS = 5  # of the 11 x 11 window
_SIGMA = 1.5
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
_LUMA = (65.481, 128.553, 24.966)


def to_8bit(image: np.ndarray) -> NDArray[np.uint8]:
    """An image as the 8-bit values that figures are taken from: clamped, times 255, rounded to the nearest.

    Args:
        image: any shape; uint8 stays, uint16 is divided by 257, floats are in [0, 1].

    Raises:
        InputError: NaN, infinity or another dtype.

    Complexity: O(image.size).

    Example:
        >>> to_8bit(np.array([-0.1, 0.5, 2.0])).tolist(), to_8bit(np.array([256], np.uint16)).tolist()
        ([0, 128, 255], [1])
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return np.floor(image / 257.0 + 0.5).astype(np.uint8)
    if not np.issubdtype(image.dtype, np.floating):
        raise InputError("figures are taken from uint8, uint16 or float images", found=image.dtype)
    if not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        raise InputError("a restored image holds values that are not numbers", found=f"{count} NaN or infinite")
    return np.floor(np.clip(image.astype(np.float64), 0.0, 1.0) * _PEAK + 0.5).astype(np.uint8)


def luma(image: NDArray[np.uint8]) -> Floats:
    """Y of BT.601 in [16, 235], not rounded; a grey image counts as one with three equal channels.

    Args:
        image: (H, W, 3), (H, W, 1) or (H, W) uint8, channels in the order red, green, blue.

    Returns:
        (H, W) float64.

    Raises:
        InputError: another dtype or shape.

    Complexity: O(H W).

    Source: ITU-R BT.601 as MATLAB's rgb2ycbcr applies it; the conventions of the benchmarks.

    Example:
        >>> luma(np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)).round(3).tolist()
        [[16.0, 235.0, 81.481]]
    """
    planes = _planes(image)
    if planes.shape[2] == 1:
        return 16.0 + sum(_LUMA) * planes[..., 0] / 255.0
    return 16.0 + (_LUMA[0] * planes[..., 0] + _LUMA[1] * planes[..., 1] + _LUMA[2] * planes[..., 2]) / 255.0


def psnr(restored: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB at a peak of 255, over all values together; infinite where nothing differs.

    Args:
        restored, truth: arrays of one shape on the scale 0 .. 255.

    Raises:
        InputError: the shapes differ.

    Complexity: O(size).

    Example:
        >>> round(psnr(np.full((4, 4), 101.0), np.full((4, 4), 100.0)), 4)
        48.1308
    """
    _check_pair(restored, truth)
    error = float(np.mean((restored.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10.0 * math.log10(_PEAK**2 / error)


def ssim(restored: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of two images on the scale 0 .. 255, averaged over the windows that lie inside.

    Args:
        restored, truth: (H, W) or (H, W, C) of one shape, at least 11 x 11; channels are averaged.

    Returns:
        At most 1, which only equal images reach.

    Raises:
        InputError: the shapes differ or are smaller than the window.

    Complexity: O(H W C), five separable filters of 11 taps.

    Source: Wang et al. 2004, eq. 13, K1 = 0.01, K2 = 0.03, Gaussian window 11 x 11 with deviation 1.5.

    Example:
        >>> image = np.arange(144.0).reshape(12, 12)
        >>> ssim(image, image), ssim(image, image[::-1]) < 0
        (1.0, True)
    """
    _check_pair(restored, truth)
    if min(restored.shape[:2]) < 2 * _RADIUS + 1:
        raise InputError("an image is too small for SSIM", found=restored.shape, expected="11 x 11 pixels or more")
    first, second = (np.atleast_3d(image.astype(np.float64)) for image in (restored, truth))
    return float(np.mean([_ssim_plane(first[..., c], second[..., c]) for c in range(first.shape[2])]))


def measure(restored: np.ndarray, truth: np.ndarray, scale: int) -> dict[str, float]:
    """The figures of one image: PSNR in dB and SSIM, on Y and on the stored channels.

    Args:
        restored, truth: (H, W, C) or (H, W), C 1 or 3, uint8, uint16 or float in [0, 1]; H and W alike.
        scale: pixels to cut at each border.

    Returns:
        `psnr`, `ssim` on Y; `psnr_rgb`, `ssim_rgb` on the channels (of a grey image on its one channel).

    Raises:
        InputError: shapes that differ, or fewer than 11 x 11 pixels within the border.

    Complexity: O(H W C).

    Source: `PROTOCOL`.

    Example:
        >>> truth = np.tile(np.arange(200, 220, dtype=np.uint8)[:, None, None], (1, 20, 3))
        >>> figures = measure(truth + np.uint8(1), truth, 2)
        >>> {name: round(value, 2) for name, value in figures.items()}
        {'psnr': 49.45, 'ssim': 1.0, 'psnr_rgb': 48.13, 'ssim_rgb': 1.0}
    """
    first, second = _planes(to_8bit(restored)), _planes(to_8bit(truth))
    _check_pair(first, second)
    if scale < 0 or min(first.shape[:2]) - 2 * scale < 2 * _RADIUS + 1:
        raise InputError(
            "an image is too small for the figures",
            found=f"{first.shape[0]} x {first.shape[1]} pixels, of which {scale} are cut at each border",
            expected="11 x 11 pixels or more within the border",
        )
    inside = slice(scale, -scale or None)
    first, second = first[inside, inside], second[inside, inside]
    of_luma = luma(first), luma(second)
    return {
        "psnr": psnr(*of_luma),
        "ssim": ssim(*of_luma),
        "psnr_rgb": psnr(first, second),
        "ssim_rgb": ssim(first, second),
    }


@dataclasses.dataclass
class Averages:
    """Figures of images, averaged over the images as the benchmarks do.

    An image that was restored without any error has an infinite PSNR, and one such image would make every mean
    infinite: PSNR is averaged over the others, and `psnr_infinite` says how many were left out.

    Complexity: O(1) an image.

    Example:
        >>> averages = Averages()
        >>> averages.add({"psnr": 30.0, "ssim": 0.9})
        >>> averages.add({"psnr": math.inf, "ssim": 1.0})
        >>> averages.result()
        {'psnr': 30.0, 'ssim': 0.95, 'images': 2, 'psnr_infinite': 1}
    """

    values: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, figures: dict[str, float]) -> None:
        """Take in the figures of one image; every image must have the same ones."""
        if self.values and self.values.keys() != figures.keys():
            raise InputError("images with other figures", found=", ".join(figures), expected=", ".join(self.values))
        for name, value in figures.items():
            self.values.setdefault(name, []).append(float(value))

    def result(self) -> dict[str, Any]:
        """Means, the number of `images`, and of each figure how many infinite ones its mean leaves out, where any.

        Raises:
            InputError: no image was added.
        """
        if not self.values:
            raise InputError("no image, no figures", expected="at least one image")
        result: dict[str, Any] = {}
        infinite: dict[str, int] = {}
        for name, values in self.values.items():
            finite = [value for value in values if math.isfinite(value)]
            result[name] = float(np.mean(finite)) if finite else math.inf
            if len(finite) < len(values):
                infinite[f"{name}_infinite"] = len(values) - len(finite)
        return {**result, "images": len(next(iter(self.values.values()))), **infinite}


def _planes(image: np.ndarray) -> np.ndarray:
    planes = image[..., None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[2] not in (1, 3) or 0 in planes.shape:
        raise InputError("figures are taken from grey or RGB images", found=image.shape, expected="(H, W, 1 or 3)")
    return planes


def _check_pair(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape or first.size == 0:
        raise InputError("two images of one size are compared", found=f"{first.shape} and {second.shape}")


def _ssim_plane(x: Floats, y: Floats) -> float:
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x * mean_x
    variance_y = _windowed(y * y) - mean_y * mean_y
    covariance = _windowed(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float(np.mean(likeness / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))))


def _windowed(plane: Floats) -> Floats:
    """Gaussian means over the windows that lie inside: (H, W) -> (H - 10, W - 10)."""
    from scipy.ndimage import correlate1d

    window = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    window /= window.sum()
    inner = slice(_RADIUS, -_RADIUS)
    return correlate1d(correlate1d(plane, window, axis=0)[inner], window, axis=1)[:, inner]
