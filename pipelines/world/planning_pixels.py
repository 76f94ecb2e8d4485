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
from pipelines.world.planning_agent import PixelDynamics
from pipelines.world.planning_training import ModelErrors

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.world.models.shell import WorldNet
    from pipelines.world.models.state_model import RewardHead

__all__ = ["PixelOptions", "PixelWindows", "learn_pixels"]

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
        for name in ("updates", "batch", "context", "free", "pool"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError("out of range", where=name, found=value, expected="a whole number from 1")
        if not 0 <= self.ends <= 1:
            raise ConfigError("out of range", where="ends", found=self.ends, expected="0 to 1")


class PixelWindows:
    """Windows of K + F frames out of episodes, with the actions, rewards and ends of the F free steps.

    Args:
        episodes: with frames, actions and rewards.
        context: K.
        free: F.

    Attributes:
        length: K + F. short: episodes that have fewer frames and are left out.

    Raises:
        InputError: no episode is long enough, frames of different sizes, or an episode without actions.

    Complexity: the frames are held as bytes, T h w C.

    Example:
        >>> from pipelines.data.datasets.world_env import record
        >>> windows = PixelWindows(record("CartPole-v1", episodes=2, steps=12, size=(16, 16)), context=2, free=3)
        >>> frames, actions, rewards, goes_on = windows.take(np.array([0, 1]))
        >>> frames.shape, actions.shape, goes_on.shape
        (torch.Size([2, 5, 3, 16, 16]), torch.Size([2, 4, 2]), torch.Size([2, 3]))
    """

    def __init__(self, episodes: Sequence[EnvironmentEpisode], context: int, free: int) -> None:
        self.context, self.free, self.length = context, free, context + free
        length = self.length
        whole = [one for one in episodes if len(one) >= length]
        self.short = len(episodes) - len(whole)
        if not whole:
            longest = max((len(one) for one in episodes), default=0)
            cure = "record longer episodes, or fewer frames of context and free steps"
            raise InputError("no episode is long enough to learn from", where="episodes", found=f"{longest} frames",
                             expected=f"at least {length}", cure=cure)  # fmt: skip
        if len({one.shape[1:] for one in whole}) > 1 or not all(whole[0].shape[1:]):
            raise InputError("frames of different sizes, or none", where="episodes", found=whole[0].shape[1:])
        frames, actions, rewards, goes_on, starts, last = [], [], [], [], [], []
        offset = 0
        for one in whole:
            if one.actions is None or one.rewards is None:
                raise InputError("nothing to learn from", where=one.name, expected="actions and rewards")
            count = len(one)
            frames.append(np.moveaxis(one.frames.read(0, count), 3, 1))
            # One row a frame in all tables: the last frame's action and reward are never read.
            actions.append(np.concatenate([one.actions[: count - 1], np.zeros_like(one.actions[:1])]))
            rewards.append(np.append(one.rewards, 0.0).astype(np.float32))
            going = np.ones(count, np.float32)
            if one.ended == "terminated":
                going[count - 2] = 0.0
            goes_on.append(going)
            starts.append(np.arange(offset, offset + count - length + 1))
            last.append(len(np.concatenate(starts)) - 1)
            offset += count
        self.frames, self.actions = np.concatenate(frames), np.concatenate(actions)
        self.rewards, self.goes_on = np.concatenate(rewards), np.concatenate(goes_on)
        self.starts, self.last = np.concatenate(starts), np.array(last)

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frames (B, K + F, C, h, w) in [0, 1], actions (B, K + F - 1, A), rewards (B, F) and going on (B, F)."""
        import torch

        begin = self.starts[rows][:, None]
        steps = begin + np.arange(self.context + self.free)
        free = begin + np.arange(self.context - 1, self.context - 1 + self.free)
        frames = torch.from_numpy(self.frames[steps]).float() / 255
        rest = (self.actions[steps[:, :-1]], self.rewards[free], self.goes_on[free])
        actions, rewards, goes_on = (torch.from_numpy(part) for part in rest)
        return frames, actions, rewards, goes_on

    def draw(self, count: int, ends: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """Numbers of windows: a share of them the last one of an episode, the others any."""
        rows = rng.integers(len(self.starts), size=count)
        at_end = rng.random(count) < ends
        return np.where(at_end, self.last[rng.integers(len(self.last), size=count)], rows)


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
    notes = ()
    if windows.short:
        notes = (
            f"{windows.short} of {len(learned)} episodes are shorter than {windows.length} frames: not learned from",
        )

    def draw(features: Tensor, last: Tensor) -> Tensor:
        return sketch.drawn(features) if net is None else net.decode(features, net.base_of(last))

    return PixelDynamics(built, head), _errors(built, head, draw, held, horizon, options, notes)


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


def _errors(
    net: WorldNet,
    head: RewardHead,
    draw: Callable[[Tensor, Tensor], Tensor],
    held: Sequence[EnvironmentEpisode],
    horizon: int,
    options: PixelOptions,
    notes: tuple[str, ...],
) -> ModelErrors | None:
    """How far frames, rewards and ends are off on windows of other episodes; None where none is long enough.

    `draw` makes frames (B, C, h, w) in [0, 1] of features and the last frame that was seen.
    """
    import torch

    if max((len(one) for one in held), default=0) < options.context + horizon:
        return None
    windows = PixelWindows(held, options.context, horizon)
    if windows.short:
        notes += (f"{windows.short} of {len(held)} episodes are shorter than {windows.length} frames: not measured on",)
    sums: dict[str, list[Tensor]] = {name: [] for name in ("step", "moved", "far", "still", "reward", "ends", "false")}
    mean = torch.from_numpy(windows.frames.mean(0, dtype=np.float64)).float() / 255
    for begin in range(0, len(windows), 32):
        rows = np.arange(begin, min(begin + 32, len(windows)))
        frames, actions, rewards, goes_on = windows.take(rows)
        with torch.no_grad():
            state = net.watch(frames[:, : options.context], actions[:, : options.context - 1])
            last = frames[:, options.context - 1]
            for step in range(horizon):
                state = net.imagined(net.evolve(state, actions[:, options.context - 1 + step]))
                reward, logit = head(net.read(state))
                sums["reward"].append((reward - rewards[:, step]).flatten())
                sums["ends"].append((logit < 0)[goes_on[:, step] == 0].float())
                sums["false"].append((logit < 0)[goes_on[:, step] == 1].float())
                if step in (0, horizon - 1):
                    truth = frames[:, options.context + step]
                    off, moved = draw(net.read(state), last) - truth, last - truth
                    if step == 0:
                        sums["step"].append(off.flatten())
                        sums["moved"].append(moved.flatten())
                    if step == horizon - 1:
                        sums["far"].append(off.flatten())
                        sums["still"].append(moved.flatten())
    found = {name: torch.cat(parts) for name, parts in sums.items()}
    spread = max(_rms(torch.from_numpy(windows.frames).float() / 255 - mean), 1e-12)
    return ModelErrors(
        step=_rms(found["step"]) / max(_rms(found["moved"]), 1e-12),
        rollout=_rms(found["far"]) / spread,
        still=_rms(found["still"]) / spread,
        horizon=horizon,
        rollouts=len(windows),
        reward=_rms(found["reward"]),
        ends_found=float(found["ends"].mean()) if len(found["ends"]) else None,
        false_ends=float(found["false"].mean()) if len(found["false"]) else 0.0,
        transitions=len(found["reward"]),
        notes=notes,
    )


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())
