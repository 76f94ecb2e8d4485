"""Baselines of hyperspectral denoising and the noise estimate, against known noise and published figures."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from pipelines.data.datasets.noise import add_noise
from pipelines.data.formats.cube import read_cube
from pipelines.denoise.baselines import BASELINES, noise_rank, svd, svd_non_local_means
from pipelines.denoise.metrics import figures
from pipelines.denoise.noise_level import estimate_noise, measure_noise
from pipelines.errors import InputError


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A cube (31, 64, 64) of four materials with edges, texture and smooth spectra, in [0, 1]."""
    rng = np.random.default_rng(7)
    waves = np.linspace(0, 1, 31)
    spectra = np.stack([np.exp(-((waves - c) ** 2) / w) for c, w in ((0.2, 0.05), (0.5, 0.2), (0.8, 0.03), (0.6, 2))])
    y, x = np.mgrid[:64, :64]
    maps = np.stack([(x > 30), (y > 20) & (x < 40), (x + y) % 16 < 8, np.hypot(x - 32, y - 32) < 18]).astype(float)
    maps += 0.1 * rng.random(maps.shape)
    cube = np.tensordot(spectra.T, maps, 1)
    return cube / cube.max()


@pytest.fixture(scope="module")
def jasper(benchmark: pathlib.Path) -> np.ndarray:
    path = benchmark / "hyperspectral" / "Jasper.mat"
    if not path.is_file():
        pytest.skip("Jasper.mat is not in the benchmark folder")
    values = read_cube(path).block(slice(None), slice(None)).astype(float)
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("case", ["gaussian5", "gaussian30", "gaussian50", "gaussian70", "noniid", "stripe"])
def test_known_noise_is_found_within_ten_percent(scene: np.ndarray, case: str) -> None:
    noisy, record = add_noise(scene, case, 0)
    ratio = estimate_noise(noisy) / record.sigmas
    assert np.abs(ratio - 1).max() < 0.12  # one band: the median's own scatter is 3 % here
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.1
    assert abs(np.median(ratio) - 1) < 0.03


@pytest.mark.parametrize("sigma", [5, 50])
def test_texture_is_no_noise(sigma: float) -> None:
    """White texture that all bands share is seen as noise by a spatial mask alone, and not by the regression."""
    rng = np.random.default_rng(0)
    clean = np.outer(np.linspace(0.5, 1, 31), rng.random(64 * 64)).reshape(31, 64, 64)
    noisy, record = add_noise(clean, f"gaussian{sigma}", 1)
    assert np.abs(estimate_noise(noisy) / record.sigmas - 1).max() < 0.12
    assert (estimate_noise(noisy, neighbours=0) / record.sigmas).min() > 1.2


def test_noise_of_jasper(jasper: np.ndarray) -> None:
    own = estimate_noise(jasper)  # what the recording brought along
    noisy, record = add_noise(jasper, "noniid", 0)
    ratio = estimate_noise(noisy) / np.hypot(record.sigmas, own)
    assert np.abs(ratio - 1).max() < 0.1


def test_big_cubes_are_sampled(scene: np.ndarray) -> None:
    wide = np.tile(scene[:5], (1, 5, 5))
    noisy, record = add_noise(wide, "noniid", 0)
    assert noisy[0].size > 1 << 16
    assert np.abs(estimate_noise(noisy) / record.sigmas - 1).max() < 0.1


def test_gaps_small_cubes_and_odd_bands(scene: np.ndarray) -> None:
    noisy, record = add_noise(scene, "gaussian50", 0)
    holes = noisy.copy()
    holes[:, 10:20, 10:20], holes[3] = np.nan, np.nan
    levels = estimate_noise(holes)
    assert np.isnan(levels[3])
    assert np.abs(np.delete(levels, 3) / record.sigmas[0] - 1).max() < 0.15
    assert np.isfinite(estimate_noise(noisy[:, :2, :2])).all()
    assert (estimate_noise(np.ones((4, 9, 9))) < 1e-12).all()
    assert estimate_noise(noisy[:2]).shape == (2,)
    for bad in (noisy[0], np.zeros((0, 4, 4))):
        with pytest.raises(InputError, match="three axes"):
            estimate_noise(bad)
    with pytest.raises(InputError, match="not a way"):
        estimate_noise(noisy, spacing=0)


