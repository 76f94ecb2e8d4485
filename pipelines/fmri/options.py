"""What can be set about brain scans; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pipelines.data.datasets.brain_signal import SignalOptions as Signal
from pipelines.errors import ConfigError
from pipelines.fmri.augment_options import AugmentOptions
from pipelines.model_list import ModelInfo, chosen_options, find_model
from pipelines.training.options import TrainOptions

__all__ = [
    "BASELINES",
    "MODELS",
    "PLAIN",
    "SIZES",
    "TRAINING",
    "ArchOptions",
    "PretrainOptions",
    "SignalOptions",
    "SplitOptions",
    "TargetOptions",
    "WindowOptions",
    "architecture",
    "check_values",
    "known_model",
    "signal_of",
]

#: AdamW without an early stop; the step size falls along a cosine.
TRAINING = TrainOptions(
    epochs=10,
    batch_size=32,
    patience=0,
    schedule="cosine",
    warmup_steps=20,
    weight_decay=0.01,
    decoupled=True,
    clip_norm=1.0,
)

#: Windows as they are.
PLAIN = AugmentOptions(probability=0.0, noise_chance=0.0, smooth_chance=0.0)

#: What stands beside every measurement.
BASELINES = ("svm", "logistic", "lda", "connectome", "ridge", "majority")


@dataclass(frozen=True)
class ArchOptions:
    """Size and shape of the model; what is left out is set by its size."""

    dim: int | None = None
    """Channels of the first stage; each merging doubles them (the paper: 36; also 24 and 48)."""
    depths: tuple[int, ...] | None = None
    """Blocks of each stage."""
    heads: tuple[int, ...] | None = None
    """Heads of each stage."""
    patch: tuple[int, int, int, int] | None = None
    """Voxels along X, Y, Z and volumes that make one token; clamped to the scan."""
    window: tuple[int, int, int, int] | None = None
    """Tokens of an attention window along X, Y, Z and time."""
    full_last: bool | None = None
    """Whether the last stage attends across all of space, as the released training script sets it."""
    patch_maps: Literal["shared", "own"] | None = None
    """shared = one map embeds all patches, as published; own = each place of the grid has a map of its own, for scans
    of one subject or one template, where a place is always the same piece of brain."""
    mask_padding: bool | None = None
    """Whether what a grid lacks to whole windows is hidden; the released code lets it be attended to."""
    dropout: float | None = None
    """Share of the values that are dropped while training."""
    drop_path: float | None = None
    """Share of the branches that are left out while training, rising from the first block to the last."""


@dataclass(frozen=True)
class SignalOptions:
    """What is done to the numbers of a run; what is left out goes by the level of the target."""

    standardise: Literal["brain", "voxel", "minmax", "none"] | None = None
    """brain = one mean and standard deviation over the brain and the run, as published (subjects); voxel = of each
    voxel over its run, as decoding does (volumes); minmax; none = as read."""
    detrend: int | None = None
    """Order of the polynomial in time that is removed from each voxel of a run (volumes: 1); -1 for none (subjects)."""
    confounds: tuple[str, ...] = ()
    """Groups that nilearn knows (motion, wm_csf, high_pass ...) or columns of the confounds' table, removed as well."""
    smooth: float = 0.0
    """Full width at half maximum of a Gaussian, mm."""
    mask: Literal["auto", "zeros", "file", "epi", "none"] = "auto"
    """What is brain: zeros = all that is not 0 in every volume; file = the run's mask; epi = found by nilearn;
    auto = file where there is one, else zeros."""
    fill: Literal["minimum", "zero"] | None = None
    """Value of the background: the brain's least one, as published (subjects), or zero (volumes)."""
    nan: Literal["refuse", "background"] = "refuse"
    """What voxels without a finite value are."""


@dataclass(frozen=True)
class TargetOptions:
    """What is to be told from a scan."""

    column: str | None = None
    """Column of the table of people (sex, age, ...): one answer a subject. Without it the events say what is told:
    one answer a volume."""
    kind: Literal["auto", "classification", "regression"] = "auto"
    """auto = regression for numbers of more than ten values."""
    missing: Literal["refuse", "drop"] = "refuse"
    """What becomes of subjects without a label, and of labels without a subject."""
    delay: float = 0.0
    """Seconds by which the blood follows what is shown; events are moved by it before volumes are labelled."""
    leave_out: tuple[str, ...] = ("rest",)
    """Events that are no category; volumes outside of all events are none either."""
    only: tuple[str, ...] = ()
    """Categories to tell apart; empty: all of them."""
    level: Literal["volume", "block"] = "volume"
    """Of events: what is measured, single volumes or the mean answer of a block."""


@dataclass(frozen=True)
class WindowOptions:
    """What the model sees at once."""

    frames: int | None = None
    """Successive volumes; of volumes' labels 1, of subjects 20 as published."""
    stride: int | None = None
    """Volumes from one window of a subject to the next; by default as many as it has, so that none is seen twice."""


@dataclass(frozen=True)
class SplitOptions:
    """What is learned from and what is measured on; nothing is ever on both sides."""

    by: Literal["auto", "run", "session", "subject", "family", "site"] = "auto"
    """What stays whole; auto = the family or the subject where there are several, else the run."""
    folds: int | Literal["all"] = 0
    """Measure by so many fits, each group in one test part; all = leave one group out; 0 = one held-out part."""
    test: float = 0.15
    """Share of the groups that is kept for measuring; 0 learns from all."""
    valid: float = 0.15
    """Share of the remaining groups that chooses the epoch; 0 takes the last one."""
    file: str | None = None
    """A table of names and parts (train, valid, test), or the released code's split_fixed file."""


