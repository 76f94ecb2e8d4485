"""A function of bounded reach over a grid too large for memory: overlapping tiles, one band of rows at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pipelines.errors import ConfigError

__all__ = ["Band", "Plan", "Tile", "plan_tiles", "run_tiles"]

Range = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Tile:
    """Columns of one tile: those that it makes, and those that it must see for that, both [start, stop)."""

    made: Range
    seen: Range


@dataclasses.dataclass(frozen=True)
class Band:
    """Rows of one band, those that it makes and those that it must see, and its tiles from left to right."""

    made: Range
    seen: Range
    tiles: tuple[Tile, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bands that make every cell of a (H, W) grid once, each tile with the halo that its function reaches for.

    Args:
        height, width: the grid, in cells.
        halo: cells that the function sees around a cell, in each direction.
        bands: from top to bottom.
    """

    height: int
    width: int
    halo: int
    bands: tuple[Band, ...]

    @property
    def tiles(self) -> int:
        """Tiles altogether."""
        return sum(len(band.tiles) for band in self.bands)

    @property
    def largest(self) -> tuple[int, int]:
        """Rows and columns of the largest tile, with its halo."""
        rows = max(band.seen[1] - band.seen[0] for band in self.bands)
        return rows, max(tile.seen[1] - tile.seen[0] for tile in self.bands[0].tiles)

    @property
    def work(self) -> float:
        """Cells computed for each cell made: 1 for a single tile, more the wider the halo is against the tile."""
        cells = sum(
            (band.seen[1] - band.seen[0]) * (tile.seen[1] - tile.seen[0]) for band in self.bands for tile in band.tiles
        )
        return cells / (self.height * self.width)

    def __str__(self) -> str:
        if self.tiles == 1:
            return "1 tile"
        rows, columns = self.largest
        return f"{self.tiles} tiles of up to {rows} x {columns}, halo {self.halo}, {self.work:.2f} times the work"


def plan_tiles(
    height: int,
    width: int,
    *,
    halo: int,
    budget: int,
    bytes_per_cell: float,
    bytes_per_band_cell: float = 0.0,
    multiple: int = 1,
    tile: int | None = None,
) -> Plan:
    """Cut a grid into the largest near-square tiles that a memory budget allows.

    Args:
        height, width: the grid, in cells of the input.
        halo: how far the function sees from a cell it makes (radius of its receptive field).
        budget: bytes that a tile and the band it belongs to may take together.
        bytes_per_cell: bytes that the function takes for a cell of the tile it is given, measured or estimated.
        bytes_per_band_cell: bytes of input and output that a cell of a full band of rows takes while it is waiting.
        multiple: starts of tiles, with and without halo, are multiples of this, and so are their sizes, except where
            the grid ends: for functions with strides, which see another phase elsewhere.
        tile: rows and columns that a tile makes, instead of the budget's choice.

    Returns:
        The plan; a single tile where the grid fits.

    Raises:
        ConfigError: an empty grid, a setting out of range, or a budget too small for the smallest tile.

    Complexity: O(log(H W) + tiles).

    Example:
        >>> plan = plan_tiles(100, 250, halo=8, budget=10_000, bytes_per_cell=1)
        >>> str(plan), plan.bands[0].tiles[1]
        ('3 tiles of up to 100 x 100, halo 8, 1.13 times the work', Tile(made=(84, 168), seen=(76, 176)))
        >>> str(plan_tiles(100, 250, halo=8, budget=10**6, bytes_per_cell=1))
        '1 tile'
    """
    _check(height=height, width=width, multiple=multiple, budget=budget, tile=1 if tile is None else tile)
    if halo < 0 or not bytes_per_cell > 0 or bytes_per_band_cell < 0:
        found = f"halo {halo}, {bytes_per_cell} and {bytes_per_band_cell} bytes a cell"
        raise ConfigError("tiles cannot be planned", where="tiling", found=found, expected="no negative number")
    reach = _up(halo, multiple)
    if tile is not None:
        rows, columns = _up(tile, multiple), _up(tile, multiple)
    else:

        def cost(rows: int, columns: int) -> float:
            seen = min(rows + 2 * reach, height)
            return seen * (bytes_per_cell * min(columns + 2 * reach, width) + bytes_per_band_cell * width)

        rows, columns = _fitting(height, width, multiple, cost, budget)
    across = tuple(Tile(*ranges) for ranges in _cut(width, columns, reach, multiple))
    bands = tuple(Band(made, seen, across) for made, seen in _cut(height, rows, reach, multiple))
    return Plan(height, width, reach, bands)


