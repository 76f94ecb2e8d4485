"""reStructuredText as Sphinx writes it: readable text, and the roles and addresses that it links to.

The rules of the markup are read line by line (docutils, "reStructuredText Markup Specification"); nothing is imported
from docutils, which stops at unknown directives and needs seconds a document.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from pipelines.data.formats.document_parsed import Parsed, counted, one_line, tidy, words

__all__ = ["parse_rst"]

_ROLE = re.compile(r":([A-Za-z][\w.+-]{0,30}(?::[\w.+-]{1,30})?):`([^`]{1,2000})`")
_TITLED = re.compile(r"^(.*\S)?\s*<([^<>]+)>$", re.S)
_PHRASE = re.compile(r"(?<![\w`:])`([^`<]{0,1000})<([^`<>]{1,1000})>`__?")
_REFERENCE = re.compile(
    r":(?P<role>[A-Za-z][\w.+-]{0,30}(?::[\w.+-]{1,30})?):`(?P<body>[^`]{1,2000})`"
    r"|(?<![\w`:])`(?P<phrase>[^`<]{0,1000})<(?P<address>[^`<>]{1,1000})>`__?"
    r"|(?<![\w`])`(?P<plain>[^`]{1,1000})`_{0,2}(?!\w)"
    r"|[ ]?\[(?:\d{1,4}|[#*][\w-]{0,40}|[A-Za-z][\w-]{0,40})\]_(?!\w)"
    r"|(?<=[A-Za-z0-9])(?P<line>__?)(?![\w`])"
)
_TARGET = re.compile(r"^[ \t]*\.\. _([^:\n`]{1,200}|`[^`\n]{1,200}`):[ \t]+(\S.*)$", re.M)
_DIRECTIVE = re.compile(r"^(\s*)\.\. (?:\|([^|]{1,200})\|\s+)?([A-Za-z][\w:.+-]{0,60})::(?:\s+(.*))?$")
_EXPLICIT = re.compile(r"^(\s*)(?:\.\.|__)(?:\s+(.*))?$")
_NOTE = re.compile(r"^\[([#*]?[\w.-]{0,60})\]\s+(.*)$")
_OPTION = re.compile(r"^\s*:[A-Za-z][\w-]*:(?:\s|$)")
_BULLET = re.compile(r"^(?:[*+-]|#\.)\s+")
_ADORNMENT = re.compile(r"^([!-/:-@[-`{-~])\1{2,}$")
_BORDER = re.compile(r"^(?:=+(?:\s+=+)+|-+(?:\s+-+)+|\+(?:[-=]+\+)+)$")
_SUBSTITUTION = re.compile(r"\|([^|\s][^|\n]{0,100})\|_{0,2}")
_STRONG = re.compile(r"(?<![\w*\\])(\*\*|\*)(?=[^\s*])([^*]{0,500}[^\s*\\])\1(?![\w*])")
_ESCAPE = re.compile(r"\\(\s|.)")

#: Roles that only set type; every other role is a reference.
_TYPE = words(
    "abbr code command dfn file guilabel kbd literal makevar math mimetype menuselection newsgroup program "
    "regexp samp strong emphasis sub sup subscript superscript title title-reference mailheader"
)
_CALLS = frozenset({"func", "meth", "c:func"})
_HIDDEN = words(
    "index toctree image raw include literalinclude sectionauthor moduleauthor codeauthor module currentmodule "
    "meta highlight tabularcolumns contents testsetup testcleanup default-domain role default-role sectnum "
    "unicode date"
)
_CODE = words("code-block sourcecode code doctest testcode testoutput parsed-literal productionlist math")
_VERSIONS = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "deprecated-removed": "Deprecated since version",
}
_WORDLESS = words("figure container only class rst-class list-table")  # their argument is no text


def parse_rst(text: str, *, strip: bool, drop: bool) -> Parsed:
    """Readable text of a document, its title and what it refers to.

    Links are `role:target` without a `py:` before them (`mod:json`, `doc:/library/json`, `c:func:PyErr_Print`),
    `url:address`, `toctree:document` and `include:file`. A target with `!` is none. Comments and directives that show
    no text are left out and counted.

    Args:
        text: the source.
        strip: take the markup away; False leaves all else as it is.
        drop: take references away, roles with their text and addresses with theirs, in literal blocks too; roles that
            only set type stay.

    Complexity: O(characters).

    Example:
        >>> found = parse_rst("JSON\\n====\\n\\nSee :mod:`pickle` and *that*.", strip=True, drop=False)
        >>> found.title, found.text, found.links
        ('JSON', 'JSON\\n\\nSee pickle and that.', ['mod:pickle'])
    """
    links = _links(text)
    title = _title(text)
    notes: list[str] = []
    if drop:
        dropped = sum(match[1] not in _TYPE for match in _ROLE.finditer(text))
        text = _ROLE.sub(lambda match: match[0] if match[1] in _TYPE else "", text)
        text, phrases = _PHRASE.subn("", text)
        dropped += phrases
        notes += [f"{counted(dropped, 'reference')} dropped"] if dropped else []
    if strip:
        text = _stripped(text, notes)
    return Parsed(text, title, links, notes)


def _links(text: str) -> list[str]:
    found: list[tuple[int, str]] = []
    for match in _ROLE.finditer(text):
        role, target = match[1].removeprefix("py:"), _target(match[2])
        if role not in _TYPE and not match[2].startswith("!") and target:
            plain = role in ("doc", "ref", "download", "any", "term")
            found.append((match.start(), f"{role}:{target if plain else target.lstrip('~.')}"))
    found += [(match.start(), f"url:{one_line(match[2])}") for match in _PHRASE.finditer(text)]
    found += [(match.start(), f"url:{match[2].strip()}") for match in _TARGET.finditer(text)]
    place = 0
    inside = -1  # indentation of a toctree whose entries follow
    for line in text.split("\n"):
        directive = _DIRECTIVE.match(line) if "::" in line else None
        if directive:
            inside = len(directive[1]) if directive[3] == "toctree" else -1
            if directive[3] in ("include", "literalinclude") and directive[4]:
                found.append((place, f"include:{directive[4].strip()}"))
        elif inside >= 0 and line.strip():
            if len(line) - len(line.lstrip()) <= inside:
                inside = -1
            elif not _OPTION.match(line):
                found.append((place, f"toctree:{_target(line.strip())}"))
        place += len(line) + 1
    return [link for _, link in sorted(found, key=lambda pair: pair[0])]


def _target(body: str) -> str:
    titled = _TITLED.match(body)
    return one_line(titled[2] if titled else body)


def _title(text: str) -> str:
    for line, below in itertools.pairwise(text.split("\n")):
        bare, rule = line.rstrip(), below.rstrip()
        if not _ADORNMENT.match(rule) or len(rule) < len(bare) - 1 or not bare or _ADORNMENT.match(bare):
            continue
        if not bare.lstrip().startswith(".."):
            return one_line(_inline(line, {}))
    return ""


def _stripped(text: str, notes: list[str]) -> str:
    said: dict[str, str] = {}
    hidden = [0, 0]
    parts: list[str] = []
    for literal, lines in _blocks(text.expandtabs().split("\n"), said, hidden):
        parts.append("\n".join(lines) if literal else _paragraph(lines))
    if hidden[0]:
        notes.append(f"{counted(hidden[0], 'comment')} left out")
    if hidden[1]:
        notes.append(f"{counted(hidden[1], 'directive')} without readable text left out")
    return tidy(_inline_all(parts, said))


def _inline_all(parts: list[str], said: dict[str, str]) -> str:
    """Inline markup of paragraphs; literal blocks begin with a mark and pass."""
    return "\n\n".join([part[1:] if part.startswith("\0") else _inline(part, said) for part in parts])


def _blocks(lines: list[str], said: dict[str, str], hidden: list[int]) -> Iterator[tuple[bool, list[str]]]:
    """Paragraphs (False, lines) and literal blocks (True, lines); `said` and `hidden` are filled on the way."""
    place = 0
    while place < len(lines):
        line = lines[place]
        if not line.strip():
            place += 1
            continue
        indent = len(line) - len(line.lstrip())
        directive = _DIRECTIVE.match(line)
        explicit = _EXPLICIT.match(line)
        if directive:
            end, blocks = _directive(lines, place, directive, said, hidden)
            yield from blocks
            place = end
        elif explicit and not (explicit[2] and _NOTE.match(explicit[2])):
            if not (explicit[2] or "").startswith("_") and line.lstrip().startswith(".."):
                hidden[0] += bool(explicit[2]) or _deeper(lines, place + 1, indent) > place + 1
            place = _deeper(lines, place + 1, indent)
        else:
            end = place + 1
            while end < len(lines) and lines[end].strip() and not lines[end].lstrip().startswith(".. "):
                end += 1
            paragraph = lines[place:end]
            if explicit and explicit[2]:
                paragraph[0] = _NOTE.sub(r"\2", explicit[2])
            yield False, paragraph
            place = end
            if paragraph[-1].rstrip().endswith("::"):
                indent = len(paragraph[-1]) - len(paragraph[-1].lstrip())
                place = _deeper(lines, end, indent)
                if place > end:
                    yield True, _verbatim(lines[end:place])


def _deeper(lines: list[str], place: int, indent: int) -> int:
    """The first line from `place` on that is not blank and not indented more; blank lines before it are passed."""
    end = place
    while place < len(lines):
        line = lines[place]
        if line.strip():
            if len(line) - len(line.lstrip()) <= indent:
                break
            end = place + 1
        place += 1
    return end


def _verbatim(lines: list[str]) -> list[str]:
    """Lines without the indentation that they share, marked as literal."""
    shared = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    text = "\n".join([line[shared:] for line in lines]).strip("\n")
    return ["\0" + text]


def _directive(
    lines: list[str], place: int, match: re.Match[str], said: dict[str, str], hidden: list[int]
) -> tuple[int, list[tuple[bool, list[str]]]]:
    """Where reading goes on after a directive's head (or after all of it), and what it shows so far."""
    indent, name, argument = len(match[1]), match[3], (match[4] or "").strip()
    if match[2]:
        if name == "replace":
            said[match[2]] = argument
        return _deeper(lines, place + 1, indent), []
    bare = name.removeprefix("py:")
    if bare in _HIDDEN:
        hidden[1] += 1
        return _deeper(lines, place + 1, indent), []
    shown = [] if bare in _WORDLESS or not argument else [argument]
    if shown and bare in _VERSIONS:
        version, _, rest = argument.partition(" ")
        shown = [f"{_VERSIONS[bare]} {version}{': ' if rest else ''}{rest}"]
    place += 1
    options = False
    while place < len(lines) and lines[place].strip() and len(lines[place]) - len(lines[place].lstrip()) > indent:
        options = options or _OPTION.match(lines[place]) is not None
        if bare in _CODE and not options:
            break
        if not options:
            shown.append(lines[place].strip())
        place += 1
    if bare in _CODE:
        end = _deeper(lines, place, indent)
        language = bare in ("code-block", "sourcecode", "code", "testcode", "testoutput", "doctest")
        text = [] if language or not shown else [f"\0{shown[0]}"]
        body = _verbatim(lines[place:end]) if end > place else []
        return end, [(True, part) for part in (text, body) if part]
    return place, [(False, shown)] if shown else []


