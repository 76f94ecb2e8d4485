"""NumPy's files of frames: NPY as a memory map, NPZ with its large members unpacked once; nothing is ever unpickled."""

from __future__ import annotations

import io
import math
import pathlib
import shutil
import tempfile
import weakref
import zipfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import known_fault
from pipelines.data.formats.episodes_axes import Source

__all__ = ["map_npy", "open_npz"]

_IN_MEMORY = 1 << 26  # bytes: members up to this are kept in memory, larger ones on disk
_MOST_MEMBERS = 100_000
_DENSEST = 1040  # deflate cannot shrink further than about 1032 to 1
_CHUNK = 1 << 20
_MOST_HEADER = 1 << 16


def map_npy(path: pathlib.Path) -> NDArray[Any]:
    """The array of an NPY file as a memory map, after its header was compared with its size.

    Raises:
        InputError: no such file, Python objects, a header that is damaged or says more or less than is there.

    Complexity: O(1).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((5, 8, 8), np.uint8))
        ...     map_npy(pathlib.Path(folder, "a.npy")).shape
        (5, 8, 8)
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(file, path.name)
            start = file.tell()
    except InputError:
        raise
    except Exception as error:  # header text goes through NumPy's parser, which raises what it likes
        raise known_fault(error, path.name, "NPY") from error
    need, have = math.prod(shape) * dtype.itemsize, path.stat().st_size - start
    if need != have:
        found, expected = f"{have:,} bytes after the header", f"{need:,} for {shape} of {dtype}"
        cure = "copy the file again"
        raise InputError(
            "the header contradicts the file size", where=path.name, found=found, expected=expected, cure=cure
        )
    if not need:
        raise InputError("an array without numbers", where=path.name, found=f"shape {shape}")
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array; the file then stands at its numbers."""
    begin = file.read(8)
    version = np.lib.format.read_magic(io.BytesIO(begin))
    field = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(field, "little")
    if length > _MOST_HEADER:  # NumPy would ask for that much memory first
        raise InputError(
            "the header is damaged", where=where, found=f"{length:,} bytes long", cure="copy the file again"
        )
    held = io.BytesIO(field + file.read(length))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(held)
    if dtype.hasobject:
        cure = "save plain arrays; if you trust its source, load it with NumPy and give the arrays"
        raise InputError("Python objects, which are never opened: they could run any code", where=where, cure=cure)
    if dtype.kind not in "biufUS" or dtype.itemsize == 0 or any(length < 0 for length in shape):
        expected = "numbers, truth values or texts"
        raise InputError("an array of another kind", where=where, found=f"dtype {dtype}, {shape}", expected=expected)
    return tuple(int(length) for length in shape), bool(fortran), dtype


def open_npz(path: pathlib.Path) -> dict[str, Source]:
    """The arrays of an NPZ file: those up to 64 MiB in memory, larger ones unpacked into temporary memory maps.

    The maps are removed with the last array. Each member is read to its end, so that its checksum counts.

    Raises:
        InputError: no such file, not an NPZ, damaged or encrypted members, Python objects, sizes that cannot be, no
            space left for the maps.

    Complexity: O(unpacked bytes) time, 64 MiB of memory a member at most.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez_compressed(f"{folder}/a.npz", frames=np.zeros((5, 8, 8), np.uint8), fps=10.0)
        ...     sorted(open_npz(pathlib.Path(folder, "a.npz")))
        ['fps', 'frames']
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > _MOST_MEMBERS:
                raise InputError(
                    "too many arrays", where=path.name, found=f"{len(members):,}", expected=f"{_MOST_MEMBERS:,}"
                )
            out: dict[str, Source] = {}
            for member in members:
                if member.filename.endswith(".npy"):
                    out[member.filename.removesuffix(".npy")] = _member(archive, member, path.name)
            if not out:
                found = ", ".join(member.filename for member in members[:6]) or "an empty archive"
                raise InputError(
                    "no arrays in the file", where=path.name, found=found, expected="arrays as of NumPy's savez"
                )
            return out
    except InputError:
        raise
    except OSError as error:
        if error.errno is None:  # damage; else the system's word
            raise known_fault(error, path.name, "NPZ") from error
        raise InputError("cannot be read or unpacked", where=path.name, found=error.strerror or str(error)) from error
    except Exception as error:  # zip, zlib and NumPy's header parser each raise their own
        raise known_fault(error, path.name, "NPZ") from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    """One array, after a look at its header and at whether its size can be."""
    where = f"{name}, {member.filename.removesuffix('.npy')}"
    if member.flag_bits & 1:
        raise InputError("the file is encrypted", where=where, cure="unpack it with its password and save it again")
    if member.file_size > _DENSEST * (member.compress_size + 64):
        found = f"{member.compress_size:,} bytes that say they are {member.file_size:,}"
        raise InputError("the file is damaged", where=where, found=found, cure="copy the file again")
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file, where)
        need, have = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if need != have:
            found, expected = f"{have:,} bytes", f"{need:,} for {shape} of {dtype}"
            raise InputError("the header contradicts the size", where=where, found=found, expected=expected)
        held = np.empty(need, np.uint8) if need <= _IN_MEMORY else _scratch(need, where)
        at = 0
        while piece := file.read(_CHUNK):
            held[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        if at != need:
            raise InputError("the array is cut", where=where, found=f"{at:,} bytes", expected=f"{need:,}")
    return held.view(dtype).reshape(shape, order="F" if fortran else "C")


def _scratch(size: int, where: str) -> NDArray[np.uint8]:
    """A memory map in a temporary folder that goes when nothing uses it any more."""
    folder = pathlib.Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < size + (1 << 24):
        cure = "free some, or set TMPDIR to a folder with more space"
        found = f"{free:,} bytes free in {folder}"
        raise InputError("no space to unpack the array", where=where, found=found, expected=f"{size:,}", cure=cure)
    own = tempfile.mkdtemp(prefix="pipelines-frames-")
    try:
        held = np.memmap(pathlib.Path(own, "frames"), np.uint8, "w+", 0, (size,))
    except BaseException:
        shutil.rmtree(own, ignore_errors=True)
        raise
    # Views keep the first map alive through their base, so the folder lives as long as any of them.
    weakref.finalize(held._mmap, shutil.rmtree, own, ignore_errors=True)  # type: ignore[attr-defined]
    return held
