"""MATLAB's bicubic against a plain loop over its definition, stored values, and degradations repeatable by seed."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.datasets.degradation import Degradation, imresize, modcrop, resize_weights
from pipelines.data.errors import InputError

RAMP = np.arange(64, dtype=np.float64).reshape(8, 8)
#: Rows of RAMP, reduced and enlarged by `_slow` and written down here.
RAMP_HALF = [
    [4.04296875, 6.08203125, 8.10546875, 10.14453125],
    [20.35546875, 22.39453125, 24.41796875, 26.45703125],
    [36.54296875, 38.58203125, 40.60546875, 42.64453125],
    [52.85546875, 54.89453125, 56.91796875, 58.95703125],
]
RAMP_QUARTER = [[12.3837890625, 16.6318359375], [46.3681640625, 50.6162109375]]


def _kernel(x: float) -> float:
    """Keys' cubic with a = -1/2, written as two polynomials."""
    a, x = -0.5, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _slow_axis(line: list[float], count: int, scale: float) -> list[float]:
    """One line, one output pixel at a time: centres at half-integers, borders mirrored, weights normalised."""
    wide, made = min(scale, 1.0), []
    for i in range(count):
        centre = (i + 0.5) / scale - 0.5
        total = weight_sum = 0.0
        for j in range(math.floor(centre - 2 / wide) - 2, math.ceil(centre + 2 / wide) + 3):
            weight = _kernel(wide * (centre - j))
            at = j % (2 * len(line))
            total += weight * line[at if at < len(line) else 2 * len(line) - 1 - at]
            weight_sum += weight
        made.append(total / weight_sum)
    return made


def _slow(plane: np.ndarray, sizes: tuple[int, int], scales: tuple[float, float]) -> np.ndarray:
    columns = np.array([_slow_axis(list(column), sizes[0], scales[0]) for column in plane.T]).T
    return np.array([_slow_axis(list(row), sizes[1], scales[1]) for row in columns])


def test_ramp_has_the_stored_values() -> None:
    np.testing.assert_allclose(imresize(RAMP, 1 / 2), RAMP_HALF, rtol=0, atol=1e-12)
    np.testing.assert_allclose(imresize(RAMP, 1 / 4), RAMP_QUARTER, rtol=0, atol=1e-12)
    np.testing.assert_allclose(_slow(RAMP, (4, 4), (0.5, 0.5)), RAMP_HALF, rtol=0, atol=1e-12)
    np.testing.assert_allclose(_slow(RAMP, (2, 2), (0.25, 0.25)), RAMP_QUARTER, rtol=0, atol=1e-12)
    # Other libraries' bicubic (a = -0.75, or renormalised borders) is far from these values.
    assert (
        np.abs(
            np.asarray(Image.fromarray(RAMP.astype(np.float32)).resize((4, 4), Image.Resampling.BICUBIC)) - RAMP_HALF
        ).max()
        > 0.05
    )


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    scale=st.sampled_from([1 / 2, 1 / 3, 1 / 4, 1 / 8, 0.7, 1.0, 1.1, 2.0, 3.0, 4.0]),
)
def test_any_size_and_scale_against_the_loop(height: int, width: int, scale: float) -> None:
    plane = np.random.default_rng(height * 31 + width).random((height, width))
    sizes = math.ceil(scale * height), math.ceil(scale * width)
    expected = _slow(plane, sizes, (scale, scale))
    got = imresize(plane, scale)
    assert got.shape == sizes
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(imresize(np.stack([plane, 1 - plane], 2), scale)[..., 0], expected, rtol=0, atol=1e-12)


def test_a_size_gives_each_axis_its_own_factor() -> None:
    plane = np.random.default_rng(3).random((9, 14))
    np.testing.assert_allclose(
        imresize(plane, size=(5, 21)), _slow(plane, (5, 21), (5 / 9, 21 / 14)), rtol=0, atol=1e-12
    )


def test_weights_sum_to_one_and_know_constants_and_lines() -> None:
    for scale in (1 / 4, 1 / 3, 1.0, 2.5):
        indices, weights = resize_weights(30, math.ceil(30 * scale), scale)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-15)
        assert indices.min() >= 0
        assert indices.max() <= 29
    np.testing.assert_array_equal(imresize(np.full((16, 16), 0.25), 1 / 4), np.full((4, 4), 0.25))
    # Away from the borders the cubic gives a line back exactly: the centre of 4 pixels lies at 4 i + 1.5.
    line = np.arange(64.0)[None, :].repeat(16, 0)
    np.testing.assert_allclose(imresize(line, 1 / 4)[2, 3:13], 4 * np.arange(3, 13) + 1.5, atol=1e-12)


