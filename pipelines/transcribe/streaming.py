"""Live sound to text: events as the sound arrives, in constant memory, whatever blocks it comes in."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError, Interrupted
from pipelines.transcribe.decoding.scoring import FIRST_UNIT
from pipelines.transcribe.hearing import Listener, segment_of
from pipelines.transcribe.live import LatencyMeter, LiveSound, from_file, from_microphone
from pipelines.transcribe.piped import from_standard_input
from pipelines.transcribe.reading import audio_options
from pipelines.transcribe.segments import Piece, stitch
from pipelines.transcribe.streaming_greedy import GrowingText, Stretches
from pipelines.transcribe.words import Word

if TYPE_CHECKING:
    from pipelines.transcribe.pipeline import Transcriber

__all__ = ["LiveTranscription"]

#: Seconds that are worked on at once: events do not depend on how the sound is cut into blocks.
STEP_SECONDS = 0.05
_LEAD = 2  # words before the overlap that stitching may still change


@dataclasses.dataclass(frozen=True)
class _Said:
    """An event, and for finals the second at which the speech ended."""

    event: dict[str, Any]
    end: float | None = None


class LiveTranscription:
    """Sound in, events out; made by ``Transcriber.stream()``.

    An event is a dictionary of plain values, its times in seconds of the stream:

    - ``{"kind": "partial", "start", "text"}``, from causal models only: what has been understood of the stretch of
      speech that is still going on, by the best unit of each frame; sent when it has changed. An empty text takes the
      last one back: it was no speech after all.
    - ``{"kind": "final", "start", "end", "text", "words"}`` when a stretch is over, as the whole stretch is read
      offline; each word has ``text``, ``start``, ``end`` and ``confidence``. Speech without a pause is cut at
      ``segment.longest``; the words around a cut are held back until what follows has been heard, so that all finals
      together are the words that :meth:`Transcriber.predict` finds in a recording of more than ``longest``.

    Nothing is said about silence. Events are the same however the stream is cut into blocks.

    Args:
        t: a fitted pipeline.
        partials: whether a causal model tells what it understands before a stretch is over.
        rate: of raw samples on standard input, Hz; for :meth:`events` alone, as are those below.
        encoding: of raw samples: s8, u8, s16le, s16be, s24le, s32le or f32le.
        channels: of raw samples.
        realtime: files at the pace at which they would be heard.

    Attributes:
        rate: of the blocks, Hz.

    Raises:
        ConfigError: ways to read out that the model does not have.

    Complexity: O(1) memory: the longest stretch, its words and a block. Work O(samples) beside the search.

    Example:
        >>> from pipelines.transcribe.pipeline import Transcriber
        >>> Transcriber(size="small").stream()
        Traceback (most recent call last):
        pipelines.errors.ConfigError: Transcriber.stream: there is no fitted model. ...
    """

    def __init__(
        self,
        t: Transcriber,
        *,
        partials: bool = True,
        rate: int = 16_000,
        encoding: str = "s16le",
        channels: int = 1,
        realtime: bool = False,
    ) -> None:
        self._fitted, self._segment, self._options = t.state, t.segment, audio_options(t)
        self.rate: int = self._fitted.features.rate
        self._listener = Listener(self._fitted, t.decode)
        self._wanted, self._partials = partials, partials and self._fitted.module.causal
        self._raw = {"rate": rate, "encoding": encoding, "channels": channels}
        self._realtime = realtime
        self._step = max(1, round(STEP_SECONDS * self.rate))
        self._meter = LatencyMeter(self.rate)
        self._warm_up()
        self.reset()

    def _warm_up(self) -> None:
        """Load what loads at the first use (about three seconds), so that the first answer is not late by it."""
        samples = np.random.default_rng(0).normal(0.0, 0.01, self.rate // 2).astype(np.float32)
        Stretches(self.rate, self._segment).push(samples)
        memory, logp = self._listener.frames(samples)
        self._listener.best(memory, logp)
        self._listener.placed(samples, logp, (FIRST_UNIT,))

    def reset(self) -> None:
        """Forget what was heard: the next block begins another stream at second 0."""
        self._stretches = Stretches(self.rate, self._segment)
        self._rest = np.zeros(0, np.float32)
        self._waiting: deque[Piece] = deque()
        self._tail: tuple[list[Word], float] | None = None  # words held back at a cut, and the cut in seconds
        self._growing: tuple[int, int, GrowingText] | None = None  # first sample, samples given, text
        self._shown: tuple[float, str] | None = None  # the last partial of this stretch
        self._offset = self._meter.heard

    def push(self, block: NDArray[np.float32]) -> list[dict[str, Any]]:
        """Take the next samples and give the events that they make.

        Args:
            block: (n,) at :attr:`rate`, of any length.

        Raises:
            InputError: another shape, or values that are not finite.
        """
        return [said.event for said in self._heard(block)]

    def flush(self) -> list[dict[str, Any]]:
        """The stream is over: the last finals; the next block begins another stream at second 0."""
        return [said.event for said in self._ended()]

    # A source from its beginning to its end -------------------------------------------------------------------------

    def events(self, source: str, say: Callable[[str], None] = lambda text: None) -> Iterator[dict[str, Any]]:
        """The events of a whole source, each as soon as it is known.

        Args:
            source: a file; ``-`` for standard input, raw samples or a file; ``mic`` for the microphone.
            say: hears the notes on the sound, in the end.

        Raises:
            InputError: a source that cannot be read.
            ConfigError: no microphone, or standard input is closed.
        """
        self.reset()
        if self._wanted and not self._fitted.module.causal:
            say("note: this model hears a stretch of speech as a whole: no partial texts")
        with self._opened(source) as sound:
            try:
                for block in self._meter.watch(sound):
                    for said in self._heard(block):
                        if said.end is not None:
                            self._meter.answered(self._offset + said.end)
                        yield said.event
            except (KeyboardInterrupt, Interrupted):
                self._tell(sound, say)
                raise
            yield from self.flush()
            self._tell(sound, say)

    def summary(self) -> str:
        """One line on all sources: seconds heard, latency from the end of speech to its text, and the work."""
        return self._meter.summary()

    def _opened(self, source: str) -> LiveSound:
        if source == "mic":
            return from_microphone(self.rate)
        if source == "-":
            stream: Any = None if sys.stdin is None else getattr(sys.stdin, "buffer", sys.stdin)
            return from_standard_input(stream, target_rate=self.rate, options=self._options, **self._raw)
        return from_file(Path(source), rate=self.rate, options=self._options, realtime=self._realtime)

    def _tell(self, sound: LiveSound, say: Callable[[str], None]) -> None:
        for note in sound.notes:
            say(f"note: {sound.source}: {note}")
        steady = self._stretches.steady_seconds
        if steady:
            say(f"note: {sound.source}: {steady:.1f} s of steady noise were passed over")

    # From blocks to events ------------------------------------------------------------------------------------------

    def _heard(self, block: NDArray[np.float32]) -> Iterator[_Said]:
        samples = np.array(block, np.float32)  # a copy: the caller may use its buffer again
        if samples.ndim != 1 or not np.isfinite(samples).all():
            found = "NaN or infinite samples" if samples.ndim == 1 else f"shape {samples.shape}"
            raise InputError("cannot be heard", where="block", found=found, expected="finite samples (n,)")
        self._rest = np.concatenate([self._rest, samples])
        while len(self._rest) >= self._step:
            part, self._rest = self._rest[: self._step], self._rest[self._step :]
            self._waiting += self._stretches.push(part)
            yield from self._finals()
            yield from self._partial()
        self._rest = self._rest.copy()  # not a view that keeps a long block alive

    def _ended(self) -> Iterator[_Said]:
        began = time.perf_counter()
        rest, self._rest = self._rest, self._rest[:0]
        self._waiting += self._stretches.push(rest)
        self._waiting += self._stretches.flush()
        for said in [*self._finals(), *self._tail_said()]:
            if said.end is not None and self._meter.heard:
                # Waiting for the end of a pipe is no latency: only the work since then counts.
                heard = self._meter.heard - self._offset
                self._meter.latency.add(max(heard - said.end, 0.0) + time.perf_counter() - began)
            yield said
        steady = self._stretches.steady_seconds
        self.reset()
        self._stretches.steady_seconds = steady

    def _finals(self) -> Iterator[_Said]:
        """Read the stretches that are over; one whose reading is interrupted stays in the queue."""
        while self._waiting:
            said = self._read(self._waiting[0])
            self._waiting.popleft()
            yield from said

    def _read(self, piece: Piece) -> list[_Said]:
        end = piece.start + len(piece.samples) / self.rate
        words = self._listener.words(piece.samples, piece.start) if len(piece.samples) else []
        said: list[_Said] = []
        if self._tail is not None and len(piece.samples) and piece.start < self._tail[1]:
            words = stitch(self._tail[0], words, (piece.start, self._tail[1])) if self._tail[0] else words
        else:
            said += self._tail_said()
        self._tail, self._growing = None, None
        if piece.forced:
            overlap = end - self._segment.overlap
            inside = next((at for at, word in enumerate(words) if word.end > overlap), len(words))
            kept = max(inside - _LEAD, 0)
            words, self._tail = words[:kept], (words[kept:], end)
        if words:
            said.append(_final(words, end if piece.forced else max(end - self._segment.pad, piece.start)))
        elif not said and not piece.forced and self._shown is not None and self._shown[1]:
            said.append(_Said({"kind": "partial", "start": self._shown[0], "text": ""}))
        self._shown = None
        return said

    def _tail_said(self) -> list[_Said]:
        """What was held back at a cut, where nothing followed that could change it."""
        tail, self._tail = self._tail, None
        return [_final(*tail)] if tail is not None and tail[0] else []

    def _partial(self) -> Iterator[_Said]:
        """What has been understood of the stretch that is going on, where that has changed."""
        stretch = self._stretches.going_on if self._partials else None
        if stretch is None:
            self._growing = None
            return
        begin, sure = stretch
        if self._growing is None or self._growing[0] != begin:
            self._growing = (begin, begin, GrowingText(self._fitted))
        _, given, growing = self._growing
        if sure > given:
            growing.push(self._stretches.between(given, sure))
            self._growing = (begin, sure, growing)
        start = begin / self.rate
        held = [word for word in (self._tail[0] if self._tail else []) if word.end <= start]
        text = " ".join([*(word.text for word in held), *growing.text.split()])
        if text != (self._shown[1] if self._shown else ""):
            self._shown = (_time(held[0].start if held else start), text)
            yield _Said({"kind": "partial", "start": self._shown[0], "text": text})


def _final(words: list[Word], end: float) -> _Said:
    segment = segment_of(words)
    told = [
        {"text": one.text, "start": _time(one.start), "end": _time(one.end), "confidence": one.confidence}
        for one in segment.words
    ]
    times = {"start": _time(segment.start), "end": _time(segment.end)}
    return _Said({"kind": "final", **times, "text": segment.text, "words": told}, end)


def _time(seconds: float) -> float:
    """To the millisecond: a frame is forty."""
    return round(float(seconds), 3)
