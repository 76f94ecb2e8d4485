"""A planner: at every step it searches for the best plan in a learned model, takes its first action, and looks again.

Shapes: N plans, H steps, A numbers of an action, M opinions (members of an ensemble; one for a single model).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_env_spaces import ActionSpace
from pipelines.errors import ConfigError, InputError
from pipelines.world.planning_cem import CemOptions, Plan, cem, shifted

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.world.models.shell import WorldNet, WorldState
    from pipelines.world.models.state_model import RewardHead, StateModel

__all__ = ["Glimpse", "Imagined", "PixelDynamics", "Planner", "PlanningModel", "StateDynamics", "discounted"]


class Imagined(NamedTuple):
    """What plans would earn: rewards (M, N, H), and the chance (M, N, H) that the episode goes on after each step."""

    rewards: Tensor
    goes_on: Tensor


class PlanningModel(Protocol):
    """What a planner needs of a learned model; what it believes is passed in and out, nothing is kept inside."""

    def begin(self, observation: NDArray[Any]) -> Any:
        """What is believed after the first observation of an episode."""
        ...

    def follow(self, belief: Any, action: NDArray[np.float32], observation: NDArray[Any]) -> Any:
        """What is believed after one action (A,) and what was observed then."""
        ...

    def imagine(self, belief: Any, plans: Tensor) -> Imagined:
        """What plans (N, H, A) would earn."""
        ...


class StateDynamics:
    """Plans in a `StateModel`: what is believed is the state that was observed.

    Example:
        >>> import torch
        >>> from pipelines.world.models.state_model import StateConfig, StateModel
        >>> model = StateDynamics(StateModel(StateConfig(states=4, actions=2)))
        >>> model.imagine(model.begin(np.zeros(4)), torch.zeros(3, 7, 2)).rewards.shape
        torch.Size([5, 3, 7])
    """

    def __init__(self, model: StateModel) -> None:
        self.model = model

    def begin(self, observation: NDArray[Any]) -> Tensor:
        """The state as a tensor (S,)."""
        import torch

        return torch.from_numpy(np.array(observation, np.float32))

    def follow(self, belief: Tensor, action: NDArray[np.float32], observation: NDArray[Any]) -> Tensor:
        """The new state: it tells all."""
        return self.begin(observation)

    def imagine(self, belief: Tensor, plans: Tensor) -> Imagined:
        """What plans (N, H, A) would earn, by each member."""
        step = self.model.imagine(belief, plans)
        return Imagined(step.rewards, step.goes_on.sigmoid())


class Glimpse(NamedTuple):
    """The last frames of an episode, what was done between them, and what a model makes of both.

    Attributes:
        frames: (1, k, C, h, w) in [0, 1].
        actions: (1, k - 1, A).
        belief: a model's own.
    """

    frames: Tensor
    actions: Tensor
    belief: Any

    @classmethod
    def first(cls, observation: NDArray[Any], actions: int, watch: Callable[[Tensor, Tensor], Any]) -> Glimpse:
        """After the first frame (h, w, C) uint8; `watch` makes a belief of frames and actions."""
        import torch

        frames, none = _as_input(observation), torch.zeros(1, 0, actions)
        return cls(frames, none, watch(frames, none))

    def then(
        self, action: NDArray[np.float32], observation: NDArray[Any], most: int, watch: Callable[[Tensor, Tensor], Any]
    ) -> Glimpse:
        """After one more action (A,) and frame; at most so many frames are kept."""
        import torch

        given = torch.from_numpy(np.array(action, np.float32))[None, None]
        frames = torch.cat([self.frames, _as_input(observation)], 1)[:, -most:]
        actions = torch.cat([self.actions, given], 1)[:, self.actions.shape[1] + 2 - frames.shape[1] :]
        return Glimpse(frames, actions, watch(frames, actions))


class PixelDynamics:
    """Plans in a world model of frames: all plans evolve in one batch, a head reads rewards from the features.

    Args:
        net: a world model that takes actions, in eval mode.
        head: trained on its features.
        context: frames that are watched anew before each action: as many as it learned to begin with, since what it
            would believe after more of them was never trained.

    Example:
        >>> import torch
        >>> from pipelines.world.models import build_world
        >>> from pipelines.world.models.state_model import RewardHead
        >>> net = build_world("convlstm", dim=8, hidden=8, bottleneck=8, stimulus=2, channels=1, height=16, width=16)
        >>> model = PixelDynamics(net.eval(), RewardHead(8), context=3)
        >>> model.imagine(model.begin(np.zeros((16, 16, 1), np.uint8)), torch.zeros(3, 5, 2)).goes_on.shape
        torch.Size([1, 3, 5])
    """

    def __init__(self, net: WorldNet, head: RewardHead, context: int) -> None:
        self.net, self.head, self.context = net, head, context

    def begin(self, observation: NDArray[Any]) -> Glimpse:
        """What is believed after the first frame (h, w, C) uint8."""
        return Glimpse.first(observation, self.net.config.stimulus, self._watch)

    def follow(self, belief: Glimpse, action: NDArray[np.float32], observation: NDArray[Any]) -> Glimpse:
        """What is believed after an action (A,) and the frame that was seen then."""
        return belief.then(action, observation, self.context, self._watch)

    def _watch(self, frames: Tensor, actions: Tensor) -> WorldState:
        import torch

        with torch.no_grad():
            return self.net.watch(frames, actions)

    def imagine(self, belief: Glimpse, plans: Tensor) -> Imagined:
        """What plans (N, H, A) would earn; memory does not grow with H."""
        import torch

        rewards, goes_on = [], []
        with torch.no_grad():
            state: WorldState = belief.belief.repeat(len(plans))
            for step in range(plans.shape[1]):
                state = self.net.evolve(state, plans[:, step])
                reward, logit = self.head(self.net.read(state))
                rewards.append(reward)
                goes_on.append(logit.sigmoid())
                state = self.net.imagined(state)
        return Imagined(torch.stack(rewards, 1)[None], torch.stack(goes_on, 1)[None])


def _as_input(frame: NDArray[Any]) -> Tensor:
    """A frame (h, w, C) uint8 as (1, 1, C, h, w) in [0, 1]."""
    import torch

    return torch.from_numpy(np.moveaxis(np.asarray(frame), 2, 0)[None, None].astype(np.float32) / 255)


def discounted(imagined: Imagined, discount: float) -> Tensor:
    """The expected return (N,) of plans: a step's reward counts by the chance that the episode came so far.

    sum_t discount^t r_t prod_{k < t} p_k, averaged over the M opinions, p_k the chance of going on after step k.

    Example:
        >>> import torch
        >>> discounted(Imagined(torch.ones(1, 1, 3), torch.tensor([[[1.0, 0.5, 1.0]]])), 1.0).tolist()
        [2.5]
    """
    import torch

    rewards, goes_on = imagined
    reached = torch.cat([torch.ones_like(goes_on[..., :1]), goes_on[..., :-1].cumprod(-1)], -1)
    weight = discount ** torch.arange(rewards.shape[-1], dtype=rewards.dtype)
    return (rewards * reached * weight).sum(-1).mean(0)


@dataclass
class Planner:
    """Acts in an environment by planning in a learned model, with a new search at every step (MPC).

    Args:
        model: of the environment.
        space: of its actions.
        horizon: steps H of a plan.
        options: of the search.
        discount: of a reward one step later, above 0 and at most 1.
        seed: of the searches.

    Raises:
        ConfigError: a horizon or discount out of range.

    Complexity: of one action: iterations x candidates plans of H steps in the model.

    Source: Chua et al. 2018 (PETS, arXiv 1805.12114, section 5.1), Hafner et al. 2019 (PlaNet, arXiv 1811.04551).

    Example:
        >>> from pipelines.world.models.state_model import StateConfig, StateModel
        >>> model = StateDynamics(StateModel(StateConfig(states=4, actions=2)))
        >>> planner = Planner(model, ActionSpace.of_choices(2), horizon=4)
        >>> planner.reset(np.zeros(4))
        >>> planner.act().shape
        (2,)
    """

    model: PlanningModel
    space: ActionSpace
    horizon: int = 15
    options: CemOptions = field(default_factory=CemOptions)
    discount: float = 0.99
    seed: int = 0
    _belief: Any = None
    _plan: Plan | None = None
    _episode: int = -1
    _rng: np.random.Generator = field(default_factory=np.random.default_rng)

    def __post_init__(self) -> None:
        if not isinstance(self.horizon, int) or isinstance(self.horizon, bool) or self.horizon < 1:
            raise ConfigError("out of range", where="horizon", found=self.horizon, expected="a whole number from 1")
        if not 0 < self.discount <= 1:
            raise ConfigError("out of range", where="discount", found=self.discount, expected="above 0, at most 1")

    def reset(self, observation: NDArray[Any], episode: int | None = None) -> None:
        """Begin an episode: the next one, or the one of that number, which the searches are seeded by."""
        self._episode = self._episode + 1 if episode is None else episode
        self._rng = np.random.default_rng(np.random.SeedSequence((self.seed, self._episode, 2)))
        self._belief, self._plan = self.model.begin(observation), None

    def act(self) -> NDArray[np.float32]:
        """Search, and return the first action (A,) of the best plan.

        Raises:
            InputError: before `reset`, or when no plan has a finite return.
        """
        if self._belief is None:
            raise InputError("no episode has begun", where="planner", cure="call reset(observation) first")

        def score(plans: Tensor) -> Tensor:
            return discounted(self.model.imagine(self._belief, plans), self.discount)

        start = None if self._plan is None else shifted(self._plan, self.space)
        self._plan = cem(score, self.horizon, self.space, self.options, rng=self._rng, start=start, tensors=True)
        return self._plan.actions[0].copy()

    def observe(self, action: NDArray[np.float32], observation: NDArray[Any]) -> None:
        """Tell what was done (A,) and what was observed then."""
        self._belief = self.model.follow(self._belief, action, observation)

    @property
    def plan(self) -> Plan | None:
        """The last search's result."""
        return self._plan
