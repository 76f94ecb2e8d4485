"""Where the sentences of a text begin and end; rules, no model, time linear in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["split_sentences"]

#: A line with its end; every kind of line end counts.
_LINE = re.compile(r"[^\n\r\f\v\x1c-\x1e\x85\u2028\u2029]*(?:\r\n|[\n\r\f\v\x1c-\x1e\x85\u2028\u2029]|$)")
#: A list item: a bullet or a short number, then a space.
_ITEM = re.compile(r"\s*(?:[-*+•‣◦–—]|\(?(?:\d{1,3}|[A-Za-z]|#)[.)])(?=\s+\S)")
#: A Markdown heading, and a line of one repeated sign that marks a heading, a table or a break.
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+\S")
_RULE = re.compile(r"\s*([^\w\s])\1{2,}\s*$")
#: Signs that may end a sentence, with what closes after them. The run is taken whole, so that no sign is read twice.
_END = re.compile(r"[.!?…‽]+[\"'“”‘’»›)\]}*_`]*|[。！？｡．]+[」』”’）】》\"')]*")
_CJK_ENDS = "。！？｡．"
_OPENING = "\"'“‘«‹([{*_`¿¡"
_WORD = re.compile(r"[^\s\"'“‘«(\[{]*$")
_LOOK_BACK = 24  # longest abbreviation that is looked for before a full stop

_CLOSING = "\"'“”‘’»›)]}*_`"
#: Abbreviations that stand before a name, and those that stand before a number: no sentence ends with them there.
_NAMES = "mr mrs ms dr prof rev hon gen maj capt lt sgt sen gov st mt ft vs cf al viz approx resp eds e.g i.e eg ie"
_NUMBERS = """no nos nr vol vols fig figs eq eqs ch chap sec sect art p pp ed v c ca col pt ref refs tab app op seq
    jan feb mar apr jun jul aug sep sept oct nov dec"""
_BEFORE_NAMES, _BEFORE_NUMBERS = frozenset(_NAMES.split()), frozenset(_NUMBERS.split())


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Spans [start, end) of the sentences of a text, in order; they cover every character that is no space, once.

    A sentence ends after ``. ! ? …`` and what closes after them where a space follows and then no lower-case letter,
    except after an abbreviation that stands before names, an initial or the number of a list item; after 。！？ always;
    at blank lines; before list items and headings, and after headings and lines of one repeated sign. Single line
    breaks are spaces. A stretch without any of these is one sentence, however long.

    Args:
        text: any text.

    Returns:
        Spans without spaces at either end; empty for a text of spaces. O(characters).

    Example:
        >>> text = "Dr. Smith paid 3.5 dollars. He left... Why? See e.g. RFC 1.\\n\\n# Usage\\n- one\\n- two"
        >>> [text[a:b] for a, b in split_sentences(text)]
        ['Dr. Smith paid 3.5 dollars.', 'He left...', 'Why?', 'See e.g. RFC 1.', '# Usage', '- one', '- two']
    """
    spans: list[tuple[int, int]] = []
    for start, end in _paragraphs(text):
        spans.extend(_sentences(text, start, end))
    return spans


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Stretches of lines that belong together, in order; they may begin and end with spaces."""
    start = None
    for match in _LINE.finditer(text):
        begin, end = match.span()
        line = match.group()
        blank = not line or line.isspace()
        alone = not blank and bool(_HEADING.match(line))
        if start is not None and (blank or alone or _ITEM.match(line)):
            yield start, begin
            start = None
        if alone:
            yield begin, end
        elif not blank:
            start = begin if start is None else start
            if _RULE.match(line):
                yield start, end
                start = None
    if start is not None:
        yield start, len(text)


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Trimmed spans of the sentences of one stretch of lines."""
    item = _ITEM.match(text, start, end)
    begin = start
    for match in _END.finditer(text, item.end() if item else start, end):
        if _ends(text, match.start(), match.end(), end):
            yield from _trimmed(text, begin, match.end())
            begin = match.end()
    yield from _trimmed(text, begin, end)


def _ends(text: str, sign: int, after: int, end: int) -> bool:
    """Whether a sentence ends with the signs at [sign, after)."""
    if text[sign] in _CJK_ENDS:
        return True
    if after >= end or not text[after].isspace():
        return after >= end
    follows = after
    while follows < end and (text[follows].isspace() or text[follows] in _OPENING):
        follows += 1
    if follows < end and text[follows].islower():
        return False
    number = follows < end and text[follows].isdigit()
    return text[sign:after].rstrip(_CLOSING) != "." or not _abbreviated(text, sign, number)


def _abbreviated(text: str, stop: int, number: bool) -> bool:
    """Whether the full stop at ``stop`` belongs to an initial, or to an abbreviation before a name or a number."""
    found = _WORD.search(text, max(0, stop - _LOOK_BACK), stop)
    word = found.group() if found else ""
    if len(word) == 1 and word.isalpha() and word.isupper():
        return word != "I"
    word = word.lower()
    return word in _BEFORE_NAMES or (number and word in _BEFORE_NUMBERS)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    if left < len(piece):
        yield start + left, start + len(piece.rstrip())
