"""Motifs: the shapes that recur in a class, found by the matrix profile of its training series, and their matches.

VSFormer's shape branch (arXiv 2412.16515): the series of one class and variable are joined end to end, the matrix
profile gives every window its nearest neighbour under z-normalised Euclidean distance, and the windows with the
nearest ones are the class's shapes. Windows that cross a junction or a gap are left out.

Shapes: V variables, w steps of a motif, T steps of a series, k motifs a class and variable, P motifs in all.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError, RunError

__all__ = ["Matches", "Motifs", "find_motifs", "match", "matrix_profile", "motif_length", "pick"]

Floats = NDArray[np.float32]
#: Points of one class and variable that are searched at most: the search takes quadratic time.
MOST_POINTS = 20_000
_MOST_AT_ONCE = 1_000_000  # numbers in the windows of one variable
_FLAT = 1e-6  # a window whose deviation is below has no shape


@dataclasses.dataclass(frozen=True)
class Motifs:
    """P shapes and where they come from.

    Attributes:
        values: (P, w) z-normalised, zeros for a flat one.
        variable, label: (P,) the variable it was found in, the class (by number) that it recurs in.
        origin: (P,) the training series that it was cut from.
        notes: what was left out of the search, counted.
    """

    values: Floats
    variable: NDArray[np.int64]
    label: NDArray[np.int64]
    origin: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def length(self) -> int:
        """Steps of a motif."""
        return self.values.shape[1]

    def take(self, indices: NDArray[np.integer]) -> Motifs:
        """Some of them."""
        fields = {name: getattr(self, name)[indices] for name in ("values", "variable", "label", "origin")}
        return dataclasses.replace(self, **fields)


@dataclasses.dataclass(frozen=True)
class Matches:
    """Where each motif is most alike in each series.

    Attributes:
        values: (N, P, w) the most similar window, z-normalised; zeros where a series has none.
        start: (N, P) its first step; -1 where a series has no window.
        distance: (N, P) z-normalised Euclidean distance; NaN where a series has no window.
        level: (N, P, 2) mean and deviation of that window, which its values do not tell; zeros where there is none.
    """

    values: Floats
    start: NDArray[np.int64]
    distance: Floats
    level: Floats


def motif_length(lengths: Sequence[int] | NDArray[np.integer], asked: int | None = None) -> int:
    """Steps of a motif: as asked, or a seventh of the median length, at least 5 and at most the shortest series.

    Raises:
        ConfigError: fewer than 3 steps, or more than the longest series has.
        InputError: no series has 3 steps.

    Example:
        >>> motif_length([100, 100, 100]), motif_length([7, 12, 29])
        (14, 5)
    """
    longest = int(np.max(lengths))
    if longest < 3:
        raise InputError(
            "the series are too short to have shapes",
            where="training series",
            found=f"at most {longest} {'step' if longest == 1 else 'steps'}",
            expected="3 or more",
            cure="another model: --model transformer or minirocket",
        )
    if asked is not None:
        if not 3 <= asked <= longest:
            raise ConfigError("no such motif length", where="arch.motif", found=asked, expected=f"3 to {longest} steps")
        return asked
    wanted = max(5, round(float(np.median(lengths)) / 7))
    return max(3, min(wanted, int(np.min(lengths))))


def matrix_profile(series: NDArray[np.floating], length: int) -> NDArray[np.float64]:
    """The distance of every window of a series to its nearest other window: (T - w + 1,), infinite where there is none.

    z-normalised Euclidean distance by stumpy; windows that hold NaN have no distance, and windows less than a quarter
    of a motif apart do not count as others. O(T^2) time, O(T) memory.

    Example:
        >>> wave = np.sin(np.arange(60) * 2 * np.pi / 20)
        >>> bool(matrix_profile(wave, 8).max() < 1e-3)
        True
    """
    from pipelines.training.threads import compiled_loops

    stump = _stump()
    with compiled_loops():
        return np.asarray(stump(np.asarray(series, np.float64), m=length)[:, 0], np.float64)


@functools.cache
def _stump() -> Any:
    """stumpy's search, with its compiled code kept on disk: compiling takes half a minute, and once is enough."""
    import contextlib
    import importlib
    import warnings

    import numba
    import stumpy

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-pipelines" / "numba"
    before = numba.config.CACHE_DIR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError, RuntimeError, AttributeError):
            folder.mkdir(parents=True, exist_ok=True)
            numba.config.CACHE_DIR = str(folder)
            for module, name in stumpy.cache.get_njit_funcs():
                getattr(importlib.import_module(f"stumpy.{module}"), name).enable_caching()
    numba.config.CACHE_DIR = before
    return stumpy.stump


