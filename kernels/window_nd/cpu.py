"""Compiled loops: a head of a box of tokens at a time, eight queries side by side, its numbers in the nearest caches.

Shifted windows with their mask are a cut of the grid into boxes (``tables.py``). A head of a box is gathered once; the
scores of eight queries fill a strip that the weights, their gradients and both products are made from in place, so that
nothing of the size of the scores leaves the first cache, forward and backward. Calls with a bias are left to eager.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core_attention.kernels._lanes import exp, fma, load, pick, splat, spread, store
from core_attention.kernels._numba import array, compiled, inlined, ranges, run
from core_attention.kernels.window_nd import eager
from core_attention.kernels.window_nd.tables import boxes

__all__ = ["window_nd", "window_nd_backward"]

_LEAST = 1 << 14  # scores that pay for starting a thread


def window_nd(
    qkv: Tensor,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """qkv (B, T, 3, H, D), mask (B, T), bias (H, W, W) -> (B, T, H, D). Memory O(W (D + 8)) a thread."""
    if bias is not None:
        return eager.window_nd(qkv, grid, window, shift, mask, bias, scale)
    B, T, _, H, D = qkv.shape
    out = torch.empty((B, T, H, D))
    order, starts, longest = _cut(grid, window, shift)
    parts = _parts(B * H, starts)
    scratch = torch.empty(len(parts), _strips(longest, D, 1))
    operands = (_flat(qkv), _keys(mask), order, starts, T, H, D)
    run(_attend, parts, *operands, np.float32(scale), longest, array(scratch), _flat(out))
    return out.to(qkv.dtype)


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
    """Gradients by name. Weights are computed again; memory O(W (D + 16)) a thread."""
    if bias is not None:
        return eager.window_nd_backward(grad, qkv, grid, window, shift, mask, bias, scale, wanted)
    B, T, _, H, D = qkv.shape
    found = torch.empty(qkv.shape)
    order, starts, longest = _cut(grid, window, shift)
    parts = _parts(B * H, starts)
    scratch = torch.empty(len(parts), _strips(longest, D, 2))
    operands = (_flat(qkv), _flat(grad), _keys(mask), order, starts, T, H, D)
    run(_differentiate, parts, *operands, np.float32(scale), longest, array(scratch), _flat(found))
    return {"qkv": found.to(qkv.dtype)}


def _flat(tensor: Tensor) -> np.ndarray:
    """All numbers in one row, as float32; contiguous float32 tensors share their memory with it."""
    return array(tensor.detach().float().contiguous().view(-1))


def _keys(mask: Tensor | None) -> np.ndarray:
    return np.empty((0, 0), np.bool_) if mask is None else array(mask.contiguous())


def _cut(grid: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> tuple[np.ndarray, np.ndarray, int]:
    """Tokens box after box, where each box starts, and the length of the longest, made whole eights."""
    cut = boxes(tuple(grid), tuple(window), tuple(shift))
    starts = np.array(cut.starts)
    return cut.order.numpy(), starts, -(-int(np.diff(starts).max()) // 8) * 8


def _parts(heads: int, starts: np.ndarray) -> list[tuple[int, int]]:
    """Shares of the threads: an item is a head of a box, the heads of all samples counted together."""
    per = int(np.square(np.diff(starts)).mean())
    return ranges(heads * (len(starts) - 1), least=max(1, _LEAST // per))


def _strips(longest: int, D: int, strips: int) -> int:
    """Numbers of scratch a thread: rows and columns of the operands, and strips of eight queries."""
    wide = -(-D // 8) * 8
    return longest * (9 * wide + 8 * strips)


@inlined
def _gathered(rows, first, step, tokens, factor, wide, target):
    """target[wide i + d] = factor rows[first + step tokens[i] + d]; what lands beyond a row's numbers is not used."""
    for i in range(len(tokens)):
        at = first + step * tokens[i]
        if at + wide <= rows.size:
            for d in range(0, wide, 8):
                store(target, i * wide + d, splat(factor) * load(rows, at + d))
        else:  # the last row of all
            for d in range(rows.size - at):
                target[i * wide + d] = factor * rows[at + d]


@inlined
def _turned(rows, count, wide, D, span, target):
    """target[span d + i] = rows[wide i + d], zeros for i from count to span."""
    for d in range(D):
        place = target[d * span : d * span + span]
        for i in range(count):
            place[i] = rows[i * wide + d]
        for i in range(count, span):
            place[i] = np.float32(0.0)


@inlined
def _scattered(columns, span, tokens, D, rows, first, step):
    """rows[first + step tokens[i] + d] = columns[span d + i]."""
    for i in range(len(tokens)):
        row = rows[first + step * tokens[i] :][:D]
        for d in range(len(row)):
            row[d] = columns[d * span + i]


