"""The weights of the best epochs of a run: one, or several that are averaged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipelines.training.step import copied

__all__ = ["BestEpochs"]


class BestEpochs:
    """Keeps the weights of the epochs with the lowest validation losses; of equal losses the later ones.

    Args:
        count: how many; 0 and 1 keep the best alone.

    Complexity: O(count) copies of the weights in main memory, and in the checkpoint.

    Example:
        >>> model, best = nn.Linear(1, 1, bias=False), BestEpochs(2)
        >>> for loss, weight in ((0.3, 1.0), (0.1, 2.0), (0.2, 4.0)):
        ...     _ = model.weight.data.fill_(weight)
        ...     best.offer(loss, model)
        >>> best.weights()["weight"].item()
        3.0
    """

    def __init__(self, count: int) -> None:
        self._most = max(1, count)
        self._kept: list[tuple[float, dict[str, Tensor]]] = []

    def offer(self, loss: float, model: nn.Module) -> None:
        """Take over the weights of an epoch, if it is one of the best so far."""
        if len(self._kept) < self._most or loss <= self._kept[-1][0]:
            # The newest goes before its equals, so that the oldest of them is the first to leave.
            self._kept.insert(0, (loss, copied(model)))
            self._kept.sort(key=lambda entry: entry[0])
            del self._kept[self._most :]

    def weights(self) -> dict[str, Tensor]:
        """The mean of the weights that were kept (whole numbers: those of the best epoch); empty without any."""
        if not self._kept:
            return {}
        states = [weights for _, weights in self._kept]
        if len(states) == 1:
            return states[0]
        return {
            name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
            for name, value in states[0].items()
        }

    def plain(self) -> list[dict[str, Any]]:
        """What a checkpoint holds."""
        return [{"loss": loss, "weights": weights} for loss, weights in self._kept]

    def restore(self, plain: list[dict[str, Any]]) -> None:
        """Take over what a checkpoint holds."""
        self._kept = [(entry["loss"], entry["weights"]) for entry in plain]
