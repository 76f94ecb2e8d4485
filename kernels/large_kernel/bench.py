"""How fast the depthwise convolution is, against torch's own on contiguous planes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.large_kernel import large_kernel

__all__ = ["LINES", "SWEEPS"]

CHANNELS, KERNEL, FLOAT = 48, 9, 4
_PEER = "torch's conv2d on contiguous planes"


def _peer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=KERNEL // 2, groups=CHANNELS)


def _contest(size: int, generator: torch.Generator, *, last: bool, training: bool = False) -> Contest:
    planes = torch.randn(1, CHANNELS, size, size, generator=generator)
    weight = torch.randn(CHANNELS, 1, KERNEL, KERNEL, generator=generator) / KERNEL
    bias, grad = torch.randn(CHANNELS, generator=generator), torch.randn(planes.shape, generator=generator)
    given = planes.contiguous(memory_format=torch.channels_last) if last else planes

    def run(function: Callable[..., Tensor], x: Tensor) -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_(training) for tensor in (x, weight, bias)]
        output = function(*leaves)
        return (output, *torch.autograd.grad(output, leaves, grad)) if training else (output,)

    return Contest(
        peer=partial(run, _peer, planes),
        ours={name: partial(run, partial(large_kernel, backend=name), given) for name in ("eager", "cpu")},
        bytes=(6 if training else 2) * planes.numel() * FLOAT,
        flops=(3 if training else 1) * 2 * planes.numel() * KERNEL**2,
    )


_SHAPE = f"{KERNEL}x{KERNEL}, {CHANNELS} x 256 x 256"
LINES = (
    Line(
        "large_kernel",
        f"forward, {_SHAPE}, ours already channels-last",
        _PEER,
        {"eager": 1.5},
        partial(_contest, 256, last=True),
    ),
    Line("large_kernel", f"forward, {_SHAPE}, contiguous", _PEER, {"cpu": 1.5}, partial(_contest, 256, last=False)),
    Line(
        "large_kernel",
        f"forward and backward, {_SHAPE}, contiguous",
        _PEER,
        {},
        partial(_contest, 256, last=False, training=True),
    ),
)
SWEEPS = (
    Sweep(
        operation="large_kernel",
        name=f"forward, {KERNEL}x{KERNEL}, {CHANNELS} channels",
        axis="side in pixels",
        peer=_PEER,
        sizes=(64, 128, 256, 512),
        contest=partial(_contest, last=False),
    ),
)
