"""The Triton kernels of every operation in the checked interpreter, and proof that it catches what it should."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
import torch

from core_attention.kernels import ops
from core_attention.kernels._testing import error_ratio, nan_poison, non_contiguous, two_references

HERE = pathlib.Path(__file__).resolve().parent


def _interpret(what: str) -> str:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(HERE / "interpreted_kernels.py"), what],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("name", [name for name, operation in ops().items() if "gpu" in operation.backends])
def test_kernels_obey_the_two_reference_rule_in_any_order(name: str) -> None:
    said = _interpret(name)
    assert f"parity {name}" in said
    assert f"order {name}" in said


def test_the_interpreter_catches_faulty_kernels() -> None:
    said = _interpret("faults")
    expected = ["past_the_end", "all_write_one", "reads_its_neighbour", "one_lane_twice", "leaves_a_hole", "numbers"]
    assert not [words for words in expected if words not in said]


def test_the_instruments_can_fail() -> None:
    truth = torch.ones(4, dtype=torch.float64)
    assert error_ratio(truth, truth) == 0
    assert error_ratio(truth * 1.5, truth) == pytest.approx(0.5)
    assert error_ratio(torch.full((4,), float("nan")), truth) == float("inf")
    with nan_poison():
        assert torch.empty(3).isnan().all()
        assert torch.zeros(2).new_empty(3).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
    assert not non_contiguous(torch.randn(2, 6)).is_contiguous()
    operation = ops()["delay_aggregate"]
    wrong = two_references(
        operation,
        operation.module("cases").CASES["delay_aggregate"][0].arguments(torch.float32),
        ours=lambda values, lags, weights: operation.public(values, -lags, weights),
        plain=operation.plain,
    )
    assert not any(entry.holds for entry in wrong if entry.name != "d_weights")
