"""The protocol of scans: every window of runs that were not learned from, beside linear models on the same runs.

Of volumes the figures are those of single volumes, with intervals over runs, and beside them those of blocks; of
subjects all windows of a subject are averaged first, with intervals over subjects.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Evaluation, Table
from pipelines.errors import InputError, NothingToMeasure
from pipelines.fmri import engine
from pipelines.fmri.material import Material, Shelf, identity, read_material
from pipelines.fmri.metrics import class_figures, confusion, number_figures, undefined_class_figures
from pipelines.fmri.parts import Parts, folds_of, grouping, parts_of
from pipelines.fmri.peers import peer_scores
from pipelines.fmri.permutation import bootstrap_units, paired_difference, permutation_p
from pipelines.fmri.units import aggregate, unit_labels

if TYPE_CHECKING:
    from pipelines.fmri.pipeline import BrainModel

__all__ = ["evaluate", "evaluate_folds"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
_ROUNDS = 1000


@dataclasses.dataclass
class Judged:
    """What was measured: windows (N,) in order, and the scores of each model for them (N, K)."""

    rows: Indices
    scores: dict[str, Floats]
    notes: list[str] = dataclasses.field(default_factory=list)


def evaluate(m: BrainModel, data: Any) -> Evaluation:
    """Measure a fitted model on the runs that it has not learned from.

    Raises:
        NothingToMeasure: no run is left.
    """
    material = read_material(m, data)
    known = set(m.state.trained.tolist()) | set(m.state.held.tolist())
    numbers = [identity(run) for run in material.runs]
    fresh = np.array([number not in known for number in numbers])
    notes = list(material.notes)
    if not fresh.any():
        raise NothingToMeasure(
            "every run was learned from or chose the epoch",
            where=material.name,
            found=f"{len(material.runs)} runs",
            expected="runs that the model has not seen",
            cure="--split.folds all fits the model anew for each run",
        )
    learned = np.flatnonzero([number in set(m.state.trained.tolist()) for number in numbers])
    if not fresh.all():
        notes.append(f"{int((~fresh).sum())} runs were learned from or chose the epoch, and are not measured")
    parts = Parts(learned, np.zeros(0, np.int64), np.flatnonzero(fresh))
    judged = _judge(m, m.state, material, parts, engine.shelf_of(m, material))
    how = "runs never learned from"
    return _summary(m, material, judged, notes, how)


def evaluate_folds(m: BrainModel, data: Any) -> Evaluation:
    """Fit and measure so many times that each run is measured once.

    Raises:
        InputError: fewer groups than folds.
    """
    material = read_material(m, data)
    fold, told = folds_of(m, material)
    shelf = engine.shelf_of(m, material)
    notes = [*material.notes, told]
    every: list[Judged] = []
    for number in range(int(fold.max()) + 1):
        twin = m.clone()
        twin.run = m.run.part(f"fold-{number + 1}")
        parts, _ = parts_of(twin, material, np.flatnonzero(fold == number))
        fitted = engine.fit_parts(twin, material, parts, shelf)
        judged = _judge(twin, fitted, material, parts, shelf)
        every.append(judged)
        if not m.is_fitted:
            m._state, m._fitted = fitted, True
        first, value = next(iter(_figures(material, judged.rows, judged.scores[m.model]).items()))
        m.run.say(f"fold {number + 1} of {int(fold.max()) + 1}: {first} {value:.4f}")
    rows = np.concatenate([one.rows for one in every])
    order = np.argsort(rows, kind="stable")
    names = [name for name in every[0].scores if all(name in one.scores for one in every)]
    scores = {name: np.concatenate([one.scores[name] for one in every])[order] for name in names}
    notes += list(dict.fromkeys(note for one in every for note in one.notes))
    count = int(fold.max()) + 1
    by = grouping(m, material)
    how = f"leave one {by} out" if m.split.folds == "all" else f"{count} folds by {by}"
    return _summary(m, material, Judged(rows[order], scores, notes), [], how)


def _judge(m: BrainModel, fitted: engine.Fitted, material: Material, parts: Parts, shelf: Shelf) -> Judged:
    """Scores of the model and of the baselines for every window of the measured runs."""
    rows = material.of_runs(parts.test)
    if not len(rows):
        raise NothingToMeasure(
            "no labelled window among the runs to measure", where=material.name, found=f"{len(parts.test)} runs"
        )
    own = engine.scores_of(m, fitted, shelf, material.run[rows].tolist(), material.start[rows].tolist())
    learned = np.concatenate([parts.train, parts.valid])
    peers, notes = peer_scores(m, material, learned, rows)
    return Judged(rows, {m.model: own} | peers, notes)


def _units(
    material: Material, rows: Indices, scores: Floats, level: str
) -> tuple[Floats, NDArray[Any], Indices, Indices]:
    """Scores, labels, groups that intervals are drawn over, and units, at a level: window, or block and subject."""
    if level == "window":
        groups = material.run[rows] if material.level == "volume" else material.unit[rows]
        return scores, material.label[rows], groups, material.unit[rows]
    means = aggregate(scores, material.unit[rows])
    labels = unit_labels(material.label[rows], material.unit[rows])
    first = np.array([np.flatnonzero(material.unit[rows] == unit)[0] for unit in means.units])
    groups = material.run[rows][first] if material.level == "volume" else np.asarray(means.units)
    return means.scores, labels, groups, np.asarray(means.units)


def _headline(m: BrainModel, material: Material) -> str:
    return "window" if material.level == "volume" and m.target.level == "volume" else "unit"


def _figures(material: Material, rows: Indices, scores: Floats, level: str = "window") -> dict[str, float]:
    values, labels, _, _ = _units(material, rows, scores, level)
    found = class_figures(values, labels) if material.kind == "classification" else number_figures(values, labels)
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _summary(m: BrainModel, material: Material, judged: Judged, notes: list[str], how: str) -> Evaluation:
    rows, own = judged.rows, judged.scores[m.model]
    level, classes = _headline(m, material), material.kind == "classification"
    values, labels, groups, _ = _units(material, rows, own, level)
    metrics = _figures(material, rows, own, level)
    notes = [*notes, *judged.notes]
    intervals: dict[str, tuple[float, float]] = {}
    unsure: dict[str, list[str]] = {}
    for name in metrics:
        found = bootstrap_units(name, values, labels, groups, samples=_ROUNDS, seed=m.seed)
        if found.note:
            unsure.setdefault(found.note, []).append(name)
        if not math.isnan(found.lo):
            intervals[name] = (found.lo, found.hi)
    notes += [f"intervals of {', '.join(names)}: {note}" for note, names in unsure.items()]
    if classes:
        notes += [f"{key}: {why}" for key, why in undefined_class_figures(values, labels).items()]
    details, said = _details(m, material, judged, level)
    baselines = {name: _figures(material, rows, one, level) for name, one in judged.scores.items() if name != m.model}
    counted = {"volumes": len(rows)} if material.level == "volume" else {"windows": len(rows)}
    counted["blocks" if material.level == "volume" else "subjects"] = len(np.unique(material.unit[rows]))
    counted["runs"] = len(np.unique(material.run[rows]))
    what = "single volumes" if level == "window" else "blocks" if material.level == "volume" else "subjects"
    seen = f", {material.frames} volumes at once" if material.frames > 1 else ""
    over = "runs" if material.level == "volume" else "subjects"
    return Evaluation(
        model=m.model,
        protocol=f"{what}{seen}; {how}; intervals over {over}",
        data=material.name,
        metrics=metrics,
        counts=counted,
        provenance=m.provenance(material.name),
        intervals=intervals,
        baselines=baselines,
        details=details,
        notes=tuple(dict.fromkeys([*notes, *said])),
        facts=_facts(material),
        figures=_pictures(m, material, judged, metrics, intervals, baselines, (values, labels, groups)),
        tables=[_by_group(material, values, labels, groups)],
        largest=classes,
    )


def _details(m: BrainModel, material: Material, judged: Judged, level: str) -> tuple[dict[str, Any], list[str]]:
    """The other level, chance by permutation, differences to the baselines, two classes against each other."""
    rows, own = judged.rows, judged.scores[m.model]
    values, labels, groups, units = _units(material, rows, own, level)
    first = "accuracy" if material.kind == "classification" else "mae"
    other = "unit" if level == "window" else "window"
    name = {"window": "by_window" if material.level == "subject" else "by_volume", "unit": "by_block"}[other]
    details: dict[str, Any] = {"classes": list(material.classes), "target": material.target}
    details[name] = {model: _figures(material, rows, scores, other) for model, scores in judged.scores.items()}
    notes: list[str] = []
    try:
        inside = material.level == "volume"
        test = permutation_p(
            first, values, labels, groups, within=inside, block=units if inside else None, samples=_ROUNDS, seed=m.seed
        )
        details["permutation"] = {"p": test.p, "chance": test.chance, "samples": test.samples}
        notes += [test.note] if test.note else []
    except InputError as error:
        notes.append(f"no permutation test: {error}")
    details["against"] = {}
    for model, scores in judged.scores.items():
        if model != m.model:
            theirs = _units(material, rows, scores, level)[0]
            gap = paired_difference(first, values, theirs, labels, groups, samples=_ROUNDS, seed=m.seed)
            details["against"][model] = {first: gap.value, "interval": _known(gap.lo, gap.hi)}
    return details, notes


def _known(low: float, high: float) -> list[float] | None:
    return None if math.isnan(low) else [low, high]


def _facts(material: Material) -> dict[str, Any]:
    run = material.runs[0]
    size = " x ".join(f"{edge:.3g}" for edge in np.sqrt((run.affine[:3, :3] ** 2).sum(0)))
    return {
        "runs": len(material.runs),
        "subjects": len({one.subject for one in material.recordings}),
        "volumes": sum(one.volumes for one in material.runs),
        "grid": " x ".join(map(str, run.grid)),
        "voxel": f"{size} mm" if run.placed else "unknown",
        "repetition time": "unknown" if run.tr is None else f"{run.tr:g} s",
        "brain voxels": int(run.mask.sum()),
    }


def _by_group(material: Material, values: Floats, labels: NDArray[Any], groups: Indices) -> Table:
    """The figures of each run, or the answer for each subject."""
    if material.level == "volume":
        rows: list[list[object]] = []
        for group in np.unique(groups).tolist():
            chosen = groups == group
            right = float((values[chosen].argmax(1) == labels[chosen]).mean())
            rows.append([material.runs[group].name, int(chosen.sum()), f"{right:.4f}"])
        return Table("By run", ["run", "measured", "accuracy"], rows)
    names = material.unit_names
    if material.kind == "classification":
        told = [material.classes[one] for one in values.argmax(1).tolist()]
        true = [material.classes[one] for one in labels.tolist()]
    else:
        told, true = [f"{one:.4g}" for one in values[:, 0]], [f"{one:.4g}" for one in labels]
    rows = [[names[g], t, truth] for g, t, truth in zip(groups.tolist(), told, true, strict=True)]
    return Table("By subject", ["subject", "told", "true"], rows)


def _pictures(
    m: BrainModel,
    material: Material,
    judged: Judged,
    metrics: dict[str, float],
    intervals: dict[str, tuple[float, float]],
    baselines: dict[str, dict[str, float]],
    measured: tuple[Floats, NDArray[Any], Indices],
) -> list[Any]:
    values, labels, groups = measured
    first = "accuracy" if material.kind == "classification" else "mae"
    chance = 1 / len(material.classes) if material.classes else None
    bars = {m.model: metrics[first]} | {name: one[first] for name, one in baselines.items() if first in one}

    def beside() -> Any:
        from pipelines.fmri.plots import baselines_figure

        spans = {m.model: intervals[first]} if first in intervals else {}
        return baselines_figure(bars, intervals=spans, chance=chance, metric=first)

    def by_run() -> Any:
        from pipelines.fmri.plots import groups_figure

        found = {
            material.runs[g].name: float((values[groups == g].argmax(1) == labels[groups == g]).mean())
            for g in np.unique(groups).tolist()
        }
        low, high = intervals.get(first, (math.nan, math.nan))
        return groups_figure(found, overall=(metrics[first], low, high), chance=chance, metric=first)

    def table() -> Any:
        from pipelines.classify.plots import confusion_figure

        return confusion_figure(confusion(values.argmax(1), labels, len(material.classes)), material.classes)

    def numbers() -> Any:
        from pipelines.fmri.plots import regression_figure

        return regression_figure(labels, values[:, 0])

    shown = [("Beside the baselines", f"{first} of the model and of the baselines: {bars}", beside)]
    if material.kind == "regression":
        return [*shown, ("Told and true", "Each subject's number as told over the true one", numbers)]
    shown.append(("Confusion", "How often each category was taken for each", table))
    if material.level == "volume" and len(np.unique(groups)) > 1:
        shown.append(("By run", f"{first} of each run, beside chance", by_run))
    return shown
