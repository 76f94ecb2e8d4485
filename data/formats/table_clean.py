"""From rows to a regular series: order, repeats, steps, gaps and empty cells, all counted and said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from pipelines.data.errors import InputError
from pipelines.data.formats.table_freq import grid, offset, recognise, shortest
from pipelines.data.formats.table_read import Raw
from pipelines.data.formats.table_roles import Roles

OnDuplicate = Literal["error", "first", "last", "mean"]
Missing = Literal["ffill", "interpolate", "error"]


@dataclass
class Rows:
    """Rows of one series: stamps, values of the numeric columns (targets, known, past) and their rows in the source."""

    id: str
    time: pd.DatetimeIndex
    values: np.ndarray
    rows: np.ndarray


@dataclass
class Tally:
    """What was done, added up over all series."""

    disordered: int = 0
    duplicates: int = 0
    averaged: int = 0
    gaps: int = 0
    longest_gap: int = 0
    filled: dict[str, int] = field(default_factory=dict)
    leading: int = 0
    past_cut: int = 0

    def notes(self, missing: str, on_duplicate: str, resample: str | None, steps: int) -> list[str]:
        """One sentence for each thing that happened."""
        way = {"ffill": "with the last value before them", "interpolate": "by interpolation, which looks ahead"}.get(
            missing, ""
        )
        said = []
        if self.disordered:
            said.append(f"{self.disordered:,} rows out of order were sorted")
        if self.duplicates:
            said.append(f"{self.duplicates:,} rows with a repeated time stamp: kept the {on_duplicate}")
        if resample:
            said.append(f"{self.averaged:,} rows averaged onto {steps:,} steps of {resample}")
        if self.gaps:
            said.append(f"{self.gaps:,} missing steps inserted, the longest gap has {self.longest_gap:,}")
        filled = {name: count for name, count in self.filled.items() if count}
        if filled:
            listed = ", ".join(f"{name} {count:,}" for name, count in list(filled.items())[:10])
            more = f" and {len(filled) - 10} more columns" if len(filled) > 10 else ""
            said.append(f"{sum(filled.values()):,} empty values filled {way}: {listed}{more}")
        if self.leading:
            said.append(f"{self.leading:,} empty values before a column's first one were filled with it")
        if self.past_cut:
            said.append(f"{self.past_cut:,} past values after the last target were left out: they would not be known")
        return said


def in_order(raw: Raw, one: Rows, tally: Tally, on_duplicate: OnDuplicate) -> Rows:
    """Sort by time and settle repeated stamps.

    Raises:
        InputError: repeated stamps without a rule for them.
    """
    order = np.argsort(one.time.asi8, kind="stable")
    tally.disordered += int((np.diff(one.time.asi8) < 0).sum())
    one = Rows(one.id, one.time[order], one.values[order], one.rows[order])
    repeated = np.asarray(one.time.duplicated(keep="first"))
    if not repeated.any():
        return one
    if on_duplicate == "error":
        raise _duplicate_error(raw, one, repeated)
    tally.duplicates += int(repeated.sum())
    if on_duplicate == "mean":
        values = pd.DataFrame(one.values).groupby(one.time.asi8).mean().to_numpy()
        return Rows(one.id, one.time[~repeated], values, one.rows[~repeated])
    keep = ~np.asarray(one.time.duplicated(keep=on_duplicate))
    return Rows(one.id, one.time[keep], one.values[keep], one.rows[keep])


def _duplicate_error(raw: Raw, one: Rows, repeated: np.ndarray) -> InputError:
    at = int(repeated.argmax())
    first = int(np.searchsorted(one.time.asi8, one.time.asi8[at]))
    return InputError(
        f"{int(repeated.sum())} repeated time stamps in series '{one.id}', the first in "
        f"{raw.place(int(one.rows[first]))} and {raw.place(int(one.rows[at]))}",
        where=raw.name,
        found=str(one.time[at]),
        expected="one row a stamp and series",
        cure="--on_duplicate mean (or first, last); for several series in one file name its column with --columns.id; "
        "if the clock was set back, give the stamps their offset",
    )


def resampled(raw: Raw, one: Rows, freq: str, tally: Tally) -> Rows:
    """Averages over the steps of a coarser or regular frequency; steps without rows stay empty."""
    _check_size(raw, one, freq)
    frame = pd.DataFrame(one.values, index=one.time).resample(offset(freq, where="resample")).mean()
    empty = frame.isna().all(axis=1).to_numpy()
    tally.gaps += int(empty.sum())
    tally.longest_gap = max(tally.longest_gap, longest_run(empty))
    tally.averaged += len(one.time)
    index = pd.DatetimeIndex(frame.index).as_unit("us")
    at = np.clip(np.searchsorted(one.time.asi8, index.asi8), 0, len(one.rows) - 1)
    return Rows(one.id, index, frame.to_numpy(), one.rows[at])


def common_freq(raw: Raw, series: list[Rows]) -> str:
    """The step that all series share.

    Raises:
        InputError: irregular stamps (the first is named), too few rows to tell, or steps that differ.
    """
    found: dict[str, str] = {}
    for one in series:
        freq = recognise(one.time)
        if freq is None and len(one.time) >= 3:
            raise _irregular(raw, one)
        if freq is not None:
            found.setdefault(freq, one.id)
    if not found:
        raise InputError(
            "too few rows to tell the step of time",
            where=raw.name,
            found=f"{max(len(one.time) for one in series)} rows",
            expected="at least 3 rows a series",
            cure="say it with --freq, such as --freq h",
        )
    if set(found) == {"B", "D"}:
        return "D"
    if len(found) > 1:
        listed = ", ".join(f"{freq} in '{name}'" for freq, name in list(found.items())[:4])
        raise InputError(
            "the series have different steps", where=raw.name, found=listed, expected="one step", cure="--resample RULE"
        )
    return next(iter(found))


def _irregular(raw: Raw, one: Rows) -> InputError:
    steps = np.diff(one.time.asi8)
    values, counts = np.unique(steps, return_counts=True)
    common = int(values[np.argmax(counts)])
    at = int((steps % common != 0).argmax()) + 1 if (steps % common != 0).any() else 1
    return InputError(
        f"irregular time stamps in series '{one.id}', the first in {raw.place(int(one.rows[at]))}",
        where=raw.name,
        found=f"{one.time[at]}, {pd.Timedelta(int(steps[at - 1]), 'us')} after the row before",
        expected=f"steps of {pd.Timedelta(common, 'us')}, as in {int(counts.max()):,} of {len(steps):,} rows",
        cure="--resample RULE, such as --resample h, averages onto regular steps",
    )


def longest_run(marked: np.ndarray) -> int:
    """Length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _check_size(raw: Raw, one: Rows, freq: str) -> None:
    """One wrong year must not ask for a grid of billions of steps, so the size is known before it is made."""
    steps = int((one.time[-1] - one.time[0]) / shortest(freq)) + 1
    if steps > 100 * len(one.time) + 10_000:
        raise InputError(
            f"series '{one.id}' would be almost empty on its grid",
            where=raw.name,
            expected=f"steps of {freq}",
            found=f"{len(one.time):,} rows over {steps:,} steps, {one.time[0]} to {one.time[-1]}",
            cure="mend the outlying dates, or --resample with a longer step",
        )


