"""The operators that torch sees: attention with what the backward pass needs of every row, and its gradient.

The second output of the forward operator is kept for the backward one and has no gradient of its own: (2, B, H, T), two
numbers a and b of each row with weights exp(score - a) / b. The highest score and the sum of exponentials keep more
bits than one logsumexp, which a back end may give as (logsumexp, 1); a row that sees nothing has (0, infinity).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, register

__all__ = ["FLASH_SOFTMAX", "flash_softmax_backward_op", "flash_softmax_op"]

_NAMES = ("q", "k", "v", "bias", "query_temperature", "sink")
_WIDEST = 256  # channels that the Triton kernels hold in registers

FLASH_SOFTMAX = register(
    Operation(
        name="flash_softmax",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("q", "k", "v", "key_mask", "bias", "query_temperature", "sink"),
        differentiable=_NAMES,
        companions=("k", "v", "bias", "query_temperature", "sink"),
        shared=("bias", "sink"),
        absent={
            "cpu": "torch's own attention, which eager calls, runs at 85 to 95 % of the matrix-product peak in "
            "float32, so no compiled loop can be twice as fast"
        },
    )
)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    bias: Tensor | None,
    query_temperature: Tensor | None,
    sink: Tensor | None,
    left: int,
    right: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The operator behind ``flash_softmax``; arguments are checked there. -1 for left or right means all keys."""
    chosen = _choose(q, k, v, bias, backend)
    given = {"key_mask": key_mask, "bias": bias, "query_temperature": query_temperature, "sink": sink, "scale": scale}
    function = FLASH_SOFTMAX.implementation(chosen)
    if chosen == "reference":
        return function(q, k, v, window=(left, right), **given), _rows(q).zero_()  # its gradient needs none
    return function(q, k, v, left=left, right=right, **given)


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    bias: Tensor | None,
    query_temperature: Tensor | None,
    sink: Tensor | None,
    out: Tensor,
    rows: Tensor,
    left: int,
    right: int,
    scale: float,
    wanted: Sequence[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, bias, query_temperature and sink; without elements where not wanted or not given."""
    chosen = _choose(q, k, v, bias, backend)
    operands: dict[str, Tensor | None] = dict(zip(_NAMES, (q, k, v, bias, query_temperature, sink), strict=True))
    names = [name for name, want in zip(_NAMES, wanted, strict=True) if want and operands[name] is not None]
    given = {"key_mask": key_mask, "scale": scale}
    if chosen == "reference":
        function = FLASH_SOFTMAX.implementation(chosen)
        found = gradients(function, operands, names, [grad], window=(left, right), **given)
    else:
        function = FLASH_SOFTMAX.module(chosen).flash_softmax_backward
        found = function(grad, out, rows, operands, names, left=left, right=right, **given)
    empty = {name: q.new_empty(0) for name in _NAMES}
    q_, k_, v_, bias_, temperature_, sink_ = (
        found[name].contiguous() if name in found else empty[name] for name in _NAMES
    )
    return q_, k_, v_, bias_, temperature_, sink_


def _choose(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, backend: str) -> str:
    return choose(FLASH_SOFTMAX, backend, q, v, limits={"gpu": _gpu_limit(q, k, v, bias)})


def _gpu_limit(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> str | None:
    """Why the Triton kernels cannot take a call, or None."""
    widest = max(q.shape[3], v.shape[3])
    if widest > _WIDEST:
        return f"{widest} channels a head, the Triton kernels take up to {_WIDEST}"
    if q.dtype == torch.float64:
        return "the Triton kernels multiply no float64"
    if q.shape[1] + k.shape[1] >= 2**28 or (bias is not None and bias.shape[2] * bias.shape[3] >= 2**31):
        return "tokens whose distances, or a bias whose offsets, pass 32 bits"
    return None


def _rows(q: Tensor) -> Tensor:
    """Memory for two numbers a row: float64 for float64 operands, else float32."""
    B, T, H, _ = q.shape
    return q.new_empty((2, B, H, T), dtype=torch.promote_types(q.dtype, torch.float32))


flash_softmax_op: Any = torch.library.custom_op("pipelines::flash_softmax", _forward, mutates_args=())
flash_softmax_backward_op: Any = torch.library.custom_op(
    "pipelines::flash_softmax_backward", _backward, mutates_args=()
)


@flash_softmax_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty((*q.shape[:3], v.shape[3])), _rows(q)


@flash_softmax_backward_op.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    bias: Tensor | None,
    query_temperature: Tensor | None,
    sink: Tensor | None,
    out: Tensor,
    rows: Tensor,
    left: int,
    right: int,
    scale: float,
    wanted: Sequence[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    operands = (q, k, v, bias, query_temperature, sink)
    return tuple(
        operand.new_empty(operand.shape) if want and operand is not None else q.new_empty(0)
        for operand, want in zip(operands, wanted, strict=True)
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.left, ctx.right, ctx.scale, ctx.backend = inputs
    out, rows = output
    ctx.mark_non_differentiable(rows)
    ctx.save_for_backward(*tensors, out, rows)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    saved, needs = ctx.saved_tensors, ctx.needs_input_grad
    places = (0, 1, 2, 4, 5, 6)  # of the differentiable arguments: all but the key mask
    wanted = [needs[i] and saved[i] is not None for i in places]
    found = flash_softmax_backward_op(grad.contiguous(), *saved, ctx.left, ctx.right, ctx.scale, wanted, ctx.backend)
    grads: list[Tensor | None] = [None] * len(needs)
    for place, want, tensor in zip(places, wanted, found, strict=True):
        grads[place] = tensor if want else None
    return tuple(grads)


flash_softmax_op.register_autograd(_differentiate, setup_context=_save)
