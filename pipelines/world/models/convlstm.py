"""The ConvLSTM that FluidWorld is compared with: a convolutional encoder and one recurrent cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.errors import ConfigError
from pipelines.world.models.decoder import GroupNorm, PatchEmbed
from pipelines.world.models.shell import WorldConfig, WorldNet, WorldState, stimulus_net

__all__ = ["ConvLSTMConfig", "ConvLSTMWorld"]

_GROUPS = 8


@dataclass(frozen=True)
class ConvLSTMConfig(WorldConfig):
    """Sizes of a `ConvLSTMWorld`; the defaults are the paper's.

    Raises:
        ConfigError: a size that does not fit, by name.

    Example:
        >>> ConvLSTMConfig().hidden
        64
    """

    hidden: int = 64
    """Channels of the recurrent cell."""
    bottleneck: int = 88
    """Channels between the two convolutions of the encoder, a multiple of 8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dim", "bottleneck"):
            if getattr(self, name) % _GROUPS:
                expected = f"a multiple of {_GROUPS}, which are normalised together"
                raise ConfigError("not whole groups", where=name, found=getattr(self, name), expected=expected)
        if self.attention is not None:
            raise ConfigError("convlstm has no attention to replace", where="attention", found=self.attention)


class ConvLSTMWorld(WorldNet):
    """Frames by recurrence: (B, C, H, W) to the next, the state being the cell's.

    With patches p: z = p + GELU(Conv1x1(GroupNorm(GELU(Conv3x3(p))))); one Conv3x3 of [z, h] gives the gates i, f, o
    and the value g; c <- f c + i g, h <- o tanh c; the prediction is GroupNorm(Conv1x1(h)). In a rollout it is the
    next frame's features. An action is added to all places of z. Convolutions start as He's normal and all biases at 0,
    the forget gate's too, as released. O(h w d^2) time and memory. Source: FluidWorld (arXiv 2603.21315), its baseline:
    801,995 parameters; the cell is that of arXiv 1506.04214 without peepholes.

    Args:
        config: the sizes.

    Example:
        >>> net = ConvLSTMWorld(ConvLSTMConfig(dim=16, hidden=8, bottleneck=8)).eval()
        >>> net(torch.rand(2, 3, 32, 48))["x_pred"].shape
        torch.Size([2, 3, 32, 48])
    """

    config: ConvLSTMConfig

    def __init__(self, config: ConvLSTMConfig = ConvLSTMConfig()) -> None:
        super().__init__(config)
        d, hidden, middle = config.dim, config.hidden, config.bottleneck
        self.patch_embed = PatchEmbed(config.channels, d, config.patch, "layer")
        self.encoder = nn.Sequential(
            nn.Conv2d(d, middle, 3, padding=1),
            nn.GELU(),
            GroupNorm(_GROUPS, middle),
            nn.Conv2d(middle, d, 1),
            nn.GELU(),
        )
        self.convlstm = _Cell(d, hidden)
        self.output_proj = nn.Sequential(nn.Conv2d(hidden, d, 1), GroupNorm(_GROUPS, d))
        self.stimulus_proj = stimulus_net(config.stimulus, d) if config.stimulus else None
        for whole in (self.patch_embed, self.encoder, self.convlstm, self.output_proj):
            for part in whole.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.kaiming_normal_(part.weight, mode="fan_out")
                    if part.bias is not None:
                        nn.init.zeros_(part.bias)

    def _encode(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        patches = self.patch_embed(x)
        return patches + self.encoder(patches), {}

    def start(self, features: Tensor) -> WorldState:
        """Zeros."""
        zeros = torch.zeros_like(features)
        cell = features.new_zeros(features.shape[0], self.config.hidden, *features.shape[2:])
        return WorldState(zeros, observed=zeros, hidden=cell, cell=cell)

    def observe(self, state: WorldState, features: Tensor) -> tuple[WorldState, Tensor]:
        """The features wait for the next step."""
        return state._replace(observed=features), features

    def evolve(self, state: WorldState, stimulus: Tensor | None = None) -> WorldState:
        """One step of the cell."""
        push = self._stimulus(state, stimulus, self.config.stimulus)
        z = state.belief if state.observed is None else state.observed
        if push is not None and self.stimulus_proj is not None:
            z = z + self.stimulus_proj(push)[:, :, None, None]
        hidden, cell = self.convlstm(z, state.hidden, state.cell)
        following = self.output_proj(hidden)
        return state._replace(belief=following, observed=following, hidden=hidden, cell=cell)


class _Cell(nn.Module):
    """A convolutional LSTM cell: input z (B, d, h, w), hidden and cell state (B, hidden, h, w) to the next two."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(dim + hidden, 4 * hidden, 3, padding=1)

    def forward(self, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.gates(torch.cat([z, h], dim=1)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
