"""Choose the back end of an operation, say why once in the log, and obey ``PIPELINES_BACKEND``."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

__all__ = ["BACKENDS", "ENVIRONMENT_VARIABLE", "Operation", "check_backend", "choose", "is_free", "ops", "register"]

BACKENDS = ("reference", "eager", "cpu", "gpu")
ENVIRONMENT_VARIABLE = "PIPELINES_BACKEND"
GPU_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # compiled loops widen halves once and compute in float32

_log = logging.getLogger("pipelines.kernels")
_said: set[tuple[str, str]] = set()
_operations: dict[str, Operation] = {}


@dataclass(frozen=True)
class Operation:
    """One operation of the kernels floor: where it lives, what serves it, and how tests find its cases.

    Attributes:
        name: the public function's name; also the name of the function in every back-end module.
        package: the folder's import name, holding ``reference``, ``eager``, ``cases`` and perhaps ``cpu``, ``gpu``.
        backends: the back ends that exist, best last among those that need nothing special.
        arguments: the tensor arguments by name; the first decides device and dtype. A case gives None for one left out.
        differentiable: the arguments that get gradients.
        outputs: the names of what it returns, one or several tensors.
        companions: the arguments that must have the dtype of the first one, except under autocast.
        shared: the arguments without a batch dimension in front.
        second_order: whether its gradients are differentiable in turn.
        absent: why a back end does not exist, for the error message.
    """

    name: str
    package: str
    backends: tuple[str, ...]
    arguments: tuple[str, ...]
    differentiable: tuple[str, ...]
    outputs: tuple[str, ...] = ("output",)
    companions: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    second_order: bool = False
    absent: dict[str, str] = field(default_factory=dict)

    def module(self, backend: str) -> ModuleType:
        """Import the module of a back end (or ``cases``), on first use only."""
        return importlib.import_module(f"{self.package}.{backend}")

    def implementation(self, backend: str) -> Callable[..., Any]:
        """The function of a back end that computes this operation on checked tensors."""
        return getattr(self.module(backend), self.name)

    @property
    def public(self) -> Callable[..., Any]:
        """The function that users call: checks, dispatch, gradients."""
        return getattr(importlib.import_module(self.package), self.name)

    @property
    def plain(self) -> Callable[..., Any]:
        """The same in plain torch operators: what exporters record, and the peer of the two-reference rule."""
        return getattr(self.module("eager"), f"portable_{self.name}")


def register(operation: Operation) -> Operation:
    """Add an operation to the list that tests, benchmarks and inspection walk."""
    _operations[operation.name] = operation
    return operation


def ops() -> dict[str, Operation]:
    """All operations of the kernels floor by name.

    Example:
        >>> "delay_aggregate" in ops()
        True
    """
    return dict(_operations)


def check_backend(backend: str | None) -> str:
    """Return the back end asked for by an argument, or "" when the choice is free.

    Raises:
        ValueError: a name that is not a back end.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is not a back end; expected one of {', '.join(BACKENDS)}, or None")
    return backend or ""


def is_free(backend: str) -> bool:
    """Whether neither the argument nor the environment demands a back end, so that speed may decide."""
    return not backend and os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower() in ("", "auto")


def choose(
    operation: Operation, backend: str, *tensors: Tensor | None, limits: Mapping[str, str | None] | None = None
) -> str:
    """Return the back end that computes this call: the argument's, then the environment's, then the best that serves.

    Args:
        operation: what is to be computed.
        backend: a name, or "" for a free choice.
        tensors: the floating-point operands; the first decides device and dtype.
        limits: why a back end cannot take this very call (a size, an option), by its name; None where it can.

    Raises:
        ValueError: the back end asked for is unknown or cannot serve these tensors; the message says why.
    """
    first = next(tensor for tensor in tensors if tensor is not None)
    limits = limits or {}
    if backend:
        return _demand(operation, backend, f"backend={backend!r}", first, limits)
    asked = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower()
    if asked and asked != "auto":
        if asked not in BACKENDS:
            raise ValueError(
                f"{ENVIRONMENT_VARIABLE}={asked!r} is not a back end; expected one of {', '.join(BACKENDS)}, or auto"
            )
        return _demand(operation, asked, f"{ENVIRONMENT_VARIABLE}={asked}", first, limits)
    for candidate in ("gpu", "cpu", "eager"):
        obstacle = _obstacle(operation, candidate, first, limits)
        if obstacle is None:
            _say(operation.name, f"{candidate}, the best that serves {_describe(first)}")
            return candidate
        _say(operation.name, f"not {candidate}: {obstacle}")
    raise ValueError(f"{operation.name}: no back end serves {_describe(first)}")


def _demand(
    operation: Operation, backend: str, demanded_by: str, tensor: Tensor, limits: Mapping[str, str | None]
) -> str:
    obstacle = _obstacle(operation, backend, tensor, limits)
    if obstacle is not None:
        raise ValueError(
            f"{operation.name}: {demanded_by} cannot serve {_describe(tensor)}: {obstacle}; "
            f"leave the choice free or use one of {', '.join(operation.backends)}"
        )
    _say(operation.name, f"{backend}, demanded by {demanded_by}")
    return backend


def _obstacle(operation: Operation, backend: str, tensor: Tensor, limits: Mapping[str, str | None]) -> str | None:
    """Why a back end cannot compute this call, or None if it can."""
    if backend not in operation.backends:
        return operation.absent.get(backend, "this operation has no such back end")
    if backend == "cpu":
        return _cpu_obstacle(tensor) or limits.get(backend)
    if backend == "reference" and tensor.device.type == "mps":
        return "the reference computes in float64, which the device lacks"
    if backend == "gpu":
        return _gpu_obstacle(tensor) or limits.get(backend)
    return limits.get(backend)


def _cpu_obstacle(tensor: Tensor) -> str | None:
    if tensor.device.type != "cpu":
        return "the tensors are not in main memory"
    if tensor.dtype not in CPU_DTYPES:
        return f"the compiled loops compute in float32, not {tensor.dtype}"
    return None


def _gpu_obstacle(tensor: Tensor) -> str | None:
    if tensor.dtype not in GPU_DTYPES:
        return f"the Triton kernels take no {tensor.dtype}"
    if tensor.device.type != "cuda" and not interpreting():
        return "the tensors are not on a CUDA or ROCm device"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return None


def interpreting() -> bool:
    """True where Triton kernels run on CPU tensors because ``TRITON_INTERPRET=1`` is set."""
    return os.environ.get("TRITON_INTERPRET", "0").strip().lower() in {"1", "true", "on", "y", "yes"}


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device.type}"


def _say(name: str, reason: str) -> None:
    """Log a reason at DEBUG, once per operation and reason."""
    if _log.isEnabledFor(logging.DEBUG) and (name, reason) not in _said:
        _said.add((name, reason))
        _log.debug("%s: %s", name, reason)
