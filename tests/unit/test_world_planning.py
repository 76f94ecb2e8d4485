"""Planning: the cross-entropy method, models of states and frames, and planned episodes beside random ones."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")
torch = pytest.importorskip("torch")

from pipelines.data.datasets.world_env import ActionSpace, record  # noqa: E402
from pipelines.errors import ConfigError, InputError  # noqa: E402
from pipelines.world.models import build_world  # noqa: E402
from pipelines.world.models.frame_model import FrameConfig, FrameModel  # noqa: E402
from pipelines.world.models.state_model import RewardHead, StateConfig, StateModel  # noqa: E402
from pipelines.world.planning import (  # noqa: E402
    CemOptions,
    PixelDynamics,
    Planner,
    StateDynamics,
    cem,
    discounted,
    learn_states,
    plan_environment,
    shifted,
)
from pipelines.world.planning_agent import Imagined  # noqa: E402
from pipelines.world.planning_frames import FrameOptions, learn_frames  # noqa: E402
from pipelines.world.planning_pixels import PixelOptions, learn_pixels  # noqa: E402
from pipelines.world.planning_training import Transitions, fit_state_model, model_errors, transitions  # noqa: E402
from pipelines.world.planning_windows import PixelWindows  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_best_of_all_discrete_plans_is_found() -> None:
    """The score couples the steps; the oracle tries all 3^6 plans."""
    rng = np.random.default_rng(3)
    single, pairs = rng.standard_normal((6, 3)), rng.standard_normal((5, 3, 3))

    def score(plans: np.ndarray) -> np.ndarray:
        picked = plans.argmax(2)
        alone = single[np.arange(6), picked].sum(1)
        return alone + pairs[np.arange(5), picked[:, :-1], picked[:, 1:]].sum(1)

    every = np.eye(3, dtype=np.float32)[np.array(list(itertools.product(range(3), repeat=6)))]
    best = score(every).max()
    plan = cem(score, 6, ActionSpace.of_choices(3), CemOptions(candidates=100, elites=10, iterations=10), rng=1)
    assert plan.score == pytest.approx(best)
    assert score(plan.actions[None])[0] == pytest.approx(best)


def test_a_continuous_optimum_inside_and_at_the_bounds_is_found() -> None:
    wanted = np.array([[0.3, -0.8], [2.0, 0.0]])  # the 2 is outside: the bound is best
    space = ActionSpace.of_bounds([-5.0, 0.0], [5.0, 1.0])
    options = CemOptions(candidates=200, elites=20, iterations=20, least=0.001)
    plan = cem(lambda plans: -np.square(plans - wanted).sum((1, 2)), 2, space, options)
    assert np.allclose(plan.actions, [[0.3, -0.8], [1.0, 0.0]], atol=0.02)
    assert np.abs(plan.actions).max() <= 1


def test_several_choices_at_once() -> None:
    space = ActionSpace("multi_discrete", (2, 3), first=(0, 0), shape=(2,))
    wanted = np.array([[0, 1, 0, 0, 1], [1, 0, 1, 0, 0]])
    plan = cem(lambda plans: (plans * wanted).sum((1, 2)), 2, space)
    assert plan.actions.tolist() == wanted.tolist()


@pytest.mark.parametrize("space", [ActionSpace.of_choices(3), ActionSpace.of_bounds([-1.0, -1.0], [1.0, 1.0])])
def test_the_seed_makes_the_plan_and_arrays_and_tensors_agree(space: ActionSpace) -> None:
    weights = np.random.default_rng(0).standard_normal((4, space.size)).astype(np.float32)
    by_array = cem(lambda plans: np.tanh(plans * weights).sum((1, 2)), 4, space, rng=5)
    again = cem(lambda plans: np.tanh(plans * weights).sum((1, 2)), 4, space, rng=5)
    tensor = torch.from_numpy(weights)
    by_tensor = cem(lambda plans: torch.tanh(plans * tensor).sum((1, 2)), 4, space, rng=5, tensors=True)
    other = cem(lambda plans: np.tanh(plans * weights).sum((1, 2)), 4, space, rng=6)
    assert np.array_equal(by_array.actions, again.actions)
    assert by_array.best == again.best
    assert np.allclose(by_array.mean, by_tensor.mean)
    assert not np.array_equal(by_array.mean, other.mean)


def test_the_best_score_never_falls_and_a_good_start_is_kept() -> None:
    space = ActionSpace.of_choices(2)
    secret = np.eye(2, dtype=np.float32)[np.random.default_rng(1).integers(2, size=30)]

    def needle(plans: np.ndarray) -> np.ndarray:
        return (plans == secret).all((1, 2)).astype(float)

    lost = cem(needle, 30, space)
    assert lost.score == 0
    assert list(lost.best) == sorted(lost.best)
    known = cem(lambda plans: (plans * secret).sum((1, 2)), 30, space, CemOptions(iterations=30))
    assert known.score == 30
    assert cem(needle, 30, space, start=known).score == 1
    moved = shifted(known, space)
    assert np.array_equal(moved.actions[:-1], known.actions[1:])
    assert moved.mean[-1].tolist() == [0.5, 0.5]


def test_scores_that_are_not_finite_come_last_and_are_counted() -> None:
    def score(plans: np.ndarray) -> np.ndarray:
        values = plans[:, :, 0].sum(1).astype(float)
        values[plans[:, 0, 0] == 1] = np.nan
        return values

    plan = cem(score, 3, ActionSpace.of_choices(2))
    assert plan.actions.argmax(1).tolist() == [1, 0, 0]
    assert plan.failed > 0
    with pytest.raises(InputError, match="no plan has a finite score"):
        cem(lambda plans: np.full(len(plans), np.nan), 3, ActionSpace.of_choices(2))
    with pytest.raises(InputError, match="not a score for each plan"):
        cem(lambda plans: np.zeros(3), 3, ActionSpace.of_choices(2))


@pytest.mark.parametrize(
    "wrong", [{"candidates": 0}, {"elites": 65}, {"iterations": 0}, {"least": 1.0}, {"smoothing": -1}]
)
def test_searches_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CemOptions(**wrong)
    with pytest.raises(ConfigError, match="horizon"):
        cem(lambda plans: np.zeros(len(plans)), 0, ActionSpace.of_choices(2))


def test_a_return_counts_what_is_reached() -> None:
    rng = np.random.default_rng(0)
    rewards, goes_on = rng.standard_normal((2, 3, 5)), rng.random((2, 3, 5))
    wanted = np.zeros(3)
    for member, plan in itertools.product(range(2), range(3)):
        reached = 1.0
        for step in range(5):
            wanted[plan] += 0.9**step * reached * rewards[member, plan, step] / 2
            reached *= goes_on[member, plan, step]
    found = discounted(Imagined(torch.from_numpy(rewards), torch.from_numpy(goes_on)), 0.9)
    assert np.allclose(found.numpy(), wanted)


def test_imagined_plans_are_the_steps_one_by_one() -> None:
    torch.manual_seed(0)
    model = StateModel(StateConfig(states=3, actions=2, hidden=8, members=2))
    model.standardise(torch.randn(20, 3) * 4 + 1, torch.randn(20, 3), torch.randn(20))
    plans, state = torch.randn(5, 4, 2), torch.randn(3)
    whole = model.imagine(state, plans)
    for plan in range(5):
        now = state[None]
        for step in range(4):
            one = model(now, plans[plan, step][None])
            assert torch.allclose(one.states[:, 0], whole.states[:, plan, step], atol=1e-5)
            assert torch.allclose(one.rewards[:, 0], whole.rewards[:, plan, step], atol=1e-5)
            assert torch.allclose(one.goes_on[:, 0], whole.goes_on[:, plan, step], atol=1e-5)
            now = one.states
    for bad in ((torch.zeros(2), plans), (state, plans[0]), (state, plans[..., :1])):
        with pytest.raises(InputError, match="not a state and plans"):
            model.imagine(*bad)


def linear_world(count: int, seed: int) -> Transitions:
    """x' = x + .1 v, v' = v + .2 a; the reward is -x'^2, and |v'| above 1 is the end."""
    rng = np.random.default_rng(seed)
    states, actions = rng.uniform(-2, 2, (count, 2)), rng.uniform(-1, 1, (count, 1))
    following = states + np.stack([0.1 * states[:, 1], 0.2 * actions[:, 0]], 1)
    ends = np.abs(following[:, 1]) > 1
    columns = (states, actions, following, -np.square(following[:, 0]), 1.0 - ends)
    return Transitions(*(column.astype(np.float32) for column in columns))


def test_an_ensemble_learns_a_linear_world() -> None:
    model = fit_state_model(linear_world(600, 0), steps=400, members=2, hidden=32)
    test = linear_world(200, 1)
    with torch.no_grad():
        step = model(torch.from_numpy(test.states), torch.from_numpy(test.actions))
    change = test.following - test.states
    assert np.square(step.states.mean(0).numpy() - test.following).mean() < 0.01 * np.square(change).mean()
    assert np.square(step.rewards.mean(0).numpy() - test.rewards).mean() < 0.05 * test.rewards.var()
    assert ((step.goes_on.mean(0).numpy() > 0) == (test.goes_on == 1)).mean() > 0.95
    again = fit_state_model(linear_world(600, 0), steps=3, members=2, hidden=32)
    once = fit_state_model(linear_world(600, 0), steps=3, members=2, hidden=32)
    assert all(torch.equal(one, two) for one, two in zip(again.parameters(), once.parameters(), strict=True))


def test_learning_leaves_the_global_generator_alone_and_refuses_what_is_damaged() -> None:
    before = torch.get_rng_state()
    fit_state_model(linear_world(20, 0), steps=1, members=1)
    assert torch.equal(before, torch.get_rng_state())
    data = linear_world(20, 0)
    data.states[3, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fit_state_model(data)
    with pytest.raises(InputError, match="too few"):
        fit_state_model(linear_world(1, 0))
    with pytest.raises(InputError, match="no episodes"):
        transitions([])


def test_transitions_end_where_the_task_ended_only() -> None:
    done = record("CartPole-v1", episodes=2, steps=200, observation="state")
    cut = record("CartPole-v1", episodes=2, steps=5, observation="state")
    assert (transitions(done).goes_on == 0).nonzero()[0].tolist() == list(np.cumsum([len(one) - 1 for one in done]) - 1)
    assert transitions(cut).goes_on.all()
    both, first = transitions(done), done[0]
    assert first.states is not None
    assert np.array_equal(both.states[1], both.following[0])
    assert np.array_equal(both.following[len(first) - 2], first.states[-1])


def test_a_planner_with_the_true_model_reaches_its_goal_and_a_random_one_does_not() -> None:
    class True_:
        """A point that moves by .2 a; the nearer to 1, the better."""

        def begin(self, observation: Any) -> Any:
            return torch.tensor(float(observation[0]))

        def follow(self, belief: Any, action: Any, observation: Any) -> Any:
            return self.begin(observation)

        def imagine(self, belief: Any, plans: Any) -> Imagined:
            place = belief + 0.2 * plans[..., 0].cumsum(1)
            return Imagined(-(place - 1).abs()[None], torch.ones_like(place)[None])

    planner = Planner(True_(), ActionSpace.of_bounds([-1.0], [1.0]), horizon=5)
    with pytest.raises(InputError, match="no episode has begun"):
        planner.act()
    place = np.array([-1.0])
    planner.reset(place)
    for _ in range(12):
        action = planner.act()
        place = place + 0.2 * action
        planner.observe(action, place)
    assert abs(place[0] - 1) < 0.1
    for discount in (0.0, 1.5):
        with pytest.raises(ConfigError, match="discount"):
            Planner(True_(), ActionSpace.of_choices(2), discount=discount)
    with pytest.raises(ConfigError, match="horizon"):
        Planner(True_(), ActionSpace.of_choices(2), horizon=0)


def test_planning_from_states_is_far_above_random() -> None:
    options = CemOptions(candidates=24, elites=5, iterations=2)

    def learn(*given: Any) -> Any:
        return learn_states(*given, steps=500, members=2)

    chosen = {"recorded": 60, "horizon": 18, "options": options, "learn": learn, "film": False}
    outcome = plan_environment("CartPole-v1", episodes=1, steps=90, **chosen)
    assert outcome.times_random is not None
    assert outcome.times_random > 3
    assert outcome.errors[0].step < 0.1
    assert outcome.errors[0].rollout is None or outcome.errors[0].rollout < (outcome.errors[0].still or 0)
    told = json.loads(json.dumps(outcome.to_dict()))
    assert told["return"] == outcome.returns[0]
    assert told["random_interval"][0] < told["random_return"] < told["random_interval"][1]


def test_an_outcome_is_repeated_by_its_seed_and_has_a_film() -> None:
    def play(seed: int, film: bool) -> Any:
        options = CemOptions(candidates=6, elites=2, iterations=1)
        return plan_environment("Pendulum-v1", episodes=2, steps=6, recorded=3, horizon=3, options=options, seed=seed,
                                film=film, rounds=2, learn=lambda *given: learn_states(*given, steps=20))  # fmt: skip

    one, two, other = play(1, True), play(1, False), play(2, False)
    assert one.returns == two.returns
    assert one.random_returns == two.random_returns
    assert one.returns != other.returns
    assert two.frames is None
    assert one.frames.shape == (7, 200, 200, 3)
    assert len(one.frames) == len(one.actions) + 1
    assert one.times_random is None  # returns are negative
    assert one.learned_from == 2 * 6 + 2 * 6  # what was recorded without the episode that was kept, and a round of play
    assert len(one.errors) == 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"episodes": 0}, "episodes"), ({"recorded": 1}, "recorded"), ({"rounds": 0}, "rounds"), ({"steps": 0}, "steps"),
     ({"observation": "sound"}, "observation"), ({"horizon": 0}, "horizon")],
)  # fmt: skip
def test_plans_that_cannot_be(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_environment("CartPole-v1", **wrong)
    with pytest.raises(InputError, match="did you mean CartPole-v1"):
        plan_environment("CartPole-v7")


def small_net(**more: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"channels": 1, "height": 16, "width": 16, "stimulus": 2, "dim": 8, "hidden": 8, "bottleneck": 8}
    return build_world("convlstm", **sizes | more).eval()


def test_plans_in_a_world_of_frames_are_the_rollouts_one_by_one() -> None:
    net, head = small_net(), RewardHead(8)
    model, frames = (
        PixelDynamics(net, head, 2),
        np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), dtype=np.uint8),
    )
    action, plans = np.array([1.0, 0.0], np.float32), torch.eye(2)[torch.tensor([[0, 1, 1], [1, 0, 1]])]
    belief = model.follow(model.begin(frames[0]), action, frames[1])
    found = model.imagine(belief, plans)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    for plan in range(2):
        with torch.no_grad():
            state = net.watch(pixels[None], torch.from_numpy(action)[None, None])
            for step in range(3):
                state = net.evolve(state, plans[plan, step][None])
                reward, logit = head(net.read(state))
                assert torch.allclose(reward[0], found.rewards[0, plan, step], atol=1e-5)
                assert torch.allclose(logit.sigmoid()[0], found.goes_on[0, plan, step], atol=1e-5)
    assert not torch.allclose(found.rewards[0, 0], found.rewards[0, 1])


def test_the_head_reads_where_things_are() -> None:
    head = RewardHead(1, pool=2)
    left, right = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    left[..., :4], right[..., 4:] = 1.0, 1.0
    assert not torch.allclose(head(left)[0], head(right)[0])
    for bad in (torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8)):
        with pytest.raises(InputError, match="not features"):
            head(bad)
    with pytest.raises(ConfigError):
        RewardHead(4, pool=0)


def test_windows_hold_what_followed_each_frame() -> None:
    episodes = record("CartPole-v1", episodes=3, steps=40, size=(16, 16), colour="grey", seed=1)
    windows = PixelWindows(episodes, context=2, free=4)
    assert len(windows) == sum(len(one) - 5 for one in episodes)
    row = len(episodes[0]) - 6  # the last window of the first episode
    frames, actions, _, goes_on = windows.take(np.array([row]))
    assert np.array_equal((frames[0] * 255).round().numpy()[:, 0], episodes[0].frames.read(row, row + 6)[..., 0])
    assert episodes[0].actions is not None
    assert np.array_equal(actions[0].numpy(), episodes[0].actions[row : row + 5])
    assert goes_on.tolist() == [[1.0, 1.0, 1.0, 0.0]]
    drawn = windows.draw(300, 1.0, np.random.default_rng(0))
    assert set(drawn.tolist()) == set(windows.last.tolist())
    with pytest.raises(InputError, match="no episode is long enough"):
        PixelWindows(episodes, context=2, free=400)


def test_learning_from_frames_is_repeated_by_its_seed_and_leaves_a_given_net_alone() -> None:
    episodes = record("CartPole-v1", episodes=4, steps=30, size=(16, 16), colour="grey")
    few = PixelOptions(updates=3, batch=4, context=2, free=3)
    one, _ = learn_pixels(episodes[:3], episodes[3:], 7, 2, options=few)
    two, errors = learn_pixels(episodes[:3], episodes[3:], 7, 2, options=few)
    assert all(torch.equal(a, b) for a, b in zip(one.net.parameters(), two.net.parameters(), strict=True))
    assert errors is not None
    assert errors.rollouts == len(episodes[3]) - 3
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model, _ = learn_pixels(episodes[:3], episodes[3:], 7, 2, options=few, net=net)
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())
    with pytest.raises(InputError, match="for other episodes"):
        learn_pixels(episodes[:3], episodes[3:], 7, 2, options=few, net=small_net(stimulus=3))


def test_states_plan_through_the_same_door() -> None:
    model = StateDynamics(StateModel(StateConfig(states=4, actions=2, members=3, hidden=4)))
    found = model.imagine(model.begin(np.zeros(4)), torch.zeros(6, 5, 2))
    assert found.rewards.shape == found.goes_on.shape == (3, 6, 5)
    assert bool(((found.goes_on > 0) & (found.goes_on < 1)).all())
    episodes = record("CartPole-v1", episodes=2, steps=4, observation="state")
    assert model_errors(model.model, episodes, horizon=50).rollout is None


def test_frames_are_seen_through_their_principal_components() -> None:
    """The oracle is scikit-learn's decomposition; a picture that never changes has no components."""
    from sklearn.decomposition import PCA

    frames = np.random.default_rng(0).random((30, 2, 4, 5)).astype(np.float32)
    model = FrameModel(FrameConfig(pixels=40, actions=1, components=6, dim=4))
    model.look(torch.from_numpy(frames), torch.arange(5.0))
    peer = PCA(6).fit(frames.reshape(30, 40))
    ours = (model.embed(torch.from_numpy(frames)) * model.scale).numpy()
    theirs = peer.transform(frames.reshape(30, 40))
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    assert np.allclose(model.embed(torch.from_numpy(frames)).square().mean(0), 1, atol=1e-4)
    back = model.frame(model.embed(torch.from_numpy(frames))).numpy()
    assert np.allclose(back, peer.inverse_transform(theirs), atol=1e-4)
    model.look(torch.ones(5, 2, 4, 5), torch.ones(5))
    assert not model.embed(torch.ones(1, 2, 4, 5)).any()
    assert bool(torch.isfinite(model.embed(torch.rand(1, 2, 4, 5))).all())
    with pytest.raises(InputError, match="not frames"):
        model.look(torch.full((3, 2, 4, 5), float("nan")), torch.ones(3))
    with pytest.raises(InputError, match="not frames"):
        model.embed(torch.zeros(1, 1, 4, 5))


