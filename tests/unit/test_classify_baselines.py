"""The classifiers to beat: on real data, against a plain dynamic program, and what they say about changed data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sktime.datasets import load_basic_motions, load_japanese_vowels

from pipelines.classify.baselines import Baseline, Majority, MiniRocketRidge, NearestDTW
from pipelines.errors import ConfigError, InputError


def _numbered(train: Any, test: Any) -> tuple[np.ndarray, np.ndarray, int]:
    names = np.unique(train)
    return np.searchsorted(names, train), np.searchsorted(names, test), len(names)


@pytest.fixture(scope="module")
def motions() -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray], np.ndarray]:
    """BasicMotions: 40 and 40 series of 6 variables and 100 steps, 4 classes."""
    (train, y), (test, y_test) = (load_basic_motions(split=part, return_type="numpy3D") for part in ("train", "test"))
    y, y_test, _ = _numbered(y, y_test)
    return list(train.astype(np.float32)), y, list(test.astype(np.float32)), y_test


@pytest.fixture(scope="module")
def vowels() -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray], np.ndarray]:
    """JapaneseVowels: 270 and 370 series of 12 variables and 7 to 29 steps, 9 classes."""
    parts = [load_japanese_vowels(split=part, return_X_y=True) for part in ("train", "test")]
    series = [
        [np.stack([np.asarray(cell, np.float32) for cell in row]) for row in table.to_numpy()] for table, _ in parts
    ]
    y, y_test, _ = _numbered(parts[0][1], parts[1][1])
    return series[0], y, series[1], y_test


def _accuracy(model: Baseline, data: Any, classes: int) -> float:
    train, y, test, y_test = data
    shares = model.fit(train, y, classes).predict_proba(test)
    assert shares.shape == (len(test), classes)
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-9)
    return float((shares.argmax(1) == y_test).mean())


def test_minirocket_on_equal_lengths(motions: Any) -> None:
    model = MiniRocketRidge(seed=0)
    assert _accuracy(model, motions, 4) == 1.0
    assert model.notes == ()


def test_minirocket_on_unequal_lengths(vowels: Any) -> None:
    model = MiniRocketRidge(seed=0)
    assert _accuracy(model, vowels, 9) >= 0.95
    short = [sum(one.shape[1] < 9 for one in part) for part in (vowels[0], vowels[2])]
    assert min(short) > 0
    assert model.notes == tuple(
        f"{occasion}: {count} series below 9 steps stretched by linear interpolation"
        for occasion, count in zip(("training", "prediction"), short, strict=True)
    )


def test_dtw_on_equal_and_unequal_lengths(motions: Any, vowels: Any) -> None:
    assert _accuracy(NearestDTW(), motions, 4) >= 0.9
    assert _accuracy(NearestDTW(), vowels, 9) >= 0.9


def _plain_dtw(a: np.ndarray, b: np.ndarray, window: float) -> float:
    n, m = a.shape[1], b.shape[1]
    width = max(int(window * max(n, m)), abs(n - m))
    table = np.full((n + 1, m + 1), np.inf)
    table[0, 0] = 0.0
    for i in range(n):
        for j in range(m):
            if abs(i - j) <= width:
                step = ((a[:, i].astype(float) - b[:, j].astype(float)) ** 2).sum()
                table[i + 1, j + 1] = step + min(table[i, j], table[i, j + 1], table[i + 1, j])
    return float(table[n, m])


@pytest.mark.parametrize("window", [0.0, 0.1, 0.35, 1.0])
def test_dtw_equals_a_plain_dynamic_program(window: float) -> None:
    random = np.random.default_rng(3)
    train = [random.standard_normal((3, n)).cumsum(1).astype(np.float32) for n in (20, 1, 7, 33, 20, 26)]
    tests = [random.standard_normal((3, n)).cumsum(1).astype(np.float32) for n in (20, 31, 1, 2, 12)]
    expected = np.array([[_plain_dtw(one, other, window) for other in train] for one in tests])
    for column, other in enumerate(train):
        _, distance = NearestDTW(window).fit([other], np.array([0]), 1).nearest(tests)
        np.testing.assert_allclose(distance, expected[:, column], rtol=1e-12)
    found, distance = NearestDTW(window).fit(train, np.arange(6), 6).nearest(tests)
    assert found.tolist() == expected.argmin(1).tolist()
    np.testing.assert_allclose(distance, expected.min(1), rtol=1e-12)


def test_of_equally_near_series_the_first_counts() -> None:
    same = [np.ones((1, 4))] * 3
    assert NearestDTW(1.0).fit(same, np.array([2, 0, 1]), 3).predict_proba(same[:1]).tolist() == [[0.0, 0.0, 1.0]]


def test_dtw_refuses_what_would_take_too_long() -> None:
    series = [np.zeros((2, 50), np.float32)] * 10
    model = NearestDTW(limit=4e5)
    assert model.too_large(series, series[:8]) is None
    reason = model.too_large(series, series[:9])
    assert reason is not None
    assert "10 x 9 pairs of up to 50 steps and 2 variables" in reason
    with pytest.raises(ConfigError, match="too much to compare"):
        model.fit(series, np.zeros(10, int), 1).predict(series[:9])


def test_majority() -> None:
    series = [np.zeros((2, n)) for n in (3, 4, 5, 6)]
    model = Majority().fit(series, np.array([1, 1, 0, 1]), classes=3)
    assert model.predict_proba(series[:2]).tolist() == [[0.25, 0.75, 0.0]] * 2
    assert model.predict(series).tolist() == [1] * 4
    assert model.notes == ()


def _waves(count: int, length: int = 40) -> tuple[list[np.ndarray], np.ndarray]:
    random, y = np.random.default_rng(0), np.arange(count) % 2
    times = np.arange(length)
    series = [np.stack([np.sin(times * (0.3 + 0.5 * c)), np.cos(times * 0.2)]) for c in y]
    return [(one + 0.1 * random.standard_normal(one.shape)).astype(np.float32) for one in series], y


def test_minirocket_is_the_same_for_the_same_seed() -> None:
    series, y = _waves(12)
    first, again, other = (MiniRocketRidge(seed=s, kernels=168).fit(series, y, 2).scores(series) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_scores_of_two_classes_and_of_a_class_that_was_never_seen() -> None:
    series, y = _waves(12)
    model = MiniRocketRidge(kernels=84).fit(series, y * 2, classes=3)
    scores, shares = model.scores(series), model.predict_proba(series)
    assert np.array_equal(scores[:, 0], -scores[:, 2])
    assert (scores[:, 1] == -np.inf).all()
    assert (shares[:, 1] == 0).all()
    assert model.predict(series).tolist() == (y * 2).tolist()


def test_missing_values_are_filled_and_counted() -> None:
    series, y = _waves(8)
    broken = [one.copy() for one in series]
    broken[0][0, 3:6] = np.nan  # between neighbours
    broken[1][1, :2] = np.nan  # at an end
    broken[2][0] = np.nan  # a variable without values
    filled = [one.copy() for one in series]
    filled[0][0, 2:7] = np.linspace(filled[0][0, 2], filled[0][0, 6], 5)
    filled[1][1, :2] = filled[1][1, 2]
    filled[2][0] = 0.0
    for kind in (lambda: MiniRocketRidge(kernels=84), NearestDTW):
        one, other = kind().fit(broken, y, 2), kind().fit(filled, y, 2)
        np.testing.assert_allclose(one.predict_proba(broken), other.predict_proba(filled), atol=1e-6)
        text = "45 missing values in 3 series filled by linear interpolation in time"
        assert one.notes == (f"training: {text}", f"prediction: {text}")
        assert other.notes == ()
    assert np.isnan(broken[2]).sum() == 40, "what was given is left alone"


def test_short_series_and_other_lengths_are_stretched_and_counted() -> None:
    series, y = _waves(8)
    model = MiniRocketRidge(kernels=84).fit(series, y, 2)
    model.predict([series[0], series[1][:, :30], series[2][:, :5], series[3][:, :1]])
    assert model.notes == (
        "prediction: 2 series below 9 steps stretched by linear interpolation",
        "prediction: 1 series brought to 40 steps, as in training, by interpolation",
    )
    model.predict(series)
    assert model.notes == (), "notes are of the last prediction"
    eight = [one[:, :8] for one in series]  # as PenDigits
    assert MiniRocketRidge(kernels=84).fit(eight, y, 2).notes == (
        "training: 8 series below 9 steps stretched by linear interpolation",
    )


@pytest.mark.parametrize("lengths", [(20,), (20, 31)])
def test_one_variable(lengths: tuple[int, ...]) -> None:
    series, y = _waves(8)
    single = [one[:1, : lengths[i % len(lengths)]] for i, one in enumerate(series)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert MiniRocketRidge(kernels=84).fit(single, y, 2).predict(single).tolist() == y.tolist()


@pytest.mark.parametrize("kind", [MiniRocketRidge, NearestDTW, Majority])
def test_bad_input_is_refused(kind: Any) -> None:
    series, y = _waves(4, 12)
    with pytest.raises(ConfigError, match="call fit first"):
        kind().predict_proba(series)
    with pytest.raises(InputError, match="no series"):
        kind().fit([], y, 2)
    for bad in (series[0][0], series[0][:1], series[0][:, :0]):
        with pytest.raises(InputError, match=r"^series\[3\]"):
            kind().fit([*series[:3], bad], y, 2)
    with pytest.raises(InputError, match="infinite"):
        kind().fit([*series[:3], np.full((2, 12), np.inf)], y, 2)
    for labels in (y[:3], y.astype(float), y + 1, y - 1):
        with pytest.raises(InputError, match=r"^y:"):
            kind().fit(series, labels, 2)
    with pytest.raises(InputError, match=r"^series\[0\].*Expected: \(2, T\)"):
        kind().fit(series, y, 2).predict_proba([np.zeros((3, 12))])


def test_a_single_class_and_a_bad_window_are_refused() -> None:
    series, y = _waves(4)
    model = MiniRocketRidge(kernels=84)
    with pytest.raises(InputError, match="one class"):
        model.fit(series, y * 0, 2)
    with pytest.raises(ConfigError, match="call fit first"):
        model.predict(series)
    with pytest.raises(ConfigError, match="window"):
        NearestDTW(window=1.5)
