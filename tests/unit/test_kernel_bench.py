"""The instruments of the kernel benchmark, and every operation's own contests at their smallest."""

from __future__ import annotations

import math
import pathlib
import time
from typing import Any

import pytest
import torch

from core_attention.kernels import _machine, ops
from core_attention.kernels._bench import Contest, Line, Sweep, all_contests
from core_attention.kernels._machine import Peaks, measure_peaks
from core_attention.kernels._measure import (
    PEER,
    difference,
    exponent,
    measure_line,
    measure_sweep,
)

LINES, SWEEPS, _ = all_contests()
PEAKS = Peaks(float32=100.0, bfloat16=400.0, copy=10.0)
ONES = torch.ones(4)


def _line(contest: Contest, **goals: float) -> Line:
    return Line("copy", "four ones", "torch", goals, lambda generator: contest)


def _figures(contest: Contest, repeats: int = 2, **goals: float) -> dict[str, Any]:
    result = measure_line(_line(contest, **goals), PEAKS, repeats=repeats)
    return {figure.contestant: figure for figure in result.figures}


def _after(seconds: float) -> Any:
    def call() -> torch.Tensor:
        time.sleep(seconds)
        return ONES

    return call


# Every operation ------------------------------------------------------------------------------------------------------


def test_lines_and_sweeps_are_well_formed() -> None:
    for line in LINES:
        assert line.operation in ops()
        assert line.name
        assert line.peer
        assert all(goal > 0 for goal in line.goals.values())
        assert set(line.goals) <= set(ops()[line.operation].backends), line
    for sweep in SWEEPS:
        assert sweep.operation in ops()
        assert len(sweep.sizes) >= 3, sweep.name
        assert list(sweep.sizes) == sorted(set(sweep.sizes)), sweep.name
    names = [(contest.operation, contest.name) for contest in (*LINES, *SWEEPS)]
    assert len([(line.operation, line.name) for line in LINES]) == len({(x.operation, x.name) for x in LINES}), names


def test_every_folder_has_a_line_and_a_sweep() -> None:
    folders = {operation.package for operation in ops().values()}
    assert {ops()[line.operation].package for line in LINES} == folders
    assert {ops()[sweep.operation].package for sweep in SWEEPS} == folders


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: f"{sweep.operation}-{sweep.axis}".replace(" ", "_"))
def test_contestants_agree_with_the_peer_at_the_smallest_size(sweep: Sweep) -> None:
    contest = sweep.contest(sweep.sizes[0], torch.Generator().manual_seed(0))
    assert contest.bytes > 0
    assert contest.ours

    def outputs(call: Any) -> list[Any]:
        returned = call()
        return [None if t is None else t.detach() for t in (returned if isinstance(returned, tuple) else (returned,))]

    expected = outputs(contest.peer)
    for name, call in contest.ours.items():
        assert name in ops()[sweep.operation].backends
        if name != "gpu" or torch.cuda.is_available():
            assert difference(outputs(call), expected) <= contest.tolerance, name


def test_contests_of_some_operations_only() -> None:
    lines, sweeps, without = all_contests(["delay_correlation", "delay_aggregate"])
    assert {line.operation for line in lines} == {"delay_aggregate"}
    assert {sweep.operation for sweep in sweeps} == {"delay_aggregate"}
    assert without == ["delay_correlation"]


# Parity ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected", "value"),
    [
        ([ONES], [ONES], 0.0),
        ([ONES * 1.5], [ONES], 0.5),
        ([ONES, ONES * 1.25], [ONES, ONES], 0.25),
        ([ONES], [ONES, ONES], math.inf),
        ([torch.ones(5)], [ONES], math.inf),
        ([ONES * math.nan], [ONES], math.inf),
        ([ONES], [ONES * math.nan], math.inf),
        ([ONES], [ONES * 0], math.inf),
        ([ONES * 0], [ONES * 0], 0.0),
        ([None, ONES], [None, ONES], 0.0),
        ([None], [ONES], math.inf),
        ([torch.tensor([1, 2, 3, 4])], [torch.tensor([1, 2, 3, 5])], 0.25),
        ([torch.ones(0)], [torch.ones(0)], 0.0),
        ([ONES.bfloat16()], [ONES], 0.0),
    ],
)
def test_difference(found: list[Any], expected: list[Any], value: float) -> None:
    assert difference(found, expected) == pytest.approx(value)


def test_no_ratio_without_parity() -> None:
    def refused() -> torch.Tensor:
        raise ValueError("copy: backend='gpu' cannot serve float32 on cpu: not on a CUDA device")

    def broken() -> torch.Tensor:
        raise RuntimeError("a bug\nof two lines")

    ours = {"eager": lambda: ONES, "cpu": lambda: ONES * 1.01, "gpu": refused, "reference": broken}
    found = _figures(Contest(lambda: ONES, ours, bytes=32), cpu=2.0)
    assert found["eager"].ratio > 0
    assert found["eager"].difference == 0
    assert not found["eager"].failed
    wrong = found["cpu"]
    assert wrong.failed
    assert (wrong.milliseconds, wrong.ratio, wrong.met, wrong.goal) == (None, None, None, 2.0)
    assert wrong.trouble == "FAILED PARITY: off by 1.0e-02, tolerance 1e-04"
    assert found["gpu"].trouble.startswith("not run: ValueError: copy: backend='gpu' cannot serve")
    assert not found["gpu"].failed
    assert found["reference"].trouble == "FAILED: RuntimeError: a bug of two lines"
    assert found["reference"].failed


