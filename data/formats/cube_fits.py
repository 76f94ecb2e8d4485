"""FITS: image extensions, memory-mapped, with the variance of MUSE-like cubes; written by replacing numbers only."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import CubeOptions, nanometres
from pipelines.data.formats.cube_staging import Target
from pipelines.data.formats.cube_types import Cube, Layout

__all__ = ["Extension", "read_fits", "scan_fits", "start_fits"]

_BLOCK, _CARD = 2880, 80
_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_VARIANCES = ("STAT", "VAR", "VARIANCE")
#: Beginnings of CTYPEn of a spectral axis.
_SPECTRAL = ("WAVE", "AWAV", "FREQ", "ENER", "WAVN", "VELO", "VRAD", "VOPT", "ZOPT", "BETA", "LINEAR", "LAMBDA")
_MOST_BLOCKS = 4096


@dataclasses.dataclass(frozen=True)
class Extension:
    """One header and data unit.

    Args:
        name: EXTNAME, or PRIMARY or the number of the unit.
        header: keywords and values as text without quotes.
        shape: lengths of the axes, last axis of FITS first; empty without data.
        start: first byte of the data.
    """

    name: str
    header: dict[str, str]
    shape: tuple[int, ...]
    start: int

    @property
    def is_image(self) -> bool:
        """Whether it holds a plain array."""
        return "SIMPLE" in self.header or self.header.get("XTENSION", "") == "IMAGE"


def scan_fits(path: pathlib.Path) -> list[Extension]:
    """All units of a FITS file, with sizes checked against the length of the file.

    Raises:
        InputError: no FITS, a header without an end, sizes that the file does not hold.

    Complexity: O(headers).

    Source: FITS standard 4.0, sections 3 and 4.
    """
    units: list[Extension] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            begin = file.tell()
            header = _header(file, path.name)
            if units and "XTENSION" not in header and not header.get("EXTNAME"):
                break  # filling after the last unit
            shape = _shape(header, path.name)
            bits = _integer(header, "BITPIX", path.name)
            if bits not in _TYPES:
                expected = ", ".join(map(str, _TYPES))
                raise InputError("unknown data type", where=f"{path.name}, BITPIX", found=bits, expected=expected)
            groups = _integer(header, "GCOUNT", path.name, 1), _integer(header, "PCOUNT", path.name, 0)
            count = groups[0] * (groups[1] + math.prod(shape)) if shape else 0
            length, start = count * abs(bits) // 8, file.tell()
            if length < 0 or start + length > size:
                found, expected = f"{size - start:,} bytes after the header", f"{length:,} for {shape}"
                cure = "copy the file again: it may be cut short"
                where = f"{path.name}, unit {len(units)}"
                raise InputError(
                    "the header contradicts the file size", where=where, found=found, expected=expected, cure=cure
                )
            name = header.get("EXTNAME") or ("PRIMARY" if begin == 0 else str(len(units)))
            units.append(Extension(name, header, shape, start))
            file.seek(start + -(-length // _BLOCK) * _BLOCK)
    return units


def read_fits(path: pathlib.Path, options: CubeOptions) -> Cube:
    """The cube of a FITS file, memory-mapped: the named image of three axes, else `DATA`, else the only one.

    An image of the same shape named STAT, VAR or VARIANCE is its variance. Wavelengths come from the linear axis
    (CRVAL3, CRPIX3, CD3_3 or CDELT3, CUNIT3); integers are scaled by BSCALE and BZERO, BLANK marks no-data.

    Args:
        path: the file.
        options: extension, axis of the bands (of the array with the last axis of FITS first), no-data.

    Raises:
        InputError: as `scan_fits`, or no cube in it.

    Complexity: O(headers) until values are used.
    """
    units = scan_fits(path)
    notes: list[str] = []
    unit = _choose(units, options, path.name, notes)
    axis = _spectral_axis(unit, options, path.name, notes)
    layout = Layout((axis, *(other for other in range(3) if other != axis)))  # type: ignore[arg-type]
    stored = layout.view(_map(path, unit, "r"))
    header = unit.header
    spread = next((u for u in units if u.name.upper() in _VARIANCES and u.shape == unit.shape and u is not unit), None)
    if spread is not None:
        notes.append(f"extension {spread.name} taken as the variance of the noise")
        if _float(spread.header, "BSCALE", 1) != 1 or _float(spread.header, "BZERO", 0) != 0:
            raise InputError("the variance is stored as scaled integers", where=path.name, expected="floats")
    waves = nanometres(*_linear_axis(header, 3 - axis, len(stored)), len(stored), path.name, notes)
    blank = _float(header, "BLANK", math.nan) if stored.dtype.kind in "iu" else math.nan
    no_data = options.no_data if options.no_data is not None else (None if math.isnan(blank) else blank)
    return Cube(
        path,
        "fits",
        stored,
        layout,
        unit.name,
        waves,
        header.get("BUNIT") or None,
        no_data,
        _float(header, "BSCALE", 1),
        _float(header, "BZERO", 0),
        None if spread is None else layout.view(_map(path, spread, "r")),
        {"unit": unit},
        tuple(notes),
    )


def start_fits(cube: Cube, path: pathlib.Path) -> Target:
    """Begin a copy of a cube's file in which only the numbers of the cube are replaced; check sums are taken out."""
    shutil.copyfile(cube.path, path)
    unit: Extension = cube.meta["unit"]
    _drop_sums(path, unit)
    stored = _map(path, unit, "r+")
    return Target(cube.layout.view(stored), stored.flush)


