"""Normalisers do what they say and change nothing twice; training texts keep what they cannot write, counted."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.speech_numbers import digits_of
from pipelines.data.datasets.speech_spellings import american_spellings
from pipelines.data.datasets.speech_text import NORMALISERS, Normaliser, normaliser, prepare_text
from pipelines.data.datasets.speech_units import ENGLISH, Units
from pipelines.data.errors import InputError

RAW, WORDS = NORMALISERS["raw"], NORMALISERS["english"]
#: What rules react to, for texts in which they meet.
_PARTS = """one two five ten thirteen nineteen twenty eighty eighties hundred hundredth thousand million first second
third twentieth and point zero oh percent dollars cents per cent it's he'd been won't can't don't mr. dr st. u.s. colour
organise cheque um uhm hmm mhm [x] ( ) ] [ ' - . , % $ $5 5% 3.5 1,000 20 007 1st 1980s é ß ’ ' 'd n't 's o'clock the
cat gonna İ ½ ² … dialogue storey practise licence"""
PARTS = _PARTS.split()
_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def texts() -> st.SearchStrategy[str]:
    joined = st.lists(st.sampled_from(PARTS), max_size=8).flatmap(
        lambda parts: st.sampled_from([" ".join(parts), "".join(parts), "-".join(parts)])
    )
    return st.one_of(st.text(), joined)


@settings(max_examples=400)
@given(texts(), st.sampled_from([RAW, WORDS]))
def test_normalising_twice_changes_nothing(text: str, rule: Normaliser) -> None:
    once = rule(text)
    assert rule(once) == once
    assert once == " ".join(once.split())


@settings(max_examples=300)
@given(st.lists(st.sampled_from([part for part in PARTS if part.isalpha()]), max_size=8))
def test_digits_of_numbers_once_is_enough(words: list[str]) -> None:
    once = digits_of(words)
    assert digits_of(once) == once


def spoken(value: int) -> str:
    """A number as it is said, written independently of the reader under test."""
    if value < 20:
        return _SMALL.split()[value]
    if value < 100:
        return _TENS.split()[value // 10 - 2] + (f" {spoken(value % 10)}" if value % 10 else "")
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= size:
            rest = value % size
            link = " and " if 0 < rest < 100 else " "
            return f"{spoken(value // size)} {name}" + (f"{link}{spoken(rest)}" if rest else "")
    raise AssertionError(value)


@given(st.integers(0, 10**12 - 1))
def test_numbers_in_words_become_digits(value: int) -> None:
    assert WORDS(spoken(value)) == str(value)
    assert WORDS(f"about {spoken(value).replace(' and ', ' ')} of them") == f"about {value} of them"


@pytest.mark.parametrize("year", [1300, 1492, 1805, 1984, 1999, 2010, 2024])
def test_years(year: int) -> None:
    first, second = divmod(year, 100)
    said = spoken(first) + (" hundred" if second == 0 else f" {'oh ' if second < 10 else ''}{spoken(second)}")
    assert WORDS(f"in {said} it was") == f"in {year} it was"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("twenty three", "23"),
        ("Twenty-three", "23"),
        ("two hundred and five", "205"),
        ("one two three", "1 2 3"),
        ("rock and two rolls", "rock and 2 rolls"),
        ("two hundred and more", "200 and more"),
        ("two and three", "2 and 3"),
        ("three point one four", "3.14"),
        ("three point fourteen", "3.14"),
        ("3.5 million", "3500000"),
        ("three point five million", "3500000"),
        ("1,234,567", "1234567"),
        ("one hundred thousand", "100000"),
        ("a hundred", "a 100"),
        ("twenty first", "21st"),
        ("the first of two hundred and twelfth", "the 1st of 212th"),
        ("wait a second", "wait a second"),
        ("thirty second", "32nd"),
        ("two hundredth", "200th"),
        ("the nineteen eighties", "the 1980s"),
        ("five per cent", "5%"),
        ("5 %", "5%"),
        ("five dollars and twenty cents", "$5.20"),
        ("$5.20", "$5.20"),
        ("twenty cents", "¢20"),
        ("fifteen pounds", "£15"),
        ("$3 million", "$3000000"),
        ("nineteen eighty thousand", "19 80000"),
        ("in the year two thousand and one", "in the year 2001"),
        ("007", "007"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert WORDS(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It’s  [noise] the dog's (well) bone.", "it is the dogs bone"),
        ("nested (a [b] (c)) out", "nested out"),
        ("an unclosed (bracket stays", "an unclosed bracket stays"),
        ("Um, uh, hmm, mm, mhm; yes!", "yes"),
        ("umbrella human", "umbrella human"),
        ("I won't, can't, don't, shan't", "i will not can not do not shall not"),
        ("she's been; he'd gone; he'd go; we've; they'll; I'm; you're", None),
        ("Mr. and Mrs. Jones, Dr. Who", "mister and missus jones doctor who"),
        ("Capt. Hook of St. John", "captain hook of saint john"),
        ("the st of capt", "the st of capt"),
        ("the U.S. and the U.K.", "the us and the uk"),
        ("The colours of the theatre were organised", "the colors of the theater were organized"),
        ("café naïve Ærø straße", "cafe naive aero strasse"),
        ("well-known e-mail/web", "well known e mail web"),
        ("at 10:30", "at 10 30"),
        ("", ""),
        ("...", ""),
    ],
)
def test_words(text: str, expected: str | None) -> None:
    expected = (
        expected if expected is not None else ("she has been he had gone he would go we have they will i am you are")
    )
    assert WORDS(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HE DON'T  KNOW", "he don't know"),
        ("Well-known, twenty-three.", "well known twenty three"),
        ("Um, 5 % of £3.50", "um 5 of 3 50"),
        ("l’été", "l'été"),
        ("e\u0301té", "été"),
        ("हिन्दी", "हिन्दी"),
    ],
)
def test_raw(text: str, expected: str) -> None:
    assert RAW(text) == expected


def test_upper_and_lower_case_compare_alike() -> None:
    """Fact sheet: raw mode compares in upper case; lower case is the same comparison."""
    generator = random.Random(0)
    for _ in range(100):
        text = "".join(generator.choice("abcdefg' -.é") for _ in range(30))
        assert RAW(text) == RAW(text.upper())


def test_american_spellings_are_no_british_ones() -> None:
    table = american_spellings()
    assert len(table) > 150
    assert not {american for american in table.values() if table.get(american, american) != american}
    assert all(word.isalpha() and word == word.lower() for pair in table.items() for word in pair)


def test_names_carry_versions() -> None:
    assert {one.label for one in NORMALISERS.values()} == {"raw-1", "english-1"}
    assert normaliser("english-1") is WORDS
    with pytest.raises(InputError, match=r"raw-1, english-1"):
        normaliser("english-2")


@given(texts())
def test_prepared_text_can_be_written_or_says_why_not(text: str) -> None:
    prepared, outside = prepare_text(text, ENGLISH)
    again, _ = prepare_text(prepared, ENGLISH)
    assert again == prepared
    if not outside:
        assert Units.chars().decode(Units.chars().encode(prepared)) == prepared
    else:
        assert all(prepared.count(c) == count for c, count in outside.items())
        with pytest.raises(InputError, match=str(outside.total())):
            Units.chars().encode(prepared)


@given(st.text())
def test_no_letter_or_digit_is_lost(text: str) -> None:
    prepared, outside = prepare_text(text, "")
    assert not outside

    def letters(value: str) -> Counter[str]:
        import unicodedata

        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).lower())
        return Counter(c for c in folded if c.isalnum())

    assert letters(prepared) == letters(text.replace("…", "..."))


def test_prepared_text_by_alphabet() -> None:
    text = "“Don’t” – he said: 50% of É, U.S.A."
    assert prepare_text(text, ENGLISH) == ("don't he said 50% of é usa", Counter("50%é"))
    assert prepare_text(text, "abcdefghijklmnopqrstuvwxyz 05%é") == ("dont he said 50% of é usa", Counter())
    assert prepare_text("Mixed Case", "MCaseixd ")[0] == "Mixed Case"
    assert prepare_text("a, b.", " ab,.")[0] == "a, b."
