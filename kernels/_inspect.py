"""Compile the Triton kernels for GPUs that are not here and read what they would need.

The real host code of every operation, forward and backward, runs on CPU tensors with a stand-in driver: arguments are
specialised, grids computed and kernels compiled as on the chip, but nothing is launched. The binaries then tell their
registers, spills and shared memory, which are compared with the chip's limits and the committed ``budgets.json``.

``python -m core_attention.kernels._inspect`` prints the table; ``--write-budgets`` records it.
Not shown by any of this: time, and numbers computed by the chip.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from core_attention.kernels._dispatch import Operation, interpreting, ops
from core_attention.kernels._testing import Case

__all__ = ["BUDGETS", "TARGETS", "KernelReport", "Launch", "dry_run", "inspect_kernels", "over_budget", "unavailable"]

BUDGETS = pathlib.Path(__file__).with_name("budgets.json")
_KIB = 1024
_FIRST_DEVICE = 1_000_000  # kernels are cached by device number: ours must never be a real device's


@dataclass(frozen=True)
class Target:
    """A chip: how Triton names it, and what a block may use of it."""

    backend: str
    arch: int | str
    warp: int
    shared_limit: int
    register_limit: int


TARGETS = {
    "sm_80": Target("cuda", 80, 32, 163 * _KIB, 255),
    "sm_90": Target("cuda", 90, 32, 227 * _KIB, 255),
    "sm_100": Target("cuda", 100, 32, 227 * _KIB, 255),
    "gfx942": Target("hip", "gfx942", 64, 64 * _KIB, 512),
}


@dataclass(frozen=True)
class KernelReport:
    """What one compiled kernel needs on one chip."""

    target: str
    kernel: str
    variant: str  # argument types, specialisation and constants, so that a kernel's compilations can be told apart
    warps: int
    registers: int
    spills: int
    shared: int
    shared_limit: int
    register_limit: int

    @property
    def fits(self) -> bool:
        """True if nothing spills and the chip's limits hold."""
        return self.spills == 0 and self.shared <= self.shared_limit and self.registers <= self.register_limit


@dataclass(frozen=True)
class Launch:
    """One launch that the host code asked for."""

    kernel: str
    grid: tuple[int, int, int]


def unavailable() -> str | None:
    """Why kernels cannot be inspected in this process, or None if they can."""
    if platform.system() != "Linux":
        return "Triton compiles on Linux only"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if interpreting():
        return "TRITON_INTERPRET is set, so kernels are interpreted and not compiled"
    return None


