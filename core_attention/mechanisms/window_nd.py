"""Attention within shifted windows of a grid of one to four axes, without a relative-position bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.contract import MechanismError, MixerOutput, TokenMixer
from core_attention.kernels.window_nd import window_nd
from core_attention.registry import mechanism

__all__ = ["WindowNd"]

_AXES = (1, 2, 3, 4)


@mechanism(
    name="window_nd",
    paper="arXiv 2307.05916",
    year=2023,
    complexity="L W",
    grid=_AXES,
    mask=True,
)
class WindowNd(TokenMixer):
    """Multi-head attention of each token to the tokens of its window, on a grid of one to four axes.

    The grid is rolled by ``-shift``, cut into windows, and each window attends within itself; where the roll brings the
    two ends of an axis into one window they do not see each other. An axis no longer than its window has one window,
    the axis itself, and no shift. There is no relative-position bias. y = softmax(Q K^T / sqrt(D)) V O.

    Grids of any size do: by default what an axis lacks to a multiple of the window is no key. Models whose released
    code fills the grid up with zeros after the norm, before the projection, attend to such tokens too, as keys and
    values that are the biases; ``mask_padding=False`` does so.

    O(L W C) time for L tokens and windows of W, and O(L C) memory. Source: SwiFT (arXiv 2307.05916), section 3, on the
    shifted windows of Swin (arXiv 2103.14030), section 3.2.

    Args:
        dim: channels C, a multiple of ``num_heads``.
        num_heads: heads H of D = C / H channels.
        window: tokens of a window, one number for every axis or one each.
        shift: tokens by which the windows move: True for half a window (rounded down), False or 0 for none, one number
            for every axis or one each, less than the window.
        mask_padding: whether padding up to a multiple of the window is hidden, see above.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        proj_drop: probability of dropping a number of the result while training.

    Raises:
        MechanismError: sizes that do not fit, or x with another number of axes than ``window`` or ``shift`` name.

    Example:
        >>> import torch
        >>> mixer = WindowNd(16, 4, window=(4, 4, 4, 2), shift=True)
        >>> mixer(torch.randn(2, 6, 5, 4, 3, 16)).y.shape
        torch.Size([2, 6, 5, 4, 3, 16])
        >>> WindowNd(16, 4, window=7)(torch.randn(2, 20, 16)).y.shape
        torch.Size([2, 20, 16])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        window: int | Sequence[int] = 4,
        shift: bool | int | Sequence[int] = False,
        mask_padding: bool = True,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, num_heads)
        if dim % num_heads:
            raise MechanismError(f"window_nd: dim={dim} is no multiple of num_heads={num_heads}")
        if not 0 <= proj_drop < 1:
            raise MechanismError(f"window_nd: proj_drop is {proj_drop}, expected at least 0 and below 1")
        self.window = _sizes("window", window, least=1)
        self.shift = _shifts(shift, self.window)
        self.mask_padding, self.proj_drop = mask_padding, proj_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    @classmethod
    def example_options(cls, grid: tuple[int, ...]) -> dict[str, Any]:
        """Windows smaller than most axes, and moved, for this number of axes only."""
        return {"window": (4,) if len(grid) == 1 else (2, 3, 2, 2)[: len(grid)], "shift": True}

    def mix(self, x: Tensor, *, mask: Tensor | None = None) -> MixerOutput:
        """Mix the tokens of x (B, *grid, C); ``mask`` (B, *grid), True = may be a key."""
        grid = tuple(x.shape[1:-1])
        window, shift = self._layout(len(grid))
        missing = [0] * len(grid) if self.mask_padding else _missing(grid, window)
        filled = [size + more for size, more in zip(grid, missing, strict=True)]
        if any(missing):
            x = _extended(x, (0, *missing, 0), 0.0)
            mask = None if mask is None else _extended(mask, (0, *missing), True)
        B, H = x.shape[0], self.num_heads
        qkv = self.qkv(x).view(B, -1, 3, H, self.dim // H)
        y = window_nd(qkv, filled, window, shift, None if mask is None else mask.reshape(B, -1))
        y = y.view(B, *filled, self.dim)
        if any(missing):
            for axis, size in enumerate(grid, start=1):
                y = y.narrow(axis, 0, size)
        return MixerOutput(F.dropout(self.proj(y), self.proj_drop, self.training))

    def _layout(self, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and shift with one number an axis."""
        made = []
        for name, numbers in (("window", self.window), ("shift", self.shift)):
            spread = (numbers,) * axes if isinstance(numbers, int) else numbers
            if len(spread) != axes:
                raise MechanismError(f"window_nd: x has {axes} axes, expected {len(spread)}, one a number of {name}")
            made.append(spread)
        return made[0], made[1]


def _sizes(name: str, given: Any, *, least: int) -> int | tuple[int, ...]:
    """One whole number, or a tuple of one to four."""
    several = isinstance(given, Sequence) and not isinstance(given, str)
    numbers: tuple[Any, ...] = tuple(given) if several else (given,)
    wrong = any(not isinstance(n, int) or isinstance(n, bool) or n < least for n in numbers)
    if wrong or len(numbers) not in _AXES:
        expected = f"a whole number from {least} on, or one to four of them"
        raise MechanismError(f"window_nd: {name} is {given!r}, expected {expected}")
    return numbers if several else numbers[0]


def _shifts(given: Any, window: int | tuple[int, ...]) -> int | tuple[int, ...]:
    if isinstance(given, bool):
        halves = tuple(size // 2 for size in ((window,) if isinstance(window, int) else window))
        return 0 if not given else halves[0] if isinstance(window, int) else halves
    shift = _sizes("shift", given, least=0)
    sizes, moves = (one if isinstance(one, tuple) else (one,) for one in (window, shift))
    count = max(len(sizes), len(moves))
    sizes, moves = (one * count if len(one) == 1 else one for one in (sizes, moves))
    if len(sizes) != len(moves) or any(move >= size for move, size in zip(moves, sizes, strict=False)):
        raise MechanismError(f"window_nd: shift is {given!r}, expected less than the window {window!r} on every axis")
    return shift


def _missing(grid: Sequence[int], window: Sequence[int]) -> list[int]:
    """What each axis lacks to a multiple of its window; nothing where one window covers it."""
    return [-size % w if size > w else 0 for size, w in zip(grid, window, strict=True)]


def _extended(x: Tensor, missing: Sequence[int], value: float) -> Tensor:
    """Axes from the second on, made longer at their ends."""
    return F.pad(x, [pad for more in reversed(missing[1:]) for pad in (0, more)], value=value)
