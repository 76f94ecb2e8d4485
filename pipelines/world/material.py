"""Whatever a user calls a world: episodes of one size, what of them is learned from, and windows for training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.datasets.world_env import is_environment, record
from pipelines.data.datasets.world_open import open_episodes
from pipelines.data.datasets.world_types import Episode
from pipelines.data.datasets.world_windows import cut_episode, is_still, split_episodes
from pipelines.errors import InputError
from pipelines.training.randomness import derive_seed

if TYPE_CHECKING:
    from pipelines.world.pipeline import WorldModel

__all__ = ["Parts", "action_width", "check_fit", "episodes_of", "fresh_parts", "identity", "parts_of"]

_MANY = 5  # episodes from which whole ones are held out


@dataclasses.dataclass(frozen=True)
class Parts:
    """Episodes that are learned from, that choose the epoch, that are measured; and what to say of them.

    Attributes:
        train, valid, test: episodes, or the parts of their time.
        seen: identity of each whole episode, and the first of its frames that nothing was learned from.
        notes: what was cut.
    """

    train: list[Episode]
    valid: list[Episode]
    test: list[Episode]
    seen: list[tuple[int, int]]
    notes: tuple[str, ...]


def identity(episode: Episode) -> int:
    """A number for an episode, whatever its name: of its size, and of its first, middle and last frame.

    Example:
        >>> from pipelines.data.datasets.world_types import ArrayFrames
        >>> import numpy as np
        >>> frames = np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1)
        >>> identity(Episode("a", ArrayFrames(frames), None)) == identity(Episode("b", ArrayFrames(frames), 5.0))
        True
    """
    total = hashlib.sha256(repr(episode.shape).encode())
    for place in sorted({0, len(episode) // 2, len(episode) - 1}):
        total.update(episode.frames.read(place, place + 1).tobytes())
    return int.from_bytes(total.digest()[:8], "little", signed=True)


def episodes_of(m: WorldModel, data: Any) -> tuple[list[Episode], list[str]]:
    """Episodes of one size and one number of channels, and what was done to them.

    Raises:
        InputError: nothing that is a world, or episodes that do not go together.
    """
    found = _opened(m, data)
    if not found:
        raise InputError("no episode", where="data", found=data, expected="a film, arrays of frames, an environment")
    shapes = sorted({episode.shape[1:] for episode in found})
    if len(shapes) > 1:
        raise InputError("episodes of several sizes", where="data", found=shapes, cure="--read.size and --read.colour")
    notes = list(dict.fromkeys(note for episode in found for note in episode.notes))
    more = len(notes) - 12
    notes = notes[:12] + ([f"and {more:,} more notes alike"] if more > 0 else [])
    still = [episode.name for episode in found[:50] if is_still(episode)]
    if still:
        notes.append(f"nothing moves in {', '.join(still[:3])}" + (f" and {len(still) - 3} more" if still[3:] else ""))
    return found, notes


def _opened(m: WorldModel, data: Any) -> list[Episode]:
    from pipelines.data.catalog import entry, is_name, sample_path

    one = data[0] if isinstance(data, (list, tuple)) and len(data) == 1 else data
    if isinstance(one, str) and not Path(one).exists():
        if is_name(one, "world"):
            return open_episodes(sample_path(entry(one, "world")), m.read)
        if is_environment(one):
            e = m.environment
            size = m.read.size or (64, 64)
            colour = "grey" if m.read.colour == "grey" else "rgb"
            return list(
                record(one, episodes=e.episodes, steps=e.steps, seed=m.seed, size=size, colour=colour, policy=e.policy)
            )
    return open_episodes(one, m.read)


def parts_of(m: WorldModel, episodes: Sequence[Episode]) -> Parts:
    """Which frames are learned from, which choose the epoch, which are measured.

    Raises:
        InputError: an episode that is too short to be divided.
    """
    split = m.split
    by: Any = split.by
    if by == "auto":
        by = "episode" if len(episodes) >= _MANY else "time"
    notes = list[str]()
    rest, test = list(episodes), list[Episode]()
    if split.share > 0:
        held = split_episodes(episodes, split.share, seed=m.seed, by=by)
        rest, test = held.train, held.test
        notes += held.notes
    train, valid = rest, list[Episode]()
    if split.valid > 0:
        held = split_episodes(rest, split.valid, seed=derive_seed(m.seed, 1), by=by)
        train, valid = held.train, held.test
        notes += [f"to choose the epoch: {note}" for note in held.notes]
    if by == "time":
        seen = [(identity(whole), len(part)) for whole, part in zip(episodes, rest, strict=True)]
    else:
        seen = [(identity(episode), len(episode)) for episode in rest]
    return Parts(train, valid, test, seen, tuple(notes))


def fresh_parts(episodes: Sequence[Episode], seen: dict[int, int]) -> tuple[list[Episode], list[str]]:
    """What of episodes a model has not learned from, and how much was left out.

    Args:
        episodes: whole ones.
        seen: identity -> the first frame that nothing was learned from.
    """
    fresh, notes, whole = list[Episode](), list[str](), 0
    for episode in episodes:
        border = seen.get(identity(episode), 0)
        if border >= len(episode):
            whole += 1
        elif border:
            fresh.append(cut_episode(episode, border, len(episode)))
            notes.append(f"{episode.name}: frames 0 to {border - 1} were learned from; measured from frame {border} on")
        else:
            fresh.append(episode)
    if whole:
        notes.append(f"{whole:,} of {len(episodes):,} episodes were learned from: not measured")
    return fresh, notes


def action_width(episodes: Sequence[Episode]) -> int:
    """Numbers of an action that all episodes have; 0 where there are none.

    Raises:
        InputError: some episodes have actions of another width, or none.
    """
    widths = {0 if episode.actions is None else episode.actions.shape[1] for episode in episodes}
    if len(widths) > 1:
        raise InputError("episodes with different actions", where="data", found=f"{sorted(widths)} numbers an action",
                         expected="one width", cure="give a CSV of actions for each episode, or for none")  # fmt: skip
    return widths.pop() if widths else 0


def check_fit(m: WorldModel, episodes: Sequence[Episode]) -> None:
    """Refuse frames or actions that the fitted model does not take.

    Raises:
        InputError: another size, number of channels, or number of actions.
    """
    c = m.state.module.config
    height, width, channels = episodes[0].shape[1:]
    if channels != c.channels or (height, width) != (c.height, c.width):
        colour = "grey" if c.channels == 1 else "rgb"
        raise InputError(
            "not the frames that the model was made for", where=episodes[0].name,
            found=f"{height} x {width} px, {channels} channels", expected=f"{c.height} x {c.width}, {c.channels}",
            cure=f"--read.size [{c.height},{c.width}] --read.colour {colour}",
        )  # fmt: skip
    wide = action_width(episodes)
    if m.state.wide and wide != m.state.wide:  # a model without actions ignores them, which is said
        raise InputError("not the actions that the model was made for", where=episodes[0].name,
                         found=f"{wide} numbers" if wide else "no actions", expected=f"{m.state.wide} numbers",
                         cure="--actions FILE.csv, or a CSV beside the film")  # fmt: skip
