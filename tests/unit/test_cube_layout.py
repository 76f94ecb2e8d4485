"""Rules of the layout of cubes: which axis holds the bands, which variable is the cube, what wavelengths are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.cube_layout import CubeOptions, choose_key, choose_layout, image_sizes, nanometres


@pytest.mark.parametrize(
    ("shape", "rule", "axis"),
    [
        ((31, 512, 512), "shortest", 0),
        ((512, 512, 31), "shortest", 2),
        ((145, 145, 200), "shortest", None),
        ((500, 30, 30), "shortest", None),
        ((100, 20, 100), "shortest", None),
        ((145, 145, 200), "last", 2),
        ((64, 100, 198), "last", 2),
        ((31, 512, 512), "last", None),
    ],
)
def test_rules_of_the_axis(shape: tuple[int, ...], rule: str, axis: int | None) -> None:
    notes: list[str] = []
    if axis is None:
        with pytest.raises(InputError, match="cannot tell which axis"):
            choose_layout(shape, CubeOptions(), "a", notes, rule=rule)
    else:
        assert choose_layout(shape, CubeOptions(), "a", notes, rule=rule).axes[0] == axis
        assert f"axis {axis}" in notes[0]
    for asked in (-3, -1, 0, 1):
        assert choose_layout(shape, CubeOptions(axis=asked), "a", notes, rule=rule).axes[0] == asked % 3


def test_wavelengths_decide_the_axis() -> None:
    assert choose_layout((500, 30, 40), CubeOptions(), "a", [], rule="shortest", bands=500).axes == (0, 1, 2)
    assert choose_layout((30, 40, 30), CubeOptions(), "a", [], rule="last", bands=30).axes[0] == 2  # two axes fit


def test_keys() -> None:
    notes: list[str] = []
    assert choose_key({"a": (4, 5, 6), "b": (4, 5), "c": (1, 5, 6)}, CubeOptions(), "f", notes) == "a"
    assert "only variable" in notes[0]
    assert choose_key({"Y": (9, 20), "S": (4, 5, 3)}, CubeOptions(), "f", notes, sizes=(4, 5)) == "Y"
    with pytest.raises(InputError, match=r"several variables.*a \(4, 5, 6\), b \(4, 5, 6\)"):
        choose_key({"a": (4, 5, 6), "b": (4, 5, 6)}, CubeOptions(), "f", notes)
    with pytest.raises(InputError, match=r"no variable is a cube.*a \(4, 5\)"):
        choose_key({"a": (4, 5)}, CubeOptions(), "f", notes)
    with pytest.raises(InputError, match=r"no variable 'rda'.*rad.*did you mean --key rad"):
        choose_key({"rad": (4, 5, 6)}, CubeOptions(key="rda"), "f", notes)


def test_sizes_of_images() -> None:
    assert image_sizes({"nRow": 3, "nCol": 4}) == (3, 4)
    assert image_sizes({"lines": 3, "p": 4}) is None
    assert image_sizes({"H": 3.5, "W": 4}) is None


@pytest.mark.parametrize(
    ("given", "unit", "nm", "note"),
    [
        ([0.4, 0.5], "Micrometers", [400, 500], ""),
        ([400, 500], "nm", [400, 500], ""),
        ([4000, 5000], "Angstrom", [400, 500], ""),
        ([4e-7, 5e-7], "m", [400, 500], ""),
        ([0.4, 0.5], None, [400, 500], "taken as micrometres"),
        ([400, 500], "Unknown", [400, 500], "taken as nm"),
        ([4000, 5000], "", [400, 500], "taken as angstrom"),
        ([2500, 2000], "Wavenumber", None, "no length"),
        ([400], "nm", None, "1 for 2 bands"),
        ([400, np.nan], "nm", None, "positive"),
        (["a", "b"], "nm", None, "no numbers"),
        ([1e6, 2e6], None, None, "no unit"),
        (None, None, None, "no wavelengths"),
    ],
)
def test_units_of_wavelengths(given: Any, unit: str | None, nm: list[float] | None, note: str) -> None:
    notes: list[str] = []
    found = nanometres(given, unit, 2, "f", notes)
    assert note in " ".join(notes)
    assert (found is None) == (nm is None)
    if nm is not None:
        assert np.allclose(found, nm)
