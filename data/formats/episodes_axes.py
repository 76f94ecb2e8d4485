"""Which axis of an array of frames is what: time, row, column, colour, episode; told by sizes, or by likeness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from pipelines.data.errors import InputError

__all__ = ["Source", "find_axes", "is_image_like"]

#: Most values of one frame: 16384 x 16384 in RGB.
MOST_VALUES = 3 * 16384 * 16384
_COLOURS = (1, 3)
_EXPECTED = "(T, H, W), (T, H, W, C), (T, C, H, W), or with an axis N of episodes; C = 1 or 3"
_SAMPLES = 32


class Source(Protocol):
    """Numbers on disk or in memory that are taken by ranges: an array, a memory map, a dataset of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """A range along every axis, or one place."""
        ...


def is_image_like(shape: Sequence[int]) -> bool:
    """Whether an array may hold frames: three to five axes, the last ones those of pictures and not of tables.

    Example:
        >>> [is_image_like(shape) for shape in ((10, 64, 64), (10, 64, 64, 3), (10, 7), (5, 9, 2))]
        [True, True, False, False]
    """
    if not 3 <= len(shape) <= 5 or min(shape) < 1:
        return False
    height, width = shape[-2:] if len(shape) == 3 or shape[-1] not in _COLOURS else shape[-3:-1]
    return height >= 4 and width >= 4


def find_axes(
    source: Source, where: str, notes: list[str], *, layout: str | None = None, beside: Sequence[Sequence[int]] = ()
) -> str:
    """The order of the axes of frames, such as `THWC`; how it was told is noted.

    Colour is the last axis or the second after time where it has 1 or 3 places. Episodes and time are told apart by
    the arrays beside (actions of every step), else by likeness: neighbours in time differ less.

    Args:
        source: the frames.
        where: what messages call it.
        notes: gets how axes were told.
        layout: the order that was said, which counts most.
        beside: shapes of arrays of every step (actions, rewards).

    Returns:
        T, H, W and perhaps N and C, one letter an axis.

    Raises:
        InputError: no frames, one picture, channels that are no colours, an order that does not fit or cannot be told.

    Complexity: a few frames are read where likeness decides, else O(1).

    Example:
        >>> notes = []
        >>> find_axes(np.zeros((5, 3, 8, 8)), "a.npy", notes), notes
        ('TCHW', ['(5, 3, 8, 8) read as (T, C, H, W): channels first'])
    """
    shape = tuple(source.shape)
    if not 3 <= len(shape) <= 5:
        raise InputError("not an array of frames", where=where, found=f"shape {shape}", expected=_EXPECTED)
    if min(shape) < 1:
        raise InputError("an array without frames", where=where, found=f"shape {shape}", expected=_EXPECTED)
    axes = _said(shape, layout, where) if layout else _told(source, shape, where, notes, beside)
    sizes = dict(zip(axes, shape, strict=True))
    values = math.prod(sizes[axis] for axis in axes if axis in "HWC")
    if values > MOST_VALUES:
        raise InputError(
            "frames too large", where=where, found=f"{values:,} values a frame", expected=f"{MOST_VALUES:,}"
        )
    return axes


def _said(shape: tuple[int, ...], layout: str, where: str) -> str:
    """The order of axes that was said, if it can be."""
    if len(layout) != len(shape):
        expected = f"{len(layout)} axes for layout {layout}"
        raise InputError("the layout does not fit", where=where, found=f"shape {shape}", expected=expected)
    if "C" in layout and shape[layout.index("C")] not in _COLOURS:
        raise _no_colours(shape, shape[layout.index("C")], where)
    return layout


