"""TensorFlow's checkpoint files, read without TensorFlow: an index of names and places, and shards of raw tensors.

A checkpoint PREFIX is PREFIX.index, a sorted table in the form of LevelDB whose values are protocol buffers, and
PREFIX.data-00000-of-00001 (or several). Nothing in them is code. Every length is held against the size of its file
before anything is allocated, and every checksum is compared.
Source: tensorflow/core/util/tensor_bundle and tensorflow/core/lib/io/table_format.txt.
"""

from __future__ import annotations

import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import WeightsError

__all__ = ["BundleEntry", "bundle_prefix", "crc32c", "list_bundle", "read_bundle"]

_AGAIN = "fetch the checkpoint again: both the .index and every .data file"
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MAX_INDEX = 32 * 2**20  # an index of half a million names takes less
_MAX_NAMES = 256 * 2**20  # names share their beginnings: what they take in memory is held against this
#: DataType numbers of tensorflow/core/framework/types.proto; bfloat16 (14) is widened by hand.
_DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 5: "<i2", 6: "|i1", 8: "<c8", 9: "<i8",
    10: "|b1", 14: "<u2", 17: "<u2", 18: "<c16", 19: "<f2", 22: "<u4", 23: "<u8",
}  # fmt: skip
_BFLOAT16 = 14
_STRING = 7
_CHUNK = 2**20
_LANE = 512
_Words = NDArray[np.uint32]
_BIT, _BYTE = np.uint32(1), np.uint32(0xFF)


@dataclass(frozen=True)
class BundleEntry:
    """One tensor as the index describes it.

    Attributes:
        dtype: TensorFlow's number of its type.
        shape: sizes.
        shard: number of the data file.
        offset: where it begins there, in bytes.
        size: bytes.
        checksum: masked CRC-32C of these bytes.
        sliced: whether it was saved in parts, as partitioned variables are.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


def bundle_prefix(source: object) -> pathlib.Path | None:
    """The prefix of the checkpoint that a path means, or None where it means none.

    Args:
        source: the prefix itself (model.ckpt-400000), its .index file or one of its .data files.

    Example:
        >>> bundle_prefix("no/such/model.ckpt-400000") is None
        True
    """
    if not isinstance(source, str | os.PathLike) or "://" in str(source):
        return None
    path = pathlib.Path(source).expanduser()
    name = re.sub(r"[.](index|data-\d{5}-of-\d{5})$", "", path.name)
    if not name or path.is_dir():
        return None
    prefix = path.with_name(name)
    found = prefix.with_name(f"{name}.index").is_file() or any(path.parent.glob(f"{_literal(name)}.data-*-of-*"))
    return prefix if found else None


def list_bundle(prefix: str | os.PathLike[str]) -> dict[str, BundleEntry]:
    """Names and places of the tensors of a checkpoint, in the order of its index (sorted by name).

    Args:
        prefix: as `bundle_prefix` gives it.

    Raises:
        WeightsError: no such index, or it is truncated, damaged (a checksum differs), compressed or of another form.

    Complexity: O(bytes of the index).

    Example:
        >>> list_bundle("no/such/model.ckpt-1")
        Traceback (most recent call last):
        pipelines.errors.WeightsError: no/such/model.ckpt-1.index: no such index of a checkpoint. Cure: ...
    """
    return _index(pathlib.Path(f"{os.fspath(prefix)}.index"))[1]


def read_bundle(
    prefix: str | os.PathLike[str], skip: Callable[[str], object] = lambda name: False
) -> dict[str, NDArray[Any]]:
    """The tensors of a checkpoint by name; bfloat16 is widened to float32, which changes no value.

    Args:
        prefix: as `bundle_prefix` gives it.
        skip: which names not to read: an empty array stands for each, and its bytes are not touched.

    Raises:
        WeightsError: a file is missing, truncated or damaged (a checksum differs), or a tensor that was asked for holds
            text or was saved in parts.

    Complexity: O(bytes read) time and memory; the checksum runs at some hundred MB/s.

    Example:
        >>> read_bundle("no/such/model.ckpt-1")
        Traceback (most recent call last):
        pipelines.errors.WeightsError: no/such/model.ckpt-1.index: no such index of a checkpoint. Cure: ...
    """
    prefix = os.fspath(prefix)
    shards, entries = _index(pathlib.Path(f"{prefix}.index"))
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in entries.items():
        if skip(name):
            tensors[name] = np.zeros(0, np.float32)
            continue
        if not 0 <= entry.shard < shards:
            raise _damaged(f"{prefix}.index", f"{name} in file {entry.shard} of {shards}")
        tensors[name] = _tensor(pathlib.Path(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}"), name, entry)
    return tensors


def crc32c(data: bytes | memoryview | NDArray[np.uint8], value: int = 0) -> int:
    """CRC-32C (Castagnoli) of bytes, going on from ``value``.

    The state is linear in the data over GF(2): lanes of equal length are run side by side and then joined pairwise,
    each time moving the earlier one over the length of the later.

    Complexity: O(n), vectorised.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    array = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data
    state = value ^ 0xFFFFFFFF
    for begin in range(0, len(array), _CHUNK):
        state = _advance(array[begin : begin + _CHUNK], state)
    return state ^ 0xFFFFFFFF


