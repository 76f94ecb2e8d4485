"""Joints that arrive line by line, one frame a line: JSON lines, or tables with or without a head."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_skeletons import SKELETONS, by_count, skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.pose_source import PoseReading, whole
from pipelines.data.formats.step_lines import MISSING, Lines, is_value, split_cells, text_lines

__all__ = ["LineFrame", "known_counts", "read_frames"]

_Points = NDArray[np.float64]
_EXPECTED = (
    "a frame a line: JSON ([[x, y], ...] or [[x, y, score], ...] in the order of the joints, null for a missing one; "
    'an object with "joints" or with the names of the joints), or numbers between commas, tabs or spaces'
)
_JOINTS = ("joints", "keypoints", "points", "pose_keypoints_2d")
_SCORES = ("scores", "score", "confidence", "keypoint_scores")
_VALID = ("valid",)
_PERSON = ("person", "person_id", "track", "track_id")
_FRAME = ("frame", "frame_id", "frame_index", "frame_number")
_SURE = ("score", "confidence", "conf", "likelihood", "visibility", "c", "v")
_WIDE = re.compile(rf"^(.+?)[_. ](x|y|{'|'.join(_SURE)})$", re.IGNORECASE)
_COUNTED = re.compile(rf"^(x|y|{'|'.join(_SURE)})_?(\d{{1,3}})$", re.IGNORECASE)
_LARGEST = 1e9
_MOST_JOINTS = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class LineFrame:
    """The joints of one line.

    Attributes:
        joints: (J, 2), or (J, 3) with how sure the detector is; NaN where a joint is missing. None: nobody was seen.
        names: of the J joints, where the line or the head tells them.
        where: the line, for messages.
        begins: a new clip begins here.
        frame: its number, where the line tells it.
    """

    joints: _Points | None
    names: tuple[str, ...] | None
    where: str
    begins: bool
    frame: int | None = None


def read_frames(
    file: Lines, reading: PoseReading, *, source: str, say: Callable[[str], None] | None = None
) -> Iterator[LineFrame]:
    r"""Frames of a file as they come; a line is read when the one before it has been dealt with.

    The first line tells what the lines are. Tables have 2 J or 3 J numbers a line, or a head with NAME_x, NAME_y
    [NAME_score] of each joint. An empty line begins a new clip, which may be of another person.

    Args:
        file: open, text or bytes.
        reading: whose joints (skeleton) and which person.
        source: name of the file, for messages.
        say: hears, once, of what is not used.

    Raises:
        InputError: a line that is no frame, with its number, what was found and what is expected; no frame at all; a
            second person, unless one was chosen.

    Complexity: O(J) time and memory a line.

    Example:
        >>> import io
        >>> lines = io.StringIO("nose_x,nose_y\n1,2\n,\n")
        >>> [frame.joints.tolist() for frame in read_frames(lines, PoseReading(), source="a.csv")]
        [[[1.0, 2.0]], [[nan, nan]]]
    """
    layout: _Table | _Json | None = None
    persons = _Persons(reading.person)
    begins, none = True, True
    for number, line in text_lines(file, source):
        where = f"{source}, line {number}"
        if not line.strip() and not (isinstance(layout, _Table) and layout.separator == "\t" and "\t" in line):
            begins = True
            persons.reset()
            continue
        if layout is None:
            json_like = line.lstrip()[0] in "{[" or line.strip() == "null"
            layout = _Json(reading, say) if json_like else _Table.of(line, reading, where, say)
            if isinstance(layout, _Table) and layout.header:
                continue
        joints, names, person, frame = layout.frame(line, where)
        if not persons.wanted(person, where):
            continue
        yield LineFrame(joints, names, where, begins, frame)
        begins = none = False
    if none:
        found = "nothing but a head" if layout and not persons.others else "nothing"
        found = f"only persons {', '.join(sorted(persons.others)[:8])}" if persons.others else found
        raise InputError("no frames", where=source, found=found, expected=_EXPECTED)


def known_counts() -> str:
    """The skeletons and their numbers of joints, for messages.

    Example:
        >>> known_counts()[:26]
        'h36m17 (17), h36m32 (32), '
    """
    return ", ".join(f"{name} ({len(tree)})" for name, tree in SKELETONS.items())


class _Persons:
    """One person a clip: the one that was chosen, or the only one there is."""

    def __init__(self, chosen: int | None) -> None:
        self.chosen, self.others = chosen, set[str]()
        self._own: str | None = None

    def reset(self) -> None:
        self._own = None

    def wanted(self, person: str | None, where: str) -> bool:
        if person is None:
            return True
        if self.chosen is not None:
            if whole(person) == self.chosen:
                return True
            if len(self.others) < 64:
                self.others.add(person[:20])
            return False
        self._own = person if self._own is None else self._own
        if person != self._own:
            found = f"persons {self._own} and {person}"[:80]
            raise InputError("two people in one stream", where=where, found=found, expected="one person",
                             cure="choose one with --read.person, or begin another clip by an empty line")  # fmt: skip
        return True


_Parts = tuple[_Points | None, tuple[str, ...] | None, str | None, int | None]  # joints, names, person, frame


class _Table:
    """Lines of numbers between separators."""

    def __init__(self, separator: str | None, width: int, places: NDArray[np.int64], header: bool) -> None:
        self.separator, self.width, self.places, self.header = separator, width, places, header
        self.names: tuple[str, ...] | None = None
        self.head: list[str] = []
        self.person: int | None = None
        self.number: int | None = None

    @classmethod
    def of(cls, line: str, reading: PoseReading, where: str, say: Callable[[str], None] | None) -> _Table:
        """What the first line says: names of columns, or a first frame."""
        separator = next((mark for mark in "\t;," if mark in line), None)
        cells = split_cells(line, separator, where)
        if all(is_value(cell) for cell in cells):
            joints, numbers = _split_count(len(cells), reading, where)
            return cls(separator, len(cells), np.arange(len(cells)).reshape(joints, numbers), False)
        return cls._of_head(cells, separator, where, say)

    @classmethod
    def _of_head(cls, cells: list[str], separator: str | None, where: str, say: Callable[[str], None] | None) -> _Table:
        joints: dict[str, dict[str, int]] = {}
        rest: dict[int, str] = {}
        counted = True
        for place, cell in enumerate(cells):
            named, number = _WIDE.match(cell), _COUNTED.match(cell)
            if named is None and number is None:
                rest[place] = cell.lower()
                continue
            joint, role = (named[1], named[2]) if named else (number[2], number[1]) if number else ("", "")
            role = role.lower() if role.lower() in "xy" else "score"
            counted = counted and named is None
            if role in joints.setdefault(joint, {}):
                raise InputError(f"two columns for {role} of {joint}", where=where, found=cell, expected="one")
            joints[joint][role] = place
        whole_joints = {joint: own for joint, own in joints.items() if {"x", "y"} <= set(own)}
        if not whole_joints or len(whole_joints) > _MOST_JOINTS:
            long = {"joint", "x", "y"} <= set(rest.values())
            raise InputError("no head with columns of joints", where=where, found=", ".join(cells)[:120],
                             expected=f"NAME_x, NAME_y [NAME_score] of each joint; {_EXPECTED}",
                             cure="`pose predict` reads tables of a row a joint" if long else None)  # fmt: skip
        sure = all("score" in own for own in whole_joints.values())
        roles = ("x", "y", "score") if sure else ("x", "y")
        places = np.array([[own[role] for role in roles] for own in whole_joints.values()])
        table = cls(separator, len(cells), places, True)
        table.head, table.names = cells, None if counted else tuple(whole_joints)
        if counted and sorted(map(int, whole_joints)) not in ([*range(len(places))], [*range(1, len(places) + 1)]):
            raise InputError("numbers of joints with gaps", where=where, found=", ".join(whole_joints)[:80],
                             expected="0 to J - 1")  # fmt: skip
        if counted:
            table.places = places[np.argsort([int(joint) for joint in whole_joints])]
        table.person = next((place for place, cell in rest.items() if cell in _PERSON), None)
        table.number = next((place for place, cell in rest.items() if cell in _FRAME), None)
        used = {*places.ravel().tolist(), table.person, table.number}
        _say_unused([cell for place, cell in enumerate(cells) if place not in used], say)
        return table

    def frame(self, line: str, where: str) -> _Parts:
        """The frame of a line."""
        cells = split_cells(line, self.separator, where)
        if len(cells) != self.width:
            joints, numbers = self.places.shape
            expected = f"{self.width} ({joints} joints)"
            if not self.header and len(cells) % numbers == 0 and (alike := by_count(len(cells) // numbers)):
                expected += f"; {len(cells) // numbers} joints has {' or '.join(alike)}"
            raise InputError("another number of values than expected", where=where,
                             found=f"{len(cells)} in {line[:60]!r}", expected=expected,
                             cure="mend the line, or begin another file for another skeleton")  # fmt: skip
        name = (lambda place: self.head[place]) if self.header else (lambda place: f"number {place + 1}")
        values = np.array([[_number(cells[one], name(one), where) for one in row] for row in self.places])
        person = cells[self.person] if self.person is not None else None
        number = _frame_number(cells[self.number], where) if self.number is not None else None
        return values, self.names, person or None, number


class _Json:
    """Lines of JSON."""

    def __init__(self, reading: PoseReading, say: Callable[[str], None] | None) -> None:
        self.reading, self.say = reading, say
        self._names: tuple[str, ...] | None = None
        self._flat: tuple[int, int] | None = None  # joints and numbers of each, of lists of plain numbers
        self._told = False

    def frame(self, line: str, where: str) -> _Parts:
        """The frame of a line."""
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError("not a line of JSON", where=where, found=f"{line[:60]!r} ({str(error)[:60]})",
                             expected=_EXPECTED) from None  # fmt: skip
        if isinstance(content, dict):
            return self._object(content, where)
        return self._joints(content, where), None, None, None

    def _object(self, content: dict[str, Any], where: str) -> _Parts:
        person, number = _first(content, _PERSON), _first(content, _FRAME)
        if person is not None and (isinstance(person, bool) or not isinstance(person, int | str)):
            raise InputError("no name of a person", where=where, found=repr(person)[:40], expected="a number or a text")
        person = None if person is None else str(person)
        frame = None if number is None else _frame_number(number, where)
        key = next((name for name in _JOINTS if name in content), None)
        if key is None:
            return self._by_name(content, where), self._names, person, frame
        used = (key, *_SCORES, *_VALID, *_PERSON, *_FRAME)
        self._unused([name for name in content if name not in used])
        joints = self._joints(content[key], where)
        return _scored(joints, _first(content, _SCORES), _first(content, _VALID), where), None, person, frame

    def _by_name(self, content: dict[str, Any], where: str) -> _Points:
        """The joints of an object whose names are those of the joints."""
        found = {name: one for name, one in content.items() if one is None or isinstance(one, list | dict)}
        if self._names is None:
            if not found or not any(one for one in found.values()):
                raise InputError("no joints in the object", where=where, found=", ".join(content)[:80] or "nothing",
                                 expected=_EXPECTED)  # fmt: skip
            self._names = tuple(found)
        other = [name for name, one in found.items() if name not in self._names and one is not None]
        if other:
            raise InputError("joints that the lines before do not have", where=where, found=", ".join(other)[:80],
                             expected=", ".join(self._names)[:120])  # fmt: skip
        self._unused([name for name in content if name not in (*self._names, *_PERSON, *_FRAME)])
        return self._nested([content.get(name) for name in self._names], where)

    def _joints(self, content: Any, where: str) -> _Points | None:
        if content is None or content == []:
            return None
        if not isinstance(content, list) or len(content) > 3 * _MOST_JOINTS:
            raise InputError("no list of joints", where=where, found=repr(content)[:60], expected=_EXPECTED)
        if any(isinstance(one, int | float) and not isinstance(one, bool) for one in content):
            if self._flat is None or self._flat[0] * self._flat[1] != len(content):
                self._flat = _split_count(len(content), self.reading, where)
            return np.array([_json_number(one, "a joint", where) for one in content]).reshape(self._flat)
        return self._nested(content, where)

    def _nested(self, content: Sequence[Any], where: str) -> _Points:
        rows = [_joint(one, number, where) for number, one in enumerate(content)]
        widths = {len(row) for row in rows if row is not None}
        if len(widths) > 1:
            raise InputError("joints of two and of three numbers in one line", where=where, expected="one of them")
        width = widths.pop() if widths else 2
        return np.array([[math.nan] * width if row is None else row for row in rows])

    def _unused(self, names: list[str]) -> None:
        if not self._told:
            self._told = True
            _say_unused(names, self.say)


def _joint(one: Any, number: int, where: str) -> list[float] | None:
    """[x, y] or [x, y, score] of a joint; None for a missing one."""
    name = f"joint {number}"
    if one is None or one == []:
        return None
    if isinstance(one, dict):
        sure = _first(one, _SURE)
        one = [one.get("x"), one.get("y"), *([] if sure is None else [sure])]
    if not isinstance(one, list) or len(one) not in (2, 3):
        raise InputError(f"{name} is no joint", where=where, found=repr(one)[:60],
                         expected="[x, y] or [x, y, score]; null for a missing one")  # fmt: skip
    return [_json_number(value, name, where) for value in one]


def _scored(joints: _Points | None, scores: Any, valid: Any, where: str) -> _Points | None:
    """Joints with scores that stand beside them, and without those that are said to be missing."""
    if joints is None:
        return None
    for name, values in (("scores", scores), ("valid", valid)):
        if values is not None and (not isinstance(values, list) or len(values) != len(joints)):
            found = f"{len(values)} {name}" if isinstance(values, list) else repr(values)[:40]
            raise InputError(f"not one of the {name} for each joint", where=where, found=found, expected=len(joints))
    table = joints
    if scores is not None:
        table = np.c_[joints[:, :2], [_json_number(one, "a score", where) for one in scores]]
    if valid is not None:
        there = np.array([one is True or (one is not False and _json_number(one, "valid", where) > 0) for one in valid])
        table = np.where(there[:, None], table, np.nan)
    return table


def _split_count(count: int, reading: PoseReading, where: str) -> tuple[int, int]:
    """How many joints of how many numbers a line of plain numbers is, by the skeletons that there are."""
    splits = [(count // numbers, numbers) for numbers in (2, 3) if count % numbers == 0]
    if reading.skeleton is not None:
        wanted = len(skeleton(reading.skeleton))
        fitting = [split for split in splits if split[0] == wanted]
    elif reading.mapping is not None:
        raise InputError("numbers without names cannot be mapped", where=where, found=f"{count} numbers",
                         expected="a head or an object with names")  # fmt: skip
    else:
        fitting = [split for split in splits if by_count(split[0])]
    if len(fitting) == 1:
        return fitting[0]
    shapes = " or ".join(f"{joints} joints of {numbers} numbers" for joints, numbers in splits)
    alike = [name for joints, _ in splits for name in by_count(joints)]
    what = "several skeletons have so many numbers" if fitting else "no skeleton has so many numbers"
    expected = f"{reading.skeleton} ({len(skeleton(reading.skeleton))})" if reading.skeleton else known_counts()
    cure = f"say which one, e.g. --read.skeleton {alike[0]}" if alike else "check the line, or give names in a head"
    raise InputError(what, where=where, found=f"{count} numbers" + (f": {shapes}" if shapes else ""),
                     expected=f"2 or 3 a joint of {expected}", cure=cure)  # fmt: skip


def _first(content: dict[str, Any], names: Sequence[str]) -> Any:
    return next((content[name] for name in names if content.get(name) is not None), None)


def _number(cell: str, name: str, where: str) -> float:
    if cell.lower() in MISSING:
        return math.nan
    try:
        value = math.inf if "_" in cell else float(cell)  # Python reads 1_000 as a number; in data it is a slip
    except ValueError:
        value = math.inf
    if not abs(value) <= _LARGEST:
        raise _no_number(repr(cell[:60]), name, where)
    return value


def _json_number(cell: Any, name: str, where: str) -> float:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return math.nan
    if isinstance(cell, bool) or not isinstance(cell, int | float) or not abs(cell) <= _LARGEST:
        raise _no_number(repr(cell)[:60], name, where)
    return float(cell)


def _no_number(found: str, name: str, where: str) -> InputError:
    return InputError(f"the value of {name} is no number", where=where, found=found, cure="mend the line",
                      expected="a coordinate, or nothing (NaN, null) where the joint is missing")  # fmt: skip


def _frame_number(value: Any, where: str) -> int:
    plain = float(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}(\.0*)?", value) else value
    number = whole(plain)
    if number is None:
        raise InputError("no number of a frame", where=where, found=repr(value)[:40], expected="a whole number")
    return number


def _say_unused(names: Sequence[str], say: Callable[[str], None] | None) -> None:
    if names and say is not None:
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        say(f"{len(names)} {'column is' if len(names) == 1 else 'columns are'} not used: {', '.join(names[:8])}{more}")
