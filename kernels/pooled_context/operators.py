"""The operators that torch sees: core-context attention and segment maxima, each with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, register

__all__ = ["CONTEXT", "SEGMENT", "context_op", "segment_op"]

_WIDEST_HEAD = 128

CONTEXT = register(
    Operation(
        name="pooled_context",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("q", "k", "v", "key_mask"),
        differentiable=("q", "k", "v"),
        companions=("k", "v"),
        absent={"cpu": "its time is matrix products, which torch's fused attention does near the machine's peak"},
    )
)
SEGMENT = register(
    Operation(
        name="segment_max",
        package=__package__ or "",
        backends=("reference", "eager", "gpu"),
        arguments=("x", "segments", "mask"),
        differentiable=("x",),
        absent={"cpu": "no compiled loop has been measured against torch's scatter"},
    )
)


def _limits(q: Tensor, v: Tensor) -> dict[str, str | None]:
    if q.dtype == torch.float64:
        return {"gpu": "matrix products of float64 tiles are not portable between chips; use eager"}
    if max(q.shape[3], v.shape[3]) > _WIDEST_HEAD:
        return {"gpu": f"heads of {max(q.shape[3], v.shape[3])} channels, the kernels hold up to {_WIDEST_HEAD}"}
    return {}


def _context(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, group: int, window: int, scale: float, backend: str
) -> Tensor:
    """The operator behind ``pooled_context``; arguments are checked there."""
    chosen = choose(CONTEXT, backend, q, limits=_limits(q, v))
    options = {"group": group, "window": window, "scale": scale}
    return CONTEXT.implementation(chosen)(q, k, v, key_mask, **options).contiguous()


def _context_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    group: int,
    window: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    chosen = choose(CONTEXT, backend, q, limits=_limits(q, v))
    options = {"group": group, "window": window, "scale": scale}
    if chosen == "reference":
        operands = {"q": q, "k": k, "v": v, "key_mask": key_mask}
        found = gradients(CONTEXT.implementation(chosen), operands, ("q", "k", "v"), [grad], **options)
    else:
        found = CONTEXT.module(chosen).pooled_context_backward(grad.contiguous(), q, k, v, key_mask, **options)
    d_q, d_k, d_v = (found[name].to(q.dtype).contiguous() for name in ("q", "k", "v"))
    return d_q, d_k, d_v


def _segment(x: Tensor, segments: Tensor, mask: Tensor | None, backend: str) -> Tensor:
    """The operator behind ``segment_max``; the numbers themselves are checked here, where they are known."""
    if segments.min() < 0 or segments.max() >= x.shape[1]:
        found = f"{segments.min().item()} to {segments.max().item()}"
        raise ValueError(f"segments: found numbers {found}, expected 0 to {x.shape[1] - 1}, at most one a token")
    return SEGMENT.implementation(choose(SEGMENT, backend, x))(x, segments, mask)


def _segment_backward(
    grad: Tensor, x: Tensor, out: Tensor, segments: Tensor, mask: Tensor | None, backend: str
) -> Tensor:
    chosen = choose(SEGMENT, backend, x)
    if chosen == "reference":
        operands = {"x": x, "segments": segments, "mask": mask}
        return gradients(SEGMENT.implementation(chosen), operands, ("x",), [grad])["x"].contiguous()
    return SEGMENT.module(chosen).segment_max_backward(grad.contiguous(), x, out, segments, mask).contiguous()


context_op: Any = torch.library.custom_op("pipelines::pooled_context", _context, mutates_args=())
_context_grad_op: Any = torch.library.custom_op(
    "pipelines::pooled_context_backward", _context_backward, mutates_args=()
)
segment_op: Any = torch.library.custom_op("pipelines::segment_max", _segment, mutates_args=())
_segment_grad_op: Any = torch.library.custom_op("pipelines::segment_max_backward", _segment_backward, mutates_args=())


@context_op.register_fake
def _(q, k, v, key_mask, group, window, scale, backend):
    return q.new_empty((*q.shape[:3], v.shape[3]))


@_context_grad_op.register_fake
def _(grad, q, k, v, key_mask, group, window, scale, backend):
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


@segment_op.register_fake
def _(x, segments, mask, backend):
    return x.new_empty(x.shape)


@_segment_grad_op.register_fake
def _(grad, x, out, segments, mask, backend):
    return x.new_empty(x.shape)


def _save_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, key_mask, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, key_mask)


def _context_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    found = _context_grad_op(grad, *ctx.saved_tensors, *ctx.options)
    needed = (g if asked else None for g, asked in zip(found, ctx.needs_input_grad, strict=False))
    return (*needed, None, None, None, None, None)


def _save_segment(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, segments, mask, ctx.backend = inputs
    ctx.save_for_backward(x, output, segments, mask)


def _segment_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, out, segments, mask = ctx.saved_tensors
    return _segment_grad_op(grad, x, out, segments, mask, ctx.backend), None, None, None


context_op.register_autograd(_context_gradient, setup_context=_save_context)
segment_op.register_autograd(_segment_gradient, setup_context=_save_segment)
