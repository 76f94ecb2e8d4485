"""Noise cases of hyperspectral cubes: counts, ranges, disjoint bands, seeds."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pipelines.data.datasets.noise import CASES, add_noise
from pipelines.data.errors import InputError


def flat(bands: int = 31, rows: int = 24, columns: int = 40, value: float = 0.5) -> np.ndarray:
    return np.full((bands, rows, columns), value)


def changed(cube: np.ndarray, case: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, object]:
    """Noise without its Gaussian part, so that structure is seen alone."""
    monkeypatch.setattr("pipelines.data.datasets.noise.NONIID_SIGMAS", (0.0,))
    noisy, record = add_noise(cube, case, seed)
    return noisy - cube.astype(np.float32), record


@pytest.mark.parametrize("case", CASES)
def test_seeds_repeat_and_differ_and_the_input_is_untouched(case: str) -> None:
    clean = flat()
    one, record = add_noise(clean, case, 3)
    again, same = add_noise(clean, case, 3)
    other, _ = add_noise(clean, case, 4)
    assert np.array_equal(one, again)
    assert record == same
    assert not np.array_equal(one, other)
    assert (clean == 0.5).all()
    assert one.dtype == np.float32
    json.dumps(record.as_dict())


@pytest.mark.parametrize("sigma", [30, 50, 70, 12.5])
def test_gaussian_level(sigma: float) -> None:
    noisy, record = add_noise(flat(31, 100, 100), f"gaussian{sigma}", 0)
    difference = noisy.astype(np.float64) - 0.5
    assert record.sigmas == (sigma / 255,) * 31
    # 310,000 draws: the standard error of the deviation is 0.13 %
    assert difference.std() == pytest.approx(sigma / 255, rel=0.006)
    assert abs(difference.mean()) < 5 * sigma / 255 / math.sqrt(difference.size)
    assert (record.stripes, record.deadlines, record.impulses) == ({}, {}, {})


def test_paper_psnr_of_gaussian_noise() -> None:
    """Table of the paper: 18.59, 14.15 and 11.23 dB before denoising."""
    for sigma, decibels in ((30, 18.59), (50, 14.15), (70, 11.23)):
        noisy, _ = add_noise(flat(31, 128, 128), f"gaussian{sigma}", 1)
        psnr = -10 * np.log10(((noisy - 0.5) ** 2).mean())
        assert psnr == pytest.approx(decibels, abs=0.03)


def test_blind_draws_one_level_a_cube_in_its_range() -> None:
    levels = [add_noise(flat(4, 4, 4), "blind", seed)[1].sigmas for seed in range(300)]
    assert all(len(set(one)) == 1 for one in levels)
    first = np.array([one[0] for one in levels]) * 255
    assert first.min() >= 10
    assert first.max() <= 70
    assert first.mean() == pytest.approx(40, abs=4 * 60 / math.sqrt(12 * 300))
    narrow = [add_noise(flat(2, 2, 2), "blind", s, blind_range=(5, 6))[1].sigmas[0] * 255 for s in range(20)]
    assert 5 <= min(narrow) <= max(narrow) <= 6


def test_noniid_levels_are_per_band_and_as_recorded() -> None:
    noisy, record = add_noise(flat(60, 60, 60), "noniid", 2)
    levels = {round(s * 255) for s in record.sigmas}
    assert levels == {10, 30, 50, 70}
    assert np.allclose((noisy - 0.5).std((1, 2)), record.sigmas, rtol=0.06)


@pytest.mark.parametrize(("bands", "third"), [(31, 10), (3, 1), (5, 1), (46, 15), (198, 66)])
def test_a_third_of_the_bands_is_floored(bands: int, third: int) -> None:
    for case, kind in (("stripe", "stripes"), ("deadline", "deadlines"), ("impulse", "impulses")):
        _, record = add_noise(flat(bands, 3, 40), case, 1)
        counts = {name: len(getattr(record, name)) for name in ("stripes", "deadlines", "impulses")}
        assert counts == {name: third if name == kind else 0 for name in counts}


@pytest.mark.parametrize("seed", range(5))
def test_mixture_uses_disjoint_thirds(seed: int) -> None:
    _, record = add_noise(flat(), "mixture", seed)
    parts = [set(record.stripes), set(record.deadlines), set(record.impulses)]
    assert [len(part) for part in parts] == [10, 10, 10]
    assert len(set.union(*parts)) == 30


def test_stripes_shift_whole_columns_within_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = set()
    for seed in range(20):
        difference, record = changed(flat(31, 8, 100), "stripe", seed, monkeypatch)
        for band in range(31):
            columns = record.stripes.get(band, ())
            moved = np.flatnonzero(np.abs(difference[band]).max(0) > 0)
            assert set(moved) <= set(columns)
            assert np.ptp(difference[band], axis=0).max() == 0
            assert np.abs(difference[band]).max() <= 0.25
            if columns:
                widths.add(len(columns))
    assert widths == set(range(5, 15))  # floor(5) up to floor(15), which is exclusive


def test_stripes_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    shifts = []
    for seed in range(30):
        difference, record = changed(flat(31, 2, 100), "stripe", seed, monkeypatch)
        shifts += [difference[band][0, list(columns)] for band, columns in record.stripes.items()]
    values = np.concatenate(shifts)
    assert abs(values.mean()) < 5 * 0.5 / math.sqrt(12 * len(values))
    assert values.std() == pytest.approx(0.5 / math.sqrt(12), rel=0.05)


def test_dead_columns_are_zero_and_counted_with_ceil(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = set()
    for seed in range(30):
        difference, record = changed(flat(31, 4, 50), "deadline", seed, monkeypatch)
        for band in range(31):
            dead = np.flatnonzero((difference[band] == -0.5).all(0))
            assert tuple(dead) == record.deadlines.get(band, ())
            widths |= {len(dead)} if len(dead) else set()
    assert widths == set(range(3, 8))  # ceil(2.5) up to ceil(7.5), which is exclusive


def test_impulses_are_half_salt_half_pepper(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = set()
    for seed in range(4):
        difference, record = changed(flat(31, 100, 100), "impulse", seed, monkeypatch)
        for band, amount in record.impulses.items():
            hit = difference[band] != 0
            salt = difference[band] == 0.5
            assert set(np.unique(difference[band])) <= {-0.5, 0.0, 0.5}
            assert hit.mean() == pytest.approx(amount, abs=5 * math.sqrt(amount * (1 - amount) / 1e4))
            assert salt.sum() / hit.sum() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(hit.sum()))
            amounts.add(amount)
    assert amounts == {0.1, 0.3, 0.5, 0.7}


@pytest.mark.parametrize("width", range(1, 14))
def test_narrow_cubes_get_one_column_and_it_is_said(width: int) -> None:
    _, record = add_noise(flat(9, 3, width), "stripe", 0)
    assert {len(columns) for columns in record.stripes.values()} == {1}
    assert "1 column a band" in record.notes[0]
    _, dead = add_noise(flat(9, 3, width), "deadline", 0)
    assert {len(columns) for columns in dead.deadlines.values()} == {1}
    assert bool(dead.notes) == (math.ceil(0.15 * width) <= math.ceil(0.05 * width))


def test_wide_cubes_are_not_bent() -> None:
    counts = {len(c) for seed in range(20) for c in add_noise(flat(9, 3, 14), "stripe", seed)[1].stripes.values()}
    assert counts == {0, 1}  # floor(0.7) up to floor(2.1), which is exclusive
    assert add_noise(flat(9, 3, 20), "mixture", 0)[1].notes == ()


def test_few_bands() -> None:
    noisy, record = add_noise(flat(2, 3, 40), "stripe", 0)
    assert len(record.stripes) == 1
    assert "1 of 2 bands" in record.notes[0]
    with pytest.raises(InputError, match="too few bands for a mixture"):
        add_noise(flat(2, 3, 40), "mixture", 0)
    assert noisy.shape == (2, 3, 40)


@pytest.mark.parametrize("case", ["gaussian", "gaussian-3", "Mixture", "", "gaussian50 "])
def test_unknown_cases_are_refused(case: str) -> None:
    with pytest.raises(InputError, match=r"no such noise case.*mixture"):
        add_noise(flat(), case)


def test_bad_cubes_are_refused() -> None:
    with pytest.raises(InputError, match=r"three axes.*\(31, 5\)"):
        add_noise(np.zeros((31, 5)), "blind")
    broken = flat()
    broken[3, 2, 1] = np.nan
    with pytest.raises(InputError, match=r"not finite.*1 of"):
        add_noise(broken, "blind")
    with pytest.raises(InputError, match="range of noise levels"):
        add_noise(flat(), "blind", blind_range=(7, 3))


def test_a_generator_is_used_up_further() -> None:
    rng = np.random.default_rng(0)
    assert not np.array_equal(add_noise(flat(), "gaussian30", rng)[0], add_noise(flat(), "gaussian30", rng)[0])
