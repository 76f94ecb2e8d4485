"""Whatever a user calls labelled series, as one container."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

from pipelines.classify.options import SeriesColumns
from pipelines.data.formats.labelled_types import LabelledSeries

__all__ = ["read"]


def read(data: Any, columns: SeriesColumns) -> LabelledSeries:
    """Read a path, an embedded set by name (``demo``, ``watch``), a set of sktime's, a table, a container or arrays.

    Raises:
        InputError: neither, or data that cannot be used as they are.
    """
    from pipelines.data.catalog import entry, is_name, open_entry
    from pipelines.data.formats.labelled import read_labelled

    if isinstance(data, LabelledSeries):
        return data
    if is_name(data, "classify"):
        one = entry(data, "classify")
        open_entry(one)  # a damaged file is refused before it is read
        place = resources.files("pipelines.data").joinpath("samples", *one.path.split("/"))
        with resources.as_file(place) as file:
            return dataclasses.replace(read_labelled(file), source=one.name)
    given: Any = Path(data) if isinstance(data, str) and Path(data).exists() else data
    return read_labelled(given, labels=columns.label, group=columns.group, id=columns.id, time=columns.time)
