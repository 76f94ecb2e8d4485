"""Layers that several mechanisms and models share: projections, feed-forward, series decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import _moving_average
from core_attention.contract import MechanismError, TokenMixer

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class ProjectedMixer(TokenMixer):
    """Base of mechanisms with query, key, value and output projections, C to C each.

    Args:
        dim: channels C, a multiple of ``num_heads``.
        num_heads: heads H of D = C / H channels.
        qkv_bias: whether query, key and value projections have a bias.
        out_bias: whether the output projection has one.

    Raises:
        MechanismError: ``dim`` is no multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int = 8, *, qkv_bias: bool = True, out_bias: bool = True) -> None:
        super().__init__(dim, num_heads)
        if dim % num_heads:
            raise MechanismError(f"{self.spec.name}: dim={dim} is no multiple of num_heads={num_heads}")
        self.head_dim = dim // num_heads
        self.query_projection = nn.Linear(dim, dim, bias=qkv_bias)
        self.key_projection = nn.Linear(dim, dim, bias=qkv_bias)
        self.value_projection = nn.Linear(dim, dim, bias=qkv_bias)
        self.out_projection = nn.Linear(dim, dim, bias=out_bias)

    def project(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, H, D) of x (B, T, C); keys and values (B, S, H, D) of the context, or of x without one."""
        source = x if context is None else context
        heads = (self.num_heads, self.head_dim)
        return (
            self.query_projection(x).unflatten(-1, heads),
            self.key_projection(source).unflatten(-1, heads),
            self.value_projection(source).unflatten(-1, heads),
        )

    def merge(self, y: Tensor) -> Tensor:
        """Heads (B, T, H, D) back to tokens (B, T, C), through the output projection."""
        return self.out_projection(y.flatten(-2))


class FeedForward(nn.Module):
    """Two linear maps with an activation between, token by token: C to hidden to C. O(T C hidden).

    Args:
        dim: channels C.
        hidden: inner width, 4 C by default.
        dropout: probability after the activation and after the second map.
        activation: "gelu", "relu" or "silu".
        bias: whether the two maps have biases.

    Raises:
        MechanismError: an unknown activation.

    Example:
        >>> import torch
        >>> FeedForward(8, 32)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dim: int,
        hidden: int | None = None,
        *,
        dropout: float = 0.0,
        activation: str = "gelu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise MechanismError(f"activation is {activation!r}, expected one of {', '.join(_ACTIVATIONS)}")
        self.activation = activation
        self.expand = nn.Linear(dim, hidden or 4 * dim, bias=bias)
        self.contract = nn.Linear(hidden or 4 * dim, dim, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C) to the same shape."""
        return self.dropout(self.contract(self.dropout(_ACTIVATIONS[self.activation](self.expand(x)))))


def moving_average(x: Tensor, window: int) -> Tensor:
    """Centred moving mean over time, the first and last row repeated at the ends.

    Args:
        x: (B, T, C).
        window: odd number of rows in the mean.

    Returns:
        (B, T, C).

    Raises:
        MechanismError: the window is not a positive odd number, or x has not three axes.

    O(T C log window) by sums of 1, 2, 4, ... rows, which need no running sum that would lose digits on long float32
    series; O(T C) for large float32 and float64 arrays on the CPU, by a compiled running sum in float64.
    Source: Autoformer (arXiv 2106.13008), equation 1.

    Example:
        >>> import torch
        >>> moving_average(torch.tensor([[[0.0], [3.0], [6.0]]]), 3).flatten().tolist()
        [1.0, 3.0, 5.0]
    """
    if window < 1 or window % 2 == 0:
        raise MechanismError(f"moving average: window is {window}, expected an odd number of rows")
    if x.dim() != 3:
        raise MechanismError(f"moving average: x has shape {tuple(x.shape)}, expected (batch, time, channels)")
    if window == 1:
        return x
    if _moving_average.serves(x):
        return cast(Tensor, _moving_average.MovingAverage.apply(x, window))
    half = window // 2
    padded = torch.cat([x[:, :1].expand(-1, half, -1), x, x[:, -1:].expand(-1, half, -1)], dim=1)
    return _window_sum(padded, window) / window


def _window_sum(x: Tensor, window: int) -> Tensor:
    """Sums of ``window`` successive rows: (B, T, C) to (B, T - window + 1, C)."""
    rows = x.shape[1] - window + 1
    total, taken, power, size = None, 0, x, 1
    while taken < window:
        if window & size:
            part = power[:, taken : taken + rows]
            total = part if total is None else total + part
            taken += size
        size *= 2
        if taken < window:
            power = power[:, : power.shape[1] - size // 2] + power[:, size // 2 :]
    return x if total is None else total


class SeriesDecomposition(nn.Module):
    """Split a series into a seasonal part and a trend, the centred moving mean.

    Source: Autoformer (arXiv 2106.13008), equation 1. O(T C log window). See ``moving_average``.

    Args:
        window: odd number of rows in the mean.

    Example:
        >>> import torch
        >>> seasonal, trend = SeriesDecomposition(5)(torch.arange(20.0).reshape(1, 20, 1))
        >>> bool((seasonal[:, 2:-2].abs() < 1e-5).all())
        True
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise MechanismError(f"series decomposition: window is {window}, expected an odd number of rows")
        self.window = window

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split x (B, T, C) into (seasonal, trend), each (B, T, C); they add up to x."""
        trend = moving_average(x, self.window)
        return x - trend, trend
