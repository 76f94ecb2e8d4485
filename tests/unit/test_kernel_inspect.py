"""Kernels compiled for chips that are not here, and the bytes they move, against the committed budget."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
import torch

from core_attention.kernels import _inspect, ops
from core_attention.kernels._chips import TARGETS, tensor_instructions
from core_attention.kernels._dry_run import dtypes_taken
from core_attention.kernels._traffic import Moved
from core_attention.kernels._workers import in_processes

pytestmark = pytest.mark.skipif(_inspect.unavailable() is not None, reason=str(_inspect.unavailable()))
WITH_GPU = [operation for operation in ops().values() if "gpu" in operation.backends]


@pytest.fixture(scope="module")
def inspection() -> _inspect.Inspection:
    return _inspect.inspect_all()


def _report(**changed: Any) -> _inspect.KernelReport:
    made = _inspect.KernelReport(
        target="sm_90",
        operation="product",
        kernel="multiply",
        variant="multiply(a:*bf16)",
        warps=4,
        registers=128,
        spills=0,
        shared=1024,
        blocks=4,
        tensor=8,
        dots=True,
        half=True,
        shared_limit=TARGETS["sm_90"].shared_limit,
        register_limit=255,
    )
    return dataclasses.replace(made, **changed)


BUDGET = {
    "sm_90": {"product.multiply": {"registers": 128, "spills": 0, "shared": 1024, "blocks": 4, "tensor": 8}},
    "bytes": {"product": {"forward": 2.0}},
}


# All operations -------------------------------------------------------------------------------------------------------


def test_every_kernel_fits_its_budget_on_every_chip(inspection: _inspect.Inspection) -> None:
    assert inspection.complaints() == []
    assert {report.target for report in inspection.reports} == set(TARGETS)
    assert all(report.registers >= 8 and report.spills == 0 and report.blocks > 0 for report in inspection.reports)


def test_every_operation_has_kernels_in_both_dtypes(inspection: _inspect.Inspection) -> None:
    for operation in WITH_GPU:
        folder = operation.package.rpartition(".")[2]
        for target in TARGETS:
            found = [r for r in inspection.reports if (r.target, r.operation) == (target, folder)]
            taken = {dtype == torch.bfloat16 for dtype in dtypes_taken(operation)}
            assert {report.half for report in found} >= taken, f"{folder} on {target}"
    assert {count.operation for count in inspection.moved} == {operation.name for operation in WITH_GPU}
    assert all(count.least > 0 for count in inspection.moved)


def test_budgets_are_those_of_the_kernels_that_exist(inspection: _inspect.Inspection) -> None:
    committed = json.loads(_inspect.BUDGETS.read_text())
    for target in TARGETS:
        assert set(committed[target]) == {r.name for r in inspection.reports if r.target == target}
    assert set(committed["bytes"]) == {operation.name for operation in WITH_GPU}


def test_budgets_allow_no_spills_and_stay_under_the_limits() -> None:
    for name, kernels in json.loads(_inspect.BUDGETS.read_text()).items():
        for budget in kernels.values() if name != "bytes" else ():
            assert budget["spills"] == 0
            assert budget["blocks"] >= 1
            assert budget["shared"] <= TARGETS[name].shared_limit
            assert budget["registers"] <= TARGETS[name].register_limit
            assert budget.get("tensor", 1) > 0


def test_the_tables_list_every_kernel_and_count(inspection: _inspect.Inspection) -> None:
    table = _inspect._table(inspection.reports)
    assert len(table.splitlines()) == len(inspection.reports) + 1
    assert "gfx942" in table
    assert len(_inspect._bytes_table(inspection.moved).splitlines()) == len(inspection.moved) + 1
    assert json.loads(json.dumps(inspection.as_json()))["complaints"] == []


# The rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""),
        ({"spills": 3}, "spills 3, budget 0"),
        ({"registers": 129}, "registers 129, budget 128"),
        ({"shared": 228 * 1024}, "over the chip's limits"),
        ({"blocks": 3}, "blocks a multiprocessor 3, budget at least 4"),
        ({"blocks": 0}, "over the chip's limits"),
        ({"tensor": 0}, "without the chip's tensor cores"),
        ({"tensor": 0, "half": False}, ""),
        ({"tensor": 0, "dots": False}, ""),
        ({"kernel": "another"}, "no budget"),
        ({"operation": "another"}, "no budget"),
    ],
)
def test_a_kernel_over_budget_is_named(changed: dict[str, Any], words: str) -> None:
    found = _inspect.over_budget([_report(**changed)], BUDGET)
    assert any(words in line for line in found) if words else found == []


def test_one_variant_with_tensor_cores_suffices() -> None:
    without = _report(tensor=0, variant="multiply(a:*bf16, b:*fp32)")
    assert _inspect.over_budget([_report(), without], BUDGET) == []
    assert "tensor cores" in _inspect.over_budget([_report(half=False), without], BUDGET)[0]


@pytest.mark.parametrize(("moved", "fine"), [(200, True), (209, True), (211, False)])
def test_bytes_over_budget_are_named(moved: int, fine: bool) -> None:
    count = Moved("product", "forward", "usual", 1, moved, 100)
    found = _inspect.over_budget([], BUDGET, moved=[count])
    assert found == [] if fine else "moves 2.11 times the least number of bytes, budget 2.0" in found[0]
    unknown = dataclasses.replace(count, direction="backward")
    assert "no budget" in _inspect.over_budget([], BUDGET, moved=[unknown])[0]


def test_budgets_keep_the_others(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_inspect, "BUDGETS", tmp_path / "budgets.json")
    count = Moved("product", "forward", "usual", 1, 2001, 1000)
    found = _inspect.Inspection([_report(registers=122), _report(registers=90, tensor=4, blocks=5)], [count], [])
    other = {"registers": 8, "spills": 0, "shared": 0, "blocks": 1}
    before = {"sm_80": {"product.multiply": other}, "sm_90": {"other.kernel": other, "product.gone": other}}
    _inspect.BUDGETS.write_text(json.dumps({**before, "bytes": {"other": {"forward": 1.0}}}))
    _inspect._write_budgets(found, whole=False)
    written = json.loads(_inspect.BUDGETS.read_text())
    assert written["sm_80"] == before["sm_80"]  # a chip that was not inspected
    assert written["sm_90"] == {
        "other.kernel": other,
        "product.multiply": BUDGET["sm_90"]["product.multiply"],
    }
    assert written["bytes"] == {"other": {"forward": 1.0}, "product": {"forward": 2.01}}
    _inspect._write_budgets(found, whole=True)
    assert "sm_80" not in json.loads(_inspect.BUDGETS.read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["budgets.json"]


@pytest.mark.parametrize(
    ("target", "warps", "registers", "shared", "blocks"),
    [
        ("sm_80", 4, 32, 0, 16),  # 64 warps
        ("sm_80", 1, 32, 0, 32),  # 32 blocks
        ("sm_80", 4, 128, 0, 4),  # 65536 registers
        ("sm_80", 8, 129, 0, 1),  # handed out in eights: 136 registers, 3 warps a quarter
        ("sm_80", 4, 32, 40 * 1024, 4),  # 164 KiB, one more KiB a block
        ("sm_90", 4, 32, 40 * 1024, 5),
        ("sm_100", 4, 32, 227 * 1024, 1),
        ("sm_100", 4, 32, 228 * 1024, 0),
        ("gfx942", 4, 64, 0, 8),  # 8 waves a SIMD
        ("gfx942", 4, 100, 0, 4),
        ("gfx942", 2, 32, 0, 16),  # 16 work-groups of several waves
        ("gfx942", 1, 32, 0, 32),
        ("gfx942", 4, 64, 20 * 1024, 3),
    ],
)
def test_blocks_a_multiprocessor(target: str, warps: int, registers: int, shared: int, blocks: int) -> None:
    assert TARGETS[target].blocks_held(warps=warps, registers=registers, shared=shared) == blocks


def test_tensor_instructions_are_counted_by_their_names() -> None:
    code = """
        /*0100*/  HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0110*/  HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], !UPT ;
        /*0120*/  UTCHMMA gdesc[UR4], gdesc[UR6], tmem[UR8] ;
        /*0130*/  IMMA.16832.S8.S8 R4, R8, R12, R4 ;
        /*0140*/  FFMA R1, R2, R3, R4 ;
        /*0150*/  WARPSYNC.ALL ;
    """
    assert tensor_instructions(code) == 4
    assert tensor_instructions("v_mfma_f32_32x32x8_bf16 a[0:15]\nv_fma_f32 v0\nv_smfmac_f32_16x16x32_bf16 v1") == 2


# The dry run ----------------------------------------------------------------------------------------------------------


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


def test_the_compiler_agrees_on_the_waves_that_fit() -> None:
    """LLVM writes into its assembly how many waves a SIMD holds: our count is that, times four SIMDs, over warps."""
    operation = ops()["delay_correlation"]
    with _inspect.dry_run("gfx942") as (_, compiled):
        _inspect.launch_operation(operation, operation.module("cases").INSPECTED["delay_correlation"][1], torch.float32)
    for variant, kernel in compiled.items():
        report = _inspect._report("gfx942", variant, kernel, {operation.package})
        waves = int(kernel.asm["amdgcn"].split("; Occupancy: ")[1].split()[0])
        assert report.blocks == 4 * waves // report.warps


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
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"):
        _inspect.inspect_kernels()


def test_a_sample_too_large_for_the_kernels_is_refused() -> None:
    gpu = ops()["delay_aggregate"].module("gpu")
    with pytest.raises(ValueError, match=r"2\^31"):
        gpu._check_size(2**22, 512)


def test_a_task_that_fails_is_told_and_the_others_are_done() -> None:
    tasks = [{"operation": "no_such"}, {"operation": "delay_aggregate"}]
    environment = {"TRITON_INTERPRET": "1"}
    wrong, right = in_processes("core_attention.kernels._traffic", tasks, jobs=1, environment=environment)
    assert wrong == {"error": "KeyError: 'no_such'"}
    forward, backward = right["counts"]
    # 2 x 24 rows of 32 channels, five lags: values are read once a lag, lags and weights once a program, out written.
    assert forward["least"] == 2 * (2 * 24 * 32 * 4) + 2 * 5 * (8 + 4)
    assert forward["moved"] >= 6 * (2 * 24 * 32 * 4)
    assert (forward["launches"], backward["launches"]) == (1, 2)
    (gone,) = in_processes("core_attention.kernels._no_such", [{}])
    assert "No module named" in gone["error"]
