"""Vectorised torch: pooled keys and values in front of the tokens', then torch's attention, a block of queries a time.

There is no ``cpu.py``: the time goes into matrix products, which torch's fused attention already does near the peak.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._autograd import gradients

__all__ = [
    "pool",
    "pooled_context",
    "pooled_context_backward",
    "portable_pooled_context",
    "portable_segment_max",
    "segment_max",
    "segment_max_backward",
]

_QUERIES = 256  # a block: its keys are the cores before it, the window, and itself


def pooled_context(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, group: int, window: int, scale: float
) -> Tensor:
    """q (B, T, H, D), k (B, T, G, D), v (B, T, G, E), key_mask (B, T) -> (B, T, H, E); memory O(B T H (D + E))."""
    wide = _wide(q)
    q, k, v, dtype = q.to(wide), k.to(wide), v.to(wide), q.dtype
    core_k, core_v = pool(q, k, v, key_mask, group, scale)
    out = q.new_empty((*q.shape[:3], v.shape[3]))
    for rows, cores, tokens in _blocks(q.shape[1], group, window):
        seen = _seen(rows, cores, tokens, key_mask, group, window, q.device)
        operands = (q[:, rows], core_k[:, cores], core_v[:, cores], k[:, tokens], v[:, tokens])
        out[:, rows] = _attend(*operands, seen, scale)
    return out.to(dtype)


def pooled_context_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, group: int, window: int, scale: float
) -> dict[str, Tensor]:
    """Gradients of q, k and v by name: each block is computed again and differentiated, then the pooling."""
    wide, names = _wide(q), ("q", "core_k", "core_v", "k", "v")
    q, k, v, grad = q.to(wide), k.to(wide), v.to(wide), grad.to(wide)
    core_k, core_v = pool(q, k, v, key_mask, group, scale)
    found = {name: torch.zeros_like(t) for name, t in zip(names, (q, core_k, core_v, k, v), strict=True)}
    for rows, cores, tokens in _blocks(q.shape[1], group, window):
        seen = _seen(rows, cores, tokens, key_mask, group, window, q.device)
        places = (rows, cores, cores, tokens, tokens)
        operands = {n: t[:, at] for n, t, at in zip(names, (q, core_k, core_v, k, v), places, strict=True)}
        made = gradients(_attend, operands, names, [grad[:, rows]], seen=seen, scale=scale)
        for name, at in zip(names, places, strict=True):
            found[name][:, at] += made[name]
    if core_k.shape[1]:
        operands = {"q": q, "k": k, "v": v}
        options = {"key_mask": key_mask, "group": group, "scale": scale}
        made = gradients(pool, operands, list(operands), [found["core_k"], found["core_v"]], **options)
        for name, tensor in made.items():
            found[name] += tensor
    return {name: found[name] for name in ("q", "k", "v")}


def pool(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, group: int, scale: float) -> tuple[Tensor, Tensor]:
    """Core keys (B, m, H, D) and values (B, m, H, E) of the m full groups; zeros for a group without a valid token."""
    m, H = q.shape[1] // group, q.shape[2]
    asking = q[:, : m * group].unflatten(1, (m, group))[:, :, -1]  # (B, m, H, D)
    keys, values = (_repeated(t[:, : m * group], H).unflatten(1, (m, group)) for t in (k, v))
    scores = (keys * asking.unsqueeze(2)).sum(-1) * scale  # (B, m, g, H)
    if key_mask is None:
        weights = scores.softmax(2)
    else:
        valid = key_mask[:, : m * group].unflatten(1, (m, group)).unsqueeze(-1)
        weights = scores.masked_fill(~valid, torch.finfo(scores.dtype).min).softmax(2).masked_fill(~valid, 0)
    weights = weights.unsqueeze(-1)
    return (weights * keys).sum(2), (weights * values).sum(2)


def _attend(q: Tensor, core_k: Tensor, core_v: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    """A block of queries over cores and tokens; seen (B or 1, 1, queries, keys). A query that sees none gets zeros."""
    keys = torch.cat([core_k, _repeated(k, q.shape[2])], 1).transpose(1, 2)
    values = torch.cat([core_v, _repeated(v, q.shape[2])], 1).transpose(1, 2)
    some = seen.any(-1, keepdim=True)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=seen | ~some, scale=scale)
    return out.masked_fill(~some, 0.0).transpose(1, 2)


def _blocks(T: int, group: int, window: int) -> Iterator[tuple[slice, slice, slice]]:
    """Blocks of queries, with the cores and the tokens that any of their queries sees."""
    for first in range(0, T, _QUERIES):
        end = min(first + _QUERIES, T)
        yield (
            slice(first, end),
            slice(0, max(0, (end - window) // group)),
            slice(_cores(first, group, window) * group, end),
        )


def _cores(t: int, group: int, window: int) -> int:
    return max(0, (t + 1 - window) // group)


def _seen(
    rows: slice, cores: slice, tokens: slice, key_mask: Tensor | None, group: int, window: int, device: torch.device
) -> Tensor:
    """(B or 1, 1, queries, cores + tokens): what each query of a block sees."""
    t = torch.arange(rows.start, rows.stop, device=device).unsqueeze(1)
    j = torch.div(t + 1 - window, group, rounding_mode="floor").clamp(min=0)
    s = torch.arange(tokens.start, tokens.stop, device=device)
    near = (s >= j * group) & (s <= t)
    far = torch.arange(cores.stop, device=device) < j
    if key_mask is None:
        return torch.cat([far, near], 1)[None, None]
    count = cores.stop
    filled = key_mask[:, : count * group].unflatten(1, (count, group)).any(2) if count else key_mask[:, :0]
    both = torch.cat([far & filled[:, None], near & key_mask[:, None, tokens]], 2)
    return both.unsqueeze(1)


def _repeated(tensor: Tensor, heads: int) -> Tensor:
    """(B, T, G, D) to (B, T, H, D)."""
    return tensor if tensor.shape[2] == heads else tensor.repeat_interleave(heads // tensor.shape[2], dim=2)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def portable_pooled_context(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None = None,
    *,
    group: int = 16,
    window: int = 1024,
    scale: float | None = None,
) -> Tensor:
    """The same with one explicit softmax over all cores and tokens; plain operators, memory O(B H T (T + T / g))."""
    T, H = q.shape[1], q.shape[2]
    scale = q.shape[3] ** -0.5 if scale is None else scale
    core_k, core_v = pool(q, k, v, key_mask, group, scale)
    seen = _seen(slice(0, T), slice(0, T // group), slice(0, T), key_mask, group, window, q.device)
    keys, values = torch.cat([core_k, _repeated(k, H)], 1), torch.cat([core_v, _repeated(v, H)], 1)
    scores = torch.einsum("bthd,bshd->bhts", q, keys) * scale
    weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~seen, 0.0)
    return torch.einsum("bhts,bshe->bthe", weights, values)


def segment_max(x: Tensor, segments: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, T, C), segments and mask (B, T) -> (B, T, C): a scatter and a gather. Memory O(B T C)."""
    return portable_segment_max(x, segments, mask).contiguous()


