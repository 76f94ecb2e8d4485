"""Cubes in HDF5 and in MATLAB 7.3, which is HDF5 with its axes reversed."""

from __future__ import annotations

import contextlib
import math
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import (
    CubeOptions,
    choose_key,
    choose_layout,
    image_sizes,
    known_fault,
    nanometres,
    plain_text,
    wavelength_names,
)
from pipelines.data.formats.cube_staging import MAX_LOADED, Target
from pipelines.data.formats.cube_types import Cube

__all__ = ["read_hdf5", "start_hdf5"]

_NO_DATA = ("_FillValue", "missing_value", "nodata", "no_data", "Data_Ignore_Value")
_UNITS = ("units", "Units", "unit")


def read_hdf5(path: pathlib.Path, options: CubeOptions, *, matlab: bool) -> Cube:
    """The cube of an HDF5 file: memory-mapped where it is stored in one piece, else loaded at once.

    Args:
        path: the file.
        options: dataset (with its groups: `a/b`), axis of the bands, image size of a table, no-data.
        matlab: axes are reversed, bands last, and pixels of a table run down the columns, as MATLAB 7.3 writes.

    Raises:
        InputError: a damaged or too large file, data outside the file, a dataset that is not there, no cube.

    Complexity: O(values) where the dataset is chunked.
    """
    with _opened(path) as file:
        sets = _datasets(file, matlab)
        shapes = {key: one.shape[::-1] if matlab else one.shape for key, one in sets.items()}
        leaves = {key.rsplit("/", 1)[-1]: key for key in reversed(sets)}
        scalars = {leaf: float(np.ravel(sets[key][()])[0]) for leaf, key in leaves.items() if sets[key].size == 1}
        sizes, notes = image_sizes(scalars), []
        key = choose_key(shapes, options, path.name, notes, sizes=sizes)
        leaf = wavelength_names([name for name in leaves if leaves[name] != key])
        found = sets[leaves[leaf]] if leaf else None
        layout = choose_layout(
            shapes[key],
            options,
            f"{path.name}, {key}",
            notes,
            rule="last" if matlab else "shortest",
            bands=found.size if found is not None else None,
            sizes=sizes,
            column_major=matlab,
        )
        full = _array(path, sets[key], notes)
        stored = layout.view(full.T if matlab else full)
        unit = _attribute(found, _UNITS) if found is not None else None
        values = found[()] if found is not None and found.size <= 1 << 20 else None
        waves = nanometres(values, plain_text(unit), len(stored), path.name, notes)
        no_data = options.no_data if options.no_data is not None else _as_number(_attribute(sets[key], _NO_DATA))
        unit = plain_text(_attribute(sets[key], _UNITS))
        kind = "mat73" if matlab else "hdf5"
        return Cube(path, kind, stored, layout, key, waves, unit, no_data, notes=tuple(notes))


def start_hdf5(cube: Cube, path: pathlib.Path) -> Target:
    """Begin a copy of a cube's file in which only the numbers of its dataset are replaced."""
    shutil.copyfile(cube.path, path)
    matlab, key = cube.format == "mat73", cube.key or ""
    with _opened(path) as file:
        place, shape, dtype = file[key].id.get_offset(), file[key].shape, file[key].dtype
    if place is not None:
        stored: NDArray[Any] = np.memmap(path, dtype, "r+", place, shape)
        return Target(cube.layout.view(stored.T if matlab else stored), stored.flush)  # type: ignore[attr-defined]
    stored = np.empty(shape, dtype)

    def finish() -> None:
        import h5py

        with h5py.File(path, "r+") as file:
            file[key][...] = stored

    return Target(cube.layout.view(stored.T if matlab else stored), finish)


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except Exception as error:  # the library raises whatever a damaged node leads it to
        raise known_fault(error, path.name, "HDF5") from error


def _datasets(file: Any, matlab: bool) -> dict[str, Any]:
    """Datasets of numbers by their path; links out of the file are not followed."""
    import h5py

    found: dict[str, Any] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiu" and not name.startswith("#"):
            if matlab and node.attrs.get("MATLAB_class") in (b"char", b"logical", b"cell"):
                return
            found[name] = node

    file.visititems(visit)
    return found


def _array(path: pathlib.Path, dataset: Any, notes: list[str]) -> NDArray[Any]:
    where, need = f"{path.name}, {dataset.name}", dataset.size * dataset.dtype.itemsize
    if dataset.external or dataset.is_virtual:
        cure = "copy the data into one file"
        raise InputError("the data lie outside the file", where=where, expected="data in the file itself", cure=cure)
    place = dataset.id.get_offset()
    if place is not None:
        if place + need > path.stat().st_size:
            found, expected = f"{path.stat().st_size:,} bytes", f"at least {place + need:,}"
            raise InputError("the header contradicts the file size", where=where, found=found, expected=expected)
        return np.memmap(path, dataset.dtype, "r", place, dataset.shape)
    if need > MAX_LOADED or (dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > MAX_LOADED):
        cure = "store it in one piece, without chunks: then it is memory-mapped"
        raise InputError(
            "too large to be loaded", where=where, found=f"{need:,} bytes", expected=f"{MAX_LOADED:,}", cure=cure
        )
    stored = dataset.id.get_storage_size()
    if stored == 0:
        notes.append("the file holds no values of the dataset, only their fill value")
    elif stored * 2000 < need:
        found, expected = f"{stored:,} bytes", f"enough for {need:,}"
        raise InputError("the header contradicts the file size", where=where, found=found, expected=expected)
    notes.append("stored in chunks: loaded at once")
    return dataset[()]


def _attribute(dataset: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if name in dataset.attrs:
            return dataset.attrs[name]
    return None


def _as_number(value: Any) -> float | None:
    try:
        return None if value is None else float(np.ravel(value)[0])
    except (TypeError, ValueError, IndexError):
        return None
