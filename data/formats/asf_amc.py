"""Acclaim skeletons and motions (.asf, .amc): joints by forward kinematics, in metres, z up."""

from __future__ import annotations

import itertools
import math
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.document_bytes import stored_bytes
from pipelines.data.formats.mocap_space import metres, rotations, side_pairs, upright

__all__ = ["Bones", "read_amc", "read_asf", "skeleton_file"]

_Array = NDArray[np.float64]
_LIMIT_MB = 128.0
_MOST_BONES, _MOST_NUMBERS = 1000, 1 << 26
_LARGEST = 1e9
_AGAIN = "copy or export the file again"


@dataclass(frozen=True, eq=False)
class Bones:
    """An ASF skeleton: the root, then B bones, parents first; the joint of a bone is its far end.

    Args:
        names: `root` and the bones.
        parents: (B + 1,), -1 for the root.
        offsets: (B + 1, 3) from near to far end, in the file's unit; the position of the root for the root.
        axes: (B + 1, 3, 3) orientation of the axes about which each turns.
        freedoms: of each, in the order of the motion's numbers: `tx` to `tz`, `rx` to `rz`.
        length: `length` of the units of the file, 1 where it does not stand.
        radians: whether angles of the file are in rad.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: _Array
    axes: _Array
    freedoms: tuple[tuple[str, ...], ...]
    length: float = 1.0
    radians: bool = False

    def height(self) -> float:
        """The longest side of the rest pose, in the file's unit."""
        rest = self.offsets.copy()
        rest[0] = 0
        for place, parent in enumerate(self.parents[1:], 1):
            rest[place] += rest[parent]
        return float(np.ptp(rest, axis=0).max())


def read_amc(
    motion: str | os.PathLike[str],
    skeleton: str | os.PathLike[str] | None = None,
    *,
    units: str | float | None = None,
    fps: float | None = None,
    up: str = "y",
) -> list[Clip]:
    """Read an AMC motion with its ASF skeleton.

    Args:
        motion: the .amc file.
        skeleton: the .asf file; without it the one beside the motion: of its name, of its name up to the first `_`,
            or the only one there.
        units: m, cm, mm, inch or cmu, or metres of one unit. Without it `length` of the skeleton is taken as units an
            inch, as the CMU files mean it, where that gives a person's size; else m, cm or mm by the size.
        fps: Hz; the format does not hold it. Motions of CMU have 120 Hz.
        up: the axis of the file that points up, y or z.

    Returns:
        one clip (T, B + 1, 3) in m, z up: the root and the far end of each bone.

    Raises:
        InputError: missing, damaged or cut files, a motion of another skeleton, a unit that cannot be told.

    Complexity: O(T B) time and memory.

    Source: Acclaim's ASF/AMC description: a bone turns by C M C', C its axis, M its rotations, the first one first.

    Example:
        >>> import tempfile
        >>> asf = ":root order TX TY TZ RX RY RZ axis XYZ position 0 0 0 orientation 0 0 0 :bonedata begin id 1 "
        >>> asf += "name leg direction 0 -1 0 length 1 axis 0 0 0 XYZ dof rx end :hierarchy begin root leg end"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     base = pathlib.Path(folder)
        ...     _ = (base / "a.asf").write_text(asf), (base / "a.amc").write_text(":DEGREES 1 root 0 2 0 0 0 0 leg 90")
        ...     clip, = read_amc(base / "a.amc", units="m", fps=120)
        >>> clip.skeleton.joints, clip.points.round(3).tolist()
        (('root', 'leg'), [[[0.0, 0.0, 2.0], [0.0, 1.0, 2.0]]])
    """
    path = pathlib.Path(motion)
    words = _words(stored_bytes(path, _LIMIT_MB), path.name)
    bones = read_asf(skeleton_file(path) if skeleton is None else skeleton)
    values, radians = _motion(words, bones, path.name)
    scale, said = metres(units, bones.height(), path.name, inches=bones.length)
    points, turned = upright(_forward(bones, values, radians) * scale, up, path.name)
    notes = [said, *turned]
    if fps is None:
        notes.append("AMC holds no frame rate: it is unknown (CMU: 120 Hz)")
    tree = Skeleton("its own hierarchy", bones.names, bones.parents, 0, *side_pairs(bones.names))
    return [Clip.of(path.stem, points, tree, fps=fps, notes=tuple(notes))]


