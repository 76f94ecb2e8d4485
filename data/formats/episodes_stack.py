"""Frames of one episode in a larger array of any order of axes and any type, read by range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_types import check_range
from pipelines.data.formats.episodes_axes import Source
from pipelines.data.formats.episodes_scale import AS_IT_IS, Scale

__all__ = ["StackFrames"]


class StackFrames:
    """Frames (T, H, W, C) of one episode of a source with the axes `axes`; a read takes only what is asked for.

    Args:
        source: the numbers.
        axes: T, H, W and perhaps N and C, one letter an axis.
        episode: the place along N.
        start, stop: the part along T; to the end where `stop` is None.
        scale: of the numbers.

    Example:
        >>> movies = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
        >>> frames = StackFrames(movies, "TNHW", episode=1)
        >>> frames.shape, bool((frames.read(0, 2)[..., 0] == movies[:, 1]).all())
        ((2, 4, 4, 1), True)
    """

    def __init__(
        self,
        source: Source,
        axes: str,
        *,
        episode: int = 0,
        start: int = 0,
        stop: int | None = None,
        scale: Scale = AS_IT_IS,
    ) -> None:
        """Keep the source and the place in it."""
        sizes = dict(zip(axes, source.shape, strict=True))
        self.source, self.axes, self.episode, self.scale = source, axes, episode, scale
        self.start, self.stop = start, sizes["T"] if stop is None else stop
        check_range(self.start, self.stop, sizes["T"])
        self._picture = sizes["H"], sizes["W"], sizes.get("C", 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, C)."""
        return (self.stop - self.start, *self._picture)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop (excluded), (stop - start, H, W, C) uint8, C-contiguous and the caller's own."""
        check_range(start, stop, self.shape[0])
        taken = slice(self.start + start, self.start + stop)
        key = tuple(taken if axis == "T" else self.episode if axis == "N" else slice(None) for axis in self.axes)
        values = np.asarray(self.source[key])
        left = self.axes.replace("N", "")
        values = values.transpose([left.index(axis) for axis in "THWC" if axis in left])
        frames = self.scale.bytes_of(values if "C" in left else values[..., None])
        return frames.copy() if np.may_share_memory(frames, values) else frames
