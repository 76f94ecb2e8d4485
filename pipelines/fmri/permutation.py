"""How sure a figure is: intervals over whole units (runs, subjects), and how often chance does as well.

Volumes of one run, and windows of one subject, are alike: they share its noise, its drift, its brain. So the units are
drawn whole, never their rows. And within a block the same thing was seen all the time: to ask what chance does, labels
are moved from block to block, not from volume to volume.

Shapes: N predictions, K classes, U units, R draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.fmri import metrics
from pipelines.fmri.units import unit_labels

__all__ = ["FIGURES", "PermutationTest", "UnitInterval", "bootstrap_units", "paired_difference", "permutation_p"]

Array = NDArray[Any]
Metric = Callable[[Array, Array], float]
#: Figures that are known by name: of classes by scores (N, K) and labels (N,), of numbers by two (N,).
FIGURES = (*metrics.CLASS_FIGURES, *metrics.NUMBER_FIGURES)
#: Fewer units than this make percentile intervals too narrow, which is said.
_FEW_UNITS = 10


class UnitInterval(NamedTuple):
    """A figure with its percentile interval over units; NaN ends where there is none, and `note` says why.

    `undefined` counts draws that defined no figure (all of one class); they are left out of the interval.
    """

    value: float
    lo: float
    hi: float
    level: float
    units: int
    samples: int
    undefined: int
    note: str


class PermutationTest(NamedTuple):
    """A figure, how probable it is that permuted labels do as well, and what they reach: mean and 95th percentile.

    Where smaller is better, `chance_95` is the 5th percentile. `arrangements` is the number of different orders of the
    labels there are (infinite above 1e300): with few, no p-value below 1 / arrangements means anything.
    """

    value: float
    p: float
    chance: float
    chance_95: float
    samples: int
    arrangements: float
    note: str


def bootstrap_units(
    metric: str | Metric,
    scores: ArrayLike,
    labels: ArrayLike,
    unit: ArrayLike,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> UnitInterval:
    """Return a figure with its percentile interval over draws of whole units with replacement.

    Args:
        metric: a name of :data:`FIGURES`, or a function of scores and labels (the rows that were drawn).
        scores: (N, K) logits, or (N,) predicted numbers.
        labels: (N,) classes by number, or true values.
        unit: (N,) the run or the subject of each row, integers or texts.
        samples: R draws.
        seed: of the draws.
        level: of the interval.

    Returns:
        The interval; of a single unit, the figure without one.

    Raises:
        ConfigError: an unknown figure, fewer than two draws, or a level outside (0, 1).
        InputError: lengths that differ, rows that the figure refuses, or rows that do not define it.

    Complexity: O(R (N + cost of the figure)).

    Source: Efron 1979; whole clusters drawn as by Davison and Hinkley 1997, section 3.8.

    Example:
        >>> right, wrong = [0.0, 1.0], [1.0, 0.0]
        >>> found = bootstrap_units("accuracy", [right, right, right, wrong], [1, 1, 1, 1], [0, 0, 1, 1], samples=200)
        >>> found.value, found.lo, found.hi
        (0.75, 0.5, 1.0)
    """
    values, truth, figure = _checked(metric, scores, labels, samples)
    value = _defined(metric, figure(values, truth))
    return _interval(value, lambda rows: figure(values[rows], truth[rows]), len(truth), unit, samples, seed, level)


def paired_difference(
    metric: str | Metric,
    scores: ArrayLike,
    other: ArrayLike,
    labels: ArrayLike,
    unit: ArrayLike,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> UnitInterval:
    """Return the figure of one model minus that of another with its interval, both on the same draws of units.

    What makes a run hard for both cancels: the interval is narrower than the two apart. Arguments as in
    :func:`bootstrap_units`; `other` are the second model's scores of the same rows.

    Raises:
        ConfigError, InputError: as :func:`bootstrap_units`, and other scores of another length.

    Complexity: O(R (N + cost of the figure)).

    Source: as :func:`bootstrap_units`, on the differences.

    Example:
        >>> good, bad = [[0.0, 1.0]] * 4, [[1.0, 0.0]] * 4
        >>> paired_difference("accuracy", good, bad, [1, 1, 1, 1], [0, 0, 1, 1], samples=50)[:3]
        (1.0, 1.0, 1.0)
    """
    values, truth, figure = _checked(metric, scores, labels, samples)
    others = _checked(metric, other, labels, samples)[0]
    value = _defined(metric, figure(values, truth)) - _defined(metric, figure(others, truth))

    def difference(rows: Array) -> float:
        return figure(values[rows], truth[rows]) - figure(others[rows], truth[rows])

    return _interval(value, difference, len(truth), unit, samples, seed, level)


def permutation_p(
    metric: str | Metric,
    scores: ArrayLike,
    labels: ArrayLike,
    unit: ArrayLike,
    *,
    within: bool,
    block: ArrayLike | None = None,
    samples: int = 1000,
    seed: int = 0,
    larger_is_better: bool | None = None,
) -> PermutationTest:
    """Return how often labels in a random order fit these predictions at least as well: p = (1 + count) / (1 + R).

    The predictions stay as they are; nothing is trained again. So the question is whether held-out predictions tell
    anything of the labels, not whether another training would.

    Args:
        metric: as in :func:`bootstrap_units`.
        scores: (N, K) or (N,).
        labels: (N,).
        unit: (N,) run or subject of each row.
        within: True moves labels about within each unit (what was seen when, within runs); False moves the labels of
            whole units from one to another (subjects: sex, age), each unit then has one label.
        block: (N,) with `within`: rows of a block have one label and keep having one; labels move from block to block
            of the same unit. None lets each row be its own block, which finds too much where neighbours are alike.
        samples: R orders.
        seed: of the orders.
        larger_is_better: of a function; of a name it is known.

    Raises:
        ConfigError: an unknown figure, a function without `larger_is_better`, blocks between units.
        InputError: lengths that differ, two labels in a block or (between units) in a unit, or labels of which there is
            one order only.

    Complexity: O(R (N + cost of the figure)).

    Source: Ojala and Garriga 2010, section 3.1 (equation 1, p); Etzel and Braver 2013 for labels moved within runs.

    Example:
        >>> scores = np.eye(2)[[0, 1, 0, 1, 0, 1, 0, 1]]
        >>> found = permutation_p("accuracy", scores, [0, 1] * 4, [0] * 4 + [1] * 4, within=True, samples=200)
        >>> found.value, found.arrangements, found.p < 0.1
        (1.0, 36.0, True)
    """
    values, truth, figure = _checked(metric, scores, labels, samples)
    if isinstance(metric, str):
        larger_is_better = metric not in metrics.SMALLER_IS_BETTER
    if larger_is_better is None:
        raise ConfigError("which end is good", where="larger_is_better", expected="True or False for a function")
    units = _numbered(unit, len(truth), "unit")
    if not within and block is not None:
        raise ConfigError("blocks move within units only", where="block", cure="leave it out, or set within=True")
    rows = np.arange(len(truth)) if block is None else _numbered(block, len(truth), "block")
    # A block of the same name in another run is another block.
    moved = np.unique(units * (rows.max() + 1) + rows, return_inverse=True)[1] if within else units
    pieces = unit_labels(truth, moved)
    first = np.unique(moved, return_index=True)[1]
    groups = units[first] if within else np.zeros(len(pieces), np.int64)
    arrangements = _arrangements(pieces, groups)
    if arrangements < 2:
        raise InputError(
            "the labels have one order only: nothing to permute",
            found=f"{len(pieces)} {'blocks' if within else 'units'} in {len(np.unique(groups))} groups",
            cure="permute between units where each has one label" if within else "give units of different labels",
        )
    value = _defined(metric, figure(values, truth))
    random, sign = np.random.default_rng(seed), 1.0 if larger_is_better else -1.0
    chance = np.array([figure(values, _shuffled(pieces, groups, random)[moved]) for _ in range(samples)])
    slack = 1e-12 * max(1.0, abs(value))  # an equal figure, summed in another order, counts as equal
    reached = int((sign * chance >= sign * value - slack).sum())
    note = ""
    if arrangements < samples:
        note = f"the labels have {arrangements:.0f} orders only: p-values below {1 / arrangements:.2g} mean nothing"
    end = float(np.quantile(chance, 0.95 if larger_is_better else 0.05))
    p = (1 + reached) / (1 + samples)
    return PermutationTest(value, p, float(chance.mean()), end, samples, arrangements, note)


def _interval(
    value: float, measure: Callable[[Array], float], count: int, unit: ArrayLike, samples: int, seed: int, level: float
) -> UnitInterval:
    """The percentile interval of a measure of rows, whole units drawn."""
    if not 0 < level < 1:
        raise ConfigError("not a level", where="level", found=level, expected="between 0 and 1")
    units = _numbered(unit, count, "unit")
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(np.bincount(units))[:-1])
    total = len(members)
    if total < 2:
        note = "one unit only: no interval over units"
        return UnitInterval(value, float("nan"), float("nan"), level, total, 0, 0, note)
    drawn = np.random.default_rng(seed).integers(0, total, (samples, total))
    found = np.array([measure(np.concatenate([members[one] for one in row])) for row in drawn])
    undefined = int(np.isnan(found).sum())
    lo, hi = (float("nan"),) * 2
    if undefined < samples:
        lo, hi = (float(one) for one in np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2]))
    notes = []
    if total < _FEW_UNITS:
        notes.append(f"{total} units only: the interval is narrower than the truth")
    if undefined:
        notes.append(f"{undefined} of {samples} draws define no figure and were left out")
    return UnitInterval(value, lo, hi, level, total, samples, undefined, "; ".join(notes))


def _checked(metric: str | Metric, scores: ArrayLike, labels: ArrayLike, samples: int) -> tuple[Array, Array, Metric]:
    """Checked rows and the figure as a function of them."""
    if samples < 2:
        raise ConfigError("too few draws", where="samples", found=samples, expected="2 or more")
    if not isinstance(metric, str):
        values, truth = np.asarray(scores), np.asarray(labels)
        if truth.ndim != 1 or values.shape[:1] != truth.shape or not len(truth):
            raise InputError("rows that do not fit", found=f"scores {values.shape}, labels {truth.shape}")
        return values, truth, metric
    if metric in metrics.CLASS_FIGURES:
        # A thousand draws need not compute the figures that nobody asked for.
        quick: dict[str, Metric] = {"auroc": metrics.auroc, "accuracy": lambda a, b: float((a.argmax(1) == b).mean())}
        figure = quick.get(metric, lambda a, b: metrics.tabled_figures(a, b)[metric])
        return *metrics.checked_scores(scores, labels), figure
    if metric in metrics.NUMBER_FIGURES:
        return *metrics.checked_numbers(scores, labels), lambda a, b: metrics.number_figures(a, b)[metric]
    raise ConfigError("no such figure", where="metric", found=metric, expected=", ".join(FIGURES))


def _defined(metric: str | Metric, value: float) -> float:
    if math.isnan(value):
        raise InputError(
            "these predictions do not define the figure",
            where=metric if isinstance(metric, str) else "metric",
            cure="give both classes, or numbers that differ",
        )
    return value


def _numbered(names: ArrayLike, count: int, where: str) -> NDArray[np.int64]:
    """Names (N,) as numbers from 0 in their sorted order."""
    given = np.asarray(names)
    if given.shape != (count,):
        raise InputError("each row needs one", where=where, found=given.shape, expected=(count,))
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _shuffled(pieces: Array, groups: Array, random: np.random.Generator) -> Array:
    """The labels of the pieces in a random order within each group."""
    order = np.lexsort((random.random(len(pieces)), groups))  # a random order of each group, group after group
    mixed = np.empty_like(pieces)
    mixed[np.argsort(groups, kind="stable")] = pieces[order]
    return mixed


def _arrangements(pieces: Array, groups: Array) -> float:
    """How many different orders of the labels there are: the product of a multinomial coefficient a group."""
    total = 0.0
    for group in np.unique(groups):
        counts = np.unique(pieces[groups == group], return_counts=True)[1]
        total += math.lgamma(counts.sum() + 1) - sum(math.lgamma(one + 1) for one in counts)
    return float(np.round(np.exp(total))) if total < math.log(1e300) else math.inf
