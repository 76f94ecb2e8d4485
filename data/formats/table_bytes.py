"""Bytes of a possibly compressed table, never more than a limit (a small archive can hold gigabytes)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pathlib
import zipfile
import zlib
from typing import IO

from pipelines.data.errors import InputError

MAX_TEXT = 512 << 20
_CHUNK = 1 << 20
_DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


def read_bytes(path: pathlib.Path, limit: int = MAX_TEXT) -> tuple[bytes, str]:
    """Content of a plain, .gz, .bz2, .xz or .zip file and a note about what was opened.

    The kind is recognised by the first bytes. Streams are read to their end, so that their checksums are verified.

    Raises:
        InputError: damaged or encrypted archives, more than one table in a zip, or more than limit bytes.
    """
    head = path.open("rb").read(6)
    try:
        if head.startswith(b"PK"):
            return _from_zip(path, limit)
        with _opened(path, head) as stream:
            return _bounded(stream, path.name, limit), ""
    except InputError:
        raise
    except _DAMAGE as error:
        raise _damaged(path.name, error) from error


def decompress(content: bytes, name: str, limit: int = MAX_TEXT) -> bytes:
    """Content of an .xz in memory, up to limit bytes.

    Raises:
        InputError: damaged, or more than limit bytes.
    """
    try:
        with lzma.open(io.BytesIO(content)) as stream:
            return _bounded(stream, name, limit)
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(name, error) from error


def _damaged(name: str, error: BaseException) -> InputError:
    return InputError(
        "the archive is damaged", where=name, found=str(error)[:100] or type(error).__name__,
        expected="a complete archive", cure="copy or download the file again",
    )  # fmt: skip


def _opened(path: pathlib.Path, head: bytes) -> IO[bytes]:
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(path)  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.open(path)  # type: ignore[return-value]
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(path)
    suffix = path.suffix.lower()
    if suffix in (".gz", ".bz2", ".xz", ".zip"):
        raise InputError(
            f"not a {suffix} archive", where=path.name, found=f"first bytes {head[:4]!r}", cure="copy the file again"
        )
    return path.open("rb")


def _bounded(stream: IO[bytes], name: str, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := stream.read(_CHUNK):
        size += len(part)
        if size > limit:
            raise InputError(
                "the table is too large", where=name, found=f"more than {limit:,} bytes unpacked", expected=f"at most {limit:,}",
                cure="keep the columns and rows you need, or use Parquet",
            )  # fmt: skip
        parts.append(part)
    return b"".join(parts)


def _from_zip(path: pathlib.Path, limit: int) -> tuple[bytes, str]:
    with zipfile.ZipFile(path) as archive:
        files = [one for one in archive.infolist() if not one.is_dir() and not _is_clutter(one.filename)]
        if len(files) != 1:
            names = ", ".join(one.filename for one in files[:5]) or "none"
            raise InputError(
                "a zip must hold exactly one table", where=path.name, found=f"{len(files)} files: {names}", expected=1,
                cure="unpack it and name the table",
            )  # fmt: skip
        member = files[0]
        if member.flag_bits & 1:
            raise InputError("the zip is encrypted", where=path.name, cure="unpack it first")
        with archive.open(member) as stream:
            return _bounded(stream, path.name, limit), f"read {member.filename} from the zip"


def _is_clutter(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith(".")
