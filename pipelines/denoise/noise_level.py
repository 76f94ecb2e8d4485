"""How strong the noise of each band is, from the noisy cube alone.

Axis order of every cube: (D, H, W) = bands, rows, columns.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["NoiseLevels", "estimate_noise", "measure_noise", "unexplained"]

Cube = NDArray[np.floating]
Floats = NDArray[np.float64]
#: Bands on each side that explain a band.
NEIGHBOURS = 12
#: Above this many pixels, blocks of 64 x 64 spread over the cube stand for it.
_PIXELS, _BLOCK, _BLOCKS_A_SIDE = 1 << 16, 64, 4
#: Median absolute deviation of a normal variable with standard deviation 1.
_MAD = 0.6744897501960817
#: Root of the sum of squares of the weights below.
_MASK_NORM = 6.0
#: White noise has the same level at either spacing, within the scatter of a median over bands.
_CORRELATED = 1.15


@dataclasses.dataclass(frozen=True)
class NoiseLevels:
    """What the noise of a cube is taken to be.

    Args:
        sigmas: D standard deviations, in the unit of the cube.
        correlation: median over bands of the level at spacing 2 over that at spacing 1: about 1 for white noise.
        notes: what follows from it, in words.
    """

    sigmas: tuple[float, ...]
    correlation: float
    notes: tuple[str, ...] = ()


def measure_noise(cube: Cube) -> NoiseLevels:
    """Noise of every band, at the spacing that the noise asks for: 2 where neighbouring pixels share noise, else 1.

    Args:
        cube: (D, H, W), any scale; values that are not finite are left out.

    Raises:
        InputError: not a cube.

    Complexity: twice `estimate_noise`.

    Source: the ratio is this package's own; levels as in `estimate_noise`.

    Example:
        >>> noisy = 0.1 * np.random.default_rng(0).standard_normal((6, 64, 64))
        >>> levels = measure_noise(noisy)
        >>> round(levels.correlation, 1), levels.notes, bool(abs(np.median(levels.sigmas) - 0.1) < 0.01)
        (1.0, (), True)
    """
    near = estimate_noise(cube)
    if min(cube.shape[1:]) <= 4:
        return NoiseLevels(tuple(near.tolist()), 1.0)
    apart = estimate_noise(cube, spacing=2)
    both = near > 0
    ratio = float(np.median(apart[both] / near[both])) if both.any() else 1.0
    if ratio <= _CORRELATED:
        return NoiseLevels(tuple(near.tolist()), ratio)
    note = f"the noise is {ratio:.2f} times as strong between points two pixels and bands apart as between neighbours"
    return NoiseLevels(tuple(apart.tolist()), ratio, (f"{note}: it is correlated, and measured two apart",))


def estimate_noise(cube: Cube, *, neighbours: int = NEIGHBOURS, spacing: int = 1) -> Floats:
    """Standard deviation of the noise of every band, in the unit of the cube.

    Each band is explained by a linear regression on its neighbouring bands, which share its structure but not its
    noise; from what is left a Laplacian mask removes smooth remains, and the median absolute deviation gives a level
    that stripes, dead columns and impulses hardly move. The noise that the neighbours themselves bring in is
    subtracted: with weights w_bj the residual has the variance s_b^2 + sum_j w_bj^2 s_j^2, solved for all s^2 >= 0.
    Noise that is correlated between nearby pixels or bands (resampled cubes) is underestimated, unless `spacing` is as
    large as that correlation reaches plus one.

    Args:
        cube: (D, H, W), any scale; values that are not finite are left out.
        neighbours: bands on each side that explain a band; 0 uses the Laplacian alone.
        spacing: pixels between the points of the mask, and bands to the nearest that explains a band.

    Returns:
        (D,) float64; NaN for a band without any finite value.

    Raises:
        InputError: not a cube.

    Complexity: O(D P K) for K = 2 `neighbours` and P pixels, at most 65,536; one (D, P) float64 array of memory.

    Source: Bioucas-Dias, Nascimento 2008 (HySime), algorithm 1, for the regression; Immerkaer 1996, equation 3, for the
    mask.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> signal = np.outer(np.linspace(1, 2, 20), rng.random(64 * 64)).reshape(20, 64, 64)
        >>> noisy = signal + 0.05 * rng.standard_normal(signal.shape)
        >>> bool(abs(estimate_noise(noisy) / 0.05 - 1).max() < 0.1)
        True
    """
    if spacing < 1 or neighbours < 0:
        found = f"spacing {spacing}, neighbours {neighbours}"
        raise InputError("not a way to estimate noise", where="noise", found=found, expected="at least 1, at least 0")
    if cube.ndim != 3 or 0 in cube.shape:
        raise InputError(
            "noise is estimated on cubes of three axes",
            where="cube",
            found=cube.shape,
            expected="(bands, rows, columns)",
        )
    residuals, known, weights, freedom = unexplained(cube, neighbours, spacing)
    alive = np.array([any(one[b].any() for one in known) for b in range(len(cube))])
    left = [_laplacian_level([r[b] for r in residuals], [k[b] for k in known], spacing) for b in range(len(cube))]
    variances = np.array(left) ** 2 / freedom
    levels = np.sqrt(_without_neighbours(variances, weights))
    return np.where(alive, levels, np.nan)


def unexplained(
    cube: Cube, neighbours: int = NEIGHBOURS, spacing: int = 1
) -> tuple[list[Floats], tuple[NDArray[np.bool_], ...], Floats, Floats]:
    """What each band's neighbours do not explain, in blocks (D, h, w), where something is known, weights, freedom."""
    filled, known = zip(*(_filled(block) for block in _blocks(cube)), strict=True)
    scale = np.array([_spread(np.concatenate([one[b].ravel() for one in filled])) for b in range(len(cube))])
    residuals, weights, freedom = _residuals(filled, scale, neighbours, spacing)
    return residuals, known, weights, freedom


