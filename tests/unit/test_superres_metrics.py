"""PSNR and SSIM of super-resolution against hand computation, scikit-image and the published figures of bicubic."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from pipelines.data.datasets.degradation import imresize, modcrop
from pipelines.errors import InputError
from pipelines.superres.metrics import Averages, luma, measure, psnr, ssim, to_8bit


def _pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, shape, dtype=np.uint8)
    return np.clip(truth + rng.normal(0, 20, shape), 0, 255).astype(np.uint8), truth


def test_to_8bit_clamps_and_rounds() -> None:
    assert to_8bit(np.array([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 7.0])).tolist() == [0, 0, 0, 1, 255, 255]
    assert to_8bit(np.array([0, 128, 129, 65535], np.uint16)).tolist() == [0, 0, 1, 255]
    with pytest.raises(InputError, match="1 NaN"):
        to_8bit(np.array([0.5, math.nan]))
    with pytest.raises(InputError, match="int64"):
        to_8bit(np.array([1]))


def test_luma_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(luma(colours)[0], [16, 235, 81.481, 144.553, 40.966], atol=1e-12)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_allclose(luma(grey), luma(np.stack([grey] * 3, 2)), atol=1e-12)
    np.testing.assert_allclose(luma(grey), 16 + 219 / 255 * grey, atol=1e-12)


def test_psnr_by_hand_with_the_border_cut() -> None:
    """One wrong pixel inside, and wrong ones in the border, which must not count."""
    truth = np.full((20, 22, 3), 100, np.uint8)
    restored = truth.copy()
    restored[:2] = 0
    restored[-2:] = 0
    restored[:, :2] = 0
    restored[:, -2:] = 0
    restored[5, 7] = [110, 95, 100]
    difference = (65.481 * 10 - 128.553 * 5) / 255
    error_y = difference**2 / (16 * 18)
    error_rgb = (10**2 + 5**2) / (16 * 18 * 3)
    figures = measure(restored, truth, 2)
    assert figures["psnr"] == pytest.approx(20 * math.log10(255 / math.sqrt(error_y)), abs=1e-9)
    assert figures["psnr_rgb"] == pytest.approx(20 * math.log10(255 / math.sqrt(error_rgb)), abs=1e-9)
    assert measure(restored, truth, 0)["psnr"] < 20
    assert measure(truth / 255.0 + 0.0015, truth, 2)["psnr"] == math.inf  # below half a grey level


@pytest.mark.parametrize("shape", [(40, 33), (24, 24, 3), (11, 11)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    restored, truth = _pair(shape)
    expected, full = structural_similarity(
        restored.astype(float),
        truth.astype(float),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2 if len(shape) == 3 else None,
        full=True,
    )
    assert ssim(restored, truth) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-10)
    assert ssim(restored, truth) == pytest.approx(expected, abs=1e-10)
    assert ssim(truth, truth) == 1


def test_ssim_by_its_equation_at_one_window() -> None:
    restored, truth = (image.astype(float) for image in _pair((11, 11), 4))
    line = [math.exp(-((i - 5) ** 2) / 4.5) for i in range(11)]
    weight = np.outer(line, line) / sum(line) ** 2
    mean_x, mean_y = (weight * restored).sum(), (weight * truth).sum()
    var_x = (weight * (restored - mean_x) ** 2).sum()
    var_y = (weight * (truth - mean_y) ** 2).sum()
    cov = (weight * (restored - mean_x) * (truth - mean_y)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    assert ssim(restored, truth) == pytest.approx(expected, abs=1e-12)


def test_averages_are_means_over_images_and_count_infinite_ones() -> None:
    averages = Averages()
    for value in (20.0, 30.0, math.inf):
        averages.add({"psnr": value, "ssim": 0.5})
    assert averages.result() == {"psnr": 25.0, "ssim": 0.5, "images": 3, "psnr_infinite": 1}
    only = Averages()
    only.add({"psnr": math.inf})
    assert only.result() == {"psnr": math.inf, "images": 1, "psnr_infinite": 1}
    with pytest.raises(InputError, match="other figures"):
        averages.add({"psnr": 1.0})
    with pytest.raises(InputError, match="no image"):
        Averages().result()


def test_refusals() -> None:
    restored, truth = _pair((30, 30, 3))
    with pytest.raises(InputError, match="one size"):
        measure(restored[:-1], truth, 2)
    with pytest.raises(InputError, match="11 x 11 pixels or more within the border"):
        measure(restored, truth, 10)
    with pytest.raises(InputError, match="too small for SSIM"):
        ssim(truth[:10], truth[:10])
    with pytest.raises(InputError, match="grey or RGB"):
        measure(np.zeros((30, 30, 4)), np.zeros((30, 30, 4)), 2)
    with pytest.raises(InputError, match="one size"):
        psnr(np.zeros(0), np.zeros(0))


#: Bicubic on Set14 in the literature (e.g. Kim et al. 2016, table 2): the set's one grey picture counts as its own Y.
PUBLISHED = {2: (30.24, 0.8688), 3: (27.55, 0.7742), 4: (26.00, 0.7027)}


@pytest.mark.parametrize("scale", PUBLISHED)
def test_bicubic_on_set14_gives_the_published_figures(benchmark: pathlib.Path, scale: int) -> None:
    averages, as_published = Averages(), Averages()
    for path in sorted((benchmark / "superres" / "benchmarks" / "CSet14").glob("*.png")):
        large = modcrop(np.asarray(Image.open(path)), scale)
        figures = measure(imresize(imresize(large, 1 / scale), scale), large, scale)
        averages.add(figures)
        grey = {"psnr": figures["psnr_rgb"], "ssim": figures["ssim_rgb"]}
        as_published.add(figures if large.ndim == 3 else {**figures, **grey})
    result, published = averages.result(), as_published.result()
    assert result["images"] == 14
    assert published["psnr"] == pytest.approx(PUBLISHED[scale][0], abs=0.015)
    assert published["ssim"] == pytest.approx(PUBLISHED[scale][1], abs=0.0006)
    # One grey picture of 14 on the range of 219 instead of 255 levels.
    assert result["psnr"] - published["psnr"] == pytest.approx(20 * math.log10(255 / 219) / 14, abs=1e-3)
