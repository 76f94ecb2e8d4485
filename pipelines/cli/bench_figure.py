"""The picture of `pipelines bench kernels`: time and memory over size, small multiples in the house's style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import InputError
from pipelines.evaluation.plots import AMBER, BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, _shortened, _styled, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from core_attention.kernels._measure import SweepResult

__all__ = ["kernels_figure"]

#: The same back end has the same colour, line and mark in every panel.
LOOK = {
    "peer": (INK, (0, (4, 2)), "s"),
    "eager": (BLUE, "-", "o"),
    "cpu": (ORANGE, "-", "^"),
    "gpu": (GREEN, "-.", "D"),
    "reference": (PURPLE, ":", "v"),
}
OTHER = (AMBER, ":", "p")
_MB = 1e6


def kernels_figure(sweeps: Sequence[SweepResult]) -> Figure:
    """Draw time and extra memory over size on logarithmic axes, two panels a sweep; exponents are in the legends.

    Args:
        sweeps: what was measured.

    Raises:
        InputError: no sweep.

    Example:
        >>> from core_attention.kernels._measure import SweepResult
        >>> powers = {"peer": {"time": 1.0, "memory": None}}
        >>> times, memory = {"peer": [1.0, 2.0]}, {"peer": [None, None]}
        >>> one = SweepResult("copy", "fp32", "rows", "torch", [1, 2], times, memory, powers)
        >>> len(kernels_figure([one]).axes)
        2
    """
    if not sweeps:
        raise InputError("nothing to draw", expected="at least one sweep")

    def draw() -> Figure:
        across = 1 if len(sweeps) < 4 else 2  # sweeps beside each other
        rows = -(-len(sweeps) // across)
        figure = new_figure(10.0 * across, 3.1 * rows + 0.5)
        axes = np.asarray(figure.subplots(rows, 2 * across, squeeze=False)).ravel()
        for place, sweep in enumerate(sweeps):
            _time(axes[2 * place], sweep)
            _memory(axes[2 * place + 1], sweep)
        for unused in axes[2 * len(sweeps) :]:
            unused.remove()
        heading = "Time and extra memory over size; in brackets the power of the size by which they grow"
        figure.suptitle(heading, x=0.01, ha="left", fontsize=13.5, fontweight="bold", color=INK)
        return figure

    return _styled(draw)


def _time(axes: Axes, sweep: SweepResult) -> None:
    axes.set_title(_shortened(f"{sweep.operation}: time", 48))
    axes.set_ylabel("ms")
    for name, values in sweep.milliseconds.items():
        _curve(axes, sweep, name, values, sweep.exponents[name]["time"])
    _finish(axes, sweep)


def _memory(axes: Axes, sweep: SweepResult) -> None:
    axes.set_title(_shortened(f"{sweep.operation}: extra memory", 48))
    axes.set_ylabel("MB")
    known = [value for values in sweep.extra_memory.values() for value in values if value is not None]
    if not known:
        axes.text(0.5, 0.5, "not measured on this system", transform=axes.transAxes, ha="center", color=FAINT)
    for name, values in sweep.extra_memory.items():
        # Less than 1 MB is noise: it is drawn as 1 MB, the floor of the panel.
        shown = [None if value is None else max(1.0, value / _MB) for value in values]
        _curve(axes, sweep, name, shown, sweep.exponents[name]["memory"])
    _finish(axes, sweep)


def _curve(axes: Axes, sweep: SweepResult, name: str, values: Sequence[float | None], power: float | None) -> None:
    if all(value is None for value in values):
        return
    colour, style, mark = LOOK.get(name, OTHER)
    label = _shortened(sweep.peer, 34) if name == "peer" else name
    label += f" ({power:.2f})" if power is not None else ""
    heights = [np.nan if value is None else value for value in values]
    axes.plot(sweep.sizes, heights, color=colour, linestyle=style, marker=mark, markersize=4.5, label=label)


def _finish(axes: Axes, sweep: SweepResult) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xlim(sweep.sizes[0] / 1.15, 1.15 * sweep.sizes[-1])
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sweep.sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _written(value)))
    _leave_room(axes)
    axes.set_xlabel(_shortened(f"{sweep.axis} ({sweep.name})", 60))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", fontsize=8.5, handlelength=2.6)


def _leave_room(axes: Axes) -> None:
    """Limits of the logarithmic height with the legend above the highest point."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if not axes.lines:
        axes.set_yticks([])
        axes.set_yticks([], minor=True)
        return
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    low, high = np.nanmin(heights) / 1.5, max(np.nanmax(heights), 4 * np.nanmin(heights))
    taken = 0.1 + 0.1 * len(axes.lines)  # the legend's share of the panel
    top = low * (high / low) ** (1 / (1 - taken))
    axes.set_ylim(low, top)
    # Where no or one power of ten is in sight, 2 and 5 are written too.
    between = FuncFormatter(lambda value, _: _written(value) if f"{value:e}"[0] in "25" else "")
    axes.yaxis.set_minor_formatter(between if np.log10(top / low) < 1.5 else NullFormatter())


def _written(value: float) -> str:
    """A power of ten, or two or five of it.

    Example:
        >>> _written(1e6), _written(0.05)
        ('1,000,000', '0.05')
    """
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
