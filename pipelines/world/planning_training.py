"""Learning from recorded episodes what planning needs: dynamics of states, rewards, and where episodes end.

Shapes: B transitions, S numbers of a state, A of an action, H steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_env import EnvironmentEpisode
from pipelines.errors import InputError
from pipelines.world.counts import check_counts

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.world.models.state_model import StateModel
    from pipelines.world.planning_agent import StateDynamics

__all__ = ["ModelErrors", "Transitions", "fit_state_model", "learn_states", "model_errors", "transitions"]

Floats = NDArray[np.float32]


class Transitions(NamedTuple):
    """Steps: states (B, S), actions (B, A), the states after (B, S), rewards (B,), and going on (B,), 0 or 1."""

    states: Floats
    actions: Floats
    following: Floats
    rewards: Floats
    goes_on: Floats


@dataclass(frozen=True)
class ModelErrors:
    """How far a model of states is off on episodes that it did not learn from.

    Attributes:
        step: root mean square error of one step's change, as a share of the root mean square change.
        rollout: root mean square error of the state after ``horizon`` steps, as a share of the states' deviation.
        still: the same of a state that does not change, beside it.
        horizon: steps of the rollout, and ``rollouts`` how many were counted.
        reward: root mean square error of the reward.
        ends_found: share of the terminations that the model calls one; None without any.
        false_ends: share of the other steps that it calls a termination.
        transitions: steps counted.
        notes: what was left out, counted.
    """

    step: float
    rollout: float | None
    still: float | None
    horizon: int
    rollouts: int
    reward: float
    ends_found: float | None
    false_ends: float
    transitions: int
    notes: tuple[str, ...] = ()


def transitions(episodes: Sequence[EnvironmentEpisode]) -> Transitions:
    """The transitions of episodes with states, actions and rewards, in their order.

    An episode goes on after its last step unless the task ended it: being cut off is no end of the task.

    Raises:
        InputError: no episodes, one without states, actions or rewards, or others of another width.

    Complexity: O(B (S + A)).

    Example:
        >>> from pipelines.data.datasets.world_env import record
        >>> found = transitions(record("CartPole-v1", episodes=3, steps=50, observation="state"))
        >>> found.states.shape[1], found.actions.shape[1], int((found.goes_on == 0).sum())
        (4, 2, 3)
    """
    if not episodes:
        raise InputError("no episodes to learn from", where="episodes", found=0, expected="at least 1")
    parts: list[tuple[Floats, ...]] = []
    for episode in episodes:
        states, actions, rewards = episode.states, episode.actions, episode.rewards
        if states is None or actions is None or rewards is None:
            names = {"states": states, "actions": actions, "rewards": rewards}
            found = "no " + " and ".join(name for name, part in names.items() if part is None)
            raise InputError("nothing to learn dynamics from", where=episode.name, found=found)
        count = len(states) - 1
        goes_on = np.ones(count, np.float32)
        if episode.ended == "terminated" and count:
            goes_on[-1] = 0.0
        parts.append((states[:-1], actions[:count], states[1:], rewards, goes_on))
    if len({(part[0].shape[1], part[1].shape[1]) for part in parts}) > 1:
        raise InputError("episodes of different environments", where="episodes", expected="states of one width")
    return Transitions(*(np.concatenate(columns).astype(np.float32) for columns in zip(*parts, strict=True)))


def fit_state_model(
    data: Transitions,
    *,
    seed: int = 0,
    steps: int = 1500,
    batch: int = 128,
    learning_rate: float = 2e-3,
    hidden: int = 48,
    members: int = 4,
    progress: Callable[[int, float], None] | None = None,
) -> StateModel:
    """Fit an ensemble to transitions: each member on its own bootstrap, with Adam and a step size along a cosine.

    The loss of a member is the mean squared error of the change and of the reward, in standard units, plus the cross
    entropy of going on.

    Args:
        data: what to learn from.
        seed: of the weights, the bootstraps and the batches.
        steps: updates.
        batch: transitions a member and update.
        learning_rate: at the beginning.
        hidden: units of a layer.
        members: networks.
        progress: told (step, loss) after every hundredth update.

    Raises:
        ConfigError: sizes out of range.
        InputError: fewer than two transitions, numbers that are not finite.

    Complexity: O(steps members batch hidden^2); the defaults take about 7 s on one core.

    Source: Chua et al. 2018 (PETS, arXiv 1805.12114, section 4).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> s, a = rng.standard_normal((64, 2), np.float32), rng.standard_normal((64, 1), np.float32)
        >>> data = Transitions(s, a, s + 0.1 * a, np.ones(64, np.float32), np.ones(64, np.float32))
        >>> fit_state_model(data, steps=5, members=2).config.states
        2
    """
    import torch
    from torch.nn import functional

    from pipelines.training.randomness import isolated
    from pipelines.world.models.state_model import StateConfig, StateModel

    check_counts({"steps": steps, "batch": batch})
    count = len(data.states)
    if count < 2:
        raise InputError("too few steps to learn from", where="episodes", found=count, expected="at least 2")
    with isolated(devices=False):
        torch.manual_seed(seed)
        model = StateModel(StateConfig(data.states.shape[1], data.actions.shape[1], hidden, members))
    table = [torch.from_numpy(np.ascontiguousarray(part)) for part in data]
    model.standardise(table[0], table[2] - table[0], table[3])
    draws = torch.Generator().manual_seed(seed)
    own = torch.randint(count, (members, count), generator=draws)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = own.gather(1, torch.randint(count, (members, batch), generator=draws))
        states, actions, following, rewards, goes_on = (column[rows] for column in table)
        guess = model.change(states, actions)
        reward, logit = model.judge(states, actions, following)
        change_loss = ((guess - following) / model.change_scale).square().mean((1, 2))
        reward_loss = ((reward - rewards) / model.reward_scale).square().mean(1)
        end_loss = functional.binary_cross_entropy_with_logits(logit, goes_on, reduction="none").mean(1)
        loss = (change_loss + reward_loss + end_loss).sum()  # members share nothing: a sum keeps their gradients apart
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if progress is not None and (step + 1) % 100 == 0:
            progress(step + 1, float(loss.detach()) / members)
    return model.eval()


def learn_states(
    learned: Sequence[EnvironmentEpisode], held: Sequence[EnvironmentEpisode], seed: int, horizon: int, **options: Any
) -> tuple[StateDynamics, ModelErrors]:
    """Fit an ensemble to the states of episodes, and measure it on others ``horizon`` steps ahead.

    Args:
        learned: episodes to learn from.
        held: others.
        seed: of the learning.
        horizon: steps of a rollout.
        options: as `fit_state_model` takes them.

    Raises:
        InputError: as of `transitions` and `fit_state_model`.

    Example:
        >>> from pipelines.data.datasets.world_env import record
        >>> episodes = record("CartPole-v1", episodes=4, steps=50, observation="state")
        >>> model, errors = learn_states(episodes[:3], episodes[3:], 0, 3, steps=5)
        >>> errors.horizon
        3
    """
    from pipelines.world.planning_agent import StateDynamics

    model = fit_state_model(transitions(learned), seed=seed, **options)
    return StateDynamics(model), model_errors(model, held, horizon)


def model_errors(model: StateModel, episodes: Sequence[EnvironmentEpisode], horizon: int) -> ModelErrors:
    """Measure a model of states on episodes, one step ahead and ``horizon`` steps ahead; members are averaged.

    Raises:
        InputError: as of `transitions`.

    Complexity: O(B / horizon) rollouts.

    Example:
        >>> from pipelines.data.datasets.world_env import record
        >>> episodes = record("CartPole-v1", episodes=4, steps=50, observation="state")
        >>> model = fit_state_model(transitions(episodes), steps=50, members=2)
        >>> model_errors(model, episodes, horizon=3).transitions == sum(len(one) - 1 for one in episodes)
        True
    """
    import torch

    data = transitions(episodes)
    table = [torch.from_numpy(part) for part in data]
    with torch.no_grad():
        step = model(table[0], table[1])
    guess, reward, logit = step.states.mean(0), step.rewards.mean(0), step.goes_on.mean(0)
    change = _rms((guess - table[2]) / model.change_scale) / max(
        _rms((table[2] - table[0]) / model.change_scale), 1e-12
    )
    ends, called = table[4] == 0, logit < 0
    far, still = _rollouts(model, episodes, horizon)
    return ModelErrors(
        step=change,
        rollout=_rms(far) if len(far) else None,
        still=_rms(still) if len(far) else None,
        horizon=horizon,
        rollouts=len(far),
        reward=_rms(reward - table[3]),
        ends_found=float(called[ends].float().mean()) if bool(ends.any()) else None,
        false_ends=float(called[~ends].float().mean()) if bool((~ends).any()) else 0.0,
        transitions=len(data.states),
    )


def _rollouts(model: StateModel, episodes: Sequence[EnvironmentEpisode], horizon: int) -> tuple[Tensor, Tensor]:
    """Errors (R, S) after `horizon` steps, in deviations of the states: of the model, and of a state that stays."""
    import torch

    far, still = [torch.zeros(0, model.config.states)], [torch.zeros(0, model.config.states)]
    for episode in episodes:
        if episode.states is None or episode.actions is None:
            continue
        states, actions = torch.from_numpy(episode.states), torch.from_numpy(episode.actions)
        for start in range(0, len(states) - horizon, horizon):
            end = model.imagine(states[start], actions[None, start : start + horizon]).states[:, 0, -1].mean(0)
            truth = states[start + horizon]
            far.append(((end - truth) / model.state_scale)[None])
            still.append(((states[start] - truth) / model.state_scale)[None])
    return torch.cat(far), torch.cat(still)


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())
