"""Parts of HSDT: convolutions over bands and space, feed-forward nets and the block of attention, channels last.

Between its parts a cube is (B, D, H, W, C): bands, rows, columns, channels, contiguous. So linear maps need no
permutation, a map between bands is one matrix product, and a convolution that leaves the bands or the space alone is
a convolution of images, for which torch has fast code (its 3-D convolution on the CPU has none). Parameters keep the
names and shapes of the released code.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import TokenMixer
from pipelines.denoise.models.modulated import modulated

__all__ = [
    "FFN",
    "GDFN",
    "SMFFN",
    "BandNorm",
    "ConvLayer",
    "CubeConv",
    "S3Conv",
    "SpectralBlock",
    "Tanh",
]


class CubeConv(nn.Conv3d):
    """`torch.nn.Conv3d` on (B, D, H, W, C), "same" padding, as convolutions of images.

    Kernels (1, 3, 3) and (1, 1, 1) see each band as an image, (3, 1, 1) sees bands x pixels as one; for (3, 3, 3) see
    `full`. O(D H W C_in C_out k) time.

    Args:
        in_channels, out_channels: channels before and after.
        kernel: sizes over bands, rows and columns: 1 or 3.
        stride: over rows and columns.
        groups: 1, or the number of channels (then by torch's own 3-D convolution).
        bias: whether there is one.

    Example:
        >>> CubeConv(2, 4, (3, 3, 3), stride=2)(torch.zeros(1, 5, 8, 6, 2)).shape
        torch.Size([1, 5, 4, 3, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_channels, out_channels, kernel, (1, stride, stride), padding, groups=groups, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, D, H, W, C_in) to (B, D, H / stride, W / stride, C_out)."""
        if self.groups > 1:
            y = self._conv_forward(input.permute(0, 4, 1, 2, 3), self.weight, self.bias)
            return y.permute(0, 2, 3, 4, 1).contiguous()
        bands, rows, _ = self.kernel_size
        if bands == 1:
            return images(input, self.weight[:, :, 0], self.bias, self.stride[1])
        if rows == 1:
            batch, depth, height, width, _ = input.shape
            flat = input.flatten(2, 3)  # (B, D, H W, C): an image whose rows are bands
            y = _conv2d(flat, self.weight[..., 0], self.bias, 1, (1, 0))
            return y.view(batch, depth, height, width, -1)
        return full(input, self.weight, self.bias, self.stride[1])


def full(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """A 3 x 3 x 3 convolution of (B, D, H, W, C) as one of images to three times the channels, then added over bands.

    Each band's image gives what it adds to the band after it, to itself and to the one before it.
    """
    parts = images(x, weight.permute(2, 0, 1, 3, 4).flatten(0, 1), None, stride)
    if torch.compiler.is_exporting() or not parts.requires_grad:
        y = _added(parts)
    else:
        y = cast(Tensor, _Added.apply(parts))
    return y if bias is None else y + bias


def _added(parts: Tensor) -> Tensor:
    """(B, D, H, W, 3 C) to (B, D, H, W, C): the first third of the band before, the second, the third of the next."""
    to_next, own, to_previous = parts.chunk(3, dim=-1)
    y = own.contiguous()
    y[:, 1:] += to_next[:, :-1]
    y[:, :-1] += to_previous[:, 1:]
    return y


class _Added(torch.autograd.Function):
    """`_added`, whose gradient is written once instead of slice by slice."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor) -> Tensor:
        return _added(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        grad = grads[0]
        width = grad.shape[-1]
        back = grad.new_empty(*grad.shape[:-1], 3 * width)
        back[:, :-1, ..., :width] = grad[:, 1:]
        back[:, -1:, ..., :width] = 0
        back[..., width : 2 * width] = grad
        back[:, :1, ..., 2 * width :] = 0
        back[:, 1:, ..., 2 * width :] = grad[:, :-1]
        return back


def images(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """Convolve each band of (B, D, H, W, C) as an image with weight (out, C, k, k)."""
    y = _conv2d(x.flatten(0, 1), weight, bias, stride, (weight.shape[2] // 2, weight.shape[3] // 2))
    return y.unflatten(0, x.shape[:2])


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]) -> Tensor:
    """A convolution of (N, H, W, C) that stays channels last."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding)
    return y.permute(0, 2, 3, 1).contiguous()


class BandNorm(nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` on (B, D, H, W, C): one mean and variance a channel."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, D, H, W, C)."""
        flat = input.flatten(0, 1).permute(0, 3, 1, 2)
        return super().forward(flat).permute(0, 2, 3, 1).view_as(input)

    def _check_input_dim(self, input: Tensor) -> None:
        """Bands stand in the batch, so that torch sees four axes here."""


class S3Conv(nn.Module):
    """Spatial-spectral separable convolution: two 3 x 3 over space and, beside them, one of 3 over bands.

    Args:
        in_channels, out_channels: channels before and after.
        form: "s3" adds the two branches; "s3_1" has one 3 x 3; "seq" puts the bands' convolution after the two;
            "sep" is one 3 x 3 without activation, then the bands' one.

    Source: HSDT (arXiv 2303.09040), S3Conv, and the ablations of its released code. No biases; LeakyReLU of 0.01.

    Example:
        >>> S3Conv(1, 8)(torch.zeros(1, 5, 4, 6, 1)).shape
        torch.Size([1, 5, 4, 6, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, form: str = "s3") -> None:
        super().__init__()
        self.form = form
        space = (1, 3, 3)
        if form == "sep":
            self.dw_conv: nn.Module = CubeConv(in_channels, out_channels, space)
        else:
            parts: list[nn.Module] = [CubeConv(in_channels, out_channels, space), nn.LeakyReLU(inplace=True)]
            if form != "s3_1":
                parts += [CubeConv(out_channels, out_channels, space), nn.LeakyReLU(inplace=True)]
            self.dw_conv = nn.Sequential(*parts)
        parallel = form in ("s3", "s3_1")
        self.pw_conv = CubeConv(in_channels if parallel else out_channels, out_channels, (3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, H, W, C_in) to (B, D, H, W, C_out)."""
        if self.form in ("s3", "s3_1"):
            return self.pw_conv(x).add_(self.dw_conv(x))  # no gradient needs what the bands' convolution gave
        return self.pw_conv(self.dw_conv(x))


class FFN(nn.Module):
    """Two linear maps with GELU between, C to 2 C to C; O(C^2) a token.

    Example:
        >>> FFN(4)(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 3, 4])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        return self.w_2(F.gelu(self.w_1(x)))


class SMFFN(nn.Module):
    """Self-modulated feed-forward net: w_2 GELU(w_1 x) + a sigmoid(b), with (a, b) = w_3 x.

    Args:
        dim: channels C.
        plain: whether the first, unmodulated branch is there.

    Source: HSDT (arXiv 2303.09040), SM-FFN; O(C^2) a token. The backward pass computes the inner activations again,
    part by part, so that training keeps x alone.

    Example:
        >>> SMFFN(4)(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 3, 4])
    """

    def __init__(self, dim: int, plain: bool = True) -> None:
        super().__init__()
        self.plain = plain
        if plain:
            self.w_1, self.w_2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.w_3 = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        linears = (self.w_1, self.w_2, self.w_3) if self.plain else (self.w_3,)
        return modulated(x, *(tensor for linear in linears for tensor in (linear.weight, linear.bias)))


class GDFN(nn.Module):
    """Gated feed-forward net with a depthwise 3 x 3 x 3 convolution (Restormer's, in three dimensions).

    Example:
        >>> GDFN(4)(torch.zeros(1, 5, 4, 6, 4)).shape
        torch.Size([1, 5, 4, 6, 4])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project_in = CubeConv(dim, 2 * dim, (1, 1, 1), bias=True)
        self.dwconv = CubeConv(2 * dim, 2 * dim, groups=2 * dim, bias=True)
        self.project_out = CubeConv(dim, dim, (1, 1, 1), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, H, W, C) to the same shape."""
        first, second = self.dwconv(self.project_in(x)).chunk(2, dim=-1)
        return self.project_out(F.gelu(first) * second)


class SpectralBlock(nn.Module):
    """A mixer of bands with a residual, then a feed-forward net without one.

    Args:
        attn: a mechanism for (B, D, H, W, C), or for sequences: then each pixel's bands are one.
        ffn: maps (B, D, H, W, C) to the same shape.

    Example:
        >>> from core_attention import build
        >>> block = SpectralBlock(build("guided_spectral", 4, num_bands=5), SMFFN(4))
        >>> block(torch.zeros(1, 5, 4, 6, 4)).shape
        torch.Size([1, 5, 4, 6, 4])
    """

    def __init__(self, attn: TokenMixer, ffn: nn.Module) -> None:
        super().__init__()
        self.attn, self.ffn = attn, ffn
        self.sequence = 3 not in attn.spec.grid

    def forward(self, x: Tensor, learned: bool | None = None) -> Tensor:
        """Map (B, D, H, W, C) to the same shape; ``learned`` fixes the choice of a guided mixer."""
        if self.sequence:
            rows = x.permute(0, 2, 3, 1, 4)
            mixed = self.attn(rows.flatten(0, 2)).y.view(rows.shape).permute(0, 3, 1, 2, 4)
        elif learned is None:
            mixed = self.attn(x).y
        else:
            mixed = self.attn(x, learned=learned).y
        return self.ffn((x + mixed).contiguous())


class Tanh(nn.Module):
    """The baselines' stand-in for a block: no parameters, tanh."""

    def forward(self, x: Tensor, learned: bool | None = None) -> Tensor:
        """Map (B, D, H, W, C) to the same shape."""
        return x.tanh()


class ConvLayer(nn.Module):
    """A convolution, batch normalisation and a block, at one size, to half of it or to twice.

    Args:
        conv: the convolution.
        channels: channels after it.
        block: what follows.
        norm: whether to normalise.
        up: first double rows and columns, bilinearly with aligned corners.

    Example:
        >>> ConvLayer(CubeConv(2, 4), 4, Tanh(), up=True)(torch.zeros(1, 5, 4, 6, 2)).shape
        torch.Size([1, 5, 8, 12, 4])
    """

    def __init__(
        self, conv: nn.Module, channels: int, block: nn.Module, *, norm: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.up = up
        self.conv = conv
        self.bn = BandNorm(channels) if norm else nn.Identity()
        self.attn = block

    def forward(self, x: Tensor, learned: bool | None = None) -> Tensor:
        """Map (B, D, H, W, C_in) to (B, D, H', W', channels)."""
        if self.up:
            x = doubled(x)
        return self.attn(self.bn(self.conv(x)), learned)


def doubled(x: Tensor) -> Tensor:
    """Twice the rows and columns of (B, D, H, W, C), bilinear, corners aligned."""
    flat = x.flatten(0, 1).permute(0, 3, 1, 2)
    large = F.interpolate(flat, scale_factor=2, mode="bilinear", align_corners=True)
    return large.permute(0, 2, 3, 1).contiguous().unflatten(0, x.shape[:2])