@inlined
def _products(columns, span, first, rows, wide, D, count, strip):
    """strip[8 j + i] = sum over d of columns[span d + first + i] rows[wide j + d], for eight i."""
    whole = count // 4 * 4
    for j in range(0, whole, 4):
        a0, a1, a2, a3 = splat(np.float32(0.0)), splat(np.float32(0.0)), splat(np.float32(0.0)), splat(np.float32(0.0))
        at = j * wide
        for d in range(D):
            x = load(columns, d * span + first)
            a0 = fma(x, spread(rows, at + d), a0)
            a1 = fma(x, spread(rows, at + wide + d), a1)
            a2 = fma(x, spread(rows, at + 2 * wide + d), a2)
            a3 = fma(x, spread(rows, at + 3 * wide + d), a3)
        store(strip, 8 * j, a0)
        store(strip, 8 * j + 8, a1)
        store(strip, 8 * j + 16, a2)
        store(strip, 8 * j + 24, a3)
    for j in range(whole, count):
        a0 = splat(np.float32(0.0))
        for d in range(D):
            a0 = fma(load(columns, d * span + first), spread(rows, j * wide + d), a0)
        store(strip, 8 * j, a0)


@inlined
def _weighed(strip, count):
    """Scores to exp(score - largest of the query); returns one over their sums."""
    largest = load(strip, 0)
    for j in range(1, count):
        x = load(strip, 8 * j)
        largest = pick(largest, x, x, largest)
    even, odd = splat(np.float32(0.0)), splat(np.float32(0.0))
    for j in range(0, count - 1, 2):
        x, y = exp(load(strip, 8 * j) - largest), exp(load(strip, 8 * j + 8) - largest)
        store(strip, 8 * j, x)
        store(strip, 8 * j + 8, y)
        even, odd = even + x, odd + y
    if count % 2:
        x = exp(load(strip, 8 * count - 8) - largest)
        store(strip, 8 * count - 8, x)
        even = even + x
    return splat(np.float32(1.0)) / (even + odd)


@inlined
def _mixed(strip, count, rows, wide, D, factor, span, first, columns):
    """columns[span d + first + i] = factor[i] times the sum over j of strip[8 j + i] rows[wide j + d]."""
    for d in range(0, D, 4):
        a0, a1, a2, a3 = splat(np.float32(0.0)), splat(np.float32(0.0)), splat(np.float32(0.0)), splat(np.float32(0.0))
        b0, b1, b2, b3 = splat(np.float32(0.0)), splat(np.float32(0.0)), splat(np.float32(0.0)), splat(np.float32(0.0))
        for j in range(0, count - 1, 2):
            x, y, at = load(strip, 8 * j), load(strip, 8 * j + 8), j * wide + d
            a0 = fma(x, spread(rows, at), a0)
            a1 = fma(x, spread(rows, at + 1), a1)
            a2 = fma(x, spread(rows, at + 2), a2)
            a3 = fma(x, spread(rows, at + 3), a3)
            at += wide
            b0 = fma(y, spread(rows, at), b0)
            b1 = fma(y, spread(rows, at + 1), b1)
            b2 = fma(y, spread(rows, at + 2), b2)
            b3 = fma(y, spread(rows, at + 3), b3)
        if count % 2:
            x, at = load(strip, 8 * count - 8), (count - 1) * wide + d
            a0 = fma(x, spread(rows, at), a0)
            a1 = fma(x, spread(rows, at + 1), a1)
            a2 = fma(x, spread(rows, at + 2), a2)
            a3 = fma(x, spread(rows, at + 3), a3)
        at = d * span + first
        store(columns, at, factor * (a0 + b0))
        store(columns, at + span, factor * (a1 + b1))
        store(columns, at + 2 * span, factor * (a2 + b2))
        store(columns, at + 3 * span, factor * (a3 + b3))


@inlined
def _visible(mask, b, tokens, found):
    """Tokens of a box that may be keys, into ``found``; how many."""
    count = 0
    for i in range(len(tokens)):
        if not mask.size or mask[b, tokens[i]]:
            found[count] = tokens[i]
            count += 1
    return count


@compiled
def _attend(qkv, mask, order, starts, T, H, D, scale, longest, scratch, out, part, low, high):
    per, wide, unit = len(starts) - 1, (D + 7) // 8 * 8, np.float32(1.0)
    size, step = longest * wide, H * D
    mine = scratch[part]
    rows, columns, keys, values, mixed = mine, mine[size:], mine[2 * size :], mine[3 * size :], mine[4 * size :]
    strip = mine[5 * size :]
    seen = np.empty(longest, np.int64)
    for item in range(low, high):
        b, box, h = item // H // per, item // H % per, item % H
        tokens = order[starts[box] : starts[box + 1]]
        N, at = len(tokens), b * T * step + h * D
        span = (N + 7) // 8 * 8
        count = _visible(mask, b, tokens, seen)
        visible = seen[:count]
        if count == 0:
            _emptied(out, at, step, tokens, D)
            continue
        _gathered(qkv, at + 2 * b * T * step, 3 * step, tokens, scale, wide, rows)
        _turned(rows, N, wide, D, span, columns)
        _gathered(qkv, at + 2 * b * T * step + step, 3 * step, visible, unit, wide, keys)
        _gathered(qkv, at + 2 * b * T * step + 2 * step, 3 * step, visible, unit, wide, values)
        for first in range(0, span, 8):
            _products(columns, span, first, keys, wide, D, count, strip)
            factor = _weighed(strip, count)
            _mixed(strip, count, values, wide, D, factor, span, first, mixed)
        _scattered(mixed, span, tokens, D, out, at, step)


