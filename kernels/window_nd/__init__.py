"""Attention within shifted windows of a grid of one to four axes, with partition, roll and padding in one gather."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from core_attention.kernels._checks import check_dims, check_shape, same_device, same_kind
from core_attention.kernels._dispatch import check_backend
from core_attention.kernels.window_nd import eager
from core_attention.kernels.window_nd.operators import window_op

__all__ = ["window_nd"]

_MAX_AXES = 4


def window_nd(
    qkv: Tensor,
    grid: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int] | None = None,
    mask: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attend within the (shifted) windows of a grid: ``softmax(scale q k' + bias) v``, each token over its own window.

    The grid is padded at the end of each axis to a multiple of the window, rolled by ``-shift``, cut into windows and
    put back. Padding is never a key. Where the roll brings both ends of an axis into one window, tokens of the two ends
    do not see each other. As in the models that use it, an axis no longer than its window has one window, the axis
    itself, and no shift. A model that lets zero padding be keys pads its grid itself before it projects.

    Args:
        qkv: (B, T, 3, H, D), queries, keys and values as one projection yields them; T = prod(grid) tokens, last axis
            of the grid fastest.
        grid: tokens on each axis, 1 to 4 whole numbers.
        window: tokens of a window on each axis; clamped to the grid.
        shift: tokens by which windows are moved on each axis, 0 <= shift < window; None for no shift. Taken as 0 on an
            axis that its window covers.
        mask: (B, T) bool, True where a token may be a key; None for all. Masked tokens still ask.
        bias: (H, W, W) in the dtype of ``qkv``, added to the scores of query and key by their places in the rolled
            window, W = prod of the clamped window (relative-position bias); None for none.
        scale: of the scores; None for 1 / sqrt(D).
        backend: "reference", "eager" or "gpu"; None leaves the choice to the device and ``PIPELINES_BACKEND``.

    Returns:
        (B, T, H, D), contiguous, with the dtype and device of ``qkv``; zeros for a token none of whose keys is valid.

    Raises:
        ValueError: shapes, dtypes, devices or sizes that do not fit, or a back end that cannot serve.

    Differentiable once in ``qkv`` and ``bias``. Time O(B T W H D) at most (windows that a shift or padding cuts cost
    only their pieces), memory O(B T H D), and for the gradient of a bias O(2^22) scores at a time.

    Source: Swin Transformer (arXiv:2103.14030), section 3.2; in four dimensions SwiFT (arXiv:2307.05916), section 3.

    Example:
        >>> line = torch.arange(6.0).view(1, 6, 1, 1, 1).repeat(1, 1, 3, 1, 1)
        >>> window_nd(line, (6,), (3,), scale=0.0).flatten().tolist()
        [1.0, 1.0, 1.0, 4.0, 4.0, 4.0]
        >>> window_nd(line, (6,), (3,), (1,), scale=0.0).flatten().tolist()
        [0.0, 2.0, 2.0, 2.0, 4.5, 4.5]
    """
    check_dims("qkv", qkv, "B, T, 3, H, D")
    B, T, three, H, D = qkv.shape
    if three != 3:
        raise ValueError(f"qkv: found shape {tuple(qkv.shape)}, expected (B, T, 3, H, D): query, key and value")
    sizes, windows, shifts = _layout(grid, window, shift)
    if math.prod(sizes) != T:
        raise ValueError(f"qkv: found {T} tokens, expected {math.prod(sizes)}, those of grid {tuple(grid)}")
    if mask is not None:
        check_shape("mask", mask, (B, T), "(B, T) as qkv")
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: found {mask.dtype}, expected torch.bool, True = valid; convert it by .bool()")
        same_device("mask", mask, "qkv", qkv)
    if bias is not None:
        check_dims("bias", bias, "H, W, W")
        places = math.prod(windows)
        check_shape("bias", bias, (H, places, places), f"(H, W, W) for windows of {places} tokens")
        bias = same_kind("bias", bias, "qkv", qkv)
    factor = D**-0.5 if scale is None else float(scale)
    chosen = check_backend(backend)
    if torch.compiler.is_exporting():
        # An exported program must run without this package, so plain operators are recorded instead of ours.
        return eager.portable_window_nd(qkv, sizes, windows, shifts, mask, bias=bias, scale=factor)
    return window_op(qkv, mask, bias, sizes, windows, shifts, factor, chosen)


def _layout(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int] | None
) -> tuple[list[int], list[int], list[int]]:
    """Checked sizes, with windows clamped to the grid and no shift where one window covers an axis."""
    sizes = _whole("grid", grid, least=1)
    if not 1 <= len(sizes) <= _MAX_AXES:
        raise ValueError(f"grid: found {len(sizes)} axes, expected 1 to {_MAX_AXES}")
    windows = _whole("window", window, least=1, axes=len(sizes))
    shifts = [0] * len(sizes) if shift is None else _whole("shift", shift, least=0, axes=len(sizes))
    if any(moved >= size for moved, size in zip(shifts, windows, strict=True)):
        raise ValueError(f"shift: found {tuple(shifts)}, expected less than the window {tuple(windows)} on every axis")
    return (sizes, *eager.clamped(sizes, windows, shifts))


def _whole(name: str, numbers: Sequence[int], *, least: int, axes: int | None = None) -> list[int]:
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        raise ValueError(f"{name}: found {type(numbers).__name__}, expected a tuple of whole numbers, one an axis")
    if any(not isinstance(number, int) or isinstance(number, bool) or number < least for number in numbers):
        raise ValueError(f"{name}: found {tuple(numbers)}, expected whole numbers, {least} or more")
    if axes is not None and len(numbers) != axes:
        raise ValueError(f"{name}: found {len(numbers)} numbers, expected {axes}, one an axis of the grid")
    return list(numbers)
