"""Markdown as readable text, with the addresses that it links to (CommonMark, with tables of GitHub's dialect)."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from pipelines.data.formats.document_parsed import Parsed, counted, one_line, tidy, without_comments

__all__ = ["parse_markdown"]

_FENCE = re.compile(r"^[ >]{0,12}(`{3,}|~{3,})")
_SPAN = re.compile(r"(?<!`)(`{1,9})(?!`)(.{1,2000}?)(?<!`)\1(?!`)", re.S)
_IMAGE = re.compile(r"!\[([^\[\]]{0,1000}+)\](?:\([^()\n]{0,1000}+\)|\[[^\[\]\n]{0,200}+\])?")
_LINK = re.compile(
    r"(?<!!)\[([^\[\]]{0,1000}+)\]"
    r"(?:\([ \t]{0,9}(?:<([^<>\n]{0,1000}+)>|([^()\s]{0,1000}+(?:\([^()\s]{0,200}+\)[^()\s]{0,200}+)?+))"
    r"(?:[ \t\n]{1,9}(?:\"[^\"]{0,500}+\"|'[^']{0,500}+'))?[ \t\n]{0,9}\)|\[([^\[\]\n]{0,200}+)\])"
)
_SHORT = re.compile(r"(?<!!)\[([^\[\]\n]{1,200}+)\](?![\[(:])")
_AUTO = re.compile(r"<((?:https?|ftp|mailto):[^\s<>]{1,1000}+)>")
_DEFINED = re.compile(r"^ {0,3}\[([^\[\]\n]{1,200}+)\]:[ \t]{0,9}<?([^\s<>]{1,1000}+)>?[^\n]*$", re.M)
_HREF = re.compile(r"""<a\s[^<>]{0,500}?href\s{0,3}=\s{0,3}["']([^"'<>]{1,1000})["']""", re.I)
_HEADING = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+|$)")
_UNDER = re.compile(r"^ {0,3}(=+|-{2,})[ \t]*$")
_RULE = re.compile(r"^ {0,3}([-*_])(?:[ \t]{0,9}\1){2,}[ \t]*$")
_QUOTE = re.compile(r"^ {0,3}(?:>[ \t]?){1,20}")
_BULLET = re.compile(r"^[ \t]*(?:[-*+]|(?=\d{1,9}[.)]\s))[ \t]+(?:\[[ xX]\][ \t]+)?")
_DELIMITER = re.compile(r"^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*+\|?[ \t]*$")
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9-]{0,30}(?:\s[^<>]{0,500}+)?/?>")
_STARS = re.compile(r"(?<![\w\\*])(\*{1,3})(?=[^\s*])([^*]{0,800}[^\s*\\])\1(?!\*)")
_LINES = re.compile(r"(?<![\w\\])(_{1,3})(?=[^\s_])([^_]{0,800}[^\s_\\])\1(?!\w)")
_STRUCK = re.compile(r"~~(?=\S)([^~]{1,800}+)~~")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_HIDDEN = re.compile("\x01(\\d{1,9})\x02")
_FRONT = re.compile(r"\A---[ \t]*\n((?:(?!(?:---|\.\.\.)[ \t]*\n).*\n){0,400}?)(?:---|\.\.\.)[ \t]*\n")
_YAML_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.M)


def parse_markdown(text: str, *, strip: bool, drop: bool) -> Parsed:
    """Readable text of a document, its title and the addresses that it links to.

    Code keeps its text, images their description; a block of data at the beginning (`---`) is left out and said.
    Links within the page are none.

    Args:
        text: the source.
        strip: take the markup away.
        drop: take links away with their text.

    Complexity: O(characters).

    Example:
        >>> found = parse_markdown("# Bees\\n\\n**Read** [this](honey.md).", strip=True, drop=False)
        >>> found.title, found.text, found.links
        ('Bees', 'Bees\\n\\nRead this.', ['honey.md'])
    """
    notes: list[str] = []
    front = _FRONT.match(text)
    named = _YAML_TITLE.search(front[1]) if front else None
    title = named[1].strip("\"'") if named else ""
    body = text[front.end() :] if front else text
    parts = _parts(body)
    prose = without_comments("\n".join(part for what, part in parts if what == "prose"))
    prose_only = _SPAN.sub("", prose)
    defined = {one_line(m[1]).lower(): m[2] for m in _DEFINED.finditer(prose_only)}
    links = _links(prose_only, defined)
    title = title or _title(prose, _Reader(defined, drop=False))
    reader = _Reader(defined, drop)
    if strip:
        notes += ["data at the beginning of the file left out"] if front else []
        shown = [
            reader.prose(without_comments(part)) if what == "prose" else part for what, part in parts if what != "fence"
        ]
        return Parsed(tidy("\n".join(shown)), title, links, notes + reader.notes())
    if drop:
        shown = [
            reader.outside_spans(part, reader.links, keep=True) if what == "prose" else part for what, part in parts
        ]
        text = (text[: front.end()] if front else "") + "\n".join(shown)
    return Parsed(text, title, links, reader.notes())


def _parts(text: str) -> list[tuple[str, str]]:
    """The lines as `prose`, `code` between fences, and the `fence`s themselves."""
    parts: list[tuple[str, str]] = []
    lines: list[str] = []
    fence = ""

    def end_part() -> None:
        if lines:
            parts.append(("code" if fence else "prose", "\n".join(lines)))
            lines.clear()

    for line in text.split("\n"):
        match = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if match and fence and match[1].startswith(fence) and not line.strip(" >").strip(fence[0]):
            end_part()
            fence = ""
        elif match and not fence and "`" not in line[match.end() :]:
            end_part()
            fence = match[1]
        else:
            lines.append(line)
            continue
        parts.append(("fence", line))
    end_part()
    return parts


def _links(prose: str, defined: dict[str, str]) -> list[str]:
    found: list[tuple[int, str]] = []
    plain = _IMAGE.sub(lambda match: " " * len(match[0]), prose)
    for match in _LINK.finditer(plain):
        key = one_line(match[4] or match[1]).lower() if match[4] is not None else ""
        found.append((match.start(), match[2] or match[3] or defined.get(key, "")))
    found += [(m.start(), defined.get(one_line(m[1]).lower(), "")) for m in _SHORT.finditer(plain)]
    found += [(m.start(), m[1]) for pattern in (_AUTO, _HREF) for m in pattern.finditer(plain)]
    ordered = [html.unescape(link) for _, link in sorted(found, key=lambda pair: pair[0])]
    return [link for link in ordered if link and not link.startswith("#")]


def _title(prose: str, reader: _Reader) -> str:
    """The first heading of the first level, or else the first heading."""
    first = ""
    lines = prose.split("\n")
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        heading = _HEADING.match(line)
        under = _UNDER.match(lines[index + 1]) if index + 1 < len(lines) else None
        under = None if under and _HEADING.match(line) else under
        if heading or (under and not _RULE.match(line) and not line.lstrip().startswith(("|", ">", "-", "*"))):
            text = line[heading.end() :].strip().rstrip("#") if heading else line
            shown = one_line(reader.inline(text))
            if (heading and heading[1] == "#") or (under and under[1].startswith("=")):
                return shown
            first = first or shown
    return first


class _Reader:
    """Turns prose into text."""

    def __init__(self, defined: dict[str, str], drop: bool) -> None:
        self._defined, self._drop = defined, drop
        self.dropped = 0

    def notes(self) -> list[str]:
        """What was dropped, counted."""
        return [f"{counted(self.dropped, 'reference')} dropped"] if self.dropped else []

    def prose(self, text: str) -> str:
        """Lines without the marks of headings, quotations, lists and tables, then without inline marks."""
        text = _DEFINED.sub("", text)
        kept: list[str] = []
        for line in text.split("\n"):
            line = _QUOTE.sub("", line)
            if not line.strip():
                kept.append("")
                continue
            heading = _HEADING.match(line)
            if heading:
                kept += ["", line[heading.end() :].rstrip().rstrip("#").rstrip(), ""]
            elif _RULE.match(line) or _UNDER.match(line) or ("-" in line and "|" in line and _DELIMITER.match(line)):
                kept += [""] if _UNDER.match(line) or _RULE.match(line) else []
            elif line.lstrip().startswith("|") or line.count(" | ") > 1:
                cells = line.strip().strip("|").split("|")
                kept.append("  ".join(cell.strip() for cell in cells))
            else:
                kept.append(_BULLET.sub("", line))
        return self.inline("\n".join(kept))

    def inline(self, text: str) -> str:
        """Text without inline marks; code spans keep theirs."""
        return self.outside_spans(text, lambda part: self._marks(self.links(_IMAGE.sub(r"\1", part))))

    def outside_spans(self, text: str, change: Callable[[str], str], *, keep: bool = False) -> str:
        """Change what is no code span; spans lose their back-quotes unless they are kept."""
        spans: list[str] = []

        def hide(match: re.Match[str]) -> str:
            spans.append(match[0] if keep else match[2].strip())
            return f"\x01{len(spans) - 1}\x02"  # links may hold spans, so that these only step aside

        return _HIDDEN.sub(lambda match: spans[int(match[1])], change(_SPAN.sub(hide, text)))

    def links(self, text: str) -> str:
        """Links by their text, or nothing where they are dropped."""
        text = _LINK.sub(lambda match: self._seen(match[1]), text)
        text = _SHORT.sub(self._short, text)
        return _AUTO.sub(lambda match: self._seen(match[1]), text)

    def _short(self, match: re.Match[str]) -> str:
        return self._seen(match[1]) if one_line(match[1]).lower() in self._defined else match[0]

    def _seen(self, text: str) -> str:
        self.dropped += self._drop
        return "" if self._drop else text

    def _marks(self, text: str) -> str:
        text = _TAG.sub("", re.sub(r"<br\s{0,9}/?>", "\n", text))
        for _ in range(3):  # strong inside of emphasis inside of strong
            text = _LINES.sub(r"\2", _STARS.sub(r"\2", text))
        text = _STRUCK.sub(r"\1", text)
        return html.unescape(_ESCAPED.sub(r"\1", text))
