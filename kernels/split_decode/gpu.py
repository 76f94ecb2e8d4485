"""Triton kernels and the host code that launches them; sums in float32 (float64 for float64 operands).

The valid keys of all (sample, key head) pairs form one list of tiles, cut evenly over a fixed number of programs, which
loads differ by one tile at most (stream-K). A program keeps (maximum, total, output) in registers and writes it to a
slot of its own, ``program + pair``, whenever its range leaves a pair; a second kernel merges the slots of a pair in
order. No locks and no atomics, so results repeat bit for bit; the host never reads the lengths, so nothing waits.

The backward pass runs the first kernel again, with sum(p g v^T) in place of the output, then one kernel for the
gradients of keys and values, whose tiles are independent, and the stream-K pattern for those of the queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from core_attention.kernels._launch import launcher

__all__ = ["cache_gradient_kernel", "merge_kernel", "partial_kernel", "split_decode", "split_decode_backward"]

_ROWS = 16  # query rows of a tile, the fewest that the matrix units take
_OFF_CHIP = 3  # programs where there is no GPU: enough that ranges begin and end within a pair


@triton.jit
def _range(program, programs, total):
    """First and end tile of a program: the first programs have one tile more than the others."""
    share = tl.cdiv(total, programs)
    larger = total - (share - 1) * programs
    low = program * share - tl.maximum(program - larger, 0)
    return low, low + share - (program >= larger).to(tl.int32)


@triton.jit
def _owner(tile, programs, total):
    """The program whose range holds a tile."""
    share = tl.cdiv(total, programs)
    larger = total - (share - 1) * programs
    edge = larger * share
    beyond = larger + (tile - edge) // tl.maximum(share - 1, 1)
    return tl.where(tile < edge, tile // tl.maximum(share, 1), beyond)


@triton.jit
def _sample(starts, tile, B):
    """The sample of a tile: how many samples end at or before it."""
    found = tl.full([], 0, tl.int32)
    for i in range(0, B, 32):
        b = i + tl.arange(0, 32)
        found += tl.sum(((tl.load(starts + 1 + b, mask=b < B, other=tile + 1) <= tile) & (b < B)).to(tl.int32), 0)
    return found


@triton.jit
def _limits(r, length, R, T, CAUSAL: tl.constexpr):
    """How many keys each row sees; rows are heads outside, queries inside."""
    limit = length - T + r % T + 1 if CAUSAL else length + r * 0
    return tl.where(r < R, limit, 0)


@triton.jit
def partial_kernel(
    rows, grads, k, v, starts, lengths, maxima, totals, outputs, maximum, total, center, scale, B, G, R, T,
    k_sample, k_key, k_head, v_sample, v_key, v_head,
    CAUSAL: tl.constexpr, MODE: tl.constexpr, ACC: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Partial results of a program's tiles, a slot a pair.

    MODE "output": maxima, totals, outputs = sum p v. "center": the same with sum p (g v^T) as output, one number a row.
    "query": outputs = sum ds k with ds = p (g v^T - center), given maximum, total and center of the pair.
    """
    # Tiles are counted in 32 bits: a division of 64 is a call, for which registers go to memory.
    program, programs = tl.program_id(0), tl.num_programs(0)
    tile, high = _range(program, programs, tl.load(starts + B))
    r, d = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_D)
    n, within = tl.arange(0, BLOCK_N), (r < R)[:, None] & (d < D)[None, :]
    while tile < high:
        b = _sample(starts, tile, B)
        first = tl.load(starts + b)
        length = tl.load(lengths + b).to(tl.int32)
        tiles = tl.cdiv(length, BLOCK_N)
        g = (tile - first) // tiles
        at = tile - first - g * tiles
        end = tl.minimum(tiles, at + high - tile)
        b, g = b.to(tl.int64), g.to(tl.int64)
        pair = b * G + g
        seen = _limits(r, length, R, T, CAUSAL)
        q = tl.load(rows + (pair * R + r)[:, None] * D + d[None, :], mask=within, other=0.0)
        m, z = tl.full([BLOCK_R], float("-inf"), ACC), tl.zeros([BLOCK_R], ACC)
        acc = tl.zeros([BLOCK_R] if MODE == "center" else [BLOCK_R, BLOCK_D], ACC)
        grad, c = q, m  # where the mode has none
        if MODE != "output":
            grad = tl.load(grads + (pair * R + r)[:, None] * D + d[None, :], mask=within, other=0.0)
        if MODE == "query":
            m = tl.load(maximum + pair * R + r, mask=r < R, other=0.0)
            z = tl.load(total + pair * R + r, mask=r < R, other=1.0)
            c = tl.load(center + pair * R + r, mask=r < R, other=0.0)
        for start in range(at.to(tl.int32) * BLOCK_N, end.to(tl.int32) * BLOCK_N, BLOCK_N):
            valid = (n < length - start)[:, None] & (d < D)[None, :]
            k_tile, v_tile = k + b * k_sample + g * k_head, v + b * v_sample + g * v_head
            long = b * 0 + start  # 64 bits for the place of a tile, 32 within it: half the registers
            k_tile, v_tile = k_tile + long * k_key, v_tile + long * v_key
            keys = tl.load(k_tile + (n * k_key)[:, None] + d[None, :], mask=valid, other=0.0)
            values = tl.load(v_tile + (n * v_key)[:, None] + d[None, :], mask=valid, other=0.0)
            s = tl.dot(q, tl.trans(keys), input_precision="ieee", out_dtype=ACC) * scale
            s = tl.where(n[None, :] + start < seen[:, None], s, float("-inf"))
            product = s
            if MODE != "output":
                product = tl.dot(grad, tl.trans(values), input_precision="ieee", out_dtype=ACC)
            if MODE == "query":
                ds = tl.exp(s - m[:, None]) / z[:, None] * (product - c[:, None])
                acc += tl.dot(ds.to(keys.dtype), keys, input_precision="ieee", out_dtype=ACC)
            else:
                new = tl.maximum(m, tl.max(s, 1))
                settled = tl.where(new == float("-inf"), 0.0, new)  # -inf less -inf would be NaN
                factor, p = tl.exp(m - settled), tl.exp(s - settled[:, None])
                m, z = new, z * factor + tl.sum(p, 1)
                if MODE == "center":
                    acc = acc * factor + tl.sum(p * product, 1)
                else:
                    acc *= factor[:, None]
                    acc += tl.dot(p.to(values.dtype), values, input_precision="ieee", out_dtype=ACC)
        slot = (program + pair) * R + r
        if MODE != "query":
            tl.store(maxima + slot, m, mask=r < R)
            tl.store(totals + slot, z, mask=r < R)
        if MODE == "center":
            tl.store(outputs + slot, acc, mask=r < R)
        else:
            tl.store(outputs + slot[:, None] * D + d[None, :], acc, mask=within)
        tile += end - at


