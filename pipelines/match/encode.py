"""Vectors of any number of documents on disk: an index that search maps into memory, or one file."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.formats.document_types import Document
from pipelines.errors import InputError
from pipelines.match.document_facts import Tally
from pipelines.match.encoded import Encoded
from pipelines.match.index import Index
from pipelines.match.predict import facts_of, reads, row_of, stored_facts, vector_identity
from pipelines.match.reading import notes_of, open_query, there
from pipelines.match.shard_folder import STATE_FILE
from pipelines.match.shards import ShardWriter
from pipelines.match.vectors_io import VECTOR_ENDINGS, write_vectors

if TYPE_CHECKING:
    from pipelines.match.pipeline import Matcher

__all__ = ["encode"]

_SHARD = 5_000  # rows of a shard
_SECONDS = 60.0  # of work that a kill loses at most


def encode(m: Matcher, inputs: Any) -> Encoded:
    """What is to be encoded; the work is done when the answer is saved, so that vectors go straight to their place."""
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    told: list[str] = []
    streams = [open_query(m, one, told) for one in given]
    tally, failed = Tally(), dict[str, str]()
    name = streams[0].name if len(streams) == 1 else f"{len(streams)} sources"

    def documents() -> Iterator[Document]:
        for stream in streams:
            yield from stream
            failed.update(stream.failures)
            told.extend(notes_of(stream))

    answer = Encoded(
        m.model,
        m.provenance(name),
        m.state.module.config.vector_size,
        tally,
        failed=failed,
        limit=m.blocks.limit,
    )

    def write(target: Path) -> Path:
        expected = [stream.expected for stream in streams]
        work = _Work(m, documents(), None if None in expected else sum(one or 0 for one in expected), tally, failed)
        if target.suffix.lower() in VECTOR_ENDINGS:
            place = work.one_file(target)
        else:
            place = work.shards(target, _sources(given), told)
        answer.told = tuple(dict.fromkeys(told))
        return place

    answer.write = write
    return answer


def _sources(given: list[Any]) -> list[str]:
    """Where the documents can be read again; nothing where one of the inputs is no path and no name."""
    if not all(isinstance(one, (str, Path)) for one in given):
        return []
    from pipelines.data.catalog import is_name

    found = [str(Path(one).resolve()) if there(one) else str(one) for one in given]
    return found if all(there(one) or is_name(one, "match") for one in found) else []


@dataclasses.dataclass
class _Work:
    """Documents on their way to vectors, and what is counted of them."""

    m: Matcher
    documents: Iterator[Document]
    expected: int | None
    tally: Tally
    failed: dict[str, str]

    def __iter__(self) -> Iterator[Document]:
        return self.documents

    def one_file(self, target: Path) -> Path:
        """All vectors in memory, then in one file."""
        names, vectors, facts = [], [], []
        for one in reads(self.m, self, self.failed, "documents encoded"):
            self.tally.add(facts_of(one))
            names.append(one.document.name)
            vectors.append(one.vector)
            facts.append(row_of(one))
        if not names:
            raise self._nothing()
        return write_vectors(target, names, np.stack(vectors), facts)

    def shards(self, target: Path, sources: list[str], told: list[str]) -> Path:
        """An index, shard by shard: memory does not grow with the documents, and a run that was stopped can go on."""
        m = self.m
        config = {
            "identity": vector_identity(m),
            "model": m.model,
            "blocks": dataclasses.asdict(m.blocks),
            "sources": sources,
        }
        unfinished = target.with_name(f"{target.name}.partial") / STATE_FILE
        before = 0
        if unfinished.is_file() and not m.run.overwrite:
            writer = ShardWriter.resume(target, config=config)
            before = writer.rows
        else:
            writer = ShardWriter(
                target, m.state.module.config.vector_size, config=config, shard_rows=_SHARD, overwrite=m.run.overwrite
            )
        with writer:
            m.run.begin_training()  # what follows can be resumed, by the configuration that this leaves in the folder
            given, closed = self.documents, time.monotonic()
            self.documents = (one for one in given if not writer.already(one.name))
            for one in reads(m, self, self.failed, "documents encoded"):
                if not before:
                    self.tally.add(facts_of(one))
                writer.add([one.document.name], one.vector[None], [row_of(one)])
                if time.monotonic() - closed > _SECONDS:
                    writer.checkpoint()
                    closed = time.monotonic()
            if not writer.rows:
                raise self._nothing()
        if before:
            index = Index.open(target)
            for row in range(len(index)):  # what the earlier run counted stands there alone
                self.tally.add(stored_facts(index.name(row), index.facts(row)))
            told.append(f"went on with an interrupted run: {before:,} documents were encoded before")
        return target

    def _nothing(self) -> InputError:
        problem = "; ".join(list(self.failed.values())[:3]) or "no document"
        return InputError("no document can be read", where="inputs", found=problem)
