"""Contrastive pre-training of scans: the losses by loops and beside the released ones, and what is paired."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.data.datasets.brain_prepare import prepare
from pipelines.data.datasets.brain_types import Recording
from pipelines.errors import ConfigError, InputError
from pipelines.fmri.augment_options import AugmentOptions
from pipelines.fmri.models.pretraining import contrastive_loss, nt_xent, overlapping, pretraining_loss, views_needed
from pipelines.fmri.models.swift import ContrastiveHead, Swift, SwiftConfig, SwiftNet
from pipelines.fmri.pretraining_data import ContrastiveWindows, even_batches
from pipelines.training.batches import BatchLoader
from pipelines.training.loop import train
from pipelines.training.options import TrainOptions

GOLDEN = pathlib.Path(__file__).parents[1] / "papers" / "golden" / "swift_losses.npz"


def vectors(count: int, width: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two sides in float64."""
    draws = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, count, width, generator=draws, dtype=torch.float64)
    return first, second


def by_loop(
    first: Tensor, second: Tensor, temperature: float, left_out: set[tuple[int, int]], friends: set[tuple[int, int]]
) -> list[float]:
    """The equation, vector by vector, with plain numbers."""
    rows = [*first.tolist(), *second.tolist()]
    pairs = len(first)

    def cosine(one: list[float], two: list[float]) -> float:
        dot = sum(a * b for a, b in zip(one, two, strict=True))
        return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in two))

    found = []
    for i in range(2 * pairs):
        own = (i + pairs) % (2 * pairs)
        all_others = [a for a in range(2 * pairs) if a != i and (a == own or (i, a) not in left_out)]
        total = sum(math.exp(cosine(rows[i], rows[a]) / temperature) for a in all_others)
        partners = {own} | {a for a in all_others if (i, a) in friends}
        each = [-math.log(math.exp(cosine(rows[i], rows[p]) / temperature) / total) for p in partners]
        found.append(sum(each) / len(each))
    return found


def same_people(subject: list[int]) -> set[tuple[int, int]]:
    """Pairs of vectors of one person."""
    people = subject * 2
    return {(i, j) for i in range(len(people)) for j in range(len(people)) if i != j and people[i] == people[j]}


@pytest.mark.parametrize("temperature", [0.1, 0.7])
@pytest.mark.parametrize("choice", ["negative", "ignore", "positive"])
def test_the_loss_is_the_equation(choice: Any, temperature: float) -> None:
    first, second = vectors(6)
    subject = [0, 1, 0, 2, 1, 0]
    same = same_people(subject)
    left_out, friends = (same if choice == "ignore" else set()), (same if choice == "positive" else set())
    found = nt_xent(first, second, subject=torch.tensor(subject), temperature=temperature, same_subject=choice)
    expected = by_loop(first, second, temperature, left_out, friends)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_ignored_pairs_are_left_out_but_never_the_partner() -> None:
    first, second = vectors(4)
    run, start = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1]]), torch.tensor([[3, 4, 20, 4], [5, 6, 22, 5]])
    near = overlapping(run, start, 3)
    flat = list(zip(run.reshape(-1).tolist(), start.reshape(-1).tolist(), strict=True))
    expected = {(i, j) for i, a in enumerate(flat) for j, b in enumerate(flat) if a[0] == b[0] and abs(a[1] - b[1]) < 3}
    assert {(i, j) for i, j in near.nonzero().tolist()} == expected
    assert (0, 4) in expected, "a partner is among those that are near"
    found = nt_xent(first, second, ignored=near)
    torch.testing.assert_close(found, torch.tensor(by_loop(first, second, 0.1, expected, set()), dtype=torch.float64))


