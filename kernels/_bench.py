"""What an operation says about its own speed: the lines to be measured, their named peers, and sweeps over length.

A folder ``kernels/<op>`` has a module ``bench`` with ``LINES`` and ``SWEEPS``; ``pipelines bench kernels`` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Contest", "Line", "Sweep"]


@dataclass(frozen=True)
class Contest:
    """Functions without arguments that compute the same task, with what the task needs at least.

    Attributes:
        peer: what ours is measured against; returns a tensor or a tuple of tensors (outputs, then gradients).
        ours: the same by back end, such as {"eager": ..., "cpu": ...}.
        bytes: that must move at least once: every input read, every output written.
        flops: of the task, counted as matrix products count them (2 m n k); 0 where bytes alone bound it.
        tolerance: relative root mean square difference from the peer up to which they agree.
    """

    peer: Callable[[], Any]
    ours: Mapping[str, Callable[[], Any]]
    bytes: float
    flops: float = 0.0
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Line:
    """One figure: the peer's time over ours, as the median of measurements in turn after a parity check.

    Attributes:
        operation: its name.
        name: what is measured, with its shape: "forward, B 4, D 512, L 1000, N 16".
        peer: what it is compared with, in one phrase.
        goals: the least ratio by back end; a back end without a goal is measured all the same.
        contest: makes the contestants from a seeded generator.
    """

    operation: str
    name: str
    peer: str
    goals: Mapping[str, float]
    contest: Callable[[torch.Generator], Contest]


@dataclass(frozen=True)
class Sweep:
    """Time and memory over a size, for the picture and the fitted exponents.

    Attributes:
        operation: its name.
        name: what is fixed: "forward, D 64, 8 heads".
        axis: what grows: "rows".
        peer: the peer's name in one phrase.
        sizes: ascending, three or more.
        contest: makes the contestants of a size.
    """

    operation: str
    name: str
    axis: str
    peer: str
    sizes: tuple[int, ...]
    contest: Callable[[int, torch.Generator], Contest] = field(repr=False)
