"""Transcripts as files: plain text, SubRip (srt), WebVTT, a table of times (tsv) and JSON; loads no torch."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.words import Segment, Transcript, Word
from pipelines.values import to_json as finite_json

__all__ = [
    "FORMATS",
    "Cue",
    "cues",
    "entry",
    "read_srt",
    "readable_json",
    "to_json",
    "to_srt",
    "to_text",
    "to_tsv",
    "to_vtt",
    "write",
]

LINE = 42  # characters of a line, as broadcasters have it
LONGEST = 6.0  # seconds that a cue is shown
PAUSE = 0.6  # seconds between words that always end a cue
_BALANCE = 0.4  # seconds of pause that a cut in the middle is worth
_SRT_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{3})\s*")


@dataclass(frozen=True)
class Cue:
    """One or two lines of a subtitle.

    Attributes:
        start, end: milliseconds from the beginning of the recording; the end is after the start.
        lines: at most 42 characters each, unless a single word is longer.
    """

    start: int
    end: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines, parted by a space."""
        return " ".join(self.lines)


def cues(transcript: Transcript) -> list[Cue]:
    """Cut a transcript into cues: at most two lines of 42 characters and six seconds, ended by pauses.

    A group of words that is too long is cut at its longest pause, all else equal in the middle. A single word that is
    longer than a line or than six seconds is a cue of its own. Times are rounded to milliseconds and never overlap.

    Complexity: O(n log n) for n words.

    Example:
        >>> words = (Word("good", 0.1, 0.3, 0.9), Word("bye", 1.3, 1.7, 0.8))
        >>> [cue.text for cue in cues(Transcript("a.wav", 2.0, (Segment("good bye", 0.1, 1.7, words),)))]
        ['good', 'bye']
    """
    found: list[Cue] = []
    last = 0
    for segment in transcript.segments:
        for group in _groups(_timed_words(segment)):
            start = max(round(1000 * group[0].start), last, 0)
            last = max(round(1000 * max(word.end for word in group)), start + 1)
            found.append(Cue(start, last, _lines([word.text for word in group])))
    return found


def _timed_words(segment: Segment) -> list[Word]:
    """The words of a segment; where it has none, its text with times shared out by length."""
    words = [Word(" ".join(word.text.split()), word.start, word.end, word.confidence) for word in segment.words]
    words = [word for word in words if word.text]
    texts = segment.text.split()
    if words or not texts:
        return words
    lengths = [len(text) + 1 for text in texts]
    unit = (segment.end - segment.start) / sum(lengths)
    ends = [segment.start + unit * sum(lengths[: i + 1]) for i in range(len(texts))]
    starts = [segment.start, *ends[:-1]]
    return [Word(text, start, end, 0.0) for text, start, end in zip(texts, starts, ends, strict=True)]


def _groups(words: Sequence[Word]) -> list[Sequence[Word]]:
    """Words by cue."""
    done: list[Sequence[Word]] = []
    left: list[Sequence[Word]] = [words] if words else []
    while left:
        group = left.pop()
        gaps = [after.start - before.end for before, after in itertools.pairwise(group)]
        fits = group[-1].end - group[0].start <= LONGEST and bool(_lines([word.text for word in group]))
        if not gaps or (fits and max(gaps) < PAUSE):
            done.append(group)
            continue
        total = group[-1].end - group[0].start or 1.0
        shares = [(before.end - group[0].start) / total for before in group[:-1]]
        worth = [gap + _BALANCE * min(share, 1 - share) for gap, share in zip(gaps, shares, strict=True)]
        cut = worth.index(max(worth)) + 1
        left += [group[cut:], group[:cut]]
    return done


def _lines(texts: Sequence[str]) -> tuple[str, ...]:
    """One line, or two of most equal length; none where they do not fit."""
    whole = " ".join(texts)
    if len(whole) <= LINE or len(texts) == 1:
        return (whole,)
    if len(whole) > 2 * LINE + 1:
        return ()
    pairs = [(" ".join(texts[:cut]), " ".join(texts[cut:])) for cut in range(1, len(texts))]
    best = min(pairs, key=lambda pair: max(map(len, pair)))
    return best if max(map(len, best)) <= LINE else ()


# Formats ------------------------------------------------------------------------------------------------------------


def to_text(transcript: Transcript) -> str:
    """The text, one segment a line.

    Example:
        >>> to_text(Transcript("a.wav", 2.0, (Segment("good bye", 0.1, 1.7),)))
        'good bye\\n'
    """
    return "".join(f"{' '.join(segment.text.split())}\n" for segment in transcript.segments if segment.text.strip())