def test_different_people_make_no_difference_between_the_choices() -> None:
    first, second = vectors(5)
    subject = torch.arange(5)
    plain = nt_xent(first, second)
    for choice in ("negative", "ignore", "positive"):
        assert torch.equal(plain, nt_xent(first, second, subject=subject, same_subject=choice))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_released_losses_and_their_gradients(temperature: float) -> None:
    if not GOLDEN.is_file():
        pytest.skip("the values of the released losses are not there")
    golden = np.load(GOLDEN)
    names = ("global_1", "global_2", "window_1", "window_2", "other_1", "other_2")
    given = {name: torch.from_numpy(golden[name]).double().requires_grad_() for name in names}
    total, count = contrastive_loss("instance", (given["global_1"], given["global_2"]), temperature=temperature)
    instance = total / count
    four = [given[name] for name in ("window_1", "other_1", "window_2", "other_2")]
    total, count = contrastive_loss("local", four, temperature=temperature)
    local = total / count * len(four[0])  # the released code adds up over the batch
    instance_value, local_value = instance.item(), local.item()
    assert instance_value == pytest.approx(float(golden[f"instance_{temperature}"]), abs=2e-6)
    assert local_value == pytest.approx(float(golden[f"local_{temperature}"]), abs=1e-5)
    assert instance_value + local_value == pytest.approx(float(golden[f"both_{temperature}"]), abs=1e-5)
    if temperature == 0.1:
        (instance + local).backward()
        for name, value in given.items():
            assert value.grad is not None
            torch.testing.assert_close(
                value.grad.float(), torch.from_numpy(golden[f"grad.{name}"]), rtol=1e-4, atol=1e-5
            )


def test_both_is_the_sum_and_the_weight_is_the_released_one() -> None:
    first, second = vectors(5)
    again, other = vectors(5, seed=1)
    views = (first, second, again, other)
    instance, local, both = (_mean(*contrastive_loss(kind, views)) for kind in ("instance", "local", "both"))
    assert both == pytest.approx(instance + local, rel=1e-12)
    assert _mean(*contrastive_loss("both", views, local_weight=5.0)) == pytest.approx(instance + 5 * local, rel=1e-12)
    each = [by_loop(torch.stack((first[i], second[i])), torch.stack((again[i], other[i])), 0.1, set(), set())
            for i in range(5)]  # fmt: skip
    assert local == pytest.approx(float(np.mean(each)), rel=1e-12)


def _mean(total: Tensor, count: Tensor) -> float:
    return float(total / count)


def test_an_example_alone_counts_for_nothing() -> None:
    first, second = vectors(1)
    first.requires_grad_()
    total, count = contrastive_loss("instance", (first, second))
    total.backward()
    assert (total.item(), count.item()) == (0.0, 0.0)
    assert first.grad is not None
    assert not first.grad.any()
    subject = torch.zeros(3, dtype=torch.int64)
    _, count = contrastive_loss("instance", vectors(3), subject, same_subject="ignore")
    assert float(count) == 0.0, "everybody is the same person"


def test_gradients_are_the_derivatives() -> None:
    first, second = vectors(3)
    subject = torch.tensor([0, 1, 0])
    for choice in ("negative", "ignore", "positive"):
        assert torch.autograd.gradcheck(
            functools.partial(nt_xent, subject=subject, same_subject=choice, temperature=0.5),
            (first.requires_grad_(), second.requires_grad_()),
        )


def test_half_precision_is_compared_in_float32_and_zeros_are_no_trouble() -> None:
    first, second = (side.to(torch.bfloat16) for side in vectors(4))
    found = nt_xent(first, second)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, nt_xent(first.float(), second.float()))
    assert torch.isfinite(nt_xent(torch.zeros(2, 3), torch.zeros(2, 3))).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"second": torch.ones(3, 5)}, "vectors do not fit"),
        ({"temperature": 0.0}, "no temperature"),
        ({"same_subject": "friend"}, "no such choice"),
        ({"same_subject": "ignore"}, "subjects of the pairs are not known"),
        ({"subject": torch.zeros(3)}, "one subject a pair"),
        ({"ignored": torch.zeros(4, 4, dtype=torch.bool)}, "one flag a pair"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"first": torch.ones(4, 5), "second": torch.ones(4, 5)} | change
    with pytest.raises(ConfigError, match=words):
        nt_xent(**given)


def test_kinds_and_views_are_checked() -> None:
    assert [views_needed(kind) for kind in ("instance", "local", "both")] == [2, 4, 4]
    with pytest.raises(ConfigError, match="no kind"):
        views_needed("global")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="too few views"):
        contrastive_loss("local", vectors(3))


