"""Time stamps: from words to instants, with every doubtful reading refused and named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipelines.data.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.data.formats.table_read import Raw

TIME_NAMES = ("ds", "timestamp", "datetime", "date_time", "date", "time", "ts", "period")
_ZONE = r"(?:Z|[+-]\d{2}:?\d{2})$"
_SLASHED = r"^\s*\d{1,2}[/.\-]\d{1,2}[/.\-]\d{4}"
_EPOCH = ("s", "ms", "us", "ns")


def looks_like_time(column: pd.Series) -> bool:
    """Whether the first values of a column read as dates (plain small numbers don't count)."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return True
    sample = column.dropna().astype(str).head(5)
    if sample.empty:
        return False
    dated = sample.str.contains(r"^\s*\d{4}[-/]\d{1,2}|^\s*\d{4}-?Q[1-4]$|^\s*(?:19|20)\d{6}$", regex=True)
    return bool((dated | sample.str.contains(_SLASHED, regex=True)).all())


def to_time(raw: Raw, name: str, timezone: str | None, date_format: str | None) -> pd.DatetimeIndex:
    """Stamps of a column as microseconds, with a zone where the column or the option gives one.

    Raises:
        InputError: missing, unreadable or ambiguous stamps (the row is named), or zones that don't agree.
    """
    import pandas as pd

    column = raw.frame[name]
    missing = column.isna()
    if missing.any():
        at = int(missing.to_numpy().argmax())
        raise InputError(
            f"{int(missing.sum())} rows have no time stamp, the first is {raw.place(at)}",
            where=raw.name,
            expected=f"a date in every row of column '{name}'",
            cure="fill in or remove these rows",
        )
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        index = pd.DatetimeIndex(column)
    elif isinstance(column.dtype, pd.PeriodDtype):
        index = pd.PeriodIndex(column).to_timestamp()
    else:
        index = _parse(raw, column, name, timezone, date_format)
    return _zone(raw, _in_range(raw, index), timezone)


def _in_range(raw: Raw, index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    import pandas as pd

    try:
        return index.as_unit("us")
    except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
        raise InputError("time stamps out of range", where=raw.name, found=str(error)[:80]) from error


def _parse(raw: Raw, column: pd.Series, name: str, timezone: str | None, form: str | None) -> pd.DatetimeIndex:
    text = column.astype(str).str.strip()
    if form is not None:
        return _with_format(raw, text, name, form)
    if bool(text.str.fullmatch(r"\d{4}-?Q[1-4]").all()):
        return _periods(text)
    if bool(text.str.fullmatch(r"(?:19|20)\d{6}").all()):
        return _with_format(raw, text, name, "%Y%m%d")
    if bool(text.str.fullmatch(r"(?:1[5-9]|2[0-2])\d\d").all()):
        return _with_format(raw, text, name, "%Y")
    if bool(text.str.fullmatch(r"-?\d+(?:\.\d+)?").all()):
        raise InputError(
            f"column '{name}' holds plain numbers, not dates",
            where=raw.name,
            found=text.iloc[0],
            expected="dates such as 2024-01-31 13:00",
            cure="set --columns.date_format to s, ms, us or ns for counts since 1970, or --columns.time",
        )
    if bool(text.str.contains(_SLASHED, regex=True).any()):
        return _slashed(raw, text, name)
    if bool(text.str.contains(r"[A-Za-z]{3}.*\d{4}|\d{4}.*[A-Za-z]{3}", regex=True).all()):
        return _check(raw, text, name, _convert(text, format="mixed", utc=False))
    return _iso(raw, text, name, timezone)


def _convert(text: pd.Series, **options: Any) -> pd.Series:
    """pandas' conversion with unreadable values as NaT; what it still raises becomes NaT everywhere."""
    import pandas as pd

    try:
        return pd.Series(pd.to_datetime(text, errors="coerce", **options))
    except (ValueError, OverflowError, TypeError):
        return pd.Series(pd.NaT, index=text.index)


def _periods(text: pd.Series) -> pd.DatetimeIndex:
    import pandas as pd

    return pd.PeriodIndex(text.str.replace("-", ""), freq="Q").to_timestamp()


def _with_format(raw: Raw, text: pd.Series, name: str, form: str) -> pd.DatetimeIndex:
    import pandas as pd

    if form in _EPOCH:
        numbers = pd.Series(pd.to_numeric(text, errors="coerce"))
        return _check(raw, text, name, _convert(numbers, unit=form), form)
    try:
        return _check(raw, text, name, _convert(text, format=form), form)
    except (re.error, KeyError) as error:
        raise InputError(
            "not a date format", where="columns.date_format", found=repr(form), cure="write it as %d/%m/%Y"
        ) from error


def _check(raw: Raw, text: pd.Series, name: str, parsed: pd.Series, form: str = "2024-01-31 13:00") -> pd.DatetimeIndex:
    import pandas as pd

    bad = parsed.isna().to_numpy()
    if bad.any():
        at = int(bad.argmax())
        raise InputError(
            f"{int(bad.sum())} of {len(bad)} dates of column '{name}' cannot be read, the first in {raw.place(at)}",
            where=raw.name,
            found=repr(str(text.iloc[at])[:60]),
            expected=form,
            cure="mend the row, or say how to read the dates with --columns.date_format, such as %d/%m/%Y",
        )
    return pd.DatetimeIndex(parsed)


def _slashed(raw: Raw, text: pd.Series, name: str) -> pd.DatetimeIndex:
    """31/12/2024, 12/31/2024 or 31.12.2024: read only when the order is certain."""
    parts = text.str.extract(r"^(\d{1,2})([/.\-])(\d{1,2})[/.\-]\d{4}(?:[ T](\d{1,2}:\d{2})(:\d{2})?)?$")
    odd = parts[0].isna().to_numpy()
    if odd.any():
        _check(raw, text, name, parts[0].where(~odd))
    first, second = parts[0].astype(int).to_numpy(), parts[2].astype(int).to_numpy()
    dotted = bool((parts[1] == ".").all())
    day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
    if day_first == month_first and not (dotted and not month_first):
        at = int((first > 12).argmax()) if day_first else 0
        raise InputError(
            f"the dates of column '{name}' can be read day first or month first, see {raw.place(at)}",
            where=raw.name,
            found=repr(text.iloc[at]),
            expected="dates such as 2024-01-31",
            cure="set --columns.date_format to %d/%m/%Y or %m/%d/%Y (with %H:%M:%S where there are hours)",
        )
    sign = str(parts[1].iloc[0])
    day_month = f"%d{sign}%m{sign}%Y" if dotted or day_first else f"%m{sign}%d{sign}%Y"
    clock = "" if parts[3].isna().all() else " %H:%M" + ("" if parts[4].isna().all() else ":%S")
    raw.notes.append(f"dates of column '{name}' read as {day_month}{clock}")
    return _check(raw, text, name, _convert(text.str.replace("T", " "), format=day_month + clock), day_month + clock)


def _iso(raw: Raw, text: pd.Series, name: str, timezone: str | None) -> pd.DatetimeIndex:
    """ISO 8601 dates, with one zone, several (then the option must name one), or none."""

    text = text.str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", r"\1-\2-\3", regex=True)
    zoned = text.str.contains(r"\d{2}:\d{2}.*" + _ZONE, regex=True).to_numpy()
    if not zoned.any():
        return _check(raw, text, name, _convert(text, format="ISO8601"))
    if not zoned.all():
        at = int((~zoned).argmax())
        raise InputError(
            f"some stamps of column '{name}' have a zone and others none, see {raw.place(at)}",
            where=raw.name,
            found=repr(text.iloc[at]),
            expected="a zone for all or for none",
        )
    index = _check(raw, text, name, _convert(text, format="ISO8601", utc=True))
    zones = text.str.extract(f"({_ZONE})")[0].replace({"+00:00": "Z", "-00:00": "Z", "+0000": "Z"}).unique()
    if len(zones) == 1 or timezone is not None:
        return index if zones[0] == "Z" or timezone is not None else index.tz_convert(_fixed(str(zones[0])))
    raise InputError(
        f"the stamps of column '{name}' have several offsets",
        where=raw.name,
        found=", ".join(sorted(map(str, zones))[:4]),
        expected="one zone",
        cure="name the zone with --columns.timezone, such as Europe/Berlin or UTC",
    )


def _fixed(name: str) -> Any:
    import datetime

    minutes = int(name[1:3]) * 60 + int(name[-2:])
    return datetime.timezone(datetime.timedelta(minutes=-minutes if name[0] == "-" else minutes))


def _zone(raw: Raw, index: pd.DatetimeIndex, timezone: str | None) -> pd.DatetimeIndex:
    """Apply the zone option: convert stamps that have a zone, localise those that have none."""
    import zoneinfo

    if timezone is None:
        return index
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            "unknown time zone",
            where="columns.timezone",
            found=repr(timezone),
            expected="an IANA name such as Europe/Berlin or UTC",
        ) from error
    if index.tz is not None:
        return index.tz_convert(zone)
    try:
        return index.tz_localize(zone, ambiguous="infer")
    except ValueError as error:
        return _localise_by_hand(raw, index, zone, error)


def _localise_by_hand(raw: Raw, index: pd.DatetimeIndex, zone: Any, error: Exception) -> pd.DatetimeIndex:
    """Daily and single stamps in the doubled hour: say which one, and how to avoid it."""
    import numpy as np

    doubtful = np.asarray(index.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").isna())
    at = int(doubtful.argmax()) if doubtful.any() else 0
    raise InputError(
        f"{int(doubtful.sum())} local times do not exist or happen twice when the clock changes, see {raw.place(at)}",
        where=raw.name,
        found=str(index[at]),
        expected=f"local times of {zone} that name one instant",
        cure="write the stamps with their offset (2024-10-27T02:30+01:00) or in UTC",
    ) from error
