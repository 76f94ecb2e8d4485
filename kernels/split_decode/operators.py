"""The two operators that torch sees: decoding attention and its gradients, which compute the forward pass again.

Nothing but the operands is kept for the backward pass: decoding seldom needs one, and recomputing gives the sums of
the forward pass in full width instead of rounded outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._autograd import gradients
from core_attention.kernels._dispatch import Operation, choose, register

__all__ = ["SPLIT_DECODE", "decode_op"]

SPLIT_DECODE = register(
    Operation(
        name="split_decode",
        package=__package__ or "",
        backends=("reference", "eager", "cpu", "gpu"),
        arguments=("q", "k", "v", "lengths"),
        differentiable=("q", "k", "v"),
        companions=("k", "v"),
    )
)
_MOST_ROWS = 16  # query rows a key head up to which the compiled loops win: they read memory once, but multiply slowly
_MOST_CHANNELS = 64  # of a head in the Triton kernels: compiled for 128 they spill registers on one of the chips


def _decode(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, causal: bool, scale: float, backend: str
) -> Tensor:
    """The operator behind ``split_decode``; all but the lengths' values is checked there."""
    lengths = _settled(lengths, k.shape[1])
    chosen = choose(SPLIT_DECODE, backend, q, k, v, limits=_limits(q, k))
    return SPLIT_DECODE.implementation(chosen)(q, k, v, lengths, causal=causal, scale=scale)


def _decode_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    causal: bool,
    scale: float,
    backend: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; without elements where not wanted."""
    lengths = _settled(lengths, k.shape[1])
    chosen = choose(SPLIT_DECODE, backend, q, k, v, limits=_limits(q, k))
    if chosen == "reference":
        operands = {"q": q, "k": k, "v": v, "lengths": lengths}
        names = [name for name, want in zip("qkv", wanted, strict=True) if want]
        found = gradients(SPLIT_DECODE.implementation(chosen), operands, names, (grad,), causal=causal, scale=scale)
        d_q, d_k, d_v = (found[name].contiguous() if name in found else q.new_empty(0) for name in "qkv")
        return d_q, d_k, d_v
    # The backward pass is made of matrix products, in which torch on a CPU is not beaten by a compiled loop.
    module = SPLIT_DECODE.module("eager" if chosen == "cpu" else chosen)
    return module.split_decode_backward(grad, q, k, v, lengths, causal=causal, scale=scale, wanted=tuple(wanted))


def _settled(lengths: Tensor | None, S: int) -> Tensor | None:
    """Lengths from 0 to S; others are refused where reading costs nothing, clamped where it would stall the host."""
    if lengths is None:
        return None
    if lengths.device.type == "cpu":
        least, most = (int(edge) for edge in lengths.aminmax())
        if least < 0 or most > S:
            raise ValueError(f"lengths: found {least} to {most}, expected 0 to {S}, the keys in the cache")
        return lengths
    return lengths.clamp(0, S)


def _limits(q: Tensor, k: Tensor) -> dict[str, str | None]:
    """Why a back end does not take operands of these sizes."""
    rows, width = q.shape[1] * q.shape[2] // k.shape[2], q.shape[3]
    many = f"{rows} query rows (T x H / G) share a key head; with more than {_MOST_ROWS}, matrix products are faster"
    wide = f"heads of {width} channels, the Triton kernels take up to {_MOST_CHANNELS}"
    keys = k.shape[0] * k.shape[1] * k.shape[2]
    long = f"{keys} rows of keys, the Triton kernels count fewer than 2^31" if keys >= 2**31 else None
    return {"cpu": many if rows > _MOST_ROWS else None, "gpu": wide if width > _MOST_CHANNELS else long}


decode_op: Any = torch.library.custom_op("pipelines::split_decode", _decode, mutates_args=())
backward_op: Any = torch.library.custom_op("pipelines::split_decode_backward", _decode_backward, mutates_args=())


@decode_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, causal: bool, scale: float, backend: str) -> Tensor:
    return q.new_empty(q.shape)


@backward_op.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    causal: bool,
    scale: float,
    backend: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    d_q, d_k, d_v = (x.new_empty(x.shape if want else 0) for x, want in zip((q, k, v), wanted, strict=True))
    return d_q, d_k, d_v


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, lengths, ctx.causal, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(q, k, v, lengths)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, lengths = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    found = backward_op(grad.contiguous(), q, k, v, lengths, ctx.causal, ctx.scale, ctx.backend, wanted)
    return *(d if want else None for d, want in zip(found, wanted, strict=True)), None, None, None, None


decode_op.register_autograd(_backward, setup_context=_save)
