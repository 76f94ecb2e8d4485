"""The header of a NIfTI file, read and checked before a single voxel is: sizes, types and places that can be true."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["HEAD", "MOST_VOXELS", "Header", "check_kind", "layout", "parse_header"]

#: Bytes that the longer of the two headers takes, NIfTI-2's.
HEAD = 540
#: Voxels that one volume may have: 812 along each side, 2 GB in float32.
MOST_VOXELS = 1 << 29

_FIRST = [
    ("sizeof_hdr", "i4", 0),
    ("dim", "8i2", 40),
    ("intent_code", "i2", 68),
    ("datatype", "i2", 70),
    ("bitpix", "i2", 72),
    ("pixdim", "8f4", 76),
    ("vox_offset", "f4", 108),
    ("scl_slope", "f4", 112),
    ("scl_inter", "f4", 116),
    ("xyzt_units", "u1", 123),
    ("qform_code", "i2", 252),
    ("sform_code", "i2", 254),
    ("quaternion", "6f4", 256),
    ("sform", "12f4", 280),
]
_SECOND = [
    ("sizeof_hdr", "i4", 0),
    ("datatype", "i2", 12),
    ("bitpix", "i2", 14),
    ("dim", "8i8", 16),
    ("pixdim", "8f8", 104),
    ("vox_offset", "i8", 168),
    ("scl_slope", "f8", 176),
    ("scl_inter", "f8", 184),
    ("qform_code", "i4", 344),
    ("sform_code", "i4", 348),
    ("quaternion", "6f8", 352),
    ("sform", "12f8", 400),
    ("xyzt_units", "i4", 500),
    ("intent_code", "i4", 504),
]
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_OTHER_TYPES = {
    0: "unknown",
    1: "single bits",
    32: "complex numbers",
    128: "RGB colours",
    255: "all types",
    1536: "128-bit floats",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "RGBA colours",
}
_VOLUMETRIC = "give the volumetric NIfTI of the run (.nii or .nii.gz), for BIDS derivatives *_desc-preproc_bold.nii.gz"
_FORMATS = "NIfTI-1 or NIfTI-2 (.nii, .nii.gz or a .hdr/.img pair)"
_KINDS = {
    b"\x89HDF\r\n\x1a\n": ("an HDF5 or MINC 2 file", "convert it with mnc2nii"),
    b"CDF\x01": ("a MINC 1 file", "convert it with mnc2nii"),
    b"BZh": ("bzip2", "unpack it first: bunzip2"),
    b"\xfd7zXZ": ("xz", "unpack it first: unxz"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "unpack it first: unzstd"),
    b"PK\x03\x04": ("a zip archive", "unpack it, or give the archive as a data set"),
    b"ENVI": ("an ENVI header", "give a NIfTI file"),
    b"NRRD": ("a NRRD file", "convert it to NIfTI"),
}


@dataclasses.dataclass(frozen=True)
class Header:
    """What a checked header says; numbers of places are as the file has them.

    Args:
        shape: lengths of the axes; trailing axes of one after the fourth are gone.
        dtype: of the stored numbers, with their byte order.
        offset: byte of the first voxel in the file (of the .img in a pair).
        pair: whether the voxels lie in a file of their own.
        scale: slope and intercept; (1, 0) where the header says none.
        size: bytes of the header itself, 348 or 540.
        pixdim, quaternion, sform, qform_code, sform_code, units: as `Stored` has them, `units` with the unit of time.
        notes: what was odd and how it was read.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    pair: bool
    scale: tuple[float, float]
    size: int
    pixdim: tuple[float, ...]
    quaternion: tuple[float, ...]
    sform: tuple[float, ...]
    qform_code: int
    sform_code: int
    units: int
    notes: tuple[str, ...] = ()

    @property
    def voxels(self) -> int:
        """Voxels of one volume."""
        return math.prod(self.shape[:3])

    @property
    def volumes(self) -> int:
        """Volumes, 1 for three axes."""
        return math.prod(self.shape[3:])

    @property
    def nbytes(self) -> int:
        """Bytes of all stored voxels."""
        return self.voxels * self.volumes * self.dtype.itemsize


def check_kind(name: str, head: bytes) -> None:
    """Refuse by name and first bytes what is no volume: surfaces, CIFTI, other formats and compressions.

    Raises:
        InputError: one of these, with what it is and the cure.

    Example:
        >>> check_kind("run-1.func.gii", b"<?xml")
        Traceback (most recent call last):
        pipelines.data.errors.InputError: run-1.func.gii: a surface, not volumes. Found: GIFTI. Expected: NIfTI-1 or ...
    """
    low = name.lower()
    if low.endswith((".gii", ".gii.gz")) or b"<GIFTI" in head:
        raise InputError("a surface, not volumes", where=name, found="GIFTI", expected=_FORMATS, cure=_VOLUMETRIC)
    if low.endswith((".mgh", ".mgz")):
        cure = f"mri_convert {name} {name.rsplit('.', 1)[0]}.nii.gz"
        raise InputError("not a NIfTI file", where=name, found="FreeSurfer's format", expected=_FORMATS, cure=cure)
    for magic, (what, cure) in _KINDS.items():
        if head.startswith(magic):
            raise InputError("not a NIfTI file", where=name, found=what, expected=_FORMATS, cure=cure)


