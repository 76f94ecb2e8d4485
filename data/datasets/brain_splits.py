"""Splits of runs and subjects: what belongs together, by run, session, subject, family or site, is never divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_tables import subject_key
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.datasets.brain_walk import natural
from pipelines.data.errors import InputError

__all__ = ["GROUPINGS", "group_of", "hold_out", "leave_out", "read_split", "split_notes"]

Grouping = Literal["run", "session", "subject", "family", "site"]
GROUPINGS = ("run", "session", "subject", "family", "site")


def group_of(recording: Recording, by: Grouping) -> str:
    """The name of what a run must stay together with.

    By subject, members of a family stay together where the family is known: relatives share anatomy. By session, a
    session is one of one subject.

    Args:
        recording: one run.
        by: what must not be divided.

    Raises:
        InputError: the run's subject, family or site is not known; no such grouping.

    Example:
        >>> group_of(Recording("a", None, "01", family="7"), "subject"), group_of(Recording("a", None, "01"), "subject")
        ('family-7', 'sub-01')
    """
    if by not in GROUPINGS:
        raise InputError("no such grouping", where="by", found=repr(by), expected=", ".join(GROUPINGS))
    if by == "run":
        return recording.name
    if by == "subject":
        known = recording.family or recording.subject
        group = f"family-{recording.family}" if recording.family else f"sub-{recording.subject}"
    elif by == "session":
        known = recording.subject
        group = f"sub-{recording.subject}" + (f"_ses-{recording.session}" if recording.session else "")
    else:
        known = recording.family if by == "family" else recording.site
        group = f"{by}-{known}"
    if not known:
        what = "subject" if by == "session" else by
        cure = "split by run" if what == "subject" else f"a column {what} in the table of people, or split by subject"
        raise InputError(f"the {what} of a run is not known", where=recording.name, expected=f"a {what}", cure=cure)
    return group


def leave_out(groups: Sequence[str], folds: int | None = None) -> NDArray[np.int64]:
    """The fold in which each item is tested; every item once, no group divided.

    Args:
        groups: the group of each of N items.
        folds: 2 or more; None: each group is left out once, in natural order of their names. Fewer folds than groups
            are filled from the largest group on, always the fold with the fewest items.

    Returns:
        (N,) numbers from 0; the same for the same groups.

    Raises:
        InputError: fewer than two groups or folds, more folds than groups.

    Complexity: O(N log N + groups x folds).

    Example:
        >>> leave_out(["run-2", "run-10", "run-2"]).tolist(), leave_out(list("aabbcd"), 2).tolist()
        ([0, 1, 0], [0, 0, 1, 1, 0, 1])
    """
    names = sorted(set(groups), key=natural)
    if len(names) < 2:
        found = f"{len(names)} group of {len(groups)} items"
        cure = "split by something finer, e.g. by run"
        raise InputError("one group cannot be divided", where="split", found=found, expected="two or more", cure=cure)
    count = len(names) if folds is None else folds
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= len(names):
        expected = f"from 2 to {len(names)}, the number of groups"
        raise InputError("no such number of folds", where="folds", found=repr(folds), expected=expected)
    if count == len(names):
        place = {name: fold for fold, name in enumerate(names)}
        return np.array([place[one] for one in groups], np.int64)
    sizes = dict.fromkeys(names, 0)
    for one in groups:
        sizes[one] += 1
    held, place = [0] * count, {}
    for name in sorted(names, key=lambda one: -sizes[one]):  # stable: natural order among equals
        fold = min(range(count), key=lambda one: held[one])
        place[name] = fold
        held[fold] += sizes[name]
    return np.array([place[one] for one in groups], np.int64)


def hold_out(groups: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Which items are held out, by whole groups: to select a model, or to test it once.

    Groups are taken in an order that the seed and the names alone decide, while the share of the items comes nearer
    to what is wanted; at least one group is held out and at least one stays.

    Args:
        groups: the group of each of N items.
        share: of the items, between 0 and 1; 0 holds out nothing.
        seed: of the draw.

    Returns:
        (N,) True where held out.

    Raises:
        InputError: a share that is none, or one group only.

    Complexity: O(N log N).

    Example:
        >>> held = hold_out(list("aabbccddee"), 0.2, seed=0)
        >>> int(held.sum()), [bool(held[place] == held[place + 1]) for place in range(0, 10, 2)]
        (2, [True, True, True, True, True])
    """
    if not 0 <= share < 1:
        raise InputError("no such share", where="share", found=share, expected="from 0 to below 1")
    if share == 0:
        return np.zeros(len(groups), bool)
    names = sorted(set(groups), key=natural)
    if len(names) < 2:
        found = f"{len(names)} group of {len(groups)} items"
        cure = "hold out nothing (share 0), or by something finer, e.g. by run"
        raise InputError("one group cannot be divided", where="split", found=found, expected="two or more", cure=cure)
    number = {name: place for place, name in enumerate(names)}
    items = np.array([number[one] for one in groups], np.int64)
    sizes = np.bincount(items, minlength=len(names))
    order = np.random.default_rng(seed).permutation(len(names))
    wanted, count, taken = share * len(groups), 0, []
    for group in order[:-1]:
        if not taken or abs(count + sizes[group] - wanted) < abs(count - wanted):
            taken.append(group)
            count += int(sizes[group])
    return np.isin(items, taken)


