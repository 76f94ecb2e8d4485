"""Filling of sentence blocks, against a slow filler written from the released pre-processing's description."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError, InputError
from pipelines.match.blocks import BlockCounts, fill_blocks
from pipelines.match.sentences import split_sentences
from pipelines.match.vocabulary import WordPiece

WORDS = WordPiece.train(["one two three four five six seven eight nine ten . ! ? ,"] * 4, 110)


def text_of(lengths: list[int]) -> str:
    """Sentences of so many tokens, one a paragraph."""
    names = ["one", "two", "three", "four", "five", "six", "seven"]
    return "\n\n".join(" ".join(names[(i + j) % 7] for j in range(n)) for i, n in enumerate(lengths))


def slow(sentences: list[list[int]], length: int, limit: int | None, separators: int) -> list[list[int]]:
    """Blocks as released, one token at a time: cut sentences, whole sentences together, blocks up to the limit."""
    room = length - 1 - separators
    blocks: list[list[int]] = []
    current: list[int] = []
    for sentence in sentences:
        cut = sentence[:room]
        if current and len(current) + len(sentence) > room:
            blocks.append(current)
            current = []
        for token in cut:
            current.append(token)
    if current:
        blocks.append(current)
    rows = []
    for block in blocks[:limit]:
        row = [WORDS.CLS]
        row.extend(block)
        row.extend([WORDS.SEP] * separators)
        while len(row) < length:
            row.append(0)
        rows.append(row)
    return rows


lengths_of = st.lists(st.integers(1, 14), max_size=12)


@settings(max_examples=150, deadline=None)
@given(lengths_of, st.integers(5, 14), st.one_of(st.none(), st.integers(1, 4)), st.integers(1, 2))
def test_truncating_fills_as_the_slow_filler(lengths: list[int], length: int, limit: int | None, marks: int) -> None:
    text = text_of(lengths)
    blocks = fill_blocks(text, WORDS, length=length, limit=limit, on_long="truncate", separators=marks)
    sentences = [WORDS.encode([text[a:b]])[0][0] for a, b in split_sentences(text)]
    assert list(map(len, sentences)) == lengths
    assert blocks.ids.tolist() == slow(sentences, length, limit, marks)
    assert blocks.ids.dtype == np.int32
    counts, room = blocks.counts, length - 1 - marks
    everything = slow(sentences, length, None, marks)
    assert counts.blocks == len(blocks.ids)
    assert counts.blocks_dropped == len(everything) - len(blocks.ids)
    assert (counts.tokens, counts.sentences) == (sum(lengths), len(lengths))
    assert counts.tokens_dropped == sum(lengths) - int((blocks.ids > 4).sum())
    # A sentence shares no block with one before it that was cut: each row is a cut sentence or holds whole ones.
    inside, left = 0, [sum(one > 4 for one in row) for row in blocks.ids.tolist()]
    while inside < len(lengths) and left:
        left[0] -= min(lengths[inside], room)
        left = left[1:] if left[0] == 0 else left
        inside += 1
    assert counts.sentences_cut == sum(n > room for n in lengths[:inside])
    assert counts.sentences_dropped == len(lengths) - inside


@settings(max_examples=150, deadline=None)
@given(lengths_of, st.integers(5, 14), st.one_of(st.none(), st.integers(1, 2)))
def test_blocks_lose_nothing_whatever_the_limit(lengths: list[int], length: int, limit: int | None) -> None:
    text = text_of(lengths)
    blocks = fill_blocks(text, WORDS, length=length, limit=limit)
    tokens = [one for ids, _ in WORDS.encode([text[a:b] for a, b in split_sentences(text)]) for one in ids]
    assert blocks.ids[blocks.ids > 4].tolist() == tokens
    counts = blocks.counts
    assert (counts.tokens_dropped, counts.sentences_cut, counts.sentences_dropped, counts.blocks_dropped) == (0,) * 4
    assert counts.sentences_continued == sum(n > length - 3 for n in lengths)
    for row in blocks.ids.tolist():
        filled = [one for one in row if one]
        assert row == filled + [0] * (length - len(filled))
        assert (filled[0], filled[-2:]) == (WORDS.CLS, [WORDS.SEP] * 2)
    short = [n <= length - 3 for n in lengths]
    if all(short):  # then no mode differs
        cut = fill_blocks(text, WORDS, length=length, on_long="truncate")
        assert np.array_equal(cut.ids, blocks.ids)
        assert np.array_equal(fill_blocks(text, WORDS, length=length, on_long="error").ids, blocks.ids)


def test_by_hand() -> None:
    blocks = fill_blocks("One two. Three four.\n\nFive six seven eight nine ten one two. Ten!", WORDS, length=9)
    rows = [[WORDS.token(one) for one in row if one > 4] for row in blocks.ids.tolist()]
    assert rows == [
        ["one", "two", ".", "three", "four", "."],
        ["five", "six", "seven", "eight", "nine", "ten"],
        ["one", "two", ".", "ten", "!"],
    ]
    assert blocks.spans.tolist() == [[0, 20], [22, 51], [52, 65]]
    assert blocks.counts == BlockCounts(tokens=17, sentences=4, blocks=3, sentences_continued=1)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="one two.\n\né#漢!", max_size=80), st.integers(5, 12))
def test_spans_hold_the_text_of_their_blocks(text: str, length: int) -> None:
    blocks = fill_blocks(text, WORDS, length=length)
    ends = blocks.spans.reshape(-1)
    assert (np.diff(ends) >= 0).all()
    assert blocks.counts.unknown == int((blocks.ids == WORDS.UNK).sum())
    for row, (start, end) in zip(blocks.ids, blocks.spans, strict=True):
        again = [one for ids, _ in WORDS.encode([text[start:end]]) for one in ids]
        if WORDS.UNK not in again and not WORDS.token(int(row[1])).startswith("##"):
            assert again == row[row > 4].tolist()


@pytest.mark.parametrize("text", ["", " \n ", "\x00\x01"])
def test_a_text_without_a_token_has_no_blocks(text: str) -> None:
    blocks = fill_blocks(text, WORDS)
    assert (blocks.ids.shape, blocks.spans.shape, blocks.counts) == ((0, 32), (0, 2), BlockCounts())


def test_errors_say_how_much_does_not_fit() -> None:
    text = text_of([3, 9, 2, 12, 6, 6])
    with pytest.raises(InputError, match=r"2 sentences have more than 6 tokens and the text fills 6 blocks, 4 more"):
        fill_blocks(text, WORDS, length=9, limit=2, on_long="error")
    with pytest.raises(InputError, match=r"^a\.rst: the text fills 5 blocks, 1 more than the limit"):
        fill_blocks(text_of([6] * 5), WORDS, length=9, limit=4, on_long="error", where="a.rst")
    assert len(fill_blocks(text_of([6] * 5), WORDS, length=9, limit=5, on_long="error").ids) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 3}, "no room for a token"),
        ({"limit": 0}, "limit: out of range"),
        ({"on_long": "drop"}, "no such choice"),
        ({"separators": 3}, "separators: out of range"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fill_blocks("one", WORDS, **options)


def test_a_sentence_of_100_000_tokens_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        start = time.process_time()
        blocks = fill_blocks("one " * count, WORDS)
        assert blocks.counts.tokens == count
        assert len(blocks.ids) == -(-count // 29)
        return time.process_time() - start

    seconds(1000)
    assert seconds(100_000) < 25 * min(seconds(12_500) for _ in range(3)) + 0.1
