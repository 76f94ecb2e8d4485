"""Log-mel features: equal whole and in pieces, finite on anything, and what an independent computation gives."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.transcribe.features import Features, FeatureStream

RATES = (8000, 16_000)


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 0.1


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
    rate=st.sampled_from((8000, 11_025, 16_000)),
)
def test_in_pieces_is_as_the_whole(count: int, cuts: list[int], rate: int) -> None:
    features = Features(rate, 40)
    samples, stream = noise(count, seed=count), FeatureStream(features)
    places = [0, *sorted(min(cut, count) for cut in cuts), count]
    parts = [stream.push(samples[a:b]) for a, b in itertools.pairwise(places)]
    found = torch.cat([*parts, stream.flush()])
    assert found.shape == (math.ceil(count / features.hop), 40)
    torch.testing.assert_close(found, features(samples) if count else found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", RATES)
def test_a_frame_for_every_hop_begun(rate: int) -> None:
    features = Features(rate, 80)
    assert (features.window, features.hop) == (rate // 40, rate // 100)
    for count in (1, features.hop - 1, features.hop, features.hop + 1, 7 * features.hop, 7 * features.hop + 1):
        assert features(noise(count)).shape == (math.ceil(count / features.hop), 80)


@pytest.mark.parametrize("rate", RATES)
def test_no_frame_waits_for_later_samples(rate: int) -> None:
    features = Features(rate, 40)
    samples = noise(rate)
    changed = samples.clone()
    changed[30 * features.hop :] += 0.5
    before, after = features(samples), features(changed)
    assert torch.equal(before[:30], after[:30])
    assert not torch.allclose(before[30], after[30])


@pytest.mark.parametrize("mels", [40, 80])
@pytest.mark.parametrize("rate", RATES)
def test_every_band_hears_something(rate: int, mels: int) -> None:
    """A mel band between two lines of the spectrum would be silent for ever."""
    found = Features(rate, mels)(noise(rate))
    assert (found.std(0) > 0.05).all()
    assert (found.mean(0) > math.log(1e-8) + 1).all()


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_is_in_the_band_of_its_pitch(rate: int) -> None:
    mels = 40
    top = 2595 * math.log10(1 + rate / 2 / 700)
    low = 2595 * math.log10(1 + 20 / 700)
    for hertz in (300.0, 1000.0, 2500.0):
        tone = 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(rate) / rate)
        loudest = int(Features(rate, mels)(tone)[50].argmax())
        expected = (2595 * math.log10(1 + hertz / 700) - low) / (top - low) * (mels + 1) - 1
        assert abs(loudest - expected) <= 1.0, hertz


def test_a_frame_by_hand() -> None:
    """One frame by NumPy, from the definition: Hann window, power spectrum, HTK triangles of equal area."""
    rate, mels, size = 8000, 20, 512
    samples = noise(rate, seed=5)
    piece = samples[80 * 13 - 200 : 80 * 13].double().numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
    power = np.abs(np.fft.rfft(piece * window, size)) ** 2
    edges = np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + 4000 / 700), mels + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    lines = np.arange(size // 2 + 1) * rate / size
    expected = []
    for left, middle, right in zip(hertz, hertz[1:], hertz[2:], strict=False):
        triangle = np.maximum(0, np.minimum((lines - left) / (middle - left), (right - lines) / (right - middle)))
        expected.append(np.log((triangle * 2 / (right - left) * power).sum()))
    assert Features(rate, mels)(samples)[12].numpy() == pytest.approx(np.array(expected), abs=1e-3)


@pytest.mark.parametrize("rate", RATES)
def test_digital_silence_is_finite_and_not_counted(rate: int) -> None:
    plain = Features(rate, 40)
    silent = torch.zeros(rate)
    assert torch.isfinite(plain(silent)).all()
    of_silence = plain.standardised([silent])
    assert torch.isfinite(of_silence(silent)).all()
    alone, with_silence = plain.standardised([noise(rate)]), plain.standardised([noise(rate), silent])
    assert alone.mean is not None
    assert with_silence.mean is not None
    # The padding of the window in the first frames is all that silence may change.
    torch.testing.assert_close(alone.mean, with_silence.mean, atol=1e-5, rtol=0)


def test_standardised_features_have_mean_0_and_deviation_1() -> None:
    recordings = [noise(8000, 1), noise(5000, 2) * 3]
    features = Features(8000, 40).standardised(recordings)
    every = torch.cat([features(one) for one in recordings])
    torch.testing.assert_close(every.mean(0), torch.zeros(40), atol=1e-3, rtol=0)
    torch.testing.assert_close(every.std(0, correction=0), torch.ones(40), atol=1e-3, rtol=0)
    again = features.standardised(recordings)
    assert torch.equal(again.mean, features.mean), "statistics are of plain features"  # type: ignore[arg-type]


def test_louder_sound_is_a_constant_more() -> None:
    features = Features(16_000, 40)
    samples = noise(4000)
    apart = features(samples * 2) - features(samples)
    torch.testing.assert_close(apart, torch.full_like(apart, 2 * math.log(2)), atol=1e-4, rtol=0)
