"""Argument checks that all operations share, so that every message has one form: name, found, expected, cure."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["check_dims", "check_shape", "check_tensor", "same_device", "same_kind"]


def check_tensor(name: str, tensor: Tensor) -> None:
    """Refuse what is not a floating-point tensor.

    Raises:
        ValueError: another type or dtype.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: found {type(tensor).__name__}, expected a tensor")
    if not tensor.is_floating_point():
        raise ValueError(f"{name}: found {tensor.dtype}, expected a floating-point dtype; convert it, e.g. by .float()")


def check_dims(name: str, tensor: Tensor, dims: str, *, filled: bool = True) -> None:
    """Refuse a floating-point tensor of another rank, or with an empty dimension.

    Args:
        name: of the argument.
        tensor: as given.
        dims: its dimensions, such as "B, T, H, D".
        filled: whether every dimension must hold something.

    Raises:
        ValueError: another rank, dtype, or nothing inside.

    Example:
        >>> check_dims("q", torch.zeros(2, 3), "B, T, H, D")
        Traceback (most recent call last):
        ValueError: q: found shape (2, 3), expected 4 dimensions (B, T, H, D)
    """
    check_tensor(name, tensor)
    count = dims.count(",") + 1
    if tensor.dim() != count:
        raise ValueError(f"{name}: found shape {tuple(tensor.shape)}, expected {count} dimensions ({dims})")
    if filled and any(size == 0 for size in tensor.shape):
        raise ValueError(f"{name}: found shape {tuple(tensor.shape)}, expected ({dims}) with no empty dimension")


def check_shape(name: str, tensor: Tensor, shape: Sequence[int], why: str) -> None:
    """Refuse a tensor of another shape than expected.

    Args:
        name: of the argument.
        tensor: as given.
        shape: what fits the other arguments.
        why: what the shape comes from, such as "(B, D, L) as u".

    Raises:
        ValueError: another shape.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: found {type(tensor).__name__}, expected a tensor")
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name}: found shape {tuple(tensor.shape)}, expected {tuple(shape)}, {why}")


def same_device(name: str, tensor: Tensor, owner: str, like: Tensor) -> None:
    """Refuse a tensor on another device than the one it works with.

    Raises:
        ValueError: another device.
    """
    if tensor.device != like.device:
        raise ValueError(f"{name}: found on {tensor.device}, expected on {like.device} with {owner}")


def same_kind(name: str, tensor: Tensor, owner: str, like: Tensor, *, or_float32: bool = False) -> Tensor:
    """The tensor on the device and in the dtype of another; only autocast may mix dtypes.

    Args:
        name: of the argument.
        tensor: as given.
        owner: the name of the argument whose kind counts.
        like: that argument.
        or_float32: whether float32 is taken beside half-width operands, as parameters are kept.

    Raises:
        ValueError: another device or dtype.
    """
    same_device(name, tensor, owner, like)
    if tensor.dtype == like.dtype or (or_float32 and tensor.dtype == torch.float32 and like.dtype.itemsize == 2):
        return tensor
    if tensor.is_floating_point() and torch.is_autocast_enabled(like.device.type):
        return tensor.to(like.dtype)
    raise ValueError(f"{name}: found {tensor.dtype}, expected {like.dtype}, the dtype of {owner}; convert one of them")
