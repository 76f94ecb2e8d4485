"""WordPiece: sentences to ids and the characters that each id stands for, learned or given."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipelines.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MARKS", "WordPiece"]

#: Padding, unknown, begin, end, mask: the names in every vocabulary, and the first ids of a learned one.
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_INNER = "##"  # before a piece that does not begin its word
_SHIFT = 0xF0000  # private characters stand for inner ones while learning; the normaliser removes real ones
_MOST_CHARACTERS = 1000  # kinds of characters that a learned vocabulary holds, as BERT's
_LONGEST_WORD = 100  # characters; a longer word is one unknown token, as BERT's


class WordPiece:
    """A WordPiece vocabulary: words are split into the longest pieces that it holds, from the left.

    Text is cleaned, CJK characters stand alone and, with ``lowercase``, case and accents fall away, as in BERT. Words
    of more than 100 characters and words with a character that it does not hold are one [UNK]. Marks such as "[SEP]" in
    a text are text.
    Source: BERT (arXiv 1810.04805), section 4.1, by the tokenizers library.

    Attributes:
        size: number of pieces V, marks among them.
        lowercase: whether case and accents fall away.
        PAD, UNK, CLS, SEP, MASK: ids of the marks; PAD is 0.

    Example:
        >>> words = WordPiece.train(["low lower lowest"] * 4, 40)
        >>> ids, offsets = words.encode(["Lowest low"])[0]
        >>> [words.token(one) for one in ids], offsets
        (['lowest', 'low'], [(0, 6), (7, 10)])
    """

    PAD = 0

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = {mark: tokenizer.token_to_id(mark) for mark in MARKS}
        missing = [mark for mark, one in ids.items() if one is None]
        if missing:
            raise InputError("marks are missing", where="vocabulary", found=f"no {', '.join(missing)}")
        if ids["[PAD]"] != 0:
            raise InputError("padding has another id", where="vocabulary", found=ids["[PAD]"], expected=0)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "[PAD]" in a text would else become padding
        self._tokenizer = tokenizer
        self.UNK, self.CLS, self.SEP, self.MASK = (ids[mark] for mark in MARKS[1:])
        self.size = tokenizer.get_vocab_size()
        self.lowercase = bool(getattr(tokenizer.normalizer, "lowercase", False))

    @classmethod
    def train(cls, texts: Iterable[str], size: int, *, lowercase: bool = True) -> Self:
        """Learn the pieces of a vocabulary: all characters, then the most frequent pairs of pieces, again and again.

        The same texts give the same vocabulary, in every process. O(characters + size log size), roughly.

        Args:
            texts: what to learn from; read once.
            size: pieces V at most, marks among them; fewer where the texts hold no more.
            lowercase: whether case and accents fall away.

        Raises:
            ConfigError: a size without room for the marks and the characters.
            InputError: texts without a word.
        """
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        words = _counted(texts, lowercase)
        if not words:
            raise InputError("no word to learn a vocabulary from", where="texts")
        alphabet = _alphabet(words)
        letters = {one for word in words for one in _shifted(word, alphabet)}
        if size < len(MARKS) + len(letters):
            raise ConfigError(
                "a vocabulary too small for the characters of the texts",
                where="size",
                found=size,
                expected=f"from {len(MARKS) + len(letters)}",
            )
        # The library's own trainer of WordPiece numbers inner pieces in the order of a hash map, another one each time.
        # Pairs of characters, the inner ones moved aside, are numbered in sorted order.
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(vocab_size=size - len(MARKS), min_frequency=2, show_progress=False)
        shifted = (" ".join([_shifted(word, alphabet)] * count) for word, count in sorted(words.items()))
        learner.train_from_iterator(shifted, trainer)
        pieces = sorted(learner.get_vocab().items(), key=lambda item: item[1])
        return cls(_build([*MARKS, *(_restored(piece, alphabet) for piece, _ in pieces)], lowercase))

    @classmethod
    def from_vocabulary(cls, text: str, *, lowercase: bool = True) -> Self:
        """Take a ``vocab.txt``: one piece a line, its id the number of the line from 0.

        Raises:
            InputError: no pieces, doubles, or marks that are missing.
        """
        pieces = text.rstrip("\r\n").splitlines() if text.strip() else []
        if len(set(pieces)) != len(pieces) or not pieces:
            found = f"{len(pieces)} lines, {len(set(pieces))} kinds"
            raise InputError("no vocabulary", where="vocabulary", found=found, expected="one piece a line, no doubles")
        return cls(_build(pieces, lowercase))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, lowercase: bool = True) -> Self:
        """Take a ``vocab.txt`` or, where the name ends in .json, a ``tokenizer.json``, which says itself what it folds.

        Raises:
            InputError: a file that cannot be read, or holds no such vocabulary.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"no vocabulary: {error}", where=path, expected="vocab.txt or tokenizer.json") from error
        try:
            json_file = Path(path).suffix.lower() == ".json"
            return cls.from_json(text) if json_file else cls.from_vocabulary(text, lowercase=lowercase)
        except InputError as error:
            raise InputError(error.problem, where=path, found=error.found, expected=error.expected) from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Take the text of a ``tokenizer.json`` whose model is WordPiece; its truncation and padding are put off.

        Raises:
            InputError: no such JSON, another model, or marks that are missing.
        """
        from tokenizers import Tokenizer

        try:
            kind = json.loads(text)["model"].get("type", "WordPiece")
            tokenizer = Tokenizer.from_str(text) if kind == "WordPiece" else None
        except Exception as error:  # the library raises plain Exception
            problem = f"no tokenizer: {type(error).__name__}"
            raise InputError(problem, where="vocabulary", expected="the text of a tokenizer.json") from error
        if tokenizer is None:
            raise InputError("another kind of tokenizer", where="vocabulary", found=kind, expected="WordPiece")
        return cls(tokenizer)

    def to_json(self) -> str:
        """The text that ``from_json`` takes; equal vocabularies give equal texts."""
        return self._tokenizer.to_str()

    def encode(self, sentences: Sequence[str], *, where: str = "text") -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Ids, and the characters [start, end) of the sentence that each stands for, sentence by sentence; no marks.

        O(characters); a word costs up to the square of its length, which is at most 100.

        Raises:
            InputError: half of a surrogate pair, which stands for no character; the message begins with ``where``.
        """
        try:
            batch = self._tokenizer.encode_batch(list(sentences), add_special_tokens=False)
        except TypeError as error:  # what the library says of a string that it cannot take
            for sentence in sentences:
                _whole_characters(sentence, where)
            raise error
        return [(one.ids, one.offsets) for one in batch]

    def token(self, index: int) -> str:
        """The piece of an id.

        Raises:
            InputError: no such id.
        """
        piece = self._tokenizer.id_to_token(index)
        if piece is None:
            raise InputError("no such id", where="vocabulary", found=index, expected=f"0 to {self.size - 1}")
        return piece

    def __getstate__(self) -> str:
        return self.to_json()

    def __setstate__(self, text: str) -> None:
        self.__dict__.update(type(self).from_json(text).__dict__)


