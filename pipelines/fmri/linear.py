"""The linear models that a network on scans must beat, solved where they are small: at most as many axes as samples.

All of them are penalised by squared weights, so that the best weights are a sum of samples. With more voxels V than
samples N the samples are turned into N coordinates first, which changes no prediction and saves nearly all the work.

Shapes: N samples, V voxels, r = min(N, V) axes, C classes that occur (numbered 0 to C - 1 here).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SVM_PENALTY",
    "Solution",
    "lda",
    "logistic",
    "mean_penalty",
    "ridge",
    "rotate",
    "search",
    "shrinkage",
    "svm",
]

Floats = NDArray[np.float64]
Rows = NDArray[np.floating]
Ints = NDArray[np.int64]
#: Axes on which the samples spread less than this share of the widest one (squared) are numerical noise.
_NOTHING = 1e-11
#: Voxels that are turned into float64 at once.
_AT_ONCE = 4096
#: C of the support vector machine: the recipe of the published figure, for standardised voxels.
SVM_PENALTY = 1e-3


class Solution(NamedTuple):
    """Weights (C, r) and intercepts (C,) of scores = z @ weights.T + intercept; `converged`: at the end."""

    weights: Floats
    intercept: Floats
    converged: bool = True


def rotate(x: Rows) -> tuple[Floats, Callable[[Floats], Floats]]:
    """Return coordinates z (N, r) with the inner products of x (N, V), and the way back for weights: (C, r) -> (C, V).

    Complexity: O(N^2 V + N^3) and N^2 numbers where V > N; nothing is done where V <= N.

    Source: the representer theorem (Schölkopf, Herbrich and Smola 2001).

    Example:
        >>> x = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])
        >>> z, back = rotate(x)
        >>> bool(np.allclose(z @ z.T, x @ x.T)), bool(np.allclose(x @ back(np.ones((1, 2))).T, z @ np.ones((2, 1))))
        (True, True)
    """
    count, voxels = x.shape
    if voxels <= count:
        return np.asarray(x, np.float64), lambda weights: weights
    parts = [slice(start, start + _AT_ONCE) for start in range(0, voxels, _AT_ONCE)]
    gram = np.zeros((count, count))
    for part in parts:
        chunk = np.asarray(x[:, part], np.float64)
        gram += chunk @ chunk.T
    size, axes = np.linalg.eigh(gram)
    there = size > _NOTHING * size[-1]
    length = np.sqrt(size[there])
    axes = axes[:, there]

    def back(weights: Floats) -> Floats:
        share = (weights / length) @ axes.T  # (C, N): the weights as a sum of samples
        return np.concatenate([share @ np.asarray(x[:, part], np.float64) for part in parts], axis=1)

    return axes * length, back


def mean_penalty(z: Rows) -> float:
    """Return the mean squared length of the axes: a penalty of this size halves the weights of a common axis.

    Example:
        >>> mean_penalty(np.array([[2.0, 0.0], [0.0, 4.0]]))
        10.0
    """
    return float(np.square(z, dtype=np.float64).sum() / min(z.shape))


def svm(z: Rows, y: Ints, penalty: float, seed: int) -> Solution:
    """One linear support vector machine a class against the rest, squared hinge loss; `penalty` is its C.

    Source: Fan et al. 2008 (LIBLINEAR), equation 2.

    Example:
        >>> svm(np.array([[-1.0], [1.0]]), np.array([0, 1]), 1.0, seed=0).weights.round(1).tolist()
        [[-0.4], [0.4]]
    """
    from sklearn.svm import LinearSVC

    return _fitted(LinearSVC(C=penalty, max_iter=5000, random_state=seed), z, y)


def logistic(z: Rows, y: Ints, penalties: Sequence[float], *, tolerance: float = 1e-4) -> list[Solution]:
    """Multinomial logistic regression, the loss summed over samples plus penalty / 2 times the squared weights.

    One solution a penalty, each found from the one before: give the strongest first. `tolerance` is the largest slope
    of the mean loss at the end.

    Source: Hastie, Tibshirani and Friedman 2009, section 4.4.

    Example:
        >>> found = logistic(np.array([[-1.0], [1.0]]), np.array([0, 1]), [10.0, 1.0])
        >>> bool(found[1].weights[1] > found[0].weights[1] > 0)
        True
    """
    from sklearn.linear_model import LogisticRegression

    model, solved = LogisticRegression(max_iter=2000, warm_start=True, tol=tolerance), []
    for penalty in penalties:
        model.C = 1 / penalty
        solved.append(_fitted(model, z, y))
    return solved


def _fitted(model: Any, z: Rows, y: Ints) -> Solution:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(z, y)
    converged = not any(issubclass(one.category, ConvergenceWarning) for one in said)
    weights, intercept = np.atleast_2d(model.coef_).copy(), np.atleast_1d(model.intercept_).copy()
    if len(weights) == 1:  # of two classes there is the second one's score d alone: -d/2 and d/2 have its softmax
        weights, intercept = np.concatenate([-weights, weights]) / 2, np.concatenate([-intercept, intercept]) / 2
    return Solution(weights, intercept, converged)


def shrinkage(z: Rows, axes: int) -> tuple[float, float]:
    """Return Ledoit and Wolf's share of the identity in the covariance of centred rows z (N, r), and the mean variance.

    Args:
        z: (N, r), of mean zero.
        axes: V >= r, how many axes there are in truth: all others have no variance.

    Complexity: O(N r min(N, r)).

    Source: Ledoit and Wolf 2004, section 3.2, equations 5 to 14.

    Example:
        >>> share, mean = shrinkage(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]), 2)
        >>> round(share, 3), mean
        (0.944, 1.25)
    """
    count = len(z)
    gram = z.T @ z if z.shape[1] <= count else z @ z.T
    squares, total = float(np.square(gram).sum()) / count**2, float(np.square(z).sum()) / count  # |S|^2 and tr S
    mean = total / axes
    distance = squares - mean * total
    noise = (float(np.square(np.square(z).sum(1)).sum()) / count - squares) / count
    return (min(1.0, max(0.0, noise) / distance) if distance > 0 else 1.0), mean


def lda(z: Floats, y: Ints, axes: int) -> Solution:
    """Linear discriminants with one covariance for all classes: the mean of theirs, each shrunk by its own samples.

    Neighbouring volumes are alike, so that all of them together look like more samples than they are and would be
    shrunk too little; those of one class err less. Scores are log-posteriors up to a number that all classes of a
    sample share: their softmax is the posterior.

    Args:
        z: (N, r).
        y: (N,).
        axes: V, see :func:`shrinkage`.

    Complexity: O(N r^2 + r^3).

    Source: Fisher 1936; Ledoit and Wolf 2004; Hastie, Tibshirani and Friedman 2009, equation 4.10.

    Example:
        >>> z = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> found = lda(z, np.array([0, 0, 1, 1]), 1)
        >>> (z @ found.weights.T + found.intercept).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    count = len(z)
    sizes = np.bincount(y).astype(np.float64)
    means = np.stack([z[y == one].mean(0) for one in range(len(sizes))])
    covariance, identity = np.zeros((z.shape[1],) * 2), 0.0
    for one, size in enumerate(sizes):
        rest = z[y == one] - means[one]
        share, mean = shrinkage(rest, axes)
        covariance += (1 - share) / count * (rest.T @ rest)
        identity += share * mean * size / count
    # Samples that all lie on their class's mean leave no variance: the nearest mean decides then.
    covariance.flat[:: z.shape[1] + 1] += identity or 1e-12
    weights = np.asarray(np.linalg.solve(covariance, means.T).T, np.float64)
    return Solution(weights, np.log(sizes / count) - (weights * means).sum(1) / 2)


