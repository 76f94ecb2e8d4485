"""Episodes of gymnasium environments: exact seeds, frames, vectors of actions and states, and what cannot be made."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipelines.data.datasets.world_env import (
    ActionSpace,
    episode_seed,
    headless,
    is_environment,
    make_env,
    record,
)
from pipelines.data.datasets.world_env_frames import area_average, as_picture, frame_of
from pipelines.data.errors import InputError

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces


class Toy(gymnasium.Env):
    """A counter from 0 that shows itself; what is odd about it is chosen by arguments."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, odd: str = "", ends: int = 5) -> None:
        self.render_mode, self.odd, self.ends, self.count = render_mode, odd, ends, 0
        self.action_space = spaces.Dict({}) if odd == "dict actions" else spaces.Discrete(3, start=4)
        if odd == "picture":
            self.observation_space = spaces.Box(0, 255, (12, 10, 3), np.uint8)
        elif odd == "channels first":
            self.observation_space = spaces.Box(0.0, 1.0, (1, 12, 10), np.float32)
        else:
            self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def _seen(self) -> Any:
        if self.odd == "picture":
            return np.full((12, 10, 3), 10 * self.count, np.uint8)
        if self.odd == "channels first":
            return np.full((1, 12, 10), self.count / 10, np.float32)
        return np.array([self.count, np.nan if self.odd == "nan state" and self.count == 2 else 1.0])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.last = action
        if self.odd == "fails":
            raise RuntimeError("the wheel came off")
        reward = math.nan if self.odd == "nan reward" else float(action)
        return self._seen(), reward, self.count == self.ends, False, {}

    def render(self) -> Any:
        if self.odd == "no picture":
            return "nothing"
        side = 9 if self.odd == "grows" and self.count else 8
        return np.full((side, 8, 3), self.count, np.uint8)


class Blind(Toy):
    """An environment that cannot draw."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, odd: str = "", ends: int = 5) -> None:
        super().__init__(None, odd, ends)


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    gymnasium.register("Toy-v3", entry_point=Toy)
    gymnasium.register("Blind-v0", entry_point=Blind)
    gymnasium.register("Short-v0", entry_point=Toy, max_episode_steps=3)
    yield
    for name in ("Toy-v3", "Blind-v0", "Short-v0"):
        gymnasium.registry.pop(name)


def known(values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return values


def blocks(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Area averages by whole pixels: every pixel repeated h x w times, then means of H x W blocks."""
    (height, width), (h, w) = picture.shape[:2], size
    large = np.repeat(np.repeat(picture.astype(np.float64), h, 0), w, 1)
    return large.reshape(h, height, w, width, -1).mean((1, 3))


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (7, 9), (1, 1), (20, 4), (11, 13)])
def test_each_pixel_is_the_mean_of_its_area(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    assert np.allclose(area_average(picture, size), blocks(picture, size), atol=1e-9)
    assert np.isclose(area_average(picture, size).mean(), picture.mean())


def test_grey_is_the_luma_and_is_rounded_once() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = 255, 100, 7
    assert frame_of(picture, (1, 1), "grey").item() == round(0.299 * 255 + 0.587 * 100 + 0.114 * 7)
    assert frame_of(np.array([[[1], [2]]], np.uint8), (1, 1), "rgb").tolist() == [[[2, 2, 2]]]


@pytest.mark.parametrize(
    "bad", [np.zeros((5, 4, 7), np.uint8), np.zeros(4), np.full((4, 4, 3), np.nan), np.zeros((0, 4, 3))]
)
def test_what_is_no_picture_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="picture"):
        as_picture(bad, "Toy")


def test_an_episode_is_what_gymnasium_itself_plays() -> None:
    ours = record("CartPole-v1", episodes=3, steps=30, seed=5, observation="state")
    raw = gymnasium.make("CartPole-v1")
    for number, episode in enumerate(ours):
        states = [raw.reset(seed=episode_seed(5, number))[0]]
        assert episode.actions is not None
        assert episode.states is not None
        assert episode.rewards is not None
        for action in episode.actions.argmax(1):
            states.append(raw.step(int(action))[0])
        assert np.array_equal(episode.states, np.array(states, np.float32))
        assert episode.rewards.tolist() == [1.0] * len(episode.actions)
        assert set(episode.actions.ravel().tolist()) <= {0.0, 1.0}
        assert (episode.actions.sum(1) == 1).all()
        limits = np.abs(episode.states[-1, [0, 2]]) > [2.4, math.radians(12)]
        assert (episode.ended == "terminated") == limits.any()


