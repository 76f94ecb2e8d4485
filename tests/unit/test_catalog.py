"""Embedded sets: whole, checked, read with the roles they are meant for; public sets recognised."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from pipelines.data import catalog
from pipelines.data.errors import InputError

SIZES = {
    "vic_elec": (52_608, 1, "30min"),
    "appliances": (19_735, 26, "10min"),
    "exchange": (7_260, 14, "B"),
    "beijing_pm": (43_824, 7, "h"),
}


@pytest.mark.parametrize("name", [one.name for one in catalog.entries("forecast")])
def test_embedded_set(name: str) -> None:
    table = catalog.read_named(name)
    rows, targets, freq = SIZES[name]
    assert (table.rows, len(table.targets), table.freq) == (rows, targets, freq)
    assert np.isfinite(table.series[0].target).all()
    assert len(catalog.open_entry(name)) < 1_000_000


def test_demo_has_its_zone_and_roles() -> None:
    table = catalog.read_named("demo")
    assert str(table.series[0].time.tz) == "UTC"
    assert (table.targets, table.known, table.past) == (("Demand",), ("Holiday",), ("Temperature",))
    assert table.series[0].target[0, 0] == 4382.825174


def test_missing_dust_values_stay_marked() -> None:
    table = catalog.read_named("beijing_pm")
    assert (~table.series[0].observed[:, 0]).sum() == 2_067


def test_no_random_columns_among_the_appliances() -> None:
    assert not {"rv1", "rv2"} & set(catalog.read_named("appliances").targets)


@pytest.mark.parametrize("place", [0, 1_000, -1])
def test_one_flipped_bit_is_refused(place: int) -> None:
    content = bytearray(catalog.open_entry("exchange"))
    content[place] ^= 1
    with pytest.raises(InputError, match=r"'exchange' is damaged.*SHA-256"):
        catalog.open_entry("exchange", content=bytes(content))


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="did you mean 'appliances'"):
        catalog.entry("aplliances")
    assert catalog.is_name("demo")
    assert not catalog.is_name("nothing")


def test_every_file_has_a_source_and_a_licence() -> None:
    samples = pathlib.Path(catalog.__file__).parent / "samples"
    licences = (samples / "DATA_LICENSES.md").read_text()
    for path in samples.glob("*/*.xz"):
        assert path.name in licences
        assert path.name in (path.parent / "SOURCE.md").read_text()
        assert any(one.path == f"{path.parent.name}/{path.name}" for one in catalog.entries())


def test_public_sets_are_recognised(benchmark: pathlib.Path, tmp_path: pathlib.Path) -> None:
    names = {"ETTh1.csv": "ETTh1", "national_illness.csv": "ILI"}
    for file, name in names.items():
        found = catalog.identify(benchmark / "forecasting" / file)
        assert found is not None
        assert found.name == name
    other = tmp_path / "ETTh1.csv"
    other.write_text("date,HUFL\n2024-01-01,1\n")
    assert catalog.identify(other) is None


def test_the_catalogue_loads_no_heavy_library() -> None:
    code = "import sys, pipelines.data.catalog, pipelines.data.formats.table_options; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "numpy", "pyarrow", "lightning"} & set(loaded)
