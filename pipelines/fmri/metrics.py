"""Figures of predictions from scans: of classes and of numbers; means by subject, run or block stand in `units`.

Shapes: N predictions (volumes, windows or subjects), K classes, U units (subjects, runs or blocks). Scores are logits:
their softmax gives the shares that the log-loss judges. One column (N, 1) is the logit of class 1 against class 0, as
the released model has it. A score may be minus infinity (a class that was never learned), never NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.fmri.units import UnitMeans, UnitScores, aggregate, unit_labels

__all__ = [
    "CLASS_FIGURES",
    "NUMBER_FIGURES",
    "SMALLER_IS_BETTER",
    "UnitMeans",
    "UnitScores",
    "aggregate",
    "auroc",
    "checked_numbers",
    "checked_scores",
    "class_figures",
    "confusion",
    "log_shares",
    "number_figures",
    "pairwise_accuracy",
    "tabled_figures",
    "undefined_class_figures",
    "undefined_number_figures",
    "unit_labels",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Figures of classes in the order in which they are shown.
CLASS_FIGURES = ("accuracy", "balanced_accuracy", "auroc", "f1", "log_loss")
#: Figures of numbers, in the order in which they are shown.
NUMBER_FIGURES = ("mse", "mae", "pearson", "r2")
SMALLER_IS_BETTER = frozenset({"log_loss", "mse", "mae"})
#: Log of the least share that the log-loss counts, so that one class never learned does not make it infinite.
_LEAST = float(np.log(np.finfo(np.float64).eps))


def class_figures(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Return accuracy, balanced accuracy, AUROC, macro F1 and log-loss of N predictions; what is undefined is NaN.

    The class with the highest score is predicted, the first of equal ones. Balanced accuracy is the mean recall of the
    classes that occur; F1 the mean over the classes that occur or are predicted; the log-loss is in nats, shares below
    2.2e-16 count as that.

    Args:
        scores: (N, K) logits, or (N, 1) the logit of class 1.
        labels: (N,) classes by number, 0 to K - 1.

    Raises:
        InputError: no predictions, shapes that do not fit, NaN, or a class that does not exist.

    Complexity: O(K N log N).

    Source: SwiFT (arXiv 2307.05916), section 4, names accuracy, balanced accuracy and AUROC.

    Example:
        >>> class_figures([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 1, 1])["balanced_accuracy"]
        0.75
    """
    values, truth = checked_scores(scores, labels)
    found = {**tabled_figures(values, truth), "auroc": auroc(values, truth)}
    return {name: found[name] for name in CLASS_FIGURES}


def tabled_figures(scores: Floats, labels: Ints) -> dict[str, float]:
    """Return all figures of classes but the AUROC, which alone needs sorting; scores (N, K) and labels (N,) as checked.

    Complexity: O(N K).

    Example:
        >>> tabled_figures(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))["f1"]
        0.3333333333333333
    """
    table = confusion(scores.argmax(1), labels, scores.shape[1])
    hits, of_class, claimed = np.diag(table), table.sum(1), table.sum(0)
    there, named = of_class > 0, of_class + claimed > 0
    chosen = np.maximum(log_shares(scores)[np.arange(len(labels)), labels], _LEAST)
    return {
        "accuracy": float(hits.sum() / len(labels)),
        "balanced_accuracy": float((hits[there] / of_class[there]).mean()),
        "f1": float((2 * hits[named] / (of_class + claimed)[named]).mean()),
        "log_loss": float(-chosen.mean()),
    }


