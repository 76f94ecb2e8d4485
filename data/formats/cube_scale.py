"""Cubes to [0, 1] and back: least and most of each band or of the whole cube, and voxels without a value filled.

Axis order of every cube: (D, H, W) = bands, rows, columns.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_types import Cube

__all__ = ["CubeScale", "fill_unknown", "fit_scale"]

Floats = NDArray[np.floating]
MODES = ("band", "cube", "none")


@dataclasses.dataclass(frozen=True)
class CubeScale:
    """A scale that can be undone: scaled = (value - low) / (high - low), band by band.

    Args:
        mode: `band`, `cube` (one range for all bands) or `none` (values are in [0, 1] already).
        low, high: D numbers each, in the cube's unit.
        medians: D medians of the known values, in the cube's unit, for filling.
        known: D counts of voxels with a value.
        notes: constant bands and voxels without a value, counted.

    Example:
        >>> scale = CubeScale("band", (0.0, 10.0), (2.0, 20.0), (1.0, 15.0), (4, 4))
        >>> scale.forward(np.array([1.0, 15.0]).reshape(2, 1, 1)).ravel().tolist()
        [0.5, 0.5]
    """

    mode: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    medians: tuple[float, ...]
    known: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def forward(self, values: Floats) -> NDArray[np.float32]:
        """Values (D, h, w) on the scale of 0 to 1, as float32."""
        low, width = self._bands(values)
        return ((values - low) / width).astype(np.float32)

    def backward(self, scaled: Floats) -> NDArray[np.float64]:
        """Scaled values (D, h, w) in the cube's unit."""
        low, width = self._bands(scaled)
        return np.asarray(scaled, np.float64) * width + low

    def width(self) -> NDArray[np.float64]:
        """D ranges, 1 where a band is constant: noise levels are divided by them."""
        wide = np.subtract(self.high, self.low)
        return np.where(wide > 0, wide, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """The scale as plain values that JSON can hold."""
        return {"mode": self.mode, "low": list(self.low), "high": list(self.high)}

    def _bands(self, values: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if values.ndim != 3 or len(values) != len(self.low):
            found, expected = values.shape, f"({len(self.low)}, rows, columns)"
            raise InputError("another number of bands than the scale", where="scale", found=found, expected=expected)
        return np.array(self.low)[:, None, None], self.width()[:, None, None]


def fit_scale(cube: Cube, mode: str = "band", *, outliers: float = 0.0) -> CubeScale:
    """The scale of a cube, one band in memory at a time.

    Args:
        cube: the input; voxels without a value are left out.
        mode: `band`, `cube` or `none`.
        outliers: share of a band's values, at either end, that may lie outside 0 to 1 (0 for plain least and most).

    Returns:
        The scale; constant bands have the range 1, and a band without any value the range 0 to 1.

    Raises:
        InputError: an unknown mode, a share outside 0 to 0.5, a cube without any value.

    Complexity: O(D H W), O(H W) memory.

    Example:
        >>> import pathlib
        >>> from pipelines.data.formats.cube_types import Layout
        >>> values = np.array([[[0.0, 4.0]], [[5.0, np.nan]]])
        >>> scale = fit_scale(Cube(pathlib.Path("a.npy"), "npy", values, Layout((0, 1, 2))))
        >>> scale.low, scale.high, scale.notes[0]
        ((0.0, 5.0), (4.0, 5.0), '1 of 4 voxels (25.000 %) in 1 of 2 bands have no value: filled for the model, kept ...
    """
    if mode not in MODES:
        raise InputError("unknown scale", where="scale", found=mode, expected=", ".join(MODES))
    if not 0 <= outliers < 0.5:
        raise InputError("not a share of outliers", where="outliers", found=outliers, expected="0 to 0.5")
    low, high, medians, known = [], [], [], []
    for band in range(len(cube.stored)):
        values = cube.block(slice(None), slice(None), slice(band, band + 1)).ravel()
        values = values[~np.isnan(values)]
        known.append(len(values))
        if not len(values):
            low, high, medians = [*low, np.nan], [*high, np.nan], [*medians, np.nan]
            continue
        ends = np.quantile(values, [outliers, 0.5, 1 - outliers]) if outliers else _plain(values)
        low.append(float(ends[0]))
        medians.append(float(ends[1]))
        high.append(float(ends[2]))
    if not any(known):
        raise InputError("no voxel has a value", where=cube.path.name, found="only no-data, NaN or infinity")
    notes = _missing(cube, known)
    if mode == "cube":
        low, high = [float(np.nanmin(low))] * len(low), [float(np.nanmax(high))] * len(high)
    elif mode == "none":
        low, high = [0.0] * len(low), [1.0] * len(high)
    flat = [band for band, (a, b) in enumerate(zip(low, high, strict=True)) if a == b]
    if flat:
        notes.append(f"{len(flat)} constant bands (the first: {flat[0]})")
    low = [0.0 if np.isnan(one) else one for one in low]
    high = [1.0 if np.isnan(one) else one for one in high]
    medians = [a if np.isnan(one) else one for a, one in zip(low, medians, strict=True)]
    return CubeScale(mode, tuple(low), tuple(high), tuple(medians), tuple(known), tuple(notes))


def fill_unknown(values: Floats, medians: tuple[float, ...] | NDArray[np.floating]) -> tuple[Floats, NDArray[np.bool_]]:
    """Fill voxels without a value: along the spectrum where the pixel has values in other bands, else by band medians.

    The fill follows the medians: where a pixel is brighter than they are in its nearest known bands, so is the fill.

    Args:
        values: (D, h, w), NaN where there is no value.
        medians: D medians of the bands.

    Returns:
        Values without NaN, and where they were filled.

    Complexity: O(D h w), and O(D) for each pixel with a gap.

    Example:
        >>> filled, gaps = fill_unknown(np.array([1.0, np.nan, 3.0]).reshape(3, 1, 1), (0.0, 0.5, 1.0))
        >>> filled.ravel().tolist(), int(gaps.sum())
        ([1.0, 2.0, 3.0], 1)
    """
    gaps = np.isnan(values)
    if not gaps.any():
        return values, gaps
    middle = np.asarray(medians, values.dtype)
    filled = np.where(gaps, middle[:, None, None], values)
    bands = np.arange(len(values))
    for row, column in zip(*np.nonzero(gaps.any(0)), strict=True):
        there = ~gaps[:, row, column]
        if there.any():
            excess = np.interp(bands[~there], bands[there], (values[:, row, column] - middle)[there])
            filled[~there, row, column] = middle[~there] + excess
    return filled, gaps


def _plain(values: Floats) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())


def _missing(cube: Cube, known: list[int]) -> list[str]:
    each = cube.shape[1] * cube.shape[2]
    gone, bands = cube.stored.size - sum(known), sum(1 for count in known if count < each)
    if not gone:
        return []
    share = f"{gone:,} of {cube.stored.size:,} voxels ({gone / cube.stored.size:.3%})".replace("%)", " %)")
    empty = sum(1 for count in known if count == 0)
    notes = [f"{share} in {bands} of {len(known)} bands have no value: filled for the model, kept in the output"]
    if empty:
        notes.append(f"{empty} bands have no value at all")
    return notes
