"""The text of a BVH file: the tree of joints with their channels, and the numbers of each frame."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["BvhFile", "Hierarchy", "parse_bvh"]

_CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "XYZ")
_MOST_JOINTS = 2000
_MOST_NUMBERS = 1 << 27  # a gibibyte in float64
_LINES = 2048  # read at once: a number takes ten times its room while it is text
_LARGEST = 1e9
_AGAIN = "copy or export the file again"
_HEAD = re.compile(r"\s*Frames\s*:\s*(\S+)\s+Frame\s+Time\s*:\s*(\S+)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """J joints and end sites in the order of the file, parents before children.

    Args:
        names: J different names; an end site is named after its joint, with `_end`.
        parents: (J,), -1 for a root.
        offsets: (J, 3) from the parent in the rest pose, in the file's unit.
        channels: of each joint, in the order of its numbers in a frame.
        ends: (J,) which are end sites.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: NDArray[np.float64]
    channels: tuple[tuple[str, ...], ...]
    ends: tuple[bool, ...]

    def rest(self) -> NDArray[np.float64]:
        """(J, 3) positions of the rest pose."""
        points = self.offsets.copy()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                points[joint] += points[parent]
        return points


@dataclass(frozen=True, eq=False)
class BvhFile:
    """What stands in a file: the tree, (T, C) channels, the frame time in s, and what was made of it."""

    hierarchy: Hierarchy
    values: NDArray[np.float64]
    frame_time: float
    notes: tuple[str, ...] = ()


@dataclass
class _Tree:
    """A hierarchy while it is read."""

    where: str
    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float] | None] = field(default_factory=list)
    channels: list[tuple[str, ...]] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)
    renamed: int = 0

    def add(self, name: str, parent: int, end: bool) -> int:
        """A joint or an end site; a name that is there already gets a number."""
        if len(self.names) >= _MOST_JOINTS:
            raise InputError("too many joints", where=self.where, expected=f"at most {_MOST_JOINTS}")
        taken, unique, number = set(self.names), name, 1
        while unique in taken:
            number += 1
            unique = f"{name}#{number}"
        self.renamed += unique != name
        self.names.append(unique)
        self.parents.append(parent)
        self.offsets.append(None)
        self.channels.append(())
        self.ends.append(end)
        return len(self.names) - 1

    def built(self) -> Hierarchy:
        """The finished tree; every joint has its offset."""
        offsets = np.zeros((len(self.names), 3))
        for joint, offset in enumerate(self.offsets):
            if offset is None:
                raise InputError("a joint without OFFSET", where=self.where, found=self.names[joint], cure=_AGAIN)
            offsets[joint] = offset
        names, parents, channels = tuple(self.names), tuple(self.parents), tuple(self.channels)
        return Hierarchy(names, parents, offsets, channels, tuple(self.ends))


def parse_bvh(content: bytes, where: str, accept_truncated: bool = False) -> BvhFile:
    """Read the text of a BVH file.

    Args:
        content: the file.
        where: what messages call it.
        accept_truncated: keep the whole frames of a file that ends before the last one.

    Raises:
        InputError: no BVH, damaged or cut, impossible hierarchies, no frames.

    Complexity: O(bytes); numbers are counted before room is made for them.

    Example:
        >>> text = b"HIERARCHY ROOT a { OFFSET 0 1 0 CHANNELS 1 Xrotation } MOTION Frames: 2 Frame Time: 0.5 1 2"
        >>> file = parse_bvh(text, "a.bvh")
        >>> file.hierarchy.names, file.values.tolist(), file.frame_time
        (('a',), [[1.0], [2.0]], 0.5)
    """
    if b"\0" in content[:4096] or content.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].upper() != b"HIERARCHY":
        found = content[:24] if content else "an empty file"
        raise InputError("not a BVH file", where=where, found=found, expected="a text that begins with HIERARCHY")
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    parts = re.split(r"\bMOTION\b(?=\s*Frames)", text, maxsplit=1, flags=re.IGNORECASE)
    if len(parts) < 2:
        raise InputError("no motion", where=where, expected="MOTION, then Frames:, after the hierarchy", cure=_AGAIN)
    tree = _tree(parts[0].split(), where)
    hierarchy = tree.built()
    columns = sum(map(len, hierarchy.channels))
    if not columns:
        raise InputError("no joint has a channel", where=where, expected="CHANNELS with rotations", cure=_AGAIN)
    notes = (f"{tree.renamed} joints with a name that was taken got a number (#2, #3 ...)",) if tree.renamed else ()
    head = _HEAD.match(parts[1])
    if head is None:
        found, expected = parts[1][:60].split(), "Frames: and Frame Time:"
        raise InputError("no number of frames and no frame time", where=where, found=found, expected=expected)
    frames, seconds = _count(head[1], where), _frame_time(head[2], where)
    values, said = _frames(parts[1][head.end() :], frames, columns, where, accept_truncated)
    return BvhFile(hierarchy, values, seconds, (*notes, *said))


