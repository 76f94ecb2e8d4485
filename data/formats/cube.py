"""Reading hyperspectral cubes of any known format, told apart by what is in the file, never by its name alone."""

from __future__ import annotations

import os
import pathlib

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import CubeOptions
from pipelines.data.formats.cube_types import Cube, Layout

__all__ = ["Cube", "CubeOptions", "Layout", "detect_format", "read_cube"]

KNOWN = "MATLAB (v5 to 7.3), ENVI (.hdr + raw), GeoTIFF, HDF5, NPY, NPZ or FITS"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_OTHERS = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
    b"Rar!": "a RAR archive",
    b"CDF\x01": "netCDF 3",
    b"CDF\x02": "netCDF 3",
}


def read_cube(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    axis: int | None = None,
    shape: tuple[int, int] | None = None,
    no_data: float | None = None,
) -> Cube:
    """Read a hyperspectral cube as (D, H, W) = bands, rows, columns, memory-mapped where the format allows it.

    Which axis holds the bands: `axis`, else the one with as many entries as the file has wavelengths, else by format:
    ENVI by its interleave, FITS by CTYPE or the third axis, GeoTIFF samples or pages, MATLAB the last, NPY, NPZ and
    HDF5 the first or last if it is at most half as long as the others. A note says which; where the rule does not
    decide, the file is refused until `axis` says it.

    Args:
        path: the file; for ENVI the header or the raw file.
        key: variable (MATLAB, NPZ), dataset (HDF5) or extension (FITS); without it the only one that can be a cube, or
            the one with a usual name (`input`, `noisy`, `rad`, `cube`, `data`, `hsi`, `img`, `Y`).
        axis: stored axis of the bands, from 0, negative from the end.
        shape: rows and columns of the image, for tables of bands and pixels.
        no_data: number that marks voxels without a value, instead of the file's own.

    Raises:
        InputError: missing, damaged, renamed or unknown files, a variable that is not there, one band, no cube.

    Complexity: O(1) for memory-mapped formats until values are used, else O(values).

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((64, 64, 31), np.uint16))
        ...     cube = read_cube(f"{folder}/a.npy")
        >>> cube.shape, cube.format, cube.notes[0]
        ((31, 64, 64), 'npy', 'axis 2 of (64, 64, 31) holds the bands: the shortest by far (another: --axis)')
    """
    file = pathlib.Path(path)
    kind = detect_format(file)
    options = CubeOptions(key, axis, shape, no_data)
    try:
        cube = _read(file, kind, options)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "not enough memory"
        raise InputError("cannot be read", where=file, found=reason, cure="check the disk, or copy it again") from error
    return cube.with_notes(*_warnings(cube))


def detect_format(path: pathlib.Path) -> str:
    """The format of a file by its first bytes: one of `mat5`, `mat73`, `hdf5`, `envi`, `geotiff`, `npy`, `npz`, `fits`.

    Raises:
        InputError: a missing, empty or unreadable file, a folder, or none of these formats.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.mat")
        ...     _ = path.write_text("date,value")
        ...     detect_format(path)
        Traceback (most recent call last):
        ...
        pipelines.data.errors.InputError: ...a.mat: not a hyperspectral cube. Found: text ('date,value')...
    """
    _check_file(path)
    from pipelines.data.formats.cube_envi import envi_pair

    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError("cannot be read", where=path, found=error.strerror) from error
    if head[:19] == b"MATLAB 5.0 MAT-file":
        return "mat5"
    if head[:19] == b"MATLAB 7.3 MAT-file":
        return "mat73"
    if _HDF5 in (head[:8], head[512:520], head[1024:1032], head[2048:2056]):
        return "hdf5"
    starts = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"SIMPLE  =": "fits", **dict.fromkeys(_TIFF, "geotiff")}
    for magic, kind in starts.items():
        if head.startswith(magic):
            return kind
    if head.lstrip(b"\xef\xbb\xbf").startswith(b"ENVI") or envi_pair(path) is not None:
        return "envi"
    if not head:
        raise InputError("the file is empty", where=path, expected=KNOWN)
    raise InputError("not a hyperspectral cube", where=path, found=_content(head), expected=KNOWN, cure=_cure(path))


def _read(file: pathlib.Path, kind: str, options: CubeOptions) -> Cube:
    # Each reader brings the package of its format, so it is imported when it is needed.
    if kind in ("npy", "npz"):
        from pipelines.data.formats import cube_npy

        return (cube_npy.read_npy if kind == "npy" else cube_npy.read_npz)(file, options)
    if kind == "envi":
        from pipelines.data.formats.cube_envi import read_envi

        return read_envi(file, options)
    if kind == "fits":
        from pipelines.data.formats.cube_fits import read_fits

        return read_fits(file, options)
    if kind == "mat5":
        from pipelines.data.formats.cube_mat import read_mat

        return read_mat(file, options)
    if kind == "geotiff":
        from pipelines.data.formats.cube_tiff import read_tiff

        return read_tiff(file, options)
    from pipelines.data.formats.cube_hdf5 import read_hdf5

    return read_hdf5(file, options, matlab=kind == "mat73")


def _warnings(cube: Cube) -> list[str]:
    """What is odd about a cube but can be lived with."""
    import numpy as np

    notes = []
    if cube.no_data is not None and cube.dtype.kind in "iu":
        limits = np.iinfo(cube.dtype)
        if not limits.min <= cube.no_data <= limits.max:
            notes.append(f"the no-data number {cube.no_data:g} does not fit into {cube.dtype}: no voxel can have it")
    if cube.dtype.kind in "iu" and cube.dtype.itemsize == 8:
        notes.append(f"{cube.dtype} numbers beyond 2^53 are rounded")
    if max(cube.shape[1:]) < cube.shape[0] and cube.format in ("mat5", "mat73") and cube.layout.table is None:
        notes.append(f"more bands ({cube.shape[0]}) than rows or columns: check the axis of the bands")
    return notes


def _check_file(path: pathlib.Path) -> None:
    if path.is_dir():
        raise InputError("is a folder", where=path, expected=KNOWN, cure="name a file inside it")
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        cure = f"the folder holds {', '.join(near[:8])}" if near else "check the path"
        raise InputError("no such file", where=path, cure=cure)
    if not path.is_file():
        raise InputError("is not a regular file", where=path, expected="a file on disk", cure="save it to a file first")
    if not os.access(path, os.R_OK):
        raise InputError("may not be read", where=path, cure="change its permissions")


def _content(head: bytes) -> str:
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            return name
    try:
        text = head[:4000].decode("utf-8")
    except UnicodeDecodeError:
        return f"bytes that begin with {head[:8].hex(' ')}"
    if any(ord(letter) < 9 for letter in text):
        return f"bytes that begin with {head[:8].hex(' ')}"
    first = text.strip().splitlines()[0][:30] if text.strip() else ""
    return f"text ({first!r})"


def _cure(path: pathlib.Path) -> str:
    if path.suffix.lower() in (".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin"):
        return f"put its ENVI header beside it as {path.name}.hdr"
    if path.suffix.lower() == ".mat":
        return "save it again with save -v7 or -v7.3"
    if path.suffix.lower() in (".gz", ".xz", ".bz2"):
        return "unpack it first"
    return "check what kind of file this is, or export it again"
