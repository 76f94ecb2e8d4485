"""What image files hold: pixels as stored, an alpha channel, and what goes with them into the next file."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from abc import ABC, abstractmethod

import numpy as np

from pipelines.data.errors import InputError

__all__ = ["MAX_PIXELS", "ArrayRows", "ImageMeta", "ImageRows", "Picture", "check_pixels", "damaged"]

#: Most pixels that are read without a word of the user's: 500 megapixels, 1.5 GB of 8-bit RGB.
MAX_PIXELS = 500_000_000


@dataclasses.dataclass(frozen=True)
class ImageMeta:
    """What goes with the pixels.

    Args:
        format: PNG, JPEG, WEBP, TIFF, BMP or GIF.
        icc: the colour profile's bytes.
        exif: a TIFF-structured block without the mark "Exif"; its orientation is already applied and reset to 1.
        dpi: pixels an inch along x and y.
        frames: pictures in the file.
        colour: PNG's other statements about colour (gAMA, cHRM, sRGB, cICP) as (name, bytes).
        notes: what was converted, turned or left out.
    """

    format: str = "PNG"
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    frames: int = 1
    colour: tuple[tuple[str, bytes], ...] = ()
    notes: tuple[str, ...] = ()

    def noted(self, *notes: str) -> ImageMeta:
        """The same with more notes.

        Example:
            >>> ImageMeta().noted("turned upright").notes
            ('turned upright',)
        """
        return dataclasses.replace(self, notes=(*self.notes, *notes))


@dataclasses.dataclass(frozen=True)
class Picture:
    """A whole image in memory.

    Args:
        pixels: (H, W, C) uint8 or uint16 as stored; C is 1 (grey) or 3 (RGB).
        alpha: (H, W) in the pixels' dtype, the maximum where opaque; None where the file has none.
        meta: what goes with them.

    Example:
        >>> picture = Picture(np.zeros((2, 3, 3), np.uint8))
        >>> picture.height, picture.width, picture.stored.shape
        (2, 3, (2, 3, 3))
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    meta: ImageMeta = dataclasses.field(default_factory=ImageMeta)

    @property
    def height(self) -> int:
        """Rows."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.pixels.shape[1]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted, turned or left out when it was read."""
        return self.meta.notes

    @property
    def stored(self) -> np.ndarray:
        """(H, W, C) with alpha, where there is one, as the last channel, as `ImageWriter` takes it."""
        return self.pixels if self.alpha is None else np.concatenate([self.pixels, self.alpha[..., None]], axis=2)


class ImageRows(ABC):
    """An open image that gives its rows piece by piece; each format has a subclass.

    Args:
        path: the file.
        height, width: pixels, as the file has them, that is before any turning.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        meta: what goes with the pixels.
        orientation: 1 .. 8 as EXIF counts; 1 is upright.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        height: int,
        width: int,
        channels: int,
        dtype: type[np.generic] | np.dtype,
        meta: ImageMeta,
        orientation: int = 1,
    ) -> None:
        self.path = pathlib.Path(path)
        self.height, self.width, self.channels = height, width, channels
        self.dtype = np.dtype(dtype)
        self.meta = meta
        self.orientation = orientation

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels in (2, 4)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as (rows, W, channels).

        Raises:
            InputError: a range outside the image, or a file that turns out to be damaged there.

        Complexity: O(rows W) where they follow the rows read last; otherwise a compressed file is read again from the
            nearest place that allows it.
        """
        if not 0 <= start < stop <= self.height:
            found, expected = f"[{start}, {stop})", f"a range within [0, {self.height})"
            raise InputError("no such rows", where=self.path.name, found=found, expected=expected)
        return self._rows(start, stop)

    @abstractmethod
    def _rows(self, start: int, stop: int) -> np.ndarray: ...

    def close(self) -> None:  # noqa: B027 - what was decoded as a whole has nothing to close
        """Close the file; nothing can be read after."""

    def __enter__(self) -> ImageRows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ArrayRows(ImageRows):
    """Rows of an image that had to be decoded as a whole.

    Example:
        >>> ArrayRows("a.png", np.arange(12, dtype=np.uint8).reshape(4, 3, 1), ImageMeta()).rows(1, 2).tolist()
        [[[3], [4], [5]]]
    """

    def __init__(self, path: str | os.PathLike[str], array: np.ndarray, meta: ImageMeta, orientation: int = 1) -> None:
        height, width, channels = array.shape
        super().__init__(path, height, width, channels, array.dtype, meta, orientation)
        self.array = array

    def _rows(self, start: int, stop: int) -> np.ndarray:
        return self.array[start:stop]


def check_pixels(path: pathlib.Path, height: int, width: int, limit: int) -> None:
    """Refuse an image without pixels or with more than the limit, before anything is allocated.

    Raises:
        InputError: one of these.

    Example:
        >>> check_pixels(pathlib.Path("a.png"), 20, 30, 500)
        Traceback (most recent call last):
        pipelines.data.errors.InputError: a.png: the image has more pixels than allowed. ...
    """
    if height < 1 or width < 1:
        raise InputError("the image has no pixels", where=path.name, found=f"{width} x {height}", expected="1 x 1")
    if height * width > limit:
        raise InputError(
            "the image has more pixels than allowed",
            where=path.name,
            found=f"{width:,} x {height:,} = {height * width / 1e6:,.0f} megapixels",
            expected=f"{limit / 1e6:,.0f} megapixels or fewer",
            cure="raise the limit of pixels if the file comes from a source you trust",
        )


def damaged(path: pathlib.Path, problem: str, found: object = None, expected: object = None) -> InputError:
    """The error of a file that is broken, which says where.

    Example:
        >>> print(damaged(pathlib.Path("a.png"), "the file ends too early"))
        a.png: the file ends too early. Cure: copy or export the file again.
    """
    return InputError(problem, where=path.name, found=found, expected=expected, cure="copy or export the file again")
