"""Figures of scored pairs, by length too, with intervals over documents; figures of ranked lists are in ``ranking``.

Shapes: P pairs, G distinct scores, R rounds of a bootstrap. A pair is called a match where its score is at least the
threshold. Equal scores are never ordered by chance: they are half a win in the AUC and one step in the average
precision.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.match.ranking import ranking_figures, ranking_metrics, steps

__all__ = [
    "PAIR_FIGURES",
    "DocumentInterval",
    "LengthBin",
    "best_threshold",
    "bootstrap_by_document",
    "by_length",
    "checked_pairs",
    "curve_points",
    "pair_metrics",
    "ranking_figures",
    "ranking_metrics",
    "undefined_figures",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Figures of pairs in the order in which they are shown.
PAIR_FIGURES = ("auc", "average_precision", "accuracy", "precision", "recall", "f1")
_AT_ONCE = 2_000_000  # weights of pairs that a bootstrap holds at once


def pair_metrics(scores: ArrayLike, labels: ArrayLike, *, threshold: float) -> dict[str, float]:
    """Return AUC, average precision, accuracy, precision, recall and F1 of P scored pairs.

    What the pairs do not define (the AUC of one class, the precision where nothing is called a match) is left out;
    :func:`undefined_figures` says why.

    Args:
        scores: (P,) larger for a surer match.
        labels: (P,) 1 or True for a match, else 0.
        threshold: scores from here on are called matches.

    Raises:
        InputError: no pairs, lengths that differ, scores that are no numbers, or labels other than 0 and 1.

    Complexity: O(P log P).

    Source: AUC as the share of pairs in order (Mann and Whitney 1947); average precision as the sum of precisions at
    each score, weighted by the recall it adds (Manning, Raghavan and Schütze 2008, section 8.4).

    Example:
        >>> pair_metrics([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0], threshold=0.5)["auc"]
        0.75
    """
    values, truth = checked_pairs(scores, labels)
    ones = np.ones((1, len(values)))
    found = {name: float(_figure(name, values, truth, ones, threshold)[0]) for name in PAIR_FIGURES}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def undefined_figures(scores: ArrayLike, labels: ArrayLike, *, threshold: float) -> dict[str, str]:
    """Return the figures that :func:`pair_metrics` leaves out, each with the reason in words.

    Example:
        >>> undefined_figures([0.9, 0.8], [0, 0], threshold=0.95)["auc"]
        'all 2 pairs are no matches'
    """
    values, truth = checked_pairs(scores, labels)
    given = pair_metrics(values, truth, threshold=threshold)
    kind = "no matches" if not truth.any() else "matches"
    reasons = {
        "auc": f"all {len(truth):,} pairs are {kind}",
        "average_precision": "no pair is a match",
        "precision": f"no score reaches the threshold of {threshold:.4g}",
        "recall": "no pair is a match",
        "f1": "no pair is a match, nor called one",
    }
    return {name: reason for name, reason in reasons.items() if name not in given}


def checked_pairs(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Return scores as float64 and labels as truth values, both (P,), or say what is wrong with them.

    Raises:
        InputError: no pairs, lengths that differ, scores that are not finite, or labels other than 0 and 1.

    Example:
        >>> checked_pairs([0.5], [1])
        (array([0.5]), array([ True]))
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape or not len(values):
        raise InputError(
            "each pair needs one score and one label",
            found=f"scores {values.shape}, labels {truth.shape}",
            expected="two lists of the same length, not empty",
        )
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise InputError("scores must be finite numbers", where="scores", found=f"{bad:,} that are not")
    if not np.isin(truth, (0, 1)).all():
        raise InputError("labels are 0 or 1", where="labels", found=f"{set(np.unique(truth).tolist())}")
    return values, truth.astype(bool)


def _masses(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Weight of matches and of others at each distinct score, highest first: (R, G) both."""
    order, starts = steps(scores)
    ranked = weights[:, order]
    positive = np.add.reduceat(ranked * truth[order], starts, axis=1)
    return positive, np.add.reduceat(ranked * ~truth[order], starts, axis=1)