@inlined
def _emptied(rows, first, step, tokens, D):
    """rows[first + step tokens[i] + d] = 0."""
    for i in range(len(tokens)):
        at = first + step * tokens[i]
        for d in range(D):
            rows[at + d] = np.float32(0.0)


@inlined
def _outer(strip, count, rows, wide, sums):
    """sums[wide j + d] += the sum over eight i of strip[8 j + i] rows[wide i + d]."""
    for d in range(0, wide, 8):
        x0, x1, x2, x3 = load(rows, d), load(rows, wide + d), load(rows, 2 * wide + d), load(rows, 3 * wide + d)
        x4, x5 = load(rows, 4 * wide + d), load(rows, 5 * wide + d)
        x6, x7 = load(rows, 6 * wide + d), load(rows, 7 * wide + d)
        for j in range(count):
            at = 8 * j
            a = fma(spread(strip, at), x0, load(sums, j * wide + d))
            b = spread(strip, at + 4) * x4
            a = fma(spread(strip, at + 1), x1, a)
            b = fma(spread(strip, at + 5), x5, b)
            a = fma(spread(strip, at + 2), x2, a)
            b = fma(spread(strip, at + 6), x6, b)
            a = fma(spread(strip, at + 3), x3, a)
            b = fma(spread(strip, at + 7), x7, b)
            store(sums, j * wide + d, a + b)


@inlined
def _through_weights(strip, count, slopes, factor):
    """From weights and the gradients of them, both to those of the scores (in slopes) and to normed weights."""
    even, odd = splat(np.float32(0.0)), splat(np.float32(0.0))
    for j in range(count):
        x = factor * load(strip, 8 * j)
        store(strip, 8 * j, x)
        if j % 2:
            odd = fma(x, load(slopes, 8 * j), odd)
        else:
            even = fma(x, load(slopes, 8 * j), even)
    mean = even + odd
    for j in range(count):
        store(slopes, 8 * j, load(strip, 8 * j) * (load(slopes, 8 * j) - mean))


@inlined
def _filled(rows, first, size):
    for i in range(first, size):
        rows[i] = np.float32(0.0)


@inlined
def _handed(sums, wide, tokens, D, rows, first, step):
    """rows[first + step tokens[i] + d] = sums[wide i + d]."""
    for i in range(len(tokens)):
        row = rows[first + step * tokens[i] :][:D]
        for d in range(len(row)):
            row[d] = sums[i * wide + d]


@compiled
def _differentiate(qkv, grad, mask, order, starts, T, H, D, scale, longest, scratch, found, part, low, high):
    per, wide, unit = len(starts) - 1, (D + 7) // 8 * 8, np.float32(1.0)
    size, step = longest * wide, H * D
    mine = scratch[part]
    queries, columns, keys, values, mixed = mine, mine[size:], mine[2 * size :], mine[3 * size :], mine[4 * size :]
    grads, grad_columns = mine[5 * size :], mine[6 * size :]
    to_keys, to_values, strip = mine[7 * size :], mine[8 * size :], mine[9 * size :]
    slopes, whole = strip[8 * longest :], splat(scale)
    seen = np.empty(longest, np.int64)
    for item in range(low, high):
        b, box, h = item // H // per, item // H % per, item % H
        tokens = order[starts[box] : starts[box + 1]]
        N, at = len(tokens), 3 * b * T * step + h * D
        span = (N + 7) // 8 * 8
        count = _visible(mask, b, tokens, seen)
        visible = seen[:count]
        if count < N:
            for kind in range(3):
                _emptied(found, at + kind * step, 3 * step, tokens, D)
        if count == 0:
            continue
        _gathered(qkv, at, 3 * step, tokens, scale, wide, queries)
        _gathered(grad, b * T * step + h * D, step, tokens, unit, wide, grads)
        _filled(queries, N * wide, span * wide)
        _filled(grads, N * wide, span * wide)
        _turned(queries, N, wide, D, span, columns)
        _turned(grads, N, wide, D, span, grad_columns)
        _gathered(qkv, at + step, 3 * step, visible, unit, wide, keys)
        _gathered(qkv, at + 2 * step, 3 * step, visible, unit, wide, values)
        _filled(to_keys, 0, count * wide)
        _filled(to_values, 0, count * wide)
        for first in range(0, span, 8):
            _products(columns, span, first, keys, wide, D, count, strip)
            factor = _weighed(strip, count)
            _products(grad_columns, span, first, values, wide, D, count, slopes)
            _through_weights(strip, count, slopes, factor)
            _mixed(slopes, count, keys, wide, D, whole, span, first, mixed)
            _outer(slopes, count, queries[first * wide :], wide, to_keys)
            _outer(strip, count, grads[first * wide :], wide, to_values)
        _scattered(mixed, span, tokens, D, found, at, 3 * step)
        _handed(to_keys, wide, visible, D, found, at + step, 3 * step)
        _handed(to_values, wide, visible, D, found, at + 2 * step, 3 * step)
