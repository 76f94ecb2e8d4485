"""Pictures of an environment as frames of a wanted size and colour, each pixel the mean of the area that it covers."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.errors import InputError

__all__ = ["COLOURS", "Colour", "area_average", "as_picture", "frame_of"]

Colour = Literal["rgb", "grey"]
#: Colours of a frame and their channels.
COLOURS: dict[str, int] = {"rgb": 3, "grey": 1}
#: Shares of red, green and blue in grey: ITU-R BT.601.
_LUMA = np.array([0.299, 0.587, 0.114])


@functools.lru_cache(maxsize=16)
def _shares(length: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which rows each of `count` equal stretches of `length` rows touches, and how much of it they are, both (k, n)."""
    edges = np.arange(count + 1) * (length / count)
    first = np.floor(edges[:-1]).astype(np.int64)
    rows = first + np.arange(math.ceil(length / count) + 1)[:, None]
    inside = np.minimum(rows + 1, edges[1:]) - np.maximum(rows, edges[:-1])
    return np.minimum(rows, length - 1), np.clip(inside, 0.0, None) * (count / length)


def _mean_along(values: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Means over `count` equal stretches of the first axis, (n, ...) -> (count, ...); a cut row counts by its share."""
    out = np.zeros((count, *values.shape[1:]))
    for rows, shares in zip(*_shares(len(values), count), strict=True):
        out += shares.reshape(-1, *[1] * (values.ndim - 1)) * values[rows]
    return out


def area_average(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float64]:
    """Resize a picture (H, W, C) to (h, w, C): each pixel is the mean of the area that it covers, borders by share.

    Args:
        picture: uint8.
        size: h and w; where they exceed H and W, pixels are repeated.

    Returns:
        Values 0 to 255, not rounded; the mean of the picture is kept.

    Complexity: O(H W C); 500 x 500 x 3 to 64 x 64 takes 2 ms on one core.

    Example:
        >>> area_average(np.array([[[0], [3], [9]]], np.uint8), (1, 2)).ravel().tolist()
        [1.0, 7.0]
    """
    height, width = size
    rows = picture.astype(np.float64) if picture.shape[0] == height else _mean_along(picture, height)
    if picture.shape[1] == width:
        return rows
    columns = np.ascontiguousarray(np.swapaxes(rows, 0, 1))
    return np.swapaxes(_mean_along(columns, width), 0, 1)


def frame_of(picture: NDArray[np.uint8], size: tuple[int, int] | None, colour: Colour) -> NDArray[np.uint8]:
    """A picture (H, W, 1 or 3) as a frame (h, w, 1 or 3): averaged by area, then turned to the colour, rounded once.

    Grey is the luma of ITU-R BT.601; a grey picture has its channel three times as RGB.

    Complexity: O(H W C).

    Example:
        >>> frame_of(np.full((4, 6, 3), 10, np.uint8), (2, 2), "grey").tolist()
        [[[10], [10]], [[10], [10]]]
    """
    if size is None or size == picture.shape[:2]:
        if picture.shape[2] == COLOURS[colour]:
            return np.array(picture)
        values = picture.astype(np.float64)
    else:
        values = area_average(picture, size)
    if colour == "grey" and values.shape[2] == 3:
        values = values @ _LUMA[:, None]
    elif colour == "rgb" and values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def as_picture(given: ArrayLike, where: str, scaled: bool = False) -> NDArray[np.uint8]:
    """What an environment shows as a picture (H, W, 1 or 3) uint8.

    Args:
        given: (H, W), (H, W, C) or (C, H, W) with C = 1 or 3; of four channels the last one, opacity, is left out.
        where: what messages name.
        scaled: the values are floats of 0 to 1 and become 0 to 255.

    Raises:
        InputError: another shape, no pixels, numbers that are no bytes.

    Example:
        >>> as_picture(np.zeros((3, 8, 9), np.uint8), "Game-v1").shape
        (8, 9, 3)
    """
    values: NDArray[Any] = np.asarray(given)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (1, 3):
        values = np.moveaxis(values, 0, 2)
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or not values.size:
        expected = "an image of height, width and 1 or 3 channels"
        raise InputError("the environment shows no picture", where=where, found=values.shape, expected=expected)
    values = values[..., :3]
    if scaled and values.dtype != np.uint8:
        values = values.astype(np.float64) * 255
    if values.dtype != np.uint8:
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise InputError("a picture that is not made of bytes", where=where, found=values.dtype, expected="uint8")
        values = np.floor(values + 0.5).astype(np.uint8)
    return np.ascontiguousarray(values)
