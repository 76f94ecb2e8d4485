"""Search: queries against a folder or an index, or among each other, with the passages that answer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.datasets.document_stream import DocumentStream
from pipelines.data.formats.document_types import Document
from pipelines.errors import ConfigError, InputError
from pipelines.match.document_facts import DocumentFacts, Tally
from pipelines.match.encoding import Read, encode_stream
from pipelines.match.index import Index
from pipelines.match.options import block_length
from pipelines.match.passages import Answer, Passages, answers
from pipelines.match.reading import identity, notes_of, open_query, open_stream, there
from pipelines.match.result import Match, Matches, Query
from pipelines.match.shard_files import CONFIG_FILE

if TYPE_CHECKING:
    from pipelines.match.pipeline import Matcher

__all__ = [
    "check_passages",
    "facts_of",
    "index_folder",
    "page_of",
    "reads",
    "row_of",
    "search",
    "stored_facts",
    "vector_identity",
]

_HELD = 200  # documents of a corpus whose blocks are kept for passages and pictures


def vector_identity(m: Matcher) -> str:
    """What vectors depend on: all tensors, how documents are read, and how they are cut."""
    blocks = dataclasses.asdict(m.blocks) | {"length": block_length(m.blocks, m.state.encoder)}
    read = {name: value for name, value in dataclasses.asdict(m.read).items() if name != "limit_mb"}
    options = {"blocks": blocks, "read": read, "model": m.model}
    return hashlib.sha256(f"{m.state.identity} {json.dumps(options, sort_keys=True)}".encode()).hexdigest()


def facts_of(read: Read) -> DocumentFacts:
    """What was read of a document."""
    one = read.document
    return DocumentFacts.of(one.name, read.blocks.counts, title=one.title, notes=one.notes)


def row_of(read: Read) -> dict[str, Any]:
    """What an index stores of a document beside its name: title, counts, notes, and the number of its text."""
    told = facts_of(read)
    return {"title": told.title, **told.counts(), "notes": list(told.notes), "identity": identity(read.document)}


def stored_facts(name: str, row: Mapping[str, Any]) -> DocumentFacts:
    """What an index says of a document, see :func:`row_of`."""
    return DocumentFacts.of(name, row, title=str(row.get("title", "")), notes=tuple(row.get("notes", ())))


def page_of(read: Read) -> Passages:
    """A document with its blocks."""
    return Passages(read.document.name, read.document.text, read.blocks.spans, read.vectors)


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
    if not isinstance(corpus, (str, Path)) or not there(corpus):
        return None
    for folder in (Path(corpus), Path(corpus) / "vectors"):
        if (folder / CONFIG_FILE).is_file() and any(folder.glob("vectors-*.npy")):
            return folder
    return None


def check_passages(passages: int) -> None:
    """Refuse a number of passages that cannot be.

    Raises:
        ConfigError: it is no whole number from 0.
    """
    if isinstance(passages, bool) or not isinstance(passages, int) or passages < 0:
        raise ConfigError("out of range", where="passages", found=passages, expected="a whole number from 0")


@dataclasses.dataclass(frozen=True)
class _Searched:
    """What is searched: its rows, how it is called, the counts where it was read now, and how to read it again."""

    index: Index
    name: str
    tally: Tally | None
    again: Callable[[], Iterable[Document]] | None


def search(m: Matcher, inputs: Any, corpus: Any, passages: int, expected_matches: float) -> Matches:
    """The nearest documents of each query.

    Raises:
        ConfigError: no corpus for a single query, or numbers that cannot be.
        InputError: no query, or nothing that can be read.
        WeightsError: an index that other weights made.
    """
    check_passages(passages)
    if isinstance(expected_matches, bool) or not expected_matches > 0:
        raise ConfigError("out of range", where="expected_matches", found=expected_matches, expected="above 0")
    failed: dict[str, str] = {}
    told: list[str] = []
    asked = _queries(m, inputs, failed, told, among=corpus is None)
    if corpus is None:
        kept = [(one.document.name, one.vector, row_of(one), facts_of(one)) for one in asked]
        searched = _in_memory(kept, "the documents given", None, failed)
    else:
        searched = _corpus(m, corpus, failed, told, passages)
    index = searched.index
    rows, said = _nearest(m, asked, index, among=corpus is None)
    told += said
    pages = {identity(one.document): page_of(one) for one in asked} if corpus is None else {}
    if passages and searched.again is not None:
        first = max(1, _HELD // len(rows))
        wanted = {index.facts(row).get("identity"): None for found in rows for _, row in found[:first]}
        pages = _pages(m, searched.again(), wanted)
        if len(pages) < len(wanted):
            missing = len(wanted) - len(pages)
            told.append(f"{missing:,} documents are not as they were when they were encoded: no passages of them")
        if max(map(len, rows)) > first:
            told.append(f"passages are shown of the first {first:,} documents of each query")
    chance = _chances(m, len(index) - (corpus is None), expected_matches, told)
    queries = [
        _query(one, [(index.name(row), index.facts(row), value) for value, row in found], pages, passages, chance)
        for one, found in zip(asked, rows, strict=True)
    ]
    itself = sum(match.same for query in queries for match in query.matches)
    if itself:
        told.append(f"{itself:,} of the documents found have the very text of their query: the query itself, or a copy")
    own = [page_of(one) for one in asked]
    numbers = [[int(index.facts(row).get("identity", 0)) for _, row in found] for found in rows]

    def both(number: int, place: int) -> tuple[Passages, Passages] | None:
        page = pages.get(numbers[number][place])
        return None if page is None else (own[number], page)

    data = asked[0].document.name if len(asked) == 1 else f"{len(asked)} queries"
    stamp = m.provenance(f"{data} in {searched.name}")
    return Matches(m.model, stamp, failed, tuple(dict.fromkeys(told)), queries, searched.name, searched.tally, both)


def _queries(m: Matcher, inputs: Any, failed: dict[str, str], told: list[str], *, among: bool) -> list[Read]:
    """The queries, each with its vector; of several the readable ones."""
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    streams: list[DocumentStream] = []
    for one in given:
        try:
            streams.append(open_query(m, one, told))
        except InputError as error:
            if len(given) == 1:
                raise
            failed[str(one)] = str(error)
    found = list(reads(m, _one_after_another(streams, failed, told), failed, "documents encoded" if among else ""))
    if not found:
        problem = " ".join(failed.values())
        raise InputError(problem if len(failed) == 1 else f"no query can be read: {problem or 'there is none'}")
    if among and len(found) < 2:
        raise ConfigError(
            "nothing to search in",
            where="corpus",
            found="one document",
            expected="--corpus and a folder, archive or table of documents, or what `pipelines match encode` wrote",
        )
    return found


def _one_after_another(
    streams: Sequence[DocumentStream], failed: dict[str, str], told: list[str]
) -> Iterator[Document]:
    """The documents of several streams; one with the name of an earlier one gets a number."""
    names: Counter[str] = Counter()
    for stream in streams:
        for one in stream:
            names[one.name] += 1
            again = names[one.name]
            yield one if again == 1 else dataclasses.replace(one, name=f"{one.name} ({again})")
        failed.update(stream.failures)
        told += notes_of(stream)
    repeated = sum(count - 1 for count in names.values())
    if repeated:
        told.append(f"{repeated:,} of the queries have the name of another one and got a number")


def _corpus(m: Matcher, corpus: Any, failed: dict[str, str], told: list[str], passages: int) -> _Searched:
    """An index as it lies there, or documents that are encoded now."""
    folder = index_folder(corpus)
    if folder is not None:
        index = Index.open(folder, identity=vector_identity(m))
        again = _again(m, index.config.get("sources"))
        if again is None and passages:
            told.append("the documents of the index are not where they were: passages are not shown")
        return _Searched(index, str(corpus), None, again)
    stream = open_stream(m, corpus)
    # Memory grows by one vector a document: texts and blocks are read again for those that are shown.
    kept = (
        (one.document.name, one.vector, row_of(one), facts_of(one))
        for one in reads(m, stream, failed, "documents encoded")
    )
    found = _in_memory(kept, stream.name, stream, failed)
    failed |= stream.failures
    told += notes_of(stream)
    return found


def _in_memory(
    kept: Iterable[tuple[str, Any, dict[str, Any], DocumentFacts]],
    name: str,
    stream: DocumentStream | None,
    failed: Mapping[str, str],
) -> _Searched:
    names, vectors, facts, tally = [], [], [], Tally()
    for label, vector, row, told in kept:
        names.append(label)
        vectors.append(vector)
        facts.append(row)
        tally.add(told)
    if not names:
        problems = {**failed, **({} if stream is None else stream.failures)}
        found = "; ".join(list(problems.values())[:3]) or "none"
        raise InputError("no document of the corpus can be read", where=name, found=found)
    again = None if stream is None else lambda: iter(stream)
    return _Searched(Index.of(names, np.stack(vectors), facts), name, tally, again)


def _again(m: Matcher, sources: Any) -> Callable[[], Iterator[Document]] | None:
    """The documents that an index was made of, where they still are."""
    if not isinstance(sources, list) or not sources:
        return None
    try:
        streams = [open_stream(m, str(one)) for one in sources]
    except (InputError, OSError):
        return None
    return lambda: (one for stream in streams for one in stream)


def _nearest(
    m: Matcher, asked: Sequence[Read], index: Index, *, among: bool
) -> tuple[list[list[tuple[float, int]]], tuple[str, ...]]:
    """Score and row of the documents nearest to each query; a query among the documents is not an answer to itself."""
    wanted = min(m.top + 1, len(index)) if among else m.top
    hits = index.search(np.stack([one.vector for one in asked]), wanted, engine=m.backend)
    rows = [
        [(float(s), int(r)) for s, r in zip(scores, places, strict=True) if not (among and int(r) == number)][: m.top]
        for number, (scores, places) in enumerate(zip(*hits, strict=True))
    ]
    return rows, hits.notes


def _pages(m: Matcher, documents: Iterable[Document], wanted: Mapping[Any, None]) -> dict[int, Passages]:
    """A second pass for the documents whose passages are shown; it ends with the last of them."""

    def chosen() -> Iterator[Document]:
        missing = dict(wanted)
        for one in documents:
            number = identity(one)
            if number in missing:
                del missing[number]
                yield one
            if not missing:
                return

    return {identity(one.document): page_of(one) for one in reads(m, chosen(), {})}


def _chances(m: Matcher, searched: int, expected: float, told: list[str]) -> Callable[[float], float | None]:
    """From a score to the probability of a match among so many documents; None where nothing was calibrated.

    The curve was fitted on as many matches as others. Of the documents searched far fewer match a query: the odds are
    multiplied accordingly, see :meth:`Calibration.probability`.
    """
    curve = m.state.calibration
    told += curve.notes
    if not curve.pairs:
        return lambda score: None
    if not 0 < curve.matches < curve.pairs or searched < 1:
        return lambda score: float(curve.probability([score])[0])
    matches = min(expected, searched / 2)
    told.append(f"probabilities take it that {matches:g} of {searched:,} documents match a query (--expected-matches)")
    return lambda score: float(curve.probability([score], base_rate=matches / searched)[0])


def _query(
    asked: Read,
    found: Sequence[tuple[str, dict[str, Any], float]],
    pages: Mapping[int, Passages],
    passages: int,
    chance: Callable[[float], float | None],
) -> Query:
    matches = []
    own = identity(asked.document)
    for name, facts, value in found:
        number = facts.get("identity")
        page = None if number is None else pages.get(number)
        pairs: tuple[Answer, ...] = ()
        if passages and page is not None and number != own:
            pairs = tuple(answers(page_of(asked), page, passages))
        told = stored_facts(name, facts)
        matches.append(Match(name, value, chance(value), told.title, told, pairs, number == own))
    return Query(asked.document.name, tuple(matches), facts_of(asked))
