"""What predicting and encoding answer: classes or values over scans, and vectors; maps are in ``maps``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Provenance, Result, save_figure
from pipelines.errors import ConfigError, InputError
from pipelines.fmri.result_files import UNITS, Answer, answer_entry, answer_rows, counted_classes, known_answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.data.datasets.brain_types import Events
    from pipelines.evaluation.report import Report

__all__ = ["Answer", "Predictions", "Vectors"]

_TABLES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_PRINTED = 20  # runs that the terminal shows
_ROWS = 200  # rows of a report's table
_COURSES = 6  # runs whose course a report draws


@dataclasses.dataclass
class Predictions(Result):
    """Answers for every scan: volume by volume, and of each block, run and subject.

    Args:
        model: name of the model.
        provenance: where the answer comes from.
        answers: of all runs, the units in any order.
        classes: names of the classes; empty for values.
        target: what is predicted ("category", "age").
        unit: of values ("years").
        tr: repetition time of each run in s, by its name; None where it is not known.
        events: what was shown in a run, by its name, where it is known.
        failed: runs that could not be answered -> why.
        told: notes.
        facts: what the scans are, for the report.

    Example:
        >>> now = Provenance.now(data="scan.nii.gz", model="swift", seed=0)
        >>> chances = {"face": 0.75, "house": 0.25}
        >>> volume = Answer("run-01", index=0, start_s=0.0, predicted="face", probabilities=chances)
        >>> whole = Answer("run-01", unit="run", predicted="face", probabilities=chances)
        >>> print(Predictions("swift", now, [volume, whole], classes=("face", "house"), target="category"))
        swift, category: 1 run
        run-01: 1 volume (face 1); run: face 0.75
    """

    model: str
    provenance: Provenance
    answers: list[Answer]
    classes: tuple[str, ...] = ()
    target: str = "class"
    unit: str = ""
    tr: dict[str, float | None] = dataclasses.field(default_factory=dict)
    events: dict[str, Events] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    default_name: ClassVar[str] = "predictions.json"

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Runs that could not be answered, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was done to the scans, and what failed."""
        return tuple(dict.fromkeys([*self.told, *(f"left out: {why}" for why in self.failed.values())]))

    def of(self, unit: str, name: str | None = None) -> list[Answer]:
        """The answers of one unit, of one run where it is named, in order."""
        return [one for one in self.answers if one.unit == unit and name in (None, one.name)]

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs that were answered, in order."""
        return tuple(dict.fromkeys(one.name for one in self.answers if one.unit != "subject"))

    def save(self, path: str | Path) -> Path:
        """Write by the ending: .json, .jsonl (one line an answer), or .csv, .tsv, .parquet (one row an answer).

        Raises:
            ConfigError: another ending.
            RunError: the disk is full or not writable.
        """
        from pipelines.match.result_files import save_rows

        lines = [answer_entry(one) for one in self.answers]
        return save_rows(path, lambda: answer_rows(self.answers, self.classes), lines, self.to_dict, _TABLES)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the answers by unit, the largest unit first."""
        units = {f"{unit}s": [answer_entry(one) for one in self.of(unit)] for unit in reversed(UNITS)}
        return {
            "model": self.model,
            "target": self.target,
            **({"unit": self.unit} if self.unit else {}),
            "classes": list(self.classes),
            **{name: entries for name, entries in units.items() if entries},
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """Subjects or runs where there are several, values over the true ones; else the course over the run."""
        figure = self._figure()
        if path is not None:
            save_figure(figure, path)
        return figure

    def _figure(self) -> Figure:
        from pipelines.evaluation.plots import empty_figure

        people, volumes = self._people(), self.of("volume")
        course = self.course(volumes[0].name) if volumes and len(people) < 2 else None
        if course is not None:
            return course
        return self._people_figure(people) if people else empty_figure("no scan could be answered")

    def _people(self) -> list[Answer]:
        """Subjects, else runs, else blocks: whichever the answer is about."""
        return self.of("subject") or self.of("run") or self.of("block")

    def _people_figure(self, people: list[Answer]) -> Figure:
        from pipelines.fmri.plots import people_figure, regression_figure

        names = [one.name for one in people]
        if self.classes:
            sure = [one.probability if one.probability is not None else np.nan for one in people]
            labels = [one.predicted or "–" for one in people]
            return people_figure(names, sure, labels=labels, truth=[one.label for one in people])
        known = [(one.truth, one.value) for one in people if one.truth is not None and one.value is not None]
        if len(known) > 1 and len(known) == len(people):
            true, said = zip(*known, strict=True)
            return regression_figure(true, said, unit=self.unit, title=f"{self.target}: {len(known):,} predictions")
        values = [one.value if one.value is not None else np.nan for one in people]
        return people_figure(names, values, unit=self.unit or self.target, title=self.target)

    def course(self, name: str) -> Figure | None:
        """The answers of one run volume by volume over time; None where it has none."""
        from pipelines.fmri.plots import course_figure

        volumes = sorted(self.of("volume", name), key=lambda one: one.index)
        if not volumes:
            return None
        tr = self.tr.get(name)
        timed = tr is not None and all(one.start_s is not None for one in volumes)
        start = [one.start_s if timed else one.index for one in volumes]
        length = tr if timed and tr is not None else 1.0
        if self.classes:
            values = [[(one.probabilities or {}).get(label, np.nan) for label in self.classes] for one in volumes]
            names, unit = list(self.classes), "probability"
        else:
            values = [[one.value if one.value is not None else np.nan] for one in volumes]
            names, unit = [self.target], self.unit or self.target
        events = self.events.get(name) if timed else None
        return course_figure(
            np.array(start, np.float64), length, values, names, events=events, seconds=timed, title=name, unit=unit
        )

    def fill_report(self, report: Report) -> None:
        """Add the answers of subjects and runs, the course over the first runs and what the scans are."""
        report.add_text(str(self), section="Answers")
        people = self._people()
        if people:
            known = any(one.label is not None or one.truth is not None for one in people)
            rows = [
                [one.name, one.subject or "–", one.volumes, one.predicted if self.classes else one.value]
                + ([one.probability] if self.classes else [])
                + ([one.label if self.classes else one.truth] if known else [])
                for one in people[:_ROWS]
            ]
            said = ["answer", "probability"] if self.classes else [f"{self.target} ({self.unit or 'value'})"]
            head = [people[0].unit, "subject", "volumes", *said, *(["true"] if known else [])]
            more = f"The first {len(rows)} of {len(people):,}." if len(people) > len(rows) else ""
            report.add_table(head, rows, section="Answers", caption=more)
        if len(people) > 1:
            alt = f"Answers about {len(people):,} {people[0].unit}s: {counted_classes(people) or self.target}"
            report.add_figure(self._people_figure(people), alt, section="Answers")
        for name in self.runs[:_COURSES]:
            figure = self.course(name)
            if figure is not None:
                told = counted_classes(self.of("volume", name)) or self.target
                alt = f"{name}: answers over {len(self.of('volume', name)):,} volumes ({told})"
                framed = "Framed: what was shown." if name in self.events and len(self.classes) > 4 else ""
                report.add_figure(figure, alt, section="Over time", caption=framed)
        left = len(self.runs) - _COURSES
        if left > 0 and self.of("volume"):
            report.add_text(f"{left:,} more runs stand in the saved answer only.", section="Over time")
        if self.facts:
            report.add_data_summary(self.facts, section="Scans")

    def __str__(self) -> str:
        runs = self.runs
        counts = [_counted(len(runs), "run"), _counted(len(self.of("subject")), "subject")]
        lines = [f"{self.model}, {self.target}: {', '.join(one for one in counts if not one.startswith('0 '))}"]
        lines += [self._line(name) for name in runs[:_PRINTED]]
        if len(runs) > _PRINTED:
            lines.append(f"and {len(runs) - _PRINTED:,} more runs")
        subjects = self.of("subject")
        lines += [f"{one.name}: {one} from {_counted(one.volumes, 'volume')}" for one in subjects[:_PRINTED]]
        if len(subjects) > _PRINTED:
            lines.append(f"and {len(subjects) - _PRINTED:,} more subjects")
        for unit in UNITS:
            known, right = known_answers(self.of(unit))
            if known:
                lines.append(f"right: {right:,} of {_counted(known, unit)} ({100 * right / known:.1f} %)")
        return "\n".join([*lines, *([f"{_counted(len(self.failed), 'run')} failed"] if self.failed else [])])

    def _line(self, name: str) -> str:
        """A run in one line: volumes and blocks counted, the whole run's answer."""
        said = []
        for unit in ("volume", "block"):
            answers = self.of(unit, name)
            if answers:
                told = counted_classes(answers)
                if not told:
                    values = [one.value for one in answers if one.value is not None]
                    told = f"mean {np.mean(values):.4g}" if values else "–"
                said.append(f"{_counted(len(answers), unit)} ({told})")
        said += [f"run: {one}" for one in self.of("run", name)]
        return f"{name}: {'; '.join(said)}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


@dataclasses.dataclass
class Vectors(Result):
    """One vector a scan (or subject), from the encoder of the model.

    Args:
        model: name of the model.
        provenance: where the vectors come from.
        names: N names.
        vectors: (N, D) float32.
        subjects: whom each is of; empty where unknown.
        windows: how many windows each is the mean of.
        failed: scans that could not be encoded -> why.
        told: notes.

    Raises:
        InputError: counts that differ.

    Example:
        >>> now = Provenance.now(data="scan.nii.gz", model="swift", seed=0)
        >>> print(Vectors("swift", now, ("run-01",), np.zeros((1, 288), np.float32), windows=(6,)))
        1 vector of 288 numbers, each the mean of 6 windows
    """

    model: str
    provenance: Provenance
    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    subjects: tuple[str, ...] = ()
    windows: tuple[int, ...] = ()
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()

    default_name: ClassVar[str] = "vectors.npz"

    def __post_init__(self) -> None:
        sizes = {len(self.names), *(len(one) for one in (self.subjects, self.windows) if one)}
        if self.vectors.ndim != 2 or sizes != {len(self.vectors)}:
            found = f"{len(self.names)} names, vectors {self.vectors.shape}"
            raise InputError("a name for each vector", found=found, expected="(N, D) and N names")

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Scans that could not be encoded, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was done to the scans, and what failed."""
        return tuple(dict.fromkeys([*self.told, *(f"left out: {why}" for why in self.failed.values())]))

    def save(self, path: str | Path) -> Path:
        """Write by the ending: .npz, .npy (names beside it in FILE.names.json), .csv, .jsonl, .parquet, or .json.

        A .json file gets the names and counts alone, without the vectors.

        Raises:
            ConfigError: another ending.
            InputError: vectors that are not finite.
            RunError: the disk is full or not writable.
        """
        from pipelines.files import atomic_write
        from pipelines.match.vectors_io import VECTOR_ENDINGS, write_vectors
        from pipelines.values import to_json

        target = Path(path)
        kind = target.suffix.lower()
        if kind == ".json":
            return atomic_write(target, to_json(self.to_dict(), indent=1) + "\n")
        if kind not in VECTOR_ENDINGS:
            expected = ", ".join((*VECTOR_ENDINGS, ".json"))
            raise ConfigError("cannot write this kind of file", where=target, found=target.suffix, expected=expected)
        return write_vectors(target, self.names, self.vectors, self._facts())

    def _facts(self) -> list[dict[str, Any]]:
        subjects = self.subjects or ("",) * len(self.names)
        windows: tuple[int | None, ...] = self.windows or (None,) * len(self.names)
        pairs = zip(subjects, windows, strict=True)
        return [{"subject": s, "windows": w, "model": self.model} for s, w in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: names, sizes and counts; the vectors themselves are in the saved file."""
        return {
            "model": self.model,
            "rows": len(self.names),
            "dim": int(self.vectors.shape[1]),
            "names": list(self.names),
            "subjects": list(self.subjects),
            "windows": list(self.windows),
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """How alike the scans are: the cosine of every two vectors."""
        from pipelines.evaluation.plots import empty_figure
        from pipelines.fmri.plots import similarity_figure

        none = "no scan could be encoded"
        figure = similarity_figure(self.names, self.vectors) if self.names else empty_figure(none)
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add what the vectors are and how alike the scans are."""
        report.add_text(f"{self}.", section="Vectors")
        alt = f"Cosine similarity of {len(self.names):,} vectors"
        report.add_figure(self.plot(), alt, section="Vectors")
        head = ["scan", "subject", "windows", "length of the vector"]
        lengths = np.linalg.norm(self.vectors.astype(np.float64), axis=1)
        rows = [
            [name, facts["subject"] or "–", facts["windows"], float(size)]
            for name, facts, size in zip(self.names[:_ROWS], self._facts(), lengths, strict=False)
        ]
        report.add_table(head, rows, section="Vectors", caption=f"The first {len(rows)} of {len(self.names):,}.")

    def __str__(self) -> str:
        told = ""
        if self.windows:
            low, high = min(self.windows), max(self.windows)
            told = f", each the mean of {low if low == high else f'{low} to {high}'} window{'s' if high > 1 else ''}"
        lines = [f"{_counted(len(self.names), 'vector')} of {self.vectors.shape[1]:,} numbers{told}"]
        return "\n".join([*lines, *([f"{_counted(len(self.failed), 'scan')} failed"] if self.failed else [])])
