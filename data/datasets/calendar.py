"""Where a stamp stands in its hour, day, week, month and year, as numbers in [-0.5, 0.5]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.formats.table_freq import is_sub_daily, offset

if TYPE_CHECKING:
    import pandas as pd

_PARTS: dict[str, Callable[[pd.DatetimeIndex], np.ndarray]] = {
    "second_of_minute": lambda time: np.asarray(time.second) / 59,
    "minute_of_hour": lambda time: np.asarray(time.minute) / 59,
    "hour_of_day": lambda time: np.asarray(time.hour) / 23,
    "day_of_week": lambda time: np.asarray(time.dayofweek) / 6,
    "day_of_month": lambda time: (np.asarray(time.day) - 1) / 30,
    "day_of_year": lambda time: (np.asarray(time.dayofyear) - 1) / 365,
    "week_of_year": lambda time: (time.isocalendar().week.to_numpy(dtype=np.float64) - 1) / 52,
    "month_of_year": lambda time: (np.asarray(time.month) - 1) / 11,
    # A year has no position inside a longer period: one still column keeps the width that models expect.
    "year": lambda time: np.full(len(time), 0.5),
}
_DAYS = ("day_of_week", "day_of_month", "day_of_year")


def calendar_names(freq: str) -> tuple[str, ...]:
    """Names of the features of a frequency, in order.

    Example:
        >>> calendar_names("h"), len(calendar_names("15min")), calendar_names("W-TUE")
        (('hour_of_day', 'day_of_week', 'day_of_month', 'day_of_year'), 5, ('day_of_month', 'week_of_year'))
    """
    import pandas as pd

    step = offset(freq)
    if is_sub_daily(step):
        length = pd.Timedelta(step)  # type: ignore[arg-type]
        finer = () if length % pd.Timedelta("1h") == pd.Timedelta(0) else ("minute_of_hour",)
        finest = () if length % pd.Timedelta("1min") == pd.Timedelta(0) else ("second_of_minute",)
        return (*finest, *(finer or (("minute_of_hour",) if finest else ())), "hour_of_day", *_DAYS)
    name = str(step.rule_code).split("-")[0]
    if name == "W":
        return ("day_of_month", "week_of_year")
    if name.startswith(("Y", "BY")):
        return ("year",)
    if "M" in name or "Q" in name:
        return ("month_of_year",)
    return _DAYS


def calendar_features(index: pd.DatetimeIndex, freq: str) -> np.ndarray:
    """(T, F) float32 calendar features of stamps, by their local clock.

    Args:
        index: (T,) stamps.
        freq: step, which decides the features: 5 for minutes, 4 for hours, 3 for days, 2 for weeks, 1 for months.

    Source: Autoformer's released code, time features ("timeF").

    Example:
        >>> import pandas as pd
        >>> calendar_features(pd.DatetimeIndex(["2016-07-01 23:00"]), "h").round(3).tolist()
        [[0.5, 0.16699999570846558, -0.5, -0.0010000000474974513]]
    """
    columns = [_PARTS[name](index) - 0.5 for name in calendar_names(freq)]
    return np.stack(columns, axis=1).astype(np.float32)
