"""The cross-entropy method: the best of many candidate plans shape the distribution that the next ones are drawn from.

Shapes: N candidates, H steps, A numbers of an action's vector (one-hot blocks for choices, [-1, 1] for bounded values).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_env_spaces import ActionSpace
from pipelines.errors import ConfigError, InputError

__all__ = ["CemOptions", "Plan", "cem", "shifted"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CemOptions:
    """How many plans are tried.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> CemOptions(candidates=32).elites
        8
    """

    candidates: int = 64
    """Plans a round."""
    elites: int = 8
    """Best plans of a round, which the next ones are drawn like."""
    iterations: int = 3
    """Rounds."""
    smoothing: float = 0.1
    """Share of the distribution before a round that stays in the one after it."""
    least: float = 0.05
    """Chance of every choice, spread over its values, and least standard deviation of continuous values."""

    def __post_init__(self) -> None:
        for name in ("candidates", "elites", "iterations"):
            value, most = getattr(self, name), self.candidates if name == "elites" else 10**6
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise ConfigError("out of range", where=name, found=value, expected=f"a whole number, 1 to {most}")
        for name in ("smoothing", "least"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError("out of range", where=name, found=getattr(self, name), expected="0 to below 1")


@dataclass(frozen=True, eq=False)
class Plan:
    """The best plan that was found, and the distribution that the last round left.

    Attributes:
        actions: (H, A) float32, the best of all candidates.
        score: its score.
        mean: (H, A) chances of choices, or means of continuous values.
        deviation: (H, A) standard deviations of continuous values; zero for choices.
        best: the best score after each round, which never falls.
        failed: candidates whose score was not finite; they count as the worst.
    """

    actions: NDArray[np.float32]
    score: float
    mean: Floats
    deviation: Floats
    best: tuple[float, ...] = ()
    failed: int = 0


def cem(
    score: Callable[[Any], Any],
    horizon: int,
    space: ActionSpace,
    options: CemOptions = CemOptions(),
    *,
    rng: np.random.Generator | int = 0,
    start: Plan | None = None,
    tensors: bool = False,
) -> Plan:
    """Search for the plan of the highest score by the cross-entropy method.

    Args:
        score: scores (N,) of candidate plans (N, H, A), higher is better; any order of calls, no state.
        horizon: steps H of a plan.
        space: of the actions: choices (drawn by their chances) or continuous values (drawn from a normal
            distribution, kept within [-1, 1] where bounded).
        options: how many plans are tried.
        rng: a generator, or a seed: the same one gives the same plan.
        start: a plan to begin with, such as `shifted` of the last one; its actions are among the first candidates.
        tensors: give the candidates as a float32 tensor of torch rather than an array; scores may be either.

    Raises:
        ConfigError: a horizon below 1, or a start of another shape.
        InputError: scores of another shape, or none of a round that is finite.

    Complexity: iterations x one call with N plans; O(N H A) beside it.

    Source: Rubinstein 1999, "The cross-entropy method for combinatorial and continuous optimization", with the warm
    start of Chua et al. 2018 (PETS, arXiv 1805.12114, section 5.1) and Hafner et al. 2019 (PlaNet, arXiv 1811.04551).

    Example:
        >>> wanted = np.eye(2, dtype=np.float32)[[0, 1, 1, 0, 1]]
        >>> plan = cem(lambda plans: (plans * wanted).sum((1, 2)), 5, ActionSpace.of_choices(2))
        >>> plan.score, plan.actions.argmax(1).tolist()
        (5.0, [0, 1, 1, 0, 1])
    """
    if not isinstance(horizon, int) or isinstance(horizon, bool) or horizon < 1:
        raise ConfigError("out of range", where="horizon", found=horizon, expected="a whole number from 1")
    generator = np.random.default_rng(rng)
    plan = _beginning(horizon, space) if start is None else start
    if plan.mean.shape != (horizon, space.size):
        raise ConfigError(
            "not a plan to begin with", where="start", found=plan.mean.shape, expected=(horizon, space.size)
        )
    kept = [] if start is None else [start.actions]
    best, value, history, failed = plan.actions, -np.inf, [], 0
    for _ in range(options.iterations):
        drawn = _draw(plan, space, options.candidates, generator)
        for place, actions in enumerate(kept[: options.candidates]):
            drawn[place] = actions  # the best plan is never lost
        scores, missing = _scored(score, drawn, tensors)
        failed += missing
        order = np.argsort(-scores, kind="stable")[: options.elites]
        order = order[np.isfinite(scores[order])]
        if scores[order[0]] > value:
            best, value = drawn[order[0]], float(scores[order[0]])
        plan = _refit(plan, drawn[order].astype(np.float64), space, options)
        history.append(value)
        kept = [best]
    return Plan(best, value, plan.mean, plan.deviation, tuple(history), failed)


def shifted(plan: Plan, space: ActionSpace) -> Plan:
    """The plan one step later, to begin the next search with: its first step is gone, its last one knows nothing.

    Standard deviations are wide again, so that the search can leave the old plan.

    Example:
        >>> plan = cem(lambda plans: plans[:, 0, 0], 2, ActionSpace.of_choices(2))
        >>> shifted(plan, ActionSpace.of_choices(2)).mean[-1].tolist()
        [0.5, 0.5]
    """
    new = _beginning(len(plan.mean), space)
    mean = np.concatenate([plan.mean[1:], new.mean[-1:]])
    actions = np.concatenate([plan.actions[1:], plan.actions[-1:]])
    return Plan(actions, -np.inf, mean, new.deviation)


def _beginning(horizon: int, space: ActionSpace) -> Plan:
    """Every choice alike; continuous values around zero, with the deviation of the uniform distribution if bounded."""
    mean, deviation = np.zeros((horizon, space.size)), np.zeros((horizon, space.size))
    for block, count in zip(space.blocks, space.choices, strict=True):
        mean[:, block] = 1 / count
    if not space.choices:
        deviation[:] = np.where(space.bounded, 1 / np.sqrt(3), 1.0)
    return Plan(np.zeros((horizon, space.size), np.float32), -np.inf, mean, deviation)


def _draw(plan: Plan, space: ActionSpace, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Candidates (N, H, A)."""
    horizon = len(plan.mean)
    if not space.choices:
        values = plan.mean + plan.deviation * rng.standard_normal((count, horizon, space.size))
        return np.where(space.bounded, np.clip(values, -1, 1), values).astype(np.float32)
    out = np.zeros((count, horizon, space.size), np.float32)
    for block in space.blocks:
        edges = np.cumsum(plan.mean[:, block], axis=1)[:, :-1]  # the last value takes what rounding leaves
        picked = (rng.random((count, horizon, 1)) >= edges).sum(axis=2, keepdims=True)
        np.put_along_axis(out[..., block], picked, 1.0, axis=2)
    return out


