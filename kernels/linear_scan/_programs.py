"""The Triton programs of the linear scan; ``gpu.py`` launches them.

``states_kernel`` carries a state over chunks, or its gradient back, and keeps the one before (after) each chunk.
``mix_kernel`` computes ``mask(x a^T) y + x Z`` for one chunk: the output, and with roles exchanged each gradient. Two
more gather what passes over each decay. A normaliser is one more column: of ones beside the values, of the
denominator's gradient beside the output's. No atomics: every element is written once, results repeat bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["beyond_kernel", "mix_kernel", "passing_kernel", "states_kernel"]


@triton.jit
def _tile(x, base, rows, columns, ROW, T, W, ACC: tl.constexpr):
    """Rows of tokens, columns of channels, zeros outside."""
    inside = (rows < T)[:, None] & (columns < W)[None, :]
    return tl.load(x + base + rows.to(tl.int64)[:, None] * ROW + columns[None, :], mask=inside, other=0.0).to(ACC)


@triton.jit
def _column(x, base, rows, ROW, T, ACC: tl.constexpr):
    """One number a token, zeros outside."""
    return tl.load(x + base + rows.to(tl.int64) * ROW, mask=rows < T, other=0.0).to(ACC)


@triton.jit
def _paths(high, low, base, later, earlier, H, T, ACC: tl.constexpr):
    """What decay leaves between two tokens (later, earlier); zero where the order is reversed or a token is missing."""
    gap = _column(high, base, later, H, T, ACC)[:, None] - _column(high, base, earlier, H, T, ACC)[None, :]
    gap += _column(low, base, later, H, T, ACC)[:, None] - _column(low, base, earlier, H, T, ACC)[None, :]
    right = (later[:, None] >= earlier[None, :]) & (later < T)[:, None]
    return tl.exp(tl.where(right, gap, float("-inf")))


@triton.jit
def states_kernel(
    x, y, extra, weight, total, first, states, last, T, H, D, V, N,
    C: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, BACK: tl.constexpr, DECAY: tl.constexpr, KEEP: tl.constexpr,
    EXTRA: tl.constexpr, ONES: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """S <- total S + (weight x)^T [y, extra] over chunks, forwards or back, from ``first`` to ``last``.

    A program owns a tile of D x V for one head of one sample; that of the first V also owns the extra column.
    """
    bh = tl.program_id(0)
    b, h = (bh // H).to(tl.int64), bh % H
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    e = tl.program_id(2) * BV + tl.arange(0, BV)
    E = V + EXTRA
    cells = d[:, None] * E + e[None, :]
    inside = (d < D)[:, None] & (e < V)[None, :]
    owns = d < tl.where(tl.program_id(2) == 0, D, 0)
    whole = D * E
    S = tl.load(first + bh.to(tl.int64) * whole + cells, mask=inside, other=0.0).to(ACC)
    z = tl.zeros([BD], ACC)
    if EXTRA:
        z = tl.load(first + bh.to(tl.int64) * whole + d * E + V, mask=owns, other=0.0).to(ACC)
    for i in range(N):
        n = N - 1 - i if BACK else i
        rows = n * C + tl.arange(0, C)
        if KEEP:
            kept = states + (bh.to(tl.int64) * N + n) * whole
            tl.store(kept + cells, S, mask=inside)
            if EXTRA:
                tl.store(kept + d * E + V, z, mask=owns)
        left = _tile(x, (b * T * H + h) * D, rows, d, H * D, T, D, ACC)
        right = _tile(y, (b * T * H + h) * V, rows, e, H * V, T, V, ACC)
        if DECAY:
            left = left * _column(weight, b * T * H + h, rows, H, T, ACC)[:, None]
            through = tl.load(total + (b * N + n) * H + h).to(ACC)
            S = S * through
            if EXTRA:
                z = z * through
        S += tl.dot(tl.trans(left), right, input_precision=PRECISION)
        if EXTRA:
            if ONES:
                z += tl.sum(left, 0)
            else:
                z += tl.sum(left * _column(extra, b * T * H + h, rows, H, T, ACC)[:, None], 0)
    tl.store(last + bh.to(tl.int64) * whole + cells, S, mask=inside)
    if EXTRA:
        tl.store(last + bh.to(tl.int64) * whole + d * E + V, z, mask=owns)


@triton.jit
def mix_kernel(
    x, a, y, extra, high, low, weight, states, out, denominator, T, H, X, Y, N, ZX, ZY, E, eps, least,
    C: tl.constexpr, BX: tl.constexpr, BY: tl.constexpr, UPPER: tl.constexpr, CAUSAL: tl.constexpr,
    DECAY: tl.constexpr, MODE: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out = mask(x a^T) y + weight x Z for one chunk of one head, a block of columns of y and out.

    Z is the chunk's state, read by strides ZX along x and ZY along y. UPPER: x is the earlier token, a the later one.
    MODE 1 divides by the extra column of y (ones); modes 2 and 3 contract over an extra column too: x's is ``extra``
    and a's are ones, or the other way round.
    """
    n, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), bh % H
    token, row = b * T * H + h, n * C + tl.arange(0, C)
    c = tl.program_id(2) * BY + tl.arange(0, BY)
    Z = states + (bh.to(tl.int64) * N + n if CAUSAL else bh.to(tl.int64)) * E
    scores = tl.zeros([C, C], ACC)
    out_tile = tl.zeros([C, BY], ACC)
    below = tl.zeros([C], ACC)
    for start in range(0, X, BX):
        i = start + tl.arange(0, BX)
        left = _tile(x, token * X, row, i, H * X, T, X, ACC)
        inside = (i < X)[:, None] & (c < Y)[None, :]
        state = tl.load(Z + i[:, None] * ZX + c[None, :] * ZY, mask=inside, other=0.0).to(ACC)
        out_tile += tl.dot(left, state, input_precision=PRECISION)
        if MODE == 1:
            below += tl.sum(left * tl.load(Z + i * ZX + Y, mask=i < X, other=0.0).to(ACC)[None, :], 1)
        if CAUSAL:
            right = _tile(a, token * X, row, i, H * X, T, X, ACC)
            scores += tl.dot(left, tl.trans(right), input_precision=PRECISION)
    if MODE >= 2:
        mine = _column(extra, token, row, H, T, ACC)
        ones = tl.where(row < T, 1.0, 0.0).to(ACC)
        column = tl.load(Z + X * ZX + c * ZY, mask=c < Y, other=0.0).to(ACC)
        if MODE == 2:
            out_tile += mine[:, None] * column[None, :]
            scores += mine[:, None] * ones[None, :]
        else:
            out_tile += ones[:, None] * column[None, :]
            scores += ones[:, None] * mine[None, :]
    if DECAY:
        scale = _column(weight, token, row, H, T, ACC)
        out_tile = out_tile * scale[:, None]
        below = below * scale
    if CAUSAL:
        if DECAY:
            left_over = _paths(high, low, token, row, row, H, T, ACC)
            if UPPER:
                left_over = tl.trans(left_over)
            scores = scores * left_over
        elif UPPER:
            scores = tl.where(row[:, None] <= row[None, :], scores, 0.0)
        else:
            scores = tl.where(row[:, None] >= row[None, :], scores, 0.0)
        values = _tile(y, token * Y, row, c, H * Y, T, Y, ACC)
        out_tile += tl.dot(scores, values, input_precision=PRECISION)
        if MODE == 1:
            below += tl.sum(scores, 1)
    if MODE == 1:
        below += eps
        present = tl.abs(below) > least
        out_tile = tl.where(present[:, None], out_tile / tl.where(present, below, 1.0)[:, None], 0.0)
        tl.store(denominator + token + row.to(tl.int64) * H, below, mask=row < tl.where(tl.program_id(2) == 0, T, 0))
    where = token * Y + row.to(tl.int64)[:, None] * (H * Y) + c[None, :]
    tl.store(out + where, out_tile.to(out.dtype.element_ty), mask=(row < T)[:, None] & (c < Y)[None, :])


