"""Opening 4-D scans and 3-D volumes: NIfTI-1 and NIfTI-2, plain, compressed or in pairs, nibabel images and arrays.

A compressed scan is unpacked once, when it is opened: streamed, under limits and read to the checksum at its end, into
memory where it takes less than 64 MiB (and all such scans less than 512 MiB), else into a temporary file without a name
in `cache` or the system's temporary folder (TMPDIR), which needs the room of the unpacked voxels and vanishes when the
scan is closed or the process ends, however it ends. It is never unpacked again, and memory does not grow with the
number of volumes. Plain files are read where they are.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import stat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_gzip import MAGIC, check_limit, first_bytes, unpack
from pipelines.data.formats.nifti_header import Header, check_kind, parse_header
from pipelines.data.formats.nifti_space import Position, position
from pipelines.data.formats.nifti_time import repetition, sidecar, sidecar_repetition
from pipelines.data.formats.nifti_types import Scan, Stored, Volumes
from pipelines.data.formats.nifti_volumes import ArrayVolumes, plain_volumes
from pipelines.data.formats.nifti_write import write_map

__all__ = ["Scan", "Source", "Stored", "open_scan", "open_volume", "read_mask", "sidecar", "write_map"]

#: A path, an array, or an image of nibabel.
Source = str | os.PathLike[str] | NDArray[Any] | Any

_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img", ".hdr.gz", ".img.gz")


@dataclasses.dataclass
class _Opened:
    """A source after its header was checked."""

    name: str
    header: Header
    volumes: Volumes
    notes: tuple[str, ...]
    path: pathlib.Path | None = None
    affine: NDArray[np.float64] | None = None
    scale: tuple[float, float] = (1.0, 0.0)

    def scan(self, place: Position, tr: float | None, notes: tuple[str, ...]) -> Scan:
        """As a scan; three axes become four."""
        x, y, z, count = (*place.shape, 1)[:4]
        notes = (*self.notes, *place.notes, *notes)
        volumes, stored = self.volumes, place.stored
        return Scan(self.name, self.path, (x, y, z, count), place.affine, tr, stored, notes, volumes, self.scale)


def open_scan(
    source: Source,
    *,
    name: str | None = None,
    tr: float | None = None,
    sidecar_tr: float | None = None,
    limit_gb: float = 64.0,
    cache: pathlib.Path | None = None,
    allow_single: bool = False,
) -> Scan:
    """Open a 4-D scan: everything about it is checked, voxels are read when asked for.

    Args:
        source: a path (.nii, .nii.gz, either file of a .hdr/.img pair), a nibabel image, or an array (X, Y, Z, T),
            which gets 1 mm voxels in RAS+ order.
        name: what messages call it; the file's name without it.
        tr: repetition time in s, which holds whatever the header says.
        sidecar_tr: RepetitionTime in s of an inherited sidecar; without it that of the .json beside the file. It must
            agree with the header to 1 ms.
        limit_gb: gibibytes of voxels, as stored, that are allowed.
        cache: folder for the unpacked voxels of a long compressed scan; the system's temporary folder without it.
        allow_single: whether one volume counts as a scan with T = 1.

    Returns:
        the scan (X, Y, Z, T) in RAS+ order, a context manager. What was converted, assumed or left out is in `notes`.

    Raises:
        InputError: missing, damaged, cut, foreign or impossible files; one volume; surfaces and CIFTI; an affine that
            is zero, singular or not finite; a repetition time that cannot be or on which header and sidecar disagree.

    Complexity: O(1) for plain files, O(bytes) time for compressed ones; memory in neither case grows with T.

    Example:
        >>> scan = open_scan(np.ones((4, 5, 6, 10), np.float32), tr=2.0)
        >>> scan.shape, scan.tr, scan.frames(0, 2).shape
        ((4, 5, 6, 10), 2.0, (4, 5, 6, 2))
        >>> open_scan(np.ones((4, 5, 6)))
        Traceback (most recent call last):
        pipelines.data.errors.InputError: array: one volume, not a scan. Found: 4 x 5 x 6. Expected: X, Y, Z and time...
    """
    opened = _open(source, name, limit_gb * 2**30, cache)
    try:
        header = opened.header
        if header.volumes < 2 and not allow_single:
            found = " x ".join(map(str, header.shape))
            cure = "give the 4-D run; 3-D images of one run: nilearn.image.concat_imgs, or a folder of them"
            expected = "X, Y, Z and time"
            raise InputError("one volume, not a scan", where=opened.name, found=found, expected=expected, cure=cure)
        place = position(header, opened.name, opened.affine)
        said, notes = _said(opened, sidecar_tr)
        if header.volumes < 2:
            return opened.scan(place, tr, notes)
        seconds, more = repetition(header, opened.name, given=tr, said=said)
        return opened.scan(place, seconds, (*notes, *more))
    except BaseException:
        opened.volumes.close()
        raise


def _said(opened: _Opened, sidecar_tr: float | None) -> tuple[float | None, tuple[str, ...]]:
    """What the sidecar says about time."""
    if sidecar_tr is not None or opened.path is None:
        return sidecar_tr, ()
    content = sidecar(opened.path)
    notes = (
        ("the sidecar lists VolumeTiming: volumes were taken as evenly spaced",) if "VolumeTiming" in content else ()
    )
    return sidecar_repetition(content, opened.name), notes


def open_volume(
    source: Source, *, like: Scan | None = None, name: str | None = None, limit_gb: float = 64.0
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a 3-D image: a mask, an atlas, an anatomy.

    Args:
        source: as for `open_scan`, of one volume; an array is taken to be in the RAS+ grid of `like`.
        like: the scan whose grid it must have: shape, and affine to 1e-3 mm.
        name: what messages call it.
        limit_gb: gibibytes that are allowed.

    Returns:
        values (X, Y, Z) in RAS+ order and the affine (4, 4) from its indices to mm.

    Raises:
        InputError: as `open_scan`; several volumes; another grid than the scan's, with both.

    Complexity: O(voxels).

    Example:
        >>> open_volume(np.ones((4, 5, 6)))[0].shape
        (4, 5, 6)
    """
    opened = _open(source, name, limit_gb * 2**30, None)
    try:
        if opened.header.volumes > 1:
            found, expected = " x ".join(map(str, opened.header.shape)), "one volume: X, Y, Z"
            cure = "give a 3-D image, or save one of the volumes"
            raise InputError("several volumes", where=opened.name, found=found, expected=expected, cure=cure)
        scan = opened.scan(position(opened.header, opened.name, opened.affine), None, ())
        if like is not None:
            if opened.affine is None and opened.path is None:
                scan.affine = like.affine
            _check_grid(scan, like)
        return scan.frames(0, 1)[..., 0], scan.affine
    finally:
        opened.volumes.close()


