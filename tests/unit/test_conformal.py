"""Conformal intervals: exact ranks, the delay of truth, and coverage on real data."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import scipy.stats

from pipelines.errors import InputError
from pipelines.evaluation import conformal
from pipelines.evaluation.conformal import AdaptiveConformal, SplitConformal, absolute_scores, truth_delay
from pipelines.evaluation.metrics import crps_from_quantiles


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_split_takes_the_finite_sample_rank_per_step_and_channel() -> None:
    scores = np.stack([np.arange(1.0, 20.0), 10 * np.arange(1.0, 20.0)], axis=1).reshape(19, 1, 2)
    method = SplitConformal([0.5, 0.9]).fit(scores[::-1])
    assert method.radius()[:, 0, 0].tolist() == [10.0, 18.0]  # ceil(20 * 0.5), ceil(20 * 0.9)
    assert method.radius(0.9)[0].tolist() == [18.0, 180.0]
    assert method.radius(0.75)[0, 0] == 15.0


def test_split_covers_its_level_on_exchangeable_scores() -> None:
    trials = [
        SplitConformal([0.8]).run(np.abs(noise(s, 9, 1, 1)), noise(s + 500, 200, 1, 1), np.zeros((200, 1, 1)))
        for s in range(300)
    ]
    assert np.mean([run.coverage[0] for run in trials]) == pytest.approx(0.8, abs=0.03)


def test_missing_scores_are_not_counted_and_a_place_without_any_is_nan() -> None:
    scores = np.array([[[1.0, np.nan]], [[np.nan, np.nan]], [[3.0, np.nan]]])
    radius = SplitConformal([0.6]).fit(scores).radius()
    assert radius[0, 0, 0] == 3.0  # rank ceil(3 * 0.6) = 2 of two
    assert np.isnan(radius[0, 0, 1])
    run = AdaptiveConformal([0.6]).run(scores, np.zeros((4, 1, 2)), np.ones((4, 1, 2)))
    assert run.count[0, 0] == 4
    assert run.count[0, 1] + run.skipped == 4  # no radius until its first scores have arrived
    assert 0 < run.skipped < 4
    assert np.isfinite(run.radius_last).all()
    silent = SplitConformal([0.6]).run(scores, np.zeros((4, 1, 2)), np.ones((4, 1, 2)))
    assert silent.skipped == 4
    assert np.isnan(silent.coverage_by_channel[0, 1])
    assert silent.coverage[0] == 1.0


def test_truth_is_known_only_when_the_window_after_it_is_issued() -> None:
    assert truth_delay(4, 1).tolist() == [1, 2, 3, 4]
    assert truth_delay(4, 3).tolist() == [1, 1, 1, 2]
    assert truth_delay(96, 96).tolist() == [1] * 96


@pytest.mark.parametrize("stride", [1, 3])
def test_intervals_use_nothing_that_is_not_known_yet(stride: int) -> None:
    horizon, change = 5, 20
    calibration, truth = np.abs(noise(0, 50, horizon, 1)), noise(1, 40, horizon, 1)
    other = truth.copy()
    other[change:] = 1000.0
    radii = []
    for series in (truth, other):
        method = AdaptiveConformal([0.9], rate=0.1, stride=stride).start(calibration)
        scores, delay = np.abs(series), truth_delay(horizon, stride)
        radii.append(np.stack([method.step(arrivals(scores, now, delay)) for now in range(40)]))
    same = (radii[0] == radii[1]).all(axis=(1, 3))  # (window, step)
    for step in range(horizon):
        first = change + truth_delay(horizon, stride)[step]
        assert same[:first, step].all()
        assert not same[first:, step].any()


def arrivals(scores: np.ndarray, now: int, delay: np.ndarray) -> np.ndarray:
    rows = now - delay
    known = scores[np.maximum(rows, 0), np.arange(scores.shape[1])]
    return np.where((rows >= 0)[:, None], known, np.nan)


@pytest.mark.parametrize("stride", [1, 2, 7])
def test_steps_one_by_one_equal_the_run(stride: int) -> None:
    levels = (0.3, 0.8, 0.9)
    calibration, truth = np.abs(noise(2, 60, 6, 3)), 3 * noise(3, 80, 6, 3)
    truth[noise(4, 80, 6, 3) > 1.5] = np.nan
    forecasts = noise(5, 80, 6, 3)
    run = AdaptiveConformal(levels, rate=0.05, stride=stride, window=40).run(calibration, forecasts, truth)
    method = AdaptiveConformal(levels, rate=0.05, stride=stride, window=40).start(calibration)
    scores = absolute_scores(forecasts, truth).astype(np.float32)
    inside, width = np.zeros(3), np.zeros(3)
    for now in range(80):
        radius = method.step(arrivals(scores, now, truth_delay(6, stride)))
        seen = np.isfinite(scores[now])
        inside += (scores[now][seen] <= radius[:, seen]).sum(axis=1)
        width += 2 * radius[:, seen].sum(axis=1)
    total = np.isfinite(scores).sum()
    np.testing.assert_allclose(run.coverage, inside / total, rtol=1e-12)
    np.testing.assert_allclose(run.mean_width, width / total, rtol=1e-6)
    np.testing.assert_array_equal(run.radius_last, method.radius())


def test_working_levels_follow_equation_two() -> None:
    method = AdaptiveConformal([0.9], rate=0.1).start(np.linspace(0, 1, 99).reshape(99, 1, 1))
    method.step()
    method.step(np.array([[5.0]]))  # missed: 0.9 + 0.1 * (1 - 0.1)
    assert method.state_dict()["working"].item() == pytest.approx(0.99)
    method.step(np.array([[0.0]]))  # inside: 0.99 - 0.1 * 0.1
    assert method.state_dict()["working"].item() == pytest.approx(0.98)
    method.step(np.array([[np.nan]]))  # unobserved: unchanged
    assert method.state_dict()["working"].item() == pytest.approx(0.98)


def test_levels_beyond_one_still_widen_and_below_zero_give_nothing() -> None:
    table = conformal.ScoreTable(np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1))
    radius = table.quantile(np.array([-0.5, 0.0, 0.5, 1.0, 1.5, 9.0]).reshape(-1, 1, 1)).ravel()
    assert radius[:3].tolist() == [0.0, 0.0, 2.0]
    assert radius[3] == pytest.approx(3 * 1.25)
    assert (np.diff(radius[2:]) > 0).all()
    assert np.isfinite(radius).all()


def test_a_channel_silent_in_calibration_still_gets_wider() -> None:
    calibration = np.zeros((50, 1, 2))
    calibration[:, 0, 1] = 1.0
    run = AdaptiveConformal([0.9], rate=0.05).run(calibration, np.zeros((800, 1, 2)), np.abs(noise(6, 800, 1, 2)))
    assert 0.85 < run.coverage_by_channel[0, 0] < 0.95


def test_a_jump_in_the_errors_is_caught_by_adaptive_intervals_only() -> None:
    calibration, truth = np.abs(noise(7, 300, 1, 1)), noise(8, 2000, 1, 1)
    truth[1000:] *= 4
    split = SplitConformal([0.9]).run(calibration, np.zeros_like(truth), truth)
    adaptive = AdaptiveConformal([0.9]).run(calibration, np.zeros_like(truth), truth)
    assert split.coverage[0] < 0.75
    assert adaptive.coverage[0] == pytest.approx(0.9, abs=0.02)


def test_crps_of_a_run_is_the_crps_of_its_quantiles() -> None:
    levels = (0.2, 0.5, 0.9, 0.95)
    calibration, truth, forecasts = np.abs(noise(9, 80, 3, 2)), noise(10, 30, 3, 2), noise(11, 30, 3, 2)
    run = SplitConformal(levels).run(calibration, forecasts, truth)
    radius = np.moveaxis(run.radius_last, 0, -1)
    offsets = np.concatenate([-radius[..., ::-1], np.zeros((3, 2, 1)), radius], axis=-1)
    each = crps_from_quantiles(forecasts[..., None] + offsets, conformal.quantile_grid(levels), truth)
    assert run.crps == pytest.approx(each.mean(), rel=1e-12)


def test_crps_of_calibrated_gaussian_intervals_is_near_the_closed_form() -> None:
    levels = np.arange(1, 100) / 100
    truth = noise(12, 4000, 1, 1)
    run = SplitConformal(levels).run(np.abs(noise(13, 4000, 1, 1)), np.zeros_like(truth), truth)
    normal = scipy.stats.norm
    exact = truth * (2 * normal.cdf(truth) - 1) + 2 * normal.pdf(truth) - 1 / np.sqrt(np.pi)
    assert run.crps == pytest.approx(exact.mean(), rel=0.01)


def test_state_continues_where_it_was_left() -> None:
    calibration, truth = np.abs(noise(14, 200, 72, 2)), noise(15, 180, 72, 2)  # every third score is kept
    method = AdaptiveConformal((0.5, 0.9), window=70)
    last = method.run(calibration, np.zeros_like(truth), truth).radius_last
    state = method.state_dict()
    assert state["scores"].dtype == np.float32
    assert state["scores"].shape == (70, 72, 2)
    again = AdaptiveConformal.from_state(state)
    assert again.state_dict()["working"].tolist() == state["working"].tolist()
    np.testing.assert_allclose(again.radius(), last, rtol=0.25)  # scores kept since the last sorting now count
    np.testing.assert_array_equal(AdaptiveConformal.from_state(again.state_dict()).radius(), again.radius())
    np.testing.assert_array_equal(again.radius(0.9), again.radius()[1])
    between = again.radius(0.7)
    assert (between >= again.radius(0.5)).all()
    assert (between <= again.radius(0.9)).all()
    with pytest.raises(InputError, match="incomplete"):
        AdaptiveConformal.from_state({"levels": [0.9]})


def test_merged_runs_count_as_one() -> None:
    calibration, truth = np.abs(noise(16, 60, 2, 1)), noise(17, 50, 2, 1)
    method = SplitConformal((0.5, 0.9))
    whole = method.run(calibration, np.zeros_like(truth), truth)
    parts = [method.run(calibration, np.zeros_like(part), part) for part in (truth[:20], truth[20:])]
    merged = conformal.merge_runs(parts)
    assert merged.windows == 50
    np.testing.assert_array_equal(merged.coverage, whole.coverage)
    assert merged.crps == pytest.approx(whole.crps)
    assert merged.at(0.9)["coverage"] == whole.coverage[1]
    with pytest.raises(InputError, match="not measured"):
        merged.at(0.8)


@pytest.mark.parametrize("levels", [[], [0.0, 0.5], [0.9, 0.5], [90.0], [float("nan")]])
def test_bad_levels_are_refused(levels: list[float]) -> None:
    with pytest.raises(InputError, match="levels must rise"):
        AdaptiveConformal(levels)


def test_bad_scores_and_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="call fit"):
        AdaptiveConformal().radius()
    with pytest.raises(InputError, match="negative or infinite"):
        SplitConformal().fit(-np.ones((3, 1, 1)))
    with pytest.raises(InputError, match="at least one of each"):
        AdaptiveConformal().start(np.ones((0, 3, 1)))
    with pytest.raises(InputError, match="do not fit the calibration"):
        SplitConformal().run(np.ones((3, 2, 1)), np.ones((3, 1, 1)), np.ones((3, 1, 1)))
    with pytest.raises(InputError, match="settings do not fit"):
        AdaptiveConformal(stride=0)
    with pytest.raises(InputError, match="marked as observed"):
        absolute_scores(np.full((1, 1, 1), np.nan), np.ones((1, 1, 1)))


def test_ninety_percent_intervals_cover_88_to_92_on_real_errors_where_split_does_not(etth1: pathlib.Path) -> None:
    pd = pytest.importorskip("pandas")
    rows = pd.read_csv(etth1, index_col="date").to_numpy(float)
    rows = (rows - rows[:8640].mean(axis=0)) / rows[:8640].std(axis=0)
    season, horizon = 24, 24
    windows = np.lib.stride_tricks.sliding_window_view(rows, season + horizon, axis=0).transpose(0, 2, 1)
    naive, truth = windows[:, :season], windows[:, season:]  # the day before, hour for hour
    calibration = absolute_scores(naive[8640:11520], truth[8640:11520])
    split = SplitConformal().run(calibration, naive[11520:14400], truth[11520:14400])
    adaptive = AdaptiveConformal().run(calibration, naive[11520:14400], truth[11520:14400])
    at = adaptive.at(0.9)
    assert 0.88 <= at["coverage_step_min"] <= at["coverage"] <= at["coverage_step_max"] <= 0.92
    assert 0.88 <= at["coverage_channel_min"] <= at["coverage_channel_max"] <= 0.92
    assert abs(at["coverage"] - 0.9) < abs(split.at(0.9)["coverage"] - 0.9)
