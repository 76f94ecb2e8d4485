"""Pictures of answers about scans: classes over time, subjects, true against predicted, runs, and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pipelines.classify.plots import confusion_figure
from pipelines.errors import InputError
from pipelines.evaluation import plots as house
from pipelines.fmri.brain_pictures import glass_figure, map_figure, slices_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.data.datasets.brain_types import Events

__all__ = [
    "baselines_figure",
    "confusion_figure",
    "course_figure",
    "glass_figure",
    "groups_figure",
    "map_figure",
    "people_figure",
    "regression_figure",
    "similarity_figure",
    "slices_figure",
]

_LINES = 4  # classes that are drawn as lines; more are a picture of their own
_BARS = 40  # people, runs or vectors that a picture names
_NAMED = 0.035  # share of the width from which an event has room for its name


def _short(text: str, longest: int = 34) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def course_figure(
    start: ArrayLike,
    length: float,
    values: ArrayLike,
    names: Sequence[str],
    *,
    events: Events | None = None,
    seconds: bool = True,
    title: str = "",
    unit: str = "probability",
) -> Figure:
    """Draw probabilities of classes (or one value) over a run, with what was shown below.

    Args:
        start: (N,) begin of each answer in s, in order; gaps stay empty.
        length: how long one answer lasts, in s.
        values: (N, K) one column a class, or one column for a value.
        names: the K classes.
        events: what was shown; its true class is framed where classes are rows.
        seconds: whether times are s; volumes where the repetition time is not known.
        title: above the picture.
        unit: of the values.

    Raises:
        InputError: no answer, or shapes that do not fit.

    Example:
        >>> figure = course_figure([0, 2, 4], 2.0, [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], ["face", "house"])
        >>> len(figure.axes[0].lines)
        2
    """
    times, table = np.asarray(start, np.float64), np.asarray(values, np.float64)
    if table.ndim != 2 or not len(times) or table.shape != (len(times), len(names)):
        raise InputError("nothing to draw over time", found=table.shape, expected=f"({len(times)}, {len(names)})")

    def draw() -> Figure:
        rows = len(names) > _LINES
        known = events is not None and len(events) > 0
        figure = house.new_figure(11.0, (1.6 + 0.3 * len(names) if rows else 3.6) + (0.8 if known else 0))
        heights = [5.0, 0.6] if known else [1.0]
        axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        if rows:
            _class_rows(figure, axes[0], times, length, table, names, events, unit)
        else:
            _class_lines(axes[0], times, length, table, names, unit)
        end = times[-1] + length
        if known and events is not None:
            _event_row(axes[1], events, names, float(times[0]), float(end))
        axes[0].set_xlim(times[0], end)
        axes[-1].set_xlabel("time (s)" if seconds else "volume")
        axes[0].set_title(title or "Answers over the run")
        return figure

    return house._styled(draw)


def _class_lines(ax: Axes, times: Any, length: float, table: Any, names: Sequence[str], unit: str) -> None:
    gaps = np.flatnonzero(np.diff(times) > 1.5 * length) + 1
    places = np.insert(times + length / 2, gaps, np.nan)
    for column, name in enumerate(names):
        colour, style = house.SERIES[column % len(house.SERIES)]
        ax.plot(places, np.insert(table[:, column], gaps, np.nan), color=colour, ls=style, lw=1.4, label=_short(name),
                marker="." if len(times) < 3 else None)  # fmt: skip
    if unit == "probability":
        ax.set_ylim(-0.02, 1.02)
    ax.set_ylabel(unit)
    if len(names) > 1:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)


def _class_rows(
    figure: Figure,
    ax: Axes,
    times: Any,
    length: float,
    table: Any,
    names: Sequence[str],
    events: Events | None,
    unit: str,
) -> None:
    from matplotlib.patches import Rectangle

    edges = [times[0]]
    columns = []
    for time, row in zip(times, table, strict=True):
        if time > edges[-1] + 0.5 * length:  # a gap is a column of its own, without a colour
            columns.append(np.full(len(names), np.nan))
            edges.append(time)
        columns.append(row)
        edges.append(time + length)
    most = 1.0 if unit == "probability" else float(np.nanmax(np.abs(table))) or 1.0
    shown = np.ma.masked_invalid(np.stack(columns, 1))
    mesh = ax.pcolormesh(edges, np.arange(len(names) + 1) - 0.5, shown, cmap="Blues", vmin=0.0, vmax=most)
    ax.set_yticks(range(len(names)), [_short(name, 20) for name in names], fontsize=9)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False)
    bar = figure.colorbar(mesh, ax=ax, pad=0.01, aspect=12)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(unit, fontsize=9)
    if events is None:
        return
    lasting = np.nan_to_num(events.duration)
    for onset, duration, kind in zip(events.onset, lasting, events.kind, strict=True):
        if kind in names:
            place = (float(onset), list(names).index(kind) - 0.5)
            frame = Rectangle(place, float(duration) or length, 1.0, fill=False, edgecolor=house.ORANGE, linewidth=1.3)
            ax.add_patch(frame)


def _event_row(ax: Axes, events: Events, names: Sequence[str], begin: float, end: float) -> None:
    colours = {name: house.SERIES[place % len(house.SERIES)][0] for place, name in enumerate(names)}
    for onset, duration, kind in zip(events.onset, np.nan_to_num(events.duration), events.kind, strict=True):
        colour = colours.get(kind, house.FAINT)
        ax.axvspan(onset, onset + max(duration, (end - begin) / 600), color=colour, alpha=0.35, lw=0)
        middle = onset + duration / 2
        if duration > _NAMED * (end - begin) and begin <= middle <= end:
            ax.text(middle, 0.5, _short(kind, max(4, int(100 * duration / (end - begin)))), ha="center", va="center",
                    fontsize=7.5, clip_on=True)  # fmt: skip
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.set_ylabel("shown", rotation=0, ha="right", va="center")


def people_figure(
    names: Sequence[str],
    values: ArrayLike,
    *,
    truth: Sequence[str | None] | None = None,
    labels: Sequence[str] | None = None,
    unit: str = "probability of the answer",
    title: str = "",
) -> Figure:
    """Draw one bar a subject (or run): the answer beside it, orange where it is not the true one.

    Args:
        names: N subjects or runs; of more than forty the first are drawn, and the title says so.
        values: (N,).
        truth: the true classes, None where unknown.
        labels: the answers.
        unit: of the values.
        title: above the picture.

    Raises:
        InputError: nobody, or counts that differ.

    Example:
        >>> figure = people_figure(["01", "02"], [0.9, 0.6], labels=["f", "m"], truth=["f", "f"])
        >>> len(figure.axes[0].patches)
        2
    """
    numbers = np.asarray(values, np.float64)
    if not len(names) or numbers.shape != (len(names),):
        raise InputError("no answers to draw", found=numbers.shape, expected=f"({len(names)},), at least one")
    shown = min(len(names), _BARS)

    def draw() -> Figure:
        figure = house.new_figure(8.5, 1.1 + 0.26 * shown)
        ax = figure.subplots()
        truths, said = list(truth or [None] * len(names)), list(labels or [""] * len(names))
        wrong = [t is not None and t != s for t, s in zip(truths[:shown], said[:shown], strict=True)]
        ax.barh(range(shown), numbers[:shown], color=[house.ORANGE if w else house.BLUE for w in wrong], height=0.7)
        ax.set_yticks(range(shown), [_short(name, 40) for name in names[:shown]], fontsize=8.5)
        ax.set_ylim(shown - 0.4, -0.6)
        for place in range(shown):
            told = f"{_short(said[place], 24)} {numbers[place]:.2f}".strip()
            told += f" (true: {_short(str(truths[place]), 24)})" if wrong[place] else ""
            ax.annotate(told, (max(numbers[place], 0.0), place), (4, 0), textcoords="offset points", va="center",
                        fontsize=8.5)  # fmt: skip
        ax.grid(axis="y", visible=False)
        ax.margins(x=0.35)
        if unit.startswith("probability"):
            ax.set_xticks(np.linspace(0, 1, 6))
        ax.set_xlabel(unit)
        more = f", the first {shown} of {len(names):,}" if shown < len(names) else ""
        ax.set_title(f"{title or 'Answers'}{more}")
        return figure

    return house._styled(draw)


def regression_figure(truth: ArrayLike, predicted: ArrayLike, *, unit: str = "", title: str = "") -> Figure:
    """Draw predicted over true values with the line that they should lie on; both axes have one range.

    Args:
        truth, predicted: (N,) finite.
        unit: of both.
        title: above the picture.

    Raises:
        InputError: no pair, counts that differ, or values that are not finite.

    Example:
        >>> len(regression_figure([20, 30], [22, 29], unit="years").axes[0].collections)
        1
    """
    true, said = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if not len(true) or true.shape != said.shape or not np.isfinite([true, said]).all():
        raise InputError("pairs of finite values are needed", found=f"{true.shape} and {said.shape}")

    def draw() -> Figure:
        figure = house.new_figure(6.0, 5.6)
        ax = figure.subplots()
        ends = np.array([min(true.min(), said.min()), max(true.max(), said.max())])
        ends += np.array([-1, 1]) * (0.05 * (ends[1] - ends[0]) or 0.5)
        ax.plot(ends, ends, color=house.FAINT, lw=1.0, ls=(0, (4, 3)), label="predicted = true")
        ax.scatter(true, said, s=26, color=house.BLUE, alpha=0.75, edgecolor="white", linewidth=0.5)
        ax.set_xlim(*ends)
        ax.set_ylim(*ends)
        ax.set_aspect("equal")
        said_unit = f" ({unit})" if unit else ""
        ax.set_xlabel(f"true{said_unit}")
        ax.set_ylabel(f"predicted{said_unit}")
        ax.set_title(title or f"{len(true):,} predictions")
        ax.legend(loc="upper left", fontsize=9)
        return figure

    return house._styled(draw)


def groups_figure(
    values: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    overall: tuple[float, float, float] | None = None,
    chance: float | None = None,
    metric: str = "accuracy",
    group: str = "run",
    title: str = "",
) -> Figure:
    """Draw a figure of each run (subject, site, family) with its interval, and the one over all of them.

    Args:
        values: name -> figure.
        intervals: name -> 95 % interval.
        overall: figure over all and its interval, drawn as a band.
        chance: drawn as a line.
        metric, group: names for the axes.
        title: above the picture.

    Raises:
        InputError: no group.

    Example:
        >>> figure = groups_figure({"1": 0.7, "2": 0.8}, overall=(0.75, 0.7, 0.8), chance=0.125)
        >>> figure.axes[0].get_ylabel()
        'accuracy'
    """
    if not values:
        raise InputError("no group to draw", expected="at least one")
    names = list(values)

    def draw() -> Figure:
        figure = house.new_figure(min(11.0, 3.4 + 0.45 * len(names)), 4.2)
        ax = figure.subplots()
        if overall is not None:
            ax.axhspan(overall[1], overall[2], color=house.SKY, alpha=0.25, lw=0, label="all, 95 % interval")
            ax.axhline(overall[0], color=house.BLUE, lw=1.4, label=f"all: {overall[0]:.3f}")
        if chance is not None:
            ax.axhline(chance, color=house.FAINT, lw=1.0, ls=(0, (4, 3)), label=f"chance {chance:.3g}")
        for place, name in enumerate(names):
            if intervals and name in intervals:
                ax.vlines(place, *intervals[name], color=house.INK, lw=1.3)
        ax.plot(range(len(names)), list(values.values()), "o", color=house.BLUE, ms=6)
        tilted = max(map(len, names)) > 3 and len(names) > 6
        ax.set_xticks(range(len(names)), [_short(name, 18) for name in names], rotation=45 if tilted else 0,
                      ha="right" if tilted else "center", fontsize=8.5)  # fmt: skip
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_xlabel(group)
        ax.set_ylabel(metric)
        ax.set_title(title or f"{metric[:1].upper()}{metric[1:]} by {group}")
        if overall is not None or chance is not None:
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        return figure

    return house._styled(draw)


def baselines_figure(
    values: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    chance: float | None = None,
    metric: str = "accuracy",
    title: str = "",
) -> Figure:
    """Draw one bar a model, the model of interest first, with 95 % intervals and chance.

    Args:
        values: name -> figure.
        intervals: name -> 95 % interval.
        chance: drawn as a line.
        metric: name for the axis.
        title: above the picture.

    Raises:
        InputError: no model.

    Example:
        >>> len(baselines_figure({"swift": 0.75, "svm": 0.7}, intervals={"swift": (0.7, 0.8)}).axes[0].patches)
        2
    """
    if not values:
        raise InputError("no model to draw", expected="at least one")
    names, numbers = list(values), np.array(list(values.values()), np.float64)

    def draw() -> Figure:
        figure = house.new_figure(8.5, 1.4 + 0.42 * len(names))
        ax = figure.subplots()
        colours = [house.BLUE, *[house.SKY] * (len(names) - 1)]
        ax.barh(range(len(names)), np.nan_to_num(numbers), color=colours, height=0.62)
        for place, name in enumerate(names):
            ends = (intervals or {}).get(name, (numbers[place], numbers[place]))
            if intervals and name in intervals:
                ax.hlines(place, *ends, color=house.INK, lw=1.4)
            told = "–" if np.isnan(numbers[place]) else f"{numbers[place]:.3f}"
            ax.annotate(told, (np.nanmax([0.0, numbers[place], ends[1]]), place), (5, 0), textcoords="offset points",
                        va="center", fontsize=9)  # fmt: skip
        if chance is not None:
            ax.axvline(chance, color=house.FAINT, lw=1.0, ls=(0, (4, 3)), label=f"chance {chance:.3g}")
            ax.legend(loc="lower right", fontsize=9)
        ax.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=9.5)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.margins(x=0.14)
        ax.set_xlabel(metric)
        ax.set_title(title or f"{metric[:1].upper()}{metric[1:]} of the model and the baselines")
        return figure

    return house._styled(draw)


def similarity_figure(names: Sequence[str], vectors: ArrayLike, *, title: str = "") -> Figure:
    """Draw the cosine of every two vectors.

    Args:
        names: N names; of more than forty the first are drawn, and the title says so.
        vectors: (N, D); a vector of zeros is alike to none.
        title: above the picture.

    Raises:
        InputError: no vector, or counts that differ.

    Example:
        >>> len(similarity_figure(["a", "b"], [[1.0, 0.0], [1.0, 1.0]]).axes)
        2
    """
    rows = np.asarray(vectors, np.float64)
    if not len(names) or rows.ndim != 2 or len(rows) != len(names):
        raise InputError("no vectors to draw", found=rows.shape, expected=f"({len(names)}, D), at least one")
    shown = min(len(names), _BARS)
    sizes = np.linalg.norm(rows[:shown], axis=1, keepdims=True)
    unit = rows[:shown] / np.where(sizes > 0, sizes, 1.0)

    def draw() -> Figure:
        figure = house.new_figure(min(10.0, 3.4 + 0.22 * shown) + 0.6, min(9.2, 2.6 + 0.22 * shown))
        ax = figure.subplots()
        picture = ax.imshow(unit @ unit.T, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        labels = [_short(name, 22) for name in names[:shown]]
        ax.set_xticks(range(shown), labels, rotation=60, ha="right", fontsize=7.5)
        ax.set_yticks(range(shown), labels, fontsize=7.5)
        ax.grid(visible=False)
        figure.colorbar(picture, ax=ax, shrink=0.8).set_label("cosine", fontsize=9)
        more = f", the first {shown} of {len(names):,}" if shown < len(names) else ""
        ax.set_title(f"{title or 'How alike the vectors are'}{more}")
        return figure

    return house._styled(draw)
