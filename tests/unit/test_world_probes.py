"""Probes: ridge against scikit-learn, no leak from the test part, velocities, splits, intervals, kinds side by side."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import Ridge as TheirRidge
from sklearn.metrics import r2_score

from pipelines.errors import InputError
from pipelines.world.probes import Series, compare, pixels, pooled, probe, split
from pipelines.world.ridge import PENALTIES, fit_ridge

Floats = NDArray[np.float64]


def walk(seed: int, frames: int, states: int = 2) -> Floats:
    """Positions that wander within [0, 1] and bounce."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(0.05 * rng.standard_normal((frames, states)), axis=0) + rng.random(states)
    return np.abs((path % 2) - 1)


def scene(seed: int, frames: int = 120, size: int = 12) -> tuple[NDArray[np.uint8], Floats]:
    """(T, H, W, 1) of a soft dot, and where it is (T, 2) in [0, 1]."""
    places = 0.2 + 0.6 * walk(seed, frames)
    grid = (np.arange(size) + 0.5) / size
    squares = (grid[None, :, None] - places[:, 0, None, None]) ** 2 + (grid[None, None] - places[:, 1, None, None]) ** 2
    return np.round(255 * np.exp(-squares / 0.02)).astype(np.uint8)[..., None], places


@pytest.mark.parametrize("shape", [(60, 7), (25, 90), (20, 9000)])
def test_ridge_is_that_of_scikit_learn_in_both_forms(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * rng.random(shape[1]) * 5 + 3
    y, fresh = rng.standard_normal((shape[0], 3)), rng.standard_normal((9, shape[1]))
    x[:, 2] = 0.7  # a constant feature
    z, test = x - x.mean(0), fresh - x.mean(0)
    scale = np.where(x.std(0) > 1e-6, x.std(0), 1.0)
    z, test = z / scale, test / scale
    values = np.linalg.eigvalsh(z @ z.T)
    unit = values[values > 1e-9 * values[-1]].mean()
    found = fit_ridge(x, y, [1e-4, 0.1, 10]).predict(fresh)
    for place, penalty in enumerate((1e-4, 0.1, 10)):
        theirs = TheirRidge(alpha=penalty * unit, solver="svd").fit(z, y)
        np.testing.assert_allclose(found[place], theirs.predict(test), rtol=1e-7, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 12), st.floats(1e-3, 1e2))
def test_ridge_does_not_depend_on_shift_or_scale_of_features(seed: int, rows: int, count: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((rows, count)), rng.standard_normal((rows, 1))
    moved = factor * (x + 1.0)
    np.testing.assert_allclose(fit_ridge(x, y, [0.3]).predict(x), fit_ridge(moved, y, [0.3]).predict(moved), atol=1e-6)


def test_ridge_shrinks_to_the_mean_and_says_what_it_cannot_fit() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 2))
    sizes = np.linalg.norm(fit_ridge(x, y, PENALTIES).weights, axis=(1, 2))
    assert (np.diff(sizes) < 0).all()
    np.testing.assert_allclose(fit_ridge(x, y, [1e12]).predict(x)[0], np.broadcast_to(y.mean(0), y.shape), atol=1e-9)
    np.testing.assert_allclose(fit_ridge(np.ones((5, 2)), y[:5]).predict(np.ones((1, 2)))[3, 0], y[:5].mean(0))
    for bad, words in (
        ((x[:1], y[:1]), "nothing to fit"),
        ((x, y[:-1]), "nothing to fit"),
        ((x, y, [-1.0]), "not penalties"),
        ((np.zeros((6001, 6001), np.float32), np.zeros((6001, 1))), "too large"),
    ):
        with pytest.raises(InputError, match=words):
            fit_ridge(*bad)
    with pytest.raises(InputError, match="another size"):
        fit_ridge(x, y).predict(x[:, :3])


