"""Reading labelled series from memory and tables: NPZ, long tables, sktime containers, NumPy."""

from __future__ import annotations

import pathlib
import warnings

import numpy as np
import pandas as pd
import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled import LabelledSeries, read_labelled, sktime_sets

HEAD = (
    "@problemName t\n@timeStamps false\n@missing {m}\n@univariate {u}\n@equalLength {e}\n@classLabel true a b\n@data\n"
)


def _save(folder: pathlib.Path, name: str, content: str | bytes) -> pathlib.Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _ts(folder: pathlib.Path, body: str, *, m: str = "true", u: str = "false", e: str = "false") -> LabelledSeries:
    return read_labelled(_save(folder, "t.ts", HEAD.format(m=m, u=u, e=e) + body))


def _said(data: LabelledSeries, words: str) -> bool:
    return any(words in note for note in data.notes)


def _as_lists(data: LabelledSeries) -> list[list[list[float]]]:
    return [one.tolist() for one in data.series]


# ---------------------------------------------------------------- .npz


def _npz(folder: pathlib.Path, **arrays: object) -> pathlib.Path:
    np.savez(folder / "t.npz", **arrays)  # type: ignore[arg-type]
    return folder / "t.npz"


def test_npz_layouts(tmp_path: pathlib.Path) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    cubic = read_labelled(_npz(tmp_path, X=x, y=[0, 1], split=["train", "test"], id=["p", "q"], names=["a", "b", "c"]))
    np.testing.assert_array_equal(np.stack(cubic.series), x)
    assert (cubic.ids, cubic.split, cubic.variables) == (("p", "q"), ("train", "test"), ("a", "b", "c"))
    flat = read_labelled(_npz(tmp_path, X=np.arange(6.0).reshape(3, 2), lengths=[1, 2], group=["g", "h"]))
    assert (_as_lists(flat), flat.groups, flat.labels) == ([[[0], [1]], [[2, 4], [3, 5]]], ("g", "h"), None)
    assert _said(flat, "no labels")
    assert read_labelled(_npz(tmp_path, X=np.zeros((5, 7)), kind=list("ababa")), labels="kind").classes == ("a", "b")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.array([np.zeros(2), np.zeros(3)], object)}, "Python objects inside, which are never unpickled"),
        ({"Z": np.zeros(2)}, "no array X. Found: Z"),
        ({"X": np.zeros((4, 2)), "lengths": [1, 2]}, "the lengths do not fit X. Found: 3 in all"),
        ({"X": np.zeros((4, 2)), "lengths": [4, 0]}, "the lengths do not fit X"),
        ({"X": np.zeros((2, 2, 2)), "lengths": [1, 1]}, "X and lengths have another shape"),
        ({"X": np.zeros(3)}, "X has another shape"),
        ({"X": np.array([["a"]])}, "X holds no numbers"),
        ({"X": np.zeros((2, 1, 3)), "y": [0]}, "labels do not fit the series. Found: 1 labels. Expected: 2"),
        ({"X": np.zeros((2, 1, 3)), "y": [0.0, np.nan]}, "t.npz, y: an empty value"),
        ({"X": np.zeros((2, 1, 3)), "y": [0, 1], "label": [0, 1]}, "two arrays for the labels. Found: y, label"),
        ({"X": np.zeros((2, 1, 3)), "y": [0, 2], "y_labels": ["a", "b"]}, "a label without a name of its class"),
        ({"X": np.zeros((2, 1, 3)), "split": ["train", "val"]}, "not a part of a split. Found: val"),
        ({"X": np.full((2, 1, 3), np.inf)}, "infinite value"),
    ],
)
def test_npz_refused(tmp_path: pathlib.Path, arrays: dict[str, object], words: str) -> None:
    path = _npz(tmp_path, **arrays)
    with pytest.raises(InputError, match=words):
        read_labelled(path)


def test_npz_damaged_at_any_place(tmp_path: pathlib.Path) -> None:
    content = _npz(tmp_path, X=np.zeros((2, 1, 3)), y=["a", "b"]).read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(1, len(content), 40):
        with pytest.raises(InputError):
            read_labelled(_save(tmp_path, "cut.npz", content[: int(cut)]))
    for place in rng.integers(0, len(content), 200):
        hurt = bytearray(content)
        hurt[place] ^= 1 << int(rng.integers(8))
        try:
            read_labelled(_save(tmp_path, "hurt.npz", bytes(hurt)))
        except InputError:
            continue


