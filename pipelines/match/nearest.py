"""Exact nearest rows: the k largest inner products of each query, the same by every engine.

An engine (a chunked matrix product, or faiss) only proposes rows: all whose float32 score could, with the rounding of
any order of summation, belong to the k best. Their scores are then summed in float64, one row like another wherever it
lies, rounded to float32, and ordered by falling score, equal ones by row. So neither the engine, nor the size of the
chunks, nor the other queries of a batch change an answer, and equal vectors tie exactly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["faiss_nearest", "gather", "largest_norm", "matrix_nearest"]

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
Triples = tuple[Longs, Floats, Longs]  # of each proposal the query, the score, the row

_SCORES = 1 << 21  # scores held at once: 8 MB
_QUERIES = 128  # queries multiplied at once
_PAIRS = 1 << 21  # products summed at once in float64: 16 MB
_MORE = 16  # rows that faiss is asked for beyond k, so that near ties seldom need a second search


def matrix_nearest(
    parts: Sequence[Floats], queries: Floats, k: int, norm: float, on_bad: Callable[[int], Exception]
) -> tuple[Floats, Longs]:
    """The k best rows of each query by matrix products, chunk after chunk.

    Args:
        parts: arrays (n_i, D) that follow one another, perhaps memory-mapped.
        queries: (Q, D), finite.
        k: at most as many as there are rows.
        norm: the largest Euclidean norm of a row.
        on_bad: the exception for a row whose score is not finite.

    Returns:
        Scores (Q, k) float32, falling; rows (Q, k) int64, rising where scores are equal.

    Complexity: O(Q N D) time; memory of 8 MB of scores, of the answers, and of pages that the system may drop.

    Example:
        >>> scores, rows = matrix_nearest([np.eye(3, dtype=np.float32)], np.float32([[0, 1, 1]]), 2, 1.0, IndexError)
        >>> scores.tolist(), rows.tolist()
        ([[1.0, 1.0]], [[1, 2]])
    """
    starts = _starts(parts)
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    together = max(1, min(_QUERIES, _SCORES // max(1, k)))
    for first in range(0, len(queries), together):
        batch = queries[first : first + together]
        slack = _slack(batch, norm)
        kept: Triples = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
        length = max(1, _SCORES // len(batch))
        for part, start in zip(parts, starts, strict=True):
            for low in range(0, len(part), length):
                chunk = part[low : low + length]
                floor = _floor(kept, len(batch), k) - slack
                with np.errstate(invalid="ignore", over="ignore"):
                    product = batch @ chunk.T  # (q, c)
                who, where = _proposed(product, floor, slack, k, lambda row, s=start + low: on_bad(s + row))
                exact = _exact(chunk, where, batch, who)
                kept = _best(_joined(kept, (who, exact, where + (start + low))), k)
        scores[first : first + len(batch)] = kept[1].reshape(len(batch), k)
        rows[first : first + len(batch)] = kept[2].reshape(len(batch), k)
    return scores, rows


def faiss_nearest(flat: Any, parts: Sequence[Floats], queries: Floats, k: int, norm: float) -> tuple[Floats, Longs]:
    """The k best rows of each query, proposed by a faiss.IndexFlatIP that holds the rows of `parts`.

    Complexity: O(Q N D) time; faiss holds its own copy of the rows.
    """
    count = sum(map(len, parts))
    asked = min(count, k + _MORE)
    near, found = flat.search(queries, asked)
    slack = _slack(queries, norm)
    floor = near[:, k - 1] - 2 * slack
    short = (near[:, -1] >= floor) & (asked < count)
    who, column = np.nonzero((near >= floor[:, None]) & ~short[:, None])
    proposals = [(who, found[who, column].astype(np.int64))]
    for query in np.flatnonzero(short):  # more near ties than rows were asked for: all of them, whatever their number
        below = np.nextafter(floor[query], np.float32(-np.inf))
        rows = flat.range_search(queries[query : query + 1], float(below))[2]
        proposals.append((np.full(len(rows), query), rows.astype(np.int64)))
    who, rows = (np.concatenate(arrays) for arrays in zip(*proposals, strict=True))
    exact = np.empty(len(rows), np.float32)
    for low in range(0, len(rows), step := max(1, _PAIRS // queries.shape[1])):
        some = slice(low, low + step)
        local = np.arange(len(rows[some]))
        exact[some] = _exact(gather(parts, rows[some]), local, queries, who[some])
    best = _best((who, exact, rows), k)
    return best[1].reshape(len(queries), k), best[2].reshape(len(queries), k)


def gather(parts: Sequence[Floats], rows: Longs) -> Floats:
    """Rows by their numbers out of arrays that follow one another, copied.

    Example:
        >>> gather([np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32)], np.array([3, 0])).tolist()
        [[1.0], [0.0]]
    """
    starts = np.asarray(_starts(parts))
    out = np.empty((len(rows), parts[0].shape[1] if parts else 0), np.float32)
    owner = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(owner):
        mine = owner == number
        out[mine] = parts[number][rows[mine] - starts[number]]
    return out


def locate(parts: Sequence[Any], row: int) -> tuple[int, int]:
    """Which of the arrays that follow one another holds a row, and which of its rows it is.

    Example:
        >>> locate([range(2), range(3)], 2)
        (1, 0)
    """
    starts = _starts(parts)
    number = bisect_right(starts, row) - 1
    return number, row - starts[number]


def largest_norm(rows: Floats) -> float:
    """The largest Euclidean norm of the rows, in float64 and in pieces.

    Example:
        >>> largest_norm(np.float32([[3, 4], [0, 1]]))
        5.0
    """
    step = max(1, _PAIRS // max(1, rows.shape[1]))
    squares = [np.square(rows[low : low + step], dtype=np.float64).sum(axis=1) for low in range(0, len(rows), step)]
    return float(np.sqrt(max((part.max() for part in squares), default=0.0)))


def _starts(parts: Sequence[Any]) -> list[int]:
    starts, total = [], 0
    for part in parts:
        starts.append(total)
        total += len(part)
    return starts


def _slack(queries: Floats, norm: float) -> Floats:
    """How far a float32 score of each query (Q,) may lie from the exact one, in whichever order it was summed.

    The bound of a sum of D products, D u |q| |x| to first order, with two more roundings and the exact score's own.
    """
    lengths = np.sqrt(np.square(queries, dtype=np.float64).sum(axis=1))
    bound = (queries.shape[1] + 8) * 2.0**-24 * lengths * norm * 1.01 + 1e-37
    return np.nextafter(bound.astype(np.float32), np.float32(np.inf))


def _floor(kept: Triples, queries: int, k: int) -> Floats:
    """The k-th best exact score of each query so far; minus infinity before there are k."""
    if len(kept[0]) < queries * k:
        return np.full(queries, -np.inf, np.float32)
    return kept[1].reshape(queries, k)[:, -1]


def _proposed(
    product: Floats, floor: Floats, slack: Floats, k: int, on_bad: Callable[[int], Exception]
) -> tuple[Longs, Longs]:
    """Query and column of every score of a chunk (q, c) that may belong to the k best."""
    if not np.isfinite(product).all():
        raise on_bad(int(np.flatnonzero(~np.isfinite(product).all(axis=0))[0]))
    columns = product.shape[1]
    passing = product >= floor[:, None]
    if columns > k and np.count_nonzero(passing) > 4 * k * len(product):
        own = np.partition(product, columns - k, axis=1)[:, columns - k] - 2 * slack
        passing &= product >= own[:, None]
    who, where = np.nonzero(passing)
    return who, where


def _exact(rows: Floats, where: Longs, queries: Floats, who: Longs) -> Floats:
    """Scores of pairs (rows[where], queries[who]) summed in float64: each by itself, so that none depends on others."""
    out = np.empty(len(where), np.float32)
    step = max(1, _PAIRS // rows.shape[1])
    for low in range(0, len(where), step):
        some = slice(low, low + step)
        products = np.multiply(rows[where[some]], queries[who[some]], dtype=np.float64)
        out[some] = products.sum(axis=1)
    return out


def _joined(one: Triples, other: Triples) -> Triples:
    return np.concatenate((one[0], other[0])), np.concatenate((one[1], other[1])), np.concatenate((one[2], other[2]))


def _best(found: Triples, k: int) -> Triples:
    """Of the proposals of each query the k first by falling score, equal ones by row."""
    who, scores, rows = found
    order = np.lexsort((rows, -scores, who))
    who = who[order]
    rank = np.arange(len(who)) - np.searchsorted(who, who)
    order = order[rank < k]
    return found[0][order], scores[order], rows[order]
