"""The vocabulary: the same in every process, longest pieces first, offsets that point into the text."""

from __future__ import annotations

import itertools
import pathlib
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError, InputError
from pipelines.match.vocabulary import MARKS, WordPiece

TEXTS = [
    "The lexer reads a token, the parser reads the tokens: tokenize, tokenizing, tokenizer.",
    "Über Größe und Maße, naïve café; readers, reading, read, lower LOWER Lowest low.",
    "日本語 text 123 1234 12 == != <= foo_bar.baz() FooBar fooBar",
] * 5
SCRIPT = f"""
import hashlib
from pipelines.match.vocabulary import WordPiece
print(hashlib.sha256(WordPiece.train({TEXTS!r}, 110).to_json().encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def words() -> WordPiece:
    """A small vocabulary of the texts."""
    return WordPiece.train(TEXTS, 110)


def test_training_gives_the_same_vocabulary_in_every_process() -> None:
    runs = [subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True) for _ in range(3)]
    assert {run.returncode for run in runs} == {0}, runs[0].stderr
    assert len({run.stdout for run in runs}) == 1


def test_marks_come_first_and_the_size_is_kept(words: WordPiece) -> None:
    assert words.size == 110
    assert [words.token(index) for index in range(5)] == list(MARKS)
    assert (words.PAD, words.UNK, words.CLS, words.SEP, words.MASK) == (0, 1, 2, 3, 4)
    assert len({words.token(index) for index in range(words.size)}) == words.size
    assert not any(ord(c) >= 0xF0000 for index in range(words.size) for c in words.token(index))


def test_frequent_pairs_become_pieces() -> None:
    """By hand: of a b, a c the pair (a, ##b) is the more frequent one; then (ab, ##c)."""
    found = WordPiece.train(["ab ab ab ac", "abc abc"], len(MARKS) + 3 + 2)
    assert [found.token(index) for index in range(5, found.size)] == ["a", "##b", "##c", "ab", "abc"]


def longest_first(word: str, pieces: set[str]) -> list[str]:
    """WordPiece of one word, written out: the longest piece from the left, or unknown."""
    out, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in pieces:
                out.append(piece)
                start = end
                break
        else:
            return ["[UNK]"]
    return out


def test_words_are_split_into_the_longest_pieces(words: WordPiece) -> None:
    pieces = {words.token(index) for index in range(words.size)}
    for word in ("tokenizers", "lowering", "reader", "1234567", "x", "größe", "zebraq", "bazfoo"):
        plain = word.replace("ö", "o").replace("ß", "ß")
        ids, _ = words.encode([word])[0]
        assert [words.token(one) for one in ids] == longest_first(plain, pieces), word


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=50))
def test_offsets_point_to_the_characters_of_their_tokens(text: str) -> None:
    words = WordPiece.train(TEXTS, 110)
    ids, offsets = words.encode([text])[0]
    assert len(ids) == len(offsets)
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    assert all(left[0] <= right[0] for left, right in itertools.pairwise(offsets))
    for one, (start, end) in zip(ids, offsets, strict=True):
        piece = words.token(one).removeprefix("##")
        if piece.isascii() and piece.isalnum() and one >= len(MARKS) and text[start:end].isascii():
            assert piece == text[start:end].lower()


def test_case_and_accents_fall_away_only_where_wanted() -> None:
    kept = WordPiece.train(TEXTS, 160, lowercase=False)
    assert not kept.lowercase
    low, high = (kept.encode([text])[0][0] for text in ("lower", "LOWER"))
    assert low != high
    folded = WordPiece.train(TEXTS, 160)
    assert folded.lowercase
    low, high = (folded.encode([text])[0][0] for text in ("naive cafe", "NAÏVE CAFÉ"))
    assert low == high


def test_marks_in_a_text_are_text(words: WordPiece) -> None:
    ids, _ = words.encode(["read [PAD] the [SEP] tokens [MASK]"])[0]
    assert not {words.PAD, words.SEP, words.MASK, words.CLS} & set(ids)


def test_a_very_long_word_is_one_unknown_token(words: WordPiece) -> None:
    ids, offsets = words.encode(["a" * 200_000])[0]
    assert (ids, offsets) == ([words.UNK], [(0, 200_000)])


def test_a_vocabulary_travels_as_json_as_lines_and_as_pickle(words: WordPiece) -> None:
    lines = "\n".join(words.token(index) for index in range(words.size))
    for other in (
        WordPiece.from_json(words.to_json()),
        WordPiece.from_vocabulary(lines + "\n"),
        pickle.loads(pickle.dumps(words)),
    ):
        assert other.size == words.size
        assert other.encode(TEXTS) == words.encode(TEXTS)
        assert other.to_json() == words.to_json()


def test_a_vocabulary_is_read_from_files(words: WordPiece, tmp_path: pathlib.Path) -> None:
    lines, wrong = tmp_path / "vocab.txt", tmp_path / "wrong.txt"
    lines.write_text("\n".join(words.token(index) for index in range(words.size)), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(words.to_json(), encoding="utf-8")
    assert WordPiece.from_file(lines).to_json() == words.to_json()
    assert WordPiece.from_file(tmp_path / "tokenizer.json", lowercase=False).to_json() == words.to_json()
    assert not WordPiece.from_file(lines, lowercase=False).lowercase
    for content in (b"\xff\xfe\x00", b"", b"a\nb"):
        wrong.write_bytes(content)
        with pytest.raises(InputError, match=r"wrong\.txt: "):
            WordPiece.from_file(wrong)
    with pytest.raises(InputError, match="no vocabulary"):
        WordPiece.from_file(tmp_path / "absent.txt")


def test_half_of_a_surrogate_pair_is_refused(words: WordPiece) -> None:
    with pytest.raises(InputError, match=r"a\.txt: half of a surrogate pair.*at character 5"):
        words.encode(["read", "read \ud800 x"], where="a.txt")
    with pytest.raises(InputError, match="half of a surrogate pair"):
        WordPiece.train(["\udcff"], 50)


def test_vocabularies_that_cannot_be_are_refused(words: WordPiece) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        WordPiece.from_json("{]")
    with pytest.raises(InputError, match="another kind of tokenizer"):
        WordPiece.from_json('{"model": {"type": "BPE"}}')
    with pytest.raises(InputError, match=r"marks are missing.*\[MASK\]"):
        WordPiece.from_vocabulary("[PAD]\n[UNK]\n[CLS]\n[SEP]\na")
    with pytest.raises(InputError, match="padding has another id"):
        WordPiece.from_vocabulary("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]")
    for text in ("", "[PAD]\n[PAD]"):
        with pytest.raises(InputError, match="no vocabulary"):
            WordPiece.from_vocabulary(text)
    with pytest.raises(InputError, match="no word"):
        WordPiece.train([" \n", ""], 50)
    with pytest.raises(ConfigError, match="too small for the characters"):
        WordPiece.train(TEXTS, 20)
    with pytest.raises(InputError, match="no such id"):
        words.token(110)
