"""Which array of a file is what (frames, actions, rewards, states, ends of episodes), and its parts by episode."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_types import Frames
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_axes import Source, find_axes, is_image_like

__all__ = ["Column", "Draft", "choose_frames", "drafts_of", "role_of", "text_list"]

_NAMES: Mapping[str, tuple[str, ...]] = {
    "frames": (
        *("frames", "frame", "video", "videos", "observations", "observation", "obs"),
        *("images", "image", "imgs", "img", "pixels", "rgb", "screen", "screens"),
    ),
    "actions": ("actions", "action", "acts", "act", "controls", "control", "stimulus", "stimuli"),
    "rewards": ("rewards", "reward", "rew", "rews"),
    "states": ("states", "state", "proprio", "positions", "position", "agent_pos"),
    "fps": ("fps", "frame_rate", "framerate", "frames_per_second"),
    "last": ("terminals", "timeouts", "dones", "done", "terminated", "truncated", "terminations", "is_last"),
    "first": ("is_first", "starts"),
    "ends": ("episode_ends",),
    "lengths": ("lengths", "episode_lengths"),
    "action_names": ("action_names",),
    "state_names": ("state_names",),
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
_MOST_BESIDE = 1 << 30  # bytes of actions, states and rewards that are loaded
_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Column:
    """Actions before they are coded: numbers or texts (T,) under a name, or several amounts (T, A) at once."""

    name: str
    values: NDArray[Any]


@dataclass
class Draft:
    """An episode while it is read: where its frames are, and what stands beside them as it is stored.

    Args:
        name: of the episode.
        where: what messages call it.
        source, axes, episode, start, stop: its frames in an array; see `StackFrames`.
        frames: its frames, where they are in no array.
        fps: frames a second, where the data tell.
        times: (T,) s, where the data tell.
        columns: actions; None where there are none.
        states, rewards: as they are stored.
        action_names, state_names: where the data name them.
        notes: what was decided.
        whole: whether size, colour and rate are those asked for already, as of films.
        resampled: whether the frames are not all those that were stored, in their order.
    """

    name: str
    where: str
    source: Source | None = None
    axes: str = "THWC"
    episode: int = 0
    start: int = 0
    stop: int | None = None
    frames: Frames | None = None
    fps: float | None = None
    times: NDArray[np.float64] | None = None
    columns: tuple[Column, ...] | None = None
    states: NDArray[Any] | None = None
    rewards: NDArray[Any] | None = None
    action_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    whole: bool = False
    resampled: bool = False

    @property
    def count(self) -> int:
        """Number of frames T."""
        if self.frames is not None:
            return self.frames.shape[0]
        length = self.source.shape[self.axes.index("T")] if self.source is not None else 0
        return (length if self.stop is None else self.stop) - self.start


def role_of(name: str) -> str | None:
    """What an array is by the last part of its name; None where the name does not tell.

    Example:
        >>> role_of("data/demo_0/actions"), role_of("obs"), role_of("next_obs"), role_of("x")
        ('actions', 'frames', None, None)
    """
    return _ROLES.get(name.rsplit("/", 1)[-1].lower())


def choose_frames(shapes: Mapping[str, Sequence[int]], key: str | None, where: str) -> str:
    """The name of the array that holds the frames: the one that was named, or the only one that may.

    Raises:
        InputError: no such array, none that may, several that may.

    Example:
        >>> choose_frames({"obs": (5, 8, 8, 3), "actions": (5, 2)}, None, "a.npz")
        'obs'
    """
    if len(shapes) == 1:
        return next(iter(shapes))  # whatever it is: its axes are looked at next
    listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in list(shapes.items())[:_SHOWN]) or "no array"
    if key is not None:
        named = [name for name in shapes if name == key] or [name for name in shapes if name.endswith(f"/{key}")]
        if len(named) != 1:
            problem = "no such array of frames" if not named else "several arrays have this name"
            raise InputError(problem, where=where, found=f"key {key}; the file has {listed}", cure="name one (key)")
        return named[0]
    known = {name for name in shapes if role_of(name) not in (None, "frames") or _later(name)}
    likely = [name for name, shape in shapes.items() if name not in known and is_image_like(shape)]
    named = [name for name in likely if role_of(name) == "frames"]
    chosen = named or likely
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        expected = "frames (T, H, W), (T, H, W, C) or (N, T, H, W, C)"
        raise InputError("no array of frames", where=where, found=listed, expected=expected, cure="name it (key)")
    found = ", ".join(f"{name} {tuple(shapes[name])}" for name in chosen[:_SHOWN])
    raise InputError("several arrays may be the frames", where=where, found=found, cure="name one (key)")


def _later(name: str) -> bool:
    """Whether an array holds the frames once more, one step later (`next_obs`)."""
    return any(part.lower().startswith("next_") for part in name.split("/"))


def drafts_of(
    arrays: Mapping[str, Source], name: str, where: str, *, key: str | None = None, layout: str | None = None
) -> list[Draft]:
    """The episodes of arrays that belong together: one, one a place along N, or parts between marked ends.

    Args:
        arrays: frames and what stands beside them, by name.
        name: of the episode, or of all of them.
        where: what messages call the arrays.
        key: name of the frames.
        layout: order of their axes.

    Raises:
        InputError: see `choose_frames` and `find_axes`; ends, lengths or actions that do not fit.

    Complexity: O(values beside the frames).

    Example:
        >>> held = {"obs": np.zeros((6, 8, 8, 3), np.uint8), "terminals": np.array([0, 0, 1, 0, 0, 0])}
        >>> [(draft.name, draft.start, draft.stop) for draft in drafts_of(held, "a", "a.npz")]
        [('a/0', 0, 3), ('a/1', 3, 6)]
    """
    chosen = choose_frames({held: array.shape for held, array in arrays.items()}, key, where)
    source, notes = arrays[chosen], []
    beside, unread = _beside(arrays, chosen, where)
    if unread:
        more = " ..." if len(unread) > _SHOWN else ""
        notes.append(f"frames are {chosen}; {len(unread)} arrays not read: {', '.join(unread[:_SHOWN])}{more}")
    steps = [beside[role].shape for role in ("actions", "rewards", "last", "states") if role in beside]
    axes = find_axes(source, f"{where}, {chosen}", notes, layout=layout, beside=steps)
    draft = Draft(name, where, source, axes, fps=_rate(beside.get("fps"), notes), notes=notes)
    draft.action_names, draft.state_names = text_list(beside.get("action_names")), text_list(beside.get("state_names"))
    if "N" in axes:
        return _stacked(draft, beside)
    count = source.shape[axes.index("T")]
    for role in ("rewards", "states"):
        setattr(draft, role, beside.get(role))
    draft.columns = (Column("", beside["actions"]),) if "actions" in beside else None
    pieces = _pieces(beside, count, where, notes)
    if pieces is None or len(pieces) == 1:
        return [draft]
    return [_piece(draft, number, *piece) for number, piece in enumerate(pieces)]


def _beside(arrays: Mapping[str, Source], chosen: str, where: str) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """What stands beside the frames, loaded, by role; and the names that are not read."""
    taken: dict[str, str] = {}
    marks: list[str] = []
    unread: list[str] = []
    order = {name: place for place, name in enumerate(_ROLES)}
    for name in sorted(arrays, key=lambda one: (order.get(one.rsplit("/", 1)[-1].lower(), len(order)), one)):
        role = role_of(name)
        if name == chosen:
            continue
        if role == "last":
            marks.append(name)
        elif role == "frames" and arrays[name].dtype.kind in "biuf" and len(arrays[name].shape) == 2:
            taken.setdefault("states", name)  # observations that are no pictures
            if taken["states"] != name:
                unread.append(name)
        elif role in (None, "frames") or role in taken or _later(name):
            unread.append(name)
        else:
            taken[role] = name
    if sum(math.prod(arrays[name].shape) * arrays[name].dtype.itemsize for name in taken.values()) > _MOST_BESIDE:
        found = ", ".join(f"{name} {arrays[name].shape}" for name in taken.values())
        raise InputError("more beside the frames than is loaded", where=where, found=found, expected="at most 1 GiB")
    out = {role: np.asarray(arrays[name][()]) for role, name in taken.items()}
    if marks:
        out["last"] = _marked({name: np.asarray(arrays[name][()]) for name in marks}, where)
    return out, sorted(unread)


def _marked(marks: Mapping[str, NDArray[Any]], where: str) -> NDArray[np.bool_]:
    """Where any of the marks is set."""
    shapes = {mark.shape for mark in marks.values()}
    if len(shapes) > 1 or any(mark.dtype.kind not in "biuf" for mark in marks.values()):
        found = ", ".join(f"{name} {mark.dtype} {mark.shape}" for name, mark in marks.items())
        raise InputError("ends of episodes do not fit each other", where=where, found=found, expected="one shape")
    return np.any([mark.astype(bool) for mark in marks.values()], axis=0)


def _rate(value: NDArray[Any] | None, notes: list[str]) -> float | None:
    if value is None:
        return None
    rate = float(value.ravel()[0]) if value.size == 1 and value.dtype.kind in "iuf" else math.nan
    if 0 < rate <= 1e5:
        return rate
    notes.append(f"fps is no frame rate ({str(value.ravel()[:3])[:40]}): not used")
    return None


def text_list(values: Any) -> tuple[str, ...]:
    """Names out of an array or list of texts; empty where it holds none.

    Example:
        >>> text_list(np.array(["left", "right"])), text_list(np.array([b"a"])), text_list(None)
        (('left', 'right'), ('a',), ())
    """
    held = np.asarray([] if values is None else values).ravel().tolist()
    texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in held]
    return tuple(texts) if all(isinstance(one, str) for one in texts) else ()


def _stacked(draft: Draft, beside: Mapping[str, NDArray[Any]]) -> list[Draft]:
    """A draft a place along N."""
    if draft.source is None:
        return []
    sizes = dict(zip(draft.axes, draft.source.shape, strict=True))
    many, count = sizes["N"], sizes["T"]
    held: dict[str, NDArray[Any]] = {}
    for role in ("actions", "states", "rewards"):
        if role not in beside:
            continue
        array = beside[role]
        if draft.axes.startswith("TN") and array.ndim >= 2 and array.shape[1] == many and array.shape[0] != many:
            array = array.swapaxes(0, 1)
        if array.ndim < 2 or array.shape[0] != many:
            found, expected = f"shape {array.shape}", f"({many}, {count - 1} or {count}, ...)"
            raise InputError(f"{role} do not fit the episodes", where=draft.where, found=found, expected=expected)
        held[role] = array
    lengths = _lengths(beside.get("lengths"), many, count, draft.where)
    out = []
    for place in range(many):
        stop = None if lengths is None else int(lengths[place])
        part = {role: array[place][:stop] for role, array in held.items()}
        name = draft.name if many == 1 else f"{draft.name}/{place}"
        columns = (Column("", part["actions"]),) if "actions" in part else None
        made = Draft(
            name, f"{draft.where}, episode {place}", draft.source, draft.axes, place, 0, stop, None, draft.fps, None,
            columns, part.get("states"), part.get("rewards"), draft.action_names, draft.state_names, draft.notes,
        )  # fmt: skip
        out.append(made)
    return out


def _lengths(lengths: NDArray[Any] | None, many: int, count: int, where: str) -> NDArray[Any] | None:
    if lengths is None:
        return None
    good = lengths.shape == (many,) and lengths.dtype.kind in "iu" and bool((lengths >= 1).all())
    if not good or (lengths > count).any():
        found, expected = f"shape {lengths.shape}, {lengths.dtype}", f"({many},) whole numbers from 1 to {count}"
        raise InputError("lengths do not fit the episodes", where=where, found=found, expected=expected)
    return lengths


def _pieces(
    beside: Mapping[str, NDArray[Any]], count: int, where: str, notes: list[str]
) -> list[tuple[int, int]] | None:
    """Ranges of the episodes that lie one after the other; None where nothing marks their ends."""
    if "ends" in beside:
        ends = beside["ends"].ravel()
        good = ends.dtype.kind in "iu" and ends.size and (np.diff(ends.astype(np.int64)) > 0).all()
        if not good or int(ends[0]) < 1 or int(ends[-1]) != count:
            found, expected = str(ends[:6])[:60], f"rising whole numbers up to {count}, the number of frames"
            raise InputError("ends of episodes do not fit the frames", where=where, found=found, expected=expected)
        borders = [0, *ends.tolist()]
    elif "last" in beside or "first" in beside:
        name = "last" if "last" in beside else "first"
        marks = beside[name].ravel().astype(bool)
        if len(marks) != count:
            found = f"{len(marks)} marks for {count} frames"
            raise InputError("ends of episodes do not fit the frames", where=where, found=found, expected="as many")
        after = np.flatnonzero(marks) + (name == "last")
        borders = sorted({0, *after.tolist(), count})
        if name == "last" and not marks[-1] and len(borders) > 2:
            notes.append("the last episode is not marked as ended")
    else:
        return None
    return list(itertools.pairwise(borders))


def _piece(draft: Draft, number: int, start: int, stop: int) -> Draft:
    """One of several episodes that lie one after the other."""
    held: dict[str, NDArray[Any] | None] = {}
    columns = None if draft.columns is None else draft.columns[0].values
    total = draft.count
    for role, array in (("actions", columns), ("states", draft.states), ("rewards", draft.rewards)):
        if array is not None and array.shape[:1] not in ((total,), (total - 1,)):
            found, expected = f"{array.shape[0] if array.ndim else 0} {role} for {total} frames", "as many"
            raise InputError(f"{role} do not fit the frames", where=draft.where, found=found, expected=expected)
        held[role] = None if array is None else array[start:stop]
    columns = held["actions"]
    return Draft(
        f"{draft.name}/{number}", f"{draft.where}, episode {number}", draft.source, draft.axes, 0, start, stop, None,
        draft.fps, None, None if columns is None else (Column("", columns),), held["states"], held["rewards"],
        draft.action_names, draft.state_names, draft.notes,
    )  # fmt: skip
