"""Answers as files: JSON, JSON lines and tables by the ending of the name, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError
from pipelines.match.document_facts import DocumentFacts, one_line
from pipelines.match.passages import Answer
from pipelines.values import to_json

__all__ = ["answer_cells", "counted_cells", "save_rows"]


def save_rows(
    path: str | Path,
    rows: Callable[[], list[dict[str, Any]]],
    lines: Sequence[dict[str, Any]],
    whole: Callable[[], dict[str, Any]],
    endings: Sequence[str],
) -> Path:
    """Write an answer by the ending of the name.

    Args:
        path: where to.
        rows: gives flat rows for .csv, .tsv and .parquet.
        lines: one object a line of .jsonl.
        whole: gives the object of .json.
        endings: those that a message names.

    Raises:
        ConfigError: another ending.
        RunError: the disk is full or not writable.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_rows(f"{folder}/a.csv", lambda: [{"a": 1, "b": "x"}], [], dict, [".csv"]).read_text()
        'a,b\\n1,x\\n'
    """
    from pipelines.files import atomic_write

    target = Path(path)
    kind = target.suffix.lower()
    if kind == ".json":
        return atomic_write(target, to_json(whole(), indent=1) + "\n")
    if kind == ".jsonl":
        return atomic_write(target, "".join(f"{to_json(line)}\n" for line in lines))
    if kind not in (".csv", ".tsv", ".parquet"):
        raise ConfigError(
            "cannot write this kind of file", where=target, found=target.suffix, expected=", ".join(endings)
        )
    import pandas as pd

    frame = pd.DataFrame(rows())
    if kind == ".parquet":
        return atomic_write(target, frame.to_parquet(index=False))
    return atomic_write(target, frame.to_csv(index=False, sep="," if kind == ".csv" else "\t"))


def counted_cells(side: str, facts: DocumentFacts | None) -> dict[str, int | None]:
    """Counts of a document as cells of a row.

    Example:
        >>> counted_cells("left", DocumentFacts("a", blocks=2, tokens=40))
        {'left_tokens': 40, 'left_blocks': 2, 'left_sentences_cut': 0, 'left_tokens_dropped': 0}
    """
    names = ("tokens", "blocks", "sentences_cut", "tokens_dropped")
    return {f"{side}_{name}": None if facts is None else getattr(facts, name) for name in names}


def answer_cells(left: str, right: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """The best pair of passages as cells of a row: similarity, and of each side block, characters and text in one line.

    Example:
        >>> sorted(answer_cells("query", "document", ()))[:3]
        ['document_block', 'document_from', 'document_passage']
    """
    best = answers[0] if answers else None
    cells: dict[str, Any] = {"similarity": None if best is None else best.similarity}
    for side, name in enumerate((left, right)):
        block, span, text = None, (None, None), None
        if best is not None:
            block = (best.left_block, best.right_block)[side]
            span = (best.left_span, best.right_span)[side]
            text = one_line((best.left_text, best.right_text)[side], 0)
        cells |= {f"{name}_block": block, f"{name}_from": span[0], f"{name}_to": span[1], f"{name}_passage": text}
    return cells
