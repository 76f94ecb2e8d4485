"""Vectorised torch: one gather of rows, torch's own attention over the boxes of each size, one scatter back.

Shifted windows with their mask are a cut of the grid into boxes (``tables.py``), so no score between regions is ever
computed: with a shift of half a window in four dimensions that is half of the scores, and no mask is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels.window_nd.tables import Group, groups_on

__all__ = ["clamped", "portable_window_nd", "window_nd", "window_nd_backward"]

_SCORES_AT_ONCE = 2**22  # where scores must be kept for the gradient of a bias


def clamped(grid: Sequence[int], window: Sequence[int], shift: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Windows no longer than their axes, and no shift where one window covers an axis."""
    shift = [0] * len(grid) if shift is None else shift
    pairs = [(T, 0) if w >= T else (w, s) for T, w, s in zip(grid, window, shift, strict=True)]
    return [w for w, _ in pairs], [s for _, s in pairs]


def window_nd(
    qkv: Tensor,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """qkv (B, T, 3, H, D), mask (B, T), bias (H, W, W) -> (B, T, H, D).

    Time O(B T W H D); memory O(B T H D): one group of boxes is gathered at a time.
    """
    B, T, _, H, D = qkv.shape
    flat, out = qkv.reshape(B * T, 3 * H * D), qkv.new_empty((B * T, H * D))
    for group in _groups(grid, window, shift, bias, qkv.device):
        rows = _rows(group, B, T)
        attended = _attend(_gathered(flat, rows, H), _valid(mask, rows), _placed(bias, group), scale)
        out.index_copy_(0, rows.reshape(-1), attended.reshape(-1, H * D).to(qkv.dtype))
    return out.view(B, T, H, D)


def window_nd_backward(
    grad: Tensor,
    qkv: Tensor,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    wanted: Sequence[str],
) -> dict[str, Tensor]:
    """Gradients of qkv and bias by name, a group of boxes at a time, each computed again and differentiated by torch.

    Memory O(B T H D); with a bias that has a gradient torch keeps scores, so boxes are taken few at a time.
    """
    B, T, _, H, D = qkv.shape
    flat, flat_grad = qkv.reshape(B * T, 3 * H * D), grad.reshape(B * T, H * D)
    d_flat = flat.new_empty(flat.shape)
    d_bias = None
    if bias is not None and "bias" in wanted:
        d_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
    for group in _groups(grid, window, shift, bias, qkv.device):
        count, N = group.tokens.shape
        placed = _placed(bias, group)
        many = B * count if d_bias is None else max(1, _SCORES_AT_ONCE // (H * N * N))
        for rows in _rows(group, B, T).split(many):
            found = gradients(
                _attend,
                {"x": _gathered(flat, rows, H), "valid": _valid(mask, rows), "bias": placed},
                ["x"] if d_bias is None else ["x", "bias"],
                [flat_grad.index_select(0, rows.reshape(-1)).view(*rows.shape, H, D)],
                scale=scale,
            )
            d_flat.index_copy_(0, rows.reshape(-1), found["x"].reshape(-1, 3 * H * D).to(flat.dtype))
            if d_bias is not None:
                d_bias[:, group.places[:, None], group.places] += found["bias"].to(d_bias.dtype)
    made = {"qkv": d_flat.view(qkv.shape)}
    return made if d_bias is None else made | {"bias": d_bias.to(qkv.dtype)}


def _attend(x: Tensor, valid: Tensor | None, bias: Tensor | None, scale: float) -> Tensor:
    """Dense attention in boxes. x (n, N, 3, H, D), valid (n, N), bias (H, N, N) -> (n, N, H, D)."""
    q, k, v = x.permute(2, 0, 3, 1, 4)
    added = None if bias is None else bias[None]
    if valid is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale).transpose(1, 2)
    some = valid.any(1, keepdim=True)  # a box without keys would give NaN: let it see all, then drop it
    seen = (valid | ~some)[:, None, None, :]
    added = seen if added is None else added.masked_fill(~seen, -math.inf)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale).transpose(1, 2)
    return attended.masked_fill(~some[:, :, None, None], 0.0)


def _groups(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int], bias: Tensor | None, device: torch.device
) -> tuple[Group, ...]:
    return groups_on(tuple(grid), tuple(window), tuple(shift), bias is not None, device)


def _rows(group: Group, B: int, T: int) -> Tensor:
    """(B boxes, N): the rows of the flattened operand that each sample's boxes hold."""
    first = torch.arange(B, device=group.tokens.device)[:, None, None] * T
    return (group.tokens + first).reshape(-1, group.tokens.shape[1])


