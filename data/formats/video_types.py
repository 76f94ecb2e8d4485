"""What films are made of: facts that a header tells, shots that a source gives one by one, limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "Pixels", "Shot", "VideoFacts", "VideoSource"]

#: Most pixels of a frame: twice 8K. What is larger is refused before memory is asked for.
MAX_PIXELS = 1 << 26

#: RGB (H, W, 3) uint8.
Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class VideoFacts:
    """What is known of a film without decoding more than its first frame.

    Attributes:
        height: rows, upright.
        width: columns, upright.
        fps: frames a second on average; None where nothing tells.
        seconds: how long it lasts by its header; None where nothing tells.
        frames: how many there are by the header; None where it does not say, or counts what is no frame.
        container: of the file ("MP4", "AVI", ..., "images" for a folder).
        codec: how the frames are coded.
        pixels: name of the pixel format.
        bits: of a colour.
        alpha: whether the pixel format has a transparency.
        grey: whether the pixel format has no colours.
        rotation: degrees counter-clockwise that the header asks for, already applied to height and width.
        aspect: width of a pixel over its height; 1.0 for square ones.
        sound: whether there is sound beside it, which is not read.

    Example:
        >>> VideoFacts(48, 64, 25.0, 2.0, 50, "MP4", "h264", "yuv420p").size
        (48, 64)
    """

    height: int
    width: int
    fps: float | None
    seconds: float | None
    frames: int | None
    container: str
    codec: str
    pixels: str
    bits: int = 8
    alpha: bool = False
    grey: bool = False
    rotation: int = 0
    aspect: float = 1.0
    sound: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), upright."""
        return self.height, self.width


@dataclasses.dataclass(frozen=True, eq=False)
class Shot:
    """One frame as a source gives it, its pixels not yet converted: what is left out costs no conversion.

    Attributes:
        stamp: s on the file's own clock; None where there is none.
        lasts: s that it stays on screen by the file; None where it does not say.
        size: (H, W), upright.
        load: makes its pixels, RGB (H, W, 3) uint8, upright.
    """

    stamp: float | None
    lasts: float | None
    size: tuple[int, int]
    load: Callable[[], Pixels]


class VideoSource(Protocol):
    """One pass over a film.

    Attributes:
        tick: s, how exact its time stamps are.
    """

    tick: float

    def shots(self) -> Iterator[Shot]:
        """Frames in order of display, one at a time in constant memory."""
        ...

    def remarks(self, seconds: float | None) -> list[str]:
        """What is to be said of the pass so far; `seconds`: how long it lasted, None unless it reached the end."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...
