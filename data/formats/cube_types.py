"""Hyperspectral cubes as they stand in a file: values, layout, wavelengths, no-data, variance, and how to write back.

Axis order of every cube in this package: (D, H, W) = bands, rows, columns.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["Cube", "Layout", "Table"]

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """A cube whose pixels stand in one axis.

    Args:
        rows, columns: size of the image.
        column_major: pixels run down the columns, as MATLAB stores them; else along the rows.
    """

    rows: int
    columns: int
    column_major: bool


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where bands, rows and columns lie in the stored array.

    Args:
        axes: stored axis of bands, rows and columns; for a table the axis of bands and twice that of pixels.
        table: the table, for stored arrays of two axes.

    Example:
        >>> Layout((2, 0, 1)).view(np.zeros((4, 5, 31))).shape
        (31, 4, 5)
        >>> Layout((0, 1, 1), Table(2, 3, True)).view(np.arange(6).reshape(1, 6))[0].tolist()
        [[0, 2, 4], [1, 3, 5]]
    """

    axes: tuple[int, int, int]
    table: Table | None = None

    def view(self, stored: Array) -> Array:
        """The stored array as (D, H, W), without a copy: writing to the view writes to the array."""
        if self.table is None:
            return stored.transpose(self.axes)
        bands = stored if self.axes[0] == 0 else stored.T
        rows, columns = self.table.rows, self.table.columns
        if self.table.column_major:
            return bands.reshape(len(bands), columns, rows).transpose(0, 2, 1)
        return bands.reshape(len(bands), rows, columns)


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no plain equality
class Cube:
    """One hyperspectral cube.

    Args:
        path: the file.
        format: `mat5`, `mat73`, `hdf5`, `envi`, `geotiff`, `npy`, `npz` or `fits`.
        stored: the numbers as (D, H, W) in the type of the file, memory-mapped where the format allows it.
        layout: where these axes lie in the file.
        key: name of the variable, extension or dataset.
        wavelengths: D wavelengths in nm, rising or not, or None.
        unit: unit of the values, as the file says it.
        no_data: number that marks voxels without a value, in stored numbers; NaN and infinity always do.
        factor, offset: value = factor * stored + offset.
        variance: (D, H, W) of the noise in the square of the unit, or None.
        meta: what the format needs to write the answer.
        notes: what was chosen or noticed while reading, counted.

    Raises:
        InputError: not three axes, an empty axis, one band only, no numbers, wavelengths or variance that do not fit.

    Example:
        >>> cube = Cube(pathlib.Path("a.npy"), "npy", np.array([[[1, -1]], [[2, 3]]]), Layout((0, 1, 2)), no_data=-1)
        >>> cube.shape, cube.block(slice(None), slice(None))[0].tolist()
        ((2, 1, 2), [[1.0, nan]])
    """

    path: pathlib.Path
    format: str
    stored: Array
    layout: Layout
    key: str | None = None
    wavelengths: NDArray[np.float64] | None = None
    unit: str | None = None
    no_data: float | None = None
    factor: float = 1.0
    offset: float = 0.0
    variance: Array | None = None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no reader may hand on."""
        where, shape = self.path.name, self.stored.shape
        if self.stored.ndim != 3 or 0 in shape:
            raise InputError("not a cube", where=where, found=shape, expected="bands, rows and columns, none empty")
        if self.stored.dtype.kind not in "fiu":
            found = f"type {self.stored.dtype}"
            raise InputError("the cube holds no real numbers", where=where, found=found, expected="integers or floats")
        if shape[0] == 1:
            raise InputError(
                "the cube has one band only",
                where=where,
                found=f"{shape[1]} x {shape[2]} pixels in 1 band",
                expected="at least 2 bands",
                cure="name another axis of bands with --axis, or another variable with --key",
            )
        if self.wavelengths is not None and self.wavelengths.shape != (shape[0],):
            found = f"{self.wavelengths.size} wavelengths"
            raise InputError("wavelengths do not fit the bands", where=where, found=found, expected=shape[0])
        if self.variance is not None and self.variance.shape != shape:
            found = f"variance {self.variance.shape}"
            raise InputError("the variance does not fit the cube", where=where, found=found, expected=shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        bands, rows, columns = self.stored.shape
        return bands, rows, columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers in the file."""
        return self.stored.dtype

    @property
    def exact_type(self) -> type[np.float32] | type[np.float64]:
        """The narrower float type that holds the stored numbers as they are, or else float64."""
        kind, size = self.dtype.kind, self.dtype.itemsize
        fits = size <= 4 if kind == "f" else size <= 2
        return np.float32 if fits and self.factor == 1 and self.offset == 0 else np.float64

    def block(self, rows: slice, columns: slice, bands: slice = slice(None)) -> NDArray[np.floating]:
        """A part of the cube in its unit, NaN where there is no value; only this part is read from the disk.

        Returns:
            (bands, rows, columns) as `exact_type`.
        """
        part = self.stored[bands, rows, columns]
        values = np.array(part, self.exact_type)
        unknown = self.unknown(part)
        if self.factor != 1 or self.offset != 0:
            values = values * self.factor + self.offset
        values[unknown] = np.nan
        return values

    def unknown(self, part: Array) -> NDArray[np.bool_]:
        """Which of some stored numbers stand for no value."""
        missing = np.zeros(part.shape, bool) if part.dtype.kind in "iu" else ~np.isfinite(part)
        if self.no_data is not None and not np.isnan(self.no_data):
            missing |= part == part.dtype.type(self.no_data) if _holds(part.dtype, self.no_data) else False
        return missing

    def with_notes(self, *notes: str) -> Cube:
        """The same cube with more notes."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def describe(self) -> dict[str, Any]:
        """What a report says of the input, as plain values."""
        return {
            "file": self.path.name,
            "format": self.format,
            "key": self.key,
            "bands": self.shape[0],
            "rows": self.shape[1],
            "columns": self.shape[2],
            "dtype": str(self.dtype),
            "unit": self.unit,
            "no_data": self.no_data,
            "wavelengths_nm": None if self.wavelengths is None else self.wavelengths.tolist(),
            "variance": self.variance is not None,
            "notes": list(self.notes),
        }


def _holds(dtype: np.dtype[Any], number: float) -> bool:
    """Whether a number can occur in an array of this type."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return number == int(number) and limits.min <= int(number) <= limits.max
