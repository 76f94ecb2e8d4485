"""What contrastive pre-training reads: pairs of windows of one run or one person, each seen once or twice.

A window is T successive volumes of a run. Its partner is drawn anew for each (seed, epoch, example): an example depends
neither on the batch that it stands in nor on what was read before, so a resumed run reads what an unbroken one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipelines.data.datasets.brain_windows import starts as starts_of
from pipelines.errors import ConfigError, InputError
from pipelines.fmri.augment import augment
from pipelines.fmri.augment_options import AugmentOptions
from pipelines.fmri.models.pretraining import Kind, SameSubject, views_needed
from pipelines.training.batches import epoch_order
from pipelines.training.randomness import derive_seed

__all__ = ["ContrastiveWindows", "Run", "even_batches"]

Within = Literal["run", "subject"]
_CHUNK = 1 << 24  # voxels that are read at once when a run is kept in memory


class Run(Protocol):
    """A run as ``Prepared`` is one: standardised, on the model's grid, read when asked for."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def volumes(self) -> int:
        """Volumes V of the run."""
        ...

    @property
    def grid(self) -> tuple[int, int, int]:
        """Voxels X, Y, Z."""
        ...

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(X, Y, Z) voxels of the brain."""
        ...

    def window(self, start: int, frames: int) -> NDArray[np.float32]:
        """(X, Y, Z, frames) of the volumes from `start` on."""
        ...


@dataclass(frozen=True)
class _Place:
    """A window: number of its run, first volume."""

    run: int
    start: int


def even_batches(order: Tensor, most: int) -> list[list[int]]:
    """Examples in their order as batches of nearly equal sizes, at most `most`, and none of one example.

    Three examples at two a batch are one batch of three: the only case in which `most` is exceeded.

    Example:
        >>> [len(batch) for batch in even_batches(torch.arange(9), 4)], even_batches(torch.arange(3), 2)
        ([3, 3, 3], [[0, 1, 2]])
    """
    batches = max(1, min(-(-len(order) // most), len(order) // 2))
    return [part.tolist() for part in torch.tensor_split(order, batches)]


class ContrastiveWindows(Dataset[dict[str, Tensor]]):
    """Windows with a partner each, both in the views that a kind of pre-training compares.

    A batch is ``views`` (V, N, 1, X, Y, Z, T) float32 with V = 2 (window, other) or 4 (and a second view of each), and
    ``run`` (2, N), ``start`` (2, N), ``subject`` (N,), all int64.

    Args:
        runs: runs on one grid.
        subjects: of each run, whose it is.
        frames: volumes T of a window.
        kind: "instance" asks for two views, "local" and "both" for four.
        augment: what is done to each view; None leaves the windows as they are, and the two views of one window alike.
        zooms: edges of a voxel in mm, for angles.
        gap: fewest volumes between the starts of a window and its partner in one run; by default T: they do not
            overlap, as released. 0 makes a window its own partner at times; with `near` 0 always (two views of one).
        near: most volumes between them in one run; by default any number.
        within: "run": the partner is of the same run, as released; "subject": of any run of the subject.
        stride: volumes between the windows of an epoch, 1 to T; by default T, so that each volume is read once.
        batch_size: examples of a batch, from 2; no batch has one alone, because there is nothing to tell it from.
        same_subject: checked against the subjects: only "negative" works with a single one.
        memory: runs are kept in memory, standardised, up to this many bytes in all; later ones are read each time.

    Attributes:
        notes: what is to be said: windows without a partner, volumes that stand in two windows, runs read again.

    Raises:
        InputError: no runs, runs of different grids, a run shorter than a window or without any partner.
        ConfigError: a setting out of range, fewer than two examples, or one subject where others are needed.

    Complexity: O(V X Y Z T) a window. Memory: `memory` bytes and the batches.

    Source: SwiFT (arXiv 2307.05916) and its released `load_sequence`, which leaves the last two volumes of a run unread
        and fails where a window has no partner.

    Example:
        >>> class Noise:
        ...     name, volumes, grid, mask = "noise", 12, (4, 4, 2), np.ones((4, 4, 2), bool)
        ...     def window(self, start, frames):
        ...         return np.random.default_rng(start).normal(size=(4, 4, 2, frames)).astype(np.float32)
        >>> windows = ContrastiveWindows([Noise(), Noise()], ["a", "b"], 4)
        >>> batch = windows.__getitems__([0, 5])
        >>> len(windows), tuple(batch["views"].shape), batch["subject"].tolist()
        (6, (2, 2, 1, 4, 4, 2, 4), [0, 1])
    """

    def __init__(
        self,
        runs: Sequence[Run],
        subjects: Sequence[str],
        frames: int,
        *,
        kind: Kind = "instance",
        augment: AugmentOptions | None = None,
        zooms: Sequence[float] = (1.0, 1.0, 1.0),
        gap: int | None = None,
        near: int | None = None,
        within: Within = "run",
        stride: int | None = None,
        batch_size: int = 8,
        same_subject: SameSubject = "negative",
        memory: int = 1 << 28,
    ) -> None:
        self.runs, self.frames, self.views = list(runs), frames, views_needed(kind)
        self.gap, self.near, self.within = frames if gap is None else gap, near, within
        self.batch_size, self._options, self._zooms = batch_size, augment, zooms
        if augment is not None:
            augment.validate()
        self._check(subjects, stride, same_subject)
        names = sorted(set(subjects))
        self.subjects = [names.index(one) for one in subjects]
        self.notes: tuple[str, ...] = ()
        self._places = self._listed(frames if stride is None else stride)
        self._kept, self._fill = self._read_runs(memory), [_background(run) for run in self.runs]
        self._place = (0, 0)

    def __len__(self) -> int:
        return len(self._places)

    def plan(self, seed: int, epoch: int) -> list[list[int]]:
        """The batches of an epoch; validation (epoch 0) is mixed too, so that not only neighbours are compared."""
        return even_batches(epoch_order(len(self), seed, epoch), self.batch_size)

    def set_epoch(self, seed: int, epoch: int) -> None:
        """Partners and views are drawn for (seed, epoch, example); validation is epoch 0."""
        self._place = (seed, epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        numbers = [range(len(self))[index] for index in indices]
        seeds = [derive_seed(*self._place, number) for number in numbers]
        firsts = [self._places[number] for number in numbers]
        pairs = [firsts, [self._partner(one, seed) for one, seed in zip(firsts, seeds, strict=True)]]
        windows = [torch.stack([self._window(one) for one in side]).unsqueeze(1) for side in pairs]
        return {
            "views": torch.stack([self._view(windows[v % 2], pairs[v % 2], seeds, v) for v in range(self.views)]),
            "run": torch.tensor([[one.run for one in side] for side in pairs]),
            "start": torch.tensor([[one.start for one in side] for side in pairs]),
            "subject": torch.tensor([self.subjects[one.run] for one in firsts]),
        }

    def _view(self, windows: Tensor, places: Sequence[_Place], seeds: Sequence[int], view: int) -> Tensor:
        if self._options is None:
            return windows
        fill = [self._fill[one.run] for one in places]
        own = [derive_seed(seed, view) for seed in seeds]
        return augment(windows, self._options, own, fill=fill, zooms=self._zooms)

    def _window(self, place: _Place) -> Tensor:
        kept = self._kept[place.run]
        if kept is None:
            values = self.runs[place.run].window(place.start, self.frames)
        else:
            values = np.moveaxis(kept[place.start : place.start + self.frames], 0, -1)
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    def _partner(self, place: _Place, seed: int) -> _Place:
        """One of the windows that belong to a window, all equally likely."""
        ranges = self._partners(place)
        number = int(np.random.default_rng(seed).integers(sum(high - low for _, low, high in ranges)))
        for run, low, high in ranges:
            if number < high - low:
                return _Place(run, low + number)
            number -= high - low
        raise IndexError(number)

    def _partners(self, place: _Place) -> list[tuple[int, int, int]]:
        """Runs, and from which to before which volume a partner may start there."""
        end = self.runs[place.run].volumes - self.frames + 1
        near = end if self.near is None else self.near
        before = (max(0, place.start - near), place.start - self.gap + 1)
        after = (place.start + self.gap, min(end, place.start + near + 1))
        own = [(before[0], after[1])] if self.gap == 0 else [before, after]
        found = [(place.run, low, high) for low, high in own]
        if self.within == "subject":
            whose = self.subjects[place.run]
            others = [other for other, one in enumerate(self.subjects) if one == whose and other != place.run]
            found += [(other, 0, self.runs[other].volumes - self.frames + 1) for other in others]
        return [one for one in found if one[1] < one[2]]

    def _listed(self, stride: int) -> list[_Place]:
        """Every window of an epoch that has a partner; the others are counted."""
        found: list[_Place] = []
        alone = twice = 0
        for number, run in enumerate(self.runs):
            if run.volumes < self.frames:
                raise InputError(
                    "the run is shorter than a window",
                    where=run.name,
                    found=f"{run.volumes} volumes",
                    expected=f"at least {self.frames}",
                    cure="smaller --window.frames",
                )
            starts = starts_of(run.volumes, self.frames, stride)
            fitting = [one for one in (_Place(number, start) for start in starts) if self._partners(one)]
            if not fitting:
                raise InputError(
                    "no window of the run has a partner",
                    where=run.name,
                    found=f"{run.volumes} volumes",
                    expected=f"at least {self.frames + self.gap} (window and gap)",
                    cure="smaller --window.frames, or a smaller --pretrain.gap",
                )
            alone += len(starts) - len(fitting)
            twice += len(starts) * self.frames - run.volumes if stride == self.frames else 0
            found += fitting
        if len(found) < 2:
            cure = "more runs, fewer frames a window, or a smaller stride"
            raise ConfigError("nothing to tell windows from", where="runs", found="1 window", expected="2", cure=cure)
        self._say(alone, "windows have no partner far enough away and are not learned from")
        self._say(twice, "volumes stand in two windows, so that the last volumes of their runs are read too")
        return found

    def _read_runs(self, memory: int) -> list[NDArray[np.float32] | None]:
        """(V, X, Y, Z) of each run that fits into what is left of `memory`."""
        kept: list[NDArray[np.float32] | None] = []
        left, again = memory, 0
        for run in self.runs:
            voxels = int(np.prod(run.grid))
            if 4 * voxels * run.volumes > left:
                kept.append(None)
                again += 1
                continue
            left -= 4 * voxels * run.volumes
            whole = np.empty((run.volumes, *run.grid), np.float32)
            step = max(1, _CHUNK // voxels)
            for start in range(0, run.volumes, step):
                count = min(step, run.volumes - start)
                whole[start : start + count] = np.moveaxis(run.window(start, count), -1, 0)
            kept.append(whole)
        self._say(again, f"runs are read again for every window: more than {memory / 1e6:.0f} MB in all")
        return kept

    def _say(self, count: int, text: str) -> None:
        if count:
            self.notes = (*self.notes, f"{count} {text}")

    def _check(self, subjects: Sequence[str], stride: int | None, same_subject: SameSubject) -> None:
        for name, value, least in (
            ("window.frames", self.frames, 1),
            ("pretrain.gap", self.gap, 0),
            ("pretrain.near", self.near, self.gap),
            ("window.stride", stride, 1),
            ("pretrain.batch_size", self.batch_size, 2),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError("out of range", where=name, found=value, expected=f"a whole number from {least}")
        if self.within not in ("run", "subject"):
            raise ConfigError("no such choice", where="within", found=self.within, expected="run or subject")
        if not self.runs or len(subjects) != len(self.runs):
            raise InputError("one subject a run", where="subjects", found=f"{len(subjects)} of {len(self.runs)} runs")
        if same_subject != "negative" and len(set(subjects)) < 2:
            cure = "same_subject='negative', or runs of other people too"
            raise ConfigError("all runs are of one person: nothing to tell windows from", where="subjects", cure=cure)
        grids: dict[tuple[int, int, int], str] = {}
        for run in self.runs:
            grids.setdefault((run.grid[0], run.grid[1], run.grid[2]), run.name)
        if len(grids) > 1:
            found = ", ".join(f"{grid} ({name})" for grid, name in grids.items())
            raise InputError("runs of different grids", where="runs", found=found, cure="give the size of the grid")


def _background(run: Run) -> float:
    """What voxels outside the brain hold; without any, the least value of the first volume."""
    volume = run.window(0, 1)[..., 0]
    outside = volume[~np.asarray(run.mask, bool)]
    return float(outside[0] if outside.size else volume.min())
