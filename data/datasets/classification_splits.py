"""Splits of labelled series: the official one, folds by group and class, and a part held out to select a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.data.errors import InputError
from pipelines.data.formats.labelled_types import LabelledSeries

__all__ = ["Holdout", "group_folds", "holdout", "official_split"]

Indices = NDArray[np.int64]
_ORDERS = 50  # of groups: the first misses a class in under 1 % of random sets


def official_split(data: LabelledSeries) -> tuple[Indices, Indices]:
    """Indices of the training and of the test examples, as the source splits them.

    Raises:
        InputError: the source has no split, or one of the parts is empty.

    Example:
        >>> data = LabelledSeries.of([np.zeros((1, 2))] * 3, split=["train", "test", "train"])
        >>> [part.tolist() for part in official_split(data)]
        [[0, 2], [1]]
    """
    parts = np.array(data.split if data.split is not None else (), str)
    train, test = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test")
    if not len(train) or not len(test):
        raise InputError(
            "no split into training and test",
            where=data.source,
            found=f"{len(train)} train, {len(test)} test" if len(parts) else "one part",
            expected="files NAME_TRAIN and NAME_TEST, or an array split",
            cure="cross-validate instead, with group_folds",
        )
    return train, test


def group_folds(data: LabelledSeries, folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Training and test examples of each fold; every example is tested once, and no group is cut.

    With groups, as many folds as groups leave one group out each time, in the order of their names; fewer folds get
    whole groups, the classes as even as that allows. Without groups each class is dealt out to the folds in turn.

    Args:
        data: labelled series.
        folds: 2 or more.
        seed: for the order in which groups or examples are dealt out.

    Returns:
        (train, test) of each fold, sorted.

    Raises:
        InputError: no labels, more folds than groups, a class with fewer examples than folds, a class that only the
            test part of a fold would have.

    Complexity: O(N log N + groups x folds x (classes + folds)).

    Example:
        >>> data = LabelledSeries.of([np.zeros((1, 2))] * 4, labels=list("abab"), groups=["x", "x", "y", "y"])
        >>> [(train.tolist(), test.tolist()) for train, test in group_folds(data, 2, 0)]
        [([2, 3], [0, 1]), ([0, 1], [2, 3])]
    """
    labels = _label_numbers(data)
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise InputError("folds must be a whole number", where="folds", found=repr(folds), expected="2 or more")
    rng = np.random.default_rng(seed)
    if data.groups is None:
        place = _deal(labels, data, folds, rng)
    else:
        names, groups = np.unique(np.array(data.groups, str), return_inverse=True)
        if folds > len(names):
            expected = f"at most {len(names)}, the number of groups"
            raise InputError("more folds than groups", where=data.source, found=f"{folds} folds", expected=expected)
        place = groups if folds == len(names) else _place_groups(labels, groups, folds, rng)[groups]
    parts = [(np.flatnonzero(place != fold), np.flatnonzero(place == fold)) for fold in range(folds)]
    for fold, (train, test) in enumerate(parts):
        lost = sorted(set(labels[test]) - set(labels[train]))
        if lost:
            raise InputError(
                f"class '{data.classes[lost[0]]}' would be tested in fold {fold} without being trained on",
                where=data.source,
                found="all its examples belong to groups of one fold",
                expected="each class in two or more groups, in different folds",
                cure="other folds or another seed; leave out a class that one group alone has",
            )
    return parts


def _label_numbers(data: LabelledSeries) -> Indices:
    """(N,) place of each label in `data.classes`."""
    if data.labels is None:
        raise InputError("the series have no labels", where=data.source, expected="a label for every series")
    number = {label: place for place, label in enumerate(data.classes)}
    return np.array([number[label] for label in data.labels], np.int64)


def _deal(labels: Indices, data: LabelledSeries, folds: int, rng: np.random.Generator) -> Indices:
    """(N,) fold of each example: one class after the other, going on where the last one stopped."""
    counts = np.bincount(labels)
    if counts.min() < folds:
        few = int(counts.argmin())
        raise InputError(
            f"class '{data.classes[few]}' has too few examples",
            where=data.source,
            found=f"{counts[few]} for {folds} folds",
            expected="one for every fold",
            cure=f"{counts[few]} folds" if counts[few] > 1 else "leave the class out",
        )
    order = np.concatenate([rng.permutation(np.flatnonzero(labels == one)) for one in range(len(counts))])
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) % folds
    return place


def _place_groups(labels: Indices, groups: Indices, folds: int, rng: np.random.Generator) -> Indices:
    """(groups,) fold of each, so that no class has all its groups in one fold, if one of some orders leads there."""
    table = np.zeros((int(groups.max()) + 1, int(labels.max()) + 1))
    np.add.at(table, (groups, labels), 1)
    place = np.zeros(len(table), np.int64)
    for attempt in range(_ORDERS):
        order = rng.permutation(len(table))
        if not attempt:  # the largest first gives the most even folds; where that fails, any order may do
            order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
        place = _place_in_order(table, order, folds)
        held = np.stack([table[place == fold].sum(axis=0) for fold in range(folds)])
        if (held < table.sum(axis=0)).all():
            break
    return place


