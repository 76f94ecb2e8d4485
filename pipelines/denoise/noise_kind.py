"""Whether the noise of a cube is Gaussian alone, or also has stripes, dead lines or impulses.

Axis order of every cube: (D, H, W) = bands, rows, columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.denoise.noise_level import unexplained

__all__ = ["structure_of"]

_MAD = 0.6744897501960817
#: Of the band with the heaviest tails; Gaussian noise gave 1.05 at most, impulses 1.37 at least (lifted photographs).
_HEAVY = 1.25
#: Robust deviations of the worst line of one band in ten; Gaussian noise gave 4.1 at most, lines 13 at least.
_LINE = 6.0
_SHARE = 0.9
_SATURATED = 0.02  # of the voxels of a band stand at its least and largest value


def structure_of(cube: NDArray[np.floating], *, spacing: int = 1) -> str:
    """What a cube's noise has beside Gaussian noise: "impulses", "lines", or "" for nothing.

    Each band is explained by its neighbours; in what is left, stripes or dead lines make the mean of a row or column
    stand out from those beside it, and impulses make the standard deviation larger than a robust one says. Many voxels
    at a band's least and largest value are impulses too.

    Args:
        cube: (D, H, W), any scale; values that are not finite are filled by the band's median.
        spacing: bands to the nearest that explains a band.

    Raises:
        InputError: not a cube.

    Complexity: as ``estimate_noise``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noisy = 0.1 * rng.standard_normal((6, 40, 40))
        >>> striped = noisy.copy(); striped[:3, :, 5] += 0.2
        >>> structure_of(noisy), structure_of(striped)
        ('', 'lines')
    """
    residuals, _, _, _ = unexplained(cube, spacing=spacing)
    tails, lines = [], []
    for band in range(len(cube)):
        pieces = [block[band] for block in residuals]
        tails.append(max(_tail(_second_difference(piece)) for piece in pieces))
        lines.append(max(_outlier(piece.mean(axis)) for piece in pieces for axis in (0, 1)))
    if np.quantile(lines, _SHARE) > _LINE:
        return "lines"
    # Where most voxels of a band are hit, its tails are light again, but they all stand at the same two values.
    saturated = max(float(((band == band.min()) | (band == band.max())).mean()) for band in np.asarray(cube))
    return "impulses" if max(tails) > _HEAVY or saturated > _SATURATED else ""


def _second_difference(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """What no plane survives, along both axes."""
    if min(image.shape) < 3:
        return image - np.median(image)
    return np.diff(np.diff(image, 2, 0), 2, 1)


def _tail(values: NDArray[np.floating]) -> float:
    level = np.median(np.abs(values)) / _MAD
    return float(values.std() / level) if level > 0 else 1.0


def _outlier(means: NDArray[np.floating]) -> float:
    away = np.abs(means - np.median(means))
    level = np.median(away) / _MAD
    return float(away.max() / level) if level > 0 else 0.0
