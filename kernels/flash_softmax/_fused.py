"""Attention on a CPU by torch's fused kernel, piece by piece: (out, logsumexp) forward, gradients backward.

The private operators are those behind ``scaled_dot_product_attention``; the public function hides the logsumexp.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels.flash_softmax._band import MASKED, Piece, first_seeing, pieces

__all__ = ["backward", "forward"]

_ROWS = 64  # of a piece under a window: measured best of 64, 128 and 256 for a window of 256
_MOST_ROWS = 1024
_MASK_ELEMENTS = 1 << 21  # of the mask of one piece: 8 MB


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
    channels = v.shape[3]
    queries, keys, values = _laid_out(q, k, v)
    out = q.new_zeros((B, T, H, values.shape[3])).transpose(1, 2)
    logsumexp = q.new_full((B, H, T), -torch.inf)
    for piece, mask, causal in _calls(q, k, left, right, key_mask, bias):
        rows, slots = slice(piece.t0, piece.t1), slice(piece.s0, piece.s1)
        found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries[:, :, rows], keys[:, :, slots], values[:, :, slots], 0.0, causal, attn_mask=mask, scale=scale
        )
        if mask is not None:
            # A row whose keys are all masked by the finite number got their mean: it saw nothing.
            empty = sums < MASKED / 10
            found = found.masked_fill(empty.unsqueeze(-1), 0.0)
            sums = sums.masked_fill(empty, -torch.inf)
        out[:, :, rows], logsumexp[:, :, rows] = found, sums
    return out.transpose(1, 2)[..., :channels], logsumexp


def backward(
    grad: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    left: int,
    right: int,
    key_mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> dict[str, Tensor]:
    """Gradients of q, k and v; a row that saw nothing has plus infinity as logsumexp and so no weights."""
    D, channels, G = q.shape[3], v.shape[3], k.shape[2]
    queries, keys, values = _laid_out(q, k, v)
    width = values.shape[3]
    grad, out = (F.pad(t, (0, width - channels)).transpose(1, 2) for t in (grad, out))
    d_q, d_k, d_v = torch.zeros_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
    for piece, mask, causal in _calls(q, k, left, right, key_mask, bias):
        rows, slots = slice(piece.t0, piece.t1), slice(piece.s0, piece.s1)
        to_q, to_k, to_v = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad[:, :, rows],
            queries[:, :, rows],
            keys[:, :, slots],
            values[:, :, slots],
            out[:, :, rows],
            logsumexp[:, :, rows],
            0.0,
            causal,
            attn_mask=mask,
            scale=scale,
        )
        d_q[:, :, rows] = to_q
        d_k[:, :, slots] += to_k
        d_v[:, :, slots] += to_v
    return {
        "q": d_q.transpose(1, 2)[..., :D],
        "k": _regrouped(d_k, G)[..., :D],
        "v": _regrouped(d_v, G)[..., :channels],
    }


def _laid_out(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, T or S, width) views, or copies where heads are repeated or channels padded to one width."""
    H, G = q.shape[2], k.shape[2]
    width = max(q.shape[3], v.shape[3])
    q, k, v = (t if t.shape[3] == width else F.pad(t, (0, width - t.shape[3])) for t in (q, k, v))
    if G != H:
        k, v = (t.repeat_interleave(H // G, dim=2) for t in (k, v))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _regrouped(grad: Tensor, groups: int) -> Tensor:
    """(B, H, S, width) -> (B, S, G, width): the sum over the heads that share a group."""
    B, H, S, width = grad.shape
    if groups != H:
        grad = grad.view(B, groups, H // groups, S, width).sum(2)
    return grad.transpose(1, 2)


def _calls(
    q: Tensor, k: Tensor, left: int, right: int, key_mask: Tensor | None, bias: Tensor | None
) -> Iterator[tuple[Piece, Tensor | None, bool]]:
    """What to call the kernel with: queries and keys, an additive mask, and whether its own causal flag serves."""
    B, T, _, _ = q.shape
    S = k.shape[1]
    added = None if key_mask is None else torch.where(key_mask, 0.0, MASKED).to(q.dtype)[:, None, None, :]
    start = first_seeing(T, S, right)
    ordered = left < 0 and right == 0 and T - start == S
    if bias is None and (ordered or (left < 0 and right < 0)):
        yield Piece(start, T, 0, S), added, ordered
        return
    bands: dict[tuple[int, int, int], Tensor | None] = {}  # pieces inside the sequence have one and the same
    for piece in pieces(T, S, left, right, _rows(B, T, S, left, right, bias, key_mask)):
        shape = (piece.t1 - piece.t0, piece.s1 - piece.s0, piece.s0 - piece.t0)
        if shape not in bands:
            visible = piece.visible(T, S, left, right, q.device)
            bands[shape] = None if visible is None else torch.where(visible, 0.0, MASKED).to(q.dtype)
            if len(bands) > 3:
                bands.pop(next(iter(bands)))
        mask = bands[shape]
        if added is not None:
            part = added[..., piece.s0 : piece.s1]
            mask = part if mask is None else mask + part
        if bias is not None:
            part = piece_of(bias, piece).to(q.dtype).clamp(min=MASKED)
            mask = part if mask is None else mask + part
        yield piece, None if mask is None else _four_dimensions(mask), False


def piece_of(bias: Tensor, piece: Piece) -> Tensor:
    """The part of a bias (1 or B, 1 or H, 1 or T, 1 or S) that belongs to a piece."""
    if bias.shape[2] != 1:
        bias = bias[:, :, piece.t0 : piece.t1]
    return bias if bias.shape[3] == 1 else bias[..., piece.s0 : piece.s1]


def _four_dimensions(mask: Tensor) -> Tensor:
    return mask if mask.dim() == 4 else mask[None, None]


def _rows(B: int, T: int, S: int, left: int, right: int, bias: Tensor | None, key_mask: Tensor | None) -> int:
    """Rows of a piece: few under a window, else as many as keep its mask small."""
    if left >= 0 and right >= 0:
        return max(_ROWS, min(_MOST_ROWS, (left + right + 1) // 4))
    planes = 1 if key_mask is None else B
    if bias is not None:
        planes = max(planes, bias.shape[0]) * bias.shape[1]
    return max(_ROWS // 4, min(_MOST_ROWS, _MASK_ELEMENTS // (planes * S)))
