"""Two processes under torchrun (gloo): the gradient, the validation sum and the end of one process.

Run by torchrun, this file is the job of each process.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.data.datasets.speech_batches import plan_batches
from pipelines.errors import ConfigError, Interrupted, RunError
from pipelines.training.distributed import connect
from pipelines.training.loop import TrainResult, train
from pipelines.training.options import TrainOptions


class Line(Dataset[dict[str, Tensor]]):
    """Examples with gaps: the number of values differs between examples, so means of means would show."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(count)
        self.x = torch.randn(count, 4, generator=generator)
        self.y = self.x @ torch.tensor([[1.0, 0.5], [-2.0, 0.0], [0.0, 1.0], [3.0, -1.0]])
        self.seen = torch.rand(count, 2, generator=generator) > 0.4

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "y": self.y[index], "seen": self.seen[index]}


def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    error = (model(batch["x"]) - batch["y"]) * batch["seen"]
    return error.square().sum(), batch["seen"].sum()


class Spoken(Line):
    """Examples of different length that are batched by their seconds, as sound is."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.seconds = torch.rand(count, generator=torch.Generator().manual_seed(count)).mul(9).add(1).tolist()

    def plan(self, seed: int, epoch: int) -> list[list[int]]:
        return plan_batches(self.seconds, budget=12.0, most=8, seed=seed, epoch=epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return super().__getitem__(index) | {"index": torch.tensor(index)}


def run(
    folder: pathlib.Path,
    loss_fn: Any = loss,
    *,
    resume: bool = False,
    dropout: float = 0.0,
    kind: type[Line] = Line,
) -> tuple[TrainResult, dict[str, Tensor]]:
    # 25 and 9 examples in batches of 8: the last batch holds one example, so that one process has none.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    options = TrainOptions(epochs=2, batch_size=8, learning_rate=0.01, clip_norm=1.0, patience=0)
    result = train(model, loss_fn, kind(25), kind(9), options, folder=folder, seed=1, device="cpu", resume=resume)
    return result, model.state_dict()


MODES = ("train", "spoken", "whole", "stop", "resume", "full")


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of one launch of two processes that trained once in each mode."""
    folder = tmp_path_factory.mktemp("launched")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, __file__, str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "GLOBAL_RANK" not in finished.stderr, "Lightning is quiet"
    return folder


def outcome(folder: pathlib.Path, mode: str, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"{mode}-{rank}.json").read_text())


def test_two_processes_train_as_one(launched: pathlib.Path, tmp_path: pathlib.Path) -> None:
    threads = torch.get_num_threads()
    alone, weights = run(tmp_path)
    torch.set_num_threads(threads)
    for rank in (0, 1):
        other = outcome(launched, "train", rank)
        assert other["steps"] == alone.steps == 8
        for name, value in weights.items():
            torch.testing.assert_close(torch.tensor(other["weights"][name]), value, rtol=0, atol=1e-6)
        for mine, theirs in zip(alone.history, other["history"], strict=True):
            assert theirs["val_loss"] == pytest.approx(mine["val_loss"], abs=1e-6)
            assert theirs["train_loss"] == pytest.approx(mine["train_loss"], abs=1e-6)


def test_validation_counts_every_value_once(launched: pathlib.Path) -> None:
    counts = [sum(outcome(launched, "train", rank)["counts"]) for rank in (0, 1)]
    assert sum(counts) == 2 * int(Line(9).seen.sum()), "two epochs, nothing padded or doubled"
    assert min(counts) > 0


