"""Pairs of documents with labels: lists of pairs and triples, GWikiMatch and the AAN pairs of Long Range Arena."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.document_folders import left_out
from pipelines.data.datasets.document_labels import (
    ANCHOR,
    IDS,
    LABEL,
    LEFT,
    NEGATIVE,
    PART,
    PARTS,
    POSITIVE,
    RIGHT,
    label_of,
    part_of_file,
    value_of,
)
from pipelines.data.datasets.document_layouts import LAYOUTS, bytes_literal, headless, page_title, record_items
from pipelines.data.datasets.document_lists import Row, cells, list_kind, rows
from pipelines.data.datasets.document_open import looks_like_file, meant_a_file, open_documents
from pipelines.data.errors import InputError
from pipelines.data.formats.document_types import Document, DocumentOptions

__all__ = ["PairSet", "is_pair_list", "open_pairs"]

#: Most bytes of a row that tells what a file is.
_FIRST_ROW = 1 << 26
_ABOUT = ("readme", "license", "licence", "copying", "source", "notice")
_TEXTS = ("documents", "texts", "articles", "corpus")
_EXPECTED = (
    "keys or columns left, right, label (or a, b / doc1, doc2 / text1, text2), or anchor, positive, negative; "
    "GWikiMatch (label, URL, URL) or AAN (label, id, id, text, text) without a header"
)


@dataclass(frozen=True)
class PairSet:
    """Pairs of documents and whether they match.

    Args:
        name: of the source.
        documents: every document once.
        left, right: (P,) indices into `documents`.
        label: (P,) 0 or 1; -1 where a label is missing and may be.
        part: "train", "valid" or "test" of each pair, where the source says so.
        notes: how it was read and counted.
        failures: place -> why a line could not be used.
    """

    name: str
    documents: tuple[Document, ...]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    label: NDArray[np.int64]
    part: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label)


def open_pairs(
    source: Any, options: DocumentOptions | None = None, *, texts: Any = None, unlabelled: bool = False
) -> PairSet:
    """Read pairs: a text is shared by all pairs that have it, a bad line is named and the rest is read.

    A value is a file where one of that name lies beside the list, else a text. Triples make two pairs. Labels above 0
    (GWikiMatch has 0, 1, 2) are matches. Pairs of a document with itself and repeated pairs are counted and left out.

    Args:
        source: a list (.jsonl, .csv, .tsv, .parquet, perhaps compressed), a TFRecord file of WikiDocPair, a folder of
            such files whose names tell the part (train, eval, test), a data frame, or a sequence of (left, right,
            label) or of mappings.
        options: how documents are read.
        unlabelled: for pairs that are to be scored: a label may be missing and is -1 then, two values a row are
            enough, and pairs of a document with itself and repeated pairs stay.
        texts: documents by the names or addresses that pairs have instead of texts, as for `open_documents`; by
            default `documents.*`, `texts.*`, `articles.*` or `corpus.*` beside the list.

    Raises:
        InputError: no such file, no layout that fits, no pair that can be used.

    Complexity: O(characters); every different text in memory once.

    Example:
        >>> pairs = open_pairs([("One text.", "Another one.", 1), ("One text.", "A third one.", 0)])
        >>> len(pairs.documents), pairs.left.tolist(), pairs.right.tolist(), pairs.label.tolist()
        (3, [0, 0], [1, 2], [1, 0])
    """
    if isinstance(source, PairSet):
        return source
    options = options or DocumentOptions()
    if isinstance(source, str | os.PathLike):
        return _read_path(Path(source), options, texts, unlabelled)
    gathering = _Gathering("pairs", options, texts, unlabelled)
    if hasattr(source, "columns") and hasattr(source, "itertuples"):
        names = [str(name).lower() for name in source.columns]
        found = zip(source.index, source.itertuples(index=False, name=None), strict=True)
        gathering.take(((f"row {index}", dict(zip(names, row, strict=True))) for index, row in found), Path(), "")
    elif isinstance(source, Sequence) and not isinstance(source, bytes) and len(source):
        gathering.take(_entries(source), Path(), "")
    else:
        raise InputError("no pairs", where="pairs", found=type(source).__name__, expected=_EXPECTED)
    return gathering.finish()


def is_pair_list(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds pairs or triples, by its first row; a folder, whether a file in it does and none is a text.

    A folder may have a README and a LICENSE, as public sets do, and its texts in a folder of their own.

    Complexity: O(files of the folder): one row of each is read.

    Example:
        >>> is_pair_list("no/such/file.tsv")
        False
    """
    path = Path(path)
    if path.is_dir():
        files = [one for one in sorted(path.iterdir()) if one.is_file() and not _is_texts(one)]
        if any(left_out(one.name) is None and not one.name.lower().startswith(_ABOUT) for one in files):
            return False
        return any(is_pair_list(one) for one in files)
    if not path.is_file() or not (list_kind(path) or "tfrecord" in path.name.lower()):
        return False
    try:
        found, layout = _rows(path, _FIRST_ROW)
        if "header" not in layout and layout != "JSON lines":
            return True
        first = next((row for _, row in found if not isinstance(row, str)), {})
    except (InputError, OSError):
        return False
    return any(
        set(first) & set(left) and set(first) & set(right) for left, right in ((LEFT, RIGHT), (ANCHOR, POSITIVE))
    )


