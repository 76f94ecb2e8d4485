"""From scores to probabilities: a logistic curve fitted on held-out pairs, and how far probabilities can be trusted.

Shapes: P pairs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.match.metrics import checked_pairs

__all__ = ["Calibration", "Reliability", "brier_score", "calibrate", "calibration_error", "log_loss", "reliability"]

Floats = NDArray[np.float64]
_STEPS = 100  # of Newton's method; ten are enough in practice
_SETTLED = 1e-9  # size of the gradient at which the curve stands


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The curve p = sigmoid(slope x score + intercept), with the pairs that it was fitted on.

    Attributes:
        slope, intercept: of the curve.
        matches, pairs: how many held-out pairs are matches, of how many; both 0 where the curve is not fitted but
            assumed, which is good for a threshold and for no probability.
        notes: what a reader of the probabilities should know (one class only, separable, falling).

    Example:
        >>> curve = Calibration(slope=4.0, intercept=-2.0, matches=50, pairs=100)
        >>> curve.probability([0.5, 1.0]).round(3).tolist(), curve.threshold
        ([0.5, 0.881], 0.5)
    """

    slope: float
    intercept: float
    matches: int
    pairs: int
    notes: tuple[str, ...] = ()

    @property
    def base_rate(self) -> float:
        """Share of matches among the pairs that the curve was fitted on."""
        return self.matches / self.pairs

    @property
    def threshold(self) -> float | None:
        """The score with probability one half; None where scores say nothing."""
        return -self.intercept / self.slope if self.slope else None

    def probability(self, scores: ArrayLike, *, base_rate: float | None = None) -> Floats:
        """Return the probability of a match for scores of any shape.

        Args:
            scores: finite numbers.
            base_rate: the share of matches where the scores come from, if it is not that of the fitted pairs: one in a
                thousand where a query is held against a whole folder. The odds are multiplied accordingly.

        Raises:
            ConfigError: a base rate that is not between 0 and 1, or one where the fitted pairs have one class.

        Source: posteriors under new priors, Saerens, Latinne and Decaestecker (2002), section 2.
        """
        logits = self.slope * np.asarray(scores, np.float64) + self.intercept
        if base_rate is not None:
            if not 0 < base_rate < 1:
                raise ConfigError(
                    "a base rate is a share", where="base_rate", found=base_rate, expected="0 to 1, outside"
                )
            if not 0 < self.matches < self.pairs:
                raise ConfigError(
                    "the base rate cannot be changed",
                    where="base_rate",
                    found=f"{self.matches} matches of {self.pairs} pairs",
                    expected="probabilities fitted on matches and others",
                )
            logits = logits + _logit(base_rate) - _logit(self.base_rate)
        return _sigmoid(logits)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which :meth:`from_dict` makes the curve again."""
        return {**dataclasses.asdict(self), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The curve that :meth:`to_dict` gave.

        Raises:
            InputError: values missing, or numbers that are not finite.
        """
        try:
            curve = cls(
                float(values["slope"]),
                float(values["intercept"]),
                int(values["matches"]),
                int(values["pairs"]),
                tuple(str(note) for note in values.get("notes", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "this is no calibration", found=values, expected="slope, intercept, matches, pairs"
            ) from error
        if not (math.isfinite(curve.slope) and math.isfinite(curve.intercept) and 0 <= curve.matches <= curve.pairs):
            raise InputError("a calibration needs finite numbers", found=values)
        return curve


def calibrate(scores: ArrayLike, labels: ArrayLike) -> Calibration:
    """Fit the logistic curve from scores to probabilities on held-out pairs.

    The targets are not 1 and 0 but (M + 1) / (M + 2) for M matches and 1 / (O + 2) for O others, so that the curve is
    finite also where a threshold parts all matches from all others. Scores that are all equal, or pairs of one class,
    say nothing of the slope: it is 0, and a note says so.

    Args:
        scores: (P,) of pairs that the model was not fitted on.
        labels: (P,) 0 or 1.

    Raises:
        InputError: no pairs, lengths that differ, scores that are not finite.

    Complexity: O(P) a step of Newton's method, about ten steps.

    Source: Platt (1999), section 2.2, solved as in Lin, Lin and Weng (2007), algorithm 1.

    Example:
        >>> curve = calibrate([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
        >>> curve.probability([0.85, 0.15]).round(2).tolist(), len(curve.notes)
        ([0.75, 0.25], 1)
    """
    values, truth = checked_pairs(scores, labels)
    matches, others = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (matches + 1) / (matches + 2), 1 / (others + 2))
    spread = float(values.std())
    if not matches or not others:
        kind = "matches" if matches else "no matches"
        note = f"all {len(values):,} pairs for probabilities are {kind}: every score gets the same probability"
        return Calibration(0.0, _logit(float(target.mean())), matches, len(values), (note,))
    if spread <= 1e-12 * max(1.0, float(np.abs(values).max())):
        note = f"all {len(values):,} pairs for probabilities have one score: every score gets the same probability"
        return Calibration(0.0, _logit(float(target.mean())), matches, len(values), (note,))
    middle = float(values.mean())
    slope, intercept = _newton((values - middle) / spread, target, _logit((matches + 1) / (len(values) + 2)))
    notes = []
    if values[truth].min() > values[~truth].max():
        notes.append(
            f"the {matches:,} matches and {others:,} others for probabilities are parted completely by their scores: "
            "how steep the curve is follows from their number alone"
        )
    if slope <= 0:
        notes.append("higher scores are no surer matches in the pairs for probabilities: the curve falls")
    slope /= spread
    return Calibration(slope, intercept - slope * middle, matches, len(values), tuple(notes))


def _newton(values: Floats, target: Floats, start: float) -> tuple[float, float]:
    """Slope and intercept with the least cross entropy, by Newton's method with halved steps."""
    slope, intercept = 0.0, start
    loss = _cross_entropy(slope * values + intercept, target)
    for _ in range(_STEPS):
        p = _sigmoid(slope * values + intercept)
        off, weight = p - target, p * (1 - p)
        g, h = float(off @ values), float(off.sum())
        if max(abs(g), abs(h)) < _SETTLED * len(values):
            break
        a, b, c = float(weight @ values**2) + 1e-12, float(weight @ values), float(weight.sum()) + 1e-12
        determinant = a * c - b * b
        move = (-(c * g - b * h) / determinant, -(a * h - b * g) / determinant)
        falls, size = g * move[0] + h * move[1], 1.0
        while size >= 1e-10:
            new = (slope + size * move[0], intercept + size * move[1])
            trial = _cross_entropy(new[0] * values + new[1], target)
            if trial <= loss + 1e-4 * size * falls:
                break
            size /= 2
        else:
            break  # rounding is all that is left
        (slope, intercept), loss = new, trial
    return slope, intercept


def _cross_entropy(logits: Floats, target: Floats) -> float:
    return float((np.logaddexp(0.0, logits) - target * logits).sum())


def _sigmoid(logits: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -logits))