# ---------------------------------------------------------------- long tables

LONG = pd.DataFrame(
    {
        "series_id": ["007", "007", "NA", "NA", "007"],
        "step": [2, 0, 0, 1, 1],
        "class": ["up", "up", "down", "down", "up"],
        "subject": [1, 1, 2, 2, 1],
        "ax": [3.0, 1.0, 5.0, np.nan, 2.0],
        "flag": [True, False, True, False, True],
    }
)


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_long_tables(tmp_path: pathlib.Path, kind: str) -> None:
    source: object = LONG
    if kind == "csv":
        LONG.to_csv(tmp_path / "t.csv", index=False)
        source = tmp_path / "t.csv"
    elif kind == "parquet":
        LONG.to_parquet(tmp_path / "t.parquet")
        source = tmp_path / "t.parquet"
    data = read_labelled(source)
    assert (data.ids, data.labels, data.groups) == (("007", "NA"), ("up", "down"), ("1", "2"))
    assert data.variables == ("ax", "flag")
    np.testing.assert_array_equal(data.series[0], [[1, 2, 3], [0, 1, 1]])
    np.testing.assert_array_equal(data.series[1], [[5, np.nan], [1, 0]])
    for words in (
        "column 'series_id' taken as id",
        "column 'class' taken as labels",
        "column 'step' taken as time",
        "column 'subject' taken as group",
        "rows of 1 series put in the order of 'step'",
        "1 values in 1 series were not measured",
    ):
        assert _said(data, words)


def test_long_table_with_named_roles_and_stamps() -> None:
    frame = pd.DataFrame(
        {
            "who": ["a"] * 3 + ["b"] * 2,
            "kind": [1.0] * 3 + [2.0] * 2,
            "when": ["2024-01-03", "2024-01-01", "2024-01-02", "2024-01-01", "2024-01-09"],
            "x": [3.0, 1.0, 2.0, 4.0, 5.0],
            "y": [0.3, 0.1, 0.2, 0.4, 0.5],
        }
    )
    data = read_labelled(frame, id="who", labels="kind", time="when")
    assert (data.labels, data.variables, data.series[0][0].tolist()) == (("1", "2"), ("x", "y"), [1, 2, 3])
    uneven = pd.DataFrame(
        {"id": [1, 1, 1], "t": [0.0, 1.0, 5.0], "v": [1.0, 2.0, 3.0], "target": [7, 7, 7], "label": 0}
    )
    again = read_labelled(uneven, labels="label")
    assert _said(again, "1 series have unequal steps of 't'")
    assert _said(again, "read as variables, whatever their names say: target")


