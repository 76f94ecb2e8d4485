"""Linear probes: how well position and velocity can be read from features by ridge regression, without leaks.

Shapes: T frames of one series, F features, S states, n rows for fitting, m for measuring, L penalties.

A series is one episode or a part of the time of one. What is fitted, scaled or chosen (means, deviations, the penalty)
is seen in the training part only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.evaluation.bootstrap import Interval
from pipelines.world.metrics import to_unit
from pipelines.world.resampling import REPLICATES, resample
from pipelines.world.ridge import PENALTIES, fit_ridge

__all__ = ["Probe", "Series", "compare", "pixels", "pooled", "probe", "split"]

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """Features and states of consecutive frames.

    Args:
        name: of the episode.
        features: (T, F), floating; frame by frame.
        states: (T, S), what is true in each frame.

    Raises:
        InputError: lengths that differ, values that are not finite.

    Example:
        >>> Series("a", np.zeros((4, 2)), np.zeros((4, 1))).features.shape
        (4, 2)
    """

    name: str
    features: NDArray[Any]
    states: Floats

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        f, s = np.asarray(self.features), np.asarray(self.states, np.float64)
        if f.ndim != 2 or s.ndim != 2 or len(f) != len(s) or not f.size or not s.size:
            found = f"features {f.shape}, states {s.shape}"
            raise InputError("not a series", where=f"series {self.name!r}", found=found, expected="(T, F) and (T, S)")
        for what, values in (("features", f), ("states", s)):
            if not np.issubdtype(values.dtype, np.floating) or not np.isfinite(values).all():
                raise InputError(f"{what} are not finite numbers", where=f"series {self.name!r}", found=values.dtype)
        object.__setattr__(self, "features", f)
        object.__setattr__(self, "states", s)


def pooled(features: ArrayLike, grid: int | None = 1) -> NDArray[np.float32]:
    """Maps of features as rows: means over the cells of a grid, or every place.

    Args:
        features: (T, d, h, w).
        grid: cells a side, 1 for the mean over all places; None keeps every place.

    Returns:
        (T, d grid^2) or (T, d h w).

    Raises:
        InputError: another shape, or a grid that is finer than the map.

    Complexity: O(T d h w).

    Example:
        >>> maps = np.arange(16.0).reshape(1, 1, 4, 4)
        >>> pooled(maps).tolist(), pooled(maps, 2).tolist(), pooled(maps, None).shape
        ([[7.5]], [[2.5, 4.5, 10.5, 12.5]], (1, 16))
    """
    maps = np.asarray(features)
    if maps.ndim != 4 or not maps.size:
        raise InputError("not maps of features", where="features", found=maps.shape, expected="(T, d, h, w)")
    if grid is None:
        return maps.reshape(len(maps), -1).astype(np.float32)
    height, width = maps.shape[2:]
    if not 1 <= grid <= min(height, width):
        raise InputError("no such grid", where="grid", found=grid, expected=f"1 to {min(height, width)}, or None")
    means = maps.astype(np.float64)
    for axis, side in ((2, height), (3, width)):
        edges = np.linspace(0, side, grid + 1).round().astype(np.int64)
        sums = np.add.reduceat(means, edges[:-1], axis=axis)
        means = sums / np.diff(edges).reshape((-1, 1) if axis == 2 else (-1,))
    return means.reshape(len(maps), -1).astype(np.float32)


def pixels(frames: ArrayLike) -> NDArray[np.float32]:
    """Raw frames as rows of features, what any learned features must beat.

    Args:
        frames: (T, H, W, C) or (T, C, H, W), uint8 or floats on [0, 1].

    Returns:
        (T, H W C).

    Raises:
        InputError: another shape or scale.

    Complexity: O(size).

    Example:
        >>> pixels(np.full((2, 4, 4, 1), 255, np.uint8)).max()
        np.float32(1.0)
    """
    values = np.asarray(frames)
    if values.ndim != 4 or not values.size:
        raise InputError("not frames", where="frames", found=values.shape, expected="(T, H, W, C)")
    return to_unit(values.reshape(len(values), -1), "frames", bounded=True).astype(np.float32, copy=False)


def split(series: Sequence[Series], share: float = 0.3, *, gap: int = 0) -> tuple[list[Series], list[Series]]:
    """Training and test part: the last episodes where there are two or more, else the last part of the time.

    Args:
        series: in the order given; the last share of them (at least one, not all) is the test part.
        share: of episodes, or of frames.
        gap: frames that are left out between the parts of one episode, so that no feature has seen both.

    Raises:
        InputError: no series, a share outside (0, 1), too few frames.

    Complexity: O(series); nothing is copied.

    Example:
        >>> train, test = split([Series("a", np.zeros((10, 2)), np.zeros((10, 1)))], 0.3, gap=2)
        >>> len(train[0].states), len(test[0].states)
        (5, 3)
    """
    if not series or not 0 < share < 1 or gap < 0:
        found = f"{len(series)} series, share {share}, gap {gap}"
        raise InputError("no such split", where="split", found=found, expected="a series, 0 < share < 1, gap >= 0")
    if len(series) > 1:
        kept = min(len(series) - 1, max(1, round(share * len(series))))
        return list(series[:-kept]), list(series[-kept:])
    (only,) = series
    total = len(only.states)
    start = total - max(2, round(share * total))
    if start - gap < 2:
        found = f"{total} frames, {gap} of them between the parts"
        raise InputError("too few frames for a probe", where=f"series {only.name!r}", found=found)
    cut = (slice(0, start - gap), slice(start, total))
    parts = [[Series(only.name, only.features[one], only.states[one])] for one in cut]
    return parts[0], parts[1]


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a probe read from features.

    Args:
        r2: state -> share of its variance in the test part that was read, with an interval; 1 is all, 0 the mean of
            the test part, negative worse than that. A state that is constant there has none.
        penalty: state -> the penalty that was chosen on the training part.
        train_rows, test_rows: frames, or pairs of frames for velocities.
        features: F, of a row.
        notes: what could not be measured, and how the intervals came about.

    Example:
        >>> Probe({}, {}, 4, 2, 1, ()).train_rows
        4
    """

    r2: dict[str, Interval]
    penalty: dict[str, float]
    train_rows: int
    test_rows: int
    features: int
    notes: tuple[str, ...]

    @property
    def mean_r2(self) -> float:
        """Mean over the states that have one; NaN without any."""
        return math.fsum(one.value for one in self.r2.values()) / len(self.r2) if self.r2 else math.nan


