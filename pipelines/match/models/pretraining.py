"""Learning from text alone: masked words of a block, and masked blocks of a document among the other masked ones.

Source: SMITH (arXiv 2004.12297), section 4.5, and the released code (google-research/smith). The heads, with the
variables of the released checkpoint (a kernel is the transpose of a weight):

    word_transform.{dense,norm}, word_bias     cls/word_predictions/transform/{dense,LayerNorm}, output_bias
    block_transform.{dense,norm}, block_bias   cls/sent_predictions/transform/{dense,LayerNorm}, output_bias
    block_mask                                 mask_sent_in_doc/sentence_mask_embedding
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipelines.errors import ConfigError
from pipelines.match.models.encoder import INIT_STD, initialise_linear
from pipelines.match.models.smith import Smith, SmithConfig

__all__ = [
    "MaskedBlocks",
    "MaskedWords",
    "PretrainingHeads",
    "block_loss",
    "mask_blocks",
    "mask_words",
    "pretraining_losses",
    "word_loss",
]

_TINY = 1e-5  # beside the weights' sum, as released
_ROWS = 2048  # words whose scores over the whole vocabulary are held at once


class MaskedWords(NamedTuple):
    """Ids (..., L) with some replaced, and which ones (..., L): those are to be told from the rest."""

    ids: Tensor
    picked: Tensor


class MaskedBlocks(NamedTuple):
    """Places (N, m) of the masked blocks of each document, ascending, and their weights (N, m): 0 at padding."""

    places: Tensor
    weights: Tensor


def mask_words(
    ids: Tensor,
    mask_id: int,
    vocabulary: int,
    generator: torch.Generator,
    *,
    share: float = 0.15,
    most: int = 5,
    kept: Sequence[int] = (2, 3),
) -> MaskedWords:
    """Pick words of each block; 8 of 10 become the mask, 1 of 10 any word, 1 of 10 stays.

    A block of n tokens, marks among them, has min(most, max(1, round(share n))) picked words, all of its words where it
    has fewer. Source: the released pre-processing of SMITH; BERT (arXiv 1810.04805), section 3.1. O(M L log L).

    Args:
        ids: (..., L) blocks, 0 = padding.
        mask_id: id of the mask.
        vocabulary: words V; a random word is any but padding.
        generator: where the draws come from; its device may be another one than that of ids.
        share: of a block's tokens that are picked.
        most: picked words of a block at most.
        kept: ids that are never picked: begin and end.

    Example:
        >>> ids = torch.tensor([[2, 7, 8, 9, 3, 3, 0, 0]])
        >>> masked = mask_words(ids, 4, 50, torch.Generator().manual_seed(0))
        >>> int(masked.picked.sum()), bool((masked.ids == ids)[~masked.picked].all())
        (1, True)
    """
    words = (ids != 0) & ~torch.isin(ids, torch.tensor([*kept], device=ids.device, dtype=ids.dtype))
    wanted = ((ids != 0).sum(-1).double() * share).round().clamp(1, most)
    order = torch.where(words, _uniform(ids.shape, generator, ids.device), 2.0)
    rank = order.argsort(-1).argsort(-1)
    picked = words & (rank < wanted.unsqueeze(-1))
    kind = _uniform(ids.shape, generator, ids.device)
    drawn = torch.randint(1, vocabulary, ids.shape, generator=generator, device=generator.device).to(ids)
    changed = torch.where(kind < 0.8, torch.full_like(ids, mask_id), torch.where(kind < 0.9, drawn, ids))
    return MaskedWords(torch.where(picked, changed, ids), picked)


def mask_blocks(mask: Tensor, count: int, generator: torch.Generator, *, released: bool = False) -> MaskedBlocks:
    """Draw m = max(2, count) blocks of each document, the valid ones first; all where there are fewer.

    Source: SMITH (arXiv 2004.12297), section 4.5, and the released code, which draws from all places, padding too.

    Args:
        mask: (N, B) valid blocks.
        count: blocks of a document; two at least, or a lone block would have nothing to be told from.
        generator: where the draws come from.
        released: draw padding as readily as valid blocks.

    Example:
        >>> mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
        >>> places, weights = mask_blocks(mask, 2, torch.Generator().manual_seed(0))
        >>> places.shape, weights.sum(1).tolist()
        (torch.Size([2, 2]), [2.0, 1.0])
    """
    draws = _uniform(mask.shape, generator, mask.device)
    if not released:
        draws = draws + (~mask).to(draws)
    places = draws.argsort(-1)[:, : max(2, count)].sort(-1).values
    return MaskedBlocks(places, mask.gather(1, places).to(draws.dtype))


class _Transform(nn.Module):
    """LayerNorm(gelu(W x + b))."""

    def __init__(self, dim: int, gelu: str, eps: float) -> None:
        super().__init__()
        self.dense, self.norm, self.gelu = nn.Linear(dim, dim), nn.LayerNorm(dim, eps=eps), gelu
        initialise_linear(self.dense)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(x), approximate=self.gelu))


class PretrainingHeads(nn.Module):
    """What pre-training needs beside the model, and matching does not.

    Args:
        config: of the model.
        mask_id: id of the mask in the vocabulary.
        kept: ids of begin and end, which are never masked.
        block_bias: entries of a bias of the blocks' scores, one a masked block of a step, as released; 0 = none.

    Example:
        >>> heads = PretrainingHeads(SmithConfig(50, dim=16, heads=2))
        >>> heads.block_mask.shape, heads.block_bias
        (torch.Size([16]), None)
    """

    def __init__(
        self, config: SmithConfig, *, mask_id: int = 4, kept: Sequence[int] = (2, 3), block_bias: int = 0
    ) -> None:
        super().__init__()
        self.mask_id, self.kept = mask_id, tuple(kept)
        self.word_transform = _Transform(config.dim, config.gelu, config.eps)
        self.word_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.block_transform = _Transform(config.dim, config.gelu, config.eps)
        self.block_mask = nn.Parameter(torch.empty(config.dim))
        nn.init.trunc_normal_(self.block_mask, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        self.block_bias = nn.Parameter(torch.zeros(block_bias)) if block_bias else None


def pretraining_losses(
    model: Smith, heads: PretrainingHeads, ids: Tensor, generator: torch.Generator, *, masked_blocks: int = 2
) -> dict[str, Tensor]:
    """One step on documents without labels: ``words`` and, with ``masked_blocks``, ``blocks``.

    As released, one pass of the sentence encoder over the blocks with masked words serves both losses, and gradients
    reach the blocks that are to be found as well as the answers. What is masked here never enters matching.
    O(pass) + O(picked V) + O((N m)^2 C).

    Args:
        model: what learns.
        heads: of the same configuration.
        ids: (N, B, L), 0 = padding.
        generator: of the masks.
        masked_blocks: of each document; 0 leaves ``blocks`` out.

    Example:
        >>> config = SmithConfig(50, block=8, dim=16, heads=2, hidden=32, sentence_layers=1, document_layers=1)
        >>> ids = torch.randint(5, 50, (3, 4, 8))
        >>> losses = pretraining_losses(Smith(config), PretrainingHeads(config), ids, torch.Generator().manual_seed(0))
        >>> sorted(losses), 3.7 < losses["words"].item() < 4.2
        (['blocks', 'words'], True)
    """
    released = model.config.released
    flat, mask = ids.flatten(0, 1), (ids != 0).any(-1)
    rows = mask.flatten().nonzero().squeeze(1)
    if not len(rows):
        nothing = heads.word_bias.sum() * 0.0
        return {"words": nothing, "blocks": nothing} if masked_blocks else {"words": nothing}
    given = flat[rows]
    masked = mask_words(given, heads.mask_id, model.config.vocabulary, generator, kept=heads.kept)
    hidden = model.sentences.tokens(masked.ids, given != 0)
    group = (rows % ids.shape[1]).unsqueeze(1).expand_as(given)[masked.picked] if released else None
    table = model.sentences.word_embedding.weight
    found = {"words": word_loss(heads, hidden[masked.picked], given[masked.picked], table, group=group)}
    if masked_blocks:
        blocks = model.place_blocks(model.sentences.pool(hidden, given != 0), rows, ids)
        found["blocks"] = _masked_blocks_loss(model, heads, blocks, mask, masked_blocks, generator)
    return found


def word_loss(
    heads: PretrainingHeads, hidden: Tensor, labels: Tensor, table: Tensor, *, group: Tensor | None = None
) -> Tensor:
    """Mean cross entropy of picked words: scores = LayerNorm(gelu(W h + b)) E^T + bias, E the word embedding.

    Args:
        heads: the word head.
        hidden: (K, C) last rows at the picked places.
        labels: (K,) the words that stood there.
        table: (V, C) word embedding.
        group: (K,) block number of each word: as released, the sum of the means over words of equal number.

    Returns:
        Scalar: sum / (K + 1e-5), 0 for K = 0. At most 2,048 rows of V scores are held; more are computed twice.
    """

    def losses(rows: Tensor, wanted: Tensor) -> Tensor:
        scores = F.linear(heads.word_transform(rows), table, heads.word_bias)
        return F.cross_entropy(scores, wanted, reduction="none")

    labels = labels.long()
    if len(hidden) <= _ROWS:
        each = losses(hidden, labels)
    else:
        pieces = zip(hidden.split(_ROWS), labels.split(_ROWS), strict=True)
        each = torch.cat([checkpoint(losses, rows, wanted, use_reentrant=False) for rows, wanted in pieces])
    if group is None:
        return each.sum() / (len(each) + _TINY)
    groups = int(group.max()) + 1 if len(group) else 1
    total = each.new_zeros(groups).index_add(0, group, each)
    return (total / (torch.bincount(group, minlength=groups).to(each) + _TINY)).sum()


def block_loss(
    heads: PretrainingHeads, outputs: Tensor, targets: Tensor, weights: Tensor, *, released: bool = False
) -> Tensor:
    """Mean cross entropy of masked blocks, each to be told from the step's other masked blocks.

    scores = LayerNorm(gelu(W X + b)) T^T + bias, the right answer of row k is column k. Padding is no answer; as
    released it is a column like others. Source: SMITH (arXiv 2004.12297), equation 7 and its text.

    Args:
        heads: the block head.
        outputs: (K, C) rows of the document encoder at the masked places.
        targets: (K, C) the blocks that stood there.
        weights: (K,) 1, or 0 at padding.
        released: keep padding as wrong answers.

    Returns:
        Scalar: sum / (sum of the weights + 1e-5).

    Raises:
        ConfigError: more rows than the released bias has entries.
    """
    if not released:
        valid = weights.nonzero().squeeze(1)
        outputs, targets, weights = outputs[valid], targets[valid], weights[valid]
    scores = heads.block_transform(outputs) @ targets.to(outputs.dtype).T
    if heads.block_bias is not None:
        scores = scores + _bias(heads.block_bias, len(scores))
    each = F.cross_entropy(scores, torch.arange(len(scores), device=scores.device), reduction="none")
    return (each * weights).sum() / (weights.sum() + _TINY)


def _bias(bias: Tensor, rows: int) -> Tensor:
    if rows > len(bias):
        raise ConfigError("more masked blocks than bias entries", where="block_bias", found=len(bias), expected=rows)
    return bias[:rows]


def _masked_blocks_loss(
    model: Smith, heads: PretrainingHeads, blocks: Tensor, mask: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    released = model.config.released
    places, weights = mask_blocks(mask, count, generator, released=released)
    hide = torch.zeros_like(mask).scatter(1, places, True).unsqueeze(-1)
    outputs = model.block_outputs(torch.where(hide, heads.block_mask.to(blocks.dtype), blocks), mask)
    index = places.unsqueeze(-1).expand(-1, -1, blocks.shape[2])
    answers, wanted = outputs.gather(1, index).flatten(0, 1), blocks.gather(1, index).flatten(0, 1)
    return block_loss(heads, answers, wanted, weights.flatten(), released=released)


def _uniform(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(device)
