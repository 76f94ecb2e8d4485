"""From the figures of many sets to one evaluation: means, ranks, tests, the table of all sets and its pictures."""

from __future__ import annotations

import statistics
from typing import Any

from pipelines.base import Evaluation, Provenance, Table
from pipelines.evaluation.many_sets import SetAnswer, SetAnswers
from pipelines.evaluation.ranks import Comparison, compare, duel

__all__ = ["summarise"]

_SHOWN = 8  # names in a note; the table has all


def summarise(
    answers: SetAnswers,
    *,
    model: str,
    metric: str,
    data: str,
    provenance: Provenance,
    level: float = 0.05,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """One evaluation over sets, in which every set counts alike.

    Methods are ranked and tested that have an answer on every set; the others' figures stand in the table all the same.

    Args:
        answers: one or more sets, whose figures hold ``metric``, ``n`` and ``baselines``.
        model: the method that the evaluation is about.
        metric: which of the figures is compared; larger is better.
        data: what the sets are, for the heading.
        provenance: of the evaluation.
        level: of the tests.
        notes: to begin with.
    """
    done = answers.done
    table = {name: _column(done, name, model, metric) for name in _methods(done, model)}
    full = {name: [v for v in row if v is not None] for name, row in table.items() if None not in row}
    found = compare(full, level=level) if len(done) > 1 and len(full) > 1 else None
    own = table[model]
    metrics = {metric: statistics.fmean(value for value in own if value is not None)}
    if found is not None:
        metrics["mean_rank"] = found.rank_of(model)
    rest = [name for name in table if name != model]
    return Evaluation(
        model=model,
        protocol=_protocol(done),
        data=data,
        metrics=metrics,
        counts=_counts(answers),
        baselines={name: _row(own, table[name], metric, found, name) for name in rest},
        details=_details(answers, table, found, metric),
        notes=(*notes, *_notes(answers, table, full, found)),
        provenance=provenance,
        facts={"source": data, "sets": len(done)},
        figures=_figures(done, table, full, found, model, metric),
        tables=_tables(answers, table, found, metric),
        largest=True,
    )


def _methods(done: list[SetAnswer], model: str) -> list[str]:
    return list(dict.fromkeys([model, *(name for one in done for name in one.figures["baselines"])]))


def _column(done: list[SetAnswer], name: str, model: str, metric: str) -> list[float | None]:
    """The scores of one method, None where it has no answer."""
    rows = [one.figures if name == model else one.figures["baselines"].get(name, {}) for one in done]
    return [None if row.get(metric) is None else float(row[metric]) for row in rows]


def _row(
    own: list[float | None], other: list[float | None], metric: str, found: Comparison | None, name: str
) -> dict[str, float]:
    """What stands beside the model's mean: a mean over all sets or none, and who was better how often."""
    both = [(a, b) for a, b in zip(own, other, strict=True) if a is not None and b is not None]
    row: dict[str, float] = {}
    if len(both) == len(own):
        row[metric] = statistics.fmean(b for _, b in both)
    if found is not None and name in found.names:
        row["mean_rank"] = found.rank_of(name)
    wins, ties, losses, _ = duel([a for a, _ in both], [b for _, b in both])
    return row | {"model_wins": wins, "ties": ties, "model_losses": losses}


def _protocol(done: list[SetAnswer]) -> str:
    protocols = list(dict.fromkeys(str(one.figures["protocol"]) for one in done))
    sets = f"{len(done)} {'set' if len(done) == 1 else 'sets'}, each counted once"
    return f"{sets}; {'; '.join(protocols)}"


def _counts(answers: SetAnswers) -> dict[str, int]:
    counts = {"sets": len(answers.done), "test_series": sum(int(one.figures["n"]) for one in answers.done)}
    if answers.left_out:
        counts["left_out"] = len(answers.left_out)
    return counts


def _details(
    answers: SetAnswers, table: dict[str, list[float | None]], found: Comparison | None, metric: str
) -> dict[str, Any]:
    sets = []
    for place, one in enumerate(answers.done):
        figures = one.figures
        sets.append(
            {
                "set": one.name,
                "n": figures["n"],
                "classes": figures.get("classes"),
                metric: {name: column[place] for name, column in table.items()},
                "protocol": figures["protocol"],
                "seeds": figures.get("seeds", []),
                "notes": figures.get("notes", []),
            }
        )
    compared = list(found.names) if found is not None else []
    return {
        "sets": sets,
        "left_out": [{"set": name, "message": message} for name, message in answers.left_out],
        "compared": compared,
        "not_compared": [name for name in table if name not in compared],
        **({} if found is None else found.to_dict()),
    }


def _notes(
    answers: SetAnswers, table: dict[str, list[float | None]], full: dict[str, list[float]], found: Comparison | None
) -> list[str]:
    notes = [f"left out: {name}: {message}" for name, message in answers.left_out]
    for name, column in table.items():
        if name not in full:
            without = [one.name for one, value in zip(answers.done, column, strict=True) if value is None]
            shown = ", ".join(without[:_SHOWN]) + (" ..." if len(without) > _SHOWN else "")
            notes.append(
                f"{name} has no answer on {len(without)} of {len(column)} sets ({shown}): "
                "it has neither a mean nor a rank; its figures stand in the table of sets"
            )
    if found is None:
        notes.append("ranks and tests need two or more sets: there are none" if len(answers.done) < 2 else "no ranks")
        return notes
    percent = f"{100 * found.level:g} %"
    if found.too_few:
        notes.append(
            f"{found.sets} sets are too few for any of {len(found.duels)} pairs to differ at {percent} after Holm's "
            "correction, however the scores fall"
        )
    if found.friedman is not None and found.friedman[1] > found.level:
        notes.append(f"Friedman's test finds no difference among all methods at {percent} (p {found.friedman[1]:.3g})")
    notes.append("what was done to the data of each set stands with that set under details")
    return notes


def _tables(
    answers: SetAnswers, table: dict[str, list[float | None]], found: Comparison | None, metric: str
) -> list[Table]:
    rows: list[list[object]] = [
        [one.name, one.figures["n"], one.figures.get("classes"), *(column[place] for column in table.values())]
        for place, one in enumerate(answers.done)
    ]
    tables = [Table(f"{metric.capitalize()} of every set", ["set", "n", "classes", *table], rows)]
    if found is not None:
        head = ["first", "second", "wins", "ties", "losses", "p", "p (Holm)", "differ"]
        pairs: list[list[object]] = [
            [d.first, d.second, d.wins, d.ties, d.losses, d.p, d.adjusted, d.differ] for d in found.duels
        ]
        tables.append(Table("Pairs of methods", head, pairs, _caption(found)))
    if answers.left_out:
        tables.append(Table("Sets left out", ["set", "message"], [list(pair) for pair in answers.left_out]))
    return tables


def _caption(found: Comparison) -> str:
    percent = f"{100 * found.level:g} %"
    said = f"Two-sided Wilcoxon signed-rank tests over {found.sets} sets with Holm's correction, level {percent}."
    if found.friedman is not None:
        said += f" Friedman's statistic {found.friedman[0]:.4g}, p {found.friedman[1]:.3g}."
    return f"{said} For reference: Nemenyi's critical difference of average ranks is {found.nemenyi:.3g}."


def _figures(
    done: list[SetAnswer],
    table: dict[str, list[float | None]],
    full: dict[str, list[float]],
    found: Comparison | None,
    model: str,
    metric: str,
) -> list[Any]:
    from pipelines.evaluation.rank_plots import difference_figure, sets_figure

    figures: list[Any] = []
    if found is not None:
        ranked = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(found.names, found.ranks, strict=True))
        joined = "; ".join(" and ".join(clique) for clique in found.cliques) or "none"
        heading = f"Average ranks over {found.sets} sets; a bar joins what does not differ"
        figures.append(
            (
                "Critical differences",
                f"Average ranks over {found.sets} sets: {ranked}. A bar joins those that do not differ: {joined}",
                lambda: difference_figure(found, title=heading),
            )
        )
    others = [name for name in full if name != model]
    if others:
        best = max(others, key=lambda name: (-found.rank_of(name) if found else 0.0, statistics.fmean(full[name])))
        wins, ties, losses, _ = duel(full[model], full[best])
        title = f"{metric.capitalize()} of {model} and of {best}, set by set"
        figures.append(
            (
                "Set by set",
                f"{title}: {model} is better on {wins}, equal on {ties} and worse on {losses} of {len(done)} sets",
                lambda: sets_figure(
                    [one.name for one in done], {model: full[model], best: full[best]}, metric=metric, title=title
                ),
            )
        )
    return figures
