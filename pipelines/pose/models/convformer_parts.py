"""Parts of ConvFormer: its sizes, its blocks, and the mechanism of each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from core_attention import MechanismError, TokenMixer, build, registry
from core_attention.layers import FeedForward
from pipelines.errors import ConfigError

__all__ = ["Block", "Branch", "ConvFormerConfig", "branch_mixer"]

Branch = Literal["spatial", "temporal"]


@dataclass(frozen=True)
class ConvFormerConfig:
    """Sizes of a ConvFormer; the defaults are the paper's, at T = 27.

    A list of kernels is taken for a tuple, so that a config read from JSON serves.

    Raises:
        ConfigError: a size that does not fit, by name.

    Example:
        >>> ConvFormerConfig(frames=81, kernels=[3, 5, 7]).kernels
        (3, 5, 7)
    """

    frames: int = 27
    """Frames T of a window; odd, so that there is a centre frame."""
    joints: int = 17
    """Joints J, in the order of one skeleton: the spatial convolutions slide over it."""
    dim: int = 32
    """Width d of a joint; a frame is J d wide."""
    spatial_layers: int = 2
    """Blocks over the joints of a frame."""
    temporal_layers: int = 2
    """Blocks over the frames of a window."""
    kernels: tuple[int, ...] = (7, 7, 7)
    """Widths of the convolutions that are mixed; of `dynamic_conv` only."""
    heads: int = 8
    """Heads of every block."""
    ratio: float = 2.0
    """Width of a block's feed-forward layer, as a multiple of the block's."""
    dropout: float = 0.2
    """Of the mixed values (`dynamic_conv`), or of what another mechanism drops, where it has such an option."""
    drop_path: float = 0.2
    """Probability of leaving out a branch in the last block of each kind, rising linearly from 0 in the first."""
    head_kernel: int = 1
    """Width along the features of the convolution that takes the weighted mean over frames; odd."""
    inputs: int = 2
    """Coordinates of a joint."""
    mask: bool = False
    """Whether a channel of validity (0 = missing) or confidence (0 to 1) follows the coordinates."""
    attention: str = "dynamic_conv"
    """Any mechanism for sequences; "softmax" makes it a PoseFormer."""

    def __post_init__(self) -> None:
        if isinstance(self.kernels, Sequence) and not isinstance(self.kernels, str):
            object.__setattr__(self, "kernels", tuple(self.kernels))
        for name in ("frames", "joints", "dim", "spatial_layers", "temporal_layers", "heads", "inputs", "head_kernel"):
            found = getattr(self, name)
            if not isinstance(found, int) or isinstance(found, bool) or found < 1:
                raise ConfigError("not a size", where=name, found=found, expected="a positive whole number")
        for name, why in (("frames", "so that there is a centre frame"), ("head_kernel", "so that it has a centre")):
            if getattr(self, name) % 2 == 0:
                expected = f"an odd number, {why}"
                raise ConfigError("no such window", where=name, found=getattr(self, name), expected=expected)
        if self.dim % self.heads:
            expected = f"a divisor of dim={self.dim}"
            raise ConfigError("heads that do not fit", where="heads", found=self.heads, expected=expected)
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError("not a probability", where=name, found=getattr(self, name), expected="0 <= p < 1")
        if not math.isfinite(self.ratio) or int(self.dim * self.ratio) < 1:
            expected = "a number that leaves the feed-forward layer a channel"
            raise ConfigError("no width", where="ratio", found=self.ratio, expected=expected)

    @property
    def channels(self) -> int:
        """Numbers that describe a joint of the input."""
        return self.inputs + int(self.mask)

    def width(self, branch: Branch) -> int:
        """Width of the tokens: of a joint (spatial) or of a frame (temporal)."""
        return self.dim if branch == "spatial" else self.dim * self.joints

    def tokens(self, branch: Branch) -> int:
        """Tokens that are mixed: joints of a frame (spatial) or frames of a window (temporal)."""
        return self.joints if branch == "spatial" else self.frames


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x)); tokens (B, N, F) to the same shape.

    O(N F^2 ratio) time beside the mixer's own. Source: ConvFormer (arXiv 2304.02147), section 3.1; two LayerNorms of
    eps 1e-6 and GELU follow PoseFormer, on which the paper builds.

    Args:
        mixer: any mechanism for sequences.
        hidden: width of the feed-forward layer.
        drop_path: probability of leaving out a branch for a row of the batch while training.

    Example:
        >>> import torch
        >>> Block(build("softmax", 16, 4), 32)(torch.randn(2, 5, 16)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(self, mixer: TokenMixer, hidden: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(mixer.dim, eps=1e-6)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(mixer.dim, eps=1e-6)
        self.feed_forward = FeedForward(mixer.dim, hidden)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        x = x + self._kept(self.mixer(self.norm1(x)).y)
        return x + self._kept(self.feed_forward(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        """The branch, whole rows of the batch zeroed at random and the others scaled up, while training."""
        if not self.training or not self.drop_path:
            return branch
        kept = branch.new_empty((branch.shape[0], 1, 1)).bernoulli_(1 - self.drop_path)
        return branch * kept.div_(1 - self.drop_path)


def branch_mixer(config: ConvFormerConfig, branch: Branch) -> TokenMixer:
    """The mechanism of one block.

    Args:
        config: sizes, and the mechanism's name.
        branch: "spatial" (tokens are joints) or "temporal" (tokens are frames).

    Raises:
        ConfigError: no such mechanism, or one that cannot mix a sequence by itself.

    Example:
        >>> branch_mixer(ConvFormerConfig(frames=9), "temporal").length
        9
    """
    name, width, tokens = config.attention, config.width(branch), config.tokens(branch)
    try:
        spec = registry.spec(name)
        if spec.kind == "pool" or spec.extras or 1 not in spec.grid:
            beside = f" with {', '.join(spec.extras)}" if spec.extras else ""
            found = f"{name}: {spec.kind} for grids {spec.grid}{beside}"
            expected = "a mixer for sequences that needs nothing beside them, such as dynamic_conv or softmax"
            raise ConfigError("does not mix joints and frames", where="attention", found=found, expected=expected)
        options: dict[str, Any] = {"length": tokens} if spec.fixed_length else {}
        if "dropout" in registry.option_names(name):
            options["dropout"] = config.dropout
        if name == "dynamic_conv":
            options |= {"form": branch, "kernels": config.kernels}
        return build(name, width, config.heads, **options)
    except MechanismError as error:
        raise ConfigError(str(error), where="attention", found=name) from error
