"""Learning a small model of frames for planning: an ensemble of recurrent beliefs on the frames' principal components.

Shapes: B windows, K frames of context, F free steps, A numbers of an action, M members.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_env import EnvironmentEpisode
from pipelines.errors import ConfigError
from pipelines.world.counts import check_counts
from pipelines.world.planning_agent import Glimpse, Imagined
from pipelines.world.planning_training import ModelErrors
from pipelines.world.planning_windows import FrameRollouts, PixelWindows, frame_errors

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.world.models.frame_model import FrameModel

__all__ = ["FrameDynamics", "FrameOptions", "learn_frames"]

#: Frames that the principal components are made of.
_LOOKED_AT = 1000


@dataclass(frozen=True)
class FrameOptions:
    """How a small model of frames is learned.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> FrameOptions(updates=10).members
        2
    """

    updates: int = 2000
    """Steps of learning."""
    batch: int = 64
    """Windows a step."""
    context: int = 4
    """Frames K that are seen before the free steps of a window."""
    free: int = 10
    """Steps F without looking, on which rewards, ends and frames are learned."""
    components: int = 64
    """Principal components that a frame is seen through."""
    members: int = 2
    """Models of the ensemble, which differ by their beginnings and windows."""
    learning_rate: float = 2e-3
    """At the beginning; it falls along a cosine."""
    decay: float = 0.3
    """Weight decay: random episodes are few, and what ends them is soon learned by heart."""
    noise: float = 0.02
    """Noise on the components while learning, in their deviations."""
    frames: float = 1.0
    """Weight of the frames' components beside rewards and ends."""
    ends: float = 0.1
    """Share of the windows that are drawn from the ends of episodes, where the terminations are."""

    def __post_init__(self) -> None:
        names = ("updates", "batch", "context", "free", "components", "members")
        check_counts({name: getattr(self, name) for name in names})
        for name, most in (("ends", 1.0), ("noise", 1.0), ("decay", 10.0), ("frames", 1000.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError("out of range", where=name, found=getattr(self, name), expected=f"0 to {most:g}")


class FrameDynamics:
    """Plans in an ensemble of `FrameModel`: each member believes and imagines for itself.

    Args:
        members: the models.
        context: frames that are watched anew before each action, as many as were learned with.

    Example:
        >>> import torch
        >>> from pipelines.world.models.frame_model import FrameConfig, FrameModel
        >>> config = FrameConfig(pixels=16, actions=2, components=2, dim=4)
        >>> model = FrameDynamics([FrameModel(config), FrameModel(config)], context=3)
        >>> model.imagine(model.begin(np.zeros((4, 4, 1), np.uint8)), torch.zeros(3, 5, 2)).rewards.shape
        torch.Size([2, 3, 5])
    """

    def __init__(self, members: Sequence[FrameModel], context: int) -> None:
        self.members, self.context = tuple(members), context

    def begin(self, observation: NDArray[Any]) -> Glimpse:
        """What is believed after the first frame (h, w, C) uint8."""
        return Glimpse.first(observation, self.members[0].config.actions, self.watch)

    def follow(self, belief: Glimpse, action: NDArray[np.float32], observation: NDArray[Any]) -> Glimpse:
        """What is believed after an action (A,) and the frame that was seen then."""
        return belief.then(action, observation, self.context, self.watch)

    def watch(self, frames: Tensor, actions: Tensor) -> list[Tensor]:
        """Each member's belief (B, d) after frames (B, K, C, h, w) and the actions (B, K - 1, A) between them."""
        import torch

        with torch.no_grad():
            return [_watch(one, one.embed(frames), actions)[0] for one in self.members]

    def imagine(self, belief: Glimpse, plans: Tensor) -> Imagined:
        """What plans (N, H, A) would earn, by each member."""
        import torch

        rewards, goes_on = [], []
        with torch.no_grad():
            for one, held in zip(self.members, belief.belief, strict=True):
                beliefs = [held.expand(len(plans), -1)]
                for step in range(plans.shape[1]):
                    beliefs.append(one.act(beliefs[-1], plans[:, step]))
                _, reward, logit = one.tell(torch.stack(beliefs[1:], 1))
                rewards.append(reward)
                goes_on.append(logit.sigmoid())
        return Imagined(torch.stack(rewards), torch.stack(goes_on))


def learn_frames(
    learned: Sequence[EnvironmentEpisode],
    held: Sequence[EnvironmentEpisode],
    seed: int,
    horizon: int,
    *,
    options: FrameOptions = FrameOptions(),
    progress: Callable[[int, float], None] | None = None,
) -> tuple[FrameDynamics, ModelErrors | None]:
    """Learn an ensemble of small recurrent models of frames, and measure it on other episodes.

    A member sees K frames and goes F steps without looking, under the actions that were taken; what it then believes
    must tell the reward, whether the episode goes on, and the components of every next frame.

    Args:
        learned: episodes to learn from, with frames.
        held: others.
        seed: of the weights, windows and noise.
        horizon: steps of the rollouts that are measured.
        options: how it is learned.
        progress: told (step, loss) after every hundredth step of a member.

    Raises:
        InputError: no episode is long enough, frames of different sizes, or an episode without actions.

    Complexity: O(members updates batch (K + F) d^2), and O(10^6 P) for the components of P pixels.

    Source: Hafner et al. 2019 (PlaNet, arXiv 1811.04551, sections 2 and 3), with terminations beside rewards.

    Example:
        >>> from pipelines.data.datasets.world_env import record
        >>> episodes = record("CartPole-v1", episodes=4, steps=20, size=(16, 16), colour="grey")
        >>> few = FrameOptions(updates=2, batch=2, context=2, free=2, members=1, components=4)
        >>> model, errors = learn_frames(episodes[:3], episodes[3:], 0, 2, options=few)
        >>> len(model.members), errors.horizon
        (1, 2)
    """
    import torch

    from pipelines.training.randomness import isolated
    from pipelines.world.models.frame_model import FrameConfig, FrameModel

    windows = PixelWindows(learned, options.context, options.free)
    # Evenly over the recording: at most so many frames make the components.
    rows = np.unique(np.linspace(0, len(windows.frames) - 1, min(_LOOKED_AT, len(windows.frames))).astype(int))
    few = torch.from_numpy(windows.frames[rows]).float() / 255
    config = FrameConfig(few[0].numel(), windows.actions.shape[1], options.components)
    members: list[FrameModel] = []
    with isolated(devices=False):
        for number in range(options.members):
            torch.manual_seed(seed + 7919 * number)
            one = FrameModel(config)
            if members:
                for name, value in members[0].named_buffers():
                    one.get_buffer(name).copy_(value)
            else:
                one.look(few, torch.from_numpy(windows.rewards))
            members.append(one)
            _fit(one, windows, options, np.random.default_rng((seed, number, 6)), progress)
    model, first = FrameDynamics(members, options.context), members[0]

    def draw(beliefs: list[Tensor], last: Tensor) -> Tensor:
        components = torch.stack([one.draw(held) for one, held in zip(members, beliefs, strict=True)]).mean(0)
        return first.frame(components).reshape(last.shape).clamp(0.0, 1.0)

    rollouts = FrameRollouts(
        watch=model.watch,
        act=lambda beliefs, action: [one.act(held, action) for one, held in zip(members, beliefs, strict=True)],
        tell=lambda beliefs: _mean_told(members, beliefs),
        draw=draw,
    )
    return model, frame_errors(rollouts, held, horizon, options.context, windows.notes(len(learned)))


def _watch(model: FrameModel, seen: Tensor, actions: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The belief after components (B, K, D) and actions (B, K - 1, A), and the beliefs before each but the first."""
    belief, before = model.start(len(seen)), []
    for step in range(seen.shape[1]):
        belief = model.see(belief, seen[:, step])
        if step < seen.shape[1] - 1:
            belief = model.act(belief, actions[:, step])
            before.append(belief)
    return belief, before


def _mean_told(members: Sequence[FrameModel], beliefs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rewards and logits of going on, averaged over members."""
    import torch

    told = [one.tell(held) for one, held in zip(members, beliefs, strict=True)]
    return torch.stack([one[1] for one in told]).mean(0), torch.stack([one[2] for one in told]).mean(0)


def _fit(
    model: FrameModel,
    windows: PixelWindows,
    options: FrameOptions,
    rng: np.random.Generator,
    progress: Callable[[int, float], None] | None,
) -> None:
    """Learn one member by AdamW with a step size along a cosine."""
    import torch
    from torch.nn import functional

    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.decay)
    weight = model.scale.sqrt() / model.scale.sqrt().mean()  # wide components matter more, and not by their square
    # Seen once and kept: a component is a few numbers, a frame some thousand.
    table = torch.cat([model.embed(torch.from_numpy(part).float() / 255) for part in _parts(windows.frames)])
    offsets = np.arange(windows.length)
    for step in range(options.updates):
        rate = options.learning_rate * 0.5 * (1 + math.cos(math.pi * step / options.updates))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50)
        begin = windows.starts[windows.draw(options.batch, options.ends, rng)][:, None] + offsets
        seen = table[torch.from_numpy(begin)]
        seen = seen + options.noise * torch.randn_like(seen)
        free = begin[:, options.context - 1 : -1]
        actions, rewards, goes_on = (
            torch.from_numpy(part)
            for part in (windows.actions[begin[:, :-1]], windows.rewards[free], windows.goes_on[free])
        )
        belief, beliefs = _watch(model, seen[:, : options.context], actions)
        for place in range(options.context - 1, windows.length - 1):
            belief = model.act(belief, actions[:, place])
            beliefs.append(belief)
        drawn, reward, logit = model.tell(torch.stack(beliefs, 1))
        far = options.free
        loss = options.frames * ((drawn - seen[:, 1:]).square() * weight).mean()
        loss = loss + ((reward[:, -far:] - rewards) / model.reward_scale).square().mean()
        loss = loss + functional.binary_cross_entropy_with_logits(logit[:, -far:], goes_on)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if progress is not None and (step + 1) % 100 == 0:
            progress(step + 1, float(loss.detach()))
    model.eval()


def _parts(frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The frames, some at a time, so that they are never all floating point."""
    return [frames[begin : begin + 256] for begin in range(0, len(frames), 256)]
