"""Documents of any kind as text: which markup it is, which encoding, what was left out, and what it links to.

Plain text, Markdown, reStructuredText, HTML, PDF, manual pages, POD and MediaWiki text are told apart by content and
name. Nothing is replaced, cut or dropped without a count in the document's notes; what is no text is refused.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

from pipelines.data.errors import InputError
from pipelines.data.formats.document_bytes import refuse_binary, stored_bytes, unpacked
from pipelines.data.formats.document_decoding import decoded, seems_utf16
from pipelines.data.formats.document_html import html_charset, parse_html
from pipelines.data.formats.document_kind import DOCUMENT_ENDINGS, document_ending, document_kind, named_kind
from pipelines.data.formats.document_man import man_encoding, man_includes, parse_man
from pipelines.data.formats.document_markdown import parse_markdown
from pipelines.data.formats.document_parsed import Parsed, tidy, unique
from pipelines.data.formats.document_pod import parse_pod, pod_encoding
from pipelines.data.formats.document_rst import parse_rst
from pipelines.data.formats.document_types import KINDS, Document, DocumentOptions
from pipelines.data.formats.document_wiki import parse_wiki

__all__ = [
    "DOCUMENT_ENDINGS",
    "KINDS",
    "Document",
    "DocumentOptions",
    "document_ending",
    "document_kind",
    "parse_document",
    "read_document",
]

_HEAD = 1 << 13
_DEFAULTS = DocumentOptions()
_DECLARED: dict[str, Callable[[bytes], str]] = {"html": html_charset, "man": man_encoding, "pod": pod_encoding}
_NAMES = {"text": "plain text", "rst": "RST", "html": "HTML", "pdf": "PDF", "man": "a manual page", "pod": "POD"}


def read_document(
    path: str | os.PathLike[str], options: DocumentOptions = _DEFAULTS, *, name: str | None = None
) -> Document:
    """Read one document of a file.

    Args:
        path: the file, perhaps packed with gzip, bzip2 or xz.
        options: markup, references, encoding, limit, kind.
        name: what the document is to be called; the file's name by itself.

    Returns:
        The document; its notes say what was done to it.

    Raises:
        InputError: missing, a folder, unreadable; larger than the limit, also when unpacked; empty; no text; bytes
            that no encoding or not the named one fits; PDFs that are encrypted, damaged or without text.

    Complexity: O(bytes) time and memory.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "a.md").write_text("# Bees\\n\\nSee [honey](honey.md).")
        ...     read_document(f"{folder}/a.md")
        Document(name='a.md', text='Bees\\n\\nSee honey.', kind='markdown', title='Bees', links=('honey.md',), notes=())
    """
    path = pathlib.Path(path).expanduser()
    return parse_document(stored_bytes(path, options.limit_mb), name or path.name, options)


def parse_document(data: bytes, name: str, options: DocumentOptions = _DEFAULTS) -> Document:
    """Read one document from its bytes, such as a member of an archive.

    Args:
        data: content of the file, perhaps packed with gzip, bzip2 or xz.
        name: of the document; its ending tells the kind where the content does not.
        options: as for `read_document`.

    Raises:
        InputError: as `read_document`, but for files.

    Complexity: O(bytes) time and memory.

    Example:
        >>> parse_document(b"A \\0line.", "a.txt").notes
        ('1 null character removed',)
    """
    if not data:
        raise InputError("the file is empty", where=name, found="0 bytes", expected="a text")
    content, inner, packing = unpacked(data, name, options.limit_mb)
    notes: list[str] = []
    if packing and inner == name:
        notes.append(f"unpacked from {packing}, which the name does not say")
    kind = _kind(content, inner, options, notes)
    if kind == "pdf":
        from pipelines.data.formats.document_pdf import parse_pdf

        parsed = parse_pdf(content, name, limit_mb=options.limit_mb)
    else:
        parsed = _parsed(content, name, kind, options, notes)
    if not parsed.text.strip():
        found = "nothing but white space and markup"
        raise InputError("no text in it", where=name, found=found, expected="words", cure="leave it out")
    return Document(name, parsed.text, kind, parsed.title, unique(parsed.links), tuple(notes + parsed.notes))


def _kind(content: bytes, name: str, options: DocumentOptions, notes: list[str]) -> str:
    head = content[:_HEAD]
    kind = document_kind(name, head)
    if options.kind == "pdf" and kind != "pdf":
        raise InputError("not a PDF", where=name, found=f"first bytes {head[:8]!r}", cure="leave `kind` at auto")
    if options.kind != "auto" and kind != "pdf":
        return options.kind
    if options.kind not in ("auto", kind):
        notes.append(f"the content is a PDF, not {options.kind} as asked")
    elif named_kind(name) not in ("", kind):
        notes.append(f"the name says {document_ending(name)}, the content is {_NAMES.get(kind, kind)}")
    return kind


def _parsed(content: bytes, name: str, kind: str, options: DocumentOptions, notes: list[str]) -> Parsed:
    wide = seems_utf16(content) or content.startswith((b"\xff\xfe", b"\xfe\xff"))
    declared = _DECLARED.get(kind, lambda _: "")(content[:_HEAD])
    if not wide and not options.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        refuse_binary(content, name)
    text = decoded(content, name, options.encoding, notes, declared)
    strip, drop = options.markup == "strip", options.roles == "drop"
    if kind == "man" and (page := man_includes(text)):
        problem = "the page has no text of its own, it names another"
        raise InputError(problem, where=name, found=page, expected="a text", cure="give that page")
    if kind == "text":
        return Parsed(tidy(text) if strip else text)
    parse = {
        "markdown": parse_markdown, "rst": parse_rst, "html": parse_html, "man": parse_man, "pod": parse_pod,
        "wiki": parse_wiki,
    }[kind]  # fmt: skip
    return parse(text, strip=strip, drop=drop)
