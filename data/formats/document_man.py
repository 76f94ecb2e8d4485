"""Manual pages as readable text, from their roff source (man(7), mdoc(7), groff_char(7)), with what SEE ALSO names."""

from __future__ import annotations

import re

from pipelines.data.formats.document_parsed import Parsed, counted, tidy, unique
from pipelines.data.formats.document_roff import CALLABLE, arguments, unescaped

__all__ = ["man_encoding", "man_includes", "parse_man"]

_CODING = re.compile(rb"-\*-\s{0,9}coding:\s{0,9}([\w.-]{1,40})")
_REQUEST = re.compile(r"^[.'][ \t]*([A-Za-z][\w-]{0,30}|\\\"|[^\s])(.*)$", re.S)
_REFERENCE = re.compile(r"(?<![\w.:+-])([A-Za-z0-9_.:+\[][\w.:+@-]{0,80})[ ]?\(([1-9][a-z\w]{0,8})\)")
#: In running text a space before the bracket is a list's number or a remark: "step (2)".
_MENTION = re.compile(_REFERENCE.pattern.replace("[ ]?", ""))
_ALTERNATING = frozenset({"BR", "BI", "IB", "IR", "RB", "RI"})
_FONTS = frozenset({"B", "I", "R", "SM", "SB", "OP"})
_BREAKS = frozenset(
    {"PP", "P", "LP", "HP", "sp", "Pp", "RS", "RE", "TS", "SY", "YS", "ti", "Bd", "Bl", "El", "Ed", "TQ"}
)


def man_encoding(head: bytes) -> str:
    """The encoding that a page declares in its first lines; "" where it does not.

    Example:
        >>> man_encoding(b"'\\\\\\" -*- coding: latin-1 -*-\\n.TH A 1")
        'latin-1'
    """
    match = _CODING.search(head[:400])
    return match[1].decode("ascii") if match else ""


def man_includes(text: str) -> str:
    """The page that a page consists of (`.so man3/queue.3`); "" where it has text of its own.

    Example:
        >>> man_includes(".so man3/queue.3\\n"), man_includes(".TH A 1\\n.SH NAME\\n")
        ('man3/queue.3', '')
    """
    lines = [line for line in text[:4096].split("\n") if line.strip() and not line.startswith(('.\\"', "'\\\""))]
    match = re.match(r"\.so[ \t]+(\S{1,200})[ \t]*$", lines[0]) if len(lines) == 1 else None
    return match[1] if match else ""


def parse_man(text: str, *, strip: bool, drop: bool) -> Parsed:
    """Readable text of a page, its title such as `printf(3)`, and the pages that SEE ALSO names, as `name(section)`.

    Comments, macro definitions and everything before the title are not shown. Tables keep their cells, lines set as
    they are keep their breaks; other lines are not filled.

    Args:
        text: the source.
        strip: take the markup away.
        drop: take away the section SEE ALSO and, unless markup is kept, every `name(section)` of the text.

    Complexity: O(characters).

    Example:
        >>> page = ".TH ls 1\\n.SH NAME\\nls \\\\- list\\n.SH SEE ALSO\\n.BR dir (1),\\n.BR stat (2)\\n"
        >>> found = parse_man(page, strip=True, drop=False)
        >>> found.title, found.links, found.text.splitlines()[:3]
        ('ls(1)', ['dir(1)', 'stat(2)'], ['NAME', '', 'ls - list'])
    """
    page = _Page()
    for line in text.split("\n"):
        page.take(line)
    notes = [f"{counted(page.macros, 'macro definition')} left out"] if page.macros else []
    links: list[str] = []
    for related in page.related:
        links += [f"{name}({section})" for name, section in _REFERENCE.findall("\n".join(related))]
    if not strip:
        return Parsed(_without_section(text, notes) if drop else text, page.title, links, notes)
    if not drop:
        return Parsed(tidy("\n".join(page.lines)), page.title, links, notes)
    kept = [line for line, also in zip(page.lines, page.also, strict=True) if not also]
    if page.related:
        notes.append(f"SEE ALSO with {counted(len(unique(links)), 'reference')} dropped")
    shown, count = _MENTION.subn("", "\n".join(kept))
    if count:
        notes.append(f"{counted(count, 'reference')} in the text dropped")
    return Parsed(tidy(shown), page.title, links, notes)


def _without_section(text: str, notes: list[str]) -> str:
    kept, also = [], False
    for line in text.split("\n"):
        if re.match(r"\.[ \t]*S[Hh]\b", line):
            also = _is_related(" ".join(arguments(line.partition("H")[2] or line.partition("h")[2])))
            notes += ["SEE ALSO dropped"] if also else []
        if not also:
            kept.append(line)
    return "\n".join(kept)


