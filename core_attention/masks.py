"""Masks of attention: who may look at whom. True = may, or is valid."""

from __future__ import annotations

import torch
from torch import Tensor


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """Who may look back at whom: (queries, keys) bool; the last query stands at the last key.

    Example:
        >>> causal_mask(2, 3).tolist()
        [[True, True, False], [True, True, True]]
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def attention_mask(valid: Tensor | None, queries: int, keys: int, causal: bool, device: torch.device) -> Tensor | None:
    """One mask for scores (B, H, queries, keys) from padding and order, or None where nothing is masked.

    Args:
        valid: (B, keys) bool, True = valid key.
        queries: number of queries; they are the last ones of the keys where ``causal``.
        keys: number of keys.
        causal: whether a query sees no key after its own place.
        device: where to build it.

    Returns:
        bool, broadcastable to (B, 1, queries, keys): (B, 1, 1, keys) for padding alone.

    Example:
        >>> attention_mask(torch.tensor([[True, False]]), 2, 2, True, torch.device("cpu")).tolist()
        [[[[True, False], [True, False]]]]
    """
    padding = None if valid is None else valid[:, None, None, :]
    if not causal:
        return padding
    order = causal_mask(queries, keys, device)
    return order if padding is None else padding & order


def lengths_to_mask(lengths: Tensor, size: int) -> Tensor:
    """Valid-token mask (B, size) from the lengths (B,) of the sequences.

    Example:
        >>> lengths_to_mask(torch.tensor([1, 3]), 3).tolist()
        [[True, False, False], [True, True, True]]
    """
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]