def test_seeds_are_exact_and_more_episodes_change_none() -> None:
    few = record("Pendulum-v1", episodes=1, steps=6, seed=2, size=(16, 16))
    many = record("Pendulum-v1", episodes=2, steps=6, seed=2, size=(16, 16))
    later = record("Pendulum-v1", episodes=1, steps=6, seed=2, size=(16, 16), first=1)
    other = record("Pendulum-v1", episodes=1, steps=6, seed=3, size=(16, 16))
    for one, two in ((few[0], many[0]), (later[0], many[1])):
        assert np.array_equal(one.frames.read(0, 7), two.frames.read(0, 7))
        assert np.array_equal(known(one.actions), known(two.actions))
        assert np.array_equal(known(one.states), known(two.states))
    assert not np.array_equal(known(many[0].actions), known(many[1].actions))
    assert not np.array_equal(known(few[0].states), known(other[0].states))


def test_frames_are_the_drawn_scene_averaged() -> None:
    episode = record("CartPole-v1", episodes=1, steps=4, seed=1, size=(40, 60))[0]
    raw = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    raw.reset(seed=episode_seed(1, 0))
    assert episode.actions is not None
    drawn = [raw.render()]
    for action in episode.actions.argmax(1):
        raw.step(int(action))
        drawn.append(raw.render())
    wanted = np.floor(np.stack(drawn).reshape(5, 40, 10, 60, 10, 3).mean((2, 4)) + 0.5)
    assert np.abs(episode.frames.read(0, 5).astype(int) - wanted).max() == 0
    assert episode.fps == 50.0
    assert any("400 x 600 px were averaged by area to 40 x 60 px" in note for note in episode.notes)


def test_continuous_actions_are_scaled_from_their_bounds() -> None:
    episode = record(
        "Pendulum-v1", episodes=1, steps=20, observation="state", policy=lambda seen, rng: [np.float32(0.5)]
    )[0]
    assert episode.actions is not None
    assert (episode.actions == 0.5).all()
    raw = gymnasium.make("Pendulum-v1")
    raw.reset(seed=episode_seed(0, 0))
    raw_steps = [raw.step(np.array([1.0], np.float32)) for _ in range(20)]  # half of the bound of 2
    assert episode.states is not None
    assert episode.rewards is not None
    assert np.allclose(episode.states[1:], [step[0] for step in raw_steps])
    assert np.allclose(episode.rewards, [step[1] for step in raw_steps])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=-1),
        spaces.MultiDiscrete([2, 3, 4]),
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
        spaces.MultiBinary(3),
        spaces.MultiBinary((2, 2)),
        spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 8.0], np.float32)),
        spaces.Box(-1.0, 3.0, (2, 2), np.float32),
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
    ],
)
def test_actions_become_vectors_and_back(space: Any) -> None:
    ours = ActionSpace.of_gymnasium(space, "Toy-v3")
    assert ours.size == gymnasium.spaces.flatdim(space) * (2 if isinstance(space, spaces.MultiBinary) else 1)
    space.seed(0)
    for _ in range(20):
        action = space.sample()
        back = ours.to_env(ours.vector(action))
        assert space.contains(back) or isinstance(space, spaces.Discrete)
        assert np.allclose(back, action, atol=1e-5)
    drawn = ours.sample(np.random.default_rng(0), (50,))
    assert drawn.shape == (50, ours.size)
    assert all(np.allclose(ours.vector(ours.to_env(one)), one, atol=1e-5) for one in drawn)
    assert len(np.unique(drawn, axis=0)) > 2


@pytest.mark.parametrize("bad", [[1.0], [np.nan, 0.0], "left", [[0.0, 1.0]]])
def test_a_vector_of_another_kind_is_refused(bad: Any) -> None:
    with pytest.raises((InputError, ValueError)):
        ActionSpace.of_choices(2).to_env(bad)


def test_a_policy_sees_what_was_asked_and_may_answer_plainly() -> None:
    seen: list[Any] = []
    begun: list[int] = []

    class Always:
        def begin(self, number: int) -> None:
            begun.append(number)

        def __call__(self, observed: Any, rng: np.random.Generator) -> int:
            seen.append(observed)
            return 5

    episode = record("Toy-v3", episodes=2, policy=Always(), size=(4, 4), colour="grey")[0]
    assert episode.actions is not None
    assert episode.rewards is not None
    assert episode.actions.tolist() == [[0.0, 1.0, 0.0]] * 5
    assert episode.rewards.tolist() == [5.0] * 5  # the choices begin at 4
    assert (seen[3].shape, seen[3].max(), begun) == ((4, 4, 1), 3, [0, 1])
    record("Toy-v3", episodes=1, policy=lambda observed, rng: seen.append(observed) or 4, observation="state")
    assert seen[-1].tolist() == [4.0, 1.0]
    for answer in (7, [np.nan] * 3, "left", None, [0.0, 1.0]):
        with pytest.raises(InputError, match=r"action|choice"):
            record("Toy-v3", episodes=1, policy=lambda observed, rng, answer=answer: answer)


