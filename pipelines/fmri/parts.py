"""Which runs are learned from, which choose the epoch, which are measured; whole runs, subjects or families."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_splits import group_of, hold_out, leave_out, read_split, split_notes
from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.fmri.material import Material
    from pipelines.fmri.pipeline import BrainModel

__all__ = ["Parts", "folds_of", "grouping", "groups_of", "parts_of"]

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """Numbers of the runs that are learned from, that choose the epoch, that are measured."""

    train: Indices
    valid: Indices
    test: Indices


def grouping(m: BrainModel, material: Material) -> str:
    """What stays whole: what was asked for, or the subject (with its family) where there are several, else the run."""
    if m.split.by != "auto":
        return m.split.by
    several = len({one.subject for one in material.recordings}) > 1
    return "subject" if several or material.level == "subject" else "run"


def groups_of(m: BrainModel, material: Material) -> list[str]:
    """The group of each run.

    Raises:
        InputError: a run whose group is not known; by run, where several runs of a subject share one label.
    """
    by = grouping(m, material)
    if material.level == "subject" and by in ("run", "session"):
        raise InputError(
            "runs of one subject would lie on both sides",
            where="split.by",
            found=by,
            expected="subject, family or site",
            cure="leave it out",
        )
    kind: Any = by
    return [group_of(one, kind) for one in material.recordings]


def folds_of(m: BrainModel, material: Material) -> tuple[Indices, str]:
    """The fold (R,) in which each run is measured, and a sentence about it."""
    groups = groups_of(m, material)
    found = leave_out(groups, None if m.split.folds == "all" else int(m.split.folds))
    return found, split_notes(groups, found, grouping(m, material))


def parts_of(m: BrainModel, material: Material, test: Indices | None = None) -> tuple[Parts, list[str]]:
    """The three parts, and what to say of them.

    Args:
        m: gives shares, grouping and seed.
        material: the runs.
        test: (K,) runs that are measured, instead of a seeded share or those that a file names.

    Raises:
        InputError: too few groups, or a file that names none of the runs.
    """
    count = len(material.runs)
    part = np.zeros(count, np.int64)
    by = grouping(m, material)
    if m.split.file is not None and test is None:
        part, notes = _named(m, material, Path(m.split.file))
        return Parts(*(np.flatnonzero(part == number) for number in range(3))), notes
    groups = groups_of(m, material)
    notes = []
    if test is not None:
        part[test] = 2
    elif m.split.test > 0:
        held = hold_out(groups, m.split.test, m.seed)
        part[held] = 2
        notes.append(f"to measure: {split_notes(groups, held, by)}")
    rest = np.flatnonzero(part == 0)
    names = [groups[one] for one in rest]
    if m.split.valid > 0 and len(set(names)) > 1:
        held = hold_out(names, m.split.valid, m.seed + 1)
        part[rest[held]] = 1
        notes.append(f"to choose the epoch: {split_notes(names, held, by)}")
    return Parts(*(np.flatnonzero(part == number) for number in range(3))), notes


def _named(m: BrainModel, material: Material, path: Path) -> tuple[Indices, list[str]]:
    """Parts that a file names: subjects by the released form, or a table of names and parts."""
    named: dict[str, int] = {}
    if path.suffix.lower() in (".tsv", ".csv"):
        import csv

        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("the split cannot be read", where=path, found=str(error)[:120]) from error
        places = {"train": 0, "valid": 1, "val": 1, "test": 2}
        for number, row in enumerate(csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ","), 1):
            if len(row) != 2 or (row[1].strip() not in places and number > 1):
                expected = "two columns: a run, subject or group, and train, valid or test"
                raise InputError("not a split", where=f"{path}, line {number}", found=row, expected=expected)
            if row[1].strip() in places:
                named[row[0].strip()] = places[row[1].strip()]
    else:
        for place, part in enumerate(read_split(path).values()):
            named |= dict.fromkeys(part, place)
    groups = groups_of(m, material)
    part = np.full(len(groups), -1, np.int64)
    for number, (recording, group) in enumerate(zip(material.recordings, groups, strict=True)):
        keys = (recording.name, group, recording.subject, f"sub-{recording.subject}")
        part[number] = next((named[key] for key in keys if key in named), -1)
    if (part < 0).all():
        raise InputError("the split names none of these runs", where=path, found=", ".join(list(named)[:5]))
    for group in set(groups):
        parts = {int(one) for one, name in zip(part, groups, strict=True) if name == group and one >= 0}
        if len(parts) > 1:
            raise InputError("the split divides what belongs together", where=path, found=group)
    left = int((part < 0).sum())
    return part, [f"{left} runs that the split does not name are left out"] if left else []
