"""Predictions are shrunk to the mean frame by least squares, and never more sure farther ahead."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import WorldModel, load
from pipelines.data.datasets.world_reading import WorldReading
from pipelines.data.datasets.world_types import ArrayFrames, Episode
from pipelines.data.datasets.world_windows import windows
from pipelines.training.options import TrainOptions
from pipelines.world import engine
from pipelines.world.options import ArchOptions, ObjectiveOptions
from pipelines.world.shrinkage import fit_shrinkage, shrunk


class Sure:
    """A stand-in for a network that says the same change from the mean at each horizon, whatever it sees."""

    def __init__(self, changes: list[float], mean: np.ndarray) -> None:
        self.changes, self.mean = changes, torch.from_numpy(mean)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = dataclasses.make_dataclass("Config", [("stimulus", int, 0)])()

    def parameters(self) -> Any:
        return iter([self.weight])

    def rollout(self, context: torch.Tensor, stimuli: Any, horizon: int) -> torch.Tensor:
        steps = torch.tensor(self.changes[:horizon]).view(1, -1, 1, 1, 1)
        return (self.mean + steps).expand(len(context), horizon, *self.mean.shape)


def fitted(changes: list[float], mean: np.ndarray) -> engine.Fitted:
    return engine.Fitted("convlstm", Sure(changes, mean), mean, 4, 10.0, (), {}, torch.zeros(0, 2))  # type: ignore[arg-type]


def flat(levels: list[int]) -> Episode:
    return Episode("e", ArrayFrames(np.repeat(np.array(levels, np.uint8), 12).reshape(-1, 3, 4, 1)), 10.0)


def test_factors_are_least_squares_by_hand() -> None:
    mean = np.full((1, 3, 4), 100 / 255, np.float32)
    # One frame seen, then 110, 105, 104: of changes of 20 grey levels half, a quarter and a fifth are right.
    changed = fitted([20 / 255] * 3, mean)
    factors = fit_shrinkage(changed, [flat([100, 110, 105, 104])], 1, 3)
    assert factors.tolist() == pytest.approx([0.5, 0.25, 0.2], abs=1e-4)
    # Farther ahead it is never surer: where the raw factors rise they are pooled.
    rising = fit_shrinkage(fitted([20 / 255] * 3, mean), [flat([100, 104, 110, 102])], 1, 3)
    assert rising.tolist() == pytest.approx([0.35, 0.35, 0.1], abs=1e-4)
    wrong = fit_shrinkage(fitted([20 / 255] * 2, mean), [flat([100, 90, 80])], 1, 2)
    assert wrong.tolist() == [0.0, 0.0]
    assert fit_shrinkage(fitted([0.1], mean), [flat([100])], 1, 3).tolist() == []
    assert len(fit_shrinkage(fitted([0.1] * 9, mean), [flat([100] * 5)], 1, 9)) == 4  # as far as an episode goes


def test_no_factor_in_reach_is_better() -> None:
    rng = np.random.default_rng(0)
    mean = rng.random((1, 3, 4)).astype(np.float32)
    frames = (rng.random((20, 3, 4, 1)) * 255).astype(np.uint8)
    episode = Episode("e", ArrayFrames(frames), 10.0)
    model = fitted([0.1, 0.2, -0.1], mean)
    factors = fit_shrinkage(model, [episode], 2, 3)
    batch = windows([episode], 2, 3).take(np.arange(16))
    truth = torch.from_numpy(batch.future.transpose(0, 1, 4, 2, 3) / 255.0)
    raw = torch.from_numpy(engine.rolled(model, batch.seen, None, 3)).double()

    def error(values: torch.Tensor) -> float:
        return float((shrunk(raw, mean, values) - truth).square().mean())

    for _ in range(50):
        other = torch.from_numpy(np.sort(rng.random(3))[::-1].copy())
        assert error(factors.double()) <= error(other) + 1e-9


def test_a_model_shrinks_what_it_rolls_out_stores_and_exports(tmp_path: Any) -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (80, 16, 16, 1)).astype(np.uint8)  # hardly anything can be foreseen
    episode = Episode("noise", ArrayFrames(frames), 10.0)
    model = WorldModel(
        model="convlstm", horizon=4, read=WorldReading(size=(16, 16)), arch=ArchOptions(dim=16, hidden=8),
        objective=ObjectiveOptions(windows=32, free=(1, 2)), train=TrainOptions(epochs=2, batch_size=4, patience=0),
        threads=1,
    )  # fmt: skip
    model.fit(episode)
    factors = model.state.shrinkage
    assert len(factors) == 4
    assert 0 <= float(factors[-1]) <= float(factors[0]) < 1
    found = model.evaluate(episode)
    assert found.details["shrinkage"] == pytest.approx(factors.tolist(), abs=1e-4)
    assert any("scaled: by" in note for note in found.notes)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert torch.equal(again.state.shrinkage, factors)
    context = frames[None, :2]
    assert np.array_equal(engine.rolled(again.state, context, None, 6), engine.rolled(model.state, context, None, 6))
    net, inputs, _ = model.state.export_parts()
    raw = model.state.module(inputs["frame"])["x_pred"]
    wanted = shrunk(raw[:, None], model.state.mean, factors)[:, 0]
    assert torch.allclose(net(**inputs), wanted, atol=1e-6)
    plain = model.clone(objective=dataclasses.replace(model.objective, shrink=False)).fit(episode)
    assert not len(plain.state.shrinkage)