def _blocks(cube: Cube) -> list[Floats]:
    """The whole cube, or blocks spread over it."""
    rows, columns = cube.shape[1:]
    if rows * columns <= _PIXELS:
        return [np.asarray(cube, np.float64)]

    def starts(length: int) -> list[int]:
        places = min(_BLOCKS_A_SIDE, max(1, length // _BLOCK))
        return sorted({int(s) for s in np.linspace(0, max(0, length - _BLOCK), places)})

    return [
        np.asarray(cube[:, r : r + _BLOCK, c : c + _BLOCK], np.float64) for r in starts(rows) for c in starts(columns)
    ]


def _filled(block: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Values with the band's median where nothing is known, and where something is."""
    known = np.isfinite(block)
    if known.all():
        return block, known
    block = block.copy()
    for band, there in zip(block, known, strict=True):
        band[~there] = np.median(band[there]) if there.any() else 0.0
    return block, known


def _spread(values: Floats) -> float:
    return float(values.std()) or 1.0


def _residuals(
    blocks: tuple[Floats, ...], scale: Floats, neighbours: int, spacing: int
) -> tuple[list[Floats], Floats, Floats]:
    """What a regression on nearby bands leaves of each block, its weights (D, D), the share of freedom left."""
    bands, pixels = len(scale), sum(block[0].size for block in blocks)
    weights, freedom = np.zeros((bands, bands)), np.ones(bands)
    reach = min(neighbours, bands - 1, pixels // 20)
    if reach < 1:
        return [block.copy() for block in blocks], weights, freedom
    flat = np.concatenate([block.reshape(bands, -1) for block in blocks], 1)
    centred = (flat - flat.mean(1, keepdims=True)) / scale[:, None]
    gram = centred @ centred.T / pixels
    for band in range(bands):
        others = _others(band, bands, reach, spacing)
        if not len(others):
            continue
        part = gram[np.ix_(others, others)]
        ridge = 1e-9 * np.trace(part) / len(others) + 1e-12
        weights[band, others] = np.linalg.solve(part + ridge * np.eye(len(others)), gram[others, band])
        freedom[band] = 1 - (len(others) + 1) / pixels
    weights *= scale[:, None] / scale[None, :]
    return [block - np.tensordot(weights, block, 1) for block in blocks], weights, freedom


def _others(band: int, bands: int, reach: int, spacing: int) -> NDArray[np.int64]:
    """The nearest `2 reach` bands but those closer than `spacing`; near an end more from the other side."""
    width = min(2 * reach + 1, bands)
    first = min(max(band - reach, 0), bands - width)
    return np.array([other for other in range(first, first + width) if abs(other - band) >= spacing], int)


def _laplacian_level(images: list[Floats], known: list[NDArray[np.bool_]], spacing: int) -> float:
    """Robust standard deviation behind a difference mask that no plane survives."""
    masked = []
    for image, there in zip(images, known, strict=True):
        if min(image.shape) <= 2 * spacing:
            masked.append(_MASK_NORM * (image - np.median(image))[there])
            continue
        left, middle, right = (image[:, : -2 * spacing], image[:, spacing:-spacing], image[:, 2 * spacing :])
        second = left - 2 * middle + right
        both = second[: -2 * spacing] - 2 * second[spacing:-spacing] + second[2 * spacing :]
        row = there[:, : -2 * spacing] & there[:, spacing:-spacing] & there[:, 2 * spacing :]
        masked.append(both[row[: -2 * spacing] & row[spacing:-spacing] & row[2 * spacing :]])
    values = np.concatenate([one.ravel() for one in masked])
    if not len(values):
        return 0.0
    return float(np.median(np.abs(values)) / _MAD / _MASK_NORM)


def _without_neighbours(variances: Floats, weights: Floats) -> Floats:
    """Solve s + (w o w) s = r for s >= 0."""
    if not weights.any():
        return variances
    from scipy.optimize import nnls

    scale = float(variances.max()) or 1.0
    mix = np.eye(len(variances)) + weights**2
    # Rows are weighed by their own size, or the bands with strong noise would decide about the others.
    size = 1 / np.maximum(variances / scale, 1e-6)
    return nnls(mix * size[:, None], variances / scale * size)[0] * scale
