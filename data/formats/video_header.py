"""What the headers of some containers say by themselves: sizes before FFmpeg takes them, lengths that it corrects."""

from __future__ import annotations

import re
import struct

__all__ = ["avi_seconds", "declared_size"]

_Y4M = re.compile(rb"YUV4MPEG2 (?:[^\n]* )?W(\d{1,9})[ \n](?:[^\n]* )?H(\d{1,9})[ \n]")


def declared_size(head: bytes, kind: str) -> tuple[int, int] | None:
    """(width, height) that a film's first bytes declare; None for other containers, and where it is not found.

    Args:
        head: the first 4,096 bytes.
        kind: Y4M, GIF, APNG, IVF or AVI.

    Complexity: O(1).

    Source: the formats' own descriptions: YUV4MPEG2, GIF89a section 18, PNG section 11.2.2, IVF, RIFF AVI.

    Example:
        >>> declared_size(b"YUV4MPEG2 W640 H480 F25:1\\nFRAME\\n", "Y4M")
        (640, 480)
    """
    try:
        if kind == "Y4M":
            match = _Y4M.match(head)
            return None if match is None else (int(match[1]), int(match[2]))
        if kind == "GIF":
            return struct.unpack_from("<HH", head, 6)
        if kind == "APNG":
            return struct.unpack_from(">II", head, 16)
        if kind == "IVF":
            return struct.unpack_from("<HH", head, 12)
        if kind == "AVI":
            at = head.find(b"avih")
            return struct.unpack_from("<II", head, at + 40) if at >= 0 else None
    except struct.error:
        pass
    return None


def avi_seconds(head: bytes) -> float | None:
    """How long the film of an AVI is by its header; FFmpeg shortens what it is told where the file was cut.

    Args:
        head: the first 4,096 bytes.

    Complexity: O(1).

    Source: RIFF AVI, AVISTREAMHEADER.

    Example:
        >>> avi_seconds(b"strh" + struct.pack("<I4s4x12xIIII", 56, b"vids", 1, 10, 0, 795))
        79.5
    """
    at = head.find(b"vids") - 8
    if at < 0 or head[at : at + 4] != b"strh" or len(head) < at + 44:
        return None
    scale, rate, _, length = struct.unpack_from("<IIII", head, at + 28)
    return length * scale / rate if scale and rate and length else None
