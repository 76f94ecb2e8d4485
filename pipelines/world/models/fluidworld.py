"""FluidWorld of arXiv 2603.21315: a reaction-diffusion equation is integrated, and its state one frame on is the
prediction. Written from the paper's equations; the released code's behaviours are options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from core_attention.mechanisms.reaction_diffusion import ReactionDiffusion
from pipelines.errors import ConfigError
from pipelines.world.models.belief import BeliefField, Fatigue, inhibited
from pipelines.world.models.decoder import PatchEmbed, to_grid, to_places
from pipelines.world.models.mixing import MixingBlock, PlaceMixer
from pipelines.world.models.shell import WorldConfig, WorldNet, WorldState

__all__ = ["FluidConfig", "FluidWorld"]

_OWN = "reaction_diffusion"
#: Turbulence below which the released encoder stops in eval mode.
_RELEASED_TOLERANCE = 0.08


@dataclass(frozen=True)
class FluidConfig(WorldConfig):
    """Sizes and parts of a `FluidWorld`; the defaults are the paper's.

    Raises:
        ConfigError: a size or a variant that does not fit, by name.

    Example:
        >>> FluidConfig().parts
        {'anisotropic': True, 'pump': True, 'titans': False, 'deltanet': False}
        >>> FluidConfig(variant="released", titans=False, deltanet=False).parts["anisotropic"]
        False
    """

    variant: Literal["paper", "released"] = "paper"
    """Parts that are not named below, time steps and storage as in the paper, or as in the released code."""
    layers: int = 3
    """Layers of the encoder."""
    steps: int = 6
    """Most Euler steps of a layer."""
    later: int = 3
    """Euler steps of the belief field from a frame to the next."""
    tolerance: float | None = None
    """In eval mode a layer stops for a sample whose field changes less; 0 never. None: 0, released .08."""
    anisotropic: bool | None = None
    """A content gate on the encoder's diffusion; None: as the variant, here and below."""
    pump: bool | None = None
    """A memory pump in the belief field."""
    titans: bool | None = None
    """Titans' memory in the belief field."""
    deltanet: bool | None = None
    """A DeltaNet in the belief field."""
    hebbian: bool = True
    """A Hebbian map on the belief field's diffusion."""
    inhibition: bool = True
    """Strong channels of the features suppress weak ones."""
    fatigue: bool = True
    """Channels of the features tire from frame to frame."""
    legacy: bool = False
    """What the released code does beside: health and map go on from call to call in buffers and belong to the whole
    batch, as does the early stop; Titans start at random; rollouts write their predictions into the field."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("paper", "released"):
            raise ConfigError(
                "there is no such variant", where="variant", found=self.variant, expected="paper, released"
            )
        if self.legacy and self.variant != "released":
            raise ConfigError("only the released variant has it", where="legacy", cure="variant='released'")
        if self.tolerance is not None and not 0 <= self.tolerance < float("inf"):
            raise ConfigError("not a tolerance", where="tolerance", found=self.tolerance, expected="a number from 0")
        if self.parts["deltanet"] and self.dim % 4:
            raise ConfigError("DeltaNet has 4 heads", where="dim", found=self.dim, expected="a multiple of 4")

    @property
    def parts(self) -> dict[str, bool]:
        """The parts that are there."""
        paper = self.variant == "paper"
        usual = {"anisotropic": paper, "pump": paper, "titans": not paper, "deltanet": not paper}
        return {name: value if getattr(self, name) is None else getattr(self, name) for name, value in usual.items()}


class FluidWorld(WorldNet):
    """Frames by a reaction-diffusion equation: (B, C, H, W) to the next, through a belief field of the same grid.

    Patches z_0 pass layers of reaction and diffusion; z = z_0 + their result, in which weak channels are inhibited and
    tired ones damped. z is written into the belief field, which evolves by its own equation under the action; the field
    is decoded. A rollout goes on evolving. The field follows the size of the frames. O(H W d^2) time and O(H W d)
    memory: linear in pixels. 800,975 parameters as in the paper; released, 866,767.

    Args:
        config: the sizes; ``attention`` puts another mechanism, with a net beside it, into the encoder.

    Raises:
        ConfigError: a mechanism that does not fit.

    Source: FluidWorld (arXiv 2603.21315), section 3; the released code where the paper is silent.

    Example:
        >>> net = FluidWorld(FluidConfig(dim=16, layers=1, steps=2, stimulus=2)).eval()
        >>> found = net(torch.rand(2, 3, 32, 48), torch.zeros(2, 2))
        >>> found["x_pred"].shape, found["state"].belief.shape
        (torch.Size([2, 3, 32, 48]), torch.Size([2, 16, 8, 12]))
        >>> sum(p.numel() for p in FluidWorld(FluidConfig(variant="released")).parameters())
        866767
    """

    config: FluidConfig

    def __init__(self, config: FluidConfig = FluidConfig()) -> None:
        super().__init__(config)
        released, parts = config.variant == "released", config.parts
        self.encoder = _Encoder(config)
        self.fatigue = Fatigue(config.dim, stored=released, legacy=config.legacy) if config.fatigue else None
        self.belief_field = BeliefField(
            config.dim,
            max(1, config.stimulus),
            grid=config.grid,
            steps=config.later,
            pump=parts["pump"],
            titans=parts["titans"],
            deltanet=parts["deltanet"],
            hebbian=config.hebbian,
            stored=released,
            stable=not released,
            legacy=config.legacy,
        )
        # A mechanism that was put in keeps its own start.
        others = {id(m) for p in self.modules() if isinstance(p, PlaceMixer) for m in p.modules()}
        for part in self.modules():
            if isinstance(part, nn.Linear) and id(part) not in others:
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def _encode(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z, told = self.encoder(x)
        return (inhibited(z) if self.config.inhibition else z), told

    def start(self, features: Tensor) -> WorldState:
        """An empty field, rested channels."""
        health = None if self.fatigue is None else self.fatigue.start(features)
        return self.belief_field.start(features)._replace(health=health)

    def observe(self, state: WorldState, features: Tensor) -> tuple[WorldState, Tensor]:
        """The features, damped where channels are tired, are written into the field."""
        if self.fatigue is not None and state.health is not None:
            features, health = self.fatigue(state.health, features)
            state = state._replace(health=health)
        return self.belief_field.write(state, features), features

    def evolve(self, state: WorldState, stimulus: Tensor | None = None) -> WorldState:
        """Three steps of the field's equation."""
        push = self._stimulus(state, stimulus, max(1, self.config.stimulus))
        if push is None:
            push = state.belief.new_zeros(state.belief.shape[0], 1)
        return self.belief_field.evolve(state, push)

    def imagined(self, state: WorldState) -> WorldState:
        """Released rollouts write each prediction into the field."""
        return self.belief_field.write(state, state.belief) if self.config.legacy else state

    def summary(self, state: WorldState) -> Tensor:
        """One vector (B, d) of the belief field."""
        return self.belief_field.summary(state)


