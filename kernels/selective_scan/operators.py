"""The operators that torch sees: the scan, and its gradient; opaque to compilers, with shapes declared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, register
from core_attention.kernels.selective_scan.eager import CHUNK

__all__ = ["SCAN", "scan_op", "state_dtype"]

_OPERANDS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
SCAN = register(
    Operation(
        name="selective_scan",
        package=__package__ or "",
        backends=("reference", "eager", "cpu", "gpu"),
        arguments=_OPERANDS,
        differentiable=_OPERANDS,
        outputs=("output", "last_state"),
        companions=("delta", "B", "C", "z"),
        shared=("A", "D", "delta_bias"),
    )
)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of states beside operands of a dtype: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    saving: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator behind ``selective_scan``: output, last state, saved states; arguments are checked there."""
    chosen = choose(SCAN, backend, u)
    operands = (u, delta, A, B, C, D, z, delta_bias)
    if chosen == "reference":
        out, last = SCAN.implementation(chosen)(*operands, delta_softplus, initial_state, True)
        return out, last, last.new_empty(0)
    return SCAN.implementation(chosen)(*operands, initial_state, delta_softplus, saving)


def _backward(
    grad: Tensor,
    grad_state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    saved: Tensor,
    delta_softplus: bool,
    backend: str,
) -> list[Tensor]:
    """Gradients of the nine operands, each in its dtype; an empty tensor for one that was left out."""
    chosen = choose(SCAN, backend, u)
    operands = dict(zip(_OPERANDS, (u, delta, A, B, C, D, z, delta_bias, initial_state), strict=True))
    if chosen == "reference":
        reference = SCAN.implementation(chosen)
        options = {"delta_softplus": delta_softplus, "return_last_state": True}
        found = gradients(reference, operands, _OPERANDS, (grad, grad_state), **options)
    else:
        if saved.dim() == 1:  # the scan ran without a gradient in sight
            saved = SCAN.implementation(chosen)(*operands.values(), delta_softplus, True)[2]
        backward = SCAN.module(chosen).selective_scan_backward
        found = backward(grad, grad_state, **operands, saved=saved, delta_softplus=delta_softplus)
    return [
        u.new_empty(0) if operand is None else found[name].to(operand.dtype).contiguous()
        for name, operand in operands.items()
    ]


scan_op: Any = torch.library.custom_op("pipelines::selective_scan", _scan, mutates_args=())
backward_op: Any = torch.library.custom_op("pipelines::selective_scan_backward", _backward, mutates_args=())


@scan_op.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, saving, backend):
    state = u.new_empty((u.shape[0], u.shape[1], A.shape[1]), dtype=state_dtype(u.dtype))
    if not saving or backend == "reference":
        return u.new_empty(u.shape), state, state.new_empty(0)
    return u.new_empty(u.shape), state, state.new_empty((-(-u.shape[2] // CHUNK), *state.shape))


@backward_op.register_fake
def _(grad, grad_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus, backend):
    operands = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    return [u.new_empty(0) if t is None else t.new_empty(t.shape) for t in operands]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *operands, ctx.delta_softplus, _, ctx.backend = inputs
    ctx.save_for_backward(*operands, output[2])
    ctx.mark_non_differentiable(output[2])


def _gradient(ctx: Any, grad: Tensor, grad_state: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *operands, saved = ctx.saved_tensors
    found = backward_op(grad, grad_state, *operands, saved, ctx.delta_softplus, ctx.backend)
    given = zip(found, operands, ctx.needs_input_grad, strict=False)
    return (*(g if needed and operand is not None else None for g, operand, needed in given), None, None, None)


scan_op.register_autograd(_gradient, setup_context=_save)
