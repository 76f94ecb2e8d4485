"""The operator that torch sees, and its backward: opaque to compilers, with shapes and gradients declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, is_free, register

__all__ = ["WINDOW", "window_backward_op", "window_op"]

WINDOW = register(
    Operation(
        name="window_nd",
        package=__package__ or "",
        backends=("reference", "eager", "cpu", "gpu"),
        arguments=("qkv", "mask", "bias"),
        differentiable=("qkv", "bias"),
        companions=("bias",),
        shared=("bias",),
    )
)
_WIDEST_HEAD = 128
_WIDEST_COMPILED = 32  # channels of a head, up to which the compiled loops were measured faster than fused attention


def _limits(qkv: Tensor, bias: Tensor | None, backend: str) -> dict[str, str | None]:
    """Why the kernels cannot take a call: offsets within a sample are 32 bits wide, a head's channels one tile.

    Where the choice is free, the compiled loops are left out where they gain nothing.
    """
    _, T, _, H, D = qkv.shape
    limits: dict[str, str | None] = {}
    if D > _WIDEST_HEAD:
        limits["gpu"] = f"heads of {D} channels, the kernels hold up to {_WIDEST_HEAD}"
    elif T * 3 * H * D >= 2**31:
        limits["gpu"] = f"{T * 3 * H * D} elements a sample, the kernels take fewer than 2^31"
    if is_free(backend) and bias is not None:
        limits["cpu"] = "a bias, which the loops would hand to eager"
    elif is_free(backend) and D > _WIDEST_COMPILED:
        limits["cpu"] = f"heads of {D} channels, where fused attention is faster"
    return limits


def _window(
    qkv: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    scale: float,
    backend: str,
) -> Tensor:
    """The operator behind ``window_nd``; arguments are checked there, windows clamped and the scale filled in."""
    chosen = choose(WINDOW, backend, qkv, bias, limits=_limits(qkv, bias, backend))
    return WINDOW.implementation(chosen)(qkv, grid, window, shift, mask, bias, scale)


def _backward(
    grad: Tensor,
    qkv: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    scale: float,
    to_qkv: bool,
    to_bias: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of qkv and bias; tensors without elements where none is asked for."""
    chosen = choose(WINDOW, backend, qkv, bias, limits=_limits(qkv, bias, backend))
    wanted = [name for name, asked in (("qkv", to_qkv), ("bias", to_bias)) if asked]
    grad = grad.contiguous()
    if chosen == "reference":
        options = {"grid": grid, "window": window, "shift": shift, "scale": scale}
        operands = {"qkv": qkv, "mask": mask, "bias": bias}
        found = gradients(WINDOW.implementation(chosen), operands, wanted, [grad], **options)
    else:
        run = WINDOW.module(chosen).window_nd_backward
        found = run(grad, qkv, grid, window, shift, mask, bias, scale, wanted)
    d_qkv, d_bias = (found[name].contiguous() if name in wanted else qkv.new_empty(0) for name in ("qkv", "bias"))
    return d_qkv, d_bias


window_op: Any = torch.library.custom_op("pipelines::window_nd", _window, mutates_args=())
window_backward_op: Any = torch.library.custom_op("pipelines::window_nd_backward", _backward, mutates_args=())


@window_op.register_fake
def _(qkv: Tensor, *_: Any) -> Tensor:
    B, T, _three, H, D = qkv.shape
    return qkv.new_empty((B, T, H, D))


@window_backward_op.register_fake
def _(grad: Tensor, qkv: Tensor, mask: Any, bias: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    to_qkv, to_bias = rest[4:6]
    return (
        qkv.new_empty(qkv.shape) if to_qkv else qkv.new_empty(0),
        bias.new_empty(bias.shape) if to_bias and bias is not None else qkv.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    qkv, mask, bias, *ctx.options = inputs
    ctx.save_for_backward(qkv, mask, bias)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    qkv, mask, bias = ctx.saved_tensors
    *options, backend = ctx.options
    to_qkv, _, to_bias, *_ = ctx.needs_input_grad
    d_qkv, d_bias = window_backward_op(grad, qkv, mask, bias, *options, to_qkv, to_bias, backend)
    return d_qkv if to_qkv else None, None, d_bias if to_bias else None, *([None] * 5)


window_op.register_autograd(_differentiate, setup_context=_save)