def _check_grid(scan: Scan, like: Scan) -> None:
    if scan.shape[:3] == like.shape[:3] and np.allclose(scan.affine, like.affine, rtol=0, atol=1e-3):
        return
    raise InputError(
        f"another grid than that of {like.name}",
        where=scan.name,
        found=_grid(scan),
        expected=_grid(like),
        cure="resample it to the scan's grid (nilearn.image.resample_to_img, nearest neighbours for masks and atlases)",
    )


def _grid(scan: Scan) -> str:
    """A grid in words."""
    sizes = " x ".join(map(str, scan.shape[:3]))
    zooms = " x ".join(f"{zoom:.4g}" for zoom in scan.zooms)
    corner = ", ".join(f"{value:.2f}" for value in scan.affine[:3, 3])
    last = scan.affine @ [*(length - 1 for length in scan.shape[:3]), 1]
    end = ", ".join(f"{value:.2f}" for value in last[:3])
    return f"{sizes} voxels of {zooms} mm from ({corner}) to ({end}) mm in RAS+"


def read_mask(source: Source, like: Scan) -> NDArray[np.bool_]:
    """Read a mask on the grid of a scan: every voxel that is not 0 belongs to it.

    Args:
        source: as for `open_volume`: 0 and 1, or the numbers of labels.
        like: the scan.

    Returns:
        (X, Y, Z) bool in RAS+ order.

    Raises:
        InputError: another grid, no voxel, NaN, negative or fractional values (a map of probabilities has no edge).

    Complexity: O(voxels).

    Example:
        >>> scan = open_scan(np.ones((2, 2, 1, 3)))
        >>> read_mask(np.array([[[0], [1]], [[2], [0]]]), scan)[..., 0].tolist()
        [[False, True], [True, False]]
    """
    values, _ = open_volume(source, like=like)
    name = pathlib.Path(source).name if isinstance(source, str | os.PathLike) else "mask"
    bad = ~((values >= 0) & (values == np.round(values)))  # also NaN
    if bad.any():
        found = f"{int(bad.sum()):,} of {values.size:,} voxels such as {values[bad][0]:g}"
        expected, cure = "0 and 1, or whole numbers of labels", "threshold it first (nilearn.image.binarize_img)"
        raise InputError("values that are no mask", where=name, found=found, expected=expected, cure=cure)
    if not values.any():
        raise InputError("the mask is empty", where=name, found="0 in every voxel", cure="give the mask of the brain")
    return values != 0


