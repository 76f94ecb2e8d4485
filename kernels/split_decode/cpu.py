"""Compiled loops: every thread streams an equal share of the cache once, for all heads; partial results are merged.

The valid keys of all samples form one list of tiles of ``_TILE`` keys, cut evenly over the threads (stream-K). A thread
keeps (maximum, total, output) of every query row for each sample it touches; slot ``part + sample`` is its own, since
that number grows along the list. Memory is the bound, so the cache is read in the order in which it lies, all heads of
a key before the next key, and fetched ahead of use; bfloat16 is read as its bits and widened in registers (float16,
which no shift widens, is converted as a whole before).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

from core_attention.kernels._numba import array, compiled, exp32, inlined, ranges, run

__all__ = ["split_decode"]

_TILE = 128  # keys: the scores of a tile and the running output stay in the first cache
_AHEAD = 4096  # numbers between what is fetched and what is used: 8 keys of 8 heads of 64
_LINE = 64  # bytes of a cache line
_LEAST = 1 << 18  # multiplications that pay for starting a thread


def split_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """q (B, T, H, D), k and v (B, S, G, D) -> (B, T, H, D). Memory a thread and sample O(T H D), float32."""
    B, T, H, D = q.shape
    S, G = k.shape[1:3]
    rows = _rows(q, G, D**-0.5 if scale is None else scale)
    valid = torch.full((B,), S) if lengths is None else lengths.clamp(0, S)
    starts = torch.zeros(B + 1, dtype=torch.int64)
    torch.cumsum((valid + _TILE - 1) // _TILE, 0, out=starts[1:])
    parts = ranges(int(starts[-1]), least=max(1, _LEAST // (_TILE * T * H * D)))
    edges = torch.tensor([low for low, _ in parts] + [parts[-1][1]])
    slots = (len(parts) + B - 1, T * H)
    maxima, totals, outputs = torch.empty(slots), torch.empty(slots), torch.empty((*slots, D))
    keys, key_strides = _flat(k)
    values, value_strides = _flat(v)
    run(
        _attend,
        parts,
        *(array(tensor) for tensor in (rows, keys, values, key_strides, value_strides, valid, starts)),
        *(array(tensor) for tensor in (maxima, totals, outputs, torch.empty(len(parts), T * H, _TILE))),
        T,
        G,
        bool(causal),
    )
    out = torch.empty(rows.shape)
    run(_merge, [(0, B)], *(array(tensor) for tensor in (maxima, totals, outputs, starts, edges, out)))
    return out.view(B, H, T, D).transpose(1, 2).to(q.dtype).contiguous()


def _rows(q: Tensor, G: int, scale: float) -> Tensor:
    """(B, H T, D), heads outermost, so that all rows of a key head are neighbours; scaled, float32, contiguous."""
    B, T, H, D = q.shape
    return torch.mul(q.float(), scale).transpose(1, 2).reshape(B, H * T, D).contiguous()


def _flat(cache: Tensor) -> tuple[Tensor, Tensor]:
    """A cache as one row of numbers from its first to its last, and its strides over samples, keys and heads.

    A slice of a larger cache is taken as it lies; only rows whose numbers are not neighbours are copied.
    """
    if cache.dtype == torch.float16:
        cache = cache.float()
    if cache.stride(3) != 1 and cache.shape[3] > 1:
        cache = cache.contiguous()
    strides = cache.stride()[:3]
    span = sum((size - 1) * stride for size, stride in zip(cache.shape[:3], strides, strict=True)) + cache.shape[3]
    return cache.detach().as_strided((span,), (1,)), torch.tensor(strides)


def _widen(typing: Any, number: Any) -> Any:
    """A float32 as it is, the bits of a bfloat16 as the float32 that they begin."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if signature.args[0] != types.int16:
            return arguments[0]
        wide = builder.zext(arguments[0], context.get_value_type(types.int32))
        bits = builder.shl(wide, context.get_constant(types.int32, 16))
        return builder.bitcast(bits, context.get_value_type(types.float32))

    return types.float32(number), code


_widened: Any = intrinsic(_widen)


