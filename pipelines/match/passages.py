"""Which passage of one document answers which of the other: pairs of sentence blocks by their similarity.

Shapes: B blocks of a document, C channels. Documents of many thousand blocks are compared in pieces, so that memory
grows with their sum and not with their product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["Answer", "Passages", "SimilarityMap", "answers", "similarity_map"]

Floats = NDArray[np.float32]
Span = tuple[int, int]
_AT_ONCE = 1_000_000  # similarities in memory


@dataclasses.dataclass(frozen=True)
class Passages:
    """A document as its blocks: what they say, and their vectors.

    Args:
        name: of the document.
        text: the whole document.
        spans: (B, 2) first character of each block and the one after its last.
        vectors: (B, C); rows of zeros stand for blocks without tokens and are never compared.

    Raises:
        InputError: shapes that do not fit, spans outside of the text, or vectors that are not finite.

    Example:
        >>> page = Passages("a", "Good bye. So long.", np.array([[0, 9], [10, 18]]), np.eye(2, dtype=np.float32))
        >>> page.block(1), len(page)
        ('So long.', 2)
    """

    name: str
    text: str
    spans: NDArray[np.int64]
    vectors: Floats

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        spans = self.spans
        if self.vectors.ndim != 2 or spans.shape != (len(self.vectors), 2):
            raise InputError(
                "each block needs a vector and a span",
                where=self.name,
                found=f"vectors {self.vectors.shape}, spans {spans.shape}",
                expected="(B, C) and (B, 2)",
            )
        if len(spans) and (spans.min() < 0 or spans.max() > len(self.text) or (spans[:, 0] > spans[:, 1]).any()):
            raise InputError("a block lies outside of its text", where=self.name, expected=f"0 to {len(self.text):,}")
        if not np.isfinite(self.vectors).all():
            raise InputError("the vectors of the blocks must be finite", where=self.name)

    def __len__(self) -> int:
        return len(self.vectors)

    def span(self, number: int) -> Span:
        """First character of a block and the one after its last."""
        return int(self.spans[number, 0]), int(self.spans[number, 1])

    def block(self, number: int) -> str:
        """The text of a block as it stands."""
        return self.text[slice(*self.span(number))]


@dataclasses.dataclass(frozen=True)
class Answer:
    """Two blocks that say something alike.

    Attributes:
        left_block, right_block: their numbers, from 0 as everywhere (files, pictures, reports).
        similarity: cosine of their vectors.
        left_text, right_text: what they say.
        left_span, right_span: where, in characters.
        mutual: each is the other's best.
    """

    left_block: int
    right_block: int
    similarity: float
    left_text: str
    right_text: str
    left_span: Span
    right_span: Span
    mutual: bool = False


def answers(left: Passages, right: Passages, top: int = 5) -> list[Answer]:
    """Return up to ``top`` pairs of blocks: first those that are each other's best, then the most similar of the rest.

    No block is in two pairs; both parts are ordered by similarity, equal ones by the blocks' numbers.

    Args:
        left, right: with vectors of the same C.
        top: how many pairs at most.

    Raises:
        InputError: vectors of different lengths.

    Complexity: O(B1 B2 C) time, O((B1 + B2) (C + top)) memory.

    Example:
        >>> page = Passages("a", "Good bye. So long.", np.array([[0, 9], [10, 18]]), np.eye(2, dtype=np.float32))
        >>> other = Passages("b", "So. Bye.", np.array([[0, 3], [4, 8]]), np.float32([[0.1, 0.9], [0.8, 0.2]]))
        >>> [(pair.left_text, pair.right_text, pair.mutual) for pair in answers(page, other)]
        [('So long.', 'So.', True), ('Good bye.', 'Bye.', True)]
    """
    _same_width(left, right)
    if top < 1:
        return []
    ours, theirs = _there(left), _there(right)
    found = _mutual(left, right, ours, theirs)[:top]
    if len(found) < top:  # none of the rest are in a pair yet
        ours = np.setdiff1d(ours, [i for _, i, _ in found])
        theirs = np.setdiff1d(theirs, [j for _, _, j in found])
    mutual = len(found)
    if mutual < top:
        found += _greedy(left, right, ours, theirs, top - mutual)
    return [
        Answer(i, j, value, left.block(i), right.block(j), left.span(i), right.span(j), place < mutual)
        for place, (value, i, j) in enumerate(found)
    ]


def _mutual(
    left: Passages, right: Passages, ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> list[tuple[float, int, int]]:
    """(cosine, left block, right block) of blocks that are each other's best, the most similar first."""
    if not len(ours) or not len(theirs):
        return []
    row_of, best = np.zeros(len(theirs), np.int64), np.full(len(theirs), -np.inf, np.float32)
    column_of, values = np.empty(len(ours), np.int64), np.empty(len(ours), np.float32)
    for first, part in _pieces(left, right, ours, theirs):
        highest = part.max(0)
        better = highest > best
        row_of[better] = first + part.argmax(0)[better]
        best[better] = highest[better]
        rows = slice(first, first + len(part))
        column_of[rows] = part.argmax(1)
        values[rows] = part[np.arange(len(part)), column_of[rows]]
    rows = np.flatnonzero(row_of[column_of] == np.arange(len(ours)))
    rows = rows[np.argsort(-values[rows], kind="stable")]
    return [(float(values[row]), int(ours[row]), int(theirs[column_of[row]])) for row in rows]


