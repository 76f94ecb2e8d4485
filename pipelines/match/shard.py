"""One shard of an index while it is written, and the checks that every row passes first."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.files import atomic_write
from pipelines.match.shard_files import entry, file_names, npy_header
from pipelines.values import plain

__all__ = ["Shard", "finite_rows", "name_line"]


def finite_rows(values: ArrayLike, shape: tuple[int, int], names: Sequence[str], where: str) -> NDArray[np.float32]:
    """Vectors as contiguous float32 rows, after shape and values were checked.

    Args:
        values: (n, D) numbers.
        shape: the one expected.
        names: n names, of which messages show the one in question.
        where: the argument's name for messages.

    Raises:
        InputError: no numbers, another shape, or a value that is not finite (in float32).

    Complexity: O(n D).

    Example:
        >>> finite_rows([[1, float("nan")]], (1, 2), ["a.txt"], "vectors")
        Traceback (most recent call last):
        pipelines.data.errors.InputError: vectors: not finite. Found: 1 of 1 rows, first a.txt. ...
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise InputError("no numbers", where=where, found=array.dtype, expected="float32")
    if array.shape != shape:
        raise InputError("another shape than expected", where=where, found=array.shape, expected=shape)
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype="<f4")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        found = f"{len(bad):,} of {len(rows):,} rows, first {names[bad[0]]}"
        raise InputError("not finite", where=where, found=found, cure="encode these documents again")
    return rows


def name_line(name: str, facts: Mapping[str, Any]) -> bytes:
    """One line of a names file: a JSON object with the name and the facts.

    Raises:
        InputError: the name is no text, a fact is called "name" or cannot be written as JSON.

    Example:
        >>> name_line("a.txt", {"tokens": 3})
        b'{"name": "a.txt", "tokens": 3}\\n'
    """
    if not isinstance(name, str):
        raise InputError("a name must be text", where="names", found=f"{type(name).__name__} {name!r}")
    if "name" in facts:
        raise InputError("a fact cannot be called name", where=f"facts of {name}", cure="call it title")
    try:
        content = {"name": name, **facts}
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, default=plain) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError("cannot be written as JSON", where=f"facts of {name}", found=str(error)) from error
    try:
        return text.encode()
    except UnicodeEncodeError:  # a file name that is no Unicode: half a surrogate pair stands for each odd byte
        return json.dumps(content, allow_nan=False, default=plain).encode() + b"\n"


class Shard:
    """The files of the shard that is being written; a header with its rows is put in front when it is closed."""

    def __init__(self, folder: pathlib.Path, number: int, dim: int, block_dim: int | None) -> None:
        self.rows, self._dim, self._block_dim = 0, dim, block_dim
        self._norm, self._names_bytes, self._offsets = 0.0, 0, [0]
        names = file_names(number, blocks=block_dim is not None)
        self._paths = {role: folder / name for role, name in names.items()}
        self._files: dict[str, BinaryIO] = {}
        try:
            for role in ("vectors", "names", "blocks") if block_dim else ("vectors", "names"):
                self._files[role] = self._paths[role].open("wb")
                if role != "names":
                    self._files[role].write(npy_header((0, 0), "<f4"))
        except BaseException:
            self.discard()
            raise

    def append(self, lines: list[bytes], rows: NDArray[np.float32], blocks: list[NDArray[np.float32]]) -> None:
        self._files["vectors"].write(rows.data.cast("B"))
        self._files["names"].write(b"".join(lines))
        ends = self._offsets[-1] + np.cumsum([len(part) for part in blocks], dtype=np.int64)
        for part in blocks:
            if len(part):
                self._files["blocks"].write(part.data.cast("B"))
        # Counted last: an interruption on the way leaves bytes beyond the count, which closing cuts off.
        self._offsets += ends.tolist()
        self._names_bytes += sum(map(len, lines))
        self._norm = max(self._norm, float(np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1).max(initial=0.0))))
        self.rows += len(lines)

    def seal(self) -> dict[str, Any]:
        widths = {"vectors": (self.rows, self._dim), "blocks": (self._offsets[-1], self._block_dim or 0)}
        for role, file in self._files.items():
            file.flush()
            if role == "names":
                file.truncate(self._names_bytes)
            else:
                header = npy_header(widths[role], "<f4")
                file.truncate(len(header) + 4 * widths[role][0] * widths[role][1])
                file.seek(0)
                file.write(header)
                file.flush()
            os.fsync(file.fileno())
            file.close()
        if self._block_dim:
            offsets = np.asarray(self._offsets, "<i8")
            atomic_write(self._paths["offsets"], npy_header(offsets.shape, "<i8") + offsets.tobytes())
        files = {path.name: entry(path) for path in self._paths.values()}
        return {"rows": self.rows, "block_rows": self._offsets[-1], "largest_norm": self._norm, "files": files}

    def discard(self) -> None:
        for role, path in self._paths.items():
            with contextlib.suppress(OSError):  # closing writes what was buffered, for which there may be no room
                if role in self._files:
                    self._files[role].close()
            with contextlib.suppress(OSError):
                path.unlink()
