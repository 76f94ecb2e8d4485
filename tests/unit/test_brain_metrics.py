"""Figures of scans against scikit-learn and by hand, means by unit, intervals and permutations against enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as peer

from pipelines.errors import ConfigError, InputError
from pipelines.fmri.metrics import (
    auroc,
    class_figures,
    confusion,
    number_figures,
    pairwise_accuracy,
    undefined_class_figures,
    undefined_number_figures,
)
from pipelines.fmri.permutation import bootstrap_units, paired_difference, permutation_p
from pipelines.fmri.units import UnitMeans, aggregate, unit_labels

Array = NDArray[Any]


def drawn(classes: int, *, ties: bool = False, count: int = 240, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, count - classes)])
    scores = random.normal(size=(count, classes)) + 1.2 * np.eye(classes)[labels]
    return (scores[random.integers(0, count // 3, count)] if ties else scores), labels


def softmax(scores: Array) -> Array:
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 8])
def test_figures_of_classes_are_those_of_scikit_learn(classes: int, ties: bool) -> None:
    scores, labels = drawn(classes, ties=ties)
    shares, called = softmax(scores), scores.argmax(1)
    ranked = scores[:, 1] - scores[:, 0] if classes == 2 else shares
    expected = {
        "accuracy": peer.accuracy_score(labels, called),
        "balanced_accuracy": peer.balanced_accuracy_score(labels, called),
        "auroc": peer.roc_auc_score(labels, ranked, multi_class="ovr"),
        "f1": peer.f1_score(labels, called, average="macro"),
        "log_loss": peer.log_loss(labels, shares),
    }
    assert class_figures(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert (confusion(called, labels, classes) == peer.confusion_matrix(labels, called)).all()


def test_figures_with_a_class_missing_are_those_of_scikit_learn() -> None:
    scores, labels = drawn(4)
    keep = labels != 2
    scores, labels = scores[keep], labels[keep]
    found, called = class_figures(scores, labels), scores.argmax(1)
    assert 2 in called, "the case must hold a class that is predicted and never true"
    assert found["f1"] == pytest.approx(peer.f1_score(labels, called, average="macro"))
    recalls = peer.recall_score(labels, called, average=None, labels=[0, 1, 3])
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    each = [peer.roc_auc_score(labels == one, softmax(scores)[:, one]) for one in (0, 1, 3)]
    assert found["auroc"] == pytest.approx(np.mean(each))
    assert "3 classes that occur; of 4, these do not: 2" in undefined_class_figures(scores, labels)["auroc"]


def test_one_column_is_the_logit_of_class_one() -> None:
    logit = np.array([[-1.0], [0.5], [2.0], [-0.2]])
    labels = np.array([0, 0, 1, 1])
    found = class_figures(logit, labels)
    assert found["accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx(peer.log_loss(labels, 1 / (1 + np.exp(-logit[:, 0]))))
    assert found["auroc"] == pytest.approx(peer.roc_auc_score(labels, logit[:, 0]))


def test_auroc_tells_shares_apart_that_round_to_one() -> None:
    scores = np.array([[0.0, 60.0], [0.0, 50.0], [0.0, 55.0], [0.0, 45.0]])
    assert (softmax(scores)[:3, 1] == 1).all()
    assert auroc(scores, [1, 0, 1, 0]) == 1.0


def test_one_class_leaves_the_auroc_undefined_and_says_why() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = class_figures(scores, [0, 0])
    assert math.isnan(found["auroc"])
    assert found["accuracy"] == found["balanced_accuracy"] == 0.5
    assert undefined_class_figures(scores, [0, 0])["auroc"] == "undefined: all 2 labels are of class 0"


def test_a_class_never_learned_has_a_finite_log_loss() -> None:
    scores = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    assert class_figures(scores, [0, 1])["log_loss"] == pytest.approx(-math.log(np.finfo(float).eps) / 2)
    assert class_figures(scores, [0, 1])["auroc"] == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([[0.0, np.nan]], [0], "1 NaN or infinite"),
        ([[0.0, np.inf]], [0], "1 NaN or infinite"),
        ([[-np.inf, -np.inf]], [0], "NaN or infinite"),
        ([[0.0, 1.0]], [2], "integers from 0 to 1"),
        ([[0.0, 1.0]], [-1], "integers from 0 to 1"),
        ([[0.0, 1.0]], ["face"], "<U4"),
        ([[0.0, 1.0]], [0.5], "float64"),
        ([[0.0, 1.0]], [0, 1], r"\(1, 2\), labels \(2,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "not empty"),
        ([0.0, 1.0], [0, 1], "one row of scores"),
    ],
)
def test_bad_scores_and_labels_are_refused(scores: Any, labels: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        class_figures(scores, labels)


def test_figures_of_numbers_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    truth = 60 + 10 * random.standard_normal(50)  # ages in years, far from zero
    predicted = truth + 4 * random.standard_normal(50)
    found = number_figures(predicted, truth[:, None])
    expected = {
        "mse": peer.mean_squared_error(truth, predicted),
        "mae": peer.mean_absolute_error(truth, predicted),
        "pearson": np.corrcoef(truth, predicted)[0, 1],
        "r2": peer.r2_score(truth, predicted),
    }
    assert found == pytest.approx(expected, abs=1e-12)
    assert undefined_number_figures(predicted, truth) == {}


def test_figures_of_constant_numbers_are_undefined_and_say_why() -> None:
    flat = number_figures([3.0, 3.0], [1.0, 5.0])
    assert math.isnan(flat["pearson"])
    assert (flat["r2"], flat["mae"]) == (0.0, 2.0)
    same = number_figures([0.1 + 0.2, 0.3], [7.0, 7.0])
    assert math.isnan(same["pearson"])
    assert math.isnan(same["r2"])
    assert set(undefined_number_figures([1.0, 2.0], [7.0, 7.0])) == {"pearson", "r2"}
    with pytest.raises(InputError, match="not finite"):
        number_figures([np.nan], [1.0])


def test_pairwise_accuracy_looks_at_two_columns_and_two_classes_only() -> None:
    scores, labels = drawn(8)
    rows = np.isin(labels, (3, 5))
    expected = np.mean(np.where(scores[rows, 5] > scores[rows, 3], 5, 3) == labels[rows])
    assert pairwise_accuracy(scores, labels, 5, 3) == (pytest.approx(expected), rows.sum())
    assert pairwise_accuracy(scores, labels, 3, 5)[0] == pytest.approx(expected)
    assert pairwise_accuracy(scores[rows], labels[rows], 3, 5)[0] > (scores[rows].argmax(1) == labels[rows]).mean()
    assert math.isnan(pairwise_accuracy(scores[~rows], labels[~rows], 3, 5)[0])
    with pytest.raises(InputError, match="not two classes"):
        pairwise_accuracy(scores, labels, 3, 8)


def test_means_by_unit_count_every_window_once_whatever_the_batches() -> None:
    random = np.random.default_rng(2)
    scores = random.standard_normal((101, 3)).astype(np.float32) * 10.0 ** random.integers(-6, 6, (101, 1))
    unit = random.choice(["sub-3", "sub-1", "sub-2"], 101)
    whole = aggregate(scores, unit)
    assert whole.units.tolist() == ["sub-1", "sub-2", "sub-3"]
    for row, name in enumerate(whole.units):
        assert whole.sizes[row] == (unit == name).sum()
        assert whole.scores[row] == pytest.approx(scores[unit == name].astype(np.float64).mean(0), rel=1e-12)
    for batch in (1, 7, 64):
        parts = UnitMeans()
        for start in range(0, 101, batch):
            parts.update(scores[start : start + batch], unit[start : start + batch])
        assert (parts.result().scores == whole.scores).all(), "not one bit may depend on the batches"
    assert whole.sizes.sum() == 101


def test_labels_by_unit_must_agree() -> None:
    assert unit_labels([1, 0, 1], [9, 2, 9]).tolist() == [0, 1]
    with pytest.raises(InputError, match=r"unit 9: .*1 and 0.*blocks instead of runs"):
        unit_labels([1, 0, 0], [9, 2, 9])
    with pytest.raises(InputError, match="1 NaN"):
        aggregate([[np.nan]], [1])
    with pytest.raises(InputError, match="no predictions"):
        UnitMeans().result()
    means = UnitMeans()
    means.update([[1.0, 2.0]], [1])
    with pytest.raises(InputError, match="one row of scores"):
        means.update([[1.0]], [1])


def test_the_interval_is_that_of_all_draws_of_whole_units() -> None:
    """Three units have 27 draws: their quantiles are known without chance."""
    right = np.array([1, 1, 0, 1, 0, 0, 0, 1, 1, 1])
    unit = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    scores, labels = np.eye(2)[right], np.ones(10, int)
    hits, sizes = np.bincount(unit, right), np.bincount(unit)
    every = [hits[list(draw)].sum() / sizes[list(draw)].sum() for draw in itertools.product(range(3), repeat=3)]
    found = bootstrap_units("accuracy", scores, labels, unit, samples=2000, level=0.8)
    assert found.value == pytest.approx(0.6)
    assert (found.lo, found.hi) == pytest.approx(np.quantile(every, [0.1, 0.9], method="inverted_cdf"), abs=1e-12)
    assert (found.units, found.samples, found.undefined) == (3, 2000, 0)
    assert "3 units only" in found.note
    again = bootstrap_units("accuracy", scores, labels, np.array(list("aaabbbbccc")), samples=2000, level=0.8)
    assert again == found, "the names of the units do not matter"


def test_intervals_over_units_are_wider_than_over_rows_where_rows_are_alike() -> None:
    random = np.random.default_rng(3)
    unit = np.repeat(np.arange(20), 30)
    right = np.repeat(random.random(20) < 0.7, 30).astype(int)
    scores, labels = np.eye(2)[right], np.ones(600, int)
    by_unit = bootstrap_units("accuracy", scores, labels, unit, samples=400)
    by_row = bootstrap_units("accuracy", scores, labels, np.arange(600), samples=400)
    assert by_unit.hi - by_unit.lo > 4 * (by_row.hi - by_row.lo)


def test_one_unit_has_no_interval_and_draws_without_a_figure_are_counted() -> None:
    scores, labels = drawn(2, count=40)
    alone = bootstrap_units("auroc", scores, labels, np.zeros(40, int))
    assert alone.value == pytest.approx(peer.roc_auc_score(labels, scores[:, 1] - scores[:, 0]))
    assert math.isnan(alone.lo)
    assert "one unit only" in alone.note
    pure = bootstrap_units("auroc", scores, labels, labels, samples=300)  # half of the draws are of one class
    assert 100 < pure.undefined < 200
    assert f"{pure.undefined} of 300 draws define no figure" in pure.note
    assert pure.lo == pytest.approx(pure.hi)


def test_the_difference_of_two_models_is_paired() -> None:
    random = np.random.default_rng(4)
    unit = np.repeat(np.arange(12), 40)
    hard = np.repeat(random.random(12), 40)
    draw = random.random(480)
    one, two = np.eye(2)[(draw < 0.9 - 0.7 * hard).astype(int)], np.eye(2)[(draw < 0.8 - 0.7 * hard).astype(int)]
    labels = np.ones(480, int)
    difference = paired_difference("accuracy", one, two, labels, unit)
    apart = bootstrap_units("accuracy", one, labels, unit)
    assert difference.value == pytest.approx((one.argmax(1) == 1).mean() - (two.argmax(1) == 1).mean())
    assert 0 < difference.lo < difference.value < difference.hi
    assert difference.hi - difference.lo < (apart.hi - apart.lo) / 2
    with pytest.raises(InputError, match="one row of scores"):
        paired_difference("accuracy", one, two[:-1], labels, unit)


def test_the_p_value_is_that_of_all_orders_of_the_blocks() -> None:
    """Two runs of three blocks have 6 x 6 orders of their labels: the exact share is known."""
    labels = np.repeat([0, 1, 2, 2, 0, 1], 4)
    unit, block = np.repeat([0, 1], 12), np.tile(np.repeat([0, 1, 2], 4), 2)  # blocks are numbered anew in each run
    random = np.random.default_rng(5)
    scores = random.standard_normal((24, 3)) + 0.5 * np.eye(3)[labels]
    called = scores.argmax(1)
    value = (called == labels).mean()
    orders = list(itertools.permutations(range(3)))
    every = np.array([(called == np.repeat([*a, *b], 4)).mean() for a in orders for b in orders])
    found = permutation_p("accuracy", scores, labels, unit, within=True, block=block, samples=1500)
    assert found.value == pytest.approx(value)
    assert found.arrangements == 36
    assert found.p == pytest.approx((every >= value - 1e-12).mean(), abs=0.02)
    assert found.chance == pytest.approx(every.mean(), abs=0.01)
    assert "36 orders only" in found.note


def test_p_values_of_noise_are_spread_evenly_with_blocks_and_too_small_without() -> None:
    random = np.random.default_rng(6)
    unit, block = np.repeat(np.arange(4), 32), np.repeat(np.arange(16), 8)
    with_blocks, without = [], []
    for _ in range(40):
        labels = np.concatenate([np.repeat(random.permutation(4), 8) for _ in range(4)])
        scores = np.repeat(random.standard_normal((16, 4)), 8, axis=0)  # noise that is alike within a block
        with_blocks.append(permutation_p("accuracy", scores, labels, unit, within=True, block=block, samples=50).p)
        without.append(permutation_p("accuracy", scores, labels, unit, within=True, samples=50).p)
    small = [float(np.mean(np.array(each) < 0.1)) for each in (with_blocks, without)]
    assert small[0] <= 0.15, "ten in a hundred are due"
    assert small[1] >= small[0] + 0.1, f"{small}"
    assert 0.35 < np.mean(with_blocks) < 0.75


def test_labels_of_subjects_move_between_subjects_only() -> None:
    unit = np.repeat(np.arange(6), 5)
    age = np.repeat([20.0, 30.0, 40.0, 50.0, 60.0, 70.0], 5)
    guess = age + np.random.default_rng(7).standard_normal(30)
    found = permutation_p("mae", guess, age, unit, within=False, samples=2000)
    assert found.arrangements == 720
    assert found.p == pytest.approx(1 / 720, abs=0.003)
    assert found.chance > 10 > found.value
    assert found.chance_95 < found.chance, "where smaller is better, the good end is the low one"
    same = permutation_p(
        lambda a, b: -float(np.abs(a - b).mean()), guess, age, unit, within=False, samples=2000, larger_is_better=True
    )
    assert same.p == found.p
    with pytest.raises(InputError, match="two labels"):
        permutation_p("mae", guess, np.arange(30.0), unit, within=False)
    with pytest.raises(InputError, match="one order only"):
        permutation_p("mae", guess, age, unit, within=True, block=unit)


def test_the_smallest_p_value_is_one_over_the_draws() -> None:
    scores, labels = np.eye(2)[np.arange(200) % 2], np.arange(200) % 2
    assert permutation_p("accuracy", scores, labels, np.zeros(200, int), within=True, samples=99).p == 0.01


def test_settings_that_do_not_fit_are_refused() -> None:
    scores, labels = drawn(2, count=20)
    unit = np.arange(20) // 5
    with pytest.raises(ConfigError, match="no such figure"):
        bootstrap_units("accurracy", scores, labels, unit)
    with pytest.raises(ConfigError, match="too few draws"):
        bootstrap_units("accuracy", scores, labels, unit, samples=1)
    with pytest.raises(ConfigError, match="not a level"):
        bootstrap_units("accuracy", scores, labels, unit, level=95)
    with pytest.raises(InputError, match="unit: each row"):
        bootstrap_units("accuracy", scores, labels, unit[:-1])
    with pytest.raises(InputError, match="do not define the figure"):
        bootstrap_units("auroc", scores, np.zeros(20, int), unit)
    with pytest.raises(ConfigError, match="larger_is_better"):
        permutation_p(lambda a, b: 0.0, scores, labels, unit, within=True)
    with pytest.raises(ConfigError, match="within units only"):
        permutation_p("accuracy", scores, labels, unit, within=False, block=unit)