def skeleton_file(motion: pathlib.Path) -> pathlib.Path:
    """The .asf that belongs to an .amc, by name.

    Raises:
        InputError: none, or several and none of its name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = [pathlib.Path(folder, name).touch() for name in ("07.asf", "08.asf")]
        ...     skeleton_file(pathlib.Path(folder, "08_01.amc")).name
        '08.asf'
    """
    there = sorted(one for one in motion.parent.glob("*") if one.suffix.lower() == ".asf")
    for stem in (motion.stem, motion.stem.split("_")[0]):
        for one in there:
            if one.stem == stem:
                return one
    if len(there) == 1:
        return there[0]
    found = ", ".join(one.name for one in there[:8]) or "no .asf in the folder"
    raise InputError("which skeleton belongs to the motion?", where=motion.name, found=found, cure="name the .asf file")


def read_asf(path: str | os.PathLike[str]) -> Bones:
    """Read an ASF skeleton.

    Args:
        path: the .asf file.

    Raises:
        InputError: missing or damaged files, no tree of bones, numbers or freedoms that cannot be.

    Complexity: O(bytes).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "a.asf")
        ...     _ = file.write_text(":root order TX :bonedata begin name leg direction 0 -1 0 length 2 end "
        ...                         ":hierarchy begin root leg end")
        ...     bones = read_asf(file)
        >>> bones.names, bones.offsets.tolist(), bones.freedoms
        (('root', 'leg'), [[0.0, 0.0, 0.0], [0.0, -2.0, 0.0]], (('tx',), ()))
    """
    path = pathlib.Path(path)
    words = _words(stored_bytes(path, 16.0), path.name)
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for word in words:
        if word.startswith(":"):
            current = sections.setdefault(word.lower(), [])
        else:
            current.append(word)
    for wanted in (":root", ":bonedata", ":hierarchy"):
        if not sections.get(wanted):
            raise InputError("not an ASF skeleton, or a part of one", where=path.name, expected=wanted, cure=_AGAIN)
    return _build(sections, path.name)


def _words(content: bytes, where: str) -> list[str]:
    """The words of a file without comments."""
    if b"\0" in content[:4096]:
        raise InputError("not a text", where=where, found=content[:16], expected="an ASF or AMC file")
    lines = content.decode("utf-8", "replace").removeprefix("\ufeff").splitlines()
    return [word for line in lines for word in line.partition("#")[0].split()]


def _build(sections: dict[str, list[str]], where: str) -> Bones:
    units = sections.get(":units", [])
    pairs = dict(itertools.pairwise(units))
    radians = pairs.get("angle", "deg").lower().startswith("rad")
    length = _number(pairs.get("length", "1"), where)
    if length <= 0:
        raise InputError("no unit of length", where=where, found=pairs.get("length"), expected="more than 0")
    root, bones = _fields(sections[":root"]), _bones(sections[":bonedata"], where)
    order = tuple(word.lower() for word in root.get("order", ["TX", "TY", "TZ", "RX", "RY", "RZ"]))
    names, parents = _tree(sections[":hierarchy"], set(bones), where)
    offsets, axes, freedoms = np.zeros((len(names), 3)), np.zeros((len(names), 3, 3)), []
    for place, name in enumerate(names):
        if not place:
            offsets[0] = _numbers(root.get("position", ["0", "0", "0"]), where)
            turned, about = root.get("orientation", ["0", "0", "0"]), (root.get("axis") or ["XYZ"])[0]
            free = order
        else:
            bone = bones[name]
            way = _numbers(bone.get("direction", []), where)
            reach = float(np.linalg.norm(way)) or 1.0
            offsets[place] = way / reach * _number((bone.get("length") or [""])[0], where)
            turned, about = bone.get("axis", ["0", "0", "0"])[:3], (bone.get("axis", [])[3:] or ["XYZ"])[0]
            free = tuple(word.lower() for word in bone.get("dof", []))
        angles = _numbers(turned, where) if radians else np.deg2rad(_numbers(turned, where))
        axes[place] = _axis(angles, about, where)
        if len(set(free)) < len(free) or not set(free) <= {"tx", "ty", "tz", "rx", "ry", "rz"}:
            found, expected = f"{name}: {' '.join(free)[:60]}", "tx to tz and rx to rz, each at most once"
            raise InputError("a freedom that cannot be", where=where, found=found, expected=expected)
        freedoms.append(free)
    return Bones(names, parents, offsets, axes, tuple(freedoms), length, radians)