def run_tiles(
    plan: Plan,
    read: Callable[[int, int], np.ndarray],
    function: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, ...]],
    write: Callable[..., object],
    *,
    scale: int = 1,
    axes: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Run a function over a grid tile by tile; only one band of rows of input and output is in memory.

    What comes out equals the function of the whole grid where the function sees no farther than the plan's halo and
    treats the edge of what it is given as it would the edge of the grid (tiles at the grid's edge get no halo there).

    Args:
        plan: of the input grid.
        read: gives rows [start, stop) of the input, called once for every row, from top to bottom.
        function: makes one array, or several, of a tile with its halo; each is `scale` times as high and wide.
        write: called as write(start, *bands) with the output row that each band starts at, from top to bottom.
        scale: output cells for one input cell, in each direction.
        axes: where rows and columns stand in the arrays, e.g. (0, 1) in (H, W, C) and (1, 2) in (B, H, W).
        progress: called as progress(done, total) after each tile.

    Raises:
        ConfigError: the function or the reader gives another size than it must.

    Complexity: `plan.work` times the function's own; memory of one band of input and output and one tile.

    Example:
        >>> image = np.arange(48.0).reshape(8, 6)
        >>> plan, bands = plan_tiles(8, 6, halo=0, budget=1, bytes_per_cell=1, tile=4), []
        >>> run_tiles(plan, lambda a, b: image[a:b], lambda x: x + 1, lambda start, band: bands.append(band))
        >>> len(bands), bool((np.concatenate(bands) == image + 1).all())
        (2, True)
    """
    done, total = 0, plan.tiles
    for band, rows in _rolling(plan, read, axes[0]):
        outputs: list[np.ndarray] = []
        for tile in band.tiles:
            made = function(_part(rows, axes[1], tile.seen))
            parts = [_core(array, band, tile, scale, axes) for array in (made if isinstance(made, tuple) else (made,))]
            if not outputs:
                outputs = [_empty_band(part, axes[1], plan.width * scale) for part in parts]
            for output, part in zip(outputs, parts, strict=True):
                _part(output, axes[1], (tile.made[0] * scale, tile.made[1] * scale))[...] = part
            done += 1
            if progress is not None:
                progress(done, total)
        write(band.made[0] * scale, *outputs)


def _rolling(plan: Plan, read: Callable[[int, int], np.ndarray], axis: int) -> Iterator[tuple[Band, np.ndarray]]:
    """Every band with the rows that it sees; rows that the next band sees too are kept, not read again."""
    kept: np.ndarray | None = None
    start = stop = 0
    for band in plan.bands:
        pieces: list[np.ndarray] = []
        if kept is not None and band.seen[0] < stop:
            pieces.append(_part(kept, axis, (band.seen[0] - start, stop - start)))
        if band.seen[1] > stop:
            fresh = read(stop, band.seen[1])
            if fresh.shape[axis] != band.seen[1] - stop:
                expected = f"{band.seen[1] - stop} rows"
                raise ConfigError("the reader gives another number of rows", found=fresh.shape, expected=expected)
            # Bands follow one another, so a row that is read is seen at once, unless there is no halo at all.
            pieces.append(_part(fresh, axis, (max(band.seen[0] - stop, 0), fresh.shape[axis])))
        kept = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)
        start, stop = band.seen[0], max(stop, band.seen[1])
        yield band, kept


def _core(array: np.ndarray, band: Band, tile: Tile, scale: int, axes: tuple[int, int]) -> np.ndarray:
    """The cells that a tile makes, out of what the function gave for all that it sees."""
    for axis, (made, seen) in zip(axes, ((band.made, band.seen), (tile.made, tile.seen)), strict=True):
        if array.shape[axis] != (seen[1] - seen[0]) * scale:
            found, expected = f"{array.shape[axis]} cells", f"{(seen[1] - seen[0]) * scale}"
            raise ConfigError("the function of a tile gives another size", found=found, expected=expected)
        array = _part(array, axis, ((made[0] - seen[0]) * scale, (made[1] - seen[0]) * scale))
    return array


def _part(array: np.ndarray, axis: int, cells: Range) -> np.ndarray:
    index: list[Any] = [slice(None)] * array.ndim
    index[axis] = slice(*cells)
    return array[tuple(index)]


def _empty_band(part: np.ndarray, axis: int, width: int) -> np.ndarray:
    shape = list(part.shape)
    shape[axis] = width
    return np.empty(shape, part.dtype)


def _fitting(height: int, width: int, multiple: int, cost: Callable[[int, int], float], budget: int) -> tuple[int, int]:
    """Rows and columns of the largest tile within the budget: a square, longer where the other side ends sooner."""
    least = cost(multiple, multiple)
    if least > budget:
        raise ConfigError(
            "the memory allowed is too small for one tile",
            where="tiling",
            found=f"{budget / 1e6:.1f} MB",
            expected=f"{math.ceil(least / 1e5) / 10:.1f} MB or more",
            cure="allow more memory",
        )
    rows = _largest(max(height, width), multiple, lambda side: cost(side, side) <= budget)
    rows = min(rows, _up(height, multiple))
    columns = _largest(width, multiple, lambda side: cost(rows, side) <= budget)
    rows = _largest(height, multiple, lambda side: cost(side, columns) <= budget)
    return rows, columns


def _largest(most: int, multiple: int, fits: Callable[[int], bool]) -> int:
    """The largest multiple up to `most`, rounded up, that fits; the smallest one is known to."""
    low, high = 1, _up(most, multiple) // multiple
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * multiple) else (low, middle - 1)
    return low * multiple


def _cut(length: int, longest: int, reach: int, multiple: int) -> Iterator[tuple[Range, Range]]:
    """Made and seen ranges along one axis, of nearly equal length."""
    count = math.ceil(length / longest)
    step = _up(math.ceil(length / count), multiple)
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield (start, stop), (max(start - reach, 0), min(stop + reach, length))


def _up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError("tiles cannot be planned", where=name, found=value, expected="1 or more")
