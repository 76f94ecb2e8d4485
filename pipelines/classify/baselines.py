"""What a classifier must beat: MiniRocket features with a ridge, the nearest series under time warping, the majority.

All share `Baseline`: they take series (V, T) of any lengths, with NaN where nothing was measured, and say in `notes`
what had to be changed, counted.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.training.threads import compiled_loops

__all__ = ["Baseline", "Majority", "MiniRocketRidge", "NearestDTW"]

Series = NDArray[np.floating]
#: MiniRocket's kernels have nine weights.
SHORTEST = 9


class Baseline(Protocol):
    """Anything that learns from labelled series and gives a share to every class.

    Series are (V, T) arrays, V the same for all, T free; classes are the numbers 0 to ``classes - 1``.
    """

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the data, counted: first in training, then in the last prediction."""
        ...

    def fit(self, series: Sequence[Series], y: NDArray[np.integer], classes: int) -> Self:
        """Learn from n series and their classes y (n,)."""
        ...

    def predict_proba(self, series: Sequence[Series]) -> NDArray[np.float64]:
        """Shares (n, classes) that sum to 1."""
        ...


class _Fitted:
    """What the baselines share: checked input, and notes by occasion."""

    def __init__(self) -> None:
        self.variables = self.classes = 0
        self._notes: dict[str, tuple[str, ...]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the data, counted: first in training, then in the last prediction."""
        return self._notes.get("training", ()) + self._notes.get("prediction", ())

    def _begin(
        self, series: Sequence[Series], y: NDArray[np.integer], classes: int, least: int = 1
    ) -> NDArray[np.int64]:
        """Checked labels, of at least so many classes; nothing is changed where something is refused."""
        variables, labels = _check_series(series, None), _check_classes(y, len(series), classes)
        if len(np.unique(labels)) < least:
            cure = "give series of another class too, or take Majority"
            raise InputError("all series are of one class", where="y", found=int(labels[0]), cure=cure)
        self.variables, self.classes, self._notes = variables, classes, {}
        return labels

    def _check(self, series: Sequence[Series]) -> None:
        if not self.variables:
            raise ConfigError("not fitted", where=type(self).__name__, cure="call fit first")
        _check_series(series, self.variables)

    def _clean(self, series: Sequence[Series], occasion: str) -> list[NDArray[np.float32]]:
        """Series without gaps; the notes of this occasion begin with how many values were filled."""
        self._check(series)
        filled, count, touched = _fill_gaps(series)
        self._notes[occasion] = ()
        if count:
            self._note(occasion, f"{count} missing values in {touched} series filled by linear interpolation in time")
        return filled

    def _note(self, occasion: str, text: str) -> None:
        self._notes[occasion] += (f"{occasion}: {text}",)


class MiniRocketRidge(_Fitted):
    """Ridge regression on the features of random convolutions: share of positive outputs, 9,996 features a series.

    sktime's MiniRocketMultivariate takes series of equal length, its MiniRocketMultivariateVariable those of unequal
    length. The features are scaled to unit variance; leave-one-out on the training set chooses the ridge's penalty.
    Series below 9 steps are stretched to 9, and after a training set of equal lengths all others to that length; both
    by linear interpolation, both counted.

    Args:
        seed: of the kernels' biases and dilations.
        kernels: number of features, rounded down to a multiple of 84.

    Raises:
        InputError: no series, shapes or classes that do not fit, fewer than two classes among the labels.
        ConfigError: a prediction before `fit`.

    Time O(n T kernels) and O(n^2 kernels) for the ridge with n series; memory O(n kernels).
    Source: MiniRocket (arXiv 2012.08791), section 3.

    Example:
        >>> series = [np.sin(np.arange(30) * (1 + i % 2))[None] for i in range(8)]
        >>> model = MiniRocketRidge(seed=0, kernels=84).fit(series, np.arange(8) % 2, classes=2)
        >>> model.predict(series[:3]).tolist()
        [0, 1, 0]
    """

    def __init__(self, seed: int = 0, kernels: int = 10_000) -> None:
        super().__init__()
        self.seed, self.kernels = seed, kernels
        self._length: int | None = None
        self._seen: NDArray[np.int64] = np.empty(0, np.int64)
        self._features: Any = None
        self._ridge: Any = None

    def fit(self, series: Sequence[Series], y: NDArray[np.integer], classes: int) -> Self:
        """Fit kernels, scales and ridge on n series (V, T) and their classes y (n,)."""
        from sklearn.linear_model import RidgeClassifierCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sktime.transformations.rocket import MiniRocketMultivariate, MiniRocketMultivariateVariable

        labels = self._begin(series, y, classes, least=2)
        self._seen = np.unique(labels)
        lengths = {max(SHORTEST, one.shape[1]) for one in series}
        self._length = lengths.pop() if len(lengths) == 1 else None
        prepared = self._prepare(series, "training")
        kind = MiniRocketMultivariateVariable if self._length is None else MiniRocketMultivariate
        self._features = kind(num_kernels=self.kernels, random_state=int(self.seed))
        with warnings.catch_warnings(), compiled_loops():
            # Its advice for one variable leads to a class that does not take unequal lengths.
            warnings.filterwarnings("ignore", message="X is univariate")
            self._features.fit(prepared)
        # Scaled, not centred, as sktime advises: where a kernel never answers, its share stays zero.
        self._ridge = make_pipeline(StandardScaler(with_mean=False), RidgeClassifierCV(alphas=np.logspace(-3, 3, 10)))
        self._ridge.fit(self._transformed(prepared), labels)
        return self

    def scores(self, series: Sequence[Series]) -> NDArray[np.float64]:
        """Decision scores (n, classes); minus infinity for a class without a training series."""
        prepared = self._prepare(series, "prediction")  # refuses what is not fitted
        decision = self._ridge.decision_function(self._transformed(prepared))
        if decision.ndim == 1:  # of two classes scikit-learn scores the second alone
            decision = np.stack([-decision, decision], axis=1)
        scores = np.full((len(series), self.classes), -np.inf)
        scores[:, self._seen] = decision
        return scores

    def predict_proba(self, series: Sequence[Series]) -> NDArray[np.float64]:
        """Softmax (n, classes) of the scores: ordered as they are, but no calibrated probabilities."""
        scores = self.scores(series)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    def predict(self, series: Sequence[Series]) -> NDArray[np.int64]:
        """The class (n,) of the highest score."""
        return self.scores(series).argmax(1)

    def _transformed(self, prepared: Any) -> NDArray[np.floating]:
        with compiled_loops():
            return self._features.transform(prepared).to_numpy()

    def _prepare(self, series: Sequence[Series], occasion: str) -> Any:
        """What sktime takes: one array (n, V, T), or one table (T, V) a series where lengths differ."""
        clean = self._clean(series, occasion)
        targets = [self._length or max(SHORTEST, one.shape[1]) for one in clean]
        short = sum(one.shape[1] < SHORTEST for one in clean)
        if short:
            self._note(occasion, f"{short} series below {SHORTEST} steps stretched by linear interpolation")
        other = sum(SHORTEST <= one.shape[1] != target for one, target in zip(clean, targets, strict=True))
        if other:
            self._note(occasion, f"{other} series brought to {self._length} steps, as in training, by interpolation")
        stretched = [_stretch(one, target) for one, target in zip(clean, targets, strict=True)]
        if self._length is not None:
            return np.stack(stretched)
        import pandas as pd

        return [pd.DataFrame(one.T) for one in stretched]


class NearestDTW(_Fitted):
    """The class of the nearest training series under dependent dynamic time warping; labels only, no probabilities.

    The distance of two series is the least sum of squared differences, over all variables at once, along a path that
    warps time by at most ``window`` of the longer length (and at least by the difference in length). Of equally near
    series the first counts. A series is given up as soon as no path can be nearer than the nearest so far.

    Args:
        window: largest warp as a fraction of the longer length, from 0 to 1.
        limit: multiplications above which it refuses, see `too_large`; by the speeds measured on one core the default
            is about two minutes at ``window=0.1`` and fifteen at ``window=1``.

    Raises:
        ConfigError: a window outside [0, 1]; too much to compare; a prediction before `fit`.
        InputError: no series, shapes or classes that do not fit.

    Time O(n_train n_test T window T V) at most, memory O(T).
    Source: Sakoe and Chiba 1978 (the band); DTW_D of the UEA archive (arXiv 1811.00075).

    Example:
        >>> model = NearestDTW(window=0.2).fit([np.eye(3, 8), np.ones((3, 6))], np.array([0, 1]), classes=2)
        >>> nearest, distance = model.nearest([np.ones((3, 7))])
        >>> model.predict([np.ones((3, 7))]).tolist(), nearest.tolist(), distance.tolist()
        ([1], [1], [0.0])
    """

    def __init__(self, window: float = 0.1, limit: float = 6e11) -> None:
        super().__init__()
        if not 0 <= window <= 1:
            raise ConfigError("not a fraction of the length", where="window", found=window, expected="0 to 1")
        self.window, self.limit = window, limit
        self._train: list[NDArray[np.float32]] = []
        self._labels: NDArray[np.int64] = np.empty(0, np.int64)

    def fit(self, series: Sequence[Series], y: NDArray[np.integer], classes: int) -> Self:
        """Keep n series (V, T) and their classes y (n,)."""
        self._labels = self._begin(series, y, classes)
        self._train = self._clean(series, "training")
        return self

    def too_large(self, train: Sequence[Series], tests: Sequence[Series]) -> str | None:
        """Why comparing all pairs is refused, or None; from n_train n_test T^2 V with the longest T.

        Example:
            >>> NearestDTW(limit=1e3).too_large([np.zeros((1, 10))], [np.zeros((1, 10))] * 20)
            '1 x 20 pairs of up to 10 steps and 1 variable: 2e+03 multiplications, the limit is 1e+03'
        """
        if not train or not tests:
            return None
        longest, variables = max(one.shape[1] for one in (*train, *tests)), train[0].shape[0]
        work = float(len(train)) * len(tests) * longest**2 * variables
        if work <= self.limit:
            return None
        counted = "1 variable" if variables == 1 else f"{variables} variables"
        pairs = f"{len(train)} x {len(tests)} pairs of up to {longest} steps and {counted}"
        return f"{pairs}: {work:.2g} multiplications, the limit is {self.limit:.2g}"

    def nearest(self, series: Sequence[Series]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Number (n,) of the nearest training series, and its distance (n,), a sum of squares."""
        tests = self._clean(series, "prediction")
        reason = self.too_large(self._train, tests)
        if reason:
            cure = "leave this baseline out, or raise limit"
            raise ConfigError("too much to compare", where="NearestDTW", found=reason, cure=cure)
        found, distance = np.zeros(len(tests), np.int64), np.full(len(tests), np.inf)
        _compiled_search()(*_joined(self._train), *_joined(tests), self.window, found, distance)
        return found, distance

    def predict_proba(self, series: Sequence[Series]) -> NDArray[np.float64]:
        """1 for the class of the nearest series, else 0, (n, classes)."""
        return np.eye(self.classes)[self.predict(series)]

    def predict(self, series: Sequence[Series]) -> NDArray[np.int64]:
        """The class (n,) of the nearest training series."""
        found, _ = self.nearest(series)
        return self._labels[found]


class Majority(_Fitted):
    """The shares of the classes in the training set, whatever the series.

    Raises:
        InputError: no series, shapes or classes that do not fit.

    Time and memory O(n). Source: the zero rule, which accuracy must be read against.

    Example:
        >>> two = [np.zeros((1, 4))] * 3
        >>> Majority().fit(two, np.array([0, 2, 2]), classes=3).predict_proba(two[:1]).round(2).tolist()
        [[0.33, 0.0, 0.67]]
    """

    def __init__(self) -> None:
        super().__init__()
        self.shares: NDArray[np.float64] = np.empty(0)

    def fit(self, series: Sequence[Series], y: NDArray[np.integer], classes: int) -> Self:
        """Count the classes y (n,)."""
        labels = self._begin(series, y, classes)
        self.shares = np.bincount(labels, minlength=classes) / len(labels)
        return self

    def predict_proba(self, series: Sequence[Series]) -> NDArray[np.float64]:
        """The same shares (n, classes) for every series."""
        self._check(series)
        return np.tile(self.shares, (len(series), 1))

    def predict(self, series: Sequence[Series]) -> NDArray[np.int64]:
        """The most frequent class (n,); of equally frequent ones the first."""
        return self.predict_proba(series).argmax(1)


def _check_series(series: Sequence[Series], variables: int | None) -> int:
    """The number of variables, after every series was found to have it."""
    if not len(series):
        raise InputError("no series", where="series", found="an empty list", expected="at least one (V, T) array")
    for index, one in enumerate(series):
        if one.ndim != 2 or 0 in one.shape or (variables is not None and one.shape[0] != variables):
            expected = f"({'V' if variables is None else variables}, T), no axis empty"
            raise InputError("not a series", where=f"series[{index}]", found=one.shape, expected=expected)
        if np.isinf(one).any():
            cure = "mark what was not measured by NaN"
            raise InputError("infinite values", where=f"series[{index}]", found=int(np.isinf(one).sum()), cure=cure)
        variables = one.shape[0]
    return int(variables or 0)


def _check_classes(y: NDArray[np.integer], count: int, classes: int) -> NDArray[np.int64]:
    labels = np.asarray(y)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        found = f"{labels.dtype} {labels.shape}"
        raise InputError("not one class number a series", where="y", found=found, expected=f"integers ({count},)")
    if labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()} to {labels.max()}"
        raise InputError("a class that does not exist", where="y", found=found, expected=f"0 to {classes - 1}")
    return labels.astype(np.int64)