def _entries(source: Sequence[Any]) -> Iterator[Row]:
    for number, entry in enumerate(source, 1):
        if isinstance(entry, Mapping):
            yield f"pair {number}", {str(key).lower(): value for key, value in entry.items()}
        elif isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) in (2, 3):
            yield f"pair {number}", dict(zip(("left", "right", "label"), entry, strict=False))
        else:
            yield f"pair {number}", "neither (left, right, label) nor a mapping"


def _read_path(path: Path, options: DocumentOptions, texts: Any, unlabelled: bool) -> PairSet:
    if path.is_dir():
        files = [one for one in sorted(path.iterdir()) if one.is_file() and not _is_texts(one)]
        files = [one for one in files if list_kind(one) or "tfrecord" in one.name.lower()]
        if not files:
            names = ", ".join(sorted(one.name for one in path.iterdir())[:5])
            raise InputError("no list of pairs in the folder", where=path, found=names or "nothing", expected=_EXPECTED)
    elif path.is_file():
        files = [path]
    else:
        raise InputError("there is no such file or folder", where=path, expected=_EXPECTED)
    folder = path if path.is_dir() else path.parent
    if texts is None:
        texts = next((one for one in sorted(folder.iterdir()) if _is_texts(one) and one not in files), None)
    gathering = _Gathering(path.name or str(path), options, texts, unlabelled)
    for file in files:
        found, layout = _rows(file, gathering.limit)
        gathering.notes.append(f"{file.name} read as {layout}")
        gathering.take(found, file.parent, part_of_file(file.name))
    return gathering.finish()


def _is_texts(path: Path) -> bool:
    return path.name.split(".")[0].lower() in _TEXTS


def _rows(path: Path, limit: int) -> tuple[Iterable[Row], str]:
    """The rows of a file and the layout's name."""
    if "tfrecord" in path.name.lower():
        return record_items(path, limit), "TFRecords of WikiDocPair"
    kind = list_kind(path)
    if kind == "tab":
        first = next((row for _, row in cells(path, limit) if not isinstance(row, str)), [])
        layout = headless(first)
        if layout is not None:
            columns = LAYOUTS[layout]
            return _named(cells(path, limit), columns), layout
    if kind is None:
        raise InputError("not a list of pairs", where=path, expected=_EXPECTED)
    return rows(path, limit), "JSON lines" if kind == "JSON lines" else "a table with a header"


