"""How much of a denoiser's answer to take, component by component, without knowing what is clean.

A component image x of a cube has noise of variance 1, so that Stein's formula gives the error of any estimate f(x) from
x alone, E |f - clean|^2 / P = |f - x|^2 / P - 1 + 2 div f / P. Of x + b (f - x) the best b is then
(1 - div f / P) P / |f - x|^2.
Where the denoiser would take structure away, |f - x|^2 is large and b small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_shares", "blended"]

Floats = NDArray[np.floating]
_STEP = 0.1  # standard deviations that the input is moved by to see how the answer follows


def best_shares(images: Floats, answer: Callable[[Floats], Floats], *, seed: int = 0) -> NDArray[np.float64]:
    """The share (R,) of an answer in each component that lies nearest to what is clean, between 0 and 1.

    Args:
        images: (R, h, w) with noise of variance 1.
        answer: the denoiser; called twice.
        seed: of the direction that the input is moved in.

    Complexity: two calls of the answer.

    Source: Stein 1981; Ramani, Blu and Unser 2008 for the divergence by one random direction.

    Example:
        >>> noisy = np.random.default_rng(0).standard_normal((1, 100, 100))
        >>> best_shares(noisy, lambda x: 0 * x).round(1).tolist()  # nothing but noise: take the answer
        [1.0]
        >>> best_shares(noisy + 9 * np.eye(100), lambda x: 0 * x).round(1).tolist()  # structure is lost: take half
        [0.6]
    """
    first = answer(images)
    direction = np.random.default_rng(seed).standard_normal(images.shape)
    moved = answer(images + _STEP * direction)
    pixels = images[0].size
    divergence = (direction * (moved - first)).sum((1, 2)) / _STEP / pixels
    distance = ((first - images) ** 2).sum((1, 2)) / pixels
    return np.clip((1 - divergence) / np.maximum(distance, 1e-12), 0.0, 1.0)


def blended(images: Floats, answer: Floats, shares: NDArray[np.float64]) -> Floats:
    """x + b (f - x) for component images (R, h, w).

    Example:
        >>> blended(np.zeros((1, 1, 2)), np.ones((1, 1, 2)), np.array([0.25])).tolist()
        [[[0.25, 0.25]]]
    """
    return images + shares[:, None, None] * (answer - images)
