"""How public sets of document pairs are written: GWikiMatch (addresses, or TFRecords), AAN of Long Range Arena."""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from pipelines.data.datasets.document_archives import DAMAGED, opened
from pipelines.data.datasets.document_lists import Row
from pipelines.data.formats.document_types import Document

__all__ = ["LAYOUTS", "bytes_literal", "headless", "page_title", "record_items"]

#: Columns of sets that have no header.
LAYOUTS = {
    "GWikiMatch (label, address, address)": ("label", "left", "right"),
    "AAN pairs of Long Range Arena (label, id, id, text, text)": ("label", "left_id", "right_id", "left", "right"),
}
_ADDRESS = re.compile(r"https?://\S+$")
_NUMBER = re.compile(r"-?\d+(\.\d+)?$")
_LITERAL = re.compile(r"b(['\"]).*\1$", re.DOTALL)
#: Masks what a TFRecord's sums are stored as.
_MASK, _POLYNOMIAL = 0xA282EAD8, 0x82F63B78


def headless(row: Sequence[str]) -> str | None:
    """The layout of a table by its first row; None where that row is a header or nothing that is known.

    Example:
        >>> headless(["1", "https://en.wikipedia.org/wiki/A", "https://en.wikipedia.org/wiki/B"])
        'GWikiMatch (label, address, address)'
    """
    if not row or not _NUMBER.match(row[0].strip()):
        return None
    addresses, pairs = LAYOUTS
    if len(row) == 3 and all(_ADDRESS.match(cell.strip()) for cell in row[1:]):
        return addresses
    return pairs if len(row) == 5 else None


def page_title(address: str) -> str:
    """The title of a page by its address, or of its title as it is: both then agree.

    Example:
        >>> page_title("https://en.wikipedia.org/wiki/Ada_Lovelace"), page_title("Ada Lovelace")
        ('Ada Lovelace', 'Ada Lovelace')
    """
    if _ADDRESS.match(address):
        address = unquote(address.partition("#")[0].partition("/wiki/")[2] or address)
    return " ".join(address.replace("_", " ").split())


def bytes_literal(text: str) -> str | None:
    """The text of a Python bytes literal, as which the AAN pairs hold their texts; None for any other text.

    Example:
        >>> bytes_literal("b'caf\\\\xc3\\\\xa9'"), bytes_literal("b")
        ('café', None)
    """
    if not _LITERAL.match(text):
        return None
    try:
        found = ast.literal_eval(text)
        return found.decode("utf-8") if isinstance(found, bytes) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def record_items(path: Path, limit: int) -> Iterator[Row]:
    """The rows of a TFRecord file of WikiDocPair messages: documents, label.

    A record is its length (8 bytes), the length's sum, the message, the message's sum; the length's sum is compared.
    The message's fields are those of smith/wiki_doc_pair.proto: 3 the human label (2 the machine's), 6 and 7 the
    documents, each with its id, url, title, description and sections.

    Args:
        path: the file, perhaps compressed.
        limit: most bytes of a record.

    Complexity: O(bytes), one record in memory.
    """
    number = 0
    try:
        with opened(path) as file:
            while head := file.read(12):
                number += 1
                place = f"{path.name}:{number}"
                data = _record(file, head, limit)
                if isinstance(data, str):
                    yield place, data
                    return
                yield place, _pair(data)
    except DAMAGED as error:
        yield f"{path.name}:{number + 1}", f"the file is damaged or cut here: {error}"


def _record(file: IO[bytes], head: bytes, limit: int) -> bytes | str:
    if len(head) < 12 or struct.unpack("<I", head[8:])[0] != _masked_sum(head[:8]):
        return "no TFRecord, or a damaged one; what comes after is not read"
    (size,) = struct.unpack("<Q", head[:8])
    if size > limit:
        return f"the record is larger than {limit:,} bytes; what comes after is not read"
    data = file.read(size + 4)
    return data[:size] if len(data) == size + 4 else "the file is cut here"


def _masked_sum(data: bytes) -> int:
    """CRC-32C, turned and shifted as the format wants it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return (((value >> 15) | (value << 17)) + _MASK) & 0xFFFFFFFF


def _pair(data: bytes) -> dict[str, object] | str:
    try:
        fields = list(_fields(data))
        label = next((value for number in (3, 2) for one, value in fields if one == number), None)
        sides = {number: _document(value) for number, value in fields if number in (6, 7) and isinstance(value, bytes)}
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        return f"no WikiDocPair: {error}"
    if set(sides) != {6, 7}:
        return "a WikiDocPair without two documents"
    return {"left": sides[6], "right": sides[7], "label": label}


def _document(data: bytes) -> Document:
    values: dict[int, str] = {}
    parts: list[str] = []
    for number, value in _fields(data):
        if number in (1, 2, 3) and isinstance(value, bytes):
            values[number] = value.decode("utf-8")
        elif number == 5 and isinstance(value, bytes):
            section = [
                text.decode("utf-8") for one, text in _fields(value) if one in (1, 2) and isinstance(text, bytes)
            ]
            parts.append("\n".join(text for text in section if text))
    name = values.get(2) or values.get(1) or values.get(3) or "document"
    return Document(name, "\n\n".join(parts), "text", values.get(3, ""))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a protocol buffer message's fields, in order."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
        elif wire == 2:
            size, place = _varint(data, place)
            if place + size > len(data):
                raise ValueError("a field is cut")
            yield number, data[place : place + size]
            place += size
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {wire}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number is too long")
