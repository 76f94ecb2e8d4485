"""Which column of a table plays which part; loads neither pandas nor torch, so that the command line can show it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnOptions:
    """What each column of a table is; whatever is not said is recognised from names and contents.

    Example:
        >>> ColumnOptions(target=("Demand",), known=("Holiday",)).known
        ('Holiday',)
    """

    time: str | None = None
    """Column with the time stamps (recognised: ds, timestamp, datetime, date, time, or a first column of dates)."""
    id: str | None = None
    """Column that names the series in a long table (recognised: unique_id, series_id, item_id)."""
    target: tuple[str, ...] = ()
    """Columns to forecast (a long table: y; a wide table: every numeric column without another role)."""
    known: tuple[str, ...] = ()
    """Columns whose future is known, such as holidays or prices; rows after the last target hold that future."""
    past: tuple[str, ...] = ()
    """Columns known only up to the present (by default every other numeric column once targets are named)."""
    static: tuple[str, ...] = ()
    """Columns that hold one number or one word for a whole series."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    timezone: str | None = None
    """Zone of the time stamps, such as Europe/Berlin: stamps without a zone are local, others are converted."""
    date_format: str | None = None
    """Format of the time stamps, such as %d/%m/%Y, or s, ms, us, ns for counts since 1970."""
