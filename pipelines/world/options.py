"""What can be set about world models; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pipelines.errors import ConfigError
from pipelines.model_list import ModelInfo, chosen_options, find_model
from pipelines.training.options import TrainOptions

__all__ = [
    "BASES",
    "MODELS",
    "TRAINING",
    "ArchOptions",
    "EnvironmentOptions",
    "ObjectiveOptions",
    "PlanOptions",
    "SplitOptions",
    "architecture",
    "check_values",
    "known_model",
]

#: AdamW of the paper; the step size falls along a cosine. 10 epochs of 1,200 windows are 1,500 steps.
TRAINING = TrainOptions(
    epochs=10,
    batch_size=8,
    patience=0,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.04,
    decoupled=True,
    average=3,
    clip_norm=1.0,
)

#: What a prediction may be a change to.
BASES = ("none", "last", "mean")


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of the model; what is left out is the paper's."""

    dim: int | None = None
    """Channels of the features (128)."""
    patch: int | None = None
    """Side of the squares of pixels that make one place of the features (4)."""
    layers: int | None = None
    """Layers of the encoder: 3 of reaction and diffusion, or 2 blocks of attention."""
    steps: int | None = None
    """Most Euler steps of a layer of reaction and diffusion (6)."""
    heads: int | None = None
    """Heads of attention (8)."""
    hidden: int | None = None
    """Channels of the recurrent cell of ConvLSTM (64)."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """What is learned: rebuilding what is seen, one frame ahead, and rollouts."""

    base: Literal["none", "last", "mean"] = "mean"
    """What a predicted frame is a change to: nothing (the paper), the last frame seen, or the training mean frame."""
    free: tuple[int, ...] = (1, 2, 3, 5, 8, 16)
    """Lengths of the rollouts after the context; each batch draws one of them."""
    rebuild: float = 1.0
    """Weight of rebuilding the frames seen."""
    gradient: float = 1.0
    """Weight of the differences between neighbouring pixels."""
    variance: float = 0.5
    """Weight of keeping each feature's deviation at 1 or above."""
    windows: int = 1200
    """Windows drawn in an epoch."""
    shrink: bool | None = None
    """Scale predicted changes from the mean training frame, horizon by horizon, as the frames that choose the epoch say
    (on where `base` is mean)."""


@dataclass(frozen=True)
class SplitOptions:
    """What is learned from and what is measured on."""

    share: float = 0.2
    """Share that is kept for measuring: the last part of the time of one episode, whole episodes of several; 0 learns
    from all."""
    valid: float = 0.1
    """Share of the rest that chooses the epoch, cut off in the same way."""
    by: Literal["auto", "time", "episode"] = "auto"
    """What is cut: the time of each episode, or whole episodes; auto = episodes where there are 5 or more."""
    stride: int = 1
    """Frames between the beginnings of two measured windows."""


@dataclass(frozen=True)
class EnvironmentOptions:
    """How episodes of a gymnasium environment are recorded when its name is given as data."""

    episodes: int = 100
    """Episodes."""
    steps: int = 200
    """Most steps of an episode."""
    policy: Literal["random"] = "random"
    """Who acts."""


@dataclass(frozen=True)
class PlanOptions:
    """Planning in a gymnasium environment by the cross-entropy method."""

    observation: Literal["state", "pixels"] = "state"
    """What is seen: the state vector, or rendered frames."""
    episodes: int = 5
    """Episodes that are played with the plan; at least 100 at random stand beside."""
    steps: int = 200
    """Most steps of an episode."""
    recorded: int | None = None
    """Random episodes that the model is learned from (200 from states, 400 from pixels)."""
    rounds: int | None = None
    """Rounds of learning (1 from states, 3 from pixels): after each but the last, as many more episodes are played with
    the plan and learned from too."""


_COMMON = {"dim": 128, "patch": 4}
_INFOS = (
    ModelInfo(
        name="fluidworld",
        paper="FluidWorld: reaction-diffusion dynamics as a predictive substrate (2026, arXiv 2603.21315)",
        sheet=5,
        summary="a learned reaction-diffusion equation is integrated; its state one frame on is the prediction",
        learning_rate=3e-4,
        attention="reaction_diffusion",
        defaults=MappingProxyType({**_COMMON, "layers": 3, "steps": 6, "heads": 8}),
    ),
    ModelInfo(
        name="transformer",
        paper="the Transformer of FluidWorld's comparison (2026, arXiv 2603.21315)",
        sheet=5,
        summary="two blocks of attention over the places of a frame, one more over them and the state",
        learning_rate=3e-4,
        attention="softmax",
        defaults=MappingProxyType({**_COMMON, "layers": 2, "heads": 8}),
    ),
    ModelInfo(
        name="convlstm",
        paper="the ConvLSTM of FluidWorld's comparison (2026, arXiv 2603.21315; cell: arXiv 1506.04214)",
        sheet=5,
        summary="a convolutional encoder and one recurrent cell",
        learning_rate=3e-4,
        defaults=MappingProxyType({**_COMMON, "hidden": 64}),
    ),
)

#: Models by name.
MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})


def architecture(name: str, arch: ArchOptions) -> dict[str, Any]:
    """The sizes that a model is built with.

    Raises:
        ConfigError: an unknown model or an option that it does not have.

    Example:
        >>> architecture("convlstm", ArchOptions(dim=64))["dim"]
        64
    """
    return chosen_options(MODELS, name, arch)


def check_values(context: int, horizon: int, objective: ObjectiveOptions, split: SplitOptions) -> None:
    """Refuse numbers that cannot be.

    Raises:
        ConfigError: one of them is out of its range.

    Example:
        >>> check_values(2, 0, ObjectiveOptions(), SplitOptions())
        Traceback (most recent call last):
        pipelines.errors.ConfigError: horizon: out of range. Found: 0. Expected: a whole number from 1.
    """
    whole = {
        "context": context,
        "horizon": horizon,
        "objective.windows": objective.windows,
        "split.stride": split.stride,
    }
    whole |= {f"objective.free[{place}]": value for place, value in enumerate(objective.free)}
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError("out of range", where=name, found=value, expected="a whole number from 1")
    if not objective.free:
        raise ConfigError("nothing is predicted", where="objective.free", found=(), expected="lengths of rollouts")
    for name, value in (("split.share", split.share), ("split.valid", split.valid)):
        if not 0 <= value < 1:
            raise ConfigError("out of range", where=name, found=value, expected="0 to below 1")
    for name in ("rebuild", "gradient", "variance"):
        if not getattr(objective, name) >= 0:
            raise ConfigError(
                "out of range", where=f"objective.{name}", found=getattr(objective, name), expected="from 0"
            )
    for name, value, known in (
        ("objective.base", objective.base, BASES),
        ("split.by", split.by, ("auto", "time", "episode")),
    ):
        if value not in known:
            raise ConfigError("there is no such choice", where=name, found=value, expected=", ".join(known))


def known_model(name: str) -> ModelInfo:
    """The entry of a model; an unknown one is refused, with the nearest name.

    Example:
        >>> known_model("fluidworld").sheet
        5
    """
    return find_model(MODELS, name)
