"""Unpacking archives that may be damaged or hostile: nothing leaves the folder, nothing grows past a limit.

tarfile's own default and several libraries' extractors follow ``../`` out of the folder, a zip of two megabytes can
hold two gigabytes, and a tar that was cut in the middle reads as a shorter one without a word. Here every name and
size is checked before the first byte is written, sizes again while bytes flow, streams are read to their end so that
their checksums count, and the folder appears only when it is complete.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import pathlib
import re
import secrets
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, BinaryIO, cast

from pipelines.data.errors import InputError

__all__ = ["MAX_BYTES", "MAX_MEMBERS", "bounded_decompress", "extract", "open_member"]

MAX_BYTES = 4 * 1024**3
MAX_MEMBERS = 100_000

_CHUNK = 1 << 20
_BLOCK = 512  # of a tar: headers, padding and the mark at its end
_MAX_HEADER = 1 << 24  # no honest name or attribute list of a tar is longer
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)
_COLLISIONS = (FileExistsError, IsADirectoryError, NotADirectoryError)
_AGAIN = "fetch the file again"


def extract(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
) -> list[pathlib.Path]:
    """Unpack a .tar (plain, .gz, .bz2, .xz) or .zip, told apart by content, into a new or empty folder.

    Args:
        path: the archive.
        folder: appears when everything is unpacked and every checksum is right, not before.
        max_bytes: most bytes that may come out.
        max_members: most files and folders that may come out.

    Returns:
        The files, in the archive's order.

    Raises:
        InputError: no such file, not an archive, damaged or cut; a member whose name leads outside the folder, that
            is a link or a device, stands twice or is encrypted; a limit exceeded; a folder that is not empty.

    Complexity: O(unpacked bytes) time, constant memory beside the list of members.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     with zipfile.ZipFile(f"{base}/a.zip", "w") as archive:
        ...         archive.writestr("tables/a.csv", "date,OT")
        ...     extract(f"{base}/a.zip", f"{base}/new")[0].read_text()
        'date,OT'
    """
    path, folder = _existing(path), pathlib.Path(folder)
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError("the folder to unpack into is there and not empty", where=folder, cure="name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name[:40]}.{secrets.token_hex(4)}.partial")
    unpack = _unpack_zip if zipfile.is_zipfile(path) else _unpack_tar
    try:
        with _explained(path):
            staging.mkdir()
            names = unpack(path, staging, max_bytes, max_members)
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [folder / name for name in names]


def open_member(
    path: str | os.PathLike[str], name: str | None = None, *, max_bytes: int = MAX_BYTES
) -> tuple[str, bytes]:
    """One file of a zip in memory, e.g. a single table; nothing is written.

    Args:
        path: the .zip.
        name: the member, where there are several.
        max_bytes: most bytes that may come out.

    Returns:
        The member's name and its content.

    Raises:
        InputError: not a zip, damaged, encrypted; no or several files and no name; no such member; too large.

    Complexity: O(unpacked bytes) time and memory.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     with zipfile.ZipFile(f"{base}/a.zip", "w") as archive:
        ...         archive.writestr("a.csv", "date,OT")
        ...     open_member(f"{base}/a.zip")
        ('a.csv', b'date,OT')
    """
    path = _existing(path)
    with _explained(path), zipfile.ZipFile(path) as archive:
        files = {info.filename: info for info in archive.infolist() if not info.is_dir() and not _clutter(info)}
        if name is None and len(files) == 1:
            name = next(iter(files))
        if name is None or name not in files:
            listed = ", ".join(list(files)[:6]) + (" ..." if len(files) > 6 else "")
            found = f"{len(files)} files: {listed}" if files else "no file"
            expected = name or "one file"
            raise InputError(
                "which file of the archive is meant is not clear",
                where=path,
                found=found,
                expected=expected,
                cure="unpack it and name the file",
            )
        _check_zip_member(files[name], path)
        with archive.open(files[name]) as stream:
            return name, b"".join(_pieces(stream, max_bytes, path))


def bounded_decompress(path: str | os.PathLike[str], limit: int = MAX_BYTES) -> bytes:
    """Content of a .gz, .bz2 or .xz file, told apart by its first bytes, or of any other file as it is.

    The stream is read to its end, so that the checksum there is compared.

    Args:
        path: the file.
        limit: most bytes that may come out; the stream is left as soon as it is passed.

    Raises:
        InputError: no such file, damaged or cut, or longer than `limit`.

    Complexity: O(unpacked bytes) time, at most `limit` + 1 MiB of memory twice.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     _ = pathlib.Path(base, "a.gz").write_bytes(gzip.compress(b"date,OT"))
        ...     bounded_decompress(f"{base}/a.gz", 100)
        b'date,OT'
    """
    path = _existing(path)
    with _explained(path), _stream(path) as stream:
        return b"".join(_pieces(stream, limit, path))


class _Reader:
    """What tarfile needs of a file, refusing a single read that only an absurd header asks for."""

    def __init__(self, stream: IO[bytes], path: pathlib.Path) -> None:
        self._stream, self._path = stream, path

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise InputError("a header of the archive is absurd", where=self._path, found=f"{size:,} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


class _Budget:
    """Counts what comes out, by what headers claim and by what flows."""

    def __init__(self, path: pathlib.Path, max_bytes: int, max_members: int) -> None:
        self._path, self._bytes, self._members = path, max_bytes, max_members
        self._seen: set[str] = set()
        self._claimed = 0

    def admit(self, name: str, size: int) -> pathlib.PurePosixPath:
        """Check one member's name and claimed size; gives the safe relative path."""
        relative = _safe_name(name, self._path)
        if str(relative) in self._seen and relative.parts:
            raise InputError("a name stands twice in the archive", where=self._path, found=name, cure=_AGAIN)
        self._seen.add(str(relative))
        self._claimed += max(size, 0)
        if size < 0 or self._claimed > self._bytes:
            raise _too_large(self._path, self._bytes)
        if len(self._seen) > self._members:
            raise InputError("too many members", where=self._path, expected=f"at most {self._members:,}")
        return relative


