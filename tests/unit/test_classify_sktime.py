"""The sktime classifier: sktime's own checks whole, and what those do not look at."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sktime.datasets import load_basic_motions, load_japanese_vowels
from sktime.datatypes import convert
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from pipelines import Classifier
from pipelines.classify.options import MODELS, TRAINING, ArchOptions
from pipelines.classify.sktime import VSFormerClassifier
from pipelines.errors import ConfigError, InputError, Interrupted
from pipelines.training.options import TrainOptions

TINY: dict[str, Any] = {"d_model": 8, "d_ff": 8, "epochs": 1, "max_steps": 2, "random_state": 0}
LEARNS: dict[str, Any] = {"motifs": 1, "d_model": 16, "d_ff": 32, "epochs": 5, "learning_rate": 5e-3, "random_state": 0}


def tiny(**params: Any) -> VSFormerClassifier:
    return VSFormerClassifier(**{**TINY, **params})


def waves(count: int = 20, *, variables: int = 1, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Slow and fast waves in noise: X (n, variables, 24), and which they are."""
    rng, kind = np.random.default_rng(seed), np.arange(count) % 2
    phase = rng.normal(size=(count, variables, 1))
    wave = np.sin(np.array([0.4, 1.6])[kind][:, None, None] * np.arange(24) + phase)
    return wave + 0.1 * rng.normal(size=wave.shape), kind


def ragged(X: NDArray[Any], least: int) -> list[pd.DataFrame]:
    """The same series as data frames of `least` steps, one more each time, as far as there are steps."""
    return [pd.DataFrame(one[:, : least + place].T, columns=["a", "b"][: len(one)]) for place, one in enumerate(X)]