def _gathered(flat: Tensor, rows: Tensor, H: int) -> Tensor:
    """(n, N, 3, H, D), halves widened where processors compute them slowly and round often."""
    gathered = flat.index_select(0, rows.reshape(-1))
    return gathered.to(_wide(flat)).view(*rows.shape, 3, H, -1)


def _valid(mask: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if mask is None else mask.reshape(-1)[rows]


def _placed(bias: Tensor | None, group: Group) -> Tensor | None:
    """(H, N, N): the entries of the bias that a group's boxes use."""
    return None if bias is None else bias[:, group.places[:, None], group.places].to(_wide(bias))


def _wide(tensor: Tensor) -> torch.dtype:
    on_cpu = tensor.device.type == "cpu"
    return torch.promote_types(tensor.dtype, torch.float32) if on_cpu else tensor.dtype


def portable_window_nd(
    qkv: Tensor,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int] | None = None,
    mask: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The same as models write it: pad, roll, partition, scores with a mask, softmax, and back; plain operators.

    Differentiable by autograd. Time O(B P W H D) for P padded tokens, memory O(B P W H).
    """
    B, _, _, H, D = qkv.shape
    window, shift = clamped(grid, window, shift)
    scale = D**-0.5 if scale is None else scale
    spans = [-(-T // w) * w for T, w in zip(grid, window, strict=True)]
    cells = _partition(qkv.reshape(B, *grid, 3 * H * D), spans, window, shift)
    q, k, v = cells.reshape(*cells.shape[:3], 3, H, D).permute(3, 0, 1, 4, 2, 5)  # (B, windows, H, W, D) each
    real = torch.ones((1, *grid, 1), dtype=torch.bool, device=qkv.device)
    real = real if mask is None else mask.reshape(B, *grid, 1)
    region = _partition(_regions(spans, shift, qkv.device), spans, window, [0] * len(grid))[..., 0]
    seen = (region[..., :, None] == region[..., None, :]) & _partition(real, spans, window, shift)[..., 0][:, :, None]
    scores = (q * scale) @ k.transpose(-1, -2)
    scores = scores if bias is None else scores + bias
    hidden = ~seen[:, :, None]
    weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(hidden, 0.0)
    merged = (weights @ v).transpose(2, 3).reshape(*cells.shape[:3], H * D)
    return _merge(merged, grid, spans, window, shift).reshape(B, -1, H, D)


def _partition(x: Tensor, spans: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """(B, *grid, C), padded with zeros to ``spans`` and rolled -> (B, windows, W, C)."""
    n, grid = len(spans), x.shape[1:-1]
    for axis, (span, size) in enumerate(zip(spans, grid, strict=True), start=1):
        if span > size:
            x = torch.cat([x, x.new_zeros((*x.shape[:axis], span - size, *x.shape[axis + 1 :]))], dim=axis)
    if any(shift):
        x = torch.roll(x, [-s for s in shift], list(range(1, n + 1)))
    pairs = [size for span, w in zip(spans, window, strict=True) for size in (span // w, w)]
    x = x.reshape(x.shape[0], *pairs, x.shape[-1])
    x = x.permute(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    counts = math.prod(span // w for span, w in zip(spans, window, strict=True))
    return x.reshape(x.shape[0], counts, math.prod(window), x.shape[-1])


def _merge(x: Tensor, grid: Sequence[int], spans: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """The way back: (B, windows, W, C) -> (B, *grid, C)."""
    n = len(grid)
    x = x.reshape(x.shape[0], *(span // w for span, w in zip(spans, window, strict=True)), *window, x.shape[-1])
    x = x.permute(0, *(axis for i in range(n) for axis in (1 + i, 1 + n + i)), 2 * n + 1)
    x = x.reshape(x.shape[0], *spans, x.shape[-1])
    if any(shift):
        x = torch.roll(x, list(shift), list(range(1, n + 1)))
    for axis, size in enumerate(grid, start=1):
        x = x.narrow(axis, 0, size)
    return x


def _regions(spans: Sequence[int], shift: Sequence[int], device: torch.device) -> Tensor:
    """(1, *spans, 1) after the roll: which axes' edges a token was rolled over, as bits."""
    region = torch.zeros((1, *spans, 1), dtype=torch.int64, device=device)
    for axis, (span, s) in enumerate(zip(spans, shift, strict=True)):
        over = (torch.arange(span, device=device) >= span - s).long() * 2**axis
        region = region + over.reshape(1, *(span if i == axis else 1 for i in range(len(spans))), 1)
    return region
