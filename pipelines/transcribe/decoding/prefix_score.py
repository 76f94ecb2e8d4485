"""The probability that CTC frames begin with a text, unit by unit: what a text decoder's beam is joined with.

Shapes: T frames, V ids, K hypotheses, C candidate units of each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.transcribe.decoding.scoring import BLANK

__all__ = ["PrefixScorer", "PrefixState"]

Floats = NDArray[np.float64]


class PrefixState(NamedTuple):
    """Of K texts: log-probability that the first t frames are the text, by how the path ends, and the last unit.

    Attributes:
        unit: (T + 1, K) paths that end in the last unit.
        blank: (T + 1, K) paths that end in a blank; row 0 is before the first frame.
        last: (K,) last unit, -1 for the empty text.
    """

    unit: Floats
    blank: Floats
    last: NDArray[np.int64]


class PrefixScorer:
    """CTC prefix probabilities, exact sums over all paths in float64.

    Args:
        frames: (T, V) checked natural logarithms.

    Source: Watanabe et al. 2017, algorithm 2: gamma^n, gamma^b and psi.

    Example:
        >>> scorer = PrefixScorer(np.log(np.array([[0.5, 1e-9, 0.2, 0.3]])))
        >>> start = scorer.start()
        >>> np.exp(scorer.prefixes(start, np.array([[2, 3]]))).round(3).tolist()
        [[0.2, 0.3]]
        >>> np.exp(scorer.whole(start)).tolist()
        [0.5]
    """

    def __init__(self, frames: Floats) -> None:
        self.frames = frames

    def start(self) -> PrefixState:
        """The state of the empty text, K = 1."""
        blank = np.concatenate([[0.0], np.cumsum(self.frames[:, BLANK])])[:, None]
        return PrefixState(np.full_like(blank, -np.inf), blank, np.full(1, -1))

    def prefixes(self, state: PrefixState, candidates: NDArray[np.int64]) -> Floats:
        """(K, C) log-probability that the frames begin with each text and then its candidate.

        Complexity: O(T K C).
        """
        if not len(self.frames):
            return np.full(candidates.shape, -np.inf)
        either = np.logaddexp(state.unit, state.blank)[:-1]
        # The last unit again is a new one only after a blank.
        before = np.where(candidates == state.last[:, None], state.blank[:-1, :, None], either[:, :, None])
        return _sum(before + self.frames[:, candidates])

    def extend(self, state: PrefixState, rows: NDArray[np.int64], units: NDArray[np.int64]) -> PrefixState:
        """The states of the texts with these row numbers, each made longer by a unit: (K',) rows, (K',) units.

        Complexity: O(T K'), one frame after the other.
        """
        old_unit, old_blank, last = state.unit[:, rows], state.blank[:, rows], state.last[rows]
        before = np.where(units == last, old_blank, np.logaddexp(old_unit, old_blank))
        unit, blank = np.full_like(before, -np.inf), np.full_like(before, -np.inf)
        emit = self.frames[:, units]
        silent = self.frames[:, BLANK]
        for t in range(len(self.frames)):
            unit[t + 1] = np.logaddexp(unit[t], before[t]) + emit[t]
            blank[t + 1] = np.logaddexp(unit[t], blank[t]) + silent[t]
        return PrefixState(unit, blank, units)

    def whole(self, state: PrefixState) -> Floats:
        """(K,) log-probability that all frames are exactly the text.

        Complexity: O(K).
        """
        return np.logaddexp(state.unit[-1], state.blank[-1])


def _sum(values: Floats) -> Floats:
    """Logarithm of the sum over the first axis of what these are logarithms of."""
    top = values.max(0)
    safe = np.where(top > -np.inf, top, 0.0)
    with np.errstate(divide="ignore"):  # the logarithm of nothing is minus infinity, as it should be
        return np.log(np.exp(values - safe).sum(0)) + safe
