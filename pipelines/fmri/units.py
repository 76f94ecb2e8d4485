"""Means of predictions by subject, run or block, and the label that all rows of such a unit share.

Shapes: N predictions, K classes (one column for numbers), U units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

__all__ = ["UnitMeans", "UnitScores", "aggregate", "unit_labels"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class UnitScores(NamedTuple):
    """Mean scores of U units: their names (U,) sorted, the means (U, K), how many predictions each has (U,)."""

    units: NDArray[Any]
    scores: Floats
    sizes: Ints


class UnitMeans:
    """Mean scores by subject, run or block, summed in float64 as predictions arrive: every window counts once.

    The sums are taken in the order of arrival, so that the sizes of the batches do not change one bit of the result.

    Memory is O(U K), an update costs O(B K). Source: SwiFT (arXiv 2307.05916): the logits of all windows of a subject
    are averaged.

    Example:
        >>> means = UnitMeans()
        >>> means.update([[1.0, 0.0], [3.0, 0.0]], ["sub-01", "sub-01"])
        >>> means.update([[0.0, 5.0]], ["sub-02"])
        >>> means.result().scores.tolist()
        [[2.0, 0.0], [0.0, 5.0]]
    """

    def __init__(self) -> None:
        self._sums: dict[Any, Floats] = {}
        self._count: dict[Any, int] = {}
        self._columns = 0

    def update(self, scores: ArrayLike, unit: ArrayLike) -> None:
        """Add B predictions: scores (B, K) or numbers (B,), and the unit (B,) of each, an integer or a text.

        Raises:
            InputError: shapes that do not fit one another or what came before, or NaN.
        """
        values, units = np.asarray(scores, np.float64), np.asarray(unit)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or units.shape != values.shape[:1] or (self._sums and values.shape[1] != self._columns):
            width = self._columns if self._sums else "K"
            raise InputError(
                "each prediction needs one row of scores and one unit",
                found=f"scores {values.shape}, units {units.shape}",
                expected=f"(B, {width}) and (B,)",
            )
        if np.isnan(values).any():
            raise InputError("scores that are no numbers", where="scores", found=f"{int(np.isnan(values).sum()):,} NaN")
        self._columns = values.shape[1]
        names, place = np.unique(units, return_inverse=True)
        sums = np.zeros((len(names), self._columns))
        for row, name in enumerate(names.tolist()):
            sums[row] = self._sums.get(name, 0.0)
        np.add.at(sums, place, values)  # one after another, unlike a reduction, which sums in pairs
        for name, total, added in zip(names.tolist(), sums, np.bincount(place, minlength=len(names)), strict=True):
            self._sums[name], self._count[name] = total, self._count.get(name, 0) + int(added)

    def result(self) -> UnitScores:
        """Return the means of all units so far, sorted by their names.

        Raises:
            InputError: nothing came.
        """
        if not self._sums:
            raise InputError("no predictions to average", where="UnitMeans", expected="at least one")
        units = sorted(self._sums)
        count = np.array([self._count[one] for one in units], np.int64)
        return UnitScores(np.array(units), np.stack([self._sums[one] for one in units]) / count[:, None], count)


def aggregate(scores: ArrayLike, unit: ArrayLike) -> UnitScores:
    """Return the mean scores by unit: (N, K) or (N,) and the unit (N,) of each row give means (U, K) and counts (U,).

    Raises:
        InputError: what :class:`UnitMeans` refuses.

    Complexity: O(N (K + log N)).

    Example:
        >>> aggregate([[1.0, 0.0], [0.0, 4.0], [3.0, 0.0]], [7, 8, 7]).scores.tolist()
        [[2.0, 0.0], [0.0, 4.0]]
    """
    means = UnitMeans()
    means.update(scores, unit)
    return means.result()


def unit_labels(labels: ArrayLike, unit: ArrayLike) -> NDArray[Any]:
    """Return the label (U,) of each unit, sorted by unit as :func:`aggregate` does; all rows of a unit must agree.

    Raises:
        InputError: lengths that differ, or a unit with two labels.

    Complexity: O(N log N).

    Example:
        >>> unit_labels([3, 5, 3], ["b", "a", "b"]).tolist()
        [5, 3]
    """
    values, units = np.asarray(labels), np.asarray(unit)
    if values.ndim != 1 or values.shape != units.shape:
        raise InputError("each row needs one label and one unit", found=f"{values.shape} and {units.shape}")
    names, first, place = np.unique(units, return_index=True, return_inverse=True)
    wrong = np.flatnonzero(values[first][place] != values)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            "a unit has two labels",
            where=f"unit {names[place[row]]}",
            found=f"{values[first[place[row]]]} and {values[row]}",
            cure="average over units within which the label does not change (blocks instead of runs)",
        )
    return values[first]
