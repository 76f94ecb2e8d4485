"""Parts of SwiFT: patches, embeddings of place and time, blocks, merging and heads; tokens are channels-last."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import TokenMixer

__all__ = [
    "Block",
    "ClassHead",
    "ContrastiveHead",
    "DropPath",
    "HiddenHead",
    "Mlp",
    "PatchEmbed",
    "PatchMerging",
    "Positions",
    "Stage",
    "merged_axes",
]


def merged_axes(grid: Sequence[int]) -> tuple[bool, ...]:
    """Which axes of a stage's grid are halved when it ends: those of more than one token.

    Example:
        >>> merged_axes((4, 3, 1))
        (True, True, False)
    """
    return tuple(size > 1 for size in grid)


class PatchEmbed(nn.Module):
    """Cut volumes into patches and map each to C channels: (B, c, X, Y, Z, T) to (B, X/x, Y/y, Z/z, T/t, C).

    Voxels of a patch are listed with the channel fastest, then t, z, y, x, as the released weights have it.
    O(B c X Y Z T C) time. Source: SwiFT (arXiv 2307.05916), section 3.

    Args:
        channels: input channels c.
        patch: voxels of a patch on the three axes of space, and volumes on that of time.
        dim: channels C.

    Example:
        >>> PatchEmbed(1, (3, 3, 2, 1), 8)(torch.zeros(2, 1, 6, 9, 4, 5)).shape
        torch.Size([2, 2, 3, 2, 5, 8])
    """

    def __init__(self, channels: int, patch: Sequence[int], dim: int) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.fc = nn.Linear(channels * math.prod(self.patch), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Sizes are multiples of the patch."""
        counts = [size // p for size, p in zip(x.shape[2:], self.patch, strict=True)]
        x = x.reshape(*x.shape[:2], *(n for pair in zip(counts, self.patch, strict=True) for n in pair))
        x = x.permute(0, 2, 4, 6, 8, 3, 5, 7, 9, 1)
        return self.fc(x.reshape(x.shape[0], *counts, self.fc.in_features))


class OwnPatchEmbed(nn.Module):
    """As `PatchEmbed`, but each place of the grid has a map of its own: where scans lie on each other voxel by voxel, a
    place is always the same piece of brain. Ours; the published model shares one map.

    O(B c X Y Z T C) time, c X Y Z t C weights.

    Args:
        channels: input channels c.
        patch: voxels of a patch on the three axes of space, and volumes on that of time.
        dim: channels C.
        grid: places on the axes of space.

    Example:
        >>> OwnPatchEmbed(1, (3, 3, 2, 1), 8, (2, 3, 2))(torch.zeros(2, 1, 6, 9, 4, 5)).shape
        torch.Size([2, 2, 3, 2, 5, 8])
    """

    def __init__(self, channels: int, patch: Sequence[int], dim: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.patch, self.grid = tuple(patch), tuple(grid)
        inputs = channels * math.prod(self.patch)
        bound = inputs**-0.5  # as torch starts a linear map
        self.maps = nn.Parameter(torch.empty(math.prod(self.grid), inputs, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(math.prod(self.grid), 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Sizes are those of the grid times the patch; time is a multiple of the patch."""
        B, c, T = x.shape[0], x.shape[1], x.shape[5] // self.patch[3]
        counts = (*self.grid, T)
        x = x.reshape(B, c, *(n for pair in zip(counts, self.patch, strict=True) for n in pair))
        rows = x.permute(2, 4, 6, 0, 8, 3, 5, 7, 9, 1).reshape(len(self.maps), B * T, self.maps.shape[1])
        out = torch.baddbmm(self.bias, rows, self.maps)  # (places, B T, C)
        return out.view(*self.grid, B, T, -1).permute(3, 0, 1, 2, 4, 5)


class Positions(nn.Module):
    """Add a learned vector for each place in space and one for each moment: x (B, *grid, T, C) to the same shape.

    Scans with fewer moments use the first ones. Source: SwiFT (arXiv 2307.05916), section 3.

    Args:
        dim: channels C.
        grid: tokens on the axes of space.
        frames: moments that there are vectors for.
    """

    def __init__(self, dim: int, grid: Sequence[int], frames: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, dim, *grid, 1))
        self.time_embed = nn.Parameter(torch.empty(1, dim, 1, 1, 1, frames))
        for embedding in (self.pos_embed, self.time_embed):
            nn.init.trunc_normal_(embedding, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Both are added at once: their sum is small beside a batch of tokens."""
        both = self.pos_embed + self.time_embed[..., : x.shape[-2]]
        return x + both.permute(0, 2, 3, 4, 5, 1)


class DropPath(nn.Module):
    """Leave a branch out for a sample with a probability while training, and scale the others up.

    Source: Deep networks with stochastic depth (arXiv 1603.09382), section 3.

    Example:
        >>> DropPath(0.5).eval()(torch.ones(2, 3)).sum().item()
        6.0
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """The branch x (B, ...), whole samples of it zeroed."""
        if not self.training or not self.probability:
            return x
        kept = x.new_empty((x.shape[0], *([1] * (x.dim() - 1)))).bernoulli_(1 - self.probability)
        return x * kept.div_(1 - self.probability)


class Mlp(nn.Module):
    """Two linear maps with a GELU between, dropout after each: x (..., C) to the same shape. O(C hidden) a token."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C)."""
        x = F.dropout(F.gelu(self.linear1(x)), self.dropout, self.training)
        return F.dropout(self.linear2(x), self.dropout, self.training)


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); tokens (B, X, Y, Z, T, C) to the same shape.

    Args:
        mixer: for grids of four axes, or for sequences, which the tokens are then flattened to, time fastest.
        hidden: width of the MLP.
        dropout: after the layers of the MLP.
        drop_path: probability of leaving out a branch for a sample.
    """

    def __init__(self, mixer: TokenMixer, hidden: int, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(mixer.dim)
        self.attn = mixer
        self.norm2 = nn.LayerNorm(mixer.dim)
        self.mlp = Mlp(mixer.dim, hidden, dropout)
        self.drop_path = DropPath(drop_path)
        self.whole_grid = 4 in mixer.spec.grid

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        tokens = self.norm1(x)
        mixed = self.attn(tokens if self.whole_grid else tokens.flatten(1, 4)).y
        x = x + self.drop_path(mixed if self.whole_grid else mixed.view(x.shape))
        if self._lean(x):
            return _feed_forward(x, self.norm2, self.mlp)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _lean(self, x: Tensor) -> bool:
        """Whether the MLP may go by pieces: on a processor, where nothing is drawn at random, converted or traced."""
        traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        drawn = self.training and (self.mlp.dropout or self.drop_path.probability)
        wide = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(x.device.type)
        return x.device.type == "cpu" and wide and not traced and not drawn


def _feed_forward(x: Tensor, norm: nn.LayerNorm, mlp: Mlp) -> Tensor:
    """x + mlp(norm(x)), by pieces."""
    weights = (norm.weight, norm.bias, mlp.linear1.weight, mlp.linear1.bias, mlp.linear2.weight, mlp.linear2.bias)
    result: Any = _FeedForward.apply(x.flatten(0, -2), norm.eps, *weights)
    return result.view(x.shape)


#: Tokens of a piece (measured: 512 to 8192 differ by less than 5 % on one thread; few pieces, few waits between more).
_PIECE = 8192


class _FeedForward(torch.autograd.Function):
    """x + linear2(gelu(linear1(norm(x)))) for x (T, C), a piece of the tokens at a time, each computed again backward.

    Nothing of the hidden layer's size is ever kept: 37 % less time (one thread) and a tenth of the memory of the
    same steps one after another at 81920 tokens of 36 channels.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.eps = eps
        scale, offset, w1, b1, w2, b2 = weights
        y = torch.empty_like(x)
        for piece, out in zip(x.split(_PIECE), y.split(_PIECE), strict=True):
            hidden = F.gelu(F.linear(F.layer_norm(piece, piece.shape[1:], scale, offset, eps), w1, b1))
            torch.add(piece, F.linear(hidden, w2, b2), out=out)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        wanted = any(ctx.needs_input_grad[2:])
        to_x = torch.empty_like(x)
        sums = [torch.zeros_like(weight) for weight in weights] if wanted else []
        for piece, grad, out in zip(*(t.split(_PIECE) for t in (x, grads[0].contiguous(), to_x)), strict=True):
            _piece_backward(piece, grad, out, sums, weights, ctx.eps)
        return to_x, None, *(sums or [None] * len(weights))


def _piece_backward(
    x: Tensor, grad: Tensor, out: Tensor, sums: list[Tensor], weights: list[Tensor], eps: float
) -> None:
    """Gradients of one piece: that of x written to ``out``, those of the weights added to ``sums`` where there are."""
    scale, offset, w1, b1, w2, _ = weights
    width = list(x.shape[1:])
    normed, mean, rstd = torch.native_layer_norm(x, width, scale, offset, eps)
    before = F.linear(normed, w1, b1)
    to_hidden = torch.ops.aten.gelu_backward(grad @ w2, before)
    masks = [True, bool(sums), bool(sums)]
    to_normed = to_hidden @ w1
    found = torch.ops.aten.native_layer_norm_backward(to_normed, x, width, mean, rstd, scale, offset, masks)
    torch.add(grad, found[0], out=out)
    if sums:
        more = (found[1], found[2], None, to_hidden.sum(0), None, grad.sum(0))
        for total, part in zip(sums, more, strict=True):
            if part is not None:
                total.add_(part)
        sums[2].addmm_(to_hidden.t(), normed)
        sums[4].addmm_(grad.t(), F.gelu(before))


class PatchMerging(nn.Module):
    """Join neighbours in space and double the channels: (B, X, Y, Z, T, C) to (B, X/2, Y/2, Z/2, T, 2 C).

    Neighbours are listed with the last axis fastest, normalised and mapped. An odd axis gets zeros at its end first; an
    axis of one token stays as it is, and a pair of neighbours less is joined. O(16 C^2) a new token. Source: SwiFT
    (arXiv 2307.05916), section 3, and the released code, which takes even axes only.

    Args:
        dim: channels C.
        grid: tokens on the three axes of space.

    Example:
        >>> PatchMerging(4, (5, 2, 1))(torch.zeros(2, 5, 2, 1, 7, 4)).shape
        torch.Size([2, 3, 1, 1, 7, 8])
    """

    def __init__(self, dim: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.steps = tuple(2 if halved else 1 for halved in merged_axes(grid))
        joined = math.prod(self.steps) * dim
        self.reduction = nn.Linear(joined, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(joined)

    def forward(self, x: Tensor) -> Tensor:
        """Merge the tokens of one stage."""
        sizes, (T, C) = x.shape[1:4], x.shape[4:]
        missing = [-size % step for size, step in zip(sizes, self.steps, strict=True)]
        if any(missing):
            x = F.pad(x, (0, 0, 0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        counts = [-(-size // step) for size, step in zip(sizes, self.steps, strict=True)]
        x = x.reshape(x.shape[0], *itertools.chain(*zip(counts, self.steps, strict=True)), T, C)
        x = x.permute(0, 1, 3, 5, 7, 2, 4, 6, 8).reshape(x.shape[0], *counts, T, self.reduction.in_features)
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """Blocks at one resolution, and the merging that ends it (none after the last stage)."""

    def __init__(self, blocks: Sequence[Block], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, X, Y, Z, T, C) through the stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class ClassHead(nn.Module):
    """Mean over all tokens and a linear map: features (B, D, x, y, z, T) to (B, outputs).

    One output is a logit of two classes, or a number of a regression; the released code calls it ``head``.

    Example:
        >>> ClassHead(8, 3)(torch.zeros(2, 8, 1, 1, 2, 5)).shape
        torch.Size([2, 3])
    """

    def __init__(self, dim: int, outputs: int = 1) -> None:
        super().__init__()
        self.head = nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, D, ...)."""
        return self.head(x.flatten(2).mean(-1))


class HiddenHead(ClassHead):
    """The released second version: a layer of 4 D before the last one, without an activation.

    Example:
        >>> HiddenHead(8, 3)(torch.zeros(2, 8, 1, 1, 2, 5)).shape
        torch.Size([2, 3])
    """

    def __init__(self, dim: int, outputs: int = 1) -> None:
        super().__init__(4 * dim, outputs)
        self.hidden = nn.Linear(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, D, ...)."""
        return self.head(self.hidden(x.flatten(2).mean(-1)))


class ContrastiveHead(nn.Module):
    """Mean over all tokens, a linear map, batch normalisation, and length 1: features (B, D, ...) to (B, size).

    Example:
        >>> ContrastiveHead(8, 16).eval()(torch.randn(2, 8, 1, 1, 2, 5)).norm(dim=1).round(decimals=4).tolist()
        [1.0, 1.0]
    """

    def __init__(self, dim: int, size: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, size, bias=False)
        self.bn1 = nn.BatchNorm1d(size)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, D, ...); in training mode a batch of at least two."""
        return F.normalize(self.bn1(self.fc1(x.flatten(2).mean(-1))), dim=1)
