"""What all world models share: encode a frame, write it into a state, evolve the state by one frame, decode it.

The state is a value that goes in and comes out; a model keeps nothing between calls.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import InputError
from pipelines.world.models.decoder import PixelDecoder
from pipelines.world.models.state import WorldConfig, WorldState

__all__ = ["WorldConfig", "WorldNet", "WorldState", "stimulus_net"]


class WorldNet(nn.Module, abc.ABC):
    """Base of the world models: frames (B, C, H, W) in [0, 1], actions (B, S), features (B, d, h, w).

    A subclass encodes, starts and evolves; writing, decoding and rollouts are the same for all. In eval mode results
    depend on the arguments alone, and a sample's on that sample alone.

    Args:
        config: the sizes.

    Attributes:
        mean_frame: (C, H, W) with ``base="mean"``: a constant that predictions are changes to, .5 until it is set.

    Example:
        >>> from pipelines.world.models import build_world
        >>> net = build_world("convlstm", dim=16, hidden=8, stimulus=2).eval()
        >>> net.rollout(torch.rand(2, 3, 3, 64, 64), torch.zeros(2, 2 + 5, 2), horizon=5).shape
        torch.Size([2, 5, 3, 64, 64])
    """

    mean_frame: Tensor

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        self.ignores_stimulus = False  # the released baselines take one and do not use it
        self.decoder = PixelDecoder(config.dim, config.channels, config.patch, residual=config.base)
        if config.base == "mean":
            self.register_buffer("mean_frame", torch.full((config.channels, config.height, config.width), 0.5))

    def encode(self, x: Tensor) -> Tensor:
        """Features of frames.

        Args:
            x: (B, C, H, W) in [0, 1].

        Returns:
            (B, d, h, w).

        Raises:
            InputError: another number of axes or channels, or a size that is not whole patches.
        """
        return self.encode_with(x)[0]

    def encode_with(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features, and what the encoder tells beside: "energy" (B,), the mean rate of change, and "steps" (B,)."""
        self._check_frames(x)
        return self._encode(x)

    @abc.abstractmethod
    def _encode(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features of checked frames."""

    @abc.abstractmethod
    def start(self, features: Tensor) -> WorldState:
        """The state before any frame, for a batch and a grid like those of ``features`` (B, d, h, w)."""

    @abc.abstractmethod
    def observe(self, state: WorldState, features: Tensor) -> tuple[WorldState, Tensor]:
        """One frame goes in.

        Args:
            state: of the batch.
            features: (B, d, h, w) as encoded.

        Returns:
            The state after it, and the features as the model sees them (B, d, h, w), which rebuild the frame.
        """

    @abc.abstractmethod
    def evolve(self, state: WorldState, stimulus: Tensor | None = None) -> WorldState:
        """One frame on.

        Args:
            state: of the batch.
            stimulus: (B, S) the action taken at the frame, None for zeros.

        Raises:
            InputError: a stimulus of another shape.
        """

    def write(self, state: WorldState, features: Tensor) -> WorldState:
        """The state after one observed frame, given as features (B, d, h, w)."""
        return self.observe(state, features)[0]

    def read(self, state: WorldState) -> Tensor:
        """Features (B, d, h, w) to decode."""
        return state.belief

    def decode(self, features: Tensor, base: Tensor | None = None, *, logits: bool = False) -> Tensor:
        """Features as frames.

        Args:
            features: (B, d, h, w).
            base: (B, C, H, W) what the frame is a change to. Used with ``config.base`` "last", where None means a
                frame by itself, and "mean", where None means ``mean_frame``; with "none" it changes nothing.
            logits: numbers before the sigmoid; of a change, the change itself.

        Returns:
            (B, C, H, W) in [0, 1] unless ``logits``. A model that was not trained yet gives the base itself.
        """
        if self.config.base == "mean" and base is None:
            base = self.mean_frame.to(features.dtype)[None]
        change = base is not None and self.config.base != "none"
        raw = self.decoder(features, change=change)
        if logits:
            return raw
        if base is None or not change:
            return raw.sigmoid()
        if base.shape[-3:] != raw.shape[-3:]:
            raise InputError("not the size of the frames", where="base", found=tuple(base.shape),
                             expected=tuple(raw.shape))  # fmt: skip
        frames = base + raw
        # The values are kept to [0, 1] and the gradient is not, so that no pixel is ever out of its reach.
        return frames + (frames.clamp(0.0, 1.0) - frames).detach()

    def forward(
        self, x_t: Tensor, stimulus: Tensor | None = None, x_next: Tensor | None = None, state: WorldState | None = None
    ) -> dict[str, Any]:
        """Rebuild a frame and predict the next.

        Args:
            x_t: (B, C, H, W) in [0, 1].
            stimulus: (B, S), None for zeros.
            x_next: (B, C, H, W), the next frame; where given, ``loss`` is beside, as `pipelines.world.losses` has it.
            state: what an earlier call returned as ``state``, None for the start.

        Returns:
            ``x_recon`` and ``x_pred`` (B, C, H, W) in [0, 1], and where they are no changes ``recon_logits`` and
            ``pred_logits``; ``features`` (B, d, h, w) as seen; ``state``; ``energy`` (B,) where the encoder has one.

        Raises:
            InputError: shapes that do not fit.
        """
        features, told = self.encode_with(x_t)
        state, seen = self.observe(self.start(features) if state is None else state, features)
        state = self.evolve(state, stimulus)
        found: dict[str, Any] = {"features": seen, "state": state}
        if self.config.base == "none":
            found |= {"recon_logits": self.decode(seen, logits=True)}
            found |= {"pred_logits": self.decode(self.read(state), logits=True)}
            found |= {"x_recon": found["recon_logits"].sigmoid(), "x_pred": found["pred_logits"].sigmoid()}
        else:
            found |= {"x_recon": self.decode(seen), "x_pred": self.decode(self.read(state), self.base_of(x_t))}
        if "energy" in told:
            found["energy"] = told["energy"]
        if x_next is not None:
            self._check_frames(x_next, "x_next")
            from pipelines.world.losses import frame_loss

            found["loss"] = frame_loss(found, x_t, x_next)
        return found

    def base_of(self, last: Tensor) -> Tensor | None:
        """What predictions after the frame ``last`` (B, C, H, W) are changes to; None where not that frame."""
        return last if self.config.base == "last" else None

    def rollout(self, context: Tensor, stimuli: Tensor | None = None, horizon: int = 1) -> Tensor:
        """Frames that follow: the context is written frame by frame, then the state evolves without looking again.

        Args:
            context: (B, K, C, H, W) in [0, 1], K frames.
            stimuli: (B, K - 1 + horizon, S), the first K - 1 of them between the frames of the context; None for zeros.
            horizon: frames to predict.

        Returns:
            (B, horizon, C, H, W), without a gradient.

        Raises:
            InputError: shapes that do not fit.

        Complexity: O(K + horizon) steps; memory beside the result does not grow with the horizon.
        """
        following = self.rollout_iter(context, stimuli, horizon)
        first = next(following)
        frames = first.new_empty(first.shape[0], horizon, *first.shape[1:])
        frames[:, 0] = first
        for place, frame in enumerate(following, start=1):
            frames[:, place] = frame
        return frames

    def rollout_iter(self, context: Tensor, stimuli: Tensor | None = None, horizon: int = 1) -> Iterator[Tensor]:
        """As `rollout`, one frame (B, C, H, W) at a time, in memory that does not grow with the horizon."""
        self._check_rollout(context, stimuli, horizon)
        return self._rolled(context, stimuli, horizon)

    def _rolled(self, context: Tensor, stimuli: Tensor | None, horizon: int) -> Iterator[Tensor]:
        seen = context.shape[1]
        with torch.no_grad():
            state = self.watch(context, stimuli)
        base = self.base_of(context[:, -1])
        for step in range(seen - 1, seen - 1 + horizon):
            # Not around the loop: the caller's own code runs between two frames.
            with torch.no_grad():
                state = self.evolve(state, None if stimuli is None else stimuli[:, step])
                frame = self.decode(self.read(state), base)
                state = self.imagined(state)
            yield frame

    def watch(self, frames: Tensor, stimuli: Tensor | None = None, state: WorldState | None = None) -> WorldState:
        """The state after frames (B, K, C, H, W) were written, evolved by ``stimuli[:, k]`` after all but the last.

        Args:
            frames: in [0, 1], K at least 1.
            stimuli: (B, K - 1 or more, S), None for zeros.
            state: of before, None for the start.
        """
        count = frames.shape[1]
        for place in range(count):
            features = self.encode(frames[:, place])
            state = self.write(self.start(features) if state is None else state, features)
            if place < count - 1:
                state = self.evolve(state, None if stimuli is None else stimuli[:, place])
        if state is None:
            raise InputError("no frames", where="context", found=tuple(frames.shape), expected="one or more")
        return state

    def imagined(self, state: WorldState) -> WorldState:
        """The state before the next step of a rollout: the same, unless a released variant writes into it."""
        return state

    def _check_frames(self, x: Tensor, where: str = "x") -> None:
        c = self.config
        if x.dim() != 4 or x.shape[1] != c.channels or not x.is_floating_point() or 0 in x.shape:
            expected = f"(batch, {c.channels}, height, width), floating point in [0, 1]"
            found = f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
            raise InputError("not frames for this model", where=where, found=found, expected=expected)
        for name, size in zip(("height", "width"), x.shape[2:], strict=True):
            if size % c.patch:
                raise _not_patches(name, size, c.patch)
        if c.base == "mean" and tuple(x.shape[2:]) != (c.height, c.width):
            raise InputError("not the size of the mean frame", where=where, found=tuple(x.shape[2:]),
                             expected=(c.height, c.width), cure=f"read.size=({c.height}, {c.width})")  # fmt: skip

    def _check_rollout(self, context: Tensor, stimuli: Tensor | None, horizon: int) -> None:
        if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
            raise InputError("no frames to predict", where="horizon", found=horizon, expected="a whole number from 1")
        if context.dim() != 5 or context.shape[1] < 1:
            expected = f"(batch, frames, {self.config.channels}, height, width)"
            raise InputError("not a context", where="context", found=tuple(context.shape), expected=expected)
        needed = context.shape[1] - 1 + horizon
        if stimuli is not None and (stimuli.dim() != 3 or stimuli.shape[1] != needed):
            expected = f"(batch, {needed}, {self.config.stimulus}): one between each two frames"
            raise InputError("not the actions of this rollout", where="stimuli", found=tuple(stimuli.shape),
                             expected=expected)  # fmt: skip

    def _stimulus(self, state: WorldState, stimulus: Tensor | None, width: int) -> Tensor | None:
        """The stimulus (B, width) of a step, zeros where there is none; None for models that use none."""
        if self.ignores_stimulus:
            return None
        batch = state.belief.shape[0]
        if stimulus is None:
            return state.belief.new_zeros(batch, width) if width else None
        if tuple(stimulus.shape) != (batch, width):
            cure = None if width else "build the model with stimulus=the numbers of an action"
            raise InputError("not a stimulus for this model", where="stimulus", found=tuple(stimulus.shape),
                             expected=(batch, width), cure=cure)  # fmt: skip
        return stimulus.to(state.belief.dtype)


def stimulus_net(width: int, dim: int) -> nn.Sequential:
    """What makes an action (B, width) a vector of the features' channels (B, d): linear, GELU, linear.

    Example:
        >>> stimulus_net(2, 8)(torch.zeros(3, 2)).shape
        torch.Size([3, 8])
    """
    return nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))


def _not_patches(name: str, size: int, patch: int) -> InputError:
    near = max(patch, round(size / patch) * patch)
    cure = f"read.size: {near} is the nearest size that fits"
    return InputError("not whole patches", where=name, found=size, expected=f"a multiple of {patch}", cure=cure)
