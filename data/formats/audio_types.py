"""What recordings are made of: options, facts, samples in memory, and the blocks that readers give."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["HIGHEST_RATE", "LOWEST_RATE", "Audio", "AudioFacts", "AudioOptions", "Floats", "RawAudio", "check_rate"]

Floats = NDArray[np.float32]

#: Sampling rates in Hz that are read and made; outside lie headers that are damaged, not sound.
LOWEST_RATE, HIGHEST_RATE = 1000, 768_000
_MOST_CHANNELS = 1024


@dataclasses.dataclass(frozen=True)
class AudioOptions:
    """What is done with a recording on the way in, and what is refused.

    Args:
        channel: "mix" for the mean of all channels, or the number of one, from 0.
        accept_truncated: read what is there of a file that ends too early, and say how much is missing.
        limit_hours: longest recording that is read.

    Raises:
        InputError: a channel or a limit that cannot be.

    Example:
        >>> AudioOptions(channel=1).channel
        1
    """

    channel: Literal["mix"] | int = "mix"
    accept_truncated: bool = False
    limit_hours: float = 24.0

    def __post_init__(self) -> None:
        whole = isinstance(self.channel, int) and not isinstance(self.channel, bool) and self.channel >= 0
        if self.channel != "mix" and not whole:
            raise InputError("no such channel", where="channel", found=self.channel, expected="mix, or 0, 1, 2, ...")
        if not self.limit_hours > 0:
            raise InputError("no time at all", where="limit_hours", found=self.limit_hours, expected="hours above 0")


@dataclasses.dataclass(frozen=True)
class AudioFacts:
    """What a file says about itself.

    Attributes:
        rate: samples a second of each channel, Hz.
        channels: how many.
        seconds: length by the header; None where it says nothing.
        container: WAV, FLAC, MP4 ...
        encoding: of the samples: PCM_16, VORBIS, aac ...
        bits: of a sample; None where the encoding has no such number.
    """

    rate: int
    channels: int
    seconds: float | None
    container: str
    encoding: str
    bits: int | None = None


@dataclasses.dataclass(frozen=True)
class Audio:
    """A recording in memory.

    Attributes:
        samples: (n,) float32, one channel, nominally within [-1, 1].
        rate: samples a second, Hz.
        source: name of what was read.
        facts: of the file, before any conversion.
        notes: what was converted, missing or strange, counted.

    Example:
        >>> Audio(np.zeros(8000, np.float32), 16000, "a.wav", AudioFacts(16000, 1, 0.5, "WAV", "PCM_16", 16)).seconds
        0.5
    """

    samples: Floats
    rate: int
    source: str
    facts: AudioFacts
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.rate


class RawAudio(ABC):
    """An open recording as it is stored: all channels, its own rate; each reader has a subclass.

    Attributes:
        name: for messages.
        facts: what the file says.
        notes: what the reader had to say; may grow until the end.
        live: more may come for hours: no limit of time, and what is wrong is told at once.
    """

    live = False

    def __init__(self, name: str, facts: AudioFacts) -> None:
        check_rate(facts.rate, name)
        if not 1 <= facts.channels <= _MOST_CHANNELS:
            found, expected = f"{facts.channels} channels", f"1 to {_MOST_CHANNELS}"
            raise InputError("no sound that can be read", where=name, found=found, expected=expected)
        self.name, self.facts = name, facts
        self.notes: list[str] = []

    @abstractmethod
    def read(self, frames: int) -> Floats:
        """The next samples (n, channels) float32, n <= frames; n = 0 only at the end.

        Raises:
            InputError: the file is damaged here, or ends before its header says.
        """

    def seek(self, frame: int) -> int:
        """Go to a frame or to one before it, where that is exact; where one is then, 0 for a reader that cannot.

        Only before the first `read`.
        """
        return 0

    def close(self) -> None:  # noqa: B027 - arrays have nothing to close
        """Close the file; nothing can be read after."""


def check_rate(rate: int, where: str) -> None:
    """Refuse a sampling rate that no recording has.

    Raises:
        InputError: that.

    Example:
        >>> check_rate(0, "a.wav")
        Traceback (most recent call last):
        pipelines.data.errors.InputError: a.wav: the sampling rate cannot be. ...
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        found, expected = f"{rate} Hz", f"{LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz"
        cure = "export the recording again, or name a rate in this range"
        raise InputError("the sampling rate cannot be", where=where, found=found, expected=expected, cure=cure)