def probe(
    train: Sequence[Series],
    test: Sequence[Series],
    names: Sequence[str],
    *,
    target: Literal["position", "velocity"] = "position",
    penalties: Sequence[float] = PENALTIES,
    gap: int = 0,
    block: int = 16,
    level: float = 0.95,
    seed: int = 0,
) -> Probe:
    """Fit on the training part, choose each state's penalty there, and measure R2 on the test part.

    A position is the state of a frame, read from its features. A velocity is the difference of the states of two
    consecutive frames (per frame), read from the features of both, side by side. The penalty is the one with the
    smallest squared error on the last 30 % of the training part (`split` with the same gap) when fitted on the rest;
    then all of the training part is fitted.

    Args:
        train, test: parts without a common frame, as `split` gives them.
        names: of the S states.
        target: what is read.
        penalties: as `fit_ridge`.
        gap: frames between the parts within the training part.
        block: rows in a block of the bootstrap where the test part is one episode.
        level: of the intervals.
        seed: of the bootstrap.

    Raises:
        InputError: parts that do not fit each other, too few frames; see `fit_ridge` for the rest.

    Complexity: two of `fit_ridge`.

    Source: Alain and Bengio 2016 (arXiv 1610.01644), section 3, with a penalty.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((200, 3))
        >>> train, test = split([Series("a", x, x @ [[1.0], [2.0], [0.0]])])
        >>> found = probe(train, test, ["x"])
        >>> found.r2["x"].value > 0.999, found.train_rows, found.test_rows
        (True, 140, 60)
    """
    _check_parts(train, test, names)
    if not 0 < level < 1 or block < 1:
        raise InputError(
            "no such interval", found=f"level {level}, block {block}", expected="0 < level < 1, block >= 1"
        )
    fitted, chosen = (_rows(part, target) for part in split(train, 0.3, gap=gap))
    trial = fit_ridge(*_joined(fitted), penalties)
    held_features, held_targets = _joined(chosen)
    errors = np.square(trial.predict(held_features) - held_targets).sum(axis=1)  # (L, S)
    best = errors.argmin(axis=0)
    features, targets = _joined(_rows(train, target))
    final = fit_ridge(features, targets, penalties)
    tests = _rows(test, target)
    groups = []
    for rows, states in tests:
        said = np.moveaxis(final.predict(rows)[best, :, np.arange(len(names))], 0, -1)
        # Shifted by the training mean, which changes no variance but keeps the sums of squares exact.
        moved = states - final.middle
        groups.append(np.stack([np.square(states - said), moved, np.square(moved)], axis=1))
    r2, notes = _r2(groups, names, block, level, seed)
    ends = sorted({name for name, place in zip(names, best, strict=True) if place in (0, len(final.penalties) - 1)})
    if ends and len(final.penalties) > 1:
        notes.append(f"{', '.join(ends)}: the penalty chosen is an end of those tried")
    constant = [name for name, spread in zip(names, targets.std(axis=0), strict=True) if spread <= 1e-12]
    if constant:
        notes.append(f"{', '.join(constant)}: constant in the training part")
    penalty = {name: float(final.penalties[place]) for name, place in zip(names, best, strict=True)}
    return Probe(r2, penalty, len(targets), sum(len(y) for _, y in tests), features.shape[1], tuple(notes))