def _logit(share: float) -> float:
    return math.log(share) - math.log1p(-share)


class Reliability(NamedTuple):
    """Of each bin that holds pairs: mean probability, share of matches, and how many pairs."""

    probability: Floats
    share: Floats
    pairs: NDArray[np.int64]


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> Reliability:
    """Return how often pairs are matches at each probability, in bins of equal width.

    Raises:
        InputError: probabilities outside 0 to 1, or what :func:`calibrate` refuses.

    Example:
        >>> found = reliability([0.1, 0.1, 0.9], [0, 1, 1])
        >>> found.share.tolist(), found.pairs.tolist()
        ([0.5, 1.0], [2, 1])
    """
    p, truth = _probabilities(probabilities, labels)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    size = np.bincount(place, minlength=bins)
    there = size > 0
    mean = np.bincount(place, p, bins)[there] / size[there]
    share = np.bincount(place, truth, bins)[there] / size[there]
    return Reliability(mean, share, size[there])


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Return the expected calibration error: the gap between probability and share of matches, meaned over pairs.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3, on the probability of a match (Naeini et al. 2015).

    Example:
        >>> round(calibration_error([0.8, 0.8], [1, 0]), 3)
        0.3
    """
    found = reliability(probabilities, labels, bins)
    return float(np.abs(found.probability - found.share) @ found.pairs / found.pairs.sum())


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean squared distance of probability and label (Brier 1950); 0.25 is what a constant 0.5 gets.

    Example:
        >>> brier_score([1.0, 0.5], [1, 0])
        0.125
    """
    p, truth = _probabilities(probabilities, labels)
    return float(((p - truth) ** 2).mean())


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean negative log-likelihood in nats; probabilities of 0 and 1 count as 1e-15 from them.

    Example:
        >>> round(log_loss([0.5, 0.5], [1, 0]), 4)
        0.6931
    """
    p, truth = _probabilities(probabilities, labels)
    return float(-np.log(np.clip(np.where(truth > 0, p, 1 - p), 1e-15, 1.0)).mean())


def _probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    p, truth = checked_pairs(probabilities, labels)
    if p.min() < 0 or p.max() > 1:
        raise InputError(
            "a probability lies between 0 and 1", where="probabilities", found=f"{p.min():g} to {p.max():g}"
        )
    return p, truth.astype(np.float64)
