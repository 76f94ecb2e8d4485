"""Pictures of a comparison over many sets: the critical-difference diagram, and the score of each set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import InputError
from pipelines.evaluation import plots as house

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.evaluation.ranks import Comparison

__all__ = ["difference_figure", "sets_figure"]

_LONGEST = 30  # characters of a name
_LETTER = 0.083  # inches of a letter at the size of the names
_MOST = 150  # sets in one picture


def difference_figure(comparison: Comparison, *, title: str = "") -> Figure:
    """Draw the average ranks on an axis, the best on the right, and a bar over methods that do not differ.

    The bars join the cliques of the pairwise Wilcoxon tests with Holm's correction. Layout after Demsar 2006, figure 1.

    Args:
        comparison: of two or more methods.
        title: above the axis.

    Example:
        >>> from pipelines.evaluation.ranks import compare
        >>> len(difference_figure(compare({"a": [0.9, 0.8], "b": [0.5, 0.6]})).axes)
        1
    """
    names = [house._shortened(name, _LONGEST) for name in comparison.names]
    count = len(names)
    right = list(range(math.ceil(count / 2)))  # the better half, the best on top
    left = list(range(count - 1, right[-1], -1))
    side = 0.75 + _LETTER * max(len(name) for name in names)  # inches beside the axis for a name and its rank
    rows = max(len(right), len(left))
    top = 0.45 + 0.17 * len(comparison.cliques)  # inches from the axis to the first name

    def draw() -> Figure:
        width, below = 4.4, top + 0.34 * rows
        figure = house.new_figure(width + 2 * side, below + 1.0)
        axes = figure.subplots()
        span = count - 1.0
        inch = span / width  # ranks an inch
        axes.set_xlim(count + side * inch, 1 - side * inch)
        axes.set_ylim(-below, 0.4)
        _rank_axis(axes, count)
        for column, members in ((1, right), (-1, left)):
            edge = 1 - 0.12 * inch if column > 0 else count + 0.12 * inch
            for row, place in enumerate(members):
                _name(axes, names[place], comparison.ranks[place], edge, -top - 0.34 * row, inch * column)
        for row, clique in enumerate(comparison.cliques):
            ends = [comparison.rank_of(name) for name in (clique[0], clique[-1])]
            y = -0.24 - 0.17 * row
            reach = (ends[0] - 0.06 * inch, ends[1] + 0.06 * inch)
            axes.plot(reach, (y, y), color=house.ORANGE, linewidth=5, solid_capstyle="round", zorder=4)
        axes.set_axis_off()
        axes.set_title(title or "Average ranks; a bar joins what does not differ")
        return figure

    return house._styled(draw)


def _rank_axis(axes: Axes, count: int) -> None:
    """The axis itself, drawn by hand because names stand beyond both of its ends."""
    axes.plot((1, count), (0, 0), color=house.INK, linewidth=1.2, solid_capstyle="projecting")
    for half in range(2 * count - 1):
        rank, whole = 1 + half / 2, half % 2 == 0
        axes.plot((rank, rank), (0, 0.1 if whole else 0.06), color=house.INK, linewidth=1.0)
        if whole:
            axes.text(rank, 0.15, f"{rank:g}", ha="center", va="bottom", fontsize=9, color=house.FAINT)


def _name(axes: Axes, name: str, rank: float, edge: float, y: float, inch: float) -> None:
    """A line from the rank down and out to the edge, beyond it the name, and the rank outermost."""
    outward = "left" if inch > 0 else "right"
    axes.plot((rank, rank, edge), (0, y, y), color=house.FAINT, linewidth=1.0, zorder=2)
    axes.plot((rank,), (0,), marker="o", markersize=4, color=house.INK, zorder=5)
    text = f"{name}  {rank:.2f}" if inch > 0 else f"{rank:.2f}  {name}"
    axes.text(edge - 0.06 * inch, y, text, ha=outward, va="center")


def sets_figure(
    names: Sequence[str],
    scores: Mapping[str, Sequence[float]],
    *,
    metric: str = "accuracy",
    title: str = "",
) -> Figure:
    """Draw one row a set with a dot for the model and a ring for another method, by the difference between them.

    Args:
        names: N sets.
        scores: the model first, then the other method: name -> N scores.
        metric: for the axis.
        title: above the rows.

    Raises:
        InputError: not two methods, or another number of scores than names.

    Example:
        >>> len(sets_figure(["A", "B"], {"model": [0.9, 0.8], "dtw": [0.7, 0.85]}).axes)
        1
    """
    if len(scores) != 2 or any(len(values) != len(names) for values in scores.values()) or not names:
        found = {name: len(values) for name, values in scores.items()}
        raise InputError(
            "two methods with one score a set are drawn", found=found, expected=f"{len(names)} scores each"
        )
    (model, ours), (other, theirs) = ((name, np.asarray(values, float)) for name, values in scores.items())
    order = np.argsort(theirs - ours, kind="stable")
    if len(order) > _MOST:  # those that differ most, from both ends
        order = np.sort(np.argsort(-np.abs(ours - theirs), kind="stable")[:_MOST])
        order = order[np.argsort((theirs - ours)[order], kind="stable")]
    heading = title or f"{metric.capitalize()} of each set, by the difference"
    some = f" ({len(order)} of {len(names)} sets, the largest differences)" if len(order) < len(names) else ""

    def draw() -> Figure:
        figure = house.new_figure(8.0, 1.7 + 0.24 * len(order))
        axes = figure.subplots()
        rows = np.arange(len(order))[::-1]
        low, high = np.minimum(ours, theirs)[order], np.maximum(ours, theirs)[order]
        axes.hlines(rows, low, high, color="#b6bec7", linewidth=1.4, zorder=2)
        ring = {"facecolors": "white", "edgecolors": house.ORANGE, "linewidths": 1.6}
        axes.scatter(theirs[order], rows, s=64, label=house._shortened(other, 26), zorder=3, **ring)
        axes.scatter(ours[order], rows, s=22, color=house.BLUE, label=house._shortened(model, 26), zorder=4)
        axes.set_yticks(rows, [house._shortened(str(names[i]), _LONGEST) for i in order], fontsize=8.5)
        axes.set_ylim(-0.7, len(order) - 0.3)
        spare = max(0.05 * (high.max() - low.min()), 0.02)  # also where all scores are one
        axes.set_xlim(low.min() - spare, high.max() + spare)
        axes.set_xlabel(metric + some)
        figure.suptitle(
            house._shortened(heading, 72), x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=house.INK
        )
        house._legend(figure, [axes])
        return figure

    return house._styled(draw)