def _advance(data: NDArray[np.uint8], state: int) -> int:
    """The register after ``data``, from ``state``."""
    table = _tables()[0]
    if len(data) < 8:
        for byte in data.tolist():
            state = int(table[(state ^ byte) & 0xFF]) ^ (state >> 8)
        return state
    lanes = -(-len(data) // _LANE)
    padded = np.zeros(lanes * _LANE, np.uint8)  # zeros before the data leave a register of zero as it is
    padded[-len(data) :] = data
    start = len(padded) - len(data)
    padded[start : start + 4] ^= np.frombuffer(np.array(state, "<u4").tobytes(), np.uint8)
    words = np.ascontiguousarray(padded.view("<u2").reshape(lanes, -1).T).astype(np.uint32)
    pairs = _tables()[1]
    register: _Words = np.zeros(lanes, np.uint32)
    for word in words:
        register = pairs[(register ^ word) & np.uint32(0xFFFF)] ^ (register >> np.uint32(16))
    moves = iter(_moves())
    while len(register) > 1:
        if len(register) % 2:
            register = np.concatenate([np.zeros(1, np.uint32), register])
        register = _apply(next(moves), register[0::2]) ^ register[1::2]
    return int(register[0])


@cache
def _tables() -> tuple[_Words, _Words]:
    """What one byte, and what two bytes, do to a register."""
    one = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = np.where(one & _BIT, (one >> _BIT) ^ np.uint32(0x82F63B78), one >> _BIT)
    two = np.arange(65536, dtype=np.uint32)
    for _ in range(2):
        two = one[two & _BYTE] ^ (two >> np.uint32(8))
    return one, two


@cache
def _moves() -> tuple[_Words, ...]:
    """Columns of the maps of a register over 1, 2, 4 ... lanes of zeros, enough for a chunk."""
    table = _tables()[0]
    basis = _BIT << np.arange(32, dtype=np.uint32)
    move = table[basis & _BYTE] ^ (basis >> np.uint32(8))  # over one byte
    maps: list[_Words] = []
    for power in range(int(math.log2(_CHUNK)) + 1):
        if 2**power >= _LANE:
            maps.append(move)
        move = _apply(move, move)
    return tuple(maps)


def _apply(columns: _Words, vectors: _Words) -> _Words:
    result = np.zeros_like(vectors)
    for bit in range(32):
        result ^= np.where((vectors >> np.uint32(bit)) & _BIT, columns[bit], np.uint32(0))
    return result


def _masked(checksum: int) -> int:
    """As TensorFlow stores a checksum, so that a checksum of data with checksums stays a good one."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _index(path: pathlib.Path) -> tuple[int, dict[str, BundleEntry]]:
    """How many data files there are, and the entries by name."""
    if not path.is_file():
        cure = "check the path; a checkpoint PREFIX is PREFIX.index and PREFIX.data-00000-of-00001"
        raise WeightsError("no such index of a checkpoint", where=path, cure=cure)
    size = path.stat().st_size
    if not _FOOTER <= size <= _MAX_INDEX:
        raise _damaged(path, f"{size:,} bytes")
    data = path.read_bytes()
    if int.from_bytes(data[-8:], "little") != _MAGIC:
        expected = "the last eight bytes of a table of TensorFlow"
        raise WeightsError("truncated, or not an index of a checkpoint", where=path, expected=expected, cure=_AGAIN)
    try:
        items = list(_table(memoryview(data), path))
        if not items or items[0][0]:
            raise ValueError("no header")
        shards = _header(items[0][1], path)
        entries = {key.decode("utf-8", "backslashreplace"): _entry(value) for key, value in items[1:]}
    except (IndexError, ValueError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, WeightsError):
            raise
        raise _damaged(path, str(error)) from error
    return shards, entries


def _table(data: memoryview, path: pathlib.Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table: blocks in the order of the index block, which the footer points at."""
    footer = data[-_FOOTER:]
    meta, at = _varint(footer, 0)
    meta_size, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, at = _varint(footer, at)
    if list(_block(data, meta, meta_size, path)) or any(footer[at:-8]):
        raise ValueError("something after the index")
    for _, handle in _block(data, offset, size, path):
        begin, at = _varint(memoryview(handle), 0)
        length, _ = _varint(memoryview(handle), at)
        yield from _block(data, begin, length, path)


def _block(data: memoryview, offset: int, size: int, path: pathlib.Path) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key says how many bytes it shares with the one before it."""
    end = offset + size
    if size < 4 or end + 5 > len(data) - _FOOTER:
        raise _damaged(path, f"a block of {size:,} bytes at {offset:,} in {len(data):,}")
    if _masked(crc32c(data[offset : end + 1])) != int.from_bytes(data[end + 1 : end + 5], "little"):
        raise _damaged(path, f"a checksum that differs, in the block at byte {offset:,}")
    if data[end] != 0:
        cure = "save it again with tf.train.Saver or tf.train.Checkpoint, which write plain tables"
        raise WeightsError("a compressed table, which is not read", where=path, found=f"kind {data[end]}", cure=cure)
    block = data[offset:end]
    limit = size - 4 * (int.from_bytes(block[-4:], "little") + 1)
    at, key, total = 0, b"", 0
    while at < limit:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + fresh + length > limit:
            raise ValueError(f"a key that does not fit, in the block at byte {offset:,}")
        key = key[:shared] + bytes(block[at : at + fresh])
        total += len(key)
        if total > _MAX_NAMES:
            raise ValueError("names of absurd length")
        yield key, bytes(block[at + fresh : at + fresh + length])
        at += fresh + length
    if at != limit:
        raise ValueError(f"restart points out of place, in the block at byte {offset:,}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number of more than ten bytes")


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer's fields: integers, and bytes of the nested ones."""
    data, at = memoryview(message), 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value - 2**64 if value >= 2**63 else value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            length, at = _varint(data, at)
        if length is None or at + length > len(data):
            raise ValueError("a message that is cut or of another kind")
        raw = bytes(data[at : at + length])
        yield tag >> 3, raw if kind == 2 else int.from_bytes(raw, "little")
        at += length


def _header(message: bytes, path: pathlib.Path) -> int:
    fields = dict(_fields(message))
    if fields.get(2, 0) != 0:
        raise WeightsError("written on a big-endian machine, which is not read", where=path)
    if not 1 <= fields.get(1, 0) <= 99_999:
        raise ValueError(f"{fields.get(1, 0)} data files")
    return fields[1]


def _entry(message: bytes) -> BundleEntry:
    values: dict[int, Any] = {}
    for number, value in _fields(message):
        values[number] = value
    shape = tuple(dict(_fields(size)).get(1, 0) for number, size in _fields(values.get(2, b"")) if number == 2)
    plain = (values.get(number, 0) for number in (3, 4, 5, 6))
    return BundleEntry(values.get(1, 0), shape, *plain, sliced=7 in values)


def _tensor(path: pathlib.Path, name: str, entry: BundleEntry) -> NDArray[Any]:
    if entry.sliced or entry.dtype not in _DTYPES:
        kind = "saved in parts" if entry.sliced else "text" if entry.dtype == _STRING else f"of type {entry.dtype}"
        problem = f"tensor {name} is {kind}, which is not read"
        raise WeightsError(problem, where=path, cure="save plain numeric variables, or leave this one out")
    dtype = np.dtype(_DTYPES[entry.dtype])
    needed = math.prod(entry.shape) * dtype.itemsize
    if min((0, entry.offset, *entry.shape)) < 0 or needed != entry.size:
        raise _damaged(path, f"{name} of shape {entry.shape} in {entry.size:,} bytes")
    if not path.is_file():
        raise WeightsError("a data file of the checkpoint is missing", where=path, cure=_AGAIN)
    size = path.stat().st_size
    if entry.offset + entry.size > size:
        found, expected = f"{size:,} bytes", f"at least {entry.offset + entry.size:,} (for {name})"
        raise WeightsError("truncated weights", where=path, found=found, expected=expected, cure=_AGAIN)
    raw = np.fromfile(path, np.uint8, entry.size, offset=entry.offset)
    if _masked(crc32c(raw)) != entry.checksum:
        raise _damaged(path, f"a checksum that differs, of tensor {name}")
    array = raw.view(dtype).reshape(entry.shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if entry.dtype == _BFLOAT16 else array


def _damaged(path: object, found: str) -> WeightsError:
    return WeightsError("a damaged checkpoint", where=path, found=found, cure=_AGAIN)


def _literal(name: str) -> str:
    """A file name with the signs of patterns taken literally."""
    return re.sub(r"([*?[])", r"[\1]", name)
