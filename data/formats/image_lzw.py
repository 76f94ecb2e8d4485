"""Two packings that TIFF has and the standard library lacks: LZW and PackBits."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["unpack_lzw", "unpack_packbits"]

_CLEAR, _END, _FIRST, _MOST = 256, 257, 258, 4096


def unpack_lzw(packed: bytes, size: int) -> bytes:
    """Unpack TIFF's LZW, most significant bit first.

    Args:
        packed: codes of 9 to 12 bits.
        size: bytes that come out at most.

    Returns:
        At most `size` bytes; fewer where the codes end, or stop making sense, sooner.

    Complexity: O(size).

    Source: TIFF 6.0, section 13.

    Example:
        >>> unpack_lzw(bytes([0x80, 0x0B, 0x60, 0x50, 0x22, 0x0C, 0x0C, 0x85, 0x01]), 9).hex(" ")
        '2d 2d 2d 2d 2d 41 2d 2d 2d'
    """
    made = np.empty(size, np.uint8)
    count = _compiled_lzw()(np.frombuffer(packed, np.uint8), made)
    return made[:count].tobytes()


def unpack_packbits(packed: bytes, size: int) -> bytes:
    """Unpack runs of equal and of literal bytes.

    Args:
        packed: runs, each behind a signed byte of its length.
        size: bytes that come out at most.

    Returns:
        At most `size` bytes; fewer where the runs end sooner.

    Complexity: O(size).

    Source: TIFF 6.0, section 9.

    Example:
        >>> unpack_packbits(bytes([0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A]), 9).hex(" ")
        'aa aa aa 80 00 2a'
    """
    made, at = bytearray(), 0
    while at < len(packed) and len(made) < size:
        head = packed[at]
        if head < 128:
            made += packed[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            if head > 128:
                made += packed[at + 1 : at + 2] * (257 - head)
            at += 1 if head == 128 else 2
    return bytes(made[:size])


@functools.cache
def _compiled_lzw() -> Callable[..., int]:
    import numba

    try:
        return numba.njit(_lzw_loop, cache=True, nogil=True)
    except RuntimeError:
        # No folder where numba could keep the machine code: compile in every process instead.
        return numba.njit(_lzw_loop, nogil=True)


def _lzw_loop(packed: NDArray[np.uint8], made: NDArray[np.uint8]) -> int:
    """How many bytes were made. A code stands for a place in what was made before, and a length."""
    place = np.zeros(_MOST + 1, np.int64)
    length = np.zeros(_MOST + 1, np.int64)
    bits, width, following, before, count = 0, 9, _FIRST, -1, 0
    while count < len(made):
        if bits + width > 8 * len(packed):
            break
        code = 0
        for bit in range(bits, bits + width):
            code = (code << 1) | ((packed[bit >> 3] >> (7 - (bit & 7))) & 1)
        bits += width
        if code == _END:
            break
        if code == _CLEAR:
            width, following, before = 9, _FIRST, -1
            continue
        start = count
        if code < _CLEAR:
            made[count] = code
            count += 1
        elif code < following:
            for k in range(length[code]):
                if count < len(made):
                    made[count] = made[place[code] + k]
                    count += 1
        elif code == following and before >= 0:
            # The string before and its own first byte: both already stand in what was made.
            for k in range(length[_MOST]):
                if count < len(made):
                    made[count] = made[place[_MOST] + k]
                    count += 1
            if count < len(made):
                made[count] = made[place[_MOST]]
                count += 1
        else:
            break
        if before >= 0 and following < _MOST:
            # A new entry: the string before and the byte after it, which lie side by side.
            place[following] = place[_MOST]
            length[following] = length[_MOST] + 1
            following += 1
        place[_MOST], length[_MOST], before = start, count - start, code
        if following >= 511 and width == 9:
            width = 10
        elif following >= 1023 and width == 10:
            width = 11
        elif following >= 2047 and width == 11:
            width = 12
    return count
