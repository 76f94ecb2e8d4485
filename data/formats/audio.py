"""Recordings of people: any usual format told apart by content, as one channel of float32 at the rate asked for.

`read_audio` gives a whole recording, `open_audio` its blocks in constant memory, `read_pcm` those of a pipe.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, BinaryIO

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.audio_kind import AUDIO_ENDINGS, Kind, kind_of
from pipelines.data.formats.audio_libsndfile import LibsndfileAudio, Unreadable
from pipelines.data.formats.audio_pcm import ArrayAudio, PcmAudio
from pipelines.data.formats.audio_pyav import ContainerAudio
from pipelines.data.formats.audio_source import SoundFileSource, open_source
from pipelines.data.formats.audio_stream import AudioStream, Stretch
from pipelines.data.formats.audio_types import Audio, AudioFacts, AudioOptions, RawAudio
from pipelines.data.formats.audio_write import write_wav

__all__ = [
    "AUDIO_ENDINGS",
    "Audio",
    "AudioFacts",
    "AudioOptions",
    "AudioStream",
    "find_audio",
    "open_audio",
    "read_audio",
    "read_pcm",
    "write_wav",
]

_DEFAULTS = AudioOptions()


def read_audio(
    source: Any,
    *,
    rate: int | None = None,
    options: AudioOptions = _DEFAULTS,
    start: float = 0.0,
    seconds: float | None = None,
) -> Audio:
    """Read a recording, or a stretch of it, into memory.

    A stretch holds the very samples that the whole would have there; only what is read of the file is checked.

    Args:
        source: a path; bytes; a file open for reading bytes; or (samples, rate) with samples (n,) or (n, channels),
            whole numbers of 8 to 32 bits (divided by their range) or floats.
        rate: Hz; None keeps the recording's own.
        options: channel, what is accepted, limit of time.
        start: seconds from the beginning.
        seconds: how many; None up to the end.

    Returns:
        Samples (n,) float32, and what was done to them, counted, in `notes`.

    Raises:
        InputError: no such file, not sound, no samples, damaged, cut short, encrypted, samples that are no numbers,
            too long, or arguments that cannot be.

    Complexity: O(n) time and memory; an end far in the file costs decoding up to there where the format cannot seek.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_wav(f"{folder}/a.wav", np.full((800, 2), 0.25), 8000)
        ...     audio = read_audio(f"{folder}/a.wav", rate=16000)
        >>> audio.samples.shape, audio.rate, audio.facts.encoding, audio.notes[0]
        ((1600,), 16000, 'PCM_16', '2 channels mixed to one: their mean')
    """
    stretch = Stretch(start, seconds)
    # Blocks of a second at least: a short stretch must not decode much more than itself.
    length = 10.0 if seconds is None else min(10.0, max(1.0, seconds))
    with _stream(_opened(source, options), rate, options, length, stretch) as stream:
        blocks = list(stream)
        samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return Audio(np.ascontiguousarray(samples), stream.rate, stream.source, stream.facts, stream.notes)


def open_audio(
    source: Any, *, rate: int | None = None, options: AudioOptions = _DEFAULTS, block_seconds: float = 10.0
) -> AudioStream:
    """Open a recording to read it block by block in constant memory; use it in a `with` statement.

    Args:
        source: as `read_audio`.
        rate: Hz; None keeps the recording's own.
        options: channel, what is accepted, limit of time.
        block_seconds: length of every block but the last.

    Returns:
        An object that gives blocks (n,) float32 once, with `rate`, `facts`, `source`, `position` and `notes`.

    Raises:
        InputError: as `read_audio`; what lies within the file shows when its block is read.

    Complexity: O(1) memory; MP3 and Ogg are read through once for damage before the first block.

    Example:
        >>> with open_audio((np.zeros(30000, np.int16), 10000), block_seconds=2) as stream:
        ...     [len(block) for block in stream], stream.position, stream.notes
        ([20000, 10000], 3.0, ('silence: no sample above -90 dB',))
    """
    return _stream(_opened(source, options), rate, options, block_seconds, Stretch())


def read_pcm(
    stream: BinaryIO,
    *,
    rate: int,
    encoding: str = "s16le",
    channels: int = 1,
    options: AudioOptions = _DEFAULTS,
    target_rate: int | None = None,
    block_seconds: float = 0.1,
) -> AudioStream:
    """Read raw samples without a header from a pipe, as they come, in constant memory and without a limit of time.

    Args:
        stream: open for reading bytes, such as `sys.stdin.buffer`; it is not closed.
        rate: of the samples, Hz.
        encoding: s8, u8, s16le, s16be, s24le, s32le or f32le.
        channels: that alternate.
        options: the channel.
        target_rate: of the blocks, Hz; None for the same.
        block_seconds: how much is waited for at a time; what can be made of it is given at once.

    Raises:
        InputError: an argument that cannot be; while iterating, no samples at all, or some that are no numbers.

    Complexity: O(1) memory.

    Example:
        >>> import io
        >>> pipe = read_pcm(io.BytesIO(bytes(6401)), rate=16000)
        >>> [len(block) for block in pipe], pipe.notes[0]
        ([1600, 1600], '1 byte at the end is no whole sample: left out')
    """
    raw = PcmAudio(stream, rate=rate, encoding=encoding, channels=channels)
    return _stream(raw, target_rate, options, block_seconds, Stretch())


def find_audio(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Files of a folder, and of the folders in it, whose names end like sound; hidden ones are left out.

    Returns:
        Paths in order of their names; none where there are none.

    Raises:
        InputError: no such folder, a file, no permission.

    Complexity: O(files).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.WAV", "a.flac", "notes.txt"):
        ...         pathlib.Path(folder, name).touch()
        ...     [path.name for path in find_audio(folder)]
        ['a.flac', 'b.WAV']
    """
    base = pathlib.Path(folder).expanduser()
    if not base.is_dir():
        problem = "is a file" if base.exists() else "no such folder"
        raise InputError(problem, where=base, expected="a folder with recordings", cure="check the path")

    def failed(error: OSError) -> None:
        cure = "change its permissions"
        raise InputError("cannot be looked into", where=error.filename, found=error.strerror, cure=cure)

    found: list[pathlib.Path] = []
    for place, folders, names in os.walk(base, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [pathlib.Path(place, name) for name in names if _is_audio_name(name)]
    return sorted(found)


def _is_audio_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(AUDIO_ENDINGS)


def _stream(raw: RawAudio, rate: int | None, options: AudioOptions, length: float, stretch: Stretch) -> AudioStream:
    try:
        return AudioStream(raw, rate=rate, options=options, block_seconds=length, stretch=stretch)
    except BaseException:
        raw.close()
        raise


def _opened(source: Any, options: AudioOptions) -> RawAudio:
    if isinstance(source, tuple) and len(source) == 2:
        return ArrayAudio(*source)
    opened = open_source(source)
    try:
        kind = kind_of(opened)
        raw = _reader(opened, kind, options)
    except BaseException:
        opened.close()
        raise
    if opened.ending and opened.ending not in kind.endings:
        raw.notes.append(f"the name says {opened.ending}, the content is {kind.name}")
    return raw


def _reader(source: SoundFileSource, kind: Kind, options: AudioOptions) -> RawAudio:
    if kind.by_libsndfile:
        try:
            return LibsndfileAudio(source, kind, options)
        except Unreadable as reason:
            if kind.demuxer is None:
                where, cure = source.name, "export it as WAV or FLAC"
                raise InputError("the sound cannot be decoded", where=where, found=reason, cure=cure) from None
    return ContainerAudio(source, kind, options)