def _is_related(heading: str) -> bool:
    return heading.strip().upper() == "SEE ALSO"


class _Page:
    """The state while a page is read line by line: what is shown, and whether it belongs to SEE ALSO."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.also: list[bool] = []
        self.related: list[list[str]] = []
        self.title = ""
        self.macros = 0
        self._in_related = False
        self._until = ""  # the request that ends what is skipped
        self._table = ""  # "head" while its format is read, then the character between cells
        self._heading = False  # the next line is a heading's text
        self._depth = 0  # of braces in a conditional that is not for a terminal

    def take(self, line: str) -> None:
        """The next line of the source."""
        if self._until:
            if line[:1] in ".'" and line[1:].strip().split(" ")[0] == self._until:
                self._until = ""
            return
        if self._depth:
            self._depth = max(0, self._depth + line.count("\\{") - line.count("\\}"))
            return
        if line.rstrip() in (".", "'"):
            return
        request = _REQUEST.match(line) if line[:1] in (".", "'") else None
        if request is None:
            self._text(line)
        elif request[1] not in ('\\"', "\\"):
            self._do(request[1], request[2].strip())

    def _text(self, line: str) -> None:
        shown = unescaped(line)
        if self._heading:
            self._begin(shown)
        elif self._table == "head":
            self._table = "\t" if shown.rstrip().endswith(".") else "head"
        elif self._table:
            if set(shown.strip()) - set("_="):  # a line across the table is no text
                self._show(shown.replace("T{", "").replace("T}", "").replace(self._table, "  "))
        elif self.title or not line.startswith("\\"):
            self._show(shown)

    def _do(self, name: str, rest: str) -> None:
        """A request or macro with what follows it on its line."""
        if name in ("de", "ig", "am", "de1"):
            self.macros += name != "ig"
            self._until = (rest.split() or [""])[1] if name != "ig" and len(rest.split()) > 1 else "."
        elif name in ("if", "ie", "el"):
            self._conditional(name, rest)
        elif name in ("TH", "Dt"):
            words = arguments(rest)
            self.title = f"{words[0]}({words[1]})" if len(words) > 1 else "".join(words[:1])
            self.lines.clear()
            self.also.clear()
        elif name in ("SH", "SS", "Sh", "Ss"):
            self._in_related = self._in_related and name in ("SS", "Ss")
            self._heading = not rest
            if rest:
                self._begin(" ".join(arguments(rest)))
        elif name in ("TS", "TE"):
            self._table = "head" if name == "TS" else ""
            self._show("")
        else:
            self._macro(name, rest)

    def _macro(self, name: str, rest: str) -> None:
        if name in _FONTS or name in _ALTERNATING:
            self._text(("" if name in _ALTERNATING else " ").join(arguments(rest, escaped=True)))
        elif name in ("TP", "IP", "It"):
            self._show("")
            if rest and name != "TP":
                self._show(_mdoc(rest) if name == "It" else " ".join(arguments(rest)[:1]))
        elif name in ("UR", "MT") or name in ("UE", "ME"):
            self._show(" ".join(arguments(rest)))
        elif name in _BREAKS:
            self._show("")
        elif name == "Xr":
            words = arguments(rest)
            self._show(f"{words[0]}({words[1]}){''.join(words[2:])}" if len(words) > 1 else rest)
        elif name[:1].isupper() and len(name) == 2 and name[1:].islower() and name not in ("Dd", "Os"):
            self._show(_mdoc(f"{name} {rest}"))

    def _conditional(self, name: str, rest: str) -> None:
        """What is for a terminal (`.if n`) is read, other branches are passed over."""
        condition, _, then = rest.partition(" ") if name != "el" else ("", "", rest)
        wanted = name != "el" and condition in ("n", "!t")
        if wanted and "\\{" not in then:
            self.take(then)
        elif not wanted:
            self._depth = max(0, rest.count("\\{") - rest.count("\\}"))

    def _begin(self, heading: str) -> None:
        self._heading = False
        self._in_related = self._in_related or _is_related(heading)
        if _is_related(heading):
            self.related.append([])
        self._show("")
        self._show(heading)
        self._show("")

    def _show(self, line: str) -> None:
        self.lines.append(line)
        self.also.append(self._in_related)
        if self._in_related and self.related:
            self.related[-1].append(line)


def _mdoc(rest: str) -> str:
    """The words of a line of mdoc, without the macros among them."""
    shown: list[str] = []
    dash = ""
    for word in arguments(rest):
        if word == "Fl":
            dash = "-"
        elif word not in CALLABLE:
            shown.append(dash + word)
            dash = ""
    return " ".join([*shown, *([dash] if dash else [])])
