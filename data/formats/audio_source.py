"""Where a recording comes from: a path, bytes or an open file, checked and opened for reading."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

from pipelines.data.errors import InputError

__all__ = ["PartOfFile", "SoundFileSource", "open_source", "remembered"]

_Found = TypeVar("_Found")
_MOST_REMEMBERED = 4096


@dataclasses.dataclass
class SoundFileSource:
    """An open, seekable file.

    Attributes:
        name: for messages about the content.
        file: open for reading; its place is where the last user left it.
        size: bytes.
        ending: of the name, in lower case with its dot; "" where there is none.
        stamp: what tells this content from others: path, size and time; None for bytes.
        owned: close it at the end.
    """

    name: str
    file: BinaryIO
    size: int
    ending: str = ""
    stamp: tuple[str, int, int] | None = None
    owned: bool = True

    def head(self, count: int, start: int = 0) -> bytes:
        """Up to `count` bytes from a place."""
        self.file.seek(start)
        return self.file.read(count)

    def close(self) -> None:
        """Close the file if it was opened here."""
        if self.owned:
            self.file.close()


def open_source(source: object) -> SoundFileSource:
    """Open a path, bytes, or a binary file.

    A file object in memory or on the disk that stands at its beginning is read where it is; another one (a pipe, a
    member of an archive) is first copied to a temporary file, because decoders move about in what they read.

    Raises:
        InputError: no such file, a folder, a device, no permission, empty, or an object of another type.

    Complexity: O(1); O(size) time and disk for a file object that cannot be read in place.

    Example:
        >>> open_source(b"RIFF....WAVE").size
        12
    """
    if isinstance(source, str | os.PathLike):
        return _opened_path(pathlib.Path(os.fspath(cast(Any, source))))
    if isinstance(source, bytes | bytearray | memoryview):
        opened = SoundFileSource("the given bytes", io.BytesIO(bytes(source)), len(source))
    elif callable(getattr(source, "read", None)):
        opened = _opened_object(cast(BinaryIO, source))
    else:
        expected = "a path, (samples, rate), bytes or a file open for reading bytes"
        raise InputError("cannot be read as sound", where="source", found=type(source).__name__, expected=expected)
    if opened.size == 0:
        opened.close()
        raise InputError("there are no bytes", where=opened.name, expected="a recording")
    return opened


def _opened_path(path: pathlib.Path) -> SoundFileSource:
    path = path.expanduser()
    try:
        if path.is_dir():
            cure = "name its files, or read all with find_audio"
            raise InputError("is a folder", where=path, expected="a sound file", cure=cure)
        if not os.path.lexists(path):
            raise InputError("no such file", where=path, cure=_near(path))
        if not path.exists():
            raise InputError("is a link to a file that does not exist", where=path, cure="mend the link")
        if not path.is_file():
            cure = "pipe raw samples into `pipelines transcribe stream -`, or save to a file first"
            raise InputError("is not a regular file", where=path, expected="a file on disk", cure=cure)
        if path.stat().st_size == 0:
            cure = "copy or record it again"
            raise InputError("the file is empty", where=path.name, found="0 bytes", expected="a recording", cure=cure)
        file = path.open("rb")
    except PermissionError:
        cure = "change its permissions"
        raise InputError("may not be read", where=path, expected="a readable file", cure=cure) from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("cannot be opened", where=path, found=getattr(error, "strerror", None) or error) from None
    status = os.fstat(file.fileno())
    stamp = (os.path.realpath(path), status.st_size, status.st_mtime_ns)
    return SoundFileSource(path.name, file, status.st_size, path.suffix.lower(), stamp)


def _opened_object(file: BinaryIO) -> SoundFileSource:
    given = getattr(file, "name", None)
    name = pathlib.Path(given).name if isinstance(given, str) and given else "the given file"
    ending = pathlib.Path(name).suffix.lower()
    if isinstance(file, io.BytesIO | io.BufferedReader) and file.seekable() and file.tell() == 0:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return SoundFileSource(name, file, size, ending, owned=False)
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - closed with the source
    try:
        shutil.copyfileobj(file, copy)
    except (TypeError, UnicodeDecodeError):
        copy.close()
        cure = 'open it with mode "rb"'
        raise InputError("gives text", where=name, expected="a file open for reading bytes", cure=cure) from None
    except (OSError, ValueError) as error:
        copy.close()
        raise InputError("cannot be read", where=name, found=error) from None
    size = copy.seek(0, os.SEEK_END)
    copy.seek(0)
    return SoundFileSource(name, copy, size, ending)


def _near(path: pathlib.Path) -> str:
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(other.name for other in path.parent.iterdir())[:8] if path.parent.is_dir() else []
    return f"the folder holds {', '.join(names)}" if names else "check the path"


class PartOfFile(io.RawIOBase):
    """Some bytes of a file as if they were all, perhaps with others in places: what a decoder may see of it.

    Args:
        file: seekable; its place is moved.
        size: how many bytes there seem to be.
        replaced: place and bytes that stand there instead.
        begin: where in the file they begin.

    Example:
        >>> part = PartOfFile(io.BytesIO(b"abcdefgh"), 6, (2, b"XY"))
        >>> part.read(4), part.read(), part.seek(-1, os.SEEK_END), part.seek(-1)
        (b'abXY', b'ef', 5, 0)
    """

    def __init__(self, file: BinaryIO, size: int, replaced: tuple[int, bytes] = (0, b""), begin: int = 0) -> None:
        super().__init__()
        self._file, self._size, self._replaced, self._begin = file, size, replaced, begin
        self._place = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place, at least 0: damaged headers send decoders before it, which io.BytesIO would not bear."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer from the current place on."""
        target = memoryview(buffer).cast("B")
        count = max(0, min(len(target), self._size - self._place))
        self._file.seek(self._begin + self._place)
        content = bytearray(self._file.read(count))
        start, new = self._replaced
        for offset, value in enumerate(new, start - self._place):
            if 0 <= offset < len(content):
                content[offset] = value
        target[: len(content)] = content
        self._place += len(content)
        return len(content)


def remembered(scan: Callable[[SoundFileSource], _Found]) -> Callable[[SoundFileSource], _Found]:
    """Keep what a scan of a file on the disk found: of some, many stretches of a few seconds are read one by one.

    Example:
        >>> remembered(lambda source: source.size)(open_source(b"1234"))
        4
    """
    known: dict[tuple[str, int, int], _Found] = {}

    def scanned(source: SoundFileSource) -> _Found:
        if source.stamp is None:
            return scan(source)
        if source.stamp not in known:
            if len(known) >= _MOST_REMEMBERED:
                known.clear()
            known[source.stamp] = scan(source)
        return known[source.stamp]

    return scanned
