"""What ``encode`` answers: where the vectors are, how many there are, and what was read for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.base import Provenance, Result, save_figure
from pipelines.errors import ConfigError
from pipelines.match.document_facts import COUNTED, Tally, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.evaluation.report import Report

__all__ = ["Encoded"]


@dataclasses.dataclass
class Encoded(Result):
    """Vectors of documents on disk: where they are, how many, and what was read for them.

    Args:
        model: name of the model.
        provenance: where the result comes from.
        dim: numbers of a vector.
        tally: counts over all documents; may grow until ``save`` has returned.
        write: writes the vectors to the place given to it and returns where they are.
        failed: documents that could not be read -> why; may grow as well.
        told: further notes.
        limit: blocks that the document level sees at once, for the picture.
        place: where the vectors are, once they are written.

    Example:
        >>> from pipelines.match.document_facts import DocumentFacts
        >>> tally = Tally()
        >>> tally.add(DocumentFacts("a.txt", tokens=40, sentences=3, blocks=2))
        >>> now = Provenance.now(data="docs", model="smith", seed=0)
        >>> print(Encoded("smith", now, 128, tally, place="vectors"))
        1 vector of 128 numbers in vectors
        read 1 document: 40 tokens, 3 sentences, 2 blocks
    """

    model: str
    provenance: Provenance
    dim: int
    tally: Tally
    write: Callable[[Path], Path] | None = None
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()
    limit: int | None = None
    place: str = ""

    default_name: ClassVar[str] = "vectors"

    @property
    def failures(self) -> Mapping[str, str]:  # type: ignore[override]
        """Documents that could not be read, and why."""
        return self.failed

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was not read of the documents, and what failed."""
        return tuple(dict.fromkeys([*self.told, *self.tally.notes, *(f"left out: {x}" for x in self.failed.values())]))

    def save(self, path: str | Path) -> Path:
        """Write the vectors to a file or folder; a .json file gets the counts alone.

        Raises:
            ConfigError: the vectors are written already, and elsewhere.
            RunError: the disk is full or not writable.
        """
        target = Path(path)
        if target.suffix.lower() == ".json":
            from pipelines.files import atomic_write
            from pipelines.values import to_json

            return atomic_write(target, to_json(self.to_dict(), indent=1) + "\n")
        if self.write is None:
            raise ConfigError("the vectors are written already", where=target, found=self.place, cure="copy them")
        written = self.write(target)
        self.place = str(written)
        return written

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the place, the counts over all documents and those that were not read to their end."""
        return {
            "model": self.model,
            "vectors": self.place,
            "rows": self.tally.documents,
            "dim": self.dim,
            **self.tally.to_dict(),
            "shortened": [one.to_dict() for one in self.tally.losses],
            "failures": dict(self.failed),
            "notes": list(self.notes),
            "provenance": dataclasses.asdict(self.provenance),
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """How long the documents are, in blocks."""
        from pipelines.match.plots import block_counts_figure

        figure = block_counts_figure(self.tally.by_blocks or {0: 0}, limit=self.limit)
        if path is not None:
            save_figure(figure, path)
        return figure

    def fill_report(self, report: Report) -> None:
        """Add the counts, the picture of the lengths and the documents that were not read to their end."""
        counts = {key.replace("_", " "): value for key, value in self.tally.to_dict().items()}
        report.add_data_summary(
            {"vectors": self.place or "–", "numbers of each": self.dim, **counts}, section="Vectors"
        )
        told = ", ".join(f"{n:,} of {size:,} blocks" for size, n in self.tally.by_blocks.most_common(3))
        report.add_figure(self.plot(), f"Documents by number of blocks; most often {told or 'none'}", section="Vectors")
        if self.tally.losses:
            head = ["document", *(key.replace("_", " ") for key in COUNTED)]
            rows = [[one_line(one.name, 120), *one.counts().values()] for one in self.tally.losses]
            more = f"The first {len(rows)} of {self.tally.shortened:,}."
            report.add_table(head, rows, section="Not read to their end", caption=more)

    def __str__(self) -> str:
        count = self.tally.documents
        where = f" in {self.place}" if self.place else ""
        lines = [
            f"{count:,} {'vector' if count == 1 else 'vectors'} of {self.dim:,} numbers{where}",
            f"read {self.tally}",
        ]
        return "\n".join([*lines, *([f"{len(self.failed):,} could not be read"] if self.failed else [])])
