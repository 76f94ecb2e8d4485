"""What an open scan is: its grid in RAS+ order, how the file has it, and volumes that are read when asked for."""

from __future__ import annotations

import dataclasses
import pathlib
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["Scan", "Stored", "Volumes", "from_ras", "to_ras"]


@dataclasses.dataclass(frozen=True)
class Stored:
    """How the file has it, so that maps can be written back beside it.

    Args:
        shape: lengths of the file's axes, in its own order.
        affine: (4, 4) from the file's own voxel indices to its own unit of length, mm unless `units` says else.
        axcodes: direction of the file's first three axes, closest letters of R/L, A/P and S/I.
        dtype: numbers as they are stored, for example `int16`.
        qform_code, sform_code: NIfTI's codes of the two affines, 0 where one is not set.
        pixdim: the header's eight, in its own units; empty where there was no header.
        quaternion: b, c, d and the three offsets of the qform.
        sform: the twelve numbers of the sform, row by row.
        units: NIfTI's code of the unit of length: 0 unknown, 1 m, 2 mm, 3 micrometres.
        version: of NIfTI, 1 or 2, which has its numbers in float64.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    axcodes: tuple[str, str, str]
    dtype: str
    qform_code: int
    sform_code: int
    pixdim: tuple[float, ...] = ()
    quaternion: tuple[float, ...] = (0.0,) * 6
    sform: tuple[float, ...] = (0.0,) * 12
    units: int = 2
    version: int = 1


class Volumes(Protocol):
    """Where the stored numbers come from."""

    def volume(self, index: int) -> NDArray[Any]:
        """One volume (x, y, z) as stored: the file's own axes and numbers."""
        ...

    def close(self) -> None:
        """Give back memory, disk and file handles."""
        ...


def to_ras(values: NDArray[Any], axcodes: tuple[str, ...]) -> NDArray[Any]:
    """A view (X, Y, Z, ...) in RAS+ order of values (x, y, z, ...) whose axes run as `axcodes` say.

    Complexity: O(1): a view.

    Example:
        >>> to_ras(np.arange(6).reshape(1, 2, 3), ("P", "L", "S")).ravel().tolist()
        [3, 4, 5, 0, 1, 2]
    """
    axes, backward = _turns(axcodes)
    flipped = values[tuple(slice(None, None, -1 if turn else 1) for turn in backward)]
    return flipped.transpose(*(axes.index(axis) for axis in range(3)), *range(3, values.ndim))


def from_ras(values: NDArray[Any], axcodes: tuple[str, ...]) -> NDArray[Any]:
    """A view (x, y, z, ...) whose axes run as `axcodes` say of values (X, Y, Z, ...) in RAS+ order; undoes `to_ras`.

    Complexity: O(1): a view.

    Example:
        >>> values = np.arange(24).reshape(2, 3, 4)
        >>> bool((to_ras(from_ras(values, ("I", "R", "P")), ("I", "R", "P")) == values).all())
        True
    """
    axes, backward = _turns(axcodes)
    stored = values.transpose(*axes, *range(3, values.ndim))
    return stored[tuple(slice(None, None, -1 if turn else 1) for turn in backward)]


def _turns(axcodes: tuple[str, ...]) -> tuple[list[int], list[bool]]:
    """For each stored axis: which axis of RAS+ it is, and whether it runs backward."""
    return ["RAS".find(code) if code in "RAS" else "LPI".find(code) for code in axcodes], [
        code in "LPI" for code in axcodes
    ]


@dataclasses.dataclass
class Scan:
    """A 4-D scan, opened and checked; voxels are read when asked for, so memory does not grow with its length.

    Args:
        name: what messages call it (the file's name).
        path: the file; None for arrays and images in memory.
        shape: (X, Y, Z, T) in RAS+ order.
        affine: (4, 4) from RAS+ voxel indices to mm.
        tr: repetition time in s; None where nothing says it, which a note says.
        stored: how the file has it.
        notes: what was converted, assumed or left out.
        volumes: where the stored numbers come from.
        scale: slope and intercept from stored numbers to values.

    Example:
        >>> class Ramp:
        ...     def volume(self, index): return np.full((2, 2, 1), index, np.int16)
        ...     def close(self): pass
        >>> stored = Stored((2, 2, 1, 5), np.eye(4), ("R", "A", "S"), "int16", 0, 2)
        >>> with Scan("ramp", None, (2, 2, 1, 5), np.eye(4), 2.0, stored, (), Ramp(), (0.5, 1.0)) as scan:
        ...     scan.zooms, scan.frames(3, 5)[0, 0, 0].tolist()
        ((1.0, 1.0, 1.0), [2.5, 3.0])
    """

    name: str
    path: pathlib.Path | None
    shape: tuple[int, int, int, int]
    affine: NDArray[np.float64]
    tr: float | None
    stored: Stored
    notes: tuple[str, ...]
    volumes: Volumes = dataclasses.field(repr=False)
    scale: tuple[float, float] = (1.0, 0.0)

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel size along X, Y and Z in mm, from the affine."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(0)).tolist()
        return x, y, z

    def frames(self, start: int, stop: int) -> NDArray[np.float32]:
        """Volumes [start, stop) as (X, Y, Z, stop - start) in RAS+ order, scaled in float64 and rounded to float32.

        Every volume is contiguous in memory (Fortran order). NaN and infinite values are passed on as they are; a
        number beyond float32 becomes infinite.

        Raises:
            InputError: a range outside the scan, a file that changed or can no longer be read.

        Complexity: O(X Y Z (stop - start)) time and memory, whatever T is.
        """
        x, y, z, count = self.shape
        if not 0 <= start < stop <= count:
            found, expected = f"[{start}, {stop})", f"a range within [0, {count})"
            raise InputError("no such volumes", where=self.name, found=found, expected=expected)
        out = np.empty((stop - start, z, y, x), np.float32)
        slope, inter = self.scale
        with np.errstate(over="ignore", invalid="ignore"):
            for place, index in enumerate(range(start, stop)):
                values = to_ras(self.volumes.volume(index), self.stored.axcodes)
                if (slope, inter) != (1.0, 0.0):
                    values = values.astype(np.float64) * slope + inter
                out[place] = values.T
        return out.transpose(3, 2, 1, 0)

    def close(self) -> None:
        """Give back memory, disk and file handles; nothing can be read after."""
        self.volumes.close()

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()
