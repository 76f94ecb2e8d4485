"""How far a joint may be off, told from how far the answers to a picture and to its mirror image lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["calibrated"]


def calibrated(error: NDArray[Any], apart: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """mm of each joint, and mm a mm between two answers: squared errors as a constant and a share, by least squares.

    Args:
        error: (N, J) mm.
        apart: (N, J) mm between the answers to a picture and its mirror image.
        known: (N, J) which of them count.

    Returns:
        (J + 1,).

    Complexity: O(N J).

    Example:
        >>> apart = np.random.default_rng(0).uniform(0, 10, (50, 2))
        >>> calibrated(np.sqrt(9 + 4 * apart**2), apart, np.ones((50, 2), bool)).round(3).tolist()
        [3.0, 3.0, 2.0]
    """
    square, gap = np.where(known, error**2, 0.0), np.where(known, apart**2, 0.0)
    count = np.maximum(known.sum(0), 1)
    middle, centre = square.sum(0) / count, gap.sum(0) / count
    both = float((np.where(known, gap - centre, 0.0) * np.where(known, square - middle, 0.0)).sum())
    own = float(np.where(known, (gap - centre) ** 2, 0.0).sum())
    slope = max(0.0, both / own) if own else 0.0
    constant = np.maximum(middle - slope * centre, 1.0)
    return np.array([*np.sqrt(constant), np.sqrt(slope)], np.float32)
