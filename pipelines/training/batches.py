"""Batches in a seeded order that can be entered at any position, with randomness tied to the place, not the process.

The order of epoch e is a permutation drawn from a generator of its own, seeded by (seed, e); a resumed run draws the
same permutation and starts at the batch where it stopped. Before each batch is read the global generators are seeded by
(seed, epoch, batch, rank), in workers and in the main process alike, so that a data set that augments from `random`,
`numpy.random` or torch's global generator gives the same batch whatever was read before and however many workers read.
A data set may say itself which examples make a batch (`plan(seed, epoch)` -> lists of indices in which each example
stands once, equally many lists every epoch): sound is batched by seconds. It may also define `set_epoch(seed, epoch)`,
called before the first batch of each epoch, from which it can derive randomness for (seed, epoch, index): then its
examples do not depend on the batch either. Validation reads as epoch 0.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from pipelines.training.randomness import derive_seed, isolated, seed_host

__all__ = ["Batch", "BatchLoader", "Job", "epoch_order", "share"]


class Job(NamedTuple):
    """What one process reads for one step."""

    epoch: int
    number: int
    indices: list[int]
    """Never empty: a process without a share reads one example and gives it no weight."""

    weight: float
    """1, or 0 where this process has no share of the batch."""


class Batch(NamedTuple):
    """What was read for a job."""

    data: dict[str, torch.Tensor]
    weight: float


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The permutation (count,) of an epoch; the same for the same numbers on every machine.

    Example:
        >>> sorted(epoch_order(4, seed=0, epoch=1).tolist())
        [0, 1, 2, 3]
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(seed, epoch)))


def share(indices: torch.Tensor, rank: int, world: int) -> tuple[list[int], float]:
    """This process's part of a batch, by `tensor_split`, and its weight.

    Every process must take part in every step, or the others wait for ever: one with no part reads the first example
    with weight 0.

    Example:
        >>> share(torch.tensor([7, 8, 9]), rank=1, world=2), share(torch.tensor([7]), rank=1, world=2)
        (([9], 1.0), ([7], 0.0))
    """
    own = indices if world == 1 else torch.tensor_split(indices, world)[rank]
    return (own.tolist(), 1.0) if len(own) else (indices[:1].tolist(), 0.0)


class BatchLoader:
    """Reads a data set in batches, epoch by epoch, in this process or in workers that live as long as the loader.

    Args:
        dataset: indexed, with `__len__`; read by `__getitems__(list)` (a list of examples, or a finished dict of
            tensors) where it has that, else by `__getitem__`.
        batch_size: examples of a batch over all processes; the last batch of an epoch may be smaller, none is dropped.
            Of no use to a data set with a `plan`.
        seed: of order and augmentation.
        shuffle: whether an epoch is permuted.
        rank, world: this process and the number of processes.
        workers: processes that read ahead.
        pin: put batches in page-locked memory for a CUDA device.

    Complexity: O(n) an epoch for the order, O(1) a batch beside the data set's own work.

    Example:
        >>> loader = BatchLoader(torch.utils.data.TensorDataset(torch.arange(5)), batch_size=2, seed=0, shuffle=False)
        >>> [batch.data[0].tolist() for batch in loader.epoch(1, start=1)]
        [[2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        self._jobs = _Jobs(dataset, batch_size, seed, shuffle, rank, world)
        self.batches = len(self._jobs.lists(1))
        self._loader: DataLoader[Batch] = DataLoader(
            _SeededReader(dataset, seed, rank),
            batch_size=None,
            sampler=self._jobs,
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker if workers else None,
            # A generator of its own: the loader's base seed must not be drawn from the model's generator.
            generator=torch.Generator().manual_seed(derive_seed(seed, 0)),
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (counted from 1) from batch `start` (counted from 0) on."""
        self._jobs.epoch, self._jobs.start = epoch, start
        return iter(self._loader)

    def close(self) -> None:
        """Stop the workers now instead of when the loader is collected."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
            self._loader._iterator = None


class _Jobs(Sampler[Job]):
    def __init__(self, dataset: Dataset[Any], batch_size: int, seed: int, shuffle: bool, rank: int, world: int) -> None:
        self.epoch, self.start = 1, 0
        self._count, self._plan = len(cast(Any, dataset)), getattr(dataset, "plan", None)
        self._batch_size, self._seed, self._shuffle = batch_size, seed, shuffle
        self._rank, self._world = rank, world

    def lists(self, epoch: int) -> list[torch.Tensor]:
        """Indices of the examples of each batch, over all processes."""
        if self._plan is not None:
            return [torch.tensor(indices) for indices in self._plan(self._seed, epoch if self._shuffle else 0)]
        order = epoch_order(self._count, self._seed, epoch) if self._shuffle else torch.arange(self._count)
        return list(order.split(self._batch_size))

    def __iter__(self) -> Iterator[Job]:
        epoch, start = self.epoch, self.start
        for number, indices in enumerate(self.lists(epoch)):
            if number >= start:
                yield Job(epoch, number, *share(indices, self._rank, self._world))


class _SeededReader(Dataset[Batch]):
    """Reads the examples of a job with generators seeded by the job's place."""

    def __init__(self, dataset: Dataset[Any], seed: int, rank: int) -> None:
        self._dataset, self._seed, self._rank = dataset, seed, rank
        self._epoch: int | None = None

    def __getitem__(self, index: Any) -> Batch:
        job: Job = index
        with isolated(devices=False):
            seed_host(derive_seed(self._seed, job.epoch, job.number, self._rank))
            self._announce(job.epoch)
            return Batch(_read(self._dataset, job.indices), job.weight)

    def _announce(self, epoch: int) -> None:
        if epoch != self._epoch:
            hook = getattr(self._dataset, "set_epoch", None)
            if hook is not None:
                hook(self._seed, epoch)
            self._epoch = epoch


def _read(dataset: Dataset[Any], indices: list[int]) -> Any:
    fetch = getattr(dataset, "__getitems__", None)
    items = fetch(indices) if fetch is not None else [dataset[index] for index in indices]
    return items if isinstance(items, Mapping) else default_collate(items)


def _start_worker(number: int) -> None:
    """Leave signals to the main process: it finishes its step and then stops the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
