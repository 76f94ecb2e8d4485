"""What a document's words say beside its encoders: blocks and words averaged, and one learned map over both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipelines.match.models.encoder import unit_rows

__all__ = ["WordsBeside", "latent_words", "rarity"]


def rarity(ids: Sequence[Tensor], vocabulary: int, marks: Sequence[int]) -> Tensor:
    """ln((1 + N) / (1 + documents with the word)) for each word (V,) float32: 0 where all have it, and for marks.

    Args:
        ids: of N documents, any shape.
        vocabulary: words V.
        marks: ids that are no words.

    Source: the inverse document frequency (Spärck Jones 1972), smoothed. O(tokens).

    Example:
        >>> rarity([torch.tensor([5, 6]), torch.tensor([[5], [0]])], 7, (0, 1)).round(decimals=2).tolist()[4:]
        [1.100000023841858, 0.0, 0.4099999964237213]
    """
    seen = torch.zeros(vocabulary)
    for one in ids:
        seen[torch.as_tensor(one).unique().long()] += 1
    weights = torch.log((1 + len(ids)) / (1 + seen))
    weights[list(marks)] = 0.0
    return weights


def latent_words(ids: Sequence[Tensor], weights: Tensor, dim: int, seed: int) -> Tensor:
    """Each word's place (V, C) in the latent semantic space of documents, as large as a random start would be.

    Rows of documents, (1 + ln count) times the rarity of each word and of length 1, have right singular vectors; the
    sum of a document's words, so weighted, is its place in latent semantic analysis. Words that no document has, and
    channels beyond the rank, get noise.

    Args:
        ids: of N documents, any shape.
        weights: rarity of the words (V,).
        dim: channels C.
        seed: of the noise and the solver.

    Source: Deerwester et al. 1990; truncated SVD by Halko, Martinsson and Tropp 2011. O(words C) a pass.

    Example:
        >>> latent_words([torch.tensor([1, 2]), torch.tensor([2, 3])], torch.ones(4), 2, seed=0).shape
        torch.Size([4, 2])
    """
    import numpy as np
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd

    found = [np.unique(np.asarray(one), return_counts=True) for one in ids]
    columns = np.concatenate([words for words, _ in found]).astype(np.int64)
    counts = np.concatenate([1 + np.log(count) for _, count in found])
    starts = np.cumsum([0, *(len(words) for words, _ in found)])
    table = csr_matrix((counts * weights.numpy()[columns], columns, starts), shape=(len(ids), len(weights)))
    norms = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
    table = csr_matrix(table.multiply(1 / np.maximum(norms, 1e-12)[:, None]))
    rank = min(dim, len(ids) - 1, len(weights) - 1)
    generator = torch.Generator().manual_seed(seed)
    start = 0.02 * torch.randn(len(weights), dim, generator=generator)
    if rank < 1:
        return start
    _, _, vectors = randomized_svd(table, n_components=rank, random_state=seed)
    known = torch.from_numpy(np.ascontiguousarray(vectors.T)).float()
    seen = known.abs().amax(1) > 0
    scale = 0.02 / known[seen].square().mean().sqrt()
    start[seen, :rank] = known[seen] * scale
    return start


class WordsBeside(nn.Module):
    """[sqrt(1 - g) unit(P z) ; sqrt(g) e] of length 1, with z = [mean of the blocks ; words] and a learned share g.

    The words are the encoder's own word embeddings, each weighted by (1 + ln count) times its rarity. P begins as the
    identity and is pulled back to it, so that a model that has learned nothing compares means of blocks and words.
    Ours: SMITH's vector e loses names that a sentence encoder blurs, and a few thousand matches cannot teach them.

    Args:
        vocabulary: words V.
        dim: channels C of blocks and word embeddings.
        share: of e in the beginning.
        pull: weight of the sum of squares of P minus the identity in the loss.

    Example:
        >>> beside = WordsBeside(7, 4)
        >>> beside(torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 3)).shape
        torch.Size([2, 11])
    """

    def __init__(self, vocabulary: int, dim: int, *, share: float = 0.2, pull: float = 0.01) -> None:
        super().__init__()
        self.register_buffer("rarity", torch.ones(vocabulary))
        self.change = nn.Parameter(torch.zeros(2 * dim, 2 * dim))
        self.share = nn.Parameter(torch.logit(torch.tensor(share)))
        self.pull = pull

    def words(self, ids: Tensor, table: Tensor) -> Tensor:
        """Ids (N, B, L), 0 = padding, and word embeddings (V, C) to unit rows (N, C). O(N V C)."""
        flat = ids.flatten(1)
        counts = table.new_zeros(flat.shape[0], table.shape[0])  # len() would fix the batch of an export
        counts = counts.scatter_add(1, flat, torch.ones_like(flat, dtype=table.dtype))
        weights = torch.where(counts > 0, 1 + counts.clamp(min=1).log(), 0.0) * self.rarity
        return unit_rows(weights @ table)

    def forward(self, mean: Tensor, words: Tensor, vector: Tensor | None) -> Tensor:
        """Means of blocks (N, C), words (N, C) and the encoders' unit vectors (N, D) to unit rows (N, 2 C + D)."""
        both = torch.cat([unit_rows(mean), words], dim=-1) * 0.5**0.5
        own = unit_rows(both + both @ self.change)
        if vector is None:
            return own
        share = self.share.sigmoid()
        return torch.cat([own * (1 - share).sqrt(), vector * share.sqrt()], dim=-1)

    def penalty(self) -> Tensor:
        """What the loss adds for the distance of P from the identity."""
        return self.pull * self.change.square().sum()
