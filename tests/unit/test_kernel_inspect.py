"""Kernels compiled for chips that are not here, against the committed budget; and the host code dry-run."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from core_attention.kernels import _inspect, ops

pytestmark = pytest.mark.skipif(_inspect.unavailable() is not None, reason=str(_inspect.unavailable()))


@pytest.fixture(scope="module")
def reports() -> list[_inspect.KernelReport]:
    return _inspect.inspect_kernels()


def test_every_kernel_fits_its_budget_on_every_chip(reports: list[_inspect.KernelReport]) -> None:
    assert _inspect.over_budget(reports) == []
    assert {report.target for report in reports} == set(_inspect.TARGETS)
    assert {report.kernel for report in reports} == {"aggregate_kernel", "correlation_kernel"}
    assert all(report.registers > 8 and report.spills == 0 for report in reports)


def test_budgets_allow_no_spills_and_stay_under_the_limits() -> None:
    for name, kernels in json.loads(_inspect.BUDGETS.read_text()).items():
        target = _inspect.TARGETS[name]
        for budget in kernels.values():
            assert budget["spills"] == 0
            assert budget["shared"] <= target.shared_limit
            assert budget["registers"] <= target.register_limit


def test_a_kernel_over_budget_is_named(reports: list[_inspect.KernelReport]) -> None:
    spilling = dataclasses.replace(reports[0], spills=3)
    assert any("spills 3, budget 0" in line for line in _inspect.over_budget([spilling]))
    greedy = dataclasses.replace(reports[0], shared=200 * 1024)
    assert greedy.target == "sm_80"
    assert any("over the chip's limits" in line for line in _inspect.over_budget([greedy]))
    unknown = dataclasses.replace(reports[0], kernel="another")
    assert any("no budget" in line for line in _inspect.over_budget([unknown]))


def test_dry_run_launches_what_a_gpu_would() -> None:
    """Forward and both gradients of the aggregate: two launches of its kernel, one of the correlation's."""
    operation = ops()["delay_aggregate"]
    case = operation.module("cases").INSPECTED["delay_aggregate"][1]  # B 2, T 51, C 105, K 3
    for _ in range(2):  # a second run must not see the first one's launches
        with _inspect.dry_run("sm_90") as (launches, compiled):
            _inspect.launch_operation(operation, case, torch.float32)
        assert [launch.kernel for launch in launches] == ["aggregate_kernel", "aggregate_kernel", "correlation_kernel"]
        # 16 steps by 128 channels a tile: 4 tiles of time, 1 of channels; one program a lag for the correlation.
        assert [launch.grid for launch in launches] == [(8, 1, 1), (8, 1, 1), (8, 3, 1)]
        assert len(compiled) == 2


def test_after_a_dry_run_nothing_is_left() -> None:
    from triton.runtime.jit import JITFunction

    before = JITFunction.run
    operation = ops()["delay_correlation"]
    gpu = operation.module("gpu")
    with _inspect.dry_run("sm_90"):
        _inspect.launch_operation(operation, operation.module("cases").INSPECTED["delay_correlation"][1], torch.float32)
    assert JITFunction.run is before
    assert not gpu.aggregate_kernel.device_caches
    with pytest.raises(ValueError, match="cannot serve float32 on cpu"):
        operation.public(torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1), torch.tensor([[0]]), backend="gpu")


def test_inspection_is_refused_where_kernels_are_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"), _inspect.dry_run("sm_90"):
        pass


def test_a_sample_too_large_for_the_kernels_is_refused() -> None:
    gpu = ops()["delay_aggregate"].module("gpu")
    with pytest.raises(ValueError, match=r"2\^31"):
        gpu._check_size(2**22, 512)


def test_the_table_lists_every_kernel(reports: list[_inspect.KernelReport]) -> None:
    table = _inspect._table(reports)
    assert len(table.splitlines()) == len(reports) + 1
    assert "gfx942" in table
