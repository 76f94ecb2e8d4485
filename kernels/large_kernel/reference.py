"""Depthwise convolution as its sum says it, in float64 (CFSR, arXiv:2401.05633, section 3.2: the 9x9 of ConvMod).

out[b, c, y, x] = bias[c] + sum_ij  weight[c, 0, i, j]  x[b, c, y + i - kh // 2, x + j - kw // 2],  zero outside
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["large_kernel", "large_kernel_correlation"]


def large_kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One tap at a time. x (B, C, H, W), weight (C, 1, kh, kw), bias (C,) or None -> as x; O(B C H W kh kw)."""
    C, _, kh, kw = weight.shape
    out = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    if bias is not None:
        out = out + bias.double().view(C, 1, 1)
    for i in range(kh):
        for j in range(kw):
            out = out + weight[:, :, i, j].double().view(C, 1, 1) * _shifted(x.double(), i, j, kh, kw)
    return out.to(x.dtype).contiguous(memory_format=_format(x))


def large_kernel_correlation(x: Tensor, grad: Tensor, kh: int, kw: int) -> Tensor:
    """Derivative of the sum in the weight: entry (i, j) is the sum over all pixels of grad times the shifted x."""
    entries = [
        (grad.double() * _shifted(x.double(), i, j, kh, kw)).sum(dim=(0, 2, 3)) for i in range(kh) for j in range(kw)
    ]
    return torch.stack(entries, dim=1).view(x.shape[1], 1, kh, kw).to(x.dtype)


def _shifted(x: Tensor, i: int, j: int, kh: int, kw: int) -> Tensor:
    """What tap (i, j) of the kernel sees at every pixel."""
    H, W = x.shape[2:]
    padded = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2))
    return padded[:, :, i : i + H, j : j + W]


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
