"""Whatever a user calls scans: a study opened, its runs prepared, and what is to be told of which window."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_grid import GridOptions
from pipelines.data.datasets.brain_labels import blocks, label_notes, subject_targets, volume_labels
from pipelines.data.datasets.brain_prepare import Prepared, check_alike, prepare
from pipelines.data.datasets.brain_study import open_study
from pipelines.data.datasets.brain_types import Recording, Study
from pipelines.data.datasets.brain_windows import BrainWindows
from pipelines.errors import InputError
from pipelines.fmri.options import signal_of

if TYPE_CHECKING:
    from pipelines.fmri.engine import Fitted
    from pipelines.fmri.pipeline import BrainModel

__all__ = ["Material", "Shelf", "identity", "open_source", "prepare_run", "read_material", "window_at"]

Indices = NDArray[np.int64]
SUBJECT_FRAMES = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """Runs, and windows of them with what is to be told.

    Attributes:
        name: of the data.
        study: that the runs are of; it keeps what an archive was unpacked into.
        recordings, runs: of each run where it comes from, and its values.
        kind: classification or regression.
        level: volume or subject.
        target: the column that is told.
        classes: names, empty for numbers.
        frames: volumes of a window.
        run, start: (N,) where each window lies.
        volume: (N,) the volume that a label is of; -1 for labels of subjects.
        label: (N,) class or number.
        unit: (N,) the block or subject that a window is part of.
        unit_names: of the units.
        notes: what was done to the data, counted.
    """

    name: str
    study: Study
    recordings: tuple[Recording, ...]
    runs: tuple[Prepared, ...]
    kind: Literal["classification", "regression"]
    level: Literal["volume", "subject"]
    target: str
    classes: tuple[str, ...]
    frames: int
    run: Indices
    start: Indices
    volume: Indices
    label: NDArray[Any]
    unit: Indices
    unit_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def of_runs(self, chosen: Indices) -> Indices:
        """The windows (M,) of some runs, in order."""
        return np.flatnonzero(np.isin(self.run, chosen))


class Shelf:
    """Windows of prepared runs; runs are kept in memory, standardised, as long as that is small.

    Args:
        runs: the runs.
        memory: bytes that may be kept in all; runs beyond it are read from their files each time.
    """

    def __init__(self, runs: Sequence[Prepared], memory: int) -> None:
        self.runs, self._kept, left = runs, dict[int, NDArray[np.float32]](), memory
        self._may: set[int] = set()
        for number, run in enumerate(runs):
            size = 4 * int(np.prod(run.grid)) * run.volumes
            if size <= left:
                left -= size
                self._may.add(number)

    def __len__(self) -> int:
        return len(self.runs)

    def windows(self, run: Sequence[int], start: Sequence[int], frames: int) -> NDArray[np.float32]:
        """Windows (B, 1, X, Y, Z, frames) by run and first volume."""
        return np.stack([self._window(r, s, frames) for r, s in zip(run, start, strict=True)])[:, None]

    def _window(self, run: int, start: int, frames: int) -> NDArray[np.float32]:
        if run not in self._may:
            return self.runs[run].window(start, frames)
        if run not in self._kept:
            self._kept[run] = self.runs[run].window(0, self.runs[run].volumes)
        return self._kept[run][..., start : start + frames]


def identity(run: Prepared) -> int:
    """A number for the scan itself, whatever its name, place and preparation: of its size and three of its volumes."""
    scan = run.scan
    found = hashlib.sha256(repr(scan.shape).encode())
    for volume in sorted({0, scan.shape[3] // 2, scan.shape[3] - 1}):
        found.update(np.ascontiguousarray(scan.frames(volume, volume + 1)).tobytes())
    return int.from_bytes(found.digest()[:8], "little", signed=True)


def window_at(volume: int, frames: int, volumes: int) -> int:
    """First volume of the window about a volume: in its middle, or at its edge where the run ends.

    Example:
        >>> [window_at(volume, 3, 10) for volume in (0, 5, 9)]
        [0, 4, 7]
    """
    return min(max(volume - (frames - 1) // 2, 0), volumes - frames)


def open_source(m: BrainModel, data: Any) -> Study:
    """The study behind a path, a name of the catalogue, images or arrays.

    Raises:
        InputError: nothing that is understood.
    """
    from pipelines.data.catalog import entry, is_name, sample_path

    if isinstance(data, Study):
        return data
    if isinstance(data, (list, tuple)) and data:
        if len(data) == 1:
            return open_source(m, data[0])
        if any(isinstance(one, (str, Path)) and (Path(one).is_dir() or is_name(one, "fmri")) for one in data):
            return _joined([open_source(m, one) for one in data])
    if isinstance(data, str) and not Path(data).exists() and is_name(data, "fmri"):
        found = entry(data, "fmri")
        study = open_study(sample_path(found), m.study, limit_gb=m.limit_gb)
        told = tuple(note for note in study.notes if "was unpacked" not in note)
        return dataclasses.replace(study, name=found.name, notes=told)
    return open_study(data, m.study, limit_gb=m.limit_gb)


def _joined(studies: Sequence[Study]) -> Study:
    """Several studies as one; runs of the same name bear that of their study too."""
    count = Counter(run.name for study in studies for run in study.recordings)
    runs = tuple(
        dataclasses.replace(run, name=f"{study.name}/{run.name}") if count[run.name] > 1 else run
        for study in studies
        for run in study.recordings
    )
    people = {subject: row for study in studies for subject, row in study.people.items()}
    notes = tuple(f"{study.name}: {note}" for study in studies for note in study.notes)
    return Study(f"{len(studies)} studies", "folder", runs, people, notes, keep=[study.keep for study in studies])


def prepare_run(m: BrainModel, recording: Recording, *, volumes: bool) -> Prepared:
    """Open a run and gather its statistics, as the options say.

    Raises:
        InputError: a run that cannot be read or does not fit the model.
    """
    fitted: Fitted | None = m.state if m.is_fitted else None
    grid = m.grid if fitted is None else dataclasses.replace(m.grid, size=fitted.grid)
    signal = signal_of(m.signal, volumes=volumes)
    try:
        run = prepare(recording, signal, cast(GridOptions, grid), tr=m.tr, limit_gb=m.limit_gb)
    except InputError as error:
        if error.where != recording.name or not isinstance(recording.source, Path):
            raise
        raise InputError(  # the file says more than the name of the run
            error.problem, where=recording.source, found=error.found, expected=error.expected, cure=error.cure
        ) from error
    if fitted is not None:
        try:
            _check_like_training(fitted, run)
        except BaseException:
            run.close()
            raise
    return run


def _check_like_training(fitted: Fitted, run: Prepared) -> None:
    """Refuse a run that differs from those that the model was trained on in what would change its meaning unsaid."""
    known, found = fitted.tr, run.tr
    if known is not None and found is not None and abs(known - found) > 1e-3:
        raise InputError(
            "another repetition time than the model was trained with",
            where=run.name,
            found=f"{found:g} s",
            expected=f"{known:g} s",
            cure=f"--grid.tr {known:g} resamples it in time",
        )
    if fitted.voxel is not None and run.placed:
        size = np.sqrt((run.affine[:3, :3] ** 2).sum(0))
        if np.abs(size - np.array(fitted.voxel)).max() > 1e-2:
            cure = "resample it (--grid.voxel for cubes), or fit a model on such scans"
            named = [" x ".join(f"{edge:.4g}" for edge in edges) + " mm" for edges in (size, fitted.voxel)]
            raise InputError(
                "other voxels than the model was trained with",
                where=run.name,
                found=named[0],
                expected=named[1],
                cure=cure,
            )


def read_material(m: BrainModel, data: Any) -> Material:
    """The runs and labels of what ``fit`` and ``evaluate`` take.

    Raises:
        InputError: no runs, runs that do not go together, or nothing that tells what is to be learned.
    """
    if isinstance(data, Material):
        return data
    study = open_source(m, data)
    return _of_subjects(m, study) if m.target.column else _of_volumes(m, study)


def _prepared(
    m: BrainModel, recordings: Sequence[Recording], *, volumes: bool
) -> tuple[tuple[Prepared, ...], list[str]]:
    track = m.run.progress
    each = recordings if track is None else track.track(recordings, label="runs prepared")
    runs: list[Prepared] = []
    try:
        for recording in each:
            runs.append(prepare_run(m, recording, volumes=volumes))
        alike = check_alike(runs)
    except BaseException:
        for run in runs:
            run.close()
        raise
    return tuple(runs), [*common_notes(runs), *alike]


def common_notes(runs: Sequence[Prepared]) -> list[str]:
    """Notes of runs, those that all share said once, others with the name of the run."""
    if not runs:
        return []
    shared = [note for note in runs[0].notes if all(note in run.notes for run in runs)]
    own = [f"{run.name}: {note}" for run in runs for note in run.notes if note not in shared]
    many = 12
    more = [f"and {len(own) - many:,} more notes on single runs"] if len(own) > many else []
    return [*(f"each run: {note}" if len(runs) > 1 else note for note in shared), *own[:many], *more]


def _of_volumes(m: BrainModel, study: Study) -> Material:
    """The category of each volume that has one."""
    shown = [one for one in study.recordings if one.events is not None and len(one.events)]
    if not shown:
        people = sorted({name for row in study.people.values() for name in row})
        known = f"; columns of the table of people: {', '.join(people)}" if people else ""
        raise InputError(
            "nothing says what is to be told from these scans",
            where=study.name,
            found=f"{len(study.recordings)} runs without events{known}",
            expected="a table of events beside each run (onset, duration, trial_type)",
            cure="or name a column of the table of people: --target.column sex",
        )
    notes = list(study.notes)
    if len(shown) < len(study.recordings):
        notes.append(f"{len(study.recordings) - len(shown)} of {len(study.recordings)} runs have no events: left out")
    runs, told = _prepared(m, shown, volumes=True)
    notes += told
    every: list[list[str | None]] = []
    for recording, run in zip(shown, runs, strict=True):
        events, tr = recording.events, run.tr
        if events is None or tr is None:
            raise InputError(
                "the time of the volumes is not known", where=run.name, found="no repetition time", cure="give --tr"
            )
        every.append(volume_labels(events, run.volumes, tr, delay=m.target.delay))
        notes += label_notes(events, run.volumes, tr, delay=m.target.delay)
    return _labelled(m, study, shown, runs, every, notes)


def _labelled(
    m: BrainModel,
    study: Study,
    shown: Sequence[Recording],
    runs: tuple[Prepared, ...],
    every: list[list[str | None]],
    notes: list[str],
) -> Material:
    names = {name for labels in every for name in labels if name is not None}
    unknown = [name for name in m.target.only if name not in names]
    if unknown:
        expected = ", ".join(sorted(names))
        raise InputError("no such category", where="target.only", found=", ".join(unknown), expected=expected)
    wanted = set(m.target.only) or names - set(m.target.leave_out)
    classes = m.state.classes if m.is_fitted else tuple(sorted(wanted))
    strange = sorted(wanted - set(classes))
    if strange:
        raise InputError(
            "categories that the model was not trained on", where=study.name, found=", ".join(strange),
            expected=", ".join(classes), cure="leave them out: --target.only, or fit a model",
        )  # fmt: skip
    if len(classes) < 2:
        cure = "give events of two categories"
        raise InputError("one category alone", where=study.name, found=", ".join(classes) or "none", cure=cure)
    frames = m.state.frames if m.is_fitted else (m.window.frames or 1)
    run, start, volume, label, unit = [], [], [], [], []
    unit_names: list[str] = []
    for number, labels in enumerate(every):
        if runs[number].volumes < frames:
            raise _short(runs[number], frames)
        kept = [name if name in wanted else None for name in labels]
        block = blocks(kept)
        for place, name in enumerate(kept):
            if name is None:
                continue
            run.append(number)
            volume.append(place)
            start.append(window_at(place, frames, runs[number].volumes))
            label.append(classes.index(name))
            unit.append(len(unit_names) + int(block[place]))
        count = int(block.max()) + 1 if len(block) else 0
        kinds = [kept[int(np.flatnonzero(block == one)[0])] for one in range(count)]
        unit_names += [f"{runs[number].name} block {one + 1} ({kind})" for one, kind in enumerate(kinds)]
    total = sum(one.volumes for one in runs)
    notes.append(f"{len(label):,} of {total:,} volumes have a category: {len(classes)} categories")
    if frames > 1:
        edge = sum(s != v - (frames - 1) // 2 for s, v in zip(start, volume, strict=True))
        notes.append(f"windows of {frames} volumes about each; {edge} at the edge of a run are not centred")
    arrays = [np.array(one, np.int64) for one in (run, start, volume, label, unit)]
    return Material(
        study.name, study, tuple(shown), runs, "classification", "volume", m.study.column, classes, frames,
        arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], tuple(unit_names), tuple(notes),
    )  # fmt: skip


def _short(run: Prepared, frames: int) -> InputError:
    cure = "a smaller --window.frames"
    return InputError(
        "a run shorter than a window", where=run.name, found=f"{run.volumes} volumes", expected=f"{frames}", cure=cure
    )


def _of_subjects(m: BrainModel, study: Study) -> Material:
    """A column of the table of people for every window of a subject's runs."""
    asked = m.target.column or ""
    kind: Any = m.state.kind if m.is_fitted and m.target.kind == "auto" else m.target.kind
    targets = subject_targets(study, asked, kind, missing=m.target.missing)
    classes = m.state.classes if m.is_fitted else targets.classes
    strange = sorted(set(targets.classes) - set(classes))
    if strange:
        expected = ", ".join(classes)
        raise InputError("labels that the model was not trained on", where=study.name, found=", ".join(strange),
                         expected=expected)  # fmt: skip
    recordings = [one for one in study.recordings if targets.of(one.subject) is not None]
    runs, told = _prepared(m, recordings, volumes=False)
    frames = m.state.frames if m.is_fitted else (m.window.frames or SUBJECT_FRAMES)
    windows = BrainWindows(runs, frames, m.window.stride)
    subjects = list(dict.fromkeys(one.subject for one in recordings))
    values = [targets.of(recordings[run].subject) for run, _ in windows.places]
    if targets.kind == "classification":
        label = np.array([classes.index(targets.classes[int(v or 0)]) for v in values], np.int64)
    else:
        label = np.array(values, np.float64)
    run, start = (np.array(one, np.int64) for one in zip(*windows.places, strict=True))
    unit = np.array([subjects.index(recordings[one].subject) for one in run], np.int64)
    notes = (*study.notes, *targets.notes, *told, *windows.notes)
    return Material(
        study.name, study, tuple(recordings), runs, targets.kind, "subject", targets.column, classes, frames,
        run, start, np.full(len(run), -1, np.int64), label, unit, tuple(f"sub-{one}" for one in subjects), notes,
    )  # fmt: skip
