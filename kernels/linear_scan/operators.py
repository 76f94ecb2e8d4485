"""The operator that torch sees and its gradient's: opaque to compilers, with shapes declared."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, register

__all__ = ["SCAN", "backward_op", "scan_op"]

SCAN = register(
    Operation(
        name="linear_scan",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("q", "k", "v", "decay", "initial_state"),
        differentiable=("q", "k", "v", "decay", "initial_state"),
        outputs=("output", "last_state"),
        companions=("k", "v", "decay", "initial_state"),
        absent={
            "cpu": "a chunked numba loop took 0.65 to 1 times eager's time (forward, T 16,384, 8 heads, D 64): "
            "matrix products bound it, and a back end must halve the time"
        },
    )
)


def _state_dtype(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


def _scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial_state: Tensor | None,
    normalise: bool,
    causal: bool,
    eps: float,
    with_state: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The operator behind ``linear_scan``; arguments are checked there. The state is empty where none is asked for."""
    run = SCAN.implementation(choose(SCAN, backend, q, k, v))
    options = {"normalise": normalise, "causal": causal, "eps": eps}
    if with_state:
        out, state = run(q, k, v, decay, initial_state, return_last_state=True, **options)
        return out, state.contiguous()
    return run(q, k, v, decay, initial_state, **options), q.new_empty(0, dtype=_state_dtype(q))


def _backward(
    grad: Tensor,
    grad_state: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial_state: Tensor | None,
    normalise: bool,
    causal: bool,
    eps: float,
    to_decay: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, decay and initial_state; empty for the last two where absent or not asked for."""
    chosen = choose(SCAN, backend, q, k, v)
    options = {"normalise": normalise, "causal": causal, "eps": eps}
    operands = {"q": q, "k": k, "v": v, "decay": decay, "initial_state": initial_state}
    if chosen == "reference":
        function = functools.partial(SCAN.implementation("reference"), return_last_state=True)
        wanted = [name for name in operands if name != "decay" or to_decay]
        found = gradients(function, operands, wanted, (grad, grad_state), **options)
        made: tuple[Tensor | None, ...] = tuple(found.get(name) for name in operands)
    else:
        run = SCAN.module(chosen).linear_scan_backward
        made = run(grad, grad_state, q, k, v, decay, initial_state, to_decay, **options)
    d_q, d_k, d_v, d_decay, d_state = (
        q.new_empty(0) if tensor is None or operand is None else tensor.to(operand.dtype).contiguous()
        for tensor, operand in zip(made, operands.values(), strict=True)
    )
    return d_q, d_k, d_v, d_decay, d_state


scan_op: Any = torch.library.custom_op("pipelines::linear_scan", _scan, mutates_args=())
backward_op: Any = torch.library.custom_op("pipelines::linear_scan_backward", _backward, mutates_args=())


@scan_op.register_fake
def _(q, k, v, decay, initial_state, normalise, causal, eps, with_state, backend):
    B, _, H, D = q.shape
    shape = (B, H, D, v.shape[-1] + normalise) if with_state else (0,)
    return v.new_empty(v.shape), q.new_empty(shape, dtype=_state_dtype(q))


@backward_op.register_fake
def _(grad, grad_state, q, k, v, decay, initial_state, normalise, causal, eps, to_decay, backend):
    d_decay = q.new_empty(0) if decay is None or not to_decay else decay.new_empty(decay.shape)
    d_state = q.new_empty(0) if initial_state is None else initial_state.new_empty(initial_state.shape)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), d_decay, d_state


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, decay, initial_state, ctx.normalise, ctx.causal, ctx.eps, ctx.with_state, ctx.backend = inputs
    ctx.save_for_backward(q, k, v, decay, initial_state)


def _derive(ctx: Any, grad: Tensor, grad_state: Tensor) -> tuple[Tensor | None, ...]:
    operands = ctx.saved_tensors
    needed = ctx.needs_input_grad[:5]
    made = backward_op(
        grad,
        grad_state if ctx.with_state else None,
        *operands,
        ctx.normalise,
        ctx.causal,
        ctx.eps,
        needed[3],
        ctx.backend,
    )
    wanted = (
        tensor if need and operand is not None else None
        for tensor, need, operand in zip(made, needed, operands, strict=True)
    )
    return *wanted, None, None, None, None, None


scan_op.register_autograd(_derive, setup_context=_save)
