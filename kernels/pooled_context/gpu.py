"""Triton kernels: flash attention over the cores and then the tokens that a block of queries sees, and segment maxima.

What a query sees is arithmetic on its number, so no mask is read but the flags of valid keys, and blocks of keys out of
reach are never visited. Pooling a group is a small softmax, left to torch. A segment's maximum and sums are made by one
program a sample and block of channels, token after token: no atomics, so results repeat bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._launch import launcher
from core_attention.kernels.pooled_context.eager import pool

__all__ = [
    "context_kernel",
    "key_gradient_kernel",
    "pooled_context",
    "pooled_context_backward",
    "query_gradient_kernel",
    "segment_max",
    "segment_max_backward",
    "segment_max_kernel",
    "segment_sum_kernel",
]

_BLOCK = 16  # queries, and keys, of a tile: the flags of larger ones spill a chip's scalar registers
_CHANNELS = 128


@triton.jit
def _visible(t, n, flags, T, N, GROUP, WINDOW, IS_CORE: tl.constexpr):
    """(queries, keys): what the queries t see of the cores or tokens n."""
    cores = tl.maximum(t + 1 - WINDOW, 0) // GROUP
    valid = tl.load(flags + n, mask=n < N, other=0) != 0
    if IS_CORE:
        reach = n[None, :] < cores[:, None]
    else:
        reach = (n[None, :] >= (cores * GROUP)[:, None]) & (n[None, :] <= t[:, None])
    return reach & valid[None, :] & (t < T)[:, None]


@triton.jit
def _walk(
    q, t, keys, values, flags, first, end, T, N, HEADS, D, E, GROUP, WINDOW, scale, top, total, sums,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, IS_CORE: tl.constexpr,
):  # fmt: skip
    """Online softmax of a block of queries over the keys first to end; HEADS D apart in memory."""
    d, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    for start in range(first, end, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = tl.load(keys + n[None, :] * HEADS * D + d[:, None], mask=(n < N)[None, :] & (d < D)[:, None], other=0.0)
        v = tl.load(values + n[:, None] * HEADS * E + e[None, :], mask=(n < N)[:, None] & (e < E)[None, :], other=0.0)
        seen = _visible(t, n, flags, T, N, GROUP, WINDOW, IS_CORE)
        scores = tl.where(seen, tl.dot(q, k, input_precision="ieee") * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - shift[:, None])
        fade = tl.exp(top - shift)
        total = total * fade + tl.sum(weights, 1)
        sums = sums * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        top = higher
    return top, total, sums


@triton.jit
def context_kernel(
    q, core_k, core_v, k, v, core_flags, flags, out, logsum,
    T, M, H, G, D, E, GROUP, WINDOW, scale,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head of one sample."""
    b, h = (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
    first = tl.program_id(0) * BLOCK
    t = first + tl.arange(0, BLOCK)
    d, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    last = tl.minimum(first + BLOCK, T)
    rows = tl.load(
        q + (b * T * H + h) * D + t[:, None] * H * D + d[None, :], mask=(t < T)[:, None] & (d < D)[None, :], other=0.0
    )
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    total, sums = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK, BLOCK_E], tl.float32)
    of_head = b * T * G + h // (H // G)
    top, total, sums = _walk(
        rows, t, core_k + (b * M * H + h) * D, core_v + (b * M * H + h) * E, core_flags + b * M, 0,
        tl.maximum(last - WINDOW, 0) // GROUP, T, M, H, D, E, GROUP, WINDOW, scale, top, total, sums,
        BLOCK, BLOCK_D, BLOCK_E, True,
    )  # fmt: skip
    top, total, sums = _walk(
        rows, t, k + of_head * D, v + of_head * E, flags + b * T, tl.maximum(first + 1 - WINDOW, 0) // GROUP * GROUP,
        last, T, T, G, D, E, GROUP, WINDOW, scale, top, total, sums, BLOCK, BLOCK_D, BLOCK_E, False,
    )  # fmt: skip
    some = total > 0
    result = tl.where(some[:, None], sums / tl.where(some, total, 1.0)[:, None], 0.0)
    place = (b * T * H + h) * E + t[:, None] * H * E + e[None, :]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=(t < T)[:, None] & (e < E)[None, :])
    tl.store(logsum + b * T * H + t * H + h, tl.where(some, top + tl.log(tl.where(some, total, 1.0)), 0.0), mask=t < T)


