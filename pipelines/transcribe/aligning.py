"""Known text to word times: one path through the whole recording, whatever its pauses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.datasets.speech_text import prepare_text
from pipelines.data.formats.audio import read_audio
from pipelines.errors import InputError
from pipelines.transcribe.hearing import Listener, segment_of
from pipelines.transcribe.predict import sources
from pipelines.transcribe.reading import audio_options
from pipelines.transcribe.result import Transcripts
from pipelines.transcribe.words import Transcript

if TYPE_CHECKING:
    from pipelines.transcribe.pipeline import Transcriber

__all__ = ["align_text"]


def align_text(t: Transcriber, inputs: Any, text: str) -> Transcripts:
    """Find the words of a text in a recording; as many words come back as the text has.

    The recording is held in memory, and the cost grows with its length times that of the text: for hours of sound,
    cut it where the text has its paragraphs.

    Raises:
        InputError: several recordings, a text that is empty or has characters that the model does not write, or more
            text than the recording has frames for.
    """
    found, _ = sources(inputs)
    if len(found) != 1:
        raise InputError("a text belongs to one recording", where="inputs", found=f"{len(found)} recordings")
    rate = t.state.features.rate
    audio = read_audio(found[0].sound, rate=rate, options=audio_options(t))
    wanted, notes = _wanted(t, text)
    listener = Listener(t.state, t.decode)
    _, logp = listener.frames(audio.samples)
    words = listener.placed(audio.samples, logp, t.state.units.encode(wanted))
    told = (*audio.notes, *notes)
    item = Transcript(found[0].name, len(audio.samples) / rate, (segment_of(words),), told)

    def sound(_: int, start: float, seconds: float) -> tuple[Any, int]:
        return audio.samples[round(start * rate) : round((start + seconds) * rate)], rate

    return Transcripts([item], t.model, t.provenance(found[0].name), {}, sound, tuple(t.formats))


def _wanted(t: Transcriber, text: str) -> tuple[str, list[str]]:
    """The text as the model writes it, and what was changed."""
    try:
        given = Path(text)
        content = given.read_text(encoding="utf-8") if given.is_file() else text
    except (OSError, ValueError):  # a text too long for a name, or bytes that are no UTF-8
        content = text
    wanted, outside = prepare_text(content, t.state.units.writable)
    if outside:
        listed = ", ".join(f"{character!r} {count}" for character, count in outside.most_common(12))
        raise InputError(
            "the text holds characters that the model does not write",
            where="text",
            found=f"{listed} times",
            cure="spell digits and symbols as they are said",
        )
    if not wanted:
        raise InputError("there is no text", where="text", found=repr(text[:40]), expected="what is said")
    changed = wanted != content.strip()
    return wanted, ["the text was brought to the letters that the model writes"] if changed else []
