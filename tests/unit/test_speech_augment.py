"""Augmentation of speech: masks within the valid frames, pitch and length of other speeds, levels of noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.data.datasets.speech_augment import SPEEDS, Perturbation, add_noise, gain, spec_augment, speed
from pipelines.data.errors import InputError

Samples = NDArray[np.float32]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(hertz: float, seconds: float = 1.0, rate: int = 8000) -> Samples:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def runs(flags: list[bool]) -> list[int]:
    """Lengths of the runs of True."""
    return [len(list(group)) for value, group in itertools.groupby(flags) if value]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 120), min_size=1, max_size=4), st.sampled_from([16, 80]))
def test_masks_stay_within_their_bounds(seed: int, lengths: list[int], bins: int) -> None:
    features = torch.rand(len(lengths), 120, bins) + 1  # no zeros of its own
    masked = spec_augment(features, torch.tensor(lengths), seeded(seed))
    for before, after, length in zip(features, masked, lengths, strict=True):
        assert torch.equal(after[length:], before[length:]), "padding is never touched"
        hidden = after[:length] == 0
        assert torch.equal(after[:length][~hidden], before[:length][~hidden])
        rows, columns = hidden.all(1), hidden.all(0)
        assert torch.equal(hidden, rows[:, None] | columns[None, :]) or not length, "stretches and bands alone"
        assert int(rows.sum()) <= 4 * int(0.1 * length)
        assert int(columns.sum()) <= 4 * 20 * bins // 80 or rows.all()


def test_one_mask_has_the_wanted_width() -> None:
    features = torch.ones(200, 400, 80)
    lengths = torch.full((200,), 400)
    times = spec_augment(features, lengths, seeded(), time_masks=1, freq_masks=0)
    bands = spec_augment(features, lengths, seeded(), time_masks=0, freq_masks=1)
    widths = [runs((one == 0).all(1).tolist()) for one in times]
    assert {len(one) for one in widths} == {1}
    assert {one[0] for one in widths} == set(range(15, 26))
    assert {runs((one == 0).all(0).tolist())[0] for one in bands} == set(range(10, 21))
    starts = (times == 0).all(2).int().argmax(1)
    assert starts.min() < 20
    assert starts.max() > 350, "anywhere in the utterance"


def test_bands_scale_with_the_number_of_bins() -> None:
    features = torch.ones(100, 50, 40)
    masked = spec_augment(features, torch.full((100,), 50), seeded(), time_masks=0, freq_masks=1)
    assert {runs((one == 0).all(0).tolist())[0] for one in masked} == set(range(5, 11))


def test_augmentation_depends_on_its_generator_alone() -> None:
    features, lengths = torch.rand(3, 60, 20), torch.tensor([60, 40, 20])
    before = features.clone()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (spec_augment(features, lengths, seeded(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, spec_augment(features, lengths, seeded(8)))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(before, features)
    samples = tone(300)
    perturb = Perturbation()
    assert np.array_equal(perturb(samples, seeded(3)), perturb(samples, seeded(3)))
    assert torch.equal(state, torch.get_rng_state())


def test_gradients_pass_where_nothing_is_masked() -> None:
    features = torch.rand(2, 50, 16, requires_grad=True)
    masked = spec_augment(features, torch.tensor([50, 30]), seeded())
    masked.sum().backward()
    assert features.grad is not None
    assert torch.equal(features.grad == 0, masked == 0)


@pytest.mark.parametrize("factor", [f for f in SPEEDS if f != 1])
def test_speed_moves_length_and_pitch(factor: float) -> None:
    samples = tone(1000)
    faster = speed(samples, factor)
    assert len(faster) == pytest.approx(8000 / factor, abs=1)
    assert faster.dtype == np.float32
    peak = np.abs(np.fft.rfft(faster)).argmax() * 8000 / len(faster)
    assert peak == pytest.approx(1000 * factor, abs=2)
    assert np.sqrt(np.mean(faster[500:-500] ** 2)) == pytest.approx(np.sqrt(0.5), rel=0.01)


def test_other_speeds_do_not_fold_high_tones_down() -> None:
    """At twice the speed 2.5 kHz would become 5 kHz, which 8 kHz cannot hold: it would be heard at 3 kHz."""
    assert np.abs(speed(tone(2500), 2.0)[500:-500]).max() < 0.01


def test_speed_one_and_silence_stay() -> None:
    samples = tone(100)
    assert speed(samples, 1.0) is samples
    assert len(speed(np.zeros(0, np.float32), 0.9)) == 0
    with pytest.raises(InputError, match="speed"):
        speed(samples, 3.0)


@settings(max_examples=20, deadline=None)
@given(st.floats(-10, 60), st.sampled_from(["white", "pink", "shorter", "longer"]), st.integers(0, 999))
def test_noise_has_exactly_the_wanted_level(level: float, kind: str, seed: int) -> None:
    recording = np.random.default_rng(seed).normal(size={"shorter": 700, "longer": 20000}.get(kind, 1)).astype("f4")
    samples = tone(440)
    noisy = add_noise(samples, level, seeded(seed), recording if kind in ("shorter", "longer") else kind)  # type: ignore[arg-type]
    added = noisy.astype(np.float64) - samples
    assert 10 * np.log10(np.mean(samples.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(level, abs=0.02)


def test_pink_noise_falls_by_three_decibels_an_octave() -> None:
    samples = np.full(1 << 17, 1e-3, np.float32)
    octaves = []
    for kind in ("white", "pink"):
        power = np.abs(np.fft.rfft(add_noise(samples, -60, seeded(), kind) - samples)) ** 2  # type: ignore[arg-type]
        octaves.append([10 * np.log10(power[1 << n : 2 << n].mean()) for n in range(9, 16)])
    assert np.diff(octaves[0]) == pytest.approx(np.zeros(6), abs=0.5)
    assert np.diff(octaves[1]) == pytest.approx(np.full(6, -3.0), abs=0.5)


def test_noise_from_a_recording_begins_anywhere() -> None:
    ramp = np.arange(1, 5001, dtype=np.float32)
    samples = np.ones(10, np.float32)
    starts = {float(np.diff(add_noise(samples, 0, seeded(n), ramp) - samples).mean()) for n in range(8)}
    assert len(starts) > 4, "the level is the same, so the slope tells the place"


def test_silence_gets_no_noise_and_silent_noise_is_refused() -> None:
    silence = np.zeros(100, np.float32)
    assert np.array_equal(add_noise(silence, 10, seeded()), silence)
    for noise in (silence, silence[:0]):
        with pytest.raises(InputError, match="silent or empty"):
            add_noise(tone(100), 10, seeded(), noise)
    with pytest.raises(InputError, match="no such noise"):
        add_noise(tone(100), 10, seeded(), "brown")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no number"):
        add_noise(tone(100), float("nan"), seeded())


def test_perturbation_draws_all_speeds_and_keeps_its_bounds() -> None:
    samples = tone(200)
    perturb = Perturbation(noise_chance=0.0)
    results = [perturb(samples, seeded(n)) for n in range(60)]
    assert {len(one) for one in results} == {len(speed(samples, f)) for f in SPEEDS}
    levels = [20 * np.log10(np.sqrt(np.mean(one**2)) / np.sqrt(0.5)) for one in results]
    assert -6.1 < min(levels) < -4
    assert 4 < max(levels) < 6.1
    only_noise = Perturbation(speeds=(), noise_chance=1.0, gain_db=(0, 0))
    added = [float(np.mean((only_noise(samples, seeded(n)) - samples) ** 2)) for n in range(40)]
    heard = [10 * np.log10(0.5 / one) for one in added]
    assert 4.9 < min(heard) < max(heard) < 30.1


def test_gain_and_refusals() -> None:
    assert gain(tone(100), -6.0206) == pytest.approx(tone(100) / 2, abs=1e-5)
    with pytest.raises(InputError, match="noise_chance"):
        Perturbation(noise_chance=2.0)
    with pytest.raises(InputError, match="none is given"):
        Perturbation(noises=())
    with pytest.raises(InputError, match="snr_db"):
        Perturbation(snr_db=(9, 3))
    features = torch.zeros(2, 10, 4)
    for lengths, words in ((torch.tensor([11, 3]), "lengths"), (torch.tensor([3]), "shapes")):
        with pytest.raises(InputError, match=words):
            spec_augment(features, lengths, seeded())
    with pytest.raises(InputError, match="time_width"):
        spec_augment(features, torch.tensor([9, 3]), seeded(), time_width=(9, 3))
    with pytest.raises(InputError, match="time_share"):
        spec_augment(features, torch.tensor([9, 3]), seeded(), time_share=1.5)
