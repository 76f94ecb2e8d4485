"""Whitened principal components: what variables say together, beside what each says alone.

VSFormer's tokens are of one variable each. Where classes differ in how variables lie to each other (a thumb above or
below the hand), no single variable tells; a component of small variance does, once it is scaled to unit variance. The
components are found in the training series alone, without their classes. This step is ours, not the paper's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Components"]

_LEAST_SHARE = 1e-4  # of the largest variance: below it a component is rounding
_LEAST_SCALE = 1e-3  # of the largest variance: no component is blown up further
_LEAST_COMPLETE = 0.5  # of the steps have all variables, or there are no components


@dataclasses.dataclass(frozen=True)
class Components:
    """K linear combinations of V standardised variables.

    Args:
        matrix: (K, V).
        centre: (V,) what is taken off first.
        notes: what was found while fitting, counted.

    Example:
        >>> line = np.random.default_rng(0).normal(size=500)
        >>> both = np.stack([line, line + 0.1 * np.random.default_rng(1).normal(size=500)])
        >>> components = Components.fit([both])
        >>> components.extend(both).shape, components.extend(both)[2:].std(axis=1).round(2).tolist()
        ((4, 500), [1.0, 1.0])
    """

    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.matrix)

    @classmethod
    def fit(cls, series: Sequence[NDArray[np.floating]], most: int = 64) -> Components:
        """Components of all steps at which every variable was measured, those of the largest variance first.

        Args:
            series: N standardised arrays (V, T), NaN where nothing was measured.
            most: components at most. There are none of a single variable, nor where fewer than half of the steps are
                complete.

        O(V^2 values + V^3).
        """
        variables = series[0].shape[0]
        none = cls(np.zeros((0, variables)), np.zeros(variables))
        if variables < 2 or most < 1:
            return none
        steps, complete = 0, 0
        total, products = np.zeros(variables), np.zeros((variables, variables))
        for one in series:
            whole = one[:, ~np.isnan(one).any(axis=0)].astype(np.float64)
            steps, complete = steps + one.shape[1], complete + whole.shape[1]
            total += whole.sum(axis=1)
            products += whole @ whole.T
        if complete < max(2, _LEAST_COMPLETE * steps):
            note = f"no components: {complete:,} of {steps:,} training steps have all variables"
            return dataclasses.replace(none, notes=(note,))
        centre = total / complete
        variance, directions = np.linalg.eigh(products / complete - np.outer(centre, centre))
        order = np.argsort(-variance)[:most]
        order = order[variance[order] > _LEAST_SHARE * variance.max()]
        # The sign of a direction is arbitrary: its largest part is made positive, whatever the machine's library says.
        chosen = directions[:, order]
        chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(len(order))])
        scale = np.sqrt(np.maximum(variance[order], _LEAST_SCALE * variance.max()))
        note = f"{len(order)} whitened principal components of the {variables} variables are added to them"
        return cls((chosen / scale).T, centre, (note,))

    def extend(self, one: NDArray[np.floating]) -> NDArray[np.float32]:
        """(V, T) -> (V + K, T): the variables, then the components; NaN where any variable was not measured."""
        if not len(self):
            return one.astype(np.float32)
        added = self.matrix @ (one.astype(np.float64) - self.centre[:, None])
        return np.concatenate([one, added]).astype(np.float32)

    def names(self) -> tuple[str, ...]:
        """Names of the components."""
        return tuple(f"component {number + 1}" for number in range(len(self)))