class Scan:
    """A run whose voxels say where they are: run * 1000 + volume in the brain, -1 outside."""

    def __init__(self, number: int, volumes: int, grid: tuple[int, int, int] = (4, 3, 2)) -> None:
        self.name, self.number, self.volumes, self.grid = f"run {number}", number, volumes, grid
        self.mask = np.ones(grid, bool)
        self.mask[0] = False
        self.reads = 0

    def window(self, start: int, frames: int) -> NDArray[np.float32]:
        """As ``Prepared.window``."""
        assert start >= 0
        assert start + frames <= self.volumes
        self.reads += 1
        values = np.full((*self.grid, frames), -1.0, np.float32)
        values[1:] = self.number * 1000 + np.arange(start, start + frames)
        return values


def scans(*volumes: int) -> list[Scan]:
    """Runs of so many volumes."""
    return [Scan(number, count) for number, count in enumerate(volumes)]


def starts_of(windows: ContrastiveWindows, epochs: int = 30) -> Iterator[tuple[int, int, int, int]]:
    """Run and start of each window and of its partner, over some epochs."""
    for epoch in range(1, epochs + 1):
        windows.set_epoch(7, epoch)
        batch = windows.__getitems__(range(len(windows)))
        yield from zip(*batch["run"].tolist(), *batch["start"].tolist(), strict=True)


def test_windows_hold_the_volumes_that_they_say_and_do_not_overlap() -> None:
    windows = ContrastiveWindows(scans(20, 13), ["a", "b"], 4)
    assert any(note.startswith("3 volumes stand in two windows") for note in windows.notes)
    batch = windows[8]
    run, start = batch["run"][:, 0].tolist(), batch["start"][:, 0].tolist()
    assert run == [1, 1]
    assert batch["subject"].tolist() == [1]
    for side in range(2):
        brain = batch["views"][side, 0, 0, 1:]
        assert torch.equal(brain, (1000 + start[side] + torch.arange(4.0)).expand(3, 3, 2, 4))
    seen = list(starts_of(windows, 100))
    assert all(one == two and abs(start - other) >= 4 for one, two, start, other in seen)
    assert {other for one, _, start, other in seen if one == 0 and start == 8} == {*range(5), *range(12, 17)}


def test_partners_between_gap_and_near() -> None:
    single = ContrastiveWindows(scans(30), ["a"], 1, gap=2, near=4)
    assert {other - start for _, _, start, other in starts_of(single)} == {-4, -3, -2, 2, 3, 4}
    itself = ContrastiveWindows(scans(30), ["a"], 1, gap=0, near=0)
    assert {other - start for _, _, start, other in starts_of(itself, 2)} == {0}
    around = ContrastiveWindows(scans(30), ["a"], 1, gap=0, near=1)
    assert {other - start for _, _, start, other in starts_of(around)} == {-1, 0, 1}


def test_partners_of_other_runs_of_the_same_person_only() -> None:
    windows = ContrastiveWindows(scans(8, 4, 8), ["a", "a", "b"], 4, within="subject")
    found = {(one, two) for one, two, _, _ in starts_of(windows)}
    assert found == {(0, 0), (0, 1), (1, 0), (2, 2)}


def test_partners_are_equally_likely() -> None:
    windows = ContrastiveWindows(scans(12), ["a"], 1, gap=3)
    counts = np.bincount([other for _, _, start, other in starts_of(windows, 1000) if start == 5], minlength=12)
    allowed = [0, 1, 2, 8, 9, 10, 11]
    assert counts.sum() == counts[allowed].sum() == 1000
    assert counts[allowed].min() > 1000 / 7 * 0.7


