"""Figures of forecasts and evaluations: one calm style, colour-blind safe, readable at 1,200 pixels.

Figures are built without pyplot, so that no window, global state or display is touched; matplotlib is imported when a
figure is drawn. Colours are those of Okabe and Ito (2008); whatever a colour says is also said by a line style.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from pipelines.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "MAX_PANELS",
    "ForecastPanel",
    "coverage_figure",
    "empty_figure",
    "forecast_figure",
    "horizon_figure",
    "to_png_bytes",
    "to_svg",
    "training_figure",
]

MAX_PANELS = 6
INK, FAINT, GRID = "#24292f", "#6e7781", "#e4e8ec"
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
SERIES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"), (SKY, "--"), (AMBER, "-."))
DOTS_PER_INCH = 120

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": "#b6bec7",
    "axes.labelcolor": FAINT,
    "axes.labelsize": 10,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#b6bec7",
    "ytick.color": "#b6bec7",
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "figure.dpi": DOTS_PER_INCH,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "attention-pipelines",
}


@dataclass(frozen=True)
class ForecastPanel:
    """One series of a forecast figure.

    Attributes:
        title: series and column.
        history_time: (T,) stamps or numbers.  history: (T,) values, NaN where missing.
        time: (H,) stamps of the forecast; a pandas index keeps its time zone.  forecast: (H,) values.
        bands: level in (0, 1) -> (lo, hi), each (H,).
        truth: (H,) what really came, where known.
        baselines: name -> (H,).
        unit: of the values, for the axis.
    """

    title: str
    history_time: Any
    history: ArrayLike
    time: Any
    forecast: ArrayLike
    bands: Mapping[float, tuple[ArrayLike, ArrayLike]] = field(default_factory=dict)
    truth: ArrayLike | None = None
    baselines: Mapping[str, ArrayLike] = field(default_factory=dict)
    unit: str = ""


def _styled(draw: Callable[[], Figure]) -> Figure:
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return draw()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that needs no display and that notebooks show."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure_class()(figsize=(width, height), layout="constrained")
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(h_pad=0.09, w_pad=0.09)  # inches, so that titles do not touch the edge
    FigureCanvasAgg(figure)
    return figure


@functools.cache
def _figure_class() -> type[Figure]:
    """A figure that notebooks show as a picture, which they otherwise do for pyplot's figures only."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            return to_png_bytes(self)

    return ShownFigure


def _zone(time: Any) -> Any:
    return getattr(time, "tz", None)


def _stamps(time: Any) -> np.ndarray:
    """Return what matplotlib plots: datetimes with their zone, or numbers as they are."""
    return np.asarray(time.to_pydatetime() if hasattr(time, "to_pydatetime") else time)


def _time_axis(axes: Axes, time: Any, *, labelled: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if not (hasattr(time, "to_pydatetime") or np.issubdtype(np.asarray(time).dtype, np.datetime64)):
        if labelled:
            axes.set_xlabel("row")
        return
    zone = _zone(time)
    locator = AutoDateLocator(tz=zone, minticks=4, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))
    if labelled and zone is not None:
        axes.set_xlabel(f"time ({zone})")


def _panel(axes: Axes, panel: ForecastPanel, *, labelled: bool) -> None:
    past, ahead = _stamps(panel.history_time), _stamps(panel.time)
    history, forecast = np.asarray(panel.history, float), np.asarray(panel.forecast, float)
    levels = sorted(panel.bands, reverse=True)
    for place, level in enumerate(levels):
        lo, hi = (np.asarray(side, float) for side in panel.bands[level])
        colour = _tint(0.16 + 0.36 * place / max(1, len(levels) - 1))  # opaque, so that the legend shows the very tone
        axes.fill_between(ahead, lo, hi, color=colour, linewidth=0, label=f"{100 * level:g} % interval", zorder=1.5)
    axes.plot(past, history, color=INK, linewidth=1.3, label="history", zorder=3)
    if panel.truth is not None:
        axes.plot(
            ahead,
            np.asarray(panel.truth, float),
            color=INK,
            linewidth=1.3,
            linestyle=(0, (1.2, 1.2)),
            label="what came",
            zorder=4,
        )
    for (name, values), (colour, style) in zip(panel.baselines.items(), SERIES[1:], strict=False):
        axes.plot(ahead, np.asarray(values, float), color=colour, linestyle=style, linewidth=1.2, label=name, zorder=4)
    axes.plot(ahead, forecast, color=BLUE, linewidth=2.1, label="forecast", zorder=5)
    if len(past):
        axes.axvline(past[-1], color="#b6bec7", linewidth=1.0, zorder=1)
        axes.set_xlim(past[0], ahead[-1])
    axes.margins(y=0.08)
    axes.set_title(_shortened(panel.title))
    axes.set_ylabel(_shortened(panel.unit, 24))
    _time_axis(axes, panel.time, labelled=labelled)


