"""Learning which documents match, and before it from the text alone: what a step reads, and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.match.models.pretraining import PretrainingHeads, pretraining_losses
from pipelines.match.models.smith import Smith
from pipelines.training.randomness import derive_seed

__all__ = ["Pairs", "Pretrained", "Windows", "pair_loss", "pretraining_loss"]

Indices = NDArray[np.int64]


class Windows:
    """Documents as rows of blocks, read through windows: at most so many successive blocks, drawn anew each epoch.

    Args:
        rows: of each document its blocks' ids (B, L), or their vectors (B, C); B from 1.
        limit: blocks of a window.

    Example:
        >>> windows = Windows([np.ones((3, 4), np.int32), np.ones((1, 4), np.int32)], limit=2)
        >>> rows, mask = windows.read([0, 1], [0, 0])
        >>> rows.shape, mask.tolist()
        (torch.Size([2, 2, 4]), [[True, True], [True, False]])
    """

    def __init__(self, rows: Sequence[NDArray[Any]], limit: int) -> None:
        self.rows, self.limit = rows, limit

    def read(self, documents: Sequence[int], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """One window of each document, padded to the longest: rows (N, B, ...), valid blocks (N, B)."""
        found = []
        for one, seed in zip(documents, seeds, strict=True):
            rows = self.rows[one]
            spare = len(rows) - self.limit
            start = seed % (spare + 1) if spare > 0 and seed else 0
            found.append(rows[start : start + self.limit])
        longest = max(map(len, found))
        kind = np.int64 if found[0].dtype.kind == "i" else np.float32
        out = np.zeros((len(found), longest, *found[0].shape[1:]), kind)
        mask = np.zeros((len(found), longest), bool)
        for place, rows in enumerate(found):
            out[place, : len(rows)] = rows
            mask[place, : len(rows)] = True
        return torch.from_numpy(out), torch.from_numpy(mask)


class Pretrained(Dataset[Any]):
    """Documents to learn words and blocks from; an example is a window of one document.

    Args:
        windows: ids of all documents.
        documents: (N,) which of them are learned from.
    """

    def __init__(self, windows: Windows, documents: Indices) -> None:
        self.windows, self.documents = windows, documents
        self._place = (0, 0)

    def __len__(self) -> int:
        return len(self.documents)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Windows and masks are drawn for (seed, epoch, document); validation is epoch 0."""
        self._place = (seed, epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        chosen = [int(self.documents[i]) for i in indices]
        seeds = [derive_seed(*self._place, one) for one in chosen]
        ids, _ = self.windows.read(chosen, seeds)
        return {"ids": ids, "seed": torch.tensor(seeds[0])}


class Pretraining(nn.Module):
    """A model with the heads that its pre-training needs."""

    def __init__(self, model: Smith, heads: PretrainingHeads) -> None:
        super().__init__()
        self.model, self.heads = model, heads


def pretraining_loss(blocks: bool, masked_blocks: int) -> Any:
    """Sum of the loss of masked words, and of masked blocks where wanted, for ``training.loop.train``."""

    def loss(module: Pretraining, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        ids = batch["ids"]
        generator = torch.Generator(device="cpu").manual_seed(int(batch["seed"]))
        count = masked_blocks if blocks else 0
        found = pretraining_losses(module.model, module.heads, ids, generator, masked_blocks=count)
        total = sum(found.values(), torch.zeros((), device=ids.device))
        return total * len(ids), len(ids)

    return loss


class Pairs(Dataset[Any]):
    """Documents that match; an example is one match, a step all documents of its matches and some near ones.

    Args:
        windows: blocks of all documents.
        matches: (P, 2) documents that match; each is one example.
        others: (Q, 2) documents known not to match; None where all other pairs do not.
        known: (M, 2) all documents that match, those of other parts too: never taken for negatives.
        near: (N, k) nearest documents of each that may serve as hard negatives, -1 where there are fewer; or None.
        allowed: (K,) documents that may be read.
        every: whether all documents of a step are compared, or each match beside one negative.
    """

    def __init__(
        self,
        windows: Windows,
        matches: Indices,
        known: Indices,
        allowed: Indices,
        *,
        others: Indices | None = None,
        near: Indices | None = None,
        every: bool = True,
    ) -> None:
        self.windows, self.matches, self.every = windows, matches, every
        self.allowed = set(allowed.tolist())
        self._linked: dict[int, set[int]] = {}
        for left, right in known.tolist():
            self._linked.setdefault(left, set()).add(right)
            self._linked.setdefault(right, set()).add(left)
        self._pool = allowed
        self._refused: dict[int, list[int]] = {}
        for left, right in [] if others is None else others.tolist():
            self._refused.setdefault(left, []).append(right)
            self._refused.setdefault(right, []).append(left)
        self._near = near
        self._place = (0, 0)

    def __len__(self) -> int:
        return len(self.matches)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Windows and negatives are drawn for (seed, epoch, example); validation is epoch 0."""
        self._place = (seed, epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        pairs: list[tuple[int, int, int]] = []
        for index in indices:
            left, right = self.matches[index].tolist()
            pairs.append((left, right, 1))
            generator = np.random.default_rng(derive_seed(*self._place, int(index)))
            pairs += [(a, b, 0) for a, b in self._negatives(left, right, generator)]
        documents = list(dict.fromkeys(one for left, right, _ in pairs for one in (left, right)))
        rows, mask = self.windows.read(documents, [derive_seed(*self._place, one) for one in documents])
        place = {one: number for number, one in enumerate(documents)}
        table = self._all_pairs(documents) if self.every else [(place[a], place[b], label) for a, b, label in pairs]
        left, right, label = (torch.tensor(column) for column in zip(*table, strict=True))
        return {"rows": rows, "mask": mask, "left": left, "right": right, "label": label.float()}

    def _negatives(self, left: int, right: int, generator: np.random.Generator) -> list[tuple[int, int]]:
        """A near document that matches neither is known to, or a known mismatch; without either one at random."""
        anchor = left if generator.random() < 0.5 else right
        candidates = [one for one in self._refused.get(anchor, []) if one in self.allowed]
        if not candidates and self._near is not None:
            linked = self._linked.get(anchor, set())
            near = self._near[anchor].tolist()
            candidates = [one for one in near if one in self.allowed and one not in linked and one != anchor]
        found = [(anchor, candidates[int(generator.integers(len(candidates)))])] if candidates else []
        if self.every or found:
            return found
        for _ in range(20):
            other = int(self._pool[int(generator.integers(len(self._pool)))])
            if other != anchor and other not in self._linked.get(anchor, set()):
                return [(anchor, other)]
        return []

    def _all_pairs(self, documents: Sequence[int]) -> list[tuple[int, int, int]]:
        return [
            (i, j, int(documents[j] in self._linked.get(documents[i], ())))
            for i in range(len(documents))
            for j in range(i + 1, len(documents))
        ]


def pair_loss(model: Smith, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    """Sum of the cross entropy over the pairs of a step, matches and others with equal weight in all.

    Source: SMITH (arXiv 2004.12297), section 4.4, over all pairs of the documents that a step holds.
    """
    rows, mask = batch["rows"], batch["mask"]
    blocks = model.block_vectors(rows) if rows.dtype == torch.int64 else rows
    vectors = model.document_vectors(blocks, mask)
    logits = model.logits(vectors[batch["left"]], vectors[batch["right"]])
    label = batch["label"]
    each = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    share = label.mean().clamp(1e-6, 1 - 1e-6)
    weight = torch.where(label > 0, 0.5 / share, 0.5 / (1 - share))
    matches = int(label.sum())
    return (each * weight).mean() * matches, matches
