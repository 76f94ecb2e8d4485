"""One gymnasium environment behind plain numbers: actions and states as vectors, pictures as frames, exact seeds."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.data.datasets.world_env_frames import as_picture
from pipelines.data.datasets.world_env_names import explained, headless, make_gymnasium
from pipelines.data.datasets.world_env_spaces import MOST_NUMBERS, ActionSpace, is_image, observation_names, vector_of
from pipelines.data.errors import InputError, UserError

__all__ = ["Environment", "Outcome", "episode_seed", "make_env"]


class Outcome(NamedTuple):
    """What an action led to: its reward, whether the task ended (terminated), whether time was up (truncated)."""

    reward: float
    terminated: bool
    truncated: bool

    @property
    def over(self) -> bool:
        """Whether the episode ends here."""
        return self.terminated or self.truncated


def episode_seed(seed: int, episode: int, part: int = 0) -> int:
    """The seed of an episode, below 2^31; `part` 0 is the environment's, 1 the policy's.

    Source: NumPy's SeedSequence, which keeps neighbouring seeds apart.

    Example:
        >>> episode_seed(0, 1) == episode_seed(0, 1), episode_seed(0, 1) == episode_seed(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence((seed, episode, part)).generate_state(1)[0] >> np.uint32(1))


def make_env(name: str, seed: int = 0, *, render: bool = True, **options: Any) -> Environment:
    """Make a gymnasium environment by its name, headless.

    Args:
        name: such as `CartPole-v1`, or `my_module:Name-v0` for a module that registers its own.
        seed: of its episodes, at least 0: the k-th `reset` is the same for the same seed.
        render: whether `frame` is wanted; without, nothing is drawn.
        options: further arguments of the environment, such as `gravity`.

    Raises:
        InputError: gymnasium or what the environment needs is not installed (the cure is the pip line), an unknown
            name (the nearest are named), actions that are no choice and no numbers, or arguments that it refuses.

    Complexity: O(1).

    Example:
        >>> with make_env("CartPole-v1", seed=3, render=False) as env:
        ...     env.reset()
        ...     env.actions.size, env.state_names[2], env.step([0, 1]).reward
        (2, 'angle', 1.0)
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InputError("not a seed", where="seed", found=seed, expected="a whole number of at least 0")
    made, notes = make_gymnasium(name, render=render, options=options)
    try:
        return Environment(made, name, seed, notes)
    except UserError:
        made.close()
        raise


class Environment:
    """A gymnasium environment whose actions and states are vectors; made by `make_env`, to be closed or used `with`.

    Attributes:
        name: what it was made by.
        actions: its space of actions.
        state_names: of the S numbers of `state`; empty where the environment tells none.
        fps: steps a second by its own account, or None.
        limit: the steps after which the environment itself ends an episode, or None.
        notes: what gymnasium said when it was made.

    Example:
        >>> with make_env("CartPole-v1", render=False) as env:
        ...     env.reset()
        ...     env.state().shape
        (4,)
    """

    def __init__(self, made: Any, name: str, seed: int, notes: tuple[str, ...] = ()) -> None:
        self._env, self._seed, self._episode, self.name, self.notes = made, seed, -1, name, notes
        self.actions = ActionSpace.of_gymnasium(made.action_space, name)
        space = made.observation_space
        self._image, self._names = is_image(space), observation_names(space, name)
        self._scaled = self._image and space.dtype != np.uint8
        self._vector: NDArray[np.float32] | None = None
        self._seen: Any = None
        rate = made.metadata.get("render_fps")
        self.fps = float(rate) if isinstance(rate, (int, float)) and rate > 0 else None
        limit = getattr(made.spec, "max_episode_steps", None)
        self.limit = int(limit) if limit else None

    @property
    def shows(self) -> bool:
        """Whether `frame` has something to show: observations that are pictures, or a picture that is drawn."""
        return self._image or self._env.render_mode == "rgb_array"

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the numbers of `state`; after the first `reset` also where they do not come as observations."""
        return self._names

    def reset(self, episode: int | None = None) -> None:
        """Begin an episode: the next one, or the one of that number; its seed is made of both.

        Raises:
            InputError: the environment fails, or its observation is not finite.
        """
        self._episode = self._episode + 1 if episode is None else episode
        with self._running("reset"):
            seen, _ = self._env.reset(seed=episode_seed(self._seed, self._episode))
        self._take(seen)

    def step(self, action: ArrayLike) -> Outcome:
        """Take one action, a vector (A,).

        Raises:
            InputError: not such a vector, the environment fails, or what it answers is not finite.
        """
        given = self.actions.to_env(action)
        with self._running("step"):
            seen, reward, terminated, truncated, _ = self._env.step(given)
            outcome = Outcome(float(reward), bool(terminated), bool(truncated))
        if not np.isfinite(outcome.reward):
            raise InputError("a reward that is not finite", where=self.name, found=outcome.reward)
        self._take(seen)
        return outcome

    def state(self) -> NDArray[np.float32] | None:
        """What is true of the scene now, (S,): the observation, or of pictures the inner state, or None."""
        return None if self._vector is None else self._vector.copy()

    def frame(self) -> NDArray[np.uint8]:
        """What is to be seen now, (H, W, 1 or 3): the observation where it is a picture, else the drawn scene.

        Raises:
            InputError: an environment that shows nothing, or that fails to draw.
        """
        if self._image:
            return as_picture(self._seen, self.name, self._scaled)
        if not self.shows:
            cure = "observation=state, or an environment that draws"
            raise InputError("the environment draws no pictures", where=self.name, expected="rgb_array", cure=cure)
        with self._running("render"):
            drawn = self._env.render()
        return as_picture(drawn, self.name)

    def close(self) -> None:
        """Let go of what the environment holds."""
        with contextlib.suppress(Exception):
            self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, seen: Any) -> None:
        self._seen = seen
        self._vector = vector_of(self._env.observation_space, seen) if self._names and not self._image else None
        if self._vector is None:
            self._vector = _inner_state(self._env.unwrapped)
            if self._vector is not None and len(self._names) != len(self._vector):
                self._names = tuple(f"state {i}" for i in range(len(self._vector)))
        if self._vector is not None and not np.isfinite(self._vector).all():
            raise InputError("an observation that is not finite", where=self.name, found=self._vector.tolist())

    @contextlib.contextmanager
    def _running(self, doing: str) -> Iterator[None]:
        """The environment's own code: headless, its warnings unheard, its failures explained."""
        try:
            with headless(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except UserError:
            raise
        except ImportError as error:
            raise explained(error, self.name) from error
        except Exception as error:
            if type(error).__name__ == "DependencyNotInstalled":
                raise explained(error, self.name) from error
            found = f"{type(error).__name__}: {error}"
            raise InputError(f"the environment fails to {doing}", where=self.name, found=found) from error


def _inner_state(inner: Any) -> NDArray[np.float32] | None:
    """The state of the scene that an environment keeps for itself: `state`, or positions and velocities of MuJoCo."""
    held = getattr(inner, "state", None)
    if held is None and hasattr(getattr(inner, "data", None), "qpos"):
        held = np.concatenate([np.ravel(inner.data.qpos), np.ravel(inner.data.qvel)])
    if not isinstance(held, (np.ndarray, tuple, list)):
        return None
    try:
        values = np.asarray(held, np.float32).reshape(-1)
    except (TypeError, ValueError):
        return None
    return values if 0 < values.size <= MOST_NUMBERS else None
