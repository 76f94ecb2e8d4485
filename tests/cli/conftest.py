"""The command line in this process, small slices of the embedded data, and one small fitted model."""

from __future__ import annotations

import contextlib
import io
import pathlib
import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.cli import main
from pipelines.data.catalog import read_named


class Done(NamedTuple):
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str


Command = Callable[[str], Done]


def run_here(line: str) -> Done:
    """Run one command of the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(shlex.split(line))
        except SystemExit as stop:  # --help and --print_config leave by the parsing library
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run commands in an empty folder of their own."""
    monkeypatch.chdir(tmp_path)
    return run_here


@pytest.fixture(scope="session")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A wide table: 700 business days of two exchange rates."""
    table = read_named("exchange")
    one = table.series[0]
    frame = pd.DataFrame(one.target[:700, :2], columns=list(table.targets[:2]))
    frame.insert(0, "date", one.time[:700].strftime("%Y-%m-%d"))
    path = tmp_path_factory.mktemp("exchange") / "rates.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def electricity(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Half-hourly demand with gaps, a known and a past column, stamps in Melbourne time, and 12 known future rows."""
    table = read_named("vic_elec")
    one = table.series[0]
    rows = slice(2000, 2860)  # away from the change of daylight-saving time
    frame = pd.DataFrame(
        {
            "Time": one.time[rows].tz_convert("Australia/Melbourne").map(lambda stamp: stamp.isoformat()),
            "Demand": one.target[rows, 0],
            "Holiday": one.known[rows, 0].astype(int),
            "Temperature": one.past[rows, 0],
        }
    )
    frame.loc[frame.index[-12:], ["Demand", "Temperature"]] = np.nan
    frame.loc[[100, 101, 400], "Demand"] = np.nan
    frame = frame.drop(index=[200, 201])
    path = tmp_path_factory.mktemp("electricity") / "demand.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def model(exchange: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a small fitted dlinear: context 24, horizon 8."""
    folder = tmp_path_factory.mktemp("model") / "fitted"
    done = run_here(f"forecast fit --data {exchange} --context 24 --horizon 8 --train.epochs 1 --quiet -o {folder}/")
    assert done.code == 0, done.err
    return folder


class Refused:
    """Run a command that must be refused, and hold its message to the rules."""

    def __init__(self, command: Command, folder: pathlib.Path) -> None:
        self.command, self.folder = command, folder

    def __call__(self, line: str, *parts: str, code: int = 2) -> str:
        from_listing = _listing(self.folder)
        done = self.command(line)
        assert done.code == code, f"{line}: exit {done.code}: {done.err}"
        assert done.out == ""
        messages = [text for text in done.err.splitlines() if text.startswith("pipelines: ")]
        assert len(messages) == 1, done.err
        assert "Traceback" not in done.err
        assert "internal error" not in done.err
        for part in parts:
            assert part in messages[0], f"{part!r} is not in {messages[0]!r}"
        assert _listing(self.folder) == from_listing, "a refused command wrote something"
        return messages[0]


def _listing(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def refused(command: Command, tmp_path: pathlib.Path) -> Refused:
    return Refused(command, tmp_path)
