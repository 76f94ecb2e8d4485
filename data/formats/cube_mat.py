"""Cubes in MATLAB files of version 5 to 7 (`save -v6`, `-v7`); version 7.3 is HDF5 and read there."""

from __future__ import annotations

import pathlib
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import (
    CubeOptions,
    choose_key,
    choose_layout,
    image_sizes,
    nanometres,
    wavelength_names,
)
from pipelines.data.formats.cube_mat_elements import (
    CLASSES,
    COMPRESSED,
    HEADER,
    MATRIX,
    Element,
    list_elements,
    load_array,
    load_text,
    place_in_file,
)
from pipelines.data.formats.cube_staging import MAX_LOADED, Target
from pipelines.data.formats.cube_types import Cube

__all__ = ["read_mat", "save_mat", "start_mat"]

#: zlib packs at most about a thousand to one.
_PACKING = 1100
_STORED_CODES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
_LARGEST = (1 << 32) - 1
_PIECE = 1 << 22


def read_mat(path: pathlib.Path, options: CubeOptions) -> Cube:
    """The cube of a MATLAB file of version 5 to 7: memory-mapped where it is not compressed, else loaded at once.

    Bands are the last axis (rows, columns, bands) unless `axis` says otherwise; tables of bands and pixels need the
    size of the image, from `shape` or from two scalars such as `lines` and `cols`; pixels run down the columns.

    Args:
        path: the file.
        options: variable, axis of the bands, image size of a table, no-data.

    Raises:
        InputError: a damaged or too large file, a variable that is not there, no cube.

    Complexity: O(values) where the cube is compressed.
    """
    elements = {one.name: one for one in list_elements(path) if one.name}
    numeric = {key: one for key, one in elements.items() if one.kind in CLASSES.values()}
    scalars = {key: float(load_array(path, one).ravel()[0]) for key, one in numeric.items() if one.count == 1}
    sizes, notes = image_sizes(scalars), []
    listed = {key: one.shape for key, one in elements.items() if one.kind in (*CLASSES.values(), "complex")}
    key = choose_key(listed, options, path.name, notes, sizes=sizes)
    _check_size(path, elements[key])
    array = load_array(path, elements[key])
    if place_in_file(elements[key]) is None:
        notes.append("stored compressed: loaded at once")
    name = wavelength_names([k for k in numeric if k != key])
    values = load_array(path, numeric[name]) if name and numeric[name].count <= 1 << 20 else None
    bands = values.size if values is not None else None
    layout = choose_layout(
        array.shape, options, f"{path.name}, {key}", notes, rule="last", bands=bands, sizes=sizes, column_major=True
    )
    stored = layout.view(array)
    texts = {k: load_text(path, elements[k]) for k in ("wavelength_unit", "unit") if k in elements}
    waves = nanometres(values, texts.get("wavelength_unit"), len(stored), path.name, notes)
    return Cube(path, "mat5", stored, layout, key, waves, texts.get("unit"), options.no_data, notes=tuple(notes))


def start_mat(cube: Cube, path: pathlib.Path) -> Target:
    """Begin a MATLAB file like that of a cube: every other variable is kept byte for byte."""
    elements = list_elements(cube.path)
    index = max(number for number, one in enumerate(elements) if one.name == cube.key)  # as the reader: the last
    old = elements[index]
    place = place_in_file(old)
    if place is not None:
        shutil.copyfile(cube.path, path)
        mapped = np.memmap(path, old.order + old.kind, "r+", place, old.shape, "F")
        return Target(cube.layout.view(mapped), mapped.flush)
    stored = np.empty(old.shape, old.order + old.kind, "F")

    def finish() -> None:
        with cube.path.open("rb") as source, path.open("wb") as file:
            file.write(source.read(HEADER))
            for number, one in enumerate(elements):
                if number == index:
                    _write_array(file, old, stored)
                    continue
                source.seek(one.start)
                size = one.size if one.packed else one.size + -one.size % 8
                file.write(source.read(size))

    return Target(cube.layout.view(stored), finish)


def save_mat(path: pathlib.Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write cubes (D, H, W) as variables (H, W, D), and other arrays as they are, to a new MATLAB file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_mat(pathlib.Path(folder, "a.mat"), {"input": np.ones((31, 4, 5), np.float32)})
        ...     read_mat(pathlib.Path(folder, "a.mat"), CubeOptions()).shape
        (31, 4, 5)
    """
    from scipy.io import savemat

    turned = {key: one.transpose(1, 2, 0) if np.ndim(one) == 3 else one for key, one in arrays.items()}
    with path.open("wb") as file:
        savemat(file, turned, do_compression=True)


def _write_array(file: BinaryIO, old: Element, stored: NDArray[Any]) -> None:
    """An element of the name and class of another with new numbers, compressed where that one was."""
    begin = file.tell()
    file.write(bytes(8))
    length = 0
    if old.packed:
        pack = zlib.compressobj(6)
        for piece in _matrix_bytes(old, stored):
            length += file.write(pack.compress(piece))
        length += file.write(pack.flush())
    else:
        pieces = _matrix_bytes(old, stored)
        next(pieces)  # the tag of the array is that of the element
        for piece in pieces:
            length += file.write(piece)
    if length > _LARGEST:
        raise InputError("too large for a MATLAB file of version 7", where=old.name, found=f"{length:,} bytes")
    end = file.tell()
    file.seek(begin)
    file.write(struct.pack(f"{old.order}II", COMPRESSED if old.packed else MATRIX, length))
    file.seek(end)


def _matrix_bytes(old: Element, stored: NDArray[Any]) -> Iterator[bytes]:
    """Tag, flags, size, name and numbers of an array."""
    order, name = old.order, old.name.encode()
    code = next(number for number, kind in CLASSES.items() if kind == old.kind)
    head = struct.pack(f"{order}IIII", 6, 8, code, 0)
    sizes = struct.pack(f"{order}{len(old.shape)}i", *old.shape)
    head += struct.pack(f"{order}II", 5, len(sizes)) + sizes + bytes(-len(sizes) % 8)
    head += struct.pack(f"{order}II", 1, len(name)) + name + bytes(-len(name) % 8)
    head += struct.pack(f"{order}II", _STORED_CODES[old.kind], stored.nbytes)
    rest = bytes(-stored.nbytes % 8)
    total = len(head) + stored.nbytes + len(rest)
    if total > _LARGEST:
        raise InputError("too large for a MATLAB file of version 7", where=old.name, found=f"{total:,} bytes")
    yield struct.pack(f"{order}II", MATRIX, total)
    yield head
    flat = stored.ravel(order="F").view(np.uint8)
    for at in range(0, len(flat), _PIECE):
        yield flat[at : at + _PIECE].tobytes()
    yield rest


def _check_size(path: pathlib.Path, element: Element) -> None:
    """Sizes in a header are believed only as far as the file can hold them."""
    if element.kind not in CLASSES.values():
        return
    where, need = f"{path.name}, {element.name}", element.count * np.dtype(element.kind).itemsize
    if need > _PACKING * path.stat().st_size:
        found = f"{element.shape}, {need:,} bytes"
        expected = f"no more than {path.stat().st_size:,} bytes can hold"
        raise InputError("the header contradicts the file size", where=where, found=found, expected=expected)
    if need > MAX_LOADED and place_in_file(element) is None:
        cure = "write the cube as ENVI, FITS or .npy, which are memory-mapped"
        raise InputError(
            "too large to be loaded", where=where, found=f"{need:,} bytes", expected=f"{MAX_LOADED:,}", cure=cure
        )
