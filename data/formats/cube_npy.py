"""Cubes in NumPy's `.npy` (memory-mapped) and `.npz`; nothing is ever unpickled."""

from __future__ import annotations

import math
import pathlib
import zipfile
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
from pipelines.data.formats.cube_staging import MAX_LOADED, Target, allocate
from pipelines.data.formats.cube_types import Cube

__all__ = ["read_npy", "read_npz", "start_npy", "start_npz"]


def read_npy(path: pathlib.Path, options: CubeOptions) -> Cube:
    """The cube of a `.npy` file, memory-mapped.

    Args:
        path: the file.
        options: axis of the bands, or image size of a table.

    Raises:
        InputError: Python objects, a shape that the file does not hold, no cube.

    Complexity: O(1) until values are used.
    """
    if options.key is not None:
        raise InputError("NPY has one array", where=path.name, found=f"--key {options.key}", cure="leave it out")
    shape, fortran, dtype, start = _header(path)
    need, have = math.prod(shape) * dtype.itemsize, path.stat().st_size - start
    if need != have:
        found, expected = f"{have:,} bytes after the header", f"{need:,} for {shape} of {dtype}"
        raise InputError("the header contradicts the file size", where=path.name, found=found, expected=expected)
    notes: list[str] = []
    layout = choose_layout(shape, options, path.name, notes, rule="shortest")
    stored = np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
    notes.append("no wavelengths: NPY holds none")
    view = layout.view(stored)
    return Cube(path, "npy", view, layout, no_data=options.no_data, meta={"fortran": fortran}, notes=tuple(notes))


def start_npy(cube: Cube, path: pathlib.Path) -> Target:
    """Begin a `.npy` like that of a cube, memory-mapped."""
    shape, fortran, dtype, start = _header(cube.path)
    with cube.path.open("rb") as file:
        head = file.read(start)
    allocate(path, start + math.prod(shape) * dtype.itemsize, head)
    stored = np.memmap(path, dtype, "r+", start, shape, "F" if fortran else "C")
    return Target(cube.layout.view(stored), stored.flush)


def _header(path: pathlib.Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            start = file.tell()
    except Exception as error:  # header text goes through NumPy's parser, which raises what it likes
        raise known_fault(error, path.name, "NPY") from error
    if dtype.hasobject or dtype.kind not in "fiu" or any(length < 0 for length in shape):
        expected = "integers or floats"
        raise InputError("the array holds no real numbers", where=path.name, found=f"dtype {dtype}", expected=expected)
    return shape, fortran, dtype, start


def read_npz(path: pathlib.Path, options: CubeOptions) -> Cube:
    """The cube of a `.npz` file, loaded at once, with `wavelengths` and `variance` beside it.

    Args:
        path: the file.
        options: variable, axis of the bands, image size of a table.

    Raises:
        InputError: Python objects, a damaged or too large file, no cube.

    Complexity: O(values).
    """
    arrays, compressed = _load(path)
    numeric = {key: one for key, one in arrays.items() if one.dtype.kind in "fiu"}
    scalars = {key: float(one.ravel()[0]) for key, one in numeric.items() if one.size == 1}
    sizes, notes = image_sizes(scalars), []
    key = choose_key({k: v.shape for k, v in numeric.items()}, options, path.name, notes, sizes=sizes)
    where, name = f"{path.name}, {key}", wavelength_names(list(numeric))
    bands = numeric[name].size if name else None
    layout = choose_layout(numeric[key].shape, options, where, notes, rule="shortest", bands=bands, sizes=sizes)
    stored = layout.view(numeric[key])
    unit = plain_text(arrays.get("wavelength_unit"))
    waves = nanometres(numeric[name] if name else None, unit, len(stored), path.name, notes)
    spread = next((numeric[k] for k in ("variance", "stat") if k in numeric and k != key), None)
    variance = layout.view(spread) if spread is not None and spread.shape == numeric[key].shape else None
    notes.append("NPZ is loaded at once")
    meta = {"compressed": compressed}
    unit = plain_text(arrays.get("unit"))
    return Cube(
        path, "npz", stored, layout, key, waves, unit, options.no_data, variance=variance, meta=meta, notes=tuple(notes)
    )


def start_npz(cube: Cube, path: pathlib.Path) -> Target:
    """Begin a `.npz` like that of a cube: the other arrays are kept."""
    arrays, compressed = _load(cube.path)
    stored = np.empty_like(arrays[cube.key or ""])

    def finish() -> None:
        save: Any = np.savez_compressed if compressed else np.savez
        with path.open("wb") as file:
            save(file, **{**arrays, cube.key or "": stored})

    return Target(cube.layout.view(stored), finish)


def _load(path: pathlib.Path) -> tuple[dict[str, NDArray[Any]], bool]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            compressed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
        if size > MAX_LOADED:
            found, cure = f"{size:,} bytes unpacked", "write the cube as .npy, which is memory-mapped"
            raise InputError(
                "too large to be loaded", where=path.name, found=found, expected=f"{MAX_LOADED:,}", cure=cure
            )
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}, compressed
    except Exception as error:  # zip, zlib and NumPy's header parser each raise their own
        if "allow_pickle" in str(error):
            raise InputError(
                "Python objects inside, which are never unpickled: they could run any code",
                where=path.name,
                expected="arrays of numbers",
            ) from error
        raise known_fault(error, path.name, "NPZ") from error
