"""The subspace of a cube some of whose voxels are wrong: striped, dead, or hit by impulses.

What a pixel's spectrum should be is found from its voxels that agree with it: each counts by how far it lies from the
fit, none beyond a bound. Subspace and noise levels are found in turn with the weights. The scheme is that of robust
principal components by reweighting; its order and constants are ours, chosen on lifted photographs.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.subspace import Subspace
from pipelines.data.errors import InputError

__all__ = ["RobustSubspace"]

Floats = NDArray[np.floating]
_MAD = 0.6744897501960817
_ROUNDS, _STEPS, _LAST_STEPS = 6, 3, 5
_FIRST_BOUND, _BOUND = 5.0, 3.5  # standard deviations of the noise beyond which a voxel does not count
_WINDOW = 5  # rows and columns around a voxel, of which the median says what it should be about
_OUTLIER = 3.0  # from the median of its neighbours: a voxel does not begin with its own value
_ABOVE_EDGE = 2.0  # wrong voxels that are left over raise the singular values of the noise
_FEW, _MOST = 2, 12  # spectra, at first and at last
_BANDS_A_SPECTRUM = 5  # at least: wrong voxels are known by the others
_LEVEL_SPAN = 2.5  # times that a noise level may end below or above the estimate it began with
_SLICE = 8192  # pixels at a time


@dataclasses.dataclass(frozen=True)
class RobustSubspace(Subspace):
    """A subspace whose projection passes over voxels that disagree with their pixel's other bands.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean = np.outer(1 + rng.random(30), 1 + np.arange(900) / 900).reshape(30, 30, 30)
        >>> noisy = clean + 0.02 * rng.standard_normal(clean.shape)
        >>> noisy[rng.random(clean.shape) < 0.1] = 0
        >>> space = RobustSubspace.fit_robustly(noisy, np.full(30, 0.02))
        >>> plain = Subspace.fit([noisy], np.full(30, 0.02), rank=1)
        >>> errors = [((one.project(noisy) - clean) ** 2).mean() for one in (space, plain)]
        >>> space.rank, bool(errors[0] < 0.1 * errors[1])
        (1, True)
    """

    @classmethod
    def fit_robustly(cls, sample: Floats, levels: NDArray[np.float64]) -> RobustSubspace:
        """Find the spectra of a cube, or of a piece of it that stands for the rest.

        Args:
            sample: (D, h, w), finite.
            levels: (D,) noise of each band by a robust estimate.

        Raises:
            InputError: another number of levels than bands.

        Complexity: O(D h w R^2) a round and step, R at most 12; three arrays like the sample.
        """
        levels = np.nan_to_num(np.asarray(levels, np.float64))
        if levels.shape != (len(sample),):
            raise InputError("one noise level a band", where="levels", found=levels.shape, expected=(len(sample),))
        levels = np.maximum(levels, 1e-3 * float(levels.max(initial=0.0)) or 1.0)
        scaled = np.asarray(sample, np.float64) / levels[:, None, None]
        middle, agrees = _middle(scaled)
        trusted = np.where(agrees, scaled, middle).reshape(len(sample), -1)
        scaled, agrees = scaled.reshape(len(sample), -1), agrees.reshape(len(sample), -1)
        vectors = _spectra(trusted, _FEW)
        begin = levels
        for number in range(_ROUNDS):
            found = _images(scaled, vectors, agrees, _FIRST_BOUND if number < 2 else _BOUND, _STEPS)
            trusted = found.weights * scaled + (1 - found.weights) * (vectors @ found.images)
            if number < _ROUNDS - 2:
                left = np.median(np.abs(scaled - vectors @ found.images), axis=1) / _MAD
                # Noise levels that could fall freely would: fewer voxels agree, and those are fitted the better.
                step = (np.clip(levels * left, begin / _LEVEL_SPAN, begin * _LEVEL_SPAN) / levels)[:, None]
                levels, scaled, trusted = levels * step[:, 0], scaled / step, trusted / step
            vectors = _spectra(trusted, _FEW + number)
        return cls(vectors, levels)

    def images(self, values: Floats) -> NDArray[np.float64]:
        """(R, H, W) of values (D, H, W), from the voxels that agree."""
        scaled = np.asarray(values, np.float64) / self.levels[:, None, None]
        flat, agrees = (array.reshape(len(values), -1) for array in (scaled, _middle(scaled)[1]))
        return _images(flat, self.vectors, agrees, _BOUND, _LAST_STEPS).images.reshape(-1, *values.shape[1:])


@dataclasses.dataclass(frozen=True)
class _Found:
    images: NDArray[np.float64]
    weights: NDArray[np.float64]


def _spectra(scaled: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """(D, R) singular vectors of (D, P) that stand out of unit noise, at most so many."""
    squares, vectors = np.linalg.eigh(scaled @ scaled.T)
    singular = np.sqrt(np.maximum(squares[::-1], 0))
    limit = _ABOVE_EDGE * (np.sqrt(scaled.shape[0]) + np.sqrt(scaled.shape[1]))
    rank = int(np.clip((singular > limit).sum(), 1, max(1, min(most, _MOST, len(scaled) // _BANDS_A_SPECTRUM))))
    return vectors[:, ::-1][:, :rank]


def _middle(scaled: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The median of every voxel's neighbours in its band, and whether the voxel agrees with it."""
    from scipy.ndimage import median_filter

    middle = median_filter(scaled, size=(1, _WINDOW, _WINDOW), mode="reflect")
    return middle, np.abs(scaled - middle) <= _OUTLIER


def _images(
    scaled: NDArray[np.float64], vectors: NDArray[np.float64], agrees: NDArray[np.bool_], bound: float, steps: int
) -> _Found:
    """Least squares of every pixel (column) with Tukey's weights, reweighted some times, first of those that agree."""
    bands, rank = vectors.shape
    products = (vectors[:, :, None] * vectors[:, None, :]).reshape(bands, rank * rank)
    images, weights = np.empty((rank, scaled.shape[1])), np.empty_like(scaled)
    for begin in range(0, scaled.shape[1], _SLICE):
        piece = scaled[:, begin : begin + _SLICE]
        counts = agrees[:, begin : begin + _SLICE] + 1e-4
        for _ in range(steps):
            gram = (counts.T @ products).reshape(-1, rank, rank) + 1e-6 * np.eye(rank)
            found = np.linalg.solve(gram, ((counts * piece).T @ vectors)[..., None])[..., 0].T
            away = (piece - vectors @ found) / bound
            counts = np.where(np.abs(away) < 1, (1 - away * away) ** 2, 0.0) + 1e-4
        images[:, begin : begin + _SLICE] = found
        weights[:, begin : begin + _SLICE] = np.minimum(counts, 1.0)
    return _Found(images, weights)
