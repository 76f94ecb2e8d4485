"""The protocol of matching: pairs wholly among documents that were not learned from, beside baselines on the same.

As many random pairs that do not match as pairs that do, drawn by seed; and hard ones: of the ten nearest by TF-IDF.
Every matching pair among the measured documents is counted once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Evaluation
from pipelines.data.datasets.document_splits import (
    document_folds,
    edges_inside,
    hard_negatives,
    random_negatives,
    shortfall_note,
)
from pipelines.data.datasets.document_tfidf import Tfidf
from pipelines.errors import NothingToMeasure
from pipelines.match import engine
from pipelines.match.baselines import Scorer, of_vectors, scorers
from pipelines.match.blocks import Blocks
from pipelines.match.encoding import cut, total_counts
from pipelines.match.metrics import best_threshold, bootstrap_by_document, by_length, pair_metrics
from pipelines.match.ranking import ranking_figures
from pipelines.match.reading import Material, identity, parts_of, read_material

if TYPE_CHECKING:
    from pipelines.match.pipeline import Matcher

__all__ = ["evaluate", "evaluate_folds"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
_HARD = 10  # nearest documents by TF-IDF that hard pairs are drawn from


@dataclasses.dataclass
class Judged:
    """What was measured on one set of documents.

    Attributes:
        documents: (K,) that were measured.
        pairs: (P, 2) matches first, then as many random others, then the hard ones.
        label: (P,) 1, 0, and -1 for hard others.
        scores: of each model for the pairs (P,).
        margins: the same, raised so that a match is called from 0 on; without a threshold the model is missing.
        probability: of the measured model (P,).
        ranking: of each model the figures of each query.
    """

    documents: Indices
    pairs: Indices
    label: Indices
    scores: dict[str, Floats]
    margins: dict[str, Floats]
    probability: Floats
    ranking: dict[str, dict[str, Floats]]


def evaluate(m: Matcher, data: Any) -> Evaluation:
    """Measure a fitted model on the documents that it has not learned from.

    Raises:
        NothingToMeasure: no documents are left, or none of them match.
    """
    material = read_material(m, data)
    known = set(m.state.trained.tolist()) | set(m.state.held.tolist())
    fresh = np.array([identity(one) not in known for one in material.documents])
    notes = list(material.notes)
    if fresh.any() and any(material.given):
        named = np.array([part == "test" for part in material.given])
        fresh = fresh & named if (fresh & named).any() else fresh
    chosen = np.flatnonzero(fresh)
    if len(chosen) < len(material.documents):
        notes.append(
            f"{len(material.documents) - len(chosen)} documents were learned from, chose the epoch or calibrated, "
            "and are not measured"
        )
    blocks = {
        one: cut(material.documents[one], m.state.vocabulary, m.blocks, m.state.encoder) for one in chosen.tolist()
    }
    counts, told = total_counts([one.counts for one in blocks.values()])
    ids = [one.ids for one in blocks.values()]
    vectors = engine.frozen_rows(m, m.state.module, ids) if ids else []
    rows: list[NDArray[Any]] = [np.zeros((0, 1), np.float32)] * len(material.documents)
    for one, found in zip(blocks, vectors, strict=True):
        rows[one] = found
    lengths = _lengths(material, {one: found.counts.tokens for one, found in blocks.items()})
    judged, said = _judge(m, m.state, material, chosen, (rows, blocks), m.seed)
    return _summary(m, material, [judged], lengths, counts, [*notes, *told, *said], "documents never learned from")


def evaluate_folds(m: Matcher, data: Any) -> Evaluation:
    """Fit and measure so many times that each document is measured once.

    Raises:
        InputError: fewer documents than folds, or no matches within them.
    """
    material = read_material(m, data)
    fold = document_folds(len(material.documents), m.folds, m.seed, material.group)
    shared: engine.Prepared | None = None
    every: list[Judged] = []
    notes = list(material.notes)
    lengths, counts = np.zeros(len(material.documents), np.int64), {}
    for number in range(m.folds):
        test = np.flatnonzero(fold == number)
        twin = m.clone()
        twin.run = m.run.part(f"fold-{number + 1}")
        parts, told = parts_of(twin, material, test)
        prepared = shared or engine.prepare(twin, material, parts)
        shared = prepared if m.encoder == "minilm" else None  # a vocabulary of ours is learned in each fold
        fitted = engine.fit_parts(twin, material, parts, prepared)
        rows = prepared.rows
        if m.encoder == "own":
            found = engine.frozen_rows(twin, fitted.module, [prepared.rows[one] for one in test.tolist()])
            rows = [np.zeros((0, 1), np.float32)] * len(material.documents)
            for one, vectors in zip(test.tolist(), found, strict=True):
                rows[one] = vectors
        judged, said = _judge(twin, fitted, material, test, (rows, prepared.blocks), m.seed + number)
        every.append(judged)
        lengths[test] = [prepared.blocks[one].counts.tokens for one in test.tolist()]
        counts = prepared.counts
        notes += [f"fold {number + 1}: {note}" for note in (*told, *said)]
        if not m.is_fitted:
            m._state, m._fitted = fitted, True
        figures = pair_metrics(*_first_two(judged, m.model), threshold=0.0)
        m.run.say(f"fold {number + 1} of {m.folds}: auc {figures.get('auc', float('nan')):.4f}")
    notes += list(shared.notes if shared else ())
    how = f"{m.folds} folds by document, pairs wholly inside a fold"
    return _summary(m, material, every, lengths, counts, notes, how)


def _first_two(judged: Judged, model: str) -> tuple[Floats, Indices]:
    plain = judged.label >= 0
    return judged.margins[model][plain], judged.label[plain]


def _lengths(material: Material, tokens: Mapping[int, int]) -> Indices:
    return np.array([tokens.get(one, 0) for one in range(len(material.documents))], np.int64)


def _judge(
    m: Matcher,
    fitted: engine.Fitted,
    material: Material,
    chosen: Indices,
    read: tuple[Sequence[NDArray[Any]], Mapping[int, Blocks] | Sequence[Blocks]],
    seed: int,
) -> tuple[Judged, list[str]]:
    """Scores of the model and the baselines on the pairs of some documents, and the ranks of what matches them."""
    rows, blocks = read
    matches = edges_inside(material.matches, chosen)
    if not len(matches):
        raise NothingToMeasure(
            "no two of the documents that can be measured match",
            where=material.name,
            found=f"{len(chosen)} documents that were not learned from",
            expected="pairs of matching documents that the model has not seen",
        )
    notes: list[str] = []
    near = Tfidf().fit([one.text for one in material.documents]).nearest(_HARD, chosen)
    if material.others is None:
        others = random_negatives(chosen, material.matches, len(matches), seed)
        notes += shortfall_note(len(others), len(matches), "random pairs that do not match")
    else:
        others = edges_inside(material.others, chosen)
    hard = hard_negatives(near, chosen, material.matches, 1, seed)
    notes += shortfall_note(len(hard), len(matches), "hard pairs")
    pairs = np.concatenate([matches, others, hard])
    label = np.repeat(np.array([1, 0, -1], np.int64), [len(matches), len(others), len(hard)])
    vectors = np.zeros((len(material.documents), fitted.module.config.vector_size), np.float32)
    for one, vector in engine.document_vectors(fitted.module, rows, blocks, chosen, m.batch_blocks).items():
        vectors[one] = vector
    models: dict[str, Scorer] = {m.model: of_vectors(vectors)}
    frozen = rows if m.encoder == "minilm" and m.model == "smith" else None
    peers, said = scorers(m, material.documents, chosen, frozen)
    models |= peers
    scores = {name: model(pairs) for name, model in models.items()}
    threshold = fitted.calibration.threshold
    margins = {m.model: scores[m.model] - (0.0 if threshold is None else threshold)}
    margins |= _peer_margins(m, fitted, material, chosen, peers, scores)
    ranking = {name: _ranks(model, material, chosen) for name, model in models.items()}
    probability = np.asarray(fitted.calibration.probability(scores[m.model]))
    return Judged(chosen, pairs, label, scores, margins, probability, ranking), [*notes, *said]


def _peer_margins(
    m: Matcher,
    fitted: engine.Fitted,
    material: Material,
    chosen: Indices,
    peers: Mapping[str, Scorer],
    scores: Mapping[str, Floats],
) -> dict[str, Floats]:
    """Baselines get the threshold that is best on the learned documents; MiniLM's are not computed for those."""
    rest = np.setdiff1d(np.arange(len(material.documents)), chosen)
    inside = edges_inside(material.matches, rest)
    if "tfidf" not in peers or not len(inside):
        return {}
    others = random_negatives(rest, material.matches, len(inside), m.seed)
    pairs = np.concatenate([inside, others])
    label = np.repeat([1, 0], [len(inside), len(others)])
    return {"tfidf": scores["tfidf"] - best_threshold(peers["tfidf"](pairs), label)}