def ridge(z: Rows, targets: Floats, penalties: Sequence[float]) -> list[Solution]:
    """Ridge regression of targets (N, C) for each of several penalties, from one decomposition.

    Complexity: O(N r min(N, r)) for all penalties together.

    Source: Hoerl and Kennard 1970, equation 2.1.

    Example:
        >>> found = ridge(np.array([[-1.0], [1.0]]), np.array([[1.0], [5.0]]), [0.0, 2.0])
        >>> [(one.weights.round(6).item(), one.intercept.item()) for one in found]
        [(2.0, 3.0), (1.0, 3.0)]
    """
    middle, mean = z.mean(0), targets.mean(0)
    ours, theirs = z - middle, targets - mean
    wide = ours.shape[1] > ours.shape[0]
    size, axes = np.linalg.eigh(ours @ ours.T if wide else ours.T @ ours)
    there = size > _NOTHING * size[-1]
    size, axes = size[there], axes[:, there]
    along = axes.T @ (theirs if wide else ours.T @ theirs)
    solved = []
    for penalty in penalties:
        weights = (axes @ (along / (size + penalty)[:, None])).T
        weights = weights @ ours if wide else weights
        solved.append(Solution(weights, mean - weights @ middle))
    return solved


def search(
    fold: Ints, fit: Callable[[NDArray[np.bool_]], list[Any]], loss: Callable[[Any, NDArray[np.bool_]], float]
) -> int | None:
    """Return which of several settings loses least on held-out folds; of equal ones the first; None if no fold serves.

    Args:
        fold: (N,) the fold of each sample.
        fit: training rows (N,) True -> one model a setting; empty where these rows allow none.
        loss: model, held-out rows -> summed loss.

    Complexity: one fit of all settings a fold.

    Example:
        >>> search(np.array([0, 1]), lambda rows: [3.0, 1.0, 2.0], lambda model, rows: model)
        1
    """
    total: Floats | None = None
    for one in np.unique(fold):
        models = fit(fold != one)
        if models:
            lost = np.array([loss(model, fold == one) for model in models])
            total = lost if total is None else total + lost
    return None if total is None else int(total.argmin())
