"""From a file or a frame to plain columns: nothing is interpreted here, nothing is lost without a word."""

from __future__ import annotations

import io
import os
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.data.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MAX_BYTES = 2 << 30
_PARQUET = (".parquet", ".pq")
_OTHERS = {
    ".xlsx": "an Excel workbook",
    ".xls": "an Excel workbook",
    ".json": "JSON",
    ".feather": "Feather",
    ".h5": "HDF5",
}


@dataclass
class Raw:
    """Columns as they stand in the source.

    Args:
        frame: columns named by strings, rows numbered from 0.
        name: what to call the source in messages.
        notes: what was noticed so far.
        lines: line of the file for each row, or None for frames.
        indexed: True where the time stamps and series names came from an index (then `time` and `id` are set).
    """

    frame: pd.DataFrame
    name: str
    notes: list[str] = field(default_factory=list)
    lines: np.ndarray | None = None
    time: str | None = None
    id: str | None = None
    indexed: bool = False

    def place(self, row: int) -> str:
        """A row's place as the user finds it: the line of a file, or the position in a frame."""
        return f"row {row}" if self.lines is None else f"line {int(self.lines[row])}"

    def keep(self, rows: np.ndarray) -> None:
        """Keep only the rows that are True."""
        self.frame = self.frame[rows].reset_index(drop=True)
        if self.lines is not None:
            self.lines = self.lines[rows]


def read_raw(source: Any, text_columns: tuple[str, ...], time_column: str | None) -> Raw:
    """Columns of a path, a pandas object or an sktime container.

    Args:
        source: path of a CSV, TSV or Parquet file (CSV also as .gz, .bz2, .xz, .zip), or a pandas frame or series.
        text_columns: columns that stay words (names of series, static columns).
        time_column: the column of time stamps, if the user named it.

    Raises:
        InputError: whatever cannot be read as one table.
    """
    import pandas as pd

    if isinstance(source, str | os.PathLike):
        raw = _read_path(pathlib.Path(os.fspath(source)), text_columns, time_column)
    elif isinstance(source, io.BytesIO):
        from pipelines.data.formats.table_text import from_bytes

        raw = from_bytes(source.getvalue(), "table", [], text_columns, time_column)
    elif isinstance(source, pd.DataFrame | pd.Series):
        from pipelines.data.formats.table_sktime import from_pandas

        raw = from_pandas(source, time_column)
    else:
        kind = f"{type(source).__module__}.{type(source).__name__}"
        raise InputError(
            "not a table",
            where="data",
            found=kind,
            expected="a path, a pandas DataFrame or Series with time stamps",
            cure="arrays have no time stamps, give them some: "
            "pandas.DataFrame(array, index=pandas.date_range(start, periods=len(array), freq='h'))",
        )
    if raw.frame.empty:
        raise InputError("the table has a header but no rows", where=raw.name, expected="rows of data")
    return _named_columns(raw)


def _named_columns(raw: Raw) -> Raw:
    """Column names as distinct strings."""
    names = [str(name) for name in raw.frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError("two columns have the same name", where=raw.name, found=twice[0], cure="rename one of them")
    raw.frame.columns = names
    return raw


def _read_path(path: pathlib.Path, text_columns: tuple[str, ...], time_column: str | None) -> Raw:
    check_file(path)
    suffix = path.suffix.lower()
    if suffix in _OTHERS:
        raise InputError(
            f"{_OTHERS[suffix]} is not read",
            where=path.name,
            found=suffix,
            expected="CSV, TSV or Parquet",
            cure="save it as CSV or Parquet",
        )
    with path.open("rb") as file:
        magic = file.read(4)
    if suffix in _PARQUET or magic == b"PAR1":
        return _read_parquet(path)
    from pipelines.data.formats.table_text import read_text

    return read_text(path, text_columns, time_column)


def check_file(path: pathlib.Path) -> None:
    """Refuse what is missing, a folder, unreadable or empty.

    Raises:
        InputError: one of these.
    """
    if path.is_dir():
        raise InputError("is a folder", where=path, expected="a file", cure="name the table inside it")
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        cure = f"the folder holds {', '.join(near[:8])}" if near else "check the path"
        raise InputError("no such file", where=path, cure=cure)
    if not path.is_file():
        raise InputError("is not a regular file", where=path, expected="a file on disk", cure="save it to a file first")
    if not os.access(path, os.R_OK):
        raise InputError("may not be read", where=path, expected="a readable file", cure="change its permissions")
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=path, expected="a header line and rows")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(
            "the file is too large", where=path, found=f"{path.stat().st_size:,} bytes", expected=f"{MAX_BYTES:,}"
        )


def _read_parquet(path: pathlib.Path) -> Raw:
    import pyarrow
    import pyarrow.parquet as parquet

    # pyarrow takes the sizes in the header at their word, so they are checked before anything is allocated.
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            meta = file.metadata
            size = sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))
            if size > MAX_BYTES or not 0 <= meta.num_rows <= MAX_BYTES // 8:
                raise InputError(
                    "the Parquet table is too large",
                    where=path.name,
                    found=f"{size:,} bytes",
                    expected=f"{MAX_BYTES:,}",
                )
            table = file.read()
            table.validate(full=True)  # a flipped bit can leave words that are not UTF-8
            frame = table.to_pandas()
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(
            "not a readable Parquet file",
            where=path.name,
            found=str(error).splitlines()[0][:120] if str(error) else None,
            expected="an undamaged Parquet table",
            cure="write or copy the file again",
        ) from error
    from pipelines.data.formats.table_sktime import from_pandas

    raw = from_pandas(frame, None) if _is_timed(frame) else Raw(frame.reset_index(drop=True), "")
    raw.name = path.name
    return raw


def _is_timed(frame: pd.DataFrame) -> bool:
    import pandas as pd

    return isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex | pd.MultiIndex)
