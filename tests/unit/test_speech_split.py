"""Splits of speech: no speaker and no text on both sides, and where that cannot be, it is said."""

from __future__ import annotations

import pathlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.datasets.speech_corpus import Corpus, Utterance, split_corpus
from pipelines.data.errors import InputError


def corpus(*rows: tuple[str, str | None, str]) -> Corpus:
    """Of (speaker, text, part)."""
    spoken = (
        Utterance(str(n), pathlib.Path(f"{n}.wav"), text, speaker, part=part)
        for n, (speaker, text, part) in enumerate(rows)
    )
    return Corpus("made", tuple(spoken))


def ids(one: Corpus) -> set[str]:
    return {utterance.id for utterance in one.utterances}


def sides(of: Corpus, *, valid: float = 0.2, seed: int = 0) -> tuple[set[str], set[str]]:
    """Texts that both sides have, and speakers."""
    train, held = split_corpus(of, valid=valid, seed=seed)
    assert train.utterances
    assert held.utterances
    assert not ids(train) & ids(held)
    folded = [{" ".join((u.text or u.id).lower().split()) for u in side.utterances} for side in (train, held)]
    return folded[0] & folded[1], set(train.speakers) & set(held.speakers)


@given(st.integers(3, 8), st.integers(0, 99), st.sampled_from([0.1, 0.2, 0.4]))
def test_no_speaker_and_no_text_on_both_sides(speakers: int, seed: int, valid: float) -> None:
    generator = random.Random(seed)
    rows = [(f"s{n % speakers}", f"Text  {generator.randrange(400)}", "") for n in range(80)]
    assert sides(corpus(*rows), valid=valid, seed=seed) == (set(), set())


@given(st.integers(0, 2), st.integers(0, 99))
def test_without_speakers_no_text_is_on_both_sides_and_none_is_lost(speakers: int, seed: int) -> None:
    generator = random.Random(seed)
    rows = [(f"s{n % speakers}" if speakers else "", f"text {generator.randrange(30)}", "") for n in range(80)]
    of = corpus(*rows)
    assert sides(of, seed=seed)[0] == set()
    train, held = split_corpus(of, valid=0.2, seed=seed)
    assert ids(train) | ids(held) == ids(of)
    assert 8 <= len(held) <= 24


def test_equal_texts_are_equal_in_any_case_and_spacing() -> None:
    rows = [("", text, "") for text in ("Yes", "yes", " YES ", "no", "No", "maybe", "Maybe ")]
    for seed in range(10):
        assert sides(corpus(*rows), valid=0.4, seed=seed)[0] == set()


def test_texts_that_everyone_says_are_shared_and_that_is_said() -> None:
    of = corpus(*((f"s{n % 5}", f"digit {n // 5 % 10}", "") for n in range(200)))
    train, held = split_corpus(of, valid=0.2, seed=0)
    assert (len(train), len(held)) == (160, 40)
    assert len(held.speakers) == 1
    assert any("40 held-out utterances have texts that other speakers say" in note for note in held.notes)


def test_few_shared_texts_are_left_out_and_counted() -> None:
    rows = [(f"s{n % 5}", f"own {n}", "") for n in range(50)] + [(f"s{n}", "hello", "") for n in range(5)]
    train, held = split_corpus(corpus(*rows), valid=0.2, seed=0)
    assert (len(train), len(held)) == (44, 10)
    assert any(note.startswith("1 utterances of held-out speakers are in neither part") for note in train.notes)


def test_parts_of_the_corpus_win_and_the_test_part_is_never_used() -> None:
    rows = [("a", "x", "train"), ("b", "y", "valid"), ("c", "z", "test"), ("d", "w", "")]
    train, held = split_corpus(corpus(*rows), seed=0)
    assert (ids(train), ids(held)) == ({"0", "3"}, {"1"})
    rows = [("a", f"text {n}", "test" if n < 10 else "train") for n in range(40)]
    train, held = split_corpus(corpus(*rows), seed=0)
    assert not {str(n) for n in range(10)} & (ids(train) | ids(held))
    assert len(train) + len(held) == 30
    assert any("10 utterances of the test part" in note for note in train.notes)


def test_splits_follow_their_seed() -> None:
    of = corpus(*(("", f"text {n}", "") for n in range(100)))
    first, again, other = (split_corpus(of, seed=seed)[1] for seed in (1, 1, 2))
    assert ids(first) == ids(again) != ids(other)


def test_untranscribed_utterances_stand_alone() -> None:
    train, held = split_corpus(corpus(*(("", None, "") for _ in range(20))), valid=0.1, seed=0)
    assert (len(train), len(held)) == (18, 2)


def test_refusals() -> None:
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(InputError, match="valid"):
            split_corpus(corpus(("", "x", ""), ("", "y", "")), valid=share, seed=0)
    with pytest.raises(InputError, match="different texts"):
        split_corpus(corpus(("", "x", ""), ("", "X", "")), seed=0)
    with pytest.raises(InputError, match="nothing is left"):
        split_corpus(corpus(("a", "x", "valid"), ("b", "y", "test")), seed=0)
