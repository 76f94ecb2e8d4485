"""Sizes of a world model, and what it knows of a batch from one frame to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from pipelines.errors import ConfigError

__all__ = ["WorldConfig", "WorldState"]


@dataclass(frozen=True)
class WorldConfig:
    """Sizes that every world model has; ``dataclasses.asdict`` of it, through JSON, builds it again.

    Raises:
        ConfigError: a size that does not fit, by name.

    Example:
        >>> import dataclasses
        >>> WorldConfig(height=96).grid
        (24, 16)
        >>> WorldConfig(**dataclasses.asdict(WorldConfig(stimulus=2))).stimulus
        2
    """

    channels: int = 3
    """Channels C of a frame."""
    height: int = 64
    """Rows H of a frame."""
    width: int = 64
    """Columns W of a frame."""
    dim: int = 128
    """Channels d of the features."""
    patch: int = 4
    """Side of the squares of pixels that make one place of the features, a power of 2."""
    stimulus: int = 0
    """Numbers of an action; 0: there are none, and a stimulus is refused."""
    attention: str | None = None
    """A mechanism in the place of the model's own, None for that one."""
    heads: int = 8
    """Heads of mechanisms that have them."""
    base: Literal["none", "last", "mean"] = "none"
    """What a predicted frame is a change to: nothing (the paper), the last frame seen, or ``mean_frame``."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "stimulus" else 1
            if field.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                expected = f"a whole number from {least}"
                raise ConfigError("not a size", where=field.name, found=value, expected=expected)
        if self.patch < 2 or self.patch & (self.patch - 1):
            raise ConfigError("not a patch", where="patch", found=self.patch, expected="2, 4, 8 or 16")
        for name, size in (("height", self.height), ("width", self.width)):
            if size % self.patch:
                raise ConfigError("not whole patches", where=name, found=size, expected=f"a multiple of {self.patch}")
        if self.base not in ("none", "last", "mean"):
            raise ConfigError("there is no such choice", where="base", found=self.base, expected="none, last, mean")

    @property
    def grid(self) -> tuple[int, int]:
        """Places (h, w) of the features."""
        return self.height // self.patch, self.width // self.patch


class WorldState(NamedTuple):
    """What a model knows of a batch: tensors whose first axis is the batch, None for those that a model has not.

    Attributes:
        belief: (B, d, h, w) what is decoded.
        observed: (B, d, h, w) features that go into the next step: those written last, else the last prediction.
        pump: (B, d) memory of the whole field.
        hebbian: (B, d, h, w) how much each place has been active together with its neighbours.
        health: (B, d) what the channels' fatigue has left of them.
        hidden, cell: (B, hidden, h, w) of a recurrent cell.
        keys, slots: (B, n, d) the memory of Titans.
        delta: (B, heads, d / heads, d / heads) the association matrices of DeltaNet.

    Example:
        >>> import torch
        >>> state = WorldState(torch.zeros(2, 4, 3, 3), pump=torch.ones(2, 4))
        >>> state.repeat(3).belief.shape, state.take(torch.tensor([1])).pump
        (torch.Size([6, 4, 3, 3]), tensor([[1., 1., 1., 1.]]))
    """

    belief: Tensor
    observed: Tensor | None = None
    pump: Tensor | None = None
    hebbian: Tensor | None = None
    health: Tensor | None = None
    hidden: Tensor | None = None
    cell: Tensor | None = None
    keys: Tensor | None = None
    slots: Tensor | None = None
    delta: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> WorldState:
        """The state with a function applied to every tensor."""
        return WorldState(*(None if part is None else function(part) for part in self))  # type: ignore[arg-type]

    def detach(self) -> WorldState:
        """The same values without what led to them."""
        return self.map(Tensor.detach)

    def repeat(self, count: int) -> WorldState:
        """Every sample ``count`` times, one behind the other: (B count, ...)."""
        return self.map(lambda part: part.repeat_interleave(count, dim=0))

    def take(self, rows: Tensor) -> WorldState:
        """The samples of these rows (N,): (N, ...)."""
        return self.map(lambda part: part.index_select(0, rows))
