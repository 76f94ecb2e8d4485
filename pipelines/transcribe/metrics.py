"""Word and character error rates over a whole set of recordings, with what they are made of.

Rates are sums of edits over sums of reference words or characters, never means over recordings; 0.05 is 5 %.
Characters are counted with the single spaces between words.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError

__all__ = ["Counts", "Group", "Normaliser", "Scored", "SpeechScores", "alignment_lines", "compare", "score_texts"]

#: Fewest and most reference words of each class of length.
LENGTHS = {"0": (0, 0), "1-2": (1, 2), "3-5": (3, 5), "6-10": (6, 10), "11+": (11, None)}
_REPLICATES = 1000
_AT_ONCE = 2_000_000  # draws of the bootstrap held in memory


class Normaliser(Protocol):
    """What makes texts comparable; its name and version stand in every result."""

    @property
    def name(self) -> str:
        """E.g. "raw"."""
        ...

    @property
    def version(self) -> str | int:
        """Changes whenever any text may come out differently."""
        ...

    def __call__(self, text: str, /) -> str:
        """Return the text as it is compared."""
        ...


@dataclasses.dataclass(frozen=True)
class Counts:
    """What turns reference into hypothesis: units that are right, replaced, lost, invented.

    Example:
        >>> (Counts(3, 1, 1, 0) + Counts(5, 0, 0, 1)).rate
        0.3
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def length(self) -> int:
        """Units of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def edits(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Edits a unit of the reference; None where the reference has none."""
        return self.edits / self.length if self.length else None

    def __add__(self, other: Counts) -> Counts:
        ours, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Counts(*(a + b for a, b in zip(ours, theirs, strict=True)))


@dataclasses.dataclass(frozen=True)
class Scored:
    """One pair of texts.

    Attributes:
        reference, hypothesis: normalised.
        words, characters: the edits.
        steps: (mark, reference word, hypothesis word) in order; mark " " right, "S", "D", "I".
    """

    reference: str
    hypothesis: str
    words: Counts
    characters: Counts
    steps: tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """The rates of some of the recordings; None where their references are empty."""

    utterances: int
    words: int
    wer: float | None
    cer: float | None


