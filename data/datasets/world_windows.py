"""Windows of episodes: context frames, and the frames after them that are to be predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_walk import shown
from pipelines.data.datasets.world_splits import (
    Split,
    copied_frames,
    cut_episode,
    group_of,
    is_still,
    split_episodes,
    split_time,
)
from pipelines.data.datasets.world_types import Episode, Frames
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_views import CutFrames

__all__ = [
    "Split",
    "Window",
    "WindowBatch",
    "Windows",
    "copied_frames",
    "cut_episode",
    "group_of",
    "is_still",
    "overlap",
    "split_episodes",
    "split_time",
    "windows",
]


@dataclass(frozen=True, eq=False)
class Window:
    """`context` frames that are seen and the `horizon` frames after them, from frame `start` of an episode on.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> episode = Episode("e", ArrayFrames(np.zeros((9, 4, 4, 1), np.uint8)), 10.0, actions=np.zeros((8, 2), "f4"))
        >>> window = Window(episode, start=2, context=2, horizon=3)
        >>> window.frames().shape, window.actions().shape, window.stop
        ((5, 4, 4, 1), (4, 2), 7)
    """

    episode: Episode
    start: int
    context: int
    horizon: int

    @property
    def stop(self) -> int:
        """The first frame after the window."""
        return self.start + self.context + self.horizon

    def frames(self) -> NDArray[np.uint8]:
        """(context + horizon, H, W, C) uint8; O(values)."""
        return self.episode.frames.read(self.start, self.stop)

    def actions(self) -> NDArray[np.float32] | None:
        """(context + horizon - 1, A): the action of every frame but the last; None without actions."""
        held = self.episode.actions
        return None if held is None else held[self.start : self.stop - 1]

    def states(self) -> NDArray[np.float32] | None:
        """(context + horizon, S); None without states."""
        held = self.episode.states
        return None if held is None else held[self.start : self.stop]

    def rewards(self) -> NDArray[np.float32] | None:
        """(context + horizon - 1,); None without rewards."""
        held = self.episode.rewards
        return None if held is None else held[self.start : self.stop - 1]


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """Some windows as arrays.

    Args:
        frames: (B, context + horizon, H, W, C) uint8.
        context: how many of the frames are seen.
        actions: (B, context + horizon - 1, A) float32, where every episode has actions; else None.
        states: (B, context + horizon, S) float32, or None.
        rewards: (B, context + horizon - 1) float32, or None.
        rows: (B,) numbers of the windows.
    """

    frames: NDArray[np.uint8]
    context: int
    actions: NDArray[np.float32] | None
    states: NDArray[np.float32] | None
    rewards: NDArray[np.float32] | None
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        """B."""
        return len(self.frames)

    @property
    def seen(self) -> NDArray[np.uint8]:
        """The frames that are seen, (B, context, H, W, C)."""
        return self.frames[:, : self.context]

    @property
    def future(self) -> NDArray[np.uint8]:
        """The frames to be predicted, (B, horizon, H, W, C)."""
        return self.frames[:, self.context :]


class Windows(Sequence[Window]):
    """All windows of some episodes, episodes in their order and the windows of each in theirs; nothing is copied.

    Args:
        episodes: of any lengths; those shorter than a window have none, which `notes` count.
        context: frames that are seen, 1 or more.
        horizon: frames to be predicted, 1 or more.
        stride: from the start of one window to that of the next.

    Attributes:
        places: (windows, 2) number of the episode and first frame of each window.
        notes: windows, episodes that are too short, and frames that no window reaches.

    Raises:
        InputError: a horizon, context or stride below 1; no episode as long as a window.

    Complexity: O(windows) time and memory, no frame is read.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> long, short = (Episode(f"e{t}", ArrayFrames(np.zeros((t, 4, 4, 1), np.uint8)), None) for t in (9, 3))
        >>> held = Windows([long, short], context=2, horizon=3, stride=2)
        >>> len(held), held[1].start, held.take([0, 2]).frames.shape
        (3, 2, (2, 5, 4, 4, 1))
        >>> held.notes
        ('3 windows of 2 + 3 frames, stride 2, of 1 episode', '1 episode shorter than 5 frames has no window (e3)')
    """

    def __init__(self, episodes: Sequence[Episode], context: int, horizon: int, stride: int = 1) -> None:
        """Count the windows; see the class."""
        for name, given in (("context", context), ("horizon", horizon), ("stride", stride)):
            if given < 1:
                raise InputError(f"no such {name}", where=name, found=given, expected="1 or more")
        self.episodes, self.context, self.horizon, self.stride = tuple(episodes), context, horizon, stride
        length = context + horizon
        starts = [np.arange(0, len(episode) - length + 1, stride) for episode in self.episodes]
        owner = np.repeat(np.arange(len(starts)), [len(own) for own in starts])
        joined = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        self.places: NDArray[np.int64] = np.stack([owner, joined], axis=1).astype(np.int64)
        if not len(self.places):
            longest = max((len(episode) for episode in self.episodes), default=0)
            raise InputError(
                "no episode is as long as a window",
                where="windows",
                found=f"{len(self.episodes)} episodes, the longest of {longest} frames",
                expected=f"{length} frames or more (context {context} + horizon {horizon})",
                cure="a shorter horizon or context, or longer episodes",
            )
        self.notes = self._said(starts, length)

    def _said(self, starts: Sequence[NDArray[np.int64]], length: int) -> tuple[str, ...]:
        short = [episode.name for episode, own in zip(self.episodes, starts, strict=True) if not len(own)]
        used = len(self.episodes) - len(short)
        what = f"{len(self):,} {_many('window', len(self))} of {self.context} + {self.horizon} frames"
        notes = [f"{what}, stride {self.stride}, of {used:,} {_many('episode', used)}"]
        if short:
            verb = "has" if len(short) == 1 else "have"
            whose = f"{len(short):,} {_many('episode', len(short))} shorter than {length} frames {verb} no window"
            notes.append(f"{whose} ({shown(short)})")
        pairs = zip(self.episodes, starts, strict=True)
        rest = sum(len(one) - int(own[-1]) - length for one, own in pairs if len(own))
        gaps = sum((len(own) - 1) * max(0, self.stride - length) for own in starts if len(own))
        if rest + gaps:
            notes.append(f"{rest + gaps:,} {_many('frame', rest + gaps)} in no window, because of the stride")
        return tuple(notes)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.places)

    @overload
    def __getitem__(self, row: int) -> Window: ...
    @overload
    def __getitem__(self, row: slice) -> list[Window]: ...
    def __getitem__(self, row: int | slice) -> Window | list[Window]:
        """One window, or some."""
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        episode, start = self.places[row].tolist()
        return Window(self.episodes[episode], start, self.context, self.horizon)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> WindowBatch:
        """Some windows as arrays, in the order asked for.

        Raises:
            InputError: frames of different sizes.

        Complexity: O(values of these windows).
        """
        taken = np.asarray(rows, np.int64)
        chosen = [self[int(row)] for row in taken]
        shapes = {window.episode.shape[1:] for window in chosen}
        if len(shapes) != 1:
            found = ", ".join(str(shape) for shape in sorted(shapes)) or "no window"
            cure = "read them at one size and colour (size, colour)"
            raise InputError("frames of one size are needed", where="windows", found=found, cure=cure)
        return WindowBatch(
            np.stack([window.frames() for window in chosen]),
            self.context,
            _stacked([window.actions() for window in chosen]),
            _stacked([window.states() for window in chosen]),
            _stacked([window.rewards() for window in chosen]),
            taken,
        )

    def batches(self, size: int, order: Sequence[int] | NDArray[np.int64] | None = None) -> Iterator[WindowBatch]:
        """The windows in batches of `size`, the last one smaller; in their order, or in that of `order`.

        Example:
            >>> from pipelines.data.datasets.world_types import ArrayFrames
            >>> held = Windows([Episode("e", ArrayFrames(np.zeros((9, 4, 4, 1), np.uint8)), None)], 2, 3)
            >>> [len(batch) for batch in held.batches(2)]
            [2, 2, 1]
        """
        if size < 1:
            raise InputError("no such size of batches", where="size", found=size, expected="1 or more")
        rows = np.arange(len(self)) if order is None else np.asarray(order)
        for first in range(0, len(rows), size):
            yield self.take(rows[first : first + size])


def windows(episodes: Sequence[Episode], context: int, horizon: int, stride: int = 1) -> Windows:
    """All windows of some episodes; see :class:`Windows`.

    Raises:
        InputError: a horizon, context or stride below 1; no episode as long as a window.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> [one.start for one in windows([Episode("e", ArrayFrames(np.zeros((6, 4, 4, 1), np.uint8)), None)], 1, 3)]
        [0, 1, 2]
    """
    return Windows(episodes, context, horizon, stride)


def _stacked(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """The parts as one array where every window has them in one width."""
    held = [part for part in parts if part is not None]
    if len(held) < len(parts) or len({part.shape for part in held}) != 1:
        return None
    return np.stack(held)


def _many(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def overlap(train: Windows, test: Windows) -> int:
    """How many frames, by their place in the source, windows of both parts hold: 0 where nothing leaks.

    Complexity: O(frames of all windows) time, a bit a frame of memory and more.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> episode = Episode("e", ArrayFrames(np.zeros((20, 4, 4, 1), np.uint8)), None)
        >>> early, late = split_time(episode, 0.4)
        >>> test = windows([late], 2, 2)
        >>> overlap(windows([early], 2, 2), test), overlap(windows([episode], 2, 2), test)
        (0, 8)
    """
    first, second = _covered(train), _covered(test)
    return sum(len(first[source] & second[source]) for source in first.keys() & second.keys())


def _covered(held: Windows) -> dict[int, set[int]]:
    """Frames of every source that windows hold; parts of one episode have one source."""
    out: dict[int, set[int]] = {}
    length = held.context + held.horizon
    for number, start in held.places.tolist():
        source, first = _origin(held.episodes[number].frames)
        out.setdefault(id(source), set()).update(range(first + start, first + start + length))
    return out


def _origin(frames: Frames) -> tuple[Frames, int]:
    first = 0
    while isinstance(frames, CutFrames):
        first, frames = first + frames.start, frames.base
    return frames, first
