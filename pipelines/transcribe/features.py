"""Log-mel spectrograms: of a whole recording, or piece by piece with the same numbers."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

__all__ = ["HOP", "FeatureStream", "Features"]

WINDOW, HOP = 0.025, 0.010
_FLOOR = 1e-8  # mel power below it is no sound: 16-bit rounding noise lies above


@dataclasses.dataclass(frozen=True)
class Features:
    """Log-mel features of sound at one sampling rate, standardised by the statistics of the training part.

    A frame is the power spectrum under a Hann window of 25 ms that ends ``10 ms x (number + 1)`` into the recording, so
    that no frame waits for later samples; what lies before the recording is silence, and the last, incomplete 10 ms
    are filled up with silence. Mel bands are HTK triangles of equal area from torchaudio.

    Args:
        rate: Hz.
        mels: bands M.
        mean, std: (M,) of the training part; nothing is standardised without them.

    Complexity: O(n log n). Source: our reading of Samba-ASR (arXiv 2501.02832), which names no features.

    Example:
        >>> Features(16_000, 80)(torch.zeros(16_000)).shape
        torch.Size([100, 80])
    """

    rate: int
    mels: int
    mean: Tensor | None = None
    std: Tensor | None = None

    @property
    def window(self) -> int:
        """Samples under a frame."""
        return round(WINDOW * self.rate)

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return round(HOP * self.rate)

    def __call__(self, samples: Tensor) -> Tensor:
        """Samples (n,) in [-1, 1] to features (T, M), T = n / hop rounded up."""
        count = -(-len(samples) // self.hop)
        padded = torch.cat(
            [samples.new_zeros(self.window - self.hop), samples, samples.new_zeros(count * self.hop - len(samples))]
        )
        return self.of_frames(padded)

    def of_frames(self, samples: Tensor) -> Tensor:
        """Features (T, M) of all windows that fit into the samples."""
        frames = samples.unfold(0, self.window, self.hop)
        size = _transform_size(self.rate)
        spectrum = torch.fft.rfft(frames * _hann(self.window).to(samples), size).abs().square()
        bands = torch.log(torch.clamp(spectrum @ _filters(self.rate, self.mels).to(samples), min=_FLOOR))
        return bands if self.mean is None or self.std is None else (bands - self.mean) / self.std

    def standardised(self, recordings: list[Tensor]) -> Features:
        """The same features with mean and standard deviation of each band over all frames of recordings (n,).

        Silence of digital zeros is left out of the statistics.

        Example:
            >>> found = Features(8000, 40).standardised([torch.randn(8000)])
            >>> bool(found(torch.randn(8000)).mean().abs() < 0.2)
            True
        """
        total = torch.zeros(self.mels, dtype=torch.float64)
        squares, count = torch.zeros_like(total), 0
        plain = dataclasses.replace(self, mean=None, std=None)
        floor = float(torch.log(torch.tensor(_FLOOR))) + 1e-3
        for samples in recordings:
            found = plain(samples).double()
            found = found[(found > floor).any(1)]
            total, squares, count = total + found.sum(0), squares + found.square().sum(0), count + len(found)
        if not count:
            return dataclasses.replace(self, mean=torch.zeros(self.mels), std=torch.ones(self.mels))
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(1e-4).sqrt()
        return dataclasses.replace(self, mean=mean.float(), std=std.float())


class FeatureStream:
    """The features of a recording that is still arriving: the same as of the whole, in pieces.

    Example:
        >>> features = Features(8000, 40)
        >>> stream, samples = FeatureStream(features), torch.randn(1234)
        >>> parts = [stream.push(samples[:500]), stream.push(samples[500:]), stream.flush()]
        >>> bool((torch.cat(parts) - features(samples)).abs().max() < 1e-5)
        True
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        self._rest = torch.zeros(features.window - features.hop)

    def push(self, samples: Tensor) -> Tensor:
        """The features (T, M) that the next samples (n,) complete, perhaps none."""
        features = self._features
        held = torch.cat([self._rest, samples])
        count = (len(held) - features.window) // features.hop + 1
        if count < 1:
            self._rest = held
            return samples.new_zeros(0, features.mels)
        self._rest = held[count * features.hop :]
        return features.of_frames(held[: (count - 1) * features.hop + features.window])

    def flush(self) -> Tensor:
        """The feature (0 or 1, M) of an incomplete hop at the end."""
        features = self._features
        left = len(self._rest) - (features.window - features.hop)
        if left <= 0:
            return self._rest.new_zeros(0, features.mels)
        return self.push(self._rest.new_zeros(features.hop - left))


def _transform_size(rate: int) -> int:
    """Twice the window and up to a power of two: at 8 kHz a narrower one leaves low mel bands empty."""
    return 1 << (2 * round(WINDOW * rate) - 1).bit_length()


@functools.lru_cache(maxsize=8)
def _hann(window: int) -> Tensor:
    return torch.hann_window(window)


@functools.lru_cache(maxsize=8)
def _filters(rate: int, mels: int) -> Tensor:
    """(bins, M)."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(_transform_size(rate) // 2 + 1, 20.0, rate / 2, mels, rate, norm="slaney", mel_scale="htk")
