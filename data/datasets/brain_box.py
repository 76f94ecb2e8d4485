"""Cutting and padding a volume about its centre, and undoing it: voxels added or cut on each side, written down."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["Box", "Triple", "centred"]

Triple = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Box:
    """Voxels added (+) or cut (-) on each side of X, Y and Z.

    Args:
        low: before the first voxel of each axis.
        high: behind the last one.

    Example:
        >>> box = Box((1, -1, 0), (0, 0, 0))
        >>> volume = np.arange(1.0, 5.0).reshape(2, 2, 1)
        >>> box.put(volume, 0.0)[..., 0].tolist(), box.back(box.put(volume, 0.0))[..., 0].tolist()
        ([[0.0], [2.0], [4.0]], [[0.0, 2.0], [0.0, 4.0]])
    """

    low: Triple = (0, 0, 0)
    high: Triple = (0, 0, 0)

    @property
    def plain(self) -> bool:
        """Whether nothing is added or cut."""
        return not any((*self.low, *self.high))

    def size(self, size: Triple) -> Triple:
        """Size of what a volume of `size` voxels becomes."""
        x, y, z = (n + a + b for n, a, b in zip(size, self.low, self.high, strict=True))
        return x, y, z

    def slices(self, size: Triple) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The part of a volume of `size` voxels that is kept, and its place in the new one."""
        source, target = [], []
        for n, low, high in zip(size, self.low, self.high, strict=True):
            source.append(slice(max(-low, 0), n - max(-high, 0)))
            target.append(slice(max(low, 0), n + low + high - max(high, 0)))
        return tuple(source), tuple(target)

    def put(self, values: NDArray, fill: float | bool) -> NDArray:
        """The cut and padded volume (X', Y', Z', ...) of values (X, Y, Z, ...); new voxels are `fill`.

        A copy in Fortran order. O(voxels) time and memory.
        """
        x, y, z = values.shape[:3]
        source, target = self.slices((x, y, z))
        out = np.full((*self.size((x, y, z)), *values.shape[3:]), fill, values.dtype, order="F")
        out[target] = values[source]
        return out

    def back(self, values: NDArray, fill: float | bool = 0.0) -> NDArray:
        """Undo `put`: (X, Y, Z, ...) of values (X', Y', Z', ...); voxels that had been cut are `fill`."""
        undone = Box(*((-a, -b, -c) for a, b, c in (self.low, self.high)))
        return undone.put(values, fill)

    def affine(self, affine: NDArray[np.float64]) -> NDArray[np.float64]:
        """(4, 4) from the new voxel indices to mm, of the affine of the volume before."""
        moved = affine.copy()
        moved[:3, 3] -= affine[:3, :3] @ np.asarray(self.low, np.float64)
        return moved

    def note(self, size: Triple) -> str:
        """What is done to a volume of `size` voxels, in words; empty where nothing is."""
        if self.plain:
            return ""
        parts = [
            f"{name} {low:+d} and {high:+d}"
            for name, low, high in zip("XYZ", self.low, self.high, strict=True)
            if low or high
        ]
        before, after = ("x".join(map(str, one)) for one in (size, self.size(size)))
        return f"{before} voxels became {after}: added (+) or cut (-) before and behind: {', '.join(parts)}"


def centred(size: Triple, wanted: Triple) -> Box:
    """The box that makes `size` voxels the `wanted` ones about their centre; of an odd number the first side has more.

    This gives the released paddings of HCP (75 x 93 x 81 to 96: 11, 10, 2, 1, 8, 7) and UK Biobank (91 x 109 x 91:
    3, 2, -7, -6, 3, 2). ABCD's 79 and 85 agree too; its 97 lose the last voxel there, the first one here.

    Raises:
        InputError: a size below one voxel.

    Source: Transconnectome/SwiFT, datasets.py (padding), CUHK-AIM-Group/NeuroSTORM, pad_to_96.

    Example:
        >>> centred((75, 93, 81), (96, 96, 96))
        Box(low=(11, 2, 8), high=(10, 1, 7))
    """
    if len(wanted) != 3 or min(wanted) < 1:
        raise InputError("no such size", where="grid.size", found=wanted, expected="three numbers of voxels, 1 or more")
    low, high = [], []
    for n, m in zip(size, wanted, strict=True):
        change, sign = abs(m - n), 1 if m > n else -1
        low.append(sign * (change - change // 2))
        high.append(sign * (change // 2))
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
