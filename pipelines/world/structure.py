"""Whether features hold something: effective rank, deviation, and structure in space.

Shapes: N maps of d channels on h x w places, features (N, d, h, w).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

__all__ = ["Structure", "effective_rank", "feature_std", "morans_i", "place_share", "spatial_share", "structure"]

Floats = NDArray[np.float64]


def effective_rank(features: ArrayLike, *, centre: bool = True) -> float:
    """exp of the entropy of the normalised singular values: how many directions the features use.

    Args:
        features: (rows, d), or (N, d, h, w), of which every place of every map is a row.
        centre: whether the mean of each channel is taken away first (a constant then spans no direction).

    Returns:
        1 to min(rows, d), never more than the number of channels; 0 where nothing varies. Singular values that
        rounding alone would give count as 0.

    Raises:
        InputError: another shape, values that are not finite.

    Complexity: O(rows d min(rows, d)).

    Source: Roy and Vetterli 2007, definition 1: erank(A) = exp(-sum p_k log p_k), p = s / sum(s).

    Example:
        >>> round(effective_rank(np.eye(4), centre=False), 6), effective_rank(np.ones((9, 4)))
        (4.0, 0.0)
    """
    rows = _rows(features)
    size = float(np.linalg.norm(rows))
    if centre:
        rows = rows - rows.mean(axis=0)
    if rows.shape[0] > rows.shape[1]:
        rows = np.asarray(np.linalg.qr(rows, mode="r"))
    values = np.linalg.svd(rows, compute_uv=False)
    rounding = np.finfo(np.float64).eps * max(np.asarray(features).size // rows.shape[1], rows.shape[1])
    if not values[0] > rounding * size:
        return 0.0
    kept = values[values > rounding * values[0]]
    shares = kept / kept.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def feature_std(features: ArrayLike) -> float:
    """Deviation of each channel over all maps and places, the mean over channels.

    Args, errors as `effective_rank`.

    Complexity: O(size).

    Source: the quantity that FluidWorld's variance loss holds up (arXiv 2603.21315), with population deviations.

    Example:
        >>> feature_std([[0.0, 1.0], [2.0, 1.0]])
        0.5
    """
    return float(_rows(features).std(axis=0).mean())


def spatial_share(features: ArrayLike) -> float:
    """Share of the variance of features that lies between the places of one map.

    The total is the variance of a channel over all maps and places, summed over channels; the part is the variance
    over the places of each map, the mean over maps. 0: every map is flat; 1: all maps have one and the same mean.

    Args:
        features: (N, d, h, w).

    Returns:
        In [0, 1]; NaN where nothing varies.

    Raises:
        InputError: another shape, values that are not finite.

    Complexity: O(size).

    Source: the correlation ratio of the analysis of variance (Fisher 1925, chapter 7), maps as groups.

    Example:
        >>> maps = np.zeros((2, 1, 1, 2)); maps[:, 0, 0, 1] = 1
        >>> spatial_share(maps)
        1.0
    """
    maps = _maps(features)
    return _share(maps.var(axis=(2, 3)).mean(axis=0).sum(), maps)


def place_share(features: ArrayLike) -> float:
    """Share of the variance of features that their place alone explains: what stands still, such as a background.

    The part is the variance, over places, of the mean map; total, arguments, errors as `spatial_share`, which it never
    exceeds.

    Example:
        >>> maps = np.zeros((2, 1, 1, 2)); maps[0, 0, 0, 1] = maps[1, 0, 0, 0] = 1
        >>> spatial_share(maps), place_share(maps)
        (1.0, 0.0)
    """
    maps = _maps(features)
    return _share(maps.mean(axis=0).var(axis=(1, 2)).sum(), maps)


def morans_i(features: ArrayLike) -> float:
    """Moran's I of each map and channel with the four neighbours of a place, the mean over those that vary.

    I = (n / W) sum_ij w_ij z_i z_j / sum_i z_i^2, with z the difference from the mean of the map, w = 1 for places that
    share an edge and W the sum of w. Near 1: smooth; -1 / (n - 1) on average where places are independent; negative:
    a chessboard.

    Args:
        features: (N, d, h, w) of two places or more.

    Returns:
        At most about 1; NaN where no map varies.

    Raises:
        InputError: another shape, values that are not finite, one place only.

    Complexity: O(size).

    Source: Moran 1950; the weights are those of Cliff and Ord 1981, "rook's case".

    Example:
        >>> morans_i(np.indices((4, 4)).sum(0).reshape(1, 1, 4, 4) % 2)
        -1.0
    """
    maps = _maps(features)
    height, width = maps.shape[2:]
    links = height * (width - 1) + (height - 1) * width
    if not links:
        raise InputError("one place has no neighbours", where="features", found=maps.shape)
    gaps = maps - maps.mean(axis=(2, 3), keepdims=True)
    squares = (gaps * gaps).sum(axis=(2, 3))
    products = (gaps[..., 1:] * gaps[..., :-1]).sum(axis=(2, 3)) + (gaps[..., 1:, :] * gaps[..., :-1, :]).sum(
        axis=(2, 3)
    )
    varied = squares > (np.finfo(np.float64).eps * np.abs(maps).max(axis=(2, 3))) ** 2 * height * width
    if not varied.any():
        return math.nan
    return float((height * width / links * products[varied] / squares[varied]).mean())


@dataclasses.dataclass(frozen=True)
class Structure:
    """The scores of one stack of features; what does not exist is NaN.

    Args:
        effective_rank: see the function of that name; `channels` is its bound.
        feature_std, spatial_share, place_share, morans_i: see the functions.
        spatial_std: deviation over the places of a map, the mean over channels and maps.
        channels: d.
        maps: N.

    Example:
        >>> structure(np.random.default_rng(0).standard_normal((2, 3, 8, 8))).channels
        3
    """

    effective_rank: float
    feature_std: float
    spatial_std: float
    spatial_share: float
    place_share: float
    morans_i: float
    channels: int
    maps: int


def structure(features: ArrayLike) -> Structure:
    """All scores at once.

    Args:
        features: (N, d, h, w).

    Raises:
        InputError: another shape, values that are not finite.

    Complexity: O(N h w d min(N h w, d)).

    Example:
        >>> round(structure(np.random.default_rng(0).standard_normal((4, 3, 8, 8))).feature_std, 1)
        1.0
    """
    maps = _maps(features)
    return Structure(
        effective_rank(maps),
        feature_std(maps),
        float(maps.std(axis=(2, 3)).mean()),
        spatial_share(maps),
        place_share(maps),
        morans_i(maps) if maps[0, 0].size > 1 else math.nan,
        maps.shape[1],
        len(maps),
    )


def _maps(features: ArrayLike) -> Floats:
    maps = np.asarray(features)
    if maps.ndim != 4 or not maps.size:
        raise InputError("not maps of features", where="features", found=maps.shape, expected="(N, d, h, w)")
    return _finite(maps)


def _rows(features: ArrayLike) -> Floats:
    values = np.asarray(features)
    if values.ndim == 4:
        return np.moveaxis(_maps(values), 1, -1).reshape(-1, values.shape[1])
    if values.ndim != 2 or not values.size:
        raise InputError("not features", where="features", found=values.shape, expected="(rows, d) or (N, d, h, w)")
    return _finite(values)


def _finite(values: np.ndarray) -> Floats:
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        found = f"{int((~np.isfinite(numbers)).sum()):,} of {numbers.size:,}"
        raise InputError("features hold values that are not finite", where="features", found=found)
    return numbers


def _share(part: float, maps: Floats) -> float:
    total = float(maps.var(axis=(0, 2, 3)).sum())
    nothing = (np.finfo(np.float64).eps * float(np.abs(maps).max())) ** 2 * maps.size
    return min(1.0, float(part) / total) if total > nothing else math.nan