def to_srt(transcript: Transcript) -> str:
    """SubRip; nothing said gives an empty file.

    Example:
        >>> print(to_srt(Transcript("a.wav", 2.0, (Segment("bye", 0.1, 1.7),))), end="")
        1
        00:00:00,100 --> 00:00:01,700
        bye
        <BLANKLINE>
    """
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n\n"
        for number, cue in enumerate(cues(transcript), 1)
    ]
    return "".join(blocks)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT; ``&``, ``<`` and ``>`` are escaped.

    Example:
        >>> print(to_vtt(Transcript("a.wav", 2.0, (Segment("q&a", 0.1, 1.7),))), end="")
        WEBVTT
        <BLANKLINE>
        00:00:00.100 --> 00:00:01.700
        q&amp;a
        <BLANKLINE>
    """
    blocks = [
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n" + "\n".join(map(_escaped, cue.lines)) + "\n\n"
        for cue in cues(transcript)
    ]
    return "WEBVTT\n\n" + "".join(blocks)


def to_tsv(transcript: Transcript) -> str:
    """A table with the columns start and end in milliseconds and text, one segment a row.

    Example:
        >>> to_tsv(Transcript("a.wav", 2.0, (Segment("good bye", 0.1, 1.7),)))
        'start\\tend\\ttext\\n100\\t1700\\tgood bye\\n'
    """
    rows = [
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{' '.join(segment.text.split())}\n"
        for segment in transcript.segments
        if segment.text.strip()
    ]
    return "start\tend\ttext\n" + "".join(rows)


def entry(transcript: Transcript) -> dict[str, Any]:
    """A transcript as plain values: times in seconds to the millisecond; ``segment`` is the number of a word's segment.

    Example:
        >>> entry(Transcript("a.wav", 2.0, (Segment("bye", 0.1, 1.7, (Word("bye", 0.1, 1.7, 0.9),)),)))["words"]
        [{'text': 'bye', 'start': 0.1, 'end': 1.7, 'confidence': 0.9, 'segment': 0}]
    """
    return {
        "source": transcript.source,
        "seconds": round(transcript.seconds, 3),
        "text": transcript.text,
        "segments": [
            {"text": segment.text, "start": round(segment.start, 3), "end": round(segment.end, 3)}
            for segment in transcript.segments
        ],
        "words": [
            {
                "text": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": round(word.confidence, 4),
                "segment": number,
            }
            for number, segment in enumerate(transcript.segments)
            for word in segment.words
        ],
        "notes": list(transcript.notes),
    }


def to_json(transcript: Transcript) -> str:
    """JSON of :func:`entry`, letters of all languages as they are.

    Example:
        >>> to_json(Transcript("a.wav", 2.0))[:17]
        '{\\n "source": "a.w'
    """
    return readable_json(entry(transcript))


def readable_json(value: Mapping[str, Any]) -> str:
    """Indented JSON that keeps letters as they are; what is not a finite number becomes null.

    Example:
        >>> readable_json({"text": "naïve", "seconds": float("inf")}).split()
        ['{', '"text":', '"naïve",', '"seconds":', 'null', '}']
    """
    return json.dumps(json.loads(finite_json(value)), indent=1, ensure_ascii=False) + "\n"


#: Ending -> function that writes a transcript so.
FORMATS: Mapping[str, Callable[[Transcript], str]] = MappingProxyType(
    {"txt": to_text, "srt": to_srt, "vtt": to_vtt, "tsv": to_tsv, "json": to_json}
)


def write(transcript: Transcript, kind: str, where: object = "format") -> str:
    """A transcript in the format of this ending.

    Args:
        kind: txt, srt, vtt, tsv or json, with or without a dot.
        where: what the message names.

    Raises:
        ConfigError: another ending.

    Example:
        >>> write(Transcript("a.wav", 2.0), ".vtt")
        'WEBVTT\\n\\n'
    """
    name = kind.lower().lstrip(".")
    if name not in FORMATS:
        raise ConfigError(
            "transcripts have no such format", where=where, found=name or "no ending", expected=", ".join(FORMATS)
        )
    return FORMATS[name](transcript)


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def read_srt(text: str) -> list[Cue]:
    """The cues of a SubRip file.

    Raises:
        InputError: a block that has no times; its line is named.

    Example:
        >>> read_srt("1\\n00:00:01,000 --> 00:00:02,500\\ngood\\nbye\\n")
        [Cue(start=1000, end=2500, lines=('good', 'bye'))]
    """
    found: list[Cue] = []
    lines = text.lstrip("\ufeff").splitlines()
    place = 0
    while place < len(lines):
        if not lines[place].strip():
            place += 1
            continue
        at = place + 1 if lines[place].strip().isdigit() and place + 1 < len(lines) else place
        match = _SRT_TIMES.fullmatch(lines[at].strip())
        if match is None:
            raise InputError(
                "no times", where=f"line {at + 1}", found=repr(lines[at]), expected="00:00:00,000 --> 00:00:00,000"
            )
        numbers = [int(part) for part in match.groups()]
        start, end = (
            ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest
            for hours, minutes, seconds, rest in (numbers[:4], numbers[4:])
        )
        place = at + 1
        shown: list[str] = []
        while place < len(lines) and lines[place].strip():
            shown.append(lines[place])
            place += 1
        found.append(Cue(start, end, tuple(shown)))
    return found
