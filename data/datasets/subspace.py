"""The few spectra that a noisy cube consists of: singular components of bands by pixels, bands scaled to unit noise.

Axis order of every cube: (D, H, W) = bands, rows, columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["Subspace", "noise_rank"]

Floats = NDArray[np.floating]
_ABOVE_EDGE = 1.02  # how far a singular value must stand above the largest of pure noise


def noise_rank(singular: Floats, bands: int, pixels: int, rule: str) -> int:
    """Singular values that stand out of unit noise, at least 1.

    Args:
        singular: in falling order.
        bands, pixels: of the matrix.
        rule: `edge` (above the largest of pure noise) or `threshold` (the optimal hard threshold).

    Source: Gavish, Donoho 2014 (arXiv 1305.5870), equation 11, for the threshold.

    Example:
        >>> noise_rank(np.array([90.0, 24.5, 10.0]), 3, 400, "edge"), noise_rank(np.array([90.0, 22.5]), 2, 400, "edge")
        (2, 2)
    """
    small, large = sorted((bands, pixels))
    if rule == "edge":
        limit = _ABOVE_EDGE * (np.sqrt(small) + np.sqrt(large))
    else:
        ratio = small / large
        limit = np.sqrt(large) * np.sqrt(2 * (ratio + 1) + 8 * ratio / (ratio + 1 + np.sqrt(ratio**2 + 14 * ratio + 1)))
    return max(1, int((singular > limit).sum()))


@dataclasses.dataclass(frozen=True)
class Subspace:
    """R spectra of a cube and what takes values to them and back.

    Args:
        vectors: (D, R), orthonormal for bands scaled to unit noise.
        levels: (D,) standard deviation of the noise, in the unit of the cube.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean = np.outer(rng.random(20), rng.random(400)).reshape(20, 20, 20)
        >>> noisy = clean + 0.1 * rng.standard_normal(clean.shape)
        >>> space = Subspace.fit([noisy], np.full(20, 0.1))
        >>> space.rank, bool(((space.project(noisy) - clean) ** 2).mean() < 0.1 * 0.1**2)
        (1, True)
    """

    vectors: NDArray[np.float64]
    levels: NDArray[np.float64]

    @property
    def rank(self) -> int:
        """R."""
        return self.vectors.shape[1]

    @classmethod
    def fit(
        cls, blocks: Iterable[Floats], levels: NDArray[np.float64], *, rank: int | None = None, rule: str = "edge"
    ) -> Subspace:
        """Find the spectra of a cube that is given in pieces.

        Args:
            blocks: (D, h, w) each, finite.
            levels: (D,) noise; bands that are said to be exact count as nearly so.
            rank: how many; None goes by the rule.
            rule: as for `noise_rank`.

        Raises:
            InputError: no pixels, or a rank outside 1 to D.

        Complexity: O(D^2 H W) time, O(D^2) memory beside a block.
        """
        levels = _positive(levels)
        gram, pixels = np.zeros((len(levels), len(levels))), 0
        for block in blocks:
            flat = np.asarray(block, np.float64).reshape(len(levels), -1) / levels[:, None]
            gram += flat @ flat.T
            pixels += flat.shape[1]
        if not pixels:
            raise InputError("a cube without pixels", where="subspace", found=0)
        squares, vectors = np.linalg.eigh(gram)
        singular = np.sqrt(np.maximum(squares[::-1], 0))
        rank = noise_rank(singular, len(levels), pixels, rule) if rank is None else rank
        if not 1 <= rank <= len(levels):
            raise InputError("not a rank of this cube", where="rank", found=rank, expected=f"1 to {len(levels)}")
        return cls(vectors[:, ::-1][:, :rank], levels)

    def images(self, values: Floats) -> NDArray[np.float64]:
        """(R, H, W) of noisy values (D, H, W): component images with noise of standard deviation 1."""
        return self.components(values)

    def components(self, values: Floats) -> NDArray[np.float64]:
        """(R, H, W) of values that hold no outliers (D, H, W), by projection."""
        return np.tensordot(self.vectors.T / self.levels, values, 1)

    def cube(self, images: Floats) -> NDArray[np.float64]:
        """(D, H, W) of component images."""
        return np.tensordot(self.vectors * self.levels[:, None], images, 1)

    def project(self, values: Floats) -> NDArray[np.float64]:
        """What of some values (D, H, W) lies in the subspace."""
        return self.cube(self.images(values))


def _positive(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    levels = np.nan_to_num(np.asarray(levels, np.float64))
    return np.maximum(levels, 1e-3 * float(levels.max(initial=0.0)) or 1.0)
