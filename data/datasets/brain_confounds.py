"""Confounds of a run: groups that nilearn knows and columns by name, a row for each volume."""

from __future__ import annotations

import difflib
import pathlib
import tempfile
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError

__all__ = ["STRATEGIES", "read_confounds"]

#: Groups of nilearn.interfaces.fmriprep.load_confounds. Its "tedana" needs files of another program: left out.
STRATEGIES = (
    "motion",
    "high_pass",
    "wm_csf",
    "global_signal",
    "compcor",
    "ica_aroma",
    "scrub",
    "non_steady_state",
)
_CENSORING = ("scrub", "non_steady_state")
_LARGEST = 1 << 28  # bytes of a table


def read_confounds(
    path: pathlib.Path | None, wanted: tuple[str, ...], volumes: int, name: str
) -> tuple[NDArray[np.float64], list[str]]:
    """Columns (T, n) of the wanted groups and columns, and what was done to them, in words.

    A group comes from nilearn's `load_confounds` with its defaults. An empty or n/a cell in the first row, where
    derivatives have none, takes the value of the second row, as nilearn does. Volumes that `scrub` and
    `non_steady_state` would leave out stay in: every volume keeps its place.

    Args:
        path: table with a header, tab-separated (.tsv) or comma-separated (.csv).
        wanted: groups or names of columns.
        volumes: T, rows that the table must have.
        name: what messages call the run.

    Raises:
        InputError: no table, one that cannot be read, another number of rows, a column that is not there or is no
            number, cells without a value after the first row.

    Complexity: O(cells of the table).
    """
    table = _table(path, name)
    where = str(path)
    if len(table) != volumes:
        raise InputError("another number of rows than volumes", where=where, found=len(table), expected=volumes)
    groups = tuple(one for one in wanted if one in STRATEGIES and one not in table.columns)
    found = {one: _column(table, one, where) for one in wanted if one not in groups}
    notes: list[str] = []
    if groups:
        frame, left_out = _groups(pathlib.Path(where), groups)
        found |= {str(one): _numbers(frame[one].to_numpy(), str(one), where) for one in frame.columns}
        if set(groups) & set(_CENSORING):
            notes.append(f"{left_out} volumes that {', '.join(_CENSORING)} would leave out were kept: none is dropped")
    filled = sum(_fill_first(values) for values in found.values())
    if filled:
        notes.append(f"{filled} confounds without a value in the first row took that of the second")
    for label, values in found.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            text = f"{len(bad)} rows, the first is row {bad[0] + 1} after the header"
            cure = "leave this confound out or fill its cells"
            raise InputError(f"confound {label!r} has cells without a number", where=where, found=text, cure=cure)
    matrix = np.stack(list(found.values()), axis=1) if found else np.zeros((volumes, 0))
    still = int((np.ptp(matrix, axis=0) == 0).sum()) if matrix.size else 0
    said = f", {still} of them constant" if still else ""
    return matrix, [f"{matrix.shape[1]} confounds removed ({', '.join(wanted)}){said}", *notes]


def _fill_first(values: NDArray[np.float64]) -> bool:
    """Give a derivative, which has no value in its first row, that of the second; whether it was needed."""
    needed = len(values) > 1 and bool(np.isnan(values[0]) and not np.isnan(values[1]))
    if needed:
        values[0] = values[1]
    return needed


def _table(path: pathlib.Path | None, name: str) -> Any:
    import pandas as pd

    if path is None:
        cure = "leave --signal.confounds out, or name a derivative dataset that has confounds"
        raise InputError("the run has no table of confounds", where=name, cure=cure)
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise InputError("too large for a table of confounds", where=path, found=f"{size:,} bytes")
        separator = "," if path.suffix.lower() == ".csv" else "\t"
        with path.open(encoding="utf-8-sig") as file:
            names = [one.strip().strip('"') for one in file.readline(1 << 20).rstrip("\r\n").split(separator)]
        twice = sorted({one for one in names if names.count(one) > 1})
        if twice:
            raise InputError("columns of the same name", where=path, found=", ".join(twice[:5]), cure="rename them")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more cells than the header would be cut
            table = pd.read_csv(path, sep=separator, encoding="utf-8-sig", na_values=["n/a"], index_col=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=path) from error
    except Exception as error:  # pandas raises many kinds on bytes that are no table
        expected = "a header and a row for each volume, tab-separated"
        raise InputError("is no table of confounds", where=path, found=_short(error), expected=expected) from error
    table.columns = [str(one).strip() for one in table.columns]
    return table


def _column(table: Any, label: str, where: str) -> NDArray[np.float64]:
    if label not in table.columns:
        near = difflib.get_close_matches(label, [*table.columns, *STRATEGIES], 3, 0.5)
        expected = f"one of {', '.join(near)}" if near else f"a column, or a group: {', '.join(STRATEGIES)}"
        shown = ", ".join(map(str, table.columns[:8])) + (" ..." if len(table.columns) > 8 else "")
        raise InputError(f"no confound {label!r}", where=where, found=f"columns {shown}", expected=expected)
    return _numbers(table[label].to_numpy(), label, where)


def _numbers(values: NDArray, label: str, where: str) -> NDArray[np.float64]:
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"confound {label!r} is no number", where=where, found=_short(error)) from error


def _groups(path: pathlib.Path, groups: tuple[str, ...]) -> tuple[Any, int]:
    """nilearn's selection, and how many volumes it would leave out.

    nilearn finds the table beside an image by their names, so a table under any name gets links under the names that
    it looks for.
    """
    from nilearn.interfaces.fmriprep import load_confounds

    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        (base / "sub-0_desc-confounds_timeseries.tsv").symlink_to(path.resolve())
        facts = path.with_suffix(".json")
        if facts.is_file():
            (base / "sub-0_desc-confounds_timeseries.json").symlink_to(facts.resolve())
        kind = "smoothAROMAnonaggr" if "ica_aroma" in groups else "preproc"
        image = base / f"sub-0_desc-{kind}_bold.nii.gz"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frame, kept = load_confounds(str(image), strategy=groups)
        except Exception as error:  # missing columns, an old table, a JSON without what CompCor needs, ...
            cure = "name the columns themselves, or leave the group out"
            raise InputError(
                f"nilearn does not find {', '.join(groups)}", where=path, found=_short(error), cure=cure
            ) from error
    left_out = 0 if kept is None else len(frame) - len(kept)
    return frame, left_out


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] + ("..." if len(text) > 200 else "")
