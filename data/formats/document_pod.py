"""Perl's Plain Old Documentation as readable text, with the pages that it links to (perlpod, perlpodspec)."""

from __future__ import annotations

import html
import re

from pipelines.data.formats.document_parsed import Parsed, counted, one_line, tidy

__all__ = ["parse_pod", "pod_encoding"]

_COMMAND = re.compile(r"=([a-zA-Z]\w{0,30})(?:[ \t]+|(?=\n)|$)")
_CODES = re.compile(r"[A-Z]<(?:<++(?=\s))?|>")
_DEEPEST = 200  # codes in codes; more are damage
_ENCODING = re.compile(rb"^=encoding[ \t]+([\w.:-]{1,40})", re.M)
_ENTITIES = {"lt": "<", "gt": ">", "verbar": "\0", "sol": "/", "lchevron": "«", "rchevron": "»"}
_SHOWN_FORMATS = ("text", ":")


def pod_encoding(head: bytes) -> str:
    """The encoding that a document declares; "" where it does not.

    Example:
        >>> pod_encoding(b"=encoding latin1\\n\\n=head1 NAME")
        'latin1'
    """
    match = _ENCODING.search(head)
    return match[1].decode("ascii") if match else ""


def parse_pod(text: str, *, strip: bool, drop: bool) -> Parsed:
    """Readable text of a document, its title and the pages that `L<>` names.

    A link is the page or module without its section (`perlfunc`, `Data::Dumper`, `fcntl(2)`) or an address; links
    within the page are none. Code outside of the documentation and blocks for other formats are left out and counted.

    Args:
        text: the source.
        strip: take the markup away.
        drop: take `L<>` with its text away.

    Complexity: O(characters).

    Example:
        >>> found = parse_pod("=head1 NAME\\n\\na - B<x>\\n\\nSee L<the C<ops>|perlop/Names>.", strip=True, drop=False)
        >>> found.title, found.text, found.links
        ('a - x', 'NAME\\n\\na - x\\n\\nSee the ops.', ['perlop'])
    """
    reader = _Codes(drop)
    if not strip:
        raw = _Codes(drop, raw=True)
        shown = [raw.read(part) if _is_text(part) else part for part in re.split(r"(\n[ \t]*\n)", text)]
        _paragraphs(text, reader)
        return Parsed("".join(shown), reader.title, reader.links, raw.notes())
    parts, notes = _paragraphs(text, reader)
    return Parsed(tidy("\n\n".join(parts)), reader.title, reader.links, notes + reader.notes())


def _is_text(paragraph: str) -> bool:
    return not paragraph[:1].isspace()


def _paragraphs(text: str, reader: _Codes) -> tuple[list[str], list[str]]:
    """What is shown, paragraph by paragraph, and what is said of the rest."""
    shown: list[str] = []
    inside = skipping = False
    code = blocks = 0
    heading = ""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        paragraph = paragraph.strip("\n")
        command = _COMMAND.match(paragraph)
        if not inside and command is None:
            code += paragraph.count("\n") + 1 if paragraph.strip() else 0
            continue
        if command is None:
            if not skipping and paragraph.strip():
                shown.append(reader.read(paragraph) if _is_text(paragraph) else paragraph)
                if not reader.title and one_line(heading).upper() == "NAME":
                    reader.title = one_line(shown[-1])
            continue
        name, rest = command[1], paragraph[command.end() :].strip()
        inside = name != "cut"
        if name == "begin":
            skipping = not rest.startswith(_SHOWN_FORMATS)
            blocks += skipping
        elif name == "end":
            skipping = False
        elif name == "for":
            visible = rest.startswith(_SHOWN_FORMATS)
            shown += [reader.read(rest.partition(" ")[2])] if visible else []
            blocks += not visible
        elif not skipping and name not in ("over", "back", "encoding", "pod", "cut"):
            line = reader.read(re.sub(r"^\*\s*", "", rest) if name == "item" else rest)
            shown += [line] if line else []
            heading = line if name == "head1" else heading
    if not reader.title and shown:
        reader.title = one_line(heading and shown[0])
    notes = [f"{counted(code, 'line')} outside of the documentation left out"] if code else []
    if blocks:
        notes.append(f"{counted(blocks, 'block')} for other formats left out")
    return shown, notes


class _Codes:
    """Reads formatting codes such as B<bold> and C<< a > b >>, nested to any depth, with a stack."""

    def __init__(self, drop: bool, raw: bool = False) -> None:
        self.links: list[str] = []
        self.title = ""
        self._drop, self._raw = drop, raw
        self._dropped = 0

    def notes(self) -> list[str]:
        """What was dropped, counted."""
        return [f"{counted(self._dropped, 'reference')} dropped"] if self._dropped and self._drop else []

    def read(self, text: str) -> str:
        """A paragraph without its codes (with them in raw mode)."""
        #: What opened a code, how many brackets close it, and what stands in it so far.
        frames: list[tuple[str, int, list[str]]] = [("", 0, [])]
        place = 0
        for match in _CODES.finditer(text):
            start, token = match.start(), match.group()
            if start < place:  # brackets that have closed a wide code
                continue
            opener, width, parts = frames[-1]
            parts.append(text[place:start])
            place = match.end()
            if token != ">" and len(frames) > _DEEPEST:
                parts.append(token)
            elif token != ">":
                frames.append((token, len(token) - 1, []))
            elif width == 1 or (width > 1 and text.startswith(">" * width, start) and text[start - 1].isspace()):
                place = start + width
                frames.pop()
                frames[-1][2].append(self._shown(opener, "".join(parts), ">" * width))
            else:
                parts.append(token)
        frames[-1][2].append(text[place:])
        whole = frames[0][2]
        for opener, _, parts in frames[1:]:  # codes that never close
            whole += [opener, *parts]
        return "".join(whole).replace("\0", "|")

    def _shown(self, opener: str, content: str, closer: str) -> str:
        letter = opener[0]
        if letter == "L":
            self._dropped += 1
            if self._drop:
                self._link(content.strip())
                return ""
        if self._raw:
            return f"{opener}{content}{closer}"
        content = content.strip() if len(closer) > 1 else content
        if letter == "L":
            return self._link(content)
        if letter == "E":
            return _ENTITIES.get(content) or html.unescape(f"&#{content};" if content.isdigit() else f"&{content};")
        return "" if letter in "XZ" else content

    def _link(self, content: str) -> str:
        text, bar, target = content.partition("|")
        target = one_line(target if bar else text)
        if re.match(r"[a-z][a-z0-9+.-]{1,20}:[^:\s]", target):  # an address; Perl's modules have two colons
            self.links.append(target)
            return text if bar else target
        page, slash, section = target.partition("/")
        section = section.strip('"')
        self.links.append(page)
        if bar:
            return text
        if not slash:
            return target.strip('"')
        return f'"{section}" in {page}' if page else f'"{section}"'