def _header(file: Any, where: str) -> dict[str, str]:
    """Cards of one header; the file stands at the data afterwards."""
    header: dict[str, str] = {}
    for _ in range(_MOST_BLOCKS):
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            break
        for at in range(0, _BLOCK, _CARD):
            card = block[at : at + _CARD].decode("latin-1")
            if card.rstrip() == "END":
                return header
            if card[8:10] == "= ":
                header.setdefault(card[:8].strip(), _value(card[10:]))
    cure = "copy the file again: it may be cut short or damaged"
    raise InputError("a FITS header without its END card", where=where, cure=cure)


def _value(text: str) -> str:
    """The value of a card without quotes and comment."""
    text = text.strip()
    if not text.startswith("'"):
        return text.split("/")[0].strip()
    at, out = 1, ""
    while at < len(text):
        if text[at] == "'" and text[at + 1 : at + 2] != "'":
            break
        at += text[at] == "'"
        out += text[at : at + 1]
        at += 1
    return out.rstrip()


def _shape(header: dict[str, str], where: str) -> tuple[int, ...]:
    axes = _integer(header, "NAXIS", where)
    if not 0 <= axes <= 999:
        raise InputError("an absurd number of axes", where=f"{where}, NAXIS", found=axes, expected="0 to 999")
    shape = tuple(_integer(header, f"NAXIS{axis}", where) for axis in range(axes, 0, -1))
    if any(length < 0 for length in shape):
        raise InputError("an axis of negative length", where=where, found=shape)
    return shape


def _integer(header: dict[str, str], key: str, where: str, default: int | None = None) -> int:
    text = header.get(key)
    if text is None and default is not None:
        return default
    try:
        if text is None or len(text) > 20:
            raise ValueError
        return int(text)
    except ValueError as error:
        problem = f"a FITS header without {key}" if text is None else f"{key} is no whole number"
        raise InputError(problem, where=where, found=text, expected="a whole number") from error


def _float(header: dict[str, str], key: str, default: float) -> float:
    try:
        return float(header.get(key, default))
    except ValueError:
        return default


