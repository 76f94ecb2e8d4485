"""Where a training run stands, in plain values that a safe checkpoint can hold, and the result of a finished run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["RunState", "TrainResult"]


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        best_epoch: the epoch (from 1) whose weights the model has now.
        best_value: its validation loss, or its training loss where there is no validation set.
        epochs: epochs that were trained, the last one perhaps in part.
        steps: optimizer steps.
        seconds: time spent training and validating, over all resumed parts.
        history: a dict an epoch: epoch, learning_rate, train_loss, val_loss (None without a set), steps, seconds.
        stopped_early: whether patience ran out.
    """

    best_epoch: int
    best_value: float
    epochs: int
    steps: int
    seconds: float
    history: list[dict[str, Any]]
    stopped_early: bool


@dataclass
class RunState:
    """The place of a run: `position` batches of `epoch` are trained, of which the losses are summed here.

    `threads` is what torch computed with: another number adds in another order and changes the last bits.
    """

    epoch: int = 1
    position: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    best_value: float = math.inf
    best_epoch: int = 0
    waited: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped_early: bool = False
    finished: bool = False
    threads: int = 0

    def plain(self) -> dict[str, Any]:
        """The fields as a dict of plain values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> RunState:
        """The inverse of `plain`.

        Raises:
            TypeError: a field is missing, unknown or of another type.
        """
        expected = {item.name: type(getattr(cls(), item.name)) for item in fields(cls)}
        if set(values) != set(expected):
            raise TypeError("the fields of the run's place differ")
        for name, kind in expected.items():
            if type(values[name]) is not kind:
                raise TypeError(f"{name} is no {kind.__name__}")
        return cls(**values)

    def result(self) -> TrainResult:
        """The result of a finished run."""
        return TrainResult(
            best_epoch=self.best_epoch,
            best_value=self.best_value,
            epochs=len(self.history),
            steps=self.step,
            seconds=self.seconds,
            history=list(self.history),
            stopped_early=self.stopped_early,
        )
