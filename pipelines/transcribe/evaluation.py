"""The protocol of speech recognition: error rates over a whole set, every utterance counted, the normaliser named."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from pipelines.base import Evaluation, Table
from pipelines.data.datasets.speech_augment import add_noise
from pipelines.data.datasets.speech_corpus import Corpus, Utterance
from pipelines.data.datasets.speech_text import normaliser
from pipelines.errors import InputError
from pipelines.transcribe.hearing import Listener, has_speech
from pipelines.transcribe.metrics import SpeechScores, alignment_lines, score_texts
from pipelines.transcribe.reading import Shelf, audio_options, corpus_of, fill_shelf, identity

if TYPE_CHECKING:
    from pipelines.evaluation.report import Report
    from pipelines.transcribe.pipeline import Transcriber

__all__ = ["SpeechEvaluation", "evaluate"]

_SHOWN = 30  # texts that a report compares


@dataclasses.dataclass
class SpeechEvaluation(Evaluation):
    """Error rates, and what they cannot be compared without: the normaliser.

    Args:
        normaliser: name and version.
        alignments: the texts that differ most, reference above hypothesis.
    """

    normaliser: str = ""
    alignments: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The figures with the name of the normaliser beside them."""
        return {"normaliser": self.normaliser, **super().to_dict()}

    def fill_report(self, report: Report) -> None:
        """Add the texts that differ most to the figures."""
        super().fill_report(report)
        if self.alignments:
            report.add_repeat(self.alignments, section="Texts that differ most")


def evaluate(t: Transcriber, data: Any) -> SpeechEvaluation:
    """Measure a fitted model on a corpus.

    The corpus's test part is measured where it has one, else all of it; what the model was trained on is left out and
    counted. Where nothing else is left, the part that chose the epoch is measured and named so.

    Raises:
        InputError: nothing to measure on, or a corpus that cannot be read.
    """
    corpus = corpus_of(data)
    chosen, notes = _held_out(t, corpus)
    progress, options = t.run.progress, audio_options(t)
    shelf, failures, told = fill_shelf(chosen, t.state.features.rate, options, hours=t.shelf_hours, progress=progress)
    notes += [f"left out: {problem}" for problem in failures.values()]
    notes += [f"{count} recordings: {note}" for note, count in told.items()]
    listener = Listener(t.state, t.decode)
    plain = Listener(t.state, dataclasses.replace(t.decode, method="greedy", lm=None))
    levels: list[float | None] = [None, *t.noise]
    jobs = [(index, level) for level in levels for index in range(len(shelf))]
    references: list[str] = []
    texts: list[str] = []
    simple: list[str] = []
    labels: list[str] = []
    steps = jobs if progress is None else progress.track(jobs, total=len(jobs), label="recognised")
    for index, level in steps:
        samples = shelf.samples(index)
        if level is not None:
            samples = add_noise(samples, level, torch.Generator().manual_seed(t.seed + index))
        heard = listener.frames(samples) if has_speech(samples, shelf.rate, t.segment) else None
        references.append(shelf.utterances[index].text or "")
        labels.append("clean" if level is None else f"{level:g} dB")
        texts.append("" if heard is None else listener.read(*heard))
        simple.append("" if heard is None else plain.read(*heard))
    answers, listeners = (texts, simple), (listener, plain)
    return _summary(t, corpus, shelf, references, answers, labels, listeners, notes)


def _held_out(t: Transcriber, corpus: Corpus) -> tuple[list[Utterance], list[str]]:
    """What may be measured on, and what is said of it."""
    spoken = corpus.with_text()
    test = spoken.part("test")
    asked = test if len(test) else spoken
    held = set(t.state.held.tolist())
    known = set(t.state.trained.tolist()) | held
    fresh = [one for one in asked.utterances if identity(one) not in known]
    judged = [one for one in asked.utterances if identity(one) in held]
    notes = list(corpus.notes)
    if len(corpus) > len(spoken):
        notes.append(f"{len(corpus) - len(spoken)} recordings without a text are not measured")
    if fresh:
        if len(asked) > len(fresh):
            notes.append(f"{len(asked) - len(fresh)} recordings were trained on or chose the epoch and are left out")
        return fresh, notes
    if not judged:
        raise InputError(
            "nothing to measure on",
            where=corpus.name,
            found=f"{len(corpus)} recordings, {len(asked)} of them with texts, all of them trained on",
            expected="recordings with texts that the model has not seen",
        )
    if len(asked) > len(judged):
        notes.append(f"{len(asked) - len(judged)} recordings were trained on and are left out")
    return judged, [*notes, f"measured on the {len(judged)} recordings that chose the epoch: figures may flatter"]


