"""Answers for scans: volume by volume, and of blocks, runs and subjects; and vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_labels import volume_labels
from pipelines.data.datasets.brain_prepare import Prepared
from pipelines.data.datasets.brain_types import Recording, Study
from pipelines.data.datasets.brain_windows import starts
from pipelines.errors import ConfigError, InputError
from pipelines.fmri import engine
from pipelines.fmri.material import Shelf, common_notes, identity, open_source, prepare_run, window_at
from pipelines.fmri.metrics import log_shares
from pipelines.fmri.result import Answer, Predictions, Vectors
from pipelines.fmri.units import aggregate

if TYPE_CHECKING:
    from pipelines.fmri.pipeline import BrainModel

__all__ = ["Opened", "encode", "opened", "predict", "unseen"]

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Opened:
    """One run that could be read: where its windows begin and, of volumes, which volume each is about."""

    recording: Recording
    run: Prepared
    start: list[int]
    volume: list[int]
    label: list[str | None]

    def seconds(self, volume: int) -> float | None:
        """When a volume begins in its run."""
        return None if self.run.tr is None else volume * self.run.tr


def opened(m: BrainModel, recording: Recording) -> Opened:
    """Open one run for a fitted model; its labels are those that the data have.

    Raises:
        InputError: it cannot be read, or does not fit the model.
    """
    fitted = m.state
    run = prepare_run(m, recording, volumes=fitted.level == "volume")
    if run.volumes < fitted.frames:
        run.close()
        raise InputError(
            "a run shorter than a window", where=run.name, found=f"{run.volumes} volumes", expected=f"{fitted.frames}"
        )
    if fitted.level == "subject":
        return Opened(recording, run, starts(run.volumes, fitted.frames, m.window.stride), [], [])
    volumes = list(range(run.volumes))
    labels: list[str | None] = [None] * run.volumes
    if recording.events is not None and len(recording.events) and run.tr is not None:
        labels = volume_labels(recording.events, run.volumes, run.tr, delay=m.target.delay)
    labels = [one if one in fitted.classes else None for one in labels]
    return Opened(recording, run, [window_at(one, fitted.frames, run.volumes) for one in volumes], volumes, labels)


def each_run(
    m: BrainModel, study: Study, label: str, work: Callable[[Opened], None]
) -> tuple[dict[str, str], list[str]]:
    """Do something with each run of a study; what cannot be read is named and does not stop the rest.

    Returns:
        Runs that failed -> why, and the notes of those that did not.

    Raises:
        InputError: no run could be read.
    """
    track = m.run.progress
    failed: dict[str, str] = {}
    notes: list[Prepared] = []
    last: InputError | None = None
    for recording in study.recordings if track is None else track.track(study.recordings, label=label):
        try:
            one = opened(m, recording)
        except InputError as error:
            last, failed[recording.name] = error, str(error)
            continue
        try:
            work(one)
            notes.append(one.run)
        except InputError as error:
            last, failed[recording.name] = error, str(error)
        finally:
            one.run.close()
    if last is not None and not notes:
        raise last
    return failed, [*study.notes, *common_notes(notes)]


def predict(m: BrainModel, inputs: Any) -> Predictions:
    """Answer for every scan of a study."""
    fitted = m.state
    if fitted.kind == "encoding":
        raise ConfigError(
            "these weights tell nothing: they were learned without labels", where="checkpoint",
            cure="encode scans with them, or fit a model",
        )  # fmt: skip
    study = open_source(m, inputs)
    answers: list[Answer] = []
    every: list[tuple[Recording, Floats, int]] = []
    tr: dict[str, float | None] = {}
    events: dict[str, Any] = {}

    def work(one: Opened) -> None:
        scores = engine.scores_of(m, fitted, Shelf([one.run], m.memory * 1_000_000), [0] * len(one.start), one.start)
        name = one.recording.name
        tr[name] = one.run.tr
        if one.recording.events is not None:
            events[name] = one.recording.events
        if fitted.level == "volume":
            answers.extend(_volumes(fitted, one, scores))
            answers.extend(_blocks(fitted, one, scores))
        else:
            answers.append(_whole(m, study, one.recording, "run", scores, one.run.volumes))
        every.append((one.recording, scores, one.run.volumes))

    failed, notes = each_run(m, study, "runs read", work)
    if fitted.level == "subject":
        for subject in dict.fromkeys(one.subject for one, _, _ in every if one.subject):
            found = [(one, scores, count) for one, scores, count in every if one.subject == subject]
            scores = np.concatenate([one for _, one, _ in found])
            answers.append(_whole(m, study, found[0][0], "subject", scores, sum(count for _, _, count in found)))
    return Predictions(
        m.model,
        m.provenance(study.name),
        answers,
        classes=fitted.classes,
        target=fitted.target,
        tr=tr,
        events=events,
        failed=failed,
        told=tuple(notes),
        facts={"runs": len(every), "volumes": sum(count for _, _, count in every)},
    )


def _shares(scores: Floats) -> Floats:
    return np.exp(log_shares(scores))


def _volumes(fitted: engine.Fitted, one: Opened, scores: Floats) -> list[Answer]:
    found = []
    for place, share in enumerate(_shares(scores)):
        found.append(
            Answer(
                one.recording.name, one.recording.subject, "volume", one.volume[place],
                one.seconds(one.volume[place]), fitted.frames, fitted.classes[int(share.argmax())],
                dict(zip(fitted.classes, share.tolist(), strict=True)), label=one.label[place],
            )
        )  # fmt: skip
    return found


def _blocks(fitted: engine.Fitted, one: Opened, scores: Floats) -> list[Answer]:
    """The mean answer over each stretch of volumes with one label."""
    from pipelines.data.datasets.brain_labels import blocks

    number = blocks(one.label)
    inside = np.flatnonzero(number >= 0)
    if not len(inside):
        return []
    means = aggregate(scores[inside], number[inside])
    found = []
    for index, share, size in zip(means.units.tolist(), _shares(means.scores), means.sizes.tolist(), strict=True):
        first = int(np.flatnonzero(number == index)[0])
        found.append(
            Answer(
                one.recording.name, one.recording.subject, "block", int(index), one.seconds(first), size,
                fitted.classes[int(share.argmax())], dict(zip(fitted.classes, share.tolist(), strict=True)),
                label=one.label[first],
            )
        )  # fmt: skip
    return found


def _whole(m: BrainModel, study: Study, recording: Recording, unit: Any, scores: Floats, volumes: int) -> Answer:
    """The mean answer of all windows of a run or subject."""
    fitted = m.state
    mean = scores.mean(0)
    row = study.people.get(recording.subject, {})
    known = row.get(fitted.target, "")
    name = f"sub-{recording.subject}" if unit == "subject" else recording.name
    if fitted.kind == "regression":
        truth = float(known) if _number(known) else None
        return Answer(name, recording.subject, unit, volumes=volumes, value=float(mean[0]), truth=truth)
    share = _shares(mean[None])[0]
    label = known if known in fitted.classes else None
    return Answer(
        name, recording.subject, unit, volumes=volumes, predicted=fitted.classes[int(share.argmax())],
        probabilities=dict(zip(fitted.classes, share.tolist(), strict=True)), label=label,
    )  # fmt: skip


def _number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def encode(m: BrainModel, inputs: Any) -> Vectors:
    """The mean vector of the windows of each scan."""
    fitted, study = m.state, open_source(m, inputs)
    names: list[str] = []
    subjects: list[str] = []
    windows: list[int] = []
    vectors: list[NDArray[np.float32]] = []

    def work(one: Opened) -> None:
        shelf = Shelf([one.run], m.memory * 1_000_000)
        begins = starts(one.run.volumes, fitted.frames, m.window.stride)
        found = engine.scores_of(m, fitted, shelf, [0] * len(begins), begins, vectors=True)
        names.append(one.recording.name)
        subjects.append(one.recording.subject)
        windows.append(len(begins))
        vectors.append(found.mean(0).astype(np.float32))

    failed, notes = each_run(m, study, "runs encoded", work)
    return Vectors(
        m.model, m.provenance(study.name), tuple(names), np.stack(vectors), tuple(subjects), tuple(windows), failed,
        tuple(notes),
    )  # fmt: skip


def unseen(m: BrainModel, data: Any) -> Study:
    """The runs of a study that the fitted model has not learned from, nor was chosen by; all where it knows none."""
    study = open_source(m, data)
    known = set(m.state.trained.tolist()) | set(m.state.held.tolist())
    kept: list[Recording] = []
    for recording in study.recordings:
        run = prepare_run(m, recording, volumes=m.state.level == "volume")
        try:
            if identity(run) not in known:
                kept.append(recording)
        finally:
            run.close()
    return dataclasses.replace(study, recordings=tuple(kept)) if kept else study
