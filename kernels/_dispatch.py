"""Choose the back end of an operation, say why once in the log, and obey ``PIPELINES_BACKEND``."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["BACKENDS", "ENVIRONMENT_VARIABLE", "Operation", "check_backend", "choose", "ops", "register"]

BACKENDS = ("reference", "eager", "cpu", "gpu")
ENVIRONMENT_VARIABLE = "PIPELINES_BACKEND"
GPU_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

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
        arguments: the tensor arguments in order.
        differentiable: the arguments that get gradients.
        absent: why a back end does not exist, for the error message.
    """

    name: str
    package: str
    backends: tuple[str, ...]
    arguments: tuple[str, ...]
    differentiable: tuple[str, ...]
    absent: dict[str, str] = field(default_factory=dict)

    def module(self, backend: str) -> ModuleType:
        """Import the module of a back end (or ``cases``), on first use only."""
        return importlib.import_module(f"{self.package}.{backend}")

    def implementation(self, backend: str) -> Callable[..., Tensor]:
        """The function of a back end that computes this operation on checked tensors."""
        return getattr(self.module(backend), self.name)

    @property
    def public(self) -> Callable[..., Tensor]:
        """The function that users call: checks, dispatch, gradients."""
        return getattr(importlib.import_module(self.package), self.name)


def register(operation: Operation) -> Operation:
    """Add an operation to the list that tests, benchmarks and inspection walk."""
    _operations[operation.name] = operation
    return operation


def ops() -> dict[str, Operation]:
    """All operations of the kernels floor by name.

    Example:
        >>> sorted(ops())
        ['delay_aggregate', 'delay_correlation']
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


def choose(operation: Operation, backend: str, *tensors: Tensor) -> str:
    """Return the back end that computes this call: the argument's, then the environment's, then the best that serves.

    Args:
        operation: what is to be computed.
        backend: a name, or "" for a free choice.
        tensors: the floating-point operands; the first decides device and dtype.

    Raises:
        ValueError: the back end asked for is unknown or cannot serve these tensors; the message says why.
    """
    if backend:
        return _demand(operation, backend, f"backend={backend!r}", tensors)
    asked = os.environ.get(ENVIRONMENT_VARIABLE, "").strip().lower()
    if asked and asked != "auto":
        if asked not in BACKENDS:
            raise ValueError(
                f"{ENVIRONMENT_VARIABLE}={asked!r} is not a back end; expected one of {', '.join(BACKENDS)}, or auto"
            )
        return _demand(operation, asked, f"{ENVIRONMENT_VARIABLE}={asked}", tensors)
    for candidate in ("gpu", "cpu", "eager"):
        obstacle = _obstacle(operation, candidate, tensors)
        if obstacle is None:
            _say(operation.name, f"{candidate}, the best that serves {_describe(tensors[0])}")
            return candidate
        _say(operation.name, f"not {candidate}: {obstacle}")
    raise ValueError(f"{operation.name}: no back end serves {_describe(tensors[0])}")


def _demand(operation: Operation, backend: str, demanded_by: str, tensors: tuple[Tensor, ...]) -> str:
    obstacle = _obstacle(operation, backend, tensors)
    if obstacle is not None:
        raise ValueError(
            f"{operation.name}: {demanded_by} cannot serve {_describe(tensors[0])}: {obstacle}; "
            f"leave the choice free or use one of {', '.join(operation.backends)}"
        )
    _say(operation.name, f"{backend}, demanded by {demanded_by}")
    return backend


def _obstacle(operation: Operation, backend: str, tensors: tuple[Tensor, ...]) -> str | None:
    """Why a back end cannot compute this call, or None if it can."""
    if backend not in operation.backends:
        return operation.absent.get(backend, "this operation has no such back end")
    tensor = tensors[0]
    if backend == "cpu" and tensor.device.type != "cpu":
        return "the tensors are not in main memory"
    if backend == "reference" and tensor.device.type == "mps":
        return "the reference computes in float64, which the device lacks"
    if backend == "gpu":
        return _gpu_obstacle(tensor)
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
