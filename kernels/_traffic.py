"""Bytes that the Triton kernels of an operation move, against the least that its equation needs.

Counted in the checked interpreter, so without caches: a byte that two programs read counts twice, one that a launch
writes and the next reads twice too. The least is every input read once and every output written once; for gradients
inputs and cotangents read, gradients written. What plain torch does between the launches is not counted.

Needs ``TRITON_INTERPRET=1`` before kernels are imported, so ``traffic`` asks processes of their own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._dispatch import Operation, ops
from core_attention.kernels._dry_run import dtypes_taken
from core_attention.kernels._workers import in_processes, serve

__all__ = ["Moved", "measure", "traffic"]


@dataclass(frozen=True)
class Moved:
    """Bytes moved in one direction of one operation, in float32 where it takes that.

    Attributes:
        operation: its name.
        direction: "forward" or "backward".
        case: the name of the case.
        launches: of kernels.
        moved: loads and stores of all programs, bytes.
        least: bytes.
    """

    operation: str
    direction: str
    case: str
    launches: int
    moved: int
    least: int

    @property
    def ratio(self) -> float:
        """Moved over least."""
        return self.moved / self.least


def traffic(
    only: Sequence[str] = (), *, jobs: int | None = None, done: Callable[[], object] = lambda: None
) -> tuple[list[Moved], list[str]]:
    """Count the traffic of operations with a Triton back end, in processes of their own.

    Args:
        only: names of operations; empty means all.
        jobs: processes; the cores by default.
        done: called after every operation.

    Returns:
        The counts, and one sentence for each operation that failed.
    """
    chosen = [op for op in ops().values() if "gpu" in op.backends and (not only or op.name in only)]
    answers = in_processes(
        "core_attention.kernels._traffic",
        [{"operation": operation.name} for operation in chosen],
        packages=sorted({operation.package for operation in chosen}),
        environment={"TRITON_INTERPRET": "1"},
        jobs=jobs,
        done=done,
    )
    counts: list[Moved] = []
    failures: list[str] = []
    for operation, answer in zip(chosen, answers, strict=True):
        if "error" in answer:
            failures.append(f"{operation.name}: its traffic cannot be counted: {answer['error']}")
        else:
            counts += [Moved(**entry) for entry in answer["counts"]]
    return counts, failures


def measure(operation: Operation) -> list[Moved]:
    """Count the traffic of an operation's first interpreted case in this process, forward and backward.

    Raises:
        RuntimeError: ``TRITON_INTERPRET=1`` was not set.
    """
    from core_attention.kernels._interpreter import checked_interpreter

    cases = operation.module("cases")
    case = getattr(cases, "INTERPRETED", cases.CASES)[operation.name][0]
    dtype = dtypes_taken(operation)[0]
    given = {
        name: None if tensor is None else tensor.detach()
        for name, tensor in zip(operation.arguments, case.arguments(dtype), strict=True)
    }
    wanted = [leaf.requires_grad_() for name in operation.differentiable if (leaf := given[name]) is not None]
    inputs = [tensor for tensor in given.values() if tensor is not None]
    with checked_interpreter() as watch:
        returned = operation.public(**given, **case.options, backend="gpu")
        outputs = returned if isinstance(returned, tuple) else (returned,)
        forward = len(watch.traffic)
        floating = [output for output in outputs if output.requires_grad]
        cotangents = [torch.ones_like(output) for output in floating]
        grads = torch.autograd.grad(floating, wanted, cotangents, allow_unused=True) if floating else ()

    def moved(direction: str, launches: list[Any], tensors: Sequence[Tensor | None]) -> Moved:
        total = sum(launch.loaded + launch.stored for launch in launches)
        return Moved(operation.name, direction, case.name, len(launches), total, sum(map(_bytes, tensors)))

    counts = [moved("forward", watch.traffic[:forward], [*inputs, *outputs])]
    if floating:
        counts.append(moved("backward", watch.traffic[forward:], [*inputs, *cotangents, *grads]))
    return counts


def _bytes(tensor: Tensor | None) -> int:
    """Of the distinct elements: a broadcast dimension holds one."""
    if tensor is None:
        return 0
    distinct = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return tensor.element_size() * math.prod(distinct) if tensor.numel() else 0


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    return {"counts": [asdict(moved) for moved in measure(ops()[task["operation"]])]}


if __name__ == "__main__" and sys.argv[1:2] == ["--worker"]:
    serve(_answer, sys.argv[2:])
