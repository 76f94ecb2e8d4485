"""Figures of ranked lists: reciprocal rank, discounted gain and recall of each query and their means.

Shapes: Q queries, N candidates of a query. Equal scores are never ordered by chance: a list is judged by the mean over
all orders of its equal scores, as a closed form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

__all__ = ["ranking_figures", "ranking_metrics", "steps"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def steps(scores: Floats) -> tuple[Ints, Ints]:
    """Return the order from the highest score down (P,), and where each run of equal scores begins in it (G,).

    Complexity: O(P log P).

    Example:
        >>> [part.tolist() for part in steps(np.array([0.2, 0.9, 0.2]))]
        [[1, 0, 2], [0, 1]]
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])


def ranking_metrics(
    scores: Iterable[ArrayLike],
    relevant: Sequence[Collection[int]],
    *,
    ks: Sequence[int] = (1, 5, 10),
    gain_at: int = 10,
) -> dict[str, float]:
    """Return means over queries: ``mrr``, ``ndcg@10`` and ``recall@k``, with ``queries`` and ``without_answer``.

    A query without any relevant document defines none of the figures; it is counted in ``without_answer`` and left out
    of the means. Where all queries are so, the figures are left out.

    Args:
        scores: of each query the scores of its candidates (N,); minus infinity takes a candidate out (the query
            itself).
        relevant: of each query the numbers of its relevant candidates.
        ks: lengths of the lists whose recall is measured: the share of relevant documents among the first k.
        gain_at: length of the list whose gain is measured.

    Raises:
        InputError: numbers of queries that differ, scores that are NaN or infinite, a relevant document that is no
            candidate.

    Complexity: O(N log N) a query; scores may be a generator, so that one row is in memory at a time.

    Source: expected figures over all orders of equal scores by McSherry and Najork (ECIR 2008), section 2;
    discount 1 / log2(rank + 1) of Järvelin and Kekäläinen (2002).

    Example:
        >>> found = ranking_metrics([[0.9, 0.1, 0.5], [0.2, 0.3, 0.3]], [{2}, {1}], ks=(1,))
        >>> {name: round(value, 4) for name, value in found.items()}
        {'mrr': 0.625, 'ndcg@10': 0.7232, 'recall@1': 0.25, 'queries': 2, 'without_answer': 0}
    """
    found = ranking_figures(scores, relevant, ks=ks, gain_at=gain_at)
    answered = ~np.isnan(found["mrr"])
    means = {name: float(values[answered].mean()) for name, values in found.items() if answered.any()}
    return {**means, "queries": len(answered), "without_answer": int((~answered).sum())}


def ranking_figures(
    scores: Iterable[ArrayLike],
    relevant: Sequence[Collection[int]],
    *,
    ks: Sequence[int] = (1, 5, 10),
    gain_at: int = 10,
) -> dict[str, Floats]:
    """Return the figures of :func:`ranking_metrics` of each query (Q,), NaN for queries without a relevant document.

    Example:
        >>> ranking_figures([[0.9, 0.1], [0.2, 0.3]], [{1}, ()], ks=())["mrr"].tolist()
        [0.5, nan]
    """
    names = ("mrr", f"ndcg@{gain_at}", *(f"recall@{k}" for k in ks))
    rows: list[tuple[float, ...]] = []
    for number, values in enumerate(scores):
        if number >= len(relevant):
            raise InputError("more queries than lists of relevant documents", found=number + 1, expected=len(relevant))
        rows.append(_query(np.asarray(values, np.float64), relevant[number], ks, gain_at, number))
    if len(rows) != len(relevant):
        raise InputError("each query needs its scores", found=len(rows), expected=len(relevant))
    table = np.array(rows, np.float64).reshape(-1, len(names))
    return {name: table[:, place] for place, name in enumerate(names)}


def _query(
    values: Floats, relevant: Collection[int], ks: Sequence[int], gain_at: int, number: int
) -> tuple[float, ...]:
    """Expected reciprocal rank, gain and recalls of one query, over all orders of equal scores."""
    if values.ndim != 1 or np.isnan(values).any() or np.isposinf(values).any():
        raise InputError("scores of candidates must be numbers", where=f"query {number}", found=values.shape)
    wanted = np.zeros(len(values), bool)
    places = np.array(sorted(relevant), np.int64)
    if len(places) and (places[0] < 0 or places[-1] >= len(values) or np.isneginf(values[places]).any()):
        raise InputError("a relevant document is no candidate", where=f"query {number}", found=places.tolist()[:10])
    if not len(places):
        return (np.nan,) * (2 + len(ks))
    wanted[places] = True
    order, starts = steps(values)
    sizes = np.diff(np.append(starts, len(values)))
    good = np.add.reduceat(wanted[order].astype(np.int64), starts)
    there = np.flatnonzero(good)
    starts, sizes, good = starts[there], sizes[there], good[there]
    total = len(places)
    discounts = 1 / np.log2(np.arange(2, gain_at + 2))
    sums = np.append(0.0, discounts.cumsum())
    share = sums[np.minimum(starts + sizes, gain_at)] - sums[np.minimum(starts, gain_at)]
    gain = float((good / sizes * share).sum() / sums[min(total, gain_at)])
    recalls = (float((good / sizes * np.clip(k - starts, 0, sizes)).sum() / total) for k in ks)
    return (_reciprocal(int(starts[0]), int(sizes[0]), int(good[0])), gain, *recalls)


def _reciprocal(start: int, size: int, good: int) -> float:
    """Expected reciprocal rank of the first of ``good`` relevant ones in a run of ``size`` equal scores."""
    tries = np.arange(size - good + 1)  # others that come before it
    missed = np.append(1.0, np.cumprod((size - good - tries[:-1]) / (size - tries[:-1])))
    return float((missed * good / (size - tries) / (start + tries + 1)).sum())
