"""In which unit and along which axes a file holds its joints: decided and said, or asked for; then converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.pose_skeletons import up_axis
from pipelines.data.datasets.pose_types import Clip, Frame, Skeleton, Unit
from pipelines.data.errors import InputError
from pipelines.data.formats.pose_source import FileUnit, PoseReading, Raw

__all__ = ["Placed", "placed", "unit_of"]

_Points = NDArray[np.float64]
_METRES: Mapping[FileUnit, float] = MappingProxyType({"m": 1.0, "cm": 0.01, "mm": 0.001})
_FLAT: tuple[FileUnit, ...] = ("px", "fraction", "signed", "normalised")
#: Diagonals of the box around a person, in m; between two units lies a gap that nobody fills.
_PERSON = (0.35, 3.5)


@dataclass(frozen=True, eq=False)
class Placed:
    """Points (T, J, D) in a unit of clips and along its axes, and what was done to get there."""

    points: _Points
    unit: Unit
    frame: Frame
    notes: tuple[str, ...]


def unit_of(raws: Sequence[Raw], reading: PoseReading) -> tuple[FileUnit, tuple[str, ...]]:
    """The unit of the joints of one file: as it says, as the caller says, or by the size of the numbers.

    Args:
        raws: all persons of the file.
        reading: what the caller says.

    Returns:
        the unit, and a note where it was decided here.

    Raises:
        InputError: numbers of which it cannot be told; the file and the caller say different units.

    Complexity: O(T J).

    Example:
        >>> unit_of([Raw("a", np.array([[[120.0, 340.0]]]))], PoseReading())
        ('px', ('coordinates reach 340: taken for pixels',))
    """
    name, dims = raws[0].name, raws[0].points.shape[2]
    told: set[FileUnit] = {raw.unit for raw in raws if raw.unit is not None and raw.unit != "auto"}
    given = told.pop() if len(told) == 1 else None
    if given is not None and reading.unit not in ("auto", given):
        cure = "leave unit out: the file says it"
        raise InputError("another unit than was said", where=name, found=given, expected=reading.unit, cure=cure)
    unit: FileUnit = given if given is not None else reading.unit
    if unit != "auto":
        if (unit in _METRES) != (dims == 3):
            found = f"{dims} coordinates a joint in {unit}"
            raise InputError("a unit that does not fit", where=name, found=found, expected="2 in px, 3 in m, cm or mm")
        _plausible(raws, unit, name)
        return unit, ()
    return _lengths(raws, name) if dims == 3 else _image(raws, reading, name)


def _reach(raws: Sequence[Raw]) -> tuple[float, float, float]:
    """The smallest and largest coordinate, and the share of coordinates below zero."""
    finite = [raw.points[np.isfinite(raw.points)] for raw in raws]
    every = np.concatenate(finite) if finite else np.zeros(0)
    if not every.size:
        raise InputError(
            "no joint of a person", where=raws[0].name, found="every joint missing", expected="one or more"
        )
    return float(every.min()), float(every.max()), float((every < 0).mean())


def _plausible(raws: Sequence[Raw], unit: FileUnit, name: str) -> None:
    """What the numbers cannot be in the unit that was said."""
    low, high, _ = _reach(raws)
    most = max(abs(low), abs(high))
    if unit in ("fraction", "signed", "normalised") and most > 10:
        found = f"coordinates from {low:.4g} to {high:.4g}"
        raise InputError(f"not {unit}", where=name, found=found, expected="about -1 to 1", cure="say unit px")


def _image(raws: Sequence[Raw], reading: PoseReading, name: str) -> tuple[FileUnit, tuple[str, ...]]:
    low, high, below = _reach(raws)
    most = max(abs(low), abs(high))
    found = f"coordinates from {low:.4g} to {high:.4g}"
    if most > 10:
        return "px", (f"coordinates reach {high:.4g}: taken for pixels",)
    sized = any(raw.size for raw in raws) or reading.size is not None
    pixels = any(raw.pixels for raw in raws)
    if not pixels and below > 0.05 and most <= 1.5:
        return "normalised", (f"{found}: taken for normalised (x / w * 2 - 1, y / w * 2 - h / w)",)
    if below <= 0.05 and most <= 1.5 and sized:
        return "fraction", (f"{found}: taken for fractions of the width and height of the image",)
    cure = "say it with --read.unit: px, fraction (0 to 1), signed (-1 to 1 along each side) or normalised"
    cure += "" if sized else "; fractions need --read.size W,H too"
    raise InputError("pixels, fractions or normalised cannot be told apart", where=name, found=found, cure=cure)


def _lengths(raws: Sequence[Raw], name: str) -> tuple[FileUnit, tuple[str, ...]]:
    boxes: list[_Points] = []
    for raw in raws:
        full = raw.points[np.isfinite(raw.points).all(-1).mean(1) > 0.5]
        if len(full):
            boxes.append(np.linalg.norm(np.nanmax(full, axis=1) - np.nanmin(full, axis=1), axis=-1))
    tall = float(np.median(np.concatenate(boxes))) if boxes else float("nan")
    for unit, metres in _METRES.items():
        if _PERSON[0] <= tall * metres <= _PERSON[1]:
            return unit, () if unit == "m" else (f"a person measures {tall:.4g} across: taken for {unit}",)
    found, cure = f"a person measures {tall:.4g} across", "say it with --read.unit: m, cm or mm"
    raise InputError("the unit of 3-D joints cannot be told", where=name, found=found, cure=cure)


def placed(points: _Points, unit: FileUnit, raw: Raw, tree: Skeleton, reading: PoseReading) -> Placed:
    """Points in a unit of clips: px or normalised in the image, m in a camera's or the world's axes.

    Args:
        points: (T, J, D) in `unit`, NaN where missing.
        unit: as `unit_of` has it.
        raw: for name, size and frame.
        tree: of the J joints.
        reading: for size and up.

    Raises:
        InputError: fractions without the size of the image; a size that the file contradicts or that cannot be; 3-D
            axes that cannot be told.

    Complexity: O(T J).

    Example:
        >>> arm = Skeleton("arm", ("elbow", "wrist"), (-1, 0), 0)
        >>> raw = Raw("a", np.array([[[0.25, 0.5], [0.5, 0.5]]]), size=(640, 480))
        >>> placed(raw.points, "fraction", raw, arm, PoseReading()).points.tolist()
        [[[160.0, 240.0], [320.0, 240.0]]]
    """
    if raw.size is not None and reading.size is not None and tuple(raw.size) != tuple(reading.size):
        found, cure = f"{raw.size[0]} x {raw.size[1]} px", "leave size out: the file says it"
        expected = f"{reading.size[0]} x {reading.size[1]}"
        raise InputError("another image than was said", where=raw.name, found=found, expected=expected, cure=cure)
    return _deep(points, unit, raw, tree, reading) if points.shape[2] == 3 else _flat(points, unit, raw, reading)


def _flat(points: _Points, unit: FileUnit, raw: Raw, reading: PoseReading) -> Placed:
    size = raw.size or reading.size
    notes: list[str] = []
    if unit in ("fraction", "signed"):
        if size is None:
            cure = "give the width and height of the image: --read.size W,H"
            raise InputError(
                "the shape of the image is not known", where=raw.name, found=f"{unit} coordinates", cure=cure
            )
        points = (points + 1) / 2 * size if unit == "signed" else points * size
        notes.append(f"{unit} coordinates turned into px of an image of {size[0]} x {size[1]}")
        unit = "px"
    if reading.up == "z":
        raise InputError("no such axis", where=raw.name, found="up = z for 2-D joints", expected="y or -y")
    if reading.up == "y":
        points, told = _turned(points, unit, size, raw.name)
        notes.append(told)
    if unit == "px" and size is not None:
        _inside(points, size, raw.name)
    return Placed(points, "px" if unit == "px" else "normalised", "image", tuple(notes))


def _turned(points: _Points, unit: FileUnit, size: tuple[int, int] | None, name: str) -> tuple[_Points, str]:
    """y down instead of y up."""
    if unit == "px" and size is None:
        cure = "give the width and height of the image: --read.size W,H"
        raise InputError("y up needs the height of the image", where=name, found="no size", cure=cure)
    out = points.copy()
    out[..., 1] = (size[1] if size is not None and unit == "px" else 0.0) - out[..., 1]
    return out, "y turned down, since it points up in the file, as was said"


def _inside(points: _Points, size: tuple[int, int], name: str) -> None:
    middle = np.nanmedian(points.reshape(-1, 2), axis=0) if np.isfinite(points).any() else np.zeros(2)
    if not ((middle >= 0) & (middle <= size)).all():
        found = f"joints about ({middle[0]:.4g}, {middle[1]:.4g}) px, an image of {size[0]} x {size[1]}"
        raise InputError("most joints lie outside of the image", where=name, found=found, cure="check size and unit")


def _deep(points: _Points, unit: FileUnit, raw: Raw, tree: Skeleton, reading: PoseReading) -> Placed:
    metres = _METRES[unit]
    notes = [] if unit == "m" else [f"{unit} turned into m"]
    points = points * metres
    if raw.frame in ("camera", "world") and reading.up == "auto":
        return Placed(points, "m", raw.frame, tuple(notes))
    up = reading.up
    if up == "auto":
        told = up_axis(Clip.of(raw.name, points, tree, unit="m", frame="camera"))
        if told not in ("y", "-y", "z"):
            found = "no upright people" if told is None else f"people that stand along {told}"
            cure = "say it with --read.up: y, -y (camera: y down) or z (world)"
            raise InputError("the axis that points up cannot be told", where=raw.name, found=found, cure=cure)
        up = told
        notes.append(f"people stand along {told}: taken for {'the camera frame' if told == '-y' else 'up'}")
    if up == "y":
        notes.append("turned from y up to z up")
        points = np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1)
    return Placed(points, "m", "camera" if up == "-y" else "world", tuple(notes))
