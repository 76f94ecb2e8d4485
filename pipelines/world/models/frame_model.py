"""A small recurrent model of frames for planning: a belief that sees, acts, and tells what comes and what it earns.

Frames are seen through their principal components, so that all of it is a few small matrices.

Shapes: B samples, D components, d numbers of a belief, A of an action, P = C h w pixels of a frame.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.errors import InputError
from pipelines.world.counts import check_counts

__all__ = ["FrameConfig", "FrameModel"]


@dataclass(frozen=True)
class FrameConfig:
    """Sizes of a `FrameModel`; ``dataclasses.asdict`` of it, through JSON, builds it again.

    Raises:
        ConfigError: a size that does not fit, by name.

    Example:
        >>> FrameConfig(pixels=4096, actions=2).components
        32
    """

    pixels: int
    """Pixels P of a frame, of all channels."""
    actions: int
    """Numbers A of an action's vector."""
    components: int = 32
    """Principal components D that a frame is seen through."""
    dim: int = 128
    """Numbers d of a belief."""

    def __post_init__(self) -> None:
        check_counts({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, "not a size")


class FrameModel(nn.Module):
    """A belief (B, d) about a scene: frames go in by a gated unit, actions move it on, heads read from it.

    see: h <- GRU(h, W e), e the frame's components in units of their deviations; act: h <- h + f(norm h, a);
    tell: the next frame's components, the reward and the logit that the episode goes on.

    Args:
        config: the sizes.

    Source: the deterministic path of Hafner et al. 2019 (PlaNet, arXiv 1811.04551, section 3), on components.

    Example:
        >>> model = FrameModel(FrameConfig(pixels=64, actions=2, components=4, dim=8))
        >>> belief = model.see(model.start(3), model.embed(torch.rand(3, 1, 8, 8)))
        >>> [part.shape for part in model.tell(model.act(belief, torch.zeros(3, 2)))]
        [torch.Size([3, 4]), torch.Size([3]), torch.Size([3])]
    """

    mean: Tensor
    axes: Tensor
    scale: Tensor
    reward_mean: Tensor
    reward_scale: Tensor

    def __init__(self, config: FrameConfig) -> None:
        super().__init__()
        c = self.config = config
        self.register_buffer("mean", torch.zeros(c.pixels))
        self.register_buffer("axes", torch.zeros(c.components, c.pixels))
        self.register_buffer("scale", torch.ones(c.components))
        self.register_buffer("reward_mean", torch.zeros(()))
        self.register_buffer("reward_scale", torch.ones(()))
        self.eye = nn.Sequential(nn.Linear(c.components, c.dim), nn.SiLU())
        self.unit = nn.GRUCell(c.dim, c.dim)
        self.norm = nn.LayerNorm(c.dim)
        self.move = nn.Sequential(nn.Linear(c.dim + c.actions, c.dim), nn.SiLU(), nn.Linear(c.dim, c.dim))
        self.judge = nn.Sequential(nn.Linear(c.dim, c.dim), nn.SiLU(), nn.Linear(c.dim, 2))
        self.draw = nn.Linear(c.dim, c.components)

    def look(self, frames: Tensor, rewards: Tensor) -> None:
        """Set the components from frames (N, C, h, w) in [0, 1], and the scale of rewards (M,).

        Complexity: O(N^2 P): give some hundred frames.

        Raises:
            InputError: frames of another size, or numbers that are not finite.
        """
        flat = frames.flatten(1).double()
        if flat.shape[1] != self.config.pixels or not bool(torch.isfinite(flat).all() & torch.isfinite(rewards).all()):
            expected = f"finite, {self.config.pixels} pixels a frame"
            raise InputError("not frames for this model", where="frames", found=tuple(frames.shape), expected=expected)
        mean = flat.mean(0)
        centred = flat - mean
        values, vectors = torch.linalg.eigh(centred @ centred.T)  # N frames are fewer than pixels
        count = min(self.config.components, len(values))
        values, vectors = values.flip(0)[:count].clamp(min=0), vectors.flip(1)[:, :count]
        there = values > 1e-9 * values[0].clamp(min=1e-12)
        length = torch.where(there, values.sqrt(), torch.ones_like(values))
        self.mean.copy_(mean)
        self.axes.zero_()
        # Components that do not vary are seen as zeros, not as amplified noise.
        self.axes[:count] = ((vectors / length).T @ centred * there[:, None]).float()
        self.scale.fill_(1.0)
        self.scale[:count] = torch.where(there, length / len(flat) ** 0.5, torch.ones_like(length)).float()
        self.reward_mean.copy_(rewards.mean())
        spread = rewards.std(correction=0)
        self.reward_scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def embed(self, frames: Tensor) -> Tensor:
        """Components (..., D) of frames (..., C, h, w) in [0, 1], in units of their deviations."""
        flat = frames.flatten(-3)
        if flat.shape[-1] != self.config.pixels:
            found, expected = tuple(frames.shape), f"{self.config.pixels} pixels a frame"
            raise InputError("not frames for this model", where="frames", found=found, expected=expected)
        return (flat - self.mean) @ self.axes.T / self.scale

    def frame(self, components: Tensor) -> Tensor:
        """The pixels (..., P) that components (..., D) stand for."""
        return self.mean + (components * self.scale) @ self.axes

    def start(self, batch: int) -> Tensor:
        """The belief (B, d) before any frame."""
        return self.mean.new_zeros(batch, self.config.dim)

    def see(self, belief: Tensor, components: Tensor) -> Tensor:
        """The belief (B, d) after a frame was seen, given as components (B, D)."""
        return self.unit(self.eye(components), belief)

    def act(self, belief: Tensor, actions: Tensor) -> Tensor:
        """The belief (B, d) after actions (B, A)."""
        return belief + self.move(torch.cat([self.norm(belief), actions], -1))

    def tell(self, belief: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Components (..., D) of the frame now, the reward that led here, and the logit that the episode goes on."""
        reward, logit = self.judge(belief).unbind(-1)
        return self.draw(belief), self.reward_mean + self.reward_scale * reward, logit
