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
    """Documents that match; an example is one match, a step its matches and as many documents drawn at random.

    Random documents against each other are the pairs that do not match: drawn among the matches' own documents they
    would teach that documents with many matches have none.

    Args:
        windows: blocks of all documents.
        matches: (P, 2) documents that match; each is one example.
        known: (M, 2) all documents that match, those of other parts too: never taken for others.
        allowed: (K,) documents that may be read.
        others: (Q, 2) pairs known not to match; None where all pairs but the known ones do not.
        near: (N, k) nearest documents of each that may serve as hard pairs, -1 where there are fewer; or None.
        every: whether all random documents of a step are compared, or one pair beside each match.
        words: (N, C) what the documents' words say, for models that read them and do not learn them.
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
        words: NDArray[np.float32] | None = None,
    ) -> None:
        self.windows, self.matches, self.every, self.words = windows, matches, every, words
        self._linked: dict[int, set[int]] = {}
        for left, right in known.tolist():
            self._linked.setdefault(left, set()).add(right)
            self._linked.setdefault(right, set()).add(left)
        self._pool, self._allowed = allowed, set(allowed.tolist())
        self._others, self._near = others, near
        self._place = (0, 0)

    def __len__(self) -> int:
        return len(self.matches)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Windows and other pairs are drawn for (seed, epoch, example); validation is epoch 0."""
        self._place = (seed, epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        matches = [tuple(self.matches[index].tolist()) for index in indices]
        generator = np.random.default_rng(derive_seed(*self._place, int(indices[0])))
        others = self._drawn(len(indices), generator) + self._hard(matches, generator)
        documents = list(dict.fromkeys(one for pair in (*matches, *others) for one in pair))
        rows, mask = self.windows.read(documents, [derive_seed(*self._place, one) for one in documents])
        place = {one: number for number, one in enumerate(documents)}
        pairs = torch.tensor([[place[a], place[b]] for a, b in (*matches, *others)])
        label = torch.tensor([1.0] * len(matches) + [0.0] * len(others))
        batch = {"rows": rows, "mask": mask, "left": pairs[:, 0], "right": pairs[:, 1], "label": label}
        return batch if self.words is None else batch | {"words": torch.from_numpy(self.words[documents])}

    def _drawn(self, count: int, generator: np.random.Generator) -> list[tuple[int, int]]:
        """Pairs that do not match: given ones, or of random documents."""
        if self._others is not None:
            if not len(self._others):
                return []
            return [tuple(pair) for pair in self._others[generator.integers(len(self._others), size=count)].tolist()]
        if self.every:
            chosen = generator.permutation(self._pool)[: max(2, count)].tolist()
            pairs = [(a, b) for number, a in enumerate(chosen) for b in chosen[number + 1 :]]
        else:
            pairs = [tuple(pair) for pair in generator.choice(self._pool, (4 * count, 2)).tolist()]
        free = [(a, b) for a, b in pairs if a != b and b not in self._linked.get(a, ())]
        return free if self.every else free[:count]

    def _hard(self, matches: Sequence[tuple[int, ...]], generator: np.random.Generator) -> list[tuple[int, int]]:
        """Beside each match, one of its documents with a near one that it does not match."""
        if self._near is None:
            return []
        found = []
        for pair in matches:
            anchor = pair[int(generator.integers(2))]
            linked = self._linked.get(anchor, set())
            near = [one for one in self._near[anchor].tolist() if one in self._allowed and one not in linked]
            near = [one for one in near if one != anchor]
            if near:
                found.append((anchor, near[int(generator.integers(len(near)))]))
        return found


def pair_loss(model: Smith, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    """Sum of the cross entropy over the pairs of a step, matches and others with equal weight in all.

    Source: SMITH (arXiv 2004.12297), section 4.4, over more pairs.
    """
    rows, mask = batch["rows"], batch["mask"]
    learned = rows.dtype == torch.int64
    words = model.word_vectors(rows) if learned else batch.get("words")
    vectors = model.document_vectors(model.block_vectors(rows) if learned else rows, mask, words=words)
    logits = model.logits(vectors[batch["left"]], vectors[batch["right"]])
    label = batch["label"]
    each = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    share = label.mean().clamp(1e-6, 1 - 1e-6)
    weight = torch.where(label > 0, 0.5 / share, 0.5 / (1 - share))
    matches = int(label.sum())
    return ((each * weight).mean() + model.penalty()) * matches, matches
