"""State of streaming mechanisms: what one piece of a sequence leaves for the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class KeyValueState(NamedTuple):
    """Keys and values of all tokens so far.

    Attributes:
        keys: (B, H, S, D).
        values: (B, H, S, D).
        valid: (B, S) bool, True = valid, or None where every token is.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None = None


def append(state: KeyValueState | None, keys: Tensor, values: Tensor, valid: Tensor | None = None) -> KeyValueState:
    """The state with the keys and values (B, H, T, D) of the next piece behind it; O(S + T) copies.

    Example:
        >>> import torch
        >>> piece = torch.zeros(1, 2, 3, 4)
        >>> append(append(None, piece, piece), piece, piece).keys.shape
        torch.Size([1, 2, 6, 4])
    """
    if state is None:
        return KeyValueState(keys, values, valid)
    if valid is not None or state.valid is not None:
        old = _validity(state.valid, state.keys)
        valid = torch.cat([old, _validity(valid, keys)], dim=1)
    return KeyValueState(torch.cat([state.keys, keys], dim=2), torch.cat([state.values, values], dim=2), valid)


def detach(state: Any) -> Any:
    """The same state cut from the autograd graph, for truncated back-propagation through time."""
    return pytree.tree_map_only(Tensor, torch.Tensor.detach, state)


def _validity(valid: Tensor | None, keys: Tensor) -> Tensor:
    if valid is not None:
        return valid
    return torch.ones(keys.shape[0], keys.shape[2], dtype=torch.bool, device=keys.device)
