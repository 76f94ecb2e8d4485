"""Splits by document leak nothing; negatives are what they claim, and run out with a count, not with a loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipelines.data.datasets.document_splits import (
    _drawn,
    document_folds,
    edges_inside,
    hard_negatives,
    pair_parts,
    random_negatives,
    same_text,
    shortfall_note,
)
from pipelines.data.errors import InputError


def graph(count: int, links: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    every = np.array(list(itertools.combinations(range(count), 2)))
    return every[rng.choice(len(every), links, replace=False)]


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for pair in pairs.tolist()}


@pytest.mark.parametrize(("count", "folds"), [(497, 5), (10, 3), (5, 5)])
def test_folds_are_even_and_depend_on_the_seed_alone(count: int, folds: int) -> None:
    first = document_folds(count, folds, seed=3)
    sizes = np.bincount(first, minlength=folds)
    assert sizes.sum() == count
    assert sizes.max() - sizes.min() <= 1
    assert (first == document_folds(count, folds, seed=3)).all()
    if count > 5:
        assert (first != document_folds(count, folds, seed=4)).any()


def test_equal_texts_land_in_one_fold() -> None:
    texts = [f"text {number % 40}" for number in range(60)]
    texts[7] = "TEXT   47\n" if texts[7] == "text 47" else f" {texts[7].upper()} "
    groups = same_text(texts)
    assert len(set(groups.tolist())) == 40
    assert groups[7] == 7
    assert groups[47] == 7, "a copy that differs in case and spaces is a copy"
    for seed in range(5):
        folds = document_folds(60, 4, seed, groups)
        for number in range(20):
            assert folds[number] == folds[number + 40]
        assert np.bincount(folds).max() - np.bincount(folds).min() <= 2


def test_a_large_group_does_not_starve_a_fold() -> None:
    groups = np.r_[np.zeros(50, int), np.arange(1, 51)]
    folds = document_folds(100, 2, 0, groups)
    assert len(set(folds[:50].tolist())) == 1
    assert np.bincount(folds).tolist() == [50, 50]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 4, "folds": 1}, "2 or more"),
        ({"count": 4, "folds": True}, "2 or more"),
        ({"count": 4, "folds": 5}, "at most 4"),
        ({"count": 4, "folds": 3, "groups": [0, 0, 0, 1]}, "at most 2"),
        ({"count": 4, "folds": 2, "groups": [0, 1]}, "every document"),
    ],
)
def test_impossible_folds_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        document_folds(seed=0, **arguments)


def test_no_document_stands_on_both_sides() -> None:
    edges = graph(80, 400, 1)
    folds = document_folds(80, 4, 0)
    parts = pair_parts(edges, folds)
    seen: dict[int, int] = {}
    for (left, right), part in zip(edges.tolist(), parts.tolist(), strict=True):
        if part < 0:
            assert folds[left] != folds[right]
            continue
        for document in (left, right):
            assert seen.setdefault(document, part) == part
    for fold in range(4):
        inside = edges_inside(edges, np.flatnonzero(folds == fold))
        assert as_set(inside) == as_set(edges[parts == fold])
    assert (parts < 0).sum() + sum((parts == fold).sum() for fold in range(4)) == 400


def test_no_edges_at_all() -> None:
    assert edges_inside([], [1, 2]).shape == (0, 2)
    assert pair_parts([], [0, 1]).shape == (0,)
    assert len(random_negatives([0, 1, 2], [], 2, 0)) == 2
    assert hard_negatives([[1], [0]], [0, 1], [], 3, 0).shape == (0, 2)
    with pytest.raises(InputError, match=r"\(E, 2\)"):
        edges_inside([[1, 2, 3]], [1])


@pytest.mark.parametrize("listed", [2_000_000, 0])
def test_random_negatives_are_unlinked_different_and_of_members(listed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.datasets.document_splits._LISTED", listed)
    edges = graph(60, 300, 2)
    flipped = edges[:, ::-1]  # the order inside a link must not matter
    members = np.arange(0, 60, 2)
    linked = as_set(edges)
    drawn = random_negatives(members, flipped, 100, seed=5)
    assert len(drawn) == len(as_set(drawn)) == 100
    assert not as_set(drawn) & linked
    assert (drawn[:, 0] < drawn[:, 1]).all()
    assert set(drawn.ravel().tolist()) <= set(members.tolist())
    assert (drawn == random_negatives(members, flipped, 100, seed=5)).all()
    assert (drawn != random_negatives(members, flipped, 100, seed=6)).any()


@pytest.mark.parametrize("listed", [2_000_000, 0])
def test_random_negatives_run_out(listed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By trial as well: what exists is given to the last pair, although links of other documents are in the list."""
    monkeypatch.setattr("pipelines.data.datasets.document_splits._LISTED", listed)
    edges = [*list(itertools.combinations(range(6), 2))[:13], (10, 11), (11, 10), (3, 30)]
    free = {(min(pair), max(pair)) for pair in itertools.combinations(range(6), 2)} - {tuple(sorted(e)) for e in edges}
    drawn = random_negatives(range(6), edges, 50, 0)
    assert as_set(drawn) == free
    assert as_set(_drawn(np.arange(6), as_set(np.array(edges[:13])), 2, np.random.default_rng(0))) == free
    assert shortfall_note(len(drawn), 50, "random negatives") == ("2 random negatives exist where 50 were wanted",)
    assert shortfall_note(5, 5, "random negatives") == ()
    assert random_negatives([4], [], 3, 0).shape == (0, 2)


