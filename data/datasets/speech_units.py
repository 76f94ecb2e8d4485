"""Units of text that a recogniser writes: characters, bytes of UTF-8, or SentencePiece pieces, with their numbers."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from pipelines.data.errors import InputError

__all__ = ["BLANK", "ENGLISH", "KINDS", "SPECIAL", "START", "Units"]

#: Number of the CTC head's blank; the text decoder never writes it.
BLANK = 0
#: Number of the begin and end of a text; the CTC head never writes it.
START = 1
#: Names of the two numbers before the units.
SPECIAL = ("<blank>", "<s>")
#: Letters, apostrophe and space: what the LibriSpeech transcripts are made of, in lower case.
ENGLISH = " 'abcdefghijklmnopqrstuvwxyz"
KINDS = ("char", "byte", "sentencepiece")
#: SentencePiece writes spaces as this character.
_SPACE = "▁"
_NAMED = 12  # characters that a message spells out


class _Pieces(Protocol):
    """What is used of SentencePieceProcessor, which has no types of its own."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...
    def get_piece_size(self) -> int: ...
    def id_to_piece(self, number: int) -> str: ...
    def unk_id(self) -> int: ...
    def bos_id(self) -> int: ...
    def eos_id(self) -> int: ...
    def pad_id(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Units:
    """One vocabulary for the CTC head and the text decoder: 0 = blank, 1 = begin and end of text, 2.. = units.

    Made by `chars`, `from_texts`, `bytes`, `train_sentencepiece` or `from_config`.

    Args:
        kind: "char", "byte" or "sentencepiece".
        symbols: the characters, in the order of their numbers; empty for the other kinds.
        model: a trained SentencePiece model; empty for the other kinds.

    Raises:
        InputError: an unknown kind, no or repeated symbols, a model that cannot be read.

    Example:
        >>> units = Units.chars("abc ")
        >>> units.encode("a cab"), units.decode([1, 2, 5, 0, 4, 2, 3, 1]), units.size
        ([2, 5, 4, 2, 3], 'a cab', 6)
    """

    kind: str
    symbols: tuple[str, ...] = ()
    model: bytes = dataclasses.field(default=b"", repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot encode."""
        if self.kind not in KINDS:
            raise InputError("no such kind of units", where="kind", found=repr(self.kind), expected=", ".join(KINDS))
        if self.kind == "char":
            _check_symbols(self.symbols)
        if self.kind == "sentencepiece":
            _processor(self.model)

    @classmethod
    def chars(cls, alphabet: str = ENGLISH) -> Units:
        """One unit a character, numbered in the order of the alphabet.

        Example:
            >>> Units.chars().size
            30
        """
        return cls("char", tuple(alphabet))

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> Units:
        """One unit for each character (code point) that occurs, in the order of Unicode.

        Example:
            >>> Units.from_texts(["ça va", "là"]).symbols
            (' ', 'a', 'l', 'v', 'à', 'ç')
        """
        return cls("char", tuple(sorted(set().union(*texts))))

    @classmethod
    def bytes(cls) -> Units:
        """The 256 bytes of UTF-8: any text of any language.

        Example:
            >>> Units.bytes().encode("é"), Units.bytes().size
            ([197, 171], 258)
        """
        return cls("byte")

    @classmethod
    def train_sentencepiece(cls, texts: Sequence[str], size: int, seed: int = 0) -> Units:
        """Pieces of words by SentencePiece's unigram model, learnt from texts; text goes in and out unchanged.

        Args:
            texts: the training part's texts, each counted once; no empty list.
            size: pieces wanted, special numbers not counted; texts with few different words give fewer.
            seed: of the library's generator.

        Raises:
            InputError: no text, or a size below the number of different characters.

        Source: Kudo 2018, "Subword Regularization"; library sentencepiece, one thread so that runs agree.

        Example:
            >>> units = Units.train_sentencepiece(["one two three", "two three four", "one four"] * 4, size=20)
            >>> units.decode(units.encode("four two one"))
            'four two one'
        """
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise InputError("no text to learn pieces from", where="texts", expected="one text or more")
        needed = len(set("".join(texts)) - {" "}) + 1
        if size < needed:
            raise InputError(
                "too few pieces for the characters that occur",
                where="size",
                found=size,
                expected=f"{needed} or more",
                cure="prepare the texts (prepare_text), or ask for more pieces",
            )
        return cls("sentencepiece", (), _train(texts, size, seed))

    def encode(self, text: str) -> list[int]:
        """Numbers from 2 on of a text's units.

        Raises:
            InputError: characters that no unit writes, named and counted.

        Complexity: O(length).

        Example:
            >>> Units.chars("ab").encode("abba")
            [2, 3, 3, 2]
        """
        if self.kind == "byte":
            try:
                return [byte + 2 for byte in text.encode("utf-8")]
            except UnicodeEncodeError:
                self._refuse(text)
        if self.kind == "char":
            numbers = self._numbers
            try:
                return [numbers[character] for character in text]
            except KeyError:
                self._refuse(text)
        if not self.writable.issuperset(text):
            self._refuse(text)
        # The library's number 0 stands for unknown characters and is left out here: 1 becomes 2.
        return [number + 1 for number in _processor(self.model).encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of numbers; the two special ones are skipped, bytes that are no UTF-8 become U+FFFD.

        Raises:
            InputError: a number outside the vocabulary.

        Complexity: O(length).

        Example:
            >>> Units.bytes().decode([0, 197, 171, 197, 1])
            'é�'
        """
        wrong = [number for number in ids if not 0 <= number < self.size]
        if wrong:
            raise InputError("no unit has this number", where="ids", found=wrong[0], expected=f"0 to {self.size - 1}")
        units = [int(number) for number in ids if number >= len(SPECIAL)]
        if self.kind == "byte":
            return bytes(number - 2 for number in units).decode("utf-8", "replace")
        if self.kind == "char":
            return "".join(self.symbols[number - 2] for number in units)
        return _processor(self.model).decode([number - 1 for number in units])

    @property
    def size(self) -> int:
        """V: the number of units and the two special numbers."""
        if self.kind == "sentencepiece":
            return _processor(self.model).get_piece_size() + 1
        return len(SPECIAL) + (256 if self.kind == "byte" else len(self.symbols))

    @property
    def pieces(self) -> tuple[str, ...]:
        """Printable names of all V numbers; a space is written ▁, a byte that is no printable ASCII <0xNN>.

        Example:
            >>> Units.chars("a b").pieces
            ('<blank>', '<s>', 'a', '▁', 'b')
        """
        if self.kind == "sentencepiece":
            model = _processor(self.model)
            names = [model.id_to_piece(number) for number in range(1, model.get_piece_size())]
        elif self.kind == "byte":
            names = [chr(byte) if 32 < byte < 127 else f"<0x{byte:02X}>" for byte in range(256)]
            names[ord(" ")] = _SPACE
        else:
            names = [_SPACE if symbol == " " else symbol for symbol in self.symbols]
        return (*SPECIAL, *names)

    @property
    def writable(self) -> frozenset[str]:
        """The characters that texts may hold; empty for bytes, which write them all."""
        if self.kind == "sentencepiece":
            return _characters(self.model)
        return frozenset(self.symbols)

    def to_config(self) -> dict[str, Any]:
        """Plain values for JSON, from which `from_config` makes the same units.

        Example:
            >>> Units.chars("ab").to_config()
            {'kind': 'char', 'symbols': 'ab'}
        """
        config: dict[str, Any] = {"kind": self.kind}
        if self.kind == "char":
            config["symbols"] = "".join(self.symbols)
        if self.kind == "sentencepiece":
            config["model"] = base64.b64encode(self.model).decode("ascii")
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Units:
        """Units as `to_config` wrote them.

        Raises:
            InputError: a kind that does not exist, or symbols or a model that are missing or damaged.

        Example:
            >>> Units.from_config({"kind": "byte"}) == Units.bytes()
            True
        """
        kind, symbols, model = (config.get(name) for name in ("kind", "symbols", "model"))
        if kind == "char" and not isinstance(symbols, str):
            raise InputError("the units have no symbols", where="units", found=repr(symbols), expected="a text")
        if kind == "sentencepiece":
            try:
                return cls("sentencepiece", (), base64.b64decode(model or "", validate=True))
            except (binascii.Error, TypeError, ValueError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError("the SentencePiece model is damaged", where="units", expected="base64") from None
        return cls(str(kind), tuple(symbols) if kind == "char" and isinstance(symbols, str) else ())

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols, len(SPECIAL))}

    def _refuse(self, text: str) -> None:
        """Name the characters that no unit writes, the most frequent first."""
        known = self.writable
        outside = Counter(c for c in text if (c not in known if known else 0xD800 <= ord(c) <= 0xDFFF))
        named = ", ".join(f"{character!r} x {count}" for character, count in outside.most_common(_NAMED))
        more = len(outside) - _NAMED
        raise InputError(
            f"characters that no unit writes: {outside.total()}",
            where=f"text {_short(text)!r}",
            found=named + (f" and {more} more" if more > 0 else ""),
            expected=f"characters of {_short(''.join(sorted(known)), 80)!r}" if known else "Unicode without surrogates",
            cure="prepare the text (prepare_text), or use byte units" if known else None,
        )


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _check_symbols(symbols: Sequence[str]) -> None:
    if not symbols:
        raise InputError("the alphabet is empty", where="symbols", expected="one character or more")
    long = [symbol for symbol in symbols if len(symbol) != 1]
    if long:
        raise InputError("a symbol is not one character", where="symbols", found=repr(long[0]))
    repeated = [symbol for symbol, count in Counter(symbols).items() if count > 1]
    if repeated:
        raise InputError("the alphabet repeats a character", where="symbols", found=", ".join(map(repr, repeated)))


@functools.lru_cache(maxsize=8)
def _processor(model: bytes) -> _Pieces:
    """The library's reader of a model; kept, for units themselves stay plain values."""
    import sentencepiece

    try:
        pieces = cast(_Pieces, sentencepiece.SentencePieceProcessor(model_proto=model))
        usable = bool(model) and pieces.get_piece_size() > 1
    except (RuntimeError, ValueError, TypeError):
        usable, pieces = False, None
    if not usable or pieces is None:
        raise InputError("the SentencePiece model cannot be read", where="units", expected="a model from to_config")
    if (pieces.unk_id(), pieces.bos_id(), pieces.eos_id(), pieces.pad_id()) != (0, -1, -1, -1):
        raise InputError(
            "the SentencePiece model numbers its pieces in another way",
            where="units",
            found=f"unknown {pieces.unk_id()}, begin {pieces.bos_id()}, end {pieces.eos_id()}, pad {pieces.pad_id()}",
            expected="unknown 0 and none of the others, as train_sentencepiece makes it",
        )
    return pieces


@functools.lru_cache(maxsize=8)
def _characters(model: bytes) -> frozenset[str]:
    """Characters that have a piece of their own, and the space."""
    pieces = _processor(model)
    names = [pieces.id_to_piece(number) for number in range(1, pieces.get_piece_size())]
    return frozenset({name for name in names if len(name) == 1 and name != _SPACE} | {" "})


def _train(texts: Sequence[str], size: int, seed: int) -> bytes:
    """A model as bytes; text is taken as it is, and no sentence is too long or left out."""
    import sentencepiece

    strange = [text for text in texts if _SPACE in text or any(mark in text for mark in "\n\r\t\0")]
    if strange:
        raise InputError("a text holds a control character or ▁", where=f"text {_short(strange[0])!r}")
    library = cast(Any, sentencepiece)
    library.set_random_generator_seed(seed)
    model = io.BytesIO()
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=size + 1,  # the unknown one is counted
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=max(10, *(len(text.encode()) + 1 for text in texts)),
            num_threads=1,
            minloglevel=2,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
        )
    except (RuntimeError, OSError) as error:
        raise InputError("SentencePiece could not learn pieces", where="texts", found=str(error)) from None
    return model.getvalue()
