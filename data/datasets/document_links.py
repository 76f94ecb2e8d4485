"""Documents that link to each other: references resolved to documents of the same corpus, or read from a table."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.document_lists import cells
from pipelines.data.datasets.document_open import open_documents, read_all
from pipelines.data.errors import InputError
from pipelines.data.formats.document_types import Document, DocumentOptions

__all__ = ["LinkedCorpus", "linked_corpus", "resolve_links", "shared_links"]

_MODULE = re.compile(rb"^[ \t]*\.\. (?:py:)?module::[ \t]*(\S+)[ \t]*\r?\n((?:[ \t]+\S.*\n)*)", re.MULTILINE)
_MANUAL = re.compile(r"(.+?)\s*\((\w+)\)$")
_ENDINGS = (".gz", ".txt", ".rst", ".md", ".markdown", ".html", ".htm", ".pod", ".pm", ".pdf")
_HEADERS = {"from", "to", "source", "target", "left", "right", "doc1", "doc2", "a", "b", "name1", "name2"}
#: Names of a wiki's pages that are no articles.
_SPACES = {"file", "image", "category", "template", "help", "wikipedia", "portal", "special", "talk", "user", "media"}


@dataclass(frozen=True)
class LinkedCorpus:
    """Documents and which of them are linked.

    Args:
        name: of the source.
        documents: in the order of the source.
        edges: (E, 2) indices of linked documents, the lower one first, sorted, each pair once.
        notes: how links were found and counted.
        failures: name -> why it could not be read.
        references: (D, 2) the same links with their direction, from and to, sorted; None where it is not known.
    """

    name: str
    documents: tuple[Document, ...]
    edges: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    references: NDArray[np.int64] | None = None


def linked_corpus(source: Any, options: DocumentOptions | None = None, links: str | Path | None = None) -> LinkedCorpus:
    """Read documents and the links between them.

    Links come from the table, from `NAME_links.tsv` beside an archive `NAME.tar.xz`, or else from the documents:
    RST by :mod: (to the document that declares the module) and :doc:, HTML and Markdown by relative addresses, wiki
    pages by title or redirect, manual pages by name(section) or a link entry, POD by the name of the page.

    Args:
        source: as for :func:`open_documents`.
        options: how documents are read; links are found whether or not references stay in the text.
        links: a TSV of two names a line.

    Raises:
        InputError: nothing could be read, or a table none of whose names is that of a document.

    Complexity: O(characters + links); all documents in memory.

    Example:
        >>> pages = [Document("a.md", "A.", "markdown", links=("b.md",)), Document("b.md", "B.", "markdown")]
        >>> linked_corpus(pages).edges.tolist()
        [[0, 1]]
    """
    stream = open_documents(source, options)
    table = Path(links) if links is not None else _beside(source)
    modules = _Modules()
    stream.watch = modules if table is None else None
    try:
        documents = read_all(stream)
    finally:
        stream.watch = None
    if table is not None:
        directed, notes = _table_links(documents, table)
    else:
        directed, notes = resolve_links(documents, stream.aliases, modules.names)
    edges = np.array(sorted({(min(pair), max(pair)) for pair in directed}), np.int64).reshape(-1, 2)
    notes = [*stream.notes, *notes, f"{len(directed):,} directed links make {len(edges):,} linked pairs"]
    references = np.array(directed, np.int64).reshape(-1, 2)
    return LinkedCorpus(stream.name, documents, edges, tuple(notes), dict(stream.failures), references)


def _beside(source: Any) -> Path | None:
    if not isinstance(source, str | Path) or not Path(source).is_file():
        return None
    path = Path(source)
    table = path.with_name(f"{path.name.split('.')[0]}_links.tsv")
    return table if table != path and table.is_file() else None


class _Modules:
    """Python modules that documents declare: only the raw bytes tell."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def __call__(self, name: str, data: bytes) -> None:
        if b"module::" in data:
            for match in _MODULE.finditer(data):
                if b":noindex:" not in match[2]:
                    self.names.setdefault(match[1].decode("utf-8", "replace"), name)


