"""Moving mean on the CPU in one pass over memory, for arrays too large to stay in the caches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

# Elements below which one more thread costs more than it saves (measured: 50 microseconds to start one).
_PER_THREAD = 1 << 18


def serves(x: Tensor) -> bool:
    """Whether the compiled loops take x and gain anything on it."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and isinstance(x.shape[0], int)
        and x.numel() >= _PER_THREAD
        and not torch.compiler.is_compiling()
    )


class MovingAverage(torch.autograd.Function):
    """Centred moving mean of (B, T, C) with the end rows repeated; nothing is saved for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: int) -> Tensor:
        ctx.window = window
        return _run(_loops()[0], x, window)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return cast(Tensor, MovingAverageAdjoint.apply(grads[0], ctx.window)), None


class MovingAverageAdjoint(torch.autograd.Function):
    """The transpose of ``MovingAverage``, which is linear: its gradient, and the gradient of that in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: int) -> Tensor:
        ctx.window = window
        return _run(_loops()[1], x, window)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return cast(Tensor, MovingAverage.apply(grads[0], ctx.window)), None


def _run(loop: Callable[..., None], x: Tensor, window: int) -> Tensor:
    from core_attention.kernels._numba import array, ranges, run  # numba is imported on first use only

    source = x.detach().contiguous()
    result = torch.empty_like(source)
    parts = ranges(x.shape[0], -(-_PER_THREAD * x.shape[0] // x.numel()))
    run(loop, parts, array(source), array(result), window // 2)
    return result


@functools.cache
def _loops() -> tuple[Callable[..., None], Callable[..., None]]:
    """The compiled mean and its transpose."""
    from core_attention.kernels._numba import compiled

    return compiled(_mean), compiled(_mean_transposed)


def _mean(x: np.ndarray, y: np.ndarray, half: int, part: int, low: int, high: int) -> None:
    # A running sum in float64: additions and removals of float32 rows leave no trace of what has gone.
    rows, channels = x.shape[1], x.shape[2]
    share = 1.0 / (2 * half + 1)
    total = np.zeros(channels, np.float64)
    for b in range(low, high):
        for c in range(channels):
            total[c] = x[b, 0, c] * (half + 1.0)
        for t in range(1, half + 1):
            for c in range(channels):
                total[c] += x[b, min(t, rows - 1), c]
        for t in range(rows):
            enters, leaves = min(t + half + 1, rows - 1), max(t - half, 0)
            for c in range(channels):
                y[b, t, c] = total[c] * share
                total[c] += np.float64(x[b, enters, c]) - np.float64(x[b, leaves, c])


def _mean_transposed(g: np.ndarray, y: np.ndarray, half: int, part: int, low: int, high: int) -> None:
    # Rows outside count as zero here; what the repeated end rows received goes to the end rows.
    rows, channels = g.shape[1], g.shape[2]
    share = 1.0 / (2 * half + 1)
    total = np.zeros(channels, np.float64)
    first = np.zeros(channels, np.float64)
    last = np.zeros(channels, np.float64)
    for b in range(low, high):
        total[:] = 0.0
        first[:] = 0.0
        last[:] = 0.0
        for t in range(min(half, rows)):
            for c in range(channels):
                total[c] += g[b, t, c]
                first[c] += g[b, t, c] * (half - t)
                last[c] += g[b, rows - 1 - t, c] * (half - t)
        for t in range(rows):
            if t + half < rows:
                for c in range(channels):
                    total[c] += g[b, t + half, c]
            if t - half - 1 >= 0:
                for c in range(channels):
                    total[c] -= g[b, t - half - 1, c]
            for c in range(channels):
                y[b, t, c] = total[c] * share
        for c in range(channels):
            y[b, 0, c] += first[c] * share
            y[b, rows - 1, c] += last[c] * share
