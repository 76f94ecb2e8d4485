"""SwiFT's arithmetic done plainly, as Swin models do it: the peer of bench_swift where the released code is absent.

Pad, roll, cut into windows, softmax of masked scores, and all of it back; features are channels-first between stages,
and autograd keeps what it likes. Names of the parameters are the released ones, so that one state dict serves all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def cut(x: Tensor, window: Sequence[int]) -> Tensor:
    """(B, X, Y, Z, T, C) -> (B windows, W, C)."""
    pairs = [n for size, w in zip(x.shape[1:5], window, strict=True) for n in (size // w, w)]
    x = x.view(x.shape[0], *pairs, x.shape[-1]).permute(0, 1, 3, 5, 7, 2, 4, 6, 8, 9)
    return x.reshape(-1, math.prod(window), x.shape[-1])


def joined(x: Tensor, window: Sequence[int], grid: Sequence[int]) -> Tensor:
    """The way back."""
    counts = [size // w for size, w in zip(grid, window, strict=True)]
    x = x.view(-1, *counts, *window, x.shape[-1]).permute(0, 1, 5, 2, 6, 3, 7, 4, 8, 9)
    return x.reshape(x.shape[0], *grid, x.shape[-1])


def hidden(grid: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """(windows, W, W): -100 between tokens of a rolled window that come from different ends of an axis."""
    region = torch.zeros(1, *grid, 1)
    for axis, (size, moved) in enumerate(zip(grid, shift, strict=True), start=1):
        if moved:
            region.narrow(axis, size - moved, moved).add_(2.0**axis)
    numbers = cut(region, window)[..., 0]
    return (numbers[:, None] != numbers[:, :, None]).float() * -100.0


class PeerAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n, W, C = x.shape
        q, k, v = self.qkv(x).reshape(n, W, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (C // self.heads) ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.view(-1, len(mask), *scores.shape[1:]) + mask[None, :, None]
            scores = scores.view(n, *scores.shape[2:])
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, W, C))


class PeerMlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.linear1(x)))


class PeerBlock(nn.Module):
    def __init__(self, dim: int, heads: int, window: Sequence[int], shifted: bool) -> None:
        super().__init__()
        self.window, self.shifted = window, shifted
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = PeerAttention(dim, heads), PeerMlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attended(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attended(self, x: Tensor) -> Tensor:
        grid = x.shape[1:5]
        window = [min(w, size) for w, size in zip(self.window, grid, strict=True)]
        shift = [w // 2 if self.shifted and w < size else 0 for w, size in zip(self.window, grid, strict=True)]
        more = [-size % w for size, w in zip(grid, window, strict=True)]
        x = F.pad(x, (0, 0, 0, more[3], 0, more[2], 0, more[1], 0, more[0]))
        filled, mask = x.shape[1:5], None
        if any(shift):
            x = torch.roll(x, [-s for s in shift], (1, 2, 3, 4))
            mask = hidden(filled, window, shift)
        x = joined(self.attn(cut(x, window), mask), window, filled)
        if any(shift):
            x = torch.roll(x, shift, (1, 2, 3, 4))
        return x[:, : grid[0], : grid[1], : grid[2], : grid[3]].contiguous()


class PeerMerging(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction, self.norm = nn.Linear(8 * dim, 2 * dim, bias=False), nn.LayerNorm(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, i::2, j::2, k::2] for i, j, k in itertools.product(range(2), repeat=3)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class PeerPatches(nn.Module):
    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.patch, self.fc = patch, nn.Linear(patch**3, dim)

    def forward(self, x: Tensor) -> Tensor:
        p, (B, _, X, Y, Z, T) = self.patch, x.shape
        x = x.view(B, X // p, p, Y // p, p, Z // p, p, T).permute(0, 1, 3, 5, 7, 2, 4, 6).contiguous()
        return self.fc(x.view(B, X // p, Y // p, Z // p, T, p**3)).permute(0, 5, 1, 2, 3, 4)


class PeerPositions(nn.Module):
    def __init__(self, dim: int, grid: Sequence[int], frames: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, *grid, 1))
        self.time_embed = nn.Parameter(torch.zeros(1, dim, 1, 1, 1, frames))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pos_embed + self.time_embed[..., : x.shape[-1]]


class PeerSwift(nn.Module):
    """The encoder: (B, 1, X, Y, Z, T) -> (B, D, x, y, z, T); images of whole patches, grids even where merged."""

    def __init__(
        self,
        image: Sequence[int] = (96, 96, 96),
        frames: int = 20,
        dim: int = 36,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: Sequence[int] = (4, 4, 4, 4),
        patch: int = 6,
    ) -> None:
        super().__init__()
        grid, last = [size // patch for size in image], len(depths) - 1
        self.patch_embed, positions, layers = PeerPatches(dim, patch), [], []
        for stage, (depth, H) in enumerate(zip(depths, heads, strict=True)):
            positions.append(PeerPositions(dim, grid, frames))
            layer, shape = nn.Module(), (*grid, window[3]) if stage == last else window
            blocks = [PeerBlock(dim, H, shape, i % 2 == 1 and stage != last) for i in range(depth)]
            layer.blocks = nn.ModuleList(blocks)
            if stage < last:
                layer.downsample = PeerMerging(dim)
                grid, dim = [size // 2 for size in grid], 2 * dim
            layers.append(layer)
        self.pos_embeds, self.layers = nn.ModuleList(positions), nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for stage, (positions, layer) in enumerate(zip(self.pos_embeds, self.layers, strict=True)):
            x = positions(x).contiguous().permute(0, 2, 3, 4, 5, 1)
            for block in layer.blocks:
                x = block(x)
            x = x if stage == len(self.layers) - 1 else layer.downsample(x)
            x = x.permute(0, 5, 1, 2, 3, 4)
        return x
