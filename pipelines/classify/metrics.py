"""Figures of classification, over every example together: accuracy, balance, calibration, conformal sets.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["ConformalSets", "bootstrap_intervals", "calibration_error", "confusion", "figures", "fit_temperature"]

Floats = NDArray[np.float64]
_LEAST = 1e-12


def figures(probabilities: Floats, truth: NDArray[np.integer]) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1, log-loss (nats) and calibration error of N predictions.

    Balanced accuracy and F1 are means over the classes that occur in the truth.

    Args:
        probabilities: (N, C), rows summing to 1.
        truth: (N,) classes by number.

    Raises:
        InputError: no examples, or shapes that do not fit.

    Example:
        >>> figures(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]))["accuracy"]
        1.0
    """
    if len(truth) == 0 or probabilities.shape[0] != len(truth):
        raise InputError("figures need one row of probabilities an example", found=probabilities.shape)
    table = confusion(probabilities.argmax(1), truth, probabilities.shape[1])
    hits, of_class, claimed = np.diag(table), table.sum(1), table.sum(0)
    there = of_class > 0
    recall = hits[there] / of_class[there]
    f1 = 2 * hits[there] / (of_class[there] + claimed[there])
    chosen = np.clip(probabilities[np.arange(len(truth)), truth], _LEAST, 1.0)
    return {
        "accuracy": float(hits.sum() / len(truth)),
        "balanced_accuracy": float(recall.mean()),
        "f1": float(f1.mean()),
        "log_loss": float(-np.log(chosen).mean()),
        "calibration_error": calibration_error(probabilities, truth),
    }


def confusion(predicted: NDArray[np.integer], truth: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Counts (C, C) by true class (rows) and predicted class (columns).

    Example:
        >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, predicted), 1)
    return table


def calibration_error(probabilities: Floats, truth: NDArray[np.integer], bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over bins of confidence, by their size.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.

    Example:
        >>> round(calibration_error(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1])), 3)
        0.3
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    size = np.bincount(place, minlength=bins)
    gap = np.bincount(place, confidence, bins) - np.bincount(place, right.astype(float), bins)
    return float(np.abs(gap).sum() / max(1, size.sum()))


def bootstrap_intervals(
    probabilities: Floats,
    truth: NDArray[np.integer],
    *,
    groups: NDArray[Any] | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of every figure; whole groups are drawn where there are groups (subjects are alike).

    O(replicates N).
    """
    generator = np.random.default_rng(seed)
    members = (
        [np.array([i]) for i in range(len(truth))]
        if groups is None
        else [np.flatnonzero(groups == group) for group in np.unique(groups)]
    )
    drawn: list[dict[str, float]] = []
    for _ in range(replicates):
        rows = np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])
        drawn.append(figures(probabilities[rows], truth[rows]))
    edges = ((1 - level) / 2, (1 + level) / 2)
    columns = {name: np.array([one[name] for one in drawn]) for name in drawn[0]}
    return {name: tuple(float(np.quantile(values, edge)) for edge in edges) for name, values in columns.items()}  # type: ignore[misc]


def fit_temperature(logits: Floats, truth: NDArray[np.integer]) -> float:
    """The number from 1 to 20 that held-out logits are divided by so that their log-loss is least.

    Never below 1: that the held-out series are all right says too little, few as they are, to be surer than the model.
    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2. O(N C) a step of a bounded search.

    Example:
        >>> round(fit_temperature(np.array([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0]]), np.array([0, 0, 1])), 1)
        13.0
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(scaled - top).sum(1))
        return float((total - scaled[np.arange(len(truth)), truth]).mean())

    found = minimize_scalar(loss, bounds=(0.0, math.log(20)), method="bounded")
    return math.exp(float(found.x))


@dataclasses.dataclass(frozen=True)
class ConformalSets:
    """Sets of labels that hold the true one with a chosen probability, if new examples are like the held-out ones.

    A label is in the set where one minus its probability is at most the (n + 1) level / n quantile of the held-out
    examples' scores 1 - p(true): split conformal prediction. With fewer than level / (1 - level) held-out examples no
    level can be promised, and the set holds all labels.

    Attributes:
        scores: (n,) of the held-out examples, sorted.

    Example:
        >>> sets = ConformalSets.fit(np.array([[0.9, 0.1]] * 20), np.zeros(20, int))
        >>> sets(np.array([[0.95, 0.05]]), 0.9).tolist()
        [[True, False]]
    """

    scores: Floats

    @classmethod
    def fit(cls, probabilities: Floats, truth: NDArray[np.integer]) -> ConformalSets:
        """Score held-out examples: probabilities (n, C), truth (n,)."""
        return cls(np.sort(1.0 - probabilities[np.arange(len(truth)), truth]))

    def threshold(self, level: float) -> float:
        """The largest score that is still inside; infinite where there are too few held-out examples."""
        rank = math.ceil((len(self.scores) + 1) * level)
        return float(self.scores[rank - 1]) if rank <= len(self.scores) else float("inf")

    def __call__(self, probabilities: Floats, level: float) -> NDArray[np.bool_]:
        """(N, C) whether a label is in the set; never empty: the likeliest label is always in."""
        inside = 1.0 - probabilities <= self.threshold(level) + 1e-12
        inside[np.arange(len(inside)), probabilities.argmax(1)] = True
        return inside
