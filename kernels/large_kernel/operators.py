"""The two operators that torch sees: opaque to compilers, with shapes and gradients declared.

The convolution y = x * w is linear in x and in w, and the two operators are closed under differentiation:

    convolution:  dx = convolution(g, w flipped)              dw = correlation(x, g)
    correlation:  dx = convolution(g, h flipped)              dg = convolution(x, h)           h: gradient of its result
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._dispatch import Operation, choose, is_free, register
from core_attention.kernels.large_kernel.eager import is_channels_last, memory_format

__all__ = ["LARGE_KERNEL", "correlation_op", "large_kernel_op"]

_NARROW = 48  # pixels; torch's own convolution wins on shorter rows, and where the channels lie innermost already

LARGE_KERNEL = register(
    Operation(
        name="large_kernel",
        package=__package__ or "",
        backends=("reference", "eager", "cpu", "gpu"),
        arguments=("x", "weight", "bias"),
        differentiable=("x", "weight", "bias"),
        companions=("weight", "bias"),
        shared=("weight", "bias"),
        second_order=True,
    )
)


def _module(backend: str, x: Tensor, other: Tensor, *, passed_by: bool = False) -> Any:
    """The back end that serves; a free choice may pass the compiled loops by, where torch is faster."""
    too_big = x.shape[2] * x.shape[3] >= 2**31 - 2**16
    limits = {"gpu": "a plane has 2^31 elements or more" if too_big else None}
    chosen = choose(LARGE_KERNEL, backend, x, other, limits=limits)
    return LARGE_KERNEL.module("eager" if chosen == "cpu" and passed_by and is_free(backend) else chosen)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, backend: str) -> Tensor:
    """The operator behind ``large_kernel``; arguments are checked there."""
    by_torch = x.shape[3] < _NARROW or is_channels_last(x)
    return _module(backend, x, weight, passed_by=by_torch).large_kernel(x, weight, bias)


def _correlation(x: Tensor, grad: Tensor, kh: int, kw: int, backend: str) -> Tensor:
    """The gradient of the convolution in its weight: (C, 1, kh, kw) from x and grad (B, C, H, W)."""
    return _module(backend, x, grad).large_kernel_correlation(x, grad, kh, kw)


large_kernel_op: Any = torch.library.custom_op("pipelines::large_kernel", _convolution, mutates_args=())
correlation_op: Any = torch.library.custom_op("pipelines::large_kernel_correlation", _correlation, mutates_args=())


@large_kernel_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, backend: str) -> Tensor:
    return torch.empty_like(x, memory_format=memory_format(x))


@correlation_op.register_fake
def _(x: Tensor, grad: Tensor, kh: int, kw: int, backend: str) -> Tensor:
    return x.new_empty((x.shape[1], 1, kh, kw))


def _save_convolution(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.backend = inputs
    ctx.save_for_backward(x, weight)


def _convolution_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    to_x, to_weight, to_bias, _ = ctx.needs_input_grad
    d_x = large_kernel_op(grad, weight.flip(2, 3), None, ctx.backend) if to_x else None
    d_weight = correlation_op(x, grad, weight.shape[2], weight.shape[3], ctx.backend) if to_weight else None
    return d_x, d_weight, grad.sum((0, 2, 3)) if to_bias else None, None


def _save_correlation(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, _, _, ctx.backend = inputs
    ctx.save_for_backward(x, grad)


def _correlation_backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    to_x, to_grad, *_ = ctx.needs_input_grad
    d_x = large_kernel_op(grad, cotangent.flip(2, 3), None, ctx.backend) if to_x else None
    d_grad = large_kernel_op(x, cotangent, None, ctx.backend) if to_grad else None
    return d_x, d_grad, None, None, None


large_kernel_op.register_autograd(_convolution_backward, setup_context=_save_convolution)
correlation_op.register_autograd(_correlation_backward, setup_context=_save_correlation)
