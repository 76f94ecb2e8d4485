"""Instruments of the kernel tests: error ratios, two references, poisoned buffers, cases, the checked interpreter.

Nothing here is needed to compute; it ships so that a third party can hold a new kernel to the same rules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core_attention.kernels._dispatch import Operation

__all__ = [
    "Bad",
    "Case",
    "TwoReferences",
    "checked_interpreter",
    "error_ratio",
    "nan_poison",
    "non_contiguous",
    "outputs_and_gradients",
    "pooled_references",
    "two_references",
]

_FLOOR = 1e-12  # relative errors below this are rounding of the float64 truth itself


@dataclass(frozen=True)
class Case:
    """A named set of arguments; ``build(dtype, generator)`` makes the tensors, in the order of the operation.

    Attributes:
        name: shown by the tests.
        build: makes the tensors; None stands for an optional one that is left out.
        options: the other arguments, by keyword.
    """

    name: str
    build: Callable[[torch.dtype, torch.Generator], tuple[Tensor | None, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, dtype: torch.dtype, *, seed: int = 0) -> tuple[Any, ...]:
        """The tensors of this case, the same for the same seed."""
        return self.build(dtype, torch.Generator().manual_seed(seed))

    def keywords(self, operation: Operation, dtype: torch.dtype, *, seed: int = 0) -> dict[str, Any]:
        """Tensors and options as a call of the public function takes them."""
        return {**dict(zip(operation.arguments, self.arguments(dtype, seed=seed), strict=True)), **self.options}


@dataclass(frozen=True)
class Bad:
    """A call that must be refused: the first case's arguments with some replaced.

    Attributes:
        name: shown by the tests.
        change: a new value by argument, or a function of the old one.
        words: a regular expression that the ValueError's message must match: argument, found, expected.
    """

    name: str
    change: Mapping[str, Any]
    words: str

    def keywords(self, operation: Operation, case: Case, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        """The arguments of the call."""
        given = case.keywords(operation, dtype)
        return given | {name: value(given[name]) if callable(value) else value for name, value in self.change.items()}


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
    operation: Operation,
    function: Callable[..., Any],
    arguments: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
    options: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Run a function and return its outputs and the gradient of every differentiable argument that is given.

    Args:
        operation: names arguments and outputs.
        function: takes the arguments by keyword.
        arguments: in the operation's order; their memory layout is kept.
        cotangents: one an output; None for an output that is not differentiated.
        options: the other arguments.
    """
    leaves = [None if argument is None else argument.detach() for argument in arguments]
    given = dict(zip(operation.arguments, leaves, strict=True))
    wanted = {name: leaf for name in operation.differentiable if (leaf := given[name]) is not None}
    for leaf in wanted.values():
        leaf.requires_grad_()
    returned = function(**given, **(options or {}))
    outputs = returned if isinstance(returned, tuple) else (returned,)
    results = {name: output.detach() for name, output in zip(operation.outputs, outputs, strict=False)}
    pairs = [
        (output, cotangent.to(output))
        for output, cotangent in zip(outputs, cotangents, strict=True)
        if cotangent is not None
    ]
    grads = torch.autograd.grad(
        [output for output, _ in pairs], list(wanted.values()), [grad for _, grad in pairs], materialize_grads=True
    )
    return results | {f"d_{name}": grad for name, grad in zip(wanted, grads, strict=True)}


def two_references(
    operation: Operation,
    arguments: Sequence[Tensor | None],
    *,
    ours: Callable[..., Any],
    plain: Callable[..., Any],
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[TwoReferences]:
    """Compare outputs and gradients of two functions with the float64 reference.

    Args:
        operation: names the arguments and gives the reference.
        arguments: tensors in the dtype under test; None for one left out.
        ours: the function under test; it takes the arguments by keyword.
        plain: the same in plain torch operators, run in the same dtype.
        options: the other arguments.
        seed: of the random cotangents.
    """
    triples = _three_answers(operation, arguments, ours, plain, options or {}, seed)
    return [
        TwoReferences(name, error_ratio(found, truth), error_ratio(peer, truth))
        for name, (found, peer, truth) in triples.items()
    ]


def pooled_references(
    operation: Operation,
    case: Case,
    dtype: torch.dtype,
    *,
    ours: Callable[..., Any],
    plain: Callable[..., Any],
    least: int = 64,
    first: int = 12,
    draws: int = 32,
) -> list[TwoReferences]:
    """``two_references`` over as many random draws of a case as make a root mean square mean something.

    A gradient of one number is right to the last bit by luck in one draw and off by two bits in the next. The rule is
    judged once the smallest result has enough numbers; where it does not hold, the verdict is that of all draws
    together, so a single unlucky one decides nothing and a kernel that errs too much still fails.

    Args:
        operation: names the arguments and gives the reference.
        case: makes the arguments.
        dtype: under test.
        ours: the function under test; it takes the arguments by keyword.
        plain: the same in plain torch operators.
        least: numbers in the smallest result over the draws that are judged first.
        first: at most so many of those.
        draws: of the second verdict.
    """
    pools: dict[str, list[tuple[Tensor, ...]]] = {}
    judged = False
    for seed in range(draws):
        arguments = case.arguments(dtype, seed=seed)
        for name, triple in _three_answers(operation, arguments, ours, plain, case.options, seed).items():
            pools.setdefault(name, []).append(tuple(t.detach().double().cpu().flatten() for t in triple))
        smallest = min(sum(triple[0].numel() for triple in pool) for pool in pools.values())
        enough = not judged and (smallest >= least or seed + 1 >= first)
        if not enough and seed + 1 < draws:
            continue
        joined = {name: [torch.cat(parts) for parts in zip(*pool, strict=True)] for name, pool in pools.items()}
        compared = [
            TwoReferences(name, error_ratio(found, truth), error_ratio(peer, truth))
            for name, (found, peer, truth) in joined.items()
        ]
        if all(entry.holds for entry in compared):
            break
        judged = True
    return compared


def _three_answers(
    operation: Operation,
    arguments: Sequence[Tensor | None],
    ours: Callable[..., Any],
    plain: Callable[..., Any],
    options: Mapping[str, Any],
    seed: int,
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Outputs and gradients by name: ours, plain torch's, and the float64 truth."""
    wide = [_widened(argument) for argument in arguments]
    reference = operation.implementation("reference")
    dtype = next(argument.dtype for argument in arguments if argument is not None)
    cotangents = _cotangents(operation, reference, wide, options, dtype, seed)
    truth = outputs_and_gradients(operation, reference, wide, cotangents, options)
    found = outputs_and_gradients(operation, ours, arguments, cotangents, options)
    peer = outputs_and_gradients(operation, plain, arguments, cotangents, options)
    return {name: (found[name], peer[name], truth[name]) for name in truth}


def _widened(argument: Tensor | None) -> Tensor | None:
    if argument is None:
        return None
    return argument.detach().double().cpu() if argument.is_floating_point() else argument.cpu()


def _cotangents(
    operation: Operation,
    reference: Callable[..., Any],
    wide: Sequence[Tensor | None],
    options: Mapping[str, Any],
    dtype: torch.dtype,
    seed: int,
) -> list[Tensor | None]:
    """Random ones, rounded to the dtype under test so that both sides and the truth see the same; None for codes."""
    returned = reference(**dict(zip(operation.arguments, wide, strict=True)), **options)
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(output.shape, dtype=torch.float64, generator=generator).to(dtype)
        if output.is_floating_point()
        else None
        for output in (returned if isinstance(returned, tuple) else (returned,))
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
