"""Rotations as quaternions w, x, y, z and as matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.errors import InputError

__all__ = ["quaternion_of", "rotation_of"]


def rotation_of(quaternion: ArrayLike) -> NDArray[np.float64]:
    """The rotation matrices (..., 3, 3) of quaternions (..., 4) w, x, y, z, of any length but 0.

    Raises:
        InputError: another shape, a quaternion of length 0 or not finite.

    Complexity: O(quaternions).

    Source: R = 1 + 2 w [v] + 2 [v]^2 for a unit quaternion (w, v), [v] the matrix of the cross product.

    Example:
        >>> (rotation_of([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])[0].round(6) + 0.0).tolist()  # a quarter turn about z
        [0.0, -1.0, 0.0]
    """
    turn = np.asarray(quaternion, np.float64)
    length = np.linalg.norm(turn, axis=-1, keepdims=True) if turn.ndim and turn.shape[-1] == 4 else np.zeros(1)
    if not (np.isfinite(length) & (length > 0)).all():
        raise InputError("not quaternions", where="rotation", found=turn.tolist(), expected="w, x, y, z, not all 0")
    w, x, y, z = np.moveaxis(turn / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2) + 0.0


def quaternion_of(rotation: ArrayLike) -> NDArray[np.float64]:
    """The unit quaternion (4,) w, x, y, z with w >= 0 of a rotation matrix (3, 3).

    Complexity: O(1).

    Source: the eigenvector of the largest eigenvalue of Bar-Itzhack's matrix, 2000; good for any angle.

    Example:
        >>> quaternion_of(np.diag([-1.0, -1.0, 1.0])).round(6).tolist()  # half a turn about z
        [0.0, 0.0, 0.0, 1.0]
    """
    r = np.asarray(rotation, np.float64)
    if r.shape != (3, 3) or not np.isfinite(r).all():
        raise InputError("not a rotation", where="rotation", found=r.shape, expected="(3, 3), finite")
    vector = [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]
    matrix = np.zeros((4, 4))
    matrix[0, 0] = np.trace(r)
    matrix[0, 1:] = matrix[1:, 0] = vector
    matrix[1:, 1:] = r + r.T - np.eye(3) * np.trace(r)
    found = np.linalg.eigh(matrix)[1][:, -1]
    lead = found[np.abs(found) > 1e-9][0]
    return found * np.sign(lead) + 0.0
