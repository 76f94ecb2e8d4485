"""Joints in NumPy's files: arrays by name, and the poses that this library writes; nothing is ever unpickled."""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, cast, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_skeletons import skeleton
from pipelines.data.datasets.pose_types import Clip, Frame, Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.pose import finish
from pipelines.data.formats.pose_source import MOST_NUMBERS, FileUnit, PoseReading, Raw, explained, numbers_of, whole

__all__ = ["array_raws", "own_raws", "read_npy", "read_npz"]

_LAYOUT = (
    'arrays (frames, joints, 2 or 3) by the names of their clips, or "points" with "skeleton", "fps", "unit", "size", '
    'or "SUBJECT/ACTION/CAMERA" as of Human3.6M'
)
_OWN = "points (frames, joints, 2 or 3), valid, skeleton, joints, parents, root, fps, unit, frame, size"
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, NotImplementedError, ValueError, MemoryError),
    *(
        SyntaxError,
        tokenize.TokenError,
        TypeError,
        OverflowError,
        RecursionError,
    ),  # of headers that are no Python values
)
_MOST_ARRAYS = 100_000
_MOST_BYTES = 8 * MOST_NUMBERS
_H36M = re.compile(r"S\d+/[^/]+(/[^/]+)?")
_TEXTS = {"skeleton", "joints", "unit", "fps", "size", "names", "format"}


def read_npz(path: str | os.PathLike[str], reading: PoseReading | None = None) -> list[Clip]:
    """Read joints out of an NPZ file of plain arrays.

    Args:
        path: with poses that this library wrote; or arrays (frames, joints, 2 or 3), each a clip called as the array,
            beside which `fps`, `size`, `skeleton`, `unit` and `joints` may stand; or the layout of `read_h36m`.
        reading: what the file does not say.

    Returns:
        a clip an array or person.

    Raises:
        InputError: pickled objects, a damaged file, no arrays of joints; see `finish`.

    Complexity: O(values); the sizes in the headers are checked before arrays are made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", walk=np.full((5, 17, 2), 300.0), fps=50, skeleton="coco17")
        ...     clip, = read_npz(f"{folder}/a.npz")
        >>> clip.name, clip.fps, clip.skeleton.name, clip.unit
        ('walk', 50.0, 'coco17', 'px')
    """
    path, reading = pathlib.Path(path), reading or PoseReading()
    arrays = _load(path)
    names = [name for name, array in arrays.items() if array.dtype.kind in "fiu" and array.ndim == 3]
    with explained(path.name, _LAYOUT):
        if "points" in arrays or any(re.fullmatch(r"\d+/points", name) for name in arrays):
            return finish(own_raws(_tracks(arrays), path.name, path.stem), reading)
        if names and all(_H36M.fullmatch(name) and arrays[name].shape[1] in (17, 32) for name in arrays):
            from pipelines.data.datasets.pose_h36m import RATE, read_h36m

            return read_h36m(path, fps=reading.fps or RATE)
        if not names:
            found = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:6]) or "no arrays"
            raise InputError("no joints of a known layout", where=path.name, found=found, expected=_LAYOUT)
        facts = {name: arrays[name].tolist() for name in _TEXTS & set(arrays)}
        raws = [array_raws(arrays[name], name, path.name, facts) for name in names]
        rest = sorted(set(arrays) - set(names) - _TEXTS)
        notes = (f"{len(rest)} arrays not read: {', '.join(rest[:6])}",) if rest else ()
        clips = [clip for raw in raws for clip in finish([raw], reading)]
        return [clip.but(*notes) for clip in clips]


