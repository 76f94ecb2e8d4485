"""How variables change from step to step, as further variables of the value tokens.

Mean, deviation and slope of an interval do not tell a slow swing from a fast one of the same width; the deviation of
its changes does, and that of the changes' changes tells smooth from abrupt. This step is ours, not the paper's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Changes"]

_LEAST = 1e-6  # deviation below which a change is no change


@dataclasses.dataclass(frozen=True)
class Changes:
    """Central differences of V variables, and of these again, each over its deviation in training.

    Args:
        scale: (orders, V); zero where a variable never changed, whose changes are then zeros.

    Example:
        >>> wave = np.sin(np.arange(200.0) / 5)[None]
        >>> changes = Changes.fit([wave], orders=2)
        >>> changes.rows(wave).shape, changes.rows(wave).std(axis=1).round(2).tolist()
        ((2, 200), [1.0, 1.0])
    """

    scale: NDArray[np.float64]

    @property
    def orders(self) -> int:
        """How often differences are taken."""
        return len(self.scale)

    @classmethod
    def fit(cls, series: Sequence[NDArray[np.floating]], orders: int = 2) -> Changes:
        """Deviations over all steps of the training series (V, T), NaN where nothing was measured. O(orders values)."""
        variables = series[0].shape[0]
        total, count = np.zeros((orders, variables)), np.zeros((orders, variables))
        for one in series:
            for order, rows in enumerate(_differences(one, orders)):
                known = ~np.isnan(rows)
                total[order] += np.where(known, np.square(rows), 0.0).sum(axis=1)
                count[order] += known.sum(axis=1)
        scale = np.sqrt(total / np.maximum(count, 1))
        return cls(np.where(scale > _LEAST, scale, 0.0))

    def rows(self, one: NDArray[np.floating]) -> NDArray[np.float32]:
        """(V, T) -> (orders V, T); NaN where a neighbour was not measured."""
        if not self.orders:
            return np.zeros((0, one.shape[1]), np.float32)
        found = []
        for rows, scale in zip(_differences(one, self.orders), self.scale, strict=True):
            constant = (scale == 0)[:, None]
            found.append(np.where(constant, 0.0 * rows, rows / np.where(scale > 0, scale, 1.0)[:, None]))
        return np.concatenate(found).astype(np.float32)


def _differences(one: NDArray[np.floating], orders: int) -> list[NDArray[np.float64]]:
    """Half the difference of both neighbours at each step, one-sided at the ends; zeros of one step."""
    rows, found = one.astype(np.float64), []
    for _ in range(orders):
        rows = np.gradient(rows, axis=1) if rows.shape[1] > 1 else np.zeros_like(rows)
        found.append(rows)
    return found
