"""Peers of SMITH: one encoder over the whole joined text, and both models written out plainly from their equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipelines.match.models.encoder import Encoder, EncoderLayer, SentenceEncoder
from pipelines.match.models.smith import Smith


class FullEncoder(nn.Module):
    """BERT over all tokens at once: as wide as SMITH, of the same layers (torch's fused attention), without a mask.

    Args:
        layers: how many.
        tokens: longest text.
        vocabulary: words.
        dropout: while training.
    """

    def __init__(self, layers: int, tokens: int, vocabulary: int, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = {"layers": layers, "heads": 4, "hidden": 512, "positions": tokens, "block": tokens, "dropout": dropout}
        self.net = SentenceEncoder(vocabulary, 256, **sizes)

    def encode(self, ids: Tensor, first: bool = False) -> Tensor:
        """Joined ids (N, T) without padding to unit vectors (N, C), read at the first token.

        With ``first`` no other row of the last layer is computed.
        """
        encoder = self.net.encoder.first_rows if first else self.net.encoder
        return self.net.pool(encoder(self.net.embed(ids), None), ids != 0)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Logits (P,) of pairs of joined ids (P, T): six times the cosine, less three."""
        first, second = self.encode(torch.cat([left, right])).chunk(2)
        return 6.0 * (first * second).sum(-1) - 3.0


def plain_vectors(net: SentenceEncoder, ids: Tensor) -> Tensor:
    """Unit vectors (M, C) of ids (M, T), a row at a time, its padding cut off, every equation written out."""
    found = []
    for row in ids:
        row = row[row != 0]
        x = net.word_embedding.weight[row] + net.position_embedding.weight[: len(row)] + net.type_embedding.weight[0]
        found.append(_plain_head(net.head, _plain_layers(net.encoder, _plain_norm(x, net.norm))[0]))
    return torch.stack(found)


def plain_smith(model: Smith, ids: Tensor) -> Tensor:
    """Document vectors (N, C) of ids (N, B, L) with up to ``blocks`` blocks each, combination "normal"."""
    found = []
    for document in ids:
        blocks = plain_vectors(model.sentences, document[(document != 0).any(1)])
        x = _plain_norm(blocks + model.document_positions.weight[: len(blocks)], model.document_norm)
        found.append(_plain_head(model.document_head, _plain_layers(model.documents, x)[0]))
    return torch.stack(found)


def _plain_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def _plain_head(head: nn.Module | None, h: Tensor) -> Tensor:
    if head is None:
        raise ValueError("an encoder that is read at its first token")
    y = head.projection.weight @ (head.pooler.weight @ h + head.pooler.bias).tanh() + head.projection.bias  # type: ignore[operator]
    return y / y.square().sum().sqrt()


def _plain_layers(encoder: Encoder, x: Tensor) -> Tensor:
    """Rows (T, C) through all layers: post-norm, attention by its whole matrix of weights, tanh form of gelu."""
    for layer in encoder.layers:
        if not isinstance(layer, EncoderLayer):
            raise TypeError(type(layer))
        mixed = _plain_attention(layer.mixer, x)
        x = _plain_norm(x + mixed, layer.mixer_norm)
        h = x @ layer.expand.weight.T + layer.expand.bias
        h = 0.5 * h * (1 + (math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)).tanh())
        x = _plain_norm(x + h @ layer.contract.weight.T + layer.contract.bias, layer.output_norm)
    return x


def _plain_attention(mixer: nn.Module, x: Tensor) -> Tensor:
    weights = dict(mixer.named_parameters())
    q, k, v, out = (
        (weights[f"{name}_projection.weight"], weights[f"{name}_projection.bias"])
        for name in ("query", "key", "value", "out")
    )
    size = x.shape[1] // 4
    heads = []
    for first in range(0, x.shape[1], size):
        part = slice(first, first + size)
        query, key, value = (x @ weight[part].T + bias[part] for weight, bias in (q, k, v))
        heads.append((query @ key.T / math.sqrt(size)).softmax(-1) @ value)
    return torch.cat(heads, -1) @ out[0].T + out[1]
