"""From recordings to transcripts, a block of sound at a time: memory does not grow with the length of a recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import UserError
from pipelines.data.formats.audio import find_audio, open_audio, read_audio
from pipelines.errors import InputError
from pipelines.transcribe.hearing import Listener, segment_of
from pipelines.transcribe.reading import audio_options, corpus_of
from pipelines.transcribe.result import Transcripts
from pipelines.transcribe.segments import Piece, Segmenter, stitch
from pipelines.transcribe.words import Segment, Transcript

if TYPE_CHECKING:
    from pipelines.transcribe.pipeline import Transcriber

__all__ = ["Source", "predict", "sources", "transcript_of"]

_BLOCK = 10.0


@dataclasses.dataclass(frozen=True)
class Source:
    """One recording: its name, and a path or (samples, rate)."""

    name: str
    sound: Any


def sources(inputs: Any) -> tuple[list[Source], bool]:
    """What a user calls recordings: a path, a folder, (samples, rate), a sequence of these, an embedded set.

    Returns:
        the recordings, and whether a damaged one is left out (of a folder) or ends the call.

    Raises:
        InputError: an empty folder, or nothing that is a recording.

    Example:
        >>> sources((np.zeros(800, np.float32), 8000))[0][0].name
        'recording'
    """
    from pipelines.data.catalog import is_name

    if isinstance(inputs, tuple) and len(inputs) == 2 and np.ndim(inputs[0]) >= 1 and np.ndim(inputs[1]) == 0:
        return [Source("recording", inputs)], False
    if isinstance(inputs, str) and not Path(inputs).exists() and is_name(inputs, "transcribe"):
        return [Source(one.source.name, one.source) for one in corpus_of(inputs).part("test").utterances], False
    if isinstance(inputs, (str, Path)):
        path = Path(inputs)
        if not path.is_dir():
            return [Source(path.name, path)], False
        found = find_audio(path)
        return [Source(one.relative_to(path).as_posix(), one) for one in found], True
    if isinstance(inputs, Sequence) and len(inputs):
        several = [source for one in inputs for source in sources(one)[0]]
        names: dict[str, int] = {}
        named = []
        for source in several:
            names[source.name] = names.get(source.name, 0) + 1
            count = names[source.name]
            named.append(source if count == 1 else dataclasses.replace(source, name=f"{count}-{source.name}"))
        return named, False
    raise InputError(
        "not a recording",
        where="inputs",
        found=type(inputs).__name__,
        expected="a path, a folder, (samples, rate), or a sequence of these",
    )


def predict(t: Transcriber, inputs: Any) -> Transcripts:
    """Transcribe every recording.

    Raises:
        InputError: a recording that cannot be read, or none of a folder can.
    """
    found, lenient = sources(inputs)
    listener = Listener(t.state, t.decode)
    items: list[Transcript] = []
    kept: list[Source] = []
    failures: dict[str, str] = {}
    for source in found:
        try:
            items.append(transcript_of(t, listener, source))
            kept.append(source)
        except UserError as error:
            if not lenient:
                raise
            failures[source.name] = str(error)
    if not items:
        raise InputError("no recording of this folder can be read", where=inputs, found=" ".join(failures.values()))
    rate, options = t.state.features.rate, audio_options(t)

    def sound(index: int, start: float, seconds: float) -> tuple[NDArray[np.float32], int]:
        audio = read_audio(kept[index].sound, rate=rate, options=options, start=start, seconds=seconds)
        return audio.samples, rate

    return Transcripts(
        items,
        t.model,
        t.provenance(found[0].name if len(found) == 1 else f"{len(found)} recordings"),
        failures,
        sound,
        tuple(t.formats),
        lenient or len(found) > 1,
    )


def transcript_of(t: Transcriber, listener: Listener, source: Source) -> Transcript:
    """The transcript of one recording.

    A recording no longer than ``segment.longest`` is heard in one go, from its first speech to its last; longer ones
    in the stretches between pauses. Memory: a few stretches, and the words.
    """
    rate = t.state.features.rate
    with open_audio(source.sound, rate=rate, options=audio_options(t), block_seconds=_BLOCK) as stream:
        progress, total = t.run.progress, stream.facts.seconds
        if progress is None or total is None or total < 60:
            segments = list(_segments(t, listener, stream, rate))
        else:
            with progress.bar(source.name, round(total)) as bar:
                segments = list(_segments(t, listener, _counted(stream, bar, rate), rate))
        seconds, notes = stream.position, stream.notes
    return Transcript(source.name, seconds, tuple(segments), tuple(notes))


def _counted(stream: Any, bar: Any, rate: int) -> Iterator[NDArray[np.float32]]:
    for block in stream:
        yield block
        bar.advance(round(len(block) / rate))


def _segments(t: Transcriber, listener: Listener, blocks: Any, rate: int) -> Iterator[Segment]:
    """Segments with text, in the order of time; stretches that were cut for their length are joined again."""
    last: Segment | None = None
    cut_until: float | None = None
    for piece in _pieces(t, blocks, rate):
        words = listener.words(piece.samples, piece.start)
        if last is not None and cut_until is not None:
            words = stitch(last.words, words, (piece.start, cut_until))
        elif last is not None:
            yield last
        last = segment_of(words) if words else None
        cut_until = piece.start + len(piece.samples) / rate if piece.forced else None
    if last is not None:
        yield last


def _pieces(t: Transcriber, blocks: Any, rate: int) -> Iterator[Piece]:
    """Stretches of speech; one for all of a short recording."""
    segmenter = Segmenter(rate, t.segment)
    heard: list[NDArray[np.float32]] | None = []
    waiting: list[Piece] = []
    limit = int(t.segment.longest * rate)
    for block in blocks:
        waiting += segmenter.push(block)
        if heard is not None:
            heard.append(block)
            if sum(map(len, heard)) > limit:
                heard = None
        if heard is None:
            yield from waiting
            waiting = []
    waiting += segmenter.flush()
    if heard is None or len(waiting) < 2:
        yield from waiting
        return
    first = round(waiting[0].start * rate)
    end = round(waiting[-1].start * rate) + len(waiting[-1].samples)
    yield Piece(waiting[0].start, np.concatenate(heard)[first:end], False)