def _choose(units: list[Extension], options: CubeOptions, where: str, notes: list[str]) -> Extension:
    listing = ", ".join(f"{unit.name} {unit.shape}" for unit in units[:20])
    if any(unit.header.get("ZIMAGE") == "T" for unit in units):
        raise InputError("the images are compressed", where=where, found=listing, cure="unpack the file with funpack")
    images = [unit for unit in units if unit.is_image]
    if options.key is not None:
        named = [unit for unit in images if unit.name.upper() == options.key.upper()]
        if not named:
            cure = "choose one of these with --key"
            raise InputError(f"no image extension '{options.key}'", where=where, found=listing, cure=cure)
    else:
        cubes = [unit for unit in images if len(unit.shape) == 3]
        named = [unit for unit in cubes if unit.name.upper() == "DATA"] or cubes
        if len(named) != 1:
            problem = "several extensions can be the cube" if named else "no extension is a cube"
            cure = "name one with --key"
            raise InputError(problem, where=where, found=listing, expected="one image of three axes", cure=cure)
        notes.append(f"extension {named[0].name} taken as the cube")
    if len(named[0].shape) != 3 or options.shape is not None:
        found, expected = f"{named[0].name} {named[0].shape}", "an image of three axes, without --shape"
        raise InputError("not a cube", where=where, found=found, expected=expected)
    return named[0]


def _spectral_axis(unit: Extension, options: CubeOptions, where: str, notes: list[str]) -> int:
    if options.axis is not None:
        if not -3 <= options.axis < 3:
            raise InputError("no such axis", where=f"{where}, --axis", found=options.axis, expected="0, 1 or 2")
        return options.axis % 3
    types = {axis: unit.header.get(f"CTYPE{3 - axis}", "").upper() for axis in range(3)}
    spectral = [axis for axis, name in types.items() if name.startswith(_SPECTRAL)]
    axis = spectral[0] if len(spectral) == 1 else 0
    reason = f"CTYPE{3 - axis} is {types[axis]}" if len(spectral) == 1 else "the third axis of FITS by custom"
    notes.append(f"axis {axis} of {unit.shape} holds the bands: {reason} (another: --axis)")
    return axis


def _linear_axis(header: dict[str, str], number: int, bands: int) -> tuple[NDArray[np.float64] | None, str | None]:
    step = _float(header, f"CD{number}_{number}", math.nan)
    if math.isnan(step):
        step = _float(header, f"CDELT{number}", math.nan) * _float(header, f"PC{number}_{number}", 1)
    first, pixel = _float(header, f"CRVAL{number}", math.nan), _float(header, f"CRPIX{number}", 1)
    kind = header.get(f"CTYPE{number}", "").upper()
    if (
        math.isnan(step)
        or math.isnan(first)
        or step == 0
        or kind.startswith(("FREQ", "ENER", "WAVN", "V", "Z", "BETA"))
    ):
        return None, None
    if kind.endswith("-LOG"):
        steps = (np.arange(1, bands + 1, dtype=np.float64) - pixel) * step
        return np.asarray(first * np.exp(steps / first), np.float64), header.get(f"CUNIT{number}")
    return np.asarray(first + (np.arange(1, bands + 1) - pixel) * step, np.float64), header.get(f"CUNIT{number}")


def _map(path: pathlib.Path, unit: Extension, mode: Any) -> np.memmap[Any, Any]:
    return np.memmap(path, _TYPES[int(unit.header["BITPIX"])], mode, unit.start, unit.shape)


def _drop_sums(path: pathlib.Path, unit: Extension) -> None:
    """Blank DATASUM and CHECKSUM cards of a unit: they would be wrong for the new numbers."""
    if not {"DATASUM", "CHECKSUM"} & unit.header.keys():
        return
    with path.open("rb+") as file:
        at = unit.start - _CARD
        while at >= 0:
            file.seek(at)
            card = file.read(_CARD)
            if card.startswith((b"DATASUM ", b"CHECKSUM")):
                file.seek(at)
                file.write(b" " * _CARD)
            if card.startswith((b"SIMPLE  =", b"XTENSION=")):
                return
            at -= _CARD
