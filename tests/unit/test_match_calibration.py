"""Probabilities from scores: the curve is the best there is, finite at the edges, and follows a change of base rate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn import metrics as peer

from pipelines.errors import ConfigError, InputError
from pipelines.match.calibration import (
    Calibration,
    brier_score,
    calibrate,
    calibration_error,
    log_loss,
    reliability,
)


def drawn(count: int, seed: int, slope: float = 6.0, intercept: float = -2.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels whose true probabilities are sigmoid(slope score + intercept)."""
    random = np.random.default_rng(seed)
    scores = random.uniform(-1, 1, count)
    return scores, (random.random(count) < 1 / (1 + np.exp(-slope * scores - intercept))).astype(int)


def platt_loss(curve: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> float:
    """Cross entropy with Platt's targets, written out."""
    up, down = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (up + 1) / (up + 2), 1 / (down + 2))
    p = 1 / (1 + np.exp(-(curve[0] * scores + curve[1])))
    return float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).sum())


@pytest.mark.parametrize(("count", "seed"), [(30, 0), (200, 1), (2000, 2)])
def test_the_curve_is_the_minimum_of_the_loss(count: int, seed: int) -> None:
    scores, labels = drawn(count, seed)
    found = calibrate(scores, labels)
    best = minimize(platt_loss, np.zeros(2), (scores, labels), method="Nelder-Mead", options={"xatol": 1e-9})
    assert (found.slope, found.intercept) == pytest.approx(best.x, rel=1e-4)
    here = platt_loss(np.array([found.slope, found.intercept]), scores, labels)
    assert here <= best.fun + 1e-9
    assert (found.matches, found.pairs, found.notes) == (labels.sum(), count, ())


def test_the_true_curve_is_found_and_its_probabilities_hold() -> None:
    found = calibrate(*drawn(20_000, 3))
    assert (found.slope, found.intercept) == pytest.approx((6.0, -2.0), rel=0.06)
    scores, labels = drawn(20_000, 4)
    assert calibration_error(found.probability(scores), labels) < 0.015
    assert calibration_error((scores + 1) / 2, labels) > 0.15  # what uncalibrated scores are worth


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e4)])
def test_the_unit_of_the_scores_does_not_matter(scale: float, shift: float) -> None:
    scores, labels = drawn(300, 5)
    plain, other = calibrate(scores, labels), calibrate(scores * scale + shift, labels)
    np.testing.assert_allclose(other.probability(scores * scale + shift), plain.probability(scores), atol=1e-6)


def test_matches_and_others_that_are_parted_give_a_finite_curve_and_a_note() -> None:
    scores = np.r_[np.full(50, 0.9), np.full(50, 0.1)] + np.linspace(0, 0.01, 100)
    found = calibrate(scores, np.repeat([1, 0], 50))
    p = found.probability(scores)
    assert np.isfinite(found.slope)
    assert p[:50] == pytest.approx(51 / 52, abs=0.01)
    assert p[50:] == pytest.approx(1 / 52, abs=0.01)
    assert "parted completely" in found.notes[0]


@pytest.mark.parametrize(("label", "expected", "word"), [(1, 21 / 22, "are matches"), (0, 1 / 22, "are no matches")])
def test_one_class_gives_one_probability_and_a_note(label: int, expected: float, word: str) -> None:
    found = calibrate(np.linspace(-1, 1, 20), np.full(20, label))
    np.testing.assert_allclose(found.probability([-5.0, 0.0, 5.0]), expected)
    assert word in found.notes[0]
    assert found.threshold is None
    with pytest.raises(ConfigError, match="base rate cannot be changed"):
        found.probability([0.0], base_rate=0.1)


def test_equal_scores_give_the_share_of_matches_and_a_note() -> None:
    found = calibrate(np.full(40, 0.7), np.r_[np.ones(10), np.zeros(30)])
    assert found.slope == 0.0
    assert found.probability(0.7) == pytest.approx((10 * 11 / 12 + 30 / 32) / 40)
    assert "one score" in found.notes[0]


def test_scores_that_run_the_wrong_way_are_said() -> None:
    scores, labels = drawn(500, 6)
    found = calibrate(-scores, labels)
    assert found.slope < 0
    assert "curve falls" in found.notes[0]


def test_one_pair_of_each_class_is_enough_to_be_finite() -> None:
    found = calibrate([0.4, 0.6], [0, 1])
    assert found.probability([0.4, 0.6]) == pytest.approx([1 / 3, 2 / 3], abs=1e-6)


def test_a_change_of_the_base_rate_is_that_of_bayes() -> None:
    """Half of the pairs with scores of two kinds; then one match in a hundred: by Bayes' rule, counted out."""
    curve = Calibration(slope=np.log(9.0), intercept=0.0, matches=500, pairs=1000)
    assert curve.probability(1.0) == pytest.approx(0.9)
    # P(score | match) / P(score | other) is 9 to 1 at equal priors.
    expected = 9 * 0.01 / (9 * 0.01 + 0.99)
    assert curve.probability(1.0, base_rate=0.01) == pytest.approx(expected)
    assert curve.probability(1.0, base_rate=0.5) == pytest.approx(0.9)
    for bad in (0.0, 1.0, -0.5):
        with pytest.raises(ConfigError, match="share"):
            curve.probability(1.0, base_rate=bad)


def test_probabilities_hold_where_matches_are_rarer_than_they_were() -> None:
    random = np.random.default_rng(7)

    def pairs(matches: int, others: int) -> tuple[np.ndarray, np.ndarray]:
        return np.r_[random.normal(1, 1, matches), random.normal(-1, 1, others)], np.repeat([1, 0], [matches, others])

    found = calibrate(*pairs(5000, 5000))
    scores, labels = pairs(500, 49_500)
    assert calibration_error(found.probability(scores, base_rate=0.01), labels) < 0.003
    assert calibration_error(found.probability(scores), labels) > 0.1


def test_extreme_scores_have_probabilities_too() -> None:
    curve = Calibration(1000.0, 0.0, 5, 10)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert curve.probability(np.array([-5.0, 0.0, 5.0])).tolist() == [0.0, 0.5, 1.0]


def test_the_curve_survives_json() -> None:
    found = calibrate(*drawn(50, 8))
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    for bad in ({}, {**found.to_dict(), "slope": None}, {**found.to_dict(), "slope": float("nan")}):
        with pytest.raises(InputError):
            Calibration.from_dict(bad)


def test_scores_of_probabilities_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(9)
    p, labels = random.random(200), random.integers(0, 2, 200)
    assert brier_score(p, labels) == pytest.approx(peer.brier_score_loss(labels, p))
    assert log_loss(p, labels) == pytest.approx(peer.log_loss(labels, p))


def test_reliability_counts_every_pair_and_the_error_is_the_gap() -> None:
    p, labels = np.array([0.0, 0.05, 0.55, 0.95, 1.0, 1.0]), np.array([0, 1, 1, 1, 1, 0])
    found = reliability(p, labels, bins=10)
    assert found.pairs.tolist() == [2, 1, 3]
    assert found.share.tolist() == pytest.approx([0.5, 1.0, 2 / 3])
    assert calibration_error(p, labels, bins=10) == pytest.approx(
        (2 * abs(0.025 - 0.5) + abs(0.55 - 1) + 3 * abs(2.95 / 3 - 2 / 3)) / 6
    )
    with pytest.raises(InputError, match="between 0 and 1"):
        reliability([1.1], [1])
