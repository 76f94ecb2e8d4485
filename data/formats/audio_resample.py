"""Change of the sampling rate of a stream: a windowed sinc at exact phases, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.formats.audio_types import Floats, check_rate

__all__ = ["StreamResampler"]

#: Attenuation in the stop band, dB, for which the Kaiser window is chosen: some above the 80 that are promised.
_ATTENUATION = 90.0
#: The pass band ends at this part of the lower Nyquist frequency, the stop band begins at all of it.
_PASS = 0.90
_FRAMES_A_PRODUCT = 256
_WIDEST_PRODUCT = 4096
_WEIGHTS_AT_A_TIME = 1 << 20


class StreamResampler:
    """Bring a stream of samples to another rate, in pieces of any size.

    Output m is the band-limited signal at time m / target_rate: no delay, its length is
    ceil(n target_rate / source_rate) for n samples, and how the stream is cut changes nothing. Before the first and
    after the last sample there is silence. Pass band to 0.90 of the lower Nyquist frequency, over 80 dB of
    attenuation from 1.0 of it on.

    Args:
        source_rate: Hz, 1,000 to 768,000.
        target_rate: Hz, the same range; equal rates pass samples through.

    Raises:
        InputError: a rate outside the range.

    Complexity: O(82 / 0.72 max(1, source / target)) multiplications a sample of the output; constant memory of at
        most some 100 MB, for rates without a common divisor, usually under one.

    Source: J. O. Smith, Digital Audio Resampling (2002), sections 2 and 3; J. F. Kaiser (1974) for the window.

    Example:
        >>> resampler = StreamResampler(8000, 16000)
        >>> tone = np.sin(2 * np.pi * 500 * np.arange(4000) / 8000).astype(np.float32)
        >>> parts = [resampler.push(tone[:7]), resampler.push(tone[7:]), resampler.flush()]
        >>> out = np.concatenate(parts)
        >>> wanted = np.sin(2 * np.pi * 500 * np.arange(8000) / 16000)
        >>> len(out), bool(abs(out - wanted)[500:-500].max() < 1e-4)
        (8000, True)
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        check_rate(source_rate, "source_rate")
        check_rate(target_rate, "target_rate")
        self.source_rate, self.target_rate = source_rate, target_rate
        divisor = math.gcd(source_rate, target_rate)
        self.up, self.down = target_rate // divisor, source_rate // divisor
        lower = min(source_rate, target_rate)
        #: Of the half-way point, in cycles a sample of the source.
        self._cutoff = (1 + _PASS) / 4 * lower / source_rate
        width = (1 - _PASS) * math.pi * lower / source_rate  # of the transition, radians a sample
        same = self.up == self.down
        #: Samples of the source on either side of the place of an output.
        self.half = 0 if same else math.ceil((_ATTENUATION - 7.95) / (2.285 * width) / 2)
        self._beta = 0.1102 * (_ATTENUATION - 8.7)
        self._bank: Floats | None = None
        self._begin()
        # Cycles of `down` samples that become `up`; several together, so that one matrix product does many.
        self._cycles = max(1, _FRAMES_A_PRODUCT // max(self.up, self.down))
        self._dense = self._cycles * self.down + 2 * self.half <= _WIDEST_PRODUCT
        self._matrix = self._product() if self._dense and not same else None

    def _begin(self) -> None:
        self._seen = 0  # samples of the source
        self._made = 0  # samples of the target
        self._held = np.zeros(self.half, np.float32)
        self._first = -self.half  # place of the first held sample

    def push(self, block: NDArray[Any]) -> Floats:
        """Take samples (n,), give those (m,) float32 that can be made from all that came so far; perhaps none."""
        block = np.asarray(block, np.float32)
        if self.up == self.down:
            return block
        self._seen += len(block)
        self._held = np.concatenate([self._held, block])
        ready = -((self.half + 1 - self._seen) * self.up // self.down)  # an output reads half + 1 samples ahead
        return self._make(max(ready, self._made))

    def flush(self) -> Floats:
        """The samples (m,) float32 that were still to come, after which the resampler is as new."""
        if self.up == self.down:
            return np.zeros(0, np.float32)
        total = -(-self._seen * self.up // self.down)
        self._held = np.concatenate([self._held, np.zeros(2 * self.half + 1, np.float32)])
        rest = self._make(max(total, self._made))
        self._begin()
        return rest

    def _make(self, stop: int) -> Floats:
        """Outputs from the last one made up to `stop`, which the held samples must suffice for."""
        if stop == self._made:
            return np.zeros(0, np.float32)
        made = self._by_products(stop) if self._matrix is not None else self._one_by_one(stop)
        self._made = stop
        # A product begins at the start of a group of cycles: nothing before the current one is needed any more.
        group = self._made // (self._cycles * self.up) * self._cycles * self.down
        keep = (group if self._matrix is not None else self._made * self.down // self.up) - self.half
        if keep > self._first:
            self._held = self._held[keep - self._first :].copy()
            self._first = keep
        return made

    def _by_products(self, stop: int) -> Floats:
        if self._matrix is None:
            raise RuntimeError("no matrix")
        step, size = self._cycles * self.down, self._cycles * self.up
        first, last = self._made // size, -(-stop // size)
        width = len(self._matrix)
        start = first * step - self.half - self._first
        lacking = start + (last - first - 1) * step + width - len(self._held)
        # Groups are made as a whole; what the samples do not suffice for yet is not given out.
        held = np.concatenate([self._held, np.zeros(lacking, np.float32)]) if lacking > 0 else self._held
        windows = np.lib.stride_tricks.sliding_window_view(held[start:], width)[::step]
        made = np.empty((last - first, size), np.float32)
        for begin in range(0, len(made), 512):
            part = np.ascontiguousarray(windows[begin : min(begin + 512, len(made))])
            np.matmul(part, self._matrix, out=made[begin : begin + len(part)])
        return made.reshape(-1)[self._made - first * size : stop - first * size].copy()

    def _one_by_one(self, stop: int) -> Floats:
        """For rates with hardly a common divisor: each output has weights of its own, looked up by its phase."""
        bank = self._phases()
        taps = bank.shape[1]
        windows = np.lib.stride_tricks.sliding_window_view(self._held, taps)
        made = np.empty(stop - self._made, np.float32)
        step = max(1, _WEIGHTS_AT_A_TIME // taps)
        for begin in range(0, len(made), step):
            places = (
                np.arange(self._made + begin, self._made + min(begin + step, len(made)), dtype=np.int64) * self.down
            )
            rows = windows[places // self.up - self.half - self._first]
            made[begin : begin + len(places)] = np.einsum("nt,nt->n", rows, bank[places % self.up])
        return made

    def _phases(self) -> Floats:
        """(up, 2 half + 2) weights of the samples around an output that lies p / up behind a sample of the source."""
        if self._bank is None:
            taps = 2 * self.half + 2
            self._bank = np.empty((self.up, taps), np.float32)
            for rows in _spans(self.up, max(1, _WEIGHTS_AT_A_TIME // taps)):
                self._bank[rows] = self._weights(np.arange(rows.start, rows.stop), taps)
        return self._bank

    def _product(self) -> Floats:
        """(samples of a group and around it, outputs of the group)."""
        taps = 2 * self.half + 2
        count = self._cycles * self.up
        places = np.arange(count) * self.down
        phases = self._weights(np.arange(self.up), taps)
        matrix = np.zeros((self._cycles * self.down + taps, count), np.float32)
        for column, place in enumerate(places):
            begin = place // self.up
            matrix[begin : begin + taps, column] = phases[place % self.up]
        return matrix

    def _weights(self, phases: NDArray[np.int64], taps: int) -> Floats:
        """Of the samples -half .. half + 1 around a place; each row sums to 1, so that a constant stays one."""
        time = np.arange(-self.half, taps - self.half) - phases[:, None] / self.up
        inside = np.clip(1 - (time / (self.half + 1)) ** 2, 0, None)
        weights = np.sinc(2 * self._cutoff * time) * np.i0(self._beta * np.sqrt(inside))
        weights *= np.abs(time) <= self.half + 1
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _spans(count: int, step: int) -> Iterator[slice]:
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))
