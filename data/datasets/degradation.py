"""Low-resolution images from high-resolution ones: MATLAB's bicubic reduction, blur, noise, JPEG, each repeatable."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
from typing import Any

import numpy as np

from pipelines.data.errors import InputError

__all__ = ["Degradation", "cubic_kernel", "imresize", "modcrop", "resize_weights"]

_WIDTH = 4.0  # support of the cubic kernel in input pixels
_GIVEN = (np.uint8, np.uint16, np.float32, np.float64)


def imresize(
    image: np.ndarray,
    scale: float | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Resize an image as MATLAB's `imresize(image, scale, "bicubic")` does, anti-aliased when it gets smaller.

    Args:
        image: (H, W) or (H, W, C), uint8, uint16, float32 or float64.
        scale: factor of both sides, e.g. 1 / 4; the result has ceil(scale H) rows and ceil(scale W) columns.
        size: rows and columns of the result instead; each axis then has its own factor.

    Returns:
        The resized image in the input's dtype. Integers go the benchmarks' way: to double in [0, 1] first (im2double),
        clamped and rounded half up once at the end (imwrite). Floats are neither clamped nor rounded.

    Raises:
        InputError: another dtype or shape, no pixels, neither or both of `scale` and `size`, or a size below 1.

    Complexity: O(H W C (4 / scale)) in double precision, with one double array of the result of each axis.

    Source: Keys 1981, the cubic with a = -1/2; conventions of MATLAB's imresize (kernel widened by 1 / scale when
        reducing, weights normalised, symmetric borders, the axis with the smaller factor first).

    Example:
        >>> ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
        >>> imresize(ramp, 1 / 4).tolist()
        [[12, 17], [46, 51]]
        >>> imresize(ramp, size=(3, 16)).shape
        (3, 16)
    """
    _check_image(image)
    sizes, scales = _targets(image.shape, scale, size)
    result = _as_double(image)
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):  # ties: rows first, as a stable sort has it
        result = _resize_axis(result, axis, *resize_weights(image.shape[axis], sizes[axis], scales[axis]))
    return _as_stored(result, image.dtype)