def _build(pieces: list[str], lowercase: bool) -> Tokenizer:
    """A tokenizer of these pieces, in the order of their ids."""
    from tokenizers import AddedToken, Tokenizer, models

    ids = {piece: index for index, piece in enumerate(pieces)}
    model = models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD)
    tokenizer: Any = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = _rules(lowercase)
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS if mark in ids])
    return tokenizer


def _rules(lowercase: bool) -> tuple[Any, Any]:
    """BERT's cleaning of a text and its cutting into words."""
    from tokenizers import normalizers, pre_tokenizers

    return normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()


def _whole_characters(text: str, where: str) -> None:
    """Refuse half of a surrogate pair, which no encoding of Unicode holds."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            "half of a surrogate pair",
            where=where,
            found=f"{text[error.start]!r} at character {error.start:,}",
            cure="decode the text with errors='replace'",
        ) from error


def _counted(texts: Iterable[str], lowercase: bool) -> Counter[str]:
    """How often each word stands in the texts; words too long for the vocabulary are left out."""
    normalizer, splitter = _rules(lowercase)
    words: Counter[str] = Counter()
    for text in texts:
        _whole_characters(text, "texts")
        found = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        words.update(word for word, _ in found if len(word) <= _LONGEST_WORD)
    return words


def _alphabet(words: Counter[str]) -> dict[str, int]:
    """Places of the most frequent characters, in sorted order; words with others are removed from ``words``."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    kept = sorted(counts, key=lambda one: (-counts[one], one))[:_MOST_CHARACTERS]
    alphabet = {character: place for place, character in enumerate(sorted(kept))}
    for word in [word for word in words if not alphabet.keys() >= set(word)]:
        del words[word]
    return alphabet


def _shifted(word: str, alphabet: dict[str, int]) -> str:
    return word[0] + "".join(chr(_SHIFT + alphabet[one]) for one in word[1:])


def _restored(piece: str, alphabet: dict[str, int]) -> str:
    characters = list(alphabet)
    plain = "".join(characters[ord(one) - _SHIFT] if ord(one) >= _SHIFT else one for one in piece)
    return _INNER + plain if ord(piece[0]) >= _SHIFT else plain