def pick(profile: NDArray[np.float64], count: int, length: int) -> list[int]:
    """The starts of the ``count`` windows of smallest distance, each at least half a motif from the others.

    Example:
        >>> pick(np.array([3.0, 0.1, 0.2, 5.0, 0.3, np.inf]), 2, 4)
        [1, 4]
    """
    chosen: list[int] = []
    for start in np.argsort(profile, kind="stable"):
        if not np.isfinite(profile[start]) or len(chosen) == count:
            break
        if all(abs(int(start) - other) >= max(1, length // 2) for other in chosen):
            chosen.append(int(start))
    return chosen


def find_motifs(
    series: Sequence[Floats],
    labels: NDArray[np.integer],
    *,
    length: int,
    count: int = 3,
    seed: int = 0,
    names: Sequence[str] = (),
) -> Motifs:
    """The motifs of every class and variable of the training series.

    Args:
        series: N arrays (V, T), of unequal length, NaN where nothing was measured.
        labels: (N,) classes by number.
        length: steps w of a motif.
        count: motifs k a class and variable; fewer where a class has fewer windows apart from each other.
        seed: of the draw of series where a class has more than 20,000 points.
        names: of the classes, for messages.

    Raises:
        InputError: no series of some class is as long as a motif.

    O(classes V n^2) for n points of a class, at most 20,000.
    """
    labels = np.asarray(labels)
    parts: list[tuple[Floats, int, int, int]] = []
    notes: list[str] = []
    for label in np.unique(labels):
        name = names[label] if names else str(label)
        members = [int(i) for i in np.flatnonzero(labels == label)]
        long_enough = [i for i in members if series[i].shape[1] >= length]
        if not long_enough:
            raise InputError(
                f"no training series of class {name} is as long as a motif",
                where="arch.motif",
                found=f"at most {max(series[i].shape[1] for i in members)} steps",
                expected=f"{length} or more",
                cure="choose a shorter motif, or leave it out and it is chosen by the shortest series",
            )
        if len(long_enough) < len(members):
            few = len(members) - len(long_enough)
            notes.append(
                f"motifs of class {name}: {few} of {len(members)} series are shorter than a motif, not searched"
            )
        drawn = _within(long_enough, [series[i].shape[1] for i in long_enough], seed)
        if len(drawn) < len(long_enough):
            notes.append(f"motifs of class {name}: {len(drawn)} of {len(long_enough)} series searched (20,000 points)")
        for variable in range(series[0].shape[0]):
            parts += [
                (shape, variable, int(label), origin)
                for shape, origin in _of_one([series[i][variable] for i in drawn], drawn, length, count)
            ]
    if not parts:
        raise InputError(
            "no window of any series has a shape",
            where="training series",
            found=f"every window of {length} steps is constant or has a gap",
            cure="a shorter motif (--arch.motif), or another model: --model transformer or minirocket",
        )
    values, variable, label, origin = zip(*parts, strict=True)
    as_numbers = (np.array(column, np.int64) for column in (variable, label, origin))
    return Motifs(np.stack(values), *as_numbers, notes=tuple(notes))


def _within(members: list[int], lengths: list[int], seed: int) -> list[int]:
    """As many of the series, drawn at random, as stay below the limit of points; at least one."""
    if sum(lengths) <= MOST_POINTS:
        return members
    order = np.random.default_rng(seed).permutation(len(members))
    total = np.cumsum(np.array(lengths)[order])
    kept = order[: max(1, int((total <= MOST_POINTS).sum()))]
    return sorted(members[i] for i in kept)


def _of_one(rows: list[Floats], origins: list[int], length: int, count: int) -> list[tuple[Floats, int]]:
    """Motifs of one class and variable with the series that each was cut from."""
    gap = np.full(1, np.nan, np.float32)
    joined = np.concatenate([part for row in rows for part in (row, gap)][:-1])
    owner = np.concatenate([np.full(len(row) + 1, origin) for row, origin in zip(rows, origins, strict=True)])
    windows = sliding_window_view(joined, length)
    shaped = windows.std(-1) > _FLAT * max(1.0, float(np.nanmax(np.abs(joined), initial=0.0)))  # NaN compares as False
    if not shaped.any():
        return []
    profile = matrix_profile(joined, length) if len(joined) >= 2 * length else np.zeros(len(windows))
    profile = np.where(shaped, profile, np.inf)
    # The only window of its kind (one short example) has no neighbour: it is then its class's shape all the same.
    if not np.isfinite(profile).any():
        profile = np.where(shaped, 0.0, np.inf)
    return [(normalised(windows[start][None])[0], int(owner[start])) for start in pick(profile, count, length)]


def normalised(windows: NDArray[np.floating]) -> Floats:
    """Windows (..., w) less their mean over their deviation; zeros where one is flat. float32.

    Example:
        >>> normalised(np.array([[1.0, 1.0], [0.0, 2.0]])).tolist()
        [[0.0, 0.0], [-1.0, 1.0]]
    """
    wide = np.asarray(windows, np.float64)
    mean, deviation = wide.mean(-1, keepdims=True), wide.std(-1, keepdims=True)
    flat = ~(deviation > _FLAT * np.maximum(1.0, np.abs(mean)))
    return np.where(flat, 0.0, (wide - mean) / np.where(flat, 1.0, deviation)).astype(np.float32)


def match(motifs: Motifs, series: Sequence[Floats]) -> Matches:
    """The window of each series most alike to each motif, in the motif's own variable.

    Args:
        motifs: P shapes.
        series: N arrays (V, T), NaN where nothing was measured.

    O(N T P w) time; memory one series' windows of one variable beside the result, (N, P, w).

    Example:
        >>> motifs = Motifs(normalised(np.array([[0.0, 1.0, 0.0]])), *np.zeros((3, 1), np.int64))
        >>> match(motifs, [np.array([[0, 0, 0, 2, 0, 0]], np.float32)]).start.tolist()
        [[2]]
    """
    P, length = motifs.values.shape
    values = np.zeros((len(series), P, length), np.float32)
    start = np.full((len(series), P), -1, np.int64)
    distance = np.full((len(series), P), np.nan, np.float32)
    level = np.zeros((len(series), P, 2), np.float32)
    by_variable = [(int(v), np.flatnonzero(motifs.variable == v)) for v in np.unique(motifs.variable)]
    for alike in _of_one_length(series, length):
        stacked = np.stack([series[n] for n in alike])
        for variable, members in by_variable:
            rows, place = stacked[:, variable], np.ix_(alike, members)
            found, distance[place] = _nearest(motifs.values[members], rows.astype(np.float64))
            start[place] = found
            windows = sliding_window_view(rows, length, axis=1)[np.arange(len(rows))[:, None], np.maximum(found, 0)]
            there = (found >= 0)[..., None]
            values[place] = np.where(there, normalised(windows), 0.0)
            level[place] = np.where(there, np.stack([windows.mean(-1), windows.std(-1)], axis=-1), 0.0)
    return Matches(values, start, distance, level)


def _of_one_length(series: Sequence[Floats], least: int) -> list[NDArray[np.int64]]:
    """Places of series of equal length, not too many at a time; those without a window are left out."""
    lengths = np.array([one.shape[1] for one in series])
    parts: list[NDArray[np.int64]] = []
    for length in np.unique(lengths[lengths >= least]):
        places = np.flatnonzero(lengths == length)
        size = max(1, _MOST_AT_ONCE // int(length * least))
        parts += [places[i : i + size] for i in range(0, len(places), size)]
    return parts


def _nearest(shapes: Floats, rows: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Start and distance (n, P) of the window of each row (n, T) that is nearest to each shape (P, w).

    ||a - b||^2 = |a|^2 + |b|^2 - 2 a.b of z-normalised windows, where a shape's mean is zero, so that its product with
    a window is that with the raw window over the window's deviation: no window is normalised to be looked at. A row
    without a whole window has -1 and NaN.
    """
    length = shapes.shape[1]
    missing = np.isnan(rows)
    count = np.maximum((~missing).sum(1, keepdims=True), 1)
    filled = np.where(missing, 0.0, rows)
    rows = np.where(missing, 0.0, rows - filled.sum(1, keepdims=True) / count)
    total, square, gaps = (_window_sums(column, length) for column in (rows, rows * rows, missing))
    whole, mean = gaps == 0, total / length
    deviation = np.sqrt(np.maximum(square / length - mean**2, 0.0))
    flat = ~(deviation > _FLAT * np.maximum(1.0, np.abs(mean)))
    squared = sliding_window_view(rows, length, axis=1) @ shapes.T.astype(np.float64)  # (n, windows, P)
    squared *= (-2.0 / np.where(flat, np.inf, deviation))[..., None]
    squared += np.where(flat, 0.0, length)[..., None] + np.square(shapes, dtype=np.float64).sum(-1)
    squared[~whole] = np.inf
    best = squared.argmin(1)
    nearest = np.sqrt(np.maximum(np.take_along_axis(squared, best[:, None], 1)[:, 0], 0.0))
    none = ~np.isfinite(nearest)
    return np.where(none, -1, best), np.where(none, np.nan, nearest)


def _window_sums(rows: NDArray[Any], length: int) -> NDArray[np.float64]:
    running = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    return running[:, length:] - running[:, :-length]


# Kept on disk ---------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where found motifs are kept: $PIPELINES_CACHE, else the user's cache folder."""
    named = os.environ.get("PIPELINES_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-pipelines"
    return (Path(named) if named else base) / "motifs"


def content_key(series: Sequence[Floats], labels: NDArray[np.integer], **options: object) -> str:
    """SHA-256 of the series, their classes and the options: equal content is never searched twice.

    Example:
        >>> one = [np.zeros((1, 4), np.float32)]
        >>> content_key(one, np.zeros(1, int), length=3) == content_key(one, np.ones(1, int), length=3)
        False
    """
    total = hashlib.sha256(repr(sorted(options.items())).encode())
    total.update(np.asarray(labels, np.int64).tobytes())
    for one in series:
        total.update(repr(one.shape).encode())
        total.update(np.ascontiguousarray(one, np.float32).tobytes())
    return total.hexdigest()


def cached_motifs(
    series: Sequence[Floats],
    labels: NDArray[np.integer],
    *,
    length: int,
    count: int = 3,
    seed: int = 0,
    names: Sequence[str] = (),
) -> Motifs:
    """``find_motifs``, or what it found before for the very same content; a damaged or missing file is made anew."""
    points = np.bincount(np.asarray(labels), [one.shape[1] for one in series])
    drawn = seed if points.max() > MOST_POINTS else 0  # nothing is drawn at random from a small class
    key = content_key(series, labels, length=length, count=count, seed=drawn, names=tuple(names), version=2)
    file = cache_folder() / f"{key}.npz"
    try:
        with np.load(file, allow_pickle=False) as kept:
            fields = {name: kept[name] for name in ("values", "variable", "label", "origin")}
            return Motifs(**fields, notes=tuple(str(note) for note in kept["notes"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # not there, or damaged
    found = find_motifs(series, labels, length=length, count=count, seed=seed, names=names)
    _keep(file, found)
    return found


def _keep(file: Path, motifs: Motifs) -> None:
    """Write through a temporary name; a folder that cannot be written costs only the next search."""
    import contextlib
    import io

    from pipelines.files import atomic_write

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        values=motifs.values,
        variable=motifs.variable,
        label=motifs.label,
        origin=motifs.origin,
        notes=np.array(motifs.notes, dtype=str),
    )
    with contextlib.suppress(OSError, RunError):
        atomic_write(file, buffer.getvalue())
