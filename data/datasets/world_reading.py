"""What is told about episodes that are read; everything else is found in the data or asked for."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, get_args

from pipelines.data.errors import InputError

__all__ = ["LAYOUTS", "Colour", "Subset", "WorldReading"]

Colour = Literal["auto", "grey", "rgb"]
Subset = Literal["all", "train", "test"]
#: Orders of axes: episode N, time T, row H, column W, colour C.
LAYOUTS = ("THW", "THWC", "TCHW", "NTHW", "TNHW", "NTHWC", "NTCHW", "TNHWC", "TNCHW")
_MOST_SIDE = 16384


@dataclass(frozen=True)
class WorldReading:
    """How episodes are read; what is left out is told by the data, or asked for where it cannot be told.

    Raises:
        InputError: a value that means nothing.

    Example:
        >>> WorldReading(fps=5.0).size
        (64, 64)
    """

    size: tuple[int, int] | None = (64, 64)
    """Height and width that frames are brought to by averaging areas, px; None keeps theirs."""
    colour: Colour = "auto"
    """rgb or grey; auto = as it is stored."""
    fps: float | None = None
    """Frames a second. A film, or arrays that tell their rate, are read at this rate by time stamp; for arrays that
    tell none it is their rate."""
    key: str | None = None
    """Name of the array of frames, where a file has several."""
    layout: str | None = None
    """Order of the axes of an array of frames, such as THWC, TCHW or TNHW (N episodes, T time), where it cannot be
    told."""
    white: float | None = None
    """The number that is white, where frames are neither 0 to 255 nor 0 to 1."""
    actions: str | None = None
    """A CSV file of the actions of the one episode, or a folder of them, each called as its episode; by default the
    CSV file beside a film or array that has its name."""
    discrete: bool | None = None
    """Whether actions that are whole numbers are kinds (then one-hot) or amounts; by default one column of numbers
    from 0 to 63 is one of kinds."""
    subset: Subset = "all"
    """Of a data set that has a split of its own (UCF-101): train, test, or all."""
    split: int = 1
    """Number of that split (UCF-101 has 1, 2 and 3)."""
    cache: str | None = None
    """Folder that keeps films after they were read once; by default a temporary one."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.size is not None and not (
            len(self.size) == 2 and all(isinstance(side, int) and 1 <= side <= _MOST_SIDE for side in self.size)
        ):
            expected = f"height and width, 1 to {_MOST_SIDE:,} px"
            raise InputError("no such size of frames", where="size", found=self.size, expected=expected)
        for name, given, known in (
            ("colour", self.colour, get_args(Colour)),
            ("subset", self.subset, get_args(Subset)),
        ):
            if given not in known:
                raise InputError(f"no such {name}", where=name, found=repr(given), expected=", ".join(known))
        if self.layout is not None and self.layout not in LAYOUTS:
            raise InputError("no such order of axes", where="layout", found=self.layout, expected=", ".join(LAYOUTS))
        if self.fps is not None and not 0 < self.fps <= 1e5:
            raise InputError("no such frame rate", where="fps", found=self.fps, expected="more than 0 Hz")
        if self.white is not None and not (math.isfinite(self.white) and self.white > 0):
            raise InputError("no such number", where="white", found=self.white, expected="more than 0")
        if self.split < 1:
            raise InputError("no such split", where="split", found=self.split, expected="1 or more")
        for name in ("actions", "cache"):
            given = getattr(self, name)
            if given is not None and not os.fspath(given):
                raise InputError("an empty path", where=name, found="''", expected="a path")