def test_r2_and_penalty_are_those_of_a_plain_search() -> None:
    rng = np.random.default_rng(2)
    features = rng.standard_normal((150, 30))
    states = features[:, :2] + 2 * rng.standard_normal((150, 2))
    series = [Series("a", features, states)]
    train, test = split(series, 0.2, gap=5)
    found = probe(train, test, ["x", "y"], gap=5)
    # The parts by hand: 115 frames for learning, of which 34 choose the penalty and 5 before those are left out.
    assert (found.train_rows, found.test_rows, found.features) == (115, 30, 30)
    fit, hold, last = slice(0, 76), slice(81, 115), slice(120, 150)

    def fitted(rows: Any, penalty: float, state: int) -> tuple[Any, Any, Any]:
        mean, scale = features[rows].mean(0), features[rows].std(0)
        z = (features[rows] - mean) / scale
        unit = np.linalg.eigvalsh(z.T @ z).mean()
        return TheirRidge(alpha=penalty * unit).fit(z, states[rows, state]), mean, scale

    for state, name in enumerate(("x", "y")):
        errors = []
        for penalty in PENALTIES:
            model, mean, scale = fitted(fit, penalty, state)
            errors.append(((model.predict((features[hold] - mean) / scale) - states[hold, state]) ** 2).sum())
        best = PENALTIES[int(np.argmin(errors))]
        assert found.penalty[name] == best
        model, mean, scale = fitted(slice(0, 115), best, state)
        expected = r2_score(states[last, state], model.predict((features[last] - mean) / scale))
        assert found.r2[name].value == pytest.approx(expected, rel=1e-7)
        assert found.r2[name].lo < expected < found.r2[name].hi


def test_nothing_leaks_from_the_test_part() -> None:
    rng = np.random.default_rng(3)
    features, states = rng.standard_normal((100, 12)), walk(3, 100)
    train, test = split([Series("a", features, states)], 0.3, gap=4)
    first = probe(train, test, ["x", "y"])
    other = [Series("a", 50 + 9 * test[0].features, 7 - test[0].states)]
    second = probe(train, other, ["x", "y"])
    assert first.penalty == second.penalty
    assert first.r2["x"].value != second.r2["x"].value
    doubled = probe(train, [*test, *test], ["x", "y"])  # the same rows again change no fit and no share
    assert doubled.r2["x"].value == pytest.approx(first.r2["x"].value)


def test_features_without_a_relation_read_nothing() -> None:
    rng = np.random.default_rng(4)
    series = [Series(f"e{k}", rng.standard_normal((40, 60)), rng.standard_normal((40, 1))) for k in range(12)]
    found = probe(*split(series, 0.3), ["x"])
    assert found.r2["x"].value < 0.05
    assert found.penalty["x"] == PENALTIES[-1]
    assert any("an end of those tried" in note for note in found.notes)
    assert any("whole episodes are drawn with replacement, 4 of them" in note for note in found.notes)


def test_positions_are_linear_in_nothing_but_velocities_need_two_frames() -> None:
    states = walk(5, 400, 1)
    still = [Series("a", states + 0.0, states)]
    train, test = split(still, 0.3)
    assert probe(train, test, ["x"], target="position").r2["x"].value > 0.999
    found = probe(train, test, ["x"], target="velocity")
    assert found.r2["x"].value > 0.999
    assert (found.train_rows, found.test_rows, found.features) == (279, 119, 2)
    lagged = [Series("a", np.repeat(states[:1], 400, axis=0), states)]
    assert probe(*split(lagged, 0.3), ["x"], target="velocity").r2["x"].value < 0.05


def test_velocities_never_reach_over_the_end_of_an_episode() -> None:
    series = [Series(f"e{k}", np.full((5, 1), float(k)), np.full((5, 1), float(k))) for k in range(6)]
    with_jumps = probe(*split(series, 0.3), ["x"], target="velocity")
    assert with_jumps.train_rows == 16  # 4 episodes of 4 pairs
    assert with_jumps.r2 == {}  # no state moves within an episode
    assert any("constant in the test part" in note for note in with_jumps.notes)
    assert any("constant in the training part" in note for note in with_jumps.notes)


def test_split_takes_the_last_episodes_or_the_last_time_with_a_gap() -> None:
    frames = np.arange(20.0)[:, None]
    (train,), (test,) = split([Series("a", frames, frames)], 0.25, gap=3)
    assert train.states.ravel().tolist() == list(range(12))
    assert test.states.ravel().tolist() == [15, 16, 17, 18, 19]
    many = [Series(name, frames, frames) for name in "abcde"]
    parts = split(many, 0.3)
    assert [[one.name for one in part] for part in parts] == [["a", "b", "c"], ["d", "e"]]
    assert [len(part) for part in split(many[:2], 0.01)] == [1, 1]
    with pytest.raises(InputError, match="too few frames"):
        split([Series("a", frames[:6], frames[:6])], 0.5, gap=2)
    for share, gap in ((0.0, 0), (1.0, 0), (0.5, -1)):
        with pytest.raises(InputError, match="no such split"):
            split(many, share, gap=gap)


