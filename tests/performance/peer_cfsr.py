"""CFSR (arXiv 2401.05633) written out plainly from its equations, every map a convolution of contiguous planes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

BRANCHES = ("sobel_x", "sobel_y", "laplacian")


class PlaneNorm(nn.Module):
    """Channels of (B, C, H, W) to mean 0 and variance 1 at each pixel, then a factor and a shift a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, a pass over memory for each operation."""
        centred = x - x.mean(1, keepdim=True)
        spread = torch.sqrt((centred**2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * (centred / spread) + self.bias[:, None, None]


class Window(nn.Module):
    """A depthwise convolution; a module of its own for its name in the state dict alone."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.lkb_reparam = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.lkb_reparam(x)


class Gate(nn.Module):
    """P (DW(GELU(A z)) V z) with z = norm(x)."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.norm = PlaneNorm(dim)
        self.a = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), Window(dim, kernel))
        self.v, self.proj = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        z = self.norm(x)
        return self.proj(self.a(z) * self.v(z))


class EdgeNet(nn.Module):
    """W2 (z + GELU(e)), z = GELU(W1 norm(x)); with ``masks`` e is a sum of four convolutions, without it is one."""

    def __init__(self, dim: int, hidden: int, masks: dict[str, Tensor] | None) -> None:
        super().__init__()
        self.norm, self.act, self.masks = PlaneNorm(dim), nn.GELU(), masks is not None
        self.fc1, self.fc2 = nn.Conv2d(dim, hidden, 1), nn.Conv2d(hidden, dim, 1)
        self.pos = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        for name, mask in (masks or {}).items():
            self.register_parameter(f"scale_{name}", nn.Parameter(1e-3 * torch.randn(hidden, 1, 1, 1)))
            self.register_parameter(f"{name}_bias", nn.Parameter(1e-3 * torch.randn(hidden)))
            self.register_buffer(f"mask_{name}", mask.expand(hidden, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        z = self.act(self.fc1(self.norm(x)))
        e = self.pos(z)
        for name in BRANCHES if self.masks else ():
            weight: Any = getattr(self, f"scale_{name}") * getattr(self, f"mask_{name}")
            e += nn.functional.conv2d(z, weight, getattr(self, f"{name}_bias"), padding=1, groups=len(weight))
        return self.fc2(z + self.act(e))


class PeerBlock(nn.Module):
    """x + g1 gate(x), then x + g2 net(x)."""

    def __init__(self, dim: int, kernel: int, ratio: int, masks: dict[str, Tensor] | None) -> None:
        super().__init__()
        self.attn, self.mlp = Gate(dim, kernel), EdgeNet(dim, ratio * dim, masks)
        self.layer_scale_1, self.layer_scale_2 = (nn.Parameter(torch.full((dim,), 1e-6)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        x = x + self.layer_scale_1[:, None, None] * self.attn(x)
        return x + self.layer_scale_2[:, None, None] * self.mlp(x)


class PeerGroup(nn.Module):
    """Blocks, then a 1x1 convolution that is added."""

    def __init__(self, dim: int, blocks: list[PeerBlock]) -> None:
        super().__init__()
        self.blocks, self.conv = nn.ModuleList(blocks), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        for block in self.blocks:
            x = block(x)
        return self.conv(x) + x


class PeerCFSR(nn.Module):
    """The whole net with the released names; ``masks`` (3, 3) by name for the training graph, None for the merged."""

    def __init__(
        self,
        scale: int,
        dim: int = 48,
        depths: tuple[int, ...] = (6, 6),
        kernel: int = 9,
        ratio: int = 2,
        masks: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
        self.conv_first = nn.Conv2d(3, dim, 3, padding=1)
        self.layers = nn.ModuleList(
            PeerGroup(dim, [PeerBlock(dim, kernel, ratio, masks) for _ in range(depth)]) for depth in depths
        )
        self.norm, self.conv_after_body = PlaneNorm(dim), nn.Conv2d(dim, dim, 3, padding=1)
        self.upsample = nn.Sequential(nn.Conv2d(dim, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, h, w) to (B, 3, scale h, scale w)."""
        mean = self.mean.to(x)
        first = self.conv_first(x - mean)
        y = first
        for layer in self.layers:
            y = layer(y)
        return self.upsample(self.conv_after_body(self.norm(y)) + first) + mean
