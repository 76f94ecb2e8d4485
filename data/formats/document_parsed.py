"""What every reader of markup gives back, and the last touches that all of them need."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Parsed", "counted", "one_line", "tidy", "unique", "without_comments", "words"]

_BLANKS = re.compile(r"\n{3,}")
_SPACES = re.compile(r"\s+")


@dataclass
class Parsed:
    """A document's text and what its markup says.

    Args:
        text: what a model reads.
        title: as the markup says; empty where there is none.
        links: targets in order of their appearance; some may stand twice.
        notes: what was left out, counted.

    Example:
        >>> Parsed("Words.").links
        []
    """

    text: str
    title: str = ""
    links: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def tidy(text: str) -> str:
    """Take away white space that says nothing: at the ends of lines, at both ends, and beyond one empty line.

    Complexity: O(characters).

    Example:
        >>> tidy("  one \\n\\n\\n\\n two\\n")
        'one\\n\\n two'
    """
    text = "\n".join([line.rstrip() for line in text.split("\n")])
    return _BLANKS.sub("\n\n", text).strip()


def one_line(text: str) -> str:
    """White space of any length as one space each.

    Example:
        >>> one_line(" a\\n  b ")
        'a b'
    """
    return _SPACES.sub(" ", text).strip()


def unique(links: Iterable[str]) -> tuple[str, ...]:
    """Targets without the empty ones, each at its first place only.

    Example:
        >>> unique(["b", "a", "", "b"])
        ('b', 'a')
    """
    return tuple(dict.fromkeys(link for link in links if link))


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "page"), counted(1200, "page"), counted(2, "entry", "entries")
        ('1 page', '1,200 pages', '2 entries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def without_comments(text: str) -> str:
    """Text without `<!-- comments -->`; one that never ends stays.

    Complexity: O(characters).

    Example:
        >>> without_comments("a<!-- b -->c<!-- d")
        'ac<!-- d'
    """
    kept, place = [], 0
    while (start := text.find("<!--", place)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        kept.append(text[place:start])
        place = end + 3
    return "".join([*kept, text[place:]])


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as one text.

    Example:
        >>> sorted(words("b a"))
        ['a', 'b']
    """
    return frozenset(text.split())
