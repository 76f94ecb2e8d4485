"""What files of motion capture share: units of length, frame rates, axes, rotations, the sides of the body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["LENGTHS", "guess_unit", "metres", "rotations", "round_rate", "side_pairs", "to_z_up", "upright"]

#: Metres of one unit, by name. A unit of the CMU files is 1 / 0.45 inches.
LENGTHS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "cmu": 0.0254 / 0.45}

_FARTHEST = 1e4  # m: nobody walks farther from the origin
_SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))


def rotations(axis: int, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Right-handed rotations about one axis.

    Args:
        axis: 0, 1 or 2.
        angle: (T,) rad.

    Returns:
        (T, 3, 3).

    Example:
        >>> rotations(2, np.array([np.pi / 2])).round(3).tolist()
        [[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, axis, axis] = 1
    matrix[:, one, one] = matrix[:, two, two] = cosine
    matrix[:, two, one], matrix[:, one, two] = sine, -sine
    return matrix


def to_z_up(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn points with y up to z up, a quarter turn about x.

    Args:
        points: (..., 3), y up.

    Returns:
        (..., 3), z up.

    Example:
        >>> to_z_up(np.array([1.0, 2.0, 3.0])).tolist()
        [1.0, -3.0, 2.0]
    """
    return np.stack((points[..., 0], 0.0 - points[..., 2], points[..., 1]), -1)  # 0.0 -: no negative zeros


def upright(points: NDArray[np.float64], up: str, where: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Points in m with z up and a note where they were turned; what no person can do is refused.

    Args:
        points: (..., 3) m.
        up: the axis that points up, y or z.
        where: what messages call the file.

    Raises:
        InputError: another axis, points that are 10 km away or not finite.

    Example:
        >>> upright(np.array([[0.0, 2.0, 0.0]]), "y", "a.bvh")[0].tolist()
        [[0.0, 0.0, 2.0]]
    """
    if up not in ("y", "z"):
        raise InputError("no such axis", where="up", found=repr(up), expected="y or z")
    if not np.abs(points).max(initial=0) <= _FARTHEST:
        found, cure = f"{np.abs(points).max():.3g} m", "check units, or the file"
        raise InputError("joints farther than anybody goes", where=where, found=found, cure=cure)
    if up == "z":
        return points, ()
    return to_z_up(points), ("y up turned to z up: (x, y, z) to (x, -z, y)",)


def round_rate(rate: float) -> tuple[float, tuple[str, ...]]:
    """A frame rate without the rounding of the frame time that it was computed from, and a note where that was done.

    Args:
        rate: Hz.

    Example:
        >>> round_rate(1 / 0.0083333)
        (120.0, ('120.0005 Hz, from a rounded frame time, taken as 120 Hz',))
        >>> round_rate(1 / 0.0333667)[0]
        29.97...
    """
    whole = round(rate)
    if rate == whole or not whole or abs(rate / whole - 1) > 2e-4:
        return rate, ()
    return float(whole), (f"{rate:.7g} Hz, from a rounded frame time, taken as {whole} Hz",)


def guess_unit(height: float, *, cmu: bool = False) -> str | None:
    """The unit in which a length is that of a person, 0.8 to 3 m; None where no unit fits.

    Args:
        height: of a rest pose, in the file's unit.
        cmu: whether the joints have the names of the CMU files.

    Example:
        >>> guess_unit(178.0), guess_unit(1.7), guess_unit(30.0), guess_unit(30.0, cmu=True)
        ('cm', 'm', None, 'cmu')
    """
    names = ("cmu", "m", "cm", "mm") if cmu else ("m", "cm", "mm")
    return next((name for name in names if 0.8 <= height * LENGTHS[name] < 3), None)


def metres(
    units: str | float | None, height: float, where: str, *, cmu: bool = False, inches: float | None = None
) -> tuple[float, str]:
    """Metres of one unit and how that is known.

    Args:
        units: a name, or metres of one unit; None tells it from the height.
        height: of the rest pose in the file's unit.
        where: what messages call the file.
        cmu: whether the joints have the names of the CMU files.
        inches: units of one inch that the file states.

    Raises:
        InputError: an unknown unit, or a height that no unit makes a person's.

    Example:
        >>> metres(None, 178.0, "a.bvh")
        (0.01, 'lengths taken as cm (0.01 m): the rest pose is 178 units high')
    """
    if isinstance(units, str):
        if units not in LENGTHS:
            expected = f"{', '.join(LENGTHS)}, or metres as a number"
            raise InputError("no such unit", where="units", found=repr(units), expected=expected)
        return LENGTHS[units], f"lengths in {units} ({LENGTHS[units]:.6g} m)"
    if units is not None:
        if not 0 < units < np.inf:
            raise InputError("no such unit", where="units", found=units, expected="metres of one unit, more than 0")
        return float(units), f"lengths in units of {units:.6g} m"
    if inches is not None and 0.8 <= height * LENGTHS["inch"] / inches < 3:
        scale = LENGTHS["inch"] / inches
        return scale, f"{inches:g} units an inch ({scale:.6g} m), as the file says: the rest pose is {height:.4g} high"
    unit = guess_unit(height, cmu=cmu)
    if unit is None:
        found, expected = f"a rest pose of {height:.4g} units", "0.8 to 3 m, in m, cm or mm"
        cure = f"give units: {', '.join(LENGTHS)}, or metres of one unit"
        raise InputError("the unit of length cannot be told", where=where, found=found, expected=expected, cure=cure)
    return LENGTHS[unit], f"lengths taken as {unit} ({LENGTHS[unit]:.6g} m): the rest pose is {height:.4g} units high"


def side_pairs(names: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Joints of the left side and their mirror joints, by names: Left and Right, or L and R at the beginning or end.

    Args:
        names: J different names.

    Returns:
        numbers of the left and, in the same order, of the right joints.

    Example:
        >>> side_pairs(("Hips", "LeftUpLeg", "RightUpLeg", "LThumb", "RThumb", "Lamp"))
        ((1, 3), (2, 4))
    """
    place = {name: joint for joint, name in enumerate(names)}
    found: dict[int, int] = {}
    for joint, name in enumerate(names):
        mirrors = [name.replace(one, two) for one, two in _SIDES if one in name]
        bare, prefix = name.rpartition(":")[2], name[: name.rfind(":") + 1]
        mirrors += [prefix + two + bare[1:] for one, two in ("LR", "lr") if bare.startswith(one)]
        mirrors += [name[:-1] + two for one, two in ("LR", "lr") if name.endswith((f"_{one}", f".{one}"))]
        other = next((place[mirror] for mirror in mirrors if mirror in place and mirror != name), None)
        if other is not None and other not in found.values():
            found[joint] = other
    return tuple(found), tuple(found.values())
