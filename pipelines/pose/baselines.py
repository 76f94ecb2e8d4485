"""What any lifter must beat: the mean pose of the training clips, which never looks at its input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError

__all__ = ["MeanPose"]


@dataclasses.dataclass(frozen=True, eq=False)
class MeanPose:
    """One pose for every frame: the mean place of each joint, relative to the root, over the training frames.

    Args:
        points: (J, 3) m, the root at 0.
        counts: (J,) how many frames each joint's mean rests on.
        root: the joint that was subtracted.

    Example:
        >>> clip = np.array([[[1.0, 0, 0], [1, 1, 0]], [[0, 0, 0], [0, 3, 0]]])
        >>> MeanPose.fit([(clip, None)]).predict(1).tolist()
        [[[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]
    """

    points: NDArray[np.float64]
    counts: NDArray[np.int64]
    root: int = 0

    @classmethod
    def fit(cls, clips: Iterable[tuple[ArrayLike, ArrayLike | None]], *, root: int = 0) -> MeanPose:
        """Sum up the training clips, one at a time.

        Args:
            clips: poses (T, J, 3) in m, in the frame in which poses will be predicted, and (T, J) which joints are
                known, or None for all; frames without the root are passed over.
            root: the joint that is subtracted.

        Raises:
            InputError: no clip, shapes that differ, numbers that are not finite, a joint that is known nowhere.

        Complexity: O(frames J) time, one clip in memory.
        """
        total: NDArray[np.float64] | None = None
        counts = np.zeros(0, np.int64)
        for number, (points, valid) in enumerate(clips):
            values, where = np.asarray(points, np.float64), f"clip {number} of the mean pose"
            if values.ndim != 3 or values.shape[2] != 3 or (total is not None and values.shape[1:] != total.shape):
                expected = "(T, J, 3)" if total is None else f"(T, {len(total)}, 3)"
                raise InputError("not poses", where=where, found=values.shape, expected=expected)
            known = np.ones(values.shape[:2], np.bool_) if valid is None else np.asarray(valid, np.bool_)
            if known.shape != values.shape[:2] or not 0 <= root < values.shape[1]:
                found = f"{known.shape}, root {root}"
                raise InputError("valid or root does not fit", where=where, found=found, expected=values.shape[:2])
            if not np.isfinite(values[known]).all():
                raise InputError("numbers of known joints that are not finite", where=where)
            used = (known & known[:, root, None])[..., None]
            moved = np.where(used, values - values[:, root : root + 1], 0.0)
            if total is None:
                total, counts = np.zeros(values.shape[1:]), np.zeros(values.shape[1], np.int64)
            total, counts = total + moved.sum(0), counts + used[..., 0].sum(0)
        if total is None or not counts.all():
            found = "no clip" if total is None else f"joints {np.flatnonzero(counts == 0).tolist()} in no frame"
            raise InputError("no mean pose of these clips", found=found, expected="every joint in some frame")
        return cls(total / counts[:, None], counts, root)

    def predict(self, frames: int) -> NDArray[np.float32]:
        """(T, J, 3) m: the mean pose T times (one pose in memory, read only)."""
        return np.broadcast_to(self.points.astype(np.float32), (frames, *self.points.shape))
