"""Episodes out of anything: films, arrays and files of arrays, folders of them, lists, dictionaries, episodes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.brain_walk import shown
from pipelines.data.datasets.world_actions import add_beside, add_named_tables, add_table
from pipelines.data.datasets.world_layouts import ARRAY_ENDINGS, Item, moving_mnist_layout, scan_folder, ucf101_part
from pipelines.data.datasets.world_objects import (
    SOURCES,
    array_of,
    draft_of,
    holds_sources,
    is_frames,
    is_numeric,
    is_picture,
    piled,
)
from pipelines.data.datasets.world_reading import WorldReading
from pipelines.data.datasets.world_types import Episode
from pipelines.data.datasets.world_windows import is_still
from pipelines.data.errors import InputError
from pipelines.data.formats.episodes_finish import finish
from pipelines.data.formats.episodes_roles import Draft, drafts_of, role_of

__all__ = ["Progress", "WorldReading", "open_episodes"]

#: Called with the name of a film that is being read, its frames so far, and how many there will be (or None).
Progress = Callable[[str, int, int | None], object]
_RATE = 1e-3  # rates that differ by less are one
_HEADER = 0.02  # share by which time stamps of a steady film may be off its header's rate, since they are rounded


def open_episodes(
    data: Any,
    read: WorldReading | None = None,
    *,
    mixed: bool = False,
    least: int = 2,
    progress: Progress | None = None,
) -> list[Episode]:
    """Episodes of whatever a user has, their frames read by range and never all at once.

    Args:
        data: a film; a `.npz`, `.npy` or HDF5 file; a folder of these, of numbered images, of UCF-101, with the
            folders in it; an array (T, H, W), (T, H, W, C), (T, C, H, W) or with episodes before; a list of arrays or
            pictures; a dictionary of one episode (`frames`, `actions`, `rewards`, `states`, `fps`) or of several by
            name; `Episode` and `Frames` objects; a list of any of them.
        read: size, colour, rate and what the data do not say.
        mixed: allow sizes, colours and frame rates that differ between episodes.
        least: frames an episode needs; shorter ones are left out and counted, and refused where none is left.
        progress: told how far films are.

    Returns:
        episodes in the order of their files; what was decided, converted or left out is in their notes, of all
        together in those of the first.

    Raises:
        InputError: nothing to read, too few frames, NaN or infinite frames, frames of unknown scale, actions of
            another length, episodes that differ, and what each reader refuses.

    Complexity: O(values) once where films are decoded or frames are no bytes, else O(1) an episode.

    Example:
        >>> import numpy as np
        >>> movie = np.random.default_rng(0).uniform(size=(6, 32, 32, 3))
        >>> [episode] = open_episodes(dict(frames=movie, actions=np.zeros((5, 2)), fps=10), WorldReading(size=(16, 16)))
        >>> episode.shape, episode.fps, episode.actions.shape, episode.seconds
        ((6, 16, 16, 3), 10.0, (5, 2), 0.6)
        >>> episode.notes[1]
        '32 x 32 px brought to 16 x 16 by averaging areas'
    """
    reading = read or WorldReading()
    drafts, notes = _Opening(reading, progress).opened(data, "array")
    if not drafts:
        raise InputError("nothing to read", where="data", found=str(data)[:80], expected=SOURCES)
    _named(drafts)
    if reading.actions is not None:
        add_named_tables(drafts, reading.actions, notes, reading.fps)
    drafts = _long_enough(drafts, least, notes)
    episodes = [_watched(one) for one in finish(drafts, reading, _where(data))]
    if not mixed:
        _alike(episodes)
        notes += _rates(episodes)
    if notes:
        episodes[0] = dataclasses.replace(episodes[0], notes=(*episodes[0].notes, *notes))
    return episodes


def _where(data: Any) -> str:
    return pathlib.Path(data).name if isinstance(data, str | os.PathLike) else "data"


class _Opening:
    """Finds the drafts of whatever is given."""

    def __init__(self, reading: WorldReading, progress: Progress | None) -> None:
        self.reading, self.progress = reading, progress

    def opened(self, data: Any, name: str) -> tuple[list[Draft], list[str]]:
        """The drafts of a source and notes about all of them."""
        if isinstance(data, Episode):
            return [draft_of(data)], []
        if isinstance(data, str | os.PathLike):
            return self._path(data, name)
        if isinstance(data, Mapping):
            return self._mapping(data, name)
        if isinstance(data, list | tuple):
            return self._list(data, name)
        if is_frames(data):
            return [Draft(name, name, frames=data)], []
        return self._arrays({"frames": array_of(data, name)}, name), []

    def _arrays(self, arrays: Mapping[str, Any], name: str) -> list[Draft]:
        return drafts_of(
            arrays, name, name, key=self.reading.key if len(arrays) > 1 else None, layout=self.reading.layout
        )

    def _mapping(self, data: Mapping[Any, Any], name: str) -> tuple[list[Draft], list[str]]:
        """One episode, where a name is one of frames; else episodes by name."""
        keys = [str(key) for key in data]
        single = any(role_of(key) == "frames" for key in keys) or self.reading.key in keys
        if not single:
            drafts, notes = [], []
            for key, value in data.items():
                made, said = self.opened(value, str(key))
                for draft in made if len(made) == 1 else ():
                    draft.name = str(key)
                drafts += made
                notes += said
            return drafts, notes
        held = {str(key): value for key, value in data.items() if value is not None}
        first = next((key for key in held if not is_numeric(held[key]) and role_of(key) == "frames"), None)
        if first is None:
            return self._arrays({key: array_of(value, f"{name}, {key}") for key, value in held.items()}, name), []
        made, notes = self.opened(held.pop(first), name)
        if len(made) != 1:
            found = f"{len(made)} episodes"
            raise InputError("frames of one episode are needed", where=f"{name}, {first}", found=found, expected="one")
        add_beside(made[0], held, name, self.reading.fps)
        return made, notes

    def _list(self, data: Sequence[Any], name: str) -> tuple[list[Draft], list[str]]:
        """Frames of one episode where every part is one picture; else episodes."""
        if not data:
            return [], []
        if all(is_picture(one) for one in data):
            return self._arrays({"frames": piled([array_of(one, name) for one in data], name)}, name), []
        if not holds_sources(data):  # numbers in lists within lists
            return self._arrays({"frames": array_of(data, name)}, name), []
        drafts: list[Draft] = []
        notes: list[str] = []
        for place, one in enumerate(data):
            made, said = self.opened(one, name if len(data) == 1 else f"{name} {place}")
            drafts += made
            notes += said
        return drafts, notes

    # Files and folders

    def _path(self, data: str | os.PathLike[str], name: str) -> tuple[list[Draft], list[str]]:
        if not os.fspath(data):
            raise InputError("nothing that is read", where=name, found="an empty path", expected=SOURCES)
        path = pathlib.Path(data).expanduser()
        try:
            folder, there = path.is_dir(), path.exists()
        except (OSError, ValueError) as error:
            raise InputError("no path", where=name, found=str(error)[:80], expected=SOURCES) from error
        if not there:
            raise InputError("no such file or folder", where=path, cure="check the path")
        if folder:
            return self._folder(path)
        kind = ARRAY_ENDINGS.get(path.suffix.lower())
        return self._item(Item(kind or "film", path, path.stem)), []

    def _folder(self, folder: pathlib.Path) -> tuple[list[Draft], list[str]]:
        from pipelines.data.formats.video import VIDEO_ENDINGS

        items, said = scan_folder(folder, VIDEO_ENDINGS)
        notes = list(said)
        if self.reading.subset != "all":
            items, more = ucf101_part(folder, items, self.reading.subset, self.reading.split)
            notes += more
        return [draft for item in items for draft in self._item(item)], notes

    def _item(self, item: Item) -> list[Draft]:
        """The episodes of one file or folder, with the actions of the table beside it."""
        reading, path = self.reading, item.path
        if item.kind in ("film", "images"):
            drafts = [self._film(item)]
        elif item.kind == "hdf5":
            from pipelines.data.formats.episodes_hdf5 import read_hdf5

            drafts = read_hdf5(path, key=reading.key, layout=reading.layout, name=item.name)
        else:
            drafts = drafts_of(
                *self._held(item), key=reading.key if item.kind == "npz" else None, layout=self._layout(item)
            )
        table = path.with_suffix(".csv") if item.kind != "images" else path.parent / f"{path.name}.csv"
        if reading.actions is None and item.kind != "arrays" and table.is_file():
            add_table(drafts, table, reading.fps)
        return drafts

    def _held(self, item: Item) -> tuple[dict[str, Any], str, str]:
        from pipelines.data.formats.episodes_npy import map_npy, open_npz

        if item.kind == "npz":
            return open_npz(item.path), item.name, item.path.name
        if item.kind == "npy":
            return {"frames": map_npy(item.path)}, item.name, item.path.name
        held = sorted(item.path.glob("*.npy"))
        return {one.stem: map_npy(one) for one in held}, item.name, item.path.name

    def _layout(self, item: Item) -> str | None:
        if self.reading.layout is None and item.kind == "npy":
            from pipelines.data.formats.episodes_npy import map_npy

            return moving_mnist_layout(item.path.name, map_npy(item.path).shape)
        return self.reading.layout

    def _film(self, item: Item) -> Draft:
        """A film, or a folder of numbered images, made ready once."""
        from pipelines.data.datasets.world_prepared import prepare_video
        from pipelines.data.formats.video import VideoFile

        reading = self.reading
        images = item.kind == "images"
        rate = reading.fps if images else None
        facts = VideoFile(item.path, rate=rate).facts
        grey = reading.colour == "grey" or (reading.colour == "auto" and facts.grey)
        told = self.progress
        frames, times, notes = prepare_video(
            item.path,
            size=reading.size,
            colour="grey" if grey else "rgb",
            fps=None if images else reading.fps,
            rate=rate,
            cache=reading.cache,
            progress=None if told is None else lambda done, total: told(item.name, done, total),
        )
        fps, said = reading.fps or facts.fps, list(notes)
        if not images and reading.fps is None:
            fps, more = _true_rate(times, facts.fps)
            said += more
        draft = Draft(item.name, item.path.name, frames=frames, fps=fps, notes=said, whole=True)
        draft.resampled = not images and reading.fps is not None
        draft.times = times if facts.fps or rate or not images else None
        return draft


def _true_rate(times: NDArray[np.float64], told: float | None) -> tuple[float | None, list[str]]:
    """Frames a second by the time stamps where the header tells another rate; films of variable rate do."""
    spent = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    if spent <= 0:
        return told, []
    mean = (len(times) - 1) / spent
    if told is not None and abs(mean - told) <= _HEADER * told:
        return told, []
    header = "none" if told is None else f"{told:.4g} Hz"
    return mean, [f"frame rate: {mean:.4g} Hz on average by the time stamps (the header's is {header})"]


# All together


def _named(drafts: Sequence[Draft]) -> None:
    """Give no two episodes the same name."""
    used: dict[str, int] = {}
    for draft in drafts:
        count = used.get(draft.name, 0) + 1
        used[draft.name] = count
        if count > 1:
            draft.name = f"{draft.name} ({count})"


def _long_enough(drafts: list[Draft], least: int, notes: list[str]) -> list[Draft]:
    short = [draft for draft in drafts if draft.count < least]
    if len(short) == len(drafts):
        one = max(drafts, key=lambda draft: draft.count)
        found = f"{one.count} frame{'' if one.count == 1 else 's'}" + ("" if len(drafts) == 1 else " at most")
        cure = "give frames in time: a film, or an array (T, H, W, C)"
        expected = f"{least} or more"
        raise InputError("too few frames to predict from", where=one.where, found=found, expected=expected, cure=cure)
    if short:
        notes.append(
            f"{len(short):,} episodes shorter than {least} frames left out ({shown(one.name for one in short)})"
        )
    return [draft for draft in drafts if draft.count >= least]


def _watched(episode: Episode) -> Episode:
    """The episode, with a note where nothing moves."""
    if len(episode) < 2 or not is_still(episode):
        return episode
    note = f"nothing moves: all {len(episode):,} frames are equal"
    return dataclasses.replace(episode, notes=(*episode.notes, note))


def _alike(episodes: Sequence[Episode]) -> None:
    """Refuse sizes and colours that differ."""
    first = episodes[0]
    for episode in episodes:
        if episode.shape[1:] == first.shape[1:]:
            continue
        sizes = episode.shape[1:3] != first.shape[1:3]
        found = " and ".join(f"{_size(one)} ({one.name})" for one in (first, episode))
        cure = "say one size (size)" if sizes else "say colour rgb or grey"
        problem = "frames of different sizes" if sizes else "frames in colour and in grey"
        raise InputError(problem, where="episodes", found=found, expected="one for all", cure=cure)


def _size(episode: Episode) -> str:
    _, height, width, channels = episode.shape
    return f"{height} x {width} {'grey' if channels == 1 else 'RGB'}"


def _rates(episodes: Sequence[Episode]) -> list[str]:
    """Refuse frame rates that differ; a note where some are not known."""
    known = [episode for episode in episodes if episode.fps is not None]
    for episode in known:
        if abs((episode.fps or 0) - (known[0].fps or 0)) > _RATE * (known[0].fps or 1):
            found = " and ".join(f"{one.fps:g} Hz ({one.name})" for one in (known[0], episode))
            cure = "say one frame rate (fps), or put them into folders of their own"
            raise InputError("different frame rates", where="episodes", found=found, expected="one for all", cure=cure)
    if known and len(known) < len(episodes):
        return [f"{len(episodes) - len(known):,} of {len(episodes):,} episodes do not tell their frame rate"]
    return []
