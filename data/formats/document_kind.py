"""Which markup a document is written in, by its content first and its name second."""

from __future__ import annotations

import re

__all__ = ["DOCUMENT_ENDINGS", "document_ending", "document_kind", "named_kind"]

_BY_ENDING = {
    "text": (".txt", ".text", ".asc"),
    "markdown": (".md", ".markdown", ".mdown", ".mkd", ".mkdn"),
    "rst": (".rst", ".rest", ".rst.txt"),
    "html": (".html", ".htm", ".xhtml"),
    "pdf": (".pdf",),
    "man": (".man", ".roff", ".mdoc", *(f".{section}" for section in "123456789"), ".3type", ".3const", ".3head"),
    "pod": (".pod",),
    "wiki": (".wiki", ".mediawiki", ".wikitext", ".mw"),
}
_KIND = {ending: kind for kind, endings in _BY_ENDING.items() for ending in endings}
#: Endings of files that are looked for in folders, in small letters; each may be followed by .gz, .bz2 or .xz.
DOCUMENT_ENDINGS = frozenset(_KIND)

_PACKINGS = (".gz", ".bz2", ".xz")
_SECTION = re.compile(r"\.[1-9](?:p|x|pm|perl|ssl|tcl|type|const|head|posix|[a-z])?\Z")
_HTML = re.compile(rb"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--[^>]{0,400}-->\s*)?<(?:!doctype\s+html|html[\s>])", re.I)
_MAN = re.compile(rb"(?:\.\\\"|'\\\"|\.TH[ \t]|\.Dd[ \t]|\.so[ \t]|\.SH[ \t]|\.if |\.ig\b)")
_POD = re.compile(rb"\s*=(?:head[1-6]|pod|encoding|for|begin|over)\b")
_WIKI = re.compile(rb"\[\[[^\[\]\n]{1,200}\]\]")


def document_ending(name: str) -> str:
    """The ending of a name that says its kind, one of :data:`DOCUMENT_ENDINGS`; "" where there is none.

    Example:
        >>> document_ending("library/json.rst.txt"), document_ending("ls.1.gz"), document_ending("a.png")
        ('.rst.txt', '.1', '')
    """
    base = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
    for packing in _PACKINGS:
        base = base.removesuffix(packing)
    for dots in (2, 1):
        ending = "".join(f".{part}" for part in base.split(".")[-dots:])
        if ending in _KIND and base != ending:
            return ending
    section = _SECTION.search(base)
    return section.group()[:2] if section and section.start() else ""


def named_kind(name: str) -> str:
    """The kind that a name says; "" where it says none.

    Example:
        >>> named_kind("a.md"), named_kind("README")
        ('markdown', '')
    """
    return _KIND.get(document_ending(name), "")


def document_kind(name: str, head: bytes) -> str:
    """The kind of a document, one of `KINDS`; what nothing is known of is `text`.

    A PDF, HTML and a manual page are known by their first bytes, whatever the name says; POD and wiki text by them
    where the name says nothing or only that it is text. A section number alone (`notes.1`) makes no manual page.

    Args:
        name: of the file; an ending .gz, .bz2 or .xz is passed over.
        head: the first bytes, a few kilobytes at least.

    Complexity: O(len(head)).

    Example:
        >>> document_kind("a.txt", b"%PDF-1.7"), document_kind("b.md", b"# Title"), document_kind("c", b"=head1 NAME")
        ('pdf', 'markdown', 'pod')
    """
    ending = document_ending(name)
    named = named_kind(name)
    if b"%PDF-" in head[:1024] and (named == "pdf" or head.lstrip().startswith(b"%PDF-")):
        return "pdf"
    named = "" if named == "pdf" else named
    start = head.removeprefix(b"\xef\xbb\xbf")
    if named in ("", "text", "html") and _HTML.match(start):
        return "html"
    if named in ("", "text", "man") and _MAN.match(start):
        return "man"
    if named in ("", "text") and _POD.match(start):
        return "pod"
    if named == "" and b"'''" in start and len(_WIKI.findall(start)) > 2:
        return "wiki"
    if named == "man" and ending[1:2].isdigit() and not re.search(rb"(?m)^[.'][A-Za-z\\]", start):
        return "text"
    return named or "text"
