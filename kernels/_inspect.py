"""Compile the Triton kernels for GPUs that are not here and read what they would need.

The real host code of every operation, forward and backward, runs on CPU tensors with a stand-in driver (``_dry_run``).
The binaries then tell their registers, spills, shared memory and tensor-core instructions; with the chip's limits
(``_chips``) that gives the blocks a multiprocessor holds. The checked interpreter adds the bytes that are moved
(``_traffic``). All is compared with the committed ``budgets.json``.

``python -m core_attention.kernels._inspect [--only OPERATION,...] [--chips CHIP,...] [--json]`` prints the tables;
``--write-budgets`` records them. Not shown by any of this: time, and numbers computed by the chip.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core_attention.kernels._chips import TARGETS, need_of
from core_attention.kernels._dispatch import Operation, ops
from core_attention.kernels._dry_run import (
    Launch,
    as_on_a_gpu,
    dry_run,
    dtypes_taken,
    launch_operation,
    unavailable,
)
from core_attention.kernels._traffic import Moved, traffic
from core_attention.kernels._workers import in_processes, serve

__all__ = [
    "BUDGETS",
    "TARGETS",
    "Inspection",
    "KernelReport",
    "Launch",
    "as_on_a_gpu",
    "dry_run",
    "inspect_all",
    "inspect_kernels",
    "launch_operation",
    "over_budget",
    "unavailable",
]

BUDGETS = pathlib.Path(__file__).with_name("budgets.json")
_SLACK = 1.05  # the bytes moved may exceed their budget by this before it is a fault


@dataclass(frozen=True)
class KernelReport:
    """What one compiled kernel needs on one chip.

    Attributes:
        target: a key of ``TARGETS``.
        operation: the folder that the kernel lives in.
        kernel: its name.
        variant: argument types, specialisation and constants, so that a kernel's compilations can be told apart.
        warps, registers, spills, shared: of a block, a thread, a thread, and of a block in bytes.
        blocks: that a multiprocessor holds at a time.
        tensor: tensor-core instructions in the code.
        dots: whether the source multiplies matrices (``tl.dot``).
        half: whether it has bfloat16 operands.
        shared_limit, register_limit: of the chip.
    """

    target: str
    operation: str
    kernel: str
    variant: str
    warps: int
    registers: int
    spills: int
    shared: int
    blocks: int
    tensor: int
    dots: bool
    half: bool
    shared_limit: int
    register_limit: int

    @property
    def fits(self) -> bool:
        """True if nothing spills and the chip's limits hold."""
        within = self.shared <= self.shared_limit and self.registers <= self.register_limit
        return self.spills == 0 and within and self.blocks > 0

    @property
    def name(self) -> str:
        """Unique among all operations: the key of the budgets."""
        return f"{self.operation}.{self.kernel}"


@dataclass(frozen=True)
class Inspection:
    """All that is known without a GPU: kernels by chip, bytes by operation, and what could not be found out."""

    reports: list[KernelReport]
    moved: list[Moved]
    failures: list[str]

    def complaints(self) -> list[str]:
        """What is over a limit or a budget, or failed; empty if all is well."""
        return self.failures + over_budget(self.reports, moved=self.moved)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kernels": [asdict(report) for report in self.reports],
            "bytes": [{**asdict(moved), "ratio": round(moved.ratio, 3)} for moved in self.moved],
            "complaints": self.complaints(),
        }