def _open(source: Source, name: str | None, limit: float, cache: pathlib.Path | None) -> _Opened:
    if isinstance(source, str | os.PathLike):
        path = pathlib.Path(source)
        try:
            return _file(path, name or path.name, limit, cache)
        except OSError as error:
            raise InputError("cannot be read", where=path, found=error.strerror, cure="check the disk") from error
    if hasattr(source, "darrays"):
        check_kind(name or "image.gii", b"")
    if hasattr(source, "dataobj"):
        return _image(source, name or _image_name(source), limit, cache)
    return _array(source, name or "array")


def _file(path: pathlib.Path, name: str, limit: float, cache: pathlib.Path | None) -> _Opened:
    _check_file(path)
    head_path, body_path = _pair(path)
    head = first_bytes(head_path)
    with head_path.open("rb") as file:
        raw = file.read(64)
    for part in (raw, head):
        check_kind(name, part)
    zipped, notes = raw.startswith(MAGIC), ()
    if zipped != head_path.name.lower().endswith(".gz"):
        notes = (f"{head_path.name} is {'compressed' if zipped else 'not compressed'}, whatever its name says",)
    if head_path == body_path:
        if zipped:
            header, volumes, more = unpack(path, name, limit, cache)
        else:
            header = parse_header(head, name)
            if header.pair:
                cure = "give the .hdr or .img of the pair under its own name"
                raise InputError("a header without its voxels", where=name, cure=cure)
            check_limit(name, header, limit)
            volumes, more = plain_volumes(path, name, header)
    else:
        header = parse_header(head, name)
        check_limit(name, header, limit)
        if not header.pair:
            raise InputError("a header of a single file in a pair", where=name, cure=f"rename it to {name}.nii")
        if body_path.name.lower().endswith(".gz"):
            header, volumes, more = unpack(body_path, body_path.name, limit, cache, header)
        else:
            volumes, more = plain_volumes(body_path, body_path.name, header)
    return _Opened(name, header, volumes, (*notes, *header.notes, *more), path, None, header.scale)


