"""Names that the caller gives to columns and arrays, and labels as text."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from pipelines.data.errors import InputError

__all__ = ["Roles", "label_text", "nearest"]


@dataclasses.dataclass(frozen=True)
class Roles:
    """Columns of a table, or arrays of an NPZ, that the caller named; None is recognised."""

    labels: str | None = None
    group: str | None = None
    id: str | None = None
    time: str | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The roles that were named, as `labels='kind'`."""
        return tuple(f"{role}={name!r}" for role, name in dataclasses.asdict(self).items() if name is not None)


def label_text(value: Any, where: str) -> str:
    """A label, group or name as text; whole numbers without decimals, so that 1 and 1.0 are one class.

    Raises:
        InputError: an empty or missing value.

    Example:
        >>> label_text(2.0, "y"), label_text("up ", "y"), label_text(2.5, "y")
        ('2', 'up', '2.5')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None or value != value else str(value).strip()
    if text in ("", "<NA>", "NaT"):
        raise InputError(
            "an empty value",
            where=where,
            found=repr(value),
            expected="a text or a number for every series",
            cure="fill it in, or leave the series out",
        )
    return text


def nearest(wanted: str, names: Sequence[str]) -> str | None:
    """`did you mean 'name'?`, or None if no name is near.

    Example:
        >>> nearest("lable", ["id", "label"])
        "did you mean 'label'?"
    """
    by_lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(wanted.lower(), list(by_lower), 1, 0.6)
    return f"did you mean '{by_lower[near[0]]}'?" if near else None
