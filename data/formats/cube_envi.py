"""ENVI: a text header beside a raw file, memory-mapped in band, line or pixel order."""

from __future__ import annotations

import math
import pathlib
import re
from typing import Any

import numpy as np

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import CubeOptions, nanometres
from pipelines.data.formats.cube_staging import Target, allocate
from pipelines.data.formats.cube_types import Cube, Layout

__all__ = ["envi_pair", "read_envi", "start_envi"]

_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = {6: "complex floats", 9: "complex doubles"}
#: Interleave -> the stored order, by the places of (bands, rows, columns) in it.
_ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (2, 0, 1)}
RAW_SUFFIXES = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".bin", ".sli")
_ENTRY = re.compile(r"^[ \t]*([^={}\n]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", re.MULTILINE)
_LARGEST_HEADER = 16 << 20


def envi_pair(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path] | None:
    """(header, raw file) that a path names, whichever of the two it is; None where it is neither.

    Raises:
        InputError: a header without its raw file.
    """
    if path.suffix.lower() == ".hdr":
        stem = path.with_suffix("")
        named = [stem.with_name(stem.name + suffix) for suffix in RAW_SUFFIXES]
        found = [
            one for one in (*named, *(p.with_suffix(p.suffix.upper()) for p in named if p.suffix)) if one.is_file()
        ]
        if not found:
            expected = ", ".join(one.name for one in named)
            raise InputError("the header has no raw file beside it", where=path, expected=f"one of {expected}")
        return path, found[0]
    for suffix in (".hdr", ".HDR"):
        for header in (path.with_name(path.name + suffix), path.with_suffix(suffix)):
            if header.is_file():
                return header, path
    return None


def read_envi(path: pathlib.Path, options: CubeOptions) -> Cube:
    """The cube of an ENVI pair, memory-mapped.

    Args:
        path: the header or the raw file.
        options: number of no-data; the header says the rest.

    Raises:
        InputError: no header, entries that are missing or unknown, a header that contradicts the size of the raw file.

    Complexity: O(1) until values are used.

    Source: ENVI header format of NV5 Geospatial.
    """
    pair = envi_pair(path)
    if pair is None:
        raise InputError("a raw file without its ENVI header", where=path, expected=f"{path.with_suffix('.hdr').name}")
    header, raw = pair
    if options.key is not None or options.axis is not None or options.shape is not None:
        cure = "leave --key, --axis and --shape out"
        raise InputError("ENVI headers say the layout themselves", where=header.name, cure=cure)
    fields = _fields(header)
    shape, order, dtype, offset = _geometry(fields, header.name)
    need, have = offset + math.prod(shape) * dtype.itemsize, raw.stat().st_size
    if need != have:
        found = f"{have:,} bytes in {raw.name}"
        expected = f"{need:,} bytes: {offset:,} + {' x '.join(map(str, shape))} of {dtype.name}"
        cure = "check samples, lines, bands, data type and header offset, or copy the raw file again"
        raise InputError(
            "the header contradicts the file size", where=header.name, found=found, expected=expected, cure=cure
        )
    layout = Layout(order)
    stored = np.memmap(raw, dtype, "r", offset, shape)
    notes: list[str] = []
    bands = layout.view(stored).shape[0]
    waves = nanometres(_numbers(fields.get("wavelength")), fields.get("wavelength units"), bands, header.name, notes)
    if "reflectance scale factor" in fields:
        notes.append(
            f"values are kept as stored: the reflectance scale factor {fields['reflectance scale factor']} too"
        )
    no_data = options.no_data if options.no_data is not None else _number(fields, "data ignore value", header.name)
    return Cube(
        path,
        "envi",
        layout.view(stored),
        layout,
        wavelengths=waves,
        no_data=no_data,
        meta={"header": header, "raw": raw, "map info": fields.get("map info")},
        notes=tuple(notes),
    )