def test_a_peer_that_fails_leaves_no_figure() -> None:
    def broken() -> torch.Tensor:
        raise RuntimeError("no peer")

    found = _figures(Contest(broken, {"eager": lambda: ONES}, bytes=32))
    assert found[PEER].failed
    assert found["eager"].trouble.startswith("not run")


def test_a_signal_is_no_failure_of_a_contestant() -> None:
    class Stopped(RuntimeError):
        exit_code = 143

    def stopped() -> torch.Tensor:
        raise Stopped

    with pytest.raises(Stopped):
        _figures(Contest(lambda: ONES, {"eager": stopped}, bytes=32))


# Time -----------------------------------------------------------------------------------------------------------------


def test_ratio_and_goal() -> None:
    found = _figures(Contest(_after(0.05), {"eager": _after(0.01), "cpu": _after(0.05)}, bytes=32), eager=2.0, cpu=9.0)
    assert found["eager"].ratio > 2
    assert found["eager"].met is True
    assert found["cpu"].met is False
    assert found[PEER].ratio == 1
    assert found[PEER].milliseconds >= 50
    assert found[PEER].goal is None


def test_contestants_take_turns() -> None:
    calls: list[str] = []

    def contestant(name: str) -> Any:
        def call() -> torch.Tensor:
            time.sleep(0.006)  # longer than the shortest measurement: one call each
            calls.append(name)
            return ONES

        return call

    _figures(Contest(contestant("p"), {"eager": contestant("e"), "cpu": contestant("c")}, bytes=32), repeats=3)
    measured = "".join(calls)[6:]  # after parity, twice each
    assert measured[:18] == 3 * "ppeecc"  # untimed, timed


def test_share_of_the_peak() -> None:
    contest = Contest(lambda: ONES, {}, bytes=5e9, flops=20e9)
    assert PEAKS.share(contest, 1.0, half=False) == (0.5, "copy")
    assert PEAKS.share(contest, 0.1, half=False) == (5.0, "copy")
    product = Contest(lambda: ONES, {}, bytes=1e9, flops=80e9)
    assert PEAKS.share(product, 1.0, half=False) == (0.8, "product")
    assert PEAKS.share(product, 1.0, half=True) == (0.2, "product")


def test_peaks_of_this_machine() -> None:
    peaks = measure_peaks()
    assert min(peaks.float32, peaks.bfloat16, peaks.copy) > 0


def test_exponents() -> None:
    assert exponent([1, 2, 4, 8], [5.0, 10.0, 20.0, 40.0]) == pytest.approx(1.0)
    assert exponent([10, 100, 1000], [1.0, None, 100.0]) is None
    assert exponent([1, 2, 4, 8], [0.5, 4.0, 16.0, 64.0], least=1.0) == pytest.approx(2.0)


def test_sweep() -> None:
    def contest(size: int, generator: torch.Generator) -> Contest:
        ours: dict[str, Any] = {"eager": _after(0.002 * size), "cpu": (lambda: ONES * 2)}
        if size == 4:
            del ours["cpu"]
        return Contest(_after(0.004 * size), ours, bytes=32)

    done: list[int] = []
    found = measure_sweep(
        Sweep("copy", "ones", "rows", "torch", (2, 4, 8), contest), repeats=1, done=lambda: done.append(1)
    )
    assert len(done) == 3
    assert found.sizes == [2, 4, 8]
    assert {name: len(values) for name, values in found.milliseconds.items()} == {PEER: 3, "eager": 3, "cpu": 3}
    assert found.milliseconds["cpu"] == [None, None, None]
    assert found.exponents["cpu"] == {"time": None, "memory": None}
    assert 0.5 < (found.exponents[PEER]["time"] or 0) < 1.5
    assert found.trouble == {"cpu": "rows 2: FAILED PARITY: off by 1.0e+00, tolerance 1e-04"}


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(_machine.memory_obstacle() is not None, reason=str(_machine.memory_obstacle()))
def test_extra_memory_is_the_peak_less_what_is_returned() -> None:
    def call() -> tuple[torch.Tensor, torch.Tensor]:
        scratch = torch.ones(16 << 20)  # 64 MiB
        kept = scratch[: 4 << 20].clone()  # 16 MiB
        return kept, kept[:2]

    assert _machine.extra_memory(call) == pytest.approx(64 << 20, abs=6 << 20)
    assert _machine.extra_memory(lambda: ONES) == pytest.approx(0, abs=4 << 20)
    # Freed memory that the allocator keeps would otherwise be taken again unseen.
    blocks = [torch.ones(50_000) for _ in range(200)]
    del blocks
    assert _machine.extra_memory(lambda: [torch.ones(50_000) for _ in range(200)] and ONES) > 30 << 20


def test_memory_that_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(_machine, "_CLEAR", tmp_path / "absent")
    assert "keeps no peak" in str(_machine.memory_obstacle())
    assert _machine.extra_memory(lambda: ONES) is None
    monkeypatch.setattr(_machine, "_CLEAR", tmp_path)  # a folder cannot be written to
    assert "cannot be reset" in str(_machine.memory_obstacle())
