"""Sentences of a text: where they end, and that nothing is lost between them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.match.sentences import split_sentences


def pieces(text: str) -> list[str]:
    """The sentences themselves."""
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met J. R. Miller, Prof. Lee et al. Kim.", ["Dr. Smith met J. R. Miller, Prof. Lee et al. Kim."]),
        (
            "See Fig. 3 and No. 7. The answer is no. Then go.",
            ["See Fig. 3 and No. 7.", "The answer is no.", "Then go."],
        ),
        ("Pi is 3.14. Call os.path.join(a, b). Done.", ["Pi is 3.14.", "Call os.path.join(a, b).", "Done."]),
        (
            "Use a mapping, e.g. Python's dict, i.e. Not a list.",
            ["Use a mapping, e.g. Python's dict, i.e. Not a list."],
        ),
        ("Wait... what? Wait... What?", ["Wait... what?", "Wait...", "What?"]),
        ("Wait… what? Wait… What?", ["Wait… what?", "Wait…", "What?"]),
        ('"Go." He went. (He did.) "Why?" he asked.', ['"Go."', "He went.", "(He did.)", '"Why?" he asked.']),
        ("„Nein.“ Er ging. «Oui.» Elle part.", ["„Nein.“", "Er ging.", "«Oui.»", "Elle part."]),
        ("今日は雨です。明日は？「晴れ。」はい！終", ["今日は雨です。", "明日は？", "「晴れ。」", "はい！", "終"]),
        ("one two\nthree four\n\nfive", ["one two\nthree four", "five"]),
        ("one\r\n\r\ntwo\rthree", ["one", "two\rthree"]),
        (
            "intro:\n- first\n  goes on\n* second\n2. third. Fourth",
            ["intro:", "- first\n  goes on", "* second", "2. third.", "Fourth"],
        ),
        ("# Title\nText here\n## Next ##\nmore", ["# Title", "Text here", "## Next ##", "more"]),
        ("Title\n=====\nText\nMore\n---\nlast", ["Title\n=====", "Text\nMore\n---", "last"]),
        ("It was I. They left in Sept. Four stayed.", ["It was I.", "They left in Sept.", "Four stayed."]),
        ("Costs 5 €.Next has no space", ["Costs 5 €.Next has no space"]),
        ("", []),
        (" \n\t\u3000\x1f ", []),
        ("word", ["word"]),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


ALPHABET = "aB1. .\n\n\r\t!?…。「」\"')-#*=\u2028\x1c\u3000é"


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(alphabet=ALPHABET, max_size=60)))
def test_every_character_that_is_no_space_is_covered_once(text: str) -> None:
    spans = split_sentences(text)
    covered = [place for start, end in spans for place in range(start, end)]
    assert covered == sorted(set(covered)), "in order, without overlap"
    assert [c for c in text if not c.isspace()] == [text[p] for p in covered if not text[p].isspace()]
    for start, end in spans:
        assert start < end
        assert text[start:end] == text[start:end].strip()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=ALPHABET, max_size=40), st.text(alphabet=ALPHABET, max_size=40))
def test_a_blank_line_keeps_what_is_around_it_apart(left: str, right: str) -> None:
    assert pieces(f"{left}\n\n\n{right}") == pieces(left) + pieces(right)


@pytest.mark.parametrize(
    "unit", ["word ", ".", ". ", "?!)", "a.", "\n", "\n- x", "(", '."', "=", "1.", "A. ", "\r", "「"]
)
def test_time_is_linear_in_the_text(unit: str) -> None:
    """A quadratic rule would take 64 times as long for the text of 8 times the length."""

    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            split_sentences(text)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(200_000) < 30 * seconds(25_000) + 0.02