def _unpack_tar(path: pathlib.Path, folder: pathlib.Path, max_bytes: int, max_members: int) -> list[str]:
    budget = _Budget(path, max_bytes, max_members)
    with _stream(path) as stream, tarfile.open(fileobj=cast(IO[bytes], _Reader(stream, path)), mode="r:") as archive:
        for member in archive:
            _check_tar_member(member, path)
            budget.admit(member.name, member.size)
        _check_tar_end(archive, stream, path)
    # A second pass writes: reading headers alone does not tell of a bad name before the first file is out.
    with _stream(path) as stream, tarfile.open(fileobj=cast(IO[bytes], _Reader(stream, path)), mode="r:") as archive:
        names = []
        for member in archive:
            archive.extract(member, folder, filter="data")
            if member.isreg():
                names.append(member.name)
    return names


def _check_tar_member(member: tarfile.TarInfo, path: pathlib.Path) -> None:
    if not (member.isreg() or member.isdir()):
        kind = "a link" if member.issym() or member.islnk() else "a device or special file"
        problem = "holds something that is not a file or a folder"
        raise InputError(problem, where=path, found=f"{member.name}, {kind}", cure="ask its maker for plain files")


def _check_tar_end(archive: tarfile.TarFile, stream: IO[bytes], path: pathlib.Path) -> None:
    """tarfile ends silently at a damaged or cut header: only a block of zeros is the real end."""
    stream.seek(archive.offset)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        found = f"no end mark after {len(archive.getmembers()):,} members"
        raise InputError("truncated or damaged archive", where=path, found=found, cure=_AGAIN)
    for _ in _pieces(stream, _MAX_HEADER, path):  # padding, and the checksum of the compressed stream
        pass


def _unpack_zip(path: pathlib.Path, folder: pathlib.Path, max_bytes: int, max_members: int) -> list[str]:
    budget = _Budget(path, max_bytes, max_members)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            _check_zip_member(member, path)
        relatives = [budget.admit(member.filename, member.file_size) for member in members]
        names, left = [], max_bytes
        for member, relative in zip(members, relatives, strict=True):
            target = folder / relative
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as stream, open(target, "xb") as file:
                for piece in _pieces(stream, left, path):
                    left -= len(piece)
                    file.write(piece)
            names.append(str(relative))
    return names


def _check_zip_member(member: zipfile.ZipInfo, path: pathlib.Path) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "holds something that is not a file or a folder"
        found = f"{member.filename}, a {'link' if kind == stat.S_IFLNK else 'special file'}"
        raise InputError(problem, where=path, found=found, cure="ask its maker for plain files")
    if member.flag_bits & 1:
        cure = "unpack it with its password and give the files"
        raise InputError("the archive is encrypted", where=path, found=member.filename, cure=cure)


def _safe_name(name: str, path: pathlib.Path) -> pathlib.PurePosixPath:
    """The name as a relative path; refused where any system would read it as a place outside the folder."""
    parts = re.split(r"[/\\]", name)
    absolute = name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) is not None
    if absolute or ".." in parts or "\0" in name or not name:
        cure = "do not use this archive: it was made to write outside its folder"
        problem = "a name in the archive leads outside the folder; nothing was unpacked"
        raise InputError(problem, where=path, found=repr(name), cure=cure)
    return pathlib.PurePosixPath(name)


def _clutter(member: zipfile.ZipInfo) -> bool:
    """What the finders of desktops put beside the user's files."""
    return member.filename.startswith("__MACOSX/") or member.filename.rsplit("/", 1)[-1] == ".DS_Store"


def _pieces(stream: IO[bytes], limit: int, path: pathlib.Path) -> Iterable[bytes]:
    count = 0
    while piece := stream.read(_CHUNK):
        count += len(piece)
        if count > limit:
            raise _too_large(path, limit)
        yield piece


def _stream(path: pathlib.Path) -> BinaryIO:
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if magic[:3] == b"BZh":
        return cast(BinaryIO, bz2.open(path, "rb"))
    if magic == b"\xfd7zXZ\x00":
        return cast(BinaryIO, lzma.open(path, "rb"))
    return open(path, "rb")


def _existing(path: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError("no such file", where=path, cure="check the path")
    return path


def _too_large(path: pathlib.Path, limit: int) -> InputError:
    cure = "look inside with a tool of your system; unpack it yourself if you trust it"
    expected = f"at most {limit:,} bytes"
    return InputError("unpacks to more than is allowed", where=path, expected=expected, cure=cure)


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError("damaged, cut, or not an archive", where=path, found=str(error), cure=_AGAIN) from error
    except (ValueError, NotImplementedError, RuntimeError, KeyError, *_COLLISIONS) as error:
        # zipfile and bz2 use the general kinds for damage, unknown methods and names that collide.
        raise InputError("damaged or unsupported archive", where=path, found=str(error), cure=_AGAIN) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError("damaged stream", where=path, found=str(error), cure=_AGAIN) from error
