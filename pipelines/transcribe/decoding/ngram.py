"""Language models of n characters or words, estimated from plain text or read from ARPA files.

A model is kept in back-off form: the probability of every n-gram that occurs, and of every context the factor with
which the probabilities of the shorter context count for the rest. An interpolated estimate has exactly that form.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError

__all__ = ["BEGIN", "END", "UNKNOWN", "Context", "NGram", "Perplexity", "Unit"]

Unit = Literal["char", "word"]
#: The ids of the last tokens, as many as make a difference.
Context = tuple[int, ...]
#: Ids that are no tokens of the text: before it, after it, everything that the model does not know.
BEGIN, END, UNKNOWN = -1, 0, 1
NAMES = {BEGIN: "<s>", END: "</s>", UNKNOWN: "<unk>"}
SPACE = "<space>"  # how ARPA files write the space of a character model: they part tokens by spaces
_MOST_ROW_VALUES = 20_000_000  # of the rows kept: 160 MB


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """How well a model foresees texts: exp of the mean loss a token, ends of lines included.

    Attributes:
        value: 1 is certainty.
        tokens: how many were foreseen, with one end a line.
        unknown: how many of them the model does not know.
    """

    value: float
    tokens: int
    unknown: int


class NGram:
    """A back-off model over characters or words; texts begin in the context `start()` and end with the id `END`.

    Args:
        unit: "char": a token is a character, spaces included; "word": what stands between spaces.
        order: the longest n-gram.
        vocabulary: tokens by id, first "</s>" and "<unk>".
        grams: log-probability of n-grams (natural logarithm) by their ids.
        backoff: logarithm of each context's factor; every context of an n-gram has one.
        notes: what a user should know of how it came to be.

    Example:
        >>> model = NGram.from_text(["good bye", "good day"], order=2, unit="word")
        >>> round(math.exp(model.score(["good"], "day")), 2)
        0.28
    """

    def __init__(
        self,
        unit: Unit,
        order: int,
        vocabulary: Sequence[str],
        grams: Mapping[Context, float],
        backoff: Mapping[Context, float],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.unit, self.order, self.vocabulary, self.notes = unit, order, tuple(vocabulary), notes
        self.ids = {token: number for number, token in enumerate(self.vocabulary)}
        self.grams, self.backoff = dict(grams), dict(backoff)
        self._following: dict[Context, tuple[list[int], list[float]]] = {}
        self._rows: dict[Context, NDArray[np.float64]] = {}

    @classmethod
    def from_text(
        cls, lines: Iterable[str], order: int = 4, unit: Unit = "char", vocabulary: Iterable[str] = ()
    ) -> NGram:
        """Estimate a model by interpolated modified Kneser-Ney smoothing; see `ngram_estimate` for its equations.

        Args:
            lines: texts, one each; runs of spaces count as one, empty lines are left out and counted in `notes`.
            order: n, 1 to 10.
            unit: "char" or "word".
            vocabulary: tokens that the model knows though no line has them.

        Raises:
            ConfigError: another order or unit.
            InputError: no text, or a word that looks like one of the markers <s>, </s>, <unk>.

        Complexity: O(order x tokens) time and memory.

        Example:
            >>> NGram.from_text(["abab", "ab"], order=3).order
            3
        """
        from pipelines.transcribe.decoding.ngram_estimate import estimate

        if not 1 <= order <= 10:
            raise ConfigError("this order of an n-gram model is not offered", found=order, expected="1 to 10")
        texts = [tokenise(line, unit) for line in lines]
        known = [text for text in texts if text]
        empty = len(texts) - len(known)
        clash = sorted({token for text in known for token in text} & {*NAMES.values(), SPACE})
        if clash:
            raise InputError("the text holds a marker of the language model as a word", found=", ".join(clash))
        if not known:
            raise InputError("there is no text to estimate a language model from", found=f"{empty} empty lines")
        tokens = sorted({token for text in known for token in text} | set(vocabulary))
        ids = {token: number for number, token in enumerate((NAMES[END], NAMES[UNKNOWN], *tokens))}
        grams, backoff, smoothing = estimate([[ids[t] for t in text] for text in known], order, len(ids))
        notes = (f"{empty} empty lines left out",) if empty else ()
        return cls(unit, order, list(ids), grams, backoff, (*notes, *smoothing))

    def start(self) -> Context:
        """The context before the first token."""
        return (BEGIN,) if (BEGIN,) in self.backoff else ()

    def token_id(self, token: str) -> int:
        """The id of a token; `UNKNOWN` for what the model does not know.

        Example:
            >>> NGram.from_text(["ab"], order=1).token_id("z") == UNKNOWN
            True
        """
        return self.ids.get(token, UNKNOWN)

    def logp(self, context: Context, token: int) -> float:
        """Log-probability of a token id after a context.

        Complexity: O(order) look-ups.

        Example:
            >>> model = NGram.from_text(["ab", "ab", "aa"], order=2)
            >>> context = model.advance(model.start(), model.token_id("a"))
            >>> model.logp(context, model.token_id("b")) > model.logp(context, END)
            True
        """
        total = 0.0
        while (value := self.grams.get((*context, token))) is None and context:
            total += self.backoff.get(context, 0.0)
            context = context[1:]
        return total + (self.grams[(UNKNOWN,)] if value is None else value)

    def advance(self, context: Context, token: int) -> Context:
        """The context after one more token: no longer than what the model tells apart, so equal ones are equal."""
        longer = (*context, token)[-(self.order - 1) :] if self.order > 1 else ()
        while longer and longer not in self.backoff:
            longer = longer[1:]
        return longer

    def row(self, context: Context) -> NDArray[np.float64]:
        """Log-probabilities of all token ids after a context, (number of tokens,); kept for the next time.

        Complexity: O(number of tokens) the first time.

        Example:
            >>> model = NGram.from_text(["abc", "abd"], order=3)
            >>> round(float(np.exp(model.row(model.start())).sum()), 9)
            1.0
        """
        known = self._rows.get(context)
        if known is None:
            if not self._following:
                for gram, value in self.grams.items():
                    ids, values = self._following.setdefault(gram[:-1], ([], []))
                    ids.append(gram[-1])
                    values.append(value)
            if context:
                known = self.row(context[1:]) + self.backoff.get(context, 0.0)
            else:
                known = np.full(len(self.vocabulary), self.grams[(UNKNOWN,)])
            ids, values = self._following.get(context, ([], []))
            known[ids] = values
            if len(self._rows) * len(self.vocabulary) > _MOST_ROW_VALUES:
                self._rows.clear()
            self._rows[context] = known
        return known

    def score(self, history: Sequence[str], token: str) -> float:
        """Log-probability of a token after all tokens of its text before it; "</s>" is the end.

        Example:
            >>> model = NGram.from_text(["ab"] * 9, order=2)
            >>> model.score(["a"], "b") > model.score(["b"], "b")
            True
        """
        context = self.start()
        for before in history:
            context = self.advance(context, self.token_id(before))
        return self.logp(context, self.token_id(token))

    def perplexity(self, lines: Iterable[str]) -> Perplexity:
        """How well the model foresees texts, one a line; empty lines count as a text without tokens.

        Raises:
            InputError: no lines.

        Complexity: O(order x tokens).

        Example:
            >>> model = NGram.from_text(["ab", "abab"] * 20, order=3)
            >>> model.perplexity(["ab"]).value < model.perplexity(["ba"]).value
            True
        """
        total, count, unknown = 0.0, 0, 0
        for line in lines:
            context = self.start()
            for token in [*(self.token_id(token) for token in tokenise(line, self.unit)), END]:
                total += self.logp(context, token)
                context = self.advance(context, token)
                count, unknown = count + 1, unknown + (token == UNKNOWN)
        if count == 0:
            raise InputError("perplexity needs a line of text")
        return Perplexity(math.exp(-total / count), count, unknown)

    def to_config(self) -> dict[str, Any]:
        """Plain values for JSON, from which `from_config` makes the same model."""
        contexts = {(BEGIN,): None, **self.grams}
        grams = [[list(gram), value, self.backoff.get(gram)] for gram, value in contexts.items()]
        described = {"unit": self.unit, "order": self.order, "vocabulary": list(self.vocabulary)}
        return {"format": "ngram-1", **described, "notes": list(self.notes), "grams": grams}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: object = "") -> NGram:
        """Make the model of `to_config`.

        Raises:
            InputError: values that are no such model.

        Example:
            >>> model = NGram.from_text(["abc"], order=2)
            >>> NGram.from_config(model.to_config()).score(["a"], "b") == model.score(["a"], "b")
            True
        """
        try:
            if config["format"] != "ngram-1" or config["unit"] not in get_args(Unit):
                raise KeyError(config["format"])
            entries = [(tuple(map(int, gram)), value, factor) for gram, value, factor in config["grams"]]
            grams = {gram: float(value) for gram, value, _ in entries if value is not None}
            backoff = {gram: float(factor) for gram, _, factor in entries if factor is not None}
            vocabulary = [str(token) for token in config["vocabulary"]]
            model = cls(cast(Unit, config["unit"]), int(config["order"]), vocabulary, grams, backoff)
            model.notes = tuple(map(str, config.get("notes", ())))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("these values are no n-gram model", where=where, found=repr(error)) from error
        return model.checked(where)

    def checked(self, where: object = "") -> NGram:
        """Return this model after a check that every answer exists.

        Raises:
            InputError: tokens without a probability, ids out of range, values above 0 or not numbers.
        """
        count = len(self.vocabulary)
        lost = [self.vocabulary[i] for i in range(count) if (i,) not in self.grams]
        if lost:
            raise InputError("an n-gram model lacks probabilities of its own tokens", where=where, found=lost[:5])
        wrong = [g for g in self.grams if not 1 <= len(g) <= self.order or not BEGIN <= min(g) <= max(g) < count]
        if wrong:
            raise InputError("an n-gram model holds an entry that does not fit it", where=where, found=wrong[0])
        fits = all(value <= 1e-6 for value in self.grams.values())
        if not fits or not all(math.isfinite(factor) for factor in self.backoff.values()):
            raise InputError("an n-gram model holds values that are no logarithms of probabilities", where=where)
        return self


def tokenise(line: str, unit: str) -> list[str]:
    """Cut a text into tokens; spaces at the ends are dropped and runs of them are one.

    Raises:
        ConfigError: another unit.

    Example:
        >>> tokenise(" no  way", "char"), tokenise(" no  way", "word")
        (['n', 'o', ' ', 'w', 'a', 'y'], ['no', 'way'])
    """
    if unit not in get_args(Unit):
        raise ConfigError("this unit of a language model is not offered", found=unit, expected='"char" or "word"')
    words = line.split()
    return words if unit == "word" else list(" ".join(words))
