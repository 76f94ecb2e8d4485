"""Arguments as values: options from mappings, and everything as plain JSON. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipelines.domains import did_you_mean
from pipelines.errors import ConfigError

__all__ = ["agrees", "as_options", "plain", "plain_params", "shown_value", "to_json"]

Options = TypeVar("Options")


def as_options(cls: type[Options], value: Options | Mapping[str, Any], where: str) -> Options:
    """A dataclass of options from itself, or from a mapping of some of its fields (as JSON and YAML hold it).

    Raises:
        ConfigError: a field that does not exist, with the nearest name.

    Example:
        >>> from pipelines.training.options import TrainOptions
        >>> as_options(TrainOptions, {"epochs": 3}, "train").epochs
        3
    """
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError("not options", where=where, found=type(value).__name__, expected=f"{cls.__name__} or a dict")
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in value:
        if name not in names:
            raise ConfigError(
                "unknown option", where=f"{where}.{name}", cure=did_you_mean(name, names) or ", ".join(names)
            )
    # JSON has lists where the options have tuples.
    return cls(**{name: tuple(item) if isinstance(item, list) else item for name, item in value.items()})


def of_kind(stored: Any, value: Any, where: str) -> Any:
    """A new value for an argument: where options are stored and a mapping is given, the stored ones with it changed.

    Example:
        >>> from pipelines.training.options import TrainOptions
        >>> changed = of_kind(TrainOptions(batch_size=7), {"epochs": 3}, "train")
        >>> changed.epochs, changed.batch_size, of_kind(1, 2, "seed")
        (3, 7, 2)
    """
    if dataclasses.is_dataclass(stored) and not isinstance(stored, type) and isinstance(value, Mapping):
        given = as_options(type(stored), value, where)
        return dataclasses.replace(stored, **{name: getattr(given, name) for name in value})
    return value


def agrees(stored: Any, asked: Any) -> bool:
    """Whether an argument given by the user contradicts the stored one; unset (None) parts ask for nothing."""
    if dataclasses.is_dataclass(asked) and not isinstance(asked, type):
        fields = dataclasses.fields(asked)
        return all(
            getattr(asked, f.name) in (None, f.default) or getattr(asked, f.name) == getattr(stored, f.name)
            for f in fields
        )
    return stored == asked


def shown_value(value: Any) -> Any:
    """An argument as a message shows it: of a dataclass, what was set."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {k: v for k, v in dataclasses.asdict(value).items() if v is not None}
    return value


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments as JSON-ready values (dataclasses become dictionaries, paths text)."""
    return json.loads(json.dumps(dict(params), default=plain))


def to_json(value: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON that every reader takes: what is not a finite number becomes null.

    Example:
        >>> to_json({"mse": 0.5, "mase": float("nan")})
        '{"mse": 0.5, "mase": null}'
    """
    return json.dumps(_finite(json.loads(json.dumps(dict(value), default=plain))), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain(value: Any) -> Any:
    """What JSON holds in place of a value that it does not know (the ``default`` of ``json.dumps``)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    array: Any = value
    if hasattr(array, "item") and getattr(array, "ndim", 0) == 0:
        return array.item()
    if hasattr(array, "tolist"):
        return array.tolist()
    raise TypeError(f"{type(value).__name__} is not plain")
