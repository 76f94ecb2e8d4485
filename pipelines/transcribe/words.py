"""What recognised speech is made of: words with times and confidences, in segments, in transcripts; loads no torch."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["Segment", "Transcript", "Word"]


@dataclasses.dataclass(frozen=True)
class Word:
    """One word of the text and where it is heard.

    Attributes:
        text: as it stands in the text, without spaces.
        start, end: seconds from the beginning of the recording.
        confidence: 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of speech between two pauses.

    Attributes:
        text: what was recognised; its words in order, parted by single spaces.
        start, end: seconds from the beginning of the recording.
        words: as many as the text has.
    """

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()


@dataclasses.dataclass(frozen=True)
class Transcript:
    """One recording's text.

    Attributes:
        source: what was read, e.g. a file's name.
        seconds: how long the recording is.
        segments: in the order of time; none where nothing is said.
        notes: what was done to the sound on the way.

    Example:
        >>> words = (Word("good", 0.1, 0.3, 0.9), Word("bye", 0.3, 0.7, 0.8))
        >>> Transcript("a.wav", 1.0, (Segment("good bye", 0.1, 0.7, words),)).text
        'good bye'
    """

    source: str
    seconds: float
    segments: tuple[Segment, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All segments, parted by spaces."""
        return " ".join(segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "text": self.text}
