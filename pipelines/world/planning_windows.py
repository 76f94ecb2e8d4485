"""Windows of recorded episodes for models of frames, and how far such a model is off on episodes it did not see.

Shapes: B windows, K frames of context, F free steps, C, h, w of a frame, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_env import EnvironmentEpisode
from pipelines.errors import InputError
from pipelines.world.planning_training import ModelErrors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FrameRollouts", "PixelWindows", "frame_errors"]


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
        offset, begun = 0, 0
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
            begun += len(starts[-1])
            last.append(begun - 1)
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

    def notes(self, given: int) -> tuple[str, ...]:
        """What was left out of so many episodes."""
        if not self.short:
            return ()
        return (f"{self.short} of {given} episodes are shorter than {self.length} frames: not learned from",)


@dataclass(frozen=True)
class FrameRollouts:
    """How a model of frames is rolled out; a belief is whatever the model makes of it.

    Attributes:
        watch: frames (B, K, C, h, w) in [0, 1] and actions (B, K - 1, A) to a belief.
        act: a belief and actions (B, A) to the belief one step on.
        tell: a belief to rewards (B,) and logits (B,) of going on.
        draw: a belief and the last frame that was seen (B, C, h, w) to the frame now (B, C, h, w) in [0, 1].
    """

    watch: Callable[[Tensor, Tensor], Any]
    act: Callable[[Any, Tensor], Any]
    tell: Callable[[Any], tuple[Tensor, Tensor]]
    draw: Callable[[Any, Tensor], Tensor]


def frame_errors(
    model: FrameRollouts,
    held: Sequence[EnvironmentEpisode],
    horizon: int,
    context: int,
    notes: tuple[str, ...] = (),
) -> ModelErrors | None:
    """How far frames, rewards and ends are off on windows of other episodes; None where none is long enough.

    The errors are those of `ModelErrors` with the pixels of a frame as its state.

    Args:
        model: how it is rolled out.
        held: episodes that it did not learn from.
        horizon: steps.
        context: frames K that it sees first.
        notes: what is to be said besides.

    Complexity: O(windows (K + horizon)) steps of the model.
    """
    import torch

    if max((len(one) for one in held), default=0) < context + horizon:
        return None
    windows = PixelWindows(held, context, horizon)
    if windows.short:
        notes = (
            *notes,
            f"{windows.short} of {len(held)} episodes are shorter than {windows.length} frames: not measured on",
        )
    sums: dict[str, list[Tensor]] = {name: [] for name in ("step", "moved", "far", "still", "reward", "ends", "false")}
    for begin in range(0, len(windows), 32):
        frames, actions, rewards, goes_on = windows.take(np.arange(begin, min(begin + 32, len(windows))))
        last = frames[:, context - 1]
        with torch.no_grad():
            belief = model.watch(frames[:, :context], actions[:, : context - 1])
            for step in range(horizon):
                belief = model.act(belief, actions[:, context - 1 + step])
                reward, logit = model.tell(belief)
                sums["reward"].append(reward - rewards[:, step])
                sums["ends"].append((logit < 0)[goes_on[:, step] == 0].float())
                sums["false"].append((logit < 0)[goes_on[:, step] == 1].float())
                for name, still, wanted in (("step", "moved", 0), ("far", "still", horizon - 1)):
                    if step == wanted:
                        truth = frames[:, context + step]
                        sums[name].append((model.draw(belief, last) - truth).flatten())
                        sums[still].append((last - truth).flatten())
    found = {name: torch.cat(parts) for name, parts in sums.items()}
    every = torch.from_numpy(windows.frames).float() / 255
    spread = max(_rms(every - every.mean(0)), 1e-12)
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
