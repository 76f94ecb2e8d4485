"""The operators that torch sees: the product of signs, and its straight-through gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, is_free, register

__all__ = ["BINARY", "MOST_FEATURES", "binary_op"]

MOST_FEATURES = 1 << 24
_LEAST_WORK = 1 << 24  # products below which packing and threads cost what they save, measured
_LEAST_FEATURES = 64  # a word of signs
_NAMES = ("x", "weight", "scale")

BINARY = register(
    Operation(
        name="binary_matmul",
        package=__package__ or "",
        backends=("reference", "eager", "cpu", "gpu"),
        arguments=_NAMES,
        differentiable=_NAMES,
        companions=("weight", "scale"),
        shared=("weight", "scale"),
    )
)


def _multiply(x: Tensor, weight: Tensor, scale: Tensor | None, centre: bool, backend: str) -> Tensor:
    """The operator behind ``binary_matmul``; arguments are checked there."""
    chosen = choose(BINARY, backend, x, weight, scale, limits=_limits(x, weight, backend))
    return BINARY.implementation(chosen)(x, weight, scale, centre=centre)


def _multiply_backward(
    grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor | None, centre: bool, wanted: list[bool], backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and scale; an empty tensor for one that is not wanted."""
    chosen = choose(BINARY, backend, x, weight, scale, limits=_limits(x, weight, backend))
    if chosen == "reference":
        operands: dict[str, Tensor | None] = {"x": x, "weight": weight, "scale": scale}
        names = [name for name, asked in zip(_NAMES, wanted, strict=True) if asked]
        made = gradients(BINARY.implementation(chosen), operands, names, [grad], centre=centre)
        found = [made.get(name) for name in _NAMES]
    else:
        function = BINARY.module(chosen).binary_matmul_backward
        found = function(grad.contiguous(), x, weight, scale, centre=centre, wanted=tuple(wanted))
    d_x, d_weight, d_scale = (x.new_empty(0) if tensor is None else tensor.contiguous() for tensor in found)
    return d_x, d_weight, d_scale


def _limits(x: Tensor, weight: Tensor, backend: str) -> dict[str, str | None]:
    narrow = "matrix products of float64 tiles are not portable between chips; use eager"
    small = "so little is not twice as fast as in eager"
    # One asked for serves any size.
    few = x.numel() * weight.shape[0] < _LEAST_WORK or x.shape[-1] < _LEAST_FEATURES
    return {"gpu": narrow if x.dtype == torch.float64 else None, "cpu": small if few and is_free(backend) else None}


binary_op: Any = torch.library.custom_op("pipelines::binary_matmul", _multiply, mutates_args=())
_backward_op: Any = torch.library.custom_op("pipelines::binary_matmul_backward", _multiply_backward, mutates_args=())


@binary_op.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor | None, centre: bool, backend: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@_backward_op.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor | None, centre: bool, wanted: list[bool], backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    operands = zip((x, weight, scale), wanted, strict=True)
    d_x, d_weight, d_scale = (
        tensor.new_empty(tensor.shape) if asked and tensor is not None else x.new_empty(0) for tensor, asked in operands
    )
    return d_x, d_weight, d_scale


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, scale, ctx.centre, ctx.backend = inputs
    ctx.save_for_backward(x, weight, scale)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, scale = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    found = _backward_op(grad, x, weight, scale, ctx.centre, wanted, ctx.backend)
    return *(tensor if asked else None for tensor, asked in zip(found, wanted, strict=True)), None, None


binary_op.register_autograd(_backward, setup_context=_save)
