"""The training loop of every pipeline, on Lightning Fabric.

Why Fabric and not the Trainer: after a kill in mid-epoch the Trainer's resume gave another run (20 of 64 steps
bit-identical without shuffling, 32 of 64 with), and on SIGTERM it exits 0. Fabric leaves the loop to us, so that its
state can be saved whole: weights, Adam's moments, the place in the seeded order, running sums, the best weights and the
states of every random generator. A run that was killed with SIGKILL in mid-epoch and resumed ends with bit-identical
weights for the same number of processes and threads (tests/faults/test_training_faults.py).

Several processes (torchrun) divide each batch among them and give the gradient of the whole batch: each scales its own
sum by world / global count, which DDP's mean over processes turns into sum / count. Statistics that a model takes over
its batch (batch normalisation, lags chosen by batch) are taken over each process's share.

Deterministic algorithms are not forced: on CPU the kernels used here are deterministic, on CUDA forcing them costs time
and refuses some operations; call `torch.use_deterministic_algorithms(True)` before training for exact runs there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, cast

from torch import nn
from torch.utils.data import Dataset

from pipelines.errors import ConfigError, RunError, UserError
from pipelines.progress import Progress
from pipelines.training import checkpoint, randomness
from pipelines.training.batches import BatchLoader
from pipelines.training.distributed import World, connect
from pipelines.training.options import TrainOptions
from pipelines.training.run import Run
from pipelines.training.signals import SignalGuard
from pipelines.training.state import TrainResult
from pipelines.training.step import LossFn

__all__ = ["LossFn", "TrainResult", "train"]


def train(
    model: nn.Module,
    loss_fn: LossFn,
    train_set: Dataset[Any],
    val_set: Dataset[Any] | None,
    options: TrainOptions,
    *,
    folder: str | pathlib.Path,
    seed: int,
    device: str = "auto",
    precision: str = "32-true",
    progress: Progress | None = None,
    resume: bool = False,
    default_lr: float = 1e-3,
    overwrite: bool = False,
) -> TrainResult:
    """Fit a model with Adam and leave the best weights of the run in it, on the device, in eval mode.

    Args:
        model: what is trained; its weights are those of the best epoch afterwards.
        loss_fn: (model, batch) -> (sum of the loss, number of values summed); the loss of a step is sum / number.
        train_set, val_set: see `pipelines.training.batches`; without a validation set the last weights are kept.
        options: how long, how fast.
        folder: where the checkpoint `training.pt` is kept; made if missing.
        seed: of order, augmentation and dropout (the model's weights are the caller's); >= 0.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        progress: where to show it; nowhere by default.
        resume: continue the run of the folder; a finished run returns its result at once.
        default_lr: step size where the options have none.
        overwrite: whether a checkpoint in the folder may be replaced by a new run.

    Returns:
        The result; losses are means over all values of the set, never means over batches.

    Raises:
        ConfigError: options out of range, an empty set, nothing to train, a device that is not there, a checkpoint in
            the way, none to resume from, or one of a run with other settings.
        WeightsError: a damaged or foreign checkpoint.
        RunError: the loss is not finite, or the disk is full or not writable; the last checkpoint stays.
        Interrupted: SIGINT or SIGTERM came; the state is saved.

    Complexity: about 0.5 ms of CPU a step beside a bare loop with the same model and data (measured on one core).

    The global random generators are as they were before when the function returns.
    """
    options.validate()
    _check_sets(train_set, val_set, seed)
    world = connect(device, precision)
    path = _prepare(world, pathlib.Path(folder), resume=resume, overwrite=overwrite)
    with randomness.isolated(), SignalGuard() as guard:
        randomness.seed_everything(randomness.derive_seed(seed, world.rank))
        base = options.learning_rate if options.learning_rate is not None else default_lr
        double = precision == "64-true"
        run = Run(world, guard, model, loss_fn, options, base, path, progress or Progress(quiet=True), double=double)
        run.begin(_fingerprint(world, options, base, seed, precision, train_set, val_set), resume=resume)
        if not run.state.finished:
            with _loaders(world, options, seed, train_set, val_set) as (train_batches, val_batches):
                run.fit(train_batches, val_batches)
        run.load_best()
    return run.state.result()


def _check_sets(train_set: Dataset[Any], val_set: Dataset[Any] | None, seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ConfigError("not a seed", where="seed", found=seed, expected="a whole number from 0 to 2^63 - 1")
    for name, dataset in (("training", train_set), ("validation", val_set)):
        if dataset is not None and len(cast(Any, dataset)) < 1:
            raise ConfigError(f"the {name} set has no examples", where=name, found=0, expected="at least 1")


def _prepare(world: World, folder: pathlib.Path, *, resume: bool, overwrite: bool) -> pathlib.Path:
    error: Exception | None = None
    if world.rank == 0:
        try:
            checkpoint.prepare_folder(folder, resume=resume, overwrite=overwrite)
        except (RunError, UserError) as failure:
            error = failure
    world.raise_together(error)
    return folder / checkpoint.CHECKPOINT_NAME


def _fingerprint(
    world: World,
    options: TrainOptions,
    base: float,
    seed: int,
    precision: str,
    train_set: Dataset[Any],
    val_set: Dataset[Any] | None,
) -> dict[str, Any]:
    """What decides the result; how many workers read and how often it is saved does not."""
    free = ("workers", "checkpoint_minutes", "checkpoint_steps")
    decisive = {name: value for name, value in dataclasses.asdict(options).items() if name not in free}
    return decisive | {
        "learning_rate": base,
        "seed": seed,
        "precision": precision,
        "device": world.device.type,
        "number of processes": world.size,
        "number of training examples": len(cast(Any, train_set)),
        "number of validation examples": 0 if val_set is None else len(cast(Any, val_set)),
        "training data (checksum)": checkpoint.data_digest(train_set, seed),
    }


@contextlib.contextmanager
def _loaders(
    world: World, options: TrainOptions, seed: int, train_set: Dataset[Any], val_set: Dataset[Any] | None
) -> Iterator[tuple[BatchLoader, BatchLoader | None]]:
    shared: dict[str, Any] = {
        "batch_size": options.batch_size,
        "seed": seed,
        "rank": world.rank,
        "world": world.size,
        "workers": options.workers,
        "pin": world.device.type == "cuda",
    }
    train_batches = BatchLoader(train_set, shuffle=True, **shared)
    val_batches = None if val_set is None else BatchLoader(val_set, shuffle=False, **shared)
    try:
        yield train_batches, val_batches
    finally:
        train_batches.close()
        if val_batches is not None:
            val_batches.close()
