"""The baseline that knows words only: documents as weighted counts of their words, compared by the cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.errors import InputError

if TYPE_CHECKING:
    from typing import Self

    from scipy.sparse import csr_matrix

__all__ = ["Tfidf"]

#: Similarities held at once while neighbours are looked for: 16 million numbers.
_CELLS = 1 << 24


class Tfidf:
    """Vectors of word weights: (1 + ln count) times the inverse document frequency, English stop words left out.

    The inverse frequency is ln((1 + N) / (1 + documents with the word)) + 1; rows have length one.

    Args:
        features: words kept, the most frequent ones.

    Raises:
        InputError: no words are to be kept.

    Example:
        >>> words = Tfidf().fit(["red apples", "green apples", "blue planets"])
        >>> words.pair_scores([0, 0], [1, 2]).round(3).tolist()
        [0.366, 0.0]
        >>> words.nearest(1).ravel().tolist()
        [1, 0, 0]
    """

    def __init__(self, features: int = 30_000) -> None:
        if isinstance(features, bool) or not isinstance(features, int) or features < 1:
            raise InputError("no number of words", where="features", found=repr(features), expected="1 or more")
        self.features = features
        self._vectorizer: Any = None
        self._fitted: Any = None

    def fit(self, texts: Sequence[str]) -> Self:
        """Take the words and their weights from texts, and keep their vectors for the pairs asked for later.

        Args:
            texts: of N documents.

        Raises:
            InputError: no text, or none with a word that is not a stop word.

        Complexity: O(characters).
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        if isinstance(texts, str) or not len(texts):
            raise InputError("no texts to count words in", where="texts", expected="a sequence of texts")
        vectorizer = TfidfVectorizer(max_features=self.features, sublinear_tf=True, stop_words="english")
        try:
            self._fitted = vectorizer.fit_transform(texts).tocsr()
        except ValueError as error:
            found = f"{len(texts)} texts: {error}"
            raise InputError("the texts have no words to compare", where="texts", found=found) from error
        self._vectorizer = vectorizer
        return self

    def vectors(self, texts: Sequence[str]) -> csr_matrix:
        """(N, words) sparse rows of length one; a text without known words has a row of zeros.

        Raises:
            InputError: before `fit`.

        Complexity: O(characters).
        """
        self._check()
        return self._vectorizer.transform(texts).tocsr()

    def pair_scores(self, left: ArrayLike, right: ArrayLike) -> NDArray[np.float64]:
        """(P,) cosine of pairs of the fitted texts.

        Args:
            left, right: (P,) indices into the texts given to `fit`.

        Raises:
            InputError: before `fit`, indices of different number or out of range.

        Complexity: O(words of the pairs).
        """
        self._check()
        first, second = self._indices(left, "left"), self._indices(right, "right")
        if len(first) != len(second):
            raise InputError("left and right differ in number", where="pairs", found=f"{len(first)} and {len(second)}")
        scores = np.empty(len(first))
        for start in range(0, len(first), 4096):  # rows are copied to be multiplied: some at a time
            part = slice(start, start + 4096)
            products = self._fitted[first[part]].multiply(self._fitted[second[part]])
            scores[part] = np.asarray(products.sum(axis=1)).ravel()
        return scores

    def nearest(self, k: int, members: ArrayLike | None = None) -> NDArray[np.int64]:
        """The nearest of the fitted texts to each of them, the text itself left out; ties go to the lower index.

        Args:
            k: how many; all others where there are fewer.
            members: (M,) only these are looked for and looked at; all by default.

        Returns:
            (N, min(k, N - 1)) indices, nearest first; -1 for rows that are no members and where members run out.

        Raises:
            InputError: before `fit`, or a k below 1.

        Complexity: O(N^2) time at worst, O(N k) memory and 128 MB.
        """
        self._check()
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError("no number of neighbours", where="k", found=repr(k), expected="1 or more")
        count = self._fitted.shape[0]
        chosen = np.arange(count) if members is None else np.unique(self._indices(members, "members"))
        table = np.full((count, min(k, count - 1)), -1, np.int64)
        width = min(table.shape[1], len(chosen) - 1)
        if width < 1:
            return table
        rows = self._fitted[chosen]
        columns = rows.T.tocsr()
        step = max(1, _CELLS // len(chosen))
        for start in range(0, len(chosen), step):
            scores = (rows[start : start + step] @ columns).toarray()
            for place, row in enumerate(scores, start):
                row[place] = -np.inf
                table[chosen[place], :width] = chosen[_top(row, width)]
        return table

    def _check(self) -> None:
        if self._fitted is None:
            raise InputError("no texts were counted yet", where="Tfidf", cure="call fit with the texts first")

    def _indices(self, given: ArrayLike, where: str) -> NDArray[np.int64]:
        found = np.asarray(given, np.int64).ravel()
        count = self._fitted.shape[0]
        if len(found) and not 0 <= found.min() <= found.max() < count:
            raise InputError(
                "an index out of range",
                where=where,
                found=f"{found.min()} to {found.max()}",
                expected=f"0 to {count - 1}",
            )
        return found


def _top(row: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Places of the largest, largest first; of equal ones the earlier."""
    least = np.partition(row, len(row) - count)[len(row) - count]
    able = np.flatnonzero(row >= least)
    return able[np.argsort(-row[able], kind="stable")][:count]