@pytest.mark.parametrize(
    ("change", "roles", "words"),
    [
        (
            {"class": ["up", "down", "a", "a", "up"]},
            {},
            "the label changes within series '007'.*down, then up in row 4",
        ),
        ({"subject": [1, 2, 3, 3, 1]}, {}, "the group changes within series '007'"),
        ({"ax": ["a", "b", "c", "d", "e"]}, {}, "labels in a data column: 'ax' holds texts"),
        ({"ax": [1, 2, "x", 4, 5]}, {}, "1 cells of column 'ax' are no numbers, the first in row 2. Found: 'x'"),
        ({"ax": [1, 2, np.inf, 4, 5]}, {}, "1 cells of column 'ax' are no numbers, the first in row 2"),
        ({"step": [0, 0, 0, 1, 1]}, {}, "series '007' has one time twice.*row 1"),
        ({"step": [0, None, 0, 1, 1]}, {}, "1 rows without a time, the first is row 1"),
        ({"step": ["soon"] * 5}, {}, "5 rows without a time"),
        ({"series_id": ["a", None, "b", "b", "a"]}, {}, "1 rows do not name their series, the first is row 1"),
        ({"class": [None, None, "a", "a", None]}, {}, "series '007': an empty value"),
        ({"id": [1, 2, 3, 4, 5]}, {}, "more than one column could be the id. Found: series_id, id"),
        ({}, {"labels": "clas"}, "no column 'clas'.*did you mean 'class'"),
        ({}, {"labels": "subject"}, "column 'subject' has two roles. Found: labels and group"),
        ({}, {"labels": "flag"}, "the label changes within series '007'"),
    ],
)
def test_long_tables_refused(change: dict[str, object], roles: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_labelled(LONG.assign(**change), **roles)  # type: ignore[arg-type]


def test_long_csv_names_the_line(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"t\.csv: 1 cells of column 'x' are no numbers, the first in line 3"):
        read_labelled(_save(tmp_path, "t.csv", "id,label,x\n1,a,2\n1,a,oops\n"))
    with pytest.raises(InputError, match=r"no column names the series.*as .ts"):
        read_labelled(_save(tmp_path, "w.csv", "label,v0,v1\na,1,2\nb,3,4\n"))
    with pytest.raises(InputError, match=r"labels in a data column: 'kind'.*labels='kind'"):
        read_labelled(_save(tmp_path, "k.csv", "id,kind,x\n1,a,2\n1,a,3\n"))


# ---------------------------------------------------------------- containers in memory


@pytest.mark.parametrize("kind", ["nested_univ", "pd-multiindex", "df-list"])
def test_sktime_panels_of_unequal_length(kind: str) -> None:
    from sktime.datasets import load_japanese_vowels

    wanted = read_labelled(sktime_sets()["JapaneseVowels"], pair=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        panel, y = load_japanese_vowels(split="train", return_type=kind)
    if kind == "nested_univ":
        panel, y = panel.iloc[:40], y[:40]
    data = read_labelled((panel, y))
    assert data.labels == (wanted.labels or ())[: len(data)]
    assert data.variables[0] == "dim_0"
    for ours, theirs in zip(data.series, wanted.series, strict=False):
        np.testing.assert_array_equal(ours, theirs)


def test_numpy_and_lists() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    assert _as_lists(read_labelled((x, np.array([1, 2])))) == x.tolist()
    assert read_labelled((x, [1.0, 2.0])).labels == ("1", "2")
    assert read_labelled(x[:, 0]).series[0].shape == (1, 3)
    assert _said(read_labelled(x), "no labels were given")
    assert read_labelled(([x[0], x[1][:, :2]], pd.Series(["a", "b"]))).lengths.tolist() == [3, 2]
    assert read_labelled([np.zeros(4), np.zeros(5)]).lengths.tolist() == [4, 5]
    ragged = np.empty(2, object)
    ragged[:] = [x[0], x[1][:, :2]]
    assert read_labelled(ragged).lengths.tolist() == [3, 2]


def test_a_panel_with_a_column_of_labels() -> None:
    index = pd.MultiIndex.from_product([["s", "t"], [0, 1]], names=["case", None])
    data = read_labelled(pd.DataFrame({"x": [1.0, 2, 3, 4], "kind": list("aabb")}, index), id="case", labels="kind")
    assert (data.ids, data.labels, data.variables) == (("s", "t"), ("a", "b"), ("x",))


def _bad_panels() -> list[tuple[object, str]]:
    nested = pd.DataFrame({"a": [pd.Series([1.0, 2.0])], "b": [pd.Series([1.0])]})
    index = pd.MultiIndex.from_tuples([("s", 1), ("s", 0)])
    x = np.zeros((2, 1, 3))
    good = pd.DataFrame({"x": [1.0, 2.0]}, pd.MultiIndex.from_tuples([("s", 0), ("t", 0)]))
    return [
        (nested, "the variables of one example have different lengths. Found: 2, 1"),
        (pd.DataFrame({"x": [1.0, 2.0]}, index), "not a panel by sktime's rules"),
        ((x, ["a"]), "X and y have different lengths. Found: 1 labels, 2 series"),
        ((x, ["a", None]), "label 1: an empty value"),
        ((x, "ab"), "y is no list of labels"),
        ((good, pd.Series(["b", "a"], index=["t", "s"])), "y stands in another order than X"),
        (np.zeros(3), "another kind of array"),
        (np.array([["a"]]), "another kind of array"),
        ([np.zeros((1, 1, 1))], "series 0 of the list"),
        ([np.zeros((1, 2)), np.zeros((2, 2))], "series '1' has another shape"),
        ([], "no series that can be read"),
        (7, "no series that can be read. Found: builtins.int"),
        ((LONG, ["a"]), "a long table has its labels in a column"),
        (LONG.iloc[:0], "the table has no rows"),
    ]


@pytest.mark.parametrize(("source", "words"), _bad_panels())
def test_containers_refused(source: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_labelled(source)
