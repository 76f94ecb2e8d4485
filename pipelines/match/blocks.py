"""Documents as blocks of tokens: whole sentences are put together while they fit, and nothing is lost uncounted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.match.sentences import split_sentences
from pipelines.match.vocabulary import WordPiece

__all__ = ["BlockCounts", "Blocks", "fill_blocks"]

_ON_LONG = ("block", "error", "truncate")
#: Ids of a piece of a sentence, and the characters of the text from its first token to its last.
_Piece = tuple[Sequence[int], int, int]


@dataclass(frozen=True)
class BlockCounts:
    """What became of a text.

    Attributes:
        tokens: tokens of the text without marks, dropped ones among them.
        sentences: sentences with at least one token.
        blocks: blocks that are kept.
        unknown: tokens that are no word of the vocabulary.
        sentences_continued: sentences longer than a block that go on in the next one; nothing of them is lost.
        sentences_cut: sentences that lost their end.
        tokens_dropped: tokens that are in no block.
        sentences_dropped: sentences of which no token is in a block.
        blocks_dropped: blocks beyond the limit.
    """

    tokens: int = 0
    sentences: int = 0
    blocks: int = 0
    unknown: int = 0
    sentences_continued: int = 0
    sentences_cut: int = 0
    tokens_dropped: int = 0
    sentences_dropped: int = 0
    blocks_dropped: int = 0


@dataclass(frozen=True)
class Blocks:
    """The blocks of one text.

    Attributes:
        ids: (B, L) int32, 0 = padding.
        spans: (B, 2) characters of the text from each block's first token to its last, end exclusive.
        counts: what became of the text.
    """

    ids: NDArray[np.int32]
    spans: NDArray[np.int64]
    counts: BlockCounts


def fill_blocks(
    text: str,
    vocabulary: WordPiece,
    *,
    length: int = 32,
    limit: int | None = None,
    on_long: Literal["block", "error", "truncate"] = "block",
    separators: int = 2,
    where: str = "",
) -> Blocks:
    """Cut a text into sentences, and fill blocks of L tokens greedily: [CLS], whole sentences, [SEP] [SEP], padding.

    A sentence joins the block while all its tokens fit into the L - 3 places; otherwise it begins the next one.
    Source: SMITH (arXiv 2004.12297), section 4.1 and the released pre-processing. O(characters).

    Args:
        text: any text.
        vocabulary: what turns sentences into ids.
        length: tokens L of a block, marks among them.
        limit: blocks of a document at most, None = any number; ``on_long="block"`` keeps all.
        on_long: what becomes of sentences longer than a block and of blocks beyond the limit. "block": the sentence
            goes on in the next block, the next sentence may follow in the same one; "truncate": as released, the
            sentence is cut, the blocks are dropped; "error": the text is refused.
        separators: [SEP] marks at the end of a block: 2 as released, 1 as single texts have in BERT.
        where: name of the text, for messages.

    Returns:
        ``Blocks``; none of them for a text without a token.

    Raises:
        InputError: with "error", a text that does not fit; the message says by how much.
        ConfigError: a length without room for a token, an unknown ``on_long``.

    Example:
        >>> words = WordPiece.train(["one two three four"] * 3, 60)
        >>> blocks = fill_blocks("One two. Three four. One.", words, length=9)
        >>> blocks.ids.shape, blocks.spans.tolist(), blocks.counts.sentences
        ((2, 9), [[0, 20], [21, 25]], 3)
    """
    room = _room(length, limit, on_long, separators)
    sentences, unknown = _encoded(text, vocabulary, where)
    long = sum(len(ids) > room for ids, _, _ in sentences)
    pieces: list[_Piece] = []
    for ids, offsets, start in sentences:
        for first in range(0, len(ids) if on_long == "block" else 1, room):
            last = min(first + room, len(ids))
            pieces.append((ids[first:last], start + offsets[first][0], start + offsets[last - 1][1]))
    packed = list(_packed(pieces, room))
    if on_long == "error":
        _refuse(where or f"text of {len(text):,} characters", long, len(packed), room, limit)
    kept = packed if limit is None or on_long == "block" else packed[:limit]
    tokens = sum(len(ids) for ids, _, _ in sentences)
    held = sum(len(ids) for block in kept for ids, _, _ in block)
    inside = sum(map(len, kept))  # in the other two modes a piece is a sentence
    dropped = 0 if on_long == "block" else len(sentences) - inside
    cut = 0 if on_long == "block" else sum(len(ids) > room for ids, _, _ in sentences[:inside])
    counts = BlockCounts(
        tokens=tokens,
        sentences=len(sentences),
        blocks=len(kept),
        unknown=unknown,
        sentences_continued=long if on_long == "block" else 0,
        sentences_cut=cut,
        tokens_dropped=tokens - held,
        sentences_dropped=dropped,
        blocks_dropped=len(packed) - len(kept),
    )
    return Blocks(*_arrays(kept, vocabulary, length, separators), counts)


def _room(length: int, limit: int | None, on_long: str, separators: int) -> int:
    if separators not in (1, 2):
        raise ConfigError("out of range", where="separators", found=separators, expected="1 or 2")
    if length < separators + 2:
        raise ConfigError("no room for a token", where="length", found=length, expected=f"from {separators + 2}")
    if limit is not None and limit < 1:
        raise ConfigError("out of range", where="limit", found=limit, expected="from 1, or None")
    if on_long not in _ON_LONG:
        raise ConfigError("there is no such choice", where="on_long", found=on_long, expected=" or ".join(_ON_LONG))
    return length - 1 - separators


def _encoded(
    text: str, vocabulary: WordPiece, where: str
) -> tuple[list[tuple[list[int], list[tuple[int, int]], int]], int]:
    """(ids, offsets, start of the sentence) of sentences that have tokens, and how many tokens are unknown."""
    spans = split_sentences(text)
    found = vocabulary.encode([text[start:end] for start, end in spans], where=where)
    kept = [(ids, offsets, start) for (ids, offsets), (start, _) in zip(found, spans, strict=True) if ids]
    return kept, sum(ids.count(vocabulary.UNK) for ids, _, _ in kept)


def _packed(pieces: list[_Piece], room: int) -> Iterator[list[_Piece]]:
    """Pieces that share a block, block by block; a piece is cut to the room."""
    block: list[_Piece] = []
    used = 0
    for ids, start, end in pieces:
        if block and used + len(ids) > room:
            yield block
            block, used = [], 0
        block.append((ids, start, end))
        used += len(ids)
    if block:
        yield block


def _arrays(
    kept: list[list[_Piece]], vocabulary: WordPiece, length: int, separators: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    ids = np.full((len(kept), length), vocabulary.PAD, np.int32)
    spans = np.zeros((len(kept), 2), np.int64)
    for row, block in enumerate(kept):
        tokens = [vocabulary.CLS, *(one for piece, _, _ in block for one in piece), *[vocabulary.SEP] * separators]
        ids[row, : len(tokens)] = tokens
        spans[row] = block[0][1], block[-1][2]
    return ids, spans


def _refuse(where: str, long: int, blocks: int, room: int, limit: int | None) -> None:
    over = 0 if limit is None else max(0, blocks - limit)
    if not long and not over:
        return
    problems = [f"{long} sentences have more than {room} tokens"] if long else []
    problems += [f"the text fills {blocks} blocks, {over} more than the limit"] if over else []
    raise InputError(
        f"{' and '.join(problems)}",
        where=where,
        found=f"{blocks} blocks",
        expected=f"sentences of up to {room} tokens" + ("" if limit is None else f" in up to {limit} blocks"),
        cure="use on_long=block, which loses nothing, on_long=truncate, or longer blocks",
    )
