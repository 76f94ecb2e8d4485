"""Greedy, prefix beam and joint decoding against brute force over all paths and against plain Python."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.data.datasets.speech_units import Units
from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.decoding.ctc import greedy, prefix_beam
from pipelines.transcribe.decoding.fusion import Fusion
from pipelines.transcribe.decoding.joint import attention_greedy, joint_beam
from pipelines.transcribe.decoding.ngram import NGram
from pipelines.transcribe.decoding.prefix_score import PrefixScorer
from pipelines.transcribe.decoding.scoring import Hypothesis, check_frames

Text = tuple[int, ...]
SIZES = [(1, 3, 0), (3, 4, 1), (4, 4, 2), (4, 5, 3), (6, 4, 4)]


def _frames(steps: int, size: int, seed: int, peak: float = 0.5) -> np.ndarray:
    return np.log(np.random.default_rng(seed).dirichlet(np.full(size, peak), steps) + 1e-12)


def _all_texts(logp: np.ndarray, *, boundary: bool = False) -> dict[Text, float]:
    """Every text with the sum over its paths, by listing all paths; those through id 1 only if asked for."""
    sums: dict[Text, float] = {}
    usable = [number for number in range(logp.shape[1]) if number != 1 or boundary]
    for path in itertools.product(usable, repeat=len(logp)):
        text = tuple(number for number, _ in itertools.groupby(path) if number != 0)
        sums[text] = sums.get(text, 0.0) + math.exp(sum(logp[t, number] for t, number in enumerate(path)))
    return {text: math.log(value) for text, value in sums.items()}


class _Even:
    """A text decoder that knows nothing."""

    def __init__(self, size: int) -> None:
        self.size = size

    def begin(self, rows: int = 1) -> None:
        return None

    def score(self, tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        return torch.full((len(tokens), self.size), 1 / self.size).log(), state

    def pick(self, state: None, rows: torch.Tensor) -> None:
        return None


class _Recurrent:
    """A small random recurrent decoder: what it says depends on the whole text, so a wrong state is seen."""

    def __init__(self, size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.inward = torch.randn(size, 5, generator=generator)
        self.around = torch.randn(5, 5, generator=generator) * 0.7
        self.outward = torch.randn(5, size, generator=generator) * 1.5
        self.calls = 0

    def begin(self, rows: int = 1) -> torch.Tensor:
        return torch.zeros(rows, 5)

    def score(self, tokens: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        state = torch.tanh(self.inward[tokens] + state @ self.around)
        return (state @ self.outward).log_softmax(-1), state

    def pick(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return state[rows]

    def whole(self, text: Text, *, end: bool = True) -> float:
        """Log-probability of a text from the beginning, token by token."""
        state, total = self.begin(), 0.0
        for before, after in itertools.pairwise((1, *text, *((1,) if end else ()))):
            row, state = self.score(torch.tensor([before]), state)
            total += float(row[0, after])
        return total


@pytest.mark.parametrize(("steps", "size", "seed"), SIZES)
def test_prefix_beam_is_exact_when_nothing_is_pruned(steps: int, size: int, seed: int) -> None:
    logp = _frames(steps, size, seed)
    truth = _all_texts(logp)
    found = prefix_beam(logp, beam=10**6, least=0)
    assert {hypothesis.ids for hypothesis in found} == set(truth)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(truth[hypothesis.ids], abs=1e-9)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_a_narrow_beam_never_promises_too_much_and_mostly_finds_the_best() -> None:
    hits = 0
    for seed in range(30):
        logp = _frames(6, 4, seed, 0.3)
        truth = _all_texts(logp)
        found = prefix_beam(torch.from_numpy(logp).float(), beam=3, least=1e-4)
        assert len(found) <= 3
        assert all(h.score <= truth[h.ids] + 1e-5 for h in found)
        hits += found[0].ids == max(truth, key=lambda text: truth[text])
    assert hits >= 27


def test_greedy_reads_the_best_path() -> None:
    for seed in range(20):
        logp = _frames(5, 5, seed)
        usable = logp.copy()
        usable[:, 1] = -np.inf
        path = max(itertools.product(range(5), repeat=5), key=lambda p: sum(usable[t, n] for t, n in enumerate(p)))
        found = greedy(logp)
        assert found.ids == tuple(number for number, _ in itertools.groupby(path) if number)
        assert found.score == pytest.approx(sum(usable[t, number] for t, number in enumerate(path)))
        assert [path[frame] for frame in found.frames] == list(found.ids)


def test_the_boundary_is_never_emitted_by_ctc() -> None:
    logp = np.log(np.tile([[0.04, 0.9, 0.06]], (4, 1)))
    assert greedy(logp).ids == (2,)
    assert all(1 not in h.ids for h in [*prefix_beam(logp), *joint_beam(_Even(3), logp)])


def test_beams_without_frames_or_hope_still_answer() -> None:
    for answer in (greedy(np.zeros((0, 4))), prefix_beam(np.zeros((0, 4)))[0]):
        assert (answer.ids, answer.score) == ((), 0.0)
    assert joint_beam(_Even(4), np.zeros((0, 4)))[0].ids == ()
    nothing = np.full((3, 4), -np.inf)
    assert prefix_beam(nothing)[0].score == -math.inf
    assert greedy(nothing).score == -math.inf


@pytest.mark.parametrize("unit", ["char", "word"])
def test_a_language_model_counts_as_it_should_in_both_beams(unit: Any) -> None:
    units = Units.chars("ab ")
    lm = NGram.from_text(["ab ab b", "b ab", "a b ab"], order=3, unit=unit)
    logp = _frames(5, units.size, 7)
    truth = _all_texts(logp)

    def language(text: Text) -> float:
        line = units.decode(text)
        tokens = list(line)  # spaces at the ends and in runs are tokens too
        if unit == "word":
            *begin, last = line.split(" ")
            tokens = [*begin, *([last] if last else [])]
        total, history = 0.0, []
        for token in tokens:
            total += lm.score(history, token)
            if unit == "word" and token not in lm.ids:
                total -= (len(token) + 1) * math.log(3)  # spelled with a, b and the end of the word
            history += [token] if token else []
        return total + lm.score(history, "</s>")

    expected = {text: value + 0.8 * language(text) + 0.3 * len(text) for text, value in truth.items()}
    options = {"lm": lm, "lm_weight": 0.8, "length_bonus": 0.3, "units": units}
    found = prefix_beam(logp, beam=10**6, least=0, **options)
    assert len(found) == len(truth)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(expected[hypothesis.ids], abs=1e-9)
        assert hypothesis.parts["ctc"] == pytest.approx(truth[hypothesis.ids])
        assert hypothesis.parts["lm"] == pytest.approx(language(hypothesis.ids))
    ready = {**options, "lm": Fusion(lm, units), "units": None}
    assert prefix_beam(logp, beam=10**6, least=0, **ready) == found
    joined = joint_beam(_Even(units.size), logp, beam=2000, ctc_weight=1.0, **options)
    assert joined[0].ids == found[0].ids
    for hypothesis in joined:
        assert hypothesis.score == pytest.approx(expected[hypothesis.ids], abs=1e-9)


@pytest.mark.parametrize(("steps", "size", "seed"), SIZES)
def test_prefix_probabilities_are_sums_over_texts(steps: int, size: int, seed: int) -> None:
    logp = _frames(steps, size, seed)
    truth = _all_texts(logp, boundary=True)  # whatever follows the prefix
    scorer = PrefixScorer(logp)
    units = np.arange(2, size)
    state, texts = scorer.start(), [()]
    for _ in range(min(steps, 3)):
        psi = scorer.prefixes(state, np.tile(units, (len(texts), 1)))
        for i, text in enumerate(texts):
            assert math.exp(scorer.whole(state)[i]) == pytest.approx(math.exp(truth[text]) if text in truth else 0.0)
            for j, unit in enumerate(units.tolist()):
                longer = (*text, unit)
                total = sum(math.exp(value) for other, value in truth.items() if other[: len(longer)] == longer)
                assert math.exp(psi[i, j]) == pytest.approx(total, abs=1e-9)
        rows = np.repeat(np.arange(len(texts)), len(units))
        state = scorer.extend(state, rows, np.tile(units, len(texts)))
        texts = [(*text, unit) for text in texts for unit in units.tolist()]


@pytest.mark.parametrize(("steps", "size", "seed"), SIZES)
def test_joint_beam_with_ctc_alone_ranks_as_the_sums_over_paths(steps: int, size: int, seed: int) -> None:
    logp = _frames(steps, size, seed)
    truth = _all_texts(logp)
    found = joint_beam(_Even(size), logp, beam=10**5, ctc_weight=1.0)
    best = max(truth.values())
    expected = sorted((text for text in truth if truth[text] > best - 9), key=lambda text: -truth[text])
    assert [h.ids for h in found][: len(expected)] == expected
    assert all(h.score == pytest.approx(truth[h.ids], abs=1e-9) and h.complete for h in found)


def _plain_beam(decoder: _Recurrent, size: int, beam: int, longest: int) -> list[tuple[float, Text]]:
    """Beam search in plain Python, every text scored from its beginning."""
    ended: list[tuple[float, Text]] = []
    texts: list[Text] = [()]
    for _ in range(longest + 1):
        ended += [(decoder.whole(text), text) for text in texts]
        longer = [(*text, unit) for text in texts for unit in range(2, size)]
        texts = sorted(longer, key=lambda text: -decoder.whole(text, end=False))[:beam]
    return sorted(ended, key=lambda entry: -entry[0])[:beam]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beam", [1, 4])
def test_joint_beam_without_ctc_is_plain_beam_search(seed: int, beam: int) -> None:
    decoder = _Recurrent(6, seed)
    found = joint_beam(decoder, None, beam=beam, ctc_weight=0.0, longest=6)
    expected = [entry for entry in _plain_beam(decoder, 6, beam, 6) if entry[0] > found[0].score - 10]
    assert [h.ids for h in found][: len(expected)] == [text for _, text in expected]
    for hypothesis, (score, _) in zip(found, expected, strict=False):
        assert hypothesis.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("weight", [0.3, 0.7])
def test_parts_add_up_and_states_follow_their_texts(weight: float) -> None:
    logp = _frames(5, 5, 11)
    truth = _all_texts(logp)
    decoder = _Recurrent(5, 3)
    found = joint_beam(decoder, logp, beam=6, ctc_weight=weight, length_bonus=0.1)
    assert len({h.ids for h in found}) == len(found) > 2
    for hypothesis in found:
        assert hypothesis.parts["decoder"] == pytest.approx(decoder.whole(hypothesis.ids), abs=1e-5)
        assert hypothesis.parts["ctc"] == pytest.approx(truth[hypothesis.ids], abs=1e-9)
        total = (1 - weight) * hypothesis.parts["decoder"] + weight * hypothesis.parts["ctc"]
        assert hypothesis.score == pytest.approx(total + 0.1 * len(hypothesis.ids))
    complete = [text for text in truth if len(text) <= 5]
    best = max(complete, key=lambda t: (1 - weight) * decoder.whole(t) + weight * truth[t] + 0.1 * len(t))
    assert joint_beam(decoder, logp, beam=500, ctc_weight=weight, length_bonus=0.1)[0].ids == best


class _Endless(_Even):
    """A text decoder that is sure of unit 2 for ever."""

    def score(self, tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        row = torch.tensor([0.0, 1e-30, 1.0, 0.0]).log()
        return row.expand(len(tokens), 4), state


def test_an_endless_decoder_is_cut_and_says_so() -> None:
    cut = attention_greedy(_Endless(4), 7)
    assert (cut.ids, cut.complete) == ((2,) * 7, False)
    cut = joint_beam(_Endless(4), None, ctc_weight=0.0, longest=5, beam=2)[0]
    assert cut.score < -60  # the end that it got by force has its price
    by_length = {len(h.ids): h.complete for h in joint_beam(_Endless(4), None, ctc_weight=0.0, longest=5, beam=9)}
    assert by_length == {0: True, 1: True, 2: True, 3: True, 4: True, 5: False}
    frames = np.log(np.tile([[0.1, 0.0, 0.8, 0.1]], (6, 1)) + 1e-9)
    assert all(len(h.ids) <= 6 for h in joint_beam(_Endless(4), frames, ctc_weight=0.1))


def test_a_text_that_ends_at_the_limit_by_itself_is_complete() -> None:
    logp = np.log(np.full((3, 4), 0.01))
    logp[[0, 1, 2], [2, 3, 2]] = math.log(0.97)
    found = joint_beam(_Even(4), logp, ctc_weight=0.9)[0]
    assert (found.ids, found.complete) == ((2, 3, 2), True)
    assert not joint_beam(_Even(4), logp, ctc_weight=0.9, longest=2)[0].complete


def test_greedy_and_beam_of_the_decoder_agree_with_scoring_anew() -> None:
    for seed in range(8):
        decoder = _Recurrent(7, seed)
        found = attention_greedy(decoder, 12)
        assert decoder.calls == len(found.ids) + 1  # one token a call: nothing is read twice
        total = decoder.whole(found.ids, end=found.complete)
        assert found.score == pytest.approx(total, abs=1e-5)
        if found.complete:
            assert joint_beam(decoder, None, ctc_weight=0, longest=12, beam=8)[0].score >= found.score - 1e-5


def test_beams_are_fast_enough() -> None:
    logp = _frames(250, 30, 0, 0.05)
    prefix_beam(logp[:5])
    began = time.perf_counter()
    prefix_beam(logp, beam=10, least=0)
    assert time.perf_counter() - began < 0.3


@pytest.mark.parametrize(
    ("logp", "words"),
    [
        (np.full((2, 3), np.nan), "6 NaN"),
        (np.full((2, 3), 0.5), "log_softmax"),
        (np.zeros(3), "frames, ids"),
        (np.zeros((4, 1)), "frames, ids"),
    ],
)
def test_frames_that_are_none_are_refused(logp: np.ndarray, words: str) -> None:
    for call in (check_frames, greedy, prefix_beam, lambda f: joint_beam(_Even(3), f)):
        with pytest.raises(InputError, match=words):
            call(logp)


def test_settings_that_do_not_fit_are_refused() -> None:
    logp, lm = _frames(3, 4, 0), NGram.from_text(["ab"], order=2)
    with pytest.raises(ConfigError, match="beam"):
        prefix_beam(logp, beam=0)
    with pytest.raises(ConfigError, match="beam"):
        joint_beam(_Even(4), logp, beam=0)
    with pytest.raises(ConfigError, match="ctc_weight"):
        joint_beam(_Even(4), logp, ctc_weight=1.5)
    with pytest.raises(ConfigError, match="units"):
        prefix_beam(logp, lm=lm)
    with pytest.raises(ConfigError, match="logp"):
        joint_beam(_Even(4), None)
    with pytest.raises(ConfigError, match="no letter in common"):
        prefix_beam(logp, lm=lm, units=Units.chars("AB"))

    class Broken(_Even):
        def score(self, tokens: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
            return torch.full((len(tokens), self.size), math.nan), state

    with pytest.raises(InputError, match="4 NaN"):
        attention_greedy(Broken(4), 3)


def test_hypotheses_are_values() -> None:
    assert Hypothesis((2,), -1.0) == Hypothesis((2,), -1.0)


def test_a_whole_number_as_length_bonus_is_a_number() -> None:
    logp = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    whole, plain = (joint_beam(_Even(5), logp, beam=4, length_bonus=bonus) for bonus in (1, 1.0))
    assert [one.ids for one in whole] == [one.ids for one in plain]
