"""What ``predict`` returns: transcripts that can be read, saved as text or subtitles, drawn and reported."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from pipelines.base import Provenance, Result, save_figure
from pipelines.errors import ConfigError, UserError
from pipelines.transcribe.subtitles import FORMATS, entry, readable_json, write
from pipelines.transcribe.words import Transcript, Word

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pipelines.evaluation.report import Report
    from pipelines.files import Content
    from pipelines.transcribe.plots import Stretch

__all__ = ["Sound", "Transcripts"]

#: (number of the item, first second, seconds) -> the samples of that stretch (n,) float32, and their rate.
Sound = Callable[[int, float, float], "tuple[NDArray[np.float32], int]"]

SHOWN_SECONDS = 20.0
_PICTURES = 3  # recordings that one picture shows
_REPORTED = 12  # recordings that a report shows one by one
_ROWS = 200  # words that a report lists of a recording


@dataclasses.dataclass
class Transcripts(Result):
    """The text of one or several recordings, with words at their times.

    Args:
        items: one a recording.
        model: name of the model.
        provenance: where the result comes from.
        failed: recordings that could not be read -> why.
        sound: gives the samples of a stretch of an item for pictures, ``sound(index, start, seconds)``; without it the
            pictures show the words alone.
        formats: endings of the files of a folder: txt, srt, vtt, tsv, json.
        lenient: a folder was read, so that the answer is a folder however many recordings it has.

    Example:
        >>> now = Provenance.now(data="a.wav", model="samba", seed=0)
        >>> print(Transcripts([Transcript("a.wav", 1.0)], "samba", now))
        a.wav: no speech
    """

    items: list[Transcript]
    model: str
    provenance: Provenance
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    sound: Sound | None = None
    formats: tuple[str, ...] = ("txt",)
    lenient: bool = False

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Recordings that could not be read, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was done to the sound on the way, and what failed."""
        several = len(self.items) > 1
        told = [f"{item.source}: {note}" if several else note for item in self.items for note in item.notes]
        told += [f"left out: {problem}" for problem in self.failed.values()]
        return tuple(dict.fromkeys(told))

    @property
    def default_name(self) -> str:  # type: ignore[override]
        """NAME.txt (or the first of the formats), or a folder for several recordings."""
        return f"{PurePath(self.items[0].source).stem}.{self.formats[0]}" if self._single else "transcripts"

    @property
    def _single(self) -> bool:
        return len(self.items) == 1 and not self.lenient

    @property
    def text(self) -> str:
        """The text of all recordings, one a line."""
        return "\n".join(item.text for item in self.items)

    def save(self, path: str | Path) -> Path:
        """Write one file, or a folder for several recordings; all files or none.

        One recording goes into the file named, as its ending says: .txt, .srt, .vtt or .tsv. A .json file holds
        :meth:`to_dict`, for several recordings too. Otherwise the path is a folder, in which recordings keep their
        places: a/b.wav becomes a/b.txt, and also a/b.srt where ``formats`` has it. Where two recordings differ in
        their ending alone, it stays in the name: b.wav.txt, b.mp3.txt.

        Raises:
            ConfigError: another ending or format, or one file for several recordings.
            RunError: the disk is full or not writable.
        """
        from pipelines.files import atomic_write, atomic_write_all

        target = Path(path)
        kind = target.suffix.lower().lstrip(".")
        if kind == "json":
            return atomic_write(target, readable_json(self.to_dict()))
        if self._single:
            return atomic_write(target, write(self.items[0], kind, where=target))
        if kind in FORMATS:
            raise ConfigError(
                "several recordings need a folder",
                where=target,
                found=f"{len(self.items)} recordings",
                cure="name a folder, or a .json file for all of them",
            )
        if not self.formats:
            raise ConfigError("nothing to write", where="formats", expected=", ".join(FORMATS))
        places = _places([item.source for item in self.items])
        contents: dict[Any, Content] = {
            target / f"{place}.{name.lower().lstrip('.')}": write(item, name, where="formats")
            for place, item in zip(places, self.items, strict=True)
            for name in self.formats
        }
        atomic_write_all(contents)
        return target

    def to_dict(self) -> dict[str, Any]:
        """Plain values: of each recording its text, segments and words with times in seconds."""
        return {
            "model": self.model,
            "transcripts": [entry(item) for item in self.items],
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """Spectrograms with the words at their times, of up to three recordings: the first with words are taken.

        Of each the first 20 seconds are drawn, of longer recordings the 20 seconds with the most words; the title says
        which. Without sound the words alone are drawn.
        """
        from pipelines.transcribe.plots import stretches_figure, words_figure

        order = sorted(range(len(self.items)), key=lambda i: not self.items[i].words)[:_PICTURES]
        stretches = [stretch for stretch in map(self._stretch, sorted(order)) if stretch is not None]
        if stretches:
            figure = stretches_figure(stretches)
        else:
            figure = words_figure([word for i in sorted(order) for word in self.items[i].words][:_ROWS])
        if path is not None:
            save_figure(figure, path)
        return figure

    def _stretch(self, index: int) -> Stretch | None:
        """What is drawn of an item; None where there is no sound, or the file is gone by now."""
        from pipelines.transcribe.plots import Stretch

        if self.sound is None:
            return None
        item = self.items[index]
        start, end = busiest(item.words, item.seconds, SHOWN_SECONDS)
        try:
            samples, rate = self.sound(index, start, end - start)
        except UserError:
            return None
        words = [word for word in item.words if word.end > start and word.start < end]
        whole = start == 0.0 and end >= item.seconds
        title = item.source if whole else f"{item.source}, {start:.1f} to {end:.1f} s of {item.seconds:,.1f}"
        return Stretch(samples, rate, words, start, title)

    def fill_report(self, report: Report) -> None:
        """Add of each recording its text, a picture, the text by confidence and a table of its words."""
        shown = self.items[:_REPORTED]
        if len(self.items) > 1:
            rows = [[item.source, *self._summary(item)] for item in self.items]
            report.add_table(
                ["recording", "seconds", "words", "mean confidence", "text"],
                rows,
                section="Recordings",
                caption=f"The first {len(shown)} are shown one by one below." if len(shown) < len(rows) else "",
            )
        for index, item in enumerate(shown):
            self._report_one(report, index, item)
        report.add_notes([f"left out: {problem}" for problem in self.failed.values()], section="Failures", warning=True)

    @staticmethod
    def _summary(item: Transcript) -> list[object]:
        words = item.words
        mean = sum(word.confidence for word in words) / len(words) if words else None
        text = item.text if len(item.text) <= 80 else f"{item.text[:79]}…"
        return [round(item.seconds, 2), len(words), mean, text or "no speech"]

    def _report_one(self, report: Report, index: int, item: Transcript) -> None:
        from pipelines.transcribe.plots import spectrogram_figure, words_figure

        report.add_text(item.text or "No speech was found.", section=item.source)
        stretch = self._stretch(index)
        if stretch is not None:
            end = stretch.start + len(stretch.samples) / stretch.rate
            caption = f"Energy by frequency and time, {stretch.start:.1f} to {end:.1f} s of {item.seconds:,.1f} s"
            caption += "" if item.seconds <= SHOWN_SECONDS else ": the stretch with the most words"
            report.add_figure(
                spectrogram_figure(stretch.samples, stretch.rate, stretch.words, start=stretch.start),
                f"Spectrogram with the words at their times: {' '.join(word.text for word in stretch.words)}",
                section=item.source,
                caption=f"{caption}. A bar lies over each word.",
            )
        words = item.words
        if not words:
            return
        told = f"The first {_ROWS} of {len(words):,} words" if len(words) > _ROWS else "All words"
        report.add_figure(
            words_figure(words[:_ROWS]),
            f"The text, unsure words marked: {' '.join(word.text for word in words[:_ROWS])}",
            section=item.source,
            caption=f"{told}; the less sure the model was, the stronger the mark.",
        )
        report.add_table(
            ["word", "from (s)", "to (s)", "confidence"],
            [[w.text, f"{w.start:.2f}", f"{w.end:.2f}", f"{w.confidence:.2f}"] for w in words[:_ROWS]],
            section=item.source,
            caption=f"{told}.",
        )

    def __str__(self) -> str:
        if self._single:
            told = [self.items[0].text or f"{self.items[0].source}: no speech"]
        else:
            told = [f"{item.source}: {item.text or 'no speech'}" for item in self.items]
        if self.failed:
            told.append(f"{len(self.failed)} could not be read")
        return "\n".join(told)


def busiest(words: Sequence[Word], seconds: float, shown: float) -> tuple[float, float]:
    """The stretch of a recording with the most words, beginning at a word; the beginning where it has as many.

    Complexity: O(n) for n words in the order of time.

    Example:
        >>> busiest([Word("a", 1, 2, 1.0), Word("b", 40, 41, 1.0), Word("c", 42, 43, 1.0)], 60.0, 20.0)
        (39.8, 59.8)
    """
    if seconds <= shown:
        return 0.0, seconds
    best, most, after = 0.0, sum(word.end <= shown for word in words), 0
    for place, word in enumerate(words):
        start = min(max(word.start - 0.2, 0.0), seconds - shown)
        while after < len(words) and words[after].end <= start + shown:
            after += 1
        first = next((i for i in range(place, -1, -1) if words[i].start < start), -1) + 1
        if after - first > most:
            best, most = start, after - first
    return best, best + shown


def _places(sources: Sequence[str]) -> list[str]:
    """Where recordings stand in a folder of answers, without ending: inside of it, and no two in one place."""
    inside = [PurePath(source) for source in sources]
    kept = [PurePath(*[part for part in path.parts if part not in ("..", path.anchor)]) for path in inside]
    kept = [PurePath(path.name) if source.is_absolute() else path for path, source in zip(kept, inside, strict=True)]
    bare = Counter(str(path.with_suffix("")).casefold() for path in kept)
    names = [str(path.with_suffix("") if bare[str(path.with_suffix("")).casefold()] == 1 else path) for path in kept]
    taken: set[str] = set()
    places = []
    for name in names:
        place, number = name, 1
        while place.casefold() in taken:
            number += 1
            place = str(PurePath(name).with_name(f"{number}-{PurePath(name).name}"))
        taken.add(place.casefold())
        places.append(place)
    return places
