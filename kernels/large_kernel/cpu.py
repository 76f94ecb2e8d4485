"""Compiled loops of the depthwise convolution and of its weight's gradient, in float32.

A band of rows of some channels is copied into zero-bordered buffers, planes whatever the layout of x. There four rows
of the result are made together: for one column of the kernel, an input row that is loaded once feeds all four, so that
the loop along a row is bound by arithmetic. The kernel rows of one piece are a constant of the compiled loop, which
unrolls them; taller kernels are cut into equal pieces, the last filled with zeros.

Contiguous planes take half of the time of torch's convolution or less. For channels-last operands the copies cost as
much as the sums: torch's own convolution is then as fast and is what a free choice takes; the weight's gradient, where
torch takes several times as long, always comes from here.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core_attention.kernels._numba import array, compiled, inlined, ranges, run
from core_attention.kernels.large_kernel.eager import is_channels_last, memory_format

__all__ = ["large_kernel", "large_kernel_correlation"]

_PIECE = 13  # most kernel rows that the convolution unrolls: beyond about 15 LLVM gives up vectorising
_SUMS = 5  # the same of the gradient's loop, which writes as many rows as it has of the kernel
_TOGETHER = 4  # rows of the result made together; the loops below spell them out
_LINE = 16  # channels that are transposed together: the float32 numbers of a cache line


def large_kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve. x (B, C, H, W), weight (C, 1, kh, kw), bias (C,) or None -> as x, in its memory format.

    Time O(B C H W kh kw); memory a band of rows a thread, of one channel or, where x is channels-last, of sixteen.
    """
    B, C, H, W = x.shape
    kh, kw = weight.shape[2:]
    size, count = _pieces(kh, _PIECE)
    group, rows, block = _blocks(x)
    parts = ranges(B * -(-C // group) * -(-H // rows))
    taps = torch.zeros((C, size * count, kw))
    taps[:, :kh] = weight.detach().reshape(C, kh, kw)
    added = torch.zeros(C) if bias is None else bias.detach().float().contiguous()
    out = torch.empty(x.shape, memory_format=memory_format(x))
    borders = torch.empty((len(parts), group, rows + size * count - 1 + _TOGETHER, W + kw - 1))
    results = torch.empty((len(parts), group, rows + _TOGETHER, W))
    arguments = (x.detach().float(), taps, added, out, borders, results)
    run(_convolution(size), parts, *(array(tensor) for tensor in arguments), kh, rows, block)
    return out.to(x.dtype)


def large_kernel_correlation(x: Tensor, grad: Tensor, kh: int, kw: int) -> Tensor:
    """Gradient of the weight. x and grad (B, C, H, W) -> (C, 1, kh, kw).

    Time O(B C H W kh kw); memory as above, and kh kw numbers a band of rows, added up at the end.
    """
    B, C, H, W = x.shape
    size, count = _pieces(kh, _SUMS)
    group, rows, block = _blocks(x)
    bands = -(-H // rows)
    parts = ranges(B * -(-C // group) * bands)
    out = torch.empty((B, bands, C, size * count, kw))
    borders = torch.empty((len(parts), group, rows + size * count - 1 + _TOGETHER, W + kw - 1))
    cotangents = torch.empty((len(parts), group, rows + _TOGETHER, W))
    sums = torch.empty((len(parts), size, W))
    arguments = (x.detach().float(), grad.detach().float(), out, borders, cotangents, sums)
    run(_correlation(size), parts, *(array(tensor) for tensor in arguments), kh, rows, block)
    return out.sum((0, 1))[:, :kh].to(x.dtype).contiguous().view(C, 1, kh, kw)


def _pieces(kh: int, most: int) -> tuple[int, int]:
    """(kernel rows of a piece, number of pieces) for a kernel of kh rows."""
    count = -(-kh // most)
    return -(-kh // count), count


def _blocks(x: Tensor) -> tuple[int, int, int]:
    """Channels and rows of a band, and pixels copied at a time: bands of about a quarter to one megabyte."""
    H, W = x.shape[2:]
    if is_channels_last(x):
        return _LINE, min(H, 32), 2 * _LINE
    return 1, min(H, 64), W


@inlined
def _fill(source, target, y0, top, left, block):
    """Copy rows y0 - top, ... of some channels (channels, H, W) into target (channels, rows, width), zero outside."""
    H, W = source.shape[1], source.shape[2]
    for y in range(target.shape[1]):
        at = y0 + y - top
        if at < 0 or at >= H:
            for g in range(len(source)):
                target[g, y] = np.float32(0.0)
            continue
        for g in range(len(source)):
            target[g, y, :left] = np.float32(0.0)
            target[g, y, left + W :] = np.float32(0.0)
        for x0 in range(0, W, block):
            for g in range(len(source)):
                pixels = source[g, at, x0 : min(x0 + block, W)]
                row = target[g, y, left + x0 : left + W]
                for x in range(len(pixels)):
                    row[x] = pixels[x]


@inlined
def _empty(source, target, y0, block):
    """Copy the first rows of source (channels, rows, W) to rows y0, ... of target (channels, H, W)."""
    H, W = target.shape[1], target.shape[2]
    for y in range(y0, min(y0 + source.shape[1] - 4, H)):
        for x0 in range(0, W, block):
            for g in range(len(target)):
                pixels = target[g, y, x0 : min(x0 + block, W)]
                row = source[g, y - y0, x0:W]
                for x in range(len(pixels)):
                    pixels[x] = row[x]


@functools.cache
def _convolution(KH: int) -> Any:
    """The loop over items (sample, group of channels, band of rows) for pieces of KH kernel rows."""

    def convolve(source, taps, bias, out, borders, results, kh, rows, block, part, low, high):
        C, H, W, KW = source.shape[1], source.shape[2], source.shape[3], taps.shape[2]
        group, bands = borders.shape[1], (H + rows - 1) // rows
        groups = (C + group - 1) // group
        for item in range(low, high):
            b, c0, y0 = item // bands // groups, item // bands % groups * group, item % bands * rows
            c1 = min(c0 + group, C)
            _fill(source[b, c0:c1], borders[part], y0, kh // 2, KW // 2, block)
            for c in range(c0, c1):
                buffer, result = borders[part, c - c0], results[part, c - c0]
                for y in range(0, min(rows, H - y0), 4):
                    o0, o1, o2, o3 = result[y], result[y + 1], result[y + 2], result[y + 3]
                    o0[:] = bias[c]
                    o1[:] = bias[c]
                    o2[:] = bias[c]
                    o3[:] = bias[c]
                    for first in range(0, taps.shape[1], KH):
                        lines = buffer[y + first : y + first + KH + 3]
                        for column in range(KW):
                            weights, shift = taps[c, first : first + KH, column], np.uintp(column)
                            # Unsigned: an index that could be negative would be wrapped, and nothing vectorised.
                            for x in range(np.uintp(W)):
                                a0, a1, a2, a3 = o0[x], o1[x], o2[x], o3[x]
                                i0, i1, i2 = lines[0, shift + x], lines[1, shift + x], lines[2, shift + x]
                                for k in range(KH):
                                    i3, w = lines[k + 3, shift + x], weights[k]
                                    a0 += w * i0
                                    a1 += w * i1
                                    a2 += w * i2
                                    a3 += w * i3
                                    i0, i1, i2 = i1, i2, i3
                                o0[x], o1[x], o2[x], o3[x] = a0, a1, a2, a3
            _empty(results[part], out[b, c0:c1], y0, block)

    return compiled(convolve)


@functools.cache
def _correlation(KH: int) -> Any:
    """The loop over the same items that sums, for pieces of KH kernel rows, products of x and its result's gradient."""

    def correlate(source, grads, out, borders, cotangents, sums, kh, rows, block, part, low, high):
        C, H, W, KW = source.shape[1], source.shape[2], source.shape[3], out.shape[4]
        group, bands = borders.shape[1], (H + rows - 1) // rows
        groups, total = (C + group - 1) // group, sums[part]
        for item in range(low, high):
            b, c0, band = item // bands // groups, item // bands % groups * group, item % bands
            c1, y0 = min(c0 + group, C), item % bands * rows
            _fill(source[b, c0:c1], borders[part], y0, kh // 2, KW // 2, block)
            _fill(grads[b, c0:c1], cotangents[part], y0, 0, 0, block)
            for c in range(c0, c1):
                buffer, cotangent = borders[part, c - c0], cotangents[part, c - c0]
                cotangent[rows:] = np.float32(0.0)  # they belong to the next band
                for first in range(0, out.shape[3], KH):
                    for column in range(KW):
                        shift = np.uintp(column)
                        total[:] = np.float32(0.0)
                        for y in range(0, min(rows, H - y0), 4):
                            g0, g1, g2, g3 = cotangent[y], cotangent[y + 1], cotangent[y + 2], cotangent[y + 3]
                            lines = buffer[y + first : y + first + KH + 3]
                            for x in range(np.uintp(W)):
                                b0, b1, b2, b3 = g0[x], g1[x], g2[x], g3[x]
                                i0, i1, i2 = lines[0, shift + x], lines[1, shift + x], lines[2, shift + x]
                                for k in range(KH):
                                    i3 = lines[k + 3, shift + x]
                                    total[k, x] += b0 * i0 + b1 * i1 + b2 * i2 + b3 * i3
                                    i0, i1, i2 = i1, i2, i3
                        for k in range(KH):
                            line, entry = total[k], np.float32(0.0)
                            for x in range(len(line)):
                                entry += line[x]
                            out[b, band, c, first + k, column] = entry

    return compiled(correlate)
