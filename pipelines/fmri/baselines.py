"""What a network on scans must beat: linear models on the voxels of the mask, and the most frequent class or the mean.

Shapes: N samples (volumes, or windows brought to one row by :func:`frame_features`), V voxels, K classes. Means,
standard deviations, penalties and weights come from the samples that are given to fit: the training part alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.fmri import linear

__all__ = ["BASELINES", "Baseline", "Kind", "fit_baseline", "frame_features"]

Floats = NDArray[np.float64]
Rows = NDArray[np.floating]
Ints = NDArray[np.int64]
Kind = Literal["classification", "regression"]
#: Which baselines there are for which task; `connectome.Connectome` is the one on regions, for whole runs.
BASELINES: dict[str, tuple[str, ...]] = {
    "classification": ("svm", "lda", "logistic", "ridge", "majority"),
    "regression": ("ridge", "majority"),
}
#: Penalties that are tried, in units of `linear.mean_penalty`, the strongest first: of equal ones it wins.
_LOGISTIC = (10.0, 1.0, 0.1, 0.01, 0.001)
_RIDGE = tuple(10.0**power for power in np.arange(3, -3.5, -0.5))
#: Multiplications above which fitting is refused: about ten minutes on one core.
_LIMIT = 1e13
_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted linear model: scores = (x - mean) / scale @ weights.T + intercept.

    Attributes:
        name: one of :data:`BASELINES`.
        kind: "classification" or "regression".
        mean, scale: (V,) of the training samples; scale 1 where a voxel is constant, its weight is then 0.
        weights: (K, V) for standardised voxels, one row for regression; (K, 0) for the majority.
        intercept: (K,).
        notes: what was done, counted.

    Source: the standardisation is the recipe's; the models name theirs in `linear`.

    Example:
        >>> model = fit_baseline("majority", np.zeros((3, 4)), [0, 1, 1], kind="classification")
        >>> np.exp(model.scores(np.zeros((1, 4)))).round(2).tolist()
        [[0.33, 0.67]]
    """

    name: str
    kind: Kind
    mean: Floats
    scale: Floats
    weights: Floats
    intercept: Floats
    notes: tuple[str, ...] = ()

    def scores(self, x: ArrayLike) -> Floats:
        """Return scores (N, K) of samples x (N, V), or for regression their predicted numbers (N,), in float64.

        Scores of "logistic", "lda" and "majority" are logits; those of "svm" and "ridge" are distances, whose softmax
        is no calibrated share. A class without a training sample has minus infinity.

        Raises:
            InputError: another number of voxels than in training, or values that are not finite.

        Complexity: O(N V K).
        """
        rows = _checked_rows(x, len(self.mean))
        _check_finite(rows)
        found = np.tile(self.intercept, (len(rows), 1))
        if self.weights.shape[1]:
            finite = np.isfinite(self.intercept)
            for start in range(0, rows.shape[1], _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                standard = (np.asarray(rows[:, part], np.float64) - self.mean[part]) / self.scale[part]
                found[:, finite] += standard @ self.weights[finite, part].T
        return found[:, 0] if self.kind == "regression" else found

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that :meth:`restore` needs beside the name, the kind and the notes."""
        return {"mean": self.mean, "scale": self.scale, "weights": self.weights, "intercept": self.intercept}

    @classmethod
    def restore(cls, name: str, kind: Kind, state: Mapping[str, ArrayLike], notes: tuple[str, ...] = ()) -> Self:
        """Return the model of these arrays.

        Raises:
            InputError: arrays that are missing or do not fit one another.
        """
        missing = {"mean", "scale", "weights", "intercept"} - set(state)
        if missing:
            raise InputError("a baseline without its arrays", where=name, found=f"no {', '.join(sorted(missing))}")
        parts = {key: np.asarray(state[key], np.float64) for key in ("mean", "scale", "weights", "intercept")}
        voxels, weights = parts["mean"].shape, parts["weights"]
        fits = weights.ndim == 2 and (weights.shape[1],) in (voxels, (0,))
        if not fits or parts["scale"].shape != voxels or parts["intercept"].shape != weights.shape[:1]:
            found = {key: one.shape for key, one in parts.items()}
            raise InputError("arrays of a baseline that do not fit one another", where=name, found=found)
        return cls(name, kind, parts["mean"], parts["scale"], weights, parts["intercept"], notes)


def fit_baseline(
    name: str,
    x: ArrayLike,
    y: ArrayLike,
    *,
    kind: Kind,
    classes: int | None = None,
    groups: ArrayLike | None = None,
    folds: int = 4,
    seed: int = 0,
) -> Baseline:
    """Fit a linear baseline to training samples.

    The classes: "svm" (linear, C = 0.001, one against the rest), "lda" (one covariance, shrunk as Ledoit and Wolf say),
    "logistic" and "ridge" (penalty chosen by held-out groups of the training part), "majority" (shares of the classes).
    Of numbers: "ridge" and "majority" (the mean). Every voxel is standardised over the training samples first.

    Args:
        name: one of :data:`BASELINES` of the kind.
        x: (N, V) voxels of the mask.
        y: (N,) classes by number, or numbers in the unit of the target.
        kind: "classification" or "regression".
        classes: K; default one more than the largest of y.
        groups: (N,) the run or subject of each sample: the search for a penalty never parts one. None: each its own.
        folds: of that search; fewer where there are fewer groups.
        seed: of folds and solvers.

    Raises:
        ConfigError: an unknown name or kind, fewer than two folds, or more multiplications than ten minutes allow.
        InputError: fewer than two samples, shapes that do not fit, values that are not finite, classes out of range,
            one class only, a target that never changes, or not one voxel that varies.

    Complexity: O(N V min(N, V)) and a copy of x in float32.

    Source: Haxby et al. 2001 for linear readout of categories; the models name their own in `linear`.

    Example:
        >>> x = np.array([[0.0, 1.0, 5.0], [0.1, 0.9, 5.0], [1.0, 0.0, 5.0], [0.9, 0.2, 5.0]])
        >>> model = fit_baseline("svm", x, [0, 0, 1, 1], kind="classification")
        >>> model.scores(x).argmax(1).tolist(), model.notes
        ([0, 0, 1, 1], ('1 of 3 voxels never changes in training and has no weight',))
    """
    _check_name(name, kind, folds)
    rows = _checked_rows(x, None)
    if name != "majority" and rows.shape[0] * rows.shape[1] * min(rows.shape) > _LIMIT:
        found = f"{rows.shape[0]:,} samples of {rows.shape[1]:,} voxels"
        cure = "fit one row a subject or a block (their mean), or leave this baseline out"
        raise ConfigError("too much for a linear baseline", where=name, found=found, cure=cure)
    _check_finite(rows)
    target = _checked_classes(y, len(rows), classes) if kind == "classification" else _checked_target(y, len(rows))
    count = (classes or int(target.max()) + 1) if kind == "classification" else 1
    if name == "majority":
        return _majority(kind, rows.shape[1], target, count)
    if len(rows) < 2:
        raise InputError("too few samples to fit", where=name, found=len(rows), expected="2 or more")
    if len(np.unique(target)) < 2:
        cure = "give samples of another class too, or take majority"
        what = "all samples are of one class" if kind == "classification" else "the target never changes"
        raise InputError(what, where="y", found=target[0], cure=cure)
    return _fit(name, kind, rows, target, count, _folds(groups, len(rows), folds, seed), seed)


def frame_features(windows: ArrayLike, mask: ArrayLike, how: Literal["mean", "stack"] = "mean") -> NDArray[np.float32]:
    """Return one row a window: the mean over its frames of each voxel of the mask, or all frames side by side.

    Args:
        windows: (N, X, Y, Z, F).
        mask: (X, Y, Z) bool, V True.
        how: "mean" gives (N, V), "stack" (N, F V), frame after frame.

    Raises:
        InputError: shapes that do not fit, or an empty mask.
        ConfigError: another `how`.

    Complexity: O(N F X Y Z).

    Example:
        >>> frame_features(np.arange(4.0).reshape(1, 2, 1, 1, 2), np.ones((2, 1, 1), bool)).tolist()
        [[0.5, 2.5]]
    """
    values, inside = np.asarray(windows), np.asarray(mask, bool)
    if how not in ("mean", "stack"):
        raise ConfigError("no such way to one row", where="how", found=how, expected="mean or stack")
    if values.ndim != 5 or values.shape[1:4] != inside.shape or not inside.any():
        found = f"windows {values.shape}, mask {inside.shape} with {int(inside.sum())} voxels"
        raise InputError("windows and mask do not fit", found=found, expected="(N, X, Y, Z, F), (X, Y, Z), not empty")
    chosen = values[:, inside]  # (N, V, F)
    if how == "mean":
        return chosen.mean(-1, dtype=np.float64).astype(np.float32)
    return np.ascontiguousarray(chosen.transpose(0, 2, 1)).reshape(len(values), -1).astype(np.float32)


def _fit(name: str, kind: Kind, rows: Rows, target: Any, classes: int, fold: Ints | None, seed: int) -> Baseline:
    mean, scale, varies = _spread(rows)
    voxels = len(varies)
    if not varies.any():
        raise InputError(
            "no voxel changes in training", where=name, found=f"{voxels:,} constant", cure="check the mask"
        )
    notes = []
    if not varies.all():
        still = voxels - int(varies.sum())
        verb = "never changes in training and has no weight" if still == 1 else "never change in training: no weight"
        notes.append(f"{still:,} of {voxels:,} voxels {verb}")
    standard = _standardised(rows, mean, scale, varies)
    z, back = linear.rotate(standard)
    if kind == "regression":
        solution, said = _ridge(z, target[:, None], fold, _squared)
        seen = np.zeros(1, np.int64)
    else:
        seen, y = np.unique(target, return_inverse=True)
        solution, said = _classify(name, z, y, standard.shape[1], fold, seed)
        if len(seen) < classes:
            notes.append(f"{classes - len(seen)} of {classes} classes have no training sample and are never predicted")
    if not solution.converged:
        said = (*said, f"{name} stopped before its solver converged")
    weights, intercept = np.zeros((classes, voxels)), np.full(classes, -np.inf)
    weights[np.ix_(seen, np.flatnonzero(varies))] = back(solution.weights)
    intercept[seen] = solution.intercept
    return Baseline(name, kind, mean, scale, weights, intercept, (*notes, *said))


def _classify(
    name: str, z: Floats, y: Ints, axes: int, fold: Ints | None, seed: int
) -> tuple[linear.Solution, tuple[str, ...]]:
    if name == "svm":
        return linear.svm(z, y, linear.SVM_PENALTY, seed), ()
    if name == "lda":
        return linear.lda(z, y, axes), ()
    if name == "ridge":
        return _ridge(z, np.where(np.arange(y.max() + 1) == y[:, None], 1.0, -1.0), fold, _mistakes)
    penalties = [share * linear.mean_penalty(z) for share in _LOGISTIC]

    def fit(part: NDArray[np.bool_]) -> list[tuple[Ints, linear.Solution]]:
        seen, own = np.unique(y[part], return_inverse=True)
        if len(seen) < 2:
            return []
        return [(seen, found) for found in linear.logistic(z[part], own, penalties)]

    def loss(model: tuple[Ints, linear.Solution], part: NDArray[np.bool_]) -> float:
        from pipelines.fmri.metrics import tabled_figures

        seen, found = model
        scores = np.full((int(part.sum()), int(y.max()) + 1), -np.inf)
        scores[:, seen] = z[part] @ found.weights.T + found.intercept
        return tabled_figures(scores, y[part])["log_loss"] * len(scores)

    chosen = linear.search(fold, fit, loss) if fold is not None else None
    at = _LOGISTIC.index(1.0) if chosen is None else chosen
    solution = linear.logistic(z, y, [penalties[at]], tolerance=1e-6)[0]
    return solution, _told(_LOGISTIC[at], len(_LOGISTIC), fold if chosen is not None else None)


def _ridge(z: Floats, targets: Floats, fold: Ints | None, judge: Any) -> tuple[linear.Solution, tuple[str, ...]]:
    penalties = np.array(_RIDGE) * linear.mean_penalty(z)

    def loss(model: linear.Solution, part: NDArray[np.bool_]) -> float:
        return judge(z[part] @ model.weights.T + model.intercept, targets[part])

    chosen = (
        linear.search(fold, lambda part: linear.ridge(z[part], targets[part], penalties.tolist()), loss)
        if (fold is not None)
        else None
    )
    at = _RIDGE.index(1.0) if chosen is None else chosen
    solution = linear.ridge(z, targets, [float(penalties[at])])[0]
    return solution, _told(_RIDGE[at], len(_RIDGE), fold if chosen is not None else None)


def _mistakes(found: Floats, targets: Floats) -> float:
    return float((found.argmax(1) != targets.argmax(1)).sum())


def _squared(found: Floats, targets: Floats) -> float:
    return float(np.square(found - targets).sum())


def _told(share: float, tried: int, fold: Ints | None) -> tuple[str, ...]:
    how = "by default: too few groups to hold any out"
    if fold is not None:
        how = f"by {len(np.unique(fold))} folds within the training part, of {tried}"
    return (f"penalty {share:.3g} times the mean squared length of an axis, chosen {how}",)


def _folds(groups: ArrayLike | None, count: int, folds: int, seed: int) -> Ints | None:
    """The fold (N,) of each sample, whole groups together; None where there are not two groups."""
    names = np.arange(count) if groups is None else np.asarray(groups)
    if names.shape != (count,):
        raise InputError("each sample needs a group", where="groups", found=names.shape, expected=(count,))
    different, place = np.unique(names, return_inverse=True)
    if len(different) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(different))
    return (order % min(folds, len(different)))[place]


def _majority(kind: Kind, voxels: int, target: Any, classes: int) -> Baseline:
    empty = np.zeros((classes, 0))
    nothing, ones = np.zeros(voxels), np.ones(voxels)
    if kind == "regression":
        return Baseline("majority", kind, nothing, ones, empty, np.array([target.mean()]))
    with np.errstate(divide="ignore"):
        shares = np.log(np.bincount(target, minlength=classes) / len(target))
    return Baseline("majority", kind, nothing, ones, empty, shares)


def _spread(rows: Rows) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Mean, standard deviation (1 where there is none) and whether it varies, (V,) each."""
    mean, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    varies = np.zeros(rows.shape[1], bool)
    for start in range(0, rows.shape[1], _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        values = np.asarray(rows[:, part], np.float64)
        mean[part], spread = values.mean(0), values.std(0)
        # What is left of a constant by rounding of its mean is no signal.
        varies[part] = spread > 10 * np.finfo(np.float64).eps * np.abs(mean[part])
        scale[part] = np.where(varies[part], spread, 1.0)
    return mean, scale, varies


def _standardised(rows: Rows, mean: Floats, scale: Floats, varies: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The voxels that vary, standardised: written part by part, so that no copy in float64 is needed."""
    columns = np.flatnonzero(varies)
    standard = np.empty((len(rows), len(columns)), np.float32)
    for start in range(0, len(columns), _AT_ONCE):
        part = columns[start : start + _AT_ONCE]
        standard[:, start : start + _AT_ONCE] = (rows[:, part] - mean[part]) / scale[part]
    return standard


def _check_name(name: str, kind: str, folds: int) -> None:
    if kind not in BASELINES:
        raise ConfigError("no such kind of target", where="kind", found=kind, expected=", ".join(BASELINES))
    if name not in BASELINES[kind]:
        cure = "use pipelines.fmri.connectome.Connectome on whole runs" if name == "connectome" else None
        expected = ", ".join(BASELINES[kind])
        raise ConfigError(f"no such baseline for {kind}", where="name", found=name, expected=expected, cure=cure)
    if folds < 2:
        raise ConfigError("too few folds", where="folds", found=folds, expected="2 or more")


def _checked_rows(x: ArrayLike, voxels: int | None) -> Rows:
    rows = np.asarray(x)
    if rows.ndim != 2 or 0 in rows.shape or voxels not in (None, rows.shape[1]):
        expected = f"(N, {'V' if voxels is None else voxels}), not empty"
        raise InputError("samples of another shape", where="x", found=rows.shape, expected=expected)
    return rows if np.issubdtype(rows.dtype, np.floating) else rows.astype(np.float64)


def _check_finite(rows: Rows) -> None:
    """Part by part: a table of truth values beside all samples would be a quarter of them again."""
    columns = range(0, rows.shape[1], _AT_ONCE)
    bad = sum(int((~np.isfinite(rows[:, start : start + _AT_ONCE])).sum()) for start in columns)
    if bad:
        raise InputError("voxels that are not finite", where="x", found=f"{bad:,} values", cure="mask them out")


def _checked_classes(y: ArrayLike, count: int, classes: int | None) -> Ints:
    labels = np.asarray(y)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        found = f"{labels.dtype} {labels.shape}"
        raise InputError("not one class number a sample", where="y", found=found, expected=f"integers ({count},)")
    if labels.min() < 0 or (classes is not None and labels.max() >= classes):
        expected = "0 or more" if classes is None else f"0 to {classes - 1}"
        found = f"{labels.min()} to {labels.max()}"
        raise InputError("a class that does not exist", where="y", found=found, expected=expected)
    return labels.astype(np.int64)


def _checked_target(y: ArrayLike, count: int) -> Floats:
    target = np.asarray(y, np.float64)
    if target.shape != (count,) or not np.isfinite(target).all():
        found = f"{target.shape}, {int((~np.isfinite(target)).sum())} not finite"
        raise InputError("not one number a sample", where="y", found=found, expected=f"finite ({count},)")
    return target
