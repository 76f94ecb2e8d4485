"""Episodes of gymnasium environments: recorded headless, by exact seeds, frames with actions, states and rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.datasets.world_env_frames import COLOURS, Colour, frame_of
from pipelines.data.datasets.world_env_names import INSTALL, environments, headless, is_environment
from pipelines.data.datasets.world_env_scene import Environment, Outcome, episode_seed, make_env
from pipelines.data.datasets.world_env_spaces import ActionSpace
from pipelines.data.datasets.world_types import ArrayFrames, Episode
from pipelines.data.errors import InputError

__all__ = [
    "INSTALL",
    "ActionSpace",
    "Environment",
    "EnvironmentEpisode",
    "Observation",
    "Outcome",
    "Policy",
    "environments",
    "episode_seed",
    "headless",
    "is_environment",
    "make_env",
    "record",
]

Observation = Literal["pixels", "state"]
#: Chooses an action, as a vector (A,) or of the environment's own kind, from what is observed (a frame (h, w, C) uint8
#: or a state (S,) float32) and a generator of its own.
Policy = Callable[[NDArray[Any], np.random.Generator], Any]
#: What one recording may hold, bytes.
MOST_BYTES = 4 * 2**30


@dataclass(frozen=True, eq=False)
class EnvironmentEpisode(Episode):
    """An episode of an environment, and how it ended.

    Example:
        >>> frames = ArrayFrames(np.zeros((2, 4, 4, 1), np.uint8))
        >>> EnvironmentEpisode("e", frames, None, ended="terminated").ended
        'terminated'
    """

    ended: Literal["terminated", "truncated", "stopped"] = "stopped"
    """By the task (terminated), by the environment's own limit of steps (truncated), or by `steps` (stopped)."""


def record(
    name: str,
    *,
    episodes: int = 10,
    steps: int = 200,
    seed: int = 0,
    size: tuple[int, int] | None = (64, 64),
    colour: Colour = "rgb",
    observation: Observation = "pixels",
    policy: Policy | Literal["random"] = "random",
    repeat: int = 1,
    draw: bool | None = None,
    first: int = 0,
    options: dict[str, Any] | None = None,
) -> list[EnvironmentEpisode]:
    """Play episodes of an environment and keep what is seen, done, true and earned.

    Args:
        name: of the environment, as `make_env` takes it.
        episodes: how many, at least 1.
        steps: at most so many actions an episode; an episode of n actions has n + 1 frames. Shorter ones are kept.
        seed: the same seed gives the same episodes; the first ones stay the same when more are asked for.
        size: height and width of the frames, px, averaged by area; None keeps the environment's.
        colour: rgb or grey (luma of ITU-R BT.601).
        observation: what the policy sees: pixels, or the state, which the environment must then tell.
        policy: random, or a function of the observation and a generator; one with a method `begin(number)` is told
            of each new episode.
        repeat: each action is taken so many times in a row, the rewards are summed; the frame rate falls accordingly.
        draw: whether frames are kept; None keeps them for pixels only. Without, frames are empty (T, 0, 0, C).
        first: number of the first episode: `first=2` goes on after the two episodes 0 and 1.
        options: further arguments of the environment.

    Returns:
        Episodes with actions (T - 1, A): one-hot for choices, scaled to [-1, 1] between bounds; states (T, S) where
        the environment tells them; rewards (T - 1,); `ended`; and notes.

    Raises:
        InputError: an environment that cannot be made (with the cure), arguments out of range, an environment that
            fails or answers what is not finite, more than 4 GiB of frames.

    Complexity: O(episodes steps) steps of the environment, O(H W) each for a frame.

    Example:
        >>> one, two = record("CartPole-v1", episodes=2, steps=50, observation="state", seed=1)
        >>> one.states.shape[1], one.actions.shape[1], len(one) == len(one.rewards) + 1, one.ended
        (4, 2, True, 'terminated')
    """
    _checked(episodes, steps, repeat, first, size, colour, observation, policy)
    pixels = observation == "pixels"
    drawn = pixels if draw is None else draw
    if pixels and not drawn and policy != "random":
        raise InputError("pixels cannot be seen without drawing", where="draw", found=draw, cure="observation=state")
    with make_env(name, seed, render=drawn, **(options or {})) as env:
        if drawn and not env.shows:
            cure = "observation=state, or an environment that draws"
            raise InputError("the environment draws no pictures", where=name, expected="rgb_array", cure=cure)
        asked = _Asked(episodes, steps, size, colour, pixels, drawn, policy, repeat)
        return [_play(env, number, seed, asked) for number in range(first, first + episodes)]


@dataclass(frozen=True)
class _Asked:
    """What was asked for, checked."""

    episodes: int
    steps: int
    size: tuple[int, int] | None
    colour: Colour
    pixels: bool
    drawn: bool
    policy: Policy | str
    repeat: int


