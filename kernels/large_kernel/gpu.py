"""Triton kernels and the host code that launches them; sums in float32 (float64 for float64 operands).

Each element of the result has one writer and there are no atomics, so results repeat bit for bit. The neighbouring
reads of a tile come from the first cache. Channels-last operands are converted to planes and back.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher
from core_attention.kernels.large_kernel.eager import memory_format

__all__ = ["convolution_kernel", "correlation_kernel", "large_kernel", "large_kernel_correlation"]

_WARPS = 4
_BLOCK_X = 64
_BLOCK_Y = 16
_BLOCK = 1024


@triton.jit
def convolution_kernel(
    x,
    weight,
    bias,
    out,
    C,
    H,
    W,
    KH: tl.constexpr,
    KW: tl.constexpr,
    BIASED: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
    ACC: tl.constexpr,
):
    """out[p, y, x] = bias[c] + sum_ij weight[c, i, j] x[p, y + i - KH // 2, x + j - KW // 2], c = p mod C"""
    tiles_x = tl.cdiv(W, BLOCK_X)
    tiles = tiles_x * tl.cdiv(H, BLOCK_Y)
    p, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    plane = p.to(tl.int64) * H * W  # all planes may pass 2^31 elements, one may not
    c = p % C
    ys = (tile // tiles_x) * BLOCK_Y + tl.arange(0, BLOCK_Y)
    xs = (tile % tiles_x) * BLOCK_X + tl.arange(0, BLOCK_X)
    total = tl.zeros([BLOCK_Y, BLOCK_X], ACC)
    if BIASED:
        total += tl.load(bias + c).to(ACC)
    for i in range(KH):
        y = ys + i - KH // 2
        in_y = (y >= 0) & (y < H)
        for j in range(KW):
            at = xs + j - KW // 2
            inside = in_y[:, None] & ((at >= 0) & (at < W))[None, :]
            tap = tl.load(weight + (c * KH + i) * KW + j).to(ACC)
            total += tap * tl.load(x + plane + (y * W)[:, None] + at[None, :], mask=inside, other=0.0).to(ACC)
    inside = (ys < H)[:, None] & (xs < W)[None, :]
    tl.store(out + plane + (ys * W)[:, None] + xs[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def correlation_kernel(
    x, grad, out, B, C, H, W, KH: tl.constexpr, KW: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr
):
    """out[c, i, j] = sum over samples and pixels of grad[b, c, y, x] x[b, c, y + i - KH // 2, x + j - KW // 2]"""
    c, tap = tl.program_id(0) // (KH * KW), tl.program_id(0) % (KH * KW)
    down, right = tap // KW - KH // 2, tap % KW - KW // 2
    total = tl.zeros([BLOCK], ACC)
    for b in range(B):
        plane = (b * C + c).to(tl.int64) * H * W
        for start in range(0, H * W, BLOCK):
            pixel = start + tl.arange(0, BLOCK)
            y, at = pixel // W + down, pixel % W + right
            inside = (pixel < H * W) & (y >= 0) & (y < H) & (at >= 0) & (at < W)
            seen = tl.load(x + plane + y * W + at, mask=inside, other=0.0).to(ACC)
            total += seen * tl.load(grad + plane + pixel, mask=inside, other=0.0).to(ACC)
    tl.store(out + tl.program_id(0), tl.sum(total, 0).to(out.dtype.element_ty))


def large_kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Launch the convolution. x (B, C, H, W), weight (C, 1, kh, kw), bias (C,) or None -> as x, in its format."""
    B, C, H, W = x.shape
    planes, weight = x.contiguous(), weight.contiguous()
    out = torch.empty_like(planes)
    block_x = min(_BLOCK_X, triton.next_power_of_2(W))
    block_y = min(_BLOCK_Y, triton.next_power_of_2(H))
    launcher(convolution_kernel)[(B * C * triton.cdiv(H, block_y) * triton.cdiv(W, block_x),)](
        planes,
        weight,
        weight if bias is None else bias.contiguous(),
        out,
        C,
        H,
        W,
        KH=weight.shape[2],
        KW=weight.shape[3],
        BIASED=bias is not None,
        BLOCK_Y=block_y,
        BLOCK_X=block_x,
        ACC=_accumulator(x.dtype),
        num_warps=_WARPS,
    )
    return out.contiguous(memory_format=memory_format(x))


def large_kernel_correlation(x: Tensor, grad: Tensor, kh: int, kw: int) -> Tensor:
    """Launch the gradient of the weight. x and grad (B, C, H, W) -> (C, 1, kh, kw); a program a tap of a channel."""
    B, C, H, W = x.shape
    out = x.new_empty((C, 1, kh, kw))
    launcher(correlation_kernel)[(C * kh * kw,)](
        x.contiguous(),
        grad.contiguous(),
        out,
        B,
        C,
        H,
        W,
        KH=kh,
        KW=kw,
        BLOCK=min(_BLOCK, triton.next_power_of_2(H * W)),
        ACC=_accumulator(x.dtype),
        num_warps=_WARPS,
    )
    return out


def _accumulator(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32
