"""Forced alignment: as many words as the text has, the best path, edges where the sound begins and ends."""

from __future__ import annotations

import io
import itertools
import math
import pathlib
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.datasets.speech_units import Units
from pipelines.errors import InputError
from pipelines.transcribe.decoding.align import align, frames_needed
from pipelines.transcribe.decoding.text import unit_texts
from pipelines.transcribe.decoding.word_edges import Loudness, Spikes, edges
from pipelines.transcribe.words import Word

UNITS = Units.chars()
RATE = 8000


def _random(steps: int, size: int, seed: int) -> np.ndarray:
    return np.log(np.random.default_rng(seed).dirichlet(np.full(size, 0.3), steps) + 1e-9)


def _in_order(words: list[Word], seconds: float) -> bool:
    times = [0.0, *itertools.chain.from_iterable((word.start, word.end) for word in words), seconds + 1e-9]
    return all(a <= b for a, b in itertools.pairwise(times)) and all(word.end > word.start for word in words)


@settings(max_examples=60, deadline=None)
@given(text=st.text(" 'abe", max_size=14), spare=st.integers(0, 30), seed=st.integers(0, 99), sound=st.booleans())
def test_as_many_words_as_the_text_has(text: str, spare: int, seed: int, sound: bool) -> None:
    """One-letter words, repeated letters, apostrophes, spaces at the ends and in runs, too little room to breathe."""
    ids = UNITS.encode(text)
    steps = frames_needed(ids) + spare
    logp = torch.from_numpy(_random(steps, UNITS.size, seed)).float()
    noise = np.random.default_rng(seed).normal(0, 0.1, int(steps * 0.04 * RATE)).astype(np.float32)
    given_sound = {"samples": noise, "rate": RATE} if sound else {}
    words = align(logp, ids, unit_texts(UNITS, ids), 0.04, **given_sound)
    assert [word.text for word in words] == text.split()
    assert _in_order(words, steps * 0.04)
    assert all(0 <= word.confidence <= 1 for word in words)


def test_empty_text_has_no_words() -> None:
    assert align(_random(5, 4, 0), [], []) == []
    assert align(np.zeros((0, 4)), [], []) == []
    assert align(_random(5, UNITS.size, 0), [2, 2], [" ", " "]) == []


def test_the_most_probable_path_gives_confidence_and_place() -> None:
    """Against the best of all paths that read the text, listed one by one."""
    for seed in range(12):
        logp = _random(6, 5, seed)
        ids = [[3, 2, 4], [3, 3], [4]][seed % 3]
        texts = {2: " ", 3: "a", 4: "b"}
        paths = [
            path
            for path in itertools.product((0, 2, 3, 4), repeat=6)
            if [n for n, _ in itertools.groupby(path) if n] == ids
        ]
        best = max(paths, key=lambda path: sum(logp[t, n] for t, n in enumerate(path)))
        words = align(logp, ids, [texts[n] for n in ids], 1.0)
        groups: list[list[int]] = [[]]
        for frame, number in enumerate(best):
            if number == 2:
                groups.append([])
            elif number:
                groups[-1].append(frame)
        assert len(words) == len(groups)
        for word, group in zip(words, groups, strict=True):
            mean = sum(logp[t, best[t]] for t in group) / len(group)
            assert word.confidence == pytest.approx(math.exp(mean), abs=1e-5)
            assert word.start <= group[0] + 0.5 <= group[-1] + 0.5 <= word.end


def test_too_few_frames_says_how_many_are_needed() -> None:
    with pytest.raises(InputError, match=r"hello\.txt: .*Found: 5 frames.*Expected: 6 frames or more for 5 units"):
        align(_random(5, UNITS.size, 0), UNITS.encode("hello"), list("hello"), where="hello.txt")
    assert [word.text for word in align(_random(6, UNITS.size, 0), UNITS.encode("hello"), list("hello"))] == ["hello"]