def test_every_free_pair_is_drawn_about_as_often() -> None:
    """1,000 draws of one of 9 pairs: chi squared with 8 degrees of freedom is above 26 once in 1,000 times."""
    counts = np.zeros((5, 5))
    for seed in range(1000):
        left, right = random_negatives(range(5), [(0, 1)], 1, seed)[0]
        counts[left, right] += 1
    found = counts[np.triu_indices(5, 1)]
    assert found[0] == 0
    assert ((found[1:] - 1000 / 9) ** 2 / (1000 / 9)).sum() < 26


def test_hard_negatives_are_neighbours_of_linked_documents() -> None:
    rng = np.random.default_rng(0)
    near = np.array([rng.choice([other for other in range(50) if other != one], 8, replace=False) for one in range(50)])
    edges = graph(50, 60, 3)
    members = np.arange(40)
    drawn = hard_negatives(near, members, edges, 2, seed=1)
    inside = edges_inside(edges, members)
    ends = set(inside.ravel().tolist())
    neighbours = {(min(one, other), max(one, other)) for one in ends for other in near[one].tolist()}
    assert as_set(drawn) <= neighbours
    assert not as_set(drawn) & as_set(edges)
    assert len(as_set(drawn)) == len(drawn) <= 2 * len(inside)
    assert len(drawn) > len(inside)
    assert drawn.max() < 40
    assert (drawn == hard_negatives(near, members, edges[::-1, ::-1], 2, seed=1)).all(), "the order of links matters"


def test_hard_negatives_of_the_document_that_refers() -> None:
    near = np.array([[3, 4, 5], [6, 7, 8], *[[0, 1, 2]] * 7])
    drawn = hard_negatives(near, range(9), [(1, 0), (1, 2), (1, 2)], 1, seed=0, anchor="first")
    assert len(drawn) == 2, "a link that is given twice is one"
    assert as_set(drawn) <= {(1, 6), (1, 7), (1, 8)}
    with pytest.raises(InputError, match="either, first"):
        hard_negatives(near, range(9), [], 1, seed=0, anchor="last")  # type: ignore[arg-type]


def test_hard_negatives_run_out_and_skip_what_is_missing() -> None:
    near = [[1, -1], [0, 2], [1, 3], [2, 1]]
    drawn = hard_negatives(near, range(4), [(0, 1), (2, 3)], 5, seed=0)
    assert as_set(drawn) == {(1, 2), (1, 3)}
    with pytest.raises(InputError, match="every document"):
        hard_negatives(near, range(5), [(0, 1)], 1, seed=0)
    with pytest.raises(InputError, match="0 or more"):
        hard_negatives(near, range(4), [], -1, seed=0)
    with pytest.raises(InputError, match="0 or more"):
        random_negatives(range(4), [], -1, seed=0)
