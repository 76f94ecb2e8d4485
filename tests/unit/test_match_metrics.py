"""Figures of pairs and ranked lists against scikit-learn and against counting by hand; intervals over documents."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as peer

from pipelines.errors import ConfigError, InputError
from pipelines.match.metrics import (
    PAIR_FIGURES,
    best_threshold,
    bootstrap_by_document,
    by_length,
    curve_points,
    pair_metrics,
    undefined_figures,
)
from pipelines.match.ranking import ranking_figures, ranking_metrics

Array = NDArray[np.float64]


def pairs(count: int, seed: int, *, ties: bool) -> tuple[Array, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    scores = random.normal(0.8 * labels)
    return (np.round(scores, 1) if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [-0.3, 0.4])
def test_figures_of_pairs_are_those_of_scikit_learn(ties: bool, threshold: float) -> None:
    scores, labels = pairs(300, 1, ties=ties)
    called = scores >= threshold
    found = pair_metrics(scores, labels, threshold=threshold)
    assert list(found) == list(PAIR_FIGURES)
    expected = {
        "auc": peer.roc_auc_score(labels, scores),
        "average_precision": peer.average_precision_score(labels, scores),
        "accuracy": peer.accuracy_score(labels, called),
        "precision": peer.precision_score(labels, called),
        "recall": peer.recall_score(labels, called),
        "f1": peer.f1_score(labels, called),
    }
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_score_at_the_threshold_is_a_match() -> None:
    assert pair_metrics([0.5, 0.4], [1, 0], threshold=0.5)["f1"] == 1.0


@pytest.mark.parametrize(
    ("labels", "threshold", "missing"),
    [
        ([1, 1, 1], 0.0, {"auc"}),
        ([0, 0, 0], 0.0, {"auc", "average_precision", "recall"}),
        ([0, 0, 0], 9.0, {"auc", "average_precision", "precision", "recall", "f1"}),
        ([1, 0, 1], 9.0, {"precision"}),
        ([1, 0, 1], 0.2, set()),
    ],
)
def test_what_is_undefined_is_left_out_with_a_reason(labels: list[int], threshold: float, missing: set[str]) -> None:
    scores = [0.1, 0.2, 0.3]
    found = pair_metrics(scores, labels, threshold=threshold)
    reasons = undefined_figures(scores, labels, threshold=threshold)
    assert set(PAIR_FIGURES) - set(found) == set(reasons) == missing
    assert all(reasons.values())
    assert not any(math.isnan(value) for value in found.values())


def test_found_nothing_is_an_f1_of_zero() -> None:
    assert pair_metrics([0.1, 0.2], [1, 0], threshold=9.0)["f1"] == 0.0


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([], [], "not empty"),
        ([0.1], [1, 0], "one score and one label"),
        ([0.1, np.nan], [1, 0], "finite"),
        ([0.1, 0.2], [1, 2], "0 or 1"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(scores: list[float], labels: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        pair_metrics(scores, labels, threshold=0.5)


def test_points_of_the_curves_are_those_of_scikit_learn() -> None:
    scores, labels = pairs(200, 3, ties=True)
    cuts, hits, false = curve_points(scores, labels)
    x, y, thresholds = peer.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(false / false[-1], x[1:])
    np.testing.assert_allclose(hits / hits[-1], y[1:])
    np.testing.assert_array_equal(cuts, thresholds[1:])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=12).filter(
        lambda rows: len({label for _, label in rows}) == 2
    ),
    st.sampled_from(["f1", "accuracy"]),
)
def test_no_threshold_is_better_than_the_best(rows: list[tuple[int, bool]], figure: str) -> None:
    scores, labels = np.array([a / 4 for a, _ in rows]), np.array([b for _, b in rows])
    found = pair_metrics(scores, labels, threshold=best_threshold(scores, labels, figure=figure))[figure]
    every = [pair_metrics(scores, labels, threshold=cut).get(figure, 0.0) for cut in [*scores, 9.0]]
    assert found == pytest.approx(max(every), abs=1e-12)


def test_the_threshold_lies_in_the_widest_gap() -> None:
    assert best_threshold([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]) == pytest.approx(0.5)
    # Three of four are right with a cut below 0.9 and with one below 0.7.
    assert best_threshold([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0], figure="accuracy") == pytest.approx(0.4)
    near = np.array([1.0, np.nextafter(1.0, 0.0)])
    assert best_threshold(near, [1, 0]) == 1.0  # neighbouring floats
    with pytest.raises(InputError, match="one class"):
        best_threshold([0.1, 0.2], [1, 1])
    with pytest.raises(ConfigError, match="figure"):
        best_threshold([0.1, 0.2], [1, 0], figure="auc")


def repeated(metric: str, scores: Array, labels: NDArray[np.int64], times: NDArray[np.int64], cut: float) -> float:
    """A figure over pairs that are written out as often as they count."""
    rows = np.repeat(np.arange(len(scores)), times)
    return pair_metrics(scores[rows], labels[rows], threshold=cut).get(metric, float("nan"))


@pytest.mark.parametrize("metric", PAIR_FIGURES)
def test_the_bootstrap_counts_a_pair_by_its_two_documents(metric: str) -> None:
    scores, labels = pairs(60, 5, ties=True)
    random = np.random.default_rng(0)
    ends = random.integers(0, 12, (2, 60))
    found = bootstrap_by_document(*ends, labels, scores, metric, rounds=40, seed=7, threshold=0.3)
    # The same draws of documents, pair by pair.
    draws, values = np.random.default_rng(7), []
    drawn = draws.multinomial(12, np.full(12, 1 / 12), 40)
    for times in drawn:
        values.append(repeated(metric, scores, labels, times[ends[0]] * times[ends[1]], 0.3))
    lo, hi = np.nanpercentile(values, [2.5, 97.5])
    assert (found.lo, found.hi) == pytest.approx((lo, hi), abs=1e-12)
    assert found.value == pytest.approx(pair_metrics(scores, labels, threshold=0.3)[metric], abs=1e-12)
    assert (found.documents, found.rounds, found.undefined) == (12, 40, int(np.isnan(values).sum()))


def test_the_interval_holds_the_true_figure_where_pairs_share_documents() -> None:
    """Documents with many matches and, independent of it, with high scores: chance makes them the same documents.

    The true AUC is one half. Resampled pairs are far too sure of what they see, resampled documents are not.
    """
    random = np.random.default_rng(0)
    held = held_by_pairs = 0
    for _ in range(60):
        ends = random.integers(0, 30, (2, 300))
        scores, leaning = (random.normal(size=30)[ends].sum(0) + 0.5 * random.normal(size=300) for _ in range(2))
        labels = (leaning > 0).astype(np.int64)
        found = bootstrap_by_document(*ends, labels, scores, rounds=200)
        held += found.lo <= 0.5 <= found.hi
        wins = scores[labels == 1][:, None] > scores[labels == 0]
        up, down = wins.shape
        plain = [wins[random.integers(0, up, up)][:, random.integers(0, down, down)].mean() for _ in range(100)]
        held_by_pairs += np.percentile(plain, 2.5) <= 0.5 <= np.percentile(plain, 97.5)
    assert held >= 56
    assert held_by_pairs < 45


def test_differences_and_groups_are_measured_on_the_same_draws() -> None:
    scores, labels = pairs(300, 4, ties=False)
    ends = np.random.default_rng(3).integers(0, 60, (2, 300))
    same = bootstrap_by_document(*ends, labels, scores, baseline=scores * 2 + 1, rounds=50)
    assert same[:3] == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    fold = np.arange(300) % 3
    grouped = bootstrap_by_document(*ends, labels, scores + 10.0 * fold, rounds=50, groups=fold)
    each = [pair_metrics(scores[fold == n], labels[fold == n], threshold=0.0)["auc"] for n in range(3)]
    assert grouped.value == pytest.approx(np.mean(each), abs=1e-12)
    assert grouped.lo < grouped.value < grouped.hi


def test_the_bootstrap_repeats_itself_and_is_quick() -> None:
    scores, labels = pairs(5000, 6, ties=False)
    ends = np.random.default_rng(3).integers(0, 500, (2, 5000))
    before = time.process_time()
    first = bootstrap_by_document(*ends, labels, scores)
    assert time.process_time() - before < 8.0  # half a second where nothing else runs
    assert first.lo < first.value < first.hi
    small = bootstrap_by_document(*ends[:, :200], labels[:200], scores[:200], rounds=20, seed=1)
    assert small == bootstrap_by_document(*ends[:, :200], labels[:200], scores[:200], rounds=20, seed=1)


def test_a_bootstrap_without_sense_is_refused() -> None:
    with pytest.raises(InputError, match="do not define"):
        bootstrap_by_document([0, 1], [1, 2], [1, 1], [0.1, 0.2])
    with pytest.raises(ConfigError, match="no bootstrap"):
        bootstrap_by_document([0, 1], [1, 2], [1, 0], [0.1, 0.2], "ndcg")
    with pytest.raises(InputError, match="two documents"):
        bootstrap_by_document([0, 1, 2], [1, 2, 3], [1, 0], [0.1, 0.2])


def expected_by_counting(scores: list[float], relevant: set[int], k: int) -> tuple[float, float, float]:
    """Reciprocal rank, gain at k and recall at k: the mean over every order of equal scores, written out."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))
    first = [1 / (1 + min(order.index(one) for one in relevant)) for order in orders]
    gain = [sum(1 / math.log2(r + 2) for r, one in enumerate(o[:k]) if one in relevant) / ideal for o in orders]
    recall = [sum(one in relevant for one in order[:k]) / len(relevant) for order in orders]
    return float(np.mean(first)), float(np.mean(gain)), float(np.mean(recall))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.sets(st.integers(0, 5), min_size=1),
    st.integers(1, 6),
)
def test_ranked_lists_are_judged_by_the_mean_over_all_orders(values: list[int], wanted: set[int], k: int) -> None:
    relevant = {one % len(values) for one in wanted}
    scores = [float(value) for value in values]
    found = ranking_metrics([scores], [relevant], ks=(k,), gain_at=k)
    expected = expected_by_counting(scores, relevant, k)
    assert (found["mrr"], found[f"ndcg@{k}"], found[f"recall@{k}"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("digits", [1, 9])
def test_gain_is_that_of_scikit_learn(digits: int) -> None:
    random = np.random.default_rng(8)
    scores = np.round(random.normal(size=(20, 50)), digits)
    truth = random.random((20, 50)) < 0.1
    truth[:, 0] = True
    found = ranking_figures(scores, [set(np.flatnonzero(row).tolist()) for row in truth])["ndcg@10"]
    expected = [
        peer.ndcg_score(row[None], score[None], k=10) for row, score in zip(truth.astype(float), scores, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_queries_without_an_answer_are_counted_and_left_out() -> None:
    found = ranking_metrics(iter([[0.9, 0.1], [0.2, 0.3]]), [{0}, set()], ks=(1,))
    assert found == {"mrr": 1.0, "ndcg@10": 1.0, "recall@1": 1.0, "queries": 2, "without_answer": 1}
    assert ranking_metrics([[0.1]], [()]) == {"queries": 1, "without_answer": 1}


def test_the_query_itself_is_no_candidate() -> None:
    scores = np.array([-np.inf, 0.2, 0.9])
    assert ranking_metrics([scores], [{2}], ks=(1,))["mrr"] == 1.0
    with pytest.raises(InputError, match="no candidate"):
        ranking_metrics([scores], [{0}])
    with pytest.raises(InputError, match="no candidate"):
        ranking_metrics([scores], [{3}])
    with pytest.raises(InputError, match="each query"):
        ranking_metrics([scores], [{1}, {2}])
    with pytest.raises(InputError, match="more queries"):
        ranking_metrics([scores, scores], [{1}])
    with pytest.raises(InputError, match="must be numbers"):
        ranking_metrics([[0.1, np.nan]], [{0}])


def test_bins_of_length_hold_every_pair_once_and_equal_lengths_together() -> None:
    scores, labels = pairs(400, 2, ties=False)
    random = np.random.default_rng(1)
    left, right = random.integers(1, 40, 400), random.integers(1, 40, 400)
    for which, lengths in (("longer", np.maximum(left, right)), ("shorter", np.minimum(left, right))):
        found = by_length(scores, labels, left, right, threshold=0.3, which=which)
        assert len(found) == 4
        assert sorted(np.concatenate([one.rows for one in found]).tolist()) == list(range(400))
        for one in found:
            inside = (lengths >= one.low) & (lengths <= one.high)
            np.testing.assert_array_equal(np.flatnonzero(inside), one.rows)
            assert one.figures == pair_metrics(scores[inside], labels[inside], threshold=0.3)
            assert (one.pairs, one.matches) == (inside.sum(), labels[inside].sum())
            assert 60 < one.pairs < 140
    one = by_length(scores, labels, np.full(400, 7), np.full(400, 7), threshold=0.3)
    assert [(part.low, part.high, part.pairs) for part in one] == [(7, 7, 400)]
    with pytest.raises(ConfigError, match="longer or shorter"):
        by_length(scores, labels, left, right, threshold=0.3, which="mean")
    with pytest.raises(InputError, match="two lengths"):
        by_length(scores, labels, left, right[:5], threshold=0.3)
