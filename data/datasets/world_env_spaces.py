"""Actions and observations of an environment as vectors of numbers: one-hot choices, and scaled continuous values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.errors import InputError

__all__ = ["MOST_NUMBERS", "ActionSpace", "is_image", "observation_names", "vector_of"]

Kind = Literal["discrete", "multi_discrete", "multi_binary", "box"]
#: Numbers that a vector of an action or of a state may have.
MOST_NUMBERS = 4096
#: What the actions of well-known environments do, by the name without its version.
_ACTION_NAMES: dict[str, tuple[str, ...]] = {
    "CartPole": ("push left", "push right"),
    "MountainCar": ("push left", "no push", "push right"),
    "MountainCarContinuous": ("force",),
    "Acrobot": ("torque -1", "torque 0", "torque +1"),
    "Pendulum": ("torque",),
    "CarRacing": ("steering", "gas", "brake"),
}
#: What the observations of well-known environments mean, by the name without its version.
_STATE_NAMES: dict[str, tuple[str, ...]] = {
    "CartPole": ("position", "velocity", "angle", "angular velocity"),
    "MountainCar": ("position", "velocity"),
    "MountainCarContinuous": ("position", "velocity"),
    "Pendulum": ("cos angle", "sin angle", "angular velocity"),
    "Acrobot": ("cos angle 1", "sin angle 1", "cos angle 2", "sin angle 2", "angular velocity 1", "angular velocity 2"),
}


def plain_name(name: str) -> str:
    """The name of an environment without its module, namespace and version.

    Example:
        >>> plain_name("my_games:phys2d/CartPole-v1")
        'CartPole'
    """
    last = name.split(":")[-1].split("/")[-1]
    head, dash, version = last.rpartition("-v")
    return head if dash and version.isdigit() else last


@dataclass(frozen=True)
class ActionSpace:
    """The actions of an environment as float vectors (A,): a one-hot block a choice, or numbers scaled to [-1, 1].

    Args:
        kind: the kind of the environment's own space.
        choices: how many values each choice has; A is their sum. Empty where the actions are continuous.
        low: the bounds of each continuous value, -inf where there is none.
        high: likewise, inf. A value without both bounds is not scaled, and is drawn from a standard normal.
        first: the number of the first value of each choice.
        shape: of the environment's own action.
        names: of the A numbers.

    Raises:
        InputError: no numbers or too many of them, bounds in the wrong order.

    Example:
        >>> space = ActionSpace.of_choices(2)
        >>> space.size, space.to_env(np.array([0.0, 1.0])), space.vector(0).tolist()
        (2, 1, [1.0, 0.0])
    """

    kind: Kind
    choices: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    first: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size, wrong = self.size, [pair for pair in zip(self.low, self.high, strict=True) if not pair[0] < pair[1]]
        if not 0 < size <= MOST_NUMBERS or min(self.choices, default=1) < 1 or wrong:
            found = f"bounds {wrong[0]}" if wrong else f"{size} numbers"
            expected = f"1 to {MOST_NUMBERS} numbers, each lower bound below its upper one"
            raise InputError("not a space of actions", where="actions", found=found, expected=expected)
        if self.names and len(self.names) != size:
            raise InputError("not a name for each number", where="actions", found=len(self.names), expected=size)

    @classmethod
    def of_choices(cls, count: int, names: tuple[str, ...] = ()) -> ActionSpace:
        """One choice of `count` values, as `gymnasium.spaces.Discrete` has it."""
        return cls("discrete", (count,), first=(0,), names=names)

    @classmethod
    def of_bounds(cls, low: ArrayLike, high: ArrayLike, names: tuple[str, ...] = ()) -> ActionSpace:
        """Continuous values between bounds (A,), as `gymnasium.spaces.Box` has it."""
        lows, highs = (tuple(float(one) for one in np.ravel(np.asarray(side))) for side in (low, high))
        return cls("box", low=lows, high=highs, shape=np.shape(low), names=names)

    @classmethod
    def of_gymnasium(cls, space: Any, name: str) -> ActionSpace:
        """The space of a gymnasium environment of that name.

        Raises:
            InputError: a space that is neither Discrete, MultiDiscrete, MultiBinary nor Box.
        """
        kind, known = type(space).__name__, _ACTION_NAMES.get(plain_name(name), ())
        if kind == "Discrete":
            made = cls("discrete", (int(space.n),), first=(int(space.start),))
        elif kind == "MultiDiscrete":
            sizes, starts = np.ravel(space.nvec), np.ravel(space.start)
            made = cls("multi_discrete", tuple(map(int, sizes)), first=tuple(map(int, starts)), shape=space.nvec.shape)
        elif kind == "MultiBinary":
            count = math.prod(space.shape)
            made = cls("multi_binary", (2,) * count, first=(0,) * count, shape=tuple(space.shape))
        elif kind == "Box":
            made = cls.of_bounds(space.low, space.high)
        else:
            expected = "Discrete, MultiDiscrete, MultiBinary or Box"
            raise InputError("actions of another kind", where=name, found=kind, expected=expected)
        names = known if len(known) == made.size else tuple(f"action {i}" for i in range(made.size))
        return cls(made.kind, made.choices, made.low, made.high, made.first, made.shape, names)

    @property
    def size(self) -> int:
        """How many numbers A the vector of an action has."""
        return sum(self.choices) if self.choices else len(self.low)

    @property
    def bounded(self) -> NDArray[np.bool_]:
        """(A,) whether a continuous value has both bounds and is scaled to [-1, 1]; all False for choices."""
        if self.choices:
            return np.zeros(self.size, bool)
        return np.isfinite(self.low) & np.isfinite(self.high)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Where each choice lies in the vector."""
        ends = np.cumsum(self.choices, dtype=int).tolist()
        return tuple(slice(end - count, end) for end, count in zip(ends, self.choices, strict=True))

    def vector(self, action: Any) -> NDArray[np.float32]:
        """The vector (A,) of an action of the environment's own kind.

        Raises:
            InputError: an action of another shape or outside its bounds.
        """
        values = np.ravel(np.asarray(action))
        expected = f"{self.kind} of {len(self.choices) or self.size} values"
        if values.size != (len(self.choices) or self.size) or values.dtype.kind not in "iufb":
            raise InputError("not an action of this environment", where="action", found=action, expected=expected)
        if not self.choices:
            return self._scaled(values.astype(np.float64)).astype(np.float32)
        out = np.zeros(self.size, np.float32)
        for block, count, first, value in zip(self.blocks, self.choices, self.first, values, strict=True):
            if value != int(value) or not 0 <= value - first < count:
                raise InputError(
                    "no such choice", where="action", found=value, expected=f"{first} to {first + count - 1}"
                )
            out[block.start + int(value) - first] = 1.0
        return out

    def to_env(self, vector: ArrayLike) -> Any:
        """The action of the environment's own kind that a vector (A,) stands for; of a block the largest counts.

        Continuous values outside [-1, 1] are moved to the nearest bound.

        Raises:
            InputError: a vector of another length, or numbers that are not finite.
        """
        values = np.asarray(vector, np.float64)
        if values.shape != (self.size,) or not np.isfinite(values).all():
            expected = f"{self.size} finite numbers"
            raise InputError("not the vector of an action", where="action", found=values.shape, expected=expected)
        if not self.choices:
            low, high, bounded = np.array(self.low), np.array(self.high), self.bounded
            with np.errstate(invalid="ignore"):
                inside = low + (np.clip(values, -1, 1) + 1) / 2 * (high - low)
            return np.clip(np.where(bounded, inside, values), low, high).astype(np.float32).reshape(self.shape)
        picked = [int(values[block].argmax()) + first for block, first in zip(self.blocks, self.first, strict=True)]
        if self.kind == "discrete":
            return picked[0]
        return np.array(picked, np.int8 if self.kind == "multi_binary" else np.int64).reshape(self.shape)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """Draw vectors (*shape, A): choices alike, bounded values uniform, others from a standard normal."""
        if not self.choices:
            uniform, normal = rng.uniform(-1, 1, (*shape, self.size)), rng.standard_normal((*shape, self.size))
            return np.where(self.bounded, uniform, normal).astype(np.float32)
        out = np.zeros((*shape, self.size), np.float32)
        for block, count in zip(self.blocks, self.choices, strict=True):
            np.put_along_axis(out[..., block], rng.integers(count, size=(*shape, 1)), 1.0, axis=-1)
        return out

    def _scaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high, bounded = np.array(self.low), np.array(self.high), self.bounded
        with np.errstate(invalid="ignore"):
            scaled = 2 * (values - low) / (high - low) - 1
        return np.where(bounded, scaled, values)

    def describe(self) -> str:
        """One clause for notes."""
        if self.choices:
            return f"actions are {'choices' if len(self.choices) > 1 else 'a choice'}, one-hot in {self.size} numbers"
        free = int((~self.bounded).sum())
        scaled = f"actions of {self.size} numbers are scaled from their bounds to [-1, 1]"
        return f"{scaled}; {free} without bounds are left as they are" if free else scaled


