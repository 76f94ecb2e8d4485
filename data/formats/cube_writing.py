"""Writing a denoised cube like the one it came from: same format, type, scale, layout, metadata and no-data."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_staging import Target, staged
from pipelines.data.formats.cube_types import Cube

__all__ = ["SUFFIXES", "CubeWriter", "check_output"]

SUFFIXES = {
    "mat5": (".mat",),
    "mat73": (".mat",),
    "hdf5": (".h5", ".hdf5", ".hdf", ".he5", ".nc"),
    "envi": (".hdr", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin"),
    "geotiff": (".tif", ".tiff"),
    "npy": (".npy",),
    "npz": (".npz",),
    "fits": (".fits", ".fit", ".fts"),
}


def check_output(cube: Cube, path: str | os.PathLike[str]) -> pathlib.Path:
    """The file that an answer goes to; its ending must be one of the input's format.

    Raises:
        InputError: another ending, or the input's own ENVI header under another raw name.

    Example:
        >>> from pipelines.data.formats.cube_types import Layout
        >>> cube = Cube(pathlib.Path("a.npy"), "npy", np.zeros((2, 3, 3)), Layout((0, 1, 2)))
        >>> check_output(cube, "clean.npy").name
        'clean.npy'
    """
    target = pathlib.Path(path)
    allowed = (*SUFFIXES[cube.format], cube.path.suffix.lower())
    if target.suffix.lower() not in allowed:
        expected = f"an ending like that of {cube.path.name}: {', '.join(dict.fromkeys(allowed))}"
        cure = f"the answer has the input's format: -o {target.with_suffix(allowed[0]).name}"
        raise InputError(
            "another format than the input's", where=target, found=target.suffix, expected=expected, cure=cure
        )
    return target


class CubeWriter:
    """Write an answer piece by piece; nothing appears under its name until it is whole.

    Used as a context manager. Voxels without a value in the input keep their stored bits. Integers are rounded and
    clipped to their type, and what was clipped is counted. ENVI, FITS, NPY and unchunked HDF5 or MATLAB 7.3 are
    memory-mapped; the others hold the whole cube until the end.

    Args:
        cube: the input, whose file must still be there.
        path: the output; for ENVI the header or the raw file, the other is written beside it.

    Raises:
        InputError: another format by its ending, pieces of another shape, values that are not finite.
        OSError: no room on the disk, no right to write; the earlier file is as it was.

    Complexity: O(values) time; memory of one piece, or of the cube for MATLAB 5, NPZ, chunked HDF5, compressed TIFF.

    Example:
        >>> import tempfile
        >>> from pipelines.data.formats.cube import read_cube
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.full((64, 64, 31), 7, np.uint8))
        ...     cube = read_cube(f"{folder}/a.npy")
        ...     with CubeWriter(cube, f"{folder}/b.npy") as out:
        ...         out.put(slice(None), slice(None), np.full((31, 64, 64), 300.4))
        ...     int(np.load(f"{folder}/b.npy").max()), out.notes
        (255, ('126,976 of 126,976 voxels lay outside uint8 and were clipped', 'rounded to uint8'))
    """

    def __init__(self, cube: Cube, path: str | os.PathLike[str]) -> None:
        self.cube, self.path = cube, check_output(cube, path)
        self.clipped = self.kept = self.moved = 0
        self._stack = contextlib.ExitStack()
        self._target: Target | None = None

    def __enter__(self) -> Self:
        """Begin the file under a temporary name."""
        with contextlib.ExitStack() as stack:
            target = self._target = _start(self.cube, stack.enter_context(staged(*self._files())))

            def finish(kind: type[BaseException] | None, _: object, __: object) -> None:
                if kind is None:
                    target.finish()

            stack.push(finish)  # runs before the files get their names; if it fails, they vanish
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Complete the file and give it its name, or leave nothing after an error."""
        self._target = None
        self._stack.__exit__(kind, error, trace)

    def put(self, rows: slice, columns: slice, values: NDArray[np.floating]) -> None:
        """Write all bands of a rectangle.

        Args:
            rows, columns: place of the rectangle.
            values: (D, rows, columns) in the cube's unit.
        """
        if self._target is None:
            raise InputError("the file is not open for writing", where=self.path)
        before, place = self.cube.stored[:, rows, columns], self._target.stored[:, rows, columns]
        if values.shape != before.shape:
            raise InputError(
                "a piece of another shape", where=self.path.name, found=values.shape, expected=before.shape
            )
        unknown = self.cube.unknown(before)
        place[...] = np.where(unknown, before, self._stored(values, ~unknown))
        self.kept += int(unknown.sum())

    @property
    def notes(self) -> tuple[str, ...]:
        """What happened to the numbers, counted."""
        name, size = self.cube.dtype.name, self.cube.stored.size
        notes = []
        if self.clipped:
            notes.append(f"{self.clipped:,} of {size:,} voxels lay outside {name} and were clipped")
        if self.moved:
            notes.append(f"{self.moved:,} voxels fell on the no-data number and were moved by one step")
        if self.kept:
            notes.append(f"{self.kept:,} of {size:,} voxels without a value were kept as they were")
        if self.cube.dtype.kind in "iu":
            notes.append(f"rounded to {name}")
        if self.cube.variance is not None:
            notes.append("the variance in the output is that of the input's noise")
        return tuple(notes)

    def _stored(self, values: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[Any]:
        """Values in the type of the file."""
        cube = self.cube
        numbers = np.asarray(values, np.float64)
        if not np.isfinite(numbers[known]).all():
            bad = int((~np.isfinite(numbers[known])).sum())
            raise InputError("the answer has values that are not finite", where=self.path.name, found=f"{bad:,} voxels")
        if cube.factor != 1 or cube.offset != 0:
            numbers = (numbers - cube.offset) / cube.factor
        if cube.dtype.kind == "f":
            least, most = float(np.finfo(cube.dtype).min), float(np.finfo(cube.dtype).max)
        else:
            numbers = np.rint(numbers)
            least, most = _limits(cube.dtype)
        self.clipped += int((((numbers < least) | (numbers > most)) & known).sum())
        numbers = np.where(known, np.clip(numbers, least, most), 0)
        out = numbers.astype(cube.dtype)
        if cube.no_data is not None:
            hit = cube.unknown(out) & known
            if hit.any():
                self.moved += int(hit.sum())
                out[hit] = _next(cube.dtype, cube.no_data)
        return out

    def _files(self) -> list[pathlib.Path]:
        """What is written; for ENVI the raw file first, then its header."""
        if self.cube.format != "envi":
            return [self.path]
        if self.path.suffix.lower() != ".hdr":
            return [self.path, self.path.with_name(f"{self.path.name}.hdr")]
        return [self.path.with_suffix(self.cube.meta["raw"].suffix), self.path]


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Range of an integer type in float64, whose 64-bit ends would round out of it."""
    limits = np.iinfo(dtype)
    most = float(limits.max)
    return float(limits.min), most if int(most) <= limits.max else float(np.nextafter(most, 0))


def _next(dtype: np.dtype[Any], number: float) -> float:
    """The neighbour of a number in a type."""
    if dtype.kind == "f":
        kind = dtype.newbyteorder("=").type
        return float(np.nextafter(kind(number), kind(np.inf) if number < 0 else kind(-np.inf)))
    return number - 1 if number >= _limits(dtype)[1] else number + 1


def _start(cube: Cube, names: list[pathlib.Path]) -> Target:
    if cube.format == "envi":
        from pipelines.data.formats.cube_envi import start_envi

        return start_envi(cube, names[0], names[1])
    if cube.format == "fits":
        from pipelines.data.formats.cube_fits import start_fits

        return start_fits(cube, names[0])
    if cube.format == "geotiff":
        from pipelines.data.formats.cube_tiff import start_tiff

        return start_tiff(cube, names[0])
    if cube.format == "mat5":
        from pipelines.data.formats.cube_mat import start_mat

        return start_mat(cube, names[0])
    if cube.format in ("npy", "npz"):
        from pipelines.data.formats import cube_npy

        return (cube_npy.start_npy if cube.format == "npy" else cube_npy.start_npz)(cube, names[0])
    from pipelines.data.formats.cube_hdf5 import start_hdf5

    return start_hdf5(cube, names[0])
