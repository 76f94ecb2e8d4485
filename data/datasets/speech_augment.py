"""Speech made different for training: masked bands of time and frequency, other speed, added noise, other loudness."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.data.errors import InputError

__all__ = ["SPEEDS", "Perturbation", "add_noise", "gain", "spec_augment", "speed"]

Samples = NDArray[np.float32]
Noise = Literal["white", "pink"]

#: The usual factors; 1 leaves a recording as it is.
SPEEDS = (0.9, 0.95, 1.0, 1.05, 1.1)


def spec_augment(
    features: Tensor,
    lengths: Tensor,
    generator: torch.Generator,
    *,
    time_masks: int = 4,
    time_width: tuple[int, int] = (15, 25),
    time_share: float = 0.1,
    freq_masks: int = 4,
    freq_width: tuple[int, int] = (10, 20),
    freq_bins: int = 80,
) -> Tensor:
    """Features with stretches of time and bands of frequency set to 0, which is the mean of normalised features.

    Args:
        features: (B, T, M), normalised.
        lengths: (B,) valid frames of each utterance; the frames after them stay as they are.
        generator: of all that is drawn, on any device.
        time_masks: stretches masked in each utterance; they may overlap.
        time_width: fewest and most frames of a stretch, both included.
        time_share: a stretch is never longer than this share of its utterance, so that short ones stay readable:
            with 4 stretches at most 40 % of an utterance is masked.
        freq_masks: bands masked in each utterance.
        freq_width: fewest and most bins of a band, out of `freq_bins`; scaled to M.
        freq_bins: bins that freq_width is meant for.

    Returns:
        A new tensor (B, T, M); gradients pass where nothing is masked.

    Raises:
        InputError: shapes or lengths that do not fit, a width or share out of bounds.

    Complexity: O(B (T + M) masks) to draw, O(B T M) to apply.

    Source: Park et al. 2019, "SpecAugment", without the time warp; widths by the recipe in sheet 26.

    Example:
        >>> x, generator = torch.ones(2, 100, 80), torch.Generator().manual_seed(0)
        >>> y = spec_augment(x, torch.tensor([100, 50]), generator)
        >>> bool((y[1, :50] == 0).any()), bool((y[1, 50:] == 1).all())
        (True, True)
    """
    _check_features(features, lengths, time_width, time_share, freq_width)
    frames, bins = features.shape[1:]
    lengths = lengths.to("cpu", torch.int64)
    most = (lengths * time_share).floor().to(torch.int64)[:, None]
    widths = torch.minimum(_between(*time_width, (len(lengths), time_masks), generator), most)
    hidden_time = _covered(widths, lengths[:, None], frames, generator)
    scaled = [round(width * bins / freq_bins) for width in freq_width]
    bands = _between(scaled[0], scaled[1], (len(lengths), freq_masks), generator).clamp(max=bins)
    hidden_bins = _covered(bands, torch.full((len(lengths), 1), bins), bins, generator)
    valid = torch.arange(frames) < lengths[:, None]
    hidden = (hidden_time[:, :, None] | hidden_bins[:, None, :]) & valid[:, :, None]
    return features.masked_fill(hidden.to(features.device), 0.0)


def _check_features(
    features: Tensor, lengths: Tensor, time_width: tuple[int, int], time_share: float, freq_width: tuple[int, int]
) -> None:
    if features.ndim != 3 or lengths.shape != features.shape[:1]:
        found = f"features {tuple(features.shape)}, lengths {tuple(lengths.shape)}"
        raise InputError("shapes do not fit", where="features", found=found, expected="(B, T, M) and (B,)")
    if bool((lengths < 0).any()) or bool((lengths > features.shape[1]).any()):
        raise InputError("a length is no number of frames", where="lengths", found=lengths.tolist())
    for name, (low, high) in (("time_width", time_width), ("freq_width", freq_width)):
        if not 0 <= low <= high:
            raise InputError("the widths are out of order", where=name, found=(low, high), expected="0 <= few <= many")
    if not 0 <= time_share <= 1:
        raise InputError("the share is out of bounds", where="time_share", found=time_share, expected="0 to 1")


def _between(low: int, high: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Whole numbers of low to high, both included, on the CPU."""
    return torch.randint(low, high + 1, shape, generator=generator, device=generator.device).cpu()


