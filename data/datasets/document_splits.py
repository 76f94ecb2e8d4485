"""Splits of linked documents that leak nothing, and negatives: pairs that are not linked, at random or hard to tell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.errors import InputError

__all__ = [
    "document_folds",
    "edges_inside",
    "hard_negatives",
    "pair_parts",
    "random_negatives",
    "same_text",
    "shortfall_note",
]

Indices = NDArray[np.int64]
#: Up to this many pairs of members the unlinked ones are listed, so that the very last of them can be drawn.
_LISTED = 2_000_000


def same_text(texts: Sequence[str]) -> Indices:
    """A number for each text, equal for equal texts: documents of one number must stay on one side of a split.

    Spaces, line ends and case put aside: a copy that was only wrapped anew is a copy.

    Args:
        texts: of N documents.

    Returns:
        (N,) the index of the first document with the same text.

    Complexity: O(characters).

    Example:
        >>> same_text(["One word.", "Another.", "one  word.\\n"]).tolist()
        [0, 1, 0]
    """
    first: dict[bytes, int] = {}
    keys = (
        hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass")).digest() for text in texts
    )
    return np.array([first.setdefault(key, place) for place, key in enumerate(keys)], np.int64)


def document_folds(count: int, folds: int, seed: int, groups: ArrayLike | None = None) -> Indices:
    """The fold of each document; folds differ by at most one document where there are no groups.

    Args:
        count: N documents.
        folds: 2 or more.
        seed: of the deal.
        groups: (N,) numbers as of :func:`same_text`; documents of one number land in one fold.

    Returns:
        (N,) numbers from 0 to folds - 1.

    Raises:
        InputError: fewer than two folds, more folds than documents or groups, groups of another length.

    Complexity: O(N log N + groups x folds).

    Example:
        >>> folds = document_folds(7, 3, seed=0, groups=[0, 0, 2, 3, 4, 5, 6])
        >>> int(folds[0]) == int(folds[1]), sorted(np.bincount(folds).tolist())
        (True, [2, 2, 3])
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise InputError("folds must be a whole number", where="folds", found=repr(folds), expected="2 or more")
    names = np.arange(count) if groups is None else np.asarray(groups, np.int64)
    if names.shape != (count,):
        raise InputError("not a group for every document", where="groups", found=names.shape, expected=(count,))
    _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if len(sizes) < folds:
        what = "documents" if groups is None else "different documents"
        raise InputError(f"more folds than {what}", where="folds", found=folds, expected=f"at most {len(sizes)}")
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]  # the largest first: single documents even out the rest
    held, place = np.zeros(folds, np.int64), np.empty(len(sizes), np.int64)
    for one in order:
        place[one] = int(held.argmin())
        held[place[one]] += sizes[one]
    return place[group]


def pair_parts(pairs: ArrayLike, parts: ArrayLike) -> Indices:
    """The part that a pair lies in wholly; -1 for a pair across parts, which must be left out.

    Args:
        pairs: (P, 2) indices of documents.
        parts: (N,) part of each document, as of :func:`document_folds`.

    Returns:
        (P,) parts; `(result < 0).sum()` pairs lie across.

    Complexity: O(P).

    Example:
        >>> pair_parts([(0, 1), (1, 2), (2, 3)], [0, 0, 1, 1]).tolist()
        [0, -1, 1]
    """
    of = np.asarray(parts, np.int64)
    left, right = of[_pairs(pairs)].T
    return np.where(left == right, left, -1)


def edges_inside(edges: ArrayLike, members: ArrayLike) -> Indices:
    """The pairs whose documents are both members.

    Args:
        edges: (E, 2) indices of documents.
        members: (M,) indices of documents.

    Returns:
        (F, 2), in the order of `edges`.

    Complexity: O((E + M) log M).

    Example:
        >>> edges_inside([(0, 1), (1, 2), (2, 3)], [1, 2, 3]).tolist()
        [[1, 2], [2, 3]]
    """
    pairs = _pairs(edges)
    return pairs[np.isin(pairs, np.asarray(members, np.int64)).all(axis=1)]


def random_negatives(members: ArrayLike, edges: ArrayLike, count: int, seed: int) -> Indices:
    """Pairs of members that are not linked, drawn without repetition.

    Args:
        members: (M,) indices of documents.
        edges: (E, 2) linked pairs, in any order; those of other documents do not matter.
        count: how many are wanted.
        seed: of the draw.

    Returns:
        (K, 2) with the lower index first, in the order of the draw; K < `count` where fewer exist, for which
        :func:`shortfall_note` has the words.

    Raises:
        InputError: a negative count.

    Complexity: O(min(M^2, 2,000,000) + E + count); O(M^2) where more than a quarter of all pairs is asked for.

    Example:
        >>> random_negatives([0, 1, 2], [(1, 0)], 5, seed=0).tolist() in ([[0, 2], [1, 2]], [[1, 2], [0, 2]])
        True
    """
    if count < 0:
        raise InputError("no number of pairs", where="count", found=count, expected="0 or more")
    inside = np.unique(np.asarray(members, np.int64))
    linked = {(min(pair), max(pair)) for pair in edges_inside(edges, inside).tolist() if pair[0] != pair[1]}
    rng = np.random.default_rng(seed)
    every = len(inside) * (len(inside) - 1) // 2
    if every <= _LISTED or 4 * count > every:
        left, right = np.triu_indices(len(inside), 1)
        table = np.stack([inside[left], inside[right]], axis=1)
        free = np.array([tuple(pair) not in linked for pair in table.tolist()], bool)
        table = table[free]
        return table[rng.permutation(len(table))[:count]]
    return _drawn(inside, linked, min(count, every - len(linked)), rng)