def messages(run: Any) -> list[str]:
    """Texts of the classifier's own warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(one.message) for one in caught if str(one.message).startswith("VSFormerClassifier: ")]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# sktime's contract ----------------------------------------------------------------------------------------------------


@parametrize_with_checks(VSFormerClassifier, obj_varname="estimator")
def test_sktime_check(estimator: type, test_name: str) -> None:
    results = check_estimator(estimator, tests_to_run=test_name, raise_exceptions=False, verbose=False)
    assert results
    assert {check: error for check, error in results.items() if error != "PASSED"} == {}


def test_no_check_is_left_out() -> None:
    tags = VSFormerClassifier.get_class_tags()
    assert not [name for name in tags if name.startswith("tests:skip") and tags[name]]
    can = ("multivariate", "unequal_length", "missing_values", "predict_proba", "random_state")
    assert all(tags[f"capability:{name}"] is True for name in can)


def test_import_loads_no_lightning() -> None:
    code = "import sys, pipelines.classify.sktime; sys.exit(any(m in sys.modules for m in ('lightning', 'stumpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_parameter_is_documented_with_the_default_that_it_has() -> None:
    text = inspect.getdoc(VSFormerClassifier) or ""
    defaults = {
        **dict(MODELS["vsformer"].defaults),
        **vars(TRAINING),
        "learning_rate": MODELS["vsformer"].learning_rate,
    }
    for name, parameter in inspect.signature(VSFormerClassifier).parameters.items():
        found = re.search(rf"^{name} : (.+)\n    (.+)", text, re.MULTILINE)
        assert found, name
        if parameter.default is not None:
            stated = f'"{parameter.default}"' if isinstance(parameter.default, str) else str(parameter.default)
            assert f"default={stated}" in found[1], name
            assert defaults.get(name, parameter.default) == parameter.default, name
        elif defaults.get(name) is not None:
            stated = f'"{defaults[name]}"' if isinstance(defaults[name], str) else str(defaults[name])
            assert f"by default {stated}." in found[2], name


# Learning -------------------------------------------------------------------------------------------------------------


def test_learns_basic_motions_and_tells_why(tmp_path: Path) -> None:
    X, y = load_basic_motions(split="train", return_type="numpy3D")
    unseen, truth = load_basic_motions(split="test", return_type="numpy3D")
    classifier = VSFormerClassifier(**LEARNS).fit(X, y)
    assert classifier.score(unseen, truth) > 0.9

    # The sets of the nominal level that eight held-out series can vouch for hold the truth about as often.
    sets = classifier.predict_sets(unseen, level=0.8)
    assert list(sets.columns) == list(classifier.classes_)
    held = sets.to_numpy()[np.arange(len(truth)), np.searchsorted(classifier.classes_, truth)]
    assert held.mean() > 0.7
    assert sets.sum(axis=1).between(1, 2).mean() > 0.5

    told = classifier.explain(unseen[:3])
    assert [bool(shapes) for shapes in told] == [True] * 3
    for one, shapes in zip(unseen, told, strict=False):
        assert len(shapes) <= 3
        for shape in shapes:
            assert shape.weight > 0
            assert shape.label in classifier.classes_
            if shape.variable >= len(one):
                continue  # of a component
            window = one[shape.variable, shape.begin : shape.begin + len(shape.values)]
            assert np.corrcoef(window, shape.values)[0, 1] > 0.3

    # The fitted pipeline answers the same after it was stored, and so does the classifier.
    expected = classifier.predict_proba(unseen)
    stored = Classifier.load(classifier.classifier_.save(tmp_path / "model"))
    np.testing.assert_array_equal(stored.predict(unseen).probabilities, expected)
    twin = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(twin.predict_proba(unseen), expected)
    assert twin.notes_ == classifier.notes_


def test_learns_series_of_unequal_length() -> None:
    parts = {}
    for split in ("train", "test"):
        X, y = load_japanese_vowels(split=split, return_type="df-list")
        chosen = [i for label in ("1", "2", "3") for i in np.flatnonzero(y == label)[:12]]
        parts[split] = [X[i].iloc[:, :4] for i in chosen], y[chosen]
    classifier = VSFormerClassifier(**LEARNS).fit(*parts["train"])
    assert classifier.score(*parts["test"]) > 0.8


def test_equals_the_pipeline() -> None:
    X, kind = waves()
    ours = tiny(random_state=7).fit(X, kind)
    options = {
        "arch": ArchOptions(d_model=8, d_ff=8),
        "train": TrainOptions(**vars(TRAINING) | {"epochs": 1, "max_steps": 2}),
    }
    pipeline = Classifier(**options, seed=7, device="cpu").fit((X, kind))
    np.testing.assert_array_equal(ours.predict_proba(X), pipeline.predict(X).probabilities)
    assert ours.temperature_ == pipeline.state.temperature
    assert ours.training_["steps"] == 2


# Labels and containers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["up", "down"]),
        np.array([10, 9]),
        np.array(["10", "9"]),  # sktime sorts them as text, the pipeline as numbers
        np.array([-2.5, 1.0]),
        np.array([True, False]),
        np.array(["b ", "b"], dtype=object),
        np.array([3, 1], dtype=np.int8),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_keep_their_type_and_order(labels: NDArray[Any]) -> None:
    X, kind = waves()
    classifier = tiny(max_steps=0, learning_rate=0.02, dropout=0.0, token_dropout=0.0).fit(X, labels[kind])
    np.testing.assert_array_equal(classifier.classes_, np.sort(labels))
    predicted = classifier.predict(X)
    assert predicted.dtype == labels.dtype
    np.testing.assert_array_equal(classifier.classes_[classifier.predict_proba(X).argmax(1)], predicted)
    assert (predicted == labels[kind]).mean() > 0.8  # columns in another order than classes_ would be below a half
    assert {type(shape.label) for shape in classifier.explain(X)[0]} <= {type(label) for label in labels}


def test_labels_that_are_missing_are_refused() -> None:
    X, kind = waves()
    with pytest.raises(InputError, match=r"labels are missing\. Found: 1 of 20 missing, the first at place 3"):
        tiny().fit(X, np.where(np.arange(20) == 3, np.nan, kind))


def test_containers_say_the_same() -> None:
    X, kind = waves(variables=2)
    expected = tiny().fit(X, kind).predict_proba(X)
    for kind_of in ("nested_univ", "df-list", "pd-multiindex"):
        panel = convert(X, "numpy3D", kind_of, as_scitype="Panel")
        np.testing.assert_array_equal(tiny().fit(panel, pd.Series(kind)).predict_proba(panel), expected)
    np.testing.assert_array_equal(
        tiny().fit(X[:, 0], kind).predict(X[:, 0]), tiny().fit(X[:, :1], kind).predict(X[:, :1])
    )


def test_columns_keep_their_place() -> None:
    X, kind = waves(variables=2)
    panel = convert(X, "numpy3D", "pd-multiindex", as_scitype="Panel")
    classifier = tiny().fit(panel, kind)
    with pytest.raises(InputError, match=r"another order than in fit\. Found: var_1, var_0"):
        classifier.predict(panel[["var_1", "var_0"]])
    renamed = panel.set_axis(["p", "q"], axis=1)
    assert messages(lambda: classifier.predict(renamed))[0].endswith(
        "columns p, q of X are taken for var_0, var_1 of fit, by their place"
    )
    with pytest.raises(InputError, match="other variables than the model"):
        classifier.predict(panel[["var_0"]])
    odd = ragged(X, 8)
    odd[3] = odd[3][["b", "a"]]
    with pytest.raises(InputError, match="series 3: other columns than those of the first"):
        tiny().fit(odd, kind)


# What was done to the data is said ------------------------------------------------------------------------------------


def test_clean_series_are_not_warned_of() -> None:
    X, kind = waves()
    classifier = tiny()
    assert messages(lambda: classifier.fit(X, kind).predict(X)) == []
    assert classifier.notes_ == (
        "4 of 20 training series are held out to calibrate, before all are trained on",
        "trained again on all 20 series; the calibration is that of the first training",
    )


def test_missing_values_and_short_series_are_counted() -> None:
    X, kind = waves(variables=2)
    frames = ragged(X, 6)
    frames[5].iloc[2:4, 1] = np.nan
    frames[9].iloc[0, 0] = np.nan
    classifier = tiny(motif=8, tokens=4, components=0)
    said = messages(lambda: classifier.fit(frames, kind))
    for text in (
        "3 values in 2 of 20 series are missing",
        "2 of 20 series are shorter than a motif (8 steps): judged by values alone",
        "shape tokens: the 4 of 12 with the largest priors are kept",
    ):
        assert any(text in note for note in classifier.notes_), text
        assert any(text in message for message in said), text
    assert len(said) == len(classifier.notes_) - 2  # held out, trained again: at every fit
    assert any("1 of 1 series are shorter" in message for message in messages(lambda: classifier.predict(frames[:1])))
    assert messages(lambda: classifier.set_config(warnings="off").fit(frames, kind)) == []
    # Filled values would be others: what is missing reaches neither motifs nor statistics.
    blank = [frame.copy() for frame in frames]
    blank[5].iloc[2:4, 1] = 1e6
    assert not np.allclose(classifier.predict_proba(blank), classifier.predict_proba(frames))


def test_few_series_lone_examples_and_single_labels() -> None:
    X, kind = waves(8)
    classifier = tiny().fit(X, kind)
    sets: list[pd.DataFrame] = []
    assert "2 held-out series are too few for 90 % sets" in messages(lambda: sets.append(classifier.predict_sets(X)))[0]
    assert sets[0].to_numpy().all()
    with pytest.raises(ConfigError, match="level: must lie between 0 and 1"):
        classifier.predict_sets(X, level=1.0)
    lone = tiny().fit(X, np.where(np.arange(8) == 7, 2, kind))
    assert "1 classes with one training example are not in the validation part" in lone.notes_
    assert lone.predict_proba(X).shape == (8, 3)
    one = tiny().fit(X, np.full(8, "only"))
    assert one.predict_sets(X).to_numpy().all()
    assert one.explain(X) == [[] for _ in X]
    pair = tiny().fit(X[:2], kind[:2])
    assert any("there is one of each class" in note for note in pair.notes_)
    assert pair.predict_proba(X).shape == (8, 2)
    several = tiny().fit(X, pd.DataFrame({"a": kind, "b": 1 - kind}))
    with pytest.raises(ConfigError, match="several outputs"):
        several.explain(X)


# Randomness, settings, composition ------------------------------------------------------------------------------------


def test_random_state_decides_and_leaves_no_trace() -> None:
    X, kind = waves()
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    first, again = (tiny(random_state=3).fit(X, kind).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert not np.allclose(first, tiny(random_state=4).fit(X, kind).predict_proba(X))
    assert not np.allclose(*(tiny(random_state=None).fit(X, kind).predict_proba(X) for _ in range(2)))
    drawn = [tiny(random_state=np.random.RandomState(1)).fit(X, kind).predict_proba(X) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    # A second fit starts from scratch, whatever was fitted in between.
    classifier = tiny(random_state=3).fit(X, kind).fit(*waves(12, variables=2)).fit(X, kind)
    np.testing.assert_array_equal(classifier.predict_proba(X), first)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"random_state": -1}, "random_state: no seed"),
        ({"random_state": "seven"}, "random_state: no seed"),
        ({"attention": "none"}, "no mechanism 'none'"),
        ({"form": "sum"}, "form is 'sum'"),
        ({"motif": 25}, "no such motif length"),
        ({"d_model": 9}, "heads do not divide"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_settings_that_cannot_be(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**params).fit(*waves())


def test_composes_with_sktime_and_scikit_learn() -> None:
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sktime.classification.model_selection import TSCGridSearchCV
    from sktime.transformations.series.exponent import ExponentTransformer

    X, kind = waves()
    y = np.array(["slow", "fast"])[kind]
    grid = {"d_model": np.array([8, 16]), "tsi": np.array([True])}
    for search in (TSCGridSearchCV(tiny(), grid, cv=2), GridSearchCV(tiny(), grid, cv=2, error_score="raise")):
        assert search.fit(X, y).best_params_["d_model"] in (8, 16)
        assert set(search.predict(X)) <= {"slow", "fast"}
    assert len(cross_val_score(tiny(), X, y, cv=2, error_score="raise")) == 2
    chain = ExponentTransformer(power=1, offset=0) * tiny()
    np.testing.assert_array_equal(chain.fit(X, y).predict_proba(X), tiny().fit(X, y).predict_proba(X))
    assert chain.clone().set_params(classifier__d_model=16).fit(X, y).classifier_.classifier_.arch.d_model == 16


def test_verbose_speaks_and_leaves_a_classifier_that_pickles(capsys: pytest.CaptureFixture[str]) -> None:
    X, kind = waves()
    classifier = tiny(verbose=True).fit(X, kind)
    assert "epoch 1/1" in capsys.readouterr().err
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict(X), classifier.predict(X))
    tiny().fit(X, kind)
    assert "epoch" not in capsys.readouterr().err


def test_an_interrupted_fit_says_that_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise Interrupted("stopped", 2)

    monkeypatch.setattr("pipelines.training.fitting.train", stopped)
    classifier = tiny()
    with pytest.raises(Interrupted, match="call fit again"):
        classifier.fit(*waves())
    assert not classifier.is_fitted