def _paragraph(lines: list[str]) -> str:
    """Lines of a paragraph without headings' rules, table borders, bullets and indentation."""
    kept: list[str] = []
    for line in lines:
        bare = line.strip()
        if _ADORNMENT.match(bare) or _BORDER.match(bare):
            if kept and _ADORNMENT.match(bare):
                kept.append("")  # what follows a heading without an empty line is no part of it
            continue
        if bare.startswith("|") and (bare.endswith("|") or bare[1:2] in (" ", "")):
            bare = bare.replace("|", " ").strip()  # a row of a table, or a line of a line block
        kept.append(_BULLET.sub("", bare))
    text = "\n".join(kept)
    return text[:-2].rstrip() + ":" if text.endswith("::") and text != "::" else text.removesuffix("::")


def _inline(text: str, said: dict[str, str]) -> str:
    """Text of a paragraph without inline markup; what stands between double back-quotes is left as it is."""
    parts = text.split("``")
    for index in range(0, len(parts), 2):
        part = parts[index]
        if "`" in part or "_" in part:
            part = _REFERENCE.sub(_resolved, part)
        if said and "|" in part:
            part = _SUBSTITUTION.sub(lambda match: said.get(match[1], match[0]), part)
        if "*" in part:
            part = _STRONG.sub(r"\2", part)
        parts[index] = _ESCAPE.sub(lambda match: match[1].strip(), part) if "\\" in part else part
    return "".join(parts)


def _resolved(match: re.Match[str]) -> str:
    """The visible text of a role, a phrase with an address, a name in back-quotes, or a name with a line below."""
    if match["role"]:
        return _shown(match["role"], match["body"])
    if match["address"]:
        return match["phrase"].strip() or match["address"]
    if match["plain"]:
        return match["plain"]
    if match["line"]:
        before = re.search(r"\w{0,80}$", match.string[max(0, match.start() - 80) : match.start()])
        return match["line"] if before is None or before[0].startswith("_") else ""  # __init__ is no reference
    return ""  # a footnote's number


def _shown(role: str, body: str) -> str:
    """What a reader sees of a role."""
    role = role.removeprefix("py:")
    titled = _TITLED.match(body)
    if titled and titled[1] and role not in _TYPE:
        return titled[1]
    text = body.lstrip("!")
    if text.startswith("~"):
        text = re.split(r"[./]", text[1:])[-1]
    text = text.lstrip(".") if role not in _TYPE else text
    if role == "samp":
        return text.replace("{", "").replace("}", "")
    if role in ("pep", "rfc"):
        return f"{role.upper()} {text}"
    return f"{text}()" if role in _CALLS and not text.endswith(")") else text
