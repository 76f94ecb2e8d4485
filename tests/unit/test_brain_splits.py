"""Splits of scans: no group is divided, every item is tested once, relatives stay together."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from pipelines.data.datasets.brain_splits import group_of, hold_out, leave_out, read_split, split_notes
from pipelines.data.datasets.brain_types import Recording
from pipelines.data.errors import InputError


def random_groups(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, rng.integers(3, 12))
    names = np.repeat([f"sub-{one}" for one in range(len(sizes))], sizes)
    return rng.permutation(names).tolist()


def test_groups_are_named_by_what_must_stay_together() -> None:
    run = Recording("sub-1_ses-2_task-x_run-3", None, "1", session="2", site="s", family="f")
    ways = ("run", "session", "subject", "family", "site")
    assert [group_of(run, by) for by in ways] == [run.name, "sub-1_ses-2", "family-f", "family-f", "site-s"]
    other = Recording("x", None, "9", family="f")
    assert group_of(other, "subject") == group_of(run, "subject"), "sisters stay together, although two subjects"
    alone = Recording("y", None, "f")
    assert group_of(alone, "subject") == "sub-f", "a subject is not mixed up with a family of the same name"
    assert group_of(alone, "session") == "sub-f"


@pytest.mark.parametrize("by", ["session", "subject", "family", "site", "planet"])
def test_what_is_not_known_cannot_group(by: str) -> None:
    with pytest.raises(InputError, match=r"not known|no such grouping"):
        group_of(Recording("a", None), by)  # type: ignore[arg-type]


def test_each_group_is_left_out_once() -> None:
    for seed in range(20):
        groups = random_groups(seed)
        folds = leave_out(groups)
        order = sorted(set(groups), key=lambda one: int(one[4:]))
        assert [order[fold] for fold in folds] == groups


@pytest.mark.parametrize("count", [2, 3])
def test_folds_divide_no_group_and_are_even(count: int) -> None:
    for seed in range(30):
        groups = random_groups(seed)
        folds = leave_out(groups, count)
        assert set(folds.tolist()) == set(range(count))
        assert all(len({fold for fold, one in zip(folds, groups, strict=True) if one == name}) == 1 for name in groups)
        sizes = np.bincount(folds)
        largest = max(groups.count(name) for name in groups)
        assert sizes.max() - sizes.min() <= largest
        assert (folds == leave_out(groups, count)).all()


def test_held_out_groups_are_whole_near_the_share_and_depend_on_the_seed() -> None:
    different = 0
    for seed in range(30):
        groups = random_groups(seed)
        held = hold_out(groups, 0.3, seed)
        out = {one for one, there in zip(groups, held, strict=True) if there}
        rest = {one for one, there in zip(groups, held, strict=True) if not there}
        assert out
        assert rest
        assert not out & rest
        assert (held == hold_out(groups, 0.3, seed)).all()
        shuffled = np.random.default_rng(seed).permutation(len(groups))
        again = hold_out([groups[place] for place in shuffled], 0.3, seed)
        assert (again == held[shuffled]).all(), "the order of the items does not matter"
        different += (hold_out(groups, 0.3, seed + 1) != held).any()
    assert different > 10
    many = [f"{one}" for one in range(200) for _ in range(3)]
    assert abs(hold_out(many, 0.15, 0).mean() - 0.15) < 0.005
    assert not hold_out(many, 0.0, 0).any()
    assert hold_out(["a", "b", "b", "b"], 0.99, 0).sum() in (1, 3), "at least one group stays"


def test_splits_that_cannot_be_are_refused() -> None:
    for folds in (1, 4, True, 2.0):
        with pytest.raises(InputError, match="no such number of folds"):
            leave_out(["a", "b", "c"], folds)  # type: ignore[arg-type]
    for call in (lambda: leave_out(["a", "a"]), lambda: hold_out(["a", "a"], 0.5, 0), lambda: leave_out([])):
        with pytest.raises(InputError, match="one group cannot be divided"):
            call()
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match="no such share"):
            hold_out(["a", "b"], share, 0)


def test_a_split_is_described() -> None:
    groups = list("aabbbc")
    text = split_notes(groups, hold_out(groups, 0.2, 0), "family")
    assert text.endswith("items held out, 1 of 3 groups (by family); no group is divided")


def test_splits_of_the_released_code_are_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "split_fixed_1.txt"
    path.write_text("train_subjects\n100307\n100408\nval_subjects\nNDAR_INVA1\ntest_subjects\n")
    assert read_split(path) == {"train": ("100307", "100408"), "val": ("NDARINVA1",), "test": ()}
    for text, message in [
        ("100307\n", "'100307' in line 1"),
        ("train_subjects\n1\nval_subjects\n2\n", "not a split. Found: train, val"),
        ("train_subjects\n1\nval_subjects\n1\ntest_subjects\n2\n", "a subject stands twice in the split. Found: 1"),
        ("", "no part"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_split(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="cannot be read"):
        read_split(path)
