"""What came of planning in an environment: returns beside chance, errors of the model, and the frames of a film."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.bootstrap import Interval
from pipelines.world.planning_training import ModelErrors

__all__ = ["PlanOutcome"]


@dataclass(frozen=True, eq=False)
class PlanOutcome:
    """What planning earned in an environment, beside a random policy.

    Attributes:
        environment: its name.
        observation: what was seen, state or pixels.
        returns: the sum of rewards of each episode that was played with the plan.
        steps: how many steps each took. ended: how each ended.
        interval: the mean return with its 95 % bootstrap interval over episodes.
        random_returns: of the episodes at random beside, the first of which begin alike.
        random_interval: their mean with its interval.
        errors: of the model after each round of learning, on episodes that it did not learn from.
        frames: (T, h, w, 3 or 1) uint8 of the first episode, for a film; None where the environment draws nothing.
        actions: (T - 1, A) of the first episode.
        fps: of the film, or None.
        learned_from: steps that the model was learned from.
        seconds: by part: record, learn, explore, play.
        settings: everything that changes the figures.
        notes: what was done, counted.
    """

    environment: str
    observation: str
    returns: tuple[float, ...]
    steps: tuple[int, ...]
    ended: tuple[str, ...]
    interval: Interval
    random_returns: tuple[float, ...]
    random_interval: Interval
    errors: tuple[ModelErrors, ...]
    frames: NDArray[np.uint8] | None
    actions: NDArray[np.float32]
    fps: float | None
    learned_from: int
    seconds: dict[str, float]
    settings: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def times_random(self) -> float | None:
        """The mean return as a multiple of the random policy's; None where that one is not above zero."""
        return self.interval.value / self.random_interval.value if self.random_interval.value > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain names and plain numbers, for JSON."""
        return {
            "environment": self.environment,
            "observation": self.observation,
            "return": self.interval.value,
            "return_interval": [self.interval.lo, self.interval.hi],
            "random_return": self.random_interval.value,
            "random_interval": [self.random_interval.lo, self.random_interval.hi],
            "random_episodes": len(self.random_returns),
            "times_random": self.times_random,
            "returns": list(self.returns),
            "steps": list(self.steps),
            "ended": list(self.ended),
            "model_errors": [dataclasses.asdict(one) for one in self.errors],
            "learned_from": self.learned_from,
            "seconds": self.seconds,
            "settings": self.settings,
            "notes": list(self.notes),
        }