def parse_header(head: bytes, name: str) -> Header:
    """Read and check a header; nothing is allocated by its numbers.

    Args:
        head: the file's first bytes, unpacked, 540 or all there are.
        name: of the file, for messages.

    Raises:
        InputError: no NIfTI, ANALYZE 7.5, CIFTI, axes, types, places or scales that cannot be.

    Complexity: O(1).

    Source: nifti1.h and nifti2.h of the NIfTI Data Format Working Group.

    Example:
        >>> import nibabel
        >>> image = nibabel.Nifti1Image(np.zeros((4, 5, 6, 7), np.int16), np.eye(4))
        >>> header = parse_header(image.to_bytes()[:540], "a.nii")
        >>> header.shape, header.dtype.name, header.offset, header.nbytes
        ((4, 5, 6, 7), 'int16', 352, 1680)
    """
    fields, size, pair = _fields(head, name)
    notes: list[str] = []
    shape = _shape(fields, name, notes)
    code = int(fields["intent_code"])
    if 3000 <= code < 3100 or name.lower().split(".")[-2:-1] in (["dtseries"], ["dscalar"], ["dlabel"], ["ptseries"]):
        found = f"CIFTI (intent {code}, sizes {' x '.join(map(str, shape))})"
        raise InputError("grayordinates, not volumes", where=name, found=found, expected=_FORMATS, cure=_VOLUMETRIC)
    dtype = _dtype(fields, name)
    _check_sizes(shape, name)
    return Header(
        shape=shape,
        dtype=dtype,
        offset=_offset(fields, name, size, pair, notes),
        pair=pair,
        scale=_scale(fields, name, notes),
        size=size,
        pixdim=tuple(fields["pixdim"].tolist()),
        quaternion=tuple(fields["quaternion"].tolist()),
        sform=tuple(fields["sform"].tolist()),
        qform_code=_code(fields, "qform_code", notes),
        sform_code=_code(fields, "sform_code", notes),
        units=int(fields["xyzt_units"]),
        notes=tuple(notes),
    )


def layout(size: int) -> np.dtype[Any]:
    """The numbers of a header that are read and written, at their places; 348 bytes are NIfTI-1, 540 NIfTI-2.

    Example:
        >>> layout(348).fields["sform"][1], layout(540)["pixdim"].base.name
        (280, 'float64')
    """
    names, formats, offsets = (list(part) for part in zip(*(_FIRST if size == 348 else _SECOND), strict=True))
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})  # type: ignore[call-overload]


def _fields(head: bytes, name: str) -> tuple[NDArray[Any], int, bool]:
    """The numbers of the header, its size, and whether voxels lie in another file."""
    if not head:
        raise InputError("the file is empty", where=name, expected=_FORMATS, cure="copy or export the file again")
    order, size = _order(head)
    if not size:
        found = f"bytes that begin with {head[:8].hex(' ')}"
        raise InputError("not a NIfTI file", where=name, found=found, expected=_FORMATS, cure=_cure(head))
    if len(head) < size:
        found, expected = f"{len(head):,} bytes", f"a header of {size} bytes"
        cure = "copy or download the file again"
        raise InputError("the file ends within its header", where=name, found=found, expected=expected, cure=cure)
    fields = np.frombuffer(head[:size], layout(size).newbyteorder(order))[0]
    magic = head[344:348] if size == 348 else head[4:12]
    known = {b"n+1\0": False, b"ni1\0": True} if size == 348 else {b"n+2\0\r\n\x1a\n": False, b"ni2\0\r\n\x1a\n": True}
    if magic not in known:
        if size == 348 and (not magic.strip(b"\0 ") or 1 <= int(fields["dim"][0]) <= 7):
            raise InputError(
                "an ANALYZE 7.5 header, or a damaged NIfTI-1 one: it does not say which side is left",
                where=name,
                found=f"magic {magic!r}",
                expected="magic b'n+1\\x00' or b'ni1\\x00'",
                cure="convert it with a program that knows its orientation (fslchfiletype NIFTI_GZ, then fslorient)",
            )
        cure = "copy or download the file again in binary mode"
        raise InputError("the magic bytes are damaged", where=name, found=repr(magic), expected=_FORMATS, cure=cure)
    return fields, size, known[magic]


