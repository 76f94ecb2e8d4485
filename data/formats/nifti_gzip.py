"""Unpacking a .nii.gz once: streamed, under limits, and read to its end so that its checksum is tried."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.data.errors import InputError
from pipelines.data.formats.nifti_header import HEAD, Header, parse_header
from pipelines.data.formats.nifti_types import Volumes
from pipelines.data.formats.nifti_volumes import cut_short, human, left_over, sink

__all__ = ["MAGIC", "check_limit", "first_bytes", "unpack"]

MAGIC = b"\x1f\x8b"
#: Bytes read and bytes unpacked at a time.
_READ, _PIECE = 1 << 20, 4 << 20
#: Deflate cannot shorten anything by more than about 1,032 times.
_MOST_RATIO = 1100
#: Bytes behind the last volume that are unpacked for the checksum's sake.
_MOST_EXTRA = 1 << 20
_AGAIN = "copy or download the file again (gzip -t tells whether it is whole)"


class _Broken(Exception):
    """The stream ends early or is damaged; args say how."""


def first_bytes(path: pathlib.Path, size: int = HEAD) -> bytes:
    """The first bytes of a file, unpacked where it is compressed; fewer where there are fewer or they are damaged.

    Complexity: O(size).
    """
    with path.open("rb") as file:
        head = file.read(max(size, 64))
        if not head.startswith(MAGIC):
            return head[:size]
        file.seek(0)
        out = b""
        try:
            for piece in _pieces(file, []):
                out += piece
                if len(out) >= size:
                    break
        except _Broken:
            pass
        return out[:size]


def unpack(
    path: pathlib.Path, name: str, limit: float, cache: pathlib.Path | None = None, header: Header | None = None
) -> tuple[Header, Volumes, tuple[str, ...]]:
    """Unpack the voxels of a compressed file into memory or an unnamed temporary file, once and for all.

    Nothing larger than the header promises is kept, and a stream that goes on far beyond it is refused. All of the
    stream is read, so that its checksums (CRC-32 and length of every member) are tried.

    Args:
        path: the file.
        name: of the file, for messages.
        limit: bytes of voxels that are allowed.
        cache: folder of the temporary file; None: that of the system (TMPDIR).
        header: of a .hdr/.img pair; None: it stands at the beginning of the stream.

    Returns:
        header, volumes, and notes on what was left out.

    Raises:
        InputError: a cut or damaged stream, one that holds less or far more than its header says, no room.

    Complexity: O(bytes unpacked) time, O(1) memory beyond 64 MiB, whatever the number of volumes.

    Source: RFC 1952.

    Example:
        >>> import gzip, tempfile
        >>> import nibabel
        >>> import numpy as np
        >>> image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 2, 2), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.nii.gz")
        ...     _ = path.write_bytes(gzip.compress(image.to_bytes()))
        ...     unpack(path, path.name, 1e9)[1].volume(1)[0, 0].tolist()
        [1, 3]
    """
    notes: list[str] = []
    with path.open("rb") as file:
        pieces = _pieces(file, notes)
        head = b""
        try:
            if header is None:
                while len(head) < HEAD:
                    head += next(pieces)
        except _Broken as error:
            raise InputError(
                f"the compressed file {error}", where=name, found="no whole header", cure=_AGAIN
            ) from error
        except StopIteration:
            pass
        header = parse_header(head, name) if header is None else header
        if header.pair and head:
            raise InputError("a header without its voxels", where=name, cure="give the .img beside it, or the .hdr")
        check_limit(name, header, limit)
        _check_ratio(path, name, header)
        volumes, extra = _fill(pieces, head, name, header, cache)
    return header, volumes, (*left_over(header, extra), *notes)


def check_limit(name: str, header: Header, limit: float) -> None:
    """Refuse more voxels than allowed, before anything is allocated.

    Raises:
        InputError: more bytes than the limit.
    """
    if header.nbytes > limit:
        sizes = " x ".join(f"{length:,}" for length in header.shape)
        raise InputError(
            "the scan is larger than allowed",
            where=name,
            found=f"{sizes} {header.dtype.name} = {human(header.nbytes)}",
            expected=f"{human(limit)} or less",
            cure="raise limit_gb if the file comes from a source you trust",
        )


def _check_ratio(path: pathlib.Path, name: str, header: Header) -> None:
    """Refuse a header that promises more than the compressed bytes can hold."""
    size = path.stat().st_size
    if header.offset + header.nbytes > size * _MOST_RATIO:
        sizes = " x ".join(f"{length:,}" for length in header.shape)
        raise InputError(
            "the file is far too short for its header",
            where=name,
            found=f"{human(size)} compressed",
            expected=f"{human(header.offset + header.nbytes)} unpacked for {sizes} {header.dtype.name}",
            cure="copy or download the file again; if it is whole, its header is damaged",
        )


def _fill(
    pieces: Iterator[bytes], head: bytes, name: str, header: Header, cache: pathlib.Path | None
) -> tuple[Volumes, int]:
    """Voxels into their place; the bytes behind them are counted."""
    target = sink(name, header, cache)
    seen = kept = 0
    problem = ""
    try:
        piece = head
        while True:
            start = min(max(0, header.offset - seen), len(piece))
            wanted = piece[start : start + header.nbytes - kept]
            target.write(wanted)
            seen, kept = seen + len(piece), kept + len(wanted)
            if seen - header.offset - header.nbytes > max(_MOST_EXTRA, header.nbytes):
                raise InputError(
                    "the file unpacks to far more than its header says",
                    where=name,
                    found=f"over {human(seen)}",
                    expected=f"{human(header.offset + header.nbytes)}",
                    cure="do not use it unless you trust its source; the header may be damaged",
                )
            piece = next(pieces)
    except StopIteration:
        pass
    except _Broken as error:
        problem = f"the compressed file {error}"
    except BaseException:
        target.drop()
        raise
    if problem or kept < header.nbytes:
        target.drop()
        if kept < header.nbytes:
            raise cut_short(name, header, seen - header.offset, problem or "the file ends before its last volume")
        raise InputError(problem, where=name, found="all volumes, but not as they were written", cure=_AGAIN)
    return target.volumes(), seen - header.offset - header.nbytes


def _pieces(file: BinaryIO, notes: list[str]) -> Iterator[bytes]:
    """Unpacked bytes of all members of a gzip file, each checked at its end.

    Zeros between or after members are padding; other bytes after the last member are noted.
    """
    data = file.read(_READ)
    while True:
        engine = zlib.decompressobj(wbits=31)
        while not engine.eof:
            data = data or file.read(_READ)
            if not data:
                raise _Broken("is cut short")
            try:
                out = engine.decompress(data, _PIECE)
            except zlib.error as error:
                raise _Broken(_why(str(error))) from error
            data = engine.unconsumed_tail
            yield out
        data = engine.unused_data
        while not data.strip(b"\0"):
            data = file.read(_READ)
            if not data:
                return
        data = data.lstrip(b"\0")
        data = data + file.read(1) if len(data) == 1 else data
        if not data.startswith(MAGIC):
            rest = len(data) + sum(len(more) for more in iter(lambda: file.read(_READ), b""))
            notes.append(f"{rest:,} bytes after the end of the compressed stream were left out")
            return


def _why(error: str) -> str:
    if "incorrect data check" in error or "incorrect length check" in error:
        return "is damaged (its checksum does not fit)"
    return f"is damaged ({error.rpartition(': ')[2]})"
