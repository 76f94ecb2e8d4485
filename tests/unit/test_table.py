"""Reading tables: layouts, roles, files, and the policies for gaps, repeats and disorder."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pathlib
import zipfile

import numpy as np
import pandas as pd
import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.table import ColumnOptions, read_table

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


# ---------------------------------------------------------------- layouts and roles


def test_real_ett(etth1: pathlib.Path) -> None:
    table = read_table(etth1)
    expected = pd.read_csv(etth1, index_col="date", parse_dates=True, float_precision="round_trip")
    assert table.wide
    assert table.freq == "h"
    assert table.targets == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    np.testing.assert_array_equal(table.series[0].target, expected.to_numpy())
    assert table.series[0].observed.all()
    assert table.notes == ()
    assert table.rows == 17_420


def test_named_target_makes_the_others_past(etth1: pathlib.Path) -> None:
    table = read_table(etth1, columns=ColumnOptions(target=("OT",), known=("HUFL",), drop=("LULL",)))
    assert (table.targets, table.known) == (("OT",), ("HUFL",))
    assert table.past == ("HULL", "MUFL", "MULL", "LUFL")


def test_long_layout_keeps_names_with_zeros_and_na(tmp_path: pathlib.Path) -> None:
    rows = [
        f"{name},2024-01-{day:02d},{day * factor}" for factor, name in ((1, "007"), (2, "NA")) for day in range(1, 6)
    ]
    table = read_table(_save(tmp_path, "unique_id,ds,y\n" + "\n".join(rows)))
    assert table.ids == ("007", "NA")
    assert not table.wide
    assert table.targets == ("y",)
    assert table.series[1].target[:, 0].tolist() == [2, 4, 6, 8, 10]


def test_long_layout_with_exogenous_static_and_known_future() -> None:
    frames = []
    for name, size in (("x", 1.0), ("z", 2.0)):
        frame = pd.DataFrame({"unique_id": name, "ds": HOURS, "y": np.arange(48.0), "price": 1.0 * np.arange(48)})
        frame["wind"], frame["size"], frame["kind"] = np.arange(48.0) ** 2, size, "shop" if name == "x" else "kiosk"
        frame.loc[40:, ["y", "wind"]] = np.nan
        frames.append(frame)
    table = read_table(pd.concat(frames), columns=ColumnOptions(known=("price",), static=("size", "kind")))
    one = table.series[0]
    assert (table.known, table.past, table.static) == (("price",), ("wind",), ("size", "kind"))
    assert one.target.shape == (40, 1)
    assert one.known.shape == (48, 1)
    assert one.past.shape == (40, 1)
    assert len(one.future_time) == 8
    assert one.static == {"size": 1.0, "kind": "shop"}


def test_flags_become_numbers() -> None:
    table = read_table(
        _wide(open=["TRUE", "False"] * 24, closed=[True, False] * 24), columns=ColumnOptions(target=("a",))
    )
    assert table.series[0].past[:2].tolist() == [[0.0, 1.0, 1.0], [1.5, 0.0, 0.0]]


def test_trailing_targets_without_known_values_are_filled_not_cut() -> None:
    frame = _wide()
    frame.loc[44:, "a"] = np.nan
    table = read_table(frame, columns=ColumnOptions(target=("a",)))
    assert table.rows == 48
    assert table.series[0].observed[:, 0].sum() == 44
    assert table.series[0].target[47, 0] == frame["a"][43]


def test_future_known_must_be_whole() -> None:
    frame = _wide()
    frame.loc[44:, "a"] = np.nan
    frame.loc[46, "b"] = np.nan
    with pytest.raises(InputError, match="known column 'b' has no value"):
        read_table(frame, columns=ColumnOptions(target=("a",), known=("b",)))


def test_static_must_not_change() -> None:
    with pytest.raises(InputError, match="static column 'b' must have one value"):
        read_table(_wide(), columns=ColumnOptions(static=("b",)))


def test_unknown_column_and_two_roles() -> None:
    with pytest.raises(InputError, match="did you mean 'b'"):
        read_table(_wide(), columns=ColumnOptions(target=("bb",)))
    with pytest.raises(InputError, match="two roles"):
        read_table(_wide(), columns=ColumnOptions(target=("a",), known=("a",)))


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".csv", ".gz", ".bz2", ".xz", ".zip", ".parquet", ".tsv"])
def test_every_container_gives_the_same_table(tmp_path: pathlib.Path, suffix: str) -> None:
    frame = _wide()
    path = tmp_path / f"t{suffix}"
    text = frame.to_csv(index=False, sep="\t" if suffix == ".tsv" else ",").encode()
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.csv", text)
    else:
        pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(suffix, bytes)
        path.write_bytes(pack(text))
    table = read_table(path)
    np.testing.assert_array_equal(table.series[0].target, frame[["a", "b"]].to_numpy())
    assert table.source == path.name


def test_decimal_comma_byte_order_mark_and_latin_letters(tmp_path: pathlib.Path) -> None:
    text = "date;Wärme\n" + "\n".join(f"2024-01-{day:02d};{day},5" for day in range(1, 9))
    table = read_table(_save(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    assert table.targets == ("Wärme",)
    assert table.series[0].target[0, 0] == 1.5
    assert _said(table, "decimal comma")
    assert _said(read_table(_save(tmp_path, text.encode("latin-1"))), "Latin-1")
    assert read_table(_save(tmp_path, text.encode("utf-16"))).targets == ("Wärme",)


def test_a_late_decimal_comma_is_seen(tmp_path: pathlib.Path) -> None:
    days = pd.date_range("2020-01-01", periods=900).strftime("%Y-%m-%d")
    text = "date;y\n" + "\n".join(f"{day};{i}{',5' if i > 800 else ''}" for i, day in enumerate(days))
    assert read_table(_save(tmp_path, text)).series[0].target[850, 0] == 850.5


def test_thousands_are_refused(tmp_path: pathlib.Path) -> None:
    text = "date;y\n" + "\n".join(f"2024-01-{day:02d};{day}.234,5" for day in range(1, 9))
    with pytest.raises(InputError, match="thousands"):
        read_table(_save(tmp_path, text))


def test_quotes_row_numbers_and_empty_lines(tmp_path: pathlib.Path) -> None:
    text = ",date,y\n" + "\n".join(f'{day},"2024-01-{day:02d}","{day}"' for day in range(1, 6)) + "\n\n\n"
    text = text.replace('\n4,"', '\n\n4,"')
    table = read_table(_save(tmp_path, text))
    assert table.rows == 5
    assert _said(table, "row numbers")
    assert _said(table, "1 empty lines")


def test_quoted_line_breaks_keep_line_numbers(tmp_path: pathlib.Path) -> None:
    text = 'date,y,"long\nname"\n2024-01-01,1,2\n2024-01-02,oops,3\n2024-01-03,3,4\n'
    with pytest.raises(InputError, match=r"'y', the first in line 4"):
        read_table(_save(tmp_path, text))


# ---------------------------------------------------------------- policies


def test_gaps_are_counted_and_filled_from_the_past() -> None:
    frame = _wide().drop(index=[10, 11, 12, 30])
    frame.loc[20, "a"] = np.nan
    table = read_table(frame)
    one = table.series[0]
    assert table.rows == 48
    assert one.target[12].tolist() == frame.loc[9, ["a", "b"]].tolist()
    assert one.observed.sum() == 96 - 8 - 1
    assert _said(table, "4 missing steps inserted, the longest gap has 3")
    assert _said(table, "a 5, b 4")


def test_interpolation_says_that_it_looks_ahead() -> None:
    table = read_table(_wide().drop(index=[10]), missing="interpolate")
    assert table.series[0].target[10, 1] == 15.0
    assert _said(table, "looks ahead")


def test_leading_gap_takes_the_first_value() -> None:
    frame = _wide()
    frame.loc[:2, "a"] = np.nan
    table = read_table(frame)
    assert table.series[0].target[0, 0] == frame["a"][3]
    assert _said(table, "3 empty values before")


def test_missing_error_names_the_place() -> None:
    frame = _wide()
    frame.loc[5, "b"] = np.nan
    with pytest.raises(InputError, match=r"column 'b' at 2024-03-01 05:00"):
        read_table(frame, missing="error")


def test_disorder_is_sorted_and_said() -> None:
    table = read_table(_wide().iloc[::-1])
    assert _said(table, "47 rows out of order")
    assert table.series[0].target[1, 1] == 1.5


@pytest.mark.parametrize(("rule", "value"), [("first", 0.0), ("last", 9.0), ("mean", 4.5)])
def test_duplicates(rule: str, value: float) -> None:
    extra = _wide().iloc[[0]].assign(b=9.0)
    frame = pd.concat([_wide(), extra])
    with pytest.raises(InputError, match=r"row 0 and row 48.*--on_duplicate"):
        read_table(frame)
    table = read_table(frame, on_duplicate=rule)  # type: ignore[arg-type]
    assert table.series[0].target[0, 1] == value
    assert _said(table, "1 rows with a repeated")


def test_irregular_stamps_and_resampling() -> None:
    frame = _wide(48, "min")
    frame.loc[7, "date"] = "2024-03-01 00:07:20"
    with pytest.raises(InputError, match=r"row 7.*--resample"):
        read_table(frame)
    table = read_table(frame, resample="5min")
    assert table.freq == "5min"
    assert table.rows == 10
    assert table.series[0].target[0, 1] == 3.0
    assert _said(table, "48 rows averaged onto 10 steps of 5min")


def test_resampling_tells_empty_steps_and_refuses_absurd_ones() -> None:
    table = read_table(_wide().drop(index=[4, 5, 6, 7]), resample="2h")
    assert table.rows == 24
    assert _said(table, "2 missing steps inserted, the longest gap has 2")
    with pytest.raises(InputError, match="almost empty"):
        read_table(_wide(), resample="1s")


def test_constant_and_empty_columns() -> None:
    with pytest.raises(InputError, match=r"target 'c'.*never changes.*--columns.drop c"):
        read_table(_wide(c=5))
    assert read_table(_wide(c=5), constant="keep").targets == ("a", "b", "c")
    table = read_table(_wide(c=5), columns=ColumnOptions(target=("a",)))
    assert _said(table, "past column 'c' never changes")
    with pytest.raises(InputError, match=r"column 'c' has no value"):
        read_table(_wide(c=np.nan))


def test_target_without_a_value() -> None:
    with pytest.raises(InputError, match="no target value at all"):
        read_table(_wide(c=np.nan), columns=ColumnOptions(target=("c",)))