class Dot(gymnasium.Env):
    """A bright column on a ring of 4 places, moved left or right or left alone; only the last place earns."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(4))
        return self.picture(), {}

    def step(self, action: Any) -> Any:
        self.place = (self.place + int(action) - 1) % 4
        return self.picture(), float(self.place == 3), False, False, {}

    def picture(self) -> np.ndarray:
        out = np.zeros((8, 8, 1), np.uint8)
        out[:, 2 * self.place : 2 * self.place + 2] = 200
        return out


@pytest.fixture
def dot() -> Any:
    gymnasium.register("Dot-v0", entry_point=Dot)
    yield "Dot-v0"
    gymnasium.registry.pop("Dot-v0")


def test_a_small_model_of_frames_learns_a_small_world_and_plans_in_it(dot: str) -> None:
    options = FrameOptions(updates=350, batch=32, components=3, members=1, free=3, learning_rate=4e-3, decay=0.01,
                           noise=0.02, frames=1.0, ends=0.0)  # fmt: skip

    def learn(*given: Any) -> Any:
        return learn_frames(*given, options=options)

    view = {"size": None, "colour": "grey"}
    outcome = plan_environment(dot, observation="pixels", episodes=2, steps=20, recorded=20, horizon=4, learn=learn,
                               view=view, rounds=1)  # fmt: skip
    found = outcome.errors[0]
    assert found.rollout is not None
    assert found.still is not None
    assert found.rollout < 0.5 * found.still  # far better than a frame that stays
    assert found.reward < 0.2
    assert min(outcome.returns) >= 18  # at most 2 moves away
    assert outcome.random_interval.hi < 8


def test_a_small_model_of_frames_is_repeated_by_its_seed() -> None:
    episodes = record("Pendulum-v1", episodes=6, steps=10, size=(12, 12), colour="grey")
    few = FrameOptions(updates=2, batch=4, components=4, members=2, free=4)
    one, _ = learn_frames(episodes[:5], episodes[5:], 3, 3, options=few)
    two, _ = learn_frames(episodes[:5], episodes[5:], 3, 3, options=few)
    for first, second in zip(one.members, two.members, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(one.members[0].draw.weight, one.members[1].draw.weight)
    plans = torch.zeros(4, 5, 1)
    model = one
    belief = model.begin(episodes[0].frames.read(0, 1)[0])
    imagined = model.imagine(belief, plans)
    once = model.members[1].act(belief.belief[1], plans[:1, 0])
    assert imagined.rewards.shape == (2, 4, 5)
    assert torch.allclose(imagined.rewards[1, 0, 0], model.members[1].tell(once)[1][0], atol=1e-4)


def test_planning_from_pixels_goes_the_whole_way() -> None:
    options = CemOptions(candidates=8, elites=2, iterations=1)

    def learn(*given: Any) -> Any:
        return learn_frames(*given, options=FrameOptions(updates=5, batch=4, free=4, components=4, members=1))

    chosen = {"observation": "pixels", "view": {"size": (16, 24)}, "horizon": 4, "options": options, "learn": learn}
    outcome = plan_environment("CartPole-v1", episodes=2, steps=8, recorded=6, **chosen)
    assert outcome.frames is not None
    assert outcome.frames.shape[1:] == (16, 24, 1)
    assert len(outcome.returns) == 2
    assert json.dumps(outcome.to_dict()).count("pixels") >= 1


def test_only_the_last_frames_are_watched() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1), dtype=np.uint8)
    actions = np.eye(2, dtype=np.float32)[[0, 1, 1, 0]]
    net = small_net()
    model = PixelDynamics(net, RewardHead(8), context=3)
    belief = model.begin(frames[0])
    for action, frame in zip(actions, frames[1:], strict=True):
        belief = model.follow(belief, action, frame)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        wanted = net.watch(pixels[None, 2:], torch.from_numpy(actions)[None, 2:])
    assert torch.allclose(belief.belief.belief, wanted.belief, atol=1e-6)
    assert np.array_equal(belief.actions[0].numpy(), actions[2:])
