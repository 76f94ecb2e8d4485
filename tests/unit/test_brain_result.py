"""Answers about scans: tables that read back as they were, counts that a reader can trust, pictures and reports."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pandas as pd
import pytest

from pipelines.base import Provenance
from pipelines.data.datasets.brain_types import Events
from pipelines.errors import ConfigError, InputError
from pipelines.evaluation.report import Report
from pipelines.fmri import plots
from pipelines.fmri.result import Answer, Predictions, Vectors

NOW = Provenance("0.1.0", "2026-01-01T00:00:00+0000", "pipelines fmri predict bids", "bids", "swift", 1, "abc")
CLASSES = ("face", "house", "chair")


def chances(seed: int) -> dict[str, float]:
    values = np.random.default_rng(seed).dirichlet(np.ones(3))
    return dict(zip(CLASSES, values.tolist(), strict=True))


def answer(name: str, unit: str = "volume", index: int = 0, *, seed: int = 0, label: str | None = None) -> Answer:
    given = chances(seed)
    start = 2.5 * index if unit == "volume" else None
    best = max(given, key=given.__getitem__)
    return Answer(name, "01", unit, index, start, 1, best, given, label=label)  # type: ignore[arg-type]


def predictions(runs: int = 2, volumes: int = 6, **given: object) -> Predictions:
    found = []
    for run in range(runs):
        name = f"sub-01_run-{run + 1}"
        found += [answer(name, index=i, seed=10 * run + i, label=CLASSES[i % 3]) for i in range(volumes)]
        found.append(answer(name, "run", seed=99 + run))
    found.append(answer("sub-01", "subject", seed=7, label="face"))
    events = {"sub-01_run-1": Events(np.array([0.0, 5.0]), np.array([5.0, 10.0]), ("face", "house"))}
    trs = {f"sub-01_run-{run + 1}": 2.5 for run in range(runs)}
    return Predictions("swift", NOW, found, CLASSES, "category", tr=trs, events=events, **given)  # type: ignore[arg-type]


def ages() -> Predictions:
    found = [Answer(f"sub-{i}", str(i), "subject", volumes=20, value=20.0 + i, truth=21.0 + i) for i in range(3)]
    return Predictions("swift", NOW, found, target="age", unit="years")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_tables_read_back_as_they_were(tmp_path: pathlib.Path, ending: str) -> None:
    said = predictions()
    path = said.save(tmp_path / f"a{ending}")
    if ending == ".parquet":
        table = pd.read_parquet(path)
    else:
        table = pd.read_csv(path, sep="," if ending == ".csv" else "\t", float_precision="round_trip")
    assert len(table) == 2 * 7 + 1 == len(said.answers)
    for row, one in zip(table.itertuples(index=False), said.answers, strict=True):
        assert (row.name, row.unit, row.index, row.predicted) == (one.name, one.unit, one.index, one.predicted)
        assert row.start_s == one.start_s or (one.start_s is None and pd.isna(row.start_s))
        assert row.label == one.label or (one.label is None and pd.isna(row.label))
    np.testing.assert_allclose(table[[f"p({name})" for name in CLASSES]].sum(1), 1.0)
    np.testing.assert_array_equal(table["p(house)"], [(one.probabilities or {})["house"] for one in said.answers])
    assert "value" not in table
    assert "truth" not in table


def test_values_have_no_columns_of_classes(tmp_path: pathlib.Path) -> None:
    table = pd.read_csv(ages().save(tmp_path / "a.csv"))
    assert list(table) == ["name", "subject", "unit", "index", "volumes", "value", "truth"]
    assert table["value"].tolist() == [20.0, 21.0, 22.0]


def test_lines_and_objects_hold_every_answer(tmp_path: pathlib.Path) -> None:
    said = predictions()
    lines = [json.loads(line) for line in said.save(tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(lines) == len(said.answers)
    assert lines[0]["probabilities"] == said.answers[0].probabilities
    whole = json.loads(said.save(tmp_path / "a.json").read_text())
    assert len(whole["volumes"]) == 12
    assert len(whole["runs"]) == 2
    assert len(whole["subjects"]) == 1
    assert list(whole).index("subjects") < list(whole).index("volumes")
    assert "blocks" not in whole
    assert whole["provenance"]["weights"] == "abc"
    assert whole["classes"] == list(CLASSES)
    assert whole["subjects"][0] == lines[-1]


def test_another_ending_is_refused_and_nothing_is_written(tmp_path: pathlib.Path) -> None:
    for said in (predictions(), Vectors("swift", NOW, ("a",), np.ones((1, 2), np.float32))):
        with pytest.raises(ConfigError, match="cannot write"):
            said.save(tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())


def test_the_terminal_says_what_was_answered_and_how_much_was_right() -> None:
    said = predictions(failed={"x": "x: one volume, not a scan."})
    right = sum(one.predicted == one.label for one in said.of("volume"))
    text = str(said)
    assert text.startswith("swift, category: 2 runs, 1 subject")
    assert f"right: {right:,} of 12 volumes ({100 * right / 12:.1f} %)" in text
    assert "sub-01_run-1: 6 volumes (" in text
    assert "; run: " in text
    assert "1 run failed" in text
    assert said.notes == ("left out: x: one volume, not a scan.",)
    assert said.failures
    assert "age: 3 subjects" in str(ages())
    assert "20 (true: 21)" in str(ages())
    many = predictions(runs=25)
    assert "and 5 more runs" in str(many)
    assert "sub-01_run-21" not in str(many)


def test_pictures_choose_themselves() -> None:
    several = predictions(runs=2)
    several.answers = several.answers[:-1]  # no subject: the runs are what is compared
    assert len(several.plot().axes[0].patches) == 2
    course = predictions(runs=1).plot()
    assert course.axes[-1].get_xlabel() == "time (s)"
    assert course.axes[0].get_title(loc="left") == "sub-01_run-1"
    assert ages().plot().axes[0].get_xlabel() == "true (years)"
    unknown = Predictions("swift", NOW, [Answer("a", unit="run", value=3.0)], target="age")
    assert len(unknown.plot().axes[0].patches) == 1
    nothing = Predictions("swift", NOW, [], CLASSES)
    assert nothing.plot().axes[0].texts[0].get_text() == "no scan could be answered"


def test_a_course_without_repetition_time_is_over_volumes() -> None:
    said = predictions(runs=1)
    said.tr = {}
    figure = said.plot()
    assert figure.axes[-1].get_xlabel() == "volume"
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [0.5] * 3
    assert said.course("nowhere") is None


def test_a_course_leaves_gaps_empty() -> None:
    """Volumes without an answer (rest) are not joined by a line."""
    figure = plots.course_figure([0.0, 2.0, 10.0], 2.0, [[0.1], [0.2], [0.3]], ["face"])
    places = figure.axes[0].lines[0].get_xdata()
    assert np.isnan(places).sum() == 1
    assert places[~np.isnan(places)].tolist() == [1.0, 3.0, 11.0]
    rows = plots.course_figure([0.0, 2.0, 10.0], 2.0, np.full((3, 5), 0.2), list("abcde"))
    colours = rows.axes[0].collections[0].get_array()
    assert np.ma.getmaskarray(colours).reshape(5, -1)[0].tolist() == [False, False, True, False]


def test_wrong_answers_have_another_colour() -> None:
    figure = plots.people_figure(["a", "b"], [0.9, 0.8], labels=["f", "f"], truth=["f", "m"])
    first, second = (bar.get_facecolor() for bar in figure.axes[0].patches)
    assert first != second
    assert any("(true: m)" in text.get_text() for text in figure.axes[0].texts)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.course_figure([], 1.0, np.zeros((0, 1)), ["a"]),
        lambda: plots.course_figure([0.0], 1.0, [[0.1, 0.2]], ["a"]),
        lambda: plots.people_figure([], []),
        lambda: plots.regression_figure([1.0], [np.nan]),
        lambda: plots.groups_figure({}),
        lambda: plots.baselines_figure({}),
        lambda: plots.similarity_figure(["a"], np.zeros((2, 3))),
    ],
)
def test_pictures_of_nothing_are_refused(draw: object) -> None:
    with pytest.raises(InputError):
        draw()  # type: ignore[operator]


def test_figures_of_groups_and_models_draw_what_they_are_given() -> None:
    groups = plots.groups_figure(
        {"1": 0.5, "2": 0.75}, intervals={"2": (0.7, 0.8)}, overall=(0.6, 0.5, 0.7), chance=0.125
    )
    assert groups.axes[0].lines[-1].get_ydata().tolist() == [0.5, 0.75]
    assert len(groups.axes[0].collections) == 1
    bars = plots.baselines_figure({"swift": 0.8, "svm": np.nan}, intervals={"swift": (0.7, 0.9)}, chance=0.125)
    assert [text.get_text() for text in bars.axes[0].texts] == ["0.800", "–"]


def test_reports_hold_answers_and_pictures() -> None:
    report = Report("fmri")
    predictions(runs=8).fill_report(report)
    page = report.render()
    assert page.count("data:image/png;base64") == 6
    assert "2 more runs stand in the saved answer only" in page
    ages().fill_report(report)
    assert "true" in report.render()


@pytest.mark.parametrize("ending", [".npz", ".npy", ".csv", ".jsonl", ".parquet"])
def test_vectors_read_back_bit_for_bit(tmp_path: pathlib.Path, ending: str) -> None:
    from pipelines.match.vectors_io import read_vectors

    rows = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    vectors = Vectors("swift", NOW, ("a", "b", "c"), rows, ("01", "01", "02"), (6, 6, 5))
    back = read_vectors(vectors.save(tmp_path / f"v{ending}"))
    np.testing.assert_array_equal(back.vectors, rows)
    assert back.names == vectors.names
    assert back.facts[2] == {"subject": "02", "windows": 5, "model": "swift"}


def test_vectors_say_what_they_are(tmp_path: pathlib.Path) -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [-6.0, -8.0]], np.float32)
    vectors = Vectors("swift", NOW, ("a", "b", "c"), rows, windows=(6, 6, 5), failed={"d": "d: damaged."})
    assert str(vectors) == "3 vectors of 2 numbers, each the mean of 5 to 6 windows\n1 scan failed"
    cosines = np.asarray(vectors.plot().axes[0].images[0].get_array())
    np.testing.assert_allclose(cosines, [[1, 0, -1], [0, 0, 0], [-1, 0, 1]], atol=1e-12)
    plain = json.loads(vectors.save(tmp_path / "v.json").read_text())
    assert plain["rows"] == 3
    assert plain["dim"] == 2
    assert plain["failures"] == {"d": "d: damaged."}
    report = Report("vectors")
    vectors.fill_report(report)
    assert "length of the vector" in report.render()
    with pytest.raises(InputError, match="a name for each vector"):
        Vectors("swift", NOW, ("a",), rows)
    with pytest.raises(InputError, match="a name for each vector"):
        Vectors("swift", NOW, ("a", "b", "c"), rows, windows=(1,))
    assert Vectors("swift", NOW, (), np.zeros((0, 288), np.float32)).plot().axes
