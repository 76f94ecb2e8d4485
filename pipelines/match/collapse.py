"""Length collapse: how far an encoder draws long texts together, and how much its attention filters on the way.

Measures of arXiv 2410.24200 for any encoder: the filter rate of every attention, likeness of embeddings by length, and
the distance of long texts' mean from the mean of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipelines.errors import ConfigError, InputError
from pipelines.match.filter_rates import FilterRates, filter_rate, filter_rates, heuristic_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FilterRates",
    "LengthCollapse",
    "collapse_figure",
    "filter_rate",
    "filter_rates",
    "heuristic_rate",
    "length_collapse",
]


@dataclass(frozen=True)
class LengthCollapse:
    """How alike embeddings are, by the length of their texts.

    Attributes:
        edges: (K, 2), shortest and longest text of each bin.
        lengths: (K,) mean length in each bin.
        counts: (K,) texts in each bin.
        cosine: (K,) mean cosine of two different texts of the bin; NaN where there are fewer than two.
        distance: (K,) Euclidean distance of the bin's mean unit vector from the mean of all.
        notes: what was left out, counted.
    """

    edges: NDArray[np.int64]
    lengths: NDArray[np.float64]
    counts: NDArray[np.int64]
    cosine: NDArray[np.float64]
    distance: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, float]]:
        """One mapping a bin, for tables: shortest, longest, length, texts, cosine, distance."""
        names = ("shortest", "longest", "length", "texts", "cosine", "distance")
        values = (*self.edges.T, self.lengths, self.counts, self.cosine, self.distance)
        return [dict(zip(names, map(float, row), strict=True)) for row in zip(*values, strict=True)]


def length_collapse(
    encode: Callable[[list[Any]], Any],
    texts: Sequence[Any],
    *,
    lengths: Sequence[int] | None = None,
    bins: int | Sequence[int] = 5,
    batch: int = 64,
) -> LengthCollapse:
    """Likeness of embeddings by length: where long texts collapse, the cosine rises with the length.

    Args:
        encode: a list of texts to their embeddings (N, D), of any encoder; NumPy or torch.
        texts: what ``encode`` takes.
        lengths: length of each text, in tokens; by default words of a string, else ``len``.
        bins: number of bins of about equally many texts, or the lengths at which a new bin begins, rising.
        batch: texts that are encoded at a time.

    Raises:
        InputError: fewer than two texts, lengths or embeddings of another number, embeddings that are not finite.
        ConfigError: no bin, or limits that do not rise.

    Complexity: O(N D) beside the encoder. Source: arXiv 2410.24200, its measures of embeddings; vectors are normalised
    first.

    Example:
        >>> vectors = {"a": [1, 0], "b": [0, 1], "c c": [3, 4], "d d": [4, 3]}
        >>> found = length_collapse(lambda texts: np.array([vectors[t] for t in texts]), list(vectors), bins=2)
        >>> found.cosine.round(2).tolist(), found.counts.tolist()
        ([0.0, 0.96], [2, 2])
    """
    if len(texts) < 2:
        raise InputError("too few to compare", where="texts", found=len(texts), expected="two or more")
    sizes = _lengths(texts, lengths)
    pieces = [_array(encode(list(texts[i : i + batch]))) for i in range(0, len(texts), batch)]
    vectors = np.concatenate(pieces)
    if len(vectors) != len(texts):
        raise InputError("not one a text", where="embeddings", found=len(vectors), expected=len(texts))
    norms = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(norms).all():
        found = f"{int((~np.isfinite(norms)).sum())} of {len(norms)}"
        raise InputError("not finite", where="embeddings", found=found, expected="finite numbers")
    kept = norms > 0
    notes = [] if kept.all() else [f"{int((~kept).sum())} texts with an embedding of zeros left out"]
    unit, sizes = vectors[kept] / norms[kept, None], sizes[kept]
    if len(unit) < 2:
        raise InputError("all zeros", where="embeddings", found=f"{len(unit)} others", expected="two or more others")
    groups = [where for where in _groups(sizes, bins) if len(where)]
    centre = unit.mean(axis=0)
    single = sum(len(where) < 2 for where in groups)
    notes += [f"{single} bins of one text, which is compared with none"] if single else []
    return LengthCollapse(
        edges=np.array([(sizes[where].min(), sizes[where].max()) for where in groups], dtype=np.int64),
        lengths=np.array([sizes[where].mean() for where in groups]),
        counts=np.array([len(where) for where in groups], dtype=np.int64),
        cosine=np.array([_mean_cosine(unit[where]) for where in groups]),
        distance=np.array([float(np.linalg.norm(unit[where].mean(axis=0) - centre)) for where in groups]),
        notes=tuple(notes),
    )


def collapse_figure(
    collapse: LengthCollapse | Mapping[str, LengthCollapse] | None = None,
    rates: FilterRates | Mapping[str, FilterRates] | None = None,
    *,
    spread: float | None = None,
    title: str = "",
) -> Figure:
    """Draw the collapse: filter rates over tokens, likeness and distance over length; several encoders by name.

    Args:
        collapse: embeddings by length.
        rates: filter rates: mean over attentions and heads, and the range of both.
        spread: standard deviation of the scores, for a dashed line of `heuristic_rate`, labelled as heuristic.
        title: above the picture.

    Raises:
        ConfigError: neither is given.

    Complexity: O(points).

    Example:
        >>> found = length_collapse(lambda texts: np.eye(4)[: len(texts)], ["a", "b", "c c", "d d"], bins=2)
        >>> len(collapse_figure(found).axes)
        2
    """
    from pipelines.evaluation.plots import _styled, new_figure

    by_name = {"": collapse} if isinstance(collapse, LengthCollapse) else dict(collapse or {})
    rates_by_name = {"": rates} if isinstance(rates, FilterRates) else dict(rates or {})
    panels = (1 if rates_by_name else 0) + (2 if by_name else 0)
    if not panels:
        raise ConfigError("nothing to draw", where="collapse, rates", found=None, expected="one of them")

    def draw() -> Figure:
        figure = new_figure(1.0 + 3.7 * panels, 3.7)
        axes = list(np.atleast_1d(figure.subplots(1, panels)))
        if rates_by_name:
            _draw_rates(axes.pop(0), rates_by_name, spread)
        if by_name:
            _draw_lines(axes[0], {name: (c.lengths, c.cosine) for name, c in by_name.items()})
            below = "tokens (mean of the bin)"
            axes[0].set(title="Likeness by length", xlabel=below, ylabel="mean cosine of two texts")
            _draw_lines(axes[1], {name: (c.lengths, c.distance) for name, c in by_name.items()})
            axes[1].set(title="Distance from the mean", xlabel=below, ylabel="bin to all texts")
        if title:
            figure.suptitle(title)
        return figure

    return _styled(draw)


def _draw_rates(axes: Axes, by_name: Mapping[str, FilterRates], spread: float | None) -> None:
    from pipelines.evaluation.plots import FAINT, SERIES

    for found, (colour, _) in zip(by_name.values(), _cycled(SERIES, len(by_name)), strict=True):
        tokens, flat = np.nanmean(found.tokens, axis=1), found.rates.reshape(len(found.rates), -1)
        axes.fill_between(tokens, np.nanmin(flat, 1), np.nanmax(flat, 1), color=colour, alpha=0.15, linewidth=0)
    lines = {name or "measured": (np.nanmean(f.tokens, 1), np.nanmean(f.rates, (1, 2))) for name, f in by_name.items()}
    _draw_lines(axes, lines)
    if spread is not None:
        low, high = (int(edge) for edge in axes.get_xlim())
        counts = np.unique(np.geomspace(max(low, 2), max(high, 3), 60).astype(int))
        label = f"heuristic for spread {spread:g}, no bound"
        values = [heuristic_rate(int(n), spread) for n in counts]
        axes.plot(counts, values, color=FAINT, linestyle=(0, (4, 3)), label=label)
    axes.legend(frameon=False, fontsize=9)
    axes.set(title="Filter rate of attention", xlabel="tokens in the attention", ylabel="largest factor")
    axes.set_ylim(bottom=0)


def _draw_lines(axes: Axes, lines: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
    from pipelines.evaluation.plots import SERIES

    for (name, (x, y)), (colour, style) in zip(lines.items(), _cycled(SERIES, len(lines)), strict=True):
        axes.plot(x, y, color=colour, linestyle=style, marker="o", markersize=4, label=name or None)
    if any(name for name in lines):
        axes.legend(frameon=False, fontsize=9)
    points = np.concatenate([x for x, _ in lines.values()])
    if len(points) > 1 and points.min() > 0 and points.max() > 8 * points.min():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")


def _cycled(series: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    return [series[i % len(series)] for i in range(count)]


def _lengths(texts: Sequence[Any], lengths: Sequence[int] | None) -> NDArray[np.int64]:
    if lengths is None:
        lengths = [len(text.split()) if isinstance(text, str) else len(text) for text in texts]
    if len(lengths) != len(texts):
        raise InputError("not one a text", where="lengths", found=len(lengths), expected=len(texts))
    return np.asarray(lengths, dtype=np.int64)


def _groups(sizes: NDArray[np.int64], bins: int | Sequence[int]) -> list[NDArray[np.intp]]:
    """Members of each bin, by rising length; texts of one length stay together."""
    if isinstance(bins, int):
        if bins < 1:
            raise ConfigError("no bin", where="bins", found=bins, expected="a positive whole number")
        limits = np.unique(np.quantile(sizes, np.arange(1, bins) / bins, method="higher"))
    else:
        limits = np.asarray(bins, dtype=np.float64)
        if (np.diff(limits) <= 0).any():
            raise ConfigError("do not rise", where="bins", found=list(bins), expected="rising lengths")
    number = np.searchsorted(limits, sizes, side="right")
    return [np.flatnonzero(number == i) for i in range(len(limits) + 1)]


def _mean_cosine(unit: NDArray[np.float64]) -> float:
    """Of all pairs of different rows, from the length of their sum: sum_ij u_i . u_j = |sum u|^2. O(N D)."""
    count = len(unit)
    return float("nan") if count < 2 else float((np.sum(unit.sum(axis=0) ** 2) - count) / (count * (count - 1)))


def _array(vectors: Any) -> NDArray[np.float64]:
    """Embeddings (N, D) in float64."""
    if isinstance(vectors, Tensor):
        vectors = vectors.detach().cpu().double().numpy()
    found = np.asarray(vectors, dtype=np.float64)
    if found.ndim != 2:
        raise InputError("not a table", where="embeddings", found=found.shape, expected="(texts, channels)")
    return found