def _fill_gaps(series: Sequence[Series]) -> tuple[list[NDArray[np.float32]], int, int]:
    """Series with NaN filled linearly between neighbours, by the nearest at the ends, by 0 where all are.

    Returns the series, how many values were filled, and in how many series.
    """
    filled, count, touched = [], 0, 0
    for one in series:
        values = np.array(one, np.float32, order="C")
        gaps = np.isnan(values)
        count, touched = count + int(gaps.sum()), touched + bool(gaps.any())
        time = np.arange(values.shape[1])
        for variable in np.flatnonzero(gaps.any(1)):
            row, gap = values[variable], gaps[variable]  # a view: what is written arrives in values
            row[gap] = 0.0 if gap.all() else np.interp(time[gap], time[~gap], row[~gap])
        filled.append(values)
    return filled, count, touched


def _stretch(one: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """A series (V, T) read at ``length`` equally distant times from its first to its last."""
    steps = one.shape[1]
    if steps == length:
        return one
    times = np.linspace(0, steps - 1, length)
    return np.stack([np.interp(times, np.arange(steps), row) for row in one]).astype(np.float32)


def _joined(series: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All series one after another, (sum of T, V), and where each begins and ends."""
    edges = np.cumsum([0, *(one.shape[1] for one in series)])
    return np.concatenate([one.T for one in series]).astype(np.float64), edges


@functools.cache
def _compiled_search() -> Callable[..., None]:
    import numba

    try:
        return numba.njit(_search, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:
        # No folder where numba could keep the machine code: compile in every process instead.
        return numba.njit(_search, nogil=True, error_model="numpy")


def _search(
    train: NDArray[np.float64],
    train_edges: NDArray[np.int64],
    tests: NDArray[np.float64],
    test_edges: NDArray[np.int64],
    window: float,
    found: NDArray[np.int64],
    distance: NDArray[np.float64],
) -> None:
    """For each test series the nearest training series and its distance; plain loops, to be compiled.

    ``row[j + 1]`` is the least cost of a path to (i, j), ``before`` the same for i - 1. The band moves to the right by
    at most one a row, so that right of it nothing but the first infinity was ever written.
    """
    for q in range(len(found)):
        a = tests[test_edges[q] : test_edges[q + 1]]
        for r in range(len(train_edges) - 1):
            b = train[train_edges[r] : train_edges[r + 1]]
            width = max(int(window * max(len(a), len(b))), abs(len(a) - len(b)))
            row, before = np.full(len(b) + 1, np.inf), np.full(len(b) + 1, np.inf)
            before[0] = 0.0
            for i in range(len(a)):
                low, high = max(0, i - width), min(len(b), i + width + 1)
                row[low] = np.inf
                least = np.inf
                for j in range(low, high):
                    cost = 0.0
                    for v in range(a.shape[1]):
                        cost += (a[i, v] - b[j, v]) ** 2
                    row[j + 1] = cost + min(before[j], before[j + 1], row[j])
                    least = min(least, row[j + 1])
                row, before = before, row
                if least >= distance[q]:
                    break
            if before[len(b)] < distance[q]:  # infinite or too far where the last row was not reached
                found[q], distance[q] = r, before[len(b)]