def _ranks(model: Scorer, material: Material, chosen: Indices) -> dict[str, Floats]:
    """Figures of each measured document as a query against all the other measured ones."""
    place = {one: number for number, one in enumerate(chosen.tolist())}
    relevant: list[set[int]] = [set() for _ in chosen]
    for left, right in edges_inside(material.matches, chosen).tolist():
        relevant[place[left]].add(place[right])
        relevant[place[right]].add(place[left])

    def rows() -> Any:
        for number, one in enumerate(chosen.tolist()):
            row = model(np.stack([np.full(len(chosen), one), chosen], 1)).astype(np.float64)
            row[number] = -np.inf
            yield row

    return ranking_figures(rows(), relevant)


def _figures(name: str, every: Sequence[Judged], seed: int, rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics of one model over all sets, and intervals of two of them."""
    groups = np.concatenate([np.full(len(one.label), number) for number, one in enumerate(every)])
    label = np.concatenate([one.label for one in every])
    pairs = np.concatenate([one.pairs for one in every])
    scores = np.concatenate([one.scores[name] for one in every])
    plain, hard = label >= 0, label != 0
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for key, chosen in (("auc", plain), ("auc_hard", hard)):
        truth = (label[chosen] > 0).astype(np.int64)
        if truth.all():
            continue
        found = bootstrap_by_document(
            pairs[chosen, 0],
            pairs[chosen, 1],
            truth,
            scores[chosen],
            "auc",
            rounds=rounds,
            seed=seed,
            groups=groups[chosen],
        )
        metrics[key] = found.value
        intervals[key] = (found.lo, found.hi)
    if all(name in one.margins for one in every):
        margins = np.concatenate([one.margins[name] for one in every])
        rest = pair_metrics(margins[plain], label[plain], threshold=0.0)
        metrics |= {key: value for key, value in rest.items() if key != "auc"}
    columns = every[0].ranking[name]
    for key in columns:
        values = np.concatenate([one.ranking[name][key] for one in every])
        if not np.isnan(values).all():
            metrics[key] = float(np.nanmean(values))
    return metrics, intervals


def _summary(
    m: Matcher,
    material: Material,
    every: list[Judged],
    lengths: Indices,
    counts: Mapping[str, int],
    notes: list[str],
    how: str,
) -> Evaluation:
    metrics, intervals = _figures(m.model, every, m.seed, 1000)
    names = [name for name in every[0].scores if name != m.model]
    label = np.concatenate([one.label for one in every])
    documents = np.concatenate([one.documents for one in every])
    drawn = "pairs that the data call no match" if material.others is not None else "random pairs"
    return Evaluation(
        model=m.model,
        protocol=f"{how}; matches are {material.kind}, beside {drawn}; hard pairs from the {_HARD} nearest by TF-IDF",
        data=material.name,
        metrics=metrics,
        counts={
            "pairs": int((label >= 0).sum()),
            "matches": int((label > 0).sum()),
            "hard_pairs": int((label < 0).sum()),
            "documents": len(documents),
            "fits": len(every),
        },
        provenance=m.provenance(material.name),
        intervals=intervals,
        baselines={name: _figures(name, every, m.seed, 2)[0] for name in names},
        details=_details(m, every, lengths, names),
        notes=tuple(dict.fromkeys([*notes, *_said_in_fitting(m)])),
        facts={
            "source": material.name,
            "documents": len(material.documents),
            "documents measured": len(documents),
            "matches": len(material.matches),
            **{key: value for key, value in counts.items() if key in ("tokens", "sentences", "blocks")},
        },
        figures=_pictures(m, every, lengths),
        largest=True,
    )


def _said_in_fitting(m: Matcher) -> list[str]:
    """What was said of calibrating; what was said of the documents is said anew."""
    return [note for note in m.state.notes if note.startswith("probabilities")] if m.is_fitted else []


def _details(m: Matcher, every: Sequence[Judged], lengths: Indices, names: Sequence[str]) -> dict[str, Any]:
    """Differences to the baselines on the same draws of documents, figures by length, and calibration."""
    groups = np.concatenate([np.full(len(one.label), number) for number, one in enumerate(every)])
    label = np.concatenate([one.label for one in every])
    pairs = np.concatenate([one.pairs for one in every])
    plain = label >= 0
    own = np.concatenate([one.scores[m.model] for one in every])
    details: dict[str, Any] = {"better_than": {}}
    for name in names:
        theirs = np.concatenate([one.scores[name] for one in every])
        found = bootstrap_by_document(
            pairs[plain, 0],
            pairs[plain, 1],
            label[plain],
            own[plain],
            "auc",
            seed=m.seed,
            groups=groups[plain],
            baseline=theirs[plain],
        )
        details["better_than"][name] = {"auc": found.value, "interval": [found.lo, found.hi]}
    margins = np.concatenate([one.margins[m.model] for one in every])
    bins = by_length(margins[plain], label[plain], lengths[pairs[plain, 0]], lengths[pairs[plain, 1]], threshold=0.0)
    details["by_length"] = [
        {"tokens_from": one.low, "tokens_to": one.high, "pairs": one.pairs, "matches": one.matches, **one.figures}
        for one in bins
    ]
    details["attention"] = m.attention or "softmax"
    return details


def _pictures(m: Matcher, every: Sequence[Judged], lengths: Indices) -> list[Any]:
    label = np.concatenate([one.label for one in every])
    plain = label >= 0
    truth = label[plain]
    names = list(every[0].scores)
    scores = {name: np.concatenate([one.scores[name] for one in every])[plain] for name in names}
    probability = np.concatenate([one.probability for one in every])[plain]
    if truth.all():
        return []

    def roc() -> Any:
        from pipelines.match.plots import roc_figure

        return roc_figure(scores, truth)

    def reliability() -> Any:
        from pipelines.match.plots import reliability_figure

        return reliability_figure(probability, truth)

    def histogram() -> Any:
        from pipelines.match.plots import score_histogram_figure

        return score_histogram_figure(scores[m.model], truth)

    def lengths_figure() -> Any:
        from pipelines.match.plots import length_figure

        margins = np.concatenate([one.margins[m.model] for one in every])[plain]
        pairs = np.concatenate([one.pairs for one in every])[plain]
        ends = lengths[pairs[:, 0]], lengths[pairs[:, 1]]
        return length_figure({m.model: by_length(margins, truth, *ends, threshold=0.0)})

    return [
        (
            "Matches against others",
            "Share of matches found at each share of other pairs, of the model and baselines",
            roc,
        ),
        ("Scores", "How often each score occurs among matches and among other pairs", histogram),
        ("Length", "Figures of pairs by the tokens of the longer document", lengths_figure),
        (
            "Reliability",
            "Share of matches at each probability, beside the diagonal of perfect calibration",
            reliability,
        ),
    ]
