"""Figures of hyperspectral denoising: PSNR, SSIM, spectral angle, ERGAS, and chi-square where the noise is known.

Axis order of every cube: (D, H, W) = bands, rows, columns. All sums run in float64, band by band or row by row, so that
memory-mapped cubes are never copied whole.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["ChiSquare", "chi_square", "ergas", "figures", "psnr_bands", "spectral_angle", "ssim_bands"]

Cube = NDArray[np.floating]
_EPS = 1e-8
_WINDOW = 7


def figures(clean: Cube, estimate: Cube, *, data_range: float = 1.0, legacy_ssim: bool = False) -> dict[str, float]:
    """All four figures of one cube.

    Args:
        clean, estimate: (D, H, W), on the same scale.
        data_range: the largest possible difference of two values (1 for cubes scaled to [0, 1]).
        legacy_ssim: SSIM with twice that range, which older scikit-image took for floats and the papers print.

    Returns:
        `psnr` (dB, mean over bands; infinite where a band is exact), `ssim` (mean over bands), `sam` (radians, mean
        over pixels), `ergas`.

    Raises:
        InputError: shapes that differ or are not (D, H, W), values that are not finite, a cube smaller than 7 x 7.

    Complexity: O(D H W).

    Source: Lai, Yan, Fu 2023 (arXiv 2303.09040), section 4.1.

    Example:
        >>> clean = np.linspace(0, 1, 2 * 8 * 8).reshape(2, 8, 8)
        >>> {name: round(value, 3) for name, value in figures(clean, clean + 0.1).items()}
        {'psnr': 20.0, 'ssim': 0.968, 'sam': 0.079, 'ergas': 30.02}
    """
    return {
        "psnr": float(psnr_bands(clean, estimate, data_range=data_range).mean()),
        "ssim": float(ssim_bands(clean, estimate, data_range=data_range * (2 if legacy_ssim else 1)).mean()),
        "sam": spectral_angle(clean, estimate),
        "ergas": ergas(clean, estimate),
    }


def psnr_bands(clean: Cube, estimate: Cube, *, data_range: float = 1.0) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each band in dB: 10 log10(range^2 / mean squared error), infinite where exact.

    Args:
        clean, estimate: (D, H, W).
        data_range: the largest possible difference of two values.

    Returns:
        (D,).

    Raises:
        InputError: as `figures`.

    Complexity: O(D H W).

    Example:
        >>> psnr_bands(np.zeros((2, 4, 4)), np.full((2, 4, 4), 0.1)).round(3).tolist()
        [20.0, 20.0]
    """
    errors = _squared_errors(clean, estimate)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(data_range**2 / errors)


def ssim_bands(clean: Cube, estimate: Cube, *, data_range: float = 1.0) -> NDArray[np.float64]:
    """Structural similarity of each band, with a uniform window of 7 x 7 pixels and sample covariances.

    Args:
        clean, estimate: (D, H, W), at least 7 x 7 pixels.
        data_range: the largest possible difference of two values; 2 repeats the papers that used older scikit-image.

    Returns:
        (D,), the mean over all windows that lie inside the band.

    Raises:
        InputError: as `figures`.

    Complexity: O(D H W).

    Source: Wang et al. 2004, equation 13, with k1 = 0.01 and k2 = 0.03.

    Example:
        >>> cube = np.random.default_rng(0).random((2, 9, 9))
        >>> ssim_bands(cube, cube).tolist()
        [1.0, 1.0]
    """
    from skimage.metrics import structural_similarity

    _check_pair(clean, estimate)
    if min(clean.shape[1:]) < _WINDOW:
        found, expected = clean.shape[1:], f"at least {_WINDOW} x {_WINDOW} pixels"
        raise InputError("too small for SSIM", where="cube", found=found, expected=expected)
    values = [
        structural_similarity(_band(one), _band(other), win_size=_WINDOW, data_range=data_range)
        for one, other in zip(clean, estimate, strict=True)
    ]
    return np.array(values, np.float64)


def spectral_angle(clean: Cube, estimate: Cube) -> float:
    """Mean angle in radians between the true and the estimated spectrum of a pixel (0 to pi).

    The cosine is taken with 1e-8 added to the product of lengths, and clipped to [-1, 1].

    Args:
        clean, estimate: (D, H, W).

    Raises:
        InputError: as `figures`.

    Complexity: O(D H W).

    Source: Lai, Yan, Fu 2023, section 4.1 (SAM of Yuhas et al. 1992).

    Example:
        >>> one = np.array([1.0, 0.0]).reshape(2, 1, 1)
        >>> round(spectral_angle(one, np.array([1.0, 1.0]).reshape(2, 1, 1)), 4)
        0.7854
    """
    _check_pair(clean, estimate)
    dot, left, right = (np.zeros(clean.shape[1:]) for _ in range(3))
    for one, other in zip(clean, estimate, strict=True):
        a, b = _band(one), _band(other)
        dot += a * b
        left += a * a
        right += b * b
    cosine = dot / (np.sqrt(left) * np.sqrt(right) + _EPS)
    return float(np.arccos(np.clip(cosine, -1, 1)).mean())


