"""Stretches of speech: found whole, the same however the sound is cut, nothing in noise; words joined across cuts."""

from __future__ import annotations

import itertools
import os
import pathlib
import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.errors import ConfigError, InputError
from pipelines.transcribe.segments import Piece, Segmenter, SegmentOptions, check_segments, stitch
from pipelines.transcribe.words import Word

Floats = NDArray[np.float32]
RATE = 8000


def voice(seconds: float, seed: int = 0, rate: int = RATE) -> Floats:
    """Something like speech: harmonics of a gliding pitch under syllables of a fifth of a second."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = 140 + 30 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 12))
    syllables = 0.06 + np.sin(np.pi * 5.0 * t) ** 2
    return (0.1 * syllables * tone).astype(np.float32)


def hiss(seconds: float, level: float, seed: int = 1, rate: int = RATE) -> Floats:
    """White noise of this level in decibels below a full-scale sine."""
    noise = np.random.default_rng(seed).normal(0, 10 ** (level / 20) / np.sqrt(2), round(seconds * rate))
    return noise.astype(np.float32)


def found(sound: Floats, options: SegmentOptions | None = None, sizes: list[int] | None = None) -> list[Piece]:
    segmenter = Segmenter(RATE, options)
    if sizes is None:
        return segmenter.push(sound) + segmenter.flush()
    pieces, place, turn = [], 0, 0
    while place < len(sound):
        size = sizes[turn % len(sizes)]
        pieces += segmenter.push(sound[place : place + size])
        place, turn = place + size, turn + 1
    return pieces + segmenter.flush()


def spans(pieces: list[Piece]) -> list[tuple[float, float]]:
    return [(piece.start, piece.start + len(piece.samples) / RATE) for piece in pieces]


def scene() -> tuple[Floats, list[tuple[float, float]]]:
    """Three voices in noise at known times."""
    sound = hiss(9.0, -62.0)
    times = [(1.0, 2.2), (3.4, 3.8), (5.0, 7.6)]
    for number, (begin, end) in enumerate(times):
        part = voice(end - begin, number)
        sound[round(begin * RATE) : round(begin * RATE) + len(part)] += part
    return sound, times


def test_speech_is_found_with_its_padding() -> None:
    sound, times = scene()
    pieces = found(sound)
    assert len(pieces) == 3
    for (begin, end), (start, stop) in zip(times, spans(pieces), strict=True):
        assert start + 0.15 == pytest.approx(begin, abs=0.05)
        assert stop - 0.15 == pytest.approx(end, abs=0.05)
    for piece in pieces:
        at = round(piece.start * RATE)
        np.testing.assert_array_equal(piece.samples, sound[at : at + len(piece.samples)])
        assert not piece.forced


@pytest.mark.parametrize("seed", range(6))
def test_the_cutting_into_blocks_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sound, _ = scene()
    sound = np.concatenate([np.zeros(int(rng.integers(0, 9000)), np.float32), sound, voice(8.0), sound])
    options = SegmentOptions(longest=4.0, overlap=0.5)
    whole = found(sound, options)
    assert any(piece.forced for piece in whole)
    for sizes in ([1 + int(rng.integers(2000))], [int(size) for size in rng.integers(1, 9000, 7)], [79, 1, 80, 81]):
        cut = found(sound, options, sizes)
        assert [(p.start, p.forced) for p in cut] == [(p.start, p.forced) for p in whole]
        for one, two in zip(cut, whole, strict=True):
            np.testing.assert_array_equal(one.samples, two.samples)


@pytest.mark.parametrize("lead", [0.0, 3.0])
def test_a_piece_comes_soon_after_its_end(lead: float) -> None:
    segmenter = Segmenter(RATE)
    sound = np.concatenate([hiss(1.0 + lead, -60), voice(1.0) + hiss(1.0, -60), hiss(2.0, -60)])
    for place in range(0, len(sound), 80):
        pieces = segmenter.push(sound[place : place + 80])
        if pieces:
            assert segmenter.position - (2.0 + lead) < 0.4
            return
    pytest.fail("nothing was found")


@pytest.mark.parametrize(
    "kind", ["zeros", "quiet", "hiss", "loud hiss", "hum", "hum from zeros", "low rumble", "offset", "short", "click"]
)
def test_what_is_no_speech_gives_no_piece(kind: str) -> None:
    t = np.arange(30 * RATE) / RATE
    hum = sum(np.sin(2 * np.pi * 50 * k * t) / k for k in (1, 2, 3, 5)) * 0.1
    rumble = np.cumsum(np.random.default_rng(0).normal(0, 1, len(t)))
    rumble -= np.convolve(rumble, np.ones(RATE) / RATE, "same")
    sounds = {
        "zeros": np.zeros(len(t)),
        "quiet": hiss(30, -75),
        "hiss": hiss(30, -40),
        "loud hiss": hiss(30, -12),
        "hum": hum + hiss(30, -70),
        "hum from zeros": np.where(t < 10, 0.0, hum),
        "low rumble": 0.1 * rumble / rumble.std(),
        "offset": np.full(len(t), 0.5),
        "short": hiss(0.004, -20),
        "click": np.where((t > 5) & (t < 5.02), 0.3, 0.0),
    }
    assert found(sounds[kind].astype(np.float32)) == []


def test_noise_that_is_switched_on_is_passed_over_and_counted() -> None:
    segmenter = Segmenter(RATE)
    sound = np.concatenate([hiss(10, -70), hiss(20, -42, seed=2)])
    assert segmenter.push(sound) + segmenter.flush() == []
    assert 8.0 < segmenter.steady_seconds < 13.0
    after = found(np.concatenate([sound, voice(1.0) + hiss(1.0, -42, seed=3), hiss(2, -42, seed=4)]))
    assert len(after) == 1  # the floor has followed
    assert after[0].start + 0.15 == pytest.approx(30.0, abs=0.08)


def test_digital_silence_says_nothing_about_the_noise() -> None:
    noise = hiss(8.0, -50)
    noise[round(5.0 * RATE) : round(6.0 * RATE)] += voice(1.0)
    sound = np.concatenate([hiss(3.0, -50, seed=5), np.zeros(15 * RATE, np.float32), noise])
    segmenter = Segmenter(RATE)
    pieces = segmenter.push(sound) + segmenter.flush()
    assert [round(piece.start + 0.15, 1) for piece in pieces] == [23.0]
    assert segmenter.steady_seconds == 0.0


def test_speech_from_the_first_sample_to_the_last() -> None:
    sound = voice(2.0)
    assert spans(found(sound)) == [(0.0, 2.0)]
    assert spans(found(voice(0.3))) == [(0.0, 0.3)]


def test_pauses_decide_and_short_sounds_are_none() -> None:
    def pair(pause: float) -> Floats:
        quiet = hiss(1.0, -65)
        return np.concatenate([quiet, voice(0.8), hiss(pause, -65), voice(0.8), quiet])

    assert [len(found(pair(pause))) for pause in (0.2, 0.5)] == [1, 2]
    assert len(found(pair(0.5), SegmentOptions(least_pause=0.8))) == 1
    padded = spans(found(pair(0.5), SegmentOptions(pad=0.4)))
    assert padded[0][1] <= padded[1][0]  # padding never makes two pieces overlap
    sound = np.concatenate([hiss(1.0, -65), voice(0.3), hiss(1.0, -65)])
    assert len(found(sound)) == 1
    assert found(sound, SegmentOptions(shortest=0.5)) == []


def test_long_speech_is_cut_where_it_is_quiet() -> None:
    rng = np.random.default_rng(3)
    parts, gaps, at = [hiss(1.0, -65)], [], 1.0
    for number in range(40):
        seconds, gap = rng.uniform(1.0, 2.2), 0.12
        parts += [voice(seconds, number) + hiss(seconds, -65), hiss(gap, -65)][:2]
        parts[-2] = parts[-2][: round(seconds * RATE)]
        gaps.append((at + seconds, at + seconds + gap))
        at += len(parts[-2]) / RATE + len(parts[-1]) / RATE
    sound = np.concatenate([*parts, hiss(1.0, -65)])
    pieces = found(sound)
    assert [piece.forced for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert len(pieces) >= 4
    for one, two in itertools.pairwise(pieces):
        end = one.start + len(one.samples) / RATE
        assert 13.0 <= len(one.samples) / RATE <= 20.0
        assert end - two.start == pytest.approx(1.0, abs=1 / RATE)
        assert any(begin - 0.02 <= end <= stop + 0.02 for begin, stop in gaps), end


def test_silence_after_a_cut_is_no_piece() -> None:
    """The quietest place of the last third may be the end of the speech."""
    sound = np.concatenate([hiss(0.5, -65), voice(3.7) + hiss(3.7, -65), hiss(3.0, -65)])
    options = SegmentOptions(longest=4.0, least_pause=0.9, overlap=0.5)
    pieces = found(sound, options)
    assert len(pieces) == 1
    assert not pieces[0].forced


def test_memory_does_not_grow() -> None:
    segmenter = Segmenter(RATE)
    block = np.concatenate([voice(4.0), hiss(1.0, -65)])
    peaks = []
    tracemalloc.start()
    try:
        for _ in range(3):
            tracemalloc.reset_peak()
            for _ in range(24):
                segmenter.push(block)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[0]
    assert peaks[2] < 8e6


def test_one_long_block_needs_little_more_than_itself() -> None:
    sound = np.tile(np.concatenate([voice(4.0), hiss(1.0, -65)]), 60)
    segmenter = Segmenter(RATE)
    tracemalloc.start()
    try:
        pieces = segmenter.push(sound)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * sound.nbytes + sum(piece.samples.nbytes for piece in pieces) + 12e6


def test_the_callers_buffer_may_be_used_again() -> None:
    sound, _ = scene()
    segmenter, buffer, pieces = Segmenter(RATE), np.zeros(400, np.float32), []
    for place in range(0, len(sound), 400):
        buffer[:] = sound[place : place + 400]
        pieces += segmenter.push(buffer)
    pieces += segmenter.flush()
    for one, two in zip(pieces, found(sound), strict=True):
        np.testing.assert_array_equal(one.samples, two.samples)


def test_a_flushed_segmenter_begins_anew() -> None:
    sound, _ = scene()
    segmenter = Segmenter(RATE)
    first = spans(segmenter.push(sound) + segmenter.flush())
    assert spans(segmenter.push(sound) + segmenter.flush()) == first
    assert segmenter.flush() == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"on_db": -1.0}, "on_db"),
        ({"off_db": 9.0}, "off_db"),
        ({"floor_db": 3.0}, "floor_db"),
        ({"least_pause": 0.0}, "least_pause"),
        ({"pad": float("nan")}, "pad"),
        ({"longest": 0.5}, "longest"),
        ({"longest": 2.0, "overlap": 0.6}, "overlap"),
        ({"shortest": -0.1}, "shortest"),
    ],
)
def test_options_that_cannot_be(options: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError, match=rf"segment\.{word}: out of range"):
        check_segments(SegmentOptions(**options))
    with pytest.raises(ConfigError):
        Segmenter(RATE, SegmentOptions(**options))


def test_the_options_load_nothing_heavy() -> None:
    heavy = "[n for n in ('numpy', 'torch', 'scipy', 'matplotlib') if n in sys.modules]"
    code = f"import sys; from pipelines.transcribe.segments import SegmentOptions; sys.exit(str({heavy} or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == ""


def test_bad_blocks() -> None:
    with pytest.raises(ConfigError, match="rate"):
        Segmenter(100)
    with pytest.raises(InputError, match=r"shape \(2, 5\)"):
        Segmenter(RATE).push(np.zeros((2, 5), np.float32))
    with pytest.raises(InputError, match="NaN"):
        Segmenter(RATE).push(np.array([0.0, np.nan], np.float32))
    assert Segmenter(RATE).push(np.zeros(0, np.float32)) == []


@pytest.mark.parametrize("noise", [None, -65.0])
def test_read_sentences_between_silences(noise: float | None) -> None:
    """Five LibriVox sentences at known times: speech is inside of the pieces, and they begin and end with it."""
    import soundfile

    root = os.environ.get("PIPELINES_DATA")
    base = pathlib.Path(root) if root else pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
    files = sorted((base / "embeddable" / "asr" / "pocketsphinx" / "librivox").glob("*.wav"))
    if not files:
        pytest.skip("the LibriVox sentences are not there")
    rng = np.random.default_rng(0)
    parts: list[Floats] = []
    speech: list[Floats] = []
    for file in files:
        sound, rate = soundfile.read(file, dtype="float32")
        energy = np.convolve(sound**2, np.ones(320) / 320, "same")
        loud = np.flatnonzero(energy > energy.max() * 1e-3)  # within 30 dB of the loudest 20 ms
        gap = np.zeros(int(rng.uniform(0.7, 1.4) * rate), np.float32)
        parts += [gap, sound[loud[0] : loud[-1] + 1]]
        speech += [np.zeros(len(gap), bool), energy[loud[0] : loud[-1] + 1] > energy.max() * 1e-3]
    sound, mask = np.concatenate([*parts, gap]), np.concatenate([*speech, np.zeros(len(gap), bool)])
    if noise is not None:
        sound = sound + hiss(len(sound) / rate, noise, rate=rate)[: len(sound)]
    segmenter = Segmenter(rate)
    pieces = segmenter.push(sound) + segmenter.flush()
    covered = np.zeros(len(sound), bool)
    for piece in pieces:
        covered[round(piece.start * rate) : round(piece.start * rate) + len(piece.samples)] = True
    assert covered[mask].mean() >= 0.995
    places = np.cumsum([0, *map(len, parts)])[1:]
    starts = np.array([piece.start + 0.15 for piece in pieces])
    ends = np.array([piece.start + len(piece.samples) / rate - 0.15 for piece in pieces])
    wrong = [np.abs(starts - begin / rate).min() for begin in places[::2]]
    wrong += [np.abs(ends - end / rate).min() for end in places[1::2]]
    assert np.median(wrong) < 0.02
    assert np.sort(wrong)[-2] < 0.1
    assert np.max(wrong) < 0.15  # a sentence that fades out


# Words across a cut -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(300))
def test_nothing_twice_and_nothing_lost(seed: int) -> None:
    """Words of two hearings: whole ones are heard by every side, cut ones garbled or not at all, times a little off."""
    draw = random.Random(seed)
    truth, at = [], 0.0
    while at < 6:
        seconds = draw.uniform(0.12, 0.6)
        truth.append((draw.choice(["no", "yes", "one", "two", "three"]), at, at + seconds))
        at += seconds + draw.choice([0.03, 0.03, 0.1, 0.4, 0.9])
    end = draw.uniform(2.5, 4)

    def heard(low: float, high: float) -> list[Word]:
        words = []
        for text, start, stop in truth:
            if start >= low and stop <= high:
                words.append(Word(text, start + draw.uniform(-0.02, 0.02), stop + draw.uniform(-0.02, 0.02), 0.9))
            elif stop > low and start < high and draw.random() < 0.6:
                words.append(Word(f"{text[0]}~", max(start, low), min(stop, high), 0.3))
        return words

    joined = stitch(heard(-1, end), heard(end - 1, 99), (end - 1, end))
    assert [word.text for word in joined] == [text for text, _, _ in truth]
    for word, (_, start, stop) in zip(joined, truth, strict=True):
        assert word.start == pytest.approx(start, abs=0.025)
        assert word.end == pytest.approx(stop, abs=0.025)
    assert all(one.end <= two.start for one, two in itertools.pairwise(joined))


def test_pieces_that_do_not_overlap_are_put_side_by_side() -> None:
    left, right = [Word("a", 0.0, 0.5, 1.0)], [Word("a", 0.6, 1.0, 1.0)]
    assert stitch(left, right, (0.6, 0.55)) == [*left, *right]
    assert stitch([], right, (0.5, 0.7)) == right
    assert stitch(left, [], (0.2, 0.7)) == left
    assert stitch([], [], (0.2, 0.7)) == []


def test_two_readings_of_one_sound_give_one_word() -> None:
    left = [Word("four", 9.2, 9.6, 0.9), Word("too", 9.7, 9.98, 0.5)]
    right = [Word("for", 9.21, 9.6, 0.8), Word("tomorrow", 9.7, 10.3, 0.9)]
    assert [word.text for word in stitch(left, right, (9.0, 10.0))] == ["four", "tomorrow"]
