"""What ``flash_softmax`` promises about its own speed, and the peers that it is measured against."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.flash_softmax import flash_softmax

__all__ = ["LINES", "SWEEPS", "dense_mask_attention", "explicit_attention"]

_HEADS, _WIDTH, _WINDOW = 8, 64, 256


def dense_mask_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """torch's fused attention under a mask of size T x S in memory; layout (B, T, H, D)."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, visible).transpose(1, 2)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, sink: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V with a column for the sink, the weights in memory; layout (B, T, H, D)."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    scores = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).masked_fill(~visible, -torch.inf)
    column = sink.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    weights = torch.softmax(torch.cat([scores, column], dim=3), dim=3)[..., :-1]
    return (weights @ v).transpose(1, 2)


def _band(length: int, window: int) -> Tensor:
    """A causal band that was there before the clock started: the peer need not build it."""
    return torch.ones(length, length, dtype=torch.bool).tril().triu(1 - window)


def _operands(length: int, generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(1, length, _HEADS, _WIDTH, generator=generator) for _ in range(4)]


def _differentiated(function: Callable[..., Tensor], tensors: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, grad))


def _windowed(length: int, generator: torch.Generator) -> Contest:
    q, k, v, _ = _operands(length, generator)
    visible = _band(length, _WINDOW)
    return Contest(
        peer=lambda: dense_mask_attention(q, k, v, visible),
        ours={"eager": lambda: flash_softmax(q, k, v, causal=True, window=_WINDOW, backend="eager")},
        bytes=4.0 * 4 * q.numel(),
        flops=4.0 * _WINDOW * q.numel(),
    )


def _windowed_training(generator: torch.Generator) -> Contest:
    q, k, v, grad = _operands(4096, generator)
    visible = _band(4096, _WINDOW)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flash_softmax(q, k, v, causal=True, window=_WINDOW, backend="eager")

    return Contest(
        peer=lambda: _differentiated(lambda q, k, v: dense_mask_attention(q, k, v, visible), [q, k, v], grad),
        ours={"eager": lambda: _differentiated(ours, [q, k, v], grad)},
        bytes=4.0 * 8 * q.numel(),
        flops=14.0 * _WINDOW * q.numel(),
    )


def _sunk(generator: torch.Generator) -> Contest:
    q, k, v, grad = _operands(1024, generator)
    sink = torch.randn(_HEADS, generator=generator)
    visible = _band(1024, 1024)

    def peer(q: Tensor, k: Tensor, v: Tensor, sink: Tensor) -> Tensor:
        return explicit_attention(q, k, v, visible, sink)

    def ours(q: Tensor, k: Tensor, v: Tensor, sink: Tensor) -> Tensor:
        return flash_softmax(q, k, v, causal=True, sink=sink, backend="eager")

    return Contest(
        peer=lambda: _differentiated(peer, [q, k, v, sink], grad),
        ours={"eager": lambda: _differentiated(ours, [q, k, v, sink], grad)},
        bytes=4.0 * 8 * q.numel(),
        flops=14.0 * 512 * q.numel(),
    )


LINES = (
    Line(
        "flash_softmax",
        f"forward, causal window {_WINDOW}, L 4096, 8 heads of 64",
        "scaled_dot_product_attention with a dense mask",
        {"eager": 4.0},
        lambda generator: _windowed(4096, generator),
    ),
    Line(
        "flash_softmax",
        f"forward and backward, causal window {_WINDOW}, L 4096, 8 heads of 64",
        "scaled_dot_product_attention with a dense mask",
        {},
        _windowed_training,
    ),
    Line(
        "flash_softmax",
        "forward and backward, causal with a sink, L 1024, 8 heads of 64",
        "softmax with the weights in memory",
        {},
        _sunk,
    ),
)
SWEEPS = (
    Sweep(
        "flash_softmax",
        f"forward, causal window {_WINDOW}, 8 heads of 64",
        "tokens",
        "scaled_dot_product_attention with a dense mask",
        (512, 1024, 2048, 4096),
        _windowed,
    ),
)
