"""CFSR's blocks on a CPU without gradients: band by band of rows, so that what lies between two layers stays in cache.

Layer by layer, most of the time goes into fetching fresh memory for tensors of the whole image. Here every layer works
on some rows, writes into small buffers that all blocks share, and hands them to the next at once. A window of 9 rows
needs 4 rows below the band, so that each stage runs as far ahead of the next as the next one looks:

    A  gate = GELU(A LN(x)), value = V LN(x)          rows up to y + 5
    B  x += P (DW(gate) value), z = GELU(W1 LN(x))    rows up to y + 1
    C  x += W2 (z + GELU(DW(z)))                      rows up to y

Results differ from those of `Block.forward` by rounding alone: means are products with a vector of ones, and what
LayerNorm multiplies and adds is folded into the map behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.mechanisms.large_kernel import LargeKernel
from pipelines.superres.models.edge import EdgeFeedForward

__all__ = ["refine", "serves"]

_PIXELS = 6144  # of a band, for each thread: small enough for caches, large enough to hide what a call costs
_GELU: Any = torch.ops.aten.gelu.out


def serves(tokens: Tensor, blocks: Iterable[nn.Module]) -> bool:
    """Whether `refine` may take the place of the blocks: on a CPU, without gradients, with CFSR's own parts."""
    if tokens.device.type != "cpu" or tokens.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        return False
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    parts = [(type(block.attn), type(block.mlp)) for block in blocks]
    return all(part == (LargeKernel, EdgeFeedForward) for part in parts)


def refine(groups: Iterable[nn.Module], tokens: Tensor) -> Tensor:
    """All blocks and groups of a model.

    Args:
        groups: modules with ``blocks`` (each ``attn``, ``mlp`` and two layer scales) and ``conv``.
        tokens: (B, H, W, C); they stay as they are.

    Returns:
        (B, H, W, C) in float32, or in float64 for float64. Half-width tokens, and any under autocast, are multiplied in
        half width but added up in float32.

    Time as the blocks'; memory beside the result 4 C + 2 hidden numbers a pixel of a band, of 6,144 pixels a thread or
    8 rows.
    """
    halved = torch.is_autocast_enabled("cpu")
    work = torch.get_autocast_dtype("cpu") if halved else tokens.dtype
    wide = torch.float32 if work.itemsize == 2 else tokens.dtype
    x = tokens.to(wide, copy=True, memory_format=torch.contiguous_format)
    with torch.autocast("cpu", enabled=False):
        stages = [([_Weights(block, work) for block in group.blocks], *_map(group.conv, work)) for group in groups]
        space = _Space(x[0], stages[0][0][0], work)  # all blocks of a model have the same sizes
        for sample in x:
            for blocks, weight, bias in stages:
                for block in blocks:
                    _block(sample, block, space)
                for rows in sample.split(_rows(sample)):
                    flat = rows.view(-1, rows.shape[-1])
                    flat.add_(torch.addmm(bias, flat.to(work), weight))
    return x


