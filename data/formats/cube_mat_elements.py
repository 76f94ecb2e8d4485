"""The elements of MATLAB files of version 5 to 7, read with every size checked: a damaged tag must never crash.

The reader of SciPy is fast but written in C: on damaged files it was seen to end the process.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["Element", "element_bytes", "list_elements", "load_array", "load_text", "place_in_file"]

HEADER = 128
MATRIX, COMPRESSED = 14, 15
#: Classes of arrays of numbers -> their type.
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CHAR = 4
#: Types of stored data, which may be narrower than the class.
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
    16: "u1",
    17: "u2",
}
_COMPLEX, _LOGICAL = 0x08, 0x02
_LONGEST_HEAD = 1 << 16
_PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Element:
    """One variable of the file.

    Args:
        name: of the variable; empty for what is no array.
        kind: type of its numbers (`f8`), `text`, or `other`.
        shape: in MATLAB's order.
        start, size: the element in the file, with its tag.
        packed: whether it is compressed.
        order: `<` or `>`.
        data: first byte of the numbers: in the file, or in the unpacked element.
        stored: type that the numbers are stored in.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    size: int
    packed: bool
    order: str
    data: int = 0
    stored: str = ""

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


def list_elements(path: pathlib.Path) -> list[Element]:
    """All variables of a file, from their headers alone.

    Raises:
        InputError: a damaged tag, a size that the file does not hold.

    Complexity: O(variables).

    Source: MAT-File Format of MathWorks, level 5.
    """
    size = path.stat().st_size
    found: list[Element] = []
    with path.open("rb") as file:
        head = file.read(HEADER)
        orders = {b"IM": "<", b"MI": ">"}
        if len(head) < HEADER or head[126:128] not in orders:
            raise _damaged(path, "no byte order in its header")
        order, at = orders[head[126:128]], HEADER
        while at + 8 <= size:
            file.seek(at)
            kind, length = struct.unpack(f"{order}II", file.read(8))
            if kind not in (MATRIX, COMPRESSED):
                raise _damaged(path, f"an unknown element {kind} at byte {at:,}")
            if at + 8 + length > size:
                found_bytes, expected = f"{size - at - 8:,} bytes after byte {at + 8:,}", f"{length:,}"
                raise InputError(
                    "the header contradicts the file size",
                    where=path.name,
                    found=found_bytes,
                    expected=expected,
                    cure="copy the file again: it may be cut short",
                )
            found.append(_element(path, file, order, at, length, kind == COMPRESSED))
            at += 8 + length
            if kind == MATRIX:
                at += -length % 8
    return found


def load_array(path: pathlib.Path, element: Element) -> NDArray[Any]:
    """The numbers of a variable in MATLAB's order of axes: memory-mapped where they are stored plainly.

    Raises:
        InputError: damaged or complex data, or an element that is no array of numbers.

    Complexity: O(values) where the element is compressed or stored in a narrower type.
    """
    where = f"{path.name}, {element.name}"
    if element.kind not in CLASSES.values():
        found, expected = element.kind, "integers or floats"
        raise InputError("the variable holds no real numbers", where=where, found=found, expected=expected)
    offset = place_in_file(element)
    if offset is not None:
        return np.memmap(path, element.order + element.kind, "r", offset, element.shape, "F")
    need = element.count * np.dtype(element.stored).itemsize
    raw = bytearray()
    for piece in element_bytes(path, element):
        raw += piece
        if len(raw) > element.data + need + _LONGEST_HEAD:
            raise _damaged(path, f"'{element.name}' unpacks to more than its header says")
    if len(raw) < element.data + need:
        raise _damaged(path, f"'{element.name}' unpacks to less than its header says")
    numbers = np.frombuffer(raw, element.order + element.stored, element.count, element.data)
    return numbers.astype(element.kind, copy=False).reshape(element.shape, order="F")


def load_text(path: pathlib.Path, element: Element) -> str | None:
    """The text of a variable of characters, or None."""
    if element.kind != "text" or element.count > 1000:
        return None
    raw = b"".join(element_bytes(path, element))
    width = np.dtype(element.stored).itemsize
    text = raw[element.data : element.data + element.count * width]
    ending = "le" if element.order == "<" else "be"
    codec = {1: "utf-8", 2: f"utf-16-{ending}", 4: f"utf-32-{ending}"}.get(width)
    return text.decode(codec, "replace") if codec else None