def _told(source: Source, shape: tuple[int, ...], where: str, notes: list[str], beside: Sequence[Sequence[int]]) -> str:
    if len(shape) == 3:
        if shape[-1] in (1, 3, 4) and min(shape[:2]) > 4:
            raise InputError(
                "one picture, not frames in time",
                where=where,
                found=f"shape {shape}",
                expected=_EXPECTED,
                cure="frames along the first axis; if they are that narrow, say layout THW",
            )
        return "THW"
    last, first = shape[-1] in _COLOURS, shape[-3] in _COLOURS
    if last and first and shape[-2] >= 4:
        raise InputError(
            "the colours may be the first or the last axis of a frame",
            where=where,
            found=f"shape {shape}",
            cure="say the layout, such as THWC or TCHW",
        )
    spatial = "HWC" if last else "CHW" if first else "HW"
    rest = len(shape) - len(spatial)
    if rest == 3:  # five axes without an axis of colours
        raise _no_colours(shape, shape[-1] if shape[-1] < shape[-3] else shape[-3], where)
    if len(spatial) == 2 and shape[-1] in (2, 4) and shape[-2] > 4:
        raise _no_colours(shape, shape[-1], where)
    if rest == 1:
        if spatial == "CHW":
            notes.append(f"{shape} read as (T, C, H, W): channels first")
        return "T" + spatial
    return _which_is_time(source, shape, spatial, where, notes, beside) + spatial


def _no_colours(shape: tuple[int, ...], count: int, where: str) -> InputError:
    cure = "leave out an alpha channel; give frames that were stacked one by one"
    found = f"shape {shape}, {count} channels"
    return InputError("frames that are neither grey nor RGB", where=where, found=found, expected="1 or 3", cure=cure)


def _which_is_time(
    source: Source,
    shape: tuple[int, ...],
    spatial: str,
    where: str,
    notes: list[str],
    beside: Sequence[Sequence[int]],
) -> str:
    """`NT` or `TN` for the first two axes."""
    first, second = shape[:2]
    if first == 1 or second == 1:
        order = "NT" if first == 1 else "TN"
        notes.append(f"{shape} read as one episode of {max(first, second)} frames")
        return order
    named = {"".join(order) for held in beside if len(held) >= 2 for order in _fits(first, second, held[:2])}
    if len(named) == 1:
        order = named.pop()
        notes.append(f"{shape} read as ({', '.join(order + spatial)}), as the arrays beside are")
        return order
    likeness = _differences(source, shape)
    if likeness is None:
        if len(spatial) == 3:
            notes.append(
                f"{shape} read as ({', '.join('NT' + spatial)}), the usual order; neither axis looks like time"
            )
            return "NT"
        raise InputError(
            "it cannot be told which axis is time",
            where=where,
            found=f"shape {shape}; neighbours along neither of the first two axes are clearly more alike",
            cure="say the layout: NTHW (episodes first) or TNHW (time first)",
        )
    along_first, along_second = likeness
    order = "TN" if along_first < along_second else "NT"
    measured = f"neighbours differ by {along_first:.3g} along axis 0 and by {along_second:.3g} along axis 1"
    notes.append(f"{shape} read as ({', '.join(order + spatial)}): {measured}, and time is where they differ less")
    return order


def _fits(first: int, second: int, held: Sequence[int]) -> list[str]:
    """Orders in which an array of (N, T or T - 1) steps fits the first two axes."""
    a, b = held
    out = []
    if a == first and b in (second, second - 1):
        out.append("NT")
    if (b == second and a in (first, first - 1)) or (a == second and b in (first, first - 1) and first != second):
        out.append("TN")
    return out


def _differences(source: Source, shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Mean difference of frames from their neighbours along the first and the second axis, if they are not alike."""
    rng = np.random.default_rng(0)  # the same frames every time
    sums = np.zeros(2)
    for _ in range(_SAMPLES):
        i, j = int(rng.integers(shape[0] - 1)), int(rng.integers(shape[1] - 1))
        here = np.asarray(source[i, j], np.float64)
        for axis, place in enumerate(((i + 1, j), (i, j + 1))):
            sums[axis] += np.abs(np.asarray(source[place], np.float64) - here).mean() / _SAMPLES
    if not np.isfinite(sums).all() or min(sums) > 0.9 * max(sums):
        return None
    return float(sums[0]), float(sums[1])
