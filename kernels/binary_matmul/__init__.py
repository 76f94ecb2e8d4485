"""Products of signs with a scale a row of weights: what one-bit linear layers compute."""

from __future__ import annotations

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, check_tensor, same_device, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.binary_matmul import eager
from core_attention.kernels.binary_matmul.operators import MOST_FEATURES, binary_op

__all__ = ["binary_matmul"]


def binary_matmul(
    x: Tensor, weight: Tensor, scale: Tensor | None = None, *, centre: bool = True, backend: str | None = None
) -> Tensor:
    """Multiply signs: ``out[..., n] = scale[n] * sum_k sign(x[..., k]) * sign(weight[n, k] - mean(weight[n]))``.

    Args:
        x: (..., K), two dimensions or more, floating point. sign is +1 at zero.
        weight: (N, K); the dtype of ``x``, or float32 beside a half-width ``x`` (under autocast any floating dtype).
        scale: (N,), a factor an output, trained where it asks for gradients; dtypes as for ``weight``. Left out, it is
            the mean of ``|weight[n]|``, a constant to the gradient.
        centre: whether a row's mean is taken off before its signs are.
        backend: "reference", "eager", "cpu" or "gpu"; None leaves the choice to device and ``PIPELINES_BACKEND``.

    Returns:
        (..., N), contiguous, with the dtype and device of ``x``. The sum of signs is exact, then scaled, rounded once.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an empty dimension, or a back end that cannot serve.

    Gradients are clipped straight-through estimates: a sign passes the gradient where its argument lies between -1 and
    1, and stops it elsewhere; that of ``weight`` then goes through the subtraction of the mean; that of ``scale`` is
    exact. Time O(M N K / 64) words in "cpu", O(M N K) elsewhere, for M rows of ``x``; memory beyond the result
    O((M + N) K / 64) words in "cpu", O((M + N) K) in "eager", O(N) in "gpu".

    Source: BiViT (arXiv:2211.07091), section 3, binary linear layers with (parameterised) weight scales.

    Example:
        >>> x, weight = torch.tensor([[0.3, -2.0, 0.0]]), torch.tensor([[1.0, -1.0, -3.0]])
        >>> binary_matmul(x, weight, torch.tensor([0.5])).tolist()  # signs +1 -1 +1 and, the mean being -1, +1 +1 -1
        [[-0.5]]
    """
    check_tensor("x", x)
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"x: found shape {tuple(x.shape)}, expected (..., K), two dimensions or more, none empty")
    check_dims("weight", weight, "N, K")
    K = x.shape[-1]
    if weight.shape[1] != K:
        raise ValueError(f"weight: found shape {tuple(weight.shape)}, expected (N, {K}), the width of x")
    if K > MOST_FEATURES:
        raise ValueError(f"x: found {K} features, expected at most {MOST_FEATURES}: float32 counts no further")
    weight = same_kind("weight", weight, "x", x, or_float32=True)
    if scale is not None:
        check_tensor("scale", scale)
        check_shape("scale", scale, (weight.shape[0],), "a factor a row of weight")
        scale = same_kind("scale", scale, "x", x, or_float32=True)
        same_device("scale", scale, "x", x)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        return eager.portable_binary_matmul(x, weight, scale, centre=centre)
    return binary_op(x, weight, scale, centre, chosen)
