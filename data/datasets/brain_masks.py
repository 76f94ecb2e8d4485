"""Which voxels of a run are brain, found in one pass over its volumes, and which have values that are no numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_statistics import Moments, chunks
from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_types import Scan

__all__ = ["Survey", "brain_mask", "survey"]

Mask = NDArray[np.bool_]


@dataclasses.dataclass
class Survey:
    """What one pass over a run found, on the run's own grid.

    Args:
        moments: of each voxel in Fortran order; values that are no numbers were counted as 0.
        seen: (X, Y, Z) voxels that differ from the background value in at least one volume.
        broken: (X, Y, Z) voxels that are NaN or infinite in at least one volume.
        volumes: volumes with such a voxel.
        place: X, Y, Z and volume of the first one.
    """

    moments: Moments
    seen: Mask
    broken: Mask
    volumes: int = 0
    place: tuple[int, int, int, int] | None = None


def survey(scan: Scan, background: float = 0.0) -> Survey:
    """Read a run once: moments, background and NaN. O(voxels x volumes) time, O(voxels) memory.

    Args:
        scan: the run.
        background: the value of voxels outside the head.

    Example:
        >>> from pipelines.data.formats.nifti import open_scan
        >>> found = survey(open_scan(np.arange(8.0).reshape(2, 1, 1, 4)))
        >>> found.moments.mean.tolist(), found.seen.ravel().tolist(), found.place
        ([1.5, 5.5], [True, True], None)
    """
    shape, volumes = scan.shape[:3], scan.shape[3]
    voxels = int(np.prod(shape))
    moments, seen, broken = Moments(voxels), np.zeros(voxels, bool), np.zeros(voxels, bool)
    out = Survey(moments, seen, broken)
    for start, stop in chunks(volumes, voxels):
        values = scan.frames(start, stop)
        flat = values.reshape(-1, values.shape[3], order="F")
        seen |= (flat != np.float32(background)).any(1)
        bad = ~np.isfinite(flat)
        if bad.any():
            broken |= bad.any(1)
            hit = bad.any(0)
            out.volumes += int(hit.sum())
            if out.place is None:
                volume = int(hit.argmax())
                x, y, z = np.unravel_index(int(bad[:, volume].argmax()), shape, order="F")
                out.place = (int(x), int(y), int(z), start + volume)
            flat = np.where(bad, np.float32(0), flat)
        moments.add(flat.T.astype(np.float64))
    out.seen, out.broken = seen.reshape(shape, order="F"), broken.reshape(shape, order="F")
    return out


def refuse_broken(scan: Scan, found: Survey) -> None:
    """Raise for NaN and infinite values, with their counts and the first place.

    Raises:
        InputError: there are some.
    """
    if found.place is None:
        return
    x, y, z, t = found.place
    counts = f"{int(found.broken.sum()):,} of {found.broken.size:,} voxels in {found.volumes:,} of {scan.shape[3]:,}"
    text = f"{counts} volumes, first at voxel ({x}, {y}, {z}) of volume {t}"
    cure = "--signal.nan background makes these voxels background"
    raise InputError("values that are NaN or infinite", where=scan.name, found=text, cure=cure)


def brain_mask(scan: Scan, found: Survey, kind: str, file: Path | None = None) -> tuple[Mask, list[str]]:
    """Brain voxels (X, Y, Z) of a run, without those that are no numbers, and how they were found, counted.

    Args:
        scan: the run.
        found: of `survey`.
        kind: `auto`, `zeros`, `file`, `epi` or `none`, as `SignalOptions.mask`.
        file: the run's image of the brain.

    Raises:
        InputError: no image where one is asked for, one of another grid; no brain voxel is left.

    Source: `zeros`: SwiFT's released preparation; `epi`: Nichols' histogram rule in nilearn.masking.compute_epi_mask.
    """
    kind = ("zeros" if file is None else "file") if kind == "auto" else kind
    if kind == "file":
        mask, how = _from_file(scan, file)
    elif kind == "epi":
        mask, how = _epi(scan, found), "nilearn's rule on the mean volume"
    elif kind == "none":
        mask, how = np.ones(found.seen.shape, bool), "none, every voxel counts"
    else:
        mask, how = found.seen.copy(), "voxels that differ from the background in some volume"
    notes = []
    if found.place is not None:
        notes.append(
            f"{int(found.broken.sum()):,} voxels with NaN or infinite values in {found.volumes:,} volumes became "
            f"background ({int((found.broken & mask).sum()):,} of them in the mask)"
        )
        mask &= ~found.broken
    count = int(mask.sum())
    if not count:
        text = f"0 of {mask.size:,} voxels by {how}"
        cure = "another --signal.mask" if kind != "none" else None
        raise InputError("no brain voxel is left", where=scan.name, found=text, cure=cure)
    return mask, [f"brain mask: {count:,} of {mask.size:,} voxels ({how})", *notes]


def _from_file(scan: Scan, file: Path | None) -> tuple[Mask, str]:
    from pipelines.data.formats.nifti import read_mask

    if file is None:
        cure = "--signal.mask zeros or epi, or a study with masks"
        raise InputError("the run has no image of the brain", where=scan.name, cure=cure)
    return np.array(read_mask(file, scan), bool), Path(file).name


def _epi(scan: Scan, found: Survey) -> Mask:
    import warnings

    import nibabel as nib
    from nilearn.masking import compute_epi_mask

    mean = found.moments.mean.reshape(scan.shape[:3], order="F").astype(np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty mask gets its own message
            image = compute_epi_mask(nib.Nifti1Image(mean, scan.affine))
    except Exception as error:  # nilearn raises many kinds on volumes that are no brain
        cure = "--signal.mask zeros"
        raise InputError(f"nilearn finds no brain on the mean volume ({error})", where=scan.name, cure=cure) from error
    return np.asarray(image.dataobj) > 0
