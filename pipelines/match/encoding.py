"""From documents to vectors, a batch of blocks at a time: memory does not grow with the number of documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.formats.document_types import Document
from pipelines.match.blocks import BlockCounts, Blocks, fill_blocks
from pipelines.match.models.smith import Smith
from pipelines.match.options import block_length

if TYPE_CHECKING:
    from pipelines.match.engine import Fitted
    from pipelines.match.options import BlockOptions
    from pipelines.match.vocabulary import WordPiece

_TELLING = 9  # different ids of a block, marks and padding among them, from which on it is a passage
_WORDS_AT_ONCE = 128  # blocks whose words are counted at once, each over the whole vocabulary

__all__ = ["Read", "block_vectors", "cut", "encode_stream", "total_counts"]


@dataclasses.dataclass(frozen=True)
class Read:
    """A document as the model saw it.

    Attributes:
        document: what was read.
        blocks: its sentence blocks.
        vectors: what passages are compared by, a row a block.
        vector: of the document (D,), length one.
    """

    document: Document
    blocks: Blocks
    vectors: NDArray[np.float32]
    vector: NDArray[np.float32]


def cut(document: Document, vocabulary: WordPiece, options: BlockOptions, encoder: str) -> Blocks:
    """The sentence blocks of a document; those of MiniLM end as single texts do, with one mark.

    Raises:
        InputError: with ``on_long`` error, for a document that does not fit.
    """
    return fill_blocks(
        document.text,
        vocabulary,
        length=block_length(options, encoder),
        limit=options.limit,
        on_long=options.on_long,
        separators=1 if encoder == "minilm" else 2,
        where=document.name,
    )


@torch.inference_mode()
def block_vectors(module: Smith, ids: NDArray[np.int32], batch: int, precision: str = "32-true") -> NDArray[np.float32]:
    """Vectors (B, C) of blocks ids (B, L), a batch at a time; "bf16-mixed" multiplies matrices in bfloat16."""
    device = next(module.parameters()).device
    found = []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        for start in range(0, len(ids), batch):
            given = torch.from_numpy(ids[start : start + batch].astype(np.int64)).to(device)
            found.append(module.sentences(given).float().cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, module.config.dim), np.float32)


def encode_stream(state: Fitted, documents: Iterable[Document], options: BlockOptions, batch: int) -> Iterator[Read]:
    """Each document with its vectors, in order; blocks of several short documents go through the model together.

    Memory: the documents of one batch of blocks, or one long document.
    """
    waiting: list[tuple[Document, Blocks]] = []
    held = 0
    for document in documents:
        blocks = cut(document, state.vocabulary, options, state.encoder)
        waiting.append((document, blocks))
        held += len(blocks.ids)
        if held >= batch:
            yield from _encoded(state.module, waiting, batch)
            waiting, held = [], 0
    if waiting:
        yield from _encoded(state.module, waiting, batch)


@torch.inference_mode()
def _encoded(module: Smith, waiting: Sequence[tuple[Document, Blocks]], batch: int) -> Iterator[Read]:
    device = next(module.parameters()).device
    every = block_vectors(module, np.concatenate([blocks.ids for _, blocks in waiting]), batch)
    ends = np.cumsum([len(blocks.ids) for _, blocks in waiting])[:-1]
    for (document, blocks), vectors in zip(waiting, np.split(every, ends), strict=True):
        rows = torch.from_numpy(np.ascontiguousarray(vectors))[None].to(device)
        mask = torch.ones(rows.shape[:2], dtype=torch.bool, device=device)
        words = module.word_vectors(torch.from_numpy(blocks.ids.astype(np.int64))[None].to(device))
        vector = module.document_vectors(rows, mask, words=words)[0].float().cpu().numpy()
        yield Read(document, blocks, _passage_vectors(module, blocks.ids, vectors), vector)


def _passage_vectors(module: Smith, ids: NDArray[np.int32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What passages are compared by: block vectors (B, C), the rarer words of each block beside them, or these alone.

    Blocks of a few signs are left out where a document has others.

    An encoder of ours that has read few documents holds all blocks for nearly alike: its words tell them apart. What
    all word embeddings have in common is taken off before.
    """
    telling = np.array([len(np.unique(row)) >= _TELLING for row in ids], bool)
    if telling.any():  # a bracket alone answers every bracket: rows of zeros are never compared
        vectors = np.where(telling[:, None], vectors, np.float32(0))
    if not module.config.words or not len(ids):
        return vectors
    table = module.sentences.word_embedding.weight
    table = table - table.mean(0)
    found = []
    for start in range(0, len(ids), _WORDS_AT_ONCE):
        given = torch.from_numpy(ids[start : start + _WORDS_AT_ONCE].astype(np.int64)).to(table.device)
        found.append(module.beside.words(given[:, None], table).float().cpu().numpy())
    words = np.concatenate(found)
    if telling.any():
        words[~telling] = 0
    if module.config.pooling == "cls":
        return words
    return np.concatenate([vectors, words], 1) * np.float32(0.5**0.5)


def total_counts(counts: Iterable[BlockCounts]) -> tuple[dict[str, int], list[str]]:
    """Sums over documents, and what must be said of them."""
    total: dict[str, int] = {}
    documents = 0
    for one in counts:
        documents += 1
        for name, value in dataclasses.asdict(one).items():
            total[name] = total.get(name, 0) + value
    notes = []
    if total.get("sentences_continued"):
        notes.append(f"{total['sentences_continued']:,} sentences are longer than a block and go on in the next one")
    if total.get("sentences_cut"):
        notes.append(f"{total['sentences_cut']:,} sentences are longer than a block and lost their end")
    if total.get("unknown"):
        notes.append(f"{total['unknown']:,} of {total['tokens']:,} tokens are no word of the vocabulary")
    if total.get("tokens_dropped"):
        notes.append(
            f"truncated: {total['tokens_dropped']:,} tokens, {total['sentences_dropped']:,} whole sentences and "
            f"{total['blocks_dropped']:,} blocks of {documents:,} documents were not read"
        )
    return total, notes