def test_a_corpus_batched_by_seconds_is_read_once_an_epoch(launched: pathlib.Path, tmp_path: pathlib.Path) -> None:
    threads = torch.get_num_threads()
    alone, weights = run(tmp_path, kind=Spoken)
    torch.set_num_threads(threads)
    steps = [outcome(launched, "spoken", rank)["indices"] for rank in (0, 1)]
    assert len(steps[0]) == len(steps[1]) == alone.steps
    epoch = alone.steps // 2
    shared = 0
    for first in (0, epoch):
        read: list[int] = []
        for mine, theirs in zip(*(one[first : first + epoch] for one in steps), strict=True):
            alike = mine == theirs and len(mine) == 1  # a batch of one: the other process reads it without weight
            shared += alike
            read += mine if alike else mine + theirs
        assert sorted(read) == list(range(25)), "each example once, in whichever process"
    assert 0 < shared < alone.steps, "batches of one and of several both occur"
    for name, value in weights.items():
        torch.testing.assert_close(
            torch.tensor(outcome(launched, "spoken", 1)["weights"][name]), value, rtol=0, atol=1e-6
        )


def test_a_signal_to_one_process_stops_both_and_resumes_bit_identically(launched: pathlib.Path) -> None:
    assert [outcome(launched, "stop", rank)["exit_code"] for rank in (0, 1)] == [143, 143]
    whole = outcome(launched, "whole", 0)["weights"]
    for rank in (0, 1):
        assert outcome(launched, "resume", rank)["weights"] == whole
    assert outcome(launched, "train", 0)["weights"] != whole, "dropout was at work"


def test_a_full_disk_stops_both(launched: pathlib.Path) -> None:
    assert "is full" in outcome(launched, "full", 0)["error"]
    assert "process 0 of 2 stopped the run" in outcome(launched, "full", 1)["error"]


def test_an_incomplete_launch_names_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"without RANK, LOCAL_RANK.*torchrun"):
        connect("cpu", "32-true")


def test_a_spawned_launch_names_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match=r"torchrun did not start.*spawn"):
        connect("cpu", "32-true")


# ------------------------------------------------------------------------------------------------ the job


def _counting(counts: list[int]) -> Any:
    """The loss, noting how many values of the validation set this process answers for."""

    def counted(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        total, count = loss(model, batch)
        empty_share = RANK == 1 and len(batch["x"]) == 1  # one example read in the stead of none
        if not model.training and not empty_share:
            counts.append(int(count))
        return total, count

    return counted


def _noting(indices: list[list[int]]) -> Any:
    """The loss, noting which training examples this process read in each step."""

    def noted(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if model.training:
            indices.append(batch["index"].tolist())
        return loss(model, batch)

    return noted


def _at_call(number: int, action: Any, rank: int) -> Any:
    calls = 0

    def with_action(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += model.training
        if calls == number and model.training and rank == RANK:
            action()
        return loss(model, batch)

    return with_action


def _fill() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _unlimited() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def _attempt(mode: str, folder: pathlib.Path) -> dict[str, Any]:
    counts: list[int] = []
    indices: list[list[int]] = []
    losses: dict[str, Any] = {
        "train": _counting(counts),
        "spoken": _noting(indices),
        "stop": _at_call(6, lambda: signal.raise_signal(signal.SIGTERM), 1),
        "full": _at_call(3, _fill, 0),
    }
    place = folder / ("parts" if mode in ("stop", "resume") else mode)
    dropout = 0.0 if mode in ("train", "spoken") else 0.3
    kind = Spoken if mode == "spoken" else Line
    try:
        result, weights = run(place, losses.get(mode, loss), resume=mode == "resume", dropout=dropout, kind=kind)
    except Interrupted as stopped:
        return {"exit_code": stopped.exit_code}
    except RunError as failed:
        _unlimited()
        return {"error": str(failed), "exit_code": 1}
    return {
        "weights": {name: value.tolist() for name, value in weights.items()},
        "history": result.history,
        "steps": result.steps,
        "counts": counts,
        "indices": indices,
        "validation": result.best_value,
        "exit_code": 0,
    }


def main(folder: pathlib.Path) -> None:
    for mode in MODES:
        report = _attempt(mode, folder)
        (folder / f"{mode}-{RANK}.json").write_text(json.dumps(report))


RANK = int(os.environ.get("RANK", "0"))

if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
