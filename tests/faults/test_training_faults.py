"""Training when things go wrong: kills, signals, full disks, damaged checkpoints, loss that is not a number.

Run as a script, this file is the job that is killed in a process of its own.
"""

# The global generator of NumPy, which ruff advises against, is what some of these tests are about.
# ruff: noqa: NPY002

from __future__ import annotations

import io
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.errors import ConfigError, Interrupted, RunError, WeightsError
from pipelines.training import checkpoint
from pipelines.training.loop import TrainResult, train
from pipelines.training.options import TrainOptions

STEPS = 6  # of an epoch: 42 examples in batches of 7
EPOCHS = 3


class Noisy(Dataset[dict[str, Tensor]]):
    """Examples with random augmentation from all three global generators and from the epoch hook."""

    def __init__(self, count: int = 42) -> None:
        self.x = torch.linspace(-1, 1, count * 5).reshape(count, 5)
        self.place = (0, 0)

    def set_epoch(self, seed: int, epoch: int) -> None:
        self.place = (seed, epoch)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        own = float(np.random.default_rng([*self.place, index]).normal())
        noise = torch.randn(5) * 0.1 + np.random.rand() * 0.1 + random.random() * 0.1 + own * 0.1
        return {"x": self.x[index] + noise, "y": self.x[index].sum()[None]}


def make_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 16), nn.Dropout(0.3), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 1))


def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    error = model(batch["x"]) - batch["y"]
    return error.square().sum(), error.numel()


def at_step(step: int, action: Callable[[], object], *, training: bool = True) -> Callable[..., tuple[Tensor, int]]:
    """The loss, with an action in the middle of a step (counted from 1) of training or validation."""
    calls = 0

    def with_action(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        nonlocal calls
        calls += model.training == training
        if calls == step and model.training == training:
            action()
        return loss(model, batch)

    return with_action


def run(
    folder: pathlib.Path, loss_fn: Any = loss, *, workers: int = 0, resume: bool = False, **changes: Any
) -> tuple[TrainResult, dict[str, Tensor]]:
    settings: dict[str, Any] = {"epochs": EPOCHS, "batch_size": 7, "patience": 0, "checkpoint_steps": 2}
    seed = changes.pop("seed", 5)
    data = changes.pop("train_set", None) or Noisy()
    model = changes.pop("model", None) or make_model()
    settings |= {"workers": workers} | changes
    options = TrainOptions(**settings)
    result = train(model, loss_fn, data, Noisy(9), options, folder=folder, seed=seed, device="cpu", resume=resume)
    return result, model.state_dict()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, dict[str, Tensor]]:
    """The run that nobody disturbed."""
    return run(tmp_path_factory.mktemp("whole"))


def same(a: tuple[TrainResult, dict[str, Tensor]], b: tuple[TrainResult, dict[str, Tensor]]) -> bool:
    weights = all(torch.equal(value, b[1][name]) for name, value in a[1].items())
    timeless = [[{**record, "seconds": 0} for record in result.history] for result, _ in (a, b)]
    numbers = [(result.best_epoch, result.best_value, result.steps) for result, _ in (a, b)]
    return weights and timeless[0] == timeless[1] and numbers[0] == numbers[1]


def job(mode: str, folder: str, **how: Any) -> subprocess.Popen[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, mode, folder]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **how)


def test_kill_9_in_mid_epoch_resumes_bit_identically(tmp_path: pathlib.Path, whole: Any) -> None:
    process = job("kill", str(tmp_path))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, errors
    saved = checkpoint.read_checkpoint(tmp_path / checkpoint.CHECKPOINT_NAME)["progress"]
    assert (saved["epoch"], saved["position"]) == (2, 4), "the kill came in mid-epoch"
    assert same(run(tmp_path, workers=2, resume=True), whole)


def test_kill_9_while_writing_keeps_the_old_checkpoint(tmp_path: pathlib.Path, whole: Any) -> None:
    process = job("kill-writing", str(tmp_path))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, errors
    assert list(tmp_path.glob(".*.partial")), "the process was killed between writing and renaming"
    assert same(run(tmp_path, resume=True), whole)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.CHECKPOINT_NAME]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("training", [True, False])
