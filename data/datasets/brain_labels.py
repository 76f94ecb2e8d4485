"""What is to be told from a scan: the category of each volume, or a value of each subject."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_types import Events, Study
from pipelines.data.datasets.brain_walk import natural, shown
from pipelines.data.errors import InputError

__all__ = ["Targets", "blocks", "label_notes", "subject_targets", "volume_labels"]

#: Rounding of times in s: far below any TR, far above the error of sums of them.
_SLACK = 1e-6
_MOST_CLASSES = 10


def volume_labels(events: Events, volumes: int, tr: float, *, delay: float = 0.0) -> list[str | None]:
    """What was shown at each volume: the event in which the middle of its acquisition lies.

    Volume i is recorded from i tr to (i + 1) tr; its label is that of the event with
    onset <= (i + 1/2) tr - delay < onset + duration.

    Args:
        events: of the run, with durations.
        volumes: T of the run.
        tr: s from one volume to the next.
        delay: s by which the blood's answer follows what is shown (4 to 6 in a brain; 0: as the table says).

    Returns:
        T names; None where nothing was shown. An event shorter than a TR may name no volume: :func:`label_notes`
        counts those.

    Raises:
        InputError: events that begin after the scan's end, that overlap or have no duration; no volumes, a TR that
            is not positive.

    Complexity: O(E + T).

    Example:
        >>> shown = Events(np.array([2.0, 6.0]), np.array([4.0, 2.0]), ("face", "house"))
        >>> volume_labels(shown, 5, 2.0)
        [None, 'face', 'face', 'house', None]
    """
    _check_scan(events, volumes, tr, delay)
    if not len(events):
        return [None] * volumes
    _check_events(events, volumes, tr)
    middle = _middles(volumes, tr, delay)
    place = np.searchsorted(events.onset, middle, side="right") - 1
    inside = place >= 0
    inside[inside] = middle[inside] < (events.onset + events.duration)[place[inside]]
    return [events.kind[one] if there else None for one, there in zip(place, inside, strict=True)]


def label_notes(events: Events, volumes: int, tr: float, *, delay: float = 0.0) -> tuple[str, ...]:
    """What to say about the labels of a run: events without a volume and events that the scan's end cuts.

    Args:
        events, volumes, tr, delay: as for :func:`volume_labels`.

    Complexity: O(E log T).

    Example:
        >>> label_notes(Events(np.array([0.1]), np.array([0.2]), ("tone",)), 5, 2.0)
        ('the events: 1 of 1 events name no volume: the middle of none lies in them',)
    """
    middle = _middles(volumes, tr, delay)
    ends = events.onset + np.nan_to_num(events.duration)
    held = np.searchsorted(middle, ends, side="left") - np.searchsorted(middle, events.onset, side="left")
    notes: list[str] = []
    silent, cut = int((held <= 0).sum()), int((ends > volumes * tr + _SLACK).sum())
    if silent:
        why = "the middle of none lies in them"
        notes.append(f"{events.name}: {silent:,} of {len(events):,} events name no volume: {why}")
    if cut:
        notes.append(f"{events.name}: {cut:,} of {len(events):,} events go on after the scan's end")
    return tuple(notes)


def _middles(volumes: int, tr: float, delay: float) -> NDArray[np.float64]:
    return (np.arange(volumes, dtype=np.float64) + 0.5) * tr - delay + _SLACK


def _check_scan(events: Events, volumes: int, tr: float, delay: float) -> None:
    if isinstance(volumes, bool) or volumes < 1 or not (math.isfinite(tr) and tr > 0) or not math.isfinite(delay):
        found = f"{volumes} volumes, a TR of {tr:g} s, a delay of {delay:g} s"
        cure = "give the TR in s" if not tr > 0 else None
        raise InputError("no time of the volumes", where=events.name, found=found, expected="positive", cure=cure)


def _check_events(events: Events, volumes: int, tr: float) -> None:
    end = volumes * tr
    late = np.flatnonzero(events.onset >= end - _SLACK)
    if len(late):
        raise InputError(
            "events beyond the scan",
            where=events.name,
            found=f"{len(late):,} of {len(events):,} events begin after its end, the last at {events.onset[-1]:g} s",
            expected=f"onsets before {end:g} s ({volumes:,} volumes of {tr:g} s)",
            cure="check the TR and that table and scan are of the same run; onsets are in s, not in volumes or ms",
        )
    unknown = int(np.isnan(events.duration).sum())
    if unknown or not events.duration.any():
        found = f"{unknown:,} of {len(events):,} durations n/a" if unknown else "all durations are 0"
        cure = "give the durations in the table of events"
        raise InputError("events without duration cannot label volumes", where=events.name, found=found, cure=cure)
    ends = events.onset + events.duration
    over = np.flatnonzero(events.onset[1:] < ends[:-1] - _SLACK)
    if len(over):
        first = int(over[0])
        raise InputError(
            "events overlap: a volume would have two labels",
            where=events.name,
            found=f"{events.kind[first]} until {ends[first]:g} s, {events.kind[first + 1]} from "
            f"{events.onset[first + 1]:g} s; {len(over):,} such pairs",
            cure="name a column whose events do not overlap, or leave rows out",
        )


def blocks(labels: Sequence[str | None]) -> NDArray[np.int64]:
    """The number of the run of equal labels that each volume belongs to; -1 where it has none.

    Args:
        labels: T names, as of :func:`volume_labels`.

    Returns:
        (T,) numbers from 0 in the order of time.

    Complexity: O(T).

    Example:
        >>> blocks(["face", "face", None, "face", "house"]).tolist()
        [0, 0, -1, 1, 2]
    """
    numbers = np.full(len(labels), -1, np.int64)
    count, before = -1, None
    for place, label in enumerate(labels):
        if label is not None:
            count += label != before
            numbers[place] = count
        before = label
    return numbers


@dataclass(frozen=True, eq=False)
class Targets:
    """What is to be told of each subject.

    Args:
        column: of the table of people.
        kind: `classification` or `regression`.
        classes: the K names, sorted; empty for a regression.
        subjects: the N subjects with a run and a value, in natural order.
        values: (N,) numbers of classes (int64) or values (float64).
        dropped: subjects with a run but without a value, left out.
        notes: what was assumed and left out.

    Example:
        >>> Targets("sex", "classification", ("F", "M"), ("01",), np.array([1])).of("01")
        1
    """

    column: str
    kind: Literal["classification", "regression"]
    classes: tuple[str, ...]
    subjects: tuple[str, ...]
    values: NDArray[np.int64] | NDArray[np.float64]
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, subject: str) -> int | float | None:
        """The value of a subject; None where it has none."""
        place = self._places.get(subject)
        return None if place is None else self.values[place].item()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {subject: place for place, subject in enumerate(self.subjects)}


def subject_targets(
    study: Study,
    column: str,
    kind: Literal["auto", "classification", "regression"] = "auto",
    *,
    missing: Literal["refuse", "drop"] = "refuse",
) -> Targets:
    """The value of a column of the table of people for each subject that has a run.

    `auto` takes numbers with more than ten different values, or with fractions, for a regression, and everything else
    for classes.

    Args:
        study: with people.
        column: its name; another case is accepted where only one column has it.
        kind: what is to be told.
        missing: whether a subject without a value, or a value without a run, is refused or left out and counted.

    Raises:
        InputError: no table, no such column, runs of unknown subjects; subjects without a value or values without a
            run where these are refused; no numbers for a regression; fewer than two classes or different values.

    Complexity: O(N log N).

    Example:
        >>> from pipelines.data.datasets.brain_types import Recording
        >>> runs = tuple(Recording(f"sub-{one}", None, one) for one in ("01", "02"))
        >>> subject_targets(Study("s", "bids", runs, {"01": {"sex": "F"}, "02": {"sex": "M"}}), "sex").classes
        ('F', 'M')
    """
    if kind not in ("auto", "classification", "regression") or missing not in ("refuse", "drop"):
        expected = "auto, classification, regression; refuse, drop"
        raise InputError("no such choice", where="target", found=f"{kind}, {missing}", expected=expected)
    name = _column(study, column)
    nameless = [one.name for one in study.recordings if not one.subject]
    if nameless:
        cure = "name the files by BIDS (sub-01_...)"
        raise InputError("runs of unknown subjects", where=study.name, found=shown(nameless), cure=cure)
    cells = {subject: row.get(name, "") for subject, row in study.people.items()}
    here = sorted(study.subjects, key=natural)
    known = set(here)
    bare = tuple(one for one in here if not cells.get(one))
    extra = sorted((one for one, cell in cells.items() if cell and one not in known), key=natural)
    lacking = [f"{len(bare):,} subjects without a value of {name} ({shown(bare)})"] if bare else []
    lacking += [f"{len(extra):,} subjects of the table without a run ({shown(extra)})"] if extra else []
    chosen = tuple(one for one in here if cells.get(one))
    if (lacking and missing == "refuse") or not chosen:
        cure = "complete the table, or leave them out: --target.missing drop" if chosen else "check the subjects' names"
        found = "; ".join(lacking) or "no subject"
        raise InputError("subjects and values do not match", where=study.name, found=found, cure=cure)
    texts = [cells[one] for one in chosen]
    notes = [f"{one}, left out" for one in lacking]
    numbers = _numbers(texts)
    found_kind = kind
    if found_kind == "auto":
        found_kind = "regression" if _continuous(numbers) else "classification"
        notes.append(f"{name} is taken for a {found_kind}: {len(set(texts)):,} different values")
    if found_kind == "regression":
        values = _regression(study, name, texts, numbers)
        return Targets(name, "regression", (), chosen, values, bare, tuple(notes))
    classes = _classes(study, name, texts)
    places = np.array([classes.index(text) for text in texts], np.int64)
    return Targets(name, "classification", classes, chosen, places, bare, tuple(notes))


def _column(study: Study, column: str) -> str:
    columns = list(dict.fromkeys(name for row in study.people.values() for name in row))
    alike = [one for one in columns if one.casefold() == column.casefold()]
    if column in columns:
        return column
    if len(alike) == 1:
        return alike[0]
    raise InputError(
        f"no column {column!r}" if columns else "no table of people",
        where=study.name,
        found=shown(columns) if columns else "no participants.tsv and no table at the layout's place",
        cure="name one of them" if columns else "name the table: --study.table FILE",
    )


def _numbers(texts: Sequence[str]) -> NDArray[np.float64] | None:
    try:
        values = np.array([float(text) for text in texts], np.float64)
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _continuous(numbers: NDArray[np.float64] | None) -> bool:
    if numbers is None:
        return False
    return bool((numbers != np.round(numbers)).any()) or len(np.unique(numbers)) > _MOST_CLASSES


def _regression(
    study: Study, name: str, texts: Sequence[str], numbers: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if numbers is None:
        wrong = [text for text in texts if _numbers([text]) is None]
        found = f"{len(wrong):,} values are no finite numbers ({shown(wrong)})"
        raise InputError(f"{name} is no number", where=study.name, found=found, cure="--target.kind classification")
    if len(np.unique(numbers)) < 2 and len(numbers) > 1:
        raise InputError(f"{name} is the same for all subjects", where=study.name, found=f"{numbers[0]:g}")
    return numbers


def _classes(study: Study, name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Sorted by value where all are numbers, so that 2 stands before 10."""
    numbers = _numbers(texts)
    keys = {text: (0.0 if numbers is None else numbers[place], text) for place, text in enumerate(texts)}
    classes: tuple[str, ...] = tuple(sorted(keys, key=lambda text: keys[text]))
    if len(classes) < 2:
        found = f"{texts[0]!r} for all {len(texts):,} subjects"
        raise InputError(f"{name} has one class only", where=study.name, found=found, expected="two or more")
    if len(classes) == len(texts) and len(texts) > 2:
        found = f"{len(classes):,} classes for {len(texts):,} subjects"
        cure = "--target.kind regression, or another column"
        raise InputError(f"every subject has its own class of {name}", where=study.name, found=found, cure=cure)
    return classes
