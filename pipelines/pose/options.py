"""What can be set about 3-D poses; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pipelines.errors import ConfigError
from pipelines.model_list import ModelInfo, chosen_options, find_model
from pipelines.training.options import TrainOptions

__all__ = [
    "MODELS",
    "SKELETON",
    "TRAINING",
    "ArchOptions",
    "MotionOptions",
    "SplitOptions",
    "ViewOptions",
    "architecture",
    "check_values",
    "known_model",
]

#: The skeleton that models see and answer in.
SKELETON = "h36m17"

#: AdamW; the step size falls along a cosine.
TRAINING = TrainOptions(
    epochs=30,
    batch_size=256,
    patience=0,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.01,
    decoupled=True,
    average=3,
    clip_norm=1.0,
)


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of the model; what is left out is the paper's."""

    dim: int | None = None
    """Width of a joint; a frame is 17 times as wide (32)."""
    spatial_layers: int | None = None
    """Blocks over the joints of a frame (2)."""
    temporal_layers: int | None = None
    """Blocks over the frames of a window (2)."""
    kernels: tuple[int, ...] | None = None
    """Widths of the convolutions that are mixed (7, 7, 7)."""
    heads: int | None = None
    """Heads of every block (8)."""
    dropout: float | None = None
    """Share of the mixed values that is dropped while training (0.2)."""
    drop_path: float | None = None
    """Probability of leaving out a branch while training, rising from 0 in the first block (0.2)."""


@dataclass(frozen=True)
class MotionOptions:
    """How motion is made more while training."""

    windows: int = 8192
    """Windows drawn in an epoch."""
    height: float = 0.1
    """All bones together become up to this share longer or shorter."""
    bones: float = 0.1
    """Besides, each bone, left and right alike, up to this share."""
    speed: tuple[float, float] = (0.75, 1.33)
    """Lowest and highest factor of the speed."""
    mirror: float = 0.5
    """Share of mirror images."""


@dataclass(frozen=True)
class ViewOptions:
    """Cameras that motion is seen by, and what a detector makes of it."""

    cameras: int = 4
    """Cameras that see each measured clip."""
    size: tuple[int, int] = (1000, 1000)
    """Width and height of the image, px."""
    focal: float = 1145.0
    """Focal length, px."""
    distance: tuple[float, float] = (3.5, 6.0)
    """Nearest and farthest, m."""
    pitch: tuple[float, float] = (-5.0, 25.0)
    """Lowest and highest angle from which a camera looks down, degrees."""
    follow: bool = True
    """Whether a measured clip's camera moves along with the person, so that it stays in the image; while training half
    of the windows are seen so, the others by a camera that stands still."""
    noise_px: float = 0.0
    """Standard deviation of a joint's error in measured clips, px; while training half of the windows have 5."""
    missing: float = 0.0
    """Share of the joints that a detector misses in measured clips; while training 5 % of half of the windows."""


@dataclass(frozen=True)
class SplitOptions:
    """What is learned from and what is measured on."""

    test: tuple[str, ...] = ()
    """Subjects (or clips, or kinds of motion) that are never learned from."""
    only: tuple[str, ...] = ()
    """Of what is measured, these alone."""
    by: Literal["auto", "subject", "action", "clip"] = "auto"
    """What stays whole; auto = the subject where all clips tell it, else the clip."""
    share: float = 0.2
    """Share that is kept for measuring where ``test`` names nothing; 0 learns from all."""
    valid: float = 0.1
    """Share of the rest that chooses the epoch and calibrates the uncertainty."""


_INFOS = (
    ModelInfo(
        name="convformer",
        paper="ConvFormer: dynamic multi-headed convolutional self-attention for 3-D pose (2023, arXiv 2304.02147)",
        sheet=7,
        summary="joints of each frame, then frames of the window, mixed by learned mixtures of convolutions",
        learning_rate=1e-3,
        attention="dynamic_conv",
        defaults=MappingProxyType(
            {
                "dim": 32,
                "spatial_layers": 2,
                "temporal_layers": 2,
                "kernels": (7, 7, 7),
                "heads": 8,
                "dropout": 0.2,
                "drop_path": 0.2,
            }
        ),
    ),
)

#: Models by name.
MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})


def architecture(name: str, arch: ArchOptions) -> dict[str, Any]:
    """The sizes that a model is built with.

    Raises:
        ConfigError: an unknown model or an option that it does not have.

    Example:
        >>> architecture("convformer", ArchOptions(dim=16))["dim"]
        16
    """
    return chosen_options(MODELS, name, arch)


def check_values(frames: int, fps: float, motion: MotionOptions, views: ViewOptions, split: SplitOptions) -> None:
    """Refuse numbers and names that cannot be.

    Raises:
        ConfigError: one of them is out of its range.

    Example:
        >>> check_values(8, 30.0, MotionOptions(), ViewOptions(), SplitOptions())
        Traceback (most recent call last):
        pipelines.errors.ConfigError: frames: no such window. Found: 8. Expected: an odd number from 1.
    """
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1 or frames % 2 == 0:
        raise ConfigError("no such window", where="frames", found=frames, expected="an odd number from 1")
    if not 0 < fps < 1000:
        raise ConfigError("no such frame rate", where="fps", found=fps, expected="Hz above 0")
    for name, value in (("motion.windows", motion.windows), ("views.cameras", views.cameras)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError("out of range", where=name, found=value, expected="a whole number from 1")
    shares = {"split.share": split.share, "split.valid": split.valid, "views.missing": views.missing}
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise ConfigError("out of range", where=name, found=value, expected="0 to below 1")
    if not views.noise_px >= 0:
        raise ConfigError("out of range", where="views.noise_px", found=views.noise_px, expected="px from 0")
    if not 0 < views.distance[0] <= views.distance[1]:
        raise ConfigError("no distances", where="views.distance", found=views.distance, expected="near, far above 0 m")
    if split.by not in ("auto", "subject", "action", "clip"):
        raise ConfigError("there is no such choice", where="split.by", found=split.by,
                          expected="auto, subject, action or clip")  # fmt: skip


def known_model(name: str) -> ModelInfo:
    """The entry of a model; an unknown one is refused, with the nearest name.

    Example:
        >>> known_model("convformer").sheet
        7
    """
    return find_model(MODELS, name)
