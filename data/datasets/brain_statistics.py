"""Statistics of a run in passes over its volumes: moments of each voxel, brain-wide ones, and what a design explains.

Every pass reads a few volumes at a time and keeps float64 sums of each voxel, so memory does not grow with the number
of volumes. Moments of chunks are merged as deviations from their means (Chan, Golub and LeVeque 1983), never as a
difference of large sums. A design of drifts and confounds is orthonormal and orthogonal to the constant, so that one
pass gives its coefficients; the residuals' moments come from a pass of their own and lose no digits either.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fit", "Moments", "chunks", "design", "fit_design", "moments_of", "polynomial"]

Floats = NDArray[np.float64]
#: Values of a chunk (a float64 copy of them takes 32 MB).
CHUNK = 4 << 20


class Stream(Protocol):
    """Volumes in their order."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels along X, Y and Z."""
        ...

    @property
    def count(self) -> int:
        """Number of volumes."""
        ...

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """(X, Y, Z, stop - start)."""
        ...


def chunks(volumes: int, voxels: int) -> Iterator[tuple[int, int]]:
    """Ranges of volumes that together hold no more values than a chunk, at least one volume each.

    Example:
        >>> list(chunks(5, CHUNK // 2))
        [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, CHUNK // max(voxels, 1))
    for start in range(0, volumes, step):
        yield start, min(start + step, volumes)


class Moments:
    """Mean, sum of squared deviations, least and largest value of each voxel over the volumes seen.

    Args:
        voxels: how many.

    Example:
        >>> seen = Moments(1)
        >>> seen.add(np.array([[1.0], [2.0]])), seen.add(np.array([[6.0]]))
        (None, None)
        >>> seen.mean.tolist(), seen.squares.tolist(), seen.low.tolist(), seen.sd().tolist()
        ([3.0], [14.0], [1.0], [2.6457513110645907])
    """

    def __init__(self, voxels: int) -> None:
        self.count = 0
        self.mean = np.zeros(voxels)
        self.squares = np.zeros(voxels)
        self.low = np.full(voxels, np.inf)
        self.high = np.full(voxels, -np.inf)

    def add(self, rows: Floats) -> None:
        """See some more volumes: rows (n, voxels). O(n voxels)."""
        n = len(rows)
        mean = rows.mean(0)
        np.minimum(self.low, rows.min(0), out=self.low)
        np.maximum(self.high, rows.max(0), out=self.high)
        rows = rows - mean
        step = mean - self.mean
        total = self.count + n
        self.squares += np.einsum("tv,tv->v", rows, rows) + step * step * (self.count * n / total)
        self.mean += step * (n / total)
        self.count = total

    def take(self, voxels: NDArray[np.int64]) -> Moments:
        """Those of some voxels only."""
        out = Moments(0)
        out.count = self.count
        out.mean, out.squares, out.low, out.high = (
            one[voxels] for one in (self.mean, self.squares, self.low, self.high)
        )
        return out

    def sd(self) -> Floats:
        """Standard deviation of each voxel over the volumes, with n - 1."""
        return np.sqrt(self.squares / max(self.count - 1, 1))

    def still(self) -> NDArray[np.bool_]:
        """Voxels that do not vary by more than float32 can tell beside their mean."""
        return np.sqrt(self.squares / max(self.count, 1)) <= 1e-6 * np.abs(self.mean)

    def overall(self) -> tuple[float, float]:
        """Mean and standard deviation (n - 1) over all voxels and volumes together."""
        mean = float(self.mean.mean())
        squares = float(self.squares.sum() + self.count * ((self.mean - mean) ** 2).sum())
        return mean, float(np.sqrt(squares / max(self.count * self.mean.size - 1, 1)))


def polynomial(volumes: int, order: int) -> Floats:
    """Drifts (T, order): Legendre polynomials of degree 1 to `order` in time from -1 to 1.

    Example:
        >>> polynomial(3, 1).ravel().tolist()
        [-1.0, 0.0, 1.0]
    """
    time = np.linspace(-1, 1, volumes)
    return np.asarray(np.polynomial.legendre.legvander(time, max(order, 0))[:, 1:], np.float64)


def design(volumes: int, order: int, confounds: Floats | None = None) -> Floats:
    """Orthonormal columns (T, K) that span drifts and confounds without their means; dependent ones are left out.

    Args:
        volumes: T.
        order: of the polynomial; below 1 there is none (order 0 is the mean, which is taken off by itself).
        confounds: (T, n) or None.

    Complexity: O(T K^2).

    Example:
        >>> columns = design(9, 2, np.arange(9.0)[:, None])
        >>> columns.shape, bool(np.allclose(columns.T @ columns, np.eye(2)))
        ((9, 2), True)
    """
    parts = [polynomial(volumes, order)]
    if confounds is not None:
        parts.append(confounds)
    columns = np.concatenate(parts, axis=1)
    columns = columns - columns.mean(0)
    norms = np.sqrt((columns**2).sum(0))
    columns = columns[:, norms > 0] / norms[norms > 0]
    if not columns.shape[1]:
        return columns
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    left = left[:, sizes > 1e-9 * sizes[0]]
    # The means are subtracted once more: what rounding left of them would be multiplied by a voxel's large mean.
    return np.linalg.qr(left - left.mean(0))[0]


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a design explains of each voxel.

    Args:
        columns: (T, K), orthonormal and orthogonal to the constant.
        weights: (K, voxels).
        centre: (voxels,) means to take off, zeros where means stay.
    """

    columns: Floats
    weights: Floats
    centre: Floats

    def clean(self, rows: Floats, start: int) -> Floats:
        """Rows (n, voxels) of the volumes from `start` on, without what is explained; in place. O(n K voxels)."""
        rows -= self.centre
        if self.columns.shape[1]:
            rows -= self.columns[start : start + len(rows)] @ self.weights
        return rows


def rows_of(stream: Stream, start: int, stop: int, voxels: NDArray[np.int64]) -> Floats:
    """(stop - start, voxels) float64 of voxels given by their place in Fortran order."""
    values = stream.frames(start, stop)
    flat = values.reshape(-1, values.shape[3], order="F")
    return flat[voxels].T.astype(np.float64)


def fit_design(stream: Stream, voxels: NDArray[np.int64], columns: Floats, *, means: bool) -> Fit:
    """Least squares of the design in one pass, about each voxel's first value so that large means cost no digits.

    Args:
        stream: the run.
        voxels: places in Fortran order.
        columns: (T, K) of `design`.
        means: whether means are taken off as well.

    Complexity: O(T K voxels) time, O(K voxels) memory.
    """
    weights = np.zeros((columns.shape[1], len(voxels)))
    total, first = np.zeros(len(voxels)), None
    for start, stop in chunks(stream.count, math.prod(stream.grid)):
        rows = rows_of(stream, start, stop, voxels)
        first = rows[0].copy() if first is None else first
        rows -= first
        total += rows.sum(0)
        weights += columns[start:stop].T @ rows
    centre = np.zeros(len(voxels)) if first is None or not means else first + total / stream.count
    return Fit(columns, weights, centre)


def moments_of(stream: Stream, voxels: NDArray[np.int64], fit: Fit | None = None) -> Moments:
    """Moments of some voxels in one pass, of what `fit` leaves where it is given. O(T voxels), memory O(voxels)."""
    seen = Moments(len(voxels))
    for start, stop in chunks(stream.count, math.prod(stream.grid)):
        rows = rows_of(stream, start, stop, voxels)
        seen.add(rows if fit is None else fit.clean(rows, start))
    return seen