def test_a_signal_saves_and_says_how_to_resume(
    tmp_path: pathlib.Path, whole: Any, signum: int, code: int, training: bool
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop = at_step(3, lambda: signal.raise_signal(signum), training=training)
    with pytest.raises(Interrupted, match="--resume") as caught:
        run(tmp_path, stop, checkpoint_steps=0)
    assert caught.value.exit_code == code
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert same(run(tmp_path, resume=True), whole)


def test_a_signal_in_the_last_step_is_not_lost(tmp_path: pathlib.Path, whole: Any) -> None:
    with pytest.raises(Interrupted) as caught:
        run(tmp_path, at_step(STEPS * EPOCHS, lambda: signal.raise_signal(signal.SIGTERM)))
    assert caught.value.exit_code == 143
    assert same(run(tmp_path, resume=True), whole)


def test_ctrl_c_on_the_terminal_leaves_workers_quiet(tmp_path: pathlib.Path, whole: Any) -> None:
    process = job("slow", str(tmp_path), start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the main process and its workers at once
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "--resume" in errors
    assert same(run(tmp_path, workers=2, resume=True), whole)


def test_a_second_signal_ends_at_once(tmp_path: pathlib.Path) -> None:
    process = job("stuck", str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None, "the first signal lets the step finish"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: pathlib.Path, whole: Any) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    try:
        with pytest.raises(RunError, match=r"full .*\d+\.\d kB needed, .* free") as caught:
            run(tmp_path, at_step(8, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint.CHECKPOINT_NAME in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.CHECKPOINT_NAME]
    assert same(run(tmp_path, resume=True), whole)


def test_a_full_file_system_stops_before_training(tmp_path: pathlib.Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        with pytest.raises(RunError, match="No space left"):
            run(tmp_path, at_step(1, lambda: pytest.fail("training had begun")))
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_an_unwritable_folder_stops_before_training(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        run(tmp_path / "file" / "run", at_step(1, lambda: pytest.fail("training had begun")))


def test_a_folder_without_permission_stops_before_training(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(RunError, match="Permission denied"):
            run(tmp_path / "run", at_step(1, lambda: pytest.fail("training had begun")))
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        tmp_path.chmod(0o700)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("saved")
    run(folder, epochs=1)
    return (folder / checkpoint.CHECKPOINT_NAME).read_bytes()


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [part for name, item in value.items() for part in (name, *flat(item))]
    if isinstance(value, (list, tuple)):
        return [part for item in value for part in flat(item)]
    return [value.tolist() if isinstance(value, Tensor) else value]


def test_a_flipped_bit_is_never_silent(tmp_path: pathlib.Path, saved: bytes) -> None:
    path = tmp_path / checkpoint.CHECKPOINT_NAME
    path.write_bytes(saved)
    true = flat(checkpoint.read_checkpoint(path))
    places = random.Random(1)
    refused = 0
    for _ in range(300):
        content = bytearray(saved)
        content[places.randrange(len(content))] ^= 1 << places.randrange(8)
        path.write_bytes(content)
        try:
            assert flat(checkpoint.read_checkpoint(path)) == true, "padding may flip, content may not"
        except WeightsError:
            refused += 1
    assert refused > 200


def test_cut_files_are_refused_with_one_message(tmp_path: pathlib.Path, saved: bytes) -> None:
    path = tmp_path / checkpoint.CHECKPOINT_NAME
    for length in [0, 1, 100, *range(500, len(saved), 1009), len(saved) - 1]:
        path.write_bytes(saved[:length])
        with pytest.raises(WeightsError, match=r"cut short|checksum|cannot be read|not a training"):
            checkpoint.read_checkpoint(path)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (self.path,)


def test_a_pickle_that_runs_code_does_not_run(tmp_path: pathlib.Path) -> None:
    path, trap = tmp_path / checkpoint.CHECKPOINT_NAME, tmp_path / "sprung"
    torch.save({"kind": Trap(trap)}, path)
    with pytest.raises(WeightsError, match="run code"):
        run(tmp_path, resume=True)
    assert not trap.exists()


def test_foreign_archives_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / checkpoint.CHECKPOINT_NAME
    torch.save(make_model().state_dict(), path)
    with pytest.raises(WeightsError, match="not a training checkpoint"):
        checkpoint.read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError):
        checkpoint.read_checkpoint(path)


def test_a_checkpoint_with_a_hole_is_refused(tmp_path: pathlib.Path, saved: bytes) -> None:
    path = tmp_path / checkpoint.CHECKPOINT_NAME
    for part in ("random", "progress", "optimizer", "model"):
        state = torch.load(io.BytesIO(saved), weights_only=True)
        state[part] = {}
        torch.save(state, path)
        with pytest.raises(WeightsError, match="does not fit"):
            run(tmp_path, epochs=1, resume=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 6}, "another seed"),
        ({"epochs": 4}, "another epochs"),
        ({"batch_size": 6}, "another batch_size"),
        ({"learning_rate": 0.1}, "another learning_rate"),
        ({"train_set": Noisy(41)}, "another number of training examples"),
        ({"model": nn.Linear(5, 1)}, "another model"),
    ],
)
def test_other_conditions_are_refused_by_name(
    tmp_path: pathlib.Path, saved: bytes, changes: dict[str, Any], named: str
) -> None:
    (tmp_path / checkpoint.CHECKPOINT_NAME).write_bytes(saved)
    with pytest.raises(ConfigError, match=named):
        run(tmp_path, resume=True, **({"epochs": 1} | changes))


def test_other_data_of_the_same_length_are_refused(tmp_path: pathlib.Path, saved: bytes) -> None:
    (tmp_path / checkpoint.CHECKPOINT_NAME).write_bytes(saved)
    other = Noisy()
    other.x = other.x + 1
    with pytest.raises(ConfigError, match="training data"):
        run(tmp_path, epochs=1, resume=True, train_set=other)


def test_resume_without_a_checkpoint(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint to resume"):
        run(tmp_path, resume=True)


def test_a_finished_run_returns_at_once(tmp_path: pathlib.Path, whole: Any) -> None:
    first = run(tmp_path)
    again = run(tmp_path, at_step(1, lambda: pytest.fail("it trained again")), resume=True)
    assert same(first, again)
    assert same(first, whole)
    assert again[0].seconds == first[0].seconds


def test_a_checkpoint_is_never_overwritten_silently(tmp_path: pathlib.Path, saved: bytes) -> None:
    path = tmp_path / checkpoint.CHECKPOINT_NAME
    path.write_bytes(saved)
    with pytest.raises(ConfigError, match="never overwritten"):
        run(tmp_path)
    assert path.read_bytes() == saved


def test_a_loss_that_is_not_a_number(tmp_path: pathlib.Path) -> None:
    def broken(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
        total, count = loss(model, batch)
        broken.calls += model.training  # type: ignore[attr-defined]
        return (total * torch.nan if broken.calls == 9 else total), count  # type: ignore[attr-defined]

    broken.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(RunError, match=r"step 9 \(epoch 2, step size 0.001\) is nan"):
        run(tmp_path, broken)
    state = checkpoint.read_checkpoint(tmp_path / checkpoint.CHECKPOINT_NAME)
    assert state["progress"]["step"] == 8
    assert all(value.isfinite().all() for value in state["model"].values())


def _announce_and_wait() -> None:
    print("training", flush=True)
    time.sleep(1.5)


def _kill_in_write() -> None:
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)


def main(mode: str, folder: pathlib.Path) -> int:
    torch.set_num_threads(1)
    actions: dict[str, Any] = {
        "kill": (11, lambda: os.kill(os.getpid(), signal.SIGKILL)),
        "kill-writing": (9, _kill_in_write),
        "slow": (9, _announce_and_wait),
        "stuck": (2, lambda: (print("training", flush=True), [time.sleep(0.1) for _ in range(600)])),
    }
    try:
        run(folder, at_step(*actions[mode]), workers=0 if mode == "stuck" else 2)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2])))