def _rows(sample: Tensor) -> int:
    """Rows of a band of an image (H, W, C)."""
    return max(8, -(-_PIXELS * torch.get_num_threads() // sample.shape[1]))


def _map(layer: nn.Conv2d, dtype: torch.dtype, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution as (in, out) matrix and (out,) bias, with what a LayerNorm before it multiplies and adds."""
    weight, bias = layer.weight.flatten(1), layer.bias
    if norm is not None:
        bias = torch.addmv(bias, weight, norm.bias)
        weight = weight * norm.weight
    return weight.to(dtype).t(), bias.to(dtype)


class _Weights:
    """The tensors of one block in the dtype that multiplies, layer scales and LayerNorms folded in."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        mixer, net = block.attn, block.mlp
        self.epsilons = mixer.norm.eps, net.norm.eps
        self.gate, self.gate_bias = _map(mixer.a[0], dtype, mixer.norm)
        self.value, self.value_bias = _map(mixer.v, dtype, mixer.norm)
        window = mixer.a[2].lkb_reparam
        self.window, self.window_bias = window.weight.to(dtype), window.bias.to(dtype)
        self.out, self.out_bias = _map(mixer.proj, dtype)
        self.out, self.out_bias = (
            self.out * block.layer_scale_1.to(dtype),
            self.out_bias * block.layer_scale_1.to(dtype),
        )
        self.expand, self.expand_bias = _map(net.fc1, dtype, net.norm)
        edges, edges_bias = net.filters()
        self.edges, self.edges_bias = edges.to(dtype), edges_bias.to(dtype)
        self.contract, self.contract_bias = _map(net.fc2, dtype)
        scale = block.layer_scale_2.to(dtype)
        self.contract, self.contract_bias = self.contract * scale, self.contract_bias * scale
        self.reach = self.window.shape[2] // 2


class _Rows:
    """A window on rows (1, R, W, C) of an image that moves down: rows are added below and dropped above."""

    def __init__(self, capacity: int, width: int, channels: int, dtype: torch.dtype) -> None:
        self.buffer, self.count = torch.empty((1, capacity, width, channels), dtype=dtype), 0

    def add(self, count: int) -> Tensor:
        """The next rows, to be written, as pixels (count W, C)."""
        start, self.count = self.count, self.count + count
        return self.buffer[0, start : self.count].view(-1, self.buffer.shape[3])

    def drop(self, count: int) -> None:
        """Forget the first rows, or all."""
        kept = self.buffer[:, count : self.count]
        # Few rows are kept, many dropped; where they overlap, copying in place would read what it wrote.
        self.buffer[:, : kept.shape[1]] = kept if kept.shape[1] <= count else kept.clone()
        self.count = kept.shape[1]


class _Space:
    """Buffers for the bands of images (H, W, C), used by all blocks."""

    def __init__(self, sample: Tensor, weights: _Weights, dtype: torch.dtype) -> None:
        H, W, C = sample.shape
        self.rows, reach, hidden = _rows(sample), weights.reach, weights.expand.shape[1]
        most = min(H, self.rows + reach + 1)  # rows that a stage does at once
        self.gate, self.value = _Rows(most + 2 * reach, W, C, dtype), _Rows(most + reach, W, C, dtype)
        self.inner = _Rows(most + 2, W, hidden, dtype)
        self.normal, self.square = (torch.empty((most * W, C), dtype=sample.dtype) for _ in range(2))
        self.half = self.normal if dtype == sample.dtype else torch.empty((most * W, C), dtype=dtype)
        self.ones = torch.full((C, 1), 1 / C, dtype=sample.dtype)

    def clear(self, reach: int) -> None:
        """Begin an image: nothing but the zeros above it."""
        for window, zeros in ((self.gate, reach), (self.value, 0), (self.inner, 1)):
            window.count = 0
            window.add(zeros).zero_()

    def normalised(self, x: Tensor, eps: float) -> Tensor:
        """(x - mean) / sqrt(variance + eps) of the rows of x (N, C), in the dtype that multiplies."""
        count = len(x)
        normal = torch.sub(x, x @ self.ones, out=self.normal[:count])
        square = torch.mul(normal, normal, out=self.square[:count])
        normal.mul_((square @ self.ones).add_(eps).rsqrt_())
        return normal if self.half is self.normal else self.half[:count].copy_(normal)


def _block(x: Tensor, w: _Weights, space: _Space) -> None:
    """One block, in place, on the image x (H, W, C)."""
    H, C = len(x), x.shape[2]
    gated = mixed = 0  # rows that stages A and B have done
    space.clear(w.reach)
    for top in range(0, H, space.rows):
        bottom = min(H, top + space.rows)
        ahead = min(H, bottom + w.reach + 1)
        if ahead > gated:
            _gate(x[gated:ahead].view(-1, C), w, space, ahead - gated, last=ahead == H)
            gated = ahead
        ahead = min(H, bottom + 1)
        if ahead > mixed:
            _mix(x[mixed:ahead].view(-1, C), w, space, ahead - mixed, last=ahead == H)
            mixed = ahead
        _finish(x[top:bottom].view(-1, C), w, space, bottom - top)


def _gate(x: Tensor, w: _Weights, space: _Space, rows: int, last: bool) -> None:
    """Stage A: the gate before its convolution, and the values, of some rows of pixels x (rows W, C)."""
    normal = space.normalised(x, w.epsilons[0])
    gate = space.gate.add(rows)
    torch.addmm(w.gate_bias, normal, w.gate, out=gate)
    _GELU(gate, out=gate)
    torch.addmm(w.value_bias, normal, w.value, out=space.value.add(rows))
    if last:
        space.gate.add(w.reach).zero_()


def _mix(x: Tensor, w: _Weights, space: _Space, rows: int, last: bool) -> None:
    """Stage B: the mixer's result, and the feed-forward net up to its convolution."""
    mixed = _depthwise(space.gate.buffer[:, : rows + 2 * w.reach], w.window, w.window_bias)
    mixed.mul_(space.value.buffer[:, :rows])
    space.gate.drop(rows)
    space.value.drop(rows)
    _add_map(x, mixed.view(x.shape), w.out, w.out_bias)
    inner = space.inner.add(rows)
    torch.addmm(w.expand_bias, space.normalised(x, w.epsilons[1]), w.expand, out=inner)
    _GELU(inner, out=inner)
    if last:
        space.inner.add(1).zero_()


def _finish(x: Tensor, w: _Weights, space: _Space, rows: int) -> None:
    """Stage C: the edges, and the second map."""
    edges = _depthwise(space.inner.buffer[:, : rows + 2], w.edges, w.edges_bias)
    _GELU(edges, out=edges)
    edges.add_(space.inner.buffer[:, 1 : rows + 1])
    space.inner.drop(rows)
    _add_map(x, edges.view(len(x), -1), w.contract, w.contract_bias)


def _depthwise(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve (1, R + kh - 1, W, C), padded to the sides only, to (1, R, W, C)."""
    sides = (0, weight.shape[3] // 2)
    out = F.conv2d(rows.permute(0, 3, 1, 2), weight, bias, padding=sides, groups=len(weight))
    return out.permute(0, 2, 3, 1).contiguous()


def _add_map(x: Tensor, rows: Tensor, weight: Tensor, bias: Tensor) -> None:
    """x += rows weight + bias, in place; x may be wider than what multiplies."""
    if x.dtype == rows.dtype:
        x.add_(bias).addmm_(rows, weight)
    else:
        x.add_(torch.addmm(bias, rows, weight))