def test_how_an_episode_ended_is_kept_and_said() -> None:
    done = record("Toy-v3", episodes=1, steps=20)[0]
    assert (done.ended, len(done)) == ("terminated", 6)
    assert any("terminated by the environment after 5 of at most 20 actions" in note for note in done.notes)
    assert record("Toy-v3", episodes=1, steps=3)[0].ended == "stopped"
    assert record("Toy-v3", episodes=1, steps=5)[0].ended == "terminated"
    assert record("Short-v0", episodes=1)[0].ended == "truncated"


def test_an_action_may_be_repeated() -> None:
    episode = record("Toy-v3", episodes=1, repeat=2, observation="state", policy=lambda seen, rng: 4)[0]
    assert episode.rewards is not None
    assert episode.states is not None
    assert episode.rewards.tolist() == [8.0, 8.0, 4.0]
    assert episode.states[:, 0].tolist() == [0.0, 2.0, 4.0, 5.0]
    assert episode.fps == 5.0


@pytest.mark.parametrize(("odd", "last"), [("picture", 50), ("channels first", 128)])
def test_an_observation_that_is_a_picture_is_the_frame(odd: str, last: int) -> None:
    episode = record("Blind-v0", episodes=1, options={"odd": odd}, size=None, colour="rgb")[0]
    assert episode.shape == (6, 12, 10, 3)
    assert (episode.frames.read(5, 6) == last).all()
    assert episode.states is None


def test_states_without_drawing_and_drawing_beside_states() -> None:
    plain = record("Blind-v0", episodes=1, observation="state")[0]
    assert (plain.shape, plain.state_names) == ((6, 0, 0, 3), ("observation 0", "observation 1"))
    assert "nothing was drawn: the frames are empty" in plain.notes
    both = record("Toy-v3", episodes=1, observation="state", draw=True, size=(4, 4))[0]
    assert both.shape == (6, 4, 4, 3)


@pytest.mark.parametrize(
    ("name", "odd", "words"),
    [
        ("Toy-v3", "nan state", "observation that is not finite"),
        ("Toy-v3", "nan reward", "reward that is not finite"),
        ("Toy-v3", "fails", "fails to step.*the wheel came off"),
        ("Toy-v3", "grows", "change their size"),
        ("Toy-v3", "no picture", "shows no picture"),
        ("Toy-v3", "dict actions", "actions of another kind"),
        ("Blind-v0", "", "draws no pictures.*observation=state"),
    ],
)
def test_an_environment_that_misbehaves_gets_one_message(name: str, odd: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        record(name, episodes=1, options={"odd": odd})


def test_names_that_mean_an_environment(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CartPole-v1", "CartPole", "ALE/Pong-v5", "my_games:Chess-v0", "Nothing-v7"):
        assert is_environment(name), name
    for name in ("", "clip.mp4", "videos", "a/b/c", "UCF-101", "run-v1.npz", None, 3, "x" * 5000, "a\0b-v1"):
        assert not is_environment(name), name
    (tmp_path / "CartPole-v1").mkdir()
    assert not is_environment("CartPole-v1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CartPole-v9", "unknown environment.*did you mean CartPole-v1 or CartPole-v0"),
        ("cartpole", "did you mean CartPole-v1"),
        ("Pendulm-v1", "did you mean Pendulum-v1"),
        ("no_such_module:Game-v0", "no such module.*before the colon"),
        ("ALE/Pong-v5", "pip install ale-py"),
        ("a b", "not the name"),
        ("../../etc/passwd-v1", "cannot be made|unknown"),
        ("", "not the name"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_env(name)


@pytest.mark.parametrize(("missing", "name"), [("gymnasium", "CartPole-v1"), ("pygame", "CartPole-v1")])
def test_what_is_not_installed_is_named_with_the_pip_line(
    missing: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"not installed.*pip install 'attention-pipelines\[world\]'"):
        record(name, episodes=1)


def test_no_variable_of_the_process_stays_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "mine")
    monkeypatch.delenv("SDL_AUDIODRIVER", raising=False)
    before = dict(os.environ)
    with headless():
        assert (os.environ["SDL_VIDEODRIVER"], os.environ["SDL_AUDIODRIVER"]) == ("mine", "dummy")
    assert dict(os.environ) == before
    monkeypatch.delenv("SDL_VIDEODRIVER")
    record("CartPole-v1", episodes=1, steps=2)
    assert "SDL_VIDEODRIVER" not in os.environ


@pytest.mark.parametrize(
    "wrong",
    [{"episodes": 0}, {"steps": 0}, {"repeat": 0}, {"size": (0, 4)}, {"size": 64}, {"colour": "gray"}, {"seed": -1},
     {"observation": "sound"}, {"policy": "greedy"}, {"first": -1}, {"episodes": True}],
)  # fmt: skip
def test_arguments_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        record("Toy-v3", **wrong)


def test_what_would_not_fit_is_refused_at_once() -> None:
    begun = time.perf_counter()
    with pytest.raises(InputError, match=r"too large.*GiB.*fewer episodes"):
        record("Toy-v3", episodes=10**6, steps=10**6)
    assert time.perf_counter() - begun < 5
