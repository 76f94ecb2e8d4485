"""ConvFormer of arXiv 2304.02147: joints of images over a window of frames to the pose of its centre frame.

No code or weights were released. The design follows the text; what it leaves open (biases, output maps, the width of
the feed-forward layers, norms) is what the paper's parameter tables fit, see `ConvFormer`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from core_attention.registry import suggest
from pipelines.errors import ConfigError, InputError
from pipelines.pose.models.convformer_parts import Block, Branch, ConvFormerConfig, branch_mixer

__all__ = ["ConvFormer", "ConvFormerConfig"]


class ConvFormer(nn.Module):
    """Lift windows of joints (B, T, J, 2) to the pose of their centre frame, (B, 1, J, 3).

    Joints are embedded and mixed within each frame; then each frame is one token of J d features, and frames are mixed;
    a weighted mean over frames and a linear map give the pose. With the mechanism `dynamic_conv` T is part of the
    weights, and the order of joints and of features matters. Training aims at metres in the camera frame, relative to
    the root joint; the root's own output is not fixed to zero.

    With ``mask`` a last channel says which joints are there; the coordinates of missing ones (0) are not read, so that
    they may hold anything.

    Parameters: 2.562 million at T = 9, 2.655 at 27, 3.432 at 81, 5.244 at 143, 10.242 at 243, as published. Equal
    counts cannot see choices without parameters (the activation, how eta sums to one, the order of operations). With
    ``attention="softmax"`` and four layers each it has the shape of PoseFormer (arXiv 2103.10455), and its count.

    O(T J d (d K + J) + T^2 J d K + T J^2 d^2) time a window for kernels of width K, O(T J d) memory. Source: ConvFormer
    (arXiv 2304.02147), section 3.

    Args:
        config: its sizes; None for the defaults.
        sizes: fields of `ConvFormerConfig`, in place of those of ``config``.

    Raises:
        ConfigError: sizes or a mechanism that do not fit, or no such size.

    Example:
        >>> model = ConvFormer(frames=9)
        >>> model(torch.zeros(2, 9, 17, 2)).shape, sum(p.numel() for p in model.parameters())
        (torch.Size([2, 1, 17, 3]), 2561621)
    """

    def __init__(self, config: ConvFormerConfig | None = None, **sizes: Any) -> None:
        super().__init__()
        self.config = c = _config(config, sizes)
        self.embed = nn.Linear(c.channels, c.dim)
        self.joint_positions = nn.Parameter(torch.empty(1, c.joints, c.dim))
        self.frame_positions = nn.Parameter(torch.empty(1, c.frames, c.width("temporal")))
        for positions in (self.joint_positions, self.frame_positions):
            nn.init.trunc_normal_(positions, std=0.02)
        self.spatial = _blocks(c, "spatial")
        self.spatial_norm = nn.LayerNorm(c.dim, eps=1e-6)
        self.temporal = _blocks(c, "temporal")
        self.temporal_norm = nn.LayerNorm(c.width("temporal"), eps=1e-6)
        self.frame_mean = nn.Conv1d(c.frames, 1, c.head_kernel, padding=c.head_kernel // 2)
        self.head = nn.Sequential(nn.LayerNorm(c.width("temporal")), nn.Linear(c.width("temporal"), 3 * c.joints))

    def forward(self, x: Tensor) -> Tensor:
        """Lift x (B, T, J, 2), or (B, T, J, 3) with ``mask``: coordinates normalised by the width of the image.

        Returns:
            (B, 1, J, 3), metres, x right, y down, z forward.

        Raises:
            InputError: another number of frames, joints or channels, or whole numbers.
        """
        self._check(x)
        c = self.config
        if c.mask:
            there = x[..., -1:]
            x = torch.cat([torch.where(there > 0, x[..., :-1], 0.0), there], dim=-1)
        y = self.embed(x).flatten(0, 1) + self.joint_positions
        for block in self.spatial:
            y = block(y)
        y = self.spatial_norm(y).view(-1, c.frames, c.width("temporal")) + self.frame_positions
        for block in self.temporal:
            y = block(y)
        return self.head(self.frame_mean(self.temporal_norm(y))).view(-1, 1, c.joints, 3)

    def _check(self, x: Tensor) -> None:
        c = self.config
        shape = (c.frames, c.joints, c.channels)
        if x.dim() != 4 or tuple(x.shape[1:]) != shape:
            parts = "coordinates and validity" if c.mask else "coordinates"
            expected = f"(batch, {shape[0]} frames, {shape[1]} joints, {shape[2]} {parts})"
            raise InputError("not a window for this model", where="x", found=tuple(x.shape), expected=expected)
        if not x.is_floating_point():
            expected = "float32, as .float() makes"
            raise InputError("not floating-point numbers", where="x", found=x.dtype, expected=expected)


def _config(config: ConvFormerConfig | None, sizes: dict[str, Any]) -> ConvFormerConfig:
    known = [field.name for field in dataclasses.fields(ConvFormerConfig)]
    for name in sizes:
        if name not in known:
            raise ConfigError("no such size of a ConvFormer", where=name, cure=suggest(name, known))
    return dataclasses.replace(config or ConvFormerConfig(), **sizes)


def _blocks(config: ConvFormerConfig, branch: Branch) -> nn.ModuleList:
    """The blocks of a branch; the later ones are left out more often."""
    count = config.spatial_layers if branch == "spatial" else config.temporal_layers
    hidden = int(config.width(branch) * config.ratio)
    rates = [config.drop_path * i / max(count - 1, 1) for i in range(count)]
    return nn.ModuleList(Block(branch_mixer(config, branch), hidden, rate) for rate in rates)
