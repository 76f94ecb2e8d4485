"""Ridge regression in closed form, for few or many features, and for several penalties from one decomposition.

Shapes: n rows, F features, S targets, L penalties.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

__all__ = ["PENALTIES", "Ridge", "fit_ridge"]

Floats = NDArray[np.float64]

#: Penalties that are tried, in units of the mean eigenvalue of the features' Gram matrix.
PENALTIES: tuple[float, ...] = tuple(10.0**power for power in range(-7, 4))
_MOST = 6000  # rows or features of the matrix that is decomposed: 36 M numbers, about a minute
_COLUMNS = 4096  # features that stand in float64 at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge regression for L penalties.

    Args:
        mean, scale: (F,) of the training features; a constant feature has the scale 1.
        middle: (S,) mean of the training targets, which is not penalised.
        weights: (L, F, S) on standardised features.
        penalties: (L,) lambda.

    Example:
        >>> x = np.array([[0.0], [1.0], [2.0]])
        >>> fit_ridge(x, 3 * x + 1, [0.0]).predict([[5.0]]).round(6).tolist()
        [[[16.0]]]
    """

    mean: Floats
    scale: Floats
    middle: Floats
    weights: Floats
    penalties: Floats

    def predict(self, features: ArrayLike) -> Floats:
        """(m, F) -> (L, m, S), a few thousand features in float64 at a time."""
        rows = np.asarray(features)
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise InputError("features of another size", where="features", found=rows.shape,
                             expected=("m", len(self.mean)))  # fmt: skip
        out = np.zeros((len(self.weights), len(rows), self.weights.shape[2]))
        for part in _parts(rows.shape[1]):
            out += _standard(rows, self.mean, self.scale, part) @ self.weights[:, part]
        return out + self.middle


def fit_ridge(features: ArrayLike, targets: ArrayLike, penalties: Sequence[float] = PENALTIES) -> Ridge:
    """Ridge regression in closed form for several penalties from one eigendecomposition.

    With Z the standardised features, y the centred targets and k the penalty times the mean eigenvalue trace / rank:
    w = (Z' Z + k I)^-1 Z' y, or Z' (Z Z' + k I)^-1 y where there are more features than rows. Directions whose
    eigenvalue is rounding are left out, so that a penalty of 0 gives the shortest solution.

    Args:
        features: (n, F), floating.
        targets: (n, S).
        penalties: in units of the mean eigenvalue, 0 or more.

    Raises:
        InputError: shapes that do not fit, fewer than 2 rows, a negative penalty, more than 6,000 of rows and
            features alike.

    Complexity: O(n F min(n, F) + min(n, F)^3) time, O(n F) memory.

    Source: Hoerl and Kennard 1970, equation 2.1; the dual form by the identity of Woodbury.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> wide, y = rng.standard_normal((5, 20)), rng.standard_normal((5, 1))
        >>> bool(np.allclose(fit_ridge(wide, y, [0.0]).predict(wide)[0], y))
        True
    """
    x, y, grid = np.asarray(features), np.asarray(targets, np.float64), np.asarray(penalties, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2 or not x.shape[1]:
        raise InputError("nothing to fit", found=f"{x.shape} and {y.shape}", expected="(n, F) and (n, S), n >= 2")
    if grid.ndim != 1 or not len(grid) or not (grid >= 0).all():
        raise InputError("not penalties", where="penalties", found=grid.tolist(), expected="numbers of 0 or more")
    if min(x.shape) > _MOST:
        cure = "pool the features, or give fewer frames"
        raise InputError("a probe too large for its closed form", found=x.shape, expected=f"{_MOST:,}", cure=cure)
    mean = x.mean(axis=0, dtype=np.float64)
    scale = np.concatenate([x[:, part].std(axis=0, dtype=np.float64) for part in _parts(x.shape[1])])
    scale[scale <= 1e-7 * np.maximum(1.0, np.abs(mean))] = 1.0  # nothing but rounding of float32
    middle = y.mean(axis=0)
    short = x.shape[1] <= len(x)
    size = min(x.shape)
    gram, right = np.zeros((size, size)), np.zeros((size, y.shape[1]))
    if short:
        z = _standard(x, mean, scale, slice(None))
        gram, right = z.T @ z, z.T @ (y - middle)
    else:
        for part in _parts(x.shape[1]):
            z = _standard(x, mean, scale, part)
            gram += z @ z.T
        right = y - middle
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(values[-1], 0.0) * np.finfo(np.float64).eps * max(x.shape)
    values, vectors = values[kept], vectors[:, kept]
    unit = float(values.mean()) if len(values) else 1.0
    turned = vectors.T @ right
    inner = np.stack([vectors @ (turned / (values + k * unit)[:, None]) for k in grid])
    if short:
        weights = inner
    else:
        weights = np.empty((len(grid), x.shape[1], y.shape[1]))
        for part in _parts(x.shape[1]):
            weights[:, part] = _standard(x, mean, scale, part).T @ inner
    return Ridge(mean, scale, middle, weights, grid)


def _parts(features: int) -> list[slice]:
    return [slice(start, min(start + _COLUMNS, features)) for start in range(0, features, _COLUMNS)]


def _standard(rows: NDArray[Any], mean: Floats, scale: Floats, part: slice) -> Floats:
    return (rows[:, part].astype(np.float64) - mean[part]) / scale[part]
