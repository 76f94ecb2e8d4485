"""Several methods over many data sets: average ranks, Friedman's test, pairwise Wilcoxon tests with Holm's correction.

What is compared is one score a set and method; sets are the independent observations. Shapes: N sets, K methods.
Sources: Demsar 2006 (JMLR 7, 1-30) for the tests and ranks, Benavoli et al. 2016 (JMLR 17) for pairs that do not depend
on which other methods are in the comparison.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["Comparison", "Duel", "compare", "duel", "holm", "nemenyi_difference"]

Floats = NDArray[np.float64]
#: Scores are counted shares: what differs by less than this is equal, and differs by rounding only.
DECIMALS = 12


@dataclass(frozen=True)
class Duel:
    """Two methods over the same sets.

    Attributes:
        first, second: their names.
        wins, ties, losses: sets on which the first is better, equal, worse.
        p: of the two-sided Wilcoxon signed-rank test; 1 where both are equal on every set.
        adjusted: the same after Holm's correction over all pairs.
        differ: whether ``adjusted`` is at most the level of the comparison.
    """

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    p: float
    adjusted: float
    differ: bool


@dataclass(frozen=True)
class Comparison:
    """What can be said about K methods over N sets.

    Attributes:
        names: the methods, by their average rank, the best first.
        ranks: average rank of each, in the order of ``names``; 1 is best, equal scores share the mean of their ranks.
        sets: N.
        level: of the tests.
        friedman: statistic (corrected for ties) and p of Friedman's test; None with fewer than three methods.
        duels: one entry a pair, the better ranked method first.
        cliques: longest runs of neighbours in ``names`` in which no two differ, each of two or more methods.
        nemenyi: least difference of average ranks that Nemenyi's test calls significant; for reference beside the
            pairwise tests, which decide.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    sets: int
    level: float
    friedman: tuple[float, float] | None
    duels: tuple[Duel, ...]
    cliques: tuple[tuple[str, ...], ...]
    nemenyi: float

    @property
    def too_few(self) -> bool:
        """Whether so few sets cannot make any pair differ, however the scores fall: 2^(1 - N) a pair is the least p."""
        return 2.0 ** (1 - self.sets) * len(self.duels) > self.level

    def rank_of(self, name: str) -> float:
        """Average rank of one method."""
        return self.ranks[self.names.index(name)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "level": self.level,
            "average_ranks": dict(zip(self.names, self.ranks, strict=True)),
            "friedman": None if self.friedman is None else {"statistic": self.friedman[0], "p": self.friedman[1]},
            "pairs": [
                {
                    "first": one.first,
                    "second": one.second,
                    "wins": one.wins,
                    "ties": one.ties,
                    "losses": one.losses,
                    "p": one.p,
                    "p_holm": one.adjusted,
                    "differ": one.differ,
                }
                for one in self.duels
            ],
            "cliques": [list(clique) for clique in self.cliques],
            "nemenyi_critical_difference": self.nemenyi,
        }


def compare(scores: Mapping[str, Sequence[float]], *, level: float = 0.05, largest: bool = True) -> Comparison:
    """Compare methods by one score a set.

    Args:
        scores: method -> N scores, the same sets in the same order for all; K >= 2 methods, N >= 2 sets.
        level: of all tests.
        largest: whether larger scores are better (accuracy) or smaller ones (error).

    Raises:
        InputError: fewer than two methods or sets, unequal numbers of sets, scores that are not finite, a level that is
            no probability.

    Complexity: O(K^2 2^N) up to 13 sets, where Wilcoxon's test tries all signs if there are ties, else O(K^2 N^2).

    Example:
        >>> found = compare({"a": [0.9, 0.8, 0.7], "b": [0.8, 0.8, 0.5], "c": [0.5, 0.6, 0.4]})
        >>> found.names, [round(rank, 2) for rank in found.ranks], found.too_few
        (('a', 'b', 'c'), [1.17, 1.83, 3.0], True)
    """
    from scipy import stats

    table = _table(scores, level)
    signed = table if largest else -table
    ranks = stats.rankdata(-signed, axis=1).mean(0)
    order = np.argsort(ranks, kind="stable")
    names = [list(scores)[i] for i in order]
    signed = signed[:, order]
    pairs = list(itertools.combinations(range(len(names)), 2))
    raw = [duel(signed[:, i], signed[:, j]) for i, j in pairs]
    adjusted = holm([p for *_, p in raw])
    duels = tuple(
        Duel(names[i], names[j], *one, better, better <= level)
        for (i, j), one, better in zip(pairs, raw, adjusted, strict=True)
    )
    return Comparison(
        names=tuple(names),
        ranks=tuple(float(rank) for rank in ranks[order]),
        sets=len(signed),
        level=level,
        friedman=_friedman(signed) if len(names) > 2 else None,
        duels=duels,
        cliques=_cliques(names, {(one.first, one.second) for one in duels if one.differ}),
        nemenyi=nemenyi_difference(len(names), len(signed), level),
    )


