"""A stream of documents: read one after the other, in constant memory; what cannot be read does not stop the rest."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.data.errors import InputError
from pipelines.data.formats.document_types import Document, DocumentOptions

__all__ = ["DocumentStream", "Item", "Items", "printable"]

_MB = 1 << 20
#: A manual page that only names another one is shorter.
_LONGEST_ENTRY = 4096


@dataclasses.dataclass(frozen=True)
class Item:
    """Something to read: a file, the bytes of a document, a finished one, or why there is none.

    Attributes:
        name: of the document.
        content: a path, bytes, a document, or the error to note.
        kind: the markup, where the source knows it; "" leaves it to the reader.
        title: where the source knows it.
    """

    name: str
    content: Path | bytes | Document | InputError
    kind: str = ""
    title: str = ""


Items = Callable[["DocumentStream"], Iterator[Item]]


class DocumentStream:
    """Documents of a source, lazily and in its order; every pass reads the source anew.

    Args:
        name: of the source, for provenance.
        items: gives what is to be read; may count into the stream and note failures.
        options: how documents are read.
        expected: how many there are, where that is known before reading.
        notes: what is known before reading.

    Attributes:
        failures: name -> why it could not be read; grows during a pass.
        aliases: other name -> name of the document that it stands for (links, redirects); grows during a pass.

    Example:
        >>> stream = DocumentStream("two", lambda _: iter([Item("a", Document("a", "One.")), Item("b", b"")]))
        >>> [document.text for document in stream], list(stream.failures)
        (['One.'], ['b'])
    """

    def __init__(
        self,
        name: str,
        items: Items,
        options: DocumentOptions | None = None,
        *,
        expected: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.expected = name, expected
        self.options = options or DocumentOptions()
        self.failures: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        #: Called with the name and the bytes of each document that is read from bytes or a file.
        self.watch: Callable[[str, bytes], None] | None = None
        self._items, self._known = items, notes
        self._counts: Counter[str] = Counter()

    @property
    def notes(self) -> list[str]:
        """What was counted: complete after a pass."""
        found = [f"{count:,} {what}" for what, count in self._counts.items()]
        if self.failures:
            name, problem = next(iter(self.failures.items()))
            found.append(f"{len(self.failures):,} could not be read, the first is {name}: {problem}")
        return [*self._known, *found]

    @property
    def limit(self) -> int:
        """Most bytes of one document."""
        return int(self.options.limit_mb * _MB)

    def count(self, what: str, number: int = 1) -> None:
        """Count something that a note shall tell."""
        self._counts[what] += number

    def fail(self, name: str, problem: object) -> None:
        """Note why something cannot be read; a second problem of the same name is added to the first."""
        text = str(problem)
        self.failures[name] = f"{self.failures[name]}; {text}" if name in self.failures else text

    def __iter__(self) -> Iterator[Document]:
        """One pass over the source.

        Complexity: memory for one document and the names of all.
        """
        self.failures.clear()
        self.aliases.clear()
        self._counts.clear()
        names: Counter[str] = Counter()
        for item in self._items(self):
            name = printable(item.name)
            if name != item.name:
                self.count("names are not UTF-8: their bytes are written as \\xNN")
            try:
                document = self._read(item, name)
            except InputError as error:
                self.fail(name, error)
                continue
            except OSError as error:
                self.fail(name, error.strerror or error)
                continue
            if document is None:
                continue
            names[document.name] += 1
            if names[document.name] > 1:
                self.count("names stood there before and got a number")
                document = dataclasses.replace(document, name=f"{document.name} ({names[document.name]})")
            yield document

    def _read(self, item: Item, name: str) -> Document | None:
        """The document of an item; None for a manual page that only stands for another one."""
        from pipelines.data.formats.document import parse_document, read_document

        content = item.content
        if isinstance(content, InputError):
            raise content
        if isinstance(content, Document):
            return content
        options = self.options
        if item.kind and options.kind == "auto":
            options = dataclasses.replace(options, kind=item.kind)
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        page = _entry(content.read_bytes() if isinstance(content, Path) else content) if size <= _LONGEST_ENTRY else ""
        if page:
            self.aliases[name] = page
            self.count("manual pages that only name another one are read as its other names")
            return None
        if self.watch is not None and size <= self.limit:
            self.watch(name, content.read_bytes() if isinstance(content, Path) else content)
        if isinstance(content, Path):
            document = read_document(content, options, name=name)
        else:
            document = parse_document(content, name, options)
        return dataclasses.replace(document, title=item.title) if item.title and not document.title else document


def printable(name: str) -> str:
    """A name that can be shown and written: bytes that were no UTF-8 appear as `\\xNN`.

    Example:
        >>> printable("caf\\udce9.txt")
        'caf\\\\xe9.txt'
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def _entry(data: bytes) -> str:
    """The page that a short manual page names instead of a text of its own (`.so man3/queue.3`); "" for all else."""
    from pipelines.data.formats.document_man import man_includes

    if data[:2] == b"\x1f\x8b":
        try:
            data = zlib.decompressobj(31).decompress(data, 4 * _LONGEST_ENTRY)
        except zlib.error:
            return ""
    return man_includes(data.decode("latin-1")) if b".so" in data else ""
