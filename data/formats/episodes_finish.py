"""From drafts to episodes: one scale for all frames, actions coded alike, then colour, size and rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_reading import WorldReading
from pipelines.data.datasets.world_types import Episode, Frames
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_actions import code_actions
from pipelines.data.formats.episodes_roles import Draft
from pipelines.data.formats.episodes_scale import AS_IT_IS, Scale, find_scale
from pipelines.data.formats.episodes_stack import StackFrames
from pipelines.data.formats.episodes_views import ColouredFrames, PickedFrames, SizedFrames, resize_note

__all__ = ["finish"]


def finish(drafts: Sequence[Draft], reading: WorldReading, where: str) -> list[Episode]:
    """Episodes of drafts.

    Args:
        drafts: of everything that is opened together.
        reading: size, colour, rate, scale and kind of actions.
        where: what messages call all of them.

    Raises:
        InputError: see `find_scale` and `code_actions`; a rate that actions do not allow.

    Complexity: O(values) where frames are no bytes, to look at each once; else O(values beside the frames).

    Example:
        >>> from pipelines.data.formats.episodes_roles import Column
        >>> draft = Draft("a", "a", np.zeros((5, 8, 8), np.uint8), "THW", columns=(Column("", np.array([0, 1, 2, 0])),))
        >>> episode, = finish([draft], WorldReading(size=None), "a")
        >>> episode.shape, episode.actions.shape, episode.action_names
        ((5, 8, 8, 1), (4, 3), ('action=0', 'action=1', 'action=2'))
    """
    scales, said = _scales(drafts, reading, where)
    coded, names, how = code_actions(drafts, reading.discrete, where)
    out = []
    for draft, actions in zip(drafts, coded, strict=True):
        notes = [*draft.notes, *(said.get(_kind(draft), ()))]
        if draft.frames is not None:
            frames: Frames = draft.frames
        elif draft.source is not None:
            place = {"episode": draft.episode, "start": draft.start, "stop": draft.stop}
            frames = StackFrames(draft.source, draft.axes, **place, scale=scales[_kind(draft)])
        else:
            raise InputError("no frames", where=draft.where)
        notes += how if actions is not None else ()
        count = frames.shape[0]
        states = _states(draft, count, notes)
        rewards = _rewards(draft, count, notes)
        fps, picked = _rate(draft, reading, count, notes, actions is not None)
        if picked is not None:
            frames = PickedFrames(frames, picked)
            states = None if states is None else states[picked]
            if rewards is not None:
                rewards = None
                notes.append("rewards not used: they belong to other frames")
        frames = _seen(frames, draft, reading, notes)
        state_names = draft.state_names if states is not None and len(draft.state_names) == states.shape[1] else ()
        episode = Episode(
            draft.name, frames, fps, actions, states, rewards, names if actions is not None else (), state_names
        )
        out.append(dataclasses.replace(episode, notes=tuple(notes)))
    return out


def _kind(draft: Draft) -> str:
    return "" if draft.source is None else str(draft.source.dtype)


def _scales(
    drafts: Sequence[Draft], reading: WorldReading, where: str
) -> tuple[dict[str, Scale], dict[str, tuple[str, ...]]]:
    """A scale for each type of numbers, and what was said of it."""
    sources: dict[str, dict[int, tuple[Any, str]]] = {}
    for draft in drafts:
        if draft.source is not None:
            sources.setdefault(_kind(draft), {}).setdefault(id(draft.source), (draft.source, draft.where))
    scales, said = {"": AS_IT_IS}, {}
    for kind, held in sources.items():
        notes: list[str] = []
        scales[kind] = find_scale(held.values(), where, notes, reading.white)
        said[kind] = tuple(notes)
    return scales, said


def _seen(frames: Frames, draft: Draft, reading: WorldReading, notes: list[str]) -> Frames:
    """The frames at the size and in the colours asked for; the cheaper step first."""
    if draft.whole:
        return frames
    _, height, width, channels = frames.shape
    wanted = {"auto": channels, "rgb": 3, "grey": 1}[reading.colour]
    if wanted < channels:
        frames = ColouredFrames(frames, wanted)
        notes.append("RGB read as grey (luma of BT.601)")
    if reading.size is not None and reading.size != (height, width):
        frames = SizedFrames(frames, reading.size)
        notes.append(resize_note((height, width), reading.size))
    if wanted > channels:
        frames = ColouredFrames(frames, wanted)
        notes.append("grey read as RGB of three equal colours")
    return frames


def _rate(
    draft: Draft, reading: WorldReading, count: int, notes: list[str], acts: bool
) -> tuple[float | None, NDArray[np.int64] | None]:
    """Frames a second, and the numbers of the frames to take where the rate asked for is another."""
    told, asked = draft.fps, reading.fps
    if asked is None or draft.whole:
        return told, None
    if told is None:
        notes.append(f"{asked:g} frames a second, as was said: the data tell no rate")
        return asked, None
    if abs(told - asked) <= 1e-3 * asked:
        return told, None
    if acts:
        raise InputError(
            "actions belong to the frames as they are: another frame rate would part them",
            where=draft.where,
            found=f"{told:g} frames a second",
            expected=f"{asked:g}, as was asked",
            cure="leave out the frame rate (fps), or thin frames and actions together before",
        )
    total = max(1, int(np.floor((count - 1) / told * asked + 1e-6)) + 1)
    if total > 10 * count + 10_000_000:
        raise InputError("too many frames", where="fps", found=f"{total:,}", expected=f"a rate near {told:g} Hz")
    numbers = np.minimum(np.floor(np.arange(total) * (told / asked) + 1e-6).astype(np.int64), count - 1)
    again = total - len(np.unique(numbers))
    lost = count - (total - again)
    notes.append(
        f"{told:g} to {asked:g} frames a second by time stamp: {total:,} of {count:,} frames, {lost:,} left out, "
        f"{again:,} repeated"
    )
    return asked, numbers


def _states(draft: Draft, count: int, notes: list[str]) -> NDArray[np.float32] | None:
    held = draft.states
    if held is None:
        return None
    if held.dtype.kind not in "biuf" or held.ndim < 1 or held.shape[0] != count or not held.size:
        notes.append(f"states of shape {held.shape} ({held.dtype}) for {count} frames: not used")
        return None
    flat = held.reshape(count, -1).astype(np.float32)
    return flat if _finite(flat, "states", notes) else None


def _rewards(draft: Draft, count: int, notes: list[str]) -> NDArray[np.float32] | None:
    held = draft.rewards
    if held is None:
        return None
    if held.dtype.kind not in "biuf" or held.size not in (count, count - 1) or held.shape[:1] != (held.size,):
        notes.append(f"rewards of shape {held.shape} ({held.dtype}) for {count} frames: not used")
        return None
    flat = held.ravel()[: count - 1].astype(np.float32)
    if held.size == count:
        notes.append("the reward after the last frame is not used")
    return flat if _finite(flat, "rewards", notes) else None


def _finite(values: NDArray[np.float32], what: str, notes: list[str]) -> bool:
    odd = int(values.size - np.count_nonzero(np.isfinite(values)))
    if odd:
        notes.append(f"{what} with {odd:,} NaN or infinite numbers: not used")
    return not odd
