"""Instruments of the kernel tests: error ratios, two references, poisoned buffers, cases, the checked interpreter.

Nothing here is needed to compute; it ships so that a third party can hold a new kernel to the same rules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._dispatch import Operation

__all__ = [
    "Case",
    "TwoReferences",
    "checked_interpreter",
    "error_ratio",
    "nan_poison",
    "non_contiguous",
    "outputs_and_gradients",
    "two_references",
]

_FLOOR = 1e-12  # relative errors below this are rounding of the float64 truth itself


@dataclass(frozen=True)
class Case:
    """A named set of arguments; ``build(dtype, generator)`` makes the tensors, in the order of the operation."""

    name: str
    build: Callable[[torch.dtype, torch.Generator], tuple[Tensor, ...]]

    def arguments(self, dtype: torch.dtype, *, seed: int = 0) -> tuple[Tensor, ...]:
        """The tensors of this case, the same for the same seed."""
        return self.build(dtype, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class TwoReferences:
    """Errors of one tensor (the output or a gradient) against float64: ours, and plain torch's in the same dtype."""

    name: str
    ours: float
    plain: float

    @property
    def holds(self) -> bool:
        """True if our error is at most twice that of plain torch."""
        return self.ours <= 2 * max(self.plain, _FLOOR)


def error_ratio(got: Tensor, truth: Tensor) -> float:
    """Root mean square of the difference over that of the truth, both in float64; infinite if anything is not finite.

    Example:
        >>> error_ratio(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
        0.0
    """
    got, truth = got.detach().double().cpu(), truth.detach().double().cpu()
    if got.shape != truth.shape:
        raise ValueError(f"found shape {tuple(got.shape)}, expected {tuple(truth.shape)}")
    if not torch.isfinite(got).all():
        return float("inf")
    scale = truth.square().mean().sqrt().item()
    return (got - truth).square().mean().sqrt().item() / max(scale, torch.finfo(torch.float64).tiny)


def outputs_and_gradients(
    operation: Operation, function: Callable[..., Tensor], arguments: Sequence[Tensor], cotangent: Tensor
) -> dict[str, Tensor]:
    """Run a function on copies of the arguments and return its output and the gradient of every differentiable one."""
    copies = [
        argument.detach().clone(memory_format=torch.preserve_format).requires_grad_(name in operation.differentiable)
        for name, argument in zip(operation.arguments, arguments, strict=True)
    ]
    output = function(*copies)
    wanted = [copy for copy in copies if copy.requires_grad]
    grads = torch.autograd.grad(output, wanted, cotangent.to(output.dtype).to(output.device))
    names = [f"d_{name}" for name in operation.arguments if name in operation.differentiable]
    return {"output": output.detach(), **dict(zip(names, grads, strict=True))}


def two_references(
    operation: Operation,
    arguments: Sequence[Tensor],
    *,
    ours: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    seed: int = 0,
) -> list[TwoReferences]:
    """Compare output and gradients of two functions with the float64 reference.

    Args:
        operation: names the arguments and gives the reference.
        arguments: tensors in the dtype under test.
        ours: the function under test.
        plain: the same in plain torch operators, run in the same dtype.
        seed: of the random cotangent.
    """
    wide = [argument.double().cpu() if argument.is_floating_point() else argument.cpu() for argument in arguments]
    reference = operation.implementation("reference")
    shape = reference(*wide).shape
    cotangent = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    dtype = next(argument.dtype for argument in arguments if argument.is_floating_point())
    cotangent = cotangent.to(dtype)  # both sides and the truth see the same rounded cotangent
    truth = outputs_and_gradients(operation, reference, wide, cotangent)
    found = outputs_and_gradients(operation, ours, arguments, cotangent)
    peer = outputs_and_gradients(operation, plain, arguments, cotangent)
    return [
        TwoReferences(name, error_ratio(found[name], truth[name]), error_ratio(peer[name], truth[name]))
        for name in truth
    ]


@contextlib.contextmanager
def nan_poison() -> Iterator[None]:
    """Within the context uninitialised buffers of torch, from Python or C++, start as NaN (integers: the maximum).

    A kernel that reads what it never wrote, or leaves an element unwritten, then shows.

    Example:
        >>> with nan_poison():
        ...     torch.empty(2).isnan().all().item()
        True
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def non_contiguous(tensor: Tensor) -> Tensor:
    """Equal values in a layout that is not contiguous: every second element of a wider last dimension."""
    wide = torch.zeros((*tensor.shape[:-1], 2 * tensor.shape[-1]), dtype=tensor.dtype, device=tensor.device)
    wide[..., ::2] = tensor
    return wide[..., ::2]


def checked_interpreter(*, seed: int = 0, tf32: bool = True) -> contextlib.AbstractContextManager[Any]:
    """Triton's interpreter made trustworthy; see ``_interpreter.checked_interpreter``. Needs ``TRITON_INTERPRET=1``."""
    from core_attention.kernels import _interpreter

    return _interpreter.checked_interpreter(seed=seed, tf32=tf32)
