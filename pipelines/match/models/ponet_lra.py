"""PoNet's encoder for Long Range Arena (arXiv 2110.02442), by its released names: segments of equal length."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from core_attention.mechanisms.pooling import Pooling, equal_segments
from pipelines.errors import ConfigError, InputError
from pipelines.match.models.ponet import start_weights

__all__ = ["LRA_SIZES", "LRAAttention", "LRAEncoder"]

#: Released name of a map -> its name in the mechanism; the map O was given the name of values.
_NAMES = {"W_q": "dense_q", "W_k": "dense_k", "W_v": "dense_o", "W_local": "dense_local", "W_segment": "dense_segment"}
_TENSORS = {
    f"{released}.{kind}": f"pooling.{own}.{kind}"
    for released, own in {**_NAMES, "ff": "out_projection"}.items()
    for kind in ("weight", "bias")
}

#: Arguments of `LRAEncoder` of each released task. Of "text" the released number of segments, 4096, leaves each of
#: 4,000 tokens by itself; only from 4,096 tokens on do segments of two arise.
LRA_SIZES: dict[str, dict[str, int]] = {
    "listops": {"vocab_size": 32, "max_seq_len": 2000, "segment_num": 64},
    "image": {"vocab_size": 512, "max_seq_len": 1024, "segment_num": 32},
    "pathfinder32": {"vocab_size": 512, "max_seq_len": 1024, "segment_num": 1},
    "retrieval": {"vocab_size": 512, "max_seq_len": 4000, "segment_num": 64},
    "text": {"vocab_size": 512, "max_seq_len": 4000, "segment_num": 4096},
}


class LRAAttention(nn.Module):
    """The released attention: X (B, T, C) to the same shape, with segments of equal length over all T places.

    The mechanism ``pooling`` below the released tensor names. Lengths of segments count padded places too, as released;
    the mechanism by itself counts valid tokens only.

    Args:
        dim: channels C.
        num_head: heads, a divisor of C.
        segment_num: number S; segments are of T // S + 1 places.

    Raises:
        MechanismError: sizes that do not fit.

    Time O(T C^2), memory O(T C). Source: PoNet (arXiv 2110.02442), section 3 and the released code.

    Example:
        >>> attention = LRAAttention(16, 2, 4)
        >>> attention(torch.zeros(2, 9, 16), torch.ones(2, 9)).shape, "W_segment.bias" in attention.state_dict()
        (torch.Size([2, 9, 16]), True)
    """

    def __init__(self, dim: int, num_head: int, segment_num: int) -> None:
        super().__init__()
        self.pooling = Pooling(dim, num_head, segments=segment_num)
        self.register_state_dict_post_hook(_write_released_names)
        self.register_load_state_dict_pre_hook(_read_released_names)

    def forward(self, X: Tensor, mask: Tensor) -> Tensor:
        """Mix X (B, T, C); mask (B, T), 1 = valid, 0 = padding."""
        places = equal_segments(X.shape[:2], self.pooling.segments, None, X.device)
        return self.pooling(X, mask=mask >= 0.5, segments=places).y


def _write_released_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: object) -> None:
    del module, metadata
    for released, own in _TENSORS.items():
        state_dict[prefix + released] = state_dict.pop(prefix + own)


def _read_released_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    del module
    for released, own in _TENSORS.items():
        if prefix + released in state_dict:
            state_dict[prefix + own] = state_dict.pop(prefix + released)


class _Layer(nn.Module):
    """Pooling and a feed-forward net, each with a norm in front and a residual."""

    def __init__(self, dim: int, hidden: int, num_head: int, segment_num: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mha = LRAAttention(dim, num_head, segment_num)
        self.dropout1 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)
        maps = (nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim), nn.Dropout(dropout))
        self.mlpblock = nn.Sequential(*maps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout1(self.mha(self.norm1(x), mask))
        return x + self.mlpblock(self.norm2(x))


class _Embeddings(nn.Module):
    """Token and position, added."""

    def __init__(self, vocab_size: int, max_seq_len: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, dim)
        self.position_embeddings = nn.Embedding(max_seq_len, dim)
        self.dropout = nn.Dropout(dropout)
        for table in (self.word_embeddings, self.position_embeddings):
            start_weights(table, 0.02)

    def forward(self, input_ids: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.dropout(self.word_embeddings(input_ids) + self.position_embeddings(places))


class LRAEncoder(nn.Module):
    """The released encoder of Long Range Arena: input_ids (B, T) to features (B, T, C), zeros at padding.

    Args:
        vocab_size: kinds of tokens.
        max_seq_len: longest sequence.
        segment_num: number S of segments.
        transformer_dim: channels C.
        transformer_hidden_dim: inner width of the feed-forward nets.
        num_head: heads.
        num_layers: layers.
        dropout_prob: dropout.

    Raises:
        ConfigError: a size that is not a positive whole number.

    Time O(layers T C (C + hidden)). Source: PoNet (arXiv 2110.02442), section 4.1 and the released code; 213,760
    parameters for listops, 372,480 for text and retrieval, 182,016 for images.

    Example:
        >>> sum(p.numel() for p in LRAEncoder(**LRA_SIZES["listops"]).parameters())
        213760
    """

    def __init__(
        self,
        vocab_size: int,
        max_seq_len: int,
        segment_num: int,
        *,
        transformer_dim: int = 64,
        transformer_hidden_dim: int = 128,
        num_head: int = 2,
        num_layers: int = 2,
        dropout_prob: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = {"vocab_size": vocab_size, "max_seq_len": max_seq_len, "num_layers": num_layers}
        for name, value in {**sizes, "transformer_hidden_dim": transformer_hidden_dim}.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError("not a size", where=name, found=value, expected="a positive whole number")
        self.max_seq_len, self.num_layers = max_seq_len, num_layers
        self.embeddings = _Embeddings(vocab_size, max_seq_len, transformer_dim, dropout_prob)
        for i in range(num_layers):
            layer = _Layer(transformer_dim, transformer_hidden_dim, num_head, segment_num, dropout_prob)
            self.add_module(f"transformer_{i}", layer)
        self.norm = nn.LayerNorm(transformer_dim)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode input_ids (B, T); mask (B, T), 1 = valid, 0 = padding, all valid by default.

        Raises:
            InputError: no tokens, or more than there are positions.
        """
        if input_ids.dim() != 2 or not 1 <= input_ids.shape[1] <= self.max_seq_len:
            expected = f"(batch, 1 to {self.max_seq_len} tokens)"
            raise InputError("not tokens", where="input_ids", found=tuple(input_ids.shape), expected=expected)
        valid = torch.ones_like(input_ids) if mask is None else mask
        x = self.embeddings(input_ids)
        for i in range(self.num_layers):
            x = cast(_Layer, self.get_submodule(f"transformer_{i}"))(x, valid)
        return self.norm(x) * valid.unsqueeze(-1)
