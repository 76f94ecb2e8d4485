"""Answers about scans as rows and lines: what tables, JSON and the terminal show of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

__all__ = ["UNITS", "Answer", "Unit", "answer_entry", "answer_rows", "counted_classes", "known_answers"]

Unit = Literal["volume", "block", "run", "subject"]
#: From the smallest unit to the largest.
UNITS = ("volume", "block", "run", "subject")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model says about one volume, block, run or subject.

    Args:
        name: of the run; of a subject its own.
        subject: whom the run is of; empty where unknown.
        unit: what the answer is about.
        index: number of the volume (from 0) or block within its run; 0 for runs and subjects.
        start_s: begin within the run in s; None where the repetition time is not known or there is no begin.
        volumes: how many volumes the answer rests on.
        predicted: the class; None for values.
        probabilities: of every class; None for values.
        value: what is predicted of a number; None for classes.
        label: the true class, where known.
        truth: the true value, where known.
    """

    name: str
    subject: str = ""
    unit: Unit = "volume"
    index: int = 0
    start_s: float | None = None
    volumes: int = 1
    predicted: str | None = None
    probabilities: Mapping[str, float] | None = None
    value: float | None = None
    label: str | None = None
    truth: float | None = None

    @property
    def probability(self) -> float | None:
        """Of the predicted class; None for values."""
        if self.probabilities is None or self.predicted is None:
            return None
        return self.probabilities.get(self.predicted)

    def __str__(self) -> str:
        if self.predicted is None:
            told = "–" if self.value is None else f"{self.value:.4g}"
            return told if self.truth is None else f"{told} (true: {self.truth:.4g})"
        sure = "" if self.probability is None else f" {self.probability:.2f}"
        wrong = self.label is not None and self.label != self.predicted
        return f"{self.predicted}{sure}" + (f" (true: {self.label})" if wrong else "")


def answer_rows(answers: Sequence[Answer], classes: Sequence[str]) -> list[dict[str, Any]]:
    """One flat row an answer; columns that no answer fills are left out, ``p(CLASS)`` is there for every class.

    Example:
        >>> answer_rows([Answer("run-01", predicted="face", probabilities={"face": 0.9})], ["face"])
        [{'name': 'run-01', 'unit': 'volume', 'index': 0, 'volumes': 1, 'predicted': 'face', 'p(face)': 0.9}]
    """
    fields = ("name", "subject", "unit", "index", "start_s", "volumes", "predicted", "label", "value", "truth")
    always = ("name", "unit", "index", "volumes")
    kept = [
        field for field in fields if field in always or any(getattr(one, field) not in (None, "") for one in answers)
    ]
    rows = []
    for one in answers:
        row = {field: getattr(one, field) for field in kept}
        given = one.probabilities or {}
        rows.append(row | {f"p({name})": given.get(name) for name in classes})
    return rows


def answer_entry(one: Answer) -> dict[str, Any]:
    """One answer as a JSON object, without what is not there.

    Example:
        >>> answer_entry(Answer("sub-01", "01", "subject", volumes=20, value=31.5))
        {'name': 'sub-01', 'subject': '01', 'unit': 'subject', 'index': 0, 'volumes': 20, 'value': 31.5}
    """
    row = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    row["probabilities"] = None if one.probabilities is None else dict(one.probabilities)
    return {name: value for name, value in row.items() if value not in (None, "")}


def counted_classes(answers: Sequence[Answer], most: int = 4) -> str:
    """How often each class was answered, the most frequent first.

    Example:
        >>> counted_classes([Answer("run-01", predicted=name) for name in ("face", "cat", "face")])
        'face 2, cat 1'
    """
    found = Counter(one.predicted for one in answers if one.predicted is not None).most_common()
    more = f" and {len(found) - most} more classes" if len(found) > most else ""
    return ", ".join(f"{name} {count:,}" for name, count in found[:most]) + more


def known_answers(answers: Sequence[Answer]) -> tuple[int, int]:
    """Answers whose true class is known, and how many of them are right.

    Example:
        >>> known_answers([Answer("r", predicted="a", label="a"), Answer("r", predicted="a")])
        (1, 1)
    """
    known = [one for one in answers if one.label is not None and one.predicted is not None]
    return len(known), sum(one.label == one.predicted for one in known)
