"""Training: the order of the data, what is averaged, which weights are kept, what is left untouched."""

# The global generator of NumPy, which ruff advises against, is what some of these tests are about.
# ruff: noqa: NPY002

from __future__ import annotations

import pathlib
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.errors import ConfigError
from pipelines.training.batches import BatchLoader, epoch_order, share
from pipelines.training.distributed import resolve_device
from pipelines.training.loop import TrainResult, train
from pipelines.training.options import TrainOptions, learning_rate_at


class Line(Dataset[dict[str, Tensor]]):
    """y = 2 x, read one by one."""

    def __init__(self, count: int) -> None:
        self.x = torch.linspace(-1, 1, count)[:, None]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "y": 2 * self.x[index]}


class LineByBatch(Line):
    """The same, read a batch at a time."""

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        return {"x": self.x[indices], "y": 2 * self.x[indices]}


def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    error = model(batch["x"]) - batch["y"]
    return error.square().sum(), error.numel()


def model_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(1, 1)


def fit(
    folder: pathlib.Path,
    model: nn.Module,
    train_set: Dataset[Any] | None = None,
    val_set: Dataset[Any] | None = None,
    loss_fn: Any = loss,
    **changes: Any,
) -> TrainResult:
    keywords: dict[str, Any] = {
        name: changes.pop(name) for name in ("precision", "device", "default_lr") if name in changes
    }
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05} | changes
    options = TrainOptions(**settings)
    data = train_set if train_set is not None else Line(30)
    keywords.setdefault("device", "cpu")
    return train(model, loss_fn, data, val_set, options, folder=folder, seed=1, **keywords)


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"epochs": True},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"clip_norm": -1.0},
        {"weight_decay": -0.1},
        {"checkpoint_minutes": float("inf")},
        {"schedule": "linear"},
        {"patience": -1},
    ],
)
def test_options_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainOptions(**wrong).validate()


def test_schedules() -> None:
    rates = {
        name: [learning_rate_at(epoch, TrainOptions(epochs=4, schedule=name), 1.0) for epoch in range(1, 5)]  # type: ignore[arg-type]
        for name in ("halve", "constant", "cosine")
    }
    assert rates["halve"] == [1.0, 1.0, 0.5, 0.25]
    assert rates["constant"] == [1.0] * 4
    assert rates["cosine"] == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


def test_options_and_progress_load_no_torch() -> None:
    code = "import sys, pipelines.training.options, pipelines.progress; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ order


@given(st.integers(1, 200), st.integers(0, 2**40), st.integers(1, 50))
@budget(max_examples=50, deadline=None)
def test_each_epoch_is_a_permutation_of_its_own(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, epoch_order(count, seed, epoch))
    if count > 50:
        assert not torch.equal(order, epoch_order(count, seed, epoch + 1))
        assert not torch.equal(order, epoch_order(count, seed + 1, epoch))


@given(st.integers(1, 40), st.integers(1, 8))
@budget(max_examples=50, deadline=None)
def test_shares_cover_a_batch_once(size: int, world: int) -> None:
    shares = [share(torch.arange(size), rank, world) for rank in range(world)]
    assert all(indices for indices, _ in shares), "every process has something to read"
    assert [index for indices, weight in shares if weight for index in indices] == list(range(size))


def batches(dataset: Dataset[Any], *, workers: int = 0, start: int = 0, epoch: int = 1) -> list[Tensor]:
    loader = BatchLoader(dataset, batch_size=4, seed=3, shuffle=True, workers=workers)
    try:
        return [batch.data["x"] for batch in loader.epoch(epoch, start)]
    finally:
        loader.close()


