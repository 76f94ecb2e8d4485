"""Pictures of figures about rollouts: metrics by horizon with baselines, drift, linear probes, spectra.

The title of each says what was found, so that a picture without its text cannot be read as something better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.evaluation import plots as house

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.world.drift import Drift
    from pipelines.world.probes import Probe

__all__ = ["drift_figure", "finding", "horizon_figure", "of_tally", "probes_figure", "spectrum_figure"]

Floats = NDArray[np.float64]
Bands = Mapping[str, tuple[ArrayLike, ArrayLike]]
_SEE = 0.16  # how much of its colour a band has
_FLOOR = -1.0  # of R2 that is drawn
_WIDE = 84  # letters of a title's line


def finding(model: str, values: ArrayLike, other: str, others: ArrayLike, *, larger: bool = False) -> str:
    """Where a model is better than another at each horizon, in words; horizons without figures do not count.

    Args:
        model: name.
        values: (h,) its figures.
        other: name of the other.
        others: (h,) its figures.
        larger: whether larger figures are the better ones.

    Example:
        >>> finding("fluidworld", [3, 1, 1], "copy_last", [1, 2, 3])
        'fluidworld better than copy_last from horizon 2 on'
        >>> finding("fluidworld", [3, 3], "copy_last", [1, 2])
        'fluidworld never better than copy_last'
    """
    mine, theirs = np.asarray(values, np.float64), np.asarray(others, np.float64)
    known = np.isfinite(mine) & np.isfinite(theirs)
    if not known.any():
        return f"{model} not comparable with {other}"
    wins = ((mine > theirs) if larger else (mine < theirs)) & known
    steps, count = np.flatnonzero(wins) + 1, int(known.sum())
    if len(steps) == count:
        where = "at every horizon" if count > 1 else f"at horizon {steps[0]}"
        return f"{model} better than {other} {where}"
    if not len(steps):
        return f"{model} never better than {other}"
    places = np.flatnonzero(known) + 1
    if np.array_equal(steps, places[-len(steps) :]):
        return f"{model} better than {other} from horizon {steps[0]} on"
    if np.array_equal(steps, places[: len(steps)]):
        return f"{model} better than {other} up to horizon {steps[-1]}"
    return f"{model} better than {other} at {len(steps)} of {count} horizons"


def horizon_figure(
    rows: Mapping[str, ArrayLike],
    *,
    bands: Bands | None = None,
    metric: str = "MSE",
    unit: str = "",
    larger: bool = False,
    fps: float | None = None,
    windows: int | None = None,
    title: str = "",
) -> Figure:
    """Draw a metric over the horizon, one line a model, the first one's thick, with bands of intervals.

    Args:
        rows: name -> (h,), the model first and its baselines after it; NaN where there is no figure.
        bands: name -> (lower, upper), each (h,), 95 % intervals.
        metric: its name.
        unit: of the metric.
        larger: whether larger figures are the better ones.
        fps: Hz; time stands above the picture where it is known.
        windows: how many were measured, said in the title.
        title: above the picture; by default where the model is better than each baseline.

    Raises:
        InputError: nothing to draw, or lengths that differ.

    Example:
        >>> figure = horizon_figure({"fluidworld": [0.3, 0.4], "copy_last": [0.2, 0.5]}, windows=12)
        >>> figure.axes[0].get_title(loc="left").splitlines()
        ['MSE by horizon, lower is better, 12 windows:', 'fluidworld better than copy_last from horizon 2 on']
    """
    held = _held(rows)
    drawn = {name: _held({"lower": lower, "upper": upper}) for name, (lower, upper) in (bands or {}).items()}
    found = [finding(*next(iter(held.items())), *other, larger=larger) for other in list(held.items())[1:]]

    def draw() -> Figure:
        figure = house.new_figure(9.6, 4.6)
        ax = figure.subplots()
        _lines(ax, held, drawn)
        _steps(ax, len(next(iter(held.values()))), fps)
        if not larger and min(float(np.nanmin(v)) if np.isfinite(v).any() else 0.0 for v in held.values()) >= 0:
            ax.set_ylim(bottom=0)
        ax.set_ylabel(f"{metric} ({unit})" if unit else metric)
        better = f"{'higher' if larger else 'lower'} is better"
        counted = "" if windows is None else f", {windows:,} window{'s' if windows != 1 else ''}"
        _title(ax, title or _sentence(f"{metric} by horizon, {better}{counted}", found))
        if drawn:
            ax.plot([], [], color=house.FAINT, lw=7, alpha=0.3, label="95 % interval")
        _legend(ax)
        return figure

    return house._styled(draw)


def of_tally(
    figures: Mapping[str, Any], intervals: Mapping[str, Mapping[str, Any]], *, metric: str = "mse", model: str = "model"
) -> tuple[dict[str, list[float]], dict[str, tuple[list[float], list[float]]]]:
    """Lines and bands for `horizon_figure` from what a `Tally` counted.

    Args:
        figures: `Tally.figures()`.
        intervals: method -> `Tally.intervals(method)`; the model's under `model`.
        metric: which.
        model: name of the model.

    Returns:
        rows and bands; a horizon without a figure is NaN.

    Example:
        >>> row = {"horizons": [{"horizon": 1, "mse": 0.1}]}
        >>> of_tally({**row, "baselines": {"copy_last": row}}, {}, model="convlstm")
        ({'convlstm': [0.1], 'copy_last': [0.1]}, {})
    """
    every = {model: figures, **figures.get("baselines", {})}
    rows = {name: [step.get(metric, math.nan) for step in told["horizons"]] for name, told in every.items()}
    bands: dict[str, tuple[list[float], list[float]]] = {}
    for name, told in intervals.items():
        steps = [step.get(metric) for step in told.get("horizons", ())]
        if any(step is not None for step in steps):
            ends = [(math.nan, math.nan) if step is None else (float(step.lo), float(step.hi)) for step in steps]
            bands[name] = [low for low, _ in ends], [high for _, high in ends]
    return rows, bands


def drift_figure(
    drifts: Mapping[str, Drift], *, fps: float | None = None, trained: int | None = None, title: str = ""
) -> Figure:
    """Draw how rollouts drift: distance above, change from frame to frame below, and how they end in the title.

    Args:
        drifts: model -> its curve, of the same windows and steps.
        fps: Hz, where it is known.
        trained: longest rollout that training saw, drawn as a line.
        title: above the picture; by default how each model ends.

    Raises:
        InputError: nothing to draw, or lengths that differ.

    Example:
        >>> from pipelines.world.drift import drift
        >>> start = np.linspace(0, 1, 16).reshape(1, 1, 4, 4)
        >>> still = drift(np.repeat(start[:, None], 8, axis=1), start)
        >>> drift_figure({"copy_last": still}).axes[0].get_title(loc="left").splitlines()[1]
        'copy_last freezes'
    """
    if not drifts:
        raise InputError("nothing to draw", where="drift", expected="at least one model")
    first = next(iter(drifts.values()))
    away = {name: one.from_start if one.to_truth is None else one.to_truth for name, one in drifts.items()}
    change = {name: one.change for name, one in drifts.items()}
    if first.copy_to_truth is not None and first.true_change is not None:
        change["truth"] = first.true_change
        if not any(np.allclose(first.copy_to_truth, values, rtol=1e-6) for values in away.values()):
            away["copying the last frame"] = first.copy_to_truth
    held, moved = _held(away), _held(change)
    steps = len(first.change)

    def draw() -> Figure:
        figure = house.new_figure(9.6, 6.4)
        above, below = figure.subplots(2, 1, sharex=True)
        known = first.to_truth is not None
        _lines(above, held, {}, last_is_reference="copying the last frame" in held)
        _lines(below, moved, {}, last_is_reference="truth" in moved, hidden=True)
        above.set_ylabel(f"distance from the\n{'truth' if known else 'last frame seen'} (RMS)")
        above.set_ylim(bottom=0)
        below.set_ylabel("change from\nframe to frame (MS)")
        if max(float(values.max(initial=0, where=np.isfinite(values))) for values in moved.values()) > 0:
            below.set_yscale("log", nonpositive="mask")  # a frame that is copied changes by nothing: no point
        _steps(below, steps, None)
        above.tick_params(labelbottom=False)
        if fps:
            _clock(above, fps)
        for ax in (above, below):
            if trained is not None and trained < steps:
                ax.axvline(trained, color=house.FAINT, lw=1.0, ls=(0, (4, 3)), label="longest rollout in training")
            _legend(ax)
        _title(above, title or _sentence(f"Drift over {steps:,} frames", [f"{n} {o.end}" for n, o in drifts.items()]))
        return figure

    return house._styled(draw)


def probes_figure(found: Mapping[str, Mapping[str, Probe]], *, title: str = "") -> Figure:
    """Draw what linear probes read from several kinds of features: R2 of each state, with intervals.

    Args:
        found: kind of features -> target -> probe, as `compare` gives them; the model first.
        title: above the picture; by default where the model beats the others in the mean.

    Raises:
        InputError: nothing that has an R2.

    Example:
        >>> from pipelines.world.probes import Series, compare
        >>> x = np.random.default_rng(0).standard_normal((100, 2))
        >>> sets = {"model": [Series("a", x, x)], "pixels": [Series("a", x[:, :1], x)]}
        >>> probes_figure(compare(sets, ["x", "y"])).axes[0].get_title(loc="left").splitlines()[1:]
        ['position: model above pixels', 'velocity: model above pixels']
    """
    bars = [
        (f"{target} {state}" if state != target else target, kind, interval)
        for target in dict.fromkeys(target for probes in found.values() for target in probes)
        for state in dict.fromkeys(name for probes in found.values() for name in _r2(probes, target))
        for kind, probes in found.items()
        if (interval := _r2(probes, target).get(state)) is not None
    ]
    if not bars:
        raise InputError("nothing to draw", where="probes", expected="a state that has an R2")
    kinds = list(found)

    def draw() -> Figure:
        from matplotlib.patches import Patch

        groups = list(dict.fromkeys(group for group, _, _ in bars))
        figure = house.new_figure(9.0, 1.7 + len(groups) * (0.24 * len(kinds) + 0.16))
        ax = figure.subplots()
        thick = 0.8 / len(kinds)
        for group, kind, interval in bars:
            place = groups.index(group) + (kinds.index(kind) - (len(kinds) - 1) / 2) * thick
            value = max(_FLOOR, interval.value)
            ax.barh(place, value, thick * 0.86, color=_bar_colour(kinds.index(kind)))
            ends = np.clip([interval.lo, interval.hi], _FLOOR, 1.0)
            ax.hlines(place, *ends, color=house.INK, lw=1.2)
            below = " (drawn at -1)" if interval.value < _FLOOR else ""
            ax.annotate(f"{interval.value:.3f}{below}", (max(value, ends[1], 0.0), place), (5, 0), fontsize=8,
                        textcoords="offset points", va="center")  # fmt: skip
        patches = [Patch(color=_bar_colour(place), label=kind) for place, kind in enumerate(kinds)]
        ax.axvline(0, color=house.FAINT, lw=1.0)
        ax.set_yticks(range(len(groups)), groups)
        ax.set_ylim(len(groups) - 0.45, -0.55)
        lowest = min(max(_FLOOR, min(interval.lo, interval.value)) for _, _, interval in bars)
        ax.set_xlim(min(0.0, lowest) - 0.02, 1.12)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("R2 on frames that were not fitted: 1 is all, 0 the mean; line: 95 % interval")
        _title(ax, title or _sentence("Linear probes, higher is better", _probe_findings(found)))
        ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        return figure

    return house._styled(draw)


def spectrum_figure(
    frequencies: ArrayLike, spectra: Mapping[str, ArrayLike], *, horizon: int | None = None, title: str = ""
) -> Figure:
    """Draw power over radial frequency: below the truth fine detail was blurred away, above it noise was added.

    Args:
        frequencies: (R,) shares of Nyquist (half a cycle a pixel), as `spectrum` gives them.
        spectra: name -> (R,) mean power; what is called "truth" is the reference.
        horizon: of the frames, said in the title.
        title: above the picture; by default how much of the truth's energy each has above a quarter of Nyquist.

    Raises:
        InputError: nothing to draw, or lengths that differ.

    Example:
        >>> figure = spectrum_figure([0.5, 1.0], {"truth": [1.0, 0.5], "convlstm": [1.0, 0.25]})
        >>> figure.axes[0].get_title(loc="left").splitlines()[1]
        'energy in the rings above a quarter of Nyquist, truth 100 %: convlstm 75 %'
    """
    held, axis = _held(spectra), np.asarray(frequencies, np.float64)
    if axis.shape != next(iter(held.values())).shape:
        raise InputError("frequencies that do not fit", found=axis.shape, expected=next(iter(held.values())).shape)
    fine = {name: float((axis * values)[axis > 0.25].sum()) for name, values in held.items()}  # rings grow with radius
    told = []
    if fine.get("truth", 0.0) > 0:
        parts = [f"{name} {100 * value / fine['truth']:.0f} %" for name, value in fine.items() if name != "truth"]
        told = [f"energy in the rings above a quarter of Nyquist, truth 100 %: {', '.join(parts)}"] if parts else []

    def draw() -> Figure:
        figure = house.new_figure(8.6, 4.6)
        ax = figure.subplots()
        others = {name: values for name, values in held.items() if name != "truth"}
        _lines(ax, others, {}, axis=axis)
        if "truth" in held:
            ax.plot(axis, held["truth"], color=house.INK, ls=(0, (1.2, 1.2)), lw=2.0, label="truth")
        ax.axvline(0.25, color=house.FAINT, lw=1.0, ls=(0, (4, 3)))
        if any((values > 0).any() for values in held.values()):
            ax.set_yscale("log", nonpositive="mask")
        ax.set_xlabel("radial frequency (share of Nyquist, half a cycle a pixel)")
        ax.set_ylabel("mean power")
        at = "" if horizon is None else f" at horizon {horizon}"
        _title(ax, title or _sentence(f"Spectra of frames{at}", told))
        _legend(ax)
        return figure

    return house._styled(draw)


def _held(rows: Mapping[str, ArrayLike]) -> dict[str, Floats]:
    held = {name: np.asarray(values, np.float64) for name, values in rows.items()}
    shapes = {values.shape for values in held.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not next(iter(held.values())).size:
        found = {name: values.shape for name, values in held.items()} or "nothing"
        raise InputError("nothing to draw", found=found, expected="one or more of one length (h,)")
    return held


def _lines(
    ax: Axes,
    rows: Mapping[str, Floats],
    bands: Mapping[str, Mapping[str, Floats]],
    *,
    axis: Floats | None = None,
    last_is_reference: bool = False,
    hidden: bool = False,
) -> None:
    """One line a name, the first the thickest; the last, where it is what others are held against, in ink.

    Where zeros are `hidden`, on a logarithmic axis, the name of a line of zeros says so.
    """
    for place, (name, values) in enumerate(rows.items()):
        colour, style = house.SERIES[place % len(house.SERIES)]
        if last_is_reference and place == len(rows) - 1:
            colour, style = house.INK, (0, (1.2, 1.2))
        along = np.arange(1, len(values) + 1) if axis is None else axis
        shown = np.where(np.isfinite(values), values, np.nan)
        if name in bands:
            ax.fill_between(along, bands[name]["lower"], bands[name]["upper"], color=colour, alpha=_SEE, lw=0)
        mark = "o" if np.isfinite(shown).sum() < 3 else None
        still = " (0 throughout)" if hidden and not np.any(shown) else ""
        ax.plot(along, shown, color=colour, ls=style, marker=mark, lw=2.4 if place == 0 else 1.5, label=name + still)


def _steps(ax: Axes, steps: int, fps: float | None) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    ax.set_xlim(1 - 0.02 * steps, steps + 0.02 * steps)
    ax.set_xlabel("horizon (frames ahead)")
    if fps:
        _clock(ax, fps)


def _clock(ax: Axes, fps: float) -> None:
    """A second axis above with the time, which the frame rate gives."""
    time = ax.secondary_xaxis("top", functions=(lambda step: step / fps, lambda second: second * fps))
    time.set_xlabel(f"time ahead (s) at {fps:.4g} Hz")


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize=11)


def _legend(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)


def _sentence(lead: str, found: Sequence[str]) -> str:
    """A title of a line that says what is drawn, and lines that say what was found; long ones are broken."""
    lines = [f"{lead}:" if found else lead]
    for part in found:
        while len(part) > _WIDE and " " in part[:_WIDE]:
            cut = part.rindex(" ", 0, _WIDE)
            lines.append(part[:cut])
            part = part[cut + 1 :]
        lines.append(part)
    return "\n".join(lines)


def _r2(probes: Mapping[str, Probe], target: str) -> dict[str, Any]:
    return probes[target].r2 if target in probes else {}


def _bar_colour(place: int) -> str:
    return (house.BLUE, house.ORANGE, house.SKY, house.AMBER, house.GREEN, house.PURPLE)[place % 6]


def _probe_findings(found: Mapping[str, Mapping[str, Probe]]) -> list[str]:
    """For each target, what the first kind of features is above and not above, by the mean R2."""
    model, *others = found
    told = []
    for target, probe in found[model].items():
        means = {kind: found[kind][target].mean_r2 for kind in others if target in found[kind]}
        above = [kind for kind, mean in means.items() if probe.mean_r2 > mean]
        under = [kind for kind in means if kind not in above]
        parts = ([f"above {' and '.join(above)}"] if above else []) + (
            [f"not above {' and '.join(under)}"] if under else []
        )
        if parts:
            told.append(f"{target}: {model} {', '.join(parts)}")
    return told
