"""MediaWiki text as readable text, with the pages that it links to.

Templates, tables and links nest; they are matched with a stack in one pass, so that braces that never close cost no
more than others. (MediaWiki, "Help:Formatting" and "Help:Links".)
"""

from __future__ import annotations

import html
import re

from pipelines.data.formats.document_parsed import Parsed, counted, tidy, without_comments, words

__all__ = ["parse_wiki"]

_REF = re.compile(r"<ref(?:\s[^<>]{0,500}|/)?(?:(?<=/)>|(?<!/)>(?:[^<]++|<(?!/?ref\b))*+</ref\s{0,9}>)", re.I)
_GALLERY = re.compile(
    r"<(gallery|imagemap|timeline)\b[^<>]{0,500}>(?:[^<]++|<(?!/?(?:gallery|imagemap|timeline)\b))*+</\1\s{0,9}>", re.I
)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]{0,20}(?:\s[^<>]{0,500})?/?>")
_BRACES = re.compile(r"\{\{|\}\}")
_TABLE = re.compile(r"^[ \t:*#]*\{\||^[ \t]*\|\}", re.M)
_BRACKETS = re.compile(r"\[\[|\]\]")
_OUTSIDE = re.compile(r"\[((?:https?:|ftp:|mailto:|//)[^\s\]\[<>]{1,2000})(?:[ \t]++([^\]\n]{0,2000}+))?\]")
_LISTED = re.compile(r"^[*#:;]+[ \t]*|^-{4,}", re.M)
_QUOTES = re.compile(r"'{2,5}")
_MAGIC = re.compile(r"__[A-Z]{3,30}__")
_NAMESPACES = words("file image category media template user talk wikipedia wp help portal special module mediawiki")
_HIDDEN = frozenset({"file", "image", "category", "media"})
_TRAIL = re.compile(r"[a-z]{0,30}")


def parse_wiki(text: str, *, strip: bool, drop: bool) -> Parsed:
    """Readable text of a page and the titles of the pages that it links to.

    Titles are as MediaWiki compares them: the first letter capital, spaces for underscores, without the section.
    Images, categories and pages about the wiki are no links; links inside of templates, tables and notes are.

    Args:
        text: the source, not escaped for XML.
        strip: take away the markup, and templates, tables, notes (`<ref>`), galleries, images and categories, which
            are counted.
        drop: take away links with their text, those to other sites too.

    Complexity: O(characters).

    Example:
        >>> found = parse_wiki("'''Bees''' make [[honey|a ''syrup'']].{{stub}}", strip=True, drop=False)
        >>> found.text, found.links, found.notes
        ('Bees make a syrup.', ['Honey'], ['1 template left out'])
    """
    notes: list[str] = []
    plain = without_comments(text)
    _, links, _ = _linked(plain, drop=False, raw=True)
    if not strip:
        if drop:
            text, _, count = _linked(text, drop=True, raw=True)
            text, outside = _OUTSIDE.subn("", text)
            notes += _dropped(count + outside)
        return Parsed(text, "", links, notes)
    plain, refs = _REF.subn("", plain)
    plain, galleries = _GALLERY.subn("", plain)
    plain, templates = _without_nested(plain, _BRACES, "{{")
    plain, tables = _without_nested(plain, _TABLE, "{|")
    for count, what in ((templates, "template"), (tables, "table"), (refs, "note"), (galleries, "gallery")):
        if count:
            notes.append(f"{counted(count, what, 'galleries' if what == 'gallery' else '')} left out")
    plain, _, count = _linked(plain, drop=drop, raw=False)
    plain, outside = _OUTSIDE.subn(lambda match: "" if drop else match[2] or match[1], plain)
    notes += _dropped(count + outside) if drop else []
    return Parsed(tidy(_bare(plain)), "", links, notes)


def _dropped(count: int) -> list[str]:
    return [f"{counted(count, 'reference')} dropped"] if count else []


def _bare(text: str) -> str:
    """Text without tags, headings' signs, quotes for type, list signs and entities."""
    text = re.sub(r"<br\s{0,9}/?>", "\n", text)
    text = _TAG.sub("", text)
    lines = [_heading(line.rstrip()) if line.startswith("=") else line for line in text.split("\n")]
    text = _LISTED.sub("", "\n".join(lines))
    return html.unescape(_MAGIC.sub("", _QUOTES.sub("", text))).replace("\xa0", " ")


def _heading(line: str) -> str:
    bare = line.strip("=")
    return f"\n{bare.strip()}\n" if line.endswith("=") and bare.strip() else line


def _without_nested(text: str, pattern: re.Pattern[str], opening: str) -> tuple[str, int]:
    """Text without what stands between matching marks, and how many outermost pairs there were.

    A mark without its partner stays: one that never closes must not swallow the rest of the page.
    """
    opened: list[int] = []
    spans: list[tuple[int, int]] = []
    for match in pattern.finditer(text):
        if match.group().endswith(opening):
            opened.append(match.start())
        elif opened:
            start = opened.pop()
            while spans and spans[-1][0] > start:  # inside of this one
                spans.pop()
            spans.append((start, match.end()))
    kept, last = [], 0
    for start, end in spans:
        kept.append(text[last:start])
        last = end
    return "".join([*kept, text[last:]]), len(spans)


def _linked(text: str, *, drop: bool, raw: bool) -> tuple[str, list[str], int]:
    """Text with links resolved, the pages linked to in the order in which the links end, and how many links there were.

    `raw` leaves links as they are written, unless they are dropped.
    """
    frames: list[list[str]] = [[]]
    links: list[str] = []
    count = place = 0
    for match in _BRACKETS.finditer(text):
        frames[-1].append(text[place : match.start()])
        place = match.end()
        if match.group() == "[[":
            frames.append([])
        elif len(frames) == 1:
            frames[-1].append("]]")
        else:
            content = "".join(frames.pop())
            target, bar, shown = content.partition("|")
            space, page = _split_target(target)
            if page and "\n" not in target:
                links.append(page)
            hidden = space in _HIDDEN and not target.lstrip().startswith(":")
            count += bool(page)
            if raw and not (drop and page):
                frames[-1].append(f"[[{content}]]")
            elif not (drop or hidden):
                frames[-1].append(shown.rsplit("|", 1)[-1] if bar and shown else target.strip().removeprefix(":"))
            elif drop and page:
                trail = _TRAIL.match(text, place)
                place = trail.end() if trail else place  # [[bee]]s is one word
    frames[-1].append(text[place:])
    whole = frames[0]
    for unclosed in frames[1:]:
        whole += ["[[", *unclosed]
    return "".join(whole), links, count


def _split_target(target: str) -> tuple[str, str]:
    """The name space of a link's target, and the page's title or "" where it is no page of the wiki's content."""
    name = html.unescape(target).partition("#")[0].replace("_", " ").strip().removeprefix(":").strip()
    space, colon, _ = name.partition(":")
    known = space.strip().lower() if colon else ""
    if not name or len(name) > 300 or known in _NAMESPACES:
        return known, ""
    if colon and 2 <= len(space) <= 3 and space.islower():  # another language's wiki
        return "file", ""
    return "", name[:1].upper() + name[1:]
