"""What comes down standard input: raw samples, a WAV file while it is being written, or another file of sound."""

from __future__ import annotations

import struct
import time
from typing import BinaryIO, cast

from pipelines.data.formats.audio import AudioOptions, read_pcm
from pipelines.errors import InputError
from pipelines.transcribe.live import BLOCK_SECONDS, LiveSound, from_file, from_pipe

__all__ = ["from_standard_input"]

_NAME = "standard input"
#: Beginnings of other files of sound, which are read when they have come as a whole.
_FILES = (b"fLaC", b"OggS", b"ID3", b"FORM", b"RIFF", b"RF64", b"BW64", b"RIFX", b"caff")
#: Sizes that programs write where they do not know it.
_OPEN_ENDED = 0x7FFF0000
_LONGEST_HEADER = 1 << 20
_WAIT = 0.01
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_ENCODINGS = {(_PCM, 8): "u8", (_PCM, 16): "s16le", (_PCM, 24): "s24le", (_PCM, 32): "s32le", (_FLOAT, 32): "f32le"}


class _Rejoined:
    """Bytes that were looked at, then the rest of the stream; at most so many, where a header says how many."""

    name = _NAME

    def __init__(self, seen: bytes, stream: BinaryIO, limit: int | None = None) -> None:
        self._seen, self._stream, self.left = seen, stream, limit

    def read(self, count: int = -1) -> bytes | None:
        """As files do; None where a pipe that does not block has nothing yet."""
        if self.left is not None:
            count = self.left if count < 0 else min(count, self.left)
        if self._seen:
            part = self._seen if count < 0 else self._seen[:count]
            self._seen = self._seen[len(part) :]
        else:
            part = self._stream.read(count)
        if self.left is not None and part:
            self.left -= len(part)
        return part


def from_standard_input(
    stream: BinaryIO | None,
    *,
    target_rate: int,
    options: AudioOptions,
    rate: int = 16_000,
    encoding: str = "s16le",
    channels: int = 1,
) -> LiveSound:
    """Blocks of what comes down a pipe.

    Uncompressed WAV tells its own rate, encoding and channels, and is heard as it comes. Other files of sound that
    are told by their first bytes (FLAC, Ogg, MP3 with a tag, AIFF, CAF) are read when they have come as a whole;
    everything else is raw samples.

    Args:
        stream: open for reading bytes; None where standard input is closed.
        target_rate: of the blocks, Hz.
        options: which channel.
        rate, encoding, channels: of raw samples.

    Raises:
        ConfigError: standard input is closed.
        InputError: an encoding, rate or number of channels that cannot be, or a damaged file.

    Complexity: O(1) memory.

    Example:
        >>> import io
        >>> pipe = io.BytesIO(bytes(3200))
        >>> with from_standard_input(pipe, target_rate=8000, options=AudioOptions(), rate=8000) as sound:
        ...     [len(block) for block in sound]
        [800, 800]
    """
    if stream is None:
        return from_pipe(None, rate)
    head = _exactly(stream, 12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return _wav(head, stream, target_rate, options)
    joined = _Rejoined(head, stream)
    if head.startswith(_FILES):
        return from_file(joined, rate=target_rate, options=options)
    return from_pipe(cast(BinaryIO, joined), rate, encoding, channels, target_rate=target_rate, options=options)


def _wav(head: bytes, stream: BinaryIO, target_rate: int, options: AudioOptions) -> LiveSound:
    """Read chunks up to the sound; a layout that is not plain samples is left to the readers of files."""
    seen, layout = bytearray(head), b""
    while len(seen) < _LONGEST_HEADER:
        chunk = _exactly(stream, 8)
        seen += chunk
        if len(chunk) < 8:
            break
        name, (size,) = chunk[:4], struct.unpack("<I", chunk[4:])
        if name == b"data":
            found = _layout(layout)
            if found is None:
                break
            return _plain(stream, size, found, target_rate, options)
        content = _exactly(stream, min(size + size % 2, _LONGEST_HEADER))
        seen += content
        layout = content if name == b"fmt " else layout
    return from_file(_Rejoined(bytes(seen), stream), rate=target_rate, options=options)


def _plain(
    stream: BinaryIO, size: int, layout: tuple[str, int, int], target_rate: int, options: AudioOptions
) -> LiveSound:
    encoding, channels, rate = layout
    known = 0 < size < _OPEN_ENDED
    source = _Rejoined(b"", stream, size if known else None)
    opened = read_pcm(
        cast(BinaryIO, source),
        rate=rate,
        encoding=encoding,
        channels=channels,
        options=options,
        target_rate=target_rate,
        block_seconds=BLOCK_SECONDS,
    )

    def remarks() -> list[str]:
        told = "1 channel" if channels == 1 else f"{channels} channels"
        missing = [f"{source.left:,} bytes that the WAV header promises did not come"] if source.left else []
        return [f"a WAV header: {rate} Hz, {encoding}, {told}", *missing]

    return LiveSound(opened, more_notes=remarks)


def _layout(content: bytes) -> tuple[str, int, int] | None:
    """(encoding, channels, rate) of a WAV's format chunk, where it is plain samples."""
    if len(content) < 16:
        return None
    kind, channels, rate, _, block, bits = struct.unpack("<HHIIHH", content[:16])
    if kind == _EXTENSIBLE and len(content) >= 26:
        (kind,) = struct.unpack("<H", content[24:26])
    encoding = _ENCODINGS.get((kind, bits))
    return None if encoding is None or block * 8 != bits * channels else (encoding, channels, rate)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    """So many bytes, or fewer at the end of the stream."""
    content = bytearray()
    while len(content) < count:
        try:
            part = stream.read(count - len(content))
        except (OSError, ValueError) as error:
            raise InputError("cannot be read", where=_NAME, found=error) from None
        if part is None:  # a pipe that does not block has nothing yet
            time.sleep(_WAIT)
            continue
        if isinstance(part, str):
            raise InputError("gives text", where=_NAME, expected="raw bytes", cure="pass sys.stdin.buffer")
        if not part:
            break
        content += part
    return bytes(content)
