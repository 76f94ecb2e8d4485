"""Where the voxels of a NIfTI file lie: which affine holds, what unit it has, and the turn to RAS+."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_header import Header
from pipelines.data.formats.nifti_types import Stored

__all__ = ["Position", "check_affine", "position", "quaternion_affine", "turned", "unit_factor"]

_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
_NAMES = {1: "metres", 2: "mm", 3: "micrometres"}
_COPY = "write the affine again with the program that made the file, or copy the other one (fslorient, nibabel)"


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a grid lies.

    Args:
        affine: (4, 4) from RAS+ voxel indices to mm.
        shape: lengths of the axes in RAS+ order, time last where there is one.
        stored: how the file has it.
        notes: which affine holds, what was converted or turned.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, ...]
    stored: Stored
    notes: tuple[str, ...]


def position(header: Header, name: str, affine: NDArray[np.float64] | None = None) -> Position:
    """The position that a header gives its voxels, turned to the closest RAS+ order.

    The sform holds where it is set, else the qform. Where neither is, the position is unknown and the one that nibabel
    assumes is taken and said: the first axis runs to the left and zero lies in the middle.

    Args:
        header: the checked header.
        name: of the file, for messages.
        affine: (4, 4) that holds instead, in the header's unit of length (of an image in memory).

    Raises:
        InputError: an affine that is zero, singular or not finite; voxel sizes or a quaternion that cannot be.

    Complexity: O(1).

    Source: nifti1.h, "3D image (volume) orientation and location in space", methods 1 to 3.

    Example:
        >>> import nibabel
        >>> from pipelines.data.formats.nifti_header import parse_header
        >>> image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([-2.0, 3, 4, 1]))
        >>> found = position(parse_header(image.to_bytes()[:540], "a.nii"), "a.nii")
        >>> found.stored.axcodes, found.affine[0].tolist()
        (('L', 'A', 'S'), [2.0, 0.0, 0.0, -6.0])
    """
    notes: list[str] = []
    codes = (header.qform_code, header.sform_code)
    if affine is None:
        affine = _affine(header, name, notes)
        sform = header.sform
    else:
        affine = np.asarray(affine, np.float64)
        known = header.qform_code or header.sform_code
        if not known or not np.allclose(affine, _affine(header, name, []), atol=1e-4):
            codes = (0, header.sform_code or 2)
        sform = tuple(affine[:3].ravel().tolist()) if codes[1] else header.sform
    check_affine(affine, name)
    factor = unit_factor(header.units, notes)
    in_mm = affine.copy()
    in_mm[:3] *= factor
    ras, shape, axcodes = turned(in_mm, header.shape, notes)
    stored = Stored(
        shape=header.shape,
        affine=affine,
        axcodes=axcodes,
        dtype=header.dtype.name,
        qform_code=codes[0],
        sform_code=codes[1],
        pixdim=header.pixdim,
        quaternion=header.quaternion,
        sform=sform,
        units=header.units & 7,
        version=1 if header.size == 348 else 2,
    )
    return Position(ras, shape, stored, tuple(notes))


def check_affine(affine: NDArray[np.float64], name: str) -> None:
    """Refuse an affine that does not give every voxel a place of its own.

    Raises:
        InputError: not (4, 4), not finite, zero or singular.

    Example:
        >>> check_affine(np.zeros((4, 4)), "a.nii")
        Traceback (most recent call last):
        pipelines.data.errors.InputError: a.nii: the affine is zero or singular. Found: rows [0, 0, 0, 0], ...
    """
    if affine.shape != (4, 4):
        raise InputError("an affine of another shape", where=name, found=affine.shape, expected=(4, 4), cure=_COPY)
    rows = ", ".join(f"[{', '.join(f'{value:g}' for value in row)}]" for row in affine[:3])
    expected = "three independent directions, finite numbers"
    if not np.isfinite(affine).all():
        raise InputError("the affine is not finite", where=name, found=f"rows {rows}", expected=expected, cure=_COPY)
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-4:
        raise InputError(
            "the affine is zero or singular", where=name, found=f"rows {rows}", expected=expected, cure=_COPY
        )


def unit_factor(units: int, notes: list[str]) -> float:
    """Millimetres in the header's unit of length; what was assumed or converted is added to the notes.

    Example:
        >>> notes = []
        >>> unit_factor(3, notes), notes
        (0.001, ['positions were converted from micrometres to mm'])
    """
    code = units & 7
    if code not in _MM:
        notes.append("the unit of length is not set: taken as mm")
    elif code != 2:
        notes.append(f"positions were converted from {_NAMES[code]} to mm")
    return _MM.get(code, 1.0)


def turned(
    affine: NDArray[np.float64], shape: tuple[int, ...], notes: list[str]
) -> tuple[NDArray[np.float64], tuple[int, ...], tuple[str, str, str]]:
    """Affine and shape after the axes are permuted and flipped to the closest RAS+ order; nothing is resampled.

    Returns:
        the affine of RAS+ indices, the shape in that order, the letters of the axes before.

    Complexity: O(1).

    Example:
        >>> turned(np.array([[0, -2.0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), (3, 4, 5), [])[1:]
        ((4, 3, 5), ('A', 'L', 'S'))
    """
    from nibabel.affines import obliquity
    from nibabel.orientations import aff2axcodes, inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)
    axcodes = aff2axcodes(affine)
    ras = affine @ inv_ornt_aff(orientation, shape[:3])
    axes = np.argsort(orientation[:, 0])
    if axcodes != ("R", "A", "S"):
        notes.append(f"stored {''.join(axcodes)}: axes were permuted or flipped to RAS+, no voxel was changed")
    angle = float(np.degrees(obliquity(affine).max()))
    if angle > 0.1:
        notes.append(f"oblique by up to {angle:.1f} degrees: kept oblique, nothing was resampled")
    return ras, (*(shape[axis] for axis in axes), *shape[3:]), axcodes


def _affine(header: Header, name: str, notes: list[str]) -> NDArray[np.float64]:
    """The affine that holds, in the header's own unit."""
    if header.sform_code:
        affine = np.vstack([np.reshape(header.sform, (3, 4)), [0, 0, 0, 1]]).astype(np.float64)
        if header.qform_code and np.isfinite(affine).all():
            _compare(header, name, affine, notes)
        return affine
    sizes = [abs(value) for value in header.pixdim[1:4]]
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        found = f"pixdim {', '.join(f'{value:g}' for value in header.pixdim[1:4])}"
        expected = "three positive voxel sizes"
        raise InputError("the voxels have no size", where=name, found=found, expected=expected, cure=_COPY)
    if any(value < 0 for value in header.pixdim[1:4]):
        notes.append("negative voxel sizes in the header were taken as positive")
    if header.qform_code:
        return quaternion_affine(header, name, notes)
    notes.append(
        "neither qform nor sform is set, so the position and which side is left are unknown: as nibabel does, "
        "the first axis is taken to run to the left and zero to lie in the middle"
    )
    affine = np.diag([-sizes[0], sizes[1], sizes[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(header.shape[:3]) - 1) / 2)
    return affine


def quaternion_affine(header: Header, name: str, notes: list[str]) -> NDArray[np.float64]:
    """The (4, 4) affine of the qform, in the header's unit.

    Raises:
        InputError: a quaternion longer than one or not finite.

    Source: nifti1.h, method 2: a = sqrt(1 - b^2 - c^2 - d^2), the third column times qfac = pixdim[0].
    """
    b, c, d, *offset = header.quaternion
    rest = 1.0 - (b * b + c * c + d * d)
    if not all(map(math.isfinite, header.quaternion)) or rest < -1e-5:
        found = ", ".join(f"{value:g}" for value in header.quaternion)
        expected = "b, c, d of a unit quaternion and a finite offset"
        raise InputError("the qform is no rotation", where=name, found=found, expected=expected, cure=_COPY)
    # Rounded to float32, a half turn may come out a little longer than one.
    a = math.sqrt(max(rest, 0.0))
    length = math.sqrt(a * a + b * b + c * c + d * d)
    a, b, c, d = a / length, b / length, c / length, d / length
    qfac = header.pixdim[0]
    if qfac not in (-1.0, 0.0, 1.0):
        notes.append(f"pixdim[0] is {qfac:g}, not 1 or -1: only its sign was used")
    affine = np.eye(4)
    affine[:3, :3] = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
    affine[:3, :3] *= np.abs(header.pixdim[1:4])
    affine[:3, 2] *= -1.0 if qfac < 0 else 1.0
    affine[:3, 3] = offset
    return affine


def _compare(header: Header, name: str, sform: NDArray[np.float64], notes: list[str]) -> None:
    """Say how far the qform puts the grid's corners from where the sform puts them."""
    try:
        qform = quaternion_affine(header, name, [])
    except InputError:
        notes.append("the qform is damaged: the sform was used")
        return
    corners = np.array(np.meshgrid(*((0, length - 1) for length in header.shape[:3]))).reshape(3, -1)
    apart = np.abs((qform - sform)[:3] @ np.vstack([corners, np.ones(corners.shape[1])]))
    size = np.sqrt((sform[:3, :3] ** 2).sum(0)).min()
    if not apart.max() <= 0.01 * size:  # also where it is not finite
        notes.append(f"qform and sform disagree by up to {apart.max():.3g} (in the file's unit): the sform was used")