@triton.jit
def merge_kernel(
    starts, maxima, totals, outputs, maximum, total, merged, B, G, R, programs, WEIGHTED: tl.constexpr,
    STATE: tl.constexpr, ACC: tl.constexpr, BLOCK_R: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Merge the slots of a pair: weighted by maxima and divided by the total, or added up; STATE writes both too."""
    b, g = tl.program_id(0) // G, tl.program_id(0) % G
    pair = tl.program_id(0).to(tl.int64)
    first, all_tiles = tl.load(starts + b), tl.load(starts + B)
    tiles = (tl.load(starts + b + 1) - first) // G
    low = first + g * tiles
    r, d = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_D)
    within = (r < R)[:, None] & (d < D)[None, :]
    m, z = tl.full([BLOCK_R], float("-inf"), ACC), tl.zeros([BLOCK_R], ACC)
    acc = tl.zeros([BLOCK_R, BLOCK_D], ACC)
    if tiles > 0:
        for program in range(_owner(low, programs, all_tiles), _owner(low + tiles - 1, programs, all_tiles) + 1):
            slot = (program + pair) * R + r
            part = tl.load(outputs + slot[:, None] * D + d[None, :], mask=within, other=0.0)
            if WEIGHTED:
                there = tl.load(maxima + slot, mask=r < R, other=float("-inf"))
                new = tl.maximum(m, there)
                settled = tl.where(new == float("-inf"), 0.0, new)
                kept, added = tl.exp(m - settled), tl.exp(there - settled)
                m, z = new, z * kept + tl.load(totals + slot, mask=r < R, other=0.0) * added
                acc = acc * kept[:, None] + part * added[:, None]
            else:
                acc += part
    if WEIGHTED:
        z = tl.where(z == 0.0, 1.0, z)  # a row that sees no key: zeros
        acc = acc / z[:, None]
    if STATE:
        tl.store(maximum + pair * R + r, tl.where(m == float("-inf"), 0.0, m), mask=r < R)
        tl.store(total + pair * R + r, z, mask=r < R)
    tl.store(merged + (pair * R + r)[:, None] * D + d[None, :], acc.to(merged.dtype.element_ty), mask=within)


@triton.jit
def cache_gradient_kernel(
    rows, grads, k, v, lengths, maximum, total, center, d_k, d_v, scale, S, G, R, T,
    k_sample, k_key, k_head, v_sample, v_key, v_head, CAUSAL: tl.constexpr, ACC: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of keys and values, zeros beyond the length: dv = p^T g, dk = scale ds^T q."""
    pair = tl.program_id(1).to(tl.int64)
    b, g = pair // G, pair % G
    length = tl.load(lengths + b)
    n, d = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    valid = (n < length)[:, None] & (d < D)[None, :]
    keys = tl.load(k + b * k_sample + g * k_head + n[:, None] * k_key + d[None, :], mask=valid, other=0.0)
    values = tl.load(v + b * v_sample + g * v_head + n[:, None] * v_key + d[None, :], mask=valid, other=0.0)
    to_keys, to_values = tl.zeros([BLOCK_N, BLOCK_D], ACC), tl.zeros([BLOCK_N, BLOCK_D], ACC)
    for start in range(0, R, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        at, within = (pair * R + r)[:, None] * D + d[None, :], (r < R)[:, None] & (d < D)[None, :]
        q, grad = tl.load(rows + at, mask=within, other=0.0), tl.load(grads + at, mask=within, other=0.0)
        m = tl.load(maximum + pair * R + r, mask=r < R, other=0.0)
        z = tl.load(total + pair * R + r, mask=r < R, other=1.0)
        c = tl.load(center + pair * R + r, mask=r < R, other=0.0)
        s = tl.dot(q, tl.trans(keys), input_precision="ieee", out_dtype=ACC) * scale
        s = tl.where(n[None, :] < _limits(r, length, R, T, CAUSAL)[:, None], s, float("-inf"))
        p = tl.exp(s - m[:, None]) / z[:, None]
        to_values += tl.dot(tl.trans(p.to(grad.dtype)), grad, input_precision="ieee", out_dtype=ACC)
        ds = p * (tl.dot(grad, tl.trans(values), input_precision="ieee", out_dtype=ACC) - c[:, None])
        to_keys += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision="ieee", out_dtype=ACC)
    at, mask = ((b * S + n[:, None]) * G + g) * D + d[None, :], (n < S)[:, None] & (d < D)[None, :]
    tl.store(d_k + at, (to_keys * scale).to(d_k.dtype.element_ty), mask=mask)
    tl.store(d_v + at, to_values.to(d_v.dtype.element_ty), mask=mask)


def split_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    programs: int | None = None,
) -> Tensor:
    """q (B, T, H, D), k and v (B, S, G, D) -> (B, T, H, D); workspace (programs + B G) H/G T (D + 2) numbers."""
    launch = _Launch(q, k, v, lengths, causal, scale, programs)
    merged = torch.empty_like(launch.rows)
    launch.merge(launch.partials("output", q.shape[3]), merged)
    return launch.ungrouped(merged)