def inspect_all(
    only: Sequence[str] = (),
    *,
    targets: Sequence[str] = tuple(TARGETS),
    jobs: int | None = None,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> Inspection:
    """Compile all kernels for all chips and count the bytes they move, in as many processes as there are cores.

    Args:
        only: names of operations; empty means all.
        targets: keys of ``TARGETS``.
        jobs: processes.
        progress: called with the number of tasks done and of all, from any thread.
    """
    chosen = [op for op in ops().values() if "gpu" in op.backends and (not only or op.name in only)]
    total, finished = len(_tasks(targets, chosen)) + len(chosen), [0]

    def done() -> None:
        finished[0] += 1
        progress(finished[0], total)

    reports, failures = _compiled(targets, chosen, jobs, done)
    moved, uncounted = traffic([operation.name for operation in chosen], jobs=jobs, done=done) if chosen else ([], [])
    return Inspection(reports, moved, failures + uncounted)


def inspect_kernels(
    targets: Sequence[str] = tuple(TARGETS), only: Sequence[str] = (), *, jobs: int | None = None
) -> list[KernelReport]:
    """Compile all kernels, forward and backward, for chips that need not be present, and report what they need.

    Args:
        targets: keys of ``TARGETS``.
        only: names of operations; empty means all.
        jobs: processes; the cores by default.

    Returns:
        one report a kernel, variant and chip, sorted. About a second a kernel and core.

    Raises:
        RuntimeError: kernels cannot be compiled here (see ``unavailable``), or one does not compile.
    """
    reason = unavailable()
    if reason:
        raise RuntimeError(f"kernels cannot be inspected: {reason}")
    chosen = [op for op in ops().values() if "gpu" in op.backends and (not only or op.name in only)]
    reports, failures = _compiled(targets, chosen, jobs, lambda: None)
    if failures:
        raise RuntimeError("; ".join(failures))
    return reports


def _tasks(targets: Sequence[str], chosen: Sequence[Operation]) -> list[dict[str, Any]]:
    """One task a chip and folder: operations of one folder share kernels."""
    folders: dict[str, list[str]] = {}
    for operation in chosen:
        folders.setdefault(operation.package, []).append(operation.name)
    return [{"target": target, "operations": names} for names in folders.values() for target in targets]


def _compiled(
    targets: Sequence[str], chosen: Sequence[Operation], jobs: int | None, done: Callable[[], object]
) -> tuple[list[KernelReport], list[str]]:
    tasks = _tasks(targets, chosen)
    packages = sorted({operation.package for operation in chosen})
    answers = in_processes(
        "core_attention.kernels._inspect", tasks, packages=packages, jobs=jobs, environment=_as_is(), done=done
    )
    reports: dict[tuple[str, str], KernelReport] = {}
    failures: list[str] = []
    for task, answer in zip(tasks, answers, strict=True):
        if "error" in answer:
            failures.append(f"{task['target']} {', '.join(task['operations'])}: {answer['error']}")
        for entry in answer.get("reports", ()):
            report = KernelReport(**entry)
            reports[report.target, f"{report.operation}.{report.variant}"] = report
    order = list(TARGETS)
    return sorted(reports.values(), key=lambda r: (order.index(r.target), r.operation, r.variant)), failures


def _as_is() -> dict[str, str]:
    """What the user set for other purposes and the compiler would obey: an override of the kernels, a dump."""
    return {name: "" for name in ("TRITON_KERNEL_OVERRIDE", "TRITON_KERNEL_DUMP") if name in os.environ}


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    """The worker's part: all kernels of some operations on one chip."""
    known = ops()
    operations = [known[name] for name in task["operations"]]
    with dry_run(task["target"]) as (_, compiled):
        for operation in operations:
            for case in operation.module("cases").INSPECTED[operation.name]:
                for dtype in dtypes_taken(operation):
                    launch_operation(operation, case, dtype)
        packages = {op.package for op in known.values()}
        reports = [_report(task["target"], variant, kernel, packages) for variant, kernel in compiled.items()]
    return {"reports": [asdict(report) for report in reports]}


def _report(name: str, variant: str, kernel: Any, packages: set[str]) -> KernelReport:
    target, module = TARGETS[name], kernel.src.fn.module
    # An operation may launch another's kernel: it counts for the folder that it lives in.
    package = max((p for p in packages if module.startswith(f"{p}.")), key=len, default=module.rpartition(".")[0])
    need, metadata = need_of(target, kernel), kernel.metadata
    return KernelReport(
        target=name,
        operation=package.rpartition(".")[2],
        kernel=metadata.name,
        variant=variant.removeprefix(f"{module}."),
        warps=metadata.num_warps,
        registers=need.registers,
        spills=need.spills,
        shared=metadata.shared,
        blocks=target.blocks_held(warps=metadata.num_warps, registers=need.registers, shared=metadata.shared),
        tensor=need.tensor,
        dots="tt.dot" in kernel.asm["ttir"],
        half=any("bf16" in str(kind) for kind in kernel.src.signature.values()),
        shared_limit=target.shared_limit,
        register_limit=target.register_limit,
    )


# Budgets --------------------------------------------------------------------------------------------------------------


def over_budget(
    reports: Sequence[KernelReport], budgets: dict[str, Any] | None = None, *, moved: Sequence[Moved] = ()
) -> list[str]:
    """What exceeds the chip's limits or the committed budget, one sentence each; empty if all is well."""
    committed: dict[str, Any] = json.loads(BUDGETS.read_text()) if budgets is None else budgets
    found: list[str] = []
    for report in reports:
        found += _faults(report, committed.get(report.target, {}).get(report.name))
    found += _without_tensor_cores(reports)
    for count in moved:
        budget = committed.get("bytes", {}).get(count.operation, {}).get(count.direction)
        where = f"{count.operation} {count.direction}"
        if budget is None:
            found.append(f"{where}: its bytes have no budget; record one with --write-budgets")
        elif count.ratio > _SLACK * budget:
            found.append(f"{where}: moves {count.ratio:.2f} times the least number of bytes, budget {budget}")
    return found


def _without_tensor_cores(reports: Sequence[KernelReport]) -> list[str]:
    """Kernels that multiply matrices, none of whose variants for bfloat16 operands uses the chip's tensor cores.

    One variant suffices: another may have to multiply in float32, such as by weights given in float32.
    """
    most: dict[tuple[str, str], int] = {}
    for report in reports:
        if report.half and report.dots:
            most[report.target, report.name] = max(report.tensor, most.get((report.target, report.name), 0))
    return [
        f"{target} {name}: multiplies matrices of bfloat16 operands without the chip's tensor cores"
        for (target, name), count in most.items()
        if count == 0
    ]


def _faults(report: KernelReport, budget: dict[str, int] | None) -> list[str]:
    where, found = f"{report.target} {report.operation}.{report.variant}", []
    if not report.fits:
        found.append(f"{where}: over the chip's limits: {asdict(report)}")
    if budget is None:
        return [*found, f"{where}: has no budget; record one with --write-budgets"]
    for what in ("registers", "spills", "shared"):
        if getattr(report, what) > budget[what]:
            found.append(f"{where}: {what} {getattr(report, what)}, budget {budget[what]}")
    if report.blocks < budget["blocks"]:
        found.append(f"{where}: blocks a multiprocessor {report.blocks}, budget at least {budget['blocks']}")
    return found


def _budgets_from(reports: Sequence[KernelReport], moved: Sequence[Moved]) -> dict[str, Any]:
    """The largest need of each kernel on each chip; registers rounded up to the eights in which chips hand them out.

    ``tensor`` is for the reader: the most tensor-core instructions of a variant with bfloat16 operands.
    """
    budgets: dict[str, Any] = {}
    for report in reports:
        fresh = {"registers": 0, "spills": 0, "shared": 0, "blocks": report.blocks}
        entry = budgets.setdefault(report.target, {}).setdefault(report.name, fresh)
        entry["registers"] = max(entry["registers"], -(-report.registers // 8) * 8)
        entry["shared"] = max(entry["shared"], report.shared)
        entry["blocks"] = min(entry["blocks"], report.blocks)
        if report.half and report.dots:
            entry["tensor"] = max(entry.get("tensor", 0), report.tensor)
    for count in moved:
        ratio = math.ceil(100 * count.ratio) / 100
        budgets.setdefault("bytes", {}).setdefault(count.operation, {})[count.direction] = ratio
    return budgets


def _write_budgets(inspection: Inspection, *, whole: bool) -> None:
    """Record what was found; entries of operations that were not inspected stay, unless all were."""
    fresh = _budgets_from(inspection.reports, inspection.moved)
    before = {} if whole or not BUDGETS.exists() else json.loads(BUDGETS.read_text())
    seen = {(report.target, report.operation) for report in inspection.reports}
    for chip, entries in before.items():
        kept = {name: entry for name, entry in entries.items() if (chip, name.partition(".")[0]) not in seen}
        fresh[chip] = {**kept, **fresh.get(chip, {})}
    order = [*TARGETS, "bytes"]
    tidy = {key: dict(sorted(fresh[key].items())) for key in sorted(fresh, key=order.index)}
    temporary = BUDGETS.with_suffix(f".{os.getpid()}.partial")
    temporary.write_text(json.dumps(tidy, indent=2) + "\n")
    temporary.replace(BUDGETS)


# Tables ---------------------------------------------------------------------------------------------------------------


def _table(reports: Sequence[KernelReport]) -> str:
    head = f"{'chip':7} {'warps':>5} {'regs':>5} {'spills':>6} {'shared':>7} {'limit':>7} {'blocks':>6} {'tensor':>6}"
    lines = [f"{head}  kernel"]
    lines += [
        f"{r.target:7} {r.warps:5} {r.registers:5} {r.spills:6} {r.shared:7} {r.shared_limit:7} {r.blocks:6} "
        f"{r.tensor if r.dots else '':>6}  {r.operation}.{r.variant}"
        for r in reports
    ]
    return "\n".join(lines) + "\n"


def _bytes_table(moved: Sequence[Moved]) -> str:
    lines = [f"{'moved':>10} {'least':>10} {'ratio':>6} {'launches':>8}  operation"]
    lines += [
        f"{m.moved:10} {m.least:10} {m.ratio:6.2f} {m.launches:8}  {m.operation} {m.direction}, case {m.case!r}"
        for m in moved
    ]
    return "\n".join(lines) + "\n"


def _names(arguments: Sequence[str], option: str) -> list[str]:
    return arguments[arguments.index(option) + 1].split(",") if option in arguments else []


def main(arguments: Sequence[str]) -> int:
    """Print the tables; return 0 if all kernels fit their budgets, 1 if not, also where nothing can be compiled 0."""
    if {"--help", "-h"} & set(arguments):
        sys.stdout.write(__doc__ or "")
        return 0
    reason = unavailable()
    if reason:
        sys.stdout.write(f"skipped: {reason}\n")
        return 0
    only, targets = _names(arguments, "--only"), _names(arguments, "--chips") or list(TARGETS)
    unknown = [name for name in only if name not in ops()] + [name for name in targets if name not in TARGETS]
    if unknown:
        sys.stdout.write(f"unknown: {', '.join(unknown)}; expected of {', '.join([*ops(), *TARGETS])}\n")
        return 2
    inspection = inspect_all(only, targets=targets)
    if "--write-budgets" in arguments:
        _write_budgets(inspection, whole=not only and len(targets) == len(TARGETS))
    if "--json" in arguments:
        sys.stdout.write(json.dumps(inspection.as_json()) + "\n")
        return 1 if inspection.complaints() else 0
    sys.stdout.write(f"{_table(inspection.reports)}\n{_bytes_table(inspection.moved)}\n")
    complaints = inspection.complaints()
    sys.stdout.write("".join(f"{line}\n" for line in complaints) or "all kernels fit their budgets\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(_answer, sys.argv[2:])
        raise SystemExit(0)
    raise SystemExit(main(sys.argv[1:]))
