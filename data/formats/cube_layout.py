"""Which variable of a file is the cube, which of its axes holds the bands, and what its wavelengths are."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_types import Layout, Table

__all__ = [
    "CubeOptions",
    "choose_key",
    "choose_layout",
    "image_sizes",
    "known_fault",
    "nanometres",
    "plain_text",
    "wavelength_names",
]

#: Variables that are the cube where a file has several of three axes, the noisy one first.
USUAL_KEYS = ("input", "noisy", "rad", "cube", "data", "hsi", "img", "y")
#: Pairs of scalar variables that hold the size of the image of a table.
_SIZES = (
    ("lines", "cols"),
    ("rows", "cols"),
    ("nrow", "ncol"),
    ("nrows", "ncols"),
    ("height", "width"),
    ("h", "w"),
    ("nl", "nc"),
)
_WAVELENGTHS = ("wavelength", "wavelengths", "wl", "lambda", "band_centers", "centers", "bands_nm")
_TO_NM = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "\u00b5m": 1e3,
    "\u03bcm": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "angstrom": 0.1,
    "a": 0.1,
    "m": 1e9,
    "meter": 1e9,
    "mm": 1e6,
}


@dataclasses.dataclass(frozen=True)
class CubeOptions:
    """How to read a cube where its file does not say.

    Args:
        key: name of the variable, dataset or extension that is the cube.
        axis: stored axis of the bands, from 0; negative counts from the end. MATLAB files: in MATLAB's order.
        shape: rows and columns of the image, for tables of bands and pixels.
        no_data: number that marks voxels without a value, instead of the file's own.

    Example:
        >>> CubeOptions(key="Y", shape=(100, 100)).key
        'Y'
    """

    key: str | None = None
    axis: int | None = None
    shape: tuple[int, int] | None = None
    no_data: float | None = None


def choose_key(
    arrays: Mapping[str, tuple[int, ...]],
    options: CubeOptions,
    where: str,
    notes: list[str],
    *,
    sizes: tuple[int, int] | None = None,
) -> str:
    """The variable that is the cube: the named one, else the only candidate, else the one with a usual name.

    Candidates have three axes, none of length 1, or two of which one is the number of pixels of a known image size.

    Args:
        arrays: shapes of the numeric variables.
        options: what the caller asked for.
        where: the file, for messages.
        notes: gets the choice, where there was one.
        sizes: rows and columns of the image, if the file says them.

    Raises:
        InputError: no such variable, no candidate, or several.

    Example:
        >>> choose_key({"gt": (9, 9, 31), "input": (9, 9, 31)}, CubeOptions(), "a.mat", [])
        'input'
    """
    listing = ", ".join(f"{key} {shape}" for key, shape in sorted(arrays.items())[:20]) or "no arrays of numbers"
    if options.key is not None:
        if options.key in arrays:
            return options.key
        near = difflib.get_close_matches(options.key, list(arrays), 1, 0.5)
        cure = f"did you mean --key {near[0]}?" if near else "choose one of these with --key"
        raise InputError(f"no variable '{options.key}'", where=where, found=listing, cure=cure)
    size = options.shape or sizes
    pixels = size[0] * size[1] if size else -1
    found = [
        key
        for key, shape in arrays.items()
        if (len(shape) == 3 and min(shape) > 1) or (len(shape) == 2 and pixels in shape and min(shape) > 1)
    ]
    if len(found) == 1:
        notes.append(f"'{found[0]}' {arrays[found[0]]} taken as the cube: the only variable that can be one")
        return found[0]
    usual = [key for name in USUAL_KEYS for key in found if key.lower() == name]
    if usual:
        rest = ", ".join(key for key in found if key != usual[0])
        notes.append(f"'{usual[0]}' {arrays[usual[0]]} taken as the cube by its name; not used: {rest}")
        return usual[0]
    problem = "several variables can be the cube" if found else "no variable is a cube"
    expected = "one array of three axes, or a table of bands and pixels with the size of its image"
    raise InputError(problem, where=where, found=listing, expected=expected, cure="name one with --key, and --shape")


def choose_layout(
    shape: tuple[int, ...],
    options: CubeOptions,
    where: str,
    notes: list[str],
    *,
    rule: str,
    bands: int | None = None,
    sizes: tuple[int, int] | None = None,
    column_major: bool = False,
) -> Layout:
    """Where the bands of a stored array lie: as asked, else where the wavelengths fit, else by the format's rule.

    Args:
        shape: of the stored array.
        options: what the caller asked for.
        where: file and variable, for messages.
        notes: gets the rule that decided.
        rule: `last` (MATLAB: rows, columns, bands) or `shortest` (first or last axis, if at most half of the others).
        bands: number of wavelengths in the file, if any.
        sizes: rows and columns of the image of a table.
        column_major: how pixels of a table run.

    Raises:
        InputError: an axis that is not there, or a shape for which the rule does not decide.

    Example:
        >>> choose_layout((512, 512, 31), CubeOptions(), "a.npy", [], rule="shortest").axes
        (2, 0, 1)
    """
    if len(shape) == 2:
        return _table(shape, options, where, notes, options.shape or sizes, column_major)
    if len(shape) != 3:
        raise InputError("not a cube", where=where, found=shape, expected="three axes", cure="take one part of it")
    if options.shape is not None:
        cure = "leave --shape out"
        raise InputError("--shape is for tables of bands and pixels", where=where, found=shape, cure=cure)
    if options.axis is not None:
        if not -3 <= options.axis < 3:
            raise InputError("no such axis", where=f"{where}, --axis", found=options.axis, expected="0, 1 or 2")
        return _layout(options.axis % 3)
    fitting = [axis for axis in range(3) if bands == shape[axis]]
    if len(fitting) == 1:
        notes.append(f"axis {fitting[0]} of {shape} holds the bands: as many as wavelengths")
        return _layout(fitting[0])
    axis = _by_rule(shape, rule)
    if axis is None:
        raise InputError(
            "cannot tell which axis holds the bands",
            where=where,
            found=shape,
            expected="(rows, columns, bands)" if rule == "last" else "a first or last axis half as long as the others",
            cure="say it with --axis 0, 1 or 2",
        )
    reason = "the last, as MATLAB stores cubes" if rule == "last" else "the shortest by far"
    notes.append(f"axis {axis} of {shape} holds the bands: {reason} (another: --axis)")
    return _layout(axis)


def _by_rule(shape: tuple[int, ...], rule: str) -> int | None:
    first, middle, last = shape
    if rule == "last":
        return None if 2 * first <= min(middle, last) else 2
    if 2 * first <= min(middle, last):
        return 0
    return 2 if 2 * last <= min(first, middle) else None


def _layout(axis: int) -> Layout:
    rows, columns = (other for other in range(3) if other != axis)
    return Layout((axis, rows, columns))


def _table(
    shape: tuple[int, ...],
    options: CubeOptions,
    where: str,
    notes: list[str],
    size: tuple[int, int] | None,
    column_major: bool,
) -> Layout:
    if size is None:
        expected, cure = "the size of its image", "say it with --shape ROWS COLUMNS"
        raise InputError("a table of bands and pixels", where=where, found=shape, expected=expected, cure=cure)
    pixels = size[0] * size[1]
    axis = options.axis % 2 if options.axis in (-2, -1, 0, 1) else (1 if shape[0] == pixels else 0)
    if min(size) < 1 or shape[1 - axis] != pixels:
        found, expected = f"{shape[1 - axis]:,} pixels in {shape}", f"{size[0]} x {size[1]} = {pixels:,}"
        raise InputError("the image size does not fit the table", where=where, found=found, expected=expected)
    order = "down the columns" if column_major else "along the rows"
    notes.append(f"{shape} is a table: axis {axis} holds the bands, pixels run {order} of {size[0]} x {size[1]}")
    return Layout((axis, 1 - axis, 1 - axis), Table(size[0], size[1], column_major))


def image_sizes(scalars: Mapping[str, float]) -> tuple[int, int] | None:
    """Rows and columns that a file keeps as two numbers.

    Example:
        >>> image_sizes({"cols": 90.0, "lines": 80.0, "p": 4.0})
        (80, 90)
    """
    lower = {key.lower(): value for key, value in scalars.items()}
    for rows, columns in _SIZES:
        if rows in lower and columns in lower:
            pair = lower[rows], lower[columns]
            if all(math.isfinite(one) and one == int(one) and one > 0 for one in pair):
                return int(pair[0]), int(pair[1])
    return None


def wavelength_names(keys: Sequence[str]) -> str | None:
    """The variable that holds wavelengths, by its name.

    Example:
        >>> wavelength_names(["cube", "Wavelength"])
        'Wavelength'
    """
    return next((key for name in _WAVELENGTHS for key in keys if key.lower() == name), None)


def nanometres(
    values: object, unit: str | None, bands: int, where: str, notes: list[str]
) -> NDArray[np.float64] | None:
    """Wavelengths in nm, by their unit, or by their size where the file names none; a note says what was done.

    Args:
        values: wavelengths as they stand in the file; None where it has none.
        unit: name of their unit.
        bands: how many there must be.
        where: the file, for the note.
        notes: gets what was done.

    Example:
        >>> nanometres([0.4, 0.7], "Micrometers", 2, "a.hdr", [])
        array([400., 700.])
    """
    if values is None:
        notes.append("no wavelengths in the file")
        return None
    try:
        numbers = np.asarray(values, np.float64).ravel()
    except (TypeError, ValueError):
        notes.append("the wavelengths are no numbers: not used")
        return None
    if numbers.size != bands or not np.isfinite(numbers).all() or (numbers <= 0).any():
        found = f"{numbers.size} for {bands} bands" if numbers.size != bands else "not all are positive numbers"
        notes.append(f"the wavelengths do not fit ({found}): not used")
        return None
    name = (unit or "").strip().lower()
    factor = _TO_NM.get(name) or _TO_NM.get(name.rstrip("s"))
    if factor is None and name not in ("", "unknown", "none"):
        notes.append(f"the wavelengths have the unit '{unit}', which is no length: not used")
        return None
    if factor is None:
        factor = next((f for limit, f in ((30, 1e3), (3000, 1.0), (30000, 0.1)) if numbers.max() < limit), None)
        guess = {1e3: "micrometres", 1.0: "nm", 0.1: "angstrom"}.get(factor or 0)
        if factor is None:
            notes.append(f"the wavelengths have no unit and values up to {numbers.max():g}: not used")
            return None
        notes.append(f"the wavelengths have no unit: taken as {guess} by their size")
    return numbers * factor


def known_fault(error: Exception, where: str, what: str) -> InputError:
    """One message for whatever the reader of another package raised on a damaged file."""
    if isinstance(error, InputError):
        return error
    text = " ".join(str(error).split())[:140] or type(error).__name__
    return InputError(f"not a readable {what} file", where=where, found=text, cure="write or copy the file again")


def plain_text(value: Any) -> str | None:
    """A text out of an attribute or a variable, or None."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray) and value.size == 1:
        return plain_text(value.ravel()[0])
    return None
