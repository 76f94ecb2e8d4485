"""The files of an index on disk: what they are called, what their headers hold, and opening them with suspicion.

A folder holds `config.json` and, for each shard of rows, `vectors-00000.npy` (float32 (n, D)), `names-00000.jsonl` (one
JSON object a row: "name" and the facts), and where blocks are kept `blocks-00000.npy` (float32 (m, C)) with
`offsets-00000.npy` (int64 (n + 1,), row i owns blocks offsets[i] to offsets[i + 1]). The configuration carries the size
and SHA-256 of every file and its own, the identity of the weights, and the largest norm of the vectors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InputError, WeightsError

__all__ = [
    "CONFIG_FILE",
    "FORMAT_VERSION",
    "KIND",
    "check_files",
    "entry",
    "file_names",
    "npy_header",
    "npy_layout",
    "open_npy",
    "read_npy_header",
    "read_sealed",
    "sealed",
]

FORMAT_VERSION = 1
KIND = "index of documents"
CONFIG_FILE = "config.json"
AGAIN = "encode the documents again, or copy the whole folder again"

_HEADER = 128  # bytes: fixed, so that the number of rows can be written when the last one is known


def file_names(shard: int, *, blocks: bool) -> dict[str, str]:
    """Role -> file name of one shard.

    Example:
        >>> file_names(3, blocks=False)
        {'vectors': 'vectors-00003.npy', 'names': 'names-00003.jsonl'}
    """
    roles = {"vectors": "npy", "names": "jsonl"} | ({"blocks": "npy", "offsets": "npy"} if blocks else {})
    return {role: f"{role}-{shard:05d}.{ending}" for role, ending in roles.items()}


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The first 128 bytes of a .npy file (format 1.0, C order), of the same length whatever the shape is.

    Example:
        >>> len(npy_header((10**12, 256), "<f4")), npy_header((2,), "<i8")[:6]
        (128, b'\\x93NUMPY')
    """
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11).encode() + b"\n"


def read_npy_header(path: pathlib.Path) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and whether in Fortran order, after the header was compared with the length of the file.

    Raises:
        InputError: no .npy file, Python objects or fields inside, or a shape that the file does not hold.

    Complexity: O(1): nothing is allocated for the values.
    """
    with path.open("rb") as file:
        return npy_layout(file, path.stat().st_size, path)


def npy_layout(
    file: IO[bytes], size: int, where: object, *, text: bool = False
) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """As `read_npy_header`, of an open file of `size` bytes; with `text` also arrays of text are taken."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        start = file.tell()
    except Exception as error:  # the text of the header goes through NumPy's parser, which raises what it likes
        shown = " ".join(str(error).split())[:140] or type(error).__name__
        raise InputError("not a readable NPY file", where=where, found=shown, cure=AGAIN) from error
    if dtype.hasobject:
        problem = "Python objects inside, which are never unpickled: they could run any code"
        raise InputError(problem, where=where, expected="an array of numbers")
    if dtype.kind not in ("fiuU" if text else "fiu"):
        raise InputError("holds no numbers", where=where, found=dtype, expected="float32")
    need, have = math.prod(shape) * dtype.itemsize, size - start
    if need != have or any(length < 0 for length in shape):
        found, expected = f"{have:,} bytes after the header", f"{need:,} for {shape} of {dtype}"
        problem = "truncated, or the header contradicts the size of the file"
        raise InputError(problem, where=where, found=found, expected=expected, cure=AGAIN)
    return shape, dtype, fortran


def open_npy(path: pathlib.Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """A file of the index, memory-mapped for reading, if it is what the configuration says.

    Args:
        path: the file.
        shape: that the configuration tells.
        dtype: as NumPy writes it, e.g. "<f4".

    Raises:
        InputError: as `read_npy_header`, or another shape, type or order.

    Complexity: O(1) until values are used.
    """
    found, kind, fortran = read_npy_header(path)
    if found != shape or kind != np.dtype(dtype) or (fortran and len(shape) > 1):
        seen, expected = f"{found} of {kind}", f"{shape} of {np.dtype(dtype)} as in {CONFIG_FILE}"
        raise InputError("another array than the index had", where=path, found=seen, expected=expected, cure=AGAIN)
    if 0 in shape:
        return np.empty(shape, dtype)  # nothing can be mapped
    return np.load(path, mmap_mode="r", allow_pickle=False)


def check_files(folder: pathlib.Path, files: Mapping[str, Mapping[str, Any]], *, verify: bool) -> None:
    """Compare the files of a shard with their sizes, and with their checksums too where asked.

    Raises:
        InputError: a file is missing, of another length, or of another content; or its name leads elsewhere.

    Complexity: O(files), with `verify` O(bytes).
    """
    from pipelines.files import sha256

    for name, facts in files.items():
        path = folder / name
        if pathlib.PurePath(name).name != name or name in ("", ".", ".."):
            raise InputError("names a file outside its folder", where=folder / CONFIG_FILE, found=name)
        if not path.is_file():
            raise InputError("a file of the index is missing", where=path, cure=AGAIN)
        have = path.stat().st_size
        if have != facts["bytes"]:
            found, expected = f"{have:,} bytes", f"{facts['bytes']:,} as in {CONFIG_FILE}"
            problem = "a file of the index was cut or changed"
            raise InputError(problem, where=path, found=found, expected=expected, cure=AGAIN)
        if verify and (digest := sha256(path)) != facts["sha256"]:
            found, expected = f"SHA-256 {digest[:12]}", f"{str(facts['sha256'])[:12]} as in {CONFIG_FILE}"
            problem = "a file of the index was damaged or changed after it was written"
            raise InputError(problem, where=path, found=found, expected=expected, cure=AGAIN)


def sealed(content: Mapping[str, Any]) -> str:
    """A configuration as JSON text with the SHA-256 of its own content, so that a changed one is noticed.

    Example:
        >>> json.loads(sealed({"rows": 1}))["rows"]
        1
    """
    complete = {**content, "sha256": _digest(content)}
    return json.dumps(complete, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def read_sealed(path: pathlib.Path, what: str = "index") -> dict[str, Any]:
    """The checked content of a configuration that `sealed` wrote.

    Raises:
        InputError: missing, no valid JSON, of something else, or changed after it was written.
        WeightsError: of another format version than this library reads.

    Complexity: O(bytes of the file).
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        cure = "name the folder that `pipelines match encode` wrote"
        raise InputError(f"not a folder of an {what}", where=path.parent, expected=path.name, cure=cure) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("is not readable JSON", where=path, found=str(error)[:200], cure=AGAIN) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        found = content.get("kind", content.get("domain")) if isinstance(content, dict) else type(content).__name__
        cure = "name the folder that `pipelines match encode` wrote"
        raise InputError(f"is not the configuration of an {what}", where=path, found=found, expected=KIND, cure=cure)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        cure = "pip install --upgrade attention-pipelines" if newer else "encode the documents again"
        problem = "an index of another format version"
        raise WeightsError(problem, where=path, found=version, expected=FORMAT_VERSION, cure=cure)
    digest = content.pop("sha256", None)
    if digest != _digest(content):
        raise InputError("was changed after it was written (checksum differs)", where=path, cure=AGAIN)
    return content


def entry(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Size and SHA-256 of a file, as the configuration holds them."""
    from pipelines.files import sha256

    return {"bytes": os.path.getsize(path), "sha256": sha256(path)}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
