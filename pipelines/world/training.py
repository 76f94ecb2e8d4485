"""What a step of training reads: windows of episodes, drawn anew; and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.data.datasets.world_types import Episode
from pipelines.data.datasets.world_windows import Windows, windows
from pipelines.errors import InputError
from pipelines.training.randomness import derive_seed
from pipelines.world.losses import LossWeights, window_loss

if TYPE_CHECKING:
    from pipelines.world.pipeline import WorldModel

__all__ = ["DrawnWindows", "as_frames", "loss_of"]


def as_frames(stored: np.ndarray | Tensor) -> Tensor:
    """Stored frames (..., H, W, C) uint8 as models see them, (..., C, H, W) float32 in [0, 1].

    Example:
        >>> as_frames(np.full((2, 4, 6, 3), 255, np.uint8)).shape
        torch.Size([2, 3, 4, 6])
    """
    frames = torch.as_tensor(stored).movedim(-1, -3)
    return frames.to(torch.float32, memory_format=torch.contiguous_format).contiguous().div_(255)


class DrawnWindows(Dataset[Any]):
    """So many windows an epoch, drawn for (seed, epoch, example); validation draws the same ones each time.

    All windows of a batch have one length: the context and one of the lengths of rollouts, drawn for the batch. Short
    episodes take part in the lengths that they reach.

    Args:
        m: the pipeline.
        episodes: that are drawn from.
        count: windows of an epoch.
        changing: whether each epoch draws others.
        actions: whether actions are given.

    Raises:
        InputError: no episode is as long as the shortest window.
    """

    def __init__(
        self, m: WorldModel, episodes: Sequence[Episode], count: int, *, changing: bool, actions: bool
    ) -> None:
        self.count, self.changing, self.actions = count, changing, actions
        self.tables: dict[int, Windows] = {}
        longest = max(len(episode) for episode in episodes)
        self.notes: list[str] = []
        for free in sorted(set(m.objective.free)):
            if m.context + free <= longest:
                self.tables[free] = windows(episodes, m.context, free)
        left = sorted(set(m.objective.free) - set(self.tables))
        if not self.tables:
            raise InputError("no episode is as long as a window", where="data", found=f"{longest} frames at most",
                             expected=f"{m.context + min(m.objective.free)} frames or more",
                             cure="a longer film, or shorter rollouts in --objective.free")  # fmt: skip
        if left:
            self.notes.append(f"no episode holds a rollout of {', '.join(map(str, left))} frames: not trained on")
        self._place = (0, 0)

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Windows are drawn for (seed, epoch, example)."""
        self._place = (seed, epoch if self.changing else 0)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        generator = np.random.default_rng(derive_seed(*self._place, int(min(indices)), len(indices)))
        free = int(generator.choice(sorted(self.tables)))
        table = self.tables[free]
        batch = table.take(generator.integers(0, len(table), len(indices)))
        # Decoding costs most: the farthest frame and one before it stand for the rollout.
        between = int(generator.integers(1, free + 1))
        found = {
            "frames": torch.from_numpy(batch.frames),
            "free": torch.tensor([free, between]),
        }
        if self.actions and batch.actions is not None:
            found["stimuli"] = torch.from_numpy(np.ascontiguousarray(batch.actions, np.float32))
        return found


def loss_of(m: WorldModel) -> Any:
    """The loss of windows by the pipeline's options, for ``loop.train``.

    Source: FluidWorld (arXiv 2603.21315), the loss; rollouts of several frames are ours.
    """
    o = m.objective
    weights = LossWeights(rebuild=o.rebuild, gradient=o.gradient, variance=o.variance)

    def measure(module: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        net: Any = module
        free, between = batch["free"].tolist()
        frames = as_frames(batch["frames"])
        at = sorted({free, between})
        total, count, _ = window_loss(
            net, frames, batch.get("stimuli"), teacher=m.context, free=free, at=at, weights=weights
        )
        return total, torch.tensor(count)

    return measure
