"""Change of the sampling rate: exact phase, length and stop band; how the stream is cut changes nothing."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import scipy.signal

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_resample import StreamResampler

PAIRS = [(44100, 16000), (8000, 16000), (16000, 8000), (48000, 16000), (16000, 44100), (11025, 16000), (22050, 8000)]
ODD_PAIRS = [(44100, 15999), (16000, 16001), (192000, 1000), (1000, 192000)]


def converted(samples: np.ndarray, before: int, after: int) -> np.ndarray:
    resampler = StreamResampler(before, after)
    return np.concatenate([resampler.push(samples), resampler.flush()])


def inner(values: np.ndarray) -> np.ndarray:
    """Without the ends, where a tone begins and stops suddenly."""
    edge = len(values) // 5
    return values[edge:-edge]


@pytest.mark.parametrize(("before", "after"), PAIRS + ODD_PAIRS)
def test_cuts_change_nothing(before: int, after: int) -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(-1, 1, min(before // 3, 20000)).astype(np.float32)
    whole = converted(samples, before, after)
    assert len(whole) == -(-len(samples) * after // before)
    resampler = StreamResampler(before, after)
    for _ in range(2):  # after a flush it is as new
        parts, place = [], 0
        while place < len(samples):
            size = int(rng.choice([0, 1, 2, 37, 500, 5000]))
            parts.append(resampler.push(samples[place : place + size]))
            place += size
        pieces = np.concatenate([*parts, resampler.flush()])
        np.testing.assert_allclose(pieces, whole, atol=1e-6)


@pytest.mark.parametrize(("before", "after"), PAIRS + ODD_PAIRS[:2])
def test_a_tone_keeps_its_phase_and_loudness(before: int, after: int) -> None:
    lower = min(before, after) / 2
    for share in (0.02, 0.5, 0.9):
        place = np.arange(before // 2) / before
        made = converted(np.sin(2 * np.pi * share * lower * place + 1), before, after)
        wanted = np.sin(2 * np.pi * share * lower * np.arange(len(made)) / after + 1)
        np.testing.assert_allclose(inner(made), inner(wanted), atol=2e-4)


@pytest.mark.parametrize(("before", "after"), [(44100, 16000), (16000, 8000), (48000, 16000), (44100, 15999)])
def test_stop_band(before: int, after: int) -> None:
    for share in (1.001, 1.05, 1.3, 0.999 * before / after):
        tone = np.sin(2 * np.pi * share * after / 2 * np.arange(before) / before)
        loudest = abs(inner(converted(tone, before, after))).max()
        assert 20 * np.log10(loudest) < -80


@pytest.mark.parametrize(("before", "after"), [(8000, 16000), (16000, 44100), (11025, 16000)])
def test_images_above_the_old_range_are_as_weak(before: int, after: int) -> None:
    tone = np.sin(2 * np.pi * 0.85 * before / 2 * np.arange(before) / before)
    made = inner(converted(tone, before, after))
    spectrum = abs(np.fft.rfft(made * np.kaiser(len(made), 14)))
    frequency = np.fft.rfftfreq(len(made), 1 / after)
    above = spectrum[frequency > before / 2].max() / spectrum.max()
    assert 20 * np.log10(above) < -80


@pytest.mark.parametrize(("before", "after"), [(44100, 16000), (8000, 16000), (16000, 8000), (16000, 22050)])
def test_agrees_with_scipy_where_there_is_sound(before: int, after: int) -> None:
    """Noise below 0.8 of the lower Nyquist frequency: two good filters give one answer."""
    noise = np.random.default_rng(1).standard_normal(before)
    kaiser: Any = ("kaiser", 10)
    low = np.asarray(scipy.signal.firwin(1001, 0.8 * min(before, after) / 2, fs=before, window=kaiser))
    samples = np.convolve(noise, low, "same") / 4
    divisor = math.gcd(before, after)
    widest = max(before, after) // divisor
    window = scipy.signal.firwin(128 * widest + 1, 1 / widest, window=kaiser)
    made = converted(samples, before, after)
    for peer in (
        scipy.signal.resample_poly(samples, after // divisor, before // divisor, window=window),
        scipy.signal.resample(samples, after),
    ):
        assert len(made) == len(np.asarray(peer))
        np.testing.assert_allclose(inner(made), inner(np.asarray(peer)), atol=1e-3)


def test_a_constant_stays_one() -> None:
    for before, after in PAIRS:
        np.testing.assert_allclose(inner(converted(np.ones(before // 4), before, after)), 1, atol=2e-6)


def test_equal_rates_and_no_samples() -> None:
    samples = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(converted(samples, 16000, 16000), samples)
    assert len(converted(np.zeros(0), 8000, 16000)) == 0
    assert len(converted(np.ones(1), 192000, 1000)) == 1
    for rates in ((0, 16000), (16000, 999), (10**6, 16000)):
        with pytest.raises(InputError, match="sampling rate cannot be"):
            StreamResampler(*rates)


def test_a_minute_takes_less_than_a_second() -> None:
    """60 s of 44.1 kHz: about 0.03 s on a free core; twenty times that is something gone wrong."""
    samples = np.random.default_rng(0).standard_normal(60 * 44100).astype(np.float32)
    resampler = StreamResampler(44100, 16000)
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        for place in range(0, len(samples), 441000):
            resampler.push(samples[place : place + 441000])
        resampler.flush()
        best = min(best, time.process_time() - begin)
    assert best < 1.0
