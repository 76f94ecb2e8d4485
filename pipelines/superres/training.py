"""Training CFSR on photographs: absolute error on random patches, whole images held out to choose the epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.data.datasets.degradation import Degradation
from pipelines.data.datasets.superres import RandomPatches, TiledPatches, divide, make_pairs
from pipelines.errors import InputError
from pipelines.superres.models.cfsr import CFSR

if TYPE_CHECKING:
    from pipelines.superres.pipeline import SuperResolver

__all__ = ["absolute_error", "begin_from", "train"]

HELD_OUT = 0.1  # of the images
LEARNING_RATE = 1e-3


def absolute_error(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """Sum of the absolute errors and the number of values."""
    difference = model(batch["x"]).float() - batch["y"]
    return difference.abs().sum(), difference.numel()


def begin_from(model: CFSR, other: CFSR) -> list[str]:
    """Take over all weights of another model that fit: of one for another scale, all but the last convolution.

    Returns:
        Names of what was not taken over.

    Example:
        >>> begin_from(CFSR(scale=4), CFSR(scale=2))
        ['upsample.0.weight', 'upsample.0.bias']
    """
    state, own = other.state_dict(), model.state_dict()
    taken = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict({**own, **taken})
    return [name for name in own if name not in taken]


def train(
    pipeline: SuperResolver, model: CFSR, images: Mapping[str, NDArray[np.uint8]], degradation: Degradation
) -> tuple[dict[str, Any], list[str]]:
    """Train a model in place; returns a summary of the run and notes on the images.

    Args:
        pipeline: says how: ``train``, ``patch``, ``patches``, seed, device, precision, and where the run lies.
        model: the training graph.
        images: name -> (H, W, 3) uint8.
        degradation: how small images are made of them.

    Raises:
        InputError: too few images, or none that is large enough.
    """
    from pipelines.training.fitting import fit_module

    patch, patches = pipeline.patch, pipeline.patches
    fitting, held = divide(list(images), share=HELD_OUT, seed=pipeline.seed)
    pairs, notes = make_pairs({name: images[name] for name in fitting}, degradation, least=patch)
    apart, more = make_pairs({name: images[name] for name in held}, degradation, reductions=(1.0,), least=patch)
    if not pairs or not apart:
        raise InputError(
            "no image is large enough for a patch",
            where="data",
            expected=f"{patch * degradation.scale} pixels in both directions",
            cure="give larger images, or a smaller --patch",
        )
    torch.manual_seed(pipeline.seed)
    drawn = RandomPatches(pairs, patch, patches)
    result = fit_module(pipeline, model, absolute_error, drawn, TiledPatches(apart, patch), default_lr=LEARNING_RATE)
    summary = dataclasses.asdict(result)
    summary["images"] = {"train": fitting, "held_out": held}
    return summary, [*notes, *more]
