"""`pipelines forecast` when things go wrong: kills, signals, full disks, flipped bits; each in a process of its own."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipelines.data.catalog import read_named

#: Shuffled order, dropout, two workers, a checkpoint every four steps; 15 steps an epoch.
OPTIONS = shlex.split(
    "--context 24 --horizon 8 --model transformer --arch.d_model 8 --arch.n_heads 2 --arch.d_ff 16 --arch.e_layers 1"
    " --arch.dropout 0.2 --train.epochs 3 --train.patience 0 --train.batch_size 32 --train.workers 2"
    " --train.checkpoint_steps 4 --threads 1 --device cpu --seed 11"
)
PER_EPOCH = 15

#: A `pipelines` whose training does something at one step (counted from 1 in this process) before it is taken.
DRIVER = """
import os, resource, signal, sys
from pipelines.training import run

step, action = int(sys.argv[1]), sys.argv[2]
taken, calls = run.Run._step, 0

def with_action(self, batch):
    global calls
    calls += 1
    if calls == step:
        if action == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        elif action == "wait":
            print("training", flush=True)
            signal.pause()
        else:
            os.kill(os.getpid(), getattr(signal, action))
    taken(self, batch)

run.Run._step = with_action
from pipelines.cli import main
sys.exit(main(sys.argv[3:]))
"""


def pipelines(
    *words: str, cwd: pathlib.Path, at: tuple[int, str] | None = None, **how: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; ``at`` makes something happen at a training step."""
    start = ["-m", "pipelines"] if at is None else ["-c", DRIVER, str(at[0]), at[1]]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *start, *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300, **how)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """720 business days of two exchange rates."""
    source = read_named("exchange")
    one = source.series[0]
    frame = pd.DataFrame(one.target[:720, :2], columns=list(source.targets[:2]))
    frame.insert(0, "date", one.time[:720].strftime("%Y-%m-%d"))
    path = tmp_path_factory.mktemp("table") / "rates.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def whole(table: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    done = pipelines("forecast", "fit", "--data", str(table), *OPTIONS, "-o", "run/", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def same(run: pathlib.Path, whole: pathlib.Path) -> bool:
    """Bit-identical weights, and the same figures and losses."""
    one, two = (load_file(folder / "model.safetensors") for folder in (run, whole))
    assert one.keys() == two.keys()
    assert len(one) > 10
    figures = [json.loads((folder / "evaluation.json").read_text()) for folder in (run, whole)]
    history = [
        [{k: v for k, v in entry.items() if k != "seconds"} for entry in _config(folder)["training"]["history"]]
        for folder in (run, whole)
    ]
    numbers = all(figures[0][name] == figures[1][name] for name in ("mse", "mae", "crps", "windows", "horizons"))
    return all(torch.equal(one[name], two[name]) for name in one) and numbers and history[0] == history[1]


