"""The few fields of EXIF that change with the pixels: orientation, size and preview."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

import numpy as np

__all__ = ["orientation_of", "read_exif", "turned", "with_size"]

_ORIENTATION, _SUB_FOLDER = 0x0112, 0x8769
_SIZES = {0x0100: "width", 0x0101: "height", 0xA002: "width", 0xA003: "height"}
_SHORT, _LONG = 3, 4
_TURNS = {
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored and turned by 90 degrees",
    6: "turned by 90 degrees clockwise",
    7: "mirrored and turned by 90 degrees",
    8: "turned by 90 degrees counterclockwise",
}


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One field: its tag, its type, how many values, and where the entry stands in the block."""

    tag: int
    kind: int
    count: int
    at: int


def read_exif(block: bytes | None) -> tuple[bytes | None, int, tuple[str, ...]]:
    """EXIF as it may go with upright pixels, the orientation that it had, and notes.

    Args:
        block: TIFF-structured bytes, with or without the mark "Exif" in front; None for no EXIF.

    Returns:
        The block with orientation 1 and without its preview, which would show the old picture; None where there is
        none or where it is damaged; the orientation 1 .. 8 to apply; what was changed.

    Complexity: O(size of the block).

    Source: EXIF 2.32, section 4.6; TIFF 6.0, section 2.

    Example:
        >>> entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
        >>> block = b"II*" + bytes(1) + struct.pack("<IH", 8, 1) + entry + bytes(4)
        >>> kept, orientation, notes = read_exif(block)
        >>> orientation, read_exif(kept)[1], notes
        (6, 1, ('turned by 90 degrees clockwise, as its EXIF orientation 6 says',))
    """
    if not block:
        return None, 1, ()
    block = block.removeprefix(b"Exif\0\0")
    try:
        order, first = _header(block)
        entries = {entry.tag: entry for entry in _entries(block, order, first)}
        end = first + 2 + 12 * len(_listed(block, order, first))
        (following,) = struct.unpack_from(order + "I", block, end)
        value = 1
        if _ORIENTATION in entries and entries[_ORIENTATION].kind == _SHORT:
            (value,) = struct.unpack_from(order + "H", block, entries[_ORIENTATION].at + 8)
    except (struct.error, ValueError):
        return None, 1, ("EXIF is damaged: left out, orientation unknown",)
    changed, notes = bytearray(block), []
    if following:
        struct.pack_into(order + "I", changed, end, 0)
        notes.append("EXIF preview left out: it shows the picture as it was")
    if value != 1:
        struct.pack_into(order + "H", changed, entries[_ORIENTATION].at + 8, 1)
    orientation, of_turning = orientation_of(value)
    return bytes(changed), orientation, (*notes, *of_turning)


def orientation_of(value: int) -> tuple[int, tuple[str, ...]]:
    """An orientation that a file states, 1 where it is none, and what to note about it.

    Example:
        >>> orientation_of(3), orientation_of(0)[0]
        ((3, ('turned by 180 degrees, as its EXIF orientation 3 says',)), 1)
    """
    if not 1 <= value <= 8:
        return 1, (f"EXIF orientation {value} does not exist: not turned",)
    return value, (f"{_TURNS[value]}, as its EXIF orientation {value} says",) if value > 1 else ()


def with_size(block: bytes | None, height: int, width: int) -> bytes | None:
    """EXIF whose fields of width and height, where it has them, say the given ones; a damaged block is dropped.

    Complexity: O(size of the block).

    Example:
        >>> entry = struct.pack("<HHII", 0x0100, 4, 1, 5)
        >>> block = b"II*" + bytes(1) + struct.pack("<IH", 8, 1) + entry + bytes(4)
        >>> struct.unpack_from("<I", with_size(block, 70, 90000), 18)
        (90000,)
    """
    if not block:
        return None
    changed, values = bytearray(block), {"height": height, "width": width}
    try:
        order, first = _header(block)
        places = [first]
        places += [
            struct.unpack_from(order + "I", block, entry.at + 8)[0]
            for entry in _entries(block, order, first)
            if entry.tag == _SUB_FOLDER
        ]
        for place in places:
            for entry in _entries(block, order, place):
                if entry.tag in _SIZES and entry.kind in (_SHORT, _LONG) and entry.count == 1:
                    # A long integer always fits where the value stands, a short one would not hold 65,536.
                    struct.pack_into(order + "H", changed, entry.at + 2, _LONG)
                    struct.pack_into(order + "I", changed, entry.at + 8, values[_SIZES[entry.tag]])
    except (struct.error, ValueError):
        return None
    return bytes(changed)


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, ...) upright, out of pixels stored in one of EXIF's eight orientations; a view.

    Complexity: O(1).

    Source: EXIF 2.32, section 4.6.4, tag 0x0112.

    Example:
        >>> turned(np.array([[1, 2, 3], [4, 5, 6]]), 6).tolist()
        [[4, 1], [5, 2], [6, 3]]
    """
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _header(block: bytes) -> tuple[str, int]:
    """Byte order as struct writes it, and where the first folder of fields begins."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        raise ValueError("no TIFF header")
    return order, struct.unpack_from(order + "I", block, 4)[0]


def _listed(block: bytes, order: str, place: int) -> range:
    (count,) = struct.unpack_from(order + "H", block, place)
    if place + 2 + 12 * count + 4 > len(block):
        raise ValueError("a folder of fields that leaves the block")
    return range(count)


def _entries(block: bytes, order: str, place: int) -> Iterator[_Entry]:
    for number in _listed(block, order, place):
        at = place + 2 + 12 * number
        tag, kind, values = struct.unpack_from(order + "HHI", block, at)
        yield _Entry(tag, kind, values, at)
