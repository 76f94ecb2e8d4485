"""Bad tables: one message each, with the place and the cure; damaged files never end in an unexplained traceback."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pathlib
import random
import time
import tracemalloc
import zipfile
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pipelines.data.errors import InputError
from pipelines.data.formats.table import ColumnOptions, read_table
from pipelines.data.formats.table_bytes import read_bytes

DAYS = [f"2024-01-{day:02d}" for day in range(1, 13)]


def _csv(header: str = "date,a,b", change: Callable[[list[str]], None] | None = None) -> bytes:
    lines = [header] + [f"{day},{i},{i * i}" for i, day in enumerate(DAYS)]
    if change is not None:
        change(lines)
    return ("\n".join(lines) + "\n").encode()


def _set(row: int, line: str) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        lines[row] = line

    return change


CASES: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "the file is empty"),
    "blank lines": (b"\n \n\n", "the file is empty"),
    "header only": (b"date,a\n", "a header but no rows"),
    "no time column": (
        _csv("x,a,b", lambda lines: lines.__setitem__(slice(1, None), [f"{i},{i},1" for i in range(9)])),
        "no time column",
    ),
    "no header": (b"\n".join(_csv().split(b"\n")[1:]), "first line holds numbers"),
    "unreadable date": (
        _csv(change=_set(5, "yesterday,1,1")),
        r"dates of column 'date' cannot be read, the first in line 6.*'yesterday'",
    ),
    "impossible date": (_csv(change=_set(5, "2024-02-31,1,1")), r"line 6.*2024-02-31"),
    "missing date": (_csv(change=_set(5, ",1,1")), "1 rows have no time stamp, the first is line 6"),
    "repeated stamp": (
        _csv(change=_set(5, "2024-01-04,1,1")),
        r"repeated time stamps in series 'series', the first in line 5 and line 6",
    ),
    "text value": (
        _csv(change=_set(5, "2024-01-05,1,n.a.")),
        r"text in the value column 'b', the first in line 6. Found: 'n.a.'",
    ),
    "constant": (
        _csv(change=lambda lines: lines.__setitem__(slice(1, None), [f"{d},1,{i}" for i, d in enumerate(DAYS)])),
        "target 'a'.*never changes",
    ),
    "all empty": (
        _csv(change=lambda lines: lines.__setitem__(slice(1, None), [f"{d},,{i}" for i, d in enumerate(DAYS)])),
        "column 'a' has no value",
    ),
    "infinite": (_csv(change=_set(5, "2024-01-05,1,-inf")), r"1 infinite values, the first in column 'b', line 6"),
    "short row": (_csv(change=_set(5, "2024-01-05,1")), r"line 6 has another number of cells.*Found: 2. Expected: 3"),
    "long row": (_csv(change=_set(5, "2024-01-05,1,2,3")), r"line 6.*Found: 4. Expected: 3"),
    "cut in the middle": (_csv()[:-9], "line 13 has another number of cells"),
    "binary": (bytes(range(256)) * 20, "not a text table"),
    "same names": (_csv("date,a,a"), "two columns have the same name"),
    "one column": (b"y\n1\n2\n3\n", "one column only"),
    "unnamed column": (_csv("date,a,", _set(2, "2024-01-02,1,7")), "column 3 has values but no name"),
    "mixed zones": (_csv(change=_set(5, "2024-01-05T00:00:00Z,1,1")), "some stamps of column 'date' have a zone"),
    "far date": (_csv(change=_set(12, "9024-01-12,1,1")), "almost empty on its grid"),
    "far date, short steps": (
        b"date,a\n" + b"\n".join(b"2024-01-01 00:00:00.%03d,%d" % (i, i) for i in range(50)) + b"\n9000-01-01,3\n",
        "almost empty on its grid",
    ),
    "irregular": (_csv(change=_set(5, "2024-01-05 07:13,1,1")), r"irregular time stamps.*line 6.*--resample"),
    "two rows": (b"date,a\n2024-01-01,1\n2024-01-02,2\n", "too few rows to tell the step"),
    "thousands": (_csv(change=_set(5, '2024-01-05,1,"1,234.5"')), "thousands separators in column 'b'"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_file(name: str, tmp_path: pathlib.Path) -> None:
    content, message = CASES[name]
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert "bad.csv" in str(caught.value)


def test_no_file_and_a_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "near.csv").write_text("x")
    with pytest.raises(InputError, match=r"no such file.*near\.csv"):
        read_table(tmp_path / "far.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="is not a regular file"):
        read_table(os.devnull)


def test_excel_and_others_say_what_to_do(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.xlsx"
    path.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(InputError, match=r"Excel workbook is not read.*save it as CSV"):
        read_table(path)


def test_zip_with_two_tables_encrypted_or_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("../../b.csv", "x")
    with pytest.raises(InputError, match=r"not clear.*2 files"):
        read_table(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/a.csv", "x")
    with pytest.raises(InputError, match="no file"):
        read_table(path)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gz", "xz"])
def test_bombs_are_stopped_while_streaming(pack: Callable[[bytes], bytes], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(pack(bytes(200 << 20)))
    tracemalloc.start()
    with pytest.raises(InputError, match="more than is allowed"):
        read_bytes(path, limit=10 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_zip_bomb_with_a_lying_header(tmp_path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", bytes(50 << 20))
    path = tmp_path / "t.zip"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="more than is allowed"):
        read_bytes(path, limit=1 << 20)


@pytest.mark.parametrize("cut", [5, 200, -1])
def test_a_cut_archive_is_noticed(cut: int, tmp_path: pathlib.Path) -> None:
    for pack in (gzip.compress, lzma.compress):
        path = tmp_path / "t.gz"
        path.write_bytes(pack(_sound("csv"))[:cut])
        with pytest.raises(InputError, match=r"damaged|archive"):
            read_bytes(path)


def test_parquet_garbage_and_nested_columns(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_table(path)
    pd.DataFrame({"date": DAYS, "a": [[1, 2]] * 12}).to_parquet(path)
    with pytest.raises(InputError, match="value column 'a'"):
        read_table(path)


def test_a_missing_series_name() -> None:
    frame = pd.DataFrame({"unique_id": ["a", None, "a"], "ds": DAYS[:3], "y": [1.0, 2.0, 3.0]})
    with pytest.raises(InputError, match=r"1 rows do not name their series, the first is row 1"):
        read_table(frame)


def test_choices_and_zone_names() -> None:
    frame = pd.DataFrame({"ds": DAYS, "y": np.arange(12.0)})
    with pytest.raises(InputError, match="unknown choice"):
        read_table(frame, missing="zero")  # type: ignore[arg-type]
    for zone in ("Mars/Base", "../etc/passwd", ""):
        with pytest.raises(InputError, match="unknown time zone"):
            read_table(frame, columns=ColumnOptions(timezone=zone))


# ---------------------------------------------------------------- fuzzing


def _sound(kind: str) -> bytes:
    stamps = pd.date_range("2024-01-01", periods=120, freq="h")
    noise = np.random.default_rng(0)
    frame = pd.DataFrame({"date": stamps.astype(str), "a": noise.normal(size=120), "b": noise.integers(0, 50, 120)})
    if kind == "parquet":
        return frame.to_parquet()
    text = frame.to_csv(index=False).encode()
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("t.csv", text)
        return buffer.getvalue()
    return {"csv": bytes, "csv.xz": lzma.compress, "csv.gz": gzip.compress}[kind](text)


def _damage(content: bytes, chance: random.Random) -> bytes:
    """Cut, flip bits anywhere, or write noise over the first bytes."""
    data = bytearray(content)
    way = chance.randrange(4)
    if way == 0:
        return bytes(data[: chance.randrange(len(data))])
    if way == 3:
        start = chance.randrange(len(data))
        del data[start : start + chance.randrange(1, 40)]
        return bytes(data)
    span = len(data) if way == 1 else min(64, len(data))
    for _ in range(chance.choice((1, 1, 3, 20))):
        data[chance.randrange(span)] ^= 1 << chance.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("kind", ["csv", "csv.xz", "csv.gz", "zip", "parquet"])
def test_damaged_files_give_a_message_or_a_table(kind: str, tmp_path: pathlib.Path) -> None:
    content, chance = _sound(kind), random.Random(40)
    path = tmp_path / f"t.{kind}"
    refused, unnamed, slowest = 0, 0, 0.0
    tracemalloc.start()
    for _ in range(100):
        path.write_bytes(_damage(content, chance))
        start = time.perf_counter()
        try:
            read_table(path)
        except InputError as error:
            refused += 1
            unnamed += path.name not in str(error)
        slowest = max(slowest, time.perf_counter() - start)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 20
    assert unnamed == 0
    assert slowest < 5
    assert peak < 1 << 30
