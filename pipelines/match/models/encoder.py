"""The encoders of SMITH: post-norm Transformer layers around any sequence mechanism, and the encoder of blocks.

Source: BERT (arXiv 1810.04805) for layers and embeddings; SMITH (arXiv 2004.12297), section 4, for block vectors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import MechanismError, TokenMixer, build, spec
from core_attention.layers import ProjectedMixer
from core_attention.registry import option_names
from pipelines.errors import ConfigError

__all__ = ["Encoder", "EncoderLayer", "SentenceEncoder", "VectorHead", "sequence_mixer", "unit_rows"]

INIT_STD = 0.02
_KINDS = ("mixer", "modifier")
_ROWS = 32  # blocks at once on the CPU where no gradient is wanted: enough for its matrix products, little padding


def unit_rows(x: Tensor) -> Tensor:
    """Rows (..., C) divided by their length; a row of zeros stays zeros. x / sqrt(max(sum x^2, 1e-12)).

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return F.normalize(x, dim=-1, eps=1e-6)


def sequence_mixer(name: str, dim: int, heads: int, *, length: int, dropout: float = 0.0) -> TokenMixer:
    """Any registered mechanism that mixes the tokens of a sequence.

    Args:
        name: its registry name.
        dim: channels C.
        heads: heads H.
        length: tokens T, for mechanisms of one fixed length.
        dropout: of the attention weights, where the mechanism has such an option.

    Raises:
        ConfigError: no such mechanism, or one that mixes no sequences or needs more than the tokens.

    Example:
        >>> sequence_mixer("softmax", 16, 4, length=32).spec.name
        'softmax'
    """
    cure = "`pipelines mechanisms` lists what there is; softmax is SMITH's own"
    try:
        found = spec(name)
        if found.kind not in _KINDS or 1 not in found.grid or set(found.extras) - {"prior"}:
            raise ConfigError(f"{name} does not mix sequences of tokens", where="attention", cure=cure)
        options: dict[str, Any] = {"length": length} if found.fixed_length else {}
        if "dropout" in option_names(name):
            options["dropout"] = dropout
        return build(name, dim, heads, **options)
    except MechanismError as error:
        raise ConfigError(str(error), where="attention", cure=cure) from error


class EncoderLayer(nn.Module):
    """x = LayerNorm(x + mixer(x)), then LayerNorm(x + contract(gelu(expand(x)))); dropout on both branches.

    Source: BERT (arXiv 1810.04805), section 3. O(T C hidden) beside the mixer.

    Args:
        mixer: any sequence mechanism of C channels.
        hidden: inner width of the feed-forward part.
        dropout: of both branches while training.
        gelu: "tanh" (the approximation of the first BERT) or "none" (exact).
        eps: of the LayerNorms.

    Example:
        >>> EncoderLayer(sequence_mixer("softmax", 8, 2, length=5), 16)(torch.zeros(1, 5, 8), None).shape
        torch.Size([1, 5, 8])
    """

    def __init__(
        self, mixer: TokenMixer, hidden: int, *, dropout: float = 0.0, gelu: str = "tanh", eps: float = 1e-12
    ) -> None:
        super().__init__()
        dim = mixer.dim
        self.mixer = mixer
        self.mixer_norm, self.output_norm = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.expand, self.contract = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout, self.gelu = nn.Dropout(dropout), gelu

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Rows x (N, T, C), valid where mask (N, T); None where all are."""
        return self._finish(x, self._mix(x, mask))

    def first_row(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The first row (N, 1, C) of ``forward`` alone, of a mixer whose rows depend on each other only as keys."""
        first = x[:, :1]
        return self._finish(first, self.mixer(first, context=x, context_mask=mask).y)

    def unmasked(self, x: Tensor, shift: float) -> Tensor:
        """As ``forward`` without a mask, but the scores of softmax attention first raised by ``shift`` in their dtype.

        This is what padding by a large negative number does where every key is padding: it masks nothing, and rounds.
        """
        if not isinstance(self.mixer, ProjectedMixer) or self.mixer.spec.name != "softmax":
            return self(x, None)
        q, k, v = (heads.transpose(1, 2) for heads in self.mixer.project(x))
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5) + shift
        return self._finish(x, self.mixer.merge((scores.softmax(-1) @ v).transpose(1, 2)))

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """All that follows the mixer."""
        x = self.mixer_norm(x + self.dropout(mixed))
        return self.output_norm(x + self.dropout(self.contract(F.gelu(self.expand(x), approximate=self.gelu))))

    def _mix(self, x: Tensor, mask: Tensor | None) -> Tensor:
        about = self.mixer.spec
        # Without labels all tokens are alike; a mechanism that weights them by a prior gets ones.
        given = {"prior": torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)} if about.extras else {}
        if about.mask:
            return self.mixer(x, mask=mask, **given).y
        # Only fixed-length mechanisms come here with a mask: they see zeros where there is no token.
        rows = x if mask is None else torch.where(mask.unsqueeze(-1), x, 0.0)
        return self.mixer(rows, **given).y


