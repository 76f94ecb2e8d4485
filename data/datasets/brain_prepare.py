"""From a recording to a run on a model's grid: opened, masked, cleaned, scaled, all by statistics from few passes."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_box import Box, Triple, centred
from pipelines.data.datasets.brain_confounds import read_confounds
from pipelines.data.datasets.brain_frames import Frames, is_frames, open_frames
from pipelines.data.datasets.brain_grid import GridOptions, Series, series
from pipelines.data.datasets.brain_masks import brain_mask, refuse_broken, survey
from pipelines.data.datasets.brain_prepared import Prepared, Standard, check_alike
from pipelines.data.datasets.brain_signal import SignalOptions
from pipelines.data.datasets.brain_statistics import Fit, Moments, design, fit_design, moments_of
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_types import Scan

__all__ = ["Prepared", "check_alike", "prepare"]

Floats = NDArray[np.float64]


def prepare(
    recording: Recording,
    signal: SignalOptions | None = None,
    grid: GridOptions | None = None,
    *,
    size: Triple | None = None,
    tr: float | None = None,
    limit_gb: float = 64.0,
) -> Prepared:
    """Open a run, gather its statistics in one pass, or three where something is removed from time courses.

    In this order: NaN, smoothing, voxels, times, brain mask, polynomial and confounds, standardising, background,
    cutting and padding. Frames of the authors' preparations are standardised already: nothing is done to their values.

    Args:
        recording: the run.
        signal: what is done to its values; None: SwiFT's preparation.
        grid: the grid in space and time; None: the run's own.
        size: voxels along X, Y and Z that the model sees, before `grid.size`.
        tr: s between volumes, whatever header and sidecar say; None: they count.
        limit_gb: most of a compressed scan that may be unpacked.

    Raises:
        InputError: a run that cannot be read, NaN, no brain, confounds that do not fit, a brain without variation,
            another size than the model's.

    Complexity: O(X Y Z T) time a pass, O(X Y Z) memory whatever T is.

    Source: SwiFT (arXiv 2307.05916), preprocessing.py of the released code.

    Example:
        >>> values = np.random.default_rng(0).normal(5, 2, (4, 5, 6, 30)).astype(np.float32)
        >>> run = prepare(Recording("a", values, tr=2.0), grid=GridOptions(size=(6, 6, 6), fit="centre"))
        >>> run.grid, run.volumes, run.box.low, run.window(10, 20).shape
        ((6, 6, 6), 30, (1, 1, 0), (6, 6, 6, 20))
        >>> round(float(run.matrix().mean()), 3), round(float(run.matrix().std()), 3)
        (0.0, 1.0)
    """
    signal, grid = signal or SignalOptions(), grid or GridOptions()
    scan = _opened(recording, tr, limit_gb)
    try:
        return _prepared(recording, scan, signal, grid, size or grid.size)
    except BaseException:
        scan.close()
        raise


def _opened(recording: Recording, tr: float | None, limit_gb: float) -> Scan:
    if is_frames(recording.source):
        return open_frames(recording.source, name=recording.name, tr=recording.tr if tr is None else tr)
    from pipelines.data.formats.nifti import open_scan

    return open_scan(recording.source, name=recording.name, tr=tr, sidecar_tr=recording.tr, limit_gb=limit_gb)


def _prepared(
    recording: Recording, scan: Scan, signal: SignalOptions, grid: GridOptions, size: Triple | None
) -> Prepared:
    notes = list(scan.notes)
    frames = scan.volumes if isinstance(scan.volumes, Frames) else None
    if frames is not None:
        signal, said = _as_frames(recording, scan, signal, grid)
        notes += said
    found = survey(scan, 0.0 if frames is None else frames.background)
    if signal.nan == "refuse":
        refuse_broken(scan, found)
    mask, said = brain_mask(scan, found, signal.mask, recording.mask)
    notes += said
    stream, said = series(scan, grid, signal.smooth, mend=found.place is not None)
    notes += said
    if stream.space is not None:
        mask = _resampled(stream, mask, notes)
    standard, statistics = _standard(recording, signal, stream, mask, found.moments, notes)
    if frames is not None:
        standard = dataclasses.replace(standard, fill=frames.background)
        statistics["fill"] = frames.background
    box = _box(scan.name, stream.grid, size, grid.fit)
    if not box.plain:
        notes += [box.note(stream.grid), *_cut(standard.mask, box)]
    return Prepared(recording.name, stream, standard, box, statistics, tuple(notes))


def _as_frames(
    recording: Recording, scan: Scan, signal: SignalOptions, grid: GridOptions
) -> tuple[SignalOptions, list[str]]:
    """What holds for frames, whatever was asked for, and the words for it."""
    if grid.voxel is not None:
        cure = "leave --grid.voxel out, or start from the scan itself"
        raise InputError("prepared frames have no voxel size to resample from", where=scan.name, cure=cure)
    kind = signal.mask if signal.mask == "none" else "zeros"
    forced = SignalOptions("none", mask=kind, nan=signal.nan)
    notes = ["frames are standardised already: nothing is done to their values; background is the first voxel's value"]
    usual = SignalOptions()
    given = [f.name for f in dataclasses.fields(signal) if getattr(signal, f.name) != getattr(usual, f.name)]
    lost = [name for name in given if getattr(signal, name) != getattr(forced, name)]
    if lost:
        notes.append(f"not done to frames: {', '.join(f'signal.{name}' for name in lost)}")
    if recording.mask is not None:
        notes.append(f"{recording.mask.name} was not used: frames have no position")
    return forced, notes


def _resampled(stream: Series, mask: NDArray[np.bool_], notes: list[str]) -> NDArray[np.bool_]:
    """The mask on the new voxels."""
    if stream.space is None:
        return mask
    new = stream.space.labels(mask)
    notes.append(f"brain mask on the new voxels: {int(new.sum()):,} of {new.size:,} (nearest)")
    if not new.any():
        cure = "a smaller --grid.voxel"
        raise InputError("no brain voxel is left on the new voxels", where=stream.scan.name, cure=cure)
    return new


def _standard(
    recording: Recording,
    signal: SignalOptions,
    stream: Series,
    mask: NDArray[np.bool_],
    before: Moments,
    notes: list[str],
) -> tuple[Standard, dict[str, float | int | str]]:
    """Statistics of the brain, and what they make of it."""
    fit = None
    voxels = np.flatnonzero(mask.ravel(order="F"))
    if signal.regresses:
        fit = _fit(recording, signal, stream, voxels, notes)
    # What the survey has seen is what the stream gives, unless volumes were changed or something is removed.
    moments = before.take(voxels) if stream.plain and fit is None else moments_of(stream, voxels, fit)
    if signal.standardise == "voxel":
        flat = _still(moments, fit, stream, voxels)
        if flat.any():
            notes.append(f"{int(flat.sum()):,} brain voxels that do not vary became background")
            moments, voxels = moments.take(np.flatnonzero(~flat)), voxels[~flat]
            if fit is not None:
                fit = Fit(fit.columns, fit.weights[:, ~flat], fit.centre[~flat])
        if not len(voxels):
            raise InputError("no brain voxel varies in time", where=recording.name, cure="--signal.standardise brain")
    mean, sd = moments.overall()
    low, high = float(moments.low.min()), float(moments.high.max())
    centre, scale, words = _scaling(signal, moments, (mean, sd, low, high), recording.name)
    notes.append(words)
    least = float(((moments.low - centre) * scale).min())
    fill = least if signal.fill == "minimum" else 0.0
    if len(voxels) < mask.size:
        text = "the brain's least value" if signal.fill == "minimum" else "zero"
        notes.append(f"background: {mask.size - len(voxels):,} voxels filled with {text} ({fill:.4g})")
    statistics: dict[str, float | int | str] = {
        "standardise": signal.standardise,
        "mean": mean,
        "sd": sd,
        "minimum": low,
        "maximum": high,
        "fill": fill,
        "brain_voxels": len(voxels),
        "background_voxels": mask.size - len(voxels),
        "volumes": stream.count,
    }
    inside = np.zeros(mask.size, bool)
    inside[voxels] = True
    return Standard(np.packbits(inside), stream.grid, fit, centre, scale, fill), statistics


def _fit(
    recording: Recording, signal: SignalOptions, stream: Series, voxels: NDArray[np.int64], notes: list[str]
) -> Fit:
    """Least squares of polynomial and confounds, at the times of the stream."""
    confounds = None
    if signal.confounds:
        wanted, rows = signal.confounds, stream.scan.shape[3]
        confounds, said = read_confounds(recording.confounds, wanted, rows, recording.name)
        notes += said
        if stream.clock is not None:
            confounds = stream.clock(confounds, 0)
    columns = design(stream.count, signal.detrend, confounds)
    left = stream.count - columns.shape[1] - (signal.detrend >= 0)
    if left < 2:
        found = f"{columns.shape[1]} columns to remove, {stream.count} volumes"
        cure = "a lower --signal.detrend or fewer confounds"
        raise InputError("nothing of the run would be left", where=recording.name, found=found, cure=cure)
    if signal.detrend >= 0:
        notes.append(f"polynomial of order {signal.detrend} removed from each voxel")
    return fit_design(stream, voxels, columns, means=signal.detrend >= 0)


def _still(moments: Moments, fit: Fit | None, stream: Series, voxels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Voxels without variation; after a fit, those of which the fit leaves no more than rounding of float32."""
    if fit is None:
        return moments.still()
    power = (fit.weights**2).sum(0) + moments.squares
    return (moments.squares <= 1e-12 * power) | (moments.sd() <= 1e-6 * np.abs(fit.centre + moments.mean))


