"""Whatever a user calls recordings: names, corpora, files, folders, arrays; and the shelf that holds their sound."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.speech_corpus import Corpus, Utterance, read_corpus
from pipelines.data.errors import UserError
from pipelines.data.formats.audio import AudioOptions, read_audio
from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.transcribe.pipeline import Transcriber

__all__ = ["Shelf", "audio_options", "corpus_of", "fill_shelf", "identity"]

_SCALE = 32768.0


def audio_options(t: Transcriber) -> AudioOptions:
    """How the pipeline wants files to be read.

    Raises:
        ConfigError: a channel that is no number.
    """
    from pipelines.errors import ConfigError

    channel = str(t.channel)
    if channel != "mix" and not channel.isdigit():
        raise ConfigError("no such channel", where="channel", found=channel, expected="mix, or 0, 1, 2, ...")
    return AudioOptions(
        channel="mix" if channel == "mix" else int(channel),
        accept_truncated=t.accept_truncated,
        limit_hours=t.limit_hours,
    )


def corpus_of(data: Any) -> Corpus:
    """The corpus behind a name of the catalogue, a manifest, a folder, or what :func:`read_corpus` takes besides.

    Example:
        >>> len(corpus_of("demo").part("test"))
        58
    """
    from pipelines.data.catalog import entry, is_name, sample_path

    if isinstance(data, Corpus):
        return data
    if isinstance(data, str) and not Path(data).exists() and is_name(data, "transcribe"):
        found = entry(data, "transcribe")
        corpus = read_corpus(sample_path(found))
        return dataclasses.replace(corpus, name=found.name)
    return read_corpus(data)


def identity(utterance: Utterance) -> int:
    """A number for an utterance: its file's name, its place there and its text, whatever folder the file lies in.

    Example:
        >>> a, b = (Utterance("x", Path(folder) / "x.wav", "one") for folder in ("here", "there"))
        >>> identity(a) == identity(b)
        True
    """
    told = f"{utterance.source.name}\n{utterance.start:.3f}\n{utterance.text}".encode()
    return int.from_bytes(hashlib.sha256(told).digest()[:8], "little", signed=True)


@dataclasses.dataclass
class Shelf:
    """The sound of utterances at one rate: in memory as 16-bit numbers as far as there is room, else read anew.

    Attributes:
        utterances: in order.
        rate: Hz.
        seconds: length of each.
        options: how files are read.
    """

    utterances: Sequence[Utterance]
    rate: int
    seconds: list[float]
    options: AudioOptions
    kept: dict[int, NDArray[np.int16]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.utterances)

    def samples(self, index: int) -> NDArray[np.float32]:
        """Samples (n,) of one utterance."""
        held = self.kept.get(index)
        if held is not None:
            return held.astype(np.float32) / _SCALE
        return read_utterance(self.utterances[index], self.rate, self.options)[0]

    def only(self, chosen: Sequence[int]) -> Shelf:
        """The shelf with some of its utterances, in the order given."""
        kept = {new: self.kept[old] for new, old in enumerate(chosen) if old in self.kept}
        utterances = [self.utterances[index] for index in chosen]
        return Shelf(utterances, self.rate, [self.seconds[index] for index in chosen], self.options, kept)


def read_utterance(
    utterance: Utterance, rate: int, options: AudioOptions
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Samples (n,) of an utterance at a rate, and what was done on the way.

    Raises:
        InputError: its file cannot be read, or is shorter than the corpus says.
    """
    audio = read_audio(utterance.source, rate=rate, options=options, start=utterance.start, seconds=utterance.seconds)
    return audio.samples, audio.notes


def fill_shelf(
    utterances: Sequence[Utterance], rate: int, options: AudioOptions, *, hours: float, progress: Any = None
) -> tuple[Shelf, dict[str, str], dict[str, int]]:
    """Read every utterance once; returns the shelf, what cannot be read and why, and how often each note was made.

    Args:
        utterances: of a corpus.
        rate: Hz that all are brought to.
        options: how files are read.
        hours: of sound that are kept in memory.
        progress: who hears of it.

    Raises:
        InputError: none can be read.
    """
    shelf = Shelf([], rate, [], options)
    good: list[Utterance] = []
    failures: dict[str, str] = {}
    notes: dict[str, int] = {}
    room = int(hours * 3600 * rate)
    steps = utterances if progress is None else progress.track(utterances, total=len(utterances), label="recordings")
    for utterance in steps:
        try:
            samples, told = read_utterance(utterance, rate, options)
        except UserError as error:
            failures[utterance.where or str(utterance.source)] = str(error)
            continue
        for note in told:
            notes[note] = notes.get(note, 0) + 1
        if room >= len(samples):
            # Clipping of a resampled peak costs less than a shelf of twice the size.
            shelf.kept[len(good)] = np.clip(np.rint(samples * _SCALE), -_SCALE, _SCALE - 1).astype(np.int16)
            room -= len(samples)
        good.append(utterance)
        shelf.seconds.append(len(samples) / rate)
    if not good:
        first = next(iter(failures.values()), "there is none")
        raise InputError("no recording can be read", where="data", found=first)
    shelf.utterances = good
    return shelf, failures, notes
