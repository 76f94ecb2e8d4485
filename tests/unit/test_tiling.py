"""Tiles: every cell is made once, tiled equals whole for any size, halo and stride, and memory stays in its budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.tiling import plan_tiles, run_tiles


def _box(image: np.ndarray, radius: int, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Weighted sum of each cell's neighbours with zeros outside, always added in the same order."""
    pads = [(0, 0)] * image.ndim
    for axis in axes:
        pads[axis] = (radius, radius)
    padded = np.pad(image, pads)
    total = np.zeros_like(image)
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            index = [slice(None)] * image.ndim
            for axis, shift in zip(axes, (dy, dx), strict=True):
                index[axis] = slice(shift, shift + image.shape[axis])
            total = total + padded[tuple(index)] * (0.1 + 0.37 * dy - 0.21 * dx)
    return total


class Reader:
    """Rows of an array, which notes what it was asked for."""

    def __init__(self, image: np.ndarray, axis: int = 0) -> None:
        self.image, self.axis, self.asked = image, axis, []

    def __call__(self, start: int, stop: int) -> np.ndarray:
        self.asked.append((start, stop))
        return self.image.take(range(start, stop), axis=self.axis)


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    radius=st.integers(0, 4),
    extra=st.integers(0, 3),
    tile=st.integers(1, 17),
    scale=st.integers(1, 3),
    multiple=st.integers(1, 4),
)
def test_tiled_equals_whole(
    height: int, width: int, radius: int, extra: int, tile: int, scale: int, multiple: int
) -> None:
    image = np.random.default_rng(height * 41 + width).random((height, width, 2))

    def function(x: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(_box(x, radius), scale, 0), scale, 1)

    plan = plan_tiles(height, width, halo=radius + extra, budget=1, bytes_per_cell=1, tile=tile, multiple=multiple)
    made = np.full((height * scale, width * scale, 2), np.nan)
    progress: list[tuple[int, int]] = []
    read = Reader(image)

    def write(start: int, band: np.ndarray) -> None:
        assert np.isnan(made[start : start + len(band)]).all()
        made[start : start + len(band)] = band

    run_tiles(plan, read, function, write, scale=scale, progress=lambda *at: progress.append(at))
    np.testing.assert_array_equal(made, function(image))
    assert progress == [(i + 1, plan.tiles) for i in range(plan.tiles)]
    # Every row is read once, in order, so that a stream can give them.
    assert [row for start, stop in read.asked for row in range(start, stop)] == list(range(height))


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    halo=st.integers(0, 63),
    budget=st.integers(2_000, 3_000_000),
    multiple=st.sampled_from([1, 2, 8]),
)
def test_plan_covers_the_grid_within_its_budget(height: int, width: int, halo: int, budget: int, multiple: int) -> None:
    reach = -(-halo // multiple) * multiple
    if min(multiple + 2 * reach, height) * min(multiple + 2 * reach, width) > budget:
        with pytest.raises(ConfigError, match="too small for one tile"):
            plan_tiles(height, width, halo=halo, budget=budget, bytes_per_cell=1, multiple=multiple)
        return
    plan = plan_tiles(height, width, halo=halo, budget=budget, bytes_per_cell=1, multiple=multiple)
    rows = [row for band in plan.bands for row in range(*band.made)]
    assert rows == list(range(height))
    assert [c for tile in plan.bands[0].tiles for c in range(*tile.made)] == list(range(width))
    assert plan.largest[0] * plan.largest[1] <= budget
    for band in plan.bands:
        for made, seen, length in [(band.made, band.seen, height)] + [(t.made, t.seen, width) for t in band.tiles]:
            assert seen[0] <= max(made[0] - halo, 0)
            assert seen[1] >= min(made[1] + halo, length)
            assert made[0] % multiple == seen[0] % multiple == 0
            assert seen[1] == length or seen[1] % multiple == 0


def test_a_halo_too_narrow_shows() -> None:
    image = np.random.default_rng(0).random((20, 20))
    made = np.zeros_like(image)
    plan = plan_tiles(20, 20, halo=2, budget=1, bytes_per_cell=1, tile=8)
    run_tiles(
        plan,
        Reader(image),
        lambda x: _box(x, 3),
        lambda start, band: made.__setitem__(slice(start, start + len(band)), band),
    )
    whole = _box(image, 3)
    assert np.abs(made - whole).max() > 0.1
    np.testing.assert_array_equal(made[:6, :6], whole[:6, :6])


def test_cubes_and_several_results() -> None:
    """Bands first, rows and columns in axes 1 and 2; two results of other depths and dtypes."""
    cube = np.random.default_rng(1).random((3, 19, 23))
    plan = plan_tiles(19, 23, halo=1, budget=1, bytes_per_cell=1, tile=6)
    first, second = [], []

    def write(start: int, a: np.ndarray, b: np.ndarray) -> None:
        assert start == sum(x.shape[1] for x in first)
        first.append(a)
        second.append(b)

    def function(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _box(x, 1, (1, 2)), (x[:1] > 0.5)

    run_tiles(plan, Reader(cube, 1), function, write, axes=(1, 2))
    np.testing.assert_array_equal(np.concatenate(first, 1), _box(cube, 1, (1, 2)))
    np.testing.assert_array_equal(np.concatenate(second, 1), cube[:1] > 0.5)
    assert second[0].dtype == bool


def test_long_and_thin_grids_and_the_budget_of_bands() -> None:
    thin = plan_tiles(10, 100_000, halo=63, budget=4_000_000, bytes_per_cell=1000)
    assert len(thin.bands) == 1
    assert thin.work < 2
    assert plan_tiles(100_000, 10, halo=63, budget=4_000_000, bytes_per_cell=1000).tiles == thin.tiles
    wide = plan_tiles(10_000, 10_000, halo=63, budget=200_000_000, bytes_per_cell=1000, bytes_per_band_cell=51)
    rows, columns = wide.largest
    assert rows * (columns * 1000 + 10_000 * 51) <= 200_000_000
    assert str(plan_tiles(30, 30, halo=9, budget=10**6, bytes_per_cell=1)) == "1 tile"
    assert plan_tiles(30, 30, halo=9, budget=10**6, bytes_per_cell=1).work == 1


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"too small for one tile. Found: 0.0 MB. Expected: 16.2 MB or more"):
        plan_tiles(500, 500, halo=63, budget=1000, bytes_per_cell=1000)
    with pytest.raises(ConfigError, match="height: tiles cannot be planned"):
        plan_tiles(0, 5, halo=1, budget=1000, bytes_per_cell=1)
    with pytest.raises(ConfigError, match="no negative number"):
        plan_tiles(5, 5, halo=-1, budget=1000, bytes_per_cell=1)
    plan = plan_tiles(8, 8, halo=0, budget=1000, bytes_per_cell=1)
    with pytest.raises(ConfigError, match=r"gives another size. Found: 8 cells. Expected: 16"):
        run_tiles(plan, lambda a, b: np.zeros((b - a, 8)), lambda x: x, lambda *_: None, scale=2)
    with pytest.raises(ConfigError, match="reader gives another number of rows"):
        run_tiles(plan, lambda a, b: np.zeros((3, 8)), lambda x: x, lambda *_: None)
