"""Bytes of a possibly compressed table, never more than a limit (a small archive can hold gigabytes)."""

from __future__ import annotations

import pathlib

from pipelines.data.errors import InputError
from pipelines.data.formats.archive import bounded_decompress, open_member

MAX_TEXT = 512 << 20
_MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zip": b"PK"}


def read_bytes(path: pathlib.Path, limit: int = MAX_TEXT) -> tuple[bytes, str]:
    """Content of a plain, .gz, .bz2, .xz or .zip file and a note about what was opened.

    The kind is recognised by the first bytes; streams are read to their end, so that their checksums are verified.

    Args:
        path: the file.
        limit: most bytes that may come out.

    Raises:
        InputError: damaged or encrypted archives, a zip without exactly one table, or more than limit bytes.
    """
    with path.open("rb") as file:
        head = file.read(6)
    wanted = _MAGIC.get(path.suffix.lower())
    if wanted is not None and not any(head.startswith(magic) for magic in _MAGIC.values()):
        cure = "copy or download the file again"
        raise InputError(f"not a {path.suffix} archive", where=path.name, found=f"first bytes {head[:4]!r}", cure=cure)
    try:
        if head.startswith(_MAGIC[".zip"]):
            name, content = open_member(path, max_bytes=limit)
            return content, f"read {name} from the zip"
        return bounded_decompress(path, limit), ""
    except OSError as error:
        # A damaged offset in a zip's directory ends in a failed seek; a failing disk ends here as well.
        cure = "copy or download the file again"
        raise InputError(
            "the file cannot be read", where=path.name, found=error.strerror or str(error), cure=cure
        ) from error
