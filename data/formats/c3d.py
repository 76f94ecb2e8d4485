"""C3D files of marker systems: labelled points over time, in metres; numbers of Intel, DEC and MIPS machines."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.data.errors import InputError
from pipelines.data.formats.document_bytes import stored_bytes
from pipelines.data.formats.mocap_space import LENGTHS, metres, round_rate, side_pairs, upright

__all__ = ["C3dFile", "parse_c3d", "read_c3d"]

_LIMIT_MB = 1024.0
_BLOCK = 512
_INTEL, _DEC, _MIPS = 84, 85, 86
_KINDS = {-1: 1, 1: 1, 2: 2, 4: 4}  # bytes of a value: text, byte, integer, float
_MOST_PARAMETERS = 4096
_AGAIN = "copy or export the file again"

#: A parameter: text lines, or numbers.
_Value = list[str] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class C3dFile:
    """The points of a file.

    Args:
        labels: N different names.
        points: (T, N, 3) in the file's unit.
        valid: (T, N) where the system saw the point.
        rate: Hz.
        unit: what the file says, in lower case; empty where it says nothing.
        notes: what was made of it.
    """

    labels: tuple[str, ...]
    points: NDArray[np.float64]
    valid: NDArray[np.bool_]
    rate: float
    unit: str
    notes: tuple[str, ...] = ()


def read_c3d(
    source: str | os.PathLike[str] | bytes,
    *,
    units: str | float | None = None,
    up: str = "z",
    name: str | None = None,
    accept_truncated: bool = False,
) -> list[Clip]:
    """Read the points of a C3D file: one clip for each person, told apart by what stands before a colon in the labels.

    Args:
        source: the file, or its content.
        units: m, cm, mm, inch, or metres of one unit; without it what the file says.
        up: the axis that points up, z or y.
        name: what messages call it; the file's name without it.
        accept_truncated: keep the whole frames of a file that ends before the last one, and say so.

    Returns:
        clips (T, N, 3) in m in the world frame, z up. The labels are the joints of a skeleton without bones: markers
        on the skin are no joints, a mapping says which of them stand for which joint.

    Raises:
        InputError: no such file, no C3D, damaged or cut, no points, a unit that is not known.

    Complexity: O(bytes).

    Source: the C3D User Guide (c3d.org), header, parameter and 3-D data sections.

    Example:
        >>> head = struct.pack("<2B5HfHHf", 2, 80, 1, 0, 1, 1, 0, -1.0, 3, 0, 50.0)  # 1 point, floats, data in block 3
        >>> blocks = (head, bytes([1, 80, 1, 84]), struct.pack("<4f", 0.1, 0.2, 1.8, 0.0))
        >>> content = b"".join(block.ljust(512, b"\\0") for block in blocks)
        >>> clip, = read_c3d(content, units="m")
        >>> clip.skeleton.joints, clip.fps, np.round(clip.points.astype(float), 3).tolist()
        (('point 1',), 50.0, [[[0.1, 0.2, 1.8]]])
    """
    where = name or (pathlib.Path(source).name if not isinstance(source, bytes) else "C3D")
    content = source if isinstance(source, bytes) else stored_bytes(pathlib.Path(source), _LIMIT_MB)
    file = parse_c3d(content, where, accept_truncated)
    if not file.valid.any():
        raise InputError("no point is there in any frame", where=where, found=f"{file.valid.size:,} gaps", cure=_AGAIN)
    height = float(np.ptp(file.points[file.valid], axis=0).max())
    scale, said = metres(file.unit if units is None and file.unit in LENGTHS else units, height, where)
    points, turned = upright(file.points * scale, up, where)
    fps, rate = round_rate(file.rate)
    notes = (*file.notes, said, *rate, *turned)
    title = where.removesuffix(".c3d").removesuffix(".C3D")
    clips = []
    for person, (subject, chosen) in enumerate(_people(file.labels).items()):
        names = tuple(file.labels[point].rpartition(":")[2] if subject else file.labels[point] for point in chosen)
        tree = Skeleton("its own markers", names, (-1,) * len(names), 0, *side_pairs(names))
        there = file.valid[:, chosen]
        rest = {"fps": fps, "subject": subject, "person": person, "notes": notes}
        clips.append(Clip.of(title, points[:, chosen], tree, there, **rest))
    return clips


def parse_c3d(content: bytes, where: str, accept_truncated: bool = False) -> C3dFile:
    """Read the header, the parameters and the points.

    Args:
        content: the file.
        where: what messages call it.
        accept_truncated: keep the whole frames of a file that is cut.

    Raises:
        InputError: no C3D, damaged or cut, no points.

    Complexity: O(bytes); sizes are compared with those of the file before room is made.

    Example:
        >>> head = struct.pack("<2B5HfHHf", 2, 80, 1, 0, 1, 1, 0, -1.0, 3, 0, 50.0)  # 1 point, floats, data in block 3
        >>> blocks = (head, bytes([1, 80, 1, 84]), struct.pack("<4f", 0.1, 0.2, 1.8, 0.0))
        >>> content = b"".join(block.ljust(512, b"\\0") for block in blocks)
        >>> file = parse_c3d(content, "a.c3d")
        >>> file.rate, file.points.shape, file.valid.all()
        (50.0, (1, 1, 3), np.True_)
    """
    if len(content) < 2 * _BLOCK or content[1] != 0x50:
        found, expected = f"{len(content):,} bytes, {content[:4]!r}", "a header of 512 bytes whose second byte is 80"
        raise InputError("not a C3D file, or only its beginning", where=where, found=found, expected=expected)
    start = (content[0] - 1) * _BLOCK
    if not 0 < start <= len(content) - _BLOCK or content[start + 3] not in (_INTEL, _DEC, _MIPS):
        found, expected = f"block {content[0]}", "the block of the parameters and the kind of numbers (84, 85, 86)"
        raise InputError(
            "not a C3D file, or without its parameters", where=where, found=found, expected=expected, cure=_AGAIN
        )
    kind = content[start + 3]
    words = np.frombuffer(content, ">u2" if kind == _MIPS else "<u2", 12)
    values = _parameters(content, start + 4, kind, where)
    count, analog = int(words[1]), int(words[2])
    first, last = _field(values, "TRIAL:ACTUAL_START_FIELD"), _field(values, "TRIAL:ACTUAL_END_FIELD")
    if first is None or last is None:
        first, last = int(words[3]), int(words[4])
    frames = last - first + 1
    scale = float(_floats(content[12:16], kind)[0])
    rate = float(_floats(content[20:24], kind)[0])
    if not count or frames < 1 or not np.isfinite(scale) or scale == 0:
        found = f"{count} points, frames {first} to {last}, scale {scale:g}"
        raise InputError("no points", where=where, found=found, expected="1 point and frame or more", cure=_AGAIN)
    if not 0 < rate <= 1e5:
        raise InputError("no frame rate", where=where, found=f"{rate:g} Hz", expected="more than 0", cure=_AGAIN)
    size = 4 if scale < 0 else 2
    begin, row = (int(words[8]) - 1) * _BLOCK, size * (4 * count + analog)
    there = max(0, (len(content) - begin) // row) if begin >= _BLOCK else 0
    notes: tuple[str, ...] = ()
    if there < frames:
        found, expected = f"{there:,} frames", f"{frames:,} frames of {count} points and {analog} other numbers"
        if not (accept_truncated and there):
            cure = _AGAIN + (", or accept truncated files to keep the whole frames" if there else "")
            raise InputError("the points are cut", where=where, found=found, expected=expected, cure=cure)
        notes, frames = (f"the file says {frames:,} frames and holds {there:,}: those were kept",), there
    points, valid, more = _points(content[begin : begin + frames * row], kind, scale, frames, count)
    labels, renamed = _labels(values, count)
    unit = values.get("POINT:UNITS")
    text = unit[0].strip().lower() if isinstance(unit, list) and unit else ""
    return C3dFile(labels, points, valid, rate, text, (*notes, *more, *renamed))


def _parameters(content: bytes, place: int, kind: int, where: str) -> dict[str, _Value]:
    """The values of all parameters by `GROUP:NAME`."""
    order = ">" if kind == _MIPS else "<"
    groups: dict[int, str] = {}
    found: list[tuple[int, str, _Value]] = []
    try:
        for _ in range(_MOST_PARAMETERS):
            length, number = struct.unpack_from("bb", content, place)
            if not length:
                break
            name = content[place + 2 : place + 2 + abs(length)].decode("latin-1").upper()
            place += 2 + abs(length)
            (step,) = struct.unpack_from(f"{order}h", content, place)
            if number < 0:
                groups[-number] = name
            else:
                found.append((number, name, _value(content, place + 2, kind)))
            if step <= 0:
                break
            place += step
    except (struct.error, IndexError, ValueError) as error:
        problem = "the parameters are damaged or cut"
        raise InputError(problem, where=where, found=f"byte {place:,}", cure=_AGAIN) from error
    return {f"{groups.get(number, number)}:{name}": value for number, name, value in found}


def _value(content: bytes, place: int, kind: int) -> _Value:
    """The value of one parameter; ValueError where the file ends before it does."""
    size, dims = struct.unpack_from("bB", content, place)
    shape = list(content[place + 2 : place + 2 + dims])
    if size not in _KINDS or len(shape) < dims or dims > 7:
        raise ValueError("no such parameter")
    count = 1
    for length in shape:
        count *= length
    begin = place + 2 + dims
    raw = content[begin : begin + count * _KINDS[size]]
    if len(raw) < count * _KINDS[size]:
        raise ValueError("cut")
    if size == -1:
        width = shape[0] if shape else 1
        text = raw.decode("latin-1")
        return [text[at : at + width].strip(" \0") for at in range(0, len(text), max(width, 1))]
    if size == 4:
        return _floats(raw, kind)
    return np.frombuffer(raw, "u1" if size == 1 else ">u2" if kind == _MIPS else "<u2").astype(np.float64)


def _floats(raw: bytes, kind: int) -> NDArray[np.float64]:
    """Float32 numbers as float64; those of DEC have their halves exchanged and an exponent that is greater by two."""
    if kind == _DEC:
        halves = np.frombuffer(raw, "<u2").reshape(-1, 2)[:, ::-1]
        bits = np.ascontiguousarray(halves).view("<u4")[:, 0]
        with np.errstate(invalid="ignore"):
            return np.where(bits & 0x7F800000, bits.view("<f4").astype(np.float64) / 4, 0.0)
    with np.errstate(invalid="ignore"):
        return np.frombuffer(raw, ">f4" if kind == _MIPS else "<f4").astype(np.float64)


def _field(values: Mapping[str, _Value], name: str) -> int | None:
    """A number of a frame in two words, the low one first."""
    words = values.get(name)
    if isinstance(words, list) or words is None or len(words) < 1:
        return None
    return int(words[0]) + (int(words[1]) << 16 if len(words) > 1 else 0)


def _points(
    raw: bytes, kind: int, scale: float, frames: int, count: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[str, ...]]:
    """(T, N, 3) in the file's unit, where a point is there, and notes."""
    if scale < 0:
        rows = _floats(raw, kind)
    else:
        rows = np.frombuffer(raw, ">i2" if kind == _MIPS else "<i2").astype(np.float64)
    table = rows.reshape(frames, -1)[:, : 4 * count].reshape(frames, count, 4)
    points, valid = table[..., :3] * (scale if scale > 0 else 1.0), table[..., 3] >= 0
    finite = np.isfinite(points).all(-1) & (np.abs(points) < 1e9).all(-1)
    zero = valid & finite & ~points.any(-1)
    notes = []
    if (valid & ~finite).any():
        notes.append(f"{int((valid & ~finite).sum()):,} points with numbers that are not finite or absurd: missing")
    if zero.any():
        notes.append(f"{int(zero.sum()):,} points at exactly 0, 0, 0 were taken as missing")
    valid = valid & finite & ~zero
    return np.where(valid[..., None], points, 0.0), valid, tuple(notes)


def _labels(values: Mapping[str, _Value], count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A different name for each point and a note where names had to be made."""
    given: list[str] = []
    for number in range(1, 1 + count):
        lines = values.get("POINT:LABELS" if number == 1 else f"POINT:LABELS{number}")
        if not isinstance(lines, list):
            break
        given += lines
    names: list[str] = []
    taken: set[str] = set()
    made = 0
    for point in range(count):
        label = given[point] if point < len(given) else ""
        unique, number = label or f"point {point + 1}", 1
        while unique in taken:
            number += 1
            unique = f"{label or f'point {point + 1}'}#{number}"
        made += unique != label
        taken.add(unique)
        names.append(unique)
    return tuple(names), (f"{made} points without a label of their own were numbered",) if made else ()


def _people(labels: tuple[str, ...]) -> dict[str, list[int]]:
    """The points of each person: by what stands before a colon; points without one are together."""
    people: dict[str, list[int]] = {}
    for point, label in enumerate(labels):
        people.setdefault(label.rpartition(":")[0], []).append(point)
    return people