def segment_max_backward(grad: Tensor, x: Tensor, out: Tensor, segments: Tensor, mask: Tensor | None) -> Tensor:
    """Gradient of x: each segment's sum of gradients, shared by the tokens that hold its maximum."""
    wide, place = _wide(x), segments.unsqueeze(-1).expand_as(x)
    best = x == out
    incoming = grad.to(wide)
    if mask is not None:
        best, incoming = best & mask.unsqueeze(-1), incoming.masked_fill(~mask.unsqueeze(-1), 0)
    zeros = torch.zeros_like(x, dtype=wide)
    sums = zeros.scatter_add(1, place, incoming).gather(1, place)
    holders = zeros.scatter_add(1, place, best.to(wide)).gather(1, place)
    return torch.where(best, sums / holders, 0.0).to(x.dtype)


def portable_segment_max(x: Tensor, segments: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same from plain operators, differentiable by autograd."""
    place = segments.unsqueeze(-1).expand_as(x)
    counted = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), -math.inf)
    lowest = torch.full_like(x, -math.inf, memory_format=torch.contiguous_format)
    found = lowest.scatter_reduce(1, place, counted, "amax", include_self=False).gather(1, place)
    return found if mask is None else found.masked_fill(~mask.unsqueeze(-1), 0.0)
