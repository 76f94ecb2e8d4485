"""Lines of the selective scan: against the loop that Mamba publishes as its reference, and against doubling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.selective_scan import selective_scan
from core_attention.kernels.selective_scan.cases import arguments_of
from core_attention.kernels.selective_scan.eager import portable_selective_scan

__all__ = ["LINES", "SWEEPS", "published_loop"]

_SHAPE = (4, 512, 1000, 16)
_BACKENDS = ("eager", "cpu")


def published_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor):
    """The scan as Mamba's published reference computes it: all decays in memory, then a step at a time, sliced."""
    delta = F.softplus(delta + bias[..., None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    entering = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    h = A.new_zeros((u.shape[0], A.shape[0], A.shape[1]))
    outputs = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + entering[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, :, t]))
    return (torch.stack(outputs, dim=2) + u * D[:, None]) * F.silu(z)


def _operands(shape: tuple[int, int, int, int], generator: torch.Generator) -> list[Tensor]:
    made = arguments_of(shape, torch.float32, generator, state=False)
    return [tensor for tensor in made if tensor is not None]


def _least_bytes(operands: list[Tensor], training: bool) -> float:
    """Operands read once and the output written; in training the gradient read, operands read again, gradients out."""
    inputs = sum(tensor.numel() for tensor in operands)
    output = operands[0].numel()
    return 4.0 * (2 * output + 3 * inputs if training else inputs + output)


def _forward(shape: tuple[int, int, int, int], peer: Callable[..., Any], generator: torch.Generator) -> Contest:
    operands = _operands(shape, generator)

    def ours(backend: str) -> Callable[[], Tensor]:
        return lambda: selective_scan(*operands, delta_softplus=True, backend=backend)

    def theirs() -> Tensor:
        return peer(*operands)

    return Contest(theirs, {name: ours(name) for name in _BACKENDS}, _least_bytes(operands, training=False))


def _training(generator: torch.Generator) -> Contest:
    operands = _operands(_SHAPE, generator)
    leaves = [tensor.requires_grad_() for tensor in operands]
    cotangent = torch.randn(_SHAPE[:3], generator=generator)

    def step(function: Callable[..., Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def run() -> tuple[Tensor, ...]:
            output = function(*leaves, delta_softplus=True)
            return output.detach(), *torch.autograd.grad(output, leaves, cotangent)

        return run

    def ours(backend: str) -> Callable[..., Tensor]:
        return lambda *tensors, **options: selective_scan(*tensors, **options, backend=backend)

    contestants = {name: step(ours(name)) for name in _BACKENDS}
    return Contest(step(portable_selective_scan), contestants, _least_bytes(operands, training=True), tolerance=1e-3)


LINES = (
    Line(
        "selective_scan",
        "forward, B 4, D 512, L 1000, N 16",
        "the loop that Mamba publishes as its reference",
        {"cpu": 25.0, "eager": 5.0},
        lambda generator: _forward(_SHAPE, published_loop, generator),
    ),
    Line(
        "selective_scan",
        "forward and backward, B 4, D 512, L 1000, N 16",
        "a parallel scan by doubling in plain torch",
        {"cpu": 25.0, "eager": 8.0},
        _training,
    ),
)
SWEEPS = (
    Sweep(
        "selective_scan",
        "forward, B 1, D 256, N 16",
        "steps",
        "the loop that Mamba publishes as its reference",
        (256, 1024, 4096, 16384),
        lambda length, generator: _forward((1, 256, length, 16), published_loop, generator),
    ),
)