def _order(head: bytes) -> tuple[Literal["<", ">"], int]:
    """Byte order and size of the header; size 0 where it is none."""
    if int.from_bytes(head[:4], "big") in (348, 540):
        return ">", int.from_bytes(head[:4], "big")
    size = int.from_bytes(head[:4], "little")
    return "<", size if size in (348, 540) else 0


def _cure(head: bytes) -> str:
    if head[:15].lstrip(b"\xef\xbb\xbf").lower().startswith((b"<!doctype", b"<html", b"version https:")):
        return "this is a web page or a pointer to a large file (git-annex, git-lfs): fetch the file itself"
    return "check what kind of file this is, or convert it (dcm2niix for DICOM)"


def _shape(fields: NDArray[Any], name: str, notes: list[str]) -> tuple[int, ...]:
    dim = [int(value) for value in fields["dim"]]
    expected = "dim[0] from 3 to 7, then one positive length for each axis"
    found = f"dim = {dim}"
    if not 1 <= dim[0] <= 7 or any(length < 1 for length in dim[1 : dim[0] + 1]):
        raise InputError("the header has impossible sizes", where=name, found=found, expected=expected, cure=_AGAIN)
    shape = dim[1 : dim[0] + 1]
    if len(shape) < 3:
        cure = "give a scan with three axes of space and one of time"
        raise InputError("not a volume", where=name, found=found, expected="three or four axes", cure=cure)
    while len(shape) > 4 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 4:
        cure = "move time to the fourth axis" if shape[3] == 1 else "save one 4-D file for each entry of the last axis"
        raise InputError("more than four axes", where=name, found=found, expected="X, Y, Z, T", cure=cure)
    if dim[0] > 4:
        notes.append(f"{dim[0] - 4} axes of length one after the fourth were left out")
    return tuple(shape)


_AGAIN = "copy or download the file again, or export it again"


def _check_sizes(shape: tuple[int, ...], name: str) -> None:
    if math.prod(shape[:3]) > MOST_VOXELS:
        found = f"{' x '.join(f'{length:,}' for length in shape[:3])} = {math.prod(shape[:3]):,} voxels"
        raise InputError(
            "one volume has an absurd size",
            where=name,
            found=found,
            expected=f"at most {MOST_VOXELS:,} voxels a volume",
            cure=_AGAIN,
        )


def _dtype(fields: NDArray[Any], name: str) -> np.dtype[Any]:
    code, bits = int(fields["datatype"]), int(fields["bitpix"])
    expected = "integers of 8 to 64 bits, float32 or float64"
    if code not in _TYPES:
        found = f"datatype {code} ({_OTHER_TYPES.get(code, 'no type of NIfTI')})"
        cure = "save the magnitude or one channel as float32" if code in _OTHER_TYPES else _AGAIN
        raise InputError("voxels of a type that is not read", where=name, found=found, expected=expected, cure=cure)
    dtype = np.dtype(_TYPES[code]).newbyteorder(fields.dtype["datatype"].byteorder)
    if bits != 8 * dtype.itemsize:
        found, expected = f"datatype {code} ({dtype.name}) and bitpix {bits}", f"bitpix {8 * dtype.itemsize}"
        raise InputError("the header contradicts itself", where=name, found=found, expected=expected, cure=_AGAIN)
    return dtype


def _offset(fields: NDArray[Any], name: str, size: int, pair: bool, notes: list[str]) -> int:
    value = float(fields["vox_offset"])
    if not math.isfinite(value) or value < 0 or value != int(value):
        expected = "a whole number of bytes, 0 or more"
        raise InputError(
            "the voxels lie nowhere", where=name, found=f"vox_offset {value}", expected=expected, cure=_AGAIN
        )
    least = 0 if pair else size + 4
    if value < least:
        if value:
            notes.append(f"vox_offset {int(value)} lies within the header: voxels were read from byte {least}")
        return least
    return int(value)


def _scale(fields: NDArray[Any], name: str, notes: list[str]) -> tuple[float, float]:
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0:
        return 1.0, 0.0
    if not math.isfinite(slope):
        notes.append(f"scl_slope is {slope}: the stored numbers were taken as they are")
        return 1.0, 0.0
    if not math.isfinite(inter):
        found, expected = f"scl_slope {slope:g}, scl_inter {inter}", "two finite numbers"
        raise InputError("values cannot be scaled", where=name, found=found, expected=expected, cure=_AGAIN)
    return slope, inter


def _code(fields: NDArray[Any], which: str, notes: list[str]) -> int:
    code = int(fields[which])
    if 0 <= code <= 5:
        return code
    notes.append(f"{which} {code} is none of NIfTI's (0 to 5): taken as not set")
    return 0