def ergas(clean: Cube, estimate: Cube) -> float:
    """Relative global error in synthesis: 100 sqrt(mean over bands of (mean squared error / mean^2)), 0 for exact.

    Bands whose true mean is 0 have no relative error and are left out; NaN where all are.

    Args:
        clean, estimate: (D, H, W).

    Raises:
        InputError: as `figures`.

    Complexity: O(D H W).

    Source: Wald 2000, with the ratio of pixel sizes 1.

    Example:
        >>> round(ergas(np.full((3, 4, 4), 0.5), np.full((3, 4, 4), 0.6)), 6)
        20.0
    """
    errors = _squared_errors(clean, estimate)
    means = np.array([_band(one).mean() for one in clean])
    there = means != 0
    return float(100 * np.sqrt((errors[there] / means[there] ** 2).mean())) if there.any() else math.nan


@dataclasses.dataclass(frozen=True)
class ChiSquare:
    """Reduced chi-square of what was taken away.

    Args:
        value: mean of (noisy - estimate)^2 / variance over the voxels used: 1 where exactly the noise was removed,
            below 1 where noise is left, above 1 where signal was removed too.
        bands: the same for each of the D bands, NaN where a band has no voxel.
        used: voxels used.
        left_out: voxels without a finite value or without a positive variance.
    """

    value: float
    bands: tuple[float, ...]
    used: int
    left_out: int


def chi_square(noisy: Cube, estimate: Cube, variance: Cube) -> ChiSquare:
    """Reduced chi-square of a denoised cube against the known variance of its noise.

    Args:
        noisy, estimate: (D, H, W), NaN where nothing was measured.
        variance: (D, H, W) of the noise, in the square of their unit.

    Raises:
        InputError: shapes that differ, or no voxel with a variance.

    Complexity: O(D H W).

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(3, 40, 40))
        >>> round(chi_square(noise, np.zeros((3, 40, 40)), np.ones((3, 40, 40))).value, 1)
        1.0
    """
    if noisy.shape != estimate.shape or noisy.shape != variance.shape or noisy.ndim != 3:
        found = f"{noisy.shape}, {estimate.shape}, {variance.shape}"
        raise InputError("three cubes of the same shape", where="chi-square", found=found, expected="(D, H, W)")
    sums, counts = np.zeros(len(noisy)), np.zeros(len(noisy), np.int64)
    for index, (one, other, spread) in enumerate(zip(noisy, estimate, variance, strict=True)):
        known = np.isfinite(one) & np.isfinite(other) & np.isfinite(spread) & (spread > 0)
        difference = _band(one)[known] - _band(other)[known]
        sums[index], counts[index] = (difference**2 / _band(spread)[known]).sum(), known.sum()
    used = int(counts.sum())
    if used == 0:
        raise InputError("no voxel has a positive variance", where="variance", found=f"0 of {noisy.size:,}")
    bands = tuple(float(s / n) if n else math.nan for s, n in zip(sums, counts, strict=True))
    return ChiSquare(float(sums.sum() / used), bands, used, noisy.size - used)


def _band(values: Cube) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _squared_errors(clean: Cube, estimate: Cube) -> NDArray[np.float64]:
    _check_pair(clean, estimate)
    return np.array([((_band(a) - _band(b)) ** 2).mean() for a, b in zip(clean, estimate, strict=True)])


def _check_pair(clean: Cube, estimate: Cube) -> None:
    if clean.shape != estimate.shape or clean.ndim != 3 or 0 in clean.shape:
        raise InputError(
            "two cubes of the same shape are compared",
            where="metrics",
            found=f"{clean.shape} and {estimate.shape}",
            expected="(bands, rows, columns) twice",
        )
    for name, cube in (("the clean cube", clean), ("the estimate", estimate)):
        bad = sum(int((~np.isfinite(band)).sum()) for band in cube)
        if bad:
            cure = "compare where both are known: cut or fill these voxels in both cubes"
            raise InputError(
                f"{name} has values that are not finite", where="metrics", found=f"{bad:,} voxels", cure=cure
            )
