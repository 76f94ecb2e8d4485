"""Word weights against the equation, neighbours against sorting every similarity, and a table that grows by pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.data.datasets import document_tfidf
from pipelines.data.datasets.document_tfidf import Tfidf
from pipelines.data.errors import InputError

TEXTS = [
    "apples apples pears and the plums",
    "pears pears pears of plums",
    "rockets rockets fly to planets",
    "planets and apples",
]


def by_hand(texts: list[str]) -> np.ndarray:
    """(N, words) in plain loops: (1 + ln count)(ln((1 + N) / (1 + df)) + 1), rows of length one, no stop words."""
    stop = {"and", "the", "of", "to"}
    counted = [{word: text.split().count(word) for word in text.split() if word not in stop} for text in texts]
    words = sorted({word for counts in counted for word in counts})
    table = np.zeros((len(texts), len(words)))
    for row, counts in enumerate(counted):
        for word, count in counts.items():
            holders = sum(word in other for other in counted)
            weight = math.log((1 + len(texts)) / (1 + holders)) + 1
            table[row, words.index(word)] = (1 + math.log(count)) * weight
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def random_texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"word{number}" for number in rng.zipf(1.5, 60) % 300) for _ in range(count)]


def test_vectors_are_those_of_the_equation() -> None:
    expected = by_hand(TEXTS)
    words = Tfidf().fit(TEXTS)
    assert np.allclose(words.vectors(TEXTS).toarray(), expected, atol=1e-12)
    left, right = np.array([0, 0, 1, 3, 2]), np.array([1, 3, 0, 2, 2])
    assert np.allclose(words.pair_scores(left, right), (expected[left] * expected[right]).sum(axis=1), atol=1e-12)


def test_only_the_most_frequent_words_are_kept() -> None:
    assert Tfidf(2).fit(TEXTS).vectors(TEXTS).shape == (4, 2)
    row = Tfidf(3).fit(TEXTS).vectors(["nothing known here"])
    assert row.nnz == 0


@pytest.mark.parametrize("cells", [1 << 24, 64])
def test_neighbours_are_those_of_a_full_sort(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_tfidf, "_CELLS", cells)
    texts = random_texts(40)
    texts[9] = texts[4]
    words = Tfidf().fit(texts)
    scores = words.vectors(texts).toarray()
    scores = scores @ scores.T
    np.fill_diagonal(scores, -np.inf)
    expected = np.argsort(-scores.round(9), axis=1, kind="stable")[:, :7]
    found = words.nearest(7)
    assert found.shape == (40, 7)
    assert found[4, 0] == 9
    assert found[9, 0] == 4
    rows = np.arange(40)[:, None]
    assert np.allclose(scores[rows, found], scores[rows, expected], atol=1e-9)
    assert (found != rows).all()


def test_neighbours_among_members() -> None:
    texts = random_texts(30, 1)
    words = Tfidf().fit(texts)
    members = np.arange(0, 30, 3)
    found = words.nearest(4, members)
    assert (found[np.setdiff1d(np.arange(30), members)] == -1).all()
    assert np.isin(found[members], members).all()
    alone = Tfidf().fit(texts)
    alone._fitted = words._fitted[members]
    assert (members[alone.nearest(4)] == found[members]).all()


def test_more_neighbours_than_there_are() -> None:
    words = Tfidf().fit(TEXTS)
    assert words.nearest(10).shape == (4, 3)
    assert words.nearest(3, [1, 2]).tolist() == [[-1] * 3, [2, -1, -1], [1, -1, -1], [-1] * 3]
    assert (words.nearest(2, [1]) == -1).all()


def test_equal_neighbours_go_to_the_lower_index() -> None:
    words = Tfidf().fit(["same words", "other thing", "same words", "same words"])
    assert words.nearest(2).tolist() == [[2, 3], [0, 2], [0, 3], [0, 2]]


def test_many_pairs_in_pieces() -> None:
    texts = random_texts(50, 2)
    words = Tfidf().fit(texts)
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 50, (2, 9000))
    dense = words.vectors(texts).toarray()
    assert np.allclose(words.pair_scores(left, right), (dense[left] * dense[right]).sum(axis=1))
    assert words.pair_scores([], []).shape == (0,)


def test_bad_input_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="call fit"):
        Tfidf().nearest(1)
    with pytest.raises(InputError, match="a sequence of texts"):
        Tfidf().fit("one text")
    with pytest.raises(InputError, match="a sequence of texts"):
        Tfidf().fit([])
    with pytest.raises(InputError, match="no words to compare"):
        Tfidf().fit(["the and of", "?"])
    with pytest.raises(InputError, match="1 or more"):
        Tfidf(0)
    words = Tfidf().fit(TEXTS)
    with pytest.raises(InputError, match="0 to 3"):
        words.pair_scores([4], [0])
    with pytest.raises(InputError, match="differ in number"):
        words.pair_scores([0, 1], [0])
    with pytest.raises(InputError, match="1 or more"):
        words.nearest(0)
