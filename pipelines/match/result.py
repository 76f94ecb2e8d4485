"""What matching answers: ranked documents of queries and scores of pairs; vectors on disk are in ``encoded``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.base import Provenance, Result, save_figure
from pipelines.errors import UserError
from pipelines.match.document_facts import DocumentFacts, Tally, one_line
from pipelines.match.encoded import Encoded
from pipelines.match.highlight import add_passages
from pipelines.match.passages import Answer, Passages
from pipelines.match.result_files import answer_cells, counted_cells, save_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.evaluation.report import Report

__all__ = ["Encoded", "Match", "Matches", "PairScore", "Query", "Scores"]

#: Number of a query and place of a match, or number of a pair -> both documents with their blocks, None where gone.
BlocksOfMatch = Callable[[int, int], "tuple[Passages, Passages] | None"]
BlocksOfPair = Callable[[int], "tuple[Passages, Passages] | None"]

_REPORTED, _PICTURED = 12, 3  # queries or pairs that a report shows one by one, and heat maps of each at most
_PICTURES = 12  # heat maps of a report in all
_ROWS = 200  # rows of a report's table
_PRINTED = 20  # queries or pairs that the terminal shows


@dataclasses.dataclass(frozen=True)
class Match:
    """One document of an answer.

    Attributes:
        name, title: of the document.
        score: similarity to the query.
        probability: of a match; None where nothing was calibrated.
        facts: what was read of it; None where the index does not say.
        answers: its passages that answer passages of the query, left being the query.
        same: it has the very text of the query.
    """

    name: str
    score: float
    probability: float | None = None
    title: str = ""
    facts: DocumentFacts | None = None
    answers: tuple[Answer, ...] = ()
    same: bool = False


@dataclasses.dataclass(frozen=True)
class Query:
    """A query and the documents found, best first; ``facts`` count what was read of the query."""

    name: str
    matches: tuple[Match, ...]
    facts: DocumentFacts | None = None


@dataclasses.dataclass
class _Answered(Result):
    """What both kinds of answers share: failures, notes, saving."""

    model: str
    provenance: Provenance
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()

    _table_endings: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".csv", ".tsv", ".parquet")

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Documents that could not be read, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was done to the documents, what was not read of them, and what failed."""
        facts = list(dict.fromkeys(one for one in self._facts() if one is not None))
        tally = Tally()
        for one in facts:
            tally.add(one)
        said = [*self.told, *tally.notes]
        said += [f"left out: {problem}" for problem in self.failed.values()]
        return tuple(dict.fromkeys(said))

    def _facts(self) -> list[DocumentFacts | None]:
        return []

    def _closing(self) -> list[str]:
        return [f"{len(self.failed):,} could not be read"] if self.failed else []


