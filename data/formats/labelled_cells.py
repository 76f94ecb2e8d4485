"""Cells of a long table's variables as numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.table_read import Raw

__all__ = ["cell_numbers"]

_MISSING = ("", "?", "na", "nan", "null", "none", "n/a")
_LIMIT = float(np.finfo(np.float32).max)


def cell_numbers(raw: Raw, name: str, *, labelled: bool) -> NDArray[np.float64]:
    """(rows,) values of a column; empty cells are NaN, true and false are 1 and 0.

    Args:
        raw: the table.
        name: the column.
        labelled: whether another column was taken as the labels, for the message about a column of texts.

    Raises:
        InputError: a column of texts or dates, single texts between numbers, infinite or too large values.
    """
    column = raw.frame[name]
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        present = ~np.isnan(values)
    else:
        words = column.astype(object).map(lambda cell: None if pd.isna(cell) else str(cell).strip().lower())
        present = (column.notna() & ~words.isin(_MISSING)).to_numpy()
        values = pd.Series(pd.to_numeric(words.map({"true": 1, "false": 0}).fillna(words), errors="coerce"))
        values = values.to_numpy(dtype=np.float64, na_value=np.nan)
        if present.any() and np.isnan(values[present]).all():
            raise _texts(raw, name, present, labelled=labelled)
    bad = present & ~(np.abs(values) <= _LIMIT)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{int(bad.sum())} cells of column '{name}' are no numbers, the first in {raw.place(row)}",
            where=raw.name,
            found=repr(str(column.iloc[row])[:60]),
            expected="a finite number, or an empty cell where nothing was measured",
            cure="mend the cells",
        )
    return values


def _texts(raw: Raw, name: str, present: NDArray[np.bool_], *, labelled: bool) -> InputError:
    cure = "leave the column out"
    if not labelled:
        cure = f"if it holds the labels, name it with labels='{name}'; else leave the column out"
    cure += f"; if it holds the times or the groups: time='{name}' or group='{name}'"
    return InputError(
        f"labels in a data column: '{name}' holds texts",
        where=raw.name,
        found=repr(str(raw.frame[name].iloc[int(present.argmax())])[:40]),
        expected="numbers in every column that is not id, labels, time or group",
        cure=cure,
    )
