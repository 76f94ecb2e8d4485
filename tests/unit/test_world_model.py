"""World models from end to end in Python: what is learned from, what is measured, what is answered."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipelines import WorldModel, load
from pipelines.data.datasets.world_reading import WorldReading
from pipelines.data.datasets.world_types import ArrayFrames, Episode
from pipelines.data.datasets.world_windows import cut_episode, overlap, windows
from pipelines.errors import ConfigError, InputError, NothingToMeasure
from pipelines.training.options import TrainOptions
from pipelines.world import engine
from pipelines.world.material import episodes_of, fresh_parts, identity, parts_of
from pipelines.world.options import ArchOptions, ObjectiveOptions, SplitOptions
from pipelines.world.training import DrawnWindows, as_frames, loss_of

TINY = {
    "read": WorldReading(size=(16, 16)),
    "arch": ArchOptions(dim=16, layers=1, steps=2),
    "horizon": 3,
    "objective": ObjectiveOptions(windows=8, free=(1, 2)),
    "train": TrainOptions(epochs=1, batch_size=4, patience=0),
    "threads": 1,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def moving(name: str = "dot", frames: int = 30, actions: bool = False, seed: int = 0) -> Episode:
    """A bright square on noise of its own, which goes right, or where the actions push it."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 60, (16, 16, 1)).astype(np.uint8)
    pushes = np.eye(2, dtype=np.float32)[rng.integers(0, 2, frames - 1)]
    place, stack = 8, []
    for step in range(frames):
        frame = picture.copy()
        frame[6:10, place % 13 : place % 13 + 3] = 220
        stack.append(frame)
        if step < frames - 1:
            place += (1 if pushes[step, 1] else -1) if actions else 1
    return Episode(name, ArrayFrames(np.stack(stack)), 10.0, actions=pushes if actions else None,
                   action_names=("left", "right") if actions else ())  # fmt: skip


# What is learned from -------------------------------------------------------------------------------------------------


def test_the_parts_of_one_episode_share_no_frame() -> None:
    m = WorldModel(**TINY)
    parts = parts_of(m, [moving(frames=100)])
    assert [len(part[0]) for part in (parts.train, parts.valid, parts.test)] == [72, 8, 20]
    kinds = [windows(part, 2, 3) for part in (parts.train, parts.valid, parts.test)]
    assert overlap(kinds[0], kinds[1]) == overlap(kinds[0], kinds[2]) == overlap(kinds[1], kinds[2]) == 0
    assert parts.seen == [(identity(moving(frames=100)), 80)]


def test_of_many_episodes_whole_ones_are_held_out() -> None:
    held = [moving(str(number), seed=number) for number in range(10)]
    parts = parts_of(WorldModel(**TINY), held)
    names = [{one.name for one in part} for part in (parts.train, parts.valid, parts.test)]
    assert [len(part) for part in names] == [7, 1, 2]
    assert len(set.union(*names)) == 10
    fresh, notes = fresh_parts(held, dict(parts.seen))
    assert {one.name for one in fresh} == names[2]
    assert any("8 of 10 episodes were learned from" in note for note in notes)


def test_what_was_learned_from_is_never_measured() -> None:
    film = moving(frames=60)
    m = WorldModel(**TINY).fit(film)
    found = m.evaluate(film)
    # Twelve frames are left, eight windows of two frames seen and three predicted.
    assert found.counts == {"windows": 8, "episodes": 1, "frames": 12}
    renamed = dataclasses.replace(film, name="another name")
    assert m.evaluate(renamed).counts["frames"] == 12
    with pytest.raises(NothingToMeasure):
        WorldModel(**TINY | {"split": SplitOptions(share=0.0)}).fit(film).evaluate(film)


def test_the_mean_frame_is_of_the_training_part_alone() -> None:
    film = moving(frames=50)
    m = WorldModel(**TINY).fit(film)
    train = parts_of(m, [film]).train[0].frames.read(0, 36).astype(np.float64) / 255
    assert m.state.mean_count == 36
    assert np.allclose(m.state.mean, train.mean(0).transpose(2, 0, 1), atol=1e-6)
    assert torch.allclose(m.state.module.mean_frame, torch.from_numpy(m.state.mean))


