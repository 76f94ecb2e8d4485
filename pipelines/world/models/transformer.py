"""The Transformer that FluidWorld is compared with: attention over the places of a frame and of the state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.errors import ConfigError, InputError
from pipelines.world.models.decoder import PatchEmbed, to_grid, to_places
from pipelines.world.models.mixing import PlaceMixer
from pipelines.world.models.shell import WorldConfig, WorldNet, WorldState, stimulus_net

__all__ = ["TransformerConfig", "TransformerWorld"]


@dataclass(frozen=True)
class TransformerConfig(WorldConfig):
    """Sizes of a `TransformerWorld`; the defaults are the paper's.

    Raises:
        ConfigError: a size that does not fit, by name.

    Example:
        >>> TransformerConfig(dim=64, heads=4).layers
        2
    """

    layers: int = 2
    """Blocks of the encoder."""
    later: int = 1
    """Blocks that predict."""
    hidden: int = 384
    """Width of the nets in the blocks."""
    interpolate: bool = False
    """Frames of another size than ``height`` x ``width`` are taken, positions interpolated; else they are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.heads:
            raise ConfigError("not whole heads", where="heads", found=self.heads, expected=f"a divisor of {self.dim}")


class TransformerWorld(WorldNet):
    """Frames by attention: (B, C, H, W) to the next, the state being the last prediction's features.

    Patches get learned positions and pass blocks of attention and nets, normalised before each; the places of the
    state, joined with those of the frame by a linear map, pass one block more and are the prediction. In a rollout the
    prediction is the next frame's features. An action is added to all places before that block. O(L^2 d) time for L
    places, O(L d) memory. Source: FluidWorld (arXiv 2603.21315), its baseline: 800,067 parameters.

    Args:
        config: the sizes; ``attention`` puts another mechanism into the blocks ("softmax" is its own).

    Raises:
        ConfigError: a mechanism that does not fit.

    Example:
        >>> net = TransformerWorld(TransformerConfig(dim=16, heads=2, hidden=32, height=16, width=24)).eval()
        >>> net(torch.rand(2, 3, 16, 24))["x_pred"].shape
        torch.Size([2, 3, 16, 24])
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig = TransformerConfig()) -> None:
        super().__init__(config)
        d, (h, w) = config.dim, config.grid
        self.patch_embed = PatchEmbed(config.channels, d, config.patch, "layer")
        self.pos_embed = nn.Parameter(torch.randn(1, h * w, d) * 0.02)
        self.encoder_blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.encoder_norm = nn.LayerNorm(d)
        self.state_merge = nn.Linear(2 * d, d)
        self.temporal_blocks = nn.ModuleList(_Block(config) for _ in range(config.later))
        self.temporal_norm = nn.LayerNorm(d)
        self.stimulus_proj = stimulus_net(config.stimulus, d) if config.stimulus else None
        # A mechanism that was put in keeps its own start.
        others = {id(m) for p in self.modules() if isinstance(p, PlaceMixer) for m in p.modules()}
        for part in self.modules():
            if isinstance(part, nn.Linear) and id(part) not in others:
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def _encode(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        places = to_places(self.patch_embed(x))
        places = places + self._positions(places.shape[1], places.shape[2])
        for block in self.encoder_blocks:
            places = block(places)
        return to_grid(self.encoder_norm(places)), {}

    def start(self, features: Tensor) -> WorldState:
        """Zeros."""
        zeros = torch.zeros_like(features)
        return WorldState(zeros, observed=zeros)

    def observe(self, state: WorldState, features: Tensor) -> tuple[WorldState, Tensor]:
        """The features wait for the next step."""
        return state._replace(observed=features), features

    def evolve(self, state: WorldState, stimulus: Tensor | None = None) -> WorldState:
        """Attention over the frame seen last and the state."""
        push = self._stimulus(state, stimulus, self.config.stimulus)
        observed = state.belief if state.observed is None else state.observed
        places = self.state_merge(torch.cat([to_places(observed), to_places(state.belief)], dim=-1))
        places = places + self._positions(places.shape[1], places.shape[2])
        if push is not None and self.stimulus_proj is not None:
            places = places + self.stimulus_proj(push)[:, None, None]
        for block in self.temporal_blocks:
            places = block(places)
        following = to_grid(self.temporal_norm(places))
        return state._replace(belief=following, observed=following)

    def _positions(self, h: int, w: int) -> Tensor:
        """(1, h, w, d) of the learned positions."""
        own = self.config.grid
        table = self.pos_embed.unflatten(1, own)
        if (h, w) == own:
            return table
        if not self.config.interpolate:
            side = self.config.patch
            raise InputError(
                "this model has positions for frames of one size",
                where="x",
                found=f"{h * side} x {w * side}",
                expected=f"{self.config.height} x {self.config.width}",
                cure=f"read.size=({self.config.height}, {self.config.width}), or interpolate=True",
            )
        return to_places(F.interpolate(to_grid(table), (h, w), mode="bilinear", align_corners=False))


class _Block(nn.Module):
    """x + attention(norm(x)), then x + net(norm(x)): (B, h, w, d) to the same shape."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d = config.dim
        own = config.attention in (None, "softmax")
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn: nn.Module = (
            _Attention(d, config.heads) if own else PlaceMixer(str(config.attention), d, config.heads, config.grid)
        )
        self.ffn = nn.Sequential(nn.Linear(d, config.hidden), nn.GELU(), nn.Linear(config.hidden, d))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class _Attention(nn.Module):
    """Softmax attention of all places to all; its tensors are those of ``nn.MultiheadAttention``, as released."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * dim, dim)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.linear(x.flatten(1, 2), self.in_proj_weight, self.in_proj_bias)
        q, k, v = tokens.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)).reshape(x.shape)