class _Encoder(nn.Module):
    """Patches, layers, and the patches added again: (B, C, H, W) to (B, d, h, w)."""

    def __init__(self, config: FluidConfig) -> None:
        super().__init__()
        norm, d = "rms", config.dim
        self.patch_embed = PatchEmbed(config.channels, d, config.patch, norm)
        own = config.attention in (None, _OWN)
        self.fluid_layers = nn.ModuleList(_layer(config) if own else _other(config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Beside the features, "energy" (B,), the layers' mean |du / dt|, and "steps" (B,), their sum."""
        patches = to_places(self.patch_embed(x))
        u, told = patches, []
        for layer in self.fluid_layers:
            if isinstance(layer, ReactionDiffusion):
                u, _, aux = layer(u)
                told.append(aux)
            else:
                u = layer(u)
        found = {}
        if told:
            found["energy"] = torch.stack([aux["energy"] for aux in told]).mean(dim=0)
            found["steps"] = torch.stack([aux["steps"] for aux in told]).sum(dim=0)
        return to_grid(u + patches), found


def _layer(config: FluidConfig) -> ReactionDiffusion:
    """A layer of reaction and diffusion."""
    released, gated = config.variant == "released", config.parts["anisotropic"]
    tolerance = config.tolerance
    if tolerance is None:
        tolerance = _RELEASED_TOLERANCE if released else 0.0
    return ReactionDiffusion(
        config.dim,
        steps=config.steps,
        anisotropic=gated,
        tolerance=tolerance,
        legacy="batch" if config.legacy else None,
        dt_limits=(0.005, 0.35 if released and not gated else 0.15),
        stable=not released,
    )


def _other(config: FluidConfig) -> MixingBlock:
    """Another mechanism in its place."""
    mixer = PlaceMixer(str(config.attention), config.dim, config.heads, config.grid)
    return MixingBlock(mixer, config.dim, 2 * config.dim)
