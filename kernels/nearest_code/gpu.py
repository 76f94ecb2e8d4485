"""Triton kernels: the search keeps a running best per token, so scores never leave the registers.

Scores are sums in float32. The codes' gradient is a product of zeros and ones with the incoming gradient, cut into
stretches of tokens whose partial sums are added in order afterwards: no atomics, so both results repeat bit for bit.
float64 operands are refused (``operators.py``).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher
from core_attention.kernels.nearest_code.eager import grouped, scored_codes

__all__ = ["codes_gradient_kernel", "nearest_code", "nearest_code_backward", "search_kernel"]

_TOKENS, _CODES, _CHANNELS = 32, 32, 32  # twice the channels spilled in float32, whose products hold much in registers
_PROGRAMS = 512  # enough to fill a large chip: the tokens are cut until so many run
_WARPS = 4


@triton.jit
def search_kernel(
    x,
    codes,
    weights,
    offsets,
    mask,
    quantised,
    index,
    N,
    H,
    K,
    D,
    GROUP,
    MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """index[n, h] = argmax_k <x[n, h], weights[h, k]> + offsets[h, k], lowest first; quantised = codes[h, index]."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    h = tl.program_id(1)
    d = tl.arange(0, BLOCK_D)
    token = (n.to(tl.int64) * H + h) * D
    inside = n < N
    best = tl.full([BLOCK_N], float("-inf"), tl.float32)
    nearest = tl.zeros([BLOCK_N], tl.int32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        row = (h * K + k).to(tl.int64) * D
        score = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
        for start in range(0, D, BLOCK_D):
            wide = (start + d) < D
            left = tl.load(x + token[:, None] + (start + d)[None, :], mask=inside[:, None] & wide[None, :], other=0.0)
            right = tl.load(
                weights + row[None, :] + (start + d)[:, None], mask=(k < K)[None, :] & wide[:, None], other=0.0
            )
            score = tl.dot(left.to(right.dtype), right, score, input_precision="ieee")
        score += tl.load(offsets + h * K + k, mask=k < K, other=0.0)[None, :]
        score = tl.where((k < K)[None, :], score, float("-inf"))
        top = tl.max(score, 1)
        where = tl.min(tl.where(score == top[:, None], k[None, :], K), 1)
        better = top > best
        nearest = tl.where(better, where, nearest)
        best = tl.where(better, top, best)
    kept = inside
    if MASKED:
        kept = inside & (tl.load(mask + n // GROUP, mask=inside, other=0) != 0)
    tl.store(index + n.to(tl.int64) * H + h, tl.where(kept, nearest, -1).to(tl.int64), mask=inside)
    code = (h * K + nearest).to(tl.int64) * D
    for start in range(0, D, BLOCK_D):
        wide = (start + d) < D
        value = tl.load(codes + code[:, None] + (start + d)[None, :], mask=kept[:, None] & wide[None, :], other=0.0)
        place = quantised + token[:, None] + (start + d)[None, :]
        tl.store(place, value.to(quantised.dtype.element_ty), mask=inside[:, None] & wide[None, :])


@triton.jit
def codes_gradient_kernel(
    grad, index, partial, N, H, K, D, SPAN, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr
):
    """partial[s, h, k] = sum over the tokens n of stretch s with index[n, h] = k of grad[n, h]."""
    tiles = tl.cdiv(D, BLOCK_D)
    k = (tl.program_id(0) // tiles) * BLOCK_K + tl.arange(0, BLOCK_K)
    d = (tl.program_id(0) % tiles) * BLOCK_D + tl.arange(0, BLOCK_D)
    h = tl.program_id(1)
    s = tl.program_id(2)
    total = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    for start in range(s * SPAN, min(N, (s + 1) * SPAN), BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        token = n.to(tl.int64) * H + h
        owner = tl.load(index + token, mask=n < N, other=-1)
        rows = tl.load(grad + token[:, None] * D + d[None, :], mask=(owner >= 0)[:, None] & (d < D)[None, :], other=0.0)
        belongs = (owner[None, :] == k[:, None]).to(rows.dtype)
        total = tl.dot(belongs, rows, total, input_precision="ieee")
    code = (s.to(tl.int64) * H + h) * K + k
    tl.store(partial + code[:, None] * D + d[None, :], total, mask=(k < K)[:, None] & (d < D)[None, :])


def nearest_code(
    x: Tensor, codes: Tensor, mask: Tensor | None = None, *, metric: str = "euclidean", train_codes: bool = False
) -> tuple[Tensor, Tensor]:
    """Launch the search. x (B, T, D) or (B, T, H, D), codes (K, D) or (H, K, D), mask (B, T) -> quantised, index."""
    rows, books = grouped(x.contiguous(), codes.contiguous())
    weights, offsets = scored_codes(books, metric)
    exact = metric != "cosine" and books.dtype == x.dtype  # then the product takes the operands' own, narrower bits
    N, H, D = rows.shape
    quantised = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    index = torch.empty(x.shape[:-1], dtype=torch.int64, device=x.device)
    launcher(search_kernel)[(triton.cdiv(N, _TOKENS), H)](
        rows,
        books,
        books if exact else weights.contiguous(),
        offsets,
        index if mask is None else mask.contiguous().view(torch.int8),
        quantised,
        index,
        N,
        H,
        books.shape[1],
        D,
        N // (x.shape[0] * x.shape[1]),
        MASKED=mask is not None,
        BLOCK_N=_TOKENS,
        BLOCK_K=_CODES,
        BLOCK_D=_channels(D),
        num_warps=_WARPS,
    )
    return quantised, index


def nearest_code_backward(grad: Tensor, index: Tensor, codes: Tensor) -> Tensor:
    """Launch the codes' gradient: the sum of ``grad`` over the tokens of each code; -1 belongs to none."""
    K, D = codes.shape[-2:]
    H = codes.shape[0] if codes.dim() == 3 else 1
    N = index.numel() // H
    block_d = _channels(D)
    tiles = triton.cdiv(K, _CODES) * triton.cdiv(D, block_d)
    stretches = max(1, min(triton.cdiv(N, 4 * _TOKENS), triton.cdiv(_PROGRAMS, tiles * H)))
    span = triton.cdiv(triton.cdiv(N, stretches), _TOKENS) * _TOKENS
    stretches = triton.cdiv(N, span)
    partial = torch.empty((stretches, H, K, D), dtype=torch.float32, device=grad.device)
    launcher(codes_gradient_kernel)[(tiles, H, stretches)](
        grad.contiguous(),
        index,
        partial,
        N,
        H,
        K,
        D,
        span,
        BLOCK_N=_TOKENS,
        BLOCK_K=_CODES,
        BLOCK_D=block_d,
        num_warps=_WARPS,
    )
    return partial.sum(0).to(codes.dtype).view(codes.shape)


def _channels(D: int) -> int:
    """Channels a tile: a power of two, at least the sixteen that a matrix product of tiles asks for."""
    return max(16, min(_CHANNELS, triton.next_power_of_2(D)))