@dataclass(frozen=True)
class PretrainOptions:
    """Learning from the scans alone, before labels."""

    kind: Literal["none", "instance", "local", "both"] = "none"
    """instance = windows of one run belong together; local = two views of one window do; both."""
    epochs: int = 30
    """Passes over the training runs, rest included."""
    batch_size: int = 64
    """Windows in a step."""
    learning_rate: float = 1e-3
    """Largest step size."""
    temperature: float = 0.1
    """Of the NT-Xent loss."""
    near: int | None = None
    """Most volumes between a window and its partner; by default any number."""
    gap: int | None = None
    """Fewest volumes between their starts; by default they do not overlap."""


SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": MappingProxyType(
            {
                "dim": 36,
                "depths": (2, 2, 6, 2),
                "heads": (3, 6, 12, 24),
                "patch": (6, 6, 6, 1),
                "window": (4, 4, 4, 4),
                "full_last": True,
                "patch_maps": "shared",
                "dropout": 0.0,
                "drop_path": 0.0,
            }
        ),
        "small": MappingProxyType(
            {
                "dim": 32,
                "depths": (1,),
                "heads": (4,),
                "patch": (5, 5, 5, 1),
                "window": (8, 8, 8, 8),
                "full_last": True,
                "patch_maps": "own",
                "dropout": 0.3,
                "drop_path": 0.0,
            }
        ),
    }
)

_INFOS = (
    ModelInfo(
        name="swift",
        paper="SwiFT: Swin 4D fMRI Transformer (2023, arXiv 2307.05916)",
        sheet=36,
        summary="shifted windows over three axes of space and time, patches merged in space, one answer a window",
        learning_rate=1e-3,
        attention="window_nd",
        defaults=MappingProxyType({**SIZES["small"], "mask_padding": False}),
    ),
)

#: Models by name.
MODELS: Mapping[str, ModelInfo] = MappingProxyType({info.name: info for info in _INFOS})


def architecture(name: str, size: str, arch: ArchOptions) -> dict[str, Any]:
    """The sizes that a model is built with.

    Raises:
        ConfigError: an unknown model or size.

    Example:
        >>> architecture("swift", "paper", ArchOptions(dim=24))["dim"]
        24
    """
    if size not in SIZES:
        raise ConfigError("unknown size", where="size", found=size, expected=" or ".join(SIZES))
    chosen = chosen_options(MODELS, name, arch)
    for label, value in SIZES[size].items():
        if getattr(arch, label) is None:
            chosen[label] = value
    _choice("arch.patch_maps", chosen["patch_maps"], ("shared", "own"))
    return chosen


def signal_of(signal: SignalOptions, *, volumes: bool) -> Signal:
    """What is done to a run, for labels of volumes or of subjects.

    Example:
        >>> signal_of(SignalOptions(), volumes=True).standardise, signal_of(SignalOptions(), volumes=False).detrend
        ('voxel', -1)
    """
    usual: dict[str, Any] = (
        {"standardise": "voxel", "detrend": 1, "fill": "zero"}
        if volumes
        else {"standardise": "brain", "detrend": -1, "fill": "minimum"}
    )
    for label in usual:
        if getattr(signal, label) is not None:
            usual[label] = getattr(signal, label)
    return Signal(**usual, confounds=tuple(signal.confounds), smooth=signal.smooth, mask=signal.mask, nan=signal.nan)


def check_values(target: TargetOptions, window: WindowOptions, split: SplitOptions, pretrain: PretrainOptions) -> None:
    """Refuse numbers and names that cannot be.

    Raises:
        ConfigError: one of them is out of its range.

    Example:
        >>> check_values(TargetOptions(), WindowOptions(frames=0), SplitOptions(), PretrainOptions())
        Traceback (most recent call last):
        pipelines.errors.ConfigError: window.frames: out of range. Found: 0. Expected: a whole number from 1.
    """
    _choice("target.kind", target.kind, ("auto", "classification", "regression"))
    _choice("target.missing", target.missing, ("refuse", "drop"))
    _choice("target.level", target.level, ("volume", "block"))
    for label, value in (("window.frames", window.frames), ("window.stride", window.stride)):
        if value is not None:
            _whole(label, value, 1)
    _choice("split.by", split.by, ("auto", "run", "session", "subject", "family", "site"))
    if split.folds != "all":
        _whole("split.folds", split.folds, 0)
        if split.folds == 1:
            expected = "0 for one held-out part, 2 and more, or all"
            raise ConfigError("out of range", where="split.folds", found=1, expected=expected)
    for label, value in (("split.test", split.test), ("split.valid", split.valid)):
        if not 0 <= value < 1:
            raise ConfigError("out of range", where=label, found=value, expected="0 to below 1")
    _choice("pretrain.kind", pretrain.kind, ("none", "instance", "local", "both"))
    _whole("pretrain.epochs", pretrain.epochs, 1)
    _whole("pretrain.batch_size", pretrain.batch_size, 2)
    for label in ("learning_rate", "temperature"):
        if not getattr(pretrain, label) > 0:
            raise ConfigError(
                "out of range", where=f"pretrain.{label}", found=getattr(pretrain, label), expected="above 0"
            )


def known_model(name: str) -> ModelInfo:
    """The entry of a model; an unknown one is refused, with the nearest name.

    Example:
        >>> known_model("swift").sheet
        36
    """
    return find_model(MODELS, name)


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError("out of range", where=name, found=value, expected=f"a whole number from {least}")


def _choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError("there is no such choice", where=name, found=value, expected=" or ".join(known))