def test_an_example_depends_on_seed_epoch_and_number_alone() -> None:
    def make(memory: int) -> ContrastiveWindows:
        return ContrastiveWindows(scans(20, 16), ["a", "b"], 4, kind="both", augment=AugmentOptions(), memory=memory)

    one, two = make(1 << 20), make(0)
    assert any("read again" in note for note in two.notes)
    one.set_epoch(3, 2)
    two.set_epoch(3, 1)
    two.__getitems__([5, 1])
    two.set_epoch(3, 2)
    whole, part = one.__getitems__([0, 4, 6]), two.__getitems__([6])
    assert torch.equal(whole["views"][:, 2:], part["views"])
    assert torch.equal(whole["start"][:, 2:], part["start"])
    one.set_epoch(3, 3)
    assert not torch.equal(one.__getitems__([6])["views"], part["views"])
    first = whole["views"]
    assert not torch.equal(first[0], first[2]), "two views of one window differ"
    background = (first == -1).flatten(0, 2).all(-1)
    assert background.any()


def test_holes_take_the_background_of_their_own_run() -> None:
    """Also where the first voxel is brain, and where the partner is of a run with another background."""
    one, two = scans(8, 8)
    for run, level in ((one, -1.0), (two, -5.0)):
        run.mask = np.ones(run.grid, bool)
        run.mask[-1] = False
        values = np.ones((*run.grid, 8), np.float32)
        values[-1] = level
        run.window = lambda start, frames, values=values: values[..., start : start + frames]  # type: ignore[method-assign]
    holes = AugmentOptions(rotate=0.0, scale=0.0, noise=0.0, smooth=0.0, drop=1.0)
    windows = ContrastiveWindows([one, two], ["a", "a"], 4, within="subject", augment=holes)
    batch = windows.__getitems__(range(4))
    levels = torch.tensor([-1.0, -5.0])[batch["run"]]
    assert {(-1.0, -5.0), (-5.0, -1.0)} & set(zip(*levels.tolist(), strict=True))
    assert torch.equal(batch["views"], levels.view(2, 4, 1, 1, 1, 1, 1).expand_as(batch["views"]))


def test_runs_are_read_once_where_they_fit() -> None:
    some = scans(20, 16)
    windows = ContrastiveWindows(some, ["a", "b"], 4)
    before = [one.reads for one in some]
    windows.__getitems__([0, 1, 2, 3])
    assert [one.reads for one in some] == before
    again = scans(20, 16)
    windows = ContrastiveWindows(again, ["a", "b"], 4, memory=4 * 24 * 20)
    before = [one.reads for one in again]
    windows.__getitems__(range(len(windows)))
    assert [one.reads - b for one, b in zip(again, before, strict=True)] == [0, 8]


def test_every_example_stands_in_one_batch_and_none_is_alone() -> None:
    for count in range(2, 40):
        for most in range(2, 9):
            batches = even_batches(torch.randperm(count), most)
            assert sorted(index for batch in batches for index in batch) == list(range(count))
            assert 2 <= min(map(len, batches)) <= max(map(len, batches)) <= max(most, 3)
    windows = ContrastiveWindows(scans(20, 16), ["a", "b"], 4, batch_size=4)
    assert windows.plan(0, 1) == windows.plan(0, 1) != windows.plan(0, 2)


@pytest.mark.parametrize(
    ("volumes", "options", "kind", "words"),
    [
        ((20, 3), {}, InputError, "run 1: the run is shorter than a window. Found: 3 volumes. Expected: at least 4"),
        ((20, 7), {}, InputError, "run 1: no window of the run has a partner"),
        ((20,), {"gap": 5, "near": 4}, ConfigError, "near"),
        ((20,), {"batch_size": 1}, ConfigError, "batch_size"),
        ((20,), {"within": "site"}, ConfigError, "within"),
        ((20, 20), {"same_subject": "ignore"}, ConfigError, "all runs are of one person"),
        ((4,), {"gap": 0}, ConfigError, "nothing to tell windows from"),
        ((), {}, InputError, "one subject a run"),
    ],
)
def test_studies_that_cannot_be_paired(volumes: Any, options: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ContrastiveWindows(scans(*volumes), ["a"] * len(volumes), 4, **options)


def test_runs_of_different_grids_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"\(4, 3, 2\) \(run 0\), \(5, 3, 2\) \(run 1\)"):
        ContrastiveWindows([Scan(0, 20), Scan(1, 20, (5, 3, 2))], ["a", "b"], 4)


