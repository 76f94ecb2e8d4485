"""From what was seen in each frame to persons over time: by a tracker's numbers, or by the nearest mean distance."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipelines.data.errors import InputError
from pipelines.data.formats.pose_source import MOST_NUMBERS, FileUnit, PoseReading, Raw

__all__ = ["Detections", "Seen", "Timeline", "people", "timeline"]

_MOST_IN_A_FRAME = 500
_MOST_FRAMES = 5_000_000
_GAP = 30  # frames for which a person who is not seen is waited for
_GATE = 1.0  # mean distance of the joints of one person from frame to frame, in diagonals of the box around them
_GHOST = 0.05  # of the frames of the person who is seen most
_NAMED = 6


@dataclass(frozen=True, eq=False)
class Seen:
    """The joints (J, D) of one person in one frame, NaN where missing, with scores (J,) and the tracker's number."""

    frame: int
    points: NDArray[np.float64]
    score: NDArray[np.float64] | None = None
    track: int | None = None


@dataclass(frozen=True, eq=False)
class Detections:
    """All that a detector saw in one video.

    Args:
        name: what messages call it.
        frames: numbers of the frames that the file has, with or without people, in any order.
        seen: one a person and frame.
        joints, usual, unit, size, fps: as in `Raw`.
        notes: what was noticed while reading.
    """

    name: str
    frames: Iterable[int]
    seen: Sequence[Seen]
    joints: tuple[str, ...] | None = None
    usual: str | None = None
    unit: FileUnit | None = None
    size: tuple[int, int] | None = None
    fps: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """Frame numbers `start`, `start + step`, ... of `count` frames, of which `missing` are not in the file."""

    start: int
    step: int
    count: int
    missing: int

    def notes(self) -> tuple[str, ...]:
        """What the numbers of the frames became."""
        last = self.start + self.step * (self.count - 1)
        out = [] if self.start in (0, 1) else [f"frames {self.start} to {last} of the file are counted from 0"]
        out += [f"every {self.step}th number of a frame is there: taken for successive ones"] if self.step > 1 else []
        out += [f"{self.missing:,} of {self.count:,} frames are not in the file: missing"] if self.missing else []
        return tuple(out)


def timeline(frames: Iterable[int], where: str) -> Timeline:
    """The frames from the first to the last; what lies between and is not there counts as missing.

    Raises:
        InputError: no frames, or ten times as many gaps as frames.

    Complexity: O(frames log frames).

    Example:
        >>> timeline([3, 1, 2, 5], "a"), timeline([0, 10, 20, 40], "a").step
        (Timeline(start=1, step=1, count=5, missing=1), 10)
    """
    numbers = sorted(set(frames))
    if not numbers:
        raise InputError("no frames", where=where, found="none", expected="1 or more")
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    step = int(np.gcd.reduce([int(one) for one in steps])) if len(numbers) > 3 else 1
    span = numbers[-1] - numbers[0]
    count = span // step + 1
    if count > 10 * len(numbers) + 1000 or count > _MOST_FRAMES:
        found = f"{len(numbers):,} frames, numbered from {numbers[0]} to {numbers[-1]}"
        cure = "put each sequence into a file or folder of its own"
        raise InputError("more gaps than frames", where=where, found=found, expected="numbers that follow", cure=cure)
    return Timeline(numbers[0], step, count, count - len(numbers))


def people(detections: Detections, reading: PoseReading) -> list[Raw]:
    """The persons of a video, or the one that is asked for.

    Numbers of a tracker are kept where every person has one. Without them a person is who lies nearest to where she
    was seen last, all persons of a frame at once (the assignment of least total distance); she may be away for 30
    frames and move by as much as she is large. Persons are then numbered by how often they are seen, and who is seen in
    less than a twentieth of the frames of the first is left out unless asked for.

    Args:
        detections: of one video.
        reading: for `person`.

    Returns:
        one a person, over all frames, with notes.

    Raises:
        InputError: nobody at all, no such person, joints of different numbers, one tracker's number twice in a frame.

    Complexity: O(frames x persons^3) for the matching.

    Example:
        >>> near, far = np.zeros((17, 2)) + [[0.0, 1.0]], np.full((17, 2), 9.0)
        >>> seen = [Seen(0, near), Seen(0, far), Seen(1, far), Seen(1, near)]
        >>> [raw.points[:, 0, 0].tolist() for raw in people(Detections("a", [0, 1], seen), PoseReading())]
        [[0.0, 0.0], [9.0, 9.0]]
    """
    name = detections.name
    time = timeline(detections.frames, name)
    seen = sorted(detections.seen, key=lambda one: one.frame)
    if not seen:
        raise InputError("no person", where=name, found=f"{time.count:,} frames without any", expected="one or more")
    _alike(seen, name)
    tracked = all(one.track is not None for one in seen)
    labels, told = _by_number(seen, name) if tracked else _by_distance(seen, time.step, name)
    if not tracked and any(one.track is not None for one in seen):
        told.append("numbers of the tracker were not used: not every person has one")
    groups: dict[int, list[Seen]] = {}
    for label, one in zip(labels, seen, strict=True):
        groups.setdefault(label, []).append(one)
    chosen, more = _chosen(groups, reading.person, tracked, name)
    notes = (*detections.notes, *time.notes(), *told, *more)
    size = time.count * seen[0].points.size * len(chosen)
    if size > MOST_NUMBERS:
        found, cure = f"{len(chosen):,} persons over {time.count:,} frames", "read one of them: --read.person NUMBER"
        raise InputError("too many joints", where=name, found=found, expected=f"{MOST_NUMBERS:,} numbers", cure=cure)
    return [_raw(detections, groups[label], label, time, notes) for label in chosen]


