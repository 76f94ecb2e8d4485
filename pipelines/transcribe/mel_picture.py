"""Sound as a picture: energy in decibels by mel band and time, with NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_mel", "mel"]

_BANDS = 64
_WHISPER = -30.0  # dB of the power of a frame: what is weaker is drawn dark
_FRAMES = 4000  # at most, or more than a picture can show


def log_mel(samples: NDArray[np.float32], rate: int, *, bands: int = _BANDS) -> tuple[NDArray[np.float32], float]:
    """Energy by mel band and time in decibels below the strongest, or below a whisper where all is silent.

    Args:
        samples: (n,).
        rate: samples a second.
        bands: number of triangular filters up to half the rate.

    Returns:
        (bands, T) of at most zero, low bands first, and the seconds of a frame.

    Complexity: O(n log n).

    Example:
        >>> picture, step = log_mel(np.sin(np.arange(8000) * 0.5).astype(np.float32), 8000)
        >>> picture.shape, step, float(picture.max())
        ((64, 100), 0.01, 0.0)
    """
    hop = max(round(rate / 100), 1, -(-len(samples) // _FRAMES))
    length = max(round(0.025 * rate), hop)
    padded = np.pad(np.asarray(samples, np.float32), (length // 2, length))
    count = max(-(-len(samples) // hop), 1)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop][:count]
    size = 1 << max(length - 1, 511).bit_length()  # finer than the lowest filters are wide
    power = np.abs(np.fft.rfft(frames * np.hanning(length).astype(np.float32), size)) ** 2
    energy = power @ _filters(rate, size, bands).T
    level = 10.0 * np.log10(np.maximum(energy, 1e-10))
    return (level - max(float(level.max()), _WHISPER)).T.astype(np.float32), hop / rate


def mel(frequency: Any) -> Any:
    """The mel scale of frequencies in Hz (O'Shaughnessy 1987).

    Example:
        >>> round(float(mel(1000.0)))
        1000
    """
    return 2595.0 * np.log10(1.0 + np.asarray(frequency, float) / 700.0)


def _hertz(mel: Any) -> Any:
    return 700.0 * (10.0 ** (np.asarray(mel, float) / 2595.0) - 1.0)


def _filters(rate: int, size: int, bands: int) -> NDArray[np.float64]:
    """Triangles that overlap by half on the mel scale, (bands, size // 2 + 1)."""
    frequency = np.arange(size // 2 + 1) * rate / size
    corners = _hertz(np.linspace(0.0, mel(rate / 2), bands + 2))
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    return np.maximum(0.0, np.minimum(rising, falling))
