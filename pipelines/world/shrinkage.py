"""Shrinking predictions to the mean frame as far as they are uncertain, horizon by horizon.

A model that goes on being sure of what it can no longer know is worse, in squared error, than the mean of all training
frames. How much of a predicted change from that mean is worth keeping is told by frames that were not learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.datasets.world_types import Episode
from pipelines.data.datasets.world_windows import windows

if TYPE_CHECKING:
    from pipelines.world.engine import Fitted

__all__ = ["fit_shrinkage", "said", "shrunk"]

_BATCH = 16  # windows that are rolled out at once
_MOST = 256  # windows that are looked at, evenly over all


def fit_shrinkage(fitted: Fitted, episodes: Sequence[Episode], context: int, horizon: int) -> Tensor:
    """Factors by horizon that leave the least squared error on episodes, never rising with the horizon.

    At each horizon sum (p - m) (t - m) / sum (p - m)^2 over windows and values, p the prediction, t the truth, m the
    mean training frame; then made non-increasing and kept to [0, 1], which is least squares under these bounds.

    Args:
        fitted: the model, not shrunk yet.
        episodes: not learned from.
        context: frames that are seen.
        horizon: of the rollouts; shorter where no episode is long enough.

    Returns:
        (h,), without elements where no episode has a frame after the context.

    Complexity: 256 rollouts at most.

    Source: the shrinkage of James and Stein 1961, with the factor of least squares; isotonic regression by pooling
    adjacent violators (Barlow et al. 1972).
    """
    from sklearn.isotonic import IsotonicRegression

    from pipelines.world import engine

    steps = min(horizon, max(map(len, episodes), default=0) - context)
    if steps < 1:
        return torch.zeros(0)
    table = windows(episodes, context, steps)
    rows = np.unique(np.linspace(0, len(table) - 1, min(_MOST, len(table))).astype(np.int64))
    mean = fitted.mean.astype(np.float64)
    both, own = np.zeros(steps), np.zeros(steps)
    for low in range(0, len(rows), _BATCH):
        batch = table.take(rows[low : low + _BATCH])
        guess = engine.rolled(fitted, batch.seen, batch.actions, steps).astype(np.float64) - mean
        truth = batch.future.transpose(0, 1, 4, 2, 3).astype(np.float64) / 255 - mean
        both += (guess * truth).sum(axis=(0, 2, 3, 4))
        own += (guess * guess).sum(axis=(0, 2, 3, 4))
    # A prediction of the mean frame itself has no change to keep.
    best = np.where(own > 0, both / np.where(own > 0, own, 1.0), 1.0)
    falling = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=False)
    factors = falling.fit_transform(np.arange(steps), best, sample_weight=own + 1e-12 * own.max(initial=1.0))
    return torch.from_numpy(np.asarray(factors, np.float32))


def shrunk(frames: Tensor, mean: Tensor | NDArray[np.float32], factors: Tensor) -> Tensor:
    """Rollouts (B, h, C, H, W) whose changes from the mean frame (C, H, W) are scaled; the last factor goes on.

    Example:
        >>> shrunk(torch.ones(1, 3, 1, 1, 1), torch.zeros(1, 1, 1), torch.tensor([1.0, 0.5])).flatten().tolist()
        [1.0, 0.5, 0.5]
    """
    if not len(factors):
        return frames
    centre = torch.as_tensor(mean, device=frames.device, dtype=frames.dtype)
    steps = torch.arange(frames.shape[1]).clamp(max=len(factors) - 1)
    factor = factors[steps].to(frames).view(-1, 1, 1, 1)
    return centre + factor * (frames - centre)


def said(factors: Tensor) -> str:
    """One sentence on the factors.

    Example:
        >>> said(torch.tensor([1.0, 0.5]))
        'predicted changes from the mean training frame are scaled: by 1.00 at horizon 1, 0.50 from 2 on'
    """
    first, last = float(factors[0]), float(factors[-1])
    text = "predicted changes from the mean training frame are scaled: by"
    if len(factors) == 1:
        return f"{text} {first:.2f}"
    return f"{text} {first:.2f} at horizon 1, {last:.2f} from {len(factors)} on"
