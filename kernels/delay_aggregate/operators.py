"""The two operators that torch sees: opaque to compilers, with shapes and gradients declared.

The gradient of each is made of the two again, so gradients of any order exist and every one runs on the fast back ends:

    aggregate:    dv = aggregate(g, -lags, w)                 dw_i = H D correlation(g, v, -lags)_i
    correlation:  dq = aggregate(k, -lags, g / (H D))         dk   = aggregate(q, lags, g / (H D))
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._dispatch import Operation, choose, register

__all__ = ["AGGREGATE", "CORRELATION", "aggregate_op", "correlation_op"]

_NO_CPU = {"cpu": "a numba kernel gained less than the twofold that a back end must earn over eager"}

AGGREGATE = register(
    Operation(
        name="delay_aggregate",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("values", "lags", "weights"),
        differentiable=("values", "weights"),
        absent=_NO_CPU,
    )
)
CORRELATION = register(
    Operation(
        name="delay_correlation",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("q", "k", "lags"),
        differentiable=("q", "k"),
        absent=_NO_CPU,
    )
)


@torch.library.custom_op("pipelines::delay_aggregate", mutates_args=())
def aggregate_op(values: Tensor, lags: Tensor, weights: Tensor, backend: str) -> Tensor:
    """The operator behind ``delay_aggregate``; arguments are checked there."""
    return AGGREGATE.implementation(choose(AGGREGATE, backend, values, weights))(values, lags, weights)


@torch.library.custom_op("pipelines::delay_correlation", mutates_args=())
def correlation_op(q: Tensor, k: Tensor, lags: Tensor, backend: str) -> Tensor:
    """The operator behind ``delay_correlation``; arguments are checked there."""
    return CORRELATION.implementation(choose(CORRELATION, backend, q, k))(q, k, lags)


@aggregate_op.register_fake
def _(values: Tensor, lags: Tensor, weights: Tensor, backend: str) -> Tensor:
    return values.new_empty(values.shape)


@correlation_op.register_fake
def _(q: Tensor, k: Tensor, lags: Tensor, backend: str) -> Tensor:
    return q.new_empty(lags.shape)


def _save_aggregate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, lags, weights, ctx.backend = inputs
    ctx.save_for_backward(values, lags, weights)


def _aggregate_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    values, lags, weights = ctx.saved_tensors
    to_values, _, to_weights, _ = ctx.needs_input_grad
    width = values.shape[2] * values.shape[3]
    d_values = aggregate_op(grad, -lags, weights, ctx.backend) if to_values else None
    d_weights = correlation_op(grad, values, -lags, ctx.backend) * width if to_weights else None
    return d_values, None, d_weights, None


def _save_correlation(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, lags, ctx.backend = inputs
    ctx.save_for_backward(q, k, lags)


def _correlation_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, lags = ctx.saved_tensors
    to_q, to_k, _, _ = ctx.needs_input_grad
    scaled = grad / (q.shape[2] * q.shape[3])
    d_q = aggregate_op(k, -lags, scaled, ctx.backend) if to_q else None
    d_k = aggregate_op(q, lags, scaled, ctx.backend) if to_k else None
    return d_q, d_k, None, None


aggregate_op.register_autograd(_aggregate_backward, setup_context=_save_aggregate)
correlation_op.register_autograd(_correlation_backward, setup_context=_save_correlation)