def test_pixels_pooling_and_kinds_side_by_side() -> None:
    films = [scene(seed) for seed in range(6)]
    rng = np.random.default_rng(6)
    filters = rng.standard_normal((144, 40)) / 12
    kinds = {
        "pixels": [Series(f"e{k}", pixels(frames), places) for k, (frames, places) in enumerate(films)],
        "untrained": [Series(f"e{k}", np.tanh(pixels(f) @ filters), places) for k, (f, places) in enumerate(films)],
        "mean": [
            Series(f"e{k}", pooled(f.transpose(0, 3, 1, 2) / 255.0), places) for k, (f, places) in enumerate(films)
        ],
    }
    found = compare(kinds, ["y", "x"], share=0.34)
    assert found["pixels"]["position"].r2["x"].value > 0.95
    assert found["pixels"]["position"].mean_r2 > found["untrained"]["position"].mean_r2 > 0.8
    assert found["mean"]["position"].mean_r2 < 0.3  # a dot that moves does not change the mean
    assert found["pixels"]["velocity"].features == 288
    with pytest.raises(InputError, match="untrained: features of other frames"):
        compare({**kinds, "untrained": kinds["untrained"][::-1]}, ["y", "x"])


def test_pooled_is_the_mean_of_cells() -> None:
    maps = np.random.default_rng(7).standard_normal((3, 2, 8, 12)).astype(np.float32)
    cells = maps.reshape(3, 2, 4, 2, 4, 3).mean((3, 5)).reshape(3, -1)
    np.testing.assert_allclose(pooled(maps, 4), cells, atol=1e-6)
    np.testing.assert_allclose(pooled(maps), maps.mean((2, 3)), atol=1e-6)
    uneven = pooled(np.ones((2, 1, 5, 7)), 3)
    np.testing.assert_array_equal(uneven, np.ones((2, 9)))
    for grid in (0, 9):
        with pytest.raises(InputError, match="no such grid"):
            pooled(maps, grid)
    with pytest.raises(InputError, match="not maps"):
        pooled(maps[0])


def test_many_features_are_fast() -> None:
    rng = np.random.default_rng(8)
    series = [Series("a", rng.standard_normal((300, 32768), dtype=np.float32), walk(8, 300))]
    before = time.process_time()
    probe(*split(series, 0.3, gap=8), ["x", "y"])
    assert time.process_time() - before < 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ["x"]}, "do not fit each other"),
        ({"test": []}, "a part is empty"),
        ({"target": "speed"}, "no such target"),
        ({"level": 1.0}, "no such interval"),
        ({"test": [Series("b", np.zeros((5, 9)), np.zeros((5, 2)))]}, "do not fit each other"),
    ],
)
def test_what_cannot_be_probed_is_said(change: dict[str, Any], words: str) -> None:
    train, test = split([Series("a", np.random.default_rng(9).standard_normal((50, 3)), walk(9, 50))])
    with pytest.raises(InputError, match=words):
        probe(**{"train": train, "test": test, "names": ["x", "y"], **change})


@pytest.mark.parametrize(
    ("features", "states"),
    [
        (np.zeros((4, 2)), np.zeros((5, 1))),
        (np.zeros(4), np.zeros((4, 1))),
        (np.zeros((4, 2), np.int64), np.zeros((4, 1))),
        (np.full((4, 2), np.nan), np.zeros((4, 1))),
        (np.zeros((4, 2)), np.full((4, 1), np.inf)),
        (np.zeros((0, 2)), np.zeros((0, 1))),
    ],
)
def test_series_refuse_what_does_not_fit(features: np.ndarray, states: np.ndarray) -> None:
    with pytest.raises(InputError, match="series 'a'"):
        Series("a", features, states)


def test_probes_are_repeatable() -> None:
    train, test = split([Series("a", np.random.default_rng(10).standard_normal((80, 5)), walk(10, 80))])
    one, two = (probe(train, test, ["x", "y"], seed=3) for _ in range(2))
    assert dataclasses.asdict(one) == dataclasses.asdict(two)
