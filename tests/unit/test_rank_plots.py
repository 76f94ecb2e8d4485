"""Pictures of many sets: nothing overlaps, nothing is cut off, and what is drawn is what was measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipelines.errors import InputError
from pipelines.evaluation.plots import to_png_bytes
from pipelines.evaluation.rank_plots import difference_figure, sets_figure
from pipelines.evaluation.ranks import compare


def texts(figure: Figure) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every text that is seen, and its box in pixels."""
    to_png_bytes(figure, dpi=100)  # the layout is made while drawing
    axes = figure.axes[0]
    unseen: set[Text] = set()  # labels of ticks beyond the limits are kept, but not drawn
    for axis, limits, place in ((axes.xaxis, axes.get_xlim(), 0), (axes.yaxis, axes.get_ylim(), 1)):
        labels = [*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)]
        outside = [text for text in labels if not min(limits) <= text.get_position()[place] <= max(limits)]
        unseen |= set(outside if axes.axison else [*labels, axis.label])
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]
    found = [text for text in found if text not in unseen]
    return [(text.get_text(), text.get_window_extent().extents) for text in found]


def check_layout(figure: Figure) -> None:
    boxes = texts(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for text, (x0, y0, x1, y1) in boxes:
        inside = min(x0, y0) >= -1 and x1 <= width + 1 and y1 <= height + 1
        assert inside, f"{text} is cut off"
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} lies over {two!r}"


@pytest.mark.parametrize("count", range(2, 9))
@pytest.mark.parametrize("kind", ["short", "long", "equal"])
def test_names_neither_overlap_nor_are_cut_off(count: int, kind: str) -> None:
    generator = np.random.default_rng(count)
    base = generator.uniform(0.5, 0.9, 12)
    tail = "-with-a-long-name-of-forty-letters-and-more" if kind == "long" else ""
    noise = 0.0 if kind == "equal" else 0.05
    scores = {f"m{i}{tail}": (base + noise * generator.normal(size=12)).tolist() for i in range(count)}
    check_layout(difference_figure(compare(scores), title=f"Average ranks over 12 sets, {count} methods"))


def test_the_best_is_on_the_right_and_bars_join_cliques() -> None:
    base = np.linspace(0.5, 0.8, 20)
    wiggle = np.where(np.arange(20) % 2, 0.001, -0.001)
    found = compare({"good": base + 0.1, "as good": base + 0.1 + wiggle, "poor": base})
    figure = difference_figure(found)
    axes = figure.axes[0]
    assert axes.xaxis_inverted()
    places = {text: box[0] for text, box in texts(figure)}
    assert places["good  1.50"] > places["3.00  poor"]
    assert places["as good  1.50"] > places["3.00  poor"]
    bars = [line for line in axes.lines if line.get_linewidth() == 5]
    assert [np.mean(bar.get_xdata()) for bar in bars] == [pytest.approx(1.5)]


def test_every_set_is_drawn_by_its_difference() -> None:
    names = [f"Set{i}" for i in range(12)]
    ours, theirs = np.linspace(0.5, 0.9, 12), np.full(12, 0.7)
    figure = sets_figure(names, {"model": ours.tolist(), "dtw": theirs.tolist()})
    check_layout(figure)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names[::-1], "the largest gain on top"
    rings, dots = (np.asarray(points.get_offsets()) for points in axes.collections[1:])
    assert dots[:, 0].tolist() == ours[::-1].tolist()
    assert rings[:, 0].tolist() == theirs.tolist()


def test_one_set_many_sets_and_long_names_fit() -> None:
    check_layout(sets_figure(["A"], {"model": [1.0], "dtw": [1.0]}))
    generator = np.random.default_rng(0)
    names = [f"{'VeryLong' * 8}{i}" for i in range(300)]
    scores = {"m" * 60: generator.uniform(size=300).tolist(), "d" * 60: generator.uniform(size=300).tolist()}
    figure = sets_figure(names, scores, title="a title of many words " * 9)
    assert "150 of 300 sets" in figure.axes[0].get_xlabel()
    check_layout(figure)


@pytest.mark.parametrize(
    ("names", "scores"),
    [(["a"], {"m": [1.0]}), (["a"], {"m": [1.0], "d": [1.0, 2.0]}), ([], {"m": [], "d": []})],
)
def test_what_cannot_be_drawn(names: list[str], scores: dict[str, list[float]]) -> None:
    with pytest.raises(InputError, match="two methods"):
        sets_figure(names, scores)
