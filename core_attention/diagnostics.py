"""What attention looks at, on request: maps come back in ``aux``, nothing is kept on the module."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention_maps(queries: Tensor, keys: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """The softmax weights themselves, O(T S) memory.

    Args:
        queries: (B, H, T, D).
        keys: (B, H, S, D).
        mask: broadcastable to (B, H, T, S): bool, True = may look, or numbers that are added to the scores.
        scale: factor of the scores, 1 / sqrt(D) by default.

    Returns:
        (B, H, T, S) weights, rows summing to 1; a row that may look nowhere is zero.
    """
    scores = queries @ keys.transpose(-2, -1) * (1 / math.sqrt(queries.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return torch.nan_to_num(scores.softmax(dim=-1), nan=0.0) if mask is not None else scores.softmax(dim=-1)


def attention_entropy(maps: Tensor) -> Tensor:
    """Entropy in nats of each row of maps (..., S): 0 looks at one token, ln S at all alike.

    Example:
        >>> round(float(attention_entropy(torch.full((1, 4), 0.25))), 4)
        1.3863
    """
    return torch.special.entr(maps).sum(dim=-1)


def mean_distance(maps: Tensor) -> Tensor:
    """Mean distance in tokens between a query and what it looks at: (..., T, S) to (...,).

    Example:
        >>> float(mean_distance(torch.eye(5)))
        0.0
    """
    queries, keys = maps.shape[-2:]
    there = torch.arange(keys, device=maps.device)
    here = torch.arange(keys - queries, keys, device=maps.device)
    gap = (there[None, :] - here[:, None]).abs().to(maps.dtype)
    return (maps * gap).sum(dim=-1).mean(dim=-1)
