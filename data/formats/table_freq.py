"""Steps of time: names of frequencies, recognising one from stamps, regular grids, calendar features' seasons."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipelines.data.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# pandas 3 refuses the short names that every published forecasting script uses.
_OLD_NAMES = {
    "t": "min", "T": "min", "H": "h", "S": "s", "L": "ms", "U": "us", "N": "ns", "d": "D", "b": "B", "w": "W",
    "m": "ME", "M": "ME", "BM": "BME", "q": "QE", "Q": "QE", "BQ": "BQE", "a": "YE", "A": "YE", "y": "YE", "Y": "YE",
    "AS": "YS", "BA": "BYE", "BY": "BYE", "BAS": "BYS",
}  # fmt: skip
_DAY_US = 86_400_000_000


def offset(freq: str, *, where: str = "freq") -> pd.DateOffset:
    """The pandas offset of a frequency's name, old or new.

    Raises:
        InputError: a name that is no frequency, or a step of zero or backwards.
    """
    from pandas.tseries.frequencies import to_offset

    try:
        step: Any = to_offset(modern_name(freq))
    except (ValueError, TypeError) as error:
        raise _no_frequency(freq, where) from error
    if step is None or step.n < 1:
        raise _no_frequency(freq, where)
    return step


def _no_frequency(freq: object, where: str) -> InputError:
    return InputError(
        "not a frequency",
        where=where,
        found=repr(freq),
        expected="min, 15min, h, D, B, W, MS, ME, QS, YS, ...",
        cure="use one of pandas' names, with a number in front for multiples",
    )


def modern_name(freq: str) -> str:
    """The name pandas 3 understands: t -> min, H -> h, m -> ME, 2H -> 2h, Q-DEC -> QE-DEC.

    Example:
        >>> [modern_name(name) for name in ("t", "H", "m", "15T", "Q-DEC", "MS")]
        ['min', 'h', 'ME', '15min', 'QE-DEC', 'MS']
    """
    parts = re.fullmatch(r"(\d*)\s*([A-Za-z]+)(-[A-Za-z]{3})?", str(freq).strip())
    if parts is None:
        return str(freq)
    count, name, anchor = parts.groups()
    return f"{count}{_OLD_NAMES.get(name, name)}{(anchor or '').upper()}"


def canonical(freq: str, *, where: str = "freq") -> str:
    """The one spelling that the rest of the program uses."""
    return str(offset(freq, where=where).freqstr)


def is_sub_daily(step: pd.DateOffset) -> bool:
    """Whether the step is a fixed time below a day (the same everywhere, unlike a local day)."""
    import pandas as pd

    return isinstance(step, pd.tseries.offsets.Tick) and pd.Timedelta(step) < pd.Timedelta(days=1)


def shortest(freq: str) -> pd.Timedelta:
    """A length of time that no step of the frequency falls below."""
    import pandas as pd

    step = offset(freq)
    if isinstance(step, pd.tseries.offsets.Tick) and is_sub_daily(step):
        return pd.Timedelta(step)
    name = str(step.rule_code).split("-")[0]
    days = {"W": 7, "MS": 28, "ME": 28, "BMS": 26, "BME": 26, "QS": 89, "QE": 89, "YS": 365, "YE": 365}.get(name, 1)
    return pd.Timedelta(days=days * step.n)


def grid(first: pd.Timestamp, last: pd.Timestamp, freq: str) -> pd.DatetimeIndex:
    """All stamps from first to last; days and longer steps follow the local clock, shorter ones the absolute one."""
    import pandas as pd

    step = offset(freq)
    if first.tz is None or is_sub_daily(step):
        return pd.date_range(first, last, freq=step).as_unit("us")
    local = pd.date_range(first.tz_localize(None), last.tz_localize(None), freq=step)
    return local.tz_localize(first.tz, ambiguous=True, nonexistent="shift_forward").as_unit("us")  # type: ignore[arg-type]


def next_stamps(last: pd.Timestamp, freq: str, count: int) -> pd.DatetimeIndex:
    """The count stamps after the last one.

    Example:
        >>> import pandas as pd
        >>> [str(day.date()) for day in next_stamps(pd.Timestamp("2024-02-02"), "B", 2)]
        ['2024-02-05', '2024-02-06']
    """
    import pandas as pd

    step = offset(freq)
    if last.tz is None or is_sub_daily(step):
        return pd.date_range(last, periods=count + 1, freq=step)[1:].as_unit("us")
    local = pd.date_range(last.tz_localize(None), periods=count + 1, freq=step)[1:]
    return local.tz_localize(last.tz, ambiguous=True, nonexistent="shift_forward").as_unit("us")  # type: ignore[arg-type]


def wall(time: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The local clock of the stamps, without a zone."""
    return time.tz_localize(None) if time.tz is not None else time


