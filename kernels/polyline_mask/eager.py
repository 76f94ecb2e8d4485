"""Vectorised torch: with x = k v^T of each place (some channels of k at a time) the mask is four products by lines.

A holds the straight paths of every row, B those of every column. By theorem 2 of PPMA the first path multiplies x by B
along columns and the result by A along rows, the second the other way round, so y = A B x + B A x and out = q y. Both
are symmetric, so the gradients with respect to x are the same products. Sums are float32 (float64 for float64).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from core_attention.kernels.polyline_mask._paths import from_flow, straight_paths, through_log

__all__ = ["polyline_mask", "polyline_mask_backward", "portable_polyline_mask"]

_BLOCK = 1 << 20  # elements of a block


class _Lines(NamedTuple):
    """The straight paths of some heads: (G, rows, columns, columns) and (G, columns, rows, rows)."""

    rows: Tensor
    columns: Tensor

    def along_rows(self, x: Tensor) -> Tensor:
        """(G, rows, columns, C), mixed within rows."""
        return self.rows @ x

    def along_columns(self, x: Tensor) -> Tensor:
        """The same within columns."""
        return (self.columns @ x.transpose(1, 2)).transpose(1, 2)


def _heads_first(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, rows, columns, H, D) -> (B H, rows, columns, D), contiguous."""
    B, rows, columns, H, D = x.shape
    return x.permute(0, 3, 1, 2, 4).to(dtype).reshape(B * H, rows, columns, D).contiguous()


def _heads_last(x: Tensor, like: Tensor) -> Tensor:
    """(B H, rows, columns, ...) -> (B, rows, columns, H, ...) in the dtype of ``like``."""
    x = x.view(like.shape[0], like.shape[3], *x.shape[1:]).transpose(1, 2).transpose(2, 3)
    return x.to(like.dtype).contiguous()


