"""Run the real host code of operations for GPUs that are not here: kernels are compiled, launches noted, none made.

A stand-in driver takes the place of the chip's: arguments are specialised, grids computed and kernels compiled as on
the chip, on CPU tensors. Outputs stay unwritten.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from core_attention.kernels._chips import TARGETS, Target
from core_attention.kernels._dispatch import GPU_DTYPES, Operation, interpreting
from core_attention.kernels._testing import Case

__all__ = ["Launch", "as_on_a_gpu", "dry_run", "dtypes_taken", "launch_operation", "unavailable"]

_FIRST_DEVICE = 1_000_000  # kernels are cached by device number: ours must never be a real device's


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
        the launches so far, and the compiled kernels by their module, name and arguments; outputs stay unwritten.

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
    """Module and kernel name, argument types, which are multiples of 16, constants and warps, as one line."""
    names, parts = kernel.src.fn.arg_names, []
    for i, name in enumerate(names):
        if (i,) in kernel.src.constants:
            value = kernel.src.constants[(i,)]
            parts.append(f"{name}={getattr(value, 'value', value)}")
        else:
            aligned = "%16" if kernel.src.attrs.get((i,)) else ""
            parts.append(f"{name}:{kernel.src.signature[name]}{aligned}")
    parts += [f"num_warps={kernel.metadata.num_warps}", f"num_stages={getattr(kernel.metadata, 'num_stages', 1)}"]
    return f"{kernel.src.fn.module}.{kernel.metadata.name}({', '.join(parts)})"


def dtypes_taken(operation: Operation) -> list[torch.dtype]:
    """float32 and bfloat16, less what the Triton back end refuses (the cases' ``GPU_DTYPES``)."""
    widths = getattr(operation.module("cases"), "GPU_DTYPES", GPU_DTYPES)
    return [dtype for dtype in (torch.float32, torch.bfloat16) if dtype in widths]


def launch_operation(operation: Operation, case: Case, dtype: torch.dtype) -> None:
    """Call an operation's Triton back end and its gradients; under ``dry_run`` nothing is computed."""
    given = {
        name: None if tensor is None else tensor.detach()
        for name, tensor in zip(operation.arguments, case.arguments(dtype), strict=True)
    }
    wanted = [leaf.requires_grad_() for name in operation.differentiable if (leaf := given[name]) is not None]
    with as_on_a_gpu():
        returned = operation.public(**given, **case.options, backend="gpu")
        outputs = [out for out in (returned if isinstance(returned, tuple) else (returned,)) if out.requires_grad]
        if outputs:
            torch.autograd.grad(outputs, wanted, [torch.ones_like(out) for out in outputs], allow_unused=True)


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let the dispatch send CPU tensors to the Triton back end."""
    from core_attention.kernels import _dispatch

    original = _dispatch._gpu_obstacle
    _dispatch._gpu_obstacle = lambda tensor: None
    try:
        yield
    finally:
        _dispatch._gpu_obstacle = original
