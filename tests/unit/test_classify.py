"""The classifier as users hold it: what it refuses, what it promises, streaming, sets, calibration, folds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import Classifier
from pipelines.classify.metrics import (
    ConformalSets,
    bootstrap_intervals,
    calibration_error,
    confusion,
    figures,
    fit_temperature,
)
from pipelines.classify.options import ArchOptions, architecture
from pipelines.data.formats.labelled_types import LabelledSeries
from pipelines.errors import ConfigError, InputError
from pipelines.training.options import TrainOptions

QUICK = TrainOptions(epochs=1, batch_size=16)
SMALL = ArchOptions(d_model=16, d_ff=16, layers=1)


def waves(count: int = 24, *, seed: int = 0, groups: int = 0, lengths: tuple[int, int] = (20, 40)) -> LabelledSeries:
    """Slow and fast waves of unequal length in noise, two variables, some values missing."""
    rng = np.random.default_rng(seed)
    series, labels = [], []
    for i in range(count):
        steps = int(rng.integers(*lengths))
        speed = (0.4, 1.6)[i % 2]
        one = np.stack([np.sin(speed * np.arange(steps)), rng.normal(size=steps)]) + 0.1 * rng.normal(size=(2, steps))
        one[1, rng.random(steps) < 0.05] = np.nan
        series.append(one.astype(np.float32))
        labels.append(("slow", "fast")[i % 2])
    owners = [f"s{i // 2 % groups}" for i in range(count)] if groups else None
    return LabelledSeries.of(series, labels=labels, groups=owners, source="waves")


@pytest.fixture(scope="module")
def stream_model() -> Classifier:
    """A small causal LMUFormer."""
    arch = ArchOptions(d_model=12, d_ff=16)
    return Classifier(model="lmuformer", arch=arch, train=QUICK, seed=1).fit(waves())


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "attention", "arch"),
    [
        ("vsformer", None, SMALL),
        ("vsformer", "softmax", dataclasses.replace(SMALL, tsi=False)),
        ("transformer", "legendre", SMALL),
        ("transformer", "auto_correlation", SMALL),
        ("lmuformer", None, ArchOptions(d_model=12, causal=False)),
        ("minirocket", None, ArchOptions()),
        ("majority", None, ArchOptions()),
    ],
)
def test_every_model_answers_for_unequal_lengths_and_gaps(
    model: str, attention: str | None, arch: ArchOptions, tmp_path: Path
) -> None:
    data = waves()
    classifier = Classifier(model=model, attention=attention, arch=arch, train=QUICK).fit(data)
    result = classifier.predict(data)
    np.testing.assert_allclose(result.probabilities.sum(1), 1.0)
    assert result.classes == ("fast", "slow")
    assert result.frame.columns.tolist() == ["id", "label", "p(fast)", "p(slow)", "set"]
    if model in ("minirocket", "majority"):
        with pytest.raises(ConfigError, match="has no weights to keep"):
            classifier.save(tmp_path / "model")
    else:
        twin = Classifier.load(classifier.save(tmp_path / "model"))
        np.testing.assert_array_equal(twin.predict(data).probabilities, result.probabilities)


def test_a_model_learns_and_shows_the_shapes_that_told() -> None:
    train = TrainOptions(epochs=20, batch_size=8, learning_rate=3e-3, patience=0)
    data = waves(40, lengths=(30, 40))
    classifier = Classifier(arch=dataclasses.replace(SMALL, token_dropout=0.2), train=train, seed=3).fit(data)
    result = classifier.predict(waves(12, seed=9, lengths=(30, 40)))
    assert np.mean([a == b for a, b in zip(result.labels, result.truth or (), strict=True)]) >= 0.9
    shapes = [shape for one in result.shapes for shape in one]
    assert shapes
    assert all(shape.weight > 0 and 0 <= shape.prior <= 1 for shape in shapes)
    for one, series in zip(result.shapes, result.series, strict=False):
        for shape in one:
            window = series[shape.variable, shape.begin : shape.begin + len(shape.values)]
            assert len(window) == len(shape.values)
            assert np.corrcoef(window, shape.values)[0, 1] > 0.3


# Protocol -------------------------------------------------------------------------------------------------------------


def test_folds_judge_every_series_once_and_cut_no_group() -> None:
    data = waves(24, groups=4)
    classifier = Classifier(model="transformer", arch=SMALL, train=QUICK, protocol="folds:4").fit(data)
    evaluation = classifier.evaluate(data)
    assert evaluation.counts == {"n": 24, "classes": 2, "fits": 4, "groups": 4}
    assert evaluation.protocol.startswith("4 folds by group, no group in two")
    assert np.sum(evaluation.details["confusion"]) == 24
    assert set(evaluation.baselines) == {"minirocket", "dtw", "majority"}
    assert 0 <= evaluation.intervals["accuracy"][0] <= evaluation.metrics["accuracy"] <= 1


def test_the_official_split_is_kept_and_test_series_change_nothing() -> None:
    data = waves(24)
    split = dataclasses.replace(data, split=("train",) * 16 + ("test",) * 8)
    first = Classifier(arch=SMALL, train=QUICK).fit(split)
    other = list(data.series[:16]) + [one * 100 for one in data.series[16:]]
    second = Classifier(arch=SMALL, train=QUICK).fit(dataclasses.replace(split, series=tuple(other)))
    probe = waves(6, seed=5)
    np.testing.assert_array_equal(first.predict(probe).probabilities, second.predict(probe).probabilities)
    assert first.evaluate(split).counts["n"] == 8
    result = first.predict(split)
    assert len(result.ids) == 8
    assert "the 8 of 24 series of the official test part are labelled" in result.notes


# Streaming ------------------------------------------------------------------------------------------------------------


def test_step_by_step_equals_the_whole(stream_model: Classifier) -> None:
    data = waves(3, seed=4)
    whole = stream_model.predict(data).probabilities
    stream = stream_model.stream()
    for n, one in enumerate(data.series):
        stream.reset()
        answers = list(stream.run(one.T))
        assert stream.steps == one.shape[1]
        np.testing.assert_allclose(answers[-1][1], whole[n], atol=1e-5)
        assert answers[-1][0] == ("fast", "slow")[int(whole[n].argmax())]


def test_streaming_refuses_what_does_not_fit(stream_model: Classifier) -> None:
    stream = stream_model.stream()
    with pytest.raises(InputError, match=r"step 1: a step does not fit the model.*2 finite numbers \(v0, v1\)"):
        stream.push([1.0])
    with pytest.raises(InputError, match="step 1"):
        stream.push([1.0, float("inf")])
    with pytest.raises(ConfigError, match="vsformer needs the whole series"):
        Classifier(arch=SMALL, train=QUICK).fit(waves()).stream()


# Refusals -------------------------------------------------------------------------------------------------------------


def test_bad_series_and_options_are_refused() -> None:
    data = waves()
    with pytest.raises(InputError, match="nothing to tell apart"):
        Classifier(train=QUICK).fit(dataclasses.replace(data, labels=("one",) * len(data)))
    with pytest.raises(InputError, match="have no labels"):
        Classifier(train=QUICK).fit(dataclasses.replace(data, labels=None))
    fitted = Classifier(model="majority").fit(data)
    with pytest.raises(InputError, match="other variables than the model"):
        fitted.predict(LabelledSeries.of([np.zeros((3, 9))]))
    strange = dataclasses.replace(data, labels=("other", *(data.labels or ())[1:]), split=("test",) * len(data))
    mixed = dataclasses.replace(strange, split=("test",) + ("train",) * (len(data) - 1))
    with pytest.raises(InputError, match=r"label that training never saw. Found: other. Expected: fast, slow"):
        fitted.evaluate(mixed)
    for options, words in (
        ({"model": "vsfromer"}, "did you mean vsformer"),
        ({"model": "lmuformer", "attention": "softmax"}, "lmuformer has no attention"),
        ({"protocol": "folds:1"}, "unknown protocol"),
        ({"interval": 1.0}, "must lie between 0 and 1"),
        ({"model": "transformer", "arch": {"motif": 5}}, "transformer has no option motif"),
        ({"arch": {"n_heads": 5}}, "the heads do not divide the width"),
        ({"arch": {"motif": 500}}, "no such motif length"),
        ({"attention": "no_such"}, "no mechanism 'no_such'"),
    ):
        with pytest.raises(ConfigError, match=words):
            Classifier(**({"train": QUICK} | options)).fit(data)  # type: ignore[arg-type]
    assert architecture("lmuformer")["causal"] is True


def test_official_weights_are_opened_elsewhere() -> None:
    with pytest.raises(ConfigError, match="load_official"):
        Classifier.from_official("lmuformer.pth")


# Figures --------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(5, 60), st.integers(0, 10_000))
def test_figures_are_those_of_scikit_learn(classes: int, count: int, seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    shares, truth = rng.dirichlet(np.ones(classes), count), rng.integers(0, classes, count)
    found, guess = figures(shares, truth), shares.argmax(1)
    there = np.unique(truth)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
    assert found["balanced_accuracy"] == pytest.approx(
        metrics.recall_score(truth, guess, labels=there, average="macro", zero_division=0)
    )
    assert found["f1"] == pytest.approx(metrics.f1_score(truth, guess, labels=there, average="macro", zero_division=0))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, shares, labels=range(classes)))
    np.testing.assert_array_equal(
        confusion(guess, truth, classes), metrics.confusion_matrix(truth, guess, labels=range(classes))
    )
    assert 0 <= found["calibration_error"] <= 1


def test_calibration_error_and_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(3, p=row) for row in shares])
    assert calibration_error(shares, truth) < 0.03
    assert fit_temperature(3 * logits, truth) == pytest.approx(3.0, rel=0.08)
    assert fit_temperature(np.array([[5.0, 0.0]] * 4), np.zeros(4, int)) == pytest.approx(1.0, abs=1e-3)


def test_conformal_sets_cover_as_often_as_they_promise() -> None:
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(200):
        shares = rng.dirichlet(np.ones(4), 240)
        truth = np.array([rng.choice(4, p=row) for row in shares])
        sets = ConformalSets.fit(shares[:40], truth[:40])
        inside = sets(shares[40:], 0.8)
        hits.append(inside[np.arange(200), truth[40:]].mean())
    assert 0.79 <= np.mean(hits) <= 0.85
    few = ConformalSets.fit(shares[:3], truth[:3])
    assert few(shares, 0.9).all()


def test_whole_groups_are_drawn() -> None:
    shares = np.array([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10)
    truth = np.zeros(20, int)
    plain = bootstrap_intervals(shares, truth, replicates=300)["accuracy"]
    grouped = bootstrap_intervals(shares, truth, groups=np.repeat([0, 1], 10), replicates=300)["accuracy"]
    assert grouped == (0.0, 1.0)
    assert 0.2 < plain[0] < plain[1] < 0.8