def _fields(words: list[str]) -> dict[str, list[str]]:
    """The values behind each keyword."""
    keys = {"id", "name", "direction", "length", "axis", "dof", "limits", "bodymass", "cofmass"}
    keys |= {"order", "position", "orientation"}
    fields: dict[str, list[str]] = {}
    current: list[str] = []
    for word in words:
        if word.lower() in keys:
            current = fields.setdefault(word.lower(), [])
        else:
            current.append(word)
    return fields


def _blocks(words: list[str], where: str) -> Iterator[list[str]]:
    """What stands between each begin and its end."""
    block: list[str] | None = None
    for word in words:
        if word.lower() == "begin" and block is None:
            block = []
        elif word.lower() == "end" and block is not None:
            yield block
            block = None
        elif block is not None:
            block.append(word)
        else:
            raise InputError("a word between blocks", where=where, found=repr(word[:40]), expected="begin", cure=_AGAIN)
    if block is not None:
        raise InputError("the skeleton is cut", where=where, found="no end after begin", cure=_AGAIN)


def _bones(words: list[str], where: str) -> dict[str, dict[str, list[str]]]:
    bones: dict[str, dict[str, list[str]]] = {}
    for block in _blocks(words, where):
        fields = _fields(block)
        name = " ".join(fields.get("name", []))
        if not name or name in bones or name == "root" or len(bones) >= _MOST_BONES:
            found, expected = repr(name[:40]), f"different names of at most {_MOST_BONES} bones, none `root`"
            raise InputError("no name of a bone", where=where, found=found, expected=expected)
        bones[name] = fields
    return bones