def is_image(space: Any) -> bool:
    """Whether observations of a gymnasium space are pictures: a Box of bytes, or of floats in [0, 1], with channels.

    Example:
        >>> is_image(None)
        False
    """
    if type(space).__name__ != "Box" or len(space.shape) not in (2, 3):
        return False
    shape = tuple(space.shape)
    sides = shape if len(shape) == 2 else shape[:2] if shape[2] in (1, 3) else shape[1:] if shape[0] in (1, 3) else ()
    if len(sides) != 2 or min(sides) < 8:
        return False
    whole = space.dtype == np.uint8
    return whole or (len(shape) == 3 and float(space.low.min()) >= 0.0 and float(space.high.max()) <= 1.0)


def observation_names(space: Any, name: str) -> tuple[str, ...]:
    """The names of the numbers of `vector_of`; empty where the observation is a picture or has too many numbers."""
    if is_image(space):
        return ()
    from gymnasium import spaces

    try:
        count = int(spaces.flatdim(space))
    except (NotImplementedError, ValueError, OverflowError):
        return ()
    if not 0 < count <= MOST_NUMBERS:
        return ()
    known = _STATE_NAMES.get(plain_name(name), ())
    prefix = "at" if type(space).__name__ == "Discrete" else "observation"
    return known if len(known) == count else tuple(f"{prefix} {i}" for i in range(count))


def vector_of(space: Any, observation: Any) -> NDArray[np.float32]:
    """An observation as a vector (S,): numbers in the space's own order, choices one-hot."""
    from gymnasium import spaces

    return np.asarray(spaces.flatten(space, observation), np.float32).reshape(-1)
