"""Changes of variables and quantiles of intervals: further numbers of VSFormer's value tokens."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.classify.changes import Changes
from pipelines.classify.tokens import Tokeniser, interval_quantiles, interval_statistics


def test_changes_are_central_differences_over_their_training_deviation() -> None:
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(3, steps)).cumsum(1) for steps in (40, 25, 60)]
    changes = Changes.fit(series, orders=2)
    rows = [changes.rows(one) for one in series]
    first = np.concatenate([np.gradient(one, axis=1) for one in series], axis=1)
    joined = np.concatenate([one[:3] for one in rows], axis=1)
    assert np.allclose(joined, first / np.sqrt(np.square(first).mean(1, keepdims=True)), atol=1e-5)
    assert np.allclose(np.square(np.concatenate(rows, axis=1)).mean(1), 1, atol=1e-4)
    assert Changes.fit(series, orders=0).rows(series[0]).shape == (0, 40)


def test_what_never_changes_or_was_not_measured_stays_so() -> None:
    one = np.stack([np.full(10, 5.0), np.arange(10.0)])
    one[1, 4] = np.nan
    rows = Changes.fit([one], orders=1).rows(one)
    assert not rows[0].any()
    assert np.flatnonzero(np.isnan(rows[1])).tolist() == [3, 5]  # the neighbours of the gap
    assert Changes.fit([one], orders=2).rows(one[:, :1]).tolist() == [[0.0]] * 4  # one step has no changes


def test_quantiles_are_those_of_numpy_on_measured_values() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(2, 30)).astype(np.float32)
    one[0, 3:20] = np.nan
    found = interval_quantiles([one], (0.1, 0.5, 0.9), (1, 2)).reshape(2, 3, 3)
    assert np.allclose(found[1, 2], np.quantile(one[1, 15:], (0.1, 0.5, 0.9)), atol=1e-6)
    assert np.allclose(found[0, 1], np.nanquantile(one[0, :15], (0.1, 0.5, 0.9)), atol=1e-6)
    one[0] = np.nan
    assert not interval_quantiles([one], (0.5,), (1,))[0, 0].any()


def test_a_tokeniser_with_both_is_stored_and_searches_only_the_given_variables() -> None:
    rng = np.random.default_rng(2)
    series = [rng.normal(size=(4, 40)).astype(np.float32) for _ in range(12)]
    labels = np.arange(12) % 2
    tokens = Tokeniser.fit(series, labels, count=1, shaped=2, quantiles=(0.1, 0.9))
    assert set(tokens.motifs.variable.tolist()) <= {0, 1}
    assert set((tokens.value_token // 15).tolist()) == {0, 1, 2, 3}
    assert tokens.statistics == 5
    again = Tokeniser.restored(tokens.arrays(), variables=4, classes=2)
    assert again.quantiles == (0.1, 0.9)
    assert np.array_equal(again(series)["value"], tokens(series)["value"])
    statistics, _ = interval_statistics(series)
    assert np.array_equal(tokens(series)["value"][..., :3], statistics[:, tokens.value_token])
    older = {name: value for name, value in tokens.arrays().items() if name != "quantiles"}
    assert Tokeniser.restored(older, variables=4, classes=2).statistics == 3


@pytest.mark.parametrize(("changes", "quantiles"), [(2, True), (1, False)])
def test_a_classifier_with_both_answers_the_same_once_stored(changes: int, quantiles: bool, tmp_path) -> None:
    from pipelines import Classifier, load
    from pipelines.data.formats.labelled_types import LabelledSeries

    rng = np.random.default_rng(3)
    # Two waves of one amplitude and other speeds: what changes tell and deviations do not.
    phase = rng.uniform(0, 6, 24)
    series = [np.sin(np.arange(60) * (0.3 + 0.5 * (i % 2)) + phase[i])[None].astype(np.float32) for i in range(24)]
    data = LabelledSeries.of(series, labels=["slow", "fast"] * 12)
    model = Classifier(arch={"changes": changes, "quantiles": quantiles}, train={"epochs": 3}, threads=1)
    model.fit(data)
    model.save(tmp_path / "m")
    assert np.array_equal(load(tmp_path / "m").state.probabilities(data), model.state.probabilities(data))
