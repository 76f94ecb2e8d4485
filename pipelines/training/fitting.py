"""Training the module of a pipeline with the pipeline's own options, folder and listener."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.data import Dataset

from pipelines.training.loop import LossFn, TrainResult, train

if TYPE_CHECKING:
    from pipelines.base import Pipeline

__all__ = ["fit_module"]


def fit_module(
    pipeline: Pipeline,
    module: nn.Module,
    loss_fn: LossFn,
    train_set: Dataset[Any],
    val_set: Dataset[Any] | None,
    *,
    default_lr: float,
) -> TrainResult:
    """Train as the pipeline says (``train``, seed, device, precision) and where its run lies.

    Args:
        pipeline: a pipeline with an argument ``train``.
        module, loss_fn, train_set, val_set: as for ``pipelines.training.loop.train``.
        default_lr: step size where the options have none.

    A run without a folder leaves no training state behind; one with a folder can be resumed.
    """
    run = pipeline.run
    options: Any = pipeline
    run.begin_training()
    with tempfile.TemporaryDirectory() as scratch:
        return train(
            module,
            loss_fn,
            train_set,
            val_set,
            options.train,
            folder=run.folder if run.folder is not None else Path(scratch),
            seed=pipeline.seed,
            device=pipeline.device,
            precision=pipeline.precision,
            progress=run.progress,
            resume=run.resume and run.folder is not None and (run.folder / "training.pt").exists(),
            default_lr=default_lr,
            overwrite=run.overwrite,
        )
