"""Error rates against an edit distance written out here, against jiwer's own totals, and by hand."""

from __future__ import annotations

import dataclasses
import json
import random

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.transcribe.metrics import Counts, alignment_lines, compare, score_texts


@dataclasses.dataclass(frozen=True)
class _Lower:
    name: str = "lower"
    version: int = 3

    def __call__(self, text: str) -> str:
        return text.lower().replace("um", "")


LOWER = _Lower()
VOCABULARY = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def _distance(left: list[str], right: list[str]) -> int:
    """Levenshtein distance, row by row."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row = row, [i, *row[1:]]
        for j, b in enumerate(right, 1):
            row[j] = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a != b))
    return row[-1]


def _random_pairs(count: int, seed: int) -> tuple[list[str], list[str]]:
    chance = random.Random(seed)
    references, hypotheses = [], []
    for _ in range(count):
        said = [chance.choice(VOCABULARY) for _ in range(chance.randint(1, 14))]
        heard = [chance.choice(VOCABULARY) if chance.random() < 0.2 else word for word in said]
        heard = [word for word in heard if chance.random() > 0.1]
        heard += [chance.choice(VOCABULARY) for _ in range(chance.randint(0, 2))]
        references.append(" ".join(said))
        hypotheses.append(" ".join(heard))
    return references, hypotheses


def test_a_hundred_random_pairs_agree_with_jiwer_and_with_plain_edit_distance() -> None:
    references, hypotheses = _random_pairs(100, 0)
    scores = score_texts(references, hypotheses, normaliser=LOWER)
    words = sum(_distance(a.split(), b.split()) for a, b in zip(references, hypotheses, strict=True))
    letters = sum(_distance(list(a), list(b)) for a, b in zip(references, hypotheses, strict=True))
    assert scores.words.edits == words
    assert scores.characters.edits == letters
    assert scores.wer == pytest.approx(words / sum(len(text.split()) for text in references))
    assert scores.cer == pytest.approx(letters / sum(map(len, references)))
    assert scores.wer == pytest.approx(jiwer.wer(references, hypotheses))
    assert scores.cer == pytest.approx(jiwer.cer(references, hypotheses))
    for pair, said, heard in zip(scores.pairs, references, hypotheses, strict=True):
        assert pair.words.edits == _distance(said.split(), heard.split())
        assert pair.words.length == len(said.split())


def test_it_is_the_rate_of_the_whole_set_and_not_the_mean_of_rates() -> None:
    scores = score_texts(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"], normaliser=LOWER)
    assert scores.wer == pytest.approx(0.1)
    assert scores.exact == 0.5
    assert (scores.utterances, scores.normaliser) == (2, "lower-3")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "c"]), max_size=6), st.lists(st.sampled_from(["a", "bb", "d"]), max_size=6))
def test_steps_lead_from_reference_to_hypothesis(said: list[str], heard: list[str]) -> None:
    pair = compare(" ".join(said), "  ".join(heard))
    assert [a for _, a, _ in pair.steps if a] == said
    assert [b for _, _, b in pair.steps if b] == heard
    marks = [mark for mark, _, _ in pair.steps]
    counted = Counts(marks.count(" "), marks.count("S"), marks.count("D"), marks.count("I"))
    assert pair.words == counted
    assert pair.words.edits == _distance(said, heard)
    assert all((mark == " ") == (a == b) for mark, a, b in pair.steps)


def test_the_normaliser_is_applied_to_both_sides() -> None:
    assert score_texts(["Um Good BYE"], ["good bye um"], normaliser=LOWER).wer == 0.0


def test_empty_references_count_what_was_invented() -> None:
    scores = score_texts(["", "um", "a b"], ["ghost words", "", "a b"], normaliser=LOWER)
    assert scores.words == Counts(2, 0, 0, 2)
    assert scores.wer == 1.0
    assert scores.by_length["0"].wer is None
    assert any("2 references without words; 2 words invented" in note for note in scores.notes)
    assert any("1 references became empty" in note for note in scores.notes)
    silent = score_texts([""], [""], normaliser=LOWER)
    assert (silent.wer, silent.cer, silent.wer_interval, silent.exact) == (None, None, None, 1.0)


def test_groups_by_length_and_label_add_up() -> None:
    references, hypotheses = _random_pairs(60, 1)
    noise = ["clean" if i % 3 else "10 dB" for i in range(60)]
    scores = score_texts(references, hypotheses, normaliser=LOWER, labels={"noise": noise})
    assert list(scores.by_length) == ["1-2", "3-5", "6-10", "11+"]
    for groups in (scores.by_length, scores.by_label["noise"]):
        assert sum(group.utterances for group in groups.values()) == 60
        edits = sum((group.wer or 0) * group.words for group in groups.values())
        assert edits == pytest.approx(scores.words.edits)
    chosen = [i for i in range(60) if noise[i] == "10 dB"]
    alone = score_texts([references[i] for i in chosen], [hypotheses[i] for i in chosen], normaliser=LOWER)
    assert scores.by_label["noise"]["10 dB"].wer == alone.wer
    long = [i for i in range(60) if 6 <= len(references[i].split()) <= 10]
    assert scores.by_length["6-10"].utterances == len(long)


def test_bootstrap_is_seeded_and_covers() -> None:
    references, hypotheses = _random_pairs(200, 2)
    first = score_texts(references, hypotheses, normaliser=LOWER, seed=5)
    again = score_texts(references, hypotheses, normaliser=LOWER, seed=5)
    other = score_texts(references, hypotheses, normaliser=LOWER, seed=6)
    assert first.wer_interval == again.wer_interval != other.wer_interval
    assert first.wer_interval is not None
    assert first.cer_interval is not None
    low, high = first.wer_interval
    assert low < (first.wer or 0) < high
    # The delta method's error of a ratio of means is close for 200 recordings.
    rate, size = first.wer or 0, len(references)
    rest = [pair.words.edits - rate * pair.words.length for pair in first.pairs]
    error = (sum(value**2 for value in rest) / size) ** 0.5 / size**0.5 / (first.words.length / size)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
    perfect = score_texts(references, references, normaliser=LOWER)
    assert perfect.wer_interval == (0.0, 0.0)


def test_confusions_are_counted_and_ordered() -> None:
    scores = score_texts(["a b", "a b", "a c d"], ["x b", "x b", "a c"], normaliser=LOWER, most_confusions=2)
    assert scores.confusions == (("a", "x", 2), ("d", "", 1))


def test_alignment_lines_stand_under_each_other_and_wrap() -> None:
    pair = compare("press one to leave a message", "press won to a long message")
    lines = alignment_lines(pair)
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
    place = lines[0].index("one")
    assert lines[1][place : place + 3] == "won"
    assert lines[2][place] == "S"
    assert sorted(lines[2].split()) == sorted(mark for mark, _, _ in pair.steps if mark != " ")
    wrapped = alignment_lines(pair, width=20)
    assert len(wrapped) > 3
    assert len(wrapped) % 3 == 0
    assert max(map(len, wrapped)) <= 20
    said = " ".join(line.removeprefix("REF:") for line in wrapped[::3]).replace("*", "").split()
    assert said == pair.reference.split()
    assert [line.strip() for line in alignment_lines(compare("", ""))] == ["REF:", "HYP:", ""]


def test_result_is_ready_for_json() -> None:
    scores = score_texts(["a b", ""], ["a x", "c"], normaliser=LOWER, labels={"noise": [1, 2]})
    plain = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert {"wer", "cer", "normaliser", "utterances", "words", "by_length", "by_label", "notes"} <= plain.keys()
    assert plain["words"] == {
        "hits": 1,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 1,
        "reference": 2,
        "edits": 2,
    }
    assert "pairs" not in plain


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="none"):
        score_texts([], [], normaliser=LOWER)
    with pytest.raises(InputError, match="2 and 1"):
        score_texts(["a", "b"], ["a"], normaliser=LOWER)
    with pytest.raises(InputError, match="noise"):
        score_texts(["a"], ["a"], normaliser=LOWER, labels={"noise": []})
