"""The operator that torch sees and its gradient's: opaque to compilers, with shapes declared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, register

__all__ = ["MASK", "backward_op", "mask_op"]

MASK = register(
    Operation(
        name="polyline_mask",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("q", "k", "v", "decay_h", "decay_v"),
        differentiable=("q", "k", "v", "decay_h", "decay_v"),
        companions=("k", "v", "decay_h", "decay_v"),
        absent={
            "cpu": "no numba loop has been measured against eager, and a back end must halve the time",
        },
    )
)


def _limits(q: Tensor) -> dict[str, str | None]:
    wide = q.dtype == torch.float64
    return {"gpu": "matrix products of float64 tiles are not portable between chips; use eager" if wide else None}


def _mask(q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor, backend: str) -> Tensor:
    """The operator behind ``polyline_mask``; arguments are checked there."""
    return MASK.implementation(choose(MASK, backend, q, limits=_limits(q)))(q, k, v, decay_h, decay_v)


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, decay_h: Tensor, decay_v: Tensor, to_decays: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of all operands; those of the decays are empty unless asked for."""
    chosen = choose(MASK, backend, q, limits=_limits(q))
    operands = {"q": q, "k": k, "v": v, "decay_h": decay_h, "decay_v": decay_v}
    if chosen == "reference":
        wanted = list(operands)[: None if to_decays else 3]
        found = gradients(MASK.implementation("reference"), operands, wanted, (grad,))
        made: tuple[Tensor | None, ...] = tuple(found.get(name) for name in operands)
    else:
        made = MASK.module(chosen).polyline_mask_backward(grad, q, k, v, decay_h, decay_v, to_decays)
    d_q, d_k, d_v, d_h, d_vertical = (
        q.new_empty(0) if tensor is None else tensor.to(operand.dtype).contiguous()
        for tensor, operand in zip(made, operands.values(), strict=True)
    )
    return d_q, d_k, d_v, d_h, d_vertical


mask_op: Any = torch.library.custom_op("pipelines::polyline_mask", _mask, mutates_args=())
backward_op: Any = torch.library.custom_op("pipelines::polyline_mask_backward", _backward, mutates_args=())


@mask_op.register_fake
def _(q, k, v, decay_h, decay_v, backend):
    return v.new_empty(v.shape)


@backward_op.register_fake
def _(grad, q, k, v, decay_h, decay_v, to_decays, backend):
    decays = (x.new_empty(x.shape) if to_decays else q.new_empty(0) for x in (decay_h, decay_v))
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), *decays


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *operands, ctx.backend = inputs
    ctx.save_for_backward(*operands)


def _derive(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[:5]
    made = backward_op(grad, *ctx.saved_tensors, needed[3] or needed[4], ctx.backend)
    return *(tensor if need else None for tensor, need in zip(made, needed, strict=True)), None


mask_op.register_autograd(_derive, setup_context=_save)
