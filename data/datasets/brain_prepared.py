"""A run that is ready for a model: windows on its grid, time courses for baselines, maps brought back to the scan."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_box import Box, Triple
from pipelines.data.datasets.brain_frames import Frames
from pipelines.data.datasets.brain_grid import Series
from pipelines.data.datasets.brain_statistics import Fit, chunks
from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_types import Scan

__all__ = ["Prepared", "Standard", "check_alike"]

Floats = NDArray[np.float64]
_TR_S, _VOXEL_MM, _AFFINE_MM = 1e-3, 1e-3, 1e-2


@dataclasses.dataclass(frozen=True)
class Standard:
    """How values become what a model sees: (value - centre - what a design explains) x scale; elsewhere `fill`.

    Args:
        voxels: brain voxels in Fortran order of the grid before cutting and padding, as packed bits.
        shape: X, Y and Z of that grid.
        fit: what is removed from each voxel; None for nothing.
        centre: a number, or one for each brain voxel.
        scale: likewise.
        fill: value of the background.
    """

    voxels: NDArray[np.uint8]
    shape: Triple
    fit: Fit | None
    centre: float | Floats
    scale: float | Floats
    fill: float

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Brain voxels (X, Y, Z)."""
        count = math.prod(self.shape)
        return np.unpackbits(self.voxels, count=count).astype(bool).reshape(self.shape, order="F")

    def apply(self, values: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        """Standardised (X, Y, Z, n) in Fortran order of the volumes from `start` on. O(voxels x n)."""
        volumes = values.shape[3]
        inside = np.flatnonzero(np.unpackbits(self.voxels, count=math.prod(self.shape)))
        out = np.empty((*self.shape, volumes), np.float32, order="F")
        flat, target = (one.reshape(-1, volumes, order="F") for one in (values, out))
        target.fill(self.fill)
        everywhere = len(inside) == len(flat)
        for place in range(volumes):  # a volume at a time: a float64 copy of the window would be large
            rows = flat[:, place].astype(np.float64) if everywhere else flat[inside, place].astype(np.float64)
            if self.fit is not None:
                rows = self.fit.clean(rows[None], start + place)[0]
            rows -= self.centre
            rows *= self.scale
            target[slice(None) if everywhere else inside, place] = rows
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """One run, ready: statistics only, voxels are read when asked for.

    Memory does not depend on the number of volumes. One mean and deviation for the whole brain take a bit a voxel;
    those of each voxel 16 bytes a brain voxel, and every confound and order of the polynomial 8 more.

    Args:
        name: of the recording.
        series: its volumes on the grid, raw.
        standard: how they are standardised.
        box: how they are cut and padded.
        statistics: `mean`, `sd`, `minimum` and `maximum` over the brain before standardising, `fill`, counts.
        notes: everything that was done, counted.
    """

    name: str
    series: Series
    standard: Standard
    box: Box
    statistics: dict[str, float | int | str]
    notes: tuple[str, ...]

    @property
    def scan(self) -> Scan:
        """The run as it was opened."""
        return self.series.scan

    @property
    def grid(self) -> Triple:
        """Voxels along X, Y and Z of a window."""
        return self.box.size(self.series.grid)

    @property
    def volumes(self) -> int:
        """Number of volumes, at the run's own or the new repetition time."""
        return self.series.count

    @property
    def tr(self) -> float | None:
        """s between volumes; None where unknown."""
        return self.series.tr

    @property
    def affine(self) -> Floats:
        """(4, 4) from voxels of a window to mm."""
        return self.box.affine(self.series.affine)

    @property
    def placed(self) -> bool:
        """Whether voxel size and position are known."""
        return not isinstance(self.scan.volumes, Frames)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Brain voxels of a window (X, Y, Z); padding is none. Unpacked anew each time."""
        return self.box.put(self.standard.mask, False)

    def window(self, start: int, frames: int, *, boxed: bool = True) -> NDArray[np.float32]:
        """Volumes [start, start + frames) as (X, Y, Z, frames), standardised, filled, cut and padded.

        Args:
            start: first volume.
            frames: how many.
            boxed: False: before cutting and padding.

        Raises:
            InputError: volumes that the run does not have, a file that can no longer be read.

        Complexity: O(X Y Z frames) time and memory.
        """
        if not (start >= 0 and frames > 0 and start + frames <= self.volumes):
            found, expected = f"[{start}, {start + frames})", f"within [0, {self.volumes})"
            raise InputError("no such volumes", where=self.name, found=found, expected=expected)
        values = self.standard.apply(self.series.frames(start, start + frames), start)
        return values if self.box.plain or not boxed else self.box.put(values, self.standard.fill)

    def matrix(self, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Standardised time courses (T, voxels) in the C order of a mask (X, Y, Z) of the grid; the brain's by default.

        Raises:
            InputError: a mask of another grid or without a voxel.

        Complexity: O(T X Y Z) time; memory of the result and a few volumes.
        """
        mask = self.mask if mask is None else np.asarray(mask, bool)
        if mask.shape != self.grid or not mask.any():
            found = f"{mask.shape}, {int(mask.sum()):,} voxels"
            raise InputError("no such mask", where=self.name, found=found, expected=f"{self.grid} with a voxel in it")
        out = np.empty((self.volumes, int(mask.sum())), np.float32)
        for start, stop in chunks(self.volumes, math.prod(self.grid)):
            out[start:stop] = self.window(start, stop - start)[mask].T
        return out

    def back(self, values: NDArray) -> NDArray:
        """A map (X, Y, Z, ...) of the grid on the run's own RAS+ grid; 0 where the grid does not reach.

        Where the run was resampled the map is resampled back, trilinearly, or to the nearest voxel for booleans.

        Raises:
            InputError: a map of another grid.
        """
        values = np.asarray(values)
        if values.shape[:3] != self.grid:
            raise InputError("a map of another grid", where=self.name, found=values.shape, expected=self.grid)
        values = self.box.back(values, False if values.dtype == bool else 0)
        space = self.series.space
        if space is None:
            return values
        if values.dtype == bool:
            return space.labels_back(values)
        return space.restore(values if values.dtype.kind == "f" else values.astype(np.float32))

    def close(self) -> None:
        """Close the run; nothing can be read after."""
        self.scan.close()


def check_alike(prepared: Sequence[Prepared]) -> tuple[str, ...]:
    """Whether runs can be mixed in one model, and in words what differs all the same.

    Args:
        prepared: the runs.

    Raises:
        InputError: other repetition times, voxel sizes or grids; both values and both names are told.

    Complexity: O(runs).

    Example:
        >>> from pipelines.data.datasets.brain_prepare import prepare
        >>> from pipelines.data.datasets.brain_types import Recording
        >>> runs = [prepare(Recording(n, np.random.rand(3, 3, 3, 9) + k, tr=2.0)) for k, n in enumerate("ab")]
        >>> check_alike(runs)
        ()
    """
    if not prepared:
        return ()
    first, notes = prepared[0], []
    timed = [one for one in prepared if one.tr is not None]
    placed = [one for one in prepared if one.placed]
    for one in prepared:
        if one.grid != first.grid:
            _unlike(
                "sizes", first, one, "x".join(map(str, first.grid)), "x".join(map(str, one.grid)), "grid.fit centre"
            )
    for one in timed:
        a, b = _known(timed[0].tr), _known(one.tr)
        if abs(a - b) > _TR_S:
            _unlike("repetition times", timed[0], one, f"{a:g} s", f"{b:g} s", "grid.tr")
    for one in placed:
        a, b = (np.sqrt((run.affine[:3, :3] ** 2).sum(0)) for run in (placed[0], one))
        if np.abs(a - b).max() > _VOXEL_MM:
            text_a, text_b = (" x ".join(f"{zoom:.4g}" for zoom in zooms) + " mm" for zooms in (a, b))
            _unlike("voxel sizes", placed[0], one, text_a, text_b, "grid.voxel")
    moved = [one.name for one in placed if np.abs(one.affine - placed[0].affine).max() > _AFFINE_MM]
    if moved:
        notes.append(
            f"{len(moved)} of {len(placed)} runs lie elsewhere than {placed[0].name} by their affines "
            f"({_some(moved)}): voxels are matched by index"
        )
    for label, known in (("repetition time", timed), ("voxel size", placed)):
        without = [one.name for one in prepared if one not in known]
        if without:
            notes.append(f"{len(without)} of {len(prepared)} runs have no known {label} ({_some(without)})")
    return tuple(notes)


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _unlike(what: str, a: Prepared, b: Prepared, found_a: str, found_b: str, option: str) -> NoReturn:
    found, cure = f"{found_a} in {a.name}, {found_b} in {b.name}", f"--{option} brings them together"
    raise InputError(f"runs of different {what}", where=b.name, found=found, cure=cure)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
