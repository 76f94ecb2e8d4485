"""Words of two pieces of sound that overlap, joined so that nothing stands there twice and nothing is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pipelines.transcribe.words import Word

__all__ = ["stitch"]

_NEAR = 0.3  # seconds that the middles of two hearings of one word may lie apart
_REACH = 0.5  # seconds from an edge that what it left of a word can reach
_JITTER = 0.04  # seconds that a time may be off
_COVERED = 0.5  # share of a word that another hearing must cover to be the same sound
_OTHER_TEXT, _ALONE = 1.0, 0.9  # costs of a pair of different words, and of a word that only one side has


def stitch(left: Sequence[Word], right: Sequence[Word], overlap: tuple[float, float]) -> list[Word]:
    """Join the words of two pieces that share a stretch of sound.

    Words of the shared stretch are paired by text and time (the cheapest monotone alignment). Of a pair, the hearing
    that lies farther from the edge of its piece is kept; a word that only one side has is kept unless different words
    of the other side cover its time: the piece's edge had cut it.

    Args:
        left: words of the earlier piece, in the order of time, in seconds of the recording.
        right: words of the later piece.
        overlap: where the later piece begins and where the earlier one ends, in seconds of the recording.

    Returns:
        Words in the order of time that do not overlap.

    Complexity: O(n m) for n and m words within the shared stretch, which is a second long or so.

    Example:
        >>> left = [Word("one", 0.0, 0.3, 0.9), Word("two", 1.2, 1.5, 0.9), Word("th", 1.9, 2.0, 0.4)]
        >>> right = [Word("two", 1.21, 1.5, 0.9), Word("three", 1.9, 2.3, 0.9), Word("four", 2.5, 2.8, 0.9)]
        >>> [word.text for word in stitch(left, right, (1.0, 2.0))]
        ['one', 'two', 'three', 'four']
    """
    begin, end = overlap
    if begin >= end:  # they do not share anything
        return [*left, *right]
    before = next((i for i, word in enumerate(left) if word.end > begin), len(left))
    after = next((i for i, word in enumerate(right) if word.start >= end), len(right))
    # A hearing may be a little off: the neighbours beyond the edges take part too.
    before, after = max(before - 1, 0), min(after + 1, len(right))
    middle = _merged(left[before:], right[:after], begin, end)
    return _in_order([*left[:before], *middle, *right[after:]])


def _merged(left: Sequence[Word], right: Sequence[Word], begin: float, end: float) -> list[Word]:
    pairs = _aligned(left, right)
    same = [{i for i, j in pairs if _equal(left, right, i, j)}, {j for i, j in pairs if _equal(left, right, i, j)}]
    others_left = [word for at, word in enumerate(left) if at not in same[0]]
    others_right = [word for at, word in enumerate(right) if at not in same[1]]
    kept: list[Word] = []
    for i, j in pairs:
        if i is not None and j is not None:
            kept.append(_better(left[i], right[j], begin, end))
        elif i is not None and not _is_remnant(left[i], others_right, cut_at=end):
            kept.append(left[i])
        elif j is not None and not _is_remnant(right[j], others_left, cut_at=begin):
            kept.append(right[j])
    return kept


def _equal(left: Sequence[Word], right: Sequence[Word], i: int | None, j: int | None) -> bool:
    return i is not None and j is not None and left[i].text == right[j].text


def _is_remnant(word: Word, others: Sequence[Word], *, cut_at: float) -> bool:
    """Whether a word that the other side does not have is what an edge left of a word that the other side has."""
    near = word.start < cut_at + _REACH and word.end > cut_at - _REACH
    least = _COVERED * (word.end - word.start)
    return near and any(_shared(word, other) + _JITTER > least for other in others)


def _better(one: Word, two: Word, begin: float, end: float) -> Word:
    """Of two hearings the one that lies farther from the edge of its piece."""
    return one if end - one.end >= two.start - begin else two


def _shared(one: Word, two: Word) -> float:
    return min(one.end, two.end) - max(one.start, two.start)


def _cost(one: Word, two: Word) -> float | None:
    """What it costs to take two words for one; None where they cannot be one."""
    apart = abs((one.start + one.end) - (two.start + two.end)) / 2
    if one.text == two.text and apart <= _NEAR:
        return 2 * _ALONE * apart / _NEAR
    least = min(one.end - one.start, two.end - two.start)
    return _OTHER_TEXT if _shared(one, two) > max(_COVERED * least - _JITTER, 0.0) else None


def _aligned(left: Sequence[Word], right: Sequence[Word]) -> list[tuple[int | None, int | None]]:
    """The cheapest alignment, in the order of time; None where a side has nothing."""
    rows, columns = len(left), len(right)
    costs = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    steps = [[""] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows + 1):
        for j in range(columns + 1):
            ways: list[tuple[float, str]] = []
            if i and j:
                pair = _cost(left[i - 1], right[j - 1])
                if pair is not None:
                    ways.append((costs[i - 1][j - 1] + pair, "both"))
            if i:
                ways.append((costs[i - 1][j] + _ALONE, "left"))
            if j:
                ways.append((costs[i][j - 1] + _ALONE, "right"))
            if ways:
                costs[i][j], steps[i][j] = min(ways)
    found: list[tuple[int | None, int | None]] = []
    i, j = rows, columns
    while i or j:
        step = steps[i][j]
        found.append((i - 1 if step != "right" else None, j - 1 if step != "left" else None))
        i, j = i - (step != "right"), j - (step != "left")
    return _sorted_singles(found[::-1], left, right)


def _sorted_singles(
    pairs: list[tuple[int | None, int | None]], left: Sequence[Word], right: Sequence[Word]
) -> list[tuple[int | None, int | None]]:
    """Between two pairs, words that only one side has stand in the order of time."""
    ordered: list[tuple[int | None, int | None]] = []
    singles: list[tuple[int | None, int | None]] = []

    def middle(pair: tuple[int | None, int | None]) -> float:
        i, j = pair
        word = left[i] if i is not None else right[j or 0]
        return word.start + word.end

    for pair in pairs:
        if None in pair:
            singles.append(pair)
        else:
            ordered += [*sorted(singles, key=middle), pair]
            singles = []
    return [*ordered, *sorted(singles, key=middle)]


def _in_order(words: Sequence[Word]) -> list[Word]:
    """The same words with times that do not overlap: two that do share the difference."""
    fixed: list[Word] = []
    for word in words:
        if fixed and word.start < fixed[-1].end:
            last = fixed[-1]
            border = min(max((word.start + last.end) / 2, last.start), max(word.end, last.start))
            fixed[-1] = dataclasses.replace(last, end=border)
            word = dataclasses.replace(word, start=border, end=max(word.end, border))
        fixed.append(word)
    return fixed
