"""Pixels of a frame: turned upright, put on black where transparent, shrunk by the mean of areas."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from pipelines.data.formats.video_types import Pixels

__all__ = ["Turn", "grey", "on_black", "resized", "turn_of", "turned"]

#: (transpose, flip rows, flip columns) that bring a stored frame upright, in this order.
Turn = tuple[bool, bool, bool]
_ONE = 65536


def turn_of(matrix: bytes) -> tuple[Turn, int, bool] | None:
    """How a display matrix turns a frame, by multiples of 90 degrees.

    Args:
        matrix: nine 32-bit numbers of this machine's order; fractions in 16.16, as ISO/IEC 14496-12, 8.5.2 has them.

    Returns:
        The turn, degrees counter-clockwise in [0, 360), and whether it mirrors; None for an angle between.

    Complexity: O(1).

    Example:
        >>> turn_of(struct.pack("=9i", 0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30))
        ((True, True, False), 90, False)
    """
    if len(matrix) < 20:
        return None
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    parts = [round(value / _ONE) for value in (a, b, c, d)]
    if any(abs(value - part * _ONE) > _ONE // 100 for value, part in zip((a, b, c, d), parts, strict=True)):
        return None
    # x' = a x + c y, y' = b x + d y, y downwards
    known = {
        (1, 0, 0, 1): ((False, False, False), 0, False),
        (-1, 0, 0, -1): ((False, True, True), 180, False),
        (0, -1, 1, 0): ((True, True, False), 90, False),
        (0, 1, -1, 0): ((True, False, True), 270, False),
        (-1, 0, 0, 1): ((False, False, True), 0, True),
        (1, 0, 0, -1): ((False, True, False), 180, True),
        (0, 1, 1, 0): ((True, False, False), 270, True),
        (0, -1, -1, 0): ((True, True, True), 90, True),
    }
    return known.get((parts[0], parts[1], parts[2], parts[3]))


def turned(pixels: Pixels, turn: Turn) -> Pixels:
    """Apply a turn; a view. O(1).

    Example:
        >>> turned(np.arange(6, dtype=np.uint8).reshape(2, 3, 1), (True, True, False))[..., 0].tolist()
        [[2, 5], [1, 4], [0, 3]]
    """
    transpose, rows, columns = turn
    pixels = pixels.transpose(1, 0, 2) if transpose else pixels
    pixels = pixels[::-1] if rows else pixels
    return pixels[:, ::-1] if columns else pixels


def on_black(rgba: NDArray[np.uint8]) -> tuple[Pixels, bool]:
    """Transparent pixels (H, W, 4) put on black, (H, W, 3), and whether any was transparent. O(H W).

    Example:
        >>> on_black(np.array([[[200, 100, 50, 51]]], np.uint8))
        (array([[[40, 20, 10]]], dtype=uint8), True)
    """
    alpha = rgba[..., 3]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3]), False
    product = rgba[..., :3].astype(np.uint16) * alpha[..., None]
    return ((product + 127) // 255).astype(np.uint8), True


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Bring a frame to another size: an axis that shrinks by the mean of areas, one that grows linearly.

    Args:
        pixels: (H, W, 3) or (H, W) uint8.
        size: (height, width) to come.

    Returns:
        (height, width, 3) or (height, width) uint8. The mean of areas is a box filter as wide as the step, so nothing
        finer than the new grid is left to alias.

    Complexity: O(H W).

    Example:
        >>> resized(np.array([[0, 10, 100, 110]], np.uint8), (1, 2)).tolist()
        [[5, 105]]
    """
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels)
    shrunk = (min(width, size[1]), min(height, size[0]))
    if shrunk != image.size:
        image = image.resize(shrunk, Image.Resampling.BOX)
    if image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def grey(pixels: Pixels) -> NDArray[np.uint8]:
    """Brightness (H, W) of RGB (H, W, 3): 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded. O(H W).

    Example:
        >>> grey(np.array([[[255, 0, 0], [9, 9, 9]]], np.uint8)).tolist()
        [[76, 9]]
    """
    weighted = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(weighted).astype(np.uint8)
