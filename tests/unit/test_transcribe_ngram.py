"""N-gram models: probabilities that sum to one, estimates by hand, files of both kinds, units of all kinds."""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import random
from typing import Any

import numpy as np
import pytest

from pipelines.data.datasets.speech_units import Units
from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.decoding.ctc import prefix_beam
from pipelines.transcribe.decoding.fusion import Fusion
from pipelines.transcribe.decoding.ngram import BEGIN, END, UNKNOWN, NGram
from pipelines.transcribe.decoding.ngram_files import load_ngram, save_ngram

SAID = "press one for the list or two to leave a message after the tone please hold"
WORDS = SAID.split()


def _lines(count: int = 300, seed: int = 0) -> list[str]:
    """Sentences of a Markov chain of words, so that context helps and rare events are there."""
    chance = random.Random(seed)
    lines = []
    for _ in range(count):
        place, words = chance.randrange(len(WORDS)), []
        for _ in range(chance.randint(1, 8)):
            words.append(WORDS[place % len(WORDS)])
            place += 1 if chance.random() < 0.8 else chance.randrange(len(WORDS))
        lines.append(" ".join(words))
    return lines


@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 3, 300])
def test_probabilities_sum_to_one_in_every_context(unit: Any, order: int, count: int) -> None:
    model = NGram.from_text(_lines(count), order=order, unit=unit)
    contexts = [(), *model.backoff, (UNKNOWN,), (2, UNKNOWN, 2)]
    for context in contexts[:400]:
        total = sum(math.exp(model.logp(context, token)) for token in range(len(model.vocabulary)))
        assert total == pytest.approx(1.0, abs=1e-9), context
        row = model.row(context)
        assert row.shape == (len(model.vocabulary),)
        assert row[len(row) // 2] == pytest.approx(model.logp(context, len(row) // 2))


def test_kneser_ney_by_hand() -> None:
    """A bigram model from the definition, written out with plain counts over words."""
    chance = np.random.default_rng(3)
    lines = [" ".join(f"w{n}" for n in chance.zipf(1.5, 6) if n < 400) for _ in range(120)]
    lines = [line for line in lines if line]
    model = NGram.from_text(lines, order=2, unit="word")
    assert not model.notes  # enough counts for all discounts
    pairs = [pair for line in lines for w in [["<s>", *line.split(), "</s>"]] for pair in itertools.pairwise(w)]
    counts = {pair: pairs.count(pair) for pair in set(pairs)}

    def discounts(values: list[int]) -> list[float]:
        n = [values.count(i) for i in range(5)]
        y = n[1] / (n[1] + 2 * n[2])
        three = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]] if n[3] and n[4] else None
        return three if three and all(0 < d < i + 1 for i, d in enumerate(three)) else [y] * 3

    after = {w: len({a for a, b in counts if b == w}) for w in {b for _, b in counts}}  # continuation counts
    low, high = discounts(list(after.values())), discounts(list(counts.values()))
    size = len(model.vocabulary)

    def single(word: str) -> float:
        total = sum(after.values())
        kept = after[word] - low[min(after[word], 3) - 1] if word in after else 0.0
        return kept / total + sum(low[min(c, 3) - 1] for c in after.values()) / total / size

    def double(context: str, word: str) -> float:
        own = {b: c for (a, b), c in counts.items() if a == context}
        total = sum(own.values())
        kept = own[word] - high[min(own[word], 3) - 1] if word in own else 0.0
        return kept / total + sum(high[min(c, 3) - 1] for c in own.values()) / total * single(word)

    for context in ["<s>", "w1", "w2", "w7"]:
        for word in [*list(model.ids)[2:40], "</s>"]:
            history = [] if context == "<s>" else [context]
            assert math.exp(model.score(history, word)) == pytest.approx(double(context, word), rel=1e-9)


def test_witten_bell_where_counts_are_few_and_it_is_said() -> None:
    model = NGram.from_text(["a b", "a b"], order=2, unit="word")  # no bigram occurs once: no discount can be told
    assert any("Witten-Bell" in note and "order 2" in note for note in model.notes)
    single = (1 + 3 / 4) / (3 + 3)  # a, b and the end follow one token each; with <unk> there are four
    assert math.exp(model.score(["a"], "b")) == pytest.approx((2 + 1 * single) / (2 + 1))


