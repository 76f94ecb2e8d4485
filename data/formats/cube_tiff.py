"""Cubes in TIFF and GeoTIFF, with their georeference and no-data."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import CubeOptions, known_fault, nanometres
from pipelines.data.formats.cube_staging import MAX_LOADED, Target
from pipelines.data.formats.cube_types import Cube, Layout

__all__ = ["GEO_TAGS", "read_tiff", "start_tiff"]

#: Pixel scale, tie points, transformation, the three GeoKey tags, and GDAL's metadata and no-data.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
_METADATA, _NODATA = 42112, 42113
_PACKING = 2000
_ITEM = re.compile(
    r'<Item\s+name="wavelengths?"(?=[^>]*\ssample="(\d+)")[^>]*>\s*([-+.\deE]+)\s*([^<\d]*)</Item>', re.I
)


def read_tiff(path: pathlib.Path, options: CubeOptions) -> Cube:
    """The cube of a TIFF file: samples of a pixel, or pages of the same size, are its bands.

    Uncompressed files in one piece are memory-mapped, others loaded at once.

    Args:
        path: the file.
        options: axis of the bands, no-data.

    Raises:
        InputError: a damaged or too large file, a compression that cannot be read, no cube.

    Complexity: O(values) where the file is compressed or tiled.

    Source: TIFF 6.0; OGC GeoTIFF 1.1; GDAL's tags 42112 and 42113.
    """
    import tifffile

    if options.key is not None or options.shape is not None:
        raise InputError("TIFF has one image", where=path.name, cure="leave --key and --shape out")
    notes: list[str] = []
    try:
        with _warnings(path, notes), np.errstate(all="ignore"), tifffile.TiffFile(path) as file:
            series, page = file.series[0], file.pages[0]
            if len(file.series) > 1:
                notes.append(f"{len(file.series) - 1} more images in the file are not read")
            layout = _layout(series, options, path.name, notes)
            tags = {code: page.tags[code].value for code in GEO_TAGS if code in page.tags}  # type: ignore[union-attr]
            meta = _frame(file, page)
            stored = layout.view(_array(path, file, series, notes))
    except Exception as error:  # the reader raises whatever a damaged tag leads it to
        if "imagecodecs" in str(error):
            cure = "pip install imagecodecs, or write the file without compression"
            found = " ".join(str(error).split())[:120]
            raise InputError("cannot read this compression", where=path.name, found=found, cure=cure) from error
        raise known_fault(error, path.name, "TIFF") from error
    waves, unit = _wavelengths(tags.get(_METADATA), len(stored))
    no_data = options.no_data if options.no_data is not None else _as_number(tags.get(_NODATA), notes)
    if any(code in tags for code in GEO_TAGS[:6]):
        notes.append("georeferenced")
    return Cube(
        path,
        "geotiff",
        stored,
        layout,
        wavelengths=nanometres(waves, unit, len(stored), path.name, notes),
        no_data=no_data,
        meta={"tags": tags, **meta},
        notes=tuple(notes),
    )


def start_tiff(cube: Cube, path: pathlib.Path) -> Target:
    """Begin a TIFF like that of a cube: a copy with new numbers, or, for compressed files, written anew at the end."""
    import tifffile

    with tifffile.TiffFile(cube.path) as file:
        series = file.series[0]
        place, shape, dtype = series.dataoffset, series.shape, series.dtype
        order = file.byteorder
    kind = np.dtype(dtype).newbyteorder(order)
    if place is not None:
        shutil.copyfile(cube.path, path)
        mapped = np.memmap(path, kind, "r+", place, shape)
        return Target(cube.layout.view(mapped), mapped.flush)
    stored = np.empty(shape, np.dtype(dtype))

    def finish() -> None:
        _write(cube, path, stored)

    return Target(cube.layout.view(stored), finish)


@contextlib.contextmanager
def _warnings(path: pathlib.Path, notes: list[str]) -> Iterator[None]:
    """What the package logs becomes a note, or an error where pages were lost."""
    said: list[str] = []

    class _Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split()))

    logger, handler = logging.getLogger("tifffile"), _Collect(logging.WARNING)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
    lost = [text for text in said if "TiffPages" in text]
    if lost:
        raise InputError("pages cannot be read", where=path.name, found=lost[0][:140], cure="write the file again")
    notes.extend(f"the TIFF reader says: {text[:140]}" for text in said[:3])


def _layout(series: Any, options: CubeOptions, where: str, notes: list[str]) -> Layout:
    shape, axes = series.shape, series.axes
    if len(shape) != 3:
        cure = "one band only" if len(shape) == 2 else "take one part of it"
        raise InputError(
            "not a cube", where=where, found=f"{shape} ({axes})", expected="rows, columns, bands", cure=cure
        )
    if options.axis is not None and not -3 <= options.axis < 3:
        raise InputError("no such axis", where=f"{where}, --axis", found=options.axis, expected="0, 1 or 2")
    axis = options.axis % 3 if options.axis is not None else (2 if axes.endswith("S") else 0)
    kind = {2: "samples of a pixel", 0: "planes or pages"}.get(axis, "as asked")
    notes.append(f"axis {axis} of {shape} ({axes}) holds the bands: {kind}")
    rows, columns = (other for other in range(3) if other != axis)
    return Layout((axis, rows, columns))


def _array(path: pathlib.Path, file: Any, series: Any, notes: list[str]) -> NDArray[Any]:
    need, size = series.size * np.dtype(series.dtype).itemsize, path.stat().st_size
    if series.dtype is None or np.dtype(series.dtype).kind not in "fiu":
        raise InputError("the image holds no real numbers", where=path.name, found=f"type {series.dtype}")
    if series.dataoffset is not None:
        if series.dataoffset + need > size:
            expected = f"at least {series.dataoffset + need:,}"
            raise InputError(
                "the header contradicts the file size", where=path.name, found=f"{size:,} bytes", expected=expected
            )
        return np.memmap(
            path, np.dtype(series.dtype).newbyteorder(file.byteorder), "r", series.dataoffset, series.shape
        )
    if need > MAX_LOADED or need > _PACKING * size:
        cure = "write it without compression, which is memory-mapped"
        found, expected = f"{need:,} bytes unpacked from {size:,}", f"at most {min(MAX_LOADED, _PACKING * size):,}"
        raise InputError("too large to be loaded", where=path.name, found=found, expected=expected, cure=cure)
    for page in series.pages:
        ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > size:
            found, expected = f"{size:,} bytes", f"at least {max(ends):,}"
            raise InputError("the file is cut short", where=path.name, found=found, expected=expected)
    notes.append("compressed, tiled or in pieces: loaded at once")
    return series.asarray()


def _frame(file: Any, page: Any) -> dict[str, Any]:
    """What the writer needs to make the same kind of file."""
    return {
        "byteorder": file.byteorder,
        "bigtiff": file.is_bigtiff,
        "photometric": int(page.photometric),
        "planarconfig": int(page.planarconfig),
        "compression": int(page.compression),
        "predictor": int(page.predictor),
        "tile": page.tile[-2:] if page.is_tiled else None,
        "rowsperstrip": None if page.is_tiled else page.rowsperstrip,
        "description": page.description or None,
        "software": page.software or None,
        "resolution": page.resolution,
        "resolutionunit": int(page.resolutionunit),
        "samples": page.samplesperpixel,
    }


def _write(cube: Cube, path: pathlib.Path, stored: NDArray[Any]) -> None:
    import tifffile

    meta = cube.meta
    with tifffile.TiffFile(cube.path) as file:
        page: Any = file.pages[0]
        extra = [
            (code, int(tag.dtype), tag.count, tag.value, True)
            for code in GEO_TAGS
            if (tag := page.tags.get(code)) is not None
        ]
    tifffile.imwrite(
        path,
        stored,
        bigtiff=meta["bigtiff"],
        byteorder=meta["byteorder"],
        photometric=meta["photometric"],
        planarconfig=meta["planarconfig"] if meta["samples"] > 1 else None,
        compression=meta["compression"],
        predictor=meta["predictor"] if meta["predictor"] > 1 else None,
        tile=meta["tile"],
        rowsperstrip=meta["rowsperstrip"],
        description=meta["description"],
        software=meta["software"] or False,
        resolution=meta["resolution"],
        resolutionunit=meta["resolutionunit"],
        metadata=None,
        extratags=extra,
    )


def _wavelengths(text: Any, bands: int) -> tuple[list[float] | None, str | None]:
    """Wavelengths of GDAL's metadata, where every band has one."""
    found = {int(m[1]): (float(m[2]), m[3].strip()) for m in _ITEM.finditer(text if isinstance(text, str) else "")}
    if set(found) != set(range(bands)):
        return None, None
    return [found[band][0] for band in range(bands)], found[0][1] or None


def _as_number(text: Any, notes: list[str]) -> float | None:
    if text is None:
        return None
    try:
        return float(str(text).strip().strip("\x00"))
    except ValueError:
        notes.append(f"the no-data tag holds {str(text)[:20]!r}: not used")
        return None
