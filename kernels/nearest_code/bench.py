"""How fast codebook assignment is, against plain torch: all distances, the least of each row, a gather."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.nearest_code import nearest_code

__all__ = ["LINES", "SWEEPS", "by_distances"]

WIDTH, CODES = 64, 512
_FLOAT, _INDEX = 4, 8


def by_distances(x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, T, D), codes (K, D): the (B, T, K) distances in memory, and the straight-through sum."""
    index = torch.cdist(x.detach(), codes.expand(x.shape[0], -1, -1)).argmin(-1)
    code = codes[index]
    return code.detach() + (x - x.detach()), index


def _step(function: Callable[..., tuple[Tensor, Tensor]], x: Tensor, codes: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    leaf, grad = x.detach().requires_grad_(), torch.ones_like(x)

    def run() -> tuple[Tensor, ...]:
        quantised, _ = function(leaf, codes)
        return quantised, *torch.autograd.grad(quantised, leaf, grad)

    return run


def _contest(T: int, generator: torch.Generator, *, training: bool) -> Contest:
    x, codes = torch.randn(4, T, WIDTH, generator=generator), torch.randn(CODES, WIDTH, generator=generator)
    ours = partial(nearest_code, backend="eager")
    moved = 2 * x.numel() * _FLOAT + x.numel() // WIDTH * _INDEX
    flops = 2 * x.numel() * CODES
    if training:
        return Contest(_step(by_distances, x, codes), {"eager": _step(ours, x, codes)}, 2 * moved, flops)
    return Contest(lambda: by_distances(x, codes)[0], {"eager": lambda: ours(x, codes)[0]}, moved, flops)


LINES = tuple(
    Line(
        "nearest_code",
        f"{what}, B 4, T 4096, D {WIDTH}, {CODES} codes",
        "plain torch: cdist, argmin, gather",
        {},
        partial(_contest, 4096, training=what != "forward"),
    )
    for what in ("forward", "forward and backward")
)
SWEEPS = (
    Sweep(
        operation="nearest_code",
        name=f"forward, B 4, D {WIDTH}, {CODES} codes",
        axis="tokens a sample",
        peer="plain torch: cdist, argmin, gather",
        sizes=(512, 1024, 2048, 4096),
        contest=partial(_contest, training=False),
    ),
)
