"""Rollouts of what users give: the frames after those that are seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_types import Episode
from pipelines.errors import ConfigError, InputError
from pipelines.world import engine
from pipelines.world.material import check_fit, episodes_of
from pipelines.world.result import Rollout
from pipelines.world.rollouts import RolloutEpisode

if TYPE_CHECKING:
    from pipelines.world.pipeline import WorldModel

__all__ = ["play", "predict"]


def predict(m: WorldModel, inputs: Any) -> Rollout:
    """Roll every episode out; one that is too short is named and does not stop the rest."""
    return _rollout(m, inputs, None)


def play(m: WorldModel, inputs: Any, action: tuple[float, ...], actions: str | None) -> Rollout:
    """Roll every episode out under the actions given.

    Raises:
        ConfigError: a model without actions, or neither or both kinds of actions.
        InputError: actions of another width or length.
    """
    wide = m.state.wide
    if not wide:
        raise ConfigError("this model knows no actions", where="play", found=m.state.origin,
                          cure="fit one on episodes with actions, such as --data CartPole-v1")  # fmt: skip
    if bool(action) == (actions is not None):
        raise ConfigError("needs actions", where="--action" if action else "--actions",
                          found="both" if action else "none",
                          expected="--action NUMBERS, or --actions FILE.csv")  # fmt: skip
    given = _constant(action, wide, m.horizon) if action else _file(m, str(actions), wide)
    return _rollout(m, inputs, given)


def _constant(action: tuple[float, ...], wide: int, horizon: int) -> NDArray[np.float32]:
    """One action at every step: its numbers, or the number of a kind."""
    if len(action) == 1 and wide > 1:
        kind = action[0]
        if kind != int(kind) or not 0 <= kind < wide:
            raise InputError("no such action", where="action", found=kind, expected=f"a number from 0 to {wide - 1}")
        return np.repeat(np.eye(wide, dtype=np.float32)[int(kind)][None], horizon, axis=0)
    if len(action) != wide:
        raise InputError("an action of another width", where="action", found=f"{len(action)} numbers",
                         expected=f"{wide}")  # fmt: skip
    return np.repeat(np.asarray(action, np.float32)[None], horizon, axis=0)


def _file(m: WorldModel, path: str, wide: int) -> NDArray[np.float32]:
    """The actions of a CSV file: a column for each number of an action, or one of their kinds."""
    from pipelines.data.formats.actions_csv import read_actions

    table = read_actions(Path(path))
    if len(table) != m.horizon:
        raise InputError("actions of another length", where=path, found=f"{len(table)} rows",
                         expected=f"{m.horizon}, one for each predicted frame",
                         cure=f"--horizon {len(table)}")  # fmt: skip
    values = [column.values for column in table.columns]
    if len(values) == 1 and wide > 1:
        return _one_hot(values[0], m.state.action_names, wide, path)
    names = [column.name for column in table.columns]
    if len(values) != wide or any(one.dtype.kind not in "biuf" for one in values):
        raise InputError("actions of another width", where=path, found=", ".join(names),
                         expected=f"{wide} columns of numbers, or one of kinds")  # fmt: skip
    if m.state.action_names and set(names) == set(m.state.action_names):
        values = [values[names.index(name)] for name in m.state.action_names]
    return np.stack(values, axis=1).astype(np.float32)


def _one_hot(values: NDArray[Any], names: tuple[str, ...], wide: int, path: str) -> NDArray[np.float32]:
    """Kinds, by name or by number, as rows of an identity."""
    known = names or tuple(map(str, range(wide)))
    found = [str(one) if isinstance(one, str) else f"{one:g}" for one in values.tolist()]
    places = {name: place for place, name in enumerate(known)} | {str(place): place for place in range(wide)}
    strange = [one for one in found if one not in places]
    if strange:
        raise InputError("no such action", where=path, found=strange[0], expected=", ".join(known))
    return np.eye(wide, dtype=np.float32)[[places[one] for one in found]]


def _rollout(m: WorldModel, inputs: Any, given: NDArray[np.float32] | None) -> Rollout:
    episodes, notes = episodes_of(m, inputs)
    check_fit(m, episodes)
    done: list[RolloutEpisode] = []
    failed: dict[str, str] = {}
    last: InputError | None = None
    progress = m.run.progress
    for episode in episodes if progress is None else progress.track(episodes, label="episodes rolled out"):
        try:
            done.append(_one(m, episode, given))
        except InputError as error:
            last, failed[episode.name] = error, str(error)
    if last is not None and not done:
        raise last
    name = episodes[0].name if len(episodes) == 1 else f"{len(episodes)} episodes"
    return Rollout(m.model, m.provenance(name), done, failed, told=tuple(notes), run=m.run)


def _one(m: WorldModel, episode: Episode, given: NDArray[np.float32] | None) -> RolloutEpisode:
    first, said = _first(m, episode, given)
    seen = episode.frames.read(first - m.context, first)
    known = min(m.horizon, len(episode) - first)
    truth = episode.frames.read(first, first + known) if known > 0 else None
    actions = _actions(m, episode, first, given)
    frames = engine.rolled(m.state, seen[None], None if actions is None else actions[None], m.horizon)[0]
    notes = [said]
    wide = m.state.wide
    if episode.actions is not None and not wide:
        notes.append("the model knows no actions: those of the episode are not used")
    if m.state.fps and episode.fps and abs(episode.fps - m.state.fps) > 0.01 * m.state.fps:
        notes.append(f"{episode.fps:g} Hz, while the model was trained at {m.state.fps:g} Hz (--read.fps)")
    return RolloutEpisode(
        episode.name, seen, np.ascontiguousarray(frames.transpose(0, 2, 3, 1)), truth if given is None else None,
        actions, episode.fps, first - m.context, episode.action_names if actions is not None else (), tuple(notes),
    )  # fmt: skip


def _first(m: WorldModel, episode: Episode, given: NDArray[np.float32] | None) -> tuple[int, str]:
    """The first frame that is predicted, and a sentence on it."""
    count = len(episode)
    if count < m.context:
        raise InputError("too few frames to see", where=episode.name, found=f"{count}", expected=f"{m.context} or more",
                         cure="--context 1" if count else "a film with frames")  # fmt: skip
    if m.start is not None:
        first = m.start
        if not m.context <= first <= count:
            raise InputError("no such frame to begin with", where=f"start, {episode.name}", found=first,
                             expected=f"{m.context} to {count}")  # fmt: skip
    elif given is not None or count < m.context + m.horizon:
        first = count
    else:
        first = count - m.horizon
    ahead = m.horizon - max(0, count - first)
    beyond = f", {ahead} of them after its end, of which no truth is known" if ahead else ""
    return first, f"frames {first} to {first + m.horizon - 1} of {count} are predicted{beyond}"


def _actions(
    m: WorldModel, episode: Episode, first: int, given: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """(context - 1 + horizon, A), those of the episode and then those given; None for a model without actions."""
    wide = m.state.wide
    if not wide:
        return None
    own = np.zeros((0, wide), np.float32) if episode.actions is None else episode.actions[: len(episode) - 1]
    if given is not None:
        before = own[first - m.context : first - 1]
        if len(before) < m.context - 1:
            raise InputError("actions between the frames seen are missing", where=episode.name, found=f"{len(before)}",
                             expected=f"{m.context - 1}", cure="--context 1, or a CSV of actions")  # fmt: skip
        return np.concatenate([before, given])
    used = own[first - m.context : first - 1 + m.horizon]
    if len(used) < m.context - 1 + m.horizon:
        raise InputError("the actions end before the prediction", where=episode.name, found=f"{len(used)} actions",
                         expected=f"{m.context - 1 + m.horizon}",
                         cure="a shorter --horizon, an earlier --start, or play")  # fmt: skip
    return used
