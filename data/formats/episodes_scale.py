"""Numbers of frames as 0 to 255: whole numbers, 0 to 1, or a white that was said; anything else is refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_axes import Source

__all__ = ["AS_IT_IS", "Scale", "find_scale"]

_PIECE = 1 << 22  # values looked at together
_SLACK = 1e-3  # of white: what resizing filters and float16 go over the edge by
_DIMMEST = 8.0  # largest value of floats that are taken for 0 to 255


@dataclass(frozen=True)
class Scale:
    """What is multiplied to get 0 to 255; None where numbers are bytes already.

    Example:
        >>> Scale(255.0).bytes_of(np.array([0.0, 0.5, 1.0])).tolist()
        [0, 128, 255]
    """

    factor: float | None = None

    def bytes_of(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """The values as uint8, rounded to the nearest (halves to even) and kept within 0 to 255.

        Complexity: O(values).
        """
        if self.factor is None and values.dtype == np.uint8:
            return np.ascontiguousarray(values)
        scaled = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
        return np.rint(scaled * (self.factor or 1.0)).clip(0, 255).astype(np.uint8)


AS_IT_IS = Scale()


@dataclass
class _Seen:
    lowest: float = math.inf
    highest: float = -math.inf
    odd: int = 0


def find_scale(
    sources: Iterable[tuple[Source, str]], where: str, notes: list[str], white: float | None = None
) -> Scale:
    """One scale for all the frames of a source, after a look at every number that is not a byte.

    All parts are looked at together: a dark episode is not made brighter than its neighbours.

    Args:
        sources: arrays of frames and what messages call them.
        where: what messages call all of them.
        notes: gets what the numbers were taken for.
        white: the number that is white, which counts most.

    Raises:
        InputError: NaN or infinite numbers, counted; negative ones; a range that is neither 0 to 1 nor 0 to 255; a
            type that is not one of real numbers.

    Complexity: O(values) in constant memory; O(1) for bytes and truth values.

    Example:
        >>> notes = []
        >>> find_scale([(np.linspace(0, 1, 4).reshape(1, 2, 2), "a.npy")], "a.npy", notes), notes
        (Scale(factor=255.0), ['frames are float64 from 0 to 1: times 255, rounded'])
    """
    kinds: set[np.dtype[Any]] = set()
    seen = _Seen()
    bad = ""
    for source, name in sources:
        kinds.add(np.dtype(source.dtype))
        if source.dtype.kind not in "biuf":
            expected = "integers or floats"
            raise InputError("frames are no numbers", where=name, found=f"dtype {source.dtype}", expected=expected)
        if source.dtype.kind == "b" or (source.dtype == np.uint8 and white is None):
            continue
        before = seen.odd
        _look(source, seen)
        bad = bad or (name if seen.odd > before else "")
    if len(kinds) > 1:
        found = ", ".join(sorted(map(str, kinds)))
        raise InputError("frames of several types", where=where, found=found, expected="one type for all")
    if seen.odd:
        raise InputError(
            "frames hold numbers that are not finite",
            where=bad,
            found=f"{seen.odd:,} NaN or infinite",
            expected="finite numbers",
            cure="replace them before, e.g. by the frame before",
        )
    kind = kinds.pop() if kinds else np.dtype(np.uint8)
    if kind.kind == "b":
        notes.append("frames are true or false: 255 or 0")
        return Scale(255.0)
    if kind == np.uint8 and white is None:
        return AS_IT_IS
    return _chosen(kind, seen, where, notes, white)


def _chosen(kind: np.dtype[Any], seen: _Seen, where: str, notes: list[str], white: float | None) -> Scale:
    low, high = seen.lowest, seen.highest
    found = f"{kind} from {low:.6g} to {high:.6g}"
    if white is not None:
        if low < -_SLACK * white or high > white * (1 + _SLACK):
            raise InputError("frames go beyond white", where=where, found=found, expected=f"0 to {white:g}")
        notes.append(f"frames are {found}: {white:g} is white, rounded to 256 steps")
        return Scale(255.0 / white)
    if low >= -_SLACK and high <= 1 + _SLACK and (kind.kind == "f" or (low >= 0 and high == 1)):
        over = "" if low >= 0 and high <= 1 else ", what is beyond 0 and 1 by rounding cut"
        notes.append(f"frames are {found}: times 255, rounded{over}")
        return Scale(255.0)
    if low >= -_SLACK * 255 and high <= 255 * (1 + _SLACK) and (kind.kind != "f" or high >= _DIMMEST):
        notes.append(f"frames are {found}: read as 0 to 255" + (", rounded" if kind.kind == "f" else ""))
        return Scale(1.0)
    signed = low < 0 and low >= -1 - _SLACK and high <= 1 + _SLACK
    cure = "save (x + 1) / 2" if signed else "say which number is white (white), or save them as 0 to 255"
    if low < 0 and not signed:
        cure = "save them as 0 to 255"
    raise InputError(
        "the scale of the frames is not known", where=where, found=found, expected="0 to 1 or 0 to 255", cure=cure
    )


def _look(source: Source, seen: _Seen) -> None:
    """Lowest and highest number and how many are not finite, piece by piece."""
    for piece in _pieces(source):
        if piece.dtype.kind == "f":
            good = np.isfinite(piece)
            odd = int(piece.size - np.count_nonzero(good))
            seen.odd += odd
            if odd:
                piece = piece[good]
        if piece.size:
            seen.lowest = min(seen.lowest, float(piece.min()))
            seen.highest = max(seen.highest, float(piece.max()))


def _pieces(source: Source) -> Iterator[NDArray[Any]]:
    """The numbers in pieces along the first axis, and the second where one place of the first is large."""
    length, *rest = source.shape
    inner = math.prod(rest)
    if inner > _PIECE and len(rest) > 2:
        step = max(1, _PIECE // math.prod(rest[1:]))
        for place in range(length):
            for first in range(0, rest[0], step):
                yield np.asarray(source[place, first : first + step])
        return
    step = max(1, _PIECE // inner)
    for first in range(0, length, step):
        yield np.asarray(source[first : first + step,])