def _pair(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The files of the header and of the voxels; twice the same for a single file."""
    low = path.name.lower()
    bare = low.removesuffix(".gz")
    if not bare.endswith((".hdr", ".img")):
        return path, path
    stem = path.name[: len(bare) - 4]
    other = ".img" if bare.endswith(".hdr") else ".hdr"
    for ending in (other, f"{other}.gz", other.upper()):
        partner = path.with_name(stem + ending)
        if partner.is_file():
            return (path, partner) if other == ".img" else (partner, path)
    expected = f"{stem}{other} or {stem}{other}.gz beside it"
    raise InputError("half of a pair", where=path.name, found="no other file", expected=expected, cure="copy both")


def _check_file(path: pathlib.Path) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        near = []
        if path.parent.is_dir():
            near = sorted(entry.name for entry in path.parent.iterdir() if entry.name.lower().endswith(_SUFFIXES))
        cure = f"the folder holds {', '.join(near[:8])}" if near else "check the path"
        raise InputError("no such file", where=path, cure=cure) from error
    if stat.S_ISDIR(mode):
        raise InputError("is a folder", where=path, expected="a scan", cure="name a file inside it")
    if not stat.S_ISREG(mode):
        raise InputError("is not a regular file", where=path, expected="a file on disk", cure="save it to a file first")


def _image_name(image: Any) -> str:
    file = image.get_filename() if hasattr(image, "get_filename") else None
    return pathlib.Path(file).name if file else "image"


def _image(image: Any, name: str, limit: float, cache: pathlib.Path | None) -> _Opened:
    """An image of nibabel: voxels from its file where they are still there, else from what it holds."""
    from nibabel import is_proxy  # type: ignore[attr-defined]
    from nibabel.nifti1 import Nifti1Header

    if not isinstance(getattr(image, "affine", None), np.ndarray):
        cure = "give a nibabel image with an affine (nibabel.Nifti1Image(data, affine))"
        raise InputError("an image without a position", where=name, found=type(image).__name__, cure=cure)
    shape = tuple(int(length) for length in image.shape)
    file = image.get_filename()
    nifti = isinstance(image.header, Nifti1Header)
    if nifti and is_proxy(image.dataobj) and file and pathlib.Path(file).is_file():
        opened = _file(pathlib.Path(file), name, limit, cache)
        if _trimmed(shape) != _trimmed(opened.header.shape):
            opened.volumes.close()
            found, expected = f"{opened.header.shape} in {file}", f"{shape} as the image says"
            raise InputError("the file is no longer that of the image", where=name, found=found, expected=expected)
    else:
        blank = _blank(_trimmed(shape), name, np.dtype(image.get_data_dtype()))
        header = blank
        if nifti:
            header = parse_header(image.header.binaryblock.ljust(540, b"\0"), name)
            header = dataclasses.replace(header, shape=blank.shape, notes=())
        opened = _Opened(name, header, ArrayVolumes(image.dataobj, name, header.shape), ())
    opened.affine = np.asarray(image.affine, np.float64)
    return opened


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without trailing axes of one after the fourth."""
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _array(source: Any, name: str) -> _Opened:
    array = np.asarray(source)
    note = "an array: 1 mm voxels in RAS+ order were assumed, its position in the head is unknown"
    header = _blank(array.shape, name, array.dtype)
    return _Opened(name, header, ArrayVolumes(array, name, header.shape), (note,))


def _blank(shape: tuple[int, ...], name: str, dtype: np.dtype[Any]) -> Header:
    """A header for what has none: 1 mm voxels in RAS+ order, no repetition time."""
    if len(shape) not in (3, 4) or math.prod(shape) == 0 or dtype.kind not in "biuf":
        expected, cure = "real numbers (X, Y, Z, T)", "give an array of four axes, time last"
        raise InputError("no scan", where=name, found=f"{dtype} {shape}", expected=expected, cure=cure)
    return Header(
        shape=shape,
        dtype=dtype,
        offset=0,
        pair=False,
        scale=(1.0, 0.0),
        size=348,
        pixdim=(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0),
        quaternion=(0.0,) * 6,
        sform=(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        qform_code=0,
        sform_code=2,
        units=2 | 8,
    )
