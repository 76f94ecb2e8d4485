"""How windows of scans are made different for training: plain settings, so that command lines load no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.errors import ConfigError

__all__ = ["AugmentOptions"]


@dataclass(frozen=True)
class AugmentOptions:
    """What is done to windows while training; nothing is done to those that are measured on.

    The first seven are the released ones. Every frame of a window gets the same. Axes of one voxel are left alone: a
    single slice is only turned within itself.
    """

    probability: float = 1.0
    """Share of the windows that are turned, scaled and moved."""
    rotate: float = 10.0
    """Largest angle about each axis, in degrees."""
    scale: float = 0.1
    """Largest change of size along each axis, as a share."""
    noise_chance: float = 0.3
    """Share of the windows with noise."""
    noise: float = 0.1
    """Largest standard deviation of the noise, in those of the brain's voxels; drawn from 0 on for each window."""
    smooth_chance: float = 0.1
    """Share of the windows that are smoothed."""
    smooth: float = 0.5
    """Largest standard deviation of the smoothing in voxels; drawn from 0 on for each axis."""
    noise_background: bool = False
    """Whether the background gets noise too, as in the released code; else it stays what it is."""
    shift: float = 0.0
    """Farthest move along each axis, in voxels."""
    flip: bool = False
    """Whether half of the windows are mirrored left to right. Both halves of a brain are not alike: think first."""
    drop: float = 0.0
    """Share of the blocks of voxels that are set to the background."""
    drop_block: int = 1
    """Edge of these blocks, in voxels."""
    recombine: float = 0.0
    """Share of the windows whose difference from the mean of their class is turned towards that of another window, of
    any class, by a random angle: a new sample of what the training windows share and of how they vary. Of classes."""
    mixup: float = 0.0
    """Both parameters of the beta distribution of mixup with labels; 0 mixes nothing."""

    def validate(self) -> AugmentOptions:
        """Check every setting.

        Raises:
            ConfigError: a setting is out of its range; the message names the setting and the range.

        Example:
            >>> AugmentOptions(drop=0.2).validate().rotate
            10.0
        """
        for name in ("probability", "noise_chance", "smooth_chance", "drop", "recombine"):
            _bounded(name, getattr(self, name), 1.0)
        _bounded("rotate", self.rotate, 180.0)
        _bounded("scale", self.scale, 0.9)
        _bounded("smooth", self.smooth, 8.0)
        for name in ("noise", "shift", "mixup"):
            _bounded(name, getattr(self, name), math.inf)
        if isinstance(self.drop_block, bool) or not isinstance(self.drop_block, int) or self.drop_block < 1:
            raise ConfigError(
                "no edge", where="augment.drop_block", found=self.drop_block, expected="whole voxels from 1"
            )
        return self

    @property
    def moves(self) -> bool:
        """Whether voxels are turned, scaled or moved at all."""
        return self.probability > 0 and (self.rotate > 0 or self.scale > 0 or self.shift > 0)


def _bounded(name: str, value: float, most: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0 <= value <= most:
        top = "" if math.isinf(most) else f" to {most:g}"
        raise ConfigError("out of range", where=f"augment.{name}", found=value, expected=f"a number from 0{top}")
