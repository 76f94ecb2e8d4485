"""Metrics against values worked out by hand, closed forms and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from pipelines.errors import InputError, RunError
from pipelines.evaluation import metrics


def test_errors_per_step_channel_and_overall_count_observed_values_only() -> None:
    pred = np.array([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [4.0, 40.0]]])
    truth = np.array([[[0.0, 10.0], [0.0, np.nan]], [[0.0, 33.0], [0.0, 40.0]]])
    sums = metrics.ErrorSums(2, 2)
    sums.update(pred, truth, np.isfinite(truth))
    assert sums.windows == 2
    assert sums.count.tolist() == [[2, 2], [2, 1]]
    assert sums.mse() == pytest.approx((1 + 4 + 9 + 16 + 0 + 9 + 0) / 7)
    assert sums.mae() == pytest.approx((1 + 2 + 3 + 4 + 0 + 3 + 0) / 7)
    assert sums.by_horizon()["mae"].tolist() == [(1 + 3 + 0 + 3) / 4, (2 + 4 + 0) / 3]
    assert sums.by_channel()["mse"].tolist() == [(1 + 4 + 9 + 16) / 4, 9 / 3]


def test_mask_hides_a_finite_truth_and_even_a_broken_forecast() -> None:
    sums = metrics.ErrorSums(1, 1)
    sums.update(np.array([[[np.nan]], [[1.0]]]), np.array([[[5.0]], [[3.0]]]), np.array([[[False]], [[True]]]))
    assert sums.mse() == 4.0


def test_float32_batches_do_not_lose_digits() -> None:
    error = np.float32(0.1)
    sums = metrics.ErrorSums(1, 1)
    for _ in range(200):
        sums.update(np.full((5000, 1, 1), error), np.zeros((5000, 1, 1), np.float32))
    assert sums.mae() == pytest.approx(float(error), rel=1e-12)


def test_torch_tensors_are_taken_as_they_are() -> None:
    torch = pytest.importorskip("torch")
    sums = metrics.ErrorSums(1, 1)
    sums.update(torch.zeros(3, 1, 1), torch.full((3, 1, 1), 2.0), torch.ones(3, 1, 1, dtype=torch.bool))
    assert (sums.mse(), sums.windows) == (4.0, 3)


def test_nothing_observed_is_nan_not_zero() -> None:
    sums = metrics.ErrorSums(1, 1)
    assert np.isnan(sums.mse())
    sums.update(np.zeros((2, 1, 1)), np.full((2, 1, 1), np.nan))
    assert np.isnan(sums.mae())
    assert np.isnan(sums.by_horizon()["mse"]).all()


def test_wrong_shapes_and_broken_values_are_refused() -> None:
    sums = metrics.ErrorSums(2, 1)
    with pytest.raises(InputError, match="differ in shape"):
        sums.update(np.zeros((3, 2, 1)), np.zeros((3, 1, 1)))
    with pytest.raises(InputError, match="do not fit these sums"):
        sums.update(np.zeros((3, 1, 1)), np.zeros((3, 1, 1)))
    with pytest.raises(RunError, match="1 NaN or infinite values of 2"):
        sums.update(np.array([[[np.nan], [1.0]]]), np.zeros((1, 2, 1)))
    with pytest.raises(InputError, match="marked as observed"):
        sums.update(np.zeros((1, 2, 1)), np.array([[[np.nan], [1.0]]]), np.ones((1, 2, 1), bool))
    assert sums.windows == 0
    assert sums.squared.sum() == 0
    with pytest.raises(InputError, match="different shape"):
        sums.merge(metrics.ErrorSums(1, 1))


def test_seasonal_scale_by_hand_with_a_gap_and_mase_excluding_a_flat_channel() -> None:
    train = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0], [np.nan, 5.0], [7.0, 5.0]])
    scale = metrics.seasonal_scale(train, season=2)
    assert scale.tolist() == [3.0, 0.0]  # |4 - 1|, |nan - 2| left out, |7 - 4|
    sums = metrics.MaseSums(scale)
    sums.update(np.zeros((2, 1, 2)), np.array([[[6.0, 1.0]], [[3.0, 1.0]]]), series=[0, 0])
    result = sums.result()
    assert result.value == pytest.approx(1.5)
    assert result.excluded == 1
    assert np.isnan(result.by_channel[0, 1])
    with pytest.raises(InputError, match="season"):
        metrics.seasonal_scale(train, season=5)


def test_mase_scales_every_series_by_its_own_training_rows() -> None:
    sums = metrics.MaseSums(np.array([[1.0], [10.0]]))
    sums.update(np.zeros((3, 1, 1)), np.array([[[2.0]], [[10.0]], [[30.0]]]), series=[0, 1, 1])
    assert sums.result().by_channel.ravel().tolist() == [2.0, 2.0]


def test_mase_of_the_seasonal_naive_on_its_own_training_rows_is_one() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)).cumsum(axis=0)
    sums = metrics.MaseSums(metrics.seasonal_scale(rows, 7))
    sums.update(rows[:-7, None], rows[7:, None], series=np.zeros(53, int))
    assert sums.result().value == pytest.approx(1.0)


def test_crps_from_many_quantiles_meets_the_closed_form_of_a_gaussian() -> None:
    levels = (np.arange(2000) + 0.5) / 2000
    quantiles = scipy.stats.norm.ppf(levels)
    for y in (-2.5, -0.3, 0.0, 1.7):
        normal = scipy.stats.norm
        exact = y * (2 * normal.cdf(y) - 1) + 2 * normal.pdf(y) - 1 / np.sqrt(np.pi)
        assert metrics.crps_from_quantiles(quantiles, levels, y) == pytest.approx(exact, abs=2e-4)
        assert metrics.crps_from_quantiles(quantiles, levels, y) == pytest.approx(
            2 * metrics.pinball(quantiles, y, levels).mean(), rel=1e-12
        )


def test_crps_weights_of_an_uneven_grid_sum_to_one_and_bad_levels_are_refused() -> None:
    weights = metrics.crps_weights([0.025, 0.05, 0.5, 0.95, 0.975])
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] == pytest.approx(0.0375)
    for bad in ([], [0.5, 0.5], [0.0, 0.5], [0.5, 1.0]):
        with pytest.raises(InputError, match="rise strictly"):
            metrics.crps_weights(bad)


def test_interval_score_and_coverage_by_hand() -> None:
    lo, hi, truth = np.zeros(4), np.ones(4), np.array([0.0, 1.0, -1.0, np.nan])
    assert metrics.coverage(lo, hi, truth) == pytest.approx(2 / 3)
    assert metrics.coverage(lo, hi, truth, [True, True, False, False]) == 1.0
    assert np.isnan(metrics.coverage(lo, hi, np.full(4, np.nan)))
    assert metrics.interval_score(0.0, 1.0, -1.0, 0.5) == pytest.approx(1 + 4)


def test_interval_score_is_the_two_pinball_losses() -> None:
    lo, hi, truth = -0.4, 0.9, np.linspace(-2, 2, 41)
    pair = metrics.pinball(lo, truth, 0.1) + metrics.pinball(hi, truth, 0.9)
    np.testing.assert_allclose(metrics.interval_score(lo, hi, truth, 0.8) * 0.1, pair, atol=1e-12)


def test_pearson_agrees_with_numpy_and_is_nan_for_a_constant_channel() -> None:
    rng = np.random.default_rng(1)
    pred, truth = rng.normal(size=(50, 4, 2)), rng.normal(size=(50, 4, 2))
    truth[..., 1] = 3.0
    observed = rng.random((50, 4, 2)) < 0.7
    got = metrics.pearson(pred, truth, observed)
    seen = observed[..., 0]
    assert got[0] == pytest.approx(np.corrcoef(pred[..., 0][seen], truth[..., 0][seen])[0, 1])
    assert np.isnan(got[1])


def test_window_errors_average_to_the_sums() -> None:
    rng = np.random.default_rng(2)
    pred, truth = rng.normal(size=(9, 4, 2)), rng.normal(size=(9, 4, 2))
    sums = metrics.ErrorSums(4, 2)
    sums.update(pred, truth)
    mse, mae = metrics.window_errors(pred, truth)
    assert mse.mean() == pytest.approx(sums.mse())
    assert mae.mean() == pytest.approx(sums.mae())
    truth[3] = np.nan
    assert np.isnan(metrics.window_errors(pred, truth)[0][3])
