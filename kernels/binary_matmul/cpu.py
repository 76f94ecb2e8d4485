"""Compiled loops: signs packed into 64-bit words, then exclusive-or and a count of ones.

Two words that differ in c bits stand for a sum of 64 - 2 c signs. The weights' words lie transposed, so that one word
of x meets neighbouring outputs and the count becomes vector instructions. The gradients of x and weight are eager's:
their products have a real side and belong to the matrix library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from torch import Tensor

from core_attention.kernels._numba import array, compiled, ranges, run
from core_attention.kernels.binary_matmul import eager
from core_attention.kernels.binary_matmul.eager import default_scale, thresholds

__all__ = ["binary_matmul", "binary_matmul_backward"]

_WORD = 64
_COLUMNS = 512  # outputs at a time: their counts and, up to 8192 features, their words stay in a core's own caches
_LEAST_ROWS = 16  # rows of x that are worth a thread


@intrinsic
def _ones(typing: Any, word: Any = None) -> Any:
    """How many bits of a word are set."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), code


@intrinsic
def _word_below(typing: Any, address: Any, threshold: Any = None) -> Any:
    """A word whose bit j says that the j-th of the 64 float32 at an address is below the threshold."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lane, long, vector = ir.IntType(32), ir.IntType(64), ir.VectorType(ir.FloatType(), 8)
        source = builder.inttoptr(arguments[0], vector.as_pointer())
        limit = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[1], ir.Constant(lane, 0))
        everywhere = ir.Constant(ir.VectorType(lane, 8), [0] * 8)
        limit = builder.shuffle_vector(limit, ir.Constant(vector, ir.Undefined), everywhere)
        word = ir.Constant(long, 0)
        for j in range(8):
            values = builder.load(builder.gep(source, [ir.Constant(lane, j)]), align=4)
            bits = builder.bitcast(builder.fcmp_ordered("<", values, limit), ir.IntType(8))
            word = builder.or_(word, builder.shl(builder.zext(bits, long), ir.Constant(long, 8 * j)))
        return word

    return types.uint64(types.int64, types.float32), code


@compiled
def _pack(values, limits, words, part, low, high):
    """words[m] = the bits of values[m] < limits[m]; the last word is filled up with zeros."""
    full = values.shape[1] // 64
    for m in range(low, high):
        row, start, limit, packed = values[m], values[m].ctypes.data, limits[m], words[m]
        for w in range(full):
            packed[w] = _word_below(start + 256 * w, limit)
        if full < len(packed):
            last = np.uint64(0)
            for k in range(64 * full, len(row)):
                if row[k] < limit:
                    last |= np.uint64(1) << np.uint64(k - 64 * full)
            packed[full] = last


@compiled
def _multiply(left, right, scale, out, counts, features, part, low, high):
    """out[m, n] = scale[n] (features - 2 ones(left[m] xor right[:, n])); left (M, W), right (W, N)."""
    for first in range(0, len(scale), counts.shape[1]):
        last = min(len(scale), first + counts.shape[1])
        count, factor = counts[part, : last - first], scale[first:last]
        for m in range(low, high):
            count[:] = 0
            for w in range(left.shape[1]):
                word, column = left[m, w], right[w, first:last]
                for n in range(len(count)):
                    count[n] += _ones(word ^ column[n])
            row = out[m, first:last]
            for n in range(len(count)):
                row[n] = np.float32(np.int32(features) - np.int32(2) * np.int32(count[n])) * factor[n]


def binary_matmul(x: Tensor, weight: Tensor, scale: Tensor | None = None, *, centre: bool = True) -> Tensor:
    """x (..., K), weight (N, K), scale (N,) -> (..., N); half-width operands are widened once."""
    rows, narrow = x.reshape(-1, x.shape[-1]).float().contiguous(), weight.float().contiguous()
    (M, K), N = rows.shape, weight.shape[0]
    left = _packed(rows, torch.zeros(M))
    right = _packed(narrow, thresholds(weight, centre)).T.contiguous()
    factor = (default_scale(weight) if scale is None else scale).float().contiguous()
    out, parts = torch.empty(M, N), ranges(M, _LEAST_ROWS)
    counts = torch.empty(len(parts), min(N, _COLUMNS), dtype=torch.int64)
    run(_multiply, parts, _bits(left), _bits(right), array(factor), array(out), _bits(counts), K)
    return out.to(x.dtype).view(*x.shape[:-1], N)


def binary_matmul_backward(
    grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor | None, *, centre: bool, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and scale, each where wanted; the scale's from sums of signs counted anew."""
    others = (wanted[0], wanted[1], False)
    d_x, d_weight, d_scale = eager.binary_matmul_backward(grad, x, weight, scale, centre=centre, wanted=others)
    if wanted[2] and scale is not None:
        counted = binary_matmul(x.reshape(-1, x.shape[-1]).float(), weight, torch.ones_like(scale), centre=centre)
        d_scale = eager.scale_gradient(grad.reshape(counted.shape).float(), counted, scale)
    return d_x, d_weight, d_scale


def _packed(rows: Tensor, limits: Tensor) -> Tensor:
    """(M, ceil(K / 64)) int64: one bit for every element below its row's limit."""
    M, K = rows.shape
    words = torch.empty(M, -(-K // _WORD), dtype=torch.int64)
    run(_pack, ranges(M, 4 * _LEAST_ROWS), array(rows), array(limits), _bits(words))
    return words


def _bits(words: Tensor) -> np.ndarray:
    return array(words).view(np.uint64)
