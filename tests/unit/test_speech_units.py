"""Units of text: numbers from 2 on, text that comes back unchanged, refusals that name the characters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.speech_units import BLANK, ENGLISH, START, Units
from pipelines.data.errors import InputError

TEXTS = ["the cat sat on the mat", "a cat and a dog", "the dog's mat", "on and on", "the hat sat"] * 3
PIECES = Units.train_sentencepiece(TEXTS, size=40)
LETTERS = sorted(set("".join(TEXTS)))


@given(st.text(ENGLISH))
def test_characters_come_back(text: str) -> None:
    units = Units.chars()
    ids = units.encode(text)
    assert units.decode(ids) == text
    assert len(ids) == len(text)
    assert all(2 <= number < units.size for number in ids)


@given(st.text())
def test_any_text_comes_back_from_bytes(text: str) -> None:
    units = Units.bytes()
    if any("\ud800" <= character <= "\udfff" for character in text):
        with pytest.raises(InputError, match="Unicode without surrogates"):
            units.encode(text)
        return
    ids = units.encode(text)
    assert units.decode(ids) == text
    assert [number - 2 for number in ids] == list(text.encode())


@given(st.text(LETTERS))
def test_pieces_come_back_with_every_space(text: str) -> None:
    ids = PIECES.encode(text)
    assert PIECES.decode(ids) == text
    assert all(2 <= number < PIECES.size for number in ids)


@given(st.lists(st.integers(0, PIECES.size - 1)))
def test_any_numbers_can_be_decoded_and_the_special_ones_say_nothing(ids: list[int]) -> None:
    plain = [number for number in ids if number not in (BLANK, START)]
    for units in (PIECES, Units.bytes()):
        assert units.decode(ids) == units.decode(plain)


@settings(max_examples=30)
@given(st.sampled_from([Units.chars(), Units.from_texts(["çà ", "là"]), Units.bytes(), PIECES]))
def test_configuration_survives_json(units: Units) -> None:
    again = Units.from_config(json.loads(json.dumps(units.to_config())))
    assert again == units
    assert again.pieces == units.pieces
    assert len(again.pieces) == again.size == len(set(again.pieces))


def test_pieces_are_those_of_the_library_shifted_by_one() -> None:
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_proto=PIECES.model)
    names = [library.id_to_piece(number) for number in library.encode("the cat")]
    assert [PIECES.pieces[number] for number in PIECES.encode("the cat")] == names
    assert max(map(len, PIECES.pieces[2:])) > 2, "learnt pieces are longer than characters"


def test_learning_is_deterministic() -> None:
    assert Units.train_sentencepiece(TEXTS, size=40, seed=3) == Units.train_sentencepiece(TEXTS, size=40, seed=3)


def test_few_words_give_fewer_pieces_than_wanted() -> None:
    assert Units.train_sentencepiece(["abc"], size=1000).size < 20


def test_long_texts_are_learnt_from_as_a_whole() -> None:
    """The library leaves out sentences over 4192 bytes unless told otherwise."""
    units = Units.train_sentencepiece(["ab " * 2000 + "z"], size=10)
    assert units.decode(units.encode("z ab")) == "z ab"


@pytest.mark.parametrize("units", [Units.chars("ab "), Units.train_sentencepiece(["ab ba"], size=6)])
def test_characters_outside_are_named_and_counted(units: Units) -> None:
    with pytest.raises(InputError) as caught:
        units.encode("a % éé b")
    assert "3" in str(caught.value)
    assert "'é' x 2, '%' x 1" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "word"}, "kind"),
        ({}, "kind"),
        ({"kind": "char"}, "symbols"),
        ({"kind": "char", "symbols": ""}, "empty"),
        ({"kind": "char", "symbols": "abca"}, "repeats"),
        ({"kind": "sentencepiece"}, "cannot be read"),
        ({"kind": "sentencepiece", "model": "*"}, "base64"),
        ({"kind": "sentencepiece", "model": 3}, "damaged"),
        ({"kind": "sentencepiece", "model": "Z2FyYmFnZQ=="}, "cannot be read"),
    ],
)
def test_damaged_configurations_are_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Units.from_config(config)


def test_models_that_number_otherwise_are_refused() -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=40, hard_vocab_limit=False, minloglevel=2
    )
    with pytest.raises(InputError, match="another way"):
        Units("sentencepiece", (), model.getvalue())


@pytest.mark.parametrize("wrong", [-1, 30])
def test_numbers_outside_are_refused(wrong: int) -> None:
    with pytest.raises(InputError, match="0 to 29"):
        Units.chars().decode([2, wrong])


def test_too_small_a_vocabulary_and_no_text_are_refused() -> None:
    with pytest.raises(InputError, match="4 or more"):
        Units.train_sentencepiece(["abc"], size=3)
    with pytest.raises(InputError, match="no text"):
        Units.train_sentencepiece([" "], size=3)
    with pytest.raises(InputError, match="control character"):
        Units.train_sentencepiece(["a\nb"], size=9)
