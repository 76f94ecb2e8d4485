"""The sets of an archive folder, one after the other, and what they say together about a classifier."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.base import Evaluation, Provenance, Run
from pipelines.data.formats.labelled_archive import ArchiveSet, find_sets
from pipelines.evaluation.many_sets import evaluate_sets
from pipelines.evaluation.sets_summary import summarise

if TYPE_CHECKING:
    from pipelines.classify.pipeline import Classifier

__all__ = ["evaluate_archive"]

#: Arguments that say how a run is carried out and change no figure.
_FREE = ("device", "threads")


def evaluate_archive(c: Classifier, folder: Path, seeds: int) -> Evaluation:
    """Fit and evaluate a classifier anew on every set of a folder, beside the baselines.

    Args:
        c: unfitted; its protocol applies to each set.
        folder: as for `find_sets`.
        seeds: fits a set, of which the median counts.

    Raises:
        InputError: no folder, no set in it, or no set that can be evaluated.
        ConfigError: resumed with other options.
    """
    found = find_sets(folder)
    for note in found.notes:
        c.run.say(f"note: {note}")

    def one_set(one: ArchiveSet, run: Run) -> Evaluation:
        twin = c.clone()
        twin.run = run
        data = dataclasses.replace(c.read(one.source), source=one.name)
        evaluation = twin.evaluate_seeds(data, seeds) if seeds > 1 else twin.fit(data).evaluate(data)
        shown = {c.model: evaluation.metrics, **evaluation.baselines}
        said = ", ".join(f"{name} {figures['accuracy']:.3f}" for name, figures in shown.items())
        c.run.say(f"{one.name}: accuracy {said}")
        return evaluation

    options = {name: value for name, value in c.get_params().items() if name not in _FREE}
    answers = evaluate_sets(c.run, found.sets, one_set, options | {"seeds": seeds})
    notes = list(found.notes)
    if seeds > 1:
        notes.append(
            f"figures of {c.model} are medians of {seeds} seeds a set; those of a set's baselines are of the seed that "
            "lies nearest to the median"
        )
    evaluation = summarise(
        answers,
        model=c.model,
        metric="accuracy",
        data=str(folder),
        provenance=Provenance.now(data=str(folder), model=c.model, seed=c.seed),
        notes=tuple(notes),
    )
    evaluation.details["passed_over"] = [{"entry": name, "reason": why} for name, why in found.passed_over]
    return evaluation
