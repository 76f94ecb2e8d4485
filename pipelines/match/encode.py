"""Vectors of any number of documents on disk: an index that search maps into memory, or one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.formats.document_types import Document
from pipelines.errors import InputError
from pipelines.match.document_facts import Tally
from pipelines.match.encoded import Encoded
from pipelines.match.predict import facts_of, reads, vector_identity
from pipelines.match.reading import open_stream
from pipelines.match.shards import ShardWriter
from pipelines.match.vectors_io import VECTOR_ENDINGS, write_vectors

if TYPE_CHECKING:
    from pipelines.match.pipeline import Matcher

__all__ = ["encode"]


def encode(m: Matcher, inputs: Any) -> Encoded:
    """What is to be encoded; the work is done when the answer is saved, so that vectors go straight to their place."""
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    streams = [open_stream(m, one) for one in given]
    tally, failed = Tally(), dict[str, str]()
    name = streams[0].name if len(streams) == 1 else f"{len(streams)} sources"
    source = str(Path(given[0]).resolve()) if len(given) == 1 and isinstance(given[0], (str, Path)) else ""
    if source and not Path(source).exists():
        source = str(given[0])  # a name of the catalogue

    def documents() -> Iterator[Document]:
        for stream in streams:
            yield from stream
            failed.update(stream.failures)

    answer = Encoded(
        m.model,
        m.provenance(name),
        m.state.module.config.vector_size,
        tally,
        failed=failed,
        limit=m.blocks.limit,
    )

    def write(target: Path) -> Path:
        if target.suffix.lower() in VECTOR_ENDINGS:
            return _one_file(m, documents(), target, tally, failed)
        place = _shards(m, documents(), target, source, tally, failed)
        answer.told = tuple(dict.fromkeys(note for stream in streams for note in stream.notes))
        return place

    answer.write = write
    return answer


def _one_file(m: Matcher, documents: Iterator[Document], target: Path, tally: Tally, failed: dict[str, str]) -> Path:
    """All vectors in memory, then in one file."""
    names, vectors, facts = [], [], []
    for one in reads(m, documents, failed, "documents encoded"):
        told = facts_of(one)
        tally.add(told)
        names.append(one.document.name)
        vectors.append(one.vector)
        facts.append({"title": told.title, **told.counts()})
    if not names:
        raise InputError("no document can be read", where="inputs", found=" ".join(failed.values()) or "no document")
    return write_vectors(target, names, np.stack(vectors), facts)


def _shards(
    m: Matcher, documents: Iterator[Document], target: Path, source: str, tally: Tally, failed: dict[str, str]
) -> Path:
    """An index, shard by shard: memory does not grow with the number of documents, and a killed run can go on."""
    config = {
        "identity": vector_identity(m),
        "model": m.model,
        "blocks": dataclasses.asdict(m.blocks),
        "source": source,
    }
    partial = target.with_name(f"{target.name}.partial")
    if partial.exists():
        writer = ShardWriter.resume(target, config=config, overwrite=m.run.overwrite)
    else:
        writer = ShardWriter(target, m.state.module.config.vector_size, config=config, overwrite=m.run.overwrite)
    with writer:
        fresh = (one for one in documents if not writer.already(one.name))
        for one in reads(m, fresh, failed, "documents encoded"):
            told = facts_of(one)
            tally.add(told)
            writer.add([one.document.name], one.vector[None], [{"title": told.title, **told.counts()}])
        if not writer.rows:
            problem = " ".join(failed.values()) or "no document"
            raise InputError("no document can be read", where="inputs", found=problem)
    return target
