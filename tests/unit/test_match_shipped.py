"""The matchers that ship: they load, find what was held out of their training, and say what they are."""

from __future__ import annotations

import pytest

from pipelines.data.formats.document_types import Document
from pipelines.errors import ConfigError
from pipelines.match.models.minilm import minilm_files
from pipelines.match.pipeline import Matcher
from pipelines.match.reading import held_out, identity


def _installed() -> bool:
    try:
        minilm_files()
    except ConfigError:
        return False
    return True


@pytest.fixture(scope="module")
def documents() -> tuple[Document, ...]:
    matcher = Matcher(threads=1)
    assert matcher.adopt_shipped()
    return held_out(matcher, "demo")


def test_a_fifth_of_the_documents_was_held_out(documents: tuple[Document, ...]) -> None:
    assert len(documents) == 100
    state = Matcher(threads=1)
    state.adopt_shipped()
    known = set(state.state.trained.tolist()) | set(state.state.held.tolist())
    assert not known & {identity(one) for one in documents}
    assert len(known) > 350


@pytest.mark.parametrize(
    "encoder", ["own", pytest.param("minilm", marks=pytest.mark.skipif(not _installed(), reason="no MiniLM"))]
)
def test_a_question_finds_the_pages_about_it(encoder: str, documents: tuple[Document, ...]) -> None:
    short = [one for one in documents if len(one.text) < 12_000][:25]
    right = [one for one in documents if one.name in ("library/archiving.rst", "library/gzip.rst")]
    assert len(right) == 2
    corpus = [*right, *(one for one in short if one not in right)]
    matcher = Matcher(encoder=encoder, top=3, threads=1)
    answer = matcher.predict(["How do I read and write compressed archives from a program?"], corpus=corpus)
    found = [match.name for match in answer.queries[0].matches]
    assert {one.name for one in right} <= set(found)
    assert "shipped with the package" in answer.provenance.weights


def test_a_document_is_its_own_nearest(documents: tuple[Document, ...]) -> None:
    short = [one for one in documents if len(one.text) < 8000][:12]
    answer = Matcher(threads=1, top=2).predict(short, corpus=short, passages=0)
    assert [query.matches[0].name for query in answer.queries] == [one.name for one in short]
    assert all(query.matches[0].score == pytest.approx(1.0, abs=1e-5) for query in answer.queries)