def recognise(time: pd.DatetimeIndex) -> str | None:
    """The frequency of sorted, distinct stamps, allowing gaps; None where there are fewer than three or no grid fits.

    Args:
        time: (T,) sorted stamps without repeats.
    """
    import numpy as np

    if len(time) < 3:
        return None
    steps = np.diff(time.as_unit("us").asi8)
    common = _most_frequent(steps)
    local = wall(time)
    if common >= 27 * _DAY_US:
        found = _calendar_name(local)
        if found:
            return found
    if common >= 23 * _DAY_US // 24:  # a local day has 23 hours when the clock is set forward
        found = _day_name(local)
        if found:
            return found
    if np.any(steps % common):
        return None
    return _tick_name(common)


def _tick_name(microseconds: int) -> str:
    """The largest unit that divides a fixed step: 1800000000 us is 30min."""
    for unit, size in (("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1000)):
        if microseconds % size == 0:
            return canonical(f"{microseconds // size}{unit}")
    return f"{microseconds}us"


def _most_frequent(steps: np.ndarray) -> int:
    import numpy as np

    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])


def _calendar_name(local: pd.DatetimeIndex) -> str | None:
    """Months, quarters and years, by their first or last days."""
    import numpy as np

    if len(np.unique(local.asi8 % _unit_of_day(local))) > 1:
        return None
    start, end = bool((local.day == 1).all()), bool(local.is_month_end.all())
    if not (start or end):
        return None
    months = np.asarray(local.year) * 12 + np.asarray(local.month) - 1
    step = int(np.gcd.reduce(np.diff(months)))
    suffix = "S" if start else "E"
    if step % 12 == 0:
        return canonical(f"{step // 12}Y{suffix}-{local[0].strftime('%b').upper()}")
    if step % 3 == 0:
        # All quarters of a cycle are the same grid: JAN, APR, JUL and OCT are one name, as are the others.
        anchor = (("JAN", "FEB", "MAR") if start else ("JAN", "FEB", "DEC"))[(local[0].month - 1) % 3]
        return canonical(f"{step // 3}Q{suffix}-{anchor}")
    return canonical(f"{step}M{suffix}")


def _day_name(local: pd.DatetimeIndex) -> str | None:
    """Days, business days and weeks on the local clock."""
    import numpy as np

    day = _unit_of_day(local)
    steps = np.diff(local.asi8)
    if np.any(steps % day):
        return None
    days = steps // day
    common = _most_frequent(days)
    if np.any(days % max(common, 1)) and common != 1:
        return None
    if common == 1:
        weekday = np.asarray(local.dayofweek)
        covers_weekend = int(days.sum()) >= 6
        return "B" if covers_weekend and weekday.max() <= 4 else "D"
    if common % 7 == 0:
        return canonical(f"{common // 7}W-{local[0].strftime('%a').upper()}")
    return canonical(f"{common}D")


def _unit_of_day(local: pd.DatetimeIndex) -> int:
    return {"s": 86_400, "ms": 86_400_000, "us": _DAY_US, "ns": _DAY_US * 1000}[local.unit]


def season_length(freq: str) -> int:
    """Steps in the natural season: a day for minutes and hours, a week for days, a year for weeks and more.

    Example:
        >>> [season_length(freq) for freq in ("h", "30min", "D", "B", "W-TUE", "MS", "QS-JAN", "YS-JAN", "s")]
        [24, 48, 7, 5, 52, 12, 4, 1, 3600]
    """
    import pandas as pd

    step = offset(freq)
    name = str(step.rule_code).split("-")[0]
    yearly = {"W": 52, "MS": 12, "ME": 12, "BME": 12, "BMS": 12, "QS": 4, "QE": 4, "BQE": 4, "BQS": 4}
    if name in yearly:
        return max(1, yearly[name] // step.n)
    if name in ("B", "C"):
        return max(1, 5 // step.n)
    if not isinstance(step, pd.tseries.offsets.Tick | pd.tseries.offsets.Day):
        return 1
    length = pd.Timedelta(days=step.n) if name == "D" else pd.Timedelta(step)
    for season in ("1h", "1D", "7D", "365D"):
        enough = pd.Timedelta(season) // length
        if (season == "1h" and length >= pd.Timedelta("1min")) or enough < 2:
            continue
        return int(enough)
    return 1
