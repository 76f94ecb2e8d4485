"""HTML as readable text, read tag by tag in one pass.

No tree is built: the parsers at hand need minutes for a few hundred kilobytes of tags that never end, and recurse over
nested ones. What follows is the tokenization of the HTML standard (section 13.2.5) as far as text needs it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.data.formats.document_parsed import Parsed, counted, one_line, tidy, words

__all__ = ["html_charset", "parse_html"]

_TAG = re.compile(r"""<(/?)([A-Za-z][^\s/>]{0,60})((?:[^>"'=]++|=\s*+(?:"[^"]*+"|'[^']*+')?|["'])*+)>""")
_ATTRIBUTE = re.compile(r"""([^\s"'>/=]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'>]++))""")
_META = re.compile(rb"""<meta\s[^>]{0,300}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([\w.:-]{1,40})""", re.I)
_XML = re.compile(rb"""<\?xml\s[^>]{0,100}?encoding\s{0,9}=\s{0,9}["']([\w.:-]{1,40})""")
_NAME = re.compile(r"</?[A-Za-z]")
_UNREAD = frozenset({"script", "style", "template", "svg", "noframes", "iframe"})
_RAW = frozenset({"script", "style", "title", "textarea", "noframes", "iframe", "xmp"})
_CLOSING = {name: re.compile(rf"</{name}\b[^>]{{0,100}}>", re.I) for name in _RAW}
_BLOCKS = words(
    "address article aside blockquote body center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li main menu nav ol option p section "
    "select summary table tbody tfoot thead tr ul caption"
)
_WIDE = words("p h1 h2 h3 h4 h5 h6 table ul ol dl blockquote pre section article")
_RUN = re.compile(r"[ \t\n\f]+")


@dataclass(frozen=True)
class _Token:
    """A piece of the source: a tag (`name`, perhaps `closing`) or text (no name)."""

    start: int
    end: int
    name: str = ""
    closing: bool = False
    attributes: str = ""


def html_charset(head: bytes) -> str:
    """The encoding that a page declares in its first bytes; "" where it does not.

    Example:
        >>> html_charset(b'<html><meta charset="windows-1252">')
        'windows-1252'
    """
    match = _META.search(head[:4096]) or _XML.match(head.lstrip()[:200])
    return match[1].decode("ascii", "ignore") if match else ""


def parse_html(text: str, *, strip: bool, drop: bool) -> Parsed:
    """Readable text of a page, its title and the addresses that it links to.

    Scripts, styles and drawings are left out and counted. Links within the page and scripts as links are none. An `a`
    that never ends shows its text even where references are dropped.

    Args:
        text: the source.
        strip: take the markup away.
        drop: take references away: `a` elements with an address, with their text.

    Complexity: O(characters).

    Example:
        >>> found = parse_html("<title>T</title><p>See <a href='b.html'>that</a> &amp; this", strip=True, drop=False)
        >>> found.title, found.text, found.links
        ('T', 'See that & this', ['b.html'])
    """
    page = _Page(text)
    for token in _tokens(text):
        page.take(token)
    notes: list[str] = []
    if page.unread:
        notes.append(f"{counted(page.unread, 'script, style or drawing', 'scripts, styles or drawings')} left out")
    if page.skipped:
        notes.append(f"<{page.skipped}> never ends: the rest of the page left out")
    if drop and page.anchors:
        notes.append(f"{counted(len(page.anchors), 'reference')} dropped")
    if strip:
        return Parsed(page.readable(drop), page.heading(), page.links, notes)
    if drop:
        kept, last = [], 0
        for start, end, _, _ in page.anchors:
            kept.append(text[last:start])
            last = end
        text = "".join([*kept, text[last:]])
    return Parsed(text, page.heading(), page.links, notes)


class _Page:
    """What is gathered while the tokens pass."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.parts: list[str] = []
        self.links: list[str] = []
        #: Start and end in the source, first and last part, of finished links.
        self.anchors: list[tuple[int, int, int, int]] = []
        self.unread = 0
        self._titles: list[str] = []
        self._headings: list[str] = []
        self._open: tuple[int, int] | None = None
        self._depth = 0
        self._pre = 0
        self._into = self.skipped = ""

    def take(self, token: _Token) -> None:
        """The next piece of the source."""
        if self.skipped:
            if token.name == self.skipped:
                self._depth += -1 if token.closing else 1
                self.skipped = self.skipped if self._depth else ""
        elif not token.name:
            self._text(html.unescape(self.source[token.start : token.end]))
        elif token.name in _UNREAD and not token.closing:
            self.unread += 1
            if not token.attributes.endswith("/"):
                self.skipped, self._depth = token.name, 1
        elif token.name == "a":
            self._anchor(token)
        else:
            self._tag(token.name, token.closing)

    def _text(self, text: str) -> None:
        if self._into == "title":
            self._titles.append(text)
            return
        if self._into:
            self._headings.append(text)
        if not self._pre:
            text = _RUN.sub(" ", text)
            text = text.lstrip(" ") if not self.parts or self.parts[-1].endswith(("\n", " ")) else text
        if text:
            self.parts.append(text.replace("\xa0", " "))

    def _tag(self, name: str, closing: bool) -> None:
        if name == "title" or (name == "h1" and (closing or not self._headings)):
            self._into = "" if closing else name
        elif name == "pre":
            self._pre = max(0, self._pre + (-1 if closing else 1))
        if name == "br":
            self.parts.append("\n")
        elif name in _WIDE:
            self.parts.append("\n\n")
        elif name in _BLOCKS:
            self.parts.append("\n")
        elif name in ("td", "th") and not closing:
            self.parts.append("  ")

    def _anchor(self, token: _Token) -> None:
        if token.closing and self._open is not None:
            self.anchors.append((self._open[0], token.end, self._open[1], len(self.parts)))
        self._open = None
        if token.closing:
            return
        address = next((m for m in _ATTRIBUTE.finditer(token.attributes) if m[1].lower() == "href"), None)
        if address is not None:
            target = html.unescape(address[2] or address[3] or address[4] or "").strip()
            if target and not target.startswith("#") and not target.lower().startswith("javascript:"):
                self.links.append(target)
                self._open = token.start, len(self.parts)

    def heading(self) -> str:
        """The page's title, else its first main heading."""
        return one_line("".join(self._titles)) or one_line("".join(self._headings))

    def readable(self, drop: bool) -> str:
        """The text, without that of links where they are dropped."""
        for _, _, first, last in self.anchors if drop else ():
            self.parts[first:last] = [""] * (last - first)
        return tidy("".join(self.parts))


def _tokens(source: str) -> Iterator[_Token]:
    """Tags and the text between them; what only looks like a tag is text."""
    place = text = 0
    missing: set[str] = set()  # what was looked for in vain up to the end: no need to look again
    while (start := source.find("<", place)) >= 0:
        match: re.Match[str] | None = None
        end = start + 1
        if source.startswith("<!--", start):
            end = _after(source, "-->", start + 4, missing)
        elif source.startswith(("<!", "<?"), start):
            end = _after(source, ">", start + 2, missing)
        elif "tag" not in missing and source[start + 1 : start + 3].removeprefix("/")[:1].isalpha():
            match = _TAG.match(source, start)
            if match is None and _NAME.match(source, start):
                missing.add("tag")
            end = match.end() if match else end
        place = end
        if end == start + 1:
            continue
        if start > text:
            yield _Token(text, start)
        text = end
        if match:
            name, closing = match[2].lower(), bool(match[1])
            yield _Token(start, end, name, closing, match[3])
            if name in _RAW and not closing and not match[3].endswith("/"):
                inner, place = _raw_end(source, name, end, missing)
                yield _Token(end, inner)
                yield _Token(inner, place, name, True)
                text = place
    if text < len(source):
        yield _Token(text, len(source))


def _after(source: str, mark: str, start: int, missing: set[str]) -> int:
    """The place behind the next mark, or `start` where there is none."""
    place = -1 if mark in missing else source.find(mark, start)
    if place < 0:
        missing.add(mark)
        return start
    return place + len(mark)


def _raw_end(source: str, name: str, start: int, missing: set[str]) -> tuple[int, int]:
    """Where an element's raw text ends, and where its closing tag ends; scripts and styles may end with the file."""
    match = None if f"</{name}" in missing else _CLOSING[name].search(source, start)
    if match:
        return match.start(), match.end()
    missing.add(f"</{name}")
    return (len(source), len(source)) if name in ("script", "style") else (start, start)