def resolve_links(
    documents: Sequence[Document], aliases: Mapping[str, str] | None = None, modules: Mapping[str, str] | None = None
) -> tuple[list[tuple[int, int]], list[str]]:
    """Which document each link of each document points at.

    Args:
        documents: with their links as written.
        aliases: other name -> name, of redirects and link entries.
        modules: Python module -> name of the document that declares it.

    Returns:
        (from, to) indices, each once, sorted; and notes that count what led nowhere.

    Complexity: O(links + characters of names).

    Example:
        >>> pages = [Document("x/open.2.gz", "Open.", "man", links=("close(2)", "fopen(3)"))]
        >>> pages += [Document("x/close.2.gz", "Close.", "man")]
        >>> resolve_links(pages)
        ([(0, 1)], ['1 references lead to no document of the corpus'])
    """
    known = _Names(documents, aliases or {}, modules or {})
    counts: Counter[str] = Counter()
    found: set[tuple[int, int]] = set()
    for place, document in enumerate(documents):
        for link in document.links:
            target = known.find(document, link)
            if isinstance(target, str):
                counts[target] += 1
            elif target == place:
                counts["references of a document to itself left out"] += 1
            else:
                found.add((place, target))
    return sorted(found), [f"{count:,} {what}" for what, count in sorted(counts.items())]


_NOWHERE = "references lead to no document of the corpus"
_OUTSIDE = "addresses outside the corpus"
_OTHER_ROLES = "references by roles other than :mod: and :doc: do not count as links"


class _Names:
    """Every way in which a document of the corpus can be named."""

    def __init__(self, documents: Sequence[Document], aliases: Mapping[str, str], modules: Mapping[str, str]) -> None:
        self.by_name = {document.name: place for place, document in enumerate(documents)}
        names = [document.name for document in documents]
        root = posixpath.commonpath(names) if len(names) > 1 and not any(one.startswith("/") for one in names) else ""
        root = root if root and all(one.startswith(f"{root}/") for one in names) else posixpath.dirname(root)
        self.root = f"{root}/" if root else ""
        self.by_stem = _first((_stem(document.name), place) for place, document in enumerate(documents))
        self.modules = {module: self.by_name[name] for module, name in modules.items() if name in self.by_name}
        pages = [(place, document) for place, document in enumerate(documents) if document.kind == "wiki"]
        self.wiki = _first((_title(document.title or document.name), place) for place, document in pages)
        self.manual = _first((_manual(document.name), place) for place, document in enumerate(documents))
        #: `timespec(3)` is found in timespec.3type, as the program man does.
        self.sections = _first((re.sub(r"(\.\d)[a-z]+$", r"\1", page), place) for page, place in self.manual.items())
        self.pod: dict[str, int] = {}
        for place, document in enumerate(documents):
            parts = _stem(document.name).split("/")
            for start in range(len(parts)):  # the nearest to the root wins where two share a name
                self.pod.setdefault("::".join(parts[start:]), place)
        for other, name in aliases.items():
            self._alias(other, name, aliases)

    def _alias(self, other: str, name: str, aliases: Mapping[str, str]) -> None:
        for _ in range(8):  # an entry of an entry; a circle ends here
            place = self.by_name.get(name, self.manual.get(_manual(name)))
            place = self.wiki.get(_title(name)) if place is None else place
            if place is not None:
                self.manual.setdefault(_manual(other), place)
                self.wiki.setdefault(_title(other), place)
                return
            if name not in aliases:
                return
            name = aliases[name]

    def find(self, document: Document, link: str) -> int | str:
        """The document that a link points at, or what it is instead."""
        if document.kind == "rst":
            return self._rst(document, link)
        if document.kind == "wiki":
            title = _title(link)
            return _NOWHERE if not title else self.wiki.get(title, _NOWHERE)
        if document.kind == "man":
            match = _MANUAL.match(link)
            page = f"{match[1]}.{match[2]}" if match else link
            return self.manual.get(page, self.sections.get(page, _NOWHERE))
        if document.kind == "pod":
            page = re.split(r"[/|]", link.strip())[0].strip()
            return self.pod.get(page, self.pod.get(page.rpartition("::")[2] if ".pod" in page else page, _NOWHERE))
        return self._address(document, link)

    def _rst(self, document: Document, link: str) -> int | str:
        role, _, target = link.partition(":")
        if role == "mod":
            return self.modules.get(target.strip().removeprefix("~"), _NOWHERE)
        if role == "doc":
            base = self.root if target.startswith("/") else posixpath.dirname(document.name)
            return self.by_stem.get(_stem(posixpath.normpath(posixpath.join(base, target.lstrip("/")))), _NOWHERE)
        return _OTHER_ROLES

    def _address(self, document: Document, link: str) -> int | str:
        if link in self.by_name:
            return self.by_name[link]
        if "://" in document.name:
            return self.by_name.get(urljoin(document.name, link).partition("#")[0], _OUTSIDE)
        try:
            parts = urlsplit(link)
        except ValueError:
            return _NOWHERE
        if parts.scheme or parts.netloc:
            return _OUTSIDE
        path = unquote(parts.path)
        if not path:
            return self.by_name[document.name]
        base = self.root if path.startswith("/") else posixpath.dirname(document.name)
        place = posixpath.normpath(posixpath.join(base, path.lstrip("/")))
        for name in (place, f"{place}/index.html", f"{place}/README.md", f"{place}/index.md"):
            if name in self.by_name:
                return self.by_name[name]
        return self.by_stem.get(_stem(place), _NOWHERE)