@triton.jit
def beyond_kernel(
    q, k, v, g, extra, head, tail, before, after, rows, columns, T, H, D, V, N,
    C: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, EXTRA: tl.constexpr, ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What arrives at each token of one chunk of one head from before the chunk, and what leaves it for beyond."""
    n, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), bh % H
    token, row = b * T * H + h, n * C + tl.arange(0, C)
    E = V + EXTRA
    state = (bh.to(tl.int64) * N + n) * D * E
    arrives, leaves = tl.zeros([C], ACC), tl.zeros([C], ACC)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        from_state, from_after = tl.zeros([C, BD], ACC), tl.zeros([C, BD], ACC)
        for first in range(0, V, BV):
            e = first + tl.arange(0, BV)
            cells = state + d[None, :] * E + e[:, None]
            there = (d < D)[None, :] & (e < V)[:, None]
            grad = _tile(g, token * V, row, e, H * V, T, V, ACC)
            old = tl.load(before + cells, mask=there, other=0.0).to(ACC)
            from_state += tl.dot(grad, old, input_precision=PRECISION)
            value = _tile(v, token * V, row, e, H * V, T, V, ACC)
            new = tl.load(after + cells, mask=there, other=0.0).to(ACC)
            from_after += tl.dot(value, new, input_precision=PRECISION)
        if EXTRA:
            old = tl.load(before + state + d * E + V, mask=d < D, other=0.0).to(ACC)
            new = tl.load(after + state + d * E + V, mask=d < D, other=0.0).to(ACC)
            from_state += _column(extra, token, row, H, T, ACC)[:, None] * old[None, :]
            from_after += new[None, :]
        arrives += tl.sum(_tile(q, token * D, row, d, H * D, T, D, ACC) * from_state, 1)
        leaves += tl.sum(_tile(k, token * D, row, d, H * D, T, D, ACC) * from_after, 1)
    where, there = token + row.to(tl.int64) * H, row < T
    tl.store(rows + where, arrives * _column(head, token, row, H, T, ACC), mask=there)
    tl.store(columns + where, leaves * _column(tail, token, row, H, T, ACC), mask=there)


@triton.jit
def passing_kernel(
    q, k, v, g, extra, high, low, inside, T, H, D, V,
    C: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, EXTRA: tl.constexpr, ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What passes from each token of one chunk of one head, or one before it there, to a later one of the chunk."""
    n, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), bh % H
    token, row = b * T * H + h, n * C + tl.arange(0, C)
    flow = tl.zeros([C, C], ACC)
    for first in range(0, V, BV):
        e = first + tl.arange(0, BV)
        grad = _tile(g, token * V, row, e, H * V, T, V, ACC)
        value = _tile(v, token * V, row, e, H * V, T, V, ACC)
        flow += tl.dot(grad, tl.trans(value), input_precision=PRECISION)
    if EXTRA:
        flow += _column(extra, token, row, H, T, ACC)[:, None]
    scores = tl.zeros([C, C], ACC)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        query = _tile(q, token * D, row, d, H * D, T, D, ACC)
        key = _tile(k, token * D, row, d, H * D, T, D, ACC)
        scores += tl.dot(query, tl.trans(key), input_precision=PRECISION)
    flow = tl.cumsum(flow * scores * _paths(high, low, token, row, row, H, T, ACC), 1)
    passed = tl.sum(tl.where(row[:, None] > row[None, :], flow, 0.0), 0)
    tl.store(inside + token + row.to(tl.int64) * H, passed, mask=row < T)