def regular(raw: Raw, one: Rows, freq: str, tally: Tally) -> Rows:
    """The same rows on the full grid; inserted steps are empty.

    Raises:
        InputError: a stamp that is not on the grid.
    """
    _check_size(raw, one, freq)
    full = grid(one.time[0], one.time[-1], freq)
    if len(full) == len(one.time) and full.equals(one.time):
        return one
    places = full.get_indexer(one.time)
    if (places < 0).any():
        at = int((places < 0).argmax())
        raise InputError(
            f"{int((places < 0).sum())} time stamps of series '{one.id}' are off the grid, the first in "
            f"{raw.place(int(one.rows[at]))}",
            where=raw.name,
            found=str(one.time[at]),
            expected=f"steps of {freq} from {one.time[0]}",
            cure="--resample RULE, such as --resample h, averages onto regular steps",
        )
    values = np.full((len(full), one.values.shape[1]), np.nan)
    values[places] = one.values
    tally.gaps += len(full) - len(places)
    tally.longest_gap = max(tally.longest_gap, int(np.diff(places).max(initial=1)) - 1)
    rows = one.rows[np.maximum(np.searchsorted(places, np.arange(len(full)), side="right") - 1, 0)]
    return Rows(one.id, full, values, rows)


def split_future(raw: Raw, one: Rows, roles: Roles, tally: Tally) -> int:
    """Number of targets' rows: rows at the end without any target but with known values are the known future.

    Raises:
        InputError: a known column that has no value in the future.
    """
    targets = one.values[:, : len(roles.target)]
    measured = np.flatnonzero(~np.isnan(targets).all(axis=1))
    if not len(measured):
        raise InputError(
            f"series '{one.id}' has no target value at all",
            where=raw.name,
            expected=f"numbers in {', '.join(roles.target[:5])}",
            cure="leave the series out, or choose other columns with --columns.target",
        )
    end = int(measured[-1]) + 1
    if not roles.known or end == len(one.time):
        return len(one.time)
    known = one.values[end:, len(roles.target) : len(roles.target) + len(roles.known)]
    if np.isnan(known).all():
        return len(one.time)
    if np.isnan(known).any():
        step, place = (int(axis[0]) for axis in np.nonzero(np.isnan(known)))
        raise InputError(
            f"the known column '{roles.known[place]}' has no value at {one.time[end + step]}",
            where=raw.name,
            expected="a value in every row after the last target",
            cure=f"fill it in, or declare it --columns.past {roles.known[place]}",
        )
    past = one.values[end:, len(roles.target) + len(roles.known) :]
    tally.past_cut += int((~np.isnan(past)).sum())
    return end


def filled(raw: Raw, one: Rows, names: tuple[str, ...], end: int, missing: Missing, tally: Tally) -> np.ndarray:
    """Values up to `end` without empty cells, by the stated policy.

    Raises:
        InputError: a column without any value, or empty cells where the policy is "error".
    """
    values = one.values[:end]
    empty = np.isnan(values)
    if not empty.any():
        return values
    blank = empty.all(axis=0)
    if blank.any():
        name = names[int(blank.argmax())]
        raise InputError(
            f"column '{name}' has no value in series '{one.id}'",
            where=raw.name,
            found=f"{end} empty cells",
            expected="numbers",
            cure=f"leave the column out with --columns.drop {name}",
        )
    if missing == "error":
        row, place = (int(axis[0]) for axis in np.nonzero(empty))
        raise InputError(
            f"{int(empty.sum())} empty values in series '{one.id}', "
            f"the first in column '{names[place]}' at {one.time[row]}",
            where=raw.name,
            expected="a value in every cell and step",
            cure="--missing ffill or --missing interpolate",
        )
    frame = pd.DataFrame(values)
    whole = frame.interpolate(limit_area="inside") if missing == "interpolate" else frame
    whole = whole.ffill()
    leading = whole.isna().to_numpy()
    for place, name in enumerate(names):
        tally.filled[name] = tally.filled.get(name, 0) + int((empty[:, place] & ~leading[:, place]).sum())
    tally.leading += int(leading.sum())
    return whole.bfill().to_numpy()