def _drawn(inside: Indices, linked: set[tuple[int, ...]], count: int, rng: np.random.Generator) -> Indices:
    """By trial: of millions of pairs nearly all are free. The count is at most that of the free ones."""
    chosen: dict[tuple[int, int], None] = {}
    while len(chosen) < count:
        for first, second in inside[rng.integers(0, len(inside), (2 * (count - len(chosen)) + 16, 2))].tolist():
            pair = (min(first, second), max(first, second))
            if first != second and pair not in linked and len(chosen) < count:
                chosen[pair] = None
    return np.array(list(chosen), np.int64).reshape(-1, 2)


def hard_negatives(
    nearest: ArrayLike,
    members: ArrayLike,
    edges: ArrayLike,
    per_positive: int,
    seed: int,
    *,
    anchor: Literal["either", "first"] = "either",
) -> Indices:
    """Unlinked pairs of near documents: for each linked pair, neighbours of one of its two documents.

    The document is drawn (or is the first, the one that refers), then a neighbour of it that is a member, not linked
    to it, and not drawn as a pair before; where the one has none left the other is taken. Both kinds of pairs so have
    the same documents: a model cannot tell them by how often a document is linked. The first alone makes harder pairs
    where few documents refer to a popular one.

    Args:
        nearest: (N, k) nearest documents of each, as of `Tfidf.nearest`; -1 where there are fewer.
        members: (M,) indices of documents.
        edges: (E, 2) linked pairs; each one inside the members gets its negatives.
        per_positive: negatives of each linked pair.
        seed: of the draw.
        anchor: whose neighbours are taken: `either` end's, or those of the `first` document of each pair as given.

    Returns:
        (K, 2) with the lower index first; K is smaller than `per_positive` times the linked pairs inside where the
        neighbours run out, for which :func:`shortfall_note` has the words.

    Raises:
        InputError: a negative number of pairs, a table of neighbours without a row for every member.

    Complexity: O(E k).

    Example:
        >>> near = [[1, 2], [0, 2], [1, 3], [2, 1]]
        >>> hard_negatives(near, [0, 1, 2], [(0, 1)], 1, seed=1).tolist() in ([[0, 2]], [[1, 2]])
        True
    """
    if per_positive < 0:
        raise InputError("no number of pairs", where="per_positive", found=per_positive, expected="0 or more")
    table = np.asarray(nearest, np.int64)
    inside = {int(one) for one in np.asarray(members, np.int64)}
    if table.ndim != 2 or (inside and max(inside) >= len(table)):
        expected = f"(N, k), N above {max(inside, default=0)}"
        raise InputError(
            "not a row of neighbours for every document", where="nearest", found=table.shape, expected=expected
        )
    if anchor not in ("either", "first"):
        raise InputError("no such choice", where="anchor", found=repr(anchor), expected="either, first")
    pairs = _pairs(edges) if anchor == "first" else np.sort(_pairs(edges), axis=1)
    linked = {(min(pair), max(pair)) for pair in pairs.tolist()}
    positives = edges_inside(np.unique(pairs, axis=0), np.array(sorted(inside), np.int64))
    rng = np.random.default_rng(seed)
    chosen: dict[tuple[int, int], None] = {}
    for ends in np.tile(positives, (per_positive, 1))[rng.permutation(per_positive * len(positives))]:
        for end in ends[:1] if anchor == "first" else rng.permutation(ends):
            near = [(min(end, other), max(end, other)) for other in table[end].tolist() if other in inside]
            free = [pair for pair in near if pair[0] != pair[1] and pair not in linked and pair not in chosen]
            if free:
                first, second = free[rng.integers(len(free))]
                chosen[int(first), int(second)] = None
                break
    return np.array(list(chosen), np.int64).reshape(-1, 2)


def shortfall_note(found: int, wanted: int, what: str) -> tuple[str, ...]:
    """What to say where fewer pairs exist than were wanted; nothing otherwise.

    Example:
        >>> shortfall_note(2, 5, "hard negatives")
        ('2 hard negatives exist where 5 were wanted',)
    """
    return (f"{found} {what} exist where {wanted} were wanted",) if found < wanted else ()


def _pairs(edges: ArrayLike) -> Indices:
    pairs = np.asarray(edges, np.int64)
    return pairs.reshape(-1, 2) if pairs.size == 0 else _checked(pairs)


def _checked(pairs: Indices) -> Indices:
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError("not pairs of documents", where="edges", found=pairs.shape, expected="(E, 2)")
    return pairs