def test_an_epoch_draws_other_windows_and_a_run_the_same() -> None:
    m = WorldModel(**TINY)
    drawn = DrawnWindows(m, [moving(frames=40)], 8, changing=True, actions=False)

    def batch(epoch: int) -> dict[str, torch.Tensor]:
        drawn.set_epoch(7, epoch)
        return drawn.__getitems__([0, 1, 2, 3])

    first, again, later = batch(0), batch(0), batch(1)
    assert torch.equal(first["frames"], again["frames"])
    assert not torch.equal(first["frames"].float().mean(), later["frames"].float().mean())
    free, between = first["free"].tolist()
    assert first["frames"].shape[1] == m.context + free
    assert 1 <= between <= free


def test_rollouts_that_no_episode_holds_are_said() -> None:
    m = WorldModel(**TINY | {"objective": ObjectiveOptions(windows=8, free=(1, 40))})
    drawn = DrawnWindows(m, [moving(frames=20)], 8, changing=True, actions=False)
    assert drawn.notes == ["no episode holds a rollout of 40 frames: not trained on"]
    m = WorldModel(**TINY | {"objective": ObjectiveOptions(windows=8, free=(40,))})
    with pytest.raises(InputError, match="no episode is as long as a window"):
        DrawnWindows(m, [moving(frames=20)], 8, changing=True, actions=False)


def test_the_loss_falls_and_reaches_actions() -> None:
    m = WorldModel(**TINY | {"model": "convlstm", "arch": ArchOptions(dim=16, hidden=8)})
    torch.manual_seed(0)
    net = engine.build(m, (16, 16, 1), 2)
    drawn = DrawnWindows(m, [moving(frames=60, actions=True)], 64, changing=True, actions=True)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for step in range(30):
        drawn.set_epoch(0, step)
        total, count = loss_of(m)(net, drawn.__getitems__(range(8)))
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
        losses.append(float(total.detach() / count))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    pushed = [name for name, value in net.named_parameters() if "stimulus" in name and value.grad is not None]
    assert pushed
    assert all(float(dict(net.named_parameters())[name].grad.abs().sum()) > 0 for name in pushed)


# What is answered -----------------------------------------------------------------------------------------------------


def test_answers_are_the_same_each_time_and_for_any_company(world_folder: pathlib.Path) -> None:
    m = load(world_folder, threads=1)
    assert isinstance(m, WorldModel)
    street = episodes_of(m, "demo")[0][0]
    one, other = cut_episode(street, 60, 70), dataclasses.replace(cut_episode(street, 300, 310), name="later")
    alone = m.predict(one).episodes[0].values(0, 3)
    assert np.array_equal(alone, m.predict(one).episodes[0].values(0, 3))
    assert np.array_equal(alone, m.predict([one, other]).episodes[0].values(0, 3))


def test_a_prediction_never_sees_its_truth(world_folder: pathlib.Path) -> None:
    m = load(world_folder, threads=1)
    frames = episodes_of(m, "demo")[0][0].frames.read(60, 70)
    changed = frames.copy()
    changed[-3:] = 255 - changed[-3:]
    answers = [
        m.predict(Episode("a", ArrayFrames(stack), 10.0)).episodes[0].values(0, 3) for stack in (frames, changed)
    ]
    assert np.array_equal(*answers)


def test_the_rollout_begins_where_it_is_asked_to(world_folder: pathlib.Path) -> None:
    m = load(world_folder, threads=1, start=4)
    film = cut_episode(episodes_of(m, "demo")[0][0], 0, 10)
    answer = m.predict(film).episodes[0]
    assert (answer.start, answer.seen, answer.known) == (2, 2, 3)
    assert np.array_equal(answer.pixels(0, 2, "context"), film.frames.read(2, 4))
    assert np.array_equal(answer.pixels(0, 3, "truth"), film.frames.read(4, 7))
    beyond = load(world_folder, threads=1, start=9).predict(film).episodes[0]
    assert (beyond.known, beyond.horizon) == (1, 3)
    assert any("no truth is known" in note for note in beyond.notes)
    with pytest.raises(InputError, match="no such frame"):
        load(world_folder, threads=1, start=11).predict(film)


