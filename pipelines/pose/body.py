"""One body as lines on axes: where the viewer stands, colours of the sides, bones, the floor below, the scale.

A 3-D pose is drawn in parallel projection from a turned, slightly raised place. The left side of the body is blue and
dashed, the right one orange, the middle dark.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.datasets.pose_types import Skeleton
from pipelines.evaluation import plots as house
from pipelines.pose.tracks import Track, upright

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GREY", "TILT", "TURN", "body_lines", "extent", "floor_lines", "seen", "set_body", "set_picture", "sides"]

Floats = NDArray[np.float64]
#: Where the viewer stands, in degrees: to the right of the camera (or of -y of the world), and above.
TURN, TILT = 40.0, 12.0
#: Of the true pose behind a predicted one.
GREY = "#c3cad1"
_LEFT, _RIGHT, _MIDDLE = house.BLUE, house.ORANGE, house.INK


def seen(points: ArrayLike, frame: str, *, turn: float = TURN, tilt: float = TILT) -> Floats:
    """Project points of a frame to the plane of a picture, x to the right and y up, in metres.

    Args:
        points: (..., 3) m.
        frame: `camera` or `world`.
        turn: degrees by which the viewer walks to the right around the person.
        tilt: degrees by which the viewer stands higher.

    Returns:
        (..., 2) m.

    Complexity: O(points).

    Example:
        >>> seen([1.0, -2.0, 5.0], "camera", turn=0, tilt=0).tolist()
        [1.0, 2.0]
    """
    x, y, z = np.moveaxis(upright(np.asarray(points, np.float64), frame).astype(np.float64), -1, 0)
    a, b = math.radians(turn), math.radians(tilt)
    across, away = x * math.cos(a) + y * math.sin(a), y * math.cos(a) - x * math.sin(a)
    return np.stack([across, z * math.cos(b) + away * math.sin(b)], axis=-1)


def sides(skeleton: Skeleton) -> list[str]:
    """Colour of each joint, by its side of the body.

    Example:
        >>> sides(Skeleton("arms", ("neck", "l", "r"), (-1, 0, 0), 0, (1,), (2,)))
        ['#24292f', '#0072B2', '#D55E00']
    """
    colours = [_MIDDLE] * len(skeleton)
    for colour, joints in ((_LEFT, skeleton.left), (_RIGHT, skeleton.right)):
        for joint in joints:
            colours[joint] = colour
    return colours


def body_lines(ax: Axes, skeleton: Skeleton, *, width: float = 2.2, colour: str | None = None) -> Any:
    """Put the bones of one pose on axes, without a pose yet; `set_body` gives it one.

    Args:
        ax: where to draw.
        skeleton: whose bones.
        width: of the lines, points.
        colour: of all bones; by the side of the body by default.
    """
    from matplotlib.collections import LineCollection

    colours = sides(skeleton)
    drawn = [colour or colours[joint] for _, joint in skeleton.bones]
    dashes = ["-" if colour or c != _LEFT else (0, (2.2, 0.7)) for c in drawn]
    lines = LineCollection([], colors=drawn, linestyles=dashes, linewidths=width, capstyle="butt", zorder=3)
    return ax.add_collection(lines, autolim=False)


def set_body(lines: Any, places: Floats, valid: NDArray[np.bool_], skeleton: Skeleton) -> None:
    """Move bones to a pose (J, 2); bones with a joint that is not there vanish."""
    where = np.where(valid[:, None], places, np.nan)
    lines.set_segments([where[[one, two]] for one, two in skeleton.bones])


def extent(places: Floats, valid: NDArray[np.bool_], margin: float = 0.08) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of all points (..., 2) that are there, with a margin; never empty.

    Example:
        >>> extent(np.array([[0.0, 0.0], [10.0, 5.0]]), np.array([True, True]), 0.1)
        (-1.0, 11.0, -1.0, 6.0)
    """
    held = places[valid & np.isfinite(places).all(-1)]
    if not len(held):
        return -1.0, 1.0, -1.0, 1.0
    low, high = held.min(0), held.max(0)
    more = margin * (float((high - low).max()) or 1.0)
    (left, bottom), (right, top) = low - more, high + more
    return float(left), float(right), float(bottom), float(top)


def floor_lines(track: Track, *, turn: float = TURN, square: float = 0.5) -> tuple[list[Floats], float]:
    """Lines of a floor of squares under all poses, at their lowest joint, as segments (2, 2) of the picture plane.

    Args:
        track: of T frames.
        turn: as `seen`.
        square: side of the squares, m; doubled until the floor has at most 24 of them along a side.

    Returns:
        The lines, and the side of the squares.
    """
    held = upright(track.points[track.valid], track.frame).astype(np.float64)
    if not len(held):
        return [], square
    low, high = held.min(0), held.max(0)
    while (high[:2] - low[:2]).max() > 22 * square:
        square *= 2
    low[:2], high[:2] = low[:2] - square / 2, high[:2] + square / 2
    (left, near), (right, far) = np.floor(low[:2] / square) * square, np.ceil(high[:2] / square) * square
    across = np.arange(left, right + square / 2, square)
    along = np.arange(near, far + square / 2, square)
    ends = [((x, near, low[2]), (x, far, low[2])) for x in across] + [
        ((left, y, low[2]), (right, y, low[2])) for y in along
    ]
    return [seen(np.array(pair), "world", turn=turn) for pair in ends], square


def set_picture(ax: Axes, box: tuple[float, float, float, float], *, down: bool, shape: float | None = None) -> None:
    """Show the box with equal scales and without axes, y down for images; widened to axes of height / width `shape`."""
    left, right, bottom, top = box
    if shape is not None:
        wide, high = max(right - left, (top - bottom) / shape), max(top - bottom, (right - left) * shape)
        left, right = (left + right - wide) / 2, (left + right + wide) / 2
        bottom, top = (bottom + top - high) / 2, (bottom + top + high) / 2
    ax.set_xlim(left, right)
    ax.set_ylim((top, bottom) if down else (bottom, top))
    ax.set_aspect("equal")
    ax.set_axis_off()
