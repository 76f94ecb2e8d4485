"""More series than were recorded: pieces of a training series, bent in time.

The same gesture made faster, later or unevenly is the same gesture. What is learned from such copies holds under a
change of pace, which tens of training series alone do not tell a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["copies", "warp"]

_LEAST_SHARE = 0.6  # of a series that a copy shows
_BEND = 0.5  # how far the pace of a part may be from the mean pace
_PARTS = 5
_LEAST_STEPS = 4
#: Series and copies together; a larger set needs its copies less.
MOST_SERIES = 4096


def warp(one: NDArray[np.floating], generator: np.random.Generator) -> NDArray[np.float32]:
    """A random piece of a series, at least three fifths of it, stretched unevenly to its length.

    Values are interpolated linearly between neighbouring steps; where one of the two was not measured, neither is the
    copy. (V, T) -> (V, T), O(V T).

    Example:
        >>> copy = warp(np.arange(10.0)[None], np.random.default_rng(0))
        >>> copy.shape, bool((np.diff(copy) > 0).all()), bool(copy.min() >= 0 and copy.max() <= 9)
        ((1, 10), True, True)
    """
    length = one.shape[1]
    if length < _LEAST_STEPS:
        return one.astype(np.float32)
    steps = max(_LEAST_STEPS, round(length * generator.uniform(_LEAST_SHARE, 1.0)))
    begin = int(generator.integers(0, length - steps + 1))
    pace = np.concatenate([[0.0], np.cumsum(generator.uniform(1 - _BEND, 1 + _BEND, _PARTS))])
    when = np.interp(np.linspace(0, 1, length), np.linspace(0, 1, _PARTS + 1), pace / pace[-1]) * (steps - 1) + begin
    left = np.minimum(np.floor(when).astype(int), length - 1)
    share = when - left
    right = np.minimum(left + 1, length - 1)
    # A share of zero must not take over a right neighbour that was not measured.
    return (np.where(share > 0, one[:, left] * (1 - share) + one[:, right] * share, one[:, left])).astype(np.float32)


def copies(
    series: Sequence[NDArray[np.floating]], count: int, *, seed: int
) -> tuple[list[list[NDArray[np.float32]]], str]:
    """Up to ``count`` warped copies of every series, and a note (empty where all could be made).

    Series and copies together are at most 4,096, or the series alone. O(count values).

    Example:
        >>> made, note = copies([np.zeros((1, 8))] * 3, 2, seed=0)
        >>> len(made), len(made[0]), note
        (2, 3, '')
    """
    allowed = max(0, min(count, MOST_SERIES // len(series) - 1))
    generator = np.random.default_rng(seed)
    made = [[warp(one, generator) for one in series] for _ in range(allowed)]
    short = f"{allowed} instead of {count} warped copies a training series: there are {len(series):,} of them"
    return made, short if allowed < count else ""