def test_perplexity_prefers_what_is_like_the_text_and_longer_contexts() -> None:
    train, held = _lines(400, 1), _lines(60, 2)
    values = [NGram.from_text(train, order=n).perplexity(held).value for n in (1, 2, 4, 6)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.4 * values[0]
    words = NGram.from_text(train, order=2, unit="word")
    facts = words.perplexity(["press one zebra", ""])
    assert (facts.tokens, facts.unknown) == (5, 1)
    assert words.perplexity(held).value < len(WORDS)


def test_incremental_scoring_equals_scoring_with_the_history() -> None:
    model = NGram.from_text(_lines(), order=4)
    tokens = list("hold the tone zebra")
    context = model.start()
    for place, token in enumerate(tokens):
        assert model.logp(context, model.token_id(token)) == pytest.approx(model.score(tokens[:place], token))
        context = model.advance(context, model.token_id(token))
        assert len(context) <= 3
    assert model.logp(context, END) == pytest.approx(model.score(tokens, "</s>"))


def test_spaces_and_empty_lines() -> None:
    assert NGram.from_text([" a  b "], order=2).grams == NGram.from_text(["a b"], order=2).grams
    assert "2 empty lines left out" in NGram.from_text(["", "ab", "  "], order=1).notes
    known = NGram.from_text(["ab"], order=2, vocabulary="abcz")
    assert math.exp(known.score(["a"], "z")) == pytest.approx(math.exp(known.score(["a"], "c")))
    assert "z" in known.ids


@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize("ending", ["json", "arpa"])
def test_files_keep_the_model(tmp_path: pathlib.Path, unit: Any, ending: str) -> None:
    model = NGram.from_text(_lines(), order=3, unit=unit)
    again = load_ngram(save_ngram(model, tmp_path / f"lm.{ending}"))
    assert (again.unit, again.order, again.vocabulary) == (unit, 3, model.vocabulary)
    tolerance = 0 if ending == "json" else 1e-6
    assert again.perplexity(_lines(20, 9)).value == pytest.approx(model.perplexity(_lines(20, 9)).value, rel=tolerance)
    assert again.start() == (BEGIN,)
    assert save_ngram(again, tmp_path / f"again.{ending}").read_bytes() == (tmp_path / f"lm.{ending}").read_bytes()


ARPA = """
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99 <s> -0.5
-1.0 </s>
-0.30103 yes -0.2
-0.6 no

\\2-grams:
-0.1 <s> yes
-0.4 yes </s>

\\end\\
"""


def test_arpa_by_hand(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.arpa"
    path.write_text("made by hand\n" + ARPA)
    model = load_ngram(path)
    ten = math.log(10)
    assert model.score([], "yes") == pytest.approx(-0.1 * ten)
    assert model.score([], "no") == pytest.approx((-0.5 - 0.6) * ten)
    assert model.score(["yes"], "no") == pytest.approx((-0.2 - 0.6) * ten)
    assert model.score(["no"], "</s>") == pytest.approx(-1.0 * ten)
    assert model.score(["no"], "maybe") == pytest.approx(-7 * ten)
    assert any("<unk>" in note for note in model.notes)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("\\data\\", "", "no language model"),
        ("ngram 2=2", "ngram 2=3", "incomplete"),
        ("\\end\\", "", "incomplete"),
        ("-0.1 <s> yes", "x <s> yes", "a.arpa:14.*no number"),
        ("-0.1 <s> yes", "-0.1 yes", "a.arpa:14.*does not fit"),
        ("-0.1 <s> yes", "-0.1 <s> what", "what"),
        ("-0.6 no", "nan no", "no logarithms"),
        ("-0.6 no", "0.6 no", "no logarithms"),
        ("ngram 1=4", "ngram one=4", "a.arpa:4"),
    ],
)
def test_damaged_arpa_files_are_refused(tmp_path: pathlib.Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "a.arpa"
    path.write_text("head\n" + ARPA.replace(old, new))
    with pytest.raises(InputError, match=words):
        load_ngram(path)


def test_damaged_files_never_end_in_a_traceback(tmp_path: pathlib.Path) -> None:
    chance = random.Random(0)
    model = NGram.from_text(_lines(20), order=2, unit="word")
    refused = 0
    for ending in ("json", "arpa"):
        whole = bytearray(save_ngram(model, tmp_path / f"lm.{ending}").read_bytes())
        for _ in range(60):
            damaged = whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                if damaged:
                    damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            path = tmp_path / "damaged"
            path.write_bytes(damaged)
            try:
                load_ngram(path).perplexity(["press one"])
            except InputError as error:
                refused += "damaged" in str(error)  # the file's name
    assert refused > 60


def test_what_cannot_be_a_model_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="no text"):
        NGram.from_text(["", " "])
    with pytest.raises(InputError, match="</s>"):
        NGram.from_text(["a </s> b"], unit="word")
    with pytest.raises(ConfigError, match="order"):
        NGram.from_text(["a"], order=0)
    with pytest.raises(ConfigError, match="unit"):
        NGram.from_text(["a"], unit="byte")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="line of text"):
        NGram.from_text(["a"], order=1).perplexity([])
    with pytest.raises(InputError, match=r"nowhere\.arpa"):
        load_ngram(tmp_path / "nowhere.arpa")
    config = NGram.from_text(["ab"], order=2).to_config()
    json.dumps(config)
    for key, value in {"format": "other", "grams": [[[99], -1.0, None]], "order": "x", "vocabulary": ["a"]}.items():
        with pytest.raises(InputError):
            NGram.from_config({**config, key: value})


