"""Pictures of poses and of figures about them: strips of poses, one skeleton with names, bars, curves, courses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.datasets.pose_types import Clip, Skeleton
from pipelines.errors import InputError
from pipelines.evaluation import plots as house
from pipelines.pose.body import GREY, TILT, TURN, body_lines, extent, seen, set_body, set_picture, sides
from pipelines.pose.metrics import THRESHOLDS
from pipelines.pose.tracks import Track

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bars_figure", "course_figure", "pck_figure", "skeleton_figure", "strip_figure"]

Floats = NDArray[np.float64]
_BARS = 40


def strip_figure(track: Track, *, count: int = 6, title: str = "") -> Figure:
    """Draw poses at equal steps of time: the 2-D input above (where there is one), the 3-D pose below.

    Args:
        track: T frames.
        count: poses; fewer where there are fewer frames.
        title: above the picture; the track's name by default.

    Raises:
        InputError: a count under 1.

    Complexity: O(T J), for the common scale of all frames.

    Example:
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> len(strip_figure(Track("a", np.zeros((9, 2, 3)), np.ones((9, 2)), hand), count=3).axes)
        3
    """
    if count < 1:
        raise InputError("no pose to draw", where="count", found=count, expected="1 or more")
    frames = np.unique(np.linspace(0, track.frames - 1, count).round().astype(int))
    inputs = track.inputs
    flat = seen(track.points, track.frame)
    truth = None if track.truth is None else seen(track.truth, track.frame)
    box = extent(flat, track.valid)

    def draw() -> Figure:
        rows = 1 if inputs is None else 2
        figure = house.new_figure(1.75 * len(frames) + 0.6, 2.7 * rows + 0.5)
        axes = figure.subplots(rows, len(frames), squeeze=False)
        for column, frame in enumerate(frames):
            if inputs is not None:
                _still(axes[0, column], inputs.points[frame], inputs.valid[frame], inputs.skeleton,
                       extent(inputs.points[frame].astype(np.float64), inputs.valid[frame]), down=True)  # fmt: skip
            ax = axes[-1, column]
            if truth is not None:
                _still(ax, truth[frame], track.valid[frame], track.skeleton, box, colour=GREY)
            _still(ax, flat[frame], track.valid[frame], track.skeleton, box)
            axes[0, column].set_title(_when(track, int(frame)), fontsize=9, loc="center", fontweight="normal")
        said = "2-D input (each fitted to its picture) above, " if inputs is not None else ""
        grey = ", truth in grey" if truth is not None else ""
        figure.suptitle(title or track.label, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        figure.supxlabel(f"{said}3-D pose from {TURN:g}° to the right and {TILT:g}° above{grey}; left side dashed",
                         fontsize=8.5, color=house.FAINT)  # fmt: skip
        return figure

    return house._styled(draw)


def _still(
    ax: Axes,
    places: NDArray[np.floating],
    valid: NDArray[np.bool_],
    skeleton: Skeleton,
    box: tuple[float, float, float, float],
    *,
    down: bool = False,
    colour: str | None = None,
) -> None:
    set_body(body_lines(ax, skeleton, colour=colour), np.asarray(places, np.float64), valid, skeleton)
    set_picture(ax, box, down=down)


def _when(track: Track, frame: int) -> str:
    return f"frame {frame:,}" if track.fps is None else f"{frame / track.fps:.2f} s"


def skeleton_figure(clip: Clip, *, frame: int = 0) -> Figure:
    """Draw one pose of a clip with the number and name of each joint: what a skeleton's order means.

    Args:
        clip: 2-D in px or normalised, or 3-D.
        frame: which.

    Raises:
        InputError: no such frame.

    Example:
        >>> hand = Skeleton("hand", ("wrist", "finger"), (-1, 0), 0)
        >>> figure = skeleton_figure(Clip.of("a", [[[0, 0], [3, 4]]], hand, unit="px", frame="image"))
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['0 wrist', '1 finger']
    """
    if not 0 <= frame < len(clip):
        raise InputError("no such frame", where=clip.name, found=frame, expected=f"0 to {len(clip) - 1}")
    flat, valid, skeleton = clip.points[frame].astype(np.float64), clip.valid[frame], clip.skeleton
    places = flat if clip.dims == 2 else seen(flat, clip.frame)
    down = clip.dims == 2 and clip.frame != "world"

    def draw() -> Figure:
        figure = house.new_figure(5.4, 6.4)
        ax = figure.subplots()
        _still(ax, places, valid, skeleton, extent(places, valid, 0.2), down=down)
        names = {int(joint): f"{joint} {skeleton.joints[joint]}" for joint in np.flatnonzero(valid)}
        scale = 340.0 / max(float(np.ptp(places[valid], axis=0).max()), 1e-9) if names else 1.0
        offsets = _beside({joint: places[joint] * (scale, -scale if down else scale) for joint in names}, names)
        for joint, name in names.items():
            colour = sides(skeleton)[joint]
            ax.plot(*places[joint], "o", ms=4.5, color=colour, zorder=4)
            ax.annotate(name, places[joint], offsets[joint], textcoords="offset points", fontsize=7.5, color=colour,
                        va="center", zorder=5)  # fmt: skip
        lost = len(skeleton) - int(valid.sum())
        ax.set_title(f"{skeleton.name}: {len(skeleton)} joints" + (f", {lost} missing here" if lost else ""))
        return figure

    return house._styled(draw)


def _beside(places: Mapping[int, Floats], names: Mapping[int, str]) -> dict[int, tuple[float, float]]:
    """Where the names stand beside their joints, in points, so that none lies over another name or joint."""
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in places.values()]
    offsets: dict[int, tuple[float, float]] = {}
    for joint, (x, y) in places.items():
        wide = 4.4 * len(names[joint])
        tries = [(side, up) for up in (0, 7, -7, 14, -14, 21, -21, 28, -28) for side in (7.0, -7.0 - wide)]
        boxes = [(x + dx, y + dy - 4, x + dx + wide, y + dy + 4) for dx, dy in tries]
        free = [not any(a < q and p < c and b < s and r < d for p, r, q, s in taken) for a, b, c, d in boxes]
        best = free.index(True) if any(free) else 0
        taken.append(boxes[best])
        offsets[joint] = tries[best]
    return offsets


def bars_figure(
    values: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    marked: Mapping[str, float] | None = None,
    models: bool = False,
    unit: str = "MPJPE (mm)",
    title: str = "",
) -> Figure:
    """Draw one bar a joint, action or model.

    Args:
        values: name -> figure; of more than forty the first are drawn, and the title says so.
        intervals: name -> 95 % interval.
        marked: name -> figure of another model, drawn as an orange tick.
        models: the bars are models; the first one, whose they are, is darker.
        unit: for the axis.
        title: above the picture.

    Raises:
        InputError: nothing to draw.

    Example:
        >>> len(bars_figure({"convformer": 40.0, "linear": 88.0}, models=True).axes[0].patches)
        2
    """
    if not values:
        raise InputError("no figure to draw", expected="at least one")
    names = list(values)[:_BARS]
    numbers = np.array([values[name] for name in names], np.float64)

    def draw() -> Figure:
        figure = house.new_figure(8.0, 1.3 + 0.3 * len(names))
        ax = figure.subplots()
        first = house.BLUE if models else house.SKY
        ax.barh(range(len(names)), np.nan_to_num(numbers), color=[first, *[house.SKY] * (len(names) - 1)], height=0.66)
        for place, name in enumerate(names):
            ends = (intervals or {}).get(name)
            if ends is not None:
                ax.hlines(place, *ends, color=house.INK, lw=1.3)
            if marked and name in marked:
                ax.plot([marked[name]] * 2, [place - 0.4, place + 0.4], color=house.ORANGE, lw=1.8)
            told = "–" if math.isnan(numbers[place]) else f"{numbers[place]:.1f}"
            if marked and name in marked:
                told += f" (tick: {marked[name]:.1f})"
            reach = np.nanmax([0.0, numbers[place], *(ends or ()), (marked or {}).get(name, 0.0)])
            ax.annotate(told, (reach, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
        ax.set_yticks(range(len(names)), names, fontsize=9)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.margins(x=0.12)
        ax.set_xlabel(unit)
        more = f", the first {len(names)} of {len(values):,}" if len(values) > len(names) else ""
        ax.set_title(f"{title or unit}{more}")
        return figure

    return house._styled(draw)


def pck_figure(curves: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Draw the share of joints below each threshold, one line a model; the area below a line is its AUC.

    Args:
        curves: model -> (31,) %, as `Tally.curve` gives them.
        title: above the picture.

    Raises:
        InputError: no model, or another number of thresholds.

    Example:
        >>> len(pck_figure({"mean pose": np.zeros(31)}).axes[0].lines)
        1
    """
    held = {name: np.asarray(curve, np.float64) for name, curve in curves.items()}
    wrong = {name: curve.shape for name, curve in held.items() if curve.shape != THRESHOLDS.shape}
    if wrong or not held:
        raise InputError("no curves to draw", found=wrong or "none", expected=f"{len(THRESHOLDS)} thresholds each")

    def draw() -> Figure:
        figure = house.new_figure(7.0, 4.2)
        ax = figure.subplots()
        for place, (name, curve) in enumerate(held.items()):
            colour, style = house.SERIES[place % len(house.SERIES)]
            ax.plot(THRESHOLDS, curve, color=colour, ls=style, label=f"{name} (AUC {curve.mean():.1f} %)")
        ax.set_xlim(0, THRESHOLDS[-1])
        ax.set_ylim(0, 101)
        ax.set_xlabel("threshold (mm)")
        ax.set_ylabel("joints below it (%)")
        ax.set_title(title or "Share of joints by their error")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        return figure

    return house._styled(draw)