def _greedy(
    left: Passages, right: Passages, ours: NDArray[np.int64], theirs: NDArray[np.int64], top: int
) -> list[tuple[float, int, int]]:
    """The most similar pair, then the most similar one of other blocks, and so on, ``top`` times at most.

    Of each row as many columns as pairs are asked for are enough: fewer than that are taken by other pairs.
    """
    if not len(ours) or not len(theirs):
        return []
    kept = min(top, len(theirs))
    columns, values = np.empty((len(ours), kept), np.int64), np.empty((len(ours), kept), np.float32)
    for first, part in _pieces(left, right, ours, theirs):
        rows = slice(first, first + len(part))
        columns[rows], values[rows] = _highest(part, kept)
    places = np.repeat(np.arange(len(ours)), kept)
    found: list[tuple[float, int, int]] = []
    used: tuple[set[int], set[int]] = (set(), set())
    for place in np.lexsort((columns.ravel(), places, -values.ravel())):
        row, column = int(places[place]), int(columns.ravel()[place])
        if row not in used[0] and column not in used[1] and len(found) < top:
            used[0].add(row)
            used[1].add(column)
            found.append((float(values.ravel()[place]), int(ours[row]), int(theirs[column])))
    return found


def _highest(part: Floats, kept: int) -> tuple[NDArray[np.int64], Floats]:
    """The ``kept`` highest of each row with their columns, equal ones by column: (rows, kept) both."""
    if kept < part.shape[1]:
        # Every value above the kept-th highest is in; of those that equal it, the first columns are taken.
        least = np.partition(part, -kept, axis=1)[:, -kept][:, None]
        above, equal = part > least, part == least
        room = kept - above.sum(1, keepdims=True)
        chosen = above | (equal & (equal.cumsum(1, dtype=np.int32) <= room))
        columns = np.nonzero(chosen)[1].reshape(len(part), kept)
    else:
        columns = np.broadcast_to(np.arange(part.shape[1]), part.shape)
    values = np.take_along_axis(part, columns, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1), np.take_along_axis(values, order, 1)


def _there(page: Passages) -> NDArray[np.int64]:
    """Numbers of the blocks that have a vector."""
    return np.flatnonzero(np.abs(page.vectors).max(1, initial=0.0) > 0)


def _same_width(left: Passages, right: Passages) -> None:
    if left.vectors.shape[1] != right.vectors.shape[1]:
        raise InputError(
            "these blocks are vectors of two models",
            where=f"{left.name}, {right.name}",
            found=f"{left.vectors.shape[1]} and {right.vectors.shape[1]} channels",
            cure="encode both with the same weights",
        )


def _unit(vectors: Floats) -> Floats:
    rows = vectors.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _pieces(
    left: Passages, right: Passages, ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> Iterator[tuple[int, Floats]]:
    """Cosines of some blocks on the left (from the number given) with all on the right."""
    _same_width(left, right)
    others = _unit(right.vectors[theirs]).T
    size = max(1, _AT_ONCE // len(theirs))
    for first in range(0, len(ours), size):
        yield first, _unit(left.vectors[ours[first : first + size]]) @ others


@dataclasses.dataclass(frozen=True)
class SimilarityMap:
    """Similarities of all blocks of two documents, small enough to be drawn.

    Attributes:
        values: (h, w) the highest cosine within each cell; NaN where no block of a cell has tokens.
        rows, columns: blocks in a cell.
    """

    values: Floats
    rows: int
    columns: int


def similarity_map(left: Passages, right: Passages, most: int = 64) -> SimilarityMap:
    """Return the cosines of all pairs of blocks; of large documents the highest within cells of several blocks.

    Args:
        left, right: the documents; rows and columns of the map.
        most: rows and columns at most.

    Raises:
        InputError: vectors of different lengths, or a document without blocks.

    Complexity: O(B1 B2 C) time, O((B1 + B2) C + most^2) memory.

    Example:
        >>> page = Passages("a", "abcd", np.array([[i, i + 1] for i in range(4)]), np.eye(4, dtype=np.float32))
        >>> similarity_map(page, page, most=2).values.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if not len(left) or not len(right):
        raise InputError("no map of a document without blocks", where=(right if len(left) else left).name)
    ours, theirs = _there(left), _there(right)
    rows, columns = -(-len(left) // most), -(-len(right) // most)
    values = np.full((-(-len(left) // rows), -(-len(right) // columns)), -np.inf, np.float32)
    if len(theirs):
        places = theirs // columns
        starts = np.flatnonzero(np.r_[True, places[1:] != places[:-1]])
        for first, part in _pieces(left, right, ours, theirs):
            pooled = np.maximum.reduceat(part, starts, axis=1)
            cells = np.ix_(ours[first : first + len(part)] // rows, places[starts])
            np.maximum.at(values, cells, pooled)
    _same_width(left, right)
    return SimilarityMap(np.where(np.isneginf(values), np.nan, values).astype(np.float32), rows, columns)
