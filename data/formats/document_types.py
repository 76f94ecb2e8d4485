"""What a document is once it has been read, and what may be asked of its reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipelines.data.errors import InputError

__all__ = ["KINDS", "Document", "DocumentOptions"]

#: Markup that is understood; plain text is one of them.
KINDS = ("text", "markdown", "rst", "html", "pdf", "man", "pod", "wiki")

_Markup = Literal["strip", "keep"]
_Roles = Literal["text", "drop"]


@dataclass(frozen=True)
class Document:
    """A text with a name: what a model reads, and what is known of where it came from.

    Args:
        name: what is shown and what links point at: the path relative to a folder, the member of an archive, the
            name of a line.
        text: what a model reads, markup stripped or kept as the options say.
        kind: the markup it was written in, one of :data:`KINDS`.
        title: as the markup says; empty where there is none.
        links: targets as written in the markup, in order, each once. RST gives `role:target` (`mod:json`,
            `doc:/library/json`), HTML and Markdown the address, a wiki the page, a manual page `name(section)`, POD
            the page.
        notes: what was done to it, counted ("read as cp1252, not UTF-8", "3 null characters removed").

    Example:
        >>> Document("a.md", "Words.", "markdown", links=("b.md",)).links
        ('b.md',)
    """

    name: str
    text: str
    kind: str = "text"
    title: str = ""
    links: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DocumentOptions:
    """How documents are read.

    Args:
        markup: `strip` leaves readable text, `keep` leaves the file's text as it is (PDF has no other text).
        roles: cross references leave their visible `text`, or are dropped altogether (also from kept markup): a fair
            measure of links needs a text without the names that the links give away.
        encoding: `auto` takes the byte order mark, then UTF-8, then what is detected, and says so; or a codec's name,
            in which every byte must be right.
        limit_mb: larger files are refused, compressed ones by their expanded size; 1 MB is 2**20 bytes.
        kind: `auto` goes by content and ending; or one of :data:`KINDS`.

    Raises:
        InputError: a value that is none of these.

    Example:
        >>> DocumentOptions(roles="drop").kind
        'auto'
    """

    markup: _Markup = "strip"
    roles: _Roles = "text"
    encoding: str = "auto"
    limit_mb: float = 64.0
    kind: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant before a file is opened."""
        for name, allowed in (("markup", get_args(_Markup)), ("roles", get_args(_Roles)), ("kind", ("auto", *KINDS))):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError("no such choice", where=name, found=repr(value), expected=", ".join(allowed))
        if not self.limit_mb > 0:
            raise InputError("no file can be that small", where="limit_mb", found=self.limit_mb, expected="above 0")
