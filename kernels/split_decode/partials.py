"""Softmax attention over a part of the keys, as a state that can be merged with those of the other parts."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["State", "merge_partials"]

State = tuple[Tensor, Tensor, Tensor]


def merge_partials(*states: State) -> State:
    """Merge attention over disjoint sets of keys into attention over their union, in any order and grouping.

    Args:
        states: one or more ``(maximum, total, output)`` of equal shapes: the largest score (...), -inf where no key was
            seen; the sum of ``exp(score - maximum)`` (...), 0 there; the sum of ``exp(score - maximum) * value``
            (..., D), not divided yet.

    Returns:
        The state of all keys together. The attention output is ``output / total[..., None]``, zeros where total is 0;
        the logarithm of the sum of exponentials is ``maximum + log(total)``.

    Raises:
        ValueError: no state, or shapes that differ.

    The merge is associative and commutative up to rounding, and a state without keys is its neutral element.
    Differentiable. Time and memory O(states x size of a state).

    Source: LeanAttention (arXiv:2405.10480), section IV-A, the softmax re-scaling as a reduction operator.

    Example:
        >>> one = (torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([[2.0]]))
        >>> maximum, total, output = merge_partials(one, one)
        >>> (output / total[..., None]).tolist()
        [[2.0]]
    """
    _check(states)
    maxima, totals, outputs = (torch.stack(parts) for parts in zip(*states, strict=True))
    maximum = maxima.amax(dim=0)
    # Where no state has seen a key both are -inf, and their difference would be NaN.
    weights = torch.exp(maxima - torch.where(maximum == -torch.inf, torch.zeros_like(maximum), maximum))
    return maximum, (weights * totals).sum(0), (weights.unsqueeze(-1) * outputs).sum(0)


def _check(states: tuple[State, ...]) -> None:
    if not states:
        raise ValueError("states: found none, expected at least one (maximum, total, output)")
    shape = tuple(states[0][2].shape)
    for i, (maximum, total, output) in enumerate(states):
        for name, part, expected in (
            ("maximum", maximum, shape[:-1]),
            ("total", total, shape[:-1]),
            ("output", output, shape),
        ):
            if tuple(part.shape) != expected:
                raise ValueError(
                    f"states[{i}], {name}: found shape {tuple(part.shape)}, expected {expected}, "
                    f"that of states[0]'s output{'' if name == 'output' else ' without its last dimension'}"
                )
