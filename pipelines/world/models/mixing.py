"""Other mechanisms in the place of a model's own: grids as they are, sequences on flattened places."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from core_attention import MechanismError, TokenMixer, build, registry
from pipelines.errors import ConfigError

__all__ = ["MixingBlock", "PlaceMixer"]


class PlaceMixer(nn.Module):
    """A mechanism on the places of a frame, (B, h, w, d) to the same shape; sequences read them row by row.

    Args:
        name: any mixer that takes grids of two axes or sequences and needs nothing beside them.
        dim: channels d.
        heads: of a mechanism that has heads.
        grid: places (h, w), for mechanisms of one length.

    Raises:
        ConfigError: an unknown mechanism, or one that does not fit.

    Example:
        >>> import torch
        >>> PlaceMixer("softmax", 16, 4, (3, 5))(torch.zeros(2, 3, 5, 16)).shape
        torch.Size([2, 3, 5, 16])
    """

    def __init__(self, name: str, dim: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        try:
            spec = registry.spec(name)
            if spec.kind == "pool" or spec.extras or not {1, 2} & set(spec.grid):
                beside = f" with {', '.join(spec.extras)}" if spec.extras else ""
                found = f"{name}: {spec.kind} for grids {spec.grid}{beside}"
                expected = "a mixer for images or sequences that needs nothing beside them"
                raise ConfigError("does not mix the places of a frame", where="attention", found=found,
                                  expected=expected)  # fmt: skip
            self.flat = 2 not in spec.grid
            length: Any = math.prod(grid) if self.flat else grid
            self.mixer: TokenMixer = build(name, dim, heads, **({"length": length} if spec.fixed_length else {}))
        except MechanismError as error:
            cure = "`pipelines mechanisms` lists what there is"
            raise ConfigError(str(error), where="attention", found=name, cure=cure) from error

    def forward(self, x: Tensor) -> Tensor:
        """Errors as of the mechanism."""
        tokens = x.flatten(1, 2) if self.flat else x
        return self.mixer(tokens).y.reshape(x.shape)


class MixingBlock(nn.Module):
    """x + mixer(norm(x)), then x + net(norm(x)): (B, h, w, d) to the same shape.

    What stands in FluidWorld's encoder where another mechanism replaces reaction and diffusion: the net is as wide as
    the reaction.

    Args:
        mixer: what mixes the places.
        dim: channels d.
        hidden: width of the net.
    """

    def __init__(self, mixer: nn.Module, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.mixer, self.norm2 = nn.LayerNorm(dim), mixer, nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Mix places, then channels."""
        x = x + self.mixer(self.norm1(x))
        return x + self.ffn(self.norm2(x))