@dataclasses.dataclass(frozen=True)
class SpeechScores:
    """Figures of a set of recordings.

    Attributes:
        words, characters: the edits of all pairs together.
        utterances: number of pairs.
        normaliser: name and version.
        wer_interval, cer_interval: 95 % bootstrap interval over recordings; None where the references are empty.
        exact: share of recordings whose text is entirely right.
        by_length: by the number of reference words.
        by_label: by each label that was given, e.g. {"noise": {"10 dB": ...}}.
        confusions: (reference word, hypothesis word, how often), most frequent first; "" stands for nothing.
        pairs: every pair, in the order given.
        notes: what a reader of the figures should know.
    """

    words: Counts
    characters: Counts
    utterances: int
    normaliser: str
    wer_interval: tuple[float, float] | None
    cer_interval: tuple[float, float] | None
    exact: float
    by_length: Mapping[str, Group]
    by_label: Mapping[str, Mapping[str, Group]]
    confusions: tuple[tuple[str, str, int], ...]
    pairs: tuple[Scored, ...]
    notes: tuple[str, ...] = ()

    @property
    def wer(self) -> float | None:
        """Word error rate; None where the references have no words."""
        return self.words.rate

    @property
    def cer(self) -> float | None:
        """Character error rate; None where the references have no characters."""
        return self.characters.rate

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the pairs."""
        left_out = {"pairs", "words", "characters"}
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        plain["by_length"] = {name: dataclasses.asdict(group) for name, group in self.by_length.items()}
        plain["by_label"] = {
            label: {name: dataclasses.asdict(group) for name, group in groups.items()}
            for label, groups in self.by_label.items()
        }
        plain["confusions"] = [list(entry) for entry in self.confusions]
        plain["notes"] = list(self.notes)
        counts = {
            name: {**dataclasses.asdict(part), "reference": part.length, "edits": part.edits}
            for name, part in (("words", self.words), ("characters", self.characters))
        }
        return {"wer": self.wer, "cer": self.cer, **plain, **counts}


def compare(reference: str, hypothesis: str) -> Scored:
    """The edits between two texts that are normalised already; runs of spaces count as one.

    Complexity: O(length of one x length of the other), in compiled code.

    Source: least number of edits (Levenshtein 1966), by jiwer.

    Example:
        >>> pair = compare("good bye now", "good buy")
        >>> pair.words, [mark for mark, _, _ in pair.steps]
        (Counts(hits=1, substitutions=1, deletions=1, insertions=0), [' ', 'S', 'D'])
    """
    import jiwer

    reference, hypothesis = " ".join(reference.split()), " ".join(hypothesis.split())
    words = jiwer.process_words([reference], [hypothesis])
    said, heard = reference.split(), hypothesis.split()
    steps: list[tuple[str, str, str]] = []
    for chunk in words.alignments[0]:
        mark = {"equal": " ", "substitute": "S", "delete": "D", "insert": "I"}[chunk.type]
        left = said[chunk.ref_start_idx : chunk.ref_end_idx] or [""] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
        right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx] or [""] * len(left)
        steps += [(mark, a, b) for a, b in zip(left, right, strict=True)]
    characters = jiwer.process_characters([reference], [hypothesis])
    return Scored(reference, hypothesis, _counts(words), _counts(characters), tuple(steps))


def _counts(found: Any) -> Counts:
    return Counts(found.hits, found.substitutions, found.deletions, found.insertions)


def score_texts(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    normaliser: Normaliser,
    labels: Mapping[str, Sequence[object]] | None = None,
    seed: int = 0,
    replicates: int = _REPLICATES,
    most_confusions: int = 20,
) -> SpeechScores:
    """Error rates of a set of recordings.

    Args:
        references: what was said, one text a recording; an empty one means silence, and all that is heard is invented.
        hypotheses: what was recognised, in the same order.
        normaliser: applied to both sides; its name and version go into the result.
        labels: one value a recording under each name, to give the rates by; e.g. {"noise": ["clean", "10 dB", ...]}.
        seed: of the bootstrap.
        replicates: of the bootstrap.
        most_confusions: how many are listed.

    Raises:
        InputError: no recordings, or numbers of texts or labels that differ.

    Complexity: O(sum of the products of lengths + recordings x replicates).

    Example:
        >>> class Same:
        ...     name, version = "same", 1
        ...     def __call__(self, text):
        ...         return text
        >>> scores = score_texts(["a b c", "d"], ["a x c", "d"], normaliser=Same())
        >>> scores.wer, scores.exact, scores.normaliser, scores.confusions
        (0.25, 0.5, 'same-1', (('b', 'x', 1),))
    """
    _check(references, hypotheses, labels or {})
    pairs = [compare(normaliser(a), normaliser(b)) for a, b in zip(references, hypotheses, strict=True)]
    words, characters = _total(pairs, lambda p: p.words), _total(pairs, lambda p: p.characters)
    sizes = [_class_of(pair.words.length) for pair in pairs]
    confusions = Counter((a, b) for pair in pairs for mark, a, b in pair.steps if mark != " ")
    common = sorted(confusions.items(), key=lambda entry: (-entry[1], entry[0]))[:most_confusions]
    by_length = _groups(pairs, sizes)
    return SpeechScores(
        words=words,
        characters=characters,
        utterances=len(pairs),
        normaliser=f"{normaliser.name}-{normaliser.version}",
        wer_interval=_interval([p.words for p in pairs], seed, replicates),
        cer_interval=_interval([p.characters for p in pairs], seed, replicates),
        exact=sum(p.reference == p.hypothesis for p in pairs) / len(pairs),
        by_length={name: by_length[name] for name in LENGTHS if name in by_length},
        by_label={name: _groups(pairs, [str(v) for v in values]) for name, values in (labels or {}).items()},
        confusions=tuple((a, b, count) for (a, b), count in common),
        pairs=tuple(pairs),
        notes=_notes(references, pairs),
    )


def _check(references: Sequence[str], hypotheses: Sequence[str], labels: Mapping[str, Sequence[object]]) -> None:
    if not references:
        raise InputError("error rates need a recording with its text", found="none")
    if len(references) != len(hypotheses):
        raise InputError(
            "each reference needs one hypothesis", found=f"{len(references)} and {len(hypotheses)}", expected="equal"
        )
    for name, values in labels.items():
        if len(values) != len(references):
            raise InputError("each recording needs one label", where=name, found=len(values), expected=len(references))


def _total(pairs: Sequence[Scored], part: Callable[[Scored], Counts]) -> Counts:
    return sum((part(pair) for pair in pairs), Counts())


def _class_of(length: int) -> str:
    return next(name for name, (low, high) in LENGTHS.items() if low <= length <= (length if high is None else high))


def _groups(pairs: Sequence[Scored], names: Sequence[str]) -> dict[str, Group]:
    groups = {}
    for name in dict.fromkeys(names):
        members = [pair for pair, own in zip(pairs, names, strict=True) if own == name]
        words, characters = _total(members, lambda p: p.words), _total(members, lambda p: p.characters)
        groups[name] = Group(len(members), words.length, words.rate, characters.rate)
    return groups


def _interval(counts: Sequence[Counts], seed: int, replicates: int) -> tuple[float, float] | None:
    """95 % percentile interval of the rate over draws of recordings; draws without any reference are no rates."""
    edits = np.array([count.edits for count in counts], np.float64)
    lengths = np.array([count.length for count in counts], np.float64)
    if not lengths.sum() or replicates < 1:
        return None
    random = np.random.default_rng(seed)
    rates: list[NDArray[np.float64]] = []
    block = max(1, _AT_ONCE // len(counts))
    for first in range(0, replicates, block):
        drawn = random.integers(0, len(counts), (min(block, replicates - first), len(counts)))
        total = lengths[drawn].sum(1)
        rates.append(edits[drawn].sum(1)[total > 0] / total[total > 0])
    low, high = np.percentile(np.concatenate(rates), [2.5, 97.5])
    return float(low), float(high)


def _notes(references: Sequence[str], pairs: Sequence[Scored]) -> tuple[str, ...]:
    notes = []
    silent = [pair for pair in pairs if not pair.reference]
    if silent:
        invented = sum(pair.words.insertions for pair in silent)
        notes.append(f"{len(silent)} references without words; {invented} words invented there count as insertions")
    emptied = sum(bool(text.strip()) and not pair.reference for text, pair in zip(references, pairs, strict=True))
    if emptied:
        notes.append(f"{emptied} references became empty by the normaliser")
    return tuple(notes)


def alignment_lines(pair: Scored, width: int = 100) -> list[str]:
    """Reference over hypothesis, word under word, with S, D and I below; wrapped at a width, in groups of three lines.

    Args:
        pair: from `compare` or `SpeechScores.pairs`.
        width: characters of a line.

    Example:
        >>> print("\\n".join(line.rstrip() for line in alignment_lines(compare("good bye now", "good buy"))))
        REF: good bye now
        HYP: good buy ***
                  S   D
    """
    lines: list[str] = []
    columns: list[tuple[str, str, str]] = []
    used = 0
    for mark, said, heard in pair.steps:
        size = max(len(said), len(heard))
        column = ((said or "*" * size).ljust(size), (heard or "*" * size).ljust(size), mark.ljust(size))
        if columns and used + size + 1 > width - 5:
            lines += _lines(columns)
            columns, used = [], 0
        columns.append(column)
        used += size + 1
    return lines + _lines(columns)


def _lines(columns: Sequence[tuple[str, str, str]]) -> list[str]:
    rows = zip(*columns, strict=True) if columns else ((), (), ())
    return [f"{name} {' '.join(row)}" for name, row in zip(("REF:", "HYP:", "    "), rows, strict=True)]