def test_integers_are_clamped_and_rounded_half_up_once() -> None:
    checks = np.zeros((8, 8), np.uint8)
    checks[2:6, 2:6] = 255
    double = imresize(checks / 255, 2) * 255
    assert double.min() < -1
    assert double.max() > 256
    got = imresize(checks, 2)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.floor(np.clip(double, 0, 255) + 0.5))
    half = np.array([[0, 1], [0, 1]], np.uint8)  # the mean is one half, which goes up
    assert imresize(half, size=(1, 1)).tolist() == [[1]]
    wide = imresize((checks.astype(np.uint16) * 257), 1 / 2)
    assert wide.dtype == np.uint16
    assert np.abs(wide / 257.0 - imresize(checks.astype(np.float64), 1 / 2)).max() <= 0.5 / 257
    assert imresize(checks.astype(np.float32), 1 / 2).dtype == np.float32


def test_modcrop() -> None:
    image = np.arange(7 * 9).reshape(7, 9)
    np.testing.assert_array_equal(modcrop(image, 4), image[:4, :8])
    np.testing.assert_array_equal(modcrop(image, 1), image)
    with pytest.raises(InputError, match="smaller than the scale"):
        modcrop(image[:3], 4)


def _photo() -> np.ndarray:
    y, x = np.mgrid[:61, :50]
    return np.stack([128 + 100 * np.sin(x / 5), 2.0 * (x + y), 255 - 3.0 * y], 2).clip(0, 255).astype(np.uint8)


def test_plain_pairs_are_bicubic_of_the_cropped_image() -> None:
    large, small = Degradation(4)(_photo(), "a.png")
    np.testing.assert_array_equal(large, _photo()[:60, :48])
    np.testing.assert_array_equal(small, imresize(large, 1 / 4))
    large, small = Degradation(2)(_photo()[..., 0], "a.png")
    assert (large.shape, small.shape) == ((60, 50), (30, 25))


def test_noise_is_of_its_size_and_repeatable_by_seed_and_name() -> None:
    flat = np.full((400, 400), 128, np.uint8)
    noisy = Degradation(2, noise=10, seed=5)
    _, first = noisy(flat, "a.png")
    noisy(_photo(), "c.png")  # what comes between changes nothing
    np.testing.assert_array_equal(noisy(flat, "a.png")[1], first)
    assert (noisy(flat, "b.png")[1] != first).mean() > 0.5
    assert (Degradation(2, noise=10, seed=6)(flat, "a.png")[1] != first).mean() > 0.5
    assert abs(first.std() - 10) < 0.3
    _, deep = noisy(flat.astype(np.uint16) * 257, "a.png")
    assert abs(deep.std() / 257 - 10) < 0.3


def test_blur_comes_before_and_jpeg_last() -> None:
    from scipy.ndimage import correlate1d

    image = np.random.default_rng(8).integers(0, 256, (60, 48, 3), dtype=np.uint8)
    _, small = Degradation(2, blur=1.5)(image, "a.png")
    window = np.exp(-(np.arange(-6, 7) ** 2) / (2 * 1.5**2))
    blurred = correlate1d(correlate1d(image.astype(float), window / window.sum(), 0), window / window.sum(), 1)
    np.testing.assert_array_equal(small, np.floor(np.clip(imresize(blurred, 1 / 2), 0, 255) + 0.5))
    _, stored = Degradation(2, blur=1.5, jpeg=30)(image, "a.png")
    file = io.BytesIO()
    Image.fromarray(small).save(file, "JPEG", quality=30, subsampling="4:2:0")
    np.testing.assert_array_equal(stored, np.asarray(Image.open(file)))
    assert Degradation(2, jpeg=30)(image[..., :1], "a.png")[1].shape == (30, 24, 1)
    assert str(Degradation(3, blur=1.5, noise=2, jpeg=30)) == "blur 1.5 px, bicubic / 3, noise 2/255, JPEG 30, seed 0"


def test_refusals() -> None:
    for settings_, word in (
        ({"scale": 0}, "scale"),
        ({"noise": -1}, "noise"),
        ({"jpeg": 0}, "jpeg"),
        ({"blur": math.nan}, "blur"),
    ):
        with pytest.raises(InputError, match=word):
            Degradation(**{"scale": 2, **settings_})
    with pytest.raises(InputError, match=r"not an image's values. Found: int64"):
        imresize(np.zeros((4, 4), np.int64), 2)
    with pytest.raises(InputError, match="not an image's shape"):
        imresize(np.zeros((4, 0)), 2)
    with pytest.raises(InputError, match="scale or the size"):
        imresize(RAMP)
    with pytest.raises(InputError, match="above 0"):
        imresize(RAMP, -1.0)
    with pytest.raises(InputError, match="at least 1 x 1"):
        imresize(RAMP, size=(0, 4))
    with pytest.raises(InputError, match="JPEG holds 8-bit"):
        Degradation(2, jpeg=50)(np.zeros((8, 8), np.uint16), "a.png")
    with pytest.raises(InputError, match="stored pixels"):
        Degradation(2)(RAMP, "a.png")
