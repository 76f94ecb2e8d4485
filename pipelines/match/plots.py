"""Pictures of matching: curves of scored pairs, reliability, scores, figures by length, ranked lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from pipelines.errors import InputError
from pipelines.evaluation import plots as house
from pipelines.match.document_facts import one_line
from pipelines.match.heat_map import drawn, heat_map_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.match.metrics import LengthBin

__all__ = [
    "block_counts_figure",
    "heat_map_figure",
    "length_figure",
    "precision_recall_figure",
    "ranking_figure",
    "reliability_figure",
    "roc_figure",
    "score_histogram_figure",
]

_BARS = 15  # documents of a query that a picture shows
_QUERIES = 3


def roc_figure(scores: Mapping[str, ArrayLike], labels: ArrayLike, *, title: str = "") -> Figure:
    """Draw the share of matches found over the share of other pairs called a match, of the model and baselines.

    Args:
        scores: name -> (P,), the model first.
        labels: (P,) both classes must occur.
        title: above the picture.

    Raises:
        InputError: one class only, or what the figures of pairs refuse.

    Example:
        >>> len(roc_figure({"smith": [0.9, 0.4, 0.1]}, [1, 0, 0]).axes[0].lines)
        2
    """
    from pipelines.match.metrics import curve_points, pair_metrics

    curves = {}
    for name, values in scores.items():
        _, hits, false = curve_points(values, labels)
        if not hits[-1] or not false[-1]:
            raise InputError("a curve needs matches and others", where=name, found="one class")
        area = pair_metrics(values, labels, threshold=0.0)["auc"]
        x, y = np.r_[0.0, false / false[-1]], np.r_[0.0, hits / hits[-1]]
        curves[f"{name}: AUC {area:.3f}"] = (x, y)

    def draw() -> Figure:
        figure, ax = _square(title or "Matches found against false ones")
        ax.plot([0, 1], [0, 1], color=house.FAINT, lw=1.0, ls=(0, (4, 3)))
        for place, (name, (x, y)) in enumerate(curves.items()):
            _curve(ax, place, x, y, name)
        ax.set_xlabel("share of other pairs that are called a match")
        ax.set_ylabel("share of matches found")
        ax.legend(loc="lower right", fontsize=9)
        return figure

    return house._styled(draw)


def precision_recall_figure(scores: Mapping[str, ArrayLike], labels: ArrayLike, *, title: str = "") -> Figure:
    """Draw precision over recall of the model and baselines, and the share of matches that chance would get.

    Args:
        scores: name -> (P,), the model first.
        labels: (P,) with at least one match.
        title: above the picture.

    Raises:
        InputError: no match, or what the figures of pairs refuse.

    Example:
        >>> len(precision_recall_figure({"smith": [0.9, 0.4, 0.1]}, [1, 0, 0]).axes[0].lines)
        2
    """
    from pipelines.match.metrics import curve_points, pair_metrics

    curves, share = {}, 0.0
    for name, values in scores.items():
        _, hits, false = curve_points(values, labels)
        if not hits[-1]:
            raise InputError("a curve of recall needs matches", where=name, found="none")
        precision = hits / (hits + false)
        share = float(hits[-1] / (hits[-1] + false[-1]))
        area = pair_metrics(values, labels, threshold=0.0)["average_precision"]
        curves[f"{name}: average precision {area:.3f}"] = np.r_[0.0, hits / hits[-1]], np.r_[precision[0], precision]

    def draw() -> Figure:
        figure, ax = _square(title or "Precision over recall")
        ax.axhline(share, color=house.FAINT, lw=1.0, ls=(0, (4, 3)))
        ax.annotate(f"chance {share:.2g}", (0.0, share), (4, 3), textcoords="offset points", fontsize=9,
                    color=house.FAINT)  # fmt: skip
        for place, (name, (x, y)) in enumerate(curves.items()):
            _curve(ax, place, x, y, name)
        ax.set_xlabel("recall: share of matches found")
        ax.set_ylabel("precision: share that is right")
        ax.legend(loc="lower left", fontsize=9)
        return figure

    return house._styled(draw)


def _whole_numbers(ax: Axes, most: int = 8) -> None:
    """Ticks of a count."""
    from matplotlib.ticker import MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]))


def _square(title: str) -> tuple[Figure, Axes]:
    figure = house.new_figure(6.0, 5.4)
    ax = figure.subplots()
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(-0.01, 1.03)
    ax.set_title(title)
    return figure, ax


def _curve(ax: Axes, place: int, x: np.ndarray, y: np.ndarray, name: str) -> None:
    colour, style = house.SERIES[place % len(house.SERIES)]
    ax.plot(x, y, color=colour, ls=style, lw=2.4 if place == 0 else 1.6, label=drawn(one_line(name, 60)))


def reliability_figure(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 10, title: str = "") -> Figure:
    """Draw how often pairs are matches at each probability, beside the diagonal, and how many pairs have it.

    Args:
        probabilities: (P,).
        labels: (P,).
        bins: of equal width.
        title: above the picture.

    Example:
        >>> len(reliability_figure([0.1, 0.9], [0, 1]).axes)
        2
    """
    from pipelines.match.calibration import calibration_error, reliability

    found = reliability(probabilities, labels, bins)
    gap = calibration_error(probabilities, labels)
    p = np.asarray(probabilities, np.float64)

    def draw() -> Figure:
        figure = house.new_figure(6.0, 6.0)
        upper, lower = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
        upper.plot([0, 1], [0, 1], color=house.FAINT, lw=1.0, ls=(0, (4, 3)), label="calibrated")
        upper.plot(found.probability, found.share, color=house.BLUE, marker="o", ms=6, lw=1.4, label="pairs")
        upper.set_ylim(-0.03, 1.03)
        upper.set_ylabel("share of matches")
        upper.legend(loc="upper left")
        upper.set_title(title or f"Probabilities kept: calibration error {gap:.3f}")
        lower.hist(p, bins=np.linspace(0, 1, bins + 1).tolist(), color=house.SKY, edgecolor="white")
        lower.set_ylabel("pairs")
        _whole_numbers(lower, 3)
        lower.set_xlabel("probability of a match")
        lower.set_xlim(-0.01, 1.01)
        return figure

    return house._styled(draw)


def score_histogram_figure(
    scores: ArrayLike, labels: ArrayLike | None = None, *, threshold: float | None = None, title: str = ""
) -> Figure:
    """Draw how scores are spread, of matches and other pairs apart where labels are known.

    Args:
        scores: (P,).
        labels: (P,) or none.
        threshold: drawn as a line.
        title: above the picture.

    Raises:
        InputError: no score.

    Example:
        >>> len(score_histogram_figure([0.9, 0.1], [1, 0], threshold=0.5).axes)
        1
    """
    values = np.asarray(scores, np.float64).ravel()
    if not len(values):
        raise InputError("no scores to draw", expected="at least one pair")
    truth = None if labels is None else np.asarray(labels).astype(bool)
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1e-3, int(np.clip(2 * len(values) ** 0.5, 8, 50)) + 1)

    def draw() -> Figure:
        figure = house.new_figure(8.0, 4.0)
        ax = figure.subplots()
        if truth is None:
            ax.hist(values, bins=edges.tolist(), color=house.BLUE, edgecolor="white", label="pairs")
        else:
            ax.hist(values[~truth], bins=edges.tolist(), color=house.ORANGE, alpha=0.55, label="others", hatch="///",
                    edgecolor="white")  # fmt: skip
            ax.hist(values[truth], bins=edges.tolist(), color=house.BLUE, alpha=0.6, label="matches", edgecolor="white")
        if threshold is not None:
            ax.axvline(threshold, color=house.INK, lw=1.4, ls="--", label=f"threshold {threshold:.3g}")
        ax.set_xlabel("score")
        ax.set_ylabel("pairs")
        _whole_numbers(ax)
        ax.set_title(title or "Scores")
        if truth is not None or threshold is not None:
            ax.legend(loc="upper left")
        return figure

    return house._styled(draw)


def length_figure(
    bins: Mapping[str, Sequence[LengthBin]],
    *,
    figure: str = "auc",
    unit: str = "tokens of the longer document",
    intervals: Sequence[tuple[float, float] | None] | None = None,
    title: str = "",
) -> Figure:
    """Draw a figure by the length of the documents, of the model and baselines.

    Args:
        bins: name -> bins of `by_length`, the model first; all over the same pairs.
        figure: which one; bins that do not define it have no point.
        unit: what the length is, for the axis.
        intervals: of the model, one a bin.
        title: above the picture.

    Raises:
        InputError: no bins, or models with different bins.

    Example:
        >>> from pipelines.match.metrics import by_length
        >>> found = by_length([0.9, 0.1], [1, 0], [5, 9], [5, 9], threshold=0.5, bins=1)
        >>> len(length_figure({"smith": found}).axes[0].lines)
        1
    """
    first = next(iter(bins.values()), [])
    if not first or any([one[:3] for one in other] != [one[:3] for one in first] for other in bins.values()):
        raise InputError("all models need the same bins of length", expected="bins over the same pairs, at least one")
    names = [f"{one.low:,} to {one.high:,}\n{one.pairs:,} pairs" for one in first]
    named = figure.upper() if figure in ("auc", "f1") else figure.replace("_", " ")

    def draw() -> Figure:
        picture = house.new_figure(8.0, 4.4)
        ax = picture.subplots()
        for place, (name, parts) in enumerate(bins.items()):
            x = np.arange(len(parts)) + 0.07 * (place - (len(bins) - 1) / 2)
            y = np.array([part.figures.get(figure, np.nan) for part in parts])
            colour, style = house.SERIES[place % len(house.SERIES)]
            ax.plot(x, y, color=colour, ls=style, marker="o", ms=5, lw=2.2 if place == 0 else 1.4,
                    label=drawn(one_line(name, 40)))  # fmt: skip
            if place == 0 and intervals is not None:
                for at, pair in zip(x, intervals, strict=True):
                    if pair is not None:
                        ax.vlines(at, *pair, color=colour, lw=1.4)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_xlabel(unit)
        ax.set_ylabel(named)
        ax.set_title(title or f"{named[:1].upper()}{named[1:]} by length")
        ax.legend(fontsize=9)
        return picture

    return house._styled(draw)


def ranking_figure(lists: Mapping[str, Sequence[tuple[str, float]]], *, title: str = "") -> Figure:
    """Draw the best documents of up to three queries as bars of their scores.

    Args:
        lists: name of the query -> (document, score), best first; of more than fifteen the first are drawn.
        title: above the picture.

    Raises:
        InputError: no query.

    Example:
        >>> len(ranking_figure({"query": [("a.txt", 0.9), ("b.txt", 0.4)]}).axes[0].patches)
        2
    """
    if not lists:
        raise InputError("no query to draw", expected="at least one")
    shown = {name: list(rows[:_BARS]) for name, rows in list(lists.items())[:_QUERIES]}

    def draw() -> Figure:
        heights = [max(len(rows), 1) for rows in shown.values()]
        figure = house.new_figure(9.0, 0.8 * len(shown) + 0.27 * sum(heights) + 0.5)
        axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
        for ax, (name, rows) in zip(axes, shown.items(), strict=True):
            values = [score for _, score in rows]
            ax.barh(range(len(rows)), values, color=house.BLUE, height=0.7)
            ax.set_yticks(range(len(rows)), [drawn(one_line(document, 50)) for document, _ in rows], fontsize=8.5)
            ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)
            for place, value in enumerate(values):
                ax.annotate(f"{value:.3f}", (max(value, 0.0), place), (4, 0), textcoords="offset points", va="center",
                            fontsize=8.5)  # fmt: skip
            ax.grid(axis="y", visible=False)
            more = f", the first {len(rows)} of {len(lists[name])}" if len(lists[name]) > len(rows) else ""
            ax.set_title(drawn(f"{one_line(name, 70)}{more}"), fontsize=10)
        axes[-1].margins(x=0.12)
        axes[-1].set_xlabel("score")
        heading = title or ("" if len(lists) == len(shown) else f"{len(shown)} of {len(lists):,} queries")
        if heading:
            figure.suptitle(drawn(heading), x=0.01, ha="left", fontsize=12, fontweight="bold", color=house.INK)
        return figure

    return house._styled(draw)


def block_counts_figure(by_blocks: Mapping[int, int], *, limit: int | None = None, title: str = "") -> Figure:
    """Draw how many documents have how many blocks, in bins that grow with the number.

    Args:
        by_blocks: number of blocks -> documents.
        limit: blocks that the document level sees at once, drawn as a line.
        title: above the picture.

    Raises:
        InputError: no document.

    Example:
        >>> len(block_counts_figure({1: 3, 40: 2}, limit=64).axes)
        1
    """
    if not by_blocks:
        raise InputError("no document to draw", expected="at least one")
    sizes, counts = np.array(list(by_blocks)), np.array(list(by_blocks.values()))
    highest = max(int(sizes.max()), limit or 1, 2)
    edges = np.unique(np.geomspace(1, highest + 1, 25).round()).tolist()
    empty = int(counts[sizes == 0].sum())

    def draw() -> Figure:
        figure = house.new_figure(8.0, 4.0)
        ax = figure.subplots()
        ax.hist(sizes, bins=edges, weights=counts, color=house.BLUE, edgecolor="white")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if limit is not None:
            ax.axvline(limit, color=house.INK, lw=1.4, ls="--", label=f"{limit} blocks are seen at once")
            ax.legend()
        ax.set_xlabel("blocks of a document" + (f"; {empty:,} documents without any" if empty else ""))
        ax.set_ylabel("documents")
        _whole_numbers(ax)
        ax.set_title(title or f"Length of {int(counts.sum()):,} documents")
        return figure

    return house._styled(draw)