class Encoder(nn.Module):
    """A stack of ``EncoderLayer``: rows (N, T, C) and their mask to rows of the same shape.

    What stands in padding never reaches a valid row. Mechanisms that know masks get them; others run on rows of equal
    length, one group of rows for each number of valid tokens; mechanisms of one fixed length get zeros in padding.
    A mechanism that only looks back reads every other layer, the first one too, from the end, so that the first row
    sees the whole sequence.

    Args:
        layers: how many.
        dim: channels C.
        heads: heads H.
        hidden: inner width of the feed-forward part.
        length: tokens T that a fixed-length mechanism is built for.
        attention: registry name of the mechanism.
        dropout: of the branches and, where there are such, of the attention weights.
        gelu: "tanh" or "none" (exact).
        eps: of the LayerNorms.

    Raises:
        ConfigError: a mechanism that does not fit.

    Example:
        >>> encoder = Encoder(2, 16, 4, 32, length=6)
        >>> encoder(torch.zeros(3, 6, 16), torch.ones(3, 6, dtype=torch.bool)).shape
        torch.Size([3, 6, 16])
    """

    def __init__(
        self,
        layers: int,
        dim: int,
        heads: int,
        hidden: int,
        *,
        length: int,
        attention: str = "softmax",
        dropout: float = 0.0,
        gelu: str = "tanh",
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        mixers = [sequence_mixer(attention, dim, heads, length=length, dropout=dropout) for _ in range(layers)]
        self.layers = nn.ModuleList(EncoderLayer(m, hidden, dropout=dropout, gelu=gelu, eps=eps) for m in mixers)
        about = spec(attention)
        self.fixed_length = length if about.fixed_length else None
        self._by_length = not about.mask and not about.fixed_length
        self._backwards = bool(getattr(mixers[0], "causal", False)) if mixers else False
        self._rows_alone = bool(mixers) and attention == "softmax" and not self._backwards
        self.apply(_initialise)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Rows x (N, T, C), mask (N, T) True = valid, each row's valid tokens first; None where all are."""
        if mask is not None and self._by_length:
            return self._grouped(x, mask)
        order = _reversal(x, mask) if self._backwards else None
        for index, layer in enumerate(self.layers):
            if order is not None and index % 2 == 0:
                x = _take(layer(_take(x, order), mask), order)
            else:
                x = layer(x, mask)
        return x

    def first_rows(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The first rows (N, 1, C) of what ``forward`` gives.

        In evaluation the last layer of softmax attention computes no other row; while training it does, so that dropout
        draws as in ``forward``.
        """
        if self.training or not self._rows_alone or torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return self(x, mask)[:, :1]
        *before, last = self.layers
        for layer in before:
            x = layer(x, mask)
        return last.first_row(x, mask)  # type: ignore[operator]

    def unmasked(self, x: Tensor, shift: float) -> Tensor:
        """Rows x (N, T, C) that are all padding, as ``EncoderLayer.unmasked`` mixes them."""
        for layer in self.layers:
            x = layer.unmasked(x, shift)
        return x

    def _grouped(self, x: Tensor, mask: Tensor) -> Tensor:
        lengths, y = mask.sum(1), torch.zeros_like(x)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            if length:
                done = self(x[rows, :length], None)
                y = y.index_copy(0, rows, F.pad(done, (0, 0, 0, x.shape[1] - length)).to(y.dtype))
        return y


def _reversal(x: Tensor, mask: Tensor | None) -> Tensor:
    """Indices (N, T) that turn the valid tokens of each row round; it is its own inverse."""
    places = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    if mask is None:
        return places.flip(1)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - places, places)


def _take(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order.unsqueeze(-1).expand_as(x))


def _initialise(module: nn.Module) -> None:
    """Truncated normal of 0.02, biases zero; a mechanism that is no plain attention keeps its own start."""
    if isinstance(module, EncoderLayer):
        linear = [module.expand, module.contract]
        if isinstance(module.mixer, ProjectedMixer):
            linear += [child for child in module.mixer.children() if isinstance(child, nn.Linear)]
        for child in linear:
            initialise_linear(child)


def initialise_linear(linear: nn.Linear) -> None:
    """Weights from a normal of 0.02 cut at two deviations, bias zero (BERT)."""
    nn.init.trunc_normal_(linear.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


class VectorHead(nn.Module):
    """L2norm(act(W tanh(W_p h + b_p) + b)): an output row of an encoder to a vector to compare. O(C^2).

    Source: SMITH (arXiv 2004.12297), section 4; the released code has act = ReLU at both levels.

    Args:
        dim: channels C.
        activation: "none" or "relu".

    Example:
        >>> VectorHead(8)(torch.randn(3, 8)).norm(dim=-1).allclose(torch.ones(3), atol=1e-5)
        True
    """

    def __init__(self, dim: int, activation: str = "none") -> None:
        super().__init__()
        self.pooler, self.projection = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.activation = activation
        initialise_linear(self.pooler)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, h: Tensor, other: nn.Linear | None = None) -> Tensor:
        """Rows h (..., C) to unit rows (..., C); ``other`` stands for the projection."""
        y = (self.projection if other is None else other)(self.pooler(h).tanh())
        return unit_rows(y.relu() if self.activation == "relu" else y)


class SentenceEncoder(nn.Module):
    """One block of tokens to one unit vector: BERT, read at its first token or averaged.

    h = Encoder(LayerNorm(word + position + type)); pooling "cls": ``VectorHead`` of the first row; "mean": L2norm of
    the mean over valid rows, the form of sentence-transformers. Id 0 is padding.
    Source: SMITH (arXiv 2004.12297), section 4.1. O(M layers (L^2 C + L C hidden)) for M blocks of L tokens.

    Args:
        vocabulary: words V.
        dim: channels C.
        layers: encoder layers.
        heads: heads.
        hidden: inner width of the feed-forward part.
        positions: longest block.
        block: tokens L of a block, for fixed-length mechanisms.
        types: rows of the type embedding; only row 0 is used.
        attention: registry name of the mechanism.
        dropout: while training.
        pooling: "cls" or "mean".
        activation: "none" or "relu", of the head of "cls".
        gelu: "tanh" or "none" (exact).
        eps: of the LayerNorms.

    Example:
        >>> encoder = SentenceEncoder(50, 16, layers=1, heads=4, hidden=32, positions=8)
        >>> encoder(torch.tensor([[2, 7, 3, 0], [2, 9, 9, 3]])).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        *,
        layers: int,
        heads: int,
        hidden: int,
        positions: int = 256,
        block: int = 32,
        types: int = 2,
        attention: str = "softmax",
        dropout: float = 0.0,
        pooling: str = "cls",
        activation: str = "none",
        gelu: str = "tanh",
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.word_embedding = nn.Embedding(vocabulary, dim)
        self.position_embedding, self.type_embedding = nn.Embedding(positions, dim), nn.Embedding(types, dim)
        for table in (self.word_embedding, self.position_embedding, self.type_embedding):
            nn.init.trunc_normal_(table.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        self.norm, self.dropout = nn.LayerNorm(dim, eps=eps), nn.Dropout(dropout)
        self.encoder = Encoder(
            layers, dim, heads, hidden, length=block, attention=attention, dropout=dropout, gelu=gelu, eps=eps
        )
        self.head = VectorHead(dim, activation) if pooling == "cls" else None

    def embed(self, ids: Tensor) -> Tensor:
        """Sum of the three embeddings of ids (M, L), LayerNorm, dropout: (M, L, C)."""
        x = self.word_embedding(ids) + self.position_embedding.weight[: ids.shape[1]] + self.type_embedding.weight[0]
        return self.dropout(self.norm(x))

    def tokens(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Last rows (M, L, C) of ids (M, L); mask (M, L) True = valid, by default where the id is not 0."""
        return self.encoder(self.embed(ids), ids != 0 if mask is None else mask)

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Rows (M, L, C) of blocks, valid where mask (M, L), to unit vectors (M, C)."""
        if self.head is not None:
            return self.head(hidden[:, 0])
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return unit_rows((hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9))

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Unit vectors (M, C) of blocks ids (M, L), each with at least one valid token."""
        if mask is None and self._may_sort(ids):
            return self._by_width(ids)
        mask = ids != 0 if mask is None else mask
        return self._vectors(ids, mask, mask)

    def _vectors(self, ids: Tensor, mask: Tensor, keys: Tensor | None) -> Tensor:
        if self.head is None:
            return self.pool(self.encoder(self.embed(ids), keys), mask)
        return self.pool(self.encoder.first_rows(self.embed(ids), keys), mask)

    def _may_sort(self, ids: Tensor) -> bool:
        plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.compiler.is_exporting())
        return plain and not self.training and ids.device.type == "cpu" and self.encoder.fixed_length is None

    def _by_width(self, ids: Tensor) -> Tensor:
        """``forward`` for blocks of about equal length together, so that little padding is computed."""
        places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        widths, order = ((ids != 0) * places).amax(1).clamp(min=1).sort(stable=True)
        found = []
        for rows, width in zip(order.split(_ROWS), widths.split(_ROWS), strict=True):
            piece = ids[rows, : int(width[-1])]
            mask = piece != 0
            found.append(self._vectors(piece, mask, None if bool(mask.all()) else mask))
        vectors = torch.cat(found)
        return torch.empty_like(vectors).index_copy_(0, order, vectors)