def _fetch(typing: Any, numbers: Any, index: Any) -> Any:
    """Ask for the cache line of a number; past the end nothing happens."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        options = [ir.Constant(word, option) for option in (0, 3, 1)]  # to read, keep in all caches, data
        builder.call(function, [builder.bitcast(builder.gep(data, [arguments[1]]), byte), *options])
        return context.get_dummy_value()

    return types.void(numbers, types.int64), code


_prefetch: Any = intrinsic(_fetch)


@inlined
def _ask(numbers, start, count):
    """Prefetch ``count`` numbers from ``start`` on. A range with a step would divide, at more than that cost."""
    end = start + count
    while start < end:
        _prefetch(numbers, start)
        start += _LINE // numbers.itemsize


@inlined
def _scores(rows, keys, start, step, head_step, ahead, count, per, scores):
    """scores[r, s] = rows[r] . key s of the head of row r: keys outside, heads inside, as the cache lies in memory."""
    D = rows.shape[1]
    for s in range(count):
        for g in range(len(rows) // per):
            o = start + s * step + g * head_step
            key = keys[o : o + D]
            _ask(keys, o + ahead, D)
            for r in range(g * per, g * per + per):
                row = rows[r]
                score = np.float32(0.0)
                for d in range(len(row)):
                    score += row[d] * _widened(key[d])
                scores[r, s] = score


@inlined
def _weigh(score, visible, maximum, total, output, r):
    """Turn the scores of row r into weights below its new maximum, zeros where hidden; rescale what it has so far."""
    seen, hidden = score[:visible], score[visible:]
    hidden[:] = np.float32(0.0)
    largest = maximum[r]
    for s in range(len(seen)):
        largest = seen[s] if seen[s] > largest else largest
    if largest > maximum[r]:
        factor = exp32(maximum[r] - largest)
        out = output[r]
        for d in range(len(out)):
            out[d] *= factor
        total[r] *= factor
        maximum[r] = largest
    added = np.float32(0.0)
    for s in range(len(seen)):
        weight = exp32(seen[s] - largest)
        seen[s] = weight
        added += weight
    total[r] += added


@inlined
def _gather(values, start, step, head_step, ahead, count, per, scores, output):
    """output[r] += sum_s scores[r, s] value s of the head of row r."""
    D = output.shape[1]
    for s in range(count):
        for g in range(len(output) // per):
            o = start + s * step + g * head_step
            value = values[o : o + D]
            _ask(values, o + ahead, D)
            for r in range(g * per, g * per + per):
                out, weight = output[r], scores[r, s]
                for d in range(len(out)):
                    out[d] += weight * _widened(value[d])


@compiled
def _attend(
    rows, keys, values, key_strides, value_strides, lengths, starts, maxima, totals, outputs, scratch, T, G, causal,
    part, low, high,
):  # fmt: skip
    """Partial results of the tiles from low to high, in slot part + sample."""
    scores = scratch[part]
    per = rows.shape[1] // G
    keys_ahead = max(8, _AHEAD // (G * rows.shape[2]))
    _, key_step, key_head = key_strides
    _, value_step, value_head = value_strides
    b, tile = 0, low
    while tile < high:
        while starts[b + 1] <= tile:
            b += 1
        maximum, total, output = maxima[part + b], totals[part + b], outputs[part + b]
        maximum[:], total[:], output[:] = np.float32(-np.inf), np.float32(0.0), np.float32(0.0)
        end = min(high, starts[b + 1])
        for first in range((tile - starts[b]) * _TILE, (end - starts[b]) * _TILE, _TILE):
            count = min(_TILE, lengths[b] - first)
            start, ahead = b * key_strides[0] + first * key_step, keys_ahead * key_step
            if per == 1:  # the constant lets the compiler drop the loop over rows of a head, a tenth of the time
                _scores(rows[b], keys, start, key_step, key_head, ahead, count, 1, scores)
            else:
                _scores(rows[b], keys, start, key_step, key_head, ahead, count, per, scores)
            for r in range(len(scores)):
                visible = count
                if causal:
                    visible = max(0, min(count, lengths[b] - T + r % T + 1 - first))
                _weigh(scores[r][:count], visible, maximum, total, output, r)
            start, ahead = b * value_strides[0] + first * value_step, keys_ahead * value_step
            if per == 1:
                _gather(values, start, value_step, value_head, ahead, count, 1, scores, output)
            else:
                _gather(values, start, value_step, value_head, ahead, count, per, scores, output)
        tile = end


@compiled
def _merge(maxima, totals, outputs, starts, edges, out, part, low, high):
    """Merge what the threads found for the samples from low to high, and divide; zeros where no key was seen."""
    for b in range(low, high):
        out[b] = np.float32(0.0)
        if starts[b] == starts[b + 1]:
            continue  # no thread has touched it, although one range may pass over it
        for r in range(out.shape[1]):
            row = out[b, r]
            largest, total = np.float32(-np.inf), np.float32(0.0)
            for i in range(len(edges) - 1):
                if edges[i] < starts[b + 1] and edges[i + 1] > starts[b]:
                    largest = max(largest, maxima[i + b, r])
            if largest == np.float32(-np.inf):
                largest = np.float32(0.0)
            for i in range(len(edges) - 1):
                if edges[i] < starts[b + 1] and edges[i + 1] > starts[b]:
                    factor = exp32(maxima[i + b, r] - largest)
                    total += factor * totals[i + b, r]
                    found = outputs[i + b, r]
                    for d in range(len(row)):
                        row[d] += factor * found[d]
            if total != np.float32(0.0):
                for d in range(len(row)):
                    row[d] /= total