def course_figure(
    series: Mapping[str, ArrayLike], *, fps: float | None, unit: str = "mean error (mm)", title: str = ""
) -> Figure:
    """Draw figures of a clip over time: errors of several models, or the uncertainty.

    Args:
        series: name -> (T,), NaN where there is none.
        fps: Hz; frames are numbered where it is None.
        unit: for the axis.
        title: above the picture.

    Raises:
        InputError: nothing to draw, or lengths that differ.

    Example:
        >>> course_figure({"model": [20.0, 30.0]}, fps=25.0).axes[0].get_xlabel()
        'time (s)'
    """
    held = {name: np.asarray(values, np.float64) for name, values in series.items()}
    shapes = {values.shape for values in held.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise InputError("nothing to draw over time", found=sorted(shapes), expected="one length (T,)")

    def draw() -> Figure:
        figure = house.new_figure(9.0, 3.4)
        ax = figure.subplots()
        for place, (name, values) in enumerate(held.items()):
            colour, style = house.SERIES[place % len(house.SERIES)]
            mark = "." if len(values) < 3 else None
            ax.plot(np.arange(len(values)) / (fps or 1.0), values, color=colour, ls=style, lw=1.4, label=name,
                    marker=mark)  # fmt: skip
        ax.set_ylim(bottom=0)
        ax.set_xlabel("time (s)" if fps else "frame")
        ax.set_ylabel(unit)
        ax.set_title(title or unit)
        if len(held) > 1:
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        return figure

    return house._styled(draw)
