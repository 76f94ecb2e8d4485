"""Interpolated modified Kneser-Ney smoothing of n-gram counts, and Witten-Bell where the counts are too few for it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pipelines.transcribe.decoding.ngram import BEGIN, END, UNKNOWN, Context

__all__ = ["discounts", "estimate"]


def estimate(
    texts: Sequence[Sequence[int]], order: int, size: int
) -> tuple[dict[Context, float], dict[Context, float], tuple[str, ...]]:
    """Log-probabilities of all n-grams of the texts and log-factors of their contexts.

    With c(hw) the adjusted count of w after the context h and h' the context without its first token,

        p(w | h) = (c(hw) - D(c(hw))) / c(h) + g(h) p(w | h'),    g(h) = (D1 N1 + D2 N2 + D3 N3) / c(h),

    Ni being how many different w follow h once, twice, three times or more. The shortest context backs off to equal
    probabilities of all tokens, so that nothing is impossible. Adjusted counts: of the longest n-grams and of those
    that begin a text how often they occur, of all others how many different tokens go before them.
    Where too few counts are there for the discounts D, Witten-Bell: p(w | h) = (c(hw) + N p(w | h')) / (c(h) + N),
    with N the number of different tokens after h.

    Args:
        texts: token ids.
        order: the longest n-gram.
        size: number of token ids, the end and the unknown included.

    Returns:
        By n-gram, by context, and one sentence an order about the smoothing where it is not Kneser-Ney's.

    Complexity: O(order x tokens) time and memory.

    Source: Chen and Goodman 1999, section 3; Witten and Bell 1991 (method C).

    Example:
        >>> grams, backoff, _ = estimate([[2, 3], [2, 2]], 1, 4)
        >>> round(sum(math.exp(value) for value in grams.values()), 9)
        1.0
    """
    counts = _adjusted([[BEGIN, *text, END] for text in texts], order)
    probability: dict[Context, float] = {}
    factor: dict[Context, float] = {}
    notes = []
    for length in range(1, order + 1):
        table = counts[length]
        cut = discounts(Counter(table.values()))
        if cut is None:
            notes.append(f"order {length}: too few counts for Kneser-Ney, smoothed by Witten-Bell")
        following: dict[Context, list[tuple[int, int]]] = defaultdict(list)
        for gram, count in table.items():
            following[gram[:-1]].append((gram[-1], count))
        for context, pairs in following.items():
            total = sum(count for _, count in pairs)
            rest = len(pairs) if cut is None else sum(cut[min(count, 3)] for _, count in pairs)
            divisor = total + (rest if cut is None else 0)
            factor[context] = rest / divisor
            for token, count in pairs:
                kept = count if cut is None else count - cut[min(count, 3)]
                # A shorter n-gram of one that occurs has its probability already.
                below = probability[*context[1:], token] if context else 1 / size
                probability[*context, token] = kept / divisor + factor[context] * below
    never = factor[()] / size
    for token in (END, UNKNOWN, *range(2, size)):
        probability.setdefault((token,), never)
    del factor[()]  # it is in the probabilities of single tokens already
    logs = {gram: math.log(value) for gram, value in probability.items()}
    return logs, {context: math.log(value) for context, value in factor.items()}, tuple(notes)


def _adjusted(texts: Sequence[Sequence[int]], order: int) -> dict[int, Counter[Context]]:
    raw: dict[int, Counter[Context]] = {length: Counter() for length in range(1, order + 1)}
    for text in texts:
        for length, table in raw.items():
            table.update(tuple(text[i : i + length]) for i in range(len(text) - length + 1))
    adjusted = {order: raw[order]}
    for length in range(1, order):
        table = Counter(gram[1:] for gram in raw[length + 1])
        table.update({gram: count for gram, count in raw[length].items() if gram[0] == BEGIN})
        adjusted[length] = table
    del adjusted[1][(BEGIN,)]  # nothing goes before it: it is never foreseen
    return adjusted


def discounts(of_counts: Mapping[int, int]) -> tuple[float, float, float, float] | None:
    """What is taken from counts of 0, 1, 2, and 3 or more; None where these counts of counts are too few to tell.

    Args:
        of_counts: how many n-grams have each count.

    Source: Chen and Goodman 1999, equation 26; with one discount for all counts (equation 23) where that fails.

    Example:
        >>> [round(value, 2) for value in discounts({1: 10, 2: 4, 3: 2, 4: 1}) or ()]
        [0.0, 0.56, 1.17, 1.89]
    """
    n1, n2, n3, n4 = (of_counts.get(count, 0) for count in (1, 2, 3, 4))
    if not n1 or not n2:
        return None
    once = n1 / (n1 + 2 * n2)
    if n3 and n4:
        cut = (0.0, 1 - 2 * once * n2 / n1, 2 - 3 * once * n3 / n2, 3 - 4 * once * n4 / n3)
        if all(0 < cut[count] < count for count in (1, 2, 3)):
            return cut
    return (0.0, once, once, once)