def _table(scores: Mapping[str, Sequence[float]], level: float) -> Floats:
    """Scores (N, K), checked and rounded."""
    if not 0.0 < level < 1.0:
        raise InputError("not a level of significance", where="level", found=level, expected="0.05")
    if len(scores) < 2:
        raise InputError("nothing to compare", where="scores", found=f"{len(scores)} methods", expected="2 or more")
    counts = {len(values) for values in scores.values()}
    if len(counts) > 1 or min(counts) < 2:
        found = ", ".join(f"{name} {len(values)}" for name, values in scores.items())
        expected = "the same 2 or more for every method"
        raise InputError("ranks need one score a set", where="scores", found=f"sets: {found}", expected=expected)
    table = np.array(list(scores.values()), np.float64).T
    if not np.isfinite(table).all():
        name = list(scores)[int(np.argwhere(~np.isfinite(table))[0, 1])]
        raise InputError("a score is not finite", where=f"scores of {name}", cure="leave the method or the set out")
    return np.round(table, DECIMALS)


def _friedman(table: Floats) -> tuple[float, float]:
    from scipy import stats

    if (table == table[:, :1]).all():  # nothing but ties, for which the correction divides by nothing
        return 0.0, 1.0
    found = stats.friedmanchisquare(*table.T)
    return float(found.statistic), float(found.pvalue)


def duel(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> tuple[int, int, int, float]:
    """Wins, ties and losses of the first against the second, larger being better, and Wilcoxon's two-sided p.

    Sets without a difference are split evenly between both sides (Demsar 2006, section 3.1.3). The p-value is exact for
    few sets and by the normal distribution for many, as SciPy chooses.

    Args:
        first, second: N scores of the same sets.

    Example:
        >>> duel([0.9, 0.8, 0.7, 0.6], [0.5, 0.8, 0.6, 0.5])[:3]
        (3, 1, 0)
    """
    from scipy import stats

    gap = np.round(np.asarray(first, np.float64) - np.asarray(second, np.float64), DECIMALS)
    wins, losses = int((gap > 0).sum()), int((gap < 0).sum())
    ties = len(gap) - wins - losses
    found: Any = stats.wilcoxon(gap, zero_method="zsplit") if wins + losses else None
    return wins, ties, losses, 1.0 if found is None else float(found.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values after Holm's step-down correction, in the order given; SciPy has none that keeps family-wise error.

    Source: Holm 1979. O(m log m).

    Example:
        >>> [round(value, 2) for value in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted.tolist()


def nemenyi_difference(methods: int, sets: int, level: float = 0.05) -> float:
    """The least difference of two average ranks that Nemenyi's test calls significant.

    Source: Demsar 2006, section 3.2.2: q sqrt(K (K + 1) / (6 N)), q of the studentised range over the square root of 2.

    Example:
        >>> round(nemenyi_difference(4, 14), 2)
        1.25
    """
    from scipy import stats

    quantile = float(stats.studentized_range.ppf(1.0 - level, methods, np.inf)) / math.sqrt(2.0)
    return quantile * math.sqrt(methods * (methods + 1) / (6.0 * sets))


def _cliques(names: Sequence[str], apart: set[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Runs of neighbours without a pair that differs; a run inside another one is left out."""
    runs: list[tuple[int, int]] = []
    for start in range(len(names)):
        end = start + 1
        while end < len(names) and not any((names[i], names[end]) in apart for i in range(start, end)):
            end += 1
        if end - start > 1 and not any(end <= other for _, other in runs):
            runs.append((start, end))
    return tuple(tuple(names[start:end]) for start, end in runs)
