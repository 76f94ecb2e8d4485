"""Live sound as blocks of samples: a file played at its own pace, raw samples of a pipe, a microphone; and latencies.

All sources hold a few blocks, however long they run. The microphone needs the optional package ``sounddevice``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from pipelines.errors import ConfigError
from pipelines.transcribe.microphone import Microphone, sounddevice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.data.formats.audio import AudioOptions, AudioStream

    Block = NDArray[np.float32]

__all__ = ["BLOCK_SECONDS", "LatencyMeter", "LiveSound", "from_file", "from_microphone", "from_pipe"]

BLOCK_SECONDS = 0.1


class LiveSound:
    """Blocks of one live source; iterate once, in a ``with`` statement.

    Args:
        stream: the open recording.
        realtime: give each block at the moment when its last sample would have been heard.
        more_notes: what the source itself has to say.

    Attributes:
        rate: of the blocks, Hz.
        source: its name.

    Raises:
        InputError: while iterating, damage or samples that are no numbers.

    Complexity: O(samples) time, memory of a few blocks.
    """

    def __init__(
        self,
        stream: AudioStream,
        *,
        realtime: bool = False,
        more_notes: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._stream, self._realtime, self._more = stream, realtime, more_notes
        self.rate, self.source = stream.rate, stream.source

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted or lost; complete after the last block."""
        return (*self._stream.notes, *self._more())

    @property
    def position(self) -> float:
        """Seconds given so far."""
        return self._stream.position

    def __iter__(self) -> Iterator[Block]:
        """Blocks (n,) float32."""
        began = time.monotonic()
        for block in self._stream:
            if self._realtime:
                ahead = began + self._stream.position - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
            yield block

    def close(self) -> None:
        """Close the file or device; a pipe stays open."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def from_file(
    path: str | Path | Any,
    *,
    rate: int | None = None,
    options: AudioOptions | None = None,
    block_seconds: float = BLOCK_SECONDS,
    realtime: bool = False,
) -> LiveSound:
    """A recording as if it were heard now.

    Args:
        path: a file, or anything else that :func:`pipelines.data.formats.audio.open_audio` reads.
        rate: of the blocks, Hz; None keeps the recording's own.
        options: channel, what is accepted.
        block_seconds: length of the blocks.
        realtime: at the pace of the recording; otherwise as fast as it can be read.

    Raises:
        InputError: no such file, not sound, damaged.

    Example:
        >>> import numpy as np
        >>> with from_file((np.zeros(2000, np.float32), 8000)) as sound:
        ...     [len(block) for block in sound], sound.position
        ([800, 800, 400], 0.25)
    """
    from pipelines.data.formats.audio import AudioOptions, open_audio

    opened = open_audio(path, rate=rate, options=options or AudioOptions(), block_seconds=block_seconds)
    return LiveSound(opened, realtime=realtime)


def from_pipe(
    stream: BinaryIO | None = None,
    rate: int = 16_000,
    encoding: str = "s16le",
    channels: int = 1,
    *,
    target_rate: int | None = None,
    options: AudioOptions | None = None,
    block_seconds: float = BLOCK_SECONDS,
) -> LiveSound:
    """Raw samples without a header, block by block as they come.

    Args:
        stream: open for reading bytes; None is standard input.
        rate: of the samples, Hz.
        encoding: s8, u8, s16le, s16be, s24le, s32le or f32le.
        channels: that alternate; they are mixed to one, which is said in the notes.
        target_rate: of the blocks, Hz; None for the same.
        options: which channel.
        block_seconds: how much is waited for at a time.

    Raises:
        ConfigError: standard input is closed.
        InputError: an encoding, rate or number of channels that cannot be.

    Example:
        >>> import io
        >>> with from_pipe(io.BytesIO(bytes(3200)), 8000) as sound:
        ...     [len(block) for block in sound]
        [800, 800]
    """
    from pipelines.data.formats.audio import AudioOptions, read_pcm

    if stream is None and sys.stdin is None:
        raise ConfigError("standard input is closed", where="-", cure="name a file, or pipe samples in")
    opened = read_pcm(
        sys.stdin.buffer if stream is None else stream,
        rate=rate,
        encoding=encoding,
        channels=channels,
        options=options or AudioOptions(),
        target_rate=target_rate,
        block_seconds=block_seconds,
    )
    return LiveSound(opened)


def from_microphone(
    rate: int = 16_000, *, device: int | str | None = None, block_seconds: float = BLOCK_SECONDS
) -> LiveSound:
    """What a microphone hears, until the stream is closed.

    A device that cannot record at this rate records at its own, and is resampled, which is said in the notes. Sound
    that came faster than it was taken is lost; how often that happened is said there too.

    Args:
        rate: of the blocks, Hz.
        device: number or part of the name of the device; None is the system's default.
        block_seconds: length of the blocks.

    Raises:
        ConfigError: the package ``sounddevice`` or its library is missing, or there is no such microphone.
    """
    from pipelines.data.formats.audio import read_pcm

    microphone = Microphone(sounddevice(), rate, device)
    try:
        opened = read_pcm(
            microphone,  # type: ignore[arg-type]
            rate=microphone.rate,
            encoding="s16le" if sys.byteorder == "little" else "s16be",
            target_rate=rate,
            block_seconds=block_seconds,
        )
    except BaseException:
        microphone.close()
        raise
    return _MicrophoneSound(opened, microphone)


class _MicrophoneSound(LiveSound):
    def __init__(self, stream: AudioStream, microphone: Microphone) -> None:
        super().__init__(stream, more_notes=microphone.remarks)
        self._microphone = microphone

    def close(self) -> None:
        super().close()
        self._microphone.close()


class LatencyMeter:
    """How long a word's text comes after its end: the sound that had to be heard, the work, and what had piled up.

    Blocks pass through :meth:`watch`; whoever answers calls :meth:`answered`. Time spent waiting for sound is not
    counted, so that files that are read faster than they would be heard give the latency that a live source has: the
    sound heard since, plus the work since the last block came, plus the delay of blocks that had to wait for earlier
    work (Lindley's recursion). Constant memory.

    Args:
        rate: of the blocks, Hz.
        clock: seconds that only grow.

    Example:
        >>> import numpy as np
        >>> meter = LatencyMeter(8000, clock=iter(range(100)).__next__)
        >>> for block in meter.watch([np.zeros(4000)]):
        ...     meter.answered(0.2)
        >>> round(meter.latency.quantile(0.5), 1)
        1.3
    """

    def __init__(self, rate: int, *, clock: Callable[[], float] = time.perf_counter) -> None:
        from pipelines.cli.streaming import Latency

        self.rate, self._clock = rate, clock
        self.latency = Latency()
        self.heard = 0.0
        self.busy = 0.0
        self._came = 0.0
        self._late = 0.0
        self._samples = 0

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Pass blocks on; what is done with each until the next is asked for counts as work."""
        for block in blocks:
            self._came = self._clock()
            self._samples += len(block)
            self.heard = self._samples / self.rate
            yield block
            work = self._clock() - self._came
            self.busy += work
            self._late = max(0.0, self._late + work - len(block) / self.rate)

    def answered(self, end: float) -> None:
        """The text of speech that ended at this second of the sound has been given."""
        self.latency.add(max(self.heard - end, 0.0) + self._clock() - self._came + self._late)

    @property
    def real_time_factor(self) -> float:
        """Seconds of work a second of sound; above 1 it falls behind."""
        return self.busy / self.heard if self.heard else 0.0

    def summary(self) -> str:
        """One line: how much was heard, the latency from the end of speech to its text, and the work."""
        said = f"{self.heard:,.1f} s of sound, {self.latency.total:,} answers"
        if self.latency.total:
            middle, most = (self.latency.quantile(share) for share in (0.5, 0.95))
            said += f"; from the end of speech to its text: median {middle:.2f} s, 95th percentile {most:.2f} s"
        return f"{said}; {self.real_time_factor:.3f} s of work a second of sound"