def _covered(widths: Tensor, lengths: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """(B, size) whether one of the stretches (B, masks), each at a random place within its length, covers a place."""
    draws = torch.rand(widths.shape, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    starts = (draws * (lengths - widths + 1)).floor().to(torch.int64)
    place = torch.arange(size)
    inside = (place >= starts[..., None]) & (place < (starts + widths)[..., None])
    return inside.any(1)


def speed(samples: Samples, factor: float) -> Samples:
    """A recording played faster (factor above 1) or slower: length n / factor, pitch moved with it.

    Args:
        samples: (n,) float32.
        factor: 0.5 to 2; taken as the nearest fraction with a denominator of up to 100.

    Raises:
        InputError: a factor out of bounds.

    Complexity: O(n x taps), the taps growing with the denominator (about 200 for 0.95).

    Source: Ko et al. 2015, "Audio augmentation for speech recognition"; polyphase filter of SciPy.

    Example:
        >>> len(speed(np.zeros(1800, np.float32), 0.9))
        2000
    """
    if not 0.5 <= factor <= 2:
        raise InputError("the speed is out of bounds", where="factor", found=factor, expected="0.5 to 2")
    ratio = Fraction(factor).limit_denominator(100)
    if ratio == 1 or not len(samples):
        return samples
    from scipy.signal import resample_poly

    return np.asarray(resample_poly(samples, ratio.denominator, ratio.numerator), np.float32)


def add_noise(samples: Samples, snr_db: float, generator: torch.Generator, noise: Noise | Samples = "white") -> Samples:
    """A recording with noise of exactly the wanted level below it; nothing is clipped.

    Args:
        samples: (n,) float32; silence (all zeros) has no level to go by and is returned as it is.
        snr_db: power of the recording over power of the noise, both over the whole recording, in dB.
        generator: of all that is drawn.
        noise: "white", "pink" (power falls as 1/f), or a recording (m,), taken from a random place and repeated from
            its beginning where it is shorter.

    Raises:
        InputError: an unknown noise, a recording of noise that is empty or silent, a level that is no number.

    Complexity: O(n), pink O(n log n).

    Example:
        >>> tone = np.sin(np.arange(8000, dtype=np.float32))
        >>> noisy = add_noise(tone, 20, torch.Generator().manual_seed(0), "pink")
        >>> round(float(10 * np.log10(np.mean(tone**2) / np.mean((noisy - tone) ** 2))), 2)
        20.0
    """
    if not math.isfinite(snr_db):
        raise InputError("the level of the noise is no number", where="snr_db", found=snr_db, expected="dB")
    power = _power(samples)
    if power == 0:
        return samples
    drawn = _noise(noise, len(samples), generator)
    if _power(drawn) == 0:
        raise InputError("the recording of noise is silent or empty", where="noise", expected="some sound")
    scale = math.sqrt(power / _power(drawn) / 10 ** (snr_db / 10))
    return (samples + scale * drawn).astype(np.float32)


def _power(samples: NDArray[np.floating]) -> float:
    """Mean square, in float64."""
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0


def _noise(noise: Noise | Samples, count: int, generator: torch.Generator) -> NDArray[np.floating]:
    if not isinstance(noise, str):
        if not len(noise):
            return noise
        start = int(torch.randint(max(1, len(noise) - count + 1), (), generator=generator, device=generator.device))
        return np.resize(noise[start:], count)
    white = torch.randn(count, generator=generator, device=generator.device, dtype=torch.float64).cpu().numpy()
    if noise == "white":
        return white
    if noise != "pink":
        raise InputError("no such noise", where="noise", found=repr(noise), expected="white, pink or a recording")
    if count < 2:
        return white
    spectrum = np.fft.rfft(white)
    # Amplitude 1/sqrt(f) is power 1/f; f = 0 would be infinite and is only an offset.
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    return np.fft.irfft(spectrum, count)


def gain(samples: Samples, decibels: float) -> Samples:
    """A recording louder (above 0 dB) or softer; nothing is clipped.

    Example:
        >>> gain(np.array([0.1, -0.2], np.float32), 20).tolist()
        [1.0, -2.0]
    """
    return (samples * np.float32(10 ** (decibels / 20))).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """Speed, noise and loudness in one: what happens to a recording before its features are computed.

    Args:
        speeds: factors, one drawn with equal chances; empty for none.
        noise_chance: 0 to 1, how often noise is added.
        snr_db: lowest and highest level, drawn evenly.
        noises: kinds and recordings (at the rate of the speech), one drawn with equal chances.
        gain_db: lowest and highest change of loudness, drawn evenly.

    Raises:
        InputError: a chance out of bounds, bounds out of order, noise wanted without kinds.

    Example:
        >>> perturb = Perturbation(speeds=(0.9,), noise_chance=0.0)
        >>> perturb(np.zeros(1800, np.float32), torch.Generator().manual_seed(0)).shape
        (2000,)
    """

    speeds: Sequence[float] = SPEEDS
    noise_chance: float = 0.5
    snr_db: tuple[float, float] = (5.0, 30.0)
    noises: Sequence[Noise | Samples] = ("white", "pink")
    gain_db: tuple[float, float] = (-6.0, 6.0)

    def __post_init__(self) -> None:
        """Refuse what could not be drawn."""
        if not 0 <= self.noise_chance <= 1:
            raise InputError("no chance", where="noise_chance", found=self.noise_chance, expected="0 to 1")
        if self.noise_chance and not len(self.noises):
            raise InputError("noise is wanted, but none is given", where="noises", expected="white, pink, recordings")
        for name, (low, high) in (("snr_db", self.snr_db), ("gain_db", self.gain_db)):
            if not low <= high:
                raise InputError("the bounds are out of order", where=name, found=(low, high), expected="low, high")

    def __call__(self, samples: Samples, generator: torch.Generator) -> Samples:
        """(n / speed,) float32 of (n,) float32; the same for the same state of the generator."""
        # Always the same number of draws, whatever is chosen: one setting does not change what another one draws.
        draws = torch.rand(5, generator=generator, device=generator.device, dtype=torch.float64).tolist()
        if len(self.speeds):
            samples = speed(samples, self.speeds[int(draws[0] * len(self.speeds))])
        if draws[1] < self.noise_chance:
            noise = self.noises[int(draws[2] * len(self.noises))]
            samples = add_noise(samples, _within(self.snr_db, draws[3]), generator, noise)
        return gain(samples, _within(self.gain_db, draws[4]))


def _within(bounds: tuple[float, float], draw: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * draw