@pytest.mark.parametrize(
    ("ids", "texts", "words"),
    [([2, 3], ["a"], "2 ids, 1 texts"), ([1], ["a"], "no units"), ([9], ["a"], r"\[9\].*2 to 4")],
)
def test_ids_that_do_not_fit_are_refused(ids: list[int], texts: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        align(_random(6, 5, 0), ids, texts)
    with pytest.raises(InputError, match="sampling rate"):
        align(_random(6, 5, 0), [2], ["a"], samples=np.zeros(10, np.float32))


def test_impossible_units_still_get_words() -> None:
    logp = np.full((8, 5), -np.inf)
    logp[:, 0] = 0.0
    words = align(logp, [3, 2, 4], ["a", " ", "b"])
    assert [word.text for word in words] == ["a", "b"]
    assert all(word.confidence == 0 for word in words)
    assert _in_order(words, 8 * 0.04)


@pytest.mark.parametrize("kind", ["char", "byte", "sentencepiece"])
def test_units_of_every_kind_give_the_words(kind: str) -> None:
    texts = ["the quick brown fox", "she sells sea shells", "né à l'été", "the end of the day"] * 3
    made = {"char": Units.from_texts, "byte": lambda _: Units.bytes()}
    units = Units.train_sentencepiece(texts, 60, 0) if kind == "sentencepiece" else made[kind](texts)
    for text in texts[:4]:
        ids = units.encode(text)
        words = align(_random(frames_needed(ids) + 9, units.size, 1), ids, unit_texts(units, ids))
        assert [word.text for word in words] == text.split()
        assert _in_order(words, (frames_needed(ids) + 9) * 0.04)


def test_a_unit_that_ends_one_word_and_begins_another_belongs_to_both() -> None:
    words = align(_random(9, 6, 0), [2, 3, 4], ["go", "od by", "e"])
    assert [word.text for word in words] == ["good", "bye"]
    assert _in_order(words, 9 * 0.04)


def test_offset_moves_all_times() -> None:
    logp, ids = _random(30, UNITS.size, 2), UNITS.encode("to be")
    plain, moved = align(logp, ids, list("to be")), align(logp, ids, list("to be"), offset=100.0)
    assert [w.start + 100 for w in plain] == pytest.approx([w.start for w in moved])
    assert [w.end + 100 for w in plain] == pytest.approx([w.end for w in moved])


def test_edges_from_spikes_alone_share_a_narrow_gap() -> None:
    places = edges(Spikes(np.array([[1.0, 1.2], [1.3, 1.3], [3.0, 3.4]]), 0.04), 3.45)
    assert places.ravel().tolist() == pytest.approx([0.92, 1.25, 1.25, 1.42, 2.92, 3.45])


def _joined(
    sounds: list[tuple[str, np.ndarray]], seed: int, *, noise: float, late: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words with pauses between: the sound, their true times (W, 2), and frames with one spike a letter inside them."""
    chance = np.random.default_rng(seed)
    parts, truth, spikes, now = [], [], [], 0.0
    for text, sound in sounds:
        pause = np.zeros(int(chance.uniform(0.15, 0.6) * RATE))
        begin = now + len(pause) / RATE
        now = begin + len(sound) / RATE
        parts += [pause, sound]
        truth.append((begin, now))
        spikes.append(begin + (now - begin) * (np.arange(len(text)) + 0.5) / len(text) + late)
    parts.append(np.zeros(int(0.4 * RATE)))
    sound = np.concatenate(parts)
    sound = sound + chance.normal(0, noise, len(sound)) if noise else sound
    logp = np.full((math.ceil(len(sound) / RATE / 0.04), UNITS.size), math.log(0.001))
    logp[:, 0] = math.log(0.97)
    last = -1
    middles = [[(a[-1] + b[0]) / 2] for a, b in itertools.pairwise(spikes)]
    places = list(itertools.chain.from_iterable(itertools.zip_longest(spikes, middles, fillvalue=[])))
    letters = " ".join(text for text, _ in sounds)
    for letter, place in zip(letters, itertools.chain.from_iterable(places), strict=True):
        frame = max(int(place / 0.04), last + 2)  # room for a blank between equal letters
        logp[frame, 0], logp[frame, UNITS.encode(letter)[0]] = math.log(0.001), math.log(0.97)
        last = frame
    return sound.astype(np.float32), np.array(truth), logp


def _errors(sounds: list[tuple[str, np.ndarray]], seed: int, *, noise: float = 0.0, late: float = 0.0) -> np.ndarray:
    sound, truth, logp = _joined(sounds, seed, noise=noise, late=late)
    text = " ".join(text for text, _ in sounds)
    words = align(logp, UNITS.encode(text), list(text), samples=sound, rate=RATE)
    assert [word.text for word in words] == text.split()
    assert _in_order(words, len(sound) / RATE)
    return np.abs(np.array([(word.start, word.end) for word in words]) - truth)


def _tones(seed: int) -> list[tuple[str, np.ndarray]]:
    """Words made of a hiss, a tone, a closure of 60 ms and a burst: what tempts a simple rule to cut a word short."""
    chance = np.random.default_rng(seed)
    sounds = []
    for text in ("six", "eight", "a", "twelve", "o"):
        hiss = chance.normal(0, 0.02, int(0.12 * RATE))
        tone = 0.3 * np.sin(2 * np.pi * chance.uniform(200, 900) * np.arange(int(0.25 * RATE)) / RATE)
        burst = chance.normal(0, 0.05, int(0.05 * RATE))
        sounds.append((text, np.concatenate([hiss, tone, np.zeros(int(0.06 * RATE)), burst])))
    return sounds


@pytest.mark.parametrize("late", [-0.05, 0.0, 0.1])
def test_words_with_pauses_get_the_times_of_their_sounds(late: float) -> None:
    errors = np.concatenate([_errors(_tones(seed), seed, late=late) for seed in range(5)])
    assert np.median(errors) < 0.02
    assert errors.max() < 0.1


def test_steady_noise_hardly_moves_the_edges() -> None:
    errors = np.concatenate([_errors(_tones(seed), seed, noise=0.002) for seed in range(5)])
    assert np.median(errors) < 0.04


def test_words_that_run_into_each_other_part_at_the_quietest_place() -> None:
    time = np.arange(int(1.2 * RATE)) / RATE
    loud = 0.1 + 0.4 * np.abs(np.sin(2 * np.pi * (time - 0.1) / 1.0))  # quietest at 0.6 s
    sound = (loud * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
    logp = np.full((30, UNITS.size), math.log(0.001))
    logp[:, 0] = math.log(0.97)
    for frame, letter in ((8, "a"), (12, " "), (22, "b")):
        logp[frame, 0], logp[frame, UNITS.encode(letter)[0]] = math.log(0.001), math.log(0.97)
    left, right = align(logp, UNITS.encode("a b"), list("a b"), samples=sound, rate=RATE)
    assert left.end == right.start == pytest.approx(0.6, abs=0.03)


def test_loudness_of_odd_sounds() -> None:
    for count in (0, 1, 7, 80, 81, 8000):
        assert Loudness.of(np.zeros(count, np.float32), RATE).level.shape == (max(1, count // 80), 4)
    assert Loudness.of(np.full(800, 0.5, np.float32), RATE).level[5].max() < -60  # an offset is no sound


def test_prompts_joined_with_pauses(benchmark: pathlib.Path) -> None:
    """Spoken digits and words of the phonetic alphabet, cut to their sound and joined: within 100 ms, nearly all."""
    archive = benchmark.parent / "embeddable" / "asr" / "asterisk_en_wav8k.tar.xz"
    if not archive.is_file():
        pytest.skip("the prompts are not in the data folder")
    names = {"digits/6": "six", "digits/8": "eight", "digits/5": "five", "digits/2": "two", "digits/12": "twelve"}
    names |= {"phonetic/f_p": "foxtrot", "letters/a": "a", "letters/s": "s", "phonetic/t_p": "tango"}
    sounds = []
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("asterisk_en_wav8k/").removesuffix(".wav")
            if name in names:
                content = tar.extractfile(member)
                assert content is not None
                sounds.append((names[name], _cut(soundfile.read(io.BytesIO(content.read()), dtype="float64")[0])))
    assert len(sounds) == len(names)
    for noise, least in ((0.0, 0.97), (0.003, 0.85)):  # the noise hides the faint ends of some words
        errors = np.concatenate([_errors(sounds, seed, noise=noise, late=0.04) for seed in range(3)])
        assert np.median(errors) < 0.03
        assert (errors < 0.1).mean() > least


def _cut(sound: np.ndarray) -> np.ndarray:
    """From the first to the last 10 ms that are at most 40 dB below the loudest ones."""
    hop = RATE // 100
    power = (sound[: len(sound) // hop * hop].reshape(-1, hop) ** 2).mean(1)
    there = np.flatnonzero(power > power.max() * 1e-4)
    return sound[there[0] * hop : (there[-1] + 1) * hop]
