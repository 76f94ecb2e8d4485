"""What `pipelines bench kernels` prints for people."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from core_attention.kernels._machine import memory_obstacle
from core_attention.kernels._measure import PEER, Figure, LineResult, SweepResult, loop_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from core_attention.kernels._inspect import Inspection, KernelReport
    from pipelines.cli.bench_kernels import Measured

_MB = 1e6
_WIDTH = 120  # characters, where the output is no terminal


def show_measured(measured: Measured, facts: dict[str, Any], files: Sequence[pathlib.Path]) -> None:
    """Print a table a line and a sweep, the machine, which goals are met, what failed and what was written."""
    for line in measured.lines:
        _print(_line_table(line))
    for sweep in measured.sweeps:
        _print(_sweep_table(sweep))
    for words in _remarks(measured, facts):
        sys.stdout.write(f"{words}\n")
    for words in measured.failures:
        sys.stdout.write(f"{words}\n")
    for path in files:
        sys.stdout.write(f"wrote {path}\n")


def _line_table(line: LineResult) -> Table:
    head = ("", "ms", "spread", "ratio", "goal", "extra MB", "share of peak")
    rows = [
        (
            "peer" if figure.contestant == PEER else figure.contestant,
            _number(figure.milliseconds),
            _number(figure.spread),
            _ratio(figure),
            _goal(figure),
            _megabytes(figure.extra_memory, figure.milliseconds is not None),
            f"{100 * figure.share:.0f} % {figure.share_of}" if figure.share is not None else "",
        )
        for figure in line.figures
    ]
    return _table(f"{line.operation}: {line.name}\nagainst {line.peer}", head, rows)


def _ratio(figure: Figure) -> str:
    if figure.trouble:
        return figure.trouble.partition(":")[0]
    return "" if figure.contestant == PEER or figure.ratio is None else f"{figure.ratio:.2f}"


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    state = "" if figure.met is None else " met" if figure.met else " MISSED"
    return f"{figure.goal:g}{state}"


def _sweep_table(sweep: SweepResult) -> Table:
    head = (sweep.axis, *(f"{size:,}" for size in sweep.sizes), "power")
    rows = []
    for name, values in sweep.milliseconds.items():
        rows.append((f"{name}, ms", *map(_number, values), _power(sweep.exponents[name]["time"])))
    for name, values in sweep.extra_memory.items():
        shown = (
            _megabytes(value, time is not None) for value, time in zip(values, sweep.milliseconds[name], strict=True)
        )
        rows.append((f"{name}, extra MB", *shown, _power(sweep.exponents[name]["memory"])))
    return _table(f"{sweep.operation}: {sweep.name}, by {sweep.axis}\npeer: {sweep.peer}", head, rows)


def _remarks(measured: Measured, facts: dict[str, Any]) -> Iterable[str]:
    peaks = measured.peaks
    if peaks is not None:
        yield (
            f"machine: {facts['cpu']} ({facts['vector instructions']}), {facts['threads']} threads; matrix product "
            f"{peaks.float32:.0f} GFLOP/s in float32, {peaks.bfloat16:.3g} in bfloat16; copy {peaks.copy:.1f} GB/s"
        )
    loops = loop_seconds()
    if loops:
        each = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(loops.items(), key=lambda item: -item[1]))
        yield f"numba loops took {sum(loops.values()):.1f} s to compile or load: {each}"
    obstacle = memory_obstacle()
    if obstacle is not None:
        yield f"extra memory is not known: {obstacle}"
    if measured.without:
        yield f"without a line: {', '.join(measured.without)}"
    judged = [(line, figure) for line in measured.lines for figure in line.figures if figure.met is not None]
    missed = [(line, figure) for line, figure in judged if not figure.met]
    if judged:
        yield f"goals: {len(judged) - len(missed)} met, {len(missed)} missed{':' if missed else ''}"
    for line, figure in missed:
        yield f"  {line.operation}, {line.name}: {figure.contestant} {figure.ratio:.2f}, goal {figure.goal:g}"


# Inspection -----------------------------------------------------------------------------------------------------------


def show_inspection(inspection: Inspection, files: Sequence[str]) -> None:
    """Print a table a chip (the largest need of each kernel's variants), the bytes moved, and the complaints."""
    for target in dict.fromkeys(report.target for report in inspection.reports):
        groups: dict[str, list[KernelReport]] = {}
        for report in inspection.reports:
            if report.target == target:
                groups.setdefault(report.name, []).append(report)
        head = ("kernel", "variants", "warps", "registers", "spills", "shared", "blocks", "tensor")
        limits = next(r for r in inspection.reports if r.target == target)
        title = f"{target}: at most {limits.register_limit} registers, {limits.shared_limit:,} bytes of shared memory"
        _print(_table(title, head, [_kernel_row(name, reports) for name, reports in groups.items()]))
    rows = [
        (f"{m.operation} {m.direction}", m.case, f"{m.moved:,}", f"{m.least:,}", f"{m.ratio:.2f}", str(m.launches))
        for m in inspection.moved
    ]
    title = "bytes moved by the kernels (without caches) against inputs read and outputs written once"
    _print(_table(title, ("operation", "case", "moved", "least", "ratio", "launches"), rows))
    complaints = inspection.complaints()
    sys.stdout.write("".join(f"{line}\n" for line in complaints) or "all kernels fit their budgets\n")
    sys.stdout.write("".join(f"wrote {path}\n" for path in files))


def _kernel_row(name: str, reports: Sequence[KernelReport]) -> tuple[str, ...]:
    """The largest need of all variants; tensor-core instructions of those that multiply half-width matrices."""
    products = [report.tensor for report in reports if report.half and report.dots]
    return (
        name,
        str(len(reports)),
        "/".join(str(warps) for warps in sorted({report.warps for report in reports})),
        str(max(report.registers for report in reports)),
        str(max(report.spills for report in reports)),
        f"{max(report.shared for report in reports):,}",
        str(min(report.blocks for report in reports)),
        str(max(products)) if products else "",
    )


# Cells ----------------------------------------------------------------------------------------------------------------


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _megabytes(value: int | None, measured: bool) -> str:
    if not measured:
        return ""
    return "unknown" if value is None else "< 1" if value < _MB else f"{value / _MB:,.0f}"


def _power(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")  # brackets in a text are no markup
    for place, name in enumerate(head):
        table.add_column(Text(name), justify="left" if place == 0 else "right", overflow="fold")  # names stay whole
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH).print(table)
