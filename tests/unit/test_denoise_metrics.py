"""Figures of hyperspectral denoising against oracles written out from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.denoise.metrics import chi_square, ergas, figures, psnr_bands, spectral_angle, ssim_bands
from pipelines.errors import InputError


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.random((5, 13, 11)) * np.linspace(0.2, 1, 5)[:, None, None]
    return clean, clean + rng.normal(0, 0.05, clean.shape) * np.arange(1, 6)[:, None, None]


def test_psnr_is_a_mean_of_decibels_over_bands(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, estimate = pair
    oracle = [10 * math.log10(1 / np.mean((c - e) ** 2)) for c, e in zip(clean, estimate, strict=True)]
    assert psnr_bands(clean, estimate) == pytest.approx(oracle, rel=1e-12)
    assert figures(clean, estimate)["psnr"] == pytest.approx(np.mean(oracle), rel=1e-12)
    assert psnr_bands(clean, estimate, data_range=2.0) == pytest.approx(np.add(oracle, 20 * math.log10(2)))


def ssim_oracle(clean: np.ndarray, estimate: np.ndarray, data_range: float) -> float:
    """Windows of 7 x 7 taken one by one, sample covariances."""
    c1, c2, total = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2, []
    for row in range(clean.shape[0] - 6):
        for column in range(clean.shape[1] - 6):
            a = clean[row : row + 7, column : column + 7].ravel()
            b = estimate[row : row + 7, column : column + 7].ravel()
            (va, ab), (_, vb) = np.cov(a, b)
            ma, mb = a.mean(), b.mean()
            total.append((2 * ma * mb + c1) * (2 * ab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(total))


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim(pair: tuple[np.ndarray, np.ndarray], data_range: float) -> None:
    clean, estimate = pair
    oracle = [ssim_oracle(c, e, data_range) for c, e in zip(clean, estimate, strict=True)]
    assert ssim_bands(clean, estimate, data_range=data_range) == pytest.approx(oracle, rel=1e-9)
    found = figures(clean, estimate, legacy_ssim=data_range == 2)["ssim"]
    assert found == pytest.approx(np.mean(oracle), rel=1e-9)


def test_the_old_range_gives_higher_values(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert figures(*pair, legacy_ssim=True)["ssim"] > figures(*pair)["ssim"] + 0.01


def test_spectral_angle(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, estimate = pair
    angles = []
    for row in range(clean.shape[1]):
        for column in range(clean.shape[2]):
            a, b = clean[:, row, column], estimate[:, row, column]
            cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8)
            angles.append(math.acos(min(1.0, max(-1.0, cosine))))
    assert spectral_angle(clean, estimate) == pytest.approx(np.mean(angles), rel=1e-12)
    assert spectral_angle(clean, 3 * clean) < 1e-3  # brightness does not count
    assert spectral_angle(clean, -clean) == pytest.approx(math.pi, abs=1e-3)
    assert spectral_angle(clean, 0 * clean) == pytest.approx(math.pi / 2)


def test_ergas(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, estimate = pair
    terms = [np.mean((c - e) ** 2) / np.mean(c) ** 2 for c, e in zip(clean, estimate, strict=True)]
    assert ergas(clean, estimate) == pytest.approx(100 * math.sqrt(np.mean(terms)), rel=1e-12)
    dark = clean.copy()
    dark[0] = 0
    assert ergas(dark, estimate) == pytest.approx(100 * math.sqrt(np.mean(terms[1:])), rel=1e-12)
    assert math.isnan(ergas(0 * clean, estimate))


def test_exact_estimates() -> None:
    cube = np.random.default_rng(1).random((3, 8, 8))
    found = figures(cube, cube)
    assert found["psnr"] == math.inf
    assert found["ssim"] == pytest.approx(1)
    assert found["ergas"] == 0
    assert found["sam"] < 1e-3


def test_stored_types_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    clean, estimate = rng.integers(0, 255, (2, 3, 9, 9), np.uint8)
    wide = figures(clean.astype(float), estimate.astype(float), data_range=255)
    assert figures(clean, estimate, data_range=255) == wide  # type: ignore[arg-type]


def test_chi_square_tells_too_little_and_too_much() -> None:
    rng = np.random.default_rng(3)
    clean = np.linspace(0, 5, 8 * 50 * 50).reshape(8, 50, 50)
    variance = rng.uniform(0.5, 4, clean.shape)
    noisy = clean + rng.normal(size=clean.shape) * np.sqrt(variance)
    right = chi_square(noisy, clean, variance)
    assert right.value == pytest.approx(1, abs=5 * math.sqrt(2 / clean.size))
    assert np.allclose(right.bands, 1, atol=5 * math.sqrt(2 / 2500))
    assert chi_square(noisy, noisy, variance).value == 0
    assert chi_square(noisy, clean + 2, variance).value > 2
    assert (right.used, right.left_out) == (clean.size, 0)


def test_chi_square_leaves_out_what_is_unknown() -> None:
    noisy, variance = np.ones((2, 4, 4)), np.full((2, 4, 4), 0.25)
    noisy[0, 0, 0], variance[0, 1, 1], variance[1, 2, 2], variance[0, 2, 2] = np.nan, 0, np.inf, -1
    found = chi_square(noisy, np.zeros((2, 4, 4)), variance)
    assert (found.used, found.left_out, found.value) == (28, 4, 4.0)
    variance[1] = 0
    assert math.isnan(chi_square(noisy, 0 * noisy, variance).bands[1])
    with pytest.raises(InputError, match="no voxel has a positive variance"):
        chi_square(noisy, noisy, 0 * variance)


def test_bad_pairs() -> None:
    cube = np.zeros((2, 8, 8))
    with pytest.raises(InputError, match=r"same shape.*\(2, 8, 8\) and \(2, 8, 7\)"):
        figures(cube, cube[:, :, :7])
    with pytest.raises(InputError, match="same shape"):
        psnr_bands(cube[0], cube[0])
    broken = cube.copy()
    broken[1, 1, 1] = np.nan
    with pytest.raises(InputError, match=r"the estimate has values that are not finite.*1 voxels"):
        spectral_angle(cube, broken)
    with pytest.raises(InputError, match="at least 7 x 7"):
        ssim_bands(cube[:, :6], cube[:, :6])
    with pytest.raises(InputError, match="three cubes"):
        chi_square(cube, cube, cube[0])
