"""Triton kernels and the host code that launches them: attention over boxes that are read through a table of rows.

A program serves up to BLOCK tokens of one box (a tile) and one head, and walks over the box. Sums and softmax are in
float32 (float64 for float64 operands); products of float32 operands are exact ("ieee"). Nothing is saved for the
backward pass: its first kernel walks twice, once for each row's log-sum-exp and the row sum that the softmax's
derivative needs, once for the gradients of queries and bias; the second makes those of keys and values. Only the bias
is added up by atomics, so the forward pass repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._dispatch import interpreting
from core_attention.kernels._launch import launcher
from core_attention.kernels.window_nd.tables import tiles

__all__ = ["window_dkv_kernel", "window_dq_kernel", "window_kernel", "window_nd", "window_nd_backward"]


@triton.jit
def _scores(
    q, k, places_m, places_n, seen, bias, h, W, scale, BIASED: tl.constexpr, ACC: tl.constexpr
):  # one tile of scores, -inf where a key is not seen
    s = tl.dot(q, tl.trans(k), input_precision="ieee", out_dtype=ACC) * scale
    if BIASED:
        at = bias + (h.to(tl.int64) * W + places_m[:, None]) * W + places_n[None, :]
        s += tl.load(at, mask=seen, other=0.0).to(ACC)
    return tl.where(seen, s, float("-inf"))


@triton.jit
def window_kernel(
    qkv, mask, bias, order, places, table, out, T, H, D, W, scale, tile_count,
    MASKED: tl.constexpr, BIASED: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """out[b, t, h] for the tokens t of one tile, by an online softmax over their box."""
    tile, bh = tl.program_id(0) % tile_count, tl.program_id(0) // tile_count
    b, h = (bh // H).to(tl.int64), bh % H
    start, length = tl.load(table + 3 * tile), tl.load(table + 3 * tile + 1)
    m = tl.load(table + 3 * tile + 2) + tl.arange(0, BLOCK)
    d = tl.arange(0, BLOCK_D)
    inside_m, channel = m < length, (d < D)[None, :]
    rows = tl.load(order + start + m, mask=inside_m, other=0)
    places_m = tl.load(places + start + m, mask=inside_m, other=0)
    sample = qkv + b * T * 3 * H * D + h * D
    q = tl.load(sample + (rows * (3 * H * D))[:, None] + d[None, :], mask=inside_m[:, None] & channel, other=0.0)
    highest = tl.full([BLOCK], float("-inf"), ACC)
    total = tl.zeros([BLOCK], ACC)
    summed = tl.zeros([BLOCK, BLOCK_D], ACC)
    for first in range(0, length, BLOCK):
        n = first + tl.arange(0, BLOCK)
        seen_n = n < length
        columns = tl.load(order + start + n, mask=seen_n, other=0)
        places_n = tl.load(places + start + n, mask=seen_n, other=0)
        at = sample + (columns * (3 * H * D))[:, None] + d[None, :]
        real = seen_n[:, None] & channel
        k = tl.load(at + H * D, mask=real, other=0.0)
        if MASKED:
            seen_n = seen_n & (tl.load(mask + b * T + columns, mask=seen_n, other=0) != 0)
        s = _scores(q, k, places_m, places_n, inside_m[:, None] & seen_n[None, :], bias, h, W, scale, BIASED, ACC)
        higher = tl.maximum(highest, tl.max(s, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp(s - level[:, None])
        shrink = tl.exp(highest - level)
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(at + 2 * H * D, mask=real, other=0.0)
        summed = summed * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee", out_dtype=ACC)
        highest = higher
    summed = summed / tl.where(total == 0.0, 1.0, total)[:, None]
    at = out + b * T * H * D + h * D + (rows * (H * D))[:, None] + d[None, :]
    tl.store(at, summed.to(out.dtype.element_ty), mask=inside_m[:, None] & channel)


@triton.jit
def window_dq_kernel(
    qkv, mask, bias, grad, order, places, table, d_qkv, d_bias, level, dots, T, H, D, W, scale, tile_count,
    MASKED: tl.constexpr, BIASED: tl.constexpr, TO_BIAS: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of the queries of one tile; level[b, h, t] = log-sum-exp, dots[b, h, t] = sum_j p_j <grad, v_j>."""
    tile, bh = tl.program_id(0) % tile_count, tl.program_id(0) // tile_count
    b, h = (bh // H).to(tl.int64), bh % H
    start, length = tl.load(table + 3 * tile), tl.load(table + 3 * tile + 1)
    m = tl.load(table + 3 * tile + 2) + tl.arange(0, BLOCK)
    d = tl.arange(0, BLOCK_D)
    inside_m, channel = m < length, (d < D)[None, :]
    rows = tl.load(order + start + m, mask=inside_m, other=0)
    places_m = tl.load(places + start + m, mask=inside_m, other=0)
    offset = b * T * 3 * H * D + h * D
    sample = qkv + offset
    real_m = inside_m[:, None] & channel
    q = tl.load(sample + (rows * (3 * H * D))[:, None] + d[None, :], mask=real_m, other=0.0)
    g = tl.load(grad + b * T * H * D + h * D + (rows * (H * D))[:, None] + d[None, :], mask=real_m, other=0.0)
    highest = tl.full([BLOCK], float("-inf"), ACC)
    total = tl.zeros([BLOCK], ACC)
    dot = tl.zeros([BLOCK], ACC)
    for first in range(0, length, BLOCK):
        n = first + tl.arange(0, BLOCK)
        seen_n = n < length
        columns = tl.load(order + start + n, mask=seen_n, other=0)
        places_n = tl.load(places + start + n, mask=seen_n, other=0)
        at = sample + (columns * (3 * H * D))[:, None] + d[None, :]
        real = seen_n[:, None] & channel
        k = tl.load(at + H * D, mask=real, other=0.0)
        if MASKED:
            seen_n = seen_n & (tl.load(mask + b * T + columns, mask=seen_n, other=0) != 0)
        s = _scores(q, k, places_m, places_n, inside_m[:, None] & seen_n[None, :], bias, h, W, scale, BIASED, ACC)
        higher = tl.maximum(highest, tl.max(s, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp(s - base[:, None])
        shrink = tl.exp(highest - base)
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(at + 2 * H * D, mask=real, other=0.0)
        dot = dot * shrink + tl.sum(p * tl.dot(g, tl.trans(v), input_precision="ieee", out_dtype=ACC), 1)
        highest = higher
    # Without a key the level is 0 and every p below exp(-inf) = 0.
    none = total == 0.0
    base = tl.where(none, 0.0, highest + tl.log(tl.where(none, 1.0, total)))
    dot = dot / tl.where(none, 1.0, total)
    tl.store(level + bh.to(tl.int64) * T + rows, base, mask=inside_m)
    tl.store(dots + bh.to(tl.int64) * T + rows, dot, mask=inside_m)
    dq = tl.zeros([BLOCK, BLOCK_D], ACC)
    for first in range(0, length, BLOCK):
        n = first + tl.arange(0, BLOCK)
        seen_n = n < length
        columns = tl.load(order + start + n, mask=seen_n, other=0)
        places_n = tl.load(places + start + n, mask=seen_n, other=0)
        at = sample + (columns * (3 * H * D))[:, None] + d[None, :]
        real = seen_n[:, None] & channel
        k = tl.load(at + H * D, mask=real, other=0.0)
        if MASKED:
            seen_n = seen_n & (tl.load(mask + b * T + columns, mask=seen_n, other=0) != 0)
        seen = inside_m[:, None] & seen_n[None, :]
        s = _scores(q, k, places_m, places_n, seen, bias, h, W, scale, BIASED, ACC)
        v = tl.load(at + 2 * H * D, mask=real, other=0.0)
        dp = tl.dot(g, tl.trans(v), input_precision="ieee", out_dtype=ACC)
        ds = tl.exp(s - base[:, None]) * (dp - dot[:, None])
        dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee", out_dtype=ACC)
        if TO_BIAS:
            at_bias = d_bias + (h.to(tl.int64) * W + places_m[:, None]) * W + places_n[None, :]
            tl.atomic_add(at_bias, ds, mask=seen, sem="relaxed")
    at = d_qkv + offset + (rows * (3 * H * D))[:, None] + d[None, :]
    tl.store(at, (dq * scale).to(d_qkv.dtype.element_ty), mask=real_m)


@triton.jit
def window_dkv_kernel(
    qkv, mask, bias, grad, order, places, table, d_qkv, level, dots, T, H, D, W, scale, tile_count,
    MASKED: tl.constexpr, BIASED: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of the keys and values of one tile, by a walk over the queries of the box."""
    tile, bh = tl.program_id(0) % tile_count, tl.program_id(0) // tile_count
    b, h = (bh // H).to(tl.int64), bh % H
    start, length = tl.load(table + 3 * tile), tl.load(table + 3 * tile + 1)
    n = tl.load(table + 3 * tile + 2) + tl.arange(0, BLOCK)
    d = tl.arange(0, BLOCK_D)
    inside_n, channel = n < length, (d < D)[None, :]
    columns = tl.load(order + start + n, mask=inside_n, other=0)
    places_n = tl.load(places + start + n, mask=inside_n, other=0)
    offset = b * T * 3 * H * D + h * D
    sample = qkv + offset
    real_n = inside_n[:, None] & channel
    at_n = (columns * (3 * H * D))[:, None] + d[None, :]
    k = tl.load(sample + at_n + H * D, mask=real_n, other=0.0)
    v = tl.load(sample + at_n + 2 * H * D, mask=real_n, other=0.0)
    seen_n = inside_n
    if MASKED:
        seen_n = seen_n & (tl.load(mask + b * T + columns, mask=inside_n, other=0) != 0)
    dk = tl.zeros([BLOCK, BLOCK_D], ACC)
    dv = tl.zeros([BLOCK, BLOCK_D], ACC)
    for first in range(0, length, BLOCK):
        m = first + tl.arange(0, BLOCK)
        inside_m = m < length
        rows = tl.load(order + start + m, mask=inside_m, other=0)
        places_m = tl.load(places + start + m, mask=inside_m, other=0)
        real_m = inside_m[:, None] & channel
        q = tl.load(sample + (rows * (3 * H * D))[:, None] + d[None, :], mask=real_m, other=0.0)
        g = tl.load(grad + b * T * H * D + h * D + (rows * (H * D))[:, None] + d[None, :], mask=real_m, other=0.0)
        base = tl.load(level + bh.to(tl.int64) * T + rows, mask=inside_m, other=0.0)
        dot = tl.load(dots + bh.to(tl.int64) * T + rows, mask=inside_m, other=0.0)
        s = _scores(q, k, places_m, places_n, inside_m[:, None] & seen_n[None, :], bias, h, W, scale, BIASED, ACC)
        p = tl.exp(s - base[:, None])
        dv += tl.dot(tl.trans(p).to(g.dtype), g, input_precision="ieee", out_dtype=ACC)
        dp = tl.dot(g, tl.trans(v), input_precision="ieee", out_dtype=ACC)
        ds = p * (dp - dot[:, None])
        dk += tl.dot(tl.trans(ds).to(q.dtype), q, input_precision="ieee", out_dtype=ACC)
    tl.store(d_qkv + offset + at_n + H * D, (dk * scale).to(d_qkv.dtype.element_ty), mask=real_n)
    tl.store(d_qkv + offset + at_n + 2 * H * D, dv.to(d_qkv.dtype.element_ty), mask=real_n)


def window_nd(
    qkv: Tensor,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """qkv (B, T, 3, H, D), mask (B, T), bias (H, W, W) -> (B, T, H, D); memory beyond the result: the tables."""
    B, T, _, H, D = qkv.shape
    qkv, mask, bias = _packed(qkv, mask, bias)
    out = qkv.new_empty((B, T, H, D))
    tables, settings = _plan(qkv, mask, bias, grid, window, shift)
    launcher(window_kernel)[(B * H * len(tables[2]),)](
        qkv, mask, bias, *tables, out, T, H, D, _places(bias), scale, len(tables[2]), **settings
    )
    return out


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
    """Gradients of qkv and bias by name; memory beyond them: two numbers a row and head, a wide copy of the bias."""
    B, T, _, H, D = qkv.shape
    qkv, mask, bias = _packed(qkv, mask, bias)
    grad = grad.contiguous()
    tables, settings = _plan(qkv, mask, bias, grid, window, shift)
    wide = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    level, dots = (torch.empty((B, H, T), dtype=wide, device=qkv.device) for _ in range(2))
    d_qkv, to_bias = torch.empty_like(qkv), bias is not None and "bias" in wanted
    d_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and to_bias else None
    sizes = (T, H, D, _places(bias), scale, len(tables[2]))
    launched = (B * H * len(tables[2]),)
    launcher(window_dq_kernel)[launched](
        qkv, mask, bias, grad, *tables, d_qkv, d_bias, level, dots, *sizes, TO_BIAS=to_bias, **settings
    )
    launcher(window_dkv_kernel)[launched](qkv, mask, bias, grad, *tables, d_qkv, level, dots, *sizes, **settings)
    return {"qkv": d_qkv} if d_bias is None else {"qkv": d_qkv, "bias": d_bias.to(qkv.dtype)}


def _packed(qkv: Tensor, mask: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Contiguous operands; the mask as bytes."""
    return (
        qkv.contiguous(),
        None if mask is None else mask.contiguous().view(torch.uint8),
        None if bias is None else bias.contiguous(),
    )


def _plan(
    qkv: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
    """Tables on the device, and the constants of the kernels: tiles of 16 to 64 rows, as many as spill no registers."""
    block_d, narrow = max(16, triton.next_power_of_2(qkv.shape[-1])), qkv.element_size() == 2
    block = (64 if block_d == 16 else min(32, 2048 // block_d)) if narrow else 16
    block = 16 if _is_amd() else block
    settings = {
        "MASKED": mask is not None,
        "BIASED": bias is not None,
        "BLOCK": block,
        "BLOCK_D": block_d,
        "ACC": tl.float64 if qkv.dtype == torch.float64 else tl.float32,
        "num_warps": 8 if block_d > 64 and not narrow else 4,
    }
    return tiles(tuple(grid), tuple(window), tuple(shift), block, qkv.device), settings


def _is_amd() -> bool:
    """AMD's compiler keeps masks in scalar registers, which more than 16 rows spill."""
    if interpreting():
        return False
    return triton.runtime.driver.active.get_current_target().backend == "hip"


def _places(bias: Tensor | None) -> int:
    return 0 if bias is None else bias.shape[-1]
