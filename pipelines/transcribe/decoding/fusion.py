"""A language model beside a decoder: what it says when a unit is added, whatever the units and the model's tokens."""

from __future__ import annotations

import bisect
import codecs
import math
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError
from pipelines.transcribe.decoding.ngram import END, UNKNOWN, Context, NGram
from pipelines.transcribe.decoding.scoring import FIRST_UNIT
from pipelines.transcribe.decoding.text import UnitSet, unit_bytes

__all__ = ["Fusion", "FusionState"]

_MOST_KEPT = 500_000
_MOST_SUMS = 20_000_000  # values: 160 MB
_LEAST = 1e-300
_SPACE = re.compile(r"\s")


class FusionState(NamedTuple):
    """Where a text stands: the model's context, the word begun, bytes of a letter begun, and whether any unit came."""

    context: Context
    word: str = ""
    pending: bytes = b""
    begun: bool = False


class Fusion:
    """Log-probabilities of an n-gram model for units of any kind.

    A model of characters scores every letter as it comes. So does a model of words: a word that is begun counts as much
    as all words together that begin so, and as itself when a space or the end of the text ends it; without that a beam
    would fill with texts that put the price off by never writing a space. A word that the model does not know costs the
    probability of unknown words times that of its spelling, all letters being equally probable; so it is not as cheap
    as all unknown words together. A space too many counts as an unknown word without letters.

    Args:
        lm: the model.
        units: what the ids mean.

    Raises:
        ConfigError: the model has no letter in common with the units.

    Example:
        >>> class Letters:
        ...     kind, size, pieces = "char", 5, ["<blank>", "<s>", " ", "a", "b"]
        ...     def decode(self, ids):
        ...         return "".join(self.pieces[i] for i in ids if i > 1)
        >>> fusion = Fusion(NGram.from_text(["ab", "ab"], order=2), Letters())
        >>> a, b = fusion.scores(fusion.start(), np.array([3, 4]))
        >>> bool(a > b)
        True
    """

    def __init__(self, lm: NGram, units: UnitSet) -> None:
        self.lm, self.kind = lm, units.kind
        self.bytes = unit_bytes(units)
        letters = {letter for token in lm.vocabulary[FIRST_UNIT:] for letter in token} - {" "}
        offered = set(b"".join(self.bytes).decode(errors="replace"))
        if self.kind != "byte" and not letters & offered:
            raise ConfigError(
                "the language model has no letter in common with the units of the recogniser",
                where="lm",
                found=f"{''.join(sorted(letters)[:20])!r} beside {''.join(sorted(offered)[:20])!r}",
                cure="estimate it from text in the writing of the recogniser (lower case, mostly)",
            )
        self.spelling = math.log(len(letters) + 1)  # one letter more: where the word ends
        self.texts = [] if self.kind == "byte" else [_SPACE.sub(" ", piece.decode()) for piece in self.bytes]
        # Characters on both sides: one table look-up instead of a walk for each unit.
        single = self.kind == "char" and lm.unit == "char" and all(len(text) == 1 for text in self.texts[FIRST_UNIT:])
        self.table = np.array([lm.token_id(text) for text in self.texts]) if single else None
        self.words = sorted(lm.vocabulary[FIRST_UNIT:]) if lm.unit == "word" else []
        self._order = np.array([lm.ids[word] for word in self.words], np.int64)
        self._sums: dict[Context, NDArray[np.float64]] = {}
        self._kept: dict[tuple[FusionState, int], tuple[float, FusionState]] = {}

    @classmethod
    def of(cls, lm: NGram | Fusion, units: UnitSet | None) -> Fusion:
        """Make one, or say that the units are lacking; what is one already stays and keeps what it has looked up.

        Raises:
            ConfigError: no units; see the class for the rest.
        """
        if isinstance(lm, Fusion):
            return lm
        if units is None:
            raise ConfigError("a language model needs to know what the units mean", where="units", found=None)
        return cls(lm, units)

    def start(self) -> FusionState:
        """The state of the empty text."""
        return FusionState(self.lm.start())

    def scores(self, state: FusionState, ids: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float64]:
        """(C,) log-probabilities of adding each of C units.

        Complexity: O(C) look-ups, and O(number of tokens) for each context that is new.
        """
        if self.table is not None:
            return self.lm.row(state.context)[self.table[np.asarray(ids)]]
        return np.array([self._step(state, int(unit))[0] for unit in ids], np.float64)

    def advance(self, state: FusionState, unit: int) -> FusionState:
        """The state after a unit."""
        if self.table is not None:
            return FusionState(self.lm.advance(state.context, int(self.table[unit])))
        return self._step(state, unit)[1]

    def end(self, state: FusionState) -> float:
        """Log-probability that the text ends here, with what the word that was begun still costs."""
        score, context = self._finish(state.context, state.word) if state.word else (0.0, state.context)
        return score + self.lm.logp(context, END)

    def _step(self, state: FusionState, unit: int) -> tuple[float, FusionState]:
        known = self._kept.get((state, unit))
        if known is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            known = self._kept[state, unit] = self._walk(state, unit)
        return known

    def _walk(self, state: FusionState, unit: int) -> tuple[float, FusionState]:
        text, pending = self._text(state, unit)
        if self.kind == "sentencepiece" and not state.begun:
            text = text.removeprefix(" ")  # its first unit begins with a space that is not in the text
        score, context, word = 0.0, state.context, state.word
        if self.lm.unit == "char":
            for letter in text:
                token = self.lm.token_id(letter)
                score += self.lm.logp(context, token)
                context = self.lm.advance(context, token)
            return score, FusionState(context, "", pending, True)
        for number, part in enumerate(text.split(" ")):
            if number and not word:  # a space after none or another: an unknown word without letters
                score += self.lm.logp(context, UNKNOWN) - self.spelling
            elif number:
                gain, context = self._finish(context, word)
                score, word = score + gain, ""
            if part:
                score += self._begun(context, word + part) - self._begun(context, word)
                word += part
        return score, FusionState(context, word, pending, True)

    def _text(self, state: FusionState, unit: int) -> tuple[str, bytes]:
        """What a unit adds, all white space as spaces; and the bytes of a letter that is not complete yet."""
        if self.texts:
            return self.texts[unit], b""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        return _SPACE.sub(" ", decoder.decode(state.pending + self.bytes[unit])), decoder.getstate()[0]

    def _begun(self, context: Context, begin: str) -> float:
        """Log-probability of all words together that begin so, known ones and unknown ones; 0 for no letters."""
        if not begin:
            return 0.0
        sums = self._sums.get(context)
        if sums is None:
            if len(self._sums) * len(self.words) > _MOST_SUMS:
                self._sums.clear()
            sums = np.concatenate([[0.0], np.cumsum(np.exp(self.lm.row(context)[self._order]))])
            self._sums[context] = sums
        low, high = bisect.bisect_left(self.words, begin), bisect.bisect_left(self.words, begin + chr(sys.maxunicode))
        unknown = math.exp(self.lm.logp(context, UNKNOWN) - self.spelling * len(begin))
        return math.log(max(float(sums[high] - sums[low]) + unknown, _LEAST))

    def _finish(self, context: Context, word: str) -> tuple[float, Context]:
        """What a word costs when it ends beyond what it cost when it was begun; and the context after it."""
        token = self.lm.token_id(word)
        score = self.lm.logp(context, token) - (self.spelling * (len(word) + 1) if token == UNKNOWN else 0.0)
        return score - self._begun(context, word), self.lm.advance(context, token)