@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize("kind", ["char", "byte", "sentencepiece"])
def test_units_of_every_kind_get_the_probability_of_the_text(kind: str, unit: Any) -> None:
    texts = ["the quick brown fox", "she sells sea shells", "né à l'été", "the end of the day"] * 3
    made = {"char": Units.from_texts, "byte": lambda _: Units.bytes()}
    units = Units.train_sentencepiece(texts, 60, 0) if kind == "sentencepiece" else made[kind](texts)
    lm = NGram.from_text(texts, order=4, unit=unit)
    fusion = Fusion(lm, units)
    for text in texts[:4]:
        state, total = fusion.start(), 0.0
        for number in units.encode(text):
            total += float(fusion.scores(state, np.array([number]))[0])
            state = fusion.advance(state, number)
        facts = lm.perplexity([text])
        assert total + fusion.end(state) == pytest.approx(-facts.tokens * math.log(facts.value))


def test_a_long_unknown_word_costs_more_than_a_short_one() -> None:
    units = Units.chars("abxyz ")
    fusion = Fusion(NGram.from_text(["ab ba", "ab"], order=2, unit="word"), units)

    def total(text: str) -> float:
        state, score = fusion.start(), 0.0
        for number in units.encode(text):
            score += float(fusion.scores(state, [number])[0])
            state = fusion.advance(state, number)
        return score + fusion.end(state)

    assert total("ab") > total("xy") > total("xyzxyz")
    assert total("xy") - total("xyz") == pytest.approx(math.log(3))
    assert total("ab  ba") < total("ab ba") - 1  # a space too many is not free


def test_a_word_is_paid_for_letter_by_letter() -> None:
    """The begin of a word counts as all words that begin so; together with its end that is the word itself."""
    units = Units.chars("abc ")
    lm = NGram.from_text(["ab ac", "ab", "ca"], order=1, unit="word")
    fusion = Fusion(lm, units)
    a, b = units.encode("ab")
    chance = {word: math.exp(lm.score([], word)) for word in ("ab", "ac", "<unk>")}
    first = float(fusion.scores(fusion.start(), [a])[0])
    assert math.exp(first) == pytest.approx(chance["ab"] + chance["ac"] + chance["<unk>"] / 4)
    second = float(fusion.scores(fusion.advance(fusion.start(), a), [b])[0])
    assert math.exp(first + second) == pytest.approx(chance["ab"] + chance["<unk>"] / 16)


def test_a_beam_with_a_word_model_keeps_its_spaces() -> None:
    """A model that charged for words only at spaces would make texts without spaces win."""
    units = Units.chars()
    text = "press one for the list or two to leave a message"
    lm = NGram.from_text([text, "hold the tone", "leave a message after the tone"], order=2, unit="word")
    logp = np.full((2 * len(text), units.size), 0.004)
    logp[:, 0] = 0.8
    for place, number in enumerate(units.encode(text)):
        logp[2 * place, [0, number]] = [0.3, 0.5]
    found = prefix_beam(np.log(logp / logp.sum(1, keepdims=True)), lm=lm, units=units, beam=5)
    assert units.decode(found[0].ids) == text
