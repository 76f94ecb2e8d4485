"""Encodings of a token's place: added (sinusoidal) or turned in (rotary)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core_attention.contract import MechanismError


def sinusoidal(length: int, dim: int, *, base: float = 10_000.0, start: int = 0) -> Tensor:
    """Sines and cosines of the place at ``dim / 2`` wavelengths, to be added to the tokens.

    Args:
        length: number of places T.
        dim: channels C; an odd one drops the last cosine.
        base: ratio of the longest wavelength to the shortest.
        start: place of the first row, for the later pieces of a stream.

    Returns:
        (T, C) float32: channel 2i is sin(t / base^(2i / C)), channel 2i + 1 the cosine.

    Raises:
        MechanismError: a length or dim below 1.

    Source: Attention is all you need (arXiv 1706.03762), section 3.5.

    Example:
        >>> sinusoidal(3, 4)[0].tolist()
        [0.0, 1.0, 0.0, 1.0]
    """
    if length < 1 or dim < 1:
        raise MechanismError(f"sinusoidal: length={length}, dim={dim}, expected both at least 1")
    place = torch.arange(start, start + length, dtype=torch.float64)
    pairs = (dim + 1) // 2
    rate = torch.exp(torch.arange(pairs, dtype=torch.float64) * (-2.0 * math.log(base) / dim))
    angle = place[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[:, :dim].float()


def rotary_angles(length: int, head_dim: int, *, base: float = 10_000.0, start: int = 0) -> Tensor:
    """Angles (T, D / 2) in radians by which ``rotate`` turns each pair of channels.

    Raises:
        MechanismError: an odd ``head_dim``.

    Source: RoFormer (arXiv 2104.09864), equation 15.
    """
    if head_dim < 2 or head_dim % 2:
        raise MechanismError(f"rotary: head_dim={head_dim}, expected an even number")
    place = torch.arange(start, start + length, dtype=torch.float64)
    rate = torch.exp(torch.arange(head_dim // 2, dtype=torch.float64) * (-2.0 * math.log(base) / head_dim))
    return (place[:, None] * rate).float()


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn neighbouring pairs of channels, so that scores depend on the distance of two tokens only.

    Args:
        x: queries or keys (..., T, D), D even.
        angles: (T, D / 2) of ``rotary_angles``.

    Returns:
        The shape and dtype of x.

    Source: RoFormer (arXiv 2104.09864), equation 34. O(T D).

    Example:
        >>> x = torch.randn(2, 5, 8)
        >>> turned = rotate(x, rotary_angles(5, 8))
        >>> bool(torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5))
        True
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
