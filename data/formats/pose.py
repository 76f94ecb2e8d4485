"""Clips out of the joints of a file: whose joints they are, which are missing, in which unit; all of it said."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipelines.data.datasets.pose_skeletons import side_jumps, skeleton, swapped_sides, upside_down
from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.pose_joints import fitted
from pipelines.data.formats.pose_source import MOST_NUMBERS, FileUnit, PoseReading, Raw
from pipelines.data.formats.pose_units import placed, unit_of

__all__ = ["PoseReading", "Raw", "finish", "remarked"]


def finish(raws: Sequence[Raw], reading: PoseReading) -> list[Clip]:
    """Clips of the persons of one file; the unit is decided for all of them at once.

    Args:
        raws: persons of one file.
        reading: what the caller says.

    Returns:
        a clip for each, in px, normalised or m; what was decided, converted or missing is in their notes.

    Raises:
        InputError: no frames; joints of no or of several skeletons; a unit or axes that cannot be told; no joint at
            all.

    Complexity: O(T J) a person.

    Example:
        >>> points = np.random.default_rng(0).uniform(100, 400, (4, 25, 2))
        >>> clip, = finish([Raw("a", points)], PoseReading(size=(640, 480)))
        >>> clip.skeleton.name, clip.unit, clip.notes[0]
        ('body25', 'px', '25 joints: taken for body25, the only skeleton of so many')
    """
    if not raws:
        return []
    if sum(raw.points.size for raw in raws) > MOST_NUMBERS:
        found = f"{sum(raw.points.size for raw in raws):,} numbers"
        cure = "read one person, or split the file"
        raise InputError("too many joints", where=raws[0].name, found=found, expected=f"{MOST_NUMBERS:,}", cure=cure)
    raws = _asked(raws, reading.person)
    made = [_known(_scored(raw, reading), reading) for raw in raws]
    dims = sorted({raw.points.shape[2] for raw, _ in made})
    if len(dims) > 1:
        found = f"joints of {dims[0]} and of {dims[1]} coordinates"
        raise InputError("2-D and 3-D joints in one file", where=raws[0].name, found=found, expected="one of them")
    unit, told = unit_of([raw for raw, _ in made], reading)
    return [_clip(raw, tree, unit, told, reading) for raw, tree in made]


def _asked(raws: Sequence[Raw], person: int | None) -> Sequence[Raw]:
    """The person that is asked for, or all."""
    chosen = [raw for raw in raws if person in (None, raw.person)]
    if not chosen:
        found = "persons " + ", ".join(str(raw.person) for raw in raws[:12])
        raise InputError(f"no person {person}", where=raws[0].name, found=found, expected="one of them")
    return chosen


def _scored(raw: Raw, reading: PoseReading) -> Raw:
    """The third number of a joint as its confidence, where it can be nothing else."""
    metric = raw.unit in ("m", "cm", "mm") or reading.unit in ("m", "cm", "mm")
    if raw.points.ndim != 3 or raw.points.shape[2] != 3 or not raw.points.size or raw.score is not None or metric:
        return raw
    finite = np.isfinite(raw.points)
    third = raw.points[..., 2]
    sure = third[finite[..., 2]]
    wide = np.abs(raw.points[..., :2][finite[..., :2]]).max(initial=0.0)
    pixels = wide > 20 or reading.unit != "auto" or raw.unit is not None
    if not sure.size or sure.min() < 0 or sure.max() > 1 or not pixels:
        return raw
    note = "the third number of each joint, between 0 and 1, was taken for its confidence"
    points = raw.points[..., :2].copy()
    return dataclasses.replace(raw, points=points, score=third.copy(), notes=(*raw.notes, note))


def _known(raw: Raw, reading: PoseReading) -> tuple[Raw, Skeleton]:
    """Numbers whose joints have a skeleton, and in which every joint that is not there is NaN."""
    shape = raw.points.shape
    if len(shape) != 3 or shape[2] not in (2, 3) or not shape[1]:
        expected = "(frames, joints, 2 or 3)"
        raise InputError("not the joints of a person over time", where=raw.name, found=shape, expected=expected)
    if not shape[0]:
        raise InputError("no frames", where=raw.name, found=f"0 frames of {shape[1]} joints", expected="1 or more")
    tree, order, told = fitted(raw, reading)
    points, score, notes = raw.points.copy(), raw.score, [*raw.notes, *told]
    if order is not None:
        absent = np.array(order) < 0
        points = points[:, order]
        points[:, absent] = np.nan
        score = None if score is None else np.where(absent, np.nan, score[:, order])
    with np.errstate(over="ignore"):
        there = np.isfinite(points.astype(np.float32)).all(-1)
    if score is not None:
        low = there & ~(score > reading.score)
        there &= ~low
        if low.any():
            notes.append(f"{int(low.sum()):,} joints with a confidence of {reading.score:g} or less are missing")
    points[~there] = np.nan
    return dataclasses.replace(raw, points=points, score=score, notes=tuple(notes)), tree


def _clip(raw: Raw, tree: Skeleton, unit: FileUnit, told: Sequence[str], reading: PoseReading) -> Clip:
    """A clip of numbers whose unit and skeleton are known."""
    points, notes = raw.points, [*raw.notes, *told]
    if unit == "px" and raw.zeros and raw.score is None:
        corner = (points == 0).all(-1)
        if corner.any():
            notes.append(f"{int(corner.sum()):,} joints at exactly (0, 0) px were taken for missing ones")
            points = np.where(corner[..., None], np.nan, points)
    if not np.isfinite(points).all(-1).any():
        found = f"{len(points):,} frames, every joint missing"
        raise InputError("no joint of a person", where=raw.name, found=found, expected="one or more")
    score = raw.score
    if score is not None:
        over = int((score > 1).sum())
        notes += [f"{over:,} confidences over 1 were set to 1"] if over else []
        score = np.clip(np.nan_to_num(score), 0, 1).astype(np.float32)
    if raw.fps is not None and reading.fps is not None and abs(raw.fps - reading.fps) > 1e-3 * raw.fps:
        notes.append(f"{reading.fps:g} Hz as was said; the file says {raw.fps:g} Hz")
    made = placed(points, unit, raw, tree, reading)
    clip = Clip.of(
        raw.name,
        made.points,
        tree,
        fps=reading.fps or raw.fps,
        unit=made.unit,
        frame=made.frame,
        size=raw.size or reading.size,
        confidence=score,
        person=raw.person,
        subject=raw.subject,
        action=raw.action,
        notes=(*notes, *made.notes),
    )
    clip = clip.but(notes=tuple(dict.fromkeys(clip.notes)))  # those of a file that was written from clips
    if reading.mapping is None:
        return clip
    from pipelines.data.datasets.pose_mocap import map_joints, read_mapping

    return map_joints(clip, read_mapping(reading.mapping), skeleton("h36m17"))


def remarked(clip: Clip) -> Clip:
    """The clip with notes of what looks wrong about it: a person upside down, or with left and right exchanged.

    Nothing is turned round: a person may stand on the hands.

    Complexity: O(T J).

    Example:
        >>> points = np.zeros((1, 17, 2))
        >>> points[0, [11, 14], 1], points[0, [1, 4], 0] = 0.5, [-0.1, 0.1]
        >>> remarked(Clip.of("a", points, skeleton("h36m17"), unit="normalised", frame="image")).notes[0]
        'the person stands on the head: if y points up in this file, read it with up=y'
    """
    notes: list[str] = []
    if upside_down(clip):
        cure = "if y points up in this file, read it with up=y" if clip.dims == 2 else "check which axis points up"
        notes.append(f"the person stands on the head: {cure}")
    if swapped_sides(clip):
        notes.append("left and right seem to be exchanged, or the picture mirrored, judged by the body")
    jumps = side_jumps(clip)
    if jumps:
        times = "once" if jumps == 1 else f"{jumps:,} times"
        notes.append(f"left and right change places from one frame to the next {times}")
    fresh = [note for note in notes if note not in clip.notes]
    return clip.but(*fresh) if fresh else clip