def test_correlated_noise_is_noticed_and_measured_apart() -> None:
    rng = np.random.default_rng(0)
    white = rng.standard_normal((31, 65, 65))
    shared = (white[:, 1:, 1:] + white[:, :-1, 1:] + white[:, 1:, :-1] + white[:, :-1, :-1]) / 2  # level 1, reach 1
    found = measure_noise(shared)
    assert found.correlation > 1.5
    assert "correlated" in found.notes[0]
    assert np.median(found.sigmas) == pytest.approx(1, abs=0.05)
    assert np.median(estimate_noise(shared)) < 0.7
    plain = measure_noise(white)
    assert plain.notes == ()
    assert plain.correlation == pytest.approx(1, abs=0.03)


def test_noise_of_muse_is_that_of_its_variance(benchmark: pathlib.Path) -> None:
    path = benchmark.parent / "embeddable" / "hyperspectral" / "mpdaf_subcub_mosaic.fits"
    if not path.is_file():
        pytest.skip("the MUSE cube is not in the data folder")
    cube = read_cube(path)
    found = measure_noise(cube.block(slice(None), slice(None)))
    assert cube.variance is not None
    ratio = np.array(found.sigmas) / np.sqrt(np.median(cube.variance, (1, 2)))
    assert found.correlation > 1.2
    assert np.median(ratio) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", BASELINES)
def test_each_takes_noise_away(scene: np.ndarray, name: str) -> None:
    noisy, record = add_noise(scene, "noniid", 0)
    estimate = BASELINES[name](noisy, np.array(record.sigmas))
    assert estimate.shape == scene.shape
    assert estimate.dtype == np.float32
    before, after = figures(scene, noisy), figures(scene, estimate)
    assert after["psnr"] > before["psnr"] + 3
    assert after["sam"] < before["sam"]


def test_rank_of_known_scenes(scene: np.ndarray) -> None:
    noisy, record = add_noise(scene, "gaussian5", 0)
    sigma = np.array(record.sigmas)
    assert noise_rank(noisy, sigma) == 4
    assert noise_rank(noisy, sigma, "threshold") == 4
    pure = np.random.default_rng(0).standard_normal((31, 64, 64))
    assert noise_rank(pure, np.array(1.0)) == 1


def test_truncated_svd_is_the_best_approximation(scene: np.ndarray) -> None:
    noisy, _ = add_noise(scene, "gaussian50", 0)
    left, values, right = np.linalg.svd(noisy.reshape(31, -1).astype(float), full_matrices=False)
    oracle = ((left[:, :3] * values[:3]) @ right[:3]).reshape(noisy.shape)
    assert np.abs(svd(noisy, np.array(50 / 255), rank=3) - oracle).max() < 1e-5


def test_bands_are_weighed_by_their_noise(scene: np.ndarray) -> None:
    sigma = np.where(np.arange(31) % 3 == 0, 0.5, 0.02)
    noisy = scene + np.random.default_rng(0).standard_normal(scene.shape) * sigma[:, None, None]
    weighed, plain = svd(noisy, sigma, rank=4), svd(noisy, np.array(0.2), rank=4)
    assert figures(scene, weighed)["psnr"] > figures(scene, plain)["psnr"] + 3


def test_exact_bands_and_bad_calls(scene: np.ndarray) -> None:
    sigma = np.zeros(31)
    for function in BASELINES.values():
        assert np.isfinite(function(scene[:, :16, :16], sigma)).all()
    with pytest.raises(InputError, match="not a noise level"):
        svd(scene, np.ones(5))
    with pytest.raises(InputError, match="not a noise level"):
        svd(scene, -np.ones(31))
    with pytest.raises(InputError, match=r"not a rank.*1 to 31"):
        svd(scene, np.array(0.1), rank=32)
    broken = scene.copy()
    broken[0, 0, 0] = np.inf
    with pytest.raises(InputError, match=r"not finite.*fill"):
        svd(broken, np.array(0.1))
    with pytest.raises(InputError, match="not a cube"):
        svd(scene[0], np.array(0.1))


def test_figures_of_jasper(jasper: np.ndarray) -> None:
    """The lines of the data folder: 14.15 dB noisy, 31.46 dB for rank 3, about 34.5 dB with non-local means."""
    noisy, _ = add_noise(jasper, "gaussian50", 0)
    sigma = estimate_noise(noisy)
    assert figures(jasper, noisy)["psnr"] == pytest.approx(14.15, abs=0.02)
    assert figures(jasper, svd(noisy, sigma, rank=3))["psnr"] == pytest.approx(31.46, abs=0.15)
    assert figures(jasper, svd_non_local_means(noisy, sigma))["psnr"] == pytest.approx(34.5, abs=0.3)
