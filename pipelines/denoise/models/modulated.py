"""The self-modulated feed-forward net as a function: part by part through the cache, with little kept for training."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["modulated"]

#: Numbers of x that go through at once on the CPU: with their inner activations they stay in a core's cache.
_PART = 65536


def modulated(x: Tensor, *parameters: Tensor) -> Tensor:
    """w_2 GELU(w_1 x + b_1) + b_2 + a sigmoid(b), with (a, b) = w_3 x + b_3; of x (..., C), the same shape.

    Args:
        x: (..., C).
        parameters: w_1, b_1, w_2, b_2, w_3, b_3, or w_3 and b_3 alone: then without the first branch.

    O(C^2) time a token; of memory x and y alone, also for the backward pass. Source: HSDT (arXiv 2303.09040), SM-FFN.

    Example:
        >>> w_3, b_3 = torch.tensor([[2.0], [0.0]]), torch.zeros(2)
        >>> modulated(torch.ones(3, 1), w_3, b_3).flatten().tolist()
        [1.0, 1.0, 1.0]
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    x, parameters = x.to(dtype), tuple(one.to(dtype) for one in parameters)
    with torch.autocast(device, enabled=False):
        if torch.compiler.is_exporting():
            return _plain(x, *parameters)
        if not torch.is_grad_enabled():
            return _in_parts(x, *_stacked(parameters))
        return cast(Tensor, _Modulated.apply(x, *_stacked(parameters)))


def _plain(x: Tensor, *parameters: Tensor) -> Tensor:
    *first, w_3, b_3 = parameters
    value, gate = F.linear(x, w_3, b_3).chunk(2, dim=-1)
    y = value * gate.sigmoid()
    return y + F.linear(F.gelu(F.linear(x, first[0], first[1])), first[2], first[3]) if first else y


def _stacked(parameters: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The maps of x as one, (w_1; w_3) and their biases, then w_2 and b_2 where there are."""
    if len(parameters) == 2:
        return parameters
    w_1, b_1, w_2, b_2, w_3, b_3 = parameters
    return torch.cat([w_1, w_3]), torch.cat([b_1, b_3]), w_2, b_2


def _parts(x: Tensor) -> int:
    """Tokens that go through at once."""
    return max(1, _PART // x.shape[-1]) if x.device.type == "cpu" else max(1, x.numel() // x.shape[-1])


def _in_parts(x: Tensor, into: Tensor, bias: Tensor, *out: Tensor) -> Tensor:
    """Inside, tokens are columns: halves of the rows are contiguous, and products with few rows are fast."""
    flat, width = x.reshape(-1, x.shape[-1]), x.shape[-1]
    y = torch.empty_like(flat)
    for source, target in zip(flat.split(_parts(x)), y.split(_parts(x)), strict=True):
        inner = torch.addmm(bias[:, None], into, source.t())
        value, gate = inner[-2 * width : -width], inner[-width:].sigmoid_()
        if out:
            product = torch.addmm(out[1][:, None], out[0], F.gelu(inner[: -2 * width]))
            target.copy_(product.addcmul_(value, gate).t())
        else:
            target.copy_(value.mul_(gate).t())
    return y.view(x.shape)


class _Modulated(torch.autograd.Function):
    """`modulated`; its backward pass goes forward again, part by part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, into: Tensor, bias: Tensor, *out: Tensor) -> Tensor:
        ctx.save_for_backward(x, into, bias, *out)
        return _in_parts(x, into, bias, *out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        flat, grad = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, x.shape[-1])
        to_x, sums = torch.empty_like(flat), [torch.zeros_like(one) for one in parameters]
        parts = (tensor.split(_parts(x)) for tensor in (flat, grad, to_x))
        for source, given, target in zip(*parts, strict=True):
            _backward_part(source, given, target, parameters, sums)
        return to_x.view(x.shape), *sums


def _backward_part(x: Tensor, grad: Tensor, to_x: Tensor, parameters: list[Tensor], sums: list[Tensor]) -> None:
    """Write the gradient of x (n, C), add those of the parameters."""
    into, bias, *out = parameters
    width, grad = x.shape[-1], grad.t().contiguous()
    inner = torch.addmm(bias[:, None], into, x.t())
    value, gate = inner[-2 * width : -width], inner[-width:].sigmoid_()
    if out:
        first = inner[: -2 * width]
        sums[2].addmm_(grad, F.gelu(first).t())
        sums[3] += grad.sum(1)
        first.copy_(torch.ops.aten.gelu_backward(out[0].t() @ grad, first))
    to_value = grad * gate
    torch.mul(value.mul_(to_value), 1 - gate, out=gate)
    value.copy_(to_value)
    # Now inner holds its own gradient.
    sums[0].addmm_(inner, x)
    sums[1] += inner.sum(1)
    to_x.copy_((into.t() @ inner).t())