def _alike(seen: Sequence[Seen], name: str) -> None:
    shapes = {one.points.shape for one in seen}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        found = f"{first[0]} joints of {first[1]} coordinates and {second[0]} of {second[1]}"
        raise InputError("persons with different joints", where=name, found=found, expected="the same for all")


def _by_number(seen: Sequence[Seen], name: str) -> tuple[list[int], list[str]]:
    labels = [one.track for one in seen if one.track is not None]
    pairs: set[tuple[int, int]] = set()
    for one, label in zip(seen, labels, strict=True):
        if (one.frame, label) in pairs:
            found = f"number {label} twice in frame {one.frame}"
            raise InputError("two persons with one number", where=name, found=found, expected="a number for each")
        pairs.add((one.frame, label))
    several = len(set(labels)) > 1
    return labels, ["persons told apart by the numbers of the tracker"] if several else []


@dataclass
class _Track:
    label: int
    frame: int
    points: NDArray[np.float64] = field(repr=False)


def _by_distance(seen: Sequence[Seen], step: int, name: str) -> tuple[list[int], list[str]]:
    frames: dict[int, list[Seen]] = {}
    for one in seen:
        frames.setdefault(one.frame, []).append(one)
    most = max(len(group) for group in frames.values())
    if most > _MOST_IN_A_FRAME:
        raise InputError("too many persons in a frame", where=name, found=f"{most:,}", expected=f"{_MOST_IN_A_FRAME}")
    if most == 1:
        jumps = sum(_distance(before.points, after.points) > _GATE for before, after in itertools.pairwise(seen))
        note = f"the person jumps by more than her size {jumps:,} times: there may be several, one after another"
        return [0] * len(seen), [note] if jumps else []
    tracks: list[_Track] = []
    number, labels = 0, []
    for frame, group in frames.items():
        tracks = [track for track in tracks if frame - track.frame <= _GAP * step]
        for one, track in zip(group, _assigned(tracks, group), strict=True):
            if track is None:
                track = _Track(number, frame, one.points)
                number += 1
                tracks.append(track)
            else:
                # A joint that is missing now stays where it was seen last.
                track.points = np.where(np.isfinite(one.points), one.points, track.points)
                track.frame = frame
            labels.append(track.label)
    order = sorted(range(number), key=lambda label: (-labels.count(label), label)) if number < 2000 else range(number)
    rank = {label: place for place, label in enumerate(order)}
    return [rank[label] for label in labels], ["persons matched from frame to frame by their nearest mean distance"]


def _distance(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Mean distance of the joints that both have, in diagonals of the larger box; NaN where there are none."""
    both = np.asarray(np.isfinite(before).all(-1) & np.isfinite(after).all(-1), np.bool_)
    if not both.any():
        return float("nan")
    with np.errstate(over="ignore"):
        return _share(before, after, both)


def _share(before: NDArray[np.float64], after: NDArray[np.float64], both: NDArray[np.bool_]) -> float:
    boxes = [np.linalg.norm(np.ptp(points[np.isfinite(points).all(-1)], axis=0)) for points in (before, after)]
    size = max(float(boxes[0]), float(boxes[1]), 1e-9)
    return float(np.linalg.norm(before[both] - after[both], axis=-1).mean()) / size


def _assigned(tracks: Sequence[_Track], group: Sequence[Seen]) -> list[_Track | None]:
    """The track of each person of a frame, or None for someone new."""
    out: list[_Track | None] = [None] * len(group)
    if not tracks:
        return out
    cost = np.array([[_distance(track.points, one.points) for one in group] for track in tracks])
    cost = np.where(cost <= _GATE, cost, 1e3)  # NaN, too, is no match
    for row, column in zip(*linear_sum_assignment(cost), strict=True):
        if cost[row, column] <= _GATE:
            out[column] = tracks[row]
    return out


def _chosen(groups: dict[int, list[Seen]], person: int | None, tracked: bool, name: str) -> tuple[list[int], list[str]]:
    """Numbers of the persons to read, and notes of who was left out."""
    labels = sorted(groups)
    listed = ", ".join(f"{label} ({len(groups[label]):,} frames)" for label in labels[:_NAMED])
    listed += f" and {len(labels) - _NAMED:,} more" if len(labels) > _NAMED else ""
    if person is not None:
        if person not in groups:
            raise InputError(f"no person {person}", where=name, found=f"persons {listed}", expected="one of them")
        return [person], [f"person {person} of {listed}"] if len(labels) > 1 else []
    most = max(len(group) for group in groups.values())
    kept = labels if tracked else [label for label in labels if len(groups[label]) >= _GHOST * most]
    notes = [f"{len(labels)} persons: {listed}"] if len(labels) > 1 else []
    if len(kept) < len(labels):
        notes.append(f"{len(labels) - len(kept):,} persons left out, seen in less than a twentieth of {most:,} frames")
    return kept, notes


def _raw(detections: Detections, group: Sequence[Seen], label: int, time: Timeline, notes: tuple[str, ...]) -> Raw:
    """One person over all frames."""
    shape = (time.count, *group[0].points.shape)
    points, scored = np.full(shape, np.nan), any(one.score is not None for one in group)
    score = np.full(shape[:2], np.nan) if scored else None
    for one in group:
        place = (one.frame - time.start) // time.step
        points[place] = one.points
        if score is not None:
            score[place] = 1.0 if one.score is None else one.score
    away = time.count - len(group) - time.missing
    own = (f"not seen in {away:,} of {time.count:,} frames: missing",) if away else ()
    fps = None if detections.fps is None else detections.fps / time.step
    return Raw(
        detections.name,
        points,
        score,
        detections.joints,
        usual=detections.usual,
        unit=detections.unit,
        pixels=True,
        size=detections.size,
        fps=fps,
        person=label,
        notes=(*notes, *own),
    )
