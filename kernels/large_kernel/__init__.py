"""Depthwise convolution with a large kernel, the mixer of CFSR's ConvMod block."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.large_kernel import eager
from core_attention.kernels.large_kernel.operators import large_kernel_op

__all__ = ["large_kernel"]

_LARGEST = 31


def large_kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """Convolve every channel with its own large kernel, stride 1, zeros outside, so that the size stays.

    Args:
        x: (B, C, H, W), floating point, contiguous or channels-last (other layouts are taken too).
        weight: (C, 1, kh, kw) as a depthwise ``torch.nn.Conv2d`` keeps it, kh and kw odd, 1 to 31, perhaps different;
            the dtype of ``x`` (under autocast any floating dtype: it is cast to that of ``x``).
        bias: (C,), in the dtype of ``weight``, or None.
        backend: "reference", "eager", "cpu" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, C, H, W) with the dtype and device of ``x``, channels-last if ``x`` is, else contiguous.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an even or too large kernel, an empty dimension, or a
            back end that cannot serve.

    Differentiable to any order in all three. Time O(B C H W kh kw); memory beyond the result a band of rows a thread.
    Sums of half-width numbers are accumulated in float32 and rounded once.

    Source: CFSR (arXiv:2401.05633), section 3.2, the 9x9 depthwise convolution of ConvMod.

    Example:
        >>> x = torch.eye(3).view(1, 1, 3, 3)
        >>> large_kernel(x, torch.ones(1, 1, 7, 7)).flatten().tolist()
        [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    """
    check_dims("x", x, "B, C, H, W")
    check_dims("weight", weight, "C, 1, kh, kw")
    kh, kw = weight.shape[2:]
    check_shape("weight", weight, (x.shape[1], 1, kh, kw), "(C, 1, kh, kw) with the channels of x: a kernel a channel")
    if not all(size % 2 == 1 and size <= _LARGEST for size in (kh, kw)):
        raise ValueError(
            f"weight: found a {kh}x{kw} kernel, expected odd sizes from 1 to {_LARGEST}; pad an even one with zeros"
        )
    weight = same_kind("weight", weight, "x", x)
    if bias is not None:
        check_shape("bias", bias, (x.shape[1],), "(C,) as the channels of x")
        bias = same_kind("bias", bias, "x", x)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        # An exported program must run without this package, so plain operators are recorded instead of ours.
        return eager.portable_large_kernel(x, weight, bias)
    return large_kernel_op(x, weight, bias, chosen)
