"""Which models there are for super-resolution and what can be set about them; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pipelines.errors import ConfigError
from pipelines.model_list import ModelInfo, chosen_options, find_model
from pipelines.training.options import TrainOptions

__all__ = ["MODELS", "TRAINING", "ArchOptions", "DegradeOptions", "ModelInfo", "architecture", "check_values"]

#: The recipe: 4,000 patches an epoch, step size falling along a cosine.
TRAINING = TrainOptions(epochs=24, batch_size=16, patience=0, schedule="cosine")

#: Factors that an image can be enlarged by.
LARGEST_SCALE = 8


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of the model; what is left out is the paper's."""

    dim: int | None = None
    """Channels of the features (48)."""
    depths: tuple[int, ...] | None = None
    """Blocks of each group (6, 6)."""
    kernel: int | None = None
    """Odd width of the large kernels (9)."""
    ratio: int | None = None
    """Channels inside the feed-forward nets, in multiples of dim (2)."""
    heads: int | None = None
    """Heads, for another mechanism that has heads (4)."""
    legacy_masks: bool | None = None
    """Edge masks as in the released code, which are not quite Sobel's and Laplace's (off)."""


@dataclass(frozen=True)
class DegradeOptions:
    """How small images are made of large ones, in training and evaluation, beside MATLAB's bicubic reduction."""

    blur: float = 0.0
    """Standard deviation of a Gaussian blur before the reduction, in pixels of the large image."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise after it, on the scale of 0 to 255."""
    jpeg: int | None = None
    """Quality, 1 to 100, of a JPEG file through which the small image goes last."""


_INFOS = (
    ModelInfo(
        name="cfsr",
        paper="CFSR: Transforming Image Super-Resolution: A ConvFormer-based Efficient Approach (arXiv 2401.05633)",
        sheet=45,
        summary="gates of 9x9 depthwise convolutions and feed-forward nets with edge filters, 0.3 M parameters",
        learning_rate=1e-3,
        attention="large_kernel",
        defaults=MappingProxyType(
            {"dim": 48, "depths": (6, 6), "kernel": 9, "ratio": 2, "heads": 4, "legacy_masks": False}
        ),
    ),
    ModelInfo(
        name="bicubic",
        paper="Keys 1981, cubic convolution; as MATLAB's imresize",
        sheet=0,
        summary="interpolation between 4 x 4 neighbours, nothing learned",
        baseline=True,
    ),
)

#: Models by name.
MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})


def architecture(name: str, arch: ArchOptions) -> dict[str, Any]:
    """The sizes that a model is built with.

    Raises:
        ConfigError: an unknown model, or an option that it does not have.

    Example:
        >>> architecture("cfsr", ArchOptions(dim=16))["depths"]
        (6, 6)
    """
    chosen = chosen_options(MODELS, name, arch)
    if "depths" in chosen:
        chosen["depths"] = tuple(chosen["depths"])
    return chosen


def check_values(*, scale: object, patch: object, patches: object, memory: object, limit: object, tile: object) -> None:
    """Refuse sizes that cannot be.

    Raises:
        ConfigError: one of them is out of its range.

    Example:
        >>> check_values(scale=9, patch=32, patches=1, memory=600, limit=500, tile=None)
        Traceback (most recent call last):
        pipelines.errors.ConfigError: scale: out of range. Found: 9. Expected: a whole number from 1 to 8.
    """
    _whole("scale", scale, 1, LARGEST_SCALE)
    _whole("patch", patch, 8)
    _whole("patches", patches, 1)
    _whole("memory", memory, 1)
    _whole("limit", limit, 1)
    if tile is not None:
        _whole("tile", tile, 8)


def _whole(name: str, value: object, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        expected = f"a whole number from {least}" + (f" to {most}" if most is not None else "")
        raise ConfigError("out of range", where=name, found=value, expected=expected)


def known_model(name: str) -> ModelInfo:
    """The entry of a model; an unknown one is refused, with the nearest name.

    Example:
        >>> known_model("cfsr").sheet
        45
    """
    return find_model(MODELS, name)
