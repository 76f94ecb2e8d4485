"""SMITH: an encoder reads each sentence block, a second one reads the blocks' vectors, and two documents are compared.

Source: Beyond 512 Tokens, SMITH (arXiv 2004.12297), section 4, and the released code (google-research/smith), whose
behaviour ``SmithConfig.as_released`` restores. Parameters, with the variables of the released checkpoint (a kernel is
the transpose of a weight; LayerNorm has gamma = weight, beta = bias):

    sentences.{word,position,type}_embedding.weight  bert/embeddings/{word,position,token_type}_embeddings
    sentences.norm                                   bert/embeddings/LayerNorm
    sentences.encoder.layers.i.                      bert/encoder/layer_i/
        mixer.{query,key,value}_projection               attention/self/{query,key,value}
        mixer.out_projection, mixer_norm                 attention/output/{dense,LayerNorm}
        expand                                           intermediate/dense
        contract, output_norm                            output/{dense,LayerNorm}
    sentences.head.pooler, .projection               bert/pooler/dense, seq_rep_from_bert_sent_dense/dense
    document_positions.weight, document_norm         doc_bert/doc_embeddings/{position_embeddings,LayerNorm}
    documents.layers.i.                              doc_bert/doc_encoder/layer_i/ as above
    document_head.pooler                             doc_bert/doc_pooler/dense
    document_head.projection, right_projection       seq_rep_from_bert_doc_dense/{dense,dense_1}
    combination.projection, .context                 combine_reps_attention/{dense,context_vector}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import ConfigError
from pipelines.match.models.encoder import (
    INIT_STD,
    Encoder,
    SentenceEncoder,
    VectorHead,
    initialise_linear,
    unit_rows,
)
from pipelines.match.models.words import WordsBeside

__all__ = ["COMBINATIONS", "Smith", "SmithConfig", "matching_loss"]

COMBINATIONS = ("normal", "sum_concat", "mean_concat", "attention")
_CHOICES = {
    "pooling": ("cls", "mean"),
    "document_pooling": ("first", "mean"),
    "combine": COMBINATIONS,
    "activation": ("none", "relu"),
    "gelu": ("tanh", "none"),
}
_AMPLIFIER = 6.0  # of the cosine in the released code
_CHUNK = 512  # blocks at once where no gradient is wanted
_PADDING_SCORE = -10_000.0  # what the released code adds to the score of a padding key


@dataclass(frozen=True)
class SmithConfig:
    """Sizes and choices of a ``Smith``; the defaults are the paper's sizes in the well-posed form.

    Attributes:
        vocabulary: words V; id 0 is padding.
        block: tokens L of a sentence block.
        blocks: blocks that the document encoder sees at once; longer documents are read in such windows.
        sentence_layers: layers of the sentence encoder.
        document_layers: layers of the document encoder; 0 = a document is the mean of its blocks.
        dim: channels C of tokens, blocks and documents.
        heads: heads H of the sentence encoder.
        hidden: inner width of its feed-forward parts.
        document_heads: heads of the document encoder, None = as many.
        document_hidden: inner width of its feed-forward parts, None = as wide.
        sentence_positions: learned places of tokens.
        document_positions: learned places of blocks.
        types: rows of the type embedding, of which the first is used.
        dropout: while training.
        attention: mechanism of the sentence encoder.
        document_attention: mechanism of the document encoder, None = the same.
        pooling: what is read of a block: "cls" (SMITH) or "mean" (sentence-transformers, without a head).
        document_pooling: what is read of a document: "first" (SMITH: the first block's row) or "mean".
        combine: "normal" = the document encoder's vector e; "sum_concat", "mean_concat", "attention" = the blocks' sum,
            mean or attention-weighted sum beside e.
        combine_size: channels of the attention of "attention".
        activation: before both L2 norms: "none", or "relu" as released.
        gelu: "tanh" (the approximation, as released) or "none" (exact).
        eps: of the LayerNorms.
        learned_scale: logit = exp(log_scale) cosine + bias, learned from 6 and -3; otherwise 6 cosine, as released.
        released: as released: padding blocks are encoded and enter the combinations, which are not normalised.
        words: whether the mean of the blocks and the rarer words stand beside the encoders' vector (``WordsBeside``).
        shared_heads: whether both documents of a pair have one document projection; the released graph has two.

    Raises:
        ConfigError: a size or choice that cannot be.

    Example:
        >>> SmithConfig(vocabulary=100, dim=16, heads=2).vector_size
        16
    """

    vocabulary: int
    block: int = 32
    blocks: int = 64
    sentence_layers: int = 4
    document_layers: int = 3
    dim: int = 256
    heads: int = 4
    hidden: int = 512
    document_heads: int | None = None
    document_hidden: int | None = None
    sentence_positions: int = 256
    document_positions: int = 128
    types: int = 2
    dropout: float = 0.1
    attention: str = "softmax"
    document_attention: str | None = None
    pooling: str = "cls"
    document_pooling: str = "first"
    combine: str = "normal"
    combine_size: int = 256
    activation: str = "none"
    gelu: str = "tanh"
    eps: float = 1e-12
    learned_scale: bool = True
    released: bool = False
    words: bool = False
    shared_heads: bool = True

    def __post_init__(self) -> None:
        """Refuse what no model can be built from."""
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                expected = " or ".join(known)
                raise ConfigError("there is no such choice", where=name, found=getattr(self, name), expected=expected)
        least = {"document_layers": 0, "sentence_layers": 0, "vocabulary": 2, "block": 4}
        whole = (
            "blocks",
            "dim",
            "heads",
            "hidden",
            "sentence_positions",
            "document_positions",
            "types",
            "combine_size",
        )
        for name in (*least, *whole):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least.get(name, 1):
                expected = f"a whole number from {least.get(name, 1)}"
                raise ConfigError("out of range", where=name, found=value, expected=expected)
        for name, table in (("block", "sentence_positions"), ("blocks", "document_positions")):
            if getattr(self, name) > getattr(self, table):
                raise ConfigError(
                    f"more than there are {table}", where=name, found=getattr(self, name), expected=getattr(self, table)
                )
        if self.released and (self.pooling, self.document_pooling) != ("cls", "first"):
            raise ConfigError("the released code reads first rows", where="pooling", found=self.pooling, expected="cls")
        if self.released and self.words:
            raise ConfigError("the released code reads no words beside", where="words", found=True, expected=False)
        if self.released and not self.document_layers:
            raise ConfigError("the released code has a document encoder", where="document_layers", found=0)

    @classmethod
    def as_released(cls, vocabulary: int = 30_522, **changes: Any) -> Self:
        """The released code's behaviour: ReLU before the norms, logit 6 cosine, padding blocks in the combinations.

        Example:
            >>> SmithConfig.as_released().activation
            'relu'
        """
        released = {"activation": "relu", "learned_scale": False, "released": True, "shared_heads": False}
        return cls(vocabulary, **(released | changes))

    @property
    def vector_size(self) -> int:
        """Channels D of a document's vector."""
        own = self.dim if self.combine == "normal" else 2 * self.dim
        if not self.document_layers:
            own = 0 if self.words else self.dim
        return own + 2 * self.dim if self.words else own


class BlockAttention(nn.Module):
    """sum_j a_j s_j with a = softmax_j(tanh(W s_j + b) . c); dropout while training. O(B C size).

    Source: SMITH (arXiv 2004.12297), section 4.3, combination "attention".

    Example:
        >>> BlockAttention(8, 4)(torch.randn(2, 3, 8), None).shape
        torch.Size([2, 8])
    """

    def __init__(self, dim: int, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.projection, self.dropout = nn.Linear(dim, size), nn.Dropout(dropout)
        self.context = nn.Parameter(torch.empty(size).uniform_(-math.sqrt(3 / size), math.sqrt(3 / size)))
        initialise_linear(self.projection)

    def forward(self, blocks: Tensor, mask: Tensor | None) -> Tensor:
        """Blocks (N, B, C) to (N, C); padding, where mask (N, B) is False, gets no weight."""
        scores = self.projection(blocks).tanh() @ self.context
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return self.dropout((scores.softmax(1).unsqueeze(-1) * blocks).sum(1))


class Smith(nn.Module):
    """The siamese two-level encoder: ids of documents to vectors, vectors of pairs to logits.

    In the well-posed form a document's vector depends on its valid blocks alone: neither padding nor the other
    documents of the batch change it, padding blocks cost nothing, and it has length 1. A document of more than
    ``config.blocks`` blocks is read in consecutive windows; its vector is the mean of the windows' vectors, weighted by
    their valid blocks, with length 1. A document without a valid block has a vector of zeros.
    O(B (L^2 C + L C hidden) + B min(B, blocks) C) a document of B blocks: linear in B.

    Args:
        config: sizes and choices.

    Raises:
        ConfigError: a mechanism that does not fit.

    Example:
        >>> model = Smith(SmithConfig(50, block=8, dim=16, heads=2, hidden=32, sentence_layers=1, document_layers=1))
        >>> ids = torch.randint(1, 50, (3, 5, 8))
        >>> model.encode(ids).shape, model(ids, ids).shape
        (torch.Size([3, 16]), torch.Size([3]))
    """

    def __init__(self, config: SmithConfig) -> None:
        super().__init__()
        self.config = c = config
        self.sentences = SentenceEncoder(
            c.vocabulary,
            c.dim,
            layers=c.sentence_layers,
            heads=c.heads,
            hidden=c.hidden,
            positions=c.sentence_positions,
            block=c.block,
            types=c.types,
            attention=c.attention,
            dropout=c.dropout,
            pooling=c.pooling,
            activation=c.activation,
            gelu=c.gelu,
            eps=c.eps,
        )
        if c.document_layers:
            self._build_document_level(c)
        if c.words:
            self.beside = WordsBeside(c.vocabulary, c.dim)
        if c.learned_scale:
            self.log_scale = nn.Parameter(torch.tensor(math.log(_AMPLIFIER)))
            self.bias = nn.Parameter(torch.tensor(-_AMPLIFIER / 2))

    def _build_document_level(self, c: SmithConfig) -> None:
        self.document_positions = nn.Embedding(c.document_positions, c.dim)
        nn.init.trunc_normal_(self.document_positions.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        self.document_norm, self.document_dropout = nn.LayerNorm(c.dim, eps=c.eps), nn.Dropout(c.dropout)
        self.documents = Encoder(
            c.document_layers,
            c.dim,
            c.document_heads or c.heads,
            c.document_hidden or c.hidden,
            length=c.blocks,
            attention=c.document_attention or c.attention,
            dropout=c.dropout,
            gelu=c.gelu,
            eps=c.eps,
        )
        self.document_head = VectorHead(c.dim, c.activation)
        if not c.shared_heads:
            self.right_projection = nn.Linear(c.dim, c.dim)
            nn.init.xavier_uniform_(self.right_projection.weight)
            nn.init.zeros_(self.right_projection.bias)
        if c.combine == "attention":
            self.combination = BlockAttention(c.dim, c.combine_size, c.dropout)

    def block_vectors(self, ids: Tensor, *, chunk: int = _CHUNK) -> Tensor:
        """Sentence level: ids (N, B, L) to unit vectors (N, B, C); padding blocks give zeros and cost nothing.

        Without gradients ``chunk`` blocks are read at a time.

        Raises:
            ConfigError: ids of another shape, or blocks longer than the model has places.
        """
        self._check_ids(ids)
        flat = ids.flatten(0, 1)
        if torch.compiler.is_exporting():  # rows cannot be picked there: all are computed, and padding put to zero
            mask = flat != 0
            return torch.where(mask.any(1, keepdim=True), self.sentences(flat, _first_valid(mask)), 0.0).unflatten(
                0, ids.shape[:2]
            )
        rows = (flat != 0).any(1).nonzero().squeeze(1)
        if not len(rows):
            return self.place_blocks(self.sentences.word_embedding.weight.new_zeros(0, self.config.dim), rows, ids)
        pieces = rows.split(len(rows) if torch.is_grad_enabled() else chunk)
        return self.place_blocks(torch.cat([self.sentences(self._trimmed(flat[piece])) for piece in pieces]), rows, ids)

    def place_blocks(self, vectors: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
        """Vectors (M, C) of the valid blocks at ``rows`` (M,) of the flat blocks of ids (N, B, L): (N, B, C)."""
        filler = self._padding_vector(ids.shape[2]) if self.config.released else vectors.new_zeros(1, self.config.dim)
        table = filler.to(vectors.dtype).expand(ids.shape[0] * ids.shape[1], -1)
        return table.index_copy(0, rows, vectors).unflatten(0, ids.shape[:2])

    def block_outputs(self, blocks: Tensor, mask: Tensor) -> Tensor:
        """Blocks (N, B, C), valid where mask (N, B), as the document encoder sees them in context: (N, B, C).

        Raises:
            ConfigError: a model without a document encoder.
        """
        if not self.config.document_layers:
            raise ConfigError("there is no document encoder", where="document_layers", found=0, expected="from 1")
        windows, window_mask = self._windows(blocks, mask)
        rows = window_mask.any(1).nonzero().squeeze(1)
        table = torch.zeros_like(windows)
        if len(rows):
            outputs = self._contextual(windows[rows], window_mask[rows])
            table = table.to(outputs.dtype).index_copy(0, rows, outputs)
        outputs = table.reshape(blocks.shape[0], -1, blocks.shape[2])[:, : blocks.shape[1]]
        return torch.where(mask.unsqueeze(-1), outputs, 0.0)

    def word_vectors(self, ids: Tensor) -> Tensor | None:
        """What the words of documents ids (N, B, L) say: (N, C); None for a model that reads none beside."""
        return self.beside.words(ids, self.sentences.word_embedding.weight) if self.config.words else None

    def penalty(self) -> Tensor | float:
        """What the loss of matching adds for weights that are held near their beginning."""
        return self.beside.penalty() if self.config.words else 0.0

    def document_vectors(
        self, blocks: Tensor, mask: Tensor, *, words: Tensor | None = None, right: bool = False
    ) -> Tensor:
        """Document level: blocks (N, B, C), valid where mask (N, B), to vectors (N, D).

        Args:
            blocks: what ``block_vectors`` gives.
            mask: True = valid; a document's valid blocks come first.
            words: what ``word_vectors`` gives (N, C), for a model that reads words beside.
            right: the second document of a pair; only models without ``shared_heads`` tell them apart.

        Raises:
            ConfigError: as released: more blocks than ``document_positions``; words missing.
        """
        if not self.config.words:
            return self._encoder_vectors(blocks, mask, right)
        if words is None:
            raise ConfigError("this model reads words beside the blocks", where="words", found=None, expected="(N, C)")
        own = self._encoder_vectors(blocks, mask, right) if self.config.document_layers else None
        return self.beside(_mean(blocks, mask), words, own)

    def _encoder_vectors(self, blocks: Tensor, mask: Tensor, right: bool) -> Tensor:
        """The document encoder's part of the vectors."""
        if not self.config.document_layers:
            return unit_rows(_mean(blocks, mask))
        size = self.config.dim if self.config.combine == "normal" else 2 * self.config.dim
        windows, window_mask = self._windows(blocks, mask)
        if torch.compiler.is_exporting():
            vectors = self._window_vectors(windows, _first_valid(window_mask), right)
            table = torch.where(window_mask.any(1, keepdim=True), vectors, 0.0)
        else:
            rows = window_mask.any(1).nonzero().squeeze(1)
            if not len(rows):
                return blocks.new_zeros(blocks.shape[0], size)
            vectors = self._window_vectors(windows[rows], window_mask[rows], right)
            table = vectors.new_zeros(len(windows), size).index_copy(0, rows, vectors)
        table = table.unflatten(0, (blocks.shape[0], -1))
        if table.shape[1] == 1:
            return table.squeeze(1)
        weight = window_mask.sum(1).unflatten(0, table.shape[:2]).unsqueeze(-1)
        return unit_rows((table * weight).sum(1))

    def encode(self, ids: Tensor, *, right: bool = False) -> Tensor:
        """Ids (N, B, L), 0 = padding, to document vectors (N, D)."""
        words = self.word_vectors(ids)
        return self.document_vectors(self.block_vectors(ids), (ids != 0).any(-1), words=words, right=right)

    def logits(self, left: Tensor, right: Tensor) -> Tensor:
        """Document vectors (P, D) of both sides to logits (P,) of their matching."""
        cosine = (left * right).sum(-1)
        return cosine * self.log_scale.exp() + self.bias if self.config.learned_scale else cosine * _AMPLIFIER

    def forward(self, left_ids: Tensor, right_ids: Tensor) -> Tensor:
        """Ids (P, B, L) of both documents of P pairs to logits (P,); both may have their own number of blocks."""
        return self.logits(self.encode(left_ids), self.encode(right_ids, right=True))

    def _check_ids(self, ids: Tensor) -> None:
        fixed = self.sentences.encoder.fixed_length
        longest = fixed or self.config.sentence_positions
        if ids.dim() != 3 or not 0 < ids.shape[2] <= longest or (fixed and ids.shape[2] != fixed):
            raise ConfigError(
                "ids of another shape",
                where="ids",
                found=tuple(ids.shape),
                expected=f"(documents, blocks, tokens {'=' if fixed else 'up to'} {longest})",
            )

    def _trimmed(self, ids: Tensor) -> Tensor:
        """Without the columns that are padding in every block, where the mechanism does not need them."""
        if self.sentences.encoder.fixed_length:
            return ids
        return ids[:, : int((ids != 0).any(0).nonzero().max()) + 1]

    def _padding_vector(self, length: int) -> Tensor:
        """What the released code makes of a block of padding: its keys are all lowered alike, which masks none."""
        ids = torch.zeros(1, length, dtype=torch.long, device=self.sentences.word_embedding.weight.device)
        hidden = self.sentences.encoder.unmasked(self.sentences.embed(ids), _PADDING_SCORE)
        return self.sentences.pool(hidden, ids == 0)

    def _windows(self, blocks: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (N W, P, C) of the blocks and their masks (N W, P)."""
        count, size = blocks.shape[1], self.config.blocks
        if self.config.released:
            if count > self.config.document_positions:
                raise ConfigError(
                    "more blocks than the released code takes",
                    where="blocks",
                    found=count,
                    expected=f"up to {self.config.document_positions}",
                    cure="truncate the documents, or load the weights into a model that is not as released",
                )
            return blocks, mask
        if count <= size and self.documents.fixed_length is None:
            return blocks, mask
        more = -count % size
        blocks, mask = F.pad(blocks, (0, 0, 0, more)), F.pad(mask, (0, more))
        return blocks.reshape(-1, size, blocks.shape[2]), mask.reshape(-1, size)

    def _contextual(self, blocks: Tensor, mask: Tensor) -> Tensor:
        places = self.document_positions.weight[: blocks.shape[1]]
        return self.documents(self.document_dropout(self.document_norm(blocks + places)), mask)

    def _window_vectors(self, blocks: Tensor, mask: Tensor, right: bool) -> Tensor:
        outputs = self._contextual(blocks, mask)
        row = outputs[:, 0] if self.config.document_pooling == "first" else _mean(outputs, mask)
        other = self.right_projection if right and not self.config.shared_heads else None
        vector = self.document_head(row, other)
        if self.config.combine == "normal":
            return vector
        both = torch.cat([self._combined(blocks, mask), vector], dim=-1)
        return both if self.config.released else unit_rows(both)

    def _combined(self, blocks: Tensor, mask: Tensor) -> Tensor:
        """The blocks' sum, mean or weighted sum (N, C); as released padding takes part."""
        counted = torch.ones_like(mask) if self.config.released else mask
        if self.config.combine == "attention":
            return self.combination(blocks, counted)
        return _mean(blocks, counted) if self.config.combine == "mean_concat" else _sum(blocks, counted)


def matching_loss(logits: Tensor, labels: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Mean of the sigmoid cross entropies, those of matching pairs times ``positive_weight``.

    Args:
        logits: (P,).
        labels: (P,) 0 or 1; grades above 1 count as 1.
        positive_weight: weight of matching pairs; other pairs weigh 1.

    Returns:
        Scalar. Source: SMITH (arXiv 2004.12297), section 4.4, and the released code's weights.

    Example:
        >>> round(matching_loss(torch.zeros(2), torch.tensor([0, 2])).item(), 4)
        0.6931
    """
    target = (labels > 0).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, weight=1 + (positive_weight - 1) * target)


def _sum(blocks: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.unsqueeze(-1), blocks, 0.0).sum(1)


def _mean(blocks: Tensor, mask: Tensor) -> Tensor:
    return _sum(blocks, mask) / mask.sum(1, keepdim=True).clamp(min=1)


def _first_valid(mask: Tensor) -> Tensor:
    """The mask with the first place of empty rows set, so that no softmax has nothing to look at."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(1, keepdim=True))
