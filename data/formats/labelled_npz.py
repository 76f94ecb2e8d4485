"""NumPy's `.npz` with series, labels and groups; nothing in it is ever unpickled."""

from __future__ import annotations

import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_roles import Roles, label_text, nearest
from pipelines.data.formats.labelled_types import LabelledSeries
from pipelines.data.formats.table_read import MAX_BYTES, check_file

__all__ = ["read_npz"]

_NAMES = {
    "labels": ("y", "label", "labels", "target"),
    "group": ("subject", "group", "groups"),
    "id": ("id", "ids"),
    "split": ("split",),
    "variables": ("variables", "names", "X_labels"),
    "classes": ("y_labels", "classes"),
}
_LAYOUT = "X (n, variables, time), or X (total time, variables) with lengths (n,)"
_Arrays = Mapping[str, NDArray]


def read_npz(path: pathlib.Path, roles: Roles) -> LabelledSeries:
    """Series of one `.npz` file.

    Args:
        path: the file. `X` is (n, variables, time), or (n, time) for one variable, or all series one after the other as
            (total time, variables) with their `lengths` (n,). Beside it: `y` (n,), `subject` or `group` (n,), `id`
            (n,), `split` (n,) of train and test, `variables` (or `names`, `X_labels`) and `y_labels` (or `classes`),
            the names of classes of which `y` holds the numbers from 0 on.
        roles: arrays named by the caller instead of these.

    Raises:
        InputError: Python objects inside, no `X`, shapes that do not fit, a damaged file.

    Complexity: O(values).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     path = pathlib.Path(base, "a.npz")
        ...     np.savez(path, X=np.zeros((7, 2)), lengths=[3, 4], y=["up", "down"], subject=[1, 2])
        ...     read = read_npz(path, Roles())
        >>> read.lengths.tolist(), read.labels, read.groups
        ([3, 4], ('up', 'down'), ('1', '2'))
    """
    check_file(path)
    if roles.time is not None:
        raise InputError(
            "NPZ has no column of times", where=path.name, found=f"time={roles.time!r}", cure="leave it out"
        )
    arrays = _load(path)
    taken = {role: _find(arrays, role, getattr(roles, role, None), path.name) for role in _NAMES}
    series = _series(arrays, path.name)
    notes = [
        f"'{key}' taken as {role}" for role, key in taken.items() if key and role in ("labels", "group", "classes")
    ]
    rest = sorted(set(arrays) - {"X", "lengths"} - {key for key in taken.values() if key})
    if rest:
        notes.append(f"{len(rest)} arrays not used: {', '.join(rest[:8])}")

    def texts(role: str) -> list[str] | None:
        key = taken[role]
        return None if key is None else _texts(arrays[key], key, path.name)

    classes, split = texts("classes"), texts("split")
    labels = texts("labels")
    if labels is None:
        notes.append("the file has no labels")
    elif classes is not None:
        labels = _named(labels, classes, path.name)
    if split is not None and not set(split) <= {"train", "test"}:
        other = sorted(set(split) - {"train", "test"})[0]
        raise InputError("not a part of a split", where=f"{path.name}, split", found=other, expected="train or test")
    return LabelledSeries.of(
        series,
        labels=labels,
        source=path.name,
        variables=texts("variables"),
        ids=texts("id"),
        groups=texts("group"),
        split=split,
        notes=notes,
    )


def _load(path: pathlib.Path) -> dict[str, NDArray]:
    where, cure = path.name, "write or copy the file again"
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise InputError("the file is too large", where=where, found=f"{size:,} bytes", expected=f"{MAX_BYTES:,}")
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except InputError:
        raise
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise InputError("not a readable NPZ file", where=where, found=str(error)[:120], cure=cure) from error
        raise InputError(
            "Python objects inside, which are never unpickled: they could run any code",
            where=where,
            expected="arrays of numbers and of texts (dtype str)",
            cure="write series of different lengths one after the other as X (total time, variables) with their "
            "lengths, and labels with numpy.asarray(y, str)",
        ) from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, MemoryError, NotImplementedError) as error:
        raise InputError("not a readable NPZ file", where=where, found=str(error)[:120], cure=cure) from error


def _find(arrays: _Arrays, role: str, named: str | None, name: str) -> str | None:
    if named is not None:
        if named not in arrays:
            raise InputError(
                f"no array '{named}'",
                where=f"{name}, {role}",
                found=", ".join(arrays),
                cure=nearest(named, list(arrays)) or "choose one of the arrays",
            )
        return named
    found = [key for key in _NAMES[role] if key in arrays]
    if len(found) > 1:
        cure = f"name one with {role}=" if role in ("labels", "group", "id") else "leave one of them out"
        raise InputError(f"two arrays for the {role}", where=name, found=", ".join(found), expected="one", cure=cure)
    return found[0] if found else None


def _series(arrays: _Arrays, name: str) -> list[NDArray]:
    if "X" not in arrays:
        raise InputError("no array X", where=name, found=", ".join(arrays) or "nothing", expected=_LAYOUT)
    values = arrays["X"]
    if values.dtype.kind not in "fiub":
        raise InputError("X holds no numbers", where=name, found=f"dtype {values.dtype}", expected=_LAYOUT)
    if "lengths" not in arrays:
        if values.ndim == 2:
            return list(values[:, None])
        if values.ndim != 3:
            raise InputError("X has another shape", where=name, found=values.shape, expected=_LAYOUT)
        return list(values)
    lengths = arrays["lengths"]
    if values.ndim != 2 or lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        found = f"X {values.shape}, lengths {lengths.shape} {lengths.dtype}"
        raise InputError("X and lengths have another shape", where=name, found=found, expected=_LAYOUT)
    if (lengths < 1).any() or int(lengths.sum()) != len(values):
        found = f"{int(lengths.sum()):,} in all, the shortest {int(lengths.min())}" if len(lengths) else "none"
        expected = f"1 or more each, {len(values):,} in all as in X"
        raise InputError("the lengths do not fit X", where=name, found=found, expected=expected)
    return [part.T for part in np.split(values, np.cumsum(lengths)[:-1])]


def _texts(array: NDArray, key: str, name: str) -> list[str]:
    if array.ndim != 1:
        raise InputError(f"'{key}' has another shape", where=name, found=array.shape, expected="one axis")
    return [label_text(value, f"{name}, {key}") for value in array.tolist()]


def _named(labels: list[str], classes: list[str], name: str) -> list[str]:
    """Names instead of the numbers of classes."""
    numbers = {str(number): text for number, text in enumerate(classes)}
    wrong = next((label for label in labels if label not in numbers), None)
    if wrong is not None and not set(labels) <= set(classes):
        expected = f"0 to {len(classes) - 1}, or one of the names {', '.join(classes[:8])}"
        raise InputError("a label without a name of its class", where=name, found=wrong, expected=expected)
    return labels if wrong is not None else [numbers[label] for label in labels]
