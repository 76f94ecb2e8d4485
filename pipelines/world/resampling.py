"""Bootstrap sums of several figures at once, from common draws: of whole episodes, or of blocks of time in one episode.

Shapes: E episodes of n rows each in order of time (windows or frames), K sums, R bootstrap draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["Draws", "resample"]

Floats = NDArray[np.float64]
REPLICATES = 2000


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """Sums over drawn rows.

    Args:
        sums: (R, K).
        counts: (R,) rows in each draw.
        by: what was drawn, "episodes" or "blocks".
        units: episodes or rows that were drawn from.
        block: rows of a block; 1 for episodes.

    Example:
        >>> resample([np.ones((3, 1)), np.ones((5, 1))], replicates=10).by
        'episodes'
    """

    sums: Floats
    counts: Floats
    by: str
    units: int
    block: int

    def sentence(self, rows: str = "windows") -> str:
        """How the intervals came about, in words."""
        if self.by == "episodes":
            few = "; with so few the intervals are rough" if self.units < 10 else ""
            return f"intervals: whole episodes are drawn with replacement, {self.units} of them{few}"
        return (
            f"intervals: blocks of {self.block} {rows} of the one episode are drawn with replacement, since "
            f"neighbouring {rows} overlap; they say nothing about other episodes"
        )


def resample(groups: Sequence[Floats], *, block: int = 1, replicates: int = REPLICATES, seed: int = 0) -> Draws | None:
    """Draw whole episodes where there are two or more, else moving blocks of the rows of the only one.

    Args:
        groups: (n, K) of each episode, rows in order of time.
        block: rows in a block; at most half of the rows is used, so that the draws differ.
        replicates: R.
        seed: of the draws; equal groups and seed give equal draws, so that differences of two figures are paired.

    Returns:
        None where there is one row only: it says nothing about others.

    Raises:
        InputError: settings out of range, or no row.

    Complexity: O(R (E + K n / block)) time, O(R K) memory.

    Source: Künsch 1989, section 2, for blocks; Efron 1979 for episodes.

    Example:
        >>> draws = resample([np.arange(20.0)[:, None]], block=4, replicates=500)
        >>> low, high = np.quantile(draws.sums[:, 0] / draws.counts, [0.025, 0.975])
        >>> bool(low < 9.5 < high), draws.by
        (True, 'blocks')
    """
    if block < 1 or replicates < 2:
        found = f"block {block}, replicates {replicates}"
        raise InputError("no such bootstrap", found=found, expected="block >= 1, replicates >= 2")
    held = [np.asarray(group, np.float64) for group in groups if len(group)]
    if not held:
        raise InputError("nothing to draw from", where="groups", expected="one row or more")
    rng = np.random.default_rng(seed)
    if len(held) > 1:
        number = len(held)
        often = rng.multinomial(number, np.full(number, 1 / number), size=replicates).astype(np.float64)
        sums = often @ np.stack([group.sum(axis=0) for group in held])
        return Draws(sums, often @ np.array([len(group) for group in held], np.float64), "episodes", number, 1)
    rows = held[0]
    count = len(rows)
    if count < 2:
        return None
    length = min(block, max(1, count // 2))
    blocks = -(-count // length)
    tail = count - (blocks - 1) * length
    total = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    starts = rng.integers(0, count - length + 1, size=(replicates, blocks))
    sums = np.zeros((replicates, rows.shape[1]))
    for place in range(blocks):
        first = starts[:, place]
        sums += total[first + (length if place < blocks - 1 else tail)] - total[first]
    return Draws(sums, np.full(replicates, float(count)), "blocks", count, length)