def split_decode_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    *,
    causal: bool,
    scale: float,
    wanted: Sequence[bool] = (True, True, True),
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v; one that is not wanted has no elements. The forward pass is computed again."""
    launch = _Launch(q, k, v, lengths, causal, scale, None)
    launch.grads = launch.grouped(grad)
    stats = tuple(launch.rows.new_empty(launch.rows.shape[:3], dtype=launch.wide) for _ in range(3))
    launch.merge(launch.partials("center", 1), stats[2], stats[:2])
    d_q, d_k, d_v = q.new_empty(0), k.new_empty(0), v.new_empty(0)
    if wanted[0]:
        merged = torch.empty_like(launch.rows, dtype=launch.wide)
        launch.merge(launch.partials("query", q.shape[3], stats), merged, weighted=False)
        d_q = launch.ungrouped(merged * scale).to(q.dtype)
    if wanted[1] or wanted[2]:
        both = launch.cache_gradients(stats)
        d_k, d_v = (found if want else d_k for found, want in zip(both, wanted[1:], strict=True))
    return d_q, d_k, d_v


class _Launch:
    """One call's operands, tile sizes and grids."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: Tensor | None,
        causal: bool,
        scale: float | None,
        programs: int | None,
    ) -> None:
        self.B, self.T, self.H, self.D = q.shape
        self.S, self.G = k.shape[1:3]
        self.R = self.H // self.G * self.T
        self.causal, self.half = bool(causal), q.dtype.itemsize == 2
        self.wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        scale = self.D**-0.5 if scale is None else scale
        # A factor handed to a kernel is a float32: exact enough for halves; wider queries are scaled here.
        self.rows, self.scale = self.grouped(q if self.half else q * scale), scale if self.half else 1.0
        self.grads = self.rows  # replaced by the backward pass
        self.k, self.v = (x if x.stride(3) == 1 else x.contiguous() for x in (k, v))
        self.block_d = max(16, triton.next_power_of_2(self.D))
        self.block_n = max(16, min(64, (4096 if self.half else 1024) // self.block_d))
        # Products of float32 run on the plain units, which hold whole operands in registers: more threads share them.
        self.warps = max(4, self.block_d // (32 if self.half else 16))
        self.row_blocks = triton.cdiv(self.R, _ROWS)
        self.programs = programs or _programs(q)
        full = torch.full((self.B,), self.S, device=q.device) if lengths is None else lengths.clamp(0, self.S)
        self.lengths = full
        self.starts = torch.zeros(self.B + 1, dtype=torch.int32, device=q.device)
        torch.cumsum((full + self.block_n - 1) // self.block_n * self.G, 0, dtype=torch.int32, out=self.starts[1:])

    def grouped(self, rows: Tensor) -> Tensor:
        """(B, T, H, D) -> (B, G, H/G T, D), contiguous."""
        return rows.transpose(1, 2).reshape(self.B, self.G, self.R, self.D).contiguous()

    def ungrouped(self, rows: Tensor) -> Tensor:
        """(B, G, H/G T, D) -> (B, T, H, D), contiguous."""
        return rows.view(self.B, self.H, self.T, self.D).transpose(1, 2).contiguous()

    def partials(self, mode: str, width: int, stats: tuple[Tensor, ...] | None = None) -> tuple[Tensor, ...]:
        """Maxima, totals (slots, rows) and outputs (slots, rows, width) of all programs."""
        slots = (self.programs + self.B * self.G - 1, self.R)
        maxima, totals = (torch.empty(slots, dtype=self.wide, device=self.rows.device) for _ in range(2))
        outputs = torch.empty((*slots, width), dtype=self.wide, device=self.rows.device)
        launcher(partial_kernel)[(self.programs, self.row_blocks)](
            self.rows,
            self.grads,
            self.k,
            self.v,
            self.starts,
            self.lengths,
            maxima,
            totals,
            outputs,
            *(stats or (maxima, maxima, maxima)),
            self.scale,
            self.B,
            self.G,
            self.R,
            self.T,
            *self.k.stride()[:3],
            *self.v.stride()[:3],
            CAUSAL=self.causal,
            MODE=mode,
            ACC=self.accumulator,
            BLOCK_R=_ROWS,
            BLOCK_N=self.block_n,
            D=self.D,
            BLOCK_D=self.block_d,
            num_warps=self.warps,
        )
        return maxima, totals, outputs

    def merge(
        self,
        partials: tuple[Tensor, ...],
        merged: Tensor,
        state: tuple[Tensor, ...] | None = None,
        *,
        weighted: bool = True,
    ) -> None:
        """Write the merged outputs of every pair, and into ``state`` maximum and total."""
        width = partials[2].shape[2]
        launcher(merge_kernel)[(self.B * self.G, self.row_blocks)](
            self.starts,
            *partials,
            *(state or partials[:2]),
            merged,
            self.B,
            self.G,
            self.R,
            self.programs,
            WEIGHTED=weighted,
            STATE=state is not None,
            ACC=self.accumulator,
            BLOCK_R=_ROWS,
            D=width,
            BLOCK_D=max(16, triton.next_power_of_2(width)),
            num_warps=self.warps,
        )

    def cache_gradients(self, stats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Gradients of keys and values, (B, S, G, D), contiguous."""
        shape = (self.B, self.S, self.G, self.D)
        d_k, d_v = (torch.empty(shape, dtype=self.k.dtype, device=self.k.device) for _ in range(2))
        block_n = max(16, self.block_n // 2)  # two sums are kept
        launcher(cache_gradient_kernel)[(triton.cdiv(self.S, block_n), self.B * self.G)](
            self.rows,
            self.grads,
            self.k,
            self.v,
            self.lengths,
            *stats,
            d_k,
            d_v,
            self.scale,
            self.S,
            self.G,
            self.R,
            self.T,
            *self.k.stride()[:3],
            *self.v.stride()[:3],
            CAUSAL=self.causal,
            ACC=self.accumulator,
            BLOCK_R=_ROWS,
            BLOCK_N=block_n,
            D=self.D,
            BLOCK_D=self.block_d,
            num_warps=self.warps,
        )
        return d_k, d_v

    @property
    def accumulator(self) -> tl.dtype:
        return tl.float64 if self.wide == torch.float64 else tl.float32


def _programs(tensor: Tensor) -> int:
    """Two programs a multiprocessor, so that one computes while the other waits for memory."""
    if tensor.device.type != "cuda":
        return _OFF_CHIP
    return 2 * torch.cuda.get_device_properties(tensor.device).multi_processor_count
