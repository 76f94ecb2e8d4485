"""Attention by plain matrix products, piece by piece, on any device; its backward pass also gives the bias's gradient.

The heads of a group are rows of one product, so keys and values are never repeated.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from core_attention.kernels.flash_softmax._band import MASKED, Piece, pieces
from core_attention.kernels.flash_softmax._fused import piece_of

__all__ = ["backward", "forward"]

_ELEMENTS = 1 << 22  # of the scores of one piece: 16 MB in float32


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    left: int,
    right: int,
    key_mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """q (B, T, H, D), k (B, S, G, D), v (B, S, G, Dv), float32 or float64 -> (B, T, H, Dv), (B, H, T).

    The logsumexp is minus infinity where a query sees no key.
    """
    B, T, H, _ = q.shape
    keys, values = k.transpose(1, 2), v.transpose(1, 2)
    out = q.new_zeros((B, T, H, v.shape[3]))
    logsumexp = q.new_full((B, H, T), -torch.inf)
    for piece, scores in _scores(q * scale, keys, left, right, key_mask, bias):
        rows = slice(piece.t0, piece.t1)
        sums = torch.logsumexp(scores, dim=-1)
        empty = sums < MASKED / 10
        weights = torch.exp(scores - sums.masked_fill(empty, torch.inf).unsqueeze(-1))
        out[:, rows] = _ungrouped(_grouped(weights, keys.shape[1]) @ values[:, :, piece.s0 : piece.s1], H)
        logsumexp[:, :, rows] = sums.masked_fill(empty, -torch.inf)
    return out, logsumexp


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    left: int,
    right: int,
    key_mask: Tensor | None,
    bias: Tensor | None,
    sink: Tensor | None,
    scale: float,
    *,
    bias_too: bool,
) -> dict[str, Tensor]:
    """Gradients of q, k, v, of the sink if there is one and, where asked for, of the bias.

    A piece holds all keys of its rows, so their weights are normalised anew: more exact than by a rounded logsumexp.
    """
    H, G = q.shape[2], k.shape[2]
    keys, values = k.transpose(1, 2), v.transpose(1, 2)
    queries = q * scale
    found = {name: torch.zeros_like(tensor) for name, tensor in (("q", q), ("k", k), ("v", v))}
    if bias_too and bias is not None:
        found["bias"] = torch.zeros_like(bias, dtype=q.dtype)
    to_sink = torch.zeros_like(grad[..., 0].transpose(1, 2))
    for piece, scores in _scores(queries, keys, left, right, key_mask, bias):
        rows, slots = slice(piece.t0, piece.t1), slice(piece.s0, piece.s1)
        weights, sunk = _weights(scores, sink)
        grads = _rows_of(grad, piece, G)
        found["v"][:, slots] += (_grouped(weights, G).transpose(2, 3) @ grads).transpose(1, 2)
        to_weights = (grads @ values[:, :, slots].transpose(2, 3)).view_as(weights)
        inner = torch.linalg.vecdot(weights, to_weights).unsqueeze(-1)
        if sunk is not None:
            to_sink[:, :, rows] = -(sunk * inner).squeeze(-1)
        to_scores = weights.mul_(to_weights.sub_(inner))
        if "bias" in found:
            part = piece_of(found["bias"], piece)
            part += to_scores.sum_to_size(part.shape)
        grouped = _grouped(to_scores, G)
        found["q"][:, rows] = _ungrouped(grouped @ keys[:, :, slots], H).mul_(scale)
        found["k"][:, slots] += (grouped.transpose(2, 3) @ _rows_of(queries, piece, G)).transpose(1, 2)
    if sink is not None:
        found["sink"] = to_sink.sum((0, 2))
    return found


def _scores(
    queries: Tensor, keys: Tensor, left: int, right: int, key_mask: Tensor | None, bias: Tensor | None
) -> Iterator[tuple[Piece, Tensor]]:
    """Masked scores of each piece, (B, H, rows, keys), from scaled queries (B, T, H, D) and keys (B, G, S, D)."""
    B, T, H, _ = queries.shape
    G, S = keys.shape[1], keys.shape[2]
    reach = min(S, left + right + 1) if left >= 0 and right >= 0 else S
    rows = max(16, min(reach, _ELEMENTS // (B * H * reach)))
    for piece in pieces(T, S, left, right, rows):
        width = piece.s1 - piece.s0
        product = _rows_of(queries, piece, G) @ keys[:, :, piece.s0 : piece.s1].transpose(2, 3)
        scores = product.view(B, H, piece.t1 - piece.t0, width)
        if bias is not None:
            scores += piece_of(bias, piece).to(scores.dtype).clamp(min=MASKED)
        visible = piece.visible(T, S, left, right, queries.device)
        if visible is not None:
            scores.masked_fill_(~visible, MASKED)
        if key_mask is not None:
            scores.masked_fill_(~key_mask[:, None, None, piece.s0 : piece.s1], MASKED)
        yield piece, scores


def _weights(scores: Tensor, sink: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The softmax of scores (B, H, rows, keys) in their own memory, and the weight of the sink (B, H, rows, 1).

    Zeros in a row that sees nothing.
    """
    highest = scores.amax(dim=-1, keepdim=True)
    empty = highest < MASKED / 10
    if sink is None:
        weights = scores.sub_(highest).exp_()
        total = weights.sum(dim=-1, keepdim=True)
        return weights.div_(total.masked_fill_(empty, torch.inf)), None
    column = sink.to(scores.dtype).view(1, -1, 1, 1)
    highest = torch.maximum(highest, column)
    weights, sunk = scores.sub_(highest).exp_(), torch.exp(column - highest)
    total = (weights.sum(dim=-1, keepdim=True) + sunk).masked_fill_(empty, torch.inf)
    return weights.div_(total), sunk.div_(total)


def _rows_of(tensor: Tensor, piece: Piece, groups: int) -> Tensor:
    """(B, T, H, D) -> (B, G, H/G rows, D): the piece's rows, those of a group one after another."""
    B, _, H, D = tensor.shape
    part = tensor[:, piece.t0 : piece.t1].transpose(1, 2)
    return part.reshape(B, groups, (H // groups) * part.shape[2], D)


def _grouped(scores: Tensor, groups: int) -> Tensor:
    """(B, H, rows, keys) -> (B, G, H/G rows, keys)."""
    B, H, rows, width = scores.shape
    return scores.reshape(B, groups, (H // groups) * rows, width)


def _ungrouped(rows: Tensor, heads: int) -> Tensor:
    """(B, G, H/G rows, D) -> (B, rows, H, D)."""
    B, groups, count, D = rows.shape
    return rows.reshape(B, heads, count * groups // heads, D).transpose(1, 2)