def compare(
    sets: Mapping[str, Sequence[Series]], names: Sequence[str], *, share: float = 0.3, gap: int = 0, **options: Any
) -> dict[str, dict[str, Probe]]:
    """Probe several kinds of features of the same frames, by one split: a model's, raw pixels, an untrained network's.

    Args:
        sets: kind -> series; the same names, lengths and states in every kind.
        names: of the states.
        share, gap: as `split`.
        options: others of `probe`.

    Returns:
        kind -> "position" and "velocity" -> probe.

    Raises:
        InputError: kinds of other frames; see `probe` for the rest.

    Complexity: two probes a kind.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((100, 2))
        >>> found = compare({"model": [Series("a", x, x)], "pixels": [Series("a", x[:, :1], x)]}, ["x", "y"])
        >>> found["pixels"]["position"].r2["x"].value > 0.99 > found["pixels"]["position"].r2["y"].value
        True
    """
    first = next(iter(sets.values()), [])
    for kind, series in sets.items():
        same = len(series) == len(first) and all(
            one.name == other.name and np.array_equal(one.states, other.states)
            for one, other in zip(series, first, strict=True)
        )
        if not same:
            raise InputError("features of other frames", where=kind, expected=f"those of {next(iter(sets))}")
    out: dict[str, dict[str, Probe]] = {}
    for kind, series in sets.items():
        train, test = split(series, share, gap=gap)
        out[kind] = {
            "position": probe(train, test, names, target="position", gap=gap, **options),
            "velocity": probe(train, test, names, target="velocity", gap=gap, **options),
        }
    return out


def _check_parts(train: Sequence[Series], test: Sequence[Series], names: Sequence[str]) -> None:
    if not train or not test:
        found = f"{len(train)} and {len(test)} series"
        raise InputError("a part is empty", where="probe", found=found, expected="one or more each")
    sizes = {(one.features.shape[1], one.states.shape[1]) for one in (*train, *test)}
    if len(sizes) > 1 or next(iter(sizes))[1] != len(names):
        found = f"(features, states) {sorted(sizes)}, {len(names)} names"
        raise InputError("series that do not fit each other", where="probe", found=found)


def _rows(series: Sequence[Series], target: str) -> list[tuple[NDArray[Any], Floats]]:
    """Features and targets of each series; a velocity never reaches over the end of one."""
    if target not in ("position", "velocity"):
        raise InputError("no such target", where="target", found=target, expected="position or velocity")
    if target == "position":
        return [(one.features, one.states) for one in series]
    long = [one for one in series if len(one.states) > 1]
    if not long:
        raise InputError("one frame has no velocity", where="probe", expected="two frames or more")
    return [(np.hstack([one.features[:-1], one.features[1:]]), np.diff(one.states, axis=0)) for one in long]


def _joined(rows: Sequence[tuple[NDArray[Any], Floats]]) -> tuple[NDArray[Any], Floats]:
    if len(rows) == 1:
        return rows[0]
    return np.concatenate([x for x, _ in rows]), np.concatenate([y for _, y in rows])


def _r2(
    groups: list[Floats], names: Sequence[str], block: int, level: float, seed: int
) -> tuple[dict[str, Interval], list[str]]:
    """R2 with intervals from (m, 3, S) squared errors, values and squared values of each episode."""
    flat = [group.reshape(len(group), -1) for group in groups]
    count = sum(len(group) for group in flat)
    total = np.sum([group.sum(axis=0) for group in flat], axis=0).reshape(1, 3, -1)
    draws = resample(flat, block=block, replicates=REPLICATES, seed=seed)
    values = _share_read(total, np.array([float(count)]))[0]
    spread = None if draws is None else _share_read(draws.sums.reshape(-1, *total.shape[1:]), draws.counts)
    r2: dict[str, Interval] = {}
    for place, name in enumerate(names):
        if math.isnan(values[place]):
            continue
        low = high = float(values[place])
        if spread is not None and not np.isnan(spread[:, place]).all():
            low, high = np.nanquantile(spread[:, place], [(1 - level) / 2, (1 + level) / 2])
        length = 1 if draws is None else draws.block
        r2[name] = Interval(float(values[place]), float(low), float(high), level, length, count)
    notes = ["one row: no intervals" if draws is None else draws.sentence("rows")]
    lacking = [name for name in names if name not in r2]
    if lacking:
        notes.append(f"{', '.join(lacking)}: constant in the test part, no R2")
    return r2, notes


def _share_read(sums: Floats, counts: Floats) -> Floats:
    """(R, 3, S) sums -> (R, S): 1 - squared errors / squared deviations from the mean of the rows that were drawn."""
    spread = sums[:, 2] - np.square(sums[:, 1]) / counts[:, None]
    varied = spread > 1e-12 * np.maximum(sums[:, 2], np.finfo(np.float64).tiny)
    return 1.0 - np.divide(sums[:, 0], spread, out=np.full_like(spread, np.nan), where=varied)
