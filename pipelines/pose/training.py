"""What a step of training reads: windows of motion drawn anew, seen by cameras drawn anew; and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.data.datasets.pose_cameras import draw_views, normalise
from pipelines.data.datasets.pose_motion import Augmentation, augment_windows, draw_windows
from pipelines.data.datasets.pose_noise import NoiseLevel, degrade
from pipelines.data.datasets.pose_types import Clip
from pipelines.pose.material import followed, ranges_of
from pipelines.training.randomness import derive_seed

if TYPE_CHECKING:
    from pipelines.pose.pipeline import PoseLifter

__all__ = ["DrawnWindows", "draw_batch", "pose_loss"]

#: Noise and missing joints that half of the training windows have.
ROUGH = NoiseLevel(noise_px=5.0, missing=0.05)


def draw_batch(
    m: PoseLifter, clips: Sequence[Clip], count: int, seed: int, *, changed: bool
) -> dict[str, NDArray[Any]]:
    """Random windows as models see them, with the pose of the centre frame.

    Args:
        m: says how motion is changed and by which cameras it is seen.
        clips: motion on one skeleton at one frame rate.
        count: N.
        seed: decides everything.
        changed: whether bones, speed and sides are changed, as in training; noise is the same.

    Returns:
        x (N, T, J, 3), y (N, J, 3) m relative to the root, known (N, J).
    """
    generator = np.random.default_rng(seed)
    tree, move = clips[0].skeleton, m.motion
    level = Augmentation(height=move.height, bones=move.bones, speed=move.speed, mirror=move.mirror)
    drawn = draw_windows(clips, m.frames, count, generator, speed=move.speed if changed else (1.0, 1.0))
    points, there = drawn.points.astype(np.float64), drawn.valid
    if changed:
        points, there = augment_windows(points, tree, generator, level, there)
    still = generator.random(count) < 0.5
    points = np.where(still[:, None, None, None], points, followed(points))
    views = draw_views(points, generator, there, ranges_of(m))
    rough = generator.random(count) < 0.5
    pixels, seen = views.pixels, views.inside
    worse = degrade(pixels, seen, generator, ROUGH)
    pixels = np.where(rough[:, None, None, None], worse.points, pixels)
    seen = np.where(rough[:, None, None], worse.valid, seen)
    flat = normalise(pixels, m.views.size)
    x = np.concatenate([np.where(seen[..., None], flat, 0.0), seen[..., None]], -1).astype(np.float32)
    middle = m.frames // 2
    body, known = views.points[:, middle], there[:, middle]
    y = (body - body[:, tree.root : tree.root + 1]).astype(np.float32)
    return {"x": x, "y": y, "known": known & known[:, tree.root : tree.root + 1]}


class DrawnWindows(Dataset[Any]):
    """So many windows an epoch, drawn for (seed, epoch, example); validation draws the same ones each time.

    Args:
        m: the pipeline.
        clips: that are drawn from.
        count: windows of an epoch.
        changed: whether motion is changed.
    """

    def __init__(self, m: PoseLifter, clips: Sequence[Clip], count: int, *, changed: bool) -> None:
        self.m, self.clips, self.count, self.changed = m, clips, count, changed
        self._place = (0, 0)

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Windows are drawn for (seed, epoch, example)."""
        self._place = (seed, epoch if self.changed else 0)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        seed = derive_seed(*self._place, int(min(indices)), len(indices))
        found = draw_batch(self.m, self.clips, len(indices), seed, changed=self.changed)
        return {name: torch.from_numpy(values) for name, values in found.items()}


def pose_loss(module: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Sum of the distances of all known joints from the truth in m, and their number: MPJPE, for ``loop.train``.

    Source: ConvFormer (arXiv 2304.02147), section 4.
    """
    found = module(batch["x"])[:, 0]
    apart = (found - batch["y"]).square().sum(-1).add(1e-12).sqrt()
    known = batch["known"]
    return torch.where(known, apart, 0.0).sum(), known.sum().clamp(min=1)
