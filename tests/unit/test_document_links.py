"""Links between the documents of whole public corpora, counted."""

from __future__ import annotations

import os
import pathlib

import pytest

from pipelines.data.datasets.documents import linked_corpus

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("PIPELINES_DATA") or ROOT.parent / "shared" / "data") / "embeddable" / "documents"


@pytest.mark.parametrize(
    ("name", "documents", "pairs", "directed"),
    [("linux_manpages.tar.xz", 1100, 3594, 5119), ("perl_pod.tar.xz", 206, 1237, 1379), ("enwiki", 106, 78, 87)],
)
def test_links_of_other_corpora(name: str, documents: int, pairs: int, directed: int) -> None:
    if not DATA.is_dir():
        pytest.skip("set PIPELINES_DATA to the folder with the data")
    corpus = linked_corpus(next(DATA.glob(f"{name}*")))
    assert not corpus.failures
    assert (len(corpus.documents), len(corpus.edges)) == (documents, pairs)
    assert any(one.startswith(f"{directed:,} directed links") for one in corpus.notes), corpus.notes
