"""Training HSDT on lifted photographs with simulated noise of every kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pipelines.data.datasets.lifted import FixedCubes, LiftedCubes
from pipelines.data.datasets.superres import divide

if TYPE_CHECKING:
    from pipelines.denoise.pipeline import Denoiser
    from pipelines.denoise.reading import Clean

__all__ = ["squared_error", "train"]

HELD_OUT = 0.1  # of the images
VALIDATION = 48  # cubes of the held-out images
LEARNING_RATE = 1e-3


def squared_error(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """Sum of the squared errors and the number of values."""
    difference = model(batch["x"]).float() - batch["y"]
    return (difference * difference).sum(), difference.numel()


def train(d: Denoiser, model: nn.Module, clean: Sequence[Clean]) -> dict[str, Any]:
    """Train a model in place; returns a summary of the run.

    Args:
        d: the pipeline, which says how: ``train``, ``patch``, ``patches``, seed, device, precision, where the run lies.
        model: an HSDT.
        clean: photographs and clean cubes; a tenth of them is held out.

    Raises:
        InputError: too few of them, or none as large as a patch.
    """
    from pipelines.training.fitting import fit_module

    fitting, held = divide([one.name for one in clean], share=HELD_OUT, seed=d.seed)
    drawn = _cubes(d, [one for one in clean if one.name in fitting], d.patches)
    kept = FixedCubes(_cubes(d, [one for one in clean if one.name in held], VALIDATION), VALIDATION, seed=d.seed)
    result = fit_module(d, model, squared_error, drawn, kept, default_lr=LEARNING_RATE)
    return dataclasses.asdict(result) | {"sources": {"train": fitting, "held_out": held}}


def _cubes(d: Denoiser, clean: Sequence[Clean], count: int) -> LiftedCubes:
    images = [one.image for one in clean if one.image is not None]
    cubes = [one.cube for one in clean if one.cube is not None]
    return LiftedCubes(images, count, cubes=cubes, patch=d.patch, projected=d.projected)