def test_actions_decide_what_is_played() -> None:
    film = moving(frames=40, actions=True)
    m = WorldModel(**TINY | {"model": "convlstm", "arch": ArchOptions(dim=16, hidden=8)}).fit(film)
    torch.manual_seed(1)
    with torch.no_grad():  # hardly trained: an action is made to count
        for name, value in m.state.module.named_parameters():
            if "stimulus" in name or name.startswith("decoder"):
                value.add_(0.3 * torch.randn_like(value))
    left, right = (m.play(film, action=(kind,)).episodes[0] for kind in (0.0, 1.0))
    assert left.known == 0
    assert left.start == 38
    assert [left.action(step) for step in (1, 2, 3)] == ["left"] * 3
    assert not np.allclose(left.values(0, 3), right.values(0, 3), atol=1e-4)
    again = m.play(film, action=(1.0, 0.0)).episodes[0]
    assert np.array_equal(again.values(0, 3), left.values(0, 3))
    for wrong in ((2.0,), (1.0, 0.0, 0.0)):
        with pytest.raises(InputError):
            m.play(film, action=wrong)
    with pytest.raises(ConfigError, match="needs actions"):
        m.play(film)


def test_a_file_of_actions_is_played(tmp_path: pathlib.Path) -> None:
    film = moving(frames=40, actions=True)
    m = WorldModel(**TINY | {"model": "convlstm", "arch": ArchOptions(dim=16, hidden=8)}).fit(film)
    path = tmp_path / "moves.csv"
    path.write_text("left,right\n1,0\n0,1\n1,0\n")
    played = m.play(film, actions=str(path)).episodes[0]
    assert [played.action(step) for step in (1, 2, 3)] == ["left", "right", "left"]
    path.write_text("left,right\n1,0\n")
    with pytest.raises(InputError, match="another length"):
        m.play(film, actions=str(path))


def test_frames_of_another_size_are_refused(world_folder: pathlib.Path) -> None:
    m = load(world_folder, threads=1)
    with pytest.raises(InputError, match="not the frames that the model was made for"):
        m.predict(moving())


def test_a_still_film_is_said(world_folder: pathlib.Path) -> None:
    m = load(world_folder, threads=1)
    still = Episode("wall", ArrayFrames(np.full((9, 16, 16, 3), 90, np.uint8)), 10.0)
    assert any("nothing moves in wall" in note for note in m.predict(still).notes)


def test_as_frames() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 6, 3)).astype(np.uint8)
    frames = as_frames(stored)
    assert frames.shape == (2, 3, 3, 4, 6)
    assert frames.is_contiguous()
    assert torch.equal(frames[1, 2, 0], torch.from_numpy(stored[1, 2, :, :, 0]).float() / 255)


def test_an_evaluation_tells_what_features_hold() -> None:
    episodes = [
        dataclasses.replace(
            moving(f"e{seed}", 40, actions=True, seed=seed),
            states=np.linspace(0, seed, 40, dtype=np.float32)[:, None] ** 2,
            state_names=("place",),
        )
        for seed in range(8)
    ]
    model = WorldModel(**TINY | {"split": SplitOptions(share=0.25)})
    model.fit(episodes)
    found = model.evaluate(episodes)
    assert [table.title for table in found.tables] == ["By horizon", "Features", "Linear probes"]
    assert {row[0] for row in found.tables[1].rows} >= {"effective_rank", "morans_i"}
    assert {row[2] for row in found.tables[2].rows} == {"model", "untrained", "pixels"}
    assert set(found.details["probes"]["model"]) == {"position", "velocity"}
    assert found.figures[-1][0] == "Linear probes"
    assert found.figures[-1][2]().axes
    # Each frame is rebuilt by itself: the same by hand.
    fresh, _ = fresh_parts(episodes_of(model, episodes)[0], model.state.borders())
    wrong, still, count = 0.0, 0.0, 0
    for one in fresh:
        for number in range(len(one)):
            frame = as_frames(one.frames.read(number, number + 1))
            with torch.no_grad():
                recon = model.state.module(frame)["x_recon"]
            wrong += float((recon - frame).double().square().sum())
            still += float((torch.from_numpy(model.state.mean) - frame).double().square().sum())
            count += frame.numel()
    assert found.metrics["rebuild_mse"] == pytest.approx(wrong / count, rel=1e-4)
    assert found.baselines["mean_frame"]["rebuild_mse"] == pytest.approx(still / count, rel=1e-4)
    assert "rebuild_mse" not in found.baselines["copy_last"]
