"""Search and scores: queries against a folder or an index, pairs against each other, with the passages that answer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.datasets.document_pairs import PairSet, open_pairs
from pipelines.data.datasets.document_stream import DocumentStream
from pipelines.data.formats.document_types import Document
from pipelines.errors import ConfigError, InputError
from pipelines.match.document_facts import DocumentFacts, Tally
from pipelines.match.encoding import Read, encode_stream
from pipelines.match.index import Index
from pipelines.match.passages import Answer, Passages, answers
from pipelines.match.reading import is_pairs, open_stream
from pipelines.match.result import Match, Matches, PairScore, Query, Scores
from pipelines.match.shard_files import CONFIG_FILE

if TYPE_CHECKING:
    from pipelines.match.pipeline import Matcher

__all__ = ["facts_of", "index_folder", "reads", "score", "search", "vector_identity"]

_HELD = 200  # documents whose blocks are kept for passages and pictures


def vector_identity(m: Matcher) -> str:
    """What vectors depend on: all tensors, how documents are read, and how they are cut."""
    options = {"blocks": dataclasses.asdict(m.blocks), "read": dataclasses.asdict(m.read), "model": m.model}
    options["read"].pop("limit_mb")
    return hashlib.sha256(f"{m.state.identity} {json.dumps(options, sort_keys=True)}".encode()).hexdigest()


def facts_of(read: Read) -> DocumentFacts:
    """What was read of a document."""
    one = read.document
    return DocumentFacts.of(one.name, read.blocks.counts, title=one.title, notes=one.notes)


def reads(m: Matcher, documents: Iterable[Document], failures: dict[str, str], label: str = "") -> Iterator[Read]:
    """Documents with their vectors; those without a word that the model knows are counted among the failures."""
    track = m.run.progress
    given = documents
    if label and track is not None:
        given = track.track(documents, total=getattr(documents, "expected", None), label=label)
    for one in encode_stream(m.state, given, m.blocks, m.batch_blocks):
        if len(one.blocks.ids):
            yield one
        else:
            failures[one.document.name] = str(InputError("holds no word", where=one.document.name))


def index_folder(corpus: Any) -> Path | None:
    """The folder of an index, or of a run that wrote one; None for everything else."""
    if not isinstance(corpus, (str, Path)):
        return None
    for folder in (Path(corpus), Path(corpus) / "vectors"):
        if (folder / CONFIG_FILE).is_file() and any(folder.glob("vectors-*.npy")):
            return folder
    return None


def search(m: Matcher, inputs: Any, corpus: Any, passages: int) -> Matches:
    """The nearest documents of each query.

    Raises:
        InputError: no query, no corpus, or nothing that can be read.
        WeightsError: an index that other weights made.
    """
    _check_passages(passages)
    failed: dict[str, str] = {}
    asked = _queries(m, inputs, failed)
    told: list[str] = []
    among = corpus is None
    if among and len(asked) < 2:
        raise ConfigError(
            "nothing to search in",
            where="corpus",
            found="one document",
            expected="--corpus and a folder, archive or table of documents, or what `pipelines match encode` wrote",
        )
    tally = Tally()
    folder = index_folder(corpus)
    if folder is not None:
        index = Index.open(folder, identity=vector_identity(m))
        source = index.config.get("source")
        name, stream = str(corpus), _again(m, source)
        if stream is None and passages:
            told.append("the documents of the index are not where they were: passages are not shown")
    else:
        given = list(asked) if among else open_stream(m, corpus)
        stream = given if isinstance(given, DocumentStream) else None
        kept = given if isinstance(given, list) else list_vectors(m, given, failed)
        index, name = _in_memory(kept, tally), "the documents given" if among else given.name  # type: ignore[union-attr]
        if stream is not None:
            failed |= stream.failures
            told += stream.notes
    hits = index.search(np.stack([one.vector for one in asked]), m.top + (1 if among else 0), engine=m.backend)
    told += hits.notes
    rows = [
        [(float(s), int(r)) for s, r in zip(scores, places, strict=True) if not (among and int(r) == number)][: m.top]
        for number, (scores, places) in enumerate(zip(*hits, strict=True))
    ]
    pages = {one.document.name: _page(one) for one in asked} if among else {}
    if passages and stream is not None and not among:
        wanted = {index.name(row) for found in rows for _, row in found[: _shown(len(rows))]}
        pages |= {one.document.name: _page(one) for one in _wanted(m, stream, wanted)}
    queries = [
        _query(m, one, [(index, row, value) for value, row in found], pages, passages)
        for one, found in zip(asked, rows, strict=True)
    ]
    own = [_page(one) for one in asked]

    def both(number: int, place: int) -> tuple[Passages, Passages] | None:
        page = pages.get(queries[number].matches[place].name)
        return None if page is None else (own[number], page)

    data = asked[0].document.name if len(asked) == 1 else f"{len(asked)} queries"
    provenance = m.provenance(f"{data} in {name}")
    searched = tally if tally.documents else None
    return Matches(m.model, provenance, failed, tuple(told), queries, name, searched, both)


def list_vectors(m: Matcher, stream: Iterable[Document], failed: dict[str, str]) -> list[Read]:
    """Documents with their vectors, without their texts and blocks: memory grows by one vector a document."""
    return [
        dataclasses.replace(one, document=dataclasses.replace(one.document, text=""), vectors=one.vectors[:0])
        for one in reads(m, stream, failed, "documents encoded")
    ]


def _in_memory(kept: Sequence[Read], tally: Tally) -> Index:
    if not kept:
        raise InputError("no document of the corpus can be read", where="corpus")
    facts = []
    for one in kept:
        tally.add(facts_of(one))
        facts.append({"title": one.document.title, **facts_of(one).counts()})
    return Index.of([one.document.name for one in kept], np.stack([one.vector for one in kept]), facts)


def _queries(m: Matcher, inputs: Any, failed: dict[str, str]) -> list[Read]:
    """The queries, each with its vector; of several the readable ones."""
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if len(given) == 1:
        stream = open_stream(m, given[0])
        found = list(reads(m, stream, failed))
        failed |= stream.failures
    else:
        found = []
        for one in given:
            stream = open_stream(m, one)
            found += list(reads(m, stream, failed))
            failed |= stream.failures
    if not found:
        raise InputError("no query can be read", where="inputs", found=" ".join(failed.values()) or "nothing")
    return found


def _again(m: Matcher, source: Any) -> DocumentStream | None:
    """The documents that an index was made of, where they still are."""
    if not isinstance(source, str) or not source:
        return None
    try:
        return open_stream(m, source)
    except (InputError, OSError):
        return None


def _wanted(m: Matcher, stream: DocumentStream, names: set[str]) -> Iterator[Read]:
    """A second pass for the documents whose passages are shown; it ends with the last of them."""

    def chosen() -> Iterator[Document]:
        missing = set(names)
        for one in stream:
            if one.name in missing:
                missing.discard(one.name)
                yield one
            if not missing:
                return

    return reads(m, chosen(), {})


def _shown(queries: int) -> int:
    """Documents of a query whose passages are looked up: all of few queries, the first of many."""
    return max(1, _HELD // queries)


def _page(read: Read) -> Passages:
    return Passages(read.document.name, read.document.text, read.blocks.spans, read.vectors)


def _query(
    m: Matcher, asked: Read, found: list[tuple[Index, int, float]], pages: dict[str, Passages], passages: int
) -> Query:
    matches = []
    for index, row, value in found:
        name, facts = index.name(row), index.facts(row)
        page = pages.get(name)
        pairs: tuple[Answer, ...] = ()
        if passages and page is not None and len(page):
            pairs = tuple(answers(_page(asked), page, passages))
        told = DocumentFacts.of(name, facts, title=str(facts.get("title", "")))
        probability = float(m.state.calibration.probability([value])[0])
        matches.append(Match(name, value, probability, told.title, told, pairs))
    return Query(asked.document.name, tuple(matches), facts_of(asked))


def score(m: Matcher, inputs: Any, passages: int) -> Scores:
    """Scores of pairs.

    Raises:
        InputError: not two documents, no file of pairs, or a document that cannot be read.
    """
    _check_passages(passages)
    failed: dict[str, str] = {}
    told: list[str] = []
    documents, table, labels, name = _pairs(m, inputs, failed, told)
    read = {one.document.name: one for one in reads(m, documents, failed, "documents encoded")}
    probability = m.state.calibration.probability
    pairs, kept = [], []
    for (left, right), label in zip(table, labels, strict=True):
        if left not in read or right not in read:
            failed.setdefault(f"{left} | {right}", "a document of this pair could not be read")
            continue
        a, b = read[left], read[right]
        value = float(a.vector @ b.vector)
        shown = tuple(answers(_page(a), _page(b), passages)) if passages else ()
        chance = float(probability([value])[0])
        pairs.append(PairScore(left, right, value, chance, facts_of(a), facts_of(b), shown, label))
        kept.append((left, right))
    if not pairs:
        raise InputError("no pair can be scored", where="inputs", found=" ".join(failed.values()) or "no pairs")

    def both(number: int) -> tuple[Passages, Passages]:
        left, right = kept[number]
        return _page(read[left]), _page(read[right])

    return Scores(m.model, m.provenance(name), failed, tuple(told), pairs, both)


_Pairs = tuple[Sequence[Document], list[tuple[str, str]], list[int | None], str]


def _pairs(m: Matcher, inputs: Any, failed: dict[str, str], told: list[str]) -> _Pairs:
    """Documents, pairs of their names, labels where the source has them, and what it is called."""
    given = inputs[0] if isinstance(inputs, (list, tuple)) and len(inputs) == 1 else inputs
    if isinstance(given, PairSet) or is_pairs(given):
        source: PairSet = open_pairs(given, m.read, unlabelled=True)
        told += source.notes
        failed |= dict(source.failures)
        names = [one.name for one in source.documents]
        table = [(names[a], names[b]) for a, b in zip(source.left.tolist(), source.right.tolist(), strict=True)]
        return source.documents, table, [int(one) if one >= 0 else None for one in source.label], source.name
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        found = f"{len(given)} inputs" if isinstance(given, (list, tuple)) else type(given).__name__
        raise InputError(
            "a score needs two documents",
            where="inputs",
            found=found,
            expected="two paths or texts, or one file of pairs (JSONL, TSV, CSV)",
        )
    documents = []
    for label, one in zip(("left", "right"), given, strict=True):
        stream = open_stream(m, [one] if isinstance(one, str) and not Path(one).exists() else one)
        found = list(stream)
        if len(found) != 1:
            problem = "; ".join(stream.failures.values()) or f"{len(found)} documents"
            raise InputError("not one document", where=label, found=problem, expected="one file or text")
        documents.append(found[0])
    if documents[0].name == documents[1].name:
        documents = [
            dataclasses.replace(d, name=f"{d.name} ({s})") for d, s in zip(documents, ("left", "right"), strict=True)
        ]
    names = (documents[0].name, documents[1].name)
    return documents, [names], [None], " and ".join(names)


def _check_passages(passages: int) -> None:
    if isinstance(passages, bool) or not isinstance(passages, int) or passages < 0:
        raise ConfigError("out of range", where="passages", found=passages, expected="a whole number from 0")
