"""`pipelines bench kernels`: what it writes, prints and refuses; the contests are small ones of our own."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch

from core_attention.kernels import _bench, _inspect, _machine
from core_attention.kernels._bench import Contest, Line, Sweep
from core_attention.kernels._traffic import Moved

ONES = torch.ones(64)
LINE = Line("delay_aggregate", "[bold] of 64", "torch's clone", {"eager": 1e-9}, lambda _: _contest())
SWEEP = Sweep("delay_aggregate", "clone", "rows", "torch's clone", (64, 128, 256), lambda size, _: _contest(size))


def _contest(size: int = 64, **ours: Any) -> Contest:
    x = torch.ones(size)
    return Contest(x.clone, ours or {"eager": lambda: x * 1}, bytes=8 * size)


@pytest.fixture
def contests(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the operations' own contests, and the machine's peaks."""
    monkeypatch.setattr(_machine, "measure_peaks", lambda: _machine.Peaks(100.0, 50.0, 10.0))

    def give(lines: Any = (LINE,), sweeps: Any = (SWEEP,), without: Any = ()) -> None:
        monkeypatch.setattr(_bench, "all_contests", lambda only: (list(lines), list(sweeps), list(without)))

    give()
    return give


def _folder() -> dict[str, pathlib.Path]:
    return {path.name: path for path in pathlib.Path("runs").rglob("*") if path.is_file()}


def test_files_and_tables(command: Any, contests: Any) -> None:
    contests(without=["delay_correlation"])
    threads = torch.get_num_threads()
    done = command("bench kernels --repeats 2 --threads 2")
    assert done.code == 0, done.err
    assert torch.get_num_threads() == threads
    files = _folder()
    assert set(files) == {"kernels.json", "kernels.png"}
    assert files["kernels.json"].parent.name.startswith("bench-kernels-2")
    assert files["kernels.png"].read_bytes().startswith(b"\x89PNG")
    for words in ("[bold] of 64", "against torch's clone", "1e-09 met", "clone, by rows", "power", "goals: 1 met"):
        assert words in done.out
    assert "without a line: delay_correlation" in done.out
    assert "matrix product 100 GFLOP/s in float32, 50 in bfloat16; copy 10.0 GB/s" in done.out
    assert f"wrote {files['kernels.json']}" in done.out
    assert "measuring kernels" in done.err
    found = json.loads(files["kernels.json"].read_text())
    assert found["complete"] is True
    assert found["machine"]["threads"] == found["options"]["threads"] == 2
    assert {"cpu", "torch", "numba", "python", "date"} <= set(found["machine"])
    assert set(found["peaks"]) == {"float32", "bfloat16", "copy"}
    peer, eager = found["lines"][0]["figures"]
    assert (peer["contestant"], eager["contestant"]) == ("peer", "eager")
    assert eager["ratio"] == pytest.approx(peer["milliseconds"] / eager["milliseconds"])
    assert found["sweeps"][0]["sizes"] == [64, 128, 256]
    assert set(found["sweeps"][0]["exponents"]["eager"]) == {"time", "memory"}


def test_json_is_one_object(command: Any, contests: Any) -> None:
    done = command("bench kernels delay_aggregate --repeats 1 --json --quiet -o out/")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["files"] == ["out/kernels.json", "out/kernels.png"]
    written = json.loads(pathlib.Path("out/kernels.json").read_text())
    assert {name: value for name, value in found.items() if name != "files"} == written


def test_a_missed_goal_is_said_and_is_no_failure(command: Any, contests: Any) -> None:
    contests([dataclasses.replace(LINE, goals={"eager": 1e9})], [])
    done = command("bench kernels --repeats 1 --quiet")
    assert done.code == 0
    assert "1e+09 MISSED" in done.out
    assert "goals: 0 met, 1 missed:" in done.out
    assert set(_folder()) == {"kernels.json"}  # no sweep, no picture


def test_wrong_results_have_no_ratio_and_fail(command: Any, contests: Any) -> None:
    wrong = {"eager": lambda: ONES, "cpu": lambda: ONES * 2}
    contests([dataclasses.replace(LINE, contest=lambda _: _contest(**wrong))], [])
    done = command("bench kernels --repeats 1 --quiet")
    assert done.code == 1
    assert "FAILED PARITY" in done.out
    assert "cpu: FAILED PARITY: off by 1.0e+00, tolerance 1e-04" in done.out
    found = json.loads(_folder()["kernels.json"].read_text())
    assert found["lines"][0]["figures"][2]["ratio"] is None
    assert len(found["failures"]) == 1
    contests([], [dataclasses.replace(SWEEP, contest=lambda size, _: _contest(**wrong))])
    assert command("bench kernels --repeats 1 --quiet -o sweep").code == 1


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("bench kernels delay_agregate", ("delay_agregate", "unknown operation", "did you mean delay_aggregate?")),
        ("bench kernels no_such_thing", ("unknown operation", "delay_correlation")),
        ("bench kernels --repeats 0", ("--repeats", "Found: 0")),
        ("bench kernels --repeats many", ("--repeats", "many")),
        ("bench kernels --threads -1", ("--threads",)),
        ("bench kernels --repeat-s 3", ("unknown option", "did you mean --repeats")),
        ("bench kernel", ("pipelines bench kernel", "did you mean kernels?")),
        ("bench softmax", ("Expected: kernels", "--mechanism")),
    ],
)
def test_wrong_words(refused: Any, line: str, parts: tuple[str, ...]) -> None:
    refused(line, *parts)


