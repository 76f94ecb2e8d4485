"""Splits of episodes that share no frame, by time or by whole episodes; and episodes in which nothing moves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipelines.data.datasets.brain_splits import hold_out
from pipelines.data.datasets.brain_walk import shown
from pipelines.data.datasets.world_types import Episode
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_views import CutFrames

__all__ = ["By", "Split", "copied_frames", "cut_episode", "group_of", "is_still", "split_episodes", "split_time"]

By = Literal["auto", "time", "episode"]
_GROUPED = re.compile(r"(?:^|/)(v_[^/]+_g\d+)_c\d+$", re.IGNORECASE)  # UCF-101: clips of a group are one film
_PIECE = 64


@dataclass(frozen=True, eq=False)
class Split:
    """Episodes to learn from, episodes to measure on, and notes that count both.

    Example:
        >>> Split([], [], ("nothing",)).notes
        ('nothing',)
    """

    train: list[Episode]
    test: list[Episode]
    notes: tuple[str, ...]


def cut_episode(episode: Episode, start: int, stop: int) -> Episode:
    """Frames start to stop (excluded) of an episode, with the stop - start - 1 actions and rewards between them.

    Raises:
        InputError: frames outside the episode.

    Complexity: O(1), nothing is copied.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> episode = Episode("e", ArrayFrames(np.zeros((9, 4, 4, 1), np.uint8)), 10.0, actions=np.zeros((9, 2), "f4"))
        >>> part = cut_episode(episode, 2, 6)
        >>> part.shape, part.actions.shape
        ((4, 4, 4, 1), (3, 2))
    """
    frames = CutFrames.of(episode.frames, start, stop)
    last = max(start, stop - 1)
    return replace(
        episode,
        frames=frames,
        actions=None if episode.actions is None else episode.actions[start:last],
        states=None if episode.states is None else episode.states[start:stop],
        rewards=None if episode.rewards is None else episode.rewards[start:last],
    )


def split_time(episode: Episode, share: float, gap: int = 0) -> tuple[Episode, Episode]:
    """The earlier part of an episode to learn from and its last share to measure on, `gap` frames between them unused.

    Args:
        episode: of T frames.
        share: of the T frames that the later part has, rounded; above 0 and below 1.
        gap: embargo: frames before the border that neither part has; frames nearer in time are more alike.

    Returns:
        Both parts, which share no frame, so that no window crosses the border; their notes count the frames.

    Raises:
        InputError: a share or gap that is none, a part without frames.

    Complexity: O(1), nothing is copied.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> early, late = split_time(Episode("e", ArrayFrames(np.zeros((20, 4, 4, 1), np.uint8)), None), 0.2, gap=3)
        >>> len(early), len(late), early.notes
        (13, 4, ('e: frames 0 to 12 of 20 to learn from, 3 between unused, 16 to 19 to measure on',))
    """
    count = len(episode)
    if not 0 < share < 1:
        raise InputError("no such share", where="share", found=share, expected="above 0 and below 1")
    if gap < 0:
        raise InputError("no such gap", where="gap", found=gap, expected="0 frames or more")
    border = count - round(share * count)
    if border - gap < 1 or border >= count:
        raise InputError(
            "the episode is too short to be divided",
            where=f"episode {episode.name!r}",
            found=f"{count} frames, share {share:g}, gap {gap}",
            expected="at least one frame on each side",
            cure="a longer film, or a smaller gap",
        )
    between = f"{gap} between unused, " if gap else ""
    rest = f"{border} to {count - 1} to measure on"
    note = f"{episode.name}: frames 0 to {border - gap - 1} of {count} to learn from, {between}{rest}"
    parts = cut_episode(episode, 0, border - gap), cut_episode(episode, border, count)
    early, late = (replace(part, notes=(*part.notes, note)) for part in parts)
    return early, late


def split_episodes(episodes: Sequence[Episode], share: float, *, seed: int = 0, by: By = "auto", gap: int = 0) -> Split:
    """Hold out about a share: whole episodes at random, or the end of each.

    Args:
        episodes: in any order, which is kept.
        share: to measure on.
        seed: of the draw of episodes.
        by: `episode` keeps episodes whole, and of UCF-101 groups of clips cut from one film; `time` takes the last
            share of every episode; auto = episode where there are two or more groups, else time.
        gap: embargo of `time`, frames.

    Raises:
        InputError: nothing to divide, a share that is none.

    Complexity: O(episodes log episodes); no frame is read.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> held = [Episode(f"e{n}", ArrayFrames(np.zeros((5, 4, 4, 1), np.uint8)), None) for n in range(5)]
        >>> split = split_episodes(held, 0.2)
        >>> len(split.train), len(split.test), split.notes
        (4, 1, ('by episode: 4 episodes of 20 frames to learn from, 1 of 5 to measure on (e2)',))
    """
    if not episodes:
        raise InputError("no episode to divide", where="split", found="none", expected="one or more")
    if by not in ("auto", "time", "episode"):
        raise InputError("no such way to divide", where="by", found=repr(by), expected="auto, time, episode")
    groups = [group_of(episode) for episode in episodes]
    if by == "time" or (by == "auto" and len(set(groups)) == 1):
        pairs = [split_time(episode, share, gap) for episode in episodes]
        notes = tuple(early.notes[-1] for early, _ in pairs[:5])
        notes += (f"and {len(pairs) - 5:,} more episodes alike",) if len(pairs) > 5 else ()
        return Split([early for early, _ in pairs], [late for _, late in pairs], notes)
    if not 0 < share < 1:
        raise InputError("no such share", where="share", found=share, expected="above 0 and below 1")
    held = hold_out(groups, share, seed).tolist()
    train = [episode for episode, out in zip(episodes, held, strict=True) if not out]
    test = [episode for episode, out in zip(episodes, held, strict=True) if out]
    counts = sum(map(len, train)), sum(map(len, test))
    kept = f"{len(train):,} {'episode' if len(train) == 1 else 'episodes'} of {counts[0]:,} frames to learn from"
    note = f"by episode: {kept}, {len(test):,} of {counts[1]:,} to measure on ({shown(one.name for one in test)})"
    grouped = len(set(groups)) < len(groups)
    return Split(train, test, (note, *(("clips cut from one film were kept together",) if grouped else ())))


def group_of(episode: Episode) -> str:
    """What an episode must stay together with: of UCF-101 the film its clip was cut from, else itself.

    Source: Soomro, Zamir, Shah 2012, UCF101, section 2: the clips of one group have the same film.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> frames = ArrayFrames(np.zeros((2, 4, 4, 1), np.uint8))
        >>> group_of(Episode("Archery/v_Archery_g01_c02", frames, None)), group_of(Episode("a", frames, None))
        ('v_Archery_g01', 'a')
    """
    found = _GROUPED.search(episode.name)
    return found[1] if found else episode.name


def copied_frames(one: Sequence[Episode], other: Sequence[Episode]) -> int:
    """How many frames of the second part stand, number for number, in the first: copies under other names.

    A scene that stands still has equal frames honestly.

    Complexity: O(all frames) time, 8 bytes a frame of the first part.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> noise = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1)).astype(np.uint8)
        >>> first, second = Episode("a", ArrayFrames(noise), None), Episode("b", ArrayFrames(noise[4:]), None)
        >>> copied_frames([first], [second])
        2
    """
    known = {hash(frame) for episode in one for frame in _contents(episode)}
    return sum(hash(frame) in known for episode in other for frame in _contents(episode))


def _contents(episode: Episode) -> Iterator[bytes]:
    for first in range(0, len(episode), _PIECE):
        for frame in episode.frames.read(first, min(first + _PIECE, len(episode))):
            yield frame.tobytes()


def is_still(episode: Episode, tolerance: int = 0) -> bool:
    """Whether nothing moves: no value of any frame is more than `tolerance` of 255 away from the first frame's.

    Complexity: O(frames up to the first that differs), constant memory.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> dark = np.zeros((9, 4, 4, 1), np.uint8)
        >>> moved = dark.copy()
        >>> moved[5, 1, 1] = 3
        >>> [is_still(Episode("e", ArrayFrames(one), None)) for one in (dark, moved)]
        [True, False]
    """
    count, size, at = len(episode), 1, 1
    if not count:
        return True
    first = episode.frames.read(0, 1).astype(np.int16)
    while at < count:
        stop = min(at + size, count)
        if np.abs(episode.frames.read(at, stop) - first).max(initial=0) > tolerance:
            return False
        at, size = stop, min(2 * size, _PIECE)
    return True
