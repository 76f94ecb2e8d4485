"""Clean cubes from photographs, the subspace of a noisy cube, and how much of an answer to take."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.data.datasets.lifted import FixedCubes, LiftedCubes, lift, smooth_spectra
from pipelines.data.datasets.noise import add_noise
from pipelines.data.datasets.robust_subspace import RobustSubspace
from pipelines.data.datasets.subspace import Subspace, noise_rank
from pipelines.data.errors import InputError
from pipelines.denoise.blend import best_shares, blended
from pipelines.denoise.noise_kind import structure_of
from pipelines.denoise.preparation import Preparation


def scene(bands: int = 40, side: int = 48, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    image = np.stack([0.5 + 0.4 * np.sin(x * a + y * b) for a, b in rng.uniform(0.03, 0.4, (3, 2))], -1)
    return lift(image, bands, rng)


def error(estimate: np.ndarray, clean: np.ndarray) -> float:
    return float(((estimate - clean) ** 2).mean())


def test_lifted_cubes_are_smooth_positive_and_of_low_rank() -> None:
    cube = scene(60)
    assert cube.shape == (60, 48, 48)
    assert cube.dtype == np.float32
    assert cube.min() == 0
    assert cube.max() == 1
    singular = np.linalg.svd(cube.reshape(60, -1), compute_uv=False)
    assert (singular[7:] < 1e-4 * singular[0]).all()
    spectra = smooth_spectra(50, 200, np.random.default_rng(0))
    assert spectra.min() >= 0
    assert spectra.max() <= 1
    assert np.abs(np.diff(spectra, axis=1)).max() < 0.1


def test_training_pieces_repeat_with_their_seed_and_keep_their_size() -> None:
    images = [np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)]
    cubes = LiftedCubes(images, 6, patch=16, other=(10, 12), projected=0.5)
    batches = []
    for _ in range(2):
        torch.manual_seed(3)
        batches.append(cubes.__getitems__([0, 1, 2]))
    assert torch.equal(batches[0]["x"], batches[1]["x"])
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        batch = cubes.__getitems__([0])
        seen.add(batch["y"].shape[2])
        assert batch["x"].shape == batch["y"].shape == (1, 1, batch["y"].shape[2], 16, 16)
        assert batch["y"].min() >= -1e-6
        assert batch["y"].max() <= 1 + 1e-6
    assert 31 in seen
    assert seen - {31} <= {10, 11, 12}
    kept = FixedCubes(cubes, 3, seed=1)
    again = FixedCubes(cubes, 3, seed=1)
    assert all(torch.equal(kept[i]["x"], again[i]["x"]) for i in range(3))


def test_cubes_alone_decide_how_many_bands_there_are() -> None:
    cube = scene(12)
    cubes = LiftedCubes([], 4, cubes=[cube], patch=16)
    assert cubes.bands == 12
    batch = cubes.__getitems__([0, 1])
    assert batch["y"].shape[2] <= 12
    with pytest.raises(InputError, match="nothing is as large as a patch"):
        LiftedCubes([], 4, cubes=[cube], patch=64)


def test_the_subspace_keeps_what_stands_out() -> None:
    clean = scene(40)
    noisy, record = add_noise(clean, "noniid", 0)
    levels = np.array(record.sigmas)
    space = Subspace.fit([noisy], levels)
    assert 1 <= space.rank <= 7
    assert error(space.project(noisy), clean) < 0.2 * error(noisy, clean)
    images = space.images(noisy)
    assert space.cube(images) == pytest.approx(space.project(noisy))
    pieces = [noisy[:, :20], noisy[:, 20:]]
    assert np.allclose(np.abs(Subspace.fit(pieces, levels).vectors), np.abs(space.vectors), atol=1e-6)
    assert noise_rank(np.array([3.0, 1.0]), 2, 10_000, "edge") == 1  # pure noise has rank 1 by rule
    with pytest.raises(InputError, match="not a rank"):
        Subspace.fit([noisy], levels, rank=41)


@pytest.mark.parametrize("case", ["stripe", "deadline", "impulse", "mixture"])
def test_the_robust_subspace_passes_over_wrong_voxels(case: str) -> None:
    clean = scene(60, 64)
    noisy, record = add_noise(clean, case, 1)
    levels = np.array(record.sigmas)
    plain = error(Subspace.fit([noisy], levels).project(noisy), clean)
    robust = error(RobustSubspace.fit_robustly(noisy, levels).project(noisy), clean)
    assert robust < 0.5 * plain


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("gaussian50", {""}),
        ("noniid", {""}),
        ("stripe", {"lines"}),
        ("deadline", {"lines"}),
        ("impulse", {"impulses"}),
        ("mixture", {"lines", "impulses"}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_kind_of_noise_is_told(case: str, kind: set[str], seed: int) -> None:
    assert structure_of(add_noise(scene(60, 64, seed), case, seed)[0]) in kind


def test_shares_are_those_of_the_least_error() -> None:
    """Against the error that only one who knows the clean image can compute."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    y, x = np.indices((96, 96))
    clean = np.stack([8 * np.sin(x / 3) * np.sin(y / 4), 0.2 * x, np.zeros((96, 96))])
    noisy = clean + rng.standard_normal(clean.shape)

    def smooth(images: np.ndarray) -> np.ndarray:
        return gaussian_filter(images, (0, 2, 2))

    shares = best_shares(noisy, smooth)
    grid = np.linspace(0, 1, 201)
    for r in range(3):
        errors = [error(blended(noisy, smooth(noisy), np.full(3, b))[r], clean[r]) for b in grid]
        at_shares = error(blended(noisy, smooth(noisy), shares)[r], clean[r])
        assert at_shares < min(errors) + 0.02
    assert shares[0] < 0.5
    assert shares[2] > 0.9


def test_a_preparation_undoes_its_scale_and_bounds_the_noise() -> None:
    clean = 5000 * scene(30) + 200
    noisy = clean + 800 * np.random.default_rng(0).standard_normal(clean.shape)
    for scale in ("cube", "band", "none"):
        made = Preparation.fit(noisy, lambda: [noisy], scale=scale)
        assert made.structure == ""
        back = made.backward(made.forward(noisy))
        assert np.abs(back - made.seen(noisy)).max() < 1e-2 * 5000
        if scale != "none":
            assert np.quantile(made.forward(noisy), 0.01) > -0.2
            assert np.quantile(made.forward(noisy), 0.99) < 1.2
    whole = Preparation.fit(noisy, lambda: [noisy], subspace=False)
    assert whole.space is None
    assert whole.seen(noisy) is noisy
    assert whole.width.min() >= 0.95 * 800 / 0.28