class Random(Line):
    """Augments from every global generator."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index] + torch.rand(1) + np.random.rand() + random.random()}


def test_an_epoch_can_be_entered_anywhere_with_any_workers() -> None:
    whole = batches(Random(30))
    assert len(whole) == 8
    assert len(whole[-1]) == 2, "the last batch is smaller, not dropped"
    for workers, start in [(0, 5), (2, 0), (2, 5)]:
        later = batches(Random(30), workers=workers, start=start)
        assert all(torch.equal(a, b) for a, b in zip(whole[start:], later, strict=True))
    assert not torch.equal(torch.cat(whole).sort().values, torch.cat(batches(Random(30), epoch=2)).sort().values)


def test_reading_leaves_the_generators_alone() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    batches(Random(9))
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_a_set_read_by_batch_gives_the_same(tmp_path: pathlib.Path) -> None:
    one, other = model_of(), model_of()
    fit(tmp_path / "a", one, Line(30), Line(10))
    fit(tmp_path / "b", other, LineByBatch(30), LineByBatch(10))
    assert torch.equal(one.weight, other.weight)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ the run


def test_it_is_adam_on_the_mean_of_each_batch(tmp_path: pathlib.Path) -> None:
    model, plain, data = model_of(), model_of(), Line(30)
    result = fit(tmp_path, model, data, epochs=3, weight_decay=0.1, clip_norm=0.5)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.05, weight_decay=0.1)
    for epoch in (1, 2, 3):
        optimizer.param_groups[0]["lr"] = 0.05 if epoch < 3 else 0.025
        for indices in epoch_order(30, 1, epoch).split(8):
            optimizer.zero_grad()
            (plain(data.x[indices]) - 2 * data.x[indices]).square().mean().backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    assert result.steps == 12


def test_validation_is_a_mean_over_values_not_over_batches(tmp_path: pathlib.Path) -> None:
    model, data = model_of(), Line(11)  # batches of 8 and 3
    result = fit(tmp_path, model, Line(30), data, epochs=1)
    with torch.no_grad():
        expected = (model(data.x) - 2 * data.x).square().mean().item()
    assert result.best_value == pytest.approx(expected, rel=1e-6)


def scripted(values: list[float]) -> Any:
    """A loss whose validation part follows a script, an epoch a value."""
    script: Iterator[float] = iter(values)

    def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        total, count = loss(model, batch)
        return (total, count) if model.training else (torch.tensor(next(script)), 1)

    return loss_fn


def test_patience_counts_epochs_without_a_better_one(tmp_path: pathlib.Path) -> None:
    model, kept = model_of(), {}
    script = scripted([3.0, 2.0, 2.5, 2.0, 2.1, 2.2, 2.3, 1.0])

    def spying(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        if not model.training:
            kept[len(kept) + 1] = model.weight.detach().clone()  # type: ignore[operator, union-attr]
        return script(model, batch)

    result = fit(tmp_path, model, Line(30), Line(4), spying, epochs=8, patience=3)
    assert (result.best_epoch, result.best_value, result.epochs, result.stopped_early) == (4, 2.0, 7, True)
    assert torch.equal(model.weight, kept[4])  # type: ignore[arg-type]
    assert not model.training


def test_patience_zero_never_stops(tmp_path: pathlib.Path) -> None:
    result = fit(tmp_path, model_of(), Line(30), Line(4), scripted([1.0, 2.0, 3.0, 4.0]), epochs=4, patience=0)
    assert (result.best_epoch, result.epochs, result.stopped_early) == (1, 4, False)


def test_max_steps_ends_in_mid_epoch_with_a_validation(tmp_path: pathlib.Path) -> None:
    result = fit(tmp_path, model_of(), Line(30), Line(4), epochs=9, max_steps=6)
    assert (result.steps, result.epochs) == (6, 2)
    assert result.history[-1]["val_loss"] is not None


def test_without_validation_the_last_weights_are_kept(tmp_path: pathlib.Path) -> None:
    result = fit(tmp_path, model_of(), epochs=3)
    assert result.best_epoch == 3
    assert [record["val_loss"] for record in result.history] == [None] * 3
    assert result.best_value == result.history[-1]["train_loss"]


def test_the_models_own_step_size(tmp_path: pathlib.Path) -> None:
    result = fit(tmp_path, model_of(), learning_rate=None, default_lr=0.007)
    assert result.history[0]["learning_rate"] == 0.007


def test_the_callers_generators_are_as_before(tmp_path: pathlib.Path) -> None:
    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    fit(tmp_path, model, Random2(30), Line(4))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # type: ignore[index, arg-type]


class Random2(Random):
    """Augments x, keeps y."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return super().__getitem__(index) | {"y": self.x[index]}


def test_dropout_depends_on_the_seed_alone(tmp_path: pathlib.Path) -> None:
    weights = []
    for run in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        torch.manual_seed(100 + run)
        fit(tmp_path / str(run), model)
        weights.append(model[0].weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize(("precision", "kept"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_precisions(tmp_path: pathlib.Path, precision: str, kept: torch.dtype) -> None:
    seen: dict[str, torch.dtype] = {}

    def watching(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        output = model(batch["x"])
        seen.update(output=output.dtype, target=batch["y"].dtype)
        error = output - batch["y"]
        return error.square().sum(), error.numel()

    model = model_of()
    result = fit(tmp_path, model, Line(30), Line(10), watching, epochs=20, schedule="constant", precision=precision)
    assert next(model.parameters()).dtype == kept
    assert seen == {"output": torch.bfloat16 if precision == "bf16-mixed" else kept, "target": kept}
    assert result.history[-1]["val_loss"] < 0.5 * result.history[0]["val_loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "tpu"}, "unknown device"),
        ({"device": "meta"}, "unknown device"),
        ({"device": "cuda:99"}, "not there"),
        ({"precision": "8-bit"}, "unknown precision"),
        ({"precision": "16-mixed"}, "needs CUDA"),
    ],
)
def test_what_this_machine_has_not_is_named(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path / "run", model_of(), **changes)
    assert not (tmp_path / "run").exists()


def test_auto_takes_what_there_is() -> None:
    assert resolve_device("auto").type in ("cuda", "mps", "cpu")


def test_nothing_to_train(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="no weights to train"):
        fit(tmp_path, nn.Identity())
    with pytest.raises(ConfigError, match="no examples"):
        fit(tmp_path, model_of(), Line(0))
    with pytest.raises(ConfigError, match="no examples"):
        fit(tmp_path, model_of(), Line(3), Line(0))