def _tree(words: list[str], bones: set[str], where: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and parents, parents first; every bone hangs on the root by one way."""
    names, parents = ["root"], [-1]
    current = -1
    # The first word of a line has been placed already, the others are its children and new.
    for word in next(_blocks(words, where), []):
        if word not in bones and word != "root":
            raise InputError("a bone that is not described", where=where, found=repr(word[:40]), cure=_AGAIN)
        if word in names:
            current = names.index(word)
        elif current < 0:
            raise InputError("the hierarchy begins in the air", where=where, found=word, expected="root", cure=_AGAIN)
        else:
            names.append(word)
            parents.append(current)
    lost = sorted(bones - set(names))
    if lost or len(names) < 2:
        found = ", ".join(lost[:8]) or "no bones"
        raise InputError("bones outside of the hierarchy", where=where, found=found, cure=_AGAIN)
    return tuple(names), tuple(parents)


def _number(word: str, where: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not abs(number) <= _LARGEST or "_" in word:
        raise InputError("not a number of reasonable size", where=where, found=repr(word[:40]), cure=_AGAIN)
    return number


def _numbers(words: list[str], where: str) -> _Array:
    if len(words) != 3:
        raise InputError("three numbers expected", where=where, found=" ".join(words)[:60] or "nothing", cure=_AGAIN)
    return np.array([_number(word, where) for word in words])


def _axis(angles: _Array, order: str, where: str) -> _Array:
    """(3, 3) turned about the fixed axes in their order, the first one first."""
    if sorted(order.upper()) != ["X", "Y", "Z"]:
        raise InputError("no order of axes", where=where, found=repr(order[:20]), expected="XYZ in any order")
    matrix = np.eye(3)
    for letter, angle in zip(order.upper(), angles, strict=True):
        matrix = rotations("XYZ".index(letter), np.array([angle]))[0] @ matrix
    return matrix


def _motion(words: list[str], bones: Bones, where: str) -> tuple[_Array, bool]:
    """(T, freedoms) numbers and whether angles are in rad."""
    flags = [word.lower() for word in words if word.startswith(":")]
    words = [word for word in words if not word.startswith(":")]
    widths = {name: len(free) for name, free in zip(bones.names, bones.freedoms, strict=True)}
    starts = dict(zip(bones.names, np.cumsum([0, *widths.values()]).tolist(), strict=False))
    total = sum(widths.values())
    heads = [place for place, word in enumerate(words) if word.isascii() and word.isdigit() and _opens(words, place)]
    if not heads or heads[0] != 0:
        found, expected = " ".join(words[:6])[:60], "the number of the first frame, then root and its numbers"
        raise InputError("no motion", where=where, found=found, expected=expected, cure=_AGAIN)
    if len(heads) * max(total, 1) > _MOST_NUMBERS:
        raise InputError("too many numbers", where=where, expected=f"at most {_MOST_NUMBERS:,}")
    values = np.zeros((len(heads), total))
    numbers = [int(words[place][:9]) for place in heads]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise InputError("frames that do not follow each other", where=where, found=f"{len(numbers):,}", cure=_AGAIN)
    for frame, (start, stop) in enumerate(zip(heads, [*heads[1:], len(words)], strict=True)):
        seen: set[str] = set()
        place = start + 1
        while place < stop:
            name = words[place]
            if name not in widths or name in seen:
                found = f"{name[:40]!r} in frame {words[start]}"
                raise InputError(
                    "not a bone of the skeleton, or twice", where=where, found=found, cure="check the .asf"
                )
            seen.add(name)
            width = widths[name]
            given = words[place + 1 : min(place + 1 + width, stop)]
            if len(given) < width:
                raise InputError("the motion is cut", where=where, found=f"frame {words[start]}", cure=_AGAIN)
            values[frame, starts[name] : starts[name] + width] = [_number(word, where) for word in given]
            place += 1 + width
        lost = [name for name, width in widths.items() if width and name not in seen]
        if lost:
            found = f"frame {words[start]} has no {', '.join(lost[:6])}"
            raise InputError("the motion is cut, or of another skeleton", where=where, found=found, cure=_AGAIN)
    return values, ":radians" in flags or (bones.radians and ":degrees" not in flags)


def _opens(words: list[str], place: int) -> bool:
    """Whether a whole number is that of a frame: the root follows it."""
    return words[place + 1 : place + 2] == ["root"]


def _forward(bones: Bones, values: _Array, radians: bool) -> _Array:
    """(T, B + 1, 3) in the file's unit."""
    points = np.empty((len(values), len(bones.names), 3))
    turns: list[_Array] = []
    column = 0
    for place, parent in enumerate(bones.parents):
        moved, own = np.zeros((len(values), 3)), np.eye(3)[None]
        for free in bones.freedoms[place]:
            axis, number = "xyz".index(free[1]), values[:, column]
            column += 1
            if free[0] == "t":
                moved[:, axis] = number
            else:
                own = rotations(axis, number if radians else np.deg2rad(number)) @ own
        own = bones.axes[place] @ own @ bones.axes[place].T
        turn = own if parent < 0 else turns[parent] @ own
        turns.append(turn)
        if parent < 0:
            points[:, place] = bones.offsets[place] + moved
        else:
            points[:, place] = points[:, parent] + (turn @ (bones.offsets[place] + moved)[..., None])[..., 0]
    return points