def start_envi(cube: Cube, raw: pathlib.Path, header: pathlib.Path) -> Target:
    """Begin an ENVI pair like that of a cube: the header is kept word for word."""
    source: pathlib.Path = cube.meta["header"]
    shape, _, dtype, offset = _geometry(_fields(source), source.name)
    with cube.meta["raw"].open("rb") as file:
        head = file.read(offset)
    allocate(raw, offset + math.prod(shape) * dtype.itemsize, head)
    header.write_bytes(source.read_bytes())
    stored = np.memmap(raw, dtype, "r+", offset, shape)
    return Target(cube.layout.view(stored), stored.flush)


def _fields(header: pathlib.Path) -> dict[str, str]:
    """Entries of a header, keys in lower case, lists without their braces."""
    content = header.read_bytes() if header.stat().st_size <= _LARGEST_HEADER else b""
    if content.lstrip(b"\xef\xbb\xbf")[:4] != b"ENVI":
        found = f"it begins with {content[:12]!r}"
        raise InputError("not an ENVI header", where=header, found=found, expected="a text that begins with ENVI")
    text = content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    found_all = (match.groups() for match in _ENTRY.finditer(text))
    return {" ".join(key.lower().split()): value.strip().strip("{}").strip() for key, value in found_all}


def _geometry(
    fields: dict[str, str], where: str
) -> tuple[tuple[int, int, int], tuple[int, int, int], np.dtype[Any], int]:
    """(stored shape, places of bands, rows and columns, type, offset)."""
    size = {name: _integer(fields, name, where) for name in ("bands", "lines", "samples")}
    if min(size.values()) < 1:
        raise InputError("an axis is empty or negative", where=where, found=size, expected="at least 1 each")
    code, swapped = _integer(fields, "data type", where), _integer(fields, "byte order", where, 0)
    if code not in _TYPES:
        found = f"{code} ({_COMPLEX[code]})" if code in _COMPLEX else code
        expected = ", ".join(f"{number} ({np.dtype(name).name})" for number, name in _TYPES.items())
        raise InputError("unknown data type", where=f"{where}, data type", found=found, expected=expected)
    if swapped not in (0, 1):
        raise InputError(
            "unknown byte order", where=where, found=swapped, expected="0 (little endian) or 1 (big endian)"
        )
    for name, harmless in (("file compression", "0"), ("major frame offsets", "0,0"), ("minor frame offsets", "0,0")):
        if fields.get(name, harmless).replace(" ", "") != harmless:
            cure = "export the cube again without it"
            raise InputError(f"cannot read files with '{name}'", where=where, found=fields[name], cure=cure)
    interleave = fields.get("interleave", "").lower()
    if interleave not in _ORDERS:
        raise InputError(
            "unknown interleave", where=where, found=interleave or "none", expected=", ".join(sorted(_ORDERS))
        )
    offset = _integer(fields, "header offset", where, 0)
    if offset < 0:
        raise InputError("a negative header offset", where=where, found=offset, expected="0 or more")
    order = _ORDERS[interleave]
    lengths = (size["bands"], size["lines"], size["samples"])
    shape = [0, 0, 0]
    for place, length in zip(order, lengths, strict=True):
        shape[place] = length
    return (shape[0], shape[1], shape[2]), order, np.dtype(("<", ">")[swapped] + _TYPES[code]), offset


def _integer(fields: dict[str, str], name: str, where: str, default: int | None = None) -> int:
    text = fields.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"[+-]?\d{1,18}", text):
        problem = f"the header has no '{name}'" if text is None else f"'{name}' is no whole number"
        raise InputError(problem, where=where, found=text, expected="a whole number")
    return int(text)


def _number(fields: dict[str, str], name: str, where: str) -> float | None:
    text = fields.get(name)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"'{name}' is no number", where=where, found=text, expected="a number") from error


def _numbers(text: str | None) -> list[str] | None:
    return None if text is None else [part for part in text.replace("\n", " ").replace(",", " ").split() if part]
