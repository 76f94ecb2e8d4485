"""Uncertainty of a mean over time-ordered windows: overlapping windows are not independent, so whole blocks are drawn.

Shapes: N windows in time order, R bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

Floats = NDArray[np.float64]

__all__ = ["Interval", "SeedSummary", "block_bootstrap", "median_of_seeds", "paired_difference"]


class Interval(NamedTuple):
    """A mean with its bootstrap interval, the level, the block length and how many windows entered."""

    value: float
    lo: float
    hi: float
    level: float
    block: int
    windows: int


class SeedSummary(NamedTuple):
    """Median, smallest and largest of a figure over training seeds, and the figures in the order given."""

    median: float
    lowest: float
    highest: float
    each: tuple[float, ...]


def _means(errors: Floats, block: int, replicates: int, seed: int) -> Floats:
    """Return the mean of each replicate, (R,): blocks at random starts, the last one cut to N windows in all."""
    count = len(errors)
    blocks = -(-count // block)
    tail = count - (blocks - 1) * block
    total = np.concatenate([[0.0], np.cumsum(errors)])
    starts = np.random.default_rng(seed).integers(0, count - block + 1, size=(replicates, blocks))
    sums = total[starts + block] - total[starts]
    sums[:, -1] = total[starts[:, -1] + tail] - total[starts[:, -1]]
    return sums.sum(axis=1) / count


def block_bootstrap(
    errors: ArrayLike, block: int, *, level: float = 0.95, replicates: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of window errors with a moving-block percentile interval.

    Args:
        errors: (N,) one error a window in time order; NaN (nothing observed) is left out, its neighbours stay in order.
        block: windows in a block; the horizon for windows one row apart, horizon / stride in general. At most N / 2 is
            used, so that the replicates differ.
        level: of the interval.
        replicates: R.
        seed: of the draws.

    Raises:
        InputError: no observed window, or arguments out of range.

    Complexity: O(N + R N / block). Source: Künsch (1989), section 2.

    Example:
        >>> result = block_bootstrap([1.0, 2.0, 3.0, 4.0], block=1, replicates=500)
        >>> result.value, result.lo < 2.5 < result.hi
        (2.5, True)
    """
    values = np.asarray(errors, np.float64).ravel()
    values = values[~np.isnan(values)]
    if not len(values) or not np.isfinite(values).all():
        raise InputError("no interval of these errors", found=f"{len(values)} values", expected="finite window errors")
    if block < 1 or replicates < 2 or not 0 < level < 1:
        raise InputError(
            "these bootstrap settings do not fit",
            found=f"block {block}, replicates {replicates}, level {level}",
            expected="block >= 1, replicates >= 2, 0 < level < 1",
        )
    length = min(block, max(1, len(values) // 2))
    means = _means(values, length, replicates, seed)
    lo, hi = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(lo), float(hi), level, length, len(values))


def paired_difference(
    errors: ArrayLike, baseline: ArrayLike, block: int, *, level: float = 0.95, replicates: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of errors - baseline over the same windows with its interval: below 0 the model is better.

    The blocks are drawn from the differences, so that what makes a window hard for both cancels.

    Raises:
        InputError: different numbers of windows; see `block_bootstrap` for the rest.

    Example:
        >>> paired_difference([1.0, 2.0, 1.0, 2.0], [2.0, 3.0, 2.0, 3.0], block=1).hi
        -1.0
    """
    first, second = np.asarray(errors, np.float64), np.asarray(baseline, np.float64)
    if first.shape != second.shape:
        raise InputError("both must be measured on the same windows", found=second.shape, expected=first.shape)
    return block_bootstrap(first - second, block, level=level, replicates=replicates, seed=seed)


def median_of_seeds(figures: Iterable[float]) -> SeedSummary:
    """Return median, lowest and highest of one figure per training seed.

    Raises:
        InputError: no figure.

    Example:
        >>> median_of_seeds([0.375, 0.377, 0.374]).median
        0.375
    """
    each = tuple(float(figure) for figure in figures)
    if not each:
        raise InputError("no seed to summarise", expected="at least one figure")
    return SeedSummary(float(np.median(each)), min(each), max(each), each)