def split_notes(groups: Sequence[str], folds: NDArray[np.int64] | NDArray[np.bool_], by: str = "group") -> str:
    """One sentence about a split: how many groups and items each part has.

    Args:
        groups: of N items.
        folds: (N,) of :func:`leave_out` or :func:`hold_out`.
        by: what the groups are.

    Example:
        >>> split_notes(list("aabbcd"), leave_out(list("aabbcd"), 2), "subject")
        '6 items of 4 groups (by subject) in 2 folds of 3 to 3 items; no group is divided'
    """
    names = len(set(groups))
    if folds.dtype == np.bool_:
        held = {one for one, out in zip(groups, folds, strict=True) if out}
        counts = f"{int(folds.sum()):,} of {len(groups):,} items held out, {len(held):,} of {names:,} groups"
        return f"{counts} (by {by}); no group is divided"
    sizes = np.bincount(folds)
    parts = f"{len(sizes):,} folds of {sizes.min():,} to {sizes.max():,} items"
    return f"{len(groups):,} items of {names:,} groups (by {by}) in {parts}; no group is divided"


def read_split(path: Path) -> dict[str, tuple[str, ...]]:
    """The subjects of training, validation and test out of a text file of the authors' code (`split_fixed_1.txt`).

    The file holds the lines `train_subjects`, `val_subjects` and `test_subjects`, each followed by one subject a line.

    Returns:
        Subjects of `train`, `val` and `test`.

    Raises:
        InputError: not such a file, a subject in two parts.

    Source: Transconnectome/SwiFT, `project/module/utils/data_module.py`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as base:
        ...     path = Path(base, "split_fixed_1.txt")
        ...     _ = path.write_text("train_subjects\\n01\\nval_subjects\\n02\\ntest_subjects\\n03\\n")
        ...     read_split(path)
        {'train': ('01',), 'val': ('02',), 'test': ('03',)}
    """
    parts: dict[str, list[str]] = {}
    current: list[str] | None = None
    cure = "name a file with the lines train_subjects, val_subjects, test_subjects"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the split cannot be read", where=path, found=str(error)[:120], cure=cure) from error
    for number, line in enumerate(lines, 1):
        text = line.strip()
        part = text.removesuffix("_subjects")
        if part in ("train", "val", "test") and text.endswith("_subjects") and part not in parts:
            current = parts.setdefault(part, [])
        elif text and current is None:
            raise InputError("not a split", where=path, found=f"{text[:60]!r} in line {number}", cure=cure)
        elif text and current is not None:
            current.append(subject_key(text))
    if set(parts) != {"train", "val", "test"}:
        raise InputError("not a split", where=path, found=", ".join(parts) or "no part", cure=cure)
    every = [one for names in parts.values() for one in names]
    twice = sorted({one for one in every if every.count(one) > 1}) if len(set(every)) < len(every) else []
    if twice:
        raise InputError("a subject stands twice in the split", where=path, found=twice[0], expected="each once")
    return {name: tuple(parts[name]) for name in ("train", "val", "test")}
