"""The two operators that torch sees: opaque to compilers, with shapes and gradients declared.

The gradient of each is made of the two again, so gradients of any order exist and every one runs on the fast back ends:

    aggregate:    dv = aggregate(g, -lags, w)                 dw = correlation(g, v, -lags, scale 1)
    correlation:  dq = aggregate(k, -lags, scale g)           dk = aggregate(q, lags, scale g)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._dispatch import Operation, choose, register

__all__ = ["AGGREGATE", "CORRELATION", "aggregate_op", "correlation_op"]

_NO_CPU = "compiled loops take {} of eager's time and do not beat it twofold, which a back end must"  # see eager.py

AGGREGATE = register(
    Operation(
        name="delay_aggregate",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("values", "lags", "weights"),
        differentiable=("values", "weights"),
        companions=("weights",),
        second_order=True,
        absent={"cpu": _NO_CPU.format("0.56 to 0.72")},
    )
)
CORRELATION = register(
    Operation(
        name="delay_correlation",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("q", "k", "lags"),
        differentiable=("q", "k"),
        companions=("k",),
        second_order=True,
        absent={"cpu": _NO_CPU.format("0.48 to 0.62")},
    )
)


def _aggregate(values: Tensor, lags: Tensor, weights: Tensor, backend: str) -> Tensor:
    """The operator behind ``delay_aggregate``; arguments are checked there."""
    return AGGREGATE.implementation(choose(AGGREGATE, backend, values, weights))(values, lags, weights)


def _correlation(q: Tensor, k: Tensor, lags: Tensor, scale: float, backend: str) -> Tensor:
    """The operator behind ``delay_correlation``; arguments are checked there."""
    return CORRELATION.implementation(choose(CORRELATION, backend, q, k))(q, k, lags, scale)


aggregate_op: Any = torch.library.custom_op("pipelines::delay_aggregate", _aggregate, mutates_args=())
correlation_op: Any = torch.library.custom_op("pipelines::delay_correlation", _correlation, mutates_args=())


@aggregate_op.register_fake
def _(values: Tensor, lags: Tensor, weights: Tensor, backend: str) -> Tensor:
    return values.new_empty(values.shape)


@correlation_op.register_fake
def _(q: Tensor, k: Tensor, lags: Tensor, scale: float, backend: str) -> Tensor:
    return q.new_empty(lags.shape)


def _save_aggregate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, lags, weights, ctx.backend = inputs
    ctx.save_for_backward(values, lags, weights)


def _aggregate_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    values, lags, weights = ctx.saved_tensors
    to_values, _, to_weights, _ = ctx.needs_input_grad
    d_values = aggregate_op(grad, -lags, weights, ctx.backend) if to_values else None
    d_weights = correlation_op(grad, values, -lags, 1.0, ctx.backend) if to_weights else None
    return d_values, None, d_weights, None


def _save_correlation(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, lags, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(q, k, lags)


def _correlation_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, lags = ctx.saved_tensors
    to_q, to_k, *_ = ctx.needs_input_grad
    scaled = grad * ctx.scale
    d_q = aggregate_op(k, -lags, scaled, ctx.backend) if to_q else None
    d_k = aggregate_op(q, lags, scaled, ctx.backend) if to_k else None
    return d_q, d_k, None, None, None


aggregate_op.register_autograd(_aggregate_backward, setup_context=_save_aggregate)
correlation_op.register_autograd(_correlation_backward, setup_context=_save_correlation)
