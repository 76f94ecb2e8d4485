"""Scores of pairs of documents, with the passages that answer each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.data.datasets.document_pairs import PairSet, open_pairs
from pipelines.data.formats.document_types import Document
from pipelines.errors import InputError
from pipelines.match.passages import Passages, answers
from pipelines.match.predict import check_passages, facts_of, page_of, reads
from pipelines.match.reading import is_pairs, open_query
from pipelines.match.result import PairScore, Scores

if TYPE_CHECKING:
    from pipelines.match.pipeline import Matcher

__all__ = ["score"]


def score(m: Matcher, inputs: Any, passages: int) -> Scores:
    """Scores of pairs.

    Raises:
        InputError: not two documents, no file of pairs, or a document that cannot be read.
    """
    check_passages(passages)
    failed: dict[str, str] = {}
    told: list[str] = []
    documents, table, labels, name = _pairs(m, inputs, failed, told)
    read = {one.document.name: one for one in reads(m, documents, failed, "documents encoded")}
    curve = m.state.calibration
    pairs, kept = [], []
    for (left, right), label in zip(table, labels, strict=True):
        if left not in read or right not in read:
            failed.setdefault(f"{left} | {right}", f"{left} | {right}: a document of this pair could not be read")
            continue
        a, b = read[left], read[right]
        value = float(a.vector @ b.vector)
        shown = tuple(answers(page_of(a), page_of(b), passages)) if passages else ()
        chance = float(curve.probability([value])[0]) if curve.pairs else None
        pairs.append(PairScore(left, right, value, chance, facts_of(a), facts_of(b), shown, label))
        kept.append((left, right))
    if not pairs:
        raise InputError("no pair can be scored", where=name, found=" ".join(failed.values()) or "no pairs")
    told += curve.notes
    if 0 < curve.matches < curve.pairs:
        told.append(f"probabilities take it that {curve.base_rate:.0%} of the pairs match, as of those calibrated on")

    def both(number: int) -> tuple[Passages, Passages]:
        left, right = kept[number]
        return page_of(read[left]), page_of(read[right])

    return Scores(m.model, m.provenance(name), failed, tuple(told), pairs, both)


_Pairs = tuple[Sequence[Document], list[tuple[str, str]], list[int | None], str]


def _pairs(m: Matcher, inputs: Any, failed: dict[str, str], told: list[str]) -> _Pairs:
    """Documents, pairs of their names, labels where the source has them, and what it is called."""
    given = inputs[0] if isinstance(inputs, (list, tuple)) and len(inputs) == 1 else inputs
    if isinstance(given, PairSet) or is_pairs(given):
        source: PairSet = open_pairs(given, m.read, unlabelled=True)
        failed |= {place: f"{place}: {problem}" for place, problem in source.failures.items()}
        told += [note for note in source.notes if note not in failed.values()]
        names = [one.name for one in source.documents]
        table = [(names[a], names[b]) for a, b in zip(source.left.tolist(), source.right.tolist(), strict=True)]
        return source.documents, table, [int(one) if one >= 0 else None for one in source.label], source.name
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        found = f"{len(given)} inputs" if isinstance(given, (list, tuple)) else "one input"
        raise InputError(
            "a score needs two documents",
            where="inputs",
            found=found,
            expected="two paths or texts, or one file of pairs (JSONL, TSV, CSV)",
        )
    left, right = (_one(m, side, told) for side in given)
    if left.name == right.name:
        left, right = (dataclasses.replace(d, name=f"{d.name} ({s})") for d, s in ((left, "left"), (right, "right")))
    return [left, right], [(left.name, right.name)], [None], f"{left.name} and {right.name}"


def _one(m: Matcher, given: Any, told: list[str]) -> Document:
    """The one document of a path or text."""
    stream = open_query(m, given, told)
    found = list(stream)
    if len(found) != 1:
        problem = "; ".join(stream.failures.values()) or f"{len(found)} documents"
        raise InputError("not one document", where=stream.name, found=problem, expected="one file or text")
    return found[0]
