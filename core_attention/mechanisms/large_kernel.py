"""A gate from a large depthwise convolution, in the place of attention between pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.kernels.large_kernel import large_kernel
from core_attention.registry import mechanism


class DepthwiseKernel(nn.Module):
    """A depthwise convolution, one kernel x kernel filter a channel, zeros outside; its tensors are ``lkb_reparam``.

    Args:
        dim: channels C.
        kernel: odd width of the filters.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.lkb_reparam = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return large_kernel(x, self.lkb_reparam.weight, self.lkb_reparam.bias)


@mechanism(
    name="large_kernel",
    paper="arXiv 2401.05633",
    year=2024,
    complexity="L",
    memory="L",
    grid=(2,),
)
class LargeKernel(TokenMixer):
    """Values gated by a large depthwise convolution: attention of every pixel to a fixed window, by learned weights.

    y = P (a * v) with a = DW(GELU(A x)) and v = V x: A, V and P map the channels of one pixel (C to C, with bias), DW
    convolves every channel with its own kernel x kernel filter, zeros outside. O(H W C (3 C + kernel^2)) time,
    O(H W C) memory; any H and W, also below the kernel's. Padding has no mask: a pixel looks at all that its window
    holds. Source: CFSR (arXiv 2401.05633), section 3.2, ConvMod; the state dict is the released ConvMod's.

    Args:
        dim: channels C.
        num_heads: ignored: every channel has its own filter.
        kernel: odd width of the filters, 1 to 31.
        norm: normalise the channels of each pixel first (LayerNorm, eps 1e-6), as the released ConvMod does.

    Raises:
        MechanismError: a dim that is not positive, a kernel that is not an odd number from 1 to 31.

    Example:
        >>> import torch
        >>> LargeKernel(16)(torch.randn(2, 20, 30, 16)).y.shape
        torch.Size([2, 20, 30, 16])
    """

    def __init__(self, dim: int, num_heads: int = 8, *, kernel: int = 9, norm: bool = False) -> None:
        super().__init__(dim, num_heads)
        if not isinstance(kernel, int) or isinstance(kernel, bool) or not 1 <= kernel <= 31 or kernel % 2 == 0:
            raise MechanismError(f"large_kernel: kernel is {kernel!r}, expected an odd number from 1 to 31")
        self.kernel = kernel
        self.norm = nn.LayerNorm(dim, eps=1e-6) if norm else None
        self.a = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), DepthwiseKernel(dim, kernel))
        self.v = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def mix(self, x: Tensor, *, scale: Tensor | None = None) -> MixerOutput:
        """Mix x (B, H, W, C). ``scale`` (C,) multiplies the result, at the cost of a product with P alone."""
        if scale is not None and scale.shape != (self.dim,):
            raise MechanismError(f"large_kernel: scale has shape {tuple(scale.shape)}, expected ({self.dim},)")
        if self.norm is not None:
            x = self.norm(x)
        entry, _, window = self.a
        gate = F.gelu(pointwise(x, entry.weight, entry.bias))
        gate = window(gate.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return MixerOutput(pointwise(gate * pointwise(x, self.v.weight, self.v.bias), *scaled(self.proj, scale)))


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of one pixel as the linear map that it is: x (..., C), weight (D, C, 1, 1) -> (..., D)."""
    return F.linear(x, weight.flatten(1), bias)


def scaled(layer: nn.Conv2d, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer whose results are multiplied by ``scale`` (D,): small tensors, not the whole image."""
    if scale is None:
        return layer.weight, layer.bias
    return layer.weight * scale[:, None, None, None], None if layer.bias is None else layer.bias * scale