def read_npy(path: str | os.PathLike[str], reading: PoseReading | None = None) -> list[Clip]:
    """Read one array (frames, joints, 2 or 3), or (joints, 2 or 3) of one frame, out of an NPY file.

    Raises:
        InputError: a damaged file, pickled objects, another array; see `finish`.

    Complexity: O(values).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/walk.npy", np.full((5, 25, 2), 300.0))
        ...     read_npy(f"{folder}/walk.npy")[0].name
        'walk'
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError("no such file", where=path, cure="check the path")
    try:
        with path.open("rb") as file:
            _header(file, path.name, path.name, path.stat().st_size)
            file.seek(0)
            array = np.lib.format.read_array(file, allow_pickle=False)
    except InputError:
        raise
    except _DAMAGED as error:
        found = str(error)[:120] or type(error).__name__
        raise InputError("not a readable NPY file", where=path.name, found=found, cure="write it again") from error
    return finish([array_raws(array, path.stem, path.name, {})], reading or PoseReading())


def array_raws(array: NDArray[Any], name: str, where: str, facts: Mapping[str, Any]) -> Raw:
    """The joints of an array with what stands beside it.

    Args:
        array: (T, J, D), or (J, D) for one frame.
        name: of the clip.
        where: what messages call the source.
        facts: `fps`, `size`, `skeleton`, `unit` and `joints`, as far as they are known.

    Raises:
        InputError: no numbers, facts that mean nothing.

    Example:
        >>> array_raws(np.zeros((25, 2)), "a", "an array", {"fps": 30}).points.shape
        (1, 25, 2)
    """
    if array.dtype.kind not in "fiu":
        raise InputError("not numbers", where=where, found=str(array.dtype), expected="(frames, joints, 2 or 3)")
    points, notes = np.asarray(array, np.float64), ()
    if points.ndim == 2 and points.shape[1] in (2, 3):
        points, notes = points[None], ("one frame: (joints, coordinates)",)
    if points.ndim != 3 or points.shape[2] not in (2, 3):
        expected = "(frames, joints, 2 or 3)"
        raise InputError("not the joints of a person over time", where=where, found=points.shape, expected=expected)
    known = facts.get("skeleton")
    return Raw(
        name,
        points,
        joints=_joints(facts.get("joints"), where),
        tree=skeleton(known) if isinstance(known, str) and known else None,
        unit=_unit(facts.get("unit"), where),
        size=_size(facts.get("size"), where),
        fps=_fps(facts.get("fps"), where),
        notes=notes,
    )


# Poses of this library, in NPZ and in JSON


def own_raws(content: Mapping[str, Any], name: str, stem: str) -> list[Raw]:
    """Persons of a file that this library wrote, or of one with the same names.

    Args:
        content: `tracks`, a list of persons, or the fields of one person.
        name: of the file, for messages.
        stem: the name of a clip that has none.

    Raises:
        InputError: no persons, fields that do not fit together or mean nothing.

    Complexity: O(numbers).

    Example:
        >>> raw, = own_raws({"points": [[[0.0, 1.0]]], "joints": ["nose"], "unit": "normalised"}, "a.json", "a")
        >>> raw.joints, raw.unit
        (('nose',), 'normalised')
    """
    entries = content.get("tracks", [content])
    if not isinstance(entries, list) or not entries:
        raise InputError("no person", where=name, found=str(entries)[:40], expected='a list "tracks"')
    with explained(name, _OWN):
        return [_own(entry, f"{name}, person {place}" if len(entries) > 1 else name, stem, place)
                for place, entry in enumerate(entries)]  # fmt: skip


def _own(entry: Mapping[str, Any], where: str, stem: str, place: int) -> Raw:
    points = numbers_of(entry["points"], f"{where}, points")
    if points.ndim != 3:
        raise InputError("not the joints of a person", where=where, found=points.shape, expected=_OWN)
    notes = _texts(entry.get("notes"))
    valid = _fitting(entry, "valid", points.shape[:2], where)
    if valid is not None:
        points = np.where((valid > 0)[..., None], points, np.nan)
    path = _fitting(entry, "trajectory", (len(points), points.shape[2]), where)
    if path is not None:
        points = points + path[:, None]
        notes = (*notes, "joints with the trajectory of the root added")
    held = [key for key in ("input_points", "sigma_mm", "truth") if key in entry]
    notes += (f"not read: {', '.join(held)}",) if held else ()
    joints, frame = _joints(entry.get("joints"), where), entry.get("frame")
    if frame is not None and frame not in get_args(Frame):
        raise InputError("no such frame", where=where, found=repr(frame)[:40], expected=", ".join(get_args(Frame)))
    person = whole(entry.get("person", place))
    return Raw(
        str(entry.get("name") or stem),
        points,
        _fitting(entry, "confidence", points.shape[:2], where),
        joints=joints,
        tree=_tree(entry, joints, where),
        unit=_unit(entry.get("unit"), where),
        zeros=valid is None,
        frame=frame,
        size=_size(entry.get("size"), where),
        fps=_fps(entry.get("fps"), where),
        person=place if person is None else person,
        subject=str(entry.get("subject") or ""),
        action=str(entry.get("action") or ""),
        notes=notes,
    )


def _fitting(entry: Mapping[str, Any], key: str, shape: tuple[int, ...], where: str) -> NDArray[np.float64] | None:
    if entry.get(key) is None:
        return None
    given = np.asarray(entry[key])
    array = given.astype(np.float64) if given.dtype == bool else numbers_of(entry[key], f"{where}, {key}")
    if array.shape != shape:
        raise InputError(f"{key} does not fit", where=where, found=array.shape, expected=shape)
    return array


def _tree(entry: Mapping[str, Any], joints: tuple[str, ...] | None, where: str) -> Skeleton | None:
    """The skeleton as the file describes it, or by its name."""
    name = entry.get("skeleton")
    name = name if isinstance(name, str) else ""
    if joints is None:
        return skeleton(name) if name else None
    if entry.get("parents") is None:
        return None
    held = {key: _whole_list(entry.get(key), f"{where}, {key}") for key in ("parents", "left", "right")}
    root = whole(entry.get("root", 0))
    try:
        return Skeleton(name or "file", joints, held["parents"], root or 0, held["left"], held["right"])
    except InputError as error:
        where = f"{where}, {error.where}"
        raise InputError(error.problem, where=where, found=error.found, expected=error.expected) from error


def _whole_list(values: Any, where: str) -> tuple[int, ...]:
    numbers = [whole(value) for value in (values if isinstance(values, list) else [])]
    if any(number is None for number in numbers):
        raise InputError("not numbers of joints", where=where, found=str(values)[:60], expected="whole numbers")
    return tuple(number for number in numbers if number is not None)


def _joints(values: Any, where: str) -> tuple[str, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list) or not values or not all(isinstance(one, str) and one for one in values):
        raise InputError("no names of joints", where=where, found=str(values)[:60], expected="a list of texts")
    return tuple(values)


def _unit(value: Any, where: str) -> FileUnit | None:
    if value in (None, ""):
        return None
    if value not in get_args(FileUnit):
        expected = ", ".join(get_args(FileUnit)[1:])
        raise InputError("no such unit", where=where, found=repr(value)[:40], expected=expected)
    return cast(FileUnit, value)


def _size(value: Any, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = [whole(side) for side in value] if isinstance(value, list) else []
    if len(sides) != 2 or not all(side is not None and 0 < side <= 1_000_000 for side in sides):
        raise InputError("no size of an image", where=where, found=str(value)[:40], expected="width, height in px")
    return sides[0] or 0, sides[1] or 0


def _fps(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e5:
        raise InputError("no frame rate", where=where, found=str(value)[:40], expected="more than 0 Hz")
    return float(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _tracks(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The fields of each person, from `points` or from `0/points`, `1/points`, ...; big arrays stay arrays."""
    groups: dict[int, dict[str, Any]] = {}
    for key, array in arrays.items():
        found = re.fullmatch(r"(\d{1,9})/(\w+)", key)
        number, field = (int(found[1]), found[2]) if found else (-1, key)
        if number < 0 and field in ("format", "provenance"):
            continue
        value: Any = array if array.ndim > 1 else array.tolist()
        if field == "notes" and isinstance(value, str):
            value = json.loads(value).get("notes") if value.startswith("{") else None
        groups.setdefault(number, {})[field] = value
    if len(groups) > 1 and -1 in groups:
        del groups[-1]
    return {"tracks": [groups[number] for number in sorted(groups)]}