def _named(found: Iterable[tuple[str, list[str] | str]], columns: Sequence[str]) -> Iterator[Row]:
    for place, row in found:
        if isinstance(row, str):
            yield place, row
        elif len(row) != len(columns):
            yield place, f"{len(row)} cells where the layout has {len(columns)}"
        else:
            yield place, dict(zip(columns, row, strict=True))


class _Gathering:
    """Collects pairs; knows every text that it has seen."""

    def __init__(self, name: str, options: DocumentOptions, texts: Any, unlabelled: bool = False) -> None:
        self.name, self.options, self.unlabelled = name, options, unlabelled
        self.notes: list[str] = []
        self.failures: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.limit = int(options.limit_mb * (1 << 20))
        self._documents: list[Document] = []
        self._by_text: dict[bytes, int] = {}
        self._by_value: dict[bytes, int | str] = {}
        self._names: Counter[str] = Counter()
        self._pairs: dict[tuple[int, int, int, str, int], tuple[int, int, int, str]] = {}
        self._given = {} if texts is None else self._read_texts(texts)

    def _read_texts(self, texts: Any) -> dict[str, Document]:
        stream = open_documents(texts, self.options)
        found: dict[str, Document] = {}
        for document in stream:
            found.setdefault(document.name, document)
            found.setdefault(page_title(document.title or document.name), document)
        self.notes += [f"texts from {stream.name}", *stream.notes]
        return found

    def take(self, found: Iterable[Row], folder: Path, part: str) -> None:
        """Add the pairs of rows; what a row lacks goes to the failures."""
        for place, row in found:
            problem = row if isinstance(row, str) else self._row(place, row, folder, part)
            if problem:
                self.failures[place] = problem

    def _row(self, place: str, row: Mapping[str, Any], folder: Path, part: str) -> str:
        """Add the pairs of one row; gives what is wrong with it, or nothing."""
        own = value_of(row, PART)
        part = PARTS.get(str(own).strip().lower(), part) if own is not None else part
        if value_of(row, POSITIVE) is not None:
            return self._triple(place, row, folder, part)
        values = [value_of(row, names) for names in (LEFT, RIGHT)]
        if None in values:
            return f"no {'left' if values[0] is None else 'right'} document; expected {_EXPECTED}"
        given = value_of(row, LABEL)
        label = -1 if self.unlabelled and given in (None, "") else label_of(given, self.counts)
        if isinstance(label, str):
            return label
        return self._pair(place, values, (label,), [value_of(row, names) for names in IDS], folder, part)

    def _triple(self, place: str, row: Mapping[str, Any], folder: Path, part: str) -> str:
        anchor, positive, negative = (value_of(row, names) for names in (ANCHOR, POSITIVE, NEGATIVE))
        if anchor is None:
            return "a positive without an anchor"
        problems = []
        for label, others in ((1, positive), (0, negative)):
            for other in others if isinstance(others, list | tuple) else [] if others is None else [others]:
                problems.append(self._pair(place, [anchor, other], (label,), [None, None], folder, part))
        self.counts["triples became pairs"] += 1
        return "; ".join(sorted(set(problems) - {""}))

    def _pair(
        self, place: str, values: Sequence[Any], label: tuple[int], ids: Sequence[Any], folder: Path, part: str
    ) -> str:
        sides = []
        for value, name, side in zip(values, ids, ("left", "right"), strict=True):
            found = self._side(value, str(name) if name is not None else f"{place} {side}", folder)
            if isinstance(found, str):
                return f"{side}: {found}"
            sides.append(found)
        left, right = sides
        if left == right and not self.unlabelled:
            self.counts["pairs of a document with itself left out"] += 1
            return ""
        # Pairs that are scored all stay: the number of the line makes them different.
        key = (min(left, right), max(left, right), *label, part, len(self._pairs) if self.unlabelled else 0)
        if key in self._pairs:
            self.counts["repeated pairs left out"] += 1
        self._pairs.setdefault(key, (left, right, *label, part))
        return ""

    def _side(self, value: Any, name: str, folder: Path) -> int | str:
        """The index of a document, or what is wrong with it."""
        if isinstance(value, Document):
            return self._add(value)
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str):
            return f"no text but {type(value).__name__}"
        key = hashlib.sha256(f"{folder}\0{value}".encode("utf-8", "surrogatepass")).digest()
        if key not in self._by_value:
            try:
                self._by_value[key] = self._read(value, name, folder)
            except InputError as error:
                self._by_value[key] = str(error)
        return self._by_value[key]

    def _read(self, value: str, name: str, folder: Path) -> int | str:
        from pipelines.data.formats.document import parse_document, read_document

        given = self._given.get(value) or (self._given.get(page_title(value)) if self._given else None)
        if given is not None:
            return self._add(given)
        if re.match(r"https?://\S+$", value):
            return f"no text for {value}: give the texts that belong to the addresses" + (
                "" if self._given else " (argument texts, or documents.jsonl with id and text beside the list)"
            )
        if looks_like_file(value, folder):
            return self._add(read_document(folder / value, self.options, name=value))
        if meant_a_file(value):
            return f"there is no file {value}"
        decoded = bytes_literal(value)
        if decoded is not None:
            self.counts["texts were written as Python bytes and are decoded"] += 1
        kind = "text" if self.options.kind == "auto" else self.options.kind
        try:
            data = (value if decoded is None else decoded).encode("utf-8")
        except UnicodeEncodeError:
            return "the text has half a character (a lone surrogate)"
        return self._add(parse_document(data, name, replace(self.options, kind=kind, encoding="utf-8")))

    def _add(self, document: Document) -> int:
        key = hashlib.sha256(document.text.encode("utf-8", "surrogatepass")).digest()
        if key in self._by_text:
            if self._documents[self._by_text[key]].name != document.name:
                self.counts["texts stood there before under another name and are shared"] += 1
            return self._by_text[key]
        self._names[document.name] += 1
        if self._names[document.name] > 1:
            self.counts["names stood there before with another text and got a number"] += 1
            document = replace(document, name=f"{document.name} ({self._names[document.name]})")
        self._by_text[key] = len(self._documents)
        self._documents.append(document)
        return self._by_text[key]

    def finish(self) -> PairSet:
        """The set, with its counts in the notes.

        Raises:
            InputError: not one pair can be used.
        """
        if not self._pairs:
            first = next(iter(self.failures.items()), None)
            found = (
                f"{len(self.failures):,} bad lines, the first {first[0]}: {first[1]}"
                if first
                else "; ".join(self._told())
            )
            raise InputError("no pair can be used", where=self.name, found=found or "nothing", expected=_EXPECTED)
        left, right, label, parts = zip(*self._pairs.values(), strict=True)
        part = tuple(parts) if any(parts) else None
        labels: dict[tuple[int, int], set[int]] = {}
        places: dict[tuple[int, int], set[str]] = {}
        for low, high, one, place, _ in self._pairs:
            labels.setdefault((low, high), set()).add(one)
            places.setdefault((low, high), set()).add(place)
        self.counts["pairs have both labels"] += sum({0, 1} <= found for found in labels.values())
        self.counts["pairs stand in several parts"] += sum(len(found) > 1 for found in places.values())
        notes = [*self.notes, *self._told()]
        if part is not None and "" in part:
            notes.append(f"{part.count(''):,} pairs name no part")
        notes += [f"{place}: {problem}" for place, problem in list(self.failures.items())[:3]]
        first, second, label = (np.array(values, np.int64) for values in (left, right, label))
        return PairSet(self.name, tuple(self._documents), first, second, label, part, tuple(notes), dict(self.failures))

    def _told(self) -> list[str]:
        told = [f"{count:,} {what}" for what, count in self.counts.items() if count]
        return told + ([f"{len(self.failures):,} lines could not be used"] if self.failures else [])