def _figure(name: str, scores: Floats, truth: NDArray[np.bool_], weights: Floats, threshold: float) -> Floats:
    """One figure for each of R weightings of the pairs, weights (R, P); NaN where it is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if name in ("auc", "average_precision"):
            positive, negative = _masses(scores, truth, weights)
            hits, false = positive.cumsum(1), negative.cumsum(1)
            if name == "auc":
                below = false[:, -1:] - false + negative / 2  # a tie is half a win
                return (positive * below).sum(1) / (hits[:, -1] * false[:, -1])
            called = hits + false
            precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
            return (positive * precision).sum(1) / hits[:, -1]
        called = scores >= threshold
        both = weights @ (called & truth)
        claimed, there = weights @ called, weights @ truth
        if name == "accuracy":
            return weights @ (called == truth) / weights.sum(1)
        return {"precision": both / claimed, "recall": both / there, "f1": 2 * both / (claimed + there)}[name]


def curve_points(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return thresholds from the highest score down, and how many matches and others lie at or above each: (G,) each.

    Complexity: O(P log P).

    Example:
        >>> [part.tolist() for part in curve_points([0.9, 0.2, 0.2], [1, 0, 1])]
        [[0.9, 0.2], [1.0, 2.0], [0.0, 1.0]]
    """
    values, truth = checked_pairs(scores, labels)
    positive, negative = _masses(values, truth, np.ones((1, len(values))))
    order, starts = steps(values)
    return values[order][starts], positive[0].cumsum(), negative[0].cumsum()


def best_threshold(scores: ArrayLike, labels: ArrayLike, *, figure: str = "f1") -> float:
    """Return the threshold with the largest F1 or accuracy, to be chosen on pairs that are not judged afterwards.

    It lies in the middle between two neighbouring scores; of several that are as good, where the gap is widest.

    Args:
        scores: (P,).
        labels: (P,) both classes must occur.
        figure: "f1" or "accuracy".

    Raises:
        ConfigError: another figure.
        InputError: one class only, or what :func:`pair_metrics` refuses.

    Complexity: O(P log P).

    Example:
        >>> best_threshold([0.75, 0.5, 0.25, 0.0], [1, 1, 0, 0])
        0.375
    """
    if figure not in ("f1", "accuracy"):
        raise ConfigError(
            "no threshold is chosen by this figure", where="figure", found=figure, expected="f1, accuracy"
        )
    values, truth = checked_pairs(scores, labels)
    if truth.all() or not truth.any():
        raise InputError("a threshold is chosen where there are matches and others", where="labels", found="one class")
    cuts, hits, false = curve_points(values, truth)
    if figure == "f1":
        worth = 2 * hits / (hits + false + hits[-1])
    else:
        worth = (hits + false[-1] - false) / len(values)
        if false[-1] / len(values) > worth.max():  # nothing is better called a match
            return float(np.nextafter(cuts[0], np.inf))
    gaps = np.append(cuts[:-1] - cuts[1:], 0.0)
    place = max(np.flatnonzero(worth == worth.max()), key=lambda i: gaps[i])
    if place == len(cuts) - 1:
        return float(cuts[-1])
    middle = (cuts[place] + cuts[place + 1]) / 2
    return float(middle if middle > cuts[place + 1] else cuts[place])  # neighbouring floats have no middle


class DocumentInterval(NamedTuple):
    """A figure with its 95 % interval, how many documents were drawn how often, and draws that defined no figure."""

    value: float
    lo: float
    hi: float
    documents: int
    rounds: int
    undefined: int


