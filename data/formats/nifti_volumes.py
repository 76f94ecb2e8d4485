"""Where the stored numbers of a scan are read from: a plain file, an unnamed temporary one, memory, or an array."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pathlib
import tempfile
import threading
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_header import Header

__all__ = ["ArrayVolumes", "FileVolumes", "MemoryVolumes", "Sink", "SpooledVolumes", "human", "plain_volumes", "sink"]

#: Bytes of a compressed scan that stay in memory once unpacked; longer ones go to the disk.
IN_MEMORY = 64 << 20
#: Bytes that all such scans of a process may take together.
ALL_IN_MEMORY = 512 << 20


def human(size: float) -> str:
    """Bytes in words.

    Example:
        >>> human(1536), human(3 << 30)
        ('1.5 KiB', '3.0 GiB')
    """
    if size < 1024:
        return f"{size:,.0f} bytes"
    units = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(len(units), int(math.log2(size) // 10))
    return f"{size / 1024**power:,.1f} {units[power - 1]}"


def read_at(handle: int, header: Header, place: int, name: str) -> NDArray[Any]:
    """One stored volume (x, y, z) from a byte of an open file, without moving its position: workers may share it."""
    buffer = np.empty(header.voxels, header.dtype)
    view, done = memoryview(buffer.view(np.uint8)), 0  # pyright: ignore[reportArgumentType]
    while done < len(view):
        try:
            got = os.preadv(handle, [view[done:]], place + done)
        except OSError as error:
            raise InputError("cannot be read", where=name, found=error.strerror, cure="check the disk") from error
        if got == 0:
            cure = "open it again when nothing writes to it"
            raise InputError("the file became shorter while it was open", where=name, cure=cure)
        done += got
    return buffer.reshape(header.shape[:3], order="F")


class FileVolumes:
    """Volumes of a plain file, opened for each read: any number of scans may be held open.

    Raises:
        InputError: on reading, a file that vanished or changed since.
    """

    def __init__(self, path: pathlib.Path, name: str, header: Header) -> None:
        self.path, self.name, self.header = path, name, header
        self._mark = self._state(os.stat(path))
        self._closed = False

    @staticmethod
    def _state(stat: os.stat_result) -> tuple[int, int]:
        return stat.st_size, stat.st_mtime_ns

    def volume(self, index: int) -> NDArray[Any]:
        """One volume (x, y, z) as stored."""
        _check_open(self._closed, self.name)
        try:
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise InputError("cannot be read any more", where=self.name, found=error.strerror) from error
        try:
            if self._state(os.fstat(handle)) != self._mark:
                cure = "open it again when nothing writes to it"
                raise InputError("the file changed while it was open", where=self.name, cure=cure)
            place = self.header.offset + index * self.header.voxels * self.header.dtype.itemsize
            return read_at(handle, self.header, place, self.name)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Nothing is held; reading after it is an error."""
        self._closed = True


class SpooledVolumes:
    """Volumes that were unpacked into a temporary file without a name, which vanishes with the last handle.

    Processes forked later may read it; it cannot be pickled.
    """

    def __init__(self, file: IO[bytes], name: str, header: Header) -> None:
        self.file, self.name, self.header = file, name, header

    def volume(self, index: int) -> NDArray[Any]:
        """One volume (x, y, z) as stored."""
        _check_open(self.file.closed, self.name)
        place = index * self.header.voxels * self.header.dtype.itemsize
        return read_at(self.file.fileno(), self.header, place, self.name)

    def close(self) -> None:
        """Close the file, which frees its room on the disk."""
        self.file.close()


class MemoryVolumes:
    """Volumes of a short compressed scan, unpacked in memory."""

    def __init__(self, content: bytearray, name: str, header: Header) -> None:
        self.content: bytearray | None = content
        self.name, self.header = name, header
        self._share = _Share(len(content))

    def volume(self, index: int) -> NDArray[Any]:
        """One volume (x, y, z) as stored; a view."""
        _check_open(self.content is None, self.name)
        header = self.header
        place = index * header.voxels * header.dtype.itemsize
        flat = np.frombuffer(self.content or b"", header.dtype, header.voxels, place)
        return flat.reshape(header.shape[:3], order="F")

    def close(self) -> None:
        """Give the memory back."""
        self.content = None
        self._share.give_back()


class _Share:
    """A part of the memory that unpacked scans may take; given back once, at the latest when it is collected."""

    taken = 0
    lock = threading.Lock()

    def __init__(self, size: int) -> None:
        self.size = size
        with _Share.lock:
            _Share.taken += size

    def give_back(self) -> None:
        with _Share.lock:
            _Share.taken -= self.size
            self.size = 0

    def __del__(self) -> None:
        self.give_back()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Share, (self.size,))


