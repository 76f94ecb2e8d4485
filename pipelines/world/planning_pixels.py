"""Learning from frames what planning needs: a small world model that takes actions, and a head for reward and going on.

Shapes: B windows, K frames of context, F free steps, C, h, w of a frame, A numbers of an action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_env import EnvironmentEpisode
from pipelines.errors import ConfigError, InputError
from pipelines.world.counts import check_counts
from pipelines.world.planning_agent import PixelDynamics
from pipelines.world.planning_training import ModelErrors
from pipelines.world.planning_windows import FrameRollouts, PixelWindows, frame_errors

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.world.models.shell import WorldNet, WorldState
    from pipelines.world.models.state_model import RewardHead

__all__ = ["PixelOptions", "learn_pixels"]

#: Sizes of the small world models that are built for planning.
_SMALL: dict[str, dict[str, Any]] = {
    "convlstm": {"dim": 32, "patch": 8, "hidden": 32, "bottleneck": 32},
    "transformer": {"dim": 32, "patch": 8, "heads": 4},
    "fluidworld": {"dim": 32, "patch": 8, "layers": 1, "steps": 3},
}


@dataclass(frozen=True)
class PixelOptions:
    """How a world model of frames is learned for planning.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> PixelOptions(updates=10).context
        3
    """

    updates: int = 1500
    """Steps of learning."""
    batch: int = 16
    """Windows a step."""
    context: int = 3
    """Frames K that are seen before the free steps of a window."""
    free: int = 8
    """Steps F without looking, on which rewards, ends and frames are learned."""
    learning_rate: float = 2e-3
    """At the beginning; it falls along a cosine."""
    ends: float = 0.33
    """Share of the windows that are drawn from the ends of episodes, where the terminations are."""
    pool: int = 4
    """Areas a side that the head reads."""

    def __post_init__(self) -> None:
        names = ("updates", "batch", "context", "free", "pool")
        check_counts({name: getattr(self, name) for name in names})
        if not 0 <= self.ends <= 1:
            raise ConfigError("out of range", where="ends", found=self.ends, expected="0 to 1")


def learn_pixels(
    learned: Sequence[EnvironmentEpisode],
    held: Sequence[EnvironmentEpisode],
    seed: int,
    horizon: int,
    *,
    net: WorldNet | None = None,
    model: str = "convlstm",
    options: PixelOptions = PixelOptions(),
    progress: Callable[[int, float], None] | None = None,
) -> tuple[PixelDynamics, ModelErrors | None]:
    """Learn a world model of frames and a head for reward and going on, and measure both on other episodes.

    The model sees K frames and goes F steps without looking, under the actions that were taken. What it then believes
    must tell the reward, whether the episode goes on, and, by one linear map a place, the next frame's pixels. That map
    costs a hundredth of the model's decoder, which planning does not need and which is left untrained.

    Args:
        learned: episodes to learn from.
        held: others.
        seed: of the weights and windows.
        horizon: steps of the rollouts that are measured.
        net: a world model that was trained on such frames and actions: it stays as it is, the head is learned alone.
        model: what is built without ``net``.
        options: how it is learned.
        progress: told (step, loss) after every fiftieth step.

    Raises:
        ConfigError: an unknown model.
        InputError: as of `PixelWindows`, or a net for other frames or actions.

    Complexity: O(updates batch (K + F)) steps of the model.

    Source: Hafner et al. 2019 (PlaNet, arXiv 1811.04551, sections 2 and 3), with terminations beside rewards.

    Example:
        >>> from pipelines.data.datasets.world_env import record
        >>> episodes = record("CartPole-v1", episodes=4, steps=20, size=(16, 16), colour="grey")
        >>> few = PixelOptions(updates=2, batch=2, context=2, free=2)
        >>> model, errors = learn_pixels(episodes[:3], episodes[3:], 0, 2, options=few)
        >>> model.net.config.grid, errors.horizon
        ((2, 2), 2)
    """
    import torch

    from pipelines.training.randomness import isolated
    from pipelines.world.models import build_world
    from pipelines.world.models.state_model import RewardHead

    windows = PixelWindows(learned, options.context, options.free)
    channels, height, width = windows.frames.shape[1:]
    actions = windows.actions.shape[1]
    with isolated(devices=False):
        torch.manual_seed(seed)
        if net is None:
            sizes = {"channels": channels, "height": height, "width": width, "stimulus": actions}
            built = build_world(model, **sizes, **_SMALL.get(model, {}))
        else:
            built = net
            if (net.config.channels, net.config.stimulus) != (channels, actions):
                found = (net.config.channels, net.config.stimulus)
                raise InputError(
                    "a world model for other episodes", where="net", found=found, expected=(channels, actions)
                )
        head = RewardHead(built.config.dim, min(options.pool, *built.config.grid))
        sketch = _Sketch(built.config.dim, built.config.patch, windows.frames)
    head.standardise(torch.from_numpy(windows.rewards))
    _fit(built, head, sketch, windows, options, seed, trained=net is not None, progress=progress)

    def draw(state: WorldState, last: Tensor) -> Tensor:
        features = built.read(state)
        return sketch.drawn(features) if net is None else net.decode(features, net.base_of(last))

    rollouts = FrameRollouts(
        watch=built.watch,
        act=lambda state, action: built.imagined(built.evolve(state, action)),
        tell=lambda state: head(built.read(state)),
        draw=draw,
    )
    notes = windows.notes(len(learned))
    return PixelDynamics(built, head, options.context), frame_errors(rollouts, held, horizon, options.context, notes)


class _Sketch:
    """One linear map a place, features (B, d, h, w) to the pixels of its patch; pixels are centred and scaled."""

    def __init__(self, dim: int, patch: int, frames: NDArray[np.uint8]) -> None:
        import torch
        from torch import nn

        # At most 2,000 frames tell the mean and the scale; a recording may have many more.
        few = torch.from_numpy(frames[:: max(1, len(frames) // 2000)]).float() / 255
        self.mean = few.mean(0)
        self.scale = (few - self.mean).square().mean().sqrt().clamp(min=1e-3)
        self.map = nn.Conv2d(dim, frames.shape[1] * patch * patch, 1)
        self.patch = patch

    def standard(self, frames: Tensor) -> Tensor:
        """Frames (..., C, h, w) as numbers around 0."""
        return (frames - self.mean) / self.scale

    def draw(self, features: Tensor) -> Tensor:
        """The frame (B, C, h, w) in standard numbers."""
        from torch.nn import functional

        return functional.pixel_shuffle(self.map(features), self.patch)

    def drawn(self, features: Tensor) -> Tensor:
        """The frame (B, C, h, w) in [0, 1]."""
        return (self.mean + self.scale * self.draw(features)).clamp(0.0, 1.0)


def _loss(
    net: WorldNet, head: RewardHead, sketch: _Sketch, batch: tuple[Tensor, ...], context: int, *, frames_too: bool
) -> Tensor:
    """The loss of one batch of windows: rewards and going on, and with `frames_too` every next frame."""
    import torch
    from torch.nn import functional

    frames, actions, rewards, goes_on = batch
    wanted = sketch.standard(frames)
    off: list[Tensor] = []
    with torch.set_grad_enabled(frames_too):
        state = None
        for step in range(context):
            features = net.encode(frames[:, step])
            state = net.write(net.start(features) if state is None else state, features)
            if step < context - 1:
                state = net.evolve(state, actions[:, step])
                off.append(sketch.draw(net.read(state)) - wanted[:, step + 1])
        believed: list[Tensor] = []
        for step in range(context - 1, actions.shape[1]):
            if state is not None:
                state = net.imagined(net.evolve(state, actions[:, step]))
                believed.append(net.read(state))
                off.append(sketch.draw(believed[-1]) - wanted[:, step + 1])
    reward, logit = head(torch.stack(believed, 1).flatten(0, 1))
    wrong = (reward - rewards.flatten()) / head.reward_scale
    loss = wrong.square().mean() + functional.binary_cross_entropy_with_logits(logit, goes_on.flatten())
    return loss + torch.stack(off).square().mean() if frames_too else loss


def _fit(
    net: WorldNet,
    head: RewardHead,
    sketch: _Sketch,
    windows: PixelWindows,
    options: PixelOptions,
    seed: int,
    *,
    trained: bool,
    progress: Callable[[int, float], None] | None,
) -> None:
    """Learn all of it, or with `trained` the head alone, by Adam with a step size along a cosine."""
    import torch

    rng = np.random.default_rng(np.random.SeedSequence((seed, 5)))
    parts = [*head.parameters()] if trained else [*net.parameters(), *head.parameters(), *sketch.map.parameters()]
    optimiser = torch.optim.Adam(parts, lr=options.learning_rate)
    net.train(not trained)
    for step in range(options.updates):
        rate = options.learning_rate * 0.5 * (1 + math.cos(math.pi * step / options.updates))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50)
        batch = windows.take(windows.draw(options.batch, options.ends, rng))
        loss = _loss(net, head, sketch, batch, options.context, frames_too=not trained)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts, 1.0)
        optimiser.step()
        if progress is not None and (step + 1) % 50 == 0:
            progress(step + 1, float(loss.detach()))
    net.eval()
    head.eval()
