"""Other voxels and other repetition times: linear interpolation along each axis, streamed over the volumes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_box import Triple
from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_types import Scan

__all__ = ["GridOptions", "Lines", "Series", "Space", "series", "space_of"]

Fit = Literal["refuse", "centre"]
FWHM = float(np.sqrt(8 * np.log(2)))  # full width at half maximum of a Gaussian in its standard deviations
_SAME_MM, _SAME_S = 1e-3, 1e-4
#: Most voxels of a resampled volume (512 cubed): a voxel size in the wrong unit asks for thousands of times as many.
MOST_VOXELS = 1 << 27


@dataclasses.dataclass(frozen=True)
class GridOptions:
    """The grid in space and time that a model sees.

    Args:
        voxel: mm; volumes are resampled to voxels of this size in all directions. None: as they are.
        tr: s; runs are resampled to this repetition time. None: as they are.
        size: voxels along X, Y and Z that the model sees. None: those of the runs.
        fit: what becomes of a run of another size: `refuse`, or `centre`: cut and padded about its centre.

    Raises:
        InputError: a number that is not positive, a size that is not three numbers.

    Source: NeuroSTORM's preparation: 2 mm and 0.8 s by linear interpolation, then 96 voxels about the centre.

    Example:
        >>> GridOptions(voxel=2.0, size=(96, 96, 96), fit="centre").voxel
        2.0
    """

    voxel: float | None = None
    tr: float | None = None
    size: tuple[int, int, int] | None = None
    fit: Fit = "refuse"

    def __post_init__(self) -> None:
        for name, unit in (("voxel", "mm"), ("tr", "s")):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                expected = f"a positive number of {unit}"
                raise InputError("no such step", where=f"grid.{name}", found=value, expected=expected)
        if self.size is not None and (len(self.size) != 3 or min(self.size) < 1):
            expected = "three numbers of voxels, 1 or more"
            raise InputError("no such size", where="grid.size", found=self.size, expected=expected)
        if self.fit not in get_args(Fit):
            expected = " | ".join(get_args(Fit))
            raise InputError("no such choice", where="grid.fit", found=repr(self.fit), expected=expected)


@dataclasses.dataclass(frozen=True)
class Lines:
    """Linear interpolation at places along one axis; beyond its ends the values there hold.

    Args:
        lower: (N,) index of the neighbour before each place.
        upper: (N,) index of the neighbour behind it.
        weight: (N,) share of the neighbour behind.

    Example:
        >>> Lines.at(np.array([0.0, 0.5, 2.0]), 2)(np.array([10.0, 20.0], np.float32), 0).tolist()
        [10.0, 15.0, 20.0]
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def at(cls, places: NDArray[np.float64], length: int) -> Lines:
        """Interpolation of `length` values at places given as indices."""
        inside = np.clip(places, 0, length - 1)
        lower = np.minimum(np.floor(inside + 1e-9).astype(np.int64), length - 1)
        upper = np.minimum(lower + 1, length - 1)
        return cls(lower, upper, np.clip(inside - lower, 0, 1).astype(np.float32))

    def __call__(self, values: NDArray, axis: int) -> NDArray:
        """Values with N places along `axis`, of their own type. O(result) time and memory."""
        shape = [1] * values.ndim
        shape[axis] = -1
        weight = self.weight.reshape(shape).astype(values.dtype)
        out = np.take(values, self.upper, axis)
        out -= (before := np.take(values, self.lower, axis))
        out *= weight
        out += before
        return out

    def part(self, start: int, stop: int) -> tuple[int, int, Lines]:
        """Which values places [start, stop) need, and the interpolation of only those."""
        first, last = int(self.lower[start]), int(self.upper[stop - 1]) + 1
        lower, upper = self.lower[start:stop] - first, self.upper[start:stop] - first
        return first, last, Lines(lower, upper, self.weight[start:stop])