def _summary(
    t: Transcriber,
    corpus: Corpus,
    shelf: Shelf,
    references: list[str],
    answers: tuple[list[str], list[str]],
    labels: list[str],
    listeners: tuple[Listener, Listener],
    notes: list[str],
) -> SpeechEvaluation:
    count, seconds = len(shelf), sum(shelf.seconds)
    texts, simple = answers
    chosen = normaliser(t.normaliser)
    known = [_familiar(text, t.state.vocabulary) for text in references[:count]]
    words = ["all in training" if one else "some unseen" for one in known]
    whole = score_texts(references, texts, normaliser=chosen, labels={"noise": labels}, seed=t.seed)
    clean = score_texts(
        references[:count],
        texts[:count],
        normaliser=chosen,
        labels={"words": words},
        seed=t.seed,
    )
    baseline = score_texts(references[:count], simple[:count], normaliser=chosen, seed=t.seed)
    raw = score_texts(references[:count], texts[:count], normaliser=normaliser("raw"), seed=t.seed)
    details = clean.to_dict() | {
        "raw": {"wer": raw.wer, "cer": raw.cer, "normaliser": raw.normaliser},
        "by_noise": whole.to_dict()["by_label"]["noise"],
        "seconds": seconds,
    }
    decoded, plain = (listener.says for listener in listeners)
    baselines = {} if plain == decoded else {plain: _rates(baseline)}
    baselines["no text"] = _rates(score_texts(references[:count], [""] * count, normaliser=chosen, seed=t.seed))
    intervals = {"wer": clean.wer_interval, "cer": clean.cer_interval}
    return SpeechEvaluation(
        model=t.model,
        protocol=f"{decoded}; words and characters of the whole set, normaliser {clean.normaliser}",
        data=corpus.name,
        metrics=_rates(clean),
        counts={"utterances": count, "words": clean.words.length},
        provenance=t.provenance(corpus.name),
        intervals={name: pair for name, pair in intervals.items() if pair is not None},
        baselines=baselines,
        details=details,
        notes=(*notes, *clean.notes),
        facts={"source": corpus.name, "utterances": count, "minutes": round(seconds / 60, 2)},
        figures=_figures(clean, whole),
        tables=[_table(shelf.utterances, clean)],
        normaliser=clean.normaliser,
        alignments=_alignments(clean),
    )


def _familiar(text: str, vocabulary: frozenset[str]) -> bool:
    from pipelines.data.datasets.speech_text import prepare_text

    return all(word in vocabulary for word in prepare_text(text, "")[0].split())


def _rates(scores: SpeechScores) -> dict[str, float]:
    rates = {"wer": scores.wer, "cer": scores.cer}
    return {name: value for name, value in rates.items() if value is not None} | {"exact": scores.exact}


def _table(utterances: Sequence[Utterance], scores: SpeechScores) -> Table:
    rows: list[list[object]] = [
        [one.id, pair.reference, pair.hypothesis, pair.words.edits]
        for one, pair in zip(utterances, scores.pairs, strict=True)
    ]
    return Table("Texts", ["utterance", "said", "recognised", "wrong words"], rows)


def _alignments(scores: SpeechScores) -> str:
    wrong = sorted((p for p in scores.pairs if p.words.edits), key=lambda pair: -pair.words.edits)[:_SHOWN]
    return "\n\n".join("\n".join(alignment_lines(pair)) for pair in wrong)


def _figures(clean: SpeechScores, whole: SpeechScores) -> list[Any]:
    def by_length() -> Any:
        from pipelines.transcribe.plots import wer_figure

        found = {name: group for name, group in clean.by_length.items() if group.wer is not None}
        return wer_figure(
            {name: float(group.wer or 0) for name, group in found.items()},
            counts={name: group.utterances for name, group in found.items()},
        )

    def by_noise() -> Any:
        from pipelines.transcribe.plots import wer_figure

        found = whole.by_label["noise"]
        return wer_figure(
            {name: float(group.wer or 0) for name, group in found.items()},
            counts={name: group.utterances for name, group in found.items()},
            what="white noise",
        )

    drawn: list[Any] = [("Error rate by length", "Word error rate by the number of words of an utterance", by_length)]
    if len(whole.by_label["noise"]) > 1:
        drawn.append(("Error rate by noise", "Word error rate by the level of white noise", by_noise))
    return drawn if any(group.wer is not None for group in clean.by_length.values()) else drawn[1:]
