"""Reading tables: time stamps, zones, frequencies, pandas and sktime containers."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd
import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.table import ColumnOptions, read_table
from pipelines.data.formats.table_freq import canonical, modern_name, recognise, season_length

HOURS = pd.date_range("2024-03-01", periods=48, freq="h")


def _wide(rows: int = 48, freq: str = "h", **columns: object) -> pd.DataFrame:
    values = {"a": np.sin(np.arange(rows)), "b": np.arange(rows) * 1.5, **columns}
    return pd.DataFrame({"date": pd.date_range("2024-03-01", periods=rows, freq=freq).astype(str), **values})


def _said(table: object, words: str) -> bool:
    return any(words in note for note in table.notes)  # type: ignore[attr-defined]


def _save(folder: pathlib.Path, text: str | bytes, name: str = "t.csv") -> pathlib.Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("freq", "season"),
    [
        ("h", 24),
        ("15min", 96),
        ("D", 7),
        ("B", 5),
        ("W-TUE", 52),
        ("MS", 12),
        ("ME", 12),
        ("QS-JAN", 4),
        ("QE-DEC", 4),
        ("YS-JAN", 1),
        ("YE-DEC", 1),
        ("10s", 360),
        ("2D", 3),
        ("6h", 4),
    ],
)
def test_frequencies_are_recognised(freq: str, season: int) -> None:
    stamps = pd.date_range("2015-01-01", periods=60, freq=freq)
    assert recognise(stamps.delete([5, 6, 20])) == canonical(freq)
    assert season_length(freq) == season
    table = read_table(pd.DataFrame({"date": stamps, "y": np.arange(60.0)}).drop(index=[9]))
    assert table.freq == canonical(freq)
    assert table.future_index(0, 3).equals(pd.date_range(stamps[-1], periods=4, freq=freq)[1:])


def test_old_names_are_understood() -> None:
    assert [modern_name(name) for name in ("t", "T", "H", "m", "Q", "A", "W-MON")] == [
        "min",
        "min",
        "h",
        "ME",
        "QE",
        "YE",
        "W-MON",
    ]
    assert read_table(_wide(), freq="H").freq == "h"
    with pytest.raises(InputError, match="not a frequency"):
        read_table(_wide(), freq="fortnight")


def test_business_days_need_a_weekend_to_tell() -> None:
    days = pd.date_range("2024-01-01", periods=30, freq="B")
    assert read_table(pd.DataFrame({"date": days, "y": np.arange(30.0)})).freq == "B"
    assert read_table(pd.DataFrame({"date": days[:5], "y": np.arange(5.0)})).freq == "D"


@pytest.mark.parametrize(
    ("stamps", "zone", "first"),
    [
        ([f"2024-01-01T{h:02d}:00:00Z" for h in range(9)], "UTC", "2024-01-01 00:00:00+00:00"),
        ([f"2024-01-01 {h:02d}:00:00+05:30" for h in range(9)], "UTC+05:30", "2024-01-01 00:00:00+05:30"),
    ],
)
def test_zones_are_kept(stamps: list[str], zone: str, first: str) -> None:
    table = read_table(pd.DataFrame({"ds": stamps, "y": np.arange(9.0)}))
    assert str(table.series[0].time.tz) == zone
    assert str(table.series[0].time[0]) == first


def test_clock_changes() -> None:
    local = pd.date_range("2024-10-26", periods=72, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"ds": [stamp.isoformat() for stamp in local], "y": np.arange(72.0)})
    with pytest.raises(InputError, match=r"several offsets.*--columns.timezone"):
        read_table(frame)
    table = read_table(frame, columns=ColumnOptions(timezone="Europe/Berlin"))
    assert table.series[0].time.equals(local)
    assert table.freq == "h"
    naive = frame.assign(ds=local.tz_localize(None))
    assert read_table(naive, columns=ColumnOptions(timezone="Europe/Berlin")).series[0].time.equals(local)
    with pytest.raises(InputError, match="clock was set back"):
        read_table(naive)
    with pytest.raises(InputError, match=r"happen twice.*row 2"):
        read_table(naive.iloc[[0, 12, 26, 40]], columns=ColumnOptions(timezone="Europe/Berlin"), freq="h")


def test_local_days_across_a_clock_change() -> None:
    days = pd.date_range("2024-03-25", periods=14, freq="D", tz="Europe/Berlin")
    table = read_table(pd.DataFrame({"ds": days, "y": np.arange(14.0)}).drop(index=[6]))
    assert table.freq == "D"
    assert table.series[0].time.equals(days)
    assert str(table.future_index(0, 1)[0]) == "2024-04-08 00:00:00+02:00"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("{d}.01.2024", "2024-01-01"),
        ("2024/1/{d}", "2024-01-01"),
        ("202401{d:02d}", "2024-01-01"),
        ("{d} Jan 2024", "2024-01-01"),
    ],
)
def test_spellings_of_dates(tmp_path: pathlib.Path, text: str, first: str) -> None:
    rows = "\n".join(f"{text.format(d=day)},{day}" for day in range(1, 9))
    table = read_table(_save(tmp_path, f"date,y\n{rows}"))
    assert str(table.series[0].time[0].date()) == first
    assert table.freq == "D"


def test_ambiguous_dates_stop_with_the_cure(tmp_path: pathlib.Path) -> None:
    path = _save(tmp_path, "date,y\n" + "\n".join(f"0{month}/01/2024,{month}" for month in range(1, 9)))
    with pytest.raises(InputError, match=r"day first or month first, see line 2.*--columns.date_format"):
        read_table(path)
    assert read_table(path, columns=ColumnOptions(date_format="%m/%d/%Y")).freq == "MS"
    assert read_table(path, columns=ColumnOptions(date_format="%d/%m/%Y")).freq == "D"
    sure = _save(tmp_path, "date,y\n" + "\n".join(f"{day}/01/2024,{day}" for day in range(8, 20)))
    assert _said(read_table(sure), "read as %d/%m/%Y")


def test_counts_since_1970(tmp_path: pathlib.Path) -> None:
    path = _save(tmp_path, "time,y\n" + "\n".join(f"{1_700_000_000 + 60 * i},{i}" for i in range(9)))
    with pytest.raises(InputError, match="plain numbers, not dates"):
        read_table(path)
    assert read_table(path, columns=ColumnOptions(date_format="s")).freq == "min"


# ---------------------------------------------------------------- pandas and sktime


def test_sktime_containers() -> None:
    series = pd.Series(np.arange(24.0), index=pd.period_range("2020-01", periods=24, freq="M"), name="sales")
    table = read_table(series)
    assert (table.targets, table.freq, table.wide) == (("sales",), "MS", True)
    assert _said(table, "periods of M")
    panel = pd.concat({("a", "p"): series.to_frame(), ("a", "q"): series.to_frame() * 2}, names=["h0", "h1", "time"])
    hier = read_table(panel)
    assert hier.ids == ("a/p", "a/q")
    assert (hier.wide, hier.targets) == (False, ("sales",))
    frame = pd.DataFrame({"u": np.arange(48.0), "v": np.arange(48.0) ** 2}, index=HOURS)
    assert read_table(frame).targets == ("u", "v")


@pytest.mark.parametrize(
    "data", [np.zeros((9, 2)), [1, 2, 3], pd.Series([1.0, 2.0]), pd.DataFrame({"a": [1.0, 2.0, 3.0]})], ids=str
)
def test_data_without_time_is_refused_with_a_cure(data: object) -> None:
    with pytest.raises(InputError, match=r"date_range"):
        read_table(data)


def test_source_frames_stay_untouched() -> None:
    frame = _wide().iloc[::-1]
    before = frame.copy(deep=True)
    read_table(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_slices_keep_the_future_only_at_the_end() -> None:
    frame = _wide()
    frame.loc[44:, "a"] = np.nan
    table = read_table(frame, columns=ColumnOptions(target=("a",), known=("b",)))
    assert [len(table.head(10).series[0].known), len(table.slice(-5).series[0].known)] == [10, 9]
