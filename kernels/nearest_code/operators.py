"""The operators that torch sees: assignment, and the gradient of the codes.

The tokens' gradient is the incoming one, untouched; tokens left out by the mask have index -1 and get zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._dispatch import Operation, choose, register

__all__ = ["METRICS", "NEAREST", "nearest_op"]

METRICS = ("euclidean", "product", "cosine")

NEAREST = register(
    Operation(
        name="nearest_code",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("x", "codes", "mask"),
        differentiable=("x", "codes"),
        outputs=("quantised", "index"),
        companions=("codes",),
        shared=("codes",),
        absent={"cpu": "the matrix product alone takes 0.69 to 0.75 of eager's time, so loops cannot halve it"},
    )
)


def _nearest(
    x: Tensor, codes: Tensor, mask: Tensor | None, metric: str, train_codes: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """The operator behind ``nearest_code``; arguments are checked there."""
    chosen = choose(NEAREST, backend, x, codes, limits=_limits(x))
    quantised, index = NEAREST.implementation(chosen)(x, codes, mask, metric=metric, train_codes=train_codes)
    return quantised, index


def _codes_gradient(grad: Tensor, index: Tensor, codes: Tensor, backend: str) -> Tensor:
    """The codes' gradient; the first operand decides the back end as it did forward."""
    chosen = choose(NEAREST, backend, grad, codes, limits=_limits(grad))
    return NEAREST.module(chosen).nearest_code_backward(grad.contiguous(), index, codes)


def _limits(x: Tensor) -> dict[str, str | None]:
    narrow = "matrix products of float64 tiles are not portable between chips; use eager"
    return {"gpu": narrow if x.dtype == torch.float64 else None}


nearest_op: Any = torch.library.custom_op("pipelines::nearest_code", _nearest, mutates_args=())
_backward_op: Any = torch.library.custom_op("pipelines::nearest_code_backward", _codes_gradient, mutates_args=())


@nearest_op.register_fake
def _(
    x: Tensor, codes: Tensor, mask: Tensor | None, metric: str, train_codes: bool, backend: str
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:-1], dtype=torch.int64)


@_backward_op.register_fake
def _(grad: Tensor, index: Tensor, codes: Tensor, backend: str) -> Tensor:
    return codes.new_empty(codes.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, codes, mask, _, ctx.train_codes, ctx.backend = inputs
    ctx.masked = mask is not None
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(codes, output[1])


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    codes, index = ctx.saved_tensors
    to_x, to_codes, *_ = ctx.needs_input_grad
    d_x = d_codes = None
    if to_x:
        d_x = torch.where(index.unsqueeze(-1) < 0, 0.0, grad) if ctx.masked else grad
    if to_codes and ctx.train_codes:
        d_codes = _backward_op(grad, index, codes, ctx.backend)
    return d_x, d_codes, None, None, None, None


nearest_op.register_autograd(_backward, setup_context=_save)