class ArrayVolumes:
    """Volumes of an array or of nibabel's `dataobj` (x, y, z[, t]), sliced when asked for."""

    def __init__(self, data: Any, name: str, shape: tuple[int, ...]) -> None:
        self.data: Any = data
        self.name, self.shape = name, shape

    def volume(self, index: int) -> NDArray[Any]:
        """One volume (x, y, z); values, not stored numbers, where `dataobj` scales them."""
        _check_open(self.data is None, self.name)
        values = self.data[:, :, :, index] if len(self.data.shape) > 3 else self.data
        return np.asarray(values).reshape(self.shape[:3])

    def close(self) -> None:
        """Forget the array."""
        self.data = None


def _check_open(closed: bool, name: str) -> None:
    if closed:
        raise InputError("the scan was closed", where=name, cure="open it again")


def plain_volumes(path: pathlib.Path, name: str, header: Header) -> tuple[FileVolumes, tuple[str, ...]]:
    """Volumes of a file that is not compressed, whose length must hold all of them; and notes.

    Raises:
        InputError: the file ends before its last volume.

    Complexity: O(1).
    """
    there = path.stat().st_size - header.offset
    if there < header.nbytes:
        raise cut_short(name, header, there)
    return FileVolumes(path, name, header), left_over(header, there - header.nbytes)


def cut_short(name: str, header: Header, there: int, what: str = "the file ends before its last volume") -> InputError:
    """The error of a file with fewer bytes than its header says, which counts the volumes that are whole."""
    each = header.voxels * header.dtype.itemsize
    sizes = " x ".join(map(str, header.shape))
    need = header.offset + header.nbytes
    return InputError(
        what,
        where=name,
        found=f"{human(max(0, there + header.offset))}, {max(0, there) // each:,} whole volumes of {header.volumes:,}",
        expected=f"{human(need)} for {sizes} {header.dtype.name}",
        cure="copy or download the file again",
    )


def left_over(header: Header, extra: int) -> tuple[str, ...]:
    """A note on bytes behind the last volume."""
    if extra <= 0:
        return ()
    each = header.voxels * header.dtype.itemsize
    volumes = f", as long as {extra // each:,} volumes," if extra >= each else ""
    return (f"{extra:,} bytes after the last volume{volumes} were left out",)


class Sink(Protocol):
    """Where unpacked voxels go."""

    def write(self, content: bytes) -> None:
        """Take the next bytes."""
        ...

    def volumes(self) -> MemoryVolumes | SpooledVolumes:
        """All bytes are there: the volumes."""
        ...

    def drop(self) -> None:
        """Give up what was taken."""
        ...


def sink(name: str, header: Header, cache: pathlib.Path | None) -> Sink:
    """A place for a scan's voxels: memory for short ones, else an unnamed file in `cache` or the temporary folder.

    Raises:
        InputError: no room there, or no right to write.
    """
    if header.nbytes < IN_MEMORY and _Share.taken + header.nbytes <= ALL_IN_MEMORY:
        return _MemorySink(name, header)
    return _FileSink(name, header, pathlib.Path(tempfile.gettempdir()) if cache is None else cache)


class _MemorySink:
    def __init__(self, name: str, header: Header) -> None:
        self.name, self.header, self.content = name, header, bytearray()

    def write(self, content: bytes) -> None:
        self.content += content

    def volumes(self) -> MemoryVolumes:
        return MemoryVolumes(self.content, self.name, self.header)

    def drop(self) -> None:
        self.content = bytearray()


class _FileSink:
    def __init__(self, name: str, header: Header, folder: pathlib.Path) -> None:
        self.name, self.header, self.folder = name, header, folder
        try:
            stat = os.statvfs(folder)
            if stat.f_bavail * stat.f_frsize < header.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.file = self._open()
        except OSError as error:
            raise self._explained(error) from error

    def _open(self) -> IO[bytes]:
        try:
            return tempfile.TemporaryFile(dir=self.folder)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            # Each long compressed scan holds one handle; what the system allows is often far above the usual 1,024.
            import resource

            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return tempfile.TemporaryFile(dir=self.folder)

    def write(self, content: bytes) -> None:
        try:
            self.file.write(content)
        except OSError as error:
            self.drop()
            raise self._explained(error) from error

    def volumes(self) -> SpooledVolumes:
        try:
            self.file.flush()
        except OSError as error:
            self.drop()
            raise self._explained(error) from error
        return SpooledVolumes(self.file, self.name, self.header)

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self.file.close()

    def _explained(self, error: OSError) -> InputError:
        free = math.nan
        with contextlib.suppress(OSError):
            stat = os.statvfs(self.folder)
            free = stat.f_bavail * stat.f_frsize
        return InputError(
            f"cannot be unpacked into {self.folder} ({error.strerror})",
            where=self.name,
            found=f"{human(free)} free" if free == free else "no such folder",
            expected=f"{human(self.header.nbytes)} free and the right to write there",
            cure="free some space, name another folder (cache=, or TMPDIR), or unpack the file yourself (gunzip)",
        )
