"""Carve the embedded forecasting samples from their source files: `make_samples.py SOURCES [OUT]`.

SOURCES holds the files of the packages named in data/samples/forecasting/SOURCE.md. The same sources give the same
bytes, and the sums printed at the end are those in data/catalog.py.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import pathlib
import sys
import zipfile

import pandas as pd

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "samples" / "forecasting"
# Fourteen currencies with a rate on every business day of the ECB since 1999 (DKK, pegged, HKD and PLN left out).
CURRENCIES = ["USD", "JPY", "GBP", "CHF", "AUD", "CAD", "NZD", "SEK", "NOK", "SGD", "KRW", "ZAR", "CZK", "HUF"]
WEATHER = ["pm2.5", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir"]


def appliances(sources: pathlib.Path) -> pd.DataFrame:
    """Energy use of a house every ten minutes, without the two random columns of its authors."""
    table = pd.read_csv(sources / "minute_energy_appliance.csv.xz", skipinitialspace=True)
    return table.drop(columns=["rv1", "rv2"])


def exchange(sources: pathlib.Path) -> pd.DataFrame:
    """Reference rates of the euro, oldest first."""
    with zipfile.ZipFile(sources / "eurofxref-hist.zip") as archive, archive.open(archive.namelist()[0]) as file:
        table = pd.read_csv(file, na_values="N/A", dtype=dict.fromkeys(CURRENCIES, "str"))
    table = table.rename(columns={"Date": "date"}).sort_values("date")[["date", *CURRENCIES]]
    gaps = table.isna().sum()
    if gaps.any():
        raise SystemExit(f"not gap-free: {gaps[gaps > 0].to_dict()}")
    return table


def vic_elec(sources: pathlib.Path) -> pd.DataFrame:
    """Electricity demand of Victoria every half hour in UTC, with temperature and public holidays."""
    table = pd.read_csv(sources / "vic_elec.csv.xz", dtype={"Demand": "str", "Temperature": "str"})
    table["Holiday"] = table["Holiday"].astype(int)
    return table[["Time", "Demand", "Temperature", "Holiday"]]


def beijing_pm(sources: pathlib.Path) -> pd.DataFrame:
    """Hourly fine dust and weather in Beijing; empty cells stay empty."""
    table = pd.read_csv(sources / "hourly_beijing_pm.csv.xz", dtype=dict.fromkeys(WEATHER, "str"))
    stamps = pd.to_datetime(table[["year", "month", "day", "hour"]])
    table.insert(0, "date", stamps.dt.strftime("%Y-%m-%d %H:%M:%S"))
    return table[["date", *WEATHER]]


def main() -> None:
    """Write the four files and print their rows, sizes and sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=OUT)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for carve in (appliances, exchange, vic_elec, beijing_pm):
        table = carve(given.sources)
        text = table.to_csv(index=False, lineterminator="\n").encode()
        packed = lzma.compress(text, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9 | lzma.PRESET_EXTREME)
        (given.out / f"{carve.__name__}.csv.xz").write_bytes(packed)
        line = f"{carve.__name__:12} {len(table):6} rows {len(packed):8} bytes {hashlib.sha256(packed).hexdigest()}\n"
        sys.stdout.write(line)


if __name__ == "__main__":
    main()