def bootstrap_by_document(
    left: ArrayLike,
    right: ArrayLike,
    label: ArrayLike,
    scores: ArrayLike,
    metric: str = "auc",
    *,
    rounds: int = 1000,
    seed: int = 0,
    threshold: float = 0.5,
    baseline: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> DocumentInterval:
    """Return a figure of pairs with its 95 % percentile interval over draws of documents, not of pairs.

    Pairs that share a document are not independent. So the documents are drawn with replacement, and a pair counts as
    often as the number of times that its left document was drawn times that of its right one. Such intervals err on the
    wide side.

    Args:
        left, right: (P,) numbers of the documents of each pair.
        label: (P,) 0 or 1.
        scores: (P,).
        metric: one of :data:`PAIR_FIGURES`.
        rounds: R draws.
        seed: of the draws.
        threshold: of the figures that need one.
        baseline: (P,) scores of another model: the figure minus the baseline's on the same draws is measured, so that
            what makes a draw hard for both cancels. With a threshold, both use the same.
        groups: (P,) the figure is computed within each group (fold) and their mean is measured: scores of models that
            were fitted apart need no common scale.

    Raises:
        ConfigError: an unknown figure, or fewer than two rounds.
        InputError: lengths that differ, or pairs that do not define the figure.

    Complexity: O(P log P + R P), memory for a few hundred draws at once.

    Source: bootstrap of graphs by their nodes (Snijders and Borgatti 1999), percentile interval (Efron 1979).

    Example:
        >>> found = bootstrap_by_document([0, 0, 1, 2], [1, 2, 3, 3], [1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], rounds=200)
        >>> found.value, found.lo <= found.value <= found.hi, found.documents
        (0.75, True, 4)
    """
    if metric not in PAIR_FIGURES or rounds < 2:
        raise ConfigError(
            "no bootstrap of this", found=f"{metric}, {rounds} rounds", expected=f"2 or more of {PAIR_FIGURES}"
        )
    values, truth = checked_pairs(scores, label)
    others = None if baseline is None else checked_pairs(baseline, label)[0]
    ends = np.stack([np.asarray(left, np.int64), np.asarray(right, np.int64)])
    parts = np.zeros(len(values), np.int64) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if ends.shape[1] != len(values) or len(parts) != len(values):
        raise InputError("each pair needs two documents and one group", found=ends.shape[1], expected=len(values))
    names, ends = np.unique(ends, return_inverse=True)
    ends = ends.reshape(2, -1)
    members = [np.flatnonzero(parts == part) for part in range(parts.max() + 1)]

    def measured(weights: Floats) -> Floats:
        total = np.zeros(len(weights))
        for rows in members:
            total += _figure(metric, values[rows], truth[rows], weights[:, rows], threshold)
            if others is not None:
                total -= _figure(metric, others[rows], truth[rows], weights[:, rows], threshold)
        return total / len(members)

    value = float(measured(np.ones((1, len(values))))[0])
    if np.isnan(value):
        raise InputError("these pairs do not define the figure", where=metric, cure="give matches and others")
    random, count = np.random.default_rng(seed), len(names)
    block = max(1, _AT_ONCE // max(len(values), count))
    drawn = []
    for first in range(0, rounds, block):
        times = random.multinomial(count, np.full(count, 1 / count), min(block, rounds - first)).astype(np.float64)
        drawn.append(measured(times[:, ends[0]] * times[:, ends[1]]))
    sample = np.concatenate(drawn)
    undefined = int(np.isnan(sample).sum())
    lo, hi = np.nanpercentile(sample, [2.5, 97.5]) if undefined < rounds else (np.nan, np.nan)
    return DocumentInterval(value, float(lo), float(hi), count, rounds, undefined)


class LengthBin(NamedTuple):
    """Figures of the pairs whose length lies from ``low`` to ``high`` (both inside); ``rows`` are their numbers."""

    low: int
    high: int
    pairs: int
    matches: int
    figures: dict[str, float]
    undefined: dict[str, str]
    rows: Ints


def by_length(
    scores: ArrayLike,
    labels: ArrayLike,
    left_lengths: ArrayLike,
    right_lengths: ArrayLike,
    *,
    threshold: float,
    which: str = "longer",
    bins: int = 4,
) -> list[LengthBin]:
    """Return the figures of pairs by the length of their documents, in bins of nearly equal size (quartiles).

    Pairs of one length are never parted, so that there are fewer bins where many lengths are equal.

    Args:
        scores, labels: (P,).
        left_lengths, right_lengths: (P,) tokens of the two documents of each pair.
        threshold: as :func:`pair_metrics`.
        which: whether the "longer" or the "shorter" document of a pair counts.
        bins: how many at most.

    Raises:
        ConfigError: another ``which``, or no bins.
        InputError: lengths that differ.

    Complexity: O(P log P).

    Example:
        >>> found = by_length([0.9, 0.1, 0.4, 0.6], [1, 0, 1, 0], [5, 6, 70, 80], [1, 2, 3, 4], threshold=0.5, bins=2)
        >>> [(one.low, one.high, one.figures["auc"]) for one in found]
        [(5, 6, 1.0), (70, 80, 0.0)]
    """
    if which not in ("longer", "shorter") or bins < 1:
        raise ConfigError(
            "no such bins", where="which, bins", found=f"{which}, {bins}", expected="longer or shorter, 1+"
        )
    values, truth = checked_pairs(scores, labels)
    both = np.asarray(left_lengths, np.int64), np.asarray(right_lengths, np.int64)
    if any(one.shape != values.shape for one in both):
        raise InputError("each pair needs two lengths", found=[len(one) for one in both], expected=len(values))
    lengths = np.maximum(*both) if which == "longer" else np.minimum(*both)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    place = np.searchsorted(edges, lengths, side="left")
    found = []
    for number in np.unique(place):
        rows = np.flatnonzero(place == number)
        part, own = values[rows], truth[rows]
        figures = pair_metrics(part, own, threshold=threshold)
        missing = undefined_figures(part, own, threshold=threshold)
        low, high = int(lengths[rows].min()), int(lengths[rows].max())
        found.append(LengthBin(low, high, len(rows), int(own.sum()), figures, missing, rows))
    return found
