"""What ids of units mean as text: the whole text of a hypothesis, and what each unit adds to it."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from pipelines.transcribe.decoding.scoring import FIRST_UNIT

__all__ = ["UnitSet", "to_text", "unit_bytes", "unit_texts"]

_SPACE_MARK = "\u2581"  # how SentencePiece writes the space before a word


class UnitSet(Protocol):
    """What decoding needs of a set of units; ids 0 and 1 are blank and boundary."""

    @property
    def kind(self) -> str:
        """One of "char", "byte", "sentencepiece"."""
        ...

    @property
    def size(self) -> int:
        """V, with the two special ids."""
        ...

    @property
    def pieces(self) -> Sequence[str]:
        """Names of all ids."""
        ...

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of ids."""
        ...


def to_text(units: UnitSet, ids: Sequence[int]) -> str:
    """The text of decoded ids, its words parted by single spaces, none at the ends.

    Complexity: O(number of ids).

    Example:
        >>> class Letters:
        ...     kind, size, pieces = "char", 5, ["<blank>", "<s>", " ", "a", "b"]
        ...     def decode(self, ids):
        ...         return "".join(self.pieces[i] for i in ids if i > 1)
        >>> to_text(Letters(), [2, 3, 2, 2, 4])
        'a b'
    """
    return " ".join(units.decode(list(ids)).split())


def unit_bytes(units: UnitSet) -> list[bytes]:
    """The UTF-8 bytes that each id adds to a text, (V,); none for blank and boundary.

    A SentencePiece unit that begins a word begins with a space; byte units are single bytes, id minus 2.

    Complexity: O(V).

    Example:
        >>> class Bytes:
        ...     kind, size, pieces = "byte", 258, [str(i) for i in range(258)]
        ...     def decode(self, ids):
        ...         return bytes(i - 2 for i in ids if i > 1).decode(errors="replace")
        >>> unit_bytes(Bytes())[97 + 2]
        b'a'
    """
    if units.kind == "byte":
        each = [bytes([number]) for number in range(units.size - FIRST_UNIT)]
    elif units.kind == "sentencepiece":
        each = [piece.replace(_SPACE_MARK, " ").encode() for piece in list(units.pieces)[FIRST_UNIT:]]
    else:
        each = [units.decode([number]).encode() for number in range(FIRST_UNIT, units.size)]
    return [b""] * FIRST_UNIT + each


def unit_texts(units: UnitSet, ids: Sequence[int]) -> list[str]:
    """What each of the ids adds to the text; a letter of several bytes comes with its last byte.

    Bytes that are no UTF-8 become the replacement character, as in `Units.decode`.

    Complexity: O(V + number of ids).

    Example:
        >>> class Bytes:
        ...     kind, size, pieces = "byte", 258, [str(i) for i in range(258)]
        ...     def decode(self, ids):
        ...         return bytes(i - 2 for i in ids if i > 1).decode(errors="replace")
        >>> unit_texts(Bytes(), [b + 2 for b in "né".encode()])
        ['n', '', 'é']
    """
    each = unit_bytes(units)
    if units.kind != "byte":
        return [each[number].decode() for number in ids]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    texts = [decoder.decode(each[number]) for number in ids]
    if texts:
        texts[-1] += decoder.decode(b"", final=True)
    return texts
