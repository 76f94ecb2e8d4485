"""SwiFT of arXiv 2307.05916: shifted windows over three axes of space and one of time, on raw 4-D scans.

Parameters have the released names and shapes, so that released checkpoints load strictly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention import MechanismError, TokenMixer, build, registry
from pipelines.errors import ConfigError, InputError
from pipelines.fmri.models.swift_parts import (
    Block,
    ClassHead,
    ContrastiveHead,
    HiddenHead,
    OwnPatchEmbed,
    PatchEmbed,
    PatchMerging,
    Positions,
    Stage,
    merged_axes,
)

__all__ = [
    "ClassHead",
    "ContrastiveHead",
    "HiddenHead",
    "Swift",
    "SwiftConfig",
    "SwiftNet",
    "interpolate_positions",
]


def _sizes(name: str, given: Any, count: int | None) -> tuple[int, ...]:
    """A tuple of positive whole numbers."""
    numbers = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else None
    whole = numbers is not None and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
    if numbers is None or not whole or (count is not None and len(numbers) != count):
        expected = f"{count or 'one'} positive whole number{'' if count == 1 else 's' if count else ' a stage'}"
        raise ConfigError("not sizes", where=name, found=given, expected=expected)
    return numbers


@dataclass(frozen=True)
class SwiftConfig:
    """Sizes of a SwiFT; the defaults are the paper's.

    Lists are taken for tuples, so that a config read from JSON serves.

    Raises:
        ConfigError: a size that does not fit, by name.

    Example:
        >>> config = SwiftConfig(image=(40, 20, 1), frames=8, patch=(4, 4, 1, 1), depths=(1, 1), heads=(2, 4), dim=16)
        >>> config.grids
        ((10, 5, 1), (5, 3, 1))
        >>> config.features
        32
    """

    image: tuple[int, int, int] = (96, 96, 96)
    """Voxels on the three axes."""
    frames: int = 20
    """Volumes that there are time embeddings for; shorter windows use the first ones."""
    channels: int = 1
    """Input channels."""
    patch: tuple[int, int, int, int] = (6, 6, 6, 1)
    """Voxels, and volumes, that make one token."""
    dim: int = 36
    """Channels of the first stage; doubled at each merging."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each stage."""
    heads: tuple[int, ...] = (3, 6, 12, 24)
    """Heads of each stage; they divide its channels."""
    window: tuple[int, int, int, int] = (4, 4, 4, 4)
    """Tokens of a window on the axes of space and time; clamped to the grid of the stage."""
    first_window: tuple[int, int, int, int] | None = None
    """The same for the first stage; None: as the others."""
    full_last: bool = True
    """The last stage attends across all of space, within ``window[3]`` moments, unshifted."""
    mlp_ratio: float = 4.0
    """Width of the MLP over the channels."""
    dropout: float = 0.0
    """After the embedding, the mixers' projections and the layers of the MLP; attention weights are never dropped."""
    drop_path: float = 0.0
    """Probability of leaving out a branch in the last block, rising linearly from 0 in the first."""
    attention: str = "window_nd"
    """Any mechanism for grids of four axes, or for sequences (tokens are then flattened, time fastest)."""
    patch_maps: Literal["shared", "own"] = "shared"
    """One map embeds all patches, as published, or each place of the grid has its own."""
    mask_padding: bool = False
    """Whether what a grid lacks to a multiple of the window is hidden; released: zeros that are attended to."""

    def __post_init__(self) -> None:
        for name, count in (("image", 3), ("patch", 4), ("window", 4), ("depths", None), ("heads", None)):
            object.__setattr__(self, name, _sizes(name, getattr(self, name), count))
        if self.first_window is not None:
            object.__setattr__(self, "first_window", _sizes("first_window", self.first_window, 4))
        for name in ("frames", "channels", "dim"):
            _sizes(name, (getattr(self, name),), 1)
        if not self.depths or len(self.heads) != len(self.depths):
            expected = f"{len(self.depths)}, one a stage" if self.depths else "one number a stage"
            raise ConfigError("not the heads of these stages", where="heads", found=self.heads, expected=expected)
        if any(size < p for size, p in zip(self.image, self.patch, strict=False)):
            expected = f"at least the patch {self.patch[:3]} on every axis"
            raise ConfigError("smaller than a patch", where="image", found=self.image, expected=expected)
        if self.frames % self.patch[3]:
            expected = f"a multiple of {self.patch[3]}, the volumes of a patch"
            raise ConfigError("not whole patches", where="frames", found=self.frames, expected=expected)
        for stage, heads in enumerate(self.heads):
            if self.width(stage) % heads:
                expected = f"a divisor of its {self.width(stage)} channels"
                raise ConfigError("heads that do not fit", where=f"heads[{stage}]", found=heads, expected=expected)
        if self.patch_maps not in ("shared", "own"):
            raise ConfigError("no such maps", where="patch_maps", found=self.patch_maps, expected="shared or own")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError("not a probability", where=name, found=getattr(self, name), expected="0 <= p < 1")
        if not math.isfinite(self.mlp_ratio) or int(self.dim * self.mlp_ratio) < 1:
            expected = "a number that leaves the MLP a channel"
            raise ConfigError("no width", where="mlp_ratio", found=self.mlp_ratio, expected=expected)

    @property
    def grids(self) -> tuple[tuple[int, int, int], ...]:
        """Tokens on the axes of space in each stage."""
        grid = tuple(-(-size // p) for size, p in zip(self.image, self.patch, strict=False))
        found = [grid]
        for _ in self.depths[1:]:
            grid = tuple(-(-size // 2) for size in grid)
            found.append(grid)
        return tuple((x, y, z) for x, y, z in found)

    @property
    def padding(self) -> tuple[int, int, int]:
        """Voxels by which a scan is made longer at the far end of each axis, to whole patches."""
        x, y, z = (-size % p for size, p in zip(self.image, self.patch, strict=False))
        return x, y, z

    @property
    def features(self) -> int:
        """Channels D of the last stage."""
        return self.width(len(self.depths) - 1)

    def width(self, stage: int) -> int:
        """Channels of a stage."""
        return self.dim * 2**stage


class Swift(nn.Module):
    """The encoder of SwiFT: scans (B, c, X, Y, Z, T) to features (B, D, x, y, z, t).

    Patches are embedded; in each stage learned vectors of place and moment are added, blocks of windowed attention and
    MLPs follow (every other one with its windows moved by half), and neighbours in space are merged. Time is never
    merged. The last stage attends across all of space. ``norm`` exists for the released layout and is not applied, as
    released, so that it has no gradient.

    Images that are no whole patches are made longer at their far ends, with the value of their first voxel in the first
    volume (background after standardising); ``padding`` says by how much. O(L (W + C) C) time a block for L tokens and
    windows of W; O(L C) memory. Source: SwiFT (arXiv 2307.05916), section 3, and the released code where the paper is
    silent.

    Args:
        config: its sizes.

    Raises:
        ConfigError: sizes or a mechanism that do not fit.

    Example:
        >>> model = Swift(SwiftConfig(image=(24, 24, 24), frames=8, dim=12, depths=(1, 1), heads=(1, 2)))
        >>> model(torch.zeros(2, 1, 24, 24, 24, 6)).shape, model.encode(torch.zeros(1, 1, 24, 24, 24, 1)).shape
        (torch.Size([2, 24, 2, 2, 2, 6]), torch.Size([1, 24]))
        >>> sum(p.numel() for p in Swift(SwiftConfig()).parameters())
        4315212
    """

    def __init__(self, config: SwiftConfig = SwiftConfig()) -> None:
        super().__init__()
        self.config = config
        self.padding = config.padding
        last = len(config.depths) - 1
        frames = config.frames // config.patch[3]
        own = config.patch_maps == "own"
        self.patch_embed = (
            OwnPatchEmbed(config.channels, config.patch, config.dim, config.grids[0])
            if own
            else PatchEmbed(config.channels, config.patch, config.dim)
        )
        self.pos_embeds = nn.ModuleList(
            Positions(config.width(stage), grid, frames) for stage, grid in enumerate(config.grids)
        )
        self.layers = nn.ModuleList(
            Stage(_blocks(config, stage), None if stage == last else PatchMerging(config.width(stage), grid))
            for stage, grid in enumerate(config.grids)
        )
        self.norm = nn.LayerNorm(config.features)

    def forward(self, x: Tensor) -> Tensor:
        """Encode x (B, c, X, Y, Z, T) with T up to ``frames``.

        Returns:
            (B, D, x, y, z, t), a view of channels-last memory.

        Raises:
            InputError: another number of channels, another size in space, more volumes than ``frames``, or part of a
                patch in time.
        """
        self._check(x)
        if any(self.padding):
            x = _lengthened(x, self.padding)
        x = F.dropout(self.patch_embed(x), self.config.dropout, self.training)
        for positions, stage in zip(self.pos_embeds, self.layers, strict=True):
            x = stage(positions(x))
        return x.permute(0, 5, 1, 2, 3, 4)

    def encode(self, x: Tensor) -> Tensor:
        """One vector a scan: the mean over space and time of the features, (B, D); errors as of a call."""
        return self(x).flatten(2).mean(-1)

    def _check(self, x: Tensor) -> None:
        c = self.config
        if x.dim() != 6 or x.shape[1] != c.channels or tuple(x.shape[2:5]) != c.image:
            expected = f"(batch, {c.channels}, {', '.join(map(str, c.image))}, volumes)"
            raise InputError("not a scan for this model", where="x", found=tuple(x.shape), expected=expected)
        if not x.is_floating_point():
            raise InputError(
                "not floating-point numbers", where="x", found=x.dtype, expected="float32, as .float() makes"
            )
        if not 1 <= x.shape[5] <= c.frames:
            cure = "give shorter windows, or build a longer model and use interpolate_positions"
            expected = f"1 to {c.frames} volumes"
            raise InputError("not a window for this model", where="x", found=x.shape[5], expected=expected, cure=cure)
        if x.shape[5] % c.patch[3]:
            expected = f"a multiple of {c.patch[3]} volumes, a patch"
            raise InputError("not whole patches in time", where="x", found=x.shape[5], expected=expected)


class SwiftNet(nn.Module):
    """An encoder with a head on it: scans (B, c, X, Y, Z, T) to (B, outputs). Names are those of released checkpoints.

    Args:
        model: the encoder.
        head: what maps its features; None for a `ClassHead` of one output.

    Example:
        >>> config = SwiftConfig(image=(12, 12, 12), frames=4, dim=12, depths=(1, 1), heads=(1, 2))
        >>> SwiftNet(Swift(config), ClassHead(config.features, 8))(torch.zeros(2, 1, 12, 12, 12, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(self, model: Swift, head: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.output_head = ClassHead(model.config.features) if head is None else head

    def forward(self, x: Tensor) -> Tensor:
        """Errors as of the encoder."""
        return self.output_head(self.model(x))

    def encode(self, x: Tensor) -> Tensor:
        """The encoder's vectors (B, D)."""
        return self.model.encode(x)


def interpolate_positions(state: Mapping[str, Tensor], old: SwiftConfig, new: SwiftConfig) -> dict[str, Tensor]:
    """Fit the embeddings of place and time of a state dict to another image size and number of volumes.

    Vectors of place are interpolated trilinearly between token centres. Vectors of time are kept as they are, the first
    ones where fewer are needed, as a shorter window uses them; for longer windows they are stretched linearly. All
    other tensors are the same objects. Keys may stand behind a prefix such as ``model.``.

    Args:
        state: tensors by name.
        old, new: the configurations of the state and of the model that shall load it.

    Raises:
        ConfigError: configurations that differ in more than ``image``, ``frames``, windows and training options, or
            grids of which other axes are merged, so that no weights could fit.

    Example:
        >>> import dataclasses
        >>> old = SwiftConfig(image=(24, 24, 24), frames=4, dim=12, depths=(1, 1), heads=(1, 2))
        >>> new = dataclasses.replace(old, image=(36, 24, 30), frames=6)
        >>> Swift(new).load_state_dict(interpolate_positions(Swift(old).state_dict(), old, new))
        <All keys matched successfully>
    """
    for name in ("channels", "patch", "dim", "depths", "heads", "mlp_ratio", "attention", "patch_maps"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            raise ConfigError("weights of another model", where=name, found=before, expected=after)
    if new.patch_maps == "own" and old.grids[0] != new.grids[0]:
        expected = f"the grid {old.grids[0]}, each place of which has a map of its own"
        raise ConfigError("no maps for another grid", where="image", found=new.grids[0], expected=expected)
    for stage, (before, after) in enumerate(zip(old.grids[:-1], new.grids[:-1], strict=True)):
        if merged_axes(before) != merged_axes(after):
            expected = "one token on the same axes, as merging joins the others"
            raise ConfigError(f"grid of stage {stage} merges other axes", where="image", found=after, expected=expected)
    fitted = dict(state)
    for key, tensor in state.items():
        head, _, kind = key.rpartition(".")
        stage = int(head.rpartition(".")[2]) if kind in ("pos_embed", "time_embed") else -1
        if kind == "pos_embed":
            fitted[key] = _placed(tensor, new.grids[stage])
        elif kind == "time_embed":
            fitted[key] = _timed(tensor, new.frames // new.patch[3])
    return fitted


def _placed(embedding: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(1, C, x, y, z, 1) at another grid."""
    if tuple(embedding.shape[2:5]) == grid:
        return embedding
    return F.interpolate(embedding.squeeze(-1), grid, mode="trilinear", align_corners=False).unsqueeze(-1)


def _timed(embedding: Tensor, frames: int) -> Tensor:
    """(1, C, 1, 1, 1, T) for another number of moments."""
    before = embedding.shape[-1]
    if frames <= before:
        return embedding[..., :frames]
    flat = F.interpolate(embedding.flatten(1, 4), frames, mode="linear", align_corners=True)
    return flat.view(*embedding.shape[:-1], frames)


def _blocks(config: SwiftConfig, stage: int) -> list[Block]:
    """The blocks of a stage; every other one has its windows moved."""
    total, before = sum(config.depths), sum(config.depths[:stage])
    rates = [config.drop_path * i / max(total - 1, 1) for i in range(before, before + config.depths[stage])]
    hidden = int(config.width(stage) * config.mlp_ratio)
    return [Block(_mixer(config, stage, i % 2 == 1), hidden, config.dropout, rate) for i, rate in enumerate(rates)]


def _mixer(config: SwiftConfig, stage: int, shifted: bool) -> TokenMixer:
    """The mixer of one block."""
    name, dim, heads = config.attention, config.width(stage), config.heads[stage]
    if name == "window_nd":
        full = config.full_last and stage == len(config.depths) - 1
        usual = (config.first_window or config.window) if stage == 0 else config.window
        window = (*config.grids[stage], usual[3]) if full else usual
        options: dict[str, Any] = {"window": window, "shift": shifted and not full}
        return build(name, dim, heads, **options, mask_padding=config.mask_padding, proj_drop=config.dropout)
    return _other_mixer(config, stage)


def _other_mixer(config: SwiftConfig, stage: int) -> TokenMixer:
    """Another mechanism in the place of windows."""
    name, dim, heads = config.attention, config.width(stage), config.heads[stage]
    try:
        spec = registry.spec(name)
        if spec.kind == "pool" or spec.extras or not {1, 4} & set(spec.grid):
            beside = f" with {', '.join(spec.extras)}" if spec.extras else ""
            found = f"{name}: {spec.kind} for grids {spec.grid}{beside}"
            expected = "a mixer for sequences or grids of four axes that needs nothing beside them"
            raise ConfigError("does not mix the tokens of a scan", where="attention", found=found, expected=expected)
        grid = (*config.grids[stage], config.frames // config.patch[3])
        length = grid if 4 in spec.grid else math.prod(grid)
        return build(name, dim, heads, **({"length": length} if spec.fixed_length else {}))
    except MechanismError as error:
        raise ConfigError(str(error), where="attention", found=name) from error


def _lengthened(x: Tensor, padding: Sequence[int]) -> Tensor:
    """Far ends of the axes of space, filled with each scan's and channel's first voxel of the first volume."""
    first = x[:, :, :1, :1, :1, :1]
    for axis, more in enumerate(padding, start=2):
        if more:
            shape = [more if i == axis else size for i, size in enumerate(x.shape)]
            x = torch.cat([x, first.expand(shape)], axis)
    return x
