"""A recording as blocks of samples: one channel, at the rate asked for, in constant memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_faults import no_samples
from pipelines.data.formats.audio_resample import StreamResampler
from pipelines.data.formats.audio_types import AudioFacts, AudioOptions, Floats, RawAudio, check_rate
from pipelines.data.formats.audio_watch import SampleWatch

__all__ = ["AudioStream", "Stretch"]

_MOST_VALUES = 1 << 22  # of a block over all channels


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Which part of a recording is wanted: seconds from its beginning, and how many; None for the rest.

    Raises:
        InputError: a time that cannot be.
    """

    start: float = 0.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise InputError("no such time", where="start", found=self.start, expected="seconds from 0 on")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise InputError("no such length", where="seconds", found=self.seconds, expected="seconds above 0")


class AudioStream:
    """Blocks of a recording; iterate once, in a `with` statement.

    Args:
        raw: the open recording; closed with this object.
        rate: of the blocks, Hz; None for the recording's own.
        options: channel, and limit of time.
        block_seconds: length of the blocks. Those of a file are all of this length but the last; those of a pipe are
            given as soon as they are made, none empty.
        stretch: which part.

    Attributes:
        rate: of the blocks, Hz.
        facts: of the recording as it is stored.
        source: its name.

    Raises:
        InputError: a channel that is not there, a rate that cannot be, a recording over the limit; while iterating,
            damage, samples that are no numbers, or no samples at all.

    Complexity: O(samples) time, memory of a few blocks.

    Example:
        >>> from pipelines.data.formats.audio_pcm import ArrayAudio
        >>> with AudioStream(ArrayAudio(np.ones(8000, np.float32) / 9, 8000), rate=4000, block_seconds=0.4) as stream:
        ...     [len(block) for block in stream], stream.position, stream.notes[0]
        ([1600, 1600, 800], 1.0, 'resampled from 8000 to 4000 Hz')
    """

    def __init__(
        self,
        raw: RawAudio,
        *,
        rate: int | None = None,
        options: AudioOptions | None = None,
        block_seconds: float = 10.0,
        stretch: Stretch | None = None,
    ) -> None:
        self.facts: AudioFacts = raw.facts
        self.source = raw.name
        self.rate = raw.facts.rate if rate is None else rate
        self._raw, self._options, self._stretch = raw, options or AudioOptions(), stretch or Stretch()
        if not (math.isfinite(block_seconds) and block_seconds > 0):
            raise InputError("no such length", where="block_seconds", found=block_seconds, expected="seconds above 0")
        self._block_seconds = block_seconds
        check_rate(self.rate, "rate")
        self._check_channel()
        self._check_limit(self.facts.seconds or 0.0)
        self._resampler = StreamResampler(raw.facts.rate, self.rate)
        self._watch = SampleWatch(raw.name, raw.facts)
        self._delivered = 0
        self._begun = False
        self._missed = ""

    def _check_channel(self) -> None:
        channel, channels = self._options.channel, self.facts.channels
        if channel != "mix" and channel >= channels:
            found = f"{channels} {'channel' if channels == 1 else 'channels'}"
            cure = f"choose 0{f' to {channels - 1}' if channels > 1 else ''}, or mix"
            raise InputError(f"no channel {channel}", where=self.source, found=found, cure=cure)

    def _check_limit(self, seconds: float) -> None:
        if self._raw.live or self._stretch.seconds is not None or seconds <= 3600 * self._options.limit_hours:
            return
        found, expected = f"{seconds / 3600:,.2f} hours", f"at most {self._options.limit_hours:g} hours"
        cure = "raise limit_hours, or cut the recording"
        raise InputError("longer than allowed", where=self.source, found=found, expected=expected, cure=cure)

    @property
    def position(self) -> float:
        """Seconds delivered."""
        return self._delivered / self.rate

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted, missing or strange; complete after the last block."""
        notes = list(self._raw.notes)
        channels, channel = self.facts.channels, self._options.channel
        if channels > 1:
            how = f"{channels} channels mixed to one: their mean"
            notes.append(how if channel == "mix" else f"channel {channel} of {channels} was read, from 0")
        before = self.facts.rate
        if self.rate != before:
            empty = f": nothing above {before / 2:g} Hz in it" if self.rate > before else ""
            notes.append(f"resampled from {before} to {self.rate} Hz{empty}")
        missed = [self._missed] if self._missed else []
        return (*notes, *missed, *self._watch.remarks())

    def __iter__(self) -> Iterator[Floats]:
        """Blocks (n,) float32."""
        if self._begun:
            raise InputError("the recording was read already", where=self.source, cure="open it again")
        self._begun = True
        made = self._cut(self._converted())
        for block in made if self._raw.live else self._even(made):
            self._delivered += len(block)
            yield block

    def _even(self, blocks: Iterator[Floats]) -> Iterator[Floats]:
        """The same samples in blocks of one length."""
        size = max(1, round(self._block_seconds * self.rate))
        held: list[Floats] = []
        count = 0
        for block in blocks:
            held.append(block)
            count += len(block)
            if count >= size:
                whole = np.concatenate(held)
                for begin in range(0, count - size + 1, size):
                    yield whole[begin : begin + size]
                held = [whole[count - count % size :].copy()]
                count %= size
        if count:
            yield np.concatenate(held)

    def _cut(self, blocks: Iterator[Floats]) -> Iterator[Floats]:
        """The stretch out of what comes, which begins at `_origin`."""
        skip = round(self._stretch.start * self.rate)
        take = None if self._stretch.seconds is None else max(1, round(self._stretch.seconds * self.rate))
        given, place = 0, None
        for block in blocks:
            place = self._origin if place is None else place
            inside = block[max(0, skip - place) :][: None if take is None else take - given]
            place += len(block)
            given += len(inside)
            if len(inside):
                yield inside
            if given == take:
                return
        if not given:
            end = self.facts.seconds or (place or 0) / self.rate
            found, expected = f"{end:.3f} s of sound", f"more than {self._stretch.start:.3f} s"
            raise InputError("nothing at this time", where=self.source, found=found, expected=expected)
        if take is not None:
            self._missed = f"{(take - given) / self.rate:.3f} s of those asked for lie behind the end: not there"

    def _converted(self) -> Iterator[Floats]:
        """One channel at the new rate, from `_origin` on, that is somewhat before the stretch."""
        self._origin, skipped = self._go_near()
        size = max(1, round(self._block_seconds * self.facts.rate))
        size = min(size, max(1, _MOST_VALUES // self.facts.channels))
        while len(block := self._raw.read(size)):
            if skipped:
                block, skipped = block[skipped:], max(0, skipped - len(block))
                if not len(block):
                    continue
            mono = self._mono(block)
            self._watch.see(block, mono)
            if self._watch.faulty:
                self._drain(size)
            self._check_limit(self._watch.frames / self.facts.rate)
            made = self._resampler.push(mono)
            if len(made):
                yield made
        if not self._watch.frames and not self._origin and not skipped:
            raise no_samples(self.source)
        rest = self._resampler.flush()
        if len(rest):
            yield rest

    def _go_near(self) -> tuple[int, int]:
        """Seek to before the stretch, where samples of both rates coincide: (first output, frames to skip to it)."""
        up, down = self._resampler.up, self._resampler.down
        wanted = round(self._stretch.start * self.rate) * down // up - self._resampler.half - 1
        frame = max(0, wanted) // down * down
        if frame == 0:
            return 0, 0
        return frame * up // down, frame - self._raw.seek(frame)

    def _mono(self, block: Floats) -> Floats:
        if block.shape[1] == 1:
            return block[:, 0]
        if self._options.channel != "mix":
            return np.ascontiguousarray(block[:, self._options.channel])
        return block.mean(axis=1, dtype=np.float32)

    def _drain(self, size: int) -> None:
        """Count what is no number up to the end, then say so; of a pipe, at once."""
        while not self._raw.live and self._watch.frames < 3600 * self._options.limit_hours * self.facts.rate:
            block = self._raw.read(size)
            if not len(block):
                break
            self._watch.see(block, self._mono(block))
        self._watch.refuse_faults()

    def close(self) -> None:
        """Close the recording; nothing can be read after."""
        self._raw.close()

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