def _first(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The first place of each name."""
    found: dict[str, int] = {}
    for name, place in pairs:
        found.setdefault(name, place)
    return found


def _stem(name: str) -> str:
    """A name without the endings of documents, however many: `a.rst.txt` is `a`."""
    while name.lower().endswith(_ENDINGS):
        name = name.rpartition(".")[0]
    return name


def _manual(name: str) -> str:
    """`man3/printf.3.gz` as `printf.3`."""
    return name.rpartition("/")[2].removesuffix(".gz")


def _title(link: str) -> str:
    """The title of a page as MediaWiki normalises it; empty for pages that are no articles."""
    title = " ".join(link.partition("#")[0].replace("_", " ").lstrip(":").split())
    if title.partition(":")[0].lower() in _SPACES and ":" in title:
        return ""
    return title[:1].upper() + title[1:]


def _table_links(documents: Sequence[Document], path: Path) -> tuple[list[tuple[int, int]], list[str]]:
    """(from, to) of a table of names."""
    if not path.is_file():
        raise InputError("there is no such table of links", where=path, expected="two names a line, with a tab between")
    names = {document.name: place for place, document in enumerate(documents)}
    stems = _first((_stem(document.name), place) for place, document in enumerate(documents))
    find: Callable[[str], int | None] = lambda name: names.get(name, stems.get(_stem(name)))  # noqa: E731
    found: set[tuple[int, int]] = set()
    counts: Counter[str] = Counter()
    for number, (place, row) in enumerate(cells(path, 1 << 20)):
        if isinstance(row, str) or len(row) < 2:
            counts[f"lines of {path.name} are no pair of names, the first is {place}"] += 1
            continue
        left, right = find(row[0].strip()), find(row[1].strip())
        if left is not None and right is not None and left != right:
            found.add((left, right))
        elif left is not None and left == right:
            counts[f"links of a document to itself in {path.name} left out"] += 1
        elif number or not {row[0].strip().lower(), row[1].strip().lower()} <= _HEADERS:
            counts[f"links of {path.name} name a document that is not in the corpus"] += 1
    if not found:
        told = "; ".join(f"{count} {what}" for what, count in counts.items())
        expected = f"names such as {documents[0].name}"
        raise InputError(
            "no link between documents of the corpus", where=path, found=told or "nothing", expected=expected
        )
    return sorted(found), [f"links read from {path.name}", *(f"{count:,} {what}" for what, count in counts.items())]


def shared_links(
    documents: Sequence[Document], threshold: float = 0.05, *, least: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of documents that link to the same targets: |both| / |either| (Jaccard) above a threshold.

    The targets need not be in the corpus. Titles of a wiki are normalised, other links are compared as written.

    Args:
        documents: with their links.
        threshold: pairs above it are given; SMITH's data took 0.5.
        least: documents with fewer different targets are left out.

    Returns:
        (P, 2) indices, the lower one first, sorted; (P,) their indices of Jaccard.

    Complexity: O(sum over targets of (documents that link there)^2).

    Example:
        >>> targets = {"a": "xy", "b": "xz", "c": "q"}
        >>> pages = [Document(name, "Text.", "wiki", links=tuple(links)) for name, links in targets.items()]
        >>> [found.tolist() for found in shared_links(pages)]
        [[[0, 1]], [0.3333333333333333]]
    """
    sets = [
        {title for link in one.links if (title := _title(link))} if one.kind == "wiki" else set(one.links)
        for one in documents
    ]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for place, targets in enumerate(sets):
        if len(targets) >= least:
            for target in targets:
                holders[target].append(place)
    both: Counter[tuple[int, int]] = Counter()
    for places in holders.values():
        both.update((left, right) for at, left in enumerate(places) for right in places[at + 1 :])
    shares = {pair: count / (len(sets[pair[0]]) + len(sets[pair[1]]) - count) for pair, count in both.items()}
    pairs = sorted(pair for pair, share in shares.items() if share > threshold)
    return np.array(pairs, np.int64).reshape(-1, 2), np.array([shares[pair] for pair in pairs], np.float64)
