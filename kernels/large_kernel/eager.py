"""Vectorised torch: torch's own depthwise convolution, with half-width operands widened on a CPU.

On a CPU torch is about twice as fast where the input is already channels-last; converting costs more than it gains, so
the memory format is left as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["is_channels_last", "large_kernel", "large_kernel_correlation", "portable_large_kernel"]


def large_kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Depthwise convolution. x (B, C, H, W), weight (C, 1, kh, kw), bias (C,) or None -> as x, in its memory format.

    Time O(B C H W kh kw); memory beyond the result: on a CPU a float32 copy of half-width operands (torch's float16
    loops there take tens of times as long).
    """
    wide = _working_dtype(x)
    out = F.conv2d(
        x.to(wide),
        weight.to(wide),
        None if bias is None else bias.to(wide),
        padding=(weight.shape[2] // 2, weight.shape[3] // 2),
        groups=x.shape[1],
    )
    return out.to(x.dtype).contiguous(memory_format=memory_format(x))


def large_kernel_correlation(x: Tensor, grad: Tensor, kh: int, kw: int) -> Tensor:
    """The convolution's gradient in its weight. x and grad (B, C, H, W) -> (C, 1, kh, kw). Time and memory as above."""
    wide, C = _working_dtype(x), x.shape[1]
    _, found, _ = torch.ops.aten.convolution_backward(
        grad.to(wide),
        x.to(wide),
        x.new_empty((C, 1, kh, kw), dtype=wide),  # only its shape counts
        None,
        [1, 1],
        [kh // 2, kw // 2],
        [1, 1],
        False,
        [0, 0],
        C,
        [False, True, False],
    )
    return found.to(x.dtype).contiguous()


def portable_large_kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same in the operands' own dtype, for exporters: ``conv2d`` and nothing else. Differentiable by autograd."""
    return F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2), groups=x.shape[1])


def is_channels_last(x: Tensor) -> bool:
    """Whether x (B, C, H, W) lies in memory with its channels innermost, and in no other order as well."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def memory_format(x: Tensor) -> torch.memory_format:
    """That of the result for an input x: channels-last for channels-last, else contiguous."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def _working_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "cpu" and x.dtype.itemsize == 2 else x.dtype