def test_windows_without_a_partner_are_counted() -> None:
    windows = ContrastiveWindows(scans(8), ["a"], 4, stride=1)
    assert len(windows) == 2
    assert "3 windows have no partner far enough away and are not learned from" in windows.notes


class Rhythm:
    """People whose voxels share a pattern of their own, under noise that differs from volume to volume."""

    volumes, grid, mask = 24, (6, 5, 1), np.ones((6, 5, 1), bool)

    def __init__(self, number: int) -> None:
        self.name = f"person {number}"
        draws = np.random.default_rng(number)
        pattern, noise = draws.normal(size=(6, 5, 1, 1)), draws.normal(size=(6, 5, 1, 24))
        self._values = (pattern + 2.0 * noise).astype(np.float32)

    def window(self, start: int, frames: int) -> NDArray[np.float32]:
        """As ``Prepared.window``."""
        return self._values[..., start : start + frames]


def test_training_learns_and_goes_on_to_the_same_weights(tmp_path: pathlib.Path) -> None:
    class Stopped(Exception):
        """The power fails."""

    def run(name: str, stop: int = 0, *, resume: bool = False) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(30 * 3, 16, bias=False), nn.BatchNorm1d(16))
        people = [Rhythm(number) for number in range(6)]
        options = AugmentOptions(rotate=0.0, scale=0.0)
        windows = ContrastiveWindows(people, [one.name for one in people], 3, augment=options, kind="both")
        settings = TrainOptions(epochs=4, learning_rate=1e-2, schedule="constant", checkpoint_steps=4)
        inner, steps = pretraining_loss("both", same_subject="ignore"), 0

        def loss(module: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            nonlocal steps
            steps += 1
            if steps == stop:
                raise Stopped
            return inner(module, batch)

        result = train(model, loss, windows, None, settings, folder=tmp_path / name, seed=0, resume=resume)
        return model.state_dict(), result.history

    whole, history = run("whole")
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    with pytest.raises(Stopped):
        run("parts", stop=12)
    parts, _ = run("parts", resume=True)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_prepared_runs_and_the_model_itself() -> None:
    """The parts as they are used: a prepared run, both kinds of view, a gradient for every part of encoder and head."""
    draws = np.random.default_rng(0)
    values = np.zeros((8, 6, 1, 21), np.float32)
    values[1:7, 1:5] = 100 + draws.normal(size=(6, 4, 1, 21))
    runs = [prepare(Recording(name, values + number, name, tr=2.0)) for number, name in enumerate("ab")]
    windows = ContrastiveWindows(runs, ["a", "b"], 4, kind="both", augment=AugmentOptions(drop=0.1), batch_size=4)
    batch = windows.__getitems__(windows.plan(0, 1)[0])
    background = torch.from_numpy(runs[0].window(0, 1)[0, 0, 0])
    assert bool((batch["views"][:, :, 0, 0, 0] == background).any())
    config = SwiftConfig(image=(8, 6, 1), frames=4, dim=12, depths=(1, 1), heads=(1, 2), patch=(2, 2, 1, 1))
    torch.manual_seed(0)
    net = SwiftNet(Swift(config), ContrastiveHead(config.features, 16))
    total, count = pretraining_loss("both")(net, batch)
    (total / count).backward()
    learned = [name for name, one in net.named_parameters() if one.grad is not None and bool(one.grad.any())]
    assert int(count) == batch["views"].shape[1]
    assert {"output_head.fc1.weight", "model.patch_embed.fc.weight"} <= set(learned)


def test_a_worker_reads_what_the_main_process_reads() -> None:
    windows = ContrastiveWindows([Rhythm(1), Rhythm(2)], ["a", "b"], 3, augment=AugmentOptions(), batch_size=6)
    plain = BatchLoader(windows, batch_size=8, seed=4, shuffle=True)
    forked = BatchLoader(windows, batch_size=8, seed=4, shuffle=True, workers=1)
    try:
        for epoch, start in ((1, 0), (2, 1)):
            for one, two in zip(plain.epoch(epoch, start), forked.epoch(epoch, start), strict=True):
                assert torch.equal(one.data["views"], two.data["views"])
    finally:
        forked.close()