# Reading arrays


def _load(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file, after a look at the headers of each."""
    if not path.is_file():
        raise InputError("no such file", where=path, cure="check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > _MOST_ARRAYS or total > _MOST_BYTES:
                found = f"{len(members):,} arrays of {total:,} bytes"
                raise InputError("the file is too large", where=path.name, found=found, expected=f"{_MOST_BYTES:,}")
            out: dict[str, NDArray[Any]] = {}
            for member in members:
                with archive.open(member) as file:
                    _header(cast(BinaryIO, file), path.name, member.filename, member.file_size)
                with archive.open(member) as file:
                    out[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
            return out
    except InputError:
        raise
    except (*_DAMAGED, RuntimeError) as error:  # RuntimeError: an encrypted member
        found = str(error)[:120] or type(error).__name__
        raise InputError("not a readable NPZ file", where=path.name, found=found, cure="copy the file again") from error


def _header(file: BinaryIO, where: str, member: str, stored: int) -> None:
    """Whether an array is one of plain numbers or texts, and not larger than what is stored."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise InputError(
            "pickled Python objects, which are never opened: they could run any code",
            where=where,
            found=member,
            expected=_LAYOUT,
            cure="write the file anew as plain arrays, if you trust its source; the module "
            "pipelines.data.datasets.pose_h36m has the lines that do it",
        )
    size = math.prod(int(length) for length in shape) * dtype.itemsize
    if size > stored or min(shape, default=0) < 0:
        found = f"{member}: {dtype}, {shape}"
        raise InputError("an array that is cut", where=where, found=found, expected=f"{size:,} bytes, {stored:,} there")
