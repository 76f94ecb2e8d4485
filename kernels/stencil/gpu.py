"""Triton kernels of one diffusion step, of its gradient, and the host code that repeats them.

One launch a step: neighbours come from the caches, and planes that fit the second cache stay there between the steps.
Sums in float32 (float64 for float64 operands), and so are the states between steps. Every element has one writer and
there are no atomics: gradients are gathered, also where the border shows one pixel in many places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher

__all__ = ["adjoint_kernel", "products_kernel", "stencil", "stencil_backward", "step_kernel"]

_MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}
_BLOCK = 512  # with twice as many pixels the masks of the border spilled on some chips
_WARPS = 4


@triton.jit
def _shown(i, n, MODE: tl.constexpr):
    """The index within [0, n) that shows at index i, for i beyond the border; "zeros" leaves it beyond."""
    if MODE == 1:
        i = tl.where(i < 0, -i, i)
        i = tl.where(i >= n, 2 * (n - 1) - i, i)
    if MODE == 2:
        i = tl.minimum(tl.maximum(i, 0), n - 1)
    if MODE == 3:
        i = tl.where(i < 0, i + n, i)
        i = tl.where(i >= n, i - n, i)
    return i


@triton.jit
def _pixel(plane, y, x, H, W, inside):
    """Pixels of a plane in its own dtype, 0 outside."""
    return tl.load(plane + y * W + x, mask=inside & (y >= 0) & (y < H) & (x >= 0) & (x < W), other=0.0)


@triton.jit
def _laplacian(plane, middle, y, x, d, H, W, inside, MODE: tl.constexpr, ACC: tl.constexpr):
    around = _pixel(plane, _shown(y - d, H, MODE), x, H, W, inside).to(ACC)
    around += _pixel(plane, _shown(y + d, H, MODE), x, H, W, inside).to(ACC)
    around += _pixel(plane, y, _shown(x - d, W, MODE), H, W, inside).to(ACC)
    around += _pixel(plane, y, _shown(x + d, W, MODE), H, W, inside).to(ACC)
    return around - 4 * middle


@triton.jit
def step_kernel(
    u,
    coefficients,
    arms,
    source,
    gate,
    out,
    C,
    H,
    W,
    K,
    SOURCE: tl.constexpr,
    GATE: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """out = u + gate * sum_k coefficients[k, c] lap_k(u) + source, for a block of pixels of plane p, c = p mod C"""
    tiles = tl.cdiv(H * W, BLOCK)
    p = tl.program_id(0) // tiles
    plane = p.to(tl.int64) * H * W  # all planes may pass 2^31 elements, one may not
    pixel = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < H * W
    y, x = pixel // W, pixel % W
    middle = tl.load(u + plane + pixel, mask=inside, other=0.0).to(ACC)
    change = tl.zeros([BLOCK], ACC)
    for k in range(K):
        weight = tl.load(coefficients + k * C + p % C).to(ACC)
        change += weight * _laplacian(u + plane, middle, y, x, tl.load(arms + k), H, W, inside, MODE, ACC)
    if GATE:
        change *= tl.load(gate + plane + pixel, mask=inside, other=0.0).to(ACC)
    if SOURCE:
        change += tl.load(source + plane + pixel, mask=inside, other=0.0).to(ACC)
    tl.store(out + plane + pixel, (middle + change).to(out.dtype.element_ty), mask=inside)


@triton.jit
def products_kernel(
    grad,
    u,
    coefficients,
    arms,
    gate,
    h,
    partial,
    d_source,
    d_gate,
    C,
    H,
    W,
    K,
    SOURCE: tl.constexpr,
    GATE: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """h = gate * grad; partial[program, k] = sum of h lap_k(u); d_gate += grad * diffusion; d_source += grad."""
    tiles = tl.cdiv(H * W, BLOCK)
    p = tl.program_id(0) // tiles
    plane = p.to(tl.int64) * H * W
    pixel = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < H * W
    y, x = pixel // W, pixel % W
    middle = tl.load(u + plane + pixel, mask=inside, other=0.0).to(ACC)
    g = tl.load(grad + plane + pixel, mask=inside, other=0.0).to(ACC)
    inner = g
    if GATE:
        inner = g * tl.load(gate + plane + pixel, mask=inside, other=0.0).to(ACC)
        tl.store(h + plane + pixel, inner, mask=inside)
    change = tl.zeros([BLOCK], ACC)
    for k in range(K):
        lap = _laplacian(u + plane, middle, y, x, tl.load(arms + k), H, W, inside, MODE, ACC)
        change += tl.load(coefficients + k * C + p % C).to(ACC) * lap
        tl.store(partial + tl.program_id(0).to(tl.int64) * K + k, tl.sum(inner * lap, 0))
    if GATE:
        before = tl.load(d_gate + plane + pixel, mask=inside, other=0.0)
        tl.store(d_gate + plane + pixel, before + g * change, mask=inside)
    if SOURCE:
        before = tl.load(d_source + plane + pixel, mask=inside, other=0.0)
        tl.store(d_source + plane + pixel, before + g, mask=inside)


@triton.jit
def _folded(h, y, x, i, n, stride, d, inside, MODE: tl.constexpr, ACC: tl.constexpr):
    """Sum of h, along one axis, over the pixels that saw index i of n beyond the border with arms of d."""
    here = h + y - i * stride + x  # index 0 of this line
    total = tl.zeros(i.shape, ACC)
    if MODE == 1:
        other = d - i
        total += tl.load(here + other * stride, mask=inside & (i >= 1) & (other >= 0), other=0.0)
        other = 2 * (n - 1) - d - i
        total += tl.load(here + other * stride, mask=inside & (i <= n - 2) & (other < n), other=0.0)
    if MODE == 2:
        for j in range(tl.minimum(d, n)):
            total += tl.load(here + j * stride, mask=inside & (i == 0), other=0.0)
            total += tl.load(here + (n - 1 - j) * stride, mask=inside & (i == n - 1), other=0.0)
    if MODE == 3:
        total += tl.load(here + (i + d - n) * stride, mask=inside & (i + d >= n), other=0.0)
        total += tl.load(here + (i - d + n) * stride, mask=inside & (i - d < 0), other=0.0)
    return total


@triton.jit
def adjoint_kernel(
    grad, h, coefficients, arms, out, C, H, W, K, MODE: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr
):
    """out = grad + sum_k coefficients[k, c] (transpose of lap_k)(h)"""
    tiles = tl.cdiv(H * W, BLOCK)
    p = tl.program_id(0) // tiles
    plane = p.to(tl.int64) * H * W
    pixel = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < H * W
    y, x = pixel // W, pixel % W
    total = tl.load(grad + plane + pixel, mask=inside, other=0.0)
    middle = tl.load(h + plane + pixel, mask=inside, other=0.0)
    for k in range(K):
        d = tl.load(arms + k)
        back = _laplacian(h + plane, middle, y, x, d, H, W, inside, 0, ACC)
        if MODE > 0:
            back += _folded(h + plane, y * W, x, y, H, W, d, inside, MODE, ACC)
            back += _folded(h + plane, y * W, x, x, W, 1, d, inside, MODE, ACC)
        total += tl.load(coefficients + k * C + p % C).to(ACC) * back
    tl.store(out + plane + pixel, total, mask=inside)


def stencil(
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None = None,
    gate: Tensor | None = None,
    dilations: Sequence[int] = (1,),
    steps: int = 1,
    boundary: str = "replicate",
) -> Tensor:
    """Launch the steps. u (B, C, H, W), coefficients (K, C), source and gate as u or None -> as u; two buffers."""
    return _states(u, coefficients, source, gate, dilations, steps, boundary, last=u.dtype, keep=False)[-1]


def _states(
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None,
    gate: Tensor | None,
    dilations: Sequence[int],
    steps: int,
    boundary: str,
    *,
    last: torch.dtype,
    keep: bool,
) -> list[Tensor]:
    """The states after every step if they are kept, else the last one, which has its own dtype; others are wide."""
    wide, u = torch.promote_types(u.dtype, torch.float32), u.contiguous()
    coefficients, arms = coefficients.contiguous(), _arms(dilations, u)
    pushed, opened = (None if tensor is None else tensor.contiguous() for tensor in (source, gate))
    state, spare, kept = u, None, []
    for t in range(steps):
        dtype = last if t == steps - 1 else wide
        following = u.new_empty(u.shape, dtype=dtype) if spare is None or t == steps - 1 else spare
        launcher(step_kernel)[_grid(u)](
            state,
            coefficients,
            arms,
            u if pushed is None else pushed,
            u if opened is None else opened,
            following,
            *_sizes(u, dilations),
            SOURCE=pushed is not None,
            GATE=opened is not None,
            MODE=_MODES[boundary],
            BLOCK=_BLOCK,
            ACC=_accumulator(u.dtype),
            num_warps=_WARPS,
        )
        spare = None if keep or t == 0 else state  # the first state is the caller's
        state = following
        kept = [*kept, following] if keep else [following]
    return kept


def stencil_backward(
    grad: Tensor,
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None,
    gate: Tensor | None,
    dilations: Sequence[int],
    steps: int,
    boundary: str,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Launch the gradients of u, coefficients, source and gate; memory ``steps`` + 3 tensors of the size of u."""
    B, C = u.shape[:2]
    wide, u = torch.promote_types(u.dtype, torch.float32), u.contiguous()
    states = [u]
    states += _states(u, coefficients, source, gate, dilations, steps - 1, boundary, last=wide, keep=True)
    coefficients, arms, mode = coefficients.contiguous(), _arms(dilations, u), _MODES[boundary]
    opened = u if gate is None else gate.contiguous()
    g = grad.to(wide).contiguous()
    spare, h = torch.empty_like(g), g if gate is None else torch.empty_like(g)
    d_source, d_gate = (g if tensor is None else torch.zeros_like(g) for tensor in (source, gate))
    partial = g.new_empty((steps, _grid(u)[0], len(dilations)))
    blocks: dict[str, Any] = {"MODE": mode, "BLOCK": _BLOCK, "ACC": _accumulator(u.dtype), "num_warps": _WARPS}
    flags = {"SOURCE": source is not None, "GATE": gate is not None}
    sizes = _sizes(u, dilations)
    for t in reversed(range(steps)):
        inner = g if gate is None else h
        launcher(products_kernel)[_grid(u)](
            g, states[t], coefficients, arms, opened, inner, partial[t], d_source, d_gate, *sizes, **flags, **blocks
        )
        launcher(adjoint_kernel)[_grid(u)](g, inner, coefficients, arms, spare, *sizes, **blocks)
        g, spare = spare, (torch.empty_like(g) if t == steps - 1 else g)  # the first g may be the caller's
    d_coefficients = partial.view(steps, B, C, -1, len(dilations)).sum((0, 1, 3)).T
    return (
        g.to(u.dtype),
        d_coefficients.to(u.dtype).contiguous(),
        None if source is None else d_source.to(u.dtype),
        None if gate is None else d_gate.to(u.dtype),
    )


def _grid(u: Tensor) -> tuple[int]:
    return (u.shape[0] * u.shape[1] * triton.cdiv(u.shape[2] * u.shape[3], _BLOCK),)


def _sizes(u: Tensor, dilations: Sequence[int]) -> tuple[int, int, int, int]:
    return *u.shape[1:], len(dilations)


def _arms(dilations: Sequence[int], u: Tensor) -> Tensor:
    return torch.tensor(list(dilations), dtype=torch.int32, device=u.device)


def _accumulator(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32