def test_an_operation_without_contests(refused: Any, contests: Any) -> None:
    contests([], [], ["delay_correlation"])
    refused("bench kernels delay_correlation", "delay_correlation", "no speed line")


def test_an_output_that_exists_is_kept(command: Any, contests: Any) -> None:
    folder = pathlib.Path("out")
    folder.mkdir()
    (folder / "other.txt").write_text("mine")
    done = command("bench kernels --repeats 1 --quiet -o out")
    assert done.code == 2
    assert "--overwrite" in done.err
    assert [path.name for path in folder.iterdir()] == ["other.txt"]
    assert command("bench kernels --repeats 1 --quiet -o out --overwrite").code == 0
    assert {path.name for path in folder.iterdir()} == {"other.txt", "kernels.json", "kernels.png"}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_what_was_measured(command: Any, contests: Any, signum: int) -> None:
    def stops() -> torch.Tensor:
        signal.raise_signal(signum)
        return ONES

    second = dataclasses.replace(LINE, name="second", contest=lambda _: _contest(eager=stops))
    contests([LINE, second])
    done = command("bench kernels --repeats 1 --quiet")
    assert done.code == 128 + signum
    assert done.out == ""
    assert "1 lines and 0 sweeps measured until then are in" in done.err
    assert "Traceback" not in done.err
    files = _folder()
    assert set(files) == {"kernels.json"}
    found = json.loads(files["kernels.json"].read_text())
    assert found["complete"] is False
    assert [line["name"] for line in found["lines"]] == ["[bold] of 64"]


def test_a_signal_before_the_first_line_writes_nothing(command: Any, contests: Any) -> None:
    def stops() -> torch.Tensor:
        raise KeyboardInterrupt

    contests([dataclasses.replace(LINE, contest=lambda _: _contest(eager=stops))])
    done = command("bench kernels --repeats 1 --quiet")
    assert done.code == 130
    assert "nothing was written" in done.err
    assert not list(pathlib.Path().iterdir())


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys\nfrom pipelines.cli import main\n"
        "try:\n    main(['bench', 'kernels', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = [name for name in ('torch', 'pandas', 'matplotlib', 'numba', 'rich') if name in sys.modules]\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--repeats", "--threads", "--output", "--inspect", "--json", "operations"):
        assert option in done.stdout


def test_the_older_bench_is_as_it_was(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.cli import bench as older

    monkeypatch.setattr(older, "bench", lambda names, lengths, **_: [{"mechanism": n} for n in names])
    done = command("bench --mechanism softmax --lengths 8,16 --json")
    assert (done.code, json.loads(done.out)) == (0, {"bench": [{"mechanism": "softmax"}]})
    assert "bench kernels" in " ".join(command("bench --help").out.split())


# Inspection -----------------------------------------------------------------------------------------------------------

REPORT = _inspect.KernelReport(
    target="sm_90",
    operation="delay_aggregate",
    kernel="aggregate_kernel",
    variant="aggregate_kernel(values:*bf16)",
    warps=4,
    registers=40,
    spills=0,
    shared=0,
    blocks=12,
    tensor=0,
    dots=False,
    half=True,
    shared_limit=232448,
    register_limit=255,
)


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(report: _inspect.KernelReport) -> None:
        moved = [Moved("delay_aggregate", "forward", "usual", 1, 1000, 1000)]

        def inspect_all(only: Any, progress: Any) -> _inspect.Inspection:
            progress(1, 1)
            return _inspect.Inspection([report, dataclasses.replace(report, warps=8)], moved, [])

        monkeypatch.setattr(_inspect, "inspect_all", inspect_all)
        monkeypatch.setattr(_inspect, "unavailable", lambda: None)

    return give


def test_inspection_prints_tables_and_fails_over_budget(command: Any, inspected: Any) -> None:
    inspected(REPORT)
    done = command("bench kernels --inspect delay_aggregate")
    assert done.code == 0, done.out
    for words in (
        "sm_90: at most 255 registers",
        "delay_aggregate.aggregate_kernel",
        "4/8",
        "bytes moved",
        "fit their",
    ):
        assert words in done.out
    assert not list(pathlib.Path().iterdir())
    inspected(dataclasses.replace(REPORT, spills=7))
    done = command("bench kernels --inspect --json --quiet -o out")
    assert (done.code, done.err) == (1, "")
    found = json.loads(done.out)
    assert any("spills 7, budget 0" in line for line in found["complaints"])
    assert json.loads(pathlib.Path("out/inspection.json").read_text())["kernels"] == found["kernels"]


def test_inspection_where_nothing_can_be_compiled(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    refused("bench kernels --inspect", "cannot be inspected", "TRITON_INTERPRET is set", code=1)
