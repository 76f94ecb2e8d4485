"""The released HSDT's arithmetic, transcribed plainly from its equations: the peer of bench_hsdt.

3-D convolutions on (B, C, D, H, W), attention over (B, H, W, D, C) and the feed-forward net over (B, D, H, W, C) with
permutations between, every activation kept for the backward pass, the branch of each layer drawn by Python's `random`.
Names of the parameters are the released ones, so that one state dict serves both sides.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PeerAttention(nn.Module):
    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.attn_proj = nn.Linear(channels, bands)
        self.value_proj = nn.Linear(channels, channels, bias=False)
        self.fc = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(3).mean(-1).transpose(1, 2)
        alone = self.training and random.random() > 0.5
        weights = (mean @ mean.transpose(1, 2) if alone else self.attn_proj(mean)).softmax(-1)
        values = self.value_proj(x.permute(0, 3, 4, 2, 1))
        mixed = self.fc(weights[:, None, None] @ values)
        return mixed.permute(0, 4, 3, 1, 2) + x


class PeerFeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(channels, 2 * channels)
        self.w_2 = nn.Linear(2 * channels, channels)
        self.w_3 = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.w_3(x).chunk(2, dim=-1)
        return self.w_2(F.gelu(self.w_1(x))) + value * torch.sigmoid(gate)


class PeerBlock(nn.Module):
    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.attn, self.ffn = PeerAttention(channels, bands), PeerFeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.attn(x).permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class PeerSeparable(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        first = nn.Conv3d(before, after, (1, 3, 3), padding=(0, 1, 1), bias=False)
        second = nn.Conv3d(after, after, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.dw_conv = nn.Sequential(first, nn.LeakyReLU(), second, nn.LeakyReLU())
        self.pw_conv = nn.Conv3d(before, after, (3, 1, 1), padding=(1, 0, 0), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dw_conv(x) + self.pw_conv(x)


class PeerLayer(nn.Module):
    def __init__(self, before: int, after: int, bands: int, step: str = "") -> None:
        super().__init__()
        self.step = step
        stride = (1, 2, 2) if step == "down" else 1
        full = nn.Conv3d(before, after, 3, stride, 1, bias=False) if step else None
        self.conv = full or PeerSeparable(before, after)
        self.bn = nn.BatchNorm3d(after)
        self.attn = PeerBlock(after, bands)

    def forward(self, x: Tensor) -> Tensor:
        if self.step == "up":
            x = F.interpolate(x, scale_factor=(1, 2, 2), mode="trilinear", align_corners=True)
        return self.attn(self.bn(self.conv(x)))


class PeerHSDT(nn.Module):
    """HSDT of ``channels`` and two steps down: S with 8, M with 16."""

    def __init__(self, channels: int = 8, bands: int = 31) -> None:
        super().__init__()
        sizes = [(1, ""), (2, "down"), (1, ""), (2, "down"), (1, "")]
        encoder, decoder, width = [], [], channels
        for factor, step in sizes:
            encoder.append(PeerLayer(width, width * factor, bands, step))
            width *= factor
        for factor, step in reversed(sizes):
            decoder.append(PeerLayer(width, width // factor, bands, "up" if step else ""))
            width //= factor
        self.head = PeerLayer(1, channels, bands)
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.layers, self.decoder.layers = nn.ModuleList(encoder), nn.ModuleList(decoder)
        self.tail = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        skips = [y]
        for layer in self.encoder.layers[:-1]:
            y = layer(y)
            skips.append(y)
        y = self.decoder.layers[0](self.encoder.layers[-1](y))
        for layer in self.decoder.layers[1:]:
            y = layer(y + skips.pop())
        return self.tail(y + skips.pop()) + x