def undefined_class_figures(scores: ArrayLike, labels: ArrayLike) -> dict[str, str]:
    """Return the figures of classes that the labels do not define, or only in part, each with the reason in words.

    Example:
        >>> undefined_class_figures([[1.0, 0.0], [0.0, 1.0]], [1, 1])
        {'auroc': 'undefined: all 2 labels are of class 1'}
    """
    values, truth = checked_scores(scores, labels)
    present, classes = np.unique(truth), values.shape[1]
    if len(present) == 1:
        return {"auroc": f"undefined: all {len(truth):,} labels are of class {present[0]}"}
    if len(present) < classes:
        absent = ", ".join(str(one) for one in range(classes) if one not in present)
        reason = f"the mean over the {len(present)} classes that occur; of {classes}, these do not: {absent}"
        return {"auroc": reason, "balanced_accuracy": reason}
    return {}


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the area under the ROC curve; of more than two classes the mean of one against the rest.

    A class is ranked by its log-odds, the same order as by its share, without the ties of shares that round to 1. Equal
    scores are half a win. NaN where the labels are of one class.

    Args:
        scores: (N, K) logits, or (N, 1) the logit of class 1.
        labels: (N,).

    Complexity: O(K N log N).

    Source: Mann and Whitney 1947; the macro average of Hand and Till 2001, section 2, one against the rest.

    Example:
        >>> auroc([[0.0, 0.1], [0.0, 0.4], [0.0, 0.35], [0.0, 0.8]], [0, 0, 1, 1])
        0.75
    """
    from scipy.stats import rankdata

    values, truth = checked_scores(scores, labels)
    present, classes = np.unique(truth), values.shape[1]
    if len(present) < 2:
        return float("nan")
    found = []
    for one in present if classes > 2 else [1]:
        positive = truth == one
        ours = int(positive.sum())
        odds = values[:, one] - _log_sum(np.delete(values, one, axis=1))
        wins = rankdata(odds)[positive].sum() - ours * (ours + 1) / 2
        found.append(wins / (ours * (len(truth) - ours)))
    return float(np.mean(found))


def confusion(predicted: ArrayLike, labels: ArrayLike, classes: int) -> Ints:
    """Return counts (K, K) by true class (rows) and predicted class (columns).

    Example:
        >>> confusion([0, 1, 1], [0, 0, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    rows, columns = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def log_shares(scores: ArrayLike) -> Floats:
    """Return the logarithms (N, K) of the softmax of logits (N, K).

    Example:
        >>> np.exp(log_shares([[0.0, np.log(3.0)]])).round(2).tolist()
        [[0.25, 0.75]]
    """
    values = np.asarray(scores, np.float64)
    return values - _log_sum(values)[:, None]


def pairwise_accuracy(scores: ArrayLike, labels: ArrayLike, a: int, b: int) -> tuple[float, int]:
    """Return the accuracy on the predictions of two classes alone, and their number, comparing only these two scores.

    It shows what a model of K classes tells of these two (faces against houses); a model that is fitted to these two
    alone is another figure. Of equal scores, the class with the smaller number is predicted, as everywhere.

    Args:
        scores: (N, K) with K >= 2.
        labels: (N,).
        a, b: the numbers of the two classes.

    Returns:
        The accuracy, NaN where neither occurs, and how many predictions were judged.

    Raises:
        InputError: classes that do not exist or are the same, or what :func:`class_figures` refuses.

    Example:
        >>> pairwise_accuracy([[9.0, 2.0, 1.0], [9.0, 1.0, 2.0], [0.0, 5.0, 5.5]], [1, 2, 1], 1, 2)
        (0.6666666666666666, 3)
    """
    values, truth = checked_scores(scores, labels)
    classes = values.shape[1]
    if a == b or not (0 <= a < classes and 0 <= b < classes):
        raise InputError("not two classes", where="a, b", found=f"{a}, {b}", expected=f"two of 0 to {classes - 1}")
    low, high = min(a, b), max(a, b)
    rows = np.isin(truth, (low, high))
    called = np.where(values[rows, high] > values[rows, low], high, low)
    count = int(rows.sum())
    return (float((called == truth[rows]).mean()) if count else float("nan")), count


def number_figures(predicted: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """Return mean squared and absolute error, Pearson's r and R2 of N numbers, in the unit that they are given in.

    R2 is 1 - (squared error / squared distance of the truth from its own mean); below 0 a constant is better. Both it
    and r are NaN where they are undefined; :func:`undefined_number_figures` says why.

    Args:
        predicted, truth: (N,) or (N, 1), in the unit of the target (years, points): standardised ones are scaled back
            first.

    Raises:
        InputError: no numbers, shapes that do not fit, or numbers that are not finite.

    Complexity: O(N).

    Source: SwiFT (arXiv 2307.05916), section 4, names MSE, MAE and r.

    Example:
        >>> number_figures([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])["r2"]
        0.5
    """
    values, wanted = checked_numbers(predicted, truth)
    errors = values - wanted
    ours, theirs = values - values.mean(), wanted - wanted.mean()
    spread, own = float(theirs @ theirs), float(ours @ ours)
    unequal, varied = bool(np.ptp(wanted) > 0), bool(np.ptp(values) > 0)
    r = float(np.clip(ours @ theirs / np.sqrt(own * spread), -1, 1)) if unequal and varied else float("nan")
    return {
        "mse": float(np.mean(np.square(errors))),
        "mae": float(np.mean(np.abs(errors))),
        "pearson": r,
        "r2": 1.0 - float(errors @ errors) / spread if unequal else float("nan"),
    }


def undefined_number_figures(predicted: ArrayLike, truth: ArrayLike) -> dict[str, str]:
    """Return the figures of numbers that are undefined here, each with the reason in words.

    Example:
        >>> undefined_number_figures([1.0, 1.0], [3.0, 4.0])
        {'pearson': 'undefined: all 2 predictions are equal'}
    """
    values, wanted = checked_numbers(predicted, truth)
    if np.ptp(wanted) == 0:
        reason = f"undefined: all {len(wanted):,} true values are equal"
        return {"pearson": reason, "r2": reason}
    if np.ptp(values) == 0:
        return {"pearson": f"undefined: all {len(values):,} predictions are equal"}
    return {}


def checked_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """Return scores (N, K) with K >= 2 and labels (N,) as integers, or say what is wrong with them.

    Example:
        >>> checked_scores([[0.5]], [1])
        (array([[0. , 0.5]]), array([1]))
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(labels)
    if values.ndim != 2 or truth.shape != values.shape[:1] or 0 in values.shape:
        raise InputError(
            "each prediction needs one row of scores and one label",
            found=f"scores {values.shape}, labels {truth.shape}",
            expected="(N, K) and (N,), not empty",
        )
    if values.shape[1] == 1:
        values = np.concatenate([np.zeros_like(values), values], axis=1)
    bad = int((np.isnan(values) | (values == np.inf)).sum()) + int((values.max(1) == -np.inf).sum())
    if bad:
        raise InputError("scores that order nothing", where="scores", found=f"{bad:,} NaN or infinite")
    whole = np.issubdtype(truth.dtype, np.integer)
    if not whole or truth.min() < 0 or truth.max() >= values.shape[1]:
        found = f"{truth.min()} to {truth.max()}" if whole else truth.dtype
        expected = f"integers from 0 to {values.shape[1] - 1}"
        raise InputError("labels that are no classes of these scores", where="labels", found=found, expected=expected)
    return values, truth.astype(np.int64)


def checked_numbers(predicted: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    """Return predictions and truth as float64 (N,), or say what is wrong with them.

    Example:
        >>> checked_numbers([[1.0]], [2.0])
        (array([1.]), array([2.]))
    """
    values, wanted = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    wanted = wanted[:, 0] if wanted.ndim == 2 and wanted.shape[1] == 1 else wanted
    if values.ndim != 1 or values.shape != wanted.shape or not len(values):
        raise InputError(
            "each prediction needs one true value", found=f"{values.shape}, {wanted.shape}", expected="(N,), not empty"
        )
    for where, one in (("predicted", values), ("truth", wanted)):
        if not np.isfinite(one).all():
            raise InputError("numbers that are not finite", where=where, found=f"{int((~np.isfinite(one)).sum()):,}")
    return values, wanted


def _log_sum(values: Floats) -> Floats:
    """The logarithm (N,) of the sum of exponentials of each row; minus infinity where all are."""
    top = values.max(1)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return safe + np.log(np.exp(values - safe[:, None]).sum(1))
