"""Whitened principal components: what they are of, when there are none, and that they see no class."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.classify.components import Components


def hand_and_thumb(count: int = 6, steps: int = 200) -> list[np.ndarray]:
    """Two variables that differ by little of what they share, and a third alone."""
    generator = np.random.default_rng(0)
    series = []
    for _ in range(count):
        hand = generator.normal(size=steps).cumsum() / 10
        thumb = hand + 0.04 * generator.normal(size=steps)
        series.append(np.stack([hand, thumb, generator.normal(size=steps)]).astype(np.float32))
    every = np.concatenate(series, axis=1)
    return [(one - every.mean(1, keepdims=True)) / every.std(1, keepdims=True) for one in series]


def test_components_are_uncorrelated_and_of_unit_variance_unless_nearly_nothing() -> None:
    series = hand_and_thumb()
    components = Components.fit(series)
    added = np.concatenate([components.extend(one)[3:] for one in series], axis=1)
    covariance = np.cov(added)
    assert np.allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)
    assert np.allclose(np.diag(covariance)[:2], 1, atol=1e-2)


def test_a_small_difference_between_variables_becomes_visible() -> None:
    series = [one[:2] for one in hand_and_thumb()]
    components = Components.fit(series)
    moved = series[0].copy()
    moved[1] += 0.05  # of the thumb's deviation
    change = np.abs(components.extend(moved) - components.extend(series[0])).max(axis=1)
    assert change[2:].max() > 10 * change[:2].max()


def test_the_variables_stay_as_they_are_and_gaps_stay_gaps() -> None:
    series = hand_and_thumb()
    series[0][1, 5:9] = np.nan
    components = Components.fit(series)
    extended = components.extend(series[0])
    assert np.array_equal(extended[:3], series[0], equal_nan=True)
    assert np.isnan(extended[3:, 5:9]).all()
    assert not np.isnan(extended[3:, 9:]).any()


@pytest.mark.parametrize("series", [[np.zeros((1, 9))], [np.full((3, 9), np.nan)]])
def test_there_are_none_of_one_variable_or_without_complete_steps(series: list[np.ndarray]) -> None:
    components = Components.fit(series)
    assert len(components) == 0
    assert components.extend(series[0]).shape == series[0].shape


def test_missing_steps_are_said() -> None:
    series = hand_and_thumb()
    for one in series:
        one[0, :150] = np.nan
    assert Components.fit(series).notes == ("no components: 300 of 1,200 training steps have all variables",)


def test_a_variable_that_never_changes_and_a_copy_add_nothing() -> None:
    one = np.random.default_rng(0).normal(size=(1, 50))
    components = Components.fit([np.concatenate([one, one, np.zeros((1, 50))])])
    assert len(components) == 1
    assert np.isfinite(components.matrix).all()


def test_no_more_than_asked() -> None:
    assert len(Components.fit(hand_and_thumb(), most=2)) == 2
    assert len(Components.fit(hand_and_thumb(), most=0)) == 0