class _Blocks:
    """Operands with heads first, cut into groups of heads, and blocks of key channels within each."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor) -> None:
        self.dtype = torch.promote_types(q.dtype, torch.float32)
        self.q, self.k, self.v = (_heads_first(x, self.dtype) for x in (q, k, v))
        self.decay_h = decay_h.permute(0, 3, 1, 2).flatten(0, 1)
        self.decay_v = decay_v.permute(0, 3, 2, 1).flatten(0, 1)

    def groups(self) -> Iterator[tuple[slice, _Lines]]:
        """Ranges of heads with their paths."""
        G, rows, columns, Dv = self.v.shape
        step = max(1, _BLOCK // (rows * columns * max(Dv, rows + columns)))
        for first in range(0, G, step):
            group = slice(first, min(G, first + step))
            paths = (straight_paths(x[group], self.dtype) for x in (self.decay_h, self.decay_v))
            yield group, _Lines(*paths)

    def channels(self, group: slice) -> Iterator[slice]:
        """Ranges of key channels of a group."""
        v = self.v[group]
        step = max(1, _BLOCK // v.numel())
        D = self.q.shape[-1]
        for first in range(0, D, step):
            yield slice(first, min(D, first + step))


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """(G, rows, columns, D) and (G, rows, columns, E) -> (G, rows, columns, D E)."""
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(3)


def polyline_mask(q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor) -> Tensor:
    """q, k (B, rows, columns, H, D), v (..., Dv), decays (B, rows, columns, H) -> (B, rows, columns, H, Dv).

    Time O(B H N (rows + columns) D Dv); memory O(B H N (D + Dv)), a head's O(N (rows + columns + Dv)) and some blocks
    of 4 MiB.
    """
    blocks = _Blocks(q, k, v, decay_h, decay_v)
    out = torch.zeros_like(blocks.v)
    for group, lines in blocks.groups():
        for d in blocks.channels(group):
            x = _outer(blocks.k[group, ..., d], blocks.v[group])
            y = lines.along_rows(lines.along_columns(x)).add_(lines.along_columns(lines.along_rows(x)))
            out[group] += _contracted(blocks.q[group, ..., d], y)
    return _heads_last(out, v)


def _contracted(a: Tensor, y: Tensor) -> Tensor:
    """(G, rows, columns, D) and (G, rows, columns, D E) -> (G, rows, columns, E), the sum over D."""
    return (a.unsqueeze(-2) @ y.unflatten(3, (a.shape[-1], -1))).squeeze(-2)


def polyline_mask_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor, to_decays: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of q, k, v and of both decays (None unless asked for); time as two to four forward passes."""
    blocks = _Blocks(q, k, v, decay_h, decay_v)
    g = _heads_first(grad, blocks.dtype)
    d_q, d_k, d_v = torch.empty_like(blocks.q), torch.empty_like(blocks.k), torch.zeros_like(blocks.v)
    logs = [torch.empty_like(x, dtype=blocks.dtype) for x in (blocks.decay_h, blocks.decay_v)] if to_decays else []
    for group, lines in blocks.groups():
        flows = [torch.zeros_like(lines.rows), torch.zeros_like(lines.columns)]
        key, value, query = blocks.k[group], blocks.v[group], blocks.q[group]
        for d in blocks.channels(group):
            x, d_y = _outer(key[..., d], value), _outer(query[..., d], g[group])
            by_row, by_column = lines.along_rows(x), lines.along_columns(x)
            y = lines.along_rows(by_column).add_(lines.along_columns(by_row))
            d_q[group, ..., d] = (y.unflatten(3, (-1, value.shape[-1])) @ g[group].unsqueeze(-1)).squeeze(-1)
            back_row, back_column = lines.along_rows(d_y), lines.along_columns(d_y)
            d_x = lines.along_rows(back_column).add_(lines.along_columns(back_row))
            d_k[group, ..., d] = (d_x.unflatten(3, (-1, value.shape[-1])) @ value.unsqueeze(-1)).squeeze(-1)
            d_v[group] += _contracted(key[..., d], d_x)
            if to_decays:
                flows[0] += d_y @ by_column.mT + back_column @ x.mT
                d_y, by_row, back_row, x = (t.transpose(1, 2) for t in (d_y, by_row, back_row, x))
                flows[1] += d_y @ by_row.mT + back_row @ x.mT
        for log, flow, paths in zip(logs, flows, lines, strict=False):
            log[group] = from_flow(flow.mul_(paths))
    d_qkv = (_heads_last(d, like) for d, like in ((d_q, q), (d_k, k), (d_v, v)))
    if not to_decays:
        return *d_qkv, None, None
    B, rows, columns, H = decay_h.shape
    d_h = through_log(logs[0].view(B, H, rows, columns).permute(0, 2, 3, 1), decay_h)
    d_vertical = through_log(logs[1].view(B, H, columns, rows).permute(0, 3, 2, 1), decay_v)
    return *d_qkv, d_h, d_vertical


def portable_polyline_mask(q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor) -> Tensor:
    """The same from plain operators in the operands' dtype, all channels at once: for exporters, and as a peer.

    Differentiable by autograd. Memory O(B H N (rows + columns + D Dv)).
    """
    rows = straight_paths(decay_h.permute(0, 3, 1, 2), q.dtype)  # B, H, rows, columns, columns
    columns = straight_paths(decay_v.permute(0, 3, 2, 1), q.dtype)
    q, k, v = (x.permute(0, 3, 1, 2, 4) for x in (q, k, v))
    x = (k.unsqueeze(-1) * v.unsqueeze(-2)).flatten(4)
    first = rows @ (columns @ x.transpose(2, 3)).transpose(2, 3)
    second = (columns @ (rows @ x).transpose(2, 3)).transpose(2, 3)
    y = (first + second).unflatten(4, (q.shape[-1], v.shape[-1]))
    return (q.unsqueeze(-2) @ y).squeeze(-2).permute(0, 2, 3, 1, 4).contiguous()
