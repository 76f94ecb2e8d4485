"""What a step of training reads, and its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.fmri.augment import augment, mixup
from pipelines.fmri.augment_options import AugmentOptions
from pipelines.fmri.material import Shelf
from pipelines.training.randomness import derive_seed

__all__ = ["Labelled", "label_loss"]


class Labelled(Dataset[Any]):
    """Windows with their labels; an example is one window.

    Args:
        shelf: windows of all runs.
        run, start, label: (N,) of each example.
        frames: volumes of a window.
        options: what is done to windows; None for measuring.
        fill: (R,) value of each run's background.
        zooms: edges of a voxel in mm.
    """

    def __init__(
        self,
        shelf: Shelf,
        run: NDArray[np.int64],
        start: NDArray[np.int64],
        label: NDArray[Any],
        frames: int,
        *,
        options: AugmentOptions | None = None,
        fill: Sequence[float] = (),
        zooms: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        self.shelf, self.run, self.start, self.label, self.frames = shelf, run, start, label, frames
        self.options, self.fill, self.zooms = options, fill, zooms
        self._place = (0, 0)
        self._means: Tensor | None = None

    def __len__(self) -> int:
        return len(self.run)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Changes are drawn for (seed, epoch, example)."""
        self._place = (seed, epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        chosen = np.asarray(indices, np.int64)
        runs = self.run[chosen].tolist()
        x = self._windows(chosen)
        seeds = [derive_seed(*self._place, int(one)) for one in chosen]
        if self.options is not None:
            if self.options.recombine > 0:
                x = self._recombined(x, chosen, seeds[0])
            x = augment(x, self.options, seeds, fill=[self.fill[run] for run in runs], zooms=self.zooms)
        label = torch.from_numpy(np.asarray(self.label[chosen]))
        label = label if label.dtype == torch.int64 else label.float()
        batch = {"x": x, "label": label}
        if self.options is not None and self.options.mixup > 0 and len(chosen) > 1:
            mixed = mixup(x, self.options.mixup, seeds[0])
            batch |= {"x": mixed.windows, "other": label[mixed.other], "share": mixed.share}
        return batch

    def _windows(self, chosen: NDArray[np.int64]) -> Tensor:
        runs, starts = self.run[chosen].tolist(), self.start[chosen].tolist()
        return torch.from_numpy(self.shelf.windows(runs, starts, self.frames))

    def _recombined(self, x: Tensor, chosen: NDArray[np.int64], seed: int) -> Tensor:
        """mean + cos(a) (own difference from it) + sin(a) (another window's difference from the mean of its class).

        With independent differences of one covariance the result has that covariance too, for any angle a.
        """
        draw = np.random.default_rng(seed)
        others = draw.integers(len(self.run), size=len(chosen))
        angle = draw.uniform(0, np.pi / 2, len(chosen)) * (draw.random(len(chosen)) < (self.options or _OFF).recombine)
        means = self._class_means()
        own, other = (means[torch.from_numpy(self.label[rows])] for rows in (chosen, others))
        turn = torch.from_numpy(angle).to(x).view(-1, 1, 1, 1, 1, 1)
        return own + torch.cos(turn) * (x - own) + torch.sin(turn) * (self._windows(others) - other)

    def _class_means(self) -> Tensor:
        """(K, 1, X, Y, Z, T) mean window of each class."""
        if self._means is None:
            sums: dict[int, Tensor] = {}
            for low in range(0, len(self.run), 64):
                rows = np.arange(low, min(low + 64, len(self.run)))
                for window, label in zip(self._windows(rows).double(), self.label[rows].tolist(), strict=True):
                    sums[label] = sums[label] + window if label in sums else window
            count = np.bincount(self.label)
            empty = torch.zeros_like(next(iter(sums.values())))
            found = [sums.get(label, empty) / max(1, int(count[label])) for label in range(len(count))]
            self._means = torch.stack(found).float()
        return self._means


_OFF = AugmentOptions()


def label_loss(smoothing: float = 0.0) -> Callable[[nn.Module, Mapping[str, Tensor]], tuple[Tensor, int]]:
    """Cross entropy of classes, squared error of numbers, summed over the windows of a step, for ``loop.train``.

    Args:
        smoothing: share of each label that is spread over all classes while training.
    """

    def loss(module: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        scores = module(batch["x"])
        spread = smoothing if module.training else 0.0
        each = _each(scores, batch["label"], spread)
        if "other" in batch:
            share = batch["share"].to(each)
            each = share * each + (1 - share) * _each(scores, batch["other"], spread)
        return each.sum(), len(each)

    return loss


def _each(scores: Tensor, label: Tensor, smoothing: float) -> Tensor:
    if label.dtype == torch.int64:
        return F.cross_entropy(scores, label, reduction="none", label_smoothing=smoothing)
    return (scores[:, 0] - label).square()
