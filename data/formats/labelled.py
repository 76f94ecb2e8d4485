"""Read labelled series: from the archives' formats, NPZ, long tables, sktime and aeon containers, NumPy."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
from typing import Any

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_pair import Pair, core_ending, in_folder, of_file, of_stem
from pipelines.data.formats.labelled_roles import Roles, nearest
from pipelines.data.formats.labelled_types import LabelledSeries
from pipelines.data.formats.table_read import check_file

__all__ = ["LabelledSeries", "read_labelled", "sktime_sets"]

_TABLES = (".csv", ".parquet", ".pq")
_ARCHIVE = (".ts", ".arff", ".tsv")
_EXPECTED = ".ts, .arff, .tsv (each also .gz, .bz2, .xz, .zip), .npz, .csv, .parquet"


def read_labelled(
    source: Any,
    *,
    labels: str | None = None,
    group: str | None = None,
    id: str | None = None,
    time: str | None = None,
    pair: bool = True,
) -> LabelledSeries:
    """Read a set of labelled series; what was changed, filled or put in order is counted in `notes`.

    Args:
        source: a path: `.ts` or `.arff` (UEA, UCR), `.tsv` (UCR), `.npz`, a long table (`.csv`, `.parquet`), or a
            folder with one pair NAME_TRAIN and NAME_TEST, or NAME of such a pair; the name of a set inside the
            installed sktime; or an object in memory: a long pandas table, an sktime panel, a list of (V, T) arrays,
            NumPy (n, V, T) or (n, T), the last three also with labels as (X, y).
        labels, group, id, time: columns of a long table, or arrays of an NPZ; recognised by their usual names
            when not given.
        pair: whether a file NAME_TRAIN or NAME_TEST is read together with its partner, as `split` train and test.

    Returns:
        (V, T) float32 series, NaN where nothing was measured, each as long as it was recorded.

    Raises:
        InputError: what cannot be read, with file, line, what was found, what was expected, and the cure.

    Complexity: O(values); a file of 20 MB takes seconds.

    Example:
        >>> read = read_labelled("BasicMotions")
        >>> len(read), read.series[0].shape, read.classes, read.ids[0], read.ids[-1]
        (80, (6, 100), ('Badminton', 'Running', 'Standing', 'Walking'), 'train-0', 'test-39')
    """
    roles = Roles(labels, group, id, time)
    if not isinstance(source, str | os.PathLike):
        from pipelines.data.formats.labelled_sktime import read_container

        return _with_missing(read_container(source, roles))
    path = pathlib.Path(os.fspath(source))
    if path.is_file():
        found = of_file(path) if pair else None
        if found is None:
            return _with_missing(_read_file(path, roles))
        return _read_pair(found, roles, [f"{path.name} was given: read together with its partner {found.other(path)}"])
    if path.is_dir():
        return _read_pair(in_folder(path), roles, [])
    found = of_stem(path)
    if found is None and len(path.parts) == 1:
        train = sktime_sets().get(path.name)
        found = of_file(train) if train is not None else None
    if found is None:
        raise _unknown(path)
    return _read_pair(found, roles, [])


def sktime_sets() -> dict[str, pathlib.Path]:
    """Names of the sets for classification inside the installed sktime, and the path of the training file of each.

    Complexity: O(sets); sktime itself is not imported.

    Example:
        >>> sktime_sets()["JapaneseVowels"].name
        'JapaneseVowels_TRAIN.ts'
    """
    from pipelines.data.formats.labelled_ts import is_classification

    found = importlib.util.find_spec("sktime")
    if found is None or found.origin is None:
        return {}
    folders = sorted(pathlib.Path(found.origin).parent.glob("datasets/data/*/*_TRAIN.ts"))
    return {
        path.parent.name: path
        for path in folders
        if path.name == f"{path.parent.name}_TRAIN.ts" and of_file(path) is not None and is_classification(path)
    }


def _read_file(path: pathlib.Path, roles: Roles) -> LabelledSeries:
    """One file by its ending, or by its first bytes where the ending says nothing."""
    check_file(path)
    kind = core_ending(path)
    if kind not in (*_ARCHIVE, *_TABLES, ".npz"):
        kind = _by_content(path)
    if kind in _TABLES:
        from pipelines.data.formats.labelled_table import read_long

        return read_long(path, roles)
    if kind == ".npz":
        from pipelines.data.formats.labelled_npz import read_npz

        return read_npz(path, roles)
    if roles.given:
        found = ", ".join(roles.given)
        expected = "no names of columns: the format says where the label is"
        raise InputError(f"{kind} has no named columns", where=path.name, found=found, expected=expected)
    if kind == ".ts":
        from pipelines.data.formats.labelled_ts import read_ts as read
    elif kind == ".arff":
        from pipelines.data.formats.labelled_arff import read_arff as read
    else:
        from pipelines.data.formats.labelled_tsv import read_tsv as read
    return read(path)


def _by_content(path: pathlib.Path) -> str:
    from pipelines.data.formats.labelled_text import read_lines

    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        return ".parquet"
    if head == b"PK\x03\x04" and path.suffix.lower() != ".zip":
        return ".npz"
    lines, _ = read_lines(path, _EXPECTED)
    said = (line.strip().lower() for line in lines if line.strip() and not line.lstrip().startswith(("#", "%")))
    first = next(said, "")
    if first.startswith("@relation"):
        return ".arff"
    if first.startswith("@"):
        return ".ts"
    raise InputError(
        "what kind of file this is cannot be told",
        where=path.name,
        found=f"the ending {path.suffix or '(none)'}, the first line {first[:40]!r}",
        expected=_EXPECTED,
        cure="rename it by its kind",
    )


def _read_pair(pair: Pair, roles: Roles, notes: list[str]) -> LabelledSeries:
    """Both files as one set with its official split; names of series get `train-` or `test-` before them."""
    train, test = (_read_file(path, roles) for path in (pair.train, pair.test))
    for one in (train, test):
        if one.split is not None:
            cure = "read the file alone with pair=False, or take the split out of it"
            raise InputError("the file has a split and a partner", where=one.source, cure=cure)
    for name in ("labels", "groups"):
        if (getattr(train, name) is None) != (getattr(test, name) is None):
            without = train.source if getattr(train, name) is None else test.source
            raise InputError(f"one file of the pair has {name}, the other has none", where=without, expected=name)
    if train.variables != test.variables:
        raise InputError(
            "the files of the pair have different variables",
            where=test.source,
            found=f"{len(test.variables)}: {', '.join(test.variables[:8])}",
            expected=f"{len(train.variables)}: {', '.join(train.variables[:8])}, as in {train.source}",
            cure="check that both belong to one set",
        )
    notes = [
        *pair.notes,
        *notes,
        *(f"train: {note}" for note in train.notes),
        *(f"test: {note}" for note in test.notes),
    ]
    new = sorted(set(test.labels or ()) - set(train.labels or ()))
    if new:
        count = sum(label in new for label in test.labels or ())
        notes.append(f"{count} test series have a label that no training series has: {', '.join(new[:8])}")
    both = dataclasses.replace(
        train,
        source=pair.name,
        series=train.series + test.series,
        labels=None if train.labels is None or test.labels is None else train.labels + test.labels,
        ids=tuple(f"train-{name}" for name in train.ids) + tuple(f"test-{name}" for name in test.ids),
        groups=None if train.groups is None or test.groups is None else train.groups + test.groups,
        split=("train",) * len(train) + ("test",) * len(test),
        notes=tuple(notes),
    )
    return _with_missing(both)


def _with_missing(data: LabelledSeries) -> LabelledSeries:
    """Say how much was not measured: it stays NaN, nothing is filled."""
    if not data.missing:
        return data
    holes = sum(bool((one != one).any()) for one in data.series)
    note = f"{data.missing:,} values in {holes} series were not measured"
    return dataclasses.replace(data, notes=(*data.notes, note))


def _unknown(path: pathlib.Path) -> InputError:
    names = list(sktime_sets())
    if len(path.parts) == 1 and not path.suffix:
        cure = nearest(path.name, names)
        problem, expected = "no such file, folder or set", f"a path, or one of {', '.join(names)}"
    else:
        entries = path.parent.iterdir() if path.parent.is_dir() else ()
        near = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        problem, expected = "no such file", "a path of a file or folder"
        cure = nearest(path.name, near) or (f"the folder holds {', '.join(near[:8])}" if near else "check the path")
    return InputError(problem, where=path, expected=expected, cure=cure)
