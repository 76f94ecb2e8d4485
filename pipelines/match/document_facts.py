"""What was read of documents, counted: one record a document, and a tally over all that keeps its size."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["COUNTED", "DocumentFacts", "Tally", "one_line"]

#: What is counted of every document, in the order in which it is shown.
COUNTED = (
    "tokens",
    "sentences",
    "blocks",
    "unknown",
    "sentences_continued",
    "sentences_cut",
    "tokens_dropped",
    "sentences_dropped",
    "blocks_dropped",
)
_KEPT = 20  # documents that lost something and are named
_KINDS = 200  # notes of different words that are kept
_FURTHER = "1 notes of other words"


def one_line(text: str, longest: int = 80) -> str:
    """Return text that can be printed anywhere: one line, no control characters, cut with an ellipsis.

    Complexity: O(longest) for text without long runs of blanks.

    Example:
        >>> one_line("Good\\n  bye \\x1b[31mnow", 14)
        'Good bye [31m…'
    """
    start = text if longest <= 0 else text[: 8 * longest + 200]
    words = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    if longest <= 0 or (len(words) <= longest and len(start) == len(text)):
        return words
    return f"{words[: longest - 1].rstrip()}…"


@dataclasses.dataclass(frozen=True)
class DocumentFacts:
    """What was read of one document.

    Attributes:
        name, title: of the document.
        tokens, sentences: what the document has.
        blocks: sentence blocks that the model read.
        unknown: tokens that are no word of the vocabulary.
        sentences_continued: sentences longer than a block that go on in the next one; nothing of them is lost.
        sentences_cut: sentences that lost their end.
        tokens_dropped, sentences_dropped, blocks_dropped: what the model did not read.
        notes: what was done to the file on the way.

    Example:
        >>> print(DocumentFacts("a.txt", tokens=1200, sentences=60, blocks=48, sentences_continued=2))
        1,200 tokens, 60 sentences, 48 blocks, 2 sentences go on in the next block
    """

    name: str
    title: str = ""
    tokens: int = 0
    sentences: int = 0
    blocks: int = 0
    unknown: int = 0
    sentences_continued: int = 0
    sentences_cut: int = 0
    tokens_dropped: int = 0
    sentences_dropped: int = 0
    blocks_dropped: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, counts: object, *, title: str = "", notes: tuple[str, ...] = ()) -> DocumentFacts:
        """Take the counts from an object with these attributes, or from a mapping; what is missing is 0.

        Example:
            >>> DocumentFacts.of("a.txt", {"tokens": 5, "blocks": 1}).tokens
            5
        """
        values = counts if isinstance(counts, Mapping) else {key: getattr(counts, key, 0) for key in COUNTED}
        return cls(name, title, notes=notes, **{key: int(values.get(key) or 0) for key in COUNTED})

    @property
    def lost(self) -> bool:
        """Whether anything was not read."""
        return bool(self.tokens_dropped or self.sentences_dropped or self.blocks_dropped)

    def counts(self) -> dict[str, int]:
        """The counts alone."""
        return {key: getattr(self, key) for key in COUNTED}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"name": self.name, "title": self.title, **self.counts(), "notes": list(self.notes)}

    def __str__(self) -> str:
        return _told(self.counts())


@dataclasses.dataclass
class _Told:
    """One note on any number of documents: what it counts in all, its longest wording, and some of their names."""

    counts: bool
    total: int = 0
    documents: int = 0
    words: str = ""
    names: list[str] = dataclasses.field(default_factory=list)

    def line(self) -> str:
        """The note as one line."""
        said = f"{self.total:,} {self.words}" if self.counts else self.words
        if self.documents == 1:
            return f"{self.names[0]}: {said}"
        where = f"{self.documents:,} documents ({', '.join(self.names)}{' ...' if self.documents > 3 else ''})"
        return f"{said} in {where}" if self.counts else f"{where}: {said}"


class Tally:
    """The counts of any number of documents together; memory does not grow with them.

    Attributes:
        documents: how many were added.
        totals: the sum of every count.
        by_blocks: number of blocks -> how many documents have so many.
        losses: the first documents that were not read to the end.

    What was noted of the documents is told in one line a kind: numbers in notes of the same words are added.

    Example:
        >>> tally = Tally()
        >>> tally.add(DocumentFacts("a.txt", tokens=1200, sentences=60, blocks=64, tokens_dropped=300))
        >>> print(tally)
        1 document: 1,200 tokens, 60 sentences, 64 blocks, 300 tokens dropped (1 document not read to its end)
        >>> for name, note in (("b", "1 comment left out"), ("c", "2 comments left out")):
        ...     tally.add(DocumentFacts(name, notes=(note,)))
        >>> tally.notes[0]
        '3 comments left out in 2 documents (b, c)'
    """

    def __init__(self) -> None:
        self.documents = 0
        self.shortened = 0
        self.totals: dict[str, int] = dict.fromkeys(COUNTED, 0)
        self.by_blocks: Counter[int] = Counter()
        self.losses: list[DocumentFacts] = []
        self._told: dict[tuple[bool, str], _Told] = {}

    def add(self, facts: DocumentFacts) -> None:
        """Count one document."""
        self.documents += 1
        for key, value in facts.counts().items():
            self.totals[key] += value
        self.by_blocks[facts.blocks] += 1
        for note in facts.notes:
            self._note(facts.name, note)
        if facts.lost:
            self.shortened += 1
            if len(self.losses) < _KEPT:
                self.losses.append(facts)

    def _note(self, name: str, note: str) -> None:
        counted = re.match(r"([\d,]*\d) (\S+)(.*)", note, re.DOTALL)
        key = (False, note) if counted is None else (True, counted[2].removesuffix("s") + counted[3])
        if key not in self._told and len(self._told) >= _KINDS and note != _FURTHER:
            self._note(name, _FURTHER)
            return
        one = self._told.setdefault(key, _Told(key[0]))
        if counted is not None:
            one.total += int(counted[1].replace(",", ""))
        one.words = max(one.words, note if counted is None else note.split(" ", 1)[1], key=len)
        one.documents += 1
        if len(one.names) < 3:
            one.names.append(one_line(name, 60))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted of the documents, then what was not read, with the documents that it is about."""
        said = tuple(one.line() for one in self._told.values())
        if not self.shortened:
            return said
        lost = ", ".join(
            _several(self.totals[key], key.removesuffix("s_dropped"))
            for key in COUNTED
            if key.endswith("_dropped") and self.totals[key]
        )
        named = ", ".join(one_line(one.name, 60) for one in self.losses[:3])
        more = f" and {self.shortened - 3:,} more" if self.shortened > 3 else ""
        return (*said, f"not read: {lost} of {_several(self.shortened, 'document')} ({named}{more})")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"documents": self.documents, **self.totals, "documents_shortened": self.shortened}

    def __str__(self) -> str:
        told = f"{_several(self.documents, 'document')}: {_told(self.totals)}"
        whose = "its" if self.shortened == 1 else "their"
        lost = f" ({_several(self.shortened, 'document')} not read to {whose} end)"
        return told + lost if self.shortened else told


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _told(counts: Mapping[str, int]) -> str:
    read = [_several(counts[key], key.removesuffix("s")) for key in ("tokens", "sentences", "blocks")]
    if counts["unknown"]:
        read.append(f"{counts['unknown']:,} of the tokens unknown to the vocabulary")
    if counts["sentences_continued"]:
        verb = "goes" if counts["sentences_continued"] == 1 else "go"
        read.append(f"{_several(counts['sentences_continued'], 'sentence')} {verb} on in the next block")
    if counts["sentences_cut"]:
        read.append(f"{_several(counts['sentences_cut'], 'sentence')} cut")
    lost = [key for key in COUNTED if key.endswith("_dropped") and counts[key]]
    if lost:
        read.append(f"{' and '.join(_several(counts[key], key.removesuffix('s_dropped')) for key in lost)} dropped")
    return ", ".join(read)
