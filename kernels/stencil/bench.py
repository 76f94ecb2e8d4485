"""How fast eight diffusion steps are, against a depthwise convolution a step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.stencil import stencil

__all__ = ["LINES", "SWEEPS", "by_convolution"]

CHANNELS, STEPS, FLOAT = 64, 8, 4
_PEER = "a depthwise conv2d a step"


def by_convolution(u: Tensor, coefficients: Tensor) -> Tensor:
    """Zeros beyond the border: a step is one 3x3 convolution, 1 - 4 c in the middle and c on its four arms."""
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    here = torch.zeros(3, 3)
    here[1, 1] = 1.0
    weight = (here + coefficients.view(-1, 1, 1) * cross).unsqueeze(1)
    for _ in range(STEPS):
        u = F.conv2d(u, weight, padding=1, groups=u.shape[1])
    return u


def _contest(size: int, generator: torch.Generator, *, training: bool) -> Contest:
    u = torch.randn(1, CHANNELS, size, size, generator=generator)
    coefficients = 0.25 * torch.rand(1, CHANNELS, generator=generator)
    grad = torch.randn(u.shape, generator=generator)

    def run(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_(training) for tensor in (u, coefficients)]
        output = function(*leaves)
        return (output, *torch.autograd.grad(output, leaves, grad)) if training else (output,)

    def ours(backend: str) -> Callable[[], tuple[Tensor, ...]]:
        return partial(run, partial(stencil, steps=STEPS, boundary="zeros", backend=backend))

    return Contest(
        peer=partial(run, by_convolution),
        ours={name: ours(name) for name in ("eager", "cpu")},
        bytes=(4 if training else 2) * u.numel() * FLOAT,
        flops=(3 if training else 1) * STEPS * 7 * u.numel(),
    )


LINES = (
    Line(
        "stencil",
        f"forward, {STEPS} steps, {CHANNELS} x 256 x 256",
        _PEER,
        {"cpu": 6.0},
        partial(_contest, 256, training=False),
    ),
    Line(
        "stencil",
        f"forward and backward, {STEPS} steps, {CHANNELS} x 256 x 256",
        _PEER,
        {},
        partial(_contest, 256, training=True),
    ),
)
SWEEPS = (
    Sweep(
        operation="stencil",
        name=f"forward, {STEPS} steps, {CHANNELS} channels",
        axis="side in pixels",
        peer=_PEER,
        sizes=(64, 128, 256, 512),
        contest=partial(_contest, training=False),
    ),
)
