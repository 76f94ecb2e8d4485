"""Data for classification: statistics of the training part alone, splits that cut no group, masks of batches."""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pipelines.data.datasets.classification import (
    LabelledDataset,
    Standardiser,
    collate,
    group_folds,
    holdout,
    official_split,
)
from pipelines.data.errors import InputError
from pipelines.data.formats.labelled import LabelledSeries, read_labelled

SAMPLE = pathlib.Path(__file__).parents[2] / "data" / "samples" / "classification" / "watch.npz"


def _set(labels: str, groups: str | None = None) -> LabelledSeries:
    return LabelledSeries.of([np.zeros((1, 2))] * len(labels), labels=list(labels), groups=groups and list(groups))


# ---------------------------------------------------------------- real sets


def test_official_split_of_real_sets() -> None:
    for name, train, test in (("BasicMotions", 40, 40), ("JapaneseVowels", 270, 370)):
        data = read_labelled(name)
        parts = official_split(data)
        assert [len(part) for part in parts] == [train, test]
        assert all(data.ids[i].startswith("train-") for i in parts[0])
    with pytest.raises(InputError, match="no split into training and test"):
        official_split(read_labelled(SAMPLE))


def test_sample_leaves_one_subject_out() -> None:
    data = read_labelled(SAMPLE)
    folds = group_folds(data, 10, 0)
    assert data.groups is not None
    assert data.labels is not None
    for train, test in folds:
        assert len({data.groups[i] for i in test}) == 1
        assert not {data.groups[i] for i in test} & {data.groups[i] for i in train}
        assert sorted({data.labels[i] for i in test}) == list(data.classes)
        fit, validation, notes = holdout(data, train, seed=1)
        assert len({data.groups[i] for i in validation}) == 2
        assert not {data.groups[i] for i in fit} & {data.groups[i] for i in validation}
        assert notes == ()
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(140))
    assert [len(test) for _, test in group_folds(data, 5, 3)] == [28] * 5


