"""Planning in gymnasium environments: learn a model from random episodes, plan with it, and play beside chance."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.datasets.world_env import ActionSpace, EnvironmentEpisode, episode_seed, make_env, record
from pipelines.data.errors import InputError
from pipelines.errors import ConfigError
from pipelines.evaluation.bootstrap import block_bootstrap
from pipelines.world.planning_agent import PixelDynamics, Planner, PlanningModel, StateDynamics, discounted
from pipelines.world.planning_cem import CemOptions, Plan, cem, shifted
from pipelines.world.planning_outcome import PlanOutcome
from pipelines.world.planning_training import ModelErrors, learn_states

__all__ = [
    "CemOptions",
    "Learner",
    "ModelErrors",
    "PixelDynamics",
    "Plan",
    "PlanOutcome",
    "PlannedPolicy",
    "Planner",
    "PlanningModel",
    "StateDynamics",
    "cem",
    "discounted",
    "learn_states",
    "plan_environment",
    "shifted",
]

#: Makes a model from episodes, and measures it on others: (learned from, measured on, seed, steps of a plan).
Learner = Callable[
    [Sequence[EnvironmentEpisode], Sequence[EnvironmentEpisode], int, int], tuple[PlanningModel, ModelErrors | None]
]
#: Share of the recorded episodes that the model is measured on and does not learn from.
_KEPT = 0.1
#: Random episodes beside, at least.
_BESIDE = 100
#: Height of the film's frames at most, px.
_FILM = 200


class PlannedPolicy:
    """A planner as a policy of `record`: it begins anew with each episode, whose number seeds its searches.

    Example:
        >>> from pipelines.world.models.state_model import StateConfig, StateModel
        >>> planner = Planner(StateDynamics(StateModel(StateConfig(4, 2))), ActionSpace.of_choices(2), horizon=3)
        >>> played = record("CartPole-v1", episodes=1, steps=2, observation="state", policy=PlannedPolicy(planner))
        >>> len(played[0].actions)
        2
    """

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        #: Candidate plans whose return was not finite.
        self.failed = 0
        self._last: NDArray[np.float32] | None = None
        self._number = 0

    def begin(self, number: int) -> None:
        """An episode of that number begins."""
        self._last, self._number = None, number

    def __call__(self, seen: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
        """The action (A,) after what was seen."""
        if self._last is None:
            self.planner.reset(seen, self._number)
        else:
            self.planner.observe(self._last, seen)
        self._last = self.planner.act()
        self.failed += 0 if self.planner.plan is None else self.planner.plan.failed
        return self._last


def plan_environment(
    name: str,
    *,
    observation: Literal["state", "pixels"] = "state",
    episodes: int = 5,
    steps: int = 200,
    recorded: int | None = None,
    rounds: int | None = None,
    seed: int = 0,
    horizon: int | None = None,
    options: CemOptions | None = None,
    discount: float = 0.99,
    learn: Learner | None = None,
    view: Mapping[str, Any] | None = None,
    film: bool = True,
    say: Callable[[str], None] | None = None,
) -> PlanOutcome:
    """Learn a model of an environment from random episodes, then play with plans made in it.

    Args:
        name: of the environment.
        observation: what is learned from and planned on: the state vector, or frames.
        episodes: played with the plan.
        steps: at most so many an episode, at random and with the plan.
        recorded: random episodes to learn from, at least 2; None: 200 from states, 400 from pixels. A tenth is kept for
            measuring the model.
        rounds: of learning; None: 1 from states, 3 from pixels. After each but the last, ``episodes`` more episodes
            are played with the plan, from beginnings of their own, and learned from too.
        seed: of everything. No episode that counts was learned from.
        horizon: steps of a plan; None: 25 from states, 20 from pixels.
        options: of the search; None: the defaults.
        discount: of a reward one step later.
        learn: makes a model from episodes and measures it on others; None: `learn_states`, or from pixels
            `learn_frames`, small recurrent models. `learn_pixels` learns or takes a world model (FluidWorld, ...).
        view: size and colour of the frames (64 x 64, grey), repeat, and options of the environment, as `record` takes
            them.
        film: keep the frames of the first episode.
        say: hears of the progress, one line at a time.

    Raises:
        InputError: an environment that cannot be made (the cure is the pip line), or that tells no state.
        ConfigError: numbers out of range.

    Complexity: a planned step costs iterations x candidates plans of ``horizon`` steps of the model.

    Source: Chua et al. 2018 (PETS, arXiv 1805.12114, algorithm 1).

    Example:
        >>> from functools import partial
        >>> outcome = plan_environment("CartPole-v1", episodes=2, steps=3, recorded=4, rounds=1, horizon=2, film=False,
        ...     options=CemOptions(candidates=4, elites=2, iterations=1), learn=partial(learn_states, steps=5))
        >>> outcome.returns, outcome.to_dict()["random_episodes"]
        ((3.0, 3.0), 100)
    """
    pixels = observation == "pixels"
    recorded = (400 if pixels else 200) if recorded is None else recorded
    rounds = (3 if pixels else 1) if rounds is None else rounds
    _checked(episodes, steps, recorded, rounds, observation)
    if learn is None and pixels:
        from pipelines.world.planning_frames import learn_frames

        learn = learn_frames
    shown: dict[str, Any] = {"size": (64, 64), "colour": "grey"} if pixels else {}
    task = _Task(
        name, {"steps": steps, "observation": observation, **shown, **(view or {})}, say or (lambda text: None)
    )
    horizon = (20 if pixels else 25) if horizon is None else horizon
    options = CemOptions() if options is None else options
    space = task.space(seed)
    planner = Planner(_Nothing(), space, horizon, options, discount, seed)
    # Nothing may be learned from the beginnings that count, so that each part has seeds of its own.
    exploring, counting = episode_seed(seed, 0, 3), episode_seed(seed, 0, 4)
    known = task.play("record", recorded, seed)
    kept = max(1, round(_KEPT * recorded))
    learned, held, errors = known[:-kept], known[-kept:], []
    policy = PlannedPolicy(planner)
    for number in range(rounds):
        with task.clock("learn"):
            planner.model, found = (learn or learn_states)(learned, held, seed + number, horizon)
        errors += [] if found is None else [found]
        if found is None:
            task.notes.append("the model was not measured: no episode that was kept for it is long enough")
        if number < rounds - 1:
            learned = learned + task.play("explore", episodes, exploring, policy, first=number * episodes)
    policy.failed = 0
    played = task.play("play", 1, counting, policy, **(task.film(counting) if film else {}))
    if episodes > 1:
        played += task.play("play", episodes - 1, counting, policy, first=1)
    beside = task.play("random", max(_BESIDE, episodes), counting, draw=False)
    task.notes += [note for one in errors for note in one.notes]
    if policy.failed:
        task.notes.append(f"{policy.failed} candidate plans had no finite return and counted as the worst")
    settings = {"episodes": episodes, "recorded": recorded, "rounds": rounds, "seed": seed, "horizon": horizon}
    settings |= {"discount": discount, **dataclasses.asdict(options), **task.seen}
    return _outcome(task, played, beside, learned, tuple(errors), settings)


def _outcome(
    task: _Task,
    played: Sequence[EnvironmentEpisode],
    beside: Sequence[EnvironmentEpisode],
    learned: Sequence[EnvironmentEpisode],
    errors: tuple[ModelErrors, ...],
    settings: dict[str, Any],
) -> PlanOutcome:
    """All that came of it; how each episode ended stands in a field of its own and not in the notes."""
    first, returns, chance = played[0], _returns(played), _returns(beside)
    notes = [
        note for note in played[-1].notes if "by the environment after" not in note and "nothing was drawn" not in note
    ]
    return PlanOutcome(
        environment=task.name,
        observation=task.seen["observation"],
        returns=returns,
        steps=tuple(len(one) - 1 for one in played),
        ended=tuple(one.ended for one in played),
        interval=block_bootstrap(returns, 1, seed=settings["seed"]),
        random_returns=chance,
        random_interval=block_bootstrap(chance, 1, seed=settings["seed"]),
        errors=errors,
        frames=first.frames.read(0, len(first)) if first.shape[1] else None,
        actions=_known(first.actions),
        fps=first.fps,
        learned_from=sum(len(one) - 1 for one in learned),
        seconds=task.seconds,
        settings={key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
        notes=tuple(dict.fromkeys([*task.notes, *notes])),
    )


class _Task:
    """Playing in one environment in one way, timed by part."""

    def __init__(self, name: str, seen: dict[str, Any], tell: Callable[[str], None]) -> None:
        self.name, self.seen, self.tell = name, seen, tell
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    @contextlib.contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Count the time inside for that part."""
        begun = time.perf_counter()
        yield
        self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - begun, 3)

    def space(self, seed: int) -> ActionSpace:
        """The actions of the environment."""
        with make_env(self.name, seed, render=False, **(self.seen.get("options") or {})) as env:
            return env.actions

    def play(
        self, part: str, episodes: int, seed: int, policy: PlannedPolicy | Literal["random"] = "random", **more: Any
    ) -> list[EnvironmentEpisode]:
        """Episodes, at random or by plan."""
        with self.clock(part):
            asked = {**self.seen, "episodes": episodes, "seed": seed, "policy": policy, **more}
            played = record(self.name, **asked)
        mean, taken = np.mean(_returns(played)), sum(len(one) - 1 for one in played)
        self.tell(f"{self.name}, {part}: mean return {mean:.1f} of {episodes} episodes, {taken} steps")
        return played

    def film(self, seed: int) -> dict[str, Any]:
        """How the first episode is recorded so that it can be shown; nothing where it cannot be drawn."""
        if self.seen["observation"] == "pixels":
            return {}
        try:
            with make_env(self.name, seed, **(self.seen.get("options") or {})) as env:
                env.reset(0)
                height, width = env.frame().shape[:2]
        except InputError as error:
            self.notes.append(f"no film: {error}")
            return {}
        smaller = min(1.0, _FILM / height)
        # Films need even sides.
        size = tuple(max(2, 2 * round(side * smaller / 2)) for side in (height, width))
        return {"draw": True, "size": size, "colour": "rgb"}


class _Nothing:
    """The model of a planner that has learned nothing yet."""

    def begin(self, observation: NDArray[Any]) -> Any:
        raise InputError("nothing was learned yet", where="planner")

    def follow(self, belief: Any, action: NDArray[np.float32], observation: NDArray[Any]) -> Any:
        raise InputError("nothing was learned yet", where="planner")

    def imagine(self, belief: Any, plans: Any) -> Any:
        raise InputError("nothing was learned yet", where="planner")


def _checked(episodes: int, steps: int, recorded: int, rounds: int, observation: str) -> None:
    for where, value, least in (
        ("episodes", episodes, 1),
        ("steps", steps, 1),
        ("recorded", recorded, 2),
        ("rounds", rounds, 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError("out of range", where=where, found=value, expected=f"a whole number from {least}")
    if observation not in ("state", "pixels"):
        raise ConfigError("no such observation", where="observation", found=observation, expected="state or pixels")


def _returns(episodes: Sequence[EnvironmentEpisode]) -> tuple[float, ...]:
    return tuple(float(_known(one.rewards).sum(dtype=np.float64)) for one in episodes)


def _known(values: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Actions and rewards, which every recorded episode has."""
    return np.zeros(0, np.float32) if values is None else values
