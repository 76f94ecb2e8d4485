"""Text of transcripts: normalisers for error rates, with names and versions, and texts made fit for training."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from pipelines.data.datasets.speech_english import normalise_english
from pipelines.data.errors import InputError

__all__ = ["NORMALISERS", "Normaliser", "normalise_raw", "normaliser", "prepare_text"]

#: Shapes of apostrophes, dashes, quotation marks and spaces, and the plain characters for them.
_TYPOGRAPHIC = {
    **dict.fromkeys(map(ord, "’‘ʼ‛＇′`´"), "'"),
    **dict.fromkeys(map(ord, "‐‑‒–—―−"), "-"),
    **dict.fromkeys(map(ord, "“”„‟«»″＂"), '"'),
    ord("…"): "...",
}


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """A rule that transcripts go through before they are compared.

    Attributes:
        name, version: stand beside every figure; another version may give other figures.
        rule: the function.

    Example:
        >>> Normaliser("upper", "1", str.upper).label
        'upper-1'
    """

    name: str
    version: str
    rule: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """The normalised text."""
        return self.rule(text)

    @property
    def label(self) -> str:
        """Name and version as results carry them."""
        return f"{self.name}-{self.version}"


def normalise_raw(text: str) -> str:
    """Words as they are written, as the recipes for LibriSpeech compare them.

    Composed (NFC) and in lower case, not upper: the same comparison. Typographic apostrophes become ', which stays;
    every other character that is no letter, mark or digit (hyphens, too) becomes a space; spaces are collapsed.
    Numbers, spelling, fillers and contractions stay.

    Complexity: O(length).

    Source: sheet 26, section 7, mode "raw".

    Example:
        >>> normalise_raw("DON’T  touch my well-known Café, please!")
        "don't touch my well known café please"
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text.translate(_TYPOGRAPHIC)).lower())
    return " ".join("".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text).split())


#: All normalisers by name.
NORMALISERS: Mapping[str, Normaliser] = {
    one.name: one for one in (Normaliser("raw", "1", normalise_raw), Normaliser("english", "1", normalise_english))
}


def normaliser(name: str) -> Normaliser:
    """The normaliser of a name, with or without its version.

    Raises:
        InputError: no such name, or another version.

    Example:
        >>> normaliser("english").label, normaliser("raw-1").name
        ('english-1', 'raw')
    """
    for one in NORMALISERS.values():
        if name in (one.name, one.label):
            return one
    expected = ", ".join(one.label for one in NORMALISERS.values())
    raise InputError("there is no such normaliser", where="normaliser", found=name, expected=expected)


def prepare_text(text: str, alphabet: Collection[str]) -> tuple[str, Counter[str]]:
    """A transcript as a model is trained on it, and the characters in it that the model cannot write.

    Composed (NFC); in lower case, unless the alphabet has capitals; typographic apostrophes, dashes and quotation marks
    become plain ones; spaces are collapsed. Punctuation outside the alphabet goes: apostrophes and full stops within
    words without a trace (don't -> dont, u.s. -> us), all other becomes a space. Letters, digits and symbols outside
    the alphabet stay and are counted: what "5 %" or "é" should become, the caller must decide.

    Args:
        text: any.
        alphabet: the characters that may be written (:attr:`Units.writable`); empty means all letters, digits and
            symbols, the apostrophe and the space.

    Returns:
        (text, characters outside the alphabet with their counts); `Units.encode` takes the text if none are outside.

    Complexity: O(length).

    Example:
        >>> prepare_text("“Don’t”, he said—at 5 p.m.", " 'abcdefghijklmnopqrstuvwxyz")
        ("don't he said at 5 pm", Counter({'5': 1}))
    """
    allowed = frozenset(alphabet)
    text = unicodedata.normalize("NFC", text.translate(_TYPOGRAPHIC))
    if not any(c.isupper() for c in allowed):
        text = unicodedata.normalize("NFC", text.lower())
    written = "".join(_written(text, place, allowed) for place in range(len(text)))
    prepared = " ".join(written.split())
    outside = Counter(c for c in prepared if c not in allowed) if allowed else Counter[str]()
    return prepared, outside


def _written(text: str, place: int, allowed: frozenset[str]) -> str:
    """What stands for one character: itself, a space, or nothing."""
    character = text[place]
    if character in allowed or (character == "'" and not allowed):
        return character
    kind = unicodedata.category(character)
    if kind[0] not in "PZC" or character == "%":
        return character
    within = place + 1 < len(text) and text[place + 1].isalpha() and place > 0 and text[place - 1].isalpha()
    return "" if character == "'" or (character == "." and within) else " "
