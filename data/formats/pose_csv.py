"""Joints in tables: a row for each joint and frame, or a row for each frame with columns of each joint."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip, Frame
from pipelines.data.errors import InputError
from pipelines.data.formats.decoding import decoded
from pipelines.data.formats.document_bytes import stored_bytes
from pipelines.data.formats.pose import finish
from pipelines.data.formats.pose_people import timeline
from pipelines.data.formats.pose_source import MOST_NUMBERS, FileUnit, PoseReading, Raw, rate_of, whole

__all__ = ["read_csv"]

_LIMIT_MB = 512.0
_LAYOUT = (
    "columns frame, joint, x, y [z] [score] [person], a row a joint; or a row a frame with columns NAME_x, NAME_y "
    "[NAME_z] [NAME_score] of each joint"
)
#: What a column may be called -> what it is.
_ROLES: Mapping[str, str] = {
    **dict.fromkeys(("frame", "frame_id", "frame_index", "frame_number", "image_id"), "frame"),
    **dict.fromkeys(("joint", "keypoint", "landmark", "bodypart", "body_part", "name"), "joint"),
    **dict.fromkeys(("score", "confidence", "conf", "likelihood", "visibility", "c"), "score"),
    **dict.fromkeys(("person", "person_id", "track", "track_id", "individual", "id"), "person"),
    **dict.fromkeys(("clip", "video", "file"), "clip"),
    **dict.fromkeys(("time_s", "time", "seconds", "timestamp"), "time"),
    **{name: name for name in ("x", "y", "z", "unit", "axes", "fps", "skeleton", "subject", "action")},
    **{name: name for name in ("root_x", "root_y", "root_z", "size_w", "size_h")},
}
_ENDS = {"score": "score", "confidence": "score", "conf": "score", "c": "score", "likelihood": "score", "v": "score"}
_ENDS |= {"visibility": "score", "x": "x", "y": "y", "z": "z"}
_WIDE = re.compile(rf"^(.+?)[_. ]({'|'.join(_ENDS)})$", re.IGNORECASE)
_COUNTED = re.compile(r"^(x|y|z|c|v|score|conf)_?(\d{1,4})$", re.IGNORECASE)
_KEPT = ("unit", "axes", "fps", "skeleton", "subject", "action", "size_w", "size_h")
_Key = tuple[str, str]


@dataclasses.dataclass
class _Group:
    """The rows of one person of one clip."""

    line: int
    frames: list[int] = dataclasses.field(default_factory=list)
    joints: list[str] = dataclasses.field(default_factory=list)
    numbers: list[tuple[float, ...]] = dataclasses.field(default_factory=list)
    times: dict[int, float] = dataclasses.field(default_factory=dict)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)


def read_csv(path: str | os.PathLike[str], reading: PoseReading | None = None) -> list[Clip]:
    """Read joints out of a table with a head, separated by commas, semicolons or tabs.

    Args:
        path: the file; a cell without a number is a missing joint.
        reading: what the file does not say.

    Returns:
        a clip a clip and person of the table; frames that it leaves out are missing.

    Raises:
        InputError: no such columns, a cell that is no number, a joint twice in a frame; see `finish`.

    Complexity: O(cells).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.csv")
        ...     rows = [f"{frame},{joint},{300 + joint},{200 + frame}" for frame in (0, 1) for joint in range(25)]
        ...     _ = file.write_text("\\n".join(["frame,joint,x,y", *rows]))
        ...     clip, = read_csv(file)
        >>> clip.points[1, 24].tolist()
        [324.0, 201.0]
    """
    path, reading = pathlib.Path(path), reading or PoseReading()
    notes: list[str] = []
    expected = "a text table"
    text = decoded(stored_bytes(path, _LIMIT_MB), path.name, notes, problem="not a text table", expected=expected)
    rows = _rows(text, path.name)
    line, head = next(rows, (1, []))
    roles = {place: _ROLES.get(cell.strip().lower().replace(" ", "_")) for place, cell in enumerate(head)}
    if {"joint", "x", "y"} <= set(roles.values()):
        groups = _long(rows, head, roles, path.name, notes)
    else:
        groups = _wide(rows, head, roles, path.name, notes)
    if not groups:
        raise InputError("no rows", where=path.name, found=f"a head in line {line}", expected=_LAYOUT)
    people: dict[str, int] = {}
    clips: dict[str, list[Raw]] = {}
    for (clip, person), group in groups.items():
        raw = _raw(clip or path.stem, group, notes, path.name)
        number = whole(person) if person else 0
        if number is None:
            number = people.setdefault(person, len(people))
            raw = dataclasses.replace(raw, notes=(*raw.notes, f"person {number} is called {person[:40]}"))
        clips.setdefault(raw.name, []).append(dataclasses.replace(raw, person=number))
    return [made for own in clips.values() for made in finish(own, reading)]


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that has any."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    mark = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=mark)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        where = f"{name}, line {reader.line_num}"
        raise InputError("not readable CSV", where=where, found=str(error)[:80], expected=_LAYOUT) from error


def _number(cell: str, name: str, line: int, column: str) -> float:
    """The number of a cell; NaN for an empty one."""
    plain = cell.strip()
    if not plain or plain.lower() in ("nan", "na", "null", "none"):
        return math.nan
    try:
        return float(plain)
    except ValueError as error:
        where = f"{name}, line {line}, {column}"
        raise InputError("not a number", where=where, found=repr(plain[:40]), expected="a number or nothing") from error


def _taken(
    head: Sequence[str], roles: Mapping[int, str | None], name: str, notes: list[str], used: set[int]
) -> dict[str, int]:
    """Places of the columns by their roles; what is not read is said."""
    places: dict[str, int] = {}
    for place, role in roles.items():
        if role is None or place in used:
            continue
        if role in places:
            found = f"{head[places[role]]} and {head[place]}"
            raise InputError(f"two columns for {role}", where=name, found=found, expected="one")
        places[role] = place
    rest = [head[place] for place, role in roles.items() if role is None and place not in used]
    if rest:
        notes.append(f"{len(rest)} columns not read: {', '.join(rest[:8])}")
    return places


def _opened(
    groups: dict[_Key, _Group], row: Sequence[str], places: Mapping[str, int], line: int, name: str
) -> tuple[_Group, int]:
    """The group of a row and the number of its frame; -1 without a column of frames."""
    key = (_cell(row, places, "clip"), _cell(row, places, "person"))
    group = groups.get(key)
    if group is None:
        group = groups[key] = _Group(line, facts={role: _cell(row, places, role) for role in _KEPT})
    if "frame" not in places:
        return group, -1
    given = _cell(row, places, "frame")
    number = whole(float(given)) if re.fullmatch(r"-?\d{1,15}(\.0*)?", given) else None
    if number is None:
        where = f"{name}, line {line}"
        raise InputError("no number of a frame", where=where, found=repr(given[:40]), expected="a whole number")
    if "time" in places:
        group.times[number] = _number(_cell(row, places, "time"), name, line, "time")
    return group, number


def _cell(row: Sequence[str], places: Mapping[str, int], role: str) -> str:
    return row[places[role]].strip() if role in places else ""


def _full(row: Sequence[str], head: Sequence[str], name: str, line: int) -> None:
    if len(row) != len(head):
        where = f"{name}, line {line}"
        raise InputError("another number of cells", where=where, found=len(row), expected=len(head))


def _long(
    rows: Iterator[tuple[int, list[str]]],
    head: Sequence[str],
    roles: Mapping[int, str | None],
    name: str,
    notes: list[str],
) -> dict[_Key, _Group]:
    """A row for each joint and frame."""
    places = _taken(head, roles, name, notes, set())
    if "frame" not in places:
        raise InputError("no column of frames", where=name, found=", ".join(head)[:120], expected=_LAYOUT)
    columns = [role for role in ("x", "y", "z", "score") if role in places]
    root = [role for role in ("root_x", "root_y", "root_z") if role in places] if "z" in places else []
    if root:
        notes.append("joints with the trajectory of the root added")
    groups: dict[_Key, _Group] = {}
    seen: set[tuple[_Key, int, str]] = set()
    for line, row in rows:
        _full(row, head, name, line)
        group, number = _opened(groups, row, places, line, name)
        joint = _cell(row, places, "joint")
        key = ((_cell(row, places, "clip"), _cell(row, places, "person")), number, joint)
        if not joint or key in seen:
            found = f"{joint or 'no name'} in frame {number}"
            raise InputError("a joint twice or without a name", where=f"{name}, line {line}", found=found)
        seen.add(key)
        numbers = [_number(_cell(row, places, role), name, line, role) for role in columns]
        for place, role in enumerate(root):
            numbers[place] += _number(_cell(row, places, role), name, line, role)
        group.frames.append(number)
        group.joints.append(joint)
        group.numbers.append((*numbers[: 3 if "z" in places else 2], numbers[-1] if "score" in places else math.nan))
    return groups


def _wide(
    rows: Iterator[tuple[int, list[str]]],
    head: Sequence[str],
    roles: Mapping[int, str | None],
    name: str,
    notes: list[str],
) -> dict[_Key, _Group]:
    """A row for each frame, turned into rows of joints."""
    joints: dict[str, dict[str, int]] = {}
    for place, cell in enumerate(head):
        named, counted = _WIDE.match(cell.strip()), _COUNTED.match(cell.strip())
        if named and roles[place] is None:
            joints.setdefault(named[1], {})[_ENDS[named[2].lower()]] = place
        elif counted:
            joints.setdefault(counted[2], {})[_ENDS.get(counted[1].lower(), "score")] = place
    joints = {joint: own for joint, own in joints.items() if {"x", "y"} <= set(own)}
    if not joints:
        found = ", ".join(cell.strip() for cell in head)[:120] or "nothing"
        raise InputError("no columns of joints", where=name, found=found, expected=_LAYOUT)
    deep = {"z" in own for own in joints.values()}
    if len(deep) > 1:
        flat = [joint for joint, own in joints.items() if "z" not in own]
        raise InputError("joints without a column z", where=name, found=", ".join(flat[:8]), expected="all or none")
    used = {place for own in joints.values() for place in own.values()}
    places = _taken(head, roles, name, notes, used)
    axes = ("x", "y", "z") if deep == {True} else ("x", "y")
    groups: dict[_Key, _Group] = {}
    counts: dict[_Key, set[int]] = {}
    for line, row in rows:
        _full(row, head, name, line)
        key = (_cell(row, places, "clip"), _cell(row, places, "person"))
        own_frames = counts.setdefault(key, set())
        group, number = _opened(groups, row, places, line, name)
        number = len(own_frames) if number < 0 and "frame" not in places else number
        if number in own_frames:
            raise InputError("a frame twice", where=f"{name}, line {line}", found=f"frame {number}", expected="once")
        own_frames.add(number)
        if "time" in places:
            group.times[number] = _number(_cell(row, places, "time"), name, line, "time")
        for joint, own in joints.items():
            point = [_number(row[own[axis]], name, line, head[own[axis]]) for axis in axes]
            sure = _number(row[own["score"]], name, line, head[own["score"]]) if "score" in own else math.nan
            group.frames.append(number)
            group.joints.append(joint)
            group.numbers.append((*point, sure))
    return groups


def _raw(name: str, group: _Group, notes: Sequence[str], where: str) -> Raw:
    """The joints of one person over all frames of the table."""
    time = timeline(group.frames, where)
    order = {joint: place for place, joint in enumerate(dict.fromkeys(group.joints))}
    plain = [whole(joint) for joint in order]
    if all(number is not None for number in plain):
        numbers = sorted(number for number in plain if number is not None)
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] not in (0, 1):
            found = f"{numbers[0]} to {numbers[-1]}, {len(numbers)} in all"
            raise InputError("numbers of joints with gaps", where=where, found=found, expected="0 to J - 1")
        order = {joint: (whole(joint) or 0) - numbers[0] for joint in order}
        names = None
    else:
        names = tuple(order)
    values = np.array(group.numbers, np.float64)
    if time.count * len(order) * values.shape[1] > MOST_NUMBERS:
        found = f"{time.count:,} frames of {len(order):,} joints"
        raise InputError("too many joints", where=where, found=found, expected=f"{MOST_NUMBERS:,} numbers")
    frames = (np.array(group.frames, np.int64) - time.start) // time.step
    table = np.full((time.count, len(order), values.shape[1]), np.nan)
    table[frames, [order[joint] for joint in group.joints]] = values
    score: NDArray[np.float64] | None = table[..., -1]
    if score is not None and np.isnan(score).all():
        score = None
    facts, fps, told = group.facts, _fact(group.facts["fps"], where), ()
    if fps is None and len(group.times) > 1:
        fps, told = rate_of([seconds for _, seconds in sorted(group.times.items())])
        fps = None if fps is None or time.missing else fps
    sides = whole(facts["size_w"]), whole(facts["size_h"])
    return Raw(
        name,
        table[..., :-1],
        score,
        names,
        unit=_choice(facts["unit"], get_args(FileUnit), where),
        zeros=score is None and not np.isnan(values[:, :2]).any(),
        frame=cast(Frame, facts["axes"]) if facts["axes"] in get_args(Frame) else None,
        size=(sides[0], sides[1]) if sides[0] and sides[1] else None,
        fps=fps,
        subject=facts["subject"],
        action=facts["action"],
        notes=(*notes, *time.notes(), *told),
    )


def _fact(cell: str, where: str) -> float | None:
    value = _number(cell, where, 1, "fps")
    if math.isnan(value):
        return None
    if not 0 < value <= 1e5:
        raise InputError("no frame rate", where=where, found=cell[:40], expected="more than 0 Hz")
    return value


def _choice(cell: str, known: Sequence[str], where: str) -> Any:
    if cell and cell not in known:
        raise InputError("no such unit", where=where, found=repr(cell[:40]), expected=", ".join(known[1:]))
    return cell or None
