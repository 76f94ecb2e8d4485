"""Utterances and corpora: which stretch of which file is spoken by whom and what it says; no sound is opened."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.data.errors import InputError

__all__ = ["AUDIO_SUFFIXES", "PARTS", "Corpus", "Gathering", "Utterance", "part_of"]

#: Names of files that are taken for recordings where a folder is searched.
AUDIO_SUFFIXES = frozenset(
    {
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".m4a",
        ".aac",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".caf",
        ".wma",
        ".amr",
        ".mp4",
        ".mov",
        ".mkv",
        ".webm",
    }
)
#: What corpora call their parts, and what this package calls them.
PARTS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One stretch of speech and its text.

    Attributes:
        id: unique in its corpus.
        source: the file of sound.
        text: as it stands in the corpus; "" where nothing is said, None where nobody wrote it down.
        speaker: who speaks (or which call, book, recording it is cut from); "" where that is not known.
        start: seconds from the beginning of the file.
        seconds: how long it is, as the corpus says; None = to the end of the file.
        part: "train", "valid", "test", or "" where the corpus has no parts.
        where: file and line that say so, for messages.
    """

    id: str
    source: Path
    text: str | None
    speaker: str = ""
    start: float = 0.0
    seconds: float | None = None
    part: str = ""
    where: str = ""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Utterances in the order of their source.

    Attributes:
        name: of the file or folder that was read.
        utterances: what can be used.
        notes: how it was read, what was counted and left out.
        failures: place (file:line) -> problem, of what the source names but does not have.

    Example:
        >>> spoken = Utterance("a", Path("a.wav"), "one", "ann", part="train")
        >>> corpus = Corpus("mine", (spoken, Utterance("b", Path("b.wav"), None)))
        >>> len(corpus), len(corpus.with_text()), len(corpus.part("test")), corpus.speakers
        (2, 1, 0, ('ann',))
    """

    name: str
    utterances: tuple[Utterance, ...]
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.utterances)

    def part(self, name: str) -> Corpus:
        """The utterances of one part: "train", "valid", "test", or "" for those of none; possibly none at all."""
        return self._only(one for one in self.utterances if one.part == name)

    def with_text(self) -> Corpus:
        """The utterances that have a text, be it empty."""
        return self._only(one for one in self.utterances if one.text is not None)

    @property
    def speakers(self) -> tuple[str, ...]:
        """The names of all speakers, sorted; an utterance without one counts for none."""
        return tuple(sorted({one.speaker for one in self.utterances} - {""}))

    def _only(self, chosen: Iterable[Utterance]) -> Corpus:
        return dataclasses.replace(self, utterances=tuple(chosen))


def part_of(name: str) -> str | None:
    """The part that a name of a file, folder or column stands for: also with a suffix such as train-clean-100.

    Example:
        >>> part_of("dev-other"), part_of("TEST"), part_of("recordings")
        ('valid', 'test', None)
    """
    lower = name.lower()
    return PARTS.get(lower, PARTS.get(lower.split("-")[0]))


class Gathering:
    """Collects what a reader finds; knows ids and files that it has seen.

    Args:
        source: what is read, for messages.

    Example:
        >>> found = Gathering("list.csv")
        >>> found.add(Utterance("a", Path("a.wav"), "", where="list.csv:2"))
        >>> found.finish("mine").notes
        ('1 of 1 utterances has an empty transcript',)
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.notes: list[str] = []
        self.failures: dict[str, str] = {}
        self._utterances: dict[str, Utterance] = {}
        self._present: dict[Path, bool] = {}

    def add(self, utterance: Utterance) -> None:
        """Take an utterance.

        Raises:
            InputError: its id is taken; both places are named.
        """
        first = self._utterances.setdefault(utterance.id, utterance)
        if first is not utterance:
            raise InputError(
                f"two utterances are called '{utterance.id}'",
                where=self.source,
                found=f"{first.where or first.source} and {utterance.where or utterance.source}",
                expected="every id once",
                cure="remove one, or give both an id of their own",
            )

    def fail(self, place: str, problem: str) -> None:
        """Note what cannot be used; a second problem of one place is added to the first."""
        self.failures[place] = f"{self.failures[place]}; {problem}" if place in self.failures else problem

    def present(self, path: Path) -> bool:
        """Whether there is such a file; asked once a path."""
        if path not in self._present:
            try:
                self._present[path] = path.is_file()
            except (OSError, ValueError):  # a name too long, a null byte
                self._present[path] = False
        return self._present[path]

    def finish(self, name: str) -> Corpus:
        """The corpus, with its counts in the notes.

        Raises:
            InputError: nothing can be used.
        """
        utterances = tuple(self._utterances.values())
        if not utterances:
            first = next(iter(self.failures.items()), None)
            raise InputError(
                "no utterance can be used",
                where=self.source,
                found=f"{len(self.failures)} problems, the first at {first[0]}: {first[1]}" if first else "nothing",
                expected="recordings, or lines that name recordings",
            )
        return Corpus(name, utterances, (*self.notes, *_counts(utterances, self.failures)), self.failures)


def _counts(utterances: tuple[Utterance, ...], failures: Mapping[str, str]) -> list[str]:
    """What a user should know before trusting the corpus."""
    total = len(utterances)
    empty = sum(one.text is not None and not one.text.strip() for one in utterances)
    silent = sum(one.text is None for one in utterances)
    parts = Counter(one.part for one in utterances if one.part)
    notes = []
    if parts:
        found = ", ".join(f"{name} {parts[name]}" for name in ("train", "valid", "test") if parts[name])
        rest = total - parts.total()
        notes.append(f"parts by the corpus: {found}" + (f", none {rest}" if rest else ""))
    if empty:
        notes.append(f"{empty} of {total} utterances {'has' if empty == 1 else 'have'} an empty transcript")
    if silent:
        notes.append(f"{silent} of {total} utterances {'has' if silent == 1 else 'have'} no transcript")
    if failures:
        place, problem = next(iter(failures.items()))
        notes.append(f"{len(failures)} entries cannot be used, the first at {place}: {problem}")
    return notes
