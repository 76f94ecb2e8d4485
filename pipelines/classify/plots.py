"""Pictures of classification: series with the shapes that told, confusion, reliability, ranks over several sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation import plots as house

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.classify.result import Classification

__all__ = ["confusion_figure", "reliability_figure", "series_figure"]


def series_figure(result: Classification, most: int) -> Figure:
    """Up to ``most`` series, one panel each: its variables that hold shapes, and the shapes over their matches."""
    shown = min(most, len(result.ids))

    def draw() -> Figure:
        figure = house.new_figure(8.0, 1.2 + 1.7 * shown)
        axes = figure.subplots(shown, 1, squeeze=False)[:, 0]
        for n, axis in enumerate(axes):
            _series_panel(axis, result, n)
        axes[-1].set_xlabel("time step")
        figure.suptitle(f"{result.model}: labels and the shapes that told" if any(result.shapes) else result.model)
        return figure

    return house._styled(draw)


def _series_panel(axis: Any, result: Classification, n: int) -> None:
    shapes = result.shapes[n] if n < len(result.shapes) else ()
    told = list(dict.fromkeys(shape.variable for shape in shapes)) or list(range(min(3, len(result.variables))))
    for place, variable in enumerate(told):
        axis.plot(result.series[n][variable], color=f"C{place}", linewidth=0.9, alpha=0.55)
        axis.plot([], [], color=f"C{place}", label=result.variables[variable])
    for shape in shapes:
        steps = np.arange(shape.begin, shape.begin + len(shape.values))
        colour = f"C{told.index(shape.variable)}"
        axis.plot(steps, shape.values, color=colour, linewidth=2.4)
        axis.annotate(
            f"{shape.label} {shape.weight:+.2f}",
            (float(steps.mean()), float(np.max(shape.values))),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    truth = "" if result.truth is None else f" (true: {result.truth[n]})"
    chance = float(result.probabilities[n].max())
    axis.set_title(f"{result.ids[n]}: {result.labels[n]}, {chance:.2f}{truth}", fontsize=9, loc="left")
    axis.legend(fontsize=7, loc="upper right", frameon=False)


def confusion_figure(table: NDArray[np.integer], classes: Sequence[str]) -> Figure:
    """Counts by true class (rows) and predicted class (columns), shaded by the share of the row."""

    def draw() -> Figure:
        size = min(9.0, 2.6 + 0.45 * len(classes))
        figure = house.new_figure(size + 0.8, size)
        axis = figure.subplots()
        shares = table / np.maximum(table.sum(1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        places = range(len(classes))
        names = [name if len(name) <= 14 else f"{name[:12]}..." for name in classes]
        axis.set_xticks(places, names, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(places, names, fontsize=8)
        if len(classes) <= 20:
            for i in places:
                for j in places:
                    if table[i, j]:
                        colour = "white" if shares[i, j] > 0.6 else "black"
                        axis.text(j, i, f"{table[i, j]:,}", ha="center", va="center", fontsize=8, color=colour)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        axis.grid(visible=False)
        return figure

    return house._styled(draw)


def reliability_figure(probabilities: NDArray[np.floating], truth: NDArray[np.integer], bins: int = 10) -> Figure:
    """How often the answer is right at each confidence, beside the diagonal that it should lie on."""

    def draw() -> Figure:
        figure = house.new_figure(4.6, 4.2)
        axis = figure.subplots()
        confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
        place = np.minimum((confidence * bins).astype(int), bins - 1)
        size = np.bincount(place, minlength=bins)
        there = size > 0
        mean = np.bincount(place, confidence, bins)[there] / size[there]
        share = np.bincount(place, right.astype(float), bins)[there] / size[there]
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="calibrated")
        axis.scatter(mean, share, s=12 + 240 * size[there] / size.sum(), alpha=0.8, label="series, by confidence")
        axis.set_xlim(0, 1.02)
        axis.set_ylim(-0.02, 1.04)
        axis.set_xlabel("confidence")
        axis.set_ylabel("share that is right")
        axis.legend(fontsize=8, frameon=False)
        return figure

    return house._styled(draw)
