"""Opening documents: folders, files, archives, lists, dumps, sequences and data frames, told apart by what they are."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.data.datasets.document_archives import dump_items, peek, tar_items, zip_items
from pipelines.data.datasets.document_folders import folder_stream
from pipelines.data.datasets.document_lists import frame_items, list_items, list_kind
from pipelines.data.datasets.document_stream import DocumentStream, Item
from pipelines.data.errors import InputError
from pipelines.data.formats.document_kind import document_ending
from pipelines.data.formats.document_types import Document, DocumentOptions

__all__ = ["UNDERSTOOD", "looks_like_file", "meant_a_file", "open_documents", "read_all"]

UNDERSTOOD = (
    "a folder, a document, an archive (tar, zip), a list (.jsonl, .csv, .tsv, .parquet with a column text), a "
    "MediaWiki dump, a data frame, or a sequence of texts, paths and documents"
)
_LONGEST_PATH = 4096
_TAR_MARK = slice(257, 262)


def open_documents(source: Any, options: DocumentOptions | None = None) -> DocumentStream:
    """A stream of the documents of a source; nothing but a folder's names is read before the first one is asked for.

    Args:
        source: a path; a sequence whose strings are files where such a file exists and texts otherwise; documents; a
            data frame with a column `text`; a stream, which is returned as it is.
        options: how documents are read; lists hold plain text unless a kind is given.

    Raises:
        InputError: no such file, a folder without documents, an empty sequence, something that is no source.

    Complexity: O(1) for files; a folder's names are gathered and sorted.

    Example:
        >>> stream = open_documents([Document("a", "One."), Document("b", "Two.")])
        >>> stream.expected, [document.name for document in stream]
        (2, ['a', 'b'])
    """
    options = options or DocumentOptions()
    if isinstance(source, DocumentStream):
        return source
    if isinstance(source, str | os.PathLike):
        return _path_stream(Path(source), options)
    if isinstance(source, Document):
        return _sequence_stream([source], options)
    if hasattr(source, "columns") and hasattr(source, "itertuples"):
        return DocumentStream(
            "data frame", lambda stream: frame_items(source, stream), _listed(options), expected=len(source)
        )
    if isinstance(source, Sequence) and not isinstance(source, bytes) and len(source):
        return _sequence_stream(source, options)
    found = "an empty sequence" if isinstance(source, Sequence) and not len(source) else type(source).__name__
    raise InputError("nothing to read", where="documents", found=found, expected=UNDERSTOOD)


def read_all(stream: DocumentStream) -> tuple[Document, ...]:
    """Every document of a stream, in memory.

    Raises:
        InputError: not one could be read; the first failure is named.

    Example:
        >>> [document.text for document in read_all(open_documents([Document("a", "One.")]))]
        ['One.']
    """
    documents = tuple(stream)
    if not documents:
        found = "; ".join(stream.notes) or "nothing"
        raise InputError("no document could be read", where=stream.name, found=found, expected=UNDERSTOOD)
    return documents


def _listed(options: DocumentOptions) -> DocumentOptions:
    """Texts of lists are characters already: no encoding is guessed."""
    return dataclasses.replace(options, encoding="utf-8")


def _path_stream(path: Path, options: DocumentOptions) -> DocumentStream:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        cure = "check the path; a text itself goes into a list: [text]"
        raise InputError(
            "there is no such file or folder", where=_short(path), expected=UNDERSTOOD, cure=cure
        ) from error
    if stat.S_ISDIR(mode):
        return folder_stream(path, options)
    if not stat.S_ISREG(mode):
        raise InputError("neither a file nor a folder", where=path, expected=UNDERSTOOD)
    try:
        items, listed = _file_items(path)
    except PermissionError as error:
        raise InputError("the file may not be read", where=path, found=error.strerror) from error
    expected = 1 if items is _one_file else None
    return DocumentStream(
        path.name, lambda stream: items(path, stream), _listed(options) if listed else options, expected=expected
    )


def _file_items(path: Path) -> tuple[Callable[[Path, DocumentStream], Iterator[Item]], bool]:
    """The reader of a file, by content before ending; and whether its texts are characters already."""
    with path.open("rb") as file:
        first = file.read(4)
    head = peek(path)
    if first == b"PK\x03\x04" or first == b"PK\x05\x06":
        return zip_items, False
    if head[_TAR_MARK] == b"ustar" or ".tar" in path.name.lower()[-8:]:
        return tar_items, False
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<mediawiki") or (start.startswith(b"<?xml") and b"<mediawiki" in start):
        return dump_items, True
    if first == b"PAR1" or list_kind(path):
        return list_items, True
    return _one_file, False


def _one_file(path: Path, stream: DocumentStream) -> Iterator[Item]:
    yield Item(path.name, path)


def _sequence_stream(source: Sequence[Any], options: DocumentOptions) -> DocumentStream:
    def items(stream: DocumentStream) -> Iterator[Item]:
        for number, entry in enumerate(source, 1):
            yield _entry(entry, f"text {number}", stream)

    return DocumentStream("documents", items, options, expected=len(source))


def _entry(entry: Any, name: str, stream: DocumentStream) -> Item:
    if isinstance(entry, Document):
        return Item(entry.name, entry)
    if isinstance(entry, Path):
        found = "a folder" if entry.is_dir() else None
        problem = InputError("there is no such file", where=entry, found=found)
        return Item(str(entry), entry if entry.is_file() else problem)
    if not isinstance(entry, str):
        return Item(name, InputError("not a document", where=name, found=type(entry).__name__, expected=UNDERSTOOD))
    if looks_like_file(entry):
        return Item(entry, Path(entry))
    if meant_a_file(entry):
        cure = "check the path; a text of one word goes in as a Document"
        return Item(entry, InputError("there is no such file", where=entry, cure=cure))
    try:
        data = entry.encode("utf-8")
    except UnicodeEncodeError:
        return Item(name, InputError("the text has half a character (a lone surrogate)", where=name))
    return Item(name, _text_document(data, name, stream.options))


def _text_document(data: bytes, name: str, options: DocumentOptions) -> Document | InputError:
    from pipelines.data.formats.document import parse_document

    kind = "text" if options.kind == "auto" else options.kind
    try:
        return parse_document(data, name, dataclasses.replace(options, kind=kind, encoding="utf-8"))
    except InputError as error:
        return error


def looks_like_file(text: str, folder: Path | None = None) -> bool:
    """Whether a text is the path of a file that exists, in a folder or the working folder.

    Example:
        >>> looks_like_file("no such file"), looks_like_file("two\\nlines")
        (False, False)
    """
    if not 0 < len(text) < _LONGEST_PATH or "\n" in text or "\0" in text:
        return False
    try:
        return ((folder or Path()) / text).is_file()
    except (OSError, ValueError):
        return False


def meant_a_file(text: str) -> bool:
    """Whether a text that is no file was meant as one: one word that ends like a document.

    Example:
        >>> meant_a_file("docs/a.md"), meant_a_file("See a.md"), meant_a_file("word")
        (True, False, False)
    """
    one_word = 0 < len(text) < _LONGEST_PATH and not any(one.isspace() for one in text)
    return one_word and bool(document_ending(text))


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) < 200 else f"{text[:200]}..."
