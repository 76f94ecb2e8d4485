"""Checks of whole numbers that planning and its small models share; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.errors import ConfigError

__all__ = ["check_counts"]


def check_counts(values: Mapping[str, object], what: str = "out of range") -> None:
    """Refuse what is not a whole number from 1, by name.

    Raises:
        ConfigError: the first such value.

    Example:
        >>> check_counts({"steps": 3, "batch": 0})
        Traceback (most recent call last):
        pipelines.errors.ConfigError: batch: out of range. Found: 0. Expected: a whole number from 1.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(what, where=name, found=value, expected="a whole number from 1")
