"""Averages of maps over windows, by class, without keeping the windows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.fmri.explain import Attribution

__all__ = ["Averages", "MapSums"]


@dataclasses.dataclass(frozen=True, eq=False)
class Averages:
    """Two maps of one class over its windows.

    Args:
        label: the class, or the name of the target.
        mean: (X, Y, Z) signed: its sum is the mean difference of the outputs, up to the gap.
        absolute: (X, Y, Z) mean of sizes: voxels that tell now for and now against do not cancel.
        windows: how many.
        difference: mean over the windows.
        gap: the largest of a window, in size.
    """

    label: str
    mean: NDArray[np.float64]
    absolute: NDArray[np.float64]
    windows: int
    difference: float
    gap: float


@dataclasses.dataclass
class _Sum:
    signed: NDArray[np.float64]
    sizes: NDArray[np.float64]
    windows: int = 0
    difference: float = 0.0
    gap: float = 0.0


class MapSums:
    """Running sums of attributions by class: a window's frames are added up, windows are averaged.

    Args:
        grid: (X, Y, Z).

    Complexity: two (X, Y, Z) float64 arrays a class, whatever the number of windows.

    Example:
        >>> sums = MapSums((1, 1, 2))
        >>> sums.add("face", np.array([[[[1.0, 1.0], [-3.0, 1.0]]]]), difference=0.0)
        >>> found = sums.averages("face")
        >>> found.mean.tolist(), found.absolute.tolist(), found.windows
        ([[[2.0, -2.0]]], [[[2.0, 4.0]]], 1)
    """

    def __init__(self, grid: tuple[int, int, int]) -> None:
        self.grid = tuple(grid)
        self._sums: dict[str, _Sum] = {}

    def add(self, label: str, values: ArrayLike | Tensor, *, difference: float = math.nan, gap: float = 0.0) -> None:
        """Add one window: values (X, Y, Z, T), the difference of its outputs and its gap.

        Raises:
            InputError: another grid, or values that are not finite.
        """
        array: Any = values
        window = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array, np.float64)
        if window.ndim != 4 or window.shape[:3] != self.grid:
            raise InputError("a map has another grid", where=label, found=window.shape, expected=(*self.grid, "T"))
        if not np.isfinite(window).all():
            raise InputError("a map has values that are not finite", where=label)
        held = self._sums.setdefault(label, _Sum(np.zeros(self.grid), np.zeros(self.grid)))
        held.signed += window.sum(3)
        held.sizes += np.abs(window).sum(3)
        held.windows += 1
        held.difference += difference
        held.gap = max(held.gap, abs(gap))

    def add_all(self, labels: Sequence[str], found: Attribution) -> None:
        """Add the B windows of an attribution, each to its own class.

        Raises:
            InputError: another number of labels than of windows, or what :meth:`add` refuses.
        """
        if len(labels) != len(found.values):
            raise InputError("a label for each window", found=len(labels), expected=len(found.values))
        for label, values, apart, gap in zip(labels, found.values, found.difference, found.gap, strict=True):
            self.add(label, values, difference=float(apart), gap=float(gap))

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that windows were added to, sorted."""
        return tuple(sorted(self._sums))

    def averages(self, label: str) -> Averages:
        """The maps of one class.

        Raises:
            InputError: no window of it.
        """
        held = self._sums.get(label)
        if held is None:
            raise InputError("no window was explained for this class", where=label, expected=", ".join(self.labels))
        n = held.windows
        return Averages(label, held.signed / n, held.sizes / n, n, held.difference / n, held.gap)
