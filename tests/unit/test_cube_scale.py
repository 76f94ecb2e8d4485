"""The scale of a cube is undone exactly, and voxels without a value neither shift it nor get lost."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_scale import CubeScale, fill_unknown, fit_scale
from pipelines.data.formats.cube_types import Cube, Layout


def cube_of(values: np.ndarray, **options: object) -> Cube:
    return Cube(pathlib.Path("a.npy"), "npy", values, Layout((0, 1, 2)), **options)  # type: ignore[arg-type]


@pytest.fixture
def values() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 9, 8)) * np.arange(1, 7)[:, None, None] * 1000 + 5000


@pytest.mark.parametrize("mode", ["band", "cube", "none"])
def test_there_and_back(values: np.ndarray, mode: str) -> None:
    scale = fit_scale(cube_of(values), mode)
    scaled = scale.forward(values)
    assert scaled.dtype == np.float32
    assert np.allclose(scale.backward(scaled), values, rtol=1e-5, atol=1e-2)
    ends = {"band": (scaled.min((1, 2)), scaled.max((1, 2))), "cube": (scaled.min(), scaled.max())}
    if mode != "none":
        assert np.allclose(ends[mode][0], 0, atol=1e-6)
        assert np.allclose(ends[mode][1], 1, atol=1e-6)
    else:
        assert np.array_equal(scaled, values.astype(np.float32))
    json.dumps(scale.as_dict())
    assert scale.notes == ()


def test_gaps_are_left_out_and_counted(values: np.ndarray) -> None:
    broken = values.copy()
    broken[2, 3, 4], broken[2, 0, 0], broken[4, 1, 1], broken[5, 5, 5] = np.nan, np.inf, -9999.0, -np.inf
    scale = fit_scale(cube_of(broken, no_data=-9999.0))
    for band in range(6):
        known = broken[band][np.isfinite(broken[band]) & (broken[band] != -9999)]
        assert scale.low[band] == known.min()
        assert scale.high[band] == known.max()
        assert scale.medians[band] == pytest.approx(np.median(known))
        assert scale.known[band] == len(known)
    assert "4 of 432 voxels (0.926 %) in 3 of 6 bands" in scale.notes[0]


def test_constant_and_empty_bands(values: np.ndarray) -> None:
    values[1], values[3] = 7.0, np.nan
    scale = fit_scale(cube_of(values))
    assert scale.width()[1] == 1
    assert (scale.low[3], scale.high[3]) == (0.0, 1.0)
    assert np.array_equal(scale.backward(scale.forward(values))[1], values[1])
    assert any("1 constant bands (the first: 1)" in note for note in scale.notes)
    assert any("1 bands have no value at all" in note for note in scale.notes)


def test_outliers_may_lie_outside(values: np.ndarray) -> None:
    values[0, 0, 0] = 1e9
    scale = fit_scale(cube_of(values), outliers=0.02)
    scaled = scale.forward(values)
    assert scale.high[0] < 1e5
    assert scaled[0, 0, 0] > 1000
    assert scale.backward(scaled)[0, 0, 0] == pytest.approx(1e9, rel=1e-6)


def test_bad_scales(values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"unknown scale.*band, cube, none"):
        fit_scale(cube_of(values), "bands")
    with pytest.raises(InputError, match="share of outliers"):
        fit_scale(cube_of(values), outliers=0.6)
    with pytest.raises(InputError, match="another number of bands"):
        fit_scale(cube_of(values)).forward(values[:2])
    assert CubeScale("none", (0.0,), (1.0,), (0.5,), (4,)).notes == ()


def test_fill_follows_the_spectrum_and_touches_gaps_only(values: np.ndarray) -> None:
    smooth = np.linspace(0, 1, 6)[:, None, None] ** 2 + np.linspace(0, 1, 72).reshape(1, 9, 8)
    gaps = np.random.default_rng(1).random(smooth.shape) < 0.1
    gaps[:, 4, 4] = True
    broken = np.where(gaps, np.nan, smooth)
    medians = np.median(smooth, (1, 2))
    filled, where = fill_unknown(broken, medians)
    assert np.array_equal(where, gaps)
    assert np.array_equal(filled[~gaps], smooth[~gaps])
    assert np.allclose(filled[:, 4, 4], medians)  # nothing known: the medians themselves
    rest = gaps.copy()
    rest[:, 4, 4] = False
    assert np.abs(filled - smooth)[rest].max() < 1e-9  # brightness times a common spectrum is met exactly
    untouched, none = fill_unknown(values, medians)
    assert untouched is values
    assert not none.any()