def resize_weights(length: int, new_length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Which input pixels make each output pixel of one axis, and with what weights.

    Args:
        length: input pixels.
        new_length: output pixels.
        scale: factor of the axis; below 1 the kernel is widened by 1 / scale.

    Returns:
        Indices (new_length, K) into the input, mirrored at the borders, and weights (new_length, K) that sum to 1.

    Complexity: O(new_length K), K = 4 max(1, 1 / scale) + 2 at most.

    Source: Keys 1981, eq. 15; borders as MATLAB's "symmetric" padding (the border pixel stands twice).

    Example:
        >>> indices, weights = resize_weights(4, 2, 1 / 2)
        >>> indices[0].tolist(), weights[0].round(4).tolist()
        ([2, 1, 0, 0, 1, 2, 3, 3], [-0.0117, -0.0352, 0.1133, 0.4336, 0.4336, 0.1133, -0.0352, -0.0117])
    """
    shrink = min(scale, 1.0)
    width = _WIDTH / shrink
    # Pixel centres, counted from 1: output pixel x lies at u in the input.
    centre = np.arange(1, new_length + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(centre - width / 2)
    positions = first[:, None] + np.arange(math.ceil(width) + 2)
    weights = shrink * cubic_kernel(shrink * (centre[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    indices = mirrored[np.mod(positions.astype(np.int64) - 1, 2 * length)]
    used = weights.any(axis=0)
    return indices[:, used], weights[:, used]


def cubic_kernel(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel with a = -1/2 at the distances x, in pixels; 0 beyond 2.

    Complexity: O(x.size).

    Source: Keys 1981, eq. 15.

    Example:
        >>> cubic_kernel(np.array([0.0, 0.5, -1.0, 1.5, 2.0])).tolist()
        [1.0, 0.5625, 0.0, -0.0625, 0.0]
    """
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def modcrop(image: np.ndarray, scale: int) -> np.ndarray:
    """The image without the last rows and columns that are no multiple of the scale, as benchmarks cut before reducing.

    Args:
        image: (H, W) or (H, W, C).
        scale: the factor, at least 1.

    Returns:
        A view with H - H mod scale rows and W - W mod scale columns.

    Raises:
        InputError: a scale below 1, or an image smaller than the scale.

    Complexity: O(1).

    Example:
        >>> modcrop(np.zeros((9, 14, 3)), 4).shape
        (8, 12, 3)
    """
    if scale < 1:
        raise InputError("a scale must be a whole number of at least 1", where="scale", found=scale)
    height, width = (side - side % scale for side in image.shape[:2])
    if not height or not width:
        found = f"{image.shape[0]} x {image.shape[1]}"
        raise InputError("the image is smaller than the scale", where="image", found=found, expected=f"{scale} or more")
    return image[:height, :width]


@dataclasses.dataclass(frozen=True)
class Degradation:
    """How a low-resolution image is made from a high-resolution one: blur, bicubic reduction, noise, rounding, JPEG.

    Args:
        scale: the factor, a whole number of at least 1.
        blur: standard deviation of a Gaussian blur before the reduction, in pixels of the large image (borders
            mirrored, cut at 4 deviations); 0 leaves it out.
        noise: standard deviation of Gaussian noise after the reduction, on the scale of 0 .. 255; 0 leaves it out.
        jpeg: quality 1 .. 100 of a JPEG file (4:2:0) through which the small image goes last; None leaves it out.
        seed: together with the image's name it decides the noise, whatever the order of the images.

    Raises:
        InputError: a value outside its range.

    Source: blur and noise as in Zhang et al. 2018 (SRMD), eq. 1; the plain case is the benchmarks' bicubic.

    Example:
        >>> degradation = Degradation(scale=2, blur=0.8, noise=5, seed=1)
        >>> large, small = degradation(np.full((9, 8, 3), 100, np.uint8), "a.png")
        >>> large.shape, small.shape, bool((small == degradation(large, "a.png")[1]).all())
        ((8, 8, 3), (4, 4, 3), True)
        >>> str(degradation)
        'blur 0.8 px, bicubic / 2, noise 5/255, seed 1'
    """

    scale: int
    blur: float = 0.0
    noise: float = 0.0
    jpeg: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = (
            ("scale", self.scale, self.scale == int(self.scale) and self.scale >= 1, "a whole number of at least 1"),
            ("blur", self.blur, 0 <= self.blur <= 100, "0 .. 100 pixels"),
            ("noise", self.noise, 0 <= self.noise <= 255, "0 .. 255"),
            ("jpeg", self.jpeg, self.jpeg is None or 1 <= self.jpeg <= 100, "a quality of 1 .. 100, or nothing"),
            ("seed", self.seed, self.seed >= 0, "a whole number of at least 0"),
        )
        for name, found, holds, expected in allowed:
            if not holds:
                raise InputError("a degradation cannot have this value", where=name, found=found, expected=expected)

    def __call__(self, image: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The pair (HR cut to a multiple of the scale, LR) of one image.

        Args:
            image: (H, W) or (H, W, C), uint8 or uint16.
            name: the image's file name; another name draws other noise.

        Returns:
            HR, a view of the image, and LR in its dtype with both sides divided by the scale.

        Raises:
            InputError: another dtype or shape, an image smaller than the scale, or JPEG of 16-bit values.

        Complexity: O(H W C) time, three double arrays of the image.
        """
        if image.dtype not in (np.uint8, np.uint16):
            raise InputError("pairs are made of stored pixels", where=name, found=image.dtype, expected="uint8, uint16")
        large = modcrop(image, self.scale)
        pixels = _as_double(large)
        if self.blur:
            pixels = _blurred(pixels, self.blur)
        pixels = imresize(pixels, 1 / self.scale)
        if self.noise:
            pixels = pixels + self._generator(name).normal(0.0, self.noise / 255, pixels.shape)
        small = _as_stored(pixels, image.dtype)
        return large, small if self.jpeg is None else _through_jpeg(small, self.jpeg, name)

    def _generator(self, name: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "big"))

    def __str__(self) -> str:
        steps = [f"blur {self.blur:g} px"] if self.blur else []
        steps.append(f"bicubic / {self.scale}")
        steps += [f"noise {self.noise:g}/255"] if self.noise else []
        steps += [f"JPEG {self.jpeg}"] if self.jpeg is not None else []
        steps += [f"seed {self.seed}"] if self.noise else []
        return ", ".join(steps)


def _check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray) or image.dtype not in _GIVEN:
        found = getattr(image, "dtype", type(image).__name__)
        raise InputError("not an image's values", where="image", found=found, expected="uint8, uint16 or float")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise InputError("not an image's shape", where="image", found=image.shape, expected="(H, W) or (H, W, C)")


def _targets(
    shape: tuple[int, ...], scale: float | None, size: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Output sizes and factors of rows and columns."""
    if (scale is None) == (size is None):
        raise InputError("give the scale or the size, not both", where="imresize", found=f"{scale}, {size}")
    if scale is not None:
        if not (math.isfinite(scale) and scale > 0):
            raise InputError("a scale must be above 0", where="scale", found=scale)
        return (math.ceil(scale * shape[0]), math.ceil(scale * shape[1])), (scale, scale)
    rows, columns = size or (0, 0)
    if min(rows, columns) < 1:
        raise InputError("a size must be at least 1 x 1", where="size", found=size)
    return (rows, columns), (rows / shape[0], columns / shape[1])


def _resize_axis(image: np.ndarray, axis: int, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted sums along one axis, one tap of all outputs at a time, from the first tap to the last."""
    shape = [1] * image.ndim
    shape[axis] = len(indices)
    result = np.zeros((*image.shape[:axis], len(indices), *image.shape[axis + 1 :]))
    for tap in range(indices.shape[1]):
        result += weights[:, tap].reshape(shape) * np.take(image, indices[:, tap], axis=axis)
    return result


def _as_double(image: np.ndarray) -> np.ndarray:
    """Stored integers as double in [0, 1], floats as double."""
    if not np.issubdtype(image.dtype, np.integer):
        return image.astype(np.float64)
    return image / float(np.iinfo(image.dtype).max)


def _as_stored(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The way back from `_as_double`: integers clamped and rounded half up, as MATLAB rounds what is not negative."""
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype, copy=False)
    values = np.clip(values, 0, 1) * float(np.iinfo(dtype).max)
    whole = np.floor(values)
    whole += values - whole >= 0.5  # adding 0.5 first would round the double just below 0.5 up as well
    return whole.astype(dtype)


def _blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    deviations = (sigma, sigma, 0.0)[: pixels.ndim]
    return gaussian_filter(pixels, deviations, mode="reflect", truncate=4.0)


def _through_jpeg(small: np.ndarray, quality: int, name: str) -> np.ndarray:
    from PIL import Image

    grey = small.ndim == 2 or small.shape[2] == 1
    if small.dtype != np.uint8 or not (grey or small.shape[2] == 3):
        found = f"{small.dtype} {small.shape}"
        raise InputError("JPEG holds 8-bit grey or RGB", where=name, found=found, cure="leave jpeg out")
    file = io.BytesIO()
    picture = Image.fromarray(small.reshape(small.shape[:2]) if grey else small)
    picture.save(file, "JPEG", quality=quality, subsampling=2)
    with Image.open(file) as stored:
        return np.asarray(stored).reshape(small.shape).copy()