def _scored(score: Callable[[Any], Any], plans: NDArray[np.float32], tensors: bool) -> tuple[Floats, int]:
    """Scores (N,) with -inf for those that are not finite, and how many those are."""
    given: Any = plans
    if tensors:
        import torch

        given = torch.from_numpy(plans)
    answer = score(given)
    values = answer.detach().cpu().numpy() if hasattr(answer, "detach") else np.asarray(answer)
    if values.shape != (len(plans),):
        raise InputError("not a score for each plan", where="score", found=values.shape, expected=(len(plans),))
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise InputError("no plan has a finite score", where="score", found=values[0], expected="finite numbers")
    return np.where(finite, values, -np.inf), int((~finite).sum())


def _refit(plan: Plan, elites: Floats, space: ActionSpace, options: CemOptions) -> Plan:
    """The distribution of the elites (n, H, A), smoothed, and never so narrow that it cannot change."""
    old = options.smoothing
    mean = old * plan.mean + (1 - old) * elites.mean(0)
    deviation = plan.deviation
    if space.choices:
        for block, count in zip(space.blocks, space.choices, strict=True):
            mean[:, block] = (1 - options.least) * mean[:, block] + options.least / count
    else:
        deviation = np.maximum(old * plan.deviation + (1 - old) * elites.std(0), options.least)
    return dataclasses.replace(plan, mean=mean, deviation=deviation)