def place_in_file(element: Element) -> int | None:
    """First byte of the numbers where they lie in the file as they are, else None."""
    return element.data if not element.packed and element.stored == element.kind else None


def element_bytes(path: pathlib.Path, element: Element) -> Iterator[bytes]:
    """The bytes that `Element.data` counts in: of the unpacked element, or of the file up to its end.

    Raises:
        InputError: compressed data that are damaged.
    """
    with path.open("rb") as file:
        if not element.packed:
            yield file.read(element.start + element.size)
            return
        file.seek(element.start + 8)
        left, unpack = element.size - 8, zlib.decompressobj()
        try:
            while left > 0 and not unpack.eof:
                piece = file.read(min(_PIECE, left))
                left -= len(piece)
                while piece and not unpack.eof:
                    yield unpack.decompress(piece, 8 * _PIECE)
                    piece = unpack.unconsumed_tail
            yield unpack.flush()
        except zlib.error as error:
            raise _damaged(path, f"'{element.name}': {error}") from error
        if not unpack.eof:
            raise _damaged(path, f"'{element.name}': compressed data end too early")


def _element(path: pathlib.Path, file: Any, order: str, at: int, length: int, packed: bool) -> Element:
    head, base = file.read(min(length, _LONGEST_HEAD)), at + 8
    if packed:
        try:
            head = zlib.decompressobj().decompress(head, _LONGEST_HEAD)
        except zlib.error as error:
            raise _damaged(path, f"the element at byte {at:,}: {error}") from error
        if len(head) < 8 or struct.unpack(f"{order}I", head[:4])[0] != MATRIX:
            raise _damaged(path, f"no array in the compressed element at byte {at:,}")
        head, base = head[8:], 8
    plain = Element("", "other", (), at, 8 + length, packed, order)
    if not head:
        return plain
    try:
        return _matrix(head, base, plain)
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise _damaged(path, f"the array at byte {at:,}: {str(error) or type(error).__name__}") from error


def _matrix(head: bytes, base: int, plain: Element) -> Element:
    """An array from the first bytes of it: flags, size, name, and where its numbers begin."""
    order = plain.order
    kind, flags, at = _part(head, 0, order)
    if kind != 6 or len(flags) < 8:
        raise ValueError("no flags")
    word = struct.unpack(f"{order}I", flags[:4])[0]
    code, bits = word & 0xFF, word >> 8 & 0xFF
    if code == 17:  # objects of classes have no size
        return plain
    _, sizes, at = _part(head, at, order)
    if len(sizes) < 8 or len(sizes) % 4:
        raise ValueError("no size")
    shape = tuple(struct.unpack(f"{order}{len(sizes) // 4}i", sizes))
    if min(shape) < 0:
        raise ValueError(f"a negative size {shape}")
    _, name, at = _part(head, at, order)
    label = name.decode("ascii", "replace")
    named = dataclasses.replace(plain, name=label, shape=shape)
    if (code not in CLASSES and code != _CHAR) or bits & (_COMPLEX | _LOGICAL) or math.prod(shape) == 0:
        return dataclasses.replace(named, kind="complex" if bits & _COMPLEX else "other")
    stored, count, begin = _tag(head, at, order)
    width = np.dtype(_STORED[stored]).itemsize
    if count != math.prod(shape) * width:
        raise ValueError(f"{count:,} bytes for {shape}")
    if not plain.packed and base + begin + count > plain.start + plain.size:
        raise ValueError(f"{count:,} bytes in an element of {plain.size:,}")
    return dataclasses.replace(
        named,
        kind=CLASSES.get(code, "text"),
        data=base + begin,
        stored=_STORED[stored],
    )


def _tag(head: bytes, at: int, order: str) -> tuple[int, int, int]:
    """(type, bytes, first byte) of a data element; small ones keep their bytes in the tag."""
    word = struct.unpack_from(f"{order}I", head, at)[0]
    if word >> 16:
        return word & 0xFFFF, word >> 16, at + 4
    return word, struct.unpack_from(f"{order}I", head, at + 4)[0], at + 8


def _part(head: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """(type, content, place of the next) of a data element that is whole in `head`."""
    kind, count, begin = _tag(head, at, order)
    if begin + count > len(head):
        raise ValueError("a part that is longer than the element")
    small = begin == at + 4
    return kind, head[begin : begin + count], at + 8 if small else begin + count + -count % 8


def _damaged(path: pathlib.Path, found: str) -> InputError:
    return InputError("not a readable MATLAB file", where=path.name, found=found, cure="write or copy the file again")
