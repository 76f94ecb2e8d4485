"""Circular cross-correlation of two sequences at every lag, averaged over channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Folding costs O(sqrt T) multiplications a number: measured to win on a CPU between these lengths.
_FOLDED_FROM, _FOLDED_TO = 24, 2048
# Numbers of q worked on at a time, so that the spectra stay in the caches (measured: 2^16 to 2^17 is best).
_PER_PART = 1 << 16


def period_correlation(q: Tensor, k: Tensor) -> Tensor:
    """Circular cross-correlation of queries and keys at every lag, averaged over heads and channels.

    Args:
        q: (B, T, H, D).
        k: (B, T, H, D).

    Returns:
        (B, T): entry ``lag`` is sum_t <q[t], k[(t - lag) mod T]> / (H D), in float32, or float64 of float64. It carries
        no gradient.

    O(T log T H D) by Fourier transforms over time, the mean over heads and channels taken of the spectra, so that one
    inverse transform of (B, T) is left. From 24 to 2,048 steps on a CPU, where T has a divisor near its root and H D is
    at least twice that, only blocks of the sequence are transformed and the places within a block are multiplied out:
    O(T sqrt(T) H D), but in matrix products, which took half the time. O(T H D) memory, nothing of size T x T.
    Source: Autoformer (arXiv 2106.13008), section 3.2, equations 5 and 8 (Wiener-Khinchin theorem).

    Example:
        >>> import torch
        >>> wave = torch.sin(torch.arange(48) * 2 * torch.pi / 12).reshape(1, 48, 1, 1)
        >>> int(period_correlation(wave, wave)[0, 1:].argmax()) + 1
        12
    """
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        q, k = q.flatten(2).to(wide), k.flatten(2).to(wide)
        if torch.compiler.is_compiling() or torch.compiler.is_exporting() or q.device.type != "cpu":
            return _transformed(q, k)
        length, size = q.shape[1], _divisor_near_root(q.shape[1])
        # Products of places outgrow the sequences themselves where there are few channels: O(T C) memory is kept.
        wanted = _FOLDED_FROM <= length <= _FOLDED_TO and size * 3 >= math.isqrt(length) and 2 * size <= q.shape[2]
        if not wanted:
            return _transformed(q, k)
        return _folded(q, k, length // size)


def _transformed(q: Tensor, k: Tensor) -> Tensor:
    """(B, T, C) twice to (B, T) by fast Fourier transforms of whole sequences."""
    power = (torch.fft.rfft(q, dim=1) * torch.fft.rfft(k, dim=1).conj()).mean(dim=2)
    return torch.fft.irfft(power, n=q.shape[1], dim=1)


def _folded(q: Tensor, k: Tensor, blocks: int) -> Tensor:
    """The same with t = size * block + place: a Fourier transform over blocks, products of places within.

    With lag = size * d + e, place r of q meets place r - e of k, d blocks earlier, or place r - e + size, one block
    earlier still, where r < e; that extra block is a phase in the spectrum over blocks.
    """
    batch, length, channels = q.shape
    size, tone = length // blocks, torch.arange(blocks // 2 + 1, dtype=torch.float64)
    turn = tone[:, None] * torch.arange(blocks) % blocks * (2 * math.pi / blocks)
    transform = torch.stack([turn.cos(), -turn.sin()], dim=1).flatten(0, 1).to(q.dtype)
    part = max(1, _PER_PART // (length * channels))
    parts = zip(q.split(part), k.split(part), strict=True)
    products = torch.cat([_place_products(a, b, transform) for a, b in parts])
    r, e = torch.arange(size), torch.arange(size)[:, None]
    meeting = products[:, :, r.expand(size, size), (r - e) % size]
    one_block = torch.polar(torch.ones_like(tone), tone * (2 * math.pi / blocks)).to(products.dtype)
    power = torch.where(r < e, meeting * one_block[:, None, None], meeting).sum(dim=-1)
    return torch.fft.irfft(power, n=blocks, dim=1).reshape(batch, length) / channels


def _place_products(q: Tensor, k: Tensor, transform: Tensor) -> Tensor:
    """Cross spectra over blocks of every place of q with every place of k: (B, tones, size, size) complex.

    Real and imaginary rows of the transform alternate, so that one real product for each tone holds all four parts.
    """
    rows, blocks = transform.shape
    batch, length, channels = q.shape
    tones, size = rows // 2, length // blocks
    folded = [(transform @ part.reshape(batch, blocks, -1)).view(batch, tones, 2 * size, channels) for part in (q, k)]
    parts = (folded[0] @ folded[1].transpose(-1, -2)).view(batch, tones, 2, size, 2, size)
    re_re, re_im, im_re, im_im = (parts[:, :, i, :, j] for i in (0, 1) for j in (0, 1))
    return torch.complex(re_re + im_im, im_re - re_im)


def _divisor_near_root(length: int) -> int:
    """The largest divisor of a length that is not above its square root."""
    return next(n for n in range(math.isqrt(length), 0, -1) if length % n == 0)
