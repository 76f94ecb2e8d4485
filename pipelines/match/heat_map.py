"""The picture of two documents: every sentence block of one against every block of the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.evaluation import plots as house
from pipelines.match.document_facts import one_line
from pipelines.match.passages import Answer, Passages, similarity_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MOST_CELLS", "drawn", "heat_map_figure"]

MOST_CELLS = 64  # rows and columns of a heat map
_LABELS = 24  # blocks that are named along an axis
_WORDS = 30  # characters of a block's first words


def heat_map_figure(left: Passages, right: Passages, answers: Sequence[Answer] = (), *, title: str = "") -> Figure:
    """Draw the similarity of every block of one document (rows) with every block of another (columns).

    Documents of more than 64 blocks are pooled: a cell then shows the highest of its pairs, and the title says of how
    many.

    Args:
        left, right: the documents.
        answers: pairs of blocks that are framed and numbered.
        title: above the picture; the documents' names where it is empty.

    Raises:
        InputError: a document without blocks, or vectors of different lengths.

    Complexity: O(B1 B2 C) time.

    Example:
        >>> page = Passages("a", "ab", np.array([[0, 1], [1, 2]]), np.eye(2, dtype=np.float32))
        >>> len(heat_map_figure(page, page).axes)
        2
    """
    found = similarity_map(left, right, MOST_CELLS)
    values = np.ma.masked_invalid(found.values)
    height, width = values.shape
    cell = float(np.clip(9.0 / max(height, width), 0.12, 0.42))
    inches = max(4.2 + cell * width, 6.5), max(4.0 + cell * height, 5.2)
    room = int(10.0 * inches[0] - 9) // 2  # letters of a name in one line
    heading = title or f"{one_line(left.name, room)} against {one_line(right.name, room)}"
    if found.rows * found.columns > 1:
        heading += f"\neach cell is the highest of up to {found.rows} × {found.columns} pairs of blocks,"
        heading += f" {len(left):,} × {len(right):,} in all"

    def draw() -> Figure:
        figure = house.new_figure(*inches)
        ax = figure.subplots()
        low, high = (float(values.min()), float(values.max())) if values.count() else (0.0, 1.0)
        ax.set_facecolor("#eef1f4")
        image = ax.imshow(
            values, cmap="viridis", vmin=min(low, high - 0.1), vmax=high, aspect="equal", interpolation="nearest"
        )
        figure.colorbar(
            image, ax=ax, label="cosine of the blocks", shrink=0.8, pad=0.02, panchor="N", anchor=(0.0, 1.0)
        )  # just below the title
        _block_axis(ax, left, found.rows, vertical=True)
        _block_axis(ax, right, found.columns, vertical=False)
        for number, pair in enumerate(answers, 1):
            _frame(ax, pair.left_block // found.rows, pair.right_block // found.columns, width, number)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        # A title of the axes would be part of their width, and squeeze a narrow map to nothing.
        figure.suptitle(drawn(heading), x=0.01, ha="left", fontsize=11, fontweight="bold", color=house.INK)
        return figure

    return house._styled(draw)


def _block_axis(ax: Axes, page: Passages, pooled: int, *, vertical: bool) -> None:
    """Number of the block and its first words, of every block or of evenly chosen ones."""
    count = -(-len(page) // pooled)
    step = -(-count // _LABELS)
    places = list(range(0, count, step))
    names = [f"{place * pooled}  {one_line(page.block(place * pooled), _WORDS)}" for place in places]
    names = [drawn(name) for name in names]
    what = drawn(f"blocks of {one_line(page.name, 40)}")
    if vertical:
        ax.set_yticks(places, names, fontsize=7.5)
        ax.set_ylabel(what)
    else:
        ax.set_xticks(places, names, fontsize=7.5, rotation=55, ha="right", rotation_mode="anchor")
        ax.set_xlabel(what)
    ax.tick_params(length=2)


def _frame(ax: Axes, row: int, column: int, width: int, number: int) -> None:
    """A frame around a cell and its number beside it: white on dark and dark around, seen on every colour."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    dark = [withStroke(linewidth=3.2, foreground="#111418")]
    ax.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.4, path_effects=dark)
    )
    last, first = column == width - 1, row == 0  # the number stays inside of the map
    ax.annotate(
        f"{number}", (column, row), (-7 if last else 7, -13 if first else 6), textcoords="offset points",
        ha="right" if last else "left", color="white", fontsize=8.5, weight="bold", path_effects=dark,
    )  # fmt: skip


@functools.cache
def _letters() -> frozenset[int]:
    """Characters that the house's font has."""
    from matplotlib import font_manager

    return frozenset(
        font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=["sans-serif"]))).get_charmap()
    )


def drawn(text: str) -> str:
    """Return text with a mark in the place of letters that the font of pictures does not have.

    Example:
        >>> drawn("Grüße, 世界")
        'Grüße, □□'
    """
    return "".join(c if c == "\n" or ord(c) in _letters() else "□" for c in text)
