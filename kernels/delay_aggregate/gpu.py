"""Triton kernels and the host code that launches them; sums in float32 (float64 for float64 operands).

Neither kernel uses atomics: the aggregate writes each element once, the correlation writes one partial sum a tile of
time steps, added up afterwards, so results repeat bit for bit. Gradients are these same kernels (``operators.py``).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher

__all__ = ["aggregate_kernel", "correlation_kernel", "delay_aggregate", "delay_correlation"]

_TILE = 2048  # elements of a tile: 16 a thread at four warps; twice that took up to 255 registers and spilled
_MAX_CHANNELS = 256
_WARPS = 4


@triton.jit
def aggregate_kernel(
    values, lags, weights, out, T, C, K, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr
):
    """out[b, t, c] = sum_i weights[b, i] values[b, (t + lags[b, i]) mod T, c]; lags in [0, T)."""
    tiles = tl.cdiv(T, BLOCK_T)
    b = tl.program_id(0) // tiles
    sample = b.to(tl.int64) * T * C  # B T C may pass 2^31, T C may not
    t = (tl.program_id(0) % tiles) * BLOCK_T + tl.arange(0, BLOCK_T)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (t < T)[:, None] & (c < C)[None, :]
    total = tl.zeros([BLOCK_T, BLOCK_C], ACC)
    for i in range(K):
        row = t + tl.load(lags + b * K + i).to(tl.int32)
        row = tl.where(row >= T, row - T, row)
        tile = tl.load(values + sample + (row * C)[:, None] + c[None, :], mask=inside, other=0.0)
        total += tl.load(weights + b * K + i).to(ACC) * tile.to(ACC)
    tl.store(out + sample + (t * C)[:, None] + c[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def correlation_kernel(q, k, lags, partial, T, C, K, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """partial[b, tile, i] = sum over t in the tile and c of q[b, t, c] k[b, (t - lags[b, i]) mod T, c], 0 <= lag < T"""
    tiles = tl.cdiv(T, BLOCK_T)
    b = tl.program_id(0) // tiles
    sample = b.to(tl.int64) * T * C
    t = (tl.program_id(0) % tiles) * BLOCK_T + tl.arange(0, BLOCK_T)
    i = tl.program_id(1)
    row = t - tl.load(lags + b * K + i).to(tl.int32)
    row = tl.where(row < 0, row + T, row)
    total = tl.zeros([BLOCK_T, BLOCK_C], ACC)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        inside = (t < T)[:, None] & (c < C)[None, :]
        left = tl.load(q + sample + (t * C)[:, None] + c[None, :], mask=inside, other=0.0)
        right = tl.load(k + sample + (row * C)[:, None] + c[None, :], mask=inside, other=0.0)
        total += left.to(ACC) * right.to(ACC)
    tl.store(partial + tl.program_id(0).to(tl.int64) * K + i, tl.sum(tl.sum(total, 1), 0))


def delay_aggregate(values: Tensor, lags: Tensor, weights: Tensor) -> Tensor:
    """Launch the aggregate. values (B, T, H, D), lags and weights (B, K) -> (B, T, H, D); one pass over the output."""
    B, T, H, D = values.shape
    _check_size(T, H * D)
    values, weights = values.contiguous(), weights.contiguous()
    out = torch.empty_like(values)
    block_t, block_c = _blocks(T, H * D)
    grid = (B * triton.cdiv(T, block_t), triton.cdiv(H * D, block_c))
    launcher(aggregate_kernel)[grid](
        values,
        _wrapped(lags, T),
        weights,
        out,
        T,
        H * D,
        lags.shape[1],
        BLOCK_T=block_t,
        BLOCK_C=block_c,
        ACC=_accumulator(values.dtype),
        num_warps=_WARPS,
    )
    return out


def delay_correlation(q: Tensor, k: Tensor, lags: Tensor, scale: float | None = None) -> Tensor:
    """Launch the correlation. q and k (B, T, H, D), lags (B, K) -> (B, K), by partial sums of tiles of time steps."""
    B, T, H, D = q.shape
    K = lags.shape[1]
    _check_size(T, H * D)
    block_t, block_c = _blocks(T, H * D)
    tiles = triton.cdiv(T, block_t)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    partial = torch.empty((B, tiles, K), dtype=wide, device=q.device)
    launcher(correlation_kernel)[(B * tiles, K)](
        q.contiguous(),
        k.contiguous(),
        _wrapped(lags, T),
        partial,
        T,
        H * D,
        K,
        BLOCK_T=block_t,
        BLOCK_C=block_c,
        ACC=_accumulator(q.dtype),
        num_warps=_WARPS,
    )
    return (partial.sum(1) * (1 / (H * D) if scale is None else scale)).to(q.dtype)


def _wrapped(lags: Tensor, T: int) -> Tensor:
    """Lags in [0, T), contiguous: one comparison in the kernel then wraps a row."""
    return torch.remainder(lags, T).contiguous()


def _check_size(T: int, C: int) -> None:
    """Offsets within a sample are 32 bits wide in the kernels: half the registers of 64."""
    if T * C + _TILE >= 2**31:
        raise ValueError(f"T x H x D = {T * C} elements a sample, the Triton kernels take fewer than 2^31; use eager")


def _blocks(T: int, C: int) -> tuple[int, int]:
    """Tile sizes in time and channels: powers of two, as wide as the channels allow, at most ``_TILE`` elements."""
    block_c = min(_MAX_CHANNELS, triton.next_power_of_2(C))
    block_t = min(_TILE // block_c, 64, triton.next_power_of_2(T))
    return block_t, block_c


def _accumulator(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32
