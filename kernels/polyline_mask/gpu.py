"""Triton kernels and the host code that launches them; sums in float32.

``attend_kernel`` goes over all places tile by tile and makes the mask's entries where they are used, as products of two
straight paths, of which there are N (rows + columns): nothing of size N x N is stored. M is symmetric, so the gradients
of q, k and v are this very kernel with the roles exchanged. ``flow_kernel`` gathers, for the pairs of places of one
row, what their straight path carries; with queries and keys exchanged it serves the other of the two paths, and on the
transposed grid the vertical decays.

Half-width tiles are multiplied as TF32, which holds bfloat16 and float16 exactly. No atomics: results repeat.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher
from core_attention.kernels.polyline_mask._paths import from_flow, straight_paths, through_log

__all__ = ["attend_kernel", "flow_kernel", "polyline_mask", "polyline_mask_backward"]

_PLACES, _CHANNELS = 32, 32  # of a tile of half width, at most
_FULL_CONTRACTED = 16  # channels contracted at a time on the ordinary units, where products are unrolled


@triton.jit
def _tile(x, base, places, channels, stride, W, C):
    """Places of one row of the grid, channels, zeros outside."""
    inside = (places < W)[:, None] & (channels < C)[None, :]
    return tl.load(x + base + places[:, None] * stride + channels[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def attend_kernel(
    q, k, v, across, down, out, R, W, H, D, V,
    BJ: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = (M * (q k^T)) v for some columns of one row, of one head of one sample.

    q, k (B, R, W, H, D), v and out (B, R, W, H, V), across (B, H, R, W, W) paths within rows, down (B, H, R, R, W)
    paths within columns.
    """
    i, j = tl.program_id(0) % R, (tl.program_id(0) // R) * BJ + tl.arange(0, BJ)
    b, h = (tl.program_id(2) // H).to(tl.int64), tl.program_id(2) % H
    e = tl.program_id(1) * BV + tl.arange(0, BV)
    across += tl.program_id(2).to(tl.int64) * R * W * W
    down += (tl.program_id(2).to(tl.int64) * R + i) * R * W
    mine = (b * R + i) * W * H + h
    total = tl.zeros([BJ, BV], tl.float32)
    for r in range(R):
        other = (b * R + r) * W * H + h
        ours = tl.load(down + r * W + j, mask=j < W, other=0.0)
        for start in range(0, W, BJ):
            m = start + tl.arange(0, BJ)
            scores = tl.zeros([BJ, BJ], tl.float32)
            for first in range(0, D, BD):
                d = first + tl.arange(0, BD)
                query = _tile(q, mine * D, j, d, H * D, W, D)
                key = _tile(k, other * D, m, d, H * D, W, D)
                scores += tl.dot(query, tl.trans(key), input_precision=PRECISION)
            theirs = tl.load(down + r * W + m, mask=m < W, other=0.0)
            mask = _tile(across, i * W * W, j, m, W, W, W) * theirs[None, :]
            mask += _tile(across, r * W * W, j, m, W, W, W) * ours[:, None]
            value = _tile(v, other * V, m, e, H * V, W, V)
            total += tl.dot(scores * mask, value, input_precision=PRECISION)
    inside = (j < W)[:, None] & (e < V)[None, :]
    tl.store(out + mine * V + j[:, None] * (H * V) + e[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def flow_kernel(
    q, k, v, g, down, flow, R, W, H, D, V,
    BJ: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """flow[i, j, m] = sum over rows r of (q[i, j] k[r, m]) (g[i, j] v[r, m]) times the path down column m: tiles.

    flow (B, H, R, W, W) is the gradient of the straight path from (i, j) to (i, m), which keys of all rows share.
    """
    tiles = tl.cdiv(W, BJ)
    i = tl.program_id(0)
    j = (tl.program_id(1) // tiles) * BJ + tl.arange(0, BJ)
    m = (tl.program_id(1) % tiles) * BJ + tl.arange(0, BJ)
    b, h = (tl.program_id(2) // H).to(tl.int64), tl.program_id(2) % H
    row = tl.program_id(2).to(tl.int64) * R + i
    mine = (b * R + i) * W * H + h
    total = tl.zeros([BJ, BJ], tl.float32)
    for r in range(R):
        other = (b * R + r) * W * H + h
        scores, grads = tl.zeros([BJ, BJ], tl.float32), tl.zeros([BJ, BJ], tl.float32)
        for first in range(0, D, BD):
            d = first + tl.arange(0, BD)
            query = _tile(q, mine * D, j, d, H * D, W, D)
            key = _tile(k, other * D, m, d, H * D, W, D)
            scores += tl.dot(query, tl.trans(key), input_precision=PRECISION)
        for first in range(0, V, BD):
            e = first + tl.arange(0, BD)
            grad = _tile(g, mine * V, j, e, H * V, W, V)
            value = _tile(v, other * V, m, e, H * V, W, V)
            grads += tl.dot(grad, tl.trans(value), input_precision=PRECISION)
        total += scores * grads * tl.load(down + (row * R + r) * W + m, mask=m < W, other=0.0)[None, :]
    inside = (j < W)[:, None] & (m < W)[None, :]
    tl.store(flow + row * W * W + j[:, None] * W + m[None, :], total, mask=inside)


def _options(q: Tensor, W: int) -> dict[str, Any]:
    half = q.dtype.itemsize == 2
    places = min(_PLACES, triton.next_power_of_2(W)) if half else 0
    places = max(16, places)  # products in full float32 are unrolled over the threads: larger tiles would spill
    return {
        "BJ": places,
        "BD": _CHANNELS if half else _FULL_CONTRACTED,
        "PRECISION": "tf32" if half else "ieee",
        "num_warps": places // (8 if half else 4),
        "num_stages": 1,
    }


def _paths(decay_h: Tensor, decay_v: Tensor) -> tuple[Tensor, Tensor]:
    """Paths within rows (B, H, R, W, W), and within columns (B, H, R, R, W)."""
    across = straight_paths(decay_h.permute(0, 3, 1, 2), torch.float32)
    down = straight_paths(decay_v.permute(0, 3, 2, 1), torch.float32)
    return across.contiguous(), down.permute(0, 1, 3, 4, 2).contiguous()


def _attend(q: Tensor, k: Tensor, v: Tensor, paths: tuple[Tensor, Tensor], options: dict[str, Any]) -> Tensor:
    """Launch ``attend_kernel`` on contiguous operands."""
    B, R, W, H, D = q.shape
    V = v.shape[-1]
    out = torch.empty_like(v)
    bv = min(_CHANNELS, max(16, triton.next_power_of_2(V)))
    grid = (R * triton.cdiv(W, options["BJ"]), triton.cdiv(V, bv), B * H)
    launcher(attend_kernel)[grid](q, k, v, *paths, out, R, W, H, D, V, BV=bv, **options)
    return out


def polyline_mask(q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor) -> Tensor:
    """q, k (B, rows, columns, H, D), v (..., Dv), decays (B, rows, columns, H) -> (B, rows, columns, H, Dv).

    Time O(B H N^2 (D + Dv)), memory O(B H N (rows + columns)) beyond the result.
    """
    paths = _paths(decay_h, decay_v)
    return _attend(q.contiguous(), k.contiguous(), v.contiguous(), paths, _options(q, q.shape[2]))


def polyline_mask_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor, to_decays: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of q, k, v and of both decays (None unless asked for); memory as the forward pass, a few times."""
    q, k, v, g = q.contiguous(), k.contiguous(), v.contiguous(), grad.contiguous()
    paths, options = _paths(decay_h, decay_v), _options(q, q.shape[2])
    d_q, d_k = _attend(g, v, k, paths, options), _attend(v, g, q, paths, options)
    d_v = _attend(k, q, g, paths, options)
    if not to_decays:
        return d_q, d_k, d_v, None, None
    d_h = _through_rows(q, k, v, g, decay_h, decay_v)
    turned = (x.transpose(1, 2).contiguous() for x in (q, k, v, g, decay_v, decay_h))
    return d_q, d_k, d_v, d_h, _through_rows(*turned).transpose(1, 2)


def _through_rows(q: Tensor, k: Tensor, v: Tensor, g: Tensor, decay_h: Tensor, decay_v: Tensor) -> Tensor:
    """The gradient of the horizontal decays: of both paths' straight parts along rows."""
    B, R, W, H, D = q.shape
    options = _options(q, W)
    across, down = _paths(decay_h, decay_v)
    flows = [q.new_empty((B, H, R, W, W), dtype=torch.float32) for _ in range(2)]
    grid = (R, triton.cdiv(W, options["BJ"]) ** 2, B * H)
    for flow, (a, b, c, d) in zip(flows, ((q, k, v, g), (k, q, g, v)), strict=True):
        launcher(flow_kernel)[grid](a, b, c, d, down, flow, R, W, H, D, v.shape[-1], **options)
    # Straight paths have no direction: the flow of the second, from key to query, may be added as it lies.
    return through_log(from_flow((flows[0] + flows[1]) * across).permute(0, 2, 3, 1), decay_h)
