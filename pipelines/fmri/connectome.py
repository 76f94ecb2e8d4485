"""The baseline for whole runs: correlations between the time series of brain regions, and a linear model on them.

Shapes: T volumes, V voxels of the mask, R regions, F = R (R - 1) / 2 pairs of regions, N runs. Regions come from an
atlas on the scan's grid or, without one, from voxels of the training runs that go together.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.fmri.baselines import BASELINES, Baseline, Kind, fit_baseline

__all__ = ["Connectome", "Regions", "atlas_regions", "connectome", "learn_regions", "region_series"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: A run's voxels in time (T, V), or a function that reads them when asked: one run at a time is then in memory.
Matrix = NDArray[np.floating] | Callable[[], NDArray[np.floating]]
#: Training runs that regions are learned from at most, and random mixtures of volumes that stand for each of them.
_RUNS, _MIXTURES = 20, 32
#: Fisher's z of a correlation of 1 is infinite: correlations beyond this are cut to it, and counted.
_NEARLY_ONE = 1 - 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Regions:
    """Which region each voxel of the mask is in.

    Attributes:
        index: (V,) 0 to R - 1, or -1 for none, in the order of ``volume[mask]``.
        names: of the R regions: the atlas's numbers, or "1" to "R".
        notes: what was left out, counted.

    Example:
        >>> len(Regions(np.array([0, 1, -1]), ("4", "7")))
        2
    """

    index: Ints
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def atlas_regions(atlas: ArrayLike, mask: ArrayLike) -> Regions:
    """Return the regions of an atlas whose volume holds a whole number a voxel, 0 outside every region.

    Args:
        atlas: (X, Y, Z) on the grid of the mask; `open_volume(..., like=scan)` of `data.formats.nifti` checks that.
        mask: (X, Y, Z) bool, V True.

    Raises:
        InputError: another grid, numbers that are not whole or negative, or fewer than two regions in the mask.

    Complexity: O(X Y Z).

    Example:
        >>> found = atlas_regions(np.array([[[0, 4, 7, 9]]]), np.array([[[True, True, True, False]]]))
        >>> found.index.tolist(), found.names, found.notes[0]
        ([-1, 0, 1], ('4', '7'), '1 of 3 voxels of the mask lie in no region of the atlas')
    """
    labels, inside = np.asarray(atlas), np.asarray(mask, bool)
    if labels.ndim != 3 or labels.shape != inside.shape:
        cure = "resample the atlas to the scan with nearest neighbours"
        raise InputError("an atlas on another grid", found=labels.shape, expected=inside.shape, cure=cure)
    if not np.isfinite(labels).all() or (labels != np.round(labels)).any() or (labels < 0).any():
        wrong = int((~np.isfinite(labels) | (labels != np.round(labels)) | (labels < 0)).sum())
        cure = "give an atlas of labels, not of probabilities, resampled with nearest neighbours"
        raise InputError(
            "not the numbers of regions", where="atlas", found=f"{wrong:,} not whole or below 0", cure=cure
        )
    values = labels[inside].astype(np.int64)
    present = np.unique(values[values > 0])
    if len(present) < 2:
        raise InputError("fewer than two regions in the mask", where="atlas", found=len(present))
    index = np.where(values > 0, np.searchsorted(present, values), -1)
    notes = []
    if (index < 0).any():
        notes.append(f"{int((index < 0).sum()):,} of {len(index):,} voxels of the mask lie in no region of the atlas")
    lost = len(np.unique(labels[labels > 0])) - len(present)
    if lost:
        notes.append(f"{lost} of {lost + len(present)} regions of the atlas have no voxel in the mask")
    return Regions(index, tuple(str(one) for one in present), tuple(notes))


def learn_regions(runs: Sequence[Matrix], mask: ArrayLike, *, regions: int = 50, seed: int = 0) -> Regions:
    """Return regions of neighbouring voxels with like time series, from training runs: Ward's clustering on the grid.

    Each voxel's series is standardised over its run, and each run stands in by 32 random mixtures of its volumes, which
    keep distances between voxels; of more than 20 runs, 20 are drawn. So the memory does not grow with T or N.

    Args:
        runs: (T, V) each, or functions that read them; voxels in the order of ``volume[mask]``.
        mask: (X, Y, Z) bool, V True.
        regions: R at most; with fewer voxels than that, each voxel is a region.
        seed: of mixtures and of the draw.

    Raises:
        ConfigError: fewer than two regions.
        InputError: no runs, shapes that do not fit, values that are not finite, or fewer than two voxels.

    Complexity: O(N T V) to read and O(V log V) merges of 32 min(N, 20) numbers.

    Source: Ward 1963; Thirion et al. 2014 for brain parcels; Johnson and Lindenstrauss 1984 for the mixtures.

    Example:
        >>> slow, fast = np.sin(np.arange(40) / 5), np.sin(np.arange(40) * 2)
        >>> learn_regions([np.stack([slow, slow, fast, fast], 1)], np.ones((4, 1, 1), bool), regions=2).index.tolist()
        [0, 0, 1, 1]
    """
    from sklearn.cluster import FeatureAgglomeration
    from sklearn.feature_extraction.image import grid_to_graph

    inside = np.asarray(mask, bool)
    voxels = int(inside.sum())
    if regions < 2:
        raise ConfigError("too few regions", where="regions", found=regions, expected="2 or more")
    if not len(runs) or voxels < 2:
        found = f"{len(runs)} runs, {voxels} voxels"
        raise InputError("nothing to learn regions from", found=found, expected="a run and two voxels")
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(runs))[:_RUNS])
    mixed = np.concatenate([_mixtures(_read(runs[one], voxels, one), random) for one in chosen])
    notes = []
    if len(chosen) < len(runs):
        notes.append(f"regions learned from {len(chosen)} of {len(runs)} training runs, drawn with seed {seed}")
    if regions >= voxels:
        notes.append(f"{regions} regions asked for: each of the {voxels} voxels is one")
        return Regions(np.arange(voxels), tuple(str(one + 1) for one in range(voxels)), tuple(notes))
    graph = grid_to_graph(*inside.shape, mask=inside)
    apart = _pieces(graph)
    if apart > 1:
        notes.append(f"the mask has {apart} parts that do not touch; regions may join parts")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the number of connected components")  # said above
        labels = FeatureAgglomeration(n_clusters=regions, connectivity=graph).fit(mixed).labels_
    # Numbered by their first voxel, so that the names do not depend on the order of merges.
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    index = np.argsort(np.argsort(first))[place]
    return Regions(index.astype(np.int64), tuple(str(one + 1) for one in range(regions)), tuple(notes))


def region_series(matrix: ArrayLike, regions: Regions) -> Floats:
    """Return the mean series (T, R) of the voxels of each region.

    Raises:
        InputError: another number of voxels than the regions have.

    Complexity: O(T V).

    Example:
        >>> region_series([[1.0, 3.0, 9.0], [2.0, 4.0, 9.0]], Regions(np.array([0, 0, 1]), ("a", "b"))).tolist()
        [[2.0, 9.0], [3.0, 9.0]]
    """
    values = _checked_matrix(matrix, len(regions.index), "matrix")
    there = regions.index >= 0
    order = np.argsort(regions.index[there], kind="stable")
    sizes = np.bincount(regions.index[there], minlength=len(regions))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    picked = np.asarray(values[:, there], np.float64)[:, order]
    return np.add.reduceat(picked, starts, axis=1) / sizes


def connectome(series: ArrayLike) -> tuple[Floats, int, int]:
    """Return Fisher's z (F,) of the correlations between regions, how many regions never change, how many z were cut.

    The covariance is shrunk as Ledoit and Wolf say (nilearn's default), which short runs need. A region that never
    changes has correlation 0 with all others. The pairs run along the rows of the lower triangle.

    Args:
        series: (T, R).

    Raises:
        InputError: fewer than three volumes or two regions, or values that are not finite.

    Complexity: O(T R^2).

    Source: Fisher 1915; Ledoit and Wolf 2004; Abraham et al. 2017 for the baseline.

    Example:
        >>> time = np.arange(50.0)
        >>> z, still, cut = connectome(np.stack([np.sin(time), np.sin(time) + 0.1 * np.cos(9 * time), time * 0], 1))
        >>> bool(z[0] > 1), z[1:].tolist(), still
        (True, [0.0, 0.0], 1)
    """
    from nilearn.connectome import ConnectivityMeasure

    values = _checked_matrix(series, None, "series")
    if len(values) < 3 or values.shape[1] < 2:
        raise InputError("too short for correlations", where="series", found=values.shape, expected="(3+, 2+)")
    moves = values.std(0) > 1e-10 * np.maximum(np.abs(values).max(0), 1e-30)
    full = np.zeros((values.shape[1],) * 2)
    if moves.sum() >= 2:
        standard = (values[:, moves] - values[:, moves].mean(0)) / values[:, moves].std(0)
        measure = ConnectivityMeasure(kind="correlation", standardize=False)
        full[np.ix_(moves, moves)] = measure.fit_transform([standard])[0]
    pairs = full[np.tril_indices(len(full), -1)]
    cut = int((np.abs(pairs) > _NEARLY_ONE).sum())
    return np.arctanh(np.clip(pairs, -_NEARLY_ONE, _NEARLY_ONE)), int((~moves).sum()), cut


class Connectome:
    """A linear model on the correlations between regions: one row a run, for targets of subjects or runs.

    Args:
        model: "ridge", "logistic", "svm", "lda" for classes; "ridge" for numbers.
        kind: "classification" or "regression".
        regions: how many to learn where no atlas is given.
        seed: of regions, folds and solvers.

    Raises:
        ConfigError: an unknown model or kind, or a prediction before `fit`.
        InputError: what :func:`learn_regions`, :func:`connectome` and `fit_baseline` refuse.

    Complexity: O(N T (V + R^2)); one run in memory where runs are given as functions.

    Source: He et al. 2020 and Abraham et al. 2017: linear models of connectomes as the baseline of deep ones.

    Example:
        >>> random = np.random.default_rng(0)
        >>> base = random.standard_normal((12, 30, 1))
        >>> signs = [[1, 1, 2 * (i % 2) - 1, 0] for i in range(12)]
        >>> runs = [one * sign + 0.3 * random.standard_normal((30, 4)) for one, sign in zip(base, signs)]
        >>> model = Connectome("ridge", regions=4).fit(runs, np.arange(12) % 2, mask=np.ones((4, 1, 1), bool))
        >>> model.scores(runs[:3]).argmax(1).tolist()
        [0, 1, 0]
    """

    def __init__(
        self, model: str = "ridge", *, kind: Kind = "classification", regions: int = 50, seed: int = 0
    ) -> None:
        if kind not in BASELINES or model not in BASELINES[kind]:
            expected = ", ".join(BASELINES.get(kind, BASELINES["classification"]))
            raise ConfigError(
                "no such model of connectomes", where="model", found=f"{model}, {kind}", expected=expected
            )
        self.kind: Kind = kind
        self.model, self.count, self.seed = model, regions, seed
        self.regions: Regions | None = None
        self.baseline: Baseline | None = None
        self._said: dict[str, tuple[str, ...]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done, counted: regions, training, then the last prediction."""
        parts = (self.regions.notes if self.regions else ()), self._said.get("training", ())
        return (
            *parts[0],
            *parts[1],
            *(self.baseline.notes if self.baseline else ()),
            *self._said.get("prediction", ()),
        )

    def fit(
        self,
        runs: Sequence[Matrix],
        y: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        atlas: Regions | None = None,
        classes: int | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit to N training runs (T, V) and their targets y (N,).

        Args:
            runs: (T, V) each, T free, or functions that read them.
            y: (N,) classes by number, or numbers.
            mask: (X, Y, Z) bool, to learn regions from these runs where there is no atlas.
            atlas: of :func:`atlas_regions`.
            classes: K.
            groups: (N,) the subject of each run: the search for a penalty never parts one.
        """
        if (mask is None) == (atlas is None):
            raise ConfigError(
                "regions come from an atlas or are learned in a mask", where="mask, atlas", cure="give one"
            )
        found = (
            atlas if atlas is not None else learn_regions(runs, np.asarray(mask), regions=self.count, seed=self.seed)
        )
        rows, said = self._rows(runs, found, "training")
        self.baseline = fit_baseline(
            self.model, rows, y, kind=self.kind, classes=classes, groups=groups, seed=self.seed
        )
        self.regions, self._said = found, {"training": said}
        return self

    def scores(self, runs: Sequence[Matrix]) -> Floats:
        """Return scores (N, K) of N runs, or their predicted numbers (N,)."""
        if self.regions is None or self.baseline is None:
            raise ConfigError("not fitted", where="Connectome", cure="call fit first")
        rows, self._said["prediction"] = self._rows(runs, self.regions, "prediction")
        return self.baseline.scores(rows)

    def _rows(self, runs: Sequence[Matrix], regions: Regions, occasion: str) -> tuple[Floats, tuple[str, ...]]:
        rows, still, cut = [], 0, 0
        for number, run in enumerate(runs):
            z, silent, clipped = connectome(region_series(_read(run, len(regions.index), number), regions))
            rows.append(z)
            still, cut = still + silent, cut + clipped
        if not rows:
            raise InputError("no runs", where=occasion, expected="at least one (T, V)")
        notes = []
        if still:
            notes.append(f"{occasion}: {still} region series in {len(rows)} runs never change: correlation 0")
        if cut:
            notes.append(f"{occasion}: {cut} correlations of 1 or -1 cut before Fisher's z")
        return np.stack(rows), tuple(notes)


def _read(run: Matrix, voxels: int, number: int) -> NDArray[np.floating]:
    return _checked_matrix(run() if callable(run) else run, voxels, f"runs[{number}]")


def _checked_matrix(matrix: Any, voxels: int | None, where: str) -> NDArray[np.floating]:
    values = np.asarray(matrix)
    if values.ndim != 2 or 0 in values.shape or voxels not in (None, values.shape[1]):
        expected = f"(T, {'R' if voxels is None else voxels}), not empty"
        raise InputError("series of another shape", where=where, found=values.shape, expected=expected)
    values = values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError("values that are not finite", where=where, found=f"{bad:,}", cure="mask them out")
    return values


def _mixtures(values: NDArray[np.floating], random: np.random.Generator) -> Floats:
    """Random mixtures (32, V) of a run's volumes, standardised by voxel; the volumes themselves where there are fewer.

    The square distance of two voxels is on average that of their series, over T.
    """
    mean, spread = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    standard = (values - mean) / np.where(spread > 0, spread, 1.0)
    count = len(standard)
    if count <= _MIXTURES:
        return standard / np.sqrt(count)
    return random.standard_normal((_MIXTURES, count)) @ standard / np.sqrt(_MIXTURES * count)


def _pieces(graph: Any) -> int:
    from scipy.sparse.csgraph import connected_components

    return int(connected_components(graph, directed=False)[0])
