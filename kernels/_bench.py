"""What an operation says about its own speed: the lines to be measured, their named peers, and sweeps over length.

A folder ``kernels/<op>`` has a module ``bench`` with ``LINES`` and ``SWEEPS``; ``pipelines bench kernels`` runs all of
them (``_measure`` does the measuring).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from core_attention.kernels._dispatch import ops

__all__ = ["Contest", "Line", "Sweep", "all_contests"]


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


def all_contests(only: Sequence[str] = ()) -> tuple[list[Line], list[Sweep], list[str]]:
    """Collect the lines and sweeps of all operations.

    Args:
        only: names of operations; empty means all.

    Returns:
        lines, sweeps, and the names of operations that have neither.

    Example:
        >>> all_contests(["delay_aggregate"])[2]
        []
    """
    chosen = [operation for name, operation in ops().items() if not only or name in only]
    lines: list[Line] = []
    sweeps: list[Sweep] = []
    for package in dict.fromkeys(operation.package for operation in chosen):
        if importlib.util.find_spec(f"{package}.bench") is not None:
            module = importlib.import_module(f"{package}.bench")
            lines += module.LINES
            sweeps += module.SWEEPS
    names = {operation.name for operation in chosen}
    lines = [line for line in lines if line.operation in names]
    sweeps = [sweep for sweep in sweeps if sweep.operation in names]
    return lines, sweeps, sorted(names - {contest.operation for contest in (*lines, *sweeps)})
