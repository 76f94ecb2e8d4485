"""Which rows train, validate and test: in time order, without a shared target row."""

from __future__ import annotations

from typing import NamedTuple

from pipelines.data.errors import InputError

_MONTH = 30 * 24
_ETT = {"ett-hour": 1, "ett-minute": 4}
PROTOCOLS = ("ett-hour", "ett-minute", "ratio:0.7,0.1,0.2")


class Segments(NamedTuple):
    """Row ranges [start, stop); validation and test begin `context` rows before their first target row."""

    train: tuple[int, int]
    val: tuple[int, int]
    test: tuple[int, int]


def segments(n_rows: int, protocol: str, context: int, horizon: int, *, name: str = "the table") -> Segments:
    """The three segments of a series by a published protocol.

    Args:
        n_rows: rows of the series.
        protocol: `ett-hour` (12, 4, 4 months of 30 days), `ett-minute` (the same at 15 minutes) or `ratio:a,b,c`
            (int(a n) rows train, int(c n) test, the rest validate).
        context: rows that a window sees (L).
        horizon: rows that a window forecasts (H).
        name: the series, for messages.

    Raises:
        InputError: unknown protocol, a ratio that isn't one, or too few rows for one window in each segment.

    Source: Autoformer (Wu et al., 2021), section 4; the borders are those of its released loaders.

    Example:
        >>> segments(17420, "ett-hour", 96, 96)
        Segments(train=(0, 8640), val=(8544, 11520), test=(11424, 14400))
    """
    _check_lengths(context, horizon)
    if protocol in _ETT:
        step = _MONTH * _ETT[protocol]
        train, val, test = 12 * step, 4 * step, 4 * step
        if n_rows < train + val + test:
            raise InputError(
                f"too few rows for the protocol {protocol}",
                where=name,
                found=n_rows,
                expected=f"at least {train + val + test}",
                cure="use --protocol ratio:0.7,0.1,0.2",
            )
        stop = train + val + test
    else:
        first, _, last = _ratio(protocol)
        train, test = int(n_rows * first), int(n_rows * last)
        val, stop = n_rows - train - test, n_rows
    if train < context + horizon or val < horizon or test < horizon:
        raise InputError(
            "too few rows",
            where=name,
            found=f"{n_rows} rows, of which {train} train, {val} validate and {test} test",
            expected=f"at least {context + horizon} (context {context} + horizon {horizon}) to train, "
            f"and {horizon} in each of the others",
            cure="a shorter --context or --horizon, or more rows",
        )
    return Segments((0, train), (train - context, train + val), (stop - test - context, stop))


def _check_lengths(context: int, horizon: int) -> None:
    for name, value in (("context", context), ("horizon", horizon)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(
                f"{name} must be a positive whole number", where=f"--{name}", found=repr(value), expected="1 or more"
            )


def _ratio(protocol: str) -> tuple[float, float, float]:
    kind, _, text = protocol.partition(":")
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if kind != "ratio" or len(parts) != 3 or not all(0 < part < 1 for part in parts) or abs(sum(parts) - 1) > 1e-6:
        raise InputError(
            "not a protocol",
            where="--protocol",
            found=repr(protocol),
            expected=", ".join(PROTOCOLS),
            cure="three positive parts that add up to 1: training, validation, test",
        )
    return parts[0], parts[1], parts[2]


def window_count(rows: tuple[int, int], context: int, horizon: int, stride: int = 1) -> int:
    """Windows that fit into a row range: floor((stop - start - L - H) / stride) + 1, or none.

    Example:
        >>> window_count((0, 8640), 96, 96)
        8449
    """
    return max(0, (rows[1] - rows[0] - context - horizon) // stride + 1)