class _Utilities:
    """The part of a driver that loads binaries: it admits every binary and loads none."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def get_device_properties(self, device: int) -> dict[str, int]:
        # Shared memory over the limit must be reported by us, so nothing is refused here.
        return {
            "max_shared_mem": 1 << 30,
            "multiprocessor_count": 132,
            "max_num_regs": 65536,
            "warpSize": self.target.warp,
        }

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        return 1, 1, 0, 0, 1024

    def unload_module(self, module: int) -> None:
        """Nothing was loaded."""


class _StandInDriver:
    """A driver of a chip that is not here; it records launches."""

    def __init__(self, name: str) -> None:
        self.target = TARGETS[name]
        self.number = _FIRST_DEVICE + list(TARGETS).index(name)
        self.utils = _Utilities(self.target)
        self.launches: list[Launch] = []

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """What Triton calls in place of a launcher: notes the grid."""

        def launch(x: int, y: int, z: int, *_: Any) -> None:
            self.launches.append(Launch(metadata.name, (x, y, z)))

        return launch

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget(self.target.backend, self.target.arch, self.target.warp)

    def get_current_device(self) -> int:
        return self.number

    def set_current_device(self, device: int) -> None:
        """There is but one."""

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        return lambda *_, **__: [1.0, 1.0, 1.0]


@contextlib.contextmanager
def dry_run(target: str) -> Iterator[tuple[list[Launch], dict[str, Any]]]:
    """Within the context, launching a Triton kernel on CPU tensors compiles it for a chip and records the launch.

    Args:
        target: a key of ``TARGETS``.

    Yields:
        the launches so far, and the compiled kernels by a description of their arguments; outputs stay unwritten.

    Raises:
        RuntimeError: kernels cannot be compiled here; the message says why.
    """
    reason = unavailable()
    if reason:
        raise RuntimeError(f"kernels cannot be inspected: {reason}")
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    stand_in, compiled = _StandInDriver(target), {}
    original_run, original_driver = JITFunction.run, driver._active

    @functools.wraps(original_run)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        kernel = original_run(self, *args, **kwargs)
        compiled[_variant(kernel)] = kernel
        return kernel

    with tempfile.TemporaryDirectory(prefix="pipelines-triton-") as cache, _environment("TRITON_CACHE_DIR", cache):
        JITFunction.run = run
        driver.set_active(stand_in)  # pyright: ignore[reportArgumentType]
        try:
            yield stand_in.launches, compiled
        finally:
            JITFunction.run = original_run
            driver._active = original_driver
            for kernel in compiled.values():
                kernel.module = None  # nothing to unload when it is collected
                kernel.src.fn.device_caches.pop(stand_in.number, None)  # the next dry run has another launcher


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _variant(kernel: Any) -> str:
    """Kernel name, argument types, which of them are multiples of 16, and constants, as one line."""
    names, parts = kernel.src.fn.arg_names, []
    for i, name in enumerate(names):
        if (i,) in kernel.src.constants:
            value = kernel.src.constants[(i,)]
            parts.append(f"{name}={getattr(value, 'value', value)}")
        else:
            aligned = "%16" if kernel.src.attrs.get((i,)) else ""
            parts.append(f"{name}:{kernel.src.signature[name]}{aligned}")
    return f"{kernel.metadata.name}({', '.join(parts)})"


def launch_operation(operation: Operation, case: Case, dtype: torch.dtype) -> None:
    """Call an operation's Triton back end and its gradients; under ``dry_run`` nothing is computed."""
    from core_attention.kernels._testing import outputs_and_gradients

    arguments = case.arguments(dtype)
    returned = operation.plain(**case.keywords(operation, dtype))
    cotangents = [
        torch.ones(output.shape, dtype=dtype) if output.is_floating_point() else None
        for output in (returned if isinstance(returned, tuple) else (returned,))
    ]
    with _only_gpu():
        public = functools.partial(operation.public, backend="gpu")
        outputs_and_gradients(operation, public, arguments, cotangents, case.options)


@contextlib.contextmanager
def _only_gpu() -> Iterator[None]:
    """Let the dispatch send CPU tensors to the Triton back end."""
    from core_attention.kernels import _dispatch

    original = _dispatch._gpu_obstacle
    _dispatch._gpu_obstacle = lambda tensor: None
    try:
        yield
    finally:
        _dispatch._gpu_obstacle = original


def inspect_kernels(targets: Sequence[str] = tuple(TARGETS), only: Sequence[str] = ()) -> list[KernelReport]:
    """Compile all kernels, forward and backward, for chips that need not be present, and report what they need.

    Args:
        targets: keys of ``TARGETS``.
        only: names of operations; empty means all.

    Returns:
        one report a kernel, variant and chip, sorted. About a second a kernel.

    Raises:
        RuntimeError: kernels cannot be compiled here (see ``unavailable``).
    """
    reports = []
    for target in targets:
        with dry_run(target) as (_, compiled):
            for operation in ops().values():
                if "gpu" in operation.backends and (not only or operation.name in only):
                    for case in operation.module("cases").INSPECTED[operation.name]:
                        for dtype in (torch.float32, torch.bfloat16):
                            launch_operation(operation, case, dtype)
            reports += [_report(target, variant, kernel) for variant, kernel in compiled.items()]
    return sorted(reports, key=lambda report: (list(TARGETS).index(report.target), report.variant))


