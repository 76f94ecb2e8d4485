"""Samples without a file's header: arrays in memory, and raw PCM that comes down a pipe."""

from __future__ import annotations

import time
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_types import AudioFacts, Floats, RawAudio

__all__ = ["ENCODINGS", "ArrayAudio", "PcmAudio"]

#: Encodings of raw samples: NumPy's type, with 24 bits as three bytes.
ENCODINGS = {"s8": "i1", "u8": "u1", "s16le": "<i2", "s16be": ">i2", "s24le": "u1", "s32le": "<i4", "f32le": "<f4"}
_WIDTHS = {"s8": 1, "u8": 1, "s16le": 2, "s16be": 2, "s24le": 3, "s32le": 4, "f32le": 4}
_MOST_CHANNELS = 64
_WAIT = 0.01  # seconds, where a pipe that does not block has nothing yet


def _unit(values: NDArray[Any]) -> Floats:
    """Whole numbers divided by their range, unsigned ones around its middle; floats as they are."""
    kind, bits = values.dtype.kind, 8 * values.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused as that
            return values.astype(np.float32)
    # In float64: 32 bits do not fit into float32 before the middle is taken away.
    shifted = values.astype(np.float64) - (2.0 ** (bits - 1) if kind == "u" else 0.0)
    return (shifted / 2.0 ** (bits - 1)).astype(np.float32)


class ArrayAudio(RawAudio):
    """Samples in memory with their rate.

    Args:
        samples: (n,) or (n, channels), whole numbers of 8 to 32 bits or floats; a torch tensor on the CPU will do.
        rate: Hz.

    Raises:
        InputError: another shape or type, or a rate that is no whole number.

    Complexity: O(1); blocks are converted as they are read.

    Example:
        >>> ArrayAudio(np.array([[-32768, 16384]], np.int16), 8000).read(5).tolist()
        [[-1.0, 0.5]]
    """

    def __init__(self, samples: Any, rate: Any) -> None:
        values = np.asarray(samples)
        name = "the given samples"
        if values.dtype.kind not in "iuf" or (values.dtype.kind != "f" and values.dtype.itemsize > 4):
            found = f"{values.dtype} {values.shape}"
            cure = "convert to int16 or float32: nothing says what range 64 bits or other types have"
            expected = "whole numbers of 8 to 32 bits, or floats"
            raise InputError("cannot be read as sound", where=name, found=found, expected=expected, cure=cure)
        if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] > _MOST_CHANNELS):
            expected = f"(n,) or (n, channels) with at most {_MOST_CHANNELS} channels"
            cure = "transpose it" if values.ndim == 2 else None
            raise InputError(
                "another shape than sound has", where=name, found=values.shape, expected=expected, cure=cure
            )
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or rate != int(rate):
            raise InputError("no sampling rate", where=name, found=rate, expected="a whole number of Hz")
        self._values = values.reshape(len(values), -1) if values.ndim == 2 else values[:, None]
        bits = None if values.dtype.kind == "f" else 8 * values.dtype.itemsize
        seconds = len(values) / rate if rate else 0.0
        channels = self._values.shape[1]
        super().__init__(name, AudioFacts(int(rate), channels, seconds, "array", values.dtype.name, bits))
        self._place = 0

    def read(self, frames: int) -> Floats:
        """The next samples (n, channels)."""
        block = _unit(self._values[self._place : self._place + frames])
        self._place += len(block)
        return block

    def seek(self, frame: int) -> int:
        """Go to a frame."""
        self._place = min(frame, len(self._values))
        return self._place


class PcmAudio(RawAudio):
    """Raw samples of a pipe, in whole blocks as they come, in constant memory.

    Args:
        stream: open for reading bytes; it is not closed.
        rate: Hz.
        encoding: s8, u8, s16le, s16be, s24le, s32le or f32le.
        channels: that alternate.

    Raises:
        InputError: an encoding, rate or number of channels that cannot be.

    Example:
        >>> import io
        >>> pipe = PcmAudio(io.BytesIO(bytes([0, 64, 0])), rate=16000, encoding="s16le", channels=1)
        >>> pipe.read(10).tolist(), pipe.read(10).shape, pipe.notes
        ([[0.5]], (0, 1), ['1 byte at the end is no whole sample: left out'])
    """

    live = True

    def __init__(self, stream: BinaryIO, *, rate: int, encoding: str, channels: int) -> None:
        if encoding not in ENCODINGS:
            expected = ", ".join(ENCODINGS)
            raise InputError("no such encoding of samples", where="encoding", found=encoding, expected=expected)
        name = getattr(stream, "name", None)
        shown = name.strip("<>") if isinstance(name, str) else "the pipe"
        bits = 8 * _WIDTHS[encoding]
        super().__init__(shown, AudioFacts(rate, channels, None, "raw", encoding, None if encoding[0] == "f" else bits))
        self._stream, self._encoding = stream, encoding
        self._width = _WIDTHS[encoding] * channels
        self._rest = b""

    def read(self, frames: int) -> Floats:
        """The next samples (n, channels); waits until there are so many, or the end."""
        content = self._bytes(frames * self._width)
        whole = len(content) // self._width * self._width
        if whole < len(content):
            left = len(content) - whole
            bytes_are = "1 byte at the end is" if left == 1 else f"{left} bytes at the end are"
            self.notes.append(f"{bytes_are} no whole sample{' of all channels' * (self.facts.channels > 1)}: left out")
        values = np.frombuffer(content[:whole], ENCODINGS[self._encoding])
        if self._encoding == "s24le":
            wide = np.zeros((len(values) // 3, 4), np.uint8)
            wide[:, 1:] = values.reshape(-1, 3)
            values = wide.view("<i4")[:, 0]
        return _unit(values).reshape(-1, self.facts.channels)

    def _bytes(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count > 0:
            try:
                part = self._stream.read(count)
            except (OSError, ValueError) as error:
                raise InputError("cannot be read", where=self.name, found=error) from None
            if part is None:
                time.sleep(_WAIT)
                continue
            if isinstance(part, str):
                cure = "pass sys.stdin.buffer"
                raise InputError("gives text", where=self.name, expected="raw bytes", cure=cure)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
