"""Properties of metrics and intervals that hold for any data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation import conformal, metrics

QUICK = settings(max_examples=40, deadline=None)


@QUICK
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 12), max_size=5))
def test_sums_are_equal_under_any_split_into_batches(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    pred, truth = rng.normal(size=(12, 3, 2)), rng.normal(scale=10.0 ** rng.integers(-3, 4), size=(12, 3, 2))
    observed = rng.random((12, 3, 2)) < 0.8
    whole, parts, merged = (metrics.ErrorSums(3, 2) for _ in range(3))
    whole.update(pred, truth, observed)
    edges = sorted({0, 12, *cuts})
    for start, stop in itertools.pairwise(edges):
        batch = slice(start, stop)
        parts.update(pred[batch], truth[batch], observed[batch])
        other = metrics.ErrorSums(3, 2)
        other.update(pred[batch], truth[batch], observed[batch])
        merged.merge(other)
    for each in (parts, merged):
        assert each.windows == 12
        np.testing.assert_array_equal(each.count, whole.count)
        np.testing.assert_allclose(each.squared, whole.squared, rtol=1e-13)
        assert each.mse() == pytest.approx(whole.mse(), rel=1e-13, nan_ok=True)
        assert each.mae() == pytest.approx(whole.mae(), rel=1e-13, nan_ok=True)


@QUICK
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_crps_scales_with_the_unit_and_is_least_at_the_truth(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    quantiles, levels = np.sort(rng.normal(size=7)), (np.arange(7) + 0.5) / 7
    truth = float(rng.normal())
    score = metrics.crps_from_quantiles(quantiles, levels, truth)
    assert metrics.crps_from_quantiles(quantiles * scale, levels, truth * scale) == pytest.approx(score * scale)
    assert score >= metrics.crps_from_quantiles(np.full(7, truth), levels, truth) == 0


@QUICK
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), horizon=st.integers(1, 5), stride=st.integers(1, 7))
def test_radii_are_finite_nested_and_never_negative(seed: int, count: int, horizon: int, stride: int) -> None:
    rng = np.random.default_rng(seed)
    calibration = np.abs(rng.normal(size=(count, horizon, 2)))
    truth = rng.standard_t(1.5, size=(40, horizon, 2)) * 10.0 ** rng.integers(-2, 3)
    levels = (0.05, 0.5, 0.9, 0.99)
    run = conformal.AdaptiveConformal(levels, rate=0.3, stride=stride).run(calibration, np.zeros_like(truth), truth)
    assert np.isfinite(run.radius_last).all()
    assert (run.radius_last >= 0).all()
    assert (np.diff(run.radius_last, axis=0) >= 0).all()
    assert (np.diff(run.coverage) >= 0).all()


@QUICK
@given(seed=st.integers(0, 10_000), level=st.floats(0.05, 0.95), count=st.integers(20, 200))
def test_split_radius_is_the_order_statistic_of_the_finite_sample_rank(seed: int, level: float, count: int) -> None:
    scores = np.random.default_rng(seed).permutation(count).astype(float) + 1.0
    rank = int(np.ceil((count + 1) * level - 1e-9))
    if rank <= count:
        radius = conformal.SplitConformal([level]).fit(scores.reshape(-1, 1, 1)).radius()
        assert float(radius.squeeze()) == pytest.approx(rank, abs=rank * max(0.0, level - count / (count + 1)) + 1e-9)
