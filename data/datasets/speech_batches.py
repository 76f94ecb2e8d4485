"""Batches by seconds of sound: similar lengths together, each utterance once, equally many batches every epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipelines.data.errors import InputError

__all__ = ["distribute", "padding_share", "plan_batches"]


def plan_batches(
    seconds: Sequence[float],
    *,
    budget: float,
    most: int,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    jitter: float = 0.05,
) -> list[list[int]]:
    """Indices of the utterances of each batch of an epoch; every utterance stands in exactly one batch.

    Utterances are put in the order of their lengths, each length first multiplied by a random factor of 1 - jitter to
    1 + jitter, so that every epoch mixes the batches anew; then the batches are shuffled. Their sizes are planned on
    the true lengths for a budget smaller by (1 - jitter) / (1 + jitter). The random order can move a length at a
    place up by the reverse of that at most, so every batch keeps the budget, and all epochs have equally many batches:
    schedules of the learning rate and resumed runs may count on it.

    Args:
        seconds: length of each utterance, above 0.
        budget: seconds a batch, padding counted (utterances x the longest). An utterance that is longer than that
            makes a batch of its own.
        most: utterances of a batch at most.
        seed, epoch: whole numbers >= 0 that the order is drawn from.
        shuffle: False gives plain order of length without jitter, the longest batch last.
        jitter: 0 <= jitter < 1.

    Raises:
        InputError: a length, budget or number outside these bounds.

    Complexity: O(n log n).

    Source: the recipe in sheet 26 has dynamic batches of 500 s; the construction with fixed sizes is this package's.

    Example:
        >>> plan_batches([1.0, 9.0, 1.1, 4.0, 4.2], budget=9, most=8, shuffle=False)
        [[0, 2], [3, 4], [1]]
    """
    lengths = np.asarray(seconds, np.float64)
    jitter = jitter if shuffle else 0.0
    _check(lengths, budget, most, jitter)
    sizes = _sizes(np.sort(lengths), budget * (1 - jitter) / (1 + jitter), most)
    rng = np.random.default_rng((seed, epoch))
    keys = lengths * rng.uniform(1 - jitter, 1 + jitter, len(lengths)) if shuffle else lengths
    # Equal keys (jitter 0) keep no order of their own: they are drawn too.
    tie = rng.permutation(len(lengths)) if shuffle else np.arange(len(lengths))
    order = np.lexsort((tie, keys))
    ends = np.cumsum(sizes, dtype=np.int64)
    batches = [part.tolist() for part in np.split(order, ends[:-1])] if len(sizes) else []
    return [batches[place] for place in rng.permutation(len(batches))] if shuffle else batches


def _check(lengths: np.ndarray, budget: float, most: int, jitter: float) -> None:
    if lengths.ndim != 1:
        raise InputError("lengths must be a list", where="seconds", found=f"shape {lengths.shape}")
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        found = f"{lengths[wrong[0]]} at {wrong[0]}, {len(wrong)} such"
        raise InputError("an utterance has no length", where="seconds", found=found, expected="seconds above 0")
    if not (math.isfinite(budget) and budget > 0):
        raise InputError("the budget of a batch must be positive", where="budget", found=budget, expected="seconds")
    if most < 1:
        raise InputError("a batch needs an utterance", where="most", found=most, expected="1 or more")
    if not 0 <= jitter < 1:
        raise InputError("the jitter is out of bounds", where="jitter", found=jitter, expected="0 <= jitter < 1")


def _sizes(ordered: np.ndarray, budget: float, most: int) -> list[int]:
    """How many of the ordered lengths each batch takes: filled from the longest down, the short ones last.

    From the longest down the longest of a batch is known at once; the remainder that is not full falls on the short.
    """
    sizes, left = [], len(ordered)
    while left:
        # A hair of tolerance: 3 x 0.1 s must fit in 0.3 s.
        fit = int(budget / ordered[left - 1] * (1 + 1e-12))
        sizes.append(min(left, most, max(1, fit)))
        left -= sizes[-1]
    return sizes[::-1]


def distribute(batches: Sequence[Sequence[int]], rank: int, world: int) -> list[tuple[list[int], float]]:
    """One process's part of every batch and its weight: over all processes each utterance counts once.

    Utterances are dealt out in turn, so that the parts are equally long to within one. Every process must take part in
    every step, or the others wait for ever: one without a part reads the batch's first utterance with weight 0.

    Raises:
        InputError: an empty batch, or a rank that is none of 0 to world - 1.

    Complexity: O(n).

    Example:
        >>> distribute([[4, 1, 2], [3]], rank=1, world=2)
        [([1], 1.0), ([3], 0.0)]
    """
    if not 0 <= rank < world:
        raise InputError("no such process", where="rank", found=rank, expected=f"0 to {world - 1}")
    if not all(batches):
        raise InputError("a batch is empty", where="batches", expected="one utterance or more in each")
    parts = (list(batch[rank::world]) for batch in batches)
    return [(part, 1.0) if part else ([batch[0]], 0.0) for part, batch in zip(parts, batches, strict=True)]


def padding_share(seconds: Sequence[float], batches: Sequence[Sequence[int]]) -> float:
    """The share of padded sound, 0 to 1: what is computed in vain.

    Example:
        >>> padding_share([1.0, 2.0], [[0, 1]])
        0.25
    """
    full = sum(len(batch) * max(seconds[i] for i in batch) for batch in batches)
    return 1 - sum(seconds[i] for batch in batches for i in batch) / full if full else 0.0