@dataclasses.dataclass
class Matches(_Answered):
    """The documents that match each of several queries, best first, with the passages that answer each other.

    Args:
        model: name of the model.
        provenance: where the answer comes from.
        failed: documents that could not be read -> why.
        told: further notes.
        queries: the answers.
        corpus: what was searched.
        searched: the counts of the documents searched.
        blocks: gives both documents of a match with their blocks, ``blocks(query, place)``, for heat maps and for the
            text around passages; without it passages stand alone.

    Example:
        >>> now = Provenance.now(data="docs", model="smith", seed=0)
        >>> print(Matches("smith", now, queries=[Query("q.txt", (Match("a.txt", 0.875, 0.9),))], corpus="docs"))
        q.txt
           1   0.8750  p 0.900  a.txt
    """

    queries: list[Query] = dataclasses.field(default_factory=list)
    corpus: str = ""
    searched: Tally | None = None
    blocks: BlocksOfMatch | None = None

    default_name: ClassVar[str] = "matches.json"

    def _facts(self) -> list[DocumentFacts | None]:
        return [one for query in self.queries for one in (query.facts, *(match.facts for match in query.matches))]

    def save(self, path: str | Path) -> Path:
        """Write by the ending: .json, .jsonl (one line a query), or .csv, .tsv, .parquet (one row a match).

        In tables blanks within a passage are single, so that each stands on one line; .json has the text as it is.

        Raises:
            ConfigError: another ending.
            RunError: the disk is full or not writable.
        """
        lines = [self._entry(query) for query in self.queries]
        return save_rows(path, self.rows, lines, self.to_dict, self._table_endings)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a match, with its best pair of passages."""
        return [
            {
                "query": query.name,
                "rank": rank,
                "document": match.name,
                "title": match.title,
                "score": match.score,
                "probability": match.probability,
                "same": match.same,
                **counted_cells("query", query.facts),
                **counted_cells("document", match.facts),
                **answer_cells("query", "document", match.answers),
            }
            for query in self.queries
            for rank, match in enumerate(query.matches, 1)
        ]

    def _entry(self, query: Query) -> dict[str, Any]:
        found = [
            {
                "rank": rank,
                "document": match.name,
                "title": match.title,
                "score": match.score,
                "probability": match.probability,
                "same": match.same,
                "counts": None if match.facts is None else match.facts.counts(),
                "passages": [dataclasses.asdict(pair) for pair in match.answers],
            }
            for rank, match in enumerate(query.matches, 1)
        ]
        return {"query": query.name, "counts": None if query.facts is None else query.facts.counts(), "matches": found}

    def to_dict(self) -> dict[str, Any]:
        """Plain values: of each query its counts, and its documents with scores and passages."""
        return {
            "model": self.model,
            "corpus": self.corpus,
            "searched": None if self.searched is None else self.searched.to_dict(),
            "queries": [self._entry(query) for query in self.queries],
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """The heat map of the first query and the best document beside itself; without blocks, the best as bars."""
        from pipelines.match.plots import heat_map_figure, ranking_figure

        figure = None
        for number, query in enumerate(self.queries):
            place = next((place for place, match in enumerate(query.matches) if not match.same), None)
            both = None if place is None else self._both(number, place)
            if place is not None and both is not None:
                figure = heat_map_figure(*both, query.matches[place].answers)
                break
        if figure is None:
            lists = {query.name: [(one.name, one.score) for one in query.matches] for query in self.queries}
            figure = ranking_figure(lists or {"no query": []})
        if path is not None:
            save_figure(figure, path)
        return figure

    def _both(self, query: int, place: int) -> tuple[Passages, Passages] | None:
        """Both documents of a match; None where there are no blocks, or a file is gone by now."""
        return _given(None if self.blocks is None else lambda: self.blocks(query, place))  # type: ignore[misc]

    def fill_report(self, report: Report) -> None:
        """Add the documents of each query as a table, heat maps, and the passages marked in their context."""
        searched = f" in {self.searched}" if self.searched is not None else ""
        report.add_text(f"{len(self.queries):,} queries by {self.model}{searched}.", section="Search")
        pictured = max(1, min(_PICTURED, _PICTURES // max(1, len(self.queries))))
        for number, query in enumerate(self.queries[:_REPORTED]):
            section = one_line(query.name, 100)
            if query.facts is not None:
                report.add_text(f"Read of the query: {query.facts}.", section=section)
            if not query.matches:
                report.add_text("No document was found.", section=section)
                continue
            rows = [
                [_named(m, 120), one_line(m.title), m.score, m.probability, *_read(m.facts)]
                for m in query.matches[:_ROWS]
            ]
            head = ["document", "title", "score", "probability", "blocks", "tokens", "tokens dropped"]
            more = f"The first {len(rows)} of {len(query.matches):,}." if len(query.matches) > len(rows) else ""
            report.add_table(head, rows, section=section, caption=more)
            others = [(place, match) for place, match in enumerate(query.matches) if not match.same]
            for count, (place, match) in enumerate(others[:_PICTURED]):
                both = self._both(number, place)
                _add_pair(report, (query.name, match.name), match.answers, both, section, picture=count < pictured)
        left = len(self.queries) - _REPORTED
        if left > 0:
            report.add_text(f"{left:,} more queries stand in the saved answer only.", section="Further queries")

    def __str__(self) -> str:
        lines = []
        for query in self.queries[:_PRINTED]:
            read = f": {query.facts}" if query.facts is not None else ""
            lines.append(f"{one_line(query.name)}{read}")
            for rank, match in enumerate(query.matches, 1):
                sure = "" if match.probability is None else f"  p {match.probability:.3f}"
                title = f"  {one_line(match.title, 50)}" if match.title else ""
                lines.append(f"  {rank:2d}  {match.score:7.4f}{sure}  {_named(match)}{title}")
                if match.facts is not None and match.facts.lost:
                    lines.append(f"{'':14}read: {match.facts}")
                lines += _printed(match.answers[:1])
            if not query.matches:
                lines.append("   no document was found")
        if len(self.queries) > _PRINTED:
            lines.append(f"and {len(self.queries) - _PRINTED:,} more queries")
        if self.searched is not None:
            lines.append(f"searched {self.searched}")
        return "\n".join([*lines, *self._closing()])


@dataclasses.dataclass(frozen=True)
class PairScore:
    """How well two documents match; ``answers`` are the passages that answer each other."""

    left: str
    right: str
    score: float
    probability: float | None = None
    left_facts: DocumentFacts | None = None
    right_facts: DocumentFacts | None = None
    answers: tuple[Answer, ...] = ()
    label: int | None = None


@dataclasses.dataclass
class Scores(_Answered):
    """Scores of pairs of documents, with the passages that answer each other.

    Args:
        model, provenance, failed, told: as :class:`Matches`.
        pairs: the answers, in the order of the pairs.
        blocks: gives both documents of a pair with their blocks, ``blocks(number)``.

    Example:
        >>> now = Provenance.now(data="pairs.tsv", model="smith", seed=0)
        >>> print(Scores("smith", now, pairs=[PairScore("a.txt", "b.txt", 0.5, 0.25)]))
         0.5000  p 0.250  a.txt  |  b.txt
    """

    pairs: list[PairScore] = dataclasses.field(default_factory=list)
    blocks: BlocksOfPair | None = None

    default_name: ClassVar[str] = "scores.json"

    def _facts(self) -> list[DocumentFacts | None]:
        return [one for pair in self.pairs for one in (pair.left_facts, pair.right_facts)]

    def save(self, path: str | Path) -> Path:
        """Write by the ending: .json, .jsonl, .csv, .tsv, .parquet (one row a pair), or .npy.

        A .npy file holds (P, 2) float64: score and probability, which is NaN where nothing was calibrated. In tables
        blanks within a passage are single; .json has the text as it is.

        Raises:
            ConfigError: another ending.
            RunError: the disk is full or not writable.
        """
        target = Path(path)
        if target.suffix.lower() == ".npy":
            import numpy as np

            from pipelines.files import atomic_write

            table = np.array([[one.score, _number(one.probability)] for one in self.pairs], np.float64).reshape(-1, 2)
            return atomic_write(target, lambda file: np.save(file, table))
        lines = [self._entry(pair) for pair in self.pairs]
        return save_rows(target, self.rows, lines, self.to_dict, (*self._table_endings, ".npy"))

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a pair, with its best pair of passages; ``label`` where any pair has one."""
        known = any(pair.label is not None for pair in self.pairs)
        return [
            {
                "left": pair.left,
                "right": pair.right,
                "score": pair.score,
                "probability": pair.probability,
                **({"label": pair.label} if known else {}),
                **counted_cells("left", pair.left_facts),
                **counted_cells("right", pair.right_facts),
                **answer_cells("left", "right", pair.answers),
            }
            for pair in self.pairs
        ]

    @staticmethod
    def _entry(pair: PairScore) -> dict[str, Any]:
        return {
            "left": pair.left,
            "right": pair.right,
            "score": pair.score,
            "probability": pair.probability,
            "label": pair.label,
            "left_counts": None if pair.left_facts is None else pair.left_facts.counts(),
            "right_counts": None if pair.right_facts is None else pair.right_facts.counts(),
            "passages": [dataclasses.asdict(one) for one in pair.answers],
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, one entry a pair."""
        return {
            "model": self.model,
            "scores": [self._entry(pair) for pair in self.pairs],
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """The heat map of a single pair; of several pairs how their scores are spread."""
        from pipelines.match.plots import heat_map_figure, ranking_figure, score_histogram_figure

        both = self._both(0) if len(self.pairs) == 1 else None
        if both is not None:
            figure = heat_map_figure(*both, self.pairs[0].answers)
        elif len(self.pairs) > 1:
            labels = [pair.label for pair in self.pairs]
            known = None if None in labels else [int(label or 0) for label in labels]
            figure = score_histogram_figure([pair.score for pair in self.pairs], known)
        else:
            figure = ranking_figure({"pairs": [(f"{p.left} | {p.right}", p.score) for p in self.pairs]})
        if path is not None:
            save_figure(figure, path)
        return figure

    def _both(self, number: int) -> tuple[Passages, Passages] | None:
        return _given(None if self.blocks is None else lambda: self.blocks(number))  # type: ignore[misc]

    def fill_report(self, report: Report) -> None:
        """Add the pairs as a table, heat maps, and the passages marked in their context."""
        rows = [
            [one_line(p.left, 120), one_line(p.right, 120), p.score, p.probability, *_read(p.left_facts),
             *_read(p.right_facts)]
            for p in self.pairs[:_ROWS]
        ]  # fmt: skip
        counted = [f"{side} {what}" for side in ("left", "right") for what in ("blocks", "tokens", "tokens dropped")]
        more = f"The first {len(rows)} of {len(self.pairs):,}." if len(self.pairs) > len(rows) else ""
        report.add_table(["left", "right", "score", "probability", *counted], rows, section="Pairs", caption=more)
        if len(self.pairs) > 1:
            report.add_figure(self.plot(), f"How the scores of {len(self.pairs):,} pairs are spread", section="Pairs")
        for number, pair in enumerate(self.pairs[:_REPORTED]):
            names = (pair.left, pair.right)
            section = " | ".join(one_line(name, 60) for name in names)
            _add_pair(report, names, pair.answers, self._both(number), section)

    def __str__(self) -> str:
        lines = []
        for pair in self.pairs[:_PRINTED]:
            sure = "" if pair.probability is None else f"  p {pair.probability:.3f}"
            lines.append(f"{pair.score:7.4f}{sure}  {one_line(pair.left)}  |  {one_line(pair.right)}")
            sides = ("left", pair.left_facts), ("right", pair.right_facts)
            lines += [f"         {side}: {facts}" for side, facts in sides if facts is not None]
            lines += _printed(pair.answers[:3])
        if len(self.pairs) > _PRINTED:
            lines.append(f"and {len(self.pairs) - _PRINTED:,} more pairs")
        return "\n".join([*(lines or ["no pair"]), *self._closing()])


def _given(blocks: Callable[[], tuple[Passages, Passages] | None] | None) -> tuple[Passages, Passages] | None:
    """Both documents, if they can still be had and both have blocks: a picture is never worth a failed answer."""
    if blocks is None:
        return None
    try:
        both = blocks()
    except UserError:
        return None
    return both if both is not None and len(both[0]) and len(both[1]) else None


def _named(match: Match, longest: int = 80) -> str:
    """The name of a document found, and that it is the query's own text where it is."""
    return one_line(match.name, longest) + (" (the same text)" if match.same else "")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _read(facts: DocumentFacts | None) -> list[int | None]:
    return [None] * 3 if facts is None else [facts.blocks, facts.tokens, facts.tokens_dropped]


def _printed(answers: Sequence[Answer]) -> list[str]:
    """Two lines a pair of passages."""
    lines = []
    for pair in answers:
        lines.append(f"{'':10}{pair.similarity:.3f}  “{one_line(pair.left_text, 90)}”")
        lines.append(f"{'':17}“{one_line(pair.right_text, 90)}”")
    return lines


def _add_pair(
    report: Report,
    names: tuple[str, str],
    answers: Sequence[Answer],
    both: tuple[Passages, Passages] | None,
    section: str,
    *,
    picture: bool = True,
) -> None:
    """The heat map of two documents and their passages."""
    from pipelines.match.plots import heat_map_figure

    if both is not None and picture:
        alt = f"Similarity of the {len(both[0])} blocks of {names[0]} with the {len(both[1])} of {names[1]}"
        best = [f"{one.left_block} and {one.right_block} ({one.similarity:.2f})" for one in answers]
        if best:
            alt += f"; framed are the blocks {', '.join(best)}"
        report.add_figure(heat_map_figure(*both, answers), one_line(alt, 600), section=section)
    texts = None if both is None else (both[0].text, both[1].text)
    add_passages(report, answers, names, section=section, texts=texts)
