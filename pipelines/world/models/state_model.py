"""Dynamics on state vectors for planning: an ensemble of small networks, and heads for reward and going on.

Shapes: E members, B samples, S numbers of a state, A of an action, N plans, H steps.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError, InputError
from pipelines.world.counts import check_counts

__all__ = ["RewardHead", "StateConfig", "StateModel", "StateStep"]


@dataclass(frozen=True)
class StateConfig:
    """Sizes of a `StateModel`; ``dataclasses.asdict`` of it, through JSON, builds it again.

    Raises:
        ConfigError: a size that does not fit, by name.

    Example:
        >>> StateConfig(states=4, actions=2).members
        5
    """

    states: int
    """Numbers S of a state."""
    actions: int
    """Numbers A of an action's vector."""
    hidden: int = 64
    """Units of the two hidden layers."""
    members: int = 5
    """Networks E of the ensemble, each trained on its own draw of the data."""

    def __post_init__(self) -> None:
        check_counts({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, "not a size")


class StateStep(NamedTuple):
    """One step on: states (E, B, S), rewards (E, B), and the logit (E, B) that the episode goes on after it."""

    states: Tensor
    rewards: Tensor
    goes_on: Tensor


class _Members(nn.Module):
    """E networks of two hidden layers side by side: (E, B, inputs) -> (E, B, outputs)."""

    def __init__(self, members: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        sizes = [(inputs, hidden), (hidden, hidden), (hidden, outputs)]
        self.weights = nn.ParameterList(torch.empty(members, one, two) for one, two in sizes)
        self.biases = nn.ParameterList(torch.zeros(members, 1, two) for _, two in sizes)
        for weight in self.weights:
            nn.init.uniform_(weight, -1 / math.sqrt(weight.shape[1]), 1 / math.sqrt(weight.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if place < len(self.weights) - 1:
                x = nn.functional.silu(x)
        return x


class StateModel(nn.Module):
    """An ensemble that predicts the change of a state, the reward and whether the episode goes on.

    s' = s + scale * f_e(s, a); the reward and the chance of going on are read from (s, a, s'). States, changes and
    rewards are standardised inside by what `standardise` was given.

    Args:
        config: the sizes.

    Source: Chua et al. 2018 (PETS, arXiv 1805.12114, section 4): an ensemble on bootstrapped data, differences as
    targets; its members are deterministic here, as in the paper's DE.

    Example:
        >>> model = StateModel(StateConfig(states=4, actions=2))
        >>> step = model(torch.zeros(3, 4), torch.zeros(3, 2))
        >>> step.states.shape, step.rewards.shape
        (torch.Size([5, 3, 4]), torch.Size([5, 3]))
    """

    state_mean: Tensor
    state_scale: Tensor
    change_scale: Tensor
    reward_mean: Tensor
    reward_scale: Tensor

    def __init__(self, config: StateConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.dynamics = _Members(c.members, c.states + c.actions, c.hidden, c.states)
        self.heads = _Members(c.members, 2 * c.states + c.actions, c.hidden, 2)
        for name, count in (("state", c.states), ("reward", 1)):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_scale", torch.ones(count))
        self.register_buffer("change_scale", torch.ones(c.states))

    def standardise(self, states: Tensor, changes: Tensor, rewards: Tensor) -> None:
        """Set the scales from data: states (B, S), changes (B, S), rewards (B,); what never changes gets a scale of 1.

        Raises:
            InputError: numbers that are not finite.
        """
        for name, values in (("states", states), ("changes", changes), ("rewards", rewards)):
            if not bool(torch.isfinite(values).all()):
                raise InputError("numbers that are not finite", where=name, expected="finite numbers")
        self.state_mean.copy_(states.mean(0))
        self.state_scale.copy_(_scale(states))
        self.change_scale.copy_(_scale(changes, centre=False))
        self.reward_mean.copy_(rewards.mean().reshape(1))
        self.reward_scale.copy_(_scale(rewards[:, None]))

    def forward(self, states: Tensor, actions: Tensor) -> StateStep:
        """One step on.

        Args:
            states: (B, S) for all members, or (E, B, S).
            actions: (B, A) or (E, B, A).

        Raises:
            InputError: other shapes.

        Complexity: O(E B hidden (S + A + hidden)).
        """
        states, actions = self._each(states, self.config.states), self._each(actions, self.config.actions)
        following = self.change(states, actions)
        rewards, goes_on = self.judge(states, actions, following)
        return StateStep(following, rewards, goes_on)

    def change(self, states: Tensor, actions: Tensor) -> Tensor:
        """The states (E, B, S) that follow states (E, B, S) and actions (E, B, A)."""
        seen = torch.cat([self.standard(states), actions], -1)
        return states + self.change_scale * self.dynamics(seen)

    def judge(self, states: Tensor, actions: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards and logits of going on, (E, B) each, of transitions (E, B, .)."""
        seen = torch.cat([self.standard(states), actions, self.standard(following)], -1)
        reward, logit = self.heads(seen).unbind(-1)
        return self.reward_mean + self.reward_scale * reward, logit

    def standard(self, states: Tensor) -> Tensor:
        """States in standard units, kept to 10 of them: what was never seen is not made worse by its size."""
        return ((states - self.state_mean) / self.state_scale).clamp(-10.0, 10.0)

    @torch.no_grad()
    def imagine(self, state: Tensor, actions: Tensor) -> StateStep:
        """Follow plans from one state, each member its own way.

        Args:
            state: (S,).
            actions: (N, H, A).

        Returns:
            States (E, N, H, S), rewards (E, N, H), and logits of going on (E, N, H).

        Raises:
            InputError: other shapes.

        Complexity: H steps of E N samples.
        """
        c = self.config
        if state.shape != (c.states,) or actions.dim() != 3 or actions.shape[2] != c.actions:
            found, expected = (tuple(state.shape), tuple(actions.shape)), f"({c.states},) and (N, H, {c.actions})"
            raise InputError(
                "not a state and plans for this model", where="state, actions", found=found, expected=expected
            )
        count, horizon, _ = actions.shape
        given = actions.transpose(0, 1).expand(c.members, horizon, count, c.actions)
        states = [state.expand(c.members, count, c.states)]
        for step in range(horizon):
            states.append(self.change(states[-1], given[:, step]))
        before, after = torch.stack(states[:-1], 1), torch.stack(states[1:], 1)  # (E, H, N, S)
        flat = (c.members, horizon * count, -1)
        judged = self.judge(before.reshape(flat), given.reshape(flat), after.reshape(flat))
        rewards, goes_on = (one.reshape(c.members, horizon, count).transpose(1, 2) for one in judged)
        return StateStep(after.transpose(1, 2), rewards, goes_on)

    def _each(self, values: Tensor, width: int) -> Tensor:
        if values.dim() == 2:
            values = values.expand(self.config.members, *values.shape)
        if values.dim() != 3 or values.shape[0] != self.config.members or values.shape[2] != width:
            expected = f"(B, {width}) or ({self.config.members}, B, {width})"
            raise InputError("not an input of this model", where="states, actions", found=tuple(values.shape),
                             expected=expected)  # fmt: skip
        return values


class RewardHead(nn.Module):
    """Reward and going on, read from the features of a world model: (B, d, h, w) -> (B,) and (B,).

    The features are averaged over pool x pool areas, which keeps where things are, and go through two layers.

    Args:
        dim: channels d.
        pool: areas a side, at most h and w.
        hidden: units.

    Raises:
        ConfigError: a size below 1.

    Source: Hafner et al. 2019 (PlaNet, arXiv 1811.04551, section 3): a reward model on the latent state.

    Example:
        >>> reward, goes_on = RewardHead(8)(torch.zeros(3, 8, 16, 16))
        >>> reward.shape, goes_on.shape
        (torch.Size([3]), torch.Size([3]))
    """

    reward_mean: Tensor
    reward_scale: Tensor

    def __init__(self, dim: int, pool: int = 4, hidden: int = 128) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("pool", pool), ("hidden", hidden)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError("not a size", where=name, found=value, expected="a whole number from 1")
        self.dim, self.pool = dim, pool
        self.layers = nn.Sequential(
            nn.LayerNorm(dim * pool * pool), nn.Linear(dim * pool * pool, hidden), nn.SiLU(), nn.Linear(hidden, 2)
        )
        self.register_buffer("reward_mean", torch.zeros(()))
        self.register_buffer("reward_scale", torch.ones(()))

    def standardise(self, rewards: Tensor) -> None:
        """Set the scale of rewards (B,); rewards that are all the same get a scale of 1."""
        self.reward_mean.copy_(rewards.mean())
        self.reward_scale.copy_(_scale(rewards[:, None])[0])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards and logits of going on.

        Raises:
            InputError: features of another shape.
        """
        if features.dim() != 4 or features.shape[1] != self.dim:
            expected = f"(B, {self.dim}, h, w)"
            raise InputError(
                "not features for this head", where="features", found=tuple(features.shape), expected=expected
            )
        pooled = nn.functional.adaptive_avg_pool2d(features, self.pool).flatten(1)
        reward, logit = self.layers(pooled).unbind(1)
        return self.reward_mean + self.reward_scale * reward, logit


def _scale(values: Tensor, *, centre: bool = True) -> Tensor:
    """Standard deviation (or root mean square) of each column of (B, n), 1 where it is nothing."""
    centred = values - values.mean(0) if centre else values
    size = centred.square().mean(0).sqrt()
    return torch.where(size > 1e-6, size, torch.ones_like(size))
