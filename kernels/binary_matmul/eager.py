"""Vectorised torch: an exact product of float32 matrices of -1 and +1, and what all back ends share."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "binary_matmul",
    "binary_matmul_backward",
    "default_scale",
    "portable_binary_matmul",
    "scale_gradient",
    "thresholds",
    "weight_gradient",
]


def binary_matmul(x: Tensor, weight: Tensor, scale: Tensor | None = None, *, centre: bool = True) -> Tensor:
    """x (..., K), weight (N, K), scale (N,) -> (..., N). float32 holds every sum exactly up to 2^24 features.

    Time O(M N K); memory for both matrices of signs, in float32 whatever the operands' dtype.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    rows = x.reshape(-1, x.shape[-1])
    counted = _signs(rows, 0.0, wide) @ _weight_signs(weight, centre, wide).T
    factor = default_scale(weight) if scale is None else scale
    return counted.mul_(factor.to(wide)).to(x.dtype).view(*x.shape[:-1], -1)


def binary_matmul_backward(
    grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor | None, *, centre: bool, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and scale, each where wanted: one product each, memory O((M + N) K + M N)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    rows, incoming = x.reshape(-1, x.shape[-1]), grad.reshape(-1, weight.shape[0]).to(wide)
    d_x = d_weight = d_scale = None
    if wanted[0]:
        factor = (default_scale(weight) if scale is None else scale).to(wide)
        d_x = (incoming * factor) @ _weight_signs(weight, centre, wide)
        d_x = d_x.masked_fill_(rows.abs() >= 1, 0).to(x.dtype).view(x.shape)
    if wanted[1]:
        d_weight = weight_gradient(incoming.T @ _signs(rows, 0.0, wide), weight, scale, centre)
    if wanted[2] and scale is not None:
        counted = binary_matmul(rows.to(wide), weight, torch.ones_like(scale), centre=centre)
        d_scale = scale_gradient(incoming, counted, scale)
    return d_x, d_weight, d_scale


def weight_gradient(products: Tensor, weight: Tensor, scale: Tensor | None, centre: bool) -> Tensor:
    """Gradient of weight from ``products`` = grad^T sign(x), (N, K), at least float32."""
    wide = products.dtype
    centred = weight.to(wide)
    centred = centred - centred.mean(1, keepdim=True) if centre else centred
    factor = (default_scale(weight) if scale is None else scale).to(wide)
    passed = torch.where(centred.abs() < 1, products * factor[:, None], 0.0)
    return (passed - passed.mean(1, keepdim=True) if centre else passed).to(weight.dtype)


def scale_gradient(grad: Tensor, counted: Tensor, scale: Tensor) -> Tensor:
    """Gradient of scale from grad and the exact sums of signs, both (M, N) and at least float32.

    Summing grad^T sign(x) over the weights' signs needs no third product, but was measured to lose twice the bits.
    """
    return (grad * counted).sum(0).to(scale.dtype)


def portable_binary_matmul(x: Tensor, weight: Tensor, scale: Tensor | None = None, *, centre: bool = True) -> Tensor:
    """The same from the plainest operators, in the operands' dtype, differentiable by autograd."""
    weight = weight.to(x.dtype)
    factor = weight.abs().mean(1).detach() if scale is None else scale.to(x.dtype)
    if centre:
        weight = weight - weight.mean(1, keepdim=True)
    return (_passing_sign(x) @ _passing_sign(weight).T) * factor


def thresholds(weight: Tensor, centre: bool) -> Tensor:
    """(N,), at least float32: an element's sign is -1 where it is below its row's threshold.

    The mean is taken in float64 and rounded up to float32, so ``w < threshold`` says just what ``w < mean`` says for
    every float32 w, and a row of equal weights has no sign by rounding.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    if not centre:
        return torch.zeros(weight.shape[0], dtype=wide, device=weight.device)
    exact = torch.float32 if weight.device.type == "mps" else torch.float64  # that device has no float64
    mean = weight.mean(1, dtype=exact)
    rounded = mean.to(wide)
    return torch.where(rounded.to(exact) < mean, rounded.nextafter(torch.full_like(rounded, torch.inf)), rounded)


def default_scale(weight: Tensor) -> Tensor:
    """(N,), at least float32: the mean of a row's absolute values."""
    return weight.abs().mean(1, dtype=torch.promote_types(weight.dtype, torch.float32))


def _weight_signs(weight: Tensor, centre: bool, dtype: torch.dtype) -> Tensor:
    return _signs(weight, thresholds(weight, centre)[:, None], dtype)


def _signs(u: Tensor, threshold: Tensor | float, dtype: torch.dtype) -> Tensor:
    return (u < threshold).to(dtype).mul_(-2).add_(1)


def _passing_sign(u: Tensor) -> Tensor:
    """+1 or -1, with the gradient of a straight line between -1 and 1."""
    value = (u.detach() >= 0).to(u.dtype) * 2 - 1
    return value + torch.where(u.detach().abs() < 1, u - u.detach(), 0.0)
