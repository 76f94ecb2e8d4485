"""Training and test series as the models take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.classify.tokens import Tokeniser
from pipelines.data.datasets.classification import LabelledDataset
from pipelines.training.loop import LossFn

__all__ = ["Examples", "loss", "mixed_loss", "tensors"]

Batch = dict[str, Tensor]
Series = Sequence[NDArray[np.float32]]


class Examples(LabelledDataset):
    """Standardised series with their classes: steps and masks, or the tokens of a tokeniser.

    Args:
        series: N arrays (V, T), NaN where nothing was measured.
        labels: (N,) classes by number.
        tokeniser: what the model takes instead of the steps.
        copies: further versions of all N series; each time one of the versions is drawn at random.
        repeat: passes over the series that count as one.
    """

    def __init__(
        self,
        series: Series,
        labels: NDArray[np.integer],
        tokeniser: Tokeniser | None = None,
        *,
        copies: Sequence[Series] = (),
        repeat: int = 1,
    ) -> None:
        every = [one for version in (series, *copies) for one in version]
        super().__init__(every, np.tile(np.asarray(labels), 1 + len(copies)))
        self.count, self.versions, self.repeat = len(series), 1 + len(copies), repeat
        self.tokens = None if tokeniser is None else tensors(tokeniser(every))

    def __len__(self) -> int:
        return self.count * self.repeat

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The examples of a list of places as one batch: what the model takes, and y (B,)."""
        rows = torch.as_tensor(indices, dtype=torch.int64) % self.count
        if self.versions > 1:
            rows = rows + self.count * torch.randint(self.versions, rows.shape)
        if self.tokens is None:
            batch = super().__getitems__(rows.tolist())
            batch.pop("index")
            return batch
        return {**{name: value[rows] for name, value in self.tokens.items()}, "y": self.labels[rows]}

    def inputs(self, start: int, stop: int) -> Batch:
        """What the model takes of some series in their order, without the classes; no copies."""
        rows = torch.arange(start, min(stop, self.count))
        if self.tokens is not None:
            return {name: value[rows] for name, value in self.tokens.items()}
        batch = super().__getitems__(rows.tolist())
        return {name: value for name, value in batch.items() if name not in ("y", "index")}


def tensors(arrays: dict[str, NDArray[Any]]) -> Batch:
    """Arrays as tensors that share their memory where they can."""
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropies of a batch, and their number."""
    logits = model(**{name: value for name, value in batch.items() if name != "y"})
    total = _cross_entropy(logits, batch["y"]).sum()
    return total, torch.tensor(len(batch["y"]), device=total.device)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) of logits (B, C), or the mean of several branches' (branches, B, C)."""
    readings = logits.reshape(-1, *logits.shape[-2:])
    return torch.stack([F.cross_entropy(one, y, reduction="none") for one in readings]).mean(0)


def mixed_loss(alpha: float) -> LossFn:
    """``loss`` in which, while training, each series has a share of another's tokens and class (mixup).

    The share is drawn from Beta(alpha, alpha) for every series of a batch; the series itself keeps at least a half. A
    token that either lacks is hidden. Source: Zhang et al. 2018 (arXiv 1710.09412), equation 1.

    Args:
        alpha: above 0; the larger, the more even the mixture.
    """

    def mixed(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if not model.training:
            return loss(model, batch)
        y = batch["y"]
        other = torch.randperm(len(y)).to(y.device)
        share = torch.distributions.Beta(alpha, alpha).sample((len(y),)).to(y.device)
        share = torch.maximum(share, 1 - share)
        logits = model(**{name: _mix(value, value[other], share) for name, value in batch.items() if name != "y"})
        own, others = (_cross_entropy(logits, target) for target in (y, y[other]))
        return (share * own + (1 - share) * others).sum(), torch.tensor(len(y), device=y.device)

    return mixed


def _mix(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """share of one and the rest of the other, by example; a flag holds where it holds for both."""
    if one.dtype == torch.bool:
        return one & other
    weight = share.view(-1, *[1] * (one.dim() - 1)).to(one.dtype)
    return weight * one + (1 - weight) * other