@dataclasses.dataclass(frozen=True)
class Space:
    """Resampling to voxels of one size; directions and the centre of the field of view stay.

    Args:
        before, after: voxels along X, Y and Z of the run and of the new grid.
        affine: (4, 4) of the new grid.
        forth, back: interpolation along each axis, there and back again.
        nearest: (X', Y', Z') indices of the nearest voxels, an axis each.
        nearest_back: the same from the new grid to the run's.

    Example:
        >>> new = space_of("a", (4, 4, 4), np.diag([3.0, 3.0, 3.0, 1.0]), 2.0)
        >>> new.after, new.affine[:3, 3].tolist(), new.resample(np.ones((4, 4, 4, 2), np.float32)).shape
        ((6, 6, 6), [-0.5, -0.5, -0.5], (6, 6, 6, 2))
    """

    before: Triple
    after: Triple
    affine: NDArray[np.float64]
    forth: tuple[Lines, ...]
    back: tuple[Lines, ...]
    nearest: tuple[NDArray[np.int64], ...]
    nearest_back: tuple[NDArray[np.int64], ...]

    def resample(self, values: NDArray) -> NDArray:
        """Trilinear interpolation: (X', Y', Z', ...) of values (X, Y, Z, ...). O(voxels of both)."""
        for axis, lines in enumerate(self.forth):
            values = lines(values, axis)
        return values

    def restore(self, values: NDArray) -> NDArray:
        """Trilinear interpolation on the run's own grid: (X, Y, Z, ...) of values (X', Y', Z', ...)."""
        for axis, lines in enumerate(self.back):
            values = lines(values, axis)
        return values

    def labels(self, values: NDArray) -> NDArray:
        """Values (X', Y', Z') of the nearest voxels, for masks."""
        return values[np.ix_(*self.nearest)]

    def labels_back(self, values: NDArray) -> NDArray:
        """Values (X, Y, Z) on the run's own grid of the nearest voxels of the new one."""
        return values[np.ix_(*self.nearest_back)]


def space_of(name: str, size: Triple, affine: NDArray[np.float64], voxel: float) -> Space | None:
    """The resampling of a grid to isotropic voxels; None where its voxels have that size already.

    As many new voxels as come nearest to the old length of an axis, at least one.

    Args:
        name: what messages call the run.
        size: voxels along X, Y and Z.
        affine: (4, 4) to mm.
        voxel: mm.

    Raises:
        InputError: more than 2^27 voxels a volume.
    """
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if np.abs(zooms - voxel).max() <= _SAME_MM:
        return None
    # In floats: a size in the wrong unit must not overflow before it is refused.
    wished = [max(1.0, float(np.round(n * zoom / voxel))) for n, zoom in zip(size, zooms, strict=True)]
    if math.prod(wished) > MOST_VOXELS:
        found = f"{' x '.join(f'{n:.0f}' for n in wished)} voxels of {voxel:g} mm"
        expected, cure = f"at most {MOST_VOXELS:,} voxels", "give the voxel size in mm"
        raise InputError(
            "too many voxels to resample to", where=f"{name}: grid.voxel", found=found, expected=expected, cure=cure
        )
    after = (int(wished[0]), int(wished[1]), int(wished[2]))
    new = np.eye(4)
    new[:3, :3] = affine[:3, :3] / zooms * voxel
    middle = affine[:3, :3] @ ((np.array(size) - 1) / 2) + affine[:3, 3]
    new[:3, 3] = middle - new[:3, :3] @ ((np.array(after) - 1) / 2)
    places, places_back = [], []
    for n, m, zoom in zip(size, after, zooms, strict=True):
        places.append((np.arange(m) - (m - 1) / 2) * (voxel / zoom) + (n - 1) / 2)
        places_back.append((np.arange(n) - (n - 1) / 2) * (zoom / voxel) + (m - 1) / 2)
    return Space(
        size,
        after,
        new,
        tuple(Lines.at(p, n) for p, n in zip(places, size, strict=True)),
        tuple(Lines.at(p, m) for p, m in zip(places_back, after, strict=True)),
        tuple(_nearest(p, n) for p, n in zip(places, size, strict=True)),
        tuple(_nearest(p, m) for p, m in zip(places_back, after, strict=True)),
    )


def _nearest(places: NDArray[np.float64], length: int) -> NDArray[np.int64]:
    return np.clip(np.floor(places + 0.5), 0, length - 1).astype(np.int64)