def _tree(tokens: list[str], where: str) -> _Tree:
    """The joints, from the words before MOTION."""
    tree, words, path = _Tree(where), iter(tokens[1:]), [-1]
    for word in words:
        key = word.upper()
        if key in ("ROOT", "JOINT", "END"):
            if (key == "ROOT") != (path[-1] < 0) or (path[-1] >= 0 and tree.ends[path[-1]]):
                raise InputError(f"{word} where none may stand", where=where, found=_place(tree, path), cure=_AGAIN)
            name = _name(words, tree, path)
            end = key == "END"
            path.append(tree.add(f"{tree.names[path[-1]]}_end" if end else name, path[-1], end))
        elif key == "}" and len(path) > 1:
            path.pop()
        elif key == "OFFSET" and len(path) > 1:
            tree.offsets[path[-1]] = [_number(next(words, ""), "OFFSET", tree, path) for _ in range(3)]
        elif key == "CHANNELS" and len(path) > 1:
            tree.channels[path[-1]] = _channels(words, tree, path)
        else:
            raise InputError("an unknown word", where=where, found=f"{word[:40]!r} {_place(tree, path)}", cure=_AGAIN)
    if len(path) > 1 or not tree.names:
        found = f"the end {_place(tree, path)}"
        raise InputError("the hierarchy is cut", where=where, found=found, expected="a } for every {", cure=_AGAIN)
    return tree


def _place(tree: _Tree, path: list[int]) -> str:
    return "outside of all joints" if path[-1] < 0 else f"in {tree.names[path[-1]]}"


def _name(words: Iterator[str], tree: _Tree, path: list[int]) -> str:
    """The words up to the bracket; some exporters write names of several words."""
    name: list[str] = []
    for word in words:
        if word.endswith("{"):
            name += [word[:-1]] if word != "{" else []
            return " ".join(name) or f"joint {len(tree.names)}"
        name.append(word)
        if len(name) > 8:
            break
    found = f"{' '.join(name)[:60]!r} {_place(tree, path)}"
    raise InputError("a joint without {", where=tree.where, found=found, cure=_AGAIN)


def _channels(words: Iterator[str], tree: _Tree, path: list[int]) -> tuple[str, ...]:
    """The channels of a joint, in their order."""
    count = next(words, "")
    if count not in ("0", "1", "2", "3", "4", "5", "6"):
        found = f"{count[:20]!r} {_place(tree, path)}"
        raise InputError("no number of channels", where=tree.where, found=found, expected="0 to 6")
    known = {channel.lower(): channel for channel in _CHANNELS}
    given = [next(words, "") for _ in range(int(count))]
    wrong = [word for word in given if word.lower() not in known]
    if wrong or len({word.lower() for word in given}) < len(given):
        found = f"{' '.join(wrong or given)[:80]!r} {_place(tree, path)}"
        expected = f"each once: {', '.join(_CHANNELS)}"
        raise InputError("no such channel, or one twice", where=tree.where, found=found, expected=expected)
    return tuple(known[word.lower()] for word in given)


def _number(word: str, what: str, tree: _Tree, path: list[int]) -> float:
    number = _float(word)
    if number is None:
        found = f"{word[:20]!r} {_place(tree, path)}"
        raise InputError(f"{what} needs three numbers", where=tree.where, found=found, cure=_AGAIN)
    return number


def _float(word: str) -> float | None:
    """A finite number of reasonable size, or None."""
    try:
        number = float(word)
    except ValueError:
        return None
    return number if "_" not in word and math.isfinite(number) and abs(number) <= _LARGEST else None


def _count(word: str, where: str) -> int:
    if not word.isascii() or not word.isdigit() or len(word) > 12 or int(word) == 0:
        raise InputError("no frames", where=where, found=f"Frames: {word[:20]}", expected="a whole number from 1 on")
    return int(word)


def _frame_time(word: str, where: str) -> float:
    seconds = _float(word)
    if seconds is None or not 1e-5 <= seconds <= 60:
        cure = "write the seconds between two frames into the file, with a decimal point"
        raise InputError("no frame time", where=where, found=word[:20], expected="0.00001 to 60 s", cure=cure)
    return seconds


def _frames(
    text: str, frames: int, columns: int, where: str, accept_truncated: bool
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """(T, C) numbers; there must be as many as the file says."""
    wanted = frames * columns
    lines, blocks, there = text.split("\n"), [], 0
    for start in range(0, len(lines), _LINES):
        blocks.append(_numbers(" ".join(lines[start : start + _LINES]), there, columns, where))
        there += len(blocks[-1])
        if there > _MOST_NUMBERS:
            raise InputError("too many numbers", where=where, expected=f"at most {_MOST_NUMBERS:,}")
    values = np.concatenate(blocks)
    if there == wanted:
        return values.reshape(frames, columns), ()
    whole, more = divmod(there, columns)
    found = f"{whole:,} frames" + (f" and {more} numbers" if more else "")
    if accept_truncated and 0 < whole < frames:
        note = f"the file says {frames:,} frames and holds {found}: {whole:,} were kept"
        return values[: whole * columns].reshape(whole, columns), (note,)
    problem = "the motion is cut" if there < wanted else "more numbers than frames"
    expected, cure = f"{frames:,} frames of {columns} numbers", _AGAIN
    if 0 < whole < frames:
        cure += ", or accept truncated files to keep the whole frames"
    raise InputError(problem, where=where, found=found, expected=expected, cure=cure)


def _numbers(text: str, before: int, columns: int, where: str) -> NDArray[np.float64]:
    words = text.split()
    try:
        values = np.fromiter(map(float, words), np.float64, len(words))
        if np.abs(values).max(initial=0) <= _LARGEST and "_" not in text:  # Python reads 1_0 as 10
            return values
    except ValueError:
        pass
    place = next(index for index, word in enumerate(words) if _float(word) is None)
    frame, column = divmod(before + place, columns)
    found, cure = f"{words[place][:20]!r} in frame {frame + 1}, number {column + 1}", "numbers need a decimal point"
    raise InputError("not a finite number of reasonable size", where=where, found=found, cure=cure)