def _checked(
    episodes: int,
    steps: int,
    repeat: int,
    first: int,
    size: object,
    colour: object,
    observation: object,
    policy: object,
) -> None:
    ranges = {"episodes": (episodes, 1, 10**6), "steps": (steps, 1, 10**7), "repeat": (repeat, 1, 1000)}
    for where, (value, least, most) in (ranges | {"first": (first, 0, 2**62)}).items():
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InputError("out of range", where=where, found=value, expected=f"a whole number, {least} to {most}")
    if size is not None:
        sides = size if isinstance(size, (tuple, list)) else ()
        if len(sides) != 2 or not all(type(side) is int and 1 <= side <= 4096 for side in sides):
            raise InputError(
                "not a size of frames", where="size", found=size, expected="height and width, 1 to 4096 px"
            )
    if colour not in COLOURS:
        raise InputError("no such colour", where="colour", found=colour, expected=" or ".join(COLOURS))
    if observation not in ("pixels", "state"):
        raise InputError("no such observation", where="observation", found=observation, expected="pixels or state")
    if policy != "random" and not callable(policy):
        raise InputError("no such policy", where="policy", found=policy, expected="random or a function")


def _play(env: Environment, number: int, seed: int, asked: _Asked) -> EnvironmentEpisode:
    """One episode."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, number, 1)))
    env.reset(number)
    if not isinstance(asked.policy, str) and hasattr(asked.policy, "begin"):
        asked.policy.begin(number)  # type: ignore[attr-defined]
    picture = env.frame() if asked.drawn else np.zeros((0, 0, COLOURS[asked.colour]), np.uint8)
    native = picture.shape
    frames, states, actions, rewards = [_shrunk(picture, asked)], [env.state()], [], []
    _affordable(env, frames[0], asked)
    if states[0] is None and not asked.pixels:
        cure = "observation=pixels"
        raise InputError("the environment tells no state", where=env.name, expected="numbers", cure=cure)
    ended: Literal["terminated", "truncated", "stopped"] = "stopped"
    for _ in range(asked.steps):
        action = _chosen(env, asked, frames[-1] if asked.pixels else states[-1], rng)
        reward, outcome = 0.0, Outcome(0.0, False, False)
        for _ in range(asked.repeat):
            outcome = env.step(action)
            reward += outcome.reward
            if outcome.over:
                break
        actions.append(action)
        rewards.append(reward)
        states.append(env.state())
        frames.append(_seen(env, asked, native) if asked.drawn else frames[0])
        if outcome.over:
            ended = "terminated" if outcome.terminated else "truncated"
            break
    known = [state for state in states if state is not None]
    whole = len(known) == len(states)
    return EnvironmentEpisode(
        name=f"{env.name} episode {number}",
        frames=ArrayFrames(np.stack(frames)),
        fps=None if env.fps is None else env.fps / asked.repeat,
        actions=np.stack(actions),
        states=np.stack(known) if whole else None,
        rewards=np.array(rewards, np.float32),
        action_names=env.actions.names,
        state_names=env.state_names if whole else (),
        notes=_notes(env, asked, native, len(actions), ended),
        ended=ended,
    )


def _affordable(env: Environment, frame: NDArray[np.uint8], asked: _Asked) -> None:
    """Refuse what would not fit before it is recorded; an environment's own limit of steps is known beforehand."""
    longest = min(asked.steps, -(-(env.limit or asked.steps) // asked.repeat)) + 1
    count = asked.episodes * longest * max(frame.nbytes, 1)
    if count > MOST_BYTES:
        expected, cure = f"at most {MOST_BYTES / 2**30:.0f} GiB", "fewer episodes or steps, a smaller size, or grey"
        found = f"up to {count / 2**30:.1f} GiB of frames"
        raise InputError("a recording that is too large", where=env.name, found=found, expected=expected, cure=cure)


def _shrunk(picture: NDArray[np.uint8], asked: _Asked) -> NDArray[np.uint8]:
    return frame_of(picture, asked.size, asked.colour) if asked.drawn else picture


def _seen(env: Environment, asked: _Asked, native: tuple[int, ...]) -> NDArray[np.uint8]:
    picture = env.frame()
    if picture.shape != native:
        raise InputError("pictures that change their size", where=env.name, found=picture.shape, expected=native)
    return _shrunk(picture, asked)


def _chosen(env: Environment, asked: _Asked, seen: Any, rng: np.random.Generator) -> NDArray[np.float32]:
    """The vector (A,) of the policy's action."""
    if isinstance(asked.policy, str):
        return env.actions.sample(rng)
    given: ArrayLike = asked.policy(seen, rng)
    values = np.asarray(given)
    # A choice of one value may look like a vector of length 1; the vector of a choice has as many numbers as values.
    if values.shape == (env.actions.size,) and values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError("an action that is not finite", where="policy", found=values.tolist())
        return values.astype(np.float32)
    return env.actions.vector(given)


def _notes(env: Environment, asked: _Asked, native: tuple[int, ...], taken: int, ended: str) -> tuple[str, ...]:
    notes = [*env.notes, env.actions.describe()]
    if asked.drawn and asked.size is not None and tuple(asked.size) != native[:2]:
        (high, wide), (h, w) = native[:2], asked.size
        shape = "" if high * w == wide * h else ", which changes their proportions"
        notes.append(f"pictures of {high} x {wide} px were averaged by area to {h} x {w} px{shape}")
    if asked.drawn and COLOURS[asked.colour] != native[2]:
        notes.append(f"pictures of {native[2]} channels became {asked.colour}")
    if not asked.drawn:
        notes.append("nothing was drawn: the frames are empty")
    if asked.repeat > 1:
        notes.append(f"each action was taken {asked.repeat} times, rewards summed")
    if ended != "stopped" and taken < asked.steps:
        notes.append(f"{ended} by the environment after {taken} of at most {asked.steps} actions; kept")
    return tuple(notes)
