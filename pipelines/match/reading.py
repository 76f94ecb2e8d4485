"""Whatever a user calls documents or pairs: names, folders, archives, tables, texts; and which of them match."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.document_links import LinkedCorpus, linked_corpus
from pipelines.data.datasets.document_open import meant_a_file, read_all
from pipelines.data.datasets.document_pairs import PairSet, is_pair_list, open_pairs
from pipelines.data.datasets.document_splits import document_folds, pair_parts, same_text
from pipelines.data.datasets.documents import DocumentStream, open_documents
from pipelines.data.formats.document_types import Document
from pipelines.errors import InputError
from pipelines.match.document_facts import one_line
from pipelines.match.sentences import split_sentences

if TYPE_CHECKING:
    from pipelines.match.pipeline import Matcher

__all__ = [
    "Material",
    "Parts",
    "held_out",
    "identity",
    "is_pairs",
    "notes_of",
    "open_query",
    "open_stream",
    "parts_of",
    "read_material",
    "there",
]

Indices = NDArray[np.int64]
#: Shorter documents have no two halves worth telling apart.
_SHORTEST = 400


@dataclasses.dataclass(frozen=True)
class Material:
    """Documents, and which of them match.

    Attributes:
        name: of the data.
        documents: every document once.
        matches: (P, 2) indices of documents that match.
        others: (Q, 2) indices of documents that do not; None where all other pairs do not match.
        group: (N,) documents of one number must stay on one side of a split.
        given: (N,) the part that the data put each document in: train, valid, test; empty where they say nothing.
        kind: links, halves or pairs.
        notes: what was done to the data, counted.
    """

    name: str
    documents: tuple[Document, ...]
    matches: Indices
    group: Indices
    kind: str
    others: Indices | None = None
    given: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Parts:
    """Indices of the documents that are learned from, that choose the epoch and calibrate, that are measured."""

    train: Indices
    valid: Indices
    test: Indices


def identity(document: Document) -> int:
    """A number for a document's text, spaces, line ends and case put aside.

    Example:
        >>> identity(Document("a", "One word.")) == identity(Document("b", "one  word."))
        True
    """
    plain = " ".join(document.text.casefold().split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(plain).digest()[:8], "little", signed=True)


def there(path: str | Path) -> bool:
    """Whether a path leads to a file or folder; a text may be too long to be one, and the empty one is none.

    Example:
        >>> there("a text of many words " * 500), there("")
        (False, False)
    """
    try:
        return str(path) != "" and Path(path).exists()
    except (OSError, ValueError):
        return False


def notes_of(stream: DocumentStream) -> list[str]:
    """What a stream has to say beside its failures, which are told one by one.

    Example:
        >>> stream = open_documents([Document("a", "One.")])
        >>> stream.fail("b", "no text"), stream.notes[0][:22], notes_of(stream)
        (None, '1 could not be read, t', [])
    """
    return [note for note in stream.notes if " could not be read, the first is " not in note]


def open_query(m: Matcher, query: Any, told: list[str]) -> DocumentStream:
    """The documents of a query: as :func:`open_stream`, but a string that leads nowhere is the text to search with.

    Args:
        m: says how documents are read.
        query: a path, a name of the catalogue, a text or documents; a text is called by its first words.
        told: gets a note where one word is taken for a text, since it might be a mistyped path.

    Raises:
        InputError: a string that is a path by its look and leads nowhere, or a text that cannot be read.
    """
    from pipelines.data.catalog import is_name

    if not isinstance(query, str) or there(query) or is_name(query, "match"):
        return open_stream(m, query)
    words = query.split()
    if not words:
        raise InputError("the query is empty", where="inputs", found=repr(query), expected="a path or a text")
    if meant_a_file(query) or (len(words) == 1 and ("/" in query or "\\" in query)):
        raise InputError(
            "there is no such file or folder",
            where=one_line(query, 200),
            cure="check the path, or give a text of words",
        )
    if len(words) == 1:
        told.append(f"there is no file or folder {one_line(query, 60)}: it was read as a text")
    stream = open_documents([query], m.read)
    return open_documents([dataclasses.replace(one, name=one_line(query, 60)) for one in read_all(stream)])


def open_stream(m: Matcher, inputs: Any) -> DocumentStream:
    """The documents behind a path, a name of the catalogue, texts or documents, one after the other.

    Raises:
        InputError: nothing that documents can be read from.
    """
    from pipelines.data.catalog import entry, is_name, sample_path

    if isinstance(inputs, str) and not there(inputs) and is_name(inputs, "match"):
        return open_documents(sample_path(entry(inputs, "match")), m.read)
    return open_documents(inputs, m.read)


def read_material(m: Matcher, data: Any) -> Material:
    """The documents and matches of what ``fit`` and ``evaluate`` take.

    Raises:
        InputError: no documents, or none that match.

    Example:
        >>> from pipelines.match.pipeline import Matcher
        >>> found = read_material(Matcher(), "demo")
        >>> found.kind, len(found.documents)
        ('links', 497)
    """
    if isinstance(data, Material):
        return data
    if is_pairs(data):
        return _of_pairs(open_pairs(data, m.read))
    corpus = _corpus(m, data)
    if m.pairs.source != "halves" and len(corpus.edges):
        groups = same_text([one.text for one in corpus.documents])
        matches = np.asarray(corpus.edges, np.int64)
        return Material(corpus.name, corpus.documents, matches, groups, "links", notes=corpus.notes)
    if m.pairs.source == "links":
        raise InputError(
            "no document links to another one",
            where=corpus.name,
            found=f"{len(corpus.documents)} documents",
            cure="give --pairs.links, a table of two columns of names, or --pairs.source halves",
        )
    return _halves(corpus)


def is_pairs(data: Any) -> bool:
    """Whether data are pairs: a file with columns of pairs, or a sequence of (left, right) or (left, right, label).

    Example:
        >>> is_pairs([("a", "b", 1)]), is_pairs(["a", "b"])
        (True, False)
    """
    if isinstance(data, PairSet):
        return True
    if isinstance(data, (str, Path)):
        return there(data) and is_pair_list(Path(data))
    rows = isinstance(data, Sequence) and len(data) > 0
    return rows and all(isinstance(row, tuple) and len(row) in (2, 3) for row in data)


def _corpus(m: Matcher, data: Any) -> LinkedCorpus:
    from pipelines.data.catalog import entry, is_name, sample_path

    if isinstance(data, LinkedCorpus):
        return data
    linked = m.pairs.source != "halves"
    options = dataclasses.replace(m.read, roles=m.pairs.roles if linked and m.read.markup == "strip" else m.read.roles)
    source, name = data, ""
    if isinstance(data, str) and not there(data) and is_name(data, "match"):
        found = entry(data, "match")
        source, name = sample_path(found), found.name
    if linked:
        corpus = linked_corpus(source, options, m.pairs.links)
    else:
        stream = open_documents(source, options)
        documents = read_all(stream)
        corpus = LinkedCorpus(stream.name, documents, np.zeros((0, 2), np.int64), tuple(stream.notes))
    return dataclasses.replace(corpus, name=name or corpus.name)


def _of_pairs(pairs: PairSet) -> Material:
    table = np.stack([pairs.left, pairs.right], 1).astype(np.int64)
    match = pairs.label > 0
    notes = list(pairs.notes)
    given: tuple[str, ...] = ()
    if pairs.part is not None:
        parts: dict[int, set[str]] = {}
        for row, part in zip(table.tolist(), pairs.part, strict=True):
            for one in row:
                parts.setdefault(one, set()).add(part)
        order = ("test", "valid", "train")  # what is measured is measured whole: it is not learned from
        given = tuple(
            next((name for name in order if name in parts.get(i, ())), "") for i in range(len(pairs.documents))
        )
        shared = sum(len(found) > 1 for found in parts.values())
        if shared:
            notes.append(f"{shared} documents stand in several parts of the data; pairs across parts are left out")
    groups = same_text([one.text for one in pairs.documents])
    return Material(pairs.name, pairs.documents, table[match], groups, "pairs", table[~match], given, tuple(notes))


def _halves(corpus: LinkedCorpus) -> Material:
    """Each long enough document as two documents that match, cut between two sentences."""
    documents: list[Document] = []
    groups: list[int] = []
    origin = same_text([one.text for one in corpus.documents])
    short = 0
    for number, one in enumerate(corpus.documents):
        starts = [begin for begin, _ in split_sentences(one.text)][1:]
        if len(one.text) < _SHORTEST or not starts:
            short += 1
            continue
        cut = min(starts, key=lambda place: abs(place - len(one.text) // 2))
        for label, text in (("first half", one.text[:cut]), ("second half", one.text[cut:])):
            documents.append(dataclasses.replace(one, name=f"{one.name} ({label})", text=text, links=()))
        groups += [int(origin[number])] * 2
    if len(documents) < 4:
        raise InputError(
            "too few documents to learn from",
            where=corpus.name,
            found=f"{len(corpus.documents)} documents, {short} of them shorter than {_SHORTEST} characters",
            expected="two long ones at least, or documents that link to each other, or a file of pairs",
        )
    notes = [*corpus.notes, "the two halves of a document match; halves of different documents do not"]
    if short:
        notes.append(f"{short} documents are too short to be halved and were left out")
    matches = np.arange(len(documents), dtype=np.int64).reshape(-1, 2)
    return Material(corpus.name, tuple(documents), matches, np.array(groups), "halves", notes=tuple(notes))


def parts_of(m: Matcher, material: Material, test: Indices | None = None) -> tuple[Parts, list[str]]:
    """Which documents are learned from, which choose the epoch, which are measured; and what to say of it.

    Args:
        m: gives shares and seed.
        material: the documents.
        test: (K,) documents to be measured, instead of those that the data name or a seeded share.

    Raises:
        InputError: too few documents for three parts.
    """
    count = len(material.documents)
    part = np.zeros(count, np.int64)
    if test is not None:
        part[test] = 2
    elif any(material.given):
        named = {"test": 2, "valid": 1}
        part = np.array([named.get(name, 0) for name in material.given], np.int64)
    elif m.test > 0:
        part[_share(m, material, np.arange(count), m.test, m.seed)] = 2
    if not (part == 1).any():
        rest = np.flatnonzero(part == 0)
        part[_share(m, material, rest, m.valid, m.seed + 1)] = 1
    # A copy of a measured document is measured too, and a copy of one that chooses the epoch is not learned from.
    worst = np.zeros(int(material.group.max()) + 1, np.int64)
    np.maximum.at(worst, material.group, part)
    part = worst[material.group]
    everything = np.concatenate([material.matches, *([] if material.others is None else [material.others])])
    across = int((pair_parts(everything, part) < 0).sum())
    notes = [f"{across} pairs of documents in different parts are left out"] if across else []
    parts = Parts(*(np.flatnonzero(part == number) for number in range(3)))
    if not len(parts.train):
        raise InputError("no documents are left to learn from", where=material.name, found=f"{count} documents")
    return parts, notes


def _share(m: Matcher, material: Material, among: Indices, share: float, seed: int) -> Indices:
    """About this share of some documents, groups whole."""
    groups = material.group[among]
    kinds = len(np.unique(groups))
    folds = round(1 / share) if share else 0
    if folds < 2 or kinds < 2:
        return among[:0]
    return among[document_folds(len(among), min(folds, kinds), seed, groups) == 0]


def held_out(m: Matcher, data: Any) -> tuple[Document, ...]:
    """The documents of data that the fitted model has not learned from, nor was chosen by."""
    material = read_material(m, data)
    known = set(m.state.trained.tolist()) | set(m.state.held.tolist())
    return tuple(one for one in material.documents if identity(one) not in known)
