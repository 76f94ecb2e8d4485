"""The operator that torch sees and its gradient, a second operator that recomputes the states it needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, register

__all__ = ["STENCIL", "backward_op", "stencil_op"]

STENCIL = register(
    Operation(
        name="stencil",
        package=__package__ or "",
        backends=("reference", "eager", "cpu", "gpu"),
        arguments=("u", "coefficients", "source", "gate"),
        differentiable=("u", "coefficients", "source", "gate"),
        companions=("coefficients", "source", "gate"),
        shared=("coefficients",),
    )
)


def _chosen(backend: str, u: Tensor, coefficients: Tensor) -> str:
    too_big = u.shape[2] * u.shape[3] >= 2**31 - 2**16
    limits = {"gpu": "a plane has 2^31 elements or more" if too_big else None}
    return choose(STENCIL, backend, u, coefficients, limits=limits)


def _stencil(
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None,
    gate: Tensor | None,
    dilations: list[int],
    steps: int,
    boundary: str,
    backend: str,
) -> Tensor:
    """The operator behind ``stencil``; arguments are checked there."""
    function = STENCIL.implementation(_chosen(backend, u, coefficients))
    return function(u, coefficients, source, gate, dilations, steps, boundary)


def _backward(
    grad: Tensor,
    u: Tensor,
    coefficients: Tensor,
    source: Tensor | None,
    gate: Tensor | None,
    dilations: list[int],
    steps: int,
    boundary: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the four tensors; without elements for those left out."""
    chosen, grad = _chosen(backend, u, coefficients), grad.contiguous()
    module = STENCIL.module(chosen)
    if chosen == "reference":
        operands = {"u": u, "coefficients": coefficients, "source": source, "gate": gate}
        options: dict[str, Any] = {"dilations": dilations, "steps": steps, "boundary": boundary}
        by_name = gradients(module.stencil, operands, tuple(operands), (grad,), **options)
        found = tuple(by_name.get(name) for name in operands)
    else:
        found = module.stencil_backward(grad, u, coefficients, source, gate, dilations, steps, boundary)
    first, second, third, fourth = (u.new_empty(0) if tensor is None else _own(tensor, grad) for tensor in found)
    return first, second, third, fourth


def _own(tensor: Tensor, grad: Tensor) -> Tensor:
    """Contiguous and not the incoming gradient itself, which autograd hands on as that of an added source."""
    made = tensor.contiguous()
    return made.clone() if made.data_ptr() == grad.data_ptr() else made


stencil_op: Any = torch.library.custom_op("pipelines::stencil", _stencil, mutates_args=())
backward_op: Any = torch.library.custom_op("pipelines::stencil_backward", _backward, mutates_args=())


@stencil_op.register_fake
def _(u: Tensor, *_: Any) -> Tensor:
    return u.new_empty(u.shape)


@backward_op.register_fake
def _(
    grad: Tensor, u: Tensor, coefficients: Tensor, source: Tensor | None, gate: Tensor | None, *_: Any
) -> tuple[Tensor, ...]:
    given = (u, coefficients, source, gate)
    return tuple(u.new_empty(0 if tensor is None else tensor.shape) for tensor in given)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    u, coefficients, source, gate, *ctx.options = inputs
    ctx.save_for_backward(u, coefficients, source, gate)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    found = backward_op(grad, *ctx.saved_tensors, *ctx.options)
    wanted = ctx.needs_input_grad[:4]
    return *(tensor if need else None for tensor, need in zip(found, wanted, strict=True)), None, None, None, None


stencil_op.register_autograd(_gradients, setup_context=_save)
