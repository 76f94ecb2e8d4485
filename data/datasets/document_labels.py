"""How lists of pairs name their columns, labels and parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "ANCHOR",
    "IDS",
    "LABEL",
    "LEFT",
    "NEGATIVE",
    "PART",
    "PARTS",
    "POSITIVE",
    "RIGHT",
    "label_of",
    "part_of_file",
    "value_of",
]

#: Names that columns and keys may have, in lower case; the first that is there counts.
LEFT = (
    "left", "a", "doc1", "document1", "text1", "text_1", "text_a", "doc_a", "sentence1", "source1", "left_path", "url1",
)  # fmt: skip
RIGHT = (
    "right", "b", "doc2", "document2", "text2", "text_2", "text_b", "doc_b", "sentence2", "source2", "right_path",
    "url2",
)  # fmt: skip
ANCHOR, POSITIVE, NEGATIVE = ("anchor", "query"), ("positive", "pos"), ("negative", "neg", "negatives")
IDS = (
    ("left_id", "id1", "doc1_id", "left_name", "input1_id"),
    ("right_id", "id2", "doc2_id", "right_name", "input2_id"),
)
LABEL = ("label", "score", "target", "y", "match", "is_match", "relevance", "human_label")
PART = ("split", "part", "partition")
#: What sets call their parts, and what this package calls them.
PARTS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "eval"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WORDS = {"true": 1, "yes": 1, "match": 1, "false": 0, "no": 0}


def part_of_file(name: str) -> str:
    """The part that a file's name tells; empty where it tells none.

    Example:
        >>> part_of_file("new_aan_pairs.eval.tsv"), part_of_file("pairs.tsv")
        ('valid', '')
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in PARTS]
    return PARTS[words[0]] if words else ""


def value_of(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first value that is there; NaN and None are not.

    Example:
        >>> value_of({"a": None, "left": "x"}, LEFT)
        'x'
    """
    found = (row[name] for name in names if name in row)
    there = (value for value in found if value is not None and not (isinstance(value, float) and value != value))
    return next(there, None)


def label_of(value: Any, counts: Counter[str]) -> int | str:
    """0 or 1, or what is wrong with the label; what is not plain is counted.

    Example:
        >>> label_of("2", Counter()), label_of(False, Counter()), label_of(None, Counter())
        (1, 0, 'no label')
    """
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return "no label" if value in (None, "") else f"the label is {value!r}, neither a number nor true or false"
    if number != number or number in (float("inf"), float("-inf")) or number != int(number):
        return f"the label is {value!r}: whole numbers are understood, above 0 a match"
    if number > 1:
        counts["labels above 1 count as matches"] += 1
    if number < 0:
        counts["labels below 0 count as no match"] += 1
    return int(number > 0)
