"""How fast a product of signs is, against float32 matrices of signs and torch's matrix product."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.binary_matmul import binary_matmul

__all__ = ["LINES", "SWEEPS", "by_floats"]

FEATURES, OUTPUTS = 768, 3072  # the first layer of a ViT-B block
_FLOAT = 4


class _ClippedSign(torch.autograd.Function):
    """sign with zero at +1, and the gradient of a line between -1 and 1."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return torch.where(u < 0, -1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grads[0] * (u.abs() < 1)


def by_floats(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """The layer as it is trained: binary weights with their scale in float32, then a dense linear layer."""
    centred = weight - weight.mean(1, keepdim=True)
    return torch.nn.functional.linear(_ClippedSign.apply(x), scale[:, None] * _ClippedSign.apply(centred))


def _contest(M: int, generator: torch.Generator, *, training: bool) -> Contest:
    x = torch.randn(M, FEATURES, generator=generator)
    weight = torch.randn(OUTPUTS, FEATURES, generator=generator)
    scale = torch.rand(OUTPUTS, generator=generator) + 0.5
    grad = torch.randn(M, OUTPUTS, generator=generator)
    leaves = [tensor.requires_grad_(training) for tensor in (x, weight, scale)]

    def run(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        output = function(*leaves)
        return (output, *torch.autograd.grad(output, leaves, grad)) if training else (output,)

    operands = x.numel() + weight.numel() + M * OUTPUTS
    return Contest(
        peer=partial(run, by_floats),
        ours={name: partial(run, partial(binary_matmul, backend=name)) for name in ("eager", "cpu")},
        bytes=(3 if training else 1) * operands * _FLOAT,
        flops=(3 if training else 1) * 2 * M * FEATURES * OUTPUTS,
    )


LINES = tuple(
    Line(
        "binary_matmul",
        f"{what}, 1568 rows, {FEATURES} features, {OUTPUTS} outputs",
        "float32 signs and torch's linear layer",
        {},
        partial(_contest, 1568, training=what != "forward"),
    )
    for what in ("forward", "forward and backward")
)
SWEEPS = (
    Sweep(
        operation="binary_matmul",
        name=f"forward, {FEATURES} features, {OUTPUTS} outputs",
        axis="rows",
        peer="float32 signs and torch's linear layer",
        sizes=(196, 392, 784, 1568),
        contest=partial(_contest, training=False),
    ),
)
