"""Triton kernels: signs are made on the way into the tensor cores, and never stand in memory.

Products of -1 and +1 in bfloat16 with sums in float32 are exact. Counting bits of packed words was weighed against it:
the chip's ordinary units count at a fraction of the tensor cores' rate, and x and weight must be read in full either
way. No atomics, so results repeat bit for bit. float64 operands are refused (``operators.py``).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher
from core_attention.kernels.binary_matmul.eager import default_scale, scale_gradient, thresholds, weight_gradient

__all__ = ["binary_matmul", "binary_matmul_backward", "forward_kernel", "products_kernel", "rows_gradient_kernel"]

_BLOCK = 32  # of the gradients, whose float32 products run on the ordinary units and hold their operands in registers
_LONG = 64  # features at a time in the forward pass, whose tiles are half as wide
_WARPS = 4


@triton.jit
def forward_kernel(
    x, weight, limits, scale, out, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):
    """out[m, n] = scale[n] sum_k sign(x[m, k]) sign(weight[n, k] - limits[n])."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row, column = m.to(tl.int64) * K, n.to(tl.int64) * K
    limit = tl.load(limits + n, mask=n < N, other=0.0)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(x + row[:, None] + k[None, :], mask=(m < M)[:, None] & (k < K)[None, :], other=0.0)
        right = tl.load(weight + column[None, :] + k[:, None], mask=(n < N)[None, :] & (k < K)[:, None], other=0.0)
        left = tl.where((k < K)[None, :], tl.where(left.to(tl.float32) < 0.0, -1.0, 1.0), 0.0)
        right = tl.where(right.to(tl.float32) < limit[None, :], -1.0, 1.0)
        total = tl.dot(left.to(tl.bfloat16), right.to(tl.bfloat16), total)
    total *= tl.load(scale + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    place = out + m.to(tl.int64)[:, None] * N + n[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(m < M)[:, None] & (n < N)[None, :])


@triton.jit
def rows_gradient_kernel(
    grad,
    x,
    weight,
    limits,
    scale,
    d_x,
    M,
    N,
    K,
    NARROW: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """d_x[m, k] = 1[|x[m, k]| < 1] sum_n grad[m, n] scale[n] sign(weight[n, k] - limits[n])."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    row = m.to(tl.int64)
    total = tl.zeros([BLOCK_M, BLOCK_K], tl.float32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        left = tl.load(grad + row[:, None] * N + n[None, :], mask=(m < M)[:, None] & (n < N)[None, :], other=0.0)
        place = weight + n.to(tl.int64)[:, None] * K + k[None, :]
        right = tl.load(place, mask=(n < N)[:, None] & (k < K)[None, :], other=0.0).to(tl.float32)
        limit = tl.load(limits + n, mask=n < N, other=0.0)
        factor = tl.load(scale + n, mask=n < N, other=0.0).to(tl.float32)
        right = tl.where(right < limit[:, None], -factor[:, None], factor[:, None])
        if NARROW:  # grad and scale share a half-width dtype, so nothing is lost by a product of half-width tiles
            right = right.to(left.dtype)
        else:
            left = left.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    inside = (m < M)[:, None] & (k < K)[None, :]
    value = tl.load(x + row[:, None] * K + k[None, :], mask=inside, other=0.0).to(tl.float32)
    total = tl.where(tl.abs(value) < 1.0, total, 0.0)
    tl.store(d_x + row[:, None] * K + k[None, :], total.to(d_x.dtype.element_ty), mask=inside)


@triton.jit
def products_kernel(grad, x, products, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """products[n, k] = sum_m grad[m, n] sign(x[m, k])."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for start in range(0, M, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        row = m.to(tl.int64)
        left = tl.load(grad + row[None, :] * N + n[:, None], mask=(m < M)[None, :] & (n < N)[:, None], other=0.0)
        right = tl.load(x + row[:, None] * K + k[None, :], mask=(m < M)[:, None] & (k < K)[None, :], other=0.0)
        right = tl.where(right.to(tl.float32) < 0.0, -1.0, 1.0)
        total = tl.dot(left, right.to(left.dtype), total, input_precision="ieee")
    place = products + n.to(tl.int64)[:, None] * K + k[None, :]
    tl.store(place, total, mask=(n < N)[:, None] & (k < K)[None, :])


def binary_matmul(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    *,
    centre: bool = True,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Launch the product. x (..., K), weight (N, K), scale (N,) -> (..., N), in another dtype if one is given."""
    rows, weight = x.reshape(-1, x.shape[-1]).contiguous(), weight.contiguous()
    (M, K), N = rows.shape, weight.shape[0]
    out = torch.empty((*x.shape[:-1], N), dtype=dtype or x.dtype, device=x.device)
    factor = (default_scale(weight) if scale is None else scale).contiguous()
    grid = (triton.cdiv(M, _BLOCK), triton.cdiv(N, _BLOCK))
    launcher(forward_kernel)[grid](
        rows, weight, thresholds(weight, centre), factor, out, M, N, K, **_blocks(_LONG), num_warps=_WARPS
    )
    return out


def binary_matmul_backward(
    grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor | None, *, centre: bool, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Launch the gradients of x, and of weight and scale, each where wanted."""
    rows, weight, grad = x.reshape(-1, x.shape[-1]).contiguous(), weight.contiguous(), grad.contiguous()
    (M, K), N = rows.shape, weight.shape[0]
    d_x = d_weight = d_scale = None
    if wanted[0]:
        d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        factor = (default_scale(weight) if scale is None else scale).contiguous()
        launcher(rows_gradient_kernel)[(triton.cdiv(M, _BLOCK), triton.cdiv(K, _BLOCK))](
            grad,
            rows,
            weight,
            thresholds(weight, centre),
            factor,
            d_x,
            M,
            N,
            K,
            NARROW=factor.dtype == grad.dtype and grad.dtype.itemsize == 2,
            **_blocks(),
            num_warps=_WARPS,
        )
    if wanted[1]:
        products = torch.empty((N, K), dtype=torch.float32, device=x.device)
        launcher(products_kernel)[(triton.cdiv(N, _BLOCK), triton.cdiv(K, _BLOCK))](
            grad, rows, products, M, N, K, **_blocks(), num_warps=_WARPS
        )
        d_weight = weight_gradient(products, weight, scale, centre)
    if wanted[2] and scale is not None:
        counted = binary_matmul(rows, weight, torch.ones_like(scale), centre=centre, dtype=torch.float32)
        d_scale = scale_gradient(grad.reshape(M, N).float(), counted, scale)
    return d_x, d_weight, d_scale


def _blocks(features: int = _BLOCK) -> dict[str, int]:
    return {"BLOCK_M": _BLOCK, "BLOCK_N": _BLOCK, "BLOCK_K": features}
