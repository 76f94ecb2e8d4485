"""What a denoiser must beat: non-local means, truncated SVD, both together, total variation.

Each is a function of a noisy cube (D, H, W) = (bands, rows, columns) and of the noise's standard deviation in every
band (D,), in the unit of the cube. None knows stripes, dead columns or impulses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.subspace import Subspace
from pipelines.errors import InputError

__all__ = ["BASELINES", "non_local_means", "noise_rank", "svd", "svd_non_local_means", "total_variation"]

Cube = NDArray[np.floating]
Floats = NDArray[np.float64]
_PATCH, _REACH, _STRENGTH = 5, 9, 0.8
#: Relative change of the goal at which the iteration ends; the default of 2e-4 ends it 1 dB early.
_TV_STOP = 2e-5


def non_local_means(noisy: Cube, sigma: Floats) -> Cube:
    """Non-local means of each band by itself: patches of 5 x 5, up to 9 pixels away, h = 0.8 sigma.

    Args:
        noisy: (D, H, W).
        sigma: (D,) or one number, the noise in the unit of the cube.

    Returns:
        (D, H, W) float32.

    Raises:
        InputError: not a cube, values that are not finite, a sigma that is not one positive number a band.

    Complexity: O(D H W (2 * 9 + 1)^2).

    Source: Buades, Coll, Morel 2005; Darbon et al. 2008 for the sums of whole shifts.

    Example:
        >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).standard_normal((2, 20, 20))
        >>> float(np.abs(non_local_means(noisy, np.array([0.1, 0.1])) - 0.5).mean()) < 0.03
        True
    """
    values, levels = _checked(noisy, sigma)
    return np.stack([_nlm(band, level) for band, level in zip(values, levels, strict=True)]).astype(np.float32)


def svd(noisy: Cube, sigma: Floats, *, rank: int | None = None) -> Cube:
    """Truncated singular value decomposition of the bands by pixels, bands scaled to unit noise first.

    Args:
        noisy: (D, H, W).
        sigma: (D,) or one number.
        rank: components to keep; None keeps those above the optimal hard threshold for noise of this size.

    Returns:
        (D, H, W) float32.

    Raises:
        InputError: as `non_local_means`, or a rank outside 1 to D.

    Complexity: O(D^2 H W).

    Source: Gavish, Donoho 2014 (arXiv 1305.5870), equation 11, for the threshold.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean = np.outer(rng.random(20), rng.random(400)).reshape(20, 20, 20)
        >>> noisy = clean + 0.1 * rng.standard_normal(clean.shape)
        >>> float(((svd(noisy, np.array(0.1)) - clean) ** 2).mean() / 0.1**2) < 0.1
        True
    """
    values, levels = _checked(noisy, sigma)
    space = Subspace.fit([values], levels, rank=rank, rule="threshold")
    return space.project(values).astype(np.float32)


def svd_non_local_means(noisy: Cube, sigma: Floats, *, rank: int | None = None) -> Cube:
    """Truncated SVD whose component images are cleaned by non-local means.

    Bands are scaled to unit noise, so every component image has noise of standard deviation 1. Cleaning them makes
    weak components worth keeping: without `rank`, all above the edge of pure noise stay.

    Args:
        noisy: (D, H, W).
        sigma: (D,) or one number.
        rank: components to keep.

    Returns:
        (D, H, W) float32.

    Raises:
        InputError: as `svd`.

    Complexity: O(D^2 H W + R H W (2 * 9 + 1)^2) for R components.

    Source: the scheme of Zhuang, Bioucas-Dias 2018 (FastHyDe), with non-local means for the images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean = np.outer(rng.random(20), np.repeat([0.2, 0.8], 200)).reshape(20, 20, 20)
        >>> noisy = clean + 0.1 * rng.standard_normal(clean.shape)
        >>> float(((svd_non_local_means(noisy, np.array(0.1)) - clean) ** 2).mean() / 0.1**2) < 0.02
        True
    """
    values, levels = _checked(noisy, sigma)
    space = Subspace.fit([values], levels, rank=rank)
    return space.cube(np.stack([_nlm(image, 1.0) for image in space.images(values)])).astype(np.float32)


def total_variation(noisy: Cube, sigma: Floats) -> Cube:
    """Total variation of each band by itself: least half squared distance plus sigma times the variation.

    Args:
        noisy: (D, H, W).
        sigma: (D,) or one number.

    Returns:
        (D, H, W) float32.

    Raises:
        InputError: as `non_local_means`.

    Complexity: O(D H W) an iteration, at most 200.

    Source: Rudin, Osher, Fatemi 1992; Chambolle 2004 for the iteration.

    Example:
        >>> noisy = 0.5 + 0.1 * np.random.default_rng(0).standard_normal((2, 20, 20))
        >>> float(np.abs(total_variation(noisy, np.array([0.1, 0.1])) - 0.5).mean()) < 0.03
        True
    """
    from skimage.restoration import denoise_tv_chambolle

    values, levels = _checked(noisy, sigma)
    return np.stack(
        [
            denoise_tv_chambolle(band, weight=level, eps=_TV_STOP, max_num_iter=200)
            for band, level in zip(values, levels, strict=True)
        ]
    ).astype(np.float32)


def noise_rank(noisy: Cube, sigma: Floats, rule: str = "edge") -> int:
    """Components of a cube that stand out of noise of this size; at least 1.

    Args:
        noisy: (D, H, W).
        sigma: (D,) or one number.
        rule: `edge` counts singular values above the largest of pure noise, sqrt(H W) + sqrt(D), by 2 percent;
            `threshold` those above the optimal hard threshold.

    Raises:
        InputError: as `non_local_means`.

    Complexity: O(D^2 H W).

    Source: Gavish, Donoho 2014 (arXiv 1305.5870), section 2.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean = (rng.random((10, 2)) @ rng.random((2, 400))).reshape(10, 20, 20)
        >>> noise_rank(clean + 0.01 * rng.standard_normal(clean.shape), np.array(0.01))
        2
    """
    values, levels = _checked(noisy, sigma)
    return Subspace.fit([values], levels, rule=rule).rank


BASELINES: dict[str, Callable[[Cube, Floats], Cube]] = {
    "non_local_means": non_local_means,
    "svd": svd,
    "svd_rank3": functools.partial(svd, rank=3),
    "svd_non_local_means": svd_non_local_means,
    "total_variation": total_variation,
}


def _checked(noisy: Cube, sigma: Floats) -> tuple[Floats, Floats]:
    if noisy.ndim != 3 or 0 in noisy.shape:
        found, expected = noisy.shape, "(bands, rows, columns)"
        raise InputError("not a cube", where="baseline", found=found, expected=expected)
    values = np.asarray(noisy, np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError(
            "the cube has values that are not finite", where="baseline", found=f"{bad:,}", cure="fill them first"
        )
    levels = np.asarray(sigma, np.float64)
    if levels.shape not in ((), (len(values),)) or not np.isfinite(levels).all() or (levels < 0).any():
        expected = f"one number of at least 0 for each of {len(values)} bands"
        raise InputError("not a noise level", where="sigma", found=f"shape {levels.shape}", expected=expected)
    levels = np.broadcast_to(levels, len(values))
    # A band that is said to be exact would get an infinite weight.
    floor = 1e-3 * float(levels.max()) or 1e-6 * float(np.abs(values).max()) or 1.0
    return values, np.maximum(levels, floor)


def _nlm(image: Floats, level: float) -> Floats:
    from skimage.restoration import denoise_nl_means

    strength = _STRENGTH * level
    return denoise_nl_means(
        image, patch_size=_PATCH, patch_distance=_REACH, h=strength, sigma=level, fast_mode=True, preserve_range=True
    )