def _tint(share: float) -> tuple[float, ...]:
    """Return the model's blue mixed into white."""
    from matplotlib.colors import to_rgb

    return tuple(1.0 - share * (1.0 - part) for part in to_rgb(BLUE))


def _shortened(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def forecast_figure(
    panels: Sequence[ForecastPanel] | ForecastPanel, *, title: str = "", total: int | None = None
) -> Figure:
    """Draw history, forecast and fan of up to six series as small multiples.

    Args:
        panels: one a series; of more than six the first six are drawn, and the title says of how many.
        title: above all panels.
        total: number of series there are, where it is more than the panels given.

    Raises:
        InputError: no panel.

    Example:
        >>> panel = ForecastPanel("load", range(3), [1, 2, 3], range(3, 5), [4, 5], {0.9: ([3, 4], [5, 6])})
        >>> len(forecast_figure(panel).axes)
        1
    """
    shown = [panels] if isinstance(panels, ForecastPanel) else list(panels)
    count = max(total or 0, len(shown))
    shown = shown[:MAX_PANELS]
    if not shown:
        raise InputError("no series to draw", expected="at least one panel")
    heading = title
    if count > len(shown):
        heading = f"{title} · " if title else ""
        heading += f"{len(shown)} of {count} series"

    def draw() -> Figure:
        columns = 1 if len(shown) < 3 else 2
        rows = -(-len(shown) // columns)
        figure = new_figure(10.0, (4.6 if rows == 1 else 2.75 * rows) + 0.7)
        axes = np.atleast_1d(np.asarray(figure.subplots(rows, columns, squeeze=False))).ravel()
        for place, panel in enumerate(shown):
            _panel(axes[place], panel, labelled=place >= len(shown) - columns)
        for unused in axes[len(shown) :]:
            unused.remove()
        _legend(figure, list(axes[: len(shown)]))
        if heading:
            figure.suptitle(_shortened(heading, 100), x=0.01, ha="left", fontsize=13.5, fontweight="bold", color=INK)
        return figure

    return _styled(draw)


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, below them, each entry once: lines first, then the fan from narrow to wide."""
    entries: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    lines = [label for label in ("history", "forecast", "what came") if label in entries]
    fans = [label for label in entries if label.endswith("% interval")]
    order = lines + [label for label in entries if label not in (*lines, *fans)] + fans[::-1]
    columns = len(order) if len(order) <= 6 else -(-len(order) // 2)
    order = [label for place in range(columns) for label in order[place::columns]]  # matplotlib fills columns first
    figure.legend([entries[label] for label in order], order, loc="outside lower center", ncols=columns)


def horizon_figure(
    by_horizon: Mapping[str, ArrayLike],
    *,
    metric: str = "MSE",
    step: str = "steps",
    unit: str = "scaled",
    title: str = "",
) -> Figure:
    """Draw an error over the steps of the horizon, (H,) for the model (first) and each baseline.

    Args:
        by_horizon: name -> errors.
        metric, unit: for the axis.  step: what one step is, in the plural ("hours").

    Example:
        >>> len(horizon_figure({"dlinear": [0.1, 0.2], "naive": [0.2, 0.4]}).axes[0].lines)
        2
    """
    if not by_horizon:
        raise InputError("nothing to draw", expected="at least one model")

    def draw() -> Figure:
        figure = new_figure(10.0, 4.4)
        axes = figure.subplots()
        for place, (name, values) in enumerate(by_horizon.items()):
            errors = np.asarray(values, float)
            colour, style = SERIES[place % len(SERIES)]
            axes.plot(
                np.arange(1, len(errors) + 1),
                errors,
                color=colour,
                linestyle=style,
                label=_shortened(name, 32),
                linewidth=2.4 if place == 0 else 1.5,
                marker="o" if len(errors) < 3 else None,
            )
        axes.set_ylim(bottom=0.0)
        axes.margins(x=0.01)
        axes.set_xlabel(f"{step} ahead")
        axes.set_ylabel(f"{metric} ({unit})" if unit else metric)
        axes.set_title(title or f"{metric} over the horizon")
        _legend(figure, [axes])
        return figure

    return _styled(draw)


def coverage_figure(runs: Mapping[str, tuple[ArrayLike, ArrayLike]], *, band: float = 0.02, title: str = "") -> Figure:
    """Draw measured against nominal coverage: name -> (levels, coverage), each (K,), with the band of +- `band`.

    Example:
        >>> len(coverage_figure({"adaptive": ([0.5, 0.9], [0.49, 0.9])}).axes)
        1
    """
    if not runs:
        raise InputError("nothing to draw", expected="at least one run")

    def draw() -> Figure:
        figure = new_figure(6.2, 5.6)
        axes = figure.subplots()
        ends = np.array([0.0, 100.0])
        axes.fill_between(ends, ends - 100 * band, ends + 100 * band, color="#d8dee4", linewidth=0, zorder=1)
        axes.plot(ends, ends, color=FAINT, linewidth=1.0, label=f"nominal ± {100 * band:g} points", zorder=2)
        for place, (name, (levels, measured)) in enumerate(runs.items()):
            colour, style = SERIES[place % len(SERIES)]
            axes.plot(
                100 * np.asarray(levels, float),
                100 * np.asarray(measured, float),
                color=colour,
                linestyle=style,
                marker="os^Dvp"[place % 6],
                markersize=5,
                label=_shortened(name, 32),
                zorder=3,
            )
        axes.set(
            xlim=(0, 100), ylim=(0, 100), aspect="equal", xlabel="nominal level (%)", ylabel="measured coverage (%)"
        )
        axes.set_title(title or "Coverage of the intervals")
        _legend(figure, [axes])
        return figure

    return _styled(draw)


def training_figure(history: Mapping[str, Sequence[float]], *, best: int | None = None, title: str = "") -> Figure:
    """Draw losses per epoch: name ("train", "validation") -> one value an epoch; `best` is the epoch kept, from 1.

    Example:
        >>> len(training_figure({"train": [2.0, 1.0], "validation": [2.1, 1.5]}, best=2).axes)
        1
    """
    if not history:
        raise InputError("nothing to draw", expected="at least one loss")

    def draw() -> Figure:
        from matplotlib.ticker import MaxNLocator

        figure = new_figure(10.0, 4.2)
        axes = figure.subplots()
        for place, (name, losses) in enumerate(history.items()):
            colour, style = SERIES[place % len(SERIES)]
            epochs = np.arange(1, len(losses) + 1)
            axes.plot(epochs, losses, color=colour, linestyle=style, marker="o", markersize=4, label=name)
        if best is not None:
            axes.axvline(best, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), label=f"kept: epoch {best}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel="loss")
        axes.set_title(title or "Training")
        _legend(figure, [axes])
        return figure

    return _styled(draw)


def to_png_bytes(figure: Figure, *, dpi: int = DOTS_PER_INCH) -> bytes:
    """Return the figure as PNG (1,200 pixels wide for the forecast figure), the same bytes for the same figure."""
    return _saved(figure, "png", dpi=dpi, metadata={"Software": None})


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG document; text stays text."""
    return _saved(figure, "svg", metadata={"Date": None}).decode()


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def empty_figure(text: str) -> Figure:
    """A picture that says why there is nothing to see.

    Example:
        >>> empty_figure("nothing could be answered").axes[0].texts[0].get_text()
        'nothing could be answered'
    """

    def draw() -> Figure:
        figure = new_figure(6.0, 1.6)
        ax = figure.subplots()
        ax.set_axis_off()
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=FAINT)
        return figure

    return _styled(draw)
