"""Writing maps beside the scan they belong to: the same grid in the file's own order, axes, codes and units."""

from __future__ import annotations

import os
import pathlib
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_staging import staged
from pipelines.data.formats.nifti_header import layout
from pipelines.data.formats.nifti_types import Scan, Stored, from_ras

__all__ = ["DESCRIPTION", "write_map"]

#: Bytes that a description may have.
DESCRIPTION = 79


def write_map(path: str | os.PathLike[str], values: NDArray[Any], scan: Scan, *, description: str = "") -> pathlib.Path:
    """Write a map of a scan as float32 NIfTI, aligned with the scan's own file, completely or not at all.

    Axes are turned back to the file's own order; version, affines, codes, voxel sizes and units are the file's. The
    same values give the same bytes.

    Args:
        path: a name that ends in .nii.gz or .nii; missing folders are made, a file of that name is replaced.
        values: (X, Y, Z), or (X, Y, Z, K) for K maps, in the RAS+ order of `scan`.
        scan: whose grid it is.
        description: at most 79 bytes of the header.

    Returns:
        the path.

    Raises:
        InputError: values of another grid or no numbers, another ending, a long description, no room or no right to
            write; what was there before is unchanged.

    Complexity: O(voxels); memory of one map in float32 more.

    Example:
        >>> import tempfile
        >>> import nibabel
        >>> from pipelines.data.formats.nifti import open_scan
        >>> image = nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), np.diag([-2.0, -2, 2, 1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = write_map(f"{folder}/map.nii.gz", np.ones((3, 4, 5)), open_scan(image))
        ...     bool((nibabel.load(file).affine == image.affine).all())
        True
    """
    target = pathlib.Path(path)
    if not target.name.endswith((".nii", ".nii.gz")):
        found, expected = target.name, "a name that ends in .nii.gz or .nii"
        raise InputError("no name of a map", where=target, found=found, expected=expected)
    array = np.asarray(values)
    if array.shape[:3] != scan.shape[:3] or array.ndim not in (3, 4) or array.size == 0:
        expected = f"{scan.shape[:3]}, or the same and one axis more"
        raise InputError(f"values of another grid than {scan.name}", where=target, found=array.shape, expected=expected)
    if array.dtype.kind not in "biuf":
        raise InputError("values that are no numbers", where=target, found=array.dtype, expected="real numbers")
    with np.errstate(over="ignore"):
        stored = from_ras(array.astype(np.float32), scan.stored.axcodes)
    head = _header(stored.shape, scan.stored, description, target)
    try:
        with staged(target) as (name,), name.open("xb") as file:
            _write(file, head, stored, compressed=target.name.endswith(".gz"))
    except OSError as error:
        found = error.strerror or str(error)
        cure = "choose a folder with room that you may write to; earlier files are unchanged"
        raise InputError("cannot be written", where=target, found=found, cure=cure) from error
    return target


def _write(file: BinaryIO, head: bytes, stored: NDArray[np.float32], *, compressed: bool) -> None:
    """Header and voxels, the first axis fastest, one slice of the last axis at a time."""
    engine = zlib.compressobj(6, zlib.DEFLATED, 31) if compressed else None
    file.write(head if engine is None else engine.compress(head))
    for index in range(stored.shape[-1]):
        piece = np.ascontiguousarray(stored[..., index].T, "<f4").tobytes()
        file.write(piece if engine is None else engine.compress(piece))
    if engine is not None:
        file.write(engine.flush())


def _header(shape: tuple[int, ...], stored: Stored, description: str, target: pathlib.Path) -> bytes:
    """The bytes before the voxels: the header and four zeros, which say that nothing else follows.

    Source: nifti1.h, nifti2.h; float32 is datatype 16.
    """
    text = description.encode()
    if len(text) > DESCRIPTION:
        expected = f"at most {DESCRIPTION} bytes"
        raise InputError("the description is too long", where=target, found=f"{len(text)} bytes", expected=expected)
    size, magic, described = (348, b"n+1\0", 148) if stored.version == 1 else (540, b"n+2\0\r\n\x1a\n", 240)
    if size == 348 and max(shape) > 32767:
        raise InputError("axes too long for NIfTI-1", where=target, found=shape, expected="at most 32,767 each")
    fields = np.zeros((), layout(size).newbyteorder("<"))
    sizes = np.sqrt((stored.affine[:3, :3] ** 2).sum(0)).tolist()
    values = {
        "sizeof_hdr": size,
        "dim": [len(shape), *shape, *(1,) * (7 - len(shape))],
        "datatype": 16,
        "bitpix": 32,
        "pixdim": [*(stored.pixdim[:4] or (1.0, *sizes)), float(len(shape) > 3), 0.0, 0.0, 0.0],
        "vox_offset": size + 4,
        "scl_slope": 1.0,
        "xyzt_units": stored.units,
        "qform_code": stored.qform_code,
        "sform_code": stored.sform_code,
        "quaternion": stored.quaternion,
        "sform": stored.sform,
    }
    for key, value in values.items():
        fields[key] = value
    head = bytearray(fields.tobytes() + bytes(4))
    head[described : described + len(text)] = text
    at = 344 if size == 348 else 4
    head[at : at + len(magic)] = magic
    return bytes(head)
