"""Patches into features, and features back into pixels; tensors have the released names and shapes."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import RMSNorm

__all__ = ["GroupNorm", "PatchEmbed", "PixelDecoder", "ResBlock", "to_grid", "to_places"]

_GROUPS = 8
#: Pixels from which torch's own sums over channels-last images in float32 on a CPU lose digits.
_MANY = 128 * 128


def to_places(features: Tensor) -> Tensor:
    """(B, d, h, w) as (B, h, w, d), a view."""
    return features.permute(0, 2, 3, 1)


def to_grid(places: Tensor) -> Tensor:
    """(B, h, w, d) as (B, d, h, w), a view."""
    return places.permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Squares of pixels as vectors, their channels normalised: (B, C, H, W) to (B, d, H / p, W / p).

    Args:
        channels: C of a frame.
        dim: channels d.
        patch: side p.
        norm: "rms" (weight only, eps 1e-8) or "layer" (eps 1e-5).

    Source: FluidWorld (arXiv 2603.21315), section 3; its baselines have "layer".

    Example:
        >>> PatchEmbed(3, 16, 4, "rms")(torch.zeros(2, 3, 8, 12)).shape
        torch.Size([2, 16, 2, 3])
    """

    def __init__(self, channels: int, dim: int, patch: int, norm: str) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, stride=patch)
        self.norm: nn.Module = RMSNorm(dim, eps=1e-8) if norm == "rms" else nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Sizes are multiples of the patch."""
        B, C, H, W = x.shape
        p = self.proj.stride[0]
        # A convolution whose steps do not overlap is a linear map of its squares.
        squares = x.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return to_grid(self.norm(F.linear(squares, self.proj.weight.flatten(1), self.proj.bias)))


class GroupNorm(nn.GroupNorm):
    """torch's, with the statistics of large channels-last images on a CPU taken in two passes.

    torch adds them up in one running sum, which at 256 x 256 pixels is wrong by 4e-5 (measured); this by 6e-7.

    Example:
        >>> x = torch.rand(1, 16, 128, 128).contiguous(memory_format=torch.channels_last)
        >>> bool((GroupNorm(8, 16)(x) - nn.GroupNorm(8, 16)(x.double().float())).abs().max() < 1e-4)
        True
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        large = input.device.type == "cpu" and input.dtype == torch.float32 and input[0, 0].numel() >= _MANY
        if large and input.is_contiguous(memory_format=torch.channels_last) and not torch.compiler.is_compiling():
            return _TwoPasses.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(input)


class _TwoPasses(torch.autograd.Function):
    """Group normalisation of channels-last (B, C, H, W) with an accurate mean and deviation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels = x.shape[:2]
        flat = x.permute(0, 2, 3, 1).flatten(1, 2)
        mean = flat.mean(dim=1)
        spread = (flat - mean[:, None]).square_().mean(dim=1).view(batch, groups, -1)
        mean = mean.view(batch, groups, -1)
        middle = mean.mean(dim=-1, keepdim=True)
        variance = (spread + (mean - middle).square()).mean(dim=-1, keepdim=True)
        rstd = (variance + eps).rsqrt()
        scale = rstd * weight.view(groups, -1)
        shift = bias.view(groups, -1) - middle * scale
        ctx.save_for_backward(x, weight, middle[..., 0], rstd[..., 0])
        ctx.groups = groups
        return torch.addcmul(shift.view(batch, channels, 1, 1), x, scale.view(batch, channels, 1, 1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        batch, channels = x.shape[:2]
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        found = torch.ops.aten.native_group_norm_backward(
            grad, x, mean, rstd, weight, batch, channels, x[0, 0].numel(), ctx.groups, [True, True, True]
        )
        return (*found, None, None)


class ResBlock(nn.Module):
    """x + Conv3x3(GroupNorm(GELU(Conv3x3(x)))), (B, c, H, W) to the same shape.

    Args:
        channels: c, a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            GroupNorm(_GROUPS, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Any size."""
        return x + self.block(x)


class PixelDecoder(nn.Module):
    """Features (B, d, h, w) to numbers (B, C, p h, p w), doubling the size log2(p) times.

    A 1x1 convolution to 64 channels and a residual block; for every doubling a bilinear one, a 3x3 convolution, GELU,
    GroupNorm and a residual block, the last with 32 channels; then a 3x3 convolution to C. Convolutions start as
    He's normal for the outgoing side, biases at 0. O(p^2 h w) time, most of it at the full size.

    Args:
        dim: channels d.
        channels: C of a frame.
        patch: p, a power of 2.
        middle: channels before the last doubling, a multiple of 16.
        residual: "none": the last map gives logits. "mean": it gives a change to a frame, and starts at 0. "last":
            there are two last maps, one for each.

    Source: FluidWorld (arXiv 2603.21315), section 3; 231,235 parameters at the defaults. The changes are ours.

    Example:
        >>> decoder = PixelDecoder()
        >>> sum(p.numel() for p in decoder.parameters()), decoder(torch.zeros(1, 128, 4, 6)).shape
        (231235, torch.Size([1, 3, 16, 24]))
    """

    def __init__(
        self, dim: int = 128, channels: int = 3, patch: int = 4, *, middle: int = 64, residual: str = "none"
    ) -> None:
        super().__init__()
        half = middle // 2
        layers: list[nn.Module] = [nn.Conv2d(dim, middle, 1), nn.GELU(), ResBlock(middle)]
        doublings = int(math.log2(patch))
        for place in range(doublings):
            width = half if place == doublings - 1 else middle
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(middle, width, 3, padding=1),
                nn.GELU(),
                GroupNorm(_GROUPS, width),
                ResBlock(width),
            ]
        layers.append(nn.Conv2d(half, channels, 3, padding=1))
        self.decoder = nn.Sequential(*layers)
        self.change = nn.Conv2d(half, channels, 3, padding=1) if residual == "last" else None
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        changing = self.change if residual == "last" else layers[-1] if residual == "mean" else None
        if changing is not None:
            nn.init.zeros_(changing.weight)

    def forward(self, features: Tensor, *, change: bool = False) -> Tensor:
        """Numbers before any sigmoid; with ``change``, from the last map for changes where there are two."""
        # Twice as fast on a CPU as torch's usual order.
        features = features.contiguous(memory_format=torch.channels_last)
        if not change or self.change is None:
            return self.decoder(features)
        for layer in self.decoder[:-1]:
            features = layer(features)
        return F.conv2d(features, self.change.weight, self.change.bias, padding=1)
