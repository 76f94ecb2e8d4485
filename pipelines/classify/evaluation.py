"""The protocol of classification: every test series is counted once, beside baselines fitted on the same training part.

The official split where there is one, else folds that cut through no group. Temperature and conformal sets (without
refit also the epoch) come from a held-out fifth of each training part; no test series is seen before it is judged.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Evaluation
from pipelines.classify import engine
from pipelines.classify.metrics import bootstrap_intervals, confusion, figures
from pipelines.classify.options import MODELS, parse_protocol
from pipelines.classify.predict import facts
from pipelines.data.datasets.classification import group_folds, official_split
from pipelines.errors import InputError

if TYPE_CHECKING:
    from pipelines.classify.pipeline import Classifier
    from pipelines.data.formats.labelled_types import LabelledSeries

Floats = NDArray[np.float64]
#: Folds where nothing is said: by group, and stratified.
GROUP_FOLDS, PLAIN_FOLDS = 10, 5


@dataclasses.dataclass
class Answers:
    """Probabilities of one model for all test series, in their order."""

    probabilities: Floats
    inside: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


def evaluate(c: Classifier, data: LabelledSeries) -> Evaluation:
    """Judge a fitted classifier and the baselines by the classifier's protocol.

    Args:
        c: a fitted classifier.
        data: labelled series.

    Raises:
        InputError: no labels, one class, an unseen label, too few groups for the folds.
    """
    engine.check_labels(data)
    folds = parse_protocol(c.protocol)
    if c.protocol == "official" or (folds is None and data.split is not None):
        train, test = official_split(data)
        parts, name = [(train, test)], "official split"
        fitted: engine.Fitted | None = c.state
    else:
        parts, name = _folds(c, data, folds)
        fitted = None  # a model of its own for every fold
    classes = data.classes if fitted is None else fitted.classes
    answers, truth, order = _judge(c, data, parts, fitted, classes)
    return _summary(c, data.subset(order), name, len(parts), answers, truth, classes)


def _folds(c: Classifier, data: LabelledSeries, asked: int | None) -> tuple[list[tuple[Any, Any]], str]:
    if data.groups is not None:
        count = asked or min(GROUP_FOLDS, len(set(data.groups)))
        return group_folds(data, count, c.seed), f"{count} folds by group, no group in two"
    count = asked or PLAIN_FOLDS
    return group_folds(data, count, c.seed), f"{count} stratified folds"


def _judge(
    c: Classifier,
    data: LabelledSeries,
    parts: list[tuple[Any, Any]],
    whole: engine.Fitted | None,
    classes: tuple[str, ...],
) -> tuple[dict[str, Answers], NDArray[np.int64], NDArray[np.int64]]:
    """Answers of the model and the baselines over all parts together, the truth, and which series they are for."""
    place = {label: number for number, label in enumerate(classes)}
    found: dict[str, list[Answers]] = {}
    order: list[NDArray[np.int64]] = []
    for number, part in enumerate(parts):
        train, test = data.subset(part[0]), data.subset(part[1])
        order.append(np.asarray(part[1], np.int64))
        fitted = whole or _fit_fold(c, train, number, len(parts))
        found.setdefault(c.model, []).append(_answers(c, fitted, test, place))
        for name in _baselines(c):
            answer = _baseline(c, name, train, test, place)
            if answer is not None:
                found.setdefault(name, []).append(answer)
    rows = np.concatenate(order)
    for label in set(data.subset(rows).labels or ()) - set(place):
        raise InputError(
            "a test series has a label that training never saw",
            where=data.source,
            found=label,
            expected=", ".join(classes),
        )
    truth = np.array([place[label] for label in data.subset(rows).labels or ()], np.int64)
    joined = {name: _joined(pieces) for name, pieces in found.items() if len(pieces) == len(parts)}
    return joined, truth, rows


def _fit_fold(c: Classifier, train: LabelledSeries, number: int, count: int) -> engine.Fitted:
    twin = c.clone(protocol="official")
    twin.run = c.run.part(f"fold-{number + 1}")
    twin.run.before_training = None
    fitted = engine.fit(twin, dataclasses.replace(train, split=None))
    c.run.say(f"fold {number + 1} of {count} is fitted")
    return fitted


def _answers(c: Classifier, fitted: engine.Fitted, test: LabelledSeries, place: dict[str, int]) -> Answers:
    columns = [place[label] for label in fitted.classes]
    own = fitted.probabilities(test)
    spread = np.zeros((len(test), len(place)))
    spread[:, columns] = own
    inside = np.ones(spread.shape, bool)
    if fitted.sets is not None:
        inside[:] = False
        inside[:, columns] = fitted.sets(own, c.interval)
    return Answers(spread, inside, fitted.notes)


def _baselines(c: Classifier) -> list[str]:
    return [name for name, info in MODELS.items() if info.baseline and name != c.model]


def _baseline(
    c: Classifier, name: str, train: LabelledSeries, test: LabelledSeries, place: dict[str, int]
) -> Answers | None:
    """What a baseline answers; None, and a note, where it would take too long."""
    fitted = engine.fit_baseline(name, train, seed=c.seed)
    reason = getattr(fitted.baseline, "too_large", lambda *_: None)(fitted.scaled(train), fitted.scaled(test))
    if reason:
        c.run.say(f"note: {name} is left out: {reason}")
        return None
    return _answers(c, fitted, test, place)


def _joined(pieces: list[Answers]) -> Answers:
    notes = tuple(dict.fromkeys(note for piece in pieces for note in piece.notes))
    inside = [piece.inside for piece in pieces if piece.inside is not None]
    return Answers(np.concatenate([piece.probabilities for piece in pieces]), np.concatenate(inside), notes)


def _summary(
    c: Classifier,
    data: LabelledSeries,
    protocol: str,
    parts: int,
    answers: dict[str, Answers],
    truth: NDArray[np.int64],
    classes: tuple[str, ...],
) -> Evaluation:
    own = answers[c.model]
    groups = None if data.groups is None else np.array(data.groups)
    notes = [*data.notes, *own.notes]
    notes += [f"{name} is left out: it would take too long here" for name in _baselines(c) if name not in answers]
    sizes = {"n": len(truth), "classes": len(classes), "fits": parts}
    if groups is not None:
        sizes["groups"] = len(np.unique(groups))
    return Evaluation(
        model=c.model,
        protocol=f"{protocol}, every test series counted once, {_how(c)}",
        data=data.source,
        metrics=figures(own.probabilities, truth),
        counts=sizes,
        intervals=bootstrap_intervals(own.probabilities, truth, groups=groups, seed=c.seed),
        baselines={name: figures(a.probabilities, truth) for name, a in answers.items() if name != c.model},
        details=_details(c, own, truth, classes),
        notes=tuple(dict.fromkeys(notes)),
        provenance=c.provenance(data.source),
        facts=facts(data),
        figures=_figures(own, truth, classes),
        largest=True,
    )


def _how(c: Classifier) -> str:
    """What the held-out fifth of a training part is for."""
    if MODELS[c.model].baseline:
        return "fitted on the whole training part"
    if c.refit:
        return "calibrated on a held-out fifth of the training part, then trained on all of it"
    return "model chosen and calibrated on a held-out fifth of the training part"


def _details(c: Classifier, own: Answers, truth: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    table = confusion(own.probabilities.argmax(1), truth, len(classes))
    details: dict[str, Any] = {
        "class_names": list(classes),
        "confusion": table.tolist(),
        "by_class": {
            name: {"n": int(row.sum()), "recall": float(row[i] / row.sum()) if row.sum() else None}
            for i, (name, row) in enumerate(zip(classes, table, strict=True))
        },
        "attention": c.attention or MODELS[c.model].attention,
        "seed": c.seed,
        "epochs": c.state.training.get("epochs"),
        "seconds_to_fit": c.state.training.get("seconds"),
    }
    if own.inside is not None:
        hit = own.inside[np.arange(len(truth)), truth]
        details["sets"] = {
            "level": c.interval,
            "coverage": float(hit.mean()),
            "mean_size": float(own.inside.sum(1).mean()),
        }
    return details


def _figures(own: Answers, truth: NDArray[np.int64], classes: tuple[str, ...]) -> list[Any]:
    from pipelines.classify.plots import confusion_figure, reliability_figure

    table = confusion(own.probabilities.argmax(1), truth, len(classes))
    wrong = len(truth) - int(np.diag(table).sum())
    return [
        (
            "Confusion",
            f"Counts of {len(truth)} series by true and predicted class; {wrong} lie off the diagonal",
            lambda: confusion_figure(table, classes),
        ),
        (
            "Reliability",
            "Share of right answers at each confidence, beside the diagonal of perfect calibration",
            lambda: reliability_figure(own.probabilities, truth),
        ),
    ]
