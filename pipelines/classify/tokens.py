"""VSFormer's tokens: matches of motifs (shape) and statistics of intervals (value), each with its class prior.

Everything here is computed once from numbers, without a gradient: motifs, priors and the choice of tokens come from the
training series alone, the tokens of any series from them. Source: VSFormer (arXiv 2412.16515); no code was released, so
that granularities, statistics and the scaling of priors are our reading.

Shapes: N series, V variables, C classes, P shape tokens (w steps, mean, deviation), Q value tokens of
3 statistics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.classify.motifs import Matches, Motifs, cached_motifs, match, motif_length

__all__ = ["Tokeniser", "interval_statistics", "intervals", "shape_priors", "value_priors"]

Floats = NDArray[np.float32]
GRANULARITIES = (1, 2, 4, 8)
STATISTICS = ("mean", "deviation", "slope")
_BINS = 10
_PERMUTATIONS = 20
_LEAST_SCALE = 0.05  # the best prior of a branch counts as 1, unless even that says next to nothing


def intervals(granularities: Sequence[int] = GRANULARITIES) -> NDArray[np.float64]:
    """Begin and end, as shares of a series, of g equal intervals for each granularity g: (sum g, 2).

    Example:
        >>> intervals((1, 2)).tolist()
        [[0.0, 1.0], [0.0, 0.5], [0.5, 1.0]]
    """
    return np.array([(i / g, (i + 1) / g) for g in granularities for i in range(g)])


def interval_statistics(
    series: Sequence[Floats], granularities: Sequence[int] = GRANULARITIES
) -> tuple[Floats, NDArray[np.bool_]]:
    """Mean, deviation and slope (change over the interval) of every variable in every interval, of measured values.

    Args:
        series: N arrays (V, T), NaN where nothing was measured; a series is divided by its own length.
        granularities: numbers of equal intervals.

    Returns:
        (N, V * intervals, 3) with the intervals of a variable side by side, and (N, V * intervals) whether anything was
        measured there: a series shorter than the granularity has empty intervals.

    O(N V (T + intervals)) by running sums.

    Example:
        >>> interval_statistics([np.array([[0.0, 1.0, 2.0, 3.0]])], (1,))[0].round(2).tolist()
        [[[1.5, 1.1200000047683716, 3.0]]]
    """
    shares = intervals(granularities)
    parts, seen = [], []
    for one in series:
        length = one.shape[1]
        edges = np.round(shares * length).astype(int)
        measured = ~np.isnan(one)
        x = np.where(measured, one, 0.0).astype(np.float64)
        t = np.where(measured, np.arange(length) / max(1, length - 1), 0.0)
        n, sx, sxx, st, stt, stx = (
            _between(np.cumsum(column, axis=1), edges) for column in (measured, x, x * x, t, t * t, t * x)
        )
        count = np.maximum(n, 1)
        mean, when = sx / count, st / count
        variance = np.maximum(sxx / count - mean**2, 0.0)
        spread = stt / count - when**2
        share = np.maximum(edges[:, 1] - edges[:, 0] - 1, 0) / max(1, length - 1)
        slope = np.where(spread > 1e-12, (stx / count - when * mean) / np.maximum(spread, 1e-12) * share, 0.0)
        parts.append(np.stack([mean, np.sqrt(variance), slope], axis=-1).reshape(-1, 3))
        seen.append((n > 0).reshape(-1))
    return np.stack(parts).astype(np.float32), np.stack(seen)


def _between(running: NDArray[np.floating], edges: NDArray[np.integer]) -> NDArray[np.float64]:
    """Sums (V, intervals) over [begin, end) from running sums (V, T)."""
    padded = np.concatenate([np.zeros((len(running), 1)), running], axis=1)
    return padded[:, edges[:, 1]] - padded[:, edges[:, 0]]


def shape_priors(matches: Matches, motifs: Motifs, labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """How much nearer the motif's own class comes to it than the others do: 1 - r, at least 0; r = near / far.

    near is the mean distance of the class's series, without the one that the motif was cut from (its distance is zero
    whatever the class), far the mean of all others. (P,), not scaled.
    """
    priors = np.zeros(len(motifs))
    for p in range(len(motifs)):
        distance = matches.distance[:, p].astype(np.float64)
        known = ~np.isnan(distance)
        own = known & (labels == motifs.label[p])
        others = known & (labels != motifs.label[p])
        rest = own & (np.arange(len(labels)) != motifs.origin[p])
        near = distance[rest].mean() if rest.any() else distance[own].mean() if own.any() else np.inf
        far = distance[others].mean() if others.any() else 0.0
        priors[p] = max(0.0, 1.0 - near / far) if far > 0 else 0.0
    return priors


def value_priors(
    statistics: Floats, measured: NDArray[np.bool_], labels: NDArray[np.integer], *, seed: int = 0
) -> NDArray[np.float64]:
    """How much an interval's statistics tell of the class: 1 - H(class | bin) / H(class), beyond chance. (Q,).

    A statistic is cut into ten bins by its training quantiles; what is not measured is a bin of its own. With few
    series a bin looks pure by chance: what shuffled classes reach on average is taken off, so that noise has a prior of
    about zero. The mean of the three statistics counts. O(permutations N Q).

    Args:
        statistics: (N, Q, 3).
        measured: (N, Q).
        labels: (N,) classes by number.
        seed: of the shuffles.
    """
    labels = np.unique(np.asarray(labels), return_inverse=True)[1]
    flat = statistics.reshape(len(statistics), -1)
    hidden = np.repeat(~measured, statistics.shape[-1], axis=1)
    bins = _binned(flat, hidden)
    entropy = _entropy(np.bincount(labels) / len(labels))
    if entropy == 0:
        return np.zeros(statistics.shape[1])
    told = _information(bins, labels, entropy)
    generator = np.random.default_rng(seed)
    chance = np.mean([_information(bins, generator.permutation(labels), entropy) for _ in range(_PERMUTATIONS)], axis=0)
    beyond = np.clip((told - chance) / np.maximum(entropy - chance, 1e-9), 0.0, 1.0)
    return beyond.reshape(-1, statistics.shape[-1]).mean(-1)


def _binned(values: Floats, hidden: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The bin of every value (N, F); fewer bins where there are few series, the last for what is hidden."""
    count = int(np.clip(len(values) // 4, 2, _BINS))
    shown = np.where(hidden, np.nan, values.astype(np.float64))
    bins = np.full(values.shape, count, np.int64)
    levels = np.linspace(0, 1, count + 1)[1:-1]
    for f in range(values.shape[1]):
        known = ~hidden[:, f]
        if known.any():
            bins[known, f] = np.searchsorted(np.quantile(shown[known, f], levels), shown[known, f], side="right")
    return bins


def _information(bins: NDArray[np.int64], labels: NDArray[np.integer], entropy: float) -> NDArray[np.float64]:
    """H(class) - H(class | bin) of every column, in nats."""
    columns, classes = bins.shape[1], int(labels.max()) + 1
    counts = np.zeros((columns, int(bins.max()) + 1, classes))
    every = np.arange(columns)
    for row, label in zip(bins, labels, strict=True):
        counts[every, row, label] += 1
    total = counts.sum(-1, keepdims=True)
    within = _entropy(counts / np.maximum(total, 1))
    return entropy - (within * total[..., 0]).sum(-1) / len(labels)


def _entropy(shares: NDArray[np.floating]) -> Any:
    """Entropy in nats along the last axis."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(-1)


def scaled(priors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Priors over the largest of their branch, so that the best token counts whole.

    Example:
        >>> scaled(np.array([0.1, 0.2])).tolist(), scaled(np.array([0.0, 0.025])).tolist()
        ([0.5, 1.0], [0.0, 0.5])
    """
    return priors / max(_LEAST_SCALE, float(priors.max(initial=0.0)))


@dataclasses.dataclass(frozen=True)
class Tokeniser:
    """What turns series into tokens: motifs and intervals that were kept, with their priors.

    Attributes:
        motifs: P shapes.
        shape_prior: (P,) scaled to [0, 1].
        value_token: (Q,) which of the V * intervals statistics are kept.
        value_prior: (Q,) scaled to [0, 1].
        variables: V.
        classes: C.
        notes: what was left out, counted.
    """

    motifs: Motifs
    shape_prior: NDArray[np.float64]
    value_token: NDArray[np.int64]
    value_prior: NDArray[np.float64]
    variables: int
    classes: int
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        series: Sequence[Floats],
        labels: NDArray[np.integer],
        *,
        length: int | None = None,
        count: int = 3,
        most: int = 384,
        seed: int = 0,
        names: Sequence[str] = (),
    ) -> Tokeniser:
        """Find motifs and priors in the training series.

        Args:
            series: N standardised arrays (V, T).
            labels: (N,) classes 0 to C - 1.
            length: steps of a motif; default by the lengths of the series.
            count: motifs a class and variable.
            most: tokens of each branch that are kept at most, those of the largest priors.
            seed: of every draw.
            names: of the classes, for messages.
        """
        labels = np.asarray(labels)
        steps = motif_length([one.shape[1] for one in series], length)
        motifs = cached_motifs(series, labels, length=steps, count=count, seed=seed, names=names)
        shapes = shape_priors(match(motifs, series), motifs, labels)
        statistics, measured = interval_statistics(series)
        values = value_priors(statistics, measured, labels, seed=seed)
        kept, chosen = _largest(shapes, most), _largest(values, most)
        notes = [
            f"{name} tokens: the {len(found)} of {total} with the largest priors are kept"
            for name, found, total in (("shape", kept, len(shapes)), ("value", chosen, len(values)))
            if len(found) < total
        ]
        return cls(
            motifs.take(kept),
            scaled(shapes[kept]),
            chosen,
            scaled(values[chosen]),
            series[0].shape[0],
            int(labels.max()) + 1,
            (*motifs.notes, *notes),
        )

    def describe(self) -> dict[str, NDArray[Any]]:
        """What the model has to know of each token, the same for all series."""
        shares = intervals()
        return {
            "shape_variable": self.motifs.variable,
            "shape_class": self.motifs.label,
            "shape_prior": self.shape_prior.astype(np.float32),
            "value_variable": self.value_token // len(shares),
            "value_place": shares[self.value_token % len(shares)].astype(np.float32),
            "value_prior": self.value_prior.astype(np.float32),
        }

    def __call__(self, series: Sequence[Floats]) -> dict[str, NDArray[Any]]:
        """Tokens of some standardised series.

        Returns:
            ``shape`` (N, P, w + 2): the matched window, z-normalised, its mean and its deviation; ``shape_place``
            (N, P, 3): begin and end as shares of the series, distance over sqrt(w); ``shape_valid`` (N, P); ``value``
            (N, Q, 3), ``value_valid`` (N, Q).
        """
        found = match(self.motifs, series)
        lengths = np.array([one.shape[1] for one in series], np.float32)[:, None]
        valid = found.start >= 0
        begin = np.where(valid, found.start, 0) / lengths
        place = [begin, begin + self.motifs.length / lengths, np.nan_to_num(found.distance) / self.motifs.length**0.5]
        statistics, measured = interval_statistics(series)
        return {
            "shape": np.concatenate([found.values, found.level], axis=-1),
            "shape_place": np.stack(place, axis=-1).astype(np.float32),
            "shape_valid": valid,
            "value": statistics[:, self.value_token],
            "value_valid": measured[:, self.value_token],
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that :meth:`restored` needs, as arrays."""
        return {
            "motif_values": self.motifs.values,
            "motif_variable": self.motifs.variable,
            "motif_label": self.motifs.label,
            "motif_origin": self.motifs.origin,
            "shape_prior": self.shape_prior,
            "value_token": self.value_token,
            "value_prior": self.value_prior,
        }

    @classmethod
    def restored(cls, arrays: dict[str, NDArray[Any]], *, variables: int, classes: int) -> Tokeniser:
        """The tokeniser whose arrays were stored."""
        motifs = Motifs(arrays["motif_values"], arrays["motif_variable"], arrays["motif_label"], arrays["motif_origin"])
        kept = arrays["shape_prior"], arrays["value_token"], arrays["value_prior"]
        return cls(motifs, kept[0], kept[1], kept[2], variables, classes)


def _largest(priors: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Where the largest priors stand, in their own order; of equal ones the first."""
    return np.sort(np.argsort(-priors, kind="stable")[:most])