def _config(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def words_after(text: str) -> list[str]:
    """The command that a message tells the user to continue with."""
    line = next(line for line in text.splitlines() if "Continue with: " in line)
    words = shlex.split(line.split("Continue with: ")[1])
    assert words[0] == "pipelines"
    return words[1:]


@pytest.fixture
def fit(table: pathlib.Path, tmp_path: pathlib.Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Start the fit that `whole` ran, with something that happens to it."""

    def start(step: int, action: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = ("forecast", "fit", "--data", str(table), *OPTIONS, *(more or ("-o", "run/")))
        return pipelines(*words, cwd=tmp_path, at=(step, action))

    return start


def position(run: pathlib.Path) -> tuple[int, int]:
    """(epoch, batch) of the checkpoint of a run."""
    from pipelines.training.checkpoint import read_checkpoint

    progress = read_checkpoint(run / "training" / "training.pt")["progress"]
    return progress["epoch"], progress["position"]


def test_kill_9_in_mid_epoch_resumes_bit_identically(fit: Any, whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = fit(PER_EPOCH + 7, "SIGKILL")
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = tmp_path / "run"
    assert position(run) == (2, 5), "the kill came in mid-epoch, after the checkpoint of step 20"
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "training"]
    resumed = pipelines("forecast", "fit", "--resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed run/training/training.pt at step 20 (epoch 2, batch 5)" in resumed.stderr
    assert same(run, whole)
    assert (run / "config.yaml").read_text() == (whole / "config.yaml").read_text()
    assert not list(run.rglob("*.partial"))
    again = pipelines("forecast", "fit", "--resume", "run", "--quiet", cwd=tmp_path)
    assert again.returncode == 0, "a finished run returns its result"
    assert same(run, whole)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_saves_and_says_how_to_go_on(
    fit: Any, whole: pathlib.Path, tmp_path: pathlib.Path, name: str, code: int
) -> None:
    done = fit(PER_EPOCH + 6, name)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert name in done.stderr
    assert done.stdout == ""
    run = tmp_path / "run"
    assert position(run) == (2, 6), "the step that was under way was finished and saved"
    words = words_after(done.stderr)
    assert words == ["forecast", "fit", "--resume", "run"]
    resumed = pipelines(*words, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert same(run, whole)


def test_ctrl_c_reaches_the_workers_too(table: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As a terminal does it: to the process and its workers at once; the default folder is named in the message."""
    words = ["forecast", "fit", "--data", str(table), *OPTIONS]
    command = [sys.executable, "-c", DRIVER, str(PER_EPOCH + 3), "wait", *words]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, **streams) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    run = next((tmp_path / "runs").iterdir())
    resume = words_after(errors)
    assert resume[-2:] == ["--resume", f"runs/{run.name}"]
    assert pipelines(*resume, cwd=tmp_path).returncode == 0
    assert same(run, whole)


def test_a_run_with_an_output_file_goes_on_to_that_file(
    table: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The folder of the run holds the state; the answer still goes where the user wanted it."""
    words = ("forecast", "evaluate", "--data", str(table), *OPTIONS, "-o", "figures.json")
    done = pipelines(*words, cwd=tmp_path, at=(PER_EPOCH + 6, "SIGTERM"))
    assert done.returncode == 143, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    resume = words_after(done.stderr)
    assert resume[-2:] == ["--output", "figures.json"]
    resumed = pipelines(*resume, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    ours, expected = (json.loads(p.read_text()) for p in (tmp_path / "figures.json", whole / "evaluation.json"))
    assert ours["mse"] == expected["mse"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "runs",
        *(f"figures.json{ending}" for ending in ("", ".png", ".report.html", ".config.yaml")),
    }


def test_seeds_go_on_where_they_were(table: pathlib.Path, tmp_path: pathlib.Path) -> None:
    words = ("forecast", "evaluate", "--data", str(table), *OPTIONS, "--train.workers", "0", "--seeds", "2")
    expected = pipelines(*words, "-o", "whole/", cwd=tmp_path)
    assert expected.returncode == 0, expected.stderr
    done = pipelines(*words, "-o", "run/", cwd=tmp_path, at=(3 * PER_EPOCH + 6, "SIGTERM"))
    assert done.returncode == 143, done.stderr
    resumed = pipelines(*words_after(done.stderr), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "finished" in resumed.stderr, "the first seed is not fitted again"
    one, two = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("run", "whole"))
    assert one["seeds"] == two["seeds"]
    assert one["mse"] == two["mse"]


def test_a_full_disk_keeps_the_last_checkpoint(fit: Any, whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = fit(PER_EPOCH + 2, "full")
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pipelines: ")
    for part in ("full", "kB needed", "free", "training.pt", "Cure:"):
        assert part in last
    assert "Traceback" not in done.stderr
    run = tmp_path / "run"
    assert position(run) == (2, 1), "the last checkpoint before the disk was full"
    assert not list(run.rglob("*.partial"))
    assert pipelines("forecast", "fit", "--resume", "run", cwd=tmp_path).returncode == 0
    assert same(run, whole)


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 24 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_from_the_start(
    table: pathlib.Path, small_disk: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    words = ("forecast", "fit", "--data", str(table), *OPTIONS, "-o", f"{small_disk}/run/")
    done = pipelines(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "needed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(small_disk.iterdir()), "no trace of a run that never began"


def test_a_full_disk_while_answering(whole: pathlib.Path, table: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The answer is written whole or not at all, and what was there before stays."""
    (tmp_path / "f.csv").write_text("mine\n")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    words = ("forecast", "predict", str(table), "--checkpoint", str(whole), "-o", "f.csv", "--overwrite", "--quiet")
    done = pipelines(*words, cwd=tmp_path, preexec_fn=limit)
    assert done.returncode == 1, done.stderr
    assert "f.csv" in done.stderr
    assert "needed" in done.stderr
    assert (tmp_path / "f.csv").read_text() == "mine\n"
    assert [path.name for path in tmp_path.iterdir()] == ["f.csv"]


def test_a_flipped_bit_in_the_weights_is_refused(
    whole: pathlib.Path, table: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-5] ^= 1  # in a weight: no reader of the format would notice
    (copy / "model.safetensors").write_bytes(content)
    done = pipelines("forecast", "predict", str(table), "--checkpoint", "copy", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "model.safetensors" in done.stderr
    assert "Cure:" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_run_is_not_resumed_into_another_one(fit: Any, table: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert fit(3, "SIGTERM").returncode == 143
    lines = table.read_text().splitlines()
    (tmp_path / "other.csv").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    before = (tmp_path / "run" / "training" / "training.pt").read_bytes()
    for more in (("--seed", "12"), ("--train.batch_size", "16"), ("--data", "other.csv")):
        done = pipelines("forecast", "fit", "--resume", "run", *more, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "cannot be resumed with another" in done.stderr
        assert (tmp_path / "run" / "training" / "training.pt").read_bytes() == before


def test_sigterm_before_training_leaves_nothing(table: pathlib.Path, tmp_path: pathlib.Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pipelines.forecast.pipeline import Forecaster\n"
        "Forecaster.read = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from pipelines.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "forecast", "fit", "--data", str(table), *OPTIONS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert "--resume" not in done.stderr
    assert not list(tmp_path.iterdir())