@dataclasses.dataclass
class Series:
    """A run as a stream of volumes: smoothed, then on the new grid, then at the new times; all on the fly.

    Args:
        scan: where volumes come from.
        sigma: of the smoothing along X, Y and Z in the run's own voxels; zeros smooth nothing.
        space: resampling in space; None for none.
        clock: resampling in time; None for none.
        tr: s between volumes; None where unknown.
        mend: NaN and infinite values become 0 before anything else.

    Complexity: O(voxels x volumes asked for) time and memory.
    """

    scan: Scan
    sigma: tuple[float, ...] = (0.0, 0.0, 0.0)
    space: Space | None = None
    clock: Lines | None = None
    tr: float | None = None
    mend: bool = False

    @property
    def grid(self) -> Triple:
        """Voxels along X, Y and Z."""
        return self.scan.shape[:3] if self.space is None else self.space.after

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) to mm."""
        return self.scan.affine if self.space is None else self.space.affine

    @property
    def count(self) -> int:
        """Number of volumes."""
        return self.scan.shape[3] if self.clock is None else len(self.clock.lower)

    @property
    def plain(self) -> bool:
        """Whether volumes are those of the file."""
        return not any(self.sigma) and self.space is None and self.clock is None

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Volumes [start, stop): (X, Y, Z, stop - start)."""
        if self.clock is None:
            return self._still(start, stop)
        first, last, lines = self.clock.part(start, stop)
        return lines(self._still(first, last), 3)

    def _still(self, start: int, stop: int) -> NDArray[np.float32]:
        """Volumes at the run's own times."""
        values = self.scan.frames(start, stop)
        if self.mend:
            values[~np.isfinite(values)] = 0
        if any(self.sigma):
            from scipy.ndimage import gaussian_filter1d

            for axis, sigma in enumerate(self.sigma):
                values = np.asarray(gaussian_filter1d(values, sigma, axis=axis), np.float32)
        return values if self.space is None else self.space.resample(values)


def series(scan: Scan, options: GridOptions, smooth: float, *, mend: bool = False) -> tuple[Series, list[str]]:
    """The stream of a run under the options, and what it does, in words.

    A new repetition time gives as many volumes as start no later than the last old one: nothing is extrapolated.

    Args:
        scan: the run.
        options: voxel size and repetition time.
        smooth: full width at half maximum in mm.
        mend: NaN and infinite values become 0 first.

    Raises:
        InputError: no repetition time to resample from; a new one longer than the run; too many voxels.
    """
    notes: list[str] = []
    out = Series(scan, tr=scan.tr, mend=mend)
    if smooth:
        out.sigma = tuple(smooth / (FWHM * zoom) for zoom in scan.zooms)
        notes.append(f"smoothed: {smooth:g} mm full width at half maximum")
    if options.voxel is not None:
        out.space = space_of(scan.name, scan.shape[:3], scan.affine, options.voxel)
    if out.space is not None:
        sizes, new = (_times(one) for one in (scan.shape[:3], out.space.after))
        zooms = " x ".join(f"{zoom:.4g}" for zoom in scan.zooms)
        notes.append(f"resampled: {sizes} voxels of {zooms} mm became {new} of {options.voxel:g} mm (trilinear)")
    if options.tr is not None:
        notes += _retime(out, scan, options.tr)
    return out, notes


def _retime(out: Series, scan: Scan, tr: float) -> list[str]:
    if scan.tr is None:
        expected, cure = "a repetition time in the header or the sidecar", "give the run's own repetition time"
        raise InputError("the times of the volumes are unknown", where=scan.name, expected=expected, cure=cure)
    if abs(scan.tr - tr) <= _SAME_S:
        return []
    old = scan.shape[3]
    count = int(np.floor((old - 1) * scan.tr / tr + 1e-6)) + 1
    if count < 2:
        found, expected = f"grid.tr of {tr:g} s", f"less than the run's {(old - 1) * scan.tr:g} s"
        raise InputError("the new repetition time leaves one volume", where=scan.name, found=found, expected=expected)
    if count > 100 * old:
        found, expected = f"{tr:g} s from {scan.tr:g} s", "at most 100 new volumes for each old one"
        raise InputError("too many volumes to resample to", where=scan.name, found=found, expected=expected)
    out.clock, out.tr = Lines.at(np.arange(count, dtype=np.float64) * (tr / scan.tr), old), tr
    return [f"resampled in time: {old} volumes of {scan.tr:g} s became {count} of {tr:g} s (linear)"]


def _times(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