@triton.jit
def _query_walk(
    q, t, grad, ours, logsum, keys, values, flags, first, end, T, N, HEADS, D, E, GROUP, WINDOW, scale, d_q,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, IS_CORE: tl.constexpr,
):  # fmt: skip
    d, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    for start in range(first, end, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = tl.load(keys + n[:, None] * HEADS * D + d[None, :], mask=(n < N)[:, None] & (d < D)[None, :], other=0.0)
        v = tl.load(values + n[None, :] * HEADS * E + e[:, None], mask=(n < N)[None, :] & (e < E)[:, None], other=0.0)
        seen = _visible(t, n, flags, T, N, GROUP, WINDOW, IS_CORE)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        weights = tl.where(seen, tl.exp(tl.where(seen, scores - logsum[:, None], 0.0)), 0.0)
        inner = weights * (tl.dot(grad, v, input_precision="ieee") - ours[:, None]) * scale
        d_q += tl.dot(inner.to(k.dtype), k, input_precision="ieee")
    return d_q


@triton.jit
def query_gradient_kernel(
    q, core_k, core_v, k, v, core_flags, flags, grad, ours, logsum, d_q,
    T, M, H, G, D, E, GROUP, WINDOW, scale,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of queries; ours is the sum over channels of gradient times output."""
    b, h = (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
    first = tl.program_id(0) * BLOCK
    t = first + tl.arange(0, BLOCK)
    d, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    last, inside = tl.minimum(first + BLOCK, T), (t < T)
    at = b * T * H + t * H + h
    place = at[:, None] * D + d[None, :]
    rows = tl.load(q + place, mask=inside[:, None] & (d < D)[None, :], other=0.0)
    incoming = tl.load(grad + at[:, None] * E + e[None, :], mask=inside[:, None] & (e < E)[None, :], other=0.0)
    own, norm = tl.load(ours + at, mask=inside, other=0.0), tl.load(logsum + at, mask=inside, other=0.0)
    of_head = b * T * G + h // (H // G)
    total = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    total = _query_walk(
        rows, t, incoming, own, norm, core_k + (b * M * H + h) * D, core_v + (b * M * H + h) * E, core_flags + b * M, 0,
        tl.maximum(last - WINDOW, 0) // GROUP, T, M, H, D, E, GROUP, WINDOW, scale, total,
        BLOCK, BLOCK_D, BLOCK_E, True,
    )  # fmt: skip
    total = _query_walk(
        rows, t, incoming, own, norm, k + of_head * D, v + of_head * E, flags + b * T,
        tl.maximum(first + 1 - WINDOW, 0) // GROUP * GROUP, last, T, T, G, D, E, GROUP, WINDOW, scale, total,
        BLOCK, BLOCK_D, BLOCK_E, False,
    )  # fmt: skip
    tl.store(d_q + place, total, mask=inside[:, None] & (d < D)[None, :])


@triton.jit
def key_gradient_kernel(
    q, keys, values, flags, grad, ours, logsum, d_k, d_v,
    T, N, H, HEADS, D, E, GROUP, WINDOW, scale,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, IS_CORE: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of cores or tokens from one query head; d_k and d_v are (B, N, H, ...)."""
    b, h = (tl.program_id(1) // H).to(tl.int64), tl.program_id(1) % H
    low = tl.program_id(0) * BLOCK
    n = low + tl.arange(0, BLOCK)
    d, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    inside = n < N
    row = (b * N + n) * HEADS + h // (H // HEADS)
    k = tl.load(keys + row[:, None] * D + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
    v = tl.load(values + row[:, None] * E + e[None, :], mask=inside[:, None] & (e < E)[None, :], other=0.0)
    to_k, to_v = tl.zeros([BLOCK, BLOCK_D], tl.float32), tl.zeros([BLOCK, BLOCK_E], tl.float32)
    if IS_CORE:  # a core is seen from the first query a window past its group on, by all that follow
        first, end = (low + 1) * GROUP + WINDOW - 1, T
    else:  # a token is seen until its group has become a core
        first, end = low, tl.minimum(((low + BLOCK - 1) // GROUP + 1) * GROUP + WINDOW - 1, T)
    for start in range(first, end, BLOCK):
        t = start + tl.arange(0, BLOCK)
        asked = (t < T)[:, None]
        at = b * T * H + t * H + h
        rows = tl.load(q + at[:, None] * D + d[None, :], mask=asked & (d < D)[None, :], other=0.0)
        incoming = tl.load(grad + at[:, None] * E + e[None, :], mask=asked & (e < E)[None, :], other=0.0)
        own, norm = tl.load(ours + at, mask=t < T, other=0.0), tl.load(logsum + at, mask=t < T, other=0.0)
        seen = _visible(t, n, flags + b * N, T, N, GROUP, WINDOW, IS_CORE)
        scores = tl.dot(rows, tl.trans(k), input_precision="ieee") * scale
        weights = tl.where(seen, tl.exp(tl.where(seen, scores - norm[:, None], 0.0)), 0.0)
        to_v += tl.dot(tl.trans(weights.to(incoming.dtype)), incoming, input_precision="ieee")
        inner = weights * (tl.dot(incoming, tl.trans(v), input_precision="ieee") - own[:, None]) * scale
        to_k += tl.dot(tl.trans(inner.to(rows.dtype)), rows, input_precision="ieee")
    place = (b * N + n) * H + h
    tl.store(d_k + place[:, None] * D + d[None, :], to_k, mask=inside[:, None] & (d < D)[None, :])
    tl.store(d_v + place[:, None] * E + e[None, :], to_v, mask=inside[:, None] & (e < E)[None, :])


def pooled_context(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, group: int, window: int, scale: float
) -> Tensor:
    """Launch the attention: q (B, T, H, D), k (B, T, G, D), v (B, T, G, E), key_mask (B, T) -> (B, T, H, E)."""
    return _forward(_operands(q, k, v, key_mask, group, scale), group, window, scale)[0]


def _operands(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, group: int, scale: float) -> tuple[Tensor, ...]:
    """q, cores' keys and values in the operands' dtype, k, v, and flags of valid cores and tokens; all contiguous."""
    B, T = q.shape[:2]
    m = T // group
    core_k, core_v = pool(q.float(), k.float(), v.float(), key_mask, group, scale)
    valid = torch.ones((B, T), dtype=torch.bool, device=q.device) if key_mask is None else key_mask
    filled = valid[:, : m * group].reshape(B, m, group).any(2)
    made = (q, core_k.to(q.dtype), core_v.to(q.dtype), k, v, filled.to(torch.int8), valid.to(torch.int8))
    return tuple(tensor.contiguous() for tensor in made)


def _forward(operands: tuple[Tensor, ...], group: int, window: int, scale: float) -> tuple[Tensor, Tensor]:
    """The output and the logarithm of each row's sum, (B, T, H) in float32."""
    q, v = operands[0], operands[4]
    B, T, H, _ = q.shape
    out, logsum = q.new_empty((B, T, H, v.shape[3])), q.new_empty((B, T, H), dtype=torch.float32)
    launcher(context_kernel)[(triton.cdiv(T, _BLOCK), B * H)](
        *operands, out, logsum, *_sizes(operands, group, window, scale), **_tiles(q, v)
    )
    return out, logsum


def pooled_context_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, group: int, window: int, scale: float
) -> dict[str, Tensor]:
    """Launch the gradients of queries, cores and tokens; that of the pooling is torch's. By name, in float32."""
    operands = _operands(q, k, v, key_mask, group, scale)
    out, logsum = _forward(operands, group, window, scale)
    B, T, H, _ = q.shape
    ours = (grad.float() * out.float()).sum(-1)
    d_q = q.new_empty(q.shape, dtype=torch.float32)
    launcher(query_gradient_kernel)[(triton.cdiv(T, _BLOCK), B * H)](
        *operands, grad, ours, logsum, d_q, *_sizes(operands, group, window, scale), **_tiles(q, v)
    )
    found = {"q": d_q}
    rows, core_k, core_v, keys, values, filled, valid = operands
    d_core_k, d_core_v = _key_gradients(rows, core_k, core_v, filled, grad, ours, logsum, group, window, scale, True)
    d_k, d_v = _key_gradients(rows, keys, values, valid, grad, ours, logsum, group, window, scale, False)
    G = k.shape[2]
    found |= {"k": d_k.unflatten(2, (G, H // G)).sum(3), "v": d_v.unflatten(2, (G, H // G)).sum(3)}
    if core_k.shape[1]:
        wide = {"q": q.float(), "k": k.float(), "v": v.float()}
        options = {"key_mask": key_mask, "group": group, "scale": scale}
        for name, tensor in gradients(pool, wide, list(wide), [d_core_k, d_core_v], **options).items():
            found[name] = found[name] + tensor
    return found


def _key_gradients(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    flags: Tensor,
    grad: Tensor,
    ours: Tensor,
    logsum: Tensor,
    group: int,
    window: int,
    scale: float,
    is_core: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of cores or tokens for every query head: (B, N, H, D) and (B, N, H, E), float32."""
    B, T, H, D = q.shape
    N, E = keys.shape[1], values.shape[3]
    d_k, d_v = (q.new_empty((B, N, H, size), dtype=torch.float32) for size in (D, E))
    if N:
        launcher(key_gradient_kernel)[(triton.cdiv(N, _BLOCK), B * H)](
            *(q, keys, values, flags, grad, ours, logsum, d_k, d_v),
            *(T, N, H, keys.shape[2], D, E, group, window, scale),
            **_tiles(q, values),
            IS_CORE=is_core,
        )
    return d_k, d_v


def _sizes(operands: tuple[Tensor, ...], group: int, window: int, scale: float) -> tuple[Any, ...]:
    q, core_k, _, k, v, *_ = operands
    return q.shape[1], core_k.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3], group, window, scale


def _tiles(q: Tensor, v: Tensor) -> dict[str, int]:
    widths = (max(16, triton.next_power_of_2(size)) for size in (q.shape[3], v.shape[3]))
    # Products in full float32 are unrolled over the threads: with fewer of them, or larger tiles, they spill.
    full = q.dtype == torch.float32
    sizes = dict(zip(("BLOCK_D", "BLOCK_E"), widths, strict=True))
    return {"BLOCK": _BLOCK, **sizes, "num_warps": 8 if full else 4, "num_stages": 1}


@triton.jit
def segment_max_kernel(x, segments, flags, best, T, C, BLOCK_C: tl.constexpr):
    """best[b, segment] = the largest x of its valid tokens, NaN if there is one; best starts at minus infinity."""
    b = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    for t in range(T):
        valid = (c < C) & (tl.load(flags + b * T + t) != 0)
        place = (b * T + tl.load(segments + b * T + t)) * C + c
        value = tl.load(x + (b * T + t) * C + c, mask=c < C, other=0.0).to(tl.float32)
        so_far = tl.load(best + place, mask=c < C, other=0.0)
        tl.store(best + place, tl.where((value > so_far) | (value != value), value, so_far), mask=valid)


@triton.jit
def segment_sum_kernel(x, out, grad, segments, flags, sums, holders, T, C, BLOCK_C: tl.constexpr):
    """Per segment the sum of its gradients, and how many of its tokens hold the maximum; both start at zero."""
    b = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    for t in range(T):
        valid = (c < C) & (tl.load(flags + b * T + t) != 0)
        here = (b * T + t) * C + c
        place = (b * T + tl.load(segments + b * T + t)) * C + c
        equal = tl.load(x + here, mask=c < C, other=0.0) == tl.load(out + here, mask=c < C, other=0.0)
        incoming = tl.load(grad + here, mask=c < C, other=0.0).to(tl.float32)
        tl.store(sums + place, tl.load(sums + place, mask=c < C, other=0.0) + incoming, mask=valid)
        tl.store(holders + place, tl.load(holders + place, mask=c < C, other=0.0) + equal.to(tl.float32), mask=valid)


def segment_max(x: Tensor, segments: Tensor, mask: Tensor | None) -> Tensor:
    """Launch the maxima: x (B, T, C), segments and mask (B, T) -> (B, T, C)."""
    B, T, C = x.shape
    best = torch.full(x.shape, float("-inf"), dtype=torch.float32, device=x.device)
    block = min(_CHANNELS, triton.next_power_of_2(C))
    operands = (x.contiguous(), segments.contiguous(), _flags(x, mask))
    launcher(segment_max_kernel)[(B, triton.cdiv(C, block))](*operands, best, T, C, BLOCK_C=block, num_warps=4)
    out = best.gather(1, segments.unsqueeze(-1).expand_as(x)).to(x.dtype)
    return out if mask is None else out.masked_fill(~mask.unsqueeze(-1), 0.0)


def segment_max_backward(grad: Tensor, x: Tensor, out: Tensor, segments: Tensor, mask: Tensor | None) -> Tensor:
    """Launch the sums, and share each among the tokens that hold the maximum."""
    B, T, C = x.shape
    sums, holders = torch.zeros((2, *x.shape), dtype=torch.float32, device=x.device).unbind(0)
    block = min(_CHANNELS, triton.next_power_of_2(C))
    operands = (x.contiguous(), out.contiguous(), grad.contiguous(), segments.contiguous(), _flags(x, mask))
    launcher(segment_sum_kernel)[(B, triton.cdiv(C, block))](*operands, sums, holders, T, C, BLOCK_C=block, num_warps=4)
    place = segments.unsqueeze(-1).expand_as(x)
    best = x == out if mask is None else (x == out) & mask.unsqueeze(-1)
    return torch.where(best, sums.gather(1, place) / holders.gather(1, place), 0.0).to(x.dtype)


def _flags(x: Tensor, mask: Tensor | None) -> Tensor:
    valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
    return valid.to(torch.int8).contiguous()