def test_standardiser_knows_the_training_series_alone() -> None:
    data = read_labelled("JapaneseVowels")
    train, test = official_split(data)
    standard = Standardiser.fit([data.series[i] for i in train])
    rows = np.concatenate([data.series[i] for i in train], axis=1).astype(np.float64)
    np.testing.assert_allclose(standard.mean, rows.mean(1), rtol=1e-12)
    np.testing.assert_allclose(standard.deviation, rows.std(1), rtol=1e-12)
    done = np.concatenate([standard.apply(data.series[i]) for i in train], axis=1)
    np.testing.assert_allclose(done.mean(1, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(done.std(1, dtype=np.float64), 1, atol=1e-6)
    # Statistics of all series are others: whoever fits on too much fails here.
    assert np.abs(Standardiser.fit(data.series).mean - standard.mean).min() > 1e-4
    changed = [data.series[i] + (1000 if i in set(test) else 0) for i in range(len(data))]
    np.testing.assert_array_equal(Standardiser.fit([changed[i] for i in train]).mean, standard.mean)


# ---------------------------------------------------------------- standardiser


def test_standardiser_measured_values_constants_and_large_means() -> None:
    first = np.array([[1.0, np.nan, 3.0], [7.7, 7.7, 7.7], [np.nan] * 3, [1e8, 1e8 + 8, 1e8 + 16]], np.float32)
    second = np.array([[5.0], [7.7], [np.nan], [1e8 + 24]], np.float32)
    standard = Standardiser.fit([first, second])
    np.testing.assert_allclose(standard.mean[[0, 3]], [3, 1e8 + 12], rtol=1e-15)
    np.testing.assert_allclose(standard.deviation, [np.sqrt(8 / 3), 1, 1, np.sqrt(80)], rtol=1e-12)
    assert standard.notes == (
        "1 variables never change in the training series",
        "1 variables have no measured value in the training series",
    )
    done = standard.apply(first)
    assert done.dtype == np.float32
    assert np.isnan(done[0, 1])
    assert done[1].tolist() == [0, 0, 0]
    again = Standardiser.from_state(json.loads(json.dumps(standard.state())))
    np.testing.assert_array_equal(again.apply(first), done)


def test_standardiser_refuses() -> None:
    standard = Standardiser.fit([np.ones((2, 3))])
    with pytest.raises(InputError, match="another number of variables"):
        standard.apply(np.ones((3, 3)))
    for series in ([], [np.ones((2, 3)), np.ones((1, 3))], [np.ones(3)], [np.ones((2, 0))]):
        with pytest.raises(InputError, match="series that do not go together"):
            Standardiser.fit(series)
    for state in ({}, {"mean": [0.0], "deviation": [0.0]}, {"mean": [0.0], "deviation": [1.0, 1.0]}, {"mean": ["a"]}):
        with pytest.raises(InputError, match="the stored statistics are damaged"):
            Standardiser.from_state(state)


# ---------------------------------------------------------------- folds


@st.composite
def _sets(draw: st.DrawFn) -> tuple[LabelledSeries, int, int]:
    count = draw(st.integers(2, 40))
    labels = draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    groups = draw(st.none() | st.lists(st.sampled_from("pqrst"), min_size=count, max_size=count))
    data = LabelledSeries.of([np.zeros((1, 1))] * count, labels=labels, groups=groups)
    return data, draw(st.integers(2, 4)), draw(st.integers(0, 9))


def _possible(data: LabelledSeries, folds: int) -> bool:
    """Whether any way of placing examples or groups trains on each class that it tests; tries all of them."""
    assert data.labels is not None
    if data.groups is None:
        return min(data.labels.count(name) for name in data.classes) >= folds
    names = sorted(set(data.groups))
    homes = [
        {names.index(g) for g, label in zip(data.groups, data.labels, strict=True) if label == c} for c in data.classes
    ]
    return any(
        len(set(place)) == folds and all(len({place[home] for home in each}) > 1 for each in homes)
        for place in itertools.product(range(folds), repeat=len(names))
    )


@settings(max_examples=150, deadline=None)
@given(_sets())
def test_folds_partition_and_cut_no_group(drawn: tuple[LabelledSeries, int, int]) -> None:
    data, folds, seed = drawn
    assert data.labels is not None
    try:
        parts = group_folds(data, folds, seed)
    except InputError:
        assert not _possible(data, folds)
        return
    assert len(parts) == folds
    assert sorted(int(i) for _, test in parts for i in test) == list(range(len(data)))
    sizes = [len(test) for _, test in parts]
    assert min(sizes) > 0
    for train, test in parts:
        assert sorted([*train, *test]) == list(range(len(data)))
        assert {data.labels[i] for i in test} <= {data.labels[i] for i in train}
        if data.groups is not None:
            assert not {data.groups[i] for i in test} & {data.groups[i] for i in train}
        else:
            counts = [sum(data.labels[i] == name for i in test) for name in data.classes]
            assert all(abs(n - data.labels.count(c) / folds) < 1 for n, c in zip(counts, data.classes, strict=True))
    if data.groups is None:
        assert max(sizes) - min(sizes) <= 1
    elif folds == len(set(data.groups)):
        assert all(len({data.groups[i] for i in test}) == 1 for _, test in parts)
    again = group_folds(data, folds, seed)
    assert all(
        np.array_equal(a, b) for one, two in zip(parts, again, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_folds_depend_on_the_seed_and_keep_classes_even() -> None:
    data = _set("ab" * 20)
    assert not np.array_equal(group_folds(data, 4, 0)[0][1], group_folds(data, 4, 1)[0][1])
    grouped = _set("aabb" * 12, "".join(letter * 4 for letter in "abcdefghijkl"))
    for _, test in group_folds(grouped, 4, 0):
        assert len(test) == 12


@pytest.mark.parametrize(
    ("data", "folds", "words"),
    [
        (_set("abab", "xxyy"), 3, r"more folds than groups. Found: 3 folds. Expected: at most 2"),
        (_set("aaab"), 2, r"class 'b' has too few examples. Found: 1 for 2 folds"),
        (_set("abbb", "xyzw"), 4, r"class 'a' would be tested in fold . without being trained on"),
        (_set("aabb"), 1, "folds must be a whole number"),
        (LabelledSeries.of([np.zeros((1, 2))]), 2, "the series have no labels"),
    ],
)
def test_folds_refused(data: LabelledSeries, folds: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        group_folds(data, folds, 0)


# ---------------------------------------------------------------- holding out


@settings(max_examples=150, deadline=None)
@given(_sets(), st.floats(0.05, 0.9))
def test_holdout_partitions_and_keeps_each_class(drawn: tuple[LabelledSeries, int, int], share: float) -> None:
    data, _, seed = drawn
    indices = np.arange(len(data))[::-2]
    assert data.labels is not None
    try:
        fit, validation, _ = holdout(data, indices, share, seed=seed)
    except InputError as error:
        if "no example can be held out" not in str(error):
            raise
        return
    assert sorted([*fit, *validation]) == sorted(indices)
    assert len(validation) > 0
    assert {data.labels[i] for i in fit} == {data.labels[i] for i in indices}
    if data.groups is not None:
        assert not {data.groups[i] for i in fit} & {data.groups[i] for i in validation}


def test_holdout_shares_and_notes() -> None:
    data = _set("a" * 20 + "b" * 10 + "c")
    part = holdout(data, range(31), seed=0)
    held = [str(data.labels[i]) for i in part.validation] if data.labels else []
    assert (held.count("a"), held.count("b"), held.count("c")) == (4, 2, 0)
    assert part.notes == ("1 classes with one training example are not in the validation part",)
    nothing = holdout(data, [0, 1, 2], 0, seed=0)
    assert (nothing.fit.tolist(), len(nothing.validation)) == ([0, 1, 2], 0)
    for indices, share in (([0, 0], 0.2), ([], 0.2), ([0, 1], 1.0)):
        with pytest.raises(InputError, match="nothing to divide"):
            holdout(data, indices, share, seed=0)
    with pytest.raises(InputError, match=r"no example can be held out.*share=0"):
        holdout(_set("abab", "xxxx"), range(4), seed=0)


# ---------------------------------------------------------------- batches


def test_collate_carries_the_padding_in_masks() -> None:
    data = read_labelled("JapaneseVowels")
    series = [data.series[i].copy() for i in (0, 5, 300)]
    series[1][3, 2] = np.nan
    batch = collate(series)
    longest = max(one.shape[1] for one in series)
    assert batch["x"].shape == batch["observed"].shape == (3, 12, longest)
    assert (batch["x"].dtype, batch["observed"].dtype, batch["valid"].dtype) == (torch.float32, torch.bool, torch.bool)
    assert batch["valid"].sum(1).tolist() == [one.shape[1] for one in series]
    assert not (batch["observed"] & ~batch["valid"][:, None]).any()
    assert not batch["x"][~batch["observed"]].any()
    assert (~batch["observed"][1, :, : series[1].shape[1]]).sum() == 1
    for row, one in zip(batch["x"], series, strict=True):
        np.testing.assert_array_equal(row[:, : one.shape[1]].numpy(), np.nan_to_num(one, nan=0.0))
    with pytest.raises(InputError, match="series that do not go together"):
        collate([np.zeros((1, 2)), np.zeros((2, 2))])


def test_dataset_through_a_loader() -> None:
    data = read_labelled("BasicMotions").subset(range(10))
    numbers = [data.classes.index(label) for label in data.labels or ()]
    dataset = LabelledDataset(data.series, numbers)
    loader = DataLoader(dataset, batch_size=4, shuffle=True, collate_fn=LabelledDataset.collate)
    seen = []
    for batch in loader:
        seen += batch["index"].tolist()
        assert batch["y"].tolist() == [numbers[i] for i in batch["index"]]
        np.testing.assert_array_equal(batch["x"][0].numpy(), data.series[int(batch["index"][0])])
    assert sorted(seen) == list(range(10))
    assert dataset[3]["x"].shape == (6, 100)
    for labels in ([0], [0.5] * 10, [-1] * 10):
        with pytest.raises(InputError, match="labels do not fit the series"):
            LabelledDataset(data.series, labels)  # type: ignore[arg-type]
