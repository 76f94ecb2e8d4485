"""Figures of 3-D poses in mm and %: of one clip as functions, of many clips in :mod:`pipelines.pose.tally`.

Shapes: T frames, J joints. Poses (T, J, 3) are in metres, figures in mm. ``valid`` (T, J) says which joints are known;
the others are never read. The root joint has no error after root alignment: it counts in MPJPE, as the field does it,
and not in PCK and AUC, whose joints never held it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

__all__ = [
    "FIGURES",
    "LARGER_IS_BETTER",
    "LEAST_JOINTS",
    "THRESHOLDS",
    "auc",
    "checked_pair",
    "joint_errors",
    "mpjpe",
    "mpjve",
    "n_mpjpe",
    "p_mpjpe",
    "pck",
    "procrustes",
    "rescaled",
    "velocity_errors",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Figures in the order in which they are shown: five of distances (mm; the fourth mm a frame), then two shares (%).
FIGURES = ("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "pck_150", "auc")
LARGER_IS_BETTER = frozenset({"pck_150", "auc"})
#: Of the AUC, mm.
THRESHOLDS: Floats = np.arange(0.0, 151.0, 5.0)
#: Two points can always be laid over two others, so a frame with fewer joints says nothing about a pose.
LEAST_JOINTS = 3
_MM = 1000.0


def mpjpe(predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, root: int | None = 0) -> float:
    """Mean per-joint position error in mm after the roots are laid over each other (protocol 1); NaN where none counts.

    Args:
        predicted, truth: (T, J, 3) m.
        valid: (T, J); all by default. Frames without the root are left out.
        root: the joint that is subtracted; None compares positions as they are.

    Raises:
        InputError: shapes that do not fit, or numbers of known joints that are not finite.

    Complexity: O(T J).

    Source: Ionescu et al. 2014 (Human3.6M), section 4; ConvFormer (arXiv 2304.02147), section 4.

    Example:
        >>> truth = np.zeros((1, 2, 3))
        >>> round(mpjpe(truth + [[0, 0, 0], [0, 0.03, 0.04]], truth), 6)
        25.0
    """
    return _mean(joint_errors(predicted, truth, valid, root=root))


def p_mpjpe(predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None) -> float:
    """MPJPE in mm after each frame was moved, turned and scaled onto the truth (protocol 2), without mirroring.

    Args:
        predicted, truth: (T, J, 3) m.
        valid: (T, J); frames with fewer than 3 known joints are left out.

    Raises:
        InputError: as `mpjpe`.

    Complexity: O(T J), one 3 x 3 singular value decomposition a frame.

    Source: `procrustes`.

    Example:
        >>> truth = np.random.default_rng(0).standard_normal((2, 5, 3))
        >>> p_mpjpe(0.5 * truth + 3.0, truth) < 1e-9
        True
    """
    said, true, known = checked_pair(predicted, truth, valid)
    return _mean(_distances(procrustes(said, true, known), true, known))


def n_mpjpe(predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, root: int = 0) -> float:
    """MPJPE in mm after root alignment and the scale of least squares for each frame (a body of unknown size).

    Args:
        predicted, truth: (T, J, 3) m.
        valid: (T, J); frames without the root are left out.
        root: the joint that is subtracted.

    Raises:
        InputError: as `mpjpe`.

    Complexity: O(T J).

    Source: Rhodin et al. 2018 (arXiv 1803.04775), section 4: s = <predicted, truth> / <predicted, predicted>.

    Example:
        >>> truth = np.array([[[0.0, 0, 0], [1, 2, 3]]])
        >>> n_mpjpe(2 * truth, truth)
        0.0
    """
    said, true, known = checked_pair(predicted, truth, valid)
    return _mean(_distances(*rescaled(said, true, known, root=root)))


def mpjve(predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, root: int | None = 0) -> float:
    """Mean error of the joints' velocities, mm a frame: of the differences between frames that follow each other.

    Args:
        predicted, truth: (T, J, 3) m.
        valid: (T, J); a joint counts where it is known in both frames.
        root: the joint that is subtracted; None compares positions as they are.

    Raises:
        InputError: as `mpjpe`.

    Complexity: O(T J).

    Source: Pavllo et al. 2019 (arXiv 1811.11742), section 6: MPJPE of the first derivative of the sequences.

    Example:
        >>> truth = np.zeros((3, 2, 3)); moved = truth.copy(); moved[1, 1] = 0.01, 0, 0
        >>> round(mpjve(moved, truth), 6)
        5.0
    """
    return _mean(velocity_errors(predicted, truth, valid, root=root))


def pck(
    predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, root: int = 0, threshold: float = 150.0
) -> float:
    """Share of joints in % whose error after root alignment is below a threshold; the root itself is not counted.

    Args:
        predicted, truth: (T, J, 3) m.
        valid: (T, J).
        root: the joint that is subtracted.
        threshold: mm; an error of exactly that is not below it.

    Raises:
        InputError: as `mpjpe`.

    Complexity: O(T J).

    Source: Mehta et al. 2017 (arXiv 1611.09813), section 6, with the strict comparison of its published evaluation.

    Example:
        >>> truth = np.zeros((1, 3, 3))
        >>> pck(truth + [[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]], truth)
        50.0
    """
    errors = _without(joint_errors(predicted, truth, valid, root=root), root)
    return _mean(_judged(errors, np.array([threshold]))[..., 0])


def auc(predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, root: int = 0) -> float:
    """Mean of `pck` in % over the 31 thresholds 0, 5, ... 150 mm; at 0 nothing is below, so a perfect pose has 96.77.

    Args:
        predicted, truth: (T, J, 3) m.
        valid: (T, J).
        root: the joint that is subtracted.

    Raises:
        InputError: as `mpjpe`.

    Complexity: O(31 T J).

    Source: as `pck`.

    Example:
        >>> truth = np.zeros((1, 3, 3))
        >>> round(auc(truth, truth), 2)
        96.77
    """
    errors = _without(joint_errors(predicted, truth, valid, root=root), root)
    return _mean(_judged(errors, THRESHOLDS).mean(-1))


def joint_errors(
    predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, root: int | None = 0
) -> Floats:
    """Distance in mm of every joint from the true one after root alignment, (T, J); NaN where it is not known.

    Args:
        predicted, truth: (T, J, 3) m.
        valid: (T, J); all joints of a frame without the root are NaN.
        root: the joint that is subtracted; None compares positions as they are.

    Raises:
        InputError: as `mpjpe`.

    Complexity: O(T J).

    Example:
        >>> truth = np.zeros((1, 2, 3))
        >>> joint_errors(truth + [[0, 0, 0], [0.25, 0, 0]], truth, [[True, True]]).tolist()
        [[0.0, 250.0]]
    """
    return _distances(*_rooted(*checked_pair(predicted, truth, valid), root))


def velocity_errors(
    predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, root: int | None = 0
) -> Floats:
    """Error of the velocity of every joint in mm a frame, (T - 1, J); NaN where it is not known in both frames.

    Args, errors and complexity as `joint_errors`.

    Example:
        >>> truth = np.zeros((2, 1, 3))
        >>> velocity_errors([[[0, 0, 0]], [[0, 0, 0.5]]], truth, root=None).tolist()
        [[500.0]]
    """
    said, true, known = _rooted(*checked_pair(predicted, truth, valid), root)
    return _distances(np.diff(said, axis=0), np.diff(true, axis=0), known[1:] & known[:-1])


def procrustes(predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None) -> Floats:
    """Move, turn and scale each frame onto the truth by least squares, never mirrored.

    With H = sum (p - mean p)(t - mean t)' = U S V', D = diag(1, 1, det(V U')): R = V D U', scale = tr(S D) / sum |p|^2.
    A frame whose joints all lie in one point becomes the mean of the truth.

    Args:
        predicted, truth: (T, J, 3) m.
        valid: (T, J) joints that take part.

    Returns:
        (T, J, 3) m; NaN for frames with fewer than 3 known joints, and for joints that are not known.

    Raises:
        InputError: as `mpjpe`.

    Complexity: O(T J), one 3 x 3 singular value decomposition a frame.

    Source: Umeyama 1991, equations 38 to 43.

    Example:
        >>> truth = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]]])
        >>> turned = 4 * truth @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + 7
        >>> bool(np.allclose(procrustes(turned, truth), truth))
        True
    """
    said, true, known = checked_pair(predicted, truth, valid)
    weight = known[..., None].astype(np.float64)
    count = np.maximum(weight.sum(1, keepdims=True), 1.0)
    middle, goal = (said * weight).sum(1, keepdims=True) / count, (true * weight).sum(1, keepdims=True) / count
    from_middle, from_goal = (said - middle) * weight, (true - goal) * weight
    left, sizes, right = np.linalg.svd(np.einsum("tji,tjk->tik", from_middle, from_goal))
    # The sign of the smallest direction keeps the determinant at 1: a hand never becomes the other hand.
    sign = np.ones_like(sizes)
    sign[:, -1] = np.where(np.linalg.det(left @ right) < 0, -1.0, 1.0)
    turn = np.einsum("tik,tk,tkj->tij", left, sign, right)  # rows: p' turn = (R p)'
    spread = (from_middle**2).sum((1, 2))
    scale = np.divide((sizes * sign).sum(1), spread, out=np.zeros_like(spread), where=spread > 0)
    moved = scale[:, None, None] * (from_middle @ turn) + goal
    enough = known & (known.sum(1, keepdims=True) >= LEAST_JOINTS)
    return np.where(enough[..., None], moved, np.nan)


def rescaled(
    predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, root: int = 0
) -> tuple[Floats, Floats, Bools]:
    """Root-relative poses, the prediction scaled to the truth by least squares: scaled, truth, which joints count.

    Args, errors and complexity as `n_mpjpe`; a prediction of zero size stays as it is.

    Example:
        >>> truth = np.array([[[0.0, 0, 0], [0, 0, 2]]])
        >>> rescaled(truth + 1, 3 * truth)[0].tolist()
        [[[0.0, 0.0, 0.0], [0.0, 0.0, 6.0]]]
    """
    said, true, known = _rooted(*checked_pair(predicted, truth, valid), root)
    size = (said * said).sum((1, 2))
    scale = np.divide((said * true).sum((1, 2)), size, out=np.ones_like(size), where=size > 0)
    return scale[:, None, None] * said, true, known


def checked_pair(
    predicted: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None, *, where: str = "poses"
) -> tuple[Floats, Floats, Bools]:
    """Return (T, J, 3), (T, J, 3) in float64, 0 where a joint is not known, and (T, J).

    Raises:
        InputError: shapes that do not fit, or numbers of known joints that are not finite.

    Example:
        >>> checked_pair([[[1, 2, np.nan]]], [[[1, 2, 3]]], [[False]])[0].tolist()
        [[[0.0, 0.0, 0.0]]]
    """
    said, true = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if said.ndim != 3 or said.shape[2] != 3 or said.shape != true.shape:
        found = f"{said.shape} and {true.shape}"
        raise InputError("poses that cannot be compared", where=where, found=found, expected="(T, J, 3) twice")
    known = np.ones(said.shape[:2], np.bool_) if valid is None else np.asarray(valid, np.bool_)
    if known.shape != said.shape[:2]:
        raise InputError("valid does not fit", where=where, found=known.shape, expected=said.shape[:2])
    for name, values in (("predicted", said), ("true", true)):
        wrong = ~np.isfinite(values).all(-1) & known
        if wrong.any():
            frame, joint = (int(place) for place in np.argwhere(wrong)[0])
            found = f"{int(wrong.sum()):,} {name} joints, the first in frame {frame}, joint {joint}"
            cure = "mark joints that are missing in `valid`"
            raise InputError("numbers that are not finite", where=where, found=found, cure=cure)
    there = known[..., None]
    return np.where(there, said, 0.0), np.where(there, true, 0.0), known


def _rooted(said: Floats, true: Floats, known: Bools, root: int | None) -> tuple[Floats, Floats, Bools]:
    """Both relative to their root; without it nothing of a frame is known. Joints that are not known are 0."""
    if root is None:
        return said, true, known
    if not 0 <= root < known.shape[1]:
        raise InputError("no such root", where="root", found=root, expected=f"0 to {known.shape[1] - 1}")
    counted = known & known[:, root, None]
    there = counted[..., None]
    origin = slice(root, root + 1)
    return np.where(there, said - said[:, origin], 0.0), np.where(there, true - true[:, origin], 0.0), counted


def _distances(said: Floats, true: Floats, known: Bools) -> Floats:
    """(T, J) mm, NaN where not known."""
    return np.where(known, _MM * np.linalg.norm(said - true, axis=-1), np.nan)


def _without(errors: Floats, joint: int) -> Floats:
    kept = errors.copy()
    kept[:, joint] = np.nan
    return kept


def _judged(errors: Floats, thresholds: Floats) -> Floats:
    """(T, J, thresholds): 100 where an error is below, 0 where it is not, NaN where it is not known."""
    below = 100.0 * (errors[..., None] < thresholds)
    return np.where(np.isnan(errors)[..., None], np.nan, below)


def _mean(values: Floats) -> float:
    known = ~np.isnan(values)
    return float(values[known].mean()) if known.any() else float("nan")
