"""Actions, states and rewards that stand beside the frames of an episode: in a dictionary, or in a table."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.data.datasets.brain_walk import shown
from pipelines.data.datasets.world_objects import array_of
from pipelines.data.errors import InputError
from pipelines.data.formats.actions_csv import ActionTable, read_actions
from pipelines.data.formats.episodes_roles import Column, Draft, role_of, text_list

__all__ = ["add_beside", "add_named_tables", "add_table", "align"]


def add_beside(draft: Draft, held: Mapping[str, Any], name: str, fps: float | None = None) -> None:
    """Give an opened episode what stood beside it in a dictionary; what is not read is noted.

    Args:
        draft: the episode.
        held: actions (also the path of a table), states, rewards, names and fps, by name.
        name: what messages call the dictionary.
        fps: frames a second that were asked for.

    Raises:
        InputError: see `align`; something that is no array.

    Example:
        >>> draft = Draft("a", "a", np.zeros((3, 8, 8)), "THW")
        >>> add_beside(draft, {"action": [[0.5], [1.0]], "fps": 10, "mood": "good"}, "a")
        >>> draft.columns[0].values.shape, draft.fps, draft.notes
        ((2, 1), 10.0, ['mood is not read'])
    """
    for key in sorted(held, key=lambda one: role_of(one) != "fps"):  # times of actions need the rate
        role, value = role_of(key), held[key]
        where = f"{name}, {key}"
        if role == "actions" and isinstance(value, str | os.PathLike):
            align(draft, read_actions(pathlib.Path(value)), fps)
        elif role == "actions":
            draft.columns = (Column("", array_of(value, where)),)
        elif role in ("states", "rewards"):
            setattr(draft, role, array_of(value, where))
        elif role in ("action_names", "state_names"):
            setattr(draft, role, text_list(value))
        elif role == "fps" and draft.fps is None and array_of(value, where).size == 1:
            draft.fps = float(array_of(value, where).ravel()[0])
        else:
            draft.notes = [*draft.notes, f"{key} is not read"]


def align(draft: Draft, table: ActionTable, fps: float | None = None) -> None:
    """Give an episode the actions of a table.

    Args:
        draft: the episode.
        table: its actions.
        fps: frames a second that were asked for; of an episode that tells none they are its rate.

    Raises:
        InputError: see `ActionTable.aligned`.

    Complexity: O(rows + frames).

    Example:
        >>> draft = Draft("a", "a", np.zeros((3, 8, 8)), "THW")
        >>> align(draft, ActionTable("a.csv", (Column("push", np.array([1, 2])),), None, None, ()))
        >>> draft.columns[0].values.tolist(), draft.notes
        ([1, 2], ['actions of a.csv: push'])
    """
    rate, times, notes = draft.fps or fps, draft.times, list(table.notes)
    if times is None and rate is not None:
        times = np.arange(draft.count) / rate
    as_stored = not draft.resampled
    draft.columns = table.aligned(draft.count, times, notes, as_stored=as_stored)
    names = ", ".join(one.name for one in draft.columns)
    draft.notes = [*draft.notes, *notes, f"actions of {table.name}: {names[:80]}"]


def add_table(drafts: Sequence[Draft], path: pathlib.Path, fps: float | None = None) -> None:
    """Give the one episode of a file the actions of the table that has its name; else note that it is not read.

    Raises:
        InputError: see `read_actions` and `align`.

    Example:
        >>> draft = Draft("a", "a", np.zeros((3, 8, 8)), "THW", columns=(Column("", np.zeros(2)),))
        >>> add_table([draft], pathlib.Path("a.csv"))
        >>> draft.notes
        ['a.csv is not read: the file beside it has actions of its own']
    """
    if len(drafts) != 1:
        drafts[0].notes.append(f"{path.name} is not read: it lies beside {len(drafts):,} episodes")
    elif drafts[0].columns is not None:
        drafts[0].notes.append(f"{path.name} is not read: the file beside it has actions of its own")
    else:
        align(drafts[0], read_actions(path), fps)


def add_named_tables(drafts: Sequence[Draft], place: str, notes: list[str], fps: float | None = None) -> None:
    """Give episodes the actions of one table, or of the tables of a folder, each called as its episode.

    Args:
        drafts: the episodes.
        place: path of the table or folder.
        notes: gets how many tables belong to no episode.
        fps: frames a second that were asked for.

    Raises:
        InputError: no such file; one table for several episodes; an episode without a table; see `align`.

    Complexity: O(rows + frames).

    Example:
        >>> add_named_tables([], "no/such/file.csv", [])
        Traceback (most recent call last):
        ...
        pipelines.data.errors.InputError: no/such/file.csv: no such file or folder. Cure: check the path of the actions.
    """
    path = pathlib.Path(place).expanduser()
    if not path.exists():
        raise InputError("no such file or folder", where=place, cure="check the path of the actions")
    chosen = _folder_of_tables(drafts, path, notes) if path.is_dir() else [path] * len(drafts)
    if not path.is_dir() and len(drafts) != 1:
        cure = "give a folder of tables, each called as its episode"
        found = f"one table for {len(drafts):,} episodes"
        raise InputError("one table is the actions of one episode", where=path, found=found, cure=cure)
    for draft, table in zip(drafts, chosen, strict=True):
        if draft.columns is not None:
            draft.notes = [*draft.notes, "the actions beside the frames are replaced by those of the table"]
        align(draft, read_actions(table), fps)


def _folder_of_tables(drafts: Sequence[Draft], path: pathlib.Path, notes: list[str]) -> list[pathlib.Path]:
    """The table of each episode."""
    chosen: list[pathlib.Path] = []
    missing: list[str] = []
    for draft in drafts:
        both = path / f"{draft.name}.csv", path / f"{draft.name.rsplit('/', 1)[-1]}.csv"
        found = next((one for one in both if one.is_file()), None)
        if found is None:
            missing.append(draft.name)
        else:
            chosen.append(found)
    if missing:
        found = f"none for {len(missing):,} of {len(drafts):,} episodes ({shown(missing)})"
        raise InputError("episodes without a table of actions", where=path, found=found, expected="NAME.csv for each")
    if len(set(chosen)) < len(chosen):
        cure = "put the tables into folders as the episodes are"
        raise InputError("two episodes have one table", where=path, found=f"{len(set(chosen)):,} tables", cure=cure)
    rest = sum(1 for _ in path.rglob("*.csv")) - len(chosen)
    if rest > 0:
        notes.append(f"{rest:,} tables of {path.name} belong to no episode: not read")
    return chosen