def _scaling(
    signal: SignalOptions, moments: Moments, brain: tuple[float, float, float, float], name: str
) -> tuple[float | Floats, float | Floats, str]:
    """Centre, scale, and the words for them."""
    mean, sd, low, high = brain
    if signal.standardise == "none":
        return 0.0, 1.0, "values as read"
    if signal.standardise == "voxel":
        return moments.mean, 1 / moments.sd(), "standardised: each voxel over its run"
    spread = sd if signal.standardise == "brain" else high - low
    if not spread > 1e-6 * abs(mean):
        found = f"every brain voxel of every volume is {mean:.6g}"
        raise InputError("the brain does not vary", where=name, found=found, cure="another run, or another mask")
    if signal.standardise == "minmax":
        return low, 1 / spread, f"standardised: {low:.6g} to {high:.6g} of the brain became 0 to 1"
    return mean, 1 / sd, f"standardised: brain mean {mean:.6g} and standard deviation {sd:.6g} of the run"


def _box(name: str, size: Triple, wanted: Triple | None, fit: str) -> Box:
    if wanted is None or tuple(wanted) == size:
        return Box()
    if fit == "refuse":
        found, expected = ("x".join(map(str, one)) for one in (size, wanted))
        cure = "--grid.fit centre cuts and pads about the centre; --grid.voxel resamples"
        raise InputError("another size than the model sees", where=name, found=found, expected=expected, cure=cure)
    return centred(size, wanted)


def _cut(mask: NDArray[np.bool_], box: Box) -> list[str]:
    lost = int(mask.sum()) - int(box.put(mask, False).sum())
    return [f"{lost:,} of {int(mask.sum()):,} brain voxels were cut off"] if lost else []
