"""Bytes of a document: read and unpacked up to a limit, and what they are when they are no text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pathlib
import re
import zlib
from typing import IO, cast

from pipelines.data.errors import InputError

__all__ = ["refuse_binary", "stored_bytes", "unpacked"]

_CHUNK = 1 << 20
_AGAIN = "copy or fetch the file again"
_PACKED = (
    (b"\x1f\x8b", "gzip", (".gz",)),
    (b"BZh", "bzip2", (".bz2",)),
    (b"\xfd7zXZ\x00", "xz", (".xz",)),
)
#: First bytes of what people have beside their documents. Text never begins so.
_FOREIGN = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"RIFF", "sound, film or a WebP image"),
    (b"OggS", "Ogg sound"),
    (b"fLaC", "FLAC sound"),
    (b"ID3", "MP3 sound"),
    (b"\x1aE\xdf\xa3", "a Matroska film"),
    (b"\x1f\x8b", "gzip inside of what was unpacked"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a", "a rar archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1", "a Parquet table"),
    (b"SQLite format 3\0", "a database"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\0", "a program"),
    (b"\xca\xfe\xba\xbe", "a compiled class or program"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Word, Excel or PowerPoint file"),
    (b"{\\rtf", "Rich Text"),
    (b"%!PS", "PostScript"),
    (b"wOFF", "a font"),
)
_ZIPS = (
    (b"word/", "a Word document"),
    (b"xl/", "an Excel workbook"),
    (b"ppt/", "a PowerPoint file"),
    (b"opendocument", "an OpenDocument file"),
    (b"epub", "an EPUB book"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_LOOKED_AT = 1 << 16


def stored_bytes(path: pathlib.Path, limit_mb: float) -> bytes:
    """Content of a file of at most `limit_mb` (2**20 bytes each).

    Raises:
        InputError: missing, a folder or no regular file, unreadable, or larger.

    Complexity: O(bytes).
    """
    if path.is_dir():
        raise InputError("is a folder", where=path, expected="a file", cure="give the folder where many are taken")
    if not path.exists():
        raise InputError("no such file", where=path, cure="check the path")
    if not path.is_file():
        raise InputError("is not a regular file", where=path, expected="a file on disk", cure="save it to a file first")
    limit = int(limit_mb * (1 << 20))
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(limit + 1) if size <= limit else b""
    except OSError as error:
        cure = "change its permissions, or copy it again"
        raise InputError("the file cannot be read", where=path, found=error.strerror, cure=cure) from error
    if size > limit or len(content) > limit:
        raise _too_large(path, f"{max(size, len(content)):,} bytes", limit)
    return content


def unpacked(data: bytes, name: str, limit_mb: float) -> tuple[bytes, str, str]:
    """Content of gzip, bzip2 or xz, told apart by first bytes and read to the checksum at the end; else as it is.

    Returns:
        The content, the name without the ending of the packing, and the packing's name or "".

    Raises:
        InputError: damaged or cut, or more than `limit_mb` when unpacked: what is over is never held in memory.

    Complexity: O(unpacked bytes).

    Example:
        >>> unpacked(gzip.compress(b"text"), "ls.1.gz", 1.0)
        (b'text', 'ls.1', 'gzip')
    """
    limit = int(limit_mb * (1 << 20))
    for magic, packing, endings in _PACKED:
        if data.startswith(magic):
            content = _expanded(data, name, packing, limit)
            stem, dot, ending = name.rpartition(".")
            return content, stem if f"{dot}{ending.lower()}" in endings and stem else name, packing
    if len(data) > limit:
        raise _too_large(name, f"{len(data):,} bytes", limit)
    return data, name, ""


def _expanded(data: bytes, name: str, packing: str, limit: int) -> bytes:
    opener = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[packing]
    parts, size = [], 0
    try:
        with cast(IO[bytes], opener(io.BytesIO(data), "rb")) as stream:
            while part := stream.read(_CHUNK):
                size += len(part)
                if size > limit:
                    raise _too_large(name, f"more than {limit:,} bytes unpacked", limit)
                parts.append(part)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"damaged or cut {packing}", where=name, found=str(error) or None, cure=_AGAIN) from error
    return b"".join(parts)


def _too_large(where: object, found: str, limit: int) -> InputError:
    cure = "raise limit_mb, or split the document"
    return InputError("too large for one document", where=where, found=found, expected=f"{limit:,} at most", cure=cure)


def refuse_binary(data: bytes, name: str) -> None:
    """Refuse what no text begins with, and bytes of which more than one in fifty is a control character.

    Whoever calls knows already that it is no PDF and no UTF-16.

    Raises:
        InputError: with what the content seems to be.

    Complexity: O(1): the first 64 KiB are looked at.

    Example:
        >>> refuse_binary(b"\\x89PNG\\r\\n", "a.md")
        Traceback (most recent call last):
        ...
        pipelines.data.errors.InputError: ...: not a text. Found: a PNG image...
    """
    head = data[:_LOOKED_AT]
    seems = next((what for magic, what in _FOREIGN if head.startswith(magic)), "")
    if head.startswith(b"PK\x03\x04"):
        seems = next((what for mark, what in _ZIPS if mark in head), "a zip archive")
    if head[4:8] == b"ftyp":
        seems = "an MP4 film or a HEIC image"
    if head[257:262] == b"ustar":
        seems = "a tar archive"
    if not seems:
        control = len(_CONTROL.findall(head))
        if control * 50 <= len(head) or control <= 3:
            return
        seems = "nothing but null bytes" if not head.strip(b"\0") else f"{control:,} control bytes of {len(head):,}"
    cure = "save it as text, HTML or PDF"
    if "archive" in seems or "gzip" in seems:
        cure = "give the archive itself where many documents are taken, or unpack it"
    expected = "text, Markdown, RST, HTML, PDF, a manual page, POD or wiki text"
    raise InputError("not a text", where=name, found=seems, expected=expected, cure=cure)
