"""The settings of a training run, free of torch so that the command line can show them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import ConfigError

__all__ = ["PRECISIONS", "TrainOptions", "learning_rate_at", "step_factor"]

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


@dataclass(frozen=True)
class TrainOptions:
    """How a model is fitted; the defaults are the recipe of the Autoformer and LTSF-Linear papers.

    Example:
        >>> TrainOptions(epochs=3).validate().epochs
        3
    """

    epochs: int = 10
    """Passes over the training part at most."""

    batch_size: int = 32
    """Examples in one optimizer step, over all processes together."""

    learning_rate: float | None = None
    """Step size of Adam in the first epoch; by default the model's own."""

    patience: int = 3
    """Stop after this many epochs in a row without a better validation loss; 0 never stops early."""

    schedule: Literal["halve", "constant", "cosine", "noam"] = "halve"
    """Step size over the epochs: halve = halved every epoch from the third on (the papers' type1), constant, cosine;
    noam = rising over the warm-up, then falling with the square root of the steps."""

    warmup_steps: int = 0
    """Steps over which the step size rises from zero; noam needs at least one."""

    weight_decay: float = 0.0
    """Weight decay of Adam (an L2 penalty added to the gradient; with decoupled, that of AdamW)."""

    decoupled: bool = False
    """Take the weight decay off the weights themselves, as AdamW does, instead of adding it to the gradient."""

    average: int = 0
    """Weights of so many best epochs are averaged at the end; 0 and 1 take those of the best one."""

    clip_norm: float | None = None
    """Largest norm of the gradient of all weights together; by default not limited."""

    workers: int = 0
    """Processes that prepare batches; the result does not depend on it."""

    checkpoint_minutes: float = 10.0
    """Minutes between two checkpoints within an epoch; one is always written at the end of an epoch."""

    checkpoint_steps: int = 0
    """Steps between two checkpoints within an epoch; 0 goes by time alone."""

    max_steps: int = 0
    """Stop after this many optimizer steps in all; 0 goes by epochs alone."""

    def validate(self) -> TrainOptions:
        """Check every setting.

        Returns:
            These options.

        Raises:
            ConfigError: a setting is out of its range; the message names the setting and the range.
        """
        for name, least in _LEAST_WHOLE.items():
            _whole(name, getattr(self, name), least)
        _number("weight_decay", self.weight_decay, zero=True)
        _number("checkpoint_minutes", self.checkpoint_minutes, zero=True)
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None:
                _number(name, value, zero=False)
        _choice("schedule", self.schedule, ("halve", "constant", "cosine", "noam"))
        if self.schedule == "noam":
            _whole("warmup_steps", self.warmup_steps, 1)
        return self


_LEAST_WHOLE = {
    "epochs": 1,
    "batch_size": 1,
    "patience": 0,
    "workers": 0,
    "checkpoint_steps": 0,
    "max_steps": 0,
    "warmup_steps": 0,
    "average": 0,
}


def learning_rate_at(epoch: int, options: TrainOptions, base: float) -> float:
    """Step size of an epoch, counted from 1.

    `halve` is what the released training code of both papers does with its default `type1`: it sets
    base * 0.5^(e - 1) *after* epoch e, so that the first two epochs run at the base rate.

    Example:
        >>> [learning_rate_at(epoch, TrainOptions(), 0.8) for epoch in (1, 2, 3, 4)]
        [0.8, 0.8, 0.4, 0.2]
    """
    if options.schedule == "halve":
        return base * 0.5 ** max(0, epoch - 2)
    if options.schedule == "cosine":
        return base * 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / options.epochs))
    return base


def step_factor(step: int, options: TrainOptions) -> float:
    """What the step size of the epoch is multiplied by at a step, counted from 1.

    Source of noam: Attention is all you need (arXiv 1706.03762), equation 3, scaled to 1 at the end of the warm-up.

    Example:
        >>> [step_factor(step, TrainOptions(schedule="noam", warmup_steps=4)) for step in (1, 4, 16)]
        [0.25, 1.0, 0.5]
        >>> [step_factor(step, TrainOptions(warmup_steps=2)) for step in (1, 2, 3)]
        [0.5, 1.0, 1.0]
    """
    warm = options.warmup_steps
    if options.schedule == "noam":
        return min(step / warm, (warm / step) ** 0.5)
    return min(1.0, step / warm) if warm else 1.0


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            "this training option is out of range", where=name, found=value, expected=f"a whole number >= {least}"
        )


def _number(name: str, value: object, *, zero: bool) -> None:
    expected = "a finite number >= 0" if zero else "a finite number > 0"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError("this training option is not a finite number", where=name, found=value, expected=expected)
    if value < 0 or (value == 0 and not zero):
        raise ConfigError("this training option is out of range", where=name, found=value, expected=expected)


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError("unknown choice", where=name, found=value, expected=" or ".join(allowed))