def _report(name: str, variant: str, kernel: Any) -> KernelReport:
    target = TARGETS[name]
    registers, spills = (_cuda_usage if target.backend == "cuda" else _hip_usage)(kernel)
    return KernelReport(
        target=name,
        kernel=kernel.metadata.name,
        variant=variant,
        warps=kernel.metadata.num_warps,
        registers=registers,
        spills=spills,
        shared=kernel.metadata.shared,
        shared_limit=target.shared_limit,
        register_limit=target.register_limit,
    )


def _cuda_usage(kernel: Any) -> tuple[int, int]:
    """Registers a thread, and how many loads and stores of local memory (spills) the machine code holds."""
    import triton

    tools = pathlib.Path(str(triton.__file__)).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = _output([str(tools / "cuobjdump"), "-res-usage", file.name])
        code = _output([str(tools / "nvdisasm"), "-c", file.name])
    found = re.search(r"REG:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump named no registers for {kernel.metadata.name}: {usage.strip()[-200:]}")
    return int(found[1]), len(re.findall(r"\b(?:LDL|STL)\b", code))


def _hip_usage(kernel: Any) -> tuple[int, int]:
    """Vector registers a thread (with accumulators), and vector and scalar spills, from the assembly's own record."""
    text = kernel.asm["amdgcn"]

    def count(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", text)
        if found is None:
            raise RuntimeError(f"the assembly of {kernel.metadata.name} names no {key}")
        return int(found[1])

    return count("vgpr_count"), count("vgpr_spill_count") + count("sgpr_spill_count")


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def over_budget(reports: Sequence[KernelReport], budgets: dict[str, Any] | None = None) -> list[str]:
    """What exceeds the chip's limits or the committed budget, one sentence each; empty if all is well."""
    committed: dict[str, Any] = json.loads(BUDGETS.read_text()) if budgets is None else budgets
    found = []
    for report in reports:
        where = f"{report.target} {report.variant}"
        if not report.fits:
            found.append(f"{where}: over the chip's limits: {asdict(report)}")
        budget = committed.get(report.target, {}).get(report.kernel)
        if budget is None:
            found.append(f"{where}: has no budget; record one with --write-budgets")
            continue
        found += [
            f"{where}: {what} {getattr(report, what)}, budget {budget[what]}"
            for what in ("registers", "spills", "shared")
            if getattr(report, what) > budget[what]
        ]
    return found


def _budgets_from(reports: Sequence[KernelReport]) -> dict[str, dict[str, dict[str, int]]]:
    """The largest need of each kernel on each chip; registers rounded up to the eights in which chips hand them out."""
    budgets: dict[str, dict[str, dict[str, int]]] = {}
    for report in reports:
        entry = budgets.setdefault(report.target, {}).setdefault(
            report.kernel, {"registers": 0, "spills": 0, "shared": 0}
        )
        entry["registers"] = max(entry["registers"], -(-report.registers // 8) * 8)
        entry["shared"] = max(entry["shared"], report.shared)
    return budgets


def _table(reports: Sequence[KernelReport]) -> str:
    lines = [f"{'chip':7} {'warps':>5} {'regs':>5} {'spills':>6} {'shared':>7} {'limit':>7}  kernel"]
    lines += [
        f"{r.target:7} {r.warps:5} {r.registers:5} {r.spills:6} {r.shared:7} {r.shared_limit:7}  {r.variant}"
        for r in reports
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 0 if all kernels fit their budgets, 1 if not, also where nothing can be compiled 0."""
    reason = unavailable()
    if reason:
        sys.stdout.write(f"skipped: {reason}\n")
        return 0
    only = arguments[arguments.index("--only") + 1].split(",") if "--only" in arguments else ()
    reports = inspect_kernels(only=only)
    sys.stdout.write(_table(reports))
    if "--write-budgets" in arguments:
        BUDGETS.write_text(json.dumps(_budgets_from(reports), indent=2) + "\n")
    complaints = over_budget(reports)
    sys.stdout.write("".join(f"{line}\n" for line in complaints) or "all kernels fit their budgets\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