def _place_in_order(table: NDArray[np.float64], order: NDArray[np.int64], folds: int) -> Indices:
    """One group after the other, each to the fold where the classes become most even."""
    share, held = 1 / table.sum(axis=0), np.zeros((folds, table.shape[1]))
    place, members = np.empty(len(table), np.int64), np.zeros(folds, np.int64)
    for done, group in enumerate(order):
        costs = np.empty(folds)
        for fold in range(folds):
            held[fold] += table[group]
            costs[fold] = (held * share).std(axis=0).mean() + 1e-9 * held[fold].sum()
            held[fold] -= table[group]
        if (members == 0).sum() >= len(table) - done:  # every fold needs one: the rest goes to the empty ones
            costs[members > 0] = np.inf
        fold = int(costs.argmin())
        held[fold] += table[group]
        place[group], members[fold] = fold, members[fold] + 1
    return place


class Holdout(NamedTuple):
    """Sorted indices to fit and to select by, and notes about classes that could not be divided."""

    fit: Indices
    validation: Indices
    notes: tuple[str, ...]


def holdout(data: LabelledSeries, indices: Sequence[int] | Indices, share: float = 0.2, *, seed: int) -> Holdout:
    """Divide the training part once more, to select a model without a look at the test part.

    With groups, whole groups go to validation, as long as each class keeps a group to fit. Without groups each class
    gives its share, rounded, but at least one example and never its last one.

    Args:
        data: labelled series.
        indices: the training examples.
        share: part that goes to validation, from 0 (nothing does) to below 1.
        seed: for the choice.

    Returns:
        (fit, validation, notes); fit and validation together are `indices`.

    Raises:
        InputError: no labels, a share that is none, nothing that could be held out.

    Complexity: O(N log N + groups^2 x classes).

    Example:
        >>> data = LabelledSeries.of([np.zeros((1, 2))] * 5, labels=list("aabbc"))
        >>> part = holdout(data, range(5), 0.5, seed=0)
        >>> len(part.fit), len(part.validation), part.notes
        (3, 2, ('1 classes with one training example are not in the validation part',))
    """
    chosen = np.unique(np.asarray(indices, np.int64))
    if not 0 <= share < 1 or len(chosen) != len(indices) or not len(chosen):
        found = f"share {share}, {len(indices)} indices, {len(chosen)} different"
        expected = "a share from 0 to below 1, and different indices"
        raise InputError("nothing to divide", where="holdout", found=found, expected=expected)
    labels = _label_numbers(data)[chosen]
    if share == 0:
        return Holdout(chosen, chosen[:0], ())
    rng = np.random.default_rng(seed)
    counts = np.bincount(labels)
    notes: tuple[str, ...] = ()
    if data.groups is None:
        held = _hold_examples(labels, counts, share, rng)
        if (counts == 1).any():
            notes = (f"{int((counts == 1).sum())} classes with one training example are not in the validation part",)
    else:
        groups = np.unique(np.array(data.groups, str)[chosen], return_inverse=True)[1]
        held = _hold_groups(labels, groups, share, rng)
        absent = len(set(labels) - set(labels[held]))
        if absent:
            notes = (f"{absent} classes are not in the validation part: no group could be held out for them",)
    if not held.any():
        raise InputError(
            "no example can be held out for validation",
            where=data.source,
            found=f"{len(chosen)} training examples of {int((counts > 0).sum())} classes",
            expected="a class with two examples, in different groups where there are groups",
            cure="share=0 trains without a validation part",
        )
    return Holdout(chosen[~held], chosen[held], notes)


def _hold_examples(labels: Indices, counts: Indices, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    held = np.zeros(len(labels), bool)
    for one in np.flatnonzero(counts > 1):
        count = min(int(counts[one]) - 1, max(1, round(share * int(counts[one]))))
        held[rng.permutation(np.flatnonzero(labels == one))[:count]] = True
    return held


def _hold_groups(labels: Indices, groups: Indices, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Whole groups, one after the other, while the classes of the held part come nearer to their share."""
    table = np.zeros((int(groups.max()) + 1, int(labels.max()) + 1))
    np.add.at(table, (groups, labels), 1)
    total = table.sum(axis=0)
    present = total > 0
    left, held, taken = list(rng.permutation(len(table))), np.zeros_like(total), np.zeros(len(table), bool)
    while left:
        able = [group for group in left if (total - held - table[group])[present].min() > 0]
        if not able:
            break
        costs = [((held + table[group] - share * total) ** 2).sum() for group in able]
        if held.any() and min(costs) >= ((held - share * total) ** 2).sum():
            break
        best = able[int(np.argmin(costs))]
        left.remove(best)
        held, taken[best] = held + table[best], True
    return taken[groups]
