"""How fast window attention is: SwiFT's four-dimensional block against the way its equations are usually written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels.window_nd import window_nd

__all__ = ["LINES", "SWEEPS", "region_mask", "roll_partition_softmax"]

_WINDOW, _SHIFT = (4, 4, 4, 4), (2, 2, 2, 2)


def roll_partition_softmax(
    qkv: Tensor, grid: Sequence[int], window: Sequence[int], shift: Sequence[int], added: Tensor | None
) -> Tensor:
    """Swin's attention by its steps: roll, partition, scores, the mask added, softmax, values, and back.

    Args:
        qkv: (B, T, 3, H, D); the grid is a multiple of the window.
        grid, window, shift: one number an axis.
        added: (windows, W, W), 0 or -100 as models keep it; None for no shift.
    """
    B, T, _, H, D = qkv.shape
    n, W = len(grid), math.prod(window)
    axes, counts = list(range(1, n + 1)), [size // w for size, w in zip(grid, window, strict=True)]
    x = qkv.reshape(B, *grid, 3 * H * D)
    if added is not None:
        x = torch.roll(x, [-s for s in shift], axes)
    x = x.view(B, *(part for pair in zip(counts, window, strict=True) for part in pair), 3 * H * D)
    x = x.permute(0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1).reshape(-1, W, 3, H, D)
    q, k, v = x.permute(2, 0, 3, 1, 4)
    scores = (q * D**-0.5) @ k.transpose(-2, -1)
    if added is not None:
        scores = (scores.view(B, -1, H, W, W) + added[:, None]).view(-1, H, W, W)
    x = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, *counts, *window, H * D)
    x = x.permute(0, *(axis for i in range(n) for axis in (1 + i, 1 + n + i)), 2 * n + 1).reshape(B, *grid, H * D)
    if added is not None:
        x = torch.roll(x, list(shift), axes)
    return x.reshape(B, T, H, D)


def region_mask(grid: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """(windows, W, W): -100 between tokens of a rolled window that are no neighbours, as Swin numbers its regions."""
    region = torch.zeros(tuple(grid), dtype=torch.int64)
    for axis, (size, w, s) in enumerate(zip(grid, window, shift, strict=True)):
        place = torch.arange(size)
        kind = (place >= size - w).long() + (place >= size - s).long()
        region = 3 * region + kind.view([size if i == axis else 1 for i in range(len(grid))])
    pairs = [part for size, w in zip(grid, window, strict=True) for part in (size // w, w)]
    order = (*range(0, len(pairs), 2), *range(1, len(pairs), 2))
    cells = region.view(pairs).permute(order).reshape(-1, math.prod(window))
    return torch.where(cells[:, :, None] == cells[:, None, :], 0.0, -100.0)


def _ours(qkv: Tensor, *, grid: Sequence[int], shift: Sequence[int], backend: str) -> Tensor:
    return window_nd(qkv, grid, _WINDOW, shift, backend=backend)


def _contest(
    batch: tuple[int, int, int], grid: Sequence[int], shift: Sequence[int], *, train: bool, generator: torch.Generator
) -> Contest:
    (B, H, D), T, W = batch, math.prod(grid), math.prod(_WINDOW)
    qkv = torch.randn((B, T, 3, H, D), generator=generator)
    added = region_mask(grid, _WINDOW, shift) if any(shift) else None
    pairs = T * W if added is None else int((added == 0).sum())
    cotangent = torch.randn((B, T, H, D), generator=generator)

    def task(function: Callable[[Tensor], Tensor]) -> Callable[[], Any]:
        def forward() -> Tensor:
            with torch.no_grad():
                return function(qkv)

        def both() -> tuple[Tensor, Tensor]:
            leaf = qkv.detach().requires_grad_()
            out = function(leaf)
            return out.detach(), torch.autograd.grad(out, leaf, cotangent)[0]

        return both if train else forward

    return Contest(
        peer=task(lambda x: roll_partition_softmax(x, grid, _WINDOW, shift, added)),
        ours={name: task(partial(_ours, grid=grid, shift=shift, backend=name)) for name in ("eager", "cpu")},
        bytes=(8 if train else 4) * 4 * B * T * H * D,
        flops=(14 if train else 4) * B * H * D * pairs,
        tolerance=1e-4,
    )


def _line(name: str, batch: tuple[int, int, int], shifted: bool, train: bool, goals: dict[str, float]) -> Line:
    grid, shift = (16, 16, 16, 8), _SHIFT if shifted else (0, 0, 0, 0)
    return Line(
        operation="window_nd",
        name=f"{name}, 128 windows of 4 x 4 x 4 x 4, H {batch[1]}, D {batch[2]}",
        peer="roll, partition and explicit softmax" if shifted else "partition and explicit softmax",
        goals=goals,
        contest=lambda generator: _contest(batch, grid, shift, train=train, generator=generator),
    )


LINES = (
    _line("shifted block forward", (1, 8, 12), True, False, {"eager": 4.0, "cpu": 6.0}),
    _line("shifted block forward and backward", (1, 8, 12), True, True, {"cpu": 5.0}),
    _line("block without shift forward", (1, 8, 12), False, False, {}),
)
SWEEPS = (
    Sweep(
        operation="window_nd",
        name="shifted block forward, windows of 256, H 3, D 32",
        axis="windows",
        peer="roll, partition and explicit softmax",
        sizes=(16, 32, 64, 128),
        contest=lambda size, generator: _contest(
            (1, 3, 32), (8, 8, 8, size // 2), _SHIFT, train=False, generator=generator
        ),
    ),
)
